"""Random cases that others.py of several lessons declare in RANDOM: exercise -> (config, `Numbers`) -> `Case`."""

from typing import Any

from grader.authoring.kit.declared import Numbers
from grader.lessons.exercise import Case

FAR = 40_000  # tokens: longer than the texts that checkpoints of these lessons were trained on


def of_vectors(config: dict[str, Any], n: Numbers, **build: Any) -> Case:
    """x [batch, length, width of the model] for what is built from the config, or from `build`."""
    width = config["n_embd"] if "n_embd" in config else config["hidden_size"]
    return Case(
        str(n.seed), lambda draw: [draw.normal(n.batch, n.length, width, scale=n.scale)], build or {"config": config}
    )


def of_norm(config: dict[str, Any], n: Numbers) -> Case:
    """The same for a norm that is built from `dim` and `eps`."""
    return of_vectors(config, n, dim=config["hidden_size"], eps=config["rms_norm_eps"])


def of_tokens(config: dict[str, Any], n: Numbers, **build: Any) -> Case:
    """ids [batch, length] for what is built from the config, or from `build`."""
    shape = (config["vocab_size"], n.batch, n.length)
    return Case(str(n.seed), lambda draw: [draw.tokens(*shape)], build or {"config": config})


def positions(n: Numbers) -> list[int]:
    """As many as the length, anywhere in a text of `FAR` tokens, and in no order."""
    return [(n.seed * (i + 1)) % FAR for i in range(n.length)]
