"""Lesson 00: the solutions equal the references, on published and on drawn configs; other right ways pass too."""

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from grader.checks.judge import judge
from grader.checks.probe import probe
from grader.config import Config
from grader.lessons.lesson import Lesson
from grader.recordings.recording import Recording

LESSON = Lesson(Path(__file__).parent.parent / "solutions" / "00-orientation")

# Counts of the published checkpoints, which transformers' counts must equal too.
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "smollm2-135m": 134_515_008,
    "llama-3-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "gemma-3-270m": 268_098_176,
}


@cache
def solutions() -> Mapping[str, Any]:
    return LESSON.namespace()


@cache
def exercises_module() -> ModuleType:
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("orientation_exercises", LESSON.exercises_file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_count(config: Mapping[str, Any]) -> int:
    count: int = exercises_module().reference_count(config)
    return count


def verdict_on(exercise: str, target: Any) -> Any:
    recording = Recording.read(LESSON.recording)
    task = recording.task(exercise)
    return judge(task, recording.answer(exercise), probe(task, target))


# parameter_count


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_published_models_equal_transformers(name: str) -> None:
    config = Config.read(LESSON.folder / "configs" / f"{name}.json")
    assert solutions()["parameter_count"](config) == reference_count(config) == PUBLISHED[name]


def test_every_published_config_is_a_case() -> None:
    assert {path.stem for path in (LESSON.folder / "configs").glob("*.json")} == set(PUBLISHED)
    (exercise,) = (e for e in LESSON.exercises()[0] if e.name == "orientation.parameter_count")
    counts = [exercise.reference(*case.args(None)) for case in exercise.cases]
    assert set(PUBLISHED.values()) <= set(counts)


sizes = st.integers(1, 40)
ties = st.sampled_from([{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])


@st.composite
def gpt2_configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    inner = draw(st.sampled_from([{}, {"n_inner": None}, {"n_inner": draw(sizes)}]))
    return {
        "model_type": "gpt2",
        "vocab_size": draw(sizes),
        "n_positions": draw(sizes),
        "n_embd": heads * draw(st.integers(1, 9)),
        "n_head": heads,
        "n_layer": draw(st.integers(1, 3)),
        **inner,
        **draw(ties),
    }


@st.composite
def newer_configs(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from(["llama", "qwen3", "gemma3_text"]))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    # transformers' own default for a missing head_dim is hidden / heads for Llama alone.
    head_dim = {"head_dim": 2 * draw(st.integers(1, 8))}
    return {
        "model_type": family,
        "vocab_size": draw(sizes),
        "hidden_size": 2 * kv_heads * group * draw(st.integers(1, 6)),
        "intermediate_size": draw(sizes),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        **(draw(st.sampled_from([{}, head_dim])) if family == "llama" else head_dim),
        **draw(ties),
    }


@settings(max_examples=40, deadline=None)
@given(st.one_of(gpt2_configs(), newer_configs()))
def test_counts_of_drawn_configs_equal_transformers(config: dict[str, Any]) -> None:
    assert solutions()["parameter_count"](config) == reference_count(config)


def test_a_count_by_listing_every_shape_is_accepted() -> None:
    """Another right way: write down the shapes, as the checkpoint has them, and multiply."""

    def by_shapes(config: Mapping[str, Any]) -> int:
        family = config["model_type"]
        if family == "gpt2":
            D, F_ = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
            layer = [(D,)] * 4 + [(D, 3 * D), (3 * D,), (D, D), (D,), (D, F_), (F_,), (F_, D), (D,)]
            outside = [(config["vocab_size"], D), (config["n_positions"], D), (D,), (D,)]
            layers = config["n_layer"]
        else:
            D, F_, H = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
            hd = config.get("head_dim", D // H)
            KV = config["num_key_value_heads"]
            layer = [(H * hd, D), (KV * hd, D), (KV * hd, D), (D, H * hd), (F_, D), (F_, D), (D, F_), (D,), (D,)]
            layer += [] if family == "llama" else [(hd,), (hd,)]
            layer += [(D,), (D,)] if family == "gemma3_text" else []
            outside = [(config["vocab_size"], D), (D,)]
            layers = config["num_hidden_layers"]
        if not config.get("tie_word_embeddings", family in ("gpt2", "gemma3_text")):
            outside.append((config["vocab_size"], D))
        return sum(torch.Size(shape).numel() for shape in outside + layer * layers)

    assert verdict_on("orientation.parameter_count", by_shapes).right


# linear


class Parameters(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))


class Fused(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Einsum(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,ji->...j", x, self.weight) + self.bias


class RowByRow(Parameters):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * row).sum(-1) for row in self.weight], dim=-1) + self.bias


@pytest.mark.parametrize("right", [Fused, Einsum, RowByRow, nn.Linear])
def test_other_right_linear_layers_are_accepted(right: type[nn.Module]) -> None:
    assert verdict_on("orientation.linear", right).right


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=3), sizes, sizes, st.integers(0, 2**31))
def test_linear_equals_torchs_on_drawn_shapes(batch: list[int], in_features: int, out_features: int, seed: int) -> None:
    torch.manual_seed(seed)
    reference = nn.Linear(in_features, out_features)
    own = solutions()["Linear"](in_features, out_features)
    own.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(*batch, in_features)
    torch.testing.assert_close(own(x), reference(x), rtol=1e-5, atol=1e-5)


# points


@pytest.mark.parametrize("done", [("gpt2",), ("llama", "qwen3", "gemma3_text")])
def test_a_count_for_some_families_gets_their_points(done: tuple[str, ...]) -> None:
    right = solutions()["parameter_count"]

    def only(config: Mapping[str, Any]) -> int:
        if config["model_type"] not in done:
            raise NotImplementedError(config["model_type"])
        return int(right(config))

    verdict = verdict_on("orientation.parameter_count", only)
    assert not verdict.right
    assert 0 < verdict.points < verdict.max_points
