"""The reference of every capstone: one program that a config drives. What it computes is what a learner has to find."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader.config import Config
from grader.steps import step

ACTIVATIONS: dict[str, Any] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}
SOFTMAX = ("full_attention", "sliding_attention")


class LayerCache:
    """What one layer keeps of a text: keys and values, or latents and rotated keys, or the states of a linear layer."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def append(self, **new: Tensor) -> list[Tensor]:
        """Put new tensors [B, ..., T, width] behind those of the same name, and give all."""
        for name, tensor in new.items():
            before = self.kept.get(name)
            self.kept[name] = tensor if before is None else torch.cat((before, tensor), dim=-2)
        return [self.kept[name] for name in new]


class Cache:
    """What all layers keep, and of how many tokens."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.length = 0


# Parts


class Norm(nn.Module):
    """RMSNorm or LayerNorm, as the config has it, over the last `dim` channels."""

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.layer = config.norm_type == "layer_norm"
        self.eps = config.layer_norm_eps if self.layer else config.rms_norm_eps
        self.zero_centered = config.zero_centered_norm
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if self.layer and config.layer_norm_bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.layer:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        x = x * (1 + self.weight if self.zero_centered else self.weight)
        return x if self.bias is None else x + self.bias


class GatedNorm(nn.Module):
    """The norm of what a linear layer reads, with its gate behind it."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return x * self.weight * F.silu(gate)


def frequencies(config: Config, kind: str, width: int) -> tuple[Tensor, float]:
    """By how much each of width / 2 pairs turns from token to token in a layer of this kind, and a factor."""
    base = config.rope_theta
    if kind == "sliding_attention":
        base = config.get("rope_local_base_freq", base)
    pair = torch.arange(width // 2, dtype=torch.float32)
    plain = base ** (-2 * pair / width)
    scaling = config.get("rope_scaling")
    if not scaling or kind != "full_attention":
        return plain, 1.0
    slow = plain / scaling["factor"]
    if scaling["rope_type"] == "linear":
        return slow, 1.0

    def turns(times: float) -> float:
        length = scaling["original_max_position_embeddings"]
        return width * math.log(length / (2 * math.pi * times)) / (2 * math.log(base))

    low, high = turns(scaling["beta_fast"]), turns(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    share = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain * (1 - share) + slow * share, scaling["attention_factor"]


def rotated(x: Tensor, angles: Tensor, size: float, interleaved: bool) -> Tensor:
    """Turn pairs of the first channels of x [B, H, T, d] by angles [T, pairs]; the other channels stay as they are."""
    pairs = angles.shape[-1]
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    halves = turned.reshape(*turned.shape[:-1], *((pairs, 2) if interleaved else (2, pairs)))
    a, b = halves.unbind(-1 if interleaved else -2)
    cos, sin = angles.cos() * size, angles.sin() * size
    halves = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1 if interleaved else -2)
    return torch.cat((halves.flatten(-2), rest), dim=-1)


# Attention


class Softmax(nn.Module):
    """What both kinds of softmax attention share: RoPE, who sees whom, caps and sinks."""

    def __init__(self, config: Config, layer: int, width: int, rotary: int) -> None:
        super().__init__()
        self.kind = config.layer_types[layer]
        self.window = config.sliding_window if self.kind == "sliding_attention" else None
        self.scale = config.get("query_pre_attn_scalar", width) ** -0.5
        self.cap = config.get("attn_logit_softcapping")
        self.interleaved = config.rope_interleave
        self.turns = bool(config.get("no_rope_layers", [1] * config.num_hidden_layers)[layer])
        self.config, self.rotary = config, rotary
        sinks = config.get("attention_sinks")
        self.sinks = nn.Parameter(torch.zeros(config.num_attention_heads)) if sinks else None

    def turn(self, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Rotate queries and keys [B, heads, T, width] of the tokens from `start` on."""
        if self.turns:
            speed, size = frequencies(self.config, self.kind, self.rotary)
            angles = torch.arange(start, start + q.shape[-2])[:, None] * speed.to(q.dtype)
            q, k = (rotated(t, angles, size, self.interleaved) for t in (q, k))
        return step("rope", q, k)  # type: ignore[no-any-return]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, width] of the last T of S tokens, k and v [B, H, S, width] -> [B, T, H * width of v]."""
        scores = q @ k.mT * self.scale
        if self.cap:
            scores = self.cap * (scores / self.cap).tanh()
        T, S = scores.shape[-2:]
        behind = torch.arange(S - T, S)[:, None] - torch.arange(S)
        hidden = behind < 0 if self.window is None else (behind < 0) | (behind >= self.window)
        scores = scores.masked_fill(hidden, -math.inf)
        if self.sinks is not None:
            sink = self.sinks[:, None, None].expand(*scores.shape[:-1], 1)
            weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class GroupedAttention(Softmax):
    """Queries of all heads, keys and values of fewer."""

    def __init__(self, config: Config, layer: int) -> None:
        self.width = config.head_dim
        super().__init__(config, layer, self.width, round(self.width * config.get("partial_rotary_factor", 1)) // 2 * 2)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        D, bias, self.gated = config.hidden_size, config.attention_bias, config.get("attn_output_gate", False)
        queries, keys = self.heads * self.width, self.kv_heads * self.width
        self.q_proj = nn.Linear(D, queries * (2 if self.gated else 1), bias=bias)
        self.k_proj, self.v_proj = nn.Linear(D, keys, bias=bias), nn.Linear(D, keys, bias=bias)
        self.o_proj = nn.Linear(queries, D, bias=bias)
        self.over = config.qk_norm_over if config.use_qk_norm else None
        self.late = config.get("qk_norm_after_rope", False)
        if self.over:
            self.q_norm = Norm(config, self.width if self.over == "head" else queries)
            self.k_norm = Norm(config, self.width if self.over == "head" else keys)

    def normed(self, t: Tensor, norm: nn.Module) -> Tensor:
        """[B, heads, T, width], normed by head or over all heads of a token."""
        if self.over == "head":
            return norm(t)  # type: ignore[no-any-return]
        return norm(t.transpose(1, 2).flatten(2)).unflatten(-1, (-1, self.width)).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, start: int, cache: LayerCache) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (n, -1)).transpose(1, 2) for p, n in (
            (self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads)))  # fmt: skip
        gate = None
        if self.gated:
            q, gate = q.split(self.width, dim=-1)
        if self.over and not self.late:
            q, k = self.normed(q, self.q_norm), self.normed(k, self.k_norm)
        q, k = self.turn(q, k, start)
        if self.over and self.late:
            q, k = self.normed(q, self.q_norm), self.normed(k, self.k_norm)
        k, v = cache.append(keys=k, values=v)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        mixed = self.attend(q, k, v)
        if gate is not None:
            mixed = mixed * gate.transpose(1, 2).flatten(2).sigmoid()
        return self.o_proj(mixed)  # type: ignore[no-any-return]


class LatentAttention(Softmax):
    """Keys and values of all heads from one latent; one rotated key that all heads share."""

    def __init__(self, config: Config, layer: int) -> None:
        self.nope, self.rope, self.v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        super().__init__(config, layer, self.nope + self.rope, self.rope)
        D, H, self.rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
        self.heads, bias, queries = H, config.attention_bias, H * (self.nope + self.rope)
        self.narrow = config.q_lora_rank is not None
        if self.narrow:
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = Norm(config, config.q_lora_rank)
            self.q_b_proj = nn.Linear(config.q_lora_rank, queries, bias=False)
        else:
            self.q_proj = nn.Linear(D, queries, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(D, self.rank + self.rope, bias=bias)
        self.kv_a_layernorm = Norm(config, self.rank)
        self.kv_b_proj = nn.Linear(self.rank, H * (self.nope + self.v), bias=False)
        self.o_proj = nn.Linear(H * self.v, D, bias=bias)

    def forward(self, x: Tensor, start: int, cache: LayerCache) -> Tensor:
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.narrow else self.q_proj(x)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        latent, key = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        turned, key = self.turn(q[..., self.nope :], key[:, None], start)
        latents, key = cache.append(latents=self.kv_a_layernorm(latent)[:, None], keys=key)
        kv = self.kv_b_proj(latents[:, 0]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = torch.cat((kv[..., : self.nope], key.expand(-1, self.heads, -1, -1)), dim=-1)
        q = torch.cat((q[..., : self.nope], turned), dim=-1)
        return self.o_proj(self.attend(q, k, kv[..., self.nope :]))  # type: ignore[no-any-return]


class LinearAttention(nn.Module):
    """The gated delta rule behind a short convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.k_heads, self.v_heads = config.linear_num_key_heads, config.linear_num_value_heads
        self.d_k, self.d_v = config.linear_key_head_dim, config.linear_value_head_dim
        D, keys, values = config.hidden_size, self.k_heads * self.d_k, self.v_heads * self.d_v
        self.sizes = [keys, keys, values]
        self.in_proj_qkv = nn.Linear(D, 2 * keys + values, bias=False)
        self.in_proj_z = nn.Linear(D, values, bias=False)
        self.in_proj_b = nn.Linear(D, self.v_heads, bias=False)
        self.in_proj_a = nn.Linear(D, self.v_heads, bias=False)
        channels, kernel = 2 * keys + values, config.linear_conv_kernel_dim
        self.conv1d = nn.Conv1d(channels, channels, kernel, groups=channels, bias=False)
        self.A_log = nn.Parameter(torch.zeros(self.v_heads))
        self.dt_bias = nn.Parameter(torch.ones(self.v_heads))
        eps = config.layer_norm_eps if config.norm_type == "layer_norm" else config.rms_norm_eps
        self.norm = GatedNorm(self.d_v, eps)
        self.out_proj = nn.Linear(values, D, bias=False)

    def forward(self, x: Tensor, start: int, cache: LayerCache) -> Tensor:
        mixed = self.in_proj_qkv(x).mT  # [B, channels, T]
        earlier = cache.kept.get("conv", mixed.new_zeros(*mixed.shape[:2], self.conv1d.kernel_size[0] - 1))
        inputs = torch.cat((earlier, mixed), dim=-1)
        cache.kept["conv"] = inputs[..., mixed.shape[-1] :].clone()
        mixed = step("conv", F.silu(F.conv1d(inputs, self.conv1d.weight, groups=inputs.shape[1])).mT)
        q, k, v = mixed.split(self.sizes, dim=-1)
        q, k = (t.unflatten(-1, (self.k_heads, -1)) for t in (q, k))
        q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
        q, k = (t.repeat_interleave(self.v_heads // self.k_heads, dim=2) for t in (q * self.d_k**-0.5, k))
        v, beta = v.unflatten(-1, (self.v_heads, -1)), self.in_proj_b(x).sigmoid()
        keep = (-self.A_log.exp() * F.softplus(self.in_proj_a(x) + self.dt_bias)).exp()  # [B, T, v_heads]
        state = cache.kept.get("recurrent", v.new_zeros(x.shape[0], self.v_heads, self.d_k, self.d_v))
        read = []
        for t in range(x.shape[1]):
            state = state * keep[:, t, :, None, None]
            key = k[:, t, :, None]  # [B, v_heads, 1, d_k]
            state = state + key.mT @ ((v[:, t, :, None] - key @ state) * beta[:, t, :, None, None])
            read.append(q[:, t, :, None] @ state)
        cache.kept["recurrent"] = state
        z = self.in_proj_z(x).unflatten(-1, (self.v_heads, -1))
        return self.out_proj(self.norm(torch.stack(read, dim=1)[..., 0, :], z).flatten(2))  # type: ignore[no-any-return]


# MLPs


class MLP(nn.Module):
    """Two or three linear maps."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        D, bias, self.act = config.hidden_size, config.mlp_bias, ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(D, width, bias=bias) if config.gated_mlp else None
        self.up_proj, self.down_proj = nn.Linear(D, width, bias=bias), nn.Linear(width, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        inner = self.act(up) if self.gate_proj is None else self.act(self.gate_proj(x)) * up
        return self.down_proj(inner)  # type: ignore[no-any-return]


class Router(nn.Module):
    """Which experts a token goes to, and how much each counts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.sigmoid = config, config.scoring_func == "sigmoid"
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        biased = config.get("use_expert_bias")
        self.register_buffer("e_score_correction_bias", torch.zeros(config.num_experts) if biased else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        config, logits = self.config, F.linear(x, self.weight)
        scores = logits.sigmoid() if self.sigmoid else logits.softmax(-1)
        bias: Any = self.e_score_correction_bias
        choice: Tensor = scores if bias is None else scores + bias
        if config.get("n_group"):
            groups = choice.view(len(choice), config.n_group, -1)  # [N, groups, experts of one]
            best = groups.topk(2, dim=-1)[0].sum(-1).topk(config.topk_group, dim=-1)[1]
            kept = F.one_hot(best, config.n_group).sum(-2).bool()
            choice = groups.masked_fill(~kept[..., None], -math.inf).flatten(-2)
        chosen = choice.topk(config.num_experts_per_tok, dim=-1)[1]
        weights = scores.gather(-1, chosen)
        if config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights * config.get("routed_scaling_factor", 1), chosen


class Experts(nn.Module):
    """The MLPs of all experts, stacked."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        E, D, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.act, self.gated = ACTIVATIONS[config.hidden_act], config.gated_mlp
        if self.gated:
            self.gate_up_proj = nn.Parameter(torch.zeros(E, 2 * width, D))
        else:
            self.up_proj = nn.Parameter(torch.zeros(E, width, D))
        self.down_proj = nn.Parameter(torch.zeros(E, D, width))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        if self.gated:
            gate, up = torch.einsum("nd,efd->nef", x, self.gate_up_proj).chunk(2, dim=-1)
            inner = self.act(gate) * up
        else:
            inner = self.act(torch.einsum("nd,efd->nef", x, self.up_proj))
        every = torch.einsum("nef,edf->ned", inner, self.down_proj)  # each expert's answer for each token: it is small
        shares = torch.zeros(every.shape[:2], dtype=x.dtype).scatter(-1, chosen, weights)
        return (shares[..., None] * every).sum(1)


class MoE(nn.Module):
    """A router, its experts, and an MLP that every token goes through."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate, self.experts = Router(config), Experts(config)
        shared = config.get("n_shared_experts", 0)
        self.shared_experts = MLP(config, shared * config.moe_intermediate_size) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        weights, chosen = self.gate(flat)
        output = self.experts(flat, chosen, weights).view_as(x)
        return output if self.shared_experts is None else output + self.shared_experts(x)  # type: ignore[no-any-return]


# The model


class Layer(nn.Module):
    """A mixer of tokens and an MLP, with norms where the config has them."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        D, self.places, self.scale = config.hidden_size, config.norm_placement, config.get("residual_multiplier", 1)
        self.linear = config.layer_types[layer] == "linear_attention"
        if self.linear:
            self.linear_attn = LinearAttention(config)
        else:
            latent = config.get("kv_lora_rank")
            self.self_attn = LatentAttention(config, layer) if latent else GroupedAttention(config, layer)
        sparse = config.get("num_experts") and layer >= config.get("first_k_dense_replace", 0)
        self.mlp = MoE(config) if sparse else MLP(config, config.intermediate_size)
        if self.places != "post":
            self.input_layernorm = Norm(config, D)
        self.post_attention_layernorm = Norm(config, D)
        if self.places == "both":
            self.pre_feedforward_layernorm = Norm(config, D)
        if self.places != "pre":
            self.post_feedforward_layernorm = Norm(config, D)

    def forward(self, x: Tensor, start: int, cache: LayerCache) -> Tensor:
        mixer = self.linear_attn if self.linear else self.self_attn
        if self.places == "pre":
            x = x + self.scale * mixer(self.input_layernorm(x), start, cache)
            return x + self.scale * self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]
        inner = x if self.places == "post" else self.input_layernorm(x)
        x = x + self.scale * self.post_attention_layernorm(mixer(inner, start, cache))
        inner = x if self.places == "post" else self.pre_feedforward_layernorm(x)
        return x + self.scale * self.post_feedforward_layernorm(self.mlp(inner))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Everything but the head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.scale = config.get("embedding_multiplier", 1)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config, config.hidden_size)

    def forward(self, ids: Tensor, cache: Cache) -> Tensor:
        x = self.embed_tokens(ids) * self.scale
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            x = layer(x, cache.length, kept)
        cache.length += ids.shape[1]
        return self.norm(x)  # type: ignore[no-any-return]


class Model(nn.Module):
    """Token ids [B, T] to logits [B, T, vocab_size]; with a cache, of the tokens behind those that it holds."""

    base_model_prefix = "model"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.cap, self.divided_by = config.get("final_logit_softcapping"), config.get("logits_scaling", 1)
        self.layers_held = config.num_hidden_layers
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """A cache without tokens."""
        return Cache(self.layers_held)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        logits = self.lm_head(self.model(ids, self.new_cache(*ids.shape) if cache is None else cache))
        logits = logits / self.divided_by
        return self.cap * (logits / self.cap).tanh() if self.cap else logits  # type: ignore[no-any-return]

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding, whose rows a small model fills with unequal sizes."""
        return self.model.embed_tokens
