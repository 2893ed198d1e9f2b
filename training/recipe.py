"""Train tiny models with one part of the recipe left out, and write their curves for lesson 12.

    python training/recipe.py [--output solutions/12-training/texts/recipe.json]

The model is that of one_change.py with RMSNorm, RoPE and a gated MLP: width 96, two layers, 433,024 parameters. The
recipe: AdamW with betas 0.9 and 0.95 and a decay of 0.1 on matrices, a peak rate of 0.01, 30 updates of warm-up, a
cosine down to a tenth, and clipping at a norm of 1. Each of the other variants leaves out one part. Each is trained
from three seeds on 300 batches of 4 pieces of 128 tokens of five novels; variants with the same seed see the same
batches. The loss is measured on the same pieces of the sixth novel. It goes on where it was stopped.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from one_change import Tiny, loss_on, pieces
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, encode, read_novel

from grader import load_checkpoint

STEPS, EVERY, BATCH, SEEDS = 300, 30, 4, (0, 1, 2)
PEAK, WARMUP, FLOOR, DECAY, CLIP = 1e-2, 30, 0.1, 0.1, 1.0
VARIANTS: dict[str, dict[str, Any]] = {
    "the whole recipe": {},
    "no warm-up": {"warmup": 0},
    "no clipping": {"clip": math.inf},
    "no decay": {"decay": 0.0},
    "L2 in the gradient in place of decay": {"l2": DECAY, "decay": 0.0},
    "no bias correction": {"corrected": False},
    "no cosine: the rate stays": {"floor": 1.0},
}


def rate(update: int, warmup: int, floor: float) -> float:
    """The learning rate of update 1, 2, ..., STEPS."""
    if update < warmup:
        return PEAK * update / warmup
    done = (update - warmup) / (STEPS - warmup)
    return PEAK * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def update_weights(
    parameters: list[Tensor], state: list[tuple[Tensor, Tensor]], update: int, rate: float, how: dict[str, Any]
) -> None:
    """One step of AdamW, or of what `how` makes of it."""
    for p, (m, v) in zip(parameters, state, strict=True):
        assert p.grad is not None
        matrix = p.ndim > 1
        gradient = p.grad + how.get("l2", 0.0) * p if matrix else p.grad
        m.lerp_(gradient, 0.1)
        v.mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        first, second = (1 - 0.9**update, 1 - 0.95**update) if how.get("corrected", True) else (1.0, 1.0)
        if matrix:
            p.mul_(1 - rate * how.get("decay", DECAY))
        p.addcdiv_(m / first, (v / second).sqrt() + 1e-8, value=-rate)


def curve(tokens: Tensor, held_out: Tensor, vocab_size: int, seed: int, how: dict[str, Any]) -> dict[str, Any]:
    """Train one model: its loss on the held-out pieces every EVERY updates, and the largest norm of a gradient."""
    torch.manual_seed(seed)
    model = Tiny(vocab_size, norm="rms", positions="rope", mlp="swiglu")
    parameters: list[Tensor] = list(model.parameters())
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    test, batches = pieces(held_out, 32, torch.Generator().manual_seed(1_000)), torch.Generator().manual_seed(seed)
    losses, norms = [round(loss_on(model, test), 4)], []
    for update in range(1, STEPS + 1):
        inputs, targets = pieces(tokens, BATCH, batches)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(nn.utils.clip_grad_norm_(parameters, how.get("clip", CLIP))))
        update_weights(parameters, state, update, rate(update, how.get("warmup", WARMUP), how.get("floor", FLOOR)), how)
        if update % EVERY == 0:
            losses.append(round(loss_on(model, test), 4))
    return {"losses": losses, "clipped": sum(norm > CLIP for norm in norms)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "12-training" / "texts" / "recipe.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    tokenizer = load_checkpoint("austen-gpt2").tokenizer
    tokens = encode(tokenizer, [read_novel(name) for name in TRAINING_NOVELS])
    held_out = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])
    known = json.loads(output.read_text()) if output.exists() else {"steps": [], "held_out_nats": {}, "clipped": {}}
    known["steps"] = list(range(0, STEPS + 1, EVERY))
    for seed in SEEDS:
        for name, how in VARIANTS.items():
            curves, clipped = known["held_out_nats"].setdefault(name, []), known["clipped"].setdefault(name, [])
            if len(curves) > seed:
                continue
            found = curve(tokens, held_out, tokenizer.get_vocab_size(), seed, how)
            curves.append(found["losses"])
            clipped.append(found["clipped"])
            print(f"{name}, seed {seed}: {found['losses'][-1]:.3f} nats, {found['clipped']} clipped", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
