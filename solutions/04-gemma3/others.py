"""What tests/lessons/test_every_lesson.py asks of Gemma 3: other right programs and wrong ones, random configs, checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config, load_checkpoint
from grader.authoring.kit import Case, programs
from grader.authoring.kit.declared import Change, Numbers, Opening, Prompt, Rerun, Told, Trained
from grader.authoring.kit.programs import AttentionBase, GatedBase, NormBase
from grader.authoring.kit.randomly import of_norm, of_tokens, of_vectors
from grader.authoring.kit.solved import lesson_of

from . import exercises
from .exercises import FULL, SLIDING
from .reference import ROWS

LESSON = lesson_of(__file__)

MISTAKES = 224
VARIES = ["gemma3.embedding", "gemma3.mask"]
WITHOUT = {
    "bfloat16": {
        "gemma3.rope": "its tables are float32 in every model",
        "gemma3.mask": "a mask has no dtype",
        "gemma3.model": "its parts are checked in bfloat16, and a whole model rounds in the order of its own",
        "gemma3.causal_lm": "as the model; test_gemma3.py compares one in bfloat16",
    },
}


# Random configs


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3)) * (kv_heads := draw(st.integers(1, 3)))
    layers = draw(st.integers(1, 4))
    config: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": heads * draw(st.integers(1, 8)),
        "intermediate_size": draw(st.integers(1, 60)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 9)),
        "query_pre_attn_scalar": draw(st.integers(1, 300)),
        "sliding_window": draw(st.integers(1, 9)),
        "layer_types": draw(st.lists(st.sampled_from([SLIDING, FULL]), min_size=layers, max_size=layers)),
        "max_position_embeddings": 64,
        "vocab_size": draw(st.integers(2, 70)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    thetas = draw(st.sampled_from([1e2, 1e4, 1e6])), draw(st.sampled_from([1e2, 1e4]))
    if draw(st.booleans()):
        return config | {"rope_theta": thetas[0], "rope_local_base_freq": thetas[1]}
    kinds = {kind: {"rope_type": "default", "rope_theta": t} for kind, t in zip((FULL, SLIDING), thetas, strict=True)}
    return config | {"rope_parameters": kinds}


# exercise -> a random case of it


def of_embedding(config: dict[str, Any], n: Numbers) -> Case:
    return of_tokens(config, n, num_embeddings=config["vocab_size"], embedding_dim=config["hidden_size"])


def kind_of(config: dict[str, Any], n: Numbers) -> str:
    kinds: list[str] = config["layer_types"]
    return kinds[n.seed % len(kinds)]


def of_layer(config: dict[str, Any], n: Numbers) -> Case:
    inputs = exercises.layer_inputs(config, n.batch, kind_of(config, n), n.seed % 50, scale=n.scale)
    return Case(str(n.seed), inputs, {"config": config})


def of_rotations(config: dict[str, Any], n: Numbers) -> Case:
    positions = torch.arange(n.seed % 50, n.seed % 50 + n.length)
    return Case(str(n.seed), lambda draw: [positions, kind_of(config, n)], {"config": config})


def of_mask(config: dict[str, Any], n: Numbers) -> Case:
    window = None if kind_of(config, n) == FULL else n.seed % 25 + 1
    return Case(str(n.seed), lambda draw: [n.length, window])


def of_verdicts(config: dict[str, Any], n: Numbers) -> Case:
    names = list(ROWS)
    rows = [names[(n.seed + 7 * i) % len(names)] for i in range(1 + n.seed % 6)]
    return exercises.verdicts_case(str(n.seed), rows, (2 + n.batch, 8 + n.length), 1.5 + n.seed % 5)


CONFIGS = configs()
RANDOM = {
    "gemma3.embedding": of_embedding,
    "gemma3.rms_norm": of_norm,
    "gemma3.mlp": of_vectors,
    "gemma3.rope": of_rotations,
    "gemma3.mask": of_mask,
    "gemma3.attention": of_layer,
    "gemma3.decoder_layer": of_layer,
    "gemma3.model": of_tokens,
    "gemma3.causal_lm": of_tokens,
    "gemma3.verdicts": of_verdicts,
}


# Other right programs


class EmbeddingByHand(nn.Module):
    """Not an nn.Embedding; the factor is a buffer, cast at each call."""

    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("scale", torch.tensor(embedding_dim).sqrt(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids] * self.scale.to(self.weight.dtype)


class EmbeddingScaledFirst(nn.Embedding):
    """The whole matrix is scaled, then looked up in."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight * self.weight.new_tensor(self.embedding_dim).sqrt())


class EmbeddingRoundedByHand(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        factor = torch.full((self.embedding_dim,), self.embedding_dim).float().pow(0.5).type_as(self.weight)
        return F.embedding(ids, self.weight).mul(factor)


class RMSNormWithKernel(NormBase):
    """The fused kernel, with the weight in it, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], 1 + self.weight.float(), self.eps).to(x.dtype)


class RMSNormWithNorm(RMSNormWithKernel):
    """x plus x times w."""

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x.float() / torch.sqrt(length**2 / x.shape[-1] + self.eps)
        return torch.addcmul(normed, normed, self.weight.float()).type_as(x)


class RMSNormWithEinsum(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        x32 = x.to(torch.float32)
        square = torch.einsum("...d,...d->...", x32, x32) / x.shape[-1]
        scale = (square + self.eps)[..., None] ** -0.5 * (self.weight.to(torch.float32) + 1)
        return (x32 * scale).to(x.dtype)


class MLPFused(GatedBase):
    """Gate and up in one product; GELU's tanh form written out."""

    def forward(self, x: Tensor) -> Tensor:
        both = F.linear(x, torch.cat([self.gate_proj.weight, self.up_proj.weight]))
        gate, up = both.chunk(2, dim=-1)
        opened = 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
        return self.down_proj(opened * up)


class MLPWithEinsum(MLPFused):
    def forward(self, x: Tensor) -> Tensor:
        gate, up = (torch.einsum("btd,fd->btf", x, p.weight) for p in (self.gate_proj, self.up_proj))
        return (up * nn.GELU("tanh")(gate)) @ self.down_proj.weight.T


def table_of(theta: float, width: int, positions: Tensor) -> Tensor:
    channels = torch.arange(width, dtype=torch.float64) % (width // 2)
    angles = positions[:, None] * theta ** (-2 * channels / width)
    return torch.stack([angles.cos(), angles.sin()]).float()


def theta_of(config: Config, layer_type: str) -> float:
    if "rope_parameters" in config:
        theta: float = config["rope_parameters"][layer_type]["rope_theta"]
        return theta
    return config["rope_local_base_freq" if layer_type == SLIDING else "rope_theta"]


class RotaryInFloat64(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        return table_of(theta_of(self.config, layer_type), self.config.head_dim, positions)


class RotaryWithBuffers(nn.Module):
    """Both tables are made once, for all positions there can be."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        positions = torch.arange(config.max_position_embeddings)
        for kind in (SLIDING, FULL):
            table = table_of(theta_of(config, kind), config.head_dim, positions)
            self.register_buffer(kind, table, persistent=False)

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        return getattr(self, layer_type)[:, positions]


def mask_by_triangles(length: int, window: int | None = None) -> Tensor:
    ones = torch.ones(length, length, dtype=torch.bool)
    return ones.tril() if window is None else ones.tril() & ones.triu(1 - window)


def mask_by_loops(length: int, window: int | None = None) -> Tensor:
    first = [0 if window is None else max(0, i - window + 1) for i in range(length)]
    return torch.tensor([[first[i] <= j <= i for j in range(length)] for i in range(length)])


class OtherAttention(AttentionBase):
    norm: type[nn.Module] = RMSNormWithKernel

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scalar = config["query_pre_attn_scalar"]


class AttentionSdpa(OtherAttention):
    """The fused kernel, which shares the key and value heads itself."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        scale = self.scalar**-0.5
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class AttentionWithGroups(OtherAttention):
    """Five axes, so that nothing is repeated; an additive mask; the scale before the product."""

    norm = RMSNormWithEinsum

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        q = q.unflatten(1, (self.KV, -1)) / self.scalar**0.5  # [B, KV, group, T, head_dim]
        scores = torch.einsum("bkgid,bkjd->bkgij", q, k).float()
        scores = scores + torch.zeros(mask.shape).masked_fill(mask.logical_not(), -1e30)
        mixed = torch.einsum("bkgij,bkjd->bikgd", scores.softmax(-1).to(x.dtype), v)
        return self.o_proj(mixed.flatten(2))


class AttentionHeadByHead(OtherAttention):
    """A loop over heads."""

    norm = RMSNormWithNorm

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        results = []
        for h in range(self.H):
            own = h // (self.H // self.KV)
            scores = q[:, h] @ k[:, own].mT * self.scalar**-0.5
            weights = torch.where(mask, scores, torch.finfo(x.dtype).min).softmax(-1)
            results.append(weights @ v[:, own])
        return self.o_proj(torch.cat(results, dim=-1))


class AttentionWithRepeat(OtherAttention):
    """repeat_interleave, which copies where the reference does not."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        k, v = (t.repeat_interleave(self.H // self.KV, dim=1) for t in (k, v))
        scores = (q @ k.mT * self.scalar**-0.5).masked_fill(~mask, torch.finfo(x.dtype).min)
        mixed = scores.float().softmax(-1).type_as(x) @ v
        return self.o_proj(mixed.movedim(1, 2).flatten(2))


class LayerWithKernels(nn.Module):
    norm: type[nn.Module] = RMSNormWithKernel
    attention: type[nn.Module] = AttentionSdpa
    feed_forward: type[nn.Module] = MLPFused

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mlp, self.self_attn = self.feed_forward(config), self.attention(config)
        for name in ("post_feedforward", "pre_feedforward", "post_attention", "input"):
            self.add_module(f"{name}_layernorm", self.norm(config.hidden_size, config.rms_norm_eps))

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        residual = x
        x = self.self_attn(self.input_layernorm(x), table, mask)
        x = self.post_attention_layernorm(x) + residual
        residual = x
        x = self.mlp(self.pre_feedforward_layernorm(x))
        return self.post_feedforward_layernorm(x) + residual


class LayerByHand(LayerWithKernels):
    norm, attention, feed_forward = RMSNormWithNorm, AttentionHeadByHead, MLPWithEinsum


class LayerWithGroups(LayerWithKernels):
    norm, attention = RMSNormWithEinsum, AttentionWithGroups


class ModelWithKernels(nn.Module):
    """A layer is asked for its kind as it is reached."""

    layer: type[nn.Module] = LayerWithKernels
    norm_class: type[nn.Module] = RMSNormWithKernel
    embedding: type[nn.Module] = EmbeddingByHand

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = self.embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([self.layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = self.norm_class(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        kinds = self.config.get("layer_types")
        for i, layer in enumerate(self.layers):
            every = self.config.get("sliding_window_pattern", 6)
            full = kinds[i] == FULL if kinds else (i + 1) % every == 0
            kind, window = (FULL, None) if full else (SLIDING, self.config.sliding_window)
            table = table_of(theta_of(self.config, kind), self.config.head_dim, torch.arange(ids.shape[1]))
            x = layer(x, table, mask_by_triangles(ids.shape[1], window))
        return self.norm(x)


class ModelWithPlainEmbedding(ModelWithKernels):
    """An nn.Embedding, scaled outside of it; a module that makes the tables."""

    layer, norm_class = LayerByHand, RMSNormWithNorm

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.rotary_emb = RotaryWithBuffers(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens.weight[ids] * self.config.hidden_size**0.5
        positions = torch.arange(ids.shape[1])
        for kind, layer in zip(LESSON.solutions["layer_types"](self.config), self.layers, strict=True):
            window = self.config.sliding_window if "sliding" in kind else ids.shape[1]
            x = layer(x, self.rotary_emb(positions, kind), mask_by_loops(ids.shape[1], window))
        return self.norm(x)


class HeadWithoutModule(programs.HeadWithoutModule):
    body, tied = ModelWithKernels, True


class EmbeddingTiedToHead(programs.EmbeddingTiedToHead):
    body, tied = ModelWithKernels, True


def verdicts_by_squares(
    exact: dict[str, Tensor],
    rounded: dict[str, Tensor],
    alone: dict[str, Tensor],
    whole: dict[str, Tensor],
    times: float,
) -> dict[str, str]:
    """In float64, with mean squares; what is exact divides out of all of them."""
    found = {}
    for name, right in exact.items():
        noise, own, run = ((t[name].double() - right.double()).square().mean() for t in (rounded, alone, whole))
        limit = times**2 * noise
        found[name] = "own" if own > limit else "inherited" if run > limit else "right"
    return found


def verdicts_in_two_rounds(
    exact: dict[str, Tensor],
    rounded: dict[str, Tensor],
    alone: dict[str, Tensor],
    whole: dict[str, Tensor],
    times: float,
) -> dict[str, str]:
    """All are right at first; then those that are wrong in the whole run are marked, then those wrong alone."""
    exact, rounded, alone, whole = ({n: t.float() for n, t in each.items()} for each in (exact, rounded, alone, whole))
    limits = {name: times * torch.dist(rounded[name], right) / right.norm() for name, right in exact.items()}
    said = dict.fromkeys(exact, "right")
    for word, outputs in (("inherited", whole), ("own", alone)):
        for name, right in exact.items():
            if torch.linalg.vector_norm(outputs[name] - right) / torch.linalg.vector_norm(right) > limits[name]:
                said[name] = word
    return said


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "gemma3.embedding": (EmbeddingByHand, EmbeddingScaledFirst, EmbeddingRoundedByHand),
    "gemma3.rms_norm": (RMSNormWithKernel, RMSNormWithNorm, RMSNormWithEinsum),
    "gemma3.mlp": (MLPFused, MLPWithEinsum),
    "gemma3.rope": (RotaryInFloat64, RotaryWithBuffers),
    "gemma3.mask": (mask_by_triangles, mask_by_loops),
    "gemma3.attention": (AttentionSdpa, AttentionWithGroups, AttentionHeadByHead, AttentionWithRepeat),
    "gemma3.decoder_layer": (LayerWithKernels, LayerByHand, LayerWithGroups),
    "gemma3.model": (ModelWithKernels, ModelWithPlainEmbedding),
    "gemma3.causal_lm": (HeadWithoutModule, EmbeddingTiedToHead),
    "gemma3.verdicts": (verdicts_by_squares, verdicts_in_two_rounds),
}


# Programs that are right only by chance


class ModelWithTheUsualPattern(ModelWithKernels):
    """Every sixth layer is full, whatever the config's list says."""

    def __init__(self, config: Config) -> None:
        super().__init__(Config({k: v for k, v in config.items() if k != "layer_types"}))


class ModelWithAWindowOf512(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(sliding_window=512))


class ModelWithItsOwnEps(ModelWithKernels):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(rms_norm_eps=1e-6))


class ModelWithTheHubsThetas(ModelWithKernels):
    """270M's numbers, written down."""

    def __init__(self, config: Config) -> None:
        kinds = {FULL: {"rope_theta": 1e6}, SLIDING: {"rope_theta": 1e4}}
        super().__init__(config.replace(rope_parameters=kinds))


class AttentionScaledAsIn270M(AttentionWithGroups):
    def __init__(self, config: Config) -> None:
        super().__init__(config.replace(query_pre_attn_scalar=config.head_dim))


class AttentionOfOneHead(AttentionSdpa):
    """Right for 270M, whose query heads share one key and value head."""

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.heads(x, table)
        mixed = F.scaled_dot_product_attention(
            q, k[:, :1].expand_as(q), v[:, :1].expand_as(q), attn_mask=mask, scale=self.scalar**-0.5
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class RMSNormOfThreeAxes(RMSNormWithKernel):
    def forward(self, x: Tensor) -> Tensor:
        square = x.float().pow(2).mean(dim=2, keepdim=True)
        return (x.float() * torch.rsqrt(square + self.eps) * (1 + self.weight.float())).to(x.dtype)


def verdicts_of_matrices(
    exact: dict[str, Tensor],
    rounded: dict[str, Tensor],
    alone: dict[str, Tensor],
    whole: dict[str, Tensor],
    times: float,
) -> dict[str, str]:
    """Right where every output has two axes."""

    def flat(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: t if t.ndim == 2 else torch.ones_like(t) for name, t in rows.items()}

    return verdicts_by_squares(flat(exact), flat(rounded), flat(alone), flat(whole), times)


BY_CHANCE = {
    "gemma3.rms_norm": [RMSNormOfThreeAxes],
    "gemma3.attention": [AttentionScaledAsIn270M, AttentionOfOneHead],
    "gemma3.model": [ModelWithTheUsualPattern, ModelWithAWindowOf512, ModelWithItsOwnEps, ModelWithTheHubsThetas],
    "gemma3.verdicts": [verdicts_of_matrices],
}


# Bugs that the layer comparison finds


def scale_alone(self: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def with_silu(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def without_scale(self: Any, ids: Tensor) -> Tensor:
    return F.embedding(ids, self.weight)


def window_one_too_long(self: Any, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    longer = mask | mask_by_triangles(len(mask), int(mask.sum(-1).max()) + 1)
    return LESSON.solutions["Attention"].forward(self, x, table, longer)


def without_the_norm_after_attention(self: Any, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    x = x + self.self_attn(self.input_layernorm(x), table, mask)
    return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


PLANTED = [
    ("model.embed_tokens", without_scale),
    ("model.layers.0.input_layernorm", scale_alone),
    ("model.layers.1.post_feedforward_layernorm", scale_alone),
    ("model.layers.2.self_attn.q_norm", scale_alone),
    ("model.norm", scale_alone),
    ("model.layers.1.mlp", with_silu),
    ("model.layers.1.self_attn", window_one_too_long),
    ("model.layers.2", without_the_norm_after_attention),
]

# What the model uses is named where it is wrong by itself
BESIDES = "does not pass its own check"
TOLD = [
    Told("gemma3.model", Change("gemma3.mask", "distance < window", "distance <= window"), ["`gemma3.mask`", BESIDES]),
    Told(
        "gemma3.model",
        Change("gemma3.rope", "self.thetas[layer_type]", 'self.thetas["full_attention"]'),
        ["`gemma3.rope`", BESIDES],
    ),
]


# Names, sizes and trained weights


HUB = {"gemma3.causal_lm": LESSON.exercises["gemma3.causal_lm"].reference}

FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)


def of_size(*values: int) -> Config:
    return Config(exercises.SMALL | dict(zip(FIELDS, values, strict=True)))


SIZES = {
    "270m": (of_size(640, 18, 4, 1, 256, 2048, 262_144), 268_098_176),
    "1b": (of_size(1152, 26, 4, 1, 256, 6912, 262_144), 999_885_952),
    "4b": (of_size(2560, 34, 8, 4, 256, 10240, 262_208), 3_880_263_168),
    "27b": (of_size(5376, 62, 32, 16, 128, 21504, 262_208), 27_009_346_304),
}
# What transformers writes with the 270 million weights.
# fmt: off
AFTER_FRANCE = (
    506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532, 506, 1855, 7488,
    3207, 528, 3879, 236761, 1030, 563, 5628, 528, 506, 6029, 529, 506, 2891, 532, 563, 506, 5279, 529, 506, 4128,
    529, 506, 1638, 1463, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532, 506, 1855, 7488, 3207, 528, 3879,
    236761, 108, 818, 5279, 529, 7001,
)
AFTER_ADD = (
    107, 140, 2060, 496, 900, 518, 108, 2063, 1159, 236769, 236746, 236764, 518, 1473, 107, 140,
)
# fmt: on
TRAINED = [
    Trained(
        "austen-gemma3",
        "CausalLM",
        "generate",
        [Prompt("It is a truth universally acknowledged", 64), Prompt("Anne", 64)],
    ),
    Trained(
        "gemma-3-270m",
        "CausalLM",
        "generate",
        [Prompt("The capital of France is", 64, known=AFTER_FRANCE), Prompt("def add(a, b):", 16, known=AFTER_ADD)],
        written=12,
    ),
]


# The lesson's opening, and its own cells


OPENING = Opening("compare(Start)", ["[DIFF] model.embed_tokens", "Start here: model.embed_tokens"], never=["[OK]"])


def only_the_shipped(name: str, optional: bool = False) -> Any:
    return load_checkpoint(name) if name == "austen-gemma3" else None


RERUNS = {
    "with kernels": Rerun(
        {
            "gemma3.embedding": EmbeddingScaledFirst,
            "gemma3.rms_norm": RMSNormWithKernel,
            "gemma3.mlp": MLPFused,
            "gemma3.rope": RotaryWithBuffers,
            "gemma3.mask": mask_by_triangles,
            "gemma3.attention": AttentionSdpa,
            "gemma3.decoder_layer": LayerWithKernels,
            "gemma3.model": ModelWithKernels,
            "gemma3.causal_lm": HeadWithoutModule,
        },
        shows=["3 of 3 texts are the reference's", "rows match the reference", "the scale from 1 to 1.00"],
        instead={"load_checkpoint": only_the_shipped},
        changes={"range(10_000)": "range(1_000)"},
    ),
}
