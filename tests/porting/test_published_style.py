"""Programs as published code bases have them: missing packages, configs with enumerations, matrices in blocks."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from own_ports import COMMON, CONFIGS, LLAMA
from small_references import small

from grader.errors import GraderError
from grader.layers.own_model import load_model
from grader.layers.wording import report_lines
from grader.porting.adapters.fields import filled_in
from grader.porting.command import port
from grader.porting.comparing import program_report
from grader.porting.own_names.loading import OwnNames
from grader.porting.reference import Reference
from grader.recordings.tracefile import read_trace, write_trace
from grader.report import to_text

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("small_references")


@cache
def reference() -> Reference:
    return small(CONFIGS["Llama"])


def written(folder: Path, text: str, name: str = "model.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def right(model: Any, own: OwnNames | None = None) -> bool:
    report = program_report(model, reference().trace, own)
    assert report.ok, to_text(report_lines(report, "all"))
    return True


# Packages that are not installed

PARALLEL = """
import a_package_that_is_nowhere.parallel as parallel
from a_package_that_is_nowhere import kernel, Serializable
from a_package_that_is_nowhere.layers import ColumnParallelLinear, VocabParallelEmbedding


@kernel.jit(fast=True)
def fused(x):
    return kernel.run(x)


class Settings(Serializable):
    pass
"""


def test_a_package_that_is_missing_is_stubbed_while_nothing_of_it_runs(tmp_path: Path) -> None:
    text = LLAMA.replace("nn.Linear(c.hidden_size, c.vocab_size", "ColumnParallelLinear(c.hidden_size, c.vocab_size")
    path = written(tmp_path, COMMON + PARALLEL + text)
    assert right(load_model(f"{path}:Model"))


def test_the_settings_of_a_missing_packages_kernel_can_be_read(tmp_path: Path) -> None:
    settings = (
        "\n@kernel.tuned(configs=[kernel.Config({'BLOCK': 16})])\n@kernel.jit\ndef add(x):\n    return x\n"
        "\nSMALLEST = min(config.kwargs['BLOCK'] for config in add.configs)\n"
    )
    assert right(load_model(f"{written(tmp_path, COMMON + PARALLEL + settings + LLAMA)}:Model"))


def test_what_runs_of_a_missing_package_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, COMMON + PARALLEL + LLAMA.replace("F.silu(self.w1(x))", "kernel.silu(self.w1(x))"))
    report = program_report(load_model(f"{path}:Model"), reference().trace)
    assert "it runs `a_package_that_is_nowhere.kernel.silu`" in " ".join(report.traceback)


def test_an_import_that_may_fail_fails(tmp_path: Path) -> None:
    guarded = "\ntry:\n    import another_that_is_nowhere\nexcept ImportError:\n    another_that_is_nowhere = None\n"
    path = written(tmp_path, COMMON + PARALLEL + guarded + LLAMA)
    assert load_model(f"{path}:another_that_is_nowhere") is None


def test_a_name_that_its_module_has_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GraderError, match="cannot import name"):
        load_model(f"{written(tmp_path, 'from torch import nowhere')}:Model")


# Configs of a program's own

SETTINGS = """
import enum
from dataclasses import dataclass
from typing import Literal


class Norm(enum.Enum):
    LAYER_NORM = 1
    RMS_NORM = 2


@dataclass
class Settings:
    name: str = ""
    dim: int = 4096
    vocab_size: int = 50254
    n_layers: int = 3
    n_heads: int = 32
    n_kv_heads: int | None = None
    hidden_dim: int = 11008
    norm_type: Norm = Norm.LAYER_NORM
    mlp_class_name: Literal["GptNeoxMLP", "LLaMAMLP"] = "GptNeoxMLP"
    norm_eps: float = 1e-6
    max_seq_len: int = 2048
    rope_theta: float = 10000
    n_expert_groups: int | None = None
    rope_adjustments: dict | None = None
    parallel_residual: bool = True
    dtype: str = "bfloat16"

    def __init__(self, **kwargs):
        for key, value in kwargs.items():
            setattr(self, key, value)
"""
OWN_FIELDS = (
    LLAMA.replace("c.hidden_size", "c.dim").replace("c.intermediate_size", "c.hidden_dim")
    .replace("c.num_attention_heads", "c.n_heads").replace("c.num_key_value_heads", "c.n_kv_heads")
    .replace("c.rms_norm_eps", "c.norm_eps").replace("c.max_position_embeddings", "c.max_seq_len")
    .replace("c.num_hidden_layers", "c.n_layers")
    .replace("def __init__(self, c):\n        super().__init__()\n        head_dim",
             "def __init__(self, c: Settings):\n"
             "        super().__init__()\n        assert c.norm_type is Norm.RMS_NORM and not c.parallel_residual\n"
             "        assert c.mlp_class_name == 'LLaMAMLP' and c.dtype == 'float32'\n        head_dim")
)  # fmt: skip


def test_an_adapter_of_a_config_with_choices_needs_no_line_by_hand(tmp_path: Path) -> None:
    written(tmp_path, SETTINGS, "shop/settings.py")
    written(tmp_path, "", "shop/__init__.py")
    text = f"{COMMON}\nfrom shop.settings import Norm, Settings\n{OWN_FIELDS}"
    path = written(tmp_path, text, "shop/model.py")
    write_trace(reference().trace, tmp_path / "t.safetensors")
    port(f"{path}:Model", tmp_path / "t.safetensors")
    adapter = (path.parent / "port.py").read_text()
    for line in ("norm_type=Norm.RMS_NORM", 'mlp_class_name="LLaMAMLP"', "parallel_residual=False", 'dtype="float32"'):
        assert line in adapter, adapter
    assert "from shop.settings import Settings, Norm" in adapter and "from shop.model import Model" in adapter
    assert not any(field in adapter for field in ("name=None", "n_expert_groups", "rope_adjustments"))
    assert right(load_model(f"{path.parent / 'port.py'}:Port"))


def test_texts_that_are_handed_over_as_one_need_no_line_by_hand(tmp_path: Path) -> None:
    text = LLAMA.replace("def forward(self, tokens):", "def forward(self, tokens, seqlens):\n"
                         "        tokens = tokens.view(len(seqlens), -1)")  # fmt: skip
    text = text.replace("return self.output(self.norm(h))", "return self.output(self.norm(h)).flatten(0, 1)")
    path = written(tmp_path, COMMON + text)
    write_trace(reference().trace, tmp_path / "t.safetensors")
    port(f"{path}:Model", tmp_path / "t.safetensors")
    assert "unflatten(0, ids.shape)" in (tmp_path / "port.py").read_text()
    assert right(load_model(f"{tmp_path / 'port.py'}:Port"))


PARALLEL_CONFIG = """
from dataclasses import dataclass


@dataclass
class ParallelConfig:
    dp: int
    tp: int
    pipeline_parallel_size: int


@dataclass
class ModelConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
"""
OF_TRAINING = LLAMA.replace(
    "    def __init__(self, c):\n        super().__init__()\n        head_dim",
    "    def __init__(self, c: ModelConfig, parallel: ParallelConfig):\n        super().__init__()\n"
    "        assert parallel == ParallelConfig(1, 1, 1)\n        head_dim",
).replace(
    "def forward(self, tokens):",
    'def forward(self, tokens, input_mask, position_ids=None):\n        """position_ids is there for others."""\n'
    "        assert input_mask.shape == tokens.shape and input_mask.all()",
)


def test_a_training_program_on_one_process_needs_no_line_by_hand(tmp_path: Path) -> None:
    path = written(tmp_path, COMMON + PARALLEL_CONFIG + OF_TRAINING, "training.py")
    write_trace(reference().trace, tmp_path / "t.safetensors")
    port(f"{path}:Model", tmp_path / "t.safetensors")
    adapter = (tmp_path / "port.py").read_text()
    assert "ParallelConfig(dp=1, tp=1, pipeline_parallel_size=1)" in adapter, adapter
    assert "\n                vocab_size=" in adapter and "position_ids" not in adapter, adapter
    assert right(load_model(f"{tmp_path / 'port.py'}:Port"))


def test_a_field_that_a_program_reads_with_a_default_is_filled_in(tmp_path: Path) -> None:
    text = LLAMA.replace("c.vocab_size", "getattr(c, 'vocab_size', 32000)")
    text = text.replace("        head_dim = ", "        assert c.device == 'cpu'\n        head_dim = ")
    path = written(tmp_path, COMMON + text, "defaults.py")
    write_trace(reference().trace, tmp_path / "t.safetensors")
    port(f"{path}:Model", tmp_path / "t.safetensors")
    assert "vocab_size=config.vocab_size" in (tmp_path / "port.py").read_text()
    assert right(load_model(f"{tmp_path / 'port.py'}:Port"))


def test_a_convolutions_length_is_known_by_its_names() -> None:
    for name, theirs in (("kernel_size", "conv_L_cache"), ("d_conv", "conv_kernel")):
        assert filled_in({name: False}, {theirs: 3}, ()) == ({name: f"config.{theirs}"}, [])


# Layouts

TIME_FIRST = (
    LLAMA.replace("self.tok_embeddings(tokens)", "self.tok_embeddings(tokens.transpose(0, 1))")
    .replace("(project(x), self.head_dim)", "(project(x.transpose(0, 1)), self.head_dim)")
    .replace("self.head_dim**-0.5))", "self.head_dim**-0.5).transpose(0, 1))")
)


def test_a_program_whose_first_axis_is_time_is_right() -> None:
    names: dict[str, Any] = {"__name__": "learner"}
    exec(compile(COMMON + TIME_FIRST, "<learner>", "exec"), names)
    assert right(names["Model"])


def test_a_view_in_place_of_a_transpose_is_wrong_where_it_is() -> None:
    names: dict[str, Any] = {"__name__": "learner"}
    assert "tokens.transpose(0, 1)" in TIME_FIRST
    source = TIME_FIRST.replace("tokens.transpose(0, 1)", "tokens.reshape(tokens.shape[::-1])")
    exec(compile(COMMON + source, "<learner>", "exec"), names)
    report = program_report(names["Model"], reference().trace)
    first = next(row for row in report.rows if not row.outcome.ok)
    assert first.name == "tok_embeddings", to_text(report_lines(report, "all"))


# Names

IN_BLOCKS = """
class Block(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.sizes = [n * head_dim for n in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
        self.head_dim = head_dim
        self.att_proj = nn.Linear(c.hidden_size, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(c.num_attention_heads * head_dim, c.hidden_size, bias=False)
        self.ff_proj = nn.Linear(c.hidden_size, 2 * c.intermediate_size, bias=False)
        self.ff_out = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)
        self.attn_norm, self.ff_norm = RMSNorm(c.hidden_size, c.rms_norm_eps), RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, freqs):
        q, k, v = (heads_of(t, self.head_dim) for t in self.att_proj(self.attn_norm(x)).split(self.sizes, -1))
        q, k = turn_halves(q, freqs), turn_halves(k, freqs)
        x = x + self.attn_out(attend(q, k, v, self.head_dim**-0.5))
        up, gate = self.ff_proj(self.ff_norm(x)).chunk(2, -1)
        return x + self.ff_out(F.silu(gate) * up)


class Model(nn.Module)"""


def in_blocks(folder: Path, *changes: tuple[str, str]) -> Any:
    text = LLAMA.replace("class Block", "class Unused").replace("class Model(nn.Module)", IN_BLOCKS)
    for find, put in changes:
        assert find in text
        text = text.replace(find, put)
    return load_model(f"{written(folder, COMMON + text)}:Model")


def test_blocks_that_hold_their_matrices_themselves_are_matched(tmp_path: Path) -> None:
    assert right(in_blocks(tmp_path))


def test_what_is_left_alone_on_both_sides_is_matched_and_said(tmp_path: Path) -> None:
    found = program_report(in_blocks(tmp_path, ("attn_out", "mixing_back")), reference().trace)
    assert found.ok and found.alignment is not None
    assert found.alignment.how["layers.0.mixing_back.weight"] in ("only", "shape")


def test_what_a_layer_never_uses_needs_no_counterpart(tmp_path: Path) -> None:
    trace = reference().trace
    weights = {n: t for n, t in trace.weights.items() if n != "model.layers.1.post_attention_layernorm.weight"}
    fewer = replace(trace, weights=weights)
    named = "def __init__(self, c, head_dim{}):\n        super().__init__()\n        self.sizes"
    numbered = (
        ("[Block(c, head_dim) for _", "[Block(c, head_dim, number) for number"),
        (named.format(""), named.format(", number").replace("self.sizes", "self.number = number\n        self.sizes")),
    )
    idle = ("self.ff_proj(self.ff_norm(x))", "self.ff_proj(x if self.number == 1 else self.ff_norm(x))")
    assert program_report(in_blocks(tmp_path, *numbered, idle), fewer).rows
    with pytest.raises(GraderError, match=r"Only in your model: `layers\.\*\.ff_norm\.scale`"):
        program_report(in_blocks(tmp_path, *numbered), fewer)


def test_names_are_given_in_the_form_in_which_the_table_prints_them(tmp_path: Path) -> None:
    theirs = "model.layers.*.self_attn.{q_proj, k_proj, v_proj}.weight"
    renames = [f"layers.*.att_proj.weight={theirs}", "output.weight=lm_head.weight",
               "layers.*.attn_out.weight=model.layers.*.self_attn.o_proj.weight"]  # fmt: skip
    found = program_report(in_blocks(tmp_path), reference().trace, OwnNames(renames=renames))
    assert found.ok and found.alignment is not None and found.alignment.how["layers.0.att_proj.weight"] == "given"


def test_no_pair_of_unequal_sizes_is_proposed(tmp_path: Path) -> None:
    wrong = ("self.ff_proj = nn.Linear(c.hidden_size, 2", "self.ff_proj = nn.Linear(c.hidden_size, 3")
    with pytest.raises(GraderError) as raised:
        program_report(in_blocks(tmp_path, wrong), reference().trace)
    assert "--rename" not in str(raised.value)


def test_a_trace_is_read_from_a_path_as_text(tmp_path: Path) -> None:
    write_trace(reference().trace, tmp_path / "t.safetensors")
    assert read_trace(str(tmp_path / "t.safetensors")).weights.keys() == reference().trace.weights.keys()
