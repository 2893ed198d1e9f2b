"""What the exercises of 02-kv-cache are checked against: transformers' GPT-2, eager, which sees a text all at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel
from transformers.masking_utils import create_causal_mask
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import eager_attention_forward

from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.kv import bytes_at
from grader.lessons.exercise import Case, Draw, Exercise, Mistake

TRACE = "kv_cache.model"

# B, T, D, the heads and head_dim are all different numbers. There is room for three layers' tokens in one cache.
SMALL: dict[str, Any] = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "vocab_size": 53,
    "n_positions": 64,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 3,
    "layer_norm_epsilon": 1e-5,
}
OTHER = SMALL | {"vocab_size": 37, "n_positions": 48, "n_embd": 30, "n_head": 5, "n_layer": 2, "n_inner": 44}


def reference_config(config: Mapping[str, Any]) -> GPT2Config:
    """transformers' config for the learner's, with eager attention and without the tokens of GPT-2's vocabulary."""
    return GPT2Config(**config, bos_token_id=None, eos_token_id=None, attn_implementation="eager")


def checkpoints_name(name: str) -> str | None:
    """The name in the checkpoint's file, or None for what it does not hold: the tied head, dropout."""
    inside = name.removeprefix("transformer.")
    return None if inside in ("transformer", "lm_head.weight", "lm_head") or "drop" in inside else inside


def head_sizes(build: Mapping[str, Any]) -> dict[str, int]:
    config = build.get("config")
    if config is None:
        return {}
    return {"head_dim": config["n_embd"] // config["n_head"], "n_embd": config["n_embd"], "n_head": config["n_head"]}


# Work


def count_products(config: Config, new: int, past: int = 0) -> int:
    """The multiply-adds that transformers' GPT-2 makes for `new` tokens after `past` in its own cache."""
    model: Any = GPT2LMHeadModel(reference_config(config)).eval()
    cache = DynamicCache()
    with torch.no_grad():
        if past:
            model(input_ids=torch.zeros(1, past, dtype=torch.int64), cache=cache, use_cache=True)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(1, new, dtype=torch.int64), cache=cache, use_cache=True)
    operations = counter.get_total_flops()  # an addition and a multiplication are two
    assert operations % 2 == 0 and cache.get_seq_length() == past + new
    return operations // 2


WORK = Exercise(
    name="kv_cache.work",
    solution="multiply_adds",
    reference=count_products,
    function=True,
    points=3,
    cases=[
        Case("a prompt of 7 tokens", lambda draw: [Config(SMALL), draw.size("T", 7, 9, 11)]),
        Case("one token after 10", lambda draw: [Config(SMALL), 1, draw.size("past", 10, 8, 13)]),
        Case("3 tokens after 5, an MLP of its own width", lambda draw: [Config(OTHER), 3, draw.size("past", 5, 4, 9)]),
        Case("n_inner is null", lambda draw: [Config(SMALL | {"n_inner": None}), 2, draw.size("past", 6, 7)]),
    ],
    mistakes=[
        Mistake(
            "only the new tokens are taken for keys",
            "Whom does a new query meet? What is in the cache need not be computed, and must be looked at.",
            "2 * D * (past + new)",
            "2 * D * new",
        ),
        Mistake(
            "only the old tokens are taken for keys",
            "A new token sees itself, and those that came with it. How many keys does a query meet?",
            "2 * D * (past + new)",
            "2 * D * past",
        ),
        Mistake(
            "old queries meet the keys again",
            "Scores have a row for each query and a column for each key. Are there as many queries as keys?",
            "return new * (config.n_layer * (matrices + attention) + head)",
            "return new * (config.n_layer * matrices + head) + config.n_layer * attention * (past + new)",
        ),
        Mistake(
            "old tokens are computed again",
            "How many rows go through the matrices when the others are in the cache?",
            "return new * (",
            "return (past + new) * (",
        ),
        Mistake(
            "the keys and values of old tokens are computed again",
            "What does the cache hold? `c_attn` has nothing to do for a token whose key and value are in there.",
            "return new * (config.n_layer * (matrices + attention) + head)",
            "return new * (config.n_layer * (matrices + attention) + head) + past * config.n_layer * 2 * D * D",
        ),
        Mistake(
            "masked scores are left out",
            "A masked score is computed first and masked then. How many keys does each of the new queries meet?",
            "return new * (config.n_layer * (matrices + attention) + head)",
            "pairs = new * past + new * (new + 1) // 2\n"
            "    return new * (config.n_layer * matrices + head) + config.n_layer * 2 * D * pairs",
        ),
        Mistake(
            "the scores are counted, and the mixing of values is not",
            "Two products in attention have as many rows as queries. What comes after the softmax?",
            "attention = 2 * D * (past + new)",
            "attention = D * (past + new)",
        ),
        Mistake(
            "attention's c_proj is forgotten",
            "Four matrices belong to a layer. Which one mixes the heads' results?",
            "3 * D * D + D * D + 2 * D * inner",
            "3 * D * D + 2 * D * inner",
        ),
        Mistake(
            "only one of the MLP's two matrices is counted",
            "The MLP goes from D to its inner width. And then?",
            "2 * D * inner",
            "D * inner",
        ),
        Mistake(
            "q, k and v are counted as one matrix of D by D",
            "How many outputs does `c_attn` have?",
            "3 * D * D + D * D",
            "D * D + D * D",
        ),
        Mistake(
            "the MLP is always four times as wide",
            "Which field of the config can say otherwise?",
            'config.get("n_inner") or 4 * D',
            "4 * D",
        ),
        Mistake(
            "the head is left out",
            "The logits are a product, too, and a large one.",
            "(matrices + attention) + head",
            "(matrices + attention)",
        ),
        Mistake(
            "the head is counted once in every layer",
            "How many heads does the model have, and how many layers?",
            "config.n_layer * (matrices + attention) + head",
            "config.n_layer * (matrices + attention + head)",
        ),
        Mistake(
            "the head is counted for the last token only",
            "Only one row of logits is used. How many does the model compute?",
            "return new * (config.n_layer * (matrices + attention) + head)",
            "return new * config.n_layer * (matrices + attention) + head",
        ),
        Mistake(
            "a multiply-add counts as two",
            "One multiplication with the addition that follows it is one multiply-add.",
            "return new * (",
            "return 2 * new * (",
        ),
        Mistake(
            "each head is counted at the full width",
            "All heads together have D channels.",
            "attention = 2 * D",
            "attention = 2 * config.n_head * D",
        ),
        Mistake(
            "only one head is counted",
            "How many heads does a query meet its keys in? All of them together have D channels.",
            "attention = 2 * D",
            "attention = 2 * (D // config.n_head)",
        ),
        Mistake(
            "only one layer is counted",
            "How many layers does the model have?",
            "config.n_layer * (matrices",
            "1 * (matrices",
        ),
    ],
)


# The cache


def use_cache(made: Any, kv: Tensor, capacity: int, chunks: list[int], look: str) -> Any:
    """Append kv [2, B, H, T, head_dim] in chunks; give what comes back, or what else `look` asks for."""
    import re

    cache = made(kv.shape[1], kv.shape[2], capacity, kv.shape[4], dtype=kv.dtype)
    start, contents, lengths, codes, kept = 0, [], [int(cache.length)], [], []
    for size in chunks:
        if size == 0:
            cache.reset()
            lengths.append(int(cache.length))
            contents.clear()
            continue
        k, v = kv[:, :, :, start : start + size].clone()
        refused, given = 0, None
        if look in ("refusals", "after refusals"):
            try:
                given = cache.append(k, v)
            except NotImplementedError:
                raise
            except Exception as error:
                named = isinstance(error, ValueError) and re.search(rf"\b{capacity}\b", str(error))
                refused = 1 if named else 2 if isinstance(error, ValueError) else 3
        else:
            given = cache.append(k, v)
        start += 0 if refused else size
        lengths.append(int(cache.length))
        codes += [refused, int(cache.length)]
        if not refused:
            if not isinstance(given, tuple | list | Tensor) or len(given) != 2:
                raise TypeError(f"append gave back a {type(given).__name__}; two tensors belong there: keys, values")
            keys, values = given
            k.zero_(), v.zero_()  # a cache that only remembers the caller's tensors loses its contents
            contents.append(torch.cat([keys, values], dim=-1).clone())
            kept.append((keys, values))
    if look == "refusals":
        return codes
    if look.startswith("lengths"):
        return lengths
    if look == "copies":
        first = kept[0]
        return [int(tensor.data_ptr() != first[i].data_ptr()) for pair in kept[1:] for i, tensor in enumerate(pair)]
    if not contents:
        raise ValueError("no append was accepted")
    return contents[-1] if look in ("after a reset", "after refusals") else torch.cat(contents, dim=2)


def right_contents(kv: Tensor, capacity: int, chunks: list[int], look: str) -> Any:
    """What `use_cache` gives for a cache that is right. transformers' DynamicCache holds the contents."""
    cache, start, contents, lengths, codes = DynamicCache(), 0, [], [0], []
    for size in chunks:
        if size == 0:
            cache = DynamicCache()
            contents.clear()
            lengths.append(0)
            continue
        refused = cache.get_seq_length() + size > capacity
        if not refused:
            k, v = kv[:, :, :, start : start + size]
            contents.append(torch.cat(cache.update(k, v, 0), dim=-1))
            start += size
        lengths.append(cache.get_seq_length())
        codes += [int(refused), cache.get_seq_length()]
    if look == "refusals":
        return codes
    if look.startswith("lengths"):
        return lengths
    if look == "copies":
        return [0] * (2 * len([size for size in chunks if size]) - 2)
    return contents[-1] if look in ("after a reset", "after refusals") else torch.cat(contents, dim=2)


def cache_case(name: str, capacity: int, chunks: list[int], look: str, dtype: torch.dtype = torch.float32) -> Case:
    """A case of kv_cache.cache; a chunk of 0 is a reset."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, heads = draw.size("B", 2, 3), draw.size("H", 3, 5)
        return draw.normal(2, batch, heads, sum(chunks), draw.size("head_dim", 4, 6, 10)), capacity, chunks, look

    return Case(name, draw_args, dtype=dtype)


CACHE = Exercise(
    name="kv_cache.cache",
    solution="KVCache",
    reference=right_contents,
    drive=use_cache,
    function=True,
    differentiable=False,
    points=6,
    cases=[
        cache_case("a prompt and two tokens", 15, [5, 1, 1], "contents"),
        cache_case("chunks of several sizes", 33, [1, 3, 2, 4, 1, 5], "contents"),
        cache_case("its length, with a reset in between", 20, [4, 1, 3, 0, 2, 1], "lengths with a reset"),
        cache_case("another text after a reset", 20, [6, 1, 0, 2, 1], "after a reset"),
        cache_case("which appends are refused (0: none), and the length after each", 26, [24, 3, 2, 1, 2], "refusals"),
        cache_case("the contents after a refusal", 8, [5, 4, 2], "after refusals"),
        cache_case("nothing is copied (1: another place in memory)", 24, [5, 1, 1, 4], "copies"),
        cache_case("the same memory after a reset (1: another place)", 24, [5, 1, 0, 1, 4], "copies"),
        cache_case("bfloat16", 15, [4, 1, 2], "contents", torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "every append begins at the front",
            "Append 5 tokens, then 1. Where does the sixth belong, and where does yours go?",
            "self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v",
            "self.keys[:, :, : k.shape[2]] = k\n        self.values[:, :, : k.shape[2]] = v",
        ),
        Mistake(
            "only the new keys and values are given back",
            "A new query looks at every token so far. What does your append give back after a prompt and one token?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.keys[:, :, end - k.shape[2] : end], self.values[:, :, end - k.shape[2] : end]",
        ),
        Mistake(
            "what was given is given back",
            "A new query looks at every token so far. And to whom do the tensors belong that came in?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return k, v",
        ),
        Mistake(
            "the new tokens are not among those given back",
            "A token sees itself. Is it in what comes back?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.keys[:, :, : end - k.shape[2]], self.values[:, :, : end - k.shape[2]]",
        ),
        Mistake(
            "the whole memory is given back, filled or not",
            "The part that nothing was written to must not be seen: a key of zeros gets a weight, too.",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.keys, self.values",
        ),
        Mistake(
            "the new tokens are put behind the whole memory",
            "The room was taken in __init__, filled with zeros. Where in it does a token belong, and what does cat do?",
            "        self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v\n        self.length = end\n        return self.keys[:, :, :end], self.values[:, :, :end]",
            "        self.keys, self.values = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)\n        self.length = end\n        return self.keys[:, :, :end], self.values[:, :, :end]",
        ),
        Mistake(
            "keys and values come back in the wrong order",
            "In which order does the docstring name the two?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.values[:, :, :end], self.keys[:, :, :end]",
        ),
        Mistake(
            "the values are stored among the keys",
            "Two memories, two things to write. Compare the right-hand sides of your two lines.",
            "self.values[:, :, self.length : end] = v",
            "self.values[:, :, self.length : end] = k",
        ),
        Mistake(
            "the values are never written",
            "Which of the two memories is still all zeros after an append?",
            "        self.values[:, :, self.length : end] = v\n",
            "",
        ),
        Mistake(
            "the length grows by one at every append",
            "A prompt comes in one append. How long is the cache then?",
            "self.length = end",
            "self.length += 1",
        ),
        Mistake(
            "the length counts the calls of append, and only so many tokens are given back",
            "A prompt comes in one append. How long is the cache then?",
            "        self.length = end\n        return self.keys[:, :, :end], self.values[:, :, :end]",
            "        self.length += 1\n        return self.keys[:, :, : self.length], self.values[:, :, : self.length]",
        ),
        Mistake(
            "the length grows twice at every append",
            "Append 4 tokens to an empty cache and print its length. Who adds to it, and how often?",
            "self.length = end",
            "self.length = end + k.shape[2]",
        ),
        Mistake(
            "the length never changes",
            "Print the length before and after an append.",
            "        self.length = end\n",
            "",
        ),
        Mistake(
            "the length is that of the last append",
            "After 5 tokens and 1 more there are 6 in the cache.",
            "self.length = end",
            "self.length = k.shape[2]",
        ),
        Mistake(
            "every text of the batch gets the first one's keys and values",
            "Each text has a row of its own. What does an assignment do with a tensor whose first axis is 1?",
            "self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v",
            "self.keys[:, :, self.length : end] = k[:1]\n        self.values[:, :, self.length : end] = v[:1]",
        ),
        Mistake(
            "every head gets the first one's keys and values",
            "Each head has keys of its own. What does an assignment do with a tensor whose second axis is 1?",
            "self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v",
            "self.keys[:, :, self.length : end] = k[:, :1]\n        self.values[:, :, self.length : end] = v[:, :1]",
        ),
        Mistake(
            "a token that comes after the last place is dropped without a word",
            "PyTorch does not complain about one row in an empty slice. Who has to, and when?",
            "if end > capacity:",
            "if False:",
        ),
        Mistake(
            "the last place is never used",
            "A cache for 26 tokens takes 26. Try 24 and then 2.",
            "if end > capacity:",
            "if end >= capacity:",
        ),
        Mistake(
            "it refuses only once it is full",
            "24 of 26 places are taken, and 3 tokens come. What must be compared with the capacity?",
            "if end > capacity:",
            "if self.length >= capacity:",
        ),
        Mistake(
            "the error does not say how much room there was",
            "Whoever reads the message wants to know what to ask for next time. The docstring names the number.",
            "there is room for {capacity} tokens in this cache, and now there would be {end}",
            "the cache is full",
        ),
        Mistake(
            "the error is of another kind than the docstring says",
            "Which exception does the docstring promise to whoever wants to catch it?",
            "raise ValueError(",
            "raise RuntimeError(",
        ),
        Mistake(
            "a refused append changes the length",
            "After a refusal the cache must be as it was. In which order do you look, write and count?",
            "        if end > capacity:\n",
            "        if end > capacity:\n            self.length = end\n",
        ),
        Mistake(
            "a refused append empties the cache",
            "After a refusal the cache must be as it was. What does yours hold then?",
            "        if end > capacity:\n",
            "        if end > capacity:\n            self.length = 0\n",
        ),
        Mistake(
            "what doesn't fit overwrites the oldest tokens",
            "That is a ring, which lesson 06 will want, with other masks. Here a full cache refuses.",
            '            raise ValueError(f"there is room for {capacity} tokens in this cache, and now there would be {end}")\n',
            "            self.length, end = 0, k.shape[2]\n",
        ),
        Mistake(
            "a reset leaves the length as it is",
            "How long is the cache after a reset?",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        self.length = 0\n",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        self.keys.zero_()\n",
        ),
        Mistake(
            "a reset does nothing",
            "How long is the cache after a reset?",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        self.length = 0\n",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        pass\n",
        ),
        Mistake(
            "a reset takes new memory",
            "The docstring of reset names the memory. Which of your lines makes a new tensor?",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        self.length = 0\n",
            "    def reset(self) -> None:\n"
            '        """Forget all tokens: ready for another text, in the same memory."""\n'
            "        ### BEGIN SOLUTION\n"
            "        self.length = 0\n        self.keys, self.values = torch.zeros_like(self.keys), torch.zeros_like(self.values)\n",
        ),
        Mistake(
            "everything in the cache is copied at every append",
            "The room was taken in __init__. Which of your lines makes a new tensor: cat, stack, clone?",
            "self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v",
            "self.keys = torch.cat([self.keys[:, :, : self.length], k, self.keys[:, :, end:]], dim=2)\n"
            "        self.values = torch.cat([self.values[:, :, : self.length], v, self.values[:, :, end:]], dim=2)",
        ),
        Mistake(
            "the first tensors that come are kept themselves, not their numbers",
            "Whoever gave them may write into them. The room was taken in __init__; what belongs there is a copy.",
            "        self.keys[:, :, self.length : end] = k\n        self.values[:, :, self.length : end] = v\n        self.length = end\n",
            "        self.given = (k, v) if not self.length else tuple(\n"
            "            torch.cat([old[:, :, : self.length], new], dim=2) for old, new in zip(self.given, (k, v)))\n"
            "        self.length = end\n        return self.given\n",
        ),
        Mistake(
            "the cache grows with every append, whatever its capacity is",
            "Appending with cat is right in its contents, copies all of them every time, and never refuses. The room"
            " was taken in __init__.",
            "        if end > capacity:\n"
            '            raise ValueError(f"there is room for {capacity} tokens in this cache, and now there would be {end}")\n'
            "        self.keys[:, :, self.length : end] = k\n"
            "        self.values[:, :, self.length : end] = v\n",
            "        self.keys = torch.cat([self.keys[:, :, : self.length], k], dim=2)\n"
            "        self.values = torch.cat([self.values[:, :, : self.length], v], dim=2)\n",
        ),
        Mistake(
            "copies are given back",
            "The docstring asks for views. Which of your operations makes a new tensor?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.keys[:, :, :end].clone(), self.values[:, :, :end]",
        ),
        Mistake(
            "the values are given back as a copy",
            "The docstring asks for views, of keys and of values. Which of your operations makes a new tensor?",
            "return self.keys[:, :, :end], self.values[:, :, :end]",
            "return self.keys[:, :, :end], self.values[:, :, :end].clone()",
        ),
    ],
)


# Attention


def attend_in_chunks(module: Any, x: Tensor, chunks: list[int], look: str = "result") -> Tensor:
    """Attention's results for x [B, T, D], given in chunks, with a cache of the check's own; without one for no chunks.

    look: "appended" gives how many tokens were appended to the cache in all, "rows" how many went through c_attn.
    """

    class Memory:
        def __init__(self) -> None:
            self.keys = self.values = torch.zeros(0)
            self.length, self.appended = 0, 0

        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            wanted = [len(x), module.num_heads, size, module.head_dim]
            for name, given in (("keys", k), ("values", v)):
                tokens = (
                    given.shape[2] if given.ndim == 4 and given.shape[2] < size else size
                )  # not all need come at once
                if list(given.shape) != [*wanted[:2], tokens, wanted[3]]:
                    raise ValueError(f"append was given {name} of shape {list(given.shape)}; {wanted} belongs there")
            self.appended += k.shape[2]
            both = torch.stack([k, v])
            if self.length:
                both = torch.cat([torch.stack([self.keys, self.values])[:, :, :, : self.length], both], dim=3)
            self.length = both.shape[3]
            # As in a KVCache there is room for more, and what is given back is less.
            self.keys, self.values = torch.cat([both, torch.zeros_like(both)], dim=3)
            return both[0], both[1]

    if not chunks:
        return module(x)
    memory, start, seen, rows = Memory(), 0, [], []
    hook = module.c_attn.register_forward_pre_hook(lambda m, args: rows.append(args[0].shape[1]))
    for size in chunks:
        seen.append(module(x[:, start : start + size], memory))
        if not isinstance(seen[-1], Tensor):
            raise TypeError(f"forward returned a {type(seen[-1]).__name__}; return the tensor alone")
        start += size
    hook.remove()
    if look == "result":
        return torch.cat(seen, dim=1)
    return torch.tensor(memory.appended if look == "appended" else sum(rows) or start)


def call_attention(module: nn.Module, x: Tensor, chunks: list[int], look: str = "result") -> Tensor:
    if look != "result":
        return torch.tensor(sum(chunks))
    mask = create_causal_mask(config=module.config, inputs_embeds=x, attention_mask=None, cache=None)
    return module(x, attention_mask=mask)[0]


def attention_case(name: str, config: dict[str, Any], chunks: list[int], *look: str, **more: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.normal(draw.size("B", 2, 3), sum(chunks) or 7, config["n_embd"]), chunks, *look

    return Case(name, draw_args, {"config": config}, **more)


ATTENTION = Exercise(
    name="kv_cache.attention",
    solution="CachedAttention",
    reference=lambda config: GPT2Attention(reference_config(config), layer_idx=0),
    call=call_attention,
    drive=attend_in_chunks,
    points=6,
    axes="B T D",
    sizes=head_sizes,
    renamed=checkpoints_name,
    cases=[
        attention_case("without a cache", SMALL, []),
        attention_case("prefill of 5, then two tokens one by one", SMALL, [5, 1, 1]),
        attention_case("a prompt in chunks of 2, 4 and 3", OTHER, [2, 4, 3]),
        attention_case("one by one from the start", OTHER, [1] * 6),
        attention_case("how many tokens are appended to the cache in all", SMALL, [4, 1, 2], "appended"),
        attention_case("how many rows are computed in all", SMALL, [4, 1, 2], "rows"),
        attention_case("bfloat16", SMALL, [4, 1, 3], dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the mask is lined up with the upper left corner",
            "Draw it for 3 new tokens after 4: which keys may the first of the three see? A triangle for a square"
            " starts in the wrong corner.",
            "triu(diagonal=later)",
            "triu(diagonal=1)",
        ),
        Mistake(
            "there is no mask once there is a cache",
            "A chunk has a future, too: its own later tokens.",
            'scores.masked_fill(future, float("-inf"))',
            '(scores if cache is not None else scores.masked_fill(future, float("-inf")))',
        ),
        Mistake(
            "there is no mask",
            "With one new token nobody can see the future. With two?",
            'scores.masked_fill(future, float("-inf"))',
            "scores",
        ),
        Mistake(
            "the mask is the wrong way round",
            "Which of the two does your mask mark: the keys that may be seen, or those that may not? Which does the function want?",
            'scores.masked_fill(future, float("-inf")).softmax(dim=-1)',
            'scores.masked_fill(~future, float("-inf")).softmax(dim=-1).nan_to_num()',
        ),
        Mistake(
            "no token sees itself",
            "The last query and the last key are one token. It may see itself.",
            "later = 1 + k.shape[2] - T",
            "later = k.shape[2] - T",
        ),
        Mistake(
            "every token sees the one after it",
            "By how many places must the diagonal move to the right, and is yours one too many?",
            "later = 1 + k.shape[2] - T",
            "later = 2 + k.shape[2] - T",
        ),
        Mistake(
            "the cache is filled and never read",
            "append gives something back. What happens to it in your code?",
            "k, v = cache.append(k, v)",
            "cache.append(k, v)",
        ),
        Mistake(
            "the cache's whole memory is attended to, filled or not",
            "append gives back the tokens so far. What lies behind them in the memory?",
            "k, v = cache.append(k, v)",
            "cache.append(k, v); k, v = cache.keys, cache.values",
        ),
        Mistake(
            "the cache is not used at all",
            "Does a token of the second chunk know anything of the first?",
            "if cache is not None:",
            "if False:",
        ),
        Mistake(
            "old tokens are kept as x and computed again",
            "The result is right. How many rows go through c_attn for one new token?",
            "        q, k, v = self.c_attn(x).split(D, dim=-1)  # 3 x [B, T, D]\n",
            "        if cache is not None:\n"
            "            self.kept = torch.cat([self.kept, x], dim=1) if cache.length else x\n"
            "            cache.length += T\n"
            "            return self.forward(self.kept)[:, -T:]\n"
            "        q, k, v = self.c_attn(x).split(D, dim=-1)\n",
        ),
        Mistake(
            "keys and values are appended twice",
            "Count the calls of append in one forward.",
            "            k, v = cache.append(k, v)  # 2 x [B, H, T_k, head_dim]\n",
            "            cache.append(k, v)\n            k, v = cache.append(k, v)\n",
        ),
        Mistake(
            "keys and values change places on their way through the cache",
            "In which order does append take the two, and in which does it give them back?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(v, k)",
        ),
        Mistake(
            "the keys are cached in place of the values",
            "Two things are kept for each token. Are both of them in your call of append?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k, k)",
        ),
        Mistake(
            "the queries are cached in place of the keys",
            "Nobody asks an old query again. What do new queries meet?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(q, v)",
        ),
        Mistake(
            "the texts of the batch see each other's keys",
            "Each row of the batch is a text of its own. What does your code do with the first axis?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k.roll(1, 0), v)",
        ),
        Mistake(
            "every text of the batch is cached as the first one",
            "Is the batch axis still whole when keys and values go into the cache?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k[:1].expand_as(k), v[:1].expand_as(v))",
        ),
        Mistake(
            "the heads see each other's keys",
            "The order of the heads must be the same for queries and for what is cached.",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k.roll(1, 1), v)",
        ),
        Mistake(
            "the scores are not scaled",
            "What do the scores have to be divided by, with a cache or without?",
            "(q @ k.transpose(-2, -1)) * self.head_dim**-0.5",
            "(q @ k.transpose(-2, -1))",
        ),
        Mistake(
            "the keys are scaled before they are cached and the scores once more",
            "The scale belongs to the scores. How often does a key meet it?",
            "k, v = cache.append(k, v)",
            "k, v = cache.append(k * self.head_dim**-0.5, v)",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "(weights @ v).transpose(1, 2)",
            "(weights @ v)",
        ),
        Mistake(
            "c_proj is missing",
            "Which of the module's two parts does your forward never call?",
            "self.c_proj(mixed)",
            "mixed",
        ),
    ],
)


# The model


def read_in_chunks(module: Any, ids: Tensor, chunks: Any = None, look: str = "logits") -> Any:
    """The logits of ids [B, T], given in chunks, or what else `look` asks for. No chunks: without a cache."""

    class Memory:
        def __init__(self) -> None:
            self.keys = self.values = torch.zeros(0)
            self.length = 0

        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            self.keys = torch.cat([self.keys, k], dim=2) if self.length else k
            self.values = torch.cat([self.values, v], dim=2) if self.length else v
            self.length = self.keys.shape[2]
            return self.keys, self.values

        def reset(self) -> None:
            self.length = 0

    def run(ids: Tensor, cache: Any, chunks: list[int]) -> Tensor:
        return torch.cat([module(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

    def new_cache(batch: int, capacity: int) -> Any:
        made = module.new_cache(batch, capacity)
        if made is None:
            raise TypeError("new_cache returned None; does it end with `return`?")
        if not hasattr(made, "__len__") or len(made) != len(module.h):
            what = f"{len(made)} of them" if hasattr(made, "__len__") else f"a {type(made).__name__}"
            raise TypeError(
                f"new_cache returned {what}; a list of {len(module.h)} caches, one for each layer, belongs there"
            )
        return made

    if not chunks:
        return module(ids)
    if look == "logits":  # with caches of the check's own
        return run(ids, [Memory() for _ in module.h], chunks)
    if look == "own cache":
        return run(ids, new_cache(len(ids), 40), chunks)
    if look == "rows":  # how many rows the blocks compute in all
        rows: list[int] = []
        hooks = [b.mlp.register_forward_pre_hook(lambda m, args: rows.append(args[0].shape[1])) for b in module.h]
        run(ids, new_cache(len(ids), 40), chunks)
        for hook in hooks:
            hook.remove()
        return torch.tensor(sum(rows))
    if look == "two texts":  # in turns, each with its own cache
        caches, seen = [new_cache(1, 40) for _ in ids], [[] for _ in ids]
        for pieces in zip(*(text[None].split(chunks, dim=1) for text in ids), strict=True):
            for cache, piece, logits in zip(caches, pieces, seen, strict=True):
                logits.append(module(piece, cache))
        return torch.cat([torch.cat(logits, dim=1) for logits in seen])
    if look == "after a reset":
        cache = new_cache(len(ids), 40)
        run(ids.flip(1), cache, chunks)
        for layer in cache:
            layer.reset()
        return run(ids, cache, chunks)
    capacity, refused = ids.shape[1], []
    for asked in (module.config.n_positions, module.config.n_positions + 1):
        try:
            new_cache(1, asked)
            refused.append(0)
        except NotImplementedError:
            raise
        except Exception as error:
            refused.append(1 if isinstance(error, ValueError) else 2)
    cache = new_cache(len(ids), capacity)
    for pieces, sizes in ((ids, chunks), (ids[:, :1], [1])):
        try:
            run(pieces, cache, sizes)
            refused.append(0)
        except ValueError:
            refused.append(1)
    return torch.tensor(refused)


def call_model(module: Any, ids: Tensor, chunks: Any = None, look: str = "logits") -> Tensor:
    """transformers' GPT-2 on the whole text at once, without a cache."""
    if look == "rows":
        return torch.tensor(sum(chunks) * module.config.n_layer)
    if look == "refusals":
        return torch.tensor([0, 1, 0, 1])
    return module(input_ids=ids, use_cache=False).logits


def model_case(
    name: str, config: dict[str, Any], batch: int, chunks: list[int], look: str = "logits", **more: Any
) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return draw.tokens(config["vocab_size"], batch, sum(chunks)), chunks, look

    return Case(name, draw_args, {"config": config}, **more)


MODEL = Exercise(
    name="kv_cache.model",
    solution="CachedGPT2",
    reference=lambda config: GPT2LMHeadModel(reference_config(config)),
    call=call_model,
    drive=read_in_chunks,
    uses=["kv_cache.attention", "kv_cache.cache"],
    points=6,
    axes="B T vocab_size",
    sizes=head_sizes,
    renamed=checkpoints_name,
    differentiable=False,
    cases=[
        Case("without a cache", lambda draw: [draw.tokens(53, 2, draw.size("T", 7, 9))], {"config": SMALL}),
        model_case("prefill of 5, then one by one", SMALL, 2, [5, 1, 1]),
        model_case("a prompt in chunks of 3, 2 and 4", OTHER, 3, [3, 2, 4]),
        model_case("two texts in turns, a new_cache for each", OTHER, 2, [3, 1, 2], "two texts"),
        model_case("prefill and decode, with new_cache", SMALL, 2, [4, 1, 2], "own cache"),
        model_case("another text after a reset", SMALL, 2, [4, 1], "after a reset"),
        model_case("how many rows all blocks compute together", SMALL, 2, [5, 1, 1, 2], "rows"),
        model_case(
            "room for n_positions, for one more; 6 tokens in 6 places, one more (1: ValueError)",
            OTHER,
            2,
            [4, 2],
            "refusals",
        ),
        model_case("bfloat16, with new_cache", SMALL, 2, [4, 1, 2], "own cache", dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the positions begin at 0 again after the prompt",
            "Print the positions that you look up while you decode. Who knows how many tokens came before?",
            "start = cache[0].length if cache else 0",
            "start = 0",
        ),
        Mistake(
            "all tokens of a chunk get the same position",
            "Print the positions of a prompt. There should be T different ones.",
            "torch.arange(start, start + ids.shape[1], device=ids.device)",
            "torch.full((ids.shape[1],), start, device=ids.device)",
        ),
        Mistake(
            "the positions are one too far once there is a cache",
            "The first token stands at position 0. Where does the one stand that comes after 5?",
            "start = cache[0].length if cache else 0",
            "start = cache[0].length + 1 if cache and cache[0].length else 0",
        ),
        Mistake(
            "the positions are one behind",
            "After 5 tokens, at positions 0 to 4, comes which position?",
            "start = cache[0].length if cache else 0",
            "start = max(cache[0].length - 1, 0) if cache else 0",
        ),
        Mistake(
            "the positions are counted in chunks, not in tokens",
            "A prompt of 5 tokens is one call, and five positions.",
            "start = cache[0].length if cache else 0",
            "start = 0\n        if cache: cache[0].calls = start = getattr(cache[0], 'calls', -1) + 1",
        ),
        Mistake(
            "the positions are read off after the first layer has appended",
            "A layer's cache grows while the layer runs. When do you have to ask for its length?",
            "start = cache[0].length if cache else 0",
            "start = cache[0].length + ids.shape[1] if cache else 0",
        ),
        Mistake(
            "the cache is not handed on to the blocks",
            "Follow `cache` through your forward. Who gets it?",
            "block(x, cache[layer] if cache else None)",
            "block(x)",
        ),
        Mistake(
            "all layers write into one cache",
            "Which of the caches does each block get? Print their lengths after a prompt.",
            "block(x, cache[layer] if cache else None)",
            "block(x, cache[0] if cache else None)",
        ),
        Mistake(
            "new_cache gives one cache, as many times as there are layers",
            "A list times a number holds the same object again and again. Are cache[0] and cache[1] two things?",
            "[KVCache(*sizes, dtype=weight.dtype, device=weight.device) for _ in range(config.n_layer)]",
            "[KVCache(*sizes, dtype=weight.dtype, device=weight.device)] * config.n_layer",
        ),
        Mistake(
            "only the first layer has a cache",
            "Every layer has keys and values of its own. How many of the caches are filled after a prompt?",
            "cache[layer] if cache else None",
            "cache[0] if cache and layer == 0 else None",
        ),
        Mistake(
            "only the last layer has a cache",
            "Every layer has keys and values of its own. How many of the caches are filled after a prompt?",
            "block(x, cache[layer] if cache else None)",
            "block(x, cache[layer] if cache and layer == len(self.h) - 1 else None)",
        ),
        Mistake(
            "a layer writes into its neighbour's cache in decode",
            "The cache that a layer reads is the one it filled before. Does the order of the caches stay the same?",
            "block(x, cache[layer] if cache else None)",
            "block(x, cache[layer if not start else layer - 1] if cache else None)",
        ),
        Mistake(
            "the cache is kept, and everything is computed again beside it",
            "The logits are right, and the work is not saved. How many rows go through your blocks in a step of decode?",
            "        start = cache[0].length if cache else 0\n",
            "        if cache:\n"
            "            cache[0].ids = torch.cat([getattr(cache[0], 'ids', ids[:, :0]) if cache[0].length else ids[:, :0],"
            " ids], dim=1)\n"
            "            cache[0].length = cache[0].ids.shape[1]\n"
            "            return self(cache[0].ids)[:, -ids.shape[1] :]\n"
            "        start = 0\n",
        ),
        Mistake(
            "the model remembers the cache of the first text",
            "Two texts may be written in turns. Is something kept in the model that belongs to one of them?",
            "return [KVCache(*sizes, dtype=weight.dtype, device=weight.device) for _ in range(config.n_layer)]",
            "kept = self.__dict__.setdefault('kept', {})\n"
            "        if sizes not in kept:\n"
            "            kept[sizes] = [KVCache(*sizes, dtype=weight.dtype) for _ in range(config.n_layer)]\n"
            "        return kept[sizes]",
        ),
        Mistake(
            "there is always room for n_positions tokens",
            "Whoever asks for 30 places pays for how many?",
            "config.n_head, capacity, config.n_embd",
            "config.n_head, max(config.n_positions, capacity), config.n_embd",
        ),
        Mistake(
            "more tokens than the model has positions are promised",
            "What does the docstring say about a capacity beyond n_positions? Better now than after a thousand tokens.",
            "if capacity > config.n_positions:",
            "if False:",
        ),
        Mistake(
            "too large a capacity is refused with another error than the docstring says",
            "Which exception does the docstring promise to whoever wants to catch it?",
            "raise ValueError(",
            "raise RuntimeError(",
        ),
        Mistake(
            "a text of n_positions tokens is refused",
            "A model with 48 positions reads 48 tokens.",
            "if capacity > config.n_positions:",
            "if capacity >= config.n_positions:",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "self.ln_f(x)",
            "x",
        ),
        Mistake(
            "only the last token's logits are given",
            "The docstring asks for the logits of all new tokens: how many rows come in, and how many go out?",
            "self.ln_f(x)",
            "self.ln_f(x[:, -1:])",
        ),
        Mistake(
            "the positions are not added",
            "A token enters as the sum of two rows.",
            "self.wte(ids) + self.wpe(positions)",
            "self.wte(ids)",
        ),
    ],
)


# Generation


def count_rows(generate: Any, toy: Any, ids: Tensor, new_tokens: int, end: Any, look: str) -> Any:
    """The tokens that `generate` writes with a toy model that has a cache; or how many rows it computes for them."""

    class CachedToy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.toy, self.config = toy, toy.config
            self.rows, self.without_room, self.room = 0, 0, 0

        def new_cache(self, batch: int, capacity: int) -> Any:
            class Memory:
                def __init__(self) -> None:
                    self.ids, self.capacity = ids[:, :0], capacity

                @property
                def length(self) -> int:
                    return self.ids.shape[1]

                def reset(self) -> None:
                    self.ids = self.ids[:, :0]

            if batch != len(ids):
                raise ValueError(f"new_cache was asked for room for {batch} texts, and there is {len(ids)}")
            if capacity > self.config.n_positions:
                raise ValueError(f"{capacity} tokens, but this model has only {self.config.n_positions} positions")
            self.room += capacity
            return [Memory()]

        def forward(self, new: Tensor, cache: Any = None) -> Tensor:
            if new.ndim != 2:
                raise ValueError(f"the model was given ids of shape {list(new.shape)}; [1, T] belongs there")
            self.rows += new.shape[1]
            if cache is None:
                return self.toy(new[:, -self.config.n_positions :])
            memory = cache[0]
            memory.ids = torch.cat([memory.ids, new], dim=1)
            self.without_room += max(0, min(new.shape[1], memory.length - memory.capacity))
            logits = self.toy(memory.ids[:, -self.config.n_positions :])
            return logits[:, -new.shape[1] :]

    model = CachedToy().eval()
    given = generate(model, ids, new_tokens, end)
    if given is None:
        raise TypeError("it returned None; does it `yield` each token?")
    written = [int(token) for token in given]
    return {"tokens": written, "rows": model.rows, "no room": model.without_room, "room": model.room}[look]


def right_generation(toy: Any, ids: Tensor, new_tokens: int, end: Any, look: str) -> Any:
    """transformers' generate on the toy model, without a cache; each token but the last is read once."""
    written = reference_generate(toy, ids, new_tokens, end)
    room = ids.shape[1] + new_tokens - 1
    return {"tokens": written, "rows": ids.shape[1] + len(written) - 1, "no room": 0, "room": room}[look]


def generation_case(
    name: str, prompt: int, new_tokens: int, look: str, n_positions: int = 64, stops: bool = False
) -> Case:
    """stops: whether an end token comes, and not as the first, second or last."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            toy = random_toy_lm(61, n_positions, draw.generator)
            ids = draw.tokens(61, 1, prompt)
            written = reference_generate(toy, ids, new_tokens).tolist()
            end = written[new_tokens // 2]
            if written.index(end) == new_tokens // 2 and len(set(written)) > new_tokens // 2:  # else too repetitive
                return toy, ids, new_tokens, end if stops else None, look

    return Case(name, draw_args)


GENERATE = Exercise(
    name="kv_cache.generate",
    solution="generate_cached",
    reference=right_generation,
    drive=count_rows,
    function=True,
    points=5,
    cases=[
        generation_case("8 new tokens", 5, 8, "tokens"),
        generation_case("stops at the end token", 4, 9, "tokens", stops=True),
        generation_case("how many rows the model computes in all", 6, 7, "rows"),
        generation_case("the same where an end token comes", 7, 8, "rows", stops=True),
        generation_case("how many rows find no room in the cache", 6, 7, "no room"),
        generation_case("for how many tokens room is asked", 5, 7, "room"),
        generation_case("up to the model's last position", 5, 8, "tokens", n_positions=12),
    ],
    mistakes=[
        Mistake(
            "the whole text is computed again at every step",
            "Every token is right. How many rows has the model computed, and how many should it have?",
            "        logits = model(ids, cache)  # [1, T, vocab_size]; T is 1 after the first step\n"
            "        ids = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]\n"
            "        token = ids.item()\n",
            "        ids = torch.cat([ids, model(ids)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)\n"
            "        token = ids[0, -1].item()\n",
        ),
        Mistake(
            "the cache is filled, and the whole text computed beside it",
            "Which of the model's two calls is there for the cache only? What does the other one need?",
            "        logits = model(ids, cache)  # [1, T, vocab_size]; T is 1 after the first step\n"
            "        ids = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]\n"
            "        token = ids.item()\n",
            "        model(ids[:, -1:], cache)\n"
            "        ids = torch.cat([ids, model(ids)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)\n"
            "        token = ids[0, -1].item()\n",
        ),
        Mistake(
            "the whole text is put into the cache at every step",
            "The cache knows the prompt already. What is new to it?",
            "        ids = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]\n        token = ids.item()\n",
            "        ids = torch.cat([ids, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)\n"
            "        token = ids[0, -1].item()\n",
        ),
        Mistake(
            "the cache is not handed to the model, or made anew at every step",
            "What does the model know of the prompt in the second step? How long does your cache live?",
            "model(ids, cache)",
            "model(ids)",
        ),
        Mistake(
            "the prompt's last token is read twice",
            "After prefill the model has read the whole prompt, its last token too, and its logits are there.",
            "    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)\n",
            "    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)\n"
            "    if ids.shape[1] > 1: model(ids, cache); ids = ids[:, -1:]\n",
        ),
        Mistake(
            "the last token is read as well, though nothing comes after it",
            "Count the model's calls for max_new_tokens = 1.",
            "    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)\n"
            "    for _ in range(max_new_tokens):\n"
            "        logits = model(ids, cache)  # [1, T, vocab_size]; T is 1 after the first step\n"
            "        ids = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]\n"
            "        token = ids.item()\n"
            "        yield token\n"
            "        if token == eos_token_id:\n"
            "            return\n",
            "    cache = model.new_cache(1, min(ids.shape[1] + max_new_tokens, model.config.n_positions))\n"
            "    logits = model(ids, cache)\n"
            "    for _ in range(max_new_tokens):\n"
            "        ids = logits[:, -1].argmax(dim=-1, keepdim=True)\n"
            "        yield ids.item()\n"
            "        if ids.item() == eos_token_id:\n"
            "            return\n"
            "        logits = model(ids, cache)\n",
        ),
        Mistake(
            "the cache has room for the prompt only",
            "Every token that is written is also read, but one. Do they all fit?",
            "model.new_cache(1, ids.shape[1] + max_new_tokens - 1)",
            "model.new_cache(1, ids.shape[1])",
        ),
        Mistake(
            "the cache has room for the new tokens only",
            "The prompt goes into the cache, too.",
            "model.new_cache(1, ids.shape[1] + max_new_tokens - 1)",
            "model.new_cache(1, max_new_tokens)",
        ),
        Mistake(
            "the cache has room for all that the model can read",
            "Whoever writes 7 tokens after 5 needs how many places? Each of them is paid for.",
            "model.new_cache(1, ids.shape[1] + max_new_tokens - 1)",
            "model.new_cache(1, model.config.n_positions)",
        ),
        Mistake(
            "only the prompt's last token is read",
            "What does the model know of the rest of the prompt?",
            "model(ids, cache)",
            "model(ids[:, -1:], cache)",
        ),
        Mistake(
            "the logits of the first row are used",
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
            "token == eos_token_id",
            "False",
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
        Mistake(
            "one token too many is generated",
            "Count the tokens for max_new_tokens = 1.",
            "in range(max_new_tokens)",
            "in range(max_new_tokens + 1)",
        ),
    ],
)


# Bytes


def config_case(name: str, config: Mapping[str, Any], *numbers: int) -> Case:
    return Case(name, lambda draw: [Config(config), *numbers])


def published(name: str, file: str, *numbers: int) -> Case:
    return config_case(name, Config.read(Path(__file__).parent / "configs" / f"{file}.json"), *numbers)


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 5,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 100,
}

BYTES = Exercise(
    name="kv_cache.bytes",
    solution="cache_bytes",
    reference=bytes_at,
    function=True,
    points=4,
    cases=[
        published("GPT-2 XL, one token", "gpt2-xl", 1),
        published("Qwen3 4B, one token", "qwen3-4b", 1),
        published("Qwen3 0.6B, 3 texts of 1,000 tokens in float32", "qwen3-0.6b", 1000, 3, 4),
        config_case("a config that says nothing of head_dim", LLAMA, 7),
        config_case(
            "a config that says nothing of key-value heads",
            {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"} | {"head_dim": None},
            7,
            2,
        ),
    ],
    mistakes=[
        Mistake(
            "only the keys are counted",
            "Two things are kept for each token.",
            "return 2 * layers",
            "return layers",
        ),
        Mistake(
            "the layers are forgotten",
            "How many layers have keys and values?",
            "return 2 * layers * heads",
            "return 2 * heads",
        ),
        Mistake(
            "the query heads are counted",
            "Which heads have keys and values? In grouped-query attention there are fewer of them.",
            'config.get("num_key_value_heads") or config.num_attention_heads',
            "config.num_attention_heads",
        ),
        Mistake(
            "a config without key-value heads is taken for one with a single one",
            "What holds where num_key_value_heads is missing? The text above the exercise says it.",
            'config.get("num_key_value_heads") or config.num_attention_heads',
            'config.get("num_key_value_heads") or 1',
        ),
        Mistake(
            "head_dim is worked out although the config gives it",
            "Qwen3's head_dim is a number of its own. Look for the field first.",
            'config.get("head_dim") or config.hidden_size // config.num_attention_heads',
            "config.hidden_size // config.num_attention_heads",
        ),
        Mistake(
            "the width is divided among the key-value heads",
            "head_dim is how wide a query is, too. Among which heads is the width divided?",
            "config.hidden_size // config.num_attention_heads",
            "config.hidden_size // heads",
        ),
        Mistake(
            "the model's width is counted in place of the heads'",
            "What is kept are keys and values of some heads, and not the residual stream.",
            "return 2 * layers * heads * head_dim * element_bytes",
            "width = config.n_embd if config.model_type == 'gpt2' else config.hidden_size\n"
            "    return 2 * layers * width * element_bytes",
        ),
        Mistake(
            "the queries are counted too",
            "Nobody asks an old query again. What is kept?",
            "return 2 * layers * heads * head_dim * element_bytes",
            "queries = config.get('num_attention_heads') or config.n_head\n"
            "    return layers * (2 * heads + queries) * head_dim * element_bytes",
        ),
        Mistake(
            "numbers are counted, not bytes",
            "How many bytes does a number of bfloat16 take?",
            "head_dim * element_bytes * context",
            "head_dim * context",
        ),
        Mistake(
            "every number is taken for two bytes",
            "In float32 a number takes four. Which argument says so?",
            "head_dim * element_bytes * context",
            "head_dim * 2 * context",
        ),
        Mistake(
            "the batch is forgotten",
            "Do two texts share their keys?",
            "context * batch",
            "context",
        ),
        Mistake(
            "the context is forgotten",
            "The cache grows with the text.",
            "element_bytes * context * batch",
            "element_bytes * batch",
        ),
        Mistake(
            "bits are counted, not bytes",
            "Your number is eight times too large.",
            "head_dim * element_bytes * context",
            "head_dim * 8 * element_bytes * context",
        ),
    ],
)


# Grouped queries


def group_in_chunks(function: Any, q: Tensor, kv: Tensor, chunks: list[int], look: str) -> Any:
    """Results for q [B, H, T, head_dim] and kv [2, B, KV, T, head_dim], given in chunks; or what the cache was given."""

    class Memory:
        def __init__(self) -> None:
            self.keys = self.values = torch.zeros(0)
            self.length, self.stored = 0, 0

        def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            self.stored += k.numel() + v.numel()
            both = torch.stack([k, v])
            if self.length:
                both = torch.cat([torch.stack([self.keys, self.values])[:, :, :, : self.length], both], dim=3)
            self.length = both.shape[3]
            # As in a KVCache there is room for more, and what is given back is less.
            self.keys, self.values = torch.cat([both, torch.zeros_like(both)], dim=3)
            return both[0], both[1]

    memory, start, seen = Memory(), 0, []
    for size in chunks:
        part = slice(start, start + size)
        given = function(q[:, :, part], *kv[:, :, :, part], memory)
        if not isinstance(given, Tensor):
            hint = "; does it end with `return`?" if given is None else ""
            raise TypeError(f"it returned a {type(given).__name__}, where a tensor belongs{hint}")
        if given.shape != q[:, :, part].shape:
            wanted = f"{list(q[:, :, part].shape)}, as the queries have it, belongs there"
            raise ValueError(f"it gave a tensor of shape {list(given.shape)}; {wanted}")
        seen.append(given)
        start += size
    return memory.stored if look == "stored" else torch.cat(seen, dim=2)


def right_groups(q: Tensor, kv: Tensor, chunks: list[int], look: str) -> Any:
    """transformers' eager attention on everything at once."""
    if look == "stored":
        return kv.numel()
    k, v = kv.to(q.dtype)
    T, head_dim = q.shape[2:]
    mask = torch.zeros(1, 1, T, T, dtype=q.dtype).masked_fill(
        torch.ones(T, T, dtype=torch.bool).triu(1), torch.finfo(q.dtype).min
    )
    module: Any = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    return eager_attention_forward(module, q, k, v, mask, scaling=head_dim**-0.5)[0].transpose(1, 2)


def grouped_case(name: str, heads: int, kv_heads: int, chunks: list[int], look: str = "result") -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        batch, length, head_dim = draw.size("B", 2, 3), sum(chunks), draw.size("head_dim", 8, 10)
        return (
            draw.normal(batch, heads, length, head_dim),
            draw.normal(2, batch, kv_heads, length, head_dim),
            chunks,
            look,
        )

    return Case(name, draw_args)


GROUPED = Exercise(
    name="kv_cache.grouped",
    solution="grouped_attention",
    reference=right_groups,
    drive=group_in_chunks,
    function=True,
    points=4,
    axes="B H T head_dim",
    cases=[
        grouped_case("6 heads on 2, prefill of 5, then one by one", 6, 2, [5, 1, 1]),
        grouped_case("4 heads on 2, in chunks of 2, 3 and 4", 4, 2, [2, 3, 4]),
        grouped_case("9 heads on 3, one by one", 9, 3, [1, 1, 1, 1]),
        grouped_case("how many numbers the cache was given", 6, 2, [4, 1, 2], "stored"),
    ],
    mistakes=[
        Mistake(
            "the heads are repeated before they are cached",
            "The result is right. How many numbers did you hand to the cache, and how many are there to keep?",
            "    k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]\n"
            "    group = q.shape[1] // k.shape[1]  # how many query heads share a key and value head\n"
            "    k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))  # 2 x [B, H, T_k, head_dim]\n",
            "    group = q.shape[1] // k.shape[1]\n"
            "    k, v = cache.append(*(t.repeat_interleave(group, dim=1) for t in (k, v)))\n",
        ),
        Mistake(
            "neighbouring query heads use different key and value heads",
            "With 6 heads on 2, which key-value head do query heads 0, 1 and 2 use?",
            "t.repeat_interleave(group, dim=1)",
            "t.repeat(1, group, 1, 1)",
        ),
        Mistake(
            "the values are spread over the query heads otherwise than the keys",
            "Query head 1 must mix the values of the head whose keys it met. Are k and v repeated in the same way?",
            "k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))",
            "k, v = k.repeat_interleave(group, dim=1), v.repeat(1, group, 1, 1)",
        ),
        Mistake(
            "all query heads use the first key and value head",
            "That would be MQA. How many key-value heads came in?",
            "t.repeat_interleave(group, dim=1)",
            "t[:, :1].expand(-1, q.shape[1], -1, -1)",
        ),
        Mistake(
            "the cache is filled and never read",
            "append gives something back. What happens to it in your code?",
            "k, v = cache.append(k, v)",
            "cache.append(k, v)",
        ),
        Mistake(
            "the cache is not used at all",
            "Does a token of the second chunk know anything of the first?",
            "k, v = cache.append(k, v)",
            "k, v = k, v",
        ),
        Mistake(
            "keys and values are appended twice",
            "Count the calls of append in one call of yours.",
            "    k, v = cache.append(k, v)  # 2",
            "    cache.append(k, v)\n    k, v = cache.append(k, v)  # 2",
        ),
        Mistake(
            "keys and values come out of the cache in the wrong order",
            "In which order does append give the two back?",
            "k, v = cache.append(k, v)",
            "v, k = cache.append(k, v)",
        ),
        Mistake(
            "the mask is lined up with the upper left corner",
            "Which keys may the first of 3 new tokens see after 4 old ones? `is_causal` doesn't know of the old ones.",
            "tril(diagonal=T_k - T)",
            "tril()",
        ),
        Mistake(
            "there is no mask",
            "A prompt has a future. Who may see it?",
            "attn_mask=seen",
            "attn_mask=None",
        ),
        Mistake(
            "the mask is the wrong way round",
            "Which keys does attn_mask mark with True: those that may be seen, or the others?",
            "attn_mask=seen",
            "attn_mask=~seen",
        ),
        Mistake(
            "every token sees the one after it",
            "By how many places must the triangle move to the right, and is yours one too many?",
            "tril(diagonal=T_k - T)",
            "tril(diagonal=T_k - T + 1)",
        ),
        Mistake(
            "the scores are not scaled",
            "What do the scores have to be divided by?",
            "attn_mask=seen)",
            "attn_mask=seen, scale=1.0)",
        ),
    ],
)

EXERCISES = [WORK, CACHE, ATTENTION, MODEL, GENERATE, BYTES, GROUPED]
