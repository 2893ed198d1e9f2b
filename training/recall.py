"""Train tiny models to look values up by their keys, and write how many pairs each can keep, for lesson 10.

    python training/recall.py           # rules, two layers each: solutions/10-linear-attention/texts/recall.json
    python training/recall.py ratios    # how many layers are full, and which: .../texts/ratios.json

The task is multi-query associative recall (Arora et al., 2023, arXiv 2312.04927): a text tells n pairs of a key and a
value, then asks for each key once, in another order: k1 v1 k2 v2 ... kn vn, k7 k2 ... At an asked key the model has to
say its value. No two texts tell the same pairs, so nothing but the text itself can help. In every second step, and in
a second measurement, keys are told again: the first half of the n pairs has n / 2 keys, the second half has the same
keys with other values, and the later value is asked for.

The models differ in nothing but how their layers remember:

- full attention: every key and value is kept.
- plain sum: S <- S + v k^T, linear attention without a softmax.
- gated delta rule: S <- a S + b (v - a S k) k^T, as in Qwen3-Next and Qwen3.5 (Yang et al., 2024, arXiv 2412.06464).
- two hybrids: a layer of the gated delta rule and one of full attention, in either order.

`ratios` trains models of four layers, in which none, one or two are full and the others have the gated delta rule.

All have width 64, two layers (four in `ratios`), two heads of 16 and the same short convolution; a step is about 1,500
tokens (half as many in `ratios`) of texts with the same n, drawn from those that are measured. Each model is trained
from three seeds (two in `ratios`). A run that the output has already is not made again; the first experiment takes a
quarter of an hour on a core of its own, `ratios` about as long.

Unlike the published models', the convolution has no SiLU after it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn
from train import HERE

DIM, HEADS, HEAD_DIM, KERNEL = 64, 2, 16, 4
KEYS, VALUES = 64, 64  # ids: first the keys, then the values
PAIRS = (4, 8, 16, 32, 64)
PEAK, WARMUP = 3e-3, 60
ASKED, MEASURED_TOKENS = 4096, 1536  # how many answers an accuracy is measured on, and how many tokens at once
VARIANTS: dict[str, tuple[str, ...]] = {
    "full attention": ("full", "full"),
    "plain sum": ("sum", "sum"),
    "gated delta rule": ("delta", "delta"),
    "hybrid, linear then full": ("delta", "full"),
    "hybrid, full then linear": ("full", "delta"),
}
RATIOS: dict[str, tuple[str, ...]] = {
    "every second full": ("delta", "full", "delta", "full"),
    "the last full": ("delta", "delta", "delta", "full"),  # Qwen3.5's order
    "the second full": ("delta", "full", "delta", "delta"),
    "the first full": ("full", "delta", "delta", "delta"),
    "none full": ("delta", "delta", "delta", "delta"),
}


class Experiment(NamedTuple):
    """What is trained, and how: variants that have as many layers, steps, tokens a step, and seeds."""

    variants: dict[str, tuple[str, ...]]
    steps: int
    tokens: int
    seeds: tuple[int, ...]


EXPERIMENTS = {
    "recall": Experiment(VARIANTS, 1500, 1536, (0, 1, 2)),
    "ratios": Experiment(RATIOS, 1200, 768, (0, 1)),
}


def texts(pairs: int, again: bool, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts that tell `pairs` pairs and ask for each key: ids [count, 2 pairs + asked], values' ids [count, asked].

    again: the second half tells the keys of the first half again, in another order and with other values, which are
    the ones to be said. Then `asked` is half of `pairs`, which is even; else it is `pairs`.
    """
    asked = pairs // 2 if again else pairs

    def shuffled(keys: Tensor) -> Tensor:
        return keys.gather(1, torch.rand(keys.shape, generator=generator).argsort(dim=1))

    last = torch.rand(count, KEYS, generator=generator).argsort(dim=1)[:, :asked]  # no key twice
    keys = torch.cat([shuffled(last), last], dim=1) if again else last
    values = KEYS + torch.randint(VALUES, keys.shape, generator=generator)
    questions = shuffled(last)
    place = (questions[:, :, None] == last[:, None, :]).int().argmax(dim=-1)  # of each asked key among the last told
    told = torch.stack([keys, values], dim=2).flatten(1)  # k1 v1 k2 v2 ...
    return torch.cat([told, questions], dim=1), values[:, -asked:].gather(1, place)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """Causal attention. q, k, v: [B, H, T, d] -> [B, H, T, d]; decay and beta, [B, H, T], are not for it."""
    return F.scaled_dot_product_attention(q * HEAD_DIM, k, v, is_causal=True)  # unit vectors: scores up to sqrt(d)


def plain_sum(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """S_t = S_{t-1} + v_t k_t^T, o_t = S_t q_t, for all t at once. Shapes as `softmax_attention`."""
    return (q @ k.mT).tril() @ v


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> Tensor:
    """S_t = a_t S_{t-1} + b_t (v_t - a_t S_{t-1} k_t) k_t^T, o_t = S_t q_t, with the whole text as one chunk.

    Shapes as `softmax_attention`; decay: log a, at most 0. What a token writes is w_t = b_t (v_t - a_t S_{t-1} k_t),
    and S_{t-1} is what the tokens before wrote, so the w are the solution of a triangular system.
    """
    T, total = q.shape[2], decay.cumsum(dim=-1)
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    faded = (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()  # s to t: [B, H, T, T]
    system = beta[..., None] * (k @ k.mT) * faded  # its diagonal is taken for 1
    written = torch.linalg.solve_triangular(system, beta[..., None] * v, upper=False, unitriangular=True)
    read: Tensor = ((q @ k.mT) * faded) @ written
    return read


RULES: dict[str, Callable[..., Tensor]] = {"full": softmax_attention, "sum": plain_sum, "delta": gated_delta_rule}


class Mixer(nn.Module):
    """Short convolution, then memory by one of RULES, then a norm of each head: [B, T, DIM] -> [B, T, DIM]."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.rule = RULES[rule]
        self.qkv = nn.Linear(DIM, 3 * inner, bias=False)
        self.conv = nn.Conv1d(3 * inner, 3 * inner, KERNEL, groups=3 * inner, bias=False)
        self.gates, self.out = nn.Linear(DIM, 2 * HEADS), nn.Linear(inner, DIM, bias=False)
        nn.init.constant_(self.gates.bias[:HEADS], -6.0)  # at first a state keeps 99.7% of itself at each token
        self.norm = nn.RMSNorm(HEAD_DIM, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.conv(F.pad(self.qkv(x).mT, (KERNEL - 1, 0))).mT
        q, k, v = mixed.unflatten(-1, (3, HEADS, HEAD_DIM)).permute(2, 0, 3, 1, 4)  # 3 x [B, H, T, d]
        a, b = self.gates(x).mT.chunk(2, dim=1)  # 2 x [B, H, T]
        read = self.rule(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, -F.softplus(a), b.sigmoid())
        mixed_heads: Tensor = self.out(self.norm(read).transpose(1, 2).flatten(2))
        return mixed_heads


class Tiny(nn.Module):
    """A model whose layers each remembers by the rule that `rules` names: ids [B, T] -> [B, T, ids]."""

    def __init__(self, rules: tuple[str, ...]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(KEYS + VALUES, DIM)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.mixers = nn.ModuleList(Mixer(rule) for rule in rules)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM)) for _ in rules
        )
        self.norms = nn.ModuleList(nn.RMSNorm(DIM, eps=1e-6) for _ in range(2 * len(rules) + 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        for layer, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * layer](x))
            x = x + mlp(self.norms[2 * layer + 1](x))
        return F.linear(self.norms[-1](x), self.tokens.weight)


def answers(model: nn.Module, ids: Tensor, asked: int) -> Tensor:
    """The logits at the last `asked` tokens, the asked keys: [B, asked, ids]."""
    logits: Tensor = model(ids)[:, -asked:]
    return logits


@torch.no_grad()
def accuracy(model: nn.Module, pairs: int, again: bool) -> float:
    """Which share of the asked values the model says, of texts that no training has seen."""
    generator, right, asked = torch.Generator().manual_seed(1_000_000 + pairs), 0, 0
    while asked < ASKED:
        ids, wanted = texts(pairs, again, max(1, MEASURED_TOKENS // (3 * pairs)), generator)
        right += int((answers(model, ids, wanted.shape[1]).argmax(-1) == wanted).sum())
        asked += wanted.numel()
    return round(right / asked, 4)


def kept(rules: tuple[str, ...], pairs: int) -> int:
    """How many numbers the layers keep of a text that told `pairs` pairs, convolutions aside."""
    cache, state = 2 * HEADS * HEAD_DIM * 2 * pairs, HEADS * HEAD_DIM * HEAD_DIM
    return sum(cache if rule == "full" else state for rule in rules)


def run(experiment: Experiment, variant: str, seed: int) -> dict[str, Any]:
    """Train one model, and measure it for each number of pairs."""
    torch.manual_seed(seed)
    rules, steps = experiment.variants[variant], experiment.steps
    model, drawn, began = Tiny(rules), torch.Generator().manual_seed(seed), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, pct_start=WARMUP / steps)
    for step in track(range(steps), "steps"):
        pairs = PAIRS[int(torch.randint(len(PAIRS), (), generator=drawn))]
        ids, wanted = texts(pairs, step % 2 == 1, max(1, experiment.tokens // (3 * pairs)), drawn)
        loss = F.cross_entropy(answers(model, ids, wanted.shape[1]).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = round(time.monotonic() - began, 1)
    return {
        "variant": variant,
        "seed": seed,
        "accuracy": [accuracy(model, pairs, again=False) for pairs in PAIRS],
        "accuracy_told_again": [accuracy(model, pairs, again=True) for pairs in PAIRS],
        "kept": [kept(rules, pairs) for pairs in PAIRS],
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
    }


def config(experiment: Experiment) -> dict[str, Any]:
    """All that a run depends on but its variant and seed."""
    (layers,) = {len(rules) for rules in experiment.variants.values()}
    sizes = {"width": DIM, "layers": layers, "heads": HEADS, "head_dim": HEAD_DIM, "kernel": KERNEL}
    task = {"keys": KEYS, "values": VALUES, "asked": ASKED}
    trained = {"steps": experiment.steps, "tokens_per_step": experiment.tokens}
    return sizes | task | trained | {"learning_rate": PEAK, "warmup_steps": WARMUP}


def found_in(output: Path, made_by: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that the file holds; none if it was made otherwise than it would be now."""
    if not output.exists():
        return []
    content = json.loads(output.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = content["runs"] if content | made_by == content else []
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", choices=EXPERIMENTS, default="recall")
    parser.add_argument("--output", type=Path, help="solutions/10-linear-attention/texts/EXPERIMENT.json by default")
    given = parser.parse_args()
    texts_of_lesson = HERE.parent / "solutions" / "10-linear-attention" / "texts"
    output, experiment = given.output or texts_of_lesson / f"{given.experiment}.json", EXPERIMENTS[given.experiment]

    made_by = {"config": config(experiment), "pairs": list(PAIRS)}
    runs = found_in(output, made_by)
    have = {(each["variant"], each["seed"]) for each in runs}
    for seed in experiment.seeds:
        for variant in experiment.variants:
            if (variant, seed) in have:
                continue
            runs.append(run(experiment, variant, seed))
            last = runs[-1]
            found = f"{last['accuracy']}, told again {last['accuracy_told_again']}"
            print(f"{variant}, seed {seed}: {found}, {last['seconds']} s", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(made_by | {"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
