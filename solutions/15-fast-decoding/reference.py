"""What is right in 15-fast-decoding: transformers' attention and parameter counts, and brute force."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

from grader.authoring.kit import Config, Draw, hf
from grader.kv import bytes_at

from .drives import Said, calls_of_a_draft, greedy, long_text


def is_llama(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] != "qwen3")


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(LlamaConfig if is_llama(config) else Qwen3Config, config)


# The limit


def right_bytes(config: Config, context: int, weight_bytes: int = 4, cache_bytes: int = 4) -> int:
    """Counted on transformers' model without memory: all parameters, but of an embedding of its own one row."""
    with torch.device("meta"):
        model: Any = (LlamaForCausalLM if is_llama(config) else Qwen3ForCausalLM)(reference_config(config))
    weights = sum(parameter.numel() for parameter in model.parameters())
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        weights -= model.model.embed_tokens.weight[1:].numel()
    return weights * weight_bytes + bytes_at(config, context, element_bytes=cache_bytes)


# The cache


def cut(kv: Tensor, capacity: int, steps: Sequence[int]) -> tuple[list[Tensor], list[int]]:
    """What each append returns, and after each step its code, for appends that were refused, and the length."""
    kept, start = kv[:, :, :, :0], 0
    contents, codes = [], []
    for step in steps:
        length = kept.shape[3]
        if step > 100:
            codes += [1, length]
        elif step > 0 and length + step <= capacity:
            kept = torch.cat([kept, kv[:, :, :, start : start + step]], dim=3)
            contents.append(torch.cat([kept[0], kept[1]], dim=-1))
            start += step
            codes += [0, kept.shape[3]]
        elif step > 0 or length + step < 0:
            codes += [1, length]
        elif step <= 0:
            kept = kept[:, :, :, : length + step]
            codes.append(0)
    return contents, codes


def right_contents(kv: Tensor, capacity: int, steps: Sequence[int]) -> Tensor:
    return torch.cat(cut(kv, capacity, steps)[0], dim=2)


# Fused projections


def right_fused(x: Tensor, weight: Tensor, sizes: Sequence[int]) -> Tensor:
    given = x @ weight.to(x.dtype).T
    return torch.cat([given, given], dim=-1)


def right_memory(x: Tensor, weight: Tensor, sizes: Sequence[int]) -> list[int]:
    shapes = [number for size in sizes for number in (size, weight.shape[1])]
    return [1, weight.numel() * weight.element_size(), len(sizes), len(sizes), *shapes, 0]


# Attention


def build_attention(config: Config) -> nn.Module:
    return (LlamaAttention if is_llama(config) else Qwen3Attention)(reference_config(config), layer_idx=0)


def call_attention(module: Any, x: Tensor, table: Tensor, chunks: Sequence[int]) -> Tensor:
    """All tokens at once, under transformers' mask."""
    return hf.call_part(module, x, table)


def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """transformers' cosines and sines: [2, T, head_dim]."""
    parameters = {"rope_type": "default", "rope_theta": theta}
    return hf.rope_table(Qwen3RotaryEmbedding(Qwen3Config(head_dim=head_dim, rope_parameters=parameters)), positions)


# Int8


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales, in float64, each row by itself."""
    rows, scales = [], []
    for row in weight.double():
        scale = row.abs().max() / 127
        scales.append(scale)
        rows.append(torch.zeros_like(row) if scale == 0 else torch.floor(row / scale + 0.5))
    return torch.stack(rows), torch.stack(scales)


def near_codes(draw: Draw, rows: int, width: int, scale: float, zero: int | None = None) -> Tensor:
    """A weight [rows, width] whose numbers lie near codes and at none of the edges between them."""
    codes = torch.randint(-126, 127, (rows, width), generator=draw.generator).double()
    near = codes + 0.6 * (torch.rand(rows, width, generator=draw.generator).double() - 0.5)
    near[:, 0] = torch.where(draw.normal(rows) > 0, 127.0, -127.0).double()
    steps = scale * (0.2 + torch.rand(rows, 1, generator=draw.generator).double())
    weight = near * steps
    if zero is not None:
        weight[zero] = 0
    order = torch.randperm(width, generator=draw.generator)
    return weight[:, order].float()


def right_int8(x: Tensor, weight: Tensor) -> Tensor:
    codes, scales = rounded(weight)
    return (x.double() @ (codes * scales[:, None]).T).float()


def right_codes(x: Tensor, weight: Tensor) -> Tensor:
    codes, scales = rounded(weight)
    return torch.cat([codes, 1000 * scales[:, None]], dim=1).float()


def right_bound(x: Tensor, weight: Tensor) -> Tensor:
    _, scales = rounded(weight)
    return (x.double().abs().sum(dim=-1, keepdim=True) * scales / 2).float()


# Sampling


def pick_one(weights: Sequence[float], at: float) -> int:
    """The token in which a share of the whole falls, one after the other."""
    total = 0.0
    for token, weight in enumerate(weights):
        total += weight
        if at < total:
            return token
    return len(weights) - 1


def right_one(p: Sequence[float], q: Sequence[float], draft: int, u: float, v: float) -> tuple[int, int]:
    if u * q[draft] < p[draft]:
        return draft, 1
    rest = [max(0.0, a - b) for a, b in zip(p, q, strict=True)]
    return pick_one([part / sum(rest) for part in rest], v), 0


def right_tokens(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor) -> Tensor:
    rows = [right_one(*row) for row in zip(p.tolist(), q.tolist(), drafts.tolist(), *u.tolist(), strict=True)]
    return torch.tensor(rows).T


def right_step(p: Tensor, q: Tensor, drafts: Tensor, u: Tensor) -> list[int]:
    g, tokens = len(drafts), []
    for i, draft in enumerate(drafts.tolist()):
        token, accepted = right_one(p[i].tolist(), q[i].tolist(), draft, u[i].item(), u[g + i].item())
        tokens.append(token)
        if not accepted:
            return tokens
    return [*tokens, pick_one(p[g].tolist(), u[2 * g].item())]


# Generation with guesses


def right_text(toy: Any, ids: Tensor, numbers: Sequence[int], end: int | None, right: Sequence[int]) -> list[int]:
    written = greedy(toy, ids[0].tolist(), numbers[0])
    return written[: written.index(end) + 1] if end in written else written


def plan(toy: Any, ids: Tensor, numbers: Sequence[int], end: int | None, right: Sequence[int]) -> list[list[int]]:
    """For each run: the length of the text before it, how many guesses are asked for, and how many come; simulated."""
    new_tokens, guesses, offered = numbers
    total, done, steps = len(right_text(toy, ids, numbers, end, right)), 0, []
    while done < total:
        asked = min(guesses, new_tokens - done - 1)
        come = min(asked, offered)
        steps.append([ids.shape[1] + done, asked, come])
        done += min(right[(len(steps) - 1) % len(right)], come) + 1
    return steps


def right_pieces(toy: Any, ids: Tensor, *rest: Any) -> list[int]:
    steps = plan(toy, ids, *rest)
    return [(1 if i else ids.shape[1]) + come for i, (_, _, come) in enumerate(steps)]


def right_asked(toy: Any, ids: Tensor, *rest: Any) -> list[int]:
    steps = plan(toy, ids, *rest)
    return [asked for _, asked, _ in steps] + [length for length, _, _ in steps]


def right_room(toy: Any, ids: Tensor, numbers: Sequence[int], *rest: Any) -> list[int]:
    return [ids.shape[1] + numbers[0] - 1, 0]


def right_guesses(toy: Any, ids: Tensor, steps: Sequence[Sequence[int]]) -> list[int]:
    texts = calls_of_a_draft(toy, ids, [list(step) for step in steps])
    return [token for text, (_, wanted) in zip(texts, steps, strict=True) for token in greedy(toy, text, wanted)]


def right_rows(toy: Any, ids: Tensor, steps: Sequence[Sequence[int]]) -> list[int]:
    """Each call reads what is new since the tokens that its cache shares with the text, and all guesses but the last."""
    texts = calls_of_a_draft(toy, ids, [list(step) for step in steps])
    read: list[int] = []
    rows = 0
    for text, (_, wanted) in zip(texts, steps, strict=True):
        shared = 0
        while shared < min(len(read), len(text) - 1) and read[shared] == text[shared]:
            shared += 1
        if not wanted:
            continue
        rows += len(text) - shared + wanted - 1
        read = text + greedy(toy, text, wanted)[:-1]
    return [rows, 1]


# Prompt lookup and replay


def right_lookup(tokens: Sequence[int], n: int, longest: int) -> list[int]:
    """By all places at once: the longest match wins, then the latest."""
    T = len(tokens)
    found = [
        (size, end)
        for end in range(1, T)
        for size in range(1, longest + 1)
        if size <= end and tokens[end - size : end] == tokens[T - size :]
    ]
    best = max(found, default=None)
    guesses = list(tokens[best[1] : best[1] + n]) if best else []
    return [len(guesses), *guesses]


def right_runs(prompt: Sequence[int], written: Sequence[int], guesses: int, rule: Sequence[int]) -> int:
    return right_wanted(prompt, written, guesses, rule)[0]


def right_long_runs(prompt: Sequence[int], written: Sequence[int], guesses: int, rule: Sequence[int]) -> int:
    return right_runs(prompt, long_text(list(written)), guesses, rule)


def right_wanted(prompt: Sequence[int], written: Sequence[int], guesses: int, rule: Sequence[int]) -> list[int]:
    said, tokens, end = Said(*rule), list(prompt), len(prompt) + len(written)
    answer = [*prompt, *written]
    while len(tokens) < end:
        drafts = said(list(tokens), min(guesses, end - len(tokens) - 1))
        for draft in [*drafts, None]:
            right = draft == answer[len(tokens)]
            tokens.append(answer[len(tokens)])
            if not right:
                break
    return [said.calls, said.wanted]


def right_speed_up(acceptance: float, guesses: int, cost: float, verify: float = 1.0) -> float:
    """By the closed form."""
    tokens = guesses + 1 if acceptance == 1 else (1 - acceptance ** (guesses + 1)) / (1 - acceptance)
    return tokens / (guesses * cost + verify)
