"""What is right in 05-mla: transformers' DeepSeek-V3 with dense MLPs, a latent cache, absorbed attention, generation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

from grader.authoring.kit import Config, Draw, hf
from grader.authoring.kit.toy import random_toy_lm, reference_generate

from .drives import FilledRows


def reference_config(config: Mapping[str, Any]) -> Any:
    """Without experts; a q_lora_rank of None is one that is given."""
    dense = {"first_k_dense_replace": config["num_hidden_layers"], "num_mtp_layers": 0}
    return hf.config(DeepseekV3Config, config, q_lora_rank=config["q_lora_rank"], **dense)


def build_attention(config: Config) -> nn.Module:
    return deepseek.DeepseekV3Attention(reference_config(config), layer_idx=0)


def build_compressor(config: Config) -> nn.Module:
    """The two parts of transformers' attention that make what is kept."""
    attention, made = build_attention(config), nn.Module()
    made.kv_a_proj_with_mqa, made.kv_a_layernorm = attention.kv_a_proj_with_mqa, attention.kv_a_layernorm
    return made


def build_model(config: Config) -> nn.Module:
    return deepseek.DeepseekV3Model(reference_config(config)).eval()


def rope_table(positions: Tensor, config: Mapping[str, Any]) -> Tensor:
    """transformers' cosines and sines, each pair's once: [2, T, qk_rope_head_dim / 2]."""
    rotary = deepseek.DeepseekV3RotaryEmbedding(reference_config(config))
    return hf.rope_table(rotary, positions).chunk(2, dim=-1)[0].contiguous()


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = torch.cat([table, table], dim=-1).to(x.dtype)
    return deepseek.apply_rotary_pos_emb_interleave(x, x, cos[None], sin[None])[0]


def call_compressor(module: Any, x: Tensor) -> Tensor:
    both = module.kv_a_proj_with_mqa(x)
    rank = module.kv_a_layernorm.weight.numel()
    return torch.cat([module.kv_a_layernorm(both[..., :rank]), both[..., rank:]], dim=-1)


def call_attention(module: Any, x: Tensor, table: Tensor, *_: Any) -> Tensor:
    """The whole text at once, whatever the pieces in which the solution gets it."""
    return hf.call_part(module, x, torch.cat([table, table], dim=-1))


def call_attention_with_work(module: Any, x: Tensor, table: Tensor, *_: Any) -> Tensor:
    """As `call_attention`, with a 1 behind it: the work stays below the limit."""
    output = call_attention(module, x, table)
    return torch.cat([output.flatten(), output.new_ones(1)])


def generation_args(
    prompt: int,
    new_tokens: int,
    stop_at: int | None = None,
    last: bool = False,
    in_prompt: bool = False,
    steady: bool = False,
) -> Any:
    """Draws ToyLM, ids [1, prompt], new_tokens, and for `stop_at` two end tokens, of which one comes.

    last: whether it is the last of the two. in_prompt: whether it stands in the prompt as well. steady: whether every
    token is the same.
    """
    vocabulary = 47 if last else 61

    def draw_args(draw: Draw) -> Sequence[Any]:
        length = draw.size("prompt", prompt, prompt + 1, prompt + 3)
        while True:
            toy = random_toy_lm(vocabulary, vocabulary + 3, draw.generator)
            ids = draw.tokens(vocabulary, 1, length)
            if steady:
                toy.token.data[:], toy.position.data[:] = toy.token.data[:1].clone(), 0.0
            written = reference_generate(toy, ids, new_tokens).tolist()
            if stop_at is None:
                return toy, ids, new_tokens, []
            if not in_prompt or (
                written[stop_at] in ids[0, :-1].tolist() and written[stop_at] not in written[:stop_at]
            ):
                break
        never = next(token for token in range(vocabulary) if token not in written)
        return toy, ids, new_tokens, [never, written[stop_at]] if last else [written[stop_at], never]

    return draw_args


def close_args(prompt: int, new_tokens: int) -> Any:
    """As `generation_args`, with a token before the one that is written first, whose logit is 0.03 % lower.

    In bfloat16 their logits are equal, and so are their probabilities.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        drawn = generation_args(prompt, new_tokens)
        while True:
            toy, ids, *more = drawn(draw)
            first = reference_generate(toy, ids, 1).item()
            with torch.no_grad():
                toy.head[first - 1] = toy.head[first] * (1 - 3e-4)
                logits = toy(ids)[0, -1]
            rounded = torch.stack([logits, logits.softmax(dim=0)]).bfloat16()
            if first and 5 < logits[first] < 10 and torch.equal(rounded[:, first - 1], rounded[:, first]):
                return toy, ids, *more

    return draw_args


def right_fill_of_rows(capacity: int, parts: Sequence[Tensor]) -> FilledRows:
    """What `fill_rows` finds in a cache with room for `capacity` rows."""
    kept, filled = parts[0][:, :0], FilledRows()
    for part in parts:
        refused = kept.shape[1] + part.shape[1] > capacity
        if not refused:
            kept = torch.cat([kept, part], dim=1)
            filled.contents.append(kept)
        filled.codes += [int(refused), kept.shape[1]]
    return filled


def right_rows(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returns, and what the last part does in a second cache."""
    return torch.cat([*right_fill_of_rows(capacity, parts).contents, parts[-1]], dim=1)


def right_rows_in_turns(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> Tensor:
    """What every append returns in two caches that are filled in turns, the second with the negatives."""
    contents = right_fill_of_rows(capacity, parts).contents
    return torch.cat([*contents, *(-rows for rows in contents)], dim=1)


def right_room_of_rows(config: Config, batch: int, capacity: int, parts: list[Tensor]) -> list[int]:
    """How many numbers and how many bytes a cache of latents and keys keeps."""
    numbers = batch * capacity * (config.kv_lora_rank + config.qk_rope_head_dim)
    return [numbers, numbers * parts[0].element_size()]


def absorbed_work(config: Mapping[str, Any], rows: int) -> int:
    """Twice the multiply-adds of absorbed latent attention for one token: more than any order of it takes.

    Half of what rebuilding the keys and values of 40 rows takes.
    """
    D, H, r = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    n, p, v, q = (config[f] for f in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank"))
    queries: int = D * q + q * H * (n + p) if q else D * H * (n + p)
    total: int = 2 * (queries + D * (r + p) + H * v * D + H * r * (n + v) + H * rows * (2 * r + p))
    return total


def right_variance(rank: int, first: Tensor, second: Tensor) -> float:
    """The same in float64, from the eigenvectors of the first text's covariance, one token at a time."""
    rows, mean = first.double(), first.double().mean(dim=0)
    covariance = sum(torch.outer(row - mean, row - mean) for row in rows)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -rank:].unbind(1)  # in rising order
    inside = whole = 0.0
    for row in second.double() - mean:
        inside += sum(float(row @ direction) ** 2 for direction in directions)
        whole += float(row @ row)
    return inside / whole
