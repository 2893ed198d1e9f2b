"""A capstone as an exercise that a class is graded on: its cases, its recordings, and the notebook that is released."""

from collections.abc import Callable
from typing import Any

import nbformat
import torch
from nbformat import NotebookNode
from torch import Tensor, nn

from grader.authoring.recorder import record_exercise
from grader.capstone.drawing import AXES, KNOWN, Drawn
from grader.capstone.drives import in_parts, on_small_numbers, one_layer, whole
from grader.capstone.making import ROOM, Capstone, fill_weights
from grader.capstone.model import Model
from grader.capstone.shrinking import shrinking
from grader.checks.probe.running import one_thread
from grader.config import Config
from grader.digest import digest
from grader.errors import RecordingError
from grader.lessons.exercise import Case, Draw, Exercise
from grader.lessons.notebooks import released_hash
from grader.porting.filling import SMALL, SMALL_ROWS, tokens
from grader.recordings.codec import Encoder
from grader.recordings.format import FORMAT, versions
from grader.recordings.recording import Recording, encoded_exercise

LESSON = "capstone"
EXERCISE, POINTS = "capstone.model", 16
LAYERS = 4  # so many are judged by themselves: every capstone has them
DRAWS = 20
LENGTH, PARTS = 13, [4, 1, 5, 1, 1, 1]
MADE_FROM = {"capstone": digest(repr((AXES, KNOWN)))[:32]}


def exercise_of(drawn: Drawn, word: str = "", secret: str = "") -> Exercise:
    """The exercise of an architecture: each of its first layers, the whole, norms on small numbers, and decoding with a
    cache.

    word: any, for other random numbers. secret: for other weights, which are the same in all cases.
    """

    def case(name: str, drive: Callable[..., Any], args: Callable[[Draw], list[Any]] = lambda draw: []) -> Case:
        def drawn_args(draw: Draw) -> list[Any]:
            return [texts(draw), *args(draw)]

        return Case(name, drawn_args, {"config": drawn.config}, tolerance=ROOM, draw=word, drive=drive, right=drive)

    def texts(draw: Draw) -> Tensor:
        return tokens(drawn.config["vocab_size"], draw, LENGTH)

    def filled() -> Model:
        model = Model(Config(drawn.config)).eval()
        _filled(model, drawn, Draw(LESSON, drawn.name, word, secret))
        return model

    def small_numbers(draw: Draw) -> list[Any]:
        changes = shrinking(filled(), texts(draw))
        return [list(values) for values in zip(*changes, strict=True)]

    def hidden_states(draw: Draw) -> Tensor:
        x = draw.normal(2, LENGTH, drawn.config["hidden_size"])
        x[:, ::SMALL_ROWS] *= SMALL  # where a norm's eps shows
        return x

    layers = [
        case(f"layer {number} by itself", one_layer, lambda draw, number=number: [hidden_states(draw), number])  # type: ignore[misc]
        for number in range(LAYERS)
    ]
    return Exercise(
        name=EXERCISE,
        solution="Model",
        reference=lambda config: Model(config).eval(),
        cases=[
            *layers,
            case("the logits of whole texts", whole),
            case("every norm on small numbers, where its eps counts", on_small_numbers, small_numbers),
            case("with a cache, in parts", in_parts, lambda draw: [PARTS]),
            case("with a cache, token by token", in_parts, lambda draw: [[1] * LENGTH]),
        ],
        points=POINTS,
        weights=lambda module, draw: _filled(module, drawn, Draw(LESSON, drawn.name, word, secret)),
        drive=whole,
        differentiable=False,
    )


def _filled(module: nn.Module, drawn: Drawn, draw: Draw) -> None:
    assert isinstance(module, Model)
    with torch.no_grad():
        fill_weights(module, Config(drawn.config), draw)


def recording_of(capstone: Capstone, secret: str = "") -> Recording:
    """What a program is checked with. secret: draws weights and texts that students have not."""
    encoder, drawn = Encoder(), capstone.drawn
    for attempt in range(DRAWS):
        try:
            with one_thread():
                exercise = exercise_of(drawn, f"{attempt}" if attempt else "", secret)
                task, answer = record_exercise(f"{LESSON} {drawn.name}", exercise, secret, measured=True)
        except RecordingError:  # rounding decides between two experts
            if attempt == DRAWS - 1:
                raise
        else:
            break
    header = {
        "format": FORMAT,
        "lesson": LESSON,
        "seed": f"sha256 of {'a secret, ' if secret else ''}the capstone, the exercise and the case",
        "versions": versions(),
        "made_from": MADE_FROM,
        "exercises": {EXERCISE: encoded_exercise(encoder, task, answer)},
        "trace": None if secret else encoder.encode(capstone.trace),
    }
    return Recording(header, encoder.tensors)


ABOUT = """# A model that exists nowhere

Your model is one of your own: nobody else in this class has its architecture, so nobody else's program is right for it.
Its seed and its take stand beside your name in `seeds.csv`. In a terminal, in the folder of this notebook:

```
grader capstone --seed SEED --level {level} --take TAKE --to .
```

writes your model's `config.json`, `tensors.txt` and `README.md`, which says what there is to do. It also puts your
recording in the place of the one that came with this notebook.

`Model` and all that it needs stand in one cell below: only that cell is graded. Modules are named as in `tensors.txt`.
A layer takes its hidden states as its first argument. You are graded with other weights and other texts than yours: two
points for each of the first four layers by itself, two for the logits of whole texts, two for logits where every norm
is given small numbers, and two each for decoding with a cache in parts and token by token. Where small numbers
alone are wrong, an eps is not the config's, or is not added where it belongs."""
SETUP = """import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, compare_layers"""
SOLUTION = '''class Model(nn.Module):
    """Token ids [B, T] to logits [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__()
        raise NotImplementedError()

    def new_cache(self, batch_size: int, capacity: int):
        """What a model keeps of `batch_size` texts of up to `capacity` tokens: without tokens at first."""
        raise NotImplementedError()

    def forward(self, ids: Tensor, cache=None) -> Tensor:
        """ids: the tokens behind those that the cache holds; without a cache whole texts."""
        raise NotImplementedError()'''


def notebook_of(level: int) -> NotebookNode:
    """The notebook that a class is released, with what nbgrader has to know."""

    def cell(grade_id: str, source: str, **metadata: Any) -> NotebookNode:
        solution, points = "exercise" in metadata, {"points": POINTS} if "check" in metadata else {}
        marks = {"grade_id": grade_id, "grade": bool(points), "solution": solution, "locked": not solution}
        marks |= {"schema_version": 3, "task": False, "cell_type": "code", **points}
        metadata |= {"deletable": False, "nbgrader": marks} | ({} if solution else {"editable": False})
        return nbformat.v4.new_code_cell(source, id=grade_id, metadata=metadata)

    name = EXERCISE.replace(".", "-")
    cells = [
        nbformat.v4.new_markdown_cell(ABOUT.format(level=level), id="about"),
        cell("setup", SETUP, tags=["setup"]),
        cell(name, SOLUTION, exercise=EXERCISE),
        nbformat.v4.new_code_cell("compare_layers(Model)", id="compare"),
        cell(f"check-{name}", f'check("{EXERCISE}", Model)', check=EXERCISE),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    notebook.metadata["grader"] = {"released": released_hash(notebook)}
    return notebook
