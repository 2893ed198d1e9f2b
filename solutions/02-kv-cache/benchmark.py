"""What a cache saves and costs: decoding with it, without it, and with transformers' own (`make bench`).

GPT-2 124M's architecture with random weights, so that nothing has to be downloaded: what is computed does not
depend on the weights. One thread: two that wait for each other measure how busy the machine is.
"""

from collections.abc import Callable
from typing import Any

import torch

from grader import Config
from grader.authoring.kit.figures import Figure, side_by_side
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_at

LESSON = lesson_of(__file__)
LENGTHS = (64, 256, 1008)
TOKENS = 16  # decoded with a cache for one measurement; without one, a single token
RUNS = 3


def figures() -> list[Figure]:
    """Tokens per second at several lengths, and the bytes of the cache: measured, and by the formula."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LESSON.config("gpt2")
    model = LESSON.solutions["CachedGPT2"](config).eval()
    reference = transformers_model(model, config)
    found = []
    with torch.no_grad():
        for length in LENGTHS:
            found += decoding(model, reference, length)
        cache = model.new_cache(1, LENGTHS[-1])
    measured = sum(t.untyped_storage().nbytes() for layer in cache for t in (layer.keys, layer.values))
    formula = bytes_at(config, LENGTHS[-1], element_bytes=4)
    value = f"{measured:,} and {formula:,} bytes"
    return [
        *found,
        Figure(
            f"GPT-2 124M: the cache of {LENGTHS[-1]:,} tokens: measured, by formula",
            value,
            "equal",
            measured == formula,
        ),
    ]


def transformers_model(model: Any, config: Config) -> Any:
    """transformers' GPT-2 with the same weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    reference: Any = GPT2LMHeadModel(GPT2Config(**config))
    reference.eval()
    reference.transformer.load_state_dict(model.state_dict())
    return reference


def decoding(model: Any, reference: Any, length: int) -> list[Figure]:
    """How fast the next tokens come after a text of `length` tokens."""
    from transformers import DynamicCache

    ids = torch.randint(model.config.vocab_size, (1, length))
    token = ids[:, :1]
    own = model.new_cache(1, length + TOKENS)
    theirs = DynamicCache()
    text, reference_text = model(ids, own), reference(input_ids=ids, cache=theirs, use_cache=True).logits
    if not torch.allclose(text, reference_text, atol=1e-3):
        raise SystemExit("the solution and transformers compute different logits: nothing to compare the speed of")

    def with_cache() -> None:
        for layer in own:
            layer.length = length
        for _ in range(TOKENS):
            model(token, own)

    def with_transformers() -> None:
        for _ in range(TOKENS):
            reference(input_ids=token, cache=theirs, use_cache=True)
        theirs.crop(-TOKENS)

    ways: dict[str, Callable[[], object]] = {
        "cached": with_cache,
        "theirs": with_transformers,
        "uncached": lambda: model(ids),
    }
    seconds = side_by_side(ways, RUNS)
    name = f"GPT-2 124M after {length:,} tokens"
    cached, theirs_rate = TOKENS / seconds["cached"], TOKENS / seconds["theirs"]
    return [
        Figure(f"{name}: decoding with the cache / without", f"{cached:.1f} / {1 / seconds['uncached']:.2f} tokens/s"),
        Figure(f"{name}: transformers with its own cache", f"{theirs_rate:.1f} tokens/s"),
    ]


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
