"""training/shared_kv.py: where its models have keys and values from, and what it writes, in small."""

import json
from pathlib import Path

import pytest
import shared_kv
import torch

WRITTEN = Path(__file__).parent / "texts" / "shared-kv.json"


@pytest.mark.parametrize("variant", shared_kv.VARIANTS)
def test_no_byte_sees_a_later_one(variant: str) -> None:
    torch.manual_seed(0)
    model = shared_kv.Tiny(**shared_kv.VARIANTS[variant])
    ids = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 12:] = ids[:, 12:].flip(0)
    with torch.no_grad():
        before, after = model(ids), model(other)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert (before[:, 12:] - after[:, 12:]).abs().max() > 1e-6


def test_the_last_layers_read_the_keys_of_the_last_that_has_some() -> None:
    torch.manual_seed(0)
    model = shared_kv.Tiny(**shared_kv.VARIANTS["both"])
    assert [hasattr(attention, "k") for attention in model.attentions] == [True, True, False, False]
    assert all(attention.v is None for attention in model.attentions[:2])
    x, table = torch.randn(1, 5, shared_kv.DIM), shared_kv.rotations(5)
    with torch.no_grad():
        _, kv = model.attentions[1](x, table)
        _, read = model.attentions[3](x, table, kv)
    assert read is kv and not torch.allclose(kv[0], kv[1])


def test_models_differ_in_keys_and_values_alone() -> None:
    sizes = {
        name: sum(p.numel() for p in shared_kv.Tiny(**made).parameters() if p.requires_grad)
        for name, made in shared_kv.VARIANTS.items()
    }
    matrix = shared_kv.DIM * 2 * shared_kv.HEAD_DIM  # of two heads of keys, or of values
    assert sizes["own"] - sizes["k = v"] == 4 * matrix
    assert sizes["own"] - sizes["one head"] == 4 * matrix
    assert sizes["own"] - sizes["two of four layers share"] == 4 * matrix + 2 * shared_kv.HEAD_DIM
    assert {name: shared_kv.kept(name) for name in sizes} == {
        "own": 256,
        "one head": 128,
        "two of four layers share": 128,
        "k = v": 256,
        "both": 128,
    }


def test_it_writes_every_run_and_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 3, "WARMUP": 2, "BATCH": 2, "CONTEXT": 16, "SEEDS": (0, 1), "MEASURED": 4}.items():
        monkeypatch.setattr(shared_kv, name, value)
    monkeypatch.setattr(shared_kv, "read_novel", lambda name: "It is a truth universally acknowledged. " * 4)
    output, run, made = tmp_path / "texts" / "shared-kv.json", shared_kv.run, list[tuple[str, int]]()
    monkeypatch.setattr("sys.argv", ["shared_kv.py", "--output", str(output)])

    def stops_at_the_fourth(variant: str, seed: int, *texts: torch.Tensor) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((variant, seed))
        return run(variant, seed, *texts)

    monkeypatch.setattr(shared_kv, "run", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        shared_kv.main()
    first = json.loads(output.read_text(encoding="utf-8"))["runs"]
    monkeypatch.setattr(shared_kv, "run", run)
    shared_kv.main()
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["runs"][:3] == first and len(content["runs"]) == 2 * len(shared_kv.VARIANTS)
    monkeypatch.setattr(shared_kv, "STEPS", 4)
    assert shared_kv.found_in(output) == []  # another config: none of these runs is its own


def test_the_lessons_runs_are_of_this_script() -> None:
    content = json.loads(WRITTEN.read_text(encoding="utf-8"))
    assert content["config"] == shared_kv.config()
    assert {(run["variant"], run["seed"]) for run in content["runs"]} == {
        (variant, seed) for variant in shared_kv.VARIANTS for seed in shared_kv.SEEDS
    }
    assert all(run["kept"] == shared_kv.kept(run["variant"]) for run in content["runs"])
