"""Toy models with random weights, and what transformers' own ``generate`` makes of them. For authors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from grader.recordings.toy_lm import ToyLM


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
