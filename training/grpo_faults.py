"""Train sums-qwen3 by lesson 13's GRPO with one fault in a step, and by its side without, from three seeds.

    python training/grpo_faults.py [--output solutions/13-reasoning/texts/faults.json]

The runs are those of training/grpo.py with its exact verifier: as many steps, questions and answers, and the same test.
In one way the mask of a step begins and ends one token too late. In two others answers are sampled at temperature HOT:
once the step knows of it, and once it computes the new log-probabilities at 1, while the old ones are the sampler's. A
run that the output has already is not made again. A run takes 12 seconds on a core of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import grpo
import torch
from sums import END
from torch import Tensor, nn
from train import HERE

SEEDS, HOT = (0, 1, 2), 1.5
SOLVED = grpo.LESSON.solutions


def late_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor) -> None:
    """The lesson's step with a mask that is one token late, as if it were about the positions of the logits."""
    log_probs = SOLVED["answer_log_probs"](model(ids), ids, prompt)
    mask = SOLVED["answer_mask"](ids[:, prompt:], END).roll(1, dims=1)
    mask[:, 0] = 0.0  # what rolled off at the end
    loss = SOLVED["policy_loss"](log_probs, log_probs.detach(), SOLVED["advantages"](rewards, grpo.GROUP), mask, "bnpo")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def hot_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor) -> None:
    SOLVED["grpo_step"](model, optimizer, ids, prompt, rewards, grpo.GROUP, END, HOT)


def apart_step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, prompt: int, rewards: Tensor) -> None:
    """The old log-probabilities are at the temperature of sampling, the new ones at 1: no ratio is 1."""
    with torch.no_grad():
        old = SOLVED["answer_log_probs"](model(ids), ids, prompt, HOT)
    SOLVED["grpo_step"](model, optimizer, ids, prompt, rewards, grpo.GROUP, END, 1.0, old)


WAYS = {
    "mask one late": grpo.Way(1.0, late_step),
    "temperature 1.5 in both places": grpo.Way(HOT, hot_step),
    "temperature 1.5 in sampling alone": grpo.Way(HOT, apart_step),
}


def planned() -> list[tuple[str, int]]:
    """The way and seed of each run."""
    return [(way, seed) for seed in SEEDS for way in WAYS]


def config() -> dict[str, Any]:
    """All that a run depends on but its way and seed."""
    return grpo.config() | {"learning_rate": grpo.RATE, "hot": HOT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "solutions" / "13-reasoning" / "texts" / "faults.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    content = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    runs: list[dict[str, Any]] = content["runs"] if content.get("config") == config() else []
    have = {(each["way"], each["seed"]) for each in runs}
    for way, seed in planned():
        if (way, seed) in have:
            continue
        made = grpo.run("exact", seed, grpo.RATE, grpo.STEPS, WAYS[way])
        runs.append({"way": way, **made})
        share = sum(made["after"]["right"]) / grpo.TESTED / grpo.ANSWERS
        print(f"{way}, seed {seed}: {share:.3f}, {made['processor_seconds']} s", flush=True)
        runs.sort(key=lambda each: planned().index((each["way"], each["seed"])))
        output.write_text(json.dumps({"config": config(), "runs": runs}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
