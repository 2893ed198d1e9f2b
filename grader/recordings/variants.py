"""A recorded case asked in another way, and the part of its recorded output that must then come out.

No variant holds a right number of its own: what is right follows from what was recorded. Each says how build arguments,
arguments and weights change, which part of the new output counts (`picked`), and what that must be (`wanted`).
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from grader.config import Config
from grader.recordings.toy_lm import ToyLM

Values = tuple[Any, ...]
POSITIONS = "n_positions", "max_position_embeddings"  # how many tokens a model is made for

COUNTED = 32  # of the numbers that come out for large ones, about so many count
FURTHER = 3_001  # beyond the whole numbers that float16 holds
LONG = 300  # beyond what one byte counts

# Fields that a family may have, and that say nothing in a config of another, each with some value.
OTHER_FIELDS: dict[str, Any] = {
    "head_dim": 7,
    "sliding_window": 2,
    "attention_chunk_size": 2,
    "n_ctx": 3,
    "n_head": 5,
    "n_inner": 11,
    "attention_bias": True,
    "mlp_bias": True,
    "qkv_bias": True,
    "use_bias": True,
    "use_qk_norm": True,
    "use_sliding_window": True,
    "parallel_residual": True,
    "scale_attn_by_inverse_layer_idx": True,
    "query_pre_attn_scalar": 3.0,
    "norm_eps": 0.5,
    "layer_norm_eps": 0.5,
    "layer_norm_epsilon": 0.5,
    "rms_norm_eps": 0.5,
    "hidden_activation": "relu",
    "activation_function": "relu",
    "tie_word_embeddings": True,
    "use_cache": False,
    "num_kv_heads": 3,
    "multi_query": True,
    "num_experts": 3,
    "n_routed_experts": 5,
    "num_local_experts": 6,
    "n_shared_experts": 1,
    "final_logit_softcapping": 3.0,
    "attn_logit_softcapping": 3.0,
    "logit_scale": 0.5,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
    "logits_scaling": 3.0,
    "rope_theta": 7.0,
    "rope_local_base_freq": 5.0,
    "attention_dropout": 0.5,
    "hidden_dropout": 0.5,
    "clip_qkv": 0.1,
    "partial_rotary_factor": 0.5,
    "first_k_dense_replace": 1,
    "pad_token_id": 1,
    "torch_dtype": "float64",
}

# Fields that many a file has, and that are null where they say nothing.
NULL_FIELDS = (
    "head_dim",
    "sliding_window",
    "rope_scaling",
    "num_global_key_value_heads",
    "q_lora_rank",
    "pad_token_id",
)


@dataclass(frozen=True)
class Variant:
    """As it stands, nothing is changed, and all of the output must come out again."""

    @property
    def own_module(self) -> bool:
        """Whether it needs a module that no other variant has used."""
        return False

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        """The build arguments, changed."""
        return build

    def args(self, args: Values) -> Values:
        """The arguments, changed."""
        return args

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights, changed."""
        return weights

    def picked(self, output: Tensor) -> Tensor:
        """The part of an output that counts. Raises RuntimeError or IndexError where it has no such part."""
        return output

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        """What that part must be. end: what the reference gave for the last of more tokens (see `Longer`)."""
        return recorded

    def without_end(self, picked: Tensor) -> Tensor:
        """Of the part that counts what follows from the recorded output alone."""
        return picked


@dataclass(frozen=True)
class Take:
    """Rows or tokens in another number or order.

    axes: for each argument the axes along which it is taken from. along: that of the output. index: which are taken;
    for none, all up to the number `up_to`. Numbers beyond the last begin again at 0. keep: how many of the output's
    count, from the first on.
    """

    axes: tuple[tuple[int, ...], ...]
    along: int
    keep: int
    index: tuple[int, ...] = ()
    up_to: int = 0

    def args(self, args: Values) -> Values:
        """The arguments after it."""
        return tuple(self._arg(arg, axes) for arg, axes in zip(args, self.axes, strict=True))

    def _arg(self, arg: Any, axes: Sequence[int]) -> Any:
        if len(axes) == 2 and arg.dtype == torch.bool:
            return self._mask(arg)
        for axis in axes:
            arg = arg.index_select(axis, self._numbers(arg.shape[axis]))
        return arg

    def _mask(self, mask: Tensor) -> Tensor:
        """A mask [T, T] for more or fewer tokens. The new ones see all before them, and are seen by none of those."""
        size, old = len(self._numbers(len(mask))), len(mask)
        longer = torch.ones(max(size, old), max(size, old), dtype=torch.bool).tril()
        longer[:old, :old] = mask
        return longer[:size, :size]

    def _numbers(self, size: int) -> Tensor:
        return (torch.tensor(self.index) if self.index else torch.arange(self.up_to)) % size

    def picked(self, output: Tensor) -> Tensor:
        """Of an output what counts."""
        return output.narrow(self.along, 0, self.keep) if output.shape[self.along] > self.keep else output

    def wanted(self, recorded: Tensor) -> Tensor:
        """Of the recorded output what must come out."""
        return recorded.index_select(self.along, self._numbers(recorded.shape[self.along])[: self.keep])


@dataclass(frozen=True)
class Taken(Variant):
    """Other rows or tokens, taken one after the other."""

    takes: tuple[Take, ...]

    def args(self, args: Values) -> Values:
        for take in self.takes:
            args = take.args(args)
        return args

    def picked(self, output: Tensor) -> Tensor:
        for take in self.takes:
            output = take.picked(output)
        return output

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        for take in self.takes:
            recorded = take.wanted(recorded)
        return recorded


class OneRow(Taken):
    """One row of a batch alone."""


class Rows(Taken):
    """The rows of a batch in another order, and one of them twice."""


class SameRow(Taken):
    """The only row of a batch, in every place of a larger one."""


class OneToken(Taken):
    """The first token alone."""


class MoreAxes(Variant):
    """An input with further axes of size 1: in front, and before its last one."""

    def args(self, args: Values) -> Values:
        return tuple(_with_more_axes(arg) for arg in args)

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return _with_more_axes(recorded)


class OneAxis(Variant):
    """The first vector of an input alone."""

    def args(self, args: Values) -> Values:
        return tuple(_first_vector(arg) for arg in args)

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return _first_vector(recorded)


@dataclass(frozen=True)
class Longer(Taken):
    """More tokens behind the recorded ones; of what comes out for them the last token's counts too.

    learnt: how many positions the config has weights for, if it has: each such weight gets more rows. pieces: the
    argument that says in pieces of which lengths the tokens come, if one does: the new ones are one more piece, and the
    last of them comes alone.
    """

    learnt: int = 0
    pieces: int | None = None

    @property
    def own_module(self) -> bool:
        return True

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return self.takes[-1].up_to

    def args(self, args: Values) -> Values:
        args = super().args(args)
        if self.pieces is None:
            return args
        lengths = args[self.pieces]
        return _with(args, {self.pieces: [*lengths, self.length - sum(lengths) - 1, 1]})

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        config = build.get("config", {})
        short = {name: 2 * self.length for name in POSITIONS if config.get(name, self.length) < self.length}
        return {**build, "config": {**config, **short}} if short else build

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        rows = torch.arange(2 * self.length) % max(1, self.learnt)
        return {
            name: w[rows] if self.learnt and w.ndim > 1 and len(w) == self.learnt else w for name, w in weights.items()
        }

    def picked(self, output: Tensor) -> Tensor:
        return torch.cat([super().picked(output), self.end(output)], dim=self.takes[-1].along)

    def end(self, output: Tensor) -> Tensor:
        """What came out for the last token."""
        along = self.takes[-1].along
        if output.shape[along] != self.length:
            raise IndexError("an output of another length")
        return output.narrow(along, self.length - 1, 1)

    def without_end(self, picked: Tensor) -> Tensor:
        along = self.takes[-1].along
        return picked.narrow(along, 0, picked.shape[along] - 1)

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        known = super().wanted(recorded)
        return known if end is None else torch.cat([known, end], dim=self.takes[-1].along)


class Beyond(Longer):
    """More tokens than the config says that a model is made for: a program may refuse them, and else is right."""

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        return build


@dataclass(frozen=True)
class SameLength(Taken):
    """As many tokens as another case has, which runs first. before: its name."""

    before: str


@dataclass(frozen=True)
class Loud(Variant):
    """The tokens behind the first `tokens` multiplied by a large number. argument: in which; axis: along which."""

    argument: int
    axis: int
    along: int
    tokens: int
    factor: float

    def args(self, args: Values) -> Values:
        given = args[self.argument]
        loud = torch.where(torch.arange(given.shape[self.axis]) < self.tokens, 1.0, self.factor)
        shape = [-1 if axis == self.axis else 1 for axis in range(given.ndim)]
        return _with(args, {self.argument: given * loud.view(shape).to(given.dtype)})

    def picked(self, output: Tensor) -> Tensor:
        return output.narrow(self.along, 0, self.tokens)

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return recorded.narrow(self.along, 0, self.tokens)


@dataclass(frozen=True)
class Zeros(Variant):
    """Every number of an argument 0, with which the output is 0 too."""

    argument: int

    def args(self, args: Values) -> Values:
        return _with(args, {self.argument: torch.zeros_like(args[self.argument])})

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return torch.zeros_like(recorded)


@dataclass(frozen=True)
class Scaled(Variant):
    """An argument times `factor`, with which the output is as much larger or smaller."""

    argument: int
    factor: float

    def args(self, args: Values) -> Values:
        return _with(args, {self.argument: args[self.argument] * self.factor})

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return recorded * self.factor


class Large(Scaled):
    """An argument times a large number. A few numbers of the output count; end: what the reference gave for them."""

    def picked(self, output: Tensor) -> Tensor:
        return output.flatten()[:: max(1, output.numel() // COUNTED)]

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return self.without_end(recorded.flatten()) if end is None else end

    def without_end(self, picked: Tensor) -> Tensor:
        return picked[:0]


class NoWeights(Variant):
    """Every weight 0, with which the output is 0 too."""

    @property
    def own_module(self) -> bool:
        return True

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return torch.zeros_like(recorded)


@dataclass(frozen=True)
class Deeper(Variant):
    """More layers in front of the others, of weights that are all 0: each adds nothing to what it is given.

    field: of the config, how many layers there are. layers: how many. more: how many come to them.
    """

    @property
    def own_module(self) -> bool:
        return True

    field: str
    layers: int
    more: int

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        lists = {
            name: value[:1] * self.more + value
            for name, value in build["config"].items()
            if isinstance(value, list) and len(value) == self.layers
        }
        return {**build, "config": {**build["config"], **lists, self.field: self.layers + self.more}}

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        layer = re.compile(r"\b(layers|h)\.(\d+)\.")
        found = {}
        for name, weight in weights.items():
            place = layer.search(name)
            for i in range(self.more) if place and place[2] == "0" else ():
                found[layer.sub(rf"\g<1>.{i}.", name, count=1)] = torch.zeros_like(weight)
            own = name if place is None else layer.sub(f"{place[1]}.{int(place[2]) + self.more}.", name, count=1)
            found[own] = weight
        return found


class Training(Variant):
    """The module in training mode."""


class Strided(Variant):
    """Tensors that do not lie in memory in the order of their axes."""

    def args(self, args: Values) -> Values:
        return tuple(tree_map(strided, list(args)))


class Reloaded(Variant):
    """A module that was used with other weights, and then loads those of another, for the very same arguments.

    Before it is used again, a second of its kind is made and loaded.
    """

    @property
    def own_module(self) -> bool:
        return True


class Copied(Variant):
    """A deep copy of a module that was called where gradients count, and whose own weights are 0 from then on."""

    @property
    def own_module(self) -> bool:
        return True


class Moved(Variant):
    """A module and its input on another device, as far as the CPU alone can show that (`probe.left_behind`)."""

    @property
    def own_module(self) -> bool:
        return True


class Again(Variant):
    """The case itself, on a module that was used for all other variants, and is used for another before it is read."""


@dataclass(frozen=True)
class Vocabulary(Variant):
    """Token ids at the end of a larger vocabulary, where their rows of the weights have moved to.

    size: how many ids there are so far. more: how many come to them. ids: the positions of further arguments that are
    ids. columns: whether the output has a column for each id. written: whether it is ids itself.
    """

    @property
    def own_module(self) -> bool:
        return True

    size: int
    more: int
    ids: tuple[int, ...] = ()
    columns: bool = False
    written: bool = False

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: self._grown_field(name, value) for name, value in build.items()}

    def _grown_field(self, name: str, value: Any) -> Any:
        if name == "config":
            return self.build(value)
        return value + self.more if name in ("vocab_size", "num_embeddings") else value

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: self._grown(weight) for name, weight in weights.items()}

    def _grown(self, weight: Tensor) -> Tensor:
        """A weight that has a row for each id, with rows of 0 for the new ones in front."""
        if weight.ndim < 2 or len(weight) != self.size:
            return weight
        return torch.cat([weight.new_zeros(self.more, *weight.shape[1:]), weight])

    def args(self, args: Values) -> Values:
        return tuple(self._arg(i, arg) for i, arg in enumerate(args))

    def _arg(self, position: int, arg: Any) -> Any:
        if isinstance(arg, ToyLM):
            grown = ToyLM(len(arg.token) + self.more, len(arg.position), arg.token.shape[1])
            grown.load_state_dict(self.weights({name: weight.detach() for name, weight in arg.state_dict().items()}))
            return grown.eval()
        if isinstance(arg, Tensor):
            return arg if arg.is_floating_point() or arg.dtype == torch.bool else arg + self.more
        if position not in self.ids:
            return arg
        return [one + self.more for one in arg] if isinstance(arg, list) else arg + self.more

    def picked(self, output: Tensor) -> Tensor:
        return output[..., self.more :] if self.columns else output

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return recorded + self.more if self.written else recorded


@dataclass(frozen=True)
class AsSet(Variant):
    """A list of numbers given as a set. argument: which."""

    argument: int

    def args(self, args: Values) -> Values:
        return _with(args, {self.argument: frozenset(args[self.argument])})


@dataclass(frozen=True)
class Fields(Variant):
    """Fields in the config that other families have. names: which of `OTHER_FIELDS`."""

    @property
    def own_module(self) -> bool:
        return True

    names: tuple[str, ...]

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: self._with_fields(value) if name == "config" else value for name, value in build.items()}

    def args(self, args: Values) -> Values:
        return tuple(Config(self._with_fields(arg)) if isinstance(arg, Config) else arg for arg in args)

    def _with_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**config, **{name: OTHER_FIELDS[name] for name in self.names}}


class Nulls(Fields):
    """Fields that are missing in the config are null in it, as many files have them."""

    def _with_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {**config, **dict.fromkeys(self.names)}


class NullWindow(Nulls):
    """A window that is null in the config, where no layer slides."""


class RopeParameters(Fields):
    """A config whose RoPE stands in `rope_parameters`, as transformers 5 writes it."""

    def _with_fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        rope = {name: config[name] for name in self.names}
        left = {name: value for name, value in config.items() if name not in self.names}
        return {**left, "rope_parameters": {"rope_type": "default", **rope}}


@dataclass(frozen=True)
class Change:
    """Another value in the place of one.

    argument: where among the arguments it stands, or the config or list that it stands in; None for the config with
    which a module is built. field: its name in a config, or empty. how: see `HOW`. name: what learners know it by.
    """

    argument: int | None
    field: str
    how: str
    name: str

    @property
    def in_short(self) -> str:
        """What an exercise that is without it names it, such as "head_dim one"."""
        return f"{self.name.strip('`')} {self.how}"


HOW: Mapping[str, Callable[[Any], Any]] = {
    "twice": lambda value: 2 * value,
    "half": lambda value: value / 2,
    "halved": lambda value: value // 2,
    "odd": lambda value: 2 * value + 1,
    "less": lambda value: value - 1,
    "reversed": lambda value: value[::-1],
    "one": lambda value: 1,
    "thousandfold": lambda value: 1000 * value,
    "hundredfold": lambda value: 100 * value,
    "further": lambda value: value + FURTHER,
    "repeated": lambda value: 2 * value,
    "long": lambda value: LONG * value,
}
HOW_IN_WORDS = {
    "twice": "twice as large",
    "half": "half as large",
    "halved": "half as large",
    "odd": "twice as large and 1 more",
    "less": "smaller by 1",
    "reversed": "in reverse order",
    "one": "1",
    "thousandfold": "1,000 times as large",
    "hundredfold": "100 times as large",
    "further": f"larger by {FURTHER:,}",
    "repeated": "repeated once",
    "long": f"{LONG} times as long",
}


@dataclass(frozen=True)
class OtherValues(Variant):
    """Other values among the arguments or in the config. Of the output its shape and the last few numbers count.

    start: where in what the reference gave for the case's other values they stand. count: how many there are.
    """

    changes: tuple[Change, ...]
    start: int = 0
    count: int = 0

    @property
    def own_module(self) -> bool:
        return True

    def build(self, build: Mapping[str, Any]) -> Mapping[str, Any]:
        of_config = [one for one in self.changes if one.argument is None]
        return {**build, "config": reduce(_changed, of_config, build["config"])} if of_config else build

    def args(self, args: Values) -> Values:
        for one in self.changes:
            if one.argument is not None:
                args = _with(args, {one.argument: _changed(args[one.argument], one)})
        return args

    def picked(self, output: Tensor) -> Tensor:
        shape = torch.tensor(output.shape, dtype=torch.int64)
        return torch.cat([shape.to(output), output.flatten()[-COUNTED:]])

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return self.without_end(recorded.flatten()) if end is None else end[self.start : self.start + self.count]

    def without_end(self, picked: Tensor) -> Tensor:
        return picked[:0]


def _changed(value: Any, change: Change) -> Any:
    """An argument, or a config, with another value in it."""
    if not change.field:
        return HOW[change.how](value)
    fields = {**value, change.field: HOW[change.how](value[change.field])}
    return Config(fields) if isinstance(value, Config) else fields


class AsDict(Variant):
    """A config given as a plain dict."""

    def args(self, args: Values) -> Values:
        return tuple(copy.deepcopy(dict(arg)) if isinstance(arg, Config) else arg for arg in args)


@dataclass(frozen=True)
class LargerMask(Variant):
    """A mask for more tokens, whose last rows and columns are the recorded one. sizes: the arguments that grow."""

    sizes: tuple[int, ...]
    more: int
    rows: int
    columns: int

    def args(self, args: Values) -> Values:
        return _with(args, {place: args[place] + self.more for place in self.sizes})

    def picked(self, output: Tensor) -> Tensor:
        return output[-self.rows :, -self.columns :]


@dataclass(frozen=True)
class FarCorner(LargerMask):
    """A mask for more tokens that has no window: its last rows see the first columns."""

    def picked(self, output: Tensor) -> Tensor:
        return output[-self.rows :, : self.columns]

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return torch.ones_like(recorded)


@dataclass(frozen=True)
class Fewer(Variant):
    """Fewer tokens to be written, of which the first are the same. argument: where their number stands."""

    argument: int
    tokens: int

    def args(self, args: Values) -> Values:
        return _with(args, {self.argument: self.tokens})

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return recorded[: self.tokens]


class DoubleWeights(Variant):
    """Weights in float64, with which the output is in the input's dtype."""

    @property
    def own_module(self) -> bool:
        return True

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: weight.double() for name, weight in weights.items()}


@dataclass(frozen=True)
class Coarse(Variant):
    """Inputs and weights in bfloat16, in which the output is too, or in float32 as ever. Its numbers do not count."""

    as_ever: bool

    @property
    def own_module(self) -> bool:
        return True

    def args(self, args: Values) -> Values:
        return tuple(tree_map(_coarse, list(args)))

    def weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: _coarse(weight) for name, weight in weights.items()}

    def picked(self, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def wanted(self, recorded: Tensor, end: Tensor | None = None) -> Tensor:
        return torch.zeros_like(recorded, dtype=torch.float32 if self.as_ever else torch.bfloat16)


def _coarse(leaf: Any) -> Any:
    return leaf.bfloat16() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _with(args: Values, others: Mapping[int, Any]) -> Values:
    """The arguments with others in some places."""
    return tuple(others.get(place, arg) for place, arg in enumerate(args))


def _with_more_axes(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(-2).unsqueeze(0)


def _first_vector(tensor: Tensor) -> Tensor:
    return tensor.flatten(0, -2)[0]


def strided(leaf: Any) -> Any:
    """The same numbers in memory in the order of the reversed axes; those of one axis with a gap after each."""
    if not isinstance(leaf, Tensor) or not leaf.ndim:
        return leaf
    if leaf.ndim == 1:
        return torch.stack([leaf, leaf], dim=1)[:, 0]
    return leaf.permute(*reversed(range(leaf.ndim))).contiguous().permute(*reversed(range(leaf.ndim)))
