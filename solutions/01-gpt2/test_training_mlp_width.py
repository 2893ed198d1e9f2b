"""training/mlp_width.py: its models have the same size, and what it writes, in small."""

import json
from pathlib import Path

import mlp_width
import pytest

WRITTEN = Path(__file__).parent / "texts" / "mlp-width.json"


def test_the_models_have_the_same_number_of_parameters_and_the_widths_that_are_written() -> None:
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))["models"]
    assert [int(factor) for factor in written] == list(mlp_width.WIDTHS)
    sizes = {}
    for factor, width in mlp_width.WIDTHS.items():
        model = mlp_width.model_of(factor)
        sizes[factor] = sum(p.numel() for p in model.parameters())
        about = written[str(factor)]
        assert about["parameters"] == sizes[factor] and about["width"] == width
        assert model.get_parameter("h.0.mlp.c_fc.weight").shape == (width, factor * width)
        assert len(about["curves"]) == len(about["held_out_nats"]) == len(mlp_width.SEEDS)
    assert max(sizes.values()) < 1.04 * min(sizes.values())


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp_width, "STEPS", 6)
    monkeypatch.setattr(mlp_width, "EVERY", 3)
    monkeypatch.setattr(mlp_width, "PIECES", 2)
    monkeypatch.setattr(mlp_width.one_change, "EVERY", 3)
    monkeypatch.setattr(mlp_width.one_change, "WARMUP", 3)
    monkeypatch.setattr(mlp_width, "SEEDS", (0,))
    monkeypatch.setattr(mlp_width, "WIDTHS", {1: 16, 2: 12})
    output = tmp_path / "mlp-width.json"
    mlp_width.main(["--output", str(output)])
    whole = json.loads(output.read_text())
    assert [len(about["curves"][0]) for about in whole["models"].values()] == [3, 3]
    cut = json.loads(output.read_text())
    cut["models"]["2"] |= {"curves": [], "held_out_nats": []}
    output.write_text(json.dumps(cut))
    mlp_width.main(["--output", str(output)])
    again = json.loads(output.read_text())["models"]
    assert again["1"] == whole["models"]["1"]
    assert again["2"]["held_out_nats"] == pytest.approx(whole["models"]["2"]["held_out_nats"], abs=1e-3)
