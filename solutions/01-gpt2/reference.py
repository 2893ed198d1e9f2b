"""What is right in 01-gpt2: transformers' GPT-2, and toy models that write what its ``generate`` writes."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from grader.authoring.kit import Config, Draw, hf
from grader.authoring.kit.toy import random_toy_lm, reference_generate


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
