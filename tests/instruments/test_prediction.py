"""A learner's guess: read kindly, shown beside what was measured, kept in the learner's folder, graded by nobody."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learners_course import code, lesson_cells, write_lesson, write_release

from grader.guesses import Guess, read_guesses
from grader.instruments import prediction
from grader.instruments.prediction import measured, predict, predictions
from grader.learning.home import Home, folder_to_start, start_home
from grader.learning.status import status, table


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_asked", {})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A learner's folder, in whose first lesson the notebook runs."""
    release = write_release(tmp_path / "clone")
    asked = [
        code(name, f'predict("toy.{name}", "{name}", guess=...)', prediction=f"toy.{name}")
        for name in ("share", "cost")
    ]
    write_lesson(release.folder, "00-toy/toy.ipynb", lesson_cells("00", "toy", {"norm": 10}) + asked)
    home = start_home(folder_to_start(None, release.folder.parent), "1")
    monkeypatch.setattr(prediction, "_STARTED_IN", home.folder / "00-toy")
    return home


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_without_a_guess_it_says_what_one_looks_like_and_the_measurement_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict("toy.share", "share of the MLPs", unit="%", guess=...)
    assert "No guess yet" in shown(capsys)
    told = measured("toy.share", 66.4)
    said = shown(capsys)
    assert "Share of the MLPs" in said and "66.4 %" in said and "no guess" in said and "✗" not in said
    assert (told.text, told.marks("x"), told.bar()) == ("no guess", {}, {})
    assert predictions() is None
    assert "1 question asked" in shown(capsys)


def test_where_the_question_did_not_run_the_measurement_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    told = measured("toy.share", 66.4)
    assert "toy.share: 66.4. The cell that asks for a guess has not run." in shown(capsys)
    assert not measured("toy.names", ["a", "b"]).marks("x") and not told.bar()


@pytest.mark.parametrize(
    ("unit", "guess", "value", "mark", "words"),
    [
        ("", 600, 144, "✗", "4.17 times too high"),
        ("", 150, 144, "✓", "4% too high"),
        ("", 144, torch.tensor(144), "✓", "right"),
        ("", 0, 3, "✗", "3 too low"),
        ("", -2.0, 4, "✗", "6 too low"),
        ("%", 50, 66.4, "✗", "16.4 points too low"),
        ("%", 63, 66.4, "✓", "3.4 points too low"),
        ("%", 3, 0.19, "✗", "15.8 times too high"),  # within five points, and still far off
        ("%", -5, 66.4, "✗", "71.4 points too low"),
        ("", (100, 200), 144, "✓", "inside your range"),
        ("", (200, 100), 144, "✓", "inside your range"),
        ("", (1, 1000), 144, "○", "inside your range, which is too wide to say much"),
        ("", (0, 400), 144, "✓", "inside your range"),
        ("", (0, 2000), 144, "○", "inside your range, which is too wide to say much"),
        ("", (-2, -0.1), -1, "○", "inside your range, which is too wide to say much"),
        ("", (0, 5), 0, "✓", "inside your range"),  # nothing to compare its width with
        ("%", (40, 89), 66.4, "✓", "inside your range"),
        ("%", (40, 90), 66.4, "○", "inside your range, which is too wide to say much"),
        ("%", (200, 290), 250, "✓", "inside your range"),  # no share
        ("", (1, 1000), 3000, "✗", "your range ends 3 times too low"),
        ("", [10, 20], 144, "✗", "your range ends 7.2 times too low"),
        ("", (150, 200), 144, "✓", "your range begins 4% too high"),  # as near as a number may be
    ],
)
def test_how_far_off_a_number_is(
    capsys: pytest.CaptureFixture[str], unit: str, guess: Any, value: Any, mark: str, words: str
) -> None:
    predict("toy.number", "a number", unit=unit, guess=guess)
    measured("toy.number", value)
    assert shown(capsys).splitlines()[-1].split()[0] == mark
    predictions()
    row = next(line for line in shown(capsys).splitlines() if line.startswith(mark))
    assert row.endswith(words)


KINDS = ("RMSNorm", "RoPE", "SwiGLU")


@pytest.mark.parametrize(
    ("form", "guess", "right", "row"),
    [
        ("one_of", "RMSNorm", "RoPE", "✗  RoPE      RMSNorm     not this one"),
        ("one_of", ["rope"], "RoPE", "✓  RoPE      RoPE        right"),
        ("some_of", {"SwiGLU", "RoPE"}, ["RoPE", "SwiGLU"], "✓  RoPE, SwiGLU  RoPE, SwiGLU  right"),
        ("some_of", "RoPE", ["RoPE", "SwiGLU"], "✗  RoPE, SwiGLU  RoPE        SwiGLU too"),
        ("some_of", ["RMSNorm", "RoPE"], ["RoPE"], "✗  RoPE      RMSNorm, RoPE  not RMSNorm"),
        ("some_of", [], set(), "✓  none of them  none of them  right"),
        (
            "order_of",
            ["RoPE", "SwiGLU", "RMSNorm"],
            ("SwiGLU", "RoPE", "RMSNorm"),
            "✗  SwiGLU → RoPE → RMSNorm  RoPE → SwiGLU → RMSNorm  1 of 3 pairs the other way round",
        ),
    ],
)
def test_names_are_compared(capsys: pytest.CaptureFixture[str], form: str, guess: Any, right: Any, row: str) -> None:
    predict("toy.names", "names", guess=guess, **{form: KINDS})  # type: ignore[arg-type]
    measured("toy.names", right)
    assert shown(capsys).splitlines()[-1] == row


@pytest.mark.parametrize(
    ("guess", "names", "why"),
    [
        ("forty", {}, ""),
        (True, {}, ""),
        (float("nan"), {}, ""),
        ((1, 2, 3), {}, ""),
        ({1, 2}, {}, ""),
        ((1, "two"), {}, ""),
        (torch.zeros(3), {}, ""),
        ("LayerNorm", {"one_of": KINDS}, "'LayerNorm' is not one of the names"),
        (["RMSNorm", "RoPE"], {"one_of": KINDS}, "only one of the names can be right"),
        (3, {"some_of": KINDS}, ""),
        (["RoPE", "rope"], {"some_of": KINDS}, "a name stands twice in it"),
        (["RoPE"], {"order_of": KINDS}, "it does not have all of the names"),
        (set(KINDS), {"order_of": KINDS}, "a set has no order"),
    ],
)
def test_a_guess_that_cannot_be_read_is_told_and_stops_nothing(
    capsys: pytest.CaptureFixture[str], guess: Any, names: dict[str, Any], why: str
) -> None:
    predict("toy.any", "anything", guess=guess, **names)
    said = shown(capsys)
    assert "can't be read, and counts as none" in said and why in said and "Replace the three dots" in said
    assert predictions() is None


@pytest.mark.parametrize("guess", ["66 %", "66%", "66", 66, 66.0, torch.tensor(66)])
def test_a_number_is_taken_with_its_unit_and_without(capsys: pytest.CaptureFixture[str], guess: Any) -> None:
    predict("toy.share", "share", unit="%", guess=guess)
    assert "Your guess: 66 %" in shown(capsys)


def test_a_range_that_holds_every_share_is_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    predict("toy.share", "share", unit="%", guess=(0, 100))
    assert "holds every share there is, and counts as none" in shown(capsys)


def test_an_answer_that_the_question_does_not_have_is_a_fault_of_the_notebook() -> None:
    predict("toy.one", "the best", one_of=KINDS, guess=...)
    with pytest.raises(ValueError, match="LayerNorm"):
        measured("toy.one", "LayerNorm")


def test_a_guess_stands_in_pictures_as_a_line_or_a_bar() -> None:
    predict("toy.a", "a number", guess=40)
    assert measured("toy.a", 50).marks("y") == {"y40": "your guess"}
    predict("toy.b", "a number", guess=(20, 60))
    wide = measured("toy.b", 50)
    assert wide.marks("x") == {"x20": "your range", "x60": ""}
    assert wide.bar() == {"the middle of your range": 40}
    predict("toy.c", "a choice", one_of=("a", "b"), guess="a")
    assert measured("toy.c", "a").marks("x") == {}


def test_the_picture_at_the_end_has_the_numbers_and_says_whether_ranges_were_too_narrow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, guess in enumerate([(1, 2), (3, 4), (50, 200)]):
        predict(f"toy.{place}", f"number {place}", guess=guess)
        measured(f"toy.{place}", 100)
    predict("toy.zero", "nothing", guess=0)
    measured("toy.zero", 0)
    predict("toy.later", "not yet", guess=7)
    shown(capsys)
    picture = predictions()
    said = shown(capsys)
    assert "Right, or within 10%: 2 of 4 guesses" in said and "not measured yet" in said
    assert "1 of your 3 ranges holds what was measured. They were too narrow" in said
    assert "number 2" in picture.text and "nothing" not in picture.text  # no multiple of 0
    assert "Not in the picture, since 0 is no multiple of anything: nothing." in said
    assert picture.svg().startswith("<svg")


def test_a_range_that_holds_nearly_every_number_counts_as_no_right_guess(capsys: pytest.CaptureFixture[str]) -> None:
    for place, guess in enumerate([(1, 10_000), (60, 150), (0.01, 500)]):
        predict(f"toy.{place}", f"number {place}", guess=guess)
        measured(f"toy.{place}", 100)
    shown(capsys)
    picture = predictions()
    said = shown(capsys)
    assert "Right, or within 10%: 1 of 3 guesses" in said
    assert "3 of your 3 ranges hold what was measured. 2 of them are so wide that hardly any number could miss" in said
    assert "number 0: inside your range, which is too wide to say much" in picture.text
    assert "too narrow" not in said


def test_the_guess_of_before_the_measurement_stays_until_it_is_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    predict("toy.share", "share", guess=40)
    measured("toy.share", 66)
    shown(capsys)
    predict("toy.share", "share", guess=66)
    assert "It is measured already, so your first guess stays: 40" in shown(capsys)
    predict("toy.share", "share", guess=...)
    predict("toy.share", "share", guess=66)
    assert "Your guess: 66" in shown(capsys)


def test_guesses_are_kept_in_the_learners_folder_and_counted(home: Home) -> None:
    assert status(home)[0].guesses == (0, 2)
    predict("toy.share", "share of the MLPs", unit="%", guess=(40, 60))
    measured("toy.share", 66.4)
    assert read_guesses(home.folder, "00-toy") == {
        "toy.share": Guess("share of the MLPs", "%", "range", [40.0, 60.0], 66.4)
    }
    assert status(home)[0].guesses == (1, 2)
    assert [row[4] for row in table(status(home))] == ["guesses", "1 of 2", ""]
    predict("toy.share", "share of the MLPs", unit="%", guess=...)  # taken back
    assert read_guesses(home.folder, "00-toy") == {} and status(home)[0].guesses == (0, 2)


def test_after_a_restart_everything_is_still_known(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("toy.share", "share", guess=40)
    measured("toy.share", 66)
    predict("toy.best", "the best", one_of=KINDS, guess="RoPE")
    monkeypatch.setattr(prediction, "_asked", {})
    shown(capsys)
    predictions()
    assert "40" in shown(capsys)
    measured("toy.best", "RoPE")
    assert "✓" in shown(capsys)
    assert read_guesses(home.folder, "00-toy")["toy.best"].measured == "RoPE"


def test_a_damaged_file_counts_as_none(home: Home) -> None:
    predict("toy.share", "share", guess=40)
    kept = home.folder / ".grader" / "predictions" / "00-toy.json"
    for text in ("{", "[]", '{"toy.share": {"question": "x", "form": "other", "guess": 1}}', '{"toy.share": 3}'):
        kept.write_text(text)
        assert read_guesses(home.folder, "00-toy") == {}


def test_outside_of_a_learners_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_STARTED_IN", tmp_path)
    predict("toy.share", "share", guess=40)
    measured("toy.share", 66)
    assert list(tmp_path.iterdir()) == []
