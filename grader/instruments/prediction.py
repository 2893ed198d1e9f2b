"""`predict`: a learner's guess before a measurement, and beside it afterwards. Nobody grades it.

    predict("qwen3.mlp_share", "share of the parameters that is in the MLPs", unit="%", guess=...)
    ...                                              # the measurement, further down
    measured("qwen3.mlp_share", 100 * mlp / total)

The learner writes a guess in place of the three dots, or goes on without one. The guess stays in the notebook's own
cell, so it needs no extension of any editor; where `grader start` made the folder, it is kept beside the progress, too.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any, cast

from grader.guesses import Form, Guess, keep_guess, kept_guesses
from grader.instruments.guess_words import (
    CLOSE,
    RIGHT,
    TOO_WIDE,
    answer,
    compared,
    ends_of,
    how_sure,
    in_words,
    measured_in_words,
    read,
    wanted,
)
from grader.report import Line, row, show

__all__ = ["Prediction", "measured", "predict", "predictions"]

_STARTED_IN = Path.cwd()  # a notebook that changes folder is still the same lesson's
_asked: dict[str, Guess] = {}  # in this kernel, in order
_WHY = "A guess that turns out wrong shows where your picture of the model differs from the model."


@dataclass(frozen=True)
class Prediction:
    """A guess that was measured, for pictures and tables. `measured` gives it; without a guess it draws nothing."""

    guess: Guess

    @property
    def text(self) -> str:
        """The guess in words, for a table: "40 %", "20 to 60 %"; "no guess"."""
        return in_words(self.guess.guess, self.guess) if self.guess.guess is not None else "no guess"

    def marks(self, axis: str) -> dict[str, str]:
        """For `plots.Axes(marks=...)`: the guess as dashed lines at an "x" or a "y"; nothing without a number."""
        ends = ends_of(self.guess)
        if not ends:
            return {}
        names = ("your guess",) if ends[0] == ends[1] else ("your range", "")
        return {f"{axis}{end!r}": name for end, name in zip(ends, names, strict=False)}

    def bar(self) -> dict[str, float]:
        """For `plots.bars({...} | guess.bar())`: one more bar, of a range the middle; nothing without a number."""
        ends = ends_of(self.guess)
        if not ends:
            return {}
        return {"your guess" if ends[0] == ends[1] else "the middle of your range": sum(ends) / 2}

    def _ipython_display_(self) -> None:
        """Nothing more to show, where it is a cell's last line."""


def predict(
    name: str,
    question: str,
    *,
    guess: Any = ...,
    unit: str = "",
    one_of: Sequence[str] = (),
    some_of: Sequence[str] = (),
    order_of: Sequence[str] = (),
) -> None:
    """Ask for a guess before something is measured; `measured` shows both.

    name: of the question, as in "qwen3.mlp_share". question: what is measured, in a few words. unit: of a number.
    guess: the learner's, in place of the three dots. Without names it is a number, or a range (lowest, highest). With
    `one_of` it is one of these names, with `some_of` any number of them, with `order_of` all of them in an order.
    Nothing is raised for a guess that can't be read: it is said what one looks like, and the guess counts as none. The
    guess that was made before the measurement stays, whatever is written later; three dots take it back.
    """
    names = list(one_of or some_of or order_of)
    form: Form = "choice" if one_of else "choices" if some_of else "order" if order_of else "number"
    own, problem = read(guess, form, names, unit)
    asked = Guess(question, unit, "range" if form == "number" and isinstance(own, list) else form, own, None, names)
    known = _known().get(name)
    stays = known is not None and own is not None and known.measured is not None and known.guess is not None
    if known is not None and stays and (known.question, known.unit, known.names) == (question, unit, names):
        asked = known
    _asked[name] = asked
    keep_guess(_STARTED_IN, name, asked)
    if problem:
        show([Line(problem, "bad"), Line(wanted(form, names), "hint")])
    elif own is None:
        show([Line(f"No guess yet. {wanted(form, names)} You can go on without one, too.", "muted")])
    elif own != asked.guess:
        show([Line(f"It is measured already, so your first guess stays: {in_words(asked.guess, asked)}", "idle")])
    else:
        show([Line(f"Your guess: {in_words(own, asked)}", "idle")])


def measured(name: str, value: float | str | Collection[str]) -> Prediction:
    """Show what was measured, with the guess beside it, and keep both.

    name: the question's. value: a number; the right one of the names; those of them that are right; or the names in
    their order. Where the cell with the question did not run, the value is shown alone.
    Raises ValueError where the question has no such answer: that is a fault of the notebook.
    """
    asked = _known().get(name)
    if asked is None:
        show([Line(f"{name}: {_plain(value)}. The cell that asks for a guess has not run.", "muted")])
        return Prediction(Guess(name))
    found = replace(asked, measured=answer(value, asked.form, asked.names))
    _asked[name] = found
    keep_guess(_STARTED_IN, name, found)
    mark, comment = compared(found)
    told = Prediction(found)
    rows = [
        row("head", "", "measured", "your guess", "how far off" if mark else ""),
        row("text", mark, measured_in_words(found), told.text, comment),
    ]
    show([Line(_upper(found.question), "named"), *rows])
    return told


def predictions() -> Any:
    """The guesses of this notebook beside what was measured: a table, and a picture of how far off numbers are.

    Returns the picture, as the last line of a cell; None where there is no number to draw. After a restart the guesses
    are those that a learner's folder keeps.
    """
    known = _known()
    made = [guess for guess in known.values() if guess.guess is not None]
    if not made:
        asked = f"{len(known)} question{'s' if len(known) != 1 else ''} asked"
        show([Line(f"No guesses here yet, {asked} since the kernel started. {_WHY}", "muted")])
        return None
    rows = [row("head", "", "question", "measured", "your guess", "how far off")]
    for guess in made:
        mark, comment = compared(guess)
        rows.append(row("text", mark, guess.question, measured_in_words(guess), in_words(guess.guess, guess), comment))
    right = sum(compared(guess)[0] == RIGHT for guess in made)
    answered = sum(guess.measured is not None for guess in made)
    lines = [Line(f"Right, or within {CLOSE:.0%}: {right} of {answered} guesses", "named"), *rows, *how_sure(made)]
    drawn = [guess for guess in made if _ratios(guess)]
    left_out = [
        guess.question for guess in made if ends_of(guess) and guess not in drawn and guess.measured is not None
    ]
    if drawn and left_out:
        lines.append(Line(f"Not in the picture, since 0 is no multiple of anything: {', '.join(left_out)}.", "muted"))
    show(lines)
    return _picture(drawn)


def _known() -> dict[str, Guess]:
    """The guesses of this kernel, and of earlier ones in a learner's folder, in the order in which they were asked."""
    return {**kept_guesses(_STARTED_IN), **_asked}


def _plain(value: Any) -> str:
    return f"{float(value):.3g}" if not isinstance(value, str | list | tuple | set) else str(value)


def _ratios(guess: Guess) -> tuple[float, float] | None:
    """A guess divided by what was measured, at both ends; None where one of them is not above 0."""
    ends, value = ends_of(guess), guess.measured
    if ends is None or not isinstance(value, int | float) or min(*ends, value) <= 0:
        return None
    return ends[0] / value, ends[1] / value


def _picture(guesses: Sequence[Guess]) -> Any:
    """How many times too high or too low each number is, as a point or as a bar; a bar that is too wide is grey."""
    if not guesses:
        return None
    from grader.instruments.picture import COLOURS, FAINT, Drawing, Picture

    places = [cast(tuple[float, float], _ratios(guess)) for guess in guesses]

    def draw(axes: Any) -> None:
        for height, ((low, high), guess) in enumerate(zip(places, guesses, strict=True)):
            colour = {RIGHT: COLOURS[2], TOO_WIDE: FAINT}.get(compared(guess)[0], COLOURS[1])
            axes.plot([low, high], [height, height], color=colour, lw=5, solid_capstyle="round")
            if low == high:
                axes.plot([low], [height], color=colour, marker="o", ms=7)
        axes.axvline(1, color=FAINT, ls="--", lw=1)
        reach = max(2.2, *(max(high, 1 / low) for low, high in places)) * 1.3
        axes.set(xscale="log", xlim=(1 / reach, reach), ylim=(len(guesses) - 0.5, -0.5))
        near = (0.25, 0.5, 1, 2, 4) if reach < 20 else (1,)  # more would stand in each other's way
        ticks = [tick for tick in (0.001, 0.01, 0.1, *near, 10, 100, 1000) if 1 / reach <= tick <= reach]
        axes.set_xticks(ticks, labels=["measured" if tick == 1 else f"× {tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(guesses)), labels=[_folded(guess.question) for guess in guesses])
        axes.set_xlabel("your guess")

    said = "; ".join(f"{guess.question}: {compared(guess)[1]}" for guess in guesses)
    words = f"Your guesses as multiples of what was measured. {said}."
    return Picture([Drawing(draw, words, 8, 1 + 0.5 * len(guesses))])


def _folded(text: str, width: int = 42) -> str:
    return "\n".join(wrap(text, width))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
