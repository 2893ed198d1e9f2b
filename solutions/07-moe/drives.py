"""How routers and experts are used: a router as one weight for each token and expert, in whatever order it chose."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import MultiplyAdds


def dense_weights(router: Any, x: Tensor) -> Tensor:
    """What each expert's output is multiplied by for each token: [N, num_experts], 0 where it was not chosen.

    router(x) gives the weights and the experts' numbers, [N, k] each, in an order of its own.
    """
    weights, chosen = two_tensors(router(x))
    if weights.shape != chosen.shape or weights.ndim != 2 or len(weights) != len(x):
        shapes = f"{list(weights.shape)} and {list(chosen.shape)}"
        raise ValueError(f"the router returned tensors of shape {shapes}; [{len(x)}, k] belongs there, twice")
    return weights.new_zeros(len(x), router.weight.shape[0]).scatter_add(1, chosen.long(), weights)


def two_tensors(given: Any) -> tuple[Tensor, Tensor]:
    """The weights and the experts' numbers that a router gave, once it is sure that these two came."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(t, Tensor) for t in given):
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(
            f"the router returned a {type(given).__name__}; two tensors belong there, the weights and the numbers of"
            f" the chosen experts{hint}"
        )
    weights, chosen = given
    if chosen.is_floating_point() or not weights.is_floating_point():
        raise TypeError("the router returned numbers of experts first; the weights come first, then the numbers")
    if chosen.dtype != torch.int64:
        raise TypeError(f"the numbers of the chosen experts are {chosen.dtype}; torch.int64 belongs there")
    return weights, chosen


def trained_tensors(router: Any, x: Tensor) -> Tensor:
    """How many tensors of a router an optimiser would change."""
    return torch.tensor([sum(parameter.requires_grad for parameter in router.parameters())])


class StableSorts(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes every sort keep the order of equal numbers.

    A right program needs no such order. What a wrong one gives is then the same with `argsort()` and with
    `argsort(stable=True)`, and on every machine.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away imports 800 modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.sort.default:
            return func(*args, **(kwargs or {}))
        how = dict(zip(("dim", "descending"), args[1:], strict=False)) | (kwargs or {})
        return torch.ops.aten.sort.stable(args[0], stable=True, **how)


def with_stable_sorts(experts: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What experts give, whichever order their sort would have left equal numbers in."""
    with StableSorts():  # type: ignore[no-untyped-call]
        output: Tensor = experts(x, chosen, weights)
    return output


class RowMoves(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that pick rows by their numbers, find such numbers, or add rows to others."""

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away imports 800 modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        moves = ("index", "index_select", "gather", "nonzero", "masked_select", "index_add", "index_put", "scatter_add")
        self.total += name in moves
        return func(*args, **(kwargs or {}))


def work_beyond(experts: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """How many multiply-adds experts do beyond one and a half times those that the chosen ones need.

    The half is for weighted sums that are written as products.
    """
    needed = chosen.numel() * (experts.gate_up_proj[0].numel() + experts.down_proj[0].numel())
    with MultiplyAdds() as counter:  # type: ignore[no-untyped-call]
        experts(x, chosen, weights)
    return torch.tensor([max(0, counter.total - needed * 3 // 2)])


def picks_beyond(experts: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """How many operations beyond 8 pick or add rows: sorted tokens need three, and a program may need a few more."""
    with RowMoves() as counter:  # type: ignore[no-untyped-call]
        experts(x, chosen, weights)
    return torch.tensor([max(0, counter.total - 8)])
