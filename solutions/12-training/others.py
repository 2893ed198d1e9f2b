"""What tests/lessons/test_every_lesson.py asks of training: other right programs and wrong ones, random inputs."""

import copy
import math
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Rerun, Told
from grader.authoring.kit.solved import lesson_of

from . import exercises, reference

LESSON = lesson_of(__file__)

MISTAKES = 250
VARIES = [
    "training.batches",
    "training.bpe",
    "training.loss",
    "training.clip",
    "training.accumulate",
    "training.lora",
    "training.dpo",
]
NO_MODEL = "it builds no model: Qwen3 is given"
IDS = "it counts whole numbers"
WITHOUT = {
    "bfloat16": {
        **dict.fromkeys(
            ("training.bpe", "training.encode", "training.decode", "training.batches", "training.sft"), IDS
        ),
        "training.tokenizer_json": IDS,
        "training.schedule": "it is a Python float",
        "training.accumulate": "the loss is computed in float32, and the model is a toy",
        "training.worth": "it is a Python float",
        "training.checkpoint": "what is saved has the dtypes that it has; mistakes round it",
    },
    "stored answers": {
        "training.adamw": "step returns nothing: the weights are what it changes",
        "training.accumulate": "the gradients are what it leaves in the model",
        "training.batches": "take returns what its position says, and is given nothing",
        "training.checkpoint": "save and load return nothing: a file and a run are what they change",
    },
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES", "TRAINED"), NO_MODEL),
}


# Random inputs


CONFIGS = st.fixed_dictionaries(
    {
        "text": st.text(max_size=60),
        "count": st.integers(0, 40),
        "V": st.integers(2, 12),
        "D": st.integers(1, 8),
        "rank": st.integers(1, 4),
        "share": st.sampled_from([0.0, 0.3, 0.9]),
        "number": st.sampled_from([0.1, 0.5, 2.0]),
    }
)


def of_bpe(config: dict[str, Any], n: Numbers) -> Case:
    return Case(str(n.seed), lambda draw: [config["text"] * 2, config["count"]])


def of_encode(config: dict[str, Any], n: Numbers) -> Case:
    def draw_args(draw: Any) -> list[Any]:
        words = [*exercises.ODD, *exercises.PLAIN]
        learned = reference.right_merges(config["text"] + exercises.text_of(draw, words, 60), config["count"])
        return [config["text"] + exercises.text_of(draw, words, n.length), learned.tolist()]

    return Case(str(n.seed), draw_args)


def of_decode(config: dict[str, Any], n: Numbers) -> Case:
    def draw_args(draw: Any) -> list[Any]:
        merges = reference.right_merges(exercises.text_of(draw, exercises.ODD, 60), config["count"]).tolist()
        return [draw.tokens(258 + len(merges), 3 * n.length).tolist(), merges]

    return Case(str(n.seed), draw_args)


def of_tokenizer_json(config: dict[str, Any], n: Numbers) -> Case:
    return of_encode(config, n)


def of_batches(config: dict[str, Any], n: Numbers) -> Case:
    B, T = n.batch, 1 + n.length % 6
    lengths = [1 + (n.seed + 5 * i) % 9 for i in range(config["D"])] + [B * T + n.seed % 7]
    return exercises.batches_case(str(n.seed), lengths, (B, T), 1 + n.seed % 5, n.seed % 11, n.seed % 3)


def of_loss(config: dict[str, Any], n: Numbers) -> Case:
    items = None if n.seed % 2 else 1 + n.seed % 50
    shape = (n.batch, n.length, config["V"])
    return exercises.loss_case(str(n.seed), shape, config["share"], items, scale=n.scale)


def of_adamw(config: dict[str, Any], n: Numbers) -> Case:
    count = 1 + n.length % 5
    rates = [0.1 / (1 + (n.seed + step) % 3) for step in range(count)]
    betas = (0.7, 0.9, 0.5)[n.seed % 3], (0.95, 0.999)[n.seed % 2]
    options = exercises.options(*betas, 1e-6, config["number"])
    more = {"absent": [n.seed % count], "resumed": count - 1 if n.seed % 2 else None}
    return exercises.adamw_case(str(n.seed), [[config["D"], config["V"]], [config["V"]]], rates, options, **more)


def of_schedule(config: dict[str, Any], n: Numbers) -> Case:
    total = 5 + n.length + n.seed % 40
    return exercises.rate_case(
        str(n.seed), 1, total + 3, config["number"], n.seed % (total - 1), total, config["share"]
    )


def of_clip(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.clip_case(str(n.seed), [[n.batch, config["V"]], [config["D"]]], config["number"], n.scale)


def of_accumulate(config: dict[str, Any], n: Numbers) -> Case:
    lengths = [1 + (n.seed + 3 * i) % (n.length + 2) for i in range(n.batch + 2)]
    sizes = [len(lengths)] if n.seed % 3 == 0 else [1, len(lengths) - 1]
    return exercises.accumulate_case(str(n.seed), config["V"], config["D"], lengths, sizes)


def of_worth(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.worth_case(str(n.seed), 2 + config["V"], 150 + n.length, 0.6)


def of_checkpoint(config: dict[str, Any], n: Numbers) -> Case:
    shape, before, after = (1 + n.seed % 6, n.batch + 1, config["D"]), n.seed % 5, 1 + n.length % 4
    if n.seed % 3 == 0:
        return exercises.run_case(str(n.seed), shape, 1 + before, after, **exercises.KEPT)
    return exercises.run_case(str(n.seed), shape, before, after, 1 + n.seed % 2)


def of_sft(config: dict[str, Any], n: Numbers) -> Case:
    talks = [exercises.TALK, exercises.SYSTEM, (*exercises.TALK, *exercises.TALK), (*exercises.SYSTEM, "user")]
    chats = [talks[(n.seed + i) % 4] for i in range(n.batch)]
    return exercises.sft_case(str(n.seed), chats, 81 if n.seed % 2 else 7, 81, 3 + n.length + n.seed % 20)


def of_lora(config: dict[str, Any], n: Numbers) -> Case:
    shape = (n.length, config["D"], config["V"])
    return exercises.lora_case(str(n.seed), shape, config["rank"], config["number"], n.seed % 2 == 0)


def of_dpo(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.dpo_case(str(n.seed), (n.batch, 4 + n.length, config["V"]), config["number"])


def of_tensors(config: dict[str, Any], n: Numbers) -> Case:
    dtype = ("float32", "bfloat16", "float16")[n.seed % 3]
    return exercises.tensors_case(str(n.seed), config["V"], config["D"], config["rank"], dtype, n.seed % 2 == 0)


RANDOM = {
    "training.bpe": of_bpe,
    "training.encode": of_encode,
    "training.decode": of_decode,
    "training.batches": of_batches,
    "training.loss": of_loss,
    "training.adamw": of_adamw,
    "training.schedule": of_schedule,
    "training.clip": of_clip,
    "training.accumulate": of_accumulate,
    "training.worth": of_worth,
    "training.checkpoint": of_checkpoint,
    "training.sft": of_sft,
    "training.lora": of_lora,
    "training.dpo": of_dpo,
    "training.tensors": of_tensors,
    "training.tokenizer_json": of_tokenizer_json,
}


# Other right programs: the tokenizer

Pair = tuple[int, int]


def split_words(text: str) -> list[list[int]]:
    found: list[list[int]] = LESSON.solutions["split_words"](text)
    return found


def joined(word: list[int], pair: Pair, new: int) -> list[int]:
    """A stack: what lies on top and the next id."""
    stack: list[int] = []
    for token in word:
        if stack and (stack[-1], token) == pair:
            stack[-1] = new
        else:
            stack.append(token)
    return stack


def bpe_of_every_word(text: str, count: int) -> list[list[int]]:
    """Words as often as they occur, and a sorted list of pairs."""
    words, merges = split_words(text), list[list[int]]()
    for new in range(256, 256 + count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            return merges
        pair = sorted(pairs, key=lambda pair: (-pairs[pair], pair))[0]
        merges.append(list(pair))
        words = [joined(word, pair, new) for word in words]
    return merges


def bpe_that_updates(text: str, count: int) -> list[Pair]:
    """Counts are kept, and changed where a word has the pair."""
    words: list[list[Any]] = [[list(word), times] for word, times in Counter(map(tuple, split_words(text))).items()]
    pairs: Counter[Pair] = Counter()
    for word, times in words:
        for pair in pairwise(word):
            pairs[pair] += times
    merges: list[Pair] = []
    while len(merges) < count and any(pairs.values()):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair[0], pair[1]))
        for entry in words:
            word, times = entry
            if best not in pairwise(word):
                continue
            for pair in pairwise(word):
                pairs[pair] -= times
            entry[0] = joined(word, best, 256 + len(merges))
            for pair in pairwise(entry[0]):
                pairs[pair] += times
        merges.append(best)
    return merges


def encode_merge_by_merge(text: str, merges: list[Pair]) -> list[int]:
    """All merges in order, over each word."""
    ids: list[int] = []
    for word in split_words(text):
        for number, pair in enumerate(merges):
            word = joined(word, tuple(pair), 256 + number)  # type: ignore[arg-type]
        ids.extend(word)
    return ids


def encode_by_heap(text: str, merges: list[Pair]) -> tuple[int, ...]:
    """The place of the lowest rank, one merge at a time, with words that are known."""
    ranks, known, ids = {tuple(pair): i for i, pair in enumerate(merges)}, {}, []
    for word in split_words(text):
        key = tuple(word)
        if key not in known:
            while True:
                found = [(ranks[pair], i) for i, pair in enumerate(pairwise(word)) if pair in ranks]
                if not found:
                    break
                rank, place = min(found)
                word = [*word[:place], 256 + rank, *word[place + 2 :]]
            known[key] = word
        ids += known[key]
    return tuple(ids)


def decode_recursively(ids: Iterable[int], merges: list[Pair]) -> str:
    """Each id is taken apart until bytes are left."""
    order = LESSON.solutions["BYTES"]

    def bytes_of(token: int) -> list[int]:
        if token < 256:
            return [order[token]]
        if token >= 256 + len(merges):
            return []
        return [byte for part in merges[token - 256] for byte in bytes_of(part)]

    return str(bytes(byte for token in ids for byte in bytes_of(token)), "utf-8", "replace")


def decode_incrementally(ids: Iterable[int], merges: list[Pair]) -> str:
    """A decoder that keeps what is not complete yet."""
    import codecs

    decoder, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
    table = {i: bytes([byte]) for i, byte in enumerate(LESSON.solutions["BYTES"])}
    for left, right in merges:
        table[len(table)] = table[left] + table[right]
    for token in ids:
        text += decoder.decode(table.get(token, b""))
    return text + decoder.decode(b"", final=True)


def json_by_library(merges: list[Pair]) -> dict[str, Any]:
    """What the library itself writes."""
    import json

    made: dict[str, Any] = json.loads(reference.library_of(merges).to_str())
    made["added_tokens"][0]["id"] = 256 + len(merges)  # the library counts tokens that are spelled alike once
    return made


def json_with_merges_as_text(merges: list[Pair]) -> dict[str, Any]:
    """Merges as the older files have them, each a text with a space in it."""
    made: dict[str, Any] = copy.deepcopy(LESSON.solutions["tokenizer_json"](merges))
    made["model"]["merges"] = [" ".join(pair) for pair in made["model"]["merges"]]
    made["version"] = "1.0"
    return made


# Other right programs: batches


class BatchesOfWindows:
    """Windows of T + 1 tokens, and orders that are kept."""

    def __init__(self, documents: Iterable[list[int]], end: int, B: int, T: int, seed: int = 0) -> None:
        ids: list[int] = []
        for document in documents:
            ids += document
            ids.append(end)
        self.windows = torch.tensor(ids).unfold(0, T + 1, T)
        self.B, self.seed, self.position = B, seed, 0
        self.orders: dict[int, Tensor] = {}

    def take(self) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(self.position, len(self.windows) // self.B)
        if epoch not in self.orders:
            generator = torch.Generator()
            generator.manual_seed(1000 * self.seed + epoch)
            self.orders[epoch] = torch.randperm(len(self.windows), generator=generator)
        rows = self.windows[self.orders[epoch][place * self.B :][: self.B]]
        self.position += 1
        return rows[:, :-1], rows[:, 1:]


class BatchesByLoader:
    """PyTorch's own sampler and loader, started at the epoch and run up to the place."""

    def __init__(self, documents: Iterable[list[int]], end: int, B: int, T: int, seed: int = 0) -> None:
        stream = [token for document in documents for token in [*document, end]]
        pairs = range(0, len(stream) - T, T)
        self.pieces = [(torch.tensor(stream[i : i + T]), torch.tensor(stream[i + 1 : i + T + 1])) for i in pairs]
        self.B, self.seed, self.position = B, seed, 0

    def take(self) -> list[Tensor]:
        epoch, place = divmod(self.position, len(self.pieces) // self.B)
        sampler = RandomSampler(self.pieces, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        loader: DataLoader[Any] = DataLoader(self.pieces, self.B, sampler=sampler)  # type: ignore[arg-type]
        self.position += 1
        found: list[Tensor] = next(islice(loader, place, None))
        return found


# Other right programs: steps


def loss_by_kernel(logits: Tensor, targets: Tensor, num_items: int | None = None) -> Tensor:
    summed = F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="sum")
    count = targets.ne(-100).sum().clamp(min=1) if num_items is None else max(num_items, 1)
    return summed / count


def loss_by_one_hot(logits: Tensor, targets: Tensor, num_items: int | None = None) -> Tensor:
    """By ones and zeros, and 0 in place of what is ignored."""
    kept = targets != -100
    ones = F.one_hot(targets.masked_fill(~kept, 0), logits.shape[-1])
    losses = -logits.float().log_softmax(-1).where(ones > 0, 0.0).sum(-1).where(kept, 0.0)
    return losses.sum() / max(kept.sum().item() if num_items is None else num_items, 1)


class AdamWByFormula(LESSON.solutions["AdamW"]):  # type: ignore[misc, name-defined]
    """As the paper writes it, with new tensors."""

    def step(self) -> None:
        b1, b2 = self.betas
        for p, s in zip(self.parameters, self.state, strict=True):
            if p.grad is not None:
                s["t"] += 1
                s["m"] = b1 * s["m"] + (1 - b1) * p.grad
                s["v"] = b2 * s["v"] + (1 - b2) * p.grad**2
                root = torch.sqrt(s["v"] / (1 - b2 ** s["t"])) + self.eps
                decay = self.lr * self.weight_decay * p.data if p.ndim > 1 else 0.0
                p.data = p.data - decay - self.lr * s["m"] / (1 - b1 ** s["t"]) / root


class AdamWInPlace(LESSON.solutions["AdamW"]):  # type: ignore[misc, name-defined]
    """As PyTorch's: one size of step, and the root divided by the root of the correction."""

    @torch.no_grad()
    def step(self) -> None:
        for p, s in zip(self.parameters, self.state, strict=True):
            if p.grad is None:
                continue
            s["t"] = s["t"] + 1
            s["m"].lerp_(p.grad, 1 - self.betas[0])
            s["v"].mul_(self.betas[1]).addcmul_(p.grad, p.grad, value=1 - self.betas[1])
            p -= self.lr * self.weight_decay * (p.ndim > 1) * p
            size = self.lr / (1 - self.betas[0] ** s["t"])
            p.addcdiv_(s["m"], s["v"].sqrt() / math.sqrt(1 - self.betas[1] ** s["t"]) + self.eps, value=-size)


def rate_by_lambda(update: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if update <= warmup and warmup > 0:
        return peak * (update / warmup)
    if update >= total:
        return peak * (floor if warmup < total else 1)
    angle = math.pi * (update - warmup) / (total - warmup)
    return peak * floor + 0.5 * peak * (1 - floor) * (math.cos(angle) + 1)


def rate_by_square(update: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """(1 + cos x) / 2 is the square of cos(x / 2)."""
    done = max(0, min(update, total) - warmup) / max(total - warmup, 1)
    warm = min(1.0, update / warmup) if warmup else 1.0
    return warm * peak * (floor + (1 - floor) * math.cos(math.pi * done / 2) ** 2)


@torch.no_grad()
def clip_by_sum(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """A sum of squares, in float32, and no scaling where there is nothing to clip."""
    with_gradient = [p for p in parameters if p.grad is not None]
    squares = [p.grad.float().square().sum() for p in with_gradient if p.grad is not None]
    norm = torch.stack([torch.zeros(()), *squares]).sum().sqrt()
    if norm > max_norm:
        for p in with_gradient:
            p.grad *= max_norm / (norm + 1e-6)
    return norm


def clip_flat(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """One long vector."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.cat([torch.zeros(0), *(g.reshape(-1) for g in gradients)])).item()
    for g in gradients:
        g.copy_(g * min(1.0, max_norm / (norm + 1e-6)))
    return norm


def accumulate_sums(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Gradients of sums, divided once at the end."""
    model.zero_grad(set_to_none=True)
    total, count = 0.0, 0
    for inputs, targets in micro_batches:
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        loss.backward()
        total, count = total + loss.item(), count + int(targets.ne(-100).sum())
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= max(count, 1)
    return torch.tensor(total / max(count, 1))


def accumulate_weighted(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Means, each with the share of all targets that its micro-batch has."""
    for p in model.parameters():
        p.grad = None
    counts = [(targets != -100).sum() for _, targets in micro_batches]
    losses = []
    for (inputs, targets), count in zip(micro_batches, counts, strict=True):
        loss = LESSON.solutions["cross_entropy"](model(inputs), targets) * count / max(sum(counts), 1)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def worth_by_torch(stream: Tensor, vocab_size: int) -> float:
    """PyTorch's own optimizer, a bias and an embedding, other numbers of steps."""
    found = []
    for with_previous in (False, True):
        table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(table.weight)
        optimizer = torch.optim.Adam(table.parameters(), lr=0.15)
        ids = stream[:-1] if with_previous else torch.zeros_like(stream[:-1])
        for _ in range(250):
            loss = F.cross_entropy(table(ids), stream[1:])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found.append(float(F.cross_entropy(table(ids), stream[1:]).detach()))
    return found[0] - found[1]


def worth_by_bias(stream: Tensor, vocab_size: int) -> float:
    """Random weights at first, a vector for the first model, and a rate that falls."""
    solved, before, after = LESSON.solutions, stream[:-1], stream[1:]
    bias, table = nn.Parameter(0.1 * torch.randn(vocab_size)), nn.Parameter(0.1 * torch.randn(vocab_size, vocab_size))
    optimizer = solved["AdamW"]([bias, table], lr=0.1, weight_decay=0.0)
    for step in range(400):
        optimizer.lr = 0.2 * (1 - step / 400) + 0.01
        optimizer.zero_grad()
        first = solved["cross_entropy"](bias.expand(1, len(after), -1), after[None])
        second = solved["cross_entropy"](table[before][None], after[None])
        (first + second).backward()
        optimizer.step()
    return first.item() - second.item()


# Other right programs: stopping and going on


class CheckpointByPickle:
    """Bytes first, then a file with a name that nobody has, and numbers that are copied into what is there."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    def save(self, run: Any) -> None:
        weights = {name: tensor.numpy() for name, tensor in run.model.state_dict().items()}
        state = [{"t": s["t"], "m": s["m"].tolist(), "v": s["v"].tolist()} for s in run.optimizer.state]
        numbers = [run.done, run.batches.position, torch.default_generator.get_state().tolist()]
        content = pickle.dumps([weights, state, numbers])
        with tempfile.NamedTemporaryFile(dir=self.file.parent, delete=False) as other:
            other.write(content)
        os.rename(other.name, self.file)

    def load(self, run: Any) -> None:
        weights, state, (done, position, generator) = pickle.loads(self.file.read_bytes())
        with torch.no_grad():
            for name, tensor in [*run.model.named_parameters(), *run.model.named_buffers()]:
                tensor.copy_(torch.from_numpy(weights[name]))
            for own, saved in zip(run.optimizer.state, state, strict=True):
                own["t"] = saved["t"]
                own["m"].copy_(torch.tensor(saved["m"]))
                own["v"].copy_(torch.tensor(saved["v"]))
        run.done, run.batches.position = done, position
        torch.default_generator.set_state(torch.tensor(generator, dtype=torch.uint8))


class CheckpointByRemoval:
    """A list, an open file, and what was written removed by hand."""

    def __init__(self, file: str | Path) -> None:
        self.file, self.new = Path(file), Path(f"{file}~")

    def save(self, run: Any) -> None:
        whole = [
            run.model.state_dict(),
            run.optimizer.state,
            run.done,
            run.batches.position,
            torch.random.get_rng_state(),
        ]
        try:
            with self.new.open("wb") as opened:
                torch.save(whole, opened)
        except BaseException:
            os.remove(self.new)
            raise
        os.replace(self.new, self.file)

    def load(self, run: Any) -> None:
        with self.file.open("rb") as opened:
            weights, state, run.done, run.batches.position, generator = torch.load(opened)
        run.model.load_state_dict(weights)
        run.optimizer.state[:] = state
        torch.random.set_rng_state(generator)


# Other right programs: fine-tuning


def sft_by_mask(chats: list[Any], pad: int, max_length: int) -> list[Tensor]:
    """A mask of what counts, and PyTorch's own padding."""
    inputs, targets = [], []
    for chat in chats:
        ids = torch.tensor([token for _, header, body in chat for token in [*header, *body]])[:max_length]
        flags = [flag for role, h, b in chat for flag in [False] * len(h) + [role == "assistant"] * len(b)]
        counts = torch.tensor(flags)[:max_length]
        inputs.append(ids[:-1])
        targets.append(torch.where(counts, ids, -100)[1:])
    pad_rows = nn.utils.rnn.pad_sequence
    return [pad_rows(inputs, batch_first=True, padding_value=pad), pad_rows(targets, True, -100)]


def sft_with_lists(chats: list[Any], pad: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Lists alone; the padding is cut off with the last token."""
    rows = []
    for chat in chats:
        row = []
        for role, header, body in chat:
            row += [(token, -100) for token in header]
            row += [(token, token if role == "assistant" else -100) for token in body]
        rows.append(row[:max_length])
    longest = max(len(row) for row in rows)
    rows = [row + [(pad, -100)] * (longest - len(row)) for row in rows]
    both = torch.tensor(rows)
    inputs = both[:, :-1, 0].clone()
    for number, chat in enumerate(chats):  # the last token of a shorter row is no input
        length = min(max_length, sum(len(header) + len(body) for _, header, body in chat))
        inputs[number, length - 1 :] = pad
    return inputs, both[:, 1:, 1]


class LoRABase(nn.Module):
    def __init__(self, base_layer: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base_layer, self.r, self.alpha = base_layer, r, alpha
        for p in base_layer.parameters():
            p.requires_grad = False
        dtype = base_layer.weight.dtype
        self.lora_A = nn.Parameter(torch.empty(r, base_layer.in_features, dtype=dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, r, dtype=dtype))


class LoRAByProducts(LoRABase):
    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + (x @ self.lora_A.T @ self.lora_B.T) * (self.alpha / self.r)

    def merged(self) -> nn.Linear:
        base = self.base_layer
        layer = nn.Linear(base.in_features, base.out_features, base.bias is not None, dtype=base.weight.dtype)
        whole = base.weight.double() + self.lora_B.double() @ self.lora_A.double() * (self.alpha / self.r)
        layer.weight.data = whole.to(base.weight.dtype)
        if base.bias is not None:
            layer.bias.data = base.bias.data.clone()
        return layer


class LoRAByOneWeight(LoRABase):
    """The difference is made first, as when few tokens are many."""

    def difference(self) -> Tensor:
        return self.alpha * (self.lora_B @ self.lora_A) / self.r

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.difference()) + F.linear(x, self.base_layer.weight, self.base_layer.bias)

    def merged(self) -> nn.Linear:
        layer = copy.deepcopy(self.base_layer)
        added = torch.einsum("or,ri->oi", self.lora_B.float(), self.lora_A.float()) * self.alpha / self.r
        layer.weight.data = (layer.weight.float() + added).type_as(layer.weight)
        return layer


def dpo_by_kernel(policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """PyTorch's cross-entropy, and softplus."""
    sums = [
        -F.cross_entropy(x.float().flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape).sum(-1)
        for x in (policy, reference)
    ]
    (c, r), (ref_c, ref_r) = sums
    margins = beta * ((c - r) - (ref_c - ref_r))
    return F.softplus(-margins).mean(), margins


def dpo_pair_by_pair(policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Only the tokens that count, one pair after the other."""

    def logprob(logits: Tensor, wanted: Tensor) -> Tensor:
        kept = wanted != -100
        return torch.log_softmax(logits[kept].float(), -1)[torch.arange(int(kept.sum())), wanted[kept]].sum()

    margins = []
    for b in range(policy.shape[1]):
        gained = [logprob(policy[i, b], targets[i, b]) - logprob(reference[i, b], targets[i, b]) for i in range(2)]
        margins.append(beta * (gained[0] - gained[1]))
    stacked = torch.stack(margins)
    return torch.logaddexp(torch.zeros_like(stacked), -stacked).mean(), stacked


def sft_padded_first(chats: list[Any], pad: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Rows are padded, then shifted: a shorter row keeps its last id as an input, which teaches nothing."""
    rows = []
    for chat in chats:
        ids = [token for _, header, body in chat for token in [*header, *body]][:max_length]
        labels = [
            label
            for role, header, body in chat
            for label in [-100] * len(header) + [t if role == "assistant" else -100 for t in body]
        ][:max_length]
        rows.append((torch.tensor(ids), torch.tensor(labels)))
    inputs = nn.utils.rnn.pad_sequence([ids for ids, _ in rows], True, pad)
    targets = nn.utils.rnn.pad_sequence([labels for _, labels in rows], True, -100)
    return inputs[:, :-1], targets[:, 1:]


def tensors_by_memory(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The head is left out where a change of its memory would change the embedding, too."""
    given: dict[str, Tensor] = {}
    own = model.state_dict(keep_vars=True)
    for name, weight in own.items():
        if name != "lm_head.weight" or weight is not own["model.embed_tokens.weight"]:
            given[name] = torch.empty(weight.shape, dtype=dtype).copy_(weight.detach())
    return given


def tensors_of_a_copy(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A copy of the whole model, cast, and its names without the head that hangs on the embedding."""
    copied: Any = copy.deepcopy(model).to(dtype)
    given = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in copied.state_dict().items()}
    if copied.lm_head.weight is copied.model.embed_tokens.weight:
        given.pop("lm_head.weight")
    return given


RIGHT = {
    "training.bpe": [bpe_of_every_word, bpe_that_updates],
    "training.encode": [encode_merge_by_merge, encode_by_heap],
    "training.decode": [decode_recursively, decode_incrementally],
    "training.batches": [BatchesOfWindows, BatchesByLoader],
    "training.loss": [loss_by_kernel, loss_by_one_hot],
    "training.adamw": [AdamWByFormula, AdamWInPlace],
    "training.schedule": [rate_by_lambda, rate_by_square],
    "training.clip": [clip_by_sum, clip_flat],
    "training.accumulate": [accumulate_sums, accumulate_weighted],
    "training.worth": [worth_by_torch, worth_by_bias],
    "training.checkpoint": [CheckpointByPickle, CheckpointByRemoval],
    "training.sft": [sft_by_mask, sft_with_lists, sft_padded_first],
    "training.lora": [LoRAByProducts, LoRAByOneWeight],
    "training.dpo": [dpo_by_kernel, dpo_pair_by_pair],
    "training.tensors": [tensors_by_memory, tensors_of_a_copy],
    "training.tokenizer_json": [json_by_library, json_with_merges_as_text],
}


# Programs that are right for some inputs only


def encode_longest(text: str, merges: list[Pair]) -> list[int]:
    """The longest token that fits, which gives the right ids for most short words."""
    order = LESSON.solutions["BYTES"]
    table = [bytes([byte]) for byte in order]
    for left, right in merges:
        table.append(table[left] + table[right])
    known, ids = {token: i for i, token in enumerate(table)}, []
    for word in split_words(text):
        spelled = b"".join(table[token] for token in word)
        while spelled:
            end = next(n for n in range(len(spelled), 0, -1) if spelled[:n] in known)
            ids.append(known[spelled[:end]])
            spelled = spelled[end:]
    return ids


def loss_of_texts_of_one_length(logits: Tensor, targets: Tensor, num_items: int | None = None) -> Tensor:
    """The mean of each row's mean."""
    rows = [
        LESSON.solutions["cross_entropy"](a[None], b[None], num_items) for a, b in zip(logits, targets, strict=True)
    ]
    return torch.stack(rows).sum() if num_items else torch.stack(rows).mean()


class AdamWWithOneCount(LESSON.solutions["AdamW"]):  # type: ignore[misc, name-defined]
    """One t for all parameters, which is right while each has a gradient."""

    def step(self) -> None:
        for state in self.state:
            state["t"] = max(s["t"] for s in self.state)
        super().step()


def accumulate_equal(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of means, which is right for texts of one length."""
    model.zero_grad()
    losses = [
        LESSON.solutions["cross_entropy"](model(ids), wanted) / len(micro_batches) for ids, wanted in micro_batches
    ]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return torch.stack(losses).sum().detach()


class BatchesInOneStream(LESSON.solutions["Batches"]):  # type: ignore[misc, name-defined]
    """A generator that runs on from epoch to epoch, which is right in the first."""

    def take(self) -> tuple[Tensor, Tensor]:
        pieces = (len(self.stream) - 1) // self.T
        if not hasattr(self, "generator"):
            self.generator, self.epoch = torch.Generator().manual_seed(1000 * self.seed), -1
        epoch, batch = divmod(self.position, pieces // self.B)
        if epoch != self.epoch:
            self.order, self.epoch = torch.randperm(pieces, generator=self.generator), epoch
        starts = self.order[batch * self.B :][: self.B, None] * self.T + torch.arange(self.T)
        self.position += 1
        return self.stream[starts], self.stream[starts + 1]


class CheckpointWithoutRandomness(LESSON.solutions["Checkpoint"]):  # type: ignore[misc, name-defined]
    """Right for a model without dropout."""

    def load(self, run: Any) -> None:
        before = torch.get_rng_state()
        super().load(run)
        torch.set_rng_state(before)


BY_CHANCE = {
    "training.batches": [BatchesInOneStream],
    "training.checkpoint": [CheckpointWithoutRandomness],
    "training.encode": [encode_longest],
    "training.loss": [loss_of_texts_of_one_length],
    "training.adamw": [AdamWWithOneCount],
    "training.accumulate": [accumulate_equal],
}


# What a learner is told


def sft_without_targets(chats: list[Any], pad: int, max_length: int) -> Tensor:
    inputs: Tensor = LESSON.solutions["sft_batch"](chats, pad, max_length)[0]
    return inputs


def accumulate_nothing(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> None:
    LESSON.solutions["accumulate"](model, micro_batches)


def accumulate_a_float(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> float:
    return float(LESSON.solutions["accumulate"](model, micro_batches))


def json_that_is_none(merges: list[Pair]) -> dict[str, Any]:
    made = json_by_library(merges)
    del made["model"]["vocab"]
    return made


class BatchesWithoutTargets(LESSON.solutions["Batches"]):  # type: ignore[misc, name-defined]
    def take(self) -> Tensor:
        inputs: Tensor = super().take()[0]
        return inputs


TOLD = [
    Told("training.batches", BatchesWithoutTargets, ["two tensors belong there: inputs, targets"]),
    Told("training.sft", sft_without_targets, ["two tensors belong there: inputs, targets"]),
    Told("training.accumulate", accumulate_nothing, ["the loss of the whole batch belongs there"]),
    Told("training.accumulate", accumulate_a_float, ["accumulate returned a float", "as a tensor"]),
    Told("training.tokenizer_json", json_that_is_none, ["the tokenizers library can't read it"]),
    Told(
        "training.accumulate",
        Change("training.loss", "logits.logsumexp(dim=-1) -", "2 * logits.logsumexp(dim=-1) -"),
        ["Mend `training.loss` first"],
    ),
]


# The lesson's own cells


RERUNS = {
    "with other tokenizers, losses, optimizers, batches and adapters, for few steps": Rerun(
        {
            "training.encode": encode_by_heap,
            "training.decode": decode_incrementally,
            "training.batches": BatchesOfWindows,
            "training.loss": loss_by_kernel,
            "training.adamw": AdamWInPlace,
            "training.schedule": rate_by_square,
            "training.clip": clip_by_sum,
            "training.accumulate": accumulate_weighted,
            "training.checkpoint": CheckpointByPickle,
            "training.sft": sft_by_mask,
            "training.lora": LoRAByProducts,
            "training.dpo": dpo_by_kernel,
            "training.tensors": tensors_by_memory,
            "training.tokenizer_json": json_by_library,
        },
        changes={
            "80": "16",
            "range(30)": "range(4)",
            '"right", 150': '"right", 10',
            "150, shifted": "10, shifted",
            '"no mask", 150': '"no mask", 10',
            "fine_tuned(60": "fine_tuned(4",
            "range(60)": "range(4)",
            "range(25)": "range(3)",
        },
        shows=["by tokens: loss"],
    ),
}
