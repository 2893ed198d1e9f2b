"""Ways to keep less, as configs."""

from collections.abc import Mapping
from typing import Any

from grader.atlas.mixing import mixing_of
from grader.config import Config
from grader.errors import GraderError


def plain(config: Mapping[str, Any]) -> Config:
    """The model's shape alone: every layer that mixes tokens full, with keys and values kept as they are.

    Its heads are those of the first layer with attention. Raises GraderError for a config that can't be read, and for a
    model without attention.
    """
    mixers = mixing_of(config).mixers
    first = next((mixer for mixer in mixers if mixer.heads and mixer.key_dim and not mixer.has_state), None)
    if first is None:
        raise GraderError("this config has no attention heads, so there are no keys and values to keep less of.")
    heads = {"num_attention_heads": first.heads, "num_key_value_heads": first.kv_heads}
    widths = {"head_dim": first.key_dim, "v_head_dim": first.value_dim}
    return Config({"num_hidden_layers": len(mixers), **heads, **widths})


def methods(config: Mapping[str, Any], latent: int, rope: int, window: int, ratio: int) -> dict[str, Config]:
    """The same model with each way to keep less, one config each, from keeping everything (MHA) on.

    latent, rope: the numbers that MLA keeps for a token: the compressed state, and the rotated key that all heads
    share. window: how far a sliding layer sees. ratio: how many sliding layers come before each full one. Raises
    GraderError for a config that `plain` refuses. Sources: GQA, Ainslie et al., 2023; MLA, DeepSeek-V2's report, 2024.
    """
    gqa = plain(config)
    count = range(gqa.num_hidden_layers)
    types = ["full_attention" if (i + 1) % (ratio + 1) == 0 else "sliding_attention" for i in count]
    alone = {
        "MHA": gqa.replace(num_key_value_heads=gqa.num_attention_heads),
        "GQA": gqa.replace(num_key_value_heads=min(gqa.num_key_value_heads, gqa.num_attention_heads)),
        "MLA": gqa.replace(kv_lora_rank=latent, qk_rope_head_dim=rope),
    }
    windows = {f"{name} + SWA": c.replace(layer_types=types, sliding_window=window) for name, c in alone.items()}
    return alone | windows
