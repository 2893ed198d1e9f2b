"""Other forms in which a module may give what the reference's gives: a contract of its own, and no error.

A router may return its choices sorted, or a weight for every expert; a norm may leave the gate to its caller; rows for
a RoPE over neighbours stand in another order. Nothing of that is wrong by itself.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from grader.calls import Call, WatchedCall
from grader.checks.layout import arranged, arrangements
from grader.tolerance import agree

IN_ORDER = "the same values in another order"
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "the sigmoid of ": torch.sigmoid,
    "the SiLU of ": F.silu,
    "the GELU of ": F.gelu,
    "the tanh of ": torch.tanh,
    "1 plus ": lambda x: 1 + x,
}
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "the softmax": lambda x: x.softmax(-1),
    "the sigmoid": torch.sigmoid,
    "the logarithm of the softmax": lambda x: x.log_softmax(-1),
}


def form_of(call: WatchedCall, outputs: Sequence[Tensor], recorded: Call) -> str:
    """In which other form a call gives what the reference's gives, in words; "" where none is known."""
    if not outputs or recorded.output is None:
        return ""
    wanted = [*recorded.outputs, *_weight_of_every_expert(recorded)]
    forms = [next((form for want in wanted if (form := _form(got, want))), "") for got in outputs]
    if all(forms) and not _out_of_step(outputs, forms, wanted):
        said = [form for form in dict.fromkeys(forms) if form != "as it is"]
        return " and ".join(said) or "some of its tensors"
    return _without_a_factor(call, outputs[0], recorded)


def is_share(outputs: Sequence[Tensor], recorded: Call) -> bool:
    """Whether a step gives the first or the last channels of what the reference's gives, as where the rest stay."""
    got, want = next(iter(outputs), None), recorded.output
    if got is None or want is None or got.ndim != want.ndim or got.shape[:-1] != want.shape[:-1]:
        return False
    width = got.shape[-1]
    return width < want.shape[-1] and (_equal(got, want[..., :width]) or _equal(got, want[..., -width:]))


def _form(got: Tensor, want: Tensor) -> str:
    if got.numel() != want.numel():
        return ""
    if any(_sorted_alike(got, option) for option in arrangements(want, got.shape)):
        return "as it is" if _equal(got, arranged(want, got)) else IN_ORDER
    want = arranged(want, got)
    if not (got.is_floating_point() and want.is_floating_point()) or not got.ndim:
        return ""
    for words, function in SCORES.items():
        if _equal(got, function(want)):
            return words
        if _equal(function(got), want):
            return f"what {words} is taken of"
    return ""


def _sorted_alike(got: Tensor, want: Tensor) -> bool:
    return got.ndim > 0 and _equal(got.sort(-1).values, want.sort(-1).values)


def _out_of_step(outputs: Sequence[Tensor], forms: Sequence[str], wanted: Sequence[Tensor]) -> bool:
    """Whether choices are in another order than the reference's, and their weights are not."""
    choices = [t for t in outputs if not t.is_floating_point() and t.ndim == 2]
    if IN_ORDER not in forms or len(choices) != 1:
        return False
    (chosen,) = choices
    alike = [t for t in wanted if t.shape == chosen.shape]
    theirs = [t for t in alike if not t.is_floating_point()]
    weights = [t for t in outputs if t.is_floating_point() and t.shape == chosen.shape]
    if not theirs or not weights:
        return False
    order, their_order = chosen.argsort(-1), theirs[0].argsort(-1)
    due = [t.gather(-1, their_order) for t in alike if t.is_floating_point()]
    return not all(any(_equal(t.gather(-1, order), want) for want in due) for t in weights)


def _weight_of_every_expert(recorded: Call) -> Iterator[Tensor]:
    """For a router that gives weights and choices: a weight for every expert, 0 where it is not chosen."""
    whole = recorded.outputs[0]
    choices = [t for t in recorded.outputs if not t.is_floating_point() and t.dtype != torch.bool and t.ndim == 2]
    for chosen in choices:
        for weights in recorded.outputs:
            if weights.is_floating_point() and weights.shape == chosen.shape and whole.ndim == 2:
                count = max(whole.shape[-1], int(chosen.max()) + 1)
                yield weights.new_zeros(len(chosen), count).scatter(-1, chosen.long(), weights)


def _without_a_factor(call: WatchedCall, got: Tensor, recorded: Call) -> str:
    """What its caller has to multiply, where the reference's module is handed that and this one is not."""
    if len(call.tensors()) > len(recorded.others) or not got.is_floating_point():
        return ""
    assert recorded.output is not None
    if got.numel() != recorded.output.numel():
        return ""
    want = arranged(recorded.output, got)
    for name, other in recorded.others:
        if other.is_floating_point() and other.numel() == got.numel():
            factor = other.reshape(recorded.output.shape) if other.ndim != recorded.output.ndim else other
            factor = arranged(factor, got)
            for words, function in GATES.items():
                if _equal(got * function(factor), want):
                    return f"what is yet to be multiplied by {words}the reference's `{name}`"
    return ""


def _equal(got: Tensor, want: Tensor) -> bool:
    return got.dtype == want.dtype and got.shape == want.shape and agree(got, want)
