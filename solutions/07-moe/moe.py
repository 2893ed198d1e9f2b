# %% [markdown]
# # 07 · Mixture of experts: more parameters, the same work
#
# INTRO

# %% tags=["setup"]
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% tags=["setup"]
def num_experts(config: Config) -> int:
    """How many routed experts a layer has: each family has its own name for the field."""
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    return next(config[name] for name in names if name in config)


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, has experts in place of one MLP."""
    if config.model_type == "deepseek_v3":
        return layer >= config.first_k_dense_replace
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    return layer not in dense and (layer + 1) % step == 0

# %% tags=["setup"]
def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true}
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
# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true}
def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """The cosine and the sine of every angle by which RoPE rotates (Su et al., 2021, section 3.2.2).

    Pair i of head_dim / 2 rotates by positions * theta^(-2 i / head_dim), computed in float32: positions
    can be in the thousands, which bfloat16 and float16 can't hold. It is made of channels i and
    i + head_dim / 2, so a row has the angles of all pairs, then the same again.
    positions: [T] int64 -> [2, T, head_dim] float32: cosines, sines. transformers: Qwen3RotaryEmbedding.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim  # [head_dim / 2]
    frequencies = 1.0 / theta**exponents
    angles = positions.float()[:, None] * frequencies  # [T, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)  # [T, head_dim]
    return torch.stack([angles.cos(), angles.sin()])
# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true}
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate every pair of channels (i, i + head_dim / 2) by its angle.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, head_dim], table: [2, T, head_dim] -> [B, H, T, head_dim]. transformers: apply_rotary_pos_emb.
    """
    cos, sin = table.to(x.dtype)  # 2 x [T, head_dim]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, head_dim / 2]
    turned = torch.cat([-b, a], dim=-1)  # [B, H, T, head_dim]
    return x * cos + turned * sin
# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true}
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
# %% given="03-qwen3 qwen3.attention" jupyter={"source_hidden": true}
class Attention(nn.Module):
    """Causal self-attention with grouped queries and RoPE; in Qwen3 with norms on q and k.

    Parts: q_proj, k_proj, v_proj, o_proj, without biases; q_norm and k_norm, RMSNorms over head_dim with
    config.rms_norm_eps where config.model_type is "qwen3", else nn.Identity.
    q_proj's output has the H = num_attention_heads heads side by side, head_dim(config) channels each.
    x: [B, T, D], table: [2, T, head_dim] -> [B, T, D]. transformers: Qwen3Attention; Ainslie et al. (2023).
    """

    def __init__(self, config: Config):
        super().__init__()
        D, H, KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.head_dim = head_dim(config)
        self.group = H // KV  # how many query heads share a key and value head
        self.q_proj = nn.Linear(D, H * self.head_dim, bias=False)
        self.k_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.v_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.o_proj = nn.Linear(H * self.head_dim, D, bias=False)
        normed = config.model_type == "qwen3"
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))  # [B, KV, ...] -> [B, H, ...]
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5  # [B, H, T, T]
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)  # [T, T]
        scores = scores.masked_fill(future, float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, -1)  # [B, T, H * head_dim]
        return self.o_proj(mixed)
# %% given="03-qwen3 qwen3.decoder_layer" jupyter={"source_hidden": true}
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of x and is added to x.

    Parts: input_layernorm, self_attn, post_attention_layernorm, mlp; the norms with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim] -> [B, T, D]. transformers: Qwen3DecoderLayer.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table)
        return x + self.mlp(self.post_attention_layernorm(x))


# %% exercise="moe.softmax_router"
class SoftmaxRouter(nn.Module):
    """Choose k experts for each token, and how much each counts: Qwen3-MoE's router.

    Scores: the softmax over *all* experts of x W^T, in float32. The k experts with the highest scores are chosen, and
    their scores are their weights; where config.norm_topk_prob is true, divided by their sum.
    Part: weight, an nn.Parameter [num_experts(config), hidden_size]. k is config.num_experts_per_tok.
    x: [N, D] -> weights [N, k] in x's dtype, numbers of the chosen experts [N, k] int64; both in the same order,
    whichever it is. transformers: Qwen3MoeTopKRouter; Shazeer et al. (2017), section 2.1.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.top_k, self.normed = config.num_experts_per_tok, config.norm_topk_prob
        self.weight = nn.Parameter(torch.zeros(num_experts(config), config.hidden_size))
        ### END SOLUTION

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        logits = F.linear(x, self.weight)  # [N, D] -> [N, E]
        scores = logits.softmax(dim=-1, dtype=torch.float32)
        weights, chosen = scores.topk(self.top_k, dim=-1)  # 2 x [N, k]
        if self.normed:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights.to(x.dtype), chosen
        ### END SOLUTION

# %% check="moe.softmax_router" tags=["nbval-ignore-output"]
check("moe.softmax_router", SoftmaxRouter)

# %% exercise="moe.sigmoid_router"
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
        ### BEGIN SOLUTION
        self.config = config
        self.weight = nn.Parameter(torch.zeros(num_experts(config), config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(num_experts(config)))
        ### END SOLUTION

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
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
        ### END SOLUTION

# %% check="moe.sigmoid_router" tags=["nbval-ignore-output"]
check("moe.sigmoid_router", SigmoidRouter)

# %% exercise="moe.experts"
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
        ### BEGIN SOLUTION
        E, D, width = num_experts(config), config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.zeros(E, 2 * width, D))
        self.down_proj = nn.Parameter(torch.zeros(E, D, width))
        ### END SOLUTION

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        output = torch.zeros_like(x)
        for expert in range(len(self.down_proj)):
            token, place = torch.where(chosen == expert)  # 2 x [n]: the n tokens that chose it
            gate, up = F.linear(x[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            given = F.linear(F.silu(gate) * up, self.down_proj[expert])  # [n, D]
            output.index_add_(0, token, (given * weights[token, place, None]).to(x.dtype))
        return output
        ### END SOLUTION

# %% check="moe.experts" tags=["nbval-ignore-output"]
check("moe.experts", Experts)

# %% exercise="moe.sorted_experts"
class SortedExperts(Experts):
    """The same experts; the rows are sorted by expert first, and each expert works on a run of neighbouring rows.

    At most 8 operations pick rows by number or add them, however many experts there are; slicing is none of them.
    Parts, arguments and result are those of Experts. transformers: grouped_mm_experts_forward in integrations/moe.py.
    """

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        order = chosen.flatten().argsort(stable=True)  # [N * k]: the pairs of token and expert, by expert
        token = order // chosen.shape[1]  # [N * k]: which token each pair belongs to
        counts = chosen.flatten().bincount(minlength=len(self.down_proj)).tolist()
        given = []
        for expert, rows in enumerate(x[token].split(counts)):  # [n, D]
            gate, up = F.linear(rows, self.gate_up_proj[expert]).chunk(2, dim=-1)
            given.append(F.linear(F.silu(gate) * up, self.down_proj[expert]))
        weighted = torch.cat(given) * weights.flatten()[order, None]  # [N * k, D]
        return torch.zeros_like(x).index_add(0, token, weighted.to(x.dtype))
        ### END SOLUTION

# %% check="moe.sorted_experts" tags=["nbval-ignore-output"]
check("moe.sorted_experts", SortedExperts)

# %% exercise="moe.layer"
class MoE(nn.Module):
    """What stands in a layer in place of its MLP: a router, its experts and, in DeepSeek-V3, a shared expert.

    Parts: gate (SigmoidRouter where config.model_type is "deepseek_v3", else SoftmaxRouter), experts (Experts) and, in
    DeepSeek-V3 alone, shared_experts: one MLP, n_shared_experts * moe_intermediate_size wide, that every token goes
    through; its output is added as it is.
    x: [B, T, D] -> [B, T, D]. transformers: Qwen3MoeSparseMoeBlock, DeepseekV3MoE.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        deepseek = config.model_type == "deepseek_v3"
        self.gate = SigmoidRouter(config) if deepseek else SoftmaxRouter(config)
        self.experts = Experts(config)
        width = config.moe_intermediate_size * config.get("n_shared_experts", 0)
        self.shared_experts = MLP(config.replace(intermediate_size=width)) if deepseek else None
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        rows = x.flatten(0, 1)  # [B * T, D]
        weights, chosen = self.gate(rows)
        routed = self.experts(rows, chosen, weights).view_as(x)
        return routed if self.shared_experts is None else routed + self.shared_experts(x)
        ### END SOLUTION

# %% check="moe.layer" tags=["nbval-ignore-output"]
check("moe.layer", MoE)

# %% exercise="moe.model"
class Model(nn.Module):
    """Qwen3-MoE without its head: Qwen3's layers, in the sparse ones of which `mlp` is a MoE.

    Parts: embed_tokens, layers (nn.ModuleList of DecoderLayer), norm. is_sparse(config, i) says whether layer i is
    sparse. Attention makes its norms on q and k where model_type is "qwen3": hand it config.replace(model_type="qwen3").
    ids: [B, T] int64 -> [B, T, D]. transformers: Qwen3MoeModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        dense = config.replace(model_type="qwen3")
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(dense) for _ in range(config.num_hidden_layers))
        for i, layer in enumerate(self.layers):
            if is_sparse(config, i):
                layer.mlp = MoE(config)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x = self.embed_tokens(ids)  # [B, T, D]
        positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, head_dim(self.config), rope_theta(self.config))
        for layer in self.layers:
            x = layer(x, table)  # [B, T, D]
        return self.norm(x)
        ### END SOLUTION

# %% check="moe.model" tags=["nbval-ignore-output"]
check("moe.model", Model)

# %% exercise="moe.parameters"
def mlp_parameters(config: Config) -> tuple[int, int]:
    """The parameters of all MLPs, routers, routed and shared experts of a model: all, and those one token goes through.

    A gated MLP has three matrices. Layers that are not sparse have one MLP of intermediate_size. A bias for the choice is
    no parameter. Counts for Qwen3-MoE and DeepSeek-V3; where there is no shared expert, n_shared_experts is missing.
    """
    ### BEGIN SOLUTION
    D, E = config.hidden_size, num_experts(config)
    expert = 3 * D * config.moe_intermediate_size
    sparse = sum(is_sparse(config, i) for i in range(config.num_hidden_layers))
    dense = (config.num_hidden_layers - sparse) * 3 * D * config.intermediate_size
    always = dense + sparse * (E * D + config.get("n_shared_experts", 0) * expert)
    return always + sparse * E * expert, always + sparse * config.num_experts_per_tok * expert
    ### END SOLUTION

# %% check="moe.parameters" tags=["nbval-ignore-output"]
check("moe.parameters", mlp_parameters)

# %% exercise="moe.bytes_read"
def bytes_read(config: Config, tokens: int, element_bytes: int = 2) -> float:
    """The bytes of weights that the MLPs of a model read, on average, for `tokens` tokens that are computed at once.

    What every token needs is read once. An expert is read once if one of the tokens chose it, and not at all if none
    did. Suppose that every token chooses its k experts in each layer at random, all E alike.
    """
    ### BEGIN SOLUTION
    total, active = mlp_parameters(config)
    E, k = num_experts(config), config.num_experts_per_tok
    experts = (total - active) * E / (E - k)  # the routed experts of all layers
    chosen = 1 - (1 - k / E) ** tokens  # the chance that an expert is chosen by one of the tokens
    return (total - experts * (1 - chosen)) * element_bytes
    ### END SOLUTION

# %% check="moe.bytes_read" tags=["nbval-ignore-output"]
check("moe.bytes_read", bytes_read)
