"""A lesson's exercises, its own solutions, and the engine's verdict on them or on other programs."""

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from grader import load_checkpoint
from grader.authoring.recorder import record_exercise
from grader.checks.judge import judge
from grader.checks.probe import probe
from grader.checks.running import one_thread
from grader.checks.verdict import Verdict
from grader.lessons.exercise import Case, Exercise
from grader.lessons.lesson import Lesson


class Solved:
    """What the tests of a lesson start from. name: its folder under ``solutions/``."""

    def __init__(self, name: str) -> None:
        self.lesson = Lesson(Path(__file__).parent.parent / "solutions" / name)

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        return {exercise.name: exercise for exercise in self.lesson.exercises()[0]}

    @cached_property
    def solutions(self) -> dict[str, Any]:
        """Everything that the solved notebook's locked and solution cells define."""
        return self.lesson.namespace()

    @cached_property
    def reference(self) -> Any:
        """What the lesson's exercises.py defines besides its exercises."""
        _ = self.exercises  # it is there once they have been read
        return next(m for m in list(sys.modules.values()) if self._defines_exercises(m))

    def _defines_exercises(self, module: Any) -> bool:
        return Path(getattr(module, "__file__", None) or "") == self.lesson.exercises_file

    def verdict_on(self, target: Any, exercise: Exercise, *cases: Case) -> Verdict:
        """What the engine says of `target` on the given cases, or on the exercise's own."""
        changed = replace(exercise, cases=cases) if cases else exercise
        with one_thread():  # as everywhere in the engine: with two, small odd products are rounded differently
            task, answer = record_exercise(self.lesson.name, changed)
        return judge(task, answer, probe(task, target))

    def trained(self, model: str, checkpoint: str) -> tuple[Any, nn.Module, Any]:
        """The checkpoint, the solution's class `model` with its weights, and transformers' model of the same."""
        loaded = load_checkpoint(checkpoint, optional=True)
        if loaded is None:
            pytest.skip(f"{checkpoint} is not on this machine: grader weights get {checkpoint}")
        own = self.solutions[model](loaded.config).eval()
        loaded.load_into(own)
        theirs = AutoModelForCausalLM.from_pretrained(loaded.folder, dtype=torch.float32, attn_implementation="eager")
        return loaded, own, theirs.eval()


def written_by_transformers(model: Any, ids: Tensor, tokens: int) -> list[int]:
    """The greedy continuation of ids [1, T], whatever ends a turn."""
    model.generation_config.eos_token_id = None
    done = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0
    )
    return done[0, ids.shape[1] :].tolist()
