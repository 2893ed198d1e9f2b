"""What the exercises of 06-sliding-window are checked against: transformers' Gemma 3, which sees a text all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3TextConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3RotaryEmbedding, Gemma3TextModel

from grader.config import Config
from grader.authoring.mistakes import with_mistakes
from grader.exercise import Case, Draw, Exercise
from grader.kv import bytes_at
from grader.toy import random_toy_lm
from grader.toy_reference import reference_generate

TRACE = "sliding_window.model"

SLIDING, FULL = "sliding_attention", "full_attention"

# B, T, D, the heads of both kinds and head_dim are all different numbers; texts are longer than the window.
SMALL: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 47,
    "hidden_size": 20,
    "intermediate_size": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 7,
    "sliding_window": 4,
    "layer_types": [SLIDING, FULL, SLIDING],
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,
    "rope_theta": 10000.0,
    "rope_local_base_freq": 30.0,
}
# One key and value head; which layers are full follows from their number; a longer window.
SEVEN_LAYERS: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "layer_types"} | {
    "hidden_size": 18,
    "intermediate_size": 20,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 20,
    "sliding_window": 3,
}
FULL_FIRST = SMALL | {
    "layer_types": [FULL, SLIDING, FULL],
    "sliding_window": 5,
    "hidden_size": 18,
    "num_attention_heads": 6,
}
ALL_SLIDING = SMALL | {"layer_types": [SLIDING] * 3, "num_key_value_heads": 1}


def reference_config(config: Mapping[str, Any]) -> Gemma3TextConfig:
    """transformers' config for the learner's, with eager attention."""
    no_ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return Gemma3TextConfig(**{**config, **no_ends}, attn_implementation="eager")


def square_mask(length: int, window: int | None) -> Tensor:
    """transformers' mask for a whole text, True where a key may be seen: [length, length]."""
    config = reference_config(SMALL | {"sliding_window": window or length})
    create = create_sliding_window_causal_mask if window else create_causal_mask
    mask = create(config=config, inputs_embeds=torch.zeros(1, length, 1), attention_mask=None, cache=None)
    return torch.ones(length, length, dtype=torch.bool) if mask is None else mask[0, 0] == 0


def learners_name(name: str) -> str | None:
    """The course has neither a module for the activation nor one for the rotations; a factor is no weight."""
    return None if any(part in name for part in ("act_fn", "rotary_emb", "embed_scale")) else name


def sizes(build: Mapping[str, Any]) -> dict[str, int]:
    fields = ("head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window")
    return {field: build["config"][field] for field in fields}


# The mask


def right_mask(queries: int, keys: int, window: int | None = None) -> Tensor:
    """The last rows of transformers' mask for the whole text."""
    return square_mask(keys, window)[keys - queries :]


def mask_case(name: str, queries: int, more_keys: int, window: int | None) -> Case:
    """more_keys: how many keys there are before those of the queries."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        old = draw.size("old", more_keys, more_keys + 2, more_keys + 3) if more_keys else 0
        return queries, queries + old, window

    return Case(name, draw_args)


MASK = Exercise(
    name="sliding_window.mask",
    solution="window_mask",
    reference=right_mask,
    function=True,
    points=4,
    cases=[
        mask_case("a whole text of 7 tokens, a window of 3", 7, 0, 3),
        mask_case("a chunk of 5 after others, a window of 4", 5, 6, 4),
        mask_case("one token after 9, a window of 4", 1, 9, 4),
        mask_case("a chunk without a window", 4, 5, None),
        mask_case("a window of 1", 4, 2, 1),
        mask_case("a window longer than the text", 3, 3, 20),
    ],
)


# How far back


def walk_back(config: Config, length: int) -> int:
    """Follows transformers' masks from layer to layer, and counts from where something arrives at the last token."""
    types = reference_config({**config}).layer_types
    known = torch.eye(length)
    for kind in types:
        known = ((square_mask(length, config.sliding_window if kind == SLIDING else None).float() @ known) > 0).float()
    return int(known[-1].sum()) - 1


def reach_case(name: str, config: dict[str, Any], length: int, *others: int) -> Case:
    return Case(name, lambda draw: [Config(config), draw.size("length", length, *others)])


REACH = Exercise(
    name="sliding_window.reach",
    solution="reach",
    reference=walk_back,
    function=True,
    points=3,
    cases=[
        reach_case("3 sliding layers, a long text", ALL_SLIDING, 30, 24, 27),
        reach_case("3 sliding layers, a text of 8", ALL_SLIDING, 8, 7, 9),
        reach_case("the second of 3 is full", SMALL, 30, 26),
        reach_case(
            "5 sliding layers with a window of 6",
            {k: v for k, v in SMALL.items() if k != "layer_types"} | {"num_hidden_layers": 5, "sliding_window": 6},
            60,
            50,
        ),
        reach_case("7 layers, and no list of their kinds", SEVEN_LAYERS, 40, 44),
        reach_case("the last of 3 is full", SMALL | {"layer_types": [SLIDING, SLIDING, FULL]}, 25, 22),
        reach_case("a window of 1", ALL_SLIDING | {"sliding_window": 1}, 9, 12),
    ],
)


# The ring


def use_ring(made: Any, kv: Tensor, window: int, chunks: list[int], look: str) -> Any:
    """Append kv [2, B, H, T, head_dim] in chunks (0: a reset); give what comes back, or what else `look` asks for."""

    def memory(thing: Any, found: dict[int, int]) -> dict[int, int]:
        """The bytes behind all tensors that hang on an object, each memory once."""
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            for value in thing.values():
                memory(value, found)
        elif isinstance(thing, (list, tuple, set)) or type(thing).__name__ == "deque":
            for value in thing:
                memory(value, found)
        elif hasattr(thing, "__dict__") and not isinstance(thing, type):
            memory(vars(thing), found)
        return found

    cache = made(kv.shape[1], kv.shape[2], window, kv.shape[4], dtype=kv.dtype)
    a_token = 2 * kv.shape[1] * kv.shape[2] * kv.shape[4] * kv.element_size()
    start, contents, lengths, held = 0, [], [int(cache.length)], []
    for size in chunks:
        if size == 0:
            cache.reset()
            contents.clear()
            lengths.append(int(cache.length))
            continue
        k, v = kv[:, :, :, start : start + size].clone()
        keys, values = cache.append(k, v)
        contents.append(torch.cat([keys, values], dim=-1).clone())
        k.zero_(), v.zero_()  # a cache that only remembers the caller's tensors loses its contents
        del k, v, keys, values
        start += size
        lengths.append(int(cache.length))
        bytes_held = sum(memory(cache, {}).values())
        too_many = bytes_held - window * a_token - 64 * window - 1024  # a few numbers more are no token
        held.append(max(0, -(-too_many // a_token)))
    return {"contents": lambda: torch.cat(contents, dim=2), "lengths": lambda: lengths, "held": lambda: held}[look]()


def right_ring(kv: Tensor, window: int, chunks: list[int], look: str) -> Any:
    """What `use_ring` gives for a cache that is right: slices of the whole, and counts."""
    start, begin, contents, lengths = 0, 0, [], [0]
    for size in chunks:
        if size == 0:
            begin = start
            contents.clear()
        else:
            first = max(begin, start - window + 1)
            contents.append(torch.cat([*kv[:, :, :, first : start + size]], dim=-1))
            start += size
        lengths.append(start - begin)
    if look == "lengths":
        return lengths
    return [0] * sum(size > 0 for size in chunks) if look == "held" else torch.cat(contents, dim=2)


def ring_case(name: str, window: int, chunks: list[int], look: str, dtype: torch.dtype = torch.float32) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, heads = draw.size("B", 2, 3), draw.size("H", 3, 5)
        head_dim = 32 if look == "held" else draw.size("head_dim", 4, 6, 10)
        return draw.normal(2, batch, heads, sum(chunks), head_dim), window, chunks, look

    return Case(name, draw_args, dtype=dtype)


ROLLING_CACHE = Exercise(
    name="sliding_window.rolling_cache",
    solution="RollingCache",
    reference=right_ring,
    drive=use_ring,
    function=True,
    differentiable=False,
    points=8,
    cases=[
        ring_case("a prompt of 3, then 4 tokens, a window of 4", 4, [3, 1, 1, 1, 1], "contents"),
        ring_case("a prompt longer than the window, then 3 tokens", 4, [6, 1, 1, 1], "contents"),
        ring_case("chunks longer and shorter than the window", 5, [2, 7, 1, 6, 1], "contents"),
        ring_case("chunks as long as the window", 3, [3, 3, 1, 3, 1], "contents"),
        ring_case("a window of 1", 1, [2, 1, 1, 3], "contents"),
        ring_case("its length, with a reset in between", 4, [3, 6, 1, 0, 2, 1], "lengths"),
        ring_case("another text after a reset", 4, [6, 1, 0, 2, 1, 3], "contents"),
        ring_case("for how many tokens more than 4 it holds memory", 4, [11, 1, 1, 5], "held"),
        ring_case("bfloat16", 4, [3, 5, 1, 1], "contents", torch.bfloat16),
    ],
)


# Attention


def attend_in_chunks(
    module: Any, x: Tensor, table: Tensor, window: Any, chunks: list[int], kept: Any, look: str = "result"
) -> Any:
    """Attention's results for x [B, T, D], given in chunks, with a cache of the check's own; without one for no chunks.

    kept: how many old tokens that cache gives back at most; None: all. look: "stored" gives how many numbers it was
    handed.
    """

    class Memory:
        def __init__(self) -> None:
            self.keys = self.values = self.given = torch.zeros(0)
            self.length = self.stored = 0

        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            old = self.length if kept is None else min(self.length, kept)
            self.stored += k.numel() + v.numel()
            both = torch.stack([k, v])
            if self.length:
                both = torch.cat([self.given[:, :, :, self.given.shape[3] - old :], both], dim=3)
            self.given = both.clone()
            self.length += size
            # What lies in the memory is laid out as in the caches that the lesson has: with room, or in a ring.
            places = sum(chunks) if kept is None else kept + 1
            laid = both.new_zeros(*both.shape[:3], places, both.shape[4])
            for p in range(max(0, self.length - min(places, both.shape[3])), self.length):
                laid[:, :, :, p % places] = both[:, :, :, p - self.length]
            self.keys, self.values = laid
            return both[0], both[1]

    if not chunks:
        return module(x, table, window)
    memory, start, seen = Memory(), 0, []
    for size in chunks:
        part = slice(start, start + size)
        seen.append(module(x[:, part], table[:, part], window, memory))
        start += size
    return torch.tensor([memory.stored]) if look == "stored" else torch.cat(seen, dim=1)


def call_attention(
    module: Any, x: Tensor, table: Tensor, window: Any, chunks: list[int], kept: Any, look: str = "result"
) -> Any:
    """transformers' attention on the whole text at once."""
    if look == "stored":
        config = module.config
        return torch.tensor([2 * len(x) * x.shape[1] * config.num_key_value_heads * config.head_dim])
    cos, sin = table.to(x.dtype)
    seen = square_mask(x.shape[1], window)
    mask = torch.zeros(seen.shape, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)
    return module(x, position_embeddings=(cos[None], sin[None]), attention_mask=mask[None, None])[0]


def attention_case(
    name: str, config: dict[str, Any], kind: str, chunks: list[int], rolls: bool, look: str = "result", **more: Any
) -> Case:
    """rolls: whether the check's cache gives back a window, or everything."""
    window = config["sliding_window"] if kind == SLIDING else None

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = sum(chunks) or draw.size("T", 8, 9)
        first = draw.size("first position", 5, 11)
        positions = torch.arange(first, first + length)
        cos, sin = Gemma3RotaryEmbedding(reference_config(config))(torch.zeros(()), positions[None], kind)
        table, x = torch.stack([cos[0], sin[0]]), draw.normal(draw.size("B", 2, 3), length, config["hidden_size"])
        return x, table, window, chunks, window - 1 if rolls and window else None, look

    return Case(name, draw_args, {"config": config}, **more)


ATTENTION = Exercise(
    name="sliding_window.attention",
    solution="CachedAttention",
    reference=lambda config: Gemma3Attention(reference_config(config), layer_idx=config["layer_types"].index(SLIDING)),
    call=call_attention,
    drive=attend_in_chunks,
    uses=["sliding_window.mask"],
    differentiable=False,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    cases=[
        attention_case("a window, without a cache", SMALL, SLIDING, [], True),
        attention_case("no window, without a cache", SMALL, FULL, [], True),
        attention_case("a ring: a prompt of 5, then one by one, a window of 4", SMALL, SLIDING, [5, 1, 1, 1], True),
        attention_case("a ring: chunks of 2, 7 and 3, a window of 5", FULL_FIRST, SLIDING, [2, 7, 3], True),
        attention_case("a cache that keeps everything, and a window", ALL_SLIDING, SLIDING, [5, 1, 3, 1], False),
        attention_case("a cache that keeps everything, and no window", SMALL, FULL, [3, 3, 1], False),
        attention_case("how many numbers the cache was handed", SMALL, SLIDING, [5, 1, 2], True, "stored"),
        attention_case("bfloat16", SMALL, SLIDING, [6, 1, 3, 1], True, dtype=torch.bfloat16),
    ],
)


# The model


def read_in_chunks(module: Any, ids: Tensor, chunks: Any = None, look: str = "vectors") -> Any:
    """The final vectors of ids [B, T], given in chunks with the model's own cache, or what else `look` asks for.

    No chunks: without a cache.
    """

    def run(ids: Tensor, cache: Any) -> Tensor:
        return torch.cat([module(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

    def too_many(cache: Any, batch: int, capacity: int) -> list[int]:
        """For how many tokens more than it needs each layer's cache holds memory."""
        config, found = module.config, []
        a_token = 2 * batch * config.num_key_value_heads * config.head_dim * module.embed_tokens.weight.element_size()
        for layer, kind in zip(cache, kinds, strict=True):
            need = capacity if kind == "full_attention" else min(config.sliding_window, capacity)
            things = [part for t in vars(layer).values() for part in (t if isinstance(t, (tuple, list)) else [t])]
            stores = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in things if torch.is_tensor(t)
            }
            found.append(-(-sum(stores.values()) // a_token) - need)
        return found

    every = module.config.get("sliding_window_pattern", 6)
    kinds = module.config.get("layer_types") or [
        "sliding_attention" if (i + 1) % every else "full_attention" for i in range(len(module.layers))
    ]
    if not chunks:
        return module(ids)
    batch, length = ids.shape
    if look == "vectors":
        return run(ids, module.new_cache(batch, length))
    if look == "more room":
        return run(ids, module.new_cache(batch, length + 20))
    if look == "after a reset":
        cache = module.new_cache(batch, length)
        run(ids.flip(1), cache)
        for layer in cache:
            layer.reset()
        return run(ids, cache)
    if look == "two texts":  # in turns, each with its own cache
        caches, seen = [module.new_cache(1, length) for _ in ids], [[] for _ in ids]
        for pieces in zip(*(text[None].split(chunks, dim=1) for text in ids), strict=True):
            for cache, piece, vectors in zip(caches, pieces, seen, strict=True):
                vectors.append(module(piece, cache))
        return torch.cat([torch.cat(vectors, dim=1) for vectors in seen])
    if look == "memory":  # of a long text's caches, and of a short one's
        found = []
        for capacity in (length, module.config.sliding_window, module.config.sliding_window - 1):
            cache = module.new_cache(batch, capacity)
            found += [max(0, n) for n in too_many(cache, batch, capacity)]
            if capacity == length:
                run(ids, cache)
                found += [max(0, n) for n in too_many(cache, batch, capacity)]
        return torch.tensor(found)
    rows: list[int] = []
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda m, args: rows.append(args[0].shape[1])) for layer in module.layers
    ]
    cache, counts = module.new_cache(batch, length), []
    for piece in ids.split(chunks, dim=1):
        rows.clear()
        module(piece, cache)
        counts.append(sum(rows))
    for hook in hooks:
        hook.remove()
    return torch.tensor(counts)


def call_model(module: Any, ids: Tensor, chunks: Any = None, look: str = "vectors") -> Any:
    """transformers' model on the whole text at once, without a cache."""
    layers = module.config.num_hidden_layers
    if look == "rows":
        return torch.tensor(chunks) * layers
    if look == "memory":
        return torch.zeros(4 * layers, dtype=torch.int64)
    return module(input_ids=ids, use_cache=False).last_hidden_state


def model_case(
    name: str, config: dict[str, Any], batch: int, chunks: list[int], look: str = "vectors", **more: Any
) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.tokens(config["vocab_size"], batch, sum(chunks)), chunks, look

    return Case(name, draw_args, {"config": config}, **more)


MODEL = Exercise(
    name="sliding_window.model",
    solution="CachedModel",
    reference=lambda config: Gemma3TextModel(reference_config(config)),
    call=call_model,
    drive=read_in_chunks,
    uses=["sliding_window.mask", "sliding_window.rolling_cache", "sliding_window.attention"],
    differentiable=False,
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    cases=[
        Case("without a cache", lambda draw: [draw.tokens(47, 2, draw.size("T", 11, 9))], {"config": SMALL}),
        model_case("two texts in turns, a new_cache for each", ALL_SLIDING, 2, [6, 1, 2], "two texts"),
        model_case("a prompt of 7, then one by one", SMALL, 2, [7, 1, 1, 1]),
        model_case("7 layers, chunks of 2, 4, 3 and 1", SEVEN_LAYERS, 2, [2, 4, 3, 1]),
        model_case("a full layer first, one by one from the start", FULL_FIRST, 2, [1] * 9),
        model_case("only sliding layers, more room than tokens", ALL_SLIDING, 2, [6, 1, 2, 1], "more room"),
        model_case("a text shorter than the window", FULL_FIRST, 2, [2, 1]),
        model_case("another text after a reset", SMALL, 2, [6, 1, 2], "after a reset"),
        model_case(
            "for how many tokens too many each layer holds memory, in bfloat16",
            SMALL,
            2,
            [9, 1, 4],
            "memory",
            dtype=torch.bfloat16,
        ),
        model_case("how many rows the layers compute for each chunk", SMALL, 2, [6, 1, 2], "rows"),
    ],
)


# Generation


def watch_generation(
    generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int, look: str
) -> list[int]:
    """The tokens written with a toy model that has a cache; or what else `look` asks for.

    "pieces": the sizes of the pieces that it was given; "room": for how many texts and tokens it made caches;
    "after": how often it was called after the end token had come out.
    """

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.toy, self.config, self.given, self.rooms = toy, toy.config, [], []
            self.ended, self.after = False, 0

        def new_cache(self, batch: int, capacity: int) -> Any:
            class Text:
                def __init__(self) -> None:
                    self.reset()

                def reset(self) -> None:
                    self.ids = ids[:, :0]

                @property
                def length(self) -> int:
                    return self.ids.shape[1]

            self.rooms += [batch, capacity]
            return [Text()]

        def forward(self, new: Tensor, cache: Any = None) -> Tensor:
            self.given.append(new.shape[1])
            if self.ended:
                self.after += 1
            if cache is None:
                logits = self.toy(new)
            else:
                cache[0].ids = torch.cat([cache[0].ids, new], dim=1)
                logits = self.toy(cache[0].ids)[:, -new.shape[1] :]
            reads_prompt = cache is not None and cache[0].length < ids.shape[1]
            self.ended = self.ended or (not reads_prompt and int(logits[0, -1].argmax()) == end)
            return logits

    model = Watched().eval()
    written = [int(token) for token in generate(model, ids, new_tokens, end, chunk)]
    return {"tokens": written, "pieces": model.given, "room": model.rooms, "after": [model.after]}[look]


def right_generation(toy: Any, ids: Tensor, new_tokens: int, end: Any, chunk: int, look: str) -> Any:
    """transformers' generate on the toy model, without a cache; a prompt in pieces, then single tokens."""
    written = reference_generate(toy, ids, new_tokens, end)
    length = ids.shape[1]
    pieces = [*[chunk] * (length // chunk), *([length % chunk] if length % chunk else [])]
    if look == "room":
        return [1, length + new_tokens - 1]
    if look == "after":
        return [0]
    return written if look == "tokens" else pieces + [1] * (len(written) - 1)


def generation_case(name: str, prompt: int, new_tokens: int, chunk: int, look: str, stops: bool = False) -> Case:
    """stops: whether an end token comes, and not as the first, second or last."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            toy = random_toy_lm(61, 256, draw.generator)
            ids = draw.tokens(61, 1, prompt)
            written = reference_generate(toy, ids, new_tokens).tolist()
            end = written[new_tokens // 2]
            if written.index(end) == new_tokens // 2 and len(set(written)) > new_tokens // 2:  # else too repetitive
                return toy, ids, new_tokens, end if stops else None, chunk, look

    return Case(name, draw_args)


GENERATE = Exercise(
    name="sliding_window.generate",
    solution="generate_rolling",
    reference=right_generation,
    drive=watch_generation,
    function=True,
    points=4,
    cases=[
        generation_case("8 new tokens, a prompt of 11 in chunks of 4", 11, 8, 4, "tokens"),
        generation_case("stops at the end token", 6, 9, 4, "tokens", stops=True),
        generation_case("the pieces that the model is given", 11, 5, 4, "pieces"),
        generation_case("the pieces of a prompt that two chunks make up", 8, 6, 4, "pieces"),
        generation_case("the pieces of a prompt shorter than a chunk", 5, 4, 16, "pieces"),
        generation_case("for how many texts and tokens a cache is made", 7, 6, 3, "room"),
        generation_case("how often the model is called after the end token", 8, 6, 4, "after", stops=True),
    ],
)


# Bytes

# The talk's model: 36 layers, 4,096 wide, 5:1, a window of 2,048. Only the width counts, so 32 heads of 128.
TALK: dict[str, Any] = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_size": 4096,
    "sliding_window": 2048,
}
GEMMA_270M: dict[str, Any] = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_size": 640,
    "sliding_window": 512,
}


def bytes_case(name: str, config: dict[str, Any], *numbers: int) -> Case:
    return Case(name, lambda draw: [Config(config), *numbers])


BYTES = Exercise(
    name="sliding_window.bytes",
    solution="cache_bytes",
    reference=bytes_at,
    function=True,
    points=4,
    cases=[
        bytes_case("the talk's model at 131,072 tokens", TALK, 131_072),
        bytes_case(
            "the same with 4 query heads for each key and value head", TALK | {"num_key_value_heads": 8}, 131_072
        ),
        bytes_case("Gemma 3 270M, one token", GEMMA_270M, 1),
        bytes_case("Gemma 3 270M, 3 texts of 400 tokens in float32", GEMMA_270M, 400, 3, 4),
        bytes_case(
            "4 layers in an order of their own",
            SMALL | {"layer_types": [FULL, SLIDING, FULL, FULL], "hidden_size": 28},
            9,
            2,
        ),
        bytes_case(
            "no window at all", SMALL | {"layer_types": [FULL] * 3, "sliding_window": None, "hidden_size": 28}, 9
        ),
    ],
)

EXERCISES = with_mistakes(__file__, [MASK, REACH, ROLLING_CACHE, ATTENTION, MODEL, GENERATE, BYTES])
