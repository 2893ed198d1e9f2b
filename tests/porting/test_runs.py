"""Decoding with a cache, padding and positions: recorded of the reference, and compared step by step."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cached_ports import CONFIGS, PROGRAMS, program, source_of
from small_references import QWEN3_NEXT, small
from torch import nn

from grader.errors import NeedsAdapter
from grader.layers.wording import report_lines
from grader.porting.comparing import program_report
from grader.porting.decoding import way_of
from grader.porting.reference import Reference
from grader.porting.report import PortReport
from grader.porting.runs import Ways
from grader.porting.states import Snapshot, compared_states, held_in
from grader.recordings.tracefile import read_trace, write_trace
from grader.report import to_text

pytest.importorskip("transformers")

EVERY = CONFIGS | {"Qwen3-Next": QWEN3_NEXT}
WAYS = {"Qwen3": Ways(cached=True, padded=True, offset=3)}
STEPS = ["tokens 0 to 2", "tokens 3 to 6", "tokens 7 to 9", "token 10", "token 11", "token 12", "token 13"]
pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference(family: str) -> Reference:
    return small(EVERY[family], ways=WAYS.get(family, Ways(cached=True)))


def compared(family: str, *changes: tuple[str, str], more: str = "") -> PortReport:
    return program_report(program(family, *changes, more=more), reference(family).trace)


def text(report: PortReport) -> str:
    return to_text(report_lines(report, "all"))


# The reference


@pytest.mark.parametrize("family", ["Qwen3", "Gemma 3", "Qwen3-Next"])
def test_the_reference_itself_is_right_in_every_run(family: str) -> None:
    found = reference(family)
    report = program_report(found.model, found.trace)
    assert report.ok and all(row.outcome.max == 0 for row in report.rows), text(report)
    titles = [row.name for row in report.rows if row.block == row.name]
    assert [f"cached, {step}" for step in STEPS] == [title for title in titles if title.startswith("cached, tok")]
    assert any(kept.name == "a cache gives what one pass gives" and kept.covered for kept in found.coverage)


def test_states_are_recorded_after_each_step() -> None:
    steps = reference("Qwen3-Next").trace.runs[0].steps
    assert {name.rpartition(".")[0] for name in steps[0].states} >= {
        "layers.0.conv_states",
        "layers.0.recurrent_states",
    }
    assert [step.states["layers.1.keys"].shape[2] for step in steps] == [3, 7, 10, 11, 12, 13, 14]
    window = reference("Gemma 3").trace.runs[0].steps
    assert [step.states["layers.0.keys"].shape[2] for step in window] == [3, 4, 4, 4, 4, 4, 4]


def test_a_trace_keeps_its_runs(tmp_path: Path) -> None:
    trace = reference("Qwen3").trace
    write_trace(trace, tmp_path / "t.safetensors")
    read = read_trace(tmp_path / "t.safetensors")
    assert [run.name for run in read.runs] == ["cached", "from position 3", "padded", "padded and cached"]
    for run, other in zip(trace.runs, read.runs, strict=True):
        for step, again in zip(run.steps, other.steps, strict=True):
            assert (step.name, list(step.states), step.floor) == (again.name, list(again.states), again.floor)
            assert torch.equal(step.output, again.output) and len(step.calls) == len(again.calls)
    assert program_report(reference("Qwen3").model, read).ok


def test_what_stands_in_the_place_of_padding_is_not_compared() -> None:
    run = next(run for run in reference("Qwen3").trace.runs if run.name == "padded")
    assert run.steps[0].mask is not None and run.steps[0].mask.sum() == 2 * 14 - 2
    assert not run.steps[0].output[1, :2].any() and run.steps[0].output[0, :2].any()
    assert run.steps[0].positions[1].tolist() == [0, 0, *range(12)]


# Programs


@pytest.mark.parametrize("family", PROGRAMS)
def test_a_right_program_is_right_with_its_own_cache(family: str) -> None:
    report = compared(family, more=MAKES if family == "Gemma 3" else "")
    assert report.ok, text(report)
    assert {"cached, tokens 3 to 6", "cached, token 13"} <= {row.name for row in report.rows}
    states = [row for row in report.rows if row.type == "state" and row.name.startswith("cached")]
    another = {row.name.rpartition(".")[2] for row in states if "another form" in row.outcome.note}
    assert len(states) == 7 * 2 * 2 and another == ({"keys"} if family == "Llama" else set()), text(report)


MISTAKES: dict[str, list[tuple[str, str, str, str]]] = {
    # family: what is replaced, by what, the step and the culprit
    "GPT-2": [
        ("start = cache[0].used if cache else 0", "start = 0", "cached, tokens 3 to 6", ""),
        (".tril(S - T)", ".tril()", "cached, tokens 3 to 6", "blocks.0.attn"),
        ("self.used += T", "self.used += 1", "cached, tokens 0 to 2", "blocks.0.attn"),
    ],
    "Llama": [
        ("self.freqs[start_pos : start_pos + tokens.shape[1]]", "self.freqs[: tokens.shape[1]]",
         "cached, tokens 3 to 6", ""),
        ("self.cache_v[:B, start_pos : start_pos + T] = v", "self.cache_v[:B, start_pos : start_pos + 1] = v[:, :, :1]",
         "", "layers.0.attention"),
    ],
    "Qwen3": [
        ("seen = past_kv[0][0].shape[2] if past_kv else 0", "seen = past_kv[0][0].shape[1] if past_kv else 0",
         "cached, tokens 3 to 6", "layers.0.self_attn"),
        ("attention_mask.bool()[:, None, None]", "attention_mask.bool()[:, None, None].roll(1, -1)",
         "padded, tokens 0 to 13", ""),
        ("torch.cat((past[1], v), dim=2)", "torch.cat((v, past[1]), dim=2)",
         "cached, tokens 3 to 6", "layers.0.self_attn"),
    ],
    "Gemma 3": [
        ("room = window - 1 if window", "room = window - 2 if window", "cached, tokens 7 to 9", "blocks.0.attn"),
        ("start = kv_cache.seen if kv_cache is not None",
         "start = kv_cache.k[0].shape[2] if kv_cache and kv_cache.seen",
         "cached, tokens 7 to 9", ""),
    ],
}  # fmt: skip
MAKES = "\nModel.new_cache = lambda self, batch_size, capacity: RingCache(len(self.blocks))"


@pytest.mark.parametrize(("family", "number"), [(f, i) for f, changes in MISTAKES.items() for i in range(len(changes))])
def test_a_mistake_in_decoding_is_named_with_its_step(family: str, number: int) -> None:
    find, put, place, culprit = MISTAKES[family][number]
    report = compared(family, (find, put), more=MAKES if family == "Gemma 3" else "")
    assert not report.ok and report.culprit is not None, text(report)
    assert report.culprit.place == place and report.culprit.path.startswith(culprit), text(report)


def test_positions_that_a_program_takes_where_none_are_handed_to_it_are_compared_too() -> None:
    """It is handed `position_ids` elsewhere, so that nothing else shows what it does without."""
    title = "cached, without `position_ids`"
    right = {row.name: row.outcome.ok for row in compared("Qwen3").rows}
    assert right[title] and title not in {row.name for row in compared("GPT-2").rows}
    report = compared("Qwen3", ("torch.arange(seen, seen + T)[None]", "torch.arange(T)[None]"))
    assert [row.name for row in report.rows if not row.outcome.ok] == [title], text(report)
    assert report.culprit is not None and report.culprit.place == title
    assert "do not go on where the cache ends" in report.culprit.reasons[0]


def test_a_cache_that_went_wrong_before_is_said() -> None:
    """The first prompt's logits are right, and what is cached of it is not."""
    found = compared("Qwen3", ("attended, kept = self.self_attn", "attended, (k, v) = self.self_attn"),
                     ("self.mlp(self.norm2(x)), kept", "self.mlp(self.norm2(x)), (k, k)"))  # fmt: skip
    assert found.culprit is not None and found.culprit.place == "cached, tokens 3 to 6"
    assert any(
        "The cache is not the reference's already after cached, tokens 0 to 2" in r for r in found.culprit.reasons
    )


def test_a_state_that_only_a_next_token_would_read_is_where_to_start() -> None:
    find = "        return (logits, kept) if use_cache else logits"
    found = compared(
        "Qwen3", (find, f"        if seen + T == 14:\n            kept[0] = kept[0][0], 2 * kept[0][1]\n{find}")
    )
    assert found.culprit is not None and not found.ok
    assert found.culprit.place == "cached, token 13" and "every output is right" in found.culprit.reasons[0], text(
        found
    )


def test_a_ring_that_is_too_short_is_said() -> None:
    found = compared("Gemma 3", ("room = window - 1 if window", "room = window - 2 if window"), more=MAKES)
    rows = {row.name: row.outcome for row in found.rows if row.type == "state"}
    assert not rows["cached, tokens 3 to 6: cache after it: layers.0.keys"].ok
    assert rows["cached, tokens 3 to 6: cache after it: layers.1.keys"].ok  # a full layer's


JOINED = [
    ("k = k if self.k[i] is None else torch.cat((self.k[i], k)",
     "k = k if self.k[i] is None else torch.cat((self.k[i].unflatten(1, (k.shape[1], -1)), k)"),
    ("v = v if self.v[i] is None else torch.cat((self.v[i], v)",
     "v = v if self.v[i] is None else torch.cat((self.v[i].unflatten(1, (v.shape[1], -1)), v)"),
    ("= k[:, :, -room:], v[:, :, -room:]", "= k[:, :, -room:].flatten(1, 2), v[:, :, -room:].flatten(1, 2)"),
]  # fmt: skip


def test_a_cache_in_a_form_of_its_own_is_not_told_where_something_else_is_wrong() -> None:
    report = compared("Gemma 3", *JOINED, more=MAKES)
    assert report.ok, text(report)
    report = compared("Gemma 3", *JOINED, ("x.shape[-1] ** 0.5", "x.shape[-1] ** 0.4"), more=MAKES)
    assert not report.ok and all(row.outcome.ok for row in report.rows if row.type == "state"), text(report)
    late = ("attend_where(q, k, v, self.scale, allowed)",
            "attend_where(q, k, v, self.scale * (2 if i and cache and cache.seen else 1), allowed)")  # fmt: skip
    report = compared("Gemma 3", *JOINED, late, more=MAKES)
    assert report.culprit is not None and report.culprit.place == "cached, tokens 3 to 6", text(report)
    red = [row.name for row in report.rows if row.type == "state" and not row.outcome.ok]
    assert red and not any("layers.0" in name for name in red), text(report)


def test_one_place_for_the_keys_of_all_layers_is_told_at_the_layer() -> None:
    report = compared("Gemma 3", ("cache.update(i, k, v", "cache.update(0, k, v"), more=MAKES)
    assert report.culprit is not None and report.culprit.path == "blocks.1", text(report)
    assert report.culprit.reasons[0].startswith("it is given the same cache as `blocks.0`")


def test_keys_that_are_cached_before_they_are_rotated_are_a_way_of_its_own() -> None:
    states = [
        ("self.angle[position_ids][:, None], allowed", "(self.angle[position_ids], self.angle[: seen + T]), allowed"),
        ("q, k = turn_halves(self.q_norm(q), angle), turn_halves(self.k_norm(k), angle)",
         "q, k = turn_halves(self.q_norm(q), angle[0][:, None]), self.k_norm(k)"),
        ("self.head_dim**-0.5, allowed)), (k, v)", "self.head_dim**-0.5, allowed)), kept"),
        ("        return self.o_proj(",
         "        kept = k, v\n        k = turn_halves(k, angle[1])\n        return self.o_proj("),
    ]  # fmt: skip
    trace = reference("Qwen3").trace
    plain = replace(trace, runs=trace.runs[:1])
    report = program_report(program("Qwen3", *states), plain)
    assert report.ok, text(report)
    notes = {row.outcome.note for row in report.rows if row.type == "state" and row.name.endswith("layers.0.keys")}
    assert notes == {"in another form than the reference's, and what follows is right"}


# What a program needs for it


def test_a_program_without_a_cache_is_told_what_is_needed() -> None:
    with pytest.raises(NeedsAdapter, match=r"can't be given a cache: its forward has none of the arguments cache"):
        compared("GPT-2", ("def forward(self, ids, cache=None):", "def forward(self, ids):\n        cache = None"))
    with pytest.raises(NeedsAdapter, match="nothing says how a new one is made"):
        compared("Gemma 3")
    with pytest.raises(NeedsAdapter, match="asks for `room`"):
        compared("GPT-2", ("def new_cache(self, batch_size, capacity)", "def new_cache(self, batch_size, room)"),
                 ("self.heads, capacity, self.head_dim", "self.heads, room, self.head_dim"))  # fmt: skip


def test_a_program_without_a_mask_is_told_what_padding_needs() -> None:
    padded = small(EVERY["GPT-2"], ways=Ways(padded=True)).trace
    with pytest.raises(NeedsAdapter, match=r"can't be given padding: its forward has none of the arguments"):
        program_report(program("GPT-2"), padded)


def test_the_way_in_which_a_program_is_called_is_read_from_its_signature() -> None:
    assert way_of(program("Llama")).start == "start_pos"
    own = way_of(program("Qwen3"))
    assert (own.cache, own.mask, own.positions, own.flags) == (
        "past_kv", "attention_mask", "position_ids", {"use_cache": True})  # fmt: skip
    assert way_of(reference("Qwen3").model).cache in ("cache", "past_key_values")


def test_the_lines_that_a_program_needs_for_its_cache_are_written(tmp_path: Path, grader: Any) -> None:
    trace = tmp_path / "t.safetensors"
    write_trace(reference("Gemma 3").trace, trace)
    (tmp_path / "ringed.py").write_text(source_of("Gemma 3"))
    code, out, err = grader("compare", f"{tmp_path / 'ringed.py'}:Model", trace)
    assert code == 2 and "return RingCache(num_layers=self.config.num_hidden_layers)" in err
    assert grader("port", f"{tmp_path / 'ringed.py'}:Model", trace)[0] == 0
    code, out, err = grader("compare", f"{tmp_path / 'port.py'}:Port", trace)
    assert (code, err) == (0, ""), out + err
    assert "cached, tokens 3 to 6" in out


def test_the_command_traces_the_runs_that_are_asked_for(tmp_path: Path, grader: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["GPT-2"]))
    trace = tmp_path / "t.safetensors"
    options = ("--cached", "--padding", "--offset", "20")
    code, out, err = grader("trace", tmp_path / "config.json", "--to", trace, *options)
    assert (code, err) == (0, "") and "yes a cache gives what one pass gives: texts in parts of 3, 4, 3, 1" in out
    read = read_trace(trace)
    assert [run.name for run in read.runs] == ["cached", "from position 20", "padded", "padded and cached"]
    assert read.build["config"]["n_positions"] >= 34


# States in other forms


def test_a_state_is_found_in_whatever_form_it_is_held() -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    room = torch.cat((keys, torch.zeros(2, 3, 4, 4)), dim=2)
    ring = keys[:, :, [3, 4, 0, 1, 2]]
    conv = torch.randn(2, 6, 4)
    forms = {
        "more room than tokens": {"k": room},
        "a ring": {"k": ring},
        "tokens before heads": {"k": keys.transpose(1, 2).contiguous()},
        "keys beside values": {"kv": torch.stack((values, keys))},
        "heads last": {"k": keys.permute(0, 2, 3, 1).contiguous()},
    }
    for name, held in forms.items():
        (state,) = compared_states({"layers.0.keys": keys}, held)
        assert state.outcome.ok, name
    (state,) = compared_states({"layers.0.conv_states.0": conv}, {"mine": conv[..., 1:]})
    assert state.outcome.ok
    (state,) = compared_states({"layers.0.keys": keys}, {"k": keys[:, :, 1:]})
    assert not state.outcome.ok
    (state,) = compared_states({"layers.0.keys": keys}, {"k": keys + 0.01})
    assert not state.outcome.ok and state.place == "k"
    (state,) = compared_states({"layers.0.keys": keys}, {"k": torch.randn(2, 3, 7)})
    assert not state.outcome.ok and state.place == ""


def test_what_is_kept_of_padding_is_not_looked_at() -> None:
    torch.manual_seed(0)
    keys, recurrent = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 4)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, :2] = False
    other = keys.clone()
    other[1, :, :2] = 7.0
    for state in (other, other.transpose(1, 2).contiguous(), torch.stack((keys + 1, other))):
        (found,) = compared_states({"layers.0.keys": keys}, {"k": state}, mask)
        assert found.outcome.ok
        assert not compared_states({"layers.0.keys": keys}, {"k": state})[0].outcome.ok
    (found,) = compared_states({"layers.0.keys": keys[:, :, -4:]}, {"k": other}, mask)  # a window's
    assert found.outcome.ok
    other[1, :, 3] = 7.0
    (found,) = compared_states({"layers.0.keys": keys}, {"k": other}, mask)
    assert not found.outcome.ok and found.place == "k"
    changed = recurrent.clone()
    changed[1, 0, 0] = 7.0  # a state without an axis of tokens has nothing to leave out
    (found,) = compared_states({"layers.0.recurrent_states": recurrent}, {"s": changed}, mask)
    assert not found.outcome.ok


def test_states_under_padding_are_compared_after_each_step() -> None:
    report = compared("Qwen3")
    states = [row for row in report.rows if row.type == "state" and row.name.startswith("padded and cached")]
    assert len(states) == 7 * 2 * 2 and all(row.outcome.ok and not row.outcome.note.startswith("in") for row in states)
    whole = ("self.angle[position_ids]", "self.angle[(position_ids + 1)]")  # one later everywhere: the same scores
    report = compared("Qwen3", whole)
    assert report.ok, text(report)
    notes = {row.outcome.note for row in report.rows if row.type == "state" and row.name.endswith("layers.0.keys")}
    assert notes == {"in another form than the reference's, and what follows is right"}


class KeepsItPrivately(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._cache = [torch.zeros(1, 2, 3, 4)]


def test_a_cache_behind_a_private_name_is_seen_and_brought_back() -> None:
    model = KeepsItPrivately()
    before = Snapshot(model)
    assert [tensor.shape for tensor in held_in(model).values()] == [(1, 2, 3, 4)]
    model._cache[0] += 1
    before.restore()
    assert not model._cache[0].any()
