"""Agent: what a mask of tokens and a block's hash cost (`make bench`).

The vocabulary is made up, of 50,000 tokens of one to eight bytes. One thread.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from grader.authoring.kit.figures import Figure, ms, show, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS = 5
TOKENS, PROMPT = 50_000, 8_000


def figures() -> list[Figure]:
    solved, random = LESSON.solutions, Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(random.choices(letters + '":{} ', k=random.randint(1, 8))).encode() for _ in range(TOKENS)]
    automaton = solved["automaton_of"]([['{"word": "'], (letters, 1, 20), ['"}']])
    inside = automaton.step.index(next(step for step in automaton.step if len(step) == len(letters)))
    ids = [random.randrange(TOKENS) for _ in range(PROMPT)]
    log = "".join(f"test {i} passed in {random.random():.3f} s\n" for i in range(5000))
    runs: dict[str, Callable[[], object]] = {
        f"the tokens that are allowed at the start, of {TOKENS:,}": partial(
            solved["allowed_tokens"], automaton, 0, vocabulary, 0
        ),
        "the same within a word": partial(solved["allowed_tokens"], automaton, inside, vocabulary, 0),
        f"hashes of {PROMPT:,} tokens in blocks of 16": lambda: solved["PrefixCache"](16).read(ids),
        "a log of 5,000 lines, cut": partial(solved["cut"], log, 500, lambda text: len(text.split())),
    }
    took = side_by_side(runs, RUNS)
    return [Figure(name, ms(took[name])) for name in runs]


if __name__ == "__main__":
    raise SystemExit(not show(figures()))
