"""What the author of a lesson imports: public, and stable.

In ``exercises.py`` and ``reference.py``, from here:

- `Exercise`, `Case`, `Draw`, `Mistake`: the words in which exercises are declared; `with_mistakes` reads mistakes.toml
- `random_weights`, `weights_around_0`: how the reference's parameters are filled
- `Tolerance`, and those that there are: `BY_DTYPE`, `ROUNDED_ONCE`, `EXACT`; `agree` compares as the judge does
- `one_thread`: computes as the engine does
- `Config`: a config.json with its fields as attributes

and from the modules below:

- `hf`: transformers' config for a learner's, its names without what the course lacks, what it gives for a text
- `configs`: the fields that an exercise reads, the sizes that its reports name, a second config unlike the first
- `inputs`: inputs and weights that show what ordinary ones do not
- `clear`: inputs whose choice, of experts or of tokens, is clear
- `toy`, `caches`: a toy model and what transformers' greedy generation makes of it; what a cache of keys must hold
- `declared`: the words of ``others.py``
- `randomly`: random cases of vectors and of tokens
- `programs`: what other right programs begin with
- `solved`: the lesson's own solutions, exercises, configs and trained models, for others.py and tests: `lesson_of`
- `engine`: what tests ask of the engine itself: a probe and its judge, reports, calls, checkpoints
- `figures`, `models`: what ``benchmark.py`` measures with, and the table that it prints

How a solution is used stands in the lesson's own ``drives.py``, or in `grader.authoring.drives` where lessons share it.
"""

from grader.authoring.mistakes import with_mistakes
from grader.checks.probe.running import one_thread
from grader.config import Config
from grader.lessons.exercise import Case, Draw, Exercise, Mistake, random_weights, weights_around_0
from grader.tolerance import BY_DTYPE, EXACT, ROUNDED_ONCE, Tolerance, agree

__all__ = [
    "BY_DTYPE",
    "EXACT",
    "ROUNDED_ONCE",
    "Case",
    "Config",
    "Draw",
    "Exercise",
    "Mistake",
    "Tolerance",
    "agree",
    "one_thread",
    "random_weights",
    "weights_around_0",
    "with_mistakes",
]
