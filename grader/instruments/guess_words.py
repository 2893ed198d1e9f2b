"""A guess in words: read from what a learner wrote, and compared with what was measured."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

from grader.guesses import Form, Guess, Value
from grader.report import Line

CLOSE = 0.1  # of the measured number: from there on a guess counts as right
CLOSE_POINTS = 5  # the same for shares, in percentage points, where it is not a multiple of what was measured
FEW = 2  # ranges that miss: from there on, where they are a third of all, they were too narrow
WIDE = 10  # times the other end, or times what was measured where 0 is in it: from there on a range says little
WIDE_POINTS = 50  # the same for shares: half of all that a share can be
RIGHT, TOO_WIDE, WRONG = "✓", "○", "✗"


def read(guess: Any, form: Form, names: Sequence[str], unit: str = "") -> tuple[Value | None, str]:
    """A guess as it is kept, None where there is none; and what is wrong with it, if anything.

    What is clear is taken: a name in other letters, a number as text, with its unit or without.
    """
    if guess is ... or guess is None:
        return None, ""
    try:
        found = answer(_lenient(guess, form, names, unit), form, names)
    except ValueError as error:
        return None, f"The guess {guess!r} can't be read, and counts as none{f': {error}' if str(error) else ''}."
    if unit == "%" and isinstance(found, list) and float(found[0]) <= 0 and float(found[1]) >= 100:
        return None, f"The guess {guess!r} holds every share there is, and counts as none."
    return found, ""


def _lenient(guess: Any, form: Form, names: Sequence[str], unit: str) -> Any:
    """A guess with names as they are spelt here, and numbers out of texts."""
    if form in ("number", "range"):
        if isinstance(guess, str):
            return _as_number(guess.removesuffix(unit).removesuffix("%"))
        return [_as_number(each) if isinstance(each, str) else each for each in guess] if _is_row(guess) else guess
    spelt = {name.lower(): name for name in names}
    if isinstance(guess, str):
        return spelt.get(guess.strip().lower(), guess)
    if isinstance(guess, list | tuple | set | frozenset):
        fixed = [spelt.get(each.strip().lower(), each) if isinstance(each, str) else each for each in guess]
        if form == "order" and not _is_row(guess):
            raise ValueError("a set has no order")
        return fixed[0] if form == "choice" and len(fixed) == 1 else fixed
    return guess


def _is_row(guess: Any) -> bool:
    return isinstance(guess, list | tuple)


def _as_number(text: str) -> Any:
    try:
        return float(text.replace(",", "").replace("_", ""))
    except ValueError:
        return text


def answer(value: Any, form: Form, names: Sequence[str]) -> Value:
    """A guess or an answer in the form in which it is kept. Raises ValueError, which says why, where it has none."""
    if form in ("number", "range"):
        return _number(value)
    given: list[Any] = [value] if isinstance(value, str) else list(value) if isinstance(value, Collection) else [None]
    for name in given:
        if name not in names:
            raise ValueError(f"{name!r} is not one of the names" if isinstance(name, str) else "")
    if len(set(given)) != len(given):
        raise ValueError("a name stands twice in it")
    if form == "choices":
        return [name for name in names if name in given]
    if form == "order":
        if len(given) != len(names):
            raise ValueError("it does not have all of the names")
        return given
    if len(given) != 1:
        raise ValueError("only one of the names can be right")
    return str(given[0])


def _number(value: Any) -> float | list[float]:
    """A number, or two of them, the smaller one first. A tensor of one number is one, too."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise ValueError(value)
        return sorted(cast(float, _number(each)) for each in value)
    if isinstance(value, str | bool | Mapping | set):
        raise ValueError(value)
    try:
        read = float(value)
    except (TypeError, RuntimeError):
        raise ValueError(value) from None
    if read != read or read in (float("inf"), -float("inf")):
        raise ValueError(value)
    return int(read) if read == int(read) else read


def wanted(form: Form, names: Sequence[str]) -> str:
    """How a guess is written."""
    if form in ("number", "range"):
        return "Replace the three dots by a number, or by a range such as `(3, 5)` on which you would bet nine to one."
    quoted = [f'"{name}"' for name in names]
    listed = ", ".join(quoted)
    if form == "choice":
        return f"Replace the three dots by one of `{listed}`."
    if form == "choices":
        return f"Replace the three dots by those that you expect, such as `[{quoted[0]}]`, out of `{listed}`."
    return f"Replace the three dots by the order that you expect: `[{listed}]`, sorted your way."


def compared(guess: Guess) -> tuple[str, str]:
    """A mark, and in words how far the guess is from what was measured; both empty as long as one is missing."""
    if guess.guess is None or guess.measured is None:
        return "", "" if guess.measured is not None else "not measured yet"
    if guess.form == "range":
        low, high = cast(list[float], guess.guess)
        value = cast(float, guess.measured)
        if low <= value <= high:
            if _says_little(low, high, value, guess.unit):
                return TOO_WIDE, "inside your range, which is too wide to say much"
            return RIGHT, "inside your range"
        end, verb = (low, "begins") if value < low else (high, "ends")
        return (RIGHT if _close(end, value, guess.unit) else WRONG), f"your range {verb} {_off(end, value, guess.unit)}"
    if guess.form == "number":
        value, own = cast(float, guess.measured), cast(float, guess.guess)
        return (RIGHT if _close(own, value, guess.unit) else WRONG), _off(own, value, guess.unit)
    if guess.guess == guess.measured:
        return RIGHT, "right"
    if guess.form == "order":
        return WRONG, _swapped(cast(list[str], guess.guess), cast(list[str], guess.measured))
    if guess.form == "choice":
        return WRONG, "not this one"
    own_names, right_names = cast(list[str], guess.guess), cast(list[str], guess.measured)
    said = [f"{name} too" for name in right_names if name not in own_names]
    return WRONG, ", ".join([*said, *(f"not {name}" for name in own_names if name not in right_names)])


def _close(own: float, value: float, unit: str) -> bool:
    points = CLOSE_POINTS if unit == "%" and _ratio(own, value) < 1.5 else 0
    return abs(own - value) <= max(points, CLOSE * abs(value))


def _says_little(low: float, high: float, value: float, unit: str) -> bool:
    """Whether a range holds what was measured because it holds nearly everything."""
    if unit == "%" and low >= 0 and high <= 100:
        return high - low >= WIDE_POINTS
    if low <= 0 <= high:
        return value != 0 and high - low >= WIDE * abs(value)
    return max(abs(low), abs(high)) >= WIDE * min(abs(low), abs(high))


def _off(own: float, value: float, unit: str) -> str:
    """How far a guess is from the measured value, in words."""
    which, ratio = "too high" if own > value else "too low", _ratio(own, value)
    if ratio < 1.005:
        return "right"
    if ratio == float("inf"):
        return f"{_short(abs(own - value))} {'points' if unit == '%' else unit} {which}".replace("  ", " ")
    if ratio >= 2:
        return f"{_short(ratio)} times {which}"
    return (
        f"{_short(abs(own - value))} points {which}" if unit == "%" else f"{abs(own - value) / abs(value):.0%} {which}"
    )


def _ratio(own: float, value: float) -> float:
    """How many times one is the other, at least 1; infinite where their signs differ or one is 0."""
    if own == value:
        return 1.0
    return max(abs(own), abs(value)) / min(abs(own), abs(value)) if own * value > 0 else float("inf")


def _swapped(own: Sequence[str], right: Sequence[str]) -> str:
    pairs = list(combinations(right, 2))
    wrong = sum(own.index(first) > own.index(second) for first, second in pairs)
    return f"{wrong} of {len(pairs)} pairs the other way round"


def how_sure(made: Sequence[Guess]) -> list[Line]:
    """Whether ranges were wide enough, so that nearly all of them hold, and no wider than what they should say."""
    ranges = [guess for guess in made if guess.form == "range" and guess.measured is not None]
    if not ranges:
        return []
    marks = [compared(guess)[0] for guess in ranges]
    missed, wide = marks.count(WRONG), marks.count(TOO_WIDE)
    held = len(ranges) - missed
    said = f"{held} of your {len(ranges)} ranges {'holds' if held == 1 else 'hold'} what was measured."
    if missed >= FEW and 3 * missed >= len(ranges):
        said += " They were too narrow: of ranges that you are sure of, nearly all should hold."
    if wide:
        which = "One of them is" if wide == 1 else f"{wide} of them are"
        said += f" {which} so wide that hardly any number could miss. Give the narrowest range that you would bet on."
    return [Line(said, "text")]


def measured_in_words(guess: Guess) -> str:
    return "" if guess.measured is None else in_words(guess.measured, guess)


def in_words(value: Value | None, guess: Guess) -> str:
    if isinstance(value, list) and guess.form == "range":
        low, high = cast(list[float], value)
        return f"{_short(low)} to {_short(high)} {guess.unit}".rstrip()
    if isinstance(value, list):
        return (" → " if guess.form == "order" else ", ").join(map(str, value)) or "none of them"
    return f"{_short(value)} {guess.unit}".rstrip() if isinstance(value, int | float) else str(value)


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ends_of(guess: Guess) -> tuple[float, float] | None:
    """The lowest and the highest number of a guess; None where it is no number."""
    if guess.guess is None or guess.form not in ("number", "range"):
        return None
    low, high = guess.guess if isinstance(guess.guess, list) else (guess.guess, guess.guess)
    return cast(float, low), cast(float, high)
