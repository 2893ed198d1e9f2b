"""Another processor, simulated: the same program, with the roundings that other hardware may give.

Two processors agree on what IEEE 754 defines to the last bit: the sum, product, quotient and square root of two
numbers. They don't agree on the order in which a long sum is added up, nor on the last bit of exp, cos or rsqrt, and
PyTorch picks its kernels by instruction set. `another_processor` intervenes at PyTorch's dispatcher, below autograd:

- a product of matrices runs over its inner axis in a shuffled order;
- a sum or mean runs over its axes backwards;
- the result of these and of every other operation in `INEXACT` moves by about one unit in the last place, up, down or
  not at all, as the seed, its shape and its first number decide.

As on a real machine, the same call on the same numbers gives the same result, and equal rows in two places may not.
A whole number stays as it is: exp(0) and sums of small whole numbers are the same everywhere. bfloat16 and float16 are
computed in float32, moved there, and rounded once, which is what their kernels do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # where the first of the two factors stands
SUMS = {"sum", "mean", "var", "var_mean", "std", "linalg_vector_norm", "norm", "logsumexp"}
INEXACT = {
    *PRODUCTS,
    *SUMS,
    *("dot", "mv", "addmv", "convolution", "mkldnn_linear", "cumsum", "prod", "_cdist_forward"),
    *("_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "_fused_rms_norm"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_native_multi_head_attention"),
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "rsqrt", "pow", "erf", "sin", "cos", "tan", "tanh"),
    *("sigmoid", "gelu", "silu", "softplus", "log_sigmoid_forward", "logit", "atan2", "polar"),
    *("_softmax_backward_data", "_log_softmax_backward_data", "native_layer_norm_backward", "gelu_backward"),
    *("silu_backward", "tanh_backward", "sigmoid_backward", "_fused_rms_norm_backward"),
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    *("randn", "normal", "randn_like"),
}
REDUCED = (torch.bfloat16, torch.float16)
STEPS = 1 << 16  # factors for as many values; longer tensors use them again


@contextmanager
def another_processor(seed: int = 1) -> Iterator[None]:
    """Round this thread's operations on the CPU as another machine might. seed: which machine."""
    with _AnotherProcessor(seed):
        yield


class _AnotherProcessor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._factors = {dtype: _factors(seed, dtype) for dtype in (torch.float32, torch.float64)}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away takes longer than a small operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _inexact(func)
        if not name or _is_square(name, args):
            return func(*args, **kwargs)
        if func._schema.is_mutable:
            return tree_map(self._move_in_place, func(*args, **kwargs))
        if any(isinstance(leaf, Tensor) and leaf.dtype in REDUCED for leaf in tree_leaves((args, kwargs))):
            return self._in_float32(func, args, kwargs)
        given = func(*_reordered(func, args, kwargs), **kwargs)
        return self._moved(given) if isinstance(given, Tensor) else tree_map(self._moved, given)

    def _in_float32(self, func: Any, args: Any, kwargs: Any) -> Any:
        """As the kernels of bfloat16 do: accumulated in float32, and rounded at the end."""
        rounded = func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map(_widened, (args, kwargs))
        try:
            wide = func(*_reordered(func, wide_args, wide_kwargs), **wide_kwargs)
        except RuntimeError:  # it was asked for a dtype that float32 can't give
            return rounded
        return tree_map(
            lambda own, new: self._moved(new).to(own.dtype) if isinstance(own, Tensor) else own, rounded, wide
        )

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in self._factors or not value.numel():
            return value
        if value.device.type != "cpu":
            return value
        factors, count = self._factors[value.dtype], value.numel()
        start = hash((count, value.flatten()[0].item())) % STEPS
        if start + count > len(factors):
            factors, start = factors.repeat(2 + count // len(factors)), start % len(factors)
        moved = value * factors[start : start + count].view(value.shape)
        return torch.where(value == value.round(), value, moved)

    def _move_in_place(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in self._factors and value.numel():
            value.copy_(self._moved(value))
        return value


@lru_cache(maxsize=16)
def _factors(seed: int, dtype: torch.dtype) -> Tensor:
    """Numbers that move a value down by one unit in the last place, up by one or two, or not at all."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.finfo(dtype).eps / 2
    choices = torch.tensor([1 - half, 1.0, 1 + 2 * half], dtype=dtype)
    return choices[torch.randint(3, (2 * STEPS,), generator=generator)]


@cache
def _inexact(func: Any) -> str:
    """An operation's name; empty for one that gives the same everywhere."""
    name: str = func.overloadpacket.__name__
    return name if name.rstrip("_") in INEXACT else ""


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in REDUCED else value


def _is_square(name: str, args: Any) -> bool:
    """x ** 2 is one multiplication, which is the same everywhere."""
    return name == "pow" and not isinstance(args[1], Tensor) and args[1] == 2


def _reordered(func: Any, args: Any, kwargs: Any) -> Any:
    """The arguments of a product or a sum such that its terms are added up in another order."""
    name = func.overloadpacket.__name__
    if name in PRODUCTS:
        at = PRODUCTS[name]
        order = _order(args[at].shape[-1])
        factors = args[at].index_select(-1, order), args[at + 1].index_select(-2, order)
        return (*args[:at], *factors, *args[at + 2 :])
    if name in SUMS and args[0].ndim:
        return (args[0].flip(_reduced_axes(func, args, kwargs)), *args[1:])
    return args


def _reduced_axes(func: Any, args: Any, kwargs: Any) -> tuple[int, ...]:
    """The axes that a reduction sums over: those it names, or else all."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    named = given.get("dim")
    axes = [named] if isinstance(named, int) else named
    return tuple(axes) if axes else tuple(range(args[0].ndim))


@lru_cache(maxsize=256)
def _order(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))
