"""What tests/lessons/test_every_lesson.py asks of the new models: other right programs and wrong ones, random configs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.programs import GatedBase, rotated
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .reference import build_olmo

LESSON = lesson_of(__file__)

MISTAKES = 186
VARIES = [
    "new_models.olmo_attention",
    "new_models.yarn",
    "new_models.sink_attention",
    "new_models.experts",
    "new_models.gemma_attention",
    "new_models.cache_bytes",
]
WITHOUT = {
    "bfloat16": {
        "new_models.nope": "its layers are checked in bfloat16 in lesson 03",
        "new_models.yarn": "it is computed in float32, whatever comes in",
        "new_models.olmo": "its parts are checked in bfloat16, and a whole model rounds in an order of its own",
        "new_models.proportional": "it is computed in float32, whatever comes in",
        "new_models.kv_source": "it returns whole numbers",
        "new_models.cache_bytes": "it counts whole numbers",
    },
    "CONFIG_SHA256": "its configs have the fields that count",
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes that all four families have, and what one of them has besides."""
    kv_heads, layers = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    kinds = draw(st.lists(st.sampled_from([exercises.SLIDING, exercises.FULL]), min_size=layers, max_size=layers))
    owners = kinds[:-1]
    return {
        "vocab_size": draw(st.integers(2, 60)),
        "hidden_size": 12 * draw(st.integers(1, 2)),
        "intermediate_size": draw(st.integers(1, 30)),
        "num_hidden_layers": layers,
        "layer_types": kinds,
        "last_shares": set(kinds) == set(owners) and kinds[-1] == exercises.FULL,
        "num_attention_heads": kv_heads * draw(st.integers(1, 2)),
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 6)),
        "sliding_window": draw(st.integers(1, 6)),
        "rms_norm_eps": draw(st.sampled_from([1e-2, 1e-1])),
        "rope_theta": draw(st.sampled_from([30.0, 1e4])),
        "num_local_experts": draw(st.integers(3, 7)),
        "max_position_embeddings": 512,
    }


CONFIGS = configs()
NO_WINDOW = {"hidden_act": "silu", "tie_word_embeddings": False}


def scaling_of(n: Numbers) -> dict[str, Any]:
    """A YaRN whose edges are apart: the factor and the rest by the seed."""
    fast = (3.0, 6.0, 12.0)[n.seed % 3]
    return {
        "factor": 2.0 + n.seed % 5,
        "original_max_position_embeddings": 80 + n.seed % 40,
        "beta_fast": fast,
        "truncate": n.seed % 2 == 0,
    }


def with_model(config: dict[str, Any], model_type: str, *without: str) -> dict[str, Any]:
    left_out = ("last_shares", *without)
    return NO_WINDOW | {"model_type": model_type} | {k: v for k, v in config.items() if k not in left_out}


def of_nope(config: dict[str, Any], n: Numbers) -> Case:
    made = with_model(config, "smollm3", "layer_types", "sliding_window", "num_local_experts")
    made["no_rope_layers"] = [(n.seed >> i) & 1 for i in range(made["num_hidden_layers"])]
    return exercises.model_case(str(n.seed), made, n.batch, n.length)


def of_attention(config: dict[str, Any], n: Numbers) -> Case:
    made = with_model(config, "olmo3")
    window = config["sliding_window"] if n.seed % 2 else None
    return exercises.attention_case(str(n.seed), made, n.batch, n.length, window, scale=max(n.scale, 0.1))


def of_yarn(config: dict[str, Any], n: Numbers) -> Case:
    width = 8 + 2 * config["head_dim"]
    return exercises.yarn_case(str(n.seed), range(n.seed % 50, n.seed % 50 + n.length), width, 300.0, scaling_of(n))


def of_olmo(config: dict[str, Any], n: Numbers) -> Case:
    made = with_model(config, "olmo3", "num_local_experts")
    made |= {"head_dim": 8, "rope_theta": 50.0, "rms_norm_eps": 0.1}  # norms of what is nearly 0 amplify rounding
    made |= {"intermediate_size": 8 + made["intermediate_size"], "num_hidden_layers": min(3, made["num_hidden_layers"])}
    made["layer_types"] = made["layer_types"][: made["num_hidden_layers"]]
    if n.seed % 3:
        made["rope_scaling"] = {"rope_type": "yarn", **scaling_of(n), "truncate": True}
    return exercises.model_case(str(n.seed), made, n.batch, n.length)


def of_sinks(config: dict[str, Any], n: Numbers) -> Case:
    made = with_model(config, "gpt_oss")
    window = config["sliding_window"] if n.seed % 2 else None
    return exercises.attention_case(str(n.seed), made, n.batch, n.length, window, scale=max(n.scale, 0.1))


def of_experts(config: dict[str, Any], n: Numbers) -> Case:
    fields = ("hidden_size", "intermediate_size", "num_local_experts")
    made = {"model_type": "gpt_oss"} | {field: config[field] for field in fields}
    made |= {"swiglu_limit": 0.5 + n.seed % 3, "swiglu_alpha": 1.0 + n.seed % 2} if n.seed % 4 else {}
    return exercises.experts_case(str(n.seed), made, n.batch * n.length, 1 + n.seed % 2, scale=n.scale)


def of_proportional(config: dict[str, Any], n: Numbers) -> Case:
    positions = range(n.seed % 50, n.seed % 50 + n.length)
    width, share = 2 + 2 * config["head_dim"], (0.25, 0.5, 0.75, 1.0)[n.seed % 4]
    return exercises.proportional_case(str(n.seed), positions, width, config["rope_theta"], share)


def of_gemma(config: dict[str, Any], n: Numbers) -> Case:
    made = with_model(config, "gemma4_text")
    made["layer_types"] = [*made["layer_types"][:-1], exercises.FULL]
    if config["last_shares"] and n.seed % 3:
        made["num_kv_shared_layers"] = 1
    made |= {"global_head_dim": 2 + config["head_dim"], "attention_k_eq_v": n.seed % 2 == 0}
    made |= {"num_global_key_value_heads": 1} if n.seed % 4 else {}
    layer = n.seed % made["num_hidden_layers"]
    return exercises.gemma_case(str(n.seed), made, layer, n.batch, n.length, scale=max(n.scale, 0.1))


def of_source(config: dict[str, Any], n: Numbers) -> Case:
    kinds = [*config["layer_types"][:-1], exercises.FULL]
    shares = config["last_shares"] and n.seed % 2
    return exercises.source_case(str(n.seed), kinds, 1 if shares else None)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    model = ("olmo3", "gpt_oss", "smollm3")[n.seed % 3]
    made = with_model(config, model, *(["layer_types"] if model == "smollm3" else []))
    return exercises.bytes_case(str(n.seed), made, n.length, (1, 2, 4)[n.seed % 3])


RANDOM = {
    "new_models.nope": of_nope,
    "new_models.olmo_attention": of_attention,
    "new_models.yarn": of_yarn,
    "new_models.olmo": of_olmo,
    "new_models.sink_attention": of_sinks,
    "new_models.experts": of_experts,
    "new_models.proportional": of_proportional,
    "new_models.gemma_attention": of_gemma,
    "new_models.kv_source": of_source,
    "new_models.cache_bytes": of_bytes,
}


# Other right programs


class SmolWithLayers(LESSON.solutions["Model"]):  # type: ignore[misc, name-defined]
    """A layer without RoPE gets the rotations of position 0 for every token."""

    def forward(self, ids: Tensor) -> Tensor:
        c, make = self.config, LESSON.solutions["rope_table"]
        width, theta = LESSON.solutions["head_dim"](c), LESSON.solutions["rope_theta"](c)
        positions = torch.arange(ids.shape[1])
        table = {True: make(positions, width, theta), False: make(0 * positions, width, theta)}
        given, step = c.get("no_rope_layers"), c.get("no_rope_layer_interval", 4)
        x = F.embedding(ids, self.embed_tokens.weight)
        for i in range(len(self.layers)):
            rotates = given[i] != 0 if given is not None else (i + 1) % step > 0
            x = self.layers[i](x, table[bool(rotates)])
        return self.norm(x)  # type: ignore[no-any-return]


class SmolWithoutTable(LESSON.solutions["Model"]):  # type: ignore[misc, name-defined]
    """Attention by PyTorch's kernel, and no rotation where there is none."""

    def forward(self, ids: Tensor) -> Tensor:
        c = self.config
        width = LESSON.solutions["head_dim"](c)
        flags = c.get("no_rope_layers")
        if not flags:
            flags = [1] * c.num_hidden_layers
            every = c.get("no_rope_layer_interval") or 4
            flags[every - 1 :: every] = [0] * len(flags[every - 1 :: every])
        table = LESSON.solutions["rope_table"](torch.arange(ids.shape[-1]), width, LESSON.solutions["rope_theta"](c))
        x = self.embed_tokens(ids)
        for layer, flag in zip(self.layers, flags, strict=True):
            a, y = layer.self_attn, layer.input_layernorm(x)
            q, k, v = (p(y).unflatten(-1, (-1, width)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
            if flag:
                q, k = rotated(q, table), rotated(k, table)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + a.o_proj(mixed.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)  # type: ignore[no-any-return]


def windowed(length: int, window: int | None) -> Tensor:
    """Where a key may be seen, by a band of the matrix of ones: [length, length]."""
    ones = torch.ones(length, length, dtype=torch.bool).tril()
    return ones if window is None else ones.triu(1 - window)


class Projections(nn.Module):
    """Four projections; `bias` is whether they have biases."""

    bias = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, self.H, self.KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.hd = config.get("head_dim") or D // self.H
        self.o_proj = nn.Linear(self.H * self.hd, D, bias=self.bias)
        self.q_proj = nn.Linear(D, self.H * self.hd, bias=self.bias)
        self.v_proj, self.k_proj = (nn.Linear(D, self.KV * self.hd, bias=self.bias) for _ in "vk")

    def cut(self, x: Tensor) -> Tensor:
        """[B, T, H * width] -> [B, H, T, width]."""
        return x.view(*x.shape[:2], -1, self.hd).movedim(2, 1)


class OlmoByKernel(Projections):
    """PyTorch's norm and its attention."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.q_norm = nn.RMSNorm(self.H * self.hd, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(self.KV * self.hd, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        q, k = self.cut(self.q_norm(self.q_proj(x))), self.cut(self.k_norm(self.k_proj(x)))
        seen = windowed(x.shape[1], window)
        mixed = F.scaled_dot_product_attention(
            rotated(q, table), rotated(k, table), self.cut(self.v_proj(x)), attn_mask=seen, enable_gqa=True
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class EarlierNorm(nn.RMSNorm):
    """Lesson 03's, which goes back to the input's dtype before the product with the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x)


class OlmoWithEarlierNorm(OlmoByKernel):
    """Lesson 03's norm where the docstring has Norm: attention rounds more than the two differ."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for name, heads in (("q_norm", self.H), ("k_norm", self.KV)):
            setattr(self, name, EarlierNorm(heads * self.hd, eps=config.rms_norm_eps))


class OlmoHeadByHead(OlmoByKernel):
    """Norms by hand, and head by head."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        q, k = self.normed(self.q_proj(x), self.q_norm), self.normed(self.k_proj(x), self.k_norm)
        q, k, v = rotated(self.cut(q), table), rotated(self.cut(k), table), self.cut(self.v_proj(x))
        hidden = ~windowed(x.shape[1], window)
        outputs = []
        for h in range(self.H):
            g = h * self.KV // self.H
            scores = torch.einsum("btc,bsc->bts", q[:, h] / math.sqrt(self.hd), k[:, g])
            weights = torch.softmax(scores.float().masked_fill(hidden, -torch.inf), -1).type_as(v)
            outputs.append(weights @ v[:, g])
        return self.o_proj(torch.cat(outputs, dim=-1))  # type: ignore[no-any-return]

    def normed(self, x: Tensor, norm: nn.RMSNorm) -> Tensor:
        wide = x.float()
        size = torch.sqrt(wide.square().mean(-1, keepdim=True) + (norm.eps or 0))
        return (wide / size * norm.weight.float()).type_as(x)


def edges_of(head_dim: int, theta: float, scaling: dict[str, Any]) -> tuple[float, float]:
    """YaRN's first and last pair, found by the number of turns that each pair would make."""
    found = []
    for times in (scaling.get("beta_fast", 32) or 32, scaling.get("beta_slow", 1) or 1):
        wavelength = scaling["original_max_position_embeddings"] / times
        found.append(head_dim / 2 * math.log(wavelength / (2 * math.pi), theta))
    if scaling.get("truncate", True):
        found = [math.floor(found[0]), math.ceil(found[1])]
    return max(found[0], 0), min(found[1], head_dim - 1)


def yarn_by_pairs(positions: Tensor, head_dim: int, theta: float, scaling: dict[str, Any]) -> Tensor:
    """Pair by pair, in Python's own numbers."""
    low, high = edges_of(head_dim, theta, scaling)
    frequencies = []
    for i in range(head_dim // 2):
        kept = 1 - min(max((i - low) / (high - low), 0.0), 1.0)
        frequencies.append((kept + (1 - kept) / scaling["factor"]) / theta ** (2 * i / head_dim))
    angles = torch.outer(positions.float(), torch.tensor(frequencies)).repeat(1, 2)
    size = scaling.get("attention_factor") or 1 + math.log(scaling["factor"]) / 10
    return torch.stack((torch.cos(angles) * size, torch.sin(angles) * size))


def yarn_by_polar(positions: Tensor, head_dim: int, theta: float, scaling: dict[str, Any]) -> Tensor:
    """Complex numbers of the factor's length; the ramp by linear interpolation between two tensors."""
    low, high = edges_of(head_dim, theta, scaling)
    fast = torch.pow(theta, -torch.arange(0, head_dim, 2).float() / head_dim)
    ramp = torch.clamp((torch.arange(head_dim // 2) - low) / (high - low), 0, 1)
    angles = torch.outer(positions.float(), torch.lerp(fast, fast / scaling["factor"], ramp))
    given = scaling.get("attention_factor")
    size = torch.full_like(angles, 0.1 * math.log(scaling["factor"]) + 1 if given is None else given)
    turns = torch.polar(size, angles)
    half = torch.stack([turns.real, turns.imag])
    return torch.cat([half, half], dim=-1)


class OlmoLayerByHand(nn.Module):
    attention: type[nn.Module] = OlmoByKernel

    def __init__(self, config: Config) -> None:
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.mlp = GatedBase(config)
        self.self_attn = self.attention(config)
        self.post_feedforward_layernorm = nn.RMSNorm(D, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(D, eps=eps)

    def forward(self, x: Tensor, table: Tensor, window: int | None) -> Tensor:
        x = self.post_attention_layernorm(self.self_attn(x, table, window)) + x
        inner = F.silu(self.mlp.gate_proj(x)) * self.mlp.up_proj(x)
        return self.post_feedforward_layernorm(self.mlp.down_proj(inner)) + x  # type: ignore[no-any-return]


class OlmoByHand(nn.Module):
    """Tables in a dictionary, made by another right program."""

    layer: type[OlmoLayerByHand] = OlmoLayerByHand
    stretched: Callable[..., Tensor] = staticmethod(yarn_by_pairs)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([self.layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, ids: Tensor) -> Tensor:
        c, positions = self.config, torch.arange(ids.shape[1])
        width = LESSON.solutions["head_dim"](c)
        tables = dict.fromkeys(
            ("sliding_attention", "full_attention"), LESSON.solutions["rope_table"](positions, width, c.rope_theta)
        )
        if c.get("rope_scaling") is not None:
            tables["full_attention"] = self.stretched(positions, width, c.rope_theta, c.rope_scaling)
        x = F.embedding(ids, self.embed_tokens.weight)
        for i, layer in enumerate(self.layers):
            kind = c.layer_types[i] if "layer_types" in c else "full_attention" if i % 4 == 3 else "sliding_attention"
            x = layer(x, tables[kind], None if kind == "full_attention" else c.sliding_window)
        return self.norm(x)  # type: ignore[no-any-return]


class OlmoLayerOtherwise(OlmoLayerByHand):
    attention = OlmoHeadByHead


class OlmoOtherwise(OlmoByHand):
    layer, stretched = OlmoLayerOtherwise, staticmethod(yarn_by_polar)


class WithSinks(Projections):
    bias = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.sinks = nn.Parameter(torch.ones(config.num_attention_heads))


class SinksByGate(WithSinks):
    """Attention as ever, times the sigmoid of how far all scores together are above the sink."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        q, k, v = (self.cut(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        k = k.repeat_interleave(self.H // self.KV, 1)
        scores = (rotated(q, table) @ rotated(k, table).mT).float() / math.sqrt(self.hd)
        scores = scores.masked_fill(~windowed(x.shape[1], window), -torch.inf)
        opened = torch.sigmoid(scores.logsumexp(-1) - self.sinks.float()[:, None])  # [B, H, T]
        weights = scores.softmax(-1) * opened[..., None]
        mixed = weights.to(v.dtype) @ v.repeat_interleave(self.H // self.KV, 1)
        return self.o_proj(mixed.movedim(1, 2).flatten(2))  # type: ignore[no-any-return]


class SinksByToken(WithSinks):
    """By PyTorch's kernel: one more key, whose score is added to the mask and whose value is 0."""

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (self.cut(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        k, v = (F.pad(t.repeat_interleave(self.H // self.KV, 1), (0, 0, 0, 1)) for t in (rotated(k, table), v))
        mask = torch.zeros(T, T, dtype=x.dtype).masked_fill(~windowed(T, window), -torch.inf)
        mask = torch.cat([mask.expand(B, self.H, T, T), self.sinks[:, None, None].expand(B, -1, T, 1).to(x.dtype)], -1)
        mixed = F.scaled_dot_product_attention(rotated(q, table), k, v, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class ExpertsBase(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        E, D, inner = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.down_proj, self.down_proj_bias = nn.Parameter(torch.ones(E, inner, D)), nn.Parameter(torch.ones(E, D))
        self.gate_up_proj = nn.Parameter(torch.ones(E, D, 2 * inner))
        self.gate_up_proj_bias = nn.Parameter(torch.ones(E, 2 * inner))
        self.config = config

    def bent(self, both: Tensor) -> Tensor:
        """[..., 2 F] -> [..., F]."""
        most, alpha = self.config.get("swiglu_limit"), self.config.get("swiglu_alpha")
        most, alpha = 7.0 if most is None else most, 1.702 if alpha is None else alpha
        gate, up = both.unflatten(-1, (-1, 2)).unbind(-1)
        gate, up = torch.minimum(gate, torch.tensor(most).to(gate)), torch.clip(up, -most, most)
        return (gate / (1 + torch.exp(-alpha * gate))) * (up + 1)


class ExpertsOfAllRows(ExpertsBase):
    """Every expert computes every row; a matrix of weights picks."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        both = torch.einsum("nd,edf->enf", x, self.gate_up_proj) + self.gate_up_proj_bias[:, None]
        every = self.bent(both) @ self.down_proj + self.down_proj_bias[:, None]  # [E, N, D]
        picks = torch.zeros(len(x), len(every), dtype=x.dtype).scatter(1, chosen, weights.to(x.dtype))
        return torch.einsum("ne,end->nd", picks, every)


class ExpertsRowByRow(ExpertsBase):
    """Each row takes its own experts' matrices."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        both = torch.einsum("nd,nkdf->nkf", x, self.gate_up_proj[chosen]) + self.gate_up_proj_bias[chosen]
        results = torch.einsum("nkf,nkfd->nkd", self.bent(both), self.down_proj[chosen]) + self.down_proj_bias[chosen]
        return (results * weights.to(x.dtype).unsqueeze(-1)).sum(1)


def proportional_by_columns(positions: Tensor, head_dim: int, theta: float, share: float) -> Tensor:
    """The whole head's table, with columns set to what does not turn."""
    table: Tensor = LESSON.solutions["rope_table"](positions, head_dim, theta).clone()
    half = head_dim // 2
    for i in range(math.floor(share * head_dim / 2), half):
        table[0, :, [i, i + half]], table[1, :, [i, i + half]] = 1.0, 0.0
    return table


def proportional_by_padding(positions: Tensor, head_dim: int, theta: float, share: float) -> Tensor:
    turning = int(head_dim * share) // 2
    frequencies = [theta ** (-2 * i / head_dim) for i in range(turning)] + [0.0] * (head_dim // 2 - turning)
    turns = torch.polar(torch.ones(()), torch.outer(positions.float(), torch.tensor(frequencies)))
    return torch.stack([turns.real.repeat(1, 2), turns.imag.repeat(1, 2)])


class GemmaBase(nn.Module):
    """The parts, by what the config says of this layer."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        full = config.layer_types[layer] == "full_attention"
        shares = layer >= len(config.layer_types) - (config.get("num_kv_shared_layers") or 0)
        self.H, self.hd = config.num_attention_heads, config.global_head_dim if full else config.head_dim
        self.one = bool(full and config.get("attention_k_eq_v"))
        self.KV = (self.one and config.get("num_global_key_value_heads")) or config.num_key_value_heads
        self.window, self.eps = None if full else config.sliding_window, config.rms_norm_eps
        D = config.hidden_size
        self.o_proj, self.q_proj = nn.Linear(self.H * self.hd, D, False), nn.Linear(D, self.H * self.hd, False)
        self.q_norm = nn.RMSNorm(self.hd, eps=self.eps)
        if not shares:
            self.k_norm, self.k_proj = nn.RMSNorm(self.hd, eps=self.eps), nn.Linear(D, self.KV * self.hd, False)
            if not self.one:
                self.v_proj = nn.Linear(D, self.KV * self.hd, False)

    def own(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of this layer, [B, KV, T, width] each."""
        raw = self.k_proj(x).unflatten(-1, (self.KV, self.hd)).transpose(1, 2)
        value = raw if self.one else self.v_proj(x).unflatten(-1, (self.KV, self.hd)).transpose(1, 2)
        return rotated(self.k_norm(raw), table), F.rms_norm(value, (self.hd,), eps=self.eps)


class GemmaByKernel(GemmaBase):
    def forward(self, x: Tensor, table: Tensor, kv: Any = None) -> Any:
        k, v = self.own(x, table) if kv is None else kv
        q = rotated(self.q_norm(self.q_proj(x).unflatten(-1, (self.H, self.hd))).transpose(1, 2), table)
        seen = windowed(x.shape[1], self.window)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), (k, v)


class GemmaByGroups(GemmaBase):
    """Query heads in groups, [B, KV, H / KV, T, width], and softmax by hand."""

    def forward(self, x: Tensor, table: Tensor, kv: Any = None) -> Any:
        kv = self.own(x, table) if kv is None else kv
        q = rotated(self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.hd))).movedim(2, 1), table)
        q = q.unflatten(1, (kv[0].shape[1], -1))
        scores = torch.einsum("bgrtc,bgsc->bgrts", q, kv[0]).float()
        scores = scores.masked_fill(~windowed(x.shape[1], self.window), -torch.inf)
        weights = (scores - scores.logsumexp(-1, keepdim=True)).exp().type_as(x)
        mixed = torch.einsum("bgrts,bgsc->btgrc", weights, kv[1])
        return [self.o_proj(mixed.flatten(2)), [kv[0], kv[1]]]


def source_by_search(config: Config) -> list[int]:
    kinds = LESSON.solutions["layer_types"](config)
    own = config.num_hidden_layers - (config.get("num_kv_shared_layers") or 0)
    found = list(range(own))
    for kind in kinds[own:]:
        found.append(next(i for i in reversed(range(own)) if kinds[i] == kind))
    return found


def source_by_list(config: Config) -> Tensor:
    kinds = LESSON.solutions["layer_types"](config)
    own = len(kinds) - config.get("num_kv_shared_layers", 0)
    return torch.tensor(
        [i if i < own else max(j for j in range(own) if kinds[j] == kinds[i]) for i in range(len(kinds))]
    )


def widths(config: Config, kind: str) -> int:
    """Numbers of a key of one layer, all heads together."""
    if config.get("global_head_dim") is None:
        return int(config.num_key_value_heads * LESSON.solutions["head_dim"](config))
    if kind == "sliding_attention":
        return int(config.num_key_value_heads * config.head_dim)
    fewer = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v") else None
    return int((config.num_key_value_heads if fewer is None else fewer) * config.global_head_dim)


def bytes_by_layers(config: Config, tokens: int, element_bytes: int = 2) -> int:
    total, kinds = 0, LESSON.solutions["layer_types"](config)
    for i in range(config.num_hidden_layers - (config.get("num_kv_shared_layers") or 0)):
        seen = tokens if kinds[i] == "full_attention" else min(config.sliding_window, tokens)
        total += seen * widths(config, kinds[i]) * element_bytes * 2
    return total


def bytes_by_kinds(config: Config, tokens: int, element_bytes: int = 2) -> int:
    kinds: Sequence[str] = LESSON.solutions["layer_types"](config)
    own = kinds[: len(kinds) - config.get("num_kv_shared_layers", 0)]
    kept = {"full_attention": tokens, "sliding_attention": min(tokens, config.get("sliding_window") or tokens)}
    return sum(2 * own.count(kind) * kept[kind] * widths(config, kind) for kind in kept) * element_bytes


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "new_models.nope": (SmolWithLayers, SmolWithoutTable),
    "new_models.olmo_attention": (OlmoByKernel, OlmoHeadByHead, OlmoWithEarlierNorm),
    "new_models.yarn": (yarn_by_pairs, yarn_by_polar),
    "new_models.olmo": (OlmoByHand, OlmoOtherwise),
    "new_models.sink_attention": (SinksByGate, SinksByToken),
    "new_models.experts": (ExpertsOfAllRows, ExpertsRowByRow),
    "new_models.proportional": (proportional_by_columns, proportional_by_padding),
    "new_models.gemma_attention": (GemmaByKernel, GemmaByGroups),
    "new_models.kv_source": (source_by_search, source_by_list),
    "new_models.cache_bytes": (bytes_by_layers, bytes_by_kinds),
}


# Programs that are right only by chance


class SmolOfFourLayers(SmolWithLayers):
    """Right where every fourth layer, and no other, is without RoPE."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config.replace(no_rope_layers=None, no_rope_layer_interval=4)


class OlmoOfOneHead(OlmoHeadByHead):
    """Right where all heads have the same size: each is normed by itself."""

    def normed(self, x: Tensor, norm: nn.RMSNorm) -> Tensor:
        heads = F.rms_norm(x.unflatten(-1, (-1, self.hd)), (self.hd,), eps=norm.eps)
        return heads.flatten(-2) * norm.weight


def yarn_of_published_betas(positions: Tensor, head_dim: int, theta: float, scaling: dict[str, Any]) -> Tensor:
    """Right for OLMo 3 and gpt-oss."""
    return yarn_by_pairs(positions, head_dim, theta, {**scaling, "beta_fast": 32, "beta_slow": 1})


class OlmoOfFour(OlmoByHand):
    """Right where every fourth layer is full."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = Config({name: value for name, value in config.items() if name != "layer_types"})


class SinksThatSumToOne(SinksByGate):
    """Right where sinks are far below all scores."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cut_off = -1e4

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        kept, self.sinks.data = self.sinks.data, torch.full_like(self.sinks.data, self.cut_off)
        try:
            return super().forward(x, table, window)
        finally:
            self.sinks.data = kept


class ExpertsBelowTheLimit(ExpertsOfAllRows):
    """Right while no activation reaches the limit."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config.replace(swiglu_limit=1e6)


def bytes_of_short_texts(config: Config, tokens: int, element_bytes: int = 2) -> int:
    """Right while no text leaves a window."""
    return bytes_by_layers(config.replace(sliding_window=10**9), tokens, element_bytes)


def source_of_equal_kinds(config: Config) -> list[int]:
    """Right where only one layer shares."""
    kinds = LESSON.solutions["layer_types"](config)
    return [
        i if i < len(kinds) - config.get("num_kv_shared_layers", 0) else max(j for j in range(i) if kinds[j] == kind)
        for i, kind in enumerate(kinds)
    ]


BY_CHANCE = {
    "new_models.nope": [SmolOfFourLayers],
    "new_models.olmo_attention": [OlmoOfOneHead],
    "new_models.yarn": [yarn_of_published_betas],
    "new_models.olmo": [OlmoOfFour],
    "new_models.sink_attention": [SinksThatSumToOne],
    "new_models.experts": [ExpertsBelowTheLimit],
    "new_models.kv_source": [source_of_equal_kinds],
    "new_models.cache_bytes": [bytes_of_short_texts],
}


# What a report says


class OutputAlone(GemmaByKernel):
    def forward(self, x: Tensor, table: Tensor, kv: Any = None) -> Any:
        return super().forward(x, table, kv)[0]


TOLD = [
    Told("new_models.gemma_attention", OutputAlone, ["the output and (keys, values) belong there"]),
    Told(
        "new_models.olmo",
        Change(
            "new_models.olmo_attention", "q, k = apply_rope(q, table), apply_rope(k, table)", "q = apply_rope(q, table)"
        ),
        ["Mend `new_models.olmo_attention` first"],
    ),
    Told("new_models.olmo", Change("new_models.yarn", "0.1 * math.log", "0.2 * math.log"), ["`yarn_table`"]),
    Told(
        "new_models.cache_bytes",
        Change("new_models.kv_source", 'config.get("num_kv_shared_layers", 0)', "0"),
        ["`kv_source`"],
    ),
]


# Bugs that the layer comparison finds, names and trained weights


class LastLayerFlipped(LESSON.solutions["OlmoModel"]):  # type: ignore[misc, name-defined]
    """The full layer's output, projected from channels in the opposite order."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        attention = self.layers[3].self_attn
        projected = attention.o_proj.forward
        attention.o_proj.forward = lambda x: projected(x.flip(-1))


PLANTED = [("layers.3.self_attn.o_proj", LastLayerFlipped)]
HUB = {"new_models.olmo": build_olmo}
# Without a head, as transformers' model has them on a device that holds no numbers.
SIZES = {"olmo-3-7b": (LESSON.config("olmo-3-7b"), 7_298_011_136 - 100_278 * 4_096)}

PROMPTS = [Prompt(text, 48) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [Trained("austen-gptoss", "OssLM", "generate", PROMPTS)]

RERUNS = {
    "with other attentions, tables, experts and counts": Rerun(
        {
            "new_models.nope": SmolWithLayers,
            "new_models.yarn": yarn_by_polar,
            "new_models.olmo": OlmoByHand,
            "new_models.proportional": proportional_by_padding,
            "new_models.kv_source": source_by_search,
            "new_models.cache_bytes": bytes_by_kinds,
        },
        ["no_rope_layers: [1, 1, 1, 0, 1]", "E2B: 18 KiB"],
    )
}
