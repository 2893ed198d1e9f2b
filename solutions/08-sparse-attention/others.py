"""What tests/lessons/test_every_lesson.py asks of sparse attention: other right programs and wrong ones, random configs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Told, Trained
from grader.authoring.kit.programs import ModelBase
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import build_model

LESSON = lesson_of(__file__)

MISTAKES = 214
VARIES = ["sparse_attention.vectors", "sparse_attention.scores", "sparse_attention.select"]
WITHOUT = {
    "bfloat16": {
        "sparse_attention.select": "scores are float32, whatever they were computed from",
        "sparse_attention.model": "its parts are checked in bfloat16, and a whole model rounds in an order of its own",
        "sparse_attention.recall": "it is two Python floats",
        "sparse_attention.costs": "it counts whole numbers",
    },
    "RERUNS": "its cells change `rotate` and call `queries_of` of the lesson's own classes, which other right forms need not have",
    "CONFIG_SHA256": "the fields that count here, and no more, of configs that are published in several forms",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config of either family. With eight index heads or more, hardly any two scores of a token are 0."""
    heads, layers, rope = draw(st.integers(1, 4)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 5))
    config: dict[str, Any] = exercises.SMALL | {
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": draw(st.integers(8, 40)),
        "intermediate_size": draw(st.integers(1, 50)),
        "num_hidden_layers": layers,
        "first_k_dense_replace": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.integers(8, 30)),
        "kv_lora_rank": draw(st.integers(1, 24)),
        "qk_nope_head_dim": draw(st.integers(1, 12)),
        "qk_rope_head_dim": rope,
        "v_head_dim": draw(st.integers(1, 12)),
        "index_n_heads": draw(st.integers(8, 12)),
        "index_head_dim": rope + draw(st.integers(1, 9)),
        "index_topk": draw(st.integers(1, 6)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-1])),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw(st.sampled_from([1e2, 1e4, 1e6]))},
    }
    if draw(st.booleans()):
        types = ["full", *draw(st.lists(st.sampled_from(["full", "shared"]), min_size=layers - 1, max_size=layers - 1))]
        config |= {"model_type": "glm_moe_dsa", "indexer_types": types}
    return config


CONFIGS = configs()


def of_vectors(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.vectors_case(str(n.seed), config, n.batch, n.length, n.seed % 9000, scale=n.scale)


def of_scores(config: dict[str, Any], n: Numbers) -> Case:
    keys = n.length + n.seed % 5
    return exercises.scores_case(str(n.seed), config, n.batch, n.length, keys, n.seed % 9000)


def of_select(config: dict[str, Any], n: Numbers) -> Case:
    slots = n.length + n.seed % 7
    return exercises.select_case(str(n.seed), n.batch, n.length, slots, config["index_topk"])


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.attention_case(str(n.seed), config, n.batch, n.length, n.seed % 50, n.cuts, scale=n.scale, by=1e-3)


def of_cache(config: dict[str, Any], n: Numbers) -> Case:
    steps = [*n.chunks, -(n.seed % n.length), 1 + n.seed % 2]
    return exercises.cache_case(str(n.seed), config, n.batch, n.length + 3, steps)


def of_model(config: dict[str, Any], n: Numbers) -> Case:
    layers, shape = config["num_hidden_layers"], (config["vocab_size"], n.batch, n.length)
    return Case(str(n.seed), lambda draw: [draw.tokens(*shape), list(n.cuts), layers], {"config": config})


def of_costs(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.costs_case(str(n.seed), config, n.length, 1, 20, 4)


def of_recall(config: dict[str, Any], n: Numbers) -> Case:
    k = 1 + n.seed % 5
    return exercises.recall_case(str(n.seed), (n.batch, k + min(n.length, 9)), k)


RANDOM = {
    "sparse_attention.vectors": of_vectors,
    "sparse_attention.scores": of_scores,
    "sparse_attention.select": of_select,
    "sparse_attention.attention": of_attention,
    "sparse_attention.gathered": of_attention,
    "sparse_attention.cache": of_cache,
    "sparse_attention.model": of_model,
    "sparse_attention.recall": of_recall,
    "sparse_attention.costs": of_costs,
}


# Other right programs


class VectorsByHand(nn.Module):
    """Complex numbers for the rotations, the norm written out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.d = config.hidden_size, config.index_n_heads, config.index_head_dim
        self.halves, self.p = config.model_type == "deepseek_v32", config.qk_rope_head_dim
        self.k_norm = nn.LayerNorm(self.d, 1e-6)
        self.wk = nn.Linear(D, self.d, bias=False)
        self.wq_b = nn.Linear(config.q_lora_rank, self.H * self.d, bias=False)

    def turned(self, x: Tensor, table: Tensor) -> Tensor:
        """x [B, ..., T, d] with its first channels turned."""
        first = x[..., : self.p].float()
        pairs = torch.stack(first.chunk(2, dim=-1), -1) if self.halves else first.unflatten(-1, (-1, 2))
        turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(table[0], table[1])
        return torch.cat([turned.real.to(x.dtype), turned.imag.to(x.dtype), x[..., self.p :]], dim=-1)

    def queries(self, latent: Tensor, table: Tensor) -> Tensor:
        weight = self.wq_b.weight.view(self.H, self.d, -1)
        return self.turned(torch.einsum("btq,hdq->bhtd", latent, weight), table)

    def keys(self, x: Tensor, table: Tensor) -> Tensor:
        k = (x @ self.wk.weight.T).float()
        centred = k - k.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return self.turned((normed * self.k_norm.weight.float() + self.k_norm.bias.float()).to(x.dtype), table)


class VectorsInTurn(VectorsByHand):
    """Each position by itself."""

    def turned(self, x: Tensor, table: Tensor) -> Tensor:
        parts = []
        for t in range(x.shape[-2]):
            row, (cos, sin) = x[..., t, :], table[:, t].to(x.dtype)
            half = self.p // 2
            a, b = (
                (row[..., :half], row[..., half : self.p])
                if self.halves
                else (row[..., : self.p : 2], row[..., 1 : self.p : 2])
            )
            parts.append(torch.cat([a * cos - b * sin, b * cos + a * sin, row[..., self.p :]], dim=-1))
        return torch.stack(parts, dim=-2)

    def keys(self, x: Tensor, table: Tensor) -> Tensor:
        return self.turned(F.layer_norm(self.wk(x), (self.d,), self.k_norm.weight, self.k_norm.bias, 1e-6), table)


def chosen_by_sorting(scores: Tensor, k: int) -> Tensor:
    """Sorted, lowest first, from the end."""
    T, S = scores.shape[-2:]
    seen = torch.arange(S) <= torch.arange(S - T, S)[:, None]
    return torch.where(seen, scores, -torch.inf).argsort(dim=-1)[..., max(0, S - k) :]


def chosen_one_by_one(scores: Tensor, k: int) -> Tensor:
    """Token after token, in the order of the text."""
    B, T, S = scores.shape
    rows = []
    for text in scores.tolist():
        for t, row in enumerate(text):
            end = S - T + t + 1
            best = sorted(range(end), key=lambda s: -row[s])[:k]
            rows.append((sorted(best) + list(range(end, S)))[: min(k, S)])
    return torch.tensor(rows).view(B, T, -1)


class IndexerHeadByHead(VectorsByHand):
    """The sum over heads as a loop; scales at the end."""

    choose = staticmethod(chosen_by_sorting)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.weights_proj = nn.Linear(config.hidden_size, self.H, bias=False)
        self.k = config.index_topk

    def scores(self, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
        q, weights = self.queries(latent, table).float(), F.linear(x, self.weights_proj.weight).float()
        total = torch.zeros(x.shape[0], x.shape[1], keys.shape[1])
        for h in range(self.H):
            total = total + weights[..., h, None] * (q[:, h] @ keys.float().transpose(1, 2)).clamp(min=0)
        return total / (self.H * self.d) ** 0.5

    def forward(self, x: Tensor, latent: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        keys = self.keys(x, table)
        return self.choose(self.scores(x, latent, keys if cache is None else cache.append_keys(keys), table), self.k)


class IndexerByMatmul(IndexerHeadByHead):
    """As transformers: the weights in a product of their own, the scales before it."""

    choose = staticmethod(chosen_one_by_one)

    def scores(self, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
        q = self.queries(latent, table).transpose(1, 2).float()  # [B, T, H, d]
        dots = F.relu(torch.einsum("bthd,bsd->bths", q, keys.float()) / self.d**0.5)
        weights = self.weights_proj(x).float() / self.H**0.5
        return (weights[:, :, None] @ dots)[:, :, 0]


class SparseWithSdpa(LESSON.solutions["SparseAttention"]):  # type: ignore[misc, name-defined]
    """A boolean mask for the kernel; the indexer first, the rows before the queries."""

    indexing: type[nn.Module] = IndexerHeadByHead

    def __init__(self, config: Config, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.indexer: nn.Module | None = (
            self.indexing(config) if LESSON.solutions["has_indexer"](config, layer) else None
        )

    def mask(self, chosen: Tensor, S: int) -> Tensor:
        """Which rows each query reads: [B, T, S]."""
        T = chosen.shape[1]
        return F.one_hot(chosen, S).sum(dim=2).bool() & torch.ones(T, S, dtype=torch.bool).tril(S - T)

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        k, v = self.keys_and_values(rows)
        scale, mask = LESSON.solutions["softmax_scale"](self.config), self.mask(chosen, rows.shape[1])[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SparseTokenByToken(SparseWithSdpa):
    """Every query by itself, with the keys that it chose."""

    indexing = IndexerByMatmul

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        k, v = self.keys_and_values(rows)
        mask, texts = self.mask(chosen, rows.shape[1]), []
        for b in range(len(q)):
            outputs = []
            for t in range(q.shape[2]):
                at = mask[b, t].nonzero()[:, 0]
                scores = torch.einsum("hd,hsd->hs", q[b, :, t], k[b, :, at]) * LESSON.solutions["softmax_scale"](
                    self.config
                )
                weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
                outputs.append(torch.einsum("hs,hsv->hv", weights, v[b, :, at]).flatten())
            texts.append(torch.stack(outputs))
        return self.o_proj(torch.stack(texts))  # type: ignore[no-any-return]


class GatheredWithTakeAlong(LESSON.solutions["GatheredAttention"]):  # type: ignore[misc, name-defined]
    """Picked by `take_along_dim`; latents and rotated keys apart."""

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        (B, T, k), S = chosen.shape, rows.shape[1]
        flat = chosen.flatten(1)[..., None]
        picked = torch.take_along_dim(rows, flat, dim=1).view(B, T, k, -1)
        latents, keys = picked.split([self.rank, self.rope], dim=-1)
        q = self.absorbed(q).transpose(1, 2)  # [B, T, H, rank + rope]
        scores = q[..., : self.rank] @ latents.mT + q[..., self.rank :] @ keys.mT
        later = chosen >= torch.arange(S - T + 1, S + 1)[:, None]
        scores = torch.where(later[:, :, None], -torch.inf, scores * LESSON.solutions["softmax_scale"](self.config))
        weights = scores.float().softmax(-1).to(q.dtype)
        return self.output((weights @ latents).transpose(1, 2))  # type: ignore[no-any-return]


class GatheredThenExpanded(LESSON.solutions["GatheredAttention"]):  # type: ignore[misc, name-defined]
    """Keys and values rebuilt, of the chosen rows alone."""

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        (B, T, k), S = chosen.shape, rows.shape[1]
        picked = rows.gather(1, chosen.reshape(B, T * k, 1).expand(-1, -1, rows.shape[-1]))
        keys, v = (part.unflatten(2, (T, k)) for part in self.keys_and_values(picked))  # [B, H, T, k, ...]
        scores = (keys @ q[..., None])[..., 0] * LESSON.solutions["softmax_scale"](self.config)
        hidden = chosen > torch.arange(S - T, S)[:, None]
        weights = scores.masked_fill(hidden[:, None], torch.finfo(scores.dtype).min).softmax(-1, dtype=torch.float32)
        mixed = (weights.to(q.dtype)[..., None, :] @ v)[..., 0, :]
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class OneTensorForBoth:
    """Rows and index keys side by side, each up to its own length."""

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ) -> None:
        widths = [config.kv_lora_rank + config.qk_rope_head_dim, config.index_head_dim if indexed else 0]
        self.memory = torch.full((batch, capacity, sum(widths)), 3.0).to(dtype)
        self.width, self.lengths, self.capacity = widths[0], [0, 0], capacity

    @property
    def length(self) -> int:
        return self.lengths[0]

    def put(self, kind: int, new: Tensor) -> Tensor:
        start, end = self.lengths[kind], self.lengths[kind] + new.shape[1]
        part = self.memory[..., self.width :] if kind else self.memory[..., : self.width]
        if end > self.capacity or not part.shape[-1]:
            raise ValueError("full")
        part[:, start:end] = new
        self.lengths[kind] = end
        return part[:, :end]

    def append(self, new: Tensor) -> Tensor:
        return self.put(0, new)

    def append_keys(self, new: Tensor) -> Tensor:
        return self.put(1, new)

    def crop(self, length: int) -> None:
        self.lengths = [min(n, length) for n in self.lengths]


class TokensFirst(OneTensorForBoth):
    """The axis of tokens in front; copies come back."""

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ) -> None:
        self.rows = torch.empty(capacity, batch, config.kv_lora_rank + config.qk_rope_head_dim, dtype=dtype)
        self.found = torch.empty(capacity * indexed, batch, config.index_head_dim, dtype=dtype)
        self.lengths = [0, 0]

    def put(self, kind: int, new: Tensor) -> Tensor:
        store, start = (self.rows, self.found)[kind], self.lengths[kind]
        if new.shape[1] > len(store) - start:
            raise ValueError(f"room for {len(store) - start}")
        store.narrow(0, start, new.shape[1]).copy_(new.transpose(0, 1))
        self.lengths[kind] += new.shape[1]
        return store[: self.lengths[kind]].transpose(0, 1).contiguous()


class CacheOfTwo(LESSON.solutions["LatentCache"]):  # type: ignore[misc, name-defined]
    """The index keys in a second cache of rows."""

    length: int

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ) -> None:
        super().__init__(config, batch, capacity, dtype)
        narrow = config.replace(kv_lora_rank=config.index_head_dim, qk_rope_head_dim=0)
        self.second = LESSON.solutions["LatentCache"](narrow, batch, capacity * indexed, dtype)

    def append_keys(self, new: Tensor) -> Tensor:
        return self.second.append(new)  # type: ignore[no-any-return]

    def crop(self, length: int) -> None:
        self.length, self.second.length = min(self.length, length), min(self.second.length, length)


class ModelByHand(ModelBase):
    """One table for every length; layers written out."""

    def __init__(self, config: Config, attention: type[nn.Module] | None = None) -> None:
        own, form = LESSON.solutions, attention or self.form()
        norm = own["RMSNorm"](config.hidden_size, config.rms_norm_eps)
        layers = [own["DecoderLayer"](config, number, form) for number in range(config.num_hidden_layers)]
        super().__init__(config, norm, layers, own["rope_table"](torch.arange(config.max_position_embeddings), config))

    def form(self) -> type[nn.Module]:
        return SparseWithSdpa

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        x, last = self.embedded(ids), None
        past = caches[-1].length if caches else 0
        table = self.table[:, past : past + ids.shape[1]]
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            mixed, last = layer.self_attn(layer.input_layernorm(x), table, cache, last)
            x = x + mixed
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)  # type: ignore[no-any-return]


class ModelThatGathers(ModelByHand):
    def form(self) -> type[nn.Module]:
        return GatheredWithTakeAlong


def costs_layer_by_layer(config: Config, tokens: int, element_bytes: int = 2) -> list[int]:
    work = numbers = 0
    for layer in range(config.num_hidden_layers):
        reads, types = tokens, config.get("indexer_types")
        if config.get("index_topk"):
            reads = min(reads, config.index_topk)
            if types is None or types[layer] != "shared":
                work += tokens * config.index_n_heads * config.index_head_dim + tokens * config.index_n_heads
                numbers += config.index_head_dim
        numbers += config.kv_lora_rank + config.qk_rope_head_dim
        work += reads * config.num_attention_heads * (2 * config.kv_lora_rank + config.qk_rope_head_dim)
    return [work, numbers * tokens * element_bytes]


def costs_from_shapes(config: Config, tokens: int, element_bytes: int = 2) -> tuple[int, Tensor]:
    """With the sizes of tensors that hold no numbers."""
    types = config.get("indexer_types") or ["full"] * config.num_hidden_layers
    choosing = types[: config.num_hidden_layers].count("full") if config.get("index_topk") else 0
    rows = min(tokens, config.get("index_topk") or tokens)
    with torch.device("meta"):
        heads = torch.empty(
            config.num_hidden_layers,
            config.num_attention_heads,
            rows,
            2 * config.kv_lora_rank + config.qk_rope_head_dim,
        )
        kept = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
        keys = torch.empty(choosing, tokens, config.get("index_head_dim", 0))
    index = keys.numel() * config.get("index_n_heads", 0) + choosing * tokens * config.get("index_n_heads", 0)
    return heads.numel() + index, torch.tensor((kept * tokens + keys.numel()) * element_bytes)


def recall_by_masks(scores: Tensor, weights: Tensor, k: int) -> tuple[float, float]:
    """Two masks of the chosen tokens, from the rank of each among those that may be seen."""
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    scores, weights = (t.masked_fill(~seen, float("-inf"))[:, k:] for t in (scores, weights))
    chosen, best = (t.argsort(descending=True).argsort() < k for t in (scores, weights))
    return float(weights[chosen].sum() / weights[best].sum()), float((chosen & best).sum() / best.sum())


def recall_query_by_query(scores: Tensor, weights: Tensor, k: int) -> tuple[float, float]:
    """With sets."""
    by_weight, best_weight, same, of = 0.0, 0.0, 0, 0
    for text, given in zip(scores, weights, strict=True):
        for query in range(k, len(text)):
            row = given[query, : query + 1]
            chosen, best = (set(t[: query + 1].topk(k).indices.tolist()) for t in (text[query], given[query]))
            by_weight += sum(row[s].item() for s in chosen)
            best_weight += sum(row[s].item() for s in best)
            same, of = same + len(chosen & best), of + k
    return by_weight / best_weight, same / of


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "sparse_attention.vectors": (VectorsByHand, VectorsInTurn),
    "sparse_attention.scores": (IndexerHeadByHead, IndexerByMatmul),
    "sparse_attention.select": (chosen_by_sorting, chosen_one_by_one),
    "sparse_attention.attention": (SparseWithSdpa, SparseTokenByToken, GatheredWithTakeAlong),
    "sparse_attention.gathered": (GatheredWithTakeAlong, GatheredThenExpanded),
    "sparse_attention.cache": (OneTensorForBoth, TokensFirst, CacheOfTwo),
    "sparse_attention.model": (ModelByHand, ModelThatGathers),
    "sparse_attention.recall": (recall_by_masks, recall_query_by_query),
    "sparse_attention.costs": (costs_layer_by_layer, costs_from_shapes),
}


# Programs that are right only by chance


class VectorsOfOneFamily(VectorsByHand):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(model_type="deepseek_v32"))


def chosen_by_the_newest(scores: Tensor, k: int) -> Tensor:
    """Right where there is one new token, which sees everything."""
    return scores.topk(min(k, scores.shape[-1]), dim=-1).indices


class GatheredInName(SparseWithSdpa):
    """Right, and reads every row."""


class GatheredFromTheFirstText(GatheredWithTakeAlong):
    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        return super().attend(q, rows[:1].expand_as(rows), chosen)


class CacheThatGrows(OneTensorForBoth):
    """Makes no room in advance."""

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ) -> None:
        self.kept: list[Tensor | None] = [None, None]
        self.lengths, self.capacity = [0, 0], capacity

    def put(self, kind: int, new: Tensor) -> Tensor:
        old = self.kept[kind]
        if self.lengths[kind] + new.shape[1] > self.capacity:
            raise ValueError("full")
        both = new if old is None else torch.cat([old[:, : self.lengths[kind]], new], dim=1)
        self.kept[kind], self.lengths[kind] = both, both.shape[1]
        return both


class ModelWhoseLayersAllChoose(ModelByHand):
    """Right where no layer takes over a choice."""

    def __init__(self, config: Config, attention: type[nn.Module] | None = None) -> None:
        super().__init__(config.replace(indexer_types=None), attention)


def recall_of_one_text(scores: Tensor, weights: Tensor, k: int) -> tuple[float, float]:
    return recall_by_masks(scores[:1], weights[:1], k)


BY_CHANCE = {
    "sparse_attention.vectors": [VectorsOfOneFamily],
    "sparse_attention.select": [chosen_by_the_newest],
    "sparse_attention.gathered": [GatheredInName, GatheredFromTheFirstText],
    "sparse_attention.cache": [CacheThatGrows],
    "sparse_attention.model": [ModelWhoseLayersAllChoose],
    "sparse_attention.recall": [recall_of_one_text],
}


# What comes back in the wrong form is told in plain words


def chosen_as_a_mask(scores: Tensor, k: int) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, chosen_by_sorting(scores, k), True)


class OutputAlone(LESSON.solutions["SparseAttention"]):  # type: ignore[misc, name-defined]
    def forward(self, *args: Any) -> Tensor:
        return super().forward(*args)[0]  # type: ignore[no-any-return]


class NoIndexKeys(LESSON.solutions["SparseAttention"]):  # type: ignore[misc, name-defined]
    def forward(self, x: Tensor, table: Tensor, cache: Any = None, chosen: Any = None) -> Any:
        if self.indexer is not None:
            latent = self.q_a_layernorm(self.q_a_proj(x))
            chosen = self.indexer(x, latent, table, None)
        rows = self.rows_so_far(x, table, cache)
        return self.attend(self.queries_of(latent, table), rows, chosen), chosen


class KeyForEachHead(LESSON.solutions["IndexVectors"]):  # type: ignore[misc, name-defined]
    def keys(self, x: Tensor, table: Tensor) -> Tensor:
        return super().keys(x, table)[:, None].repeat(1, self.heads, 1, 1)  # type: ignore[no-any-return]


TOLD = [
    Told("sparse_attention.select", chosen_as_a_mask, ["select returned a tensor of torch.bool; numbers of tokens"]),
    Told("sparse_attention.vectors", KeyForEachHead, ["belongs there: one key for all heads"]),
    Told("sparse_attention.attention", OutputAlone, ["two tensors belong there, the output and the numbers of"]),
    Told("sparse_attention.attention", NoIndexKeys, ["there are 0 index keys in the cache; 6 belong there"]),
    Told(
        "sparse_attention.attention",
        Change("sparse_attention.scores", "dots.relu()", "dots"),
        ["Mend `sparse_attention.scores` first"],
    ),
    Told(
        "sparse_attention.gathered",
        Change("sparse_attention.select", "triu(diagonal=S - T + 1)", "triu(diagonal=S - T)"),
        ["`select` and `SparseAttention` do not pass their own checks"],
    ),
]


# Bugs that the layer comparison finds, names and trained weights


class RootMeanSquare(LESSON.solutions["Model"]):  # type: ignore[misc, name-defined]
    """A norm on index keys that does not subtract the mean."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        norm = self.layers[1].self_attn.indexer.k_norm
        norm.forward = lambda x: F.rms_norm(x, x.shape[-1:], norm.weight, 1e-6) + norm.bias


PLANTED = [("layers.1.self_attn.indexer.k_norm", RootMeanSquare)]
HUB = {"sparse_attention.model": build_model}
# Without heads, as transformers' models have them on a device that holds no numbers.
SIZES = {
    "deepseek-v3.2": (LESSON.config("deepseek-v3.2"), 670_951_250_176),
    "glm-5.2": (LESSON.config("glm-5.2"), 742_425_417_984),
}


def causal_lm(config: Config, form: str) -> nn.Module:
    """The model with the head that a later cell of the lesson makes, in one of the two forms of attention."""
    made = dict(LESSON.solutions)
    exec(LESSON.cell_with("class CausalLM("), made)
    return made["CausalLM"](config, LESSON.solutions[form])  # type: ignore[no-any-return]


def masked_lm(config: Config) -> nn.Module:
    return causal_lm(config, "SparseAttention")


def gathered_lm(config: Config) -> nn.Module:
    return causal_lm(config, "GatheredAttention")


# Longer than 48 tokens, so that each token that is written has to choose.
LONG_PROMPT = (
    "With all these circumstances, recollections and feelings, she could not hear that Captain Wentworth's sister was"
    " likely to live at Kellynch without a revival of former pain; and many a stroll, and many a sigh, were necessary"
)
PROMPTS = [Prompt(LONG_PROMPT, 64), Prompt("They were soon", 96)]
TRAINED = [Trained("austen-deepseek", form, "generate", PROMPTS, tokens=120) for form in ("masked_lm", "gathered_lm")]
