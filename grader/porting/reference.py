"""A reference for a model that is being ported: from its config.json alone, a small random model of transformers."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grader.atlas.opening import config_of
from grader.calls import first_tensor
from grader.errors import GraderError, last_line
from grader.lessons.exercise import Draw
from grader.porting.coverage import Coverage, coverage_of
from grader.porting.depth import cut, depth_of, ends_alike, enough_layers, kinds
from grader.porting.filling import fill, tokens
from grader.porting.floor import highest_floor, is_steady, with_floors
from grader.porting.lengths import enough_tokens, long_enough
from grader.porting.runs import ONE_PASS, Ways, consistency, traced
from grader.porting.shrink import AMBITIONS, Ambition, shrunk
from grader.porting.sizes import NAMES, POSITIONS, ROLES, TOKENS, VOCAB, first_of
from grader.quiet import quiet_transformers
from grader.recordings.traces import Alternative, Trace

# What transformers adds to every config, and no model reads.
HOUSEKEEPING = ("id2label", "label2id", "_name_or_path", "transformers_version", "problem_type", "return_dict",
                "output_attentions", "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder",
                "architectures", "use_cache", "dtype", "auto_map", "torch_dtype", "quantization_config")  # fmt: skip
DRAWS = 3
MOST_PARAMETERS = 50_000_000  # of a model that is to be small; above it, a pass takes minutes


@dataclass(frozen=True)
class Reference:
    """A small random model of transformers'. kind: its class. fields: its config as the ported model reads it.

    trace: one pass of it. config: its own config, all fields. remade: a model that another config makes, in its dtype.
    """

    kind: str
    model: Any
    ids: Tensor
    fields: dict[str, Any]
    coverage: tuple[Coverage, ...]
    trace: Trace
    config: dict[str, Any]
    remade: Callable[[Mapping[str, Any]], Any]

    @property
    def size(self) -> int:
        """The number of its parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def small_reference(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    changes: Mapping[str, Any] | None = None,
    length: int | None = None,
    ways: Ways = ONE_PASS,
) -> Reference:
    """A small random model of the architecture in a config.json, which transformers can run.

    path: the file, or what else names a model to `grader.atlas.architecture_of`. changes: values that fields of the
    small config must have. length: how many tokens it is given; None: as many as show what its layers do. ways: how it
    is run besides. Raises GraderError for what is no config.json of a causal
    language model that this transformers knows, and where a small one can't be made or run.
    """
    given = dict(config_of(path)[0])
    with quiet_transformers():
        config_class = _config_class(given, path)
        try:
            config = config_class(**_without(given, HOUSEKEEPING))
        except Exception as error:  # transformers checks configs in many ways
            raise GraderError(f"{path} is no config that transformers accepts: {last_line(error)}") from None
        text = config.get_text_config(decoder=True)
        model_class = _model_class(config, text, path)
        if text is not config:  # a model that also sees or hears: its language model is what is compared
            given = dict(given.get("text_config", {}))
        wishes = dict(changes or {})
        short = Request(model_class, type(text), text.to_dict(), given, dtype, wishes, TOKENS, ways)
        request = short.with_length(length)
        found = _first_that_runs(request, AMBITIONS)
        if length is None and request.length > TOKENS and not is_steady(found.trace):
            request = short.with_length(TOKENS)  # among more tokens, rounding chooses another expert more often
            found = _first_that_runs(request, AMBITIONS)
        changed = tuple(_changes(given, found.fields))
        others = tuple(_alternatives(request, found, _head_dim_is_derived(given)))
        return dataclasses.replace(found, trace=dataclasses.replace(found.trace, changed=changed, alternatives=others))


def _alternatives(request: "Request", found: Reference, derived: bool) -> Iterator[Alternative]:
    """The same with numbers that a program may have in its code: a derived head_dim, published constants, both."""
    seen = [found.fields]
    for plain, published in ((True, False), (False, True), (True, True)):
        if plain and not derived:
            continue
        wanted = [dataclasses.replace(a, published=published) for a in AMBITIONS if not (plain and a.head_dim)]
        try:
            other = _first_that_runs(request, wanted)
        except GraderError:  # some architectures fit small numbers alone
            continue
        if other.fields not in seen:
            seen.append(other.fields)
            but = NAMES["head_dim"].split() if plain else ()
            said = [text.rpartition(".")[2] for text in _changes(found.fields, other.fields, but)]
            words = ", ".join(dict.fromkeys(said))
            yield Alternative(words, other.trace, plain)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], but: Sequence[str] = ()) -> Iterator[str]:
    """Which fields of a config differ from another's, fields within fields included: "hidden_size 64 for 4096"."""
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from (f"{name}.{text}" for text in _changes(old, value))
        elif name in before and value != old and name not in but:
            long = isinstance(value, list | tuple) or isinstance(old, list | tuple)
            yield f"{name} shorter" if long else f"{name} {value} for {old}"


def _room_for(length: int, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that let a small model have as many positions as it is given tokens."""
    if length <= POSITIONS:
        return {}
    return {name: length for name in NAMES["positions"].split() if type(whole.get(name)) is int}


def _head_dim_is_derived(given: Mapping[str, Any]) -> bool:
    """Whether a config spells out a head_dim that a program may as well derive."""
    sizes = [first_of(role, given) for role in ("head_dim", "hidden", "heads")]
    head_dim, hidden, heads = (size or 0 for size in sizes)
    return bool(head_dim and heads) and head_dim * heads == hidden


def _config_class(given: Mapping[str, Any], path: str | Path) -> Any:
    try:
        from transformers import CONFIG_MAPPING, __version__
    except ImportError:
        raise GraderError("This needs transformers, which is not installed: pip install -e '.[reference]'") from None
    kind = given.get("model_type")
    if not isinstance(kind, str):
        raise GraderError(f"{path} has no `model_type`, which says what architecture it is of. Is it a config.json?")
    if kind in CONFIG_MAPPING:
        return CONFIG_MAPPING[kind]
    if isinstance(given.get("auto_map"), Mapping):
        code = str(next(iter(given["auto_map"].values()), "")).rpartition("--")[2].partition(".")[0]
        raise GraderError(
            f"`{kind}` comes with Python code of its own ({code}.py), which is not run here."
            " If you trust it, load the model in Python and use trace_of(model, ids)."
        )
    close = difflib.get_close_matches(kind, CONFIG_MAPPING, n=3, cutoff=0.5)
    nearest = f" The nearest names are: {', '.join(close)}." if close else ""
    raise GraderError(f"transformers {__version__} knows no architecture `{kind}`.{nearest}")


def _model_class(config: Any, text: Any, path: str | Path) -> Any:
    """The causal language model of `text`, the config of the language model in `config`, which may be the same."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    for known in (type(text), type(config)):
        if known in MODEL_FOR_CAUSAL_LM_MAPPING:
            found = MODEL_FOR_CAUSAL_LM_MAPPING[known]
            model_class: Any = found[0] if isinstance(found, tuple) else found
            if known is type(text) or model_class.config_class is type(text):
                return model_class
    raise GraderError(f"{path}: transformers has no causal language model of type `{config.model_type}`.")


@dataclass(frozen=True)
class Request:
    """What a small model is made from: classes of transformers, all fields, those that the file gives, wishes."""

    model_class: Any
    config_class: Any
    whole: dict[str, Any]
    given: dict[str, Any]
    dtype: torch.dtype
    changes: dict[str, Any]
    length: int
    ways: Ways

    def with_length(self, length: int | None) -> "Request":
        """The same with room for `length` tokens; None: as many as show what the layers do."""
        if length is None and self.ways != ONE_PASS:
            length = TOKENS  # in parts, which cross every boundary themselves
        if length is None:
            narrow = shrunk(self.whole, self.whole, self.given, AMBITIONS[0]) | self.changes
            try:
                with torch.device("meta"):
                    length = enough_tokens(self.build(narrow), narrow)
            except Exception:  # transformers may reject a config that wishes for much
                length = TOKENS
        room = _room_for(length + self.ways.offset, self.whole)
        return dataclasses.replace(self, changes=room | self.changes, length=length)

    def build(self, fields: Mapping[str, Any]) -> Any:
        """The model that a config of these fields makes."""
        config = self.config_class(**_without(fields, HOUSEKEEPING), use_cache=False)
        options = {"attn_implementation": "eager", "experts_implementation": "eager", "dtype": torch.float32}
        model: nn.Module = self.model_class._from_config(config, **options)
        return model.eval()

    def build_in_dtype(self, fields: Mapping[str, Any]) -> Any:
        """The same with weights of the dtype that is asked for; buffers stay, as when a checkpoint is loaded."""
        model = self.build(fields)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(self.dtype)
        return model


def _first_that_runs(request: Request, ambitions: Iterable[Ambition]) -> Reference:
    first: Exception | None = None
    for wanted in ambitions:
        try:
            return _reference(request, wanted)
        except Exception as error:  # transformers may reject a config, or fail in any way on it
            first = first or error
    assert first is not None
    if isinstance(first, GraderError):
        raise first
    try:
        with torch.device("meta"):
            request.build(request.whole)
    except Exception as error:
        raise GraderError(
            f"transformers can't make a {request.model_class.__name__} of this config as it is"
            f" ({type(error).__name__}: {last_line(error)}). Does the file lack a field? --set FIELD=VALUE gives it."
        ) from None
    raise GraderError(
        f"transformers can't run a small {request.model_class.__name__} ({type(first).__name__}: {last_line(first)})."
        " Name the sizes that it needs with --set FIELD=VALUE."
    )


def _reference(request: Request, wanted: Ambition) -> Reference:
    whole, changes = request.whole, request.changes
    narrowed = shrunk(whole, whole, request.given, wanted)
    narrow = narrowed | {name: value for name, value in changes.items() if name not in ROLES}
    depth = depth_of(whole)
    with torch.device("meta"):
        try:
            every = request.build(narrow)
        except Exception:  # what is changed may fit the smaller number of layers alone
            if narrow == narrowed:
                raise
            every = request.build(narrowed)
    all_layers = kinds(every, narrow, depth)
    layers = first_of("layers", changes) or ends_alike(enough_layers(all_layers), narrow.get("layer_types") or [])
    small = cut(narrow, depth, layers) | changes
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in request.build(small).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"it still has {size:,} parameters")
    mine = cut(shrunk(request.given, whole, request.given, wanted), depth, layers) | changes
    fields = _without({**small, **mine}, HOUSEKEEPING)
    model, ids, trace, unequal = _steady(request, small, fields)
    covered = coverage_of(small, kinds(model, small, layers), all_layers, unequal, request.length)
    covered = [*covered, *long_enough(model, small, request.length), *consistency(trace), _steadiness(trace)]
    return Reference(
        request.model_class.__name__, model, ids, fields, tuple(covered), trace, small, request.build_in_dtype
    )


def _steady(request: Request, small: Mapping[str, Any], fields: dict[str, Any]) -> tuple[Any, Tensor, Trace, bool]:
    """A model, token ids, a pass, and whether embeddings are unequal: drawn anew where rounding moves it much.

    The steadiest of a few if all do.
    """
    drawn = []
    for number in range(DRAWS):
        model = request.build(small)
        draw = Draw("trace", request.model_class.__name__, *([str(number)] if number else []))
        unequal = fill(model, draw)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(request.dtype)  # as `build_in_dtype` does
        ids = tokens(first_of("vocab", small) or VOCAB, draw, request.length)
        with torch.no_grad():
            logits = first_tensor(model(ids))
        if logits is None or not logits.isfinite().all():
            raise ValueError("its output is not finite")
        trace = with_floors(traced(model, ids, fields, request.ways), model)
        drawn.append((highest_floor(trace)[0], (model, ids, trace, unequal)))
        if is_steady(trace):
            break
    return min(drawn, key=lambda item: item[0])[1]


def _steadiness(trace: Trace) -> Coverage:
    name, (floor, count) = "right whatever the order of operations", highest_floor(trace)
    if not count:
        return Coverage(name, True, "rounding moves no row near its tolerance")
    calls = f"{count} of {len(trace.calls)} rows"
    if is_steady(trace):
        moved = f"rounding moves them by up to {floor:.1g} of their size, so smaller errors can't be seen there"
        return Coverage(name, True, f"{calls} get more room: {moved}")
    as_good = "as where two experts are as good; a right program may differ there"
    return Coverage(name, False, f"rounding decides in {calls}, {as_good}")


def _without(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
