"""A learner's model in the runs of a trace: decoding with a cache, texts with padding, a start at another position."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from grader.calls import copied, first_tensor
from grader.errors import NeedsAdapter
from grader.layers.comparison import Comparison
from grader.layers.debugger import report_of
from grader.layers.outcome import Outcome, outcome
from grader.layers.pairing import given_right
from grader.layers.rows import Culprit, LayerReport, LayerRow
from grader.layers.shared import kept_in, told, users
from grader.padding import left_out, without_padding
from grader.porting.decoding import Decoder, optional_positions
from grader.porting.states import Snapshot, State, compared_states, held_by, held_in
from grader.recordings.traces import Run, RunStep, Trace

ANOTHER_WAY = "in another form than the reference's, and what follows is right"


def with_runs(found: LayerReport, model: nn.Module, trace: Trace) -> LayerReport:
    """The report of the pass without a cache, with what the runs of the trace show besides, if it holds any.

    Only the first step that is wrong is looked into, and none if the plain pass is wrong already.
    Raises NeedsAdapter where the program can't be given what a run needs.
    """
    if found.culprit is not None and trace.runs:
        found = replace(found, culprit=replace(found.culprit, row=found.culprit.row or _row_of(found)))
    for run in trace.runs:
        follower = _Follower(model, trace, run, blamed=not found.ok)
        rows = follower.rows()
        found = replace(found, rows=(*found.rows, *rows), culprit=found.culprit or follower.culprit,
                        own_errors=(*found.own_errors, *follower.own_errors),
                        traceback=found.traceback or follower.traceback)  # fmt: skip
        if found.ok and run.cached and run.steps[0].mask is None:
            found = _with_own_positions(found, model, trace, run)
    return found


def _with_own_positions(found: LayerReport, model: nn.Module, trace: Trace, run: Run) -> LayerReport:
    """The report with a row more, where a program has positions of its own for the case that none are handed to it."""
    name = optional_positions(model)
    if not name:
        return found
    follower = _Follower(model, trace, run, blamed=True)
    follower.decoder.tells_positions = False
    steps = [row for row in follower.rows() if row.name == row.block]
    outcome = next((row.outcome for row in steps if not row.outcome.ok), steps[-1].outcome)
    title = f"{run.name}, without `{name}`"
    row = LayerRow(title, "", outcome, "" if outcome.ok else "own error", title, 0)
    what = (
        f"with a cache and no `{name}` it is wrong: the positions that it takes then do not go on where the cache ends."
    )
    culprit = None if outcome.ok else Culprit("", type(model).__name__, "", (what,), title, title)
    return replace(found, rows=(*found.rows, row), culprit=culprit)


def _row_of(found: LayerReport) -> str:
    assert found.culprit is not None
    return found.culprit.name if found.culprit.path else found.rows[-1].name


class _Follower:
    """One run: its steps one after the other. culprit: where to start, if a step is wrong."""

    def __init__(self, model: nn.Module, trace: Trace, run: Run, blamed: bool) -> None:
        self.model, self.trace, self.run, self.blamed = model, trace, run, blamed
        self.blamed_before = blamed
        batch, capacity = run.steps[0].ids.shape[0], sum(step.ids.shape[1] for step in run.steps)
        self.decoder = Decoder(model, run.cached, batch, capacity)
        self.culprit: Culprit | None = None
        self.own_errors: tuple[str, ...] = ()
        self.traceback: tuple[str, ...] = ()
        self.states: list[tuple[str, State]] = []
        self.empty: list[str] = []  # after which steps the cache holds nothing

    def rows(self) -> list[LayerRow]:
        """One row for each step, the rows of the first wrong one, and one for each state of the cache."""
        start = Snapshot(self.model) if self.decoder.holds_its_cache else None
        steps = [self._step(step) for step in self.run.steps]
        if start is not None:
            start.restore()
        judged = dict(self._judged(steps))
        strange = [row for rows in judged.values() for row in rows if not row.outcome.ok]
        if strange and not self.blamed:  # it stands after the last step, or a later one would be wrong or right
            self.culprit = _left_behind(self.model, strange[0])
        return [row for title, rows in steps for row in (*rows, *judged.get(title, ()))]

    def _step(self, step: RunStep) -> tuple[str, list[LayerRow]]:
        title = f"{self.run.name}, {step.name}"
        rows = self._compared(step, title)
        if not rows[-1].outcome.ok:
            self.blamed = True
        return title, rows

    def _compared(self, step: RunStep, title: str) -> list[LayerRow]:
        before = Snapshot(self.model) if self.decoder.holds_its_cache else None
        after: list[Snapshot] = []
        held: dict[str, Tensor] = {}

        def one_pass() -> object:
            returned = self.decoder(step.ids, step.mask, step.positions)
            held.update(held_in(self.model) if self.decoder.holds_its_cache else held_by(self.decoder.cache))
            after.extend([Snapshot(self.model)] if before is not None else [])
            return returned

        with left_out(None if step.mask is None else step.mask[:, -step.ids.shape[1] :]):
            rows = self._rows(step, title, one_pass, before)
        if self.run.cached and held:
            self.states += [(title, state) for state in compared_states(step.states, held, step.mask)]
        if self.run.cached and step.states and not held:
            self.empty.append(title)
        for snapshot in after[-1:]:
            snapshot.restore()
        return rows

    def _rows(
        self, step: RunStep, title: str, one_pass: Callable[[], object], before: Snapshot | None
    ) -> list[LayerRow]:
        if self.blamed:
            outcome = self._last(step, one_pass)
            return [LayerRow(title, "", outcome, "" if outcome.ok else "inherited", title, 0)]
        part = replace(self.trace, args=(step.ids,), calls=step.calls, output=step.output, floor=step.floor, runs=())
        comparison = Comparison(self.model, part, one_pass, before.restore if before else None)
        if isinstance(comparison.error, NeedsAdapter):
            raise comparison.error
        report = report_of(comparison)
        if not report.ok:
            self._blame(report, title, comparison)
        *inside, whole = report.rows
        rows = [replace(row, name=f"{title}: {row.name}", block=title, depth=row.depth + 1) for row in inside]
        return [*rows, replace(whole, name=title, block=title)]

    def _last(self, step: RunStep, one_pass: Callable[[], object]) -> Outcome:
        try:
            got = copied(first_tensor(one_pass()))
        except NeedsAdapter:
            raise
        except Exception as error:  # learner's code may raise anything
            return Outcome(False, note=f"raised {type(error).__name__}", in_kind=True, raised=True)
        got = None if got is None else without_padding(got)
        return outcome(got, step.output, {}, "no tensor", step.floor)

    def _blame(self, report: LayerReport, title: str, comparison: Comparison) -> None:
        self.own_errors, self.traceback = report.own_errors, report.traceback
        differs = [state for _, state in self.states if not state.outcome.ok and state.place]
        reasons = tuple(_about(self.states, state) for state in differs[:1])
        if report.culprit is not None and not reasons:
            reasons = tuple(self._missing(_layer_of(report.culprit.path)))
        if report.culprit is None:
            what = "it is wrong, though none of its modules is wrong by itself."
            self.culprit = Culprit("", type(self.model).__name__, "", (what, *reasons), title, title)
            return
        if (shared := self._overwritten(comparison)) is not None:
            report = replace(report, culprit=shared)
            reasons = ()
        assert report.culprit is not None
        row = f"{title}: {report.culprit.name}" if report.culprit.path else title
        self.culprit = replace(report.culprit, reasons=(*report.culprit.reasons, *reasons), place=title, row=row)

    def _overwritten(self, comparison: Comparison) -> Culprit | None:
        """A layer whose cache holds what another layer wrote there, if the first that is wrong is such a one."""
        modules = [node for node in comparison.nodes if not node.call.is_step and node.parent is not None]
        wrong = (node for node in modules if not node.seen.ok and given_right(node.call, node.recorded))
        last = self.states[-1][0] if self.states else ""
        found = {_layer_of(state.name) for title, state in self.states if title == last and state.outcome.ok}
        for node, value in [(one, value) for one in wrong for _, value in kept_in(one.call)]:
            others = list(users(value, node, modules))
            kept_by = [other for other in others if _layer_of(other.path) in found]
            few = len(held_by(value)) <= len(others)  # a cache of all layers, which knows which is which, holds more
            if few and kept_by and len(found) == 1 and _layer_of(node.path) not in found:
                return told(node, kept_by[0], "it holds what that wrote there, and nothing of its own.")
        return None

    def _missing(self, layer: int | None) -> Iterator[str]:
        """What is to be said of the cache of a layer, where nothing in it is like what the reference's holds."""
        missing = [(t, s.name) for t, s in self.states if not s.place and layer in (None, _layer_of(s.name))]
        if self.empty:
            yield f"After {self.empty[0]} your cache holds no tensor of three axes or more."
        elif missing:
            title, name = missing[0]
            what = f"After {title} your cache holds nothing like the reference's `{name}`"
            yield f"{what}: it is cut, or in a form of its own."

    def _judged(self, steps: Sequence[tuple[str, list[LayerRow]]]) -> Iterator[tuple[str, list[LayerRow]]]:
        """The rows of the states: one in another form is right where what follows is, and is left out where another
        layer is to blame.
        """
        titles = [title for title, _ in steps]
        wrong = [title for title, rows in steps if not rows[-1].outcome.ok]
        strange = {title: {s.name for t, s in self.states if t == title and not s.outcome.ok} for title in titles}
        for number, title in enumerate(titles):
            follows, before = titles[number + 1 :], titles[:number]
            rows = []
            for state in [state for t, state in self.states if t == title]:
                is_own = not wrong and (bool(follows) or any(state.name in strange[t] for t in before))
                found = state.outcome
                if not found.ok and is_own:
                    found = replace(found, ok=True, note=ANOTHER_WAY)
                if not found.ok and not state.place and self._explained_without(state, title, wrong):
                    continue
                note = found.note or (f"your `{state.place}`" if state.place not in ("", state.name) else "")
                name = f"{title}: cache after it: {state.name}"
                origin = "" if found.ok else "inherited" if self._inherits(state, title, wrong) else "own error"
                rows.append(LayerRow(name, "state", replace(found, note=note), origin, title, 1))  # type: ignore[arg-type]
            yield title, rows

    def _explained_without(self, state: State, title: str, wrong: Sequence[str]) -> bool:
        """Whether what is wrong is known, and a state of which the program holds nothing like it has no part in it."""
        layer = self._layer_to_blame()
        return bool(wrong) and (self._inherits(state, title, wrong) or layer not in (None, _layer_of(state.name)))

    def _inherits(self, state: State, title: str, wrong: Sequence[str]) -> bool:
        """Whether what was wrong before accounts for a state: in the pass, in a step, or in a layer before its own."""
        if self.blamed_before or title in wrong[1:]:
            return True
        layer, own = self._layer_to_blame(), _layer_of(state.name)
        return title in wrong and layer is not None and own is not None and own > layer

    def _layer_to_blame(self) -> int | None:
        return _layer_of(self.culprit.path) if self.culprit is not None else None


def _layer_of(name: str) -> int | None:
    """The first number in a path."""
    found = re.search(r"\d+", name)
    return int(found[0]) if found else None


def _left_behind(model: nn.Module, row: LayerRow) -> Culprit:
    """All outputs are right, and a state of the cache is wrong that no later step reads."""
    state, note = row.name.rpartition(": ")[2], row.outcome.note
    apart = f" differs by up to {row.outcome.max:.1e}" if row.outcome.max else " is missing"
    what = f"every output is right, but the cache's `{state}`{apart}{f' ({note})' if note else ''}: the next token"
    return Culprit("", type(model).__name__, "", (f"{what} would be wrong.",), row.block, row.name)


def _about(states: Sequence[tuple[str, State]], state: State) -> str:
    title = next(title for title, other in states if other is state)
    return (
        f"The cache is not the reference's already after {title}: its `{state.name}`, which is your `{state.place}`,"
        f" differs by up to {state.outcome.max:.1e}."
    )
