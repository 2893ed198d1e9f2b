"""Have transformers generate what learners' models must repeat. For authors."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader.checkpoints.golden import Step
from grader.errors import GraderError

if TYPE_CHECKING:
    from grader.checkpoints.checkpoint import Checkpoint


def record_golden(checkpoint: "Checkpoint", prompts: Sequence[str], n_tokens: int | Sequence[int]) -> Path:
    """Run transformers' own greedy decoding (float32, eager attention) and write the golden.json.

    n_tokens: how many are generated from each prompt, or from every one.
    Raises GraderError where the reference itself is undecided at some step: another prompt is needed then,
    because another machine may rightly choose the other token.
    """
    import torch
    import transformers

    from grader.tolerance import tolerance_for

    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, attn_implementation="eager"
    )
    model.generation_config.eos_token_id = None
    relative = tolerance_for(torch.float32).relative
    lengths = [n_tokens] * len(prompts) if isinstance(n_tokens, int) else n_tokens
    goldens = []
    for prompt, length in zip(prompts, lengths, strict=True):
        prompt_ids = checkpoint.tokenizer.encode(prompt).ids
        ids = torch.tensor([prompt_ids])
        done = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        steps = [_step(logits[0]) for logits in done.logits]
        new_ids = done.sequences[0, len(prompt_ids) :].tolist()
        for place, (token, step) in enumerate(zip(new_ids, steps, strict=True)):
            if token != step["token"] or Step(**step).near_tie(relative):
                raise GraderError(f"{prompt!r}: token {place} is a near-tie ({step}). Choose another prompt.")
        goldens.append({"prompt": prompt, "prompt_ids": prompt_ids, "new_ids": new_ids, "steps": steps})
    origin = f"transformers {transformers.__version__}, torch {torch.__version__}, float32, eager, greedy"
    path = checkpoint.entry.golden_file
    path.write_text(_to_json(origin, goldens), encoding="utf-8")
    return path


def _step(logits: Any) -> dict[str, Any]:
    values, tokens = logits.double().topk(2)
    return {
        "token": tokens[0].item(),
        "runner_up": tokens[1].item(),
        "margin": round((values[0] - values[1]).item(), 4),
        "logit": round(values[0].item(), 4),
        "rms": round(logits.double().square().mean().sqrt().item(), 4),
    }


def _to_json(origin: str, goldens: Sequence[Mapping[str, Any]]) -> str:
    """JSON with one step a line, which reads well and shows small changes."""
    blocks = []
    for golden in goldens:
        fields = [f'      "{key}": {json.dumps(value)}' for key, value in golden.items() if key != "steps"]
        steps = ",\n".join(f"        {json.dumps(step)}" for step in golden["steps"])
        blocks.append("    {\n" + ",\n".join(fields) + f',\n      "steps": [\n{steps}\n      ]\n    }}')
    body = ",\n".join(blocks)
    return f'{{\n  "origin": {json.dumps(origin)},\n  "goldens": [\n{body}\n  ]\n}}\n'
