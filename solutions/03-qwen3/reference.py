"""What is right in 03-qwen3: transformers' Qwen3 and Llama, Qwen3's own chat template, and toy models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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
from transformers.utils.chat_template_utils import render_jinja_template

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

    The other one ends the prompt, as in a chat the mark does that ended the last turn. Neither comes where
    `stop_at` is `new_tokens`. last: whether the one that comes is the last in the list.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        toy = random_toy_lm(vocabulary, prompt + 2 * vocabulary, draw.generator)
        ids = draw.tokens(vocabulary, 1, prompt)
        if stop_at is None:
            return toy, ids, new_tokens
        written = reference_generate(toy, ids, new_tokens).tolist()
        never = [token for token in [*ids[0].flip(0).tolist(), *range(vocabulary)] if token not in written]
        if stop_at == new_tokens:
            return toy, ids, new_tokens, never[:2]
        earlier = never[0]
        return toy, ids, new_tokens, [earlier, written[stop_at]] if last else [written[stop_at], earlier]

    return draw_args


# Chats, as transformers renders them with the template that comes with Qwen3's weights (Apache-2.0)

TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def right_text(messages: list[dict[str, Any]], thinking: bool = True, generation_prompt: bool = True) -> str:
    rendered, _ = render_jinja_template(
        conversations=[messages],
        chat_template=TEMPLATE,
        add_generation_prompt=generation_prompt,
        enable_thinking=thinking,
    )
    return str(rendered[0])


def right_characters(messages: list[dict[str, Any]], *options: bool) -> Tensor:
    return torch.tensor(list(right_text(messages, *options).encode()), dtype=torch.uint8)


# The loss behind a context, token by token


def right_losses(
    table: Tensor,
    places: Tensor,
    story: Tensor,
    starts: Sequence[int],
    befores: Sequence[int],
    length: int,
) -> list[float]:
    table, places, found = table.double(), places.double(), []
    for before in befores:
        lost = []
        for start in starts:
            text = story[start - before : start + length].tolist()
            vectors = [table[token] + places[position] for position, token in enumerate(text)]
            for position in range(before, before + length):
                read = vectors[:position]
                scores = table @ torch.tanh(read[-1] + torch.stack(read).mean(dim=0))
                lost.append(float(scores.logsumexp(0) - scores[text[position]]))
        found.append(sum(lost) / len(lost))
    return found
