"""What each layer of a model is, from whatever field its family has for that."""

from collections.abc import Callable, Sequence
from typing import Any

from grader.atlas.fields import Fact, Fields
from grader.atlas.traits import Traits
from grader.errors import GraderError

MOST_LAYERS = 4096

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
OLDER = {
    "mamba": LINEAR,
    "attention": FULL,
    "deepseek_sparse_attention": "indexed_attention",
    "hybrid": FULL,
    "global": FULL,
    "local": SLIDING,
}
NEMOTRON = {"M": LINEAR, "*": FULL, "E": "moe", "-": "mlp"}
KINDS = (
    *(FULL, SLIDING, "chunked_attention", "indexed_attention", LINEAR, "conv"),
    *("moe", "mlp", "compressed_sparse_attention", "heavily_compressed_attention"),
)


def layer_kinds(f: Fields, traits: Traits) -> tuple[list[str], str]:
    """For each layer one of KINDS, and the field that says so. Raises GraderError where a list is too short."""
    if f.kind in OWN_LENGTHS and (found := OWN_LENGTHS[f.kind](f)):
        return found
    told, listed = f.fact("layer_types", "layers_block_type"), _listed(f, 0)
    if listed and (f.kind in OWN_LENGTHS or f.peek("num_hidden_layers") is None):
        count = len(listed)
    else:
        count = f.needed("num_hidden_layers", "num_layers")
    if traits.double and f.mine("num_hidden_layers"):  # which counts attentions, and `num_layers` layers
        count //= 2
    if not 0 < count <= MOST_LAYERS:
        raise GraderError(f"this config has {count:,} layers; is `num_hidden_layers` right?")
    if listed := _listed(f, count):
        kinds = [OLDER.get(str(kind), str(kind)) for kind in listed[:count]]
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise GraderError(f"`{told.source}` has a layer of kind {unknown[0]!r}, which is not known here.")
        return kinds, told.source
    return _from_rule(f, count)


def _listed(f: Fields, count: int) -> list[Any] | None:
    return f.listed("layer_types", count) or f.listed("layers_block_type", count)


def _from_rule(f: Fields, count: int) -> tuple[list[str], str]:
    if f.kind in OWN_RULES:
        return OWN_RULES[f.kind](f, count)
    window = f.fact("sliding_window")
    if f.has("use_sliding_window") or f.get("use_sliding_window") is not None:
        if not f.get("use_sliding_window"):
            return [FULL] * count, f.fact("use_sliding_window").source
        first = f.number("max_window_layers")
        return [FULL if i < first else SLIDING for i in range(count)], "max_window_layers"
    if not window.value:
        return [FULL] * count, f.code
    return [SLIDING] * count, window.source


def _every(interval: int, count: int, other: str) -> list[str]:
    """Every interval-th layer full; 0: none."""
    return [FULL if interval and (i + 1) % interval == 0 else other for i in range(count)]


Rule = Callable[[Fields, int], tuple[list[str], str]]


def _interval(names: Sequence[str], default: int, other: str) -> Rule:
    """A rule: every n-th layer is full, n being one of these fields or the class's constant."""

    def rule(f: Fields, count: int) -> tuple[list[str], str]:
        fact: Fact = f.fact(*names) if names else Fact(None, "")
        if fact.value is None:
            return _every(default, count, other), f.code
        return _every(f.needed(*names), count, other), fact.source

    return rule


def _exaone(f: Fields, count: int) -> tuple[list[str], str]:
    fact = f.fact("sliding_window_pattern")
    if not f.get("sliding_window"):
        return [FULL] * count, "sliding_window"
    if isinstance(fact.value, str):  # "LLLG", and the last layer sees everything
        types = [FULL if fact.value[i % len(fact.value)] == "G" else SLIDING for i in range(count)]
        return [*types[:-1], FULL], fact.source
    return _every(f.needed("sliding_window_pattern"), count, SLIDING), fact.source


def _llama4(f: Fields, count: int) -> tuple[list[str], str]:
    rotated = f.listed("no_rope_layers", count) or None
    interval = f.needed("no_rope_layer_interval")
    chunked = f.get("attention_chunk_size") is not None
    turns = [bool(x) for x in rotated] if rotated else [(i + 1) % interval != 0 for i in range(count)]
    kinds = ["chunked_attention" if turn and chunked else FULL for turn in turns[:count]]
    return kinds, "no_rope_layers" if rotated else f.fact("no_rope_layer_interval").source


def _only(kind: str) -> Rule:
    return lambda f, count: ([kind] * count, f.code)


def _gemma4(f: Fields, count: int) -> tuple[list[str], str]:
    kinds = _every(6, count, SLIDING)
    return [*kinds[:-1], FULL], f.code


def _lfm2(f: Fields, count: int) -> tuple[list[str], str]:
    full = f.get("full_attn_idxs")
    full = range(count) if full is None else full
    return [FULL if i in full else "conv" for i in range(count)], f.fact("full_attn_idxs").source


def _lfm3(f: Fields, count: int) -> tuple[list[str], str]:
    kinds = ("conv", "conv", FULL, "conv")
    return [SLIDING if i and i % 4 == 0 else kinds[i % 4] for i in range(count)], f.code


def _jamba(f: Fields, count: int) -> tuple[list[str], str]:
    period, offset = f.needed("attn_layer_period"), f.number("attn_layer_offset")
    kinds = [FULL if i % period == offset else LINEAR for i in range(count)]
    return kinds, "attn_layer_period, attn_layer_offset"


def _bamba(f: Fields, count: int) -> tuple[list[str], str]:
    full = f.get("attn_layer_indices") or []
    return [FULL if i in full else LINEAR for i in range(count)], "attn_layer_indices"


def _mimo(f: Fields, count: int) -> tuple[list[str], str]:
    pattern = f.listed("hybrid_layer_pattern", count)
    if pattern:
        return [SLIDING if flag else FULL for flag in pattern[:count]], "hybrid_layer_pattern"
    return [FULL if i == 0 or (i + 1) % 6 == 0 else SLIDING for i in range(count)], f.code


def _minimax(f: Fields, count: int) -> tuple[list[str], str]:
    types = f.listed("attn_type_list", count)
    if types:
        return [FULL if kind else LINEAR for kind in types[:count]], "attn_type_list"
    return [FULL if (i + 1) % 2 else LINEAR for i in range(count)], f.code


# The kinds of DeepSeek-V4's layers by the tokens that share an entry, as its files list them.
RATIOS = {0: SLIDING, 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}


def _deepseek_v4(f: Fields, count: int) -> tuple[list[str], str]:
    ratios = f.get("compress_ratios")
    if not ratios:
        return [RATIOS[4 if i > 2 and i % 2 else 128] for i in range(count)], f.code
    if not isinstance(ratios, Sequence) or isinstance(ratios, str) or len(ratios) < count:
        raise GraderError(f"`compress_ratios` is {ratios!r}, and should be a list with one of 0, 4 and 128 a layer.")
    if strange := [ratio for ratio in ratios[:count] if ratio not in RATIOS]:
        raise GraderError(f"`compress_ratios` has {strange[0]!r}, which is none of 0, 4 and 128.")
    return [RATIOS[ratio] for ratio in ratios[:count]], "compress_ratios"


def _kimi_linear(f: Fields, count: int) -> tuple[list[str], str]:
    linear = f.get("linear_attn_config")
    if isinstance(linear, dict) and linear.get("full_attn_layers"):  # counted from 1
        full = set(linear["full_attn_layers"])
        kinds = [FULL if i + 1 in full else LINEAR for i in range(count)]
        return kinds, "linear_attn_config.full_attn_layers"
    return [FULL if i and i % 4 == 0 else LINEAR for i in range(count)], f.code


def _gpt_neo(f: Fields, count: int) -> tuple[list[str], str]:
    types = f.get("attention_types") or [[["global", "local"], count // 2]]
    if strange := [kind for kinds, _ in types for kind in kinds if kind not in ("global", "local")]:
        raise GraderError(f"`attention_types` has {strange[0]!r}, which is neither global nor local.")
    expanded = [OLDER[kind] for kinds, times in types for _ in range(min(times, count)) for kind in kinds]
    if len(expanded) < count:
        raise GraderError(f"`attention_types` speaks of {len(expanded)} layers, and the model has {count}.")
    return expanded, "attention_types"


def _lara_mini(f: Fields, count: int) -> tuple[list[str], str]:
    pattern = (LINEAR, SLIDING, LINEAR, FULL, SLIDING)
    return [pattern[i % len(pattern)] for i in range(count)], f.code


def _flint(f: Fields, count: int) -> tuple[list[str], str]:
    return [FULL if i < 2 or i % 4 == 1 or i == count - 1 else SLIDING for i in range(count)], f.code


def _first_of_four(f: Fields, count: int) -> tuple[list[str], str]:
    return [FULL if i % 4 == 0 else SLIDING for i in range(count)], f.code


def _qwen2_moe(f: Fields, count: int) -> tuple[list[str], str]:
    slides = f.number("max_window_layers") if f.get("use_sliding_window") else 0
    kinds = [SLIDING if (i + 1) % 2 and i < slides else FULL for i in range(count)]
    return kinds, f.fact("use_sliding_window").source


OWN_RULES: dict[str, Rule] = {
    "gemma2": _interval([], 2, SLIDING),
    "vaultgemma": _interval([], 2, SLIDING),
    "gemma3_text": _interval(["sliding_window_pattern", "_sliding_window_pattern"], 6, SLIDING),
    "gemma3n_text": _interval([], 5, SLIDING),
    "gemma4_text": _gemma4,
    "gpt_oss": _interval([], 2, SLIDING),
    "olmo3": _interval([], 4, SLIDING),
    "cohere2": _interval(["sliding_window_pattern"], 4, SLIDING),
    "cwm": _first_of_four,
    "granite_swa": _first_of_four,
    "granitemoe_swa": _first_of_four,
    "kolibri1": _interval([], 5, SLIDING),
    "lara_mini": _lara_mini,
    "flint": _flint,
    "afmoe": _interval(["global_attn_every_n_layers"], 4, SLIDING),
    "exaone4": _exaone,
    "exaone_moe": _exaone,
    "llama4_text": _llama4,
    "qwen3_next": _interval(["full_attention_interval"], 4, LINEAR),
    "qwen3_5_text": _interval(["full_attention_interval"], 4, LINEAR),
    "qwen3_5_moe_text": _interval(["full_attention_interval"], 4, LINEAR),
    "olmo_hybrid": _interval([], 4, LINEAR),
    "kimi_linear": _kimi_linear,
    "bailing_hybrid": _interval(["layer_group_size"], 6, LINEAR),
    "minimax": _minimax,
    "mimo_v2_flash": _mimo,
    "laguna": _only(FULL),
    "mellum": _only(FULL),
    "deepseek_v32": _only("indexed_attention"),
    "glm_moe_dsa": _only("indexed_attention"),
    "deepseek_v4": _deepseek_v4,
    "jamba": _jamba,
    "bamba": _bamba,
    "falcon_h1": _only(FULL),
    "granitemoehybrid": _only(LINEAR),
    "mamba": _only(LINEAR),
    "mamba2": _only(LINEAR),
    "falcon_mamba": _only(LINEAR),
    "lfm2": _lfm2,
    "lfm3": _lfm3,
    "gpt_neo": _gpt_neo,
    "dots1": lambda f, n: (
        [SLIDING if f.get("sliding_window") and i >= f.number("max_window_layers") else FULL for i in range(n)],
        "sliding_window, max_window_layers",
    ),
    "minimax_m2": lambda f, n: _minimax(f, n) if f.get("attn_type_list") else ([FULL] * n, f.code),
    "qwen3_moe": lambda f, n: (
        [SLIDING if f.get("use_sliding_window") and f.get("sliding_window") else FULL] * n,
        f.fact("use_sliding_window").source,
    ),
    "qwen2_moe": _qwen2_moe,
}


def _nemotron(f: Fields) -> tuple[list[str], str] | None:
    pattern = f.get("hybrid_override_pattern")
    if pattern is not None:
        if strange := set(str(pattern)) - set(NEMOTRON):
            raise GraderError(f"`hybrid_override_pattern` has {sorted(strange)[0]!r}, which is none of M, *, E and -.")
        return [NEMOTRON[letter] for letter in str(pattern)], "hybrid_override_pattern"
    if isinstance(f.get("layer_types", "layers_block_type"), list):
        return None
    return [LINEAR, "moe", FULL, "mlp"], f.code


# Families whose list of layers says how many there are; None where the list is one for each layer, as others have it.
OWN_LENGTHS: dict[str, Callable[[Fields], tuple[list[str], str] | None]] = {"nemotron_h": _nemotron}


def sparse_layers(f: Fields, traits: Traits, count: int) -> tuple[list[bool], str]:
    """Of a family with experts: which layers have them, and the field that says so."""
    types = f.fact("mlp_layer_types")
    if types.value is not None:
        listed = f.listed("mlp_layer_types", count) or []
        return [kind != "dense" for kind in listed], types.source
    if f.kind in OWN_SPARSE:
        return OWN_SPARSE[f.kind](f, count)
    freq = f.mine("moe_layer_freq")
    if isinstance(freq, list):
        return [bool(flag) for flag in (f.listed("moe_layer_freq", count) or [])], "moe_layer_freq"
    if f.get("decoder_sparse_step") is not None:
        step, dense = f.needed("decoder_sparse_step"), f.get("mlp_only_layers") or []
        return [i not in dense and (i + 1) % step == 0 for i in range(count)], "decoder_sparse_step, mlp_only_layers"
    first = f.fact("first_k_dense_replace", "num_dense_layers")
    if first.value is None:
        return [i >= traits.first_dense for i in range(count)], f.code
    return [i >= first.value for i in range(count)], first.source


def _llama4_sparse(f: Fields, count: int) -> tuple[list[bool], str]:
    moe, step = f.get("moe_layers"), f.needed("interleave_moe_layer_step")
    chosen = moe if moe is not None else range(step - 1, count, step)
    return [i in chosen for i in range(count)], "moe_layers" if moe else f.fact("interleave_moe_layer_step").source


def _jamba_sparse(f: Fields, count: int) -> tuple[list[bool], str]:
    period, offset = f.needed("expert_layer_period"), f.number("expert_layer_offset")
    sparse = [i % period == offset and f.number("num_experts") > 1 for i in range(count)]
    return sparse, "expert_layer_period, expert_layer_offset"


def _ernie_sparse(f: Fields, count: int) -> tuple[list[bool], str]:
    start, interval = f.number("moe_layer_start_index"), f.needed("moe_layer_interval")
    end = count - 1 if f.get("moe_layer_end_index") in (-1, None) else f.number("moe_layer_end_index")
    sparse = [(i + 1) % interval == 0 and start <= i <= end for i in range(count)]
    return sparse, "moe_layer_start_index, moe_layer_end_index, moe_layer_interval"


def _flint_sparse(f: Fields, count: int) -> tuple[list[bool], str]:
    dense, step = f.get("mlp_only_layers"), f.needed("decoder_sparse_step")
    dense = [0, 1] if dense is None else dense
    return [i not in dense and (i + 1) % step == 0 for i in range(count)], "decoder_sparse_step, mlp_only_layers"


OWN_SPARSE: dict[str, Callable[[Fields, int], tuple[list[bool], str]]] = {
    "llama4_text": _llama4_sparse,
    "jamba": _jamba_sparse,
    "ernie4_5_moe": _ernie_sparse,
    "flint": _flint_sparse,
}
