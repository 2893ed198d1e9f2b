"""What a lesson's exercises are checked against: the content of ``reference.safetensors``.

The file holds each distinct tensor once, named by a hash of its content, and one JSON header that says
which tensor is an input, a weight, an output or a mistake's output. `Recording.task` is what a probe may
see; `Recording.answer` is what only a judge needs. What a composite's parts were given and what they gave
back are two further views, each of which alone gives no answer away.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from grader.calls import Call
from grader.digest import digest
from grader.errors import RecordingError
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.codec import Decoder, Encoder
from grader.recordings.format import FORMAT
from grader.recordings.tasks import Task
from grader.recordings.tensors import tensor_key
from grader.recordings.traces import Trace
from grader.tolerance import Tolerance


@dataclass(frozen=True)
class _CaseAnswer:
    """What an `Answer` has of one case; in the file it stands beside what the task has of it."""

    sizes: Mapping[str, int]
    output: Tensor
    tolerance: Mapping[str, float]
    part_calls: tuple[Call, ...]
    noise: float | None = None
    gradients: Tensor | None = None
    end: Tensor | None = None
    large: Tensor | None = None
    other: Tensor | None = None


def encoded_exercise(encoder: Encoder, task: Task, answer: Answer) -> dict[str, Any]:
    """An exercise as a recording has it, under its name."""
    encoded = encoder.encode(task)
    del encoded["exercise"]
    tolerances = map(asdict, answer.tolerances)
    columns = zip(answer.sizes, answer.outputs, tolerances, answer.part_calls, strict=True)
    further = (answer.noise, answer.gradients, answer.ends, answer.large, answer.other)
    measured = itertools.zip_longest(encoded["cases"], *further)
    for (case, *found), (sizes, output, tolerance, calls) in zip(measured, columns, strict=True):
        case |= encoder.encode(_CaseAnswer(sizes, output, tolerance, calls, *found))
    mistakes = [encoder.encode(mistake) for mistake in answer.mistakes]
    return encoded | {"points": answer.points, "axes": " ".join(answer.axes), "mistakes": mistakes}


class Recording:
    """A recording in memory: a header and the tensors it refers to."""

    def __init__(self, header: dict[str, Any], tensors: dict[str, Tensor], path: Path | None = None) -> None:
        self.header = header
        self._tensors = tensors
        self._decoder = Decoder(tensors)
        self._answers: dict[str, Answer] = {}
        self.path = path

    @classmethod
    def read(cls, path: str | Path) -> "Recording":
        """Read a recording. Raises RecordingError where the file is missing, damaged or something else."""
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise RecordingError(
                f"No {path.name} in {path.parent.resolve().name or path.parent}/. It travels with the notebook:"
                " open the notebook in its own lesson folder, or copy the file there from the course."
            ) from None
        except (SafetensorError, OSError) as error:
            raise RecordingError(
                f"{path.name} can't be read ({error}). It is damaged: copy it from the course again."
            ) from None
        try:
            header = json.loads(metadata["recording"])
            form, _ = header["format"], (header["lesson"], header["exercises"], header["trace"])
        except (KeyError, ValueError, TypeError):
            raise RecordingError(
                f"{path.name} is a safetensors file, but not a recording of this course: copy the lesson's own."
            ) from None
        if form != FORMAT:
            raise RecordingError(
                f"{path.name} has format {form}, and this grader reads format {FORMAT}: use the two that came together."
            )
        return cls(header, tensors, path)

    @property
    def content(self) -> str:
        """A digest of what was recorded; what it was recorded from (``made_from``) is not part of that."""
        header = json.dumps({**self.header, "made_from": None}, sort_keys=True)
        values = {name: tensor_key(tensor) for name, tensor in self._tensors.items()}
        return digest(f"{header}\n{json.dumps(values, sort_keys=True)}")[:32]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        temporary = path.with_suffix(".tmp")
        save_file(self._tensors, temporary, metadata={"recording": json.dumps(self.header, separators=(",", ":"))})
        temporary.chmod(0o644)  # safetensors makes it readable for its owner alone
        temporary.replace(path)

    @property
    def lesson(self) -> str:
        """The lesson's name, as in ``01-gpt2``."""
        return str(self.header["lesson"])

    def solutions(self, exercises: Iterable[str]) -> dict[str, str]:
        """The names of the solutions of those of the exercises that it has."""
        own = self.header["exercises"]
        return {name: own[name]["solution"] for name in exercises if name in own}

    @property
    def exercises(self) -> list[str]:
        """The exercises' names, in the lesson's order."""
        return list(self.header["exercises"])

    def _exercise(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.header["exercises"][name]
        except KeyError:
            raise RecordingError(
                f"`{name}` is no exercise of lesson {self.lesson}. Its exercises are: {', '.join(self.exercises)}."
                " Is the name right, and the notebook in its own lesson's folder?"
            ) from None
        return found

    def task(self, name: str) -> Task:
        """What a probe may see of an exercise. Raises RecordingError for an unknown one."""
        return self._decoder.decode(Task, {"exercise": name, **self._exercise(name)})

    def answer(self, name: str) -> Answer:
        """What is right for an exercise, and what its mistakes give. Raises RecordingError for an unknown one."""
        if name not in self._answers:
            self._answers[name] = self._answer(name)
        return self._answers[name]

    def _answer(self, name: str) -> Answer:
        exercise = self._exercise(name)
        cases = [self._decoder.decode(_CaseAnswer, case) for case in exercise["cases"]]
        return Answer(
            name,
            exercise["points"],
            tuple(exercise["axes"].split()),
            tuple(case.sizes for case in cases),
            tuple(case.output for case in cases),
            tuple(Tolerance(**case.tolerance) for case in cases),
            tuple(self._decoder.decode(MistakeAnswer, mistake) for mistake in exercise["mistakes"]),
            tuple(case.part_calls for case in cases),
            tuple(case.noise or 0.0 for case in cases),
            tuple(case.gradients for case in cases),
            tuple(case.end for case in cases),
            tuple(case.large for case in cases),
            tuple(case.other for case in cases),
        )

    @property
    def trace(self) -> Trace | None:
        """The lesson's full-model trace, where it has one."""
        encoded = self.header["trace"]
        return None if encoded is None else self._decoder.decode(Trace, encoded)
