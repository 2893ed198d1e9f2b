"""Train a mixture of experts beside dense models, and write their curves for lesson 07.

    python training/mixture.py [--output solutions/07-moe/texts/mixture.json]

Three variants of a tiny model with RMSNorm and RoPE, which differ in what stands in an MLP's place: a gated MLP of
width WIDTH x CHOSEN; 8 experts of width WIDTH of which a token gets 2; and a gated MLP as wide as all experts
together. So the first two do the same multiply-adds for a token, but for the router's, and the last two have as
many parameters, where the last does four times the work. Each is trained from five seeds, as in `one_change.py`,
which has the loop; variants with the same seed see the same batches. A token is a byte of the text, as in
`balance.py`, so that the MLPs and not the embedding have most of the parameters; and it takes 2,000 steps, since an
expert sees a quarter of the tokens. It goes on where it was stopped: in half an hour on one core all of it is done.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import one_change
import torch
import torch.nn.functional as F
from balance import VOCABULARY, bytes_of
from one_change import DIM, EVERY, LAYERS
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS

EXPERTS, CHOSEN, WIDTH, STEPS, SEEDS, LOSS_WEIGHT = 8, 2, 96, 2000, (0, 1, 2, 3, 4), 0.01
VARIANTS = ("dense", "mixture", "dense, all parameters")


class GatedMLP(nn.Module):
    """A gated MLP of that inner width: [..., DIM] -> [..., DIM]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_up, self.down = nn.Linear(DIM, 2 * width, bias=False), nn.Linear(width, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        projected: Tensor = self.down(F.silu(gate) * up)
        return projected


class Mixture(nn.Module):
    """EXPERTS gated MLPs of which a router chooses CHOSEN for each token: [B, T, DIM] -> [B, T, DIM]."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(DIM, EXPERTS, bias=False)
        self.experts = nn.ModuleList(GatedMLP(WIDTH) for _ in range(EXPERTS))
        self.unequal = torch.zeros(())  # Switch Transformer's loss for unequal load, in the last call

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        scores = self.router(rows).softmax(dim=-1)  # [N, EXPERTS]
        weights, chosen = scores.topk(CHOSEN, dim=-1)  # 2 x [N, CHOSEN]
        weights = weights / weights.sum(dim=-1, keepdim=True)
        share = chosen.flatten().bincount(minlength=EXPERTS) / len(rows)
        self.unequal = EXPERTS * (share * scores.mean(dim=0)).sum()
        result = torch.zeros_like(rows)
        for e, expert in enumerate(self.experts):
            token, place = (chosen == e).nonzero(as_tuple=True)
            result = result.index_add(0, token, expert(rows[token]) * weights[token, place, None])
        return result.view_as(x)


class Tiny(one_change.Tiny):
    """The tiny model of `one_change.py` with RMSNorm and RoPE, and its MLPs as the variant has them."""

    def __init__(self, vocab_size: int, variant: str) -> None:
        super().__init__(vocab_size, norm="rms", positions="rope", mlp="swiglu")
        widths = {"dense": CHOSEN * WIDTH, "dense, all parameters": EXPERTS * WIDTH}
        self.mlp = nn.ModuleList(GatedMLP(widths[variant]) if variant in widths else Mixture() for _ in range(LAYERS))
        for weight in self.mlp.parameters():
            nn.init.normal_(weight, std=0.02)

    def unequal_load(self) -> Tensor | float:
        """The loss for unequal load, with its weight: 0 where nothing is chosen."""
        return LOSS_WEIGHT * sum(mlp.unequal for mlp in self.mlp if isinstance(mlp, Mixture))


def parameters_and_work(model: Tiny) -> dict[str, int]:
    """The parameters of all MLPs and routers, and the multiply-adds of a token in them."""
    total = active = 0
    for mlp in model.mlp:
        size = used = sum(p.numel() for p in mlp.parameters())
        if isinstance(mlp, Mixture):
            used -= sum(p.numel() for p in mlp.experts.parameters()) * (EXPERTS - CHOSEN) // EXPERTS
        total, active = total + size, active + used
    return {"parameters": total, "multiply_adds": active}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "07-moe" / "texts" / "mixture.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args(arguments).output

    tokens, held_out = bytes_of(TRAINING_NOVELS), bytes_of([HELD_OUT_NOVEL])
    kept: dict[str, Any] = {"steps": list(range(0, STEPS + 1, EVERY)), "mlps": {}, "held_out_nats": {}}
    if output.is_file():
        kept = json.loads(output.read_text())
    for seed, variant in product(SEEDS, VARIANTS):
        curves = kept["held_out_nats"].setdefault(variant, [])
        if len(curves) > seed:
            continue
        torch.manual_seed(seed)
        model = Tiny(VOCABULARY, variant)
        kept["mlps"][variant] = parameters_and_work(model)
        curves.append(one_change.curve(model, tokens, held_out, seed, STEPS, model.unequal_load))
        print(f"{variant}, seed {seed}: {kept['mlps'][variant]}, {curves[-1][-1]:.3f} nats", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
