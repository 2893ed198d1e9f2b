"""What only 15-fast-decoding must hold: exact distributions, real weights, and that its claims hold."""

from pathlib import Path
from typing import Any

import pytest
import torch

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return LESSON.solutions


@pytest.fixture(scope="module")
def fast(own: dict[str, Any]) -> Any:
    return load_checkpoint("austen-qwen3").build(own["FastLM"]).prepare()


def distributions(seed: int, V: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(2, V, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    return drawn[0], drawn[1]


@pytest.mark.parametrize("V", [2, 3, 11])
def test_100_000_tokens_have_the_models_frequencies(own: dict[str, Any], V: int) -> None:
    N, (p, q) = 100_000, distributions(V, V)
    u = torch.rand(3, N, generator=torch.Generator().manual_seed(V))
    drafts = own["pick"](q.expand(N, V), u[0])
    tokens, accepted = own["accept_or_resample"](p.expand(N, V), q.expand(N, V), drafts, u[1], u[2])
    five_sigma = 5 * (p * (1 - p) / N).sqrt()
    assert bool(((tokens.bincount(minlength=V) / N - p).abs() < five_sigma).all())
    assert accepted.float().mean().item() == pytest.approx(torch.minimum(p, q).sum().item(), abs=0.01)


def test_pairs_of_tokens_have_the_models_frequencies(own: dict[str, Any]) -> None:
    generator, N, V = torch.Generator().manual_seed(1), 6000, 3
    says, guesses = torch.randn(2, V, V, generator=generator).softmax(-1)
    counts = torch.zeros(V, V)
    for _ in range(N):
        written = [0]
        while len(written) < 3:
            u, text = torch.rand(7, generator=generator), written[-1:]
            for i in range(2):
                text.append(int(own["pick"](guesses[text[-1]][None], u[i : i + 1])))
            places = torch.tensor(text)
            written += own["speculative_step"](says[places], guesses[places[:2]], places[1:], u[2:4], u[4:])
        counts[written[1], written[2]] += 1
    should = says[0][:, None] * says
    assert bool(((counts / N - should).abs() < 5 * (should * (1 - should) / N).sqrt()).all())


@pytest.mark.parametrize("guesses", [1, 3, 8])
@pytest.mark.parametrize("words", ["Anne", "It is a truth universally acknowledged, that a single man"])
def test_guesses_change_no_token(own: dict[str, Any], fast: Any, guesses: int, words: str) -> None:
    checkpoint = load_checkpoint("austen-qwen3")
    ids = torch.tensor([checkpoint.tokenizer.encode(words).ids])
    alone = list(own["generate"](fast, ids, 60))
    draft = own["DraftModel"](fast, ids.shape[1] + 60)
    for propose in (own["prompt_lookup"], draft, lambda tokens, n: [tokens[0]] * n):
        assert list(own["generate_with_guesses"](fast, propose, ids, 60, guesses)) == alone


def test_a_replay_counts_the_runs_that_a_model_makes(own: dict[str, Any], fast: Any) -> None:
    ids = torch.tensor([load_checkpoint("austen-qwen3").tokenizer.encode("Captain Wentworth").ids])
    asked = []

    def propose(tokens: list[int], n: int) -> list[int]:
        asked.append(n)
        found: list[int] = own["prompt_lookup"](tokens, n)
        return found

    written = list(own["generate_with_guesses"](fast, propose, ids, 60, 4))
    assert own["runs_needed"](own["prompt_lookup"], ids[0].tolist(), written, 4) == len(asked)


def test_loading_after_prepare_changes_what_is_computed(own: dict[str, Any]) -> None:
    checkpoint = load_checkpoint("austen-qwen3")
    late = own["FastLM"](checkpoint.config).eval().prepare()
    assert set(late.state_dict()) == set(own["CausalLM"](checkpoint.config).state_dict())
    checkpoint.load_into(late)
    early = checkpoint.build(own["FastLM"]).prepare()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(late(ids), early(ids))


def test_no_weight_is_in_memory_twice(own: dict[str, Any], fast: Any) -> None:
    memories = {}
    for module in fast.modules():
        for thing in [
            *module.parameters(recurse=False),
            *(p.keywords["weight"] for p in vars(module).values() if hasattr(p, "keywords")),
        ]:
            memories[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    assert sum(memories.values()) == sum(p.nbytes for p in fast.parameters())


def test_an_int8_error_is_within_its_bound(own: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(50, 70, generator=generator), torch.randn(20, 70, generator=generator)
    layer = own["Int8Linear"](weight)
    assert bool(((layer(x) - x @ weight.T).abs() <= layer.bound(x) * 1.0001).all())


LLAMA = {"num_hidden_layers": 3, "vocab_size": 100, "max_position_embeddings": 64}


def logits_of(model: Any, made: Any) -> torch.Tensor:
    """What a model says after each of four single tokens behind a prompt, with the cache of another that is like it."""
    ids, cache = torch.arange(9)[None], made.new_cache(1, 20)
    with torch.no_grad():
        model(ids, cache)
        return torch.cat([model(ids[:, i : i + 1], cache) for i in range(4)], dim=1)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_layer_as_a_function_of_its_tensors_gives_what_the_layer_gives(own: dict[str, Any], family: str) -> None:
    torch.manual_seed(0)
    if family == "llama":
        made = own["ColumnLM"](LESSON.config("smollm2-135m").replace(**LLAMA)).eval().prepare()
    else:
        made = load_checkpoint("austen-qwen3").build(own["ColumnLM"]).prepare()
    for form, tolerance in ((lambda weight: weight, 1e-4), (own["codes_and_scale"], 0.05)):
        function = own["Compiled"](made, form)
        function.layer = own["one_token"]
        should, is_now = logits_of(made, made), logits_of(function, made)
        assert ((is_now - should).norm() / should.norm()).item() < tolerance


@pytest.mark.slow
def test_a_compiled_layer_gives_what_the_layer_gives(own: dict[str, Any]) -> None:
    if why := own["no_compiler"]():
        pytest.skip(why)
    made = own["ColumnLM"](LESSON.config("smollm2-135m").replace(**LLAMA)).eval().prepare()
    torch.testing.assert_close(logits_of(own["Compiled"](made), made), logits_of(made, made), rtol=1e-4, atol=1e-4)


def test_every_figure_is_shown() -> None:
    twin = (HERE / "fast_decoding.py").read_text(encoding="utf-8")
    assert all(f"figures/{path.name}" in twin for path in (HERE / "figures").iterdir())
