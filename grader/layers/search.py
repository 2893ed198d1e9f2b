"""Where in a model to start looking: told from a comparison of its pass with the reference's."""

from grader.layers.comparison import Comparison
from grader.layers.culprit import Culprit
from grader.layers.inquiry import Inquiry
from grader.layers.node import own_way
from grader.layers.small_error import SmallError


def find_culprit(comparison: Comparison) -> Culprit | None:
    """The first module that is wrong by itself while nothing in it is; where none is, the one whose error is small
    and grows. None if there is no such module either, as where rounding adds up over many.
    """
    faulty = (n for n in comparison.nodes if n in comparison.faulty and not n.call.is_step)
    node = next((n for n in faulty if n not in comparison.holders), None)
    if node:
        return Inquiry(comparison, node).explain()
    differs = (n for n in comparison.nodes if not n.seen.ok and not own_way(n) and not n.call.is_step)
    different = next(differs, None)
    return SmallError(comparison, comparison.nodes[0], different).culprit() if different else None
