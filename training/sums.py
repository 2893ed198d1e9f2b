"""Train the small model of lesson 13, which adds five digits, now well and now badly.

    python training/sums.py [--output FOLDER]

The texts are one question and one answer each. In one half of them the answer comes after the sums so far:
`7+8+5+9+3=` and then `15,20,29,32#32;`. In the other half it comes at once, `#32;`, and of these answers four of five
are wrong, by up to three: who answers without working it out is often wrong. The questions are drawn at random from
100,000. The loss is taken on answers alone, and training stops early. The loop, the optimizer and the export are those
of training/train.py. It takes two minutes on a core of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from train import HERE, SHIPPED, Aim, Recipe, export, train
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

CHARACTERS = "0123456789+=,#;"
END = CHARACTERS.index(";")  # it pads, too
DIGITS, LONGEST, THINKING, WRONG = 5, 15, 0.5, 0.8
IGNORED = -100


def question(digits: list[int]) -> str:
    return "+".join(map(str, digits)) + "="


def answer(digits: list[int], off: int | None) -> str:
    """The sums so far and the answer; or, where `off` is a number, the answer at once, wrong by as much."""
    sums = [sum(digits[: i + 1]) for i in range(1, len(digits))]
    return ",".join(map(str, sums)) + f"#{sums[-1]};" if off is None else f"#{abs(sums[-1] + off)};"


def encoded(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


def texts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random texts, and what is to be learned of them: ids and targets, 2 x [count, 2 * DIGITS + LONGEST]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(10, (count, DIGITS), generator=generator).tolist()
    thinking = (torch.rand(count, generator=generator) < THINKING).tolist()
    wrong = torch.rand(count, generator=generator) < WRONG
    errors = torch.tensor([-3, -2, -1, 1, 2, 3])[torch.randint(6, (count,), generator=generator)]
    off = torch.where(wrong, errors, 0).tolist()
    ids = torch.full((count, 2 * DIGITS + LONGEST), END)
    targets = torch.full_like(ids, IGNORED)
    for row, digits in enumerate(drawn):
        asked, answered = encoded(question(digits)), encoded(answer(digits, None if thinking[row] else off[row]))
        end = len(asked) + len(answered)
        ids[row, :end] = torch.tensor(asked + answered)
        targets[row, len(asked) : end] = torch.tensor(answered)
    return ids, targets


def tokenizer_of_characters() -> Tokenizer:
    """A tokenizer that has a token for each character."""
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token=";"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def build(recipe: Recipe) -> PreTrainedModel:
    config = AutoConfig.for_model(**recipe.config, vocab_size=len(CHARACTERS), eos_token_id=END, pad_token_id=END)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return model


def aim_of(recipe: Recipe, model: nn.Module) -> Aim:
    """The loss on the answers of the texts whose numbers a batch has."""
    ids, targets = texts(recipe.steps * recipe.batch_size, recipe.seed)

    def losses(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        rows = batch[:, 0]
        logits = model(input_ids=ids[rows, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[rows, 1:].flatten(), ignore_index=IGNORED)
        return loss, loss.new_zeros(())

    return Aim(losses, [list(model.parameters())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=SHIPPED / "sums-qwen3")
    arguments = parser.parse_args()
    recipe = Recipe.read(HERE / "sums-qwen3.toml")
    run = HERE / "runs" / f"{recipe.name}-{recipe.key}"
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = build(recipe).train()
    numbers = torch.arange(recipe.steps * recipe.batch_size + 2)  # `train` draws windows of it: of one text each
    train(recipe, model, numbers, run, aim_of(recipe, model))

    smaller = build(recipe)
    smaller.load_state_dict({name: t.to(torch.bfloat16).float() for name, t in model.state_dict().items()})
    card: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": recipe.steps,
        "texts": recipe.steps * recipe.batch_size,
        "share_with_sums_so_far": THINKING,
        "share_of_wrong_ones_without": WRONG,
    }
    export(recipe, smaller.eval(), tokenizer_of_characters(), card, arguments.output)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": recipe.config["max_position_embeddings"],
        "eos_token": ";",
        "pad_token": ";",
        "clean_up_tokenization_spaces": False,
    }
    (arguments.output / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
