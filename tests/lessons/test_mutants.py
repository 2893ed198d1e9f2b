"""Change every solution a little, everywhere, one change at a time: the checks must notice each change.

A change that a check lets pass must be listed in the lesson's equivalent_mutants.toml with the reason why it changes
nothing that could be noticed.
"""

import contextlib
import io
import json
import resource
import signal
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from axes import axes_while, instrumented
from mutants import Mutant, mutants

from grader.checks.judge import judge
from grader.checks.observation import Observation
from grader.checks.probe import probe_each
from grader.errors import RecordingError
from grader.lessons.lesson import Lesson
from grader.recordings.answers import Answer
from grader.recordings.recording import Recording
from grader.tolerance import agree

pytestmark = pytest.mark.sampled(16)

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 5  # of processor time, at most: a mutant that loops forever is stopped, and counts as noticed
LONGER = 20  # so many times what the solution takes for its own cases is enough for a mutant, from a second on
AGAIN = 0.5  # of a second: where a first error was lost, the next one comes


@cache
def recording(lesson: Path) -> Recording:
    return Recording.read(Lesson(lesson).recording)


@cache
def known_equivalents(lesson: Path) -> dict[str, dict[str, str]]:
    """Exercise -> change -> why nothing could notice it."""
    path = lesson / "equivalent_mutants.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def exercises() -> Iterator[Any]:
    for recorded in sorted((ROOT / "solutions").glob("*/reference.safetensors")):
        for name in recording(recorded.parent).exercises:
            yield pytest.param(recorded.parent, name, id=f"{recorded.parent.name} {name}")


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """A mutant that doubles a tensor at every step gets an error, before it takes the machine's memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (6 * 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """Raises TimeoutError after so much processor time; again and again, since an error in a callback of the garbage
    collector is lost."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def passes(
    recorded: Recording,
    exercise: str,
    changed: Callable[[str], dict[str, Any]],
    mutant: Mutant,
    seconds: float = SECONDS,
) -> bool:
    """Whether the check lets the mutant pass. Most don't get beyond the first cases, and are not examined further."""
    task, answer = recorded.task(exercise), recorded.answer(exercise)
    try:
        with time_limit(seconds), contextlib.redirect_stdout(io.StringIO()):
            target = changed(mutant.source)[task.solution]
            outputs = probe_each(task, target, outputs_only=True)
            return all(gives_it(answer, i, one) for i, one in enumerate(outputs)) and right(recorded, exercise, target)
    except (RecordingError, KeyError, TimeoutError):
        return False


def gives_it(answer: Answer, case: int, given: Observation) -> bool:
    """Whether what a program gives in one case is right; a verdict asks more than that."""
    return given.output is not None and agree(given.output, answer.outputs[case], answer.tolerances[case])


def right(recorded: Recording, exercise: str, target: Any) -> bool:
    """Whether a check finds a program right. The first case that it finds wrong settles that, and nothing is told.

    It is what `examine` judges by: what else that looks at tells whose the error is.
    """
    task, answer = recorded.task(exercise), recorded.answer(exercise)
    seen: list[Observation] = []
    for place, observation in enumerate(probe_each(task, target)):
        seen.append(observation)
        if not gives_it(answer, place, observation) or not judge(task, answer, seen).cases[place].right:
            return False
    return judge(task, answer, seen).right


def axes_of(
    recorded: Recording, exercise: str, changed: Callable[[str], dict[str, Any]], source: str
) -> dict[tuple[int, int], int]:
    """Of how many axes each number in a solution names one, in the exercise's own cases."""
    task = recorded.task(exercise)
    return axes_while(lambda: list(probe_each(task, changed(instrumented(source))[task.solution])))


@pytest.mark.parametrize(("folder", "exercise"), list(exercises()))
def test_every_change_of_a_solution_is_noticed(folder: Path, exercise: str) -> None:
    lesson = Lesson(folder)
    recorded, namespace = recording(folder), lesson.changed(exercise)
    source = lesson.source_of(exercise)
    began = time.process_time()
    changed = mutants(source, axes_of(recorded, exercise, namespace, source))
    seconds = min(SECONDS, max(1, LONGER * (time.process_time() - began)))
    assert changed
    survivors = {mutant.change for mutant in changed if passes(recorded, exercise, namespace, mutant, seconds)}
    known = known_equivalents(folder).get(exercise, {})
    killed, equivalent = len(changed) - len(survivors), len(survivors & known.keys())
    print(f"{exercise}: {killed} of {len(changed)} mutants noticed, {equivalent} change nothing")
    unknown = [f'{json.dumps(change, ensure_ascii=False)} = "why"' for change in sorted(survivors - known.keys())]
    listed = "\n".join(["let pass, as equivalent_mutants.toml would have them:", f'["{exercise}"]', *unknown])
    assert not unknown, listed
    assert not known.keys() - survivors, "listed, but noticed or gone:\n" + "\n".join(sorted(known.keys() - survivors))
