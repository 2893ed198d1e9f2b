"""A second device, named `fake`, that computes: the numbers of its tensors are on the CPU, where every operator is run.

As with a GPU, tensors of two devices do not mix. It stands on PyTorch's own way to write a backend in Python, which is
experimental. After `install()` the device is there for as long as the process lives, so tests use it in one of
their own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME, KEY = "fake", "PrivateUse1"
# The CPU's memory, and where in it a tensor begins, by the address of the tensor's own storage, which has no memory.
_memory: dict[int, tuple[torch.UntypedStorage, int]] = {}
_libraries: list[torch.library.Library] = []  # what they register is gone when they are
_deepcopy = Tensor.__deepcopy__


def install() -> None:
    """Make the device `fake` known to PyTorch."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    every, aten = (torch.library.Library(name, "IMPL", KEY) for name in ("_", "aten"))
    every.fallback(_run, KEY)
    for name in ("_copy_from", "_copy_from_and_resize"):
        aten.impl(name, _copy, KEY)
    for name in ("arange", "arange.start", "arange.start_step"):  # these resize what they fill
        aten.impl(name, _made_by(torch.arange), KEY)
    aten.impl("as_strided", _view, KEY)
    aten.impl("_local_scalar_dense", lambda tensor: _held(tensor).item(), KEY)
    _libraries.extend((every, aten))
    Tensor.__deepcopy__ = _copied  # type: ignore[method-assign]


def _with(numbers: Tensor) -> Tensor:
    """A tensor of the device that has these numbers."""
    made: Tensor = torch._C._acc.create_empty_tensor(tuple(numbers.shape), numbers.dtype)
    own = numbers.clone(memory_format=torch.contiguous_format)
    _memory[made.untyped_storage()._cdata] = own.untyped_storage(), 0
    return made


def _held(value: Any) -> Any:
    """What an operator of the CPU takes in the place of a value."""
    if isinstance(value, Tensor) and value.device.type == NAME:
        memory, start = _memory[value.untyped_storage()._cdata]
        held = torch.empty(0, dtype=value.dtype, device="cpu")
        return held.set_(memory, start + value.storage_offset(), value.size(), value.stride())
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _view(tensor: Tensor, size: Any, stride: Any, offset: int | None = None) -> Tensor:
    """Another view of a tensor's memory. offset: counted from where its storage begins."""
    memory, start = _memory[tensor.untyped_storage()._cdata]
    empty = torch._C._acc.create_empty_tensor((), tensor.dtype)
    _memory[empty.untyped_storage()._cdata] = memory, start + int(tensor.storage_offset() if offset is None else offset)
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)  # its kernel only sets sizes and strides
    made: Tensor = torch.ops.aten._reshape_alias.default.redispatch(cpu, empty, list(size), list(stride))
    return made


def _run(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run any other operator on the CPU."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if len({t.device.type for t in tensors if t.ndim or t.device.type == NAME}) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu!")
    held: dict[int, Any] = {id(tensor): _held(tensor) for tensor in tensors}
    owners = {held[id(t)].untyped_storage()._cdata: t for t in tensors if t.device.type == NAME}
    themselves = {id(held[id(t)]): t for t in tensors}
    args, kwargs = tree_map(lambda leaf: held.get(id(leaf), _held(leaf)), (args, kwargs))

    def back(value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) in themselves:
            return themselves.get(id(value), value)  # what was changed in place is given back itself
        owner = owners.get(value.untyped_storage()._cdata)
        if owner is None or owner.dtype != value.dtype:
            return _with(value)
        start = _memory[owner.untyped_storage()._cdata][1]
        return _view(owner, value.size(), value.stride(), int(value.storage_offset()) - start)

    return tree_map(back, operator(*args, **kwargs))


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """`copy.deepcopy`, which would look for a storage's memory."""
    if tensor.device.type != NAME:
        return _deepcopy(tensor, memo)
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _held(target).copy_(_held(source))
    return target


def _made_by(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(*args: Any, device: Any = None, pin_memory: Any = None, **kwargs: Any) -> Tensor:
        return _with(make(*args, **kwargs))

    return made
