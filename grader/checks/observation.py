"""What a probe says of a case: tensors, and what stopped it. Nothing here runs learner's code or knows an answer."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

RAISED = "it raised "  # begins what is said of an exception
SECOND_RUN = "second run"  # the kind of a problem that stopped a second run, before any gradient
CHANGED = "changed"  # the kind of one that is no error: an argument, which the message names, was modified in place
# What else a call must leave alone, as `Observation.changed` names it.
EARLIER = "what an earlier call returned"
SEEDS = {name: f"the seed of {name}'s random numbers" for name in ("torch", "random", "numpy.random")}
FOLDER = "the current folder"


def temporary_folder() -> str:
    """A pattern for a folder where this machine has temporary ones: its name is another in every run."""
    return re.escape(tempfile.gettempdir()) + r"/[^/\s'\"]+/"


class LeftBehind(RuntimeError):
    """A tensor that was made without `device=` meets one that is where the input is."""


@dataclass(frozen=True)
class Problem:
    """Why a case gave no tensor: one sentence, then lines of detail (a traceback, names) if there are any."""

    kind: str
    message: str
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fed:
    """What a learner's part gave for the reference's input, or why it gave nothing, and whether it changed it.

    others: the names of the further arguments, tensors all, that the learner's own pass hands to it.
    """

    output: Tensor | None
    problem: Problem | None = None
    changed_input: bool = False
    others: tuple[str, ...] = ()


PartKey = tuple[str, int]  # a part's path, and how often it was called before


@dataclass(frozen=True)
class Replaced:
    """A composite's output while each part answers with the reference's output, and what the parts were given.

    present: the paths of the parts that the learner's module has. It may do without one, with a function. used: of
    these, those whose parameters or parts it takes itself, as `F.linear(x, self.proj.weight)` does.
    """

    output: Tensor | None
    given: Mapping[PartKey, Tensor | None]
    present: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartClass:
    """The class of a composite's part. own: whether it is the one that the part's exercise checks. library: whether it
    is no class of the learner's, but PyTorch's."""

    name: str
    own: bool
    library: bool


@dataclass(frozen=True)
class Varied:
    """What came out where a case was asked in another way: the part that counts, or why there is none.

    alone: the same of a module that was used for nothing before, where the first was and gave something else.
    itself: of a function, what is no longer right of the case itself where it is run there once more, in words.
    """

    output: Tensor | None = None
    problem: Problem | None = None
    alone: Tensor | None = None
    itself: str = ""


@dataclass(frozen=True)
class Observation:
    """What happened when one case ran.

    output: the learner's output, or None where `problem` stopped it. again: the output of a second run.
    changed: what was modified in place, in words: an argument, a field of the config, or what else a call leaves alone.
    no_gradient: parameters and arguments (``input``) that no gradient reached. backward: why gradients could not be
    computed, or, if it is of the kind `SECOND_RUN`, why the second run gave no output.
    gradients: a fingerprint of the gradients (see fingerprint.py), where they are compared.
    first_nan: where NaN first appeared. remarks: what does not make it wrong, and is worth knowing. varied: what came
    out for each of the case's variants.
    """

    case: str
    output: Tensor | None = None
    problem: Problem | None = None
    again: Tensor | None = None
    changed: str | None = None
    no_gradient: tuple[str, ...] = ()
    backward: Problem | None = None
    first_nan: str | None = None
    remarks: tuple[str, ...] = ()
    gradients: Tensor | None = None
    varied: tuple[Varied, ...] = ()
