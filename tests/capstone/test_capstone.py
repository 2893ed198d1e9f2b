"""The capstone: every seed can be solved, shows all it has, and is no model of transformers'."""

import copy
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from capstone_solver import Model as Solver
from torch import nn

from grader.capstone import drawing
from grader.capstone.assignment import EXERCISE, recording_of
from grader.capstone.checking import OTHER_EPS, check_program
from grader.capstone.counterparts import counterparts
from grader.capstone.drawing import AXES, CHANGES, KNOWN, LEVELS, Drawn, attempts, known
from grader.capstone.making import Capstone, filled, make
from grader.capstone.model import Model
from grader.capstone.small import wrong_on_small_inputs
from grader.capstone.visible import changes, hidden_fields, moves, with_change
from grader.capstone.words import PARTS
from grader.checks.judge import judge, wording
from grader.checks.probe import probe
from grader.config import Config
from grader.errors import GraderError
from grader.layers.comparison import Comparison
from grader.layers.wording import report_lines
from grader.porting.comparing import program_report
from grader.porting.own_names.loading import OwnNames, loaded_program
from grader.recordings.traces import Trace
from grader.report import to_text
from grader.tolerance import distance

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(12)
NUDGE = 0.25  # of a weight's typical size
made = cache(make)
PINNED = ("Qwen3-MoE", ("places", "sinks", "pairs", "mlp", "head"), [74, 42, 68, 38])  # of seed 7, level 2


def test_a_seed_is_one_model_everywhere() -> None:
    one, other = make(7, 2), made(7, 2)
    assert one.drawn == other.drawn and torch.equal(one.ids, other.ids)
    assert all(torch.equal(tensor, other.trace.weights[name]) for name, tensor in one.trace.weights.items())
    assert (one.drawn.base, one.drawn.changed, one.ids[0, :4].tolist()) == PINNED
    assert make(8, 2).drawn.config != one.drawn.config != make(7, 3).drawn.config


def test_a_take_is_made_without_being_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(7, 2)
    monkeypatch.setattr("grader.capstone.making.MOST_ROUNDING", 0.0)  # as where another processor rounds otherwise
    again = make(7, 2, one.take)
    assert again.drawn == one.drawn and torch.equal(again.trace.output, one.trace.output)
    with pytest.raises(GraderError, match="counted from 0"):
        make(7, 2, -1)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "level"), [(seed, LEVELS[seed % len(LEVELS)]) for seed in SEEDS])
def test_it_can_be_solved_from_the_config_and_the_words(seed: int, level: int) -> None:
    found = check_program(Solver, made(seed, level).trace)
    assert found.report.ok and found.points == 100, to_text(report_lines(found.report, "first"))
    assert "cached, token 17" in {row.name for row in found.report.rows}


def hidden_weights(model: Model, trace: Trace) -> Iterator[str]:
    """The weights, of stacked experts each expert's, of which a change moves no row."""
    other = copy.deepcopy(model)
    saved = other.state_dict()
    for name, tensor in [*other.named_parameters(), *other.named_buffers()]:
        if name not in saved:
            continue
        for part in range(len(tensor)) if ".experts." in name else [slice(None)]:
            before = tensor.detach().clone()
            with torch.no_grad():
                here = tensor[part]
                here += NUDGE * before.square().mean().sqrt() * torch.linspace(-1, 1.5, here.numel()).view_as(here)
            if not moves(other, trace):
                yield f"{name}[{part}]" if isinstance(part, int) else name
            with torch.no_grad():
                tensor.copy_(before)


@pytest.mark.parametrize("level", LEVELS)
def test_every_field_and_every_weight_shows(level: int) -> None:
    capstone = made(3, level)
    config, trace = capstone.drawn.config, capstone.trace
    assert list(hidden_fields(config, capstone.model, trace)) == []
    assert list(hidden_weights(capstone.model, trace)) == []
    seen = {path[0] for path, _ in changes(config)}
    assert seen == set(config)


def test_what_does_not_show_is_found() -> None:
    capstone = made(3, 2)
    fields = {**capstone.drawn.config, "of_no_use": 1.0}
    assert list(hidden_fields(fields, capstone.model, capstone.trace)) == ["of_no_use = 1.3"]
    assert not moves(capstone.model, capstone.trace)
    changed = with_change({"a": {"b": [1, 2]}}, ("a", "b", 1), 3)
    assert changed == {"a": {"b": [1, 3]}}


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_so_many_changes_of_a_known_model(level: int) -> None:
    drawn = [next(attempts(seed, level)) for seed in range(60)]
    if level in CHANGES:
        assert {len(one.changed) for one in drawn} == {CHANGES[level]}
        assert all(one.choices[axis] != known(one.base)[axis] for one in drawn for axis in one.changed)
    else:
        assert {one.base for one in drawn} == {""}
        assert all({one.choices[axis] for one in drawn} == set(choices) for axis, choices in AXES.items())
    assert all(drawing.is_consistent(one.choices) for one in drawn)


def test_every_field_that_is_drawn_and_is_not_usual_has_a_word() -> None:
    words = {field for part in PARTS.values() for field in part}
    drawn = {field for level in LEVELS for seed in range(200) for field in next(attempts(seed, level)).config}
    usual = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size",
             "moe_intermediate_size", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
             "linear_conv_kernel_dim"}  # fmt: skip
    assert drawn - words == usual and words <= drawn


# No model of transformers


CLASSES = {"Llama 3": "Llama", "Qwen3": "Qwen3", "Qwen3-MoE": "Qwen3Moe", "Gemma 3": "Gemma3", "OLMo 3": "Olmo3",
           "DeepSeek-V3": "DeepseekV3", "Qwen3.5": "Qwen3_5", "SmolLM3": "SmolLM3"}  # fmt: skip


def theirs(name: str, config: dict[str, Any]) -> nn.Module:
    """transformers' model of a known name, with the values that a capstone's config has."""
    transformers = pytest.importorskip("transformers")
    fields = {name: value for name, value in config.items() if name != "norm_type"}
    plain = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    rope = {**plain, **(fields.pop("rope_scaling", None) or {})}
    if "partial_rotary_factor" in fields:
        rope["partial_rotary_factor"] = fields.pop("partial_rotary_factor")
    fields |= {"rope_parameters": rope, "pad_token_id": None, "mlp_only_layers": []}
    if name in ("Gemma 3", "OLMo 3"):
        sliding = {**plain, "rope_theta": fields.pop("rope_local_base_freq", plain["rope_theta"])}
        fields["rope_parameters"] = {"full_attention": rope, "sliding_attention": sliding}
    if name == "Gemma 3":
        fields["hidden_activation"] = fields["hidden_act"]
    if name == "DeepSeek-V3":
        fields |= {"head_dim": fields.get("qk_rope_head_dim"), "n_routed_experts": fields.get("num_experts")}
        fields |= {"num_key_value_heads": fields["num_attention_heads"]}
    kind = "TextConfig" if name in ("Gemma 3", "Qwen3.5") else "Config"
    settings = getattr(transformers, CLASSES[name] + kind)(**fields)
    ways = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = getattr(transformers, f"{CLASSES[name]}ForCausalLM")._from_config(settings, **ways).eval()
    if name == "Gemma 3":
        model.model.embed_tokens.embed_scale.fill_(fields.get("embedding_multiplier", 1))
    return model


@pytest.mark.parametrize("name", KNOWN)
def test_without_changes_the_reference_is_the_known_model(name: str) -> None:
    config = drawing.config_of(known(name), random.Random("a known model"))
    config |= {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    if name == "DeepSeek-V3":
        config |= {"q_lora_rank": 18, "rms_norm_eps": 1e-6}  # that of its latents is in its code
    if name == "OLMo 3":
        config["rope_scaling"]["truncate"] = (
            True  # transformers reads `truncate` beside the kinds of layers, not in them
        )
    model, ids = filled(Drawn(0, 1, name, known(name), (), config))
    other = theirs(name, config)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        want, got = other(ids).logits, model(ids)
    assert torch.allclose(got, want, atol=2e-4 * float(want.std()), rtol=0)


@pytest.mark.parametrize("level", (1, 2))
def test_the_model_that_it_starts_from_gives_something_else(level: int) -> None:
    for seed in range(8):
        capstone = made(seed, level)
        try:
            other = theirs(capstone.drawn.base, capstone.drawn.config)
            other.load_state_dict(capstone.model.state_dict())
            with torch.no_grad():
                got = other(capstone.ids).logits
        except Exception:  # other weights, or a config that it refuses
            continue
        assert not torch.allclose(got, capstone.trace.output, atol=1e-3 * float(got.std()), rtol=0), capstone.drawn


@pytest.mark.parametrize("level", LEVELS)
def test_no_family_of_transformers_has_all_choices_of_a_seed(level: int) -> None:
    assert all(drawing.is_nowhere(next(attempts(seed, level)).choices) for seed in range(500))


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_is_found_among_the_families(name: str) -> None:
    assert not drawing.is_nowhere(known(name))


def test_the_families_are_those_of_the_installed_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    said = (ROOT / "grader" / "capstone" / "families.toml").read_text("utf-8")
    if f'transformers = "{transformers.__version__}"' not in said:
        pytest.skip("another transformers")
    script = [sys.executable, "benchmarks/capstone_families.py", "--check"]
    assert subprocess.run(script, cwd=ROOT, capture_output=True, check=False).returncode == 0


# Programs


class Wrong(Solver):
    """A solver whose logits are not right."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        return super().forward(ids, cache) * 1.01


class Unfinished(Solver):
    """One whose MLPs give nothing."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.forward = torch.zeros_like


class Alien(Solver):
    """One with a part of the reference's."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.norm = Model(config).model.norm


class Idle(Solver):
    """One whose layers give what they are given."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.forward = lambda x, memory: x


class Blind(Solver):
    """One whose attention gives nothing."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.forward = lambda x, memory: torch.zeros_like(x)


class Empty(Solver):
    """One that calls no part."""

    def forward(self, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        return torch.zeros(*ids.shape, self.config.vocab_size)


def test_points_are_of_parts_each_judged_by_itself() -> None:
    trace = made(7, 2).trace
    programs = (Wrong, Unfinished, Blind, Idle, Empty)
    wrong, unfinished, blind, idle, empty = (check_program(program, trace) for program in programs)
    assert not wrong.report.ok and wrong.points == 97 and wrong.parts["ends"] == 0.5
    assert unfinished.points == 82 and unfinished.parts["MLPs"] == 0 and unfinished.cached == 1
    rest = {"MLPs": 1, "layers": 1, "ends": 1}
    assert 38 <= blind.points <= 42 and blind.parts.items() >= {"attention": 0, **rest}.items()
    assert idle.points < 8 and empty.points == 0
    assert unfinished.as_json()["points"] == unfinished.points and unfinished.as_json()["rows"]


# What a pass over texts does not show


def norms_of(program: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in program.named_modules() if hasattr(module, "eps"))


@pytest.mark.parametrize(("seed", "level"), [(202, 2), (201, 2)])
def test_a_norm_with_another_eps_is_told(seed: int, level: int) -> None:
    trace = made(seed, level).trace
    with torch.no_grad():
        program, own, _ = loaded_program(Solver, trace, OwnNames())
        assert not list(wrong_on_small_inputs(counterparts(Comparison(program, own), trace)))
        for name, norm in norms_of(program):
            due = norm.eps
            for eps in (due + 1e-5,) if ".0." not in name else (10 * due, due + 1e-5, 0.0):
                norm.eps = eps
                (found,) = wrong_on_small_inputs(counterparts(Comparison(program, own), trace))
                assert found.node.path == name and found.said.startswith(f"its eps is {eps:.2g} and"), (name, eps)
            norm.eps = due


class Sorted(Solver):
    """One whose routers sort what they have chosen."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp.gate.register_forward_hook(by_number)


def by_number(module: nn.Module, args: Any, given: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weights, chosen = given
    return weights.gather(-1, chosen.argsort(-1)), chosen.sort(-1).values


def test_a_router_that_sorts_is_right_where_weights_are_nearly_equal() -> None:
    found = check_program(Sorted, made(301, 3).trace)
    assert found.ok, to_text(report_lines(found.report, "all"))


class OtherBase(Solver):
    """One whose RoPE has another base."""

    def __init__(self, config: Config):
        super().__init__(config.replace(rope_theta=2 * config.rope_theta))


class OtherScale(Solver):
    """One whose scores have another scale."""

    def __init__(self, config: Config):
        super().__init__(config.replace(query_pre_attn_scalar=3))


def test_a_step_of_the_channels_that_turn_is_not_blamed_for_its_width() -> None:
    trace = made(301, 3).trace  # a part of each head turns
    base, scale = (check_program(program, trace).report.culprit for program in (OtherBase, OtherScale))
    assert base is not None and base.path == "model.layers.0.self_attn:rope"
    assert "wrong at index 1 and later of axis 2" in base.reasons[0] and "the shape is" not in base.reasons[0]
    assert scale is not None and scale.path == "model.layers.0.self_attn"


class OtherEps(Solver):
    """One whose latents' norms have lesson 05's eps."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.kv_a_layernorm.eps = 1e-6


def test_a_wrong_eps_is_where_to_start() -> None:
    found = check_program(OtherEps, made(202, 2).trace)
    said = to_text(report_lines(found.report, "first"))
    assert found.points < 100 and "model.layers.0.self_attn.kv_a_layernorm" in said.splitlines()[0]
    assert "its eps is 1e-06 and should be 1e-05" in said and "as rounding does" not in said


class Inline(Solver):
    """One whose query norms are no modules, behind projections with a bias, and have an eps of their own."""

    eps = 1e-4

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            inner = layer.self_attn
            inner.normed = lambda t, norm: F.rms_norm(t, (t.shape[-1],), norm.weight, self.eps)


def test_the_eps_of_a_norm_in_attention_that_is_no_module_is_told_behind_a_bias() -> None:
    capstone = made(167, 2)
    config = capstone.drawn.config
    assert config["attention_bias"] and config["qk_norm_over"] == "head" and config["norm_type"] == "rms_norm"
    Inline.eps = config["rms_norm_eps"]
    assert check_program(Inline, capstone.trace).ok
    Inline.eps = config["rms_norm_eps"] + 1e-5
    found = check_program(Inline, capstone.trace)
    assert found.report.ok and found.failings == (OTHER_EPS,) and found.points == 99


# A class


def test_a_wrong_eps_of_any_norm_is_noticed_where_a_class_is_graded() -> None:
    recording = recording_of(made(202, 2), "a secret")
    task, answer = recording.task(EXERCISE), recording.answer(EXERCISE)
    assert judge(task, answer, probe(task, Solver)).right
    number = next(i for i, case in enumerate(task.cases) if case.drive == "on_small_numbers")
    case, want = task.cases[number], answer.outputs[number]
    for path, _ in norms_of(Solver(Config(case.build["config"]))):

        class OneOther(Solver):
            def __init__(self, config: Config, path: str = path):
                super().__init__(config)
                setattr(self.get_submodule(path), "eps", 2e-5)  # noqa: B010

        (seen,) = probe(replace(task, cases=(case,)), OneOther, outputs_only=True)
        assert seen.output is not None and distance(seen.output, want) > 20 * answer.tolerances[number].relative, path


class Again(Solver):
    """One whose cache holds ids alone."""

    def new_cache(self, batch_size: int, capacity: int) -> Any:
        return [torch.zeros(batch_size, 0, dtype=torch.long)]

    def forward(self, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        if cache is None:
            return super().forward(ids, super().new_cache(*ids.shape))
        cache[0] = torch.cat([cache[0], ids], dim=1)
        return super().forward(cache[0], super().new_cache(*cache[0].shape))[:, -ids.shape[1] :]


def test_a_class_gets_nothing_for_decoding_that_computes_all_again() -> None:
    recording = recording_of(made(202, 2))
    task, answer = recording.task(EXERCISE), recording.answer(EXERCISE)
    verdict = judge(task, answer, probe(task, Again))
    assert [case.name for case in verdict.cases if not case.right] == [case.name for case in task.cases[-2:]]
    assert "what came before is computed again" in to_text(wording.report(verdict))


def test_a_program_with_parts_of_the_reference_is_refused() -> None:
    with pytest.raises(GraderError, match=r"modules of grader\.capstone\.model"):
        check_program(Alien, made(7, 2).trace)


def test_two_students_answers_do_not_serve_each_other() -> None:
    """A program that has one seed's structure in its code, and reads sizes from the config that it is given."""
    capstones = [made(seed, 2) for seed in range(6)]
    assert len({tuple(one.drawn.choices.items()) for one in capstones}) == len(capstones)
    for mine, other in itertools.permutations(capstones, 2):
        assert not _serves(mine, other), (mine.drawn.seed, other.drawn.seed)


SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
         "intermediate_size", "moe_intermediate_size", "num_experts", "num_experts_per_tok", "sliding_window",
         "rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_types")  # fmt: skip


def _serves(mine: Capstone, other: Capstone) -> bool:
    def program(config: Config) -> nn.Module:
        return Solver(Config({**mine.drawn.config, **{name: config[name] for name in SIZES if name in config}}))

    try:
        return program_report(program(Config(other.drawn.config)), other.trace).ok
    except Exception:  # it can't be built, loaded or run
        return False


def test_levels_and_seeds_that_there_are_not() -> None:
    with pytest.raises(GraderError, match="no level 4"):
        make(1, 4)
    with pytest.raises(GraderError, match="whole number from 0"):
        make(-1, 1)
