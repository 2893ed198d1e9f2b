"""What came out where a case was asked in other ways: judged by the case's own answer, and told in words of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from grader.checks.judge.verdict import CaseVerdict, Finding
from grader.checks.observation import CHANGED, EARLIER, FOLDER, SEEDS, LeftBehind, Observation, Varied
from grader.recordings import variants as v
from grader.recordings.answers import Answer
from grader.recordings.tasks import TaskCase
from grader.tolerance import Tolerance, agree

ROUNDING = 1e-6  # of what is many times as large; a clamp or an overflow is off by its whole value
LEFT_BEHIND = Finding(
    "the output is right, and no longer so once the same module was used for something else",
    "Look for what an earlier call leaves behind: a mask, a table or a length that is kept from the first one.",
)


@dataclass(frozen=True)
class Right:
    """What is right in a case, how near to it, and what the reference gave for the last of more tokens, for a large
    input and for other values."""

    output: Tensor
    tolerance: Tolerance
    end: Tensor | None = None
    large: Tensor | None = None
    other: Tensor | None = None

    def of(self, variant: v.Variant) -> Tensor:
        """What the part that counts of a variant's output must be."""
        kinds = {v.Large: self.large, v.OtherValues: self.other}
        return variant.wanted(self.output, kinds.get(type(variant), self.end))


def right_in(answer: Answer, case: int) -> Right:
    """What is right in the case of that number."""
    further = (each[case] if each else None for each in (answer.ends, answer.large, answer.other))
    return Right(answer.outputs[case], answer.tolerances[case], *further)


def with_variants(verdict: CaseVerdict, case: TaskCase, observation: Observation, right: Right) -> CaseVerdict:
    """The verdict on a case whose output is right, once it is seen what came out for its variants.

    One that is missing counts as wrong. The first that is wrong is told. What would fail on another device alone is
    right here, and remarked.
    """
    if not verdict.right:
        return verdict
    for place, variant in enumerate(case.variants):
        varied = observation.varied[place] if place < len(observation.varied) else Varied()
        if isinstance(variant, v.Moved):
            verdict = replace(verdict, remarks=(*verdict.remarks, *_elsewhere(varied)))
            continue
        finding = _finding(variant, varied, right.of(variant), _room(variant, right.tolerance))
        if finding is not None:
            return replace(verdict, right=False, exact=False, finding=finding)
    return verdict


def _room(variant: v.Variant, tolerance: Tolerance) -> Tolerance:
    """How far a variant's output may be off.

    Of large inputs a right program may subtract some that are nearly equal, as it does with a logsumexp of logits: what
    their rounding leaves behind grows with them.
    """
    if not isinstance(variant, v.Large):
        return tolerance
    return replace(tolerance, relative=max(tolerance.relative, ROUNDING * variant.factor))


def _elsewhere(varied: Varied) -> Iterator[str]:
    """What would be raised on a GPU, where something would be."""
    _, is_told, where = ("" if varied.problem is None else varied.problem.message).rpartition(
        f"{LeftBehind.__name__}: "
    )
    if is_told:
        how = "Make it with the `device` of a tensor that comes in, or keep it as a buffer"
        yield f"on a GPU this raises an error: {where}. {how}"


def _finding(variant: v.Variant, varied: Varied, wanted: Tensor, tolerance: Tolerance) -> Finding | None:
    if varied.output is not None and agree(varied.output, wanted, tolerance):
        return None
    if varied.alone is not None and agree(varied.alone, wanted, tolerance):
        return _left_behind(varied)
    if varied.itself:
        return Finding(
            "the output is right, and no longer so where the same case is run again, after others and under"
            f" `torch.no_grad()`: {varied.itself}",
            f"{LEFT_BEHIND.hint} Nothing may need gradients to be on.",
        )
    if isinstance(variant, v.Beyond) and varied.output is None and varied.problem is not None:  # it refuses them
        return None
    what, hint = told(variant)
    if isinstance(variant, v.SameLength) and varied.output is None:
        what = f"with as many tokens as in the case “{variant.before}” there is none"
        hint = "Is a table or a mask as long as one text alone? Make it as long as the text that comes in."
    came = varied.alone if varied.alone is not None else varied.output
    if came is None:
        problem = varied.problem
        if problem is not None and problem.kind == CHANGED:
            return modified_in_place(problem.message, _WHERE.get(type(variant), ", in another run than the first"))
        how = "" if problem is None else f": {problem.message}"
        return Finding(f"the output is right, but {what}{how}", hint, () if problem is None else problem.detail)
    if came.shape != wanted.shape:
        shapes = f"its shape is {list(came.shape)}, and should be {list(wanted.shape)}"
        return Finding(f"the output is right, but {what}: {shapes}", hint)
    if came.dtype != wanted.dtype:
        if isinstance(variant, v.Zeros | v.NoWeights) and agree(came.to(wanted.dtype), wanted):
            zeros = "weights of 0" if isinstance(variant, v.NoWeights) else "an input of zeros"
            what = f"with {zeros} the dtype is another"
            hint = "The dtype depends on what comes in, and not on its numbers."
        dtypes = f"it is {came.dtype}, and should be {wanted.dtype}".replace("torch.", "")
        return Finding(f"the output is right, but {what}: {dtypes}", hint)
    nan = bool(came.is_floating_point() and came.isnan().any() and not wanted.isnan().any())
    return Finding(f"the output is right, but {what}{': there is NaN in it' if nan else ''}", hint)


def modified_in_place(what: str, where: str = "") -> Finding:
    """That an argument, a field of the config, or what else a call leaves alone, is no longer what it was.

    where: in which run, if not in all.
    """
    hint = _ALONE.get(what) or (
        "A weight changes where it is trained or loaded, and nowhere else."
        if what.startswith("the weight")
        else "A config is read by others, too: by the next layer, and by the next model. Make a copy: `list(...)`."
        if what.startswith("the config")
        else "Whoever called it still needs what it was given: a residual connection does. Look for `+=`, or a name"
        " that ends in `_`."
    )
    return Finding(f"the output is right, but {changed_in_words(what)}{where}", hint)


def changed_in_words(what: str) -> str:
    """That something is no longer what it was. what: as `Observation.changed` names it."""
    return f"{what} is another afterwards" if what in _ALONE else f"{what} was modified in place"


_ALONE = {  # where to look if something else than an argument is changed
    EARLIER: "What is returned is the caller's from then on. Make a new tensor in each call; keep none to write into.",
    **dict.fromkeys(
        SEEDS.values(),
        "It belongs to the whole process. To draw numbers, make a generator: `torch.Generator().manual_seed(...)`.",
    ),
    FOLDER: "It belongs to the whole process. Name files by full paths: `root / name`.",
}


def _left_behind(varied: Varied) -> Finding:
    """That only a module that was used before is wrong, and what then stopped it, if anything did."""
    if varied.output is not None or varied.problem is None:
        return LEFT_BEHIND
    return replace(LEFT_BEHIND, what=f"{LEFT_BEHIND.what}: {varied.problem.message}", detail=varied.problem.detail)


def told(variant: v.Variant) -> tuple[str, str]:
    """What is wrong where a variant's output is, after "the output is right, but", and where to look."""
    if type(variant) is v.Scaled:
        return (
            f"with its argument number {variant.argument + 1} times {variant.factor:g}, it is not {variant.factor:g}"
            " times what it was",
            "Is a value clamped, a small one left out, or the argument normalised? Nothing of the kind is asked for.",
        )
    if isinstance(variant, v.Longer | v.SameLength | v.LargerMask):
        return _told_of_length(variant)
    if isinstance(variant, v.OtherValues):
        return _told_of_values(variant)
    return _TOLD[type(variant)]


def _told_of_values(variant: v.OtherValues) -> tuple[str, str]:
    changed = [f"{one.name} {v.HOW_IN_WORDS[one.how]}" for one in variant.changes]
    if len(changed) == 1:
        return (
            f"it is wrong with {changed[0]} and all else as it is",
            "Is each number read where it counts, and none in its place that is only equal to it in the case?",
        )
    return (
        f"it is wrong with {', '.join(changed[:-1])} and {changed[-1]}",
        "Is each of them read where it counts, and not where it does not?",
    )


def _told_of_length(variant: v.Variant) -> tuple[str, str]:
    if isinstance(variant, v.SameLength):
        return (
            f"with as many tokens as in the case “{variant.before}”, which ran before, it is another",
            "Look for what is kept under the number of tokens alone: a table depends on the config and positions, too.",
        )
    if isinstance(variant, v.FarCorner):
        return (
            f"with {variant.more:,} tokens more, the last ones do not see the first",
            "Without a window every earlier token is seen, however far back it is.",
        )
    if isinstance(variant, v.LargerMask):
        return (
            f"a mask for {variant.more:,} tokens more does not end with the same rows and columns",
            "Is every position exact? float16 and bfloat16 hold whole numbers only up to 2,048 and 256.",
        )
    assert isinstance(variant, v.Longer)
    recorded = variant.takes[-1].keep
    if isinstance(variant, v.Beyond):
        return (
            f"with {variant.length:,} tokens, more than the config has, it raises no error, and the first {recorded} or"
            " the last one come out wrong",
            "Is a table too short, and a position beyond it taken for its last one? RoPE goes on for ever.",
        )
    return (
        f"with {variant.length - recorded:,} tokens more, {variant.length:,} in all, the first {recorded} or the last"
        " one come out wrong",
        "Is a table or a mask too short, is something only done for short texts, or does a token see later ones?",
    )


_WHERE: dict[type[v.Variant], str] = {
    v.OneRow: " where there is one row",
    v.OneToken: " where there is one token",
    v.Training: " in training mode",
    v.AsDict: " where it is a plain dict",
}
_TOLD: dict[type[v.Variant], tuple[str, str]] = {
    v.OneRow: (
        "one row of the batch alone gives something else than in the batch",
        "Does something mix the rows, or is an axis of size 1 dropped, as by `squeeze()`?",
    ),
    v.Rows: (
        "with the rows of the batch in another order, and one of them twice, it is not the same rows in that order",
        "Each row is a text of its own. Does something mix them, or count on how many there are?",
    ),
    v.SameRow: (
        "where every row is the same one, it is no longer that row's output",
        "Nothing limits how many rows may be alike, or choose the same.",
    ),
    v.OneToken: (
        "the first token alone gives something else than in front of the others",
        "Is there a case of its own for one token, or is an axis of size 1 dropped, as by `squeeze()`?",
    ),
    v.Loud: (
        "the first tokens change where those behind them are very large",
        "No token may see a later one, whatever its score is: hide with -inf, not with a large number.",
    ),
    v.Zeros: (
        "an input of zeros does not give zeros",
        "A score of 0 is a score like any other: what is hidden is known by its place, not by its value.",
    ),
    v.Large: (
        "with much larger inputs it is wrong",
        "Is a value clamped that has no bounds, hidden with a large number in place of -inf, or does one overflow, as"
        " `exp` does beyond 88? The inner values of trained models reach thousands.",
    ),
    v.NoWeights: (
        "weights of 0 do not give zeros",
        "A score of 0 is a score like any other: what is hidden is known by its place, not by its value.",
    ),
    v.Deeper: (
        "with more layers in front, whose weights are all 0, it is another",
        "Does every layer of the config run, and read what it needs from the list of its own number?",
    ),
    v.Training: (
        "in training mode it is another",
        "Is there dropout, noise, or something else that depends on `self.training`? Nothing of the kind is asked for.",
    ),
    v.Strided: (
        "an input that lies in memory in another order gives something else",
        "A transposed tensor is as good as any: `view` needs a certain order in memory, `reshape` does not.",
    ),
    v.Reloaded: (
        "after its weights were saved and loaded into another module it is another",
        "Everything that is learnt belongs into the state_dict, and what is computed from weights must follow them: a"
        " buffer with `persistent=False` is not saved, a product kept from the first call stays as it was, and of"
        " weights that two modules share the last ones count, and of what is kept on the class as well.",
    ),
    v.Copied: (
        "a `copy.deepcopy` of the module gives something else",
        "A copy must use its own weights: a function that is kept in the module still has the first one's, and a result"
        " that is kept on `self` can't be copied.",
    ),
    v.Vocabulary: (
        "with ids above 256, at the end of a larger vocabulary, it is not the same",
        "Ids are whole numbers of any size: compare them with `==`, not with `is`, and cast them to nothing smaller.",
    ),
    v.AsSet: (
        "numbers that come in a set and not in a list are not understood",
        "A Collection can be a list, a tuple, a set or a range: what they share is `in`, `len` and `for`.",
    ),
    v.Fields: (
        "it is another where the config also has fields of other families",
        "Read the fields that this family has, by their own names; others say nothing here.",
    ),
    v.Nulls: (
        "it is another where fields that are missing in the config are null in it",
        "A field that is null says as little as one that is missing: `config.get(name)` is None for both.",
    ),
    v.RopeParameters: (
        "it is another where the config has RoPE's base in `rope_parameters`, as transformers 5 writes it",
        "Some configs have `rope_theta` at the top level, others in `rope_parameters`: read both.",
    ),
    v.MoreAxes: (
        "with further axes of size 1, in front and before the last one, it is not the same",
        "`...` in a shape stands for any number of axes, of any sizes: count from the last, with -1.",
    ),
    v.OneAxis: (
        "for one vector alone, of a single axis, it is not the same",
        "`...` in a shape stands for any number of axes, none included: count from the last, with -1.",
    ),
    v.NullWindow: (
        "it is another where the config's `sliding_window` is null, and no layer slides",
        "Read the window where a layer of kind sliding_attention needs it: without one there may be none.",
    ),
    v.AsDict: (
        "a config that is a plain dict does not give it",
        "A Mapping is read by `config[name]`, `config.get(name)` and `name in config`, and it is the caller's.",
    ),
    v.Fewer: (
        "where no token is asked for, some come out",
        "How often does the loop run for max_new_tokens = 0?",
    ),
    v.Coarse: (
        "with weights and inputs in bfloat16 it is another",
        "Is something cast to float32, or made in it, and not cast back? Which dtype does the docstring name?",
    ),
    v.DoubleWeights: (
        "where the weights have another dtype than the input, it is another",
        "Cast back to the input's dtype, and not to the weight's.",
    ),
    v.Again: (LEFT_BEHIND.what.removeprefix("the output is right, and "), LEFT_BEHIND.hint),
}
