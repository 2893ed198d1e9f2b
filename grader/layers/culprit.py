"""Where to start looking, once it is found, and what a model never calls."""

from dataclasses import dataclass

from torch import nn

from grader.layers.comparison import Comparison

CONTAINERS = nn.ModuleList | nn.ModuleDict


@dataclass(frozen=True)
class Culprit:
    """Where to start looking. path: "" where it is the model's own forward. reasons: a sentence each.

    place: the step of a run in which it is wrong. row: the row that stands for it, where that has another name.
    """

    path: str
    name: str
    type: str
    reasons: tuple[str, ...]
    place: str = ""
    row: str = ""


def uncalled(comparison: Comparison, prefix: str = "") -> list[str]:
    """The modules below `prefix` that the reference calls, and the learner's model has but never calls.

    Of a module and what is inside it, only the outer one. A container of modules that are called is none of them.
    """
    called = {node.path for node in comparison.nodes} | {call.path for call in comparison.calls}
    own = {path for path, module in comparison.model.named_modules() if not isinstance(module, CONTAINERS)}
    holders = {path[:i] for path in called for i, letter in enumerate(path) if letter == "."}
    missed = [path for path in dict.fromkeys(c.path for c in comparison.recorded) if path in own - called - holders]
    return [p for p in missed if p.startswith(prefix) and not any(p.startswith(f"{outer}.") for outer in missed)]
