"""Train one of the small checkpoints that the course ships.

    python training/train.py training/austen-gpt2.toml

trains the byte-level BPE tokenizer and the model that the recipe describes on five of Austen's
novels, measures the loss on the sixth, and writes a Hugging Face folder that
``AutoModelForCausalLM`` and ``AutoTokenizer`` load. Progress is saved every hundred steps under
``training/runs/``; run the same command again after an interruption and it goes on from there.
"""

import argparse
import hashlib
import json
import math
import re
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "grader" / "checkpoints" / "shipped"
TRAINING_NOVELS = ("emma", "mansfieldpark", "northangerabbey", "prideprejudice", "sensesensibility")
HELD_OUT_NOVEL = "persuasion"
VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says: the model's config and how long and how fast to train it."""

    name: str
    config: dict[str, Any]
    steps: int
    batch_size: int
    context: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    seed: int
    weights_prefix: str  # what the hub's files of this architecture leave away in front of every name
    decay_steps: int | None = None  # in how many steps at the end the learning rate falls; None: all after the warm-up

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(name=path.stem, config=content["config"], **content["training"], **content["export"])

    @property
    def key(self) -> str:
        """A short hash of the recipe, so that a changed recipe never resumes another's run."""
        return hashlib.sha256(repr(replace(self, weights_prefix="")).encode()).hexdigest()[:12]


def read_novel(name: str) -> str:
    """The novel with its wrapped lines joined, one blank line between paragraphs."""
    text = (HERE / "austen" / f"{name}.txt").read_text(encoding="utf-8").replace("_", "")
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(" ".join(p.split()) for p in paragraphs if p.strip())


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE like GPT-2's, with `VOCAB_SIZE` entries; id 0 ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """The texts' token ids in a row, each text followed by the end-of-text token: [N] int64."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [i for text in texts for i in [*tokenizer.encode(text).ids, end]]
    return torch.tensor(ids)


def build_model(recipe: Recipe) -> PreTrainedModel:
    """The model with random weights; config fields the tokenizer decides are filled in here."""
    config = AutoConfig.for_model(**recipe.config, vocab_size=VOCAB_SIZE, bos_token_id=0, eos_token_id=0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return model


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, the peak until decay begins, then a cosine down to a tenth of it."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    decay = recipe.warmup_steps if recipe.decay_steps is None else recipe.steps - recipe.decay_steps
    progress = max(0, step - decay) / max(1, recipe.steps - decay)
    return recipe.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def losses(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The loss at the next token, and what a mixture of experts adds for unequal load (0 without experts).

    batch: [B, T + 1] -> 2 x []. The second is Switch Transformer's (Fedus et al., 2021, equation 4), as transformers
    computes it, times the config's router_aux_loss_coef.
    """
    weight: float | None = getattr(model.config, "router_aux_loss_coef", None)
    output = model(input_ids=batch[:, :-1], **({} if weight is None else {"output_router_logits": True}))
    loss = nn.functional.cross_entropy(output.logits.flatten(0, 1), batch[:, 1:].flatten())
    return loss, loss.new_zeros(()) if weight is None else weight * output.aux_loss


@dataclass(frozen=True)
class Aim:
    """What is minimised, by which parameters, and what happens after every step.

    losses: (model, batch [B, T + 1]) -> 2 x [], of which the sum is minimised and the first is shown.
    parts: the parameters that learn; each part's gradient is clipped by itself.
    """

    losses: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
    parts: Sequence[Sequence[nn.Parameter]]
    after: Callable[[], None] = lambda: None


@torch.no_grad()
def held_out_loss(model: nn.Module, tokens: Tensor, context: int, stride: int | None = None) -> float:
    """Mean nats per token over `tokens`; windows overlap so that every token sees most of a full context.

    stride: by how many tokens a window starts after the one before it; a quarter of the context if None.
    """
    stride = stride or context // 4
    model.eval()
    total, count, scored_to = 0.0, 0, 1
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + context]
        logits = model(input_ids=window[None]).logits[0, :-1]
        losses = nn.functional.cross_entropy(logits, window[1:], reduction="none")
        new = losses[scored_to - start - 1 :]
        total, count = total + new.sum().item(), count + len(new)
        scored_to = start + len(window)
        if scored_to >= len(tokens):
            break
    model.train()
    return total / count


def train(recipe: Recipe, model: nn.Module, tokens: Tensor, run: Path, aim: Aim | None = None) -> None:
    """AdamW over random windows of `tokens`; step t always draws the same batch, resumed or not.

    aim: without one, all of the model learns the next token.
    """
    aim = aim or Aim(losses, [list(model.parameters())])
    decay = [p for part in aim.parts for p in part if p.ndim >= 2]
    no_decay = [p for part in aim.parts for p in part if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": no_decay, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    start, checkpoint = 0, run / "latest.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        print(f"Going on from step {start}, saved in {run.name}/.")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    average, began = 0.0, time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task(recipe.name, total=recipe.steps, completed=start)
        for step in range(start, recipe.steps):
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            starts = torch.randint(len(tokens) - recipe.context - 1, (recipe.batch_size,), generator=generator)
            batch = torch.stack([tokens[s : s + recipe.context + 1] for s in starts])
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, recipe)
            loss, further = aim.losses(model, batch)
            optimizer.zero_grad()
            (loss + further).backward()
            for part in aim.parts:
                nn.utils.clip_grad_norm_(part, 1.0)
            optimizer.step()
            aim.after()
            average = loss.item() if step == start else 0.98 * average + 0.02 * loss.item()
            progress.update(bar, advance=1, description=f"{recipe.name}  loss {average:.3f}")
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
                seconds = (time.monotonic() - began) / (step + 1 - start)
                progress.console.print(f"step {step + 1}: loss {average:.3f}, {seconds:.2f} s a step")


def rounded(recipe: Recipe, model: nn.Module) -> PreTrainedModel:
    """A copy of the model with the values that its file will hold: those of bfloat16."""
    copy = build_model(recipe)
    copy.load_state_dict({name: tensor.to(torch.bfloat16).float() for name, tensor in model.state_dict().items()})
    return copy.eval()


def stored(model: PreTrainedModel, name: str, tensor: Tensor) -> Tensor:
    """A weight as its file holds it: rounded to bfloat16, and in the dtype that transformers loads it in.

    That is float32 for what the model's class keeps so beside bfloat16; its `_keep_in_fp32_modules`, without `strict`,
    are for float16 alone. Since all values are bfloat16's, whoever reads them in either dtype has the same model.
    """
    kept = model._keep_in_fp32_modules_strict or ()
    wide = any(re.search(rf"(^|\.){re.escape(pattern)}($|\.)", name) for pattern in kept)
    return tensor.to(torch.bfloat16).to(torch.float32 if wide else torch.bfloat16).contiguous()


def export(recipe: Recipe, model: PreTrainedModel, tokenizer: Tokenizer, card: dict[str, Any], folder: Path) -> None:
    """Write the Hugging Face folder: weights in bfloat16, config, tokenizer, and what was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = getattr(model, "_tied_weights_keys", None) or {}
    state = {
        name.removeprefix(recipe.weights_prefix): stored(model, name, tensor)
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it makes files that their owner alone can read
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": recipe.context,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps(card, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a .toml file beside this script")
    parser.add_argument("--output", type=Path, help="where to write the checkpoint (default: what the course ships)")
    arguments = parser.parse_args()
    recipe = Recipe.read(arguments.recipe)
    if "index_topk" in recipe.config:
        parser.error(f"an indexer learns nothing here. Run: python training/deepseek.py {arguments.recipe}")
    run = HERE / "runs" / f"{recipe.name}-{recipe.key}"
    run.mkdir(parents=True, exist_ok=True)

    novels = [read_novel(name) for name in TRAINING_NOVELS]
    tokenizer = train_tokenizer(novels)
    tokens = encode(tokenizer, novels)
    held_out = encode(tokenizer, [read_novel(HELD_OUT_NOVEL)])
    torch.manual_seed(recipe.seed)
    model = build_model(recipe).train()
    size = sum(p.numel() for p in model.parameters())
    print(f"{recipe.name}: {size:,} parameters, {len(tokens):,} training tokens, {len(held_out):,} held out")
    train(recipe, model, tokens, run)

    loss = held_out_loss(rounded(recipe, model), held_out, recipe.context)
    print(f"held-out loss on {HELD_OUT_NOVEL}: {loss:.3f} nats a token (perplexity {math.exp(loss):.1f})")
    card = {
        "parameters": size,
        "training_tokens": len(tokens),
        "steps": recipe.steps,
        "tokens_per_step": recipe.batch_size * recipe.context,
        "held_out_novel": HELD_OUT_NOVEL,
        "held_out_tokens": len(held_out),
        "held_out_nats_per_token": round(loss, 4),
    }
    folder = arguments.output or SHIPPED / recipe.name
    export(recipe, model, tokenizer, card, folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
