"""What other right programs begin with, for others.py: modules under the names that checkpoints have."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader.config import Config


class NormBase(nn.Module):
    """The weight [dim] and eps of a norm without a bias."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps


class GatedBase(nn.Module):
    """The three projections of a gated MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.intermediate_size
        self.down_proj = nn.Linear(inner, D, bias=False)
        self.up_proj, self.gate_proj = nn.Linear(D, inner, bias=False), nn.Linear(D, inner, bias=False)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """RoPE in halves: x [B, heads, T, head_dim], table [2, T, head_dim] with each pair's cosine and sine twice."""
    cos, sin = table[..., : x.shape[-1] // 2].to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class AttentionBase(nn.Module):
    """Grouped queries: four projections without biases, and norms on q and k where `has_norms`.

    norm: its class, of (dim, eps).
    """

    norm: Callable[[int, float], nn.Module] = nn.RMSNorm
    has_norms = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.hd = config.get("head_dim") or D // self.H
        if self.has_norms:
            self.q_norm, self.k_norm = (self.norm(self.hd, config.rms_norm_eps) for _ in "qk")
        self.q_proj, self.o_proj = nn.Linear(D, self.H * self.hd, False), nn.Linear(self.H * self.hd, D, False)
        self.k_proj, self.v_proj = (nn.Linear(D, self.KV * self.hd, False) for _ in "kv")

    def heads(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q [B, H, T, head_dim] and k [B, KV, T, head_dim], and v as k."""
        q, k, v = (p(x).unflatten(-1, (-1, self.hd)).movedim(2, 1) for p in (self.q_proj, self.k_proj, self.v_proj))
        if self.has_norms:  # after the transpose: the axis of head_dim is still the last
            q, k = self.q_norm(q), self.k_norm(k)
        return rotated(q, table), rotated(k, table), v


class ModelBase(nn.Module):
    """A decoder without its head: embedding, layers, norm, and the rotations of all positions.

    norm: of hidden_size channels. table: [2, positions, channels], of which a forward takes its own part.
    """

    table: Tensor

    def __init__(self, config: Config, norm: nn.Module, layers: Iterable[nn.Module], table: Tensor) -> None:
        super().__init__()
        self.config, self.norm, self.layers = config, norm, nn.ModuleList(layers)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.register_buffer("table", table, persistent=False)

    def embedded(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, hidden_size]."""
        return F.embedding(ids, self.embed_tokens.weight)


class HeadWithoutModule(nn.Module):
    """A tied head as a product with the embedding's weight; lm_head exists where the head is its own only.

    body: the model without a head. tied: whether it is, where the config does not say.
    """

    body: type[nn.Module]
    tied = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model, self.tied = self.body(config), config.get("tie_word_embeddings", self.tied)
        if not self.tied:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        weight = self.model.embed_tokens.weight if self.tied else self.lm_head.weight  # type: ignore[union-attr]
        return self.model(ids) @ weight.T  # type: ignore[no-any-return]


class EmbeddingTiedToHead(nn.Module):
    """Tied the other way round: the embedding takes the head's weight. `body` and `tied` as above."""

    body: type[nn.Module]
    tied = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model = self.body(config)
        if config.get("tie_word_embeddings", self.tied):
            self.model.embed_tokens.weight = self.lm_head.weight  # type: ignore[union-attr]

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.model(ids))  # type: ignore[no-any-return]


def written(read: Callable[[Tensor], Tensor], ids: Tensor, max_new_tokens: int, ends: Sequence[Any] = ()) -> list[int]:
    """Greedy decoding into a list. read: takes what is new, ids [1, T] first, then [1, 1]; gives logits [1, ..., V]."""
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < max_new_tokens and not (new and new[-1] in ends):
            logits = read(torch.tensor([new[-1:]]) if new else ids)
            new.append(int(logits[0, -1].argmax()))
    return new
