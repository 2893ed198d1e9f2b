"""Which known mistakes a wrong program may have made: told from its outputs in all cases together."""

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from grader.recordings.answers import Answer, MistakeAnswer
from grader.tolerance import FAR, Tolerance, agree, mean_distance, widened

MAX_NOISE = 1e-2  # a mistake is not known by an output that rounding moves by more, in units of `Tolerance.relative`
# A mistake is asked about where a program's output is this much nearer to the mistake's than to the right one.
NEAR = 0.2
# Of two mistakes that fit, the nearer is named alone if it is this many times nearer.
NEARER = 4.0
MAX_QUESTIONS = 2
FEWEST = 8  # values that an output must have to be called a mistake's in its case alone


@dataclass(frozen=True)
class Known:
    """A mistake's output in one case, and the tolerance within which another output is the same."""

    output: Tensor
    tolerance: Tolerance


def known_in(mistake: MistakeAnswer, index: int, tolerance: Tolerance) -> Known | None:
    """What a mistake gives in a case, and how near that is told; None where rounding alone makes it another output.

    index, tolerance: the case's.
    """
    noise = mistake.noise[index] if mistake.noise else 0.0
    return Known(mistake.outputs[index], widened(tolerance, noise)) if noise <= MAX_NOISE else None


@dataclass(frozen=True)
class Suspects:
    """The known mistakes as far as they fit a program's wrong cases, the nearest first.

    fitting: those that explain every wrong case, and show in no right one. in_part: for each case by its position,
    those that explain it, but not all the others. near: those that explain none, and come near to all.
    """

    fitting: tuple[MistakeAnswer, ...]
    in_part: tuple[tuple[MistakeAnswer, ...], ...]
    near: tuple[MistakeAnswer, ...]


def suspects(answer: Answer, outputs: Sequence[Tensor | None], correct: Sequence[bool]) -> Suspects:
    """The known mistakes that fit a program's outputs; none where no case is wrong.

    outputs: for each of the answer's cases; None where it gave none. correct: which are right.
    """
    right = [i for i, is_right in enumerate(correct) if is_right]
    wrong = [i for i, is_right in enumerate(correct) if not is_right]
    if not wrong:  # then there is nothing to name, and hundreds of comparisons to save
        return Suspects((), ((),) * len(outputs), ())
    of = _outputs_of(answer)
    every = range(len(answer.mistakes))
    candidates = [n for n in every if not any(of.shows[n][i] for i in right)]
    near_to = {i: of.near(i, outputs[i]) for i in wrong}
    explained = [
        [i for i in wrong if n in near_to[i] and of.wrong[n][i] and _is_output(of.known[n][i], outputs[i])]
        for n in every
    ]
    unknown = [[i for i in wrong if of.known[n][i] is None] for n in every]
    fitting = [n for n in candidates if explained[n] and len(explained[n] + unknown[n]) == len(wrong)]
    apart = {n: _apart([(outputs[i], of.known[n][i]) for i in explained[n]]) for n in fitting}
    fitting.sort(key=lambda n: apart[n])
    fitting = [n for n in fitting if apart[n] <= NEARER * apart[fitting[0]]]
    in_part: list[tuple[MistakeAnswer, ...]] = [()] * len(outputs)
    for i in wrong if not fitting else ():
        # A few numbers are soon the same by chance in one case, but hardly in two, with no right case against it.
        few = not answer.outputs[i].is_floating_point() or answer.outputs[i].numel() < FEWEST
        explaining = [n for n in candidates if len(explained[n]) > 1] if few else every
        in_part[i] = tuple(answer.mistakes[n] for n in explaining if i in explained[n])
    near = [] if fitting else sorted(
        (share, n) for n in candidates
        if (share := _nearness([(outputs[i], of.known[n][i], answer.outputs[i]) for i in wrong])) <= NEAR
    )  # fmt: skip
    named, asked = fitting, [n for _, n in near[:MAX_QUESTIONS]]
    return Suspects(tuple(answer.mistakes[n] for n in named), tuple(in_part), tuple(answer.mistakes[n] for n in asked))


@dataclass(frozen=True)
class _Outputs:
    """What an answer's mistakes give: for each mistake and each case, in their orders.

    wrong: whether that is a wrong output. shows: whether it is, beyond what rounding may do to the mistake's own.
    stacks: for each case, the outputs of the mistakes that are wrong there, by shape and dtype.
    """

    known: Sequence[Sequence[Known | None]]
    wrong: Sequence[Sequence[bool]]
    shows: Sequence[Sequence[bool]]
    stacks: Sequence[dict[tuple[torch.Size, torch.dtype], "_Stack"]]

    def near(self, index: int, got: Tensor | None) -> Container[int]:
        """The places of the mistakes whose output in a case may be `got`: all but those that a look at all tells apart.

        index: the case's.
        """
        if got is None or not got.ndim:  # a number may also be the same in another dtype
            return range(len(self.known))
        alike = self.stacks[index].get((got.shape, got.dtype))
        return () if alike is None else alike.near(got)


_outputs: WeakKeyDictionary[Answer, _Outputs] = WeakKeyDictionary()


def _outputs_of(answer: Answer) -> _Outputs:
    """What the answer's mistakes give, compared once with what is right: there can be hundreds."""
    if answer not in _outputs:
        cases = list(zip(answer.outputs, answer.tolerances, strict=True))
        known = [[known_in(m, i, tolerance) for i, (_, tolerance) in enumerate(cases)] for m in answer.mistakes]
        wrong = [
            [not agree(got, want, tolerance) for got, (want, tolerance) in zip(m.outputs, cases, strict=True)]
            for m in answer.mistakes
        ]
        shows = [
            [k is not None and not agree(k.output, want, k.tolerance) for k, (want, _) in zip(own, cases, strict=True)]
            for own in known
        ]
        stacks = [_stacked(i, known, wrong) for i in range(len(cases))]
        _outputs[answer] = _Outputs(known, wrong, shows, stacks)
    return _outputs[answer]


def _stacked(
    index: int, known: Sequence[Sequence[Known | None]], wrong: Sequence[Sequence[bool]]
) -> dict[tuple[torch.Size, torch.dtype], "_Stack"]:
    alike: dict[tuple[torch.Size, torch.dtype], list[tuple[int, Known]]] = defaultdict(list)
    for place, own in enumerate(known):
        if (one := own[index]) is not None and wrong[place][index]:
            alike[one.output.shape, one.output.dtype].append((place, one))
    return {kind: _Stack.of(members) for kind, members in alike.items()}


@dataclass(frozen=True)
class _Stack:
    """Outputs of one shape and dtype, each with its mistake's place, to be compared with another all at once.

    outputs: [N, values]. bounds: [N] float64; what is further off than that in one value does not agree.
    """

    places: tuple[int, ...]
    outputs: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, members: Sequence[tuple[int, Known]]) -> "_Stack":
        outputs = torch.stack([known.output.detach().flatten() for _, known in members])
        values = outputs if outputs.is_floating_point() else outputs.double()
        largest = values.abs().amax(1) if values.numel() else torch.zeros(len(members))
        relative = torch.tensor([known.tolerance.relative for _, known in members], dtype=torch.float64)
        return cls(tuple(place for place, _ in members), outputs, FAR * relative * largest.double())

    def near(self, got: Tensor) -> frozenset[int]:
        """The places of those that `got`, a tensor of their shape and dtype, may agree with: `agree` tells."""
        if not got.numel():
            return frozenset(self.places)
        got = got.detach().flatten()
        # Whole numbers are equal, or are not.
        apart = self.outputs - got if got.is_floating_point() else (self.outputs != got).double()
        far = (apart.abs().amax(1) > self.bounds).tolist()  # never with NaN
        return frozenset(place for place, is_far in zip(self.places, far, strict=True) if not is_far)


def _is_output(known: Known | None, got: Tensor | None) -> bool:
    """Whether an output is the one that is known."""
    if got is None or known is None:
        return False
    return agree(got, known.output, known.tolerance) or _same_number(got, known.output)


def _same_number(got: Tensor, known: Tensor) -> bool:
    """Whether a number as int and one as float are the same: `2 * n` and `float(2 * n)` make the same mistake."""
    return got.ndim == 0 == known.ndim and agree(got.double(), known.double())


def _apart(pairs: Sequence[tuple[Tensor | None, Known | None]]) -> float:
    """How far outputs are from a mistake's, in all cases together."""
    return sum(mean_distance(got, known.output) for got, known in pairs if got is not None and known is not None)


def _nearness(cases: Sequence[tuple[Tensor | None, Known | None, Tensor]]) -> float:
    """The largest share, over the wrong cases, that is left of the error if the mistake is taken for right.

    cases: for each, what came out, what is known of the mistake, and what is right. Infinite where one can't be
    compared.
    """
    shares = []
    for got, known, want in cases:
        if got is None or known is None or got.shape != want.shape or known.output.shape != want.shape:
            return float("inf")
        if not want.is_floating_point() or got.dtype != want.dtype or not bool(got.isfinite().all()):
            return float("inf")
        if want.numel() < FEWEST:  # a single number is soon near another: 0.9956 times it, and nothing follows
            return float("inf")
        from_right = mean_distance(got, want)
        shares.append(mean_distance(got, known.output) / from_right if from_right else float("inf"))
    return max(shares, default=float("inf"))
