"""Have a model's modules answer as the reference's did."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from grader.calls import copied
from grader.checks.layout import arranged


@contextlib.contextmanager
def answering(answers: Mapping[tuple[nn.Module, int], Sequence[Tensor]]) -> Iterator[None]:
    """Have calls of modules, each named by how often its module was called before, give these tensors instead.

    Only the first is replaced where the two are not of the same number and dtypes. A tensor of another number of
    values is left out.
    """
    count: Counter[nn.Module] = Counter()

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        answer = answers.get((module, count[module]), ())
        count[module] += 1
        leaves, spec = tree_flatten(output)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if [leaves[i].dtype for i in places] != [tensor.dtype for tensor in answer]:
            places = places[:1]
        pairs = [(i, t) for i, t in zip(places, answer, strict=False) if leaves[i].numel() == t.numel()]
        for i, tensor in pairs:
            leaves[i] = copied(arranged(tensor, leaves[i]))
        return tree_unflatten(leaves, spec) if pairs else output

    with contextlib.ExitStack() as hooks:
        for module in {module for module, _ in answers}:
            hooks.enter_context(module.register_forward_hook(after))
        yield
