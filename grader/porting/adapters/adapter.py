"""The few lines that a program needs to be compared, filled in with its own names.

A comparison builds a program from the fields of a config.json, calls it with token ids [B, T], and takes logits
[B, T, V]. A program that has a config of its own, or asks for more than the ids, gets that from an adapter.
"""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from torch import nn

from grader.layers.culprit import ADAPTER
from grader.layers.missing import stubbed
from grader.layers.own_model import MODULE_NAME, roots
from grader.porting.adapters.choices import chosen
from grader.porting.adapters.fields import Default, Known, filled_in
from grader.porting.adapters.runs import lines_for_runs
from grader.recordings.traces import Run

CONFIG_CLASS = re.compile(r"config|args|params", re.IGNORECASE)
CONFIGS = ("config", "cfg", "args", "params", "c", "conf", "hparams", "model_args", "configs")
LONG = 60
LENGTHS = ("seqlens", "seq_lens", "seqlen_list")  # of texts that are handed over as one [B T]
POSITIONS = ("input_pos", "position_ids", "positions")
MASK_OF_TEXTS = re.compile(r"^(input|sequence|seq|pad|padding|token|key_padding)_?mask$")  # [B, T]: what is no padding


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
    module = sys.modules.get(model.__module__) or ModuleType("")
    config = _made(model, file, fields, weights)
    made, missing = config.made, config.missing
    parts = lines_for_runs(model, runs, lambda wanted: filled_in(wanted, fields, weights))
    known = {hand.partition("=")[0] for hand in parts.hands}
    arguments = [a for a in _arguments(model) if a.partition("=")[0] not in known] + list(parts.hands)
    imports = (
        ["import torch"] if any("torch." in part for part in (made, *arguments, *parts.before, *parts.makes)) else []
    )
    joined = any(argument.startswith(f"{name}=") for argument in arguments for name in LENGTHS)
    given, after = ("ids.flatten()", ".unflatten(0, ids.shape)") if joined else ("ids", "")
    lines = [
        *imports,
        "from torch import nn",
        "",
        *_stubs(),
        *_imported(file, [model, *config.needs, *(vars(module)[name] for name in parts.imports)]),
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
        f"        return self.model({', '.join([given, *arguments])}){after}",
        *([""] if parts.makes else []),
        *(f"    {line}" for line in parts.makes),
    ]
    return Adapter("\n".join(lines) + "\n", (*missing, *parts.missing))


def _stubs() -> list[str]:
    """What is said of packages that are not installed."""
    names = ", ".join(stubbed())
    return [f"# Not installed here, so empty packages stand for them: {names}", ""] if names else []


def _imported(file: Path, wanted: Sequence[type]) -> list[str]:
    """The lines that import classes, each from the module that defines it."""
    classes = list(dict.fromkeys(wanted))
    extra = ["from types import SimpleNamespace", ""] if SimpleNamespace in classes else []
    classes = [one for one in classes if one is not SimpleNamespace]
    if file.suffix == ".ipynb" or not file.stem.isidentifier():
        loads = [f'{one.__name__} = load_model("{file.name}:{one.__name__}")' for one in classes]
        return [*extra, "from grader import load_model", "", *loads]
    by_module: dict[str, list[str]] = {}
    for one in classes:
        by_module.setdefault(_module_of(one, file), []).append(one.__name__)
    return [*extra, *(f"from {module} import {', '.join(names)}" for module, names in by_module.items())]


def _module_of(one: type, file: Path) -> str:
    if one.__module__ != MODULE_NAME:
        return one.__module__
    folder, module = file.resolve().parent, file.stem
    while (folder / "__init__.py").is_file():
        folder, module = folder.parent, f"{folder.name}.{module}"
    around = roots(file)[2:]  # beside a folder that is imported as a package, and has no __init__.py
    return ".".join(file.resolve().relative_to(around[0]).with_suffix("").parts) if around else module


class _Made(NamedTuple):
    """How the program is made, what could not be filled in, and the classes that this needs."""

    made: str
    missing: list[str]
    needs: tuple[type, ...] = ()


def _made(model: type, file: Path, fields: Mapping[str, Any], weights: Sequence[str]) -> _Made:
    signature = _signature(model.__init__)  # type: ignore[misc]
    required = [p for p in signature if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    given = next(iter(required or signature), None)
    module = sys.modules.get(model.__module__) or ModuleType("")
    if given is not None and (len(required) == 1 or not required):
        found = _config_class(given, module)
        if found is not None:
            values, missing = filled_in(_asked_for(found), fields, weights)
            choices = list(chosen(found, Known(fields, weights)))
            values |= {name: value for name, value, _ in choices}
            needs = (found, *(kind for _, _, kind in choices if kind is not None))
            return _Made(f"{model.__name__}({_call(found.__name__, values)})", missing, needs)
        if given.name in CONFIGS or given.annotation is dict:
            read, is_dict = _read_from(file, given.name)
            values, missing = filled_in(dict.fromkeys(read, False), fields, weights)
            if is_dict:
                return _Made(f"{model.__name__}({_dict(values)})", missing)
            return _Made(f"{model.__name__}({_call('SimpleNamespace', values)})", missing, (SimpleNamespace,))
    configs = {p.name: found for p in required if (found := _config_class(p, module)) is not None}
    rest = {p.name: p.default is not p.empty for p in signature if p.name not in configs}
    values, missing = filled_in(rest, fields, weights)
    for name, found in configs.items():  # a config among further arguments
        inner, unknown = filled_in(_asked_for(found), fields, weights)
        values = {name: _call(found.__name__, inner), **values}
        missing += unknown
    return _Made(_call(model.__name__, values), missing, tuple(configs.values()))


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


def _asked_for(config: Any) -> dict[str, bool | Default]:
    """What a config's class may be given, and whether it has a default: arguments, and keys among further ones."""
    source = _written(config)
    none = dataclasses.MISSING
    stated = [f for f in dataclasses.fields(config) if f.init] if dataclasses.is_dataclass(config) else []
    of_class: dict[str, bool | Default] = {
        f.name: Default(f.default) if f.default is not none else f.default_factory is not none for f in stated
    }
    if not source:
        return of_class
    wanted: dict[str, bool | Default] = {p.name: p.default is not p.empty for p in _signature(config.__init__)}
    wanted |= dict.fromkeys(re.findall(r"kwargs\.(?:get|pop)\([\"'](\w+)[\"']", source), True)
    return wanted or {name: default or True for name, default in of_class.items()}  # it takes what the class states


def _written(config: type) -> str:
    """The source of a config's own constructor; "" where a dataclass made it."""
    if "__init__" not in vars(config) or not CONFIG_CLASS.search(config.__name__):
        return ""
    try:
        return inspect.getsource(config.__init__)  # type: ignore[misc]
    except (OSError, TypeError):
        return ""


def _read_from(file: Path, name: str) -> tuple[list[str], bool]:
    """The keys or attributes that a file reads from its config, and whether they are keys."""
    text = file.read_text(encoding="utf-8", errors="replace").replace('\\"', '"')
    named = "|".join(dict.fromkeys((name, *CONFIGS)))
    keys = re.findall(rf"\b(?:{named})(?:\[|\.get\()[\"'](\w+)[\"']", text)
    if keys:
        return list(dict.fromkeys(keys)), True
    attributes = re.findall(rf"\b(?:{named})\.(\w+)\b(?!\()", text)
    attributes += re.findall(rf"\bgetattr\((?:self\.)?(?:{named}), *[\"'](\w+)[\"']", text)
    return list(dict.fromkeys(attributes)), False


def _arguments(model: type) -> list[str]:
    """What forward has to be given besides the ids."""
    arguments = []
    for parameter in _signature(model.forward)[1:]:  # type: ignore[attr-defined]
        name = parameter.name
        if name in ("targets", "labels", "target"):
            if _last_only(model, name):
                arguments.append(f"{name}=ids")  # without them it gives the last token's logits alone
        elif parameter.default is not parameter.empty and (name not in POSITIONS or _does_without(model, name)):
            continue
        elif name in LENGTHS:
            arguments.append(f"{name}=[ids.shape[1]] * len(ids)")
        elif MASK_OF_TEXTS.search(name):
            arguments.append(f"{name}=torch.ones_like(ids, dtype=torch.bool)")
        elif "mask" in name:
            arguments.append(f"{name}=torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()")
        elif name in ("start_pos", "start", "pos", "offset", "cache_position"):
            arguments.append(f"{name}=0")
        elif name == "position_ids":
            arguments.append(f"{name}=torch.arange(ids.shape[1]).expand(ids.shape)")
        elif "pos" in name:
            arguments.append(f"{name}=torch.arange(ids.shape[1])")
        else:
            arguments.append(f"{name}=...")
    return arguments


def _does_without(model: type, name: str) -> bool:
    """Whether forward has positions of its own where it is given none."""
    try:
        source = textwrap.dedent(inspect.getsource(model.forward))  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return False
    used = any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(source)))
    return not used or bool(re.search(rf"\b{name} is (not )?None", source))


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
    inner = [item.replace("\n", "\n    ") for item in items]  # of a call in a call
    return "\n" + "".join(f"            {item},\n" for item in inner) + "        "


def is_module(model: Any) -> bool:
    """Whether an adapter can be made for it: a class of modules that is none itself."""
    return isinstance(model, type) and issubclass(model, nn.Module) and model.__name__ != ADAPTER
