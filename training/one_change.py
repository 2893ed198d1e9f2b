"""Train tiny GPT-2s that differ in one part, and write their curves for lesson 03.

    python training/one_change.py [--output solutions/03-qwen3/texts/one-change.json]

Four variants: GPT-2 as it is, and GPT-2 with one of RMSNorm, RoPE, SwiGLU in place of its own part. Each is trained
from five seeds on five of Austen's novels; variants with the same seed see the same batches. The loss is measured on
the same pieces of the sixth novel. Everything else is equal: width 96, two layers, four heads, 600 steps of 8 pieces
of 128 tokens, AdamW, 420,480 to 433,024 parameters.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, encode, read_novel

from grader import load_checkpoint

DIM, LAYERS, HEADS, CONTEXT, BATCH, STEPS, EVERY, SEEDS = 96, 2, 4, 128, 8, 600, 50, (0, 1, 2, 3, 4)
PEAK, WARMUP = 3e-3, 50
GPT2 = {"norm": "layer", "positions": "learned", "mlp": "gelu"}
VARIANTS = {
    "GPT-2's parts": GPT2,
    "RMSNorm": GPT2 | {"norm": "rms"},
    "RoPE": GPT2 | {"positions": "rope"},
    "SwiGLU": GPT2 | {"mlp": "swiglu"},
}


class Attention(nn.Module):
    """Causal attention, with RoPE where `rope` is true: [B, T, DIM] -> [B, T, DIM]."""

    def __init__(self, rope: bool) -> None:
        super().__init__()
        self.rope = rope
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, T, head_dim]
        if self.rope:
            q, k = rotated(q), rotated(k)
        mixed: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


def rotated(x: Tensor, theta: float = 10_000.0) -> Tensor:
    """Each pair of channels (i, i + d / 2) rotated by its position times theta^(-2 i / d): [B, H, T, d]."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[2])[:, None] * theta ** (-torch.arange(half) / half)  # [T, d / 2]
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


class MLP(nn.Module):
    """GPT-2's MLP, or a gated one of the same size: [B, T, DIM] -> [B, T, DIM]."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        inner = 8 * DIM // 3 if gated else 4 * DIM
        self.gate = nn.Linear(DIM, inner) if gated else None
        self.up, self.down = nn.Linear(DIM, inner), nn.Linear(inner, DIM)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.up(x), approximate="tanh") if self.gate is None else F.silu(self.gate(x)) * self.up(x)
        projected: Tensor = self.down(inner)
        return projected


class Tiny(nn.Module):
    """A GPT-2 with the parts that `norm`, `positions` and `mlp` name: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, vocab_size: int, norm: str, positions: str, mlp: str) -> None:
        super().__init__()
        make = nn.RMSNorm if norm == "rms" else nn.LayerNorm
        self.tokens = nn.Embedding(vocab_size, DIM)
        self.places = nn.Embedding(CONTEXT, DIM) if positions == "learned" else None
        self.attention = nn.ModuleList(Attention(positions == "rope") for _ in range(LAYERS))
        self.mlp = nn.ModuleList(MLP(mlp == "swiglu") for _ in range(LAYERS))
        self.norms = nn.ModuleList(make(DIM, eps=1e-5) for _ in range(2 * LAYERS + 1))
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        if self.places is not None:
            x = x + self.places.weight[: ids.shape[1]]
        for layer in range(LAYERS):
            x = x + self.attention[layer](self.norms[2 * layer](x))
            x = x + self.mlp[layer](self.norms[2 * layer + 1](x))
        return F.linear(self.norms[-1](x), self.tokens.weight)


def pieces(tokens: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random pieces of the text, and the token that comes after each of their tokens: 2 x [count, CONTEXT]."""
    starts = torch.randint(len(tokens) - CONTEXT - 1, (count, 1), generator=generator)
    rows = tokens[starts + torch.arange(CONTEXT + 1)]
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def loss_on(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """The mean loss over a batch, in nats a token."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten()).item()


def curve(
    model: nn.Module,
    tokens: Tensor,
    held_out: Tensor,
    seed: int,
    steps: int = STEPS,
    also: Callable[[], Tensor | float] = lambda: 0.0,
) -> list[float]:
    """Train the model; its loss on the same held-out pieces before the first step and after every EVERY steps.

    also: what is added to the loss of each step, after the model has run.
    """
    test = pieces(held_out, 32, torch.Generator().manual_seed(1_000))
    batches = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=WARMUP / steps)
    losses = [loss_on(model, test)]
    for step in track(range(1, steps + 1), "steps"):
        inputs, targets = pieces(tokens, BATCH, batches)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) + also()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % EVERY == 0:
            losses.append(round(loss_on(model, test), 4))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "03-qwen3" / "texts" / "one-change.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    tokenizer = load_checkpoint("austen-gpt2").tokenizer
    tokens = encode(tokenizer, [read_novel(name) for name in TRAINING_NOVELS])
    held_out = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])
    curves: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        for name, parts in VARIANTS.items():
            torch.manual_seed(seed)
            model = Tiny(tokenizer.get_vocab_size(), **parts)
            curves.setdefault(name, []).append(curve(model, tokens, held_out, seed))
            size = sum(p.numel() for p in model.parameters())
            print(f"{name}, seed {seed}: {size:,} parameters, {curves[name][-1][-1]:.3f} nats", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            steps = list(range(0, STEPS + 1, EVERY))
            output.write_text(json.dumps({"steps": steps, "held_out_nats": curves}, indent=1) + "\n")


if __name__ == "__main__":
    main()
