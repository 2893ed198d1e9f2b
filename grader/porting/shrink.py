"""A small version of a real model: narrow, and cut to its first layers, with everything kept that tells programs apart.

What a config.json spells out, a program reads from it, so it may be changed to a more telling value; what the file
leaves to be derived stays as it is derived. Widths are chosen so that no two of them are equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grader.porting import sizes
from grader.porting.sizes import HEADS, HIDDEN, NAMES, PER_LAYER, ROLES, SIZES, first_of


@dataclass(frozen=True)
class Ambition:
    """How telling the sizes are to be: whether the heads' size and the number of key and value heads are set apart.

    filled: whether sizes that the config leaves open are given. published: whether constants and the ratio of widths
    are the published ones.
    """

    head_dim: bool = True
    kv_heads: bool = True
    filled: bool = False
    published: bool = False


PLAIN = {"head_dim": False, "kv_heads": False}
AMBITIONS = (
    Ambition(),
    Ambition(head_dim=False),
    Ambition(kv_heads=False),
    Ambition(**PLAIN),
    Ambition(**PLAIN, filled=True),
)


def shrunk(
    fields: Mapping[str, Any], whole: Mapping[str, Any], given: Mapping[str, Any], wanted: Ambition
) -> dict[str, Any]:
    """Small values for `fields`, those of sub-configs included; the number of layers is left.

    whole: all fields of the model's config. given: those that its config.json spells out.
    """
    context = _Context(whole, given, wanted)
    return {name: context.small(name, value) for name, value in fields.items()}


class _Context:
    def __init__(self, whole: Mapping[str, Any], given: Mapping[str, Any], wanted: Ambition) -> None:
        self.given, self.whole, self.wanted = given, whole, wanted
        hidden, heads = (first_of(role, whole) for role in ("hidden", "heads"))
        kv_heads, head_dim = (first_of(role, whole) for role in ("kv_heads", "head_dim"))
        even = hidden // heads if hidden and heads else None
        self.head_dim = self._tied_head_dim() or HIDDEN // HEADS
        if wanted.head_dim and head_dim and not self._tied_head_dim():
            apart = head_dim != even or self._spelt_out("head_dim")
            self.head_dim = sizes.HEAD_DIM if apart else self.head_dim
        self.kv_heads = HEADS
        if wanted.kv_heads and kv_heads and heads and (kv_heads != heads or self._spelt_out("kv_heads")):
            self.kv_heads = sizes.KV_HEADS

    def _tied_head_dim(self) -> int | None:
        """The small size of a head where it must fit another size."""
        head_dim, heads = first_of("head_dim", self.whole), first_of("heads", self.whole)
        for name in ("qk_rope_head_dim", "qk_head_dim"):
            if head_dim and head_dim == self.whole.get(name):
                return SIZES[name]
        if not head_dim or not heads:
            return None
        parts = ("qk_nope_head_dim", "qk_rope_head_dim")
        for layer in ({}, *(self.whole.get(PER_LAYER) or {}).values()):
            if head_dim == sum(layer.get(name, self.whole.get(name)) or 0 for name in parts):
                return sum(SIZES[name] for name in parts)
        times, rest = divmod(head_dim * heads, first_of("hidden", self.whole) or 1)
        tied = head_dim * heads == self.whole.get("attention_hidden_size") or times == self.whole.get("expand")
        return HIDDEN * times // HEADS if tied and not rest else None

    def _spelt_out(self, role: str) -> bool:
        return any(self.given.get(name) for name in NAMES[role].split())

    def small(self, name: str, value: Any, within: str = "") -> Any:
        """A small value for the field `name`, which may lie in another field, `within`."""
        alias = f"{within.partition('_')[0]}_{name}"  # `linear_attn_config.head_dim` is `linear_head_dim`
        if within and value is not None and self.whole.get(alias) == value:
            name, within = alias, ""
        if isinstance(value, Mapping):
            kept = tuple(value) if name in sizes.NOT_SHRUNK else ()
            if "yarn" in (value.get("rope_type"), value.get("type")) and sizes.COUNTS_POSITIONS not in value:
                kept = ("original_max_position_embeddings",)  # with few, no turn is on the ramp from fast to slow
            return {k: item if k in kept else self.small(k, item, within or name) for k, item in value.items()}
        if isinstance(value, list | tuple):
            return self._small_list(name, value)
        if value is None and self.wanted.filled and ROLES.get(name) in ("head_dim", "kv_heads", "experts", "chosen"):
            return self._small_number(name, sizes.LARGE)
        if self.wanted.published and name in sizes.CONSTANTS:
            return value
        if name in sizes.LIMITS and self._is_given(name) and isinstance(value, int | float):
            return min(value, sizes.LIMITS[name])
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if name.endswith(("_token_id", "_token_index")):
            return sizes.SPECIAL_TOKENS.get(name, sizes.OTHER_TOKEN)
        if within == PER_LAYER and value != self.whole.get(name) and self._apart_in_some_layers(name):
            return sizes.IN_SOME_LAYERS[name]
        return self._small_number(name, value)

    def _is_given(self, name: str) -> bool:
        """Whether the config.json spells a field out, itself or in one of its parts."""
        return any(name in fields for fields in (self.given, *self.given.values()) if isinstance(fields, Mapping))

    def _apart_in_some_layers(self, name: str) -> bool:
        return name in sizes.IN_SOME_LAYERS and (self.wanted.kv_heads or ROLES.get(name) != "kv_heads")

    def _small_number(self, name: str, value: int) -> int:
        role = ROLES.get(name)
        by_role = {"hidden": HIDDEN, "heads": HEADS, "kv_heads": self.kv_heads, "head_dim": self.head_dim}
        by_role |= {"vocab": sizes.VOCAB, "window": sizes.WINDOW, "positions": sizes.POSITIONS}
        if role in by_role and value > 0:
            whole_hidden = first_of("hidden", self.whole) or value
            return by_role[role] * (max(1, value // whole_hidden) if role == "hidden" else 1)
        if role == "layers":
            return value
        if role == "experts":
            return min(value, sizes.EXPERTS)
        if role == "chosen":
            return min(value, 3)
        times, rest = divmod(value, first_of("hidden", self.whole) or value)
        if self.wanted.published and name in sizes.WIDTHS and not rest:
            return times * HIDDEN
        expanded = (self.whole.get("expand") or 0) * (first_of("hidden", self.whole) or 0)
        if name == "intermediate_size" and value == expanded:
            return int(self.whole["expand"]) * HIDDEN
        if name == "index_topk" and self.whole.get("compress_rates"):
            return min(value, sizes.CHOSEN_ENTRIES)
        if name in SIZES:
            return SIZES[name] if name in sizes.FIXED else min(value, SIZES[name])
        return sizes.OTHER_SIZE if value > sizes.LARGE and name.endswith(sizes.LARGE_ENDINGS) else value

    def _small_list(self, name: str, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        if name == "eos_token_id":
            return [sizes.SPECIAL_TOKENS[name]]
        pairs = self._rotary_pairs()
        if name in sizes.LISTS_OF_THREE:
            return [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
        if name in ("short_factor", "long_factor"):
            return list(value[:pairs])
        return [self.small(name, item) for item in value]

    def _rotary_pairs(self) -> int:
        """How many pairs of a head's values RoPE turns."""
        rope = self.whole.get("rope_parameters") or {}
        share = rope.get("partial_rotary_factor", self.whole.get("partial_rotary_factor")) or 1.0
        return max(1, int(self.head_dim * share) // 2)
