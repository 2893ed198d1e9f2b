"""What boxes of a figure say is what the reference's code computes: formulas are run, and sizes compared."""

import re
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.kimi_linear.modeling_kimi_linear import recurrent_kimi_delta_attention
from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule

from grader.atlas import Architecture, figure, gallery_models, read

NAME = re.compile(r"decay of each channel|decay|√\d+|[A-Za-zβ]+ᵀ?|[·+−/()]")
SIGNS = {"·": "*", "+": "+", "−": "-", "/": "/", "(": "(", ")": ")"}


def texts(architecture: Architecture) -> list[str]:
    """Every text of the figure, in its order."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure(architecture))


def drawn(slug: str) -> list[str]:
    """Every text in the figure of a model of the gallery."""
    architecture = gallery_models()[slug].architecture
    assert architecture is not None
    return texts(architecture)


def value_of(formula: str, values: Mapping[str, Tensor]) -> Tensor:
    """What a formula of a figure is: `·` multiplies number by number, and what stands side by side are matrices."""
    names: dict[str, Tensor] = {}
    code = ""
    for token in NAME.findall(formula):
        if token in SIGNS and token not in "()":
            code += SIGNS[token]
            continue
        if code and (code[-1].isalnum() or code[-1] == ")") and token != ")":
            code += "@"
        if token in "()":
            code += token
            continue
        names[f"n{len(names)}"] = (
            torch.tensor(float(token[1:]) ** 0.5)
            if token[0] == "√"
            else values[token.rstrip("ᵀ")].mT
            if token[-1] == "ᵀ"
            else values[token]
        )
        code += f"n{len(names) - 1}"
    found: Tensor = eval(code, {}, names)
    return found


def random_rule(channels: int) -> dict[str, Tensor]:
    """Seven tokens for one head of 128: q, k, v [1, 7, 1, 128], log decay [1, 7, 1, channels], beta [1, 7, 1].

    The keys are alike, so that each token finds something in the state already.
    """
    generator = torch.Generator().manual_seed(0)
    q, k, v = 1 + torch.randn(3, 1, 7, 1, 128, generator=generator)
    decay = -torch.rand(1, 7, 1, channels, generator=generator)
    return {"query": q, "key": k, "value": v, "g": decay, "beta": torch.rand(1, 7, 1, generator=generator)}


def as_drawn(said: list[str], rule: Mapping[str, Tensor]) -> Tensor:
    """What the formulas in these texts read out of the state for each token: [7, 128]."""
    start = next(i for i, text in enumerate(said) if text.startswith("S ← "))
    updates = [text.removeprefix("then ") for text in said[start : start + 3] if "←" in text]
    read_out = next(text.removeprefix("read: ") for text in said[start:] if text.startswith("read: "))
    normed = next(text.removeprefix("L2 norm of ") for text in said if text.startswith("L2 norm of "))
    inputs = {name[0]: rule[name][0, :, 0, :, None] for name in ("query", "key", "value")}  # [7, 128, 1]
    inputs |= {name: F.normalize(inputs[name], dim=1) for name in normed.split(" and ")}
    state, found = torch.zeros(128, 128), []
    for t in range(7):
        decay = rule["g"][0, t].exp()  # [1, channels]
        values = {name: each[t] for name, each in inputs.items()}
        values |= {"β": rule["beta"][0, t], "decay": decay, "decay of each channel": decay}
        for update in updates:
            state = value_of(update.removeprefix("S ← "), values | {"S": state})
        found.append(value_of(read_out, values | {"S": state})[:, 0])
    return torch.stack(found)


def test_the_formulas_of_gated_deltanet_give_what_the_reference_gives() -> None:
    rule = random_rule(1)
    given = rule | {"g": rule["g"][..., 0]}
    expected, _ = torch_recurrent_gated_delta_rule(**given, use_qk_l2norm_in_kernel=True)
    torch.testing.assert_close(as_drawn(drawn("qwen3-next-80b-a3b"), rule), expected[0, :, 0], atol=1e-5, rtol=1e-4)


def test_the_formulas_of_kimi_delta_attention_give_what_the_reference_gives() -> None:
    rule = random_rule(128)
    expected, _ = recurrent_kimi_delta_attention(
        **rule, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=True
    )
    torch.testing.assert_close(as_drawn(drawn("kimi-linear-48b-a3b"), rule), expected[0, :, 0], atol=1e-5, rtol=1e-4)


def test_a_memory_that_is_read_before_it_has_faded_would_be_found() -> None:
    said = drawn("qwen3-next-80b-a3b")
    before = ["S ← decay · S + β · (v − S k) kᵀ" if text == "S ← decay · S" else text for text in said]
    before.remove("then S ← S + β · (v − S k) kᵀ")
    rule = random_rule(1)
    assert (as_drawn(before, rule) - as_drawn(said, rule)).abs().max() > 1e-2


SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
GATED: dict[str, dict[str, Any]] = {
    "qwen3_next": {"layer_types": ["full_attention"] * 2},
    "qwen3_5_text": {"layer_types": ["full_attention"] * 2},
    "afmoe": {"layer_types": ["full_attention"] * 2, "num_dense_layers": 1, "num_shared_experts": 1},
    "laguna": {"layer_types": ["full_attention"] * 2, "mlp_layer_types": ["dense", "sparse"]},
}


def small_reference(kind: str) -> Any:
    """A small random model of transformers'."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | GATED.get(kind, {}))).eval()


def note(name: str, seen: dict[str, Tensor], part: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
    """A hook that keeps what a part is given and gives."""
    seen |= {f"into {name}": given[0], name: out}


@pytest.mark.parametrize("kind", GATED)
def test_the_gate_of_attention_is_the_references(kind: str) -> None:
    """Of a single token: attention gives its value, so what reaches o_proj is the value times the gate."""
    model = small_reference(kind)
    said = texts(read(model.config.to_dict(), kind))
    box = next(found for text in said if (found := re.fullmatch(r"× (\w+)\( (\w+) \), for each (\w+)", text)))
    attention, seen = model.model.layers[0].self_attn, dict[str, Tensor]()
    for name, part in attention.named_modules():
        if isinstance(part, nn.Linear):
            part.weight.data.normal_()
            part.register_forward_hook(partial(note, name, seen))
    with torch.no_grad():
        model(input_ids=torch.tensor([[3]]))
    gate = seen[box[2]] if box[2] in seen else seen["q_proj"].view(1, 1, 6, 32)[..., 16:]  # beside each head's query
    activation: Any = {"sigmoid": torch.sigmoid, "softplus": F.softplus}[box[1]]
    values = seen["v_proj"].view(1, 1, 2, 16).repeat_interleave(3, dim=2)
    gate = gate.reshape(1, 1, 6, {"head": 1, "number": 16}[box[3]])
    torch.testing.assert_close(seen["into o_proj"], (values * activation(gate)).flatten(2))


@pytest.mark.parametrize("kind", ["qwen3_moe", *GATED])
def test_a_query_projections_box_has_the_references_size(kind: str) -> None:
    model = small_reference(kind)
    said = texts(read(model.config.to_dict(), kind))
    sizes = said[next(i for i, text in enumerate(said) if text.startswith("q_proj")) + 1]
    into, out = sizes.split(" → ")
    projection = model.model.layers[0].self_attn.q_proj
    assert (projection.in_features, projection.out_features) == (int(into), prod(map(int, out.split(" × "))))


@pytest.mark.parametrize("kind", ["qwen2_moe", "qwen3_next", "qwen3_5_moe_text", "qwen3_moe", "laguna"])
def test_the_gate_of_a_shared_expert_is_drawn_where_the_reference_has_one(kind: str) -> None:
    model = small_reference(kind)
    mlp = model.model.layers[1].mlp
    said = texts(read(model.config.to_dict(), kind))
    drawn_gate = [said[i - 1] for i, text in enumerate(said) if text == "gate: 32 → 1"]
    if not hasattr(mlp, "shared_expert_gate"):
        assert not drawn_gate
        return
    assert drawn_gate == ["× sigmoid"] and mlp.shared_expert_gate.weight.shape == (1, 32)
    x = torch.randn(1, 3, 32)
    with torch.no_grad():
        whole = mlp(x)
        shared = mlp.shared_expert(x) * mlp.shared_expert_gate(x).sigmoid()
        mlp.shared_expert_gate = nn.Linear(32, 1)
        nn.init.constant_(mlp.shared_expert_gate.bias, -1e4)  # closed
        torch.testing.assert_close(whole - mlp(x), shared)
