"""Toy models with random weights, and what transformers' own ``generate`` makes of them. For authors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from grader.lessons.exercise import Draw
from grader.recordings.toy_lm import ToyLM

# `fixed` of an exercise whose function generates: its first arguments are the model and the prompt.
FIXED = {
    "argument 1.dim": "the width of a toy model, which generation does not see",
    "argument 2, axis 0": "one text, as the docstring says",
}


def random_toy_lm(vocab_size: int, n_positions: int, generator: torch.Generator, dim: int = 8) -> ToyLM:
    """A `ToyLM` whose weights are standard normal values from `generator`."""
    model = ToyLM(vocab_size, n_positions, dim).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


class ToyForGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A `ToyLM` that transformers' ``generate`` can drive; reads at most the last n_positions tokens."""

    config_class = PreTrainedConfig

    def __init__(self, toy: ToyLM) -> None:
        super().__init__(PreTrainedConfig.from_dict({"vocab_size": toy.config.vocab_size}))
        self.toy = toy

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.toy(input_ids[:, -self.toy.config.n_positions :]))


def reference_generate(
    toy: ToyLM, ids: Tensor, max_new_tokens: int, end_tokens: int | Sequence[int] | None = None
) -> Tensor:
    """The new token ids that transformers' greedy ``generate`` appends to ids [1, T]: [N] int64.

    end_tokens: the token, or any of the tokens, after which it stops.
    """
    settings = GenerationConfig.from_dict(
        {
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "use_cache": False,
            "eos_token_id": end_tokens if isinstance(end_tokens, int) else list(end_tokens or ()) or None,
            "pad_token_id": 0,
        }
    )
    model: Any = ToyForGeneration(toy)
    output: Tensor = model.eval().generate(ids, generation_config=settings, attention_mask=torch.ones_like(ids))
    return output[0, ids.shape[1] :]


def toy_that_ends(
    draw: Draw, n_positions: int, prompt: int, new_tokens: int, *, vocabulary: int = 61, ends: str | bool = True
) -> tuple[ToyLM, Tensor, int]:
    """A toy model, ids [1, prompt], and an end token that it writes in the middle of what is new, and not before.

    ends: "prompt", where the end token stands in the prompt as well; "zero", where it is token 0; else any will do.
    """
    while True:
        toy = random_toy_lm(vocabulary, n_positions, draw.generator)
        ids = draw.tokens(vocabulary, 1, prompt)
        written: Sequence[int] = reference_generate(toy, ids, new_tokens).tolist()
        middle = new_tokens // 2
        if (ends == "prompt" and written[middle] not in ids[0, :-1].tolist()) or (
            ends == "zero" and written[middle] != 0
        ):
            continue
        if written.index(written[middle]) == middle and len(set(written)) > middle:  # else too repetitive
            return toy, ids, written[middle]
