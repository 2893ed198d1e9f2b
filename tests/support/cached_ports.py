"""Four programs that decode with a cache, each in a way of its own, as teaching and inference code has them. All right.

GPT-2: `new_cache` makes the cache, with room for all tokens, and `forward(ids, cache)` fills it. Llama: the attention
holds keys and values itself, and is told where to write (`start_pos`). Qwen3: the cache is handed back with the logits;
it takes padding and positions. Gemma 3: a ring for a window, in a class that nothing in the model makes.
"""

from typing import Any

from own_ports import COMMON, CONFIGS

ATTEND = """
def attend_where(q, k, v, scale, allowed):
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.mT * scale).masked_fill(~allowed, torch.finfo(q.dtype).min)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def earlier(T, S):
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)
"""

GPT2 = """
class Room:
    def __init__(self, batch, heads, length, head_dim):
        self.k, self.v = torch.zeros(batch, heads, length, head_dim), torch.zeros(batch, heads, length, head_dim)
        self.used = 0

    def append(self, k, v):
        T = k.shape[2]
        self.k[:, :, self.used : self.used + T], self.v[:, :, self.used : self.used + T] = k, v
        self.used += T
        return self.k[:, :, : self.used], self.v[:, :, : self.used]


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.head_dim = c.n_embd // c.n_head
        self.qkv, self.proj = nn.Linear(c.n_embd, 3 * c.n_embd), nn.Linear(c.n_embd, c.n_embd)

    def forward(self, x, room):
        q, k, v = (heads_of(t, self.head_dim) for t in self.qkv(x).chunk(3, dim=-1))
        if room is not None:
            k, v = room.append(k, v)
        return self.proj(attend_where(q, k, v, self.head_dim**-0.5, earlier(q.shape[2], k.shape[2])))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(c.n_embd), nn.LayerNorm(c.n_embd)
        self.attn = Attention(c)
        self.up, self.down = nn.Linear(c.n_embd, 4 * c.n_embd), nn.Linear(4 * c.n_embd, c.n_embd)

    def forward(self, x, room):
        x = x + self.attn(self.ln1(x), room)
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.head_dim = c.n_head, c.n_embd // c.n_head
        self.tok, self.pos = nn.Embedding(c.vocab_size, c.n_embd), nn.Embedding(c.n_positions, c.n_embd)
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.n_layer)])
        self.ln_f = nn.LayerNorm(c.n_embd)

    def new_cache(self, batch_size, capacity):
        return [Room(batch_size, self.heads, capacity, self.head_dim) for _ in self.blocks]

    def forward(self, ids, cache=None):
        start = cache[0].used if cache else 0
        x = self.tok(ids) + self.pos(torch.arange(start, start + ids.shape[1]))
        for i, block in enumerate(self.blocks):
            x = block(x, cache[i] if cache else None)
        return self.ln_f(x) @ self.tok.weight.T
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
        self.cache_k = torch.zeros(4, c.max_position_embeddings, c.num_key_value_heads, head_dim)
        self.cache_v = torch.zeros(4, c.max_position_embeddings, c.num_key_value_heads, head_dim)

    def forward(self, x, freqs, start_pos):
        B, T, _ = x.shape
        q, k, v = (heads_of(project(x), self.head_dim) for project in (self.wq, self.wk, self.wv))
        q, k = turn_neighbours(q, freqs), turn_neighbours(k, freqs)
        self.cache_k[:B, start_pos : start_pos + T] = k.transpose(1, 2)
        self.cache_v[:B, start_pos : start_pos + T] = v.transpose(1, 2)
        k, v = (t[:B, : start_pos + T].transpose(1, 2) for t in (self.cache_k, self.cache_v))
        return self.wo(attend_where(q, k, v, self.head_dim**-0.5, earlier(T, start_pos + T)))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        self.attention, self.feed_forward = Attention(c, head_dim), FeedForward(c.hidden_size, c.intermediate_size)
        self.attention_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.ffn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, freqs, start_pos):
        h = x + self.attention(self.attention_norm(x), freqs, start_pos)
        return h + self.feed_forward(self.ffn_norm(h))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        head_dim = c.hidden_size // c.num_attention_heads
        self.tok_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Block(c, head_dim) for _ in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.output = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.freqs = angles(head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, tokens, start_pos=0):
        h = self.tok_embeddings(tokens)
        freqs = self.freqs[start_pos : start_pos + tokens.shape[1]]
        for layer in self.layers:
            h = layer(h, freqs, start_pos)
        return self.output(self.norm(h))
"""

QWEN3 = """
class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.head_dim = c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps), RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x, angle, allowed, past):
        q, k, v = (heads_of(project(x), self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turn_halves(self.q_norm(q), angle), turn_halves(self.k_norm(k), angle)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        return self.o_proj(attend_where(q, k, v, self.head_dim**-0.5, allowed)), (k, v)


class MLP(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(c.hidden_size, c.rms_norm_eps), RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn, self.mlp = Attention(c), MLP(c.hidden_size, c.intermediate_size)

    def forward(self, x, angle, allowed, past):
        attended, kept = self.self_attn(self.norm1(x), angle, allowed, past)
        x = x + attended
        return x + self.mlp(self.norm2(x)), kept


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Layer(c) for _ in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.angle = angles(c.head_dim, c.max_position_embeddings, c.rope_theta)

    def forward(self, ids, past_kv=None, use_cache=False, attention_mask=None, position_ids=None):
        x, (B, T) = self.embed_tokens(ids), ids.shape
        seen = past_kv[0][0].shape[2] if past_kv else 0
        if position_ids is None:
            position_ids = torch.arange(seen, seen + T)[None]
        allowed = earlier(T, seen + T)
        if attention_mask is not None:
            allowed = allowed & attention_mask.bool()[:, None, None]
        kept = []
        for i, layer in enumerate(self.layers):
            x, one = layer(x, self.angle[position_ids][:, None], allowed, past_kv[i] if past_kv else None)
            kept.append(one)
        logits = self.norm(x) @ self.embed_tokens.weight.T
        return (logits, kept) if use_cache else logits
"""

GEMMA3 = """
class RingCache:
    def __init__(self, num_layers):
        self.k, self.v, self.seen = [None] * num_layers, [None] * num_layers, 0

    def update(self, i, k, v, window):
        k = k if self.k[i] is None else torch.cat((self.k[i], k), dim=2)
        v = v if self.v[i] is None else torch.cat((self.v[i], v), dim=2)
        room = window - 1 if window else k.shape[2]
        self.k[i], self.v[i] = k[:, :, -room:], v[:, :, -room:]
        return k, v


class SelfAttention(nn.Module):
    def __init__(self, c, sliding):
        super().__init__()
        self.head_dim, self.window = c.head_dim, c.sliding_window if sliding else 0
        self.scale = c.query_pre_attn_scalar**-0.5
        self.sizes = [n * c.head_dim for n in (c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads)]
        self.wqkv = nn.Linear(c.hidden_size, sum(self.sizes), bias=False)
        self.proj = nn.Linear(self.sizes[0], c.hidden_size, bias=False)
        self.query_norm, self.key_norm = RMSNorm(c.head_dim, 1e-6, 1.0), RMSNorm(c.head_dim, 1e-6, 1.0)

    def forward(self, x, angle, i, cache):
        q, k, v = (heads_of(t, self.head_dim) for t in self.wqkv(x).split(self.sizes, dim=-1))
        q, k = turn_halves(self.query_norm(q), angle), turn_halves(self.key_norm(k), angle)
        if cache is not None:
            k, v = cache.update(i, k, v, self.window)
        allowed = earlier(q.shape[2], k.shape[2])
        if self.window:
            allowed = allowed.triu(k.shape[2] - q.shape[2] + 1 - self.window)
        return self.proj(attend_where(q, k, v, self.scale, allowed))


class GeGLU(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate_up, self.down = nn.Linear(dim, 2 * hidden, bias=False), nn.Linear(hidden, dim, bias=False)

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

    def forward(self, x, local, everywhere, i, cache):
        attended = self.attn(self.pre_attn_norm(x), local if self.sliding else everywhere, i, cache)
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

    def forward(self, ids, kv_cache=None):
        T, x = ids.shape[1], self.embedder(ids)
        start = kv_cache.seen if kv_cache is not None else 0
        x = x * x.shape[-1] ** 0.5
        for i, block in enumerate(self.blocks):
            x = block(x, self.local[start : start + T], self.everywhere[start : start + T], i, kv_cache)
        if kv_cache is not None:
            kv_cache.seen += T
        return F.linear(self.final_norm(x), self.embedder.weight)
"""
PROGRAMS = {"GPT-2": GPT2, "Llama": LLAMA, "Qwen3": QWEN3, "Gemma 3": GEMMA3}
__all__ = ["CONFIGS", "PROGRAMS", "program", "source_of"]


def source_of(family: str, *changes: tuple[str, str]) -> str:
    """The whole program, with parts of its source replaced."""
    source = COMMON + ATTEND + PROGRAMS[family]
    for find, replace in changes:
        assert source.count(find) == 1, f"{find!r} occurs {source.count(find)} times"
        source = source.replace(find, replace)
    return source


def program(family: str, *changes: tuple[str, str], more: str = "") -> Any:
    """The program's class. more: source that comes after it."""
    names: dict[str, Any] = {"__name__": "learner"}
    exec(compile(source_of(family, *changes) + more, "<learner>", "exec"), names)
    return names["Model"]
