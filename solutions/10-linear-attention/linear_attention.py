# %% [markdown] id="f912eb0a"
# # 10 · Linear attention: a state in place of a cache
#
# 150 to 230 minutes · difficulty ●●●●○ · you know attention with a cache (lesson 02) and Qwen3 (lesson 03); norms as in Gemma 3 (lesson 04) are given

# %% tags=["setup"] id="setup"
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% tags=["setup"] id="setup-2"
def layer_types(config: Config) -> list[str]:
    """The kind of each layer: "linear_attention" or "full_attention"; every fourth is full where the config has no list."""
    every = config.get("full_attention_interval") or 4
    kinds = ["full_attention" if i % every == 0 else "linear_attention" for i in range(1, config.num_hidden_layers + 1)]
    return config.get("layer_types") or kinds


def head_dim(config: Config) -> int:
    """How many channels a head of full attention has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads


def wide(x: Tensor) -> Tensor:
    """x in float32, unless it is float64 already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

# %% given="04-gemma3 gemma3.rms_norm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rms_norm"

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% tags=["setup"] id="setup-3"
class LayerState:
    """What a linear layer keeps of a text; None before its first token.

    conv: the last kernel - 1 inputs of the convolution, [B, kernel - 1, C]. recurrent: the state, [B, H, d_k, d_v].
    """

    def __init__(self):
        self.conv: Tensor | None = None
        self.recurrent: Tensor | None = None


class KVCache:
    """What a full layer keeps of a text: the keys and values of all tokens."""

    def __init__(self):
        self.keys = self.values = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """2 x [B, KV, T, head_dim] -> 2 x [B, KV, length, head_dim], where length has grown by T."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        self.length = self.keys.shape[2]
        return self.keys, self.values

# %% [markdown] id="f20868d1"
# ### Exercise 1 · A short convolution
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes

# %% exercise="linear_attention.conv" id="linear_attention-conv"
class ShortConv(nn.Module):
    """Mix each channel of a token with the same channel of the kernel - 1 tokens before it, then silu.

    y_t = silu(sum over i of weight[:, 0, i] * x_(t - kernel + 1 + i)): the last weight is that of token t itself. Before
    the first token of a text all inputs are 0. No bias, and no channel sees another.
    Part: weight, an nn.Parameter [channels, 1, kernel].
    x: [B, T, channels]; state: the kernel - 1 inputs before x, [B, kernel - 1, channels], or None at the beginning of a
    text -> y [B, T, channels], and the state for what follows: the last kernel - 1 inputs so far. It is a tensor of its
    own: the state that was given stays as it is, and no larger tensor stays in memory behind the new one. T may be 0.
    transformers: causal_conv1d_fn.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, kernel))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        B, T, C = x.shape
        kernel = self.weight.shape[-1]
        before = x.new_zeros(B, kernel - 1, C) if state is None else state
        inputs = torch.cat([before, x], dim=1)  # [B, kernel - 1 + T, C]
        mixed = sum(inputs[:, i : i + T] * self.weight[:, 0, i] for i in range(kernel))  # [B, T, C]
        return F.silu(mixed), inputs[:, T:].clone()
        ### END SOLUTION

# %% check="linear_attention.conv" tags=["nbval-ignore-output"] id="check-linear_attention-conv"
check("linear_attention.conv", ShortConv)

# %% [markdown] id="f57086ab"
# ### Exercise 2 · Two gates
# difficulty ●○○○○ · importance ●●●●● · 5 minutes

# %% exercise="linear_attention.gates" id="linear_attention-gates"
def gates(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    """How much of its state each head keeps, and how far it writes.

    g = -exp(A_log) * softplus(a + dt_bias), in float32: the logarithm of the share that stays. beta = sigmoid(b).
    a, b: [B, T, H]; A_log, dt_bias: [H] -> g, float32, and beta, both [B, T, H].
    Yang et al. (2024), arXiv 2412.06464, section 3.1; the form of g is Mamba-2's.
    """
    ### BEGIN SOLUTION
    g = -A_log.float().exp() * F.softplus(a.float() + dt_bias.float())
    return g, b.sigmoid()
    ### END SOLUTION

# %% check="linear_attention.gates" tags=["nbval-ignore-output"] id="check-linear_attention-gates"
check("linear_attention.gates", gates)

# %% [markdown] id="ad8ed70d"
# ### Exercise 3 · The delta rule, token by token
# difficulty ●●●○○ · importance ●●●●● · 15 minutes

# %% exercise="linear_attention.recurrent" id="linear_attention-recurrent"
def unit(x: Tensor) -> Tensor:
    """x / sqrt(sum(x^2) + 1e-6), the sum over the last axis: x of length 1. [..., d] -> [..., d]."""
    ### BEGIN SOLUTION
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)
    ### END SOLUTION


def recurrent_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated delta rule, one token after the other (Yang et al., 2024, arXiv 2412.06464, equation 10).

    For each head, with k = unit(k) and q = unit(q) / sqrt(d_k), and the state S as a matrix [d_k, d_v]:
    S = exp(g_t) S;  S = S + k_t (beta_t (v_t - S^T k_t))^T;  o_t = S^T q_t.
    All of it in float32 (`wide`), whatever the inputs are; the output is cast to v's dtype at the end, the state is not.
    q, k: [B, T, H, d_k], v: [B, T, H, d_v], g, beta: [B, T, H]; state: [B, H, d_k, d_v], or None for zeros; it stays as
    it is -> o [B, T, H, d_v], and the state after the last token. T may be 0.
    transformers: torch_recurrent_gated_delta_rule in qwen3_5.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, g, beta = (wide(tensor) for tensor in (q, k, v, g, beta))
    q, k = unit(q) * d_k**-0.5, unit(k)
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * g[:, t, :, None, None].exp()
        found = torch.einsum("bhkv,bhk->bhv", state, k[:, t])  # what the state has for this key
        missing = beta[:, t, :, None] * (v[:, t] - found)  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * missing[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.recurrent" tags=["nbval-ignore-output"] id="check-linear_attention-recurrent"
check("linear_attention.recurrent", recurrent_delta_rule)

# %% [markdown] id="a0e89ec0"
# ### Exercise 4 · What does a state recall?
# difficulty ●●○○○ · importance ●●●●● · 10 minutes

# %% exercise="linear_attention.recall" id="linear_attention-recall"
def recall_error(dim: int, pairs: int, rule: str, count: int) -> float:
    """How much of a value is lost in a state that `pairs` pairs of keys and values were written into, one by one.

    Keys and values are random vectors of length 1, drawn anew for each of `count` states [dim, dim], zeros at first.
    rule "sum": S = S + k v^T. rule "delta": S = S + k (v - S^T k)^T. No gates.
    After the last pair, each of the pairs is looked up: S^T k. Returns |S^T k - v|^2, the mean over all pairs and states.
    """
    ### BEGIN SOLUTION
    keys = F.normalize(torch.randn(count, pairs, dim), dim=-1)
    values = F.normalize(torch.randn(count, pairs, dim), dim=-1)
    state = torch.zeros(count, dim, dim)
    for k, v in zip(keys.unbind(1), values.unbind(1), strict=True):  # 2 x [count, dim]
        found = torch.einsum("nkv,nk->nv", state, k) if rule == "delta" else 0
        state = state + k[:, :, None] * (v - found)[:, None]
    return (keys @ state - values).square().sum(dim=-1).mean().item()
    ### END SOLUTION

# %% check="linear_attention.recall" tags=["nbval-ignore-output"] id="check-linear_attention-recall"
check("linear_attention.recall", recall_error)

# %% [markdown] id="b44f37f4"
# ### Exercise 5 · A chunk at a time
# difficulty ●●●●● · importance ●●●●○ · 25 minutes

# %% exercise="linear_attention.chunked" id="linear_attention-chunked"
def one_chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule for the C tokens of a chunk at once, in the inputs' dtype.

    q, k: [B, H, C, d_k], of length 1 and q scaled; v: [B, H, C, d_v]; g, beta: [B, H, C]; state: [B, H, d_k, d_v], the
    one before the chunk -> o [B, H, C, d_v], and the state behind the chunk.
    """
    ### BEGIN SOLUTION
    total = g.cumsum(dim=-1)  # [B, H, C]: from the start of the chunk to each token, it included
    between = (total[..., :, None] - total[..., None, :]).tril().exp().tril()  # [B, H, C, C]: from token j to token i
    weighted = beta[..., None] * k
    system = (weighted @ k.mT * between).tril(-1)  # the diagonal of ones is understood
    wanted = beta[..., None] * v - (weighted * total[..., None].exp()) @ state  # [B, H, C, d_v]
    written = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    outputs = (q * total[..., None].exp()) @ state + (q @ k.mT * between) @ written
    kept = k * (total[..., -1:] - total)[..., None].exp()  # [B, H, C, d_k]
    return outputs, state * total[..., -1, None, None].exp() + kept.mT @ written
    ### END SOLUTION


def chunked_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """The same as `recurrent_delta_rule`, computed in chunks of `size` tokens: one state for each chunk, not each token.

    Arguments and results are those of `recurrent_delta_rule`; the last chunk may be shorter, and T may be 0.
    Yang et al. (2024), arXiv 2412.06464, section 3.3. transformers: torch_chunk_gated_delta_rule.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, g, beta = (wide(tensor).transpose(1, 2) for tensor in (q, k, v, g, beta))  # [B, H, T, ...]
    q, k = unit(q) * d_k**-0.5, unit(k)
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = [v[:, :, :0]]
    for start in range(0, T, size):
        parts = (tensor[:, :, start : start + size] for tensor in (q, k, v, g, beta))
        given, state = one_chunk(*parts, state)
        outputs.append(given)
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.chunked" tags=["nbval-ignore-output"] id="check-linear_attention-chunked"
check("linear_attention.chunked", chunked_delta_rule)

# %% [markdown] id="ad41b995"
# ### Exercise 6 · A norm with a gate
# difficulty ●○○○○ · importance ●●●○○ · 5 minutes

# %% exercise="linear_attention.norm" id="linear_attention-norm"
class GatedRMSNorm(nn.Module):
    """RMSNorm, then a gate.

    y = weight * x / sqrt(mean(x^2) + eps) * silu(gate). The norm comes first, and its weight is not zero-centred: it is
    multiplied as it is. Statistics and the gate's silu in float32; the result in x's dtype.
    Part: weight, an nn.Parameter [dim].
    x, gate: [..., dim] -> [..., dim]. transformers: Qwen3_5RMSNormGated.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)  # [..., dim]
        return (self.weight * normed * F.silu(gate.float())).to(x.dtype)
        ### END SOLUTION

# %% check="linear_attention.norm" tags=["nbval-ignore-output"] id="check-linear_attention-norm"
check("linear_attention.norm", GatedRMSNorm)

# %% [markdown] id="a0f0cf94"
# ### Exercise 7 · The layer
# difficulty ●●●○○ · importance ●●●●● · 20 minutes

# %% exercise="linear_attention.delta_net" id="linear_attention-delta_net"
class GatedDeltaNet(nn.Module):
    """Qwen3.5's linear attention.

    Parts: in_proj_qkv (D -> queries, keys, values, side by side), in_proj_z (D -> v_heads * d_v), in_proj_b and
    in_proj_a (D -> v_heads), all nn.Linear without bias; conv1d, a ShortConv over queries, keys and values; A_log and
    dt_bias, nn.Parameters [v_heads]; norm, a GatedRMSNorm(d_v, rms_norm_eps); out_proj (v_heads * d_v -> D).
    Sizes: linear_num_key_heads and linear_num_value_heads, linear_key_head_dim (d_k), linear_value_head_dim (d_v),
    linear_conv_kernel_dim. Queries have as many heads as keys; each is used by v_heads / k_heads neighbouring v heads.
    The gates come from a = in_proj_a(x) and b = in_proj_b(x), the norm's gate from in_proj_z(x).
    x: [B, T, D], new tokens; cache: a LayerState, which is read and then gets the new states, or None; mask: [B, T] bool,
    False where a text is padded on its left: there x counts as 0 -> [B, T, D].
    transformers: Qwen3_5GatedDeltaNet.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.k_heads, self.v_heads = config.linear_num_key_heads, config.linear_num_value_heads
        self.d_k, self.d_v = config.linear_key_head_dim, config.linear_value_head_dim
        D, keys, values = config.hidden_size, self.k_heads * self.d_k, self.v_heads * self.d_v
        self.sizes = [keys, keys, values]
        self.in_proj_qkv = nn.Linear(D, sum(self.sizes), bias=False)
        self.in_proj_z = nn.Linear(D, values, bias=False)
        self.in_proj_b = nn.Linear(D, self.v_heads, bias=False)
        self.in_proj_a = nn.Linear(D, self.v_heads, bias=False)
        self.conv1d = ShortConv(sum(self.sizes), config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.zeros(self.v_heads))
        self.dt_bias = nn.Parameter(torch.ones(self.v_heads))
        self.norm = GatedRMSNorm(self.d_v, config.rms_norm_eps)
        self.out_proj = nn.Linear(values, D, bias=False)
        ### END SOLUTION

    def forward(self, x: Tensor, cache: LayerState | None = None, mask: Tensor | None = None) -> Tensor:
        ### BEGIN SOLUTION
        B, T, _ = x.shape
        cache = LayerState() if cache is None else cache
        if mask is not None:
            x = x * mask[..., None]
        mixed, cache.conv = self.conv1d(self.in_proj_qkv(x), cache.conv)
        q, k, v = mixed.split(self.sizes, dim=-1)
        q, k = (tensor.view(B, T, self.k_heads, self.d_k) for tensor in (q, k))
        q, k = (tensor.repeat_interleave(self.v_heads // self.k_heads, dim=2) for tensor in (q, k))
        v = v.view(B, T, self.v_heads, self.d_v)
        g, beta = gates(self.in_proj_a(x), self.in_proj_b(x), self.A_log, self.dt_bias)
        rule = recurrent_delta_rule if T == 1 else chunked_delta_rule
        read, cache.recurrent = rule(q, k, v, g, beta, cache.recurrent)
        z = self.in_proj_z(x).view(B, T, self.v_heads, self.d_v)
        return self.out_proj(self.norm(read, z).flatten(2))
        ### END SOLUTION

# %% check="linear_attention.delta_net" tags=["nbval-ignore-output"] id="check-linear_attention-delta_net"
check("linear_attention.delta_net", GatedDeltaNet)

# %% [markdown] id="c730ed5d"
# ### Exercise 8 · Attention with a gate
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes

# %% exercise="linear_attention.attention" id="linear_attention-attention"
class GatedAttention(nn.Module):
    """Qwen3.5's full attention: Qwen3's, with a gate on its output and RoPE on some channels.

    Parts, nn.Linear without bias: q_proj (D -> heads * 2 * head_dim: for each head its query, then its gate), k_proj and
    v_proj (D -> KV heads * head_dim), o_proj (heads * head_dim -> D); q_norm and k_norm, the RMSNorm of lesson 04 over
    head_dim. Only the first table.shape[-1] channels of queries and keys are rotated; the others stay.
    The output of the heads is multiplied by sigmoid(gate) before o_proj.
    x: [B, T, D], new tokens; table: [2, T, rotated channels]; cache: append(k, v) -> all keys, all values, the new ones
    last; or None -> [B, T, D]. transformers: Qwen3_5Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, self.head_dim = config.hidden_size, head_dim(config)
        H, KV = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(D, H * 2 * self.head_dim, bias=False)
        self.k_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.v_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.o_proj = nn.Linear(H * self.head_dim, D, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        ### BEGIN SOLUTION
        B, T, _ = x.shape
        q, gate = self.q_proj(x).view(B, T, -1, 2 * self.head_dim).chunk(2, dim=-1)  # 2 x [B, T, H, head_dim]
        q = self.q_norm(q).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        n = table.shape[-1]
        q, k = (torch.cat([apply_rope(t[..., :n], table), t[..., n:]], dim=-1) for t in (q, k))
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(diagonal=k.shape[2] - T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)  # [B, H, T, head_dim]
        return self.o_proj((mixed.transpose(1, 2) * gate.sigmoid()).flatten(2))
        ### END SOLUTION

# %% check="linear_attention.attention" tags=["nbval-ignore-output"] id="check-linear_attention-attention"
check("linear_attention.attention", GatedAttention)

# %% [markdown] id="c0090249"
# ### Exercise 9 · The model
# difficulty ●●○○○ · importance ●●●●● · 15 minutes

# %% tags=["setup"] long="one class, with its shapes" id="setup-4"
class DecoderLayer(nn.Module):
    """One layer; kind says which of the two it mixes tokens with. x: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: Config, kind: str):
        super().__init__()
        if kind == "linear_attention":
            self.linear_attn = GatedDeltaNet(config)
        else:
            self.self_attn = GatedAttention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        normed = self.input_layernorm(x)
        linear = hasattr(self, "linear_attn")
        x = x + (self.linear_attn(normed, cache) if linear else self.self_attn(normed, table, cache))
        return x + self.mlp(self.post_attention_layernorm(x))

# %% exercise="linear_attention.model" id="linear_attention-model"
class Model(nn.Module):
    """Qwen3.5 without its head.

    Parts: embed_tokens, layers (nn.ModuleList of DecoderLayer), norm (lesson 04's RMSNorm). layer_types(config) says
    which kind each layer is. rope_table makes the table for head_dim(config) * partial_rotary_factor channels;
    rope_theta and partial_rotary_factor are in config.rope_parameters.
    ids: [B, T] int64, new tokens; caches: what new_caches made, one for each layer, or None -> [B, T, D].
    transformers: Qwen3_5TextModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, kind) for kind in layer_types(config))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def new_caches(self) -> list[LayerState | KVCache]:
        """What the layers keep of a text that has no token yet: a LayerState for a linear one, a KVCache for a full one."""
        ### BEGIN SOLUTION
        return [LayerState() if kind == "linear_attention" else KVCache() for kind in layer_types(self.config)]
        ### END SOLUTION

    def forward(self, ids: Tensor, caches: list[LayerState | KVCache] | None = None) -> Tensor:
        ### BEGIN SOLUTION
        rope = self.config.rope_parameters
        start = next((cache.length for cache in caches or () if isinstance(cache, KVCache)), 0)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, int(head_dim(self.config) * rope["partial_rotary_factor"]), rope["rope_theta"])
        x = self.embed_tokens(ids)  # [B, T, D]
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, table, cache)
        return self.norm(x)
        ### END SOLUTION

# %% check="linear_attention.model" tags=["nbval-ignore-output"] id="check-linear_attention-model"
check("linear_attention.model", Model)

# %% tags=["nbval-ignore-output"] id="00a10a9b"
compare_layers(Model)

# %% [markdown] id="66fa9090"
# ### Exercise 10 · Bytes
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes

# %% exercise="linear_attention.bytes" id="linear_attention-bytes"
def memory(config: Config, element_bytes: int = 2) -> tuple[int, int, int]:
    """The bytes that a model keeps of one text: of its linear layers, and for each token of its full layers.

    A linear layer keeps its state, [v_heads, d_k, d_v], in float32, and the last kernel - 1 inputs of its convolution
    over queries, keys and values. A full layer keeps a key and a value for each KV head. All but the state in
    numbers of element_bytes.
    Returns the bytes of all linear layers, which no token changes; the bytes that each token adds; and the first length
    at which the cache has at least as many bytes as the linear layers.
    """
    ### BEGIN SOLUTION
    kinds = layer_types(config)
    linear, full = kinds.count("linear_attention"), kinds.count("full_attention")
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = config.linear_num_value_heads * config.linear_value_head_dim
    state = 4 * config.linear_key_head_dim * values
    conv = element_bytes * (config.linear_conv_kernel_dim - 1) * (2 * keys + values)
    fixed = linear * (state + conv)
    per_token = element_bytes * full * 2 * config.num_key_value_heads * head_dim(config)
    return fixed, per_token, -(-fixed // per_token)
    ### END SOLUTION

# %% check="linear_attention.bytes" tags=["nbval-ignore-output"] id="check-linear_attention-bytes"
check("linear_attention.bytes", memory)

# %% [markdown] id="f6f54668"
# ### Exercise 11 · Mamba-2
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes

# %% exercise="linear_attention.mamba2" id="linear_attention-mamba2"
def mamba2(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor, A_log: Tensor, dt_bias: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence, in the names of attention: its C is q, its B is k, its x is v (Dao and Gu, 2024, section 3).

    For each head, with dt = softplus(dt + dt_bias) and the state S as a matrix [d_k, d_v]:
    S = exp(-exp(A_log) dt_t) S + k_t (dt_t v_t)^T;  o_t = S^T q_t + D v_t. Queries and keys are taken as they are.
    All of it in float32 (`wide`); the output is cast to v's dtype at the end, the state is not.
    q, k: [B, T, G, d_k], each group for H / G neighbouring heads; v: [B, T, H, d_v], dt: [B, T, H]; A_log, dt_bias, D: [H];
    state: [B, H, d_k, d_v], or None for zeros; it stays as it is -> o [B, T, H, d_v], the state after the last token.
    transformers: mamba2_selective_state_update in nemotron_h, whose state is [B, H, d_v, d_k].
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, dt = (wide(tensor) for tensor in (q, k, v, dt))
    q, k = (tensor.repeat_interleave(H // tensor.shape[2], dim=2) for tensor in (q, k))
    dt = F.softplus(dt + dt_bias)  # [B, T, H]
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * (-A_log.exp() * dt[:, t])[:, :, None, None].exp()
        added = dt[:, t, :, None] * v[:, t]  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * added[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t]) + D[:, None] * v[:, t]
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.mamba2" tags=["nbval-ignore-output"] id="check-linear_attention-mamba2"
check("linear_attention.mamba2", mamba2)

# %% [markdown] id="81f26e20"
# ### Exercise 12 · Kimi's delta rule
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes

# %% exercise="linear_attention.kda" id="linear_attention-kda"
def kimi_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Kimi Delta Attention's recurrence (Kimi Team, 2025, arXiv 2510.26692, section 3): each channel of a key forgets at its own rate.

    The delta rule of `recurrent_delta_rule`, with beta = sigmoid(b) and a decay for each of the d_k channels:
    g = -exp(A_log) * softplus(f + dt_bias), [B, T, H, d_k]; S = diag(exp(g_t)) S before the rest.
    q, k, f: [B, T, H, d_k], v: [B, T, H, d_v], b: [B, T, H]; A_log: [H], dt_bias: [H, d_k]; state: [B, H, d_k, d_v], or
    None for zeros; it stays as it is -> o [B, T, H, d_v] in v's dtype, and the state after the last token, in float32.
    transformers: recurrent_kimi_delta_attention and KimiLinearForgetGate.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, f, b = (wide(tensor) for tensor in (q, k, v, f, b))
    q, k = unit(q) * d_k**-0.5, unit(k)
    g, beta = -A_log.exp()[:, None] * F.softplus(f + dt_bias), b.sigmoid()
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * g[:, t, :, :, None].exp()
        found = torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        missing = beta[:, t, :, None] * (v[:, t] - found)  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * missing[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.kda" tags=["nbval-ignore-output"] id="check-linear_attention-kda"
check("linear_attention.kda", kimi_delta_rule)
