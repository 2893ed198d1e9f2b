"""Every attack known on notebook graders, one file each in attacks/, graded among honest students in one run."""

import csv
import dataclasses
import io
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from attack_course import (
    ALL_ATTACKS,
    ATTACKS,
    HONEST,
    LESSON,
    RIGHT,
    Attack,
    attack_with,
    autograded_text,
    called,
    canary,
    files_outside,
    listening,
    make_course,
    submit,
)
from nbconvert import HTMLExporter
from nbgrader.server_extensions.formgrader import handlers
from people import person
from real_nbgrader import nbgrader
from rich.console import Console
from traitlets.config import Config

from grader.grading.classroom.command import summary
from grader.grading.classroom.engine import Graded, Settings, grade_class
from grader.grading.feedback.content import Content, Section
from grader.grading.feedback.render import render
from grader.grading.nbgrader.autograded import autograded_notebook
from grader.grading.nbgrader.marks import Mark
from grader.grading.running.bundle import Bundle, pack_bundle
from grader.grading.running.children import Children
from grader.grading.running.plan import plan_of
from grader.grading.running.prober import NO_ANSWER
from grader.grading.running.results import ExerciseResult, SubmissionResult
from grader.grading.running.submission import MAX_NOTES, parse
from grader.grading.running.worker import close_jails, grade_one
from grader.grading.sandbox.limits import Limits
from grader.recordings.recording import Recording

PROJECT = Path(__file__).resolve().parents[2]
LIMITS = Limits(exercise_seconds=4, submission_seconds=16, cpu_seconds=8, memory_mb=1024)
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@dataclass(frozen=True)
class Run:
    root: Path
    graded: dict[str, Graded]
    exported: dict[str, float]
    changed: list[str]
    called: bool


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run over all of them; those who want to keep an earlier score have one first."""
    root = tmp_path_factory.mktemp("attacked")
    make_course(root)
    (root / "canaries").mkdir()
    (root / "canaries").chmod(0o777)
    earlier = [attack.name for attack in ATTACKS if attack.earlier]
    for student in earlier:
        submit(root, student, RIGHT)
    settings = Settings(limits=LIMITS)
    assert [g.result.points for g in grade_class(root, LESSON, settings) if g.result] == [5.0] * len(earlier)
    with listening() as server:
        for student, (answers, _) in HONEST.items():
            submit(root, student, answers)
        for attack in ATTACKS:
            attack_with(root, attack, server.getsockname()[1])
        before = files_outside(root)
        graded = {g.student: g for g in grade_class(root, LESSON, settings)}
        after = files_outside(root)
        was_called = called(server)
    nbgrader("export", "--to", "grades.csv", cwd=root)
    with (root / "grades.csv").open() as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    changed = [path for path in before | after if before.get(path) != after.get(path)]
    yield Run(root, graded, exported, changed, was_called)


def test_there_is_an_attack_for_everything_known_and_the_docs_list_what_each_gets() -> None:
    assert len(ATTACKS) >= 160
    listed = (PROJECT / "docs" / "attacks.md").read_text()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in listed.splitlines() if line.startswith("| ")]
    assert [(row[0].removeprefix("| "), row[2]) for row in rows[1:]] == [(a.name, f"{a.earns:g}") for a in ALL_ATTACKS]
    assert f"grades all {len(ATTACKS)} with this engine" in listed and all(attack.tries for attack in ALL_ATTACKS)


@every_attack
def test_an_attack_earns_what_its_honest_part_earns(run: Run, attack: Attack) -> None:
    graded = run.graded[attack.name]
    assert graded.result is not None, graded.problem
    assert graded.result.points == attack.earns
    assert run.exported[attack.name] == attack.earns


@every_attack
def test_an_attack_writes_nothing_outside(run: Run, attack: Attack) -> None:
    assert not canary(run.root, attack.name).exists()


@pytest.mark.parametrize("student", HONEST)
def test_an_honest_neighbour_keeps_their_score(run: Run, student: str) -> None:
    assert run.exported[student] == HONEST[student][1]


def test_no_file_of_the_course_or_of_a_submission_changed(run: Run) -> None:
    assert run.changed == []


def test_nobody_reached_the_network(run: Run) -> None:
    assert not run.called


def test_no_secret_is_in_what_is_returned(run: Run) -> None:
    secrets = {"a secret of the instructor's", "root:x:0:0"}
    for name in ("toy.linear", "toy.relu"):
        hidden = Recording.read(run.root / "hidden" / f"{LESSON}.safetensors")
        tensors = [*hidden.answer(name).outputs, *(case.args[0] for case in hidden.task(name).cases)]
        tensors += [weight for case in hidden.task(name).cases for weight in case.weights.values()]
        values = {repr(value) for tensor in tensors for value in tensor.flatten().tolist()}
        secrets |= {value[:8] for value in values if len(value) >= 8}
    for attack in ATTACKS:
        text = autograded_text(run.root, attack.name)
        assert [secret for secret in secrets if secret in text] == [], attack.name


ENDINGS = ("leak_by_refusal", "leak_by_ending", "leak_by_memory", "leak_by_time")


def test_how_an_answer_to_hidden_cases_is_missing_is_not_told(run: Run) -> None:
    """Whatever a child does there that is no answer: its report is the same."""
    reports = set()
    for name in ENDINGS:
        result = run.graded[name].result
        assert result is not None
        linear = next(exercise for exercise in result.exercises if exercise.exercise == "toy.linear")
        reports.add((linear.summary, linear.lines))
    ((summary, lines),) = reports
    assert summary == "0 of 2 hidden cases right" and lines[-1].text == f"{NO_ANSWER}."


def test_nothing_that_an_attack_carries_comes_back(run: Run) -> None:
    for attack in ATTACKS:
        assert not attack.carries or attack.carries not in autograded_text(run.root, attack.name), attack.name


def test_a_table_of_all_of_them_can_be_shown_and_sends_nothing_to_the_terminal(run: Run) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(summary(list(run.graded.values())))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in shown for name in run.graded)
    assert "[/red]" in shown and not {"\x1b", "\u202e"} & set(shown)


def test_feedback_has_room_for_some_notes_only(run: Run) -> None:
    result = run.graded["break_many_notes"].result
    assert result is not None and len(result.notes) == MAX_NOTES and "more notes" in result.notes[-1]


def test_every_result_says_why_it_is_not_full(run: Run) -> None:
    for attack in ATTACKS:
        result = run.graded[attack.name].result
        assert result is not None
        for exercise in result.exercises:
            assert exercise.right or exercise.summary, attack.name


def test_the_journal_holds_every_verdict_once(run: Run) -> None:
    lines = [json.loads(line) for line in (run.root / "journal" / f"{LESSON}.jsonl").read_text().splitlines()]
    graded = [(line["student"], line["key"]) for line in lines if line["entry"] == "graded"]
    assert len(graded) == len(set(graded))
    assert {student for student, _ in graded} == set(run.graded)


POLICY = "Content-Security-Policy"


class Obeyed(HTMLParser):
    """What a page has that a browser obeys: scripts, frames, refreshes, links that run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        if tag in ("script", "svg", "iframe", "object", "embed", "form", "base", "img", "link", "video", "audio"):
            self.found.append(tag)
        self.found += [name for name in of if name.startswith("on") or name in ("srcdoc", "src", "xlink:href")]
        self.found += [of["content"] for _ in ["http-equiv"] if of.get("http-equiv", POLICY) != POLICY]
        self.found += [
            of["href"] for _ in ["href"] if "href" in of and not of["href"].startswith("https://github.com/")
        ]


FORMULAS = [
    r"\text{<script>alert(1)</script>}",
    r"\tag{<img src=x onerror=alert(1)>}",
    r"\unicode{<iframe srcdoc=x>}",
    r"\unicode{x3csvg onload=alert(1)>}",
    r"\href{javascript:alert(1)}{x}",
    r"\href{https://example.org}{x}",
    r"\mbox{</mtext></math><form action=x><meta http-equiv=refresh content=0>}",
    r"\text{<annotation-xml encoding='text/html'><style><img src onerror=alert(1)></style>}",
    r"\style{position:fixed;width:100%}{x}",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("form", ["${}$", "$${}$$"])
def test_a_formula_of_anybodys_is_a_formula_and_no_more(formula: str, form: str) -> None:
    """In an answer in words, and in a comment."""
    answer = Section("a", "A question", code=form.format(formula), comment=form.format(formula), answer=True)
    page = render(Content(LESSON, "eve", Mark(0.0, 1.0), parts=(answer,)), "digest")
    assert Obeyed(page).found == []
    assert not [word for word in (" style=", "<style") if word in page.partition("<body>")[2]]


OBEYED = [
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1)) ![x](https://example.org/x.png)",
    "[x][y]\n\n[y]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "```\n</code></pre><svg onload=alert(1)>\n```",
    "~~~\n~~~\n``````\n<script>alert(1)</script>\n`````",
    "$$\n<img src=x onerror=alert(1)>\n$$ \\begin{a}<iframe srcdoc=x>\\end{a}",
    *FORMULAS,
]


@pytest.mark.parametrize("answer", OBEYED)
def test_the_formgrader_shows_an_answer_in_words_and_obeys_none_of_it(gpt2: Bundle, answer: str) -> None:
    """Its page is of the lecturer's own server: a script in it could do whatever they can."""
    released = json.loads(gpt2.plan.notebook)
    marked = {"grade_id": "why", "grade": True, "solution": True, "locked": False, "points": 1, "schema_version": 3}
    question = {"cell_type": "markdown", "id": "why", "metadata": {"nbgrader": marked}, "source": "Why?"}
    plan = plan_of({**released, "cells": [*released["cells"], question]}, gpt2.plan.lesson, gpt2.plan.name)

    def obeyed(text: str) -> list[str]:
        handed_in = {"nbformat": 4, "cells": [{**question, "source": text}]}
        results = tuple(ExerciseResult(c.exercise, 0.0, c.points, False, "", ()) for c in plan.checks)
        graded = SubmissionResult(results, (), "", 0.0, 0)
        notebook = autograded_notebook(plan, parse(json.dumps(handed_in).encode(), plan), graded)
        page, _ = formgraders_pages().from_notebook_node(notebook, resources={"index": 0, "total": 1})
        assert (text if text != answer else "<pre><code>") in page
        return Obeyed(page).found

    assert obeyed(answer) == obeyed("In plain words.")


@cache
def formgraders_pages() -> HTMLExporter:
    """What makes the formgrader's page of a submission."""
    config = Config()
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [handlers.template_path]
    return HTMLExporter(config=config)


def test_a_page_lets_a_browser_load_and_run_nothing() -> None:
    page = render(Content(LESSON, "eve", Mark(0.0, 1.0)), "digest")
    assert "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'" in page


def test_an_ordinary_formula_is_shown() -> None:
    written = r"$\sqrt{\frac{a}{b}} < \sum_{i=1}^n x_i \in \mathbb{R}^{B \times T}$ and $\text{softmax if } a<b$"
    page = render(Content(LESSON, "eve", Mark(0.0, 1.0), parts=(Section("a", "b", code=written, answer=True),)), "d")
    assert page.count("<math") == 2 and "<msqrt><mrow><mfrac>" in page and "<mi>a</mi><mo>&#x0003C;</mo>" in page


def test_feedback_is_made_for_everyone_and_obeys_nobody(run: Run, tmp_path: Path) -> None:
    """And it is released for everyone, whatever time and secret their submissions have."""
    release = ["release_feedback", LESSON, "--course=attacked", f"--Exchange.root={run.root / 'exchange'}"]
    (run.root / "exchange").mkdir()
    (run.root / "exchange").chmod(0o777)
    person("lecturer", tmp_path, None).runs(["generate_feedback", LESSON], release, cwd=run.root)
    pages = {p.parent.parent.name: p.read_text() for p in run.root.glob(f"feedback/*/{LESSON}/*.html")}
    assert set(pages) == set(run.graded)
    assert {name: obeyed for name, page in pages.items() if (obeyed := Obeyed(page).found)} == {}
    assert "1337" not in pages["break_page"]  # what a template would make of 7 * 191
    made = len(list(run.root.glob(f"feedback/*/{LESSON}/*.html")))  # more than one where several notebooks came
    assert len(list((run.root / "exchange").rglob("*.html"))) == made


# --- on the course's own lessons: composites, and cells of the lesson's between exercises ---


def a_right_one(bundle: Bundle) -> dict[str, Any]:
    """The lesson's own solution, as a submission: nbgrader's JSON."""
    path = PROJECT / "solutions" / bundle.plan.lesson / f"{bundle.plan.name}.ipynb"
    notebook: dict[str, Any] = json.loads(path.read_text())
    return notebook


def solution_cell(notebook: dict[str, Any], exercise: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["metadata"].get("exercise") == exercise)


def graded_alone(bundle: Bundle, notebook: dict[str, Any]) -> dict[str, ExerciseResult]:
    result = grade_one(bundle, parse(json.dumps(notebook).encode(), bundle.plan))
    return {exercise.exercise: exercise for exercise in result.exercises}


@pytest.fixture(scope="module")
def gpt2() -> Iterator[Bundle]:
    yield pack_bundle(PROJECT / "course" / "01-gpt2", None)
    close_jails()


TAKEN_FROM_ITS_PART = """
    def forward(self, x):
        part = self.c_proj
        if not hasattr(part, "outputs"):
            raise ValueError("not yet")
        self.c_attn(x)
        part.given["c_proj", 0] = {given}
        return part.outputs["c_proj", 0].output.clone()
"""


@pytest.mark.parametrize("given", ["None", "x"])
def test_a_composite_earns_nothing_with_its_last_parts_output(gpt2: Bundle, given: str) -> None:
    """Whoever fails the part is given its right output, and has to show the right input for it."""
    notebook = a_right_one(gpt2)
    conv1d, attention = (solution_cell(notebook, f"gpt2.{name}") for name in ("conv1d", "attention"))
    conv1d["source"] = "".join(conv1d["source"]).replace("self.weight.T, self.bias", "self.weight.T, 2 * self.bias")
    honest = graded_alone(gpt2, notebook)["gpt2.attention"]
    assert honest.points == honest.max_points and not honest.right
    head = "".join(attention["source"]).partition("    def forward")[0]
    attention["source"] = head + TAKEN_FROM_ITS_PART.format(given=given)
    forged = graded_alone(gpt2, notebook)
    assert forged["gpt2.attention"].points == 0
    assert forged["gpt2.gelu"].right


@pytest.mark.parametrize("entry", ['[["a"], 0, None]', "[{}, {}, None]", '["c_proj", 0.0, None]', '["c_proj", 0]', "7"])
def test_a_composites_answer_of_any_form_costs_that_exercise_alone(gpt2: Bundle, entry: str) -> None:
    notebook = a_right_one(gpt2)
    attention = solution_cell(notebook, "gpt2.attention")
    attention["source"] = "".join(attention["source"]) + textwrap.dedent(
        f"""
        import json, os
        def forward(self, x):
            if hasattr(self.c_proj, "outputs"):
                header = json.dumps({{"body": [[None, [{entry}]]] * 4, "tensors": {{}}}}).encode()
                body = len(header).to_bytes(4, "big") + header
                os.write(3, len(body).to_bytes(8, "big") + body)
            return x
        Attention.forward = forward
        """
    )
    results = graded_alone(gpt2, notebook)
    assert results["gpt2.attention"].points == 0
    assert results["gpt2.mlp"].right


def test_a_lesson_is_not_blamed_for_the_time_that_a_submission_used_up(
    gpt2: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that starts just before the submission's time is up has time of its own for the lesson's first cells."""
    in_time, used_up = iter([""]), Children.used_up
    monkeypatch.setattr(Children, "used_up", lambda own: used_up(own) if next(in_time, None) is None else "")
    late = dataclasses.replace(gpt2, limits=Limits(submission_seconds=0.001))
    results = graded_alone(late, a_right_one(late))
    assert {result.points for result in results.values()} == {0.0}
    assert all("used up the time" in result.summary or "stopped after" in result.summary for result in results.values())
    close_jails()


def test_a_lessons_cell_that_is_lost_to_an_exercise_before_it_costs_that_exercise_alone() -> None:
    bundle = pack_bundle(PROJECT / "course" / "02-kv-cache", None)
    notebook = a_right_one(bundle)
    cell = solution_cell(notebook, "kv_cache.attention")
    ends = "\nimport os\nBlock.__init_subclass__ = classmethod(lambda cls: os._exit(3))\n"
    cell["source"] = "".join(cell["source"]) + ends
    results = graded_alone(bundle, notebook)
    wrong = {name for name, result in results.items() if not result.right}
    assert "kv_cache.bytes" not in wrong and "kv_cache.work" not in wrong and "kv_cache.cache" not in wrong
    close_jails()
