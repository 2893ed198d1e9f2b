"""A class as two people see it: the Assignment List in a student's JupyterLab, the formgrader in the lecturer's.

Each has a JupyterLab, and an account where the tests may make use of such. Screenshots are left in test-output/.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attack_course import LESSON, RIGHT
from built_course import copy_built_course
from people import Class, Person, a_class
from real_nbgrader import LINEAR, RELU

from conftest import PROJECT, chromium, why_no_browser

if TYPE_CHECKING or not why_no_browser():
    from jupyterlab_driver import Lab, OpenNotebook, running_browser, running_server
    from playwright.sync_api import FrameLocator, Locator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = PROJECT / "docs" / "class.md"
STUDENT = "games"
NOTEBOOK = f"{LESSON}/toy.ipynb"


@dataclass(frozen=True)
class Desk:
    """Somebody at their JupyterLab. pictures: where screenshots go."""

    person: Person
    lab: "Lab"
    pictures: Path

    def picture(self, name: str) -> None:
        self.lab.page.screenshot(path=self.pictures / f"class-{name}.png", animations="disabled")

    def chooses(self, command: str) -> None:
        """Open something from the menu Nbgrader."""
        self.lab.page.locator(".lm-MenuBar-item", has_text="Nbgrader").click()
        self.lab.page.locator(f".lm-Menu li[data-command='{command}']").click()

    def goes_to(self, tab: str) -> None:
        self.lab.page.get_by_role("tab", name=tab).click()

    def listed(self, kind: str) -> "Locator":
        """The lesson's row in the Assignment List, among those that are "released", "fetched" or "submitted"."""
        return self.lab.page.locator(f"#{kind}_assignments_list > .list_item", has_text=LESSON)

    @property
    def formgrader(self) -> "FrameLocator":
        return self.lab.page.frame_locator("iframe")

    def presses(self, action: str, *, then: str) -> None:
        """Press a lesson's button in the formgrader's table of assignments, and close the message."""
        self.formgrader.locator("tr", has_text=LESSON).locator(f".{action} a").click()
        message = self.formgrader.locator(".modal.in")
        message.get_by_text(then).wait_for()
        self.picture(f"formgrader-{action}")
        message.get_by_role("button", name="OK").click()
        message.wait_for(state="detached")


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    """A class to which the lesson is released."""
    course = tmp_path_factory.mktemp("course")
    copy_built_course(course)
    with a_class(course, LESSON, [STUDENT], to_start=True) as made:
        made.lecturer.runs(["release_assignment", LESSON], cwd=made.root)
        yield made


@pytest.fixture(scope="module")
def desks(classroom: Class, test_output: Path) -> Iterator[tuple[Desk, Desk]]:
    """A student's desk, with stock JupyterLab but for the two settings of docs/class.md, and the lecturer's."""
    student, lecturer = classroom.students[STUDENT], classroom.lecturer
    settings = student.home / ".jupyter" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir()
    settings.write_text(PAGE.read_text().partition("```json\n")[2].partition("```")[0])
    with ExitStack() as stack:
        stock = running_server(["jupyterlab", "--allow-root"], student.home, student.environment, student.user)
        ours = running_server(["grader.cli", "lab", "--instructor"], classroom.root, lecturer.environment)
        addresses = [stack.enter_context(server) for server in (stock, ours)]
        browser = stack.enter_context(running_browser(chromium() or ""))
        labs = [Lab.shown_in(browser, address) for address in addresses]
        for lab in labs:
            lab.open()
        yield Desk(student, labs[0], test_output), Desk(lecturer, labs[1], test_output)


def test_a_lesson_goes_from_the_assignment_list_to_the_formgrader_and_back(
    classroom: Class, desks: tuple[Desk, Desk]
) -> None:
    student, lecturer = desks
    fetch(student)
    solve(student)
    submit(student)
    table = collect_and_grade(lecturer, classroom.root)
    assert table.partition(account(student.person))[2].split()[:2] == ["3", "5"], table
    mark_by_hand(lecturer)
    give_back(lecturer)
    read_feedback(student)


# --- the student ---


def account(person: Person) -> str:
    """What nbgrader calls them: the account that they have, or this process's."""
    return (person.user or pwd.getpwuid(os.getuid())).pw_name


def fetch(student: Desk) -> None:
    student.chooses("nbgrader:open-assignment-list")
    released = student.listed("released")
    released.wait_for()
    student.picture("released")
    released.get_by_role("button", name="Fetch").click()
    fetched = student.listed("fetched")
    fetched.get_by_role("button", name=LESSON).click()
    student.picture("fetched")
    fetched.get_by_text("toy", exact=True).click()


def solve(student: Desk) -> None:
    """One exercise wrong and then right, the other wrong for good."""
    notebook = student.lab.notebook_at(NOTEBOOK)
    notebook.run_from_the_top(notebook.cell("exercise", "toy.linear"))
    assert "This is what comes out when the bias is left out" in answer(
        student, notebook, "toy.linear", LINEAR.format(bias=""), "wrong"
    )
    assert "2 of 2 cases right" in answer(student, notebook, "toy.linear", RIGHT["toy.linear"], "right")
    assert "1 of 2 cases right" in answer(student, notebook, "toy.relu", RELU.format("x"), "half")
    student.lab.run_command("docmanager:save")


def answer(student: Desk, notebook: "OpenNotebook", exercise: str, source: str, picture: str) -> str:
    """Write a solution, run it and its check; what the check shows."""
    solution, check = notebook.cell("exercise", exercise), notebook.cell("check", exercise)
    notebook.write(solution, source)
    notebook.run(solution)
    notebook.run(check)
    shown = notebook.shown(check)
    student.picture(picture)
    return shown


def submit(student: Desk) -> None:
    student.goes_to("Assignments")
    student.listed("fetched").get_by_role("button", name="Submit").click()
    student.listed("submitted").get_by_text("UTC").wait_for()
    student.picture("submitted")


def read_feedback(student: Desk) -> None:
    student.lab.page.locator("#refresh_assignments_list").click()
    submitted = student.listed("submitted")
    submitted.get_by_text("(feedback available to fetch)").wait_for()
    student.picture("feedback-there")
    submitted.get_by_role("button", name="Fetch Feedback").click()
    submitted.get_by_text("(view feedback)").click()
    student.lab.page.locator(".jp-DirListing-item", has_text="toy.html").dblclick()
    page = student.lab.page.frame_locator(".jp-HTMLViewer iframe")
    page.get_by_text("4.5 of 5 points").first.wait_for()
    student.picture("feedback")
    student.lab.page.set_viewport_size({"width": 1400, "height": 500})  # the comment is further down
    assert page.locator("tbody tr").first.inner_text().split("\t")[1:] == ["3 of 3", "right"]
    comment = page.locator("section .comment", has_text="Nearly there")
    seen = "comment => comment.getBoundingClientRect().bottom <= innerHeight"
    assert not comment.evaluate(seen)
    page.locator("tbody label", has_text="Comment").click()
    student.picture("feedback-comment")
    assert comment.evaluate(seen), "the jump leads elsewhere"


# --- the lecturer ---


def collect_and_grade(lecturer: Desk, root: Path) -> str:
    """Collect by the formgrader's button and grade in a terminal; what that shows."""
    lecturer.chooses("nbgrader:open-formgrader")
    lecturer.formgrader.locator("tr", has_text=LESSON).wait_for()
    lecturer.picture("formgrader")
    lecturer.presses("collect", then="Successfully collected")
    command = [sys.executable, "-m", "grader.cli", "autograde", LESSON]
    environment = os.environ | lecturer.person.environment | {"COLUMNS": "120"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mark_by_hand(lecturer: Desk) -> None:
    """A score and a comment for the exercise that is half right."""
    shown = lecturer.formgrader
    for link in ("Manual Grading", LESSON, "toy", "Submission #1"):
        shown.get_by_role("link", name=link, exact=True).click()
    score, comment = shown.locator("#check-toy-relu"), shown.locator("#toy-relu-comment")
    shown.locator("#check-toy-relu[placeholder='0']").wait_for()  # the page has asked for the scores
    shown.locator("#toy-relu-comment[placeholder^='Type']").wait_for()
    lecturer.picture("formgrader-submission")
    for field, text in ((score, "1.5"), (comment, "Nearly there: what of *negative* inputs?")):
        field.fill(text)
        with lecturer.lab.page.expect_response(lambda reply: reply.request.method == "PUT") as saved:
            field.press("Tab")
        assert saved.value.ok
    lecturer.picture("formgrader-marked")
    shown.get_by_role("link", name="Manual Grading", exact=True).click()


def give_back(lecturer: Desk) -> None:
    lecturer.formgrader.get_by_role("link", name="Manage Assignments", exact=True).click()
    lecturer.presses("generate-feedback", then="Successfully generated feedback")
    lecturer.presses("release-feedback", then="Successfully released feedback")
