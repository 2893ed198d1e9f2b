"""A cache of one row a token, as latent attention has it: one of the check's own, and what such a cache does.

A cache's class takes config, batch, capacity and dtype.
"""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import tensor_given


class Rows:
    """One row a token, [B, T, width], with the interface of a latent cache: `append` and `length`."""

    def __init__(self) -> None:
        self.kept = torch.zeros(0)
        self.length = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this check's cache has `append` and `length`, and no `{name}`")

    def append(self, new: Tensor) -> Tensor:
        self.kept = torch.cat([self.kept, new], dim=1) if self.length else new
        self.length = self.kept.shape[1]
        return self.kept


def rows_given(given: Any, part: Tensor) -> Tensor:
    """A copy of what an append of a part [B, T, width] returned, once it is sure that it is rows of that width."""
    rows = tensor_given(given, "append")
    batch, _, width = part.shape
    if rows.ndim != 3 or rows.shape[0] != batch or rows.shape[2] != width:
        wanted = f"[{batch}, length, {width}] belongs there"
        raise ValueError(f"append returned a tensor of shape {list(rows.shape)}; {wanted}")
    return rows.clone()


def tensors_of(cache: Any) -> list[Tensor]:
    """The tensors that a cache keeps, as attributes or as a module's buffers."""
    held = [*vars(cache).values(), *(cache.buffers() if isinstance(cache, nn.Module) else ())]
    return [value for value in held if isinstance(value, Tensor)]


def append_rows_or_refuse(cache: Any, part: Tensor) -> tuple[Any, int]:
    """How an append is refused: 1 by a ValueError, 2 by one after something was written, 3 by another error; 0: not."""

    def memory() -> list[Tensor]:
        return [tensor.detach().clone().contiguous().view(torch.uint8) for tensor in tensors_of(cache)]

    before = memory()
    try:
        return cache.append(part), 0
    except NotImplementedError:
        raise
    except Exception as error:
        after = memory()
        same = len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return None, 3 if not isinstance(error, ValueError) else 1 if same else 2


def sizes_between(cuts: list[int], length: int) -> list[int]:
    return [end - start for start, end in zip([0, *cuts], [*cuts, length], strict=True)]
