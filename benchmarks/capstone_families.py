"""Which families of transformers may have each choice of a capstone: writes grader/capstone/families.toml.

A family counts as having a choice where the source of its causal language model, or its config, has a word for it. Such
a word is easily there for another reason, so the lists are too long rather than too short: an architecture all of whose
choices no single family has is none of transformers'. `--check` says whether the file is that of the installed version.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "grader" / "capstone" / "families.toml"
WORDS = {
    "norm": {
        "zero-centered": r"1(\.0)? \+ self\.weight|weight(\.float\(\))? \+ 1",
        "layer": r"LayerNorm\(|layer_norm\(",
        "layer with bias": r"LayerNorm\(|layer_norm\(",
    },
    "places": {
        "post": r"post_feedforward|post_mlp|post_ffn|post_moe|ffn_norm_post|norm_after|post_norm|post_attention_norm",
        "both": r"post_feedforward|post_mlp|post_ffn|post_moe|ffn_layernorms|sandwich|post_norm|post_attention_norm",
    },
    "attention": {"latent": r"kv_a_proj|kv_lora_rank|kv_a_layernorm"},
    "mixers": {
        "sliding": r"sliding_window|attention_window|local_attention|window_size|attention_chunk",
        "linear": r"delta_rule|DeltaNet|linear_attn",
        "linear and sliding": r"\A(?=[\s\S]*(delta_rule|DeltaNet|linear_attn))[\s\S]*(sliding_window|window_size)",
    },
    "qk norm": dict.fromkeys(
        ("head", "all heads", "head, after RoPE"),
        r"\bq_norm|query_norm|q_layernorm|query_layernorm|q_ln|qk_norm|norm_q|query_rms|qk_layernorm",
    ),
    "gate": {
        "yes": r"attn_output_gate|gate_score|g_proj|attn_output \* |attn_gate|gated_attention|output_gate|sigmoid\(gate"
        r"|head_wise|gate\.sigmoid|core_attn_out \* "
    },
    "sinks": {"yes": r"sink"},
    "score cap": {"yes": r"softcap|tanh\(attn|logit_cap|attn_logit|soft_cap"},
    "pairs": {
        "neighbours": r"rope_interleave|interleaved|\.\.\., ?::2|0::2|rotate_every_two|view_as_complex|interleave\(2"
        r"|interleave\(.*dim=-1|-1, 2\)"
    },
    "share": {
        "part": r"partial_rotary|rotary_p|rotary_dim|rotary_ndims|rope_dim|nope|rot_dim|rope_proportion|rotary_emb_"
    },
    "unrotated": {
        "some": r"no_rope|nope|use_rope|rope_layer|skip_rope|use_pos|is_local|rope_type is None"
        r"|sliding_window is not None|if self\.is_sliding|position_embeddings is not None"
    },
    "mlp": dict.fromkeys(
        ("gelu, not gated", "relu2, not gated"),
        r"c_fc|fc1|fc_in|fc2|dense_h_to_4h|act(_fn)?\(self\.up_proj|lin1|linear_1|self\.wi\(|\A(?![\s\S]*gate)",
    ),
    "experts": {
        "softmax": r"[Ee]xpert",
        "softmax, renormed": r"[Ee]xpert",
        **dict.fromkeys(("sigmoid", "sigmoid and bias", "groups"), r"\A(?=[\s\S]*[Ee]xpert)[\s\S]*sigmoid"),
    },
    "shared": {"yes": r"shared_expert|shared_mlp|share_expert|shared_ffn|\.shared"},
    "residual": {"given": r"multiplier|scale_depth|layer_?scale|LayerScale|layer_scalar|residual_|resid_|alpha|gamma"},
    "embedding": {
        "given": r"multiplier|embed_scale|scale_emb|normalizer|embedding_scale|hidden_size ?\*\* ?0\.5|sqrt\("
    },
    "logits": {"capped": r"softcap|tanh\(logits|logit_cap|soft_cap"},
}


def sources() -> dict[str, str]:
    """The source of each family's causal language model and its config."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    root = Path(transformers.__file__).parent / "models"
    found: dict[str, str] = {}
    for folder in sorted(root.iterdir()):
        texts = [
            path.read_text("utf-8") for path in sorted(folder.glob("*.py")) if not path.name.startswith("modular_")
        ]
        classes = {name for names in CAUSAL.values() for name in ([names] if isinstance(names, str) else names)}
        if any(f"class {name}(" in text for text in texts for name in classes):
            found[folder.name] = "\n".join(texts)
    assert len(found) > len(CONFIG_MAPPING_NAMES) // 10
    return found


def lines() -> Iterator[str]:
    """The file's lines."""
    from transformers import __version__

    found = sources()
    yield "# Written by benchmarks/capstone_families.py: which families of transformers may have a choice."
    yield f'transformers = "{__version__}"'
    yield f"families = {len(found)}"
    for axis, choices in WORDS.items():
        yield f'\n["{axis}"]'
        for choice, pattern in choices.items():
            names = [name for name, text in found.items() if re.search(pattern, text)]
            yield f'"{choice}" = "{" ".join(names)}"'


def main() -> None:
    text = "\n".join(lines()) + "\n"
    if "--check" in sys.argv[1:]:
        raise SystemExit(0 if FILE.read_text("utf-8") == text else f"{FILE.name} is of another transformers")
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
