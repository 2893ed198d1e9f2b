"""Small references of transformers' architectures, for tests that compare programs with them.

A test module that makes some has ``pytestmark = pytest.mark.usefixtures("small_references")`` and a cached function
`reference`, which the fixture (conftest.py) empties at the module's end.
"""

import json
from pathlib import Path
from typing import Any

from grader.porting.reference import Reference, small_reference

QWEN3_NEXT = {
    "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "moe_intermediate_size": 512, "vocab_size": 151936, "num_experts": 16,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 4, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "partial_rotary_factor": 0.25, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
HOME: list[Path] = []  # where configs are written, the latest last; nowhere while no test module has asked


def small(config: dict[str, Any], **options: Any) -> Reference:
    """The small reference of a config."""
    path = HOME[-1] / "config.json"
    path.write_text(json.dumps(config))
    return small_reference(path, **options)
