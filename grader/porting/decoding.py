"""How a program is given texts in parts: with a cache, with padding, from a position.

A program's forward takes token ids, and as many of these as it has: a cache, a mask of padding, positions. Which of
its arguments is which, their names say. A new cache comes from a method such as `new_cache(batch_size, capacity)`;
from `use_cache=True`, where forward gives it back with the logits; or the program holds it itself.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from grader.errors import NeedsAdapter

CACHES = (
    "cache caches kv_cache kv_caches past_key_values past_kv past_kvs past layer_past cache_params kvcache states state"
)
FLAGS = "use_cache use_kv_cache"
STARTS = "start_pos start start_position offset pos"
POSITIONS = "position_ids positions pos_ids input_pos cache_position position"
MASKS = "attention_mask padding_mask pad_mask mask"
MAKERS = (
    "new_cache make_cache init_cache create_cache empty_cache get_cache build_cache init_kv_cache make_kv_cache"
    " new_kv_cache setup_cache setup_caches"
)
RESETS = "reset_cache reset_kv_cache reset_caches clear_cache clear_kv_cache"
SIZES = {
    "batch": "batch_size max_batch_size batch bsz B n",
    "capacity": "capacity max_seq_length max_seq_len max_length max_len length max_tokens context_length size",
}


@dataclass(frozen=True)
class Way:
    """What forward calls its arguments; "" for what it has none for. makes, resets: methods. flags: set to True."""

    cache: str = ""
    mask: str = ""
    positions: str = ""
    start: str = ""
    makes: str = ""
    resets: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)


def way_of(model: nn.Module | type) -> Way:
    """How a model, or a class of models, is given texts in parts."""
    try:
        names = list(inspect.signature(model.forward).parameters)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        names = []
    names = names[2:] if isinstance(model, type) else names[1:]  # without the token ids
    methods = [name for name in f"{MAKERS} {RESETS}".split() if callable(getattr(model, name, None))]
    return Way(
        _first(CACHES, names),
        _first(MASKS, names),
        _first(POSITIONS, names),
        _first(STARTS, names),
        _first(MAKERS, methods),
        _first(RESETS, methods),
        {name: True for name in FLAGS.split() if name in names},
    )


def optional_positions(model: nn.Module) -> str:
    """The argument for positions, where a model has values of its own for it; else ""."""
    name = way_of(model).positions
    has_own = name and inspect.signature(model.forward).parameters[name].default is not inspect.Parameter.empty
    return name if has_own else ""


def _first(known: str, among: Sequence[str]) -> str:
    return next((name for name in known.split() if name in among), "")


class Decoder:
    """A program in one run: it is called with the tokens of each step, and hands its cache on."""

    def __init__(self, model: nn.Module, cached: bool, batch: int, capacity: int) -> None:
        """Raises NeedsAdapter where it has no cache, or nothing says how one is made."""
        self.model, self.cached, self.way = model, cached, way_of(model)
        self.batch, self.capacity, self.seen = batch, capacity, 0
        self.tells_positions = True
        self.cache: Any = self._new_cache() if cached else None  # True: the model holds it itself

    @property
    def holds_its_cache(self) -> bool:
        """Whether the cache lies in the model itself."""
        return self.cached and (not self.way.cache or self.cache is True)

    def __call__(self, ids: Tensor, mask: Tensor | None, positions: Tensor) -> Any:
        """One pass over ids [B, T]. mask: [B, tokens so far], or None. positions: [B, T]. Returns what forward does.

        Raises NeedsAdapter where forward has no argument for something that it has to know.
        """
        way, given = self.way, dict[str, Any]()
        if mask is not None:
            if not way.mask:
                raise self._lacks("padding", MASKS, "a mask [B, tokens so far], True where a token is")
            given[way.mask] = mask.long() if way.mask == "attention_mask" else mask
        if self.cached:
            given |= way.flags
            if way.cache:
                given[way.cache] = self.cache
        if way.positions and self.tells_positions:
            one = way.positions in ("input_pos", "cache_position")
            given[way.positions] = positions[0] if one else positions
        elif way.start and mask is None:
            given[way.start] = int(positions[0, 0])
        elif mask is None and not self.cached and int(positions[0, 0]):
            raise self._lacks("a position", POSITIONS, "positions [B, T]")
        returned = self.model(ids, **given)
        self.seen += ids.shape[1]
        if self.cached and way.cache:
            self._keep(returned)
        return returned

    def _keep(self, returned: Any) -> None:
        """Take the cache out of what forward gave, if it is there; else it was changed in place."""
        named = returned if isinstance(returned, Mapping) else {}
        found = next((named[name] for name in CACHES.split() if name in named), None)
        second = returned[1] if isinstance(returned, tuple | list) and len(returned) == 2 else None
        if found is None and not isinstance(second, Tensor):  # that would be a loss
            found = second
        self.cache = self.cache if found is None else found
        if self.cache is None:
            raise NeedsAdapter(
                f"{type(self.model).__name__} takes `{self.way.cache}`, and nothing says how a new one is made: it has"
                " no method new_cache(batch_size, capacity), and forward gives none back when it gets None."
            )

    def _new_cache(self) -> Any:
        way = self.way
        inside = way.start or way.flags or way.resets or way.positions in ("input_pos", "cache_position")
        if not (way.cache or inside):
            raise self._lacks("a cache", CACHES, "a cache, which a method new_cache(batch_size, capacity) makes")
        if way.resets:
            getattr(self.model, way.resets)()
        made = self._made(getattr(self.model, way.makes)) if way.makes else None
        return made if way.cache else None

    def _made(self, maker: Any) -> Any:
        values = {"batch": self.batch, "capacity": self.capacity}
        given, strange = dict[str, int](), list[str]()
        for p in inspect.signature(maker).parameters.values():
            known = next((value for name, value in values.items() if p.name in SIZES[name].split()), None)
            if known is not None:
                given[p.name] = known
            elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                strange.append(f"`{p.name}`")
        if strange:
            raise NeedsAdapter(
                f"{type(self.model).__name__}.{self.way.makes} asks for {', '.join(strange)}. A comparison makes a"
                " cache with new_cache(batch_size, capacity)."
            )
        return maker(**given)

    def _lacks(self, what: str, names: str, how: str) -> NeedsAdapter:
        return NeedsAdapter(
            f"{type(self.model).__name__} can't be given {what}: its forward has none of the arguments"
            f" {', '.join(names.split()[:4])}. Give it {how}, or compare with a trace that was made without this."
        )
