"""`grader export-model --gguf`: the file as the gguf package, transformers and llama.cpp read it."""

import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from grader.checkpoints import entry, load_checkpoint
from grader.checkpoints.exported import export_model
from grader.checkpoints.gguf_file import KINDS, write_gguf
from grader.cli.hub import export_model as command
from grader.errors import GraderError

WRITTEN = ("austen-gpt2", "austen-qwen3", "austen-gemma3", "austen-moe")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each shipped model that a GGUF file is written of, exported, with its file."""
    made = {}
    for name in WRITTEN:
        folder = export_model(load_checkpoint(name), tmp_path_factory.mktemp(name) / name).folder
        made[name] = write_gguf(folder, folder / f"{name}.gguf").parent
    return made


def read(folder: Path) -> dict[str, np.ndarray]:
    reader = gguf.GGUFReader(folder / f"{folder.name}.gguf")
    return {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_there_is_a_model_of_every_kind_that_is_written() -> None:
    kinds = {load_checkpoint(name).config.model_type for name in WRITTEN}
    assert kinds == set(KINDS)


def test_qwen3s_matrices_are_in_it_as_they_are(folders: dict[str, Path]) -> None:
    state, written = load_file(folders["austen-qwen3"] / "model.safetensors"), read(folders["austen-qwen3"])
    names = {"q_proj": "attn_q", "k_norm": "attn_k_norm", "o_proj": "attn_output"}
    for ours, theirs in names.items():
        wanted = state[f"model.layers.2.self_attn.{ours}.weight"].float().numpy()
        assert np.array_equal(written[f"blk.2.{theirs}.weight"], wanted)
    assert len(written) == len(state)


def test_an_experts_gate_and_up_are_two_tensors(folders: dict[str, Path]) -> None:
    state, written = load_checkpoint("austen-moe").state_dict(), read(folders["austen-moe"])
    both = np.concatenate([written[f"blk.1.ffn_{part}_exps.weight"] for part in ("gate", "up")], axis=1)
    assert np.array_equal(both, state["model.layers.1.mlp.experts.gate_up_proj"].numpy())


def test_gpt2s_matrices_are_turned_over(folders: dict[str, Path]) -> None:
    state, written = load_file(folders["austen-gpt2"] / "model.safetensors"), read(folders["austen-gpt2"])
    assert np.array_equal(written["blk.3.attn_qkv.weight"], state["h.3.attn.c_attn.weight"].float().numpy().T)
    assert np.array_equal(written["position_embd.weight"], state["wpe.weight"].float().numpy())


def test_transformers_reads_gemmas_weights_from_it(folders: dict[str, Path]) -> None:
    """Not the same model: transformers 5.24 takes the second RoPE of Gemma 3 from its own defaults."""
    folder, options = folders["austen-gemma3"], {"dtype": torch.float32}
    wanted = AutoModelForCausalLM.from_pretrained(folder, **options).state_dict()
    found = AutoModelForCausalLM.from_pretrained(folder, gguf_file=f"{folder.name}.gguf", **options).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[key], wanted[key], atol=1e-6) for key in wanted)


@pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("name", WRITTEN)
def test_llama_cpp_writes_what_transformers_writes(folders: dict[str, Path], name: str) -> None:
    from llama_cpp import Llama  # type: ignore[import-not-found]

    path = folders[name] / f"{name}.gguf"
    model = Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    for golden in entry(name).goldens:
        ids = model.tokenize(golden.prompt.encode(), add_bos=False)
        assert golden.prompt_ids and golden.new_ids
        assert ids == list(golden.prompt_ids)
        written = model.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0)
        assert [next(written) for _ in golden.new_ids] == list(golden.new_ids)


def test_another_architecture_is_refused_and_the_folder_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GraderError, match=r"writes gpt2, qwen3, gemma3_text, qwen3_moe, and this is deepseek_v3"):
        command("austen-mla", tmp_path / "out", gguf=True)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert "transformers loads it" in capsys.readouterr().out


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    folder = export_model(load_checkpoint("austen-qwen3"), tmp_path / "out").folder
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(GraderError, match="split a text as GPT-2 does"):
        write_gguf(folder, folder / "out.gguf")


def test_the_command_writes_it_into_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("austen-gpt2", tmp_path / "mine", gguf=True)
    assert "for llama.cpp: " in capsys.readouterr().out
    assert (tmp_path / "mine" / "mine.gguf").exists()
