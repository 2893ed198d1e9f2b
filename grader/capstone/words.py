"""What the fields of a capstone's config mean, in words: no formula, and nothing that the trace alone can tell."""

from collections.abc import Iterator, Mapping
from typing import Any

PARTS: dict[str, dict[str, str]] = {
    "Layers": {
        "layer_types": (
            "the kind of each layer. `full_attention` sees every earlier token and itself; `sliding_attention` the"
            " last `sliding_window` tokens, itself among them; `linear_attention` keeps a state instead, as in"
            " Qwen3.5."
        ),
        "sliding_window": "how many tokens a sliding layer sees, the token itself included.",
        "norm_placement": (
            "`pre`: a norm in front of attention and one in front of the MLP, as in Qwen3. `post`: a norm behind"
            " each, before its output is added, and none in front, as in OLMo 3. `both`, as in Gemma 3. There is a"
            " norm behind the last layer in any case."
        ),
        "residual_multiplier": (
            "what attention gives, and what the MLP gives, is multiplied by it before it is added (behind its norm,"
            " where it has one). Linear layers too."
        ),
    },
    "Norms": {
        "norm_type": (
            "`rms_norm` or `layer_norm`: what every norm of the model is. Norms of queries, keys and latents are of"
            " the same kind, with the same eps."
        ),
        "zero_centered_norm": "whether a norm's weight is stored as its distance from 1, as in Gemma 3.",
        "layer_norm_bias": "whether each norm adds a bias.",
        "layer_norm_eps": "the eps of every norm.",
        "rms_norm_eps": "the eps of every norm.",
    },
    "Attention": {
        "num_key_value_heads": "heads of keys and values, as usual; neighbouring query heads share one.",
        "kv_lora_rank": "attention is latent, as in DeepSeek-V3: this is the width of the latent of keys and values.",
        "q_lora_rank": "the width of the queries' latent; `null`: queries come from the layer's input directly.",
        "qk_nope_head_dim": "how many channels of a head's query and key are never rotated. They come first.",
        "qk_rope_head_dim": "how many are. They come behind those, and all heads share one such key.",
        "v_head_dim": "the width of a head's value.",
        "attention_bias": "whether the linear maps of softmax attention have a bias; the list of tensors says which.",
        "use_qk_norm": "whether queries and keys are normed.",
        "qk_norm_over": (
            "`head`: each head by itself, as in Qwen3. `all_heads`: all heads of a token as one vector, as in OLMo 3."
        ),
        "qk_norm_after_rope": "whether queries and keys are rotated first and normed then; else normed first.",
        "attn_output_gate": (
            "what the heads give goes through a gate before `o_proj`, as in Qwen3.5: for each head `q_proj` gives its"
            " query and then its gate."
        ),
        "attention_sinks": "each head has a learned number that takes part in its softmax, as in gpt-oss.",
        "attn_logit_softcapping": (
            "scores are capped softly, by a tanh, at plus and minus this, once they are scaled, as in Gemma 2. Sinks"
            " are not capped."
        ),
        "query_pre_attn_scalar": (
            "what takes the place of a head's width in the scale of scores, as in Gemma 3. Without the field it is"
            " the width of a query."
        ),
    },
    "RoPE": {
        "rope_theta": "the base of the frequencies.",
        "rope_local_base_freq": "the base in sliding layers; `rope_theta` is that of full layers then.",
        "rope_interleave": (
            "whether a pair is made of two neighbouring channels; else of one from each half of what is rotated."
            " Rotated channels stay where they were."
        ),
        "partial_rotary_factor": (
            "the share of a head's channels that is rotated, the first ones, as if the head had no others. The rest"
            " stay as they are."
        ),
        "rope_scaling": (
            "how the rotations of full layers are slowed; those of sliding layers never are. `linear`: every"
            " frequency by the factor. `yarn`: as in OLMo 3, with each of its numbers given; `truncate` says whether"
            " the two ends of the ramp are rounded to whole pairs, `attention_factor` multiplies cosines and sines."
        ),
        "no_rope_layers": "a number for each layer, as in SmolLM3: 1 rotates, 0 does not.",
    },
    "Linear layers": {
        "linear_num_key_heads": (
            "heads of queries and keys in a gated delta rule, as in Qwen3.5, its convolution and its gated norm"
            " included. That norm is an RMSNorm whose weight is used as it is, whatever the other norms are; its eps"
            " is theirs. The convolution has no bias. Queries and keys are brought to length 1 with an eps of 1e-6."
        ),
    },
    "MLP": {
        "hidden_act": "`gelu` is the exact one, `gelu_pytorch_tanh` its approximation, `relu2` the square of ReLU.",
        "gated_mlp": (
            "whether one linear map is the gate of another, as in Qwen3; else the activation stands between `up_proj`"
            " and `down_proj`. It holds for experts, too."
        ),
        "mlp_bias": (
            "whether the linear maps of an MLP have a bias, a shared expert's included. Routed experts have none."
        ),
        "num_experts": "routed experts of a layer; their weights are stacked, an expert's gate above its up.",
        "num_experts_per_tok": "how many a token goes to.",
        "scoring_func": "what makes scores of the router's outputs: `softmax` over all experts, or `sigmoid`.",
        "norm_topk_prob": "whether the scores of the chosen are divided by their sum.",
        "routed_scaling_factor": "what the chosen experts' weights are multiplied by in the end.",
        "use_expert_bias": "`e_score_correction_bias` is added to scores for the choice alone, as in DeepSeek-V3.",
        "n_group": (
            "experts are in so many groups of neighbours; as in DeepSeek-V3, the two best of each say how good it is."
        ),
        "topk_group": "of how many groups experts may be chosen.",
        "n_shared_experts": (
            "besides, each token goes through one MLP, this many times `moe_intermediate_size` wide, and what that"
            " gives is added as it is."
        ),
        "first_k_dense_replace": (
            "the first so many layers have one MLP, `intermediate_size` wide, in place of experts."
        ),
    },
    "Before and behind the layers": {
        "embedding_multiplier": "embeddings are multiplied by it.",
        "logits_scaling": "logits are divided by it.",
        "final_logit_softcapping": "logits are capped softly, as the scores of Gemma 2, at plus and minus this.",
        "tie_word_embeddings": "whether the head has the embedding's weights.",
    },
}


def explained(config: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a README that say what a config's fields mean, those that it has."""
    for title, words in PARTS.items():
        rows = [f"- `{field}`: {text}" for field, text in words.items() if field in config]
        if rows:
            yield from (f"\n### {title}\n", *rows)
