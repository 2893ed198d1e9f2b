"""How a report looks and what it dares to say: names only where they fit, and what may help where none does."""

import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from rich.console import Console
from torch import Tensor, nn

import grader.checks.stale
from grader import case
from grader.checks.examine import examine_here
from grader.checks.judge import judge
from grader.checks.judge.axes import moved, reordered, scaled
from grader.checks.judge.diagnose import Context, describe
from grader.checks.judge.difference import difference
from grader.checks.judge.known_mistakes import suspects
from grader.checks.judge.torch_errors import hint_for
from grader.checks.judge.verdict import CaseVerdict, Finding, Verdict
from grader.checks.judge.wording import report
from grader.checks.layout import are_pieces, piece_of
from grader.checks.observation import Observation
from grader.errors import GraderError
from grader.lessons.lesson import Lesson
from grader.names import explain_names
from grader.recordings.answers import Answer, MistakeAnswer
from grader.recordings.recording import Recording
from grader.recordings.tasks import Task, TaskCase
from grader.report import DARK, LIGHT, Line, print_to, row, to_html, to_text
from grader.tolerance import BY_DTYPE, agree, tolerance_for

LESSON = Lesson(Path(__file__).resolve().parents[2] / "solutions" / "01-gpt2")
AXES = ("B", "T", "D")


@cache
def recorded() -> Recording:
    return Recording.read(LESSON.recording)


def solution_with(exercise: str, *changes: tuple[str, str]) -> Any:
    """The solution of an exercise, changed."""
    source = LESSON.source_of(exercise)
    for find, replace in changes:
        assert source.count(find) == 1, find
        source = source.replace(find, replace)
    return LESSON.namespace((exercise, source))[recorded().task(exercise).solution]


def verdict_with(exercise: str, *changes: tuple[str, str]) -> Verdict:
    return examine_here(recorded(), exercise, solution_with(exercise, *changes))


def text_with(exercise: str, *changes: tuple[str, str]) -> str:
    return to_text(report(verdict_with(exercise, *changes)))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Names


def named(outputs: Sequence[Tensor | None], wants: Sequence[Tensor], **mistakes: Sequence[Tensor]) -> Any:
    answer = Answer(
        "toy",
        1,
        (),
        ({},) * len(wants),
        tuple(wants),
        tuple(BY_DTYPE.get(want.dtype, BY_DTYPE[torch.float32]) for want in wants),
        tuple(MistakeAnswer(name, "", tuple(given)) for name, given in mistakes.items()),
    )
    correct = [got is not None and agree(got, want) for got, want in zip(outputs, wants, strict=True)]
    return suspects(answer, outputs, correct)


def names(mistakes: Sequence[MistakeAnswer]) -> list[str]:
    return [mistake.name for mistake in mistakes]


WANTS = [normal(20, seed=1), normal(20, seed=2)]


def test_a_mistake_that_explains_every_wrong_case_is_named() -> None:
    found = named([2 * w for w in WANTS], WANTS, doubled=[2 * w for w in WANTS], halved=[w / 2 for w in WANTS])
    assert names(found.fitting) == ["doubled"] and found.in_part == ((), ()) and not found.near


def test_a_mistake_that_explains_only_one_of_two_wrong_cases_is_named_for_that_case_alone() -> None:
    found = named([2 * WANTS[0], -WANTS[1]], WANTS, doubled=[2 * w for w in WANTS])
    assert not found.fitting and [names(each) for each in found.in_part] == [["doubled"], []]


def test_a_case_that_gave_nothing_is_explained_by_no_mistake() -> None:
    assert not named([2 * WANTS[0], None], WANTS, doubled=[2 * w for w in WANTS]).fitting


def test_a_mistake_that_would_show_in_a_right_case_is_not_named() -> None:
    assert not named([2 * WANTS[0], WANTS[1]], WANTS, doubled=[2 * w for w in WANTS]).fitting


def test_two_mistakes_that_fit_alike_are_both_named_and_the_nearer_alone_otherwise() -> None:
    twice = [2 * w for w in WANTS]
    almost = [2 * w * (1 + 1e-6) for w in WANTS]
    assert names(named(twice, WANTS, one=twice, other=twice).fitting) == ["one", "other"]
    assert names(named(almost, WANTS, one=twice, other=almost).fitting) == ["other"]


def test_a_few_numbers_that_are_the_same_by_chance_name_nothing() -> None:
    wants = [torch.tensor([3, 5]), torch.tensor([4, 6])]
    found = named([torch.tensor([1, 2]), torch.tensor([9, 9])], wants, chance=[torch.tensor([1, 2]), wants[1]])
    assert not found.fitting and found.in_part == ((), ())


def test_only_a_mistake_that_is_measurably_near_is_asked_about() -> None:
    near, far = [1.9 * w for w in WANTS], [-w for w in WANTS]
    found = named(near, WANTS, doubled=[2 * w for w in WANTS], negated=far)
    assert not found.fitting and names(found.near) == ["doubled"]
    assert not named([1.4 * w for w in WANTS], WANTS, doubled=[2 * w for w in WANTS]).near


def test_a_scale_that_is_a_known_mistakes_in_some_cases_only_is_not_called_that() -> None:
    verdict = verdict_with("gpt2.attention", ("self.head_dim**-0.5", "(0.125 if self.head_dim == 8 else 0.3)"))
    text = to_text(report(verdict))
    assert not any(each.finding and each.finding.mistake for each in verdict.cases)
    assert "This is what comes out when" not in text
    assert "the scores are divided by head_dim, but that does not explain the other wrong cases" in text


def test_what_only_tiny_inputs_or_one_dtype_show_is_said() -> None:
    tiny = ("torch.sqrt(variance + self.eps)", "torch.sqrt(variance + 0.4 * self.eps)")
    assert "Only tiny inputs are wrong" in text_with("gpt2.layer_norm", tiny)
    casts = (
        "return normed * self.weight + self.bias",
        "y = normed * self.weight + self.bias\n        return y + (x.dtype == torch.bfloat16)",
    )
    assert "Only what is in bfloat16 is wrong" in text_with("gpt2.layer_norm", casts)


def test_a_single_number_that_is_near_a_mistakes_asks_about_none() -> None:
    want = torch.tensor(1.0, dtype=torch.float64)
    assert not named([0.9956 * 2 * want], [want], doubled=[2 * want]).near


def test_wrong_counts_of_one_dtype_are_no_matter_of_casts() -> None:
    cases = [
        TaskCase(name, {}, (), dtype, {}) for name, dtype in (("values", torch.float32), ("bytes", torch.bfloat16))
    ]
    task = Task("toy", "Toy", False, False, {}, tuple(cases))
    wants = (normal(20), torch.tensor([5, 7, 9]))
    answer = Answer("toy", 2, (), ({}, {}), wants, tuple(tolerance_for(want.dtype) for want in wants))
    seen = [Observation("values", wants[0], again=wants[0]), Observation("bytes", 2 * wants[1], again=2 * wants[1])]
    text = to_text(report(judge(task, answer, seen)))
    assert "it gave 10, 14, 18" in text.replace("It", "it") and "are cast" not in text


# What a wrong tensor looks like


WANT = normal(2, 5, 6, seed=3)


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (torch.cat([WANT[..., :1], WANT[..., :-1]], -1), "one place of D earlier: shifted right by one"),
        (torch.cat([WANT[:, 1:], WANT[:, :1]], 1), "one position later: shifted left by one"),
        (WANT.flip(1), "along T they are in reverse"),
        (WANT[..., [2, 0, 1, 5, 3, 4]], "along D they are in another order: 2, 0, 1, 5, 3, 4"),
        (WANT * torch.arange(1.0, 6.0)[:, None], "a factor that depends on T alone: 1 to 5"),
        (WANT * torch.tensor([1.0, 3.0])[:, None, None], "a factor that depends on B alone: 1 to 3"),
    ],
)
def test_what_happened_along_an_axis_is_told(got: Tensor, told: str) -> None:
    assert told in str(describe(got, WANT, Context(AXES)))


def test_no_axis_is_blamed_for_what_happened_along_none() -> None:
    other = normal(2, 5, 6, seed=4)
    for finder in (moved, reordered, scaled):
        assert finder(other, WANT, AXES) is None
        assert finder(WANT, WANT, AXES) is None


def test_lists_of_whole_numbers_show_what_was_got_and_wanted() -> None:
    said = describe(torch.tensor([4, 6]), torch.tensor([15, 4, 6]), Context())
    assert said == "it gave 2 values, and should give 3: 4, 6; 15, 4, 6 belongs there"
    long = torch.arange(30)
    said = str(describe(torch.where(long == 20, 7, long), long, Context()))
    assert "17, 18, 19, 7, 21" in said and "17, 18, 19, 20, 21" in said and "from position 20 on" in said


@pytest.mark.parametrize(
    ("lesson", "exercise", "change", "told"),
    [
        (
            *("07-moe", "moe.parameters", ("expert = 3 * D", "expert = 5 * D")),
            "“active” is 23,040, and should be 17,280 (1.333 times, 5,760 too many)",
        ),
        (
            *("08-sparse-attention", "sparse_attention.costs"),
            ("(row + config.kv_lora_rank)", "(row + 7 * config.kv_lora_rank)"),
            "“bytes” is right",
        ),
    ],
)
def test_which_of_several_numbers_is_which_is_said(
    lesson: str, exercise: str, change: tuple[str, str], told: str
) -> None:
    own = Lesson(LESSON.folder.parent / lesson)
    source = own.source_of(exercise)
    assert source.count(change[0]) == 1
    recording = Recording.read(own.recording)
    name = recording.task(exercise).solution
    verdict = examine_here(recording, exercise, own.namespace((exercise, source.replace(*change)))[name])
    found = [case.finding.what for case in verdict.cases if case.finding]
    assert any(told in what for what in found), found


def test_numbers_that_a_case_names_are_told_by_these_names() -> None:
    numbers = Context(numbers=("numbers", "bytes"))
    assert describe(torch.tensor([624, 1248]), torch.tensor([312, 1248]), numbers) == (
        "“numbers” is 624, and should be 312 (2 times, 312 too many); “bytes” is right"
    )


def test_a_vector_that_puts_things_together_is_told_by_their_names() -> None:
    numbers, right = Context(numbers=("norm", "gradients...")), torch.tensor([7.7, 0.1, 0.2, 0.3])
    norm_wrong, rest_wrong = right.clone(), right.clone()
    norm_wrong[0] = 11.55
    rest_wrong[2] = 5.0
    assert describe(norm_wrong, right, numbers) == "“norm” is 11.55, and should be 7.7; “gradients” are right"
    assert describe(rest_wrong, right, numbers) == "“norm” is right; “gradients” are wrong in 1 of 3 values"


# Composites


MLP = "return x + self.mlp(self.ln_2(x))"


@pytest.mark.parametrize(
    "pieces",
    [
        "n = self.ln_2(x)\n        m = torch.cat([self.mlp(n[:, :2]), self.mlp(n[:, 2:])], 1)",
        "m = torch.stack([self.mlp(one) for one in self.ln_2(x)])",
    ],
)
def test_a_part_that_is_called_once_a_piece_is_not_called_too_often(pieces: str) -> None:
    assert verdict_with("gpt2.block", (MLP, f"{pieces}\n        return x + m")).right
    text = text_with("gpt2.block", (MLP, f"{pieces}\n        return x + 0.5 * m"))
    assert "is called" not in text
    assert "the output contains the output of `mlp` 0.5 times, and should contain it once" in text


def test_pieces_are_told_from_other_calls() -> None:
    whole = normal(3, 4, 5)
    assert are_pieces(whole.split(2, 1), [whole]) and are_pieces(list(whole), [whole])
    assert not are_pieces([whole], [whole]) and not are_pieces([whole[:, :2], whole[:, :2]], [whole])
    answer, start, ends = piece_of(whole[:, :3], whole.shape, 2 * whole, 0) or (whole, 0, True)
    assert torch.equal(answer, 2 * whole[:, :3]) and (start, ends) == (3, False)
    assert piece_of(whole[:, :3], whole.shape, 2 * whole, 3) is None
    assert piece_of(normal(7, 5), whole.shape, whole, 0) is None


def test_a_part_that_is_used_without_a_call_is_not_said_to_be_never_called() -> None:
    functional = ("return self.c_proj(mixed)", "return mixed @ self.c_proj.weight + self.c_proj.bias")
    assert verdict_with("gpt2.attention", functional).right
    text = text_with("gpt2.attention", functional, ("self.head_dim**-0.5", "0.9"))
    assert "never called" not in text
    assert "`mlp` is never called" in text_with("gpt2.block", (MLP, "return x + self.ln_2(x)"))


def test_a_layout_that_is_allowed_is_not_the_error() -> None:
    moved_axes = ("return self.c_proj(mixed)", "return self.c_proj(0.378 * mixed.transpose(0, 1)).transpose(0, 1)")
    text = text_with("gpt2.attention", moved_axes)
    assert "`c_proj` was given something else than it should be: every value is 0.378 times" in text
    assert "the axes are in the order" not in text


def test_layers_that_are_too_many_or_too_few_are_counted() -> None:
    assert "`h.3` to `h.11` are too many: the checkpoint has 3 in `h`, and this has 12" in text_with(
        "gpt2.model", ("range(config.n_layer)", "range(12)")
    )
    wanted = {f"h.{i}.weight": torch.zeros(2) for i in range(3)}
    own = {f"h.{i}.weight": (2,) for i in range(2)}
    assert explain_names(own, wanted, []) == ["`h.2` is missing: the checkpoint has 3 in `h`, and this has 2"]


# Experiments


def test_a_case_gives_the_module_its_input_and_what_belongs_there() -> None:
    one = case("gpt2.layer_norm", "tiny inputs", recording=LESSON.recording)
    layer_norm = solution_with("gpt2.layer_norm")
    got = one.module(layer_norm)(one.input)
    assert torch.allclose(got, one.expected, atol=1e-5) and torch.allclose(one.run(layer_norm), one.expected, atol=1e-5)
    one.input.zero_()
    assert one.input.abs().max() > 0 and "tiny inputs" in repr(one)
    tokens = case("gpt2.generate", "8 new tokens", recording=LESSON.recording)
    assert tokens.run(solution_with("gpt2.generate")).tolist() == tokens.expected.tolist()
    with pytest.raises(GraderError, match="is a function"):
        tokens.module(layer_norm)
    with pytest.raises(GraderError, match="parameters are not the checkpoint's"):
        one.module(lambda dim, eps: nn.Linear(dim, dim))  # type: ignore[arg-type]


def test_an_unknown_case_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(GraderError, match=r'has no case "tiny"\. Its cases are: "ordinary inputs"'):
        case("gpt2.layer_norm", "tiny", recording=LESSON.recording)


def test_a_report_without_a_name_says_how_to_try_the_case() -> None:
    strange = ("return normed * self.weight + self.bias", "return normed.abs() * self.weight + self.bias")
    assert 'case("gpt2.layer_norm", "ordinary inputs")' in text_with("gpt2.layer_norm", strange)
    assert "case(" not in text_with("gpt2.layer_norm", ("variance + self.eps", "variance"))


# At a glance


def one_wrong(got: Tensor, want: Tensor, what: str = "it is odd") -> CaseVerdict:
    return CaseVerdict("odd", False, False, difference(got, want, BY_DTYPE[torch.float32]), Finding(what))


def test_two_numbers_that_differ_are_shown_with_the_digits_that_tell_them_apart() -> None:
    text = to_text(report(Verdict("toy", (one_wrong(torch.tensor([1.0640, 1.0]), torch.tensor([1.0642, 1.0])),), 1)))
    assert re.search(r"1\.064 +1\.0642", text), text


def test_a_case_that_the_first_sentence_describes_has_no_empty_row() -> None:
    raised = CaseVerdict("empty", False, finding=Finding("it raised IndexError"))
    off = CaseVerdict("long", False, False, difference(torch.zeros(3), torch.ones(3), BY_DTYPE[torch.float32]))
    lines = report(Verdict("toy", (raised, off), 2))
    row = next(line.cells for line in lines if line.cells[:2] == ("✗", "empty"))
    assert row[-1] == "see above" and not any(row[2:-1]) and "it raised IndexError" in lines[1].text


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (lambda: torch.ones(2, 6) @ torch.ones(10, 6), "fits if it is transposed"),
        (lambda: torch.ones(2, 6) @ torch.ones(10, 5), ""),
        (lambda: torch.ones(2, 3, 4).transpose(1, 2).view(2, 12), "only transpose exchanges two"),
        (lambda: torch.ones(3).view(2), ""),
    ],
)
def test_what_pytorchs_own_message_leaves_unsaid_is_added(program: Callable[[], Any], told: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        program()
    hint = hint_for(str(raised.value))
    assert told in hint and bool(hint) == bool(told)


def test_what_cases_have_in_common_is_said_once() -> None:
    cases = [one_wrong(normal(3, seed=i), normal(3, seed=i + 9), "it is odd") for i in range(5)]
    text = to_text(report(Verdict("toy", tuple(cases), 1)))
    assert text.lower().count("it is odd") == 1 and text.count("✗") == 6 and "In the case" not in text


FORGOTTEN = ("x.mean(dim=-1, keepdim=True)", "x.mean(dim=-1)")


def test_one_error_in_several_cases_is_told_once_with_the_shapes_that_met() -> None:
    text = text_with("gpt2.layer_norm", FORGOTTEN)
    assert text.count("must match the size of tensor b") == 1 and "✗  tiny inputs" not in text
    assert text.splitlines()[2:] == [
        "    line 18, in forward:  normed = (x - mean) / torch.sqrt(variance + self.eps)  # [..., dim]",
        "    x is [2, 7, 40], mean is [2, 7], variance is [2, 7, 1]",
        "  The same error in 5 further cases.",
    ]


def test_an_error_is_told_without_what_is_another_in_every_run() -> None:
    odd = "import tempfile; open(tempfile.mkdtemp() + '/run.pt')\n        normed = (x - mean)"
    text = text_with("gpt2.layer_norm", ("normed = (x - mean)", odd))
    assert "No such file or directory: '.../run.pt'" in text and text.count("run.pt") == 2
    odd = "raise TypeError(f'not for {object()}')\n        normed = (x - mean)"
    assert "It raised TypeError: not for <object object>" in text_with("gpt2.layer_norm", ("normed = (x - mean)", odd))


def test_another_error_among_them_keeps_its_own_words() -> None:
    odd = "if x.dtype == torch.bfloat16: raise ValueError('coarse')\n        normed = (x - mean)"
    text = text_with("gpt2.layer_norm", FORGOTTEN, ("normed = (x - mean)", odd))
    assert "The same error in 4 further cases." in text
    assert re.search(r"✗  tiny inputs +see above", text)
    assert re.search(r"✗  bfloat16 +it raised ValueError: coarse", text)


def test_the_same_words_from_another_line_are_another_error() -> None:
    twice = "assert x.ndim == 2 or False, 'odd'\n        assert x.ndim > 2, 'odd'\n        normed = (x - mean)"
    text = text_with("gpt2.layer_norm", ("normed = (x - mean)", twice))
    assert "The same error in 4 further cases." in text  # of six: one stopped at the second line


def test_shapes_are_those_of_the_line_that_failed_a_weights_among_them() -> None:
    text = text_with("gpt2.conv1d", ("F.linear(x, self.weight.T, self.bias)", "x @ self.weight.T + self.bias"))
    assert re.search(r"x is \[2, 7, \d+\], self.weight is \[\d+, \d+\], self.bias is \[\d+\]", text), text


def test_an_untouched_stub_is_not_started() -> None:
    lines = report(
        verdict_with("gpt2.gelu", ("inner = math.sqrt", "raise NotImplementedError()\n        inner = math.sqrt"))
    )
    assert lines[0] == Line("○ gpt2.gelu · not started", "idle")
    assert "`GELU.forward` is not written yet" in lines[1].text and len(lines) == 2


def test_the_columns_of_a_table_align_and_numbers_stand_to_the_right() -> None:
    table = [
        row("head", "", "case", "wrong"),
        row("wrong", "✗", "a long name", "all 7"),
        row("right", "✓", "b", "3 of 71"),
    ]
    assert to_text(table).splitlines() == [
        "   case           wrong",
        "✗  a long name    all 7",
        "✓  b            3 of 71",
    ]


def test_where_a_notebook_drops_our_style_names_still_stand_to_the_left_and_no_column_is_empty() -> None:
    """JupyterLab, untrusted: `style` attributes are all that is left, and its own rule puts cells to the right."""
    page = to_html([row("head", "", "module", "max", ""), row("row_ok", "[OK]", "  h.0", "0.25", "")])
    cells = re.findall(r"<t[hd]\b([^>]*)>(.*?)</t[hd]>", page)
    assert [shown for _, shown in cells] == ["", "module", "max", "[OK]", "&nbsp;&nbsp;h.<wbr>0", "0.25"]
    assert ["text-align:left" in attributes for attributes, _ in cells] == [True, True, False, True, True, False]


SAMPLE = [
    Line("✗ toy · 1 of 2 cases right", "bad"),
    Line("This is what comes out when `x` is <b>twice</b> as long as it should be, " * 3, "text", 1),
    Line("Look at `x`.", "hint", 1),
    Line("line 3: x = 1", "code", 2),
    row("head", "", "case", "wrong", "first at", indent=1),
    row("right", "✓", "one", "", "", indent=1),
    row(
        "wrong",
        "✗",
        "a case whose name is long enough to be wrapped",
        "all 240",
        "[0, 1]",
        indent=1,
    ),
    Line("muted", "muted", 1),
    row("row_ok", "[OK]", "h.0", "2.4e-07", ""),
    row("row_guilty", "[DIFF]", "  h.1", "3.1e+00", "own error"),
    row("row_bad", "[DIFF]", "h.2", "3.1e+00", "own error"),
    row("row_dim", "[DIFF]", "h.3", "3.1e+00", "inherited"),
    Line("not started", "idle"),
    Line("This shipped in o/r#1: https://github.com/o/r/issues/1", "link"),
]


def printed(monkeypatch: pytest.MonkeyPatch, no_color: str | None) -> str:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    print_to(Console(file=file, force_terminal=True, width=80, highlight=False), SAMPLE)
    return file.getvalue()


def test_a_terminal_of_80_columns_gets_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, plain = printed(monkeypatch, None), printed(monkeypatch, "1")
    assert re.search(r"\x1b\[[\d;]*3[12]m", coloured)
    assert not re.search(r"\x1b\[[\d;]*3\dm", plain)
    words = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert max(map(len, words.splitlines())) <= 80
    assert words == re.sub(r"\x1b\[[\d;]*m", "", plain)
    for line in SAMPLE:
        for cell in line.cells or (line.text,):
            assert set(cell.split()) <= set(words.split())


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_can_be_read_on_every_background_of_a_report(palette: dict[str, str]) -> None:
    """A report brings its own background, so what page it stands in changes nothing."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for text in ("text", "ok", "bad", "dim", "link"):
        for background in ("page", "tint", "code"):
            assert contrast(palette[text], palette[background]) >= 4.5, (text, background)


def test_the_style_uses_no_colour_but_the_palettes() -> None:
    style = re.findall(r"<style>(.*?)</style>", to_html(SAMPLE))[0]
    rules = re.sub(r"--g-\w+:#[0-9a-f]{6}", "", style)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", rules)
    used = set(re.findall(r"var\(--g-(\w+)\)", rules))
    assert used <= LIGHT.keys() == DARK.keys()
    for value in re.findall(r"(?<![-\w])(?:color|background):([^;}]+)", rules):
        assert value in ("inherit", "none!important") or value.startswith("var(--g-"), value
    for colours in (LIGHT, DARK):
        assert all(f"--g-{name}:{colour}" in style for name, colour in colours.items())
    assert ".grader-report{" in style and ".grader-report.grader-report" in style
    assert all(".grader-report" in selector for selector in re.findall(r"(?:^|\})([^{}@]+)\{", rules))


ELEMENTS = {*("div", "table", "thead", "tbody", "tr", "th", "td"), *("span", "code", "a", "strong", "wbr")}


def test_without_its_style_a_report_loses_no_word_and_no_mark() -> None:
    """As on GitHub, which removes styles, classes and roles. No script, no form, no outer file."""
    page = to_html(SAMPLE)
    bare = re.sub(r"<style>.*?</style>| (style|class|role|scope|aria-\w+|data-\w+)=\"[^\"]*\"", "", page)
    assert set(re.findall(r"<(\w+)", bare)) <= ELEMENTS
    assert not re.search(r"<script|javascript:|url\(|@import|\son\w+=", page)
    words = (
        re.sub(r"<[^>]+>", " ", bare.replace("<wbr>", ""))
        .replace("&nbsp;", " ")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .split()
    )
    for line in SAMPLE:
        for cell in line.cells or (line.text,):
            assert set(cell.replace("`", " ").split()) <= {*words, *["<b>twice</b>"], "."}, cell
    assert '<span class="m-ok" role="img" aria-label="right">✓</span>' in page
    assert page.count('scope="col"') == 4 and page.count('role="rowheader"') == 6


# After a SyntaxError


def test_a_check_says_that_it_judges_the_class_from_before_a_syntax_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        transform_cell = staticmethod(lambda source: source)

        class history_manager:
            input_hist_raw: ClassVar = ["", "class Norm:\n    x = 1", "class Norm:\n    x = (1", "check('toy', Norm)"]

    class IPython:
        get_ipython = staticmethod(lambda: Shell)

    assert hasattr(InteractiveShell, "transform_cell") and hasattr(HistoryManager, "input_hist_raw")
    monkeypatch.setitem(grader.checks.stale.sys.modules, "IPython", IPython)  # type: ignore[arg-type]
    told = grader.checks.stale.not_from_the_last_cell("Norm")
    assert "The last cell that defines `Norm` has a SyntaxError (line 2: " in told
    assert grader.checks.stale.not_from_the_last_cell("Other") == ""
    Shell.history_manager.input_hist_raw.append("class Norm:\n    x = 2")
    assert grader.checks.stale.not_from_the_last_cell("Norm") == ""
