"""What the exercises of 00-orientation are checked against."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from grader.config import Config
from grader.lessons.exercise import Case, Draw, Exercise, Mistake

CONFIGS = Path(__file__).parent / "configs"


def vectors(*shape: int) -> Any:
    """Draws one tensor of standard normal values."""

    def draw_vectors(draw: Draw) -> list[Tensor]:
        return [draw.normal(*shape)]

    return draw_vectors


def sizes(in_features: int, out_features: int) -> dict[str, int]:
    """The build arguments of a Linear."""
    return {"in_features": in_features, "out_features": out_features}


linear = Exercise(
    name="orientation.linear",
    solution="Linear",
    reference=nn.Linear,
    points=5,
    sizes=lambda build: build,
    cases=[
        Case("as many outputs as inputs", vectors(2, 5, 8), sizes(8, 8)),
        Case("more outputs than inputs", vectors(2, 5, 6), sizes(6, 10)),
        Case("fewer outputs than inputs", vectors(7, 9), sizes(9, 4)),
        Case("one vector, without a batch", vectors(6), sizes(6, 10)),
        Case("bfloat16", vectors(3, 8), sizes(8, 8), dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            name="the bias is left out",
            hint="The formula has two parameters. Which of them does your forward read?",
            find=" + self.bias",
            replace="",
        ),
        Mistake(
            name="the bias is added twice",
            hint="Count how often the bias enters between x and what you return.",
            find="+ self.bias",
            replace="+ 2 * self.bias",
        ),
        Mistake(
            name="the bias is subtracted",
            hint="Compare the sign in front of b in the formula with yours.",
            find="+ self.bias",
            replace="- self.bias",
        ),
        Mistake(
            name="the product is multiplied by the bias",
            hint="Which operation joins the product and b in the formula?",
            find="+ self.bias",
            replace="* self.bias",
        ),
        Mistake(
            name="a square weight is used as it is stored, [out, in]",
            hint="Which axis of the weight does each output sum over, and which one does yours sum over?"
            " With a square weight PyTorch can't tell the two apart.",
            find="self.weight.T",
            replace="(self.weight if x.shape[-1] == len(self.weight) else self.weight.T)",
        ),
        Mistake(
            name="the weight is reshaped to [in, out] and not transposed",
            hint="reshape and view keep the order of the numbers in memory. Write out a 2 x 3 example by hand.",
            find="self.weight.T",
            replace="self.weight.reshape(self.weight.T.shape)",
        ),
        Mistake(
            name="an activation is applied to the result",
            hint="A linear layer is linear: look at what happens after the sum.",
            find="return x @ self.weight.T + self.bias",
            replace="return torch.relu(x @ self.weight.T + self.bias)",
        ),
        Mistake(
            name="the product is divided by the square root of in_features",
            hint="1/sqrt(in) belongs to how weights are drawn before training. Does the formula have it?",
            find="x @ self.weight.T",
            replace="x @ self.weight.T / self.weight.shape[1] ** 0.5",
        ),
    ],
)


def reference_count(config: Mapping[str, Any]) -> int:
    """How many parameters transformers makes for a config; a tied head is one tensor and counts once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config, bos_token_id=None, eos_token_id=None))
    return sum(parameter.numel() for parameter in model.parameters())


def given(config: Mapping[str, Any], _: Draw) -> Sequence[Config]:
    """The arguments of a case: the config."""
    return [Config(config)]


def published(title: str, name: str) -> Case:
    """A case on the config of a published model."""
    return Case(title, partial(given, Config.read(CONFIGS / f"{name}.json")))


def made_up(title: str, **config: Any) -> Case:
    """A case on a small config in which no two sizes are equal, so that none can stand in for another."""
    return Case(title, partial(given, config))


SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

parameter_count = Exercise(
    name="orientation.parameter_count",
    solution="parameter_count",
    reference=reference_count,
    function=True,
    points=11,
    cases=[
        published("GPT-2 124M", "gpt2"),
        published("GPT-2 XL", "gpt2-xl"),
        made_up(
            "a GPT-2 with an MLP and a head of its own",
            model_type="gpt2",
            vocab_size=101,
            n_positions=37,
            n_embd=24,
            n_head=4,
            n_layer=3,
            n_inner=52,
            tie_word_embeddings=False,
        ),
        published("SmolLM2 135M", "smollm2-135m"),
        published("Llama 3 8B", "llama-3-8b"),
        made_up(
            "a small Llama with a head_dim of its own",
            model_type="llama",
            head_dim=10,
            tie_word_embeddings=True,
            **SMALL,
        ),
        published("Qwen3 0.6B", "qwen3-0.6b"),
        published("Qwen3 8B", "qwen3-8b"),
        made_up("a small Qwen3 that does not mention its head", model_type="qwen3", head_dim=10, **SMALL),
        published("Gemma 3 270M", "gemma-3-270m"),
        made_up(
            "a small Gemma 3 with a head of its own",
            model_type="gemma3_text",
            head_dim=10,
            tie_word_embeddings=False,
            **SMALL,
        ),
    ],
    mistakes=[
        Mistake(
            name="a tied head is counted as a second matrix",
            hint="Where the head is tied, how many tensors does the checkpoint hold for embedding and head together?",
            find="0 if tied else V * D",
            replace="V * D",
        ),
        Mistake(
            name="the head is never counted",
            hint="In each of the families a model can have a head of its own. Which field says so? Compare the configs"
            " of Qwen3 0.6B and Qwen3 8B, for example.",
            find="0 if tied else V * D",
            replace="0",
        ),
        Mistake(
            name="a missing tie_word_embeddings is taken for true in every family",
            hint="What a missing field means depends on the family: compare with the table above the exercise.",
            find='config["model_type"] in ("gpt2", "gemma3_text")',
            replace="True",
        ),
        Mistake(
            name="a missing tie_word_embeddings is taken for false in every family",
            hint="What a missing field means depends on the family: compare with the table above the exercise.",
            find='config["model_type"] in ("gpt2", "gemma3_text")',
            replace="False",
        ),
        Mistake(
            name="GPT-2's position embeddings are left out",
            hint="GPT-2 has one more table of vectors than the others: look for its size among the fields.",
            find='embeddings = V * D + config["n_positions"] * D',
            replace="embeddings = V * D",
        ),
        Mistake(
            name="the biases of GPT-2's projections are left out",
            hint="Every projection of GPT-2 has a bias. Print the tensors of h.0 and look at those with one axis.",
            find="biases = 3 * D + D + F + D",
            replace="biases = 0",
        ),
        Mistake(
            name="GPT-2's layer norms are counted without their biases",
            hint="How many vectors does one LayerNorm hold? Print the names that start with h.0.ln_1.",
            find="norms = 2 * (D + D)",
            replace="norms = 2 * D",
        ),
        Mistake(
            name="n_inner is ignored, and GPT-2's MLP is always four times as wide as the model",
            hint="Four times is what a missing or null field means. What if the config has a number there?",
            find='config.get("n_inner") or 4 * D',
            replace="4 * D",
        ),
        Mistake(
            name="GPT-2's final norm ln_f is left out",
            hint="Which tensors stand neither in a block nor in an embedding?",
            find="final_norm = D + D",
            replace="final_norm = 0",
        ),
        Mistake(
            name="the final norm of the newer models is left out",
            hint="Which tensors stand neither in a block nor in the embedding or head?",
            find="final_norm = D  # model.norm",
            replace="final_norm = 0",
        ),
        Mistake(
            name="head_dim is always hidden_size // num_attention_heads",
            hint="Compare hidden_size / num_attention_heads with head_dim in the config of Qwen3 0.6B.",
            find='config.get("head_dim") or D // heads',
            replace="D // heads",
        ),
        Mistake(
            name="keys and values are counted with as many heads as queries",
            hint="num_attention_heads says how many heads the queries have. Which field speaks of the keys and values?",
            find='config["num_key_value_heads"] * head_dim',
            replace="heads * head_dim",
        ),
        Mistake(
            name="the MLP of the newer models is counted with two matrices",
            hint="List the projections of a gated MLP by name. How many are there?",
            find="weights = D * Q + 2 * D * KV + Q * D + 3 * D * F",
            replace="weights = D * Q + 2 * D * KV + Q * D + 2 * D * F",
        ),
        Mistake(
            name="o_proj is left out of the attention",
            hint="Attention has four projections: three read the hidden state. What does the fourth do?",
            find="weights = D * Q + 2 * D * KV + Q * D + 3 * D * F",
            replace="weights = D * Q + 2 * D * KV + 3 * D * F",
        ),
        Mistake(
            name="q_norm and k_norm are left out",
            hint="Two of the families normalise queries and keys. Do these norms have weights?",
            find="norms += 2 * head_dim",
            replace="norms += 0",
        ),
        Mistake(
            name="q_norm and k_norm have a weight for every head",
            hint="Every head is normalised with the same weights. How long is one such vector?",
            find="norms += 2 * head_dim",
            replace="norms += Q + KV",
        ),
        Mistake(
            name="q_norm and k_norm are counted for Llama too",
            hint="Which of the families normalise queries and keys?",
            find='config["model_type"] != "llama"',
            replace="True",
        ),
        Mistake(
            name="Gemma 3 is counted with two norms a layer",
            hint="Gemma 3 has norms before and after each sublayer: count them.",
            find='4 if config["model_type"] == "gemma3_text" else 2',
            replace="2",
        ),
    ],
)

EXERCISES = [linear, parameter_count]
