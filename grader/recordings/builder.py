"""Put values into a recording."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grader.calls import Call
from grader.config import Config
from grader.errors import RecordingError
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.tensors import dtype_name, tensor_key
from grader.recordings.toy_lm import ToyLM
from grader.recordings.traces import Run, Trace


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
                **({"floor": c.floor} if c.floor else {}),
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
            **({"floor": trace.floor} if trace.floor else {}),
            **({"derived": self.trace(trace.derived)} if trace.derived else {}),
            **({"runs": [self.run(run) for run in trace.runs]} if trace.runs else {}),
            **({"unseen": list(trace.unseen)} if trace.unseen else {}),
        }

    def run(self, run: Run) -> dict[str, Any]:
        """Keep a trace's run."""
        steps = [
            {
                "name": step.name,
                "ids": self.tensor(step.ids),
                "mask": self.optional_tensor(step.mask),
                "positions": self.tensor(step.positions),
                "calls": self.calls(step.calls),
                "output": self.tensor(step.output),
                "states": self.weights(step.states),
                "floor": step.floor,
            }
            for step in run.steps
        ]
        return {"name": run.name, "cached": run.cached, "steps": steps}

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
            **({"gradients_of": list(task.gradients_of)} if task.gradients_of else {}),
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
        for case, noise in zip(encoded["cases"], answer.noise, strict=False):
            case["noise"] = noise
        for case, gradients in zip(encoded["cases"], answer.gradients, strict=False):
            if gradients is not None:
                case["gradients"] = self.tensor(gradients)
        mistakes = [
            {
                "name": m.name,
                "hint": m.hint,
                "outputs": [self.tensor(output) for output in m.outputs],
                **({"noise": list(m.noise)} if any(m.noise) else {}),
                **({"shipped": list(m.shipped)} if m.shipped else {}),
                **({"gradients": [self.optional_tensor(g) for g in m.gradients]} if m.gradients else {}),
            }
            for m in answer.mistakes
        ]
        return encoded | {"points": answer.points, "axes": " ".join(answer.axes), "mistakes": mistakes}
