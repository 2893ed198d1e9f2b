"""What the exercises of 06-sliding-window are checked against: transformers' Gemma 3, which sees a text all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3TextConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3RotaryEmbedding, Gemma3TextModel

from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.kv import bytes_at
from grader.lessons.exercise import Case, Draw, Exercise, Mistake

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
    mistakes=[
        Mistake(
            "the window is one too long",
            "With a window of 1 a token sees only itself. How far is it from itself?",
            "distance < window",
            "distance <= window",
        ),
        Mistake(
            "the window is one too short",
            "The window counts the token itself. How many tokens do you let a query see with a window of 3?",
            "distance < window",
            "distance < window - 1",
        ),
        Mistake(
            "there is no window",
            "Which of your lines uses `window`? A token must not see what lies farther back.",
            "seen = seen & (distance < window)",
            "pass",
        ),
        Mistake(
            "there is no window when a single token comes",
            "This happened in nanochat (#452). Is there anything special about one query? It has a distance to each key, too.",
            "if window is not None:",
            "if window is not None and queries > 1:",
        ),
        Mistake(
            "there is no window once there are old tokens",
            "A chunk has a window as a whole text has. What do you do where queries and keys differ in number?",
            "if window is not None:",
            "if window is not None and queries == keys:",
        ),
        Mistake(
            "the first query is lined up with the first key",
            "This happened in LLMs-from-scratch (#697). The last query is the last key. Which key is the first query, then?",
            "places[keys - queries :, None]",
            "places[:queries, None]",
        ),
        Mistake(
            "the queries stand one place too early",
            "Which key is the last query? Print the two lists of numbers that you subtract.",
            "places[keys - queries :, None] - places[None, :]",
            "places[keys - queries :, None] - 1 - places[None, :]",
        ),
        Mistake(
            "the queries stand one place too late",
            "Which key is the last query? Print the two lists of numbers that you subtract.",
            "places[keys - queries :, None] - places[None, :]",
            "places[keys - queries :, None] + 1 - places[None, :]",
        ),
        Mistake(
            "the window looks both ways",
            "A key that comes later is at a negative distance. May it be seen?",
            "seen = seen & (distance < window)",
            "seen = distance.abs() < window",
        ),
        Mistake(
            "the future is seen",
            "Where is the line that hides later keys?",
            "seen = distance >= 0",
            "seen = distance >= -keys",
        ),
        Mistake(
            "the window lets the future in",
            "A window says how far back a token sees. What keeps it from seeing ahead, once there is a window?",
            "seen = seen & (distance < window)",
            "seen = distance < window",
        ),
        Mistake(
            "it is enough if one of the two conditions holds",
            "Not later, and not too far back: must both hold, or one of them?",
            "seen = seen & (distance < window)",
            "seen = seen | (distance < window)",
        ),
        Mistake(
            "no token sees itself",
            "A token's distance to itself is 0. May it see itself?",
            "seen = distance >= 0",
            "seen = distance > 0",
        ),
        Mistake(
            "True stands where a key may not be seen",
            "The docstring asks for what may be looked at.",
            "    return seen",
            "    return ~seen",
        ),
        Mistake(
            "what lies behind the window is seen, and the window is not",
            "Which distances are allowed: small ones, or large ones?",
            "seen = seen & (distance < window)",
            "seen = seen & (distance >= window)",
        ),
        Mistake(
            "the text is cut into blocks, and a token sees its own block",
            "A window slides: it moves on with every token. Yours stays where it is for several of them.",
            "seen = seen & (distance < window)",
            "seen = seen & (places[keys - queries :, None] // window == places[None, :] // window)",
        ),
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
    mistakes=[
        Mistake(
            "each layer reaches a whole window back",
            "A window of 4 holds the token itself. How many earlier ones?",
            "config.sliding_window - 1",
            "config.sliding_window",
        ),
        Mistake(
            "one layer is counted",
            "The farthest token that the last layer sees has seen others, one layer below.",
            "len(layer_types(config)) * (config.sliding_window - 1)",
            "config.sliding_window - 1",
        ),
        Mistake(
            "a full layer is counted as a sliding one",
            "What does a full layer see? It is enough that there is one.",
            '    if "full_attention" in layer_types(config):\n        return earlier\n',
            "",
        ),
        Mistake(
            "full layers are left out, and only sliding ones counted",
            "A full layer sees everything. Where in your sum is that?",
            '    if "full_attention" in layer_types(config):\n        return earlier\n'
            "    return min(earlier, len(layer_types(config))",
            '    return min(earlier, layer_types(config).count("sliding_attention")',
        ),
        Mistake(
            "it reaches beyond the beginning of the text",
            "A text of 8 tokens has 7 before the last. Can more of them have an influence?",
            "min(earlier, len(layer_types(config)) * (config.sliding_window - 1))",
            "len(layer_types(config)) * (config.sliding_window - 1)",
        ),
        Mistake(
            "the token itself is counted",
            "How many tokens come *before* the last of a text?",
            "earlier = length - 1",
            "earlier = length",
        ),
        Mistake(
            "a full layer's reach counts the token itself",
            "How many tokens come *before* the last of a text?",
            "        return earlier\n",
            "        return length\n",
        ),
        Mistake(
            "the token itself is taken off once, and not in every layer",
            "Two layers with a window of 4: how many earlier tokens does the first see, and how many more the second?",
            "len(layer_types(config)) * (config.sliding_window - 1)",
            "len(layer_types(config)) * config.sliding_window - 1",
        ),
        Mistake(
            "the windows are multiplied, not added",
            "A second layer on top: does it reach twice as far, or W times as far?",
            "len(layer_types(config)) * (config.sliding_window - 1)",
            "(config.sliding_window - 1) ** len(layer_types(config))",
        ),
        Mistake(
            "a full layer counts only where it is the last",
            "It doesn't matter where in the stack the full layer stands. Test it with the second of three.",
            'if "full_attention" in layer_types(config):',
            'if layer_types(config)[-1] == "full_attention":',
        ),
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


BODY = """        old = torch.arange(max(0, start - window + 1), start) % window  # where the first new one looks
        keys = torch.cat([self.keys[:, :, old], k], dim=2)  # [batch, heads, len(old) + T, head_dim]
        values = torch.cat([self.values[:, :, old], v], dim=2)
        new = torch.arange(max(start, end - window), end) % window  # where the last of the new ones go
        self.keys[:, :, new] = k[:, :, -window:]
        self.values[:, :, new] = v[:, :, -window:]
"""
READ, WRITE = BODY[: BODY.index("        new =")], BODY[BODY.index("        new =") :]
RESET = '''        """Forget all tokens: ready for another text, in the same memory."""
        ### BEGIN SOLUTION
        self.length = 0
'''

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
    mistakes=[
        Mistake(
            "of a long chunk only what stays in the ring is given back",
            "Each token of the chunk must see itself and those before it. Which are given back when more tokens come"
            " than there are places?",
            "        return keys, values",
            "        return keys[:, :, -window:], values[:, :, -window:]",
        ),
        Mistake(
            "the new tokens are written, and the ring is given back as it lies",
            "Two things go missing: the order of the tokens once the ring has wrapped, and what a chunk has overwritten."
            " Which old tokens does the first new one see, and where do they lie?",
            BODY,
            WRITE + "        keys, values = (t[:, :, : min(end, window)] for t in (self.keys, self.values))\n",
        ),
        Mistake(
            "all places of the ring are given back before the new tokens",
            "At the beginning some of them are empty, later one holds a token that nobody sees. Which do the new ones see?",
            "        keys = torch.cat([self.keys[:, :, old], k], dim=2)  # [batch, heads, len(old) + T, head_dim]\n"
            "        values = torch.cat([self.values[:, :, old], v], dim=2)\n",
            "        keys = torch.cat([self.keys, k], dim=2)\n        values = torch.cat([self.values, v], dim=2)\n",
        ),
        Mistake(
            "a chunk of several tokens sees only itself",
            "This happened in LLMs-from-scratch (#1013): a chunk lost its context. Whom does the first token"
            " of the second chunk see?",
            "        return keys, values",
            "        return (k, v) if k.shape[2] > 1 else (keys, values)",
        ),
        Mistake(
            "a chunk is cut down to the window before anybody has seen it",
            "What stays in the ring and what is given back are two things.",
            "        old = torch.arange(",
            "        k, v = k[:, :, -window:], v[:, :, -window:]\n        old = torch.arange(",
        ),
        Mistake(
            "one old token too few is given back",
            "A window of 4 is the new token and how many old ones?",
            "max(0, start - window + 1)",
            "min(start, max(0, start - window + 2))",
        ),
        Mistake(
            "one old token too many is given back",
            "A window of 4 holds the new token itself. Is there anybody who sees the oldest of yours?",
            "max(0, start - window + 1)",
            "max(0, start - window)",
        ),
        Mistake(
            "places that nothing was written to are given back as well",
            "At the beginning there are fewer old tokens than a window has. A key of zeros gets a weight, too.",
            "max(0, start - window + 1)",
            "start - window + 1",
        ),
        Mistake(
            "the old tokens come in the order of their places, not of their age",
            "Once the ring has wrapped, the oldest token no longer lies in the first place. Where does it lie?",
            "torch.arange(max(0, start - window + 1), start) % window",
            "(torch.arange(max(0, start - window + 1), start) % window).sort().values",
        ),
        Mistake(
            "the old tokens come from the newest to the oldest",
            "In which order does the docstring want them?",
            "torch.arange(max(0, start - window + 1), start) % window",
            "torch.arange(max(0, start - window + 1), start).flip(0) % window",
        ),
        Mistake(
            "the new tokens stand before the old ones",
            "The last query is the last key. Which tokens must come last?",
            "keys = torch.cat([self.keys[:, :, old], k], dim=2)  # [batch, heads, len(old) + T, head_dim]\n"
            "        values = torch.cat([self.values[:, :, old], v], dim=2)",
            "keys = torch.cat([k, self.keys[:, :, old]], dim=2)\n"
            "        values = torch.cat([v, self.values[:, :, old]], dim=2)",
        ),
        Mistake(
            "the new tokens are not among those given back",
            "A token sees itself. Is it in what comes back?",
            "        return keys, values",
            "        return keys[:, :, : len(old)], values[:, :, : len(old)]",
        ),
        Mistake(
            "the new tokens are written before the old ones have been read",
            "A chunk overwrites what its own first token still has to see. What has to happen first?",
            BODY,
            WRITE + READ,
        ),
        Mistake(
            "every chunk is written from the first place on",
            "Token p lies in place p mod W. Where does the first token of the second chunk go?",
            "torch.arange(max(start, end - window), end) % window",
            "torch.arange(min(window, end - start))",
        ),
        Mistake(
            "a chunk longer than the window is written from the first place on",
            "Token p lies in place p mod W, whatever came with it. A chunk of 7 in a ring of 4: where does token 6 go?",
            "torch.arange(max(start, end - window), end) % window",
            "torch.arange(max(start, end - window), end) % window if end - start < window else torch.arange(window)",
        ),
        Mistake(
            "of a chunk longer than the window the first tokens stay, not the last",
            "Which of ten new tokens will the next one still see?",
            "        self.keys[:, :, new] = k[:, :, -window:]\n        self.values[:, :, new] = v[:, :, -window:]",
            "        self.keys[:, :, new] = k[:, :, :window]\n        self.values[:, :, new] = v[:, :, :window]",
        ),
        Mistake(
            "of a chunk longer than the window the first tokens are written, and the others are not",
            "Which of ten new tokens will the next one still see?",
            WRITE,
            "        new = torch.arange(start, min(end, start + window)) % window\n"
            "        self.keys[:, :, new] = k[:, :, :window]\n        self.values[:, :, new] = v[:, :, :window]\n",
        ),
        Mistake(
            "the new tokens are written one place too far",
            "Token p lies in place p mod W. Into which place does the first of all tokens go?",
            "torch.arange(max(start, end - window), end) % window",
            "torch.arange(max(start, end - window) + 1, end + 1) % window",
        ),
        Mistake(
            "the ring is read as if it had one place less",
            "By which number do you divide where you write, and by which where you read?",
            "torch.arange(max(0, start - window + 1), start) % window",
            "torch.arange(max(0, start - window + 1), start) % max(1, window - 1)",
        ),
        Mistake(
            "once the ring is full nothing is written any more",
            "Which token has to make room for the new one?",
            WRITE,
            "        new = torch.arange(min(start, window), min(end, window))\n"
            "        self.keys[:, :, new] = k[:, :, : len(new)]\n"
            "        self.values[:, :, new] = v[:, :, : len(new)]\n",
        ),
        Mistake(
            "the values are stored among the keys",
            "Two memories, two things to write. Compare the right-hand sides of your two lines.",
            "self.values[:, :, new] = v[:, :, -window:]",
            "self.values[:, :, new] = k[:, :, -window:]",
        ),
        Mistake(
            "the values are never written",
            "Which of the two memories is still all zeros after an append?",
            "        self.values[:, :, new] = v[:, :, -window:]\n",
            "",
        ),
        Mistake(
            "keys and values come back in the wrong order",
            "In which order does the docstring name the two?",
            "return keys, values",
            "return values, keys",
        ),
        Mistake(
            "every text of the batch keeps the first one's keys and values",
            "Each text has a row of its own. What does an assignment do with a tensor whose first axis is 1?",
            "        self.keys[:, :, new] = k[:, :, -window:]\n        self.values[:, :, new] = v[:, :, -window:]",
            "        self.keys[:, :, new] = k[:1, :, -window:]\n        self.values[:, :, new] = v[:1, :, -window:]",
        ),
        Mistake(
            "every head keeps the first one's keys and values",
            "Each head has keys of its own. What does an assignment do with a tensor whose second axis is 1?",
            "        self.keys[:, :, new] = k[:, :, -window:]\n        self.values[:, :, new] = v[:, :, -window:]",
            "        self.keys[:, :, new] = k[:, :1, -window:]\n        self.values[:, :, new] = v[:, :1, -window:]",
        ),
        Mistake(
            "everything is kept, and only the last W are given back",
            "The result is right. How much memory does the cache take after a thousand tokens?",
            BODY,
            "        both = torch.stack([k, v])\n"
            "        self.all = torch.cat([self.all, both], dim=3) if start else both\n"
            "        keys, values = self.all[:, :, :, max(0, start - window + 1) :]\n"
            "        self.keys = self.values = torch.zeros(1, 1, window, 1)\n",
        ),
        Mistake(
            "there is room for twice the window",
            "The result is right. How many old tokens are still seen when a new one comes, and how many are kept?",
            "        self.keys = torch.zeros(batch, heads, window, head_dim, dtype=dtype, device=device)\n"
            "        self.values = torch.zeros_like(self.keys)\n",
            "        room = torch.zeros(2, batch, heads, 2 * window, head_dim, dtype=dtype, device=device)\n"
            "        self.keys, self.values = room[:, :, :, :window]\n",
        ),
        Mistake(
            "everything is kept and given back, and nothing is let go of",
            "A mask can hide what lies behind the window. Who lets go of it? How much memory does the cache take after a"
            " thousand tokens?",
            BODY,
            "        both = torch.stack([k, v])\n"
            "        self.all = torch.cat([self.all, both], dim=3) if start else both\n"
            "        keys, values = self.all\n"
            "        self.keys = self.values = torch.zeros(1, 1, window, 1)\n",
        ),
        Mistake(
            "with a window of 1 nothing is let go of",
            "A slice that begins at `-(W - 1)`: what does it begin at for W = 1, and what does it give then?",
            BODY,
            "        both = torch.stack([k, v])\n"
            "        keys, values = both = torch.cat([self.both, both], dim=3) if start else both\n"
            "        self.both = both[:, :, :, -(window - 1) :].clone()\n"
            "        self.keys = self.values = torch.zeros(1, 1, window, 1)\n",
        ),
        Mistake(
            "a view of the last W keeps the whole prompt alive",
            "A slice is a view, and behind it lies all of what it was cut from. What makes a tensor of its own?",
            BODY,
            "        both, old = torch.stack([k, v]), min(start, window - 1)\n"
            "        if start:\n"
            "            both = torch.cat([self.both[:, :, :, self.both.shape[3] - old :], both], dim=3)\n"
            "        keys, values = both\n"
            "        self.both = both[:, :, :, -window:]\n"
            "        self.keys = self.values = torch.zeros(1, 1, window, 1)\n",
        ),
        Mistake(
            "the length stops at the window",
            "Others ask the cache for the position of the next token. Where does token 100 stand?",
            "self.length = end",
            "self.length = min(end, window)",
        ),
        Mistake(
            "the length grows by one at every append",
            "A prompt comes in one append. How long is the text then?",
            "self.length = end",
            "self.length += 1",
        ),
        Mistake(
            "the length is that of the last append",
            "After 5 tokens and 1 more there have been 6.",
            "self.length = end",
            "self.length = k.shape[2]",
        ),
        Mistake(
            "the length never changes",
            "Print the length before and after an append.",
            "        self.length = end\n",
            "",
        ),
        Mistake(
            "a reset does not set the pointer back",
            "This happened in LLMs-from-scratch (#925). The numbers may stay in the ring. What must not stay?",
            RESET,
            RESET.replace("self.length = 0", "self.keys.zero_(), self.values.zero_()"),
        ),
        Mistake(
            "a reset forgets nothing",
            "How many tokens does the new text have at its start, and how many does your cache say?",
            RESET,
            RESET.replace("self.length = 0", "pass"),
        ),
        Mistake(
            "a reset sets the length back, and not the place where the next token goes",
            "This happened in LLMs-from-scratch (#925). Where does the first token of the second text go, and where do you"
            " look for it afterwards?",
            BODY + "        self.length = end\n",
            "        self.place = place = getattr(self, 'place', 0)\n"
            + BODY.replace("end) % window  #", "end) - start + place  #").replace("[:, :, new]", "[:, :, new % window]")
            + "        self.place = place + k.shape[2]\n        self.length = end\n",
        ),
        Mistake(
            "a reset sets the pointer back to the first place, and the length stays",
            "A new text begins at position 0. Who knows that?",
            RESET,
            RESET.replace("self.length = 0", "self.length -= self.length % self.keys.shape[2]"),
        ),
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


APPEND = "            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]\n"

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
    mistakes=[
        Mistake(
            "there is no window",
            "Attention is handed a window. Where does yours use it?",
            "window_mask(T, k.shape[2], window)",
            "window_mask(T, k.shape[2], None)",
        ),
        Mistake(
            "there is no window once it decodes",
            "This happened in nanochat (#452). A cache that keeps everything gives back more than a single new token may"
            " see, too.",
            "window_mask(T, k.shape[2], window)",
            "window_mask(T, k.shape[2], window if T > 1 else None)",
        ),
        Mistake(
            "there is no window once there is a cache",
            "A ring gives back what *at least one* of the new tokens may see. May each of them see all of it?",
            "window_mask(T, k.shape[2], window)",
            "window_mask(T, k.shape[2], window if cache is None else None)",
        ),
        Mistake(
            "a chunk sees only itself",
            "The mask has to have as many columns as there are keys, old ones included.",
            APPEND,
            "            k, v = (t if T == 1 else t[:, :, -T:] for t in cache.append(k, v))\n",
        ),
        Mistake(
            "the mask is lined up with the upper left corner",
            "This happened in LLMs-from-scratch (#697). Which row of the mask is the last new token's?",
            "window_mask(T, k.shape[2], window)",
            "window_mask(k.shape[2], k.shape[2], window)[:T]",
        ),
        Mistake(
            "the window is one too short",
            "The window counts the token itself, and `window_mask` knows it.",
            "window_mask(T, k.shape[2], window)",
            "window_mask(T, k.shape[2], window and window - 1)",
        ),
        Mistake(
            "the window is one too long",
            "The window counts the token itself, and `window_mask` knows it.",
            "window_mask(T, k.shape[2], window)",
            "window_mask(T, k.shape[2], window and window + 1)",
        ),
        Mistake(
            "there is no mask",
            "With one new token nobody can see the future. With a chunk?",
            '        scores = scores.masked_fill(~mask, float("-inf"))\n',
            "",
        ),
        Mistake(
            "the cache is filled and never read",
            "append gives something back. What happens to it in your code?",
            "k, v = cache.append(k, v)",
            "cache.append(k, v)",
        ),
        Mistake(
            "the cache is not used",
            "Does a token of the second chunk know anything of the first?",
            "if cache is not None:",
            "if False:",
        ),
        Mistake(
            "keys and values are appended twice",
            "Count the calls of append in one forward.",
            APPEND,
            "            cache.append(k, v)\n" + APPEND,
        ),
        Mistake(
            "keys that come out of the cache are rotated again",
            "A key was turned by the angle of its own position before it was stored. What may still happen to it?",
            APPEND,
            APPEND
            + "            old = k.shape[2] - T\n"
            + "            k = torch.cat([apply_rope(k[:, :, :old], table[:, -1:]), k[:, :, old:]], dim=2)\n",
        ),
        Mistake(
            "keys that have been rotated are rotated again when they are stored",
            "How often does a key meet `table` on its way through your forward?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(apply_rope(k, table), v)",
        ),
        Mistake(
            "keys are stored before they are rotated",
            "What lies in the cache must be ready to meet a query. The angles of old tokens are gone.",
            "        q, k = apply_rope(q, table), apply_rope(k, table)\n        if cache is not None:\n" + APPEND,
            "        q, turned = apply_rope(q, table), apply_rope(k, table)\n        if cache is None:\n            k = turned\n"
            "        else:\n            k, v = cache.append(k, v)\n"
            "            k = torch.cat([k[:, :, : k.shape[2] - T], turned], dim=2)\n",
        ),
        Mistake(
            "the new keys are not rotated",
            "Both sides of the product carry their position.",
            "apply_rope(q, table), apply_rope(k, table)",
            "apply_rope(q, table), k",
        ),
        Mistake(
            "the queries are not rotated",
            "Both sides of the product carry their position.",
            "apply_rope(q, table), apply_rope(k, table)",
            "q, apply_rope(k, table)",
        ),
        Mistake(
            "the values are rotated",
            "A position decides who looks at whom. What is mixed then has none.",
            APPEND,
            "            k, v = cache.append(k, apply_rope(v, table))\n",
        ),
        Mistake(
            "every key is rotated by the first new token's angle",
            "`table` has a row for each new token. Which of them does your code use?",
            "apply_rope(k, table)",
            "apply_rope(k, table[:, :1])",
        ),
        Mistake(
            "keys from the cache go through k_norm again",
            "The norm was applied before a key was stored, and its weight would now act twice.",
            APPEND,
            APPEND + "            k = torch.cat([self.k_norm(k[:, :, :-T]), k[:, :, -T:]], dim=2)\n",
        ),
        Mistake(
            "the heads are repeated before they are stored",
            "The result is right. How many numbers did you hand to the cache, and how many are there to keep?",
            APPEND
            + "        k, v = (t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2) for t in (k, v))"
            + "  # [B, H, T_k, head_dim]\n",
            "            k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))\n"
            "            k, v = cache.append(k, v)\n        else:\n"
            "            k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))\n",
        ),
        Mistake(
            "keys and values change places on their way through the cache",
            "In which order does append take the two, and in which does it give them back?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(v, k)",
        ),
        Mistake(
            "the keys are stored in place of the values",
            "Two things are kept for each token. Are both of them in your call of append?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k, k)",
        ),
        Mistake(
            "the texts of the batch see each other's keys",
            "Each row of the batch is a text of its own. What does your code do with the first axis?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k.roll(1, 0), v)",
        ),
        Mistake(
            "neighbouring query heads use different key and value heads",
            "With 4 heads on 2, which key and value head do query heads 0 and 1 use?",
            "t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2)",
            "t.repeat(1, self.group, 1, 1)",
        ),
        Mistake(
            "the scores are scaled by head_dim",
            "Gemma has a field for what stands under the root. In 27B it is another number.",
            "* self.scale",
            "* self.head_dim**-0.5",
        ),
        Mistake(
            "the scores are not scaled",
            "What do the scores have to be multiplied by, with a cache or without?",
            "(q @ k.transpose(-2, -1)) * self.scale",
            "(q @ k.transpose(-2, -1))",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "(weights @ v).transpose(1, 2)",
            "(weights @ v)",
        ),
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


CHOICE = """            rolls = kind == "sliding_attention" and window < capacity
            cache, tokens = (RollingCache, window) if rolls else (KVCache, capacity)
"""
HANDED = "self.layers[i](x, tables[kind], windows[kind], cache[i] if cache else None)"

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
        Case("without a cache", lambda draw: [draw.tokens(47, 2, draw.size("T", 11, 9))], {"config": SMALL}, draw="12"),
        model_case("two texts in turns, a new_cache for each", ALL_SLIDING, 2, [6, 1, 2], "two texts"),
        model_case("a prompt of 7, then one by one", SMALL, 2, [7, 1, 1, 1]),
        model_case("7 layers, chunks of 2, 4, 3 and 1", SEVEN_LAYERS, 2, [2, 4, 3, 1], draw="4"),
        model_case("a full layer first, one by one from the start", FULL_FIRST, 2, [1] * 9, draw="2"),
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
    mistakes=[
        Mistake(
            "the positions begin at 0 again after the prompt",
            "Print the positions of the token after a prompt of 7. Who knows how many tokens came before?",
            "start = cache[0].length if cache else 0",
            "start = 0",
        ),
        Mistake(
            "the positions stop at the window",
            "What a ring holds never grows beyond W. The position of the next token does.",
            "start = cache[0].length if cache else 0",
            "start = min(cache[0].length, self.config.sliding_window) if cache else 0",
        ),
        Mistake(
            "the positions start again whenever the ring wraps",
            "The place in the ring is one thing, the position in the text another. RoPE wants the second.",
            "start = cache[0].length if cache else 0",
            "start = cache[0].length % self.config.sliding_window if cache else 0",
        ),
        Mistake(
            "the positions are one too far once there is a cache",
            "The first token stands at position 0. Where does the one stand that comes after 7?",
            "start = cache[0].length if cache else 0",
            "start = cache[0].length + 1 if cache and cache[0].length else 0",
        ),
        Mistake(
            "the positions are one too low once there is a cache",
            "The first token stands at position 0. Where does the one stand that comes after 7?",
            "start = cache[0].length if cache else 0",
            "start = max(0, cache[0].length - 1) if cache else 0",
        ),
        Mistake(
            "the positions are read off after the first layer has appended",
            "A layer's cache grows while the layer runs. When do you have to ask for its length?",
            "start = cache[0].length if cache else 0",
            "start = cache[0].length + ids.shape[1] if cache and cache[0].length else 0",
        ),
        Mistake(
            "each layer reads the positions off anew, after the first has appended",
            "A layer's cache grows while the layer runs. When do you have to ask for its length, and how often?",
            HANDED,
            HANDED.replace("tables[kind]", "rotations(positions + (cache[0].length - start if cache else 0), kind)"),
        ),
        Mistake(
            "all tokens of a chunk get the same position",
            "Print the positions of a prompt. There should be T different ones.",
            "torch.arange(start, start + ids.shape[1], device=ids.device)",
            "torch.full((ids.shape[1],), start, device=ids.device)",
        ),
        Mistake(
            "the cache is not handed on to the layers",
            "Follow `cache` through your forward. Who gets it?",
            "cache[i] if cache else None)",
            "None)",
        ),
        Mistake(
            "all sliding layers write into one ring",
            "Every layer has keys of its own. Are there as many rings as sliding layers? A list times a number holds the"
            " same object again and again.",
            "cache[i] if cache else None)",
            'cache[layer_types(self.config).index(kind) if kind == "sliding_attention" else i] if cache else None)',
        ),
        Mistake(
            "the layers get their caches in the reverse order",
            "A ring for a sliding layer, everything for a full one. Does layer 0 get the cache made for layer 0?",
            "cache[i] if cache else None)",
            "cache[-1 - i] if cache else None)",
        ),
        Mistake(
            "sliding layers have no window",
            "Each kind of layer has a window of its own, or none. What do you hand on to the layer?",
            HANDED,
            HANDED.replace("windows[kind]", "None"),
        ),
        Mistake(
            "full layers have a window as well",
            "A full layer sees everything. What do you hand on to it?",
            HANDED,
            HANDED.replace("windows[kind]", "self.config.sliding_window"),
        ),
        Mistake(
            "every sixth layer is full whatever the config says",
            "A config may have a list of its layers' kinds.",
            "enumerate(layer_types(self.config))",
            "enumerate(layer_types(Config({'num_hidden_layers': len(self.layers)})))",
        ),
        Mistake(
            "windows are forgotten once there is a cache",
            "A chunk needs the window too: a ring gives back what any of its tokens may see.",
            HANDED,
            HANDED.replace("windows[kind]", "None if cache else windows[kind]"),
        ),
        Mistake(
            "each kind of layer gets the other's rotations",
            "Which of the two thetas belongs to layers that see far?",
            HANDED,
            HANDED.replace(
                "tables[kind]",
                'tables["full_attention" if kind == "sliding_attention" else "sliding_attention"]',
            ),
        ),
        Mistake(
            "all layers get the sliding layers' rotations",
            "There are two tables. Which does a full layer get?",
            HANDED,
            HANDED.replace("tables[kind]", 'tables["sliding_attention"]'),
        ),
        Mistake(
            "all layers get the full layers' rotations",
            "There are two tables. Which does a sliding layer get?",
            HANDED,
            HANDED.replace("tables[kind]", 'tables["full_attention"]'),
        ),
        Mistake(
            "every layer is given a ring",
            "What does a full layer see of the beginning of a long text, if its cache forgets?",
            'kind == "sliding_attention" and window < capacity',
            "window < capacity",
        ),
        Mistake(
            "full layers are given the rings, and sliding ones everything",
            "Which kind of layer forgets?",
            'kind == "sliding_attention" and window < capacity',
            'kind == "full_attention" and window < capacity',
        ),
        Mistake(
            "no layer is given a ring: masked, and never trimmed",
            "The result is right. How much memory does the cache of a sliding layer take for a long text?",
            'kind == "sliding_attention" and window < capacity',
            "False",
        ),
        Mistake(
            "a ring is as long as the window where the text is shorter",
            "A text of 3 tokens and a window of 4: how many tokens can there ever be in the cache?",
            'kind == "sliding_attention" and window < capacity',
            'kind == "sliding_attention"',
        ),
        Mistake(
            "the rings are one place too short",
            "transformers keeps W - 1 old tokens and adds the new one. A ring of W - 1 places gives back W - 2 of them.",
            "(RollingCache, window)",
            "(RollingCache, window - 1)",
        ),
        Mistake(
            "the rings are one place too long",
            "The window counts the token itself. When token W comes, may anybody still see token 0?",
            "(RollingCache, window)",
            "(RollingCache, window + 1)",
        ),
        Mistake(
            "the cache is kept in the model from the first text on",
            "Two texts may be written in turns. Is something kept in the model that belongs to one of them?",
            "        return caches\n",
            "        kept = self.__dict__.setdefault('kept', {})\n"
            "        return kept.setdefault((batch, capacity), caches)\n",
        ),
        Mistake(
            "the cache is kept, and everything is computed again beside it",
            "The result is right, and no work is saved. How many rows go through your layers for one new token?",
            "        start = cache[0].length if cache else 0\n",
            "        if cache:\n"
            "            old = getattr(cache[0], 'ids', ids[:, :0]) if cache[0].length else ids[:, :0]\n"
            "            cache[0].ids = torch.cat([old, ids], dim=1)\n"
            "            cache[0].length = cache[0].ids.shape[1]\n"
            "            return self(cache[0].ids)[:, -ids.shape[1] :]\n"
            "        start = 0\n",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "self.norm(x)",
            "x",
        ),
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
    mistakes=[
        Mistake(
            "the prompt is read all at once",
            "The text is right. How large are the scores for a prompt of 100,000 tokens?",
            "ids.split(chunk, dim=1)",
            "[ids]",
        ),
        Mistake(
            "the prompt is read token by token",
            "The text is right. Chunks may have `chunk` tokens; how many have yours?",
            "ids.split(chunk, dim=1)",
            "ids.split(1, dim=1)",
        ),
        Mistake(
            "the end of the prompt, which does not fill a chunk, is not read",
            "A prompt of 11 in chunks of 4 has three pieces. What becomes of the third?",
            "ids.split(chunk, dim=1)",
            "(ids[:, i : i + chunk] for i in range(0, max(1, ids.shape[1] - chunk + 1), chunk))",
        ),
        Mistake(
            "only the prompt's last chunk is read",
            "What does the model know of the rest of the prompt?",
            "ids.split(chunk, dim=1)",
            "ids.split(chunk, dim=1)[-1:]",
        ),
        Mistake(
            "every chunk is given a new cache",
            "A chunk has to see those before it. How long does your cache live?",
            "        logits = model(piece, cache)  # [1, chunk or less, vocab_size]\n",
            "        cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)\n        logits = model(piece, cache)\n",
        ),
        Mistake(
            "the cache is reset before every chunk",
            "A chunk has to see those before it. What is left of them after a reset?",
            "        logits = model(piece, cache)  # [1, chunk or less, vocab_size]\n",
            "        for layer in cache: layer.reset()\n        logits = model(piece, cache)\n",
        ),
        Mistake(
            "the prompt's last token is read twice",
            "After the prompt its last token's logits are there. Is it read again?",
            "    for step in range(max_new_tokens):\n",
            "    if ids.shape[1] > 1: logits = model(ids[:, -1:], cache)\n    for step in range(max_new_tokens):\n",
        ),
        Mistake(
            "the whole text is read at every step",
            "The cache knows the text already. What is new to it?",
            "        logits = model(next_id, cache)  # [1, 1, vocab_size]\n",
            "        ids = torch.cat([ids, next_id], dim=1)\n        logits = model(ids)\n",
        ),
        Mistake(
            "the whole text is read at every step, and added to the cache once more",
            "The cache knows the text already. What is new to it?",
            "        logits = model(next_id, cache)  # [1, 1, vocab_size]\n",
            "        ids = torch.cat([ids, next_id], dim=1)\n        logits = model(ids, cache)\n",
        ),
        Mistake(
            "the last token is read as well, though nothing comes after it",
            "Count the model's calls for max_new_tokens = 1.",
            " or step == max_new_tokens - 1",
            "",
        ),
        Mistake(
            "the cache has room for the prompt only",
            "Every token that is written is also read, but one. Do they all fit?",
            "ids.shape[1] + max_new_tokens - 1)",
            "ids.shape[1])",
        ),
        Mistake(
            "the cache has room for one token more than is read",
            "The last token that is written is not read. Does it need a place?",
            "ids.shape[1] + max_new_tokens - 1)",
            "ids.shape[1] + max_new_tokens)",
        ),
        Mistake(
            "the logits of a piece's first row are used",
            "Row t of the logits predicts the token after the t-th new one. Which row predicts the next?",
            "logits[:, -1]",
            "logits[:, 0]",
        ),
        Mistake(
            "the least likely token is taken",
            "Greedy decoding takes the token with which logit?",
            "argmax(",
            "argmin(",
        ),
        Mistake(
            "the end token does not end it",
            "What should happen once eos_token_id has been given out?",
            "token == eos_token_id or ",
            "",
        ),
        Mistake(
            "the model is called once more after the end token",
            "The text has ended. Is there anything left to ask?",
            "        if token == eos_token_id or step == max_new_tokens - 1:\n            return\n"
            "        logits = model(next_id, cache)  # [1, 1, vocab_size]\n",
            "        if step == max_new_tokens - 1: return\n        logits = model(next_id, cache)\n"
            "        if token == eos_token_id: return\n",
        ),
        Mistake(
            "the end token is not given out",
            "In which order do you stop and yield?",
            "        yield token\n",
            "        if token == eos_token_id: return\n        yield token\n",
        ),
        Mistake(
            "one token too few is generated",
            "Count the tokens for max_new_tokens = 1.",
            "in range(max_new_tokens)",
            "in range(max_new_tokens - 1)",
        ),
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
    mistakes=[
        Mistake(
            "the window is not clamped to the context",
            "A text of 400 tokens and a window of 512: how many can be kept? Published charts forgot this.",
            "min(context, config.sliding_window)",
            "config.sliding_window",
        ),
        Mistake(
            "sliding layers are counted in full",
            "That is what a mask without a ring costs. What does a sliding layer keep?",
            "min(context, config.sliding_window)",
            "context",
        ),
        Mistake(
            "full layers have a window as well",
            "A full layer keeps every token.",
            'kept = {"full_attention": context}',
            'kept = {"full_attention": min(context, config.get("sliding_window") or context)}',
        ),
        Mistake(
            "sliding and full layers are mixed up",
            "5:1 are five sliding layers for each full one. Which of them forget?",
            "kept[kind] for kind in layer_types(config)",
            'kept.get("full_attention" if kind == "sliding_attention" else "sliding_attention", context)'
            " for kind in layer_types(config)",
        ),
        Mistake(
            "a sliding layer keeps one token less",
            "The window counts the token itself, and the cache keeps that one, too.",
            "min(context, config.sliding_window)",
            "min(context, config.sliding_window - 1)",
        ),
        Mistake(
            "every sixth layer is full whatever the config says",
            "A config may have a list of its layers' kinds.",
            "kept[kind] for kind in layer_types(config))",
            'kept.get(kind, context) for kind in layer_types(Config({"num_hidden_layers": len(layer_types(config))})))',
        ),
        Mistake(
            "only the keys are counted",
            "Two things are kept for each token.",
            "return 2 * tokens",
            "return tokens",
        ),
        Mistake(
            "the query heads are counted",
            "Which heads have keys and values?",
            "config.num_key_value_heads",
            "config.num_attention_heads",
        ),
        Mistake(
            "the width is divided among the heads",
            "How wide is a head? The config says so itself.",
            "config.head_dim *",
            "(config.hidden_size // config.num_attention_heads) *",
        ),
        Mistake(
            "one layer of each kind is counted",
            "How many layers of each kind are there?",
            "for kind in layer_types(config)",
            "for kind in set(layer_types(config))",
        ),
        Mistake(
            "numbers are counted, not bytes",
            "How many bytes does a number of bfloat16 take?",
            "head_dim * element_bytes * batch",
            "head_dim * batch",
        ),
        Mistake(
            "every number is taken for two bytes",
            "In float32 a number takes four. Which argument says so?",
            "head_dim * element_bytes * batch",
            "head_dim * 2 * batch",
        ),
        Mistake(
            "the batch is forgotten",
            "Do two texts share their keys?",
            "element_bytes * batch",
            "element_bytes",
        ),
    ],
)

EXERCISES = [MASK, REACH, ROLLING_CACHE, ATTENTION, MODEL, GENERATE, BYTES]
