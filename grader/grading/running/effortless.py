"""Which cases of an exercise are right without any work on it: those count only beside one that is not.

In an exercise about *how* something is computed, the class that the stub extends gives the right values already, and
what is measured is what there is to do. And some cases are right for a program that returns its input, zeros or ones.
Which these are is found out by running such programs, among the lesson's own solutions, in a jailed child.
"""

import ast
import time
from collections.abc import Iterator, Mapping

from grader.checks.judge.verdict import Verdict
from grader.grading.running.bundle import Bundle
from grader.grading.running.children import Children, Program
from grader.grading.running.prober import InChildren
from grader.grading.running.submission import ProgramCell
from grader.grading.sandbox.jail import Jail

UNUSED = "    def unused(self):\n        return 1\n"  # code of one's own, as far as can be told without running it
# What a function returns, of its first two arguments; the last is as many first positions as are asked for.
RETURNED = (
    *("{0}", "torch.zeros_like({0})", "torch.ones_like({0})", "0", "1"),
    "torch.arange({0}.shape[-1]).expand({0}.shape)[..., :{1}]",
)
_found: dict[tuple[str, str], frozenset[str]] = {}


def effortless_cases(bundle: Bundle, exercise: str, jail: Jail) -> frozenset[str]:
    """The names of the cases that a program gets right in which nothing of the exercise is done.

    Nothing where the lesson's solutions are not there, among which such a program would run.
    """
    key = (bundle.recording_digest, exercise)
    if key not in _found:
        stubs = {step.exercise: step.source for step in bundle.plan.steps if step.exercise}
        nothing_done = {name: next(effortless(stub)) for name, stub in stubs.items()}
        alone = [{**bundle.solutions, exercise: one} for one in effortless(stubs[exercise]) if bundle.solutions]
        found = [_earned(bundle, exercise, sources, jail) for sources in alone]
        if bundle.solutions and bundle.public_recording.task(exercise).parts:
            # What is given keeps the points of its wiring where its parts alone are wrong.
            found.append(_earned(bundle, exercise, nothing_done, jail, with_parts=True))
        _found[key] = frozenset[str]().union(*found)
    return _found[key]


def only_effortless(verdict: Verdict, effortless: frozenset[str]) -> bool:
    """Whether all that earns points are cases that are right without any work."""
    earning = [case for case in verdict.cases if case.earned]
    return bool(earning) and all(case.name in effortless for case in earning)


def effortless(stub: str) -> Iterator[str]:
    """Programs that define what a stub does, and do nothing of it."""
    tree = ast.parse(stub)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases if not isinstance(base, ast.Attribute)]
            yield from (f"class {node.name}({base}):\n{UNUSED}" for base in (*bases, node.name))
    for value in RETURNED:
        yield ast.unparse(ast.fix_missing_locations(_Filled(value).visit(ast.parse(stub))))


class _Filled(ast.NodeTransformer):
    """Puts a line that returns something where a stub raises NotImplementedError."""

    def __init__(self, value: str) -> None:
        self._value = value

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """See `ast.NodeTransformer`."""
        self.generic_visit(node)
        names = [one.arg for one in node.args.args if one.arg != "self"] + ["None", "None"]
        line = "super().__init__()" if node.name == "__init__" else f"return {self._value.format(*names[:2])}"
        if any(isinstance(step, ast.Raise) for step in node.body):
            node.body = [step for step in node.body if not isinstance(step, ast.Raise)] + ast.parse(line).body
        return node


def _earned(
    bundle: Bundle, exercise: str, sources: Mapping[str, str], jail: Jail, *, with_parts: bool = False
) -> frozenset[str]:
    """The cases that earn points with these sources in the cells of exercises, up to this one's."""
    cells = []
    for step in bundle.plan.steps:
        title = f"cell of {step.exercise}" if step.exercise else step.grade_id
        cells.append(ProgramCell(step.exercise, title, sources.get(step.exercise, step.source)))
        if step.exercise == exercise:
            break
    recording = bundle.public_recording
    program = Program(cells, 0, recording.solutions(bundle.plan.exercises))
    children = Children(jail, time.monotonic() + bundle.limits.submission_seconds)
    prober = InChildren(children, program, recording, hidden=False)
    names = [cell.exercise for cell in cells if cell.exercise in bundle.plan.exercises]
    verdicts = prober.examine(names) if with_parts else prober.judge_alone([exercise])
    return frozenset(case.name for case in verdicts[exercise].cases if case.earned)
