"""training/recall.py: its texts, its rules against the reference and by hand, and what it writes, in small."""

import json
from pathlib import Path

import pytest
import recall
import torch
from torch import Tensor, nn
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

TEXTS = Path(__file__).parent / "texts"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_inputs(length: int = 9) -> list[Tensor]:
    """q, k, v with unit queries and keys, log decay and beta, as a mixer gives them to its rule, in float64."""
    q, k, v = torch.randn(3, 2, recall.HEADS, length, recall.HEAD_DIM, generator=generator(), dtype=torch.float64)
    decay, beta = torch.rand(2, 2, recall.HEADS, length, generator=generator(1), dtype=torch.float64)
    return [nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1), v, -decay, beta]


@pytest.mark.parametrize("again", [False, True])
def test_a_text_asks_for_each_of_its_keys_once_and_wants_the_value_that_it_told_last(again: bool) -> None:
    ids, wanted = recall.texts(8, again, 20, generator())
    asked = 4 if again else 8
    assert ids.shape == (20, 16 + asked) and wanted.shape == (20, asked)
    for row, values in zip(ids.tolist(), wanted.tolist(), strict=True):
        told = dict(zip(row[:16:2], row[1:16:2], strict=True))
        assert len(told) == asked and max(told) < recall.KEYS <= min(told.values())
        assert set(row[: 2 * asked : 2]) == set(told)
        assert sorted(row[16:]) == sorted(told) and [told[key] for key in row[16:]] == values
    assert torch.equal(ids, recall.texts(8, again, 20, generator())[0])


def test_the_gated_delta_rule_is_the_references() -> None:
    q, k, v, decay, beta = (each.float() for each in random_inputs())
    expected, _ = torch_recurrent_gated_delta_rule(
        *(each.transpose(1, 2) for each in (q, k, v)), g=decay.transpose(1, 2), beta=beta.transpose(1, 2)
    )
    found = recall.gated_delta_rule(q, k, v, decay, beta) * recall.HEAD_DIM**-0.5  # the reference scales its queries
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_each_state_is_what_a_loop_over_its_tokens_gives() -> None:
    q, k, v, decay, beta = random_inputs()
    summed = torch.zeros(2, recall.HEADS, recall.HEAD_DIM, recall.HEAD_DIM, dtype=torch.float64)
    corrected = summed.clone()
    for t in range(q.shape[2]):
        key, value, query = (each[:, :, t, :, None] for each in (k, v, q))
        summed = summed + value @ key.mT
        corrected = decay[:, :, t, None, None].exp() * corrected
        corrected = corrected + beta[:, :, t, None, None] * (value - corrected @ key) @ key.mT
        for rule, state in ((recall.plain_sum, summed), (recall.gated_delta_rule, corrected)):
            torch.testing.assert_close(rule(q, k, v, decay, beta)[:, :, t], (state @ query)[..., 0])


@pytest.mark.parametrize("rules", [*recall.VARIANTS.values(), *recall.RATIOS.values()], ids="-".join)
def test_no_token_sees_a_later_one(rules: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = recall.Tiny(rules)
    ids, _ = recall.texts(6, False, 2, generator())
    other = ids.clone()
    other[:, 10:] = ids[:, 10:].flip(0)
    with torch.no_grad():
        before, after = model(ids), model(other)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert (before[:, 10:] - after[:, 10:]).abs().max() > 1e-6


@pytest.mark.parametrize("again", [False, True])
def test_accuracy_is_the_share_of_values_that_are_said(again: bool) -> None:
    class Looks(nn.Module):
        """It says the value that was told last after the key; for every key below `lost` it says another."""

        def __init__(self, lost: int) -> None:
            super().__init__()
            self.lost = lost

        def forward(self, ids: Tensor) -> Tensor:
            told = ids[:, :16].view(-1, 8, 2).flip(1)
            place = (ids[:, :, None] == told[:, None, :, 0]).int().argmax(dim=-1)
            value = told[..., 1].gather(1, place) + (ids < self.lost).int()
            return nn.functional.one_hot(value, recall.KEYS + recall.VALUES + 1).float()

    assert recall.accuracy(Looks(0), 8, again) == 1.0
    assert recall.accuracy(Looks(recall.KEYS), 8, again) == 0.0
    assert recall.accuracy(Looks(recall.KEYS // 2), 8, again) == pytest.approx(0.5, abs=0.05)


def test_what_layers_keep_grows_with_the_text_where_attention_is_full() -> None:
    state, cache = recall.HEADS * recall.HEAD_DIM**2, 2 * recall.HEADS * recall.HEAD_DIM
    assert [recall.kept(("delta", "sum"), pairs) for pairs in (4, 64)] == [2 * state, 2 * state]
    assert recall.kept(("delta", "full"), 8) == state + 16 * cache


def test_it_writes_every_run_and_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"WARMUP": 2, "PAIRS": (2, 4), "ASKED": 30, "MEASURED_TOKENS": 36}
    for name, value in small.items():
        monkeypatch.setattr(recall, name, value)
    monkeypatch.setitem(recall.EXPERIMENTS, "ratios", recall.Experiment(recall.RATIOS, 4, 36, (0, 1)))
    output, run, made = tmp_path / "texts" / "ratios.json", recall.run, list[tuple[str, int]]()
    monkeypatch.setattr("sys.argv", ["recall.py", "ratios", "--output", str(output)])

    def notes(experiment: recall.Experiment, variant: str, seed: int) -> object:
        made.append((variant, seed))
        return run(experiment, variant, seed)

    def stops_at_the_fourth(experiment: recall.Experiment, variant: str, seed: int) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        return notes(experiment, variant, seed)

    monkeypatch.setattr(recall, "run", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        recall.main()
    first = json.loads(output.read_text(encoding="utf-8"))["runs"]
    monkeypatch.setattr(recall, "run", notes)
    recall.main()
    assert len(made) == len(set(made)) == 2 * len(recall.RATIOS)
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["runs"][:3] == first and content["pairs"] == [2, 4]
    again = run(recall.EXPERIMENTS["ratios"], *made[0])
    assert {**again, "seconds": 0} == {**first[0], "seconds": 0}
    monkeypatch.setitem(recall.EXPERIMENTS, "ratios", recall.Experiment(recall.RATIOS, 5, 36, (0, 1)))
    recall.main()  # another config: none of these runs is its own
    assert len(made) == 4 * len(recall.RATIOS)


@pytest.mark.parametrize("name", recall.EXPERIMENTS)
def test_the_lessons_runs_are_of_this_script(name: str) -> None:
    experiment = recall.EXPERIMENTS[name]
    content = json.loads((TEXTS / f"{name}.json").read_text(encoding="utf-8"))
    assert content["config"] == recall.config(experiment) and content["pairs"] == list(recall.PAIRS)
    assert {(run["variant"], run["seed"]) for run in content["runs"]} == {
        (variant, seed) for variant in experiment.variants for seed in experiment.seeds
    }
    for run in content["runs"]:
        assert run["kept"] == [recall.kept(experiment.variants[run["variant"]], pairs) for pairs in recall.PAIRS]
