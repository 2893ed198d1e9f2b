"""What a port needs besides names: an adapter, room for rounding, a reference that derives what it derives."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from own_ports import CONFIGS, GPT2, LLAMA, QWEN3, program, source_of
from safetensors.torch import save_file
from small_references import QWEN3_NEXT, small

from grader.errors import GraderError, NeedsAdapter
from grader.instruments.rounding import another_processor
from grader.layers.wording import report_lines
from grader.porting.adapters.adapter import adapter_for
from grader.porting.comparing import port_report, program_report
from grader.porting.floor import highest_floor
from grader.porting.own_names.loading import OwnNames
from grader.porting.reference import Reference, small_reference
from grader.recordings.tracefile import read_trace, write_trace
from grader.recordings.traces import Trace
from grader.report import to_text

pytest.importorskip("transformers")

EVERY = CONFIGS | {"Qwen3-Next": QWEN3_NEXT}
pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference(family: str) -> Reference:
    return small(EVERY[family])


# Room for rounding


@pytest.mark.parametrize("family", ["Qwen3-Next", "Mixtral", "Gemma 3"])
def test_the_same_model_with_another_order_of_operations_is_right(family: str) -> None:
    found = reference(family)
    with another_processor(7):
        report = program_report(found.model, found.trace)
    assert report.ok, to_text(report_lines(report, "all"))


def test_a_row_that_rounding_moves_says_so_and_a_larger_error_in_it_is_red() -> None:
    found = reference("Qwen3-Next")
    trace = found.trace
    floor, count = highest_floor(trace)
    assert floor > 0 and count > 0
    assert any("get more room" in kept.detail for kept in found.coverage)
    with another_processor(7):
        moved = program_report(found.model, trace)
        bare = replace(trace, floor=0.0, calls=tuple(replace(call, floor=0.0) for call in trace.calls))
        assert not program_report(found.model, bare).ok
    assert "no further than rounding moves the reference's own" in to_text(report_lines(moved, "all"))
    wrong = replace(trace, output=trace.output * (1 + 8 * max(floor, 1e-4)))
    assert not program_report(found.model, wrong).ok


def test_a_trace_keeps_its_floors(tmp_path: Path) -> None:
    trace = reference("Qwen3-Next").trace
    write_trace(trace, tmp_path / "t.safetensors")
    read = read_trace(tmp_path / "t.safetensors")
    assert [call.floor for call in read.calls] == [call.floor for call in trace.calls] and read.floor == trace.floor


# Sizes that a program derives


def test_a_program_that_derives_its_head_dim_is_compared_with_a_reference_that_does(tmp_path: Path) -> None:
    spelt_out = CONFIGS["Llama"] | {"head_dim": 128}  # 4096 / 32
    write_trace(small(spelt_out).trace, tmp_path / "t.safetensors")
    trace = read_trace(tmp_path / "t.safetensors")
    report = port_report(program("Llama"), trace, OwnNames())
    assert report.ok
    assert "In the published model that is the same number" in to_text(report_lines(report))
    wrong = port_report(program("Llama", ("F.silu(", "F.gelu(")), trace, OwnNames())
    assert not wrong.ok


def test_where_the_published_head_dim_is_another_a_program_that_derives_it_is_wrong() -> None:
    trace = small(CONFIGS["Llama"] | {"head_dim": 64}).trace
    assert not any(other.derived for other in trace.alternatives)
    with pytest.raises(GraderError, match="can't be compared"):
        port_report(program("Llama"), trace, OwnNames())


SCALED = """def angles(dim, length, theta):
    freqs = theta ** -(torch.arange(0, dim, 2).float() / dim)
    share = ((8192 * freqs / (2 * torch.pi) - 1) / 3).clamp(0, 1)
    return torch.outer(torch.arange(length).float(), share * freqs + (1 - share) * freqs / 8)"""
WRITTEN_OUT = (
    "def angles(dim, length, theta):\n"
    "    return torch.outer(torch.arange(length).float(), theta ** -(torch.arange(0, dim, 2).float() / dim))",
    SCALED,
)
STRETCHED = CONFIGS["Llama"] | {
    "rope_theta": 500000.0, "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192},
}  # fmt: skip


def test_a_program_with_a_published_number_in_its_code_is_right_and_told(tmp_path: Path) -> None:
    write_trace(small(STRETCHED).trace, tmp_path / "t.safetensors")
    trace = read_trace(tmp_path / "t.safetensors")
    assert "rope_scaling.original_max_position_embeddings 8 for 8192" in trace.changed
    report = port_report(program("Llama", WRITTEN_OUT), trace, OwnNames())
    assert report.ok, to_text(report_lines(report, "all"))
    assert "original_max_position_embeddings 8192 for 8" in report.remarks[0]
    wrong = port_report(program("Llama", WRITTEN_OUT, ("F.silu(", "F.gelu(")), trace, OwnNames())
    assert wrong.culprit is not None and wrong.culprit.path == "layers.0.feed_forward"
    assert not port_report(program("Llama"), trace, OwnNames()).ok  # it does not scale at all


def test_a_width_that_is_four_times_the_hidden_size_in_the_code_is_no_error() -> None:
    config = CONFIGS["Llama"] | {"hidden_size": 2048, "intermediate_size": 8192}
    report = port_report(program("Llama", ("c.hidden_size, c.intermediate_size", "c.hidden_size, 4 * c.hidden_size")),
                         small(config).trace, OwnNames())  # fmt: skip
    assert report.ok and "intermediate_size 256 for 80" in report.remarks[0]


def test_a_small_config_does_not_contradict_itself() -> None:
    fields = small_reference("kimi-linear-48b-a3b").fields
    inner = fields["linear_attn_config"]
    assert (inner["head_dim"], inner["num_heads"]) == (fields["linear_head_dim"], fields["linear_num_heads"])
    assert max(inner["kda_layers"] + inner["full_attn_layers"]) == fields["num_hidden_layers"]


def test_keys_of_layers_that_share_anothers_are_named_as_that() -> None:
    shared = small(CONFIGS["Qwen3"]).trace
    config = {**shared.build["config"], "num_kv_shared_layers": 1}
    weights = {name: tensor for name, tensor in shared.weights.items() if "layers.1.self_attn.k_proj" not in name}
    trace = replace(shared, build={"config": config}, weights=weights)
    split = ("self.to_kv = nn.Linear(c.hidden_size, 2 *", "self.to_k = nn.Linear(c.hidden_size,")
    with pytest.raises(GraderError, match="The last 1 layers have no keys and values of their own"):
        program_report(program("Qwen3", split), trace)


# Programs that are called in another way


OWN_CONFIG = """
from dataclasses import dataclass


@dataclass
class Settings:
    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    drop_rate: float = 0.1
    extra: bool = False
"""
WITH_OWN_CONFIG = (
    OWN_CONFIG
    + GPT2.replace("c.n_embd", "c.emb_dim").replace("c.n_positions", "c.context_length")
    .replace("c.n_head", "c.n_heads").replace("c.n_layer)", "c.n_layers)")
    .replace("def __init__(self, c):\n        super().__init__()\n        self.tok_emb",
             "def __init__(self, c: Settings):\n        super().__init__()\n        self.tok_emb")
)  # fmt: skip
LAST_ONLY = (
    (
        "    def forward(self, ids):\n        x = self.tok_emb(ids)",
        "    def forward(self, ids, targets=None):\n        x = self.tok_emb(ids)",
    ),
    (
        "return self.out_head(self.final_norm(self.trf_blocks(x)))",
        "x = self.final_norm(self.trf_blocks(x))\n"
        "        return self.out_head(x if targets is not None else x[:, -1:]), None",
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_trace(reference("GPT-2").trace, tmp_path / "gpt2.safetensors")
    return tmp_path


def test_a_program_with_a_config_of_its_own_gets_the_lines_that_it_needs(folder: Path, grader: Any) -> None:
    (folder / "own.py").write_text(source_of("GPT-2").replace(GPT2, WITH_OWN_CONFIG))
    code, out, err = grader("compare", f"{folder / 'own.py'}:Model", folder / "gpt2.safetensors")
    assert code == 2 and "this config has no field `emb_dim`" in err
    assert "from own import Model, Settings" in err and "context_length=config.n_positions" in err
    code, out, err = grader("port", f"{folder / 'own.py'}:Model", folder / "gpt2.safetensors")
    assert (code, err) == (0, "")
    written = (folder / "port.py").read_text()
    assert "extra" not in written and "drop_rate=0.0" in written
    code, out, err = grader("compare", f"{folder / 'port.py'}:Port", folder / "gpt2.safetensors")
    assert (code, err) == (0, ""), out + err
    assert "[OK]  model.trf_blocks.1" in out
    code, out, err = grader("port", f"{folder / 'own.py'}:Model", folder / "gpt2.safetensors")
    assert code == 2 and "port.py exists" in err
    (folder / "elsewhere").mkdir()
    elsewhere = folder / "elsewhere" / "port.py"
    code, out, err = grader("port", f"{folder / 'own.py'}:Model", folder / "gpt2.safetensors", "--to", elsewhere)
    assert f"compare it with: PYTHONPATH={folder} grader compare" in out, "there the program's import is not found"


def test_a_config_of_keys_and_logits_of_the_last_token_alone(folder: Path, grader: Any) -> None:
    source = source_of("GPT-2", *LAST_ONLY)
    for field in ("vocab_size", "n_embd", "n_positions", "n_layer", "n_head"):
        source = source.replace(f"c.{field}", f'cfg["{field}"]')
    (folder / "last.py").write_text(source.replace("def __init__(self, c):", "def __init__(self, cfg):"))
    code, out, err = grader("compare", f"{folder / 'last.py'}:Model", folder / "gpt2.safetensors")
    assert code == 0 and "returns the logits of the last token alone, so those alone were compared" in out
    assert grader("port", f"{folder / 'last.py'}:Model", folder / "gpt2.safetensors")[0] == 0
    assert "return self.model(ids, targets=ids)" in (folder / "port.py").read_text()
    code, out, err = grader("compare", f"{folder / 'port.py'}:Port", folder / "gpt2.safetensors")
    assert (code, err) == (0, ""), out + err


def test_logits_of_the_last_token_alone_are_compared_with_the_references() -> None:
    last = ("return self.output(self.norm(h))", "return self.output(self.norm(h)[:, -1])")
    report = program_report(program("Llama", last), reference("Llama").trace)
    assert report.ok and {"output", "logits"} <= {row.name for row in report.rows}
    wrong = (last[0], "return self.output(self.norm(h)[:, -2])")
    report = program_report(program("Llama", wrong), reference("Llama").trace)
    assert not report.ok and report.culprit is not None and report.culprit.path == ""


def test_a_program_that_takes_one_text_at_a_time_is_judged_by_its_logits() -> None:
    """RoPE that rotates neighbours shows in no module alone, as none is given what the reference's is."""
    one_by_one = """
class Whole(Model):
    def forward(self, ids):
        return torch.cat([Model.forward(self, text[None]) for text in ids])


Model, Parts = Whole, Model
""".replace("Model.forward(self", "Parts.forward(self")
    report = program_report(program("Llama", more=one_by_one), reference("Llama").trace)
    assert report.ok and report.alignment is not None
    assert report.alignment.how["layers.0.attention.wq.weight"] == "running"
    wrong = ("F.silu(self.w1(x)) * self.w3(x)", "F.silu(self.w3(x)) * self.w1(x)")
    assert not program_report(program("Llama", wrong, more=one_by_one), reference("Llama").trace).ok


METAS = """
class ModelArgs:
    def __init__(self, dim=64, n_layers=2, **kwargs):
        self.hidden_size, self.num_hidden_layers = dim, n_layers
        self.num_attention_heads = kwargs.get("n_heads", 1)
        self.num_key_value_heads = kwargs.get("n_kv_heads", 1)
        self.vocab_size, self.rms_norm_eps = kwargs.get("vocab_size", 9), kwargs.get("norm_eps", 1.0)
        self.max_position_embeddings, self.rope_theta = kwargs.get("max_seq_len", 9), kwargs.get("rope_theta", 1.0)
        width = int(kwargs.get("ffn_dim_multiplier", 1.0) * int(8 * dim / 3))
        multiple = kwargs.get("multiple_of", 256)
        self.intermediate_size = multiple * ((width + multiple - 1) // multiple)
"""


def test_a_config_with_a_constructor_of_its_own_and_caches_that_are_set_up_first(tmp_path: Path, grader: Any) -> None:
    source = source_of(
        "Llama",
        ("    def __init__(self, c):\n        super().__init__()\n        head_dim = c.hidden",
         "    def __init__(self, c: ModelArgs):\n        super().__init__()\n        self.ready = False\n"
         "        head_dim = c.hidden"),
        ("    def forward(self, tokens):\n", "    def setup_caches(self, max_batch_size, max_seq_length):\n"
         "        self.ready = True\n\n    def forward(self, tokens, input_pos=None):\n        assert self.ready\n"),
    ).replace("class Model(", f"{METAS}\n\nclass Model(")  # fmt: skip
    (tmp_path / "metas.py").write_text(source)
    trace = tmp_path / "llama.safetensors"
    write_trace(reference("Llama").trace, trace)
    assert grader("port", f"{tmp_path / 'metas.py'}:Model", trace)[0] == 0
    written = (tmp_path / "port.py").read_text()
    assert "self.model.setup_caches(max_batch_size=2, max_seq_length=config.max_position_embeddings)" in written
    assert "multiple_of=config.intermediate_size" in written
    code, out, err = grader("compare", f"{tmp_path / 'port.py'}:Port", trace)
    assert (code, err) == (0, ""), out + err


def test_a_program_that_asks_for_a_mask_is_given_one(tmp_path: Path) -> None:
    masked = ("    def forward(self, tokens):", "    def forward(self, tokens, mask, start_pos):")
    trace = reference("Llama").trace
    with pytest.raises(NeedsAdapter, match="besides the token ids, its forward asks for `mask` and `start_pos`"):
        program_report(program("Llama", masked), trace)
    (tmp_path / "llama.py").write_text(source_of("Llama", masked))
    made = adapter_for(program("Llama", masked), tmp_path / "llama.py", trace.build)
    assert "mask=torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril(), start_pos=0)" in made.source
    assert LLAMA.count("forward(self, tokens)") == 1


def test_a_file_of_a_package_is_compared_where_it_lies(folder: Path, grader: Any) -> None:
    (folder / "mine").mkdir()
    for name in ("__init__.py", "parts.py", "whole.py"):
        (folder / "mine" / name).write_text("")
    source, start = source_of("GPT-2"), "class LayerNorm"
    head, _, rest = source.partition(start)
    (folder / "mine" / "parts.py").write_text(head)
    (folder / "mine" / "whole.py").write_text(f"from .parts import *\n\n\n{start}{rest}")
    code, out, err = grader("compare", f"{folder / 'mine' / 'whole.py'}:Model", folder / "gpt2.safetensors")
    assert (code, err) == (0, ""), out + err


# Other ways to compare, and to be told


def dumped(trace: Trace) -> dict[str, torch.Tensor]:
    calls = {f"{call.path}.output": call.output for call in trace.calls if call.output is not None and call.index == 0}
    kept = {name: tensor.clone() for name, tensor in calls.items() if name.count(".") == 3}
    return {**kept, "logits": trace.output.clone()}


def test_arrays_of_a_program_that_is_not_pytorch_are_compared_by_name(folder: Path, grader: Any) -> None:
    trace = folder / "gpt2.safetensors"
    arrays = dumped(reference("GPT-2").trace)
    assert set(arrays) == {"transformer.h.0.output", "transformer.h.1.output", "logits"}
    short = {name.removeprefix("transformer."): tensor for name, tensor in arrays.items()}
    for written in (arrays, short, {name: tensor.double() for name, tensor in arrays.items()}):
        save_file(written, folder / "dump.safetensors")
        code, out, err = grader("compare", folder / "dump.safetensors", trace)
        assert (code, err) == (0, ""), out + err
    arrays["transformer.h.1.output"] += 0.01
    save_file({**arrays, "mine": torch.zeros(1)}, folder / "dump.safetensors")
    code, out, err = grader("compare", folder / "dump.safetensors", trace)
    assert code == 1 and "Start here: `transformer.h.1.output`" in out and "Not in the reference: mine" in out
    save_file({"mine": torch.zeros(1)}, folder / "dump.safetensors")
    code, out, err = grader("compare", folder / "dump.safetensors", trace)
    assert code == 2 and "none of its 1 arrays is named after a module" in err
    (folder / "dump.safetensors").write_bytes(b"no")
    code, out, err = grader("compare", folder / "dump.safetensors", trace)
    assert code == 2 and "can't be read as safetensors" in err


def test_a_report_as_json_says_the_same(folder: Path, grader: Any) -> None:
    (folder / "mine.py").write_text(
        source_of("GPT-2", ('nn.GELU(approximate="tanh")', "nn.GELU()")) + "print('hello')\n"
    )
    code, out, err = grader("compare", f"{folder / 'mine.py'}:Model", folder / "gpt2.safetensors", "--json")
    found = json.loads(out)
    assert (code, err, found["ok"], found["culprit"]["path"]) == (1, "", False, "trf_blocks.0.ff.layers.1")
    assert found["names"]["trf_blocks.*.norm1.scale"] == "transformer.h.*.ln_1.weight"
    assert {row["name"] for row in found["rows"] if not row["ok"]} >= {"trf_blocks.0", "trf_blocks.0.ff", "logits"}


def test_a_trace_may_have_more_tokens(tmp_path: Path, grader: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["GPT-2"]))
    trace = tmp_path / "t.safetensors"
    code, _, err = grader("trace", tmp_path / "config.json", "--to", trace, "--tokens", "40")
    assert (code, err) == (0, "")
    read = read_trace(trace)
    assert read.args[0].shape == (2, 40) and read.build["config"]["n_positions"] == 40
    assert program_report(program("GPT-2"), read).ok


def test_a_container_of_modules_that_are_called_is_not_said_to_be_uncalled() -> None:
    """Meta's programs call `feed_forward.forward(x)`, and others the parts of a module without the module."""
    inline = (
        "return x + self.mlp(self.ln2(x))",
        "m, x2 = self.mlp, self.ln2(x)\n        return x + m.fc3(F.silu(m.fc1(x2)) * m.fc2(x2))",
    )
    assert QWEN3.count(inline[0]) == 1
    report = program_report(program("Qwen3", inline), reference("Qwen3").trace)
    assert report.ok and not any("Never called" in line for line in report.one_sided)
    llama = program_report(program("Llama"), reference("Llama").trace)
    assert "layers.0.feed_forward" in {row.name for row in llama.rows}


def test_a_program_that_breaks_in_bfloat16_has_the_module_named_that_raised() -> None:
    """Its tables of rotations stay in float32, so queries do not fit the values."""
    trace = small(CONFIGS["Qwen3"], dtype=torch.bfloat16).trace
    report = program_report(program("Qwen3"), trace)
    assert report.culprit is not None and report.culprit.path == "decoder.0.gqa"
    assert any("raised RuntimeError" in row.outcome.note for row in report.rows if row.name == "decoder.0.gqa")
    assert any("in attend" in line for line in report.traceback)
