"""What a lesson's exercises are checked against: the content of ``reference.safetensors``.

The file holds each distinct tensor once, named by a hash of its content, and one JSON header that says
which tensor is an input, a weight, an output or a mistake's output. `Recording.task` is what a probe may
see; `Recording.answer` is what only a judge needs. What a composite's parts were given and what they gave
back are two further views, each of which alone gives no answer away.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from grader.calls import Call
from grader.config import Config
from grader.digest import digest
from grader.errors import RecordingError
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.format import FORMAT
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.tensors import tensor_key
from grader.recordings.toy_lm import ToyLM
from grader.recordings.traces import Layout, Run, Step, Trace
from grader.tolerance import Tolerance


class Recording:
    """A recording in memory: a header and the tensors it refers to."""

    def __init__(self, header: dict[str, Any], tensors: dict[str, Tensor], path: Path | None = None) -> None:
        self.header = header
        self._tensors = tensors
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

    def _value(self, encoded: Mapping[str, Any]) -> Any:
        """Undo `Builder.value`."""
        ((kind, content),) = encoded.items()
        if kind == "tensor":
            return self._tensors[content]
        if kind == "list":
            return [self._value(item) for item in content]
        if kind == "config":
            return Config(copy.deepcopy(content))
        if kind == "toy_lm":
            weights = {name: self._value(item) for name, item in content.items()}
            model = ToyLM(len(weights["token"]), len(weights["position"]), weights["token"].shape[1])
            model.load_state_dict(weights)
            return model.eval()
        return copy.deepcopy(content)

    def _optional_tensor(self, key: str | None) -> Tensor | None:
        return None if key is None else self._tensors[key]

    def _calls(self, encoded: list[dict[str, Any]]) -> tuple[Call, ...]:
        return tuple(
            Call(
                c["path"],
                c["index"],
                c["type"],
                self._optional_tensor(c["input"]),
                self._optional_tensor(c["output"]),
                tuple((name, self._tensors[key]) for name, key in c.get("others", ())),
                tuple(self._tensors[key] for key in c.get("further", ())),
                c.get("floor", 0.0),
            )
            for c in encoded
        )

    def _weights(self, encoded: Mapping[str, str]) -> dict[str, Tensor]:
        return {name: self._tensors[key] for name, key in encoded.items()}

    def task(self, name: str) -> Task:
        """What a probe may see of an exercise. Raises RecordingError for an unknown one."""
        exercise = self._exercise(name)
        cases = tuple(
            TaskCase(
                case["name"],
                case["build"],
                tuple(self._value(arg) for arg in case["args"]),
                getattr(torch, case["dtype"]),
                self._weights(case["weights"]),
                case.get("drive", ""),
            )
            for case in exercise["cases"]
        )
        return Task(
            name,
            exercise["solution"],
            exercise["function"],
            exercise["differentiable"],
            exercise["parts"],
            cases,
            exercise.get("drive", ""),
            tuple(exercise.get("uses", ())),
            tuple(exercise.get("gradients_of", ())),
        )

    def answer(self, name: str) -> Answer:
        """What is right for an exercise, and what its mistakes give. Raises RecordingError for an unknown one."""
        if name not in self._answers:
            self._answers[name] = self._answer(name)
        return self._answers[name]

    def _answer(self, name: str) -> Answer:
        exercise = self._exercise(name)
        cases = exercise["cases"]
        mistakes = tuple(
            MistakeAnswer(
                m["name"],
                m["hint"],
                tuple(self._tensors[key] for key in m["outputs"]),
                tuple(m.get("noise", ())),
                tuple(m.get("shipped", ())),
                tuple(self._optional_tensor(key) for key in m.get("gradients", ())),
            )
            for m in exercise["mistakes"]
        )
        return Answer(
            name,
            exercise["points"],
            tuple(exercise["axes"].split()),
            tuple(case["sizes"] for case in cases),
            tuple(self._tensors[case["output"]] for case in cases),
            tuple(Tolerance(**case["tolerance"]) for case in cases),
            mistakes,
            tuple(self._calls(case["part_calls"]) for case in cases),
            tuple(case.get("noise", 0.0) for case in cases),
            tuple(self._optional_tensor(case.get("gradients")) for case in cases),
        )

    @property
    def trace(self) -> Trace | None:
        """The lesson's full-model trace, where it has one."""
        encoded = self.header["trace"]
        return None if encoded is None else self._trace(encoded)

    def _trace(self, encoded: Mapping[str, Any]) -> Trace:
        """Undo `Builder.trace`."""
        derived = encoded.get("derived")
        return Trace(
            encoded["build"],
            self._weights(encoded["weights"]),
            tuple(self._value(arg) for arg in encoded["args"]),
            self._calls(encoded["calls"]),
            self._tensors[encoded["output"]],
            getattr(torch, encoded["dtype"]),
            tuple(Layout(self._weights(item["weights"]), item["paths"]) for item in encoded.get("layouts", ())),
            encoded.get("prefix", ""),
            encoded.get("floor", 0.0),
            None if derived is None else self._trace(derived),
            tuple(self._run(run) for run in encoded.get("runs", ())),
            tuple(encoded.get("unseen", ())),
        )

    def _run(self, encoded: Mapping[str, Any]) -> Run:
        """Undo `Builder.run`."""
        steps = tuple(
            Step(
                step["name"],
                self._tensors[step["ids"]],
                self._optional_tensor(step["mask"]),
                self._tensors[step["positions"]],
                self._calls(step["calls"]),
                self._tensors[step["output"]],
                self._weights(step["states"]),
                step["floor"],
            )
            for step in encoded["steps"]
        )
        return Run(encoded["name"], encoded["cached"], steps)
