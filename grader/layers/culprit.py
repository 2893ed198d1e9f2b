"""Where to start looking, once it is found, and what a model never calls."""

from dataclasses import dataclass

from grader.layers.comparison import Comparison


@dataclass(frozen=True)
class Culprit:
    """Where to start looking. path: "" where it is the model's own forward. reasons: a sentence each."""

    path: str
    name: str
    type: str
    reasons: tuple[str, ...]


def uncalled(comparison: Comparison, prefix: str = "") -> list[str]:
    """The modules below `prefix` that the reference calls, and the learner's model has but never calls.

    Of a module and what is inside it, only the outer one.
    """
    called = {node.path for node in comparison.nodes}
    own = {path for path, _ in comparison.model.named_modules()}
    missed = [path for path in dict.fromkeys(c.path for c in comparison.recorded) if path in own - called]
    return [p for p in missed if p.startswith(prefix) and not any(p.startswith(f"{outer}.") for outer in missed)]
