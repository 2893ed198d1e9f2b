"""What the mixture of experts alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel

from grader import Config
from grader.authoring.kit import Draw, clear
from grader.authoring.kit.solved import lesson_of
from grader.instruments import patch

LESSON = lesson_of(__file__)
REFERENCE, DRIVES = LESSON.module("reference"), LESSON.module("drives")
ROUTERS = ("moe.softmax_router", "moe.sigmoid_router")


def formula(config: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The papers' formulas, one token and one expert at a time, in float64: what each expert counts, [N, E].

    Qwen3: softmax, the k highest, divided by their sum. DeepSeek-V3 (2024), equations 12 to 16, with groups.
    """
    rows = []
    for token in x.double():
        logits = [float(token @ row) for row in weight.double()]
        E, k = len(logits), config["num_experts_per_tok"]
        if bias is None:
            whole = sum(math.exp(value) for value in logits)
            scores = [math.exp(value) / whole for value in logits]
            chosen = sorted(range(E), key=lambda e: -scores[e])[:k]
        else:
            scores = [1 / (1 + math.exp(-value)) for value in logits]
            choice = [scores[e] + float(bias[e]) for e in range(E)]
            size = E // config["n_group"]
            groups = [range(start, start + size) for start in range(0, E, size)]
            best = sorted(groups, key=lambda group: -sum(sorted(choice[e] for e in group)[-2:]))[: config["topk_group"]]
            chosen = sorted((e for group in best for e in group), key=lambda e: -choice[e])[:k]
        divisor = sum(scores[e] for e in chosen) if config["norm_topk_prob"] else 1.0
        factor = config.get("routed_scaling_factor", 1.0)
        rows.append([scores[e] / divisor * factor if e in chosen else 0.0 for e in range(E)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_references_routers_are_the_papers_formulas(name: str) -> None:
    task, answer = LESSON.recorded(name)
    for case, output in zip(task.cases, answer.outputs, strict=True):
        if case.dtype == torch.float32 and output.is_floating_point():
            bias = case.weights.get("e_score_correction_bias")
            wanted = formula(case.build["config"], case.args[0], case.weights["weight"], bias)
            torch.testing.assert_close(output.double(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["moe.experts", "moe.sorted_experts"])
def test_the_references_experts_are_the_formula(name: str) -> None:
    task, answer = LESSON.recorded(name)
    for case, output in zip(task.cases, answer.outputs, strict=True):
        if case.dtype != torch.float32 or not output.is_floating_point():
            continue
        x, chosen, weights = case.args
        wanted = torch.zeros_like(x)
        for n, experts in enumerate(chosen.tolist()):
            for place, e in enumerate(experts):
                gate, up = (case.weights["gate_up_proj"][e] @ x[n]).chunk(2)
                wanted[n] += weights[n, place] * (case.weights["down_proj"][e] @ (F.silu(gate) * up))
        torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("secret", ["", "a secret of this test"])
@pytest.mark.parametrize("name", [*ROUTERS, "moe.layer"])
def test_no_case_hangs_on_a_near_tie(name: str, secret: str) -> None:
    for case in LESSON.exercises[name].cases:
        draw = Draw(secret, LESSON.name, name, case.name, varied=bool(secret))
        config, x = case.built(draw)["config"], case.args(draw)[0].flatten(0, -2)
        clear = float(REFERENCE.margins(config, x @ REFERENCE.router_weight(config).T).min())
        assert clear > (1e-3 if REFERENCE.is_deepseek(config) else 0.05 * float(x.std())), case.name


def test_choices_in_the_models_cases_are_clear() -> None:
    task, _ = LESSON.recorded("moe.model")
    for case in task.cases:
        config = Config(case.build["config"])
        model = LESSON.solution("moe.model")(config)
        model.load_state_dict(case.weights)
        with torch.no_grad():
            calls = patch.calls_in(model, case.args[0])
        for path, call in calls.items():
            if path.endswith("mlp.gate"):
                assert call.input is not None
                logits = F.linear(call.input, case.weights[f"{path}.weight"])
                assert clear.gap(logits, config.num_experts_per_tok).min() > 1e-3, (case.name, path)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "deepseek-v3"])
def test_the_lessons_counts_are_those_of_transformers_model(name: str) -> None:
    """Every parameter, on a device that holds no numbers; the head has as many as the embedding."""
    config = LESSON.config(name)
    own: dict[str, Any] = dict(LESSON.solutions)
    exec(LESSON.cell_with("def other_parameters("), own)
    fields = {field: value for field, value in config.items() if value is not None and field != "torch_dtype"}
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**fields | {"num_nextn_predict_layers": 0}))
    wanted = sum(p.numel() for p in model.parameters()) + config.vocab_size * config.hidden_size
    total, active = LESSON.solution("moe.parameters")(config)
    assert own["other_parameters"](config) + total == wanted
    experts = sum(p.numel() for path, p in model.named_parameters() if ".experts." in path)
    share = config.num_experts_per_tok / LESSON.solutions["num_experts"](config)
    assert total - active == round(experts * (1 - share))


def test_a_files_experts_are_stacked_as_transformers_stacks_them() -> None:
    own: dict[str, Any] = {"Tensor": Tensor, "torch": torch}
    exec(LESSON.cell_with("def stacked("), own)
    matrices = {
        f"experts.{e}.{name}_proj.weight": torch.randn(*((5, 7) if name == "down" else (7, 5)))
        for e in range(3)
        for name in ("gate", "up", "down")
    }
    experts = LESSON.solutions["Experts"](Config({"num_experts": 3, "hidden_size": 5, "moe_intermediate_size": 7}))
    made = own["stacked"](matrices, 3)
    experts.load_state_dict({name.removeprefix("experts."): tensor for name, tensor in made.items()})
    x = torch.randn(1, 5)
    for e in range(3):
        gate, up, down = (matrices[f"experts.{e}.{name}_proj.weight"] for name in ("gate", "up", "down"))
        wanted = F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
        torch.testing.assert_close(experts(x, torch.tensor([[e]]), torch.ones(1, 1)), wanted)


def test_the_trained_models_load_is_equal_over_all_layers_only() -> None:
    """What the lesson says of the loss for unequal load: it sees the layers together."""
    checkpoint, model, _ = LESSON.trained("CausalLM", "austen-moe")
    text = (LESSON.folder / "texts" / "persuasion.txt").read_text(encoding="utf-8")
    ids = torch.tensor(checkpoint.tokenizer.encode(text).ids[:1024]).view(4, 256)
    with torch.no_grad():
        calls = patch.calls_in(model, ids)
    chosen = [call.further[0] for path, call in calls.items() if path.endswith("mlp.gate")]
    shares = [choices.flatten().bincount(minlength=8) / len(choices) for choices in chosen]
    assert torch.stack(shares).mean(dim=0).min() > 0.15
    assert torch.stack(shares).min() < 0.1


def test_the_loss_one_token_at_a_time_is_that_of_the_small_mixtures() -> None:
    task, _ = LESSON.recorded("moe.cost_of_expert")
    for case in task.cases:
        ids, *weights, _ = case.args
        model = DRIVES.SmallMixture(*weights).double()
        with torch.no_grad():
            own = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        assert REFERENCE.surprise(ids, weights)[0] == pytest.approx(own.item(), abs=1e-9)


def test_the_experts_that_are_missed_most_are_in_the_first_layer() -> None:
    """What the lesson says of austen-moe: an expert with 60% of another layer's tokens is worth little."""
    checkpoint, model, _ = LESSON.trained("CausalLM", "austen-moe")
    text = (LESSON.folder / "texts" / "persuasion.txt").read_text(encoding="utf-8")
    ids = torch.tensor(checkpoint.tokenizer.encode(text).ids[:512]).view(2, 256)
    cost = LESSON.solution("moe.cost_of_expert")
    first = sorted(cost(model, ids, 0, expert) for expert in range(8))
    assert first[-1] > 1.0 and first[-3] > 0.3
    assert max(cost(model, ids, layer, expert) for layer, expert in ((1, 2), (2, 6), (2, 7))) < 0.07
    assert abs(cost(model, ids, 1, 0)) < 0.02  # with 60% of the tokens


def test_with_a_capacity_a_texts_output_depends_on_the_text_before_it() -> None:
    """What the lesson says of full experts: without a limit each text is computed by itself."""
    own: dict[str, Any] = dict(LESSON.solutions)
    exec(LESSON.cell_with("class LimitedExperts("), own)
    limited = own["LimitedExperts"]
    checkpoint, model, _ = LESSON.trained("CausalLM", "austen-moe")
    text = (LESSON.folder / "texts" / "persuasion.txt").read_text(encoding="utf-8")
    ids = torch.tensor(checkpoint.tokenizer.encode(text).ids[:512]).view(2, 256)
    for layer in model.model.layers:
        layer.mlp.experts.__class__ = limited
    changed = {}
    for room in (1.25, math.inf):
        with torch.no_grad(), patch.replaced(limited, room=room):
            alone, behind = model(ids[1:])[0], model(ids)[1]
        changed[room] = float((alone.argmax(dim=-1) != behind.argmax(dim=-1)).float().mean())
    assert changed[1.25] > 0.1 and changed[math.inf] < 0.02
