"""Train the learner's own model of lesson 12 to its end, with the lesson's own solutions, and write how it went.

    python training/first_model.py [--output solutions/12-training/texts/full-run.json]

It does what the lesson's cells do with FULL = True: a tokenizer with 256 merges of the novel, a Qwen3 of 455,808
parameters, 2,000 steps on 8 pieces of 64 tokens. Written are both losses and a greedy sample every 200 steps, and the
seconds of the processor's time on one core.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import torch
from train import HERE

from grader.authoring.kit.solved import lesson_of

FOLDER = HERE.parent / "solutions" / "12-training"
STEPS, EVERY = 2000, 200
CELLS = ("CONFIG = Config(", "class Run:", "def held_out_loss(")  # the lesson's cells that are used here


def names_of_the_lesson() -> dict[str, Any]:
    """Its solutions, with the novel, its ids, the config and the class of a training."""
    lesson = lesson_of(str(FOLDER / "others.py"))
    names: dict[str, Any] = dict(lesson.solutions)
    names["novel"] = gzip.decompress((FOLDER / "texts" / "northanger-abbey.txt.gz").read_bytes()).decode()
    names["merges"] = names["train_bpe"](names["novel"][:100_000], 256)
    names["END"] = 256 + len(names["merges"])
    ids = names["encode"](names["novel"], names["merges"])
    split = int(0.9 * len(ids))
    names["novel_ids"], names["held_out"] = ids[:split], ids[split:]
    cells = (FOLDER / "training.py").read_text(encoding="utf-8").split("\n# %%")
    for words in CELLS:
        (cell,) = (cell for cell in cells if f"\n{words}" in cell)
        source = cell.split("\n", 1)[1].replace("FULL = False", "FULL = True")
        exec(compile(source, words, "exec"), names)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER / "texts" / "full-run.json")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    names = names_of_the_lesson()
    run, merges = names["run"], names["merges"]
    assert run.total == STEPS
    prompt = torch.tensor([names["encode"]("Catherine was", merges)])
    began, rows, losses = time.process_time(), [], []
    while run.done < run.total:
        losses.append(run.step())
        if run.done % EVERY == 0:
            text = names["decode"](names["generate"](run.model, prompt, 30), merges)
            mean = sum(losses[-50:]) / 50
            row = {"step": run.done, "loss": round(mean, 3), "held_out": round(names["held_out_loss"](run.model), 3)}
            rows.append(row | {"text": text})
            print(rows[-1], flush=True)
            seconds = round(time.process_time() - began)
            output.write_text(json.dumps({"seconds_on_one_core": seconds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
