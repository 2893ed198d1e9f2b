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

from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.lessons.exercise import Case, Draw, Exercise, Mistake

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
OTHER = SMALL | {"vocab_size": 37, "n_positions": 12, "n_embd": 30, "n_head": 5, "n_layer": 2, "n_inner": 44}


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
    prompt: int, new_tokens: int, n_positions: int, ends: Callable[[int, list[int]], bool] | None = None
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens and, if `ends` is given, an end token.

    ends(token, prompt): whether a token will do. Models are drawn until one of them writes such a token, and not as
    its first, second or last.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        while True:
            toy = random_toy_lm(61, n_positions, draw.generator)
            ids = draw.tokens(61, 1, prompt)
            if ends is None:
                return toy, ids, new_tokens
            written = reference_generate(toy, ids, new_tokens).tolist()
            for i in range(2, new_tokens - 1):
                if written[i] not in written[:i] and ends(written[i], ids[0].tolist()):
                    return toy, ids, new_tokens, written[i]

    return draw_args


def far_from_zero(draw: Draw) -> list[Tensor]:
    """Tokens that have much in common: each head's scores are near one number, which may be 100 or -100."""
    return [draw.normal(2, 1, 24, scale=9.0) + draw.normal(2, tokens(draw), 24, scale=0.2)]


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
            lambda draw: [draw.normal(2, few_tokens(draw), narrow(draw), scale=1e-3)],
            norm_of(narrow),
        ),
        Case(
            "tiny inputs, another eps",
            lambda draw: [draw.normal(2, few_tokens(draw), 24, scale=0.03)],
            {"dim": 24, "eps": 1e-3},
        ),
        Case("bfloat16", lambda draw: [draw.normal(2, few_tokens(draw), 24)], {"dim": 24, "eps": 1e-5}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the variance is divided by D - 1",
            "Is this a sample from which you estimate a variance, or all the values there are? Look at what"
            " `torch.var` does unless told otherwise.",
            "correction=0",
            "correction=1",
        ),
        Mistake(
            "eps is added after the square root",
            "Look at where eps stands in the formula. Tiny inputs show the difference.",
            "torch.sqrt(variance + self.eps)",
            "(torch.sqrt(variance) + self.eps)",
        ),
        Mistake(
            "eps is missing",
            "Which number in the formula keeps a vector of equal values from being divided by zero?",
            "variance + self.eps",
            "variance",
        ),
        Mistake(
            "eps is not the one that was given",
            "Find every place where you wrote a small number by hand.",
            "variance + self.eps",
            "variance + 1e-5",
        ),
        Mistake(
            "the bias is missing",
            "Two learned vectors belong to this layer. Which of them does your forward use?",
            "normed * self.weight + self.bias",
            "normed * self.weight",
        ),
        Mistake(
            "the weight is missing",
            "Two learned vectors belong to this layer. Which of them does your forward use?",
            "normed * self.weight + self.bias",
            "normed + self.bias",
        ),
        Mistake(
            "the bias is added before the weight multiplies",
            "Read the formula's last step from the inside out: which of the two comes first?",
            "normed * self.weight + self.bias",
            "(normed + self.bias) * self.weight",
        ),
        Mistake(
            "the mean is not subtracted",
            "LayerNorm does two things to a vector before it scales it with what was learned. Print the mean of"
            " your result before weight and bias: what should it be?",
            "(x - mean)",
            "x",
        ),
        Mistake(
            "the root mean square is used, as in RMSNorm",
            "This divides by the size of the vector. The formula divides by how far it spreads around something.",
            "(x - mean) / torch.sqrt(variance + self.eps)",
            "x / torch.sqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)",
        ),
        Mistake(
            "it divides by the variance",
            "The units tell: if x is in metres, in what is the variance?",
            "torch.sqrt(variance + self.eps)",
            "(variance + self.eps)",
        ),
        Mistake(
            "the statistics are taken over the tokens",
            "Each token is normalised by itself. Which axis of [B, T, D] do its own values lie on?",
            "(x - mean) / torch.sqrt(variance + self.eps)",
            "(x - x.mean(dim=1, keepdim=True)) / torch.sqrt(x.var(dim=1, keepdim=True, correction=0) + self.eps)",
        ),
    ],
)

GELU = Exercise(
    name="gpt2.gelu",
    solution="GELU",
    reference=NewGELUActivation,
    points=3,
    axes="B T D",
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, tokens(draw), 24)]),
        Case("large inputs", lambda draw: [draw.normal(2, few_tokens(draw), 24, scale=4.0)]),
        Case("bfloat16", lambda draw: [draw.normal(2, few_tokens(draw), 24)], dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the exact GELU with erf is computed",
            "That is a GELU, but not the one that `gelu_new` in the config stands for.",
            "torch.tanh(inner)",
            "torch.erf(x / math.sqrt(2.0))",
        ),
        Mistake(
            "the sigmoid approximation with 1.702 is computed",
            "That is a GELU, but not the one that `gelu_new` in the config stands for.",
            "0.5 * x * (1.0 + torch.tanh(inner))",
            "x * torch.sigmoid(1.702 * x)",
        ),
        Mistake(
            "SiLU is computed",
            "Later models use this one. Which name stands in GPT-2's config?",
            "0.5 * x * (1.0 + torch.tanh(inner))",
            "x * torch.sigmoid(x)",
        ),
        Mistake(
            "ReLU is computed",
            "Which name stands in GPT-2's config?",
            "0.5 * x * (1.0 + torch.tanh(inner))",
            "torch.relu(x)",
        ),
        Mistake(
            "the factor in front is missing",
            "For a large x, GELU(x) is x. What does yours give for x = 10?",
            "0.5 * x *",
            "x *",
        ),
        Mistake(
            "the 1 beside the tanh is missing",
            "For a large negative x, GELU(x) is 0. What does yours give for x = -10?",
            "(1.0 + torch.tanh(inner))",
            "torch.tanh(inner)",
        ),
        Mistake(
            "x is squared where it should be cubed",
            "The inside of the tanh is odd: f(-x) = -f(x). Is yours?",
            "torch.pow(x, 3.0)",
            "torch.pow(x, 2.0)",
        ),
        Mistake(
            "the fraction under the root is upside down",
            "Compare the constant before the bracket with the formula, digit by digit.",
            "math.sqrt(2.0 / math.pi)",
            "math.sqrt(math.pi / 2.0)",
        ),
        Mistake(
            "the root is taken of 2 alone",
            "Compare the constant before the bracket with the formula: what stands under the root?",
            "math.sqrt(2.0 / math.pi)",
            "math.sqrt(2.0) / math.pi",
        ),
        Mistake(
            "the root around 2/pi is missing",
            "Compare the constant before the bracket with the formula.",
            "math.sqrt(2.0 / math.pi)",
            "(2.0 / math.pi)",
        ),
        Mistake(
            "0.044715 is added to x and not multiplied by its cube",
            "Which two terms are added in the bracket, and which factor belongs to which?",
            "(x + 0.044715 * torch.pow(x, 3.0))",
            "((x + 0.044715) * torch.pow(x, 3.0))",
        ),
        Mistake(
            "the cubic term is missing",
            "How many terms does the bracket inside the tanh have?",
            "(x + 0.044715 * torch.pow(x, 3.0))",
            "x",
        ),
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
        Case("no batch axis", lambda draw: [draw.normal(5, 24)], {"nf": 18, "nx": 24}),
        Case("bfloat16", lambda draw: [draw.normal(2, few_tokens(draw), 24)], {"nf": 40, "nx": 24}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the square weight is used transposed",
            "With a square weight both ways run. Write down which index of weight[i, j] belongs to the input.",
            "self.weight.T",
            "(self.weight if self.weight.shape[0] == self.weight.shape[1] else self.weight.T)",
        ),
        Mistake(
            "the weight is reshaped where it should be transposed",
            "`reshape` keeps the order of the numbers in memory; it does not swap rows and columns.",
            "self.weight.T",
            "self.weight.reshape(self.weight.shape[::-1])",
        ),
        Mistake(
            "the bias is missing",
            "Every projection of GPT-2 has two parameters. Does your forward use both?",
            "self.weight.T, self.bias",
            "self.weight.T",
        ),
        Mistake(
            "the bias is subtracted",
            "Look at the sign of the bias.",
            "self.weight.T, self.bias",
            "self.weight.T, -self.bias",
        ),
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
        Case("11 tokens, 5 heads of 6", lambda draw: [draw.normal(2, many_tokens(draw), 30)], {"config": OTHER}),
        Case("scores far from 0", far_from_zero, {"config": SMALL}),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the scores are not scaled",
            "Between the product of queries and keys and the softmax, something is missing.",
            " * self.head_dim**-0.5",
            "",
        ),
        Mistake(
            "the scores are divided by head_dim",
            "If q and k have entries of variance 1, what is the variance of their dot product? And its standard"
            " deviation?",
            "self.head_dim**-0.5",
            "self.head_dim**-1.0",
        ),
        Mistake(
            "the scores are scaled with D",
            "How long are the two vectors whose dot product a score is?",
            "self.head_dim**-0.5",
            "D**-0.5",
        ),
        Mistake(
            "the scores are divided by the root of the number of tokens",
            "How long are the two vectors whose dot product a score is?",
            "self.head_dim**-0.5",
            "T**-0.5",
        ),
        Mistake(
            "the scores are multiplied by the root of head_dim",
            "Should the scale make the scores larger or smaller?",
            "self.head_dim**-0.5",
            "self.head_dim**0.5",
        ),
        Mistake(
            "the mask hides each token from itself",
            "May a token look at itself? What is left for the first token if it may not?",
            "triu(diagonal=1)",
            "triu(diagonal=0)",
        ),
        Mistake(
            "each token sees one token of the future",
            "Print your mask for T = 4 and read its first row.",
            "triu(diagonal=1)",
            "triu(diagonal=2)",
        ),
        Mistake(
            "the mask hides the past",
            "Print your mask for T = 4: rows are queries, columns are keys. Whom does the last token see?",
            "triu(diagonal=1)",
            "tril(diagonal=-1)",
        ),
        Mistake(
            "the mask hides the past and the token itself",
            "Print your mask for T = 4: rows are queries, columns are keys. Whom does the last token see?",
            "triu(diagonal=1)",
            "tril(diagonal=0)",
        ),
        Mistake(
            "there is no causal mask",
            "Change the last token of your input: the output of the first must not move.",
            '.masked_fill(future, float("-inf"))',
            "",
        ),
        Mistake(
            "hidden scores are set to 0 before the softmax",
            "What is exp(0)? And what would have to stand there for the weight to become 0?",
            'float("-inf")',
            "0.0",
        ),
        Mistake(
            "hidden scores are set to a number that other scores can reach",
            "What if every score that may be seen is -50? Which number is below any score?",
            'float("-inf")',
            "-30.0",
        ),
        Mistake(
            "the softmax is written out as exp(score) / sum, with the scores as they are",
            "What is exp(100) in float32, and exp(-120)? A softmax stays the same if one number is taken off all"
            " scores of a row.",
            'scores.masked_fill(future, float("-inf")).softmax(dim=-1)',
            '(e := scores.masked_fill(future, float("-inf")).exp()) / e.sum(dim=-1, keepdim=True)',
        ),
        Mistake(
            "there is no softmax",
            "Print one row of what multiplies the values. Is it a set of weights, none below 0, that sum to 1?",
            ".softmax(dim=-1)",
            "",
        ),
        Mistake(
            "the softmax is applied twice",
            "Print one row of your attention weights. Which of them should be 0?",
            ".softmax(dim=-1)",
            ".softmax(dim=-1).softmax(dim=-1)",
        ),
        Mistake(
            "the mask is applied after the softmax",
            "Sum your attention weights over the keys. What should every row give?",
            'scores.masked_fill(future, float("-inf")).softmax(dim=-1)',
            "scores.softmax(dim=-1).masked_fill(future, 0.0)",
        ),
        Mistake(
            "the softmax runs over the queries",
            "In [B, H, T, T], which axis holds the keys? Along which must the weights sum to 1?",
            "softmax(dim=-1)",
            "softmax(dim=-2)",
        ),
        Mistake(
            "queries and keys have changed places",
            "In which order does c_attn hold its three results?",
            "q, k, v = self.c_attn(x)",
            "k, q, v = self.c_attn(x)",
        ),
        Mistake(
            "keys and values have changed places",
            "In which order does c_attn hold its three results?",
            "q, k, v = self.c_attn(x)",
            "q, v, k = self.c_attn(x)",
        ),
        Mistake(
            "c_attn's output is read as q, k, v for each head in turn",
            "Other models store it like that. Here, which comes first along the last axis: the three, or the heads?",
            "self.c_attn(x).split(D, dim=-1)",
            "self.c_attn(x).view(B, T, self.num_heads, 3, self.head_dim).unbind(dim=3)",
        ),
        Mistake(
            "the heads are cut out as (head_dim, heads)",
            "A head owns a run of neighbouring channels. Which of the two new axes must come first?",
            "t.view(heads).transpose(1, 2)",
            "t.view(B, T, self.head_dim, self.num_heads).permute(0, 3, 1, 2)",
        ),
        Mistake(
            "the heads are cut out without a transpose",
            "`view` can't move an axis past another. Follow one token's numbers from [B, T, D] on.",
            "t.view(heads).transpose(1, 2)",
            "t.reshape(B, self.num_heads, T, self.head_dim)",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "(weights @ v).transpose(1, 2)",
            "(weights @ v)",
        ),
        Mistake(
            "the heads are merged channel by channel",
            "A head's channels must end up next to each other, as they were before the heads were cut out.",
            "(weights @ v).transpose(1, 2)",
            "(weights @ v).permute(0, 2, 3, 1)",
        ),
        Mistake(
            "the output projection is missing",
            "Four weight tensors belong to this module. Which of them does your forward never touch?",
            "self.c_proj(mixed)",
            "mixed",
        ),
        Mistake(
            "the output projection is applied twice",
            "Count how often each of your two projections is called.",
            "self.c_proj(mixed)",
            "self.c_proj(self.c_proj(mixed))",
        ),
        Mistake(
            "the weights mix the keys",
            "Of q, k and v: which one decides how much, and which one says what?",
            "weights @ v",
            "weights @ k",
        ),
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
        Case("n_inner is 44", lambda draw: [draw.normal(2, tokens(draw), 30)], {"config": OTHER}),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the activation is missing",
            "Two linear maps in a row are one linear map. What stands between them?",
            "self.act(self.c_fc(x))",
            "self.c_fc(x)",
        ),
        Mistake(
            "the activation comes last",
            "The network has to be able to subtract from the residual stream. Can yours give large negative numbers?",
            "self.c_proj(self.act(self.c_fc(x)))",
            "self.act(self.c_proj(self.c_fc(x)))",
        ),
        Mistake(
            "the activation comes first",
            "Where is the hidden vector widest? That is where the activation works.",
            "self.act(self.c_fc(x))",
            "self.c_fc(self.act(x))",
        ),
        Mistake(
            "the activation is applied twice",
            "Count the non-linear steps on the way from x to the output.",
            "self.act(self.c_fc(x))",
            "self.act(self.act(self.c_fc(x)))",
        ),
        Mistake(
            "the activation is applied to the output as well",
            "Count the non-linear steps on the way from x to the output.",
            "self.c_proj(self.act(self.c_fc(x)))",
            "self.act(self.c_proj(self.act(self.c_fc(x))))",
        ),
        Mistake(
            "the activation is ReLU",
            "You have written the activation that GPT-2 uses. Use it here.",
            "self.act(self.c_fc(x))",
            "torch.relu(self.c_fc(x))",
        ),
        Mistake(
            "the activation is the exact GELU",
            "`nn.GELU()` is close, but it is not what you built in the exercise before.",
            "self.act(self.c_fc(x))",
            "F.gelu(self.c_fc(x))",
        ),
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
            lambda draw: [draw.normal(2, many_tokens(draw), 30, scale=0.03)],
            {"config": OTHER | {"layer_norm_epsilon": 1e-2}},
        ),
        Case("bfloat16", lambda draw: [draw.normal(2, tokens(draw), 24)], {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the norms come after the sums",
            "That is the block of 2017. GPT-2 moved the norms: follow x along the residual stream, nothing may"
            " change it there but additions.",
            "x = x + self.attn(self.ln_1(x))",
            "return self.ln_2((y := self.ln_1(x + self.attn(x))) + self.mlp(y))",
        ),
        Mistake(
            "ln_1 is used in both places",
            "Which of the block's parts does your forward never call?",
            "self.ln_2(x)",
            "self.ln_1(x)",
        ),
        Mistake(
            "the two norms have changed places",
            "Which norm belongs to which sublayer? The numbers say in which order they are used.",
            "x = x + self.attn(self.ln_1(x))",
            "return (y := x + self.attn(self.ln_2(x))) + self.mlp(self.ln_1(y))",
        ),
        Mistake(
            "the residual around attention is missing",
            "There are two sums in a block, one for each sublayer.",
            "x = x + self.attn",
            "x = self.attn",
        ),
        Mistake(
            "the residual around the MLP is missing",
            "There are two sums in a block, one for each sublayer.",
            "return x + self.mlp",
            "return self.mlp",
        ),
        Mistake(
            "the MLP's result is added to the block's input",
            "Which x does the second sum start from: the block's, or the one that attention has added to?",
            "x = x + self.attn(self.ln_1(x))",
            "return x + self.mlp(self.ln_2(x + self.attn(self.ln_1(x))))",
        ),
        Mistake(
            "one residual leads around both sublayers",
            "There are two sums in a block, one for each sublayer.",
            "x = x + self.attn(self.ln_1(x))",
            "return x + self.mlp(self.ln_2(self.attn(self.ln_1(x))))",
        ),
        Mistake(
            "both norms have PyTorch's eps and not the config's",
            "A norm has two settings. Where does each of them come from?",
            "self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)\n"
            "        self.attn = Attention(config)\n"
            "        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)",
            "self.ln_1 = nn.LayerNorm(config.n_embd)\n"
            "        self.attn = Attention(config)\n"
            "        self.ln_2 = nn.LayerNorm(config.n_embd)",
        ),
        Mistake(
            "ln_1 has PyTorch's eps and not the config's",
            "Compare how you make the two norms.",
            "self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)",
            "self.ln_1 = nn.LayerNorm(config.n_embd)",
        ),
        Mistake(
            "ln_2 has PyTorch's eps and not the config's",
            "Compare how you make the two norms.",
            "self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)",
            "self.ln_2 = nn.LayerNorm(config.n_embd)",
        ),
        Mistake(
            "the residual carries the normalised x",
            "What does the sublayer get, and what does the sum get? They are not the same tensor.",
            "x = x + self.attn(self.ln_1(x))",
            "x = (y := self.ln_1(x)) + self.attn(y)",
        ),
        Mistake(
            "attention and MLP both read the block's input",
            "Some later models do run the two side by side. In GPT-2 one sees what the other wrote.",
            "x = x + self.attn(self.ln_1(x))",
            "return x + self.attn(self.ln_1(x)) + self.mlp(self.ln_2(x))",
        ),
        Mistake(
            "the MLP comes before attention",
            "In which order do the names in the checkpoint stand?",
            "x = x + self.attn(self.ln_1(x))",
            "return (y := x + self.mlp(self.ln_2(x))) + self.attn(self.ln_1(y))",
        ),
        Mistake(
            "attention gets x without its norm",
            "Which of the block's parts does your forward never call?",
            "self.attn(self.ln_1(x))",
            "self.attn(x)",
        ),
        Mistake(
            "the MLP gets x without its norm",
            "Which of the block's parts does your forward never call?",
            "self.mlp(self.ln_2(x))",
            "self.mlp(x)",
        ),
    ],
)

MODEL = Exercise(
    name="gpt2.model",
    solution="GPT2",
    reference=build_model,
    call=call_model,
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
            "as many tokens as positions", lambda draw: [draw.tokens(53, 2, 9)], {"config": SMALL | {"n_positions": 9}}
        ),
        Case(
            "other sizes, another eps",
            lambda draw: [draw.tokens(37, 3, other_tokens(draw))],
            {"config": OTHER | {"layer_norm_epsilon": 0.02}},
        ),
    ],
    mistakes=[
        Mistake(
            "the position embeddings are missing",
            "Swap two tokens of the prompt. How would your model notice, apart from the mask?",
            "self.wte(ids) + self.wpe(positions)",
            "self.wte(ids)",
        ),
        Mistake(
            "the positions start at 1",
            "Which row of wpe does the first token get?",
            "torch.arange(ids.shape[1], device=ids.device)",
            "(torch.arange(ids.shape[1], device=ids.device) + 1) % self.config.n_positions",
        ),
        Mistake(
            "the positions run backwards",
            "Which row of wpe does the first token get?",
            "torch.arange(ids.shape[1], device=ids.device)",
            "torch.arange(ids.shape[1], device=ids.device).flip(0)",
        ),
        Mistake(
            "every token gets position 0",
            "Print the positions that you look up. There should be T different ones.",
            "torch.arange(ids.shape[1], device=ids.device)",
            "torch.zeros(ids.shape[1], dtype=torch.int64, device=ids.device)",
        ),
        Mistake(
            "the positions end at the last row of wpe",
            "Which row of wpe does the first token get, whatever the length of the prompt?",
            "torch.arange(ids.shape[1], device=ids.device)",
            "torch.arange(self.config.n_positions, device=ids.device)[-ids.shape[1] :]",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "self.ln_f(x)",
            "x",
        ),
        Mistake(
            "the final norm is applied twice",
            "Count the norms between the last block and the head.",
            "self.ln_f(x)",
            "self.ln_f(self.ln_f(x))",
        ),
        Mistake(
            "the final norm has PyTorch's eps and not the config's",
            "A norm has two settings. Where does each of them come from?",
            "nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)",
            "nn.LayerNorm(config.n_embd)",
        ),
        Mistake(
            "the final norm comes before the blocks",
            "`ln_f` is the final norm: what comes after it?",
            "return F.linear(self.ln_f(x), self.wte.weight)",
            "x = self.ln_f(self.wte(ids) + self.wpe(positions))\n"
            "        for block in self.h:\n"
            "            x = block(x)\n"
            "        return F.linear(x, self.wte.weight)",
        ),
        Mistake(
            "the blocks run in reverse order",
            "Where does the token enter: at h.0 or at the last block?",
            "in self.h:",
            "in reversed(self.h):",
        ),
        Mistake(
            "the first block runs every time",
            "Compare the loop's variable with what is called inside the loop.",
            "x = block(x)",
            "x = self.h[0](x)",
        ),
        Mistake(
            "the last block is left out",
            "Count how many blocks run.",
            "in self.h:",
            "in self.h[:-1]:",
        ),
        Mistake(
            "the input is added to each block's output once more",
            "The residual sums are inside the block already.",
            "x = block(x)",
            "x = x + block(x)",
        ),
        Mistake(
            "the positions are added again in every block",
            "How often does the original Transformer add the positions? GPT-2 does the same.",
            "x = block(x)",
            "x = block(x + self.wpe(positions) if block is not self.h[0] else x)",
        ),
        Mistake(
            "the embeddings are scaled by the root of D",
            "The original Transformer and Gemma do this, GPT-2 does not.",
            "self.wte(ids) + self.wpe(positions)",
            "self.wte(ids) * self.config.n_embd**0.5 + self.wpe(positions)",
        ),
        Mistake(
            "it returns probabilities",
            "The model returns logits: what the head gives, untouched.",
            "F.linear(self.ln_f(x), self.wte.weight)",
            "F.linear(self.ln_f(x), self.wte.weight).softmax(dim=-1)",
        ),
    ],
)

GENERATE = Exercise(
    name="gpt2.generate",
    solution="generate",
    reference=reference_generate,
    function=True,
    points=5,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8, n_positions=16)),
        Case("past n_positions", generation_args(prompt=6, new_tokens=16, n_positions=8)),
        Case("stops at the end token", generation_args(5, 8, 16, ends=lambda token, prompt: token not in prompt)),
        Case("the end token is in the prompt", generation_args(5, 8, 16, ends=lambda token, prompt: token in prompt)),
        Case("the end token is 0", generation_args(5, 8, 16, ends=lambda token, prompt: token == 0)),
    ],
    mistakes=[
        Mistake(
            "the logits of the first position are used",
            "Row t of the logits predicts the token after position t. Which row predicts a new one?",
            "logits[:, -1]",
            "logits[:, 0]",
        ),
        Mistake(
            "the logits of the last position but one are used",
            "Row t of the logits predicts the token after position t. Which row predicts a new one?",
            "logits[:, -1]",
            "logits[:, -2]",
        ),
        Mistake(
            "the least likely token is taken",
            "Greedy decoding takes the token with which logit?",
            "argmax(",
            "argmin(",
        ),
        Mistake(
            "the model sees only the last token",
            "This model has no memory: what it should know must be in its input.",
            "ids[:, -model.config.n_positions :]",
            "ids[:, -1:]",
        ),
        Mistake(
            "the first n_positions tokens are kept",
            "When the text is too long, which end of it can be given up?",
            "ids[:, -model.config.n_positions :]",
            "ids[:, : model.config.n_positions]",
        ),
        Mistake(
            "one token too few is kept",
            "How many tokens does the model see when the text is long? How many can it see?",
            "ids[:, -model.config.n_positions :]",
            "ids[:, -(model.config.n_positions - 1) :]",
        ),
        Mistake(
            "each new token is appended twice",
            "Print the length of ids after every step.",
            "[ids, next_id]",
            "[ids, next_id, next_id]",
        ),
        Mistake(
            "the new token is put in front",
            "At which end of the text does the new token belong?",
            "[ids, next_id]",
            "[next_id, ids]",
        ),
        Mistake(
            "the prompt is forgotten after the first step",
            "Print the length of ids after every step.",
            "[ids, next_id]",
            "[next_id]",
        ),
        Mistake(
            "the new token is never appended",
            "What has changed in the model's input from one step to the next?",
            "[ids, next_id]",
            "[ids]",
        ),
        Mistake(
            "one token too many is generated",
            "Count the tokens for max_new_tokens = 1.",
            "range(max_new_tokens)",
            "range(max_new_tokens + 1)",
        ),
        Mistake(
            "one token too few is generated",
            "Count the tokens for max_new_tokens = 1.",
            "range(max_new_tokens)",
            "range(max_new_tokens - 1)",
        ),
        Mistake(
            "the end token does not end it",
            "What should happen once the new token is eos_token_id?",
            "token == eos_token_id",
            "False",
        ),
        Mistake(
            "an end token of 0 is taken for no end token",
            "Which ids count as false in Python? When is there no end token?",
            "token == eos_token_id",
            "eos_token_id and token == eos_token_id",
        ),
        Mistake(
            "an end token in the prompt ends it",
            "Which token do you compare with eos_token_id: the newest, or any?",
            "token == eos_token_id",
            "eos_token_id in [*ids[0].tolist(), token]",
        ),
        Mistake(
            "the end token is not given out",
            "The docstring says whether the end token belongs to the result. In which order do you stop and yield?",
            "yield token",
            "if token == eos_token_id: return\n        yield token",
        ),
    ],
)

EXERCISES = [LAYER_NORM, GELU, CONV1D, ATTENTION, MLP, BLOCK, MODEL, GENERATE]
