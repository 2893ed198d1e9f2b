"""What is right in 12-training: the tokenizers library, PyTorch and transformers; brute force for SFT, LoRA and DPO."""

import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from . import drives

END = "<|endoftext|>"

# The tokenizer


def library(model: models.BPE) -> Tokenizer:
    """A tokenizer that splits texts and spells bytes as GPT-2's does."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def letters() -> list[str]:
    """The characters that stand for the 256 bytes, in the order of their ids."""
    return sorted(ByteLevel.alphabet())


def library_of(merges: Sequence[Sequence[int]], *, with_end: bool = True) -> Tokenizer:
    """The library's tokenizer with these merges of ids, and a token for the end behind them."""
    tokens, pairs = letters(), []
    for left, right in merges:
        pairs.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    tokenizer = library(models.BPE({token: number for number, token in enumerate(tokens)}, pairs))
    if with_end:
        tokenizer.add_special_tokens([END])
    return tokenizer


def right_merges(text: str, count: int) -> Tensor:
    """What the library's trainer learns, as ids."""
    tokenizer = library(models.BPE())
    alphabet = ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=alphabet, show_progress=False)  # type: ignore[call-arg]
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    ids = [[model["vocab"][token] for token in pair] for pair in model["merges"]]
    return torch.tensor(ids, dtype=torch.int64).view(-1, 2)


def right_ids(text: str, merges: list[list[int]]) -> Tensor:
    return torch.tensor(library_of(merges, with_end=False).encode(text).ids, dtype=torch.int64)


def right_characters(ids: list[int], merges: list[list[int]]) -> Tensor:
    text = library_of(merges).decode(ids, skip_special_tokens=True)
    return torch.tensor([ord(character) for character in text], dtype=torch.int64)


def right_library_reads(text: str, merges: list[list[int]]) -> Tensor:
    tokenizer = library_of(merges)
    ids = tokenizer.encode(text).ids
    back = tokenizer.decode(ids, skip_special_tokens=False)
    end = tokenizer.token_to_id(END)
    return torch.tensor([tokenizer.get_vocab_size(), end, -1, *ids, -1, *map(ord, back)], dtype=torch.int64)


def right_dict(merges: list[list[int]]) -> Tensor:
    """256 bytes and each spelled token once; the end behind all merges; merge i has the id 256 + i."""
    tokens = letters()
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    once = [number for number, token in enumerate(tokens) if number >= 256 and tokens.count(token) == 1]
    return torch.tensor([len(set(tokens)), len(tokens), *once], dtype=torch.int64)


# Batches


def right_batches(documents: list[list[int]], end: int, B: int, T: int, seed: int, position: int, count: int) -> Tensor:
    """What PyTorch's DataLoader gives for windows of T + 1 tokens, epoch after epoch."""
    stream = torch.tensor([token for document in documents for token in (*document, end)])
    windows = stream.unfold(0, T + 1, T)
    taken: list[Tensor] = []
    epoch = 0
    while len(taken) < position + count:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        sampler = RandomSampler(range(len(windows)), generator=generator)
        taken += DataLoader(windows, B, sampler=sampler, drop_last=True)  # type: ignore[arg-type]
        epoch += 1
    rows = torch.cat([*taken[position : position + count], taken[position]])
    return torch.stack([rows[:, :-1], rows[:, 1:]])


# Steps


def right_loss(logits: Tensor, targets: Tensor, num_items: int | None = None) -> Tensor:
    """PyTorch's sum over the targets that are kept, by their number; 0 where none is."""
    summed = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="sum")
    return summed / max(int((targets != -100).sum()) if num_items is None else num_items, 1)


def right_nothing_then_all(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.stack([0.0 * logits.float().sum(), right_loss(logits, targets), torch.zeros(())])


def right_loss_of_what_is_wrong(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.stack([right_loss(logits, targets), torch.zeros(()), torch.zeros(())])


def right_updates(
    weights: list[Tensor],
    gradients: list[Tensor],
    rates: list[float],
    options: dict[str, Any],
    absent: list[int],
    resumed: int | None = None,
) -> Tensor:
    """torch.optim.AdamW, with matrices in a group that decays and the rest in one that doesn't; never resumed."""
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    decay = options["weight_decay"]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=rates[0], betas=options["betas"], eps=options["eps"], foreach=False)
    seen = []
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for number, (parameter, every) in enumerate(zip(parameters, gradients, strict=True)):
            missing = step in absent and number in (1, 2)
            parameter.grad = None if missing else every[step].clone()
        optimizer.step()
        seen.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return torch.stack(seen)


def right_rates(first: int, last: int, peak: float, warmup: int, total: int, floor: float) -> Tensor:
    """transformers' schedule, and its last value after the end."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, total, min_lr_rate=floor)
    factors = [schedule.lr_lambdas[0](min(update, total)) for update in range(first, last + 1)]
    return peak * torch.tensor(factors, dtype=torch.float64)


def right_clipped(gradients: list[Tensor], max_norm: float, frozen: int = 0) -> Tensor:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    for parameter in parameters[:frozen]:
        parameter.requires_grad_(False)
    norm = nn.utils.clip_grad_norm_([nn.Parameter(torch.zeros(1)), *parameters], max_norm, foreach=False)
    left = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
    return torch.cat([norm.to(gradients[0].dtype).view(1), *left, torch.zeros(1, dtype=gradients[0].dtype)])


def right_clipped_after_zeros(gradients: list[Tensor], max_norm: float) -> Tensor:
    zeros = [torch.zeros_like(gradient) for gradient in gradients]
    return torch.cat([right_clipped(some, max_norm) for some in (zeros, gradients)])


def right_clipped_after_nothing(gradients: list[Tensor], max_norm: float) -> Tensor:
    nothing = nn.utils.clip_grad_norm_([nn.Parameter(torch.zeros(2))], max_norm)
    return torch.cat([nothing.to(gradients[0].dtype).view(1), right_clipped(gradients, max_norm)])


def right_accumulated(table: Tensor, head: Tensor, ids: Tensor, lengths: list[int], sizes: list[int]) -> Tensor:
    """The loss and the gradients of one batch that has all texts at once."""
    ((inputs, targets),) = drives.micro_batches(ids, lengths, [len(ids)])
    with torch.enable_grad():
        model = drives.Tiny(table.detach(), head.detach())
        loss = right_loss(model(inputs), targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])


def right_with_a_frozen_table(table: Tensor, *given: Any) -> Tensor:
    right = right_accumulated(table, *given)
    right[1 : 1 + table.numel()] = 0.0
    return right


def right_after_nothing(*args: Any) -> Tensor:
    right = right_accumulated(*args)
    return torch.cat([torch.zeros_like(right), right])


def right_worth(stream: Tensor, vocab_size: int) -> float:
    """By counting: the entropy of a token, minus that of a token whose predecessor is known, in nats."""
    pairs = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    for before, after in zip(stream.tolist(), stream.tolist()[1:], strict=False):
        pairs[before, after] += 1
    joint = pairs / pairs.sum()
    alone = joint.sum(0)
    given = joint / joint.sum(1, keepdim=True).clamp(min=1e-12)
    return float(torch.special.entr(alone).sum() + torch.special.xlogy(joint, given).sum())


# Stopping and going on: a training that is never stopped


def uninterrupted(seed: int, weight: Tensor, x: Tensor, y: Tensor, count: int) -> tuple[drives.Training, list[float]]:
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        training = drives.Training(weight, x, y)
        return training, drives.steps_of(training, count)


def right_gone_on(weight: Tensor, x: Tensor, y: Tensor, before: int, after: int, often: int) -> Tensor:
    training, losses = uninterrupted(3, weight, x, y, before * often + after)
    end = [*losses[before * often :], float(training.done), float(training.batches.position)]
    return torch.tensor([*losses, *end, *end, *end])


def right_file_kept(weight: Tensor, x: Tensor, y: Tensor, before: int, after: int, name: str = "") -> Tensor:
    _, losses = uninterrupted(4, weight, x, y, before + after)
    return torch.tensor([*losses[before:], 0.0, 0.0, 0.0, 0.0, 0.0])


# Fine-tuning


def right_sft(chats: list[Any], pad: int, max_length: int) -> Tensor:
    """Token by token: what follows each, and whether an answer has it."""
    rows = []
    for chat in chats:
        tokens: list[tuple[int, bool]] = []
        for role, header, body in chat:
            tokens += [(token, False) for token in header] + [(token, role == "assistant") for token in body]
        rows.append(tokens[:max_length])
    T = max(map(len, rows)) - 1
    both = torch.stack([torch.full((len(rows), T), pad), torch.full((len(rows), T), -100)])
    for row, tokens in enumerate(rows):
        for t in range(len(tokens) - 1):
            following, answered = tokens[t + 1]
            both[0, row, t] = tokens[t][0]
            both[1, row, t] = following if answered else -100
    return both


def right_adapted(x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> Tensor:
    base = F.linear(x, weight, bias if len(bias) else None)
    return base + alpha / len(A) * F.linear(F.linear(x, A), B)


def right_before(x: Tensor, A: Tensor, B: Tensor, *_: Any) -> Tensor:
    return torch.tensor([1, 1, 1, A.numel() + B.numel(), 0, 1, 1, 1])


def right_merged(x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> Tensor:
    """In float64, rounded once."""
    whole = weight.double() + alpha / len(A) * B.double() @ A.double()
    rounded = whole.to(weight.dtype).flatten()
    numbers = torch.cat([rounded, rounded, bias, torch.zeros(4, dtype=weight.dtype)]).detach()
    return numbers + 0 * (x.sum() + A.sum() + B.sum())  # what is merged has no gradient


def right_dpo(policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Rafailov et al. (2023), equation 7."""

    def summed(logits: Tensor) -> Tensor:
        tokens = F.cross_entropy(logits.float().flatten(0, 2), targets.flatten(), ignore_index=-100, reduction="none")
        return -tokens.view(targets.shape).sum(-1)  # [2, B]

    more = summed(policy) - summed(reference)
    margins = beta * (more[0] - more[1])
    return torch.cat([-F.logsigmoid(margins).mean().view(1), margins.detach()])


# The hub's folder


def right_files(
    table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, dtype: str, *heads: Tensor
) -> dict[str, Tensor]:
    tensors = {
        "model.embed_tokens.weight": table,
        "model.norm.weight": scale,
        "model.last_norm.weight": scale,
        "model.seen": scale.flip(0),
        "model.scale": scale[0],
        "model.up_proj.weight": turned.T,
        "model.q_proj.weight": square,
        **({"lm_head.weight": heads[0]} if heads else {}),
    }
    return {name: tensors[name].to(getattr(torch, dtype)) for name in sorted(tensors)}


def right_values(*args: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in right_files(*args).values()])


def right_names(*args: Any) -> Tensor:
    text = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in right_files(*args).items())
    return torch.tensor([ord(character) for character in text])


def no_faults(*_: Any) -> Tensor:
    return torch.zeros(5, dtype=torch.int64)
