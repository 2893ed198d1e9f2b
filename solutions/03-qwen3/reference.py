"""What is right in 03-qwen3: transformers' Qwen3 and Llama, and toy models that write what its ``generate`` writes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaModel
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3Model,
    Qwen3RotaryEmbedding,
    apply_rotary_pos_emb,
)

from grader.authoring.kit import Config, Draw, hf
from grader.authoring.kit.toy import random_toy_lm, reference_generate


def is_llama(config: Config) -> bool:
    """Whether a config is read as a Llama's: that of every model but Qwen3."""
    return bool(config.model_type != "qwen3")


def reference_config(config: Config) -> Any:
    return hf.config(LlamaConfig if is_llama(config) else Qwen3Config, config)


def build_attention(config: Config) -> nn.Module:
    return (LlamaAttention if is_llama(config) else Qwen3Attention)(reference_config(config), layer_idx=0)


def build_layer(config: Config) -> nn.Module:
    return (LlamaDecoderLayer if is_llama(config) else Qwen3DecoderLayer)(reference_config(config), layer_idx=0)


def build_model(config: Config) -> nn.Module:
    return (LlamaModel if is_llama(config) else Qwen3Model)(reference_config(config)).eval()


def build_causal_lm(config: Config) -> nn.Module:
    return (LlamaForCausalLM if is_llama(config) else Qwen3ForCausalLM)(reference_config(config)).eval()


def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """transformers' cosines and sines: [2, T, head_dim]."""
    parameters = {"rope_type": "default", "rope_theta": theta}
    return hf.rope_table(Qwen3RotaryEmbedding(Qwen3Config(head_dim=head_dim, rope_parameters=parameters)), positions)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table.to(x.dtype)
    return apply_rotary_pos_emb(x, x, cos[None], sin[None])[0]


def generation_args(
    prompt: int, new_tokens: int, stop_at: int | None = None, last: bool = False, vocabulary: int = 61
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens and, for `stop_at`, two end tokens of which that one comes first.

    The other one stands in the prompt, as in a chat the marks that ended earlier turns do. Neither comes where
    `stop_at` is `new_tokens`. last: whether the one that comes is the last in the list.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        toy = random_toy_lm(vocabulary, prompt + 2 * vocabulary, draw.generator)
        ids = draw.tokens(vocabulary, 1, prompt)
        if stop_at is None:
            return toy, ids, new_tokens
        written = reference_generate(toy, ids, new_tokens).tolist()
        never = [token for token in [*ids[0].tolist(), *range(vocabulary)] if token not in written]
        if stop_at == new_tokens:
            return toy, ids, new_tokens, never[:2]
        earlier = never[0]
        return toy, ids, new_tokens, [earlier, written[stop_at]] if last else [written[stop_at], earlier]

    return draw_args
