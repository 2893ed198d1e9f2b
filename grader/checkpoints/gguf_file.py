"""An exported folder as one GGUF file, which llama.cpp and what is built on it load.

Only architectures whose weights go over matrix by matrix are written here, in float32. llama.cpp has a script for many
more, convert_hf_to_gguf.py, which reads the same folder; of tokenizers it takes those of known models alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from grader.checkpoints.experts import together
from grader.config import Config
from grader.errors import GraderError
from grader.package import distribution

Named = Iterator[tuple[str, Tensor]]
USUAL_SPLIT = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "use_regex": True,
}  # GPT-2's, which llama.cpp has built in
ORDINARY, CONTROL = 1, 3  # kinds of tokens in a GGUF file


def write_gguf(folder: Path, to: Path) -> Path:
    """Write the model of an exported folder as a GGUF file.

    Raises GraderError where the architecture or the tokenizer is not one of those that are written here.
    """
    if find_spec("gguf") is None:
        raise GraderError(
            f"`--gguf` needs the package gguf, which is not installed: pip install '{distribution().name}[weights]'"
        )
    import gguf

    config = Config.read(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise GraderError(
            f"`--gguf` writes {', '.join(KINDS)}, and this is {kind}. The folder is complete. llama.cpp's"
            " convert_hf_to_gguf.py reads such folders of many more, where the tokenizer is a known model's."
        )
    architecture, tensors = KINDS[kind]
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    split = tokenizer.get("pre_tokenizer") or {}
    if {key: split.get(key) for key in USUAL_SPLIT} != USUAL_SPLIT or tokenizer.get("normalizer"):
        raise GraderError(
            "`--gguf` writes tokenizers that split a text as GPT-2 does, and this one splits otherwise."
            " The folder is complete; llama.cpp's convert_hf_to_gguf.py knows the tokenizers of many models."
        )
    writer = gguf.GGUFWriter(str(to), architecture)
    layers = int(config.get("num_hidden_layers") or config.n_layer)
    _write_numbers(writer, config, layers)
    _write_tokenizer(writer, tokenizer, config)
    known = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), layers)
    for name, tensor in tensors(load_file(folder / "model.safetensors")):
        theirs = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise GraderError(f"llama.cpp has no place for `{name}` in its {architecture}.")
        writer.add_tensor(theirs, tensor.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


def _write_numbers(writer: Any, config: Config, layers: int) -> None:
    """The numbers of the config, each under the name that llama.cpp reads."""
    width = int(config.get("hidden_size") or config.n_embd)
    heads = int(config.get("num_attention_heads") or config.n_head)
    writer.add_block_count(layers)
    writer.add_context_length(int(config.get("max_position_embeddings") or config.n_positions))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(int(config.get("intermediate_size") or config.get("n_inner") or 4 * width))
    writer.add_head_count(heads)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    head_dim = int(config.get("head_dim") or 128)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10_000.0)}
    full: Mapping[str, Any] = rope.get("full_attention", rope)
    if full.get("rope_type", "default") != "default":
        raise GraderError(f"`--gguf` writes RoPE without scaling, and this config has {full['rope_type']}.")
    writer.add_rope_freq_base(float(full["rope_theta"]))
    if "sliding_attention" in rope:
        writer.add_rope_freq_base_swa(float(rope["sliding_attention"]["rope_theta"]))
        writer.add_sliding_window(int(config.sliding_window))
    if config.model_type == "qwen3_moe":
        writer.add_expert_count(int(config.get("num_experts") or config.num_local_experts))
        writer.add_expert_used_count(int(config.num_experts_per_tok))
        writer.add_expert_feed_forward_length(int(config.moe_intermediate_size))


def _write_tokenizer(writer: Any, tokenizer: Mapping[str, Any], config: Config) -> None:
    vocabulary = dict(tokenizer["model"]["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    by_id = {index: token for token, index in (vocabulary | special).items()}
    count = int(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([by_id.get(index, f"[unused {index}]") for index in range(count)])
    ordinary = set(by_id) - set(special.values())
    writer.add_token_types([ORDINARY if index in ordinary else CONTROL for index in range(count)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        if isinstance(known := config.get(f"{name}_token_id"), int):
            add(known)
    writer.add_add_bos_token(False)


def _as_they_are(state: Mapping[str, Tensor]) -> Named:
    yield from state.items()


def _gpt2(state: Mapping[str, Tensor]) -> Named:
    """GPT-2's matrices are stored as [in, out], and llama.cpp wants [out, in] of every model."""
    for name, tensor in state.items():
        whole = name if name.startswith("transformer.") else f"transformer.{name}"
        matrix = tensor.ndim == 2 and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        yield whole, tensor.T if matrix else tensor


def _gemma3(state: Mapping[str, Tensor]) -> Named:
    """Gemma's norms multiply by 1 + weight, and llama.cpp's by the weight."""
    for name, tensor in state.items():
        yield name, tensor.float() + 1 if name.endswith("norm.weight") else tensor


def _experts(state: Mapping[str, Tensor]) -> Named:
    """llama.cpp has one tensor for all experts' gates, one for their ups, one for their downs."""
    for name, tensor in together(state).items():
        stem, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            for part, half in zip(("gate_proj", "up_proj"), tensor.chunk(2, dim=1), strict=True):
                yield f"{stem}.{part}.weight", half
        else:
            yield (f"{name}.weight" if last == "down_proj" else name), tensor


KINDS: Mapping[str, tuple[str, Callable[[Mapping[str, Tensor]], Named]]] = {
    "gpt2": ("gpt2", _gpt2),
    "qwen3": ("qwen3", _as_they_are),
    "gemma3_text": ("gemma3", _gemma3),
    "qwen3_moe": ("qwen3moe", _experts),
}
