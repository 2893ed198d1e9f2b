"""Name a step inside a module, so that a layer comparison can look at it.

    from grader import step

    q, k = step("rope", q, k)

returns what it is given. Only while a comparison listens, what it is given is noted under the module that is
running. transformers has functions for such steps, and its names for them are in `FUNCTIONS`.
"""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

Listener = Callable[[str, Tensor], None]
# Functions by their names, and which step each of their outputs is.
FUNCTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"apply_(rotary|rope)", ("rope", "rope")),
    (r"^(eager|sdpa)_attention_forward$", ("attention", "weights")),
    (r"causal_conv1d", ("conv",)),
    (r"delta_rule|delta_attention|(^|_)kda$", ("delta_rule", "state")),
    (r"chunk_scan|selective_scan|selective_state_update", ("scan", "state")),
)
# Other words for the same steps.
WORDS = {
    **dict.fromkeys(("rotary", "rotate", "rotated", "rotary_embedding"), "rope"),
    **dict.fromkeys(("convolution", "conv1d", "causal_conv1d"), "conv"),
    **dict.fromkeys(("probabilities", "probs", "softmax", "attn_weights", "attention_weights"), "weights"),
    **dict.fromkeys(("context", "attn_output", "attended"), "attention"),
    **dict.fromkeys(("delta", "recurrence", "gated_delta_rule"), "delta_rule"),
    **dict.fromkeys(("ssm", "ssd", "selective_scan"), "scan"),
}
_listeners: list[Listener] = []


class Step(nn.Identity):
    """What a noted step is shown as, where a call of a module is expected."""


def step(name: str, *values: Any) -> Any:
    """Name one value, or several, as a step: they come back as they are, several as a tuple.

    name: one of "rope", "conv", "delta_rule", "scan", "weights" (of attention), "attention" (their weighted sum),
    "state", or another; WORDS lists their synonyms.
    """
    if _listeners:
        for value in values:
            if isinstance(value, Tensor):
                _listeners[-1](WORDS.get(name, name), value)
    return values[0] if len(values) == 1 else values


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Have `listener` told of every step. None: nothing is changed."""
    if listener is None:
        yield
        return
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


@contextlib.contextmanager
def functions_as_steps(model: nn.Module) -> Iterator[None]:
    """Have the functions of FUNCTIONS, in the files that define the model's classes, name their outputs as steps."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    inside: list[str] = []
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    homes = {id(home): home for kind in sorted(kinds, key=_full_name) if (home := _home_of(kind))}
    for defined in homes.values():
        for name, function in list(defined.items()):
            roles = next((roles for pattern, roles in FUNCTIONS if re.search(pattern, name)), None)
            if roles and callable(function) and not isinstance(function, type):
                replaced.append((defined, name, function))
                defined[name] = _named(function, roles, inside)
    try:
        yield
    finally:
        for defined, name, function in reversed(replaced):
            defined[name] = function


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _home_of(kind: type[nn.Module]) -> dict[str, Any]:
    """What the file that defines a class has defined; another file may have been loaded under its name since then."""
    own: dict[str, Any] = getattr(inspect.unwrap(kind.forward), "__globals__", {})
    if own.get("__name__") == kind.__module__:
        return own
    module = sys.modules.get(kind.__module__)
    return {} if module is None else vars(module)


def _named(function: Callable[..., Any], roles: tuple[str, ...], inside: list[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if inside:  # such a function calls another one
            return function(*args, **kwargs)
        inside.append(roles[0])
        try:
            given = function(*args, **kwargs)
        finally:
            inside.pop()
        outputs = given if isinstance(given, tuple | list) else (given,)
        named = list(zip(roles, outputs, strict=False))
        for role, value in reversed(named) if "weights" in roles else named:  # weights come before what they weigh
            step(role, value)
        return given

    return wrapper
