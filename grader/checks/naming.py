"""Which known mistakes a wrong program may have made: told from its outputs in all cases together."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from grader.recordings.answers import Answer, MistakeAnswer
from grader.tolerance import agree, mean_distance

# A mistake is asked about where a program's output is this much nearer to the mistake's than to the right one.
NEAR = 0.2
# Of two mistakes that fit, the nearer is named alone if it is this many times nearer.
NEARER = 4.0
MAX_QUESTIONS = 2
FEWEST = 8  # values that an output must have to be called a mistake's in its case alone


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
    """outputs: the program's, for each of the answer's cases; None where it gave none. correct: which are right."""
    right = [i for i, is_right in enumerate(correct) if is_right]
    wrong = [i for i, is_right in enumerate(correct) if not is_right]
    if not wrong:  # then there is nothing to name, and hundreds of comparisons to save
        return Suspects((), ((),) * len(outputs), ())
    candidates = [mistake for mistake in answer.mistakes if not _shows_in(mistake, answer, right)]
    near_to = {i: answer.near(i, outputs[i]) for i in wrong}
    explained = {
        id(m): [i for i in wrong if n in near_to[i] and _explains(m, answer, i, outputs[i])]
        for n, m in enumerate(answer.mistakes)
    }
    unknown = {id(m): [i for i in wrong if _known(m, answer, i) is None] for m in answer.mistakes}
    fitting = [m for m in candidates if explained[id(m)] and len(explained[id(m)] + unknown[id(m)]) == len(wrong)]
    apart = {id(m): _apart(m, answer, explained[id(m)], outputs) for m in fitting}
    fitting.sort(key=lambda m: apart[id(m)])
    fitting = [m for m in fitting if apart[id(m)] <= NEARER * apart[id(fitting[0])]]
    in_part: list[tuple[MistakeAnswer, ...]] = [()] * len(outputs)
    for i in wrong if not fitting else ():
        # A few numbers are soon the same by chance in one case, but hardly in two, with no right case against it.
        few = not answer.outputs[i].is_floating_point() or answer.outputs[i].numel() < FEWEST
        told = [m for m in candidates if len(explained[id(m)]) > 1] if few else answer.mistakes
        in_part[i] = tuple(m for m in told if i in explained[id(m)])
    near = [] if fitting else sorted(
        ((share, n) for n, m in enumerate(candidates) if (share := _nearness(m, answer, wrong, outputs)) <= NEAR)
    )  # fmt: skip
    return Suspects(tuple(fitting), tuple(in_part), tuple(candidates[n] for _, n in near[:MAX_QUESTIONS]))


def _known(mistake: MistakeAnswer, answer: Answer, i: int) -> Tensor | None:
    known = mistake.in_case(i, answer.tolerances[i])
    return None if known is None else known.output


def _explains(mistake: MistakeAnswer, answer: Answer, i: int, got: Tensor | None) -> bool:
    """Whether the mistake gives this output, and it is a wrong one."""
    known = mistake.in_case(i, answer.tolerances[i])
    return (
        got is not None
        and known is not None
        and answer.wrong_of[mistake.name][i]
        and (agree(got, known.output, known.tolerance) or _same_number(got, known.output))
    )


def _same_number(got: Tensor, known: Tensor) -> bool:
    """Whether a number as int and one as float are the same: `2 * n` and `float(2 * n)` make the same mistake."""
    return got.ndim == 0 == known.ndim and agree(got.double(), known.double())


def _shows_in(mistake: MistakeAnswer, answer: Answer, right: Sequence[int]) -> bool:
    """Whether the mistake would show in a case that is right."""
    return any(answer.shows_of[mistake.name][i] for i in right)


def _apart(mistake: MistakeAnswer, answer: Answer, cases: Sequence[int], outputs: Sequence[Tensor | None]) -> float:
    pairs = ((outputs[i], _known(mistake, answer, i)) for i in cases)
    return sum(mean_distance(got, known) for got, known in pairs if got is not None and known is not None)


def _nearness(mistake: MistakeAnswer, answer: Answer, wrong: Sequence[int], outputs: Sequence[Tensor | None]) -> float:
    """The largest share, over the wrong cases, that is left of the error if the mistake is taken for right.

    Infinite where a case can't be compared.
    """
    shares = []
    for i in wrong:
        got, known, want = outputs[i], _known(mistake, answer, i), answer.outputs[i]
        if got is None or known is None or got.shape != want.shape or known.shape != want.shape:
            return float("inf")
        if not want.is_floating_point() or got.dtype != want.dtype or not bool(got.isfinite().all()):
            return float("inf")
        from_right = mean_distance(got, want)
        shares.append(mean_distance(got, known) / from_right if from_right else float("inf"))
    return max(shares, default=float("inf"))
