"""What the exercises of 01-gpt2 are checked against: transformers' GPT-2, eager attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.activations import NewGELUActivation
from transformers.masking_utils import create_causal_mask
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP, GPT2Attention, GPT2Block
from transformers.pytorch_utils import Conv1D

from grader.authoring.drives.generation import generated_despite_config, ints_among, tokens_written
from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, with_mistakes
from grader.authoring.kit.toy import random_toy_lm, reference_generate

TRACE = "gpt2.model"

# B, T, D, the heads and head_dim are all different numbers, so that no axis passes for another.
SMALL: dict[str, Any] = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "vocab_size": 53,
    "n_positions": 16,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 3,
    "layer_norm_epsilon": 1e-5,
}
OTHER = SMALL | {
    "vocab_size": 37,
    "n_positions": 12,
    "n_embd": 30,
    "n_head": 5,
    "n_layer": 2,
    "n_inner": 44,
    "layer_norm_epsilon": 1e-3,
}


# Sizes that a hidden recording varies, each apart from every other size of its case.
def tokens(draw: Draw) -> int:
    return draw.size("T", 7, 9, 10)


def few_tokens(draw: Draw) -> int:
    return draw.size("T", 5, 6, 9)


def other_tokens(draw: Draw) -> int:
    return draw.size("T", 5, 7, 8)


def many_tokens(draw: Draw) -> int:
    return draw.size("T", 11, 9, 8)


def wide(draw: Draw) -> int:
    return draw.size("D", 40, 36, 44)


def narrow(draw: Draw) -> int:
    return draw.size("D", 24, 20, 28)


def norm_of(dim: Callable[[Draw], int]) -> Callable[[Draw], dict[str, Any]]:
    """LayerNorm's arguments for a size that varies."""
    return lambda draw: {"dim": dim(draw), "eps": 1e-5}


def reference_config(config: Config) -> GPT2Config:
    """transformers' config for the learner's, with eager attention and without the tokens of GPT-2's vocabulary."""
    return GPT2Config(**config, bos_token_id=None, eos_token_id=None, attn_implementation="eager")


def build_mlp(config: Config) -> nn.Module:
    inner = config.get("n_inner") or 4 * config.n_embd
    return GPT2MLP(inner, reference_config(config))


def build_model(config: Config) -> nn.Module:
    return GPT2LMHeadModel(reference_config(config)).eval()


def call_causal(module: nn.Module, x: Tensor) -> Tensor:
    """GPT2Attention and GPT2Block are handed their mask by the model around them; here by this."""
    attention = module if isinstance(module, GPT2Attention) else module.attn
    mask = create_causal_mask(config=attention.config, inputs_embeds=x, attention_mask=None, cache=None)
    output = module(x, attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output


def call_model(module: nn.Module, ids: Tensor) -> Tensor:
    return module(input_ids=ids, use_cache=False).logits


def learners_name(name: str) -> str | None:
    """The hub file has no ``transformer.`` prefix; the head is tied and the course has no dropout modules."""
    left_out = ("transformer", "lm_head", "lm_head.weight", "transformer.drop")
    if name in left_out or name.endswith("dropout"):
        return None
    return name.removeprefix("transformer.")


def attention_sizes(build: Mapping[str, Any]) -> dict[str, int]:
    config = build["config"]
    return {"head_dim": config["n_embd"] // config["n_head"], "n_embd": config["n_embd"], "n_head": config["n_head"]}


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


def far_from_zero(draw: Draw) -> list[Tensor]:
    """Tokens that have much in common: each head's scores are near one number, which may be 100 or -100."""
    return [draw.normal(2, 1, 24, scale=9.0) + draw.normal(2, few_tokens(draw), 24, scale=0.2)]


def far_below(draw: Draw) -> list[Tensor]:
    """Large vectors: a head's scores are tens of thousands above or below 0, and its softmax takes one key alone."""
    return [draw.normal(3, few_tokens(draw), 24, scale=150.0)]


def logits(model: Any, ids: Tensor) -> Tensor:
    """What the model gives."""
    return model(ids)


def config_kept(model: Any, ids: Tensor) -> Tensor:
    """The numbers of the config that users of the model read; 0 where it keeps none."""
    config = getattr(model, "config", None)
    return torch.tensor([0, 0] if config is None else [config.n_positions, config.vocab_size])


def written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """The tokens that `generate` writes."""
    return tokens_written(generate(toy, ids, *more))


def ints_written(generate: Any, toy: Any, ids: Tensor, *more: Any) -> list[int]:
    """Which of the tokens that `generate` writes are Python ints."""
    return ints_among(generate(toy, ids, *more))


def with_zeros(x: Tensor) -> list[Tensor]:
    """The same with a first vector of zeros, which nothing but eps keeps from a division by zero."""
    x[0, 0] = 0.0
    return [x]


LAYER_NORM = Exercise(
    name="gpt2.layer_norm",
    solution="LayerNorm",
    reference=lambda dim, eps: nn.LayerNorm(dim, eps=eps),
    points=5,
    axes="B T D",
    sizes=lambda build: {"D": build["dim"]},
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, tokens(draw), wide(draw))], norm_of(wide)),
        Case("inputs around 3, no batch axis", lambda draw: [draw.normal(5, 24) + 3], {"dim": 24, "eps": 1e-5}),
        Case(
            "tiny inputs",
            lambda draw: with_zeros(draw.normal(2, few_tokens(draw), narrow(draw), scale=1e-3)),
            norm_of(narrow),
        ),
        Case(
            "tiny inputs, another eps",
            lambda draw: [draw.normal(2, few_tokens(draw), 24, scale=0.03)],
            {"dim": 24, "eps": 1e-3},
        ),
        Case("bfloat16", lambda draw: [draw.normal(2, few_tokens(draw), 24)], {"dim": 24, "eps": 1e-5}, torch.bfloat16),
    ],
)

# 0.0447 in place of 0.044715, and 0.798 in place of sqrt(2/pi), move a value by 4e-6 and more.
DIGITS = Tolerance(1.5e-6)

GELU = Exercise(
    name="gpt2.gelu",
    solution="GELU",
    reference=NewGELUActivation,
    points=3,
    axes="B T D",
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, tokens(draw), 24)], tolerance=DIGITS),
        Case("large inputs", lambda draw: [draw.normal(3, few_tokens(draw), 20, scale=4.0)]),
        Case("bfloat16", lambda draw: [draw.normal(2, few_tokens(draw), 24)], dtype=torch.bfloat16),
    ],
)

CONV1D = Exercise(
    name="gpt2.conv1d",
    solution="Conv1D",
    reference=Conv1D,
    points=4,
    axes="B T nf",
    sizes=lambda build: {"nf": build["nf"], "nx": build["nx"]},
    cases=[
        Case("a rectangular weight", lambda draw: [draw.normal(2, tokens(draw), 24)], {"nf": 40, "nx": 24}),
        Case("a square weight", lambda draw: [draw.normal(2, tokens(draw), 24)], {"nf": 24, "nx": 24}),
        Case("no batch axis", lambda draw: [draw.normal(5, 20)], {"nf": 18, "nx": 20}),
        Case("bfloat16", lambda draw: [draw.normal(3, few_tokens(draw), 28)], {"nf": 40, "nx": 28}, torch.bfloat16),
    ],
)

ATTENTION = Exercise(
    name="gpt2.attention",
    solution="Attention",
    reference=lambda config: GPT2Attention(reference_config(config), layer_idx=0),
    call=call_causal,
    points=8,
    axes="B T D",
    sizes=attention_sizes,
    renamed=learners_name,
    parts={"c_attn": "gpt2.conv1d", "c_proj": "gpt2.conv1d"},
    cases=[
        Case("7 tokens, 3 heads of 8", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}),
        Case("11 tokens, 5 heads of 6", lambda draw: [draw.normal(3, many_tokens(draw), 30)], {"config": OTHER}),
        Case("scores far from 0", far_from_zero, {"config": SMALL}),
        Case("scores of tens of thousands", far_below, {"config": SMALL}),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
)

MLP = Exercise(
    name="gpt2.mlp",
    solution="MLP",
    reference=build_mlp,
    points=4,
    axes="B T D",
    sizes=lambda build: {"n_embd": build["config"]["n_embd"]},
    renamed=learners_name,
    parts={"c_fc": "gpt2.conv1d", "act": "gpt2.gelu", "c_proj": "gpt2.conv1d"},
    cases=[
        Case("no n_inner in the config", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}),
        Case(
            "n_inner is null",
            lambda draw: [draw.normal(2, few_tokens(draw), 24)],
            {"config": SMALL | {"n_inner": None}},
        ),
        Case("n_inner is 44", lambda draw: [draw.normal(3, tokens(draw), 30)], {"config": OTHER}),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
)

BLOCK = Exercise(
    name="gpt2.block",
    solution="Block",
    reference=lambda config: GPT2Block(reference_config(config), layer_idx=0),
    call=call_causal,
    points=6,
    axes="B T D",
    sizes=attention_sizes,
    renamed=learners_name,
    parts={"ln_1": "gpt2.layer_norm", "attn": "gpt2.attention", "ln_2": "gpt2.layer_norm", "mlp": "gpt2.mlp"},
    cases=[
        Case("7 tokens", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}),
        Case(
            "small inputs, another eps",
            lambda draw: [draw.normal(3, many_tokens(draw), 30, scale=0.03)],
            {"config": OTHER | {"layer_norm_epsilon": 1e-2}},
        ),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
)

MODEL = Exercise(
    name="gpt2.model",
    solution="GPT2",
    reference=build_model,
    call=call_model,
    drive=logits,
    points=6,
    axes="B T vocab_size",
    sizes=lambda build: attention_sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"h.*": "gpt2.block", "ln_f": "gpt2.layer_norm"},
    # Large eps: ln_f reads a stream of variance 4 to 19, where 1e-3 in place of 1e-5 hardly shows.
    cases=[
        Case(
            "7 tokens",
            lambda draw: [draw.tokens(53, 2, tokens(draw))],
            {"config": SMALL | {"layer_norm_epsilon": 0.05}},
        ),
        Case(
            "as many tokens as positions",
            lambda draw: [draw.tokens(37, 2, 9)],
            {"config": OTHER | {"n_positions": 9, "n_inner": 40, "layer_norm_epsilon": 0.05}},
            draw="2",
        ),
        Case(
            "other sizes, another eps",
            lambda draw: [draw.tokens(37, 3, other_tokens(draw))],
            {"config": OTHER | {"layer_norm_epsilon": 0.02}},
        ),
        Case(
            "n_positions and vocab_size in its config",
            lambda draw: [draw.tokens(37, 1, 3)],
            {"config": OTHER | {"layer_norm_epsilon": 0.02}},
            drive=config_kept,
            right=config_kept,
        ),
    ],
)

GENERATE = Exercise(
    name="gpt2.generate",
    solution="generate",
    reference=reference_generate,
    drive=written,
    function=True,
    points=6,
    fixed={
        "argument 1.dim": "the width of a toy model, which generation does not see",
        "argument 2, axis 0": "one text, as the docstring says",
    },
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8, n_positions=16)),
        Case("a prompt longer than n_positions", generation_args(11, new_tokens=5, n_positions=8, vocab_size=47)),
        Case("past n_positions", generation_args(prompt=6, new_tokens=16, n_positions=8)),
        Case("stops at the end token", generation_args(5, 8, 16, ends=lambda token, prompt: token not in prompt)),
        Case("the end token is in the prompt", generation_args(5, 8, 16, ends=lambda token, prompt: token in prompt)),
        Case("the end token is 0", generation_args(5, 8, 16, ends=lambda token, prompt: token == 0)),
        Case(
            "an end token in the config, and none given",
            generation_args(5, 8, 16, ends=lambda token, prompt: True),
            drive=generated_despite_config,
            right=lambda toy, ids, new_tokens, end: reference_generate(toy, ids, new_tokens),
        ),
        Case(
            "which of the tokens are Python ints (1: yes)",
            generation_args(prompt=4, new_tokens=6, n_positions=16),
            drive=ints_written,
            right=lambda toy, ids, new_tokens: [1] * new_tokens,
        ),
    ],
)

EXERCISES = with_mistakes(__file__, [LAYER_NORM, GELU, CONV1D, ATTENTION, MLP, BLOCK, MODEL, GENERATE])
