"""`grader capstone`: the folder that it writes, and the check of a program in it."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader.capstone.folder import write_folder
from grader.capstone.making import Capstone, make
from grader.cli import app
from grader.errors import GraderError
from grader.recordings.tracefile import read_trace

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@cache
def capstone() -> Capstone:
    return make(7, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(capstone(), tmp_path / "mine")
    return tmp_path / "mine"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["capstone", *map(str, arguments)])
    if isinstance(done.exception, GraderError):
        return 2, str(done.exception)
    return done.exit_code, done.output


def test_the_folder_has_what_it_takes_and_no_answer(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "program.py", "tensors.txt", "trace.safetensors"}
    assert json.loads((folder / "config.json").read_text()) == capstone().drawn.config
    trace = read_trace(folder / "trace.safetensors")
    assert [run.name for run in trace.runs] == ["cached"] and trace.build == {"config": capstone().drawn.config}
    assert len((folder / "tensors.txt").read_text().splitlines()) == len(trace.weights)
    text = (folder / "README.md").read_text()
    assert "grader capstone --check mine" in text and capstone().drawn.base in text
    assert "softmax(" not in text and "import" not in text
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000


def test_a_program_that_is_not_started(folder: Path) -> None:
    assert run("--check", folder) == (
        2,
        "This program is not started yet. Write Model's parts in program.py: README.md says how to start.",
    )


def test_a_right_program(folder: Path) -> None:
    shutil.copy(SUPPORT / "capstone_solver.py", folder / "program.py")
    code, said = run("--check", folder)
    assert code == 0 and said.endswith("100 of 100 points\n"), said
    code, said = run("--check", folder, "--json")
    assert code == 0 and json.loads(said)["points"] == 100


def test_a_wrong_program(folder: Path) -> None:
    text = (SUPPORT / "capstone_solver.py").read_text()
    (folder / "program.py").write_text(text.replace("self.factor = config", "self.factor = 2 * config"))
    code, said = run("--check", folder)
    assert code == 1 and "Start here" in said and " of 100 points" in said, said


SAME_CACHE = """

class Model(Model):
    def new_cache(self, batch_size, capacity):
        if not hasattr(self, "kept"):
            self.kept = super().new_cache(batch_size, capacity)
        return self.kept

    def forward(self, ids, cache=None):
        return super().forward(ids, super().new_cache(*ids.shape) if cache is None else cache)
"""
NO_CACHE_YET = """

class Model(Model):
    def new_cache(self, batch_size, capacity):
        return None

    def forward(self, ids, cache=None):
        return super().forward(ids, super().new_cache(*ids.shape))
"""
TWO_MATRICES = """

class Model(Model):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head.weight = nn.Parameter(self.lm_head.weight.detach().clone())
"""
IDS_ALONE = """

class Model(Model):
    def new_cache(self, batch_size, capacity):
        return [torch.zeros(batch_size, 0, dtype=torch.long)]

    def forward(self, ids, cache=None):
        if cache is not None:
            cache[0] = torch.cat([cache[0], ids], dim=1)
        every = ids if cache is None else cache[0]
        return super().forward(every, super().new_cache(*every.shape))[:, -ids.shape[1] :]
"""
ONE_FOR_ALL = """

class Model(Model):
    def new_cache(self, batch_size, capacity):
        return super().new_cache(batch_size, capacity)[:1]

    def forward(self, ids, cache=None):
        layers = self.config.num_hidden_layers
        return super().forward(ids, super().new_cache(*ids.shape) if cache is None else cache * layers)
"""


def checked(folder: Path, more: str) -> str:
    """What is said of the solver with something added."""
    text = (SUPPORT / "capstone_solver.py").read_text()
    (folder / "program.py").write_text(f"{text}{more}")
    code, said = run("--check", folder)
    assert code == 1, said
    return said


def test_a_cache_of_ids_from_which_all_is_computed_again(folder: Path) -> None:
    said = checked(folder, IDS_ALONE)
    assert "✗ A step with the cache computes everything again" in said and said.endswith("70 of 100 points\n"), said


def test_one_cache_for_all_layers_is_told_at_the_layer(folder: Path) -> None:
    first, *rows = checked(folder, ONE_FOR_ALL).splitlines()
    assert "`model.layers.1` (Layer): it is given the same cache as `model.layers.0`" in first, first
    origins = {row.split()[1]: row.endswith("own error") for row in rows if row.startswith("[DIFF]")}
    assert [name for name, own in origins.items() if own] == ["model.layers.1"], rows


@pytest.mark.parametrize(
    ("more", "words"),
    [(SAME_CACHE, "`new_cache` has to make a cache without tokens"), (TWO_MATRICES, " parameters, and")],
)
def test_what_no_row_shows(folder: Path, more: str, words: str) -> None:
    shutil.copy(SUPPORT / "capstone_solver.py", folder / "program.py")
    with (folder / "program.py").open("a") as program:
        program.write(more)
    code, said = run("--check", folder)
    assert code == 1 and words in said and said.endswith("99 of 100 points\n"), said
    code, said = run("--check", folder, "--json")
    assert code == 1 and not json.loads(said)["ok"] and words in json.loads(said)["failings"][0]


def test_one_pass_is_compared_while_there_is_no_cache_yet(folder: Path) -> None:
    text = (SUPPORT / "capstone_solver.py").read_text()
    (folder / "program.py").write_text(f"{text}{NO_CACHE_YET}")
    code, said = run("--check", folder)
    assert code == 1 and "✗ `new_cache` gives None" in said and said.endswith("70 of 100 points\n"), said
    (folder / "program.py").write_text(
        f"{text}{NO_CACHE_YET}".replace("self.factor = config", "self.factor = 2 * config")
    )
    assert "Start here" in run("--check", folder)[1]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\n", "defines no `Model`"),
        ("Model = 3\n", "no nn.Module class"),
        ("def\n", "fails"),
        (
            "from torch import nn\nclass Model(nn.Module):\n    def __init__(self, config):\n"
            "        super().__init__()\n        self.embed = nn.Embedding(5, 4)\n"
            "    def forward(self, ids, cache=None):\n        return self.embed(ids)\n",
            "no counterpart|match|shape|tensors",
        ),
    ],
)
def test_programs_that_can_not_be_compared(folder: Path, source: str, words: str) -> None:
    (folder / "program.py").write_text(source)
    code, said = run("--check", folder)
    assert code == 2 and pytest.importorskip("re").search(words, said), said


def test_what_can_not_be_done_is_said(folder: Path, tmp_path: Path) -> None:
    assert run("--seed", 7, "--to", folder)[1].startswith(f"{folder} exists. Name another folder")
    assert run("--seed", 7, "--level", 0, "--to", tmp_path / "new")[1].startswith("There is no level 0.")
    assert run("--check", tmp_path / "none")[1].startswith(f"{tmp_path / 'none'} is no folder.")
    assert run("--check", tmp_path)[1].endswith("has no program.py. Is it a capstone's folder?")
    assert run()[0] == 2 and run("--seed", 1, "--check", folder)[0] == 2


def test_the_command_writes_a_folder(tmp_path: Path) -> None:
    code, said = run("--seed", 7, "--to", tmp_path / "new")
    assert code == 0 and "README.md" in said and (tmp_path / "new" / "program.py").is_file()
