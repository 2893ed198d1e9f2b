"""Measure quantised caches on trained models for lesson 09: JSON.

    python training/quantised_caches.py [--lesson solutions/09-quantised-cache] [--model NAME]

SmolLM2-135M-Instruct runs in the lesson's own model, Gemma 3 270M in lesson 06's; both with the lesson's caches. For
each codec and number of bits: how much the loss on the beginning of *Persuasion* rises with keys, values and both
encoded, in nats a token; after how many of 48 tokens the text differs from what the model writes with a plain cache,
the mean over a few beginnings; and the bytes that the cache holds, for each token. Before that, how far channels stand
out, and what it helps to keep their means apart. Half an hour on one core for each model. What is measured is written
at once, and a run that was stopped goes on.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of
from grader.instruments import work

HERE = Path(__file__).resolve().parent
LENGTH, PROMPT, WRITTEN = 512, 40, 48  # tokens
# How many texts are read, how many are begun, and in how many bits. Gemma gets fewer: each token has 262,144 logits.
MODELS = {"smollm2-135m-instruct": (2, 8, (2, 3, 4, 5, 6, 7, 8)), "gemma-3-270m": (1, 4, (2, 3, 4, 8))}
CODECS = ("PerToken", "PerChannel", "PerGroup", "Rotated", "Turbo", "TurboProduct")
RECENT = (0, 32, 128)


class Centred:
    """Another codec for what is left without the mean of each channel. All tokens are given at once."""

    block = 1

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        self.mean = x.mean(dim=2, keepdim=True)
        return tuple(self.codec.encode(x - self.mean))

    def decode(self, *coded: Tensor) -> Tensor:
        return self.mean + self.codec.decode(*coded)


class Measured:
    """A trained model, the texts that it reads, and what it writes with a plain cache."""

    def __init__(self, name: str, made: dict[str, Any], classes: dict[str, Any], text: str) -> None:
        checkpoint, (rows, texts, _) = load_checkpoint(name), MODELS[name]
        self.made, self.config = made, checkpoint.config
        self.model = classes["CachedLM"](checkpoint.config).eval()
        checkpoint.load_into(self.model)
        ids = torch.tensor(checkpoint.tokenizer.encode(text, add_special_tokens=False).ids)
        start = [checkpoint.config.bos_token_id] if checkpoint.config.model_type.startswith("gemma") else []
        before = torch.tensor(start, dtype=torch.int64)
        size = LENGTH - len(start)
        self.read = torch.stack([torch.cat([before, ids[i * size : (i + 1) * size]]) for i in range(rows)])
        begun = [torch.cat([before, ids[i * 500 : i * 500 + PROMPT]]) for i in range(texts)]
        self.written = self.write(torch.stack(begun))
        self.width = made["head_dim"](self.config)

    def caches(self, make: Callable[[], Any]) -> list[Any]:
        return [make() for _ in range(self.config.num_hidden_layers)]

    @torch.no_grad()
    def write(self, ids: Tensor) -> Tensor:
        """The prompts with the tokens that follow, with a plain cache."""
        caches, new = self.caches(self.made["PlainCache"]), ids
        for _ in range(WRITTEN):
            best = self.model(new, caches)[:, -1:].argmax(dim=-1)
            ids, new = torch.cat([ids, best], dim=1), best
        return ids

    @torch.no_grad()
    def loss(self, make: Callable[[], Any], chunk: int = LENGTH) -> tuple[float, float]:
        """The loss in nats, and the bytes of the caches for a token."""
        caches = self.caches(make)
        logits = torch.cat([self.model(piece, caches) for piece in self.read.split(chunk, dim=1)], dim=1)
        nats = F.cross_entropy(logits[:, :-1].flatten(0, 1), self.read[:, 1:].flatten()).item()
        held = [rows for cache in caches for rows in (cache.keys, cache.values)]
        size = sum(work.bytes_held([rows.coded, rows.plain]) for rows in held)
        return nats, size / self.read.numel()

    @torch.no_grad()
    def outliers(self) -> dict[str, float]:
        """How many times as large the largest channel of a head is as its median one, in the median head of a text.

        The size of a channel is its largest number in the text, whatever its sign.
        """
        caches = self.caches(self.made["PlainCache"])
        self.model(self.read[:1], caches)
        sizes = {name: torch.cat([getattr(c, name) for c in caches]).abs().amax(dim=2) for name in ("keys", "values")}
        return {name: round(float((of.amax(-1) / of.median(-1).values).median()), 1) for name, of in sizes.items()}

    @torch.no_grad()
    def same_for(self, make: Callable[[], Any]) -> float:
        """After how many tokens the text differs, on average: one pass over all of it tells the first difference."""
        best = self.model(self.written[:, :-1], self.caches(make)).argmax(dim=-1)[:, -WRITTEN:]
        same = (best == self.written[:, -WRITTEN:]).long().cumprod(dim=1)
        return float(same.sum(dim=1).double().mean())


def measure(it: Measured, bits: Sequence[int], found: dict[str, Any]) -> Iterator[None]:
    """Add to one model's numbers what is not among them yet; yields after each."""
    cache, plain = it.made["QuantisedCache"], it.made["AsItComes"]()
    if "loss" not in found:
        base, size = it.loss(partial(cache, plain, plain))
        found |= {"loss": round(base, 4), "bytes in 16 bits": size / 2, "runs": [], "recent": []}
        yield
    if "outliers" not in found:
        found["outliers"] = it.outliers()
        yield
    runs, recent, base = found["runs"], found["recent"], found["loss"]
    if "centred keys" not in found:
        found["centred keys"] = []
        for n in (2, 3, 4):
            nats, _ = it.loss(partial(cache, Centred(it.made["Turbo"](it.width, n)), plain))
            found["centred keys"].append({"bits": n, "keys": round(nats - base, 4)})
        yield
    todo = [(codec, n) for codec in CODECS for n in bits]
    for codec, n in todo[len(runs) :]:
        encoded = it.made[codec](it.width, n)
        both = partial(cache, encoded, encoded)
        nats, held = it.loss(both)
        run: dict[str, Any] = {"codec": codec, "bits": n, "bytes": round(held, 1), "both": round(nats - base, 4)}
        run["keys"] = round(it.loss(partial(cache, encoded, plain))[0] - base, 4)
        run["values"] = round(it.loss(partial(cache, plain, encoded))[0] - base, 4)
        runs.append(run | {"same for": it.same_for(both)})
        yield
    for n, newest in list(product((2, 3), RECENT))[len(recent) :]:
        encoded = it.made["Turbo"](it.width, n)
        nats, _ = it.loss(partial(cache, encoded, encoded, newest), chunk=16)
        recent.append({"bits": n, "recent": newest, "both": round(nats - base, 4)})
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesson", type=Path, default=HERE.parent / "solutions" / "09-quantised-cache")
    parser.add_argument("--model", choices=MODELS, help="this one alone")
    parser.add_argument("--to", type=Path, help="the file to write, the lesson's texts/measured.json")
    told = parser.parse_args()
    folder = told.lesson.resolve()
    torch.set_num_threads(1)
    made = lesson_of(str(folder / "others.py")).solutions
    windows = lesson_of(str(folder.parent / "06-sliding-window" / "others.py")).solutions
    text = (folder / "texts" / "persuasion.txt").read_text(encoding="utf-8")
    path = told.to or folder / "texts" / "measured.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in [told.model] if told.model else MODELS:
        it, bits = Measured(name, made, windows if name.startswith("gemma") else made, text), MODELS[name][2]
        for _ in measure(it, bits, found.setdefault(name, {})):
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(name, f"{len(found[name]['runs'])} of {len(CODECS) * len(bits)} codecs", flush=True)


if __name__ == "__main__":
    main()
