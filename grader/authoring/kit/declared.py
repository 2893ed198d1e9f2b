"""The words in which a lesson's others.py says what test_every_lesson.py asks of it.

An ``others.py`` holds, each under the name by which tests/lessons/test_every_lesson.py knows it:

- ``RIGHT``          exercise -> other right programs, which must pass
- ``BY_CHANCE``      exercise -> programs that are right for some inputs only, which must not pass
- ``CONFIGS``        a hypothesis strategy of configs
- ``RANDOM``         exercise -> (config, `Numbers`) -> `Case`: the solution must agree with the reference on it
- ``PLANTED``        (path, bug) pairs: where the layer comparison must find it. bug: a whole model's class, or the
                     forward that the module at that path gets
- ``TOLD``           `Told`: what a report on a wrong program says
- ``HUB``            exercise -> config -> a model with the names that the hub's files have
- ``SIZES``          title -> (config, number of parameters)
- ``CONFIG_SHA256``  name of a file in configs/ -> the checksum of the hub's file, where the registry doesn't know it
- ``TRAINED``        `Trained`: checkpoints that the lesson's model must run as transformers does
- ``RERUNS``         title -> `Rerun`: the lesson's own cells with other right programs
- ``OPENING``        an `Opening`, if the lesson has one: what its first table shows in the browser
- ``VARIES``         exercises whose inputs have other sizes in a hidden recording
- ``MISTAKES``       how many named mistakes the lesson has at least
- ``WITHOUT``        what is asked -> why this lesson is without it, or exercise -> why this exercise is. Besides the
                     names above, "bfloat16", "rows of other programs" (a trace of which other right programs have no
                     equal rows), "one policy" (fewer wrong programs than test_one_policy.py takes of a lesson), and
                     "stored answers" (an exercise whose program changes what it is given, so that what it returned
                     is right nowhere, not even on the released recording), "answers by state" (an exercise that is
                     judged by what its object holds, which a table of what methods returned leaves as it is)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Numbers:
    """What a random case is drawn from, besides its config.

    cuts: where a text may be cut into chunks, increasing, each below `length`. scale: of the inputs.
    """

    batch: int
    length: int
    seed: int
    scale: float
    cuts: tuple[int, ...] = ()

    @property
    def chunks(self) -> list[int]:
        """The lengths of the chunks that the cuts make: they sum to `length`."""
        edges = [0, *self.cuts, self.length]
        return [end - start for start, end in pairwise(edges)]


@dataclass(frozen=True)
class Change:
    """The lesson's own solutions, with `find` replaced in that of `exercise`, where it must occur just once."""

    exercise: str
    find: str
    replace: str


@dataclass(frozen=True)
class Told:
    """What the report on `exercise` says where `program` is checked: each of `says`, and nothing of `never`.

    program: the wrong program itself, or a `Change`, after which the changed notebook's own program is checked.
    """

    exercise: str
    program: Any
    says: Sequence[str]
    never: Sequence[str] = ()

    @property
    def title(self) -> str:
        """How a test names it."""
        changed = self.program
        return f"{changed.exercise}: {changed.replace}" if isinstance(changed, Change) else changed.__name__


@dataclass(frozen=True)
class Prompt:
    """A text to continue by `tokens` tokens, or to the model's last position if None.

    options: further arguments of the solution's generate. known: what transformers wrote there, token by token, where
    that takes long: the test makes sure in one pass that it still would.
    """

    text: str
    tokens: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    known: Sequence[int] = ()


@dataclass(frozen=True)
class Trained:
    """A checkpoint for the lesson's class `model`, and what is written with it by the function `generate`.

    model, generate: names in the solved notebook, or in others.py. tokens: how many are read at once when logits are
    compared. written: how many tokens `generate` writes; for those that follow, one pass over the reference's whole
    text must choose the same, which is faster where there is no cache. None: all.
    """

    checkpoint: str
    model: str
    generate: str
    prompts: Sequence[Prompt]
    tokens: int = 40
    written: int | None = None

    @property
    def title(self) -> str:
        """How a test names it."""
        return f"{self.checkpoint} {self.model}"


@dataclass(frozen=True)
class Rerun:
    """A run of all of a lesson's own cells but the checks, with other right programs.

    programs: exercise -> the program in place of its cell. instead: names that are given other values once the setup
    cell has run. changes: words of a cell, and what stands there instead, as where it trains for fewer steps. skip: a
    cell with these words is left out. shows, hides: what the cells print, and what they don't.
    """

    programs: Mapping[str, Any]
    shows: Sequence[str]
    hides: Sequence[str] = ()
    instead: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""

    def changed(self, source: str) -> str:
        """A cell's source after the changes."""
        for words, others in self.changes.items():
            source = source.replace(words, others)
        return source


@dataclass(frozen=True)
class Opening:
    """What the browser shows once the unsolved notebook has run from the top to the cell that ends with `cell`.

    says, never: what the cell's report says, and what it doesn't.
    """

    cell: str
    says: Sequence[str]
    never: Sequence[str] = ()
