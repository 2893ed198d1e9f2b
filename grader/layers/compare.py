"""The layer debugger: every module of a learner's model against the same module of the reference."""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from grader.checks.building import build_module, constructed
from grader.checks.check import autograding, find_recording
from grader.checks.running import Stopped, learner_traceback, quietly
from grader.devices import comparing_on_cpu
from grader.errors import CheckFailed, GraderError, NeedsAdapter, RecordingError
from grader.layers.comparison import Comparison, Node, own_way
from grader.layers.culprit import Culprit, uncalled
from grader.layers.outcome import Outcome
from grader.layers.own_model import called_with_config
from grader.layers.own_names.alignment import Alignment
from grader.layers.own_names.naming import OwnNames, loaded_by_content
from grader.layers.search import find_culprit
from grader.names import layers_as_one
from grader.recordings.format import RECORDING
from grader.recordings.naming import in_names_of
from grader.recordings.tasks import TaskCase
from grader.recordings.traces import Trace
from grader.report import Line, LineKind, show

Origin = Literal["", "own error", "error inside", "inherited"]
Open = Literal["first", "all", "none"]
DERIVED = (
    "Your model derives head_dim as hidden size / heads. In the published model that is the same number, so it was"
    " compared with a small reference in which it is, too."
)


@dataclass(frozen=True)
class Row:
    """One call of one module. name: its path, with ``[1]`` for its second call if there are several.

    block: the name of the row that stands for it while blocks are closed; its own, if it is such a row.
    depth: how many compared modules it lies in. origin: where its error comes from, if it has one.
    """

    name: str
    type: str
    outcome: Outcome
    origin: Origin
    block: str
    depth: int


@dataclass(frozen=True)
class LayerReport:
    """What a comparison found: rows in the order in which the modules began, the model's output last.

    culprit: where to start, if a row differs. own_errors: paths of further modules that are wrong by themselves.
    one_sided: modules that only one of the two models has, or calls. traceback: the learner's own lines, if the
    pass raised an error. alignment: which tensor is which, where the model has names of its own.
    """

    rows: tuple[Row, ...]
    culprit: Culprit | None
    own_errors: tuple[str, ...]
    one_sided: tuple[str, ...]
    traceback: tuple[str, ...]
    alignment: Alignment | None = None
    remarks: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is right."""
        return all(row.outcome.ok for row in self.rows)


def compare_layers(model: Any, trace: Trace | None = None, open: Open = "first") -> None:
    """Compare a model with the reference, module by module, and show where to start looking.

    model: the class, or an instance, which is left as it is: a copy gets the reference's weights. Both are run on
    the CPU, whatever device they are on.
    trace: the reference's pass; that of the notebook's lesson if None. Compared with one that is given, the model may
    have names of its own.
    open: whether to show what is inside the first block with an error, inside all blocks, or inside none.
    Raises CheckFailed if a row differs (not while nbgrader autogrades), and GraderError if the model can't be
    compared at all.
    """
    with comparing_on_cpu():
        report = layer_report(model, _lesson_trace()) if trace is None else layer_report(model, trace, OwnNames())
    culprit = report.culprit.path if report.culprit else None
    show(report_lines(report, open), {"rows": len(report.rows), "passed": report.ok, "culprit": culprit})
    if not report.ok and not autograding():
        raise CheckFailed("The model differs from the reference: see the report above.")


def _lesson_trace() -> Trace:
    trace = find_recording().trace
    if trace is None:
        raise RecordingError(f"{RECORDING} holds no trace of a whole model, so there are no layers to compare.")
    return trace


def layer_report(model: Any, trace: Trace, own: OwnNames | None = None) -> LayerReport:
    """Compare a model's class or instance with a trace.

    own: what is known of the model's names, if they may be others than the reference's. Raises GraderError where it
    can't be built, or its parameters are not the reference's.
    """
    with quietly([]), torch.no_grad():
        built, trace, alignment = _built(model, trace, own)
        comparison = Comparison(built, trace)
        _require_ids_alone(comparison)
        rows = _rows(comparison)
        culprit = None if all(row.outcome.ok for row in rows) else find_culprit(comparison)
    further = [n.path for n in comparison.nodes if n in comparison.faulty and n not in comparison.holders]
    return LayerReport(
        rows=tuple(rows),
        culprit=culprit,
        own_errors=tuple(_summarised(path for path in further if culprit and path != culprit.path)),
        one_sided=tuple(_one_sided(comparison)),
        traceback=learner_traceback(comparison.error) if comparison.error else (),
        alignment=alignment,
        remarks=tuple(_remarks(comparison)),
    )


def port_report(target: Any, trace: Trace, own: OwnNames) -> LayerReport:
    """As `layer_report`, of a class, a model, or a function of the config.

    A program that derives its head_dim is compared with a reference that does, where the published model does.
    """
    try:
        return layer_report(called_with_config(target, trace.build), trace, own)
    except GraderError as error:
        if trace.derived is None or isinstance(error, NeedsAdapter):
            raise
        try:
            found = layer_report(called_with_config(target, trace.derived.build), trace.derived, own)
        except GraderError:
            raise error from None
    return replace(found, remarks=(DERIVED, *found.remarks))


def _remarks(comparison: Comparison) -> Iterator[str]:
    node = comparison.nodes[0]
    got, want = node.call.output, node.recorded.output
    if got is None or want is None or got.ndim != 3 or want.ndim != 3 or not got.shape[1] == 1 < want.shape[1]:
        return
    yield (
        "Your model returns the logits of the last token alone, and the reference's are of all tokens. Where it gives"
        " all of them if it is handed targets, `grader port` writes the lines that do so."
    )


def _require_ids_alone(comparison: Comparison) -> None:
    """Raise NeedsAdapter where the model asks for more than the reference is given."""
    asked = re.search(r"missing \d+ required positional arguments?: (.+)", str(comparison.error))
    if comparison.error is not None and asked and not comparison.calls[1:]:
        name = type(comparison.model).__name__
        wanted = asked[1].replace("'", "`")
        raise NeedsAdapter(f"{name} can't be compared: besides the token ids, its forward asks for {wanted}.") from None


def _built(model: Any, trace: Trace, own: OwnNames | None) -> tuple[nn.Module, Trace, Alignment | None]:
    """The learner's model with the recorded weights, the trace under the model's own names, and what was matched."""
    built_from: type = model if isinstance(model, type) else type(model)
    name = built_from.__name__
    try:
        if own is not None and own.known:
            return _by_content(model, trace, own)
        return (*_loaded(model, trace), None)
    except Stopped as stopped:
        if own is not None and stopped.problem.kind == "parameters":
            return _by_content(model, trace, own)
        if built_from is not model and stopped.problem.kind == "parameters" and _fits(built_from, trace):
            raise GraderError(
                f"This {name} was built with another config than the recorded one, and so has other sizes."
                f" Hand over the class, which is built as the recorded one was: compare_layers({name})"
            ) from None
        lines = [f"{name} can't be compared: {stopped.problem.message}", *stopped.problem.detail]
        kind = GraderError if stopped.problem.kind == "parameters" else NeedsAdapter
        raise kind("\n  ".join(lines)) from None


def _by_content(model: Any, trace: Trace, own: OwnNames) -> tuple[nn.Module, Trace, Alignment | None]:
    made = _made(model, trace)
    return (made, *loaded_by_content(made, trace, own))


def _fits(model: type, trace: Trace) -> bool:
    """Whether the class, built as the reference was, has the reference's parameters."""
    try:
        _loaded(model, trace)
    except Stopped:
        return False
    return True


def _loaded(model: Any, trace: Trace) -> tuple[nn.Module, Trace]:
    """As `_built`. Raises Stopped where it can't be built, or its parameters are not the reference's."""
    made = _made(model, trace)
    trace = in_names_of(made, trace)
    case = TaskCase("trace", {}, trace.args, trace.dtype, trace.weights)
    return build_module(lambda: made, case)[0], trace


def _made(model: Any, trace: Trace) -> nn.Module:
    """A copy of an instance, or a class's module."""
    if isinstance(model, nn.Module):
        try:
            return copy.deepcopy(model).cpu()
        except Exception as error:  # whatever the learner keeps in the model
            raise GraderError(f"This model can't be copied ({error}). Hand over its class instead.") from None
    if isinstance(model, type) and issubclass(model, nn.Module):
        return constructed(model, trace.build).cpu()
    kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
    raise GraderError(f"compare_layers needs an nn.Module, the class or an instance of it; this is {kind}.")


def _rows(comparison: Comparison) -> list[Row]:
    blocks = _blocks(comparison)
    rows = []
    for node in [*comparison.nodes[1:], *comparison.nodes[:1]]:
        outcome, origin = _judged(comparison, node)
        depth = sum(ancestor.parent is not None for ancestor in node.ancestors())
        rows.append(Row(node.name, node.type, outcome, origin, blocks[node].name, depth))
    return rows


def _judged(comparison: Comparison, node: Node) -> tuple[Outcome, Origin]:
    if node.seen.ok:
        return node.seen, ""
    right = own_way(node)
    if right is not None:
        where = right.path or right.name
        return replace(node.seen, ok=True, note=f"another way, and `{where}` is right"), ""
    if node in comparison.faulty:
        return node.seen, "error inside" if node in comparison.holders else "own error"
    return node.seen, "inherited"


def _blocks(comparison: Comparison) -> dict[Node, Node]:
    """For each node, the one that is shown for it while blocks are closed.

    Members of the outermost module lists are blocks; a module that contains such blocks is not one itself.
    """
    lists = {p for p, m in comparison.model.named_modules() if p and isinstance(m, nn.ModuleList | nn.Sequential)}
    members = {path for path in comparison.paths if path.rpartition(".")[0] in lists}
    outermost = {path for path in members if not any(path.startswith(f"{other}.") for other in members)}
    blocks: dict[Node, Node] = {}
    for node in comparison.nodes:
        around = [a for a in node.ancestors() if a.parent is not None]
        closed = [a for a in around if not any(path.startswith(f"{a.path}.") for path in outermost)]
        blocks[node] = closed[-1] if closed else node
    return blocks


def _one_sided(comparison: Comparison) -> list[str]:
    containers = nn.ModuleList | nn.ModuleDict
    own = {path for path, module in comparison.model.named_modules() if not isinstance(module, containers)}
    lines = []
    for title, paths in (
        ("Only in the reference", sorted(comparison.paths - own)),
        ("Only in your model", sorted(own - comparison.paths)),
        ("Never called by your model", [] if comparison.error else uncalled(comparison)),
    ):
        if paths:
            lines.append(f"{title}: {', '.join(_summarised(paths))}")
    return lines


def _summarised(paths: Iterable[str]) -> list[str]:
    """Paths in which only the number of a layer differs as one: ``h.*.attn``."""
    return [path.removesuffix(".") for path in layers_as_one(f"{path}." for path in dict.fromkeys(paths))]


# How a person sees it


def report_lines(report: LayerReport, open: Open = "first") -> list[Line]:
    """Where to start, the table of rows, and what could not be compared."""
    opened = _opened(report, open)
    rows = [row for row in report.rows if row.block == row.name or row.block in opened]
    lines = [*_diagnosis(report), *(Line(text, "code", 1) for text in report.traceback)]
    hints = report.alignment.hints if report.alignment else ()
    lines += [Line(text, "hint", 1) for text in (*hints, *report.remarks)]
    lines += [Line("", "head", 0, ("", "module", "max", "mean", "")), *(_row_line(row, report) for row in rows)]
    if report.own_errors:
        lines.append(Line(f"Wrong by themselves, too: {', '.join(report.own_errors)}", "muted"))
    lines.extend(Line(text, "muted") for text in report.one_sided)
    return lines


def _diagnosis(report: LayerReport) -> list[Line]:
    culprit = report.culprit
    if report.ok:
        exact = all(row.outcome.max == 0 for row in report.rows)
        count = "The only row matches" if len(report.rows) == 1 else f"All {len(report.rows)} rows match"
        return [Line(f"✓ {count} the reference{', bit-exact' if exact else ''}.", "ok")]
    if culprit is None:
        return [Line("✗ No module is wrong by itself: small errors add up, as rounding does.", "bad")]
    name = f"`{culprit.name}` ({culprit.type})" if culprit.path else f"`{culprit.type}` itself"
    first, *more = culprit.reasons
    return [Line(f"✗ Start here: {name}: {first}", "bad"), *(Line(reason, "hint", 1) for reason in more)]


def _opened(report: LayerReport, open: Open) -> set[str]:
    """The names of the blocks whose inside is shown."""
    closed = [row for row in report.rows if row.block != row.name]
    if open == "all":
        return {row.block for row in closed}
    if open == "none":
        return set()
    wrong = {row.name for row in report.rows if row.origin in ("own error", "error inside")}
    wrong = wrong or {row.block for row in report.rows if not row.outcome.ok}
    return set(next(([row.block] for row in closed if row.block in wrong), []))


def _row_line(row: Row, report: LayerReport) -> Line:
    outcome = row.outcome
    measured = outcome.ok or outcome.max != 0 or not outcome.note
    numbers = [_number(value) if measured else "" for value in (outcome.max, outcome.mean)]
    said = "; ".join(part for part in (row.origin, outcome.note) if part)
    indent = "" if row.block == row.name else "  " * row.depth
    mark = "[OK]" if outcome.ok else "[DIFF]"
    return Line("", _row_kind(row, report), 0, (mark, indent + row.name, *numbers, said))


def _row_kind(row: Row, report: LayerReport) -> LineKind:
    """Green for right, red for wrong by itself, grey for what only suffers; the one to start with is tinted, too."""
    culprit = report.culprit
    if culprit and row.name == (culprit.name if culprit.path else report.rows[-1].name):
        return "row_guilty"
    if row.outcome.ok:
        return "row_ok"
    return "row_bad" if row.origin == "own error" else "row_dim"


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"
