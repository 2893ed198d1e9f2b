"""Reasoning: what answers cost with a cache and without, one after the other and side by side (`make bench`).

On the lesson's own model. One thread.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader import load_checkpoint
from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS = 5


def figures() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    solved = LESSON.solutions
    model = load_checkpoint("sums-qwen3").build(solved["CachedLM"])
    prompts, wanted = solved["questions"](64, 0)
    runs = {
        "64 answers of 15 tokens, with a cache": partial(solved["sample"], model, prompts),
        "64 answers of 15 tokens, without a cache": partial(uncached, model, prompts, solved["LONGEST"]),
        "1 answer of 14 tokens, with a cache": partial(solved["sample"], model, prompts[:1], 14),
        "1 answer of 14 tokens, without a cache": partial(uncached, model, prompts[:1], 14),
        "64 answers of 4 tokens, with a cache": partial(solved["sample"], model, prompts, 4),
        "64 answers of 4 tokens, without a cache": partial(uncached, model, prompts, 4),
        "a step of GRPO on 64 answers": step(model, prompts, wanted),
    }
    took = side_by_side(runs, RUNS)
    return [Figure(name, ms(took[name])) for name in runs]


@torch.no_grad()
def uncached(model: Any, ids: Tensor, tokens: int) -> Tensor:
    """What `sample` does, but that every token reads the whole text again."""
    for _ in range(tokens):
        probs = LESSON.solutions["distribution"](model(ids)[:, -1])
        ids = torch.cat([ids, torch.multinomial(probs, 1)], dim=1)
    return ids


def step(model: Any, prompts: Tensor, wanted: list[int]) -> Any:
    """A step on 8 answers to each of 8 questions, which changes nothing: its rate is 0."""
    solved = LESSON.solutions
    ids = solved["sample"](model, prompts[:8].repeat_interleave(8, dim=0))
    texts = solved["decode"](ids[:, prompts.shape[1] :])
    rewards = torch.tensor([solved["reward"](text, str(wanted[i // 8])) for i, text in enumerate(texts)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return partial(solved["grpo_step"], model, optimizer, ids, prompts.shape[1], rewards, 8, solved["END"])


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
