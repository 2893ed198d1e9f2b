"""How far rounding alone moves what a lesson records: measured once, when it is recorded.

The reference and every mistake are run again as on other processors (see instruments.rounding), and the reference in
float64 as well where it can be. What is measured is in units of a tolerance's `relative` (see tolerance.distance).
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from grader.errors import RecordingError
from grader.instruments.rounding import another_processor
from grader.tolerance import MARGIN, Tolerance, distance

SEEDS = (1, 2, 3)
SEEDS_OF_MISTAKES = (1, 2)


def noise_of(run: Callable[[], Tensor], want: Tensor, seeds: Sequence[int] = SEEDS) -> float:
    """The largest distance of what `run` gives on other processors from `want`, to two digits."""
    furthest = 0.0
    for seed in seeds:
        with another_processor(seed):
            got = run()
        furthest = max(furthest, distance(got, want))
    return rounded(furthest)


def distance_in_float64(run: Callable[[], Tensor], want: Tensor) -> float:
    """The distance of `want`, computed in float32, from what `run` computes in float64; 0 where that can't be had."""
    try:
        exact = run()
    except RuntimeError:  # parts of it insist on float32
        return 0.0
    return rounded(distance(exact.to(want.dtype), want))


def require_margin(noise: float, tolerance: Tolerance, where: str) -> None:
    """Raise RecordingError where rounding alone takes up so much of a tolerance that a right answer could fail."""
    if not worth_keeping([noise], [tolerance]):
        return
    if noise == float("inf"):
        what = "rounding alone changes what is right: it hangs on a near-tie"
    else:
        what = f"rounding alone moves what is right by {noise:.2g}, and the tolerance is {tolerance.relative:.2g}"
    raise RecordingError(
        f"{where}: {what}. On another processor a right answer could fail. Give the case another `draw`, or numbers"
        " with which its layers amplify less."
    )


def rounded(noise: float) -> float:
    """Two digits of it, so that a recording says no more than was measured."""
    return float(f"{noise:.2g}")


def worth_keeping(noise: Sequence[float], tolerances: Sequence[Tolerance]) -> tuple[float, ...]:
    """The noise in each case, with 0 for what the tolerance covers with room; empty where that is so of all.

    Where few values may differ at all, none should differ by rounding.
    """
    kept = tuple(
        n if MARGIN * n > (tolerance.relative if tolerance.share == 1 else 0.0) else 0.0
        for n, tolerance in zip(noise, tolerances, strict=True)
    )
    return kept if any(kept) else ()
