"""A course of two small lessons, for tests that build, release and grade: the second is given a part of the first."""

import shutil
from pathlib import Path

from grader.lessons.lesson import Lesson

PROJECT = Path(__file__).resolve().parents[2]

FIRST_EXERCISES = """\
from torch import nn
from grader.lessons.exercise import Case, Exercise, Mistake

EXERCISES = [
    Exercise(
        name="toy.linear",
        solution="Linear",
        reference=nn.Linear,
        points=3,
        cases=[
            Case("a batch of vectors", lambda draw: [draw.normal(6, 3)], {"in_features": 3, "out_features": 5}),
            Case("one vector", lambda draw: [draw.normal(4)], {"in_features": 4, "out_features": 2}),
        ],
        mistakes=[Mistake("the bias is left out", "What does a line need besides a slope?", " + self.bias", "")],
    ),
    Exercise(
        name="toy.relu",
        solution="relu",
        reference=lambda x: x.clamp(min=0),
        function=True,
        points=2,
        cases=[
            Case("positive inputs", lambda draw: [draw.normal(8).abs()]),
            Case("inputs of either sign", lambda draw: [draw.normal(9)]),
        ],
    ),
]
"""

FIRST = '''\
# %% [markdown]
# # Two small exercises

# %% tags=["setup"]
import torch
from torch import Tensor, nn

from grader import check

# %% [markdown]
# ### Exercise 1 · Linear

# %% exercise="toy.linear"
class Linear(nn.Module):
    """y = x W^T + b. x: [..., in] -> [..., out]."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return x @ self.weight.T + self.bias
        ### END SOLUTION

# %% check="toy.linear"
check("toy.linear", Linear)

# %% exercise="toy.relu"
def relu(x: Tensor) -> Tensor:
    """The larger of x and 0."""
    ### BEGIN SOLUTION
    return x.clamp(min=0)
    ### END SOLUTION

# %% check="toy.relu"
check("toy.relu", relu)

# %%
print("the sum is", 1 + 1)

# %% tags=["nbval-ignore-output"]
import time

time.perf_counter()
'''

SECOND_EXERCISES = """\
from torch import nn
from grader.lessons.exercise import Case, Exercise

EXERCISES = [
    Exercise(
        name="next.twice",
        solution="twice",
        reference=lambda x: 2 * x,
        function=True,
        cases=[Case("a vector", lambda draw: [draw.normal(3)])],
    ),
]
"""

SECOND = """\
# %% tags=["setup"]
import torch
from torch import Tensor, nn

from grader import check

# %% given="00-toy toy.linear"

# %% exercise="next.twice"
def twice(x: Tensor) -> Tensor:
    ### BEGIN SOLUTION
    linear = Linear(3, 3)
    linear.load_state_dict({"weight": 2 * torch.eye(3), "bias": torch.zeros(3)})
    return linear(x)
    ### END SOLUTION

# %% check="next.twice"
check("next.twice", twice)
"""


def write_course(root: Path) -> tuple[Lesson, Lesson]:
    """Write the course's sources below `root`, with the project's nbgrader_config.py; returns its lessons."""
    shutil.copy(PROJECT / "nbgrader_config.py", root)
    first = _write_lesson(root / "solutions" / "00-toy", "toy.py", FIRST, FIRST_EXERCISES)
    second = _write_lesson(root / "solutions" / "01-next", "next.py", SECOND, SECOND_EXERCISES)
    (first.folder / "configs").mkdir()
    (first.folder / "configs" / "toy.json").write_text('{"n_embd": 3}\n')
    for name in ("others.py", "benchmark.py", "test_toy.py", "equivalent_mutants.toml"):
        (first.folder / name).write_text("# no learner gets this\n")
    return first, second


def _write_lesson(folder: Path, name: str, twin: str, exercises: str) -> Lesson:
    folder.mkdir(parents=True)
    (folder / name).write_text(twin)
    (folder / "exercises.py").write_text(exercises)
    return Lesson(folder)
