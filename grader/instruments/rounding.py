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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from grader.modes import Mode

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


class _AnotherProcessor(Mode):
    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._factors = {dtype: _factors(seed, dtype) for dtype in (torch.float32, torch.float64)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = _KNOWN.get(id(func)) or _operation(func)
        if not operation.inexact:  # most are: what is asked of each takes as long as the operation itself
            return operation.run(*args, **kwargs) if kwargs else operation.run(*args)
        kwargs = kwargs or {}
        if _is_square(operation, args):
            return operation.run(*args, **kwargs)
        if operation.in_place:
            return tree_map(self._move_in_place, operation.run(*args, **kwargs))
        if any(map(_is_reduced, args)) or (kwargs and any(map(_is_reduced, kwargs.values()))):
            return self._in_float32(operation, args, kwargs)
        given = operation.run(*_reordered(operation, args, kwargs), **kwargs)
        return self._moved(given) if isinstance(given, Tensor) else tree_map(self._moved, given)

    def _in_float32(self, operation: "_Operation", args: Any, kwargs: Any) -> Any:
        """As the kernels of bfloat16 do: accumulated in float32, and rounded at the end."""
        rounded = operation.run(*args, **kwargs)
        wide_args, wide_kwargs = [_widened(arg) for arg in args], {name: _widened(arg) for name, arg in kwargs.items()}
        try:
            wide = operation.run(*_reordered(operation, wide_args, wide_kwargs), **wide_kwargs)
        except RuntimeError:  # it was asked for a dtype that float32 can't give
            return rounded
        if isinstance(rounded, Tensor):
            return self._moved(wide).to(rounded.dtype)
        return tree_map(
            lambda own, new: self._moved(new).to(own.dtype) if isinstance(own, Tensor) else own, rounded, wide
        )

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in self._factors or not value.is_cpu:
            return value
        factors, count = self._factors[value.dtype], value.numel()
        if not count:
            return value
        first = value.as_strided((), ()).item()  # in one step, where an index takes one for each axis
        start = hash((count, first if first == first else 0.0)) % STEPS  # each NaN has a hash of its own
        if start + count > len(factors):
            factors, start = factors.repeat(2 + count // len(factors)), start % len(factors)
        if value.is_contiguous():
            factors = factors.as_strided(value.shape, value.stride(), start)
        else:
            factors = factors[start : start + count].view(value.shape)
        return torch.where(value.eq(value.round()), value, value.mul(factors))

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


@dataclass(frozen=True)
class _Operation:
    """What is asked of an operation at each call of it: told once from its schema, which takes long.

    overload: PyTorch's own name of it. run: what calls it. product: where the first of its two factors stands, if it is
    a product.
    """

    overload: Any
    run: Callable[..., Any]
    name: str
    inexact: bool
    in_place: bool
    arguments: tuple[str, ...]
    product: int | None
    is_sum: bool


# By the overload's id, which stays its own, as the value holds it: its hash is computed anew in Python at each look-up.
_KNOWN: dict[int, _Operation] = {}


def _operation(func: Any) -> _Operation:
    name: str = func.overloadpacket.__name__
    schema = func._schema
    _KNOWN[id(func)] = found = _Operation(
        func,
        getattr(func, "_op", func),  # what func(...) calls, without a step between
        name,
        name.rstrip("_") in INEXACT,
        schema.is_mutable,
        tuple(argument.name for argument in schema.arguments),
        PRODUCTS.get(name),
        name in SUMS,
    )
    return found


def _is_reduced(value: Any) -> bool:
    """Whether it is a tensor of bfloat16 or float16; no operation in `INEXACT` takes tensors in a list."""
    return isinstance(value, Tensor) and value.dtype in REDUCED


def _widened(value: Any) -> Any:
    return value.float() if _is_reduced(value) else value


def _is_square(operation: _Operation, args: Any) -> bool:
    """x ** 2 is one multiplication, which is the same everywhere."""
    return operation.name == "pow" and not isinstance(args[1], Tensor) and args[1] == 2


def _reordered(operation: _Operation, args: Any, kwargs: Any) -> Any:
    """The arguments of a product or a sum such that its terms are added up in another order."""
    at = operation.product
    if at is not None:
        order = _order(args[at].shape[-1])
        factors = args[at].index_select(-1, order), args[at + 1].index_select(-2, order)
        return (*args[:at], *factors, *args[at + 2 :])
    if operation.is_sum and args[0].ndim:
        return (args[0].flip(_reduced_axes(operation, args, kwargs)), *args[1:])
    return args


def _reduced_axes(operation: _Operation, args: Any, kwargs: Any) -> tuple[int, ...]:
    """The axes that a reduction sums over: those it names, or else all."""
    given = dict(zip(operation.arguments, args, strict=False)) | kwargs
    named = given.get("dim")
    axes = [named] if isinstance(named, int) else named
    return tuple(axes) if axes else tuple(range(args[0].ndim))


@lru_cache(maxsize=256)
def _order(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(size))
