"""Reads the part of a layer that works on each token alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from grader.atlas.fields import Fields
from grader.atlas.layer import Mlp, Shapes
from grader.atlas.shapes import linear, says, width
from grader.atlas.told import of_mlp
from grader.atlas.traits import Traits
from grader.errors import GraderError

# What files call the activation.
ACTIVATION = ("hidden_activation", "mlp_hidden_act", "hidden_act", "activation_function", "activation")
NAMES = {
    "silu": "SwiGLU",
    "swish": "SwiGLU",
    "gelu": "GeGLU",
    "gelu_pytorch_tanh": "GeGLU",
    "gelu_new": "GeGLU",
    "relu": "ReGLU",
}
HASHED = 3
PLAIN = {"gelu_new": "GELU", "gelu": "GELU", "gelu_pytorch_tanh": "GELU", "relu2": "squared-ReLU", "relu": "ReLU"}


def activation_of(f: Fields, traits: Traits) -> str:
    """The name of the activation, as the config has it."""
    return traits.activation or str(f.get(*ACTIVATION) or "gelu")


def mlp_of(f: Fields, traits: Traits, sparse: bool, layer: int) -> Mlp | None:
    """The MLP of one layer: its experts where `sparse`, a dense one elsewhere; None for families without."""
    if traits.mlp == "none":
        return None
    if traits.mlp == "gemma4" and f.truth("enable_moe_block"):
        return _gemma4_experts(f, traits)
    if sparse:
        return experts(f, traits, hashed=traits.compressed and hashes(f, layer))
    found = dense(f, traits, dense_width(f, traits, layer), says(f, traits.mlp_bias))
    return replace(found, told=of_mlp(f, traits, layer))


def hashes(f: Fields, layer: int) -> bool:
    """Whether the token's id chooses a layer's experts, as in DeepSeek-V4's first ones.

    Source: DeepseekV4Config, whose class makes three such layers where a file says nothing, and DeepseekV4HashRouter.
    """
    kinds, first = f.own.get("mlp_layer_types"), f.fact("num_hash_layers")
    if isinstance(kinds, list) and len(kinds) > layer:
        f.fact("mlp_layer_types")
        return bool(kinds[layer] == "hash_moe")
    return layer < (HASHED if first.value is None else f.number("num_hash_layers"))


def dense_width(f: Fields, traits: Traits, layer: int) -> int:
    """How wide a dense MLP is."""
    if f.kind in OWN_WIDTHS:
        return OWN_WIDTHS[f.kind](f)
    own = f.get(traits.dense_width, "n_inner", "ffn_dim", "ffn_hidden_size")
    if isinstance(own, list):  # Gemma 3n: one for each layer
        own = own[layer]
        if type(own) is not int:
            raise GraderError(f"`intermediate_size` has {own!r} for a layer, and should have whole numbers.")
        return own
    if own is None:
        return 4 * width(f)
    found = f.needed(traits.dense_width, "n_inner", "ffn_dim", "ffn_hidden_size")
    if not f.truth("use_double_wide_mlp"):
        return found
    shared_from = f.needed("num_hidden_layers", "num_layers") - f.number("num_kv_shared_layers")
    return 2 * found if layer >= shared_from else found


def _lfm2_width(f: Fields) -> int:
    found = f.needed("block_ff_dim", "intermediate_size")
    if not f.truth("block_auto_adjust_ff_dim"):
        return found
    multiple = f.needed("block_multiple_of")
    found = int((f.get("block_ffn_dim_multiplier") or 1.0) * int(2 * found / 3))
    return multiple * ((found + multiple - 1) // multiple)


OWN_WIDTHS: dict[str, Callable[[Fields], int]] = {
    "mpt": lambda f: f.needed("expansion_ratio") * width(f),
    "lfm2": _lfm2_width,
    "granitemoehybrid": lambda f: f.needed("shared_intermediate_size"),  # where it has no experts
}


def _mlp_shapes(wide: int, d: int, gated: bool, bias: bool = False) -> dict[str, tuple[int, ...]]:
    gate = linear("gate_proj", wide, d, bias) if gated else {}
    return gate | linear("up_proj", wide, d, bias) | linear("down_proj", d, wide, bias)


def dense(f: Fields, traits: Traits, wide: int, bias: bool) -> Mlp:
    """An MLP that every token uses."""
    d, activation = width(f), activation_of(f, traits)
    shapes = _mlp_shapes(wide, d, traits.gated, bias)
    if traits.sub_norms:
        shapes |= {"ffn_sub_norm": (wide,)}
    if traits.activation_parameters:
        shapes |= {"act_fn": (traits.activation_parameters,)}
    return Mlp(
        label=_name(activation, traits.gated),
        shapes=shapes,
        gated=traits.gated,
        activation=activation,
        width=wide,
        bias=bias,
        names=(traits.gate_name, traits.up_name, traits.down_name),
        gate_up=traits.gate_up_name,
    )


def _name(activation: str, gated: bool) -> str:
    if gated:
        return f"{NAMES.get(activation, 'gated')} MLP"
    return f"{PLAIN.get(activation, activation)} MLP"


def experts(f: Fields, traits: Traits, hashed: bool = False) -> Mlp:
    """Experts, the router that chooses among them, and what runs beside them for every token."""
    d, activation = width(f), activation_of(f, traits)
    number = f.needed("num_local_experts", "n_routed_experts", "num_experts")
    chosen = f.needed("num_experts_per_tok", "top_k_experts")
    if chosen > number + f.number("zero_expert_num"):
        raise GraderError(f"this config chooses {chosen} of {number} experts; is `num_experts_per_tok` right?")
    wide = _expert_width(f, traits)
    latent = f.number("moe_latent_size")
    inner = latent or d
    expert: dict[str, Any] = _mlp_shapes(wide, inner, traits.gated)
    if traits.expert_bias:
        expert |= {f"{name}.bias": (shape[0],) for name, shape in expert.items()}
    empty = f.number("zero_expert_num")
    shapes: dict[str, tuple[int, ...]] = {"router": (number + empty, d)}
    if latent:
        shapes |= linear("fc1_latent_proj", latent, d) | linear("fc2_latent_proj", d, latent)
    if traits.router_bias:
        shapes |= {"router.bias": (number,)}
    if traits.router_bias_counts:
        shapes |= {"router.correction": (number,)}
    shared, count = _shared_width(f, traits)
    if shared:
        shapes |= {f"shared.{name}": shape for name, shape in _mlp_shapes(shared, d, traits.gated).items()}
        shapes |= {"shared_gate": (1, d)} if traits.shared_gate else {}
    groups = f.number("n_group")
    return Mlp(
        label=_name(activation, traits.gated).replace("MLP", "experts"),
        shapes=shapes,
        gated=traits.gated,
        activation=activation,
        limit=float(f.get("swiglu_limit") or 0) if traits.clamped else 0.0,
        expert=expert,
        expert_width=wide,
        experts=number,
        chosen=chosen,
        shared=shared,
        shared_count=count,
        empty=empty,
        router=str(f.mine("scoring_func") or traits.router),
        groups=groups if groups > 1 else 0,
        chosen_groups=f.number("topk_group") if groups > 1 else 0,
        choice_bias=(traits.choice_bias or traits.router_bias_counts) and not hashed,
        hashed=hashed,
        router_cap=float(f.get("moe_router_logit_softcapping") or 0),
        latent=latent,
    )


def _expert_width(f: Fields, traits: Traits) -> int:
    own = f.get(traits.expert_width)
    if isinstance(own, list):  # ERNIE's and Hunyuan's files have one for each layer or modality
        own = own[0]
        if type(own) is not int:
            raise GraderError(f"`{traits.expert_width}` starts with {own!r}, and should hold whole numbers.")
        return own
    return f.needed(traits.expert_width, "intermediate_size")


def _shared_width(f: Fields, traits: Traits) -> tuple[int, int]:
    """The width of the shared experts together, and how many they are."""
    number = f.number("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    if traits.shared_width:
        return f.number(traits.shared_width), max(number, 1) if f.number(traits.shared_width) else 0
    return number * _expert_width(f, traits), number


def _gemma4_experts(f: Fields, traits: Traits) -> Mlp:
    """Gemma 4's: experts and a dense MLP side by side, with a scale for each expert."""
    d = width(f)
    found = experts(f, replace(traits, shared_width="", router=traits.router))
    wide = f.needed("intermediate_size")
    shapes: Shapes = {
        **found.shapes,
        **{f"dense.{name}": shape for name, shape in _mlp_shapes(wide, d, True).items()},
        "router.scale": (d,),
        "router.per_expert_scale": (found.experts,),
    }
    return replace(found, shapes=shapes, dense_beside=wide)
