"""Train tiny mixtures of experts with and without balance, and write their curves for lesson 07.

    python training/balance.py [--output solutions/07-moe/texts/balance.json]

Three variants: no balance at all, Switch Transformer's loss for unequal load, and DeepSeek-V3's bias that only the choice
sees and that is moved by the load after every step. Each is trained from three seeds on five of Austen's novels; variants
with the same seed see the same batches. Everything else is equal: width 64, two layers, 16 experts of width 32 of which a
token gets 2, 500 steps of 8 pieces of 128 tokens, AdamW. What is kept: the loss on held-out pieces of the sixth novel,
and each expert's share of the choices there, in both layers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import one_change
import torch
import torch.nn.functional as F
from one_change import PEAK, WARMUP, pieces
from rich.progress import track
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, encode, read_novel

from grader import load_checkpoint

DIM, LAYERS, HEADS, BATCH, STEPS, EVERY, SEEDS = 64, 2, 4, 8, 500, 50, (0, 1, 2)
EXPERTS, CHOSEN, WIDTH = 16, 2, 32
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
    """A softmax router and its experts, all of which are computed: with so few, that is fastest. [N, DIM] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(EXPERTS, DIM) * 0.02)
        self.gate_up = nn.Parameter(torch.randn(EXPERTS, 2 * WIDTH, DIM) * 0.02)
        self.down = nn.Parameter(torch.randn(EXPERTS, DIM, WIDTH) * 0.02)
        self.bias = nn.Buffer(torch.zeros(EXPERTS))
        self.share = nn.Buffer(torch.zeros(EXPERTS))  # of the choices in the last call
        self.unequal = torch.zeros(())  # the loss for unequal load in the last call

    def forward(self, x: Tensor) -> Tensor:
        scores = (x @ self.router.T).softmax(dim=-1)  # [N, E]
        chosen = (scores + self.bias).topk(CHOSEN, dim=-1).indices
        weights = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        self.share = torch.bincount(chosen.flatten(), minlength=EXPERTS) / chosen.numel()
        self.unequal = EXPERTS * (self.share * scores.mean(dim=0)).sum()
        gate, up = torch.einsum("nd,eid->eni", x, self.gate_up).chunk(2, dim=-1)  # [E, N, WIDTH]
        return torch.einsum("eni,edi,ne->nd", F.silu(gate) * up, self.down, weights)

    def move_bias(self) -> None:
        """One step up for experts with less than their share, one down for those with more."""
        self.bias += BIAS_STEP * (1 / EXPERTS - self.share).sign()


class Tiny(nn.Module):
    """A small mixture of experts: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, DIM)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.attention = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.moe = nn.ModuleList(MoE() for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.RMSNorm(DIM, eps=1e-6) for _ in range(2 * LAYERS + 1))

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
    return round(loss, 4), [[round(share, 4) for share in moe.share.tolist()] for moe in model.moe]  # type: ignore[operator, union-attr]


def run(variant: str, tokens: Tensor, held_out: Tensor, vocab_size: int, seed: int) -> dict[str, Any]:
    """Train one model; its losses and shares before the first step and after every EVERY steps."""
    torch.manual_seed(seed)
    model, batches = Tiny(vocab_size), torch.Generator().manual_seed(seed)
    test = pieces(held_out, 32, torch.Generator().manual_seed(1_000))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=STEPS, pct_start=WARMUP / STEPS)
    found = [measured(model, test)]
    for step in track(range(1, STEPS + 1), "steps"):
        inputs, targets = pieces(tokens, BATCH, batches)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        if variant == VARIANTS[1]:
            loss = loss + LOSS_WEIGHT * torch.stack([moe.unequal for moe in model.moe]).sum()  # type: ignore[union-attr]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if variant == VARIANTS[2]:
            for moe in model.moe:
                moe.move_bias()  # type: ignore[operator]
        if step % EVERY == 0:
            found.append(measured(model, test))
    return {"held_out_nats": [loss for loss, _ in found], "shares": [shares for _, shares in found]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "07-moe" / "texts" / "balance.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    tokenizer = load_checkpoint("austen-gpt2").tokenizer
    tokens = encode(tokenizer, [read_novel(name) for name in TRAINING_NOVELS])
    held_out = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for variant in VARIANTS:
            made = run(variant, tokens, held_out, tokenizer.get_vocab_size(), seed)
            runs.setdefault(variant, []).append(made)
            last = made["shares"][-1]
            idle = sum(share < 0.1 / EXPERTS for layer in last for share in layer)
            print(f"{variant}, seed {seed}: {made['held_out_nats'][-1]:.3f} nats, {idle} experts all but idle", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            steps = list(range(0, STEPS + 1, EVERY))
            output.write_text(json.dumps({"steps": steps, "experts": EXPERTS, "runs": runs}) + "\n")


if __name__ == "__main__":
    main()
