"""What tests/lessons/test_every_lesson.py asks of fast decoding: other right programs and wrong ones, random configs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.solved import lesson_of

from . import exercises

LESSON = lesson_of(__file__)

MISTAKES = 153
VARIES = ["fast_decoding.cache", "fast_decoding.fused", "fast_decoding.attention", "fast_decoding.int8"]
NO_MODEL = "its model is lesson 03's, which is checked there"
COUNTS = "it is about whole numbers"
WITHOUT = {
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES"), NO_MODEL),
    "bfloat16": {
        "fast_decoding.limit": COUNTS,
        "fast_decoding.accept": "probabilities are in float32, whatever the model's dtype is",
        "fast_decoding.step": "probabilities are in float32, whatever the model's dtype is",
        "fast_decoding.generate": COUNTS,
        "fast_decoding.draft": COUNTS,
        "fast_decoding.lookup": COUNTS,
        "fast_decoding.replay": COUNTS,
        "fast_decoding.speedup": "it is a Python float",
    },
    "CONFIG_SHA256": "its config has the fields that count",
    "answers by state": {
        "fast_decoding.int8": "its codes and scales are read from its buffers",
        "fast_decoding.draft": "it is called, and what it keeps of earlier calls decides what its model is given",
    },
}


# Random configs


CONFIGS = st.fixed_dictionaries(
    {
        "head_dim": st.sampled_from([4, 6, 8]),
        "kv_heads": st.integers(1, 3),
        "group": st.integers(1, 4),
        "hidden": st.integers(9, 33),
        "V": st.integers(3, 9),
        "guesses": st.integers(1, 5),
        "tied": st.booleans(),
        "qwen": st.booleans(),
    }
)


def model_config(config: dict[str, Any]) -> dict[str, Any]:
    """The random numbers as a model's config."""
    heads = config["kv_heads"] * config["group"]
    multiple = heads * max(config["hidden"] // heads, 1)  # transformers wants one of a Llama
    return exercises.SMALL | {
        "model_type": "qwen3" if config["qwen"] else "llama",
        "hidden_size": config["hidden"] if config["qwen"] else multiple,
        "intermediate_size": config["hidden"] + 7,
        "num_attention_heads": heads,
        "num_key_value_heads": config["kv_heads"],
        "head_dim": config["head_dim"],
        "tie_word_embeddings": config["tied"],
    }


def of_limit(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.limit_case(str(n.seed), model_config(config), n.length, 1 + n.seed % 4, 1 + n.seed % 3)


def of_cache(config: dict[str, Any], n: Numbers) -> Case:
    steps = [step for chunk in n.chunks for step in (chunk, -(chunk // 2))]
    sizes = (n.batch, config["kv_heads"], config["head_dim"])
    return exercises.cache_case(str(n.seed), n.length + 3, steps, sizes)


def of_fused(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.fused_case(str(n.seed), n.chunks, config["hidden"], n.batch, n.length)


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.attention_case(str(n.seed), model_config(config), n.batch, n.chunks)


def of_int8(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.int8_case(str(n.seed), n.length + 1, config["hidden"], n.batch, 2, scale=0.01 * n.scale)


def of_accept(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.accept_case(str(n.seed), n.length + 1, config["V"])


def of_step(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.step_case(str(n.seed), config["guesses"], config["V"])


def of_generate(config: dict[str, Any], n: Numbers) -> Case:
    turns = [n.seed % 4, config["guesses"], (n.seed // 4) % 3]
    numbers = [7 + n.length % 6, config["guesses"], 1 + n.seed % 6]
    return exercises.guess_case(str(n.seed), 3 + n.batch, numbers, turns, bool(n.seed % 2))


def of_draft(config: dict[str, Any], n: Numbers) -> Case:
    g = config["guesses"]
    steps = [[0, g], [n.seed % (g + 1), 2], [(n.seed // 3) % 3, 1 + n.batch], [0, 2]]
    return exercises.draft_case(str(n.seed), 3 + n.batch, steps)


def of_lookup(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.lookup_case(str(n.seed), 4 + 2 * n.length, config["V"], config["guesses"], 1 + n.seed % 4)


def of_replay(config: dict[str, Any], n: Numbers) -> Case:
    rule = [config["guesses"], n.seed % 3]
    return exercises.replay_case(str(n.seed), 5, 10 + n.length, config["V"], 1 + n.seed % 5, rule)


def of_speedup(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.speed_case(
        str(n.seed), 0.3 + 0.05 * config["V"], config["guesses"], 0.1 * n.batch, 1 + 0.1 * n.length
    )


RANDOM = {
    "fast_decoding.limit": of_limit,
    "fast_decoding.cache": of_cache,
    "fast_decoding.fused": of_fused,
    "fast_decoding.attention": of_attention,
    "fast_decoding.int8": of_int8,
    "fast_decoding.accept": of_accept,
    "fast_decoding.step": of_step,
    "fast_decoding.generate": of_generate,
    "fast_decoding.draft": of_draft,
    "fast_decoding.speedup": of_speedup,
    "fast_decoding.lookup": of_lookup,
    "fast_decoding.replay": of_replay,
}


# Other right programs


def bytes_of_shapes(config: Config, context: int, weight_bytes: int = 4, cache_bytes: int = 4) -> int:
    """A list of all weights' shapes, summed."""
    D, width, F_ = config.hidden_size, LESSON.solutions["head_dim"](config), config.intermediate_size
    q, kv = config.num_attention_heads * width, config.num_key_value_heads * width
    layer = [(q, D), (kv, D), (kv, D), (D, q), (F_, D), (F_, D), (D, F_), (D, 1), (D, 1)]
    if config.model_type == "qwen3":
        layer += [(width, 1), (width, 1)]
    others = [(D, 1), (config.vocab_size, D)] + ([] if config.get("tie_word_embeddings") else [(D, 1)])
    numbers = sum(a * b for a, b in layer * config.num_hidden_layers + others)
    return numbers * weight_bytes + config.num_hidden_layers * context * 2 * kv * cache_bytes


def bytes_on_meta(config: Config, context: int, weight_bytes: int = 4, cache_bytes: int = 4) -> int:
    """Counted on the given model, without memory."""
    with torch.device("meta"):
        model = LESSON.solutions["CausalLM"](Config(dict(config) | {"rms_norm_eps": 1e-6}))
    numbers = sum(p.numel() for p in model.parameters())
    if not config.get("tie_word_embeddings"):
        numbers -= (config.vocab_size - 1) * config.hidden_size
    per_token = sum(p.shape[0] for name, p in model.named_parameters() if "k_proj" in name or "v_proj" in name)
    return numbers * weight_bytes + context * per_token * cache_bytes


class CacheByNarrow:
    """One tensor for both, written by copy_ into a part of it."""

    def __init__(
        self, batch: int, heads: int, capacity: int, head_dim: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.both = torch.empty(2, batch, heads, capacity, head_dim, dtype=dtype)
        self.keys, self.values = self.both
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        new = k.size(2)
        if self.length + new > self.both.size(3):
            raise ValueError("full")
        for memory, tensor in zip(self.both, (k, v), strict=True):
            memory.narrow(2, self.length, new).copy_(tensor)
        self.length += new
        keys, values = self.both.narrow(3, 0, self.length)
        return keys, values

    def crop(self, length: int) -> None:
        if length < 0 or length > self.length:
            raise ValueError("no such length")
        self.length = length


class CacheByIndex(CacheByNarrow):
    """Written by an index of slots."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        slots = torch.arange(self.length, self.length + k.shape[2])
        if len(slots) and slots[-1] >= self.both.shape[3]:
            raise ValueError("full")
        self.both.index_copy_(3, slots, torch.stack([k, v]))
        self.length += len(slots)
        return self.both[0, :, :, : self.length], self.both[1, :, :, : self.length]


def fuse_by_data(layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """The weights' data is replaced."""
    rows = torch.empty(sum(layer.out_features for layer in layers), layers[0].in_features, dtype=layers[0].weight.dtype)
    start = 0
    for layer in layers:
        part = rows[start : start + layer.out_features]
        part.copy_(layer.weight.data)
        layer.weight.data = part
        start += layer.out_features
    return lambda x: x @ rows.T


def fuse_by_linear(layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """An nn.Linear of its own, kept where no module sees it."""
    whole = nn.Linear(layers[0].in_features, sum(layer.weight.shape[0] for layer in layers), bias=False, device="meta")
    whole.weight = nn.Parameter(torch.vstack([layer.weight.data for layer in layers]), requires_grad=False)
    ends = torch.tensor([layer.out_features for layer in layers]).cumsum(0).tolist()
    for layer, end in zip(layers, ends, strict=True):
        rows = whole.weight.data[end - layer.out_features : end]
        layer.weight = nn.Parameter(rows, requires_grad=layer.weight.requires_grad)
    return whole.forward


class AttentionByHand(LESSON.solutions["Attention"]):  # type: ignore[misc, name-defined]
    """Scores and softmax written out, with the group as an axis of its own."""

    def prepare(self) -> None:
        self.qkv = fuse_by_data([self.q_proj, self.k_proj, self.v_proj])

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        T, apply_rope = x.shape[1], LESSON.solutions["apply_rope"]
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))  # [B, T, H + 2 KV, head_dim]
        KV = heads.shape[2] // (self.group + 2)
        q, k, v = heads.split([self.group * KV, KV, KV], dim=2)
        q, k, v = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)
        q, k = apply_rope(q, table), apply_rope(k, table)
        if cache is not None:
            k, v = cache.append(k, v)
        q = q.unflatten(1, (-1, self.group))  # [B, KV, group, T, head_dim]
        scores = torch.einsum("bkgtd,bksd->bkgts", q, k).float() * self.head_dim**-0.5
        later = torch.ones(T, k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - T)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1).to(x.dtype)
        mixed = torch.einsum("bkgts,bksd->btkgd", weights, v)
        return self.o_proj(mixed.flatten(2))


class AttentionByKernel(AttentionByHand):
    """PyTorch's kernel, which shares the heads itself where several tokens come."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        B, T, _ = x.shape
        apply_rope = LESSON.solutions["apply_rope"]
        heads = self.qkv(x).view(B, T, -1, self.head_dim)
        KV = heads.shape[2] // (self.group + 2)
        H = self.group * KV
        q = apply_rope(self.q_norm(heads[:, :, :H]).transpose(1, 2), table)
        k = apply_rope(self.k_norm(heads[:, :, H : H + KV]).transpose(1, 2), table)
        v = heads[:, :, H + KV :].transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        if T == 1:
            mixed = F.scaled_dot_product_attention(q.view(B, KV, -1, self.head_dim), k, v).reshape(B, 1, -1)
            return self.o_proj(mixed)
        seen = torch.arange(k.shape[2]) <= torch.arange(k.shape[2] - T, k.shape[2])[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Int8ByInverse(nn.Module):
    """Multiplied by the inverse of the scale, and the scale applied to x's dtype by an einsum's result."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        most = torch.maximum(weight.float().amax(1), -weight.float().amin(1))
        inverse = torch.where(most > 0, 127 / most, 0.0)
        self.register_buffer("codes", (weight.float() * inverse[:, None]).round().clamp(-127, 127).char())
        self.register_buffer("scale", most / 127)

    def forward(self, x: Tensor) -> Tensor:
        summed = torch.einsum("...i,oi->...o", x.float(), self.codes.float())
        return (summed * self.scale).to(x.dtype)

    def bound(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x.float(), ord=1, dim=-1)[..., None] * (0.5 * self.scale)


class Int8ByRows(Int8ByInverse):
    """Row by row, and dequantised for the product."""

    def __init__(self, weight: Tensor) -> None:
        nn.Module.__init__(self)
        codes, scales = [], []
        for row in weight.double():
            scale = max(abs(row.min().item()), abs(row.max().item())) / 127
            codes.append(torch.round(row / scale) if scale else torch.zeros_like(row))
            scales.append(scale)
        self.register_buffer("codes", torch.stack(codes).to(torch.int8))
        self.register_buffer("scale", torch.tensor(scales, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.codes * self.scale[:, None]).to(x.dtype).T


def accept_by_gather(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    ratio = p.gather(1, drafts[:, None]) / q.gather(1, drafts[:, None])
    accepted = u < ratio[:, 0].clamp(max=1)
    missing = torch.relu(p - q)
    tokens = drafts.clone()
    lost = ~accepted
    if lost.any():
        tokens[lost] = LESSON.solutions["pick"](missing[lost] / missing[lost].sum(1, keepdim=True), v[lost])
    return tokens, accepted


def accept_one_by_one(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """With numpy, over sorted edges."""
    p64, q64 = p.double().numpy(), q.double().numpy()
    rows = torch.arange(len(drafts))
    accepted = u.double() * q.double()[rows, drafts] < p.double()[rows, drafts]
    missing = torch.from_numpy((p64 - q64).clip(0))
    edges = torch.cumsum(missing, dim=1)
    found = torch.searchsorted(edges, (v.double() * edges[:, -1])[:, None], right=True)[:, 0]
    return torch.where(accepted, drafts, found.clamp(max=p.shape[1] - 1)), accepted


def step_in_a_loop(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> list[int]:
    written: list[int] = []
    for i in range(len(drafts)):
        token, accepted = accept_by_gather(*(t[i : i + 1] for t in (p, q, drafts, u, v)))
        written.append(int(token))
        if not accepted:
            return written
    return [*written, int(LESSON.solutions["pick"](p[-1:], v[-1:]))]


def step_by_first(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> list[int]:
    g = drafts.numel()
    tokens, accepted = accept_one_by_one(p[:g], q, drafts, u, v[:g]) if g else (drafts, drafts.bool())
    lost = (~accepted).nonzero()[:, 0].tolist()
    bonus = LESSON.solutions["pick"](p[g:], v[g:])
    return torch.cat([tokens, bonus])[: (lost[0] if lost else g) + 1].tolist()


@torch.no_grad()
def generate_by_length(
    model: nn.Module, propose: Any, ids: Tensor, max_new_tokens: int, guesses: int = 4, eos_token_id: int | None = None
) -> Iterator[int]:
    """What is unread follows from the cache's length; guesses are compared by a product of ones."""
    text, last = ids.flatten().tolist(), ids.shape[1] + max_new_tokens
    cache = model.new_cache(1, last - 1)
    while len(text) < last:
        drafts = list(propose(text[:], min(guesses, last - len(text) - 1)))
        logits = model(ids.new_tensor([text[cache[0].length :] + drafts]), cache)[0]
        best = logits[-len(drafts) - 1 :].argmax(-1)
        right = (best[:-1] == ids.new_tensor(drafts)).long().cumprod(0).sum().item()
        for layer in cache:
            layer.crop(len(text) + int(right))
        for token in best[: right + 1].tolist():
            text.append(token)
            yield token
            if eos_token_id is not None and token == eos_token_id:
                return


def generate_token_by_token(
    model: nn.Module, propose: Any, ids: Tensor, max_new_tokens: int, guesses: int = 4, eos_token_id: int | None = None
) -> Iterator[int]:
    """Each token is given out as soon as it is known, and the caches are cut before the next run."""
    tokens, cache, given = ids[0].tolist(), model.new_cache(1, ids.shape[1] + max_new_tokens - 1), 0
    unread = list(tokens)
    while given < max_new_tokens:
        drafts = propose(tokens.copy(), min(guesses, max_new_tokens - given - 1))
        with torch.no_grad():
            rows = model(torch.tensor([[*unread, *drafts]]), cache)[0, len(unread) - 1 :]
        for i, row in enumerate(rows):
            token = int(row.argmax())
            tokens.append(token)
            given += 1
            yield token
            if token == eos_token_id:
                return
            if i == len(drafts) or drafts[i] != token:
                break
        unread = tokens[-1:]
        for layer in cache:
            layer.crop(len(tokens) - 1)


class DraftByLength:
    """Compares by zip, and keeps one list of what is in the cache."""

    def __init__(self, model: nn.Module, capacity: int) -> None:
        self.model, self.cache, self.inside = model, model.new_cache(1, capacity), []  # type: ignore[operator, var-annotated]

    @torch.no_grad()
    def __call__(self, tokens: list[int], n: int) -> list[int]:
        if n == 0:
            return []
        agree = [a == b for a, b in zip(self.inside, tokens[:-1], strict=False)]
        keep = agree.index(False) if False in agree else len(agree)
        for layer in self.cache:
            layer.crop(keep)
        self.inside = list(tokens)
        ids, guesses = torch.tensor([tokens[keep:]]), []
        while True:
            ids = self.model(ids, self.cache)[:, -1:].argmax(-1)
            guesses.append(ids.item())
            if len(guesses) == n:
                return guesses
            self.inside.append(guesses[-1])


class DraftByPrefix(DraftByLength):
    """The longest beginning that both have, from the longest that may be down."""

    @torch.no_grad()
    def __call__(self, tokens: list[int], n: int) -> list[int]:
        most = min(len(self.inside), len(tokens) - 1)
        keep = next(size for size in range(most, -1, -1) if self.inside[:size] == tokens[:size])
        for layer in self.cache:
            layer.crop(keep)
        del self.inside[keep:]
        text = list(tokens)
        for _ in range(n):
            logits = self.model(torch.tensor([text[len(self.inside) :]]), self.cache)
            self.inside = list(text)
            text.append(logits[0, -1].max(dim=0).indices.item())
        return text[len(tokens) :]


def lookup_by_dictionary(tokens: list[int], n: int, longest: int = 3) -> list[int]:
    """Every n-gram's latest end in a dictionary."""
    for size in range(longest, 0, -1):
        ends = {tuple(tokens[end - size : end]): end for end in range(size, len(tokens))}
        if size < len(tokens) and tuple(tokens[-size:]) in ends:
            end = ends[tuple(tokens[-size:])]
            return tokens[end : end + n]
    return []


def lookup_by_tensor(tokens: list[int], n: int, longest: int = 3) -> list[int]:
    """All windows at once."""
    ids = torch.tensor(tokens)
    for size in reversed(range(1, longest + 1)):
        if size < len(tokens):
            matches = (ids[:-1].unfold(0, size, 1) == ids[-size:]).all(-1).nonzero()
            if len(matches):
                end = int(matches[-1]) + size
                return ids[end : end + n].tolist()
    return []


def runs_by_recursion(propose: Any, prompt: list[int], written: list[int], guesses: int = 4) -> int:
    runs, text, rest = 0, list(prompt), list(written)
    while rest:
        drafts = propose(list(text), min(guesses, len(rest) - 1))
        right = next((i for i, (a, b) in enumerate(zip(drafts, rest, strict=False)) if a != b), len(drafts))
        text, rest = text + rest[: right + 1], rest[right + 1 :]
        runs += 1
    return runs


def runs_by_position(propose: Any, prompt: list[int], written: list[int], guesses: int = 4) -> int:
    answer, place, runs = prompt + written, len(prompt), 0
    while place < len(answer):
        runs += 1
        for draft in propose(answer[:place], min(guesses, len(answer) - place - 1)):
            if draft != answer[place]:
                break
            place += 1
        place += 1
    return runs


def speed_in_closed_form(acceptance: float, guesses: int, cost: float, verify: float = 1.0) -> float:
    if acceptance == 1:
        return (guesses + 1) / (guesses * cost + verify)
    return (1 - acceptance ** (guesses + 1)) / (1 - acceptance) / (guesses * cost + verify)


def speed_by_horner(acceptance: float, guesses: int, cost: float, verify: float = 1.0) -> float:
    tokens = 1.0
    for _ in range(guesses):
        tokens = 1 + acceptance * tokens
    return tokens / (verify + cost * guesses)


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "fast_decoding.limit": (bytes_of_shapes, bytes_on_meta),
    "fast_decoding.cache": (CacheByNarrow, CacheByIndex),
    "fast_decoding.fused": (fuse_by_data, fuse_by_linear),
    "fast_decoding.attention": (AttentionByHand, AttentionByKernel),
    "fast_decoding.int8": (Int8ByInverse, Int8ByRows),
    "fast_decoding.accept": (accept_by_gather, accept_one_by_one),
    "fast_decoding.step": (step_in_a_loop, step_by_first),
    "fast_decoding.generate": (generate_by_length, generate_token_by_token),
    "fast_decoding.draft": (DraftByLength, DraftByPrefix),
    "fast_decoding.speedup": (speed_in_closed_form, speed_by_horner),
    "fast_decoding.lookup": (lookup_by_dictionary, lookup_by_tensor),
    "fast_decoding.replay": (runs_by_recursion, runs_by_position),
}


# Programs that are right only by chance


def bytes_of_tied_models(config: Config, context: int, weight_bytes: int = 4, cache_bytes: int = 4) -> int:
    return bytes_of_shapes(config.replace(tie_word_embeddings=True), context, weight_bytes, cache_bytes)


class CacheThatGrowsOnly(CacheByNarrow):
    """Right as long as nothing is taken back."""

    def crop(self, length: int) -> None:
        self.length = max(self.length, length)


def accept_for_greedy_drafts(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return accept_by_gather(p, F.one_hot(drafts, p.shape[1]).float(), drafts, u, v)


@torch.no_grad()
def generate_without_guesses(
    model: nn.Module, propose: Any, ids: Tensor, max_new_tokens: int, guesses: int = 4, eos_token_id: int | None = None
) -> Iterator[int]:
    """The right text, one token for each run."""
    yield from generate_by_length(model, lambda tokens, n: [], ids, max_new_tokens, guesses, eos_token_id)


class DraftThatReadsAgain(DraftByLength):
    """The right guesses, with everything read anew."""

    def __call__(self, tokens: list[int], n: int) -> list[int]:
        self.inside = []
        return super().__call__(tokens, n)


BY_CHANCE = {
    "fast_decoding.limit": [bytes_of_tied_models],
    "fast_decoding.cache": [CacheThatGrowsOnly],
    "fast_decoding.accept": [accept_for_greedy_drafts],
    "fast_decoding.generate": [generate_without_guesses],
    "fast_decoding.draft": [DraftThatReadsAgain],
}


# What comes back in the wrong form is told in plain words, and a wrong part is named where it is used


def only_the_tokens(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return accept_by_gather(p, q, drafts, u, v)[0]


def step_of_tensors(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.tensor(step_in_a_loop(p, q, drafts, u, v))


class Int8InFloats(Int8ByInverse):
    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.register_buffer("codes", self.get_buffer("codes").float())


TOLD = [
    Told("fast_decoding.accept", only_the_tokens, ["two tensors belong there: tokens, accepted"]),
    Told("fast_decoding.step", step_of_tensors, ["a list of Python ints belongs there"]),
    Told("fast_decoding.int8", Int8InFloats, ["torch.int8 belongs there"]),
    Told(
        "fast_decoding.step",
        Change("fast_decoding.accept", "rest = (p - q).clamp(min=0)  # [N, V]", "rest = p"),
        ["Mend `fast_decoding.accept` first"],
    ),
    Told(
        "fast_decoding.attention",
        Change(
            "fast_decoding.fused", "return partial(F.linear, weight=rows)", "return partial(F.linear, weight=2 * rows)"
        ),
        ["Mend `fast_decoding.fused` first"],
    ),
]


# Trained weights: with the fast program, and with guesses


class Prepared(LESSON.solutions["FastLM"]):  # type: ignore[misc, name-defined]
    """The lesson's model, which prepares itself when it is first used."""

    def new_cache(self, batch: int, capacity: int) -> Any:
        self.prepare()
        return super().new_cache(batch, capacity)

    def forward(self, ids: Tensor, cache: Any = None) -> Tensor:
        if cache is None:
            self.prepare()
        found: Tensor = super().forward(ids, cache)
        return found


def looked_up(model: nn.Module, ids: Tensor, tokens: int, end_tokens: Sequence[int] = ()) -> Iterator[int]:
    """Prompt lookup's text, which must be the model's own."""
    own = LESSON.solutions
    end = next(iter(end_tokens), None)
    yield from own["generate_with_guesses"](model, own["prompt_lookup"], ids, tokens, 4, end)


PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [
    Trained("austen-qwen3", "Prepared", "generate", PROMPTS[:2]),
    Trained("austen-qwen3", "Prepared", "looked_up", PROMPTS),
]
RERUNS = {
    "with other caches, products, acceptance and drafts": Rerun(
        {
            "fast_decoding.limit": bytes_of_shapes,
            "fast_decoding.cache": CacheByNarrow,
            "fast_decoding.fused": fuse_by_linear,
            "fast_decoding.attention": AttentionByKernel,
            "fast_decoding.int8": Int8ByInverse,
            "fast_decoding.accept": accept_by_gather,
            "fast_decoding.step": step_in_a_loop,
            "fast_decoding.generate": generate_by_length,
            "fast_decoding.draft": DraftByLength,
            "fast_decoding.speedup": speed_by_horner,
            "fast_decoding.lookup": lookup_by_dictionary,
            "fast_decoding.replay": runs_by_position,
        },
        shows=["46,080 bytes of cache", "90% accepted", "the same 40 tokens: True"],
        changes={"10_000": "500", 'load_checkpoint("smollm2-135m-instruct", optional=True) or ': ""},
    ),
}
