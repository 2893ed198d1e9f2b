"""What Qwen3 alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Qwen3ForCausalLM

from grader import Config, GraderError, load_checkpoint
from grader.authoring.kit import agree
from grader.authoring.kit.declared import Change
from grader.authoring.kit.engine import Checkpoint, entry, examine_here, judge, probe, report, to_text
from grader.authoring.kit.solved import lesson_of, same_tokens_but_for_near_ties, written_by_transformers

LESSON = lesson_of(__file__)
OTHERS, EXERCISES = LESSON.others, LESSON.module("exercises")


def test_a_tied_head_is_recorded_once_and_must_be_tied() -> None:
    task, answer = LESSON.recorded("qwen3.causal_lm")
    assert ["lm_head.weight" in case.weights for case in task.cases] == [False, True, True]

    class Untied(LESSON.solutions["CausalLM"]):  # type: ignore[misc, name-defined]
        def __init__(self, config: Config) -> None:
            super().__init__(config.replace(tie_word_embeddings=False))

    verdict = judge(task, answer, probe(task, Untied))
    assert [case.right for case in verdict.cases] == [False, True, True]
    assert verdict.cases[0].finding is not None
    assert "`lm_head.weight` is not in the checkpoint" in " ".join(verdict.cases[0].finding.detail)


def test_the_table_stays_float32_in_bfloat16_cases_and_needs_no_gradient() -> None:
    task, answer = LESSON.recorded("qwen3.attention")
    x, table = task.cases[-1].args
    assert (x.dtype, table.dtype) == (torch.bfloat16, torch.float32)

    class WithFixedTable(OTHERS.AttentionSdpa):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return super().forward(x, table.detach())

    assert judge(task, answer, probe(task, WithFixedTable)).right


def test_a_tied_head_keeps_its_points_where_the_model_below_it_is_wrong() -> None:
    changed = LESSON.changed(Change("qwen3.rope_table", "1.0 / theta", "0.5 / theta"))
    verdict = examine_here(LESSON.recording, "qwen3.causal_lm", changed["CausalLM"])
    assert not verdict.right and verdict.points == verdict.max_points
    assert "Your code here is right. It fails because `model` is not" in to_text(report(verdict))


def test_the_chat_template_serves_smollm2_too() -> None:
    """Its template as its file has it: system, user and assistant, and a system message of its own."""
    from jinja2 import Environment

    smollm2 = (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    cell: dict[str, Any] = {"Any": Any, "chat_text": LESSON.solutions["chat_text"]}
    exec(LESSON.cell_with("def asked("), cell)
    rendered = Environment().from_string(smollm2).render(messages=cell["asked"]("Why?"), add_generation_prompt=True)
    assert cell["chat_text"](cell["asked"]("Why?", cell["SMOL"])) == rendered
    checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True)
    assert checkpoint is None or (checkpoint.folder / "chat_template.jinja").read_text() == smollm2


def test_the_template_is_the_one_that_trl_ships() -> None:
    """TRL has Qwen3's template as it is on the hub; from it comes what is right."""
    trl = pytest.importorskip("trl")
    shipped = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    if not shipped.exists():
        pytest.skip("this TRL has no chat templates")
    assert shipped.read_text(encoding="utf-8").strip() == LESSON.module("reference").TEMPLATE.strip()


def test_the_losses_of_shared_heads_are_those_of_the_training() -> None:
    """They come from the runs of training/shared_kv.py, which lesson 11 has whole."""
    whole = LESSON.folder.parent / "11-new-models" / "texts" / "shared-kv.json"
    if not whole.exists():
        pytest.skip("lesson 11 is not here")
    made, heads = json.loads(whole.read_text()), {"own": 2, "one head": 1}
    known = {(heads[r["variant"]], r["seed"]): r["nats_per_byte"] for r in made["runs"] if r["variant"] in heads}
    shown = json.loads((LESSON.folder / "texts" / "shared-heads.json").read_text())
    assert shown["config"] == made["config"]
    assert {(run["kv_heads"], run["seed"]): run["nats_per_byte"] for run in shown["runs"]} == known


def small_reference(tied: bool, kind: str) -> nn.Module:
    config = Config(EXERCISES.SMALL if kind == "qwen3" else EXERCISES.LLAMA).replace(tie_word_embeddings=tied)
    model = LESSON.exercises["qwen3.causal_lm"].reference(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize(("tied", "keep_copy"), [(True, False), (True, True), (False, False)])
def test_the_hubs_layout_loads_and_writes_what_transformers_does(
    tied: bool, kind: str, keep_copy: bool, tmp_path: Path
) -> None:
    """Sharded, in bfloat16, with or without the copy of a tied head that Qwen3-0.6B's file has."""
    from safetensors.torch import load_file, save_file

    model = small_reference(tied, kind).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="1GB" if keep_copy else "8KB")
    assert keep_copy == (tmp_path / "model.safetensors").exists()
    if keep_copy:
        state = load_file(tmp_path / "model.safetensors")
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
        save_file(state, tmp_path / "model.safetensors")
    known = replace(entry("qwen3-0.6b"), drop=("lm_head.weight",) if tied else ())
    checkpoint = Checkpoint(known, tmp_path, "hub")
    own = checkpoint.build(LESSON.solutions["CausalLM"])
    assert (own.lm_head.weight is own.model.embed_tokens.weight) == tied
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(theirs, Qwen3ForCausalLM | LlamaForCausalLM)
    ids = torch.randint(53, (1, 5))
    with torch.no_grad():
        assert agree(own(ids), theirs(input_ids=ids, use_cache=False).logits)
    own_tokens = list(LESSON.solutions["generate"](own, ids, 20))
    assert same_tokens_but_for_near_ties(own_tokens, written_by_transformers(theirs, ids, 20), theirs, ids)


def test_an_untied_model_does_not_take_a_tied_checkpoint(tmp_path: Path) -> None:
    small_reference(True, "qwen3").save_pretrained(tmp_path)
    checkpoint = Checkpoint(entry("qwen3-0.6b"), tmp_path, "hub")
    with pytest.raises(GraderError, match=r"lm_head\.weight"):
        checkpoint.load_into(LESSON.solutions["CausalLM"](checkpoint.config.replace(tie_word_embeddings=False)))
