"""Which earlier tokens a DeepSeek-V3.2 attends to: the indexer's scores with a gradient, other choices, and the loss.

transformers' indexer returns indices and runs without a gradient. `index_scores` computes its scores from the module's
own parameters, so that they can be trained, and `choosing` puts another choice in an indexer's place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.deepseek_v32.modeling_deepseek_v32 import apply_rotary_pos_emb


@dataclass(frozen=True)
class Seen:
    """What an indexer is given in a pass over whole texts.

    hidden: [B, T, hidden_size], the layer's normed input. latent: [B, T, q_lora_rank], the queries' normed latent.
    rope: cos and sin, 2 x [B or 1, T, qk_rope_head_dim]. visible: [B or 1, T, T] bool, the earlier tokens and itself.
    """

    indexer: Any
    hidden: Tensor
    latent: Tensor
    rope: tuple[Tensor, Tensor]
    visible: Tensor


Choice = Callable[[Seen], Tensor]  # -> the positions chosen for every token, [B, T, n]; invisible ones do no harm


def index_scores(seen: Seen) -> Tensor:
    """The lightning indexer's scores, before causality: [B, T, T] float32, a row for each query.

    I[t, s] = sum over heads j of w[t, j] * relu(q[t, j] . k[s]), with w scaled by 1 / sqrt(heads * width)
    (DeepSeek-V3.2, 2025, equation 1). The input is detached: the indexer learns, and what feeds it does not notice.
    """
    indexer, hidden, latent = seen.indexer, seen.hidden.detach(), seen.latent.detach()
    q = indexer.wq_b(latent).unflatten(-1, (indexer.n_heads, indexer.head_dim))  # [B, T, H, d]
    k = indexer.k_norm(indexer.wk(hidden)).unsqueeze(2)  # [B, T, 1, d]
    turned = indexer.qk_rope_head_dim
    q_rope, k_rope = apply_rotary_pos_emb(q[..., :turned], k[..., :turned], *seen.rope, unsqueeze_dim=2)
    q, k = torch.cat([q_rope, q[..., turned:]], dim=-1), torch.cat([k_rope, k[..., turned:]], dim=-1)
    similar = torch.einsum("bthd,bsd->bhts", q, k.squeeze(2)).relu()
    weights = indexer.weights_proj(hidden) * (indexer.n_heads * indexer.head_dim) ** -0.5
    return torch.einsum("bhts,bth->bts", similar, weights)


def best(scores: Tensor, seen: Seen) -> Tensor:
    """The index_topk visible positions with the highest scores: [B, T, T] -> [B, T, k]."""
    return scores.masked_fill(~seen.visible, -torch.inf).topk(min(seen.indexer.index_topk, scores.shape[-1])).indices


def every(seen: Seen) -> Tensor:
    """All positions: attention is dense."""
    return torch.arange(seen.visible.shape[-1]).expand(*seen.hidden.shape[:2], -1)


def own(seen: Seen) -> Tensor:
    """What the indexer itself chooses."""
    return best(index_scores(seen), seen)


def latest(seen: Seen) -> Tensor:
    """The last index_topk positions, the token itself among them: a sliding window."""
    return best(every(seen).float(), seen)


def at_random(seed: int) -> Choice:
    """A choice of index_topk visible positions at random, others in each layer, for each token and in each call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda seen: best(torch.rand(every(seen).shape, generator=generator), seen)


def attentions_of(model: Any) -> list[Any]:
    """The attention module of each layer."""
    return [layer.self_attn for layer in model.model.layers]


@contextmanager
def choosing(model: nn.Module, choice: Choice) -> Iterator[None]:
    """Let every layer attend to what `choice` says. For passes over whole texts: an indexer's cache is not kept."""

    def forward_of(indexer: Any) -> Callable[..., Tensor]:
        def forward(hidden: Tensor, latent: Tensor, rope: Any, mask: Tensor, *_: Any, **__: Any) -> Tensor:
            visible = mask if mask.dtype == torch.bool else mask == 0
            return choice(Seen(indexer, hidden, latent, rope, visible)).to(torch.int32)

        return forward

    indexers = [attention.indexer for attention in attentions_of(model)]
    for indexer in indexers:
        indexer.forward = forward_of(indexer)
    try:
        yield
    finally:
        for indexer in indexers:
            del indexer.forward


def attention_to(attention: Tensor) -> Tensor:
    """How much of a query's attention each key gets, over all heads: [B, H, T, T] -> [B, T, T], rows sum to 1."""
    return attention.detach().mean(dim=1)


def divergence(wanted: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
    """The mean over queries of KL(wanted || softmax(scores)), both over the last axis where `visible`, in nats: [].

    wanted: distributions, [B, T, n]; 0 where not visible. Only `scores` has a gradient (equations 3 and 4).
    """
    log_p = F.log_softmax(scores.masked_fill(~visible, -torch.inf), dim=-1).masked_fill(~visible, 0.0)
    return (torch.xlogy(wanted, wanted) - wanted * log_p).sum(dim=-1).mean()


def imitation(model: nn.Module, ids: Tensor, sparse: bool) -> tuple[Any, Tensor]:
    """Run the model, dense or sparse, and say how far its indexers are from its attention.

    ids: [B, T] -> the model's output, and the divergence summed over layers: []. Dense, over all that a token sees;
    sparse, over what the indexer selected. Its gradient reaches the indexers alone.
    """
    kept: list[tuple[Tensor, Tensor, Seen]] = []

    def choice(seen: Seen) -> Tensor:
        with torch.enable_grad():
            scores = index_scores(seen)
        chosen = best(scores.detach(), seen) if sparse else every(seen)
        kept.append((scores, chosen, seen))
        return chosen

    with torch.set_grad_enabled(sparse), choosing(model, choice):  # dense, the model itself is not to learn
        output = model(input_ids=ids, output_attentions=True)
    total = ids.new_zeros((), dtype=torch.float32)
    for (scores, chosen, seen), attention in zip(kept, output.attentions, strict=True):
        wanted, visible = attention_to(attention), seen.visible.expand_as(scores)
        if sparse:
            wanted, scores, visible = (each.gather(-1, chosen) for each in (wanted, scores, visible))
        total = total + divergence(wanted, scores, visible)
    return output, total
