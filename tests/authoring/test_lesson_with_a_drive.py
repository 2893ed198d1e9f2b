"""A lesson with a cache and a drive of its own is one folder, as docs/authoring.md says."""

import shutil
from pathlib import Path

import pytest

from conftest import PROJECT
from grader.authoring.build import build
from grader.authoring.kit.declared import Change
from grader.authoring.kit.solved import Solved, lesson_at
from grader.authoring.new_lesson import new_lesson
from grader.authoring.stale import check_build
from grader.lessons.lesson import Lesson

TWIN = '''
# %% [markdown]
# ### Exercise 2 · Attention with a line
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# A key at a distance of $d$ tokens loses $d / 2$ of its score. Crops leave gaps, so the cache keeps positions too.

# %% exercise="words.near"
class NearCache:
    """Rows and positions of the tokens that are kept. seen: how many have come in all."""

    def __init__(self) -> None:
        self.rows, self.positions, self.seen = None, None, 0

    def append(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        new = torch.arange(self.seen, self.seen + rows.shape[1])
        self.rows = rows if self.rows is None else torch.cat([self.rows, rows], dim=1)
        self.positions = new if self.positions is None else torch.cat([self.positions, new])
        self.seen += rows.shape[1]
        return self.rows, self.positions
        ### END SOLUTION

    def crop(self, first: int, last: int) -> None:
        """Keep the first and the last tokens."""
        ### BEGIN SOLUTION
        length = len(self.positions)
        if length > first + last:
            kept = [*range(first), *range(length - last, length)]
            self.rows, self.positions = self.rows[:, kept], self.positions[kept]
        ### END SOLUTION


class Near(nn.Module):
    """Causal attention of x [B, T, dim] to what a linear layer makes of it, with a line on the scores."""

    def __init__(self, dim: int):
        super().__init__()
        self.mix = nn.Linear(dim, dim, bias=False)

    def new_cache(self) -> NearCache:
        return NearCache()

    def forward(self, x: Tensor, cache: NearCache) -> Tensor:
        ### BEGIN SOLUTION
        rows, positions = cache.append(self.mix(x))
        distance = positions[-x.shape[1] :, None] - positions
        scores = x @ rows.transpose(1, 2) * x.shape[-1] ** -0.5 - distance / 2
        return scores.masked_fill(distance < 0, -torch.inf).softmax(dim=-1).to(x.dtype) @ rows
        ### END SOLUTION

# %% check="words.near" tags=["nbval-ignore-output"]
check("words.near", Near)
'''

DRIVES = '''"""How what has a cache is used: text that comes in chunks, with a crop after each."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import tensor_given


def decoded(module: Any, x: Tensor, chunks: list[int], first: int, last: int) -> Tensor:
    cache, given = module.new_cache(), []
    for piece in torch.split(x, chunks, dim=1):
        given.append(tensor_given(module(piece, cache), "forward"))
        cache.crop(first, last)
    return torch.cat(given, dim=1)
'''

REFERENCE = '''"""What is right: PyTorch's attention over the whole text, with what a crop dropped hidden."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RightNear(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, chunks: list[int], first: int, last: int) -> Tensor:
        bias = torch.full((x.shape[1], x.shape[1]), -torch.inf)
        kept: list[int] = []
        for chunk in torch.arange(x.shape[1]).split(chunks):
            for i in chunk.tolist():
                seen = [*kept, *range(int(chunk[0]), i + 1)]
                bias[i, seen] = (torch.tensor(seen) - i) / 2
            kept += chunk.tolist()
            kept = kept if len(kept) <= first + last else [*kept[:first], *kept[-last:]]
        rows = self.mix(x)
        return F.scaled_dot_product_attention(x, rows, rows, attn_mask=bias.to(x.dtype))
'''

NEAR = """\
NEAR = Exercise(
    name="words.near",
    solution="Near",
    reference=reference.RightNear,
    drive=drives.decoded,
    points=3,
    axes="B T D",
    cases=[
        Case("nothing is dropped", lambda draw: [draw.normal(2, 7, 12), [4, 1, 2], 3, 9], {"dim": 12}),
        Case("the middle is dropped", lambda draw: [draw.normal(1, 9, 16), [5, 1, 3], 1, 2], {"dim": 16}),
        Case("bfloat16", lambda draw: [draw.normal(2, 8, 20), [6, 2], 2, 1], {"dim": 20}, dtype=torch.bfloat16),
    ],
)

"""

NEXT_OF_KEPT = "torch.arange(rows.shape[1]) + (0 if self.positions is None else len(self.positions))"

MISTAKES = f"""
[[words.near]]
at = "torch.arange(self.seen, self.seen + rows.shape[1])"
"new tokens follow those that are kept" = [
  "{NEXT_OF_KEPT}",
  "Ten tokens came, and three of them are kept. At which position does the next one stand?"]

[[words.near]]
at = "[*range(first), *range(length - last, length)]"
"the newest tokens alone are kept" = ["[*range(length - first - last, length)]", "Print the positions after a crop."]
"""


def insert(path: Path, before: str, text: str) -> None:
    """Write text in front of what is in the file once."""
    known = path.read_text(encoding="utf-8")
    assert known.count(before) == 1
    path.write_text(known.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Solved:
    """The lesson that `new-lesson` makes, with such an exercise beside its own, built."""
    course = tmp_path_factory.mktemp("course")
    (course / "solutions").mkdir()
    shutil.copy(PROJECT / "nbgrader_config.py", course)
    new_lesson(course, "07-words")
    folder = course / "solutions" / "07-words"
    for name, text in (("drives.py", DRIVES), ("reference.py", REFERENCE)):
        (folder / name).write_text(text, encoding="utf-8")
    for name, text in (("words.py", TWIN), ("mistakes.toml", MISTAKES)):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)
    insert(folder / "exercises.py", "\n\ndef width", "\nfrom . import drives, reference\n")
    insert(folder / "exercises.py", "EXERCISES =", NEAR)
    insert(folder / "exercises.py", "])", ", NEAR")
    build(Lesson(folder))
    return lesson_at(folder)


def test_it_is_built_from_its_own_folder(lesson: Solved) -> None:
    assert check_build([Lesson(lesson.folder)]) == []
    released = lesson.folder.parents[1] / "course" / "07-words"
    assert not (released / "drives.py").exists()
    text = (released / "words.ipynb").read_text(encoding="utf-8")
    assert "def crop(self, first: int, last: int)" in text  # the cell's other class is there, and its solution is not
    assert "self.seen +=" not in text and text.count("YOUR CODE") >= 3


def test_a_mistake_in_its_cache_is_named(lesson: Solved) -> None:
    told = lesson.told(
        "words.near", Change("words.near", "torch.arange(self.seen, self.seen + rows.shape[1])", NEXT_OF_KEPT)
    )
    assert "new tokens follow those that are kept" in told and "At which position does the next one stand?" in told


def test_its_drive_travels_with_the_shared_piece_that_it_names(lesson: Solved) -> None:
    told = lesson.told("words.near", Change("words.near", "return scores.masked_fill", "scores.masked_fill"))
    assert "forward returned None, where a tensor belongs; does it end with `return`?" in told
