"""What the exercises of 03-qwen3 are checked against: transformers' Qwen3 and Llama, eager attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaModel
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3MLP,
    Qwen3Model,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
    apply_rotary_pos_emb,
)

from grader.authoring.toy import random_toy_lm, reference_generate
from grader.config import Config
from grader.lessons.exercise import Case, Draw, Exercise, Mistake
from grader.tolerance import ROUNDED_ONCE

TRACE = "qwen3.causal_lm"

# B, T, D, the heads of both kinds and head_dim are all different numbers, and head_dim is not D / heads.
SMALL: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_act": "silu",
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-3,  # large, so that a forgotten one shows
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
OTHER = SMALL | {
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-2,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
# As a Llama's config has it: no head_dim, and rope_theta where transformers 5 writes it.
LLAMA = {k: v for k, v in SMALL.items() if k not in ("head_dim", "rope_theta")} | {
    "model_type": "llama",
    "rms_norm_eps": 1e-2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "tie_word_embeddings": False,
}

LAYERS = {"qwen3": (Qwen3Attention, Qwen3DecoderLayer), "llama": (LlamaAttention, LlamaDecoderLayer)}


def reference_config(config: Config) -> Qwen3Config | LlamaConfig:
    """transformers' config for the learner's, with eager attention."""
    kind = {"qwen3": Qwen3Config, "llama": LlamaConfig}[config.model_type]
    ends = {"bos_token_id": None, "eos_token_id": None}  # Llama's are ids that these small vocabularies lack
    return kind(**config, **ends, attn_implementation="eager")


def build_attention(config: Config) -> nn.Module:
    return LAYERS[config.model_type][0](reference_config(config), layer_idx=0)


def build_layer(config: Config) -> nn.Module:
    return LAYERS[config.model_type][1](reference_config(config), layer_idx=0)


def build_model(config: Config) -> nn.Module:
    return {"qwen3": Qwen3Model, "llama": LlamaModel}[config.model_type](reference_config(config)).eval()


def build_causal_lm(config: Config) -> nn.Module:
    return {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM}[config.model_type](reference_config(config)).eval()


def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """transformers' cosines and sines: [2, T, head_dim]."""
    parameters = {"rope_type": "default", "rope_theta": theta}
    rotary = Qwen3RotaryEmbedding(Qwen3Config(head_dim=head_dim, rope_parameters=parameters))
    cos, sin = rotary(torch.zeros(()), positions[None])
    return torch.stack([cos[0], sin[0]])


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table.to(x.dtype)
    return apply_rotary_pos_emb(x, x, cos[None], sin[None])[0]


def call_with_table(module: nn.Module, x: Tensor, table: Tensor) -> Tensor:
    """Attention and DecoderLayer are handed their mask and rotations by the model around them; here by this."""
    attention = module if isinstance(module, Qwen3Attention | LlamaAttention) else module.self_attn
    mask = create_causal_mask(config=attention.config, inputs_embeds=x, attention_mask=None, cache=None)
    cos, sin = table.to(x.dtype)
    output = module(x, position_embeddings=(cos[None], sin[None]), attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output


def call_model(module: nn.Module, ids: Tensor) -> Tensor:
    output = module(input_ids=ids, use_cache=False)
    return output.logits if "logits" in output else output.last_hidden_state


def learners_name(name: str) -> str | None:
    """The course has neither a module for the activation nor one for the rotations."""
    return None if "act_fn" in name or "rotary_emb" in name else name


def sizes(build: Mapping[str, Any]) -> dict[str, int]:
    config = build["config"]
    return {
        "head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        "hidden_size": config["hidden_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_key_value_heads"],
    }


def hidden_and_table(config: dict[str, Any], batch: int, length: int, start: int, scale: float = 1.0) -> Any:
    """Draws x [batch, length, D] and the rotations of positions from `start` on."""
    theta = config.get("rope_parameters", config)["rope_theta"]

    def draw_args(draw: Draw) -> Sequence[Any]:
        table = rope_table(torch.arange(start, start + length), sizes({"config": config})["head_dim"], theta)
        return draw.normal(batch, length, config["hidden_size"], scale=scale), table

    return draw_args


def far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have much in common: without QK-norm, scores come to be 100 or -100."""
    x = draw.normal(2, 1, LLAMA["hidden_size"], scale=9.0) + draw.normal(2, 7, LLAMA["hidden_size"], scale=0.2)
    return x, rope_table(torch.arange(4, 11), sizes({"config": LLAMA})["head_dim"], 500.0)


def generation_args(prompt: int, new_tokens: int, stop_at: int | None = None, last: bool = False) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens and, for `stop_at`, two end tokens of which that one comes first.

    The other one stands in the prompt, as in a chat the marks that ended earlier turns do.
    last: whether the one that comes is the last in the list.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        toy = random_toy_lm(61, 32, draw.generator)
        ids = draw.tokens(61, 1, prompt)
        if stop_at is None:
            return toy, ids, new_tokens
        written = reference_generate(toy, ids, new_tokens).tolist()
        earlier = next(token for token in [*ids[0].tolist(), *range(61)] if token not in written)
        return toy, ids, new_tokens, [earlier, written[stop_at]] if last else [written[stop_at], earlier]

    return draw_args


RMS_NORM = Exercise(
    name="qwen3.rms_norm",
    solution="RMSNorm",
    reference=lambda dim, eps: Qwen3RMSNorm(dim, eps=eps),
    points=5,
    axes="B T D",
    sizes=lambda build: {"D": build["dim"]},
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, 7, 40)], {"dim": 40, "eps": 1e-6}),
        Case("inputs around 3, no batch axis", lambda draw: [draw.normal(5, 24) + 3], {"dim": 24, "eps": 1e-5}),
        Case("queries: [B, T, H, head_dim]", lambda draw: [draw.normal(2, 5, 3, 10)], {"dim": 10, "eps": 1e-2}),
        Case("tiny inputs", lambda draw: [draw.normal(2, 5, 24, scale=1e-3)], {"dim": 24, "eps": 1e-6}),
        Case("bfloat16", lambda draw: [draw.normal(2, 5, 40)], {"dim": 40, "eps": 1e-6}, torch.bfloat16, ROUNDED_ONCE),
    ],
    mistakes=[
        Mistake(
            "eps is added after the square root",
            "Look at where eps stands in the formula. Tiny inputs show the difference.",
            "torch.rsqrt(mean_square + self.eps)",
            "(1 / (torch.sqrt(mean_square) + self.eps))",
        ),
        Mistake(
            "eps is missing",
            "Which number in the formula keeps a vector of zeros from being divided by zero?",
            "mean_square + self.eps",
            "mean_square",
        ),
        Mistake(
            "eps is 1e-6, whatever was given",
            "A module is built with an eps. Does your forward use that one?",
            "mean_square + self.eps",
            "mean_square + 1e-6",
        ),
        Mistake(
            "eps is 1e-5, whatever was given",
            "A module is built with an eps. Does your forward use that one?",
            "mean_square + self.eps",
            "mean_square + 1e-5",
        ),
        Mistake(
            "eps is 1e-8, whatever was given",
            "A module is built with an eps. Does your forward use that one?",
            "mean_square + self.eps",
            "mean_square + 1e-8",
        ),
        Mistake(
            "the mean is subtracted, as in LayerNorm",
            "How many reductions over the vector does the formula have? Inputs around 3 show the difference.",
            "x32 = x.float()",
            "x32 = x.float() - x.float().mean(dim=-1, keepdim=True)",
        ),
        Mistake(
            "it divides by the standard deviation",
            "This is one half of LayerNorm. Is the square of x averaged, or of x minus something?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.var(dim=-1, keepdim=True, correction=0)",
        ),
        Mistake(
            "it divides by the standard deviation, the one with n - 1",
            "Is anything subtracted before the squares are taken? And by what is their sum divided?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.var(dim=-1, keepdim=True)",
        ),
        Mistake(
            "the squares are added up, not averaged",
            "What is the root mean square of a vector of ones? And what does yours divide it by?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).sum(dim=-1, keepdim=True)",
        ),
        Mistake(
            "it multiplies by the root mean square",
            "A vector twice as long should come out as long as before. Does it?",
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
            "it divides by the mean absolute value",
            "Read the name of the norm from right to left: first the square, then the mean, then the root.",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.abs().mean(dim=-1, keepdim=True).pow(2)",
        ),
        Mistake(
            "the statistics are taken over the tokens",
            "Each token is normalised by itself. Which axis of [B, T, D] do its own values lie on?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).mean(dim=-2, keepdim=True)",
        ),
        Mistake(
            "the statistics are taken over the whole tensor",
            "Each token is normalised by itself. How many root mean squares do B texts of T tokens have?",
            "x32.pow(2).mean(dim=-1, keepdim=True)",
            "x32.pow(2).mean()",
        ),
        Mistake(
            "the weight is missing",
            "One learned vector belongs to this layer. Does your forward use it?",
            "self.weight * normed",
            "normed",
        ),
        Mistake(
            "the weight is taken as 1 + weight",
            "That is Gemma's norm, whose weight starts at 0. At what does this one start?",
            "self.weight * normed",
            "(1 + self.weight) * normed",
        ),
        Mistake(
            "the weight multiplies before the cast",
            "In bfloat16 the order shows. Read the docstring's second line again: what is cast, and when?",
            "self.weight * normed.to(x.dtype)",
            "(self.weight * normed).to(x.dtype)",
        ),
        Mistake(
            "the statistics are computed in bfloat16",
            "bfloat16 keeps 8 bits of a number. Which line of yours works in x's own dtype, and should not?",
            "x32 = x.float()",
            "x32 = x",
        ),
    ],
)

ROPE_TABLE = Exercise(
    name="qwen3.rope_table",
    solution="rope_table",
    reference=rope_table,
    function=True,
    points=4,
    axes="cos/sin T head_dim",
    cases=[
        Case("positions 5 to 11", lambda draw: [torch.arange(5, 12), 10, 10000.0]),
        Case("positions 3, 40 and 17, another theta", lambda draw: [torch.tensor([3, 40, 17]), 16, 1000000.0]),
        Case("one position", lambda draw: [torch.tensor([9]), 6, 500.0]),
    ],
    mistakes=[
        Mistake(
            "the two channels of a pair are taken for neighbours",
            "Channel i and channel i + head_dim / 2 turn together, not channels 0 and 1. How must the angles of all"
            " pairs be laid out, so that those two get the same one?",
            "torch.cat([angles, angles], dim=-1)",
            "angles.repeat_interleave(2, dim=-1)",
        ),
        Mistake(
            "the frequencies grow from pair to pair",
            "The first pair is the fastest: one radian a token. How fast should the last one be?",
            "1.0 / theta**exponents",
            "theta**exponents",
        ),
        Mistake(
            "the exponents go only half as far",
            "With head_dim = 10 there are 5 pairs. Which exponents does the formula give for i = 0 and i = 4?",
            "torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim",
            "torch.arange(0, head_dim // 2, device=positions.device).float() / head_dim",
        ),
        Mistake(
            "the exponents go twice as far",
            "With head_dim = 10 there are 5 pairs. Which exponents does the formula give for i = 0 and i = 4?",
            "device=positions.device).float() / head_dim",
            "device=positions.device).float() / (head_dim / 2)",
        ),
        Mistake(
            "the exponents end at 1",
            "linspace includes both ends. What is the last exponent in the formula?",
            "torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim",
            "torch.linspace(0, 1, head_dim // 2, device=positions.device)",
        ),
        Mistake(
            "theta is 10,000, whatever was given",
            "Find the place where you wrote a number by hand. Qwen3's theta is not GPT-NeoX's.",
            "1.0 / theta**exponents",
            "1.0 / 10000.0**exponents",
        ),
        Mistake(
            "theta is a million, whatever was given",
            "Find the place where you wrote a number by hand. The function is told which theta to use.",
            "1.0 / theta**exponents",
            "1.0 / 1000000.0**exponents",
        ),
        Mistake(
            "the positions are counted from 0",
            "Which tensor says where the tokens stand? A cache will ask for position 1000 alone.",
            "positions.float()[:, None]",
            "torch.arange(len(positions)).float()[:, None]",
        ),
        Mistake(
            "the positions are counted from 1",
            "What is the angle of position 0?",
            "positions.float()[:, None]",
            "(positions.float() + 1)[:, None]",
        ),
        Mistake(
            "sines come before cosines",
            "In which order does the docstring name the two?",
            "torch.stack([angles.cos(), angles.sin()])",
            "torch.stack([angles.sin(), angles.cos()])",
        ),
        Mistake(
            "the angles are taken for degrees",
            "torch's functions take radians, and so does the formula.",
            "positions.float()[:, None] * frequencies",
            "positions.float()[:, None] * frequencies * (torch.pi / 180)",
        ),
        Mistake(
            "the angles are whole turns",
            "One radian a token is the fastest pair's speed. Is there a 2 pi in the formula?",
            "positions.float()[:, None] * frequencies",
            "positions.float()[:, None] * frequencies * (2 * torch.pi)",
        ),
        Mistake(
            "every pair turns at the first pair's speed",
            "Print the last row of your angles. How many different numbers should be in it?",
            "positions.float()[:, None] * frequencies",
            "positions.float()[:, None] * frequencies[:1].expand(len(frequencies))",
        ),
    ],
)


def rope_args(batch: int, heads: int, positions: Sequence[int], head_dim: int, theta: float) -> Any:
    """Draws x [batch, heads, T, head_dim] and the rotations of the positions."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        table = rope_table(torch.tensor(positions), head_dim, theta)
        return draw.normal(batch, heads, len(positions), head_dim), table

    return draw_args


ROPE = Exercise(
    name="qwen3.rope",
    solution="apply_rope",
    reference=apply_rope,
    function=True,
    points=4,
    axes="B H T head_dim",
    cases=[
        Case("positions 5 to 11", rope_args(2, 3, range(5, 12), 10, 10000.0)),
        Case("one position, one head", rope_args(3, 1, [9], 16, 1000000.0)),
        Case("bfloat16", rope_args(2, 3, range(2, 7), 10, 10000.0), dtype=torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the two channels of a pair are taken for neighbours",
            "Channel i and channel i + head_dim / 2 turn together, not channels 0 and 1.",
            "a, b = x.chunk(2, dim=-1)",
            "return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2) * sin",
        ),
        Mistake(
            "pairs are taken for neighbours, and put back as halves",
            "Which two channels form pair i? Take them apart and put them together in the same way.",
            "a, b = x.chunk(2, dim=-1)",
            "a, b = x[..., ::2], x[..., 1::2]",
        ),
        Mistake(
            "it turns the other way round",
            "Turn (1, 0) by a quarter, with cos = 0 and sin = 1. The docstring says where it goes.",
            "torch.cat([-b, a], dim=-1)",
            "torch.cat([b, -a], dim=-1)",
        ),
        Mistake(
            "no half changes its sign",
            "A rotation keeps the length of a vector. Does yours? There is one minus in the docstring's formula.",
            "torch.cat([-b, a], dim=-1)",
            "torch.cat([b, a], dim=-1)",
        ),
        Mistake(
            "the halves do not change places",
            "Where does b come into the new a? Each half of the result needs both halves of x.",
            "torch.cat([-b, a], dim=-1)",
            "torch.cat([-a, b], dim=-1)",
        ),
        Mistake(
            "x itself is multiplied by the sine",
            "Each half of the result needs both halves of x. Which of your lines mixes them?",
            "x * cos + turned * sin",
            "x * cos + x * sin",
        ),
        Mistake(
            "cosine and sine have changed places",
            "Position 0 turns nothing: then cos = 1 and sin = 0. What does yours give there?",
            "cos, sin = table",
            "sin, cos = table",
        ),
        Mistake(
            "the turned half is subtracted",
            "Follow the signs: how many minuses does your version of the formula have?",
            "x * cos + turned * sin",
            "x * cos - torch.cat([b, a], dim=-1) * sin",
        ),
        Mistake(
            "only the first half of the channels turns",
            "Some models do turn only a part of a head. Here every pair turns.",
            "return x * cos + turned * sin",
            "return torch.cat([(x * cos + turned * sin).chunk(2, dim=-1)[0], b], dim=-1)",
        ),
        Mistake(
            "nothing turns",
            "Compare your result with x.",
            "return x * cos + turned * sin",
            "return x * 1.0",
        ),
        Mistake(
            "it turns twice",
            "Where is this called from, and how often for each q?",
            "return x * cos + turned * sin",
            "y = x * cos + turned * sin\n"
            "    return y * cos + torch.cat([-y.chunk(2, dim=-1)[1], y.chunk(2, dim=-1)[0]], dim=-1) * sin",
        ),
    ],
)

MLP = Exercise(
    name="qwen3.mlp",
    solution="MLP",
    reference=lambda config: Qwen3MLP(reference_config(config)),
    points=4,
    axes="B T D",
    sizes=lambda build: {"hidden_size": build["config"]["hidden_size"]},
    renamed=learners_name,
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}),
        Case("other sizes", lambda draw: [draw.normal(2, 5, 30, scale=2.0)], {"config": OTHER}),
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "gate and up have changed places",
            "Which of the two is bent by the activation? Its name says what it does to the other.",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "self.gate_proj(x) * F.silu(self.up_proj(x))",
        ),
        Mistake(
            "both views go through the activation",
            "Count the activations in the formula.",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.gate_proj(x)) * F.silu(self.up_proj(x))",
        ),
        Mistake(
            "the activation comes after the product",
            "What does the activation take in: one view, or the product of both?",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.gate_proj(x) * self.up_proj(x))",
        ),
        Mistake(
            "the activation is missing",
            "Without it the gate can be negative without limit. What stands between gate_proj and the product?",
            "F.silu(self.gate_proj(x))",
            "self.gate_proj(x)",
        ),
        Mistake(
            "the gate is added, not multiplied",
            "A gate opens and closes. Can a sum close?",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.gate_proj(x)) + self.up_proj(x)",
        ),
        Mistake(
            "the gate is missing",
            "Three matrices belong to this module. Which of them does your forward never touch?",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.up_proj(x))",
        ),
        Mistake(
            "up_proj is not used",
            "Three matrices belong to this module. Which of them does your forward never touch?",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.gate_proj(x))",
        ),
        Mistake(
            "the gate is a sigmoid",
            "That is the GLU of 2016. SiLU is x times its sigmoid; which of the two does `hidden_act` name?",
            "F.silu(self.gate_proj(x))",
            "torch.sigmoid(self.gate_proj(x))",
        ),
        Mistake(
            "the gate is a GELU",
            "That is GEGLU. Which activation does `hidden_act` name?",
            "F.silu(self.gate_proj(x))",
            "F.gelu(self.gate_proj(x))",
        ),
        Mistake(
            "the gate is a GELU in its tanh form",
            "That is GEGLU, as Gemma has it. Which activation does `hidden_act` name?",
            "F.silu(self.gate_proj(x))",
            'F.gelu(self.gate_proj(x), approximate="tanh")',
        ),
        Mistake(
            "the gate is a ReLU",
            "That is ReGLU. Which activation does `hidden_act` name?",
            "F.silu(self.gate_proj(x))",
            "torch.relu(self.gate_proj(x))",
        ),
    ],
)

ATTENTION = Exercise(
    name="qwen3.attention",
    solution="Attention",
    reference=build_attention,
    call=call_with_table,
    points=8,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"q_norm": "qwen3.rms_norm", "k_norm": "qwen3.rms_norm"},
    uses=["qwen3.rope"],
    cases=[
        Case("4 heads of 10, 2 for k and v", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}),
        Case("6 heads of 8, 2 for k and v", hidden_and_table(OTHER, 2, 8, start=3), {"config": OTHER}),
        Case("a Llama: no norms on q and k", hidden_and_table(LLAMA, 2, 7, start=4), {"config": LLAMA}),
        Case("a Llama, scores far from 0", far_from_zero, {"config": LLAMA}),
        Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "q_norm and k_norm do not have the config's eps",
            "A norm has two settings. Where does each of them come from?",
            "normed = config.model_type",
            "config = config.replace(rms_norm_eps=1e-6)\n        normed = config.model_type",
        ),
        Mistake(
            "q and k are normalised over all heads together",
            "That is OLMo 2's QK-norm. Here a norm's weight has head_dim numbers: along which axis does it act?",
            "k, v = (t.repeat_interleave(",
            "q, k = (F.rms_norm(t, t.shape[-1:], None, 1e-3) for t in (self.q_proj(x), self.k_proj(x)))\n"
            "        q, k = (t.view(B, T, -1, self.head_dim) for t in (q, k))\n"
            "        q, k = q * getattr(self.q_norm, 'weight', 1), k * getattr(self.k_norm, 'weight', 1)\n"
            "        q, k = apply_rope(q.transpose(1, 2), table), apply_rope(k.transpose(1, 2), table)\n"
            "        k, v = (t.repeat_interleave(",
        ),
        Mistake(
            "hidden scores are set to a number that other scores can reach",
            "What if every score that may be seen is -50? Which number is below any score?",
            'float("-inf")',
            "-30.0",
        ),
        Mistake(
            "there is no softmax",
            "Print one row of what multiplies the values. Is it a set of weights, none below 0, that sum to 1?",
            'scores = scores.masked_fill(future, float("-inf"))\n'
            "        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)",
            "weights = scores.masked_fill(future, 0.0)",
        ),
        Mistake(
            "query heads are handed the wrong key and value heads",
            "Query heads 0 and 1 share key head 0. Of 4 query heads and 2 key heads, which order does your repeated k"
            " have: 0 0 1 1 or 0 1 0 1?",
            "t.repeat_interleave(self.group, dim=1)",
            "t.repeat(1, self.group, 1, 1)",
        ),
        Mistake(
            "keys are repeated in another order than values",
            "Query heads 0 and 1 share key head 0 and value head 0. Compare how you repeat the two.",
            "k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))",
            "k, v = k.repeat(1, self.group, 1, 1), v.repeat_interleave(self.group, dim=1)",
        ),
        Mistake(
            "values are repeated in another order than keys",
            "Query heads 0 and 1 share key head 0 and value head 0. Compare how you repeat the two.",
            "k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))",
            "k, v = k.repeat_interleave(self.group, dim=1), v.repeat(1, self.group, 1, 1)",
        ),
        Mistake(
            "every query head uses the first key and value head",
            "How many different key heads are there? Print your repeated k for one token.",
            "t.repeat_interleave(self.group, dim=1)",
            "t[:, :1].expand(B, t.shape[1] * self.group, T, self.head_dim)",
        ),
        Mistake(
            "q and k are normalised after RoPE",
            "The norm has a weight for each channel, and RoPE mixes channels, so the order matters. Which comes first?",
            "k, v = (t.repeat_interleave(",
            "q = self.q_norm(apply_rope(self.q_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2), table))\n"
            "        k = self.k_norm(apply_rope(self.k_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2), table))\n"
            "        k, v = (t.repeat_interleave(",
        ),
        Mistake(
            "q is not normalised",
            "Two norms belong to this module in Qwen3. Which of them does your forward never call?",
            "self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim))",
            "self.q_proj(x).view(B, T, -1, self.head_dim)",
        ),
        Mistake(
            "k is not normalised",
            "Two norms belong to this module in Qwen3. Which of them does your forward never call?",
            "self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim))",
            "self.k_proj(x).view(B, T, -1, self.head_dim)",
        ),
        Mistake(
            "neither q nor k is normalised",
            "What do q_norm and k_norm do in your forward, where model_type is qwen3?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q = self.q_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)\n"
            "        k = self.k_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)\n"
            "        q, k = apply_rope(q, table), apply_rope(k, table)",
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
            "q goes through k_norm, as k does",
            "Two norms belong to this module in Qwen3. Which of them does your forward never call?",
            "q = self.q_norm(self.q_proj(x)",
            "q = self.k_norm(self.q_proj(x)",
        ),
        Mistake(
            "k goes through q_norm, as q does",
            "Two norms belong to this module in Qwen3. Which of them does your forward never call?",
            "k = self.k_norm(self.k_proj(x)",
            "k = self.q_norm(self.k_proj(x)",
        ),
        Mistake(
            "v is normalised too",
            "How many norms does the checkpoint have names for, and which projections do they name?",
            "v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)",
            "v = self.k_norm(self.v_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)",
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
            "q is not turned",
            "The product of q and k must depend on the distance alone. So who has to be turned?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q, k = q, apply_rope(k, table)",
        ),
        Mistake(
            "v is turned too",
            "A value is what a token says. Should that depend on where it stands?",
            "q, k = apply_rope(q, table), apply_rope(k, table)",
            "q, k, v = apply_rope(q, table), apply_rope(k, table), apply_rope(v, table)",
        ),
        Mistake(
            "the scores are not scaled",
            "Between the product of queries and keys and the softmax, something is missing.",
            " * self.head_dim**-0.5",
            "",
        ),
        Mistake(
            "the scores are scaled with D / heads",
            "How long are the two vectors whose dot product a score is? In Qwen3 that is its own number.",
            "self.head_dim**-0.5",
            "(x.shape[-1] / q.shape[1]) ** -0.5",
        ),
        Mistake(
            "the scores are scaled with D",
            "How long are the two vectors whose dot product a score is?",
            "self.head_dim**-0.5",
            "x.shape[-1] ** -0.5",
        ),
        Mistake(
            "the scores are multiplied by the root of head_dim",
            "Long vectors have large dot products. Does your scale make up for that?",
            "self.head_dim**-0.5",
            "self.head_dim**0.5",
        ),
        Mistake(
            "the scores are divided by head_dim",
            "If q and k have entries of variance 1, what is the standard deviation of their dot product?",
            "self.head_dim**-0.5",
            "self.head_dim**-1.0",
        ),
        Mistake(
            "there is no causal mask",
            "Change the last token of your input: the output of the first must not move.",
            'scores = scores.masked_fill(future, float("-inf"))',
            "pass",
        ),
        Mistake(
            "the mask hides each token from itself",
            "May a token look at itself?",
            'scores = scores.masked_fill(future, float("-inf"))',
            "scores = scores.masked_fill(torch.ones_like(future).triu(), torch.finfo(scores.dtype).min)",
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
            "hidden scores are set to 0 before the softmax",
            "What is exp(0)? And what would have to stand there for the weight to become 0?",
            'float("-inf")',
            "0.0",
        ),
        Mistake(
            "hidden weights are set to 0 after the softmax",
            "Print one row of the weights. What do they sum to?",
            'scores = scores.masked_fill(future, float("-inf"))\n'
            "        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)",
            "weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype).masked_fill(future, 0.0)",
        ),
        Mistake(
            "queries and keys have changed places in the product",
            "Rows of the scores are queries, columns are keys. Which of the two stands on the left?",
            "q @ k.transpose(-2, -1)",
            "k @ q.transpose(-2, -1)",
        ),
        Mistake(
            "the softmax runs over the queries",
            "In [B, H, T, T], which axis holds the keys? Along which must the weights sum to 1?",
            "softmax(dim=-1,",
            "softmax(dim=-2,",
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
            "the weights mix the keys",
            "Of q, k and v: which one decides how much, and which one says what?",
            "weights @ v",
            "weights @ k",
        ),
        Mistake(
            "queries and their norms are cut out as (head_dim, heads)",
            "A head owns a run of neighbouring channels. Which of the two new axes must come first?",
            "self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim))",
            "self.q_norm(self.q_proj(x).view(B, T, self.head_dim, -1).transpose(2, 3))",
        ),
    ],
)

DECODER_LAYER = Exercise(
    name="qwen3.decoder_layer",
    solution="DecoderLayer",
    reference=build_layer,
    call=call_with_table,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={
        "input_layernorm": "qwen3.rms_norm",
        "self_attn": "qwen3.attention",
        "post_attention_layernorm": "qwen3.rms_norm",
        "mlp": "qwen3.mlp",
    },
    cases=[
        Case("7 tokens", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}),
        Case("small inputs, another eps", hidden_and_table(OTHER, 2, 8, start=3, scale=0.03), {"config": OTHER}),
        Case("a Llama", hidden_and_table(LLAMA, 2, 7, start=4), {"config": LLAMA}),
        Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}, torch.bfloat16),
    ],
    mistakes=[
        Mistake(
            "the norms do not have the config's eps",
            "A norm has two settings. Where does each of them come from?",
            "self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)\n"
            "        self.self_attn = Attention(config)\n"
            "        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)",
            "self.input_layernorm = RMSNorm(config.hidden_size)\n"
            "        self.self_attn = Attention(config)\n"
            "        self.post_attention_layernorm = RMSNorm(config.hidden_size)",
        ),
        Mistake(
            "the MLP's result is added to the layer's input",
            "Which x does the second sum start from: the layer's, or the one that attention has added to?",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "y = x + self.self_attn(self.input_layernorm(x), table)\n"
            "        return x + self.mlp(self.post_attention_layernorm(y))",
        ),
        Mistake(
            "the norms come after the sums",
            "That is the block of 2017. Follow x along the residual stream: nothing may change it but additions.",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = self.input_layernorm(x + self.self_attn(x, table))\n"
            "        return self.post_attention_layernorm(x + self.mlp(x))",
        ),
        Mistake(
            "the norms act on what the sublayers give",
            "That is OLMo 2's layer. Here, what does a sublayer read: x, or a normalised copy?",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = x + self.input_layernorm(self.self_attn(x, table))\n"
            "        return x + self.post_attention_layernorm(self.mlp(x))",
        ),
        Mistake(
            "input_layernorm is used in both places",
            "Which of the layer's parts does your forward never call?",
            "self.post_attention_layernorm(x)",
            "self.input_layernorm(x)",
        ),
        Mistake(
            "the two norms have changed places",
            "The names say where each stands.",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = x + self.self_attn(self.post_attention_layernorm(x), table)\n"
            "        return x + self.mlp(self.input_layernorm(x))",
        ),
        Mistake(
            "post_attention_layernorm acts on attention's output before the sum",
            "Its name is misleading: it comes after attention, and after the sum too. Who reads its output?",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table))\n"
            "        return x + self.mlp(x)",
        ),
        Mistake(
            "the residual around attention is missing",
            "There are two sums in a layer, one for each sublayer.",
            "x = x + self.self_attn",
            "x = self.self_attn",
        ),
        Mistake(
            "the residual around the MLP is missing",
            "There are two sums in a layer, one for each sublayer.",
            "return x + self.mlp",
            "return self.mlp",
        ),
        Mistake(
            "the residual carries the normalised x",
            "What does the sublayer get, and what does the sum get? They are not the same tensor.",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = (y := self.input_layernorm(x)) + self.self_attn(y, table)",
        ),
        Mistake(
            "the second residual carries the normalised x",
            "What does the MLP get, and what does the sum get? They are not the same tensor.",
            "return x + self.mlp(self.post_attention_layernorm(x))",
            "return (y := self.post_attention_layernorm(x)) + self.mlp(y)",
        ),
        Mistake(
            "the MLP comes before attention",
            "Which of the two sublayers reads the other's result?",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "x = x + self.mlp(self.post_attention_layernorm(x))\n"
            "        return x + self.self_attn(self.input_layernorm(x), table)",
        ),
        Mistake(
            "attention and MLP both read the layer's input",
            "Some models do run the two side by side. Here one sees what the other wrote.",
            "x = x + self.self_attn(self.input_layernorm(x), table)",
            "return x + self.self_attn(self.input_layernorm(x), table) + self.mlp(self.post_attention_layernorm(x))",
        ),
        Mistake(
            "attention gets x without its norm",
            "Which of the layer's parts does your forward never call?",
            "self.self_attn(self.input_layernorm(x), table)",
            "self.self_attn(x, table)",
        ),
        Mistake(
            "the MLP gets x without its norm",
            "Which of the layer's parts does your forward never call?",
            "self.mlp(self.post_attention_layernorm(x))",
            "self.mlp(x)",
        ),
    ],
)

MODEL = Exercise(
    name="qwen3.model",
    solution="Model",
    reference=build_model,
    call=call_model,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"layers.*": "qwen3.decoder_layer", "norm": "qwen3.rms_norm"},
    uses=["qwen3.rope_table"],
    cases=[
        Case("7 tokens", lambda draw: [draw.tokens(53, 2, 7)], {"config": SMALL}),
        Case("other sizes, another theta", lambda draw: [draw.tokens(53, 3, 8)], {"config": OTHER}),
        Case("a Llama, as transformers 5 writes its config", lambda draw: [draw.tokens(53, 2, 7)], {"config": LLAMA}),
    ],
    mistakes=[
        Mistake(
            "the final norm does not have the config's eps",
            "Compare how you make this norm with those in the layer.",
            "self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)",
            "self.norm = RMSNorm(config.hidden_size)",
        ),
        Mistake(
            "the final norm is missing",
            "Which of the model's parts does your forward never call?",
            "return self.norm(x)",
            "return x",
        ),
        Mistake(
            "the final norm comes before the layers",
            "`norm` is the final norm: what comes after it?",
            "return self.norm(x)",
            "y = self.norm(self.embed_tokens(ids))\n"
            "        for layer in self.layers:\n"
            "            y = layer(y, table)\n"
            "        return y",
        ),
        Mistake(
            "the layers run in reverse order",
            "Where does the token enter: at layers.0 or at the last one?",
            "for layer in self.layers:",
            "for layer in reversed(self.layers):",
        ),
        Mistake(
            "the first layer runs every time",
            "Compare the loop's variable with what is called inside the loop.",
            "x = layer(x, table)",
            "x = self.layers[0](x, table)",
        ),
        Mistake(
            "the last layer is left out",
            "Count how many layers run.",
            "for layer in self.layers:",
            "for layer in self.layers[:-1]:",
        ),
        Mistake(
            "the input is added to each layer's output once more",
            "The residual sums are inside the layer already.",
            "x = layer(x, table)",
            "x = x + layer(x, table)",
        ),
        Mistake(
            "every token gets position 0",
            "Print the positions that you look up. There should be T different ones.",
            "torch.arange(ids.shape[1], device=ids.device)",
            "torch.zeros(ids.shape[1], dtype=torch.int64, device=ids.device)",
        ),
        Mistake(
            "the positions run backwards",
            "Which position does the first token get? Distances keep their size if they run backwards, and what else?",
            "torch.arange(ids.shape[1], device=ids.device)",
            "torch.arange(ids.shape[1], device=ids.device).flip(0)",
        ),
        Mistake(
            "theta is 10,000, whatever the config says",
            "Which field of the config holds RoPE's base? The setup cell has a function that finds it.",
            "rope_theta(self.config))",
            "10000.0)",
        ),
        Mistake(
            "theta is a million, whatever the config says",
            "Which field of the config holds RoPE's base? The setup cell has a function that finds it.",
            "rope_theta(self.config))",
            "1000000.0)",
        ),
        Mistake(
            "the embeddings are scaled by the root of D",
            "Gemma does this, Qwen3 and Llama do not.",
            "x = self.embed_tokens(ids)",
            "x = self.embed_tokens(ids) * self.config.hidden_size**0.5",
        ),
        Mistake(
            "a token's token id is taken for its position",
            "What should depend on where a token stands, and what on which token it is?",
            "torch.arange(ids.shape[1], device=ids.device)",
            "ids[0]",
        ),
    ],
)

CAUSAL_LM = Exercise(
    name="qwen3.causal_lm",
    solution="CausalLM",
    reference=build_causal_lm,
    call=call_model,
    points=3,
    axes="B T vocab_size",
    sizes=lambda build: sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"model": "qwen3.model"},
    cases=[
        Case("a tied head", lambda draw: [draw.tokens(53, 2, 7)], {"config": SMALL}),
        Case("a head of its own", lambda draw: [draw.tokens(53, 3, 8)], {"config": OTHER}),
        Case(
            "a Llama that says nothing of its head",
            lambda draw: [draw.tokens(53, 2, 7)],
            {"config": {k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}},
        ),
    ],
    mistakes=[
        Mistake(
            "the head is always the embedding",
            "Two of the three models have a head of their own. Does your forward use it?",
            "self.lm_head(self.model(ids))",
            "F.linear(self.model(ids), self.model.embed_tokens.weight)",
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
            "the final norm is applied twice",
            "Where is the last norm: in the model, or between the model and the head?",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model.norm(self.model(ids)))",
        ),
        Mistake(
            "the logits are divided by the root of D",
            "Is there a scale between the last norm and the head?",
            "self.lm_head(self.model(ids))",
            "self.lm_head(self.model(ids)) * self.config.hidden_size**-0.5",
        ),
    ],
)

GENERATE = Exercise(
    name="qwen3.generate",
    solution="generate",
    reference=reference_generate,
    function=True,
    points=4,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8)),
        Case("stops at the first of two end tokens", generation_args(prompt=5, new_tokens=8, stop_at=3)),
        Case("stops at the last of two end tokens", generation_args(prompt=6, new_tokens=8, stop_at=2, last=True)),
    ],
    mistakes=[
        Mistake(
            "the logits of the first position are used",
            "Row t of the logits predicts the token after position t. Which row predicts a new one?",
            "[:, -1]",
            "[:, 0]",
        ),
        Mistake(
            "the logits of the last position but one are used",
            "Row t of the logits predicts the token after position t. Which row predicts a new one?",
            "[:, -1]",
            "[:, -2]",
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
            "model(ids)",
            "model(ids[:, -1:])",
        ),
        Mistake(
            "the new token is never appended",
            "What has changed in the model's input from one step to the next?",
            "[ids, next_id]",
            "[ids]",
        ),
        Mistake(
            "the prompt is forgotten after the first step",
            "Print the length of ids after every step.",
            "[ids, next_id]",
            "[next_id]",
        ),
        Mistake(
            "only the first end token ends it",
            "A chat model has several tokens that end a turn. Which of them does yours look for?",
            "token in end_tokens",
            "token in list(end_tokens)[:1]",
        ),
        Mistake(
            "the end token does not end it",
            "What should happen once the new token is one of end_tokens?",
            "token in end_tokens",
            "False",
        ),
        Mistake(
            "an end token in the prompt ends it",
            "In a chat the prompt is full of marks that end a turn. Where do you look for them?",
            "token in end_tokens",
            "any(t in end_tokens for t in [*ids[0].tolist(), token])",
        ),
        Mistake(
            "the end token is not given out",
            "The docstring says whether the end token belongs to the result. In which order do you stop and yield?",
            "yield token",
            "if token in end_tokens: return\n        yield token",
        ),
        Mistake(
            "one token too many is generated",
            "Count the tokens for max_new_tokens = 1.",
            "range(max_new_tokens)",
            "range(max_new_tokens + 1)",
        ),
    ],
)

EXERCISES = [RMS_NORM, ROPE_TABLE, ROPE, MLP, ATTENTION, DECODER_LAYER, MODEL, CAUSAL_LM, GENERATE]
