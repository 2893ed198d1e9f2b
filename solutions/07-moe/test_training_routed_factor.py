"""training/routed_factor.py: its mixture by hand, and what it writes, in small."""

import json
from pathlib import Path

import balance
import pytest
import routed_factor
import torch
import torch.nn.functional as F
from routers import SigmoidMoE

WRITTEN = Path(__file__).parent / "texts" / "routed-factor.json"


def test_the_routed_sum_is_multiplied_and_the_shared_expert_is_not() -> None:
    torch.manual_seed(0)
    layer, x = routed_factor.SharedMoE(2.5), torch.randn(5, balance.DIM)
    routed = SigmoidMoE()
    routed.load_state_dict(layer.state_dict(), strict=False)
    gate, up = F.linear(x, layer.shared_gate_up).chunk(2, dim=-1)
    shared = F.linear(F.silu(gate) * up, layer.shared_down)
    torch.testing.assert_close(layer(x), 2.5 * routed(x) + shared, atol=1e-6, rtol=1e-4)


def test_models_with_the_same_seed_begin_with_the_same_weights() -> None:
    states = []
    for factor in routed_factor.FACTORS:
        torch.manual_seed(3)
        states.append(routed_factor.SharedMoE(factor).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_all_seeds_of_both_are_written() -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    assert set(written["runs"]) == {f"{factor:g}" for factor in routed_factor.FACTORS}
    for runs in written["runs"].values():
        assert [len(run["held_out_nats"]) for run in runs] == [len(written["steps"])] * len(routed_factor.SEEDS)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "STEPS", 6)
    monkeypatch.setattr(balance, "EVERY", 3)
    monkeypatch.setattr(balance, "WARMUP", 3)
    monkeypatch.setattr(routed_factor, "SEEDS", (0,))
    output = tmp_path / "routed-factor.json"
    routed_factor.main(["--output", str(output)])
    whole = json.loads(output.read_text())
    assert [len(runs) for runs in whole["runs"].values()] == [1, 1]
    cut = json.loads(output.read_text())
    cut["runs"]["2.5"] = []
    output.write_text(json.dumps(cut))
    routed_factor.main(["--output", str(output)])
    again = json.loads(output.read_text())["runs"]
    assert again["1"] == whole["runs"]["1"]
    assert again["2.5"][0]["held_out_nats"] == pytest.approx(whole["runs"]["2.5"][0]["held_out_nats"], abs=1e-3)
