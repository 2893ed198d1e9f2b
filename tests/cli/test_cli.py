"""The `grader` command as a shell sees it: what it prints, where, and what it exits with."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from toy_course import FIRST, write_course

from grader.cli import PANELS
from grader.cli.options import tokens
from grader.errors import GraderError
from grader.lessons.cells import without_markers
from grader.lessons.junit import write_junit
from grader.lessons.results import CheckResult

Done = subprocess.CompletedProcess
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1"}
TIMEOUT = 900  # for what would never end; on a busy machine a command may take a minute
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(
    ["torch", "transformers", "grader.cli", "grader.lessons.execution", "grader.authoring.build"]
)


def shell(*arguments: str | Path, cwd: Path, **environment: str) -> Done:
    """Run the command in `cwd` as a shell does, with what it says in a form that is easy to compare."""
    return subprocess.run(
        [sys.executable, "-m", "grader.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **PLAIN, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def grader(*arguments: str | Path, cwd: Path, **environment: str) -> Done:
    """As `shell`, in a process forked from one that has imported the command already, which takes seconds."""
    words, said = ["grader", *map(str, arguments)], tempfile.TemporaryDirectory()
    with said as folder:
        ends = [Path(folder, name) for name in ("out", "err")]
        process = WARM.Process(target=_command, args=(words, cwd, {**os.environ, **PLAIN, **environment}, ends))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, TIMEOUT)
        return Done(words, process.exitcode, *(end.read_text() for end in ends))


def _command(words: list[str], cwd: Path, environment: dict[str, str], ends: list[Path]) -> None:
    """Be the command: what `python -m grader.cli` does after its imports."""
    for number, end in enumerate(ends, start=1):
        os.dup2(os.open(end, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = words
    import grader.cli

    grader.cli.main()


def complaint(done: Done) -> str:
    """What a command said that could not use its input: a line or two, and nothing else."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small course, built by the command itself."""
    root = tmp_path_factory.mktemp("cli")
    write_course(root)
    done = shell("build", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def course(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "course-copy"))


def solve(released: Path, exercise: str, source: str) -> None:
    """Write a solution into a learner's notebook."""
    notebook = nbformat.read(released, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("exercise") == exercise:
            cell.source = source
    nbformat.write(notebook, released)


def notebook_source(exercise: str) -> str:
    """The solution of an exercise of the small course, as its author wrote it."""
    cells = FIRST.split("# %%")
    return without_markers(next(c for c in cells if f'exercise="{exercise}"' in c).partition("\n")[2])


def notebook_of(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    """A notebook of these code cells; `tags` are the last one's."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-1].metadata["tags"] = list(tags)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_help_names_every_command_in_a_panel_by_what_people_come_for(tmp_path: Path) -> None:
    done = shell("--help", cwd=tmp_path, COLUMNS="80")
    assert done.returncode == 0
    panels = [line.split("─ ")[1].strip("─╮ ") for line in done.stdout.splitlines() if line.startswith("╭")]
    assert panels == ["Options", "Learn", "Models", "Port a model", "Teach", "Write lessons"]
    for command in (name for commands in PANELS.values() for name in (*commands, "weights")):
        assert f"│ {command} " in done.stdout
    assert "│ record " not in done.stdout and "For instructors" not in done.stdout


@pytest.mark.parametrize(("old", "instead"), [("--config", "grader card FILE"), ("--svg", "--to FILE.svg")])
def test_an_option_of_before_works_and_says_what_to_write_instead(tmp_path: Path, old: str, instead: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    words = {"--config": ["--config", "config.json"], "--svg": ["config.json", "--svg", "card.svg"]}[old]
    done = grader("card", *words, cwd=tmp_path)
    assert done.returncode == 0 and "GPT2" in done.stdout
    assert done.stderr == f"grader: `{old}` still works; write `{instead}`.\n"
    assert old not in grader("card", "--help", cwd=tmp_path).stdout


def test_a_command_under_its_old_name_says_the_new_one(tmp_path: Path) -> None:
    done = grader("weights", "record", "austen-gpt", cwd=tmp_path)
    first, second = done.stderr.splitlines()
    assert first == "grader: `grader weights record` still works; write `grader weights generate`."
    assert done.returncode == 2 and "austen-gpt2" in second


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["diff", "gpt2-xl"], ["grader diff: OTHER is missing", "For example: grader diff gpt2-xl qwen3-4b"]),
        (["card"], ["grader card: MODEL is missing.", "For example: grader card qwen3-8b"]),
        (["card", "--sgv", "a"], ["grader card: no such option: --sgv", "For example: grader card qwen3-8b"]),
        (["chek"], ["grader: no such command 'chek'", "`grader --help` lists what there is."]),
        (["kv", "qwen3-8b", "--context", "12x"], ["12x is no number of tokens", "For example: grader kv qwen3-8b"]),
    ],
)
def test_words_that_a_command_cant_read_are_answered_with_an_example(
    words: list[str], says: list[str], tmp_path: Path
) -> None:
    lines = complaint(grader(*words, cwd=tmp_path)).splitlines()
    assert len(lines) == 2
    for line, part in zip(lines, says, strict=True):
        assert part in line


def test_every_command_has_an_example_that_it_can_read() -> None:
    for name, (_, example) in {n: c for commands in PANELS.values() for n, c in commands.items()}.items():
        assert example.startswith(f"grader {name}")


@pytest.mark.parametrize(("text", "number"), [("8192", 8192), ("131,072", 131072), ("128k", 131072), ("1M", 1048576)])
def test_a_number_of_tokens_is_read_as_people_write_it(text: str, number: int) -> None:
    assert tokens(text) == number


def test_help_imports_neither_torch_nor_jupyter(tmp_path: Path) -> None:
    heavy = ("torch", "nbformat", "nbclient", "rich")
    program = f"import sys, grader.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["diff", "gpt2-xl", "qwen3-4b"], ["card", "qwen3-8b"], ["kv", "qwen3-8b"]])
def test_what_reads_configs_waits_for_neither_torch_nor_jupyter(words: list[str], tmp_path: Path) -> None:
    program = f"import sys, grader.cli\ngrader.cli.app({words}, standalone_mode=False)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "nbformat", "jupytext", "transformers"} & set(done.stdout.splitlines()[-1].split())


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    from grader.package import distribution

    assert shell("--version", cwd=tmp_path).stdout.strip() == distribution().version


def test_an_unknown_command_is_bad_input(tmp_path: Path) -> None:
    assert shell("chek", cwd=tmp_path).returncode == 2


# --- check ---


def test_a_solved_notebook_passes(course: Path) -> None:
    done = shell("check", "solutions/00-toy/toy.ipynb", cwd=course)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "toy.linear  passed    3/3",
        "toy.relu    passed    2/2",
        "2 of 2 exercises pass, 5 of 5 points",
    ]
    assert done.stderr == ""


def test_a_released_notebook_fails_with_a_line_for_each_exercise(course: Path) -> None:
    done = shell("check", "toy.ipynb", cwd=course / "course" / "00-toy")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["toy.linear", "FAILED", "0/3"], ["toy.relu", "FAILED", "0/2"]]
    assert lines[-1] == "0 of 2 exercises pass, 0 of 5 points"


def test_partial_credit_shows_and_does_not_pass(course: Path) -> None:
    released = course / "course" / "00-toy" / "toy.ipynb"
    worked = nbformat.read(course / "solutions" / "00-toy" / "toy.ipynb", as_version=4)
    solutions = {cell.metadata["exercise"]: cell.source for cell in worked.cells if "exercise" in cell.metadata}
    solve(released, "toy.linear", without_markers(solutions["toy.linear"]))
    solve(released, "toy.relu", "def relu(x: Tensor) -> Tensor:\n    return x.clone()")
    done = grader("check", released, cwd=course)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "1 of 2 exercises pass, 4 of 5 points"


def test_results_as_json_are_for_programs(course: Path) -> None:
    done = grader("check", "--json", "course/00-toy/toy.ipynb", cwd=course)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert [(e["exercise"], e["passed"], e["max_points"]) for e in report["exercises"]] == [
        ("toy.linear", False, 3),
        ("toy.relu", False, 2),
    ]


def test_results_in_junits_format_are_for_ci(course: Path) -> None:
    notebook = course / "course" / "00-toy" / "toy.ipynb"
    solve(notebook, "toy.linear", notebook_source("toy.linear").replace(" + self.bias", ""))
    solve(notebook, "toy.relu", notebook_source("toy.relu"))
    done = grader("check", "--to", "out/results.xml", "course/00-toy/toy.ipynb", cwd=course)
    assert done.returncode == 1
    assert "1 of 2 exercises pass" in done.stdout
    (suite,) = ElementTree.parse(course / "out" / "results.xml").getroot()
    assert suite.tag == "testsuite"
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "errors")} == {
        "name": "toy",
        "tests": "2",
        "failures": "1",
        "errors": "0",
    }
    linear, relu = suite.findall("testcase")
    assert (linear.get("classname"), linear.get("name")) == ("toy", "toy.linear")
    assert (relu.get("name"), list(relu)) == ("toy.relu", [])
    failure = linear.find("failure")
    assert failure is not None and failure.text
    assert (failure.get("message") or "").startswith("0 of 3 points: 0 of 2 cases right")
    assert "the bias is left out" in failure.text
    assert "What does a line need besides a slope?" in failure.text


def test_a_notebook_that_does_not_end_is_an_error_for_ci(tmp_path: Path) -> None:
    results = [CheckResult("a.b", passed=False, max_points=2, reason="it raised \x00 <Error> & more")]
    write_junit(tmp_path / "r.xml", Path("n.ipynb"), results, ["cell 3 raised it"], "cell 3 took the kernel down.")
    (suite,) = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    failure, error = suite.find("testcase/failure"), suite.find("testcase/error")
    assert (
        failure is not None
        and failure.get("message") == "0 of 2 points: it raised \N{REPLACEMENT CHARACTER} <Error> & more"
    )
    assert error is not None and error.text == "cell 3 took the kernel down."


def test_a_results_file_that_cant_be_written_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(GraderError, match="can't be written"):
        write_junit(tmp_path, Path("n.ipynb"), [])


def test_the_notebooks_file_is_left_as_it_is(course: Path) -> None:
    released = course / "course" / "00-toy" / "toy.ipynb"
    before = released.read_bytes()
    grader("check", released, cwd=course)
    assert released.read_bytes() == before


def test_a_check_that_never_ran_counts_as_failed_and_says_why(course: Path) -> None:
    released = course / "course" / "00-toy" / "toy.ipynb"
    solve(released, "toy.relu", "def rel(x): return x")
    done = grader("check", released, cwd=course)
    assert done.returncode == 1
    assert "NameError: name 'relu' is not defined" in done.stdout


def test_stored_outputs_of_cells_that_did_not_run_do_not_count(course: Path) -> None:
    solved = course / "solutions" / "00-toy" / "toy.ipynb"
    notebook = nbformat.read(solved, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_code_cell("import os\nos._exit(0)"))
    nbformat.write(notebook, solved)
    done = grader("check", solved, cwd=course)
    assert done.returncode == 1
    assert "took the kernel down" in done.stdout
    assert "0 of 2 exercises pass" in done.stdout


def test_an_endless_cell_is_stopped(course: Path) -> None:
    released = course / "course" / "00-toy" / "toy.ipynb"
    solve(released, "toy.linear", "import time\nwhile True:\n    time.sleep(0.1)")
    done = grader("check", "--timeout", "20", released, cwd=course)  # the imports of its setup have to fit in
    assert done.returncode == 1
    assert "ran longer than 20 s" in done.stdout


def test_a_check_that_is_interrupted_says_so_and_in_which_cell(tmp_path: Path) -> None:
    notebook_of(tmp_path / "long.ipynb", "1", "open('running', 'w').close()\nwhile True: pass")
    command = [sys.executable, "-m", "grader.cli", "check", "long.ipynb"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **PLAIN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + TIMEOUT
    while not (tmp_path / "running").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    said = "grader check: stopped in cell 2 of 2, as you asked. Nothing is said of the exercises.\n"
    assert (process.returncode, out, err) == (130, "", said)


def test_an_error_elsewhere_is_noted_and_does_not_fail_the_checks(course: Path) -> None:
    solved = course / "solutions" / "00-toy" / "toy.ipynb"
    notebook = nbformat.read(solved, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    notebook.cells.append(nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}))
    nbformat.write(notebook, solved)
    done = grader("check", solved, cwd=course)
    assert done.returncode == 0
    notes = [line for line in done.stdout.splitlines() if line.startswith("note:")]
    assert notes == [f"note: cell {len(notebook.cells) - 1} raised ZeroDivisionError: division by zero"]


def shown(**verdict: object) -> str:
    """The source of a cell that displays a verdict, as a check does."""
    return (
        "from IPython.display import display\nfrom grader.report import VERDICT_MIME\n"
        f"display({{VERDICT_MIME: {verdict!r}, 'text/plain': 'a report'}}, raw=True)"
    )


def test_of_many_errors_the_first_is_noted_and_the_rest_counted(tmp_path: Path) -> None:
    passes = shown(exercise="toy.relu", passed=True, points=2, max_points=2)
    notebook_of(tmp_path / "many.ipynb", "raise NotImplementedError()", "1 / 0", "1 / 0", passes)
    done = grader("check", "many.ipynb", cwd=tmp_path)
    assert done.stdout.splitlines()[1:] == [
        "note: cell 1 raised NotImplementedError (2 more cells raised an error, which may follow from this)",
        "1 of 1 exercises pass, 2 of 2 points",
    ]
    assert len(json.loads(grader("check", "--json", "many.ipynb", cwd=tmp_path).stdout)["notes"]) == 3


def test_a_comparison_of_layers_is_no_exercise(tmp_path: Path) -> None:
    layers = shown(rows=3, passed=True, culprit=None)
    notebook_of(tmp_path / "layers.ipynb", layers)
    assert "has no checks" in complaint(grader("check", "layers.ipynb", cwd=tmp_path))
    notebook_of(tmp_path / "both.ipynb", layers, shown(exercise="toy.relu", passed=True, points=2, max_points=2))
    done = grader("check", "both.ipynb", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 of 1 exercises pass, 2 of 2 points")


def test_an_exercise_that_is_wrong_only_because_of_a_part_waits_and_does_not_pass(tmp_path: Path) -> None:
    part = shown(exercise="toy.part", passed=False, points=0, max_points=2, summary="1 of 1 cases wrong")
    whole = shown(exercise="toy.whole", passed=False, points=6, max_points=6, summary="it fails because a part does")
    notebook_of(tmp_path / "waits.ipynb", part, whole)
    done = grader("check", "waits.ipynb", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "toy.part   FAILED    0/2  1 of 1 cases wrong",
        "toy.whole  waits     6/6  it fails because a part does",
        "waits: right by itself, with all its points; it passes once the parts that it is made of do",
        "0 of 2 exercises pass, 6 of 8 points",
    ]
    report = json.loads(grader("check", "--json", "waits.ipynb", cwd=tmp_path).stdout)
    assert [exercise["waits"] for exercise in report["exercises"]] == [False, True]


@pytest.mark.parametrize("graded", [True, False])
def test_an_exercise_whose_check_was_deleted_is_not_passed_over(course: Path, graded: bool) -> None:
    solved = course / "solutions" / "00-toy" / "toy.ipynb"
    notebook = nbformat.read(solved, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("check") != "toy.relu"]
    for cell in notebook.cells:
        if not graded:
            cell.metadata.pop("nbgrader", None)
    nbformat.write(notebook, solved)
    done = grader("check", solved, cwd=course)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "toy.linear  passed    3/3",
        "toy.relu    FAILED    0/2  its check is not in this notebook",
        "1 of 2 exercises pass, 3 of 5 points",
    ]


def test_files_that_are_no_notebooks_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "text.ipynb").write_text("# not a notebook")
    (tmp_path / "binary.ipynb").write_bytes(bytes(range(256)))
    (tmp_path / "empty.ipynb").write_text("{}")
    assert "does not exist" in complaint(grader("check", "missing.ipynb", cwd=tmp_path))
    assert "is a folder" in complaint(grader("check", ".", cwd=tmp_path))
    for name in ("text.ipynb", "binary.ipynb", "empty.ipynb"):
        assert "is not a notebook" in complaint(grader("check", name, cwd=tmp_path))


def test_a_notebook_without_checks_is_bad_input(tmp_path: Path) -> None:
    notebook_of(tmp_path / "plain.ipynb", "1 + 1")
    assert "has no checks" in complaint(grader("check", "plain.ipynb", cwd=tmp_path))


# --- build ---


def test_build_check_says_what_is_stale(course: Path) -> None:
    fresh = grader("build", "--check", cwd=course)
    assert (fresh.returncode, fresh.stdout) == (0, "2 lessons are up to date\n")
    (course / "course" / "00-toy" / "reference.safetensors").unlink()
    stale = grader("build", "--check", "00-toy", cwd=course / "solutions")
    assert stale.returncode == 1
    assert "course/00-toy" in stale.stdout
    assert "grader build 00-toy" in stale.stdout


def test_a_lesson_can_be_named_by_its_path(course: Path) -> None:
    assert grader("build", "--check", "solutions/00-toy/", cwd=course).stdout == "1 lesson is up to date\n"


def test_an_unknown_lesson_is_bad_input(course: Path) -> None:
    assert "There are: 00-toy, 01-next" in complaint(grader("build", "02-none", cwd=course))


# --- weights ---


def test_weights_list_names_what_ships(tmp_path: Path) -> None:
    done = grader("weights", "list", cwd=tmp_path)
    assert done.returncode == 0
    assert "austen-gpt2" in done.stdout
    assert "124.4 M" in done.stdout
    assert "gpt2-large: verified by the checksums that the hub gives" in done.stdout


def test_weights_list_fits_a_narrow_terminal(tmp_path: Path) -> None:
    done = grader("weights", "list", cwd=tmp_path, COLUMNS="80")
    listed = done.stdout.split("\n\n")[0].splitlines()
    assert max(map(len, listed)) <= 80
    assert "    a small GPT-2 trained here on five of Austen's novels. Apache-2.0" in listed
    assert "Gemma terms of use, https://ai.google.dev/gemma/terms (gated)" in " ".join(done.stdout.split())


def test_an_unknown_checkpoint_is_bad_input(tmp_path: Path) -> None:
    assert "austen-gpt2" in complaint(shell("weights", "get", "austen-gpt", cwd=tmp_path))


def test_a_checkpoint_that_is_not_here_says_what_to_do(tmp_path: Path) -> None:
    done = shell("weights", "get", "gpt2", cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert "grader weights get gpt2" in complaint(done)


# --- lab ---


def test_lab_without_a_course_says_so(tmp_path: Path) -> None:
    (tmp_path / "nbgrader_config.py").write_text("")
    assert "course is missing" in complaint(grader("lab", cwd=tmp_path))
