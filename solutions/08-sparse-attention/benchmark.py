"""Dense latent attention against sparse, with a mask and by gathering: one token, and a prompt (`make bench`).

A layer of DeepSeek-V3.2's latent and index widths, with 16 heads in place of 128 and 8 index heads in place of 64, which
reads 256 tokens. Random weights, one thread.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from grader import Config
from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, TOPK = 5, 256
FORMS = {"dense, absorbed": "GatheredAttention", "with a mask": "SparseAttention", "by gathering": "GatheredAttention"}


def figures() -> list[Figure]:
    """One token after 512, 2,047 and 8,191, a prompt of 512; and whether the two sparse forms agree."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = LESSON.config("deepseek-v3.2")
    config = whole.replace(
        hidden_size=1024, num_attention_heads=16, index_n_heads=8, index_topk=TOPK, rope_scaling=None
    )
    made = LESSON.solutions
    forms = {name: made[kind](config).eval() for name, kind in FORMS.items()}
    for form in forms.values():
        form.load_state_dict(forms["with a mask"].state_dict())
    forms["dense, absorbed"].indexer = EveryToken()
    with torch.no_grad():
        found = [compared(made, forms, config, "a prompt of 512", 512, 512)]
        for rows in (513, 2048, 8192):
            found.append(compared(made, forms, config, f"one token after {rows - 1:,}", 1, rows))
        x, table = torch.randn(1, 512, 1024), made["rope_table"](torch.arange(512), config)
        masked, gathered = (forms[name](x, table)[0] for name in ("with a mask", "by gathering"))
        equal = bool((masked - gathered).abs().max() < 1e-3 * masked.abs().max())
    return [
        *(figure for part in found for figure in part),
        Figure("DSA: mask and gathering give the same", str(equal).lower(), "true", equal),
    ]


class EveryToken(torch.nn.Module):
    """Chooses all tokens, without looking at any."""

    def forward(self, x: Tensor, latent: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        tokens = x.shape[1] if cache is None else cache.index_length
        return torch.arange(tokens).expand(x.shape[0], x.shape[1], -1)


def compared(
    made: dict[str, Any], forms: dict[str, Any], config: Config, what: str, new: int, rows: int
) -> list[Figure]:
    """All forms on `new` tokens that are the last of `rows`, and how much the sparse one gains by gathering."""
    x, table = torch.randn(1, new, 1024), made["rope_table"](torch.arange(rows - new, rows), config)
    cache = made["IndexedCache"](config, 1, rows)

    def call(form: Any) -> Callable[[], object]:
        def run() -> object:
            cache.length = rows - new
            cache.index_length = rows if isinstance(form.indexer, EveryToken) else rows - new
            return form(x, table, cache)

        return run

    calls = {name: call(form) for name, form in forms.items() if new == 1 or "dense" not in name}
    work = {}
    for name, run in calls.items():
        with FlopCounterMode(display=False) as counter:
            run()
        work[name] = counter.get_total_flops() / 2e6
    seconds = side_by_side(calls, RUNS)
    found = [Figure(f"DSA, {what}: {name}", f"{ms(seconds[name])}, {work[name]:,.0f} million") for name in calls]
    if new == 1:
        ratio = seconds["dense, absorbed"] / seconds["by gathering"]
        found.append(Figure(f"DSA, {what}: dense / by gathering", f"{ratio:.1f} x"))
    return found


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
