"""The words in which an author says what an exercise is checked against.

A lesson's ``exercises.py`` holds ``EXERCISES``, a list of `Exercise`, and may name in ``TRACE`` the
exercise whose first case becomes the lesson's full-model trace. It imports transformers and is read
only when a lesson is built; learners get what was recorded from it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from grader.recordings.renaming import same_name
from grader.tolerance import Tolerance


class Draw:
    """Random numbers that depend only on the words it was made from, on every machine alike.

    varied: whether sizes vary too, as they do in a hidden recording; in the released one they are the usual ones.
    """

    def __init__(self, *words: str, varied: bool = False) -> None:
        seed = int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:7])
        self.generator = torch.Generator().manual_seed(seed)
        self.varied = varied
        self._sizes: dict[str, int] = {}

    def size(self, name: str, usual: int, *others: int) -> int:
        """A size of this case: `usual`, or one of the others where sizes vary; the same for the same name.

        Give only sizes with which the case still shows what it is there for: every mistake must differ
        in some case, whatever is drawn.
        """
        if name not in self._sizes:
            choices = others if self.varied and others else (usual,)
            self._sizes[name] = choices[self._index(len(choices))]
        return self._sizes[name]

    def _index(self, count: int) -> int:
        """A number below `count`. Where there is no choice nothing is drawn, so that no other number changes."""
        return 0 if count == 1 else int(torch.randint(count, (1,), generator=self.generator))

    def number(self, name: str, usual: int, low: int, high: int) -> int:
        """As `size`: `usual`, or where sizes vary any other number from `low` to `high`."""
        return self.size(name, usual, *(n for n in range(low, high + 1) if n != usual))

    def changed(self, usual: Mapping[str, Any], **bounds: tuple[int, int]) -> dict[str, Any]:
        """A config whose fields of these names are any other numbers within bounds where sizes vary."""
        return {**usual, **{name: self.number(name, usual[name], *bound) for name, bound in bounds.items()}}

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Standard normal values times `scale`: `shape`, float32."""
        return torch.randn(*shape, generator=self.generator) * scale

    def tokens(self, vocab_size: int, *shape: int) -> Tensor:
        """Token ids below `vocab_size`: `shape`, int64."""
        return torch.randint(vocab_size, shape, generator=self.generator)


@dataclass(frozen=True)
class Case:
    """One input of an exercise.

    name: what a report calls it, as in "tiny inputs: all 96 values differ".
    args: draws what the module's forward (or the function) is called with: tensors, `ToyLM`, or JSON values.
    build: arguments of the learner's class, in its order, and of the reference, by name; a dict called ``config``
        reaches both as a `Config`. JSON values only. A function of the draw where they hold a size that varies.
    dtype: of the weights, and of the first floating-point argument; others, such as a table, stay as drawn.
    tolerance: where the one for the dtype does not fit (see tolerance.py).
    draw: any word, for other random numbers; needed where those drawn without it make a model that amplifies rounding.
    drive: how the solution is used in this case, where the exercise's `drive` looks at something else.
    right: what is right in this case, where it is not what the exercise's `call` (for a function exercise, its
        `reference`) gives; called with the same arguments.
    """

    name: str
    args: Callable[[Draw], Sequence[Any]]
    build: Mapping[str, Any] | Callable[[Draw], Mapping[str, Any]] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    tolerance: Tolerance | None = None
    draw: str = ""
    drive: Callable[..., Any] | None = None
    right: Callable[..., Any] | None = None

    def built(self, draw: Draw) -> Mapping[str, Any]:
        """The build arguments with the draw's sizes."""
        return self.build(draw) if callable(self.build) else self.build


@dataclass(frozen=True)
class Mistake:
    """A known wrong version of a solution: the solution's source with `find` replaced by `replace`.

    name: completes "This is what comes out when ...". hint: where to look, never the answer.
    `find` must occur exactly once in the solution's cell. shipped: where the mistake was published, as in
    "owner/repo#123" for an issue or a pull request and "owner/repo@1a2b3c4" for a commit.
    """

    name: str
    hint: str
    find: str
    replace: str
    shipped: Sequence[str] = ()


def call_module(module: Any, *args: Any) -> Any:
    """How the reference is run unless an exercise says otherwise."""
    return module(*args)


def random_weights(module: nn.Module, draw: Draw) -> None:
    """Fill every parameter, norms and biases included, so that none can hide by being 0 or 1.

    Matrices get a standard deviation of 1/sqrt(smaller side), which keeps activations near 1; vectors
    are 1 + N(0, 0.3) for weights and N(0, 0.5) for biases.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = draw.normal(*parameter.shape)
            if parameter.ndim >= 2:
                values *= min(parameter.shape[-2:]) ** -0.5
            elif name.endswith("bias"):
                values *= 0.5
            else:
                values = 1 + 0.3 * values
            parameter.copy_(values)


def weights_around_0(module: nn.Module, draw: Draw) -> None:
    """As `random_weights`, for norms that multiply by 1 + weight: their weights are N(0, 0.4)."""
    random_weights(module, draw)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 and not name.endswith("bias"):
                parameter.copy_((parameter - 1) * (0.4 / 0.3))


@dataclass(frozen=True)
class Exercise:
    """One stub that a learner fills, and what makes it right.

    name: ``gpt2.layer_norm``. solution: the class or function its solution cell defines.
    reference: given a case's `build`, returns the transformers module; for a function exercise
        (`function=True`) it is called with the case's arguments and returns the right value.
    call: runs the reference module on a case's arguments and returns the tensor that is right.
    weights: fills the reference's parameters.
    renamed: the learner's name for a parameter or submodule of the reference, or None to leave it out.
    parts: submodule path (``h.*`` for every ``h.0``, ``h.1``, ...) -> the exercise that built it. A wrong
        answer is then told apart from a wrong part.
    uses: further exercises whose solutions this one's calls by name, where they are no submodules, or where a `drive`
        calls them otherwise than the reference's are called. Where this one is wrong, those of them that don't pass
        their own checks are named.
    points: what nbgrader gives for it, split evenly between the cases.
    axes: names of the output's axes, for reports: "B T D"; of a vector also what its numbers are: "total/active", or
        "norm/gradients..." where the last name is for all that are left.
    sizes: names of numbers in the build arguments, for reports: {"head_dim": 16}.
    differentiable: whether gradients must reach every parameter and the first floating-point argument, and are compared
        with the reference's. gradients_of: the positions of the arguments whose gradients count, where it is not that
        one alone; a case may have fewer arguments.
    fixed: numbers that are the same in all cases, as an error of recording names them, and why each may be.
    drive: how the solution is used, where one call does not show it: a cache is filled first, then read. It is
        called with the built module (for a function exercise, the function or class itself) and the case's
        arguments, and what it returns is judged. Its source travels in the recording and runs beside the solution,
        with that of every function and class of the lesson's own files and of `grader.authoring.drives` that it
        names. So these are plain ``def`` and ``class``, and use nothing else but ``torch``, ``nn`` and ``Tensor``.
    without: the variants (see recordings/variants.py) in which its cases are not asked, by their names, and why. Of
        `OtherValues` single ones, such as "head_dim one", are named as `Change.in_short` has it.
    """

    name: str
    solution: str
    reference: Callable[..., Any]
    cases: Sequence[Case]
    mistakes: Sequence[Mistake] = ()
    points: int = 1
    axes: str = ""
    sizes: Callable[[Mapping[str, Any]], Mapping[str, int]] = field(default=lambda build: {})
    call: Callable[..., Any] = call_module
    weights: Callable[[nn.Module, Draw], None] = random_weights
    renamed: Callable[[str], str | None] = same_name
    parts: Mapping[str, str] = field(default_factory=dict)
    uses: Sequence[str] = ()
    function: bool = False
    differentiable: bool = True
    gradients_of: Sequence[int] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    drive: Callable[..., Any] | None = None
    without: Mapping[str, str] = field(default_factory=dict)
