"""Latent attention in both of its forms: work, time and bytes (`make bench`).

A layer of DeepSeek-V2-Lite's widths with random weights: what is computed does not depend on them. One thread.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_at

LESSON = lesson_of(__file__)
ROWS = 2048
RUNS = 5
FORMS = {"expanded": "Attention", "absorbed": "AbsorbedAttention"}


def figures() -> list[Figure]:
    """A prompt and a single token in both forms, and the bytes of the cache: measured, and by the formula."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    v3 = LESSON.config("deepseek-v3")
    config = v3.replace(hidden_size=2048, num_attention_heads=16, q_lora_rank=None, num_hidden_layers=1)
    made = LESSON.solutions
    forms = {form: made[name](config).eval() for form, name in FORMS.items()}
    forms["absorbed"].load_state_dict(forms["expanded"].state_dict())
    cache = made["LatentCache"](config, 1, ROWS)
    with torch.no_grad():
        found = [
            *compared(forms, made["rope_table"], cache, "a prompt of 512", 512, 512, fewer="expanded"),
            *compared(forms, made["rope_table"], cache, f"one token after {ROWS - 1:,}", 1, ROWS, fewer="absorbed"),
        ]
    measured, formula = cache.rows.untyped_storage().nbytes(), bytes_at(config, ROWS, element_bytes=4)
    value = f"{measured:,} and {formula:,} bytes"
    name = f"MLA: a layer's cache of {ROWS:,} tokens: measured, by formula"
    return [*found, Figure(name, value, "equal", measured == formula)]


def compared(
    forms: dict[str, Any], rope_table: Any, cache: Any, what: str, new: int, rows: int, fewer: str
) -> list[Figure]:
    """Both forms on `new` tokens that are the last of `rows`. fewer: the form that should do less work."""
    x = torch.randn(1, new, 2048)
    table = rope_table(torch.arange(rows - new, rows), forms["expanded"].config)

    def call(form: Any) -> Callable[[], object]:
        def run() -> object:
            cache.length = rows - new
            return form(x, table, cache)

        return run

    ways = {name: call(form) for name, form in forms.items()}
    work = {}
    for name, way in ways.items():
        with FlopCounterMode(display=False) as counter:
            way()
        work[name] = counter.get_total_flops() / 2e6
    seconds = side_by_side(ways, RUNS)
    return [
        Figure(
            f"MLA, {what}: multiply-adds, expanded / absorbed",
            f"{work['expanded']:,.0f} / {work['absorbed']:,.0f} million",
            f"{fewer} does less",
            min(work, key=lambda name: work[name]) == fewer,
        ),
        Figure(f"MLA, {what}: expanded / absorbed", f"{ms(seconds['expanded'])} / {ms(seconds['absorbed'])}"),
    ]


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
