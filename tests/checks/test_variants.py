"""Properties: a recorded case is asked in other ways, and what is right follows from what was recorded."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorded import recorded, recorded_with_variants
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode

from grader.checks.examine import examine_here
from grader.checks.judge.wording import report
from grader.checks.observation import LeftBehind
from grader.checks.probe.left_behind import Following, following
from grader.config import Config
from grader.lessons.exercise import Case, Draw, Exercise
from grader.recordings import variants as v
from grader.recordings.codec import Decoder, Encoder
from grader.recordings.recording import Recording
from grader.recordings.tasks import TaskCase
from grader.report import to_text


class Mixer(nn.Module):
    """Each token becomes the mean of itself and those before it, through a linear map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[-2]
        seen = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        weights = (x @ x.mT).masked_fill(~seen, float("-inf")).softmax(-1)
        return self.proj(weights @ x)


def mixer_exercise(**more: Any) -> Exercise:
    def case(name: str, width: int, length: int) -> Case:
        def args(draw: Draw) -> list[Tensor]:
            return [draw.normal(2, length, width)]

        return Case(name, args, {"config": {"width": width, "n_positions": 2 * length}})

    cases = [case("7 tokens", 6, 7), case("5 tokens", 8, 5)]
    return Exercise("toy.mixer", "Mixer", Mixer, cases, axes="B T D", points=2, **more)


@pytest.fixture(scope="module")
def mixer() -> Recording:
    return recorded_with_variants(mixer_exercise(), Mixer)


def asked(recording: Recording, exercise: str) -> set[type[v.Variant]]:
    return {type(variant) for case in recording.task(exercise).cases for variant in case.variants}


def test_what_the_reference_holds_is_asked(mixer: Recording) -> None:
    of_rows = {v.OneRow, v.Rows}
    of_tokens = {v.OneToken, v.Longer, v.SameLength, v.Loud}
    of_the_module = {v.Strided, v.Reloaded, v.Copied, v.Moved, v.Again, v.Training}
    assert asked(mixer, "toy.mixer") >= of_rows | of_tokens | of_the_module


def test_an_author_may_leave_one_out_and_says_why() -> None:
    without = recorded_with_variants(mixer_exercise(without={"Training": "this one drops tokens in training"}), Mixer)
    assert v.Training not in asked(without, "toy.mixer")


def test_variants_are_written_and_read(mixer: Recording) -> None:
    cases = mixer.task("toy.mixer").cases
    encoder = Encoder()
    decoder = Decoder(encoder.tensors)
    again = [decoder.decode(TaskCase, encoder.encode(case)) for case in cases]
    assert [case.variants for case in again] == [case.variants for case in cases]
    assert any(case.variants for case in cases)


def test_a_right_program_written_otherwise_is_accepted(mixer: Recording) -> None:
    class Loop(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            rows = [(x[:, t : t + 1] @ x[:, : t + 1].mT).softmax(-1) @ x[:, : t + 1] for t in range(x.shape[1])]
            return self.proj(torch.cat(rows, dim=1))

    assert examine_here(mixer, "toy.mixer", Loop).right


def with_forward(change: Callable[[Any, Tensor], Tensor]) -> type[Mixer]:
    class Changed(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            return change(self, x)

    return Changed


def right(module: Any, x: Tensor) -> Tensor:
    return Mixer.forward(module, x)


def dropout(module: Any, x: Tensor) -> Tensor:
    return F.dropout(right(module, x), 0.5, module.training)


def squeezed(module: Any, x: Tensor) -> Tensor:
    return right(module, x).squeeze(0)


def mixes_many_rows(module: Any, x: Tensor) -> Tensor:
    return right(module, x) + (len(x) > 2) * x.mean()


def views(module: Any, x: Tensor) -> Tensor:
    return right(module, x.view(-1).view(x.shape))


def short(module: Any, x: Tensor) -> Tensor:
    return right(module, x) * (torch.arange(x.shape[1]) < 20)[:, None]


def hides_with_a_number(module: Any, x: Tensor) -> Tensor:
    seen = torch.ones(x.shape[1], x.shape[1]).tril()
    return module.proj(((x @ x.mT) - 1e4 * (1 - seen)).softmax(-1) @ x)


def keeps_its_mask(module: Any, x: Tensor) -> Tensor:
    T = x.shape[1]
    module.kept = min(module.__dict__.get("kept", T), T)
    later = torch.ones(T, T, dtype=torch.bool).tril() | (torch.arange(T) >= module.kept)
    return module.proj((x @ x.mT).masked_fill(~later, float("-inf")).softmax(-1) @ x)


def on_the_cpu(module: Any, x: Tensor) -> Tensor:
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    return module.proj((x @ x.mT).masked_fill(~seen, float("-inf")).softmax(-1) @ x)


def short_cut_for_one_token_of_one_row(module: Any, x: Tensor) -> Tensor:
    return x if x.shape[:2] == (1, 1) else right(module, x)


def clamped(module: Any, x: Tensor) -> Tensor:
    return right(module, x).clamp(-1e4, 1e4)


def wrong_for_many_rows(module: Any, x: Tensor) -> Tensor:
    return right(module, x[:1].expand_as(x) if len(x) > 8 else x)


def gives_float32_for_bfloat16(module: Any, x: Tensor) -> Tensor:
    return right(module, x) if x.dtype != torch.bfloat16 else right(module, x).float()


TABLES: dict[int, Tensor] = {}


def kept_by_length(module: Any, x: Tensor) -> Tensor:
    factor = TABLES.setdefault(x.shape[1], torch.tensor(float(x.shape[2] == 6)))
    return right(module, x) + (factor - float(x.shape[2] == 6))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dropout, "in training mode it is another"),
        (squeezed, "one row of the batch alone gives something else than in the batch"),
        (mixes_many_rows, "with the rows of the batch in another order"),
        (views, "an input that lies in memory in another order"),
        (short, "come out wrong"),
        (hides_with_a_number, "the first tokens change where those behind them are very large"),
        (clamped, "with much larger inputs it is wrong"),
        (wrong_for_many_rows, "with the rows of the batch in another order"),
        (keeps_its_mask, "no longer so once the same module was used for something else"),
        (kept_by_length, "which ran before, it is another"),
        (gives_float32_for_bfloat16, "in bfloat16 it is another: it is float32, and should be bfloat16"),
        (short_cut_for_one_token_of_one_row, "the first token alone gives something else"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_property_finds_is_told_in_its_own_words(
    mixer: Recording, change: Callable[[Any, Tensor], Tensor], told: str
) -> None:
    verdict = examine_here(mixer, "toy.mixer", with_forward(change))
    assert not verdict.right
    assert told in " ".join(to_text(report(verdict)).split())


def test_what_a_gpu_would_refuse_is_remarked_and_costs_nothing(mixer: Recording) -> None:
    verdict = examine_here(mixer, "toy.mixer", with_forward(on_the_cpu))
    assert verdict.right
    text = " ".join(to_text(report(verdict)).split())
    assert "on a GPU this raises an error: in `Tensor.masked_fill` a tensor" in text
    assert "on a GPU" not in to_text(report(examine_here(mixer, "toy.mixer", Mixer)))


def test_two_modules_share_no_weights(mixer: Recording) -> None:
    kept: dict[int, nn.Linear] = {}

    class Shares(Mixer):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.proj = kept.setdefault(config.width, self.proj)

    verdict = examine_here(mixer, "toy.mixer", Shares)
    assert not verdict.right and "of weights that two modules share the last ones count" in to_text(report(verdict))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + torch.ones(x.shape[-1]).to(x.device),
        lambda x: x + torch.ones(x.shape[-1], dtype=torch.float64).to(x),
        lambda x: x + torch.ones(x.shape[-1]).type_as(x),
        lambda x: x + x.new_ones(x.shape[-1]),
        lambda x: x + torch.ones_like(x),
        lambda x: x * torch.tensor(2.0),
        lambda x: x[:, torch.arange(2)] + x[:, :2],
        lambda x: torch.arange(6.0)[:, None].expand_as(x).to(x.device) + x,
        lambda x: torch.zeros(x.shape, device=x.device).copy_(torch.ones(x.shape)),
    ],
)
def test_what_is_moved_or_may_be_elsewhere_is_let_pass(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2, 6, 6)
    with Following():
        change(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + torch.ones(x.shape[-1]),
        lambda x: x + torch.ones(x.shape[-1], device="cpu"),
        lambda x: x + torch.ones(x.shape[-1]).float().clone()[None],
        lambda x: x.cpu() + x,
        lambda x: torch.cat([x, torch.zeros(2, 6, 6)]),
        lambda x: F.embedding(torch.arange(2), x[0]),
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(6, 6, dtype=torch.bool)),
        lambda x: x.gather(-1, torch.zeros(2, 6, 1, dtype=torch.int64)),
    ],
)
def test_two_devices_do_not_meet(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2, 6, 6)
    with Following(), pytest.raises(LeftBehind, match="was made without `device=`, meets one"):
        change(x)


class Idle(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("leaves", [lambda: Idle().__enter__(), _pop_mode])
def test_no_tensor_is_followed_any_longer_once_a_program_left_a_mode_on_or_took_one_off(leaves: Any) -> None:
    before = _get_current_function_mode_stack()
    with following():
        leaves()
    assert _get_current_function_mode_stack() == before


@pytest.mark.parametrize("on", [True, False])
def test_a_program_that_leaves_gradients_on_or_off_is_right_all_the_same(mixer: Recording, on: bool) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = Mixer.forward(self, x)
        torch.set_grad_enabled(on)
        return out

    assert examine_here(mixer, "toy.mixer", with_forward(forward)).right


def test_a_case_loses_its_points_where_it_is_right_and_a_property_of_it_is_not(mixer: Recording) -> None:
    verdict = examine_here(mixer, "toy.mixer", with_forward(dropout))
    assert sorted(case.right for case in verdict.cases) == [False, True]
    assert verdict.points == 1


def test_no_property_is_told_of_a_case_whose_output_is_wrong(mixer: Recording) -> None:
    verdict = examine_here(mixer, "toy.mixer", with_forward(lambda module, x: 2 * dropout(module, x)))
    assert "in training mode" not in to_text(report(verdict))


class Stack(nn.Module):
    """Layers that add a linear map of what they are given, as many as the config says, to x [B, T, width] + table."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = x * table
        for layer in self.layers:
            x = x + layer(x)
        return x


def stack_case(name: str, length: int) -> Case:
    build = {"config": {"width": 5, "num_hidden_layers": 2}}
    return Case(name, lambda draw: [draw.normal(2, length, 5), draw.normal(length, 5)], build)


@pytest.fixture(scope="module")
def stack() -> Recording:
    cases = [stack_case("6 tokens", 6), stack_case("4 tokens", 4)]
    return recorded_with_variants(Exercise("toy.stack", "Stack", Stack, cases, axes="B T D"), Stack)


def told_of(recording: Recording, exercise: str, program: Any) -> str:
    verdict = examine_here(recording, exercise, program)
    assert not verdict.right
    return " ".join(to_text(report(verdict)).split())


def test_every_layer_of_a_deeper_model_runs(stack: Recording) -> None:
    class Ten(Stack):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            x = x * table
            for layer in list(self.layers)[:10]:
                x = x + layer(x)
            return x

    assert v.Deeper in asked(stack, "toy.stack")
    assert "with more layers in front, whose weights are all 0" in told_of(stack, "toy.stack", Ten)


def test_a_second_call_reads_its_own_arguments(stack: Recording) -> None:
    class Keeps(Stack):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            kept = self.__dict__.setdefault("kept", table)
            return super().forward(x, kept if kept.shape == table.shape else table)

    assert "no longer so once the same module was used for something else" in told_of(stack, "toy.stack", Keeps)


def test_what_is_made_for_a_short_text_is_too_small_for_a_longer_one(mixer: Recording) -> None:
    def keeps(module: Any, x: Tensor) -> Tensor:
        T = x.shape[-2]
        kept = module.__dict__.setdefault("kept", torch.ones(T, T, dtype=torch.bool).tril())
        return module.proj((x @ x.mT).masked_fill(~kept[:T, :T], float("-inf")).softmax(-1) @ x)  # type: ignore[no-any-return]

    assert "no longer so once the same module was used for something else" in told_of(
        mixer, "toy.mixer", with_forward(keeps)
    )


def test_what_the_class_keeps_of_one_config_is_not_for_another(mixer: Recording) -> None:
    class Keeps(Mixer):
        width: int = 0

        def __init__(self, config: Config) -> None:
            super().__init__(config)
            type(self).width = config.width

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (x.shape[-1] == self.width)

    assert "after its weights were saved and loaded" in told_of(mixer, "toy.mixer", Keeps)


def test_what_is_float32_for_any_input_is_so_for_bfloat16() -> None:
    def always(x: Tensor) -> Tensor:
        return x.float() * 0.1

    def as_the_input(x: Tensor) -> Tensor:
        return x * 0.1

    cases = [Case(str(n), lambda draw, n=n: [draw.normal(n, 3)]) for n in (2, 5)]  # type: ignore[misc]
    recording = recorded_with_variants(Exercise("toy.always", "always", always, cases, function=True), always)
    told = told_of(recording, "toy.always", as_the_input)
    assert "with weights and inputs in bfloat16 it is another: it is bfloat16, and should be float32" in told


def test_more_rows_are_asked_of_all_arguments_alike() -> None:
    def dots(q: Tensor, k: Tensor) -> Tensor:
        return q @ k.mT

    def of_each_row(q: Tensor, k: Tensor) -> Tensor:
        return torch.bmm(q, k.mT)

    def of_the_first_row(q: Tensor, k: Tensor) -> Tensor:
        return (q[0] @ k[0].mT)[None]

    cases = [
        Case(str(n), lambda draw, n=n: [draw.normal(1, n, 3), draw.normal(1, n + 2, 3)])  # type: ignore[misc]
        for n in (2, 4)
    ]
    recording = recorded_with_variants(Exercise("toy.dots", "dots", dots, cases, function=True), dots)
    assert v.SameRow in asked(recording, "toy.dots")
    assert examine_here(recording, "toy.dots", of_each_row).right
    assert "where every row is the same one" in told_of(recording, "toy.dots", of_the_first_row)


def test_a_second_call_reads_its_own_window() -> None:
    class Windowed(nn.Module):
        def __init__(self, config: Config) -> None:
            super().__init__()
            self.proj = nn.Linear(config.width, config.width)

        def mask(self, T: int, window: int | None) -> Tensor:
            return torch.ones(T, T).tril().triu(-T if window is None else 1 - window)

        def forward(self, x: Tensor, window: int | None = None) -> Tensor:
            seen = self.mask(x.shape[1], window)
            return self.proj(seen / seen.sum(-1, keepdim=True) @ x)  # type: ignore[no-any-return]

    class Keeps(Windowed):
        def mask(self, T: int, window: int | None) -> Tensor:
            masks: dict[int, Tensor] = self.__dict__.setdefault("masks", {})
            return masks.setdefault(T, super().mask(T, window))

    def case(name: str, width: int, length: int, *window: int) -> Case:
        return Case(name, lambda draw: [draw.normal(2, length, width), *window], {"config": {"width": width}})

    cases = [case("6 tokens", 5, 6), case("a window of 3", 4, 7, 3)]
    recording = recorded_with_variants(Exercise("toy.windowed", "Windowed", Windowed, cases, axes="B T D"), Windowed)
    assert examine_here(recording, "toy.windowed", Windowed).right
    assert "gives another output in a second run, after other inputs" in told_of(recording, "toy.windowed", Keeps)


class Sized(nn.Module):
    """x: [..., width] -> [..., width], each number times the root of RoPE's base and of a head's width."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Linear(config.width, config.width)
        self.factor = self.theta(config) ** 0.5 * (config.get("head_dim") or 4) ** 0.5

    def theta(self, config: Config) -> float:
        return float(config.get("rope_parameters", config)["rope_theta"])

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x) * self.factor  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def sized() -> Recording:
    def case(name: str, width: int, **head_dim: int) -> Case:
        build = {"config": {"width": width, "rope_theta": 3.0, **head_dim}}
        return Case(name, lambda draw: [draw.normal(2, 3, width)], build)

    cases = [case("no head_dim", 5), case("a head_dim", 7, head_dim=6)]
    return recorded_with_variants(Exercise("toy.sized", "Sized", Sized, cases), Sized)


def test_a_null_field_is_a_missing_one(sized: Recording) -> None:
    class Default(Sized):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.factor = self.theta(config) ** 0.5 * config.get("head_dim", 4) ** 0.5

    assert examine_here(sized, "toy.sized", Sized).right
    assert "fields that are missing in the config are null in it" in told_of(sized, "toy.sized", Default)


def test_the_base_of_rope_is_read_from_both_places(sized: Recording) -> None:
    class TopLevel(Sized):
        def theta(self, config: Config) -> float:
            return float(config.rope_theta)

    assert "has RoPE's base in `rope_parameters`" in told_of(sized, "toy.sized", TopLevel)


def test_any_number_of_axes_is_taken_where_the_docstring_says_so(sized: Recording) -> None:
    class Three(Sized):
        def forward(self, x: Tensor) -> Tensor:
            B, T, D = x.shape
            return super().forward(x.view(B * T, D)).view(B, T, D)

    class AtLeastTwo(Sized):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(0, -2)).view(*x.shape) if x.ndim > 1 else super().forward(x[0])

    assert "with further axes of size 1" in told_of(sized, "toy.sized", Three)
    assert "for one vector alone" in told_of(sized, "toy.sized", AtLeastTwo)


def test_no_other_number_of_axes_is_asked_where_the_docstring_says_nothing_of_it() -> None:
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    cases = [Case(str(n), lambda draw, n=n: [draw.normal(n, 3)]) for n in (2, 5)]  # type: ignore[misc]
    recording = recorded_with_variants(Exercise("toy.doubled", "doubled", doubled, cases, function=True), doubled)
    assert not {v.MoreAxes, v.OneAxis} & asked(recording, "toy.doubled")


def test_an_argument_that_only_scales_the_output_is_no_number_to_cut() -> None:
    def product(x: Tensor, weights: Tensor) -> Tensor:
        return x * weights

    def cuts(x: Tensor, weights: Tensor) -> Tensor:
        return torch.where(weights.abs() > 1e-2, x * weights, 0.0)

    cases = [
        Case(str(n), lambda draw, n=n: [draw.normal(n, 3), 1 + draw.normal(n, 3).abs()])  # type: ignore[misc]
        for n in (2, 5)
    ]
    recording = recorded_with_variants(Exercise("toy.product", "product", product, cases, function=True), product)
    assert "with its argument number 2 times 0.001" in told_of(recording, "toy.product", cuts)


def test_what_is_kept_under_some_numbers_alone_is_wrong() -> None:
    def bytes_of(config: Config, tokens: int) -> int:
        return int(config.width * config.heads * config.size * tokens)

    def case(name: str, width: int, heads: int, size: int, tokens: int) -> Case:
        return Case(name, lambda draw: [Config({"width": width, "heads": heads, "size": size}), tokens])

    cases = [case("one", 7, 3, 2, 5), case("two", 11, 5, 4, 9), case("three", 13, 2, 8, 4), case("four", 6, 9, 1, 3)]
    recording = recorded_with_variants(Exercise("toy.bytes", "bytes_of", bytes_of, cases, function=True), bytes_of)
    kept: dict[Any, int] = {}

    def keeps(config: Config, tokens: int) -> int:
        return kept.setdefault((config.width, config.heads, tokens), bytes_of(config, tokens))

    assert examine_here(recording, "toy.bytes", bytes_of).right
    assert not examine_here(recording, "toy.bytes", keeps).right


def test_what_is_changed_in_place_without_gradients_is_told() -> None:
    def total(parts: list[Tensor]) -> Tensor:
        return parts[0] + parts[1]

    def changes(parts: list[Tensor]) -> Tensor:
        return parts[0] + parts[1] if torch.is_grad_enabled() else parts[0].add_(parts[1])

    cases = [Case(str(n), lambda draw, n=n: [[draw.normal(n), draw.normal(n)]]) for n in (3, 4)]  # type: ignore[misc]
    recording = recorded_with_variants(Exercise("toy.total", "total", total, cases, function=True), total)
    assert "the input `parts` was modified in place" in told_of(recording, "toy.total", changes)


def test_a_program_that_changes_its_configs_lists_is_told() -> None:
    class Pops(nn.LayerNorm):
        def __init__(self, config: Config) -> None:
            super().__init__(len(config.kinds))
            config.kinds.pop()

    cases = [
        Case(str(n), lambda draw, n=n: [draw.normal(2, n)], {"config": {"kinds": ["a"] * n}})  # type: ignore[misc]
        for n in (2, 3)
    ]
    exercise = Exercise("toy.list", "N", lambda config: nn.LayerNorm(len(config.kinds)), cases)
    verdict = examine_here(recorded(exercise), "toy.list", Pops)
    assert "the config's `kinds` was modified in place" in to_text(report(verdict))


def test_a_row_that_is_modified_in_place_is_told_where_it_is_alone(stack: Recording) -> None:
    class InPlace(Stack):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            y = super().forward(x, table)
            if len(x) == 1 and not torch.is_grad_enabled():
                x.zero_()
            return y

    assert "the input `x` was modified in place where there is one row" in told_of(stack, "toy.stack", InPlace)


def test_what_a_function_returned_stays_as_it_was() -> None:
    def halves(x: Tensor) -> Tensor:
        return x / 2

    kept: dict[Any, Tensor] = {}

    def in_one_memory(x: Tensor) -> Tensor:
        return kept.setdefault(x.shape, torch.empty_like(x)).copy_(x / 2)

    cases = [Case("5 numbers", lambda draw: [draw.normal(5)]), Case("3 numbers", lambda draw: [draw.normal(3)])]
    exercise = Exercise("toy.halves", "halves", halves, cases, function=True, differentiable=False)
    recording = recorded_with_variants(exercise, halves)
    assert examine_here(recording, "toy.halves", halves).right
    assert "what an earlier call returned is another afterwards" in told_of(recording, "toy.halves", in_one_memory)


def numbers_kept(config: Config, tokens: int, batch: int = 1) -> int:
    return batch * tokens * config.layers * config.heads * config.get("head_dim", config.width // config.heads)


@pytest.fixture(scope="module")
def kept() -> Recording:
    def case(name: str, tokens: int, batch: int, **config: int) -> Case:
        return Case(name, lambda _: [Config(config), tokens, batch])

    cases = [
        case("one text", 3, 1, layers=2, heads=4, width=24, positions=64),
        case("two texts", 5, 2, layers=3, heads=3, width=30, positions=32),
    ]
    return recorded_with_variants(Exercise("toy.kept", "kept", numbers_kept, cases, function=True), numbers_kept)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c, t, b: numbers_kept(c, t, b) if c.layers < 4 else 0, "with `layers` twice as large and all else as"),
        (lambda c, t, b: numbers_kept(c, t, 1) * (1 + (b > 1)), "with `batch` twice as large and 1 more and all else"),
        (lambda c, t, b: numbers_kept(c, max(t, 3), b), "with `tokens` smaller by 1"),
        (lambda c, t, b: numbers_kept(c, t, b) * (c.positions <= 64), "with `heads` twice as large and `positions`"),
    ],
)
def test_each_number_that_counts_is_asked_alone_and_those_that_do_not_together(
    kept: Recording, change: Callable[[Config, int, int], int], told: str
) -> None:
    assert v.OtherValues in asked(kept, "toy.kept")
    assert examine_here(kept, "toy.kept", lambda config, tokens, batch: numbers_kept(config, tokens, batch)).right
    assert told in told_of(kept, "toy.kept", change)


def test_a_number_of_a_modules_config_that_changes_no_shape_is_another() -> None:
    class Norm(nn.Module):
        def __init__(self, config: Config) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(config.width))
            self.eps = config.eps

        def forward(self, x: Tensor) -> Tensor:
            return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight

    class OneOfTwo(Norm):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.eps = 0.5 if config.eps > 0.4 else 0.25

    cases = [
        Case(str(eps), lambda draw, n=n: [draw.normal(2, n, n)], {"config": {"width": n, "eps": eps}})  # type: ignore[misc]
        for n, eps in ((3, 0.25), (5, 0.5))
    ]
    norm = recorded_with_variants(Exercise("toy.norm", "Norm", Norm, cases, axes="B T D"), Norm)
    assert examine_here(norm, "toy.norm", Norm).right
    assert "it is wrong with `eps` half as large and all else as it is" in told_of(norm, "toy.norm", OneOfTwo)


def test_a_list_is_asked_in_reverse_order() -> None:
    def ends(lengths: list[int]) -> Tensor:
        return torch.tensor(lengths).cumsum(0)

    def ends_of_sorted(lengths: list[int]) -> Tensor:
        return torch.tensor(sorted(lengths)).cumsum(0)

    cases = [Case(str(n), lambda draw, n=n: [list(range(1, n))]) for n in (4, 6)]  # type: ignore[misc]
    recording = recorded_with_variants(Exercise("toy.ends", "ends", ends, cases, function=True), ends)
    assert examine_here(recording, "toy.ends", ends).right
    assert "with `lengths` in reverse order" in told_of(recording, "toy.ends", ends_of_sorted)


def words_and_lengths(text: str, lengths: list[int], tokens: int) -> list[int]:
    return [len(text.split()), len(lengths), tokens * (tokens + 1) // 2]


@pytest.fixture(scope="module")
def ends() -> Recording:
    cases = [
        Case(str(n), lambda draw, n=n: ["some words"[: n + 4], list(range(2, n)), n])  # type: ignore[misc]
        for n in (4, 6)
    ]
    exercise = Exercise("toy.ends", "ends", words_and_lengths, cases, function=True, without={"tokens one": "a reason"})
    return recorded_with_variants(exercise, words_and_lengths)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t, n, k: [min(len(t.split()), 200), len(n), k * (k + 1) // 2], "with `text` 300 times as long"),
        (lambda t, n, k: [len(t.split()), len(n), min(k, 512) * (k + 1) // 2], "with `tokens` 1,000 times as large"),
    ],
)
def test_texts_and_numbers_are_asked_large(
    ends: Recording, change: Callable[[str, list[int], int], list[int]], told: str
) -> None:
    assert examine_here(ends, "toy.ends", words_and_lengths).right
    assert told in told_of(ends, "toy.ends", change)


def test_a_value_that_an_exercise_is_without_is_not_asked(ends: Recording) -> None:
    assert examine_here(ends, "toy.ends", lambda t, n, k: [len(t.split()), len(n), k * (k + 1) // 2 - (k == 1)]).right


def half(x: Tensor) -> Tensor:
    return x / 2


def seeded_again(x: Tensor) -> Tensor:
    before = torch.initial_seed()
    torch.manual_seed(1)
    torch.manual_seed(before)
    return x / 2


def seeded_in_python(x: Tensor) -> Tensor:
    random.seed(5)
    return x / 2


def seeded_in_numpy(x: Tensor) -> Tensor:
    np.random.seed(5)
    return x / 2


@pytest.mark.parametrize(
    ("seeds", "whose"), [(seeded_again, "torch"), (seeded_in_python, "random"), (seeded_in_numpy, "numpy.random")]
)
def test_a_seed_that_stays_is_told(seeds: Callable[[Tensor], Tensor], whose: str) -> None:
    cases = [Case("5 numbers", lambda draw: [draw.normal(5)])]
    recording = recorded_with_variants(Exercise("toy.half", "half", half, cases, function=True), half)
    state = random.getstate(), np.random.get_state()
    try:
        said = told_of(recording, "toy.half", seeds)
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
    assert f"the seed of {whose}'s random numbers is another afterwards" in said
