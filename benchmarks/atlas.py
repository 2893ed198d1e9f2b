"""How long the atlas takes: to be imported, beyond `import grader`, and to read and draw each gallery model.

`--families` prints what it makes of every decoder that the installed transformers knows, at its class's defaults.
"""

import statistics
import subprocess
import sys
import time
from typing import Any


def imported(statement: str) -> float:
    """Milliseconds of a statement in a fresh interpreter that has imported grader, the best of five."""
    code = f"import grader, time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs) * 1e3


def drawn() -> dict[str, float]:
    """Milliseconds to read a model's config and draw its whole figure, the best of three, by its name."""
    from grader.atlas import figure, gallery_models, read

    found = {}
    for model in gallery_models().values():
        if model.config is None:
            continue
        times = []
        for _ in range(3):
            start = time.perf_counter()
            figure(read(model.config, model.name))
            times.append((time.perf_counter() - start) * 1e3)
        found[model.name] = min(times)
    return found


# What a class's defaults leave open, and its files say.
NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 8, "moe_topk": 2},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 4, "num_hidden_layers": 12},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
}
# Of MODEL_FOR_CAUSAL_LM: what reads both ways, or has an encoder, and is no language model that decodes alone.
BOTH_WAYS = (
    *("bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert"),
    *(
        "data2vec-text",
        "electra",
        "ernie",
        "marian",
        "mbart",
        "megatron-bert",
        "mvp",
        "pegasus",
        "plbart",
        "prophetnet",
    ),
    *("reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "trocr", "whisper", "xlm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod", "musicgen", "musicgen_melody", "git", "xlnet"),
)


def judged(kind: str) -> tuple[str, str]:
    """What the atlas makes of a family's defaults, and how many parameters, or why none are told."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from grader.atlas import read
    from grader.atlas.arbiter import Unread
    from grader.errors import GraderError

    count, config = None, None
    try:
        config = CONFIG_MAPPING[kind](**NEEDED.get(kind, {}))
        text = config.get_text_config(decoder=True)  # of a model for images or sound, too, the text's part is read
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(text).parameters())
    except Exception as error:  # transformers makes no model of some classes' own defaults
        why = f"transformers itself makes none: {type(error).__name__}"
    try:
        given = {"model_type": kind} if config is None else {**config.to_dict(), "model_type": kind}
        found, how = read(given).parameters, "right, read by its lines or a relative's"
    except Unread as unread:
        found, how = unread.asked.parameters, "right, counted on transformers' own model"
    except GraderError as error:
        return "refused", str(error)
    if count is None:
        return "read, and not compared", why
    return (how, f"{found:,}") if found == count else ("WRONG", f"{found:,} for {count:,}")


def families() -> None:
    """Every decoder's line, and how many there are of each kind."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from grader.atlas import arbiter
    from grader.quiet import quiet_transformers

    arbiter._kept = lambda model: (None, "not asked for")  # to run them all, if without weights, takes minutes
    each: dict[str, int] = {}
    for kind in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) & set(CONFIG_MAPPING) - set(BOTH_WAYS)):
        with quiet_transformers():
            verdict, words = judged(kind)
        each[verdict] = each.get(verdict, 0) + 1
        print(f"{kind:24}{verdict}: {words}", flush=True)
    print(f"{sum(each.values())} families: " + "; ".join(f"{number} {verdict}" for verdict, number in each.items()))


if __name__ == "__main__":
    if "--families" in sys.argv:
        families()
        sys.exit()
    print(f"import grader.atlas, beyond import grader: {imported('import grader.atlas'):.0f} ms")
    figures = drawn()
    slowest = max(figures, key=lambda name: figures[name])
    print(
        f"one figure: median {statistics.median(figures.values()):.1f} ms, most {figures[slowest]:.1f} ms ({slowest})"
    )
