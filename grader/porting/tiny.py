"""A small version of a real model: narrow, and cut to its first layers, with everything kept that tells programs apart.

What a config.json spells out, a program reads from it, so it may be changed to a more telling value; what the file
leaves to be derived stays as it is derived. Widths are chosen so that no two of them are equal.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grader.lessons.exercise import Draw, random_weights

BATCH, TOKENS = 2, 14
MIN_LAYERS, MAX_LAYERS = 3, 16
SMALL_ROWS, SMALL = 4, 1e-3  # every fourth token's embedding is a thousandth as large, so that a norm's eps shows
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WINDOW, VOCAB, POSITIONS, TRAINED_POSITIONS = 64, 4, 2, 24, 5, 97, 32, 8
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
OTHER_TOKEN = 3  # what any other special token becomes; drawn tokens lie above

NAMES = {
    "hidden": "hidden_size d_model n_embd embedding_size embedding_dim word_embed_proj_dim attention_hidden_size",
    "heads": "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads"
    " encoder_attention_heads swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads",
    "kv_heads": "num_key_value_heads num_kv_heads swa_num_key_value_heads kv_n_heads num_query_groups",
    "head_dim": "head_dim kv_channels d_head dim_head attention_head_size attention_head_dim swa_head_dim d_kv",
    "window": "sliding_window sliding_window_size window_size attention_chunk_size attention_window_size"
    " keep_window_size local_attention_window_len",
    "layers": "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers"
    " num_encoder_layers num_blocks",
    "positions": "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length seq_length",
    "vocab": "vocab_size vocab_size_per_layer_input unpadded_vocab_size encoder_hash_byte_group_vocab",
    "experts": "num_experts n_routed_experts num_local_experts moe_num_experts",
    "chosen": "num_experts_per_tok num_experts_per_token moe_top_k moe_topk moe_k top_k_experts experts_per_token",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}

# What else makes a model large, and its small value. A smaller original is left alone.
SIZES = {
    **{"intermediate_size": 80, "ffn_dim": 80, "decoder_ffn_dim": 80, "encoder_ffn_dim": 80, "n_inner": 80},
    **{"dim_ff": 80, "dff": 80, "d_inner": 80, "ffn_hidden_size": 80, "feed_forward_size": 80, "emb_dim": HIDDEN},
    **{"intermediate_size_mlp": 88, "dense_intermediate_size": 88, "moe_intermediate_size": 24},
    **{"expert_ffn_hidden_size": 24, "shared_expert_intermediate_size": 40, "shared_intermediate_size": 40},
    **{"moe_shared_expert_intermediate_size": 40, "shared_experts_intermediate_size": 40},
    **{"q_lora_rank": 20, "kv_lora_rank": 12, "o_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4},
    **{"qk_head_dim": 12, "v_head_dim": 10, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    **{"n_group": 4, "topk_group": 2, "num_expert_group": 4, "num_limited_groups": 2, "global_head_dim": 28},
    **{"num_global_key_value_heads": 1, "query_pre_attn_scalar": 20, "rotary_dim": 8, "hidden_size_per_layer_input": 6},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_num_heads": 4, "linear_head_dim": 8, "mamba_d_state": 8, "ssm_state_size": 8, "state_size": 8},
    **{"mamba_n_heads": 8, "n_mamba_heads": 8, "mamba_num_heads": 8, "mamba_d_head": 16, "mamba_head_dim": 16},
    **{"mamba_headdim": 16, "mamba_d_ssm": 2 * HIDDEN, "mamba_n_groups": 2, "n_groups": 2, "mamba_chunk_size": 8},
    **{"chunk_size": 8, "mamba_dt_rank": 4, "time_step_rank": 4, "laurel_rank": 6, "lru_width": HIDDEN},
    **{"original_max_position_embeddings": TRAINED_POSITIONS, "floor_scale": 4, "log_scaling_n_floor": 4},
    **{"local_attention": 2 * WINDOW, "index_block_size": 4, "index_topk_blocks": 2},
}
LIMITS = {"swiglu_limit": 1.0, "clip_qkv": 1.0}  # at a model's own limits, values of a small one never arrive
COUNTS_POSITIONS = "llama_4_scaling_beta"  # a scale that counts how often the trained positions were passed
FIXED = ("mamba_d_head", "mamba_head_dim", "mamba_headdim")  # 8 heads of these make up twice the hidden size
LARGE_ENDINGS = ("_size", "_dim", "_rank", "_heads", "_width", "_dims", "_base", "_features")
LARGE, OTHER_SIZE = 64, 16
PER_LAYER, IN_SOME_LAYERS = "per_layer_config", {"head_dim": 28, "num_key_value_heads": 1}  # Gemma 4's full layers
NOT_SHRUNK = ("id2label", "label2id")
LISTS_OF_THREE = ("mrope_section",)


@dataclass(frozen=True)
class Ambition:
    """How telling the sizes are to be: whether the heads' size and the number of key and value heads are set apart.

    filled: whether sizes that the config leaves open are given.
    """

    head_dim: bool = True
    kv_heads: bool = True
    filled: bool = False


PLAIN = {"head_dim": False, "kv_heads": False}
AMBITIONS = (
    Ambition(),
    Ambition(head_dim=False),
    Ambition(kv_heads=False),
    Ambition(**PLAIN),
    Ambition(**PLAIN, filled=True),
)


@dataclass(frozen=True)
class Kept:
    """One thing that tells programs apart: whether the small model has it, and in what form or why not."""

    name: str
    kept: bool
    detail: str


def shrunk(
    fields: Mapping[str, Any], whole: Mapping[str, Any], given: Mapping[str, Any], wanted: Ambition
) -> dict[str, Any]:
    """Small values for `fields`, those of sub-configs included; the number of layers is left.

    whole: all fields of the model's config. given: those that its config.json spells out.
    """
    context = _Context(whole, given, wanted)
    return {name: context.small(name, value) for name, value in fields.items()}


class _Context:
    def __init__(self, whole: Mapping[str, Any], given: Mapping[str, Any], wanted: Ambition) -> None:
        self.given, self.whole, self.wanted = given, whole, wanted
        hidden, heads = (first_of(role, whole) for role in ("hidden", "heads"))
        kv_heads, head_dim = (first_of(role, whole) for role in ("kv_heads", "head_dim"))
        even = hidden // heads if hidden and heads else None
        self.head_dim = self._tied_head_dim() or HIDDEN // HEADS
        if wanted.head_dim and head_dim and not self._tied_head_dim():
            apart = head_dim != even or self._spelt_out("head_dim")
            self.head_dim = HEAD_DIM if apart else self.head_dim
        self.kv_heads = HEADS
        if wanted.kv_heads and kv_heads and heads and (kv_heads != heads or self._spelt_out("kv_heads")):
            self.kv_heads = KV_HEADS

    def _tied_head_dim(self) -> int | None:
        """The small size of a head where it must fit another size."""
        head_dim, heads = first_of("head_dim", self.whole), first_of("heads", self.whole)
        for name in ("qk_rope_head_dim", "qk_head_dim"):
            if head_dim and head_dim == self.whole.get(name):
                return SIZES[name]
        if not head_dim or not heads:
            return None
        parts = ("qk_nope_head_dim", "qk_rope_head_dim")
        for layer in ({}, *(self.whole.get(PER_LAYER) or {}).values()):
            if head_dim == sum(layer.get(name, self.whole.get(name)) or 0 for name in parts):
                return sum(SIZES[name] for name in parts)
        times, rest = divmod(head_dim * heads, first_of("hidden", self.whole) or 1)
        tied = head_dim * heads == self.whole.get("attention_hidden_size") or times == self.whole.get("expand")
        return HIDDEN * times // HEADS if tied and not rest else None

    def _spelt_out(self, role: str) -> bool:
        return any(self.given.get(name) for name in NAMES[role].split())

    def small(self, name: str, value: Any, within: str = "") -> Any:
        """A small value for the field `name`, which may lie in another field, `within`."""
        if isinstance(value, Mapping):
            kept = tuple(value) if name in NOT_SHRUNK else ()
            if "yarn" in (value.get("rope_type"), value.get("type")) and COUNTS_POSITIONS not in value:
                kept = ("original_max_position_embeddings",)  # with few, no turn is on the ramp from fast to slow
            return {k: item if k in kept else self.small(k, item, within or name) for k, item in value.items()}
        if isinstance(value, list | tuple):
            return self._small_list(name, value)
        if value is None and self.wanted.filled and ROLES.get(name) in ("head_dim", "kv_heads", "experts", "chosen"):
            return self._small_number(name, LARGE)
        if name in LIMITS and self._is_given(name) and isinstance(value, int | float):
            return min(value, LIMITS[name])
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if name.endswith(("_token_id", "_token_index")):
            return SPECIAL_TOKENS.get(name, OTHER_TOKEN)
        if within == PER_LAYER and value != self.whole.get(name) and self._apart_in_some_layers(name):
            return IN_SOME_LAYERS[name]
        return self._small_number(name, value)

    def _is_given(self, name: str) -> bool:
        """Whether the config.json spells a field out, itself or in one of its parts."""
        return any(name in fields for fields in (self.given, *self.given.values()) if isinstance(fields, Mapping))

    def _apart_in_some_layers(self, name: str) -> bool:
        return name in IN_SOME_LAYERS and (self.wanted.kv_heads or ROLES.get(name) != "kv_heads")

    def _small_number(self, name: str, value: int) -> int:
        role = ROLES.get(name)
        sizes = {"hidden": HIDDEN, "heads": HEADS, "kv_heads": self.kv_heads, "head_dim": self.head_dim}
        sizes |= {"vocab": VOCAB, "window": WINDOW, "positions": POSITIONS}
        if role in sizes and value > 0:
            whole_hidden = first_of("hidden", self.whole) or value
            return sizes[role] * (max(1, value // whole_hidden) if role == "hidden" else 1)
        if role == "layers":
            return value
        if role == "experts":
            return min(value, 8)
        if role == "chosen":
            return min(value, 3)
        if name in SIZES:
            return SIZES[name] if name in FIXED else min(value, SIZES[name])
        return OTHER_SIZE if value > LARGE and name.endswith(LARGE_ENDINGS) else value

    def _small_list(self, name: str, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        if name == "eos_token_id":
            return [SPECIAL_TOKENS[name]]
        pairs = self._rotary_pairs()
        if name in LISTS_OF_THREE:
            return [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
        if name in ("short_factor", "long_factor"):
            return list(value[:pairs])
        return [self.small(name, item) for item in value]

    def _rotary_pairs(self) -> int:
        """How many pairs of a head's values RoPE turns."""
        rope = self.whole.get("rope_parameters") or {}
        share = rope.get("partial_rotary_factor", self.whole.get("partial_rotary_factor")) or 1.0
        return max(1, int(self.head_dim * share) // 2)


def first_of(role: str, fields: Mapping[str, Any]) -> int | None:
    """The first whole number among the fields of a role: "heads", "hidden" and so on, as in NAMES."""
    return next((fields[name] for name in NAMES[role].split() if type(fields.get(name)) is int), None)


def cut(fields: Mapping[str, Any], depth: int, layers: int) -> dict[str, Any]:
    """The config of the first `layers` of a model of `depth` layers."""
    small: dict[str, Any] = {}
    for name, value in fields.items():
        if ROLES.get(name) == "layers" and value == depth:
            small[name] = layers
        elif isinstance(value, list | tuple) and len(value) == depth:
            small[name] = list(value[:layers])
        elif isinstance(value, list | tuple) and name.endswith(("_layers", "_layer_ids", "_idxs")):
            small[name] = [index for index in value if type(index) is not int or index < layers]
        elif name == PER_LAYER and isinstance(value, Mapping):
            small[name] = {key: item for key, item in value.items() if int(key) < layers}
        elif name == "num_kv_shared_layers" and value:
            small[name] = layers // 2  # these are counted from the end
        else:
            small[name] = value
    return small


# Kinds of layers


def kinds(model: nn.Module, config: Mapping[str, Any], depth: int) -> list[str]:
    """For each of a model's layers, what makes it another kind of layer than others: equal for layers of one kind."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    lists = {n: v for n, v in config.items() if isinstance(v, list | tuple) and len(v) == depth and not _are_numbers(v)}
    if not stacks:
        return ["layer"] * depth
    return [
        json.dumps([_plan(layer), {n: v[i] for n, v in lists.items()}], default=str)
        for i, layer in enumerate(stacks[0])
    ]


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether a list names layers by their numbers."""
    return all(type(value) is int for value in values) and len(set(values)) == len(values) > 2


def _plan(layer: nn.Module) -> list[Any]:
    """What a layer consists of: its modules' classes and settings and its parameters' shapes."""
    plan: list[Any] = []
    for path, module in layer.named_modules():
        settings = {
            name: value
            for name, value in vars(module).items()
            if (value is None or isinstance(value, bool | int | str)) and not _is_about_place(name)
        }
        shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
        plan.append([path, type(module).__name__, settings, shapes])
    return plan


def _is_about_place(name: str) -> bool:
    """Whether an attribute says where a layer stands among others, not what it is."""
    return name.startswith(("_", "store_")) or "idx" in name or "index" in name


def depth_of(config: Mapping[str, Any]) -> int:
    """How many layers a model has."""
    listed = next((len(config[name]) for name in ("layers_block_type", "layer_types") if config.get(name)), 0)
    return first_of("layers", config) or listed


def enough_layers(found: Sequence[str]) -> int:
    """The smallest number of first layers among which every kind of layer is twice, where the model has two.

    A kind that there is only one of counts if it comes early; what is special about the last layers alone, the last
    of fewer layers have as well.
    """
    counts = Counter(found)
    every = _first_with({kind: min(2, count) for kind, count in counts.items()}, found)
    if every <= MAX_LAYERS:
        return every
    return min(_first_with({kind: 2 for kind, count in counts.items() if count > 1}, found), MAX_LAYERS)


def ends_alike(layers: int, types: Sequence[Any]) -> int:
    """A number of layers near `layers` of which the last is of the type that the last of all is.

    Some architectures need that; transformers makes another layer of the last one where it is not so.
    """
    enough = [n for n, kind in enumerate(types, start=1) if MIN_LAYERS <= n <= MAX_LAYERS and kind == types[-1]]
    return min((n for n in enough if n >= layers), default=max(enough, default=layers))


def _first_with(wanted: Mapping[str, int], found: Sequence[str]) -> int:
    seen: Counter[str] = Counter()
    for number, kind in enumerate(found, start=1):
        seen[kind] += 1
        if number >= MIN_LAYERS and all(seen[kind] >= count for kind, count in wanted.items()):
            return number
    return len(found)


# Weights and input


def fill(model: nn.Module, draw: Draw) -> bool:
    """Random values for every weight, the constant buffers of a checkpoint included; unequal token embeddings.

    Returns whether there are such.
    """
    random_weights(model, draw)
    with torch.no_grad():
        for name, buffer in _constant_buffers(model):
            values = draw.normal(*buffer.shape)
            buffer.copy_(0.5 * values if name.endswith("bias") else 1 + 0.3 * values)
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        if isinstance(embedding, nn.Embedding):
            embedding.weight[::SMALL_ROWS] *= SMALL
    return isinstance(embedding, nn.Embedding)


def _constant_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that a checkpoint holds and that are all zeros or all ones before it is loaded."""
    parameters, saved = dict(model.named_parameters(remove_duplicate=False)), model.state_dict()
    for name, buffer in model.named_buffers():
        constant = name in saved and name not in parameters and buffer.is_floating_point() and buffer.numel()
        if constant and (bool((buffer == 0).all()) or bool((buffer == 1).all())):
            yield name, buffer


def tokens(vocab_size: int, draw: Draw) -> Tensor:
    """Token ids without special tokens: [2, 16], some of them with a small embedding."""
    first = OTHER_TOKEN + 1
    return first + draw.tokens(vocab_size - first, BATCH, TOKENS)


# What it has kept


def what_is_kept(config: Mapping[str, Any], found: Sequence[str], original: Sequence[str], unequal: bool) -> list[Kept]:
    """What the small model has of what tells programs apart.

    found, original: the kinds of its layers, and of all. unequal: whether its embeddings are.
    """
    counts, missing = Counter(found), len(set(original) - set(found))
    absent = f"; {missing} {'kinds are' if missing > 1 else 'kind is'} missing" if missing else ""
    numbers = " + ".join(str(count) for count in counts.values())
    several = not missing and all(count >= min(2, original.count(kind)) for kind, count in counts.items())
    windows = {n: config[n] for n in NAMES["window"].split() if type(config.get(n)) is int and config[n] > 0}
    heads, kv_heads = first_of("heads", config), first_of("kv_heads", config)
    hidden, head_dim = first_of("hidden", config), first_of("head_dim", config)
    even = hidden // heads if hidden and heads else None
    experts, chosen = first_of("experts", config), first_of("chosen", config)
    kinds_of = f"{len(counts)} kinds of layers" if len(counts) > 1 else "one kind of layer"
    kept = [
        Kept("every kind of layer, twice where the model has two", several,
             f"{len(found)} layers: {numbers} of {kinds_of}{absent}"),
        Kept("more tokens than the window", any(w < TOKENS for w in windows.values()),
             ", ".join(f"{n} {w}, {TOKENS} tokens" for n, w in windows.items()) or "the config has no window"),
        Kept("fewer key and value heads than heads", bool(kv_heads and heads and kv_heads != heads),
             f"{heads} heads, {kv_heads or heads} for keys and values" if heads else "the config has no heads"),
        Kept("head_dim that is not hidden size / heads", bool(head_dim and head_dim != even),
             f"{head_dim or even}, and {hidden} / {heads} = {even}" if even else "the config has no heads"),
    ]  # fmt: skip
    kept += [
        Kept("random weights", True, "norms, biases and buffers of a checkpoint included"),
        Kept("token embeddings of unequal size", unequal, f"every {SMALL_ROWS}th is {SMALL:g} times as large" if unequal
             else "the model has no table of embeddings"),
    ]  # fmt: skip
    if experts:
        kept.append(Kept("more experts than are chosen", experts > (chosen or 0), f"{chosen} of {experts}"))
    return kept
