"""Two right programs whose modules keep other contracts than the reference's, and bugs to plant in each.

`Hybrid` is a Qwen3-Next: the gate of its gated norm is multiplied outside, its router returns sorted choices and their
weights, its blocks are given tokens as [B T, D], and it names its delta rule. `Sparse` is a Mixtral with Meta's names:
tokens as [B T, D] throughout, RoPE over neighbours, norms that add the residual and return it, blocks that return what
is not added yet, and a router that returns a weight for every expert.
"""

import sys
from types import ModuleType
from typing import Any

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
from grader import step
"""

HYBRID = f"""{HEAD}

class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class PlainNorm(Norm):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    a, b = x[..., : cos.shape[-1]].chunk(2, -1)
    turned = x[..., : cos.shape[-1]] * cos + torch.cat((-b, a), -1) * sin
    return torch.cat((turned, x[..., cos.shape[-1] :]), -1)


class GatedAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv, self.d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, 2 * self.heads * self.d, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv * self.d, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.heads * self.d, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = Norm(self.d, c.rms_norm_eps), Norm(self.d, c.rms_norm_eps)

    def forward(self, x, angles, batch):
        N = len(x)
        q, gate = self.q_proj(x).view(batch, N // batch, self.heads, 2 * self.d).chunk(2, -1)
        k = self.k_proj(x).view(batch, N // batch, self.kv, self.d)
        v = self.v_proj(x).view(batch, N // batch, self.kv, self.d).transpose(1, 2)
        q, k = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2)
        cos, sin = angles
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))
        scores = q @ k.mT * self.d**-0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        o = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
        o = o.transpose(1, 2).reshape(N, -1)
        return self.o_proj(o * gate.reshape(N, -1).sigmoid())


class GatedDeltaNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.hk, self.hv = c.linear_num_key_heads, c.linear_num_value_heads
        self.dk, self.dv = c.linear_key_head_dim, c.linear_value_head_dim
        K, V = self.hk * self.dk, self.hv * self.dv
        self.in_proj_qkvz = nn.Linear(c.hidden_size, 2 * K + 2 * V, bias=False)
        self.in_proj_ba = nn.Linear(c.hidden_size, 2 * self.hv, bias=False)
        self.conv1d = nn.Conv1d(2 * K + V, 2 * K + V, c.linear_conv_kernel_dim, groups=2 * K + V, bias=False)
        self.dt_bias, self.A_log = nn.Parameter(torch.ones(self.hv)), nn.Parameter(torch.zeros(self.hv))
        self.norm = PlainNorm(self.dv, c.rms_norm_eps)
        self.out_proj = nn.Linear(V, c.hidden_size, bias=False)

    def forward(self, x, angles, batch):
        B, T, r = batch, len(x) // batch, self.hv // self.hk
        qkvz = self.in_proj_qkvz(x).view(B, T, self.hk, -1)
        q, k, v, z = qkvz.split([self.dk, self.dk, r * self.dv, r * self.dv], -1)
        ba = self.in_proj_ba(x).view(B, T, self.hk, 2 * r)
        b, a = ba[..., :r].reshape(B, T, self.hv), ba[..., r:].reshape(B, T, self.hv)
        mixed = torch.cat([t.reshape(B, T, -1) for t in (q, k, v)], -1)
        kernel = self.conv1d.weight.shape[-1]
        mixed = F.silu(self.conv1d(F.pad(mixed.mT, (kernel - 1, 0)))).mT
        K = self.hk * self.dk
        q, k, v = mixed.split([K, K, self.hv * self.dv], -1)
        q, k = (t.view(B, T, self.hk, self.dk).repeat_interleave(r, 2) for t in (q, k))
        v = v.view(B, T, self.hv, self.dv)
        beta = b.sigmoid()
        decay = -self.A_log.exp() * F.softplus(a + self.dt_bias)
        q, k = (t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        q = q * self.dk**-0.5
        state, outputs = x.new_zeros(B, self.hv, self.dk, self.dv), []
        for t in range(T):
            state = state * decay[:, t, :, None, None].exp()
            new = (v[:, t] - (state * k[:, t, :, :, None]).sum(-2)) * beta[:, t, :, None]
            state = state + k[:, t, :, :, None] * new[:, :, None]
            outputs.append((state * q[:, t, :, :, None]).sum(-2))
        o = step("delta_rule", torch.stack(outputs, 1))
        o = self.norm(o) * F.silu(z.reshape(B, T, self.hv, self.dv))
        return self.out_proj(o.reshape(B * T, -1))


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.k, self.weight = c.num_experts_per_tok, nn.Parameter(torch.empty(c.num_experts, c.hidden_size))

    def forward(self, x):
        p = F.linear(x, self.weight).softmax(-1)
        weights, chosen = p.topk(self.k, -1)
        chosen, order = chosen.sort(-1)
        weights = weights.gather(-1, order)
        return chosen, weights / weights.sum(-1, keepdim=True)


class Experts(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(c.num_experts, 2 * c.moe_intermediate_size, c.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(c.num_experts, c.hidden_size, c.moe_intermediate_size))

    def forward(self, x, chosen, weights):
        out = torch.zeros_like(x)
        for i in range(len(self.down_proj)):
            token, place = torch.where(chosen == i)
            gate, up = F.linear(x[token], self.gate_up_proj[i]).chunk(2, -1)
            given = F.linear(F.silu(gate) * up, self.down_proj[i])
            out.index_add_(0, token, given * weights[token, place, None])
        return out


class MLP(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(dim, inner, bias=False), nn.Linear(dim, inner, bias=False)
        self.down_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate, self.experts = Router(c), Experts(c)
        self.shared_expert = MLP(c.hidden_size, c.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(c.hidden_size, 1, bias=False)

    def forward(self, x):
        chosen, weights = self.gate(x)
        shared = self.shared_expert(x) * self.shared_expert_gate(x).sigmoid()
        return self.experts(x, chosen, weights) + shared


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        linear = c.layer_types[i] == "linear_attention"
        self.add_module("linear_attn" if linear else "self_attn", (GatedDeltaNet if linear else GatedAttention)(c))
        self.mlp = MoE(c)
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, angles, batch):
        mixer = self.linear_attn if hasattr(self, "linear_attn") else self.self_attn
        x = x + mixer(self.input_layernorm(x), angles, batch)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, ids):
        rope = self.c.rope_parameters
        d = int(self.c.head_dim * rope["partial_rotary_factor"])
        freqs = rope["rope_theta"] ** (-torch.arange(0, d, 2) / d)
        angles = torch.outer(torch.arange(ids.shape[1]), freqs).repeat(1, 2)
        x = self.embed_tokens(ids).flatten(0, 1)
        for layer in self.layers:
            x = layer(x, (angles.cos(), angles.sin()), len(ids))
        return self.norm(x)


class Hybrid(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids):
        return self.lm_head(self.model(ids)).view(*ids.shape, -1)
"""

SPARSE = f"""{HEAD}

class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x, residual=None):
        residual = x if residual is None else x + residual
        normed = residual * torch.rsqrt(residual.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return normed, residual


def apply_rotary_emb(q, k, freqs):
    q_, k_ = (torch.view_as_complex(t.unflatten(-1, (-1, 2)).contiguous()) for t in (q, k))
    return torch.view_as_real(q_ * freqs[:, None]).flatten(-2), torch.view_as_real(k_ * freqs[:, None]).flatten(-2)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv = c.num_attention_heads, c.num_key_value_heads
        self.d = c.head_dim
        self.wq = nn.Linear(c.hidden_size, self.heads * self.d, bias=False)
        self.wk = nn.Linear(c.hidden_size, self.kv * self.d, bias=False)
        self.wv = nn.Linear(c.hidden_size, self.kv * self.d, bias=False)
        self.wo = nn.Linear(self.heads * self.d, c.hidden_size, bias=False)

    def forward(self, x, freqs, mask):
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        q, k, v = (t.view(len(x), -1, self.d) for t in (q, k, v))
        q, k = apply_rotary_emb(q, k, freqs)
        k, v = (t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))
        scores = torch.einsum("nhd,mhd->hnm", q, k) / self.d**0.5
        p = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return self.wo(torch.einsum("hnm,mhd->nhd", p, v).flatten(1))


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.k, self.weight = c.num_experts_per_tok, nn.Parameter(torch.empty(c.num_local_experts, c.hidden_size))

    def forward(self, x):
        logits = x @ self.weight.T
        top = logits.topk(self.k, -1)
        return torch.zeros_like(logits).scatter(-1, top.indices, top.values.softmax(-1))


class Expert(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w1 = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.w2 = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)
        self.w3 = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate = Router(c)
        self.experts = nn.ModuleList(Expert(c) for _ in range(c.num_local_experts))

    def forward(self, x):
        weights, out = self.gate(x), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            used = weights[:, i] > 0
            out[used] += expert(x[used]) * weights[used, i, None]
        return out


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention, self.feed_forward = Attention(c), MoE(c)
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.ffn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, residual, freqs, mask):
        x, residual = self.attention_norm(x, residual)
        x = self.attention(x, freqs, mask)
        x, residual = self.ffn_norm(x, residual)
        return self.feed_forward(x), residual


class Sparse(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        self.tok_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.output = nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def forward(self, ids):
        c, (B, T) = self.config, ids.shape
        theta, positions = c.rope_parameters["rope_theta"], torch.arange(T).repeat(B)
        angles = torch.outer(positions, theta ** (-torch.arange(0, c.head_dim, 2) / c.head_dim))
        freqs = torch.polar(torch.ones_like(angles), angles)
        text = torch.arange(B).repeat_interleave(T)
        distance = positions[:, None] - positions
        mask = (text[:, None] == text) & (distance >= 0) & (distance < c.sliding_window)
        x, residual = self.tok_embeddings(ids).flatten(0, 1), None
        for layer in self.layers:
            x, residual = layer(x, residual, freqs, mask)
        x, _ = self.norm(x, residual)
        return self.output(x).unflatten(0, (B, T))
"""

SOURCES = {"Hybrid": HYBRID, "Sparse": SPARSE}
CONFIGS: dict[str, dict[str, Any]] = {
    "Hybrid": {
        "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "moe_intermediate_size": 512, "vocab_size": 151936,
        "num_experts": 16, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 4, "norm_topk_prob": True,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "layer_types": ["linear_attention", "full_attention"], "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000000, "partial_rotary_factor": 0.25, "rope_type": "default"},
    },
    "Sparse": {
        "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 14336, "vocab_size": 32000,
        "num_local_experts": 8, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
        "sliding_window": 4096, "max_position_embeddings": 32768, "tie_word_embeddings": False,
    },
}  # fmt: skip

Bug = tuple[str, str, str]  # what is replaced, by what, and the end of the path that is to be named
BUGS: dict[str, dict[str, Bug]] = {
    "Hybrid": {
        "the norms' 1 left out": ("(1 + self.weight)", "self.weight", "layers.0.input_layernorm"),
        "the gated norm without its weight": (
            "+ self.eps) * self.weight", "+ self.eps)", "layers.0.linear_attn.norm"),
        "the gated norm over sums": (
            "x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight",
            "x * torch.rsqrt(x.square().sum(-1, keepdim=True) + self.eps) * self.weight", "layers.0.linear_attn.norm"),
        "RoPE that turns backwards": ("torch.cat((-b, a), -1)", "torch.cat((b, -a), -1)", "layers.1.self_attn"),
        "scores not scaled": ("k.mT * self.d**-0.5", "k.mT", "layers.1.self_attn"),
        "an output gate of SiLU": (
            "o * gate.reshape(N, -1).sigmoid()", "o * F.silu(gate.reshape(N, -1))", "layers.1.self_attn"),
        "keys without their norm": ("self.k_norm(k).transpose", "k.transpose", "layers.1.self_attn"),
        "a mask that sees one token later": ("triu(1)", "triu(2)", "layers.1.self_attn"),
        "key and value heads in turns": (
            "(t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))",
            "(t.repeat(1, self.heads // self.kv, 1, 1) for t in (k, v))", "layers.1.self_attn"),
        "beta doubled": ("beta = b.sigmoid()", "beta = 2 * b.sigmoid()", "linear_attn:delta_rule"),
        "dt without its bias": ("F.softplus(a + self.dt_bias)", "F.softplus(a)", "linear_attn:delta_rule"),
        "queries not scaled": ("q = q * self.dk**-0.5", "q = q", "linear_attn:delta_rule"),
        "the state read before it is written": (
            "            state = state + k[:, t, :, :, None] * new[:, :, None]\n"
            "            outputs.append((state * q[:, t, :, :, None]).sum(-2))",
            "            outputs.append((state * q[:, t, :, :, None]).sum(-2))\n"
            "            state = state + k[:, t, :, :, None] * new[:, :, None]", "linear_attn:delta_rule"),
        "a convolution without its activation": ("F.silu(self.conv1d(", "(self.conv1d(", "linear_attn:delta_rule"),
        "a gate of sigmoid for SiLU": ("* F.silu(z.reshape", "* torch.sigmoid(z.reshape", "layers.0.linear_attn"),
        "the gate before the norm": (
            "self.norm(o) * F.silu(z.reshape(B, T, self.hv, self.dv))",
            "self.norm(o * F.silu(z.reshape(B, T, self.hv, self.dv)))", "layers.0.linear_attn"),
        "experts' weights not normalised": (
            "weights / weights.sum(-1, keepdim=True)", "weights", "layers.0.mlp.gate"),
        "choices sorted, and their weights not": (
            "weights = weights.gather(-1, order)", "pass", "layers.0.mlp.gate"),
        "the shared expert without its gate": (
            " * self.shared_expert_gate(x).sigmoid()", "", "layers.0.mlp"),
        "no residual connection around the experts": ("return x + self.mlp", "return self.mlp", "layers.0"),
    },
    "Sparse": {
        "norms without their eps": (" + self.eps)", ")", "layers.0.attention_norm"),
        "a norm of what is not added up": (
            "normed = residual * torch.rsqrt(residual.square()", "normed = x * torch.rsqrt(x.square()",
            "layers.0.ffn_norm"),
        "norms without their weight": (" * self.weight\n", "\n", "layers.0.attention_norm"),
        "RoPE that turns backwards": (
            "freqs = torch.polar(torch.ones_like(angles), angles)",
            "freqs = torch.polar(torch.ones_like(angles), -angles)", "layers.0.attention:rope"),
        "every angle twice as large": (
            "freqs = torch.polar(torch.ones_like(angles), angles)",
            "freqs = torch.polar(torch.ones_like(angles), 2 * angles)", "layers.0.attention:rope"),
        "angles of half a head": (
            "theta ** (-torch.arange(0, c.head_dim, 2) / c.head_dim)",
            "theta ** (-torch.arange(0, c.head_dim, 2) / c.hidden_size)", "layers.0.attention:rope"),
        "a RoPE base of 10000": ('theta, positions = c.rope_parameters["rope_theta"]', "theta, positions = 1e4",
                                 "layers.0.attention:rope"),
        "keys not rotated": ("q, k = apply_rotary_emb(q, k, freqs)", "q, _ = apply_rotary_emb(q, k, freqs)",
                             "layers.0.attention"),
        "scores not scaled": (" / self.d**0.5", "", "layers.0.attention"),
        "key and value heads in turns": (
            "(t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))",
            "(t.repeat(1, self.heads // self.kv, 1) for t in (k, v))", "layers.0.attention"),
        "a softmax over the queries": (".softmax(-1)\n        return self.wo", ".softmax(-2).nan_to_num()\n"
                                       "        return self.wo", "layers.0.attention"),
        "no window": (" & (distance < c.sliding_window)", "", "Sparse"),
        "a window one longer": ("distance < c.sliding", "distance <= c.sliding", "Sparse"),
        "texts that see each other": ("(text[:, None] == text) & ", "", "Sparse"),
        "a softmax before the choice": (
            "torch.zeros_like(logits).scatter(-1, top.indices, top.values.softmax(-1))",
            "torch.zeros_like(logits).scatter(-1, top.indices, logits.softmax(-1).gather(-1, top.indices))",
            "layers.0.feed_forward.gate"),
        "one expert too many": ("self.k, self.weight = c.num", "self.k, self.weight = 1 + c.num",
                                "layers.0.feed_forward.gate"),
        "gate and up exchanged": ("F.silu(self.w1(x)) * self.w3(x)", "F.silu(self.w3(x)) * self.w1(x)",
                                  "layers.0.feed_forward"),
        "experts not weighted": (" * weights[used, i, None]", "", "layers.0.feed_forward"),
        "the residual of attention left out": (
            "x, residual = self.ffn_norm(x, residual)", "x, _ = self.ffn_norm(x, residual)", "layers.0"),
        "the last norm without the residual": (
            "x, _ = self.norm(x, residual)", "x, _ = self.norm(x)", "Sparse"),
    },
}  # fmt: skip


def program(name: str, *changes: Bug) -> Any:
    """The class of a program, with parts of its source replaced."""
    source = SOURCES[name]
    for find, put, _ in changes:
        assert source.count(find) == 1, f"{find!r} occurs {source.count(find)} times"
        source = source.replace(find, put)
    module = ModuleType(f"other_contracts_{name}")
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return getattr(module, name)
