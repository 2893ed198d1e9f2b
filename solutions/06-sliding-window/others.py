"""What tests/lessons/test_every_lesson.py asks of sliding windows: other right programs and wrong ones, random configs."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import Gemma3TextModel

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Told, Trained
from grader.authoring.kit.programs import AttentionBase, written
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .exercises import FULL, SLIDING
from .reference import reference_config

LESSON = lesson_of(__file__)

MISTAKES = 211
VARIES = ["sliding_window.rolling_cache"]
WITHOUT = {
    "RANDOM": {
        "sliding_window.rolling_cache": "test_sliding_window.py fills it at random, and asks more",
        "sliding_window.model": "test_sliding_window.py splits texts at random, and asks more",
        "sliding_window.generate": "a generation is random as it is: its cases draw the model that writes",
    },
    "bfloat16": {
        "sliding_window.mask": "a mask has no dtype",
        "sliding_window.reach": "it counts whole numbers",
        "sliding_window.generate": "it handles whole numbers",
        "sliding_window.nats_by_context": "it is a list of Python floats",
        "sliding_window.bytes": "it counts whole numbers",
    },
    "RERUNS": "its cells read `keys` and `values` of the lesson's own ring, which other right caches need not have",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3)) * (kv_heads := draw(st.integers(1, 3)))
    layers = draw(st.integers(1, 4))
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": heads * draw(st.integers(2, 8)),
        "intermediate_size": draw(st.integers(2, 30)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 6)),
        "query_pre_attn_scalar": draw(st.integers(1, 50)),
        "sliding_window": draw(st.integers(1, 9)),
        "layer_types": draw(st.lists(st.sampled_from([SLIDING, SLIDING, FULL]), min_size=layers, max_size=layers)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "rope_theta": draw(st.sampled_from([1e4, 1e6])),
        "rope_local_base_freq": draw(st.sampled_from([1e2, 1e4])),
    }


# exercise -> a random case of it


def of_mask(config: dict[str, Any], n: Numbers) -> Case:
    window = None if n.seed % 5 == 0 else n.seed % 25 + 1
    return exercises.mask_case(str(n.seed), n.length, n.seed % 13, window)


def of_reach(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.reach_case(str(n.seed), config, n.seed % 40 + 1)


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    kind, chunks = (SLIDING, FULL)[n.seed % 2], n.chunks
    # The reference is a sliding layer's, and rotations are asked of both kinds.
    config = config | {"num_hidden_layers": 2, "layer_types": [SLIDING, FULL]}
    return exercises.attention_case(str(n.seed), config, kind, chunks, n.seed % 3 > 0)


def of_contexts(config: dict[str, Any], n: Numbers) -> Case:
    contexts = [n.seed % 5 + 1, n.seed % 3 + 1]
    sizes = config["vocab_size"], 3 + n.seed % 5
    return exercises.context_case(str(n.seed), max(contexts) + n.length, contexts, sizes)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.bytes_case(str(n.seed), config, n.length, n.batch, 4)


CONFIGS = configs()
RANDOM = {
    "sliding_window.mask": of_mask,
    "sliding_window.reach": of_reach,
    "sliding_window.attention": of_attention,
    "sliding_window.nats_by_context": of_contexts,
    "sliding_window.bytes": of_bytes,
}


# Other right programs


def mask_by_triangles(queries: int, keys: int, window: int | None = None) -> Tensor:
    ones = torch.ones(queries, keys, dtype=torch.bool)
    seen = ones.tril(keys - queries)
    return seen if window is None else seen & ones.triu(keys - queries - window + 1)


def mask_by_loops(queries: int, keys: int, window: int | None = None) -> Tensor:
    rows = []
    for query in range(keys - queries, keys):
        first = 0 if window is None else max(0, query + 1 - window)
        rows.append([first <= key <= query for key in range(keys)])
    return torch.tensor(rows)


def reach_by_walking(config: Config, length: int) -> int:
    place = length - 1
    for kind in reversed(LESSON.solutions["layer_types"](config)):
        place = max(0, place - config.sliding_window + 1) if kind == SLIDING else 0
    return length - 1 - place


class CatAndTrim:
    """No ring: new tensors at every step, of which only what the next token sees is kept."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.window = window
        self.reset()

    def reset(self) -> None:
        self.kept: tuple[Tensor, Tensor] | None = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.kept is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self.kept, (k, v), strict=True))
            self.length += k.shape[2] - self.kept[0].shape[2]
        else:
            self.length = k.shape[2]
        first = max(0, k.shape[2] - self.window + 1)
        self.kept = k[:, :, first:].clone(), v[:, :, first:].clone()
        return k, v


class ShiftedCache:
    """The last W tokens at the right-hand end of the memory, moved to the left by every new one."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.both = torch.zeros(2, batch, heads, window, head_dim, dtype=dtype, device=device)
        self.length = 0

    def reset(self) -> None:
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        window, new = self.both.shape[3], torch.stack([k, v])
        old = min(self.length, window - 1)
        keys, values = all_of_them = torch.cat([self.both[:, :, :, window - old :], new], dim=3)
        last = all_of_them[:, :, :, -window:]
        self.both = torch.cat([self.both[:, :, :, : window - last.shape[3]], last], dim=3)
        self.length += k.shape[2]
        return keys, values


class OneByOne:
    """A deque that drops by itself; tokens one by one."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.tokens: deque[Tensor] = deque(maxlen=window)
        self.count = 0

    @property
    def length(self) -> int:
        return self.count

    def reset(self) -> None:
        self.tokens.clear()
        self.count = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        window = self.tokens.maxlen or 0
        seen = list(self.tokens)[-(window - 1) :] if window > 1 else []
        for token in torch.stack([k, v]).unbind(3):
            self.tokens.append(token.clone())
            seen.append(token)
            self.count += 1
        keys, values = torch.stack(seen, dim=3)
        return keys, values


class OtherAttention(AttentionBase):
    norm = LESSON.solutions["RMSNorm"]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scalar = config["query_pre_attn_scalar"]

    def so_far(self, x: Tensor, table: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.heads(x, table)
        return (q, *cache.append(k, v)) if cache is not None else (q, k, v)


class AttentionSdpa(OtherAttention):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
        q, k, v = self.so_far(x, table, cache)
        mask = mask_by_triangles(q.shape[2], k.shape[2], window)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scalar**-0.5, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class AttentionRowByRow(OtherAttention):
    """Each query with the keys that it sees, which needs no mask."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
        q, k, v = self.so_far(x, table, cache)
        q = q.unflatten(1, (self.KV, -1))  # [B, KV, group, T, head_dim]
        old, rows = k.shape[2] - x.shape[1], []
        for t in range(x.shape[1]):
            seen = slice(0 if window is None else max(0, old + t + 1 - window), old + t + 1)
            scores = torch.einsum("bkgd,bkjd->bkgj", q[:, :, :, t], k[:, :, seen]) / self.scalar**0.5
            weights = scores.float().softmax(-1).to(x.dtype)
            rows.append(torch.einsum("bkgj,bkjd->bkgd", weights, v[:, :, seen]).flatten(1))
        return self.o_proj(torch.stack(rows, dim=1))


class OtherLayer(nn.Module):
    attention: type[nn.Module] = AttentionSdpa

    def __init__(self, config: Config) -> None:
        super().__init__()
        norms = "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
        for name in norms:
            self.add_module(name, LESSON.solutions["RMSNorm"](config.hidden_size, config.rms_norm_eps))
        self.mlp, self.self_attn = LESSON.solutions["MLP"](config), self.attention(config)

    def forward(self, x: Tensor, table: Tensor, window: int | None, cache: Any) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, window, cache))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class ModelFromScratch(nn.Module):
    """Asks the last layer for the length; one kind of cache for both kinds of layer."""

    layer: type[nn.Module] = OtherLayer
    memory: type = CatAndTrim

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.kinds = config, LESSON.solutions["layer_types"](config)
        self.norm = LESSON.solutions["RMSNorm"](config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList(self.layer(config) for _ in self.kinds)
        self.embed_tokens = LESSON.solutions["ScaledEmbedding"](config.vocab_size, config.hidden_size)

    def new_cache(self, batch: int, capacity: int) -> Any:
        sizes = {SLIDING: min(capacity, self.config.sliding_window or capacity), FULL: capacity}
        heads, width, dtype = self.config.num_key_value_heads, self.config.head_dim, self.norm.weight.dtype
        return tuple(self.memory(batch, heads, sizes[kind], width, dtype) for kind in self.kinds)

    def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
        old = caches[-1].length if caches is not None else 0
        x, rotations = self.embed_tokens(ids), LESSON.solutions["RotaryEmbedding"](self.config)
        for kind, layer, cache in zip(self.kinds, self.layers, caches or [None] * len(self.kinds), strict=True):
            table = rotations(old + torch.arange(ids.shape[1]), kind)
            x = layer(x, table, None if kind == FULL else self.config.sliding_window, cache)
        return self.norm(x)


class LayerRowByRow(OtherLayer):
    attention = AttentionRowByRow


class ModelRowByRow(ModelFromScratch):
    layer, memory = LayerRowByRow, ShiftedCache


def generate_into_a_list(
    model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 64
) -> list[int]:
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)
    *earlier, last = ids.split(chunk, dim=1)
    for piece in earlier:
        model(piece, cache)
    return written(lambda new: model(new, cache), last, max_new_tokens, [eos_token_id])


def generate_with_the_short_piece_first(
    model: Any, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 64
) -> Iterator[int]:
    cache = model.new_cache(batch=1, capacity=ids.shape[1] + max_new_tokens - 1)
    pieces = [piece.flip(1) for piece in reversed(ids.flip(1).split(chunk, dim=1))]
    for piece in pieces[:-1]:
        model(piece, cache)
    new = pieces[-1]
    for _ in range(max_new_tokens):
        new = model(new, cache)[:, -1:].topk(1).indices[:, :, 0]
        yield new.item()
        if new[0, 0] == eos_token_id:
            break


@torch.no_grad()
def nats_token_by_token(model: Any, ids: Tensor, contexts: list[int]) -> list[float]:
    """One piece and one token at a time."""
    found = []
    for n in contexts:
        total = 0.0
        for t in range(max(contexts), len(ids)):
            total -= model(ids[None, t - n : t])[0, -1].log_softmax(dim=0)[ids[t]].item()
        found.append(total / (len(ids) - max(contexts)))
    return found


def nats_by_shifts(model: Any, ids: Tensor, contexts: list[int]) -> list[float]:
    """The pieces from shifted copies of the text, and the logarithm written out."""
    longest, found = max(contexts), {}
    for n in set(contexts):
        pieces = torch.stack([ids[longest - n + i : len(ids) - n + i] for i in range(n)], dim=1)
        logits = model(pieces)[:, n - 1].detach().double()
        found[n] = (logits.logsumexp(1) - logits[torch.arange(len(logits)), ids[longest:]]).mean().item()
    return [found[n] for n in contexts]


def bytes_by_shape(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    total = 0
    for kind in LESSON.solutions["layer_types"](config):
        tokens = context if kind == FULL or context < config.sliding_window else config.sliding_window
        shape = (2, batch, config.num_key_value_heads, tokens, config.head_dim)
        total += torch.empty(shape, device="meta").numel() * element_bytes
    return total


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "sliding_window.mask": (mask_by_triangles, mask_by_loops),
    "sliding_window.reach": (reach_by_walking,),
    "sliding_window.rolling_cache": (CatAndTrim, ShiftedCache, OneByOne),
    "sliding_window.attention": (AttentionSdpa, AttentionRowByRow),
    "sliding_window.model": (ModelFromScratch, ModelRowByRow),
    "sliding_window.generate": (generate_into_a_list, generate_with_the_short_piece_first),
    "sliding_window.nats_by_context": (nats_token_by_token, nats_by_shifts),
    "sliding_window.bytes": (bytes_by_shape,),
}


# Programs that are right only by chance, or by keeping everything, do not pass, and are told why


class KeepsEverything(CatAndTrim):
    """Masked and never trimmed."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        start = self.length
        if self.kept is not None:
            k, v = (torch.cat([old, new], dim=2) for old, new in zip(self.kept, (k, v), strict=True))
        self.kept = k.clone(), v.clone()
        self.length = k.shape[2]
        first = max(0, start - self.window + 1)
        return k[:, :, first:], v[:, :, first:]


class KeepsAList(CatAndTrim):
    """A list of all chunks."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.chunks = [*(self.chunks if self.length else []), (k.clone(), v.clone())]  # type: ignore[has-type]
        first = max(0, self.length - self.window + 1)
        self.length += k.shape[2]
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*self.chunks, strict=True))
        return keys[:, :, first:], values[:, :, first:]


class KeepsAView(CatAndTrim):
    """As transformers' DynamicSlidingWindowLayer: what is kept is a view of what was put together."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        k, v = super().append(k, v)
        first = max(0, k.shape[2] - self.window + 1)
        self.kept = k[:, :, first:], v[:, :, first:]
        return k, v


class ModelThatNeverTrims(ModelFromScratch):
    def new_cache(self, batch: int, capacity: int) -> Any:
        return [
            LESSON.solutions["KVCache"](batch, self.config.num_key_value_heads, capacity, self.config.head_dim, w.dtype)
            for w in [self.norm.weight] * len(self.kinds)
        ]


class RightForDecodeOnly(CatAndTrim):
    """A ring as many write it: right for single tokens, while a long chunk loses what came before."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if k.shape[2] >= self.window:
            self.kept = None
            length = self.length
            super().append(k, v)
            self.length = length + k.shape[2]
            return k, v
        return super().append(k, v)


class TwiceTheRoom(CatAndTrim):
    """Right, and twice as large as it need be."""

    def __init__(self, batch: int, heads: int, window: int, head_dim: int, dtype: Any = None, device: Any = None):
        self.room = torch.zeros(2, batch, heads, window + 1, head_dim, dtype=dtype)
        super().__init__(batch, heads, window, head_dim)


class Stub(CatAndTrim):
    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError()


def nats_with_the_last_as_longest(model: Any, ids: Tensor, contexts: list[int]) -> list[float]:
    """Right where the longest context comes last."""
    return [nats_token_by_token(model, ids, [n, contexts[-1]])[0] for n in contexts]


BY_CHANCE = {
    "sliding_window.rolling_cache": [RightForDecodeOnly, KeepsEverything, KeepsAList, KeepsAView, TwiceTheRoom],
    "sliding_window.model": [ModelThatNeverTrims],
    "sliding_window.nats_by_context": [nats_with_the_last_as_longest],
}

ONE_TOO_FAR = Change("sliding_window.mask", "distance < window", "distance <= window")
WITHOUT_ITS_OLD_TOKENS = Change(
    "sliding_window.rolling_cache",
    "        return keys, values",
    "        return (k, v) if len(new) > 1 else (keys, values)",
)


def generate_nothing(*_: Any) -> Iterator[int]:
    return iter(())


KEPT = "everything is kept, and only the last W are returned"
TOLD = [
    Told("sliding_window.rolling_cache", KeepsEverything, [KEPT]),
    Told(
        "sliding_window.generate",
        generate_nothing,
        ["it gave 0 values, and should give 8"],
        never=["raised ValueError"],
    ),
    Told("sliding_window.rolling_cache", KeepsAList, [KEPT]),
    Told("sliding_window.rolling_cache", TwiceTheRoom, ["10 of 11 cases right"], never=["everything is kept"]),
    Told("sliding_window.rolling_cache", Stub, ["Stub.append` is not written yet"]),
    Told("sliding_window.model", ModelThatNeverTrims, ["no layer is given a ring: masked, and never trimmed"]),
    # What is wrong by itself is found behind what uses it.
    Told("sliding_window.attention", ONE_TOO_FAR, ["does not pass its own check", "Mend `sliding_window.mask` first"]),
    Told("sliding_window.model", ONE_TOO_FAR, ["Mend `sliding_window.mask` and `sliding_window.attention` first"]),
    Told("sliding_window.model", WITHOUT_ITS_OLD_TOKENS, ["`RollingCache` does not pass its own check"]),
    # Another wrong text is not called a known mistake.
    Told(
        "sliding_window.generate",
        Change("sliding_window.generate", "argmax(dim=-1, keepdim=True)", "topk(2, dim=-1).indices[:, 1:]"),
        ["cases right"],
        never=["comes out when"],
    ),
    Told(
        "sliding_window.generate",
        Change("sliding_window.generate", "model(next_id, cache)", "model(ids[:, -1:], cache)"),
        ["cases right"],
        never=["comes out when"],
    ),
    # A head of another width is not taken for keys alone.
    Told(
        "sliding_window.bytes",
        Change("sliding_window.bytes", "config.head_dim", "(config.hidden_size // config.num_attention_heads)"),
        ["the width is divided among the heads"],
        never=["only the keys"],
    ),
]


# The layer comparison, names, sizes and trained weights


def too_far(self: Any, x: Tensor, table: Tensor, window: int | None = None, cache: Any = None) -> Tensor:
    return LESSON.solutions["CachedAttention"].forward(self, x, table, window and window + 1, cache)


PLANTED = [("layers.2.self_attn", too_far)]


def hubs(config: Config) -> nn.Module:
    return Gemma3TextModel(reference_config(config))


HUB = {"sliding_window.model": hubs}
SIZES = {"gemma-3-270m": (LESSON.config("gemma-3-270m"), 268_098_176)}

TEXTS = "It is a truth universally acknowledged", "Anne"
AUSTEN = [Prompt(text * (3 if chunk == 7 else 1), 80, {"chunk": chunk}) for text in TEXTS for chunk in (1, 7, 32, 100)]
GEMMA = [Prompt(text, 12, {"chunk": 3}) for text in ("The capital of France is", "def add(a, b):")]
TRAINED = [
    Trained("austen-gemma3", "CachedLM", "generate_rolling", AUSTEN),
    Trained("gemma-3-270m", "CachedLM", "generate_rolling", GEMMA),
]
