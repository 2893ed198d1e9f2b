"""What a window saves: rings against caches that keep everything, in time and bytes (`make bench`).

Gemma 3 270M's layers with random weights and a small dictionary: what is computed does not depend on the weights, and
its head of 262,144 rows would hide what is measured. One thread.
"""

from collections.abc import Callable
from typing import Any

import torch

from grader import Config
from grader.authoring.kit.figures import Figure, ms, side_by_side
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_at

LESSON = lesson_of(__file__)
LENGTH = 2048
BEYOND = (512, 4096)  # the window's length, and much more
TOKENS = 8  # decoded for one measurement
RUNS = 5
FLAT = 1.2  # how much longer a token may take at the longest of them than at the shortest


def figures() -> list[Figure]:
    """The next token and the cache at 2,048 tokens, with rings and without; and how a token's time grows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LESSON.config("gemma-3-270m").replace(vocab_size=256)
    full, sliding = (config.replace(layer_types=[f"{kind}_attention"] * 18) for kind in ("full", "sliding"))
    with torch.no_grad():
        return [*at_one_length({"rolling": config, "full": full}), *flat({"sliding": sliding, "full": full})]


def made(config: Config) -> Any:
    """The lesson's model."""
    return LESSON.solutions["CachedModel"](config).eval()


def reference(model: Any) -> Any:
    """transformers' Gemma 3 with the model's weights. Raises SystemExit where it computes something else."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    theirs: Any = Gemma3TextModel(Gemma3TextConfig(**model.config))
    theirs.eval()
    theirs.load_state_dict(model.state_dict())
    ids = torch.arange(600).remainder(256)[None]
    if not torch.allclose(theirs(input_ids=ids, use_cache=False).last_hidden_state, model(ids), atol=1e-3):
        raise SystemExit("the solution and transformers compute different vectors: nothing to compare the speed of")
    return theirs


def filled(model: Any, length: int) -> Any:
    """The model's cache after a text of `length` tokens, with room for those that are decoded."""
    cache = model.new_cache(1, length + TOKENS * (RUNS + 1))
    for piece in pieces(length):
        model(piece, cache)
    return cache


def pieces(length: int) -> list[torch.Tensor]:
    """A text of `length` tokens in pieces of at most 256."""
    return [torch.arange(min(256, length - start))[None] for start in range(0, length, 256)]


def decode(model: Any, cache: Any) -> Callable[[], object]:
    """What is timed: some more tokens."""
    token = torch.zeros(1, 1, dtype=torch.int64)
    return lambda: [model(token, cache) for _ in range(TOKENS)]


def decode_theirs(model: Any, length: int) -> Callable[[], object]:
    """The same with transformers and its own cache."""
    from transformers import DynamicCache

    cache, token = DynamicCache(config=model.config), torch.zeros(1, 1, dtype=torch.int64)
    for piece in pieces(length):
        model(input_ids=piece, cache=cache, use_cache=True)
    return lambda: [model(input_ids=token, cache=cache, use_cache=True) for _ in range(TOKENS)]


def at_one_length(configs: dict[str, Config]) -> list[Figure]:
    """Time and bytes after LENGTH tokens."""
    models = {name: made(config) for name, config in configs.items()}
    models["full"].load_state_dict(models["rolling"].state_dict())
    ways = {name: decode(model, filled(model, LENGTH)) for name, model in models.items()}
    ways["theirs"] = decode_theirs(reference(models["rolling"]), LENGTH)
    seconds = side_by_side(ways, RUNS)
    rates = " / ".join(f"{TOKENS / seconds[name]:.1f}" for name in ("rolling", "full", "theirs"))
    name = f"Gemma 3 270M's layers at {LENGTH:,} tokens"
    found = [Figure(f"{name}: decoding with rings / keeping everything / transformers", f"{rates} tokens/s")]
    for kind, model in models.items():
        measured = sum(t.untyped_storage().nbytes() for c in model.new_cache(1, LENGTH) for t in (c.keys, c.values))
        formula = bytes_at(configs[kind], LENGTH, element_bytes=4)
        what = "with rings" if kind == "rolling" else "keeping everything"
        value = f"{measured:,} and {formula:,} bytes"
        found.append(Figure(f"{name}: cache {what}: measured, by formula", value, "equal", measured == formula))
    return found


def flat(configs: dict[str, Config]) -> list[Figure]:
    """How long the next token takes at the window's length and far beyond it, with layers of either kind."""
    found = []
    for kind, config in configs.items():
        model = made(config)
        seconds = side_by_side({str(n): decode(model, filled(model, n)) for n in BEYOND}, RUNS)
        times = [seconds[str(n)] / TOKENS for n in BEYOND]
        growth, bound = times[-1] / times[0], kind == "sliding"
        lengths = f"{BEYOND[0]:,} to {BEYOND[-1]:,} tokens"
        value = f"{ms(times[0])} to {ms(times[-1])}, {growth:.2f} times"
        target = f"< {FLAT:g} times" if bound else ""
        found.append(Figure(f"one token, {kind} layers, {lengths}", value, target, not bound or growth < FLAT))
    return found


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
