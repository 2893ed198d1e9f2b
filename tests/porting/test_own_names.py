"""Programs under names of their own: matched with the reference's, and a wrong one stays wrong."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from own_ports import COMMON, CONFIGS, FUSED_NEOX, MIXTRAL, program, source_of
from small_references import small

from grader.errors import GraderError
from grader.layers.debugger import layer_report
from grader.layers.wording import report_lines
from grader.porting.comparing import program_report
from grader.porting.own_names.files import patterns, read_names, write_names
from grader.porting.own_names.loading import OwnNames
from grader.porting.own_names.wording import table
from grader.porting.report import PortReport
from grader.recordings.tracefile import write_trace
from grader.recordings.traces import Trace
from grader.report import to_text

pytest.importorskip("transformers")


pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference(family: str) -> Trace:
    return small(CONFIGS[family]).trace


def compared(family: str, *changes: tuple[str, str], more: str = "", own: OwnNames | None = None) -> PortReport:
    return program_report(program(family, *changes, more=more), reference(family), own)


def text(report: PortReport) -> str:
    assert report.alignment is not None
    return to_text([*table(report.alignment), *report_lines(report, "all")])


def matched(report: PortReport, name: str) -> str:
    """The row of the table about one of the program's tensors, with single spaces."""
    assert report.alignment is not None
    lines = (" ".join(line.split()) for line in to_text(table(report.alignment)).splitlines())
    return next(line.removeprefix(name).strip() for line in lines if line.startswith(name))


ROWS = {
    "GPT-2": "trf_blocks.1.att",
    "Llama": "layers.1.attention.wq",
    "Qwen3": "decoder.1.gqa.norm_b",
    "Gemma 3": "blocks.1.post_ffn_norm",
    "GPT-NeoX": "h.1.fc_in",
    "Mixtral": "transformer_blocks.1.moe",
}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_right_program_is_right_under_its_own_names(family: str) -> None:
    report = compared(family)
    assert report.ok, text(report)
    assert {ROWS[family], "logits"} <= {row.name for row in report.rows}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_program_of_other_names_is_refused_where_the_names_are_the_checkpoints(family: str) -> None:
    """A lesson's exercises ask for the checkpoint's names, so that real weights load."""
    with pytest.raises(GraderError, match="can't be compared: its parameters are not the checkpoint's"):
        layer_report(program(family), reference(family))


def test_what_was_matched_is_said_with_what_decided_it_and_how_it_is_laid_out() -> None:
    gpt2, llama, qwen3, gemma3, mixtral = map(compared, ("GPT-2", "Llama", "Qwen3", "Gemma 3", "Mixtral"))
    assert matched(gpt2, "trf_blocks.*.att.W_key.weight") == (
        "transformer.h.*.attn.c_attn.weight by its name, part 2 of 3 of its rows, transposed"
    )
    assert matched(gpt2, "trf_blocks.*.ff.layers.2.bias") == "transformer.h.*.mlp.c_proj.bias by its shape"
    assert matched(gpt2, "out_head.weight") == "transformer.wte.weight by its name"
    assert matched(llama, "layers.*.attention.wk.weight") == (
        "model.layers.*.self_attn.k_proj.weight by running it,"
        " rows of each head in pairs, for RoPE that rotates neighbours"
    )
    assert matched(llama, "layers.*.ffn_norm.scale").startswith("model.layers.*.post_attention_layernorm.weight by its")
    assert matched(qwen3, "decoder.*.gqa.to_kv.weight") == (
        "model.layers.*.self_attn.{k_proj, v_proj}.weight by its name, 2 joined"
    )
    assert matched(qwen3, "decoder.*.gqa.norm_a.scale") == "model.layers.*.self_attn.q_norm.weight by its order"
    assert matched(qwen3, "decoder.*.ln2.scale") == "model.layers.*.post_attention_layernorm.weight by its order"
    assert matched(gemma3, "blocks.*.ffn.gate_up.weight") == (
        "model.layers.*.mlp.{gate_proj, up_proj}.weight by its name, 2 joined"
    )
    assert matched(gemma3, "blocks.*.post_attn_norm.scale").startswith("model.layers.*.post_attention_layernorm.weight")
    assert matched(mixtral, "transformer_blocks.*.moe.w3") == (
        "model.layers.*.block_sparse_moe.experts.*.w3.weight by its name, 8 stacked"
    )
    assert matched(mixtral, "transformer_blocks.*.attn.W_o") == (
        "model.layers.*.self_attn.o_proj.weight by its name, transposed")  # fmt: skip


def test_a_fused_projection_by_turns_is_taken_apart() -> None:
    report = compared("GPT-NeoX")
    assert matched(report, "h.*.attn.v_lin.weight") == (
        "gpt_neox.layers.*.attention.query_key_value.weight by running it,"
        " part 3 of 3 of its rows, by turns in 4 groups")  # fmt: skip


IN_ANOTHER_ORDER = ("self.attn = Attn(c)", "self.attn = Fused(c)")


def test_rows_in_another_order_of_the_same_shape_have_to_be_asked_for() -> None:
    """A loader that copies such a matrix as it is makes the model wrong, and nothing complains."""
    report = compared("GPT-NeoX", IN_ANOTHER_ORDER, more=FUSED_NEOX)
    assert not report.ok and report.culprit is not None and report.culprit.path == "h.0.attn"
    assert "`h.0.attn` is right with another order of rows in `h.*.attn.qkv.weight`" in text(report)
    assert "say --reordered" in text(report)
    asked_for = compared("GPT-NeoX", IN_ANOTHER_ORDER, more=FUSED_NEOX, own=OwnNames(reordered=True))
    assert asked_for.ok, text(asked_for)


def test_rope_that_rotates_neighbours_is_only_assumed_under_the_names_of_metas_files() -> None:
    halves = "turn_halves(self.norm_a(q), angle), turn_halves(self.norm_b(k), angle)"
    report = compared("Qwen3", (halves, halves.replace("turn_halves", "turn_neighbours")))
    assert not report.ok
    assert "rows of each head in pairs, for RoPE that rotates neighbours" in text(report)
    assert matched(report, "decoder.*.gqa.to_q.weight") == "model.layers.*.self_attn.q_proj.weight by its name"


# What names leave open is decided by running; what they say is not


def test_what_names_leave_open_is_decided_by_running() -> None:
    gate_and_up = ("self.fc3(F.silu(self.fc1(x)) * self.fc2(x))", "self.fc3(F.silu(self.fc2(x)) * self.fc1(x))")
    norms = ("turn_halves(self.norm_a(q), angle), turn_halves(self.norm_b(k), angle)",
             "turn_halves(self.norm_b(q), angle), turn_halves(self.norm_a(k), angle)")  # fmt: skip
    report = compared("Qwen3", gate_and_up, norms)
    assert report.ok, text(report)
    assert matched(report, "decoder.*.mlp.fc2.weight") == "model.layers.*.mlp.gate_proj.weight by running it"
    assert matched(report, "decoder.*.gqa.norm_a.scale") == "model.layers.*.self_attn.k_norm.weight by running it"


MISTAKES: dict[str, list[tuple[str, str, str]]] = {
    # family: what is replaced, by what, and the culprit
    "GPT-2": [
        ('nn.GELU(approximate="tanh")', "nn.GELU()", "trf_blocks.0.ff.layers.1"),
        ("self.norm1(x))", "x)", "trf_blocks.0"),
        ("(self.W_query, self.W_key, self.W_value))", "(self.W_key, self.W_query, self.W_value))", "trf_blocks.0.att"),
        ("self.head_dim**-0.5", "x.shape[-1]**-0.5", "trf_blocks.0.att"),
        ("self.norm2(x))", "self.norm1(x))", "trf_blocks.0"),
    ],
    "Llama": [
        ("F.silu(self.w1(x)) * self.w3(x)", "F.silu(self.w3(x)) * self.w1(x)", "layers.0.feed_forward"),
        ("turn_neighbours(k, freqs)", "k", "layers.0.attention"),
        ("self.attention_norm(x)", "self.ffn_norm(x)", "layers.0"),
    ],
    "Qwen3": [("self.ln2(x))", "self.ln1(x))", "decoder.0"), ("F.silu(", "F.gelu(", "decoder.0.mlp")],
    "Gemma 3": [
        ("gate, up = ", "up, gate = ", "blocks.0.ffn"),
        ("triu(1 - window)", "triu(-window)", "blocks.0.attn"),
        ("self.query_norm(q), angle), turn_halves(self.key_norm(k)",
         "self.key_norm(q), angle), turn_halves(self.query_norm(k)", "blocks.0.attn"),
        ("x + self.post_attn_norm(attended)", "x + self.pre_ffn_norm(attended)", "blocks.0"),
    ],
    "GPT-NeoX": [("F.gelu(", "F.relu(", "h.0"), ("self.fc_in(self.ln_2(x))", "self.fc_in(self.ln_1(x))", "h.0")],
    "Mixtral": [
        ("x, self.w1)) * torch", "x, self.w3)) * torch", "transformer_blocks.0.moe"),
        (" / chance.sum(-1, keepdim=True)", "", "transformer_blocks.0.moe"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("family", "number"), [(f, i) for f, changes in MISTAKES.items() for i in range(len(changes))])
def test_a_wrong_program_is_not_made_right_by_matching(family: str, number: int) -> None:
    find, replace, culprit = MISTAKES[family][number]
    report = compared(family, (find, replace))
    assert not report.ok, text(report)
    assert report.culprit is not None and report.culprit.path == culprit, text(report)


def test_experts_in_a_list_are_taken_out_of_a_stack_and_the_other_way_round() -> None:
    listed = """
class Expert(nn.Module):
    def __init__(self, D, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(D, hidden, bias=False), nn.Linear(D, hidden, bias=False)
        self.fc3 = nn.Linear(hidden, D, bias=False)

    def forward(self, x):
        return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.chosen = c.num_experts_per_tok
        self.router = nn.Linear(c.hidden_size, c.num_local_experts, bias=False)
        self.experts = nn.ModuleList([Expert(c.hidden_size, c.intermediate_size) for _ in range(c.num_local_experts)])

    def forward(self, x):
        chance, chosen = self.router(x).softmax(-1).topk(self.chosen, dim=-1)
        share = torch.zeros(*x.shape[:-1], 8).scatter(-1, chosen, chance / chance.sum(-1, keepdim=True))
        return sum(expert(x) * share[..., e, None] for e, expert in enumerate(self.experts))
"""
    report = compared("Mixtral", more=listed)
    assert report.ok, text(report)
    assert matched(report, "transformer_blocks.*.moe.experts.*.fc2.weight").endswith("by its order")
    assert "w3 = nn.Parameter" in MIXTRAL


def test_a_buffer_may_hold_what_the_checkpoint_has_as_a_parameter() -> None:
    report = compared(
        "Qwen3", ("self.ln_f = RMSNorm(c.hidden_size, c.rms_norm_eps)",
                  "self.register_buffer('final_norm', torch.ones(c.hidden_size)); self.eps = c.rms_norm_eps"),
        ("self.ln_f(x) @", "(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.final_norm) @"),
    )  # fmt: skip
    assert report.ok, text(report)
    assert matched(report, "final_norm").startswith("model.norm.weight")


# What can't be matched


def test_what_has_no_counterpart_is_listed_with_a_way_on() -> None:
    with pytest.raises(GraderError) as raised:
        compared("Qwen3", ("self.ln_f = RMSNorm", "self.other = nn.Linear(3, 5); self.ln_f = RMSNorm"))
    assert "Only in your model: `other.weight` [5, 3], `other.bias` [5]" in str(raised.value)
    with pytest.raises(GraderError, match="one and the same here, and two different ones in the reference"):
        compared("Llama", ("self.freqs = ", "self.output.weight = self.tok_embeddings.weight; self.freqs = "))
    with pytest.raises(GraderError, match="Your model has 3 layers, and the reference 2"):
        compared("Llama", ("range(c.num_hidden_layers)", "range(3)"))


def test_names_are_kept_and_given(tmp_path: Path) -> None:
    first = compared("Qwen3")
    assert first.alignment is not None
    write_names(first.alignment.recipes, tmp_path / "names.json")
    names = read_names(tmp_path / "names.json")
    assert names["decoder.*.mlp.fc1.weight"] == "model.layers.*.mlp.gate_proj.weight"
    again = compared("Qwen3", own=OwnNames(names))
    assert again.ok and again.alignment is not None
    assert set(again.alignment.how.values()) == {"given"}
    assert patterns(again.alignment.recipes) == names


def test_a_name_that_is_given_is_not_overruled() -> None:
    swapped = OwnNames(
        renames=["decoder.*.mlp.fc2=model.layers.*.mlp.gate_proj", "decoder.*.mlp.fc1=model.layers.*.mlp.up_proj"]
    )
    report = compared("Qwen3", own=swapped)
    assert not report.ok and report.culprit is not None and report.culprit.path == "decoder.0.mlp"


@pytest.mark.parametrize(
    ("rename", "complaint"),
    [
        ("decoder", "is not YOURS=THE_REFERENCES"),
        ("nowhere.*=model.norm", "your program has no `nowhere.*`"),
        ("ln_f=model.nowhere", "the reference has no tensor `model.nowhere.scale`"),
    ],
)
def test_a_name_that_is_neithers_is_refused(rename: str, complaint: str) -> None:
    with pytest.raises(GraderError) as raised:
        compared("Qwen3", own=OwnNames(renames=[rename]))
    assert complaint in str(raised.value)


# The command


def test_the_command_matches_names_and_keeps_them(tmp_path: Path, grader: Any) -> None:
    trace = tmp_path / "trace.safetensors"
    (tmp_path / "mine.py").write_text(source_of("GPT-2"))
    write_trace(reference("GPT-2"), trace)
    code, out, err = grader("compare", f"{tmp_path / 'mine.py'}:Model", trace, "--save-names", tmp_path / "n.json")
    assert (code, err) == (0, ""), out + err
    assert "Your model has names of its own" in out and "rows match the reference" in out
    code, out, err = grader("compare", f"{tmp_path / 'mine.py'}:Model", trace, "--names", tmp_path / "n.json")
    assert (code, err) == (0, "") and "given" in out
    assert COMMON in source_of("GPT-2")
    (tmp_path / "n.json").write_text("[]")
    code, out, err = grader("compare", f"{tmp_path / 'mine.py'}:Model", trace, "--names", tmp_path / "n.json")
    assert code == 2 and "is no file of names" in err
