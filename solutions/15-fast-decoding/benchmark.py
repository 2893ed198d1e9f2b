"""How near the finished program comes to what memory allows, beside transformers on the same weights (`make bench`).

SmolLM2-135M, float32, one thread. What is compared takes turns, the limit among it: one product of a matrix that has as
many bytes as a token reads. So a busy moment of the machine falls on all of them, and the shares stay right. What is
timed of transformers is its model's own step with each kind of cache, so `generate` around it can only be slower. Where
there is a C++ compiler, the lesson's compiled layers are timed too, and transformers' step with a static cache, compiled
whole, as `generate` does it on a GPU: it is built anew for each context, which takes most of the benchmark's time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grader import load_checkpoint
from grader.authoring.kit.figures import Figure, side_by_side
from grader.authoring.kit.solved import lesson_at, lesson_of
from grader.instruments import work

LESSON = lesson_of(__file__)
CONTEXTS = (64, 256, 1000)
RUNS = 9
SHARE, FASTER, INT8 = 0.85, 1.6, 3.0  # goals: of the limit; than transformers; int8 than transformers' float32
WRITTEN = 48
PRODUCTS = {"aten::mm", "aten::addmm", "aten::mv", "aten::addmv"}
ATTENTION = {"aten::bmm", "aten::_softmax", "aten::_scaled_dot_product_flash_attention_for_cpu"}
PEOPLE = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want
of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood."""
LIST = """Correct the spelling of this list, and change nothing else.
- two pounds of butter for the kitchen at Longbourn
- a letter for Captain Wentworth at Kellynch Hall
- four yards of muslin for Miss Elizabeth Bennet
The corrected list:
- two pounds of butter for the kitchen at Longbourn
-"""


def figures() -> list[Figure]:
    """Shares of the limit at several contexts, int8, and prompt lookup. Nothing where the weights are not here."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True)
    if checkpoint is None:
        return [Figure("SmolLM2-135M", "its weights are not here: grader weights get smollm2-135m-instruct")]
    fast = checkpoint.build(LESSON.solutions["ColumnLM"]).prepare()
    by_rows = checkpoint.build(LESSON.solutions["FastLM"]).prepare()
    before = checkpoint.build(LESSON.solutions["CachedLM"])
    small = in_int8(checkpoint, before, fast)
    models = {"the program as it was": before, "by rows": by_rows, "finished": fast, **small, **compiled(fast)}
    theirs = transformers_model(checkpoint)
    found = []
    with torch.no_grad():
        for context in CONTEXTS:
            found += at_context(checkpoint.config, models, theirs, context)
        found += [same_tokens(checkpoint, fast, model, name) for name, model in small.items()]
        found += [*with_lookup(checkpoint, fast), *profiles(checkpoint, before)]
    return found


def in_int8(checkpoint: Any, before: Any, fast: Any) -> dict[str, Any]:
    """The finished program with the products of two of the lesson's kernels, where this processor has them."""
    own = LESSON.solutions
    largest = own["largest_inputs"](before, torch.tensor([checkpoint.tokenizer.encode(PEOPLE).ids]))
    kernels = {
        "finished, int8": lambda weight, _: own["int8_pack"](own["Int8Linear"](weight), torch.bfloat16),
        "finished, int8 but for large channels": own["keep_large"],
    }
    found = {}
    for name, kernel in kernels.items():
        try:
            found[name] = own["in_int8"](fast, kernel, largest)
        except RuntimeError as error:
            print(f"{name}: not on this processor: {error}".partition("\n")[0])
    return found


def compiled(fast: Any) -> dict[str, Any]:
    """The finished program with compiled layers, in float32 and with int8 pack, where there is a compiler."""
    own = LESSON.solutions
    if reason := own["no_compiler"]():
        print(f"nothing is compiled: {reason}")
        return {}
    return {
        "finished, compiled": own["Compiled"](fast),
        "finished, int8, compiled": own["Compiled"](fast, own["codes_and_scale"]),
    }


def transformers_model(checkpoint: Any) -> Any:
    """transformers' Llama with the same weights, and its attention by PyTorch's kernel."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()


def steps_of(theirs: Any, ids: Tensor, room: int) -> dict[str, Callable[[], object]]:
    """transformers' step for one token after ids, with each kind of cache."""
    from transformers import DynamicCache, StaticCache

    caches = {"transformers": DynamicCache(), "transformers, static": StaticCache(theirs.config, max_cache_len=room)}
    if not LESSON.solutions["no_compiler"]():
        caches["transformers, static, compiled"] = StaticCache(theirs.config, max_cache_len=room)
    steps: dict[str, Callable[[], object]] = {}
    for name, cache in caches.items():
        theirs(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        step = torch.compile(theirs.forward, dynamic=False) if name.endswith("compiled") else theirs
        steps[name] = partial(step, input_ids=ids[:, :1], cache=cache, use_cache=True)
    return steps


def at_context(config: Any, models: dict[str, Any], theirs: Any, context: int) -> list[Figure]:
    """Tokens a second of all programs after `context` tokens, and of the limit, in turns."""
    ids = torch.randint(config.vocab_size, (1, context), generator=torch.Generator().manual_seed(0))
    matrix = torch.ones(LESSON.solutions["bytes_for_a_token"](config, context) // 16_384, 4096)
    ways: dict[str, Callable[[], object]] = {"the limit": partial(torch.mv, matrix, torch.ones(4096))}
    linears = [module.weight for module in models["finished"].modules() if isinstance(module, nn.Linear)]
    vectors = {width: torch.ones(1, 1, width) for width in {weight.shape[1] for weight in linears}}
    ways["products alone"] = lambda: [nn.functional.linear(vectors[w.shape[1]], w) for w in linears]
    for name, model in models.items():
        cache = model.new_cache(1, context + RUNS + 2)
        model(ids, cache)
        ways[name] = partial(model, ids[:, :1], cache)
    seconds = side_by_side(ways | steps_of(theirs, ids, context + RUNS + 2), RUNS)
    limit, best = seconds["the limit"], min(t for name, t in seconds.items() if name.startswith("transformers"))
    found = []
    for name, time in seconds.items():
        value, goal, met = f"{1 / time:.1f} tokens/s, {limit / time:.0%} of the limit", "", True
        if name == "finished":
            value += f", {best / time:.2f} times transformers"
            goal, met = f"{SHARE:.0%}, {FASTER} times", limit / time >= SHARE and best / time >= FASTER
        if name.startswith("finished, int8"):
            value += f", {best / time:.2f} times transformers"
            goal, met = f"{INT8} times", best / time >= INT8
        found.append(Figure(f"after {context:,} tokens: {name}", value, goal, met))
    return found


def same_tokens(checkpoint: Any, fast: Any, small: Any, name: str) -> Figure:
    """How many of the next tokens along the recorded texts int8 keeps. They are read one by one, as in decoding."""
    kept = total = 0
    for golden in checkpoint.goldens:
        text = torch.tensor([[*golden.prompt_ids, *golden.new_ids]])
        cache = small.new_cache(1, text.shape[1])
        says = torch.cat([small(token, cache).argmax(-1) for token in text.split(1, dim=1)], dim=1)
        kept, total = kept + int((says == fast(text).argmax(-1)).sum()), total + says.numel()
    return Figure(f"{name}: next tokens along the recorded texts that stay the same", f"{kept} of {total}")


def with_lookup(checkpoint: Any, fast: Any) -> list[Figure]:
    """Prompt lookup on a text that repeats, beside the program alone and the limit."""
    own = LESSON.solutions
    ids = torch.tensor([checkpoint.tokenizer.encode(LIST).ids])
    expected = list(own["generate"](fast, ids, WRITTEN))
    for guesses in (4, 8):
        if list(own["generate_with_guesses"](fast, own["prompt_lookup"], ids, WRITTEN, guesses)) != expected:
            raise SystemExit("prompt lookup changed the text")
    matrix = torch.ones(own["bytes_for_a_token"](checkpoint.config, ids.shape[1]) // 16_384, 4096)
    ways: dict[str, Callable[[], object]] = {
        "the limit": lambda: [torch.mv(matrix, torch.ones(4096)) for _ in range(WRITTEN)],
        "alone": lambda: list(own["generate"](fast, ids, WRITTEN)),
        **{
            f"prompt lookup, {g} guesses": partial(
                write, own["generate_with_guesses"], fast, own["prompt_lookup"], ids, g
            )
            for g in (4, 8)
        },
    }
    seconds = side_by_side(ways, 3)
    return [
        Figure(f"a list that is repeated, {WRITTEN} tokens: {name}", f"{WRITTEN / time:.1f} tokens/s, "
               f"{seconds['the limit'] / time:.0%} of the limit")
        for name, time in seconds.items()
    ]  # fmt: skip


def write(generate: Any, model: Any, propose: Any, ids: Tensor, guesses: int) -> list[int]:
    """The tokens that are written with guesses; the prompt is read in this time, too."""
    return list(generate(model, propose, ids, WRITTEN, guesses))


def profiles(checkpoint: Any, before: Any) -> list[Figure]:
    """Where a token's time goes in the cached programs of three lessons, after 256 tokens.

    GPT-2 and Gemma 3 270M have random weights: what is computed does not depend on them.
    """
    gpt2, gemma = lesson_at(LESSON.folder.parent / "02-kv-cache"), lesson_at(LESSON.folder.parent / "06-sliding-window")
    programs = {
        "SmolLM2-135M (03)": before,
        "GPT-2 124M (02)": gpt2.solutions["CachedGPT2"](gpt2.config("gpt2")).eval(),
        "Gemma 3 270M (06)": gemma.solutions["CachedLM"](gemma.config("gemma-3-270m")).eval(),
    }
    return [profile_of(name, model) for name, model in programs.items()]


def profile_of(name: str, model: Any, context: int = 256) -> Figure:
    """The share of the limit, the number of operators, and the shares of products and attention in their time."""
    ids = torch.arange(context)[None]
    cache = model.new_cache(1, context + 2 * RUNS + 4)
    model(ids, cache)
    step = partial(model, ids[:, :1], cache)
    read = sum(
        weight.numel() for name, weight in model.named_parameters() if name != "wpe.weight"
    )  # the heads are tied
    matrix = torch.ones(read // 4096, 4096)
    seconds = side_by_side({"limit": partial(torch.mv, matrix, torch.ones(4096)), "step": step}, RUNS)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(RUNS):
            step()
    rows = profile.key_averages()
    whole = sum(row.self_cpu_time_total for row in rows)
    shares = [sum(r.self_cpu_time_total for r in rows if r.key in kinds) / whole for kinds in (PRODUCTS, ATTENTION)]
    calls = len(work.operators(step, depth=1).splitlines())
    return Figure(
        f"{name}, a token after {context}",
        f"{1 / seconds['step']:.1f} tokens/s, {seconds['limit'] / seconds['step']:.0%} of the limit; {calls} operators; "
        f"products {shares[0]:.0%}, attention {shares[1]:.0%}, all else {1 - sum(shares):.0%} of the time",
    )


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
