"""A checkpoint as the folder that the hub has of a model, which transformers and inference engines load as it is.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json  README.md

transformers loads what was written before it gets its name: every weight by name, and the tokenizer with the ids that
it had. transformers would swap another one in without a word: for some classes it takes the pattern that splits a
text from the class, and not from tokenizer.json. `PreTrainedTokenizerFast` takes the file as it is.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from grader.checkpoints.card import model_card
from grader.checkpoints.checkpoint import WEIGHTS, Checkpoint
from grader.checkpoints.experts import apart
from grader.errors import GraderError, last_line
from grader.names import layers_as_one
from grader.package import distribution
from grader.quiet import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEAD = "lm_head.weight"
MAX_NAMES = 6
# What tells one pattern of splitting from another: contractions, capitals, digits, spaces, lines, letters with accents.
PROBE = "I'll say: it's 3.14159 or 2026,  isn't IT?\n\n\tDéjà vu — \"naïve\" café's 100%;   don't\r\nüber…\n"


@dataclass(frozen=True)
class Exported:
    """What was written. kind: transformers' class; parameters: how many, a tied head once; size: bytes, all files."""

    folder: Path
    kind: str
    parameters: int
    dtype: str
    size: int


def export_model(
    checkpoint: Checkpoint,
    to: Path,
    dtype: str | None = None,
    licence: str = "",
    agrees: Callable[[Any], None] | None = None,
) -> Exported:
    """Write the checkpoint into the folder `to`, which must be new or empty; it is there whole, or not at all.

    dtype: of the weights, a name of DTYPES; None leaves each as it is. licence: for a checkpoint that has none.
    agrees: given transformers' model of what was written, in float32; it raises GraderError where that is another.
    Raises GraderError where the folder is in use or there is no room, where transformers can't load the weights or
    lacks one, and where it reads a text otherwise than the checkpoint's tokenizer.
    """
    _require_transformers()
    if dtype is not None and dtype not in DTYPES:
        raise GraderError(f"--dtype {dtype} is not known; there are: {', '.join(DTYPES)}.")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise GraderError(f"{to} exists, and nothing in it is overwritten. Name another folder: --to FOLDER")
    to = to.absolute()
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
            made = Path(scratch) / to.name
            made.mkdir()
            exported = _write(checkpoint, made, dtype, licence, agrees)
            if to.is_dir():
                to.rmdir()
            os.replace(made, to)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full when weights are written
        reason = getattr(error, "strerror", None) or str(error)
        raise GraderError(
            f"{to} can't be written: {reason}. Nothing was kept. Name a folder with room, of your own: --to FOLDER"
        ) from None
    return Exported(to, exported.kind, exported.parameters, exported.dtype, exported.size)


def _write(
    checkpoint: Checkpoint, made: Path, dtype: str | None, licence: str, agrees: Callable[[Any], None] | None
) -> Exported:
    state = apart(checkpoint.stored())
    if dtype is not None:
        state = {name: t.to(DTYPES[dtype]) if t.is_floating_point() else t for name, t in state.items()}
    config = dict(checkpoint.config)
    config.pop("torch_dtype", None)
    config["dtype"] = _most_common_dtype(state)
    config |= _under_earlier_names(config)
    _write_json(made / "config.json", config)
    _copy_tokenizer(checkpoint, made, config)
    with quiet_transformers():
        state = _without_tied_head(state, made, checkpoint)
        save_file({name: t.contiguous() for name, t in state.items()}, made / WEIGHTS, metadata={"format": "pt"})
        (made / WEIGHTS).chmod(0o644)  # it makes files that their owner alone can read
        model = _loaded(made, checkpoint)
        ends = _require_same_ids(made, checkpoint)
        if agrees is not None:
            agrees(model)
    kind = type(model).__name__
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _write_json(made / "config.json", {**config, "architectures": [kind]})
    _write_json(made / "generation_config.json", _generation_config(checkpoint, config, ends))
    card = model_card(checkpoint, kind, parameters, config["dtype"], licence)
    (made / "README.md").write_text(card, encoding="utf-8")
    size = sum(path.stat().st_size for path in made.iterdir())
    return Exported(made, kind, parameters, config["dtype"], size)


def _require_transformers() -> None:
    if find_spec("transformers") is None:
        raise GraderError(
            "transformers loads what is written, to see that it can, and is not installed here. "
            f"Install it: pip install '{distribution().name}[reference]'"
        )


def _most_common_dtype(state: Mapping[str, Tensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in state.values():
        name = str(tensor.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + tensor.numel()
    return max(sizes, key=lambda name: sizes[name])


def _under_earlier_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields under the names that they had before transformers 5, which other programs still read (mlx-lm 0.32)."""
    rope = config.get("rope_parameters") or {}
    earlier = {
        "n_ctx": config.get("n_positions"),
        "num_experts": config.get("num_local_experts") if config.get("model_type") == "qwen3_moe" else None,
        "rope_theta": rope.get("rope_theta"),
    }
    return {name: value for name, value in earlier.items() if value is not None and name not in config}


def _without_tied_head(state: dict[str, Tensor], made: Path, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights without the head where the config ties it to the embedding: a file holds what is shared once."""
    from transformers import AutoConfig

    try:
        tied = AutoConfig.from_pretrained(made, local_files_only=True, trust_remote_code=False).tie_word_embeddings
    except Exception as error:  # transformers may refuse it in any way
        raise GraderError(f"transformers can't read {checkpoint.folder / 'config.json'}: {last_line(error)}") from None
    if not tied or HEAD not in state:
        return state
    head, rest = state[HEAD], {name: tensor for name, tensor in state.items() if name != HEAD}
    if not any(tensor.shape == head.shape and torch.equal(tensor, head) for tensor in rest.values()):
        raise GraderError(
            f"the config of {checkpoint.name} ties the head to the embedding, and `{HEAD}` has values of its own,"
            " which would be lost. Set tie_word_embeddings to false in its config.json."
        )
    return rest


def _loaded(made: Path, checkpoint: Checkpoint) -> Any:
    """transformers' model of the folder, in float32. Raises GraderError unless every weight has its place."""
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"local_files_only": True, "dtype": torch.float32, "attn_implementation": "eager"}
    options |= {"trust_remote_code": False, "output_loading_info": True}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(made, **options)
    except Exception as error:  # transformers may refuse it in any way
        raise GraderError(f"transformers can't load the weights of {checkpoint.name}: {last_line(error)}") from None
    lines = [
        line
        for keys, what in (
            ("missing_keys", "is missing: transformers would draw it at random"),
            ("unexpected_keys", "is nothing that transformers' model has"),
        )
        for line in layers_as_one(f"`{name}` {what}" for name in sorted(info[keys]))
    ]
    if lines:
        if len(lines) > MAX_NAMES:
            lines[MAX_NAMES - 1 :] = [f"and {len(lines) - MAX_NAMES + 1} more like these"]
        said = f"the weights of {checkpoint.name} have not the names of {type(model).__name__}, so nothing was written:"
        raise GraderError("\n  ".join([said, *lines]))
    return model.eval()


def _copy_tokenizer(checkpoint: Checkpoint, made: Path, config: Mapping[str, Any]) -> None:
    """tokenizer.json as it is, with a tokenizer_config.json that has transformers take it as it is."""
    shutil.copyfile(checkpoint.folder / "tokenizer.json", made / "tokenizer.json")
    known = _read_json(checkpoint.folder / "tokenizer_config.json")
    known.pop("auto_map", None)
    length = config.get("max_position_embeddings") or config.get("n_positions")
    if length:
        known.setdefault("model_max_length", length)
    for name in ("bos_token", "eos_token", "pad_token"):
        ids = config.get(f"{name}_id")
        token = checkpoint.tokenizer.id_to_token(ids[0] if isinstance(ids, list) else ids) if ids is not None else None
        if token is not None:
            known.setdefault(name, token)
    known.setdefault("clean_up_tokenization_spaces", False)
    _write_json(made / "tokenizer_config.json", {**known, "tokenizer_class": "PreTrainedTokenizerFast"})
    template = checkpoint.folder / "chat_template.jinja"
    if template.is_file():
        shutil.copyfile(template, made / template.name)


def _require_same_ids(made: Path, checkpoint: Checkpoint) -> list[int]:
    """The ids that end an answer by the chat template. Raises GraderError where transformers' ids are others."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made, local_files_only=True, trust_remote_code=False)
    own: Tokenizer = checkpoint.tokenizer
    theirs, ours = tokenizer(PROBE)["input_ids"], own.encode(PROBE).ids
    if theirs != ours:
        raise GraderError(
            f"transformers' tokenizer makes {len(theirs)} ids of a text, and that of {checkpoint.name} makes"
            f" {len(ours)}, or others. The model would read texts that it was not trained on, so nothing was written."
        )
    return _ends_of_an_answer(tokenizer)


def _ends_of_an_answer(tokenizer: Any) -> list[int]:
    """The special token that the chat template puts after an answer; none without a template.

    A model that chats ends with it, where the config may name the end of a text alone: it would never stop.
    """
    if not tokenizer.chat_template:
        return []
    answer = "Xyzzy"
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # a template may refuse anything
        return []
    after = tokenizer(str(text).rpartition(answer)[2], add_special_tokens=False)["input_ids"]
    return [token for token in after[:1] if token in tokenizer.added_tokens_decoder]


def _generation_config(checkpoint: Checkpoint, config: Mapping[str, Any], ends: list[int]) -> dict[str, Any]:
    known = _read_json(checkpoint.folder / "generation_config.json")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if config.get(name) is not None:
            known.setdefault(name, config[name])
    eos = known.get("eos_token_id")
    all_ends = [*(eos if isinstance(eos, list) else [] if eos is None else [eos]), *ends]
    if all_ends:
        distinct = list(dict.fromkeys(all_ends))
        known["eos_token_id"] = distinct if len(distinct) > 1 else distinct[0]
    return known


def _read_json(path: Path) -> dict[str, Any]:
    """What a file beside the weights says; nothing where there is none. Raises GraderError where it is no object."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GraderError(f"{path} is not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise GraderError(f"{path} holds a {type(found).__name__}, and one object belongs there.")
    return found


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
