"""A class in which honest students sit among attackers: the toy course, and a submission for each file in attacks/."""

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch
from built_course import copy_built_course
from real_nbgrader import LINEAR, RELU, STUDENTS, write_answers

from grader.grading.classroom.hidden import record_hidden
from grader.recordings.recording import Recording

LESSON = "00-toy"
RIGHT = STUDENTS["ada"]
RIGHT_CELLS = {  # where an attack writes none of its own
    "toy.linear": LINEAR.format(bias="").replace(
        "nn.functional.linear(x, self.weight)", "x @ self.weight.T + self.bias"
    ),
    "toy.relu": RELU.format("x.clamp(min=0)"),
}
HONEST = {
    "honest-1": (RIGHT, 5.0),
    "honest-2": ({"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")}, 2.0),
    "honest-3": ({}, 0.0),
}


@dataclass(frozen=True)
class Attack:
    """What an attack file says. tries: what it tries. earns: what an honest grader gives. earlier: whether the student
    had handed in a right notebook before. carries: what must not come back to the student. cells: sources by exercise,
    right ones of those that it does not write.
    file: a program that changes the submission. exchange: one that the student runs in nbgrader's exchange, late."""

    name: str
    tries: str
    earns: float
    earlier: bool
    carries: str
    cells: dict[str, str]
    file: str
    exchange: str = ""


def read_attack(path: Path) -> Attack:
    """The attack in a file."""
    head, *pieces = re.split(r"^# %% (.+)\n", path.read_text(), flags=re.MULTILINE)
    about = dict(re.findall(r"^# (\w+): (.+)$", head, flags=re.MULTILINE))
    cells = dict(zip(pieces[::2], pieces[1::2], strict=True))
    program, exchange = cells.pop("file", ""), cells.pop("exchange", "")
    earlier, carries = about.get("Earlier") == "right", about.get("Carries", "")
    return Attack(
        path.stem, about["Tries"], float(about["Earns"]), earlier, carries, RIGHT_CELLS | cells, program, exchange
    )


ALL_ATTACKS = [
    read_attack(path) for path in sorted((Path(__file__).resolve().parents[1] / "grading" / "attacks").glob("*.py"))
]
ATTACKS = [attack for attack in ALL_ATTACKS if not attack.exchange]
ON_COLLECTING = [attack for attack in ALL_ATTACKS if attack.exchange]


def make_course(root: Path, secret: bytes | None = b"the attackers do not know this") -> None:
    """The toy course at `root`, built, with a hidden recording unless there is no secret."""
    for lesson in copy_built_course(root):
        if lesson.name == LESSON and secret:
            record_hidden(root, lesson, secret)
    (root / "secret.txt").write_text("a secret of the instructor's")


def submit(root: Path, student: str, answers: dict[str, str]) -> Path:
    """Hand in the released notebook with some answers; returns its path."""
    folder = root / "submitted" / student / LESSON
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "course" / LESSON, folder)
    write_answers(folder / "toy.ipynb", answers)
    return folder / "toy.ipynb"


def attack_with(root: Path, attack: Attack, port: int, student: str = "") -> None:
    """Hand in an attack, by a student who is called as it is, or otherwise."""
    words = {
        "CANARY": str(canary(root, attack.name)),
        "ROOT": str(root),
        "PORT": str(port),
        "REPLAYED": json.dumps(released_answers(root)),
        "BIASES": json.dumps(released_biases(root)),
    }

    def filled(text: str) -> str:
        return re.sub("CANARY|ROOT|PORT|REPLAYED|BIASES", lambda found: words[found[0]], text)

    path = submit(root, student or attack.name, {name: filled(text) for name, text in attack.cells.items()})
    if attack.file:
        notebook = json.loads(path.read_text())
        before = path.read_bytes()
        exec(attack.file, {"cells": notebook["cells"], "notebook": path, "folder": path.parent, "root": root})
        if path.is_file() and not path.is_symlink() and path.stat().st_size == len(before):
            path.write_text(json.dumps(notebook))


def canary(root: Path, name: str) -> Path:
    """A file that an attack makes if it gets out."""
    return root / "canaries" / name


def released_answers(root: Path) -> dict[str, list[object]]:
    """What the released recording says that each of the first exercise's inputs gives, by the input's shape."""
    recording = Recording.read(root / "course" / LESSON / "reference.safetensors")
    cases = zip(recording.task("toy.linear").cases, recording.answer("toy.linear").outputs, strict=True)
    return {str(list(case.args[0].shape)): output.tolist() for case, output in cases}


def released_biases(root: Path) -> list[object]:
    """The biases with which a released case is asked, its variants included: so a program knows that it runs on one."""
    task = Recording.read(root / "course" / LESSON / "reference.safetensors").task("toy.linear")
    biases = [case.weights["bias"] for case in task.cases]
    # Some variants have no weights, or those of bfloat16.
    return [each.tolist() for bias in biases for each in (bias, torch.zeros_like(bias), bias.bfloat16())]


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A server that notes who calls."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def called(server: socket.socket) -> bool:
    """Whether anybody has called."""
    try:
        server.accept()
    except BlockingIOError:
        return False
    return True


def files_outside(root: Path) -> dict[str, tuple[int, int]]:
    """The files of the course that no grading changes, and the host's devices, with sizes and times."""
    kept = ("course", "solutions", "hidden", "submitted", "secret.txt")
    paths = [p for name in kept for p in ((root / name).rglob("*") if (root / name).is_dir() else [root / name])]
    paths += [Path("/dev", name) for name in ("null", "zero", "random", "urandom")]
    return {str(p): (os.lstat(p).st_size, os.lstat(p).st_mtime_ns) for p in paths if "__pycache__" not in p.parts}


def autograded_text(root: Path, student: str) -> str:
    """All that the student's autograded notebook holds."""
    return nbformat.writes(nbformat.read(root / "autograded" / student / LESSON / "toy.ipynb", as_version=4))
