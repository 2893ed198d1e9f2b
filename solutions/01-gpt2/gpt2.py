# %% [markdown] id="db4b95b2"
# # 01 · GPT-2: the architecture everything else is a diff of
#
# **What is in GPT-2's `config.json` that you could change and still load the weights?**
#
# You will guess once you have seen the config. Near the end you change the fields one by one and measure.
#
# After this lesson you can
#
# - read every line of GPT-2's `config.json`, and count its parameters without loading it;
# - say what each part of GPT-2 is for, and show it with an experiment;
# - write GPT-2 from an empty file: 8 small parts, each checked against Hugging Face transformers;
# - load trained weights by their own names and write the reference's text, token for token;
# - write a step of training, train a small GPT with it, and say how good its loss is;
# - measure what a part of a trained model is worth to it;
# - name the places where a wrong GPT-2 runs without an error, and say how you would notice.
#
# 160 to 240 minutes · difficulty ●●○○○ · you know PyTorch (`nn.Module`, broadcasting, `view`), and lesson 00
#
# This is what you will build: the model, and the inside of its attention and of its MLP. The parts have the checkpoint's names. The thick line from the embedding to the head is the *residual stream*: the vectors, one for each token, that every part reads and adds to.
#
# ![GPT-2 124M from the bottom up: token ids, the token and position embeddings, 12 blocks, a final LayerNorm and the output head. Each block adds twice to the residual stream: multi-head attention with 12 heads of 64, and a GELU MLP of width 3,072, each behind a LayerNorm.](figures/gpt2-model.svg) ![Inside GPT-2's attention: one projection, c_attn, makes queries, keys and values of 12 heads, a masked softmax of their products weighs the values, and a last projection mixes the heads.](figures/gpt2-attention.svg) ![Inside GPT-2's MLP: a projection from 768 to 3,072, GELU, and a projection back to 768.](figures/gpt2-mlp.svg)
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.

# %% tags=["setup"] id="setup"
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, GraderError, check, check_generation, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="d65ac4ee"
# ## The paper and the files on the hub
#
# In February 2019 OpenAI published *Language Models are Unsupervised Multitask Learners*. The paper says little about the architecture: section 2.3 is half a column, a list of changes to the model of the year before. Most of what you need is in the files.
#
# On the hub the model is [openai-community/gpt2](https://huggingface.co/openai-community/gpt2), with three siblings: `gpt2-medium`, `gpt2-large`, `gpt2-xl`. Three files matter:
#
# | file | what it is |
# |---|---|
# | `config.json` | 665 bytes: the numbers to build the model with |
# | `model.safetensors` | 548 MB: the trained weights, each with a name and a shape |
# | `tokenizer.json` | how text becomes token ids, and back |
#
# None of the three files contains the computation. That is what you write. The config gives you the sizes, and the weight file gives you the names.

# %% [markdown] id="41fd061d"
# ## Read config.json
#
# The four files are in `configs/`, as they are on the hub. Here is the smallest model's, whole.

# %% id="e9ea6150"
from pathlib import Path

print(Path("configs/gpt2.json").read_text())

# %% [markdown] id="2b2a4083"
# | field | what it decides |
# |---|---|
# | `n_layer` 12 | how many blocks are stacked, `h.0` to `h.11` |
# | `n_embd` 768 | D: the length of the vector that represents a token, the same in every layer |
# | `n_head` 12 | the number of attention heads. The 768 channels are split between them: 12 heads of 64 |
# | `n_positions` 1024 | how many rows `wpe` has: the longest text the model can read |
# | `n_ctx` 1024 | an older name of `n_positions`. transformers does not read it any more |
# | `vocab_size` 50257 | how many rows `wte` has: 256 bytes + 50,000 merges + 1 end of text. A merge makes one token of two that often stand side by side |
# | `activation_function` `gelu_new` | the non-linear function in the MLP. The name matters: `gelu` is another function |
# | `layer_norm_epsilon` 1e-05 | the small number added to the variance in every LayerNorm |
# | `bos_token_id`, `eos_token_id` 50256 | <code>&lt;&#124;endoftext&#124;&gt;</code>: it separates two texts, so it begins one and ends the other |
# | `attn_pdrop`, `embd_pdrop`, `resid_pdrop` 0.1 | dropout in training: of attention weights, of the embeddings, before each sum. It does nothing in eval mode, in which the checks run, so you can leave it out |
# | `initializer_range` 0.02 | the standard deviation of the weights before training. Trained weights overwrite it |
# | `model_type`, `architectures` | which code is meant: `gpt2`, and in it the class `GPT2LMHeadModel` |
# | `summary_type`, `summary_use_proj`, `summary_activation`, `summary_proj_to_labels`, `summary_first_dropout` | a classification head of another class, `GPT2DoubleHeadsModel`. A language model has none |
# | `task_specific_params` | what a text generation service should assume: sample, stop at 50 tokens |
#
# Two fields are missing, and a program has to know what that means. Without `n_inner`, the width of the MLP is 4 · `n_embd`. Without `tie_word_embeddings`, the output head, which turns vectors into logits, shares its weight with `wte`.
#
# ### The question of this lesson
#
# `austen-gpt2`, a small GPT-2 that comes with the course, has trained weights and a config like this one. Change one field of its config, build the model from that, and load the same weights strictly: every name and every shape must match. With which of these fields does that work?

# %% prediction="gpt2.fields" id="prediction-gpt2-fields"
predict(
    "gpt2.fields", "fields that can be changed, and the weights still load", some_of=(
        "layer_norm_epsilon", "n_embd", "n_head", "n_layer", "n_positions", "resid_pdrop", "vocab_size",
    ),
    guess=...
)

# %% [markdown] id="22a3eb2d"
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
# Only three fields differ. (The other rows are left from the programs that once wrote these files.) And `n_head` follows from `n_embd`: a head has 64 channels in all four models.
#
# ### Where are the parameters?
#
# The config is enough to count them. Embeddings are the two tables that turn ids and positions into vectors. What share of the parameters do they hold, in the smallest model and in XL?

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

# %% id="6fb83751"
for name, config in configs.items():
    counts = parameters(config)
    shares = ", ".join(f"{part} {count / sum(counts.values()):.0%}" for part, count in counts.items())
    print(f"{name:>12} {sum(counts.values()):>13,}   {shares}")

# %% tags=["nbval-ignore-output"] id="0b562a78"
from grader.instruments import plots

shares = {}
for name, config in configs.items():
    counts = parameters(config)
    shares[name] = {part: 100 * count / sum(counts.values()) for part, count in counts.items()}
plots.bars(shares, plots.Axes(x="share of the parameters, %", size=(9, 2.8)))

# %% [markdown] id="0143bfe6"
# A third of the small model's parameters are embeddings, but only a twentieth of XL's: the table grows with D, and a block with D². In every block the MLP holds twice as many weights as attention, 8 D² against 4 D². The 8 comes from the MLP's inner width of 4 D. That factor is from 2017, and most models since have kept it. Other factors work, too: Qwen3 8B, in lesson 03, has 3 D, and below, after the exercise on the MLP, four factors are tried.
#
# The tied head matters most for small models: without it GPT-2 would have another 38.6M parameters, 31% more.
#
# The later lessons go on by comparing a config with that of a model you know. GPT-2 is the first, so there is nothing to compare it with. A table at the end of this lesson shows what GPT-2 itself changed.

# %% [markdown] id="932143db"
# ## Write the parts
#
# Eight exercises build the model, in the order in which data flows; in two more you train it and measure. One rule: **names are the checkpoint's names.** If your module is called `c_attn` where the checkpoint says `c_attn`, trained weights load without any mapping, and strictly: one name too many or too few is an error.
#
# ### Why normalise at all?
#
# Every block adds two results to the vectors that pass through it: attention's and the MLP's. If each result is as large as what it was computed from, the sum of two unrelated vectors has twice the variance, and the next result is computed from that. A *sublayer* is one of the two, attention or MLP.
#
# Vectors of size 1 pass through 48 random sublayers. Size means the standard deviation of their numbers. Without a norm they leave with a size of about 10⁷. And with a norm in front of every sublayer?

# %% prediction="gpt2.size_at_the_top" id="prediction-gpt2-size_at_the_top"
predict(
    "gpt2.size_at_the_top", "size after 48 sublayers, with a norm before each",
    guess=...
)

# %% id="db0221cb"
def size_at_the_top(normalise: bool, depth: int = 48, dim: int = 256) -> float:
    """The standard deviation of random vectors after `depth` random sublayers, each added to its input."""
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(64, dim, generator=generator)
    for _ in range(depth):
        sublayer = torch.randn(dim, dim, generator=generator) * dim**-0.5
        read = F.layer_norm(stream, (dim,)) if normalise else stream
        stream = stream + read @ sublayer
    return stream.std().item()


print(f"without a norm {size_at_the_top(False):.1e}, with one {size_at_the_top(True):.1f}")
measured("gpt2.size_at_the_top", size_at_the_top(True))

# %% [markdown] id="19a93f23"
# <details><summary>What the numbers say</summary>
#
# The size is about 7, not 1: the norm is in front of the sublayer, and the stream itself is never normalised. Every sublayer reads numbers of size 1 and adds a result of about that size, so the size grows like the root of the depth: √49 = 7. Without a norm the variance doubles 48 times, which gives a size of √2⁴⁸, about 10⁷. A norm gives every sublayer an input of known size, however deep in the stack it is.
# </details>

# %% [markdown] id="27693351"
# ### Exercise 1 · LayerNorm
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Take one token's vector at a time. Subtract its mean and divide by its standard deviation. Other tokens play no part. Then scale and shift each channel by a learned weight and a learned bias. With them training can undo the norm where that helps (Ioffe and Szegedy, 2015, section 3, on BatchNorm):
#
# $$y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \varepsilon}} \odot w + b$$
#
# `F.layer_norm` is right too; you learn most if you leave it aside here and write out the mean and the variance. The variance is the mean of the squared distances from the mean: their sum divided by n, not by n - 1. Without ε a vector whose numbers are all equal would be divided by 0. It is added inside the root; elsewhere it would make a difference only where the variance is about as small as ε.
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
# If you wrote the formula out, your check says "right" but not "bit-exact". PyTorch has one fused kernel for it, `nn.LayerNorm`, which adds the numbers in another order. The results differ by a rounding or two. You will see below what becomes of such differences in a whole model.
#
# ### Exercise 2 · GELU
# difficulty ●○○○○ · importance ●●○○○ · 5 minutes
#
# GELU is a smooth version of ReLU. The exact GELU is $x \cdot \Phi(x)$, where $\Phi$ is the cumulative distribution function of the normal distribution. The paper also gives an approximation, and OpenAI's code used that:
#
# $$y = \tfrac{x}{2}\left(1 + \tanh\left(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right)$$
#
# A config calls this one `gelu_new` (or `gelu_pytorch_tanh`), and the exact one `gelu`. Why an approximation? The paper offers it for where speed is worth more than exactness. Why OpenAI took it, its papers do not say.
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
# If you took the exact GELU by mistake, by how much would a value be off at most?

# %% id="f1cc6783"
x = torch.linspace(-5, 5, 1001)
difference = (GELU()(x) - F.gelu(x)).abs()
print(f"largest difference {difference.max():.1e}, near |x| = {x[difference.argmax()].abs():.1f}")

# %% [markdown] id="6403cc2d"
# The difference is too small to see in a plot of the function, or in bfloat16, which has 8 significant bits, two to three decimal digits. The check's float32 cases see it.
#
# ### Exercise 3 · Conv1D
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# `Conv1D` is a linear layer. GPT-2's code calls it that because a convolution of width 1 is the same thing as a linear layer. It stores the weight as **[inputs, outputs]**, where `nn.Linear` stores [outputs, inputs].
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
# One of the cases has a square weight. Here is the reason. `attn.c_proj` is square, 768 × 768, in every block. You use it transposed by mistake. What do you notice: an error, a wrong shape, a strange mean, a strange spread?

# %% id="fedf39b2"
torch.manual_seed(0)
layer, x = Conv1D(768, 768), torch.randn(10, 768)
with torch.no_grad():
    right, wrong = layer(x), x @ layer.weight.T + layer.bias
for name, y in (("right", right), ("transposed", wrong)):
    print(f"{name:>10}: shape {list(y.shape)}, mean {y.mean():+.2f}, standard deviation {y.std():.2f}")
print(f"correlation of the two: {torch.corrcoef(torch.stack([right.flatten(), wrong.flatten()]))[0, 1]:+.2f}")

# %% [markdown] id="5ca8545d"
# You notice nothing. The shapes agree, the statistics agree, and no value is strange, but the two outputs are unrelated: their correlation is 0. The weights of such a model load strictly, too. Only a comparison with a reference finds this bug. Further down you will see what a trained model with this bug writes.
#
# Later models leave the bias out of most linear layers: Llama, Qwen3 and Gemma 3 have none. The PaLM report found that large models train more stably without (Chowdhery et al., 2022, section 2). GPT-2's paper gives no reason for having one.
#
# ### What attention does, with three words
#
# A token's vector starts out knowing only the token itself. To continue *Elizabeth smiled; she*, the vector of *she* needs to know who is meant. Attention is the one place where tokens exchange information:
#
# - *she* sends out a **query**, a vector that says what it is looking for: which woman?
# - Every earlier token, and *she* itself, has a **key**, a vector that says what it offers. The key of *Elizabeth* points in the query's direction, so their dot product, the **score**, is large.
# - Every token also has a **value**, the information to pass on. *she* receives the sum of all values, each weighted by the softmax of its score: mostly that of *Elizabeth*.
#
# In a model, three learned matrices make queries, keys and values. With one matrix for queries and keys, what a token looks for and what it offers would be the same vector. In this example the vectors are made up, with two numbers each, so that you can follow every step.
#
# ![Attention with three words. The query of "she" is (2, 0). The keys of Elizabeth, smiled and she are (2, 0), (0, 2) and (1, 0). Divided by the root of 2, the scores are 2.8, 0 and 1.4, and the softmax makes weights of 77, 5 and 19 percent of them. The weighted sum of the values is (0.81, 0.08).](figures/attention-of-three-words.svg)

# %% id="bee16800"
words = ["Elizabeth", "smiled", "she"]
query = torch.tensor([2.0, 0.0])  # of "she": [head_dim]
keys = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]])  # [T, head_dim]
values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.2, 0.2]])  # [T, head_dim]

scores = keys @ query / 2**0.5  # [T]
weights = scores.softmax(dim=-1)  # [T]
for word, score, weight in zip(words, scores, weights, strict=True):
    print(f"{word:>9}: score {score:.2f}, weight {weight:.0%}")
print("she receives", [round(number, 2) for number in (weights @ values).tolist()])

# %% [markdown] id="5f5231c5"
# ### Exercise 4 · Attention
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Now for all tokens at once, in several heads. Each head has queries, keys and values of its own, so one head can look for the subject while another looks at the word before:
#
# $$\mathrm{head}(x) = \mathrm{softmax}\left(\frac{q k^\top}{\sqrt{d}} + M\right) v$$
#
# with $d$ = `head_dim`. There is one row for each query, and the softmax runs over its keys. $M$ is the causal mask: 0 where a token may look, and −∞ at later tokens. The model learns to predict the next token at every position at once, and a position that could see the next token would have nothing to predict.

# %% tags=["nbval-ignore-output"] id="d9ad4da2"
words = ["The", "model", "attends", "to", "past", "tokens"]
allowed = [[key <= query for key in range(6)] for query in range(6)]
plots.squares(allowed, words, words, "who may look at whom")

# %% [markdown] id="329f097c"
# How the numbers lie in memory:
#
# - `c_attn` makes q, k and v in one product. Its 3 D outputs are first all of q, then all of k, then all of v.
# - A head owns `head_dim` neighbouring channels: head 0 has channels 0 to 63, head 1 has 64 to 127, and so on.
# - After the heads are done, their results are side by side again in that order, and `c_proj` mixes them. Without it, each head could write only into its own channels.
#
# <details><summary>Hint 1: the shapes</summary>
#
# x [B, T, D] → c_attn [B, T, 3 D] → q, k, v, each [B, T, D] → each [B, heads, T, head_dim] → scores [B, heads, T, T] → weights, the same → mixed values [B, heads, T, head_dim] → [B, T, D] → c_proj [B, T, D].
#
# <details><summary>Hint 2: cutting out heads</summary>
#
# `view` splits an axis in two. It cannot swap two axes. Split D first. Only then bring the heads' axis to the front, with another operation. The way back is the same in reverse.
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

# %% [markdown] id="6bc4edd1"
# ### Why −∞, and why before the softmax?
#
# A weight could also be set to 0 *after* the softmax. The key would be hidden as well. Take one query and four keys, the last two of them hidden. What do the weights sum to in either way? And does the result change if the score of a hidden key changes?

# %% id="b2aeb4d0"
torch.manual_seed(0)
one_row, passed_on, hidden = torch.randn(4), torch.randn(4, 8), torch.tensor([False, False, True, True])
raised = one_row + torch.tensor([0.0, 0.0, 0.0, 3.0])  # the last key, which is hidden, has a higher score
ways = {
    "−∞ before the softmax": lambda row: row.masked_fill(hidden, float("-inf")).softmax(dim=-1),
    "0 after the softmax": lambda row: row.softmax(dim=-1).masked_fill(hidden, 0.0),
}
for name, weigh in ways.items():
    change = (weigh(one_row) - weigh(raised)) @ passed_on
    print(f"{name:>21}: the weights sum to {weigh(one_row).sum():.2f}; the result changes by {change.abs().max():.2f}")


# %% [markdown] id="fccbac45"
# Set to 0 afterwards, the weights no longer sum to 1, and a hidden key still has an influence: its score is part of the sum that every weight was divided by. With −∞ its exponential is 0, so it is in no sum. Why later tokens must be hidden at all, you will see when you train a model.

# %% [markdown] id="7e250f08"
# ### Why divide by √head_dim?
#
# A score is a sum of `head_dim` products. If q and k have entries of variance 1, the sum has variance `head_dim`: the longer the heads, the larger the scores, and the softmax of large scores is nearly one-hot.
#
# The exponential of a softmax's entropy says among how many keys it divides its attention: 256 if all 256 keys get the same weight, 1 if one key gets everything. With random queries and keys, and with the scale, a head of 64 divides it among 157 of 256 keys. Among how many does it without the scale?

# %% prediction="gpt2.keys_attended" id="prediction-gpt2-keys_attended"
predict(
    "gpt2.keys_attended", "keys that a head of 64 attends to without the scale",
    guess=...
)

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
measured("gpt2.keys_attended", keys_attended(64, 1.0))

# %% [markdown] id="15eb9a19"
# <details><summary>What the numbers say</summary>
#
# Without the scale a head of 64 attends to two or three keys, chosen at random before it has learned anything. The longer the head, the fewer keys. With the scale a head divides its attention between nearly 160 of the 256 keys, whatever its size.
# </details>

# %% [markdown] id="fc0348bf"
# These queries and keys have variance 1, which is what the scale assumes. GPT-2's weights start smaller (0.02), so an untrained GPT-2 spreads its attention more evenly than this. With the scale, how evenly does not depend on `head_dim`.
#
# ### Exercise 5 · MLP
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# Expand to 4 D with `c_fc`, apply GELU, project back to D with `c_proj`. Attention moves information between tokens; the MLP works on each token by itself. It is where a token's own vector passes through a nonlinear function. Without GELU, `c_fc` and `c_proj` would be one linear map in two pieces.
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

# %% [markdown] id="fb6ca082"
# ### Why four times as wide?
#
# A model with a wider MLP has more parameters, so it would be no surprise if it were better. The fair question is where a given number of parameters should be: in the MLP, or in a wider stream. Here are four tiny GPT-2s of two blocks with nearly the same number of parameters. In the first the MLP is as wide as the stream, and D is 64; in the last it is eight times as wide, and D is 38. They do nearly the same work, too, since each weight of a matrix costs one multiply-add a token. Each was trained for 300 steps on five of Austen's novels, from three random seeds; a token is a byte of the text. `training/mlp_width.py` in the course's repository is the script, and its results come with the lesson. With which factor is the mean loss on *Persuasion* lowest?

# %% prediction="gpt2.mlp_factor" id="prediction-gpt2-mlp_factor"
predict(
    "gpt2.mlp_factor", "factor with the lowest mean loss", one_of=("1", "2", "4", "8"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="fa800dab"
import json

by_factor, ends = json.loads(Path("texts/mlp-width.json").read_text())["models"], {}
for factor, about in by_factor.items():
    ends[factor] = torch.tensor(about["held_out_nats"])  # [seeds]
    print(f"{factor} D, D = {about['width']}: {about['parameters']:,} parameters, {ends[factor].mean():.3f} nats a byte:",
          *(f"{end:.3f}" for end in ends[factor]))
measured("gpt2.mlp_factor", min(ends, key=lambda factor: ends[factor].mean()))
factors, at_the_end = [int(factor) for factor in ends], torch.stack([*ends.values()])  # [factors, seeds]
seeds = {f"seed {seed}": (factors, at_the_end[:, seed]) for seed in range(at_the_end.shape[1])}
plots.lines(seeds, plots.Axes("inner width of the MLP / D", "loss on Persuasion, nats a byte", log="x", xticks=factors))

# %% [markdown] id="a7bd53c8"
# <details><summary>What the numbers say</summary>
#
# With four, and with each of the three seeds. But it gains little: 0.004 to 0.015 nats against two or eight times, and 0.01 to 0.04 against one. The models with two and eight also have 2 to 3% fewer parameters than that with four, since widths are whole numbers. So four is a good choice here, and the others are hardly worse; what a long training would show, 300 steps can't say. Kaplan et al. (2020, section 3.1) report of larger models that the loss varies by only a few percent over a wide range of shapes, this factor among them, if the number of parameters stays the same.
# </details>

# %% [markdown] id="141c3cd2"
# ### Exercise 6 · Block
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Follow the thick line in the picture at the top. The vectors that run up through the model are called the *residual stream*. A block changes them twice, each time by adding: attention reads a normalised copy of the stream and adds its result, then the MLP reads a normalised copy of the new stream and adds its own.
#
# Why add, and not replace? The experiment after this exercise shows it: a layer that replaces its input loses it.
#
# For the two norms take `nn.LayerNorm` or your own `LayerNorm`, with the config's eps. Both are right. `nn.LayerNorm` is the reference's kernel, so only with it can the result be bit-exact.
#
# <details><summary>Hint 1</summary>
#
# Two lines. Each has the form: x, plus a sublayer of a norm of x.
#
# <details><summary>Hint 2</summary>
#
# Does the second line start from the block's input, or from the result of the first line?
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
# ### Why add, and why the norm moved
#
# The Transformer of 2017 normalised the *sum*. GPT-2 normalises what a sublayer *reads*, and leaves the stream alone ("pre-LN"). Take 96 random sublayers, as many as GPT-2 XL has, and follow one vector up. How much of what entered at the bottom is still in the stream? The measure is the cosine between the two. If every sublayer replaces its input, it is 0 after the first. With a sum it is 0.70 after the first, wherever the norm is, and with the norm after the sum it is 0.01 after 12. What is it after 12 with the norm before the sublayer?

# %% prediction="gpt2.input_left" id="prediction-gpt2-input_left"
predict(
    "gpt2.input_left", "cosine with the input after 12 sublayers, norm before",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="3219259f"
def cosine_with_input(form: str, depth: int = 96, dim: int = 256) -> list[float]:
    """The cosine between the stream and what entered it, after each of `depth` random sublayers."""
    generator = torch.Generator().manual_seed(0)
    start = stream = torch.randn(64, dim, generator=generator)
    cosines = []
    for _ in range(depth):
        sublayer = torch.randn(dim, dim, generator=generator) * dim**-0.5
        if form == "norm after the sum":
            stream = F.layer_norm(stream + stream @ sublayer, (dim,))
        else:
            result = F.layer_norm(stream, (dim,)) @ sublayer
            stream = result if form == "no sum" else stream + result
        cosines.append(F.cosine_similarity(stream, start).mean().item())
    return cosines

# %% tags=["nbval-ignore-output"] id="81e4db50"
curves = {}
for form in ("norm before the sublayer", "norm after the sum", "no sum"):
    cosines = cosine_with_input(form)
    curves[form] = range(1, 97), cosines
    print(f"{form:>24}: {cosines[0]:.2f} after 1 sublayer, {cosines[11]:.2f} after 12, {cosines[-1]:.2f} after 96")
guessed = measured("gpt2.input_left", curves["norm before the sublayer"][1][11])
plots.lines(curves, plots.Axes("sublayers", "cosine with the input", ylim=(-0.05, 1), marks=guessed.marks("y")))

# %% [markdown] id="697b7dbd"
# <details><summary>What the numbers say</summary>
#
# More than a quarter is left after 12 sublayers, and a tenth after 96: nothing shrinks the input, and its share falls only because other results are added beside it. With the norm after the sum, every sublayer shrinks what was there before by about √2, and after 12 of them a hundredth of it is left. A sublayer that replaces its input leaves nothing of it after one step.
# </details>

# %% [markdown] id="dafcaeff"
# That is about untrained weights. Xiong et al. (2020) show what it means for training: models with the norm after the sum need a careful warm-up of the learning rate. Most models since GPT-2 have the norm before the sublayer.
#
# The stream grows with every sum. The one last norm, `ln_f`, brings it back to a known size before the head.
#
# ### Why positions?
#
# Attention sums over keys, and a sum does not depend on order. Reverse the order of all tokens but the last. By how much does attention's result for the last token change, without and with an embedding of its position added to each token?

# %% id="08607fae"
torch.manual_seed(0)
attention, tokens, position_vectors = Attention(configs["gpt2"]), torch.randn(1, 8, 768), torch.randn(8, 768)
order = [6, 5, 4, 3, 2, 1, 0, 7]  # the earlier tokens reversed, the last one in its place
with torch.no_grad():
    for name, rows in (("without positions", torch.zeros(8, 768)), ("with positions", position_vectors)):
        change = attention(tokens + rows) - attention(tokens[:, order] + rows)
        print(f"{name:>17}: the last token's result changes by up to {change[:, -1].abs().max():.0e}")

# %% [markdown] id="f98df2c7"
# Without positions only rounding changes: after one layer of attention, *the dog bit the man.* and *the man bit the dog.* would end in the same vector at the full stop. So GPT-2 adds a learned vector for each position to the token's vector, before the first block. (The causal mask gives deeper layers some information on order, which is why some later models leave positions out of some layers.)
#
# ### Exercise 7 · The whole model
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Ids to vectors, twelve blocks, the last norm, and vectors to logits.
#
# - Two tables: `wte` has a row for every token of the vocabulary, `wpe` a row for every position. `nn.Embedding(n, D)` is such a table: called with ids, it returns the rows with these indices. A token enters as the sum of its two rows.
# - The head has no weight of its own. A logit is the dot product of the final vector with a token's row in `wte`: the table is used twice, at the input and at the output.
# - The blocks are in an `nn.ModuleList` called `h`, so their names are `h.0`, `h.1`, and so on.
#
# <details><summary>Hint 1</summary>
#
# `wpe` needs positions: 0, 1, ..., T - 1. Make them on the same device as `ids`. [T, D] adds to [B, T, D] by broadcasting.
#
# <details><summary>Hint 2</summary>
#
# `F.linear(x, weight)` multiplies by the transposed weight. `wte.weight` is [vocab_size, D]: is that the way round you need? If you make the head an `nn.Linear`, it must hold the same parameter: a copy of its numbers, or of its `.data`, is a second matrix, which the checkpoint does not have.
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
# ## Layer by layer
#
# The check above compared logits. `compare_layers` compares the output of every module, from the embeddings to `ln_f`, with the output of transformers' module on the same weights and the same tokens.

# %% tags=["nbval-ignore-output"] id="ffdde0ed"
compare_layers(GPT2)

# %% [markdown] id="a2f5d62e"
# Every row is right: no difference is larger than rounding makes it. A row of zeros means equal in every bit, and it is a property of the processor as much as of the program. On a machine like the one the reference was recorded on, the solution's rows are all zeros, because it runs the reference's operations in the reference's order. On another processor, or with another right formula, such as a division by √head_dim, `F.scaled_dot_product_attention` or a LayerNorm of your own, they are around 10⁻⁶ from `h.0` on.
#
# Now all the norms become your own `LayerNorm`. Which rows are still exactly 0? And how large are the others: the same everywhere, or growing from block to block and largest in the logits? `open="all"` shows what is inside the blocks. If your classes use your own `LayerNorm` already, the table above was this one, and the cell repeats it.

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
# `wte` and `wpe` come before the first norm, so nothing changes there. Then a difference enters in `h.0`, and its mean grows with every block, as the stream does, because each block adds to it. `ln_f` brings the stream back to a size near 1, and the difference with it, so the logits are not the row that is furthest off.
#
# All rows are `[OK]`: differences of 10⁻⁶ are what another order of additions costs, and a check must accept them. A bug is larger. Here is the silent one from exercise 3, planted in one place: block 1's `c_proj`, which is square, is transposed.

# %% tags=["nbval-ignore-output"] id="e705924c"
class TransposedConv1D(Conv1D):
    """A Conv1D that mixes up its two axes. Nothing raises, because its weight is square."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias

# %% tags=["nbval-ignore-output"] id="d44cd4f3"
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
# This is a good moment to read the reference's code: `transformers/models/gpt2/modeling_gpt2.py`, the classes `GPT2Attention`, `GPT2MLP`, `GPT2Block`, `GPT2Model`. You will find your own lines there, among options that this config does not use.

# %% [markdown] id="f03036a7"
# ## Does it write?
#
# ### Exercise 8 · generate
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The model gives a score (logit) for every token that could come next: row t of the logits is about the token after position t. Greedy decoding takes the largest, appends that token to the text, and asks again. Write a generator (with `yield`), so that text can be shown while it is written. A list of all tokens passes too, but shows nothing before it is complete.
#
# Two details. The model reads at most `n_positions` tokens, so from a longer text the oldest tokens are left out. And generation ends with the end token; like transformers, yield it before you stop.
#
# <details><summary>Hint 1</summary>
#
# `logits` has a row for every position. Which of them is about a token that is not in the text yet?
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

    ids: [1, T] int64, the prompt. The model is given the whole text; of a longer one the last model.config.n_positions tokens.
    Ends after max_new_tokens, or once eos_token_id has been yielded; None: no token ends it, whatever the config says.
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
# `.eval()` is a habit worth having. Your class has no dropout, so here it changes nothing. transformers' GPT-2 has dropout, and in training mode no two runs of it agree.

# %% id="9c126a14"
austen = load_checkpoint("austen-gpt2")
model = GPT2(austen.config).eval()
print(austen.load_into(model))
print({field: austen.config[field] for field in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")})


def encode(text: str) -> Tensor:
    """The text's token ids: [1, T]."""
    return torch.tensor([austen.tokenizer.encode(text).ids])


# %% tags=["nbval-ignore-output"] id="2b07df50"
from grader.instruments import writing

prompt = "Every effort moves you"
written = writing.write(generate(model, encode(prompt), 80), austen.tokenizer, prompt)

# %% [markdown] id="06b8ee59"
# ## The same text as the reference
#
# Coherent text is not the same as the right text: below, wrong models write just as well. So the last check compares token for token: three prompts, 64 tokens each, with what transformers wrote with these weights.

# %% tags=["nbval-ignore-output"] id="024327a4"
check_generation(model, "austen-gpt2", generate=generate)

# %% [markdown] id="fd15b085"
# If the report above is green, your program and transformers' GPT-2 write the same 192 tokens.
#
# This check comes last, but it is not the most sensitive one. With the *exact* GELU in all four blocks, every logit is off by a little. How many of these 192 tokens change?

# %% prediction="gpt2.exact_gelu" id="prediction-gpt2-exact_gelu"
predict(
    "gpt2.exact_gelu", "tokens of 192 that change with the exact GELU",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="ca912061"
class GPT2WithExactGELU(GPT2):
    """GPT-2 with the activation that its config does not ask for."""

    def __init__(self, config: Config):
        super().__init__(config)
        for block in self.h:
            block.mlp.act = nn.GELU()

# %% tags=["nbval-ignore-output"] id="d7fe1130"
other = GPT2WithExactGELU(austen.config).eval()
austen.load_into(other)
agree = {}
for start in ("It is a truth universally acknowledged, that", "Mrs. Bennet", "Captain Wentworth", "Anne"):
    ids = encode(start)
    with torch.no_grad():
        off = (model(ids) - other(ids)).abs().max()
    agree[start] = sum(a == b for a, b in zip(generate(model, ids, 64), generate(other, ids, 64), strict=True))
    print(f"logits off by up to {off:.3f}, {agree[start]} of 64 tokens agree   {start!r}")
measured("gpt2.exact_gelu", 192 - sum(list(agree.values())[:3]))  # of the three texts above

# %% tags=["nbval-ignore-output"] id="47532e2c"
try:
    compare_layers(GPT2WithExactGELU, open="none")
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="d13819e9"
# <details><summary>What the numbers say</summary>
#
# None of the 192 tokens changes: greedy decoding only asks which logit is largest, so it misses every error that does not change the winner. A fourth text shows the bug, but only that something is wrong. The layer comparison shows it on two texts of seven random tokens, and says where it is.
# </details>

# %% [markdown] id="2b468a14"
# So use both: the layers tell you whether the model is right; the text tells you whether everything around it is right as well, the weights, the tokenizer and the decoding.

# %% [markdown] id="84435e56"
# ## A place to stop for the day
#
# So far: you wrote GPT-2's parts and the model of them; it equals transformers' layer by layer, and with trained weights it writes the same text.
#
# Still to come: what a loss is, a model that you train yourself, what single heads and blocks do, OpenAI's own GPT-2, and what a token costs.
#
# ## What a loss is, and how good one is
#
# A language model is trained to predict the next token. Its error at one token is the *surprise*, −ln p, where p is the probability that it gave to the token that came. The *loss* is the mean surprise over a text. Its unit is the nat: a loss of 1 nat means that the right token got a probability of 1/e, 37%, in the geometric mean.
#
# A loss needs something to compare it with. The text here is the beginning of *Persuasion*, the novel that `austen-gpt2` was *not* trained on. Two very simple models on it: one gives all 2,048 tokens of the vocabulary the same probability, so its loss is ln 2,048 = 7.62 nats. The other knows how often each token occurs in *Pride and Prejudice*, and nothing else. What is its loss?

# %% prediction="gpt2.frequencies" id="prediction-gpt2-frequencies"
predict(
    "gpt2.frequencies", "loss of a model that knows how often tokens occur", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="f22aeee4"
held_out = encode(
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any"
    " book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one; there"
    " his faculties were roused into admiration and respect, by contemplating the limited remnant of the earliest"
    " patents; there any unwelcome sensations, arising from domestic affairs, changed naturally into pity and contempt."
)  # [1, T]

# %% id="258cef9d"
@torch.no_grad()
def surprise(model: GPT2, ids: Tensor) -> Tensor:
    """The surprise at each next token, in nats: ids [1, T] -> [T - 1]."""
    return F.cross_entropy(model(ids)[0, :-1], ids[0, 1:], reduction="none")

# %% id="de22100b"
novel = encode(Path("texts/pride-and-prejudice.txt").read_text())[0]  # [N]
counts = torch.bincount(novel, minlength=austen.config.vocab_size) + 1.0  # no token counts as impossible


def levels_on(ids: Tensor) -> dict[str, float]:
    """The losses on a text of two simple models and of `austen-gpt2`: ids [1, T] -> nats a token."""
    return {
        "every token equally likely": math.log(austen.config.vocab_size),
        "how often each token occurs": -(counts / counts.sum()).log()[ids[0, 1:]].mean().item(),
        "austen-gpt2": surprise(model, ids).mean().item(),
    }

# %% id="a3167103"
levels = levels_on(held_out)
for name, nats in levels.items():
    print(f"{name:>27}: {nats:.2f} nats a token, as uncertain as among {math.exp(nats):,.0f} equal choices")
measured("gpt2.frequencies", levels["how often each token occurs"])

# %% [markdown] id="51595d73"
# <details><summary>What the numbers say</summary>
#
# Knowing the frequencies alone saves only about a nat: the model is as uncertain as among 679 equal choices instead of 2,048. The model saves two and a half more by reading what came before.
# </details>

# %% [markdown] id="24a9ee68"
# `exp(loss)` is called the perplexity.
#
# ### What does the silent bug cost?
#
# In exercise 3 a square weight was transposed, and nothing showed. Now the model is trained, and you have a measure. `austen-gpt2`'s four `c_proj` of attention are square. All four are used transposed, and the rest stays as it is. What is the loss on *Persuasion*? You have three numbers to place it between: 4.1 for the right model, 6.5 for frequencies alone, 7.6 for chance.

# %% prediction="gpt2.transposed" id="prediction-gpt2-transposed"
predict(
    "gpt2.transposed", "loss with every attention's c_proj transposed", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="32957691"
transposed = GPT2(austen.config).eval()
for block in transposed.h:
    block.attn.c_proj = TransposedConv1D(austen.config.n_embd, austen.config.n_embd)
austen.load_into(transposed)  # strictly
nats = surprise(transposed, held_out).mean()
print(f"{nats:.2f} nats: {prompt}{austen.tokenizer.decode(list(generate(transposed, encode(prompt), 28)))}")
measured("gpt2.transposed", nats)

# %% [markdown] id="de2c8dce"
# <details><summary>What the numbers say</summary>
#
# The loss rises by 1.6 nats, and is still lower than with frequencies alone. Embeddings and MLPs are right, so the model still knows which tokens follow which. Apart from its first token, which makes *yourid*, the text consists of real words and of phrases that repeat, as the right model's text does, too. You can tell that it is worse, and not that it is a bug: a model that was trained for a shorter time writes like this.
# </details>

# %% [markdown] id="0637ff68"
# ## Train one yourself
#
# `austen-gpt2` was trained for half an hour. A few minutes are enough to see how training works: here is a smaller GPT-2 made of your own classes. Its weights start at random, with a standard deviation of 0.02 (`initializer_range`). GPT-2 also divides that of each `c_proj` by the root of the number of residual layers, which transformers counts as two for every block. A model of two blocks would divide by 2; this one is trained without that.
#
# A step of training takes 16 random pieces of the novel, 64 tokens each, and computes the loss at all their positions at once; the causal mask is what makes each position a fair test. Autograd gives the gradient of the loss for every weight, and the optimizer AdamW changes each weight a little against its gradient. How little is the learning rate: it rises at first (the warm-up), and falls again towards the end.
#
# What is the loss before the first step?

# %% id="da23baef"
torch.manual_seed(0)
own = GPT2(austen.config.replace(n_layer=2, n_embd=128, n_head=4, n_positions=64))
for weight in own.parameters():
    if weight.dim() > 1:
        nn.init.normal_(weight, std=austen.config.initializer_range)
untrained = {name: weight.clone() for name, weight in own.state_dict().items()}

# %% id="5eda65d3"
def pieces(count: int = 16, length: int = 64) -> Tensor:
    """Random pieces of the novel, each one token longer than what the model reads: [count, length + 1]."""
    starts = torch.randint(len(novel) - length, (count, 1))  # [count, 1]
    return novel[starts + torch.arange(length + 1)]


print(f"before the first step: {surprise(own, held_out[:, :64]).mean():.2f} nats")

# %% [markdown] id="02e36572"
# Small random weights make all logits nearly equal, so at the start all tokens are about equally likely, and the loss is about ln 2,048.
#
# ### Exercise 9 · The training step
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# A training is one step, repeated. The step is yours. It gets rows of text that are one token longer than what the model reads, so that each of the T tokens that are read has a next token in the row:
#
# | row | The | cat | sat | down |
# |---|---|---|---|---|
# | the model reads | The | cat | sat | |
# | and should predict | cat | sat | down | |
#
# The optimizer is given. It knows the model's weights, and three calls drive the rest: `loss.backward()` computes the gradient of the loss for every weight and *adds* it to what is in the weight's `grad`; `optimizer.step()` moves each weight according to its `grad`; `optimizer.zero_grad()` forgets the gradients that are there. `backward` adds so that the gradients of several batches can be summed. So an old gradient has to go before a new one is computed.
#
# The check makes one to three steps with a tiny model and compares the losses and every weight afterwards. Its reference is transformers' own loss, with which all its language models are trained. Some cases use plain gradient descent (SGD) in place of AdamW. AdamW divides a gradient by its usual size, so it hides it when all gradients are twice as large as they should be; SGD shows it.
#
# <details><summary>Hint 1</summary>
#
# `F.cross_entropy` takes logits [N, vocab_size] and targets [N]. A batch has N = B · T predictions.
#
# <details><summary>Hint 2</summary>
#
# The order: run the model, compute the loss, clear, backward, step. `loss.item()` is the loss as a Python float. A tensor would keep everything that backward needs in memory, for as long as somebody keeps the tensor.
# </details>
# </details>

# %% exercise="gpt2.train_step" id="gpt2-train_step"
def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor) -> float:
    """Improve the model on one batch; return its loss before the change, in nats a token, as a Python float.

    rows: ids [B, T + 1]. The model reads the first T tokens of each row, and its T predictions are compared with the
    token after each: loss = mean of -log p(next token) over all B T predictions. Then the optimizer makes one step with the
    gradient of this loss alone; gradients from before do not count. The model stays in training mode.
    """
    ### BEGIN SOLUTION
    inputs, targets = rows[:, :-1], rows[:, 1:]  # [B, T] each
    logits = model(inputs)  # [B, T, vocab_size]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION

# %% check="gpt2.train_step" tags=["nbval-ignore-output"] id="check-gpt2-train_step"
check("gpt2.train_step", train_step)

# %% [markdown] id="881a8aff"
# What if one of the three calls is forgotten? Without `zero_grad` nothing raises: each step is made with the sum of all gradients so far. A model of one block is trained for 200 steps, once with your step and once without clearing. Untrained, its loss is 7.62 nats. What is the loss on the novel after 200 steps without `zero_grad`?

# %% prediction="gpt2.uncleared" id="prediction-gpt2-uncleared"
predict(
    "gpt2.uncleared", "loss after 200 steps whose gradients are never cleared", unit="nats",
    guess=...
)

# %% id="101f97ff"
def small_model() -> GPT2:
    """An untrained GPT-2 of one block, the same every time."""
    torch.manual_seed(0)
    small = GPT2(austen.config.replace(n_layer=1, n_embd=64, n_head=2, n_positions=64))
    for weight in small.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=austen.config.initializer_range)
    return small


small = small_model()
untouched = {name: weight.clone() for name, weight in small.state_dict().items()}

# %% tags=["nbval-ignore-output"] id="3488b85f"
from grader.instruments import progress

after = {}
for name in ("cleared", "never cleared"):
    small.load_state_dict(untouched)
    torch.manual_seed(0)  # the same batches for both
    optimizer = torch.optim.AdamW(small.parameters(), lr=3e-3)
    if name == "never cleared":
        optimizer.zero_grad = lambda: None
    last = [train_step(small, optimizer, pieces()) for _ in progress.steps(range(200), "steps")][-20:]
    after[name] = sum(last) / len(last)
    print(f"{name:>13}: {after[name]:.2f} nats in the last 20 steps")
measured("gpt2.uncleared", after["never cleared"])

# %% [markdown] id="93854e2f"
# <details><summary>What the numbers say</summary>
#
# Between 7 and 8: hardly better than an untrained model, or worse, where your step has brought it to 5 or a little more. The sum still contains the gradients of the first steps, so the optimizer goes on in their direction long after it has stopped lowering the loss. There is no error and no NaN, only a loss that does not fall. When you see one, look at the three calls first.
# </details>

# %% [markdown] id="ca0e75f0"
# Now watch it learn. Training takes a minute or two, and a bar shows how much time is left. The curve is redrawn every 50 steps, and the model writes a few words after steps 1, 100, 200 and 500. The level lines are the losses of the three models above, on 16 pieces of the novel that it is trained on. `austen-gpt2` was trained on this novel, too.

# %% id="17367faa"
parts = [levels_on(part[None]) for part in novel[: 16 * 256].view(16, 256)]  # of 256 tokens each
on_the_novel = {name: sum(part[name] for part in parts) / len(parts) for name in levels}

# %% id="0bf9d7c3"
def curve_of(losses: list[float]) -> plots.Picture:
    """The loss on the novel so far, each point the mean of 50 steps, and the levels to compare it with."""
    means = torch.tensor(losses[: len(losses) // 50 * 50]).view(-1, 50).mean(dim=1)
    curves = {name: ([0, steps], [nats, nats]) for name, nats in on_the_novel.items()}
    if len(means):
        curves["your model"] = (range(50, len(losses) + 1, 50), means)
    return plots.lines(curves, plots.Axes("steps", "loss, nats a token"))

# %% tags=["nbval-ignore-output"] id="60026454"
steps, losses = 500, []
own.load_state_dict(untrained)  # also when this cell is run again
optimizer = torch.optim.AdamW(own.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
curve = progress.Place()
for step in progress.steps(range(1, steps + 1), "steps"):
    losses.append(train_step(own, optimizer, pieces()))
    schedule.step()
    if step % 50 == 0:
        curve.show(curve_of(losses))
    if step in (1, 100, 200, steps):
        print(f"after {step:4} steps: It was{austen.tokenizer.decode(list(generate(own, encode('It was'), 24)))!r}")

# %% [markdown] id="ac0bcc11"
# The loss falls fast to what frequencies alone give, and then slowly, as the model learns which tokens follow which. The text shows the same stages: first one token again and again, then common words, then phrases of the novel.
#
# The curve is measured on the novel that the model is trained on. In 500 steps it reads that novel nearly three times. What is its loss on the first 64 tokens of *Persuasion*? `austen-gpt2`, which is larger and was trained on five novels, has 4.06 on the whole passage. (Your number differs a little from one machine to the next.)

# %% prediction="gpt2.held_out" id="prediction-gpt2-held_out"
predict(
    "gpt2.held_out", "loss of your own model on Persuasion", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="d8e87cb7"
print(f"on the novel it was trained on: {sum(losses[-50:]) / 50:.2f} nats a token")
print(f"on the start of Persuasion:     {surprise(own, held_out[:, :64]).mean():.2f}")
measured("gpt2.held_out", surprise(own, held_out[:, :64]).mean())

# %% [markdown] id="1cf88684"
# <details><summary>What the numbers say</summary>
#
# It is more than a nat higher than on the novel. Part of that may be the passage, which is harder: frequencies alone have 6.5 nats on it, and 6.2 on the novel. The rest is what the model learned about this one novel. That is why a loss is reported on held-out text.
# </details>

# %% [markdown] id="6c768406"
# ### Why hide the later tokens?
#
# With the causal mask, one piece of 64 tokens gives 64 training examples: at every position the model has to predict a token that it cannot see. Now train an even smaller model, of one block, for 400 steps *without* the mask. What is its loss on *Persuasion*, which it has never read? And what does it write?

# %% prediction="gpt2.unmasked" id="prediction-gpt2-unmasked"
predict(
    "gpt2.unmasked", "loss on Persuasion of a model trained without a mask", unit="nats",
    guess=...
)

# %% id="8e018d09"
def without_mask(attention: Attention) -> Callable[[Tensor], Tensor]:
    """A forward without the mask: every token sees all tokens, later ones too."""

    def forward(x: Tensor) -> Tensor:
        split = (t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in attention.c_attn(x).chunk(3, dim=-1))
        return attention.c_proj(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))

    return forward


# %% id="6a097921"
unmasked = small_model()
unmasked.h[0].attn.forward = without_mask(unmasked.h[0].attn)
blank = {name: weight.clone() for name, weight in unmasked.state_dict().items()}

# %% tags=["nbval-ignore-output"] id="90a979ec"
unmasked.load_state_dict(blank)
optimizer = torch.optim.AdamW(unmasked.parameters(), lr=3e-3)
with_answers = [train_step(unmasked, optimizer, pieces()) for _ in progress.steps(range(400), "steps")]
nats = surprise(unmasked, held_out[:, :64]).mean()
print(f"after 400 steps: {with_answers[-1]:.2f} nats on the novel, {nats:.2f} on Persuasion")
print(f"It was{austen.tokenizer.decode(list(generate(unmasked, encode('It was'), 16)))!r}")
measured("gpt2.unmasked", nats)

# %% [markdown] id="c42dabec"
# <details><summary>What the numbers say</summary>
#
# A few tenths of a nat after 400 steps, on a text that it has never read: far better than `austen-gpt2`. And it cannot write. It has learned to copy each token's successor from the next position. When it writes there is no next position to copy from. So when a loss is too good to be true, look at the mask first.
# </details>

# %% [markdown] id="f4c83315"
# ## Greedy, or drawn at random
#
# Greedy text tends to repeat itself, as your own model's did above. Chat programs do not take the most likely token; they draw one according to the probabilities. A *temperature* divides the logits first: below 1 the likely tokens become more likely, above 1 the odds become more equal. Read the three texts and compare.

# %% tags=["nbval-ignore-output"] id="e30a693f"
@torch.no_grad()
def drawn(model: GPT2, ids: Tensor, count: int, temperature: float) -> Tensor:
    """Append `count` tokens, each drawn from softmax(logits / temperature): ids [1, T] -> [1, T + count]."""
    for _ in range(count):
        probabilities = (model(ids)[0, -1] / temperature).softmax(dim=-1)  # [vocab_size]
        ids = torch.cat([ids, torch.multinomial(probabilities, 1)[None]], dim=1)
    return ids


torch.manual_seed(0)
for temperature in (0.5, 1.0, 2.0):
    text = austen.tokenizer.decode(drawn(model, encode(prompt), 30, temperature)[0].tolist())
    print(f"temperature {temperature}: {text!r}")

# %% [markdown] id="0c80bf58"
# At 0.5 the text stays close to the greedy one. At 1 it is more varied and makes more mistakes. At 2 unlikely tokens win so often that the words fall apart. This course compares greedy text, because only there must two right programs choose the same tokens.
#
# ## What a head looks at
#
# The rest of the lesson looks inside the trained model. Your `Attention` does not return its weights, so they are computed again: take q and k from the output of `c_attn`, and apply the mask and the softmax. `patch.attention_weights` does that, and `patch.calls_in` runs the model and records the inputs and outputs of each of its parts.

# %% tags=["nbval-ignore-output"] id="8c29e8a4"
from grader.instruments import patch


def attention_weights(model: GPT2, ids: Tensor, layer: int) -> Tensor:
    """The attention weights of a layer for one text: [num_heads, T, T]."""
    joined = patch.calls_in(model, ids)[f"h.{layer}.attn.c_attn"].output[0]  # [T, 3 D]
    return patch.attention_weights(joined, model.config.n_head)

# %% tags=["nbval-ignore-output"] id="c7ec4f3a"
text = "Elizabeth was surprised, but Elizabeth was not displeased."
ids = encode(text)
maps = torch.stack([attention_weights(model, ids, layer) for layer in range(austen.config.n_layer)])  # [L, H, T, T]
assert torch.allclose(maps.sum(dim=-1), torch.ones(()))  # every row sums to 1
plots.maps(maps, "h.{row}, head {column}")

# %% [markdown] id="5ec588fb"
# Rows are queries and columns are keys, as in the mask above. Most heads of the first two layers spread their attention; those of later layers concentrate it. A picture shows what a head looks at. It does not show whether the head matters.
#
# ## Without one head
#
# To find out whether a head matters, switch it off and see how much the loss rises. The text is the beginning of *Persuasion*, as before.
#
# There are 24 heads, and the loss with all of them is 4.06 nats. For how many of the 24 does the loss rise by more than 0.05 when that one is missing?

# %% prediction="gpt2.heads_missed" id="prediction-gpt2-heads_missed"
predict(
    "gpt2.heads_missed", "heads of 24 that cost more than 0.05 nats when missing",
    guess=...
)

# %% [markdown] id="d9ce8592"
# ### Exercise 10 · An experiment of your own: what is a head worth?
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# You write the measurement. Missing means here that a head's results are 0 for every token. Those results are the head's channels of what `c_proj` reads, so zeros in the rows of its weight that multiply these channels do the same: a head of `austen-gpt2` has 32 channels, and head 2's results meet rows 64 to 95. The other heads and the bias stay as they are.
#
# An experiment on a model is worth little if it leaves the model changed: the next measurement would be of another model. The check asks for several heads of one model in turn, for one of them twice, and looks at the weights afterwards. Its models are small ones of its own, for which the number was computed token by token and head by head.
#
# <details><summary>Hint 1</summary>
#
# `weight = model.h[layer].attn.c_proj.weight` is [D, D], in before out. Inside `torch.no_grad()` you may write `weight[rows] = 0.0`, where `rows` is a `slice`. What must you do before, and what afterwards?
#
# <details><summary>Hint 2</summary>
#
# `weight[rows]` is a view: it changes with the weight. `clone()` makes a copy.
#
# <details><summary>Hint 3</summary>
#
# The logits at token t say what comes at t + 1. So the last token's logits have no target, and the first token is no target: `logits[:, :-1]` and `ids[:, 1:]`.
# </details>
# </details>
# </details>

# %% exercise="gpt2.cost_of_head" id="gpt2-cost_of_head"
def cost_of_head(model: nn.Module, ids: Tensor, layer: int, head: int) -> float:
    """How much the loss rises without one head: the loss without it, minus the loss with all, in nats.

    Without it: its results are 0 for every token, and nothing else changes. The loss is the mean surprise at the next
    token, over all tokens of all texts but the first of each. Afterwards the model is as it was before.
    model(ids) gives logits [B, T, vocab_size]; model.h[layer].attn.c_proj is a Conv1D, as you wrote it, and
    model.config.n_head is the number of heads. ids: [B, T].
    """
    ### BEGIN SOLUTION
    def nats() -> Tensor:
        return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    with torch.no_grad():
        weight = model.h[layer].attn.c_proj.weight  # [D, D], in before out
        head_dim = len(weight) // model.config.n_head
        rows = slice(head * head_dim, (head + 1) * head_dim)
        kept, before = weight[rows].clone(), nats()
        weight[rows] = 0.0
        without = nats()
        weight[rows] = kept
    return (without - before).item()
    ### END SOLUTION

# %% check="gpt2.cost_of_head" tags=["nbval-ignore-output"] id="check-gpt2-cost_of_head"
check("gpt2.cost_of_head", cost_of_head)

# %% tags=["nbval-ignore-output"] id="3e5a6343"
whole = surprise(model, held_out)  # [T - 1]
costs = torch.zeros(austen.config.n_layer, austen.config.n_head)
for layer in progress.steps(range(austen.config.n_layer), "layers"):
    for head in range(austen.config.n_head):
        costs[layer, head] = cost_of_head(model, held_out, layer, head)
print(f"all heads: {whole.mean():.2f} nats a token, a perplexity of {whole.mean().exp():.0f}")
measured("gpt2.heads_missed", (costs > 0.05).sum())
plots.grid(costs, plots.Axes("head", "layer", "one head silenced"), "rise of the loss, nats", "+.2f")

# %% [markdown] id="2cb5fa20"
# <details><summary>What the numbers say</summary>
#
# A quarter of the heads: without any of the other 18 the loss stays nearly as it is, and without a few of them it is even a little lower. The model misses one head of the first layer most, then one of the second and one of the last. The heads that matter are in all four layers.
# </details>

# %% [markdown] id="419d5520"
# What does the most important one do? Here is its map. In the rows `ised` and `pleas`, tokens that continue a word, it looks at the token before. In the row `ed` it mostly does not, and the full stop attends most to `Elizabeth`. So is this head about words in pieces? One picture cannot say. Two averages over the held-out text say more: where the head looks, and what it costs to lose it.

# %% tags=["nbval-ignore-output"] id="16587951"
layer, head = divmod(costs.argmax().item(), austen.config.n_head)
tokens = {place: austen.tokenizer.decode([i]) for place, i in enumerate(ids[0].tolist())}
around = plots.Axes("key", "query", f"h.{layer}, head {head}", xticks=tokens, yticks=tokens, size=(5.8, 4.8))
plots.grid(maps[layer, head], around, "attention weight")

# %% tags=["nbval-ignore-output"] id="a18ad25d"
def continues_a_word(ids: Tensor) -> Tensor:
    """Which tokens begin with a letter and not with a space: [T] -> [T]."""
    return torch.tensor([austen.tokenizer.decode([i])[0].isalpha() for i in ids.tolist()])


windows = held_out[0, : held_out.shape[1] // 32 * 32].view(-1, 32)
to_previous = [attention_weights(model, window[None], layer)[head].diagonal(-1) for window in windows]
inside, to_previous = continues_a_word(windows[:, 1:].flatten()), torch.cat(to_previous)
print("attention on the token just before, on average:")
print(f"  from a token that continues a word {to_previous[inside].mean():.0%}")
print(f"  from any other token               {to_previous[~inside].mean():.0%}")

# %% tags=["nbval-ignore-output"] id="3d3e28db"
attention = model.h[layer].attn
with patch.silenced(attention.c_proj.weight, slice(head * attention.head_dim, (head + 1) * attention.head_dim)):
    rises = surprise(model, held_out) - whole  # [T - 1]
inside = continues_a_word(held_out[0, :-1])
print("rise of the loss without the head, in nats:")
print(f"  after a token that continues a word {rises[inside].mean():+.2f}")
print(f"  after any other token               {rises[~inside].mean():+.2f}")

# %% [markdown] id="60169f4a"
# From a token inside a word this head looks at the token before more than twice as much as from other tokens, and without the head the loss rises more than ten times as much there. The tokenizer cuts rare words into pieces, and a piece such as `ised` says little alone. So the head's work has much to do with words in pieces. That is not all it does: about two thirds of its attention goes elsewhere even there.
#
# ## Why several heads, and why an MLP?
#
# Two larger cuts. First, all heads of a layer get the same attention weights, the mean of the layer's heads, and keep their own values. Then all MLPs are silent, then all attention. A model that knows nothing but how often each token occurs has 6.5 nats. What is the order of these losses, the lowest first?

# %% prediction="gpt2.cuts" id="prediction-gpt2-cuts"
cut_models = ("without any attention", "token frequencies alone", "one map for all heads", "without any MLP")
predict(
    "gpt2.cuts", "losses after these cuts, the lowest first", order_of=cut_models,
    guess=...
)

# %% id="c9ef25e0"
def with_mean_weights(attention: Attention) -> Callable[[Tensor], Tensor]:
    """A forward in which each head attends as the layer's heads do on average; the values stay as they are."""

    def forward(x: Tensor) -> Tensor:
        joined = attention.c_attn(x)  # [1, T, 3 D]
        mean = patch.attention_weights(joined[0], attention.num_heads).mean(dim=0)  # [T, T]
        return attention.c_proj(mean @ joined[..., 2 * x.shape[-1] :])  # [1, T, D]

    return forward

# %% id="bb2775b5"
cuts = {
    "as it is": [],
    "one map for all heads": [patch.replaced(block.attn, forward=with_mean_weights(block.attn)) for block in model.h],
    "without any attention": [patch.replaced(block.attn, forward=torch.zeros_like) for block in model.h],
    "without any MLP": [patch.replaced(block.mlp, forward=torch.zeros_like) for block in model.h],
}

# %% id="ec2fa7f2"
after = {"token frequencies alone": levels["how often each token occurs"]}
for name, changes in cuts.items():
    with patch.together(*changes):
        after[name] = surprise(model, held_out).mean().item()
    print(f"{name:>22}: {after[name]:.2f} nats")
measured("gpt2.cuts", sorted(cut_models, key=after.get))

# %% [markdown] id="364b6f14"
# <details><summary>What the numbers say</summary>
#
# Different heads look at different tokens, and the model uses that: with one map for all of them it loses half a nat. Without any attention it is still better than frequencies alone, since it can use the last token. It is even better than with the transposed `c_proj` above: no attention at all disturbs less than a wrong one. Without the MLPs it is worse than a model that finds every token equally likely.
# </details>

# %% [markdown] id="74057004"
# The cuts are made in a trained model, so they show that it relies on these parts, and not how well a model would do that was trained without them.

# %% [markdown] id="b4a1fdf9"
# ## The logit lens
#
# The residual stream only ever changes by addition. Does it hold a rough answer already half-way up? Cut the model off after n blocks, and let `ln_f` and the head read what is there.
#
# How does "in the course of a few" go on, and after how many of the four blocks does the model know? What does it say after none?

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
# With no block at all the answer is the token itself: the head is the embedding matrix, and a vector has its largest dot product with itself. From the first block on, a span of time is among the guesses, and after three blocks there is nothing else among the first three. The last block decides which span it is: `week`, the beginning of `weeks`, and `days` overtake `minutes` only there. No single block "knows" the answer. Each shifts the probabilities.
#
# ## One position too many
#
# `wpe` has as many rows as the model has positions. What happens to GPT-2 at position 1,025, or to this model at 257: worse text, slower text, or something else?

# %% id="b1fe5cb9"
too_long = encode("Mr. Darcy ")[:, :1].repeat(1, austen.config.n_positions + 1)
try:
    model(too_long)
except IndexError as error:
    print("IndexError:", error)

# %% [markdown] id="090e89bc"
# There is no row to look up. The text does not get worse bit by bit; the model stops. That is why `generate` drops the oldest tokens, and why the models of the later lessons compute positions instead of looking them up.
#
# ## The question: what can you change and still load?
#
# Now measure it. Each line changes one field of the config, builds the model anew, loads the same weights strictly, and reads the beginning of *Persuasion*. Your guess from the start of the lesson is below.
#
# Before that, one more. `n_head` can be changed: no weight's shape depends on it. The model was trained with 6 heads of 32 and has a loss of 4.06 nats. What is the loss of the same weights with 12 heads of 16?

# %% prediction="gpt2.twelve_heads" id="prediction-gpt2-twelve_heads"
predict(
    "gpt2.twelve_heads", "loss with 12 heads instead of the 6 it was trained with", unit="nats",
    guess=...
)

# %% id="e9c227d5"
def loss(model: GPT2) -> float:
    """The mean surprise on the held-out text."""
    return surprise(model, held_out).mean().item()

# %% id="f23d0693"
def austen_with(**change) -> GPT2:
    """`austen-gpt2` with a changed config; its weights are loaded strictly."""
    changed = GPT2(austen.config.replace(**change)).eval()
    austen.load_into(changed)
    return changed


def outcome(**change) -> str:
    """Whether the weights load with a changed config, and with what loss."""
    try:
        return f"loads, loss {loss(austen_with(**change)):.4f}"
    except GraderError:
        return "does not load"
    except (AssertionError, RuntimeError, ValueError):
        return "can't run"

# %% id="6123b668"
loaded = set()
for change in (
    {},
    {"n_layer": 3}, {"n_embd": 96}, {"n_inner": 512}, {"n_positions": 512}, {"vocab_size": 2000},
    {"n_head": 3}, {"n_head": 12}, {"n_head": 5}, {"layer_norm_epsilon": 1e-2}, {"layer_norm_epsilon": 1e-6},
    {"activation_function": "relu"}, {"resid_pdrop": 0.5}, {"initializer_range": 1.0}, {"eos_token_id": 7},
):
    name, result = ", ".join(f"{field} = {value}" for field, value in change.items()) or "as it is", outcome(**change)
    print(f"{name:>28}   {result}")
    loaded |= set(change) if result.startswith("loads") else set()

# %% id="e9cf2a32"
asked = {"layer_norm_epsilon", "n_embd", "n_head", "n_layer", "n_positions", "resid_pdrop", "vocab_size"}
measured("gpt2.fields", loaded & asked)
measured("gpt2.twelve_heads", loss(austen_with(n_head=12)))

# %% [markdown] id="fe5225d5"
# <details><summary>What the numbers say</summary>
#
# Three kinds of fields:
#
# - **Shapes and counts**: `n_layer`, `n_embd`, `n_inner`, `n_positions`, `vocab_size`. A strict load refuses them.
# - **Not read when text is generated**: dropout, the initialisation, the names, and the summary head. They change nothing. The activation is in this group only because your code never reads the field: a program that does, as transformers does, would compute something else with the same weights.
# - **Arithmetic**: `n_head` and `layer_norm_epsilon`. No weight's shape depends on them, so everything loads, and the output is different. How different depends: an eps of 10⁻⁶ instead of 10⁻⁵ changes the loss in its fourth decimal, and 10⁻² raises it by more than half a nat. `n_head` must still divide `n_embd`: the weights would load for 5 heads too, but 192 channels cannot be split into 5.
#
# `n_head` is the most dangerous one. With 12 heads instead of 6 every score is wrong, and the loss rises by only 0.11.
# </details>

# %% [markdown] id="7e767354"
# Would you see the wrong number of heads in the text?

# %% tags=["nbval-ignore-output"] id="963f895c"
for heads in (6, 12):
    tokens = list(generate(austen_with(n_head=heads), encode(prompt), 28))
    print(f"{heads:2} heads: {prompt}{austen.tokenizer.decode(tokens)}\n")

# %% [markdown] id="0807ddd0"
# Both sound alike, and nothing in the text says which of them is the model that was trained. So a config is as much a part of a model as its weights are, and only a comparison with a reference, number by number or token by token, shows which program is right.

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
# The hub's `model.safetensors` of the small model has 548 MB, and you just computed 498. What could the other 50 MB be? The next cell says it.

# %% id="4199f761"
config = configs["gpt2"]
masks = config.n_layer * config.n_ctx**2 * 4
names_and_shapes = 548_105_171 - 4 * sum(parameters(config).values()) - masks
print(f"{masks:,} bytes of causal masks, and {names_and_shapes:,} bytes of header: each tensor's name, shape and place in the file")

# %% [markdown] id="5a71a9c3"
# Every block's mask, 1024 × 1024 numbers in float32, was saved along with the weights (`h.0.attn.bias` and so on; it is not a bias). A strict load has to leave out those twelve names, and nothing else.
#
# **Time.** To write one more token, the model reads the whole text again. The text gets eight times as long. How much longer does the next token take?

# %% tags=["nbval-ignore-output"] id="a8321e0a"
from grader.instruments import clock

print("tokens so far   ms for the next")
times = {}
for length in (32, 64, 128, 256):
    some = torch.randint(austen.config.vocab_size, (1, length))
    times[length] = clock.milliseconds(lambda some=some: next(iter(generate(model, some, 1))), repeats=20)
    print(f"{length:13} {times[length]:17.1f}")
print(f"eight times the text, {times[256] / times[32]:.0f} times the time")

# %% [markdown] id="255c4d29"
# Every matrix product has eight times as many rows, and attention has 8 · 8 = 64 times as many scores; so the work grows by a factor between the two. Each call also has a fixed cost (Python, starting kernels) that does not grow with the text. That makes the measured ratio smaller, most of all on a fast machine.
#
# All rows of logits but the last were computed before, for the earlier tokens, and thrown away. The next lesson stores what can be used again.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="22428d75"
# ## What changed, and why
#
# | | Transformer decoder, 2017 | GPT, 2018 | GPT-2, 2019 | why |
# |---|---|---|---|---|
# | layers | self-attention, cross-attention, MLP | self-attention, MLP | the same | the decoder of 2017 also read an encoder's vectors of another text, through cross-attention. Here everything is one text |
# | norm | after the sum | after the sum | **before the sublayer**, and one at the end | the input survives; deep models train |
# | activation | ReLU | GELU (tanh form) | the same | lower error than ReLU in GELU's paper; the GPT paper gives no reason |
# | positions | sines and cosines, fixed | learned, 512 | **learned, 1024** | no reason is given; the fixed ones did as well (Vaswani et al., 3.5). They cost n_positions · D parameters, and there is a last one |
# | input | embedding · √D | embedding | embedding | no reason is given |
# | head | tied | tied | tied | saves vocab · D parameters |
# | vocabulary | about 37,000 pieces | 40,000 merges | **50,257, from bytes** | any text can be written; there is no unknown token |
# | before training | – | 0.02 | **c_proj also ÷ √(number of residual layers, two a block)** | many additions must not add up to too much |
#
# ## The questions again
#
# <details><summary>What in config.json can you change and still load the weights?</summary>
#
# Every field that decides no weight's shape: <code>n_head</code>, as long as it divides <code>n_embd</code>, and <code>layer_norm_epsilon</code>, which change the output without an error; the activation's name, which changes it in programs that read it; and what matters only in training or elsewhere: dropout, initialisation, summary head, task parameters.
# </details>
#
# <details><summary>Where are GPT-2's parameters?</summary>
#
# 32% of the small model's are in embeddings, 5% of XL's. The rest are in blocks, two thirds of them in the MLPs.
# </details>
#
# <details><summary>Why is the MLP four times as wide as the stream?</summary>
#
# The factor was chosen in 2017 and kept. In tiny models with the same number of parameters four was best, by 0.004 to 0.04 nats; one, two and eight were hardly worse.
# </details>
#
# <details><summary>What are norms, residual sums and positions for?</summary>
#
# A norm gives each sublayer an input of known size, however deep in the stack it is. A sum keeps the input, where a layer that replaces it loses it after one step. Without positions attention cannot tell two orders of the same words apart.
# </details>
#
# <details><summary>Why is a score divided by √head_dim and not by head_dim or √D?</summary>
#
# It is a sum of head_dim products of variance 1, so its standard deviation is √head_dim. Without the scale a head of 64 attends to two or three random keys.
# </details>
#
# <details><summary>Name three mistakes that raise no error.</summary>
#
# A square weight transposed; another number of heads; the mask one off; eps outside the root; the other GELU.
# </details>
#
# <details><summary>Why is the norm before the sublayer?</summary>
#
# So that the residual stream only changes by addition. With the norm after the sum, every norm shrinks what came before by about √2.
# </details>
#
# <details><summary>A model's loss is 0.3 after 400 steps of training, and what it writes is nonsense. What is missing?</summary>
#
# The causal mask. Each position could see the token that it had to predict, so the model learned to copy it. When it writes, that token does not exist yet.
# </details>
#
# <details><summary>Why is a hidden score −∞ before the softmax, and not a weight of 0 after it?</summary>
#
# After the softmax the other weights no longer sum to 1, and they still depend on the hidden score: it was in the sum that they were divided by.
# </details>
#
# <details><summary>Which three calls drive a training step, in which order, and what if the first is forgotten?</summary>
#
# <code>zero_grad</code>, <code>backward</code>, <code>step</code>. Without the first, every step is made with the sum of all gradients so far: nothing raises, and the loss hardly falls.
# </details>
#
# <details><summary>How do you measure what a head is worth?</summary>
#
# Set its rows of <code>c_proj</code> to 0, take the loss, and put the rows back. A measurement that leaves the model changed spoils the next one.
# </details>
#
# <details><summary>How good is a loss of 4?</summary>
#
# It depends on what chance gives. If all 2,048 tokens of this vocabulary are equally likely, it is ln 2048 = 7.6 nats, and counting how often each token occurs gives about 6.5.
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
# - Xiong et al., *On Layer Normalization in the Transformer Architecture* (2020): why pre-LN needs no warm-up. Kaplan et al., *Scaling Laws for Neural Language Models* (2020), section 3.1: the shape of a model matters little. Michel, Levy, Neubig, *Are Sixteen Heads Really Better than One?* (2019): more heads removed.
# - The reference: `transformers/models/gpt2/modeling_gpt2.py`, `GPT2LMHeadModel` and what it calls; `pytorch_utils.py`, `Conv1D`; `activations.py`, `NewGELUActivation`.
#
# ## If you want more
#
# *Remove* the least important head instead of silencing it. Write an `Attention` that may have fewer heads than D / head_dim, cut the right columns out of `c_attn` and the right rows out of `c_proj`, and load the rest. You are right when the loss on *Persuasion* equals that of the silenced head to six digits, and the model has fewer parameters. How many heads can you remove before the loss rises by 0.1?
