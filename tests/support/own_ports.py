"""Programs of six architectures with names as teaching code has them, which are not the checkpoint's.

Each is right. `program` gives one, with parts of its source replaced where a test wants a wrong one.
"""

from typing import Any

COMMON = """
import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, dim, eps, offset=0.0):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))
        self.eps, self.offset = eps, offset

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (self.offset + self.scale)


def angles(dim, length, theta):
    return torch.outer(torch.arange(length).float(), theta ** -(torch.arange(0, dim, 2).float() / dim))


def turn_halves(x, angle):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), dim=-1)


def turn_neighbours(x, angle):
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), dim=-1).flatten(-2)


def heads_of(x, head_dim):
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def attend(q, k, v, scale, window=0):
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    allowed = allowed.triu(1 - window) if window else allowed
    scores = (q @ k.mT * scale).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
"""

GPT2 = """
class LayerNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.scale, self.shift, 1e-5)


class MultiHeadAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.head_dim = dim // heads
        self.W_query, self.W_key, self.W_value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (heads_of(project(x), self.head_dim) for project in (self.W_query, self.W_key, self.W_value))
        return self.out_proj(attend(q, k, v, self.head_dim**-0.5))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, x):
        return self.layers(x)


class TransformerBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.att, self.ff = MultiHeadAttention(dim, heads), FeedForward(dim)
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tok_emb = nn.Embedding(c.vocab_size, c.n_embd)
        self.pos_emb = nn.Embedding(c.n_positions, c.n_embd)
        self.trf_blocks = nn.Sequential(*[TransformerBlock(c.n_embd, c.n_head) for _ in range(c.n_layer)])
        self.final_norm = LayerNorm(c.n_embd)
        self.out_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)

    def forward(self, ids):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))
"""

LLAMA = """
class Attention(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.head_dim = head_dim
        self.wq = nn.Linear(c.hidden_size, c.num_attention_heads * head_dim, bias=False)
        self.wk = nn.Linear(c.hidden_size, c.num_key_value_heads * head_dim, bias=False)
        self.wv = nn.Linear(c.hidden_size, c.num_key_value_heads * head_dim, bias=False)
        self.wo = nn.Linear(c.num_attention_heads * head_dim, c.hidden_size, bias=False)

    def forward(self, x, freqs):
        q, k, v = (heads_of(project(x), self.head_dim) for project in (self.wq, self.wk, self.wv))
        q, k = turn_neighbours(q, freqs), turn_neighbours(k, freqs)
        return self.wo(attend(q, k, v, self.head_dim**-0.5))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.attention, self.feed_forward = Attention(c, head_dim), FeedForward(c.hidden_size, c.intermediate_size)
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.ffn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, freqs):
        h = x + self.attention.forward(self.attention_norm(x), freqs)
        return h + self.feed_forward.forward(self.ffn_norm(h))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        head_dim = c.hidden_size // c.num_attention_heads
        self.tok_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Block(c, head_dim) for _ in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.output = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.freqs = angles(head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, tokens):
        h = self.tok_embeddings(tokens)
        for layer in self.layers:
            h = layer(h, self.freqs[: tokens.shape[1]])
        return self.output(self.norm(h))
"""

QWEN3 = """
class GroupedQueryAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.head_dim = c.head_dim
        self.to_q = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.to_kv = nn.Linear(c.hidden_size, 2 * c.num_key_value_heads * c.head_dim, bias=False)
        self.to_out = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)
        self.norm_a, self.norm_b = RMSNorm(c.head_dim, c.rms_norm_eps), RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x, angle):
        k, v = self.to_kv(x).chunk(2, dim=-1)
        q, k, v = (heads_of(t, self.head_dim) for t in (self.to_q(x), k, v))
        q, k = turn_halves(self.norm_a(q), angle), turn_halves(self.norm_b(k), angle)
        return self.to_out(attend(q, k, v, self.head_dim**-0.5))


class SwiGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(dim, hidden, bias=False)
        self.fc3 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln1, self.ln2 = RMSNorm(c.hidden_size, c.rms_norm_eps), RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.gqa, self.mlp = GroupedQueryAttention(c), SwiGLU(c.hidden_size, c.intermediate_size)

    def forward(self, x, angle):
        x = x + self.gqa(self.ln1(x), angle)
        return x + self.mlp(self.ln2(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedding = nn.Embedding(c.vocab_size, c.hidden_size)
        self.decoder = nn.ModuleList([Layer(c) for _ in range(c.num_hidden_layers)])
        self.ln_f = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.angle = angles(c.head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.decoder:
            x = layer(x, self.angle[: ids.shape[1]])
        return self.ln_f(x) @ self.embedding.weight.T
"""

GEMMA3 = """
class SelfAttention(nn.Module):
    def __init__(self, c, sliding):
        super().__init__()
        self.head_dim, self.window = c.head_dim, c.sliding_window if sliding else 0
        self.scale = c.query_pre_attn_scalar**-0.5
        self.sizes = [n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
        self.wqkv = nn.Linear(c.hidden_size, sum(self.sizes), bias=False)
        self.proj = nn.Linear(self.sizes[0], c.hidden_size, bias=False)
        self.query_norm, self.key_norm = RMSNorm(c.head_dim, 1e-6, 1.0), RMSNorm(c.head_dim, 1e-6, 1.0)

    def forward(self, x, angle):
        q, k, v = (heads_of(t, self.head_dim) for t in self.wqkv(x).split(self.sizes, dim=-1))
        q, k = turn_halves(self.query_norm(q), angle), turn_halves(self.key_norm(k), angle)
        return self.proj(attend(q, k, v, self.scale, self.window))


class GeGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate, approximate="tanh") * up)


class Block(nn.Module):
    def __init__(self, c, sliding):
        super().__init__()
        self.attn, self.ffn = SelfAttention(c, sliding), GeGLU(c.hidden_size, c.intermediate_size)
        self.sliding = sliding
        self.pre_attn_norm = RMSNorm(c.hidden_size, 1e-6, 1.0)
        self.pre_ffn_norm = RMSNorm(c.hidden_size, 1e-6, 1.0)
        self.post_attn_norm = RMSNorm(c.hidden_size, 1e-6, 1.0)
        self.post_ffn_norm = RMSNorm(c.hidden_size, 1e-6, 1.0)

    def forward(self, x, local, everywhere):
        attended = self.attn(self.pre_attn_norm(x), local if self.sliding else everywhere)
        x = x + self.post_attn_norm(attended)
        return x + self.post_ffn_norm(self.ffn(self.pre_ffn_norm(x)))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedder = nn.Embedding(c.vocab_size, c.hidden_size)
        self.blocks = nn.ModuleList([Block(c, kind == "sliding_attention") for kind in c.layer_types])
        self.final_norm = RMSNorm(c.hidden_size, 1e-6, 1.0)
        self.local = angles(c.head_dim, c.max_position_embeddings, c.rope_local_base_freq)
        self.everywhere = angles(c.head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, ids):
        T, x = ids.shape[1], self.embedder(ids)
        x = x * x.shape[-1] ** 0.5
        for block in self.blocks:
            x = block(x, self.local[:T], self.everywhere[:T])
        return F.linear(self.final_norm(x), self.embedder.weight)
"""

NEOX = """
class Attn(nn.Module):
    def __init__(self, c):
        super().__init__()
        D, self.heads = c.hidden_size, c.num_attention_heads
        self.head_dim, self.turned = D // self.heads, int(D // self.heads * c.rotary_pct)
        self.q_lin, self.k_lin, self.v_lin = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.o_lin = nn.Linear(D, D)

    def forward(self, x, angle):
        q, k, v = (heads_of(project(x), self.head_dim) for project in (self.q_lin, self.k_lin, self.v_lin))
        q, k = (torch.cat((turn_halves(t[..., : self.turned], angle), t[..., self.turned :]), -1) for t in (q, k))
        return self.o_lin(attend(q, k, v, self.head_dim**-0.5))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1 = nn.LayerNorm(c.hidden_size, eps=1e-5)
        self.ln_2 = nn.LayerNorm(c.hidden_size, eps=1e-5)
        self.attn = Attn(c)
        self.fc_in = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc_out = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x, angle):
        return x + self.attn(self.ln_1(x), angle) + self.fc_out(F.gelu(self.fc_in(self.ln_2(x))))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte = nn.Embedding(c.vocab_size, c.hidden_size)
        self.h = nn.ModuleList([Block(c) for _ in range(c.num_hidden_layers)])
        self.ln_f = nn.LayerNorm(c.hidden_size, eps=1e-5)
        self.unembed = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        turned = int(c.hidden_size // c.num_attention_heads * c.rotary_pct)
        self.angle = angles(turned, c.max_position_embeddings, 10000.0)

    def forward(self, ids):
        x = self.wte(ids)
        for block in self.h:
            x = block(x, self.angle[: ids.shape[1]])
        return self.unembed(self.ln_f(x))
"""

FUSED_NEOX = """
class Fused(Attn):
    def __init__(self, c):
        super().__init__(c)
        del self.q_lin, self.k_lin, self.v_lin
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)

    def forward(self, x, angle):
        q, k, v = (heads_of(t, self.head_dim) for t in self.qkv(x).chunk(3, dim=-1))
        q, k = (torch.cat((turn_halves(t[..., : self.turned], angle), t[..., self.turned :]), -1) for t in (q, k))
        return self.o_lin(attend(q, k, v, self.head_dim**-0.5))
"""

MIXTRAL = """
class Attention(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.head_dim, D = head_dim, c.hidden_size
        self.W_q = nn.Parameter(torch.empty(D, c.num_attention_heads * head_dim))
        self.W_k = nn.Parameter(torch.empty(D, c.num_key_value_heads * head_dim))
        self.W_v = nn.Parameter(torch.empty(D, c.num_key_value_heads * head_dim))
        self.W_o = nn.Parameter(torch.empty(c.num_attention_heads * head_dim, D))

    def forward(self, x, angle):
        q, k, v = (heads_of(x @ weight, self.head_dim) for weight in (self.W_q, self.W_k, self.W_v))
        return attend(turn_halves(q, angle), turn_halves(k, angle), v, self.head_dim**-0.5) @ self.W_o


class MoE(nn.Module):
    def __init__(self, c):
        super().__init__()
        E, D, hidden, self.chosen = c.num_local_experts, c.hidden_size, c.intermediate_size, c.num_experts_per_tok
        self.router = nn.Linear(D, E, bias=False)
        self.w1 = nn.Parameter(torch.empty(E, hidden, D))
        self.w2 = nn.Parameter(torch.empty(E, D, hidden))
        self.w3 = nn.Parameter(torch.empty(E, hidden, D))

    def forward(self, x):
        chance, chosen = self.router(x).softmax(-1).topk(self.chosen, dim=-1)
        share = torch.zeros(*x.shape[:-1], len(self.w1)).scatter(-1, chosen, chance / chance.sum(-1, keepdim=True))
        inner = F.silu(torch.einsum("btd,ehd->bteh", x, self.w1)) * torch.einsum("btd,ehd->bteh", x, self.w3)
        return torch.einsum("bteh,edh,bte->btd", inner, self.w2, share)


class Block(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.attn, self.moe = Attention(c, head_dim), MoE(c)
        self.attn_norm, self.moe_norm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))

    def forward(self, x, angle):
        x = x + self.attn(self.attn_norm(x), angle)
        return x + self.moe(self.moe_norm(x))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        head_dim = c.hidden_size // c.num_attention_heads
        self.embed = nn.Embedding(c.vocab_size, c.hidden_size)
        self.transformer_blocks = nn.ModuleList([Block(c, head_dim) for _ in range(c.num_hidden_layers)])
        self.norm_f = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.to_logits = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.angle = angles(head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.transformer_blocks:
            x = block(x, self.angle[: ids.shape[1]])
        return self.to_logits(self.norm_f(x))
"""

SHARED = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "vocab_size": 32000}
SHARED |= {"hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32, "intermediate_size": 14336}
SHARED |= {"max_position_embeddings": 4096, "rope_theta": 10000.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "GPT-2": {"model_type": "gpt2", "n_embd": 768, "n_layer": 2, "n_head": 12, "vocab_size": 50257},
    "Llama": SHARED | {"model_type": "llama", "num_key_value_heads": 8},
    "Qwen3": SHARED | {"model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 256, "tie_word_embeddings": True},
    "Gemma 3": SHARED
    | {"model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh"}
    | {"sliding_window": 512, "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 256, "rope_theta": 1e6}
    | {"layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": True},
    "GPT-NeoX": SHARED | {"model_type": "gpt_neox", "rotary_pct": 0.25, "hidden_act": "gelu"},
    "Mixtral": SHARED
    | {"model_type": "mixtral", "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
}
PROGRAMS = {"GPT-2": GPT2, "Llama": LLAMA, "Qwen3": QWEN3, "Gemma 3": GEMMA3, "GPT-NeoX": NEOX, "Mixtral": MIXTRAL}


def source_of(family: str, *changes: tuple[str, str]) -> str:
    """The whole program, with parts of its source replaced."""
    source = COMMON + PROGRAMS[family]
    for find, replace in changes:
        assert source.count(find) == 1, f"{find!r} occurs {source.count(find)} times"
        source = source.replace(find, replace)
    return source


def program(family: str, *changes: tuple[str, str], more: str = "") -> Any:
    """The program's class. more: source that comes after it."""
    names: dict[str, Any] = {"__name__": "learner"}
    exec(compile(source_of(family, *changes) + more, "<learner>", "exec"), names)
    return names["Model"]
