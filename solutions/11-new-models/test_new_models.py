"""What only this lesson must hold: its references by hand, its traces, its counts against transformers, its configs."""

import json
import math
from pathlib import Path
from typing import Any

import new_model_traces
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, Glm4MoeConfig
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextModel
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssModel
from transformers.models.olmo3.modeling_olmo3 import Olmo3Model
from transformers.models.smollm3.modeling_smollm3 import SmolLM3Model

from grader import Config, compare_layers, load_checkpoint, read_trace
from grader.authoring.kit import hf
from grader.authoring.kit.engine import Checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
SOLVED = LESSON.solutions
REFERENCE = LESSON.module("reference")
EXERCISES = LESSON.module("exercises")
TEXTS = Path(__file__).parent / "texts"
ATLAS = Path(__file__).parents[2] / "grader" / "atlas" / "models"


def by_hand(positions: Tensor, frequencies: list[float], size: float = 1.0) -> Tensor:
    """Cosines and sines in float64, each angle twice: [2, T, 2 * pairs]."""
    angles = positions.double()[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    angles = torch.cat([angles, angles], dim=-1)
    return size * torch.stack([angles.cos(), angles.sin()])


def yarn_by_hand(width: int, theta: float, scaling: dict[str, Any]) -> list[float]:
    """YaRN's frequencies, by how often each pair has turned (Peng et al., 2023, equations 17 to 23)."""
    edges = [
        width * math.log(scaling["original_max_position_embeddings"] / (2 * math.pi * turns)) / (2 * math.log(theta))
        for turns in (scaling["beta_fast"], scaling["beta_slow"])
    ]
    low, high = (math.floor(edges[0]), math.ceil(edges[1])) if scaling.get("truncate", True) else edges
    low, high = max(low, 0), min(high, width - 1)
    found = []
    for pair in range(width // 2):
        plain = theta ** (-2 * pair / width)
        kept = 1 - min(1, max(0, (pair - low) / (high - low)))
        found.append(kept * plain + (1 - kept) * plain / scaling["factor"])
    return found


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(("width", "theta", "factor", "length"), [(128, 5e5, 8.0, 8192), (64, 1.5e5, 32.0, 4096)])
def test_yarn_is_the_papers_formula(truncate: bool, width: int, theta: float, factor: float, length: int) -> None:
    scaling = {"factor": factor, "original_max_position_embeddings": length, "beta_fast": 32.0, "beta_slow": 1.0}
    scaling["truncate"] = truncate
    positions = torch.arange(0, 300, 7)
    wanted = by_hand(positions, yarn_by_hand(width, theta, scaling), 0.1 * math.log(factor) + 1)
    for table in (REFERENCE.yarn_table, SOLVED["yarn_table"]):
        assert (table(positions, width, theta, scaling) - wanted).abs().max() < 1e-4


def test_proportional_rope_is_that_of_the_whole_head() -> None:
    positions = torch.arange(0, 200, 3)
    frequencies = [1e6 ** (-2 * i / 512) if i < 64 else 0.0 for i in range(256)]
    wanted = by_hand(positions, frequencies)
    for table in (REFERENCE.proportional_table, SOLVED["proportional_table"]):
        assert (table(positions, 512, 1e6, 0.25) - wanted).abs().max() < 1e-4


def test_the_references_sliding_layers_have_the_configs_base() -> None:
    """A rope_theta at the top of a config reaches full layers alone in transformers 5.24; the reference writes it out."""
    model = REFERENCE.build_olmo(Config(EXERCISES.OLMO))
    width, theta = EXERCISES.width_of(EXERCISES.OLMO), EXERCISES.OLMO["rope_theta"]
    plain = torch.tensor([theta ** (-2 * i / width) for i in range(width // 2)])
    torch.testing.assert_close(model.rotary_emb.sliding_attention_inv_freq, plain, rtol=1e-5, atol=0)
    stretched = torch.tensor(yarn_by_hand(width, theta, EXERCISES.OLMO["rope_scaling"]))
    torch.testing.assert_close(model.rotary_emb.full_attention_inv_freq, stretched, rtol=1e-5, atol=0)
    assert not torch.allclose(plain, stretched, rtol=0.05)


def test_to_pick_and_then_take_the_softmax_is_to_take_it_over_all_and_divide_by_the_sum() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    values, chosen = logits.topk(3, dim=-1)
    weights = logits.softmax(dim=-1).gather(1, chosen)
    torch.testing.assert_close(values.softmax(dim=-1), weights / weights.sum(dim=-1, keepdim=True))


# Bytes


CACHED = {
    "smollm3": (SmolLM3Model, EXERCISES.SMOL),
    "olmo3": (Olmo3Model, EXERCISES.OLMO),
    "gpt_oss": (GptOssModel, new_model_traces.MODELS["gpt-oss"][2]),
    "gemma4_text": (Gemma4TextModel, new_model_traces.MODELS["gemma-4"][2]),
}


@pytest.mark.parametrize("name", CACHED)
def test_bytes_are_those_of_transformers_cache_while_no_window_is_full(name: str) -> None:
    """A sliding layer of transformers' cache keeps one token less than its window: the next one completes it."""
    model_class, fields = CACHED[name]
    config = REFERENCE.reference_config(fields)
    cache, tokens = DynamicCache(config=config), 3
    with torch.no_grad():
        model_class(config)(torch.zeros(1, tokens, dtype=torch.long), cache=cache, output_hidden_states=True)
    held = sum(part.nbytes for layer in cache.layers if layer.keys is not None for part in (layer.keys, layer.values))
    assert SOLVED["cache_bytes"](Config(fields), tokens, 4) == held


@pytest.mark.parametrize("shared", [0, 1, 2])
@pytest.mark.parametrize("parts", [(3, 4, 6, 1, 1), (1,) * 9, (5, 3)])
def test_decoding_with_a_cache_is_one_pass_and_keeps_what_is_counted(parts: tuple[int, ...], shared: int) -> None:
    trace = read_trace(TEXTS / "gemma-4.safetensors")
    config = Config(trace.build["config"]).replace(num_kv_shared_layers=shared)
    torch.manual_seed(0)
    model, kept, done = SOLVED["GemmaModel"](config), dict[int, Any](), 0
    ids, outputs = torch.randint(config.vocab_size, (2, sum(parts))), []
    with torch.no_grad():
        for part in ids.split(parts, dim=1):
            outputs.append(SOLVED["decode"](model, part, kept, done))
            done += part.shape[1]
        torch.testing.assert_close(torch.cat(outputs, dim=1), model(ids), atol=1e-4, rtol=1e-4)
    held = sum(t.nbytes for pair in kept.values() for t in pair)
    assert held == 2 * SOLVED["cache_bytes"](config, done, 4)  # of two texts
    assert set(kept) == set(SOLVED["kv_source"](config))


def test_the_lessons_parameters_of_glm_are_transformers() -> None:
    glm = LESSON.config("glm-4.5-air")
    for config, wanted in ((glm, 106_852_245_504), (glm.replace(head_dim=None), 103_481_417_024)):
        made = hf.config(Glm4MoeConfig, config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made)
        assert sum(p.numel() for p in model.parameters()) == wanted
        assert SOLVED["glm_parameters"](config) == wanted


# Traces and configs


@pytest.mark.parametrize("name", new_model_traces.MODELS)
def test_a_trace_is_what_transformers_computes(name: str) -> None:
    stored, now = read_trace(TEXTS / f"{name}.safetensors"), new_model_traces.traced(name)
    assert stored.weights.keys() == now.weights.keys()
    assert all(torch.equal(stored.weights[key], now.weights[key]) for key in now.weights)
    assert [call.path for call in stored.calls] == [call.path for call in now.calls]
    torch.testing.assert_close(stored.output, now.output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "model"), [("smollm3", "SmolModel"), ("gpt-oss", "OssModel"), ("gemma-4", "GemmaModel")]
)
def test_the_lessons_models_are_right_layer_by_layer(name: str, model: str) -> None:
    compare_layers(SOLVED[model], read_trace(TEXTS / f"{name}.safetensors"))


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "configs").iterdir()), ids=lambda path: path.stem)
def test_configs_are_the_atlas(path: Path) -> None:
    """OLMo 3's has besides what its context was extended with."""
    known = json.loads((ATLAS / path.name).read_text(encoding="utf-8"))["config"]
    found = json.loads(path.read_text(encoding="utf-8"))
    more = {"max_position_embeddings", "rope_scaling"} if path.stem == "olmo-3-7b" else set()
    assert {k: v for k, v in found.items() if k not in more} == {k: v for k, v in known.items() if k not in more}


# The trained model


@pytest.fixture(scope="module")
def austen() -> Checkpoint:
    return load_checkpoint("austen-gptoss")


@pytest.fixture(scope="module")
def writer(austen: Checkpoint) -> Any:
    return AutoModelForCausalLM.from_pretrained(austen.folder, dtype=torch.float32, attn_implementation="eager")


def test_it_is_small_and_has_what_the_lesson_says(austen: Checkpoint) -> None:
    assert austen.source == "shipped"
    assert sum(path.stat().st_size for path in austen.folder.iterdir()) <= 5_000_000
    config = austen.config
    assert config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert (config.sliding_window, config.swiglu_limit, config.num_local_experts) == (24, 1.5, 8)
    assert sum(tensor.numel() for tensor in austen.state_dict().values()) == austen.entry.parameters
    assert max(len(golden.prompt_ids or ()) for golden in austen.goldens) > config.sliding_window


def test_no_token_of_its_texts_is_nearly_a_tie(austen: Checkpoint, writer: Any) -> None:
    """So rounding on another processor does not change them."""
    for golden in austen.goldens:
        prompt, new = golden.prompt_ids or (), golden.new_ids or ()
        with torch.no_grad():
            logits = writer(input_ids=torch.tensor([[*prompt, *new[:-1]]])).logits[0, len(prompt) - 1 :]
        assert logits.argmax(dim=-1).tolist() == list(new)
        best = logits.topk(2, dim=-1).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-3


def test_its_experts_reach_the_clamp(austen: Checkpoint) -> None:
    model = austen.build(SOLVED["OssLM"])
    ids = torch.tensor([austen.tokenizer.encode((TEXTS / "persuasion.txt").read_text(encoding="utf-8")).ids[:100]])
    with torch.no_grad():
        right = model(ids)
        for layer in model.model.layers:
            layer.mlp.experts.limit = 7.0
        assert (F.log_softmax(model(ids), -1) - F.log_softmax(right, -1)).abs().max() > 0.1
