"""What a layer multiplies, clamps or caps on its way and most models do not: it is in no tensor, and often in no field.

Each is read in transformers' code; tests/atlas/test_atlas_told.py holds them to it.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from grader.atlas.fields import Fact, Fields
from grader.atlas.layer import Told
from grader.atlas.rope import parameters
from grader.atlas.shapes import width
from grader.atlas.traits import Traits
from grader.errors import GraderError

SPARSE, SCALE = "sparse gate", "scale of scores"


def of_attention(f: Fields, traits: Traits, kind: str, turned: bool, q_rank: int = 0) -> tuple[Told, ...]:
    """What attention does to queries, keys, values and scores. turned: whether RoPE turns them. q_rank: of MLA."""
    found = [*_temperature(f, traits, turned), *_clamp(f, traits)]
    if turned and traits.turns_back:
        found.append(Told("sense of RoPE", Fact("by minus the angle", f.code), "RoPE turns by minus the angle"))
    if turned and proportional(f, kind):
        line = "each angle as if the whole head were turned"
        words = "angles as if the whole head were turned, the later ones 0"
        found.append(Told("proportional RoPE", Fact(words, "rope_parameters"), line))
    stretch = _stretch(f)
    if turned and stretch.get("long_mscale") and traits.router == "sparse mixer":  # source: PhimoeRotaryEmbedding
        few, many = stretch["short_mscale"], stretch["long_mscale"]
        words = f"{few:g}, and {many:g} in texts of more than {stretch['original_max_position_embeddings']:,} tokens"
        fact = Fact(words, "rope_scaling" if f.own.get("rope_scaling") else "rope_parameters")
        found.append(Told("scale of RoPE's cos and sin", fact, f"cos and sin × {words}"))
    if q_rank or f.get("kv_lora_rank"):
        found += _latent(f, traits, q_rank)
    if traits.side_by_side:
        found += _scaled(f, {"attention_in_multiplier": "attention's input", "key_multiplier": "keys"})
        found += _scaled(f, {"attention_out_multiplier": "attention's output"})
    return tuple(found)


def of_state(f: Fields, traits: Traits) -> tuple[Told, ...]:
    """What Falcon-H1's Mamba-2 multiplies, and how little Ling 3's states keep at least.

    Source: FalconH1Mixer, compute_mup_vector and BailingHybridForgetGate in transformers.
    """
    if traits.linear == "kda with whole projections" and f.truth("kda_safe_gate"):
        lowest = f.fact("kda_lower_bound")
        line = f"decay = e^( {lowest.value:g} · sigmoid( e^A_log · ( f + dt_bias ) ) )".replace("-", "−")
        return (Told("decay of a state", Fact(f"e^{lowest.value:g} at least, for each token", lowest.source), line),)
    if not traits.side_by_side:
        return ()
    found = _scaled(f, {"ssm_in_multiplier": "Mamba-2's input"})
    each = f.fact("ssm_multipliers")
    if each.value and set(each.value) != {1}:
        numbers = ", ".join(f"{number:g}" for number in each.value)
        found.append(
            Told("scales of Mamba-2's z, x, B, C, dt", Fact(numbers, each.source), f"z, x, B, C, dt × {numbers}")
        )
    return (*found, *_scaled(f, {"ssm_out_multiplier": "Mamba-2's output"}))


def of_mlp(f: Fields, traits: Traits, layer: int) -> tuple[Told, ...]:
    """What an MLP does to its gate and its output."""
    found: list[Told] = []
    if traits.sparse_gate and (share := _sparsity(f, layer)):
        cut = NormalDist().inv_cdf(share)
        words = f"the gate is kept above its mean + {cut:.3f} deviations, less that, for about {1 - share:.0%}"
        pattern = f.fact("activation_sparsity_pattern")
        fact = Fact(words, f.code if pattern.value is None else pattern.source)
        found.append(Told(SPARSE, fact, f"gate less its mean + {cut:.3f} deviations, or 0"))
    both = f.get("mlp_multipliers")
    if traits.side_by_side and both:
        for what, value in zip(("the MLP's gate", "the MLP's output"), both, strict=True):
            found += _scale(what, Fact(value, "mlp_multipliers"))
    return tuple(found)


def _scaled(f: Fields, names: Mapping[str, str]) -> list[Told]:
    return [told for name, what in names.items() for told in _scale(what, f.fact(name))]


def _scale(what: str, fact: Fact) -> list[Told]:
    if fact.value in (None, 1):
        return []
    return [Told(f"scale of {what}", fact, f"{what} × {fact.value:g}")]


def _temperature(f: Fields, traits: Traits, turned: bool) -> list[Told]:
    """Queries that grow with their position.

    Source: Llama4TextAttention and get_llama_4_attn_scale of ministral3 in transformers.
    """
    if traits.temperature == "without RoPE" and not turned and f.truth("attn_temperature_tuning"):
        every: Any = f.needed("floor_scale")
        growth, place = f.get("attn_scale"), "(t + 1)"
        source = "attn_temperature_tuning, floor_scale, attn_scale"
    elif traits.temperature == "every layer":
        found = _stretch(f)
        every, growth, place = found.get("original_max_position_embeddings"), found.get("llama_4_scaling_beta"), "t"
        source = "rope_parameters"
    else:
        return []
    if not every or not growth:
        return []
    words = f"1 + {growth:g} · ln( 1 + ⌊{place} / {every:,}⌋ )"
    return [Told("scale of queries", Fact(f"{words} at position t", source), f"q × ( {words} ), at position t")]


def _clamp(f: Fields, traits: Traits) -> list[Told]:
    """Source: OlmoAttention, OlmoeAttention and MptAttention in transformers."""
    if not traits.clips:
        return []
    inner = f.get("attn_config")
    limit, source = (inner.get("clip_qkv"), "attn_config") if isinstance(inner, Mapping) else (None, "")
    if not limit:
        limit, source = f.get("clip_qkv"), "clip_qkv"
    words = f"±{limit:g}" if limit else ""
    return [Told("q, k and v clamped at", Fact(words, source), f"q, k and v clamped at {words}")] if limit else []


def _latent(f: Fields, traits: Traits, q_rank: int) -> list[Told]:
    found = []
    stretch = _stretch(f)
    every, factor = stretch.get("mscale_all_dim"), stretch.get("factor")
    if str(stretch.get("rope_type", stretch.get("type", "default"))) != "default" and every and factor:
        scale = (0.1 * float(every) * math.log(float(factor)) + 1.0) ** 2 if float(factor) > 1 else 1.0
        source = "rope_scaling" if f.own.get("rope_scaling") is not None else "rope_parameters"
        words = f"{scale:.4g} / √{f.needed('qk_nope_head_dim') + f.number('qk_rope_head_dim')}, for YaRN"
        found.append(Told(SCALE, Fact(words, source), f"scale = {words}"))
    if traits.double:  # LongCat-Flash; source: LongcatFlashMLA in transformers
        d, rank = width(f), f.needed("kv_lora_rank")
        for what, inner in (("queries", q_rank), ("the latent of keys and values", rank)):
            line = f"{what} × √( {d:,} / {inner:,} )"
            found.append(Told(f"scale of {what}", Fact(f"√({d:,} / {inner:,})", f.code), line))
    return found


def _stretch(f: Fields) -> Mapping[str, Any]:
    found = f.mine("rope_scaling") or parameters(f, "full_attention")
    return found if isinstance(found, Mapping) else {}


def proportional(f: Fields, kind: str) -> bool:
    """Whether RoPE turns the first pairs of a whole head, by the angles that they would have if all were turned.

    Source: _compute_proportional_rope_parameters in transformers.
    """
    return str(parameters(f, kind).get("rope_type", "default")) == "proportional"


def _sparsity(f: Fields, layer: int) -> float:
    """The share of a layer's gate that is set to 0. Source: Gemma3nTextConfig and Gemma3nTextMLP in transformers."""
    pattern = f.get("activation_sparsity_pattern")
    if pattern is None:
        number = f.needed("num_hidden_layers", "num_layers")
        return 0.95 if number > 10 and layer < 10 else 0.0
    if isinstance(pattern, list):
        if layer >= len(pattern):
            raise GraderError(
                f"`activation_sparsity_pattern` has {len(pattern)} entries, and the model has more layers."
            )
        pattern = pattern[layer]
    return float(pattern)
