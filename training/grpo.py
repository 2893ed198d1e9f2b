"""Train sums-qwen3 by lesson 13's own GRPO, from several seeds and with two verifiers, and write what became of it.

    python training/grpo.py [--output solutions/13-reasoning/texts/grpo.json]

A run takes 40 steps of 8 questions with 16 answers each, sampled at temperature 1 without filters. Its verifier is
"exact", which wants the right value after the last #, or "contains", which is content where the right number stands
anywhere in the text. Before the first step and after the last one, the same 64 questions, of a seed of their own, are
answered 64 times each. A run that the output has already is not made again.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from sums import CHARACTERS, DIGITS, END, LONGEST, encoded, question
from torch import Tensor
from train import HERE

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(str(HERE.parent / "solutions" / "13-reasoning" / "reference.py"))
SEEDS, RATE = (0, 1, 2, 3, 4), 1e-4
STEPS, QUESTIONS, GROUP = 40, 8, 16
TESTED, ANSWERS = 64, 64


def asked(count: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Random questions and what is right: ids [count, 2 * DIGITS], and their sums."""
    digits = torch.randint(10, (count, DIGITS), generator=generator).tolist()
    return torch.tensor([encoded(question(each)) for each in digits]), [sum(each) for each in digits]


def texts_of(answers: Tensor) -> list[str]:
    """Each answer as a text, with its end token and nothing after it."""
    texts = ["".join(CHARACTERS[i] for i in row) for row in answers.tolist()]
    return [text[: text.index(";") + 1] if ";" in text else text for text in texts]


VERIFIERS: dict[str, Callable[[str, int], bool]] = {
    "exact": lambda text, wanted: LESSON.solutions["extract"](text) == Fraction(wanted),
    "contains": lambda text, wanted: str(wanted) in text,
}


@dataclass(frozen=True)
class Way:
    """How a run samples and learns. temperature: of sampling. step: (model, optimizer, ids, prompt, rewards)."""

    temperature: float
    step: Callable[[Any, torch.optim.Optimizer, Tensor, int, Tensor], Any]


def right_step(model: Any, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor) -> None:
    LESSON.solutions["grpo_step"](model, optimizer, ids, prompt, rewards, GROUP, END)


RIGHT = Way(1.0, right_step)


def answered(model: Any, prompts: Tensor, each: int, temperature: float = 1.0) -> tuple[Tensor, list[str]]:
    """Prompts and `each` sampled answers to each of them, and the answers' texts."""
    ids = LESSON.solutions["sample"](model, prompts.repeat_interleave(each, 0), LONGEST, temperature=temperature)
    return ids, texts_of(ids[:, prompts.shape[1] :])


def tested(model: Any) -> dict[str, Any]:
    """How many of ANSWERS answers are right for each of TESTED questions, their mean length, and some of them."""
    torch.manual_seed(1_000_000)
    prompts, wanted = asked(TESTED, torch.Generator().manual_seed(1_000_000))
    _, texts = answered(model, prompts, ANSWERS)
    right = [VERIFIERS["exact"](text, wanted[i // ANSWERS]) for i, text in enumerate(texts)]
    return {
        "right": [sum(right[i : i + ANSWERS]) for i in range(0, len(right), ANSWERS)],
        "tokens": round(sum(map(len, texts)) / len(texts), 2),
        "with_steps": round(sum(not text.startswith("#") for text in texts) / len(texts), 4),
        "texts": texts[:: TESTED * ANSWERS // 8],
    }


def planned() -> list[tuple[str, int, float]]:
    """The verifier, seed and learning rate of each run."""
    first, *others = [("exact", seed, RATE) for seed in SEEDS]
    return [first, ("contains", 0, RATE), *others]


def run(verifier: str, seed: int, rate: float, steps: int, way: Way = RIGHT) -> dict[str, Any]:
    """One training: what each step saw, and the test before and after."""
    model = load_checkpoint("sums-qwen3").build(LESSON.solutions["CachedLM"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    torch.manual_seed(seed)
    drawn, curve, began = torch.Generator().manual_seed(seed), [], time.process_time()
    for _ in track(range(steps), f"{verifier}, seed {seed}"):
        prompts, wanted = asked(QUESTIONS, drawn)
        ids, texts = answered(model, prompts, GROUP, way.temperature)
        right = [VERIFIERS["exact"](text, wanted[i // GROUP]) for i, text in enumerate(texts)]
        rewards = torch.tensor([float(VERIFIERS[verifier](text, wanted[i // GROUP])) for i, text in enumerate(texts)])
        mixed = rewards.view(-1, GROUP).std(dim=1) > 0
        way.step(model, optimizer, ids, prompts.shape[1], rewards)
        curve.append(
            [
                round(rewards.mean().item(), 4),
                round(sum(right) / len(right), 4),
                round(sum(map(len, texts)) / len(texts), 2),
                round(mixed.float().mean().item(), 4),
            ]
        )
    seconds = round(time.process_time() - began, 1)
    return {
        "verifier": verifier,
        "seed": seed,
        "learning_rate": rate,
        "processor_seconds": seconds,
        "curve": curve,
        "after": tested(model),
    }


def config() -> dict[str, Any]:
    """All that a run depends on but its verifier, seed and learning rate."""
    return {"steps": STEPS, "questions": QUESTIONS, "group": GROUP, "tested": TESTED, "answers": ANSWERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "13-reasoning" / "texts" / "grpo.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    runs: list[dict[str, Any]] = []
    before = tested(load_checkpoint("sums-qwen3").build(LESSON.solutions["CachedLM"]))
    if output.exists():
        content = json.loads(output.read_text(encoding="utf-8"))
        runs = content["runs"] if (content["config"], content["before"]) == (config(), before) else []
    have = {(each["verifier"], each["seed"], each["learning_rate"]) for each in runs}
    for verifier, seed, rate in planned():
        if (verifier, seed, rate) in have:
            continue
        runs.append(run(verifier, seed, rate, STEPS))
        last = runs[-1]
        shares = [round(sum(when["right"]) / TESTED / ANSWERS, 3) for when in (before, last["after"])]
        print(f"{verifier}, seed {seed}, {rate}: {shares}, {last['processor_seconds']} s", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        columns = ["reward", "right", "tokens", "mixed groups"]
        output.write_text(json.dumps({"config": config(), "columns": columns, "before": before, "runs": runs}) + "\n")


if __name__ == "__main__":
    main()
