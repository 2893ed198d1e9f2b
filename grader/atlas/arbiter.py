"""What transformers' own model of a config tells where no line of families.toml is of its family.

The model is made without memory for its weights (PyTorch's meta device), so that any size is counted in seconds. Its
cache is counted by running it so: shapes come out, and no numbers.
"""

import importlib.util
import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from grader.atlas.cache import FULL, SLIDING, STATE, LayerCache
from grader.atlas.fields import Fact
from grader.errors import GraderError, last_line
from grader.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from torch import nn

T = TypeVar("T")
INSTALL = "pip install transformers"
# Two lengths that tell what a layer keeps for each token. A third, beyond the window that the cache itself tells, must
# come out as they say.
SHORT, LONGER = 24, 40
LONGEST_TRY = 9_000  # tokens: beyond it masks and loops over chunks take minutes
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
ROUTERS = ("router", "gate")  # what stands beside the experts that it chooses among
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts", "moe_k")


@dataclass(frozen=True)
class Asked:
    """What transformers' own model of a config is.

    kind: its model_type. model_class: its class. parameters: all, a tied head counted once. active: those that one
    token's work uses; None where it can't be told. kept: what its layers keep of a text; None where that can't be told,
    for the reason in `why`. blocks: the kinds of layers. facts: the rest, by name.
    """

    kind: str
    model_class: str
    parameters: int
    active: int | None
    kept: tuple[LayerCache, ...] | None
    why: str
    blocks: tuple["Block", ...]
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class Block:
    """A kind of layer: its parts by their names in the checkpoint, with their parameters, and how many layers have it.

    The order is that in which the code makes them. How they are joined is not told. shared: the parts whose parameters
    other layers use, too.
    """

    parts: tuple[tuple[str, int], ...]
    layers: int
    shared: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return ", ".join(self.part_words(name, f"{size:,}") for name, size in self.parts)

    def part_words(self, name: str, size: str) -> str:
        """A part's name and size, and whether other layers use the same weights."""
        return f"{name} ({size}{', the same weights in several layers' if name in self.shared else ''})"


class Unread(GraderError):
    """Raised where a family's code was not read, so that it has no figure, and transformers' own model is at hand."""

    def __init__(self, asked: Asked, name: str = "") -> None:
        self.asked, self.name = asked, name or asked.kind
        self.remark = (
            f"The code of {asked.kind} was not read for this atlas: what stands here was counted on transformers' own"
            " model, and how its parts are joined is not told."
        )
        super().__init__(
            f"the code of {asked.kind} was not read for this atlas. `grader card` shows what transformers' own"
            f" {asked.model_class} tells of it, `grader kv` counts its cache, `grader trace` makes a small reference."
        )


class NoDecoder(GraderError):
    """Raised for a model that reads both ways, as BERT does."""


def installed() -> bool:
    """Whether transformers is here to be asked."""
    return importlib.util.find_spec("transformers") is not None


def held(
    own: Mapping[str, Any], kind: str, guess: Callable[[], T], agrees: Callable[[T, Asked], bool], name: str = ""
) -> tuple[T, bool]:
    """What a family that is not known here is as its nearest relative, and whether transformers' own model agrees.

    own: the language model's fields. kind: its model_type. guess: reads it. Raises Unread where transformers' model is
    another, and GraderError where nobody can read it, or transformers, which might, is not installed.
    """
    try:
        found = guess()
    except GraderError:
        with suppress(NoDecoder):  # what was found wrong before says more
            if asked := asked_of(own, kind):
                raise Unread(asked, name) from None
        raise
    asked = asked_of(own, kind)
    if asked and not agrees(found, asked):
        raise Unread(asked, name)
    if not installed():
        raise GraderError(
            f"the model_type {kind!r} is not known here, and read as its nearest relative it could be counted wrong."
            f" Where transformers is installed its own model is asked: {INSTALL}"
        )
    return found, asked is not None


def asked_of(own: Mapping[str, Any], kind: str) -> Asked | None:
    """What transformers' model of these fields is; None where it is not installed, or knows no such model_type.

    own: the language model's fields. kind: its model_type. Raises GraderError where transformers refuses the config.
    """
    if not kind or not installed():
        return None
    return _asked(kind, json.dumps(dict(own), sort_keys=True, default=str))


@lru_cache(maxsize=32)
def _asked(kind: str, fields: str) -> Asked | None:
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if kind not in CONFIG_MAPPING or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return None
    from transformers import AutoModelForCausalLM

    given = {name: value for name, value in json.loads(fields).items() if name not in ("model_type", "architectures")}
    with quiet_transformers():
        try:
            config = CONFIG_MAPPING[kind](**given)
            for part in {id(part): part for part in (config, config.get_text_config(decoder=True))}.values():
                part._experts_implementation = "batched_mm"  # a loop over experts asks which were chosen
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        except Exception as error:  # each class checks its config in a way of its own
            raise GraderError(f"transformers' class for {kind} refuses this config: {last_line(error)}") from None
        if getattr(config, "is_decoder", None) is False and _asks_which(model):
            raise NoDecoder(f"a {kind} model with this config reads both ways; decoders alone are read here.")
        kept, why = _kept(model)
    text = config.get_text_config(decoder=True)
    name, blocks = type(model).__name__, _blocks(model)
    return Asked(kind, name, _size(model), _active(model, text), kept, why, blocks, _facts(name, text, blocks))


def _asks_which(model: "nn.Module") -> bool:
    """Whether a model's code reads `is_decoder`: GPT-NeoX Japanese has the field, and nothing reads it."""
    return re.search(r"\.is_decoder\b(?! = )", inspect.getsource(sys.modules[type(model).__module__])) is not None


def _facts(model_class: str, text: Any, blocks: tuple[Block, ...]) -> dict[str, Fact]:
    source = f"config of transformers' {model_class}"
    names = {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "vocabulary": "vocab_size",
        "context": "max_position_embeddings",
    }
    found = {label: Fact(getattr(text, name, None), f"{source}: {name}") for label, name in names.items()}
    kinds = getattr(text, "layer_types", None)
    if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        found["layer mix"] = Fact(counted, f"{source}: layer_types")
    made = sum(block.layers for block in blocks)
    for number, block in enumerate(blocks):
        label = "a layer" if not number else f"a layer, {number + 1}"
        times = f"{block.layers} layer{'s' * (block.layers > 1)}"
        if made != found["layers"].value:  # as in models that use layers again and again, or have several stacks
            times = f"made {block.layers} times" if block.layers > 1 else "made once"
        found[label] = Fact(f"{block.words}; {times}", f"modules of {model_class}")
    tied = getattr(text, "tie_word_embeddings", None)
    return {**found, "tied head": Fact(tied, f"{source}: tie_word_embeddings")}


def _blocks(model: "nn.Module") -> tuple[Block, ...]:
    """The kinds of layers, by what they hold: those of the list of modules that has most of the parameters.

    A model may have several such lists, as BLT and HRM do: those whose modules are of the same classes count, too.
    """
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        return ()
    classes = {type(layer) for layer in max(lists, key=_size)}
    layers = {id(layer): layer for found in lists for layer in found if type(layer) in classes}.values()
    users = Counter(number for layer in layers for number in {id(parameter) for parameter in layer.parameters()})
    counted: Counter[tuple[Any, Any]] = Counter()
    for layer in layers:
        parts = tuple((name, _size(part)) for name, part in layer.named_children())
        shared = (name for name, part in layer.named_children() if any(users[id(p)] > 1 for p in part.parameters()))
        counted[parts, tuple(shared)] += 1
    return tuple(Block(parts, number, shared) for (parts, shared), number in counted.items())


def _size(module: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _active(model: "nn.Module", text: Any) -> int | None:
    """All parameters but those of the experts that a token is not sent to; None where these can't be told apart."""
    number = next((getattr(text, name) for name in EXPERTS if getattr(text, name, None)), None)
    if number is None:
        return _size(model)
    chosen = next((getattr(text, name) for name in CHOSEN if getattr(text, name, None)), None)
    sizes = dict(model.named_parameters())
    words = ("expert", *ROUTERS[:1])
    if not any(word in name for name in sizes for word in words) and not any(p.ndim > 2 for p in sizes.values()):
        return _size(model)  # a class that can have experts, and here has none
    routed = {name.partition(f".{part}.")[0] for name in sizes for part in ROUTERS if f".{part}." in name}
    deep = {name: parameter for name, parameter in sizes.items() if parameter.ndim == 3 and len(parameter) == number}
    stacked = {
        id(parameter): parameter
        for name, parameter in deep.items()
        if "expert" in name or any(name.startswith(f"{module}.") for module in routed)
    }
    if type(number) is not int or type(chosen) is not int or not stacked or len(stacked) < len(deep):
        return None
    whole = sum(parameter.numel() for parameter in stacked.values())
    return _size(model) - whole + whole * chosen // number


def _kept(model: "nn.Module") -> tuple[tuple[LayerCache, ...] | None, str]:
    """What the layers keep, and an empty text; or None, and why that can't be told."""
    try:
        few, more = _held(model, SHORT), _held(model, LONGER)
        found = tuple(_layer(a, b) for a, b in zip(few, more, strict=True))
        window = max((layer.window or 0 for layer in found), default=0)
        tried = min(max(window + 8, 2 * LONGER), LONGEST_TRY)
        real = sum(values.total for values in _held(model, tried))
    except _Uneven as error:
        return None, str(error)
    except Exception as error:  # a model that asks for numbers has none here
        return None, f"its model can't be run without weights ({last_line(error)})"
    said = sum(layer.bytes_at(_within(tried, layer.window)) for layer in found)
    if said != real:
        return (
            None,
            f"its cache does not grow evenly: {said:,} bytes are expected at {tried:,} tokens, and {real:,} kept",
        )
    return tuple(layer for layer in found if layer.bytes_at(1)), ""


class _Uneven(Exception):
    """Raised where what a layer keeps can't be said by a number for each token and one that is always there."""


@dataclass(frozen=True)
class _Held:
    """What one layer of a cache holds after some tokens: numbers in the model's dtype, and numbers in float32."""

    tokens: int
    values: int
    float32: int
    window: int | None

    @property
    def total(self) -> int:
        return 2 * self.values + 4 * self.float32


def _held(model: "nn.Module", tokens: int) -> list[_Held]:
    """What each layer of the cache holds after a text of so many tokens."""
    import torch

    with torch.device("meta"), torch.no_grad():
        out = model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=True)
    cache = out.get("past_key_values") if isinstance(out, dict) else None
    if cache is None:
        raise _Uneven("transformers' model keeps no cache that can be counted")
    layers = getattr(cache, "layers", None) or [cache]
    return [_of_layer(layer, tokens) for layer in layers]


def _of_layer(layer: Any, tokens: int) -> _Held:
    import torch

    values = float32 = 0
    for tensor in _tensors(layer):
        if tensor.is_floating_point():
            if tensor.dtype == torch.float32:
                float32 += tensor.numel()
            else:
                values += tensor.numel()
    window = getattr(layer, "sliding_window", None) if getattr(layer, "is_sliding", False) else None
    return _Held(tokens, values, float32, window)


def _tensors(held: Any, seen: set[int] | None = None, depth: int = 0) -> "Iterator[torch.Tensor]":
    """The tensors that an object holds, each once, in whatever lists, dicts and objects they are."""
    import torch
    from torch import nn

    seen = set() if seen is None else seen
    if id(held) in seen or depth > 5:
        return
    seen.add(id(held))
    if isinstance(held, torch.Tensor):
        yield held
        return
    inner: Iterable[Any] = ()
    if isinstance(held, (list, tuple)):
        inner = held
    elif isinstance(held, dict):
        inner = held.values()
    elif hasattr(held, "__dict__") and not isinstance(held, nn.Module):
        inner = [value for name, value in vars(held).items() if name != "config"]
    for part in inner:
        yield from _tensors(part, seen, depth + 1)


def _layer(few: _Held, more: _Held) -> LayerCache:
    """What a layer keeps, by what it held after two texts."""
    if few.window:  # which both texts may fill
        each, rest = divmod(more.values, _within(more.tokens, few.window))
        if rest or each * _within(few.tokens, few.window) != few.values or more.float32:
            raise _Uneven("its window does not hold as much for each token")
        return LayerCache(SLIDING, each, few.window)
    grown, apart = more.values - few.values, more.tokens - few.tokens
    if grown % apart or more.float32 != few.float32:
        raise _Uneven("its cache does not grow by as much for each token")
    each = grown // apart
    always = few.values - each * few.tokens
    if always < 0:
        raise _Uneven("its cache does not grow by as much for each token")
    return LayerCache(FULL if each else STATE, each, state_values=always, float32_values=few.float32)


def _within(tokens: int, window: int | None) -> int:
    """How many tokens transformers' sliding cache holds between two steps: one less than the window, at most."""
    return min(tokens, window - 1) if window else tokens
