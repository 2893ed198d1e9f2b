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

from grader.config import Config
from grader.authoring.mistakes import with_mistakes
from grader.exercise import Case, Draw, Exercise
from grader.kv import bytes_at
from grader.toy import random_toy_lm
from grader.toy_reference import reference_generate

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
)

EXERCISES = with_mistakes(__file__, [WORK, CACHE, ATTENTION, MODEL, GENERATE, BYTES, GROUPED])
