"""A lesson's exercises, its own solutions, what its others.py says, and the engine's verdict on any program.

A lesson's own test and its others.py start with ``LESSON = lesson_of(__file__)``. Whatever takes long is made once in a
process.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from grader.authoring.kit.declared import Change
from grader.authoring.recorder import record_exercise
from grader.checkpoints import load_checkpoint
from grader.checks.examine import examine_here
from grader.checks.judge import judge
from grader.checks.judge.verdict import Verdict
from grader.checks.judge.wording import report
from grader.checks.probe import probe
from grader.checks.probe.running import one_thread
from grader.config import Config
from grader.instruments.reference import model as reference_model
from grader.instruments.reference import written
from grader.lessons.exercise import Case, Exercise
from grader.lessons.lesson import Lesson
from grader.recordings.answers import Answer
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task
from grader.recordings.traces import Trace
from grader.report import to_text

NEAR_TIE = 1e-3  # of the standard deviation of the logits: far above rounding, and below what any mistake does


class Solved:
    """What the tests of a lesson start from. folder: where it lies."""

    def __init__(self, folder: Path) -> None:
        self.lesson = Lesson(folder)
        self.name, self.folder = self.lesson.name, self.lesson.folder

    @cached_property
    def declared(self) -> tuple[list[Exercise], str | None]:
        """The exercises, and the name of the one whose model the layer comparison is about, if there is one."""
        return self.lesson.exercises()

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        return {exercise.name: exercise for exercise in self.declared[0]}

    @cached_property
    def traced(self) -> Exercise | None:
        """The exercise whose model the layer comparison is about, if there is one."""
        name = self.declared[1]
        return self.exercises[name] if name else None

    @cached_property
    def solutions(self) -> dict[str, Any]:
        """Everything that the solved notebook's locked and solution cells define."""
        return self.lesson.namespace()

    @cached_property
    def reference(self) -> Any:
        """What the lesson's exercises.py defines besides its exercises."""
        return self.module("exercises")

    def module(self, name: str) -> ModuleType:
        """The lesson's own file of that name: "exercises", "reference" or "drives"."""
        _ = self.exercises  # read once, and with them what they import
        return self.lesson.module(name)

    @cached_property
    def others(self) -> ModuleType:
        """The lesson's others.py (see `grader.authoring.kit.declared`)."""
        path = self.folder / "others.py"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: it declares what grader/authoring/kit/declared.py lists, or why it does not."
            )
        return self.module("others")

    @cached_property
    def recording(self) -> Recording:
        """The recording that travels with the notebook."""
        return Recording.read(self.lesson.recording)

    @property
    def trace(self) -> Trace:
        """The recorded pass of the whole model."""
        assert self.recording.trace is not None
        return self.recording.trace

    def config(self, name: str) -> Config:
        """The lesson's ``configs/NAME.json``."""
        return Config.read(self.folder / "configs" / f"{name}.json")

    def named(self, name: str) -> Any:
        """What the solved notebook calls `name`, or else others.py."""
        return self.solutions[name] if name in self.solutions else getattr(self.others, name)

    def solution(self, exercise: str) -> Any:
        """The lesson's own program for an exercise."""
        return self.solutions[self.exercises[exercise].solution]

    def changed(self, change: Change) -> dict[str, Any]:
        """As `solutions`, after a change in one of them."""
        source = self.lesson.source_of(change.exercise)
        assert source.count(change.find) == 1, f"{change.find!r} stands {source.count(change.find)} times"
        return self.lesson.namespace((change.exercise, source.replace(change.find, change.replace)))

    def cell_with(self, text: str) -> str:
        """The source of the first cell that has `text` in it."""
        return next(cell.source for cell in self.lesson.cells() if text in cell.source)

    @cache  # noqa: B019 (a lesson lives as long as the process)
    def recorded(self, exercise: str) -> tuple[Task, Answer]:
        """What the reference gives here and now for an exercise's own cases, computed once."""
        with one_thread():  # as everywhere in the engine: with two, small odd products are rounded differently
            return record_exercise(self.lesson.name, self.exercises[exercise])

    def verdict_on(self, target: Any, exercise: Exercise, *cases: Case) -> Verdict:
        """What the engine says of `target` on the given cases, or on the exercise's own."""
        if not cases:
            task, answer = self.recorded(exercise.name)
        else:
            with one_thread():
                task, answer = record_exercise(self.lesson.name, replace(exercise, cases=cases))
        return judge(task, answer, probe(task, target))

    def told(self, exercise: str, program: Any) -> str:
        """What a learner is told of `program`, in one line. Of a `Change`: of the changed notebook's own program."""
        if isinstance(program, Change):
            program = self.changed(program)[self.exercises[exercise].solution]
        return " ".join(to_text(report(examine_here(self.recording, exercise, program))).split())

    def with_forward(self, path: str, forward: Callable[..., Any]) -> type[nn.Module]:
        """The traced model, in which the module at `path` has another forward."""
        assert self.traced is not None

        class WithForward(self.solution(self.traced.name)):  # type: ignore[misc]
            def __init__(self, config: Config) -> None:
                super().__init__(config)
                module = self.get_submodule(path)
                module.__class__ = type(type(module).__name__, (type(module),), {"forward": forward})

        return WithForward

    def trained(self, model: str, checkpoint: str) -> tuple[Any, nn.Module, Any]:
        """The checkpoint, the class `model` with its weights, and transformers' model of the same."""
        return _trained(self, model, checkpoint)


@cache
def lesson_at(folder: Path) -> Solved:
    """The lesson in a folder, one object in a process."""
    return Solved(folder)


def lesson_of(file: str) -> Solved:
    """The lesson in whose folder `file` lies."""
    return lesson_at(Path(file).resolve().parent)


@lru_cache(maxsize=2)  # the largest take a gigabyte; conftest.py has the tests of a lesson stand side by side
def _trained(lesson: Solved, model: str, checkpoint: str) -> tuple[Any, nn.Module, Any]:
    loaded = load_checkpoint(checkpoint, optional=True)
    if loaded is None:
        import pytest

        pytest.skip(f"{checkpoint} is not on this machine: grader weights get {checkpoint}")
    own = loaded.build(lesson.named(model))
    return loaded, own, _by_transformers(loaded.folder)


_by_transformers = lru_cache(maxsize=2)(reference_model)  # the same for every class of a lesson


def encoded(checkpoint: Any, text: str) -> Tensor:
    """A text's tokens: [1, T], int64."""
    return torch.tensor([checkpoint.tokenizer.encode(text).ids])


def written_by_transformers(model: Any, ids: Tensor, tokens: int) -> list[int]:
    """The greedy continuation of ids [1, T], whatever ends a turn."""
    model.generation_config.eos_token_id = None
    return written(model, ids, tokens)


_CONTINUED: WeakKeyDictionary[Any, dict[tuple[tuple[int, ...], int], list[int]]] = WeakKeyDictionary()


def continued_by_transformers(model: Any, ids: Tensor, tokens: int, known: Sequence[int] = ()) -> list[int]:
    """As `written_by_transformers`, once for each text and model.

    known: the tokens, as they were written before or by another program. One pass of the model over them shows whether
    each is what it chooses after those in front of it, which is what writing greedily means. Where one is not, the
    model writes the text itself.
    """
    texts = _CONTINUED.setdefault(model, {})
    key = tuple(ids[0].tolist()), tokens
    if key not in texts:
        known = [int(token) for token in known]
        right = len(known) == tokens and _chosen_by_transformers(model, ids, known) == known
        texts[key] = known if right else written_by_transformers(model, ids, tokens)
    return texts[key]


def _chosen_by_transformers(model: Any, ids: Tensor, text: Sequence[int]) -> list[int]:
    whole = torch.cat([ids, torch.tensor([text[:-1]], dtype=ids.dtype)], dim=1)
    with torch.no_grad():
        logits = model(whole, use_cache=False, logits_to_keep=len(text)).logits
    return logits[0].argmax(-1).tolist()  # type: ignore[no-any-return]


def chosen(model: Callable[[Tensor], Tensor], ids: Tensor, text: Sequence[int]) -> list[int]:
    """What a model holds for the next token at every place of a text that follows ids [1, T]: one pass."""
    whole = torch.cat([ids, torch.tensor([list(text)[:-1]], dtype=ids.dtype)], dim=1)
    with torch.no_grad():
        return model(whole)[0, ids.shape[1] - 1 :].argmax(-1).tolist()


def same_tokens_but_for_near_ties(own: Sequence[int], reference: Sequence[int], model: Any, ids: Tensor) -> bool:
    """Whether `own` continues ids [1, T] as `reference` does, which `model`, a transformers model, wrote greedily.

    Two right programs may choose differently where the reference is undecided: where its best logit is ahead of the
    second by less than `NEAR_TIE` of the logits' standard deviation. Such a choice is accepted if `own` took one of
    the two, and nothing is compared after it, since the texts differ from there on.
    """
    own, reference = [int(token) for token in own], list(reference)
    if own == reference:
        return True
    place = next((i for i, (a, b) in enumerate(zip(own, reference, strict=False)) if a != b), None)
    if place is None:  # one of them is shorter
        return False
    text = torch.cat([ids, torch.tensor([reference[:place]], dtype=ids.dtype)], dim=1)
    with torch.no_grad():
        logits = model(input_ids=text, use_cache=False).logits[0, -1]
    best = logits.topk(2)
    near = bool(best.values[0] - best.values[1] < NEAR_TIE * logits.std())
    return near and own[place] in best.indices.tolist()
