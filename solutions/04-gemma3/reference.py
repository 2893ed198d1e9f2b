"""What is right in 04-gemma3: transformers' Gemma 3."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding, Gemma3TextScaledWordEmbedding

from grader.authoring.kit import hf


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(Gemma3TextConfig, config)


def rotations(config: Mapping[str, Any], positions: Tensor, kind: str) -> Tensor:
    """transformers' cosines and sines for a kind of layer: [2, T, head_dim]."""
    return hf.rope_table(Gemma3RotaryEmbedding(reference_config(config)), positions, kind)


def build_embedding(num_embeddings: int, embedding_dim: int) -> nn.Module:
    return Gemma3TextScaledWordEmbedding(num_embeddings, embedding_dim, None, embed_scale=embedding_dim**0.5)
