"""How a person sees which of a program's tensors is which of the reference's."""

import difflib
import re
from collections.abc import Mapping, Sequence

from grader.errors import GraderError
from grader.porting.own_names.alignment import Alignment
from grader.report import Line, row

DECIDED = {
    "name": "by its name",
    "shape": "by its shape",
    "order": "by its order",
    "running": "by running it",
    "only": "as the only one that is left",
    "given": "given",
}
MOST_LEFT = 8
NUMBERED = re.compile(r"number \d+ of")


def table(alignment: Alignment) -> list[Line]:
    """Each of the program's tensors with the reference's, and how that was decided; layers that are alike as one."""
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, recipe in alignment.recipes.items():
        sources = [_of_any_layer(source) for source in recipe.sources]
        said = ", ".join(part for part in (DECIDED[alignment.how[name]], recipe.words()) if part)
        numbers = len(sources) > 1 and len(set(map(_starred, sources))) == 1
        together = _together([_starred(source) for source in sources] if recipe.stacked or numbers else sources)
        key = _starred(name), _together(list(map(_starred, sources))), NUMBERED.sub("one of", said)
        found.setdefault(key, []).append((_of_any_layer(name), together, said))
    rows = [key if len(set(same)) > 1 else same[0] for key, same in found.items()]
    count = len(alignment.recipes)
    lines = [Line(f"Your model has names of its own. Its {count} tensors were matched with the reference's:")]
    lines.append(row("head", "yours", "the reference's", "matched"))
    return lines + [row("text", mine, theirs, said) for mine, theirs, said in rows]


def unmatched(name: str, alignment: Alignment, own: Mapping[str, tuple[int, ...]]) -> GraderError:
    """That not everything has a counterpart, what has none, and what to do about it."""
    wanted = {n: tuple(t.shape) for n, t in alignment.trace.weights.items()}
    count = len(own)
    lines = [
        f"{name} can't be compared: of its {count} tensors {count - len(alignment.own_left)} were matched with the"
        " reference's by name and shape.",
        *alignment.remarks,
        *alignment.contradictions,
        *_list("Only in your model", alignment.own_left, own),
        *_list("Only in the reference", alignment.left, wanted),
    ]
    lines += _shared(alignment)
    pair = _likely(alignment, own, wanted) if not alignment.remarks else None
    if pair:
        mine, theirs = map(_module, pair)
        lines.append(f"If two of them are the same, say so: --rename '{_starred(mine)}={_starred(theirs)}'")
    return GraderError("\n  ".join(lines))


def _likely(
    alignment: Alignment, own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> tuple[str, str] | None:
    """The two among what is left that are the likeliest to be the same: as many values in the same layer, and names
    that are most alike.
    """
    pairs = [
        (mine, theirs)
        for mine in alignment.own_left
        for theirs in alignment.left
        if sorted(own[mine]) == sorted(wanted[theirs])
        and re.findall(r"\d+", mine)[:1] == re.findall(r"\d+", theirs)[:1]
    ]
    return max(pairs, key=lambda pair: difflib.SequenceMatcher(None, *pair).ratio(), default=None)


def _shared(alignment: Alignment) -> list[str]:
    """That layers without keys and values of their own share another's."""
    config = alignment.trace.build.get("config", {})
    shared = config.get("num_kv_shared_layers") if isinstance(config, Mapping) else None
    keys = [
        name for name in alignment.own_left if re.search(r"(^|[._])(k|v|key|value|keys|values)([._]|$)", name.lower())
    ]
    if not shared or not keys:
        return []
    return [
        f"The last {shared} layers have no keys and values of their own: they use an earlier layer's"
        " (`num_kv_shared_layers` in the config.json)."
    ]


def _list(title: str, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    rows = dict.fromkeys(f"`{_starred(name)}` {list(shapes[name])}" for name in names)
    shown = list(rows)[:MOST_LEFT]
    more = [f"and {len(rows) - MOST_LEFT} more"] if len(rows) > MOST_LEFT else []
    return [f"{title}: {', '.join([*shown, *more])}"] if rows else []


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _together(names: Sequence[str]) -> str:
    """Names that differ in one part as one: `attn.{q_proj, k_proj}.weight`."""
    names = list(dict.fromkeys(names))
    parts = [name.split(".") for name in names]
    differing = {i for i in range(min(map(len, parts))) if len({part[i] for part in parts}) > 1}
    if len(names) == 1 or len({len(part) for part in parts}) > 1 or len(differing) != 1:
        return " + ".join(names)
    (place,) = differing
    whole = parts[0][:]
    whole[place] = "{" + ", ".join(dict.fromkeys(part[place] for part in parts)) + "}"
    return ".".join(whole)


def _of_any_layer(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name, count=1)


def _starred(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
