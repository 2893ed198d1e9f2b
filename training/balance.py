"""Train tiny mixtures of experts with and without balance, and write their curves for lesson 07: JSON and a picture.

    python training/balance.py [--lesson solutions/07-moe]

Three variants: no balance at all, Switch Transformer's loss for unequal load, and DeepSeek-V3's bias, which only the
choice sees and which is moved by the load after every step. Each is trained from three seeds on five of Austen's
novels; variants with the same seed see the same batches. Everything else is equal: a token is a byte of the text,
width 48, two layers, 16 experts of width 24 of which a token gets 2, 300 steps of 4 pieces of 128 tokens, AdamW. What
is kept: the loss on held-out pieces of the sixth novel, and each expert's share of the choices there, in both layers.
All of it takes a minute or two.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import one_change
import torch
import torch.nn.functional as F
from one_change import PEAK, WARMUP, pieces
from rich.progress import track
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, read_novel

from grader.instruments import plots

DIM, LAYERS, HEADS, BATCH, STEPS, EVERY, SEEDS = 48, 2, 4, 4, 300, 30, (0, 1, 2)
VOCABULARY, EXPERTS, CHOSEN, WIDTH = 256, 16, 2, 24
LOSS_WEIGHT, BIAS_STEP = 0.01, 0.01
VARIANTS = ("no balance", "a loss for unequal load", "a bias moved by load")


class Attention(nn.Module):
    """Causal attention with RoPE: [B, T, DIM] -> [B, T, DIM]."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, T, head_dim]
        q, k = one_change.rotated(q), one_change.rotated(k)
        mixed: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class MoE(nn.Module):
    """A softmax router and its experts, of which all are computed: [N, DIM] -> [N, DIM]."""

    bias: Tensor
    share: Tensor  # of the choices in the last call

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(EXPERTS, DIM) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(EXPERTS, 2 * WIDTH, DIM) * 0.02)
        self.down = nn.Parameter(torch.randn(EXPERTS, DIM, WIDTH) * 0.02)
        self.register_buffer("bias", torch.zeros(EXPERTS))
        self.register_buffer("share", torch.zeros(EXPERTS))
        self.unequal = torch.zeros(())  # the loss for unequal load in the last call

    def scores(self, logits: Tensor) -> Tensor:
        """How well each expert suits a token, before any bias: [N, E] -> [N, E]."""
        return logits.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x @ self.router.T)  # [N, E]
        chosen = (scores + self.bias).topk(CHOSEN, dim=-1).indices
        weights = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        self.share = torch.bincount(chosen.flatten(), minlength=EXPERTS) / chosen.numel()
        probabilities = scores / scores.sum(dim=-1, keepdim=True)  # a softmax's sum is 1
        self.unequal = EXPERTS * (self.share * probabilities.mean(dim=0)).sum()
        gate, up = torch.einsum("nd,eid->eni", x, self.gate_up).chunk(2, dim=-1)  # [E, N, WIDTH]
        return torch.einsum("eni,edi,ne->nd", F.silu(gate) * up, self.down, weights)

    def move_bias(self) -> None:
        """One step up for experts with less than their share, one down for those with more."""
        self.bias += BIAS_STEP * (1 / EXPERTS - self.share).sign()


class Tiny(nn.Module):
    """A small mixture of experts: ids [B, T] -> logits [B, T, VOCABULARY]."""

    def __init__(self, make: Callable[[], MoE] = MoE) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, DIM)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.attention = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.moe = nn.ModuleList(make() for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.RMSNorm(DIM, eps=1e-6) for _ in range(2 * LAYERS + 1))

    @property
    def mixtures(self) -> list[MoE]:
        """The MoE of each layer."""
        return [moe for moe in self.moe if isinstance(moe, MoE)]

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for layer in range(LAYERS):
            x = x + self.attention[layer](self.norms[2 * layer](x))
            x = x + self.moe[layer](self.norms[2 * layer + 1](x).flatten(0, 1)).view_as(x)
        return F.linear(self.norms[-1](x), self.tokens.weight)


@torch.no_grad()
def measured(model: Tiny, batch: tuple[Tensor, Tensor]) -> tuple[float, list[list[float]]]:
    """The loss on a batch in nats a token, and each expert's share of the choices, by layer."""
    loss = F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()).item()
    return round(loss, 4), [[round(share, 4) for share in moe.share.tolist()] for moe in model.mixtures]


def run(variant: str, tokens: Tensor, held_out: Tensor, seed: int, make: Callable[[], MoE] = MoE) -> dict[str, Any]:
    """Train one model with that balance; its losses and shares before the first step and after every EVERY steps."""
    torch.manual_seed(seed)
    model, batches = Tiny(make), torch.Generator().manual_seed(seed)
    test = pieces(held_out, 16, torch.Generator().manual_seed(1_000))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=STEPS, pct_start=WARMUP / STEPS)
    found = [measured(model, test)]
    for step in track(range(1, STEPS + 1), "steps"):
        inputs, targets = pieces(tokens, BATCH, batches)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        if variant == VARIANTS[1]:
            loss = loss + LOSS_WEIGHT * torch.stack([moe.unequal for moe in model.mixtures]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if variant == VARIANTS[2]:
            for moe in model.mixtures:
                moe.move_bias()
        if step % EVERY == 0:
            found.append(measured(model, test))
    return {"held_out_nats": [loss for loss, _ in found], "shares": [shares for _, shares in found]}


def idle(shares: list[list[float]]) -> int:
    """How many experts get less than a tenth of an equal share, in all layers together."""
    return sum(share < 0.1 / EXPERTS for layer in shares for share in layer)


def picture(steps: list[int], runs: dict[str, list[dict[str, Any]]]) -> str:
    """The number of idle experts, the mean of the seeds, as SVG."""
    curves = {
        variant: (steps, [sum(idle(run["shares"][i]) for run in made) / len(made) for i in range(len(steps))])
        for variant, made in runs.items()
    }
    return plots.lines(curves, plots.Axes("step", f"idle experts, of {LAYERS * EXPERTS}", ylim=(-1, None))).svg()


def bytes_of(novels: Sequence[str]) -> Tensor:
    """The novels' bytes in a row: [N] int64, each below VOCABULARY."""
    text = "\n\n".join(read_novel(name) for name in novels).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesson", type=Path, default=HERE.parent / "solutions" / "07-moe")
    folder = parser.parse_args().lesson

    tokens, held_out = bytes_of(TRAINING_NOVELS), bytes_of([HELD_OUT_NOVEL])
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for variant in VARIANTS:
            made = run(variant, tokens, held_out, seed)
            runs.setdefault(variant, []).append(made)
            last = idle(made["shares"][-1])
            print(f"{variant}, seed {seed}: {made['held_out_nats'][-1]:.3f} nats, {last} idle experts", flush=True)
            steps = list(range(0, STEPS + 1, EVERY))
            content = json.dumps({"steps": steps, "experts": EXPERTS, "runs": runs})
            (folder / "texts" / "balance.json").write_text(content + "\n")
            (folder / "figures" / "balance.svg").write_text(picture(steps, runs))


if __name__ == "__main__":
    main()
