"""Training: what encoding and AdamW's step cost beside the libraries' (`make bench`). One thread."""

import gzip
from functools import partial
from typing import Any

import torch
from torch import nn

from grader.authoring.kit.figures import Figure, ms, show, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, CHARACTERS, WEIGHTS = 5, 10_000, 20


def figures() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return [*encoding(), *steps()]


def encoding() -> list[Figure]:
    """A piece of the novel, with your `encode` and with the library that reads your tokenizer.json."""
    novel = gzip.decompress((LESSON.folder / "texts" / "northanger-abbey.txt.gz").read_bytes()).decode()
    solved = LESSON.solutions
    merges = solved["train_bpe"](novel[:20_000], 256)
    library = LESSON.module("reference").library_of(merges)
    text = novel[-CHARACTERS:]
    took = side_by_side(
        {"yours": partial(solved["encode"], text, merges), "tokenizers": lambda: library.encode(text)}, RUNS
    )
    same = solved["encode"](text, merges) == library.encode(text).ids
    return [
        *(Figure(f"encoding {CHARACTERS:,} characters, {name}", ms(took[name])) for name in took),
        Figure("the same ids", str(same), "True", same),
    ]


def steps() -> list[Figure]:
    """One step of AdamW on matrices of 256 x 256."""

    def make(kind: Any) -> Any:
        weights = [nn.Parameter(torch.randn(256, 256)) for _ in range(WEIGHTS)]
        for weight in weights:
            weight.grad = torch.randn(256, 256)
        return kind(weights, lr=1e-3)

    optimizers = {"yours": make(LESSON.solutions["AdamW"]), "torch.optim": make(torch.optim.AdamW)}
    took = side_by_side({name: optimizer.step for name, optimizer in optimizers.items()}, RUNS)
    return [Figure(f"a step on {WEIGHTS} matrices of 256 x 256, {name}", ms(took[name])) for name in took]


if __name__ == "__main__":
    raise SystemExit(not show(figures()))
