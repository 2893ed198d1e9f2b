"""What tests/lessons/test_every_lesson.py asks of Qwen3: other right programs and wrong ones, random configs, checkpoints."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config, load_checkpoint
from grader.authoring.kit import Case, programs
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.programs import AttentionBase, GatedBase, ModelBase, NormBase, written
from grader.authoring.kit.randomly import of_norm, of_tokens, of_vectors, positions
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import build_causal_lm

LESSON = lesson_of(__file__)

MISTAKES = 275
WITHOUT = {
    "VARIES": "its sizes stay as they are: weights and inputs are drawn anew",
    "RANDOM": {"qwen3.generate": "a generation is random as it is: its cases draw the model that writes"},
    "bfloat16": {
        "qwen3.rope_table": "it is float32 in every model",
        "qwen3.model": "its parts are checked in bfloat16, and a whole model rounds in the order of its own",
        "qwen3.causal_lm": "as the model",
        "qwen3.generate": "it handles whole numbers",
        "qwen3.loss_after": "it is a Python float",
        "qwen3.chat_text": "it is a text",
    },
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    # With one key and value head, or one for each query head, the reference repeats without a copy: the numbers lie
    # in memory in another order, and the product rounds differently.
    kv_heads, head_dim = draw(st.integers(2, 4)), 2 * draw(st.integers(1, 9))
    heads = kv_heads * draw(st.integers(2, 3))
    config: dict[str, Any] = {
        "model_type": "qwen3",
        "hidden_size": draw(st.integers(2, 40)),
        "intermediate_size": draw(st.integers(1, 60)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 64,
        "vocab_size": draw(st.integers(2, 70)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "rope_theta": draw(st.sampled_from([1e2, 1e4, 1e6])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if draw(st.booleans()):
        del config["head_dim"]
        config |= {"model_type": "llama", "hidden_size": heads * head_dim}
    return config


# exercise -> a random case of it


def of_layer(config: dict[str, Any], n: Numbers) -> Case:
    inputs = exercises.hidden_and_table(config, n.batch, n.length, n.seed % 50, n.scale)
    return Case(str(n.seed), inputs, {"config": config})


def of_table(config: dict[str, Any], n: Numbers) -> Case:
    width = 2 * (n.seed % 70 + 1)
    return Case(str(n.seed), lambda draw: [torch.tensor(positions(n)), width, config["rope_theta"]])


def of_rotation(config: dict[str, Any], n: Numbers) -> Case:
    """In bfloat16 for every other seed."""
    args = exercises.rope_args(n.batch, 3, positions(n), 2 * (n.seed % 70 + 1), config["rope_theta"])
    return Case(str(n.seed), args, dtype=torch.bfloat16 if n.seed % 2 else torch.float32)


def of_context(config: dict[str, Any], n: Numbers) -> Case:
    befores, length = [1 + n.seed % 7, 3 + n.length], 1 + n.seed % 5
    starts = [max(befores) + 3 + 5 * i for i in range(n.batch)]
    sizes = (4 + n.seed % 9, 2 + n.seed % 5, starts[-1] + length + 8)
    return exercises.context_case(str(n.seed), sizes, starts, befores, length)


def of_chat(config: dict[str, Any], n: Numbers) -> Case:
    """Questions, each with answers, calls and results behind it."""

    def talk(words: exercises.Words) -> Sequence[Any]:
        def one_of(count: int) -> int:
            return int(words.draw.tokens(count, 1))

        messages = [words.says("system")] if n.seed % 2 else []
        for _ in range(1 + n.seed % 3):
            messages.append(words.says("user", 1 + one_of(3)))
            for _ in range(one_of(3)):
                said = ("", words.thought(), words.text(), words.thought() + words.text())[one_of(4)]
                given = [
                    ({"q": words.text(1)}, {"n": 2, "m": None}, '{"a":1}')[one_of(3)] for _ in range(1 + one_of(2))
                ]
                messages.append(words.calls(*given, content=said))
                messages += [words.says("tool") for _ in range(1 + one_of(3))]
            if one_of(2):
                messages.append(words.answers(thinks=bool(one_of(2))))
        return messages, n.seed % 5 > 1, n.seed % 3 > 0

    return exercises.chat_case(str(n.seed), talk)


CONFIGS = configs()
RANDOM = {
    "qwen3.rms_norm": of_norm,
    "qwen3.rope_table": of_table,
    "qwen3.rope": of_rotation,
    "qwen3.mlp": of_vectors,
    "qwen3.attention": of_layer,
    "qwen3.decoder_layer": of_layer,
    "qwen3.model": of_tokens,
    "qwen3.causal_lm": of_tokens,
    "qwen3.loss_after": of_context,
    "qwen3.chat_text": of_chat,
}


# Other right programs


class RMSNormWithKernel(NormBase):
    """The fused kernel, in float32, then the cast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype) * self.weight


class RMSNormWithNorm(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return (x / torch.sqrt(length**2 / x.shape[-1] + self.eps)).to(x.dtype) * self.weight


class RMSNormWithEinsum(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        x32 = x.to(torch.float32)
        square = torch.einsum("...d,...d->...", x32, x32) / x.shape[-1]
        return ((x32.movedim(-1, 0) * (square + self.eps) ** -0.5).movedim(0, -1)).to(x.dtype).mul(self.weight)


def table_by_outer(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    inverse = theta ** -(torch.arange(head_dim // 2) * 2 / head_dim)
    angles = torch.outer(positions.float(), inverse).repeat(1, 2)
    return torch.stack([torch.cos(angles), torch.sin(angles)])


def table_in_float64(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    channels = torch.arange(head_dim, dtype=torch.float64) % (head_dim // 2)
    angles = positions[:, None] * torch.exp(-2 * channels / head_dim * torch.tensor(theta).double().log())
    return torch.stack([angles.cos(), angles.sin()]).float()


def rope_with_halves(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin = table[..., :half].to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_with_complex_numbers(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turn = torch.complex(table[0, :, :half], table[1, :, :half])
    turned = torch.complex(x[..., :half].float(), x[..., half:].float()) * turn
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def rope_with_roll(x: Tensor, table: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    sign = torch.cat([-torch.ones(half), torch.ones(half)]).to(x.dtype)
    return x * table[0].to(x.dtype) + x.roll(half, dims=-1) * sign * table[1].to(x.dtype)


class MLPFused(GatedBase):
    """Gate and up in one product."""

    def forward(self, x: Tensor) -> Tensor:
        both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        gate, up = both.chunk(2, dim=-1)
        return self.down_proj(gate * torch.sigmoid(gate) * up)


class MLPWithEinsum(MLPFused):
    def forward(self, x: Tensor) -> Tensor:
        gate, up = (torch.einsum("btd,fd->btf", x, p.weight) for p in (self.gate_proj, self.up_proj))
        return (up * nn.SiLU()(gate)) @ self.down_proj.weight.T


class OtherAttention(AttentionBase):
    norm: type[nn.Module] = RMSNormWithKernel

    def __init__(self, config: Config) -> None:
        self.has_norms = config.model_type == "qwen3"
        super().__init__(config)


class AttentionSdpa(OtherAttention):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class AttentionWithGroups(OtherAttention):
    """Five axes, so that nothing is repeated; an additive mask; the scale before the product."""

    norm = RMSNormWithEinsum

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        T = x.shape[1]
        q = q.unflatten(1, (self.KV, -1)) / self.hd**0.5  # [B, KV, group, T, head_dim]
        scores = torch.einsum("bkgid,bkjd->bkgij", q, k).float()
        scores = scores + torch.full((T, T), -1e30).triu(1)
        mixed = torch.einsum("bkgij,bkjd->bikgd", scores.softmax(-1).to(x.dtype), v)
        return self.o_proj(mixed.flatten(2))


class AttentionHeadByHead(OtherAttention):
    """A loop over heads."""

    norm = RMSNormWithNorm

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        results = []
        for h in range(self.H):
            own = h // (self.H // self.KV)
            scores = q[:, h] @ k[:, own].mT * self.hd**-0.5
            weights = torch.where(seen, scores, torch.finfo(x.dtype).min).softmax(-1)
            results.append(weights @ v[:, own])
        return self.o_proj(torch.cat(results, dim=-1))


class LayerWithKernels(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel
    attention: type[nn.Module] = AttentionSdpa
    feed_forward: type[nn.Module] = MLPFused

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.mlp, self.self_attn = self.feed_forward(config), self.attention(config)
        self.post_attention_layernorm, self.input_layernorm = self.norm(D, eps), self.norm(D, eps)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        residual = x
        x = self.self_attn(self.input_layernorm(x), table) + residual
        residual = x
        return self.mlp(self.post_attention_layernorm(x)) + residual


class LayerByHand(LayerWithKernels):
    norm, attention, feed_forward = RMSNormWithNorm, AttentionHeadByHead, MLPWithEinsum


class LayerWithGroups(LayerWithKernels):
    norm, attention = RMSNormWithEinsum, AttentionWithGroups


class ModelWithKernels(ModelBase):
    """The table is a buffer of the model's full length."""

    layer: type[nn.Module] = LayerWithKernels
    norm_class: type[nn.Module] = RMSNormWithKernel

    def __init__(self, config: Config) -> None:
        theta = config["rope_parameters"]["rope_theta"] if "rope_parameters" in config else config.rope_theta
        width = config.get("head_dim") or config.hidden_size // config.num_attention_heads
        table = table_by_outer(torch.arange(config.max_position_embeddings), width, theta)
        layers = [self.layer(config) for _ in range(config.num_hidden_layers)]
        super().__init__(config, self.norm_class(config.hidden_size, config.rms_norm_eps), layers, table)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedded(ids)
        for layer in self.layers:
            x = layer(x, self.table[:, : ids.shape[1]])
        return self.norm(x)


class ModelCountingFromOne(ModelWithKernels):
    """Only distances matter to RoPE, so the first token may have any position."""

    layer, norm_class = LayerByHand, RMSNormWithNorm

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens.weight[ids]
        for layer in self.layers:
            x = layer(x, self.table[:, 1 : ids.shape[1] + 1])
        return self.norm(x)


class HeadWithoutModule(programs.HeadWithoutModule):
    body = ModelWithKernels


class EmbeddingTiedToHead(programs.EmbeddingTiedToHead):
    body = ModelCountingFromOne


def generate_into_a_list(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> list[int]:
    text: list[int] = []

    def read(new: Tensor) -> Tensor:
        text.extend(new[0].tolist())
        return model(torch.tensor([text]))

    return written(read, ids, max_new_tokens, end_tokens)


def generate_by_topk(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Any = ()) -> Iterator[int]:
    for _ in range(max_new_tokens):
        best = model(ids).softmax(-1)[:, -1:].topk(1)
        ids = torch.cat([ids, best.indices[:, :, 0]], dim=1)
        yield int(ids[0, -1])
        if any(ids[0, -1] == end for end in end_tokens):
            break


def after_by_gather(model: nn.Module, story: Tensor, starts: list[int], before: int, length: int) -> float:
    """Piece by piece, with the log probabilities looked up, in float64."""
    lost: list[Tensor] = []
    for start in starts:
        ids = story[start - before : start + length]
        scores = model(ids[None])[0].detach().double().log_softmax(dim=-1)
        lost.append(-scores[before - 1 : -1].gather(1, ids[before:, None]))
    return float(torch.cat(lost).mean())


def after_with_ignored(model: nn.Module, story: Tensor, starts: list[int], before: int, length: int) -> float:
    """All pieces as a batch; the targets of the context are ignored."""
    rows = torch.tensor(starts)[:, None] + torch.arange(-before, length)
    ids = story[rows]
    targets = ids[:, 1:].clone()
    targets[:, : before - 1] = -100
    with torch.no_grad():
        return F.cross_entropy(model(ids)[:, :-1].mT, targets).item()


def chat_by_turns(messages: list[dict[str, Any]], thinking: bool = True, generation_prompt: bool = True) -> str:
    """Turns as role and lines first: results of tools are joined to the turn before them."""
    roles = [message["role"] for message in messages]
    asked = len(roles) - 1 - roles[::-1].index("user")
    turns: list[list[str]] = []
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            result = f"<tool_response>\n{content}\n</tool_response>"
            if number and roles[number - 1] == "tool":
                turns[-1][1] += "\n" + result
            else:
                turns.append(["user", result])
        elif role == "assistant":
            turns.append([role, answer_of(message, number > asked, number == len(messages) - 1)])
        else:
            turns.append([role, content])
    written = [f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns]
    if generation_prompt:
        written.append("<|im_start|>assistant\n")
        written += [] if thinking else ["<think>\n\n</think>\n\n"]
    return "".join(written)


def answer_of(message: dict[str, Any], is_current: bool, is_last: bool) -> str:
    """What stands in the turn of an assistant's message."""
    found = re.fullmatch(r"(?:<think>\n*(.*?)\n*</think>\n*)?(.*)", message["content"], re.DOTALL)
    assert found is not None
    thought, said = found[1] or "", found[2].lstrip("\n")
    for call in message.get("tool_calls") or ():
        arguments = call["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        said += (
            "\n" * bool(said)
            + '<tool_call>\n{"name": "'
            + call["name"]
            + '", "arguments": '
            + arguments
            + "}\n</tool_call>"
        )
    return f"<think>\n{thought}\n</think>\n\n{said}" if is_current and (thought or is_last) else said


def chat_with_results_last(
    messages: list[dict[str, Any]], thinking: bool = True, generation_prompt: bool = True
) -> str:
    """Groups of messages of one role; from the last group to the first, so that it is known whether a question follows."""
    groups = [list(group) for _, group in itertools.groupby(messages, key=lambda message: message["role"])]
    texts, is_current, is_last = [], True, True
    for group in groups[::-1]:
        role = group[0]["role"]
        is_current = is_current and role != "user"
        if role == "tool":
            results = [f"<tool_response>\n{message['content']}\n</tool_response>" for message in group]
            contents = ["\n".join(results)]
        elif role == "assistant":
            ends = [is_last and message is group[-1] for message in group]
            contents = [answer_of(message, is_current, end) for message, end in zip(group, ends, strict=True)]
        else:
            contents = [message["content"] for message in group]
        role = "user" if role == "tool" else role
        texts.append("".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for content in contents))
        is_last = False
    empty = "" if thinking else "<think>\n\n</think>\n\n"
    return "".join(texts[::-1]) + ("<|im_start|>assistant\n" + empty) * generation_prompt


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "qwen3.rms_norm": (RMSNormWithKernel, RMSNormWithNorm, RMSNormWithEinsum),
    "qwen3.rope_table": (table_by_outer, table_in_float64),
    "qwen3.rope": (rope_with_halves, rope_with_complex_numbers, rope_with_roll),
    "qwen3.mlp": (MLPFused, MLPWithEinsum),
    "qwen3.attention": (AttentionSdpa, AttentionWithGroups, AttentionHeadByHead),
    "qwen3.decoder_layer": (LayerWithKernels, LayerByHand, LayerWithGroups),
    "qwen3.model": (ModelWithKernels, ModelCountingFromOne),
    "qwen3.causal_lm": (HeadWithoutModule, EmbeddingTiedToHead),
    "qwen3.generate": (generate_into_a_list, generate_by_topk),
    "qwen3.loss_after": (after_by_gather, after_with_ignored),
    "qwen3.chat_text": (chat_by_turns, chat_with_results_last),
}


# Programs that are right only by chance


class RMSNormOfThreeAxes(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        square = x.float().pow(2).mean(dim=2, keepdim=True)
        return (x.float() * torch.rsqrt(square + self.eps)).to(x.dtype) * self.weight


class ModelOfThreeLayers(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(num_hidden_layers=3))


class ModelWithItsOwnEps(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(rms_norm_eps=1e-6))


class AttentionOfEqualHeads(AttentionWithGroups):
    """Groups are as large as there are groups."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        k, v = (t.repeat_interleave(self.KV, dim=1) for t in (k, v))
        return self.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def after_for_one_piece(model: nn.Module, story: Tensor, starts: list[int], before: int, length: int) -> float:
    return after_by_gather(model, story, starts[:1], before, length)


def chat_without_tools(messages: list[dict[str, Any]], thinking: bool = True, generation_prompt: bool = True) -> str:
    """Right for chats in which no tool is called."""
    return chat_by_turns([m for m in messages if m["role"] != "tool"], thinking, generation_prompt)


BY_CHANCE = {
    "qwen3.loss_after": [after_for_one_piece],
    "qwen3.chat_text": [chat_without_tools],
    "qwen3.rms_norm": [RMSNormOfThreeAxes],
    "qwen3.model": [ModelOfThreeLayers, ModelWithItsOwnEps],
    "qwen3.attention": [AttentionOfEqualHeads],
}


# Bugs that the layer comparison finds


class WithItsOwnEps(LESSON.solutions["CausalLM"]):  # type: ignore[misc, name-defined]
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(rms_norm_eps=1e-6))


def centred(self: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], self.weight, None, self.eps)


def swapped_gate(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(self.gate_proj(x) * F.silu(self.up_proj(x)))


def heads_in_another_order(self: Any, x: Tensor, table: Tensor) -> Tensor:
    q, k, v = (
        p(x).unflatten(-1, (-1, table.shape[-1])).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
    )
    q, k = rope_with_halves(self.q_norm(q), table), rope_with_halves(self.k_norm(k), table)
    k, v = (t.repeat(1, q.shape[1] // k.shape[1], 1, 1) for t in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return self.o_proj(mixed.transpose(1, 2).flatten(2))


def without_the_second_sum(self: Any, x: Tensor, table: Tensor) -> Tensor:
    x = x + self.self_attn(self.input_layernorm(x), table)
    return self.mlp(self.post_attention_layernorm(x))


PLANTED = [
    ("model.layers.0.input_layernorm", WithItsOwnEps),
    ("model.layers.0.input_layernorm", centred),
    ("model.layers.1.self_attn.q_norm", centred),
    ("model.layers.2.self_attn.k_norm", centred),
    ("model.layers.2.post_attention_layernorm", centred),
    ("model.norm", centred),
    ("model.layers.0.mlp", swapped_gate),
    ("model.layers.1.self_attn", heads_in_another_order),
    ("model.layers.1", without_the_second_sum),
]

# A function that is wrong by itself is named where it is used
TOLD = [
    Told("qwen3.attention", Change("qwen3.rope", "[-b, a]", "[b, -a]"), ["Mend `qwen3.rope` first"]),
    Told(
        "qwen3.attention",
        Change("qwen3.rope", "return x * cos + rotated * sin", "raise NotImplementedError()"),
        ["`apply_rope` is not written yet"],
    ),
    Told("qwen3.model", Change("qwen3.rope_table", "1.0 / theta", "0.5 / theta"), ["Mend `qwen3.rope_table` first"]),
]


# Names, sizes and trained weights


HUB = {"qwen3.causal_lm": build_causal_lm}
CONFIG_SHA256 = {
    "qwen3-0.6b": "660db3b73d788119c04535e48cf9be5f55bc3100841a718637ae695b442f27dd",
    "qwen3-8b": "f7c4eadfbbf522470667b797a3c89be2524832d2d599797248dc304fff447c30",
}
SIZES = {
    "qwen3-0.6b": (LESSON.config("qwen3-0.6b"), 596_049_920),
    "qwen3-8b": (LESSON.config("qwen3-8b"), 8_190_735_360),
}
AUSTEN = "It is a truth universally acknowledged", "Anne", "Captain Wentworth"
# Text -> what transformers writes after it.
# fmt: off
SMOLLM2 = {
    "The capital of France is": (
        7042, 30, 198, 198, 504, 2988, 314, 42, 216, 34, 32, 33, 40, 29, 32, 33, 29, 34, 34, 216, 33, 34, 42,
        33, 34, 42, 37, 35, 30, 2, 198, 1, 520, 9531, 198, 504, 2988, 314, 42, 216, 34, 32, 33, 40, 29, 32,
        33, 29, 34, 34, 216, 33, 34, 42, 33, 34, 42, 37, 35, 2, 198, 2, 1, 9690,
    ),
    "def fibonacci(n):": (
        472, 585, 304, 1758, 216, 32, 42, 448, 1003, 216, 33, 472, 1003, 304, 1672, 3987, 46477, 24, 94, 731,
        216, 33, 25, 198, 198, 19, 4246, 260, 1517, 198, 3272, 24, 38572, 46477, 24, 33, 32, 1292, 216, 907,
        21367, 42, 216, 35, 35, 39, 198, 3272, 24, 38572, 46477, 24, 34, 1292, 216, 907, 21367, 42, 216, 33,
        30, 33, 198, 3272,
    ),
    "<|im_start|>user\nWhat is a language model?<|im_end|>\n<|im_start|>assistant\n": (
        49, 1789, 1743, 314, 253, 2583, 1578, 338, 2925, 1782, 1789, 4604, 365, 62, 16611, 25, 288, 5051, 284,
        6524, 1789, 30, 657, 506, 253, 1502, 282, 5646, 338, 416, 1044, 284, 5051, 1789, 28, 1129, 281, 260,
        910, 282, 1694, 28, 284, 416, 325, 804, 288, 31587, 4381, 715, 347, 1789, 8483, 28, 1789, 8483, 28,
        284, 1789, 8483, 11173, 30, 198, 198,
    ),
}
# fmt: on
TRAINED = [
    Trained("austen-qwen3", "CausalLM", "generate", [Prompt(text, 64) for text in AUSTEN]),
    Trained(
        "smollm2-135m-instruct",
        "CausalLM",
        "generate",
        [Prompt(text, 64, known=known) for text, known in SMOLLM2.items()],
        written=12,
    ),
]


# The lesson's own cells, with the shipped checkpoint in place of each of Qwen3's form


INSTEAD = {
    "load_checkpoint": lambda name, optional=False: load_checkpoint(name if name == "austen-gpt2" else "austen-qwen3"),
    "check_generation": lambda *_, **__: None,
}
SHOWN = "tokens so far   ms for the next", "without QK-norm"
REFUSED = "your program says"  # a table of 10 rows is too short for the text
FEWER_LENGTHS = {"lengths, losses = [16, 64, 128, 256, 512, 1024]": "lengths, losses = [16, 64]"}
RERUNS = {
    "ints in a list": Rerun(
        {"qwen3.generate": generate_into_a_list},
        shows=SHOWN,
        hides=[REFUSED],
        instead=INSTEAD,
        changes=FEWER_LENGTHS,
        skip="reference.model(",  # token 2 ends SmolLM2's turns alone
    ),
    # Parts that keep no `head_dim`, have no q_norm where a Llama has none, and a table as long as the config says.
    "with kernels": Rerun(
        {
            "qwen3.rms_norm": RMSNormWithKernel,
            "qwen3.rope_table": table_by_outer,
            "qwen3.rope": rope_with_halves,
            "qwen3.mlp": MLPFused,
            "qwen3.attention": AttentionSdpa,
            "qwen3.decoder_layer": LayerWithKernels,
            "qwen3.model": ModelWithKernels,
            "qwen3.causal_lm": HeadWithoutModule,
            "qwen3.generate": generate_by_topk,
            "qwen3.loss_after": after_by_gather,
            "qwen3.chat_text": chat_by_turns,
        },
        shows=[*SHOWN, REFUSED],
        instead=INSTEAD,
        changes=FEWER_LENGTHS,
        skip="reference.model(",
    ),
}
