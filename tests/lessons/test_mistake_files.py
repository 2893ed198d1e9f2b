"""A lesson's mistakes as data: mistakes.toml, the families, and what is said of a file that is not right."""

from pathlib import Path

import pytest

from grader.authoring import mistakes as reader
from grader.authoring.made_from import made_from
from grader.authoring.mistakes import FAMILIES, files_read, with_mistakes
from grader.authoring.recorder import patched_source, record
from grader.checks.examine import examine_here
from grader.checks.judge.wording import report
from grader.errors import RecordingError
from grader.lessons.exercise import Case, Exercise, Mistake
from grader.lessons.lesson import Lesson, lessons
from grader.recordings.recording import Recording
from grader.report import Line, shipped_line, to_html, to_text

pytestmark = pytest.mark.sampled(1)

ROOT = Path(__file__).resolve().parents[2]
LESSONS = lessons(ROOT)

TWIN = '''\
# %% tags=["setup"]
import torch
from torch import Tensor

# %% exercise="toy.double"
def double(x: Tensor, scale: float = 2.0) -> Tensor:
    """Twice x, at least -1."""
    ### BEGIN SOLUTION
    if scale == 2.0:
        y = scale * x
        y = y + 0.0
    return y.clamp(min=-1)
    ### END SOLUTION

# %% check="toy.double"
check("toy.double", double)
'''
EXERCISES = [
    Exercise(
        name="toy.double",
        solution="double",
        reference=lambda x: (2 * x).clamp(min=-1),
        function=True,
        cases=[Case("a vector", lambda draw: [draw.normal(9)])],
    )
]
PRODUCT = """
[[toy.double]]
at = "scale * x"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "solutions" / "00-toy"
    made.mkdir(parents=True)
    (made / "toy.py").write_text(TWIN)
    (made / "exercises.py").write_text("")
    return made


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one family of two mistakes."""
    made = tmp_path / "families"
    made.mkdir()
    (made / "product.toml").write_text(
        """
["x is not scaled"]
hint = "What does {what} do?"
at = "{product}"
put = "x"

["the product is negative"]
hint = "Look at the sign."
at = "{product}"
put = "-{product}"
shipped = ["owner/repo@1a2b3c4"]

["nothing is cut off"]
hint = "What is the least value?"
at = "{cut}"
put = ""
"""
    )
    monkeypatch.setattr(reader, "FAMILIES", made)
    return made


def read(folder: Path, text: str) -> list[Mistake]:
    (folder / "mistakes.toml").write_text(text)
    return list(with_mistakes(folder / "exercises.py", EXERCISES)[0].mistakes)


def patched(folder: Path, mistake: Mistake) -> str:
    return patched_source(Lesson(folder).source_of("toy.double"), "toy.double", mistake)


def test_a_table_is_a_place_and_a_line_a_mistake(folder: Path) -> None:
    first, second = read(
        folder, PRODUCT + '"it adds" = ["scale + x", "Plus?"]\n"it divides" = ["x / scale", "By what?"]'
    )
    assert (first.name, first.hint, second.name) == ("it adds", "Plus?", "it divides")
    assert "y = scale + x\n" in patched(folder, first)
    assert "y = x / scale\n" in patched(folder, second)


def test_a_text_of_several_lines_gets_the_indentation_of_its_place(folder: Path) -> None:
    text = """
[[toy.double]]
at = '''
y = scale * x
y = y + 0.0'''
"it loops" = ['''
for _ in range(1):
    y = scale * x

    y = y + 1.0''', "How often?"]
"""
    (mistake,) = read(folder, text)
    source = patched(folder, mistake)
    assert "        for _ in range(1):\n            y = scale * x\n\n            y = y + 1.0\n    return" in source
    compile(source, "patched", "exec")


def test_a_mistake_may_need_two_edits_in_either_order(folder: Path) -> None:
    text = """
[[toy.double]]
at = ["min=-1", "y + 0.0"]
"both ends move" = [["min=-2", "y + 1.0"], "Both?"]
"""
    (mistake,) = read(folder, text)
    source = patched(folder, mistake)
    assert "y = scale * x\n        y = y + 1.0\n    return y.clamp(min=-2)" in source


def test_a_family_applies_where_its_placeholders_are_given(folder: Path, family: Path) -> None:
    text = """
[[toy.double]]
family = "product"
product = "scale * x"
what = "a factor"
"""
    first, second = read(folder, text)
    assert (first.name, first.hint) == ("x is not scaled", "What does a factor do?")
    assert "y = x\n" in patched(folder, first)
    assert "y = -scale * x\n" in patched(folder, second)
    assert list(second.shipped) == ["owner/repo@1a2b3c4"]


def test_a_lesson_may_leave_a_familys_mistake_out_and_override_a_hint_with_a_reason(folder: Path, family: Path) -> None:
    text = """
[[toy.double]]
family = "product"
product = "scale * x"
what = "a factor"
without."the product is negative" = "nobody does that here"
hints."x is not scaled" = ["Twice?", "there is one factor only"]
"""
    (mistake,) = read(folder, text)
    assert (mistake.name, mistake.hint) == ("x is not scaled", "Twice?")


FAMILY = '[[toy.double]]\nfamily = "product"\nproduct = "scale * x"\nwhat = "a factor"\n'
WRONG: dict[str, tuple[str, str]] = {
    "no TOML": ("[[toy.double", "is not valid TOML"),
    "an unknown exercise": (
        '[[toy.triple]]\nat = "x"',
        r"\[\[toy.triple\]\] is no exercise. Name one of .* toy.double",
    ),
    "one bracket": ('[toy.double]\nat = "x"', r"toy.double must be a table that starts with \[\[toy.double\]\]"),
    "a key without a table": ('toy = "double"', r"`toy` stands alone. Start each table with \[\[lesson.exercise\]\]"),
    "neither place nor family": (
        '[[toy.double]]\n"a" = ["b", "c"]',
        "neither `at`, a place in the solution, nor `family`",
    ),
    "a place that is no text": ("[[toy.double]]\nat = 3", "`at` must be a text, and is 3"),
    "no place at all": ("[[toy.double]]\nat = []", "`at` is empty. Give a text of the solution"),
    "an empty place": ('[[toy.double]]\nat = ""\n"a" = ["b", "c"]', "has an empty place"),
    "no hint": (
        PRODUCT + '"it adds" = ["scale + x"]',
        "'it adds' must be a list: what stands there instead, and the hint",
    ),
    "a text alone": (PRODUCT + '"it adds" = "scale + x"', "'it adds' must be a list"),
    "a place that is not there": (
        '[[toy.double]]\nat = "scale + x"\n"a" = ["b", "c"]',
        "at `scale \\+ x`, 'a': `scale \\+ x` occurs not at all in the solution's cell, and must occur once. Copy",
    ),
    "a place that is there twice": ('[[toy.double]]\nat = "y = "\n"a" = ["b", "c"]', "occurs 2 times"),
    "one text for two places": ('[[toy.double]]\nat = ["min", "0.0"]\n"a" = ["b", "c"]', "changes 1 of 2 places"),
    "places that overlap": (
        '[[toy.double]]\nat = ["y + 0.0", "+ 0.0"]\n"a" = [["b", "d"], "c"]',
        "places that overlap",
    ),
    "a name twice": (
        PRODUCT + '"a" = ["b", "c"]\n[[toy.double]]\nat = "0.0"\n"a" = ["1.0", "c"]',
        "'a' is there twice",
    ),
    "something else at the end": (PRODUCT + '"a" = ["b", "c", { seen = "x" }]', "the third value must be { shipped ="),
    "a wrong reference": (
        PRODUCT + '"a" = ["b", "c", { shipped = ["#12"] }]',
        "'a', `shipped`: '#12' must be an issue",
    ),
    "references that are no list": (
        PRODUCT + '"a" = ["b", "c", { shipped = "o/r#1" }]',
        "`shipped`: None must be an issue",
    ),
    "an unknown family": ('[[toy.double]]\nfamily = "sum"', "There is no family 'sum' of mistakes. Use one of product"),
    "an unknown placeholder": (
        FAMILY + 'other = "x"',
        "family 'product', `other`: no mistake of the family needs this one",
    ),
    "a placeholder that the family's words do not fit": (
        FAMILY + 'cut = "y + 1.0"',
        r"'nothing is cut off': `y \+ 1.0` occurs not at all .* the words that product.toml puts around them",
    ),
    "leaving out what does not apply": (
        FAMILY + 'without."nothing is cut off" = "why"',
        "does not apply here as it is",
    ),
    "leaving out without a reason": (FAMILY + 'without."x is not scaled" = ""', "give the reason why it is left out"),
    "a hint without a reason": (FAMILY + 'hints."x is not scaled" = ["Twice?"]', "why the family's does not fit"),
    "the family's own hint": (
        FAMILY + 'hints."the product is negative" = ["Look at the sign.", "why"]',
        "Remove the line",
    ),
    "a family's name again": (FAMILY + PRODUCT + '"x is not scaled" = ["x", "c"]', "'x is not scaled' is there twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_right_is_explained(folder: Path, family: Path, name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(RecordingError, match=message) as raised:
        read(folder, text)
    where = "product.toml" if name == "an unknown family" else "mistakes.toml"
    assert where in str(raised.value) or name == "an unknown family"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["a"]\nhint = "h"\nat = "x"', "'a' must be a table with hint, at and put"),
        ('["a"]\nhint = 1\nat = "x"\nput = "y"', "'a', `hint` must be a text"),
        ('["a"]\nhint = "h"\nat = ["x", "y"]\nput = "y"', "`at` and `put` must be as many"),
        ('["a"]\nhint = "h"\nat = "x"\nput = "y"\nshipped = ["x"]', "`shipped`: 'x' must be an issue"),
    ],
)
def test_a_family_that_is_not_right_is_explained(folder: Path, family: Path, text: str, message: str) -> None:
    (family / "wrong.toml").write_text(text)
    with pytest.raises(RecordingError, match=message) as raised:
        read(folder, '[[toy.double]]\nfamily = "wrong"')
    assert "wrong.toml" in str(raised.value)


def test_a_file_that_nobody_reads_is_found(folder: Path) -> None:
    lesson = lesson_with(folder, PRODUCT + '"it adds" = ["scale + x", "Plus?"]')
    text = lesson.exercises_file.read_text()
    lesson.exercises_file.write_text(text.replace("with_mistakes(__file__, ", "list("))
    with pytest.raises(RecordingError, match=r"does not read the mistakes\.toml beside it\. End it with: EXERCISES ="):
        record(lesson)


def test_a_missing_file_is_explained(folder: Path) -> None:
    with pytest.raises(RecordingError, match=r"mistakes\.toml is missing\. It says which mistakes"):
        with_mistakes(folder / "exercises.py", EXERCISES)


def lesson_with(folder: Path, text: str) -> Lesson:
    """The toy lesson with an exercises.py that reads its mistakes."""
    (folder / "mistakes.toml").write_text(text)
    (folder / "exercises.py").write_text(
        "from grader.authoring.mistakes import with_mistakes\n"
        "from grader.lessons.exercise import Case, Exercise\n"
        "EXERCISES = with_mistakes(__file__, [Exercise(name='toy.double', solution='double', function=True,\n"
        "    reference=lambda x: (2 * x).clamp(min=-1), cases=[Case('a vector', lambda draw: [draw.normal(9)])])])\n"
    )
    return Lesson(folder)


def test_where_a_mistake_shipped_is_in_the_recording_and_in_the_report(folder: Path, tmp_path: Path) -> None:
    lesson = lesson_with(folder, PRODUCT + '"it adds" = ["scale + x", "Plus?", { shipped = ["owner/repo#123"] }]')
    record(lesson).write(tmp_path / "reference.safetensors")
    recorded = Recording.read(tmp_path / "reference.safetensors")
    (answer,) = recorded.answer("toy.double").mistakes
    assert answer.shipped == ("owner/repo#123",)

    verdict = examine_here(recorded, "toy.double", lambda x: (2.0 + x).clamp(min=-1))
    lines = report(verdict)
    text = to_text(lines)
    assert "This is what comes out when it adds." in text
    address = "https://github.com/owner/repo/issues/123"
    assert f"This shipped in owner/repo#123: {address}" in [line.strip() for line in text.splitlines()]
    assert f'This shipped in owner/repo#123: <a href="{address}">{address}</a>' in to_html(lines)


def test_a_mistake_that_shipped_nowhere_adds_nothing_to_a_recording(folder: Path) -> None:
    recorded = record(lesson_with(folder, PRODUCT + '"it adds" = ["scale + x", "Plus?"]'))
    assert recorded.header["exercises"]["toy.double"]["mistakes"][0].keys() == {"name", "hint", "outputs"}
    assert recorded.answer("toy.double").mistakes[0].shipped == ()


def test_a_commit_has_an_address_too() -> None:
    assert (
        shipped_line("o/r.js@1a2b3c4", 1).text
        == "This shipped in o/r.js@1a2b3c4: https://github.com/o/r.js/commit/1a2b3c4"
    )


def test_no_other_line_of_a_report_becomes_a_link() -> None:
    assert "<a" not in to_html([Line("see https://example.org/x", "hint"), Line("https://example.org", "code")])


def test_two_mistakes_of_one_name_are_not_recorded(folder: Path) -> None:
    (folder / "exercises.py").write_text(
        "from grader.lessons.exercise import Case, Exercise, Mistake\n"
        "EXERCISES = [Exercise(name='toy.double', solution='double', function=True,\n"
        "    reference=lambda x: (2 * x).clamp(min=-1), cases=[Case('a vector', lambda draw: [draw.normal(9)])],\n"
        "    mistakes=[Mistake('a', 'h', '0.0', '1.0'), Mistake('a', 'h', 'min=-1', 'min=-2')])]\n"
    )
    with pytest.raises(RecordingError, match=r"toy\.double has more than one mistake named 'a'"):
        record(Lesson(folder))


def test_a_recording_is_made_from_the_mistakes_and_the_families_used(folder: Path, family: Path) -> None:
    lesson = lesson_with(folder, FAMILY)
    before = made_from(lesson)
    assert {"mistakes.toml", "product.toml"} < before.keys()
    (family / "product.toml").write_text((family / "product.toml").read_text().replace("Look at", "See"))
    after = made_from(lesson)
    assert {key for key in before if before[key] != after[key]} == {"product.toml"}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_names_are_unique_within_an_exercise_and_all_are_said_in_data(lesson: Lesson) -> None:
    assert "Mistake(" not in lesson.exercises_file.read_text()
    for exercise in lesson.exercises()[0]:
        names = [mistake.name for mistake in exercise.mistakes]
        assert len(set(names)) == len(names) > 0, exercise.name


def test_every_familys_mistake_applies_in_some_lesson() -> None:
    names = {mistake.name for lesson in LESSONS for e in lesson.exercises()[0] for mistake in e.mistakes}
    files = {file for lesson in LESSONS for file in files_read(lesson.folder)}
    for path in FAMILIES.glob("*.toml"):
        assert path in files, path.name
        assert not [name for name in reader._read_family(path) if name not in names], path.name


def test_no_mistake_belongs_to_two_families() -> None:
    names = [name for path in FAMILIES.glob("*.toml") for name in reader._read_family(path)]
    assert len(set(names)) == len(names)


def test_mistakes_of_public_projects_say_where_they_shipped() -> None:
    shipped = {r for lesson in LESSONS for e in lesson.exercises()[0] for m in e.mistakes for r in m.shipped}
    assert shipped >= {
        "rasbt/LLMs-from-scratch#925",
        "rasbt/LLMs-from-scratch#1013",
        "karpathy/nanochat#452",
    }
