"""A learner's guess: read kindly, shown beside what was measured, kept in the learner's folder, graded by nobody."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learners_course import code, lesson_cells, write_lesson, write_release

from grader.guesses import Guess, read_guesses
from grader.instruments import prediction
from grader.instruments.prediction import predict, predictions
from grader.learning.home import Home, folder_to_start, start_home
from grader.learning.status import status, table


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_asked", {})
    monkeypatch.setattr(prediction, "_names", {})


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
    share = predict("toy.share", "share of the MLPs", unit="%", guess=...)
    assert "No guess yet" in shown(capsys)
    assert (share.text, share.number, share.marks("x"), share.bar()) == ("no guess", None, {}, {})
    share.measured(66.4)
    said = shown(capsys)
    assert "Share of the MLPs" in said and "66.4 %" in said and "no guess" in said and "✗" not in said
    assert predictions() is None
    assert "of 1 questions" in shown(capsys)


@pytest.mark.parametrize(
    ("unit", "guess", "measured", "mark", "words"),
    [
        ("", 600, 144, "✗", "4.17 times too high"),
        ("", 150, 144, "✓", "4% too high"),
        ("", 144, torch.tensor(144), "✓", "right"),
        ("", 0, 3, "✗", "3 too low"),
        ("", -2.0, 4, "✗", "6 too low"),
        ("%", 50, 66.4, "✗", "16.4 points too low"),
        ("%", 63, 66.4, "✓", "3.4 points too low"),
        ("%", 3, 0.19, "✗", "15.8 times too high"),  # within five points, and still far off
        ("", (100, 200), 144, "✓", "inside your range"),
        ("", (200, 100), 144, "✓", "inside your range"),
        ("", [10, 20], 144, "✗", "7.2 times too low, at the near end of your range"),
    ],
)
def test_how_far_off_a_number_is(
    capsys: pytest.CaptureFixture[str], unit: str, guess: Any, measured: Any, mark: str, words: str
) -> None:
    predict("toy.number", "a number", unit=unit, guess=guess).measured(measured)
    assert shown(capsys).splitlines()[-1].split()[0] == mark
    predictions()
    row = next(line for line in shown(capsys).splitlines() if line.startswith(mark))
    assert row.endswith(words)


def test_names_of_one_of_some_of_and_order_of(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("RMSNorm", "RoPE", "SwiGLU")
    predict("toy.one", "the best", one_of=kinds, guess="RMSNorm").measured("RoPE")
    assert "✗  RoPE      RMSNorm     another one" in shown(capsys)
    predict("toy.some", "those that help", some_of=kinds, guess={"SwiGLU", "RoPE"}).measured(["RoPE", "SwiGLU"])
    assert "✓  RoPE, SwiGLU  RoPE, SwiGLU  right" in shown(capsys)
    predict("toy.none", "those that harm", some_of=kinds, guess=[]).measured(set())
    assert "✓  none of them  none of them  right" in shown(capsys)
    order = predict("toy.order", "from best to worst", order_of=kinds, guess=["RoPE", "SwiGLU", "RMSNorm"])
    order.measured(("SwiGLU", "RoPE", "RMSNorm"))
    assert "1 of 3 pairs the other way round" in shown(capsys)


@pytest.mark.parametrize(
    ("guess", "names"),
    [
        ("forty", {}),
        (True, {}),
        (float("nan"), {}),
        ((1, 2, 3), {}),
        ({1, 2}, {}),
        ((1, "two"), {}),
        (torch.zeros(3), {}),
        ("LayerNorm", {"one_of": ("RMSNorm", "RoPE")}),
        (3, {"some_of": ("RMSNorm", "RoPE")}),
        (["RoPE", "RoPE"], {"some_of": ("RMSNorm", "RoPE")}),
        (["RoPE"], {"order_of": ("RMSNorm", "RoPE")}),
    ],
)
def test_a_guess_that_cannot_be_read_is_told_and_stops_nothing(
    capsys: pytest.CaptureFixture[str], guess: Any, names: dict[str, Any]
) -> None:
    asked = predict("toy.any", "anything", guess=guess, **names)
    said = shown(capsys)
    assert "can't be read, and counts as none" in said and "Replace the three dots" in said
    assert asked.guess.guess is None


def test_an_answer_that_the_question_does_not_have_is_a_fault_of_the_notebook() -> None:
    with pytest.raises(ValueError, match="LayerNorm"):
        predict("toy.one", "the best", one_of=("RMSNorm", "RoPE"), guess=...).measured("LayerNorm")


def test_a_guess_stands_in_pictures_as_a_line_or_a_bar() -> None:
    assert predict("toy.a", "a number", guess=40).marks("y") == {"y40": "your guess"}
    wide = predict("toy.b", "a number", guess=(20, 60))
    assert wide.marks("x") == {"x20": "your range", "x60": ""}
    assert wide.bar() == {"the middle of your range": 40}
    assert predict("toy.c", "a choice", one_of=("a", "b"), guess="a").marks("x") == {}


def test_the_picture_at_the_end_has_the_numbers_and_says_whether_ranges_were_too_narrow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, guess in enumerate([(1, 2), (3, 4), (5, 200)]):
        predict(f"toy.{place}", f"number {place}", guess=guess).measured(100)
    predict("toy.zero", "nothing", guess=0).measured(0)
    predict("toy.later", "not yet", guess=7)
    shown(capsys)
    picture = predictions()
    said = shown(capsys)
    assert "Right, or within 10%: 2 of 5 guesses" in said and "not measured yet" in said
    assert "1 of your 3 ranges holds what was measured. They were too narrow" in said
    assert "number 2" in picture.text and "nothing" not in picture.text  # no multiple of 0
    assert picture.svg().startswith("<svg")


def test_a_cell_that_runs_again_keeps_what_was_measured_and_another_guess_does_not() -> None:
    predict("toy.share", "share", guess=40).measured(66)
    assert predict("toy.share", "share", guess=40).guess.measured == 66
    assert predict("toy.share", "share", guess=50).guess.measured is None


def test_guesses_are_kept_in_the_learners_folder_and_counted(home: Home) -> None:
    assert status(home)[0].guesses == (0, 2)
    share = predict("toy.share", "share of the MLPs", unit="%", guess=(40, 60))
    share.measured(66.4)
    assert read_guesses(home.folder, "00-toy") == {
        "toy.share": Guess("share of the MLPs", "%", "range", [40.0, 60.0], 66.4)
    }
    assert status(home)[0].guesses == (1, 2)
    assert [row[4] for row in table(status(home))] == ["guesses", "1 of 2", ""]
    predict("toy.share", "share of the MLPs", unit="%", guess=...)  # taken back
    assert read_guesses(home.folder, "00-toy") == {} and status(home)[0].guesses == (0, 2)


def test_what_was_measured_before_is_still_known_after_a_restart(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    predict("toy.share", "share", guess=40).measured(66)
    monkeypatch.setattr(prediction, "_asked", {})
    predict("toy.share", "share", guess=40)
    assert read_guesses(home.folder, "00-toy")["toy.share"].measured == 66


def test_a_damaged_file_counts_as_none(home: Home) -> None:
    predict("toy.share", "share", guess=40)
    kept = home.folder / ".grader" / "predictions" / "00-toy.json"
    for text in ("{", "[]", '{"toy.share": {"question": "x", "form": "other", "guess": 1}}', '{"toy.share": 3}'):
        kept.write_text(text)
        assert read_guesses(home.folder, "00-toy") == {}


def test_outside_of_a_learners_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_STARTED_IN", tmp_path)
    predict("toy.share", "share", guess=40).measured(66)
    assert list(tmp_path.iterdir()) == []
