"""Tensors that a program makes on the CPU though its input is elsewhere: noticed on a machine that has the CPU alone.

On a GPU `scores + mask` raises an error where `mask` was made without `device=`. Here the same is noticed by following
each tensor that is made so, until it meets one that is not, in an operation that takes both from one device.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, resolve_name

from grader.checks.observation import LeftBehind

MARK = "_made_without_device"
# Operations that take tensors of two devices: they look at a shape alone, copy numbers over, or take positions.
BOTH = frozenset(
    (
        "expand_as",
        "view_as",
        "reshape_as",
        "type_as",
        "to",
        "copy_",
        "set_",
        "index_put_",
        "index_put",
        "is_same_size",
        "result_type",
        "can_cast",
        "__getitem__",
        "__setitem__",
        "__get__",
        "__set__",
        "__len__",
        "__hash__",
        "__repr__",
        "__format__",
    )
)
# Operations whose result is where the last argument is, or where one that is named says.
MOVES = frozenset(("to", "type_as", "cpu", "cuda"))


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Follow tensors for a while, and no longer, whatever modes a program leaves on or takes off meanwhile.

    Raises LeftBehind where two devices meet.
    """
    mode = Following()
    mode.__enter__()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        while mode in _get_current_function_mode_stack():  # type: ignore[no-untyped-call]
            _pop_mode()  # type: ignore[no-untyped-call]


class Following(TorchFunctionMode):
    """While it lasts, a tensor that is made without `device=` is followed. Raises LeftBehind where two devices meet."""

    def __init__(self) -> None:
        super().__init__()
        self.devices_behind: list[Any] = []  # asked of a tensor left behind; each is an object of its own

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = _tensors((*args, *kwargs.values()))
        name = getattr(func, "__name__", "")
        if name not in BOTH:
            _meet(func, given)
        result = func(*args, **kwargs)
        if isinstance(result, torch.device) and given and getattr(given[0], MARK, False):
            self.devices_behind.append(result)
        behind = self._is_left_behind(name, given, args, kwargs)
        if name in MOVES and result is given[0]:  # moved from the CPU to the CPU
            result = result.view_as(result)
        for tensor in _tensors((result,)):
            if not any(tensor is one for one in given):  # what an operation changes stays where it is
                setattr(tensor, MARK, behind)
        return result

    def _is_left_behind(self, name: str, given: list[Tensor], args: Any, kwargs: dict[str, Any]) -> bool:
        named = kwargs.get("device")
        if name == "to":
            named = named or next((arg for arg in args[1:] if isinstance(arg, str | torch.device)), None)
        if name in ("cpu", "cuda"):
            return name == "cpu"
        if named is not None:  # a device is not a text, and `x.device` is one
            return bool(named == "cpu") or any(named is one for one in self.devices_behind)
        if not given:
            return True
        if name in ("to", "type_as"):
            return bool(getattr(given[-1], MARK, False))
        if name in BOTH:
            return bool(getattr(given[0], MARK, False))
        wide = [tensor for tensor in given if tensor.ndim and tensor.numel()] or given
        return all(getattr(tensor, MARK, False) for tensor in wide)


def arrived(module: nn.Module) -> None:
    """Say that a module has been moved: its parameters and buffers are where the input is, and nothing else is."""
    for tensor in (*module.parameters(), *module.buffers()):
        setattr(tensor, MARK, False)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values, and in lists of them."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _meet(func: Callable[..., Any], given: list[Tensor]) -> None:
    """Raises LeftBehind where tensors with axes are of two devices. A single number may be of either."""
    wide = [tensor for tensor in given if tensor.ndim and tensor.numel()]
    behind = [tensor for tensor in wide if getattr(tensor, MARK, False)]
    if behind and len(behind) < len(wide):
        other = next(tensor for tensor in wide if not getattr(tensor, MARK, False))
        raise LeftBehind(
            f"in `{(resolve_name(func) or 'an operation').removeprefix('torch.')}` a tensor {list(behind[0].shape)},"
            f" which was made without `device=`, meets one {list(other.shape)} that is on the device of the input"
        )
