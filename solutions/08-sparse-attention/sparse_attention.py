# %% [markdown] id="fbb09986"
# # 08 · Sparse attention: look everything up, read little
#
# 100 to 120 minutes · difficulty ●●●●○ · you know latent attention (lesson 05); its code and the experts of lesson 07 are given

# %% tags=["setup"] id="setup"
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% tags=["setup"] id="setup-2"
def has_indexer(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, chooses for itself; in GLM-5.2 most take over what an earlier one chose."""
    types = config.get("indexer_types")
    return not types or types[layer] == "full"


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, has experts in place of one MLP."""
    return layer >= config.first_k_dense_replace


def num_experts(config: Config) -> int:
    """How many routed experts a layer has."""
    return config.n_routed_experts

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-3"
def rope_settings(config: Config) -> dict[str, Any]:
    """What a config says of RoPE: one dict in files of transformers 5, two fields in older ones."""
    settings = config.get("rope_parameters")
    if not settings:
        settings = {"rope_theta": config.rope_theta, **(config.get("rope_scaling") or {})}
    return {"rope_type": settings.get("type", "default"), **settings}

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-4"
def yarn(bases: Tensor, settings: dict[str, Any]) -> tuple[Tensor, float]:
    """RoPE's frequencies 1 / bases [d / 2] stretched, and a factor for cosines and sines (lesson 05)."""
    pairs, factor = len(bases), settings["factor"]

    def pair_that_goes_round(times: float) -> float:
        radians = settings["original_max_position_embeddings"] / (times * 2 * math.pi)
        return pairs * math.log(radians) / math.log(settings["rope_theta"])

    low = max(math.floor(pair_that_goes_round(settings.get("beta_fast") or 32)), 0)
    high = min(math.ceil(pair_that_goes_round(settings.get("beta_slow") or 1)), 2 * pairs - 1)
    ramp = ((torch.arange(pairs, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    keep = 1 - ramp  # 1: as it was, 0: slower by the factor
    frequencies = 1.0 / (factor * bases) * (1 - keep) + 1.0 / bases * keep
    of_rope, of_all = settings.get("mscale"), settings.get("mscale_all_dim")
    if not (of_rope and of_all):
        return frequencies, 0.1 * math.log(factor) + 1
    log = 0.1 * math.log(factor)
    return frequencies, (of_rope * log + 1) / (of_all * log + 1)

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-5"
def rope_table(positions: Tensor, config: Config) -> Tensor:
    """Cosine and sine of every pair's angle: positions [T] int64 -> [2, T, rope / 2] float32 (lesson 05)."""
    settings, width = rope_settings(config), config.qk_rope_head_dim
    bases = settings["rope_theta"] ** (torch.arange(0, width, 2).float() / width)  # [width / 2]
    frequencies, size = yarn(bases, settings) if settings["rope_type"] == "yarn" else (1.0 / bases, 1.0)
    angles = positions.float()[:, None] * frequencies.to(positions.device)  # [T, width / 2]
    return torch.stack([angles.cos() * size, angles.sin() * size])


def causal_softmax(scores: Tensor) -> Tensor:
    """Scores to attention weights: no token sees a later one; the softmax in float32 (lesson 05).

    scores: [B, H, T, S], of the last T of S tokens -> [B, H, T, S], in their dtype.
    """
    T, S = scores.shape[-2:]
    future = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(diagonal=S - T + 1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(scores.dtype)

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"
class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1, then apply a learned scale (Zhang and Sennrich, 2019, eq. 4).

    y = x / sqrt(mean(x^2) + eps) * weight. The division in float32, cast back to x's dtype before the weight.
    x: [..., dim] -> [..., dim], in x's dtype. transformers: models/qwen3/modeling_qwen3.py, Qwen3RMSNorm.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        mean_square = x32.pow(2).mean(dim=-1, keepdim=True)  # [..., 1]
        normed = x32 * torch.rsqrt(mean_square + self.eps)  # [..., dim]
        return self.weight * normed.to(x.dtype)


# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"
class MLP(nn.Module):
    """Two linear maps of x, one of which is the gate of the other: SwiGLU (Shazeer, 2020, equation 6).

    down_proj(silu(gate_proj(x)) * up_proj(x)). No biases.
    Parts: gate_proj and up_proj (hidden_size -> intermediate_size), down_proj (and back), all nn.Linear.
    x: [B, T, D] -> [B, T, D]. transformers: Qwen3MLP.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.silu(self.gate_proj(x)) * self.up_proj(x)  # [B, T, D] -> [B, T, intermediate_size]
        return self.down_proj(hidden)


# %% given="05-mla mla.compress" jupyter={"source_hidden": true} id="given-05-mla-mla-compress"
class Compressor(nn.Module):
    """What a layer makes of a token to keep it: a normed latent, and a key for RoPE (DeepSeek-V2, 2.1).

    Parts: kv_a_proj_with_mqa (hidden_size -> kv_lora_rank + qk_rope_head_dim, without bias),
    kv_a_layernorm (RMSNorm over the latent, eps 1e-6).
    transformers: models/deepseek_v3/modeling_deepseek_v3.py, DeepseekV3Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.heads, self.rank = config, config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        kept = config.kv_lora_rank + config.qk_rope_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, kept, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank)

    def compress(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normed latent, and the rope key before its rotation: [B, T, D] -> [B, T, rank], [B, T, rope]."""
        both = self.kv_a_proj_with_mqa(x)  # [B, T, D] -> [B, T, rank + rope]
        latent, key = both.split([self.rank, self.rope], dim=-1)
        return self.kv_a_layernorm(latent), key


# %% given="05-mla mla.rope" jupyter={"source_hidden": true} id="given-05-mla-mla-rope"
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels (2 i, 2 i + 1) by its angle; results go to i and i + d / 2.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, d], table: [2, T, d / 2] -> [B, H, T, d]. transformers: apply_rotary_pos_emb_interleave.
    """
    cos, sin = table.to(x.dtype)  # 2 x [T, d / 2]
    a, b = x[..., 0::2], x[..., 1::2]  # 2 x [B, H, T, d / 2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


# %% given="05-mla mla.scale" jupyter={"source_hidden": true} id="given-05-mla-mla-scale"
def softmax_scale(config: Config) -> float:
    """What the scores of q and k are multiplied by before the softmax.

    1 / sqrt(qk_nope_head_dim + qk_rope_head_dim); with YaRN (rope_type "yarn", mscale_all_dim given and
    not 0) times m^2, m = 0.1 * mscale_all_dim * ln(factor) + 1. transformers: yarn_apply_mscale.
    """
    settings = rope_settings(config)
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    if settings["rope_type"] == "yarn" and settings.get("mscale_all_dim"):
        m = 0.1 * settings["mscale_all_dim"] * math.log(settings["factor"]) + 1
        scale = scale * m * m
    return scale


# %% given="05-mla mla.cache" jupyter={"source_hidden": true} id="given-05-mla-mla-cache"
class LatentCache:
    """The rows that one layer keeps: for every token its latent and then its rotated rope key.

    capacity: for how many tokens there is room from the start. length: how many there are.
    transformers: DynamicCache keeps the same numbers, in two tensors.
    """

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32):
        self.length = 0
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self.rows = torch.zeros(batch, capacity, width, dtype=dtype)

    def append(self, new: Tensor) -> Tensor:
        """Keep new [B, T, width] behind what there is; all rows so far come back: [B, length, width].

        Raises ValueError, and keeps nothing of it, where there is no room for all of `new`.
        """
        end = self.length + new.shape[1]
        if end > self.rows.shape[1]:
            raise ValueError(f"{end} tokens do not fit into a cache for {self.rows.shape[1]}")
        self.rows[:, self.length : end] = new
        self.length = end
        return self.rows[:, :end]


# %% given="05-mla mla.attention" jupyter={"source_hidden": true} id="given-05-mla-mla-attention"
class Attention(Compressor):
    """Latent attention that rebuilds every head's keys and values (DeepSeek-V2, section 2.1).

    Parts besides Compressor's, all without bias:
    q_a_proj (D -> q_lora_rank), q_a_layernorm (RMSNorm, eps 1e-6), q_b_proj (-> H * (nope + rope)),
    or q_proj alone (D -> H * (nope + rope)) where q_lora_rank is None;
    kv_b_proj (kv_lora_rank -> H * (nope + v)); o_proj (H * v -> D).
    A head's channels stand side by side: nope, then rope; nope, then v. transformers: DeepseekV3Attention.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        D, all_queries = config.hidden_size, self.heads * (self.nope + self.rope)
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(D, all_queries, bias=False)
        else:
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank)
            self.q_b_proj = nn.Linear(config.q_lora_rank, all_queries, bias=False)
        self.kv_b_proj = nn.Linear(self.rank, self.heads * (self.nope + self.v), bias=False)
        self.o_proj = nn.Linear(self.heads * self.v, D, bias=False)

    def rows_so_far(self, x: Tensor, table: Tensor, cache: "LatentCache | None") -> Tensor:
        """The rows of x, behind those of the cache if there is one: [B, T, D] -> [B, S, rank + rope]."""
        latent, key = self.compress(x)
        new = torch.cat([latent, apply_rope(key[:, None], table)[:, 0]], dim=-1)
        return new if cache is None else cache.append(new)

    def queries(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D], table: [2, T, rope / 2] -> [B, H, T, nope + rope], the rope channels rotated."""
        narrow = self.config.q_lora_rank is not None
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if narrow else self.q_proj(x)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, nope + rope]
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope, apply_rope(rope, table)], dim=-1)

    def forward(self, x: Tensor, table: Tensor, cache: "LatentCache | None" = None) -> Tensor:
        """x: [B, T, D], table: [2, T, rope / 2] -> [B, T, D]; x are the last T of S tokens."""
        q, rows = self.queries(x, table), self.rows_so_far(x, table, cache)
        latents, key = rows.split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, S, nope + v]
        nope, v = kv.split([self.nope, self.v], dim=-1)
        k = torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1)  # [B, H, S, nope + rope]
        weights = causal_softmax(q @ k.mT * softmax_scale(self.config))  # [B, H, T, S]
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # [B, T, H * v]
        return self.o_proj(mixed)


# %% given="07-moe moe.sigmoid_router" jupyter={"source_hidden": true} id="given-07-moe-moe-sigmoid_router"
class SigmoidRouter(nn.Module):
    """Choose k experts from the best groups, with a bias that only the choice sees: DeepSeek-V3's router.

    s = sigmoid(x W^T), all in float32. The choice is made by s + e_score_correction_bias: the E experts are n_group
    groups of neighbours, a group's score is the sum of its two highest, the topk_group best groups stay, and of their
    experts the k highest are chosen. Weights: s of the chosen, without the bias; where norm_topk_prob, divided by
    (their sum + 1e-20); times routed_scaling_factor.
    Parts: weight, a Parameter [E, D], and e_score_correction_bias, a buffer [E] in float32, at first zeros.
    x: [N, D] -> weights [N, k] float32, numbers [N, k] int64. transformers: DeepseekV3TopkRouter; DeepSeek-V3 (2024), 2.1.2.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(num_experts(config), config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(num_experts(config)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = F.linear(x.float(), self.weight.float()).sigmoid()  # [N, D] -> [N, E]
        choice = scores + self.e_score_correction_bias
        groups = choice.unflatten(-1, (self.config.n_group, -1))  # [N, G, E / G]
        group_scores = groups.topk(2, dim=-1).values.sum(dim=-1)  # [N, G]
        best = group_scores.topk(self.config.topk_group, dim=-1).indices
        closed = torch.ones_like(group_scores, dtype=torch.bool).scatter(1, best, False)  # [N, G]
        choice = groups.masked_fill(closed[..., None], float("-inf")).flatten(1)  # [N, E]
        chosen = choice.topk(self.config.num_experts_per_tok, dim=-1).indices  # [N, k]
        weights = scores.gather(1, chosen)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights * self.config.routed_scaling_factor, chosen


# %% given="07-moe moe.experts" jupyter={"source_hidden": true} id="given-07-moe-moe-experts"
class Experts(nn.Module):
    """E gated MLPs whose weights are stacked; each works on the tokens that chose it.

    A token's output is the sum over its chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x)).
    Parts, nn.Parameters: gate_up_proj [E, 2 * moe_intermediate_size, D], an expert's gate above its up, and
    down_proj [E, D, moe_intermediate_size]. For every expert they have the form of nn.Linear's weight, [out, in].
    x: [N, D], chosen: [N, k] int64, weights: [N, k], in x's dtype or float32 -> [N, D] in x's dtype.
    transformers: Qwen3MoeExperts.
    """

    def __init__(self, config: Config):
        super().__init__()
        E, D, width = num_experts(config), config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.zeros(E, 2 * width, D))
        self.down_proj = nn.Parameter(torch.zeros(E, D, width))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        output = torch.zeros_like(x)
        for expert in range(len(self.down_proj)):
            token, place = torch.where(chosen == expert)  # 2 x [n]: the n tokens that chose it
            gate, up = F.linear(x[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            given = F.linear(F.silu(gate) * up, self.down_proj[expert])  # [n, D]
            output.index_add_(0, token, (given * weights[token, place, None]).to(x.dtype))
        return output


# %% given="07-moe moe.layer" jupyter={"source_hidden": true} id="given-07-moe-moe-layer"
class MoE(nn.Module):
    """What stands in a layer in place of its MLP: a router, its experts and, in DeepSeek-V3, a shared expert.

    Parts: gate (SigmoidRouter where config.model_type is "deepseek_v3", else SoftmaxRouter), experts (Experts) and, in
    DeepSeek-V3 alone, shared_experts: one MLP, n_shared_experts * moe_intermediate_size wide, that every token goes
    through; its output is added as it is.
    x: [B, T, D] -> [B, T, D]. transformers: Qwen3MoeSparseMoeBlock, DeepseekV3MoE.
    """

    def __init__(self, config: Config):
        super().__init__()
        deepseek = config.model_type == "deepseek_v3"
        self.gate = SigmoidRouter(config) if deepseek else SoftmaxRouter(config)
        self.experts = Experts(config)
        width = config.moe_intermediate_size * config.get("n_shared_experts", 0)
        self.shared_experts = MLP(config.replace(intermediate_size=width)) if deepseek else None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)  # [B * T, D]
        weights, chosen = self.gate(rows)
        routed = self.experts(rows, chosen, weights).view_as(x)
        return routed if self.shared_experts is None else routed + self.shared_experts(x)


# %% tags=["setup"] id="setup-6"
def rotate_halves(x: Tensor, table: Tensor) -> Tensor:
    """As `apply_rope`, with other pairs: channel i and channel i + d / 2, as in Qwen3.

    x: [B, H, T, d], table: [2, T, d / 2] -> [B, H, T, d].
    """
    cos, sin = table.to(x.dtype)  # 2 x [T, d / 2]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, d / 2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

# %% exercise="sparse_attention.vectors" id="sparse_attention-vectors"
class IndexVectors(nn.Module):
    """The queries and keys by which an indexer finds tokens: index_n_heads queries a token, and one key.

    Query: wq_b of the normed query latent, cut into heads. Key: k_norm of wk of x. In both the first qk_rope_head_dim
    channels of a head are rotated, in DeepSeek-V3.2 (config.model_type "deepseek_v32") by `rotate_halves`, in GLM-5
    ("glm_moe_dsa") by `apply_rope`. The others stay as they are, behind the rotated ones.
    Parts: wq_b (q_lora_rank -> index_n_heads * index_head_dim) and wk (hidden_size -> index_head_dim), nn.Linear
    without bias; k_norm, an nn.LayerNorm with eps 1e-6. transformers: DeepseekV32Indexer, GlmMoeDsaIndexer.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.heads = config, config.index_n_heads
        self.width, self.rope = config.index_head_dim, config.qk_rope_head_dim
        ### BEGIN SOLUTION
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.width, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.width, bias=False)
        self.k_norm = nn.LayerNorm(self.width, eps=1e-6)
        ### END SOLUTION

    def rotate(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, H, T, width], table: [2, T, rope / 2] -> [B, H, T, width], the first rope channels rotated."""
        ### BEGIN SOLUTION
        first, others = x.split([self.rope, self.width - self.rope], dim=-1)
        turn = rotate_halves if self.config.model_type == "deepseek_v32" else apply_rope
        return torch.cat([turn(first, table), others], dim=-1)
        ### END SOLUTION

    def queries(self, latent: Tensor, table: Tensor) -> Tensor:
        """latent: [B, T, q_lora_rank], normed -> [B, H, T, width]."""
        ### BEGIN SOLUTION
        q = self.wq_b(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, width]
        return self.rotate(q, table)
        ### END SOLUTION

    def keys(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D] -> [B, T, width]: one key a token, for all heads."""
        ### BEGIN SOLUTION
        k = self.k_norm(self.wk(x))  # [B, T, width]
        return self.rotate(k[:, None], table)[:, 0]
        ### END SOLUTION

# %% check="sparse_attention.vectors" tags=["nbval-ignore-output"] id="check-sparse_attention-vectors"
check("sparse_attention.vectors", IndexVectors)

# %% exercise="sparse_attention.scores" id="sparse_attention-scores"
class Indexer(IndexVectors):
    """Says for each token which of those before it, itself included, are worth reading.

    score of token s for token t: sum over heads h of w_h(t) * relu(q_h(t) . k(s) / sqrt(index_head_dim)), in float32,
    with w(t) = weights_proj(x_t) / sqrt(index_n_heads). DeepSeek-V3.2 (2025), section 2.1, equation 1.
    Part besides IndexVectors': weights_proj (hidden_size -> index_n_heads), nn.Linear without bias.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        ### BEGIN SOLUTION
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)
        ### END SOLUTION

    def scores(self, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D], latent: [B, T, q_lora_rank], keys: [B, S, width] -> [B, T, S] float32. No mask."""
        ### BEGIN SOLUTION
        q = self.queries(latent, table)  # [B, H, T, width]
        dots = q.float() @ keys[:, None].float().mT * self.width**-0.5  # [B, H, T, S]
        weights = self.weights_proj(x).float() * self.heads**-0.5  # [B, T, H]
        return torch.einsum("bth,bhts->bts", weights, dots.relu())
        ### END SOLUTION

    def forward(self, x: Tensor, latent: Tensor, table: Tensor, cache: "IndexedCache | None" = None) -> Tensor:
        """The numbers of the chosen tokens, int64: [B, T, D] and [B, T, q_lora_rank] -> [B, T, min(index_topk, S)]."""
        new = self.keys(x, table)
        keys = new if cache is None else cache.append_keys(new)  # [B, S, width]
        return select(self.scores(x, latent, keys, table), self.config.index_topk)

# %% check="sparse_attention.scores" tags=["nbval-ignore-output"] id="check-sparse_attention-scores"
check("sparse_attention.scores", Indexer)

# %% exercise="sparse_attention.select" id="sparse_attention-select"
def select(scores: Tensor, k: int) -> Tensor:
    """For each token the numbers of the k tokens with the highest scores among those that it may see.

    The T queries belong to the last T of S tokens, and see themselves and what is before them. Where S is below k, all
    S numbers come back; where fewer than k tokens may be seen, all of those and, to fill the row, any later ones, which
    attention hides as ever. The order within a row is free.
    scores: [B, T, S] float32 -> [B, T, min(k, S)] int64.
    """
    ### BEGIN SOLUTION
    T, S = scores.shape[-2:]
    future = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(diagonal=S - T + 1)
    return scores.masked_fill(future, float("-inf")).topk(min(k, S), dim=-1).indices
    ### END SOLUTION

# %% check="sparse_attention.select" tags=["nbval-ignore-output"] id="check-sparse_attention-select"
check("sparse_attention.select", select)

# %% exercise="sparse_attention.attention" id="sparse_attention-attention"
class SparseAttention(Attention):
    """Latent attention to the tokens that an indexer has chosen; what was not chosen is masked.

    Part besides Attention's: indexer, an Indexer where has_indexer(config, layer), else None. The indexer reads the
    queries' latent after its norm, as q_b_proj does. A layer without one uses what an earlier layer chose.
    transformers: DeepseekV32Attention, GlmMoeDsaAttention.
    """

    def __init__(self, config: Config, layer: int = 0):
        super().__init__(config)
        ### BEGIN SOLUTION
        self.indexer = Indexer(config) if has_indexer(config, layer) else None
        ### END SOLUTION

    def queries_of(self, latent: Tensor, table: Tensor) -> Tensor:
        """The normed latent [B, T, q_lora_rank] -> [B, H, T, nope + rope], the rope channels rotated."""
        q = self.q_b_proj(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope, apply_rope(rope, table)], dim=-1)

    def keys_and_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rebuilt for each head: rows [B, S, rank + rope] -> [B, H, S, nope + rope], [B, H, S, v]."""
        latents, key = rows.split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, v = kv.split([self.nope, self.v], dim=-1)
        return torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1), v

    def forward(
        self, x: Tensor, table: Tensor, cache: "IndexedCache | None" = None, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x: [B, T, D], the last T of S tokens; chosen: [B, T, k], an earlier layer's -> [B, T, D], [B, T, k]."""
        ### BEGIN SOLUTION
        latent = self.q_a_layernorm(self.q_a_proj(x))  # [B, T, q_lora_rank]
        if self.indexer is not None:
            chosen = self.indexer(x, latent, table, cache)
        rows = self.rows_so_far(x, table, cache)  # [B, S, rank + rope]
        return self.attend(self.queries_of(latent, table), rows, chosen), chosen
        ### END SOLUTION

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope], rows: [B, S, rank + rope], chosen: [B, T, k] -> [B, T, D]."""
        k, v = self.keys_and_values(rows)
        ### BEGIN SOLUTION
        scores = q @ k.mT * softmax_scale(self.config)  # [B, H, T, S]
        left_out = torch.ones_like(scores[:, 0], dtype=torch.bool).scatter(-1, chosen, False)  # [B, T, S]
        weights = causal_softmax(scores.masked_fill(left_out[:, None], float("-inf")))
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))
        ### END SOLUTION

# %% check="sparse_attention.attention" tags=["nbval-ignore-output"] id="check-sparse_attention-attention"
check("sparse_attention.attention", SparseAttention)

# %% exercise="sparse_attention.gathered" id="sparse_attention-gathered"
class GatheredAttention(SparseAttention):
    """The same, computed with the chosen rows alone: they are picked from the cache first.

    Each token has rows of its own, so the absorbed form is used: queries are carried into the space of the latents,
    and every head attends to the picked rows themselves.
    """

    def absorbed(self, q: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope] -> [B, H, T, rank + rope], so that its products with rows are the scores."""
        W_UK = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))[:, : self.nope]  # [H, nope, rank]
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope @ W_UK, rope], dim=-1)

    def output(self, latents: Tensor) -> Tensor:
        """The weighted sums of latents [B, H, T, rank] -> [B, T, D]."""
        W_UV = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))[:, self.nope :]  # [H, v, rank]
        return self.o_proj((latents @ W_UV.mT).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope], rows: [B, S, rank + rope], chosen: [B, T, k] -> [B, T, D]."""
        q, (T, S) = self.absorbed(q), (q.shape[2], rows.shape[1])
        ### BEGIN SOLUTION
        batch = torch.arange(len(rows), device=rows.device)[:, None, None]
        picked = rows[batch, chosen]  # [B, T, k, rank + rope]
        scores = torch.einsum("bhtc,btkc->bhtk", q, picked) * softmax_scale(self.config)
        positions = torch.arange(S - T, S, device=rows.device)[:, None]  # [T, 1]
        scores = scores.masked_fill((chosen > positions)[:, None], float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        return self.output(torch.einsum("bhtk,btkr->bhtr", weights, picked[..., : self.rank]))
        ### END SOLUTION

# %% check="sparse_attention.gathered" tags=["nbval-ignore-output"] id="check-sparse_attention-gathered"
check("sparse_attention.gathered", GatheredAttention)

# %% exercise="sparse_attention.cache" id="sparse_attention-cache"
class IndexedCache(LatentCache):
    """The rows that one layer keeps, and beside them the indexer's keys.

    capacity: for how many tokens there is room from the start. indexed: whether the layer has an indexer; without one
    there is no room for index keys. Rows and index keys are appended by calls of their own, in either order.
    transformers: DynamicIndexedLayer.
    """

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ):
        super().__init__(config, batch, capacity, dtype)
        ### BEGIN SOLUTION
        self.index_keys = torch.zeros(batch, capacity if indexed else 0, config.index_head_dim, dtype=dtype)
        self.index_length = 0
        ### END SOLUTION

    def append_keys(self, new: Tensor) -> Tensor:
        """Keep index keys new [B, T, width] behind those there are; all so far come back: [B, S, width].

        Raises ValueError, and keeps nothing of it, where there is no room for all of `new`.
        """
        ### BEGIN SOLUTION
        end = self.index_length + new.shape[1]
        if end > self.index_keys.shape[1]:
            raise ValueError(f"{end} index keys do not fit into a cache for {self.index_keys.shape[1]}")
        self.index_keys[:, self.index_length : end] = new
        self.index_length = end
        return self.index_keys[:, :end]
        ### END SOLUTION

    def crop(self, length: int) -> None:
        """Forget every token from number `length` on, as after tokens that were guessed and not accepted."""
        ### BEGIN SOLUTION
        self.length = min(self.length, length)
        self.index_length = min(self.index_length, length)
        ### END SOLUTION

# %% check="sparse_attention.cache" tags=["nbval-ignore-output"] id="check-sparse_attention-cache"
check("sparse_attention.cache", IndexedCache)

# %% tags=["setup"] long="one class, with its shapes" id="setup-7"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP or experts; each reads a normalised copy of x and is added to x.

    x: [B, T, D], table: [2, T, rope / 2], chosen: the choice of the layer before, if any -> [B, T, D], its own choice.
    """

    def __init__(self, config: Config, layer: int, attention: type[nn.Module]):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MoE(config.replace(model_type="deepseek_v3")) if is_sparse(config, layer) else MLP(config)

    def forward(self, x: Tensor, table: Tensor, cache=None, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed, chosen = self.self_attn(self.input_layernorm(x), table, cache, chosen)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), chosen

# %% exercise="sparse_attention.model" id="sparse_attention-model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (nn.Embedding), layers (nn.ModuleList of DecoderLayer), norm (config.rms_norm_eps).
    A layer without an indexer gets what the layers before it chose last.
    attention: the class that its layers use. transformers: DeepseekV32Model, GlmMoeDsaModel.
    """

    def __init__(self, config: Config, attention: type[nn.Module] = SparseAttention):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = (DecoderLayer(config, i, attention) for i in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, ids: Tensor, caches: "list[IndexedCache] | None" = None) -> Tensor:
        """ids: [B, T] int64, the tokens behind those in caches (one for each layer) -> [B, T, D]."""
        ### BEGIN SOLUTION
        x, chosen = self.embed_tokens(ids), None  # [B, T, D]
        start = caches[0].length if caches else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, self.config)
        for i, layer in enumerate(self.layers):
            x, chosen = layer(x, table, caches[i] if caches else None, chosen)
        return self.norm(x)
        ### END SOLUTION

# %% check="sparse_attention.model" tags=["nbval-ignore-output"] id="check-sparse_attention-model"
check("sparse_attention.model", Model)

# %% exercise="sparse_attention.costs" id="sparse_attention-costs"
def costs(config: Config, tokens: int, element_bytes: int = 2) -> tuple[int, int]:
    """What attention costs a model whose cache has `tokens` tokens: the multiply-adds of the newest, the cache's bytes.

    Multiply-adds: those that grow with the tokens read, in all layers, in the absorbed form. A head reads a row with
    kv_lora_rank + qk_rope_head_dim of them for the score and kv_lora_rank for the sum. An index head reads a key with
    index_head_dim, and one more for its weight. The newest token is one of `tokens` and reads itself too.
    Bytes: the rows of all layers, and the index keys of those layers that have an indexer.
    A config without index_topk reads every row and has no indexer.
    """
    ### BEGIN SOLUTION
    layers, row = config.num_hidden_layers, config.kv_lora_rank + config.qk_rope_head_dim
    per_row = config.num_attention_heads * (row + config.kv_lora_rank)
    if not config.get("index_topk"):
        return layers * tokens * per_row, tokens * layers * row * element_bytes
    full = sum(has_indexer(config, i) for i in range(layers))
    indexed = full * tokens * config.index_n_heads * (config.index_head_dim + 1)
    numbers = layers * row + full * config.index_head_dim
    return indexed + layers * min(tokens, config.index_topk) * per_row, tokens * numbers * element_bytes
    ### END SOLUTION

# %% check="sparse_attention.costs" tags=["nbval-ignore-output"] id="check-sparse_attention-costs"
check("sparse_attention.costs", costs)


# %% given="05-mla mla.generate" jupyter={"source_hidden": true} id="given-05-mla-mla-generate"
@torch.no_grad()
def generate(
    model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt, read in one call. No token is read twice, and the caches have room for
    the prompt and max_new_tokens, not more. Ends after max_new_tokens, or once one of
    end_tokens has been yielded. model: has caches(batch, capacity), and is called with ids and the caches.
    """
    caches = model.caches(1, ids.shape[1] + max_new_tokens)
    for _ in range(max_new_tokens):
        ids = model(ids, caches)[:, -1].argmax(dim=-1, keepdim=True)  # [1, T] -> [1, 1]
        token = ids.item()
        yield token
        if token in end_tokens:
            return
