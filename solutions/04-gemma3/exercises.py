"""What the exercises of 04-gemma3 are checked against: transformers' Gemma 3, eager attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gemma3.modeling_gemma3 import (
    Gemma3Attention,
    Gemma3DecoderLayer,
    Gemma3MLP,
    Gemma3RMSNorm,
    Gemma3RotaryEmbedding,
    Gemma3TextModel,
    Gemma3TextScaledWordEmbedding,
)

from grader.lessons.exercise import Case, Draw, Exercise, Mistake
from grader.tolerance import ROUNDED_ONCE

TRACE = "gemma3.causal_lm"

SLIDING, FULL = "sliding_attention", "full_attention"

# As the hub's files are written. B, T, D, the heads of both kinds and head_dim are all different numbers, and neither
# head_dim nor query_pre_attn_scalar is D / heads. T is larger than the window.
SMALL: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 7,
    "sliding_window": 4,
    "layer_types": [SLIDING, SLIDING, FULL],
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,  # large, so that a forgotten one shows
    "rope_theta": 10000.0,
    "rope_local_base_freq": 50.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
# As 270M is: one key and value head; layer_types follow from the number of layers.
ONE_HEAD: dict[str, Any] = {k: v for k, v in SMALL.items() if k != "layer_types"} | {
    "hidden_size": 18,
    "intermediate_size": 44,
    "num_hidden_layers": 7,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 3,
    "rms_norm_eps": 1e-2,
    "rope_theta": 100000.0,
    "rope_local_base_freq": 200.0,
}
# As transformers 5 writes a config: thetas by the kind of layer. The layers are in no regular order.
NESTED: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in ("rope_theta", "rope_local_base_freq")} | {
    "hidden_size": 30,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "query_pre_attn_scalar": 20,
    "sliding_window": 5,
    "layer_types": [FULL, SLIDING, FULL, SLIDING],
    "rms_norm_eps": 1e-2,
    "rope_parameters": {
        FULL: {"rope_type": "default", "rope_theta": 3000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 30.0},
    },
    "tie_word_embeddings": False,
}


def reference_config(config: Mapping[str, Any]) -> Gemma3TextConfig:
    """transformers' config for the learner's, with eager attention."""
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return Gemma3TextConfig(**{**config, **ends}, attn_implementation="eager")


def rotations(config: Mapping[str, Any], positions: Tensor, kind: str) -> Tensor:
    """transformers' cosines and sines for a kind of layer: [2, T, head_dim]."""
    cos, sin = Gemma3RotaryEmbedding(reference_config(config))(torch.zeros(()), positions[None], kind)
    return torch.stack([cos[0], sin[0]])


def visible(length: int, window: int | None = None) -> Tensor:
    """transformers' masks, True where a key may be seen: [length, length]."""
    # Only the window and the implementation count here; what else a config needs is SMALL's.
    config = reference_config(SMALL | {"sliding_window": window or length})
    make = create_causal_mask if window is None else create_sliding_window_causal_mask
    mask = make(config=config, inputs_embeds=torch.zeros(1, length, 1), attention_mask=None, cache=None)
    return torch.ones(length, length, dtype=torch.bool) if mask is None else mask[0, 0] == 0


def build_embedding(num_embeddings: int, embedding_dim: int) -> nn.Module:
    return Gemma3TextScaledWordEmbedding(num_embeddings, embedding_dim, None, embed_scale=embedding_dim**0.5)


def call_embedding(module: nn.Module, ids: Tensor) -> Tensor:
    return module(ids)


def call_with_table_and_mask(module: nn.Module, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    """Attention and DecoderLayer are handed their mask and rotations by the model around them; here by this."""
    cos, sin = table.to(x.dtype)
    added = torch.zeros(mask.shape, dtype=x.dtype).masked_fill(~mask, torch.finfo(x.dtype).min)
    output = module(x, position_embeddings=(cos[None], sin[None]), attention_mask=added[None, None])
    return output[0] if isinstance(output, tuple) else output


def call_model(module: nn.Module, ids: Tensor) -> Tensor:
    output = module(input_ids=ids, use_cache=False)
    return output.logits if "logits" in output else output.last_hidden_state


def call_rotary(module: nn.Module, positions: Tensor, kind: str) -> Tensor:
    cos, sin = module(torch.zeros(()), positions[None], kind)
    return torch.stack([cos[0], sin[0]])


def learners_name(name: str) -> str | None:
    """The course has neither a module for the activation nor one for the rotations; a factor is no weight."""
    return None if "act_fn" in name or "rotary_emb" in name or "embed_scale" in name else name


def sizes(build: Mapping[str, Any]) -> dict[str, int]:
    fields = ("head_dim", "hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window")
    return {field: build["config"][field] for field in fields}


def layer_inputs(config: dict[str, Any], batch: int, kind: str, start: int, scale: float = 1.0) -> Callable[..., Any]:
    """Draws x [batch, T, D], and the rotations of positions from `start` on and the mask of a kind of layer."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("T", 9, 7, 8)
        table = rotations(config, torch.arange(start, start + length), kind)
        mask = visible(length, config["sliding_window"] if kind == SLIDING else None)
        return draw.normal(batch, length, config["hidden_size"], scale=scale), table, mask

    return draw_args


def tokens(batch: int) -> Callable[..., Any]:
    """Draws ids [batch, T]."""
    return lambda draw: [draw.tokens(53, batch, draw.size("T", 9, 7, 8))]


EMBEDDING = Exercise(
    name="gemma3.embedding",
    solution="ScaledEmbedding",
    reference=build_embedding,
    points=3,
    axes="B T D",
    sizes=lambda build: {"D": build["embedding_dim"]},
    renamed=learners_name,
    cases=[
        Case("float32", tokens(2), {"num_embeddings": 53, "embedding_dim": 24}),
        Case("float32, another D", tokens(3), {"num_embeddings": 53, "embedding_dim": 40}),
        Case("bfloat16", tokens(2), {"num_embeddings": 53, "embedding_dim": 40}, torch.bfloat16, ROUNDED_ONCE),
    ],
    mistakes=[
        Mistake(
            "the embedding is not scaled",
            "That is Qwen3's and Llama's embedding. Which line of Gemma's has no counterpart in yours?",
            "super().forward(ids) * scale",
            "super().forward(ids)",
        ),
        Mistake(
            "the factor is D, not its root",
            "A row of random numbers of size 1 has which length?",
            "self.embedding_dim**0.5",
            "self.embedding_dim",
        ),
        Mistake(
            "it divides by the root of D",
            "Attention divides by such a root. Are the rows of a head too long for the layers, or too short?",
            "super().forward(ids) * scale",
            "super().forward(ids) / scale",
        ),
        Mistake(
            "the factor is the root of the vocabulary's size",
            "Which of the two numbers that an embedding is made of is the length of a row?",
            "self.embedding_dim**0.5",
            "self.num_embeddings**0.5",
        ),
        Mistake(
            "the factor is not rounded to the weights' dtype",
            "A bfloat16 tensor times a Python number uses all digits of the number. What does the reference do first?",
            "torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype, device=ids.device)",
            "self.embedding_dim**0.5",
        ),
        Mistake(
            "the factor is rounded to bfloat16 whatever the weights are",
            "The models on the hub are bfloat16. These weights are float32: what is the root of D there?",
            "torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype, device=ids.device)",
            "torch.tensor(self.embedding_dim**0.5, dtype=torch.bfloat16, device=ids.device).to(self.weight.dtype)",
        ),
        Mistake(
            "the factor is cut to a whole number",
            "Print your factor. Is the root of D a whole number?",
            "self.embedding_dim**0.5",
            "int(self.embedding_dim**0.5)",
        ),
        Mistake(
            "the factor is rounded to two decimals",
            "Print your factor with all its digits. Who rounded it?",
            "self.embedding_dim**0.5",
            "round(self.embedding_dim**0.5, 2)",
        ),
        Mistake(
            "the rows are normalised",
            "A factor is the same for every token. Is what you multiply by?",
            "super().forward(ids) * scale",
            "F.normalize(super().forward(ids), dim=-1) * scale",
        ),
    ],
)

RMS_NORM = Exercise(
    name="gemma3.rms_norm",
    solution="RMSNorm",
    reference=lambda dim, eps: Gemma3RMSNorm(dim, eps=eps),
    points=5,
    axes="B T D",
    sizes=lambda build: {"D": build["dim"]},
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, draw.size("T", 7, 5, 6), 40)], {"dim": 40, "eps": 1e-6}),
        Case("inputs around 3, no batch axis", lambda draw: [draw.normal(5, 24) + 3], {"dim": 24, "eps": 1e-5}),
        Case("queries: [B, T, H, head_dim]", lambda draw: [draw.normal(2, 5, 3, 10)], {"dim": 10, "eps": 1e-2}),
        Case("tiny inputs", lambda draw: [draw.normal(2, 5, 24, scale=1e-3)], {"dim": 24, "eps": 1e-6}),
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 40)], {"dim": 40, "eps": 1e-6}, torch.bfloat16, ROUNDED_ONCE),
    ],
    mistakes=[
        Mistake(
            "the weight is taken as the scale: x / rms · w",
            "That is the norm of Llama and Qwen3, whose weight starts at 1. At what does this one start?",
            "(1.0 + self.weight.float())",
            "self.weight.float()",
        ),
        Mistake(
            "it is cast down before it is multiplied",
            "That is the order of Llama and Qwen3. In bfloat16 it shows: at which point of the formula does the"
            " reference cast?",
            "(normed * (1.0 + self.weight.float())).to(x.dtype)",
            "normed.to(x.dtype) * (1.0 + self.weight)",
        ),
        Mistake(
            "1 + w is computed in the weight's dtype",
            "In bfloat16, 1 + 0.01 has few digits to live in. What does the reference make of the weight first?",
            "(1.0 + self.weight.float())",
            "(1.0 + self.weight).float()",
        ),
        Mistake(
            "the statistics are computed in bfloat16",
            "bfloat16 keeps 8 bits of a number. Which line of yours works in x's own dtype, and should not?",
            "x32 = x.float()",
            "x32 = x",
        ),
        Mistake(
            "all of it is computed in x's own dtype",
            "In bfloat16 a number keeps 8 bits at every step. The docstring says in which dtype the formula is computed.",
            "return (normed * (1.0 + self.weight.float())).to(x.dtype)",
            "mean_square = x.pow(2).mean(dim=-1, keepdim=True)\n"
            "        return x * torch.rsqrt(mean_square + self.eps) * (1.0 + self.weight)",
        ),
        Mistake(
            "the statistics are computed in float32, and the products in bfloat16",
            "Half of the docstring is done. Which of your tensors are float32 when they are multiplied?",
            "return (normed * (1.0 + self.weight.float())).to(x.dtype)",
            "return x * torch.rsqrt(mean_square + self.eps).to(x.dtype) * (1.0 + self.weight)",
        ),
        Mistake(
            "the weight is missing",
            "One learned vector belongs to this layer. Does your forward use it?",
            "normed * (1.0 + self.weight.float())",
            "normed",
        ),
        Mistake(
            "1 is added to the product: x / rms · w + 1",
            "What is 1 added to: the result, or the weight?",
            "normed * (1.0 + self.weight.float())",
            "(normed * self.weight.float() + 1.0)",
        ),
        Mistake(
            "the weight is taken as 1 - w",
            "Which sign stands before the weight in the reference?",
            "1.0 + self.weight",
            "1.0 - self.weight",
        ),
        Mistake(
            "the weight is added, not multiplied",
            "A scale multiplies. What does your weight do to the normalised x?",
            "normed * (1.0 + self.weight.float())",
            "(normed + self.weight.float())",
        ),
        Mistake(
            "eps is added after the square root",
            "Look at where eps stands in the formula. Tiny inputs show the difference.",
            "torch.rsqrt(mean_square + self.eps)",
            "(1 / (torch.sqrt(mean_square) + self.eps))",
        ),
        Mistake(
            "eps is not the one that was given",
            "Find every place where you wrote a small number by hand.",
            "mean_square + self.eps",
            "mean_square + 1e-8",
        ),
        Mistake(
            "eps is 1e-6, whatever was given",
            "Find every place where you wrote a small number by hand. Who is told the right one?",
            "mean_square + self.eps",
            "mean_square + 1e-6",
        ),
        Mistake(
            "eps is missing",
            "Which number in the formula keeps a vector of zeros from being divided by zero?",
            "mean_square + self.eps",
            "mean_square",
        ),
        Mistake(
            "the mean is subtracted, as in LayerNorm",
            "How many reductions over the vector does the formula have? Inputs around 3 show the difference.",
            "x32 = x.float()",
            "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)",
        ),
        Mistake(
            "the squares are added up, not averaged",
            "What is the root mean square of a vector of ones? And what does yours divide it by?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).sum(dim=-1, keepdim=True)",
        ),
        Mistake(
            "it multiplies by the root mean square",
            "If all of x is 10, what does your normalised x hold?",
            "torch.rsqrt(mean_square + self.eps)",
            "torch.sqrt(mean_square + self.eps)",
        ),
        Mistake(
            "it divides by the mean square",
            "The units tell: if x is in metres, in what is the mean of its squares?",
            "torch.rsqrt(mean_square + self.eps)",
            "(1 / (mean_square + self.eps))",
        ),
        Mistake(
            "it divides by the standard deviation",
            "Is anything subtracted before the squares are taken? And by what is their sum divided?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.var(dim=-1, keepdim=True)",
        ),
        Mistake(
            "one mean is taken over everything",
            "Each token is normalised by itself. How many root mean squares has a [B, T, D] tensor?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).mean()",
        ),
        Mistake(
            "the statistics are taken over the tokens",
            "Each token is normalised by itself. Which axis of [B, T, D] do its own values lie on?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).mean(dim=-2, keepdim=True)",
        ),
    ],
)

MLP = Exercise(
    name="gemma3.mlp",
    solution="MLP",
    reference=lambda config: Gemma3MLP(reference_config(config)),
    points=3,
    axes="B T D",
    sizes=lambda build: {"hidden_size": build["config"]["hidden_size"]},
    renamed=learners_name,
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, draw.size("T", 7, 5, 6), 24)], {"config": SMALL}),
        Case("gates around 2", lambda draw: [draw.normal(2, 5, 30, scale=2.0)], {"config": NESTED}),
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the gate is a SiLU",
            "That is Qwen3's and Llama's gate. Which activation does `hidden_activation` name?",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
            "F.silu(self.gate_proj(x))",
        ),
        Mistake(
            "the gate is the exact GELU",
            "PyTorch has two forms of GELU, and they differ by half a thousandth. Read the name in the config to its"
            " end.",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
            "F.gelu(self.gate_proj(x))",
        ),
        Mistake(
            "the gate is x · sigmoid(1.702 x)",
            "That is a rougher form of GELU, with another name. Which form does `hidden_activation` name?",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
            "self.gate_proj(x) * torch.sigmoid(1.702 * self.gate_proj(x))",
        ),
        Mistake(
            "the gate is a ReLU",
            "That is ReGLU. Which activation does `hidden_activation` name?",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
            "torch.relu(self.gate_proj(x))",
        ),
        Mistake(
            "gate and up have changed places",
            "Which of the two is bent by the activation? Its name says what it does to the other.",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'self.gate_proj(x) * F.gelu(self.up_proj(x), approximate="tanh")',
        ),
        Mistake(
            "the activation comes after the product",
            "What does the activation take in: one view, or the product of both?",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'F.gelu(self.gate_proj(x) * self.up_proj(x), approximate="tanh")',
        ),
        Mistake(
            "the activation is missing",
            "What stands between gate_proj and the product?",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
            "self.gate_proj(x)",
        ),
        Mistake(
            "up is missing",
            "Three matrices belong to this module. Which of them does your forward never touch?",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'F.gelu(self.gate_proj(x), approximate="tanh")',
        ),
        Mistake(
            "gate and up are added",
            "A gate that is shut lets nothing through. What does yours let through when it gives 0?",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'F.gelu(self.gate_proj(x), approximate="tanh") + self.up_proj(x)',
        ),
        Mistake(
            "gate and up are both bent",
            "How many activations stand in the formula, and around what?",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'F.gelu(self.gate_proj(x), approximate="tanh") * F.gelu(self.up_proj(x), approximate="tanh")',
        ),
        Mistake(
            "the gate is missing",
            "Three matrices belong to this module. Which of them does your forward never touch?",
            'F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)',
            'F.gelu(self.up_proj(x), approximate="tanh")',
        ),
    ],
)

ROPE = Exercise(
    name="gemma3.rope",
    solution="RotaryEmbedding",
    reference=lambda config: Gemma3RotaryEmbedding(reference_config(config)),
    call=call_rotary,
    points=3,
    axes="cos/sin T head_dim",
    sizes=lambda build: {"head_dim": build["config"]["head_dim"]},
    differentiable=False,
    renamed=lambda name: None,
    cases=[
        Case("a sliding layer", lambda draw: [torch.arange(5, 12), SLIDING], {"config": SMALL}),
        Case("a full layer", lambda draw: [torch.arange(5, 12), FULL], {"config": SMALL}),
        Case(
            "a sliding layer, as transformers 5 writes its config",
            lambda draw: [torch.tensor([3, 40, 17]), SLIDING],
            {"config": NESTED},
        ),
        Case(
            "a full layer, as transformers 5 writes its config",
            lambda draw: [torch.tensor([3, 40, 17]), FULL],
            {"config": NESTED},
        ),
    ],
    mistakes=[
        Mistake(
            "sliding layers have the full layers' theta",
            "That is Qwen3's way: one theta for all. Which field of the config is for the sliding layers?",
            "self.thetas[layer_type]",
            'self.thetas["full_attention"]',
        ),
        Mistake(
            "full layers have the sliding layers' theta",
            "That is Gemma 2's way: one theta for all. Which field of the config is for the full layers?",
            "self.thetas[layer_type]",
            'self.thetas["sliding_attention"]',
        ),
        Mistake(
            "the two thetas have changed places",
            "Who has to tell apart tokens that are 30,000 steps away: a sliding layer, or a full one?",
            "self.thetas[layer_type]",
            'self.thetas["full_attention" if layer_type == "sliding_attention" else "sliding_attention"]',
        ),
        Mistake(
            "rope_theta and rope_local_base_freq have changed places",
            "Where the config has no rope_parameters, two fields hold the two thetas. Which layers look at what is near?",
            "full, sliding = config.rope_theta, config.rope_local_base_freq",
            "sliding, full = config.rope_theta, config.rope_local_base_freq",
        ),
        Mistake(
            "theta is written down, and not the config's",
            "Find every number in your class that you wrote by hand.",
            "self.thetas[layer_type]",
            '10000.0 if layer_type == "sliding_attention" else 1000000.0',
        ),
        Mistake(
            "head_dim is taken for D / heads",
            "How wide is a head? In Gemma that is its own number, as in Qwen3.",
            "self.head_dim = config.head_dim",
            "self.head_dim = 2 * (config.hidden_size // config.num_attention_heads // 2)",
        ),
        Mistake(
            "the positions are counted from 0",
            "Which tensor says where the tokens stand?",
            "rope_table(positions, ",
            "rope_table(torch.arange(len(positions)), ",
        ),
    ],
)

MASK = Exercise(
    name="gemma3.mask",
    solution="visible",
    reference=visible,
    function=True,
    points=4,
    axes="query key",
    differentiable=False,
    cases=[
        Case("full", lambda draw: [draw.size("T", 7, 6, 8)]),
        Case("a window of 3", lambda draw: [draw.size("T", 8, 7, 9), 3]),
        Case("a window of 1", lambda draw: [draw.size("T", 4, 5, 6), 1]),
        Case("a window longer than the text", lambda draw: [5, draw.size("W", 9, 6, 12)]),
    ],
    mistakes=[
        Mistake(
            "the window is one too long",
            "With a window of 1, whom does a token see? Does the window count the token itself?",
            "distance < window",
            "distance <= window",
        ),
        Mistake(
            "the window is one too short",
            "With a window of 1, whom does a token see? Print your mask for 4 tokens.",
            "distance < window",
            "distance < window - 1",
        ),
        Mistake(
            "there is no window",
            "What does your function do with its second argument?",
            "if window is not None:",
            "if False:",
        ),
        Mistake(
            "with a window, as many later tokens are seen as earlier ones",
            "The window limits the past. What keeps the future out?",
            "seen & (distance < window)",
            "distance.abs() < window",
        ),
        Mistake(
            "with a window, all later tokens are seen",
            "Is the distance to a later token smaller than the window? What keeps the future out?",
            "seen & (distance < window)",
            "distance < window",
        ),
        Mistake(
            "all later tokens are seen",
            "What is the distance to a later token, and which of your lines says something of it?",
            "seen = distance >= 0",
            "seen = torch.ones(length, length, dtype=torch.bool)",
        ),
        Mistake(
            "the window's far side is kept, and the near side hidden",
            "Print your mask for a window of 3. Does the last token see its neighbour?",
            "seen & (distance < window)",
            "seen & (distance >= window)",
        ),
        Mistake(
            "the text is cut into blocks",
            "Which tokens does token 3 see with a window of 3: those since the last multiple of 3, or 1, 2 and 3?",
            "seen & (distance < window)",
            "seen & (positions[:, None] // window == positions[None, :] // window)",
        ),
        Mistake(
            "only the first tokens of the text are seen",
            "A window moves along. Print the last row of your mask.",
            "seen & (distance < window)",
            "seen & (positions[None, :] < window)",
        ),
        Mistake(
            "queries and keys have changed places",
            "Rows are queries. Whom does the first token see?",
            "positions[:, None] - positions[None, :]",
            "positions[None, :] - positions[:, None]",
        ),
        Mistake(
            "it is True where a key may not be seen",
            "The docstring says what True means.",
            "return seen",
            "return ~seen",
        ),
        Mistake(
            "no token sees itself",
            "What is a token's distance to itself?",
            "distance >= 0",
            "distance > 0",
        ),
    ],
)

ATTENTION = Exercise(
    name="gemma3.attention",
    solution="Attention",
    reference=lambda config: Gemma3Attention(reference_config(config), layer_idx=0),
    call=call_with_table_and_mask,
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"q_norm": "gemma3.rms_norm", "k_norm": "gemma3.rms_norm"},
    cases=[
        Case("a sliding layer: 4 heads of 10, 2 for k and v", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}),
        Case("a full layer: 6 heads of 6, 2 for k and v", layer_inputs(NESTED, 2, FULL, 3), {"config": NESTED}),
        Case(
            "a sliding layer: 3 heads of 8, 1 for k and v", layer_inputs(ONE_HEAD, 2, SLIDING, 4), {"config": ONE_HEAD}
        ),
        Case("bfloat16", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the scores are scaled with head_dim",
            "That is Qwen3's scale, and in Gemma 3 up to 12B the same number. Which field of the config is it here?",
            "config.query_pre_attn_scalar**-0.5",
            "config.head_dim**-0.5",
        ),
        Mistake(
            "the scores are scaled with D / heads",
            "In 27B that happens to be the number. Which field of the config says it?",
            "config.query_pre_attn_scalar**-0.5",
            "(config.hidden_size / config.num_attention_heads) ** -0.5",
        ),
        Mistake(
            "the scores are divided by query_pre_attn_scalar, not by its root (or by its root twice)",
            "Which power does the docstring name? And in how many places do you scale q, k or their product?",
            "config.query_pre_attn_scalar**-0.5",
            "config.query_pre_attn_scalar**-1.0",
        ),
        Mistake(
            "the scores are multiplied by the root of query_pre_attn_scalar",
            "Which sign has the power in the docstring?",
            "config.query_pre_attn_scalar**-0.5",
            "config.query_pre_attn_scalar**0.5",
        ),
        Mistake(
            "the scores are not scaled",
            "Between the product of queries and keys and the softmax, something is missing.",
            " * self.scale",
            "",
        ),
        Mistake(
            "the scores are capped",
            "That is Gemma 2. What does the config say of attn_logit_softcapping, and who in the reference reads it?",
            'scores = scores.masked_fill(~mask, float("-inf"))',
            'scores = (10 * torch.tanh(scores / 10)).masked_fill(~mask, float("-inf"))',
        ),
        Mistake(
            "the mask hides what may be seen",
            "masked_fill fills where its mask is True. What does True mean in yours?",
            "masked_fill(~mask,",
            "masked_fill(mask,",
        ),
        Mistake(
            "the mask is not used",
            "Change the last token of your input: the output of the first must not move.",
            'scores = scores.masked_fill(~mask, float("-inf"))',
            "pass",
        ),
        Mistake(
            "it has a mask of its own, without a window",
            "Which of your lines decides who sees whom? It can't know in which kind of layer it is.",
            "masked_fill(~mask,",
            "masked_fill(torch.ones_like(mask).triu(diagonal=1),",
        ),
        Mistake(
            "the mask is added to the scores as it is",
            "The reference adds a mask of zeros and very low numbers. What does adding True do to a score?",
            'scores = scores.masked_fill(~mask, float("-inf"))',
            "scores = scores + mask",
        ),
        Mistake(
            "the weights are masked after the softmax",
            "Add up one row of your weights. Over which keys should they sum to 1?",
            'scores = scores.masked_fill(~mask, float("-inf"))\n'
            "        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)",
            "weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype) * mask",
        ),
        Mistake(
            "hidden scores are set to 0 before the softmax",
            "What is exp(0)? And what would have to stand there for the weight to become 0?",
            'float("-inf")',
            "0.0",
        ),
        Mistake(
            "q is not normalised",
            "Two norms belong to this module. Which of them does your forward never call?",
            "self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim))",
            "self.q_proj(x).view(B, T, -1, self.head_dim)",
        ),
        Mistake(
            "k is not normalised",
            "Two norms belong to this module. Which of them does your forward never call?",
            "self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim))",
            "self.k_proj(x).view(B, T, -1, self.head_dim)",
        ),
        Mistake(
            "q and k are normalised with each other's norm",
            "Which weight belongs to the queries?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q = self.k_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)\n"
            "        k = self.q_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)\n"
            "        q, k = apply_rope(q, table), apply_rope(k, table)",
        ),
        Mistake(
            "neither q nor k is normalised",
            "What do q_norm and k_norm do in your forward?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q = self.q_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)\n"
            "        k = self.k_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)\n"
            "        q, k = apply_rope(q, table), apply_rope(k, table)",
        ),
        Mistake(
            "q and k are normalised after RoPE",
            "The norm has a weight for each channel, and RoPE mixes channels, so the order matters. Which comes first?",
            "k, v = (t[:, :, None]",
            "q = self.q_norm(apply_rope(self.q_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2), table))\n"
            "        k = self.k_norm(apply_rope(self.k_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2), table))\n"
            "        k, v = (t[:, :, None]",
        ),
        Mistake(
            "q and k are normalised with each other's norm",
            "Which weight belongs to the queries?",
            "q = self.q_norm(self.q_proj(x)",
            "q = self.k_norm(self.q_proj(x)",
        ),
        Mistake(
            "v is normalised too",
            "That is Gemma 4. How many norms does this checkpoint have names for?",
            "v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)",
            "v = self.k_norm(self.v_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)",
        ),
        Mistake(
            "q_norm and k_norm do not have the config's eps",
            "A norm has two settings. Where does each of them come from?",
            "self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)\n"
            "        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)",
            "self.q_norm = RMSNorm(self.head_dim)\n        self.k_norm = RMSNorm(self.head_dim)",
        ),
        Mistake(
            "query heads are handed the wrong key and value heads",
            "Query heads 0 and 1 share key head 0. Of 4 query heads and 2 key heads, which order does your repeated k"
            " have: 0 0 1 1 or 0 1 0 1?",
            "t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2)",
            "t.repeat(1, self.group, 1, 1)",
        ),
        Mistake(
            "the query heads are handed the wrong value heads",
            "k and v are shared by the same query heads. Compare how you repeat the one and the other.",
            "scores = (q @ k",
            "v = v[:, :: self.group].repeat(1, self.group, 1, 1)\n        scores = (q @ k",
        ),
        Mistake(
            "the query heads are handed the wrong key heads",
            "k and v are shared by the same query heads. Compare how you repeat the one and the other.",
            "scores = (q @ k",
            "k = k[:, :: self.group].repeat(1, self.group, 1, 1)\n        scores = (q @ k",
        ),
        Mistake(
            "queries and keys have changed places in the product",
            "Rows of the scores are queries, columns are keys. Which of the two stands on the left?",
            "scores = (q @ k",
            "q, k = k, q\n        scores = (q @ k",
        ),
        Mistake(
            "the scores are capped",
            "That is Gemma 2. What does the config say of attn_logit_softcapping?",
            "scores = scores.masked_fill(",
            "scores = 50 * torch.tanh(scores / 50)\n        scores = scores.masked_fill(",
        ),
        Mistake(
            "v is cut into heads without a transpose",
            "`view` keeps the order of the numbers. Which axes must change places after it, in v as in q and k?",
            "self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)",
            "self.v_proj(x).view(B, -1, T, self.head_dim)",
        ),
        Mistake(
            "every query head uses the first key and value head",
            "In 270M there is one for all. How many does this config have?",
            "t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2)",
            "t[:, :1].expand(B, t.shape[1] * self.group, T, self.head_dim)",
        ),
        Mistake(
            "q and k are not turned",
            "Swap two earlier tokens of the input: the last output must change. Where do positions come in?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q, k = q, k",
        ),
        Mistake(
            "k is not turned",
            "The product of q and k must depend on the distance alone. So who has to be turned?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q, k = apply_rope(q, table), k",
        ),
        Mistake(
            "v is turned too",
            "A value is what a token says. Should that depend on where it stands?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q, k, v = apply_rope(q, table), apply_rope(k, table), apply_rope(v, table)",
        ),
        Mistake(
            "the softmax runs over the queries",
            "In [B, H, T, T], which axis holds the keys? Along which must the weights sum to 1?",
            'scores = scores.masked_fill(~mask, float("-inf"))\n        weights = scores.softmax(dim=-1,',
            "scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)\n        weights = scores.softmax(dim=-2,",
        ),
        Mistake(
            "the heads are merged without a transpose",
            "What are the axes of the heads' output, in order? Which must stand side by side before you merge them?",
            "(weights @ v).transpose(1, 2)",
            "(weights @ v)",
        ),
        Mistake(
            "the weights mix the keys",
            "Of q, k and v: which one decides how much, and which one says what?",
            "weights @ v",
            "weights @ k",
        ),
    ],
)

DECODER_LAYER = Exercise(
    name="gemma3.decoder_layer",
    solution="DecoderLayer",
    reference=lambda config: Gemma3DecoderLayer(reference_config(config), layer_idx=0),
    call=call_with_table_and_mask,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={
        "input_layernorm": "gemma3.rms_norm",
        "self_attn": "gemma3.attention",
        "post_attention_layernorm": "gemma3.rms_norm",
        "pre_feedforward_layernorm": "gemma3.rms_norm",
        "mlp": "gemma3.mlp",
        "post_feedforward_layernorm": "gemma3.rms_norm",
    },
    cases=[
        Case("a sliding layer", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}),
        Case("a full layer, small inputs", layer_inputs(NESTED, 2, FULL, 3, scale=0.1), {"config": NESTED}),
        Case("one key and value head", layer_inputs(ONE_HEAD, 2, SLIDING, 4), {"config": ONE_HEAD}),
        Case("bfloat16", layer_inputs(SMALL, 2, SLIDING, 5), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "it is Qwen3's layer: two norms, and post_attention_layernorm before the MLP",
            "Two of the six parts does your forward never call. And the third norm's name means what it says here.",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "x = x + self.self_attn(self.input_layernorm(x), table, mask)\n"
            "        return x + self.mlp(self.post_attention_layernorm(x))",
        ),
        Mistake(
            "neither sublayer's output is normalised",
            "Which of the layer's parts does your forward never call?",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "x = x + self.self_attn(self.input_layernorm(x), table, mask)\n"
            "        return x + self.mlp(self.pre_feedforward_layernorm(x))",
        ),
        Mistake(
            "attention's output is not normalised",
            "Which of the layer's parts does your forward never call?",
            "self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "self.self_attn(self.input_layernorm(x), table, mask)",
        ),
        Mistake(
            "the MLP's output is not normalised",
            "Which of the layer's parts does your forward never call?",
            "self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))",
            "self.mlp(self.pre_feedforward_layernorm(x))",
        ),
        Mistake(
            "attention gets x without its norm",
            "Which of the layer's parts does your forward never call?",
            "self.self_attn(self.input_layernorm(x), table, mask)",
            "self.self_attn(x, table, mask)",
        ),
        Mistake(
            "the MLP gets x without its norm",
            "Which of the layer's parts does your forward never call?",
            "self.mlp(self.pre_feedforward_layernorm(x))",
            "self.mlp(x)",
        ),
        Mistake(
            "the norms after the sublayers act on the sums",
            "What does the residual stream carry from layer to layer: sums of outputs, or something normalised?",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "x = self.post_attention_layernorm(x + self.self_attn(self.input_layernorm(x), table, mask))\n"
            "        return self.post_feedforward_layernorm(x + self.mlp(self.pre_feedforward_layernorm(x)))",
        ),
        Mistake(
            "post_attention_layernorm and pre_feedforward_layernorm have changed places",
            "Both stand between attention and the MLP. Which of them is before the sum?",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "x = x + self.pre_feedforward_layernorm(self.self_attn(self.input_layernorm(x), table, mask))\n"
            "        return x + self.post_feedforward_layernorm(self.mlp(self.post_attention_layernorm(x)))",
        ),
        Mistake(
            "the two norms of the MLP have changed places",
            '"Pre" is before, "post" is after.',
            "self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))",
            "self.pre_feedforward_layernorm(self.mlp(self.post_feedforward_layernorm(x)))",
        ),
        Mistake(
            "the two norms of attention have changed places",
            "Which of the names means that it comes first?",
            "self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "self.input_layernorm(self.self_attn(self.post_attention_layernorm(x), table, mask))",
        ),
        Mistake(
            "the residual around attention is missing",
            "There are two sums in a layer, one for each sublayer.",
            "x = x + self.post_attention_layernorm",
            "x = self.post_attention_layernorm",
        ),
        Mistake(
            "the residual around the MLP is missing",
            "There are two sums in a layer, one for each sublayer.",
            "return x + self.post_feedforward_layernorm",
            "return self.post_feedforward_layernorm",
        ),
        Mistake(
            "the residual around attention carries the normalised x",
            "What does the sublayer get, and what does the sum get? They are not the same tensor.",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "x = (y := self.input_layernorm(x)) + self.post_attention_layernorm(self.self_attn(y, table, mask))",
        ),
        Mistake(
            "the residual around the MLP carries the normalised x",
            "What does the sublayer get, and what does the sum get? They are not the same tensor.",
            "return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))",
            "return (y := self.pre_feedforward_layernorm(x)) + self.post_feedforward_layernorm(self.mlp(y))",
        ),
        Mistake(
            "attention and MLP both read the layer's input",
            "Some models do run the two side by side. Here one sees what the other wrote.",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))",
            "y = self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))\n"
            "        return x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask)) + y",
        ),
        Mistake(
            "the norms do not have the config's eps",
            "A norm has two settings. Where does each of them come from?",
            "D, eps = config.hidden_size, config.rms_norm_eps",
            "D, eps = config.hidden_size, 1e-6",
        ),
    ],
)

MODEL = Exercise(
    name="gemma3.model",
    solution="Model",
    reference=lambda config: Gemma3TextModel(reference_config(config)).eval(),
    call=call_model,
    points=6,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={
        "embed_tokens": "gemma3.embedding",
        "layers.*": "gemma3.decoder_layer",
        "norm": "gemma3.rms_norm",
    },
    uses=["gemma3.rope", "gemma3.mask"],
    cases=[
        Case("sliding, sliding, full", tokens(2), {"config": SMALL}),
        Case("7 layers, and no list of their kinds", tokens(2), {"config": ONE_HEAD}),
        Case("full first, as transformers 5 writes its config", tokens(3), {"config": NESTED}),
    ],
    mistakes=[
        Mistake(
            "every layer is a full one",
            "That is Qwen3. What does layer_types(config) say of layer 0?",
            "x = layer(x, tables[kind], masks[kind])",
            'x = layer(x, tables["full_attention"], masks["full_attention"])',
        ),
        Mistake(
            "every layer is a sliding one",
            "What does layer_types(config) say of the last layer?",
            "x = layer(x, tables[kind], masks[kind])",
            'x = layer(x, tables["sliding_attention"], masks["sliding_attention"])',
        ),
        Mistake(
            "every layer has the full layers' rotations",
            "Two things depend on the kind of a layer. Which of them do you choose by it?",
            "tables[kind], masks[kind]",
            'tables["full_attention"], masks[kind]',
        ),
        Mistake(
            "every layer has the sliding layers' rotations",
            "Two things depend on the kind of a layer. Which of them do you choose by it?",
            "tables[kind], masks[kind]",
            'tables["sliding_attention"], masks[kind]',
        ),
        Mistake(
            "no layer has a window, or one that is longer than the text",
            "Print both masks for 9 tokens: does a sliding layer see less than a full one? Which field says how much?",
            "tables[kind], masks[kind]",
            'tables[kind], masks["full_attention"]',
        ),
        Mistake(
            "every layer has a window",
            "Two things depend on the kind of a layer. Which of them do you choose by it?",
            "tables[kind], masks[kind]",
            'tables[kind], masks["sliding_attention"]',
        ),
        Mistake(
            "sliding layers see one token too many",
            "`visible` takes the length of the window, and the config gives it. What do you hand over?",
            '"sliding_attention": self.config.sliding_window}',
            '"sliding_attention": self.config.sliding_window + 1}',
        ),
        Mistake(
            "sliding layers see one token too few",
            "`visible` takes the length of the window, and the config gives it. What do you hand over?",
            '"sliding_attention": self.config.sliding_window}',
            '"sliding_attention": self.config.sliding_window - 1}',
        ),
        Mistake(
            "sliding and full layers have changed places",
            "Print layer_types(config) beside the masks that your layers get.",
            '{"full_attention": None, "sliding_attention": self.config.sliding_window}',
            '{"sliding_attention": None, "full_attention": self.config.sliding_window}',
        ),
        Mistake(
            "the kinds are those of the layers before",
            "Layers are counted from 0. Which kind has the last one, and which one gets it in your loop?",
            "zip(self.layers, layer_types(self.config), strict=True)",
            "zip(self.layers, [layer_types(self.config)[-1], *layer_types(self.config)[:-1]], strict=True)",
        ),
        Mistake(
            "only the last layer is a full one",
            "Print layer_types(config) for a model of 7 layers. Where is its full one?",
            "zip(self.layers, layer_types(self.config), strict=True)",
            'zip(self.layers, ["sliding_attention"] * (len(self.layers) - 1) + ["full_attention"], strict=True)',
        ),
        Mistake(
            "the kinds are counted from the last layer",
            "Print layer_types(config): which kind has the first layer?",
            "zip(self.layers, layer_types(self.config), strict=True)",
            "zip(self.layers, layer_types(self.config)[::-1], strict=True)",
        ),
        Mistake(
            "the embedding is not scaled",
            "Which class looks tokens up in your model: yours of exercise 1, or nn.Embedding?",
            "self.embed_tokens = ScaledEmbedding(",
            "self.embed_tokens = nn.Embedding(",
        ),
        Mistake(
            "the embedding is scaled twice",
            "ScaledEmbedding scales. Who else does?",
            "x = self.embed_tokens(ids)",
            "x = self.embed_tokens(ids) * self.config.hidden_size**0.5",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "return self.norm(x)",
            "return x",
        ),
        Mistake(
            "the final norm does not have the config's eps",
            "Compare how you make this norm with those in the layer.",
            "self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)",
            "self.norm = RMSNorm(config.hidden_size)",
        ),
        Mistake(
            "every token gets position 0",
            "Print the positions that you look up. There should be T different ones.",
            "torch.arange(T, device=ids.device)",
            "torch.zeros(T, dtype=torch.int64, device=ids.device)",
        ),
        Mistake(
            "the layers run in reverse order",
            "Where does the token enter: at layers.0 or at the last one?",
            "zip(self.layers, layer_types(self.config), strict=True)",
            "zip(reversed(self.layers), reversed(layer_types(self.config)), strict=True)",
        ),
        Mistake(
            "the last layer is left out",
            "Count how many layers run.",
            "zip(self.layers, layer_types(self.config), strict=True)",
            "zip(self.layers[:-1], layer_types(self.config)[:-1], strict=True)",
        ),
    ],
)

CAUSAL_LM = Exercise(
    name="gemma3.causal_lm",
    solution="CausalLM",
    reference=lambda config: Gemma3ForCausalLM(reference_config(config)).eval(),
    call=call_model,
    points=2,
    axes="B T vocab_size",
    sizes=lambda build: sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"model": "gemma3.model"},
    cases=[
        Case("a config that says nothing of its head", tokens(2), {"config": SMALL}, draw="3"),
        Case("a tied head", tokens(2), {"config": ONE_HEAD | {"tie_word_embeddings": True}}, draw="2"),
        Case("a head of its own", tokens(3), {"config": NESTED}),
    ],
    mistakes=[
        Mistake(
            "the head is always the embedding",
            "One of the three models has a head of its own. Does your forward use it?",
            "self.lm_head(self.model(ids))",
            "F.linear(self.model(ids), self.model.embed_tokens.weight)",
        ),
        Mistake(
            "the logits are scaled by the root of D, as the embedding is",
            "The two share a matrix. Do they share the factor?",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model(ids)) * self.config.hidden_size**0.5",
        ),
        Mistake(
            "the logits are divided by the root of D",
            "Is there a scale between the last norm and the head?",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model(ids)) * self.config.hidden_size**-0.5",
        ),
        Mistake(
            "it returns probabilities",
            "The model returns logits: what the head gives, untouched.",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model(ids)).softmax(dim=-1)",
        ),
        Mistake(
            "it returns the logarithms of probabilities",
            "The model returns logits: what the head gives, untouched.",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model(ids)).log_softmax(dim=-1)",
        ),
        Mistake(
            "the logits are capped",
            "That is Gemma 2. What does the config say of final_logit_softcapping?",
            "self.lm_head(self.model(ids))",
            "30 * torch.tanh(self.lm_head(self.model(ids)) / 30)",
        ),
        Mistake(
            "the final norm is applied twice",
            "Where is the last norm: in the model, or between the model and the head?",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model.norm(self.model(ids)))",
        ),
    ],
)

EXERCISES = [EMBEDDING, RMS_NORM, MLP, ROPE, MASK, ATTENTION, DECODER_LAYER, MODEL, CAUSAL_LM]
