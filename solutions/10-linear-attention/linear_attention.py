# %% [markdown] id="bdc143a9"
# # 10 · Linear attention: a state in place of a cache
#
# **Qwen3.5's cache stops growing in three layers of four. What do they remember?**
#
# After lesson 02 you know the price of attention: every token leaves a key and a value, and every later token reads all of them. Qwen3.5 (Alibaba, February 2026) pays that price in every fourth layer. The three others have a *state*: one matrix for each head, as large after a million tokens as after one. Each token changes it a little, and that is all that later tokens ever see of it. Something must get lost. What, and does it matter?
#
# Write your guess on a piece of paper: **in a state of 128 x 128 numbers, how many pairs of a key and a value can be found again?** And what should happen when a key comes that has been there before?
#
# After this lesson you can
#
# - write Qwen3.5's linear attention from nothing: the short convolution, the gates, the delta rule one token at a time and in chunks, the gated norm and the layer around them;
# - build the hybrid model whose states go on after any number of tokens, and load trained weights into it;
# - measure what a state recalls and what it forgets, and say why every fourth layer is left as it was;
# - say from a `config.json` how many bytes such a model keeps of a text, and what can't be done with a state that can be done with a cache;
# - tell Qwen3.5's rule from Mamba-2's (Nemotron 3) and from Kimi's, each by its line.
#
# 170 to 250 minutes · difficulty ●●●●○ · you know attention with a cache (lesson 02) and Qwen3 (lesson 03); norms as in Gemma 3 (lesson 04) are given
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# ![Qwen3.5 27B beside Qwen3 32B, with a ring around what differs: tokens enter an embedding; 64 layers follow, in groups of three with Gated DeltaNet and one with attention, each with a norm before it and an MLP after another norm; then the last norm and the output. Three of four layers keep a state in place of keys and values.](figures/qwen3.5-27b-model.svg)

# %% tags=["setup"] id="setup"
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="ea4af480"
# Given and folded: lesson 03's RoPE and MLP, and lesson 04's norm, which multiplies by 1 + weight. Also given are two small classes for what each kind of layer keeps of a text.

# %% tags=["setup"] id="setup-2"
def layer_types(config: Config) -> list[str]:
    """The kind of each layer: "linear_attention" or "full_attention"; every fourth is full where the config has no list."""
    every = config.get("full_attention_interval") or 4
    kinds = ["full_attention" if i % every == 0 else "linear_attention" for i in range(1, config.num_hidden_layers + 1)]
    return config.get("layer_types") or kinds


def head_dim(config: Config) -> int:
    """How many channels a head of full attention has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads


def wide(x: Tensor) -> Tensor:
    """x in float32, unless it is float64 already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

# %% given="04-gemma3 gemma3.rms_norm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rms_norm"

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% tags=["setup"] long="both kinds of memory, with their shapes" id="setup-3"
class LayerState:
    """What a linear layer keeps of a text; None before its first token.

    conv: the last kernel - 1 inputs of the convolution, [B, kernel - 1, C]. recurrent: the state, [B, H, d_k, d_v].
    """

    def __init__(self):
        self.conv: Tensor | None = None
        self.recurrent: Tensor | None = None


class KVCache:
    """What a full layer keeps of a text: the keys and values of all tokens."""

    def __init__(self):
        self.keys = self.values = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """2 x [B, KV, T, head_dim] -> 2 x [B, KV, length, head_dim], where length has grown by T."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        self.length = self.keys.shape[2]
        return self.keys, self.values

# %% [markdown] id="504b27bc"
# ## Steps 1 to 5 · Read the config, compare
#
# The steps are those of the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026). Put Qwen3.5 27B beside Qwen3 32B, which has as many layers and the same width. Which fields will be new?

# %% id="d69a5171"
from pathlib import Path

configs = {name: Config.read(f"configs/{name}.json") for name in ("qwen3-32b", "qwen3.5-27b", "qwen3-next-80b-a3b")}
old, new = configs["qwen3-32b"], configs["qwen3.5-27b"]
for field in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
              *(name for name in new if name.startswith("linear_"))):
    print(f"{field:>24}: {old.get(field, '-'):>6} {new.get(field, '-'):>6}")
print(f"{'layers':>24}: ", {kind: layer_types(new).count(kind) for kind in sorted(set(layer_types(new)))}, layer_types(new)[:4])

# %% [markdown] id="073759f4"
# Three layers are linear, one is full, and so on: 48 and 16. A linear layer has 16 heads for queries and keys and 48 for values, each of 128. A convolution over 4 tokens is new. What these fields don't say: how the state is changed, what the convolution does, that the full layers have a gate, and that all norms but one of a linear layer are zero-centred. For that you need the paper (Yang, Kautz and Hatamizadeh, *Gated Delta Networks*, 2024, arXiv 2412.06464) and the reference's code (`qwen3_5` in transformers).
#
# ## Attention without its softmax is a state
#
# Take attention without the softmax. The output of the last token is $\sum_j (q \cdot k_j)\, v_j$. That can be put in brackets in another way: $q$ times the matrix $S = \sum_j k_j v_j^T$. The matrix can be summed while the text is read, one token at a time, and nobody needs the single keys and values any more. Are both the same?

# %% id="4c3c4e7b"
torch.manual_seed(0)
q, k, v = (torch.randn(6, 4, dtype=torch.float64) for _ in range(3))  # 6 tokens, 4 channels
by_attention = (q @ k.T).tril() @ v  # [6, 4]: every token with every earlier one
S = torch.zeros(4, 4, dtype=torch.float64)
for key, value in zip(k, v, strict=True):
    S = S + torch.outer(key, value)  # the whole memory, after each token
print("the last token:", by_attention[-1].numpy().round(4), (q[-1] @ S).numpy().round(4))
print("numbers kept after 6 tokens:", k.numel() + v.numel(), "in a cache,", S.numel(), "in the state")

# %% [markdown] id="279acff0"
# The same. This is linear attention in its simplest form (Katharopoulos et al., 2020, also pass queries and keys through a positive function and divide by the sum of the weights). Its work grows with the length of the text and not with its square, and what it keeps does not grow at all.
#
# Read the state as a memory: writing adds $k v^T$, reading multiplies by a query. If the keys for *Anne* and for *Captain Wentworth* are orthogonal, a query that equals Anne's key finds Anne's value and nothing of the captain's. In 4 channels there are 4 orthogonal keys. A fifth key is not orthogonal to all of them, so a query for it also returns a little of the other values.
#
# What the softmax did is lost: it made the weights of all tokens sum to 1, and let one key win. The rest of this lesson is about what was put in its place.
#
# ## A key that knows its neighbour
#
# Attention layers have to find out by themselves what stood *before* a word. Say a text has "Anne ... 27", and later asks "Anne ... ?". The token "27" has to be found by *Anne*, so it must be stored under the key of the token before it. Full attention needs two layers for that: one that copies the previous token's vector, and one that looks it up. A linear layer has a cheaper way: a *short convolution* over queries, keys and values, in which each channel of a token is mixed with the same channel of the three tokens before it.
#
# Here are 6 pairs, told one after the other, k1 v1 k2 v2 and so on. The state is written once with each token's own vector as its key, and once with a convolution of 2 over the keys, whose weights take the token before. Queries and values stay as they are. With the convolution all 6 values are found. How many without it?

# %% prediction="linear_attention.own_vector" id="prediction-linear_attention-own_vector"
predict(
    "linear_attention.own_vector", "values of 6 that are found without the convolution",
    guess=...
)

# %% id="d0b3edb3"
torch.manual_seed(0)
words = F.normalize(torch.randn(12, 32), dim=-1)  # [12, 32]: 6 keys and 6 values in turn
shifted = F.pad(words, (0, 0, 1, 0))[:-1]  # what a convolution with the weights (1, 0) gives
for name, keys in (("its own vector", words), ("the token before", shifted)):
    S = keys.T @ words  # every token, written under that key
    found = (words[::2] @ S) @ words.T  # [6, 12]: what each key finds, compared with all words
    right = (found.argmax(dim=-1) == torch.arange(1, 12, 2)).sum()
    print(f"key: {name:>16}, {right} of 6 values found")
    if name == "its own vector":
        without = right
measured("linear_attention.own_vector", without)

# %% [markdown] id="d41455dd"
# <details><summary>What the numbers say</summary>
#
# None. With its own vector as its key, each word finds itself. The convolution moves the keys by one token, and no layer of attention was needed. (In a trained model the weights are learned for every channel, and the pattern is not that clean.)
# </details>

# %% [markdown] id="683669aa"
# ## Step 6 · Code it up
#
# ### Exercise 1 · A short convolution
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The convolution is *depthwise* (each channel by itself) and *causal* (no token sees a later one). For the next token it needs the last kernel - 1 inputs, so a linear layer keeps those too, beside its matrix. A call may bring any number of tokens: a prompt, one token, a draft of three, or none. After a call with one token, all but one of the inputs that you keep come from the old state.
#
# <details><summary>Hint 1</summary>
#
# Put the state in front of x, along the axis of tokens. Then every token has all that it needs, and `inputs[:, i : i + T]` is the input i places into the window, for all T tokens at once.
#
# <details><summary>Hint 2</summary>
#
# In the inputs with the state in front, which rows are the last kernel - 1? `inputs[:, T:]`, whatever T is. A slice is a view: it keeps all of `inputs` in memory. `clone` makes a tensor of its own.
# </details>
# </details>

# %% exercise="linear_attention.conv" id="linear_attention-conv"
class ShortConv(nn.Module):
    """Mix each channel of a token with the same channel of the kernel - 1 tokens before it, then silu.

    y_t = silu(sum over i of weight[:, 0, i] * x_(t - kernel + 1 + i)): the last weight is that of token t itself. Before
    the first token of a text all inputs are 0. No bias, and no channel sees another.
    Part: weight, an nn.Parameter [channels, 1, kernel].
    x: [B, T, channels]; state: the kernel - 1 inputs before x, [B, kernel - 1, channels], or None at the beginning of a
    text -> y [B, T, channels], and the state for what follows: the last kernel - 1 inputs so far. It is a tensor of its
    own: the state that was given stays as it is, and no larger tensor stays in memory behind the new one. T may be 0.
    transformers: causal_conv1d_fn.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, kernel))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        B, T, C = x.shape
        kernel = self.weight.shape[-1]
        before = x.new_zeros(B, kernel - 1, C) if state is None else state
        inputs = torch.cat([before, x], dim=1)  # [B, kernel - 1 + T, C]
        mixed = sum(inputs[:, i : i + T] * self.weight[:, 0, i] for i in range(kernel))  # [B, T, C]
        return F.silu(mixed), inputs[:, T:].clone()
        ### END SOLUTION

# %% check="linear_attention.conv" tags=["nbval-ignore-output"] id="check-linear_attention-conv"
check("linear_attention.conv", ShortConv)

# %% [markdown] id="64064519"
# ## What should be forgotten?
#
# A sum never forgets. After 100,000 tokens the state is the sum of 100,000 products, and every query hears all of them. So the state is multiplied by a number between 0 and 1 before each token writes: $S = e^{g} S$. The number is computed from the token itself. At the end of a sentence a head can let go of it, and at a word like *and* keep everything.
#
# The form comes from Mamba-2: $g = -A \, \mathrm{softplus}(a + \mathrm{bias})$, where $a$ is computed from the token and $A = e^{A_{log}}$ is learned for each head. softplus(x) is $\log(1 + e^x)$: never negative, and nearly x where x is large. For $A = 1$, a bias of 0 and $a = 0$ half of the state is gone after one token. After how many with $a = -4$?

# %% prediction="linear_attention.half_life" id="prediction-linear_attention-half_life"
predict(
    "linear_attention.half_life", "tokens until half of the state is gone, with a = -4",
    guess=...
)

# %% id="42f69681"
for a in (2.0, 0.0, -4.0, -8.0):
    g = -F.softplus(torch.tensor(a))
    print(f"a = {a:4}: {g.exp():.4f} of the state stays, half is gone after {torch.log(torch.tensor(0.5)) / g:7.1f} tokens")
measured("linear_attention.half_life", torch.log(torch.tensor(0.5)) / -F.softplus(torch.tensor(-4.0)))

# %% [markdown] id="b0a67fdc"
# <details><summary>What the numbers say</summary>
#
# One token, and 38. The difference between a memory of a word and a memory of chapters is a few units of a; that is why the decay is kept as g, its logarithm, and in float32: $e^g$ = 0.9997 would be 1 in bfloat16, and nothing would ever be forgotten. And A is kept as its logarithm so that it is positive, whatever number is learned.
# </details>

# %% [markdown] id="d5ee7bcf"
# The second gate, $\beta = \mathrm{sigmoid}(b)$, says how much of what a token has to say is written.
#
# ### Exercise 2 · Two gates
# difficulty ●○○○○ · importance ●●●●● · 5 minutes
#
# <details><summary>Hint</summary>
#
# `F.softplus`. Written out as log(1 + exp(x)) it is inf for x = 100.
# </details>

# %% exercise="linear_attention.gates" id="linear_attention-gates"
def gates(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    """How much of its state each head keeps, and how far it writes.

    g = -exp(A_log) * softplus(a + dt_bias), in float32: the logarithm of the share that stays. beta = sigmoid(b).
    a, b: [B, T, H]; A_log, dt_bias: [H] -> g, float32, and beta, both [B, T, H].
    Yang et al. (2024), arXiv 2412.06464, section 3.1; the form of g is Mamba-2's.
    """
    ### BEGIN SOLUTION
    g = -A_log.float().exp() * F.softplus(a.float() + dt_bias.float())
    return g, b.sigmoid()
    ### END SOLUTION

# %% check="linear_attention.gates" tags=["nbval-ignore-output"] id="check-linear_attention-gates"
check("linear_attention.gates", gates)

# %% [markdown] id="ff5eddb0"
# ## What if a key comes again?
#
# In chapter 3 Anne is in Kellynch, in chapter 13 she is in Lyme. The same key, with another value. What does the sum find for it after both were written, and what would you like it to find?

# %% id="177e96a2"
anne = F.normalize(torch.tensor([1.0, 2.0, 2.0]), dim=0)
kellynch, lyme = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
by_sum = torch.outer(anne, kellynch) + torch.outer(anne, lyme)
by_delta = torch.outer(anne, kellynch)
by_delta = by_delta + torch.outer(anne, lyme - anne @ by_delta)  # write what is missing
print("the sum finds  ", (anne @ by_sum).tolist())
print("the delta rule:", [round(x, 6) for x in (anne @ by_delta).tolist()])

# %% [markdown] id="1a5f4634"
# The sum finds both. The *delta rule* first looks what the state has for this key, $S^T k$, and writes only what is missing, $v - S^T k$. With a key of length 1 it then finds exactly v. With $\beta$ below 1 it goes a part of the way. (It is one step of gradient descent on $\frac12 |S^T k - v|^2$, with the step size $\beta$: Widrow and Hoff, 1960. Such a state has been called *fast weights*: a small network that is trained while the text is read.)
#
# Both gates and the delta rule together are the *gated delta rule*:
#
# $$S \leftarrow e^{g_t} S, \qquad S \leftarrow S + k_t\, \big(\beta_t\, (v_t - S^T k_t)\big)^T, \qquad o_t = S^T q_t$$
#
# Why must the key have length 1? With length 2 and $\beta = 1$ the state would be corrected by four times what is missing. Then three times as much is missing, with the other sign, and three times more each time the key comes again: it explodes. So Qwen3.5 divides queries and keys by their length. The query is also divided by $\sqrt{d_k}$, as in attention.
#
# ### Exercise 3 · The delta rule, token by token
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# The state is kept in float32, whatever the model computes in: it is read, changed and rounded at every token. (`wide` leaves float64 as it is, which will be useful for a comparison.) Decay first, then look, then write, then read. Gradients are checked, too: make new tensors, and change none in place.
#
# <details><summary>Hint 1</summary>
#
# `g[:, t, :, None, None]` is [B, H, 1, 1]: one number for each state [B, H, d_k, d_v].
#
# <details><summary>Hint 2</summary>
#
# $S^T k$ for all texts and heads: `torch.einsum("bhkv,bhk->bhv", state, k[:, t])`. The outer product: `k[:, t, :, :, None] * missing[:, :, None]`.
#
# <details><summary>Hint 3</summary>
#
# `state = state * ...` makes a new tensor; `state *= ...` changes the one that you were given. Somebody may still need it.
# </details>
# </details>
# </details>

# %% exercise="linear_attention.recurrent" id="linear_attention-recurrent"
def unit(x: Tensor) -> Tensor:
    """x / sqrt(sum(x^2) + 1e-6), the sum over the last axis: x of length 1. [..., d] -> [..., d]."""
    ### BEGIN SOLUTION
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-6)
    ### END SOLUTION


def recurrent_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated delta rule, one token after the other (Yang et al., 2024, arXiv 2412.06464, equation 10).

    For each head, with k = unit(k) and q = unit(q) / sqrt(d_k), and the state S as a matrix [d_k, d_v]:
    S = exp(g_t) S;  S = S + k_t (beta_t (v_t - S^T k_t))^T;  o_t = S^T q_t.
    All of it in float32 (`wide`), whatever the inputs are; the output is cast to v's dtype at the end, the state is not.
    q, k: [B, T, H, d_k], v: [B, T, H, d_v], g, beta: [B, T, H]; state: [B, H, d_k, d_v], or None for zeros; it stays as
    it is -> o [B, T, H, d_v], and the state after the last token. T may be 0.
    transformers: torch_recurrent_gated_delta_rule in qwen3_5.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, g, beta = (wide(tensor) for tensor in (q, k, v, g, beta))
    q, k = unit(q) * d_k**-0.5, unit(k)
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * g[:, t, :, None, None].exp()
        found = torch.einsum("bhkv,bhk->bhv", state, k[:, t])  # what the state has for this key
        missing = beta[:, t, :, None] * (v[:, t] - found)  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * missing[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.recurrent" tags=["nbval-ignore-output"] id="check-linear_attention-recurrent"
check("linear_attention.recurrent", recurrent_delta_rule)

# %% [markdown] id="600c847c"
# ## What does a state recall?
#
# Now the question from the top, by your own experiment. Write pairs of random keys and values, each of length 1, into an empty state, and then look each of them up. The error is the squared length of the difference: 0 if the value is found exactly, 1 if nothing is found, and more if there is more noise than value.
#
# Two random vectors of length 1 have a squared dot product of 1/d, on average. So by the sum every other pair adds 1/d to the error: after 128 pairs in a state of 32 x 32 it is about 4, far more than a value. By the delta rule, how large is it then?

# %% prediction="linear_attention.delta_error" id="prediction-linear_attention-delta_error"
predict(
    "linear_attention.delta_error", "mean error of the delta rule after 128 pairs in 32 x 32",
    guess=...
)

# %% [markdown] id="b726016e"
#
# ### Exercise 4 · What does a state recall?
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The check compares your mean with the exact expectation, for sizes that it draws anew. Loop over the pairs, and work on all `count` states at once.
#
# <details><summary>Hint 1</summary>
#
# `F.normalize(torch.randn(count, pairs, dim), dim=-1)` are keys of length 1. `unbind(1)` gives them pair by pair.
#
# <details><summary>Hint 2</summary>
#
# At the end, `keys @ state` looks up all pairs of all states: [count, pairs, dim].
# </details>
# </details>

# %% exercise="linear_attention.recall" id="linear_attention-recall"
def recall_error(dim: int, pairs: int, rule: str, count: int) -> float:
    """How much of a value is lost in a state that `pairs` pairs of keys and values were written into, one by one.

    Keys and values are random vectors of length 1, drawn anew for each of `count` states [dim, dim], zeros at first.
    rule "sum": S = S + k v^T. rule "delta": S = S + k (v - S^T k)^T. No gates.
    After the last pair, each of the pairs is looked up: S^T k. Returns |S^T k - v|^2, the mean over all pairs and states.
    """
    ### BEGIN SOLUTION
    keys = F.normalize(torch.randn(count, pairs, dim), dim=-1)
    values = F.normalize(torch.randn(count, pairs, dim), dim=-1)
    state = torch.zeros(count, dim, dim)
    for k, v in zip(keys.unbind(1), values.unbind(1), strict=True):  # 2 x [count, dim]
        found = torch.einsum("nkv,nk->nv", state, k) if rule == "delta" else 0
        state = state + k[:, :, None] * (v - found)[:, None]
    return (keys @ state - values).square().sum(dim=-1).mean().item()
    ### END SOLUTION

# %% check="linear_attention.recall" tags=["nbval-ignore-output"] id="check-linear_attention-recall"
check("linear_attention.recall", recall_error)

# %% tags=["nbval-ignore-output"] id="1ef56e6d"
from grader.instruments import plots

counts = (2, 4, 8, 16, 32, 64, 128)
curves = {rule: (counts, [recall_error(32, n, rule, 300) for n in counts]) for rule in ("sum", "delta")}
guessed = measured("linear_attention.delta_error", curves["delta"][1][-1])
marks = {"y1": "nothing is found"} | guessed.marks("y")
plots.lines(curves, plots.Axes("pairs written into a state of 32 x 32", "mean error", log="xy", marks=marks))

# %% [markdown] id="6def587a"
# <details><summary>What the numbers say</summary>
#
# By the sum the error is (n - 1) / d: every other pair adds 1/d. After d + 1 pairs it is as large as the value. The delta rule is better, 0.6 in place of 1 for 32 pairs and 1.5 in place of 4 for 128, but no miracle. So 128 x 128 numbers do not hold many random pairs: after 65 the sum's error is a half already.
# </details>

# %% [markdown] id="78f8008a"
# Now by age: which pairs are lost?

# %% id="2a1e6e67"
def memory_of(keys: Tensor, values: Tensor, rule: str) -> Tensor:
    """The states after all pairs, written one by one: 2 x [count, pairs, d] -> [count, d, d]."""
    S = torch.zeros(len(keys), keys.shape[2], values.shape[2])
    for i in range(keys.shape[1]):
        key, value = keys[:, i, :, None], values[:, i, None]  # [count, d, 1], [count, 1, d]
        S = S + key @ (value - key.mT @ S if rule == "delta" else value)
    return S


def random_vectors(pairs: int) -> Tensor:
    return F.normalize(torch.randn(200, pairs, 32), dim=-1)

# %% tags=["nbval-ignore-output"] id="6a29fe17"
torch.manual_seed(0)
keys, values = random_vectors(96), random_vectors(96)
ages = {}
for rule in ("sum", "delta"):
    lost = (keys @ memory_of(keys, values, rule) - values).square().sum(dim=-1)  # [200, 96]
    ages[rule] = lost.mean(dim=0).flip(0).tolist()  # the newest first
plots.lines({rule: (range(96), errors) for rule, errors in ages.items()}, plots.Axes("pairs written since", "mean error"))

# %% id="6f005594"
for rule, errors in ages.items():
    print(f"{rule:>6}:", ", ".join(f"{age} since {errors[age]:.1f}" for age in (0, 1, 8, 32, 95)))

# %% [markdown] id="5c1e6c9b"
# That is the difference. The sum treats all pairs alike: after 96 pairs each has an error of about 3, more noise than value. The delta rule finds the newest exactly and those just before it nearly. Its error grows with age: after 32 more pairs it is 1.3, worse than finding nothing. Each write erases what the state had in its key's direction. It is a memory of what came last. With the gates a model can choose what counts as last: a small $\beta$ writes little, and so erases little.
#
# Is a smaller error always better? Ask only *which* value it was: among the n values and n others, the one nearest to what is found. 32 keys are written once into a state of 32 x 32. Which rule is right more often?

# %% prediction="linear_attention.which" id="prediction-linear_attention-which"
predict(
    "linear_attention.which", "the rule that more often names the right value of 32 keys",
    one_of=("the delta rule", "the sum"),
    guess=...
)

# %% id="4f95424e"
def share_right(rule: str, pairs: int, again: bool) -> float:
    """How often the nearest of all values is the newest one of the key. again: each key is written twice."""
    torch.manual_seed(0)
    keys, values, stale = random_vectors(pairs), random_vectors(pairs), random_vectors(pairs)
    told = torch.cat([stale, values], dim=1) if again else values
    state = memory_of(keys.repeat(1, 2 if again else 1, 1), told, rule)
    nearest = ((keys @ state) @ torch.cat([values, stale], dim=1).mT).argmax(dim=-1)  # [200, pairs]
    return nearest.eq(torch.arange(pairs)).float().mean().item()

# %% id="065ea58d"
for again in (False, True):
    for pairs in (8, 32):
        shares = ", ".join(f"{rule} {share_right(rule, pairs, again):4.0%}" for rule in ("sum", "delta"))
        print(f"{pairs:2} keys, {'each with an old value before' if again else 'written once':>29}: {shares}")
by_sum, by_delta = (share_right(rule, 32, False) for rule in ("sum", "delta"))
measured("linear_attention.which", "the sum" if by_sum > by_delta else "the delta rule")

# %% [markdown] id="640ecd98"
# <details><summary>What the numbers say</summary>
#
# Written once, the sum is right more often, although its error is larger: for *which* it is, noise from all sides does less harm than a value that has been erased. Where every key has an old value and a new one, the sum can't tell them apart, and the delta rule gives the new one. So the delta rule is no larger memory. It is one in which a key can be written again, and that is what a text does all the time: where somebody is, what a variable holds, who *she* is.
# </details>

# %% [markdown] id="544fe5f4"
# ### And in a trained model?
#
# Your keys were random. A trained model chooses its keys and its gates. These are small models (two layers, two heads of 16, so a state of 16 x 16 for each head; `training/recall.py` in the course's repository has everything) that were trained on nothing but this task, *associative recall* (Arora et al., 2023): a text tells n pairs of a key and a value, and then each key is asked for. In the second measurement the n pairs are n / 2 keys, each told twice with different values, and the later value is right. Only half as many keys are asked for, so compare models within a measurement and not across the two. They differ in one line: how their layers remember. With 32 pairs that are told once, which say more than nine of ten values, as the mean of three seeds? (*full then linear*: the lower layer is the full one.)

# %% prediction="linear_attention.trained" id="prediction-linear_attention-trained"
predict(
    "linear_attention.trained", "models that say more than 90% of 32 values told once", some_of=(
        "full attention", "gated delta rule", "hybrid, full then linear", "hybrid, linear then full", "plain sum"
    ),
    guess=...
)

# %% id="5201464c"
import json

recall = json.loads(Path("texts/recall.json").read_text(encoding="utf-8"))
variants = list(dict.fromkeys(run["variant"] for run in recall["runs"]))


def mean_accuracy(variant: str, told: str) -> list[float]:
    """For each number of pairs, the share of values that were said, the mean of the seeds."""
    runs = [run[told] for run in recall["runs"] if run["variant"] == variant]
    return [sum(shares) / len(runs) for shares in zip(*runs, strict=True)]

# %% id="80b8bd73"
at = recall["pairs"].index(32)
for told, title in (("accuracy", "told once"), ("accuracy_told_again", "told again with other values")):
    print(f"32 pairs, {title}; each seed:")
    for variant in variants:
        shares = [run[told][at] for run in recall["runs"] if run["variant"] == variant]
        print(f"{variant:>26}:", " ".join(f"{share:5.0%}" for share in shares))
measured("linear_attention.trained", [name for name in variants if mean_accuracy(name, "accuracy")[at] > 0.9])

# %% tags=["nbval-ignore-output"] id="18cb513b"
charts = []
for told, title in (("accuracy", "told once"), ("accuracy_told_again", "told again")):
    curves = {variant: (recall["pairs"], mean_accuracy(variant, told)) for variant in variants}
    around = plots.Axes("pairs", "values said", title, log="x", xticks=recall["pairs"], ylim=(0, 1.05), size=(5, 3))
    charts.append(plots.lines(curves, around))
plots.beside(*charts)

# %% [markdown] id="0e8ce871"
# <details><summary>What the numbers say</summary>
#
# Two layers of full attention say nearly every value. The states keep 1,024 numbers in both layers together, whatever n is, where two caches of 32 pairs keep 8,192. With 32 pairs told once they miss between a tenth and a half of the values. Where keys are told again, the delta rule is ahead of the plain sum with every seed, as with random keys. Where they are told once, one seed of the sum is ahead of it and two are behind: a model that is trained finds keys of its own, and not every run finds good ones.
#
# The hybrids are the surprise. With the full layer below, one full layer and one linear say all of 32 values told once, and more than nine tenths with 32 pairs told again. With the full layer on top and 32 pairs told once, only one seed of three (80%) is clearly better than the gated delta rule alone (62% to 70%). Perhaps the other two would learn to use their full layer in more than 1,500 steps. So one full layer can serve the layers around it, and where it stands matters, at least in models that are as small as these.
# </details>

# %% [markdown] id="28e07685"
# ### How many layers must be full?
#
# Qwen3-Next, Qwen3.5 and Kimi Linear all keep one layer of four, and `austen-qwen3.5` two of eight. Is a quarter special? The smallest model in which one can try has four layers. These have none, one or two full layers, and the gated delta rule in the others. They learned the same task from two seeds each, with less training than the models above (1,200 steps in place of 1,500, half as many tokens in each; `python training/recall.py ratios`). With 16 pairs told once, which says most, as the mean of the seeds?

# %% prediction="linear_attention.ratios" id="prediction-linear_attention-ratios"
predict(
    "linear_attention.ratios", "the model of four layers that says most of 16 values told once", one_of=(
        "every second full", "none full", "the first full", "the last full", "the second full"
    ),
    guess=...
)

# %% id="d7018874"
ratios = json.loads(Path("texts/ratios.json").read_text(encoding="utf-8"))
at_16 = ratios["pairs"].index(16)
said: dict[str, list[float]] = {}
for run in ratios["runs"]:
    said.setdefault(run["variant"], []).append(run["accuracy"][at_16])
for variant, shares in said.items():
    print(f"{variant:>18}:", " ".join(f"{share:4.0%}" for share in shares))
measured("linear_attention.ratios", max(said, key=lambda variant: sum(said[variant])))

# %% [markdown] id="1f7dcfcc"
# <details><summary>What the numbers say</summary>
#
# With the first layer full all 16 values are said, with both seeds, and with 64 pairs still more than 99%. Of the others none stands out: one seed of a model says 89% and the other 40%, so two seeds can't tell these four apart. In these runs it did not matter how many layers are full, only whether the lowest one is. The likely reason: at the bottom attention gets each token with its neighbours, from the convolution, and then one lookup solves the task. Above a linear layer the same full layer was hardly learned to be used in so few steps.
#
# A full layer at the bottom has its price, too. Where keys are told again, its model says 82% and 88% with 16 pairs, and the others up to 94%: attention has no positions here, so it can't easily see which value is the later one, where the delta rule replaces the older.
#
# What this does not show is that a quarter is right, or that a full layer belongs at the bottom. These models have four layers and one task and learn for minutes. Qwen3.5 has the full layer as the last of each four, has RoPE in it, and was trained far longer on text, where there is more to learn than one lookup. How many layers must be full stays open here; that the answer can depend on where they stand is what to keep.
# </details>

# %% [markdown] id="003298a4"
# ## A place to stop for the day
#
# So far: attention without its softmax is a state; a short convolution gives keys their neighbours; two gates say what is kept and how much is written; the delta rule replaces what a key had. You have all the parts that make up the memory, one token at a time.
#
# Still to come: the same thing fast, the layer, the full layers and the model, trained weights, what can't be done with a state, what it costs, and two cousins.
#
# ## One token at a time is too slow
#
# Your loop does for each token a few operations on small tensors, one after the other. A prompt of 1,000 tokens is 1,000 times that, and a processor that could compute a thousand tokens in one product is idle most of the time. Full attention reads a prompt in a few large products. Can the delta rule?
#
# The trouble is that what token 3 writes depends on what the state has for its key, which tokens 1 and 2 have changed. But they change it in a known way. Within a chunk of C tokens, let $w_i$ be what token i writes: $w_i = \beta_i\,(v_i - S_{i}^T k_i)$, with $S_i$ the state after token i's decay and before its write. It consists of the state before the chunk, $S_0$, and of what the tokens before i have written:
#
# $$S_i = e^{G_i} S_0 + \sum_{j < i} e^{G_i - G_j}\, k_j w_j^T, \qquad G_i = g_1 + \dots + g_i$$
#
# Put that into the line above:
#
# $$w_i + \sum_{j < i} \beta_i\, e^{G_i - G_j} (k_i \cdot k_j)\, w_j = \beta_i \big(v_i - e^{G_i} S_0^T k_i\big)$$
#
# That is a system of C linear equations for the rows $w_i$, and it is triangular: the first row has one unknown, the second two. `torch.linalg.solve_triangular` solves it for a whole chunk. All else is products of matrices: the outputs, $o_i = e^{G_i} S_0^T q_i + \sum_{j \le i} e^{G_i - G_j} (q_i \cdot k_j)\, w_j$, and the state behind the chunk, $e^{G_C} S_0 + \sum_j e^{G_C - G_j}\, k_j w_j^T$.
#
# An example with two tokens, without decay and with $\beta = 1$: $w_1 = v_1 - S_0^T k_1$, and $w_2 = v_2 - S_0^T k_2 - (k_1 \cdot k_2)\, w_1$. The last term is what token 2 finds of what token 1 has just written.
#
# ### Why not the inverse?
#
# One could also compute the inverse of the matrix, as a sum of its powers: $(I + A)^{-1} = I - A + A^2 - \dots$, which ends, since A is triangular. Take 64 keys that are nearly the same, so that all entries of A below the diagonal are nearly 1. How large do the powers become, and how large is the inverse?

# %% tags=["nbval-ignore-output"] id="503629e8"
torch.manual_seed(0)
alike = F.normalize(torch.randn(8) + 0.02 * torch.randn(64, 8), dim=-1).double()
A = (alike @ alike.T).tril(-1)
largest = max(torch.linalg.matrix_power(A, n).abs().max().item() for n in range(1, 64))
print(f"the largest entry of the powers: {largest:.0e}, of the inverse: {torch.linalg.inv(torch.eye(64) + A).abs().max():.2f}")

# %% [markdown] id="52b7f95e"
# The inverse is small, and the powers reach $10^{17}$: in float32 their differences are noise. A row of equal tokens, such as blanks in a table, makes such keys. Solving from the first row to the last has no such trouble.
#
# ### Exercise 5 · A chunk at a time
# difficulty ●●●●● · importance ●●●●○ · 25 minutes
#
# Two functions: `one_chunk` for the equations, and around it a loop over chunks that hands on the state. The check counts the new tensors of a state's size that your code makes: a few for each chunk are fine, one for each token would be the loop again.
#
# A trap is in the decays. $e^{G_i - G_j}$ could be written as $e^{G_i} / e^{G_j}$, and as a product of two large matrices that is tempting. After a few strong decays $e^{G_j}$ is 0 in float32, and 0 / 0 is no number. Subtract first (<a href="https://github.com/pytorch/executorch/pull/21417">pytorch/executorch#21417</a>, <a href="https://github.com/tenstorrent/tt-metal/issues/56550">tenstorrent/tt-metal#56550</a>).
#
# <details><summary>Hint 1: the decays</summary>
#
# `total = g.cumsum(dim=-1)` is G. `total[..., :, None] - total[..., None, :]` is [C, C], row i and column j. Above the diagonal it is positive and may overflow: `tril` before `exp`, and once more after it.
#
# <details><summary>Hint 2: the equations</summary>
#
# Row i of the matrix is $\beta_i k_i \cdot k_j$ times the decay, below the diagonal. `solve_triangular(system, wanted, upper=False, unitriangular=True)` takes the diagonal for ones, whatever stands there.
#
# <details><summary>Hint 3: outputs and state</summary>
#
# A query reads what is left of $S_0$, and what the tokens up to its own have written: the same form as attention, with $w$ in place of the values. To the state behind the chunk, token j adds $e^{G_C - G_j} k_j w_j^T$.
# </details>
# </details>
# </details>

# %% exercise="linear_attention.chunked" id="linear_attention-chunked"
def one_chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule for the C tokens of a chunk at once, in the inputs' dtype.

    q, k: [B, H, C, d_k], of length 1 and q scaled; v: [B, H, C, d_v]; g, beta: [B, H, C]; state: [B, H, d_k, d_v], the
    one before the chunk -> o [B, H, C, d_v], and the state behind the chunk.
    """
    ### BEGIN SOLUTION
    total = g.cumsum(dim=-1)  # [B, H, C]: from the start of the chunk to each token, it included
    between = (total[..., :, None] - total[..., None, :]).tril().exp().tril()  # [B, H, C, C]: from token j to token i
    weighted = beta[..., None] * k
    system = (weighted @ k.mT * between).tril(-1)  # the diagonal of ones is understood
    wanted = beta[..., None] * v - (weighted * total[..., None].exp()) @ state  # [B, H, C, d_v]
    written = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    outputs = (q * total[..., None].exp()) @ state + (q @ k.mT * between) @ written
    kept = k * (total[..., -1:] - total)[..., None].exp()  # [B, H, C, d_k]
    return outputs, state * total[..., -1, None, None].exp() + kept.mT @ written
    ### END SOLUTION


def chunked_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None, size: int = 64
) -> tuple[Tensor, Tensor]:
    """The same as `recurrent_delta_rule`, computed in chunks of `size` tokens: one state for each chunk, not each token.

    Arguments and results are those of `recurrent_delta_rule`; the last chunk may be shorter, and T may be 0.
    Yang et al. (2024), arXiv 2412.06464, section 3.3. transformers: torch_chunk_gated_delta_rule.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, g, beta = (wide(tensor).transpose(1, 2) for tensor in (q, k, v, g, beta))  # [B, H, T, ...]
    q, k = unit(q) * d_k**-0.5, unit(k)
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = [v[:, :, :0]]
    for start in range(0, T, size):
        parts = (tensor[:, :, start : start + size] for tensor in (q, k, v, g, beta))
        given, state = one_chunk(*parts, state)
        outputs.append(given)
    return torch.cat(outputs, dim=2).transpose(1, 2).to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.chunked" tags=["nbval-ignore-output"] id="check-linear_attention-chunked"
check("linear_attention.chunked", chunked_delta_rule)

# %% [markdown] id="440bfd41"
# Both forms are the same function. How far apart are their results in float64, and in float32? And which is faster on this machine, for 16 tokens and for 512?

# %% id="395070a3"
torch.manual_seed(0)
parts = [torch.randn(1, 300, 4, 16, dtype=torch.float64) for _ in range(3)]
parts += [-0.1 * torch.rand(1, 300, 4, dtype=torch.float64), torch.rand(1, 300, 4, dtype=torch.float64)]
for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
    given = [part.to(dtype) for part in parts]
    apart = (recurrent_delta_rule(*given)[0] - chunked_delta_rule(*given)[0]).abs().max().item()
    print(f"{dtype}: apart by less than {limit}: {apart < limit}")

# %% tags=["nbval-ignore-output"] id="471b920e"
from grader.instruments import clock

for T in (16, 512):
    given = [torch.randn(1, T, 8, 64) for _ in range(3)] + [-0.1 * torch.rand(1, T, 8), torch.rand(1, T, 8)]
    forms = {rule.__name__: partial(rule, *given) for rule in (recurrent_delta_rule, chunked_delta_rule)}
    spent = clock.in_turns(forms, 3)
    print(f"{T:4} tokens: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items()))

# %% [markdown] id="d8b30a80"
# In float64 they agree to more than ten digits: there is nothing approximate about chunks. In float32 they differ by rounding, so a model that reads a prompt in chunks and writes token by token has logits that differ a little from those of one pass, and in bfloat16 more than a little: 0.125 was reported (<a href="https://github.com/huggingface/transformers/issues/46190">huggingface/transformers#46190</a>).
#
# ## The layer
#
# How large a head's output is depends on what happened to its state: how often something was written in this direction, and how much of it is left. So each head's output is normed before it leaves, and multiplied by a gate that is computed from the token.
#
# ### Exercise 6 · A norm with a gate
# difficulty ●○○○○ · importance ●●●○○ · 5 minutes
#
# All other norms of the model are zero-centred. This one is not: its weight multiplies as it is. Mamba-2 has the two steps the other way round, first the gate and then the norm.

# %% exercise="linear_attention.norm" id="linear_attention-norm"
class GatedRMSNorm(nn.Module):
    """RMSNorm, then a gate.

    y = weight * x / sqrt(mean(x^2) + eps) * silu(gate). The norm comes first, and its weight is not zero-centred: it is
    multiplied as it is. Statistics and the gate's silu in float32; the result in x's dtype.
    Part: weight, an nn.Parameter [dim].
    x, gate: [..., dim] -> [..., dim]. transformers: Qwen3_5RMSNormGated.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(dim=-1, keepdim=True) + self.eps)  # [..., dim]
        return (self.weight * normed * F.silu(gate.float())).to(x.dtype)
        ### END SOLUTION

# %% check="linear_attention.norm" tags=["nbval-ignore-output"] id="check-linear_attention-norm"
check("linear_attention.norm", GatedRMSNorm)

# %% [markdown] id="0ef52ed7"
# ### Exercise 7 · The layer
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Now put it together: four projections of x, the convolution over queries, keys and values side by side, both gates, the rule, the norm, and a projection back.
#
# ![Qwen3.5's linear layer from x up: projections to queries, keys and values, a short convolution over them, queries and keys normed; two gates; the delta rule reads and writes a state of 128 x 128 for each of 48 heads; a norm with a gate; out_proj.](figures/qwen3.5-27b-attention.svg)
#
# The picture writes the state transposed, as [d_v, d_k]: its $S q$ is our $S^T q$. There are more value heads than key heads: Qwen3.5 27B has 48 and 16. Each key head serves *neighbouring* value heads, as in GQA, only the other way round: there queries are many and keys and values few, here values are many, since each of them has a state.
#
# The cache of this layer is a `LayerState` with both states. The layer reads it, and puts new tensors in their places. One token goes through the recurrence, and several go through chunks, **from the state that is there**: a second message, or a draft to verify, is several tokens that come after others. That is where transformers' own first version started from an empty state (<a href="https://github.com/huggingface/transformers/issues/45513">huggingface/transformers#45513</a>).
#
# Texts of different lengths are padded on the left. In attention a mask hides padding. A state has no mask: what is written is written, and through the convolution padding reaches the first real tokens (<a href="https://github.com/AI-Hypercomputer/maxtext/pull/5295">AI-Hypercomputer/maxtext#5295</a>). So x is set to 0 there: without biases, queries, keys and values are then 0, and nothing is written.
#
# <details><summary>Hint 1</summary>
#
# `mixed.split([keys, keys, values], dim=-1)`, then `view(B, T, heads, width)`. `repeat_interleave(n, dim=2)` repeats each head n times in a row; `repeat` would go through all heads n times.
#
# <details><summary>Hint 2</summary>
#
# `cache = LayerState() if cache is None else cache` saves you two branches.
# </details>
# </details>

# %% exercise="linear_attention.delta_net" id="linear_attention-delta_net"
class GatedDeltaNet(nn.Module):
    """Qwen3.5's linear attention.

    Parts: in_proj_qkv (D -> queries, keys, values, side by side), in_proj_z (D -> v_heads * d_v), in_proj_b and
    in_proj_a (D -> v_heads), all nn.Linear without bias; conv1d, a ShortConv over queries, keys and values; A_log and
    dt_bias, nn.Parameters [v_heads]; norm, a GatedRMSNorm(d_v, rms_norm_eps); out_proj (v_heads * d_v -> D).
    Sizes: linear_num_key_heads and linear_num_value_heads, linear_key_head_dim (d_k), linear_value_head_dim (d_v),
    linear_conv_kernel_dim. Queries have as many heads as keys; each is used by v_heads / k_heads neighbouring v heads.
    The gates come from a = in_proj_a(x) and b = in_proj_b(x), the norm's gate from in_proj_z(x).
    x: [B, T, D], new tokens; cache: a LayerState, which is read and then gets new tensors, the new states, or None;
    mask: [B, T] bool, False where a text is padded on its left: there x counts as 0 -> [B, T, D].
    transformers: Qwen3_5GatedDeltaNet.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.k_heads, self.v_heads = config.linear_num_key_heads, config.linear_num_value_heads
        self.d_k, self.d_v = config.linear_key_head_dim, config.linear_value_head_dim
        D, keys, values = config.hidden_size, self.k_heads * self.d_k, self.v_heads * self.d_v
        self.sizes = [keys, keys, values]
        self.in_proj_qkv = nn.Linear(D, sum(self.sizes), bias=False)
        self.in_proj_z = nn.Linear(D, values, bias=False)
        self.in_proj_b = nn.Linear(D, self.v_heads, bias=False)
        self.in_proj_a = nn.Linear(D, self.v_heads, bias=False)
        self.conv1d = ShortConv(sum(self.sizes), config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.zeros(self.v_heads))
        self.dt_bias = nn.Parameter(torch.ones(self.v_heads))
        self.norm = GatedRMSNorm(self.d_v, config.rms_norm_eps)
        self.out_proj = nn.Linear(values, D, bias=False)
        ### END SOLUTION

    def forward(self, x: Tensor, cache: LayerState | None = None, mask: Tensor | None = None) -> Tensor:
        ### BEGIN SOLUTION
        B, T, _ = x.shape
        cache = LayerState() if cache is None else cache
        if mask is not None:
            x = x * mask[..., None]
        mixed, cache.conv = self.conv1d(self.in_proj_qkv(x), cache.conv)
        q, k, v = mixed.split(self.sizes, dim=-1)
        q, k = (tensor.view(B, T, self.k_heads, self.d_k) for tensor in (q, k))
        q, k = (tensor.repeat_interleave(self.v_heads // self.k_heads, dim=2) for tensor in (q, k))
        v = v.view(B, T, self.v_heads, self.d_v)
        g, beta = gates(self.in_proj_a(x), self.in_proj_b(x), self.A_log, self.dt_bias)
        rule = recurrent_delta_rule if T == 1 else chunked_delta_rule
        read, cache.recurrent = rule(q, k, v, g, beta, cache.recurrent)
        z = self.in_proj_z(x).view(B, T, self.v_heads, self.d_v)
        return self.out_proj(self.norm(read, z).flatten(2))
        ### END SOLUTION

# %% check="linear_attention.delta_net" tags=["nbval-ignore-output"] id="check-linear_attention-delta_net"
check("linear_attention.delta_net", GatedDeltaNet)

# %% [markdown] id="e911a487"
# ### What a state can't do: go back
#
# A cache can be cut: the keys of the last three tokens are three rows, and without them it is as if those tokens had never been there. That is how a rejected draft is taken back in speculative decoding, where a small model guesses a few tokens and the large one checks them in one pass. It is also how two chats with the same beginning share its keys.
#
# Try it with your layer: read 12 tokens, then a draft of 3 that is rejected. Can you compute the state before the draft from the state behind it?

# %% id="a8ce4f16"
tiny = Config({"hidden_size": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
               "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-6})
torch.manual_seed(0)
layer = GatedDeltaNet(tiny).eval()
for name, parameter in layer.named_parameters():
    nn.init.normal_(parameter, mean=-4.0 if name == "A_log" else 0.0, std=0.4)  # a decay of a few percent a token
text, draft, rest = torch.randn(1, 12, 32), torch.randn(1, 3, 32), torch.randn(1, 4, 32)
with torch.no_grad():
    right = layer(torch.cat([text, rest], dim=1))[:, 12:]  # as if there had been no draft

# %% long="the three ways beside each other" id="525be612"
def after(restore) -> float:
    """How far the layer's output for the rest is from the right one, after a draft and what `restore` does then."""
    cache = LayerState()
    with torch.no_grad():
        layer(text, cache)
        kept = cache.conv, cache.recurrent  # two tensors; the layer puts new ones in their places
        layer(draft, cache)
        restore(cache, kept)
        return (layer(rest, cache) - right).abs().max().item()


def put_back(cache, kept):
    cache.conv, cache.recurrent = kept


def put_back_the_convolution(cache, kept):
    cache.conv = kept[0]


def nothing(cache, kept):
    pass


for restore in (nothing, put_back_the_convolution, put_back):
    print(f"{restore.__name__:>24}: right {after(restore) < 1e-5}")

# %% [markdown] id="d6458c0e"
# Only the last is right. The states behind the draft don't say what it wrote. With the draft's keys, values and gates each step could be inverted on paper, but that divides by $e^{g}$ and by $1 - \beta$: where a head forgot nearly everything, or replaced a value nearly completely, only rounding errors come back. So to go back you need a copy from *before* the draft: a snapshot of both states, in every linear layer. In Qwen3.5 27B that is 147 MiB for every point to which one may want to return, where a cache needs nothing.
#
# This is what engines stumble over. transformers' `crop` cut the convolution's state and left the recurrent one as it was (<a href="https://github.com/huggingface/transformers/issues/49036">huggingface/transformers#49036</a>). In mlx-lm speculative decoding refuses such models (<a href="https://github.com/ml-explore/mlx-lm/issues/1446">ml-explore/mlx-lm#1446</a>), and prompt caches were silently not used (<a href="https://github.com/ml-explore/mlx-lm/issues/1162">ml-explore/mlx-lm#1162</a>). And where two texts are packed into one row for training, a mask is not enough either: the state has to be emptied between them (<a href="https://github.com/NVIDIA-NeMo/Automodel/pull/2147">NVIDIA-NeMo/Automodel#2147</a>).
#
# The same holds for a shared beginning: a snapshot serves for exactly the length at which it was taken. Two chats that agree in 900 of 1,000 tokens share 900 tokens of a cache, and nothing of a state that was stored at 1,000.
#
# ## The fourth layer
#
# ### Exercise 8 · Attention with a gate
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# ![Qwen3.5's full attention from x up: q_proj gives a query and a gate for each of 24 heads; keys and values of 4 heads; norms on q and k, RoPE on a quarter of the channels; the softmax, and its output times the sigmoid of the gate; o_proj.](figures/qwen3.5-27b-attention-2.svg)
#
# Every fourth layer is Qwen3's attention, with two changes. Its output is multiplied by a gate before `o_proj`: a head that found nothing useful can be silent, which the softmax, whose weights sum to 1, does not allow. And RoPE turns a quarter of the channels; the others compare keys whatever their distance.
#
# The gates come out of `q_proj`, which is twice as wide. **For each head** it has the query first, then its gate. Split in two halves, heads 1 and later get parts of others' gates (<a href="https://github.com/llmmanorg/llmman/pull/16">llmmanorg/llmman#16</a>).
#
# <details><summary>Hint 1</summary>
#
# `view(B, T, -1, 2 * head_dim).chunk(2, dim=-1)`.
#
# <details><summary>Hint 2</summary>
#
# The mask for T new tokens and T_k keys: `torch.ones(T, T_k, dtype=torch.bool).tril(diagonal=T_k - T)`.
# </details>
# </details>

# %% exercise="linear_attention.attention" id="linear_attention-attention"
class GatedAttention(nn.Module):
    """Qwen3.5's full attention: Qwen3's, with a gate on its output and RoPE on some channels.

    Parts, nn.Linear without bias: q_proj (D -> heads * 2 * head_dim: for each head its query, then its gate), k_proj and
    v_proj (D -> KV heads * head_dim), o_proj (heads * head_dim -> D); q_norm and k_norm, the RMSNorm of lesson 04 over
    head_dim (rms_norm_eps). Only the first table.shape[-1] channels of queries and keys are rotated; the others stay.
    The output of the heads is multiplied by sigmoid(gate) before o_proj.
    x: [B, T, D], new tokens; table: [2, T, rotated channels]; cache: append(k, v) -> all keys, all values, the new ones
    last; or None -> [B, T, D]. transformers: Qwen3_5Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, self.head_dim = config.hidden_size, head_dim(config)
        H, KV = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(D, H * 2 * self.head_dim, bias=False)
        self.k_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.v_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.o_proj = nn.Linear(H * self.head_dim, D, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        ### BEGIN SOLUTION
        B, T, _ = x.shape
        q, gate = self.q_proj(x).view(B, T, -1, 2 * self.head_dim).chunk(2, dim=-1)  # 2 x [B, T, H, head_dim]
        q = self.q_norm(q).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        n = table.shape[-1]
        q, k = (torch.cat([apply_rope(t[..., :n], table), t[..., n:]], dim=-1) for t in (q, k))
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(diagonal=k.shape[2] - T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)  # [B, H, T, head_dim]
        return self.o_proj((mixed.transpose(1, 2) * gate.sigmoid()).flatten(2))
        ### END SOLUTION

# %% check="linear_attention.attention" tags=["nbval-ignore-output"] id="check-linear_attention-attention"
check("linear_attention.attention", GatedAttention)

# %% [markdown] id="9f72495a"
# ### Exercise 9 · The model
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# The layer is given. What is left is the model around it, with a cache of the right kind for each layer. A question with a trap: **at which position does the next token stand?** A state does not say how many tokens it has read. The cache of a full layer does: its length.
#
# <details><summary>Hint 1</summary>
#
# `next((cache.length for cache in caches or () if isinstance(cache, KVCache)), 0)`.
#
# <details><summary>Hint 2</summary>
#
# Where a model has no full layer, nothing in it needs a position: the order of tokens is in the states.
# </details>
# </details>

# %% tags=["setup"] long="one class, with its shapes" id="setup-4"
class DecoderLayer(nn.Module):
    """One layer; kind says which of the two it mixes tokens with. x: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: Config, kind: str):
        super().__init__()
        if kind == "linear_attention":
            self.linear_attn = GatedDeltaNet(config)
        else:
            self.self_attn = GatedAttention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        normed = self.input_layernorm(x)
        linear = hasattr(self, "linear_attn")
        x = x + (self.linear_attn(normed, cache) if linear else self.self_attn(normed, table, cache))
        return x + self.mlp(self.post_attention_layernorm(x))

# %% exercise="linear_attention.model" id="linear_attention-model"
class Model(nn.Module):
    """Qwen3.5 without its head.

    Parts: embed_tokens, layers (nn.ModuleList of DecoderLayer), norm (lesson 04's RMSNorm, with
    rms_norm_eps). layer_types(config) says
    which kind each layer is. rope_table makes the table for head_dim(config) * partial_rotary_factor channels;
    rope_theta and partial_rotary_factor are in config.rope_parameters.
    ids: [B, T] int64, new tokens; caches: what new_caches made, one for each layer, or None -> [B, T, D].
    transformers: Qwen3_5TextModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, kind) for kind in layer_types(config))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def new_caches(self) -> list[LayerState | KVCache]:
        """What the layers keep of a text that has no token yet: a LayerState for a linear one, a KVCache for a full one."""
        ### BEGIN SOLUTION
        return [LayerState() if kind == "linear_attention" else KVCache() for kind in layer_types(self.config)]
        ### END SOLUTION

    def forward(self, ids: Tensor, caches: list[LayerState | KVCache] | None = None) -> Tensor:
        ### BEGIN SOLUTION
        rope = self.config.rope_parameters
        start = next((cache.length for cache in caches or () if isinstance(cache, KVCache)), 0)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, int(head_dim(self.config) * rope["partial_rotary_factor"]), rope["rope_theta"])
        x = self.embed_tokens(ids)  # [B, T, D]
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x = layer(x, table, cache)
        return self.norm(x)
        ### END SOLUTION

# %% check="linear_attention.model" tags=["nbval-ignore-output"] id="check-linear_attention-model"
check("linear_attention.model", Model)

# %% [markdown] id="831c0754"
# Layer by layer against the reference:

# %% tags=["nbval-ignore-output"] id="00a10a9b"
compare_layers(Model)

# %% tags=["setup"] id="setup-5"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token: [B, T] -> [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, caches: list | None = None) -> Tensor:
        return self.lm_head(self.model(ids, caches))

# %% tags=["setup"] id="setup-6"
@torch.no_grad()
def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, piece: int = 0) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: each token is read once.

    ids: [1, T] int64, the prompt, which is read in pieces of `piece` tokens; 0: at once.
    """
    caches = model.model.new_caches()
    for part in ids.split(piece or ids.shape[1], dim=1):
        logits = model(part, caches)
    for _ in range(max_new_tokens):
        ids = logits[:, -1:].argmax(dim=-1)  # [1, 1]
        yield ids.item()
        logits = model(ids, caches)

# %% [markdown] id="cbc024f6"
# ## Step 12 · Trained weights: austen-qwen3.5
#
# `austen-qwen3.5` was trained for this course on five of Austen's novels, in Qwen3.5's form: eight layers, six of them linear and two full, 2.2 million parameters (`training/austen-qwen3.5.toml`). Your model must write the reference's text, token for token. The prompt is read at once, then in pieces of 7, then one by one: three ways through your code, of which the last never uses a chunk. Can the three texts differ?

# %% tags=["nbval-ignore-output"] id="b0db5d37"
austen = load_checkpoint("austen-qwen3.5")
writer = austen.build(CausalLM)
for name, piece in (("at once", 0), ("pieces of 7", 7), ("one by one", 1)):
    print(f"--- the prompt {name}")
    check_generation(writer, austen, generate=partial(generate, piece=piece))

# %% [markdown] id="1a5f7a00"
# They could: the logits differ in the last digits, and where two tokens are nearly tied, that decides. In these texts none is.
#
# ### How long does each head remember?
#
# The gates of a trained model say it. Read a page of *Persuasion*, which it was not trained on, and compute for every linear layer and head the median half-life: after how many tokens is half of the state gone? How long is that for the most patient of its 36 heads?

# %% prediction="linear_attention.patient" id="prediction-linear_attention-patient"
predict(
    "linear_attention.patient", "half-life of the most patient head of austen-qwen3.5", unit="tokens",
    guess=...
)

# %% id="eace226c"
from grader.instruments import patch

page = torch.tensor([austen.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids[:256]])
with torch.no_grad():
    calls = patch.calls_in(writer.model, page)
half_lives = {}
for number, kind in enumerate(layer_types(austen.config)):
    if kind == "linear_attention":
        net = writer.model.layers[number].linear_attn
        a, b = (calls[f"layers.{number}.linear_attn.{name}"].output for name in ("in_proj_a", "in_proj_b"))
        g, _ = gates(a, b, net.A_log.detach(), net.dt_bias.detach())  # [1, T, H]
        half_lives[number] = (torch.log(torch.tensor(0.5)) / g).median(dim=1).values[0].sort().values

# %% tags=["nbval-ignore-output"] id="d8c3204c"
for number, lives in half_lives.items():
    print(f"layer {number}: half-lives of its heads", " ".join(f"{life:8.1f}" for life in lives.tolist()), "tokens")
measured("linear_attention.patient", max(lives.max().item() for lives in half_lives.values()))

# %% [markdown] id="dc9385b6"
# <details><summary>What the numbers say</summary>
#
# In most heads half of the state is gone before the next token comes, and the most patient ones keep it for a few tokens. So this model's linear layers mostly look at the last few words, and what stands further back must come mainly from its two full layers. The likely reason is in `A_log`: before training A is drawn between 0 and 16 and the bias is 1, so nearly every head begins with a half-life below one token, and after 3,000 steps most still have one. How patient a model's heads are is not in its config: it has to be measured, as here.
# </details>

# %% [markdown] id="669d42bb"
# ## Step 13 · What it costs
#
# ### Exercise 10 · Bytes
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# A linear layer keeps the same for every text: a state for each value head, in float32, and the convolution's inputs. A full layer keeps a key and a value for each token. From which length on does the cache of Qwen3.5 27B's 16 full layers take more than the states of its 48 linear ones?

# %% prediction="linear_attention.even" id="prediction-linear_attention-even"
predict(
    "linear_attention.even", "the length at which Qwen3.5 27B's cache is as large as its states", unit="tokens",
    guess=...
)

# %% [markdown] id="9dbef211"
# <details><summary>Hint</summary>
#
# The convolution runs over queries, keys and values side by side: how many channels is that? For the length, divide and round up: `-(-a // b)`.
# </details>

# %% exercise="linear_attention.bytes" id="linear_attention-bytes"
def memory(config: Config, element_bytes: int = 2) -> tuple[int, int, int]:
    """The bytes that a model keeps of one text: of its linear layers, and for each token of its full layers.

    A linear layer keeps its state, [v_heads, d_k, d_v], in float32, and the last kernel - 1 inputs of its convolution
    over queries, keys and values. A full layer keeps a key and a value for each KV head. All but the state in
    numbers of element_bytes.
    Returns the bytes of all linear layers, which no token changes; the bytes that each token adds; and the first length
    at which the cache has at least as many bytes as the linear layers.
    """
    ### BEGIN SOLUTION
    kinds = layer_types(config)
    linear, full = kinds.count("linear_attention"), kinds.count("full_attention")
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = config.linear_num_value_heads * config.linear_value_head_dim
    state = 4 * config.linear_key_head_dim * values
    conv = element_bytes * (config.linear_conv_kernel_dim - 1) * (2 * keys + values)
    fixed = linear * (state + conv)
    per_token = element_bytes * full * 2 * config.num_key_value_heads * head_dim(config)
    return fixed, per_token, -(-fixed // per_token)
    ### END SOLUTION

# %% check="linear_attention.bytes" tags=["nbval-ignore-output"] id="check-linear_attention-bytes"
check("linear_attention.bytes", memory)

# %% id="2c3a24d3"
fixed, per_token, length = memory(new)
cache_before = 2 * 2 * old.num_hidden_layers * old.num_key_value_heads * head_dim(old)  # Qwen3 32B, for each token
print(f"Qwen3.5 27B: states {fixed / 2**20:.0f} MiB, and {per_token / 2**10:.0f} KiB a token; even at {length:,} tokens")
print(f"Qwen3 32B: {cache_before / 2**10:.0f} KiB a token; as much as Qwen3.5 27B at {fixed / (cache_before - per_token):,.0f} tokens")
for tokens in (500, 5_000, 50_000, 262_144):
    both = fixed + tokens * per_token
    print(f"{tokens:8,} tokens: {both / 2**30:6.2f} GiB in place of {tokens * cache_before / 2**30:6.2f}")
measured("linear_attention.even", length)

# %% [markdown] id="eaffc4fe"
# <details><summary>What the numbers say</summary>
#
# For a short text the states are the larger part: a hundred chats of 500 tokens each have a hundred times 147 MiB. It pays for long ones: at 262,144 tokens a quarter is left. (The course's atlas counts 155 MB, which is 148 MiB: transformers keeps four inputs of the convolution, of which three are needed.)
# </details>

# %% [markdown] id="73f0edd9"
# Qwen3-Next's states are half as large, and its 12 full layers have 2 KV heads each:

# %% id="380f6ff0"
for name in ("qwen3.5-27b", "qwen3-next-80b-a3b"):
    fixed, per_token, length = memory(configs[name])
    print(f"{name:>20}: {fixed / 2**20:5.1f} MiB, {per_token / 2**10:.0f} KiB a token, even at {length:,}")

# %% [markdown] id="3318157b"
# ### And time?
#
# A token of a linear layer does the same work after 10 tokens as after 10,000. A token of a full layer reads all keys. Count the multiply-adds of one token in `austen-qwen3.5`'s two kinds of layers, after texts of different lengths.

# %% id="437a872b"
from grader.instruments import work

linear, full = writer.model.layers[0].linear_attn, writer.model.layers[3].self_attn
D, KV, width = austen.config.hidden_size, austen.config.num_key_value_heads, head_dim(austen.config)
x = torch.randn(1, 1, D)
for before in (64, 256, 1024, 4096):
    cache, state = KVCache(), LayerState()
    cache.append(*torch.randn(2, 1, KV, before, width))
    table = rope_table(torch.tensor([before]), width // 4, 1e4)
    with torch.no_grad():
        linear(torch.randn(1, 8, D), state)  # 8 tokens or 4,096: the state is as large
        counts = [work.multiply_adds(partial(linear, x, state)), work.multiply_adds(partial(full, x, table, cache))]
    print(f"{before:5} tokens before: linear {counts[0]:9,}, full {counts[1]:9,}")

# %% [markdown] id="1c5af4b4"
# The linear layer's number stays, and the full layer's grows with every token before. With two of eight layers full, the work for a token of `austen-qwen3.5` still grows with the length, a quarter as fast as with eight full layers.

# %% [markdown] id="bacfd140"
# ## Two cousins
#
# Gated DeltaNet is one of a family. Each has a state that decays, is written and is read, and they differ in a few lines. You have written one; here are two more, each of which is in large models of 2026.
#
# ### Exercise 11 · Mamba-2
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Nemotron 3 Nano has 23 Mamba-2 layers, 6 of attention and 23 of experts. Its papers come from another field and have other letters: C is the query, B the key, x the value, and $\Delta$ (`dt`) a time step. In our letters:
#
# $$S \leftarrow e^{-A\, dt} S + k\, (dt\, v)^T, \qquad o = S^T q + D\, v$$
#
# One number, dt, decides both how much is forgotten and how much is written: whoever writes much forgets much. Nothing is subtracted: no delta rule. Queries and keys are taken as they are, and few of them serve many heads (*groups*). What Mamba-2 does around it (a convolution, a gated norm) you know.

# %% exercise="linear_attention.mamba2" id="linear_attention-mamba2"
def mamba2(
    q: Tensor, k: Tensor, v: Tensor, dt: Tensor, A_log: Tensor, dt_bias: Tensor, D: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mamba-2's recurrence, in the names of attention: its C is q, its B is k, its x is v (Dao and Gu, 2024, section 3).

    For each head, with dt = softplus(dt + dt_bias) and the state S as a matrix [d_k, d_v]:
    S = exp(-exp(A_log) dt_t) S + k_t (dt_t v_t)^T;  o_t = S^T q_t + D v_t. Queries and keys are taken as they are.
    All of it in float32 (`wide`); the output is cast to v's dtype at the end, the state is not.
    q, k: [B, T, G, d_k], each group for H / G neighbouring heads; v: [B, T, H, d_v], dt: [B, T, H]; A_log, dt_bias, D: [H];
    state: [B, H, d_k, d_v], or None for zeros; it stays as it is -> o [B, T, H, d_v], the state after the last token.
    T may be 0.
    transformers: mamba2_selective_state_update in nemotron_h, whose state is [B, H, d_v, d_k].
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, dt = (wide(tensor) for tensor in (q, k, v, dt))
    q, k = (tensor.repeat_interleave(H // tensor.shape[2], dim=2) for tensor in (q, k))
    dt = F.softplus(dt + dt_bias)  # [B, T, H]
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * (-A_log.exp() * dt[:, t])[:, :, None, None].exp()
        added = dt[:, t, :, None] * v[:, t]  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * added[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t]) + D[:, None] * v[:, t]
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.mamba2" tags=["nbval-ignore-output"] id="check-linear_attention-mamba2"
check("linear_attention.mamba2", mamba2)

# %% [markdown] id="19c0e356"
# ### Exercise 12 · Kimi's delta rule
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Kimi Linear (Moonshot, 2025) has the delta rule with a decay for *each channel of the key*, in place of one for each head: a head can keep what is written in some directions and let go of others. In code it is one index more. Its full layers have latent attention (lesson 05) without RoPE.

# %% exercise="linear_attention.kda" id="linear_attention-kda"
def kimi_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Kimi Delta Attention's recurrence (Kimi Team, 2025, arXiv 2510.26692, section 3): each channel of a key forgets at its own rate.

    The delta rule of `recurrent_delta_rule`, with beta = sigmoid(b) and a decay for each of the d_k channels:
    g = -exp(A_log) * softplus(f + dt_bias), [B, T, H, d_k]; S = diag(exp(g_t)) S before the rest.
    q, k, f: [B, T, H, d_k], v: [B, T, H, d_v], b: [B, T, H]; A_log: [H], dt_bias: [H, d_k]; state: [B, H, d_k, d_v], or
    None for zeros; it stays as it is -> o [B, T, H, d_v] in v's dtype, and the state after the last token, in float32.
    T may be 0.
    transformers: recurrent_kimi_delta_attention and KimiLinearForgetGate.
    """
    ### BEGIN SOLUTION
    dtype, (B, T, H, d_v), d_k = v.dtype, v.shape, k.shape[-1]
    q, k, v, f, b = (wide(tensor) for tensor in (q, k, v, f, b))
    q, k = unit(q) * d_k**-0.5, unit(k)
    g, beta = -A_log.exp()[:, None] * F.softplus(f + dt_bias), b.sigmoid()
    state = v.new_zeros(B, H, d_k, d_v) if state is None else wide(state)
    outputs = torch.zeros_like(v)
    for t in range(T):
        state = state * g[:, t, :, :, None].exp()
        found = torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        missing = beta[:, t, :, None] * (v[:, t] - found)  # [B, H, d_v]
        state = state + k[:, t, :, :, None] * missing[:, :, None]
        outputs[:, t] = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
    return outputs.to(dtype), state
    ### END SOLUTION

# %% check="linear_attention.kda" tags=["nbval-ignore-output"] id="check-linear_attention-kda"
check("linear_attention.kda", kimi_delta_rule)

# %% [markdown] id="acbb4eb9"
# With the same decay in all channels, Kimi's rule should give the same outputs as Qwen3.5's. Does it?

# %% id="a86221b5"
torch.manual_seed(0)
q, k = torch.randn(1, 9, 2, 6), torch.randn(1, 9, 2, 6)
v, a, b = torch.randn(1, 9, 2, 5), torch.randn(1, 9, 2), torch.randn(1, 9, 2)
A_log, dt_bias = torch.randn(2), torch.randn(2)
g, beta = gates(a, b, A_log, dt_bias)
ours, _ = recurrent_delta_rule(q, k, v, g, beta)
theirs, _ = kimi_delta_rule(q, k, v, a[..., None].expand(-1, -1, -1, 6), b, A_log, dt_bias[:, None].expand(-1, 6))
print("apart by less than 0.00001:", (ours - theirs).abs().max().item() < 1e-5)

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="410a3cad"
# ## What changed, and why
#
# | | what is kept of a text | how it is written | what is forgotten | why |
# |---|---|---|---|---|
# | softmax attention | every key and value | appended | nothing | any token can be found again, exactly |
# | linear attention | $S$, d x d a head | $S + k v^T$ | nothing, and all of it blurs | no cache, no square |
# | Mamba-2 (Nemotron 3) | $S$ | $e^{-A\,dt} S + k\,(dt\, v)^T$ | all directions alike, by token | old things fade |
# | Gated DeltaNet (Qwen3-Next, Qwen3.5) | $S$ | $e^{g} S$, then $+\; k\,\big(\beta (v - S^T k)\big)^T$ | by token, and what the key had | a key's new value replaces the old one |
# | KDA (Kimi Linear) | $S$ | $\mathrm{diag}(e^{g}) S$, then $+\; k\,\big(\beta (v - S^T k)\big)^T$ | by token and channel | some directions are kept longer than others |
# | every fourth layer full | both | both | | exact recall where it is needed |
#
# In code, from Qwen3.5's loop to Mamba-2's one line goes, the one that computes `found`, and three change: the decay (`-A * dt` in place of `g`), what is written (`dt * v` in place of `beta * (v - found)`) and the output (`+ D * v`). Before the loop, queries and keys are not normed. To Kimi's loop it is one line: `g[:, t, :, :, None]` in place of `g[:, t, :, None, None]`.
#
# ## The questions again
#
# <details><summary>What do three layers of four remember?</summary>
#
# A matrix for each head, into which every token writes a value under a key. It finds exactly what was written last, and less and less of what was written before: each write erases what has its direction, and the gate lets all of it fade.
# </details>
#
# <details><summary>In a state of 128 x 128, how many pairs can be found again?</summary>
#
# That depends on how exactly. By the sum the error is (n - 1) / 128 of the value's squared length: a half after 65 pairs, all of it after 129. By the delta rule the newest is exact, whatever came before, and the old ones fade. Where it is enough to name the right value, more fit: with 32 pairs in a state of 32 x 32 the sum named 98%.
# </details>
#
# <details><summary>What should happen when a key comes that has been there before?</summary>
#
# Its value should be replaced. The sum keeps both; the delta rule writes what is missing.
# </details>
#
# <details><summary>Why can a prompt be read in chunks, when each token depends on the state that the one before it left?</summary>
#
# What the tokens of a chunk write solves a triangular system of linear equations, whose matrix has the keys' dot products. It is exact.
# </details>
#
# <details><summary>Why is there a full layer at all?</summary>
#
# For exact recall. A cache has room for every pair; a state has not.
# </details>
#
# <details><summary>A draft of three tokens is rejected. What do you do?</summary>
#
# In full layers, cut three rows. In linear layers, put back both states from a copy made before the draft; they can't be recovered reliably from the states behind it.
# </details>
#
# <details><summary>From which length on does Qwen3.5 27B's cache take more bytes than its states?</summary>
#
# From 2,349 tokens on it takes at least as many.
# </details>
#
# ## Where to read on
#
# - Yang, Kautz and Hatamizadeh, *Gated Delta Networks: Improving Mamba2 with Delta Rule* (2024, arXiv 2412.06464): section 3.1 for the rule, 3.3 for chunks. Yang et al., *Parallelizing Linear Transformers with the Delta Rule over Sequence Length* (2024, arXiv 2406.06484), where the equations of a chunk come from.
# - Katharopoulos et al., *Transformers are RNNs* (2020, arXiv 2006.16236). Schlag, Irie and Schmidhuber, *Linear Transformers Are Secretly Fast Weight Programmers* (2021, arXiv 2102.11174): the delta rule, in words.
# - Dao and Gu, *Transformers are SSMs* (2024, arXiv 2405.21060): Mamba-2. Kimi Team, *Kimi Linear* (2025, arXiv 2510.26692).
# - Arora et al., *Zoology: Measuring and Improving Recall in Efficient Language Models* (2023, arXiv 2312.04927): associative recall.
# - In transformers: `Qwen3_5GatedDeltaNet`, `torch_chunk_gated_delta_rule` and `torch_recurrent_gated_delta_rule` in `models/qwen3_5/modeling_qwen3_5.py`; `NemotronHMamba2Mixer` in `nemotron_h`; `KimiLinearDeltaAttention` in `kimi_linear`; `LinearAttentionLayer` in `cache_utils.py`.
#
# ## If you want more
#
# With $\beta$ twice the sigmoid, a write can overshoot: $I - \beta k k^T$ then turns a direction around, and a state can count (OLMo Hybrid does so; Grazzi et al., 2024, arXiv 2411.12537). Change `gates` to return `2 * b.sigmoid()`, and let a state of one head tell whether the number of ones in a text is even. You are right when it does for a text of 1,000 tokens.
#
# Write `one_chunk` for Kimi's rule. The decay between two tokens now differs for each channel, so it does not fit into one [C, C] matrix. You are right when it agrees with `kimi_delta_rule` in float64.
#
# Keep a snapshot of all states every 64 tokens of a chat, and answer two questions about the same text from them. How many bytes is that, compared with the cache that it replaces?
