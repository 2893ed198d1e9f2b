"""What a value is, in words, and the number that it stands for where a check needs one."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

NOTHING = "it gave None where a value belongs; does every function end with `return`?"


class NoNumber(TypeError):
    """What came back is no number; its message says what it is."""


def kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    kind = type(value).__name__
    if type(value).__module__ == "numpy":
        return f"a NumPy {kind.removeprefix('nd')}"
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def number(kind: Callable[[Any], Any], *value: Any) -> Any:
    """What `float` or `int` makes of a value, which must be a number: a text is none, though they read one.

    kind: `float` or `int`. Raises NoNumber.
    """
    for one in value[:1]:
        if one is None:
            raise NoNumber("it gave None where a number belongs; does it end with `return`?")
        if isinstance(one, Tensor) and one.numel() != 1:
            raise NoNumber(f"it gave a tensor of shape {list(one.shape)} where one number belongs")
        known = any(hasattr(type(one), name) for name in ("__float__", "__int__", "__index__"))
        if not isinstance(one, Tensor) and (getattr(one, "ndim", False) or not known):
            raise NoNumber(f"it gave {kind_of(one)} where a number belongs")
    return kind(*value)
