"""A program for any capstone, put together from the lessons' solutions as a learner would.

It was written from the words of the README, and reads a config and no trace. Where no lesson's part fits, it has one.
"""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from solved import solved
from torch import Tensor, nn

from grader.config import Config


@cache
def lesson(name: str) -> dict[str, Any]:
    return solved(name).solutions


def qwen3() -> dict[str, Any]:
    return lesson("03-qwen3")


def eps_of(config: Config) -> float:
    return config.get("rms_norm_eps") or config.layer_norm_eps


class LayerNorm(nn.Module):
    """Lesson 01's, with the config's eps, and without a bias where there is none."""

    def __init__(self, dim: int, eps: float, bias: bool):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


def norm(config: Config, dim: int) -> nn.Module:
    if config.norm_type == "layer_norm":
        return LayerNorm(dim, config.layer_norm_eps, config.layer_norm_bias)
    family = lesson("04-gemma3") if config.zero_centered_norm else qwen3()
    return family["RMSNorm"](dim, config.rms_norm_eps)


class Memory:
    """What a layer keeps: as many tokens as it can still see, or a linear layer's states."""

    def __init__(self, most: int | None):
        self.most, self.length = most, 0
        self.tensors: tuple[Tensor, ...] = ()
        self.states = lesson("10-linear-attention")["LayerState"]()

    def with_new(self, *new: Tensor) -> list[Tensor]:
        """Tensors [B, T, ...] behind those of before."""
        every = [torch.cat(pair, 1) for pair in zip(self.tensors, new, strict=True)] if self.tensors else list(new)
        self.length += new[0].shape[1]
        self.tensors = tuple(t[:, -self.most :] if self.most else t for t in every)
        return every


def table_of(config: Config, kind: str, positions: Tensor, width: int) -> Tensor:
    theta = config.rope_theta
    if kind == "sliding_attention":
        theta = config.get("rope_local_base_freq", theta)
    scaling = config.get("rope_scaling")
    if scaling and kind == "full_attention":
        if scaling["rope_type"] == "yarn":
            return lesson("11-new-models")["yarn_table"](positions, width, theta, scaling)
        positions = positions / scaling["factor"]
    return qwen3()["rope_table"](positions, width, theta)


def turned(config: Config, x: Tensor, table: Tensor, in_place: bool = False) -> Tensor:
    """x [B, H, T, d], of which the first channels are rotated.

    Lesson 05's way puts the pairs' halves beside each other: where queries meet keys that makes no difference.
    """
    width = table.shape[-1]
    some, rest = x[..., :width], x[..., width:]
    if config.rope_interleave:
        some = lesson("05-mla")["apply_rope"](some, table[..., : width // 2])
        some = torch.stack(some.chunk(2, dim=-1), dim=-1).flatten(-2) if in_place else some
    else:
        some = qwen3()["apply_rope"](some, table)
    return torch.cat([some, rest], dim=-1)


def weights_of(config: Config, scores: Tensor, window: int | None, sinks: Tensor | None) -> Tensor:
    """Scores [B, H, T, S] of the last T tokens, already scaled, to weights."""
    cap = config.get("attn_logit_softcapping")
    if cap:
        scores = torch.tanh(scores / cap) * cap
    T, S = scores.shape[-2:]
    seen = lesson("04-gemma3")["visible"](S, window)[S - T :]
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is None:
        return scores.softmax(dim=-1)
    largest = torch.maximum(scores.amax(-1, keepdim=True), sinks.view(-1, 1, 1))
    powers = (scores - largest).exp()
    return powers / (powers.sum(-1, keepdim=True) + (sinks.view(-1, 1, 1) - largest).exp())


class Attention(nn.Module):
    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.config, self.kind, self.D = config, config.layer_types[layer], config.head_dim
        self.rotates = config.get("no_rope_layers", [1] * config.num_hidden_layers)[layer]
        H, KV, D, bias = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.hidden_size,
            config.attention_bias,
        )
        self.gated = config.get("attn_output_gate")
        self.q_proj = nn.Linear(D, H * self.D * (2 if self.gated else 1), bias)
        self.k_proj, self.v_proj = nn.Linear(D, KV * self.D, bias), nn.Linear(D, KV * self.D, bias)
        self.o_proj = nn.Linear(H * self.D, D, bias)
        if config.use_qk_norm:
            heads = (1, 1) if config.qk_norm_over == "head" else (H, KV)
            self.q_norm, self.k_norm = (norm(config, n * self.D) for n in heads)
        self.sinks = nn.Parameter(torch.zeros(H)) if config.get("attention_sinks") else None

    def normed(self, t: Tensor, its_norm: nn.Module) -> Tensor:
        if self.config.qk_norm_over == "head":
            return its_norm(t)
        return its_norm(t.flatten(2)).view_as(t)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        config, D = self.config, self.D
        B, T, _ = x.shape
        q, k, v = (project(x).view(B, T, -1, D) for project in (self.q_proj, self.k_proj, self.v_proj))
        if self.gated:
            q, gate = self.q_proj(x).view(B, T, -1, 2 * D).chunk(2, dim=-1)
        late = config.use_qk_norm and config.qk_norm_after_rope
        if config.use_qk_norm and not late:
            q, k = self.normed(q, self.q_norm), self.normed(k, self.k_norm)
        if self.rotates:
            positions = torch.arange(memory.length, memory.length + T)
            table = table_of(config, self.kind, positions, int(D * config.get("partial_rotary_factor", 1.0) + 0.5))
            q, k = (turned(config, t.transpose(1, 2), table, late).transpose(1, 2) for t in (q, k))
        if late:
            q, k = self.normed(q, self.q_norm), self.normed(k, self.k_norm)
        k, v = memory.with_new(k, v)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(config.get("query_pre_attn_scalar") or D)
        window = config.sliding_window if self.kind == "sliding_attention" else None
        mixed = (weights_of(config, scores, window, self.sinks) @ v).transpose(1, 2)
        if self.gated:
            mixed = mixed * gate.sigmoid()
        return self.o_proj(mixed.flatten(2))


class Latent(nn.Module):
    """Lesson 05's attention on the latents themselves."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.config, self.kind, self.H = config, config.layer_types[layer], config.num_attention_heads
        self.rotates = config.get("no_rope_layers", [1] * config.num_hidden_layers)[layer]
        self.parts = [config.qk_nope_head_dim, config.qk_rope_head_dim]
        D, bias, rank, width = config.hidden_size, config.attention_bias, config.kv_lora_rank, sum(self.parts)
        if config.q_lora_rank:
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias)
            self.q_a_layernorm = norm(config, config.q_lora_rank)
            self.q_b_proj = nn.Linear(config.q_lora_rank, self.H * width, False)
        else:
            self.q_proj = nn.Linear(D, self.H * width, False)
        self.kv_a_proj_with_mqa = nn.Linear(D, rank + self.parts[1], bias)
        self.kv_a_layernorm = norm(config, rank)
        self.kv_b_proj = nn.Linear(rank, self.H * (self.parts[0] + config.v_head_dim), False)
        self.o_proj = nn.Linear(self.H * config.v_head_dim, D, bias)
        self.sinks = nn.Parameter(torch.zeros(self.H)) if config.get("attention_sinks") else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        config, (nope, rope) = self.config, self.parts
        B, T, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if config.q_lora_rank else self.q_proj(x)
        still, moving = q.view(B, T, self.H, -1).transpose(1, 2).split(self.parts, dim=-1)
        latent, key = self.kv_a_proj_with_mqa(x).split([config.kv_lora_rank, rope], dim=-1)
        if self.rotates:
            positions = torch.arange(memory.length, memory.length + T)
            table = table_of(config, self.kind, positions, rope)
            moving, key = turned(config, moving, table), turned(config, key[:, None], table)[:, 0]
        latents, keys = memory.with_new(self.kv_a_layernorm(latent), key)
        W_UK, W_UV = self.kv_b_proj.weight.view(self.H, -1, config.kv_lora_rank).split([nope, config.v_head_dim], dim=1)
        scores = (still @ W_UK) @ latents[:, None].mT + moving @ keys[:, None].mT
        scores = scores * (config.get("query_pre_attn_scalar") or nope + rope) ** -0.5
        window = config.sliding_window if self.kind == "sliding_attention" else None
        mixed = weights_of(config, scores, window, self.sinks) @ latents[:, None] @ W_UV.mT
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


def activated(config: Config, x: Tensor) -> Tensor:
    if config.hidden_act == "relu2":
        return x.relu() ** 2
    return (
        F.silu(x)
        if config.hidden_act == "silu"
        else F.gelu(x, approximate="tanh" if "tanh" in config.hidden_act else "none")
    )


class MLP(nn.Module):
    def __init__(self, config: Config, width: int):
        super().__init__()
        self.config = config
        if config.gated_mlp:
            self.gate_proj = nn.Linear(config.hidden_size, width, config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, width, config.mlp_bias)
        self.down_proj = nn.Linear(width, config.hidden_size, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.config.gated_mlp:
            return self.down_proj(activated(self.config, self.up_proj(x)))
        return self.down_proj(activated(self.config, self.gate_proj(x)) * self.up_proj(x))


def mlp(config: Config, width: int) -> nn.Module:
    """Lesson 03's or 04's where it fits."""
    fits = config.gated_mlp and not config.mlp_bias
    family = {"silu": qwen3, "gelu_pytorch_tanh": lambda: lesson("04-gemma3")}.get(config.hidden_act)
    return family()["MLP"](config.replace(intermediate_size=width)) if fits and family else MLP(config, width)


class Experts(nn.Module):
    """Lesson 07's, for other activations and without a gate."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        E, D, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        if config.gated_mlp:
            self.gate_up_proj = nn.Parameter(torch.zeros(E, 2 * width, D))
        else:
            self.up_proj = nn.Parameter(torch.zeros(E, width, D))
        self.down_proj = nn.Parameter(torch.zeros(E, D, width))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        output = torch.zeros_like(x)
        for expert in range(len(self.down_proj)):
            token, place = torch.where(chosen == expert)
            if self.config.gated_mlp:
                gate, up = F.linear(x[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
                inner = activated(self.config, gate) * up
            else:
                inner = activated(self.config, F.linear(x[token], self.up_proj[expert]))
            output.index_add_(0, token, F.linear(inner, self.down_proj[expert]) * weights[token, place, None])
        return output


class MoE(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        moe = lesson("07-moe")
        if config.scoring_func == "softmax":
            self.gate = moe["SoftmaxRouter"](config)
        else:
            groups = {"n_group": config.get("n_group", 1), "topk_group": config.get("topk_group", 1)}
            self.gate = moe["SigmoidRouter"](config.replace(**groups))
            if not config.get("use_expert_bias"):
                zeros = torch.zeros(config.num_experts)
                self.gate.register_buffer("e_score_correction_bias", zeros, persistent=False)
        plain = config.gated_mlp and config.hidden_act == "silu"
        self.experts = moe["Experts"](config) if plain else Experts(config)
        if config.get("n_shared_experts"):
            self.shared_experts = mlp(config, config.n_shared_experts * config.moe_intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        weights, chosen = self.gate(rows)
        output = self.experts(rows, chosen, weights).view_as(x)
        return output + self.shared_experts(x) if hasattr(self, "shared_experts") else output


class Layer(nn.Module):
    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.share = config.get("residual_multiplier", 1.0)
        if config.layer_types[layer] == "linear_attention":
            self.linear_attn = lesson("10-linear-attention")["GatedDeltaNet"](
                config.replace(rms_norm_eps=eps_of(config))
            )
        else:
            self.self_attn = (Latent if config.get("kv_lora_rank") else Attention)(config, layer)
        dense = not config.get("num_experts") or layer < config.get("first_k_dense_replace", 0)
        self.mlp = mlp(config, config.intermediate_size) if dense else MoE(config)
        names = {"pre": ["input", "", "post_attention", ""], "post": ["", "post_attention", "", "post_feedforward"]}
        names["both"] = ["input", "post_attention", "pre_feedforward", "post_feedforward"]
        for name in filter(None, names[config.norm_placement]):
            setattr(self, f"{name}_layernorm", norm(config, config.hidden_size))
        self.names = [f"{name}_layernorm" if name else "" for name in names[config.norm_placement]]

    def normed(self, number: int, x: Tensor) -> Tensor:
        return getattr(self, self.names[number])(x) if self.names[number] else x

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        inner = self.normed(0, x)
        mixed = (
            self.linear_attn(inner, memory.states) if hasattr(self, "linear_attn") else self.self_attn(inner, memory)
        )
        x = x + self.share * self.normed(1, mixed)
        return x + self.share * self.normed(3, self.mlp(self.normed(2, x)))


class Decoder(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.factor = config.get("embedding_multiplier", 1.0)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm(config, config.hidden_size)

    def forward(self, ids: Tensor, memories: list[Memory]) -> Tensor:
        x = self.embed_tokens(ids) * self.factor
        for layer, memory in zip(self.layers, memories, strict=True):
            x = layer(x, memory)
        return self.norm(x)


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def new_cache(self, batch_size: int, capacity: int) -> list[Memory]:
        window = self.config.get("sliding_window")
        return [Memory(window if kind == "sliding_attention" else None) for kind in self.config.layer_types]

    def forward(self, ids: Tensor, cache: list[Memory] | None = None) -> Tensor:
        x = self.model(ids, self.new_cache(*ids.shape) if cache is None else cache)
        logits = self.lm_head(x) / self.config.get("logits_scaling", 1.0)
        cap = self.config.get("final_logit_softcapping")
        return torch.tanh(logits / cap) * cap if cap else logits
