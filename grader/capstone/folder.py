"""A capstone's folder: what a learner gets, and nothing that says how it is computed."""

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

from grader.capstone.drawing import CHANGES
from grader.capstone.making import Capstone, parameters
from grader.capstone.words import explained
from grader.errors import GraderError
from grader.recordings.tracefile import write_trace

NOTEBOOK = "capstone.ipynb"
PROGRAM, TRACE, CONFIG = "program.py", "trace.safetensors", "config.json"
NOT_STARTED = "This program is not started yet."
STARTER = f'''"""A program for the model of this folder. README.md says what it has to do."""

import torch
from torch import Tensor, nn

from grader import Config


class Model(nn.Module):
    """Token ids [B, T] to logits [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__()
        raise NotImplementedError("{NOT_STARTED}")  # in place of this line: the parts, named as in tensors.txt

    def new_cache(self, batch_size: int, capacity: int):
        """What a model keeps of `batch_size` texts of up to `capacity` tokens: of any form, without tokens at first."""
        return None

    def forward(self, ids: Tensor, cache=None) -> Tensor:
        """ids: the tokens behind those that the cache holds; without a cache whole texts."""
        return torch.zeros(*ids.shape, 1)
'''

README = """# A model that exists nowhere

This is the {name}. No library has this architecture, and nobody has written a program for it: that is your task.
{start}

You are done when every row of the comparison is right: each module in one pass over two texts of {length} tokens, and
the same texts with a cache, in parts of {parts} tokens. `--check` also gives each norm an input so small that its eps
shows, and looks whether a step with the cache takes less work than all tokens at once.

## What is here

| file | what it is |
|---|---|
| `config.json` | the model's config; its fields are explained below |
| `tensors.txt` | the names and shapes of its tensors |
| `model.safetensors` | these tensors: {parameters} random numbers in float32 |
| `trace.safetensors` | what each of {calls} calls of a module was given, and what it gave |
| `program.py` | a class `Model` without parts: yours to write |

## How to start

```
grader capstone --check {folder}
grader compare {folder}/program.py:Model {folder}/trace.safetensors --open all
```

The first says how far you are, the second shows every row; the first red one is where to look. Both build `Model` with
the config, load the weights into it by their names, and compare. In a notebook beside the trace,
`compare_layers(Model, read_trace("trace.safetensors"))` does the same.

- `Model(config)` gets a `grader.Config`. Modules are named as in `tensors.txt`; yours may have other names, which are
  matched.
- `forward(ids, cache=None)` gives logits. With a cache, `ids` are the tokens behind those that it holds.
- `new_cache(batch_size, capacity)` makes a cache without tokens. What it holds is up to you: keys rotated or not yet,
  all tokens or those of a window.
- The config is flat: what transformers keeps inside `rope_parameters` are fields of their own.
- What no field names is as in the lesson that builds it: scores are divided by the root of a query's width;
  `kv_b_proj` gives for each head its key and then its value, and the key that all heads share is not normed.
- A router gives weights and chosen experts, and experts take `x`, the chosen and the weights, as in lesson 07.

You may use all that you built in this course, its lessons, papers, and other models. You may not use the program
that made the trace: it is in the package `grader.capstone`, to read it is to read the answer, and `--check` refuses a
program that has modules of it. The trace is there to compare with, and not to be read off.

## The fields of config.json

A field with a usual name means what it means in transformers' configs. These need a word:
{fields}
"""


def write_folder(capstone: Capstone, folder: Path) -> None:
    """Write a capstone for a learner, in a new folder, or beside the notebook that a class was released.

    Raises GraderError where the folder is another, or can't be written.
    """
    require_new(folder)
    fetched = is_fetched(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in capstone.trace.weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for name, text in (
            (CONFIG, json.dumps(capstone.drawn.config, indent=2) + "\n"),
            ("tensors.txt", "\n".join(tensors(capstone)) + "\n"),
            *([] if fetched else [(PROGRAM, STARTER)]),
            ("README.md", readme(capstone, folder)),
        ):
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GraderError(f"{folder} can't be written: {error.strerror}.") from None
    write_trace(capstone.trace, folder / TRACE, capstone.drawn.name)


def require_new(folder: Path) -> None:
    """Raise GraderError where a folder is there already, and is not that of an assignment without a model yet."""
    if folder.exists() and not is_fetched(folder):
        raise GraderError(
            f"{folder} exists. Name another folder with --to, or delete this one if nothing in it is yours."
        )


def is_fetched(folder: Path) -> bool:
    """Whether a folder has the notebook that a class was released, and no model beside it yet."""
    return (folder / NOTEBOOK).is_file() and not (folder / CONFIG).exists()


def tensors(capstone: Capstone) -> Iterator[str]:
    """A line for each tensor of the model: its name and shape."""
    weights = capstone.trace.weights
    width = max(map(len, weights))
    yield from (f"{name:{width}}  {list(tensor.shape)}" for name, tensor in weights.items())


def readme(capstone: Capstone, folder: Path) -> str:
    """README.md of a capstone."""
    drawn, trace = capstone.drawn, capstone.trace
    start = "Everything about it was drawn: start from whichever of your models is most like it."
    if drawn.base:
        start = (
            f"It is {drawn.base} but for {CHANGES[drawn.level]} things: start from your own {drawn.base}, and read"
            " config.json field by field to find them. A field that your program does not read may be one."
        )
    return README.format(
        name=drawn.name,
        start=start,
        length=trace.args[0].shape[1],
        parts=", ".join(str(step.ids.shape[1]) for run in trace.runs for step in run.steps),
        parameters=f"{parameters(capstone.model):,}",
        calls=len([call for call in trace.calls if ":" not in call.path]),
        folder=folder.name,
        fields="\n".join(explained(drawn.config)),
    )
