"""What a comparison found: its rows, and where to start."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from grader.layers.comparison import CONTAINERS, Comparison
from grader.layers.forms import IN_ORDER, form_of
from grader.layers.node import Node, own_way
from grader.layers.outcome import Outcome
from grader.names import layers_as_one

Origin = Literal["", "own error", "error inside", "inherited"]


@dataclass(frozen=True)
class LayerRow:
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
class Culprit:
    """Where to start looking. path: "" where it is the model's own forward. reasons: a sentence each.

    place: the step of a run in which it is wrong. row: the row that stands for it, where that has another name.
    """

    path: str
    name: str
    type: str
    reasons: tuple[str, ...]
    place: str = ""
    row: str = ""


@dataclass(frozen=True)
class LayerReport:
    """What a comparison found: rows in the order in which the modules began, the model's output last.

    culprit: where to start, if a row differs. own_errors: paths of further modules that are wrong by themselves.
    one_sided: modules that only one of the two models has, or calls. traceback: the learner's own lines, if the
    pass raised an error. hints: what would make a wrong module right, and has to be asked for. remarks: more to say.
    unseen: what the trace can't show (see `Trace`).
    """

    rows: tuple[LayerRow, ...]
    culprit: Culprit | None
    own_errors: tuple[str, ...]
    one_sided: tuple[str, ...]
    traceback: tuple[str, ...]
    hints: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every row is right."""
        return all(row.outcome.ok for row in self.rows)


def rows_of(comparison: Comparison) -> list[LayerRow]:
    """A row for each call that is compared, the model's own last."""
    blocks = _blocks(comparison)
    rows = []
    for node in [*comparison.nodes[1:], *comparison.nodes[:1]]:
        outcome, origin = _judged(comparison, node)
        depth = sum(ancestor.parent is not None for ancestor in node.ancestors())
        rows.append(LayerRow(node.name, node.type, outcome, origin, blocks[node].name, depth))
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
    form = form_of(node.call, node.call.outputs, node.recorded)
    if form == IN_ORDER or (form and node in comparison.excused):
        return replace(node.seen, ok=True, note=f"another way: {form}"), ""
    return node.seen, "inherited"


def _blocks(comparison: Comparison) -> dict[Node, Node]:
    """For each node, the one that is shown for it while blocks are closed.

    Members of the outermost module lists are blocks; a module that contains such blocks is not one itself.
    """
    lists = {p for p, m in comparison.model.named_modules() if p and isinstance(m, nn.ModuleList | nn.Sequential)}
    members = {path for path in comparison.paths if path.rpartition(".")[0] in lists and ":" not in path}
    outermost = {path for path in members if not any(path.startswith(f"{other}.") for other in members)}
    blocks: dict[Node, Node] = {}
    for node in comparison.nodes:
        around = [a for a in node.ancestors() if a.parent is not None]
        closed = [a for a in around if not any(path.startswith(f"{a.path}.") for path in outermost)]
        blocks[node] = closed[-1] if closed else node
    return blocks


def one_sided(comparison: Comparison) -> list[str]:
    """What only one of the two models has, or calls."""
    own = {path for path, module in comparison.model.named_modules() if not isinstance(module, CONTAINERS)}
    theirs = {path for path in comparison.paths if ":" not in path}
    lines = []
    for title, paths in (
        ("Only in the reference", sorted(theirs - own)),
        ("Only in your model", sorted(own - theirs)),
        ("Never called by your model", [] if comparison.error else comparison.uncalled()),
        ("Steps that the reference has not", _strange_steps(comparison)),
    ):
        if paths:
            lines.append(f"{title}: {', '.join(summarised(paths))}")
    return lines


def summarised(paths: Iterable[str]) -> list[str]:
    """Paths in which only the number of a layer differs as one: ``h.*.attn``."""
    return [path.removesuffix(".") for path in layers_as_one(f"{path}." for path in dict.fromkeys(paths))]


def _strange_steps(comparison: Comparison) -> list[str]:
    """The steps that the program names, and that the reference has not."""
    own = {call.path for call in comparison.calls if call.is_step}
    return sorted(own - comparison.paths) if any(":" in path for path in comparison.paths) else []
