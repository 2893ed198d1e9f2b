"""A trace of a model's real weights, and a report as a page."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from own_ports import CONFIGS, program, source_of

from grader.errors import GraderError
from grader.porting.adapters.adapter import adapter_for
from grader.porting.adapters.rope_fields import rope_value
from grader.porting.comparing import program_report
from grader.porting.real import real_model
from grader.porting.reference import small_reference
from grader.recordings.tracefile import read_trace, write_trace
from grader.report import Line
from grader.report_page import to_page

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as transformers saves one."""
    place = tmp_path_factory.mktemp("model")
    (place / "config.json").write_text(json.dumps(CONFIGS["GPT-2"]))
    small_reference(place / "config.json").model.save_pretrained(place / "saved")
    return place / "saved"


def test_a_model_of_a_folder_is_traced_and_a_port_of_it_compared(folder: Path, tmp_path: Path, grader: Any) -> None:
    trace = tmp_path / "t.safetensors"
    code, out, err = grader("trace", folder, "--weights", "--to", trace, "--cached")
    assert (code, err) == (0, "") and out.startswith("GPT2LMHeadModel in float32, ") and f"those of {folder}" in out
    read = read_trace(trace)
    assert [run.name for run in read.runs] == ["cached"] and read.build["config"]["n_layer"] == 2
    real = real_model(folder)
    assert torch.equal(real.trace.output, read.output) and real.trace.args[0].shape == (2, 14)
    assert program_report(program("GPT-2"), real.trace).ok
    wrong = ('nn.GELU(approximate="tanh")', "nn.GELU()")
    assert not program_report(program("GPT-2", wrong), real.trace).ok


def test_what_is_no_models_folder_is_explained(folder: Path, tmp_path: Path, grader: Any) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps(CONFIGS["GPT-2"]))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "nothing"}')
    (tmp_path / "odd" / "model.safetensors").write_bytes(b"")
    for arguments, complaint in (
        ((tmp_path / "none", "--weights"), "does not exist"),
        ((tmp_path / "bare", "--weights"), "a config.json and no weights"),
        ((tmp_path / "odd", "--weights"), "can't load"),
        ((folder, "--set", "n_layer=2", "--weights"), "--set changes the config of a small random model"),
        ((folder, "--config", folder / "config.json", "--weights"), "one model is named"),
        ((), "MODEL is missing"),
    ):
        code, _, err = grader("trace", *arguments, "--to", tmp_path / "t.safetensors")
        assert code == 2 and complaint in err and "Traceback" not in err, err
    with pytest.raises(GraderError, match="does not exist"):
        real_model(tmp_path / "none")


# A page


def test_a_report_is_a_page_of_its_own_light_and_dark(folder: Path, tmp_path: Path, grader: Any) -> None:
    write_trace(real_model(folder).trace, tmp_path / "t.safetensors")
    (tmp_path / "mine.py").write_text(source_of("GPT-2", ('nn.GELU(approximate="tanh")', "nn.GELU()")))
    page = tmp_path / "report.html"
    code, out, _ = grader("compare", f"{tmp_path / 'mine.py'}:Model", tmp_path / "t.safetensors", "--to", page)
    assert code == 1 and "Start here" in out
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "prefers-color-scheme:dark" in text and "trf_blocks.0.ff" in text
    assert "http://" not in text and "https://" not in text and "<script" not in text
    code, _, err = grader("compare", f"{tmp_path / 'mine.py'}:Model", tmp_path / "t.safetensors", "--to", tmp_path)
    assert code == 2 and "can't be written" in err


def test_what_a_page_shows_is_escaped() -> None:
    page = to_page([Line("a <b> & `<script>`", "bad")], "compare </title><script>x.py")
    assert "<script>" not in page and "compare &lt;/title&gt;&lt;script&gt;x.py" in page


# Numbers of YaRN in a program's own config

YARN = {"rope_type": "yarn", "factor": 40.0, "beta_fast": 16.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("rope_factor", 'config.rope_scaling["factor"]'),
        ("original_seq_len", 'config.rope_scaling["original_max_position_embeddings"]'),
        ("beta_fast", 'config.rope_scaling["beta_fast"]'),
        ("beta_slow", "1.0"),
        ("mscale", "1.0"),
        ("dim", None),
    ],
)
def test_numbers_by_which_rope_is_stretched_are_filled_in(name: str, expression: str | None) -> None:
    assert rope_value(name, {"rope_scaling": YARN, "rope_theta": 1e4}) == expression


def test_they_are_found_where_layers_have_rope_of_their_own_and_nowhere_else() -> None:
    by_kind = {"rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_type": "default"}}}
    assert rope_value("rope_factor", by_kind) == 'config.rope_parameters["full_attention"]["factor"]'
    assert rope_value("rope_factor", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}) is None
    assert rope_value("rope_theta", {"rope_parameters": {"rope_theta": 1e4}}) == 'config.rope_parameters["rope_theta"]'


ARGS = """
from dataclasses import dataclass

from torch import nn


@dataclass
class ModelArgs:
    dim: int = 8
    original_seq_len: int = 0
    rope_factor: float = 1.0
    beta_fast: int = 32


class Transformer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()

    def forward(self, tokens):
        return tokens
"""


def test_an_adapter_fills_in_yarn(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "learner"}
    exec(ARGS, names)
    (tmp_path / "mine.py").write_text(ARGS)
    build = {"config": {"hidden_size": 64, "rope_scaling": YARN}}
    made = adapter_for(names["Transformer"], tmp_path / "mine.py", build)
    assert 'rope_factor=config.rope_scaling["factor"],' in made.source and not made.missing
