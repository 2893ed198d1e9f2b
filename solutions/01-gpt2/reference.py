"""What is right in 01-gpt2: transformers' GPT-2 and its loss, and toy models that write what its ``generate`` writes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from grader.authoring.kit import Config, Draw, hf
from grader.authoring.kit.toy import random_toy_lm, reference_generate

from . import drives


def reference_config(config: Config) -> Any:
    return hf.config(GPT2Config, config)


def build_mlp(config: Config) -> nn.Module:
    made: nn.Module = GPT2MLP(config.get("n_inner") or 4 * config.n_embd, reference_config(config))
    return made


def build_model(config: Config) -> nn.Module:
    made: nn.Module = GPT2LMHeadModel(reference_config(config)).eval()
    return made


def generation_args(
    prompt: int,
    new_tokens: int,
    n_positions: int,
    ends: Callable[[int, list[int]], bool] | None = None,
    vocab_size: int = 61,
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens and, if `ends` is given, an end token.

    ends(token, prompt): whether a token will do. Models are drawn until one of them writes such a token, and not as
    its first, second or last.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            toy = random_toy_lm(vocab_size, n_positions, draw.generator)
            ids = draw.tokens(vocab_size, 1, prompt)
            if ends is None:
                return toy, ids, new_tokens
            written = reference_generate(toy, ids, new_tokens).tolist()
            for i in range(2, new_tokens - 1):
                if written[i] not in written[:i] and ends(written[i], ids[0].tolist()):
                    return toy, ids, new_tokens, written[i]

    return draw_args


def repeating_args(prompt: int, new_tokens: int, n_positions: int) -> Any:
    """As `generation_args`, with models whose tokens are so much alike that one of them is written again and again."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        drawn = generation_args(prompt, new_tokens, n_positions)
        while True:
            toy, ids, _ = drawn(draw)
            with torch.no_grad():
                toy.position.mul_(0.01)
                toy.token.mul_(0.01).add_(draw.normal(toy.token.shape[1]))
            if len(set(reference_generate(toy, ids, new_tokens).tolist())) == 1:
                return toy, ids, new_tokens

    return draw_args


def close_args(prompt: int, new_tokens: int, n_positions: int) -> Any:
    """As `generation_args`, with a token before the one that is written first, whose logit is 0.03 % lower."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        drawn = generation_args(prompt, new_tokens, n_positions)
        while True:
            toy, ids, _ = drawn(draw)
            first = reference_generate(toy, ids, 1).item()
            with torch.no_grad():
                logits = toy(ids)[0, -1]
                toy.head[first - 1] = toy.head[first] * (1 - 3e-4)
            if first and 5 < logits[first] < 10:
                return toy, ids, new_tokens

    return draw_args


# Training: transformers' own loss, which reads all T + 1 tokens of a row and shifts by itself


def right_training(
    table: Tensor, places: Tensor, rows: Tensor, name: str, options: dict[str, Any], left: float
) -> Tensor:
    """The losses of some steps, then all weights after the last; gradients of before (`left`) do not count."""
    with torch.enable_grad():
        model = drives.TinyModel(table.detach(), torch.cat([places.detach(), torch.zeros(1, places.shape[1])]))
        optimizer, losses = drives.optimizer_of(model, name, options), []
        for batch in rows:
            optimizer.zero_grad()
            loss = ForCausalLMLoss(model(batch), batch, vocab_size=len(table))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().view(1))
    return torch.cat([*losses, model.wte.detach().flatten(), model.wpe.detach()[:-1].flatten()])


# What a head costs, token by token and head by head


def surprise(ids: Tensor, heads: int, weights: Sequence[Tensor], removed: Sequence[int] | None = None) -> float:
    """The mean loss of `drives.SmallGPT` at the next token, in float64. removed: a layer, and its head that gives 0."""
    table, places, *layers = (weight.double() for weight in weights)
    width = table.shape[1] // heads
    lost = []
    for text in ids:
        stream = [table[token] + places[position] for position, token in enumerate(text.tolist())]
        for number, (c_attn, attn_bias, c_proj, proj_bias) in enumerate(zip(*layers, strict=True)):
            rows = [(x @ c_attn + attn_bias).view(3, heads, width) for x in stream]
            given = []
            for t, (query, _, _) in enumerate(rows):
                mixed = torch.zeros(heads, width, dtype=torch.float64)
                for head in range(heads):
                    scores = torch.stack([query[head] @ rows[s][1][head] for s in range(t + 1)]) / width**0.5
                    values = torch.stack([rows[s][2][head] for s in range(t + 1)])
                    if removed is None or list(removed) != [number, head]:
                        mixed[head] = scores.softmax(0) @ values
                given.append(mixed.flatten() @ c_proj + proj_bias)
            stream = [x + more for x, more in zip(stream, given, strict=True)]
        for x, following in zip(stream, text.tolist()[1:], strict=False):
            scores = table @ x
            lost.append(float(scores.logsumexp(0) - scores[following]))
    return sum(lost) / len(lost)


def right_costs(ids: Tensor, heads: int, asked: Sequence[Sequence[int]], weights: list[Tensor]) -> list[float]:
    return [surprise(ids, heads, weights, head) - surprise(ids, heads, weights) for head in asked]
