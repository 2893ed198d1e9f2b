"""Have SmolLM2-135M-Instruct do easy sums many times each, and write down what it answers: votes of lesson 13.

    python training/smollm2_sums.py [--output solutions/13-reasoning/texts/smollm2.json]

The prompt is three sums with their answers and a fourth without. Each of QUESTIONS sums gets ANSWERS answers, sampled
at temperature 1 without filters, to the end of the line or five tokens. Weights: `grader weights get
smollm2-135m-instruct`. It takes two minutes on a core of its own.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from grader import load_checkpoint

QUESTIONS, ANSWERS, LONGEST, SHOWN = 24, 32, 5, 3
KINDS = {"two numbers of one digit": (1, 2), "two numbers of two digits": (2, 2), "three numbers of two digits": (2, 3)}


def asked(digits: int, numbers: int, seed: int) -> list[tuple[str, int]]:
    """QUESTIONS prompts, and what is right."""
    low, high = (1 if digits == 1 else 10 ** (digits - 1)), 10**digits
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(low, high, (QUESTIONS, SHOWN + 1, numbers), generator=generator).tolist()
    found = []
    for sums in drawn:
        lines = [" + ".join(map(str, each)) + " =" for each in sums]
        shown = [f"{line} {sum(each)}\n" for line, each in zip(lines[:-1], sums[:-1], strict=True)]
        found.append(("".join(shown) + lines[-1], sum(sums[-1])))
    return found


@torch.no_grad()
def answered(model: Any, tokenizer: Any, prompt: str) -> list[str]:
    """ANSWERS sampled answers to a prompt, each to the end of its line. The prompt is read once for all."""
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    logits = model(input_ids=ids, cache=cache).logits[:, -1].expand(ANSWERS, -1)
    cache.batch_repeat_interleave(ANSWERS)
    given: list[torch.Tensor] = []
    for _ in range(LONGEST):
        given.append(torch.multinomial(logits.softmax(dim=-1), 1))
        logits = model(input_ids=given[-1], cache=cache).logits[:, -1]
    return [tokenizer.decode(row).partition("\n")[0].strip() for row in torch.cat(given, dim=1).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "solutions" / "13-reasoning" / "texts" / "smollm2.json"
    parser.add_argument("--output", type=Path, default=default)
    output = parser.parse_args().output

    checkpoint = load_checkpoint("smollm2-135m-instruct")
    config = LlamaConfig.from_pretrained(checkpoint.folder)
    model = LlamaForCausalLM.from_pretrained(checkpoint.folder, config=config, dtype=torch.float32).eval()
    found: dict[str, Any] = {}
    for kind, (digits, numbers) in KINDS.items():
        torch.manual_seed(0)
        questions = asked(digits, numbers, seed=0)
        found[kind] = [
            {"prompt": prompt, "right": right, "answers": answered(model, checkpoint.tokenizer, prompt)}
            for prompt, right in track(questions, kind)
        ]
    content = {"model": checkpoint.name, "temperature": 1.0, "longest": LONGEST, "sums": found}
    output.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
