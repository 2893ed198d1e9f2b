"""How a matrix lies, as far as its class and its shape say."""

from grader.porting.own_names.units import Unit

LINEAR, TURNED = ("Linear", "Embedding"), ("Conv1D",)


def is_turned(unit: Unit) -> bool | None:
    """Whether a matrix is [in, out]; None where its class does not say."""
    if unit.kind in LINEAR:
        return False
    return True if unit.kind in TURNED else None


def turned_by(unit: Unit, hidden: int) -> bool | None:
    """The same of one that maps from the hidden size, by its shape if its class does not say."""
    known = is_turned(unit)
    if known is not None or len(unit.weight) < 2:
        return known
    return unit.weight[-2] == hidden != unit.weight[-1]


def expands(unit: Unit, hidden: int) -> bool:
    """Whether a matrix of an MLP maps from the hidden size."""
    if unit.word.place != "mlp" or len(unit.weight) != 2 or unit.word.role == "router":
        return False
    return unit.weight[0 if turned_by(unit, hidden) else 1] == hidden
