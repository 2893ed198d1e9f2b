"""What a lesson's exercises are checked against: the content of ``reference.safetensors``.

The file holds each distinct tensor once, named by a hash of its content, and one JSON header that says
which tensor is an input, a weight, an output or a mistake's output. `Recording.task` is what a probe may
see; `Recording.answer` is what only a judge needs. What a composite's parts were given and what they gave
back are two further views, each of which alone gives no answer away.
"""

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from grader.config import Config
from grader.errors import RecordingError
from grader.tolerance import Tolerance
from grader.toy import ToyLM
from grader.tracing import Call

FILE_NAME = "reference.safetensors"
FORMAT = 1
# Where a mistake shipped: an issue or a pull request on GitHub, or a commit.
SHIPPED = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(#(?P<issue>\d+)|@(?P<commit>[0-9a-f]{7,40}))")


@dataclass(frozen=True)
class TaskCase:
    """One case as a probe sees it: what to build, which weights to load, what to call it with.

    drive: the name of the function in the task's `drive` that uses the solution; its first function where empty.
    """

    name: str
    build: Mapping[str, Any]
    args: tuple[Any, ...]
    dtype: torch.dtype
    weights: Mapping[str, Tensor]
    drive: str = ""


@dataclass(frozen=True)
class PartInput:
    """What one call of the reference's part was given."""

    path: str
    index: int
    input: Tensor


@dataclass(frozen=True)
class PartOutput:
    """What one call of the reference's part gave back, and the shape of what it was given."""

    path: str
    index: int
    input_shape: tuple[int, ...]
    output: Tensor


@dataclass(frozen=True)
class Task:
    """What a probe needs to run an exercise's cases; it holds no answer to them.

    drive: the source of the functions that use the solution, where it is not simply called (see `Exercise`).
    uses: the exercises whose solutions this one's calls by name.
    """

    exercise: str
    solution: str
    function: bool
    differentiable: bool
    parts: Mapping[str, str]
    cases: tuple[TaskCase, ...]
    drive: str = ""
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class MistakeAnswer:
    """What a named mistake gives for each case, in the cases' order; shipped: where it was published."""

    name: str
    hint: str
    outputs: tuple[Tensor, ...]
    shipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What is right for each of an exercise's cases, and what its known mistakes give.

    part_calls: for a composite, what the reference's parts were given and gave back, for each case.
    """

    exercise: str
    points: int
    axes: tuple[str, ...]
    sizes: tuple[Mapping[str, int], ...]
    outputs: tuple[Tensor, ...]
    tolerances: tuple[Tolerance, ...]
    mistakes: tuple[MistakeAnswer, ...] = ()
    part_calls: tuple[tuple[Call, ...], ...] = ()


def part_inputs(answer: Answer) -> tuple[tuple[PartInput, ...], ...]:
    """For each case, what the reference's parts were given."""
    return tuple(
        tuple(PartInput(call.path, call.index, call.input) for call in calls if call.input is not None)
        for calls in answer.part_calls
    )


def part_outputs(answer: Answer) -> tuple[tuple[PartOutput, ...], ...]:
    """For each case, what the reference's parts gave back."""
    return tuple(
        tuple(
            PartOutput(call.path, call.index, tuple(call.input.shape), call.output)
            for call in calls
            if call.input is not None and call.output is not None
        )
        for calls in answer.part_calls
    )


@dataclass(frozen=True)
class Layout:
    """Other names for a trace's weights, which may also be cut into other tensors.

    paths: the modules whose path differs along with them, and their path here.
    """

    weights: Mapping[str, Tensor]
    paths: Mapping[str, str]


@dataclass(frozen=True)
class Trace:
    """Every module's input and output in one forward pass of a reference model, under the learner's names.

    layouts: other names that the learner's model may use. prefix: what all names but the head's begin with,
    without the dot; a learner's model may do without it.
    """

    build: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    args: tuple[Any, ...]
    calls: tuple[Call, ...]
    output: Tensor
    dtype: torch.dtype
    layouts: tuple[Layout, ...] = ()
    prefix: str = ""


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def tensor_key(tensor: Tensor) -> str:
    """A hash of a tensor's dtype, shape and values."""
    tensor = tensor.detach().cpu().contiguous()
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    words = f"{dtype_name(tensor.dtype)} {list(tensor.shape)} ".encode()
    return hashlib.sha256(words + content).hexdigest()[:20]


def configured(build: Mapping[str, Any]) -> dict[str, Any]:
    """Build arguments as a constructor gets them: a dict called ``config`` becomes a `Config`."""
    return {k: Config(v) if k == "config" and isinstance(v, Mapping) else v for k, v in build.items()}


class Recording:
    """A recording in memory: a header and the tensors it refers to."""

    def __init__(self, header: dict[str, Any], tensors: dict[str, Tensor], path: Path | None = None) -> None:
        self.header = header
        self._tensors = tensors
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
        )

    def answer(self, name: str) -> Answer:
        """What is right for an exercise, and what its mistakes give. Raises RecordingError for an unknown one."""
        exercise = self._exercise(name)
        cases = exercise["cases"]
        mistakes = tuple(
            MistakeAnswer(
                m["name"], m["hint"], tuple(self._tensors[key] for key in m["outputs"]), tuple(m.get("shipped", ()))
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
        )

    @property
    def trace(self) -> Trace | None:
        """The lesson's full-model trace, where it has one."""
        encoded = self.header["trace"]
        if encoded is None:
            return None
        return Trace(
            encoded["build"],
            self._weights(encoded["weights"]),
            tuple(self._value(arg) for arg in encoded["args"]),
            self._calls(encoded["calls"]),
            self._tensors[encoded["output"]],
            getattr(torch, encoded["dtype"]),
            tuple(Layout(self._weights(item["weights"]), item["paths"]) for item in encoded.get("layouts", ())),
            encoded.get("prefix", ""),
        )


class Builder:
    """Puts values into a recording: tensors are kept once, by a hash of their content."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def tensor(self, tensor: Tensor) -> str:
        """Keep the tensor and return its key."""
        tensor = tensor.detach().cpu().contiguous()
        key = tensor_key(tensor)
        self.tensors.setdefault(key, tensor.clone())
        return key

    def optional_tensor(self, tensor: Tensor | None) -> str | None:
        """As `tensor`; None for None."""
        return None if tensor is None else self.tensor(tensor)

    def value(self, value: Any) -> dict[str, Any]:
        """An argument as JSON that refers to kept tensors. Raises RecordingError for what can't be kept."""
        if isinstance(value, Tensor):
            return {"tensor": self.tensor(value)}
        if isinstance(value, ToyLM):
            return {"toy_lm": {name: self.value(item) for name, item in value.state_dict().items()}}
        if isinstance(value, Config):
            return {"config": dict(value)}
        if isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            return {"list": [self.value(item) for item in value]}
        try:
            return {"json": json.loads(json.dumps(value))}
        except TypeError:
            raise RecordingError(f"an argument of type {type(value).__name__} can't be recorded") from None

    def weights(self, weights: Mapping[str, Tensor]) -> dict[str, str]:
        """Keep a state dict."""
        return {name: self.tensor(tensor) for name, tensor in weights.items()}

    def calls(self, calls: tuple[Call, ...]) -> list[dict[str, Any]]:
        """Keep the tensors of calls."""
        return [
            {
                "path": c.path,
                "index": c.index,
                "type": c.type,
                "input": self.optional_tensor(c.input),
                "output": self.optional_tensor(c.output),
                **({"others": [(name, self.tensor(tensor)) for name, tensor in c.others]} if c.others else {}),
                **({"further": [self.tensor(tensor) for tensor in c.further]} if c.further else {}),
            }
            for c in calls
        ]

    def trace(self, trace: Trace) -> dict[str, Any]:
        """Keep a trace."""
        return {
            "build": dict(trace.build),
            "weights": self.weights(trace.weights),
            "args": [self.value(arg) for arg in trace.args],
            "calls": self.calls(trace.calls),
            "output": self.tensor(trace.output),
            "dtype": dtype_name(trace.dtype),
            "layouts": [{"weights": self.weights(item.weights), "paths": dict(item.paths)} for item in trace.layouts],
            "prefix": trace.prefix,
        }

    def task_case(self, case: TaskCase) -> dict[str, Any]:
        """Keep what a probe may see of a case."""
        return {
            "name": case.name,
            "build": dict(case.build),
            "args": [self.value(arg) for arg in case.args],
            "dtype": dtype_name(case.dtype),
            "weights": self.weights(case.weights),
            **({"drive": case.drive} if case.drive else {}),
        }

    def task(self, task: Task) -> dict[str, Any]:
        """Keep what a probe may see of an exercise; `Recording.task` reads it."""
        return {
            "solution": task.solution,
            "function": task.function,
            "differentiable": task.differentiable,
            "parts": dict(task.parts),
            "cases": [self.task_case(case) for case in task.cases],
            **({"drive": task.drive} if task.drive else {}),
            **({"uses": list(task.uses)} if task.uses else {}),
        }

    def exercise(self, task: Task, answer: Answer) -> dict[str, Any]:
        """Keep an exercise whole."""
        encoded = self.task(task)
        known = zip(answer.sizes, answer.outputs, answer.tolerances, answer.part_calls, strict=True)
        for case, (sizes, output, tolerance, calls) in zip(encoded["cases"], known, strict=True):
            case["sizes"] = dict(sizes)
            case["output"] = self.tensor(output)
            case["tolerance"] = dataclasses.asdict(tolerance)
            case["part_calls"] = self.calls(calls)
        mistakes = [
            {
                "name": m.name,
                "hint": m.hint,
                "outputs": [self.tensor(output) for output in m.outputs],
                **({"shipped": list(m.shipped)} if m.shipped else {}),
            }
            for m in answer.mistakes
        ]
        return encoded | {"points": answer.points, "axes": " ".join(answer.axes), "mistakes": mistakes}
