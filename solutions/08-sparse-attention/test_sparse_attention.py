"""What sparse attention alone must hold; tests/lessons/test_every_lesson.py asks the rest."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from grader import Config
from grader.authoring.kit import Draw, clear, random_weights
from grader.authoring.kit.engine import record_calls
from grader.authoring.kit.solved import lesson_of
from grader.kv import bytes_per_token, known_model

LESSON = lesson_of(__file__)
REFERENCE = LESSON.module("reference")
EXERCISES = LESSON.module("exercises")
OF_BOTH_FAMILIES = pytest.mark.parametrize(
    "config", [EXERCISES.SMALL, EXERCISES.GLM], ids=["deepseek_v32", "glm_moe_dsa"]
)


# The reference against the papers' formulas, one number at a time, in float64


def rotated(vector: list[float], position: int, config: dict[str, Any]) -> list[float]:
    """RoPE on the first channels (Su et al., 2021, equation 34), results in transformers' order: both halves apart."""
    rope, theta = config["qk_rope_head_dim"], config["rope_parameters"]["rope_theta"]
    half, turned = rope // 2, list(vector)
    for i in range(half):
        angle = position / theta ** (2 * i / rope)
        first, second = (2 * i, 2 * i + 1) if REFERENCE.is_glm(config) else (i, i + half)
        a, b = vector[first], vector[second]
        turned[i], turned[i + half] = (
            a * math.cos(angle) - b * math.sin(angle),
            b * math.cos(angle) + a * math.sin(angle),
        )
    return turned


def formula(config: dict[str, Any], weights: dict[str, Tensor], x: Tensor, latent: Tensor) -> Tensor:
    """DeepSeek-V3.2 (2025), equation 1, with the layer norm and the scales of DeepSeek's code: x [T, D] -> [T, T]."""
    H, d = config["index_n_heads"], config["index_head_dim"]
    w = {name: tensor.double() for name, tensor in weights.items()}
    queries, keys = [], []
    for t, (row, narrow) in enumerate(zip(x.double(), latent.double(), strict=True)):
        asked = (w["wq_b.weight"] @ narrow).view(H, d).tolist()
        queries.append([rotated(query, t, config) for query in asked])
        k = w["wk.weight"] @ row
        k = (k - k.mean()) / ((k - k.mean()) ** 2).mean().add(1e-6).sqrt() * w["k_norm.weight"] + w["k_norm.bias"]
        keys.append(rotated(k.tolist(), t, config))
    scores = torch.zeros(len(x), len(x), dtype=torch.float64)
    for t, row in enumerate(x.double()):
        counts = (w["weights_proj.weight"] @ row / H**0.5).tolist()
        for s, key in enumerate(keys):
            dots = [sum(a * b for a, b in zip(query, key, strict=True)) / d**0.5 for query in queries[t]]
            scores[t, s] = sum(count * max(dot, 0.0) for count, dot in zip(counts, dots, strict=True))
    return scores


@OF_BOTH_FAMILIES
def test_the_references_scores_and_choices_are_the_papers_formula(config: dict[str, Any]) -> None:
    """What transformers' layer takes its top-k of, in a layer on a text, and which tokens it then reads."""
    plain = config | {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
    draw, table = Draw("formula"), REFERENCE.rope_table(torch.arange(9), plain)
    module = REFERENCE.build_attention(Config(plain))
    REFERENCE.fixed_weights(module, draw)
    x = REFERENCE.clear_text(draw, plain, 1, table)
    with torch.no_grad():
        (_, seen), calls = record_calls(module, lambda: REFERENCE.run_attention(module, x, table))
    latent = next(call.output for call in calls if call.path == "q_a_layernorm")
    weights = {name.removeprefix("indexer."): tensor for name, tensor in module.state_dict().items()}
    wanted = formula(plain, weights, x[0], latent[0])
    earlier = torch.ones(9, 9, dtype=torch.bool).tril()
    torch.testing.assert_close(seen[0][0].double()[earlier], wanted[earlier], rtol=1e-4, atol=1e-5)
    best = [set(sorted(range(t + 1), key=lambda s: -float(wanted[t, s]))[: plain["index_topk"]]) for t in range(9)]
    found = REFERENCE.call_choices(module, x, table, [])[0]
    assert [set(row.nonzero()[:, 0].tolist()) for row in found] == best


@OF_BOTH_FAMILIES
def test_the_references_attention_is_a_softmax_over_what_was_chosen(config: dict[str, Any]) -> None:
    draw, table = Draw("attention"), REFERENCE.rope_table(torch.arange(3, 11), config)
    module = REFERENCE.build_attention(Config(config))
    REFERENCE.fixed_weights(module, draw)
    x = REFERENCE.clear_text(draw, config, 1, table)
    with torch.no_grad():
        (output, _), calls = record_calls(module, lambda: REFERENCE.run_attention(module, x, table))
        chosen = REFERENCE.call_choices(module, x, table, [])[0]
        at = {call.path: call.output[0] for call in calls if call.output is not None}
        heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
        turn = REFERENCE.glm.apply_rotary_pos_emb_interleave
        q = at["q_b_proj"].view(8, heads, -1).transpose(0, 1)
        key = at["kv_a_proj_with_mqa"][:, config["kv_lora_rank"] :]
        q_rope, k_rope = turn(q[None, ..., nope:], key[None, None], *REFERENCE.both_halves(table, x))
        kv = at["kv_b_proj"].view(8, heads, -1).transpose(0, 1)
        outputs = torch.zeros(8, heads, config["v_head_dim"])
        for t in range(8):
            read = chosen[t].nonzero()[:, 0].tolist()
            for h in range(heads):
                scores = [q[h, t, :nope] @ kv[h, s, :nope] + q_rope[0, h, t] @ k_rope[0, 0, s] for s in read]
                weights = (torch.stack(scores) * module.scaling).softmax(dim=0)
                outputs[t, h] = sum(w * kv[h, s, nope:] for w, s in zip(weights, read, strict=True))
        torch.testing.assert_close(module.o_proj(outputs.flatten(1)), output[0], rtol=1e-4, atol=1e-5)


class Takes:
    """A cache that keeps the last index key that it was given."""

    def update_indexer(self, new: Tensor, layer: int) -> Tensor:
        self.keys = new
        return new


@OF_BOTH_FAMILIES
def test_the_references_vectors_are_those_of_its_indexer(config: dict[str, Any]) -> None:
    """`call_vectors` puts transformers' parts together; its own indexer hands the same key to its cache."""
    indexer, cache = REFERENCE.build_indexer(Config(config)), Takes()
    draw, table = Draw("vectors"), REFERENCE.rope_table(torch.arange(4, 9), config)
    random_weights(indexer, draw)
    x, latent = (draw.normal(2, 5, config[name]) for name in ("hidden_size", "q_lora_rank"))
    with torch.no_grad():
        indexer(x, latent, REFERENCE.both_halves(table, x), torch.zeros(2, 5, 5), None, cache=cache)
        both = REFERENCE.call_vectors(indexer, latent, x, table)
    assert torch.equal(both[:, -1], cache.keys)


# Cases


@pytest.mark.parametrize("secret", ["", "a secret of this test"])
@pytest.mark.parametrize("name", ["sparse_attention.attention", "sparse_attention.gathered"])
def test_every_case_leaves_tokens_out_and_none_hangs_on_a_near_tie(name: str, secret: str) -> None:
    for case in LESSON.exercises[name].cases:
        draw = Draw(secret, LESSON.name, name, case.name, varied=bool(secret))
        build, (x, table, *more) = case.built(draw), case.args(draw)
        config, chooses = (
            build["config"],
            (build["config"].get("indexer_types") or ["full"] * 9)[build["layer"]] == "full",
        )
        allowed = config["index_topk"] if chooses else more[-1].shape[-1]  # the choice that it takes over
        assert x.shape[1] > allowed, case.name
        if chooses:
            module = REFERENCE.build_attention(Config(config), build["layer"])
            REFERENCE.fixed_weights(module, draw)
            with torch.no_grad():
                scores = REFERENCE.run_attention(module, x, table)[1][0]
            first = more[0][0] if more[1:] and isinstance(more[1], int) else 0
            assert REFERENCE.margins(scores[:, first:], config["index_topk"]).min() > 0.9 * clear.CLEAR, case.name


def test_choices_in_the_models_cases_are_clear() -> None:
    task, _ = LESSON.recorded("sparse_attention.model")
    for case in task.cases:
        config = Config(case.build["config"])
        model = REFERENCE.build_model(config)
        model.load_state_dict(case.weights)
        ids, seen = case.args[0], REFERENCE.ScoresSeen()
        assert ids.shape[1] > config.index_topk, case.name
        if case.drive == "layers_of_another_attention":
            continue  # it counts layers, and no output of it hangs on a choice
        with torch.no_grad(), seen:
            model(input_ids=ids, use_cache=False)
        indexes = [found for found in seen.found if found.shape == (*ids.shape, ids.shape[1])]
        assert len(indexes) == sum(LESSON.solutions["has_indexer"](config, i) for i in range(config.num_hidden_layers))
        assert min(float(REFERENCE.margins(found, config.index_topk).min()) for found in indexes) > 1e-3, case.name


# Forms, caches, counts


def test_both_forms_keep_the_rows_and_index_keys_that_transformers_keeps() -> None:
    config = Config(EXERCISES.GLM)
    theirs = LESSON.exercises["sparse_attention.model"].reference(config)
    ids, cache = torch.randint(47, (2, 9)), DynamicCache(config=theirs.config)
    with torch.no_grad():
        theirs(input_ids=ids, cache=cache, use_cache=True)
        for form in ("SparseAttention", "GatheredAttention"):
            own = LESSON.solutions["Model"](config, LESSON.solutions[form])
            own.load_state_dict(theirs.state_dict())
            caches = [
                LESSON.solutions["IndexedCache"](config, 2, 9, indexed=LESSON.solutions["has_indexer"](config, i))
                for i in range(3)
            ]
            own(ids[:, :6], caches)
            own(ids[:, 6:], caches)
            for layer, kept in zip(cache.layers, caches, strict=True):
                rows = torch.cat([layer.keys, layer.values], dim=-1)[:, 0]  # type: ignore[attr-defined, list-item]
                torch.testing.assert_close(kept.rows, rows, rtol=1e-3, atol=1e-4)
                if kept.index_length:
                    torch.testing.assert_close(kept.index_keys, layer.indexer_keys, rtol=1e-3, atol=1e-4)  # type: ignore[attr-defined]


def test_a_crop_and_the_same_tokens_again_give_the_same_text() -> None:
    config = Config(EXERCISES.GLM)
    torch.manual_seed(0)
    model = LESSON.solutions["Model"](config, LESSON.solutions["GatheredAttention"])
    ids, caches = torch.randint(47, (1, 12)), [LESSON.solutions["IndexedCache"](config, 1, 12) for _ in range(3)]
    with torch.no_grad():
        model(ids[:, :8], caches)
        wanted = model(ids[:, 8:], caches)
        for cache in caches:
            cache.crop(8)
        torch.testing.assert_close(model(ids[:, 8:], caches), wanted)


def test_the_work_that_grows_with_the_text_is_what_the_lesson_counts() -> None:
    """One layer, counted with 90 and with 50 tokens in the cache: projections are the same in both."""
    config = Config(EXERCISES.OTHER | {"num_hidden_layers": 1})
    attention = LESSON.solutions["GatheredAttention"](config)

    def counted(tokens: int) -> int:
        cache = LESSON.solutions["IndexedCache"](config, 1, tokens)
        cache.length = cache.index_length = tokens - 1
        table = REFERENCE.rope_table(torch.tensor([tokens - 1]), config)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            attention(torch.randn(1, 1, config.hidden_size), table, cache)
        return counter.get_total_flops() // 2

    costs = LESSON.solution("sparse_attention.costs")
    assert counted(90) - counted(50) == costs(config, 90)[0] - costs(config, 50)[0] > 0


def test_the_lessons_cache_is_the_calculators() -> None:
    costs = LESSON.solution("sparse_attention.costs")
    config = LESSON.config("deepseek-v3.2")
    known = known_model("DeepSeek V3.2")
    assert {field: config[field] for field in known} == dict(known)
    assert bytes_per_token(config) == costs(config, 1)[1] == round(83.875 * 1024)
    glm = LESSON.config("glm-5.2")
    assert bytes_per_token(glm) == costs(glm, 1)[1]
    assert list(glm.indexer_types).count("full") == 21


def test_selecting_pays_from_2_178_tokens_on() -> None:
    costs, v3, v32 = (
        LESSON.solution("sparse_attention.costs"),
        *(LESSON.config(n) for n in ("deepseek-v3", "deepseek-v3.2")),
    )
    assert [costs(v32, n)[0] < costs(v3, n)[0] for n in (2_048, 2_177, 2_178)] == [False, False, True]
