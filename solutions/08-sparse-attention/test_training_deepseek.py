"""training/: a DeepSeek-V3.2 whose indexer learns, on a tiny one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import choices
import deepseek
import pytest
import selection
import torch
import torch.nn.functional as F
import train
from torch import Tensor, nn

RECIPE = Path(train.__file__).with_name("austen-deepseek.toml")
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "index_topk": 5,
    "index_n_heads": 3,
    "index_head_dim": 10,
    "max_position_embeddings": 24,
}
TOKENS = torch.randint(2, 40, (500,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stages() -> deepseek.Stages:
    """The shipped recipe's stages, a few steps of a tiny model each."""
    read = deepseek.Stages.read(RECIPE)
    few: dict[str, Any] = {
        "config": read.dense.config | TINY,
        "context": 24,
        "batch_size": 2,
        "steps": 4,
        "warmup_steps": 1,
    }
    return deepseek.Stages(*(replace(stage, **few) for stage in read.all))


@pytest.fixture
def model(stages: deepseek.Stages) -> Any:
    """A tiny model whose indexers have weights in every place, and whose attention counts, so that each part shows."""
    torch.manual_seed(1)
    made = train.build_model(stages.dense)
    for attention in selection.attentions_of(made):
        for weight in attention.indexer.parameters():
            nn.init.normal_(weight)
        nn.init.normal_(attention.o_proj.weight)
    return made


def ids(length: int = 24) -> Tensor:
    return TOKENS[: 2 * length].view(2, length)


def own_choices(model: Any, batch: Tensor) -> list[Tensor]:
    """What the reference's own indexers choose, by layer."""
    chosen: list[Tensor] = []
    for attention in selection.attentions_of(model):
        attention.indexer.register_forward_hook(lambda *given: chosen.append(given[2].long()))
    model(input_ids=batch)
    return chosen


def test_the_scores_with_a_gradient_choose_what_the_reference_chooses(model: Any) -> None:
    """By their scores, since two that are equal but for rounding may change places on another processor."""
    compared = []

    def choice(seen: selection.Seen) -> Tensor:
        scores = selection.index_scores(seen)
        assert scores.requires_grad
        visible = scores.masked_fill(~seen.visible, -torch.inf)
        compared.append((visible.topk(5).values, visible.gather(-1, theirs[seen.indexer.layer_idx])))
        return selection.best(scores, seen)

    theirs = own_choices(model, ids())
    with selection.choosing(model, choice):
        model(input_ids=ids())
    assert len(compared) == 2
    for mine, reference in compared:
        torch.testing.assert_close(reference.sort(descending=True).values, mine)


def test_the_indexers_own_choice_changes_nothing_and_every_other_one_does(model: Any) -> None:
    plain = model(input_ids=ids()).logits
    changed = {}
    for name in ("own", "every", "latest"):
        with selection.choosing(model, getattr(selection, name)):
            changed[name] = (model(input_ids=ids()).logits - plain).abs().max().item()
    assert changed["own"] < 1e-5 < 1e-4 < min(changed["every"], changed["latest"])
    torch.testing.assert_close(model(input_ids=ids()).logits, plain)  # the indexers are back in their place


def test_dense_is_what_a_top_k_of_the_whole_length_computes(model: Any) -> None:
    with selection.choosing(model, selection.every):
        dense = model(input_ids=ids()).logits
    for attention in selection.attentions_of(model):
        attention.indexer.index_topk = 24
    torch.testing.assert_close(model(input_ids=ids()).logits, dense)


def test_random_choices_are_visible_ones_and_repeat_with_their_seed(model: Any) -> None:
    seen: list[selection.Seen] = []
    with selection.choosing(model, choices.dense_noting(seen)):
        model(input_ids=ids())
    first, again, other = (selection.at_random(seed)(seen[0]) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert seen[0].visible.expand(2, -1, -1).gather(-1, first)[:, 4:].all()
    assert selection.latest(seen[0])[0, 20].sort().values.tolist() == [16, 17, 18, 19, 20]


def test_the_divergence_is_the_formulas_and_has_no_gradient_where_nothing_is_visible() -> None:
    generator = torch.Generator().manual_seed(0)
    visible = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    wanted = torch.rand(1, 6, 6, generator=generator).masked_fill(~visible, 0)
    wanted = wanted / wanted.sum(dim=-1, keepdim=True)
    scores = torch.randn(1, 6, 6, generator=generator, requires_grad=True)
    by_hand = [
        F.kl_div(scores[0, t, : t + 1].log_softmax(-1), wanted[0, t, : t + 1], reduction="sum") for t in range(6)
    ]
    found = selection.divergence(wanted, scores, visible)
    torch.testing.assert_close(found, torch.stack(by_hand).mean())
    found.backward()
    assert scores.grad is not None and scores.grad[~visible.expand_as(scores)].eq(0).all()
    assert selection.divergence(wanted, wanted.log(), visible).abs() < 1e-6


@pytest.mark.parametrize("sparse", [False, True])
def test_imitation_teaches_the_indexers_alone(model: Any, sparse: bool) -> None:
    _, apart = selection.imitation(model, ids(), sparse)
    apart.backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if ".indexer." in name}


def test_what_the_model_learns_does_not_reach_the_indexers(model: Any) -> None:
    output, _ = selection.imitation(model, ids(), sparse=True)
    output.logits.square().sum().backward()
    missed = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert missed == {name for name, _ in model.named_parameters() if ".indexer." in name}


def test_the_bias_of_an_expert_with_too_much_goes_down_and_gets_no_gradient(model: Any) -> None:
    gate = model.model.layers[1].mlp.gate
    with torch.no_grad():
        gate.e_score_correction_bias[3] = 5.0  # chosen by every token
    with deepseek.balancing(model) as move:
        model(input_ids=ids())
        before = gate.e_score_correction_bias.clone()
        move()
    moved = (gate.e_score_correction_bias - before) / deepseek.BIAS_STEP
    assert moved[3] == -1 and moved.abs().max() == 1 and moved.max() == 1
    assert "e_score_correction_bias" not in dict(gate.named_parameters())


def test_an_interrupted_training_ends_as_one_that_was_not(
    stages: deepseek.Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    whole = deepseek.train_all(stages, TOKENS, tmp_path / "whole").state_dict()

    imitation, calls = selection.imitation, list[bool]()

    def failing(model: Any, batch: Tensor, sparse: bool) -> Any:
        calls.append(sparse)
        if len(calls) == 7:  # in the third step of the last stage
            raise KeyboardInterrupt
        return imitation(model, batch, sparse)

    monkeypatch.setattr(selection, "imitation", failing)
    with pytest.raises(KeyboardInterrupt):
        deepseek.train_all(stages, TOKENS, tmp_path / "stopped")
    with pytest.raises(FileNotFoundError, match="has 2 of 4 steps"):
        deepseek.after_stage(stages, tmp_path / "stopped", 2)
    resumed = deepseek.train_all(stages, TOKENS, tmp_path / "stopped").state_dict()
    assert calls == [False] * 4 + [True] * 3 + [True] * 2
    torch.testing.assert_close(resumed, whole)


def test_a_recipe_without_a_stage_and_one_for_the_other_script_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.toml"
    short.write_text(RECIPE.read_text(encoding="utf-8").replace("[sparse]", "[spare]"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"short.toml has no \[sparse\]"):
        deepseek.Stages.read(short)
    monkeypatch.setattr("sys.argv", ["train.py", str(RECIPE)])
    with pytest.raises(SystemExit):
        train.main()
    assert "Run: python training/deepseek.py" in capsys.readouterr().err


def test_each_stage_changes_what_it_is_to(stages: deepseek.Stages, tmp_path: Path) -> None:
    deepseek.train_all(stages, TOKENS, tmp_path)
    torch.manual_seed(stages.dense.seed)
    made = train.build_model(stages.dense).state_dict()
    dense, warm, sparse = (
        torch.load(stages.folder(tmp_path, number) / "latest.pt", weights_only=True)["model"] for number in range(3)
    )

    def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
        return {name for name in before if not torch.equal(before[name], after[name])}

    indexers = {name for name in made if ".indexer." in name}
    assert changed(made, dense) == made.keys() - indexers
    assert changed(dense, warm) == indexers
    assert changed(warm, sparse) >= made.keys() - {name for name in made if "bias" in name}


def test_warming_up_brings_the_indexers_nearer_to_the_attention(
    model: Any, stages: deepseek.Stages, tmp_path: Path
) -> None:
    before = selection.imitation(model, ids(), sparse=False)[1].item()
    longer = replace(stages.warm_up, steps=40, learning_rate=1e-2)
    deepseek.warm_up(longer, model, TOKENS, tmp_path)
    assert selection.imitation(model, ids(), sparse=False)[1].item() < 0.7 * before


def test_what_is_measured(model: Any, stages: deepseek.Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "STRIDE", 12)
    monkeypatch.setattr(choices, "PIECES", 3)
    made = choices.choices_for(train.build_model(stages.dense))
    found = choices.losses_of(model, made, TOKENS[:100])
    assert found.keys() == {"dense", "indexer", "latest", "random", "untrained indexer"}
    assert len(set(found.values())) == 5 and found == choices.losses_of(model, made, TOKENS[:100])
    assert found["indexer"] == round(train.held_out_loss(model, TOKENS[:100], 24, 12), 4)
    monkeypatch.setattr(choices, "FEWER", (2, 5))
    fewer = choices.losses_with_fewer(model, made, TOKENS[:100])
    assert fewer[5] == {name: found[name] for name in ("indexer", "latest", "random")}
    assert fewer[2]["indexer"] != fewer[5]["indexer"] and model.model.layers[1].self_attn.indexer.index_topk == 5
    read = choices.readings(model, made, TOKENS[:100])
    assert read.keys() == found.keys() and len({of["read again"] for of in read.values()}) == 5
    kept = choices.attention_kept(model, made, TOKENS[:100])
    assert kept.keys() == found.keys() - {"dense"} | {"most"}
    for of in kept.values():
        assert all(0 < share <= most < 1 for share, most in zip(of, kept["most"], strict=True))
