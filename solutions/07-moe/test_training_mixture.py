"""training/mixture.py: its experts by hand, what it counts, and what it writes, in small."""

import json
from pathlib import Path

import mixture
import pytest
import torch
import torch.nn.functional as F
from torch import nn

WRITTEN = Path(__file__).parent / "texts" / "mixture.json"


def test_a_token_gets_the_two_experts_with_the_highest_scores() -> None:
    torch.manual_seed(0)
    layer, x = mixture.Mixture(), torch.randn(2, 5, mixture.DIM)
    expected = torch.zeros_like(x)
    for row, place in ((row, place) for row in range(2) for place in range(5)):
        scores = layer.router(x[row, place]).softmax(dim=-1).tolist()
        best = sorted(range(mixture.EXPERTS), key=lambda e: -scores[e])[: mixture.CHOSEN]
        for e in best:
            weight = scores[e] / sum(scores[other] for other in best)
            expected[row, place] += weight * layer.experts[e](x[row, place])
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_the_loss_for_unequal_load_is_least_where_the_load_is_equal() -> None:
    layer = mixture.Mixture()
    nn.init.zeros_(layer.router.weight)  # all scores equal
    layer(torch.randn(2, 5, mixture.DIM))
    assert layer.unequal.item() == pytest.approx(mixture.CHOSEN)


def test_the_counts_that_are_written_are_those_of_the_models() -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    for variant in mixture.VARIANTS:
        model = mixture.Tiny(mixture.VOCABULARY, variant)
        assert written["mlps"][variant] == mixture.parameters_and_work(model)
        assert [len(run) for run in written["held_out_nats"][variant]] == [len(written["steps"])] * len(mixture.SEEDS)
        ids = torch.randint(mixture.VOCABULARY, (1, 8))
        F.cross_entropy(model(ids)[0], ids[0]).backward()  # type: ignore[no-untyped-call]
    same_work, mixed, same_size = (written["mlps"][variant] for variant in mixture.VARIANTS)
    router = mixture.LAYERS * mixture.DIM * mixture.EXPERTS
    assert mixed["multiply_adds"] == same_work["multiply_adds"] + router
    assert mixed["parameters"] == same_size["parameters"] + router


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "STEPS", 6)
    monkeypatch.setattr(mixture, "EVERY", 3)
    monkeypatch.setattr(mixture.one_change, "EVERY", 3)
    monkeypatch.setattr(mixture.one_change, "WARMUP", 3)
    monkeypatch.setattr(mixture, "SEEDS", (0,))
    output = tmp_path / "mixture.json"
    mixture.main(["--output", str(output)])
    whole = json.loads(output.read_text())
    assert [len(runs) for runs in whole["held_out_nats"].values()] == [1, 1, 1]
    cut = json.loads(output.read_text())
    cut["held_out_nats"]["mixture"] = []
    output.write_text(json.dumps(cut))
    mixture.main(["--output", str(output)])
    again = json.loads(output.read_text())["held_out_nats"]
    assert again["mixture"][0] == pytest.approx(whole["held_out_nats"]["mixture"][0], abs=1e-4)
    assert again["dense"] == whole["held_out_nats"]["dense"]
