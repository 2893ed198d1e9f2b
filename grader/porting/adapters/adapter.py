"""The few lines that a program needs to be compared, filled in with its own names.

A comparison builds a program from the fields of a config.json, calls it with token ids [B, T], and takes logits
[B, T, V]. A program that has a config of its own, or asks for more than the ids, gets that from an adapter.
"""

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from grader.layers.culprit import ADAPTER
from grader.porting.adapters.rope_fields import rope_value
from grader.porting.adapters.runs import parts_for
from grader.recordings.traces import Run

# What teaching and inference code calls the fields of a config, and what config.json files do.
FIELDS: tuple[tuple[str, str], ...] = (
    ("vocab_size n_vocab padded_vocab_size vocab vocabulary_size vocab_len", "vocab_size"),
    (
        "block_size context_length max_seq_len max_seq_length n_positions n_ctx ctx_len seq_len max_len context_window"
        " max_context_length max_position_embeddings context_size max_length",
        "max_position_embeddings n_positions max_seq_len",
    ),
    (
        "dim emb_dim n_embd n_embed d_model hidden_size embed_dim embedding_dim model_dim embed_size d_emb width",
        "hidden_size n_embd d_model",
    ),
    ("n_heads n_head num_heads num_attention_heads heads nhead n_q_heads", "num_attention_heads n_head n_heads"),
    (
        "n_kv_heads num_kv_heads n_kv_groups num_key_value_heads n_local_heads n_query_groups kv_heads num_kv_groups"
        " n_kv_head",
        "num_key_value_heads num_kv_heads num_attention_heads n_head",
    ),
    ("n_layers n_layer num_layers num_hidden_layers depth n_blocks num_blocks", "num_hidden_layers n_layer n_layers"),
    (
        "hidden_dim intermediate_size ffn_dim d_ff ff_dim mlp_dim ffn_hidden_size ffn_hidden_dim n_inner inner_dim"
        " intermediate_dim dim_feedforward mlp_hidden_dim inter_dim",
        "intermediate_size n_inner",
    ),
    (
        "moe_intermediate_size moe_hidden_dim moe_inter_dim expert_dim expert_hidden_dim",
        "moe_intermediate_size intermediate_size",
    ),
    ("head_dim head_size d_head dim_head d_k", "head_dim"),
    (
        "norm_eps rms_norm_eps eps layer_norm_eps layer_norm_epsilon rms_eps epsilon",
        "rms_norm_eps layer_norm_epsilon layer_norm_eps norm_eps",
    ),
    ("rope_theta rope_base theta rope_freq_base theta_base rotary_base", "rope_theta rotary_emb_base"),
    ("rope_local_base rope_local_base_freq rope_local_theta rope_theta_local", "rope_local_base_freq"),
    ("sliding_window window window_size sliding_window_size", "sliding_window"),
    (
        "num_experts n_experts n_expert num_local_experts n_routed_experts",
        "num_experts num_local_experts n_routed_experts",
    ),
    (
        "num_experts_per_tok experts_per_token top_k n_expert_per_token num_activated_experts n_experts_per_tok"
        " n_activated_experts num_experts_per_token experts_per_tok",
        "num_experts_per_tok experts_per_token",
    ),
    ("final_logit_softcap logit_softcap final_softcap", "final_logit_softcapping"),
    ("attn_logit_softcap attn_softcap", "attn_logit_softcapping"),
    ("n_dense_layers num_dense_layers", "first_k_dense_replace"),
    ("n_expert_groups num_expert_groups", "n_group"),
    ("n_limited_groups topk_groups", "topk_group"),
    ("route_scale routing_scale", "routed_scaling_factor"),
    ("score_func", "scoring_func"),
    ("d_state ssm_state", "state_size ssm_state_size mamba_d_state"),
    ("d_conv conv_kernel_size", "conv_kernel mamba_d_conv linear_conv_kernel_dim"),
    ("dt_rank", "time_step_rank mamba_dt_rank"),
    ("conv_bias", "use_conv_bias mamba_conv_bias"),
    ("rotary_pct rotary_percentage partial_rotary_factor", "rotary_pct partial_rotary_factor"),
)
# Meta's programs make the width of the feed-forward layers from two numbers: these give the config's own width.
WIDTHS = {
    "multiple_of": "config.intermediate_size",
    "ffn_dim_multiplier": "config.intermediate_size / (4 * config.hidden_size)",
}
DERIVED = {"head_dim": "config.hidden_size // config.num_attention_heads", "intermediate_size": "4 * config.n_embd"}
CONFIG_CLASS = re.compile(r"config|args|params", re.IGNORECASE)
NO_DROPOUT = re.compile(r"drop|pdrop")
CONFIGS = ("config", "cfg", "args", "params", "c", "conf", "hparams", "model_args", "configs")
BATCH = 2
LONG = 60


@dataclass(frozen=True)
class Adapter:
    """Lines that make a program comparable. missing: fields of the program's config that nobody could fill in."""

    source: str
    missing: tuple[str, ...]


def adapter_for(
    model: type, file: Path, build: Mapping[str, Any], weights: Sequence[str] = (), runs: Sequence[Run] = ()
) -> Adapter:
    """An adapter for a class of a file. build: the trace's build arguments. weights: the reference's names, which say
    whether its projections have biases. runs: the trace's, in which the program is given texts in parts.
    """
    fields = build.get("config", build)
    config, made, missing = _made(model, file, fields, weights)
    parts = parts_for(model, runs, lambda wanted: _values(wanted, fields, weights))
    known = {hand.partition("=")[0] for hand in parts.hands}
    arguments = [a for a in _arguments(model) if a.partition("=")[0] not in known] + list(parts.hands)
    imports = (
        ["import torch"] if any("torch." in part for part in (made, *arguments, *parts.before, *parts.makes)) else []
    )
    lines = [
        *imports,
        "from torch import nn",
        "",
        *_imported(file, [model.__name__, *([config] if config else []), *parts.imports]),
        "",
        "",
        f"class {ADAPTER}(nn.Module):",
        "    def __init__(self, config):",
        "        super().__init__()",
        *(["        self.config = config"] if parts.makes else []),
        f"        self.model = {made}",
        *(f"        {line}" for line in parts.starts),
        "",
        f"    def forward(self, {', '.join(['ids', *parts.takes])}):",
        *(f"        {line}" for line in parts.before),
        f"        return self.model({', '.join(['ids', *arguments])})",
        *([""] if parts.makes else []),
        *(f"    {line}" for line in parts.makes),
    ]
    return Adapter("\n".join(lines) + "\n", (*missing, *parts.missing))


def _imported(file: Path, names: list[str]) -> list[str]:
    extra = ["from types import SimpleNamespace", ""] if "SimpleNamespace" in names else []
    names = [name for name in names if name != "SimpleNamespace"]
    if file.suffix == ".ipynb" or not file.stem.isidentifier():
        loads = [f'{name} = load_model("{file.name}:{name}")' for name in names]
        return [*extra, "from grader import load_model", "", *loads]
    folder, module = file.resolve().parent, file.stem
    while (folder / "__init__.py").is_file():
        folder, module = folder.parent, f"{folder.name}.{module}"
    return [*extra, f"from {module} import {', '.join(names)}"]


def _made(model: type, file: Path, fields: Mapping[str, Any], weights: Sequence[str]) -> tuple[str, str, list[str]]:
    """The class of the program's config, how the program is made, and what could not be filled in."""
    signature = _signature(model.__init__)  # type: ignore[misc]
    required = [p for p in signature if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    given = next(iter(required or signature), None)
    module = sys.modules.get(model.__module__) or ModuleType("")
    if given is not None and (len(required) == 1 or not required):
        found = _config_class(given, module)
        if found is not None:
            values, missing = _values(_asked_for(found), fields, weights)
            return found.__name__, f"{model.__name__}({_call(found.__name__, values)})", missing
        if given.name in CONFIGS or given.annotation is dict:
            read, is_dict = _read_from(file, given.name)
            values, missing = _values(dict.fromkeys(read, False), fields, weights)
            if is_dict:
                return "", f"{model.__name__}({_dict(values)})", missing
            return "SimpleNamespace", f"{model.__name__}({_call('SimpleNamespace', values)})", missing
    values, missing = _values({p.name: p.default is not p.empty for p in signature}, fields, weights)
    return "", _call(model.__name__, values), missing


def _signature(function: Any) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    return [p for p in parameters if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _config_class(parameter: inspect.Parameter, module: ModuleType) -> Any:
    """The dataclass that a parameter is annotated with, or the only one of the file that is named as a config."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        annotation = getattr(module, annotation.rpartition(".")[2], None)
    for argument in (annotation, *typing.get_args(annotation)):
        if isinstance(argument, type) and (dataclasses.is_dataclass(argument) or _written(argument)):
            return argument
    known = [v for v in vars(module).values() if isinstance(v, type) and dataclasses.is_dataclass(v)]
    named = [v for v in known if CONFIG_CLASS.search(v.__name__)]
    return named[0] if len(named) == 1 and parameter.name in CONFIGS else None


def _asked_for(config: Any) -> dict[str, bool]:
    """What a config's class may be given, and whether it has a default: arguments, and keys among further ones."""
    source = _written(config)
    if not source:
        return {f.name: _has_default(f) for f in dataclasses.fields(config) if f.init}
    wanted = {p.name: p.default is not p.empty for p in _signature(config.__init__)}
    return wanted | dict.fromkeys(re.findall(r"kwargs\.(?:get|pop)\([\"'](\w+)[\"']", source), True)


def _written(config: type) -> str:
    """The source of a config's own constructor; "" where a dataclass made it."""
    if "__init__" not in vars(config) or not CONFIG_CLASS.search(config.__name__):
        return ""
    try:
        return inspect.getsource(config.__init__)  # type: ignore[misc]
    except (OSError, TypeError):
        return ""


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _read_from(file: Path, name: str) -> tuple[list[str], bool]:
    """The keys or attributes that a file reads from its config, and whether they are keys."""
    text = file.read_text(encoding="utf-8", errors="replace").replace('\\"', '"')
    named = "|".join(dict.fromkeys((name, *CONFIGS)))
    keys = re.findall(rf"\b(?:{named})(?:\[|\.get\()[\"'](\w+)[\"']", text)
    if keys:
        return list(dict.fromkeys(keys)), True
    attributes = re.findall(rf"\b(?:{named})\.(\w+)\b(?!\()", text)
    return list(dict.fromkeys(attributes)), False


def _values(
    wanted: Mapping[str, bool], fields: Mapping[str, Any], weights: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """For each field of a program's config, whether it has a default: an expression; and those without any."""
    values, missing = {}, []
    for name, has_default in wanted.items():
        value = _value(name, fields, weights)
        if value is None and not has_default:
            missing.append(name)
            value = "..."
        if value is not None:
            values[name] = value
    return values, missing


def _value(name: str, fields: Mapping[str, Any], weights: Sequence[str]) -> str | None:
    if name in ("model_type", "name"):  # of a preset, where the sizes are given instead
        return "None"
    known = [theirs for own, theirs in FIELDS if name in own.split()]
    if name in fields and not known:
        return f"config.{name}"
    if known and not ("expert" in name and not any("expert" in field for field in fields)):
        found = next((theirs for theirs in known[0].split() if fields.get(theirs) is not None), None)
        if found:
            return f"config.{found}"
        if rope := rope_value(name, fields):
            return rope
        derived = DERIVED.get(known[0].split()[0])
        return derived if derived and set(re.findall(r"config\.(\w+)", derived)) <= fields.keys() else None
    if rope := rope_value(name, fields):
        return rope
    if name in WIDTHS and {"intermediate_size", "hidden_size"} <= fields.keys():
        return WIDTHS[name]
    if NO_DROPOUT.search(name):
        return "0.0"
    if "expert" in name and not any("expert" in field for field in fields):
        return "0"
    scaling = fields.get("rope_scaling") or fields.get("rope_parameters")
    if "rope" in name and not (isinstance(scaling, Mapping) and "factor" in scaling):
        return "None"  # nothing scales it
    if name == "dtype":
        return "torch.float32"
    if name == "device":
        return '"cpu"'
    if name in ("pad_vocab_size_multiple", "padding_multiple"):
        return "1"
    if name in ("max_batch_size", "batch_size"):
        return str(BATCH)
    if name in ("bias", "qkv_bias", "attention_bias", "attn_bias"):
        return str(any(re.search(r"(q_proj|c_attn|query_key_value|query)\.bias$", weight) for weight in weights))
    if name == "qk_norm":
        return str(any("q_norm" in weight for weight in weights))
    return None


def _arguments(model: type) -> list[str]:
    """What forward has to be given besides the ids."""
    arguments = []
    for parameter in _signature(model.forward)[1:]:  # type: ignore[attr-defined]
        name = parameter.name
        if name in ("targets", "labels", "target"):
            if _last_only(model, name):
                arguments.append(f"{name}=ids")  # without them it gives the last token's logits alone
        elif parameter.default is not parameter.empty and name not in ("input_pos", "position_ids", "positions"):
            continue
        elif "mask" in name:
            arguments.append(f"{name}=torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()")
        elif name in ("start_pos", "start", "pos", "offset", "cache_position"):
            arguments.append(f"{name}=0")
        elif "pos" in name:
            arguments.append(f"{name}=torch.arange(ids.shape[1])")
        else:
            arguments.append(f"{name}=...")
    return arguments


def _last_only(model: type, name: str) -> bool:
    """Whether forward looks at the last token alone where it gets no targets."""
    try:
        source = inspect.getsource(model.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return False
    return bool(re.search(rf"\b{name}\b", source) and re.search(r"\[:, ?\[?-1:?\]?(, ?:)?\]", source))


def _call(name: str, values: Mapping[str, str]) -> str:
    pairs = [f"{key}={value}" for key, value in values.items()]
    return f"{name}({_lines(pairs)})"


def _dict(values: Mapping[str, str]) -> str:
    pairs = [f'"{key}": {value}' for key, value in values.items()]
    return f"{{{_lines(pairs)}}}"


def _lines(items: list[str]) -> str:
    """Items in one line, or one a line where that would be a long one."""
    line = ", ".join(items)
    if len(line) <= LONG:
        return line
    return "\n" + "".join(f"            {item},\n" for item in items) + "        "


def is_module(model: Any) -> bool:
    """Whether an adapter can be made for it: a class of modules that is none itself."""
    return isinstance(model, type) and issubclass(model, nn.Module) and model.__name__ != ADAPTER
