"""How routers and experts are used: a router as one weight for each token and expert, in whatever order it chose."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import MultiplyAdds, left_by_calls


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
        raise TypeError(f"the indices of the chosen experts are {chosen.dtype}; torch.int64 belongs there")
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
    """Counts the operations that pick rows by index, find such indices, or add rows to others; and the products."""

    total, products = 0, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away imports 800 modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        moves = ("index", "index_select", "gather", "nonzero", "masked_select", "index_add", "index_put", "scatter_add")
        self.total += name in moves
        self.products += name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear")
        return func(*args, **(kwargs or {}))


def work_beyond(experts: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """How many multiply-adds experts do beyond one and a half times those that the chosen ones need.

    The half is for weighted sums that are written as products.
    """
    each, beyond = experts.gate_up_proj[0].numel() + experts.down_proj[0].numel(), 0
    for rows in (len(x), 1):  # one token alone must not be read by more experts, either
        with MultiplyAdds() as counter:  # type: ignore[no-untyped-call]
            experts(x[:rows], chosen[:rows], weights[:rows])
        beyond += max(0, counter.total - chosen[:rows].numel() * each * 3 // 2)
    return torch.tensor([beyond])


def picks_beyond(experts: Any, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """How many operations beyond 8 pick or add rows, and products beyond 4 for each expert.

    Sorted tokens need three that pick or add, and a program may need a few more. Each expert has one run of rows, which
    two to four products compute.
    """
    with RowMoves() as counter:  # type: ignore[no-untyped-call]
        experts(x, chosen, weights)
    return torch.tensor([max(0, counter.total - 8), max(0, counter.products - 4 * len(experts.down_proj))])


class SmallRouter(nn.Module):
    """Scores by a softmax, the two best, divided by their sum."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = (x @ self.weight.T).softmax(dim=-1).topk(2, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), chosen


class SmallExperts(nn.Module):
    """Every expert on every token, weighted."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Parameter(gate_up.clone()), nn.Parameter(down.clone())

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        gate, up = torch.einsum("nd,ewd->new", x, self.gate_up_proj).chunk(2, dim=-1)
        given = torch.einsum("new,edw->ned", nn.functional.silu(gate) * up, self.down_proj)  # [N, E, D]
        shares = x.new_zeros(len(x), len(self.down_proj)).scatter_add(1, chosen, weights)
        return torch.einsum("ne,ned->nd", shares, given)


class SmallMoE(nn.Module):
    """A router and experts, under the lesson's names."""

    def __init__(self, router: Tensor, gate_up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.gate, self.experts, self.shared_experts = SmallRouter(router), SmallExperts(gate_up, down), None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        weights, chosen = self.gate(rows)
        return self.experts(rows, chosen, weights).view_as(x)  # type: ignore[no-any-return]


class SmallLayer(nn.Module):
    """Adds to each token what its experts give for the sum of the token and the mean of the text so far."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.mlp = SmallMoE(*weights)

    def forward(self, x: Tensor) -> Tensor:
        so_far = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return x + self.mlp(x + so_far)  # type: ignore[no-any-return]


class SmallMixture(nn.Module):
    """A language model of such layers: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, embedding: Tensor, routers: Tensor, gate_ups: Tensor, downs: Tensor) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding.from_pretrained(embedding.clone(), freeze=False)
        self.model.layers = nn.ModuleList(
            SmallLayer(*weights) for weights in zip(routers, gate_ups, downs, strict=True)
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:  # type: ignore[union-attr]
            x = layer(x)
        return nn.functional.linear(x, self.model.embed_tokens.weight)  # type: ignore[union-attr, arg-type]


def costs_of_experts(
    cost_of_expert: Any,
    ids: Tensor,
    embedding: Tensor,
    routers: Tensor,
    gate_ups: Tensor,
    downs: Tensor,
    asked: list[list[int]],
) -> list[float]:
    """What each of the asked experts (layer and expert) costs, one after the other in the same model."""
    model = SmallMixture(embedding, routers, gate_ups, downs).eval()
    table = model.model.embed_tokens.weight.data  # type: ignore[union-attr]
    table.neg_()
    cost_of_expert(model, ids, *asked[0])  # of the same model, before it is trained further
    table.neg_()
    return [float(cost_of_expert(model, ids, layer, expert)) for layer, expert in asked]


def what_changed(
    cost_of_expert: Any,
    ids: Tensor,
    embedding: Tensor,
    routers: Tensor,
    gate_ups: Tensor,
    downs: Tensor,
    asked: list[list[int]],
) -> list[int]:
    """What the costs of experts leave behind in the model: see `left_by_calls`."""
    model = SmallMixture(embedding, routers, gate_ups, downs)
    calls = [lambda place=place: cost_of_expert(model, ids, *place) for place in asked]
    return left_by_calls(model, model.model.layers[0].mlp.experts.down_proj, calls)  # type: ignore[union-attr]
