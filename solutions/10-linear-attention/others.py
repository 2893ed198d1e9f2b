"""What tests/lessons/test_every_lesson.py asks of linear attention: other right programs and wrong ones, random configs."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import build_model

LESSON = lesson_of(__file__)

MISTAKES = 212
VARIES = ["linear_attention.conv", "linear_attention.chunked", "linear_attention.delta_net"]
WITHOUT = {
    "bfloat16": {
        "linear_attention.recall": "it is a Python float",
        "linear_attention.model": "its parts are checked in bfloat16, and a whole model rounds in an order of its own",
        "linear_attention.bytes": "it counts whole numbers",
    },
    "CONFIG_SHA256": "its configs have the fields that count",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A small Qwen3.5's, besides sizes for what has no config."""
    k_heads, kv_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layers = draw(st.integers(1, 3))
    kinds = draw(st.lists(st.sampled_from(["linear_attention", "full_attention"]), min_size=layers, max_size=layers))
    return exercises.SMALL | {
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": draw(st.integers(4, 24)),
        "intermediate_size": draw(st.integers(1, 30)),
        "num_hidden_layers": layers,
        "layer_types": kinds,
        "num_attention_heads": kv_heads * draw(st.integers(1, 3)),
        "num_key_value_heads": kv_heads,
        "head_dim": 8 * draw(st.integers(1, 2)),
        "linear_num_key_heads": k_heads,
        "linear_num_value_heads": k_heads * draw(st.integers(1, 3)),
        "linear_key_head_dim": draw(st.integers(1, 8)),
        "linear_value_head_dim": draw(st.integers(1, 8)),
        "linear_conv_kernel_dim": draw(st.integers(2, 5)),
        "rms_norm_eps": draw(st.sampled_from([1e-2, 1e-1])),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([1e2, 1e4, 1e7])),
            "partial_rotary_factor": draw(st.sampled_from([0.25, 0.5, 1.0])),
        },
    }


CONFIGS = configs()
KINDS = ("", "alike", "loud", "tiny")


def shape_of(config: dict[str, Any], n: Numbers) -> tuple[int, int, int, int, int]:
    """B, T, H, d_k and d_v."""
    widths = config["linear_key_head_dim"], config["linear_value_head_dim"]
    return n.batch, n.length, config["linear_num_value_heads"], *widths


def of_conv(config: dict[str, Any], n: Numbers) -> Case:
    sizes = config["hidden_size"], config["linear_conv_kernel_dim"]
    return exercises.conv_case(str(n.seed), *sizes, n.batch, n.chunks, scale=n.scale)


def of_gates(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.gates_case(
        str(n.seed), n.batch, n.length, config["linear_num_value_heads"], shift=n.seed % 50 - 10
    )


def of_recurrent(config: dict[str, Any], n: Numbers) -> Case:
    kind, given = KINDS[n.seed % 4], n.seed % 3 == 0
    return exercises.rule_case(str(n.seed), shape_of(config, n), n.chunks, kind, given=given)


def of_recall(config: dict[str, Any], n: Numbers) -> Case:
    rule = ("sum", "delta")[n.seed % 2]
    return exercises.recall_case(str(n.seed), 8 + config["linear_key_head_dim"], 12 + n.length, rule, 1000, 0.03)


def of_chunked(config: dict[str, Any], n: Numbers) -> Case:
    kind, given = KINDS[n.seed % 4], n.seed % 3 == 0
    size = 1 + n.seed % 6
    return exercises.rule_case(str(n.seed), shape_of(config, n), n.chunks, kind, size, given=given)


def of_norm(config: dict[str, Any], n: Numbers) -> Case:
    heads = config["linear_num_value_heads"]
    sizes = 1 + config["linear_value_head_dim"], config["rms_norm_eps"]
    return exercises.norm_case(str(n.seed), *sizes, n.batch, n.length, heads, scale=n.scale)


def of_net(config: dict[str, Any], n: Numbers) -> Case:
    chunks = n.chunks if n.seed % 2 else []
    padded = [row % n.length for row in range(n.batch)] if n.seed % 3 == 0 else None
    return exercises.net_case(str(n.seed), config, n.batch, chunks, n.length, padded=padded)


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    chunks = n.chunks if n.seed % 2 else []
    start = 0 if chunks else n.seed % 20
    return exercises.attention_case(str(n.seed), config, n.batch, n.length, start, chunks, scale=max(n.scale, 0.1))


def of_model(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.model_case(str(n.seed), config, n.batch, n.chunks if n.seed % 2 else [], n.length)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    made = config | {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    return exercises.memory_case(str(n.seed), made, (1, 2, 4)[n.seed % 3])


def of_mamba(config: dict[str, Any], n: Numbers) -> Case:
    groups = config["linear_num_key_heads"]
    return exercises.mamba_case(str(n.seed), shape_of(config, n), groups, n.chunks, given=n.seed % 2 == 0)


def of_kimi(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.kimi_case(str(n.seed), shape_of(config, n), n.chunks, given=n.seed % 2 == 0, scale=n.scale)


RANDOM = {
    "linear_attention.conv": of_conv,
    "linear_attention.gates": of_gates,
    "linear_attention.recurrent": of_recurrent,
    "linear_attention.recall": of_recall,
    "linear_attention.chunked": of_chunked,
    "linear_attention.norm": of_norm,
    "linear_attention.delta_net": of_net,
    "linear_attention.attention": of_attention,
    "linear_attention.model": of_model,
    "linear_attention.bytes": of_bytes,
    "linear_attention.mamba2": of_mamba,
    "linear_attention.kda": of_kimi,
}


# Other right programs


class ConvBase(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, kernel))
        self.kernel = kernel


class ConvByKernel(ConvBase):
    """PyTorch's convolution, channels before tokens."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if state is None:
            state = torch.zeros(x.shape[0], self.kernel - 1, x.shape[2], dtype=x.dtype)
        whole = torch.cat((state, x), 1)
        if x.shape[1]:
            x = F.silu(F.conv1d(whole.mT, self.weight, groups=x.shape[2]).mT)
        return x, whole[:, whole.shape[1] - self.kernel + 1 :].contiguous().clone()


class ConvByWindows(ConvBase):
    """Windows of the padded text, and a product with the weights of each channel."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before = self.kernel - 1
        whole = F.pad(x, (0, 0, before, 0)) if state is None else torch.cat([state.to(x.dtype), x], dim=1)
        rows = [(whole[:, t : t + self.kernel] * self.weight[:, 0].T).sum(1) for t in range(x.shape[1])]
        y = torch.stack(rows, dim=1) if rows else x
        return y * y.sigmoid() if rows else x, whole.flip(1)[:, :before].flip(1).clone()


def gates_by_logaddexp(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    shifted = a.to(torch.float32) + dt_bias
    return -torch.exp(A_log.float()) * torch.logaddexp(shifted, torch.zeros_like(shifted)), 1 / (1 + torch.exp(-b))


def gates_by_logsigmoid(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> list[Tensor]:
    """-softplus(x) is log(sigmoid(-x))."""
    return [F.logsigmoid(-(a.float() + dt_bias.float())) * A_log.float().exp(), torch.sigmoid(b.float()).to(b.dtype)]


def normed(x: Tensor) -> Tensor:
    return x.float() / torch.sqrt(x.float().pow(2).sum(-1, keepdim=True) + 1e-6)


def with_products(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As the paper writes it: the state, transposed, times (I - beta k k^T), plus beta v k^T."""
    B, T, H, width = k.shape
    dtype, outputs = v.dtype, []
    q, k, v, g, beta = normed(q) / math.sqrt(width), normed(k), v.float(), g.float(), beta.float()
    kept = torch.zeros(B, H, v.shape[-1], width) if state is None else state.float().mT
    for t in range(T):
        key, weight = k[:, t, :, :, None], beta[:, t, :, None, None]
        kept = (torch.exp(g[:, t])[..., None, None] * kept) @ (torch.eye(width) - weight * key @ key.mT)
        kept = kept + weight * v[:, t, :, :, None] @ key.mT
        outputs.append((kept @ q[:, t, :, :, None])[..., 0])
    given = torch.stack(outputs, dim=1) if T else v
    return given.to(dtype), kept.mT


def with_heads_in_turn(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Text by text and head by head, as whoever writes it for one head first."""
    B, T, H, width = k.shape
    rows, states = [], []
    for b in range(B):
        for h in range(H):
            S = torch.zeros(width, v.shape[-1]) if state is None else state[b, h].float()
            seen = []
            for t in range(T):
                key, value = normed(k[b, t, h]), v[b, t, h].float()
                S = S * g[b, t, h].float().exp()
                S = S + torch.outer(key, beta[b, t, h].float() * (value - key @ S))
                seen.append((normed(q[b, t, h]) * width**-0.5) @ S)
            rows.append(torch.stack(seen) if seen else v[b, :, h].float())
            states.append(S)
    output = torch.stack(rows).view(B, H, T, v.shape[-1]).transpose(1, 2)
    return output.to(v.dtype), torch.stack(states).view(B, H, width, v.shape[-1])


def with_one_system(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """All chunks' triangular systems at once, for what is written and for how it depends on the state before."""
    B, T, H, width = k.shape
    dtype, d_v, fill = v.dtype, v.shape[-1], -v.shape[1] % size

    def cut(x: Tensor) -> Tensor:
        padded = F.pad(x.float().movedim(1, -1), (0, fill)).movedim(-1, 2)  # [B, H, T, ...]
        return padded.unflatten(2, (-1, size))

    if not T:
        kept = torch.zeros(B, H, width, d_v) if state is None else state.float().clone()
        return v, kept
    q, k, v, g, beta = cut(normed(q) / math.sqrt(width)), cut(normed(k)), cut(v), cut(g), cut(beta)
    total = g.cumsum(-1)
    later = torch.ones(size, size, dtype=torch.bool).triu(1)
    decay = (total[..., None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()
    system = torch.eye(size) + (beta[..., None] * (k @ k.mT) * decay).tril(-1)
    both = torch.cat([beta[..., None] * v, beta[..., None] * total.exp()[..., None] * k], dim=-1)
    values, keys = torch.linalg.solve_triangular(system, both, upper=False).split([d_v, width], dim=-1)
    kept = torch.zeros(B, H, width, d_v) if state is None else state.float()
    outputs = []
    for i in range(total.shape[2]):
        new = values[:, :, i] - keys[:, :, i] @ kept
        inside = (q[:, :, i] @ k[:, :, i].mT * decay[:, :, i]) @ new
        outputs.append(total[:, :, i].exp()[..., None] * (q[:, :, i] @ kept) + inside)
        left = (total[:, :, i, -1:] - total[:, :, i]).exp()[..., None]
        kept = total[:, :, i, -1].exp()[..., None, None] * kept + (left * k[:, :, i]).mT @ new
    return torch.cat(outputs, dim=2)[:, :, :T].transpose(1, 2).to(dtype), kept


def with_substitution(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """What each token of a chunk writes, found one after the other; no triangular solver, and no cumulated decay."""
    B, T, H, width = k.shape
    dtype, given = v.dtype, []
    q, k, v, g, beta = (x.float().transpose(1, 2) for x in (normed(q) / math.sqrt(width), normed(k), v, g, beta))
    kept = torch.zeros(B, H, width, v.shape[-1]) if state is None else state.float() + 0.0
    for first in range(0, T, size):
        end = min(first + size, T)
        since, written = torch.zeros(B, H, 1), k.new_zeros(B, H, 0, v.shape[-1])  # how much each write has decayed
        left, outputs = torch.zeros(B, H, 0), []
        for t in range(first, end):
            since, left = since + g[:, :, t, None], torch.cat([left + g[:, :, t, None], torch.zeros(B, H, 1)], dim=-1)
            keys = k[:, :, first : t + 1]
            alike = (keys * k[:, :, t, None]).sum(-1) * left.exp()  # [B, H, t + 1 - first]
            had = since[..., None].exp() * (k[:, :, t, None] @ kept) + alike[:, :, None, :-1] @ written
            new = beta[:, :, t, None, None] * (v[:, :, t, None] - had)
            written = torch.cat([written, new], dim=2)
            looked = (keys * q[:, :, t, None]).sum(-1) * left.exp()
            outputs.append(since[..., None].exp() * (q[:, :, t, None] @ kept) + looked[:, :, None] @ written)
        kept = since[..., None].exp() * kept + (k[:, :, first:end] * left.exp()[..., None]).mT @ written
        given += outputs
    output = torch.cat(given, dim=2) if given else v
    return output.transpose(1, 2).to(dtype), kept


def recall_one_by_one(dim: int, pairs: int, rule: str, count: int) -> float:
    """A product of matrices where the delta rule forgets, and float64."""
    keys, values = (torch.randn(pairs, count, dim, 1).double() for _ in range(2))
    keys, values = keys / keys.norm(dim=2, keepdim=True), values / values.norm(dim=2, keepdim=True)
    state = torch.zeros(count, dim, dim).double()
    for k, v in zip(keys, values, strict=True):
        if rule == "delta":
            state = state - k @ (k.mT @ state)
        state = state + k @ v.mT
    return float(sum(((state.mT @ k - v) ** 2).sum() for k, v in zip(keys, values, strict=True)) / (pairs * count))


def recall_by_equations(dim: int, pairs: int, rule: str, count: int) -> float:
    """Without a state: what is written solves a triangular system."""
    keys, values = (F.normalize(torch.randn(count, pairs, dim), dim=-1) for _ in range(2))
    alike = keys @ keys.mT
    written = values
    if rule == "delta":
        written = torch.linalg.solve_triangular(alike.tril(-1), values, upper=False, unitriangular=True)
    return float((alike @ written - values).pow(2).sum(-1).mean())


class NormBase(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(dim)), eps


class NormByKernel(NormBase):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps)
        return (normed * F.silu(gate.float())).type_as(x)


class NormByLength(NormBase):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        wide, opened = x.float(), gate.float() * gate.float().sigmoid()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1]
        return (opened * wide / (length + self.eps).sqrt() * self.weight).to(x.dtype)


class NetBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.keys = c.linear_num_key_heads * c.linear_key_head_dim
        self.values = c.linear_num_value_heads * c.linear_value_head_dim
        self.out_proj = nn.Linear(self.values, c.hidden_size, bias=False)
        self.in_proj_z = nn.Linear(c.hidden_size, self.values, bias=False)
        self.in_proj_a, self.in_proj_b = (nn.Linear(c.hidden_size, c.linear_num_value_heads, bias=False) for _ in "ab")
        self.in_proj_qkv = nn.Linear(c.hidden_size, 2 * self.keys + self.values, bias=False)
        self.conv1d = ConvByKernel(2 * self.keys + self.values, c.linear_conv_kernel_dim)
        self.norm = NormByKernel(c.linear_value_head_dim, c.rms_norm_eps)
        self.dt_bias, self.A_log = (nn.Parameter(torch.zeros(c.linear_num_value_heads)) for _ in "dA")

    def parts(self, x: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v with heads of their own."""
        c = self.config
        mixed, kept = self.conv1d(self.in_proj_qkv(x), getattr(cache, "conv", None))
        if cache is not None:
            cache.conv = kept
        q, k = (t.unflatten(-1, (-1, c.linear_key_head_dim)) for t in mixed[..., : 2 * self.keys].chunk(2, -1))
        v = mixed[..., 2 * self.keys :].unflatten(-1, (-1, c.linear_value_head_dim))
        head = torch.arange(c.linear_num_value_heads) // (c.linear_num_value_heads // c.linear_num_key_heads)
        return q[:, :, head], k[:, :, head], v

    def finished(self, read: Tensor, x: Tensor) -> Tensor:
        gate = self.in_proj_z(x).view_as(read)
        return self.out_proj(self.norm(read, gate).flatten(-2))  # type: ignore[no-any-return]


class NetTokenByToken(NetBase):
    """Always the recurrence, for prompts, too."""

    def forward(self, x: Tensor, cache: Any = None, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = torch.where(mask[:, :, None], x, torch.zeros_like(x))
        q, k, v = self.parts(x, cache)
        g, beta = gates_by_logaddexp(self.in_proj_a(x), self.in_proj_b(x), self.A_log, self.dt_bias)
        read, kept = with_products(q, k, v, g, beta, None if cache is None else cache.recurrent)
        if cache is not None:
            cache.recurrent = kept
        return self.finished(read, x)


class NetInChunks(NetBase):
    """Always chunks, for one token, too; padding is filled with zeros in a copy."""

    def forward(self, x: Tensor, cache: Any = None, mask: Tensor | None = None) -> Tensor:
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
        q, k, v = self.parts(x, cache)
        g, beta = gates_by_logsigmoid(self.in_proj_a(x), self.in_proj_b(x), self.A_log, self.dt_bias)
        read, kept = with_one_system(q, k, v, g, beta, getattr(cache, "recurrent", None), 8)
        if cache is not None:
            cache.recurrent = kept
        return self.finished(read, x)


class AttentionBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.d = config.get("head_dim") or config.hidden_size // config.num_attention_heads
        self.H, self.KV = config.num_attention_heads, config.num_key_value_heads
        D, norm = config.hidden_size, LESSON.solutions["RMSNorm"]
        self.k_norm, self.q_norm = (norm(self.d, config.rms_norm_eps) for _ in "kq")
        self.o_proj = nn.Linear(self.H * self.d, D, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(D, self.KV * self.d, bias=False) for _ in "kv")
        self.q_proj = nn.Linear(D, 2 * self.H * self.d, bias=False)

    def turned(self, x: Tensor, table: Tensor) -> Tensor:
        """x [B, heads, T, d] with its first channels rotated."""
        half = table.shape[-1] // 2
        cos, sin = table[..., :half].to(x.dtype)
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


class AttentionByHand(AttentionBase):
    """Scores and a softmax written out; the gate comes with the output's heads apart."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        B, T, _ = x.shape
        both = self.q_proj(x).unflatten(-1, (self.H, 2, self.d))
        q, gate = both[..., 0, :], both[..., 1, :]
        q = self.turned(self.q_norm(q).movedim(2, 1), table)
        k = self.turned(self.k_norm(self.k_proj(x).unflatten(-1, (self.KV, self.d))).movedim(2, 1), table)
        v = self.v_proj(x).unflatten(-1, (self.KV, self.d)).movedim(2, 1)
        if cache is not None:
            k, v = cache.append(k, v)
        k, v = (t.repeat_interleave(self.H // self.KV, dim=1) for t in (k, v))
        scores = (q @ k.mT).float() / math.sqrt(self.d)
        future = torch.ones(T, k.shape[2], dtype=torch.bool).triu(k.shape[2] - T + 1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1).to(v.dtype)
        opened = (weights @ v) * torch.sigmoid(gate).movedim(2, 1)
        return self.o_proj(opened.movedim(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


class AttentionTokenByToken(AttentionBase):
    """Each token by itself, the groups of heads with their key head."""

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        T = x.shape[1]
        q, gate = self.q_proj(x).unflatten(-1, (self.H, -1)).split(self.d, dim=-1)
        q = self.turned(self.q_norm(q).transpose(1, 2), table)
        k = self.turned(self.k_norm(self.k_proj(x).unflatten(-1, (-1, self.d))).transpose(1, 2), table)
        v = self.v_proj(x).unflatten(-1, (-1, self.d)).transpose(1, 2)
        k, v = (k, v) if cache is None else cache.append(k, v)
        before, rows = k.shape[2] - T, []
        for t in range(T):
            grouped = q[:, :, t].unflatten(1, (self.KV, -1))  # [B, KV, H / KV, d]
            weights = F.softmax(grouped @ k[:, :, : before + t + 1].mT * self.d**-0.5, dim=-1)
            mixed = (weights @ v[:, :, : before + t + 1]).flatten(1, 2)
            rows.append((mixed * gate[:, t].sigmoid()).flatten(1))
        return self.o_proj(torch.stack(rows, dim=1))  # type: ignore[no-any-return]


class LayerByHand(nn.Module):
    """Both norms and the MLP are the lesson's own."""

    linear: type[nn.Module] = NetTokenByToken
    full: type[nn.Module] = AttentionByHand

    def __init__(self, config: Config, kind: str) -> None:
        super().__init__()
        own = LESSON.solutions
        name = "linear_attn" if kind == "linear_attention" else "self_attn"
        self.add_module(name, (self.linear if name == "linear_attn" else self.full)(config))
        self.input_layernorm = own["RMSNorm"](config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = own["RMSNorm"](config.hidden_size, config.rms_norm_eps)
        self.mlp = own["MLP"](config)

    def forward(self, x: Tensor, table: Tensor, cache: Any) -> Tensor:
        y = self.input_layernorm(x)
        linear = getattr(self, "linear_attn", None)
        x = x + (self.self_attn(y, table, cache) if linear is None else linear(y, cache))
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class OwnState:
    def __init__(self) -> None:
        self.conv: Any = None
        self.recurrent: Any = None
        self.tokens = 0


class ModelByHand(nn.Module):
    """Counts the tokens itself, in the first of its caches, of whichever kind."""

    layer: type[nn.Module] = LayerByHand

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([self.layer(config, kind) for kind in config.layer_types])
        self.norm = LESSON.solutions["RMSNorm"](config.hidden_size, config.rms_norm_eps)

    def new_caches(self) -> list[Any]:
        made = []
        for kind in self.config.layer_types:
            cache = OwnState() if kind == "linear_attention" else LESSON.solutions["KVCache"]()
            cache.tokens = 0
            made.append(cache)
        return made

    def forward(self, ids: Tensor, caches: list[Any] | None = None) -> Tensor:
        start = caches[0].tokens if caches else 0
        if caches:
            caches[0].tokens += ids.shape[1]
        rope, width = self.config.rope_parameters, LESSON.solutions["head_dim"](self.config)
        positions = torch.arange(start, start + ids.shape[1])
        table = LESSON.solutions["rope_table"](
            positions, round(width * rope["partial_rotary_factor"]), rope["rope_theta"]
        )
        x = F.embedding(ids, self.embed_tokens.weight)
        for i, layer in enumerate(self.layers):
            x = layer(x, table, caches[i] if caches else None)
        return self.norm(x)  # type: ignore[no-any-return]


class LayerOtherwise(LayerByHand):
    linear, full = NetInChunks, AttentionTokenByToken


class ModelOtherwise(ModelByHand):
    layer = LayerOtherwise


def memory_layer_by_layer(config: Config, element_bytes: int = 2) -> list[int]:
    fixed = grows = 0
    for kind in LESSON.solutions["layer_types"](config):
        if kind == "full_attention":
            width = config.get("head_dim") or config.hidden_size // config.num_attention_heads
            grows += 2 * config.num_key_value_heads * width * element_bytes
            continue
        fixed += config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim * 4
        channels = 2 * config.linear_num_key_heads * config.linear_key_head_dim
        channels += config.linear_num_value_heads * config.linear_value_head_dim
        fixed += (config.linear_conv_kernel_dim - 1) * channels * element_bytes
    return [fixed, grows, math.ceil(fixed / grows)]


def memory_from_tensors(config: Config, element_bytes: int = 2) -> Tensor:
    kinds, c = LESSON.solutions["layer_types"](config), config
    state = torch.empty(c.linear_num_value_heads, c.linear_key_head_dim, c.linear_value_head_dim, device="meta").nbytes
    heads = 2 * c.linear_num_key_heads * c.linear_key_head_dim + c.linear_num_value_heads * c.linear_value_head_dim
    fixed = (state + heads * (c.linear_conv_kernel_dim - 1) * element_bytes) * kinds.count("linear_attention")
    grows = 2 * c.num_key_value_heads * LESSON.solutions["head_dim"](c) * element_bytes * kinds.count("full_attention")
    return torch.tensor([fixed, grows, (fixed + grows - 1) // grows])


def mamba_transposed(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor, A_log: Tensor, dt_bias: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """With the state as transformers has it, and heads looked up by their group."""
    (B, T, H, P), N = v.shape, k.shape[-1]
    group = torch.arange(H) // (H // k.shape[2])
    step = torch.logaddexp(dt.float() + dt_bias, torch.zeros(()))
    kept = torch.zeros(B, H, P, N) if state is None else state.float().transpose(2, 3)
    outputs = []
    for t in range(T):
        decay = torch.exp(-torch.exp(A_log) * step[:, t])
        kept = decay[..., None, None] * kept
        kept = kept + torch.einsum("bh,bhp,bhn->bhpn", step[:, t], v[:, t].float(), k[:, t, group].float())
        outputs.append((kept * q[:, t, group, None].float()).sum(-1) + v[:, t].float() * D[None, :, None])
    return (torch.stack(outputs, 1) if T else v).to(v.dtype), kept.transpose(2, 3)


def mamba_at_once(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor, A_log: Tensor, dt_bias: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Without a loop: every token with every earlier one."""
    dtype, H = v.dtype, v.shape[2]
    q, k = (t.float().repeat_interleave(H // t.shape[2], 2).transpose(1, 2) for t in (q, k))
    step, x = F.softplus(dt.float() + dt_bias).transpose(1, 2), v.float().transpose(1, 2)
    total = F.pad((-A_log.exp()[:, None] * step).cumsum(-1), (1, 0))  # [B, H, 1 + T]
    if state is None:
        state = torch.zeros(len(v), H, k.shape[-1], v.shape[-1])
    later = torch.ones(v.shape[1], v.shape[1], dtype=torch.bool).triu(1)
    decay = (total[..., 1:, None] - total[..., None, 1:]).masked_fill(later, -torch.inf).exp()
    y = (q @ k.mT * decay) @ (step[..., None] * x) + total[..., 1:, None].exp() * (q @ state.float())
    last = ((total[..., -1:] - total[..., 1:]).exp() * step)[..., None] * k
    kept = last.mT @ x + total[..., -1, None, None].exp() * state.float()
    return (y + D[:, None, None] * x).transpose(1, 2).to(dtype), kept


def kimi_with_products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(I - beta k k^T) diag(decay) S + beta k v^T."""
    B, T, H, width = k.shape
    kept = torch.zeros(B, H, width, v.shape[-1]) if state is None else state.float()
    decay = torch.exp(torch.exp(A_log)[:, None] * F.logsigmoid(-(f.float() + dt_bias)))
    keys, queries, outputs = normed(k), normed(q) / math.sqrt(width), []
    for t in range(T):
        weight = torch.sigmoid(b[:, t].float())[..., None, None]
        key = keys[:, t, ..., None]
        kept = (torch.eye(width) - weight * key @ key.mT) @ (decay[:, t, ..., None] * kept)
        kept = kept + weight * key @ v[:, t, :, None].float()
        outputs.append((queries[:, t, :, None] @ kept)[:, :, 0])
    return (torch.stack(outputs, 1) if T else v).to(v.dtype), kept


def kimi_transposed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor | None = None,
) -> list[Tensor]:
    """States [d_v, d_k], heads before tokens."""
    q, k, v, f, b = (x.transpose(1, 2) for x in (normed(q), normed(k), v, f.float(), b.float()))
    size, outputs = k.shape[-1] ** 0.5, []
    g = -A_log.exp()[:, None, None] * F.softplus(f + dt_bias[:, None])
    kept = torch.zeros(*v.shape[:2], v.shape[-1], k.shape[-1]) if state is None else state.float().mT
    for q_t, k_t, v_t, g_t, b_t in zip(*(x.unbind(2) for x in (q, k, v.float(), g, b)), strict=True):
        kept = kept * g_t.exp()[:, :, None]
        new = (v_t - (kept * k_t[:, :, None]).sum(-1)) * b_t.sigmoid()[..., None]
        kept = kept + new[..., None] * k_t[:, :, None]
        outputs.append((kept * q_t[:, :, None]).sum(-1) / size)
    y = torch.stack(outputs, 2) if outputs else v
    return [y.transpose(1, 2).to(v.dtype), kept.mT]


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "linear_attention.conv": (ConvByKernel, ConvByWindows),
    "linear_attention.gates": (gates_by_logaddexp, gates_by_logsigmoid),
    "linear_attention.recurrent": (with_products, with_heads_in_turn, with_substitution, with_one_system),
    "linear_attention.recall": (recall_one_by_one, recall_by_equations),
    "linear_attention.chunked": (with_one_system, with_substitution),
    "linear_attention.norm": (NormByKernel, NormByLength),
    "linear_attention.delta_net": (NetTokenByToken, NetInChunks),
    "linear_attention.attention": (AttentionByHand, AttentionTokenByToken),
    "linear_attention.model": (ModelByHand, ModelOtherwise),
    "linear_attention.bytes": (memory_layer_by_layer, memory_from_tensors),
    "linear_attention.mamba2": (mamba_transposed, mamba_at_once),
    "linear_attention.kda": (kimi_with_products, kimi_transposed),
}


# Programs that are right only by chance


class ConvForgetsShortPieces(ConvByKernel):
    """Right while each piece is as long as the kernel."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, _ = super().forward(x, state)
        return y, F.pad(x, (0, 0, self.kernel - 1, 0))[:, x.shape[1] :].clone()


def from_nothing(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Right at the beginning of a text."""
    return with_products(q, k, v, g, beta, None if state is None else 0.0 * state)


def chunks_in_name(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """Right, and one token after the other."""
    return with_products(q, k, v, g, beta, state)


def chunks_with_ratios(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """Right while decays are mild: keys are divided by theirs."""
    B, T, H, width = k.shape
    dtype, outputs = v.dtype, []
    q, k, v, g, beta = (x.float().transpose(1, 2) for x in (normed(q) / math.sqrt(width), normed(k), v, g, beta))
    kept = torch.zeros(B, H, width, v.shape[-1]) if state is None else state.float()
    for first in range(0, T, size):
        q_, k_, v_, g_, b_ = (x[:, :, first : first + size] for x in (q, k, v, g, beta))
        decay = g_.cumsum(-1).exp()[..., None]
        up, down = k_ * decay, k_ / decay
        new = torch.linalg.solve_triangular(
            (b_[..., None] * up @ down.mT).tril(-1),
            b_[..., None] * (v_ - up @ kept),
            upper=False,
            unitriangular=True,
        )
        outputs.append((q_ * decay) @ kept + ((q_ * decay) @ down.mT).tril() @ new)
        kept = decay[:, :, -1:] * (kept + down.mT @ new)
    return torch.cat([v[:, :, :0], *outputs], 2).transpose(1, 2).to(dtype), kept


def chunks_with_powers(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """Right while keys are not alike: the inverse is a product of powers, which are large then."""
    solver = torch.linalg.solve_triangular

    def by_powers(system: Tensor, wanted: Tensor, **more: Any) -> Tensor:
        eye = torch.eye(system.shape[-1])
        power = -system.tril(-1)
        inverse = eye + power
        for _ in range(7):
            power = power @ power
            inverse = inverse @ (eye + power)
        return inverse @ wanted

    torch.linalg.solve_triangular = by_powers
    try:
        return with_one_system(q, k, v, g, beta, state, size)
    finally:
        torch.linalg.solve_triangular = solver


class NetInPlace(NetInChunks):
    """Right while nobody goes back: the new state is written into the old one's memory."""

    def forward(self, x: Tensor, cache: Any = None, mask: Tensor | None = None) -> Tensor:
        before = None if cache is None else cache.recurrent
        output = super().forward(x, cache, mask)
        if before is not None:
            before.data.copy_(cache.recurrent.data)
        return output


class NetOfEqualHeads(NetTokenByToken):
    """Right where there are as many key heads as value heads."""

    def parts(self, x: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x, cache)
        order = torch.arange(v.shape[2]).view(self.config.linear_num_key_heads, -1).T.flatten()
        return q[:, :, order], k[:, :, order], v


class ModelOfOnePass(ModelByHand):
    """Right while a text comes at once."""

    def forward(self, ids: Tensor, caches: list[Any] | None = None) -> Tensor:
        if caches:
            caches[0].tokens = 0
        return super().forward(ids, caches)


BY_CHANCE = {
    "linear_attention.conv": [ConvForgetsShortPieces],
    "linear_attention.recurrent": [from_nothing],
    "linear_attention.chunked": [chunks_in_name, chunks_with_ratios, chunks_with_powers],
    "linear_attention.delta_net": [NetOfEqualHeads, NetInPlace],
    "linear_attention.model": [ModelOfOnePass],
}


# What comes back in the wrong form is told in plain words, and a wrong part is named where it is used


class OutputAlone(ConvByKernel):
    def forward(self, x: Tensor, state: Tensor | None = None) -> Any:
        return super().forward(x, state)[0]


def state_transposed(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    o, kept = with_products(q, k, v, g, beta, None if state is None else state.mT)
    return o, kept.mT


TOLD = [
    Told("linear_attention.conv", OutputAlone, ["two tensors belong there: output, state"]),
    Told("linear_attention.recurrent", state_transposed, ["state: [2, 3, 4, 5]; [2, 3, 5, 4] belongs there"]),
    Told(
        "linear_attention.chunked",
        Change("linear_attention.recurrent", "keepdim=True) + 1e-6)", "keepdim=True) + 1e-2)"),
        ["`recurrent_delta_rule`"],
    ),
    Told(
        "linear_attention.delta_net",
        Change("linear_attention.norm", "F.silu(gate.float())", "gate.float().sigmoid()"),
        ["Mend `linear_attention.norm` first"],
    ),
    Told(
        "linear_attention.delta_net",
        Change("linear_attention.gates", "b.sigmoid()", "2 * b.sigmoid()"),
        ["Mend `linear_attention.gates` first"],
    ),
]


# Bugs that the layer comparison finds, names and trained weights


class AllChannelsRotated(LESSON.solutions["Model"]):  # type: ignore[misc, name-defined]
    """A full layer that rotates half of what it should."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        attention = self.layers[3].self_attn
        gated = attention.o_proj.forward
        attention.o_proj.forward = lambda x: gated(x.flip(-1))


PLANTED = [("layers.3.self_attn.o_proj", AllChannelsRotated)]
HUB = {"linear_attention.model": build_model}
# Without a head, as transformers' model has them on a device that holds no numbers.
SIZES = {"qwen3.5-27b": (LESSON.config("qwen3.5-27b"), 25_624_600_064)}


def causal_lm(config: Config) -> nn.Module:
    """The model with the head that a cell of the lesson makes."""
    return LESSON.solutions["CausalLM"](config)  # type: ignore[no-any-return]


PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [Trained("austen-qwen3.5", "CausalLM", "generate", PROMPTS)]
RERUNS = {
    "with other convolutions, gates, rules, norms, layers and models": Rerun(
        {
            "linear_attention.conv": ConvByKernel,
            "linear_attention.gates": gates_by_logaddexp,
            "linear_attention.recurrent": with_products,
            "linear_attention.recall": recall_one_by_one,
            "linear_attention.chunked": with_one_system,
            "linear_attention.norm": NormByLength,
            "linear_attention.bytes": memory_layer_by_layer,
            "linear_attention.mamba2": mamba_transposed,
            "linear_attention.kda": kimi_with_products,
        },
        shows=["2,349"],
    ),
}
