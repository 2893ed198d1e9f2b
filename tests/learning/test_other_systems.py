"""Learning needs no Linux: what a learner runs, in processes that lack what only a Unix has.

`plain_windows/sitecustomize.py` takes it away; files are read as ASCII where nobody says how, and the terminal has the
letters of Windows' code page 1252. What this can't show is in docs/not-tried.md.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_course import write_course

from grader.errors import GraderError
from grader.grading.classroom.only_linux import refuse_elsewhere

PROJECT = Path(__file__).resolve().parents[2]
PLAIN_WINDOWS = PROJECT / "tests" / "support" / "plain_windows"
TIMEOUT = 600  # for what would never end

CHECKS = """
import sys
from pathlib import Path

import torch
from grader import CheckFailed, check, check_generation, compare_layers, load_checkpoint, trace_of
from grader.lessons.lesson import Lesson

solutions = Path(sys.argv[1]) / "solutions"
first, second = Lesson(solutions / "00-orientation"), Lesson(solutions / "01-gpt2")
linear = first.namespace()
check("orientation.linear", linear["Linear"], recording=first.recording)
check("orientation.parameter_count", linear["parameter_count"], recording=first.recording)
gpt2 = second.namespace()


class Misled(gpt2["LayerNorm"]):
    def forward(self, x):
        return super().forward(x) + undefined


try:
    check("gpt2.layer_norm", Misled, recording=second.recording)
except CheckFailed as failed:
    print("it failed:", failed)
trace = trace_of(torch.nn.Sequential(torch.nn.Linear(3, 3)), torch.ones(2, 3), build={})
compare_layers(torch.nn.Sequential(torch.nn.Linear(3, 3)), trace)
model = gpt2["GPT2"](load_checkpoint("austen-gpt2").config)
load_checkpoint("austen-gpt2").load_into(model)
check_generation(model, "austen-gpt2", generate=gpt2["generate"])
"""


def on_plain_windows(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with those arguments, without what only a Unix has."""
    lacking = {
        "PYTHONPATH": os.pathsep.join(map(str, (PLAIN_WINDOWS, PROJECT))),
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "cp1252",
        "NO_COLOR": "1",
        "COLUMNS": "150",
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **lacking},
        capture_output=True,
        encoding="cp1252",
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize(
    "asked",
    ["import fcntl", "import os; os.fork()", "import signal; signal.SIGALRM", "import ctypes; ctypes.CDLL(None)"]
    + [f"import {name}" for name in ("grader.grading.classroom.journal", "grader.grading.sandbox.zygote")],
)
def test_what_only_a_unix_has_is_missing(tmp_path: Path, asked: str) -> None:
    done = on_plain_windows("-c", asked, cwd=tmp_path)
    assert done.returncode == 1
    assert "this is no Unix" in done.stderr


def test_checks_comparisons_and_generations_run(project: Path, tmp_path: Path) -> None:
    script = tmp_path / "checks.py"
    script.write_text(CHECKS, encoding="utf-8")
    done = on_plain_windows(script, project, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in ("orientation.linear", "orientation.parameter_count", "austen-gpt2   "):
        assert said in done.stdout
    assert "it failed: gpt2.layer_norm is not right yet" in done.stdout
    assert "name 'undefined' is not defined" in done.stdout


def test_a_solved_notebook_is_checked_in_a_kernel_that_lacks_it_too(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "a course"
    root.mkdir()
    first, _ = write_course(root)
    built = on_plain_windows("-m", "grader.cli", "build", "00-toy", cwd=root)
    assert built.returncode == 0, built.stderr
    done = on_plain_windows("-m", "grader.cli", "check", first.notebook, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 exercises pass, 5 of 5 points" in done.stdout
    orientation = project / "solutions" / "00-orientation" / "orientation.ipynb"
    done = on_plain_windows("-m", "grader.cli", "check", orientation, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 exercises pass, 13 of 13 points" in done.stdout


@pytest.mark.parametrize("words", [["weights", "list"], ["kv", "Qwen3 8B"], ["build", "--help"]])
def test_commands_that_need_no_kernel_run(tmp_path: Path, words: list[str]) -> None:
    done = on_plain_windows("-m", "grader.cli", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_a_terminal_has_no_letters_for_is_replaced(tmp_path: Path) -> None:
    shows = "import grader.cli; grader.cli.app = lambda **_: print('\\u25cf \\u2192 right'); grader.cli.main()"
    done = on_plain_windows("-c", shows, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "? ? right\n"), done.stderr


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_grading_says_in_a_sentence_that_it_needs_linux(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(GraderError, match="needs Linux") as refused:
        refuse_elsewhere()
    assert len(str(refused.value).splitlines()) == 1


def test_the_commands_that_grade_refuse_without_a_traceback(tmp_path: Path) -> None:
    write_course(tmp_path)
    # Python 3.12's shutil asks Windows, where sys.platform says so, whether the current folder is looked in.
    asked = "shutil._winapi = types.SimpleNamespace(NeedCurrentDirectoryForExePath=lambda name: False)"
    as_windows = f"import shutil, sys, types; import grader.cli, nbgrader.apps; {asked}; sys.platform = 'win32'; "
    ours = as_windows + "sys.argv = ['grader', 'autograde', '00-toy']; grader.cli.main()"
    done = on_plain_windows("-c", ours, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs Linux" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "submitted" / "ada" / "00-toy").mkdir(parents=True)
    nbgraders = as_windows + "nbgrader.apps.NbGraderApp.launch_instance(['autograde', '00-toy'])"
    done = on_plain_windows("-c", nbgraders, cwd=tmp_path)
    assert done.returncode == 1
    assert "needs Linux" in done.stderr
    assert "Traceback" not in done.stderr
