"""A program with one part exchanged, for as long as a cell looks at it, and what goes in and out of its parts."""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from grader.calls import Call, record_calls


class Change:
    """What `with` makes of a program, and undoes. It may be used again and again."""

    def __init__(self, *makers: Callable[[], AbstractContextManager[Any]]) -> None:
        self.makers = makers
        self._open: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for make in self.makers:
                stack.enter_context(make())
            self._open.append(stack.pop_all())

    def __exit__(self, *error: Any) -> None:
        self._open.pop().close()


def replaced(owner: Any, **parts: Any) -> Change:
    """Within the `with`, `owner` has other parts; afterwards it has its own again, whatever happened.

    owner: a class, a module or another object, whose attributes `parts` are; or a dict, such as `globals()`, whose
    items they are. Raises AttributeError, or KeyError for a dict, where the owner has no such part: what replaces
    nothing is a typo.

        with patch.replaced(MLP, forward=with_silu):
            model(ids)
    """
    if isinstance(owner, MutableMapping):
        missing = [name for name in parts if name not in owner]
        if missing:
            raise KeyError(missing[0])
        return Change(lambda: _items(owner, parts))
    for name in parts:
        getattr(owner, name)
    return Change(lambda: mock.patch.multiple(owner, **parts))


@contextmanager
def _items(owner: MutableMapping[str, Any], parts: dict[str, Any]) -> Iterator[None]:
    """As mock.patch.dict, which would also undo what else the `with` writes into the dict: a cell's own variables."""
    before = {name: owner[name] for name in parts}
    owner.update(parts)
    try:
        yield
    finally:
        owner.update(before)


def together(*changes: Change) -> Change:
    """Several changes as one. Without any, a program stays as it is."""
    return Change(*(make for change in changes for make in change.makers))


@contextmanager
def silenced(weight: Tensor, rows: slice | int | tuple[Any, ...] = slice(None)) -> Iterator[None]:
    """Within the `with`, some of a weight's rows are zero; afterwards they have their values again.

    weight: [rows, ...], changed in place. rows: any index into it.
    """
    with torch.no_grad():
        kept = weight[rows].clone()
        weight[rows] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            weight[rows] = kept


def calls_in(model: nn.Module, *inputs: Any) -> dict[str, Call]:
    """What the model's submodules are given and give in `model(*inputs)`, without gradients.

    Path -> the submodule's last call, whose `input` and `output` are copies of its first tensors:
    `calls_in(model, ids)["h.3.attn.c_attn"].output`. Raises what the model raises.
    """
    with torch.no_grad():
        _, calls = record_calls(model, lambda: model(*inputs))
    return {call.path: call for call in calls}


def attention_weights(joined: Tensor, num_heads: int) -> Tensor:
    """The weights of a causal attention, from what its joined projection gives: [T, 3 D] -> [num_heads, T, T].

    joined: queries, keys and values of T tokens side by side, as GPT-2's c_attn gives them. Row i of a head's weights
    says how token i divides its attention among tokens 0 to i. Source: Vaswani et al. (2017), section 3.2.1.
    """
    tokens, width = joined.shape[0], joined.shape[1] // 3
    queries, keys = (
        part.reshape(tokens, num_heads, -1).transpose(0, 1)
        for part in (joined[:, :width], joined[:, width : 2 * width])
    )
    scores = queries @ keys.mT / (width // num_heads) ** 0.5
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
    return weights
