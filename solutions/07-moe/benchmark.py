"""A mixture of experts in a loop, sorted, and as transformers runs it, for 1 token and for 64 (`make bench`).

A layer of Qwen3 30B-A3B's 128 experts at a quarter of its width, random weights. One thread.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from grader import Config
from grader.authoring.kit import agree
from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS = 5
TOKENS = (1, 64)
THEIRS = ("eager", "batched_mm", "grouped_mm")


def figures() -> list[Figure]:
    """For each number of tokens: the time of every way, what sorting gains, and whether all give the same."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = LESSON.config("qwen3-30b-a3b")
    config = whole.replace(hidden_size=whole.hidden_size // 4, moe_intermediate_size=whole.moe_intermediate_size // 4)
    made = LESSON.solutions
    router, loop, by_sorting = (made[name](config).eval() for name in ("SoftmaxRouter", "Experts", "SortedExperts"))
    for parameter in (*router.parameters(), *loop.parameters()):
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    by_sorting.load_state_dict(loop.state_dict())
    ways = {"loop": loop, "sorted": by_sorting} | {
        f"transformers, {kind}": theirs(config, loop, kind) for kind in THEIRS
    }
    with torch.no_grad():
        return [figure for tokens in TOKENS for figure in compared(ways, router, config, tokens)]


def theirs(config: Config, experts: nn.Module, kind: str) -> nn.Module:
    """transformers' experts with the same weights, in one of its ways to run them."""
    own = Qwen3MoeConfig(**config)
    own._experts_implementation = kind
    made = Qwen3MoeExperts(own).eval()
    made.load_state_dict(experts.state_dict())
    return made


def compared(ways: dict[str, Any], router: nn.Module, config: Config, tokens: int) -> list[Figure]:
    """All ways on the same tokens."""
    x = torch.randn(tokens, config.hidden_size)
    weights, chosen = router(x)

    def call(experts: Any) -> Callable[[], Tensor]:
        return lambda: experts(x, chosen, weights)

    calls = {name: call(experts) for name, experts in ways.items()}
    seconds = side_by_side(calls, RUNS)
    right = calls["loop"]()
    what = f"MoE, {tokens} token{'s' if tokens > 1 else ''} at once"
    ratio = seconds["loop"] / seconds["sorted"]
    equal = all(agree(run(), right) for run in calls.values())
    return [
        *(Figure(f"{what}: {name}", ms(spent)) for name, spent in seconds.items()),
        Figure(f"{what}: loop / sorted", f"{ratio:.1f} x"),
        Figure(f"{what}: all ways give the same", str(equal).lower(), "true", equal),
    ]


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
