"""Train austen-deepseek as DeepSeek-V3.2 was trained: dense, then its indexer alone, then sparse.

    python training/deepseek.py training/austen-deepseek.toml

1. Dense: every token attends to all before it, and the indexer is not used. The routers' correction bias gets no
   gradient: after each step it moves up for experts with less than their share of the tokens, and down for the others.
2. Warm-up: all but the indexers is frozen. They learn to score as the attention of all heads together looks.
3. Sparse: every token attends to the `index_topk` tokens that its indexer selects. The model learns to predict the next
   token, and the indexers, whose input is detached, from the attention to what they selected.

The last two are those of DeepSeek-V3.2 (2025, section 2.1), whose dense model was DeepSeek-V3.1. Progress is saved
under ``training/runs/``; run the same command again after an interruption and it goes on from there.
"""

import argparse
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import selection
import torch
from torch import Tensor, nn
from train import (
    HELD_OUT_NOVEL,
    HERE,
    SHIPPED,
    TRAINING_NOVELS,
    Aim,
    Recipe,
    build_model,
    encode,
    export,
    held_out_loss,
    losses,
    read_novel,
    rounded,
    train,
    train_tokenizer,
)
from transformers import PreTrainedModel

BIAS_STEP = 2.0**-9  # a power of 2, so that bfloat16 holds every bias up to 0.5


@dataclass(frozen=True)
class Stages:
    """The recipe of each stage. What the file does not say of the later two is as in the first, but for decay_steps."""

    dense: Recipe
    warm_up: Recipe
    sparse: Recipe

    @property
    def all(self) -> tuple[Recipe, ...]:
        """In their order."""
        return self.dense, self.warm_up, self.sparse

    @classmethod
    def read(cls, path: Path) -> "Stages":
        """From a recipe file. Raises ValueError where it does not say how a stage is trained."""
        content, dense = tomllib.loads(path.read_text(encoding="utf-8")), Recipe.read(path)
        for stage in ("warm_up", "sparse"):
            if stage not in content:
                raise ValueError(
                    f"{path} has no [{stage}]. Say how that stage is trained, as austen-deepseek.toml does."
                )
        later = [replace(dense, **{"decay_steps": None, **content[stage]}) for stage in ("warm_up", "sparse")]
        return cls(dense, *later).seeded(dense.seed)

    def seeded(self, seed: int) -> "Stages":
        """The same stages from a seed. The later ones take the next two, so that each has batches of its own."""
        return Stages(*(replace(stage, seed=seed + number) for number, stage in enumerate(self.all)))

    def folder(self, runs: Path, stage: int) -> Path:
        """Where a stage saves its progress. It hangs on the stages before it, too, and on no later one."""
        keys = [recipe.key for recipe in self.all[: stage + 1]]
        return runs / f"{self.dense.name}-{'-'.join(keys)}"


@contextmanager
def balancing(model: Any) -> Iterator[Any]:
    """Count the tokens that choose each expert; gives the function that then moves every bias by a step.

    Sources: Wang et al., 2024 (arXiv 2408.15664), algorithm 1; DeepSeek-V3, section 2.1.2.
    """
    loads: dict[nn.Module, Tensor] = {}

    def note(gate: Any, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        loads[gate] = output[2].flatten().bincount(minlength=gate.num_experts).float()

    def move() -> None:
        for gate, load in loads.items():
            gate.e_score_correction_bias += BIAS_STEP * (load.mean() - load).sign()

    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    handles = [gate.register_forward_hook(note) for gate in gates]
    try:
        yield move
    finally:
        for handle in handles:
            handle.remove()


def train_dense(recipe: Recipe, model: PreTrainedModel, tokens: Tensor, run: Path) -> None:
    """The first stage: the indexers get no gradient, and AdamW leaves them as they were made."""
    with balancing(model) as move, selection.choosing(model, selection.every):
        train(recipe, model, tokens, run, Aim(losses, [list(model.parameters())], move))


def indexers_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all indexers."""
    return [p for attention in selection.attentions_of(model) for p in attention.indexer.parameters()]


def warm_up(recipe: Recipe, model: PreTrainedModel, tokens: Tensor, run: Path) -> None:
    """The second stage: the indexers imitate dense attention."""

    def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        _, apart = selection.imitation(model, batch[:, :-1], sparse=False)
        return apart, apart.new_zeros(())

    train(recipe, model, tokens, run, Aim(loss, [indexers_parameters(model)]))


def train_sparse(recipe: Recipe, model: PreTrainedModel, tokens: Tensor, run: Path) -> None:
    """The third stage: the model with its selection, and the indexers beside it."""

    def loss(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        output, apart = selection.imitation(model, batch[:, :-1], sparse=True)
        return nn.functional.cross_entropy(output.logits.flatten(0, 1), batch[:, 1:].flatten()), apart

    indexers = indexers_parameters(model)
    ids = {id(p) for p in indexers}
    rest = [p for p in model.parameters() if id(p) not in ids]
    with balancing(model) as move:
        train(recipe, model, tokens, run, Aim(loss, [rest, indexers], move))


def train_all(stages: Stages, tokens: Tensor, runs: Path) -> PreTrainedModel:
    """The trained model. Each stage starts from the seed, so that one that is made again makes the same."""
    torch.manual_seed(stages.dense.seed)
    model = build_model(stages.dense).train()
    for number, (recipe, stage) in enumerate(zip(stages.all, (train_dense, warm_up, train_sparse), strict=True)):
        run = stages.folder(runs, number)
        run.mkdir(parents=True, exist_ok=True)
        print(f"{stage.__name__}: {recipe.steps} steps, kept in {run.name}/", flush=True)
        stage(recipe, model, tokens, run)
    return model


def after_stage(stages: Stages, runs: Path, number: int) -> PreTrainedModel:
    """The model as stage `number`, from 0, left it in `runs`, rounded as it ships.

    Raises FileNotFoundError where the stage was not trained to its end there.
    """
    recipe = stages.all[number]
    saved = stages.folder(runs, number) / "latest.pt"
    state = torch.load(saved, weights_only=True) if saved.exists() else {"step": 0}
    if state["step"] < recipe.steps:
        raise FileNotFoundError(
            f"{saved} has {state['step']} of {recipe.steps} steps."
            f" Train it first: python training/deepseek.py {recipe.name}.toml --seed {stages.dense.seed}"
        )
    model = build_model(recipe)
    model.load_state_dict(state["model"])
    return rounded(recipe, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a .toml file beside this script")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--output", type=Path, help="where to write the checkpoint (default: what the course ships)")
    arguments = parser.parse_args()
    stages = Stages.read(arguments.recipe)
    if arguments.seed is not None:
        stages = stages.seeded(arguments.seed)

    novels = [read_novel(name) for name in TRAINING_NOVELS]
    tokenizer = train_tokenizer(novels)
    tokens = encode(tokenizer, novels)
    held_out = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])
    model = train_all(stages, tokens, HERE / "runs")
    loss = held_out_loss(rounded(stages.sparse, model), held_out, stages.sparse.context, stages.sparse.context // 2)
    print(f"held-out loss on {HELD_OUT_NOVEL}: {loss:.3f} nats a token")
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_tokens": len(tokens),
        "steps": [recipe.steps for recipe in stages.all],
        "tokens_per_step": stages.dense.batch_size * stages.dense.context,
        "held_out_novel": HELD_OUT_NOVEL,
        "held_out_tokens": len(held_out),
        "held_out_nats_per_token": round(loss, 4),
    }
    folder = arguments.output or SHIPPED / stages.dense.name
    export(stages.dense, model, tokenizer, card, folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
