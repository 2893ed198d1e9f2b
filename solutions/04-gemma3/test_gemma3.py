"""What Gemma 3 alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM

from grader import Config, GraderError, load_checkpoint
from grader.authoring.kit import agree
from grader.authoring.kit.engine import Checkpoint, entry, layer_report
from grader.authoring.kit.solved import (
    encoded,
    lesson_at,
    lesson_of,
    same_tokens_but_for_near_ties,
    written_by_transformers,
)

LESSON = lesson_of(__file__)
OTHERS, EXERCISES, REFERENCE = LESSON.others, LESSON.module("exercises"), LESSON.module("reference")
SLIDING, FULL = OTHERS.SLIDING, OTHERS.FULL


@pytest.mark.parametrize("layers", [1, 5, 6, 7, 18, 62])
@pytest.mark.parametrize("pattern", [None, 2, 6])
def test_the_kinds_of_layers_are_those_of_transformers(layers: int, pattern: int | None) -> None:
    fields = {"num_hidden_layers": layers} | ({} if pattern is None else {"sliding_window_pattern": pattern})
    theirs = REFERENCE.reference_config({k: v for k, v in small().items() if k != "layer_types"} | fields)
    assert LESSON.solutions["layer_types"](Config(fields)) == theirs.layer_types
    assert LESSON.solutions["layer_types"](Config({"layer_types": [FULL], **fields})) == [FULL]


def small() -> dict[str, Any]:
    config: dict[str, Any] = EXERCISES.SMALL
    return config


def test_the_lesson_knows_the_talks_side_note() -> None:
    mistakes = [mistake.name for exercise in LESSON.exercises.values() for mistake in exercise.mistakes]
    assert "the weight is taken as the scale: x / rms · w" in mistakes


def test_the_layer_comparison_sees_every_wrong_program_of_the_lessons_table() -> None:
    """What the notebook says of its table of effects: its cells are run, and each of its changes compared."""
    cells = LESSON.solutions  # not a copy: some changes are made to what the model's own globals are
    for text in ("def scale_alone(", "def only_before(", "def one_theta(", "WRONG = {"):
        exec(LESSON.cell_with(text), cells)
    model, recorded = cells["CausalLM"], LESSON.trace
    assert len(cells["WRONG"]) == 12 and not cells["WRONG"].pop("nothing").makers
    for name, change in cells["WRONG"].items():
        with change:
            assert not layer_report(model, recorded).ok, name
    assert layer_report(model, recorded).ok


@pytest.mark.parametrize(
    ("wrong", "part", "reason"),
    [
        (OTHERS.ModelWithTheHubsThetas, "model", "`model.layers.0` needs another `table`"),
        (OTHERS.ModelWithAWindowOf512, "model", "`model.layers.0` needs another `mask`"),
    ],
)
def test_a_wrong_theta_or_window_is_found_where_it_does_harm(wrong: Any, part: str, reason: str) -> None:
    class WithAnotherBody(OTHERS.HeadWithoutModule):  # type: ignore[misc, name-defined]
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.model = wrong(config)

    culprit = layer_report(WithAnotherBody, LESSON.trace).culprit
    assert culprit is not None and culprit.path == part
    assert reason in " ".join(culprit.reasons)


def test_the_qwen3_program_is_told_which_weights_it_has_no_place_for() -> None:
    checkpoint = load_checkpoint("austen-gemma3")
    theta = checkpoint.config.rope_parameters[FULL]["rope_theta"]
    as_qwen3 = checkpoint.config.replace(
        model_type="qwen3", tie_word_embeddings=True, rope_parameters={"rope_theta": theta}
    )
    with pytest.raises(GraderError) as refused:
        checkpoint.load_into(lesson_at(LESSON.folder.parent / "03-qwen3").solutions["CausalLM"](as_qwen3))
    assert "pre_feedforward_layernorm" in str(refused.value) and "post_feedforward_layernorm" in str(refused.value)


def test_the_lessons_config_of_270m_is_that_of_the_packaged_model() -> None:
    packaged = load_checkpoint("gemma-3-270m", optional=True)
    if packaged is None:
        pytest.skip("not on this machine: grader weights get gemma-3-270m")
    own = LESSON.config("gemma-3-270m")
    thetas = {FULL: own.rope_theta, SLIDING: own.rope_local_base_freq}
    assert {kind: rope["rope_theta"] for kind, rope in packaged.config.rope_parameters.items()} == thetas
    told_otherwise = {"_sliding_window_pattern", "rope_theta", "rope_local_base_freq", "rope_scaling", "torch_dtype"}
    for field in set(own) - told_otherwise - {"transformers_version"}:
        assert packaged.config[field] == own[field], field


def test_the_chat_template_by_hand_makes_the_talks_prompt() -> None:
    cell: dict[str, Any] = {}
    exec(LESSON.cell_with("def chat_prompt("), cell)
    asked = cell["chat_prompt"]("Give me a short introduction to large language models.")
    golden = entry("gemma-3-270m-it").goldens[0]
    assert asked == golden.prompt
    assert golden.text is not None and len(golden.text) == 233
    assert entry("gemma-3-270m-it").gated


def small_reference(tied: bool, dtype: torch.dtype) -> Any:
    model = LESSON.exercises["gemma3.causal_lm"].reference(Config(small() | {"tie_word_embeddings": tied}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


@pytest.mark.parametrize(("tied", "sharded"), [(True, False), (True, True), (False, True)])
def test_the_hubs_layout_loads_and_writes_what_transformers_does(tied: bool, sharded: bool, tmp_path: Path) -> None:
    small_reference(tied, torch.bfloat16).save_pretrained(tmp_path, max_shard_size="8KB" if sharded else "1GB")
    assert sharded == (tmp_path / "model.safetensors.index.json").exists()
    checkpoint = Checkpoint(replace(entry("gemma-3-270m-it")), tmp_path, "hub")
    own = checkpoint.build(LESSON.solutions["CausalLM"])
    assert (own.lm_head.weight is own.model.embed_tokens.weight) == tied
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(theirs, Gemma3ForCausalLM)
    ids = torch.randint(53, (1, 7))
    with torch.no_grad():
        assert agree(own(ids), theirs(input_ids=ids, use_cache=False).logits)
    own_tokens = list(LESSON.solutions["generate"](own, ids, 20))
    assert same_tokens_but_for_near_ties(own_tokens, written_by_transformers(theirs, ids, 20), theirs, ids)


def test_a_bfloat16_model_agrees_with_transformers_too(tmp_path: Path) -> None:
    small_reference(True, torch.bfloat16).save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager").eval()
    own = LESSON.solutions["CausalLM"](Config.read(tmp_path / "config.json")).to(torch.bfloat16).eval()
    state = theirs.state_dict()
    own.load_state_dict({name: state[name] for name in own.state_dict()})
    ids = torch.randint(53, (2, 9))
    with torch.no_grad():
        assert agree(own(ids), theirs(input_ids=ids, use_cache=False).logits)


def test_a_checkpoint_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    small_reference(True, torch.float32).save_pretrained(tmp_path)
    checkpoint = Checkpoint(entry("gemma-3-270m-it"), tmp_path, "hub")
    with pytest.raises(GraderError, match=r"self_attn\.k_proj"):
        checkpoint.load_into(LESSON.solutions["CausalLM"](checkpoint.config.replace(num_key_value_heads=1)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "beyond"), [("austen-gemma3", 200), ("gemma-3-270m", 540)])
def test_a_prompt_longer_than_the_window_is_continued_as_by_transformers(name: str, beyond: int) -> None:
    checkpoint, model, theirs = LESSON.trained("CausalLM", name)
    ids = encoded(checkpoint, (LESSON.folder.parents[1] / "LICENSE").read_text(encoding="utf-8"))[:, :beyond]
    assert ids.shape[1] == beyond > checkpoint.config.sliding_window
    reference = written_by_transformers(theirs, ids, 3)
    text = torch.cat([ids, torch.tensor([reference[:-1]])], dim=1)
    with torch.no_grad():
        logits, wanted = model(text)[0], theirs(input_ids=text, use_cache=False).logits[0]
    for ours, right in zip(logits.split(60), wanted.split(60), strict=True):  # in pieces: a row has 262,144 numbers
        assert agree(ours, right)
    own = [*LESSON.solutions["generate"](model, ids, 1), *logits[beyond:].argmax(-1).tolist()]
    assert same_tokens_but_for_near_ties(own, reference, theirs, ids)
