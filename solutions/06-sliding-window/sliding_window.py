# %% [markdown] id="867fa617"
# # 06 · Sliding window: forget on purpose
#
# **A window of 1,024 and 62 layers: how far back can information come from?**
#
# Gemma 3 27B has 62 layers, and in 52 of them a token sees itself and the 1,023 before it. Guess how many tokens back the last layer can know of: if all 62 layers were like that, and as the model is. You will compute it, and see it in a picture of real numbers.
#
# After this lesson you can
#
# - draw the mask of a sliding window for a whole text, for a chunk of it and for a single token;
# - write a cache that never holds more than a window, and show that it changes nothing;
# - run Gemma 3 with it across its window's edge, token for token like the reference;
# - name the mistakes that public programs made here, and say why no text showed most of them.
#
# 90 to 120 minutes · difficulty ●●●●○ · you know the KV cache (lesson 02) and Gemma 3 (lesson 04); their code is given
#
# Each row is a token that looks, each column one that can be seen. On the left the whole past; in the middle a window of three, as the talk draws it. On the right what a layer has to *keep* while the text grows. (The code of the drawing is folded.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="f8510d70"
import logging

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces its first start
import matplotlib.pyplot as plt

plt.rcParams.update({"figure.facecolor": "white", "figure.dpi": 90, "savefig.dpi": 90})

WORDS = ["The", "model", "attends", "to", "past", "tokens"]
BLUE, RED, GREY, AMBER, GREEN = "#1f77b4", "#c62828", "#eceff1", "#ef9a3c", "#4caf50"


def draw_mask(axis, rows, title: str, queries=WORDS, keys=WORDS) -> None:
    """Squares, blue where a key may be seen."""
    for i, row in enumerate(rows):
        for j, seen in enumerate(row):
            axis.add_patch(plt.Rectangle((j, i), 0.92, 0.92, color=BLUE if seen else GREY))
    axis.set(xlim=(-0.05, len(keys)), ylim=(len(queries), -0.05), aspect="equal")
    axis.set_xticks([i + 0.46 for i in range(len(keys))], keys, rotation=60, fontsize=8)
    axis.set_yticks([i + 0.46 for i in range(len(queries))], queries, fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=10, color="black")


figure, axes = plt.subplots(1, 3, figsize=(10.5, 3), layout="constrained", width_ratios=[3, 3, 4])
draw_mask(axes[0], [[j <= i for j in range(6)] for i in range(6)], "full")
draw_mask(axes[1], [[0 <= i - j < 3 for j in range(6)] for i in range(6)], "sliding, a window of 3")
steps = list(range(1, 13))
axes[2].plot(steps, steps, "o-", ms=4, color=RED, label="a full layer")
axes[2].plot(steps, [min(3, n) for n in steps], "o-", ms=4, color=BLUE, label="a sliding layer")
axes[2].set(xlabel="tokens so far", ylabel="tokens kept", xticks=range(0, 13, 3), yticks=range(0, 13, 3))
axes[2].spines[["top", "right"]].set_visible(False)
axes[2].legend(frameon=False)
plt.show()

# %% tags=["setup"] id="setup"
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint


def layer_types(config: Config) -> list[str]:
    """What kind of attention each layer has: the config's list, or where it has none, every sixth layer full."""
    if config.get("layer_types"):
        return config.layer_types
    every = config.get("sliding_window_pattern", 6)
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(config.num_hidden_layers)]

# %% [markdown] id="ee653934"
# ## What you start from
#
# Gemma 3 as you left it in lesson 04, and lesson 02's cache. Twelve cells; skim the names. Two of them you will need in detail: `Attention`, because you are going to change it, and `KVCache`, because yours has to answer to the same two words, `append` and `length`. The others are folded.

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"
def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """The cosine and the sine of every angle by which RoPE turns (Su et al., 2021, section 3.2.2).

    Pair i of head_dim / 2 turns by positions * theta^(-2 i / head_dim). It is made of channels i and
    i + head_dim / 2, so the angles of all pairs stand in a row twice.
    positions: [T] int64 -> [2, T, head_dim] float32: cosines, sines. transformers: Qwen3RotaryEmbedding.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim  # [head_dim / 2]
    frequencies = 1.0 / theta**exponents
    angles = positions.float()[:, None] * frequencies  # [T, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)  # [T, head_dim]
    return torch.stack([angles.cos(), angles.sin()])


# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Turn every pair of channels (i, i + head_dim / 2) by its angle.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, head_dim], table: [2, T, head_dim] -> [B, H, T, head_dim]. transformers: apply_rotary_pos_emb.
    """
    cos, sin = table.to(x.dtype)  # 2 x [T, head_dim]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, head_dim / 2]
    turned = torch.cat([-b, a], dim=-1)  # [B, H, T, head_dim]
    return x * cos + turned * sin


# %% given="04-gemma3 gemma3.embedding" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-embedding"
class ScaledEmbedding(nn.Embedding):
    """The embedding's rows, times the root of D; that factor is rounded to the weights' dtype first.

    Made as nn.Embedding is: ScaledEmbedding(vocab_size, D). Part: weight [vocab_size, D].
    ids: [B, T] int64 -> [B, T, D] in the weight's dtype. transformers: Gemma3TextScaledWordEmbedding.
    """

    def forward(self, ids: Tensor) -> Tensor:
        scale = torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype, device=ids.device)
        return super().forward(ids) * scale  # [B, T] -> [B, T, D]


# %% given="04-gemma3 gemma3.rms_norm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rms_norm"
class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1, then by one plus a learned number for each channel.

    y = x / sqrt(mean(x^2) + eps) * (1 + weight). All of it in float32, cast to x's dtype at the very end.
    x: [..., dim] -> [..., dim], in x's dtype. transformers: Gemma3RMSNorm.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        mean_square = x32.pow(2).mean(dim=-1, keepdim=True)  # [..., 1]
        normed = x32 * torch.rsqrt(mean_square + self.eps)  # [..., dim]
        return (normed * (1.0 + self.weight.float())).to(x.dtype)


# %% given="04-gemma3 gemma3.mlp" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-mlp"
class MLP(nn.Module):
    """Two views of x, one of which opens and closes the other: GEGLU (Shazeer, 2020, equation 6).

    down_proj(gelu(gate_proj(x)) * up_proj(x)), with the tanh form of GELU. No biases.
    Parts: gate_proj and up_proj (hidden_size -> intermediate_size), down_proj (and back), all nn.Linear.
    x: [B, T, D] -> [B, T, D]. transformers: Gemma3MLP.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)  # [B, T, intermediate_size]
        return self.down_proj(hidden)


# %% given="04-gemma3 gemma3.rope" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rope"
class RotaryEmbedding(nn.Module):
    """RoPE's table for each kind of layer. It has no weights.

    theta of "full_attention" and of "sliding_attention": config.rope_parameters[kind]["rope_theta"]; where
    the config has no rope_parameters, rope_theta and rope_local_base_freq. A head has config.head_dim channels.
    positions: [T] int64, layer_type: str -> [2, T, head_dim] float32: cosines, sines.
    transformers: Gemma3RotaryEmbedding.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.head_dim = config.head_dim
        if "rope_parameters" in config:
            self.thetas = {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()}
        else:
            full, sliding = config.rope_theta, config.rope_local_base_freq
            self.thetas = {"full_attention": full, "sliding_attention": sliding}

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        return rope_table(positions, self.head_dim, self.thetas[layer_type])


# %% given="04-gemma3 gemma3.mask" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-mask"
def visible(length: int, window: int | None = None) -> Tensor:
    """Which keys each query may look at: itself and earlier tokens; with a window, `window` tokens in all.

    -> [length, length] bool; row: query, column: key. transformers: masking_utils.py, create_causal_mask
    and create_sliding_window_causal_mask.
    """
    positions = torch.arange(length)
    distance = positions[:, None] - positions[None, :]  # [T, T]: how far the key is behind the query
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen


# %% given="04-gemma3 gemma3.attention" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-attention"
class Attention(nn.Module):
    """Self-attention with grouped queries, norms on q and k, RoPE, and the mask that it is given.

    Parts: q_proj, k_proj, v_proj, o_proj, without biases; q_norm and k_norm, RMSNorms over config.head_dim
    with config.rms_norm_eps. Scores are multiplied by config.query_pre_attn_scalar ** -0.5.
    x: [B, T, D], table: [2, T, head_dim], mask: [T, T] bool, True where a key may be seen -> [B, T, D].
    transformers: Gemma3Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        D, H, KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.group = H // KV  # how many query heads share a key and value head
        self.scale = config.query_pre_attn_scalar**-0.5
        self.q_proj = nn.Linear(D, H * self.head_dim, bias=False)
        self.k_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.v_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.o_proj = nn.Linear(H * self.head_dim, D, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        k, v = (t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2) for t in (k, v))  # KV -> H heads
        scores = (q @ k.transpose(-2, -1)) * self.scale  # [B, H, T, T]
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, -1)  # [B, T, H * head_dim]
        return self.o_proj(mixed)


# %% given="04-gemma3 gemma3.decoder_layer" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-decoder_layer"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP; each between two norms, and what the second gives is added to x.

    Parts: input_layernorm, self_attn, post_attention_layernorm, pre_feedforward_layernorm, mlp,
    post_feedforward_layernorm; the norms with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim], mask: [T, T] bool -> [B, T, D]. transformers: Gemma3DecoderLayer.
    """

    def __init__(self, config: Config):
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(D, eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(D, eps)
        self.pre_feedforward_layernorm = RMSNorm(D, eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = RMSNorm(D, eps)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


# %% given="04-gemma3 gemma3.model" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (ScaledEmbedding), layers (nn.ModuleList of DecoderLayer), norm.
    Layer i is of kind layer_types(config)[i]: "sliding_attention" has a window of config.sliding_window
    tokens, "full_attention" none; each kind has its own rotations. Token t of the text has position t.
    ids: [B, T] int64 -> [B, T, D]. transformers: Gemma3TextModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        T, rotations = ids.shape[1], RotaryEmbedding(self.config)
        windows = {"full_attention": None, "sliding_attention": self.config.sliding_window}
        tables = {kind: rotations(torch.arange(T, device=ids.device), kind) for kind in windows}
        masks = {kind: visible(T, window).to(ids.device) for kind, window in windows.items()}
        x = self.embed_tokens(ids)  # [B, T, D]
        for layer, kind in zip(self.layers, layer_types(self.config), strict=True):
            x = layer(x, tables[kind], masks[kind])  # [B, T, D]
        return self.norm(x)


# %% given="04-gemma3 gemma3.causal_lm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-causal_lm"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token, at every position.

    Parts: model (Model), lm_head (nn.Linear without bias). The head's weight is the embedding's, the same
    Parameter under two names, unless config.tie_word_embeddings is there and false.
    ids: [B, T] int64 -> [B, T, vocab_size]. transformers: Gemma3ForCausalLM.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings", True):
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.model(ids))  # [B, T, D] -> [B, T, vocab_size]


# %% given="02-kv-cache kv_cache.cache" jupyter={"source_hidden": true} id="given-02-kv-cache-kv_cache-cache"
class KVCache:
    """The keys and values of one layer for all tokens so far, in memory that is taken once.

    keys, values: [batch, heads, capacity, head_dim]; of these the first `length` tokens are filled.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ):
        self.keys = torch.zeros(batch, heads, capacity, head_dim, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T new tokens; give back those of all tokens so far, in order, as views.

        k, v: [batch, heads, T, head_dim] -> 2 x [batch, heads, length, head_dim], where length has grown by T.
        Raises ValueError, whose message has the capacity in it, where they don't fit; then nothing has changed.
        """
        capacity, end = self.keys.shape[2], self.length + k.shape[2]
        if end > capacity:
            raise ValueError(f"there is room for {capacity} tokens in this cache, and now there would be {end}")
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]  # 2 x [batch, heads, length, head_dim]

    def reset(self) -> None:
        """Forget all tokens: ready for another text, in the same memory."""
        self.length = 0


# %% [markdown] id="9faa52d2"
# ## The mask
#
# ### Exercise 1 · A window, for any piece of a text
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Lesson 04's `visible(length, window)` draws the square. With a cache the picture is a rectangle: `queries` new tokens look at `keys` tokens, old ones and themselves. As in lesson 02, **the last query and the last key are the same token**. Everything else follows from distances.
#
# The window counts the token itself: with a window of 3, a token sees itself and the two before it. Without one (`None`) it sees all that came before.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="491f6bc2"
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.3), layout="constrained", width_ratios=[6, 6, 4])
pictures = ("the whole text", 6, 6), ("a chunk of 3", 3, 6), ("one token", 1, 4)
for axis, (title, queries, keys) in zip(axes, pictures, strict=True):
    rows = [[0 <= (keys - queries + i) - j < 3 for j in range(keys)] for i in range(queries)]
    draw_mask(axis, rows, f"{title}: {queries} × {keys}", range(keys - queries, keys), range(keys))
    axis.set_ylim(6, -0.05)
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelrotation=0)
plt.show()

# %% [markdown] id="44835463"
# <details><summary>Hint 1</summary>
#
# Number the keys from 0. Which number has the last query? And the first one?
#
# <details><summary>Hint 2</summary>
#
# Subtract a row of keys from a column of queries: `a[:, None] - b[None, :]`. What you get says how far each key lies behind each query.
#
# <details><summary>Hint 3</summary>
#
# Distances that may be seen have a smallest and a largest value. Write them down for a window of 1, where a token sees only itself.
# </details>
# </details>
# </details>

# %% exercise="sliding_window.mask" id="sliding_window-mask"
def window_mask(queries: int, keys: int, window: int | None = None) -> Tensor:
    """Which keys each query may look at: itself and earlier ones, with a window no more than `window` in all.

    The last query is the last key; queries <= keys.
    -> [queries, keys] bool. transformers: masking_utils.py, sliding_window_overlay.
    """
    ### BEGIN SOLUTION
    places = torch.arange(keys)
    distance = places[keys - queries :, None] - places[None, :]  # [queries, keys]: how far behind
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen
    ### END SOLUTION

# %% check="sliding_window.mask" tags=["nbval-ignore-output"] id="check-sliding_window-mask"
check("sliding_window.mask", window_mask)

# %% [markdown] id="84713d86"
# ### To play with
#
# A stack of layers: so many sliding ones, then a full one, and so on. On the left what one sliding layer may see; in the middle what a layer keeps; on the right what token i *can know of* token j after all layers, because a layer sees what the layer before it has brought along. **Predict** before you move anything: a window of 4 and 3 sliding layers. How many tokens back can the last layer know of? And what does a single full layer change?

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="6f2b21c3"
import ipywidgets as widgets
from matplotlib.figure import Figure

from grader.instruments import Panel, Shown


def show_stack(length: int, window: int, layers: int, sliding_per_full: int) -> Shown:
    """The panel's picture and its text for one setting of its controls."""
    kinds = ["full" if sliding_per_full < 12 and (i + 1) % (sliding_per_full + 1) == 0 else "sliding" for i in range(layers)]
    masks = {"sliding": window_mask(length, length, window), "full": window_mask(length, length)}
    known = torch.eye(length, dtype=torch.bool)
    for kind in kinds:
        known = (masks[kind].float() @ known.float()) > 0  # [T, T]: through this layer, then those before it
    figure = Figure(figsize=(9.5, 3), dpi=90, layout="constrained")
    axes = figure.subplots(1, 3)
    draw_mask(axes[0], masks["sliding"].tolist(), f"a sliding layer sees {int(masks['sliding'].sum())} pairs", range(length), range(length))
    draw_mask(axes[2], known.tolist(), f"known after {layers} layers", range(length), range(length))
    kept = {"sliding": min(window, length), "full": length}
    axes[1].barh(range(layers), [kept[kind] for kind in kinds], color=[BLUE if k == "sliding" else RED for k in kinds])
    axes[1].set(xlim=(0, length), ylim=(-0.6, layers - 0.4), xlabel="tokens kept", ylabel="layer", yticks=range(layers))
    axes[1].spines[["top", "right"]].set_visible(False)
    axes[1].set_title("blue: sliding, red: full", fontsize=10, color="black")
    for axis in (axes[0], axes[2]):
        axis.set(xticks=[], yticks=[], xlabel="key", ylabel="query")
    total = sum(kept[kind] for kind in kinds)
    back = int(known[-1].sum()) - 1
    text = (f"{length} tokens, a window of {window}, {layers} layers, {kinds.count('full')} of them full: the last token knows of "
            f"{back} earlier ones.\nThe cache holds {total} tokens in all layers; without windows it would be {layers * length}.")
    return Shown(figure, text)


style = {"style": {"description_width": "10em"}, "layout": widgets.Layout(width="28em")}
Panel({
    "length": widgets.IntSlider(description="tokens", min=4, max=40, value=24, **style),
    "window": widgets.IntSlider(description="window", min=1, max=40, value=4, **style),
    "layers": widgets.IntSlider(description="layers", min=1, max=12, value=3, **style),
    "sliding_per_full": widgets.SelectionSlider(
        description="sliding per full layer", options=[*((str(n), n) for n in range(12)), ("all sliding", 12)], value=12, **style),
}, show_stack)

# %% [markdown] id="9d02205e"
# ### Exercise 2 · How far back?
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The question at the top, as a function: how many earlier tokens can have an influence on what the model computes for the *last* of `length` tokens? Count the tokens that it can know of, not the token itself.
#
# <details><summary>Hint 1</summary>
#
# One sliding layer with a window of 4: how many *earlier* tokens? Now put a second one on top. The farthest token that it sees has itself seen others in the layer below.
#
# <details><summary>Hint 2</summary>
#
# How far does one full layer reach, wherever in the stack it stands? And can anything come from before the text began?
# </details>
# </details>

# %% exercise="sliding_window.reach" id="sliding_window-reach"
def reach(config: Config, length: int) -> int:
    """How many earlier tokens can have an influence on what all layers together compute for the last of `length`.

    Layer i is of kind layer_types(config)[i]: "sliding_attention" sees config.sliding_window tokens, itself among
    them, "full_attention" everything so far.
    """
    ### BEGIN SOLUTION
    earlier = length - 1
    if "full_attention" in layer_types(config):
        return earlier
    return min(earlier, len(layer_types(config)) * (config.sliding_window - 1))
    ### END SOLUTION

# %% check="sliding_window.reach" tags=["nbval-ignore-output"] id="check-sliding_window-reach"
check("sliding_window.reach", reach)

# %% [markdown] id="9bf23057"
# Your guess, and the numbers:

# %% id="1a275d28"
from grader.kv import known_model

gemma_27b = known_model("Gemma 3 27B")
sliding_only = gemma_27b.replace(layer_types=["sliding_attention"] * gemma_27b.num_hidden_layers)
for name, config in (("all 62 layers sliding", sliding_only), ("as it is, 52 and 10", gemma_27b)):
    print(f"{name:>22}: {reach(config, 131_072):,} tokens back, in a text of 131,072")

# %% [markdown] id="8ac3dd33"
# 62 · 1,023 = 63,426: a window of one thousand reaches sixty thousand tokens back, half of what the model may read, and no farther. With one full layer there is no limit. So are the ten full layers there for the other half? That would be a lot of memory for little. Whether something *can* arrive and how much of it does arrive are two questions. The second one needs numbers, so it waits until you have a model.
#
# ## The cache that makes it pay
#
# So far nothing is saved. With a mask alone, every key and value is still kept, and those behind the window are masked, at every step, for ever. (That is what many programs do. Their output is right.) To save memory you have to *let go* of a token as soon as nobody will ever see it again.
#
# A window of W: when the next token comes, it sees itself and W − 1 old ones. So W places are enough, however long the text. Put token 0 into place 0, token 1 into place 1, and token W into place 0 again, where token 0 was, whom nobody will see any more. Token p lives in place **p mod W**. That is a ring.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="9e837b64"
TEXT = ["It", "is", "a", "truth", "universally", "acknowledged", "that", "a", "single", "man", "in"]


def draw_ring(axis, chunks: list[int], window: int) -> None:
    """A row of boxes for each append: what lies in the ring after it; new ones in blue."""
    start = 0
    held = [None] * window
    for row, size in enumerate(chunks):
        for p in range(start, start + size):
            held[p % window] = p
        for place, p in enumerate(held):
            new = p is not None and p >= start
            axis.add_patch(plt.Rectangle((place * 2.2, -row), 2.1, 0.72, facecolor="#9cc7ec" if new else "white", edgecolor="#78909c"))
            if p is not None:
                axis.text(place * 2.2 + 1.05, -row + 0.36, f"{p} {TEXT[p]}", ha="center", va="center", fontsize=8.5, color="black")
        seen = list(range(max(0, start - window + 1), start))
        start += size
        axis.text(-0.3, -row + 0.36, f"append {size}", ha="right", va="center", fontsize=9, color="black")
        returned = ", ".join(map(str, seen)) or "–"
        axis.text(window * 2.2 + 0.3, -row + 0.36, f"old ones that were given back: {returned};  length {start}", ha="left", va="center",
                  fontsize=9, color="black")
        if row < len(chunks) - 1:
            axis.plot(start % window * 2.2 + 1.05, -row - 0.1, marker="^", color=RED, ms=6)
    axis.set(xlim=(-2.6, window * 2.2 + 9), ylim=(-len(chunks) + 0.8, 1))
    axis.axis("off")


figure, axis = plt.subplots(figsize=(10.5, 3.1), layout="constrained")
draw_ring(axis, [3, 1, 1, 5, 1], 4)
axis.set_title("a ring of W = 4 places; blue: new, red: where the next token goes", fontsize=10, color="black")
plt.show()

# %% [markdown] id="380514af"
# Look at the fourth row. Five tokens come at once, more than there are places. The first of them (token 5) must still see 2, 3 and 4, so these have to be given back *before* they are written over. And tokens 5 to 9 must all be given back, because each of them sees some of the others. Only then does the ring keep the last four. A long prompt that comes in chunks is this case, and it is the one that real programs got wrong most.
#
# Does it matter in which order the keys lie? To attention, no: it adds up over keys. But the mask has to know who is who. Giving them back from the oldest to the newest settles that, as in lesson 02.
#
# ### Exercise 3 · The ring
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# The same two words as `KVCache`, and one promise more:
#
# - `append(k, v)` gives back the keys and values that the new tokens may see: the W − 1 latest old ones (or as many as there are), then all new ones. From the oldest to the newest.
# - `length` is how many tokens the cache was ever given. Not how many it holds: others ask it for the position of the next token.
# - What the cache keeps never takes more memory than W tokens. After a prompt of 10 W tokens neither. (A slice `x[:, :, -W:]` is a *view*. It keeps all of x alive.)
# - `reset()`: another text begins.
#
# Nothing is ever refused; there is always room.
#
# <details><summary>Hint 1</summary>
#
# Two lists of places: those from which you read, and those to which you write. `torch.arange(a, b) % W` makes either; only a and b differ. A list of places may stand in an index: `self.keys[:, :, places]`.
#
# <details><summary>Hint 2</summary>
#
# Indexing with a list of places copies. So what you have read stays as it is when the ring is written to. In which order do you read and write?
#
# <details><summary>Hint 3</summary>
#
# If 10 tokens come and W is 4, which of them are written? Writing all ten with one index would put several into one place, and nobody says which of them stays.
#
# <details><summary>Hint 4</summary>
#
# Positions are the key: with n tokens so far and T new ones, positions n to n + T − 1 are new. Which positions does the token at position n see? Which are still wanted after position n + T − 1?
# </details>
# </details>
# </details>
# </details>

# %% exercise="sliding_window.rolling_cache" id="sliding_window-rolling_cache"
class RollingCache:
    """The keys and values of the last `window` tokens of one layer: a ring. Token p lies in place p mod window.

    keys, values: [batch, heads, window, head_dim]; there is never memory for more. length: how many tokens there
    have been.
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        window: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ):
        self.keys = torch.zeros(batch, heads, window, head_dim, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add T new tokens; give back those that at least one of them sees, from the oldest to the newest.

        These are the last window - 1 of the old ones, or as many as there are, and then all new ones.
        k, v: [batch, heads, T, head_dim] -> 2 x [batch, heads, min(length before, window - 1) + T, head_dim].
        """
        ### BEGIN SOLUTION
        window, start, end = self.keys.shape[2], self.length, self.length + k.shape[2]
        old = torch.arange(max(0, start - window + 1), start) % window  # where the first new one looks
        keys = torch.cat([self.keys[:, :, old], k], dim=2)  # [batch, heads, len(old) + T, head_dim]
        values = torch.cat([self.values[:, :, old], v], dim=2)
        new = torch.arange(max(start, end - window), end) % window  # where the last of the new ones go
        self.keys[:, :, new] = k[:, :, -window:]
        self.values[:, :, new] = v[:, :, -window:]
        self.length = end
        return keys, values
        ### END SOLUTION

    def reset(self) -> None:
        """Forget all tokens: ready for another text, in the same memory."""
        ### BEGIN SOLUTION
        self.length = 0
        ### END SOLUTION

# %% check="sliding_window.rolling_cache" tags=["nbval-ignore-output"] id="check-sliding_window-rolling_cache"
check("sliding_window.rolling_cache", RollingCache)

# %% [markdown] id="bda42b0e"
# Does transformers keep the promise? Its `DynamicCache` cuts off what lies behind the window, after each step. **Predict:** a prompt of 300 tokens, a window of 32. For how many tokens does one of its sliding layers hold memory, after the prompt and after one token more?

# %% tags=["nbval-ignore-output"] id="53ce6aaa"
from grader.instruments import work


def rows_held(tensor: Tensor) -> int:
    """For how many tokens the memory behind a tensor [1, heads, T, head_dim] has room."""
    return work.bytes_held(tensor) // tensor[:, :, :1].nbytes

# %% tags=["nbval-ignore-output"] id="64e33536"
import importlib.util

if importlib.util.find_spec("transformers"):
    from transformers.cache_utils import DynamicSlidingWindowLayer

    layer, ring = DynamicSlidingWindowLayer(sliding_window=32), RollingCache(1, 2, 32, 8)
    for tokens in (300, 1):
        k = torch.randn(1, 2, tokens, 8)
        layer.update(k, k)
        ring.append(k, k)
        print(f"after {tokens:3} more: it keeps {layer.keys.shape[2]} in sight and holds memory for"
              f" {rows_held(layer.keys)}; the ring: {rows_held(ring.keys)}")

# %% [markdown] id="af2753ad"
# It keeps a view of the last 31, and behind a view lies all of what it was cut from. One step later the 300 are gone: then it makes a new tensor at every token, of 32, and keeps 31 of them in sight. Neither is a bug. But if you want to know how much memory something takes, ask the memory, not the shape.
#
# ## Attention with a window
#
# ### Exercise 4 · Attention
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Lesson 04's attention was handed a mask. Now the mask depends on what the cache gives back, so attention is handed the window and draws the mask itself. The cache may be yours, or lesson 02's that keeps everything, or none: the result must be the same. `window_mask` needs three numbers, and you can read two of them off shapes.
#
# RoPE turns a key by the angles of its own position. That is done once, before the key goes into the cache. `table` has the rotations of the T new tokens; nobody has those of the old ones any more, and nobody needs them.
#
# <details><summary>Hint 1</summary>
#
# Lesson 04's `Attention.forward` is above. One thing comes in between two of its lines, and one line is new.
#
# <details><summary>Hint 2</summary>
#
# What goes into the cache: before or after the norm, before or after the rotation, before or after the heads are repeated for the queries that share them? For each of the three there is one right answer, and for the last one the reason is memory.
#
# <details><summary>Hint 3</summary>
#
# With a cache that keeps everything, a sliding layer gets more keys back than it may see. Who takes care of those?
# </details>
# </details>
# </details>

# %% exercise="sliding_window.attention" id="sliding_window-attention"
class CachedAttention(Attention):
    """Lesson 04's attention for T new tokens that follow those in a cache. Parts and names are the same.

    table: [2, T, head_dim], the rotations of the new tokens. window: how many tokens each may see, itself among
    them; None: all. cache: append(k, v) gives back all keys and values that may be seen, the new ones last, and
    perhaps older ones too; None: there are no old tokens.
    x: [B, T, D], the new tokens alone -> [B, T, D].
    """

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: KVCache | None = None) -> Tensor:
        B, T, _ = x.shape
        ### BEGIN SOLUTION
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        k, v = (t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2) for t in (k, v))  # [B, H, T_k, head_dim]
        scores = (q @ k.transpose(-2, -1)) * self.scale  # [B, H, T, T_k]
        mask = window_mask(T, k.shape[2], window).to(x.device)  # [T, T_k]
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)  # [B, H, T, T_k]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, -1)  # [B, T, H * head_dim]
        return self.o_proj(mixed)
        ### END SOLUTION

# %% check="sliding_window.attention" tags=["nbval-ignore-output"] id="check-sliding_window-attention"
check("sliding_window.attention", CachedAttention)

# %% [markdown] id="90d99a95"
# The layer hands window and cache on, and does nothing else that is new:

# %% tags=["setup"] id="setup-2"
class CachedLayer(DecoderLayer):
    """Lesson 04's layer; attention gets a window and the cache of its layer."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.self_attn = CachedAttention(config)

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: KVCache | None = None) -> Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, window, cache))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))

# %% [markdown] id="4ffcd151"
# ### Exercise 5 · The model: a ring here, everything there
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Two methods, as in lesson 02.
#
# `new_cache` makes one cache for each layer: a `RollingCache` for a sliding one, a `KVCache` with room for `capacity` tokens for a full one. One case more: if the whole text fits into the window, a ring would be larger than the text. Then a sliding layer, too, gets a `KVCache` for `capacity` tokens. (So it never holds more than the smaller of the two numbers. Estimates that forget this show windows that *cost* memory in short texts.)
#
# `forward` gets the new tokens only. Their positions go on from where the last call ended; each kind of layer has its own rotations and its own window.
#
# <details><summary>Hint 1</summary>
#
# `KVCache` and `RollingCache` take the same arguments in the same order: batch, heads, how many tokens, head_dim, dtype, device. Which of the model's heads have keys? Dtype and device are those of `self.embed_tokens.weight`.
#
# <details><summary>Hint 2</summary>
#
# The positions of the new tokens: who knows how many there were before? Does it matter which layer's cache you ask? And does it matter when?
#
# <details><summary>Hint 3</summary>
#
# Lesson 04's `Model.forward` is above, folded. A dict from the kind of layer to its window is there already; what it made masks of, you hand on.
# </details>
# </details>
# </details>

# %% exercise="sliding_window.model" id="sliding_window-model"
class CachedModel(Model):
    """Lesson 04's Gemma 3 without its head, which may be given a text piece by piece. Parts and names are the same.

    Layer i is of kind layer_types(config)[i], "sliding_attention" or "full_attention". A sliding one sees
    config.sliding_window tokens. Each kind has its own rotations.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.layers = nn.ModuleList(CachedLayer(config) for _ in range(config.num_hidden_layers))

    def new_cache(self, batch: int, capacity: int) -> list[KVCache | RollingCache]:
        """A cache for each layer, for `batch` texts of up to `capacity` tokens.

        In the weights' dtype, on their device. A RollingCache for a sliding layer whose window is smaller than
        capacity; a KVCache for every other layer. Where the window is as long as capacity, either will do.
        """
        ### BEGIN SOLUTION
        config, weight, window = self.config, self.embed_tokens.weight, self.config.sliding_window
        caches = []
        for kind in layer_types(config):
            rolls = kind == "sliding_attention" and window < capacity
            cache, tokens = (RollingCache, window) if rolls else (KVCache, capacity)
            sizes = (batch, config.num_key_value_heads, tokens, config.head_dim)
            caches.append(cache(*sizes, dtype=weight.dtype, device=weight.device))
        return caches
        ### END SOLUTION

    def forward(self, ids: Tensor, cache: list[KVCache | RollingCache] | None = None) -> Tensor:
        """ids: [B, T] int64, the new tokens -> [B, T, D], their final vectors; they follow those in the cache."""
        ### BEGIN SOLUTION
        start = cache[0].length if cache else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        rotations = RotaryEmbedding(self.config)
        windows = {"full_attention": None, "sliding_attention": self.config.sliding_window}
        tables = {kind: rotations(positions, kind) for kind in windows}  # 2 x [2, T, head_dim]
        x = self.embed_tokens(ids)  # [B, T, D]
        for i, kind in enumerate(layer_types(self.config)):
            x = self.layers[i](x, tables[kind], windows[kind], cache[i] if cache else None)  # [B, T, D]
        return self.norm(x)
        ### END SOLUTION

# %% check="sliding_window.model" tags=["nbval-ignore-output"] id="check-sliding_window-model"
check("sliding_window.model", CachedModel)

# %% [markdown] id="5269d91e"
# Without a cache it must still be Gemma 3, layer by layer:

# %% tags=["nbval-ignore-output"] id="a0eeedde"
compare_layers(CachedModel, open="none")

# %% [markdown] id="0045567d"
# Its head, as in lesson 04:

# %% tags=["setup"] long="one class, with its signatures" id="setup-3"
class CachedLM(CausalLM):
    """Lesson 04's Gemma 3 with its head, around your model."""

    def __init__(self, config: Config):
        super(CausalLM, self).__init__()
        self.config = config
        self.model = CachedModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings", True):
            self.lm_head.weight = self.model.embed_tokens.weight

    def new_cache(self, batch: int, capacity: int) -> list[KVCache | RollingCache]:
        return self.model.new_cache(batch, capacity)

    def forward(self, ids: Tensor, cache: list[KVCache | RollingCache] | None = None) -> Tensor:
        return self.lm_head(self.model(ids, cache))  # [B, T, D] -> [B, T, vocab_size]

# %% [markdown] id="e57f773d"
# ## Every way of cutting a text
#
# `austen-gemma3` is the small Gemma 3 of lesson 04: five sliding layers with a window of 32, then a full one. The text has more tokens than that. **Predict:** all at once, in chunks shorter than the window, in chunks longer than it, one by one: will the results differ, and by how much?

# %% tags=["nbval-ignore-output"] id="89ce8fd3"
austen = load_checkpoint("austen-gemma3")
model, whole_model = CachedLM(austen.config).eval(), CausalLM(austen.config).eval()
for each in (model, whole_model):
    austen.load_into(each)

# %% id="e18530aa"
def encode(text: str) -> Tensor:
    """The text's token ids: [1, T]."""
    return torch.tensor([austen.tokenizer.encode(text).ids])

# %% jupyter={"source_hidden": true} id="d4d5b055"
passage = (
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any"
    " book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one; there"
    " his faculties were roused into admiration and respect, by contemplating the limited remnant of the earliest"
    " patents; there any unwelcome sensations, arising from domestic affairs changed naturally into pity and contempt"
    " as he turned over the almost endless creations of the last century; and there, if every other leaf were"
    " powerless, he could read his own history with an interest which never failed. Vanity was the beginning and the"
    " end of Sir Walter Elliot's character; vanity of person and of situation. He had been remarkably handsome in his"
    " youth; and, at fifty-four, was still a very fine man. Few women could think more of their personal appearance"
    " than he did, nor could the valet of any new made lord be more delighted with the place he held in society. He"
    " considered the blessing of beauty as inferior only to the blessing of a baronetcy; and the Sir Walter Elliot,"
    " who united these gifts, was the constant object of his warmest respect and devotion."
)
novel = encode(passage)[:, :256]

# %% id="469e0deb"
@torch.no_grad()
def in_chunks(model: CachedLM, ids: Tensor, chunks: list[int]) -> Tensor:
    """The logits of a text that comes in pieces: [1, T, vocab_size]."""
    cache = model.new_cache(1, ids.shape[1])
    return torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

# %% tags=["nbval-ignore-output"] id="eb50e229"
T = novel.shape[1]
with torch.no_grad():
    whole = whole_model(novel)  # [1, T, vocab_size]
print(f"{T} tokens, logits between {whole.min():.0f} and {whole.max():.0f}")
for name, chunks in {
    "all at once": [T], "chunks of 8": [8] * (T // 8), "chunks of 100": [100, 100, T - 200],
    "a prompt, then one by one": [50, *[1] * (T - 50)], "one by one": [1] * T,
}.items():
    got = in_chunks(model, novel, chunks)
    same = (got.argmax(-1) == whole.argmax(-1)).sum().item()
    print(f"{name:>26}: differs by at most {(got - whole).abs().max():.1e}, {same} of {T} next tokens the same")

# %% [markdown] id="504cb033"
# As in lesson 02, the last bits differ because one row and many rows go through other kernels. Otherwise the ring, in which a token is overwritten 32 tokens after it came, gives what the whole text gives.
#
# ## Generate
#
# ### Exercise 6 · Read a long prompt in chunks
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# A ring keeps W tokens. But a prompt of T tokens at once still makes scores of T × T in every head, for a moment. Reading it in chunks of at most `chunk` tokens bounds that too: chunk × (W − 1 + chunk). The tokens that come out must be the same. The rest is lesson 02's `generate_cached`: every token is read once, the last one never; and the cache has room for exactly those that are read.
#
# <details><summary>Hint 1</summary>
#
# `ids.split(chunk, dim=1)` cuts, and the last piece may be shorter. Whose logits say what comes after the prompt?
#
# <details><summary>Hint 2</summary>
#
# After the prompt, what the model is given in a step is what it said in the step before, as [1, 1].
# </details>
# </details>

# %% exercise="sliding_window.generate" id="sliding_window-generate"
@torch.no_grad()
def generate_rolling(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 128
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    model: model.new_cache(batch, capacity) makes a cache; model(new_ids, cache) gives the new tokens' logits.
    ids: [1, T] int64, the prompt; it is read in pieces of at most `chunk` tokens. Every token is read once, the
    last new one not at all: T + max_new_tokens - 1 rows, and the cache has room for so many.
    Ends after max_new_tokens, or once eos_token_id has been yielded.
    """
    ### BEGIN SOLUTION
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)
    for piece in ids.split(chunk, dim=1):
        logits = model(piece, cache)  # [1, chunk or less, vocab_size]
    for step in range(max_new_tokens):
        next_id = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]
        token = next_id.item()
        yield token
        if token == eos_token_id or step == max_new_tokens - 1:
            return
        logits = model(next_id, cache)  # [1, 1, vocab_size]
    ### END SOLUTION

# %% check="sliding_window.generate" tags=["nbval-ignore-output"] id="check-sliding_window-generate"
check("sliding_window.generate", generate_rolling)

# %% [markdown] id="d3de7ac1"
# ### The same text as the reference
#
# What transformers wrote with these weights, without a cache, against yours with a ring of 32. One of the prompts is longer than the window, and every continuation crosses it:

# %% tags=["nbval-ignore-output"] id="052a26ff"
check_generation(model, austen, generate=generate_rolling)

# %% [markdown] id="06ad2658"
# And Gemma 3 270M, where its weights are on this machine (lesson 04 says how to get them). Its window is 512 tokens; the longest of its prompts has 533. Here the prompt is read in chunks of 128:

# %% tags=["nbval-ignore-output"] id="e48bfec4"
gemma = load_checkpoint("gemma-3-270m", optional=True)
gemma_model = None
if gemma is not None:
    gemma_model = CachedLM(gemma.config).eval()
    gemma.load_into(gemma_model)
check_generation(gemma_model, gemma, generate=generate_rolling)

# %% [markdown] id="dffa88c3"
# That prompt is across the edge before a token is written. Now the text goes across it: the first 500 tokens of the prompt, and 40 more. The new token at position 512 is the first one that cannot see the beginning.

# %% tags=["nbval-ignore-output"] id="6eb14737"
by_transformers = (
    ". of Kellynch Hall, in the county of Somerset, by Elizabeth, daughter of James Stevenson, Esq. of South Park, in"
    " the county of Gloucester, by whom he has issue, born"
)
if gemma_model is not None:
    opening = torch.tensor([gemma.goldens[-1].prompt_ids[:500]])
    written = gemma.tokenizer.decode(list(generate_rolling(gemma_model, opening, 40)))
    print(f"{written!r}\nwhat transformers writes: {written == by_transformers}")

# %% [markdown] id="35c272ab"
# ## What public programs got wrong
#
# Sliding windows with a cache are where published programs fail most often. Here are seven ways. The first three happened in LLMs-from-scratch (on GitHub: #1013, #925, #697), the fourth in nanochat (#452). Each loads every weight, raises no error, and is one change to what you wrote. `austen-gemma3` reads the passage above as a program would: a prompt of 100 tokens in chunks of 50, then one token at a time, and then a *second* text with the same cache after a reset.
#
# **Predict** for each: does the text show it? Does the loss (the mean surprise per token, in nats)? Which shows up in neither? (The seven changes are in the folded cell.)

# %% jupyter={"source_hidden": true} id="07938054"
from grader.instruments import patch

right_append, right_reset, right_mask = RollingCache.append, RollingCache.reset, window_mask


def forgets_before_a_chunk(self, k, v):
    keys, values = right_append(self, k, v)
    return (k, v) if k.shape[2] > 1 else (keys, values)


def not_reset(self):
    pass


def grown(self, k, v):
    """Everything is kept, and masked when it is used."""
    old = getattr(self, "all", None) if self.length else None
    self.all = torch.stack([k, v]) if old is None else torch.cat([old, torch.stack([k, v])], dim=3)
    self.length += k.shape[2]
    keys, values = self.all
    return keys, values


def no_window_at_decode(queries, keys, window=None):
    return right_mask(queries, keys, window if queries > 1 else None)


def upper_left(queries, keys, window=None):
    return right_mask(keys, keys, window)[:queries] if queries > 1 else right_mask(queries, keys, window)


def one_too_short(queries, keys, window=None):
    return right_mask(queries, keys, window and window - 1)


def rotated_again(self, x, table, window=None, cache=None):
    """A key is turned when it is stored, and again by the new token's angle whenever it is read."""

    class Turning:
        def append(_, k, v):
            keys, values = cache.append(k, v)
            old = keys.shape[2] - k.shape[2]
            return torch.cat([apply_rope(keys[:, :, :old], table[:, -1:]), keys[:, :, old:]], dim=2), values

    return right_attention(self, x, table, window, None if cache is None else Turning())


right_attention = CachedAttention.forward
WRONG = {
    "nothing": [],
    "1 a chunk sees only itself": [patch.replaced(RollingCache, append=forgets_before_a_chunk)],
    "2 the pointer is not reset": [patch.replaced(RollingCache, reset=not_reset)],
    "3 the mask is in the wrong corner": [patch.replaced(globals(), window_mask=upper_left)],
    "4 no window once it decodes": [
        patch.replaced(RollingCache, append=grown), patch.replaced(globals(), window_mask=no_window_at_decode)],
    "5 a window one too short": [patch.replaced(globals(), window_mask=one_too_short)],
    "6 keys are rotated again": [patch.replaced(CachedAttention, forward=rotated_again)],
    "7 masked, and never trimmed": [patch.replaced(RollingCache, append=grown)],
}


# %% tags=["nbval-ignore-output"] id="e88878d9"
@torch.no_grad()
def as_a_program_reads(model: CachedLM, ids: Tensor, cache: list) -> Tensor:
    """The logits of 100 tokens in two chunks, then one by one: [1, T, vocab_size]."""
    chunks = [50, 50, *[1] * (ids.shape[1] - 100)]
    return torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

# %% id="91742d03"
def held_tokens(cache: list) -> int:
    """For how many tokens the caches of the sliding layers hold memory, on average."""
    rings = [layer for layer in cache if isinstance(layer, RollingCache)]
    held = [rows_held(ring.all[0]) // 2 if hasattr(ring, "all") else rows_held(ring.keys) for ring in rings]
    return sum(held) // len(held)

# %% tags=["nbval-ignore-output"] id="2378d3bd"
def effects() -> tuple[list[float], int, str]:
    """The losses on two texts, one after the other; for how many tokens memory is held; what the model writes."""
    cache, losses = model.new_cache(1, T), []
    for ids in (novel, second):
        losses.append(F.cross_entropy(as_a_program_reads(model, ids, cache)[0, :-1], ids[0, 1:]).item())
        held = held_tokens(cache)
        for layer in cache:
            layer.reset()
    text = austen.tokenizer.decode(list(generate_rolling(model, novel[:, :100], 9, chunk=50)))
    return losses, held, text

# %% tags=["nbval-ignore-output"] id="aae36dab"
from grader.instruments import progress

second = encode("Captain Wentworth " + passage[400:])[:, :200]
print(f"{'':33}   loss   second text   held   it goes on")
for name, changes in progress.steps(WRONG.items(), "programs"):
    with patch.together(*changes):
        losses, held, text = effects()
    print(f"{name:33} {losses[0]:6.3f} {losses[1]:13.3f} {held:6}   {text!r}")

# %% [markdown] id="4172b13e"
# 1, 2 and 7 go on in the very same words as the right program. 2 does nothing wrong until there is a second text. 1 and 5 move the loss by about a hundredth at most, much less than one passage differs from another. And 7 is right in every number that a model can give: only a look at what the cache *holds* shows it, which is why the check of exercise 3 looks there. What notices the others is a comparison, for every way of cutting a text into pieces, with the program that sees it whole.
#
# ## How much arrives?
#
# Back to the question. Something *can* come from 63,426 tokens away. How much does? Move the first token's vector by a tiny amount, and ask how far each vector of each layer moves with it. (The computer can follow such a change exactly: `forward_ad` carries the derivative along with every number.) Three stacks of twelve layers with random weights and a window of 8, 128 tokens: all sliding; every sixth full; all full.
#
# **Predict** the first picture: where is the edge of what moves at all?

# %% tags=["nbval-ignore-output"] id="3f3d28f3"
import torch.autograd.forward_ad as forward_ad


def first_token_moves(x: Tensor) -> Tensor:
    """A direction of length 1 for the first token, and 0 for all others: [1, T, D]."""
    direction = torch.zeros_like(x)
    direction[:, 0] = x.shape[-1] ** -0.5
    return direction

# %% id="84ef40e0"
@torch.no_grad()
def movement(body: CachedModel, ids: Tensor) -> Tensor:
    """How far the vector at each place moves when the first token's moves by 1, after each layer: [layers, T]."""
    rotations, positions = RotaryEmbedding(body.config), torch.arange(ids.shape[1])
    windows = {"full_attention": None, "sliding_attention": body.config.sliding_window}
    with forward_ad.dual_level():
        x = body.embed_tokens(ids)  # [1, T, D]
        x, moved = forward_ad.make_dual(x, first_token_moves(x)), []
        for layer, kind in zip(body.layers, layer_types(body.config), strict=True):
            x = layer(x, rotations(positions, kind), windows[kind])
            moved.append(forward_ad.unpack_dual(x).tangent[0].norm(dim=-1))
    return torch.stack(moved)

# %% tags=["nbval-ignore-output"] id="e7b72553"
small = austen.config.replace(
    num_hidden_layers=12, hidden_size=64, intermediate_size=128, head_dim=16, num_attention_heads=4,
    num_key_value_heads=2, query_pre_attn_scalar=16, sliding_window=8, vocab_size=100,
)

# %% tags=["nbval-ignore-output"] id="20ba4e96"
SOME, ALL = "sliding_attention", "full_attention"  # what a layer sees
patterns = {"all sliding": [SOME] * 12, "every sixth full": ([SOME] * 5 + [ALL]) * 2, "all full": [ALL] * 12}
ids = torch.randint(100, (1, 128), generator=torch.Generator().manual_seed(1))
moved = {}
for name, kinds in patterns.items():
    torch.manual_seed(0)
    moved[name] = movement(CachedModel(small.replace(layer_types=kinds)).eval(), ids)
    print(f"{name:>17}: farthest place that moves after each layer:", *(int(row.nonzero().max()) for row in moved[name]))
print(f"{'reach':>17}: farthest place after each of 12 sliding layers:  ",
      *(reach(small.replace(layer_types=[SOME] * n), 128) for n in range(1, 13)))

# %% tags=["nbval-ignore-output"] id="11fcf1b8"
from grader.instruments import plots

pictures = []
for name, far in moved.items():
    around = plots.Axes("place in the text", "layer", name, size=(3.6, 2.9), colours=(0, 6))
    pictures.append(plots.grid(far.clamp(min=1e-6).log10() + 6, around, "orders of magnitude above 1e-6"))
plots.beside(*pictures)

# %% [markdown] id="228a0221"
# With sliding layers alone the edge moves by exactly W − 1 a layer, as you computed. But look at the colours: near the edge there is next to nothing. To get from the first token to the far edge, a change has to hop a whole window in every layer, and each hop hands on one share among W. Most of what a token says stays near. One full layer, and it is everywhere at once, in one hop. That is why a few are kept.
#
# Does a *trained* model make use of it? `austen-gemma3` has one full layer among six. **Predict** the loss on the passage, beyond the first 32 tokens: as it was trained; with the full layer made to slide as well; and with all windows taken away, so that every layer sees everything.

# %% tags=["nbval-ignore-output"] id="e00842fc"
def always_a_window(queries, keys, window=None):
    return right_mask(queries, keys, window or 32)


variants = {
    "as trained, 5 sliding and 1 full": (austen.config, right_mask),
    "all sliding": (austen.config.replace(layer_types=[SOME] * 6), right_mask),
    "the full layer's rotations kept, but a window": (austen.config, always_a_window),
    "all windows taken away": (austen.config.replace(sliding_window=256), right_mask),
}

# %% tags=["nbval-ignore-output"] id="7a3ffedb"
print("nats a token: the first 32, and after them")
for name, (config, mask) in variants.items():
    with patch.replaced(globals(), window_mask=mask), patch.replaced(model.model, config=config), torch.no_grad():
        nats = F.cross_entropy(model(novel)[0, :-1], novel[0, 1:], reduction="none")
        print(f"{name:>46}: {nats[:32].mean():.3f} {nats[32:].mean():.3f}")
moved = movement(model.model, novel)

# %% tags=["nbval-ignore-output"] id="9dbd0166"
print("\nplace   movement after the last sliding layer, after the full one")
for place in (8, 31, 62, 124, 155, 200, 255):
    print(f"{place:5} {moved[4, place]:33.1e} {moved[5, place]:20.1e}")

# %% [markdown] id="a4a694a0"
# (In the second line the layer gets the sliding layers' rotations as well; in the third only its view is taken.) For this model the full layer is worth two hundredths of a nat at most: it is small, it was trained on 256 tokens at a time, and a novel can mostly be continued from its last sentence. Windows taken *away* hurt far more: a layer that has never seen a token 40 places back does not know what to do with one.
#
# The second table is exact in one point. Five layers with a window of 32 reach 5 · 31 = 155 places, and beyond there is 0.0 and not nearly 0. At 155 itself less than a millionth of a millionth is left. Through the full layer the first token still moves the last one.
#
# ## Memory
#
# ### Exercise 7 · Bytes, with windows
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Lesson 02's formula, with one change: a sliding layer keeps `sliding_window` tokens at most, and no more than there are. Each layer counts by its kind, `layer_types(config)`.
#
# <details><summary>Hint 1</summary>
#
# First: what does one token cost in one layer? Then: how many tokens does each layer keep?
#
# <details><summary>Hint 2</summary>
#
# A text of 10 tokens and a window of 512. How many tokens are kept?
# </details>
# </details>

# %% exercise="sliding_window.bytes" id="sliding_window-bytes"
def cache_bytes(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    """How many bytes the keys and values of `batch` texts of `context` tokens take, in all layers.

    A "full_attention" layer keeps every token, a "sliding_attention" one config.sliding_window at most.
    config: layer_types(config) says what each layer is; num_key_value_heads; head_dim. sliding_window is null where
    no layer slides.
    """
    ### BEGIN SOLUTION
    kept = {"full_attention": context}
    if config.get("sliding_window"):
        kept["sliding_attention"] = min(context, config.sliding_window)
    tokens = sum(kept[kind] for kind in layer_types(config))  # of all layers together
    return 2 * tokens * config.num_key_value_heads * config.head_dim * element_bytes * batch
    ### END SOLUTION

# %% check="sliding_window.bytes" tags=["nbval-ignore-output"] id="check-sliding_window-bytes"
check("sliding_window.bytes", cache_bytes)

# %% [markdown] id="3b7b033b"
# A formula is a claim. The measurement: make the caches, and count the bytes behind their tensors. **Predict:** at which length does the ring begin to pay?

# %% id="941a269b"
gemma_config = Config.read("configs/gemma-3-270m.json")

# %% id="080e91e8"
narrow = gemma_config.replace(vocab_size=1, hidden_size=4, intermediate_size=1)  # its caches are as large as Gemma's
for dtype, batch in ((torch.float32, 1), (torch.bfloat16, 3)):
    body = CachedModel(narrow).to(dtype)
    print(f"{dtype}, batch {batch}:   tokens    measured     formula    without windows")
    for tokens in (64, 512, 513, 2048, 8192):
        measured = work.bytes_held(body.new_cache(batch, tokens))
        formula = cache_bytes(gemma_config, tokens, batch, dtype.itemsize)
        full = cache_bytes(gemma_config.replace(layer_types=["full_attention"] * 18), tokens, batch, dtype.itemsize)
        print(f"{tokens:30,} {measured:11,} {formula:11,} {full:11,}, {full / formula:.2f} times as much")
        assert measured == formula

# %% [markdown] id="c5203679"
# To the byte. Up to the window nothing is saved. Behind it each token costs 3 layers in place of 18, and the ratio creeps towards 6, the number of layers for each full one. That is the most that 5:1 can give, however small the window.
#
# The same on the real weights, where they are here. Its longest prompt is read with either kind of cache; then the caches for a longer text are made and measured.

# %% tags=["nbval-ignore-output"] id="8783dda5"
def cache_with_window(lm: CachedLM, window: int, tokens: int) -> list:
    """The caches that the model would make if its window were this one."""
    with patch.replaced(lm.model, config=lm.model.config.replace(sliding_window=window)):
        return lm.new_cache(1, tokens)

# %% tags=["nbval-ignore-output"] id="7e730c2d"
if gemma_model is not None:
    prompt = torch.tensor([list(gemma.goldens[-1].prompt_ids)])
    T, W = prompt.shape[1], gemma.config.sliding_window
    rolling, full = cache_with_window(gemma_model, W, T), cache_with_window(gemma_model, T, T)
    with torch.no_grad():
        for piece in prompt.split(128, dim=1):
            off = (gemma_model.model(piece, rolling) - gemma_model.model(piece, full)).abs().max().item()
    print(f"the vectors of the prompt's last chunk differ by at most {off:.1e}")
    for tokens in (T, 8192):
        sizes = [work.bytes_held(cache_with_window(gemma_model, window, tokens)) / 1e6 for window in (W, tokens)]
        print(f"{tokens:5,} tokens: {sizes[0]:6.2f} MB with rings, {sizes[1]:6.2f} MB without")

# %% [markdown] id="0e3f875d"
# Now the talk's chart. A model of 36 layers, 4,096 wide, five sliding layers for each full one, a window of 2,048. (The talk says 48 heads, which does not divide 4,096; only the width counts here, so 32 heads of 128.) **Predict** how many GB remain of 77 at 131,072 tokens.

# %% id="69a81740"
talk = Config({"model_type": "gemma3_text", "num_hidden_layers": 36, "num_key_value_heads": 32, "head_dim": 128,
               "sliding_window": 2048})
full_only = ["full_attention"] * 36
for name, heads in (("MHA", 32), ("GQA, 4 query heads for each", 8)):
    config = talk.replace(num_key_value_heads=heads)
    before, after = cache_bytes(config.replace(layer_types=full_only), 131_072), cache_bytes(config, 131_072)
    print(f"{name:>28}: {before / 1e9:6.2f} GB, with windows {after / 1e9:6.2f} GB: {before / after:.2f} times less")

# %% [markdown] id="1326130c"
# The talk has shown three ways to keep less, each with a chart for a model of its own: GQA (fewer heads), MLA (a sketch in place of keys and values), SWA (fewer tokens). The three on one axis: how much of the same model's MHA cache is left.

# %% tags=["nbval-ignore-output"] id="4b376170"
from grader.kv import bytes_at

contexts = [1024 * n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
one_wide_head = Config({"num_hidden_layers": 48, "num_attention_heads": 24, "num_key_value_heads": 1, "head_dim": 2048})
mha = {"GQA": one_wide_head, "MLA": one_wide_head, "SWA": talk.replace(layer_types=full_only)}  # only the width counts
methods = {
    "GQA": {f"{n} share one": mha["GQA"].replace(head_dim=2048 // n) for n in (2, 4, 8)},
    "MLA": {f"latent {n}": Config({"num_hidden_layers": 48, "kv_lora_rank": n}) for n in (1024, 512, 256, 64)},
    "SWA": {"MHA, window 2,048, 5:1": talk, "GQA, 4 share one, and the window": talk.replace(num_key_value_heads=8)},
}

# %% tags=["nbval-ignore-output"] id="b19f14f3"
left = {}
for method, configs in methods.items():
    before = [bytes_at(mha[method], c) for c in contexts]
    print(f"{method}: MHA {before[-1] / 1e9:.2f} GB at 131,072 tokens")
    for name, config in configs.items():
        sizes = [bytes_at(config, c) for c in contexts]
        print(f"     {name:>34}: {sizes[-1] / 1e9:6.2f} GB, {sizes[-1] / before[-1]:6.1%} of it")
        left[f"{method}: {name}"] = contexts, [100 * s / b for s, b in zip(sizes, before, strict=True)]

# %% tags=["nbval-ignore-output"] id="e0b2dbad"
named, percents = {1024: "1k", 4096: "4k", 16_384: "16k", 131_072: "128k"}, {n: str(n) for n in (2, 5, 10, 20, 50, 100)}
looks = {"log": "xy", "xticks": named, "yticks": percents, "size": (4.6, 3.6)}
pictures = []
for method in methods:
    curves = {name.split(": ", 1)[1]: curve for name, curve in left.items() if name.startswith(method)}
    around = plots.Axes("context, tokens", "percent of MHA's", method, ylim=(1.5, 100), **looks)
    pictures.append(plots.lines(curves, around))
plots.beside(*pictures)

# %% [markdown] id="209cad94"
# GQA and MLA lower every line by a factor that no length changes. A window does nothing for short texts, and more and more for long ones, down to the share of full layers. They concern different things (heads, the width of what is kept, the number of tokens), so they multiply: Gemma 3 and many others use GQA *and* windows. (The talk's MLA chart leaves out the rotated key that all heads share; lesson 05 counts it.)
#
# For real models two numbers are needed, not one: what a token costs before the window is full, and after.

# %% id="cb3f4a10"
print(f"{'KiB a token, bfloat16':>24} {'before':>8} {'after':>8}   {'at 131,072 tokens':>18}")
for name in ("Gemma 3 270M", "Gemma 3 27B"):
    config = known_model(name)
    first, later = cache_bytes(config, 1), cache_bytes(config, 10_001) - cache_bytes(config, 10_000)
    print(f"{name:>24} {first / 1024:8.0f} {later / 1024:8.0f}   {cache_bytes(config, 131_072) / 1e9:15.2f} GB")

# %% [markdown] id="18043ec4"
# ### To play with
#
# The panel of lesson 02, with your window. **Predict:** Gemma 3 27B at 131,072 tokens. What saves more: its windows (1,024, five of six layers), or GQA with half as many heads?

# %% tags=["nbval-ignore-output"] id="70fe4b82"
from grader.kv import kv_panel

kv_panel("Gemma 3 27B", context=131_072)

# %% [markdown] id="2da0ba5a"
# ## Time
#
# In a full layer the next token meets every key, so it takes longer and longer. In a sliding one it meets W. **Predict** the three curves: a model whose layers are all full, one with 5:1, one whose layers all slide with a window of 256. Up to 4,096 tokens, one thread's worth of a small model with random weights.

# %% tags=["nbval-ignore-output"] id="15247aca"
clocked = austen.config.replace(
    num_hidden_layers=6, hidden_size=256, intermediate_size=512, num_attention_heads=8, num_key_value_heads=8,
    head_dim=64, query_pre_attn_scalar=64, sliding_window=256, vocab_size=100,
)

# %% id="75d58af6"
timed_patterns = {"all full": [ALL] * 6, "5 sliding, 1 full": [SOME] * 5 + [ALL], "all sliding, W = 256": [SOME] * 6}
lengths = [64, 128, 256, 512, 1024, 2048, 4096]
REPEATS = 40

# %% id="67cf96b7"
from functools import partial


@torch.no_grad()
def next_token(kinds: list[str], length: int):
    """A call that reads one more token, of a model with random weights whose cache has read `length`."""
    torch.manual_seed(0)
    body = CachedModel(clocked.replace(layer_types=kinds)).eval()
    cache = body.new_cache(1, length + REPEATS + 1)
    for start in range(0, length, 256):
        body(torch.zeros(1, min(256, length - start), dtype=torch.int64), cache)
    return partial(body, torch.zeros(1, 1, dtype=torch.int64), cache)

# %% tags=["nbval-ignore-output"] id="080f92bb"
from grader.instruments import clock

prepared = {(name, n): next_token(kinds, n) for name, kinds in timed_patterns.items() for n in lengths}
times = clock.in_turns(prepared, REPEATS)
measured = {name: [times[name, n] for n in lengths] for name in timed_patterns}
print(f"{'ms for the token after':>22} {''.join(f'{n:8,}' for n in lengths)}")
for name, own in measured.items():
    print(f"{name:>22} {''.join(f'{ms:8.2f}' for ms in own)}")

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="9ecf6011"
curves = {name: (lengths, times) for name, times in measured.items()}
around = plots.Axes("tokens so far", "ms for the next token", log="x", xticks=lengths, ylim=(0, None), marks={"x256": "W"})
plots.lines(curves, around)

# %% [markdown] id="56f2a12b"
# Flat behind the window: a sliding layer takes the same time for the token after 4,096 as for the one after 256. The ring itself costs something (it copies W keys and values a step, to hand them out in order), which is why it pays only when the text is a few windows long.
#
# ## What changed, and why
#
# | | full attention | sliding window | what it costs |
# |---|---|---|---|
# | a token sees | everything before it | W tokens, itself among them | what is farther away arrives only through other layers |
# | kept a layer | every token | W tokens at most | the cache has to overwrite |
# | memory at T tokens | grows with T | flat behind W | nothing is saved before W |
# | the next token | meets T keys | meets W keys | – |
# | positions | how many keys there are | a number of its own, `length` | one more thing to get wrong |
# | a chunk of a prompt | all keys are there | W − 1 old ones, handed out before they are overwritten | the commonest bug |
# | mask | lined up at the lower right | the same, and cut at W | one too many, one too few |
# | reset | `length = 0` | the same | the pointer: forgotten in a real program |
# | a stack of layers | one hop to anywhere | W − 1 a layer | a few full layers are kept: 5:1 in Gemma 3 |
#
# ## The questions again
#
# <details><summary>A window of 1,024 and 62 layers: how far back can information come from?</summary>
#
# With sliding layers alone 62 · 1,023 = 63,426 tokens; as Gemma 3 27B is, from anywhere, because ten of its layers are full. What arrives from afar through sliding layers alone is next to nothing: one hop for each layer, and each hands on a share.
# </details>
#
# <details><summary>Why does a window save no memory by itself?</summary>
#
# A mask only hides. The tokens behind the window have to be let go of, and a cache that does not do so writes the same text.
# </details>
#
# <details><summary>A chunk of 100 tokens comes to a ring of 32. What must append give back?</summary>
#
# The 31 latest old ones, which the chunk's first token sees (and then 30, and so on), and all 100 new ones. What stays in the ring is the last 32 of them.
# </details>
#
# <details><summary>Why can't the model ask the ring how many tokens it holds, to know the next position?</summary>
#
# The answer would stop at W, and every later token would stand at the same place. A cache that forgets has to remember how much there was.
# </details>
#
# <details><summary>Why are keys not rotated again when they move in the ring?</summary>
#
# A key was turned by the angle of its own position when it was computed. In which place it lies is nobody's business; the product of a query and a key depends on the difference of their positions.
# </details>
#
# <details><summary>Which of the mistakes shows in no text?</summary>
#
# A cache that masks and never trims: only its memory tells. A window one too short or too long: the loss moves a little. The pointer that is not reset: the first text is right.
# </details>
#
# <details><summary>By how much can 5:1 shrink a cache, at most?</summary>
#
# By 6, for texts much longer than the window: the full layers, one in six, go on growing.
# </details>
#
# ## Where to read on
#
# - Beltagy et al., *Longformer* (2020), section 3.1: windows, and how stacked layers see farther. Child et al., *Generating Long Sequences with Sparse Transformers* (2019).
# - Jiang et al., *Mistral 7B* (2023), section 2: sliding windows in all layers, the rolling buffer cache, and prompts in chunks.
# - Gemma Team, *Gemma 3 Technical Report* (2025), section 5.2: how the ratio of local to global layers and the window were chosen, and what the cache takes.
# - The reference: `transformers/cache_utils.py`, `DynamicSlidingWindowLayer` and `StaticSlidingWindowLayer`; `masking_utils.py`, `sliding_window_overlay`.
#
# ## If you want more
#
# When a single token comes and the ring is full, the keys need not be put in order: attention adds up over them in whatever order they lie, and all of them may be seen. So `append` could write first and give back the ring itself, without a copy. Write a cache with that path (of its own class: the check of exercise 3 asks for the order), and show that the model's results agree within rounding. By how much does the last picture's blue line fall?
#
# Then the harder one. Models that were trained without windows can be given one afterwards, if the *first* four tokens of the text stay visible to everybody (attention sinks; Xiao et al., 2023, *Efficient Streaming Language Models with Attention Sinks*, section 3.2). Write the mask, and the cache that keeps 4 + W tokens. At which positions do the four stand?
