"""A capstone's folder: what a learner gets, and nothing that says how it is computed."""

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

from grader.capstone.drawing import CHANGES
from grader.capstone.making import Capstone, parameters
from grader.capstone.words import explained
from grader.errors import GraderError
from grader.names import layers_as_one
from grader.recordings.tracefile import write_trace

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


def write_folder(capstone: Capstone, folder: Path) -> None:
    """Write a capstone for a learner. Raises GraderError where the folder is there already, or can't be written."""
    if folder.exists():
        raise GraderError(f"{folder} exists. Name another folder with --to, or delete this one if nothing in it is yours.")
    try:
        folder.mkdir(parents=True)
        weights = {name: tensor.contiguous() for name, tensor in capstone.trace.weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for name, text in (
            (CONFIG, json.dumps(capstone.drawn.config, indent=2) + "\n"),
            ("tensors.txt", "\n".join(tensors(capstone)) + "\n"),
            (PROGRAM, STARTER),
            ("README.md", readme(capstone, folder)),
        ):
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GraderError(f"{folder} can't be written: {error.strerror}.") from None
    write_trace(capstone.trace, folder / TRACE, capstone.drawn.name)


def tensors(capstone: Capstone) -> Iterator[str]:
    """A line for each tensor of the model: its name and shape."""
    weights = capstone.trace.weights
    width = max(map(len, weights))
    yield from (f"{name:{width}}  {list(tensor.shape)}" for name, tensor in weights.items())


def readme(capstone: Capstone, folder: Path) -> str:
    """README.md of a capstone."""
    drawn, trace = capstone.drawn, capstone.trace
    rows = len([call for call in trace.calls if ":" not in call.path])
    modules = ", ".join(f"`{name}`" for name in layers_as_one(dict.fromkeys(c.path for c in trace.calls if c.path)))
    if drawn.base:
        start = (
            f"It is {drawn.base} but for {CHANGES[drawn.level]} things, and the config says which: start from your own"
            f" {drawn.base}, and compare its config with this one."
        )
    else:
        start = "Everything about it was drawn: start from whichever of your models is most like it."
    sizes = ", ".join(str(step.ids.shape[1]) for run in trace.runs for step in run.steps)
    return f"""# A model that exists nowhere

This is the {drawn.name}. No library has this architecture, and nobody has written a program for it: that is your task.
{start}

You are done when every row of the comparison is right: each module in one pass over two texts of {trace.args[0].shape[1]}
tokens, and the same texts with a cache, in parts of {sizes} tokens.

## What is here

| file | what it is |
|---|---|
| `config.json` | the model's config; its fields are explained below |
| `tensors.txt` | the names and shapes of its tensors |
| `model.safetensors` | these tensors: {parameters(capstone.model):,} random numbers in float32 |
| `trace.safetensors` | what each of {rows} calls of a module was given and gave |
| `program.py` | a class `Model` without parts: yours to write |

## How to start

```
grader capstone --check {folder.name}
grader compare {folder.name}/program.py:Model {folder.name}/trace.safetensors --open all
```

The first says how far you are, the second is the whole comparison; its first red row is where to look. Both build `Model` with
the config, load the weights into it by their names, and compare. In a notebook `compare_layers(Model,
read_trace("trace.safetensors"))` does that, and `read_trace(...).calls` holds the numbers.

- `Model(config)` gets a `grader.Config`. Modules are named as in `tensors.txt`; modules with names of your own are matched, too.
- `forward(ids, cache=None)` gives logits. With a cache, `ids` are the tokens behind those that it holds.
- `new_cache(batch_size, capacity)` makes a cache without tokens. What is in it is your affair: keys as they are or rotated,
  everything or a window.
- Modules that the reference calls: {modules}.

Allowed is all that you built in this course, its lessons and notes, papers, and other people's models. Not allowed is the program
that made the trace: it is in the package that you installed (`grader.capstone`), reading it is reading the answer, and a program
that imports it is refused. Don't read your answer off the trace: it is there to compare with.

## The fields of config.json

Fields with a usual name mean what they mean in transformers' configs. Those that need a word:
{chr(10).join(explained(drawn.config))}
"""
