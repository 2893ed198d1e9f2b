"""What the exercises of 03-qwen3 are checked against: transformers' Qwen3 and Llama, eager attention, and Qwen3's chat template."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP, Qwen3RMSNorm

from grader.authoring.drives.generation import (
    STILL_TRAINING,
    generated_after_other_weights,
    generated_despite_config,
    generated_in_turns,
)
from grader.authoring.kit import ROUNDED_ONCE, Case, Draw, Exercise, Tolerance, configs, hf, with_mistakes
from grader.authoring.kit.inputs import alike, with_zeros
from grader.authoring.kit.toy import FIXED, reference_generate

from . import drives
from .drives import generated_past_its_config, generated_without_cache
from .reference import (
    apply_rope,
    build_attention,
    build_causal_lm,
    build_layer,
    build_model,
    generation_args,
    reference_config,
    right_characters,
    right_losses,
    rope_table,
)

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
    "rope_theta": 7000.0,  # no published model's, so that a fixed one shows
    "tie_word_embeddings": True,
}
OTHER = SMALL | {
    "vocab_size": 47,
    "max_position_embeddings": 48,
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
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

MISTRAL = LLAMA | {"model_type": "mistral"}  # what is not a Qwen3 is as a Llama here
FAR = LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}

learners_name = hf.without(*hf.NO_MODULES)
sizes = configs.head_sizes("hidden_size", "num_attention_heads", "num_key_value_heads")


def hidden_and_table(config: dict[str, Any], batch: int, length: int, start: int, scale: float = 1.0) -> Any:
    """Draws x [batch, length, D] and the rotations of positions from `start` on."""
    theta = config.get("rope_parameters", config)["rope_theta"]

    def draw_args(draw: Draw) -> Sequence[Any]:
        table = rope_table(torch.arange(start, start + length), sizes({"config": config})["head_dim"], theta)
        return draw.normal(batch, length, config["hidden_size"], scale=scale), table

    return draw_args


def far_from_zero(draw: Draw) -> Sequence[Any]:
    """Tokens that have much in common: without QK-norm, scores come to be 100 or -100."""
    return alike(draw, 2, 7, LLAMA["hidden_size"]), rope_table(
        torch.arange(4, 11), sizes({"config": FAR})["head_dim"], 300.0
    )


HALF = torch.float16
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
        Case("tiny inputs", lambda draw: with_zeros(draw.normal(2, 5, 24, scale=1e-3)), {"dim": 24, "eps": 1e-6}),
        Case("bfloat16", lambda draw: [draw.normal(2, 5, 40)], {"dim": 40, "eps": 1e-6}, torch.bfloat16, ROUNDED_ONCE),
        Case("hundreds, in float16", lambda draw: [draw.normal(1, 5, 24, scale=400.0)], {"dim": 24, "eps": 1e-6}, HALF),
    ],
)


def table_args(positions: Sequence[int], head_dim: int, theta: float) -> Any:
    """Draws the arguments of a table: positions, in a hidden recording shifted, a head_dim and a theta."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        shift = draw.number("shift", 0, 1, 40)
        return torch.tensor(positions) + shift, head_dim, float(draw.number("theta", int(theta), 400, 2_000))

    return draw_args


# In bfloat16 positions from 257 on are rounded, in float16 the odd ones from 2049 on: by far more than the cosines of
# angles of thousands differ from one right program to another.
FAR_POSITIONS = Tolerance(5e-3)

ROPE_TABLE = Exercise(
    name="qwen3.rope_table",
    solution="rope_table",
    reference=rope_table,
    function=True,
    points=4,
    axes="cos/sin T head_dim",
    without={
        "head_dim one": "a head_dim has two halves",
    },
    cases=[
        Case("positions 5 to 11", table_args(range(5, 12), 10, 10000.0)),
        Case("positions 3, 40 and 17, another theta", table_args([3, 40, 17], 16, 1000000.0)),
        Case("one position", table_args([9], 6, 500.0)),
        Case("positions from 257 to 9,001", table_args([257, 1031, 3001, 9001], 12, 20000.0), tolerance=FAR_POSITIONS),
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
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B H T head_dim",
    cases=[
        Case("positions 5 to 11", rope_args(2, 3, range(5, 12), 10, 10000.0)),
        Case("one position, one head", rope_args(3, 1, [9], 16, 1000000.0)),
        Case("bfloat16", rope_args(2, 3, range(2, 7), 10, 10000.0), dtype=torch.bfloat16),
        Case("float16", rope_args(1, 2, range(2, 7), 10, 10000.0), dtype=HALF),
    ],
)

MLP = Exercise(
    name="qwen3.mlp",
    solution="MLP",
    reference=lambda config: Qwen3MLP(reference_config(config)),
    points=4,
    axes="B T D",
    sizes=configs.sizes("hidden_size"),
    renamed=learners_name,
    cases=[
        Case("ordinary inputs", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}),
        Case("other sizes", lambda draw: [draw.normal(3, 5, 30, scale=2.0)], {"config": OTHER}),
        Case("gates far above and far below 0", lambda draw: [draw.normal(1, 4, 24, scale=200.0)], {"config": SMALL}),
        Case("bfloat16", lambda draw: [draw.normal(2, 7, 24)], {"config": SMALL}, torch.bfloat16),
    ],
)

ATTENTION = Exercise(
    name="qwen3.attention",
    solution="Attention",
    reference=build_attention,
    call=hf.call_part,
    points=8,
    fixed={"argument 2, axis 0": "cosines and sines"},
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"q_norm": "qwen3.rms_norm", "k_norm": "qwen3.rms_norm"},
    uses=["qwen3.rope"],
    cases=[
        Case("4 heads of 10, 2 for k and v", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}),
        Case("6 heads of 8, 3 for k and v", hidden_and_table(OTHER, 1, 8, start=3), {"config": OTHER}),
        Case("a Mistral: no norms on q and k", hidden_and_table(MISTRAL, 2, 7, start=4), {"config": MISTRAL}),
        Case("a Llama, scores far from 0", far_from_zero, {"config": FAR}),
        Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}, torch.bfloat16),
    ],
)

DECODER_LAYER = Exercise(
    name="qwen3.decoder_layer",
    solution="DecoderLayer",
    reference=build_layer,
    call=hf.call_part,
    points=5,
    fixed={"argument 2, axis 0": "cosines and sines"},
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
        Case("small inputs, another eps", hidden_and_table(OTHER, 3, 8, start=3, scale=0.03), {"config": OTHER}),
        Case(
            "a Llama, tiny inputs and eps",
            hidden_and_table(LLAMA, 2, 7, start=4, scale=1e-4),
            {"config": LLAMA | {"rms_norm_eps": 1e-8}},
        ),
        Case("bfloat16", hidden_and_table(SMALL, 2, 7, start=5), {"config": SMALL}, torch.bfloat16),
    ],
)


def first_and_last(ids: Tensor, vocab_size: int) -> Tensor:
    """The ids with the first and the last of the vocabulary among them, in the first row."""
    ids[0, 1], ids[0, 3] = 0, vocab_size - 1
    return ids


MODEL = Exercise(
    name="qwen3.model",
    solution="Model",
    reference=build_model,
    call=hf.hidden_states,
    points=5,
    axes="B T D",
    sizes=sizes,
    renamed=learners_name,
    parts={"layers.*": "qwen3.decoder_layer", "norm": "qwen3.rms_norm"},
    uses=["qwen3.rope_table"],
    cases=[
        Case("7 tokens", lambda draw: [draw.tokens(53, 2, 7)], {"config": SMALL}),
        Case(
            "other sizes, another theta", lambda draw: [first_and_last(draw.tokens(47, 1, 14), 47)], {"config": OTHER}
        ),
        Case("a Llama, as transformers 5 writes its config", lambda draw: [draw.tokens(53, 2, 7)], {"config": LLAMA}),
    ],
)

CAUSAL_LM = Exercise(
    name="qwen3.causal_lm",
    solution="CausalLM",
    reference=build_causal_lm,
    call=hf.logits,
    points=3,
    axes="B T vocab_size",
    sizes=lambda build: sizes(build) | {"vocab_size": build["config"]["vocab_size"]},
    renamed=learners_name,
    parts={"model": "qwen3.model"},
    cases=[
        Case("a tied head", lambda draw: [draw.tokens(53, 2, 7)], {"config": SMALL}),
        Case("a head of its own", lambda draw: [draw.tokens(47, 1, 8)], {"config": OTHER}),
        Case(
            "a Llama that says nothing of its head",
            lambda draw: [draw.tokens(53, 2, 7)],
            {"config": {k: v for k, v in LLAMA.items() if k != "tie_word_embeddings"}},
        ),
    ],
)

GENERATE = Exercise(
    name="qwen3.generate",
    solution="generate",
    reference=reference_generate,
    function=True,
    drive=generated_without_cache,
    points=4,
    fixed=FIXED,
    cases=[
        Case("8 new tokens", generation_args(prompt=4, new_tokens=8)),
        Case("two texts in turns, with the same model", generation_args(6, new_tokens=7), drive=generated_in_turns),
        Case("stops at the first of two end tokens", generation_args(5, new_tokens=9, stop_at=3, vocabulary=47)),
        Case("stops at the last of two end tokens", generation_args(prompt=6, new_tokens=8, stop_at=2, last=True)),
        Case(
            "a prompt of 1,100 tokens; no end token comes",
            generation_args(1_100, new_tokens=6, stop_at=6, vocabulary=31),
        ),
        Case(
            "an end token in the config, and none given",
            generation_args(5, new_tokens=7, stop_at=3),
            drive=generated_despite_config,
            right=lambda toy, ids, new_tokens, ends: reference_generate(toy, ids, new_tokens),
        ),
        Case(
            "a text longer than the config's max_position_embeddings",
            generation_args(7, new_tokens=5),
            drive=generated_past_its_config,
        ),
        Case("a model in training mode is left in it (1: yes)", generation_args(5, new_tokens=4), **STILL_TRAINING),
        Case(
            "after the same text, when the model had other weights",
            generation_args(prompt=6, new_tokens=7),
            drive=generated_after_other_weights,
        ),
    ],
)

# The words of chats: what JSON and HTML would escape, and what is no ASCII, among them.
WORDS = ["sea", "Anne", "a < b", "café", "7", "语言", "it's", 'a "quay"', "wind", "& so", "{x}", "over\nhere", "Lyme"]


class Words:
    """Draws messages."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def text(self, count: int = 2) -> str:
        return " ".join(WORDS[i] for i in self.draw.tokens(len(WORDS), count).tolist())

    def thought(self) -> str:
        return f"<think>\n{self.text()}\n</think>\n\n"

    def says(self, role: str, count: int = 2, end: str = "") -> dict[str, Any]:
        return {"role": role, "content": self.text(count) + end}

    def answers(self, thinks: bool = False, end: str = "") -> dict[str, Any]:
        return {"role": "assistant", "content": (self.thought() if thinks else "") + self.text() + end}

    def calls(self, *arguments: Any, content: str = "") -> dict[str, Any]:
        """A message that calls a tool for each of the arguments."""
        calls = [{"name": f"Find_{i}", "arguments": each} for i, each in enumerate(arguments)]
        return {"role": "assistant", "content": content, "tool_calls": calls}


def a_question(words: Words) -> Sequence[Any]:
    return [words.says("user", 3)], True, True


def a_system_message(words: Words) -> Sequence[Any]:
    return [words.says("system", 3), words.says("user", end=" \n")], False, True


def an_old_thought(words: Words) -> Sequence[Any]:
    talk = [words.says("user"), words.answers(thinks=True, end=" "), words.says("user")]
    return [*talk, words.answers(), words.says("user")], True, True


def for_training(words: Words) -> Sequence[Any]:
    talk = [words.says("user"), words.answers(thinks=True), words.says("user"), words.answers(thinks=True)]
    return [words.says("system"), *talk], True, False


def no_thought(words: Words) -> Sequence[Any]:
    return [words.says("user"), words.answers()], False, False


def in_a_loop(words: Words) -> Sequence[Any]:
    """Calls and results behind the question."""
    said = words.thought() + words.text()
    first = words.calls({"z": f"café {words.text(1)}", "a": 3}, '{"b":[1, 2]}', content=said)
    return (
        [words.says("user"), first, words.says("tool"), words.says("tool"), words.calls({}), words.says("tool")],
        True,
        True,
    )


def an_old_call(words: Words) -> Sequence[Any]:
    called = words.calls({"q": words.text(1), "n": None}, content=words.thought())
    return [words.says("user"), called, words.says("tool"), words.answers(), words.says("user")], False, True


def as_it_is(words: Words) -> Sequence[Any]:
    """A system message, users and a tool that begin with line breaks and write the mark that ends a thought."""
    asks = {"role": "user", "content": f"\n{words.text()} </think>\n\n{words.text()}"}
    found = {"role": "tool", "content": f"\n\n<think>{words.text(1)}</think>\n{words.text(1)}"}
    system = {"role": "system", "content": f"\nEnd with </think>\n{words.text()}"}
    return [system, asks, words.answers(), asks, words.calls({"q": words.text(1)}), found], True, True


def chat_case(name: str, talk: Callable[[Words], Sequence[Any]]) -> Case:
    return Case(name, lambda draw: talk(Words(draw)))


CHAT_TEXT = Exercise(
    name="qwen3.chat_text",
    solution="chat_text",
    reference=right_characters,
    function=True,
    differentiable=False,
    drive=drives.characters_written,
    points=6,
    axes="byte",
    cases=[
        chat_case("a question", a_question),
        chat_case("a system message, thinking off", a_system_message),
        chat_case("a thought of an earlier answer", an_old_thought),
        chat_case("the whole chat, its last thought included", for_training),
        chat_case("the whole chat, no thought in it", no_thought),
        chat_case("tool calls behind the last question", in_a_loop),
        chat_case("a tool call behind an earlier question", an_old_call),
        chat_case("line breaks and </think> in what users and tools say", as_it_is),
    ],
)


def context_case(name: str, sizes: tuple[int, int, int], starts: list[int], befores: list[int], length: int) -> Case:
    """A case of the loss behind contexts. sizes: vocabulary, width, tokens of the story."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        V, D, tokens = sizes
        shift = draw.number("shift", 0, 1, 4)
        places = 0.7 * draw.normal(max(befores) + length, D)
        return [
            1.3 * draw.normal(V, D),
            places,
            draw.tokens(V, tokens + shift),
            [s + shift for s in starts],
            befores,
            length,
        ]

    return Case(name, draw_args, tolerance=Tolerance(1e-4))


LOSS_AFTER = Exercise(
    name="qwen3.loss_after",
    solution="loss_after",
    reference=right_losses,
    function=True,
    differentiable=False,
    drive=drives.losses_after,
    points=5,
    axes="context",
    cases=[
        context_case("two pieces of 5 tokens, behind 1, 4 and 9", (11, 4, 50), [12, 25], [1, 4, 9], 5),
        context_case("three pieces of 3 tokens, one of them twice, behind 7 and 2", (8, 6, 60), [41, 9, 41], [7, 2], 3),
        context_case("the last token of a story of 7, behind all the others", (6, 5, 7), [6], [6], 1),
    ],
)

EXERCISES = with_mistakes(
    __file__,
    [RMS_NORM, ROPE_TABLE, ROPE, MLP, ATTENTION, DECODER_LAYER, MODEL, CAUSAL_LM, GENERATE, LOSS_AFTER, CHAT_TEXT],
)
