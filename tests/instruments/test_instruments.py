"""What lessons measure and draw with, against answers worked out by hand."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import WordLevel
from torch import Tensor, nn

from grader.instruments import clock, patch, plots, progress, tables, work, writing

# Clocks


class Watch:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        left = iter(seconds)

        def run() -> None:
            self.now += next(left)

        return run


@pytest.fixture(autouse=True)
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADER_CLOCK_REPEATS", raising=False)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch()
    monkeypatch.setattr(clock.time, "perf_counter", made.perf_counter)
    monkeypatch.setattr(clock, "_wait_for_devices", lambda: None)
    return made


def test_the_clock_reports_the_median_and_leaves_the_first_call_out(watch: Watch) -> None:
    assert clock.milliseconds(watch.takes(9.0, 0.002, 0.5, 0.004, 0.003, 0.001), repeats=5) == pytest.approx(3.0)


def test_a_first_call_counts_where_it_is_asked_for(watch: Watch) -> None:
    assert clock.once(watch.takes(9.0, 0.002)) == pytest.approx(9000.0)


def test_calls_take_turns(watch: Watch) -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    assert set(clock.in_turns(runs, repeats=3)) == {"a", "b"}
    assert "".join(order) == "abababab"


def test_the_environment_bounds_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_CLOCK_REPEATS", "2")
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "ab"}
    clock.in_turns(runs, repeats=5)
    assert "".join(order) == "ababab"


def test_without_repeats_the_first_call_counts(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_CLOCK_REPEATS", "0")
    assert clock.milliseconds(watch.takes(0.002), repeats=5) == pytest.approx(2.0)


def test_the_clock_runs_without_gradients() -> None:
    seen: list[bool] = []
    clock.milliseconds(lambda: seen.append(torch.is_grad_enabled()), repeats=1)
    assert seen == [False, False] and torch.is_grad_enabled()


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one call"):
        clock.milliseconds(lambda: None, repeats=0)


# Counters


@pytest.mark.parametrize(
    ("run", "count"),
    [
        (lambda: torch.ones(3, 5) @ torch.ones(5, 7), 3 * 5 * 7),
        (lambda: torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7)), 2 * 3 * 5 * 7),
        (lambda: nn.Linear(5, 7)(torch.ones(3, 5)), 3 * 5 * 7),
        (lambda: F.conv1d(torch.ones(1, 3, 10), torch.ones(7, 3, 4)), 7 * 7 * 3 * 4),
        (lambda: torch.ones(3, 5).softmax(-1) + 1, 0),
    ],
    ids=["mm", "bmm", "linear", "conv", "no product"],
)
def test_multiply_adds_are_those_of_a_hand_count(run: Callable[[], Any], count: int) -> None:
    assert work.multiply_adds(run) == count


def test_multiply_adds_of_attention_are_those_of_its_two_products() -> None:
    batch, heads, queries, keys, width = 2, 3, 5, 8, 4
    q, k, v = (torch.randn(batch, heads, length, width) for length in (queries, keys, keys))
    by_hand = 2 * batch * heads * queries * keys * width  # q kᵀ, and the weights times v
    assert work.multiply_adds(lambda: (q @ k.mT).softmax(-1) @ v) == by_hand
    assert work.multiply_adds(lambda: F.scaled_dot_product_attention(q, k, v)) == by_hand


def test_copies_are_counted_in_bytes() -> None:
    room, new = torch.zeros(10), torch.ones(2)

    def run() -> None:
        room[:2] = new  # 8 bytes
        torch.cat([new, new, new])  # 24 bytes

    assert work.bytes_copied(run) == 32


def test_the_largest_tensor_is_no_view_of_a_larger_one() -> None:
    large = torch.zeros(1000)
    assert work.largest_tensor(lambda: large.view(10, 100)[:3] + 1) == 300 * 4


def test_bytes_held_are_those_behind_a_view_and_counted_once() -> None:
    class Cache:
        def __init__(self) -> None:
            self.memory = torch.zeros(100)
            self.keys, self.length = self.memory[:10], 3

    assert work.bytes_held(Cache()) == 400
    assert work.bytes_held([Cache(), Cache()], {"x": torch.zeros(5)}) == 820
    assert work.bytes_held(nn.Linear(3, 2)) == (3 * 2 + 2) * 4


def test_operators_stand_below_the_one_that_called_them() -> None:
    shown = work.operators(lambda: F.linear(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4))).splitlines()
    at = shown.index("aten::linear")
    assert any(line.strip() == "aten::addmm" and line.startswith("    ") for line in shown[at + 1 :])
    shallow = work.operators(lambda: F.linear(torch.ones(2, 3), torch.ones(4, 3)), depth=1)
    assert "aten::linear" in shallow and "    " not in shallow


# Changed parts


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.inner(x)
        return 2 * inner


def test_a_part_is_replaced_within_the_with_and_back_after_it_even_after_an_error() -> None:
    change = patch.replaced(Double, forward=lambda self, x: x)
    own, x = Double.forward, torch.ones(1, 2)
    for _ in range(2):  # it may be used again
        with pytest.raises(RuntimeError), change:
            assert Double()(x) is x
            raise RuntimeError
        assert Double.forward is own


def test_an_item_of_a_dict_and_a_module_of_a_model_are_replaced_too() -> None:
    names, model = {"mask": 1}, Double()
    with patch.together(patch.replaced(names, mask=2), patch.replaced(model.inner, forward=lambda x: x)):
        assert names["mask"] == 2 and torch.equal(model(torch.ones(1, 2)), 2 * torch.ones(1, 2))
    assert names == {"mask": 1} and "forward" not in vars(model.inner)


def test_what_a_cell_writes_while_a_global_is_replaced_stays() -> None:
    names: dict[str, Any] = {"mask": 1}
    with patch.replaced(names, mask=2):
        names["loss"] = names["mask"] + 1
    assert names == {"mask": 1, "loss": 3}


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(AttributeError):
        patch.replaced(Double, forwards=None)
    with pytest.raises(KeyError):
        patch.replaced({}, mask=None)


def test_rows_are_silenced_and_have_their_values_again() -> None:
    weight = nn.Parameter(torch.arange(6.0).view(3, 2))
    before = weight.detach().clone()
    with patch.silenced(weight, slice(1, 3)):
        assert weight.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert torch.equal(weight, before)


def test_what_a_part_is_given_and_gives_is_found_by_its_path() -> None:
    model, x = Double(), torch.randn(3, 2)
    call = patch.calls_in(model, x)["inner"]
    assert call.input is not None and call.output is not None
    assert torch.equal(call.input, x) and torch.allclose(2 * call.output, model(x))


def test_attention_weights_are_those_that_mix_the_values() -> None:
    torch.manual_seed(0)
    heads, tokens, width = 3, 5, 4
    joined = torch.randn(tokens, 3 * heads * width)
    q, k, v = (part.view(tokens, heads, width).transpose(0, 1) for part in joined.chunk(3, dim=1))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(patch.attention_weights(joined, heads) @ v, mixed)


# Progress, text, tables


@pytest.mark.parametrize(
    ("done", "total", "seconds", "words"),
    [
        (3, 12, 10.0, "3 of 12, about 30 s left"),
        (1, 100, 2.0, "1 of 100, about 3 min 18 s left"),
        (12, 12, 92.0, "12 of 12 in 1 min 32 s"),
        (5, None, 3.0, "5 in 3 s"),
        (0, 4, 0.0, "0 of 4"),
    ],
)
def test_the_time_that_is_left(done: int, total: int | None, seconds: float, words: str) -> None:
    assert progress.line(done, total, seconds) == words


def test_a_bar_is_there_from_the_start_and_makes_room_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_place_in_notebook", lambda: shown.append)

    def slow() -> Iterator[int]:
        for i in range(4):
            now[0] += 0.6
            yield i

    assert list(progress.steps(slow(), "programs", total=4)) == [0, 1, 2, 3]
    assert [contents["text/plain"] for contents in shown] == [
        "programs: 0 of 4",
        "programs: 1 of 4, about 2 s left",
        "programs: 2 of 4, about 1 s left",
        "programs: 3 of 4, about 1 s left",
        "programs: 4 of 4 in 2 s",
        "programs: 4 in 2 s",
    ]
    assert "<progress" in shown[0]["text/html"] and "<progress" not in shown[-1]["text/html"]


def test_what_takes_less_than_a_second_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(progress, "_place_in_notebook", lambda: shown.append)
    assert list(progress.steps("ab")) == ["a", "b"]
    assert shown[0]["text/plain"] == "0 of 2" and shown[-1] == {"text/plain": ""}


def test_outside_a_notebook_steps_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.steps([1, 2])) == [1, 2]
    assert capsys.readouterr().out == ""


def test_text_is_shown_from_the_first_token_on(capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = {"It": 0, "Ġis": 1, "Ã": 2, "©": 3}  # the last two are the bytes of é
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="It"))
    tokenizer.decoder = ByteLevel()
    shown: list[str] = []

    def tokens() -> Iterator[Tensor]:
        for i in (0, 1, 2, 3):
            yield torch.tensor(i)
            shown.append(capsys.readouterr().out)

    assert writing.write(tokens(), tokenizer, prompt="> ") == [0, 1, 2, 3]
    assert shown == ["> It", " is", "", "é"] and capsys.readouterr().out == "\n"


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    tables.table({"layers": [12, 36], "eps": [1e-5, None]}, head=["GPT-2", "Qwen3"])
    assert capsys.readouterr().out.splitlines() == [
        "        GPT-2  Qwen3",
        "layers     12     36",
        "   eps  1e-05      -",
    ]


# The room


def test_importing_the_room_imports_no_library() -> None:
    code = "import sys, grader.instruments; print(sorted({'torch', 'matplotlib', 'ipywidgets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_clock_waits_for_what_it_times() -> None:
    assert clock.milliseconds(lambda: time.sleep(0.02), repeats=1) >= 20


def test_a_place_shows_the_last_picture_and_nothing_outside_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    progress.Place().show(plots.lines({"loss": ([1, 2], [3.0, 2.0])}))  # no notebook, no error
    shown: list[dict[str, Any]] = []
    words: list[str] = []

    def update(data: dict[str, Any], metadata: dict[str, Any]) -> None:
        shown.append(data)
        words.append(metadata["image/png"]["alt"])  # by this the build knows a picture, and stores its PNG

    monkeypatch.setattr(progress, "_place_in_notebook", lambda: update)
    place = progress.Place()
    for loss in ([3.0], [3.0, 2.0]):
        place.show(plots.lines({"loss": (range(len(loss)), loss)}))
    assert len(shown) == 2 and "<img alt=" in shown[-1]["text/html"] and "to 2 at 1" in shown[-1]["text/plain"]
    assert words[-1] == shown[-1]["text/plain"]
