"""What is right in 11-new-models: transformers' SmolLM3, OLMo 3, gpt-oss and Gemma 4, eager, experts one by one.

test_new_models.py holds YaRN and proportional RoPE to formulas by hand, and the bytes to transformers' real cache.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma4TextConfig, GptOssConfig, Olmo3Config, SmolLM3Config
from transformers.models.gemma4 import modeling_gemma4 as gemma4
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
from transformers.models.olmo3 import modeling_olmo3 as olmo3
from transformers.models.smollm3 import modeling_smollm3 as smollm3

from grader.authoring.kit import Config, Draw, hf, random_weights

KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "smollm3": (SmolLM3Config, smollm3.SmolLM3Attention),
    "olmo3": (Olmo3Config, olmo3.Olmo3Attention),
    "gpt_oss": (GptOssConfig, gpt_oss.GptOssAttention),
    "gemma4_text": (Gemma4TextConfig, gemma4.Gemma4TextAttention),
}


def reference_config(config: Mapping[str, Any]) -> Any:
    """transformers' config. OLMo 3's RoPE is written out for each kind of layer.

    transformers 5.24 gives a rope_theta at the top of a config to full layers alone.
    """
    if config["model_type"] != "olmo3" or "rope_theta" not in config:
        return hf.config(KINDS[config["model_type"]][0], config)
    plain = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    stretched = plain | {"rope_type": "yarn"} | (config.get("rope_scaling") or {})
    kinds = {"sliding_attention": plain, "full_attention": stretched if config.get("rope_scaling") else plain}
    fields = {name: value for name, value in config.items() if name not in ("rope_theta", "rope_scaling")}
    return hf.config(Olmo3Config, fields, rope_parameters={kind: dict(rope) for kind, rope in kinds.items()})


# SmolLM3


def build_smol(config: Config) -> nn.Module:
    made: nn.Module = smollm3.SmolLM3Model(reference_config(config)).eval()
    return made


# OLMo 3


def yarn_table(positions: Tensor, head_dim: int, theta: float, scaling: Mapping[str, Any]) -> Tensor:
    """transformers' cosines and sines: [2, T, head_dim]."""
    rope = {"rope_type": "yarn", "rope_theta": theta, **scaling}
    longest = int(scaling["factor"] * scaling["original_max_position_embeddings"])
    config = GptOssConfig(head_dim=head_dim, rope_parameters=rope, max_position_embeddings=longest)
    half = hf.rope_table(gpt_oss.GptOssRotaryEmbedding(config), positions)
    return torch.cat([half, half], dim=-1)


def build_olmo_attention(config: Config) -> nn.Module:
    made: nn.Module = olmo3.Olmo3Attention(reference_config({**config, "num_hidden_layers": 1}), 0)
    return made


def call_windowed(module: Any, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
    """What attention gives for x [B, T, D] under transformers' mask with a window."""
    return hf.call_part(module, x, table, hf.visible(x.shape[1], window))


def build_olmo(config: Config) -> nn.Module:
    made: nn.Module = olmo3.Olmo3Model(reference_config(config)).eval()
    return made


# gpt-oss


def build_sinks(config: Config) -> nn.Module:
    made: nn.Module = gpt_oss.GptOssAttention(reference_config({**config, "num_hidden_layers": 1}), 0)
    return made


def call_sinks(module: Any, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
    """As `call_windowed`; this reference's table has each angle once."""
    return call_windowed(module, x, table.chunk(2, dim=-1)[0], window)


def sink_weights(module: nn.Module, draw: Draw) -> None:
    """Random weights; sinks as different as scores are."""
    random_weights(module, draw)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("sinks"):
                parameter.copy_(2 * draw.normal(*parameter.shape))


def build_experts(config: Config) -> nn.Module:
    made: nn.Module = gpt_oss.GptOssExperts(reference_config(config))
    return made


# Gemma 4


def proportional_table(positions: Tensor, head_dim: int, theta: float, share: float) -> Tensor:
    """transformers' cosines and sines of a full layer: [2, T, head_dim]."""
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "proportional", "rope_theta": theta, "partial_rotary_factor": share},
    }
    config = Gemma4TextConfig(global_head_dim=head_dim, rope_parameters=rope)
    return hf.rope_table(gemma4.Gemma4TextRotaryEmbedding(config), positions, "full_attention")


def build_gemma_attention(config: Config, layer: int) -> nn.Module:
    made: nn.Module = gemma4.Gemma4TextAttention(reference_config(config), layer)
    return made


class Kept:
    """What transformers' attention hands its cache."""

    def update(self, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.kv = k, v
        return k, v


def call_gemma(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    return gemma_called(module, x, table, kv)[0]


def call_gemma_kv(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    """Keys and values that were read: [2, B, KV, T, width]."""
    return torch.stack(gemma_called(module, x, table, kv)[1])


def call_gemma_all(module: Any, x: Tensor, table: Tensor, *kv: Tensor) -> Tensor:
    """The output, keys and values, one after the other."""
    output, read = gemma_called(module, x, table, kv)
    return torch.cat([output.flatten(), *(each.flatten() for each in read)])


def gemma_called(module: Any, x: Tensor, table: Tensor, kv: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    seen = hf.visible(x.shape[1], module.sliding_window)
    mask = torch.zeros(seen.shape, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)[None, None]
    shared, kept = ({module.layer_type: kv} if kv else {}), Kept()
    embeddings = tuple(table.to(x.dtype)[:, None])
    output, _ = module(
        x, position_embeddings=embeddings, attention_mask=mask, shared_kv_states=shared, cache=None if kv else kept
    )
    return output, (kv[0], kv[1]) if kv else kept.kv


def right_source(config: Config) -> list[int]:
    """Whose keys and values each layer reads, by the modes of transformers' config."""
    known = reference_config(config)
    stores = {known.layer_types[i]: i for i, mode in enumerate(known.kv_sharing_modes) if mode == "store"}
    return [stores[known.layer_types[i]] if m == "reuse" else i for i, m in enumerate(known.kv_sharing_modes)]


def right_bytes(config: Config, tokens: int, element_bytes: int = 2) -> int:
    """Keys and values of all layers of transformers' model that have a projection for keys, by its shape."""
    kind, known, numbers = KINDS[config["model_type"]][1], reference_config(config), 0
    with torch.device("meta"):
        for layer in range(known.num_hidden_layers):
            made = kind(known, layer)
            if hasattr(made, "k_proj"):
                numbers += 2 * min(tokens, made.sliding_window or tokens) * made.k_proj.out_features
    return int(numbers * element_bytes)
