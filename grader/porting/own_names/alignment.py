"""A program's tensors beside the reference's: for each, which of the reference's it is made of, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from grader.porting.own_names.matching import match
from grader.porting.own_names.questions import Matched, Question, Sizes
from grader.porting.own_names.recipes import Recipe, whole
from grader.porting.own_names.roles import ATTENTION, MLP
from grader.porting.own_names.units import Shape, Unit, stack_of, units_of
from grader.porting.sizes import first_of
from grader.recordings.traces import Trace
from grader.tolerance import agree


@dataclass(frozen=True)
class Alignment:
    """How a program's tensors are made of a trace's. trace: the reference, under that one of its names that fits best.

    recipes: by the name of the program's tensor. how: what decided: "name", "shape", "order", "running" or "given".
    questions: what names and shapes leave open. own_left, left: tensors of the program, and of the reference, that
    have no counterpart. remarks, contradictions: what is known of why. hints: what would make a module right that is
    wrong, and has to be asked for.
    """

    trace: Trace
    recipes: Mapping[str, Recipe]
    how: Mapping[str, str]
    questions: Sequence[Question] = ()
    own_left: Sequence[str] = ()
    left: Sequence[str] = ()
    remarks: Sequence[str] = ()
    contradictions: Sequence[str] = ()
    hints: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything has a counterpart."""
        return not self.own_left and not self.left and not self.contradictions

    def weights(self) -> dict[str, Tensor]:
        """The reference's weights as the program has them."""
        return {name: recipe.make(self.trace.weights) for name, recipe in self.recipes.items()}


def align(model: nn.Module, traces: Sequence[Trace], given: Mapping[str, Recipe] | None = None) -> Alignment:
    """Match a program's tensors with the reference's, under that one of its names with which most are matched.

    traces: the reference under its several names. given: what is known already.
    """
    found = [_aligned(model, trace, given or {}) for trace in traces]
    return min(found, key=lambda a: (len(a.own_left) + len(a.left), sum(not r.plain for r in a.recipes.values())))


def _aligned(model: nn.Module, trace: Trace, given: Mapping[str, Recipe]) -> Alignment:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    own = {name: tuple(parameter.shape) for name, parameter in parameters.items() if parameter.numel()}
    given = {name: recipe for name, recipe in given.items() if set(recipe.sources) <= trace.weights.keys()}
    used = {source for recipe in given.values() for source in recipe.sources}
    wanted = {name: tuple(tensor.shape) for name, tensor in trace.weights.items()}
    experts = _number_of_experts(wanted)
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    kinds |= {path: "Linear" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    own_stack, own_count = stack_of(own)
    stack, count = stack_of(wanted)
    mine = units_of({n: s for n, s in own.items() if n not in given}, kinds, own_stack, experts)
    theirs = units_of(
        {n: s for n, s in wanted.items() if n not in used}, {c.path: c.type for c in trace.calls}, stack, experts
    )
    theirs = [_placed(unit, trace) for unit in theirs]
    matched = _by_layers(mine, theirs, _sizes(trace, wanted))
    recipes = dict(given) | matched.recipes
    how = dict.fromkeys(given, "given") | matched.how
    _tie(mine, theirs, recipes, how)
    _from_buffers(model, wanted, recipes, how)
    order = [name for name in [*own, *recipes] if name in recipes]
    recipes = {name: recipes[name] for name in order}
    sources = {source for recipe in recipes.values() for source in recipe.sources}
    known = {id(parameters[name]) for name in recipes if name in parameters}  # under one of their names
    remarks = [f"Your model has {own_count} layers, and the reference {count}."] if own_count != count else []
    return Alignment(
        trace,
        recipes,
        how,
        matched.questions,
        [name for name in own if name not in recipes and id(parameters[name]) not in known],
        [name for name in wanted if name not in sources],
        remarks,
        _contradictions(parameters, recipes),
    )


def _by_layers(own: Sequence[Unit], wanted: Sequence[Unit], sizes: Sizes) -> Matched:
    every, questions = Matched(), dict[tuple[str, ...], Question]()
    for layer in dict.fromkeys(unit.word.layer for unit in own):
        mine = [unit for unit in own if unit.word.layer == layer]
        theirs = [unit for unit in wanted if unit.word.layer == layer]
        found = match(mine, theirs, sizes)
        every.recipes |= found.recipes
        every.how |= found.how
        for question in found.questions:
            key = (question.about, *(answer.words for answer in question.answers))
            about = [unit for unit in mine if any(name in question.names for name in unit.names.values())]
            key += tuple(sorted({f"{unit.word.place} {unit.word.last} {unit.shared}" for unit in about}))
            questions[key] = questions[key].joined(question) if key in questions else question
    every.questions = list(questions.values())
    return every


def _tie(own: Sequence[Unit], wanted: Sequence[Unit], recipes: dict[str, Recipe], how: dict[str, str]) -> None:
    """A head that the program holds apart, while the reference's is its embedding matrix."""
    table = next((unit for unit in wanted if unit.word.role == "embed"), None)
    if table is None or any(unit.word.role == "head" for unit in wanted):
        return
    for unit in own:
        name = unit.names.get("weight", "")
        if unit.word.role == "head" and name not in recipes and unit.weight == table.weight:
            recipes[name], how[name] = whole(table.names["weight"], unit.weight), "name"
            return
    left = [u for u in own if u.word.layer is None and set(u.names.values()) - recipes.keys()]
    if len(left) == 1 and left[0].weight == table.weight and left[0].names.keys() == {"weight"}:
        name = left[0].names["weight"]
        recipes[name], how[name] = whole(table.names["weight"], left[0].weight), "only"


def _from_buffers(
    model: nn.Module, wanted: Mapping[str, Shape], recipes: dict[str, Recipe], how: dict[str, str]
) -> None:
    """What the program holds as a buffer, and the checkpoint as a parameter."""
    used = {source for recipe in recipes.values() for source in recipe.sources}
    left = {name: shape for name, shape in wanted.items() if name not in used}
    if not left:
        return
    leaves = {name.rpartition(".")[2] for name in left}
    floating = {n: b for n, b in model.named_buffers() if b.is_floating_point()}
    buffers = {n: tuple(b.shape) for n, b in floating.items() if b.numel() > 1 or n.rpartition(".")[2] in leaves}
    stacks = stack_of({n: tuple(p.shape) for n, p in model.named_parameters()})[0], stack_of(wanted)[0]
    mine, theirs = units_of(buffers, {}, stacks[0]), units_of(left, {}, stacks[1])
    found = _by_layers(mine, theirs, Sizes())
    recipes |= found.recipes
    how |= found.how


def _placed(unit: Unit, trace: Trace) -> Unit:
    """A unit of the reference's; if it is a norm, with what it stands before or after, as the calls tell."""
    place = _place_of(unit, trace) if unit.word.role == "norm" else ""
    return replace(unit, word=replace(unit.word, at=(place,))) if place else unit


def _place_of(unit: Unit, trace: Trace) -> str:
    """Before or after which part of its layer a norm stands: told from the tensors that it is given and gives."""
    norm = next((call for call in trace.calls if call.path == unit.word.path), None)
    if norm is None:
        return ""
    around = norm.path.rpartition(".")[0]
    neighbours = [c for c in trace.calls if c.path != norm.path and c.path.rpartition(".")[0] == around]
    for call in neighbours:
        last = call.path.rpartition(".")[2].lower()
        what = "attention" if ATTENTION.search(last) or "mixer" in last else "mlp" if MLP.search(last) else ""
        if what and _same(call.output, norm.input):
            return f"after {what}"
        if what and _same(norm.output, call.input):
            return f"before {what}"
    return ""


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return (
        one is not None
        and other is not None
        and one.numel() == other.numel()
        and agree(one.reshape(other.shape), other)
    )


def _contradictions(parameters: Mapping[str, Tensor], recipes: Mapping[str, Recipe]) -> list[str]:
    """What is one tensor in the program, and two different ones in the reference."""
    known: dict[int, str] = {}
    for name, recipe in recipes.items():
        if name not in parameters:
            continue
        first = known.setdefault(id(parameters[name]), name)
        if first != name and recipe.sources != recipes[first].sources:
            return [
                f"`{first}` and `{name}` are one and the same here, and two different ones in the reference:"
                f" `{recipes[first].sources[0]}` and `{recipe.sources[0]}`."
            ]
    return []


def _number_of_experts(wanted: Mapping[str, Shape]) -> int:
    units = units_of(wanted, {}, stack_of(wanted)[0], experts=1)
    listed = [unit.word.inner[0] + 1 for unit in units if unit.word.inner and unit.word.place == "mlp"]
    stacked = [unit.weight[0] for unit in units if len(unit.weight) == 3 and unit.word.place == "mlp"]
    return max([*listed, *stacked], default=0)


def _sizes(trace: Trace, wanted: Mapping[str, Shape]) -> Sizes:
    units = units_of(wanted, {}, stack_of(wanted)[0])
    table = next((unit.weight for unit in units if unit.word.role == "embed"), (0, 0))
    fields: dict[str, object] = {}
    for value in trace.build.values():
        fields |= value if isinstance(value, Mapping) else {}
    heads = first_of("heads", fields) or 0
    kv_heads = first_of("kv_heads", fields) or heads
    head_dim = first_of("head_dim", fields) or (table[1] // heads if heads else 0)
    return Sizes(table[1], heads, kv_heads, head_dim)
