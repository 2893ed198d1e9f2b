"""Write the traces that lesson 11 compares with, besides the one in its recording: small random models of transformers.

    python training/new_model_traces.py [--output solutions/11-new-models/texts]

`grader compare` says more of a model, and its traces are larger: these have a few thousand weights each.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from train import HERE
from transformers import Gemma4TextConfig, GptOssConfig, SmolLM3Config
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextModel
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssModel
from transformers.models.smollm3.modeling_smollm3 import SmolLM3Model

from grader import trace_of
from grader.authoring.kit import Draw, hf, random_weights
from grader.recordings.tracefile import write_trace
from grader.recordings.traces import Trace

SLIDING, FULL = "sliding_attention", "full_attention"
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8, "beta_fast": 2.0, "beta_slow": 0.5}
MODELS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "smollm3": (
        SmolLM3Config,
        SmolLM3Model,
        {
            "model_type": "smollm3",
            "vocab_size": 31,
            "hidden_size": 16,
            "intermediate_size": 22,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "no_rope_layers": [1, 1, 1, 0, 1],
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-3,
            "rope_theta": 70.0,
        },
    ),
    "gpt-oss": (
        GptOssConfig,
        GptOssModel,
        {
            "model_type": "gpt_oss",
            "vocab_size": 31,
            "hidden_size": 14,
            "intermediate_size": 9,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 6,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "swiglu_limit": 1.0,
            "sliding_window": 4,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {**YARN, "rope_theta": 70.0, "truncate": False},
        },
    ),
    "gemma-4": (
        Gemma4TextConfig,
        Gemma4TextModel,
        {
            "model_type": "gemma4_text",
            "vocab_size": 31,
            "hidden_size": 14,
            "intermediate_size": 20,
            "num_hidden_layers": 6,
            "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_global_key_value_heads": 1,
            "head_dim": 6,
            "global_head_dim": 16,
            "attention_k_eq_v": True,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 0,
            "sliding_window": 4,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {
                SLIDING: {"rope_type": "default", "rope_theta": 30.0},
                FULL: {"rope_type": "proportional", "rope_theta": 200.0, "partial_rotary_factor": 0.5},
            },
        },
    ),
}


class Whole(nn.Module):
    """A model called as the reference is: without a cache, and with every layer at every position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(input_ids=ids, use_cache=False, output_hidden_states=True).last_hidden_state
        return found


def renamed(name: str) -> str | None:
    """A learner's name: without the wrapper, and without what is a module in transformers alone."""
    if any(part in name for part in hf.NO_MODULES) or name.endswith("mlp.router"):
        return None  # the router of a solution gives its results in another order
    return name.removeprefix("model.") if name != "model" else None


def traced(name: str) -> Trace:
    """The trace of one small model, its weights drawn from the model's name."""
    kind, model_class, fields = MODELS[name]
    model, draw = model_class(hf.config(kind, fields)).eval(), Draw("new-models", name)
    random_weights(model, draw)
    with torch.no_grad():
        for path, buffer in model.named_buffers():
            if path.endswith("layer_scalar"):
                buffer.copy_(1 + 0.3 * draw.normal(*buffer.shape))
    return trace_of(Whole(model), draw.tokens(31, 1, 12), build={"config": fields}, renamed=renamed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "11-new-models" / "texts"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output
    for name, (_, model_class, _) in MODELS.items():
        path = output / f"{name}.safetensors"
        write_trace(traced(name), path, model_class.__name__)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
