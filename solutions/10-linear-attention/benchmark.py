"""Linear attention: a chunk at a time against a token at a time, and what a token costs after a text (`make bench`).

One layer of a tenth of Qwen3.5's width, random numbers. One thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.kit import Config
from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, HEADS, WIDTH, PROMPT = 5, 8, 64, 512
LAYER = Config(
    {
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": WIDTH,
        "linear_value_head_dim": WIDTH,
        "linear_conv_kernel_dim": 4,
        "rms_norm_eps": 1e-6,
    }
)
BEFORE = (64, 4096)


def figures() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return [*forms(), *tokens()]


def forms() -> list[Figure]:
    """A prompt in both forms of the rule."""
    text = [torch.randn(1, PROMPT, HEADS, WIDTH) for _ in range(3)]
    text += [-0.1 * torch.rand(1, PROMPT, HEADS), torch.rand(1, PROMPT, HEADS)]
    rules = {name: LESSON.solutions[f"{name}_delta_rule"] for name in ("recurrent", "chunked")}
    took = side_by_side({name: partial(rule, *text) for name, rule in rules.items()}, RUNS)
    apart = float((rules["recurrent"](*text)[0] - rules["chunked"](*text)[0]).abs().max())
    return [
        *(Figure(f"the rule for {PROMPT} tokens, {name}", ms(took[name])) for name in rules),
        Figure("how far both are apart", f"{apart:.1e}", "below 1e-5", apart < 1e-5),
    ]


@torch.no_grad()
def tokens() -> list[Figure]:
    """One token after a short text and after a long one, in a layer of each kind."""
    runs: dict[str, Callable[[], Any]] = {}
    for before in BEFORE:
        runs[f"linear, {before} tokens before"] = linear_token(before)
        runs[f"full, {before} tokens before"] = full_token(before)
    took = side_by_side(runs, RUNS)
    return [Figure(f"one token, {name}", ms(took[name])) for name in runs]


def filled(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.02)
    return module.eval()


def linear_token(before: int) -> Callable[[], Tensor]:
    layer, state = filled(LESSON.solutions["GatedDeltaNet"](LAYER)), LESSON.solutions["LayerState"]()
    layer(torch.randn(1, before, LAYER.hidden_size), state)
    x = torch.randn(1, 1, LAYER.hidden_size)
    return lambda: layer(x, state)  # type: ignore[no-any-return]


def full_token(before: int) -> Callable[[], Tensor]:
    layer, x = filled(LESSON.solutions["GatedAttention"](LAYER)), torch.randn(1, 1, LAYER.hidden_size)
    kv = torch.randn(2, 1, LAYER.num_key_value_heads, before, LAYER.head_dim)
    table = LESSON.solutions["rope_table"](torch.tensor([before]), LAYER.head_dim // 4, 1e4)

    def run() -> Tensor:
        cache = LESSON.solutions["KVCache"]()
        cache.append(*kv)
        return layer(x, table, cache)  # type: ignore[no-any-return]

    return run


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
