# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · Qwen3

# %% tags=["setup"]
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, check, check_generation, compare_layers, load_checkpoint


def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads


# %% exercise="qwen3.rms_norm"
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
        ### BEGIN SOLUTION
        x32 = x.float()
        mean_square = x32.pow(2).mean(dim=-1, keepdim=True)  # [..., 1]
        normed = x32 * torch.rsqrt(mean_square + self.eps)  # [..., dim]
        return self.weight * normed.to(x.dtype)
        ### END SOLUTION

# %% check="qwen3.rms_norm" tags=["nbval-ignore-output"]
check("qwen3.rms_norm", RMSNorm)

# %% exercise="qwen3.rope_table"
def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """The cosine and the sine of every angle by which RoPE turns (Su et al., 2021, section 3.2.2).

    Pair i of head_dim / 2 turns by positions * theta^(-2 i / head_dim). It is made of channels i and
    i + head_dim / 2, so the angles of all pairs stand in a row twice.
    positions: [T] int64 -> [2, T, head_dim] float32: cosines, sines. transformers: Qwen3RotaryEmbedding.
    """
    ### BEGIN SOLUTION
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim  # [head_dim / 2]
    frequencies = 1.0 / theta**exponents
    angles = positions.float()[:, None] * frequencies  # [T, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)  # [T, head_dim]
    return torch.stack([angles.cos(), angles.sin()])
    ### END SOLUTION

# %% check="qwen3.rope_table" tags=["nbval-ignore-output"]
check("qwen3.rope_table", rope_table)

# %% exercise="qwen3.rope"
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Turn every pair of channels (i, i + head_dim / 2) by its angle.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, head_dim], table: [2, T, head_dim] -> [B, H, T, head_dim]. transformers: apply_rotary_pos_emb.
    """
    ### BEGIN SOLUTION
    cos, sin = table.to(x.dtype)  # 2 x [T, head_dim]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, head_dim / 2]
    turned = torch.cat([-b, a], dim=-1)  # [B, H, T, head_dim]
    return x * cos + turned * sin
    ### END SOLUTION

# %% check="qwen3.rope" tags=["nbval-ignore-output"]
check("qwen3.rope", apply_rope)

# %% exercise="qwen3.mlp"
class MLP(nn.Module):
    """Two views of x, one of which opens and closes the other: SwiGLU (Shazeer, 2020, equation 6).

    down_proj(silu(gate_proj(x)) * up_proj(x)). No biases.
    Parts: gate_proj and up_proj (hidden_size -> intermediate_size), down_proj (and back), all nn.Linear.
    x: [B, T, D] -> [B, T, D]. transformers: Qwen3MLP.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        hidden = F.silu(self.gate_proj(x)) * self.up_proj(x)  # [B, T, D] -> [B, T, intermediate_size]
        return self.down_proj(hidden)
        ### END SOLUTION

# %% check="qwen3.mlp" tags=["nbval-ignore-output"]
check("qwen3.mlp", MLP)

# %% exercise="qwen3.attention"
class Attention(nn.Module):
    """Causal self-attention with grouped queries and RoPE; in Qwen3 with norms on q and k.

    Parts: q_proj, k_proj, v_proj, o_proj, without biases; q_norm and k_norm, RMSNorms over head_dim with
    config.rms_norm_eps where config.model_type is "qwen3", else nn.Identity.
    All H = num_attention_heads heads of q stand side by side in q_proj's output, head_dim(config) channels each.
    x: [B, T, D], table: [2, T, head_dim] -> [B, T, D]. transformers: Qwen3Attention; Ainslie et al. (2023).
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
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
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        B, T, D = x.shape
        ### BEGIN SOLUTION
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
        ### END SOLUTION

# %% check="qwen3.attention" tags=["nbval-ignore-output"]
check("qwen3.attention", Attention)

# %% exercise="qwen3.decoder_layer"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of x and is added to x.

    Parts: input_layernorm, self_attn, post_attention_layernorm, mlp; the norms with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim] -> [B, T, D]. transformers: Qwen3DecoderLayer.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x = x + self.self_attn(self.input_layernorm(x), table)
        return x + self.mlp(self.post_attention_layernorm(x))
        ### END SOLUTION

# %% check="qwen3.decoder_layer" tags=["nbval-ignore-output"]
check("qwen3.decoder_layer", DecoderLayer)

# %% exercise="qwen3.model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (nn.Embedding), layers (nn.ModuleList of DecoderLayer), norm.
    Token t of the text has position t. One table of rotations serves all layers.
    ids: [B, T] int64 -> [B, T, D]. transformers: Qwen3Model.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
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

# %% check="qwen3.model" tags=["nbval-ignore-output"]
check("qwen3.model", Model)

# %% exercise="qwen3.causal_lm"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token, at every position.

    Parts: model (Model), lm_head (nn.Linear without bias). Where config.tie_word_embeddings is true, the
    head's weight is the embedding's: the same Parameter under two names.
    ids: [B, T] int64 -> [B, T, vocab_size]. transformers: Qwen3ForCausalLM.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return self.lm_head(self.model(ids))  # [B, T, D] -> [B, T, vocab_size]
        ### END SOLUTION

# %% check="qwen3.causal_lm" tags=["nbval-ignore-output"]
check("qwen3.causal_lm", CausalLM)

# %% tags=["nbval-ignore-output"]
compare_layers(CausalLM)

# %% exercise="qwen3.generate"
@torch.no_grad()
def generate(
    model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt. Ends after max_new_tokens, or once one of end_tokens has been yielded.
    """
    ### BEGIN SOLUTION
    for _ in range(max_new_tokens):
        next_id = model(ids)[:, -1].argmax(dim=-1, keepdim=True)  # [1, T] -> [1, 1]
        token = next_id.item()
        yield token
        if token in end_tokens:
            return
        ids = torch.cat([ids, next_id], dim=1)  # [1, T] -> [1, T + 1]
    ### END SOLUTION

# %% check="qwen3.generate" tags=["nbval-ignore-output"]
check("qwen3.generate", generate)
