"""In which other ways a case is asked: those that the reference and the lesson's own solution answer as promised.

Nothing is declared by hand. Each candidate is run on the reference, here and as on other processors; where the part
that counts is what was recorded, with room for rounding, learners' programs are asked the same. So which these are is
measured, as noise is: once, when a lesson is recorded.
"""

import contextlib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.noise import SEEDS_OF_MISTAKES
from grader.authoring.other_values import MANY, Enough, calls_made, changes, is_an_end
from grader.checks.judge.variants import Right, with_variants
from grader.checks.judge.verdict import CaseVerdict
from grader.checks.observation import Observation
from grader.checks.probe.running import Stopped, quietly
from grader.checks.probe.variants import vary
from grader.config import Config
from grader.instruments.rounding import another_processor
from grader.lessons.exercise import Exercise
from grader.recordings import variants as v
from grader.recordings.tasks import Task, TaskCase
from grader.recordings.toy_lm import ToyLM
from grader.tolerance import MARGIN, Tolerance, distance

# Beyond what programs may have tables, masks and windows for by habit, each with the most numbers that a program may
# make where it is asked with so many: a few milliseconds.
LENGTHS = {1100: 4_000_000, 600: 10_000_000, 300: 4_000_000, 130: 4_000_000, 65: 4_000_000}
DEAR = 300_000  # numbers that a case makes: one is asked in other ways only where no other case can be
LOUD = 1e5  # above what masks of 1e4 hide
LARGE = (
    1e5,
    1e3,
    30.0,
    8.0,
)  # beyond what a clamp or a number of 16 bits allows; the first at which rounding plays no part
SMALL = 1e-3
MORE_IDS = 300
MANY_ROWS = 17
MANY_LAYERS = 13  # more than a dozen, which a program may take for enough
LARGER_MASK = 2100  # tokens more: float16 counts no further than 2,048
FAR_CORNER = 600
CALLS_ALONE = 2_000  # functions that a run may call which is asked for each of its numbers
CALLS_AT_ONCE = 20_000
CALLS_OF_A_MODULE = 8_000
MANY_NUMBERS = 2_000_000  # that a run may make which is asked with a value at its end
NEW_TOKENS = 2  # the place among the arguments of a generation at which stands how many tokens are to be written
END = 3  # the place among the arguments of a generation at which the ids that end it stand


@dataclass(frozen=True)
class Asked:
    """A case that is looked at, and what is known of it. run: the reference, on the case as a variant changes it."""

    case: TaskCase
    output: Tensor
    tolerance: Tolerance
    run: Callable[[TaskCase], Tensor]

    def end(self, variant: v.Longer | v.Large | v.OtherValues) -> Tensor:
        """What the reference gives for the last of more tokens, for a large input, or for other numbers."""
        with torch.no_grad(), quietly([]):
            output = self.run(self.case.varied(variant)).detach()
        return (variant.end(output) if isinstance(variant, v.Longer) else variant.picked(output)).clone()

    def size(self, variant: v.Variant, along: int) -> int:
        """How long an axis of the output is where the case is asked so."""
        with torch.no_grad(), quietly([]):
            return self.run(self.case.varied(variant)).shape[along]

    def holds(self, variant: v.Variant, end: Tensor | None = None) -> bool:
        """Whether the reference gives what the variant promises, with room for rounding. end: as `end` gave it."""
        try:
            varied = self.case.varied(variant)
            with torch.no_grad(), quietly([]):
                given = variant.picked(self.run(varied))
            got = variant.without_end(given) if end is None else given
            wanted = variant.wanted(self.output, end)
        except Exception:  # the reference can't be asked so
            return False
        return MARGIN * distance(got, wanted) <= self.tolerance.relative


def with_variants_chosen(
    exercise: Exercise, task: Task, asked: Sequence[Asked], target: Any
) -> tuple[tuple[TaskCase, ...], list[tuple[Tensor | None, ...]]]:
    """The task's cases with their variants, and what an `Answer` has for them: `ends`, `large` and `other`.

    Each kind is asked of one case: the cheapest for which it holds, and of more tokens that which allows most.
    """
    chosen: dict[str, list[v.Variant]] = {case.name: [] for case in task.cases}
    ends: dict[str, Tensor] = {}
    large: dict[str, Tensor] = {}
    found: set[Any] = set()
    cheap = _cheap(asked)
    for one, variant in _all_candidates(exercise, task, cheap):
        kind = _kind(variant, one.case, one.output)
        if kind in found or type(variant).__name__ in exercise.without:
            continue
        answers = large if isinstance(variant, v.Large) else ends
        if isinstance(variant, v.Longer | v.Large) and one.case.name in answers:  # its answer has room for one
            continue
        if isinstance(variant, v.AsDict) and not _takes_any_mapping(target):
            continue
        if isinstance(variant, v.MoreAxes | v.OneAxis) and not _takes_any_axes(target):
            continue
        if isinstance(variant, v.Fields) and type(variant) in (v.Fields, v.Nulls):
            of = type(variant)
            variant = of(tuple(n for n in variant.names if _solution_holds(task, one, of((n,)), target, None)))
            if not variant.names:
                continue
        end = one.end(variant) if isinstance(variant, v.Longer | v.Large) and one.holds(variant) else None
        if isinstance(variant, v.Large) and (end is None or not _is_told_by(end)):
            continue
        if not _holds_everywhere(task, one, variant, target, end):
            continue
        found.add(kind)
        chosen[one.case.name].append(variant)
        if end is not None:
            answers[one.case.name] = end
    other: dict[str, Tensor] = {}
    if v.OtherValues.__name__ not in exercise.without:
        for one, variant, end in _with_other_values(exercise, task, cheap, target):
            so_far = other.get(one.case.name, end[:0])
            chosen[one.case.name].append(replace(variant, start=len(so_far)))
            other[one.case.name] = torch.cat([so_far, end])
    cases = tuple(replace(case, variants=_in_order(chosen[case.name])) for case in task.cases)
    return cases, [tuple(each.get(case.name) for case in task.cases) for each in (ends, large, other)]


def _is_told_by(numbers: Tensor) -> bool:
    """Whether there are numbers that a wrong program would not give by chance."""
    return bool(numbers.isfinite().all() and numbers.any())


def _all_candidates(exercise: Exercise, task: Task, cheap: Sequence[Asked]) -> list[tuple[Asked, v.Variant]]:
    """The candidates of all cases, in the author's order but for the dear ones; of more tokens, as many as may be."""
    every = [(one, variant) for one in cheap for variant in _candidates(exercise, task, one, cheap)]
    return sorted(every, key=lambda each: -each[1].length if isinstance(each[1], v.Longer) else 0)


def _cheap(asked: Sequence[Asked]) -> list[Asked]:
    """The cases, those first that are asked in other ways if possible."""
    usual = asked[0].case.drive
    return sorted(asked, key=lambda one: (one.case.drive != usual, *_by_worth(one), _is_dear(one)))


def _with_other_values(
    exercise: Exercise, task: Task, asked: Sequence[Asked], target: Any
) -> Iterator[tuple[Asked, v.OtherValues, Tensor]]:
    """Which cases are asked with other values, and what is right there.

    A function that costs little is asked with each number alone that counts, and with all that do not; any other, and a
    module, with all that count at once. Values at their ends are asked alone, and of large numbers all together, too.
    """
    seen: set[Any] = set()
    idle_so_far: set[str] = set()
    many_so_far: set[Any] = set()
    for one in asked:
        as_it_is = replace(one.case, variants=(v.Variant(),))
        most = CALLS_AT_ONCE if task.function else CALLS_OF_A_MODULE
        cost = calls_made(partial(vary, task, as_it_is, target, one.output), most)
        if cost > most:
            continue
        words = () if one.case.drive else tuple(arg for arg in one.case.args if isinstance(arg, str))
        counting, idle, ends = [], [], []
        names = _parameters(exercise, task, one.case, target)
        for ways in _allowed(exercise, one.case, names):
            first = ways[0]
            slot = (words, name := first.name, is_an_end(first) and first.how)
            if slot in seen or (not task.function and first.argument is not None and first.how != "further"):
                continue
            if is_an_end(first):
                if cost <= CALLS_ALONE and (change := _first_that(task, one, ways, target, counts=True)) is not None:
                    ends.append(change)
                    seen.add(slot)
            elif (change := _first_that(task, one, ways, target, counts=True)) is not None:
                counting.append(change)
                seen.add(slot)
            elif (
                task.function
                and name not in idle_so_far
                and (change := _first_that(task, one, ways, target, counts=False)) is not None
            ):
                idle.append(change)
                idle_so_far.add(name)
        groups = [(change,) for change in counting] if cost <= CALLS_ALONE else [tuple(counting)]
        groups += [tuple(idle), *((change,) for change in ends)]
        if task.function and cost <= CALLS_ALONE and (one.case.drive, words) not in many_so_far:
            many = _all_large(task, one, target, _allowed(exercise, one.case, names))
            groups.append(many)
            many_so_far |= {(one.case.drive, words)} if many else set()
        for group in groups:
            end = _end(task, one, v.OtherValues(group), target, _holds_everywhere) if group else None
            if end is not None:
                yield one, v.OtherValues(group, count=len(end)), end


def _first_that(task: Task, asked: Asked, ways: Sequence[v.Change], target: Any, *, counts: bool) -> v.Change | None:
    """The first of several ways to change a value by which the output becomes another, or does not.

    One at its end must cost little, too.
    """
    for change in ways:
        variant = v.OtherValues((change,))
        if is_an_end(change) and not _costs_little(task, asked, variant, target):
            continue
        end = _end(task, asked, variant, target, _holds_there)
        if end is None:
            continue
        before = variant.picked(asked.output)
        same = end.shape == before.shape and MARGIN * distance(end, before) <= asked.tolerance.relative
        if same != counts:
            return change
    return None


def _allowed(exercise: Exercise, case: TaskCase, names: tuple[str, ...]) -> list[list[v.Change]]:
    """How each value of a case may be changed, but for what the exercise is without."""
    ways = ([one for one in every if one.in_short not in exercise.without] for every in changes(case, names))
    return [every for every in ways if every]


def _all_large(task: Task, asked: Asked, target: Any, ways: Sequence[Sequence[v.Change]]) -> tuple[v.Change, ...]:
    """All whole numbers of a case that may be much larger, where it has several and that costs little."""
    every = tuple(each[-1] for each in ways if each[-1].how == MANY[-1])
    return every if len(every) > 1 and _costs_little(task, asked, v.OtherValues(every), target) else ()


def _costs_little(task: Task, asked: Asked, variant: v.OtherValues, target: Any) -> bool:
    """Whether reference and solution make few numbers for a variant, the solution few calls, and the reference no more
    than one that counts in loops."""
    case = replace(asked.case, variants=(variant,))
    runs = (partial(vary, task, case, target, asked.output), CALLS_ALONE), (partial(asked.end, variant), CALLS_AT_ONCE)
    for run, most in runs:
        with contextlib.suppress(Exception), _Numbers(MANY_NUMBERS) as counter:
            if calls_made(run, most) > most or counter.total > MANY_NUMBERS:
                return False
    return True


def _end(task: Task, asked: Asked, variant: v.OtherValues, target: Any, holds: Callable[..., bool]) -> Tensor | None:
    """What the reference gives for other values; None where there is nothing, or the solution gives another."""
    try:
        end = asked.end(variant)
    except Exception:  # the reference can't be asked so
        return None
    is_told = len(end) > 0 and end.dtype == asked.output.dtype and bool(end.isfinite().all())
    variant = replace(variant, count=len(end))
    return end if is_told and holds(task, asked, variant, target, end) else None


def _parameters(exercise: Exercise, task: Task, case: TaskCase, target: Any) -> tuple[str, ...]:
    """The names of a case's arguments: those of the function, of `forward`, or of the drive behind its first."""
    if not task.function:
        return () if task.drive else tuple(inspect.signature(target.forward).parameters)[1:]
    own = next((one.drive for one in exercise.cases if one.name == case.name), None)
    drive = own or exercise.drive
    names = tuple(inspect.signature(drive or target).parameters)
    return names[1:] if drive else names


def _is_dear(asked: Asked) -> bool:
    return _numbers_made(asked, v.Variant()) > DEAR


def _holds_everywhere(task: Task, asked: Asked, variant: v.Variant, target: Any, end: Tensor | None) -> bool:
    """Whether the reference and the solution give what the variant promises, here and on other processors."""
    if not _holds_there(task, asked, variant, target, end):
        return False
    for seed in SEEDS_OF_MISTAKES:
        with another_processor(seed):
            if not _holds_there(task, asked, variant, target, end):
                return False
    return True


def _holds_there(task: Task, asked: Asked, variant: v.Variant, target: Any, end: Tensor | None) -> bool:
    """Whether the reference and the solution give what the variant promises, on the processor that is at work."""
    if _asked_of_the_reference(variant) and not asked.holds(variant, end):
        return False
    return _solution_holds(task, asked, variant, target, end)


def _kind(variant: v.Variant, case: TaskCase, output: Tensor) -> Any:
    """What is asked once: of fields, in each case of a function, and of a module with RoPE's in either place; of loud
    tokens, for each argument; of large ones, for each word among the arguments too, which says what is computed; and so
    on."""
    if type(variant) in (v.Fields, v.Nulls):
        nested = "rope_parameters" in case.build.get("config", {})
        return type(variant), nested if case.build else case.name
    if isinstance(variant, v.Scaled):
        return v.Scaled, variant.argument, *(arg for arg in case.args if isinstance(arg, str))
    if isinstance(variant, v.Loud):
        return v.Loud, variant.argument, case.build.get("config", {}).get("model_type")
    if isinstance(variant, v.Longer):
        in_pieces = any(isinstance(arg, list) and arg for arg in case.args)
        return type(variant), variant.takes[-1].along - output.ndim, case.dtype, in_pieces
    if isinstance(variant, v.Training | v.OneToken | v.OneRow):
        model_type = case.build.get("config", {}).get("model_type")
        takes = len(variant.takes) if isinstance(variant, v.Taken) else 0
        in_pieces = any(isinstance(arg, list) and arg for arg in case.args)  # with a cache, in one way or another
        return type(variant), in_pieces or case.drive, model_type, takes
    return type(variant)


def _asked_of_the_reference(variant: v.Variant) -> bool:
    """What only the learner's own program shows is asked of the solution alone.

    A reference may have dropout, and transformers writes one token at least.
    """
    return not isinstance(variant, v.Training | v.Reloaded | v.Copied | v.Moved | v.Again | v.Fewer)


def _takes_any_axes(target: Any) -> bool:
    """Whether the docstring of a solution promises to take an input of any number of axes."""
    return "[..." in f"{inspect.getdoc(target)}{inspect.getdoc(getattr(target, 'forward', None))}"


def _takes_any_mapping(target: Any) -> bool:
    """Whether a function promises, by its annotations, to take any Mapping."""
    return any("Mapping" in str(parameter.annotation) for parameter in inspect.signature(target).parameters.values())


def _by_worth(asked: Asked) -> tuple[bool, bool]:
    return asked.case.dtype != torch.float32, not asked.output.is_floating_point()


def _in_order(variants: list[v.Variant]) -> tuple[v.Variant, ...]:
    """The first makes a module that others share; the case once more, and then a copy, use it up.

    What only shows on another device is told where there is nothing else to tell.
    """
    last = [v.Longer, v.Strided, v.Again, v.Training, v.Copied, v.Moved]

    def place(variant: v.Variant) -> int:
        kind = type(variant)
        return -1 if kind is v.Reloaded else last.index(kind) + 1 if kind in last else 0

    return tuple(sorted(variants, key=place))


def _solution_holds(task: Task, asked: Asked, variant: v.Variant, target: Any, end: Tensor | None) -> bool:
    case = replace(asked.case, variants=(variant,))
    try:
        with quietly([]):
            varied = vary(task, case, target, asked.output)
    except Stopped:
        return False
    right = Right(asked.output, Tolerance(asked.tolerance.relative / MARGIN), end, end, end)
    verdict = with_variants(CaseVerdict(case.name, right=True), case, Observation(case.name, varied=varied), right)
    return verdict.right and not verdict.remarks


def _candidates(exercise: Exercise, task: Task, asked: Asked, others: Sequence[Asked]) -> Iterator[v.Variant]:
    case = asked.case
    tensors = any(isinstance(arg, Tensor | list) for arg in case.args)
    if tensors:
        yield v.Strided()
    if tensors or any(isinstance(arg, nn.Module) for arg in case.args):
        yield v.Moved()
    if not task.function:
        yield v.Reloaded()
        yield v.Copied()
    yield from _of_rows(asked)
    yield from _of_tokens(exercise, task, asked, others)
    yield from _of_values(task, asked)
    if not task.function:
        yield v.Again()
        if asked.output.is_floating_point():
            yield v.Training()


def _of_rows(asked: Asked) -> Iterator[v.Variant]:
    if not asked.output.ndim:
        return
    if len(asked.case.args) == 1 and _is_float(asked.case.args[0]) and asked.case.args[0].ndim > 1:
        yield v.MoreAxes()
        yield v.OneAxis()
    size = len(asked.output)
    if size == 1:
        yield from _of_one_row(asked)
        return
    axes = _axes(asked, 0, tuple(reversed(range(size))), size)
    if axes is not None:
        yield v.OneRow((v.Take(axes, 0, 1, (0,)),))
        many = max(size + 1, MANY_ROWS)
        yield v.Rows((v.Take(axes, 0, many, tuple((size - 1 - i) % size for i in range(many))),))


def _of_one_row(asked: Asked) -> Iterator[v.Variant]:
    """More rows like the only one. Every argument of one row gets as many: some programs need them all alike."""
    args = asked.case.args
    axes = tuple((0,) if isinstance(a, Tensor) and a.ndim > 1 and len(a) == 1 else () for a in args)
    same = v.SameRow((v.Take(axes, 0, 3, (0,) * 3),))
    if any(axes) and not any(isinstance(a, list) for a in args) and asked.holds(same) and asked.size(same, 0) == 3:
        yield same


def _token_axes(exercise: Exercise, output: Tensor) -> list[int]:
    """The output's axes of tokens."""
    names = exercise.axes.split()
    if names:
        return [names.index(name) - len(names) + output.ndim for name in ("T", "S") if name in names]
    return [output.ndim - 2]


def _of_tokens(exercise: Exercise, task: Task, asked: Asked, others: Sequence[Asked]) -> Iterator[v.Variant]:
    lists = [arg for arg in asked.case.args if isinstance(arg, list) and arg]
    for along in _token_axes(exercise, asked.output):
        if not 0 <= along < asked.output.ndim:
            continue
        size = asked.output.shape[along]
        in_lengths = any(_sums_to(arg, size) for arg in lists)  # which would not fit another number of tokens
        same = tuple(range(size)) if in_lengths else tuple(i % size for i in range(size + 2))
        axes = _axes(asked, along, same, size)
        if axes is None:
            continue
        if size > 1:
            yield from _loud(asked, axes, along, size)
        if not lists:
            yield from _of_fewer(asked, others, axes, along)
        yield from _longer(asked, axes, along)
        every = _axes(asked, along, same, size, most=True) if in_lengths else axes
        if every is not None and every != axes:  # what stands in its own order needs no axis but the first
            yield from _longer(asked, every, along)


def _sums_to(arg: Any, size: int) -> bool:
    """Whether an argument is a list of lengths of pieces that are `size` tokens in all."""
    return isinstance(arg, list) and all(type(one) is int for one in arg) and sum(arg) == size


def _of_fewer(
    asked: Asked, others: Sequence[Asked], axes: tuple[tuple[int, ...], ...], along: int
) -> Iterator[v.Variant]:
    size = asked.output.shape[along]
    if size > 1:
        one = v.Take(axes, along, 1, (0,))
        yield v.OneToken((one,))
        if along and (rows := _axes(asked, 0, (0,), 1)):
            yield v.OneToken((v.Take(rows, 0, 1, (0,)), one))
    for other in others:
        alike = other.case.build != asked.case.build and other.case.drive == asked.case.drive
        if alike and other.output.ndim == asked.output.ndim and (length := other.output.shape[along]) != size:
            yield v.SameLength((v.Take(axes, along, min(size, length), up_to=length),), other.case.name)


def _longer(asked: Asked, axes: tuple[tuple[int, ...], ...], along: int) -> Iterator[v.Variant]:
    size = asked.output.shape[along]
    pieces = next((i for i, arg in enumerate(asked.case.args) if _sums_to(arg, size)), None)
    rows = _axes(asked, 0, tuple(reversed(range(len(asked.output)))), len(asked.output)) if along else None
    first = (v.Take(rows, 0, 1, (0,)),) if rows and len(asked.output) > 1 else ()
    learnt = asked.case.build.get("config", {}).get("n_positions", 0)
    for length, most in LENGTHS.items():
        longer = v.Longer((*first, v.Take(axes, along, size, up_to=length)), learnt, pieces)
        if _numbers_made(asked, longer) <= most:
            yield longer
    made_for = asked.case.build.get("config", {}).get("max_position_embeddings", 0)
    if made_for and not learnt and size <= made_for < min(LENGTHS):
        yield v.Beyond((*first, v.Take(axes, along, size, up_to=min(LENGTHS))), 0, pieces)


def _loud(asked: Asked, axes: Sequence[Sequence[int]], along: int, size: int) -> Iterator[v.Variant]:
    for place, arg in enumerate(asked.case.args):
        if _is_float(arg) and len(axes[place]) == 1:
            yield v.Loud(place, axes[place][0], along, (size + 1) // 2, LOUD)


def _of_values(task: Task, asked: Asked) -> Iterator[v.Variant]:
    case, output = asked.case, asked.output
    place = next((i for i, arg in enumerate(case.args) if _is_float(arg)), None)
    floats = case.weights or place is not None
    if floats and output.dtype == torch.float32 and all(one.dtype == torch.float32 for one in task.cases):
        yield v.Coarse(as_ever=False)
        yield v.Coarse(as_ever=True)
    if place is not None and output.is_floating_point():
        yield v.Zeros(place)
        yield from _scaled(case, place)
        if case.weights:
            yield v.NoWeights()
            yield v.DoubleWeights()
    config = case.build.get("config", {})
    for field in ("num_hidden_layers", "n_layer"):
        if config.get(field) and any(re.search(rf"(layers|h)\.{config[field] - 1}\.", name) for name in case.weights):
            yield v.Deeper(field, config[field], max(1, MANY_LAYERS - config[field]))
    yield from _of_ids(case, output)
    for i, arg in enumerate(case.args):
        if any(isinstance(one, ToyLM) for one in case.args) and isinstance(arg, list) and arg:
            yield v.AsSet(i)
    if "config" in case.build or any(isinstance(arg, Config) for arg in case.args):
        config = case.build.get("config") or next(arg for arg in case.args if isinstance(arg, Config))
        kept = tuple(n for n in v.OTHER_FIELDS if config.get(n) is None and asked.holds(v.Fields((n,))))
        if kept:
            yield v.Fields(kept)
        nulls = tuple(n for n in v.NULL_FIELDS if n not in config and asked.holds(v.Nulls((n,))))
        if nulls:
            yield v.Nulls(nulls)
        if "rope_theta" in config and not {"rope_scaling", "rope_parameters"} & set(config):
            yield v.RopeParameters(("rope_theta",))
        if config.get("sliding_window") and "sliding_attention" not in config.get("layer_types", ["sliding_attention"]):
            yield v.NullWindow(("sliding_window",))
    if task.function and any(isinstance(arg, Config) for arg in case.args) and place is None:
        yield v.AsDict()
    ints = [i for i, arg in enumerate(case.args) if type(arg) is int]
    if task.function and output.dtype == torch.bool and output.ndim == 2:
        for sizes in (tuple(ints[1:2]), tuple(ints[:1]), tuple(ints[:2])):  # the fewest numbers first
            if sizes:
                yield v.LargerMask(sizes, LARGER_MASK, *output.shape)
                yield v.FarCorner(sizes, FAR_CORNER, *output.shape)


def _scaled(case: TaskCase, first: int) -> Iterator[v.Variant]:
    """Arguments that are much larger or smaller. first: the place of the first that is no whole number."""
    yield v.Scaled(first, LARGE[0])
    for factor in LARGE:
        yield v.Large(first, factor)
    for place in range(first + 1, len(case.args)):
        if _is_float(case.args[place]):
            yield v.Scaled(place, SMALL)


def _of_ids(case: TaskCase, output: Tensor) -> Iterator[v.Variant]:
    toy = next((arg for arg in case.args if isinstance(arg, ToyLM)), None)
    if toy is not None:
        if output.ndim == 1:
            yield v.Fewer(NEW_TOKENS, 0)
        ends = case.args[END] if len(case.args) > END else None
        if ends is not None and ends != []:  # one id or several
            yield v.Vocabulary(len(toy.token), MORE_IDS, (END,), written=True)
        return
    size = case.build.get("num_embeddings") or case.build.get("config", {}).get("vocab_size")
    if size and any(isinstance(arg, Tensor) and arg.dtype == torch.int64 for arg in case.args):
        yield v.Vocabulary(size, MORE_IDS, columns=output.ndim > 0 and output.shape[-1] == size)


def _is_float(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.is_floating_point()


def _axes(
    asked: Asked, along: int, index: Sequence[int], keep: int, *, most: bool = False
) -> tuple[tuple[int, ...], ...] | None:
    """For each argument the axes that go with the output's axis `along`; None where the reference has none that do.

    Found by trying: those of the right size, as few as are enough, or the most.
    """
    size = asked.output.shape[along]
    options: list[list[tuple[int, ...]]] = []
    for arg in asked.case.args:
        alike = [i for i, n in enumerate(arg.shape) if n == size] if isinstance(arg, Tensor) else []
        both = [tuple(alike)] if len(alike) == 2 and arg.dtype == torch.bool else []
        options.append([(), *both, *((axis,) for axis in alike)])
    every = sorted(itertools.product(*options), key=lambda axes: sum(map(len, axes)))
    for axes in reversed(every[1:]) if most else every[1:]:
        taken = v.Taken((v.Take(axes, along, keep, tuple(index)),))
        if asked.holds(taken) and asked.size(taken, along) == len(index):
            return axes
    return None


class _Numbers(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers that operations make, and stops where they are more than `most`."""

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self.most = 0, most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += result.numel() if isinstance(result, Tensor) else 0
        if self.total > self.most:
            raise Enough
        return result


def _numbers_made(asked: Asked, variant: v.Variant) -> int:
    try:
        with torch.no_grad(), _Numbers() as counter:
            asked.run(asked.case.varied(variant))
    except Exception:
        return 0
    return int(counter.total)
