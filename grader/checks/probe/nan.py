"""Where NaN first appears."""

import contextlib
import linecache
import sys
from typing import Any

import torch
from torch import Tensor, nn

from grader.checks.probe.running import Stopped, fresh_args, is_learners, use
from grader.devices import device_of
from grader.modes import Mode
from grader.recordings.tasks import Task, TaskCase


class _NanFinder(Mode):
    """Notes the first operation whose output has NaN while none of its inputs had."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.found is None and has_nan(output) and not has_nan([*args, *kwargs.values()]):
            self.found = self._where(func)
        return output

    @staticmethod
    def _where(func: Any) -> str:
        operation = func.__name__.split(".")[0].strip("_")
        frame: Any = sys._getframe()
        while frame is not None and not is_learners(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            return f"in the operation {operation}"
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return f"in line {frame.f_lineno} of {frame.f_code.co_name} ({operation}):  {line}"


def has_nan(value: Any) -> bool:
    """Whether there is NaN in a tensor, or in one of a list."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    return isinstance(value, list | tuple) and any(has_nan(item) for item in value)


def find_first_nan(task: Task, case: TaskCase, module: nn.Module) -> str | None:
    finder = _NanFinder()
    with torch.no_grad(), contextlib.suppress(Stopped), finder:
        use(task, case, module, *fresh_args(case, device_of(module)))
    return finder.found
