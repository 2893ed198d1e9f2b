"""How near the finished program comes to what memory allows, beside transformers on the same weights (`make bench`).

SmolLM2-135M, float32, one thread. What is compared takes turns, the limit among it: one product of a matrix that has as
many bytes as a token reads. So a busy moment of the machine falls on all of them, and the shares stay right. What is
timed of transformers is its model's own step with each kind of cache, so `generate` around it can only be slower.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grader import load_checkpoint
from grader.authoring.kit.figures import Figure, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
CONTEXTS = (64, 256, 1000)
RUNS = 9
SHARE, FASTER, INT8 = 0.85, 1.6, 3.0  # goals: of the limit; than transformers; int8 than transformers' float32
WRITTEN = 48
LIST = """Correct the spelling of this list, and change nothing else.
- two pounds of butter for the kitchen at Longbourn
- a letter for Captain Wentworth at Kellynch Hall
- four yards of muslin for Miss Elizabeth Bennet
The corrected list:
- two pounds of butter for the kitchen at Longbourn
-"""


class Product(nn.Module):
    """The product with the weights of some layers in int8, by PyTorch's kernel for inputs in bfloat16."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        rounded = LESSON.solutions["Int8Linear"](torch.cat([layer.weight for layer in layers]))
        self.product = LESSON.solutions["int8_pack"](rounded, torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.product(x)
        return found


def in_int8(model: Any) -> Any:
    """A copy of the finished program whose products are in int8."""
    small = copy.deepcopy(model)
    for layer in small.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        attention.qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj)
        mlp.gate_up = Product(mlp.gate_proj, mlp.up_proj)
        attention.o_proj, mlp.down_proj = Product(attention.o_proj), Product(mlp.down_proj)
        del attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj
    small.lm_head = Product(small.lm_head)
    return small


def figures() -> list[Figure]:
    """Shares of the limit at several contexts, int8, and prompt lookup. Nothing where the weights are not here."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True)
    if checkpoint is None:
        return [Figure("SmolLM2-135M", "its weights are not here: grader weights get smollm2-135m-instruct")]
    fast = checkpoint.build(LESSON.solutions["ColumnLM"]).prepare()
    by_rows = checkpoint.build(LESSON.solutions["FastLM"]).prepare()
    before = checkpoint.build(LESSON.solutions["CachedLM"])
    models = {"the program as it was": before, "by rows": by_rows, "finished": fast, "finished, int8": in_int8(fast)}
    theirs = transformers_model(checkpoint)
    found = []
    with torch.no_grad():
        for context in CONTEXTS:
            found += at_context(checkpoint.config, models, theirs, context)
        found += [same_tokens(checkpoint, fast, models["finished, int8"]), *with_lookup(checkpoint, fast)]
    return found


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
    steps: dict[str, Callable[[], object]] = {}
    for name, cache in caches.items():
        theirs(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        steps[name] = partial(theirs, input_ids=ids[:, :1], cache=cache, use_cache=True)
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
    limit, best = seconds["the limit"], min(seconds["transformers"], seconds["transformers, static"])
    found = []
    for name, time in seconds.items():
        value, goal, met = f"{1 / time:.1f} tokens/s, {limit / time:.0%} of the limit", "", True
        if name == "finished":
            value += f", {best / time:.2f} times transformers"
            goal, met = f"{SHARE:.0%}, {FASTER} times", limit / time >= SHARE and best / time >= FASTER
        if name == "finished, int8":
            value += f", {best / time:.2f} times transformers"
            goal, met = f"{INT8} times", best / time >= INT8
        found.append(Figure(f"after {context:,} tokens: {name}", value, goal, met))
    return found


def same_tokens(checkpoint: Any, fast: Any, small: Any) -> Figure:
    """How many of the next tokens along the recorded texts int8 keeps."""
    kept = total = 0
    for golden in checkpoint.goldens:
        text = torch.tensor([[*golden.prompt_ids, *golden.new_ids]])
        same = small(text).argmax(-1) == fast(text).argmax(-1)
        kept, total = kept + int(same.sum()), total + same.numel()
    return Figure("int8: next tokens along the recorded texts that stay the same", f"{kept} of {total}")


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


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
