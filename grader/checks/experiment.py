"""`case`: one case of a check, to experiment with."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grader.checks.check import find_recording
from grader.checks.probe import probe
from grader.checks.probe.building import build_module
from grader.checks.probe.running import Stopped, fresh_args
from grader.errors import GraderError
from grader.recordings.tasks import Task, TaskCase


@dataclass(frozen=True, repr=False)
class OneCase:
    """A case of an exercise: what the solution is built with and given, and what belongs there.

    build: the arguments of the class. args: those of its call, tensors on the CPU; each access gives fresh copies.
    expected: what the reference gives for them, a tensor. weights: the recorded parameters, by name.
    """

    exercise: str
    name: str
    build: Mapping[str, Any]
    expected: Tensor
    weights: Mapping[str, Tensor]
    _task: Task = field(compare=False)

    @property
    def _case(self) -> TaskCase:
        return self._task.cases[0]

    @property
    def args(self) -> list[Any]:
        """Copies of what the solution is called with."""
        return fresh_args(self._case)

    @property
    def input(self) -> Any:
        """The first of the arguments; None where there is none."""
        return next(iter(self.args), None)

    def module(self, solution: type[nn.Module]) -> nn.Module:
        """An object of your class, with the recorded weights in it, in eval mode.

        Raises GraderError where it can't be built, its parameters are other ones, or the exercise is a function.
        """
        if self._task.function:
            raise GraderError(f"{self.exercise} is a function, which has no weights: call `run` with it.")
        try:
            return build_module(solution, self._case)[0]
        except Stopped as stopped:
            raise _problem(stopped.problem.message, stopped.problem.detail) from None

    def run(self, solution: Any) -> Tensor:
        """What your class or function gives in this case, as the check sees it.

        Raises GraderError where it gives nothing.
        """
        (observation,) = probe(self._task, solution, outputs_only=True)
        if observation.output is None:
            problem = observation.problem
            raise _problem(problem.message, problem.detail) if problem else GraderError("it gave no output")
        return observation.output.detach()

    def __repr__(self) -> str:
        given = ", ".join(_shown(arg) for arg in self._case.args) or "nothing"
        return f"{self.exercise}, case “{self.name}”: args {given}; expected {_shown(self.expected)}"


def case(exercise: str, name: str, *, recording: str | Path | None = None) -> OneCase:
    """One case of a check, by the name that its report shows, to experiment with.

        one = case("gpt2.layer_norm", "tiny inputs")
        norm = one.module(LayerNorm)  # with the recorded weights
        norm(one.input) - one.expected

    recording: as for `check`. Raises RecordingError for an unknown exercise, GraderError for an unknown case.
    """
    recorded = find_recording(recording)
    task, answer = recorded.task(exercise), recorded.answer(exercise)
    names = [one.name for one in task.cases]
    if name not in names:
        listed = ", ".join(f'"{each}"' for each in names)
        raise GraderError(f'{exercise} has no case "{name}". Its cases are: {listed}.')
    place = names.index(name)
    found = task.cases[place]
    weights = {key: tensor.clone() for key, tensor in found.weights.items()}
    expected = answer.outputs[place].clone()
    return OneCase(exercise, name, dict(found.build), expected, weights, replace(task, cases=(found,)))


def _problem(message: str, detail: tuple[str, ...]) -> GraderError:
    return GraderError("\n  ".join([message, *detail]))


def _shown(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"{list(value.shape)} {value.dtype}".replace("torch.", "")
