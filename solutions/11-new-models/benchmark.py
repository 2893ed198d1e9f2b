"""New models: what a sink costs, and experts in a loop against all of them at once (`make bench`). One thread."""

from functools import partial

import torch
from torch import nn

from grader.authoring.kit import Config
from grader.authoring.kit.figures import Figure, ms, show, side_by_side
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(__file__)
RUNS, LENGTH, ROWS = 5, 256, 64
LAYER = Config(
    {
        "model_type": "gpt_oss",
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_local_experts": 16,
        "rms_norm_eps": 1e-5,
    }
)


def figures() -> list[Figure]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        return [*attention(), *experts()]


def filled(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.02)
    return module.eval()


def attention() -> list[Figure]:
    """A text through attention with sinks, and through OLMo 3's, which has norms and no sinks."""
    x, table = torch.randn(1, LENGTH, LAYER.hidden_size), torch.randn(2, LENGTH, LAYER.head_dim)
    layers = {name: filled(LESSON.solutions[name](LAYER)) for name in ("SinkAttention", "OlmoAttention")}
    took = side_by_side({name: partial(layer, x, table) for name, layer in layers.items()}, RUNS)
    return [Figure(f"{LENGTH} tokens through {name}", ms(took[name])) for name in layers]


def experts() -> list[Figure]:
    """Rows through 4 of 16 experts, in the solution's loop, and through all 16 at once."""
    looped = filled(LESSON.solutions["Experts"](LAYER))
    whole = LESSON.others.ExpertsOfAllRows(LAYER)
    whole.load_state_dict(looped.state_dict())
    x, chosen = torch.randn(ROWS, LAYER.hidden_size), torch.rand(ROWS, LAYER.num_local_experts).argsort(-1)[:, :4]
    weights = torch.rand(ROWS, 4).softmax(-1)
    programs = {"in a loop": looped, "all at once": whole}
    took = side_by_side({name: partial(program, x, chosen, weights) for name, program in programs.items()}, RUNS)
    apart = float((looped(x, chosen, weights) - whole(x, chosen, weights)).abs().max())
    return [
        *(Figure(f"{ROWS} rows, 4 of 16 experts, {name}", ms(took[name])) for name in programs),
        Figure("how far both are apart", f"{apart:.1e}", "below 1e-5", apart < 1e-5),
    ]


if __name__ == "__main__":
    raise SystemExit(not show(figures()))
