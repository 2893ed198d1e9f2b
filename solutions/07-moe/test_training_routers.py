"""training/routers.py: its sigmoid by hand, and what it writes, in small."""

import json
from pathlib import Path

import balance
import pytest
import routers
import torch
import torch.nn.functional as F

WRITTEN = Path(__file__).parent / "texts" / "routers.json"


def test_a_token_gets_the_experts_with_the_highest_sigmoids() -> None:
    torch.manual_seed(0)
    layer, x = routers.SigmoidMoE(), torch.randn(5, balance.DIM)
    expected = torch.zeros_like(x)
    for row, token in enumerate(x):
        scores = (layer.router @ token).sigmoid()
        best = scores.topk(balance.CHOSEN).indices.tolist()
        for e in best:
            gate, up = (layer.gate_up[e] @ token).chunk(2)
            expected[row] += scores[e] / scores[best].sum() * (layer.down[e] @ (F.silu(gate) * up))
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-4)


def test_the_loss_for_unequal_load_is_least_where_the_load_is_equal() -> None:
    layer = routers.SigmoidMoE()
    torch.nn.init.zeros_(layer.router)  # all scores equal
    layer(torch.randn(6, balance.DIM))
    assert layer.unequal.item() == pytest.approx(1.0)


def test_all_seeds_of_both_are_written() -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    assert set(written["runs"]) == set(routers.VARIANTS) and written["experts"] == balance.EXPERTS
    for runs in written["runs"].values():
        assert [len(run["held_out_nats"]) for run in runs] == [len(written["steps"])] * len(routers.SEEDS)
        for layer in (layer for run in runs for layer in run["shares"]):
            assert sum(layer) == pytest.approx(1.0, abs=1e-3)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "STEPS", 6)
    monkeypatch.setattr(balance, "EVERY", 3)
    monkeypatch.setattr(balance, "WARMUP", 3)
    monkeypatch.setattr(routers, "SEEDS", (0,))
    output = tmp_path / "routers.json"
    routers.main(["--output", str(output)])
    whole = json.loads(output.read_text())
    assert [len(runs) for runs in whole["runs"].values()] == [1, 1]
    cut = json.loads(output.read_text())
    cut["runs"]["sigmoid"] = []
    output.write_text(json.dumps(cut))
    routers.main(["--output", str(output)])
    again = json.loads(output.read_text())["runs"]
    nats = (runs["sigmoid"][0]["held_out_nats"] for runs in (again, whole["runs"]))
    assert next(nats) == pytest.approx(next(nats), abs=1e-3)
    assert again["softmax"] == whole["runs"]["softmax"]
