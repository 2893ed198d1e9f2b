"""What runs in a jailed child: cells, and the probe. It is told what to do on its channel and answers there."""

import contextlib
import gc
import linecache
import os
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

from grader.checks.observation import Observation, Problem
from grader.checks.probe import probe
from grader.checks.probe.parts import feed_parts, part_classes, part_types, replace_parts
from grader.checks.probe.provenance import is_given
from grader.checks.probe.running import learner_traceback, quietly
from grader.grading.sandbox import confinement, wire
from grader.grading.sandbox.dependencies import needed, plain_python
from grader.grading.sandbox.frames import Message, pack, receive, send, unpack
from grader.grading.sandbox.view import REACHED
from grader.package import package_folder
from grader.recordings.tasks import PartInput, PartOutput, Task, TaskCase

MODULE = "__main__"
PACKAGE = "grader"
ROOMS = [path.stem for path in package_folder().iterdir() if path.suffix in ("", ".py") and path.stem not in REACHED]
NEVER = float(1 << 40)  # a deadline: the grader keeps the time
MAX_COMMAND = 1 << 30


def warm_up() -> None:
    """Use once what every child uses, so that no child has to be the first."""
    weights = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    build = {"in_features": 2, "out_features": 2}
    case = TaskCase("warm", build, (torch.ones(1, 2),), torch.float32, weights)
    task = Task("warm", "Linear", False, True, {}, (case,))
    wire.observed(probe(wire.asked(unpack(wire.ask_probe(task, []))), nn.Linear))
    linecache.checkcache()


def put_out_of_reach() -> None:
    """Take what submissions have no use for out of the table of modules; what runs here holds on to what it needs.

    Of this package they can import what lessons do. Its other files are not there to be read (`view`).
    """
    sys.modules["transformers"] = None  # type: ignore[assignment]  # importing it fails at once
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE and not _in_reach(name)]:
        del sys.modules[name]
    for name in ROOMS:
        sys.modules[f"{PACKAGE}.{name}"] = None  # type: ignore[assignment]
    package = sys.modules[PACKAGE]
    for name in [name for name, value in vars(package).items() if isinstance(value, ModuleType)]:
        if not _in_reach(f"{PACKAGE}.{name}"):
            delattr(package, name)


def _in_reach(module: str) -> bool:
    child = module.partition(".")[2].partition(".")[0]
    return not child or child in REACHED


def fail_to_start(fd: int, error: Exception) -> None:
    """Say why this is no jail. No submitted code has run."""
    send(fd, pack({"error": f"{type(error).__name__}: {error}"}), NEVER)


def serve(fd: int) -> None:
    """Do what comes on the channel until it ends."""
    put_out_of_reach()
    torch.manual_seed(int.from_bytes(os.urandom(4)))
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module
    gc.disable()  # a collection would copy every page that the fork shares
    send(fd, pack({"ready": True}), NEVER)
    state = _State(module.__dict__)
    while True:
        message = unpack(receive(fd, MAX_COMMAND, NEVER))
        send(fd, _answer(message, state), NEVER)


@dataclass
class _State:
    """What a child knows. free: the student's own cells that have not run. problems: what stopped solution cells, or
    why what they define is no answer. given: the names of the files of the lesson's own cells. refused: the
    exercises whose cells do not define their solution."""

    namespace: dict[str, Any]
    free: list[tuple[int, str]] = field(default_factory=list)
    problems: dict[str, Problem] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


def _answer(message: Message, state: _State) -> bytes:
    do = message.body["do"]
    if do == "cell":
        return _run_part(message.body, state)
    if do == "needed":
        return pack(_needed_in(message.body["parts"]))
    if do == "escape":
        return pack(confinement.attempts(message.body))
    task = wire.asked(message)
    if task.solution not in state.namespace or task.exercise in state.refused:
        return _undefined(do, task, state.problems.get(task.exercise))
    target = state.namespace[task.solution]
    if do == "classes":
        return wire.classes(part_classes(task, target, message.body["solutions"], part_types(task, target)))
    if do == "feed":
        return wire.fed(feed_parts(task, target, wire.asked_parts(message, PartInput)))
    if do == "replace":
        return wire.replaced(replace_parts(task, target, wire.asked_parts(message, PartOutput)))
    return wire.observed(probe(task, target), message.body["limits"])


def _undefined(do: str, task: Task, problem: Problem | None) -> bytes:
    if do != "probe":
        return pack([])
    problem = problem or Problem("target", f"the cell does not define `{task.solution}`")
    return wire.observed([Observation(case.name, problem=problem) for case in task.cases])


def _run_part(body: dict[str, Any], state: _State) -> bytes:
    """Run a solution (or one of the instructor's cells) and before it the student's own cells that it needs."""
    exercise, source = body["exercise"], body["source"]
    before: list[tuple[int, str]] = []
    if source is None:  # it is not to run; what was written before it may serve a later one
        state.free += body["free"]
        return wire.ran(None)
    if exercise:
        source, before = _with_needed(source, body["free"], state)
    else:
        state.given.add(_filename(body["title"]))
    for _, text in before:
        _run_cell(f"cell before {body['title']}", text, state.namespace)
    earlier = state.namespace.get(body["solution"])
    problem = _run_cell(body["title"], source, state.namespace)
    refused = _no_answer(body["solution"], earlier, state)
    if exercise and refused:
        state.refused.add(exercise)
    if exercise and (found := problem or refused):
        state.problems[exercise] = found
    return wire.ran(problem)


def _no_answer(name: str, earlier: object, state: _State) -> Problem | None:
    """Why what a solution cell leaves under its solution's name is not the student's. earlier: what it was before.

    A lesson's own cells define classes of earlier lessons by the same names: one of these would be right at much.
    """
    if not name or name not in state.namespace:
        return None
    if state.namespace[name] is earlier:
        return Problem("target", f"the cell does not define `{name}`: what has that name was there before")
    if is_given(state.namespace[name], state.given):
        return Problem("target", f"`{name}` is no code of the submission: it is the lesson's or the grader's own")
    return None


def _with_needed(source: str, free: list[tuple[int, str]], state: _State) -> tuple[str, list[tuple[int, str]]]:
    """A solution as Python, and the student's own cells that it needs and that have not run. free: those before it."""
    state.free += free
    source = plain_python(source)
    before = needed(source, state.free)
    taken = {index for index, _ in before}
    state.free = [cell for cell in state.free if cell[0] not in taken]
    return source, before


def _needed_in(parts: list[tuple[str, list[tuple[int, str]]]]) -> list[int]:
    """Which of the student's own cells would run, without running any. parts: solutions, and the cells before each."""
    state = _State({})
    return [index for source, free in parts for index, _ in _with_needed(source, free, state)[1]]


def _run_cell(title: str, source: str, namespace: dict[str, Any]) -> Problem | None:
    """Run a cell as a notebook would; what it raises ends it, and is returned."""
    filename = _filename(title)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Problem("syntax", f"the cell is not valid Python: {_syntax(error)}")
    with quietly([]):
        try:
            exec(code, namespace)
        except SystemExit as error:  # ends a cell in a notebook, and not the kernel
            return Problem("exception", "the cell called exit", learner_traceback(error))
        except MemoryError:
            return Problem("memory", "the cell needs more memory than there is")
        except Exception as error:
            with contextlib.suppress(Exception):
                return Problem("exception", f"the cell raised {type(error).__name__}", learner_traceback(error))
            return Problem("exception", "the cell raised an error that can't be shown")
    return None


def _filename(title: str) -> str:
    return f"<{title}>"


def _syntax(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg}, line {error.lineno}: {(error.text or '').strip()}"
    return str(error) or type(error).__name__
