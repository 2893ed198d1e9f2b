# %% [markdown] id="db4b95b2"
# # 01 · GPT-2: the architecture everything else is a diff of
#
# **What is in GPT-2's `config.json` that you could change and still load the weights?**
#
# Guess now, in writing. Near the end you will change the fields one by one and measure.
#
# After this lesson you can
#
# - read every line of GPT-2's `config.json`, and count its parameters without loading it;
# - write GPT-2 from an empty file: 8 small parts, each checked against Hugging Face transformers;
# - load trained weights by their own names and write the reference's text, token for token;
# - name the places where a wrong GPT-2 runs without an error, and say how you would notice.
#
# 90 to 120 minutes · difficulty ●●○○○ · you know PyTorch (`nn.Module`, broadcasting, `view`), and lesson 00
#
# This is what you will build. The names are those of the checkpoint: `h.3.attn.c_attn` is a place in this picture. (The code of the drawing is folded.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="ef51a832"
import logging

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces its first start
import matplotlib.pyplot as plt

plt.rcParams.update({"figure.facecolor": "white", "figure.dpi": 90, "savefig.dpi": 90})

GREY, BLUE, GREEN, AMBER = "#eceff1", "#cfe3f7", "#d5ecd6", "#fbe6c2"


def chain(axis, x, steps, gap=0.55):
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


figure, axes = plt.subplots(1, 3, figsize=(11, 6.2), layout="constrained")
whole = chain(axes[0], 0, [
    ("token ids  [B, T]", "white"), ("wte + wpe", AMBER), ("h.0", GREY), ("h.1", GREY), ("...", "white"), ("h.11", GREY),
    ("ln_f", GREEN), ("head: wte again", AMBER), ("logits  [B, T, 50257]", "white")])
block = chain(axes[1], 0, [
    ("x  [B, T, 768]", "white"), ("ln_1", GREEN), ("attn", BLUE), ("+", "white"), ("ln_2", GREEN), ("mlp", BLUE),
    (" + ", "white"), ("x  [B, T, 768] ", "white")])
parts = chain(axes[2], 0, [
    ("ln_1(x)  [B, T, 768]", "white"), ("c_attn: 768 to 3 · 768", BLUE), ("q, k, v for each of 12 heads", GREY),
    ("softmax(q kᵀ / √64 + mask)", GREY), ("weights · v", GREY), ("heads side by side", GREY), ("c_proj: 768 to 768", BLUE)])
chain(axes[2], 2.6, [
    ("ln_2(x)  [B, T, 768]", "white"), ("c_fc: 768 to 3072", BLUE), ("act: GELU", GREY), ("c_proj: 3072 to 768", BLUE)])
for low, high in ((0.33, block["+"]), (block["+"] + 0.33, block[" + "])):
    axes[1].plot([0, 0.9, 0.9, 0.17], [low + 0.12, low + 0.12, high, high], color="#c62828", lw=1.6)
    axes[1].plot(0.2, high, marker="<", color="#c62828", ms=6)
axes[1].text(0.98, 3.2, "residual\nstream", color="#c62828", fontsize=9, va="center")
for axis, title, limits in zip(axes, ("GPT-2 (124M)", "one block, h.N", "attn (left) and mlp (right)"),
                               ((-1.6, 1.6), (-1.5, 1.9), (-1.5, 3.9)), strict=True):
    axis.set_title(title, fontsize=11, color="black")
    axis.set(xlim=limits, ylim=(-0.6, 9.9))
    axis.axis("off")
plt.show()

# %% tags=["setup"] id="setup"
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, GraderError, check, check_generation, compare_layers, load_checkpoint

# %% [markdown] id="d65ac4ee"
# ## Steps 1 to 3 · The news, the report, the hub
#
# In February 2019 OpenAI published *Language Models are Unsupervised Multitask Learners*. The paper says little about the architecture: section 2.3 is half a column, a list of changes to the model of the year before. Most of what you need is in the files.
#
# On the hub the model is [openai-community/gpt2](https://huggingface.co/openai-community/gpt2), with three siblings: `gpt2-medium`, `gpt2-large`, `gpt2-xl`. Three files matter:
#
# | file | what it is |
# |---|---|
# | `config.json` | 665 bytes: which numbers to build the model with |
# | `model.safetensors` | 548 MB: the trained weights, each with a name and a shape |
# | `tokenizer.json` | how text becomes token ids, and back |
#
# You build what is *not* there: the computation. The config gives its sizes and the weights give its names.

# %% [markdown] id="41fd061d"
# ## Step 4 · Check config.json
#
# The four files are in `configs/`, as they stand on the hub. Here is the smallest model's, whole.

# %% id="e9ea6150"
from pathlib import Path

print(Path("configs/gpt2.json").read_text())

# %% [markdown] id="2b2a4083"
# | field | what it decides |
# |---|---|
# | `n_layer` 12 | how many blocks are stacked, `h.0` to `h.11` |
# | `n_embd` 768 | D: how long the vector is that stands for one token, all the way up |
# | `n_head` 12 | into how many heads attention cuts those 768 channels: 12 heads of 64 |
# | `n_positions` 1024 | how many rows `wpe` has: the longest text the model can read |
# | `n_ctx` 1024 | an older name of `n_positions`. Nothing in transformers reads it any more |
# | `vocab_size` 50257 | how many rows `wte` has: 256 bytes + 50,000 merges + 1 end of text |
# | `activation_function` `gelu_new` | the non-linear function in the MLP. The name matters: `gelu` is another one |
# | `layer_norm_epsilon` 1e-05 | the small number in every LayerNorm |
# | `bos_token_id`, `eos_token_id` 50256 | `<\|endoftext\|>`: it stands between two texts, so it begins and ends one |
# | `attn_pdrop`, `embd_pdrop`, `resid_pdrop` 0.1 | dropout while training: of attention weights, of the embeddings, before each sum. Nothing in eval mode |
# | `initializer_range` 0.02 | the standard deviation of the weights before training. Trained weights overwrite it |
# | `model_type`, `architectures` | which code is meant: `gpt2`, and in it the class `GPT2LMHeadModel` |
# | `summary_type`, `summary_use_proj`, `summary_activation`, `summary_proj_to_labels`, `summary_first_dropout` | a classification head of another class, `GPT2DoubleHeadsModel`. A language model has none |
# | `task_specific_params` | what a text generation service should assume: sample, stop at 50 tokens |
#
# Two fields are missing, and a program has to know what that means. There is no `n_inner`, the width of the MLP: then it is 4 · `n_embd`. There is no `tie_word_embeddings`: then the head shares its weight with `wte`.
#
# The four models are one program with different numbers. Which numbers?

# %% id="c2b29f8b"
names = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
configs = {name: Config.read(f"configs/{name}.json") for name in names}

print(f"{'':>24}", *(f"{name:>12}" for name in names))
for field in sorted(set().union(*configs.values())):
    values = [str(config.get(field, "-")) for config in configs.values()]
    if len(set(values)) > 1:
        print(f"{field:>24}", *(f"{value:>12}" for value in values))

# %% [markdown] id="2f664440"
# Three fields. (The other rows are left from the programs that once wrote these files.) And `n_head` follows from `n_embd`: a head has 64 channels in all four.
#
# ### Where are the parameters?
#
# The config is enough to count them. **Predict:** which share of GPT-2's 124M parameters are embeddings, the two tables that turn ids and positions into vectors? And of XL's 1.5B?

# %% id="85ba255f"
def parameters(config: Config) -> dict[str, int]:
    """The number of parameters of each kind. Every matrix has its bias; a norm has a weight and a bias."""
    D, L = config.n_embd, config.n_layer
    return {
        "token embedding": config.vocab_size * D,
        "position embedding": config.n_positions * D,
        "attention": L * ((D + 1) * 3 * D + (D + 1) * D),
        "MLP": L * ((D + 1) * 4 * D + (4 * D + 1) * D),
        "norms": (2 * L + 1) * 2 * D,
    }


for name, config in configs.items():
    counts = parameters(config)
    shares = ", ".join(f"{part} {count / sum(counts.values()):.1%}" for part, count in counts.items())
    print(f"{name:>12} {sum(counts.values()):>13,}   {shares}")

# %% tags=["nbval-ignore-output"] id="0b562a78"
figure, axis = plt.subplots(figsize=(9, 2.6), layout="constrained")
left = [0.0] * len(names)
for part, colour in zip(parameters(configs["gpt2"]), ("#ef9a3c", "#f6cf8f", "#1f77b4", "#7fb2dc", "#4caf50"), strict=True):
    shares = [100 * parameters(c)[part] / sum(parameters(c).values()) for c in configs.values()]
    axis.barh(names, shares, left=left, color=colour, label=part)
    left = [a + b for a, b in zip(left, shares, strict=True)]
axis.invert_yaxis()
axis.set(xlabel="share of the parameters, %", xlim=(0, 100))
axis.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False, fontsize=9)
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] id="0143bfe6"
# A third of the small model is a dictionary; at XL it is a twentieth, because the table grows with D and a block with D². In every block the MLP holds twice what attention does: 8 D² against 4 D². That is what the factor 4 in `n_inner` buys, and where most of a large model is.
#
# The tied head matters most for small models: without it GPT-2 would have another 38.6M parameters, 31% more.
#
# **Step 5 · Compare with other architectures.** There is nothing to compare with yet: GPT-2 is what the later lessons compare with. What it changed itself stands in a table at the end.

# %% [markdown] id="932143db"
# ## Step 6 · Code it up
#
# Eight exercises, in the order in which data flows. One rule: **names are the checkpoint's names.** If your module is called `c_attn` where the checkpoint says `c_attn`, trained weights load without any mapping, and strictly: a name too many or too few is an error.
#
# ### Exercise 1 · LayerNorm
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Each token's vector is brought to mean 0 and variance 1 by itself, whatever its neighbours are. Then a learned weight and a learned bias, one number for each channel, scale and shift it:
#
# $$y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \varepsilon}} \odot w + b$$
#
# `F.layer_norm` is right too; you learn most if you leave it aside here and write out the mean and the variance. Two details are easily got wrong: by how many numbers the variance is divided, and where ε stands. Ordinary inputs show the first. The second shows only where the variance is as small as ε.
#
# <details><summary>Hint 1</summary>
#
# The statistics are taken along one axis, and the result must still broadcast against `x`. Look at what `keepdim` does.
#
# <details><summary>Hint 2</summary>
#
# PyTorch's `var` estimates the variance of a population from a sample unless you tell it otherwise. Is this vector a sample?
#
# <details><summary>Hint 3</summary>
#
# Multiply your input by 0.001. The right answer changes a lot, and not because of rounding. Which term of the formula is it?
# </details>
# </details>
# </details>

# %% exercise="gpt2.layer_norm" id="gpt2-layer_norm"
class LayerNorm(nn.Module):
    """Centre each vector, scale it to variance 1, then apply a learned scale and shift.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, mean and variance over the last axis.
    x: [..., dim] -> [..., dim]. Ba, Kiros and Hinton (2016), section 3.
    """

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        mean = x.mean(dim=-1, keepdim=True)  # [..., 1]
        variance = x.var(dim=-1, keepdim=True, correction=0)  # [..., 1]
        normed = (x - mean) / torch.sqrt(variance + self.eps)  # [..., dim]
        return normed * self.weight + self.bias
        ### END SOLUTION

# %% check="gpt2.layer_norm" tags=["nbval-ignore-output"] id="check-gpt2-layer_norm"
check("gpt2.layer_norm", LayerNorm)

# %% [markdown] id="9410c56b"
# Written out, it is "right" but not "bit-exact": PyTorch has this formula as one fused kernel, `nn.LayerNorm`, and that adds the numbers up in another order. The difference is one rounding or two. You will see below how far it carries.
#
# ### Exercise 2 · GELU
# difficulty ●○○○○ · importance ●●○○○ · 5 minutes
#
# A smooth ReLU. The exact GELU is $x \cdot \Phi(x)$ with the normal distribution's $\Phi$. The paper also gives an approximation, and OpenAI's code used that:
#
# $$y = \tfrac{x}{2}\left(1 + \tanh\left(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right)$$
#
# In a config this one is called `gelu_new` (or `gelu_pytorch_tanh`), and the exact one `gelu`.
#
# <details><summary>Hint 1</summary>
#
# Three numbers to try by hand: for x = 0 it gives 0, for a large x it gives x, for a large negative x it gives 0.
#
# <details><summary>Hint 2</summary>
#
# For "bit-exact", not only "right": transformers cubes with `torch.pow`. `x * x * x` rounds twice.
# </details>
# </details>

# %% exercise="gpt2.gelu" id="gpt2-gelu"
class GELU(nn.Module):
    """The GELU in its tanh form, `gelu_new` in GPT-2's config.

    y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), element by element; neither constant is rounded.
    x: [...] -> [...]. Hendrycks and Gimpel (2016), section 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
        return 0.5 * x * (1.0 + torch.tanh(inner))
        ### END SOLUTION

# %% check="gpt2.gelu" tags=["nbval-ignore-output"] id="check-gpt2-gelu"
check("gpt2.gelu", GELU)

# %% [markdown] id="1e47386f"
# **Predict:** if you took the exact GELU by mistake, by how much would a value be off at most: 0.1, 0.01, 0.001 or less?

# %% id="f1cc6783"
x = torch.linspace(-5, 5, 1001)
difference = (GELU()(x) - F.gelu(x)).abs()
print(f"largest difference {difference.max():.1e}, near |x| = {x[difference.argmax()].abs():.1f}")

# %% [markdown] id="6403cc2d"
# Too little to see in a plot of the function, or in bfloat16, which keeps 8 bits of a number. The check's float32 cases see it.
#
# ### Exercise 3 · Conv1D
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# A linear layer, nothing else. GPT-2's code calls it `Conv1D`, because a convolution of width 1 is one, and it stores the weight as **[inputs, outputs]**. `nn.Linear` stores [outputs, inputs].
#
# $$y_j = \sum_i x_i\, W_{ij} + b_j$$
#
# The arguments come in transformers' order: `nf`, the number of outputs, first.
#
# <details><summary>Hint 1</summary>
#
# `F.linear(x, weight, bias)` expects the weight as `nn.Linear` stores it. What must happen to yours on the way?
#
# <details><summary>Hint 2</summary>
#
# `x @ weight + bias` is right too. It may round once more, before it adds the bias; in bfloat16 that shows, and costs the "bit-exact".
# </details>
# </details>

# %% exercise="gpt2.conv1d" id="gpt2-conv1d"
class Conv1D(nn.Module):
    """A linear layer whose weight is stored as [inputs, outputs].

    y[..., j] = sum_i x[..., i] * weight[i, j] + bias[j].
    x: [..., nx] -> [..., nf]; weight: [nx, nf]; bias: [nf].
    transformers: pytorch_utils.py, Conv1D.
    """

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(nx, nf) * 0.02)
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return F.linear(x, self.weight.T, self.bias)
        ### END SOLUTION

# %% check="gpt2.conv1d" tags=["nbval-ignore-output"] id="check-gpt2-conv1d"
check("gpt2.conv1d", Conv1D)

# %% [markdown] id="b26be5b6"
# One of the cases has a square weight, and here is why. `attn.c_proj` is square, 768 × 768, in every block. **Predict:** you use it transposed by mistake. What do you notice: an error, a wrong shape, a strange mean, a strange spread?

# %% id="fedf39b2"
torch.manual_seed(0)
layer, x = Conv1D(768, 768), torch.randn(10, 768)
with torch.no_grad():
    right, wrong = layer(x), x @ layer.weight.T + layer.bias
for name, y in (("right", right), ("transposed", wrong)):
    print(f"{name:>10}: shape {list(y.shape)}, mean {y.mean():+.2f}, standard deviation {y.std():.2f}")
print(f"correlation of the two: {torch.corrcoef(torch.stack([right.flatten(), wrong.flatten()]))[0, 1]:+.2f}")

# %% [markdown] id="5ca8545d"
# Nothing. The shapes agree, the statistics agree, no value is strange; they have only nothing to do with each other. Weights load strictly and the text is nonsense. Only a comparison with a reference sees this.
#
# ### Exercise 4 · Attention
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# The one place where tokens see each other. Each token asks with a *query*, is found by its *key*, and hands over its *value*:
#
# $$\mathrm{head}(x) = \mathrm{softmax}\left(\frac{q k^\top}{\sqrt{d}} + M\right) v$$
#
# with $d$ = `head_dim`, and $M$ the causal mask: no token may see a later one.

# %% tags=["nbval-ignore-output"] id="d9ad4da2"
words = ["The", "model", "attends", "to", "past", "tokens"]
allowed = [[key <= query for key in range(6)] for query in range(6)]
figure, axis = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
axis.imshow(allowed, cmap="Greys", vmin=0, vmax=2.2)
for i in range(6):
    for j in range(6):
        axis.text(j, i, "1" if allowed[i][j] else "0", ha="center", va="center", color="black")
axis.set_xticks(range(6), words, rotation=30)
axis.set_yticks(range(6), words)
axis.set(xlabel="key: who is seen", ylabel="query: who looks")
plt.show()

# %% [markdown] id="329f097c"
# How the numbers lie in memory:
#
# - `c_attn` makes q, k and v in one product. Its 3 D outputs are first all of q, then all of k, then all of v.
# - A head owns `head_dim` neighbouring channels: head 0 has channels 0 to 63, head 1 has 64 to 127, and so on.
# - After the heads are done, their results stand side by side again in that order, and `c_proj` mixes them.
#
# <details><summary>Hint 1: the shapes</summary>
#
# x [B, T, D] → c_attn [B, T, 3 D] → q, k, v, each [B, T, D] → each [B, heads, T, head_dim] → scores [B, heads, T, T] → weights, the same → mixed values [B, heads, T, head_dim] → [B, T, D] → c_proj [B, T, D].
#
# <details><summary>Hint 2: cutting out heads</summary>
#
# `view` splits an axis in two where it stands; it can't move one past another. Split D first. Only then bring the heads' axis to the front, with another operation. The way back is the same in reverse.
#
# <details><summary>Hint 3: the mask</summary>
#
# A key that must not be seen needs weight 0 *after* the softmax. So its score, before the softmax, must be a number whose exponential is 0. Keep the diagonal.
#
# <details><summary>Hint 4: the names</summary>
#
# `Tensor.split` or `chunk`; `view` and `transpose`; `torch.triu` or `tril` makes a triangle; `masked_fill` puts a value where a boolean mask is true; `softmax(dim=...)`. After a `transpose`, `reshape` works where `view` does not.
#
# <details><summary>Hint 5: to the last bit</summary>
#
# For "bit-exact", not only "right": transformers *multiplies* the scores by `head_dim**-0.5`. Dividing by the root is the same formula and rounds differently; so does `F.scaled_dot_product_attention`.
# </details>
# </details>
# </details>
# </details>
# </details>

# %% exercise="gpt2.attention" id="gpt2-attention"
class Attention(nn.Module):
    """Causal self-attention with several heads. Vaswani et al. (2017), section 3.2.

    For each head: softmax(q k^T / sqrt(head_dim) + mask) v; then the heads side by side, through c_proj.
    A score can be any number, also far below 0: where the mask hides, put -inf or the dtype's lowest number.
    x: [B, T, D] -> [B, T, D], with D = config.n_embd = num_heads * head_dim.
    transformers: models/gpt2/modeling_gpt2.py, GPT2Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.num_heads = config.n_head
        self.head_dim = config.n_embd // config.n_head
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)  # q, k and v of all heads
        self.c_proj = Conv1D(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        ### BEGIN SOLUTION
        q, k, v = self.c_attn(x).split(D, dim=-1)  # 3 x [B, T, D]
        heads = (B, T, self.num_heads, self.head_dim)
        q, k, v = (t.view(heads).transpose(1, 2) for t in (q, k, v))  # 3 x [B, H, T, head_dim]
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5  # [B, H, T, T]
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)  # [T, T]
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, D)  # [B, H, T, head_dim] -> [B, T, D]
        return self.c_proj(mixed)
        ### END SOLUTION

# %% check="gpt2.attention" tags=["nbval-ignore-output"] id="check-gpt2-attention"
check("gpt2.attention", Attention)

# %% [markdown] id="7e250f08"
# ### Why divide by √head_dim?
#
# A score is a sum of `head_dim` products. If q and k have entries of variance 1, the sum has variance `head_dim`: the longer the heads, the larger the scores, and the softmax of large scores is nearly one-hot.
#
# The exponential of a softmax's entropy says between how many keys it divides its attention. **Predict** for 256 keys and random queries: how many keys does a head of 64 attend to, with the scale and without?

# %% id="848452ef"
def keys_attended(head_dim: int, scale: float) -> float:
    """Between how many of 256 random keys a random query divides its attention: the exponential of the entropy."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(1000, head_dim, generator=generator), torch.randn(256, head_dim, generator=generator)
    weights = (scale * q @ k.T).softmax(dim=-1)  # [1000, 256]
    return torch.special.entr(weights).sum(dim=-1).exp().mean().item()


print("head_dim   without scale   with 1/√head_dim")
for head_dim in (16, 64, 128, 256):
    print(f"{head_dim:8} {keys_attended(head_dim, 1.0):15.1f} {keys_attended(head_dim, head_dim**-0.5):18.1f}")

# %% [markdown] id="15eb9a19"
# With the scale a fresh head attends to nearly 160 of the 256 keys, whatever its size. Without it, a head of 64 attends to two or three, chosen at random before it has learned anything.
#
# ### Exercise 5 · MLP
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# Widen, bend, narrow: `c_fc` from D to the inner width, the activation, `c_proj` back to D. Every token by itself.
#
# From here on you write `__init__` too. The docstring gives the names of the parts. Look at how the inner width is decided: some configs leave `n_inner` out, some have it as `null` (which Python reads as `None`), some give a number. A `Config` has `.get`, as a dict has.
#
# <details><summary>Hint 1</summary>
#
# `Conv1D(nf, nx)`: outputs first. Which of the two layers is [D, inner] and which is [inner, D]?
#
# <details><summary>Hint 2</summary>
#
# `config.get("n_inner")` is `None` both where the field is missing and where it is `null`.
# </details>
# </details>

# %% exercise="gpt2.mlp" id="gpt2-mlp"
class MLP(nn.Module):
    """Two linear maps with a GELU in between, for each token by itself.

    Parts: c_fc (D -> inner), act, c_proj (inner -> D).
    inner is config's n_inner where there is a number, else 4 D.
    x: [B, T, D] -> [B, T, D]. transformers: GPT2MLP.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        inner = config.get("n_inner") or 4 * config.n_embd
        self.c_fc = Conv1D(inner, config.n_embd)
        self.act = GELU()
        self.c_proj = Conv1D(config.n_embd, inner)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return self.c_proj(self.act(self.c_fc(x)))  # [B, T, D] -> [B, T, inner] -> [B, T, D]
        ### END SOLUTION

# %% check="gpt2.mlp" tags=["nbval-ignore-output"] id="check-gpt2-mlp"
check("gpt2.mlp", MLP)

# %% [markdown] id="141c3cd2"
# ### Exercise 6 · Block
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Follow the red line in the picture at the top. The vectors that run up through the model are called the *residual stream*. A block changes them twice, each time by adding: attention reads a normalised copy and adds what it found, the MLP reads a normalised copy of the result and adds what it made of it.
#
# For the two norms take `nn.LayerNorm` or your own `LayerNorm`, with the config's eps. Both are right. `nn.LayerNorm` is the reference's kernel, so only with it can the result be bit-exact.
#
# <details><summary>Hint 1</summary>
#
# Two lines. Each has the shape: x, plus a sublayer of a norm of x.
#
# <details><summary>Hint 2</summary>
#
# Does the second line start from the block's input, or from what the first line made?
# </details>
# </details>

# %% exercise="gpt2.block" id="gpt2-block"
class Block(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of x and is added to x.

    Parts: ln_1, attn, ln_2, mlp; the norms with config.layer_norm_epsilon.
    x: [B, T, D] -> [B, T, D]. Radford et al. (2019), section 2.3. transformers: GPT2Block.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))
        ### END SOLUTION

# %% check="gpt2.block" tags=["nbval-ignore-output"] id="check-gpt2-block"
check("gpt2.block", Block)

# %% [markdown] id="76d45ab1"
# ### Why the norm moved
#
# The Transformer of 2017 normalised the *sum*; GPT-2 normalises what a sublayer *reads*, and leaves the stream alone ("pre-LN"). Take 96 random sublayers, as many as GPT-2 XL has, and follow one vector up. **Predict:** how much of what entered at the bottom is still in the stream at the top, measured as the cosine between the two?

# %% tags=["nbval-ignore-output"] id="3219259f"
def cosine_with_input(after_the_sum: bool, depth: int = 96, dim: int = 256) -> list[float]:
    """The cosine between the stream and what entered it, after each of `depth` random sublayers."""
    generator = torch.Generator().manual_seed(0)
    start = stream = torch.randn(64, dim, generator=generator)
    cosines = []
    for _ in range(depth):
        sublayer = torch.randn(dim, dim, generator=generator) * dim**-0.5
        if after_the_sum:
            stream = F.layer_norm(stream + stream @ sublayer, (dim,))
        else:
            stream = stream + F.layer_norm(stream, (dim,)) @ sublayer
        cosines.append(F.cosine_similarity(stream, start).mean().item())
    return cosines


figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
for after_the_sum, label, colour in ((False, "GPT-2: norm before the sublayer", "#1f77b4"),
                                     (True, "2017: norm after the sum", "#c62828")):
    cosines = cosine_with_input(after_the_sum)
    axis.plot(range(1, 97), cosines, color=colour, label=label)
    print(f"{label}: {cosines[11]:.2f} after 12 sublayers, {cosines[-1]:.2f} after 96")
axis.set(xlabel="sublayers", ylabel="cosine with the input", ylim=(-0.05, 1))
axis.legend(frameon=False)
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] id="697b7dbd"
# With the norm after the sum, every sublayer shrinks what was there before by about √2, and after 12 of them a hundredth of it is left. With additions only, each contribution stays at its size, and what came in at the bottom is still there at the top. Models of the first kind need a careful warm-up to train at all (Xiong et al., 2020, say why); most models since GPT-2 are of the second kind.
#
# The stream does grow, by one sublayer's worth each time. That is what the one last norm, `ln_f`, is for.
#
# ### Exercise 7 · The whole model
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Ids to vectors, twelve blocks, the last norm, and vectors to logits.
#
# - Two tables: `wte` has a row for every token of the vocabulary, `wpe` a row for every position. A token enters as the sum of its two rows.
# - The head has no weight of its own. A logit is the dot product of the final vector with a token's row in `wte`: the table is used twice, once to read and once to write.
# - The blocks are in an `nn.ModuleList` called `h`, so their names are `h.0`, `h.1`, and so on.
#
# <details><summary>Hint 1</summary>
#
# `wpe` wants positions: 0, 1, ..., T - 1. Make them on the same device as `ids`. [T, D] adds to [B, T, D] by broadcasting.
#
# <details><summary>Hint 2</summary>
#
# `F.linear(x, weight)` multiplies by the transposed weight. `wte.weight` is [vocab_size, D]: is that the way round you need?
# </details>
# </details>

# %% exercise="gpt2.model" id="gpt2-model"
class GPT2(nn.Module):
    """Token ids to the logits of the next token, at every position.

    Parts: wte and wpe (nn.Embedding), h (nn.ModuleList of Block), ln_f. The head's weight is wte's.
    Keeps the config as self.config.
    ids: [B, T] int64 -> [B, T, vocab_size], T <= config.n_positions. transformers: GPT2LMHeadModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        x = self.wte(ids) + self.wpe(positions)  # [B, T, D]
        for block in self.h:
            x = block(x)  # [B, T, D]
        return F.linear(self.ln_f(x), self.wte.weight)  # [B, T, vocab_size]
        ### END SOLUTION

# %% check="gpt2.model" tags=["nbval-ignore-output"] id="check-gpt2-model"
check("gpt2.model", GPT2)

# %% [markdown] id="3625e973"
# ## Steps 8 and 11 · Layer by layer
#
# The check above compared logits. `compare_layers` compares what every module gives, from the embeddings to `ln_f`, with what transformers' module gave on the same weights and the same tokens.

# %% tags=["nbval-ignore-output"] id="ffdde0ed"
compare_layers(GPT2)

# %% [markdown] id="a2f5d62e"
# Every row is right: no difference is larger than rounding makes it. A row of zeros means equal in every bit, and it is a property of the processor as much as of the program. On a machine like the one the reference was recorded on, the solution's rows are all zeros, because it runs the reference's operations in the reference's order. On another processor, or with another right formula, such as a division by √head_dim, `F.scaled_dot_product_attention` or a LayerNorm of your own, they are around 10⁻⁶ from `h.0` on.
#
# **Predict:** now all the norms become your own `LayerNorm`. Which rows are sure to be 0 still? And how large are the others: the same everywhere, or growing from block to block and largest in the logits? (`open="all"` shows what is inside the blocks.)

# %% tags=["nbval-ignore-output"] id="9770c0ab"
class GPT2WithOwnNorms(GPT2):
    """GPT-2 with every nn.LayerNorm replaced by the one from exercise 1."""

    def __init__(self, config: Config):
        super().__init__(config)
        for module in [*self.h, self]:
            for name in ("ln_1", "ln_2", "ln_f"):
                if hasattr(module, name):
                    setattr(module, name, LayerNorm(config.n_embd, config.layer_norm_epsilon))


compare_layers(GPT2WithOwnNorms, open="all")

# %% [markdown] id="f836f913"
# `wte` and `wpe` come before the first norm, so nothing changes there. Then a difference enters in `h.0`, and its mean grows with every block. So does the stream itself, because each block adds to it; measured against the stream, the difference stays as small as it was. `ln_f` brings the stream back to a size near 1, and the difference with it: the logits are no further off than the first block's output.
#
# All rows are `[OK]`: differences of 10⁻⁶ are what another order of additions costs, and a check must not mind. A bug is larger. Here is the silent one from exercise 3, planted in one place: block 1's `c_proj`, which is square, is transposed.

# %% tags=["nbval-ignore-output"] id="e705924c"
class TransposedConv1D(Conv1D):
    """A Conv1D that mixes up its two axes. It can't fail: its weight is square."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class GPT2WithABug(GPT2):
    """GPT-2 with one transposed weight."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.h[1].attn.c_proj = TransposedConv1D(config.n_embd, config.n_embd)


try:
    compare_layers(GPT2WithABug)
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="f7785dba"
# Everything after the bug is off as well, but those modules are right whenever they are given the right input. The report tells the two apart.
#
# **Step 9 · Read the reference's code.** This is a good moment: `transformers/models/gpt2/modeling_gpt2.py`, the classes `GPT2Attention`, `GPT2MLP`, `GPT2Block`, `GPT2Model`. You will find your own lines among the options. **Step 10**, changing what is different, has nothing to do here: it is the work of the later lessons.

# %% [markdown] id="f03036a7"
# ## Step 7 · Does it write?
#
# ### Exercise 8 · generate
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Greedy decoding: ask for the logits, take the largest, append it, ask again. Write a generator (with `yield`), so that text can be shown while it is written.
#
# Two details. The model reads at most `n_positions` tokens, so a longer text must lose some at one end. And a text is over when the end token comes; like transformers, give it out before you stop.
#
# <details><summary>Hint 1</summary>
#
# `logits` has a row for every position. Row t predicts what comes after position t. You need one of them.
#
# <details><summary>Hint 2</summary>
#
# `argmax(dim=-1, keepdim=True)` keeps a shape that `torch.cat` can append to ids. `.item()` makes a Python number of a tensor with one value.
# </details>
# </details>

# %% exercise="gpt2.generate" id="gpt2-generate"
@torch.no_grad()
def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt. The model is given at most the last model.config.n_positions tokens.
    Ends after max_new_tokens, or once eos_token_id has been yielded.
    """
    ### BEGIN SOLUTION
    for _ in range(max_new_tokens):
        logits = model(ids[:, -model.config.n_positions :])  # [1, T, vocab_size]
        next_id = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]
        token = next_id.item()
        yield token
        if token == eos_token_id:
            return
        ids = torch.cat([ids, next_id], dim=1)  # [1, T] -> [1, T + 1]
    ### END SOLUTION

# %% check="gpt2.generate" tags=["nbval-ignore-output"] id="check-gpt2-generate"
check("gpt2.generate", generate)

# %% [markdown] id="52d5be3a"
# ### Trained weights
#
# `austen-gpt2` comes with the course: your architecture with 2.2M parameters, trained for about half an hour, on two cores, on five of Jane Austen's novels. Its config has the fields you know. `load_into` is strict: every name and every shape must match.
#
# `.eval()` is a habit worth having. Your class has no dropout, so here it changes nothing; transformers' GPT-2 has, and in training mode no two runs of it agree.

# %% id="9c126a14"
austen = load_checkpoint("austen-gpt2")
model = GPT2(austen.config).eval()
print(austen.load_into(model))
print({field: austen.config[field] for field in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")})


def encode(text: str) -> Tensor:
    """The text's token ids: [1, T]."""
    return torch.tensor([austen.tokenizer.encode(text).ids])


# %% tags=["nbval-ignore-output"] id="2b07df50"
prompt = "Every effort moves you"
written = list(generate(model, encode(prompt), 80))
print(prompt + austen.tokenizer.decode(written))

# %% [markdown] id="06b8ee59"
# ## Step 12 · The same text as the reference
#
# Coherent is not the same as right: below, two wrong models write just as well. So the last check compares token for token: three prompts, 64 tokens each, with what transformers wrote with these weights.

# %% tags=["nbval-ignore-output"] id="024327a4"
check_generation(model, "austen-gpt2", generate=generate)

# %% [markdown] id="fd15b085"
# That is GPT-2, and you wrote it.
#
# It is the last check, not the sharpest: greedy decoding looks only at which logit is the largest, and forgives every error that leaves the largest in front. **Predict:** with the *exact* GELU in all four blocks, how many of these 192 tokens change? What does the layer comparison say?

# %% tags=["nbval-ignore-output"] id="ca912061"
class GPT2WithExactGELU(GPT2):
    """GPT-2 with the activation that its config does not ask for."""

    def __init__(self, config: Config):
        super().__init__(config)
        for block in self.h:
            block.mlp.act = nn.GELU()


other = GPT2WithExactGELU(austen.config).eval()
austen.load_into(other)
for start in ("It is a truth universally acknowledged, that", "Mrs. Bennet", "Captain Wentworth", "Anne"):
    ids = encode(start)
    with torch.no_grad():
        off = (model(ids) - other(ids)).abs().max()
    same = sum(a == b for a, b in zip(generate(model, ids, 64), generate(other, ids, 64), strict=True))
    print(f"logits off by up to {off:.3f}, {same} of 64 tokens agree   {start!r}")

# %% tags=["nbval-ignore-output"] id="47532e2c"
try:
    compare_layers(GPT2WithExactGELU, open="none")
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="d13819e9"
# None of the 192. It took a fourth text to show the bug, and that one says only that something is wrong. The layers show it on two texts of seven random tokens, and where it is.
#
# So use both: the layers for whether the model is right, the text for whether everything around it is right as well, weights, tokenizer and decoding.
#
# What follows looks inside the model.
#
# ## What a head looks at
#
# Your `Attention` keeps its weights to itself. It can be made to tell, without touching its code: give every token a *value* that says where it stands, 1 at its own position and 0 elsewhere. What a head gives out is then the sum of those, weighted: its attention weights. (There is room for 32 positions, because a head here has 32 channels.)

# %% tags=["nbval-ignore-output"] id="8c29e8a4"
class PositionsAsValues(nn.Module):
    """Stands in for c_attn: the same q and k, but in each head the value of token t is 1 in channel t, else 0."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.c_attn, self.num_heads, self.head_dim = attention.c_attn, attention.num_heads, attention.head_dim

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        positions = torch.eye(T, self.head_dim).repeat(1, self.num_heads)  # [T, D]
        return torch.cat([self.c_attn(x)[..., : 2 * D], positions.expand(B, T, D)], dim=-1)


@torch.no_grad()
def attention_weights(model: GPT2, ids: Tensor, layer: int) -> Tensor:
    """The attention weights of a layer for one short text: [num_heads, T, T]."""
    seen = []
    attention = model.h[layer].attn
    hook = attention.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(ids)
    hook.remove()
    teller = Attention(model.config)
    teller.c_attn, teller.c_proj = PositionsAsValues(attention), nn.Identity()
    told = teller(seen[0])  # [1, T, D]
    T = ids.shape[1]
    return told[0].unflatten(-1, (attention.num_heads, attention.head_dim))[..., :T].movedim(1, 0)


text = "Elizabeth was surprised, but Elizabeth was not displeased."
ids = encode(text)
maps = torch.stack([attention_weights(model, ids, layer) for layer in range(austen.config.n_layer)])  # [L, H, T, T]
assert torch.allclose(maps.sum(dim=-1), torch.ones(()))  # every row sums to 1

figure, axes = plt.subplots(*maps.shape[:2], figsize=(9, 6.2), layout="constrained")
for layer, row in enumerate(axes):
    for head, axis in enumerate(row):
        axis.imshow(maps[layer, head], cmap="Blues", vmin=0, vmax=1)
        axis.set_title(f"h.{layer}, head {head}", fontsize=8, color="black")
        axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown] id="5ec588fb"
# Rows are queries and columns keys, as in the mask above. Most heads of the first two layers spread their attention; later ones pick. But a picture says what a head looks at, not whether it matters.
#
# ## Without one head
#
# So switch heads off, one at a time. Head 2's results enter `c_proj` in rows 64 to 95 of its weight; with zeros there it is silent. The text is the beginning of *Persuasion*, the novel that the model was *not* trained on. The loss is the mean surprise per token, in nats.
#
# **Predict:** there are 24 heads. By how much does the loss rise when one is missing: a little for each, or a lot for a few? In which layers are those?

# %% tags=["nbval-ignore-output"] id="f22aeee4"
held_out = encode(
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any"
    " book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one; there"
    " his faculties were roused into admiration and respect, by contemplating the limited remnant of the earliest"
    " patents; there any unwelcome sensations, arising from domestic affairs, changed naturally into pity and contempt."
)


@torch.no_grad()
def surprise(model: GPT2, ids: Tensor) -> Tensor:
    """The surprise at each next token, in nats: ids [1, T] -> [T - 1]."""
    return F.cross_entropy(model(ids)[0, :-1], ids[0, 1:], reduction="none")


@torch.no_grad()
def surprise_without(model: GPT2, layer: int, head: int) -> Tensor:
    """The same on the held-out text, with one head silenced: [T - 1]."""
    attention = model.h[layer].attn
    rows = attention.c_proj.weight[head * attention.head_dim : (head + 1) * attention.head_dim]
    kept = rows.clone()
    rows.zero_()
    without = surprise(model, held_out)
    rows.copy_(kept)
    return without


whole = surprise(model, held_out)  # [T - 1]
layers, heads = range(austen.config.n_layer), range(austen.config.n_head)
rises = torch.stack([surprise_without(model, layer, head) - whole for layer in layers for head in heads])
rises = rises.unflatten(0, (len(layers), len(heads)))  # [L, H, T - 1]
mean_rises = rises.mean(dim=-1)  # [L, H]
print(f"all heads: {whole.mean():.2f} nats a token, a perplexity of {whole.mean().exp():.0f}")

figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
limit = mean_rises.abs().max().item()
image = axis.imshow(mean_rises, cmap="RdBu_r", vmin=-limit, vmax=limit)
for layer, row in enumerate(mean_rises):
    for head, rise in enumerate(row):
        axis.text(head, layer, f"{rise:+.2f}", ha="center", va="center", fontsize=9,
                  color="white" if rise.abs() > 0.6 * limit else "black")
axis.set(xlabel="head", yticks=layers, yticklabels=[f"h.{layer}" for layer in layers])
figure.colorbar(image, label="rise of the loss, nats")
plt.show()

# %% [markdown] id="2cb5fa20"
# Most heads are hardly missed, and a few are: one in the first layer most, then one in the second and one in the last. No layer has them all.
#
# What does the most important one do? Here is its map. In the rows `ised` and `pleas`, tokens that continue a word, it looks at the piece before. In the row `ed` it mostly doesn't, and the full stop looks hardest at `Elizabeth`. So is it about words in pieces? One picture can't say. Two averages over the held-out text can say more: where the head looks, and what it costs to lose it. **Predict** both before you run the cell.

# %% tags=["nbval-ignore-output"] id="16587951"
layer, head = divmod(mean_rises.argmax().item(), austen.config.n_head)
tokens = [austen.tokenizer.decode([i]) for i in ids[0].tolist()]
figure, axis = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
image = axis.imshow(maps[layer, head], cmap="Blues", vmin=0, vmax=1)
axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
axis.set_yticks(range(len(tokens)), tokens, fontsize=8)
axis.set_title(f"h.{layer}, head {head}", fontsize=10, color="black")
figure.colorbar(image, label="attention weight", shrink=0.8)
plt.show()

windows = held_out[0, : held_out.shape[1] // 32 * 32].view(-1, 32)  # attention_weights reads at most 32 tokens
to_previous = torch.cat([attention_weights(model, window[None], layer).diagonal(-1, 1, 2) for window in windows], dim=1)[head]


def continues_a_word(ids: Tensor) -> Tensor:
    """Which tokens begin with a letter and not with a space: [T] -> [T]."""
    return torch.tensor([austen.tokenizer.decode([i])[0].isalpha() for i in ids.tolist()])


inside = continues_a_word(windows[:, 1:].flatten())
print("attention on the token just before, on average:")
print(f"  from a token that continues a word {to_previous[inside].mean():.0%}")
print(f"  from any other token               {to_previous[~inside].mean():.0%}")
inside = continues_a_word(held_out[0, :-1])
print("rise of the loss without the head, in nats:")
print(f"  after a token that continues a word {rises[layer, head, inside].mean():+.2f}")
print(f"  after any other token               {rises[layer, head, ~inside].mean():+.2f}")

# %% [markdown] id="60169f4a"
# From a token inside a word it looks at the one before more than twice as much as from others, and without it the loss rises more than ten times as much there. The tokenizer cuts rare words to pieces, and a piece such as `ised` says little alone. So the head's work has much to do with words in pieces. It is not all that the head does: about two thirds of its attention go elsewhere even there.

# %% [markdown] id="b4a1fdf9"
# ## The logit lens
#
# Nothing but additions happens to the residual stream, so what is in it half-way up is already an answer, if a rough one. Cut the model off after n blocks and let `ln_f` and the head read what is there.
#
# **Predict:** how does "in the course of a few" go on, and after how many of the four blocks does the model know? What does it say after none?

# %% tags=["nbval-ignore-output"] id="41ddc642"
start = "It will be over in the course of a few"
blocks = model.h
for depth in range(len(blocks) + 1):
    model.h = blocks[:depth]
    with torch.no_grad():
        best = model(encode(start))[0, -1].softmax(dim=-1).topk(3)
    guesses = [f"{austen.tokenizer.decode([i])!r} {p:.0%}" for p, i in zip(*best, strict=True) if p >= 0.01]
    print(f"{depth} of {len(blocks)} blocks:", "   ".join(guesses))
model.h = blocks

# %% [markdown] id="61adf7bd"
# With no block at all the answer is the token itself: the head is the embedding table, and a vector is most like itself. From the first block on, a span of time is among the guesses, and after three blocks there is nothing else among the first three. Which span it will be, the last block decides: `week`, the beginning of `weeks`, and `days` overtake `minutes` only there. No single block "knows"; each shifts the odds.
#
# ## One position too many
#
# `wpe` has as many rows as the model has positions. **Predict:** what happens to GPT-2 at position 1,025, or to this model at 257: worse text, slower text, or something else?

# %% id="b1fe5cb9"
too_long = encode("Mr. Darcy ")[:, :1].repeat(1, austen.config.n_positions + 1)
try:
    model(too_long)
except IndexError as error:
    print("IndexError:", error)

# %% [markdown] id="090e89bc"
# There is no row to look up. Nothing degrades; it just ends. That is why `generate` drops the oldest tokens, and why the models of the later lessons compute positions instead of looking them up.
#
# ## The question: what can you change and still load?
#
# Now measure it. Each line changes one field of the config, builds the model anew, loads the same weights strictly, and reads the beginning of *Persuasion*. Take out your guess from the start of the lesson.

# %% id="e9c227d5"
def loss(model: GPT2) -> float:
    """The mean surprise on the held-out text."""
    return surprise(model, held_out).mean().item()


def outcome(**change) -> str:
    """Whether the weights load with a changed config, and with what loss."""
    try:
        changed = GPT2(austen.config.replace(**change)).eval()
        austen.load_into(changed)
        return f"loads, loss {loss(changed):.4f}"
    except GraderError:
        return "does not load"
    except (AssertionError, RuntimeError, ValueError):
        return "can't run"


for change in (
    {},
    {"n_layer": 3}, {"n_embd": 96}, {"n_inner": 512}, {"n_positions": 512}, {"vocab_size": 2000},
    {"n_head": 3}, {"n_head": 12}, {"n_head": 5}, {"layer_norm_epsilon": 1e-2}, {"layer_norm_epsilon": 1e-6},
    {"activation_function": "relu"}, {"resid_pdrop": 0.5}, {"initializer_range": 1.0}, {"eos_token_id": 7},
):
    name = ", ".join(f"{field} = {value}" for field, value in change.items()) or "as it is"
    print(f"{name:>28}   {outcome(**change)}")

# %% [markdown] id="fe5225d5"
# Three kinds of fields:
#
# - **Shapes and counts**: `n_layer`, `n_embd`, `n_inner`, `n_positions`, `vocab_size`. A strict load refuses them.
# - **Not read when text is generated**: dropout, the initialisation, the names, and the summary head. They change nothing. The activation is in this group only because your code never asks: a program that reads the field, as transformers does, would compute something else with the same weights.
# - **Arithmetic**: `n_head` and `layer_norm_epsilon`. No weight's shape depends on them, so everything loads, and the output is different. How different depends: an eps of 10⁻⁶ in place of 10⁻⁵ moves the loss in its fourth decimal, 10⁻² by more than a half. `n_head` must still divide `n_embd`: 5 heads would load as well, but 192 channels can't be cut into 5.
#
# `n_head` is the treacherous one. With 12 heads in place of 6 every score is wrong, and the loss rises by 0.11. Would you see it in the text?

# %% tags=["nbval-ignore-output"] id="963f895c"
for heads in (6, 12):
    other = GPT2(austen.config.replace(n_head=heads)).eval()
    austen.load_into(other)
    print(f"{heads:2} heads: {prompt}{austen.tokenizer.decode(list(generate(other, encode(prompt), 28)))}\n")

# %% [markdown] id="0807ddd0"
# Both sound alike. Which one is the model that was trained? A config is as much a part of a model as its weights are, and only a comparison with a reference, number by number or token by token, tells the right one.

# %% [markdown] id="1f9e62cd"
# ## GPT-2 itself
#
# The same class with the hub's config holds GPT-2's own weights. This downloads 548 MB the first time; without a connection it says so and goes on.

# %% tags=["nbval-ignore-output"] id="b981562a"
gpt2 = load_checkpoint("gpt2", optional=True)
if gpt2 is not None:
    gpt2_model = GPT2(gpt2.config).eval()
    gpt2.load_into(gpt2_model)
    check_generation(gpt2_model, gpt2, generate=generate)

# %% [markdown] id="4bca46ef"
# ## What it costs
#
# **Memory.** Four bytes a parameter in float32, two in bfloat16:

# %% id="1d45f34e"
for name, config in configs.items():
    count = sum(parameters(config).values())
    print(f"{name:>12} {count:>13,} parameters   {4 * count / 1e6:6,.0f} MB in float32   {2 * count / 1e6:6,.0f} MB in bfloat16")

# %% [markdown] id="75b9f838"
# The hub's `model.safetensors` of the small model has 548 MB, and you just computed 498. **Guess** what the other 50 MB are before you run the next cell.

# %% id="4199f761"
config = configs["gpt2"]
masks = config.n_layer * config.n_ctx**2 * 4
names_and_shapes = 548_105_171 - 4 * sum(parameters(config).values()) - masks
print(f"{masks:,} bytes of causal masks, and {names_and_shapes:,} bytes that say what is where in the file")

# %% [markdown] id="5a71a9c3"
# Every block's mask, 1024 × 1024 numbers in float32, was saved along with the weights (`h.0.attn.bias` and so on; not a bias at all). A strict load has to leave those twelve out by name, and nothing else.
#
# **Time.** To write one more token, the model reads the whole text again. **Predict:** the text gets eight times as long. How much longer does the next token take?

# %% tags=["nbval-ignore-output"] id="a8321e0a"
import time

print("tokens so far   ms for the next")
fastest = {}
for length in (32, 64, 128, 256):
    ids = torch.randint(austen.config.vocab_size, (1, length))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        next(iter(generate(model, ids, 1)))
        times.append(time.perf_counter() - began)
    fastest[length] = min(times)
    print(f"{length:13} {1000 * fastest[length]:17.1f}")
print(f"eight times the text, {fastest[256] / fastest[32]:.0f} times the time")

# %% [markdown] id="255c4d29"
# Every matrix product has eight times as many rows, and attention has 8 · 8 = 64 times as many scores; so the work grows by a factor between the two. What a call costs however short the text is (starting kernels, Python itself) makes the measured ratio smaller, most of all on a fast machine.
#
# All but the last row of logits was computed before, for the tokens before, and thrown away. Keeping what can be kept is the next lesson.
#
# ## What changed, and why
#
# | | Transformer decoder, 2017 | GPT, 2018 | GPT-2, 2019 | why |
# |---|---|---|---|---|
# | layers | self-attention, cross-attention, MLP | self-attention, MLP | the same | no encoder: everything is one text |
# | norm | after the sum | after the sum | **before the sublayer**, and one at the end | the stream stays open; deep models train |
# | activation | ReLU | GELU | GELU (tanh form) | smooth everywhere; lower error in its paper |
# | positions | sines and cosines, fixed | learned, 512 | **learned, 1024** | simple; but there is a last one |
# | input | embedding · √D | embedding | embedding | the positions are learned to match |
# | head | tied | tied | tied | saves vocab · D parameters |
# | vocabulary | about 37,000 pieces | 40,000 merges | **50,257, from bytes** | any text can be written, there is no unknown token |
# | before training | – | 0.02 | **c_proj also ÷ √(number of residual layers)** | many additions must not add up to too much |
#
# ## The questions again
#
# <details><summary>What in config.json can you change and still load the weights?</summary>
#
# Everything that decides no weight's shape: <code>n_head</code>, as long as it divides <code>n_embd</code>, and <code>layer_norm_epsilon</code>, which change the output without an error; the activation's name, which changes it in programs that read it; and what matters only in training or elsewhere: dropout, initialisation, summary head, task parameters.
# </details>
#
# <details><summary>Where are GPT-2's parameters?</summary>
#
# 32% of the small model in embeddings, 5% of XL. The rest in blocks, two thirds of it in the MLPs.
# </details>
#
# <details><summary>Why is a score divided by √head_dim and not by head_dim or √D?</summary>
#
# It is a sum of head_dim products of variance 1, so its standard deviation is √head_dim. Without the scale a head of 64 starts by attending to two or three random keys.
# </details>
#
# <details><summary>Name three mistakes that raise no error.</summary>
#
# A square weight transposed; another number of heads; q, k and v in another order; heads merged without a transpose; the mask one off; eps outside the root; the other GELU.
# </details>
#
# <details><summary>Why is the norm before the sublayer?</summary>
#
# So that nothing but additions happens to the residual stream. After the sum, every norm shrinks what came before by about √2.
# </details>
#
# <details><summary>What happens at position 1,025?</summary>
#
# An IndexError: wpe has no such row.
# </details>
#
# ## Where to read on
#
# - Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), sections 2.2 (bytes) and 2.3 (model). The model before it: Radford et al. (2018), section 4.1.
# - Vaswani et al., *Attention Is All You Need* (2017), sections 3.2.1 (the scale, in a footnote), 3.2.2 (heads), 3.4 (the tied head).
# - Ba, Kiros, Hinton, *Layer Normalization* (2016), section 3. Hendrycks, Gimpel, *Gaussian Error Linear Units* (2016), section 2.
# - Xiong et al., *On Layer Normalization in the Transformer Architecture* (2020): why pre-LN needs no warm-up. Michel, Levy, Neubig, *Are Sixteen Heads Really Better than One?* (2019): more heads removed.
# - The reference: `transformers/models/gpt2/modeling_gpt2.py`, `GPT2LMHeadModel` and what it calls; `pytorch_utils.py`, `Conv1D`; `activations.py`, `NewGELUActivation`.
#
# ## If you want more
#
# *Remove* the least important head instead of silencing it. Write an `Attention` that may have fewer heads than D / head_dim, cut the right columns out of `c_attn` and the right rows out of `c_proj`, and load the rest. You are right when the loss on *Persuasion* equals that of the silenced head to six digits, and the model has fewer parameters. How many heads can go before the loss rises by 0.1?
