"""What linear attention alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.kimi_linear import modeling_kimi_linear as kimi
from transformers.models.nemotron_h import modeling_nemotron_h as nemotron
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_at

LESSON = lesson_of(__file__)
REFERENCE = LESSON.module("reference")
EXERCISES = LESSON.module("exercises")
SOLVED = LESSON.solutions
LENGTHS = (1, 2, 63, 64, 65, 130)


class InDouble:
    """torch, whose float32 is float64: transformers' functions cast to float32 by its name."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


def drawn(length: int, kind: str = "", state: bool = True, seed: int = 0) -> tuple[list[Tensor], Tensor | None]:
    """Parts of a text and a state before it, in float64."""
    from grader.authoring.kit import Draw

    draw = Draw("lesson 10", kind, str(seed))
    parts = EXERCISES.drawn_parts(draw, (2, length, 3, 8, 6), kind)
    return [part.double() for part in parts], draw.normal(2, 3, 8, 6).double() if state else None


def by_hand(parts: list[Tensor], state: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k, v, g, beta = parts
    found: tuple[Tensor, Tensor] = REFERENCE.delta_by_hand(q, k, v, g.exp()[..., None], beta, state)
    return found


def transformers_recurrent(*parts: Any) -> Any:
    return run(qwen.torch_recurrent_gated_delta_rule, parts)


def transformers_chunked(*parts: Any) -> Any:
    return run(qwen.torch_chunk_gated_delta_rule, parts)


def run(rule: Callable[..., Any], parts: Any) -> Any:
    more = {"output_final_state": True, "use_qk_l2norm_in_kernel": True}
    return rule(*parts[:5], initial_state=parts[5], **more)


def step_by_step(*parts: Any) -> tuple[Tensor, Tensor]:
    """One token at a time, each from the state that the one before it left."""
    *text, state = parts
    outputs = []
    for t in range(text[0].shape[1]):
        o, state = SOLVED["recurrent_delta_rule"](*(part[:, t : t + 1] for part in text), state)
        outputs.append(o)
    return torch.cat(outputs, dim=1), state


def in_turns(*parts: Any) -> tuple[Tensor, Tensor]:
    """Chunks and single tokens in turns."""
    *text, state = parts
    outputs: list[Tensor] = []
    start, sizes = 0, [33, 1, 2, 1, 64]
    while start < text[0].shape[1]:
        size = sizes[len(outputs) % len(sizes)]
        rule = SOLVED["recurrent_delta_rule" if size == 1 else "chunked_delta_rule"]
        o, state = rule(*(part[:, start : start + size] for part in text), state)
        outputs.append(o)
        start += size
    return torch.cat(outputs, dim=1), state


FORMS = {
    "transformers, token by token": transformers_recurrent,
    "transformers, in chunks": transformers_chunked,
    "the lesson's, token by token": lambda *parts: SOLVED["recurrent_delta_rule"](*parts),
    "the lesson's, in chunks": lambda *parts: SOLVED["chunked_delta_rule"](*parts),
    "the lesson's, in chunks of 5": lambda *parts: SOLVED["chunked_delta_rule"](*parts, 5),
    "step by step": step_by_step,
    "chunks and tokens in turns": in_turns,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["", "alike", "loud", "tiny"])
def test_all_forms_are_the_formula_to_ten_digits(form: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen, "torch", InDouble())
    for length in LENGTHS:
        for given in (True, False):
            parts, state = drawn(length, kind, given)
            wanted, last = by_hand(parts, state)
            found, kept = FORMS[form](*parts, state)
            assert found.dtype == kept.dtype == torch.float64
            assert (found - wanted).abs().max() < 1e-10 * max(1.0, float(wanted.abs().max())), length
            assert (kept - last).abs().max() < 1e-10 * max(1.0, float(last.abs().max())), length


@pytest.mark.parametrize("name", ["recurrent_delta_rule", "chunked_delta_rule"])
def test_no_token_leaves_the_state_as_it_was(name: str) -> None:
    parts, state = drawn(1)
    assert state is not None
    output, kept = SOLVED[name](*(part[:, :0] for part in parts), state)
    assert list(output.shape) == [2, 0, 3, 6] and torch.equal(kept, state)


def test_the_brute_force_of_mamba_2_is_what_transformers_computes() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    B, T, H, G, N, P = 2, 70, 6, 2, 5, 4
    q, k, v, dt = normal(B, T, G, N), normal(B, T, G, N), normal(B, T, H, P), normal(B, T, H)
    A_log, dt_bias, D, state = normal(H), normal(H), normal(H), normal(B, H, N, P)
    found = REFERENCE.right_mamba(q, k, v, dt, A_log, dt_bias, D, [], state)
    more = {"D": D, "dt_bias": dt_bias, "dt_softplus": True, "chunk_size": 16, "return_final_states": True}
    output, last = nemotron.mamba2_chunk_scan(v, dt, -A_log.exp(), k, q, initial_states=state.mT.contiguous(), **more)
    torch.testing.assert_close(found[:, :T], output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, T : T + N].transpose(1, 2), last.mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", [kimi.recurrent_kimi_delta_attention, kimi.chunk_kimi_delta_attention])
def test_the_brute_force_of_kimis_rule_is_what_transformers_computes(rule: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    B, T, H, N, P = 2, 70, 3, 8, 6
    q, k, f = (torch.randn(B, T, H, N, generator=generator) for _ in range(3))
    v, b = torch.randn(B, T, H, P, generator=generator), torch.randn(B, T, H, generator=generator)
    A_log, dt_bias = torch.randn(H, generator=generator) - 2, torch.randn(H, N, generator=generator)
    state = torch.randn(B, H, N, P, generator=generator)
    found = REFERENCE.right_kimi(q, k, v, f, b, A_log, dt_bias, [], state)
    g = -A_log.exp()[:, None] * F.softplus(f + dt_bias)
    output, last = rule(
        q, k, v, g, b.sigmoid(), initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    torch.testing.assert_close(found[:, :T], output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, T : T + N].transpose(1, 2), last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dim", "pairs"), [(8, 5), (16, 40), (32, 20)])
def test_what_is_recalled_is_what_a_simulation_finds(dim: int, pairs: int) -> None:
    for rule in ("sum", "delta"):
        found = SOLVED["recall_error"](dim, pairs, rule, 6000)
        assert found == pytest.approx(REFERENCE.right_recall(dim, pairs, rule, 0), rel=0.04)


@pytest.mark.parametrize("name", ["qwen3.5-27b", "qwen3-next-80b-a3b"])
def test_bytes_are_those_of_the_atlas_but_for_one_input_of_the_convolution(name: str) -> None:
    config = LESSON.config(name)
    fixed, per_token, length = SOLVED["memory"](config)
    keys, values = (config[f"linear_num_{part}_heads"] * config[f"linear_{part}_head_dim"] for part in ("key", "value"))
    one_input = 2 * (2 * keys + values) * SOLVED["layer_types"](config).count("linear_attention")
    assert bytes_at(config, 0) == fixed + one_input
    assert bytes_at(config, 1000) - bytes_at(config, 0) == 1000 * per_token
    assert (length - 1) * per_token < fixed <= length * per_token


def test_a_trained_models_logits_do_not_depend_on_the_pieces() -> None:
    austen = load_checkpoint("austen-qwen3.5")
    model = austen.build(SOLVED["CausalLM"])
    text = (LESSON.folder / "texts" / "persuasion.txt").read_text(encoding="utf-8")
    ids = torch.tensor([austen.tokenizer.encode(text).ids[:150]])
    with torch.no_grad():
        whole = model(ids)
        for sizes in ([150], [1] * 150, [7] * 21 + [3], [64, 1, 85]):
            caches = model.model.new_caches()
            pieces = torch.cat([model(piece, caches) for piece in ids.split(sizes, dim=1)], dim=1)
            torch.testing.assert_close(pieces, whole, rtol=1e-3, atol=1e-3)
