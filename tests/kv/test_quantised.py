"""The size of a quantised cache: against tensors that hold what is counted, and against the unquantised count."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from grader import Config, GraderError
from grader.cli import app
from grader.kv import Quantised, bytes_at, known_model, quantised_bytes_at, quantised_bytes_per_token

LLAMA = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 40,
    "vocab_size": 50,
    "intermediate_size": 64,
}
EXTRAS = {"token": 1, "group": 4, "turboquant": 1, "turboquant-product": 2}  # for vectors of 40 numbers


def held(tokens: int, bits: int, extras: int) -> int:
    """The bytes of tensors with the codes and the extra numbers of all vectors, of keys alone."""
    codes = torch.empty(3, 2, tokens, math.ceil(40 * bits / 8), dtype=torch.uint8)
    return codes.nbytes + torch.empty(3, 2, tokens, extras, dtype=torch.float16).nbytes


@pytest.mark.parametrize("way", EXTRAS)
@pytest.mark.parametrize("bits", [(4, 4), (3, 3), (8, 3)])
def test_a_quantised_cache_takes_what_its_tensors_take(way: str, bits: tuple[int, int]) -> None:
    kept = Quantised(*bits, way)
    wanted = sum(held(30, n, EXTRAS[way]) for n in bits)
    tables = sum(kept.tables(40, n) for n in set(bits))
    assert quantised_bytes_at(Config(LLAMA), 30, kept) == wanted + tables
    assert quantised_bytes_per_token(Config(LLAMA), kept) == wanted // 30


def test_turboquants_tables_are_counted_once() -> None:
    own = Quantised(4, 4, "turboquant")
    assert own.tables(40, 4) == 4 * (40 * 40 + 16)
    assert Quantised(4, 4, "turboquant-product").tables(40, 4) == 4 * (2 * 40 * 40 + 8)
    two, one = (quantised_bytes_at(Config(LLAMA), 30, own, batch) for batch in (2, 1))
    assert two - one == one - own.tables(40, 4)


def test_the_newest_tokens_stay_in_16_bits() -> None:
    config = Config(LLAMA)
    assert quantised_bytes_at(config, 20, Quantised(2, 2, recent=20)) == bytes_at(config, 20)
    assert quantised_bytes_at(config, 20, Quantised(2, 2, recent=1000)) == bytes_at(config, 20)
    some, none = (quantised_bytes_at(config, 20, Quantised(2, 2, recent=recent)) for recent in (5, 0))
    assert some - none == 3 * 2 * 2 * 5 * (2 * 40 - (10 + 2))


def test_a_window_holds_no_more_than_its_tokens() -> None:
    gemma, kept = known_model("gemma-3-270m"), Quantised(8, 8)
    at_1000, at_2000 = (quantised_bytes_at(gemma, context, kept) for context in (1000, 2000))
    assert at_2000 - at_1000 == 1000 * 3 * 2 * (256 + 2)  # its three full layers


def test_what_is_no_key_and_no_value_stays_in_16_bits() -> None:
    latent = known_model("deepseek-v3")
    assert quantised_bytes_at(latent, 100, Quantised(2, 2)) == bytes_at(latent, 100)


def test_an_unknown_way_and_impossible_bits_are_refused() -> None:
    with pytest.raises(GraderError, match="turboquant-product"):
        Quantised(4, 4, "magic")
    with pytest.raises(GraderError, match="0 bits"):
        Quantised(0, 4)


def test_the_command_counts_everything() -> None:
    said = CliRunner().invoke(app, ["kv", "qwen3-8b", "--bits", "4", "--context", "1000"])
    assert said.exit_code == 0, said.output
    assert "one token in 4 bits, all counted:" in said.output
    assert "4.12 bits a number" in said.output
    given = ["kv", "qwen3-8b", "--bits", "4", "--value-bits", "3", "--way", "turboquant", "--recent", "32", "--json"]
    numbers = json.loads(CliRunner().invoke(app, given).output)
    kept = Quantised(4, 3, "turboquant", 32)
    assert numbers["total_bytes"] == quantised_bytes_at(known_model("qwen3-8b"), 8192, kept)
    assert numbers["bytes_per_token"] == 36 * 8 * (64 + 48 + 2 * 2)
