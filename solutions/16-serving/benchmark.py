"""16 users of 48 tokens: one after the other, all at once, and transformers' generate_batch (`make bench`).

The shipped austen-qwen3 in float32, one thread, greedy. All three must give the same tokens. The ways take turns, so
that a busy moment of the machine falls on all of them; what counts are the ratios.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from grader import load_checkpoint
from grader.authoring.kit.figures import Figure, ms
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
OWN = LESSON.solutions
USERS, TOKENS, RUNS = 16, 48, 3
BLOCKS, BLOCK = 256, 8
FASTER = 2.0  # goal: all at once against one after the other
NOVEL = "It is a truth universally acknowledged, that a single man in possession of a good fortune"


def figures() -> list[Figure]:
    """Seconds of each way, and whether the tokens agree."""
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("austen-qwen3")
    prompts = [checkpoint.tokenizer.encode(NOVEL[: 12 + 5 * i]).ids for i in range(USERS)]
    model = checkpoint.build(OWN["PagedLM"])
    ways: dict[str, Callable[[], tuple[int, list[list[int]]]]] = {
        "one after the other": lambda: served(model, prompts, 1),
        "all at once": lambda: served(model, prompts, USERS),
        "transformers' generate_batch": with_transformers(checkpoint, prompts),
    }
    answers: dict[str, list[list[int]]] = {}
    passes: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(RUNS + 1):  # the first one is not counted
        for name, way in ways.items():
            began = time.perf_counter()
            passes[name], answers[name] = way()
            if run:
                seconds[name].append(time.perf_counter() - began)
    best = {name: min(each) for name, each in seconds.items()}
    found = []
    for name, took in best.items():
        value = f"{ms(took)}, {USERS * TOKENS / took:,.0f} tokens/s"
        if passes[name]:
            value += f", {passes[name]} passes"
        found.append(Figure(f"{USERS} users of {TOKENS} tokens: {name}", value))
    gain = best["one after the other"] / best["all at once"]
    same = all(each == answers["all at once"] for each in answers.values())
    found.append(Figure("all at once, against one after the other", f"{gain:.1f} times", f"{FASTER}", gain >= FASTER))
    beside = best["transformers' generate_batch"] / best["all at once"]
    found.append(Figure("all at once, against transformers' generate_batch", f"{beside:.1f} times"))
    found.append(Figure("the same tokens in all ways", "yes" if same else "no", "yes", same))
    return found


def served(model: Any, prompts: list[list[int]], most: int) -> tuple[int, list[list[int]]]:
    """Passes and answers of the lesson's engine with at most so many users at a time."""
    engine = OWN["Engine"](model, BLOCKS, BLOCK, 512, most)
    requests = [engine.add(prompt, TOKENS) for prompt in prompts]
    return engine.run(), [request.written for request in requests]


def with_transformers(checkpoint: Any, prompts: list[list[int]]) -> Callable[[], tuple[int, list[list[int]]]]:
    """transformers' continuous batching on the same weights, with a cache of the same size."""
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation import ContinuousBatchingConfig
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32, attn_implementation="sdpa")
    # 0 is the end token, and -1 never comes: all write 48 tokens
    greedy = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    paged = ContinuousBatchingConfig(num_blocks=BLOCKS, page_size=BLOCK, max_batch_tokens=512)

    def run() -> tuple[int, list[list[int]]]:
        found = model.eval().generate_batch(
            prompts, generation_config=greedy, continuous_batching_config=paged, progress_bar=False
        )
        by_prompt = {tuple(each.prompt_ids): each.generated_tokens for each in found.values()}
        return 0, [list(by_prompt[tuple(prompt)]) for prompt in prompts]

    return run


if __name__ == "__main__":
    from grader.authoring.kit.figures import show

    raise SystemExit(0 if show(figures()) else 1)
