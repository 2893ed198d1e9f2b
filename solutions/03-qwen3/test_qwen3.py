"""What Qwen3 alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

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


def test_the_chat_template_by_hand_is_the_models_own() -> None:
    """SmolLM2's template as its file has it; of Qwen3's the part that a first question uses."""
    from jinja2 import Environment

    smollm2 = (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    qwen3 = (
        "{%- for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- endif %}{%- endif %}"
    )
    cell: dict[str, Any] = {}
    exec(LESSON.cell_with("def chat_prompt("), cell)
    by_hand, question = cell["chat_prompt"], [{"role": "user", "content": "Why?"}]

    def rendered(template: str, **settings: bool) -> str:
        return Environment().from_string(template).render(messages=question, add_generation_prompt=True, **settings)

    assert by_hand("Why?", cell["SMOL"]) == rendered(smollm2)
    assert by_hand("Why?") == rendered(qwen3) == rendered(qwen3, enable_thinking=True)
    assert by_hand("Why?", thinking=False) == rendered(qwen3, enable_thinking=False)
    checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True)
    assert checkpoint is None or (checkpoint.folder / "chat_template.jinja").read_text() == smollm2


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
