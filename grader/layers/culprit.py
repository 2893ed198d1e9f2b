"""Where in a model to start looking, and why: told from a comparison of its pass with the reference's."""

import contextlib
import copy
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grader.calls import Call, WatchedCall, first_tensor
from grader.checks.judge.diagnose import Context, describe, known_as
from grader.checks.layout import arranged
from grader.layers.arguments import wrong_arguments
from grader.layers.comparison import Comparison
from grader.layers.node import Node, own_way
from grader.layers.outcome import Outcome, outcome, outcome_of
from grader.layers.pairing import argument_for
from grader.layers.resemblance import in_a_sum, known_tensors, output_of
from grader.layers.rows import Culprit
from grader.layers.shared import shared_cache
from grader.layers.small_error import SmallError

ADAPTER = "Port"  # the class in the file that `grader port` writes
ROTATING = re.compile(r"table|cos|sin|angle|freq|rope|rotary|position_emb")  # what RoPE's angles are handed on as
SMALLEST_NAMED = 9  # a factor of 2 is also the root of a config's 4 heads; such small numbers name nothing


def find_culprit(comparison: Comparison) -> Culprit | None:
    """The first module that is wrong by itself while nothing in it is; where none is, the one whose error is small
    and grows. None if there is no such module either, as where rounding adds up over many.
    """
    if shared := shared_cache(comparison):
        return shared
    faulty = (n for n in comparison.nodes if n in comparison.faulty and not n.call.is_step)
    node = next((n for n in faulty if n not in comparison.holders), None)
    if node:
        return _Inquiry(comparison, node).explain()
    differs = (n for n in comparison.nodes if not n.seen.ok and not own_way(n) and not n.call.is_step)
    different = next(differs, None)
    return SmallError(comparison, comparison.nodes[0], different).culprit() if different else None


@dataclass(frozen=True)
class _Clue:
    """A sentence about wiring, whether it explains the error or only says where to look, and what is given wrongly."""

    text: str
    explains: bool = False
    about: Node | None = None


class _Inquiry:
    """Why one module is wrong: its calls are made once more, with the reference's input for the module itself."""

    def __init__(self, comparison: Comparison, node: Node) -> None:
        self.comparison = comparison
        self.node = node
        self.prefix = f"{node.path}." if node.path else ""
        self.large_sizes = {name: size for name, size in comparison.sizes.items() if size >= SMALLEST_NAMED}

    def explain(self) -> Culprit:
        node = self.node
        uncalled = [path for path in self.comparison.uncalled(self.prefix) if not self._uses(path)]
        if not uncalled and not any(other.parent is node for other in self.comparison.nodes):
            does = "it is wrong" if node.call.finished else "it raises an error"
            return self._culprit(f"{does} even on the reference's own input.", *self._other_arguments())
        run = lambda: node.call.again(node.right_input())  # noqa: E731
        calls, error = self.comparison.watched(run)
        spoiler = self._spoiler(calls)
        if spoiler is not None:
            holder = f"`{node.path or node.type}`"
            reason = f"it changes its input in place, and {holder} still needs that input afterwards."
            return Culprit(spoiler.path, spoiler.path, type(spoiler.module).__name__, (reason,))
        if error is None and (small := SmallError(self.comparison, node, node).culprit()):
            return small
        findings = []
        if error is None:
            findings += [_Clue(f"`{path}` is never called.", True) for path in uncalled]
            findings += self._called_too_often(calls)
        findings += self._first_wrong_step(calls, error, certain=bool(findings))
        if error is None and (step := self._wrong_step(calls, findings)):
            return step
        unsure = [] if any(finding.explains for finding in findings) else self._other_arguments()
        different, unknown = self._doubtful()
        given = f", or in the {' and '.join([*different, *unknown])} that it was given" if unsure else ""
        adapter = f", or in what `{node.type}` hands it" if self._adapted() else ""
        own = f"so the error is in its own forward{given}{adapter}"
        lead = f"all that it calls is right on the reference's input, {own}."
        return self._culprit(lead, *(finding.text for finding in findings), *self._other_contracts(), *unsure)

    def _uses(self, path: str) -> bool:
        """Whether the module uses what one in it holds that is never called, as `proj.weight @ x` does: whether other
        values of that change what it gives.
        """
        module = self.comparison.model.get_submodule(path)
        inside = set(module.modules())
        others = (m for m in self.comparison.model.modules() if m not in inside)
        shared = {id(p) for m in others for p in m.parameters(recurse=False)}
        own = [p for p in module.parameters() if id(p) not in shared]
        kept = [p.detach().clone() for p in own]
        try:
            before = first_tensor(self.node.call.again(self.node.right_input()))
            for parameter in own:
                parameter.data = 1.5 * parameter.data + 0.25
            after = first_tensor(self.node.call.again(self.node.right_input()))
        except Exception:  # learner's code may raise anything
            return False
        finally:
            for parameter, value in zip(own, kept, strict=True):
                parameter.data = value
        return bool(own) and before is not None and after is not None and not torch.equal(before, after)

    def _other_contracts(self) -> Iterator[str]:
        """What it calls that gives something else than the reference's and is not to blame."""
        for child, reason in self.comparison.excused.items():
            if child.parent is self.node:
                yield f"`{child.name}` gives something else than the reference's, and is not to blame: {reason}."

    def _culprit(self, *reasons: str) -> Culprit:
        node, adapted = self.node, self._adapted()
        if adapted is not None:
            return Culprit(node.path, adapted[0], adapted[1], reasons)
        return Culprit(node.path, node.name if node.path else node.type, node.type, reasons)

    def _adapted(self) -> tuple[str, str] | None:
        """The name and class of the program in an adapter, where that is the module that is looked into."""
        inside = list(self.node.call.module.named_children())
        if self.node.path or self.node.type != ADAPTER or len(inside) != 1:
            return None
        name, module = inside[0]
        return None if name in self.comparison.paths else (name, type(module).__name__)

    def _wrong_step(self, calls: Sequence[WatchedCall], findings: Sequence[_Clue]) -> Culprit | None:
        """The first step that the module names and that is wrong on the reference's input, unless more is known."""
        own = [other for other in self.comparison.nodes if other.parent is self.node]
        wrong = (other for other in own if other.call.is_step and other.wrong)
        step = next((other for other in wrong if not self._in_own_form(other)), None)
        if step is None or any(finding.explains and not self._comes_after(finding, step) for finding in findings):
            return None
        number = sum(other.path == step.path for other in own[: own.index(step)])
        again = [call.output for call in calls if call.path == step.path]
        got, want = again[number] if number < len(again) else None, step.recorded.output
        where = self._where(calls, step)
        lead = f"the first step of `{self.node.path or self.node.type}` that is wrong on its right input. Look {where}"
        looks = self._looks(got, arranged(_share_of(want, got), got)) if got is not None and want is not None else None
        further = [finding.text for finding in findings if finding.explains]
        reasons = (f"{lead}{f': {looks}' if looks else ''}.", *further, *self._other_arguments())
        return Culprit(step.path, step.name, f"step of {self.node.type}", reasons)

    def _in_own_form(self, step: Node) -> bool:
        """Whether a step gives more or fewer values than the reference's, as it does in a module that is right."""
        name = step.path.rpartition(":")[2]
        alike = [n for n in self.comparison.nodes if n.call.is_step and n.path.rpartition(":")[2] == name]
        return _of_another_size(step) and any(_is_right(n.parent) for n in alike if _of_another_size(n) and n.parent)

    def _where(self, calls: Sequence[WatchedCall], step: Node) -> str:
        """Between what the error of a step lies: the last that is right before it, and the first that is given a
        wrong thing and passes it on, or else the step.
        """
        right = ""
        for call, child in self._children(calls):
            if child is step:
                break
            argument, want = argument_for(call, child.recorded), child.recorded.input
            got = None if argument is None else call.leaves[argument]
            if got is not None and want is not None and got.numel() == want.numel() and not outcome(got, want, {}).ok:
                if not outcome_of(call.outputs, child.recorded, {}).ok:
                    return f"{f'between `{right}`, which is right, and' if right else 'before'} `{child.name}`"
            elif child.alone is not None and child.alone.ok:
                right = child.name
        return f"between `{right}`, which is right, and it" if right else "before it"

    def _comes_after(self, finding: _Clue, step: Node) -> bool:
        """Whether what a finding says is given wrongly is given after a step."""
        nodes = self.comparison.nodes
        return finding.about is not None and nodes.index(finding.about) > nodes.index(step)

    def _other_arguments(self) -> list[str]:
        """A reminder of what else the module is given that is not known to be right."""
        different, unknown = self._doubtful()
        return [
            *([f"It is also given another {' and '.join(different)} than in the reference."] if different else []),
            *self._wrong_arguments(self.node),
            *(
                [f"It is also given {' and '.join(unknown)}, which can't be compared: make sure of that, too."]
                if unknown
                else []
            ),
        ]

    def _wrong_arguments(self, node: Node) -> list[str]:
        """What is known of the further arguments of a module that are not the reference's."""
        return wrong_arguments(node, self.comparison.recorded, self.comparison.kinds)

    def _doubtful(self) -> tuple[list[str], list[str]]:
        """The names of the arguments that are not the reference's, and of those that it has nothing to compare with."""
        node = self.node
        right = {other.call for other in self.comparison.nodes if other.seen.ok}
        checked = {i for i, (maker, _) in node.call.made_by.items() if maker in right}
        names = node.call.names()
        shown = [i for i in node.unequal_tensors() if i in names and i not in checked and node.parent is not None]
        right_others = node.right_others()
        different = list(dict.fromkeys(f"`{names[i]}`" for i in shown if i in right_others))
        unknown = dict.fromkeys(names[i] for i in shown if i not in right_others)
        if self._rotates_rightly():
            unknown = {name: None for name in unknown if not ROTATING.search(name)}
        return different, [f"`{name}`" for name in unknown if f"`{name}`" not in different]

    def _rotates_rightly(self) -> bool:
        """Whether the module has a step of RoPE and that is right, so that what it is rotated by is, too."""
        own = [n for n in self.comparison.nodes if n.parent is self.node and n.path.endswith(":rope")]
        return bool(own) and all(map(_is_right, own))

    def _children(self, calls: Sequence[WatchedCall]) -> list[tuple[WatchedCall, Node]]:
        """The calls made directly in the repeated call of the module, each with what it is compared with."""
        waiting: dict[str, list[Node]] = defaultdict(list)
        for other in self.comparison.nodes:
            if other.parent is self.node:
                waiting[other.path].append(other)
        return [(call, waiting[call.path].pop(0)) for call in calls if waiting[call.path]]

    def _called_too_often(self, calls: Sequence[WatchedCall]) -> Iterator[_Clue]:
        wanted = Counter(call.path for call in self.comparison.recorded)
        own = Counter(call.path for call in calls if call.parent is calls[0] and not call.is_step)
        for path, count in own.items():
            right = [c.output for c in self.comparison.recorded if c.path == path and c.output is not None]
            outputs = [call.output for call in calls if call.path == path]
            if count > wanted[path] and not all(any(outcome(o, r, {}).ok for r in right) for o in outputs):
                times = "once" if wanted[path] == 1 else f"{wanted[path]} times"
                yield _Clue(f"`{path}` is called {count} times, and in the reference {times}.", True)

    def _first_wrong_step(
        self, calls: Sequence[WatchedCall], error: Exception | None, certain: bool
    ) -> Iterator[_Clue]:
        """The first module that is given something wrong, or else what is wrong after the last one."""
        previous, almost = "", ""
        for call, child in self._children(calls):
            want = child.recorded.input
            argument = argument_for(call, child.recorded)
            got = None if argument is None else call.leaves[argument]
            if not outcome_of(call.outputs, child.recorded, {}).ok:
                given = outcome(got, want, {}) if got is not None and want is not None else Outcome(True)
                if not given.ok and (given.in_kind or not almost):
                    assert got is not None and want is not None and argument is not None
                    found = self._given(child, got, want, call.made_by.get(argument))
                    text = f"{found.text} Look at what happens {_between(previous, child.name)}."
                    yield _Clue(text, found.explains, child)
                    return
                if child.better:
                    names = " and ".join(f"`{name}`" for name in child.misgiven) or "argument"
                    yield _Clue(f"`{child.name}` needs another {names}: it is right with {child.better}.", True)
                    yield from (_Clue(text, True) for text in self._wrong_arguments(child))
                    return
                almost = almost or ("" if child in self.comparison.excused else child.name)
            previous = child.name
        if not certain:
            yield from self._coarser_arguments()
        if almost and not certain and self.node.alone is not None and not self.node.alone.in_kind:
            yield _Clue(f"A small error before `{almost}` grows there: rounding that adds up, or an inexact step.")
        elif not certain:
            yield self._after(calls, error, previous)

    def _coarser_arguments(self) -> Iterator[_Clue]:
        """What the first module that is given such things is given in another dtype than in the reference."""
        for child in self.comparison.nodes:
            if child.parent is not self.node:
                continue
            names = child.call.names()
            found = {names.get(i, "an argument"): tensors for i, tensors in child.other_dtypes().items()}
            if found:
                given, own = next(iter(found.values()))
                dtypes = f"{given.dtype}, and in the reference in {own.dtype}".replace("torch.", "")
                yield _Clue(f"`{child.name}` is given {' and '.join(f'`{name}`' for name in found)} in {dtypes}.")
                return

    def _given(self, child: Node, got: Tensor, want: Tensor, maker: tuple[WatchedCall, int] | None) -> _Clue:
        """What a module was given instead of what the reference gives it."""
        text = f"`{child.name}` was given something else than in the reference"
        want = arranged(want, got)
        if not got.is_floating_point() and got.shape == want.shape:
            return _Clue(f"{text}: {_start(got)} for {_start(want)}.", True)
        known = known_tensors(self.comparison, self.node, child.recorded.type)
        due = known_as(want, {name: tensor for name, tensor in known.items() if name.startswith("the output")})
        should = f", and should equal {due}" if due else ""
        name = known_as(got, known)
        if name:
            return _Clue(f"{text}: it equals {name}{should}.", True)
        if maker is not None and maker[0].path != child.path and due != output_of(maker[0].path):
            return _Clue(f"{text}: it comes from `{maker[0].path}`{should}.", True)
        in_sum = in_a_sum(got, want, known)
        looks = in_sum or self._looks(got, want)
        return _Clue(f"{text}{f': {looks}' if looks else ''}.", in_sum is not None)

    def _after(self, calls: Sequence[WatchedCall], error: Exception | None, previous: str) -> _Clue:
        """What is wrong in a module whose parts are all given the right thing."""
        after = f"after `{previous}`" if previous else "in it"
        if error is not None:
            return _Clue(f"It raises an error {after}.", True)
        got, want = _first_different(calls[0].outputs, self.node.recorded)
        look = f"Look at what happens {after}"
        if got is None:
            return _Clue(f"{look}: it returns {calls[0].returned}, where a tensor belongs.", True)
        known, want = known_tensors(self.comparison, self.node), arranged(want, got)
        name = known_as(got, known)
        looks = f"it returns {name}" if name else in_a_sum(got, want, known)
        explains = looks is not None
        looks = looks or self._looks(got, want)
        layouts = [child for _, child in self._children(calls) if child.seen.ok and child.seen.note]
        other = f" (`{layouts[0].name}` returns an{layouts[0].seen.note} in the reference.)" if layouts else ""
        return _Clue(f"{look}{f': {looks}' if looks else ''}.{other}", explains)

    def _looks(self, got: Tensor, want: Tensor) -> str | None:
        given = self.node.recorded.input
        sizes = self.large_sizes if got.shape == want.shape else self.comparison.sizes
        whole = given is None or not given.is_floating_point()
        return describe(got, want, Context(sizes=sizes, input=None if whole else given))

    def _spoiler(self, calls: Sequence[WatchedCall]) -> WatchedCall | None:
        """The innermost module that modifies its input in place, if nearly all of the error is gone without that."""
        suspects = [call for call in calls[1:] if call.changed]
        before, want = self.node.alone, self.node.recorded.output
        if not suspects or before is None or want is None:
            return None

        def protect(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return copy.deepcopy(args), copy.deepcopy(kwargs)

        try:
            with contextlib.ExitStack() as hooks:
                for module in {call.module for call in suspects}:
                    hooks.enter_context(module.register_forward_pre_hook(protect, with_kwargs=True))
                output = first_tensor(self.node.call.again(self.node.right_input()))
        except Exception:  # learner's code may raise anything
            return None
        after = outcome(output, want, {})
        if not after.ok and (after.in_kind or after.mean > 0.01 * before.mean):
            return None
        return next(call for call in suspects if not any(other.parent is call for other in suspects))


def _share_of(want: Tensor, got: Tensor) -> Tensor:
    """Of what a step should give the channels that it gives, where it leaves out those that RoPE does not turn.

    They are the first or the last, and each token's are as long as they should be, since a turn keeps lengths.
    """
    width = got.shape[-1] if got.ndim else 0
    if got.ndim != want.ndim or got.shape[:-1] != want.shape[:-1] or not 0 < width < want.shape[-1]:
        return want
    parts = (want[..., :width], want[..., -width:])
    return next((part for part in parts if outcome(got.norm(dim=-1), part.norm(dim=-1), {}).ok), want)


def _first_different(outputs: Sequence[Tensor], recorded: Call) -> tuple[Tensor | None, Tensor]:
    """The first of a module's outputs that is wrong, and what it should be; the first one if none is."""
    assert recorded.output is not None
    pairs = list(zip(outputs, recorded.outputs, strict=False))
    first = pairs[0] if pairs else (None, recorded.output)
    return next(((got, want) for got, want in pairs if not outcome(got, want, {}).ok), first)


def _is_right(node: Node) -> bool:
    """Whether a module is right, or would be on its right input."""
    return node.seen.ok or (node.alone is not None and node.alone.ok)


def _of_another_size(node: Node) -> bool:
    """Whether a call gives another number of values than the reference's."""
    got, want = node.call.output, node.recorded.output
    return got is not None and want is not None and got.numel() != want.numel()


def _between(previous: str, name: str) -> str:
    return f"between `{previous}` and `{name}`" if previous else f"before `{name}`"


def _start(tensor: Tensor) -> str:
    """The first whole numbers of a tensor."""
    numbers = tensor.flatten()[:4].tolist()
    return f"{', '.join(map(str, numbers))}{', …' if tensor.numel() > len(numbers) else ''}"
