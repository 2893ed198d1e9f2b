"""Train tiny mixtures of experts with a softmax and with a sigmoid for scores, and write their curves for lesson 07.

    python training/routers.py [--output solutions/07-moe/texts/routers.json]

Two variants of the model in `balance.py`, which has the sizes and the loop, both with the loss for unequal load: scores
by a softmax over all experts, and by a sigmoid of each. Each is trained from five seeds, and variants with the same
seed begin with the same weights and see the same batches. The weights of the chosen experts are divided by their sum
in both. It goes on where it was stopped: all of it takes two or three minutes.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import balance
from balance import EVERY, EXPERTS, STEPS, MoE, bytes_of
from torch import Tensor
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS

SEEDS = (0, 1, 2, 3, 4)


class SigmoidMoE(MoE):
    """An expert's score does not depend on the other experts' logits."""

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


VARIANTS = {"softmax": MoE, "sigmoid": SigmoidMoE}


def train_each(output: Path, name: str, seeds: Sequence[int], variants: Mapping[str, Callable[[], MoE]]) -> None:
    """Train each variant from each seed, and write what comes of it to `output`, where what stands there is kept.

    name: what is printed before a variant's own.
    """
    tokens, held_out = bytes_of(TRAINING_NOVELS), bytes_of([HELD_OUT_NOVEL])
    kept: dict[str, Any] = {"steps": list(range(0, STEPS + 1, EVERY)), "experts": EXPERTS, "runs": {}}
    if output.is_file():
        kept = json.loads(output.read_text(encoding="utf-8"))
    for seed, (variant, make) in product(seeds, variants.items()):
        runs = kept["runs"].setdefault(variant, [])
        if len(runs) > seed:
            continue
        made = balance.run("a loss for unequal load", tokens, held_out, seed, make)
        runs.append({"held_out_nats": made["held_out_nats"], "shares": made["shares"][-1]})
        last = balance.idle(made["shares"][-1])
        print(f"{name}{variant}, seed {seed}: {made['held_out_nats'][-1]:.3f} nats, {last} idle experts", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "07-moe" / "texts" / "routers.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args(arguments).output
    train_each(output, "", SEEDS, VARIANTS)


if __name__ == "__main__":
    main()
