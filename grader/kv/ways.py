"""Ways to keep less, as configs."""

from collections.abc import Mapping
from typing import Any

from grader.config import Config
from grader.kv.fields import NOTHING, complete, head_sizes, kv_heads, needed
from grader.kv.schedule import layer_types


def plain(config: Mapping[str, Any]) -> Config:
    """The model's shape alone: every layer that mixes tokens full, with keys and values kept as they are."""
    config = complete(config)
    heads = needed(config, "num_attention_heads", "n_head")
    _, key, value = head_sizes(config, heads)
    mixing = [kind for kind in layer_types(config) if kind not in NOTHING]
    shape = {"num_hidden_layers": len(mixing), "num_attention_heads": heads}
    return Config({**shape, "num_key_value_heads": kv_heads(config), "head_dim": key, "v_head_dim": value})


def methods(config: Mapping[str, Any], latent: int, rope: int, window: int, ratio: int) -> dict[str, Config]:
    """The same model with each way to keep less, one config each, from keeping everything (MHA) on.

    latent, rope: the numbers that MLA keeps for a token: the compressed state, and the rotated key that all heads
    share. window: how far a sliding layer sees. ratio: how many sliding layers come before each full one.
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
