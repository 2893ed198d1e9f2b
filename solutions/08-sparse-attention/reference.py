"""What exercises on sparse attention with an indexer are checked against: transformers' DeepSeek-V3.2 and GLM-5.

Configs are dicts with transformers' names; `model_type` says which of the two it is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import DeepseekV3Config, DeepseekV32Config, DynamicCache, GlmMoeDsaConfig
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

from grader.authoring.kit import Config, Draw, clear, hf, random_weights
from grader.authoring.kit.configs import fields_of


def is_glm(config: Mapping[str, Any]) -> bool:
    return bool(config["model_type"] == "glm_moe_dsa")


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(GlmMoeDsaConfig if is_glm(config) else DeepseekV32Config, config)


def build_attention(config: Config, layer: int = 0) -> nn.Module:
    kind = glm.GlmMoeDsaAttention if is_glm(config) else deepseek.DeepseekV32Attention
    made: nn.Module = kind(reference_config(config), layer_idx=layer)
    return made


def build_indexer(config: Config) -> nn.Module:
    kind = glm.GlmMoeDsaIndexer if is_glm(config) else deepseek.DeepseekV32Indexer
    made: nn.Module = kind(reference_config(config), layer_idx=0)
    return made


def build_vectors(config: Config) -> nn.Module:
    """The three parts of transformers' indexer that make queries and keys."""
    indexer, made = build_indexer(config), nn.Module()
    made.wq_b, made.wk, made.k_norm, made.config = indexer.wq_b, indexer.wk, indexer.k_norm, indexer.config
    return made


def build_model(config: Config) -> nn.Module:
    kind = glm.GlmMoeDsaModel if is_glm(config) else deepseek.DeepseekV32Model
    made: nn.Module = kind(reference_config(config)).eval()
    return made


def rope_table(positions: Tensor, config: Mapping[str, Any]) -> Tensor:
    """transformers' cosines and sines, each pair's once: [2, T, qk_rope_head_dim / 2]."""
    rotary = deepseek.DeepseekV32RotaryEmbedding(reference_config(config))
    return hf.rope_table(rotary, positions).chunk(2, dim=-1)[0].contiguous()


def both_halves(table: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The table as transformers wants it."""
    cos, sin = torch.cat([table, table], dim=-1).to(x.dtype)
    return cos[None], sin[None]


class ScoresSeen(TorchFunctionMode):
    """Takes down what a module's top-k are taken of: transformers' indexer gives its scores to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.topk:
            self.found.append(args[0])
        return func(*args, **(kwargs or {}))


class Given:
    """A cache for an indexer that gives it these keys, whatever it is handed."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    def update_indexer(self, new: Tensor, layer: int) -> Tensor:
        return self.keys


def call_vectors(module: Any, latent: Tensor, x: Tensor, table: Tensor) -> Tensor:
    """With transformers' parts and its rotations: queries, and the key as one head more."""
    turn = glm.apply_rotary_pos_emb_interleave if is_glm(vars(module.config)) else deepseek.apply_rotary_pos_emb
    rope, width = module.config.qk_rope_head_dim, module.config.index_head_dim
    queries = module.wq_b(latent).unflatten(-1, (-1, width)).transpose(1, 2)
    both = torch.cat([queries, module.k_norm(module.wk(x))[:, None]], dim=1)
    turned, _ = turn(both[..., :rope], both[..., :rope], *both_halves(table, x))
    return torch.cat([turned, both[..., rope:]], dim=-1)


def call_scores(module: Any, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    """What transformers' indexer takes the top-k of, before any mask; with the gradients that it does without."""
    no_mask = torch.zeros(len(x), x.shape[1], keys.shape[1])
    seen = ScoresSeen()
    with seen:
        forward = type(module).forward.__wrapped__
        forward(module, x, latent, both_halves(table, x), no_mask, None, cache=Given(keys))
    return seen.found[0]


def call_rounded_scores(module: Any, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
    """As `call_scores`, in bfloat16 whatever comes in: float64 would not round the heads' weights."""
    return call_scores(module.bfloat16(), x.bfloat16(), latent.bfloat16(), keys.bfloat16(), table)


def run_attention(module: Any, x: Tensor, table: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The output for the whole text, and the masked scores of its indexer, if it has one."""
    more = {} if chosen is None else {"prev_topk_indices": chosen}
    seen = ScoresSeen()
    with seen:
        output = module(x, both_halves(table, x), hf.causal_mask(module.config, x), position_ids=None, **more)[0]
    return output, seen.found


def call_attention(module: Any, x: Tensor, table: Tensor, cuts: Any, chosen: Tensor | None = None) -> Tensor:
    """The whole text at once, whatever the pieces in which the solution gets it."""
    return run_attention(module, x, table, chosen)[0]


def call_attention_with_work(module: Any, x: Tensor, table: Tensor, cuts: list[int], limit: int) -> Tensor:
    """As `call_attention`, for what follows the first cut, with a 1 behind it: the work stays below the limit."""
    output = call_attention(module, x, table, None)[:, cuts[0] :]
    return torch.cat([output.flatten(), output.new_ones(1)])


def call_choices(module: Any, x: Tensor, table: Tensor, cuts: Any, chosen: Tensor | None = None) -> Tensor:
    """Which tokens transformers' layer reads, as counts: those that it chose, or without an indexer those it was given."""
    if chosen is None or module.indexer is not None:
        scores = run_attention(module, x, table)[1][0]
        chosen = scores.topk(min(module.config.index_topk, scores.shape[-1]), dim=-1).indices
    return torch.zeros(*x.shape[:2], x.shape[1], dtype=torch.int64).scatter(2, chosen, 1).tril()


# Inputs whose choice is clear: no check may hang on a near-tie


def fixed_weights(module: nn.Module, draw: Draw) -> None:
    """The same random weights for every module of these shapes, so that inputs can be drawn for it."""
    shapes = (f"{name} {list(parameter.shape)}" for name, parameter in module.named_parameters())
    random_weights(module, Draw("attention", *shapes))


def margins(scores: Tensor, k: int) -> Tensor:
    """By how much each token's choice is clear, in units of what its scores differ by: masked scores [B, T, S] -> [N].

    Of tokens that see more than k.
    """
    gaps = []
    for row in scores.flatten(0, 1):
        seen = row[row > torch.finfo(torch.bfloat16).min].sort(descending=True).values
        if len(seen) > k:
            gaps.append((seen[k - 1] - seen[k]) / seen.std())
    return torch.stack(gaps)


def clear_text(
    draw: Draw,
    config: Mapping[str, Any],
    batch: int,
    table: Tensor,
    scale: float = 1.0,
    first: int = 0,
    by: float = clear.CLEAR,
) -> Tensor:
    """Draws texts [batch, T, D] whose every token from `first` on makes a clear choice in a layer with `fixed_weights`.

    by: how clear.
    """
    module, length = build_attention(Config(config)), table.shape[1]
    fixed_weights(module, draw)

    def is_clear(x: Tensor) -> bool:
        with torch.no_grad():
            scores = run_attention(module, x, table)[1][0]
        return length <= config["index_topk"] or bool(margins(scores[:, first:], config["index_topk"]).min() > by)

    return clear.clear(lambda: draw.normal(1, length, config["hidden_size"], scale=scale), is_clear, batch)


def right_choice(scores: Tensor, k: int) -> Tensor:
    """PyTorch's top-k of what each query may see, one query at a time, as counts [B, T, S]."""
    (batch, T, S), counts = scores.shape, torch.zeros(scores.shape, dtype=torch.int64)
    for b in range(batch):
        for t in range(T):
            seen = S - T + t + 1
            counts[b, t, scores[b, t, :seen].topk(min(k, seen)).indices] = 1
    return counts


# Caches, and what attention costs: products counted on a device that holds no numbers, bytes in transformers' caches


def right_fill(
    config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]
) -> tuple[list[Tensor], list[int], list[int]]:
    """What comes back, the lengths after each step, and the refusals with them."""
    kept, coming = [part[:, :0] for part in parts[:2]], iter(parts)
    given, lengths, codes = [], [], []
    for number, step in enumerate(steps):
        if step <= 0:
            kept = [tensor[:, :-step] if step else tensor[:, :0] for tensor in kept]
        else:
            pair = [next(coming), next(coming)]
            for kind in (0, 1) if number % 2 else (1, 0):
                refused = kept[kind].shape[1] + step > capacity
                codes.append(int(refused))
                if not refused:
                    kept[kind] = torch.cat([kept[kind], pair[kind]], dim=1)
                    given.append(kept[kind].flatten())
        lengths.append(kept[0].shape[1])
        codes.append(kept[0].shape[1])
    return given, lengths, codes


def right_in_turns(config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> Tensor:
    seen = []
    for end in range(2, len(parts) + 1, 2):
        rows, keys = (torch.cat(parts[kind:end:2], dim=1).flatten() for kind in (0, 1))
        seen += [keys, rows, -keys, -rows]
    return torch.cat(seen)


def right_where_unequal(config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> Tensor:
    """What comes back of a cache that is cropped while it has one index key."""
    given = [parts[0], parts[1][:, :1]]
    for first, more in ((parts[0][:, : -steps[1]], parts[2]), (parts[1][:, :1], parts[3])):
        given += [torch.cat([first, more], dim=1), torch.cat([first, more, more[:, :1]], dim=1)]
    return torch.cat([tensor.flatten() for tensor in given])


def right_room(config: Any, batch: int, capacity: int, parts: list[Tensor], steps: list[int]) -> list[int]:
    row, key = config.kv_lora_rank + config.qk_rope_head_dim, config.index_head_dim
    tokens = batch * capacity * parts[0].element_size()
    return [tokens * (row + key), tokens * row, 0]


def right_costs(config: Mapping[str, Any], tokens: int, element_bytes: int = 2) -> list[int]:
    H, r, p = (config[f] for f in ("num_attention_heads", "kv_lora_rank", "qk_rope_head_dim"))
    layers, topk = config["num_hidden_layers"], config.get("index_topk")
    types = (config.get("indexer_types") or ["full" if topk else "none"] * layers)[:layers]
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[element_bytes]
    fields = fields_of(config, "num_hidden_layers", "indexer_types", "first_k_dense_replace")
    fields |= {"indexer_types": types} if "indexer_types" in fields else {}
    kind = DeepseekV3Config if not topk else GlmMoeDsaConfig if is_glm(config) else DeepseekV32Config
    cache = DynamicCache(config=kind(**fields))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        for layer, how in enumerate(types):
            cache.update(torch.empty(1, 1, tokens, r, dtype=dtype), torch.empty(1, 1, tokens, p, dtype=dtype), layer)
            if how == "full":
                heads, width = config["index_n_heads"], config["index_head_dim"]
                keys = cache.update_indexer(torch.empty(1, tokens, width, dtype=dtype), layer)
                dots = torch.empty(heads, width) @ keys[0].float().T
                torch.empty(1, heads) @ dots
            rows = torch.empty(min(tokens, topk or tokens), r + p)
            torch.empty(H, len(rows)) @ rows[:, :r] + (torch.empty(H, r + p) @ rows.T)[:, :1]
    held = [tensor for layer in cache.layers for tensor in vars(layer).values() if isinstance(tensor, Tensor)]
    return [counter.get_total_flops() // 2, sum(tensor.nbytes for tensor in held)]


def gathered_work(config: Mapping[str, Any], tokens: int) -> int:
    """Multiply-adds for the last of `tokens` tokens: between attention to the chosen rows and to all of them."""
    D, H, r, q = (config[f] for f in ("hidden_size", "num_attention_heads", "kv_lora_rank", "q_lora_rank"))
    n, p, v = (config[f] for f in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    heads, width = config["index_n_heads"], config["index_head_dim"]
    projections = D * q + q * H * (n + p) + D * (r + p) + H * v * D + H * r * (n + v)
    index = q * heads * width + D * width + D * heads + tokens * heads * (width + 1)
    chosen, every = (H * rows * (2 * r + p) for rows in (config["index_topk"], tokens))
    total: int = projections + index + (chosen + every) // 2
    return total


def right_recall(scores: Tensor, weights: Tensor, k: int) -> list[float]:
    """By sorting each query's tokens, one query after the other, in float64."""
    found = whole = 0.0
    same, queries = 0, 0
    for text in range(len(scores)):
        for query in range(k, scores.shape[1]):
            by, row = scores[text, query].tolist(), weights[text, query].double().tolist()
            chosen = sorted(range(query + 1), key=lambda s: -by[s])[:k]
            best = sorted(range(query + 1), key=lambda s: -row[s])[:k]
            found, whole = found + sum(row[s] for s in chosen), whole + sum(row[s] for s in best)
            same, queries = same + len({*chosen} & {*best}), queries + 1
    return [found / whole, same / (queries * k)]
