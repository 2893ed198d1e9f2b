"""Fields of a program's config that take one of a few values, as an enumeration's: which one fits the reference."""

import enum
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from grader.porting.adapters.fields import Known

GATED = ("swiglu", "llama", "gated", "glu")
# What a field is about, by its name, and what its value should have in its name, the best first.
KINDS: tuple[tuple[str, "typing.Callable[[Known], tuple[str, ...]]"], ...] = (
    (r"norm.*(type|class|kind)|(type|class|kind).*norm", lambda known: _norms(known)),
    (r"(mlp|ffn|feed_?forward).*(type|class|kind)", lambda known: _mlps(known)),
    (r"act(ivation)?(_|$)", lambda known: _activations(known)),
    (r"arch", lambda known: (_letters(str(known.fields.get("model_type"))),)),
)
OF_LAYERS = re.compile(r"(attn|attention|layer)_?types?$")
LOCAL, GLOBAL = re.compile(r"local|slid|window", re.IGNORECASE), re.compile(r"global|full", re.IGNORECASE)


def chosen(config: type, known: Known) -> Iterator[tuple[str, str, type | None]]:
    """For each such field: its name, an expression for its value, and the enumeration that this needs."""
    for name, hint in _hints(config).items():
        found = next((k for k in _kinds_in(hint) if _options(k)), None)
        if found is None:
            continue
        needs = found if isinstance(found, type) else None
        if OF_LAYERS.search(name) and known.fields.get("layer_types"):
            value = _of_layers(_options(found))
        else:
            value = _best(name, _options(found), known)
        default = getattr(config, name, None)
        if value and value != _expression(default):
            yield name, value, needs


def _hints(config: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(config)
    except Exception:  # what is imported for annotations alone may be missing
        home = vars(sys.modules.get(config.__module__, typing))
        plain = vars(config).get("__annotations__", {})
        return {n: home.get(a, a) if isinstance(a, str) else a for n, a in plain.items()}


def _kinds_in(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        if not isinstance(part, str):
            yield from _kinds_in(part)


def _options(kind: Any) -> dict[str, str]:
    """The values of an enumeration or of a Literal of texts: an expression for each, by what its name says."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {f"{_letters(member.name)} {_letters(str(member.value))}": _expression(member) for member in kind}
    if typing.get_origin(kind) is Literal:
        return {_letters(text): f'"{text}"' for text in typing.get_args(kind) if isinstance(text, str)}
    return {}


def _expression(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _best(name: str, options: Mapping[str, str], known: Known) -> str | None:
    words = next((words(known) for pattern, words in KINDS if re.search(pattern, name)), ())
    for word in words:
        for option, value in options.items():
            if any(word in part or (len(part) > 3 and word.startswith(part)) for part in option.split()):
                return value
    return None


def _of_layers(options: Mapping[str, str]) -> str | None:
    """A list with a value for each layer, sliding or full."""
    local = next((value for option, value in options.items() if LOCAL.search(option)), None)
    whole = next((value for option, value in options.items() if GLOBAL.search(option)), None)
    if not local or not whole:
        return None
    return f'[{local} if kind == "sliding_attention" else {whole} for kind in config.layer_types]'


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _norms(known: Known) -> tuple[str, ...]:
    has_bias = known.any_weight(r"(norm|ln_?\w*)\.bias$") == "True"
    weighted = known.any_weight(r"(norm|ln_?\w*)\.weight$") == "True"
    return ("rms",) if weighted and not has_bias else ("layernorm", "default")


def _mlps(known: Known) -> tuple[str, ...]:
    gated = known.any_weight(r"gate_(up_)?proj\.weight$") == "True"
    curved = "gelu" in str(known.fields.get("hidden_act") or known.fields.get("hidden_activation"))
    return (("gemma", *GATED) if curved else GATED) if gated else ("neox", "gelu", "default", "mlp")


def _activations(known: Known) -> tuple[str, ...]:
    name = _letters(str(known.fields.get("hidden_act") or known.fields.get("hidden_activation") or ""))
    gated = known.any_weight(r"gate_(up_)?proj\.weight$") == "True"
    if name in ("silu", "swish"):
        return ("swiglu", "silu", "swish") if gated else ("silu", "swish")
    return (name, "geglu" if gated else "gelu", "gelu") if name else ()
