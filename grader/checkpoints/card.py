"""The model card of an exported model: the README.md that the hub shows, and reads its first lines."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from grader.package import distribution

if TYPE_CHECKING:
    from grader.checkpoints.checkpoint import Checkpoint

# What the hub calls a licence (hub documentation, "Licenses"); of any other it wants `other` and a name.
HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gemma", "llama3.2")
USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or OWNER/NAME once it is on the hub
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
ids = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=40, do_sample=False)[0]))
```"""


def model_card(checkpoint: "Checkpoint", kind: str, parameters: int, dtype: str, licence: str) -> str:
    """The card's text. kind: transformers' class. licence: for a checkpoint of which none is known."""
    entry, config = checkpoint.entry, checkpoint.config
    head = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *_licence(licence or entry.licence),
        f"tags: [{distribution().name}]",
    ]
    facts = {
        "architecture": f"`{kind}`, model_type `{config.get('model_type', '?')}`",
        "parameters": f"{parameters:,}",
        "weights": dtype,
        "context": _tokens(config.get("max_position_embeddings") or config.get("n_positions")),
        "vocabulary": _tokens(checkpoint.tokenizer.get_vocab_size()),
        **_training(checkpoint),
    }
    table = ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in facts.items() if value)]
    said = f"{entry.description[:1].upper()}{entry.description[1:]}.".replace(" trained here ", " trained ")
    prompt = next((golden.prompt for golden in entry.goldens if golden.prompt), "The")
    parts = ["---\n" + "\n".join(head) + "\n---", f"# {checkpoint.name}", *([said] if entry.description else [])]
    return "\n\n".join([*parts, "\n".join(table), "## Use", USE.format(prompt=prompt[:80])]) + "\n"


def _licence(licence: str) -> list[str]:
    name = licence.lower()
    if not name:
        return []
    if name in HUB_LICENCES:
        return [f"license: {name}"]
    return ["license: other", f"license_name: {re.sub(r'[^a-z0-9.]+', '-', name)[:60].strip('-')}"]


def _tokens(number: Any) -> str:
    return f"{number:,} tokens" if isinstance(number, int) else ""


def _training(checkpoint: "Checkpoint") -> Mapping[str, str]:
    """What a training.json beside the weights says, a row a number or a word."""
    path = checkpoint.folder / "training.json"
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    rows = {key.replace("_", " "): value for key, value in known.items() if key != "parameters"}
    return {what: f"{value:,}" if isinstance(value, int) else str(value) for what, value in rows.items()}
