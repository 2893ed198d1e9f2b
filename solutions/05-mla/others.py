"""What tests/lessons/test_every_lesson.py asks of latent attention: other right programs and wrong ones, random configs."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Told, Trained
from grader.authoring.kit.programs import ModelBase, NormBase, written
from grader.authoring.kit.randomly import of_vectors, positions
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import rope_table

LESSON = lesson_of(__file__)

MISTAKES = 208
VARIES = ["mla.compress", "mla.generate"]
WITHOUT = {
    "RANDOM": {"mla.generate": "a generation is random as it is: its cases draw the model that writes"},
    "bfloat16": {
        "mla.scale": "it is a Python float",
        "mla.bytes": "it counts whole numbers",
        "mla.model": "its parts are checked in bfloat16, and a whole model rounds in the order of its own",
        "mla.generate": "it handles whole numbers",
        "mla.variance": "it is a Python float, and a decomposition has no bfloat16",
    },
    "SIZES": "its model has no experts, so no published config fits it",
    "RERUNS": "its cells call `queries` of the lesson's own attention, which other right forms need not have",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(2, 5))
    config: dict[str, Any] = {
        "model_type": "deepseek_v3",
        "hidden_act": "silu",
        "vocab_size": draw(st.integers(2, 70)),
        "hidden_size": draw(st.integers(2, 40)),
        "intermediate_size": draw(st.integers(1, 60)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.none() | st.integers(1, 20)),
        "kv_lora_rank": draw(st.integers(1, 24)),
        "qk_nope_head_dim": draw(st.integers(1, 12)),
        "qk_rope_head_dim": 2 * draw(st.integers(1, 6)),
        "v_head_dim": draw(st.integers(1, 12)),
        "max_position_embeddings": 256,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-1])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    theta = draw(st.sampled_from([1e2, 1e4, 1e6]))
    if draw(st.booleans()):
        return config | {"rope_theta": theta, "rope_scaling": None}
    yarn = {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
    yarn |= draw(st.sampled_from([{"mscale": 1.0, "mscale_all_dim": 1.0}, {"mscale": 1.0, "mscale_all_dim": 0.7}, {}]))
    if draw(st.booleans()):
        return config | {"rope_theta": theta, "rope_scaling": {"type": "yarn", **yarn}}
    return config | {"rope_parameters": {"rope_type": "yarn", "rope_theta": theta, **yarn}}


# exercise -> a random case of it


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.attention_case(str(n.seed), config, n.batch, n.length, n.seed % 50, n.cuts, scale=n.scale)


def of_model(config: dict[str, Any], n: Numbers) -> Case:
    layers, shape = config["num_hidden_layers"], (config["vocab_size"], n.batch, n.length)
    return Case(str(n.seed), lambda draw: [draw.tokens(*shape), list(n.cuts), layers], {"config": config})


def of_rotation(config: dict[str, Any], n: Numbers) -> Case:
    """Anywhere in a text of 40,000 tokens, and in no order; in bfloat16 for every other seed."""
    args = exercises.rope_args(n.batch, 3, positions(n), config)
    return Case(str(n.seed), args, dtype=torch.bfloat16 if n.seed % 2 else torch.float32)


def of_scale(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [Config(config)])


def of_cache(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.cache_case(str(n.seed), config, n.batch, n.length + n.seed % 4, n.chunks)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.bytes_case(str(n.seed), config, n.length, n.batch, 4)


CONFIGS = configs()


def of_variance(config: dict[str, Any], n: Numbers) -> Case:
    numbers, rows = 3 + n.seed % 9, 4 + n.length
    return exercises.variance_case(str(n.seed), 1 + n.seed % min(numbers, rows - 1), (rows, 2 + n.batch, numbers))


RANDOM = {
    "mla.compress": of_vectors,
    "mla.rope": of_rotation,
    "mla.scale": of_scale,
    "mla.cache": of_cache,
    "mla.bytes": of_bytes,
    "mla.attention": of_attention,
    "mla.absorbed": of_attention,
    "mla.model": of_model,
    "mla.variance": of_variance,
}


# Other right programs


class Norm(NormBase):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype) * self.weight


class CompressorByHand(nn.Module):
    """The matrix cut in two; the norm written out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.kv_a_layernorm = nn.RMSNorm(config.kv_lora_rank, eps=1e-6)
        self.rank = config.kv_lora_rank
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, self.rank + config.qk_rope_head_dim, bias=False)

    def compress(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.kv_a_proj_with_mqa.weight
        latent, key = x @ weight[: self.rank].T, x @ weight[self.rank :].T
        length = torch.linalg.vector_norm(latent, dim=-1, keepdim=True, dtype=torch.float32)
        scaled = latent.float() / (length**2 / self.rank + 1e-6).sqrt()
        return self.kv_a_layernorm.weight * scaled.to(x.dtype), key


class CompressorInTurn(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.sizes = (config.kv_lora_rank, config.qk_rope_head_dim)
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, sum(self.sizes), bias=False)
        self.kv_a_layernorm = Norm(config.kv_lora_rank)

    def compress(self, x: Tensor) -> list[Tensor]:
        rows = torch.einsum("btd,kd->btk", x, self.kv_a_proj_with_mqa.weight)
        return [self.kv_a_layernorm(rows[..., : self.sizes[0]]), rows[..., self.sizes[0] :]]


def rope_with_complex_numbers(x: Tensor, table: Tensor) -> Tensor:
    turned = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous()) * torch.complex(table[0], table[1])
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def rope_after_sorting(x: Tensor, table: Tensor) -> Tensor:
    """The channels sorted first, then turned in halves."""
    cos, sin = torch.cat([table, table], dim=-1).to(x.dtype)
    x = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    return x * cos + torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], dim=-1) * sin


def rope_with_matrices(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table.to(x.dtype)
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [T, d / 2, 2, 2]
    return (turn @ x.unflatten(-1, (-1, 2))[..., None])[..., 0].mT.flatten(-2)


def scale_with_sqrt(config: Config) -> float:
    import math

    rope = config["rope_parameters"] if "rope_parameters" in config else config.get("rope_scaling") or {}
    m = 1.0
    if "yarn" in (rope.get("rope_type"), rope.get("type")) and rope.get("mscale_all_dim"):
        m += math.log(rope["factor"]) * rope["mscale_all_dim"] / 10
    return m**2 / math.sqrt(config["qk_nope_head_dim"] + config["qk_rope_head_dim"])


def scale_in_a_tensor(config: Config) -> Tensor:
    return torch.tensor(scale_with_sqrt(config), dtype=torch.float64)


class TwoTensors:
    """Latents and keys apart, as transformers keeps them."""

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        self.rank, self.capacity, self.length = config.kv_lora_rank, capacity, 0
        self.latents = torch.empty(batch, capacity, config.kv_lora_rank, dtype=dtype)
        self.keys = torch.empty(batch, capacity, config.qk_rope_head_dim, dtype=dtype)

    def append(self, new: Tensor) -> Tensor:
        start, stop = self.length, self.length + new.shape[1]
        if stop > self.capacity:
            raise ValueError("full")
        self.latents[:, start:stop], self.keys[:, start:stop] = new[..., : self.rank], new[..., self.rank :]
        self.length = stop
        return torch.cat([self.latents[:, :stop], self.keys[:, :stop]], dim=-1)


class RowsFirst:
    """The axis of tokens in front; a copy returned."""

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        self.store = torch.full((capacity, batch, config.kv_lora_rank + config.qk_rope_head_dim), 7.0).to(dtype)
        self.length = 0

    def append(self, new: Tensor) -> Tensor:
        room = len(self.store) - self.length
        if new.shape[1] > room:
            raise ValueError(f"room for {room}")
        self.store.narrow(0, self.length, new.shape[1]).copy_(new.transpose(0, 1))
        self.length += new.shape[1]
        return self.store[: self.length].transpose(0, 1).contiguous()


class CacheOfBuffers(nn.Module):
    """A module whose rows are a buffer, which moves with it."""

    rows: Tensor

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self.register_buffer("rows", torch.zeros(batch, capacity, width, dtype=dtype), persistent=False)
        self.length = 0

    def append(self, new: Tensor) -> Tensor:
        end = self.length + new.shape[1]
        if end > self.rows.shape[1]:
            raise ValueError(f"{end} tokens, and room for {self.rows.shape[1]}")
        self.rows[:, self.length : end] = new
        self.length = end
        return self.rows[:, :end]


def bytes_layer_by_layer(config: Config, tokens: int, batch: int = 1, element_bytes: int = 2) -> int:
    total = 0
    for _ in range(config.num_hidden_layers):
        if "kv_lora_rank" in config:
            total += config.kv_lora_rank + config.qk_rope_head_dim
        else:
            width = config.get("head_dim") or config.hidden_size // config.num_attention_heads
            total += config.num_key_value_heads * width + config.num_key_value_heads * width
    return total * element_bytes * tokens * batch


def bytes_from_a_tensor(config: Config, tokens: int, batch: int = 1, element_bytes: int = 2) -> int:
    heads, width = config.num_key_value_heads, config.get("head_dim")
    shape = (heads, 2, width or config.hidden_size // config.num_attention_heads)
    if config.get("kv_lora_rank") is not None:
        shape = (config.kv_lora_rank + config.qk_rope_head_dim, 1, 1)
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[element_bytes]
    return torch.empty(config.num_hidden_layers, batch, tokens, *shape, dtype=dtype, device="meta").nbytes


class AttentionBase(CompressorInTurn):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        D, self.H = config.hidden_size, config.num_attention_heads
        self.n, self.p, self.v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.narrow = config.q_lora_rank is not None
        if self.narrow:
            self.q_b_proj = nn.Linear(config.q_lora_rank, self.H * (self.n + self.p), bias=False)
            self.q_a_layernorm = Norm(config.q_lora_rank)
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=False)
        else:
            self.q_proj = nn.Linear(D, self.H * (self.n + self.p), bias=False)
        self.o_proj = nn.Linear(self.H * self.v, D, bias=False)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, self.H * (self.n + self.v), bias=False)
        self.scale = scale_with_sqrt(config)

    def parts(self, x: Tensor, table: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries [B, T, H, nope] and [B, H, T, rope], latents [B, S, r], turned keys [B, S, rope]."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.narrow else self.q_proj(x)
        q = q.view(*x.shape[:2], self.H, -1)
        latent, key = self.compress(x)
        rows = torch.cat([latent, rope_after_sorting(key[:, None], table)[:, 0]], dim=-1)
        if cache is not None:
            rows = cache.append(rows)
        rank = latent.shape[-1]
        turned = rope_with_complex_numbers(q[..., self.n :].transpose(1, 2), table)
        return q[..., : self.n], turned, rows[..., :rank], rows[..., rank:]

    def weights(self, scores: Tensor) -> Tensor:
        T, S = scores.shape[-2:]
        seen = torch.arange(S) <= torch.arange(S - T, S)[:, None]
        return torch.where(seen, scores * self.scale, torch.finfo(scores.dtype).min).float().softmax(-1)


class ExpandedWithSdpa(AttentionBase):
    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        kv = self.kv_b_proj(latents).view(*latents.shape[:2], self.H, -1).movedim(2, 1)
        k = torch.cat([kv[..., : self.n], keys[:, None].repeat(1, self.H, 1, 1)], dim=-1)
        T, S = x.shape[1], k.shape[2]
        q = torch.cat([q.transpose(1, 2), turned], dim=-1)
        mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        mixed = F.scaled_dot_product_attention(q, k, kv[..., self.n :], attn_mask=mask, scale=self.scale)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class ExpandedInTwoScores(AttentionBase):
    """Scores of content and of position apart, then added, as the paper writes them."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        W = self.kv_b_proj.weight.view(self.H, self.n + self.v, -1)
        k, v = torch.einsum("bsr,hnr->bhsn", latents, W).split([self.n, self.v], dim=-1)
        scores = torch.einsum("bthn,bhsn->bhts", q, k) + torch.einsum("bhtp,bsp->bhts", turned, keys)
        mixed = torch.einsum("bhts,bhsv->bthv", self.weights(scores).to(x.dtype), v)
        return self.o_proj(mixed.flatten(2))


class ExpandedHeadByHead(AttentionBase):
    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        mixed = []
        for h, W in enumerate(self.kv_b_proj.weight.chunk(self.H)):
            scores = q[:, :, h] @ (latents @ W[: self.n].T).mT + turned[:, h] @ keys.mT
            mixed.append(self.weights(scores).to(x.dtype) @ (latents @ W[self.n :].T))
        return self.o_proj(torch.cat(mixed, dim=-1))


class AbsorbedWithEinsum(AttentionBase):
    """As DeepSeek's own inference code."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        W = self.kv_b_proj.weight.view(self.H, self.n + self.v, -1)
        q = torch.einsum("bthn,hnr->bthr", q, W[:, : self.n])
        scores = torch.einsum("bthr,bsr->bhts", q, latents) + torch.einsum("bhtp,bsp->bhts", turned, keys)
        mixed = torch.einsum("bhts,bsr->bthr", self.weights(scores).to(x.dtype), latents)
        return self.o_proj(torch.einsum("bthr,hvr->bthv", mixed, W[:, self.n :]).flatten(2))


class AbsorbedHeadByHead(AttentionBase):
    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        mixed = []
        for h, W in enumerate(self.kv_b_proj.weight.chunk(self.H)):
            scores = (q[:, :, h] @ W[: self.n]) @ latents.mT + turned[:, h] @ keys.mT
            mixed.append((self.weights(scores).to(x.dtype) @ latents) @ W[self.n :].T)
        return self.o_proj(torch.cat(mixed, dim=-1))


class AbsorbedIntoTheOutput(AttentionBase):
    """W_UV and o_proj multiplied out for each head; one key head through the fused kernel."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, turned, latents, keys = self.parts(x, table, cache)
        W = self.kv_b_proj.weight.view(self.H, self.n + self.v, -1)
        q = torch.cat([q.transpose(1, 2) @ W[:, : self.n], turned], dim=-1)
        k, T = torch.cat([latents, keys], dim=-1)[:, None].expand(-1, self.H, -1, -1), x.shape[1]
        mask = torch.ones(T, k.shape[2], dtype=torch.bool).tril(k.shape[2] - T)
        mixed = F.scaled_dot_product_attention(
            q, k, latents[:, None].expand(-1, self.H, -1, -1), attn_mask=mask, scale=self.scale
        )
        outputs = self.o_proj.weight.view(-1, self.H, self.v).transpose(0, 1)  # [H, D, v]
        return torch.einsum("bhtr,hvr,hdv->btd", mixed, W[:, self.n :], outputs)


class ModelByHand(ModelBase):
    """One table for every length; layers written out."""

    def __init__(self, config: Config, attention: type[nn.Module] | None = None) -> None:
        form, layer = attention or self.form(), LESSON.solutions["DecoderLayer"]
        layers = [layer(config, form) for _ in range(config.num_hidden_layers)]
        table = rope_table(torch.arange(config.max_position_embeddings), config)
        super().__init__(config, Norm(config.hidden_size, config.rms_norm_eps), layers, table)

    def form(self) -> type[nn.Module]:
        return ExpandedWithSdpa

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        x = self.embedded(ids)
        past = 0 if caches is None else caches[-1].length
        table = self.table[:, past : past + ids.shape[1]]
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = x + layer.self_attn(layer.input_layernorm(x), table, cache)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)


class ModelCountingFromOne(ModelByHand):
    """Only distances matter to RoPE, so the first token may have any position."""

    def form(self) -> type[nn.Module]:
        return AbsorbedWithEinsum

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        x = self.embed_tokens(ids)
        past = caches[0].length if caches else 0
        positions = torch.arange(ids.shape[1]) + past + 1
        for i, layer in enumerate(self.layers):
            x = layer(x, rope_table(positions, self.config), caches and caches[i])
        return self.norm(x)


def generate_into_a_list(model: Any, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> list[int]:
    caches = model.caches(batch=1, capacity=ids.shape[1] + max_new_tokens - 1)
    return written(lambda new: model(new, caches=caches), ids, max_new_tokens, end_tokens)


def generate_and_feed_the_last(model: Any, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> Iterator[int]:
    """Reads the last token too, which nobody asks for."""
    caches = model.caches(ids.shape[0], ids.shape[1] + max_new_tokens)
    logits = model(ids, caches)
    for _ in range(max_new_tokens):
        best = logits[:, -1:].topk(1).indices[:, :, 0]
        yield best.item()
        if any(best[0, 0] == end for end in end_tokens):
            return
        logits = model(best, caches)


def variance_by_covariance(rank: int, first: Tensor, second: Tensor) -> float:
    """Eigenvectors of the covariance, in rising order; what lies along them as vectors of all channels."""
    V = torch.linalg.eigh(torch.cov(first.double().T)).eigenvectors[:, first.shape[1] - rank :]
    varies = second.double() - first.double().mean(dim=0)
    return float((varies @ V @ V.T).pow(2).sum() / varies.pow(2).sum())


def variance_by_what_is_left(rank: int, first: Tensor, second: Tensor) -> float:
    """1 less the share that is lost, of mean squares."""
    mean = first.mean(dim=0, keepdim=True)
    columns = torch.linalg.svd((first - mean).T, full_matrices=False).U[:, :rank]
    varies = second - mean
    lost = varies - varies @ columns @ columns.T
    return 1 - float(lost.square().mean() / varies.square().mean())


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "mla.compress": (CompressorByHand, CompressorInTurn),
    "mla.rope": (rope_with_complex_numbers, rope_after_sorting, rope_with_matrices),
    "mla.scale": (scale_with_sqrt, scale_in_a_tensor),
    "mla.cache": (TwoTensors, RowsFirst, CacheOfBuffers),
    "mla.bytes": (bytes_layer_by_layer, bytes_from_a_tensor),
    "mla.attention": (ExpandedWithSdpa, ExpandedInTwoScores, ExpandedHeadByHead, AbsorbedWithEinsum),
    "mla.absorbed": (AbsorbedWithEinsum, AbsorbedHeadByHead, AbsorbedIntoTheOutput),
    "mla.model": (ModelByHand, ModelCountingFromOne),
    "mla.generate": (generate_into_a_list, generate_and_feed_the_last),
    "mla.variance": (variance_by_covariance, variance_by_what_is_left),
}


# Programs that are right only by chance do not pass


class GrowingCache(TwoTensors):
    """Makes no room in advance, and copies everything at every step."""

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config, batch, 0, dtype)
        self.wanted = capacity

    def append(self, new: Tensor) -> Tensor:
        if self.length + new.shape[1] > self.wanted:
            raise ValueError("full")
        self.latents = torch.cat([self.latents, new[..., : self.rank]], dim=1)
        self.keys = torch.cat([self.keys, new[..., self.rank :]], dim=1)
        self.length += new.shape[1]
        return torch.cat([self.latents, self.keys], dim=-1)


class AbsorbedOnlyInName(ExpandedInTwoScores):
    """Right, and rebuilds every key and value."""


class ModelThatCountsCalls(ModelByHand):
    """Takes what was read before to be one token a call."""

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        self.calls = getattr(self, "calls", -1) + 1 if caches and caches[0].length else 0
        x = self.embed_tokens(ids)
        positions = torch.arange(ids.shape[1]) + self.calls
        for i, layer in enumerate(self.layers):
            x = layer(x, rope_table(positions, self.config), caches and caches[i])
        return self.norm(x)


class AttentionWithItsOwnEps(ExpandedWithSdpa):
    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.kv_a_layernorm.eps = 1e-5


class RowsWithAHeadAxis(RowsFirst):
    """Gives rows back as one key head: [B, 1, length, width]."""

    def append(self, new: Tensor) -> Tensor:
        return super().append(new)[:, None]


class CacheThatWritesFirst(RowsFirst):
    """Writes what fits, and refuses then."""

    def append(self, new: Tensor) -> Tensor:
        room = len(self.store) - self.length
        self.store[self.length :][: new.shape[1]] = new[:, :room].transpose(0, 1)
        return super().append(new)


class ModelOfOneForm(ModelByHand):
    def __init__(self, config: Config, attention: type[nn.Module] | None = None) -> None:
        super().__init__(config)


def generate_reading_one_by_one(model: Any, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> list[int]:
    caches = model.caches(1, ids.shape[1] + max_new_tokens)
    for token in ids[:, :-1].unbind(1):
        model(token[:, None], caches)
    return written(lambda new: model(new, caches), ids[:, -1:], max_new_tokens, end_tokens)


def generate_with_room_for_anything(model: Any, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> list[int]:
    caches, written = model.caches(1, 100_000), []
    for _ in range(max_new_tokens):
        ids = model(ids, caches)[:, -1:].argmax(dim=-1)
        written.append(int(ids))
        if written[-1] in end_tokens:
            break
    return written


def variance_of_long_texts(rank: int, first: Tensor, second: Tensor) -> float:
    """Right where there are as many tokens as channels."""
    return variance_by_covariance(rank, first, second) if len(first) >= first.shape[1] else 1.0


BY_CHANCE = {
    "mla.cache": [GrowingCache, RowsWithAHeadAxis, CacheThatWritesFirst],
    "mla.model": [ModelOfOneForm, ModelThatCountsCalls],
    "mla.generate": [generate_reading_one_by_one, generate_with_room_for_anything],
    "mla.absorbed": [AbsorbedOnlyInName, ExpandedHeadByHead],
    "mla.attention": [AttentionWithItsOwnEps],
    "mla.variance": [variance_of_long_texts],
}


# What comes back in the wrong form is told in plain words


class OneTensor(LESSON.solutions["Compressor"]):  # type: ignore[misc, name-defined]
    def compress(self, x: Tensor) -> Tensor:
        return torch.cat(super().compress(x), dim=-1)


class KeyWithAHeadAxis(LESSON.solutions["Compressor"]):  # type: ignore[misc, name-defined]
    def compress(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent, key = super().compress(x)
        return latent, key[:, None]


class NoReturn(LESSON.solutions["Compressor"]):  # type: ignore[misc, name-defined]
    def compress(self, x: Tensor) -> None:
        super().compress(x)


def twice(form: str) -> Any:
    class AppendsTwice(LESSON.solutions[form]):  # type: ignore[misc, name-defined]
        def rows_so_far(self, x: Tensor, table: Tensor, cache: Any) -> Tensor:
            super().rows_so_far(x, table, cache)
            return super().rows_so_far(x, table, cache)

    return AppendsTwice


class ModelThatReadsTheRows(LESSON.solutions["Model"]):  # type: ignore[misc, name-defined]
    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        return super().forward(ids, caches if caches is None or caches[0].rows is None else None)


def generate_nothing(*_: Any) -> Iterator[int]:
    return iter(())


def generate_without_end(*_: Any) -> Iterator[int]:
    return itertools.repeat(3)


TOLD = [
    Told("mla.generate", generate_nothing, ["it gave 0 values, and should give 8"], never=["IndexError"]),
    Told("mla.generate", generate_without_end, ["the generator did not stop after 2,000 values"]),
    Told("mla.compress", OneTensor, ["compress returned a Tensor; two tensors belong there, the latent and the key"]),
    Told(
        "mla.compress", KeyWithAHeadAxis, ["compress returned a key of shape [2, 1, 7, 8]; one vector for each token"]
    ),
    Told("mla.compress", NoReturn, ["two tensors belong there, the latent and the key; does it end with `return`?"]),
    Told("mla.cache", RowsWithAHeadAxis, ["append returned a tensor of shape [1, 1, 5, 26]; [1, length, 26] belongs"]),
    Told(
        "mla.attention", twice("Attention"), ["after 4 tokens there are 8 rows in the cache; each belongs there once"]
    ),
    Told("mla.absorbed", twice("AbsorbedAttention"), ["after 4 tokens there are 8 rows in the cache; each belongs"]),
    Told("mla.model", ModelThatReadsTheRows, ["this check's cache has `append` and `length`, and no `rows`"]),
    # A width divided among the heads is not taken for the rotated channels.
    Told(
        "mla.scale",
        Change(
            "mla.scale",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim)",
            "(config.hidden_size / config.num_attention_heads)",
        ),
        ["the width is divided among the heads"],
        never=["only the rotated channels"],
    ),
]


# The layer comparison, names and trained weights


def with_the_configs_eps(self: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], self.weight, exercises.SMALL["rms_norm_eps"])


PLANTED = [("layers.1.self_attn.kv_a_layernorm", with_the_configs_eps)]
HUB = {"mla.model": LESSON.exercises["mla.model"].reference}


def causal_lm(config: Config, form: str) -> nn.Module:
    """The model with a head that a later cell of the lesson makes, in one of the two forms of attention."""
    made = dict(LESSON.solutions)
    exec(LESSON.cell_with("class CausalLM("), made)
    return made["CausalLM"](config, LESSON.solutions[form])


def expanded_lm(config: Config) -> nn.Module:
    return causal_lm(config, "Attention")


def absorbed_lm(config: Config) -> nn.Module:
    return causal_lm(config, "AbsorbedAttention")


PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [Trained("austen-mla", form, "generate", PROMPTS) for form in ("expanded_lm", "absorbed_lm")]
