"""Train tiny mixtures of experts whose weights are multiplied by 1 and by 2.5, and write their curves for lesson 07.

    python training/routed_factor.py [--output solutions/07-moe/texts/routed-factor.json]

Two variants of the model in `balance.py`, which has the sizes and the loop, both in DeepSeek-V3's form but for the loss
for unequal load: scores by a sigmoid; the weights of the chosen experts divided by their sum, and multiplied by 1 or by
2.5; and beside them a shared expert, whose output is added as it is. Each is trained from three seeds; variants with
the same seed begin with the same weights and see the same batches. It goes on where it was stopped: all of it takes a
minute or two.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import routers
import torch
import torch.nn.functional as F
from balance import DIM, WIDTH
from routers import SigmoidMoE
from torch import Tensor, nn
from train import HERE

SEEDS, FACTORS = (0, 1, 2), (1.0, 2.5)


class SharedMoE(SigmoidMoE):
    """The sum of the routed experts times a factor, and an expert that works on every token."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.shared_gate_up = nn.Parameter(torch.randn(2 * WIDTH, DIM) * 0.02)
        self.shared_down = nn.Parameter(torch.randn(DIM, WIDTH) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (x @ self.shared_gate_up.T).chunk(2, dim=-1)
        return self.factor * super().forward(x) + (F.silu(gate) * up) @ self.shared_down.T


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "07-moe" / "texts" / "routed-factor.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args(arguments).output
    variants = {f"{factor:g}": partial(SharedMoE, factor) for factor in FACTORS}
    routers.train_each(output, "times ", SEEDS, variants)


if __name__ == "__main__":
    main()
