"""Quantised caches: how long it takes to encode and to read one, and how many bytes it holds (`make bench`).

One layer of SmolLM2's shape, 512 tokens, random numbers. One thread.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, TOKENS, HEADS, WIDTH, BITS = 5, 512, 3, 64, 4
CODECS = ("PerToken", "PerChannel", "PerGroup", "Rotated", "Turbo", "TurboProduct")


def figures() -> list[Figure]:
    """For each codec: the time for a prompt, the time to decode it, the bytes of a number and the error."""
    torch.set_num_threads(1)
    x = torch.randn(1, HEADS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    codecs = {name: LESSON.solutions[name](WIDTH, BITS) for name in CODECS}
    stored = {name: codec.encode(x) for name, codec in codecs.items()}
    encode = side_by_side({name: partial(codec.encode, x) for name, codec in codecs.items()}, RUNS)
    decode = side_by_side({name: decoding(codecs[name], stored[name]) for name in CODECS}, RUNS)
    return [figure for name in CODECS for figure in of_codec(name, codecs[name], x, (encode[name], decode[name]))]


def decoding(codec: Any, stored: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    return lambda: codec.decode(*stored)


def of_codec(name: str, codec: Any, x: Tensor, seconds: tuple[float, float]) -> list[Figure]:
    """What one codec takes, and that it is no more than it says."""
    stored = codec.encode(x)
    bits = 8 * sum(tensor.nbytes for tensor in stored) / x.numel()
    lost = float((x - codec.decode(*stored)).square().sum() / x.square().sum())
    what = f"{name}, {BITS} bits"
    return [
        Figure(f"{what}: encode {TOKENS} tokens", ms(seconds[0])),
        Figure(f"{what}: decode them", ms(seconds[1])),
        Figure(f"{what}: bits a number, all counted", f"{bits:.2f}", "at most 5", bits <= 5),
        Figure(f"{what}: squared error", f"{lost:.4f}", "below 0.06", lost < 0.06),
    ]


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
