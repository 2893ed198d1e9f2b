"""Train tiny GPT-2s whose MLP is one, two, four or eight times as wide as the stream, and write them for lesson 01.

    python training/mlp_width.py [--output solutions/01-gpt2/texts/mlp-width.json]

The models are of lesson 01's own class. A wider MLP takes parameters that could make the stream wider, and so attention
too. So all four have the same number of parameters, to within three in a hundred: the wider the MLP, the narrower the
stream. A matrix costs one multiply-add a token for each of its weights, so their work is nearly the same, too. Each is
trained from three seeds, as in `one_change.py`, which has the loop; models with the same seed see the same batches. A
token is a byte of the text, as in `balance.py`, so that the blocks and not the embedding have most of the parameters.
It goes on where it was stopped: all of it takes two or three minutes on one core.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import one_change
import torch
from balance import VOCABULARY, bytes_of
from one_change import CONTEXT, EVERY
from torch import nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS

from grader import Config
from grader.authoring.kit.solved import lesson_of

LAYERS, HEADS, STEPS, SEEDS = 2, 2, 300, (0, 1, 2)
WIDTHS = {1: 64, 2: 56, 4: 48, 8: 38}  # the MLP's factor, and the width of the stream that it leaves
PIECES = 256  # of the held-out novel, for the loss at the end
GPT2: type[nn.Module] = lesson_of(str(HERE.parent / "solutions" / "01-gpt2" / "others.py")).solutions["GPT2"]


def config_of(factor: int) -> Config:
    """The config of the model whose MLP is `factor` times as wide as its stream."""
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTHS[factor], "n_inner": factor * WIDTHS[factor]}
    fields = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "layer_norm_epsilon": 1e-5}
    return Config({"model_type": "gpt2", "activation_function": "gelu_new"} | sizes | fields)


def model_of(factor: int) -> nn.Module:
    """That model with random weights, as small as GPT-2's were."""
    model = GPT2(config_of(factor))
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.02)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "01-gpt2" / "texts" / "mlp-width.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args(arguments).output

    tokens, held_out = bytes_of(TRAINING_NOVELS), bytes_of([HELD_OUT_NOVEL])
    test = one_change.pieces(held_out, PIECES, torch.Generator().manual_seed(2_000))
    kept: dict[str, Any] = {"steps": list(range(0, STEPS + 1, EVERY)), "models": {}}
    if output.is_file():
        kept = json.loads(output.read_text())
    for seed, factor in product(SEEDS, WIDTHS):
        about = kept["models"].setdefault(str(factor), {"width": WIDTHS[factor], "curves": [], "held_out_nats": []})
        if len(about["curves"]) > seed:
            continue
        torch.manual_seed(seed)
        model = model_of(factor)
        about["parameters"] = sum(p.numel() for p in model.parameters())
        about["curves"].append(one_change.curve(model, tokens, held_out, seed, STEPS))
        about["held_out_nats"].append(round(one_change.loss_on(model, test), 4))
        print(f"{factor} times, seed {seed}: {about['held_out_nats'][-1]:.3f} nats", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
