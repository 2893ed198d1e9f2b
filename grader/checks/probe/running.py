"""Run learner's code: quietly, and with its errors told by the learner's own lines."""

import __future__

import ast
import bdb
import contextlib
import copy
import inspect
import io
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from types import MethodType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from grader.checks.observation import RAISED, Problem, temporary_folder
from grader.checks.probe.kinds import NOTHING, NoNumber, number
from grader.config import Config
from grader.devices import CPU, chosen_device, device_of, moved
from grader.package import package_folder
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.toy_lm import ending


class Stopped(Exception):
    """Ends a case with a problem."""

    def __init__(self, kind: str, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problem = Problem(kind, message, tuple(detail))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: cases are so small that on a busy machine waiting for a second one takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quietly(remarks: list[str]) -> Iterator[None]:
    """Run learner's code on one thread, and keep its warnings as remarks.

    Its stderr goes to stdout: nbgrader takes anything on stderr for a failure.
    """
    there = _in_its_folder()
    with there, warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(sys.stdout):
        warnings.simplefilter("always")
        # Neither a notebook that switched gradients off nor its random state plays a part.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]), one_thread():
            # Not a seed that a program would set. torch.manual_seed seeds every device's, and is slow.
            torch.default_generator.manual_seed(271_828)
            torch.rand(1)  # what is seeded again with the first seed is then another
            yield
    remarks.extend(f"warning: {str(w.message).splitlines()[0]}" for w in caught if str(w.message))


@contextlib.contextmanager
def _in_its_folder() -> Iterator[None]:
    """Put the current folder back, wherever the learner's code goes."""
    folder = current_folder()
    try:
        yield
    finally:
        if folder and current_folder() != folder:
            os.chdir(folder)


def current_folder() -> str:
    """The current folder; empty where it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """What runs beside the run that a learner watches prints nothing and stops at no breakpoint."""
    stop = bdb.Bdb.set_trace
    setattr(bdb.Bdb, "set_trace", lambda *args, **kwargs: None)  # noqa: B010  mypy forbids to assign a method
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        setattr(bdb.Bdb, "set_trace", stop)  # noqa: B010


def fresh_args(case: TaskCase, device: torch.device = CPU) -> list[Any]:
    """Copies of a case's arguments, on the device of what they are for."""
    fresh: list[Any] = tree_map(_fresh, list(case.args))
    return fresh if device == CPU else moved(fresh, device)


def _fresh(leaf: Any) -> Any:
    """A copy of an argument, a config's lists included; a model is the same for every case."""
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return copy.deepcopy(leaf) if isinstance(leaf, Config) else leaf


def changed_argument(task: Task, case: TaskCase, target: Any, given: Sequence[Any]) -> str | None:
    """Which of the arguments is no longer what it was, by the name that the function or the drive has for it.

    given: what the target, or the drive, was called with.
    """
    for position, (old, new) in enumerate(zip(case.args, given, strict=True)):
        if isinstance(old, Tensor | list):
            if not _same(old, new):
                return f"the input {_name_of(task, case, target, position)}"
        elif isinstance(old, Mapping) and (field := changed_field(old, new)):
            return f"the config's `{field}`"
    return None


def _same(old: Any, new: Any) -> bool:
    """Whether a tensor, or a list that may hold some, is what it was."""
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, Tensor):
        return isinstance(new, Tensor) and torch.equal(torch.nan_to_num(old.to(new.device)), torch.nan_to_num(new))
    return bool(old == new)


def changed_field(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The field of a config that is no longer what it was."""
    return next((name for name in {**old, **new} if (name in old, old.get(name)) != (name in new, new.get(name))), None)


def _name_of(task: Task, case: TaskCase, target: Any, position: int) -> str:
    """What the learner's function calls an argument; its number where that can't be told."""
    called = _drive(task.drive, case.drive) if task.drive else getattr(target, "forward", target)
    skipped = 0 if isinstance(called, MethodType) or (task.function and not task.drive) else 1
    try:
        names = list(inspect.signature(called).parameters)[skipped:]
    except (TypeError, ValueError):
        names = []
    return f"`{names[position]}`" if position < len(names) else f"number {position + 1}"


Watched = Callable[[Any], contextlib.AbstractContextManager[Any]]


def use(task: Task, case: TaskCase, target: Any, *args: Any, watched: Watched = contextlib.nullcontext) -> Any:
    """What the learner's module or function gives for a case's arguments: called, or used as its drive does.

    watched: makes of the target one whose calls by a drive are watched.
    """
    drive = _drive(task.drive, case.drive) if task.drive else None
    with ending(args):
        if drive is None:
            return call_learner(target, *args)
        device = device_of(target)
        there = contextlib.nullcontext() if device == CPU else device  # a drive's own tensors belong with the module's
        with there, learner_errors(), watched(target) as used:  # a class may refuse to be watched
            return call_learner(drive, used, *args)


@cache
def _drive(source: str, name: str) -> Callable[..., Any]:
    """The function of that name that `source`, of a recording, defines; its first function for no name."""
    tree = _StrictNumbers().visit(ast.parse(source, DRIVE_FILE))
    raising = frozenset(node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise))
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor, RAISING: raising}
    namespace |= {STRICT[kind.__name__]: partial(number, kind) for kind in (float, int)}
    # Types in its signature are the author's, and are not looked up.
    exec(compile(tree, DRIVE_FILE, "exec", flags=__future__.annotations.compiler_flag), namespace)
    found: Callable[..., Any] = namespace[name] if name else next(filter(inspect.isfunction, namespace.values()))
    return found


DRIVE_FILE = "<how the check uses it>"
RAISING = "_lines_that_raise"  # in a drive's namespace
STRICT = {"float": "_as_float", "int": "_as_int"}


class _StrictNumbers(ast.NodeTransformer):
    """Has a drive's `float(x)`, `int(x)` and `map(float, x)` take numbers alone: `float("0.1")` would pass a text."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.func = self._strict(node.func)
        if isinstance(node.func, ast.Name) and node.func.id == "map" and node.args:
            node.args[0] = self._strict(node.args[0])
        return node

    @staticmethod
    def _strict(name: ast.expr) -> ast.expr:
        if isinstance(name, ast.Name) and name.id in STRICT:
            return ast.copy_location(ast.Name(STRICT[name.id], ast.Load()), name)
        return name


def call_learner(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call of the learner's code gives. Whether it leaves gradients on or off plays no part after it."""
    with learner_errors(), chosen_device(), torch.set_grad_enabled(torch.is_grad_enabled()):
        return function(*args, **kwargs)


@contextlib.contextmanager
def learner_errors() -> Iterator[None]:
    """Turn what the learner's code raises into a problem that shows their lines only."""
    try:
        yield
    except Stopped:
        raise
    except (Exception, SystemExit) as error:  # learner's code may raise anything
        if isinstance(error, NotImplementedError) and (name := stub_of(error)):
            raise Stopped("not_written", f"{name} is not written yet: replace `raise NotImplementedError()`") from error
        if unusable := _unusable(error):
            raise Stopped("type", unusable) from error
        detail = (*learner_traceback(error)[:-1], *_shapes_that_met(error))
        raise Stopped("exception", f"{RAISED}{_headline(error)}", detail) from error


def _unusable(error: BaseException) -> str:
    """What came back that a drive can't go on with, in a sentence; empty where it was not the drive that stopped."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames or any(is_learners(frame.f_code.co_filename) for frame, _ in frames):
        return ""
    if isinstance(error, NoNumber):
        return message_of(error)
    frame, line = frames[-1]
    if frame.f_code.co_filename != DRIVE_FILE:
        return ""
    message = next(iter(message_of(error).splitlines()), "")
    if line in frame.f_globals.get(RAISING, ()) and message:  # the author's words
        said = _OF_OTHERS.sub(r"\g<0> of something else", message.replace("a NoneType", "None"))
        return f"the check can't go on: {said}"
    if _WRONGLY_CALLED.match(message):
        return ""
    if isinstance(error, StopIteration):
        return "it gave fewer values than belong there"
    if "NoneType" in message:
        return NOTHING
    if odd := _NOT_INFERRED.search(message):
        return f"it gave a {odd[1] or odd[2] or odd[3]} where a number belongs"
    if isinstance(error, AttributeError):
        return f"the check looks for something that is not there: {message}"
    return f"the check can't use what came back: {_headline(error)}"


_WRONGLY_CALLED = re.compile(r"\S+\(\) (takes|missing|got)\b")
_OF_OTHERS = re.compile(r"(?<=returned )(?:(an? \w+)(?=; \1 of )|a tuple(?=; two tensors belong))")
_NOT_INFERRED = re.compile(r"invalid data type '(\w+)'|Could not infer dtype of (\w+)|too many dimensions '(\w+)'")


def _shapes_that_met(error: BaseException) -> tuple[str, ...]:
    """The shapes of the tensors that the learner's last line names, in a line; none where it names none.

    They are looked up without running any code of the learner's.
    """
    frames = [frame for frame in traceback.walk_tb(error.__traceback__) if is_learners(frame[0].f_code.co_filename)]
    if not frames or not isinstance(error, RuntimeError | IndexError | ValueError):
        return ()
    frame, number = frames[-1]
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).partition("#")[0]
    shapes = {}
    for name in dict.fromkeys(_NAMES.findall(line)):
        value = _found_in(frame.f_locals, name)
        if type(value) in (Tensor, nn.Parameter):
            shapes[name] = f"{name} is {list(value.shape)}"
    return (", ".join(list(shapes.values())[:MOST_SHAPES]),) if shapes else ()


_NAMES = re.compile(r"(?<![\w.])(?:self\.)?[A-Za-z_]\w*")
MOST_SHAPES = 4


def _found_in(names: Mapping[str, Any], name: str) -> Any:
    """What a name such as `x` or `self.weight` stands for; None for what isn't simply kept under it."""
    if not name.startswith("self."):
        return names.get(name)
    own = names.get("self")
    if not isinstance(own, nn.Module):
        return None
    kept, name = object.__getattribute__(own, "__dict__"), name.removeprefix("self.")
    kinds = (kept, kept.get("_parameters"), kept.get("_buffers"))
    return next((kind[name] for kind in kinds if type(kind) is dict and name in kind), None)


def message_of(error: BaseException) -> str:
    """The error's message, whatever its class makes of it."""
    try:
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error).strip()
    except Exception:
        return ""


def _headline(error: BaseException) -> str:
    """The error's name and its first line, without what is another in every run: addresses and temporary folders."""
    lines = message_of(error).splitlines()
    first = " ".join(map(str.strip, lines[: 2 if lines and lines[0].endswith(":") else 1]))
    same = re.sub(rf"(?<=['\"\s]){temporary_folder()}", ".../", re.sub(r" at 0x[0-9a-f]+", "", first))
    return f"{type(error).__name__}: {same}" if lines else type(error).__name__


def stub_of(error: NotImplementedError) -> str:
    """The function that is still a stub, as in `Block.forward`; empty where the error says more or is another's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if is_learners(frame.f_code.co_filename)]
    if message_of(error) or (own and own[-1] is not frames[-1]):
        return ""
    return f"`{own[-1].f_code.co_qualname}`" if own else "it"


def _learner_frames(tb: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames that are neither this engine's nor a library's."""
    return [frame for frame in traceback.extract_tb(tb) if is_learners(frame.filename)]


def is_learners(filename: str) -> bool:
    """Whether code in this file is the learner's: neither this engine's, nor a library's, nor Python's."""
    if filename == DRIVE_FILE or filename.startswith("<frozen"):
        return False
    return not any(filename.startswith(folder) for folder in _LIBRARY_FOLDERS)


_LIBRARY_FOLDERS = tuple(
    {
        os.path.join(package_folder(), ""),  # with the system's own separator at its end
        torch.__file__.rsplit("torch", 1)[0],
        inspect.__file__.rsplit("inspect.py", 1)[0],
    }
)


def learner_traceback(error: BaseException) -> tuple[str, ...]:
    """The learner's own lines in an error's traceback, outermost first, and the error's message.

    Lines read ``line 7, in forward:  x = self.c_atn(x)``; line numbers count from the cell's first line. Of a
    long traceback the middle is left out.
    """
    lines = [
        f"line {frame.lineno}, in {frame.name}:  {(frame.line or '').strip()}"
        for frame in _learner_frames(error.__traceback__)
    ]
    if len(lines) > 6:
        lines[3:-3] = [f"... {len(lines) - 6} lines more ..."]
    message = " ".join(message_of(error).splitlines()[:4])
    return (*lines, f"{type(error).__name__}: {message}" if message else type(error).__name__)
