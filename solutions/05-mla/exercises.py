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

from grader.config import Config
from grader.authoring.mistakes import with_mistakes
from grader.exercise import Case, Draw, Exercise
from grader.kv import bytes_at
from grader.toy import ToyLM, random_toy_lm
from grader.toy_reference import reference_generate

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
)

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
)

EXERCISES = with_mistakes(__file__, [COMPRESS, ROPE, SCALE, CACHE, BYTES, ATTENTION, ABSORBED, MODEL, GENERATE])
