"""The real nbgrader as a command, and a class of four whose scores by stock nbgrader are known."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat

LINEAR = """\
class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        return nn.functional.linear(x, self.weight{bias})
"""
RELU = "def relu(x):\n    return {}\n"
STUDENTS = {
    "ada": {"toy.linear": LINEAR.format(bias=", self.bias"), "toy.relu": RELU.format("torch.where(x > 0, x, 0.0)")},
    "bo": {},
    "cleo": {"toy.linear": LINEAR.format(bias=", self.bias"), "toy.relu": RELU.format("x")},
    "dan": {"toy.linear": LINEAR.format(bias=""), "toy.relu": RELU.format("x.relu()")},
}
# toy.linear is worth 3 points, toy.relu 2, one for each of its two cases; the one that the input returned gets right as
# well counts only beside the other.
SCORES = {"ada": 5.0, "bo": 0.0, "cleo": 3.0, "dan": 2.0}


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python module's command line; nbgrader finds its alembic on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "JUPYTER_CONFIG_DIR": str(cwd / ".jupyter"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )


def nbgrader(*command: str | Path, cwd: Path) -> str:
    """What nbgrader says; it must succeed."""
    done = run("nbgrader", *command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_answers(notebook: Path, answers: dict[str, str]) -> None:
    """Put sources into the solution cells of exercises."""
    loaded = nbformat.read(notebook, as_version=4)
    for cell in loaded.cells:
        if cell.metadata.get("exercise") in answers:
            cell.source = answers[cell.metadata["exercise"]]
    nbformat.write(loaded, notebook)
