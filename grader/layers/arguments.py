"""Which of a module's arguments are not the reference's, and how they differ, in words."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from grader.calls import Call
from grader.layers.counterparts import as_given, blocked_by
from grader.layers.node import Node
from grader.tolerance import agree

FURTHEST = 4  # positions by which a table may be shifted and still be known as that


def wrong_arguments(node: Node, recorded: Sequence[Call], kinds: Sequence[str] = ()) -> list[str]:
    """A sentence for each further argument of a call that is not the reference's, where one can be made.

    recorded: all of the reference's calls. kinds: of its layers.
    """
    names, right = node.call.names(), node.right_others()
    unequal = [i for i in node.unequal_tensors() if i in names]
    said: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(names[i] for i in unequal):
        own = {i: node.call.leaves[i] for i in unequal if names[i] == name}
        for article, rest in _said(node, own, right, recorded, kinds):
            said.setdefault((article, rest), []).append(f"`{name}`")
    return [f"`{node.name}` is handed {a} {' and '.join(named)} that {rest}." for (a, rest), named in said.items()]


def _said(
    node: Node,
    own: Mapping[int, Tensor],
    right: Mapping[int, tuple[str, Tensor]],
    recorded: Sequence[Call],
    kinds: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """What is said of one argument: an article before its name, and what comes after "that"."""
    other = _given_to(node, list(own.values()), recorded)
    if other is not None and right.keys() & own.keys():  # else it has what the reference hands over besides
        mine, theirs = _kind(node.recorded.path, kinds), _kind(other.path, kinds)
        if mine and theirs and mine != theirs:
            yield "the", f"the reference hands to {theirs} layers, and it is one of the {mine} layers"
        else:
            yield "the", f"the reference hands to `{other.path}`"
        return
    for i, tensor in own.items():
        if i not in right:
            continue
        want = right[i][1]
        masks = _blocked(tensor, want)
        text = of_masks(*masks) if masks else of_tables(tensor, want)
        if text:
            yield "a", text
            return


def _given_to(node: Node, own: Sequence[Tensor], recorded: Sequence[Call]) -> Call | None:
    """Another call of the reference's that is handed just these tensors."""
    for call in recorded:
        if call.path == node.recorded.path or call.type != node.recorded.type:
            continue
        if all(any(_equal(given, tensor) for _, given in call.others) for tensor in own):
            return call
    return None


def _equal(recorded: Tensor, own: Tensor) -> bool:
    form = as_given(recorded, own)
    return form is not None and agree(form, own)


def _kind(path: str, kinds: Sequence[str]) -> str:
    """The kind of the layer that a path lies in, as a config's `layer_types` names it: "sliding attention"."""
    number = next((int(part) for part in path.split(".") if part.isdigit()), -1)
    return kinds[number].replace("_", " ") if 0 <= number < len(kinds) else ""


def _blocked(own: Tensor, want: Tensor) -> tuple[Tensor, Tensor] | None:
    """Where the learner's mask and the reference's keep one from looking; None if the two are no masks."""
    mine, theirs = blocked_by(own), blocked_by(want)
    if mine is None or theirs is None or mine.ndim < 2:
        return None
    if own.dtype == torch.bool and bool(want[..., -1, -1].all()):  # a token sees itself, so True is where one may look
        mine, theirs = ~mine, ~theirs
    return mine, theirs


def of_masks(mine: Tensor, theirs: Tensor) -> str:
    """How a mask differs from the reference's, in words. Both are True where they keep a token from looking."""
    shape = max(mine.shape, theirs.shape, key=len)
    mine, theirs = mine.expand(shape), theirs.expand(shape)
    T, S = mine.shape[-2:]
    back = (torch.arange(T)[:, None] + S - T - torch.arange(S)).expand_as(mine)  # how far back a key lies
    more, less = back[~mine & theirs], back[mine & ~theirs]
    reach = int(back[~theirs].max()) if bool((~theirs).any()) else 0
    if more.numel() and int(more.min()) < 0:
        return "lets tokens see later ones"
    if more.numel() and not less.numel():
        furthest = int(more.max()) - reach
        if furthest > 0 and int(more.min()) > reach:
            return f"reaches {_tokens(furthest)} too far back"
        return "lets tokens see what the reference's hides, as padding"
    if less.numel() and not more.numel():
        if bool((less == 0).any()):
            return "keeps tokens from themselves"
        if int(less.max()) == reach and reach - int(less.min()) + 1 <= len(set(less.tolist())):
            return f"reaches {_tokens(len(set(less.tolist())))} too short"
        return "hides what the reference's lets tokens see"
    return "hides other tokens than the reference's"


def _tokens(number: int) -> str:
    return "one token" if number == 1 else f"{number} tokens"


def of_tables(own: Tensor, want: Tensor) -> str:
    """How a table, of cosines say, differs from the reference's, in words; "" where there is no telling."""
    if own.shape != want.shape or not own.is_floating_point():
        return ""
    for axis in range(own.ndim - 1):
        length = own.shape[axis]
        for shift in range(1, min(FURTHEST, length - 2) + 1):
            later = agree(own.narrow(axis, 0, length - shift), want.narrow(axis, shift, length - shift))
            earlier = agree(own.narrow(axis, shift, length - shift), want.narrow(axis, 0, length - shift))
            if later or earlier:
                return f"is that of positions {shift} {'later' if later else 'earlier'}"
    factor = float((own.double() * want.double()).sum() / want.double().square().sum().clamp_min(1e-30))
    if abs(factor - 1) > 1e-3 and abs(factor) > 1e-3 and agree((factor * want.double()).to(own.dtype), own):
        return f"is {factor:.4g} times the reference's"
    return ""
