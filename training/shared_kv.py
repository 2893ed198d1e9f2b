"""Train small models whose layers share keys and values, or use keys as values, and write their losses, for lesson 11.

    python training/shared_kv.py [--output solutions/11-new-models/texts/shared-kv.json]

The models read bytes: five of Austen's novels, four layers of width 64 with four query heads of 16 each. They differ in
nothing but where keys and values come from:

- own: two heads of keys and values in every layer.
- one head: one head of keys and values in every layer. It caches half as much.
- two of four layers share: the last two layers have no keys and values of their own and read those of the second, as
  the last layers of Gemma 4 E2B and E4B do. It caches half as much, too.
- k = v: one projection. The key is normed and rotated, the value is normed, as in the full layers of Gemma 4 31B.
- both: the last two of these.

Each is trained from five seeds; a seed draws the same batches for every model. A run that the output has already is not
made again, and one that was stopped is made anew. All of it takes about five minutes on a core of its own.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, read_novel

DIM, LAYERS, HEADS, HEAD_DIM, HIDDEN = 64, 4, 4, 16, 160
STEPS, BATCH, CONTEXT, PEAK, WARMUP, SEEDS = 300, 8, 64, 5e-3, 30, (0, 1, 2, 3, 4)
MEASURED = 400  # how many texts of CONTEXT bytes a loss is measured on
VARIANTS: dict[str, dict[str, Any]] = {  # heads of keys and values, layers at the end that have none, keys as values
    "own": {"kv_heads": 2, "shared": 0, "k_eq_v": False},
    "one head": {"kv_heads": 1, "shared": 0, "k_eq_v": False},
    "two of four layers share": {"kv_heads": 2, "shared": 2, "k_eq_v": False},
    "k = v": {"kv_heads": 2, "shared": 0, "k_eq_v": True},
    "both": {"kv_heads": 2, "shared": 2, "k_eq_v": True},
}


def rotations(length: int) -> Tensor:
    """RoPE's cosines and sines for positions from 0 on: [2, length, HEAD_DIM / 2]."""
    frequencies = 1e4 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """x: [B, H, T, HEAD_DIM], table: [2, T, HEAD_DIM / 2] -> [B, H, T, HEAD_DIM]."""
    (a, b), (cos, sin) = x.chunk(2, dim=-1), table
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    """Grouped attention whose keys and values may come from an earlier layer.

    x: [B, T, DIM], kv: an earlier layer's keys and values, 2 x [B, KV, T, HEAD_DIM], or None -> [B, T, DIM], and the
    keys and values that were read.
    """

    def __init__(self, kv_heads: int, has_own: bool, k_eq_v: bool) -> None:
        super().__init__()
        self.kv_heads = kv_heads
        self.q, self.o = nn.Linear(DIM, HEADS * HEAD_DIM, bias=False), nn.Linear(HEADS * HEAD_DIM, DIM, bias=False)
        self.q_norm = nn.RMSNorm(HEAD_DIM, eps=1e-6)
        if has_own:
            self.k = nn.Linear(DIM, kv_heads * HEAD_DIM, bias=False)
            self.v = None if k_eq_v else nn.Linear(DIM, kv_heads * HEAD_DIM, bias=False)
            self.k_norm, self.v_norm = nn.RMSNorm(HEAD_DIM, eps=1e-6), nn.RMSNorm(HEAD_DIM, eps=1e-6)
            self.v_norm.weight.requires_grad = False  # the norm of values has no weights

    def heads(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, HEAD_DIM)).transpose(1, 2)

    def forward(
        self, x: Tensor, table: Tensor, kv: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q = rotated(self.q_norm(self.heads(self.q(x), HEADS)), table)
        if kv is None:
            k = self.heads(self.k(x), self.kv_heads)
            v = k if self.v is None else self.heads(self.v(x), self.kv_heads)
            kv = rotated(self.k_norm(k), table), self.v_norm(v)
        k, v = (each.repeat_interleave(HEADS // self.kv_heads, dim=1) for each in kv)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return output, kv


class Tiny(nn.Module):
    """A model of bytes: ids [B, T] -> [B, T, 256]."""

    def __init__(self, kv_heads: int, shared: int, k_eq_v: bool) -> None:
        super().__init__()
        self.owners = LAYERS - shared  # how many layers have keys and values of their own
        self.bytes = nn.Embedding(256, DIM)
        nn.init.normal_(self.bytes.weight, std=0.02)
        self.attentions = nn.ModuleList(Attention(kv_heads, i < self.owners, k_eq_v) for i in range(LAYERS))
        self.gates = nn.ModuleList(nn.Linear(DIM, 2 * HIDDEN, bias=False) for _ in range(LAYERS))
        self.downs = nn.ModuleList(nn.Linear(HIDDEN, DIM, bias=False) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.RMSNorm(DIM, eps=1e-6) for _ in range(2 * LAYERS + 1))

    def forward(self, ids: Tensor) -> Tensor:
        x, table = self.bytes(ids), rotations(ids.shape[1])
        given: tuple[Tensor, Tensor] | None = None
        for i, attention in enumerate(self.attentions):
            update, kv = attention(self.norms[2 * i](x), table, given if i >= self.owners else None)
            given = kv
            x = x + update
            gate, up = self.gates[i](self.norms[2 * i + 1](x)).chunk(2, dim=-1)
            x = x + self.downs[i](F.silu(gate) * up)
        return F.linear(self.norms[-1](x), self.bytes.weight)


def read_bytes(names: tuple[str, ...]) -> Tensor:
    return torch.tensor(list("\n\n".join(read_novel(name) for name in names).encode()))


def batch_of(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` pieces of CONTEXT + 1 bytes: [count, CONTEXT + 1]."""
    starts = torch.randint(len(text) - CONTEXT - 1, (count,), generator=generator)
    return torch.stack([text[start : start + CONTEXT + 1] for start in starts])


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def held_out(model: nn.Module, text: Tensor) -> float:
    """Nats a byte on pieces of a novel that no training has seen, the same for every model."""
    batch = batch_of(text, MEASURED, torch.Generator().manual_seed(1_000_000))
    return round(sum(float(loss_of(model, part)) * len(part) for part in batch.split(50)) / MEASURED, 4)


def kept(variant: str) -> int:
    """How many numbers the layers cache of a byte: keys and values, which differ where they have one projection."""
    made = VARIANTS[variant]
    return int((LAYERS - made["shared"]) * 2 * made["kv_heads"] * HEAD_DIM)


def rate(step: int) -> float:
    """The share of the peak: linear up, then a cosine down to a tenth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def run(variant: str, seed: int, text: Tensor, other: Tensor) -> dict[str, Any]:
    """Train one model and measure it on the other text."""
    torch.manual_seed(seed)
    model, drawn, began = Tiny(**VARIANTS[variant]), torch.Generator().manual_seed(seed), time.monotonic()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for _ in track(range(STEPS), "steps"):
        loss = loss_of(model, batch_of(text, BATCH, drawn))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
    return {
        "variant": variant,
        "seed": seed,
        "nats_per_byte": held_out(model, other),
        "kept": kept(variant),
        "parameters": sum(p.numel() for p in learned),
        "seconds": round(time.monotonic() - began, 1),
    }


def config() -> dict[str, Any]:
    """All that a run depends on but its variant and seed."""
    sizes = {"width": DIM, "layers": LAYERS, "heads": HEADS, "head_dim": HEAD_DIM, "mlp": HIDDEN}
    steps = {"steps": STEPS, "batch_size": BATCH, "context": CONTEXT, "learning_rate": PEAK, "warmup_steps": WARMUP}
    return sizes | steps | {"texts_measured": MEASURED}


def found_in(output: Path) -> list[dict[str, Any]]:
    """The runs that the file holds; none if it was made otherwise than it would be now."""
    if not output.exists():
        return []
    content = json.loads(output.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = content["runs"] if content["config"] == config() else []
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "11-new-models" / "texts" / "shared-kv.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    text, other = read_bytes(TRAINING_NOVELS), read_bytes((HELD_OUT_NOVEL,))
    runs = found_in(output)
    have = {(each["variant"], each["seed"]) for each in runs}
    for seed in SEEDS:
        for variant in VARIANTS:
            if (variant, seed) in have:
                continue
            runs.append(run(variant, seed, text, other))
            last = runs[-1]
            print(f"{variant}, seed {seed}: {last['nats_per_byte']} nats a byte, {last['seconds']} s", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps({"config": config(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
