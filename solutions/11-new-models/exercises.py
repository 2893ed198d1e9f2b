"""What the exercises of 11-new-models are checked against: transformers' SmolLM3, OLMo 3, gpt-oss and Gemma 4."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from grader.authoring.kit import ROUNDED_ONCE, Case, Config, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.configs import fields_of

from . import drives
from .reference import (
    build_experts,
    build_gemma_attention,
    build_olmo,
    build_olmo_attention,
    build_sinks,
    build_smol,
    call_gemma,
    call_gemma_all,
    call_gemma_kv,
    call_sinks,
    call_windowed,
    proportional_table,
    right_bytes,
    right_source,
    sink_weights,
    yarn_table,
)

TRACE = "new_models.olmo"
CONFIGS = Path(__file__).parent / "configs"

# No two sizes are equal, so that none can stand in for another; head_dim is not D / heads but where the config has none.
SMOL: dict[str, Any] = {
    "model_type": "smollm3",
    "hidden_act": "silu",
    "vocab_size": 43,
    "hidden_size": 24,
    "intermediate_size": 14,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "no_rope_layers": [1, 1, 1, 0, 1],
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-3,
    "rope_theta": 700.0,
    "tie_word_embeddings": True,
}
SMOL_2 = SMOL | {
    "vocab_size": 37,
    "hidden_size": 30,
    "intermediate_size": 18,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "no_rope_layers": [0, 1, 0, 1],
    "max_position_embeddings": 300,
    "rms_norm_eps": 1e-2,
    "rope_theta": 90.0,
}
SMOL_3 = {k: v for k, v in SMOL.items() if k != "no_rope_layers"} | {
    "vocab_size": 31,
    "hidden_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_theta": 3000.0,
}
# As transformers 5 writes it.
SMOL_5 = {k: v for k, v in SMOL_3.items() if k != "rope_theta"} | {
    "num_hidden_layers": 2,
    "no_rope_layers": [1, 0],
    "rope_parameters": {"rope_type": "default", "rope_theta": 40.0},
}
OLMO: dict[str, Any] = {
    "model_type": "olmo3",
    "hidden_act": "silu",
    "vocab_size": 41,
    "hidden_size": 24,
    "intermediate_size": 14,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 5,
    "max_position_embeddings": 320,
    "rms_norm_eps": 1e-3,
    "rope_theta": 70.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 40,
        "beta_fast": 3.0,
        "beta_slow": 1.0,
    },
    "tie_word_embeddings": False,
}
OLMO_2 = OLMO | {
    "vocab_size": 35,
    "hidden_size": 30,
    "intermediate_size": 18,
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "sliding_window": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-2,
    "rope_theta": 300.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 6.0,
        "beta_slow": 0.5,
        "attention_factor": 1.5,
    },
}
OLMO_3 = {k: v for k, v in OLMO.items() if k != "rope_scaling"} | {
    "vocab_size": 29,
    "hidden_size": 20,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rope_theta": 30.0,
    "sliding_window": 3,
}
OSS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}
OSS_2 = OSS | {"hidden_size": 30, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8}
OSS_3 = OSS | {"hidden_size": 20, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6}
EXPERTS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 12,
    "intermediate_size": 7,
    "num_local_experts": 5,
    "swiglu_limit": 1.2,
    "swiglu_alpha": 1.4,
}
EXPERTS_2 = EXPERTS | {
    "hidden_size": 9,
    "intermediate_size": 11,
    "num_local_experts": 6,
    "swiglu_limit": 0.7,
    "swiglu_alpha": 2.1,
}
PUBLISHED = {k: v for k, v in EXPERTS_2.items() if not k.startswith("swiglu")} | {"num_local_experts": 4}
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA: dict[str, Any] = {
    "model_type": "gemma4_text",
    "hidden_size": 24,
    "num_hidden_layers": 6,
    "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING, FULL],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 6,
    "global_head_dim": 10,
    "attention_k_eq_v": True,
    "num_kv_shared_layers": 2,
    "sliding_window": 4,
    "rms_norm_eps": 1e-2,
    "hidden_size_per_layer_input": 0,
}
GEMMA_2 = GEMMA | {
    "hidden_size": 20,
    "num_hidden_layers": 5,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "num_global_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 12,
    "attention_k_eq_v": False,
    "num_kv_shared_layers": 1,
    "sliding_window": 3,
    "rms_norm_eps": 3e-2,
}
GEMMA_3 = {k: v for k, v in GEMMA_2.items() if k != "num_kv_shared_layers"} | {
    "num_key_value_heads": 2,
    "num_global_key_value_heads": None,
    "attention_k_eq_v": True,
    "global_head_dim": 14,
    "sliding_window": 5,
}
learners_name = hf.without(*hf.NO_MODULES)
sizes = configs.sizes("hidden_size", "num_attention_heads", "num_key_value_heads")
FIXED = {"argument 2, axis 0": "cosines and sines"}


def width_of(config: Mapping[str, Any]) -> int:
    """The width of a head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def model_case(name: str, config: Mapping[str, Any], batch: int, length: int, **more: Any) -> Case:
    """A case of a model: ids [batch, T]."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [draw.tokens(config["vocab_size"], batch, length)]

    return Case(name, draw_args, {"config": dict(config)}, **more)


def without(config: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in fields}


NOPE = Exercise(
    name="new_models.nope",
    solution="SmolModel",
    reference=build_smol,
    call=hf.hidden_states,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    cases=[
        model_case("5 layers, of which layer 3 does not rotate", SMOL, 2, 9),
        model_case("layers 0 and 2 do not rotate, and the interval is 4", SMOL_2 | {"no_rope_layer_interval": 4}, 3, 7),
        model_case("rope_theta stands in rope_parameters", SMOL_5, 1, 5),
        model_case("no layer rotates", SMOL_3 | {"num_hidden_layers": 2, "no_rope_layers": [0, 0]}, 1, 5),
        model_case("no list: the interval is 3", SMOL_3 | {"no_rope_layer_interval": 3}, 1, 8),
        model_case("neither a list nor an interval, 7 layers", SMOL_3 | {"num_hidden_layers": 7}, 2, 6),
    ],
)


# OLMo 3


ATTENTION_READ = ("model_type", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps")


def attention_case(
    name: str, config: Mapping[str, Any], batch: int, length: int, window: int | None, scale: float = 1.0, **more: Any
) -> Case:
    """A case of attention: x [batch, T, D], the table of T positions, and a window. longer: by how much the window is
    longer than the text."""
    start, longer = more.pop("start", 3), more.pop("longer", None)

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = draw.size("T", length, length + 1, length + 2)
        first = draw.size("start", start, start + 1, start + 5)
        positions = torch.arange(first, first + T)
        scaling = {"factor": 2.0, "original_max_position_embeddings": 16, "beta_fast": 2.0}
        table = yarn_table(positions, width_of(config), 50.0, scaling)
        x = draw.normal(batch, T, config["hidden_size"], scale=scale)
        seen = window if longer is None else T + longer
        return [x, table] if seen is None else [x, table, seen]

    return Case(name, draw_args, {"config": fields_of(config, *ATTENTION_READ)}, **more)


OLMO_ATTENTION = Exercise(
    name="new_models.olmo_attention",
    solution="OlmoAttention",
    reference=build_olmo_attention,
    call=call_windowed,
    points=5,
    fixed=FIXED,
    axes="B T D",
    sizes=sizes,
    cases=[
        attention_case("4 heads, 2 for keys and values", OLMO, 2, 7, None),
        attention_case("a head_dim of its own, a window of 3", OLMO_2 | {"head_dim": 8}, 3, 8, 3),
        attention_case("inputs as large as the root of eps, a window of 5", OLMO, 1, 9, 5, scale=0.03, start=6),
        attention_case("a window of 1", OLMO, 1, 4, 1),
        attention_case("a window as long as the text", OLMO_2, 1, 4, None, longer=0),
        attention_case("bfloat16", OLMO_2, 2, 6, None, dtype=torch.bfloat16),
    ],
)


def yarn_case(
    name: str, positions: Sequence[int], head_dim: int, theta: float, scaling: dict[str, Any], **more: Any
) -> Case:
    """A case of YaRN's table; positions are shifted in a hidden recording."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        shift = draw.number("shift", 0, 1, 40)
        given = scaling | {"factor": float(draw.number("factor", int(scaling["factor"]), 2, 12))}
        return [torch.tensor(positions) + shift, head_dim, theta, given]

    return Case(name, draw_args, **more)


def scaled(factor: float, length: int, **more: Any) -> dict[str, Any]:
    return {"factor": factor, "original_max_position_embeddings": length, **more}


YARN = Exercise(
    name="new_models.yarn",
    solution="yarn_table",
    reference=yarn_table,
    function=True,
    differentiable=False,
    points=6,
    axes="cos/sin T head_dim",
    without={
        "head_dim one": "a head_dim has two halves",
    },
    cases=[
        yarn_case("positions 5 to 11", range(5, 12), 20, 70.0, scaled(8.0, 40, beta_fast=3.0, beta_slow=1.0)),
        yarn_case("edges that are not rounded", range(3, 9), 24, 300.0, scaled(4.0, 90, beta_fast=5.0, truncate=False)),
        yarn_case("no betas", [9, 40, 3], 32, 1e4, scaled(32.0, 4096, truncate=False)),
        yarn_case("the first edge below 0", range(4, 12), 16, 5e3, scaled(6.0, 60, beta_slow=0.25)),
        yarn_case(
            "an attention_factor, the last edge beyond the head",
            [2, 7],
            12,
            10.0,
            scaled(3.0, 100_000, beta_fast=6000.0, beta_slow=2.0, attention_factor=0.7, truncate=True),
        ),
        yarn_case("one position", [6], 28, 2e3, scaled(5.0, 200, beta_fast=12.0, beta_slow=1.5, truncate=False)),
        yarn_case(
            "positions from 1,031 to 9,001",
            [1031, 3001, 9001],
            36,
            3e4,
            scaled(16.0, 512, beta_fast=20.0),
            tolerance=Tolerance(5e-3),
        ),
    ],
)

OLMO_MODEL = Exercise(
    name="new_models.olmo",
    solution="OlmoModel",
    reference=build_olmo,
    call=hf.hidden_states,
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"layers.*.self_attn": "new_models.olmo_attention"},
    uses=["new_models.yarn"],
    cases=[
        model_case("three sliding layers, then a full one", OLMO, 2, 14),
        model_case("full, sliding, full, a head_dim of its own", OLMO_2 | {"head_dim": 8}, 1, 11),
        model_case("no rope_scaling", OLMO_3, 2, 9),
    ],
)


# gpt-oss


LOUD = 30.0  # e^88 is the last power of e that float32 holds

SINK_ATTENTION = Exercise(
    name="new_models.sink_attention",
    solution="SinkAttention",
    reference=build_sinks,
    call=call_sinks,
    weights=sink_weights,
    points=6,
    fixed=FIXED,
    axes="B T D",
    sizes=sizes,
    cases=[
        attention_case("4 heads of 10, 2 for keys and values", OSS, 2, 7, None),
        attention_case("a window of 3", OSS_2, 3, 8, 3),
        attention_case("tiny inputs, a window of 5", OSS, 1, 6, 5, scale=1e-3, start=6),
        attention_case("scores above 100", OSS_3, 1, 5, None, scale=LOUD),
        attention_case("bfloat16", OSS_3, 2, 6, None, dtype=torch.bfloat16),
    ],
)


def experts_case(name: str, config: Mapping[str, Any], rows: int, chosen: int, scale: float = 1.0, **more: Any) -> Case:
    """A case of experts: x [N, D], chosen and weights [N, k]. No row chooses expert 2."""
    dtype = more.get("dtype", torch.float32)

    def draw_args(draw: Draw) -> Sequence[Any]:
        N, E = draw.size("N", rows, rows + 1, rows + 3), config["num_local_experts"]
        order = torch.rand(N, E, generator=draw.generator)
        order[:, 2] = 2.0
        picked = order.argsort(dim=-1)[:, :chosen]
        weights = draw.normal(N, chosen).softmax(dim=-1)
        return [draw.normal(N, config["hidden_size"], scale=scale), picked, weights.to(dtype)]

    return Case(name, draw_args, {"config": dict(config)}, **more)


EXPERTS_EXERCISE = Exercise(
    name="new_models.experts",
    solution="Experts",
    reference=build_experts,
    gradients_of=(0, 2),
    points=6,
    axes="N D",
    sizes=configs.sizes("hidden_size", "intermediate_size", "num_local_experts"),
    cases=[
        experts_case("5 experts, 2 chosen", EXPERTS, 9, 2),
        experts_case("6 experts, 3 chosen", EXPERTS_2, 8, 3),
        experts_case("limit and alpha as published, large inputs", PUBLISHED, 7, 2, scale=6.0),
        experts_case("small inputs, one chosen", EXPERTS, 6, 1, scale=0.1),
        experts_case("bfloat16", EXPERTS_2, 5, 2, dtype=torch.bfloat16),
    ],
)


# Gemma 4


def proportional_case(
    name: str, positions: Sequence[int], head_dim: int, theta: float, share: float, **more: Any
) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        shift = draw.number("shift", 0, 1, 40)
        return [torch.tensor(positions) + shift, head_dim, theta, share]

    return Case(name, draw_args, **more)


PROPORTIONAL = Exercise(
    name="new_models.proportional",
    solution="proportional_table",
    reference=proportional_table,
    function=True,
    differentiable=False,
    points=3,
    axes="cos/sin T head_dim",
    without={
        "head_dim one": "a head_dim has two halves",
    },
    cases=[
        proportional_case("a quarter of 16 pairs", range(5, 12), 32, 700.0, 0.25),
        proportional_case("half of 7 pairs: 3", [3, 40, 17], 14, 90.0, 0.5),
        proportional_case("all of 5 pairs", [9], 10, 3e3, 1.0),
        proportional_case("positions from 257 to 9,001", [257, 1031, 9001], 24, 2e4, 0.6, tolerance=Tolerance(5e-3)),
    ],
)

GEMMA_READ = (
    *("model_type", "hidden_size", "num_hidden_layers", "layer_types", "num_attention_heads", "num_key_value_heads"),
    *("num_global_key_value_heads", "head_dim", "global_head_dim", "attention_k_eq_v", "num_kv_shared_layers"),
    *("sliding_window", "rms_norm_eps"),
)


def gemma_sizes(config: Mapping[str, Any], kind: str) -> tuple[int, int]:
    """The width of a head, and how many heads of keys, in a layer of this kind."""
    if kind == SLIDING:
        return config["head_dim"], config["num_key_value_heads"]
    fewer = config.get("num_global_key_value_heads") if config["attention_k_eq_v"] else None
    return config["global_head_dim"], fewer or config["num_key_value_heads"]


def gemma_case(name: str, config: Mapping[str, Any], layer: int, batch: int, length: int, **more: Any) -> Case:
    """A case of Gemma 4's attention: x [batch, T, D], a table, and keys and values for a layer that shares them."""
    scale, start = more.pop("scale", 1.0), more.pop("start", 4)
    kind, dtype = config["layer_types"][layer], more.get("dtype", torch.float32)
    width, kv_heads = gemma_sizes(config, kind)
    shares = layer >= config["num_hidden_layers"] - config.get("num_kv_shared_layers", 0)

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = draw.size("T", length, length + 1, length + 2)
        first = draw.size("start", start, start + 1, start + 5)
        table = proportional_table(torch.arange(first, first + T), width, 60.0, 0.5)
        kv = [draw.normal(batch, kv_heads, T, width).to(dtype) for _ in range(2)] if shares else []
        return [draw.normal(batch, T, config["hidden_size"], scale=scale), table, *kv]

    return Case(name, draw_args, {"config": fields_of(config, *GEMMA_READ), "layer": layer}, **more)


def gemma_keys_in_bfloat16(name: str, config: Mapping[str, Any], layer: int, batch: int, length: int) -> Case:
    """A case of keys that only their norm rounds: one channel of each token is a power of 2, and the position is 0."""
    width, D = gemma_sizes(config, config["layer_types"][layer])[0], config["hidden_size"]

    def draw_args(draw: Draw) -> Sequence[Any]:
        T = draw.size("T", length, length + 1, length + 2)
        channel = torch.randint(D, (batch, T, 1), generator=draw.generator)
        size = 2.0 ** torch.randint(-1, 3, (batch, T, 1), generator=draw.generator)
        x = torch.zeros(batch, T, D).scatter(-1, channel, size).to(torch.bfloat16)
        return [x, proportional_table(torch.zeros(T, dtype=torch.int64), width, 60.0, 0.5)]

    build = {"config": fields_of(config, *GEMMA_READ), "layer": layer}
    return Case(name, draw_args, build, torch.bfloat16, ROUNDED_ONCE, **READ)


READ: dict[str, Any] = {"drive": drives.read, "right": call_gemma_kv}
HANDED = {"drive": drives.handed_on, "right": call_gemma_all}
GEMMA_ATTENTION = Exercise(
    name="new_models.gemma_attention",
    solution="GemmaAttention",
    reference=build_gemma_attention,
    call=call_gemma,
    drive=drives.attended,
    gradients_of=(0, 2, 3),
    points=9,
    fixed=FIXED,
    axes="B T D",
    sizes=configs.sizes("hidden_size", "num_attention_heads", "head_dim", "global_head_dim"),
    cases=[
        gemma_case("a sliding layer", GEMMA, 2, 2, 7),
        gemma_case("a full layer with k = v and one head of keys", GEMMA, 1, 1, 6),
        gemma_case("a full layer with v_proj, 70 tokens", GEMMA_2, 2, 1, 70, start=7),
        gemma_case("k = v with as many heads of keys as sliding layers have", GEMMA_3, 4, 1, 7),
        gemma_case("a sliding layer that reads another's keys and values", GEMMA, 4, 2, 9),
        gemma_case("a full layer that reads another's keys and values", GEMMA_2, 4, 3, 5),
        gemma_case("keys and values of a full layer with k = v, tiny inputs", GEMMA, 3, 1, 4, scale=0.05, **READ),
        gemma_case("keys and values of a sliding layer", GEMMA_3, 1, 2, 5, **READ),
        gemma_case("the output, and what a layer that shares hands on", GEMMA_2, 4, 1, 5, **HANDED),
        gemma_case("bfloat16", GEMMA, 1, 2, 6, dtype=torch.bfloat16),
        gemma_keys_in_bfloat16("keys and values in bfloat16, at position 0", GEMMA, 1, 3, 8),
    ],
)


def source_case(name: str, kinds: Sequence[str], shared: int | None, most: int = 0, told: bool = True) -> Case:
    """A case of whose keys are read; in a hidden recording up to `most` layers share, or the round comes more often.

    told: whether the config has the list of kinds.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        found = list(kinds) if shared else list(kinds) * draw.number("rounds", 1, 2, 4)
        fields = {"model_type": "gemma4_text", "num_hidden_layers": len(found), "layer_types": found}
        if not told:
            del fields["layer_types"]
        if shared:
            fields["num_kv_shared_layers"] = draw.number("shared", shared, 1, max(most, shared))
        return [Config(fields)]

    return Case(name, draw_args)


def published(name: str, *fields: str) -> dict[str, Any]:
    config = Config.read(CONFIGS / f"{name}.json")
    return fields_of(config, *fields) if fields else dict(config)


def rounds(sliding: int, times: int) -> list[str]:
    """So many sliding layers, then a full one, so many times."""
    return [*[SLIDING] * sliding, FULL] * times


KV_SOURCE = Exercise(
    name="new_models.kv_source",
    solution="kv_source",
    reference=right_source,
    function=True,
    without={"OtherValues": "twice as many layers that share may be more than there are"},
    differentiable=False,
    points=3,
    cases=[
        source_case("E2B: 20 of 35 layers share", rounds(4, 7), 20, most=24),
        source_case("2 of 6 layers share", [SLIDING, FULL, FULL, SLIDING, SLIDING, FULL], 2, most=3),
        source_case("3 of 8 layers share", [FULL, SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, FULL], 3, most=5),
        source_case("3 of 12 layers share, and there is no list of layers", rounds(5, 2), 3, most=6, told=False),
        source_case("no layer shares", rounds(2, 2), None),
    ],
)

BYTES_READ = (
    *("model_type", "num_hidden_layers", "layer_types", "num_attention_heads", "num_key_value_heads", "hidden_size"),
    *("head_dim", "global_head_dim", "num_global_key_value_heads", "attention_k_eq_v", "num_kv_shared_layers"),
    *("sliding_window", "use_sliding_window", "max_position_embeddings"),
)


def bytes_case(name: str, config: Mapping[str, Any], tokens: int, *element_bytes: int, most: int = 0) -> Case:
    """A case of the bytes; in a hidden recording there are other numbers of tokens, up to `most` or twice as many."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        low, high = tokens + 1, most or 2 * tokens
        return [Config(fields_of(config, *BYTES_READ)), draw.number("tokens", tokens, low, high), *element_bytes]

    return Case(name, draw_args)


SLIDING_SMOL = {
    "layer_types": rounds(2, 12),
    "sliding_window": 512,
    "use_sliding_window": True,
}
CACHE_BYTES = Exercise(
    name="new_models.cache_bytes",
    solution="cache_bytes",
    reference=right_bytes,
    function=True,
    differentiable=False,
    points=6,
    uses=["new_models.kv_source"],
    cases=[
        bytes_case("Gemma 4 E2B, 100 tokens", published("gemma-4-e2b"), 100, most=500),
        bytes_case("Gemma 4 E2B, beyond its window", published("gemma-4-e2b"), 5000),
        bytes_case("Gemma 4 31B, in 8 bits", published("gemma-4-31b"), 3000, 1),
        bytes_case("a small Gemma 4", GEMMA_2, 11),
        bytes_case("OLMo 3 7B", published("olmo-3-7b"), 10_000),
        bytes_case("gpt-oss 20B, in float32", published("gpt-oss-20b"), 1000, 4),
        bytes_case("SmolLM3 3B", published("smollm3-3b") | {"sliding_window": None}, 700),
        bytes_case("gpt-oss 20B, beyond its max_position_embeddings", published("gpt-oss-20b"), 140_000),
        bytes_case(
            "OLMo 3 with other layers that slide", published("olmo-3-7b") | {"layer_types": rounds(1, 16)}, 6000
        ),
        bytes_case("a SmolLM3 with layers that slide", published("smollm3-3b") | SLIDING_SMOL, 800),
        bytes_case("a small Gemma 4 with k = v whose layers share, a long text", GEMMA, 9_000_003),
        bytes_case("a small Gemma 4 with k = v, num_global_key_value_heads is null", GEMMA_3, 13),
    ],
)

EXERCISES: list[Exercise] = with_mistakes(
    __file__,
    [
        NOPE,
        OLMO_ATTENTION,
        YARN,
        OLMO_MODEL,
        SINK_ATTENTION,
        EXPERTS_EXERCISE,
        PROPORTIONAL,
        GEMMA_ATTENTION,
        KV_SOURCE,
        CACHE_BYTES,
    ],
)
