"""What the exercises of 10-linear-attention are checked against: transformers' Qwen3.5, without its kernels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5RMSNormGated

from grader.authoring.kit import BY_DTYPE, Case, Config, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of

from . import drives
from .reference import (
    build_attention,
    build_conv,
    build_model,
    build_net,
    call_attention,
    call_conv,
    call_net,
    call_net_states,
    right_chunks,
    right_gates,
    right_kimi,
    right_mamba,
    right_memory,
    right_recall,
    right_rule,
    rope_table,
    slow_decay,
    state_in_float32,
)

TRACE = "linear_attention.model"

# No two sizes are equal, so that none can stand in for another.
SMALL: dict[str, Any] = {
    "model_type": "qwen3_5_text",
    "hidden_act": "silu",
    "vocab_size": 43,
    "hidden_size": 16,
    "intermediate_size": 19,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 5,
    "linear_value_head_dim": 7,
    "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.25},
    "tie_word_embeddings": True,
}
OTHER: dict[str, Any] = SMALL | {
    "vocab_size": 39,
    "hidden_size": 18,
    "intermediate_size": 22,
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "linear_attention", "full_attention"],
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 12,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 3,
    "linear_conv_kernel_dim": 3,
    "max_position_embeddings": 300,
    "rms_norm_eps": 5e-2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 90.0, "partial_rotary_factor": 0.5},
}
NARROW: dict[str, Any] = SMALL | {
    "vocab_size": 31,
    "hidden_size": 14,
    "intermediate_size": 17,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 1,
    "linear_value_head_dim": 6,
    "linear_conv_kernel_dim": 2,
    "max_position_embeddings": 280,
    "rms_norm_eps": 2e-2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0, "partial_rotary_factor": 0.5},
}
CONFIGS = Path(__file__).parent / "configs"

NET = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
NET_READ = ("hidden_size", "rms_norm_eps", "linear_conv_kernel_dim", *NET)
ATTENDED = ("hidden_size", "rms_norm_eps", "num_attention_heads", "num_key_value_heads", "head_dim")
sizes = configs.sizes("hidden_size", "head_dim", *NET)


def pieces(chunks: list[int], more: int) -> list[int]:
    """The chunks, the last of them longer by `more`."""
    return [*chunks[:-1], chunks[-1] + more] if chunks else []


# The convolution, gates and the norm


def conv_case(name: str, channels: int, kernel: int, batch: int, chunks: list[int], **more: Any) -> Case:
    """A case of the convolution: x [batch, T, channels], which comes in chunks."""
    scale = more.pop("scale", 1.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        cut = pieces(chunks, draw.size("more", 0, 1, 2))
        return [draw.normal(draw.size("B", batch, batch + 1), sum(cut), channels, scale=scale), cut, kernel]

    return Case(name, draw_args, {"channels": channels, "kernel": kernel}, **more)


TWICE = {"drive": drives.conv_twice_from_a_state}
NO_VIEW = {"drive": drives.conv_bytes_too_many, "right": lambda module, *args: torch.tensor(0)}
CONV = Exercise(
    name="linear_attention.conv",
    solution="ShortConv",
    reference=build_conv,
    call=call_conv,
    drive=drives.conv_in_pieces,
    points=6,
    axes="B T+state channel",
    sizes=lambda build: dict(build),
    cases=[
        conv_case("7 tokens at once", 6, 4, 2, [7]),
        conv_case("in pieces of 3, 0, 1, 1 and 4 tokens", 5, 4, 3, [3, 0, 1, 1, 4]),
        conv_case("2 tokens, fewer than the state has", 4, 5, 2, [2]),
        conv_case("a kernel of 1, which needs no state", 3, 1, 2, [2, 3]),
        conv_case("another piece from the same state first", 7, 3, 1, [2, 4, 1], **TWICE),
        conv_case("bytes behind the state beyond its own", 8, 2, 1, [40, 9], **NO_VIEW),
        conv_case("70 tokens with large numbers", 2, 6, 1, [70], scale=50.0),
        conv_case("bfloat16", 6, 4, 2, [5, 2], dtype=torch.bfloat16),
    ],
)


def gates_case(name: str, batch: int, length: int, heads: int, shift: float = 0.0, **more: Any) -> Case:
    """A case of the gates: a around `shift`, b, A_log and dt_bias."""
    kind, spread = more.get("dtype", torch.float32), more.pop("spread", 1.0)
    weights = more.pop("all_in", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        shape = (batch, draw.size("T", length, length + 1, length + 3), heads)
        a, b = shift + draw.normal(*shape), draw.normal(*shape, scale=2.0)
        fixed = draw.normal(heads, scale=spread), draw.normal(heads)
        return [a.to(kind), b.to(kind), *(weight.to(weights) for weight in fixed)]

    return Case(name, draw_args, **more)


GATES = Exercise(
    name="linear_attention.gates",
    solution="gates",
    reference=right_gates,
    function=True,
    drive=drives.both_gates,
    gradients_of=(0, 1, 2, 3),
    points=4,
    axes="g/beta B T H",
    cases=[
        gates_case("5 tokens, 3 heads", 2, 5, 3),
        gates_case("a around 100", 1, 4, 2, shift=100.0),
        gates_case("a around -20, and large A", 3, 3, 4, shift=-20.0, spread=2.0),
        gates_case("bfloat16", 2, 6, 5, dtype=torch.bfloat16, tolerance=Tolerance(4e-3)),
        gates_case(
            "g, from weights and inputs in bfloat16",
            1,
            2,
            6,
            dtype=torch.bfloat16,
            all_in=torch.bfloat16,
            tolerance=Tolerance(1e-4),
            drive=drives.g_alone,
            right=lambda *args: right_gates(*args)[0],
        ),
    ],
)


def norm_case(name: str, dim: int, eps: float, *shape: int, scale: float = 1.0, **more: Any) -> Case:
    """A case of the norm: x and gate, both [*shape, dim]."""
    dtype = more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        whole = (*shape[:-1], draw.size("H", shape[-1], shape[-1] + 1), dim)
        return [draw.normal(*whole, scale=scale), draw.normal(*whole, scale=2.0).to(dtype)]

    return Case(name, draw_args, {"dim": dim, "eps": eps}, **more)


NORM = Exercise(
    name="linear_attention.norm",
    solution="GatedRMSNorm",
    reference=lambda dim, eps: Qwen3_5RMSNormGated(dim, eps),
    gradients_of=(0, 1),
    points=3,
    axes="B T H dim",
    sizes=lambda build: {"dim": build["dim"]},
    cases=[
        norm_case("4 tokens of 3 heads", 8, 1e-6, 2, 4, 3),
        norm_case("inputs as large as the root of eps", 6, 1e-2, 1, 5, 2, scale=0.1),
        norm_case("tiny inputs", 9, 1e-5, 3, 2, 4, scale=1e-3),
        norm_case("bfloat16, numbers in the hundreds", 7, 1e-4, 2, 3, 5, scale=300.0, dtype=torch.bfloat16),
    ],
)


# The delta rule


def drawn_parts(draw: Draw, shape: Sequence[int], kind: str) -> list[Tensor]:
    """q, k [B, T, H, d_k], v [B, T, H, d_v], g and beta [B, T, H]. shape: B, T, H, d_k, d_v.

    kind: "" for random keys; "alike" for keys that are nearly the same, of which nearly all is written; "loud" for
    decays between e^-60 and 1; "tiny" for queries and keys as large as the eps of their norm.
    """
    B, T, H, d_k, d_v = shape
    q, k, v = (draw.normal(B, T, H, width) for width in (d_k, d_k, d_v))
    g, beta = -(draw.normal(B, T, H) - 2).exp(), draw.normal(B, T, H).sigmoid()
    if kind == "alike":
        k, g = draw.normal(B, 1, H, d_k) + 0.02 * k, 0.01 * g
        beta = 1 - 0.1 * beta
    if kind == "loud":
        g = torch.where(draw.normal(B, T, H) > 0.4, -30 - 30 * torch.rand(B, T, H, generator=draw.generator), 0.01 * g)
    if kind == "tiny":
        q, k = 1e-3 * q, 1e-3 * k
    return [q, k, v, g, beta]


def rule_case(name: str, shape: Sequence[int], chunks: list[int], kind: str = "", size: int = 0, **more: Any) -> Case:
    """A case of a delta rule. shape: B, T, H, d_k, d_v. given: whether there is a state before; size: of the chunks."""
    given, dtype = more.pop("given", False), more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        B, T, H, d_k, d_v = draw.size("B", shape[0], shape[0] + 1), *shape[1:]
        parts = drawn_parts(draw, (B, T + longer, H, d_k, d_v), kind)
        state = [draw.normal(B, H, d_k, d_v)] if given else []
        q, k, v, beta = (parts[i].to(dtype) for i in (0, 1, 2, 4))
        text = [q, k, v, parts[3], beta]  # g is in float32, as the gates give it
        return [*text, pieces(chunks, longer), *([size] if size else []), *state]

    return Case(name, draw_args, **more)


IN_16 = {"dtype": torch.bfloat16, "tolerance": Tolerance(6e-3)}


def state_from_16(drive: Any, right: Any) -> dict[str, Any]:
    """What makes a case that compares the last state alone, which is computed in float32 from inputs in bfloat16."""
    compared = {"drive": drive, "right": state_in_float32(right), "tolerance": Tolerance(1e-4)}
    return {"dtype": torch.bfloat16, "given": True} | compared


STATE = "the state and its dtype, from bfloat16"
RECURRENT = Exercise(
    name="linear_attention.recurrent",
    solution="recurrent_delta_rule",
    reference=right_rule,
    function=True,
    drive=drives.delta_in_pieces,
    gradients_of=(0, 1, 2, 3, 4),
    points=9,
    axes="B T+states H value",
    cases=[
        rule_case("7 tokens from nothing", (2, 7, 3, 5, 4), []),
        rule_case("from a state, which stays as it is", (1, 6, 2, 4, 5), [], given=True),
        rule_case("in pieces of 3, 0, 1 and 4 tokens", (3, 8, 2, 3, 6), [3, 0, 1, 4]),
        rule_case("nearly equal keys", (2, 12, 1, 6, 3), [], "alike"),
        rule_case("decays down to e^-60", (1, 10, 4, 3, 2), [4, 6], "loud"),
        rule_case("queries and keys as small as eps", (2, 5, 2, 7, 3), [], "tiny"),
        rule_case("keys of one channel", (2, 5, 5, 1, 2), [2, 3], given=True),
        rule_case("bfloat16", (1, 9, 3, 4, 3), [], given=True, **IN_16),
        rule_case(STATE, (1, 6, 6, 2, 3), [2, 1, 3], **state_from_16(drives.delta_state, right_rule)),
    ],
)

NO_STATES = {"drive": drives.states_too_many, "right": lambda *args: [0]}
NO_MATRIX = {"drive": drives.numbers_too_many, "right": lambda *args: [0]}
CHUNKED = Exercise(
    name="linear_attention.chunked",
    solution="chunked_delta_rule",
    reference=right_chunks,
    function=True,
    drive=drives.delta_in_chunks,
    gradients_of=(0, 1, 2, 3, 4),
    points=11,
    axes="B T+states H value",
    uses=["linear_attention.recurrent"],
    cases=[
        rule_case("8 tokens in chunks of 4", (2, 8, 3, 5, 4), [], size=4),
        rule_case("from a state, 11 tokens in chunks of 3", (1, 11, 2, 4, 5), [], size=3, given=True),
        rule_case("in pieces of 5, 0, 1 and 9 tokens, chunks of 4", (2, 15, 1, 3, 6), [5, 0, 1, 9], size=4),
        rule_case("130 tokens, chunks of 64", (1, 130, 1, 4, 1), [], size=64),
        rule_case("63 tokens, then 65", (1, 128, 1, 2, 1), [63, 65], size=64, given=True),
        rule_case("64 nearly equal keys in a chunk", (1, 64, 1, 4, 1), [], "alike", size=64),
        rule_case("128 nearly equal keys in a chunk", (1, 150, 1, 3, 1), [], "alike", size=128),
        rule_case("decays down to e^-60", (1, 40, 4, 3, 2), [], "loud", size=5, given=True),
        rule_case("keys of one channel, chunks of 7", (2, 12, 5, 1, 2), [], size=7),
        rule_case("results of the size of a state beyond 10 a chunk", (1, 60, 1, 11, 13), [], size=10, **NO_STATES),
        rule_case(
            "numbers of the largest result beyond what 4 tokens need", (1, 128, 1, 3, 2), [], size=4, **NO_MATRIX
        ),
        rule_case("bfloat16", (1, 20, 3, 4, 3), [], size=8, given=True, **IN_16),
        rule_case(STATE, (2, 9, 2, 3, 4), [5, 4], size=3, **state_from_16(drives.delta_state_in_chunks, right_chunks)),
    ],
)


def recall_case(name: str, dim: int, pairs: int, rule: str, count: int, close: float) -> Case:
    """A case of what is recalled. close: how near the mean of so many states is to what is expected."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [
            draw.number("dim", dim, dim - 3, dim + 3),
            draw.number("pairs", pairs, pairs - 3, pairs + 3),
            rule,
            count,
        ]

    return Case(name, draw_args, tolerance=Tolerance(close))


RECALL = Exercise(
    name="linear_attention.recall",
    solution="recall_error",
    reference=right_recall,
    function=True,
    differentiable=False,
    points=5,
    cases=[
        recall_case("the sum, 8 pairs in 16 x 16", 16, 8, "sum", 3000, 0.03),
        recall_case("the sum, 30 pairs in 10 x 10", 10, 30, "sum", 600, 0.03),
        recall_case("the delta rule, 12 pairs in 20 x 20", 20, 12, "delta", 900, 0.03),
        recall_case("the delta rule, 40 pairs in 12 x 12", 12, 40, "delta", 500, 0.03),
    ],
)


# The layers and the model


def net_case(name: str, config: dict[str, Any], batch: int, chunks: list[int], length: int = 0, **more: Any) -> Case:
    """A case of the layer: x [batch, T, D] in chunks. padded: for each row how many tokens of it are padding."""
    scale, padded, draft = more.pop("scale", 1.0), more.pop("padded", None), more.pop("draft", 0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        T = (sum(chunks) or length) + longer
        args: list[Any] = [draw.normal(batch, T, config["hidden_size"], scale=scale), pieces(chunks, longer)]
        if padded:
            args.append(torch.arange(T) >= torch.tensor(padded)[:, None])
        if draft:
            args += [None, draw.normal(batch, draft, config["hidden_size"])]
        return args

    return Case(name, draw_args, {"config": fields_of(config, *NET_READ)}, **more)


STATES = {"drive": drives.net_states, "right": call_net_states}
DRAFT = {"drive": drives.net_after_a_draft, "draft": 3}
NO_MORE = {"drive": drives.net_bytes_too_many, "right": lambda module, *args: torch.tensor(0)}
DELTA_NET = Exercise(
    name="linear_attention.delta_net",
    solution="GatedDeltaNet",
    reference=build_net,
    call=call_net,
    weights=slow_decay,
    drive=drives.net_in_pieces,
    points=10,
    axes="B T D",
    sizes=sizes,
    uses=[
        "linear_attention.conv",
        "linear_attention.gates",
        "linear_attention.recurrent",
        "linear_attention.chunked",
        "linear_attention.norm",
    ],
    cases=[
        net_case("9 tokens, 6 value heads for 2 key heads", SMALL, 2, [], 9),
        net_case("as many key heads as value heads", OTHER, 1, [], 7),
        net_case("tiny inputs", NARROW, 2, [], 6, scale=1e-2),
        net_case("in pieces of 5, 1, 2, 1 and 3 tokens", SMALL, 1, [5, 1, 2, 1, 3]),
        net_case("70 tokens, then one by one", NARROW, 1, [70, 1, 1]),
        net_case("texts that are padded on their left", OTHER, 3, [], 8, padded=[3, 0, 6]),
        net_case("padding that reaches into a second piece of one token", SMALL, 2, [4, 1, 4], padded=[0, 5]),
        net_case("both states, and their dtypes", OTHER, 2, [6, 1, 3], **STATES),
        net_case("a rejected draft after every piece", NARROW, 1, [4, 1, 2], **DRAFT),
        net_case("bytes behind the states beyond their own", OTHER, 1, [30, 5], **NO_MORE),
        net_case(
            "both states and their dtypes, from bfloat16",
            NARROW,
            2,
            [5, 1, 1],
            dtype=torch.bfloat16,
            tolerance=BY_DTYPE[torch.bfloat16],
            **STATES,
        ),
        net_case("bfloat16", SMALL, 1, [6, 1], dtype=torch.bfloat16),
    ],
)


def attention_case(
    name: str, config: dict[str, Any], batch: int, length: int, start: int, chunks: Any = (), **more: Any
) -> Case:
    """A case of attention: x [batch, T, D], the table of T positions from `start` on, and the pieces."""
    scale = more.pop("scale", 1.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer, first = draw.size("more", 0, 1, 2), draw.size("start", start, start + 2, start + 9)
        x = draw.normal(batch, length + longer, config["hidden_size"], scale=scale)
        table = rope_table(torch.arange(first, first + length + longer), config)
        return [x, table, pieces(list(chunks), longer)]

    return Case(name, draw_args, {"config": fields_of(config, *ATTENDED)}, **more)


ATTENTION = Exercise(
    name="linear_attention.attention",
    solution="GatedAttention",
    reference=build_attention,
    call=call_attention,
    weights=slow_decay,
    drive=drives.attention_in_pieces,
    points=6,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B T D",
    sizes=sizes,
    cases=[
        attention_case("7 tokens, a quarter of the channels rotated", SMALL, 2, 7, 5),
        attention_case("half of the channels rotated", OTHER, 1, 6, 3),
        attention_case("tiny inputs", NARROW, 2, 5, 4, scale=1e-2),
        attention_case("through a cache: 5 tokens, then 3 and 1", SMALL, 1, 9, 0, [5, 3, 1]),
        attention_case("through a cache: one by one", NARROW, 3, 5, 11, [1, 1, 1, 2]),
        attention_case("bfloat16", OTHER, 1, 8, 2, dtype=torch.bfloat16),
    ],
)


def model_case(name: str, config: dict[str, Any], batch: int, chunks: list[int], length: int = 0, **more: Any) -> Case:
    """A case of the model: ids [batch, T] in chunks."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = sum(chunks) or length
        return [draw.tokens(config["vocab_size"], batch, T), *([chunks] if chunks else [])]

    return Case(name, draw_args, {"config": config}, **more)


ENDS_LINEAR = OTHER | {"vocab_size": 37, "layer_types": ["full_attention", "linear_attention", "linear_attention"]}
TINY = NARROW | {"vocab_size": 13, "hidden_size": 10, "intermediate_size": 5}
TWO_FULL_LAYERS = TINY | {"layer_types": ["full_attention", "full_attention"]}
NO_FULL_LAYER = NARROW | {"vocab_size": 27, "layer_types": ["linear_attention", "linear_attention"]}


def right_caches(module: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """For a linear layer how many numbers its states have, for a full one minus the length."""
    c, found = module.config, []
    for kind in c.layer_types:
        keys, values = (
            c.linear_num_key_heads * c.linear_key_head_dim,
            c.linear_num_value_heads * c.linear_value_head_dim,
        )
        state = values * c.linear_key_head_dim + (c.linear_conv_kernel_dim - 1) * (2 * keys + values)
        found.append(len(ids) * state if kind == "linear_attention" else -ids.shape[1])
    return torch.tensor(found)


MODEL = Exercise(
    name="linear_attention.model",
    solution="Model",
    reference=build_model,
    call=hf.hidden_states,
    weights=slow_decay,
    drive=drives.model_in_pieces,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=hf.without(*hf.NO_MODULES, endings=("linear_attn.norm", "linear_attn.conv1d")),
    uses=["linear_attention.delta_net", "linear_attention.attention"],
    cases=[
        model_case("three linear layers, then a full one", SMALL, 2, [], 9, draw="2"),
        model_case("a full layer first", OTHER, 1, [], 7),
        model_case("through caches: 6 tokens, then 3 and 1", SMALL | {"vocab_size": 33}, 1, [6, 3, 1]),
        model_case("through caches: two linear layers behind a full one, one by one", ENDS_LINEAR, 1, [1, 1, 1, 2]),
        model_case("through caches: two full layers", TWO_FULL_LAYERS, 1, [4, 3]),
        model_case("more tokens than max_position_embeddings", TINY | {"max_position_embeddings": 6}, 1, [], 9),
        model_case("through caches: no full layer", NO_FULL_LAYER, 1, [3, 1, 2]),
        model_case("two texts in turns, with caches of their own", NARROW, 2, [4, 1, 3], drive=drives.model_in_turns),
        model_case(
            "what is kept: numbers of states, lengths",
            NARROW | {"vocab_size": 29},
            1,
            [5, 2],
            drive=drives.caches_made,
            right=right_caches,
        ),
    ],
)


# Bytes


MEMORY = (*NET, "linear_conv_kernel_dim", "num_hidden_layers", "layer_types", "full_attention_interval")
MEMORY_READ = (*MEMORY, "num_key_value_heads", "head_dim", "hidden_size", "num_attention_heads")


def memory_case(name: str, config: Mapping[str, Any], *element_bytes: int) -> Case:
    """A case of the bytes. Key heads are other numbers in a hidden recording."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        fields = {field: config[field] for field in MEMORY_READ if config.get(field) is not None}
        return [Config(draw.changed(fields, linear_value_head_dim=(2, 160))), *element_bytes]

    return Case(name, draw_args)


def real(name: str) -> Config:
    return Config.read(CONFIGS / f"{name}.json")


BYTES = Exercise(
    name="linear_attention.bytes",
    solution="memory",
    reference=right_memory,
    function=True,
    points=4,
    axes="fixed/token/length",
    cases=[
        memory_case("Qwen3.5 27B", real("qwen3.5-27b")),
        memory_case("Qwen3-Next 80B-A3B, in float32", real("qwen3-next-80b-a3b"), 4),
        memory_case("a small one, in 8 bits", SMALL, 1),
        memory_case(
            "no list of layers, no head_dim",
            {
                **OTHER,
                "layer_types": None,
                "head_dim": None,
                **{"full_attention_interval": 3, "num_hidden_layers": 11, "hidden_size": 24, "num_attention_heads": 4},
            },
        ),
    ],
)


# Two cousins


def mamba_case(name: str, shape: Sequence[int], groups: int, chunks: list[int], **more: Any) -> Case:
    """A case of Mamba-2. shape: B, T, H, d_k, d_v."""
    given, dtype, shift = more.pop("given", False), more.get("dtype", torch.float32), more.pop("shift", 0.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        B, T, H, d_k, d_v = draw.size("B", shape[0], shape[0] + 1), shape[1] + longer, *shape[2:]
        parts = [draw.normal(B, T, groups, d_k) for _ in range(2)]
        parts += [draw.normal(B, T, H, d_v), shift + draw.normal(B, T, H)]
        fixed = [draw.normal(H) - 1.5, draw.normal(H), draw.normal(H)]
        state = [draw.normal(B, H, d_k, d_v)] if given else []
        return [*(part.to(dtype) for part in parts), *fixed, pieces(chunks, longer), *state]

    return Case(name, draw_args, **more)


MAMBA = Exercise(
    name="linear_attention.mamba2",
    solution="mamba2",
    reference=right_mamba,
    function=True,
    drive=drives.mamba_in_pieces,
    gradients_of=(0, 1, 2, 3, 4, 5, 6),
    points=5,
    axes="B T+states H value",
    cases=[
        mamba_case("7 tokens, 6 heads in 2 groups", (2, 7, 6, 5, 4), 2, []),
        mamba_case("from a state, 4 heads in one group", (1, 5, 4, 3, 2), 1, [], given=True),
        mamba_case("in pieces of 4, 0, 1 and 2 tokens", (1, 7, 3, 4, 5), 3, [4, 0, 1, 2]),
        mamba_case("dt around 100", (1, 4, 2, 2, 3), 2, [], shift=100.0, given=True),
        mamba_case("bfloat16", (2, 5, 8, 3, 2), 4, [], given=True, **IN_16),
        mamba_case(STATE, (1, 6, 2, 4, 3), 1, [2, 1, 3], **state_from_16(drives.mamba_state, right_mamba)),
    ],
)


def kimi_case(name: str, shape: Sequence[int], chunks: list[int], **more: Any) -> Case:
    """A case of Kimi's delta rule. shape: B, T, H, d_k, d_v."""
    given, dtype, shift = more.pop("given", False), more.get("dtype", torch.float32), more.pop("shift", 0.0)
    scale = more.pop("scale", 1.0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        longer = draw.size("more", 0, 1, 2)
        B, T, H, d_k, d_v = draw.size("B", shape[0], shape[0] + 1), shape[1] + longer, *shape[2:]
        parts = [scale * draw.normal(B, T, H, d_k) for _ in range(2)]
        parts += [draw.normal(B, T, H, d_v), shift + draw.normal(B, T, H, d_k), draw.normal(B, T, H)]
        fixed = [draw.normal(H) - 1.5, draw.normal(H, d_k)]
        state = [draw.normal(B, H, d_k, d_v)] if given else []
        return [*(part.to(dtype) for part in parts), *fixed, pieces(chunks, longer), *state]

    return Case(name, draw_args, **more)


KIMI = Exercise(
    name="linear_attention.kda",
    solution="kimi_delta_rule",
    reference=right_kimi,
    function=True,
    drive=drives.kimi_in_pieces,
    gradients_of=(0, 1, 2, 3, 4, 5, 6),
    points=5,
    axes="B T+states H value",
    uses=["linear_attention.recurrent"],
    cases=[
        kimi_case("7 tokens from nothing", (2, 7, 3, 5, 4), []),
        kimi_case("from a state, which stays as it is", (1, 6, 2, 4, 5), [], given=True),
        kimi_case("in pieces of 4, 0, 1 and 2 tokens", (1, 7, 5, 3, 6), [4, 0, 1, 2]),
        kimi_case("f around 100", (1, 4, 4, 2, 3), [], shift=100.0, given=True),
        kimi_case("queries and keys as small as eps", (2, 5, 6, 6, 2), [], scale=1e-3),
        kimi_case("bfloat16", (2, 6, 1, 8, 7), [], given=True, **IN_16),
        kimi_case(STATE, (1, 6, 2, 4, 3), [2, 1, 3], **state_from_16(drives.kimi_state, right_kimi)),
    ],
)

EXERCISES: list[Exercise] = with_mistakes(
    __file__,
    [CONV, GATES, RECURRENT, RECALL, CHUNKED, NORM, DELTA_NET, ATTENTION, MODEL, BYTES, MAMBA, KIMI],
)
