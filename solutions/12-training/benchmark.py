"""Training: what encoding, batches and AdamW's step cost beside the libraries', and a checkpoint (`make bench`).

One thread. The lesson's own cells measure the same for its model, under "What it costs".
"""

import gzip
import tempfile
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from grader.authoring.kit.figures import Figure, ms, show, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, CHARACTERS, WEIGHTS = 5, 10_000, 20


def figures() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return [*encoding(), *batches(), *steps(), *checkpoints()]


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


def batches() -> list[Figure]:
    """Four batches, with your `Batches` and with PyTorch's loader."""
    ids = torch.arange(200_000).tolist()
    yours = LESSON.solutions["Batches"]([ids], 0, 16, 64)
    windows = torch.tensor([*ids, 0]).unfold(0, 65, 64)
    loader: DataLoader[Any] = DataLoader(windows, 16, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    runs: dict[str, Any] = {
        "yours": lambda: [yours.take() for _ in range(4)],
        "torch.utils.data": lambda: list(islice(loader, 4)),
    }
    took = side_by_side(runs, RUNS)
    return [Figure(f"4 batches of 16 x 64 from 200,000 ids, {name}", ms(took[name])) for name in took]


def checkpoints() -> list[Figure]:
    """Saved and loaded: weights of 20 MB, and two moments for each number."""

    class Run:
        def __init__(self) -> None:
            self.model = nn.Linear(2000, 2500)
            self.optimizer = LESSON.solutions["AdamW"](self.model.parameters(), lr=0.0)
            self.batches, self.done = LESSON.solutions["Batches"]([[1] * 99], 0, 1, 9), 0

    with tempfile.TemporaryDirectory() as folder:
        run, checkpoint = Run(), LESSON.solutions["Checkpoint"](f"{folder}/run.pt")
        took = side_by_side({"saved": partial(checkpoint.save, run), "loaded": partial(checkpoint.load, run)}, RUNS)
        size = checkpoint.file.stat().st_size / sum(4 * p.numel() for p in run.model.parameters())
    return [
        *(Figure(f"a checkpoint of 5 million weights, {name}", ms(took[name])) for name in took),
        Figure("its size, in sizes of the weights", f"{size:.2f}", "3.0", 2.9 < size < 3.1),
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
