"""What the exercises of 05-mla are checked against: transformers' DeepSeek-V3, eager attention, dense MLPs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config
from transformers.masking_utils import create_causal_mask
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3Model,
    DeepseekV3RotaryEmbedding,
    apply_rotary_pos_emb_interleave,
)

from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.kv import bytes_at
from grader.lessons.exercise import Case, Draw, Exercise, Mistake
from grader.recordings.toy_lm import ToyLM

TRACE = "mla.model"

# No two sizes are equal, so that none can stand in for another; rms_norm_eps is large, for the latents ignore it.
SMALL: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_act": "silu",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": 20,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": True,
}
# A model without a narrow query and without YaRN, whose config is written as the hub's older files are.
PLAIN: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "rope_parameters"} | {
    "hidden_size": 28,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 14,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
    "rms_norm_eps": 1e-1,
    "rope_theta": 500.0,
    "rope_scaling": None,
}
V3_SCALING: dict[str, Any] = {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


def reference_config(config: Mapping[str, Any]) -> DeepseekV3Config:
    """transformers' config for the learner's, with eager attention and no experts."""
    return DeepseekV3Config(
        **{k: v for k, v in config.items() if v is not None or k == "q_lora_rank"},
        first_k_dense_replace=config["num_hidden_layers"],
        num_mtp_layers=0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )


def build_attention(config: Config) -> nn.Module:
    return DeepseekV3Attention(reference_config(config), layer_idx=0)


def build_compressor(config: Config) -> nn.Module:
    """The two parts of transformers' attention that make what is kept."""
    attention = DeepseekV3Attention(reference_config(config), layer_idx=0)
    made = nn.Module()
    made.kv_a_proj_with_mqa, made.kv_a_layernorm = attention.kv_a_proj_with_mqa, attention.kv_a_layernorm
    return made


def build_model(config: Config) -> nn.Module:
    return DeepseekV3Model(reference_config(config)).eval()


def rope_table(positions: Tensor, config: Mapping[str, Any]) -> Tensor:
    """transformers' cosines and sines, each pair's once: [2, T, qk_rope_head_dim / 2]."""
    cos, sin = DeepseekV3RotaryEmbedding(reference_config(config))(torch.zeros(()), positions[None])
    return torch.stack([cos[0], sin[0]]).chunk(2, dim=-1)[0].contiguous()


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = torch.cat([table, table], dim=-1).to(x.dtype)
    return apply_rotary_pos_emb_interleave(x, x, cos[None], sin[None])[0]


def call_compressor(module: Any, x: Tensor) -> Tensor:
    both = module.kv_a_proj_with_mqa(x)
    rank = module.kv_a_layernorm.weight.numel()
    return torch.cat([module.kv_a_layernorm(both[..., :rank]), both[..., rank:]], dim=-1)


def call_attention(module: Any, x: Tensor, table: Tensor, *_: Any) -> Tensor:
    """The whole text at once, whatever the pieces in which the solution gets it."""
    mask = create_causal_mask(config=module.config, inputs_embeds=x, attention_mask=None, cache=None)
    cos, sin = torch.cat([table, table], dim=-1).to(x.dtype)
    output: Tensor = module(x, position_embeddings=(cos[None], sin[None]), attention_mask=mask)[0]
    return output


def call_attention_with_work(module: Any, x: Tensor, table: Tensor, cuts: Sequence[int], most: int) -> Tensor:
    """As `call_attention`, with a 1 behind it: the work stays below the limit."""
    output = call_attention(module, x, table)
    return torch.cat([output.flatten(), output.new_ones(1)]) if most else output


def call_model(module: nn.Module, ids: Tensor, cuts: Any = (), layers: int = 0, config: Any = None) -> Tensor:
    if config is not None:
        return torch.tensor(config.num_hidden_layers)
    output: Tensor = module(input_ids=ids, use_cache=False).last_hidden_state
    return output


def use_compress(module: Any, x: Tensor) -> Tensor:
    """Latent and key side by side, once it is sure that it is these two that came back."""
    given = module.compress(x)
    if not isinstance(given, tuple | list) or len(given) != 2:
        what = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(f"compress returned {what}; two tensors belong there, the latent and the key{hint}")
    for name, tensor in zip(("latent", "key"), given, strict=True):
        if tensor.shape[:-1] != x.shape[:-1]:
            wanted = f"one vector for each token, [{x.shape[0]}, {x.shape[1]}, ...], belongs there"
            raise ValueError(f"compress returned a {name} of shape {list(tensor.shape)}; {wanted}")
    return torch.cat(list(given), dim=-1)


def use_cache(made: Any, config: Any, batch: int, capacity: int, parts: list[Tensor], look: str) -> Any:
    """What comes back at every step, and from a second cache; or what else `look` asks for."""
    cache = made(config, batch, capacity, parts[0].dtype)

    def room() -> list[Tensor]:
        return [value for value in vars(cache).values() if isinstance(value, Tensor)]

    def memory() -> list[Tensor]:
        return [tensor.detach().clone().contiguous().view(torch.uint8) for tensor in room()]

    def rows(given: Any, width: int) -> Tensor:
        if not isinstance(given, Tensor):
            hint = "; does it end with `return`?" if given is None else ""
            raise TypeError(f"append gave back a {type(given).__name__}, where a tensor belongs{hint}")
        if given.ndim != 3 or given.shape[0] != batch or given.shape[2] != width:
            wanted = f"[{batch}, length, {width}] belongs there"
            raise ValueError(f"append gave back a tensor of shape {list(given.shape)}; {wanted}")
        return given.clone()

    if look == "room":
        return [sum(tensor.numel() for tensor in room()), sum(tensor.nbytes for tensor in room())]
    contents, codes = [], []
    for part in parts:
        before, refused, given = memory() if "refus" in look else [], 0, None
        try:
            given = cache.append(part.clone())
        except Exception as error:
            if "refus" not in look or isinstance(error, NotImplementedError):
                raise
            after = memory()
            same = len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            refused = 3 if not isinstance(error, ValueError) else 1 if same else 2
        if not refused:
            contents.append(rows(given, part.shape[2]))
        codes += [refused, int(cache.length)]
    if look == "refusals":
        return codes
    if look == "length":
        return codes[1::2]
    if not contents:
        raise ValueError("no append was accepted")
    if look == "after refusals":
        return contents[-1]
    other = made(config, batch, capacity, parts[0].dtype)
    return torch.cat([*contents, rows(other.append(parts[-1].clone()), parts[-1].shape[2])], dim=1)


def reference_cache(config: Any, batch: int, capacity: int, parts: list[Tensor], look: str) -> Any:
    """What `use_cache` gives for a cache that keeps rows of a latent and a key."""
    width = config.kv_lora_rank + config.qk_rope_head_dim
    if look == "room":
        return [batch * capacity * width, batch * capacity * width * parts[0].element_size()]
    kept, contents, codes = parts[0][:, :0], [], []
    for part in parts:
        refused = kept.shape[1] + part.shape[1] > capacity
        if not refused:
            kept = torch.cat([kept, part], dim=1)
            contents.append(kept)
        codes += [int(refused), kept.shape[1]]
    if look == "refusals":
        return codes
    if look == "after refusals":
        return contents[-1]
    return codes[1::2] if look == "length" else torch.cat([*contents, parts[-1]], dim=1)


def use_attention(module: Any, x: Tensor, table: Tensor, cuts: list[int]) -> Tensor:
    """The text in pieces that end at the cuts, through a cache; without cuts all at once and without one."""

    class Rows:
        def __init__(self) -> None:
            self.kept: Any = None
            self.length = 0

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"this check's cache has `append` and `length`, and no `{name}`")

        def append(self, new: Tensor) -> Tensor:
            self.kept = new if self.kept is None else torch.cat([self.kept, new], dim=1)
            self.length = self.kept.shape[1]
            return self.kept

    if not cuts:
        return module(x, table)
    rows, parts = Rows(), []
    for start, end in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        parts.append(module(x[:, start:end], table[:, start:end], rows))
        if rows.length != end:
            raise ValueError(f"after {end} tokens there are {rows.length} rows in the cache; each belongs there once")
    return torch.cat(parts, dim=1)


def use_attention_and_count(module: Any, x: Tensor, table: Tensor, cuts: list[int], most: int) -> Tensor:
    """As `use_attention`; with `most`, behind it whether the last piece took fewer multiply-adds than that."""

    class Rows:
        def __init__(self) -> None:
            self.kept: Any = None
            self.length = 0

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"this check's cache has `append` and `length`, and no `{name}`")

        def append(self, new: Tensor) -> Tensor:
            self.kept = new if self.kept is None else torch.cat([self.kept, new], dim=1)
            self.length = self.kept.shape[1]
            return self.kept

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
                self.total += result.numel() * args[0].shape[-1]
            elif func in (torch.ops.aten.addmm.default, torch.ops.aten.baddbmm.default):
                self.total += result.numel() * args[1].shape[-1]
            return result

    if not cuts:
        return module(x, table)
    rows, count = Rows(), Count()
    parts = [module(x[:, a:b], table[:, a:b], rows) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    with count:
        parts.append(module(x[:, cuts[-1] :], table[:, cuts[-1] :], rows))
    if rows.length != x.shape[1]:
        wanted = "each belongs there once"
        raise ValueError(f"after {x.shape[1]} tokens there are {rows.length} rows in the cache; {wanted}")
    output = torch.cat(parts, dim=1)
    return torch.cat([output.flatten(), output.new_full((1,), float(count.total <= most))]) if most else output


def use_model(module: Any, ids: Tensor, cuts: Any = (), layers: int = 0, config: Any = None) -> Tensor:
    """The ids in pieces that end at the cuts, through one cache for each layer; without cuts all at once.

    With a config: in how many layers of such a model another class of attention is used, if that is given.
    """

    class Rows:
        def __init__(self) -> None:
            self.kept: Any = None
            self.length = 0

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"this check's cache has `append` and `length`, and no `{name}`")

        def append(self, new: Tensor) -> Tensor:
            self.kept = new if self.kept is None else torch.cat([self.kept, new], dim=1)
            self.length = self.kept.shape[1]
            return self.kept

    class Another(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()

        def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
            return x

    if config is not None:
        return torch.tensor(sum(isinstance(part, Another) for part in type(module)(config, Another).modules()))
    if not cuts:
        return module(ids)
    caches = [Rows() for _ in range(layers)]
    return torch.cat([module(ids[:, a:b], caches) for a, b in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True)], 1)


def use_generate(generate: Any, toy: Any, ids: Tensor, max_new_tokens: int, ends: list[int], look: str) -> Any:
    """The new tokens, or how the model was used for them: what it was given to read, and how much room there was."""
    limit = toy.config.n_positions

    class Memory:
        def __init__(self, capacity: int) -> None:
            self.ids, self.capacity = ids[:, :0], capacity

        @property
        def length(self) -> int:
            return self.ids.shape[1]

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[int] = []
            self.room, self.without_room = 0, 0

        def caches(self, batch: int, capacity: int) -> list[Any]:
            if batch != len(ids):
                raise ValueError(f"caches was asked for room for {batch} texts, and there is {len(ids)}")
            self.room += capacity
            return [Memory(capacity)]

        def forward(self, ids: Tensor, caches: Any = None) -> Tensor:
            if ids.ndim != 2:
                raise ValueError(f"the model was given ids of shape {list(ids.shape)}; [1, T] belongs there")
            self.pieces.append(ids.shape[1])
            if caches is None:
                return toy(ids[:, -limit:])
            memory = caches[0]
            memory.ids = torch.cat([memory.ids, ids], dim=1)
            self.without_room += max(0, min(ids.shape[1], memory.length - memory.capacity))
            return toy(memory.ids[:, -limit:])[:, -ids.shape[1] :]

    reader = Reader().eval()
    given = generate(reader, ids, max_new_tokens, ends)
    if given is None:
        raise TypeError("it returned None; does it `yield` each token?")
    written = [int(token) for token in given]
    if look == "pieces":
        return [reader.pieces[0], max(reader.pieces[1:], default=0)]
    if look == "room":  # the last token need not be read, and may
        return [reader.without_room, max(0, reader.room - ids.shape[1] - max_new_tokens)]
    return written


def reference_written(toy: ToyLM, ids: Tensor, max_new_tokens: int, ends: list[int], look: str) -> Any:
    if look == "tokens":
        return reference_generate(toy, ids, max_new_tokens, ends)
    return [ids.shape[1], 1] if look == "pieces" else [0, 0]


def learners_name(name: str) -> str | None:
    """The course has neither a module for the activation nor one for the rotations."""
    return None if "act_fn" in name or "rotary_emb" in name else name


def sizes(build: Mapping[str, Any]) -> dict[str, int]:
    fields = ("hidden_size", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    return {field: build["config"][field] for field in fields}


def hidden(config: dict[str, Any], batch: int, usual: int, *others: int, scale: float = 1.0) -> Any:
    """Draws x [batch, T, D]."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [draw.normal(batch, draw.size("T", usual, *others), config["hidden_size"], scale=scale)]

    return draw_args


def hidden_and_table(
    config: dict[str, Any],
    batch: int,
    length: int,
    start: int,
    cuts: Sequence[int] = (),
    scale: float = 1.0,
    most: Callable[[dict[str, Any], int], int] | None = None,
    counted: bool = False,
) -> Any:
    """Draws x [batch, length, D], the rotations of positions from `start` on, and where to cut."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = draw.size("start", start, start + 2, start + 9)
        table = rope_table(torch.arange(first, first + length), config)
        limit = most(config, length) if most else 0
        x = draw.normal(batch, length, config["hidden_size"], scale=scale)
        return [x, table, list(cuts), *([limit] if counted else [])]

    return draw_args


def absorbed_work(config: dict[str, Any], rows: int) -> int:
    """Twice the multiply-adds of the absorbed form for one token: more than any order of it takes.

    Half of what rebuilding the keys and values of 40 rows takes.
    """
    D, H, r = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    n, p, v, q = (config[f"{f}"] for f in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank"))
    queries = D * q + q * H * (n + p) if q else D * H * (n + p)
    return 2 * (queries + D * (r + p) + H * v * D + H * r * (n + v) + H * rows * (2 * r + p))


def cache_case(
    name: str,
    config: dict[str, Any],
    batch: int,
    capacity: int,
    lengths: Sequence[int],
    look: str = "contents",
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A case of the cache: parts [batch, T, latent + key] for it."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        width = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        parts = [draw.normal(batch, n, width).to(dtype) for n in lengths]
        return [Config(config), batch, capacity, parts, look]

    return Case(name, draw_args)


def generation_args(
    prompt: int, new_tokens: int, stop_at: int | None = None, last: bool = False, look: str = "tokens"
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens, and for `stop_at` two end tokens, of which one comes.

    last: whether it is the last of the two.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        toy = random_toy_lm(61, 64, draw.generator)
        ids = draw.tokens(61, 1, draw.size("prompt", prompt, prompt + 1, prompt + 3))
        if stop_at is None:
            return toy, ids, new_tokens, [], look
        written = reference_generate(toy, ids, new_tokens).tolist()
        never = next(token for token in range(61) if token not in written)
        return toy, ids, new_tokens, [never, written[stop_at]] if last else [written[stop_at], never], look

    return draw_args


COMPRESS = Exercise(
    name="mla.compress",
    solution="Compressor",
    reference=build_compressor,
    call=call_compressor,
    drive=use_compress,
    points=5,
    axes="B T latent+key",
    sizes=sizes,
    cases=[
        Case("7 tokens", hidden(SMALL, 2, 7, 5, 9), {"config": SMALL}),
        Case("other sizes", hidden(PLAIN, 3, 5, 4, 8), {"config": PLAIN}),
        Case("tiny inputs", hidden(SMALL, 2, 5, 7, scale=1e-3), {"config": SMALL}),
        Case("bfloat16", hidden(SMALL, 2, 7, 5), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the latent's norm has the config's rms_norm_eps",
            "The text above the exercise says which eps the norms inside attention have.",
            "RMSNorm(config.kv_lora_rank)",
            "RMSNorm(config.kv_lora_rank, config.rms_norm_eps)",
        ),
        Mistake(
            "the latent's norm has eps 1e-5",
            "The text above the exercise says which eps the norms inside attention have. Tiny inputs show it.",
            "RMSNorm(config.kv_lora_rank)",
            "RMSNorm(config.kv_lora_rank, 1e-5)",
        ),
        Mistake(
            "the latent's norm is torch's own, with torch's eps",
            "nn.RMSNorm takes another eps where it is given none. Which class does the docstring name?",
            "RMSNorm(config.kv_lora_rank)",
            "nn.RMSNorm(config.kv_lora_rank)",
        ),
        Mistake(
            "the latent is not normed",
            "Two parts belong to this class. Which of them does your compress never call?",
            "return self.kv_a_layernorm(latent), key",
            "return latent, key",
        ),
        Mistake(
            "the norm sees latent and key together",
            "The mean square is taken over which channels? The key has no norm.",
            "return self.kv_a_layernorm(latent), key",
            "square = both.float().pow(2).mean(-1, keepdim=True)\n"
            "        return latent * torch.rsqrt(square + 1e-6) * self.kv_a_layernorm.weight, key",
        ),
        Mistake(
            "the key is normed as well",
            "Only one of the two is normed.",
            "return self.kv_a_layernorm(latent), key",
            "return self.kv_a_layernorm(latent), key * torch.rsqrt(key.pow(2).mean(-1, keepdim=True) + 1e-6)",
        ),
        Mistake(
            "the key is taken from the first channels",
            "In which order does the docstring name the two pieces of kv_a_proj_with_mqa's output?",
            "latent, key = both.split([self.rank, self.rope], dim=-1)",
            "key, latent = both.split([self.rope, self.rank], dim=-1)",
        ),
        Mistake(
            "latent and key are returned in the wrong order",
            "Look at the shapes in compress's docstring: which of the two comes first?",
            "return self.kv_a_layernorm(latent), key",
            "return key, self.kv_a_layernorm(latent)",
        ),
        Mistake(
            "the norm's weight is left out",
            "An RMSNorm divides, and then?",
            "return self.kv_a_layernorm(latent), key",
            "return F.rms_norm(latent, latent.shape[-1:], None, 1e-6), key",
        ),
        Mistake(
            "the norm subtracts the mean, as LayerNorm does",
            "Which of the two norms is given above?",
            "return self.kv_a_layernorm(latent), key",
            "return self.kv_a_layernorm(latent - latent.mean(-1, keepdim=True)), key",
        ),
    ],
)


def rope_args(batch: int, heads: int, positions: Sequence[int], config: dict[str, Any]) -> Any:
    """Draws x [batch, heads, T, rope] and the rotations of the positions."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        shift = draw.size("shift", 0, 1, 13)
        table = rope_table(torch.tensor(positions) + shift, config)
        return draw.normal(batch, heads, len(positions), config["qk_rope_head_dim"]), table

    return draw_args


ROPE = Exercise(
    name="mla.rope",
    solution="apply_rope",
    reference=apply_rope,
    function=True,
    points=4,
    axes="B H T rope",
    cases=[
        Case("positions 5 to 11", rope_args(2, 3, range(5, 12), SMALL)),
        Case("positions 3, 40 and 17, one head", rope_args(3, 1, [3, 40, 17], PLAIN)),
        Case("bfloat16", rope_args(2, 3, range(2, 7), SMALL), dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the channels i and i + d / 2 are taken for pairs",
            "That is Qwen3's pairing. Which channels form a pair here?",
            "a, b = x[..., 0::2], x[..., 1::2]",
            "a, b = x.chunk(2, dim=-1)",
        ),
        Mistake(
            "the results are woven together again",
            "The pairs are right. Where does the docstring want the two numbers of a pair to go?",
            "torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
            "torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)",
        ),
        Mistake(
            "halves go in for pairs, and come out woven together",
            "Which channels form a pair, and where do its two numbers go? You have it the other way round.",
            "a, b = x[..., 0::2], x[..., 1::2]  # 2 x [B, H, T, d / 2]\n"
            "    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
            "a, b = x.chunk(2, dim=-1)\n"
            "    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)",
        ),
        Mistake(
            "it turns the other way round",
            "Turn (1, 0) by a quarter, with cos = 0 and sin = 1. The docstring says where it goes.",
            "[a * cos - b * sin, b * cos + a * sin]",
            "[a * cos + b * sin, b * cos - a * sin]",
        ),
        Mistake(
            "the two numbers of each pair have changed places",
            "Which of the two neighbours is the first of a pair, the even channel or the odd one?",
            "a, b = x[..., 0::2], x[..., 1::2]",
            "a, b = x[..., 1::2], x[..., 0::2]",
        ),
        Mistake(
            "no sign changes",
            "A rotation keeps the length of a vector. Does yours? There is one minus in the formula.",
            "a * cos - b * sin",
            "a * cos + b * sin",
        ),
        Mistake(
            "cosine and sine have changed places",
            "Position 0 turns nothing: then cos = 1 and sin = 0. What does yours give there?",
            "cos, sin = table",
            "sin, cos = table",
        ),
        Mistake(
            "the channels are sorted and not turned",
            "Compare your result with x.",
            "torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
            "torch.cat([a, b], dim=-1) * 1.0",
        ),
        Mistake(
            "the halves of the result have changed places",
            "Which of the two numbers of a pair comes out in the first half?",
            "[a * cos - b * sin, b * cos + a * sin]",
            "[b * cos + a * sin, a * cos - b * sin]",
        ),
        Mistake(
            "the second number of a pair is made from the turned first one",
            "Both numbers that come out are made from the two that went in.",
            "return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
            "a = a * cos - b * sin\n    return torch.cat([a, b * cos + a * sin], dim=-1)",
        ),
        Mistake(
            "it turns twice",
            "Where is this called from, and how often for each vector?",
            "return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
            "a, b = a * cos - b * sin, b * cos + a * sin\n"
            "    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)",
        ),
    ],
)


def scale_case(name: str, **changes: Any) -> Case:
    """A case of the scale: a config of V3's widths with some fields changed; None takes a field out."""
    # Nor may the width of a head in other models, hidden_size / heads, be any of the widths here.
    config = {k: v for k, v in (SMALL | {"hidden_size": 33} | changes).items() if v is not None or k == "rope_scaling"}
    return Case(name, lambda draw: [Config(config)])


SCALE = Exercise(
    name="mla.scale",
    solution="softmax_scale",
    reference=lambda config: float(build_attention(config).scaling),
    function=True,
    points=4,
    cases=[
        scale_case("as transformers 5 writes it"),
        scale_case(
            "DeepSeek-V3, as the hub has it",
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            max_position_embeddings=163840,
            rope_parameters=None,
            rope_theta=10000.0,
            rope_scaling=V3_SCALING,
        ),
        scale_case(
            "mscale and mscale_all_dim are not equal",
            max_position_embeddings=1024,
            rope_parameters=SMALL["rope_parameters"] | {"mscale": 1.0, "mscale_all_dim": 0.707, "factor": 16.0},
        ),
        scale_case(
            "YaRN without mscale_all_dim",
            rope_parameters={k: v for k, v in SMALL["rope_parameters"].items() if k != "mscale_all_dim"},
        ),
        scale_case("YaRN with mscale_all_dim 0", rope_parameters=SMALL["rope_parameters"] | {"mscale_all_dim": 0.0}),
        scale_case("no YaRN", rope_parameters=None, rope_theta=500.0, rope_scaling=None),
        scale_case(
            "mscale_all_dim stands there, and rope_type is default",
            rope_parameters={"rope_type": "default", "rope_theta": 500.0, "mscale_all_dim": 1.0, "factor": 4.0},
        ),
    ],
    mistakes=[
        Mistake(
            "only the channels that are not turned are counted",
            "How long is a query that meets a key, with both of its parts?",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "config.qk_nope_head_dim**-0.5",
        ),
        Mistake(
            "only the turned channels are counted",
            "How long is a query that meets a key, with both of its parts?",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "config.qk_rope_head_dim**-0.5",
        ),
        Mistake(
            "the value's width is taken for the key's",
            "Scores are products of queries and keys. Which fields say how long those are?",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "config.v_head_dim**-0.5",
        ),
        Mistake(
            "the latent's length is counted",
            "The scale is the same in every form of attention. It was trained with the keys of the heads.",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "(config.kv_lora_rank + config.qk_rope_head_dim) ** -0.5",
        ),
        Mistake(
            "the width is divided among the heads",
            "In most models that is a head's length. Here the config has fields for it.",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "(config.hidden_size / config.num_attention_heads) ** -0.5",
        ),
        Mistake(
            "no root is taken",
            "By what are scores divided: by a key's length, or by its root?",
            "(config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5",
            "1 / (config.qk_nope_head_dim + config.qk_rope_head_dim)",
        ),
        Mistake(
            "YaRN's factor is missing",
            "What does the config's factor do to the scale?",
            "scale = scale * m * m",
            "scale = scale * 1.0",
        ),
        Mistake(
            "m multiplies once",
            "Queries and keys are both longer by m. And their product?",
            "scale = scale * m * m",
            "scale = scale * m",
        ),
        Mistake(
            "it divides by m twice",
            "Is attention to become sharper over long texts, or flatter?",
            "scale = scale * m * m",
            "scale = scale / (m * m)",
        ),
        Mistake(
            "mscale is read in place of mscale_all_dim",
            "There are two fields with similar names. One is for cosines and sines; the table above has used it.",
            '0.1 * settings["mscale_all_dim"]',
            '0.1 * settings["mscale"]',
        ),
        Mistake(
            "the 1 of m is added to the logarithm",
            "What is multiplied with the logarithm, and what is added afterwards?",
            '0.1 * settings["mscale_all_dim"] * math.log(settings["factor"]) + 1',
            '0.1 * settings["mscale_all_dim"] * (math.log(settings["factor"]) + 1)',
        ),
        Mistake(
            "only the logarithm in m is squared",
            "m is a sum. What is the square of it?",
            'math.log(settings["factor"]) + 1\n        scale = scale * m * m',
            'math.log(settings["factor"]) ** 2 + 1\n        scale = scale * m',
        ),
        Mistake(
            "the logarithm is to base 10",
            "Which logarithm is ln?",
            "math.log(",
            "math.log10(",
        ),
        Mistake(
            "the 1 is missing from m",
            "What should m be for a factor of 1, which stretches nothing?",
            'math.log(settings["factor"]) + 1',
            'math.log(settings["factor"])',
        ),
        Mistake(
            "the factor counts where rope_type is not yarn",
            "A field may stand in a config and not be meant. Which one says whether YaRN is used?",
            'if settings["rope_type"] == "yarn" and settings.get("mscale_all_dim"):',
            'if settings.get("mscale_all_dim"):',
        ),
        Mistake(
            "a missing mscale_all_dim is taken for 1",
            "The docstring says what holds where the field is missing, or 0.",
            'settings.get("mscale_all_dim"):\n        m = 0.1 * settings["mscale_all_dim"]',
            'settings.get("mscale_all_dim", 1):\n        m = 0.1 * settings.get("mscale_all_dim", 1)',
        ),
    ],
)

GROWING = """self.rows = torch.zeros(batch, 0, width, dtype=dtype)

        def grow(new):
            {check}
            self.rows = torch.cat([self.rows, new], dim=1)
            self.length = self.rows.shape[1]
            return self.rows

        self.append = grow"""
CACHE = Exercise(
    name="mla.cache",
    solution="LatentCache",
    reference=reference_cache,
    function=True,
    drive=use_cache,
    points=5,
    cases=[
        cache_case("5 tokens at once", SMALL, 1, 5, [5]),
        cache_case("3 tokens, then one, then 2; room for 9; two texts", SMALL, 2, 9, [3, 1, 2]),
        cache_case("other sizes, three texts", PLAIN, 3, 6, [1, 1, 1]),
        cache_case("its length after 3 tokens, one and 2", SMALL, 2, 9, [3, 1, 2], "length"),
        cache_case("room made at the start: numbers, bytes", SMALL, 2, 6, [1], "room"),
        cache_case("room made at the start in bfloat16: numbers, bytes", PLAIN, 1, 5, [1], "room", torch.bfloat16),
        cache_case(
            "which appends are refused (0: none, 1: ValueError, 2: ValueError, but something was written,"
            " 3: another error), and the length after each",
            PLAIN,
            2,
            7,
            [4, 4, 2, 1, 1],
            "refusals",
        ),
        cache_case("the contents after a refusal", PLAIN, 2, 8, [4, 5, 3], "after refusals"),
        cache_case("bfloat16", SMALL, 2, 6, [2, 3], dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the length never grows",
            "Where do the rows of the second call go?",
            "self.length = end",
            "pass",
        ),
        Mistake(
            "new rows are written over the first ones",
            "Which rows are free? Something in your cache knows.",
            "self.rows[:, self.length : end] = new",
            "self.rows[:, : new.shape[1]] = new",
        ),
        Mistake(
            "only the new rows come back",
            "Attention needs every row so far.",
            "return self.rows[:, :end]",
            "return new",
        ),
        Mistake(
            "empty rows come back as well",
            "How many of the rows hold a token?",
            "return self.rows[:, :end]",
            "return self.rows",
        ),
        Mistake(
            "the length counts calls, not tokens",
            "A prompt is one call and many tokens.",
            "self.length = end",
            "self.length += 1",
        ),
        Mistake(
            "a full cache drops what does not fit",
            "What does the docstring promise where there is no room?",
            'raise ValueError(f"{end} tokens do not fit into a cache for {self.rows.shape[1]}")',
            "return self.rows[:, : self.length]",
        ),
        Mistake(
            "a full cache forgets its first rows",
            "That would be a window. What does the docstring promise where there is no room?",
            'raise ValueError(f"{end} tokens do not fit into a cache for {self.rows.shape[1]}")',
            "self.rows, end = torch.cat([self.rows, new], dim=1)[:, -self.rows.shape[1] :], self.rows.shape[1]\n"
            "            self.length = end\n            return self.rows",
        ),
        Mistake(
            "it refuses, but its length has grown",
            "In which order do you look whether there is room, and change the cache?",
            "raise ValueError(",
            "self.length = end\n            raise ValueError(",
        ),
        Mistake(
            "what fits is written before it refuses",
            "After a refusal the cache must be as it was, every row of it. When do you write?",
            "            raise ValueError(",
            "            room = self.rows.shape[1] - self.length\n"
            "            self.rows[:, self.length :] = new[:, :room]\n"
            "            raise ValueError(",
        ),
        Mistake(
            "it refuses with another error than ValueError",
            "Which exception does the docstring promise to whoever wants to catch it?",
            "raise ValueError(",
            "raise RuntimeError(",
        ),
        Mistake(
            "nothing looks whether there is room",
            "If torch refuses, then by chance, and with its own error. What does the docstring promise?",
            "if end > self.rows.shape[1]:",
            "if False:",
        ),
        Mistake(
            "the rows are made anew by torch.cat at every step",
            "How many rows are there before the first token comes? capacity says for how many there must be room.",
            "self.rows = torch.zeros(batch, capacity, width, dtype=dtype)",
            GROWING.format(check='if self.length + new.shape[1] > capacity: raise ValueError("full")'),
        ),
        Mistake(
            "the rows are made anew by torch.cat at every step, and nothing is ever refused",
            "How many rows are there before the first token comes? capacity says for how many there must be room.",
            "self.rows = torch.zeros(batch, capacity, width, dtype=dtype)",
            GROWING.format(check="pass"),
        ),
        Mistake(
            "rows are kept in float32 whatever was asked for",
            "The cache's dtype is given. Count the bytes.",
            "width, dtype=dtype)",
            "width)",
        ),
        Mistake(
            "there is room for keys and values of the latent's width",
            "How many numbers is a row? Keys and values are made from the same latent.",
            "width = config.kv_lora_rank + config.qk_rope_head_dim",
            "width = config.kv_lora_rank + config.qk_rope_head_dim\n"
            "        self.values = torch.zeros(batch, capacity, config.kv_lora_rank, dtype=dtype)",
        ),
        Mistake(
            "there is room for two rows a token, as for keys and for values",
            "What must be kept of a token, if its keys and values are made from the same latent?",
            "width = config.kv_lora_rank + config.qk_rope_head_dim",
            "width = config.kv_lora_rank + config.qk_rope_head_dim\n"
            "        self.values = torch.zeros(batch, capacity, width, dtype=dtype)",
        ),
    ],
)


def bytes_case(name: str, config: dict[str, Any], tokens: int, *others: int) -> Case:
    """A case of the bytes: a config, tokens, and what else is given."""
    return Case(name, lambda draw: [Config(config), draw.size("tokens", tokens, tokens + 1, 3 * tokens), *others])


DEEPSEEK_V3: dict[str, Any] = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
BYTES = Exercise(
    name="mla.bytes",
    solution="cache_bytes",
    reference=lambda config, tokens, batch=1, element_bytes=2: bytes_at(config, tokens, batch, element_bytes),
    function=True,
    points=4,
    cases=[
        bytes_case("DeepSeek-V3, one token", DEEPSEEK_V3, 1),
        bytes_case("a latent, and a head_dim that transformers wrote", SMALL | {"head_dim": 8}, 100, 3, 4),
        bytes_case(
            "grouped queries, head_dim its own number",
            {
                "hidden_size": 96,
                "num_hidden_layers": 5,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 20,
            },
            40,
            2,
        ),
        bytes_case(
            "grouped queries without head_dim, in float32",
            {"hidden_size": 96, "num_hidden_layers": 7, "num_attention_heads": 6, "num_key_value_heads": 3},
            33,
            1,
            4,
        ),
    ],
    mistakes=[
        Mistake(
            "the turned key is left out",
            "As on the talk's slide. What else lies in a row of your cache?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = config.kv_lora_rank",
        ),
        Mistake(
            "the latent is counted for keys and again for values",
            "How many latents does a token have in a layer?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = 2 * config.kv_lora_rank + config.qk_rope_head_dim",
        ),
        Mistake(
            "a whole row is counted for keys and again for values",
            "How many rows does your cache keep of a token, in a layer?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = 2 * (config.kv_lora_rank + config.qk_rope_head_dim)",
        ),
        Mistake(
            "a config with a latent and a head_dim is taken for one without a latent",
            "Which field says that a model keeps a latent? Hint 2 tells why head_dim can stand there as well.",
            'if config.get("kv_lora_rank"):',
            'if config.get("kv_lora_rank") and not config.get("head_dim"):',
        ),
        Mistake(
            "every head has a turned key of its own",
            "What does 'mqa' mean in the name of the matrix that makes this key?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = config.kv_lora_rank + config.num_attention_heads * config.qk_rope_head_dim",
        ),
        Mistake(
            "every head has a latent of its own",
            "Look at the shape of a row in your cache. Is there an axis for heads?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = config.num_attention_heads * (config.kv_lora_rank + config.qk_rope_head_dim)",
        ),
        Mistake(
            "the latent of the queries is counted too",
            "Which queries does a later token need?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim + (config.get('q_lora_rank') or 0)",
        ),
        Mistake(
            "the heads' keys and values are counted, and not the latent",
            "What does the model need, and what does it keep?",
            "numbers = config.kv_lora_rank + config.qk_rope_head_dim",
            "numbers = config.num_attention_heads * (\n"
            "            config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim\n        )",
        ),
        Mistake(
            "keys are counted and values are not",
            "Without a latent two things are kept for each head.",
            "numbers = 2 * config.num_key_value_heads * head_dim",
            "numbers = config.num_key_value_heads * head_dim",
        ),
        Mistake(
            "query heads are counted in place of key and value heads",
            "Which heads are kept: those that ask, or those that are asked?",
            "numbers = 2 * config.num_key_value_heads * head_dim",
            "numbers = 2 * config.num_attention_heads * head_dim",
        ),
        Mistake(
            "head_dim is always worked out from the width",
            "In Qwen3 it is its own number. Does the config say one?",
            'config.get("head_dim") or config.hidden_size // config.num_attention_heads',
            "config.hidden_size // config.num_attention_heads",
        ),
        Mistake(
            "the width is divided among key and value heads",
            "The width is cut into as many pieces as there are query heads.",
            "config.hidden_size // config.num_attention_heads",
            "config.hidden_size // config.num_key_value_heads",
        ),
        Mistake(
            "one layer is counted",
            "Does each layer keep something of its own?",
            "batch * tokens * config.num_hidden_layers * numbers",
            "batch * tokens * numbers",
        ),
        Mistake(
            "the batch is left out",
            "Two texts at once: what do they share?",
            "return batch * tokens",
            "return tokens",
        ),
        Mistake(
            "a number always has two bytes",
            "How many bytes has a float32?",
            "numbers * element_bytes",
            "numbers * 2",
        ),
        Mistake(
            "numbers are counted, not bytes",
            "Units: what does the function's name promise?",
            "numbers * element_bytes",
            "numbers",
        ),
    ],
)

SPLITS: list[Case] = [
    Case("7 tokens", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}),
    Case("q_lora_rank is None, no YaRN", hidden_and_table(PLAIN, 3, 8, start=3), {"config": PLAIN}),
    Case("tiny inputs", hidden_and_table(SMALL, 2, 5, start=4, scale=1e-3), {"config": SMALL}),
    Case("through a cache: 4 tokens, then 3", hidden_and_table(SMALL, 2, 7, start=0, cuts=[4]), {"config": SMALL}),
    Case(
        "through a cache: 5 tokens, then one by one",
        hidden_and_table(PLAIN, 1, 8, start=11, cuts=[5, 6, 7]),
        {"config": PLAIN},
    ),
    Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}, torch.bfloat16),
]
IN_QUERIES: list[Mistake] = [
    Mistake(
        "the norm on the queries' latent has the config's eps",
        "Which eps has the norm in exercise 1? This one is made the same way.",
        "RMSNorm(config.q_lora_rank)",
        "RMSNorm(config.q_lora_rank, config.rms_norm_eps)",
    ),
    Mistake(
        "the queries' latent is not normed",
        "Which of the parts does your queries never call?",
        "self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))",
        "self.q_b_proj(self.q_a_proj(x))",
    ),
    Mistake(
        "the queries' turned channels are taken from the front",
        "A head's channels stand side by side. Which of the two kinds comes first?",
        "nope, rope = q.split([self.nope, self.rope], dim=-1)",
        "rope, nope = q.split([self.rope, self.nope], dim=-1)",
    ),
    Mistake(
        "the queries are not turned",
        "Keys are turned before they are kept. What is the difference between two positions made of?",
        "return torch.cat([nope, apply_rope(rope, table)], dim=-1)",
        "return torch.cat([nope, rope.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)], dim=-1)",
    ),
    Mistake(
        "no channel of the queries is turned",
        "The keys in the rows are turned, and sorted by it. Whom must their partners in the queries match?",
        "return torch.cat([nope, apply_rope(rope, table)], dim=-1)",
        "return q",
    ),
    Mistake(
        "the queries' first channels are turned, and stay in front",
        "Which of a head's channels are for RoPE: the first ones or the last ones?",
        "nope, rope = q.split([self.nope, self.rope], dim=-1)\n"
        "        return torch.cat([nope, apply_rope(rope, table)], dim=-1)",
        "rope, nope = q.split([self.rope, self.nope], dim=-1)\n"
        "        return torch.cat([apply_rope(rope, table), nope], dim=-1)",
    ),
    Mistake(
        "the queries' heads are made by a reshape that mixes them with tokens",
        "A reshape keeps the order of the numbers. Which comes first in q: the tokens or the heads?",
        "q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "q = q.reshape(x.shape[0], self.heads, x.shape[1], -1)",
    ),
    Mistake(
        "the queries' channels are cut by kind first and then by head",
        "Where do the turned channels of head 0 stand in q_b_proj's output: behind its own others, or behind all?",
        "q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "kinds = (self.nope, self.rope)\n"
        "        q = torch.cat([t.unflatten(-1, (self.heads, -1)) for t in q.split([self.heads * k for k in kinds], -1)], -1)"
        ".transpose(1, 2)",
    ),
    Mistake(
        "a head's channels are cut out as every H-th one",
        "A head owns a run of neighbouring channels. Which of the two new axes must come first?",
        "q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "q = q.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)",
    ),
]
ATTENTION = Exercise(
    name="mla.attention",
    solution="Attention",
    reference=build_attention,
    call=call_attention,
    drive=use_attention,
    uses=["mla.compress", "mla.rope", "mla.scale"],
    points=8,
    axes="B T D",
    sizes=sizes,
    cases=SPLITS,
    mistakes=[
        *IN_QUERIES,
        Mistake(
            "values come before keys in kv_b_proj's output",
            "In which order does the docstring name a head's channels?",
            "nope, v = kv.split([self.nope, self.v], dim=-1)",
            "v, nope = kv.split([self.v, self.nope], dim=-1)",
        ),
        Mistake(
            "keys and values are cut by kind first and then by head",
            "kv_b_proj gives head 0's key and value, then head 1's. Which cut comes first?",
            "kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)",
            "kinds = (self.nope, self.v)\n"
            "        kv = self.kv_b_proj(latents).split([self.heads * k for k in kinds], dim=-1)\n"
            "        kv = torch.cat([t.unflatten(-1, (self.heads, -1)) for t in kv], dim=-1).transpose(1, 2)",
        ),
        Mistake(
            "the turned key stands in front of the others",
            "In queries the turned channels come last. They must meet the turned channels of the keys.",
            "k = torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1)",
            "k = torch.cat([key[:, None].expand(-1, self.heads, -1, -1), nope], dim=-1)",
        ),
        Mistake(
            "the turned key is left out of the scores",
            "Without it, no score knows where a token stands.",
            "key[:, None].expand(-1, self.heads, -1, -1)",
            "torch.zeros_like(key[:, None]).expand(-1, self.heads, -1, -1)",
        ),
        Mistake(
            "only the turned key makes the scores",
            "A head's own key says what a token is about. Is it in your scores?",
            "torch.cat([nope, key",
            "torch.cat([torch.zeros_like(nope), key",
        ),
        Mistake(
            "the kept key is turned once more",
            "What lies in the cache: keys as they came, or turned ones? rows_so_far says.",
            "k = torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1)",
            "again = table if key.shape[1] == table.shape[1] else table[:, -1:]\n"
            "        k = torch.cat([nope, apply_rope(key[:, None], again).expand(-1, self.heads, -1, -1)], dim=-1)",
        ),
        Mistake(
            "the latents are normed a second time",
            "rows_so_far gives latents that went through compress. What did that do?",
            "self.kv_b_proj(latents)",
            "self.kv_b_proj(self.kv_a_layernorm(latents))",
        ),
        Mistake(
            "keys and values get their heads by a reshape that mixes them with rows",
            "A reshape keeps the order of the numbers. Which comes first in kv_b_proj's output: rows or heads?",
            "kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)",
            "kv = self.kv_b_proj(latents).reshape(x.shape[0], self.heads, latents.shape[1], -1)",
        ),
        Mistake(
            "the rows are cut with the key in front",
            "In which order does rows_so_far put latent and key side by side?",
            "latents, key = rows.split([self.rank, self.rope], dim=-1)",
            "key, latents = rows.split([self.rope, self.rank], dim=-1)",
        ),
        Mistake(
            "there is no mask",
            "Who may see the tokens that come later? The setup cell has a softmax that knows.",
            "causal_softmax(q @ k.mT * softmax_scale(self.config))",
            "(q @ k.mT * softmax_scale(self.config)).softmax(dim=-1)",
        ),
        Mistake(
            "the mask is lined up with the first row, and not with the last",
            "With a cache there are fewer queries than rows. `is_causal` takes the first query for the first row's.",
            "mixed = (weights @ v)",
            "mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale(self.config))",
        ),
        Mistake(
            "the scores are divided by the scale",
            "Exercise 3 made the number by which scores are multiplied.",
            "softmax_scale(self.config)",
            "(1 / softmax_scale(self.config))",
        ),
        Mistake(
            "the scores are not scaled",
            "Exercise 3 made a number for this.",
            "softmax_scale(self.config)",
            "1.0",
        ),
        Mistake(
            "the scale leaves YaRN out",
            "Exercise 3 made a number for this.",
            "softmax_scale(self.config)",
            "q.shape[-1] ** -0.5",
        ),
        Mistake(
            "the scale is made from the latent's length",
            "Scores are divided by the root of the length of a key. How long is a head's key?",
            "softmax_scale(self.config)",
            "(softmax_scale(self.config) * (q.shape[-1] / rows.shape[-1]) ** 0.5)",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "(weights @ v).transpose(1, 2).flatten(2)",
            "(weights @ v).reshape(x.shape[0], x.shape[1], -1)",
        ),
        Mistake(
            "the heads are merged channel by channel",
            "A head's channels must end up next to each other, as they were before the heads were cut out.",
            "(weights @ v).transpose(1, 2).flatten(2)",
            "(weights @ v).permute(0, 2, 3, 1).flatten(2)",
        ),
        Mistake(
            "keys and values are made from the new tokens alone",
            "How many rows does rows_so_far give, with a cache? All of them take part.",
            "nope, v = kv.split([self.nope, self.v], dim=-1)",
            "T = x.shape[1]\n        key, kv, latents = key[:, -T:], kv[:, :, -T:], latents[:, -T:]\n"
            "        nope, v = kv.split([self.nope, self.v], dim=-1)",
        ),
    ],
)

ABSORBED = Exercise(
    name="mla.absorbed",
    solution="AbsorbedAttention",
    reference=build_attention,
    call=call_attention_with_work,
    drive=use_attention_and_count,
    uses=["mla.compress", "mla.rope", "mla.scale", "mla.attention"],
    points=8,
    axes="B T D",
    sizes=sizes,
    cases=[
        Case("7 tokens", hidden_and_table(SMALL, 2, 7, start=5, counted=True), {"config": SMALL}),
        Case("q_lora_rank is None, no YaRN", hidden_and_table(PLAIN, 3, 8, start=3, counted=True), {"config": PLAIN}),
        Case("through a cache: 4, then 3", hidden_and_table(SMALL, 2, 7, 0, [4], counted=True), {"config": SMALL}),
        Case(
            "one token after 39, with little work",
            hidden_and_table(SMALL, 1, 40, start=2, cuts=[39], most=absorbed_work, counted=True),
            {"config": SMALL},
        ),
        Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5, counted=True), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "keys and values are rebuilt after all",
            "The result is right. Now write it so that nothing of kv_b_proj touches a row of the cache: only queries"
            " and what has been mixed.",
            "nope, rope = q.split([self.nope, self.rope], dim=-1)",
            "rank = self.rank\n"
            "        kv = self.kv_b_proj(rows[..., :rank]).unflatten(-1, (self.heads, -1)).transpose(1, 2)\n"
            "        nope, v = kv.split([self.nope, self.v], dim=-1)\n"
            "        k = torch.cat([nope, rows[:, None, :, rank:].expand(-1, self.heads, -1, -1)], dim=-1)\n"
            "        weights = causal_softmax(q @ k.mT * softmax_scale(self.config))\n"
            "        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))\n"
            "        nope, rope = q.split([self.nope, self.rope], dim=-1)",
        ),
        Mistake(
            "the query's own channels are carried by W_UV",
            "Which of the two matrices makes keys? In kv_b_proj's output a head's keys come first.",
            "W_UK, W_UV = per_head.split([self.nope, self.v], dim=1)",
            "W_UV, W_UK = per_head.split([self.v, self.nope], dim=1)",
        ),
        Mistake(
            "the weight is cut by kind first and then by head",
            "kv_b_proj's rows are head 0's key and value, then head 1's. Which cut comes first?",
            "per_head = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))",
            "kinds = [self.heads * self.nope, self.heads * self.v]\n"
            "        per_head = torch.cat([w.unflatten(0, (self.heads, -1)) for w in self.kv_b_proj.weight.split(kinds)], dim=1)",
        ),
        Mistake(
            "the weight is cut by channel first and then by head",
            "kv_b_proj's rows are all of head 0's, then all of head 1's. Which of the two new axes must come first?",
            "per_head = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))",
            "per_head = self.kv_b_proj.weight.unflatten(0, (-1, self.heads)).transpose(0, 1)",
        ),
        Mistake(
            "every head uses the matrices of head 0",
            "Each head carries its queries with its own rows of the weight.",
            "per_head = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))",
            "per_head = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))[:1].expand(self.heads, -1, -1)",
        ),
        Mistake(
            "the scale is made from the length of the absorbed query",
            "The score is the same number as in the expanded form. Is the scale?",
            "softmax_scale(self.config)",
            "(softmax_scale(self.config) * ((nope.shape[-1] + rope.shape[-1]) / q.shape[-1]) ** 0.5)",
        ),
        Mistake(
            "the mask takes the heads' queries for tokens",
            "How many tokens does causal_softmax think there are? It reads that from the last two axes of the scores.",
            "weights = causal_softmax(scores * softmax_scale(self.config))",
            "weights = causal_softmax(scores.flatten(1, 2) * softmax_scale(self.config)).unflatten(1, (self.heads, -1))",
        ),
        Mistake(
            "the scores' heads are cut out as if tokens came first",
            "Before you stacked them, which axis stood in front: heads or tokens?",
            "scores = (q.flatten(1, 2) @ rows.mT).unflatten(1, (self.heads, -1))",
            "scores = (q.flatten(1, 2) @ rows.mT).unflatten(1, (-1, self.heads))",
        ),
        Mistake(
            "the scale is made from the absorbed query's length, and leaves YaRN out",
            "The score is the same number as in the expanded form. Is the scale?",
            "softmax_scale(self.config)",
            "q.shape[-1] ** -0.5",
        ),
        Mistake(
            "the scale is made from the latent's length alone",
            "The score is the same number as in the expanded form. Is the scale?",
            "softmax_scale(self.config)",
            "self.rank**-0.5",
        ),
        Mistake(
            "the scale leaves YaRN out",
            "Exercise 3 made a number for this.",
            "softmax_scale(self.config)",
            "(self.nope + self.rope) ** -0.5",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "mixed.transpose(1, 2).flatten(2)",
            "mixed.reshape(x.shape[0], x.shape[1], -1)",
        ),
        Mistake(
            "the scores are not scaled",
            "Exercise 3 made a number for this.",
            "softmax_scale(self.config)",
            "1.0",
        ),
        Mistake(
            "the turned channels are left out of the scores",
            "A row has two parts, and so has a query. What became of the second?",
            "torch.cat([nope @ W_UK, rope], dim=-1)",
            "torch.cat([nope @ W_UK, torch.zeros_like(rope)], dim=-1)",
        ),
        Mistake(
            "the turned channels stand in front",
            "In which order do latent and turned key lie in a row?",
            "torch.cat([nope @ W_UK, rope], dim=-1)",
            "torch.cat([rope, nope @ W_UK], dim=-1)",
        ),
        Mistake(
            "the query's own channels are left out of the scores",
            "Position alone makes your scores. Where did the latents go?",
            "torch.cat([nope @ W_UK, rope], dim=-1)",
            "torch.cat([0 * (nope @ W_UK), rope], dim=-1)",
        ),
        Mistake(
            "the values are the last channels of a row",
            "What lies at the end of a row? Values are made from the other part.",
            "rows[..., : self.rank]",
            "rows[..., -self.rank :]",
        ),
        Mistake(
            "the turned query is turned again",
            "What does self.queries give: channels that are turned, or that must be?",
            "torch.cat([nope @ W_UK, rope], dim=-1)",
            "torch.cat([nope @ W_UK, apply_rope(rope, table)], dim=-1)",
        ),
        Mistake(
            "values are mixed with scores that were not normalised over the rows",
            "Over which axis do a query's weights sum to 1?",
            "latents = weights.flatten",
            "weights = weights / weights.sum(dim=1, keepdim=True)\n        latents = weights.flatten",
        ),
        Mistake(
            "the heads are merged channel by channel",
            "A head's channels must end up next to each other.",
            "mixed.transpose(1, 2).flatten(2)",
            "mixed.permute(0, 2, 3, 1).flatten(2)",
        ),
        Mistake(
            "the latents are mixed before the softmax",
            "Which weights mix the rows: scores, or what the softmax makes of them?",
            "causal_softmax(scores * softmax_scale(self.config))",
            "(scores * softmax_scale(self.config)).tril(rows.shape[1] - x.shape[1])",
        ),
    ],
)

MODEL = Exercise(
    name="mla.model",
    solution="Model",
    reference=build_model,
    call=call_model,
    drive=use_model,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"layers.*.self_attn": "mla.attention"},
    cases=[
        Case("7 tokens", lambda draw: [draw.tokens(53, 2, draw.size("T", 7, 6, 9))], {"config": SMALL}),
        Case("no narrow query, no YaRN", lambda draw: [draw.tokens(53, 3, 8)], {"config": PLAIN}),
        Case("through caches: 5 tokens, then 4", lambda draw: [draw.tokens(53, 2, 9), [5], 3], {"config": SMALL}),
        Case(
            "through caches: 4, then one by one, then 2",
            lambda draw: [draw.tokens(53, 1, 9), [4, 5, 6, 7], 2],
            {"config": PLAIN},
        ),
        Case(
            "how many of 3 layers use the class of attention that is given",
            lambda draw: [draw.tokens(53, 1, 2), [], 3, Config(SMALL)],
            {"config": SMALL},
        ),
    ],
    mistakes=[
        Mistake(
            "the attention that is given is not used",
            "Whoever asks for a model with AbsorbedAttention must get one. Where does your __init__ read its argument?",
            "DecoderLayer(config, attention)",
            "DecoderLayer(config, Attention)",
        ),
        Mistake(
            "positions begin at 0 in every call",
            "Where does the first of these tokens stand, when 5 were read before?",
            "start = caches[0].length if caches else 0",
            "start = 0",
        ),
        Mistake(
            "positions are one too far behind a cache",
            "Five tokens were read: positions 0 to 4. Which one is next?",
            "start = caches[0].length if caches else 0",
            "start = caches[0].length + (caches[0].length > 0) if caches else 0",
        ),
        Mistake(
            "every layer gets the table anew, after its cache has grown",
            "When does a cache's length change? Make the table before that.",
            "x = layer(x, table, caches[i] if caches else None)",
            "start = caches[-1 if i == 0 else i - 1].length if caches else 0\n"
            "            table = rope_table(torch.arange(start, start + ids.shape[1]), self.config)\n"
            "            x = layer(x, table, caches[i] if caches else None)",
        ),
        Mistake(
            "all layers share one cache",
            "Each layer keeps rows of its own.",
            "x = layer(x, table, caches[i] if caches else None)",
            "x = layer(x, table, caches[0] if caches else None)",
        ),
        Mistake(
            "the caches are not handed to the layers",
            "Who writes into the caches?",
            "x = layer(x, table, caches[i] if caches else None)",
            "x = layer(x, table)",
        ),
        Mistake(
            "every new token gets the same position",
            "Print the positions that you look up. There should be T different ones.",
            "torch.arange(start, start + ids.shape[1], device=ids.device)",
            "torch.full((ids.shape[1],), start, device=ids.device)",
        ),
        Mistake(
            "the final norm does not have the config's eps",
            "Which eps have the norms outside attention? DecoderLayer shows it.",
            "self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)",
            "self.norm = RMSNorm(config.hidden_size)",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "return self.norm(x)",
            "return x",
        ),
        Mistake(
            "the layers run in reverse order",
            "Where does the token enter: at layers.0 or at the last one?",
            "for i, layer in enumerate(self.layers):",
            "for i, layer in reversed(list(enumerate(self.layers))):",
        ),
        Mistake(
            "the embeddings are scaled by the root of D",
            "Gemma does this, DeepSeek does not.",
            "x = self.embed_tokens(ids)",
            "x = self.embed_tokens(ids) * self.config.hidden_size**0.5",
        ),
    ],
)

GENERATE = Exercise(
    name="mla.generate",
    solution="generate",
    reference=reference_written,
    function=True,
    drive=use_generate,
    points=4,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8)),
        Case("one new token", generation_args(prompt=3, new_tokens=1)),
        Case("stops at the first of two end tokens", generation_args(prompt=5, new_tokens=8, stop_at=3)),
        Case("stops at the last of two end tokens", generation_args(prompt=6, new_tokens=8, stop_at=2, last=True)),
        Case(
            "how many tokens the model reads at first, and how many at most later",
            generation_args(prompt=5, new_tokens=7, look="pieces"),
        ),
        Case(
            "how many tokens find no room in the caches, and how much of it nobody needs",
            generation_args(prompt=6, new_tokens=7, look="room"),
        ),
    ],
    mistakes=[
        Mistake(
            "the logits of the first position are used",
            "Row t of the logits predicts the token after position t. Which row predicts a new one?",
            "[:, -1].argmax",
            "[:, 0].argmax",
        ),
        Mistake(
            "the whole text is put into the caches again at every step",
            "What is in the caches already? Give the model only what is not.",
            "ids = model(ids, caches)[:, -1].argmax(dim=-1, keepdim=True)  # [1, T] -> [1, 1]\n"
            "        token = ids.item()",
            "next_id = model(ids, caches)[:, -1].argmax(dim=-1, keepdim=True)\n"
            "        ids = torch.cat([ids, next_id], dim=1)\n        token = next_id.item()",
        ),
        Mistake(
            "the prompt is read token by token",
            "How many tokens can the model read in one call? The prompt is all there from the start.",
            "    for _ in range(max_new_tokens):\n",
            "    for i in range(ids.shape[1] - 1):\n"
            "        model(ids[:, i : i + 1], caches)\n"
            "    ids = ids[:, -1:]\n"
            "    for _ in range(max_new_tokens):\n",
        ),
        Mistake(
            "only the prompt's last token is read",
            "What does the model know of the rest of the prompt?",
            "    for _ in range(max_new_tokens):\n",
            "    ids = ids[:, -1:]\n    for _ in range(max_new_tokens):\n",
        ),
        Mistake(
            "there is room for the new tokens only",
            "The prompt goes into the caches, too.",
            "model.caches(1, ids.shape[1] + max_new_tokens)",
            "model.caches(1, max_new_tokens)",
        ),
        Mistake(
            "there is room for the prompt only",
            "Every token that is written is also read, but the last. Do they all fit?",
            "model.caches(1, ids.shape[1] + max_new_tokens)",
            "model.caches(1, ids.shape[1])",
        ),
        Mistake(
            "there is room for a text of any length",
            "Whoever writes 7 tokens after 5 needs how many places? Each of them is paid for.",
            "model.caches(1, ids.shape[1] + max_new_tokens)",
            "model.caches(1, 100_000)",
        ),
        Mistake(
            "the cache is not used at all",
            "The text is right. Count how many tokens the model reads for each new one.",
            "ids = model(ids, caches)[:, -1].argmax(dim=-1, keepdim=True)  # [1, T] -> [1, 1]\n"
            "        token = ids.item()",
            "next_id = model(ids)[:, -1].argmax(dim=-1, keepdim=True)\n"
            "        ids = torch.cat([ids, next_id], dim=1)\n        token = next_id.item()",
        ),
        Mistake(
            "the caches are emptied at every step",
            "Where do you make the caches: before the loop, or in it?",
            "for _ in range(max_new_tokens):\n",
            "for _ in range(max_new_tokens):\n        caches = model.caches(1, ids.shape[1] + max_new_tokens)\n",
        ),
        Mistake(
            "the least likely token is taken",
            "Greedy decoding takes the token with which logit?",
            "argmax(",
            "argmin(",
        ),
        Mistake(
            "the end token does not end it",
            "What should happen once the new token is one of end_tokens?",
            "token in end_tokens",
            "False",
        ),
        Mistake(
            "one token too few is generated",
            "Count the tokens for max_new_tokens = 1.",
            "in range(max_new_tokens)",
            "in range(max_new_tokens - 1)",
        ),
        Mistake(
            "only the first end token ends it",
            "A chat model has several tokens that end a turn. Which of them does yours look for?",
            "token in end_tokens",
            "token in list(end_tokens)[:1]",
        ),
        Mistake(
            "the end token is not given out",
            "The docstring says whether the end token belongs to the result. In which order do you stop and yield?",
            "yield token",
            "if token in end_tokens: return\n        yield token",
        ),
        Mistake(
            "one token too many is generated",
            "Count the tokens for max_new_tokens = 1.",
            "for _ in range(max_new_tokens):",
            "for _ in range(max_new_tokens + 1):",
        ),
    ],
)

EXERCISES = [COMPRESS, ROPE, SCALE, CACHE, BYTES, ATTENTION, ABSORBED, MODEL, GENERATE]
