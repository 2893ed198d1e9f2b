"""Measure what selecting costs austen-deepseek, beside other choices of as many tokens.

    python training/choices.py training/austen-deepseek.toml [--seed N ...]

For each seed that training/deepseek.py was run with, before the sparse stage and after it: the loss on the novel that
was held out, with dense attention, with the tokens that the indexer selects, with the latest ones, with ones drawn at
random, and with those of an indexer that learnt nothing; the loss on a passage that is read twice; and how much of
dense attention falls on each choice, where `most` is the best that a choice of so many tokens could do. After the
sparse stage also the loss with fewer tokens than the model was trained with. All of it is written beside the recipe, as
NAME.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import selection
import torch
from deepseek import Stages, after_stage
from rich.progress import track
from torch import Tensor, nn
from train import HELD_OUT_NOVEL, HERE, TRAINING_NOVELS, build_model, encode, held_out_loss, read_novel, train_tokenizer

MEASURED = 32_768  # tokens, from the novel's beginning
FEWER = (4, 8, 16, 24)
STRIDE, RANDOM_SEED, PIECES = 256, 0, 32  # every token is scored with at least STRIDE tokens before it


def choices_for(untrained: Any) -> dict[str, Callable[[], selection.Choice]]:
    """Each choice by its name, made anew for each measurement. untrained: a model of the same form, as it was made."""
    indexers = [attention.indexer for attention in selection.attentions_of(untrained)]

    def unlearnt(seen: selection.Seen) -> Tensor:
        indexer = indexers[seen.indexer.layer_idx]
        return selection.own(selection.Seen(indexer, seen.hidden, seen.latent, seen.rope, seen.visible))

    return {
        "dense": lambda: selection.every,
        "indexer": lambda: selection.own,
        "latest": lambda: selection.latest,
        "random": lambda: selection.at_random(RANDOM_SEED),
        "untrained indexer": lambda: unlearnt,
    }


def losses_of(model: Any, choices: Mapping[str, Callable[[], selection.Choice]], tokens: Tensor) -> dict[str, float]:
    """The loss on `tokens` with each choice, in nats a token."""
    found = {}
    for name, make in choices.items():
        with selection.choosing(model, make()):
            found[name] = round(held_out_loss(model, tokens, model.config.max_position_embeddings, STRIDE), 4)
    return found


def losses_with_fewer(
    model: Any, choices: Mapping[str, Callable[[], selection.Choice]], tokens: Tensor
) -> dict[int, dict[str, float]]:
    """`losses_of` the choices but dense, by how many tokens are chosen: the numbers in FEWER."""
    indexers = [attention.indexer for attention in selection.attentions_of(model)]
    some = {name: make for name, make in choices.items() if name in ("indexer", "latest", "random")}
    trained_with, found = model.config.index_topk, {}
    for topk in FEWER:
        for indexer in indexers:
            indexer.index_topk = topk
        found[topk] = losses_of(model, some, tokens)
    for indexer in indexers:
        indexer.index_topk = trained_with
    return found


@torch.no_grad()
def readings(
    model: Any, choices: Mapping[str, Callable[[], selection.Choice]], tokens: Tensor
) -> dict[str, dict[str, float]]:
    """The loss on a passage when it is read and when it is read again, with each choice, in nats a token.

    Taken over PIECES pieces of `tokens` as long as the context: a quarter of each, which begins at an eighth, is
    written over what begins at five eighths. A passage's first eighth is not scored, since it has to be found first.
    """
    context = model.config.max_position_embeddings
    first, second, length = context // 8, 5 * context // 8, context // 4
    found: dict[str, dict[str, float]] = {}
    for name, make in choices.items():
        nats = []
        with selection.choosing(model, make()):
            for start in torch.linspace(0, len(tokens) - context - 1, PIECES).long().tolist():
                piece = tokens[start : start + context + 1].clone()
                piece[second : second + length] = piece[first : first + length].clone()
                logits = model(input_ids=piece[None, :-1]).logits[0]
                nats.append(nn.functional.cross_entropy(logits, piece[1:], reduction="none"))
        mean = torch.stack(nats).mean(dim=0)
        scored = {"read": first, "read again": second}
        found[name] = {
            when: round(mean[at + length // 8 - 1 : at + length - 1].mean().item(), 4) for when, at in scored.items()
        }
    return found


def dense_noting(seen: list[selection.Seen]) -> selection.Choice:
    """Dense attention that adds to `seen` what each layer's indexer is given."""

    def choice(given: selection.Seen) -> Tensor:
        seen.append(given)
        return selection.every(given)

    return choice


@torch.no_grad()
def attention_kept(
    model: Any, choices: Mapping[str, Callable[[], selection.Choice]], tokens: Tensor
) -> dict[str, list[float]]:
    """How much of dense attention, over all heads, falls on each choice: the mean for each layer.

    Taken over PIECES pieces of `tokens` as long as the context, for their tokens from STRIDE on.
    """
    context = model.config.max_position_embeddings
    picks = {name: make() for name, make in choices.items() if name != "dense"}
    shares: dict[str, list[Tensor]] = {}
    for start in torch.linspace(0, len(tokens) - context, PIECES).long().tolist():
        seen: list[selection.Seen] = []
        with selection.choosing(model, dense_noting(seen)):
            attentions = model(input_ids=tokens[None, start : start + context], output_attentions=True).attentions
        received = [selection.attention_to(attention) for attention in attentions]
        chosen = {name: [pick(given) for given in seen] for name, pick in picks.items()}
        chosen["most"] = [selection.best(to, given) for to, given in zip(received, seen, strict=True)]
        for name, layers in chosen.items():
            kept = [to.gather(-1, at).sum(dim=-1)[:, STRIDE:].mean() for to, at in zip(received, layers, strict=True)]
            shares.setdefault(name, []).append(torch.stack(kept))
    return {name: [round(share, 4) for share in torch.stack(of).mean(dim=0).tolist()] for name, of in shares.items()}


def measured(stages: Stages, runs: Path, tokens: Tensor) -> dict[str, Any]:
    """All that is measured of one run."""
    torch.manual_seed(stages.dense.seed)
    choices = choices_for(build_model(stages.dense))
    found: dict[str, Any] = {"seed": stages.dense.seed}
    for when, number in (("before the sparse stage", 1), ("after it", 2)):
        model = after_stage(stages, runs, number)
        found[when] = {
            "held_out_nats": losses_of(model, choices, tokens),
            "passage_nats": readings(model, choices, tokens),
            "attention_kept": attention_kept(model, choices, tokens),
        }
    found["after it"]["held_out_nats_with_fewer"] = losses_with_fewer(model, choices, tokens)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a .toml file beside this script")
    parser.add_argument(
        "--seed", type=int, action="append", help="a run's seed; may be repeated (default: the recipe's)"
    )
    arguments = parser.parse_args()
    stages = Stages.read(arguments.recipe)

    tokenizer = train_tokenizer([read_novel(name) for name in TRAINING_NOVELS])
    tokens = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])[:MEASURED]
    content: dict[str, Any] = {
        "held_out_novel": HELD_OUT_NOVEL,
        "held_out_tokens": len(tokens),
        "context": stages.dense.context,
        "index_topk": stages.dense.config["index_topk"],
        "steps": [recipe.steps for recipe in stages.all],
        "runs": [],
    }
    for seed in track(arguments.seed or [stages.dense.seed], "runs"):
        content["runs"].append(measured(stages.seeded(seed), HERE / "runs", tokens))
        arguments.recipe.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
