"""How a model, its generation and its training are used."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.generation import ints_among, tokens_written
from grader.authoring.drives.use import left_by_calls


def logits(model: Any, ids: Tensor) -> Tensor:
    """What the model gives."""
    return model(ids)


def config_kept(model: Any, ids: Tensor) -> Tensor:
    """The numbers of the config that users of the model read; 0 where it keeps none."""
    config = getattr(model, "config", None)
    return torch.tensor([0, 0] if config is None else [config.n_positions, config.vocab_size])


def written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """The tokens that `generate` writes."""
    return tokens_written(generate(toy, ids, *more))


def ints_written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """Which of the tokens that `generate` writes are Python ints."""
    return ints_among(generate(toy, ids, *more))


def written_in_turns(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """The tokens that `generate` writes, while the same model writes behind another prompt."""
    given, other = generate(toy, ids, *more), generate(toy, ids.flip(1), *more)

    def in_turns() -> Any:
        second = iter(other)
        for token in given:
            yield token
            next(second, None)

    return tokens_written(given if given is None else in_turns())


# Training


class TinyModel(nn.Module):
    """A language model of two tables: ids [B, T] -> logits [B, T, vocab_size].

    A token's vector meets the mean of all vectors up to it, so a logit depends on every earlier token and on no later
    one. places: [n_positions, D], so a text of more tokens is an error.
    """

    def __init__(self, table: Tensor, places: Tensor) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Parameter(table.clone()), nn.Parameter(places.clone())
        self.modes: list[bool] = []  # whether it was in training mode, in each call

    def forward(self, ids: Tensor) -> Tensor:
        self.modes.append(self.training)
        length = ids.shape[1]
        if length > len(self.wpe):
            raise IndexError(f"the model has {len(self.wpe)} positions, and the text has {length} tokens")
        x = self.wte[ids] + self.wpe[:length]
        so_far = x.cumsum(dim=1) / torch.arange(1, length + 1)[:, None]
        return torch.tanh(x + so_far) @ self.wte.T


def optimizer_of(model: nn.Module, name: str, options: dict[str, Any]) -> Any:
    """PyTorch's optimizer of this name, of all parameters, each in a group of its own."""
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    return getattr(torch.optim, name)(groups, **options)


def trained(
    train_step: Any, table: Tensor, places: Tensor, rows: Tensor, name: str, options: dict[str, Any], left: float
) -> Tensor:
    """The losses of some steps, then all weights after the last: [steps + numbers].

    rows: [steps, B, T + 1]. left: the gradient that every weight has before the first step; 0 where it has none.
    """
    with torch.enable_grad():
        model = TinyModel(table.detach(), places.detach())
        optimizer = optimizer_of(model, name, options)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, left) if left else None
        losses = []
        for batch in rows:
            loss = train_step(model, optimizer, batch.clone())
            if loss is None:
                raise TypeError("train_step returned None; the loss of the batch belongs there")
            losses.append(torch.as_tensor(loss).detach().float().view(1))
    return torch.cat([*losses, *(parameter.detach().flatten() for parameter in model.parameters())])


def kept_in_memory(
    train_step: Any, table: Tensor, places: Tensor, rows: Tensor, name: str, options: dict[str, Any]
) -> list[int]:
    """Whether what train_step returns is a Python float, and whether the model was in training mode and still is."""
    with torch.enable_grad():
        model = TinyModel(table.detach(), places.detach())
        optimizer = optimizer_of(model, name, options)
        given = [train_step(model, optimizer, batch.clone()) for batch in rows]
    return [int(all(type(loss) is float for loss in given)), int(all(model.modes)), int(model.training)]


# What a head is worth


class Sizes:
    """The fields of a config that a measurement may read."""

    def __init__(self, n_head: int, n_embd: int, n_layer: int) -> None:
        self.n_head, self.n_embd, self.n_layer = n_head, n_embd, n_layer


class SmallConv1D(nn.Module):
    """x @ weight + bias, as the lesson's Conv1D."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class SmallAttention(nn.Module):
    """Causal attention with several heads, under the lesson's names."""

    def __init__(self, heads: int, *weights: Tensor) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, len(weights[0]) // heads
        self.c_attn, self.c_proj = SmallConv1D(*weights[:2]), SmallConv1D(*weights[2:])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in self.c_attn(x).chunk(3, dim=-1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SmallBlock(nn.Module):
    """Attention, added to what it reads."""

    def __init__(self, heads: int, *weights: Tensor) -> None:
        super().__init__()
        self.attn = SmallAttention(heads, *weights)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)  # type: ignore[no-any-return]


class SmallGPT(nn.Module):
    """A language model of such blocks: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, heads: int, table: Tensor, places: Tensor, *weights: Tensor) -> None:
        super().__init__()
        self.config = Sizes(heads, table.shape[1], len(weights[0]))
        self.wte, self.wpe = nn.Parameter(table.clone()), nn.Parameter(places.clone())
        self.h = nn.ModuleList(SmallBlock(heads, *own) for own in zip(*weights, strict=True))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte[ids] + self.wpe[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        return x @ self.wte.T


def costs_of_heads(
    cost_of_head: Any, ids: Tensor, heads: int, asked: list[list[int]], weights: list[Tensor]
) -> list[float]:
    """What each of the asked heads (layer and head) costs, one after the other in the same model."""
    model = SmallGPT(heads, *weights).eval()
    model.wte.data.neg_()
    cost_of_head(model, ids, *asked[0])  # of the same model, before it is trained further
    model.wte.data.neg_()
    return [float(cost_of_head(model, ids, layer, head)) for layer, head in asked]


def what_changed(
    cost_of_head: Any, ids: Tensor, heads: int, asked: list[list[int]], weights: list[Tensor]
) -> list[int]:
    """What the costs of heads leave behind in the model: see `left_by_calls`."""
    model = SmallGPT(heads, *weights)
    calls = [lambda place=place: cost_of_head(model, ids, *place) for place in asked]
    return left_by_calls(model, model.h[0].attn.c_proj.weight, calls)  # type: ignore[union-attr, arg-type]
