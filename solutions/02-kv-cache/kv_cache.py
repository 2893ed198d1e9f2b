# %% [markdown] id="ea809910"
# # 02 · KV cache: pay memory, save work
#
# **At which length does generating the next token cost more than reading the whole prompt did?**
#
# A model has read your prompt and now writes its answer, token by token. Guess after how many tokens a single new one costs more than all of the reading: with what lesson 01 built, and with a cache. You will count it, and then measure it.
#
# After this lesson you can
#
# - say which numbers a GPT computes again for every token, and which of them are worth keeping;
# - write a cache, and an attention that works with it whether a text comes at once, in pieces or token by token;
# - work out from a `config.json` how many bytes a conversation takes, and confirm it to the byte;
# - name the mistakes that a cache invites, and how each would show. Several of them show in no text.
#
# 100 to 120 minutes · difficulty ●●○○○ · you know GPT-2 (lesson 01); its code is given
#
# This is generation, step by step. Each step needs one new token from the model, and for that the model computes a row for every token that is drawn in colour. (The code of the drawing is folded.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="4e4ca95c"
import logging

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it announces its first start
import matplotlib.pyplot as plt

plt.rcParams.update({"figure.facecolor": "white", "figure.dpi": 90, "savefig.dpi": 90})

WORDS = ["Mr.", "Darcy", "was", "not", "so", "easily", "moved"]
RED, BLUE, WHITE = "#f3c1bd", "#9cc7ec", "white"


def draw_steps(axis, prompt: int, cached: bool) -> int:
    """One row of boxes for each step; returns how many rows the model computes in all."""
    computed = 0
    for step in range(len(WORDS) - prompt):
        length = prompt + step
        for place in range(length):
            new = step == 0 or place == length - 1
            colour = BLUE if new else (WHITE if cached else RED)
            computed += new or not cached
            axis.text(place, -step, WORDS[place], ha="center", va="center", fontsize=9,
                      color="black" if colour != WHITE else "#90a4ae",
                      bbox={"boxstyle": "round,pad=0.32", "facecolor": colour,
                            "edgecolor": "#78909c" if colour != WHITE else "#cfd8dc"})
        axis.annotate(WORDS[length], (length + 0.05, -step), (length - 0.48, -step), va="center", fontsize=9,
                      color="#2e7d32", arrowprops=None)
    axis.set(xlim=(-0.6, len(WORDS) + 0.1), ylim=(-3.6, 0.6))
    axis.axis("off")
    return computed


figure, axes = plt.subplots(1, 2, figsize=(11.5, 2.9), layout="constrained")
for axis, cached in zip(axes, (False, True), strict=True):
    rows = draw_steps(axis, 3, cached)
    title = f"with{'' if cached else 'out'} a cache: {rows} rows computed for 4 tokens"
    axis.set_title(title, fontsize=11, color="black")
figure.supxlabel(
    "blue: computed for the first time   red: computed again   white: kept in the cache"
    "   green: the result", fontsize=9, color="black",
)
plt.show()

# %% tags=["setup"] id="setup"
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint


# %% [markdown] id="5511098e"
# ## What you start from
#
# The whole of lesson 01, in seven cells: skim the names, and read `Attention` again, because you are going to change it.

# %% given="01-gpt2 gpt2.conv1d" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-conv1d"
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
        return F.linear(x, self.weight.T, self.bias)


# %% given="01-gpt2 gpt2.gelu" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-gelu"
class GELU(nn.Module):
    """The GELU in its tanh form, `gelu_new` in GPT-2's config.

    y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), element by element.
    x: [...] -> [...]. Hendrycks and Gimpel (2016), section 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
        return 0.5 * x * (1.0 + torch.tanh(inner))


# %% given="01-gpt2 gpt2.attention" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-attention"
class Attention(nn.Module):
    """Causal self-attention with several heads. Vaswani et al. (2017), section 3.2.

    For each head: softmax(q k^T / sqrt(head_dim) + mask) v; then the heads side by side, through c_proj.
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
        q, k, v = self.c_attn(x).split(D, dim=-1)  # 3 x [B, T, D]
        heads = (B, T, self.num_heads, self.head_dim)
        q, k, v = (t.view(heads).transpose(1, 2) for t in (q, k, v))  # 3 x [B, H, T, head_dim]
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5  # [B, H, T, T]
        future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)  # [T, T]
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, D)  # [B, H, T, head_dim] -> [B, T, D]
        return self.c_proj(mixed)


# %% given="01-gpt2 gpt2.mlp" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-mlp"
class MLP(nn.Module):
    """Two linear maps with a GELU in between, for each token by itself.

    Parts: c_fc (D -> inner), act, c_proj (inner -> D).
    inner is config's n_inner where there is a number, else 4 D.
    x: [B, T, D] -> [B, T, D]. transformers: GPT2MLP.
    """

    def __init__(self, config: Config):
        super().__init__()
        inner = config.get("n_inner") or 4 * config.n_embd
        self.c_fc = Conv1D(inner, config.n_embd)
        self.act = GELU()
        self.c_proj = Conv1D(config.n_embd, inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))  # [B, T, D] -> [B, T, inner] -> [B, T, D]


# %% given="01-gpt2 gpt2.block" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-block"
class Block(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of x and is added to x.

    Parts: ln_1, attn, ln_2, mlp; the norms with config.layer_norm_epsilon.
    x: [B, T, D] -> [B, T, D]. Radford et al. (2019), section 2.3. transformers: GPT2Block.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


# %% given="01-gpt2 gpt2.model" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-model"
class GPT2(nn.Module):
    """Token ids to the logits of the next token, at every position.

    Parts: wte and wpe (nn.Embedding), h (nn.ModuleList of Block), ln_f. The head's weight is wte's.
    Keeps the config as self.config.
    ids: [B, T] int64 -> [B, T, vocab_size], T <= config.n_positions. transformers: GPT2LMHeadModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        x = self.wte(ids) + self.wpe(positions)  # [B, T, D]
        for block in self.h:
            x = block(x)  # [B, T, D]
        return F.linear(self.ln_f(x), self.wte.weight)  # [B, T, vocab_size]


# %% given="01-gpt2 gpt2.generate" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-generate"
@torch.no_grad()
def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt. The model is given at most the last model.config.n_positions tokens.
    Ends after max_new_tokens, or once eos_token_id has been yielded.
    """
    for _ in range(max_new_tokens):
        logits = model(ids[:, -model.config.n_positions :])  # [1, T, vocab_size]
        next_id = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]
        token = next_id.item()
        yield token
        if token == eos_token_id:
            return
        ids = torch.cat([ids, next_id], dim=1)  # [1, T] -> [1, T + 1]


# %% [markdown] id="dfe156c0"
# ## What is computed again?
#
# `generate` hands the model the whole text for every new token, and uses one row of what comes back: the last. Take a trained model, give it 8 tokens, then the same 8 and one more. **Predict:** of the queries, keys and values that the last layer computes for the first 8 tokens, how many change because a ninth follows?

# %% id="bcf7309c"
austen = load_checkpoint("austen-gpt2")
uncached = GPT2(austen.config).eval()
austen.load_into(uncached)


def encode(text: str) -> Tensor:
    """The text's token ids: [1, T]."""
    return torch.tensor([austen.tokenizer.encode(text).ids])

# %% id="b14e2a4f"
from grader.instruments import patch


def queries_keys_values(ids: Tensor, layer: int) -> Tensor:
    """What a layer's c_attn gives: q, k and v of every token, side by side [T, 3 D]."""
    return patch.calls_in(uncached, ids)[f"h.{layer}.attn.c_attn"].output[0]

# %% id="b648648e"
text = encode("Mr. Darcy was not so easily moved to speak")[:, :9]
short, long = queries_keys_values(text[:, :8], 3), queries_keys_values(text, 3)  # [8, 3 D], [9, 3 D]
changed = ((short - long[:8]).abs() > 1e-5).sum().item()
print(f"{changed} of {short.numel():,} numbers change")

# %% [markdown] id="712fa816"
# None. The mask lets nobody see a later token, so nothing about a token can depend on what follows it, in any layer. Whoever computes it again gets what was there before.
#
# Which of those numbers does the *new* token need? Its query meets the keys of all tokens, and what it mixes are their values. It needs nobody's query but its own, and nothing at all of the other tokens' MLPs. So keep two things for each token and layer: **k and v**. Everything else about old tokens may be forgotten. That is the whole idea, and the reason why it is no "QKV cache".
#
# ### Exercise 1 · How much work?
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Count before you build. A product of an [n, a] matrix with an [a, b] matrix takes n · a · b multiply-adds. Add up the products of GPT-2 for `new` tokens that come after `past` tokens which need not be computed again:
#
# - in each layer, for each new token: `c_attn` (D to 3 D), attention's `c_proj` (D to D), and the MLP's two (D to `inner` and back);
# - in each layer, every new query meets the key of every token, old and new, in D channels (all heads together), and then mixes as many values. The masked scores count too: they are computed, and thrown away;
# - once, for each new token, the head: D to `vocab_size`.
#
# Norms, the softmax and GELU are no products; leave them out. What you get is compared with a count of the products that transformers' GPT-2 really makes, with its own cache.
#
# <details><summary>Hint 1</summary>
#
# Two kinds of work: what each new token costs by itself, however long the text is, and what it costs to look at the others. Only one of them has `past` in it.
#
# <details><summary>Hint 2</summary>
#
# How many keys does one query meet? It is the same number for all of the new queries, because the masked ones are not skipped.
#
# <details><summary>Hint 3</summary>
#
# A head has `head_dim` channels and there are `n_head` of them: all heads together make D multiply-adds for a pair of tokens, once for the scores and once for the values.
# </details>
# </details>
# </details>

# %% exercise="kv_cache.work" id="kv_cache-work"
def multiply_adds(config: Config, new: int, past: int = 0) -> int:
    """How many multiply-adds GPT-2's matrix products take for `new` tokens after `past` cached ones.

    config: n_layer, n_embd, vocab_size, and n_inner, the MLP's inner width (4 * n_embd where it is missing or None).
    The head is applied to every new token. Masked scores are computed too.
    """
    ### BEGIN SOLUTION
    D = config.n_embd
    inner = config.get("n_inner") or 4 * D
    matrices = 3 * D * D + D * D + 2 * D * inner  # of one layer, for one token
    attention = 2 * D * (past + new)  # of one layer, for one token: scores, then values
    head = D * config.vocab_size
    return new * (config.n_layer * (matrices + attention) + head)
    ### END SOLUTION

# %% check="kv_cache.work" tags=["nbval-ignore-output"] id="check-kv_cache-work"
check("kv_cache.work", multiply_adds)

# %% [markdown] id="36f5172c"
# Now GPT-2 XL, from its config. **Predict:** it has read 1,000 tokens and writes the next one. By what factor is that cheaper if the thousand need not be computed again? And over a whole answer of 1,000 tokens after a prompt of 24?

# %% id="215e8fb4"
xl = Config.read("configs/gpt2-xl.json")
print(f"{'tokens so far':>14} {'next, without':>18} {'next, with cache':>18} {'factor':>8}")
for length in (1, 10, 100, 1000):
    without, cached = multiply_adds(xl, length + 1), multiply_adds(xl, 1, past=length)
    print(f"{length:14,} {without:18,} {cached:18,} {without / cached:8,.0f}")

lengths = range(24, 1024)
without = sum(multiply_adds(xl, length) for length in lengths)
cached = multiply_adds(xl, 24) + sum(multiply_adds(xl, 1, past=length) for length in lengths[:-1])
print(f"the whole answer: {without:.2e} or {cached:.2e}, {without / cached:.0f} times less work")

# %% tags=["nbval-ignore-output"] id="51a5087c"
from grader.instruments import plots

places = torch.arange(1, 1025)
without = torch.tensor([multiply_adds(xl, n) for n in range(1, 1025)]).double()
cached = torch.tensor([multiply_adds(xl, 1, n) for n in range(1024)]).double()
charts = []
for title, a, b in (("next token", without, cached), ("all so far, one by one", without.cumsum(0), cached.cumsum(0))):
    around = plots.Axes("tokens in the text", "multiply-adds, GPT-2 XL", title, log="y", size=(5, 2.9))
    charts.append(plots.lines({"without a cache": (places, a), "with": (places, b)}, around))
plots.beside(*charts)

# %% [markdown] id="14389cc8"
# For a single token the factor is the number of tokens, nearly: 1,001 after a thousand. Over the whole answer it is 520, about half, because the text grows from 24 tokens to 1,024 and is half as long on average. The work for the next token stays almost what it was: a thousand tokens more add 10% to it, because there are more keys to meet. Note the word *almost*; it is where the later lessons begin.
#
# ## The cache
#
# ### Exercise 2 · A place for keys and values
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# One `KVCache` belongs to one layer. It is told at the start for how many tokens it has to have room (its *capacity*), takes that memory once, and fills it from the left. `append` takes the keys and values of new tokens, one or many, and gives back those of all tokens so far, the new ones last. The room is allocated already; what is missing is what happens in it.
#
# Three rules:
#
# - `length` is how many tokens are in the cache. Others will ask it, to know at which position the next token stands.
# - What `append` gives back are *views* of the cache's own memory. Nothing that is in there is ever copied.
# - More tokens than there is room for: a `ValueError` whose message has the capacity in it. The cache is then as it was before.
#
# <details><summary>Hint 1</summary>
#
# Tokens lie along the third of the four axes. `self.keys[:, :, a:b] = k` writes into a part of it, and `self.keys[:, :, :b]` is a view of a part.
#
# <details><summary>Hint 2</summary>
#
# You need two numbers: where the new tokens begin and where they end. One of them is known before anything is written. When may `self.length` change, at the earliest?
#
# <details><summary>Hint 3</summary>
#
# After a reset the old numbers may stay where they are. Why can nobody see them?
# </details>
# </details>
# </details>

# %% exercise="kv_cache.cache" id="kv_cache-cache"
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
        ### BEGIN SOLUTION
        capacity, end = self.keys.shape[2], self.length + k.shape[2]
        if end > capacity:
            raise ValueError(f"there is room for {capacity} tokens in this cache, and now there would be {end}")
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]  # 2 x [batch, heads, length, head_dim]
        ### END SOLUTION

    def reset(self) -> None:
        """Forget all tokens: ready for another text, in the same memory."""
        ### BEGIN SOLUTION
        self.length = 0
        ### END SOLUTION

# %% check="kv_cache.cache" tags=["nbval-ignore-output"] id="check-kv_cache-cache"
check("kv_cache.cache", KVCache)

# %% [markdown] id="16b93a80"
# ### Is the ValueError needed?
#
# PyTorch checks shapes; it would complain by itself, would it not? **Predict** what each of these two lines does, with room for four tokens.

# %% id="a2b07e94"
room = torch.zeros(1, 1, 4, 2)  # 4 tokens
for name, start, tokens in (("two tokens into the last place", 3, 2), ("one token after the last place", 4, 1)):
    try:
        room[:, :, start : start + tokens] = torch.ones(1, 1, tokens, 2)
        print(f"{name}: no error, and {int(room.sum())} numbers were written")
    except RuntimeError as error:
        print(f"{name}: RuntimeError: {str(error)[:72]}")

# %% [markdown] id="57047089"
# The second is the dangerous one, and it is what decoding does: one token a step. A slice past the end is empty, a single row broadcasts to any number of rows, none included, and so the token is dropped without a word. The model goes on and no longer knows what it wrote. Only a check of your own notices.
#
# ### Growing or taking all at once?
#
# Many programs have no capacity. They write `self.keys = torch.cat([self.keys, k], dim=2)`. The result is right. **Predict:** 2,048 tokens come one by one. How many bytes does each kind of cache copy in all, compared with the bytes that end up in it?

# %% tags=["nbval-ignore-output"] id="da401eb3"
class GrowingCache(KVCache):
    """A cache without a capacity: new, larger tensors at every step."""

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys = torch.cat([self.keys[:, :, : self.length], k], dim=2)
        self.values = torch.cat([self.values[:, :, : self.length], v], dim=2)
        self.length = self.keys.shape[2]
        return self.keys, self.values

# %% id="c0829d8e"
def fill(kind: type[KVCache], tokens: int) -> None:
    """Make a cache and append `tokens` tokens, one by one."""
    cache, k = kind(1, 12, tokens, 64), torch.ones(1, 12, 1, 64)
    for _ in range(tokens):
        cache.append(k, k)

# %% tags=["nbval-ignore-output"] id="2400465a"
from functools import partial

from grader.instruments import clock, work

print("tokens   kept        copied: growing      at once     ms a token: growing   at once")
for tokens in (256, 512, 1024, 2048):
    runs = [partial(fill, kind, tokens) for kind in (GrowingCache, KVCache)]
    copied = [work.bytes_copied(run) / 1e6 for run in runs]
    spent = [clock.milliseconds(run, repeats=1) / tokens for run in runs]
    kept = 2 * tokens * 12 * 64 * 4 / 1e6
    print(f"{tokens:6} {kept:6.1f} MB {copied[0]:15,.0f} MB {copied[1]:9.1f} MB {spent[0]:19.3f} {spent[1]:9.3f}")

# %% [markdown] id="34433f43"
# Taken at once, every number is written once. Grown, the whole cache is copied for every token: twice the tokens, four times the bytes, and half as many copies as tokens on average for each number. These are keys and values of *one* layer. (transformers' `DynamicCache` grows, because it can't know how long a text will be; its `StaticCache` does not.)

# %% [markdown] id="22bf5c41"
# ## Attention with a cache
#
# ### Exercise 3 · Prefill, decode, and everything between
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Reading the prompt is called *prefill*: many new tokens, nothing in the cache. Writing is called *decode*: one new token, many in the cache. A program that handles T new tokens after any number of old ones does both, and the third case as well: a long prompt that comes in chunks.
#
# Write `forward` anew. What changes: the keys and values are handed to the cache, and what comes back is attended to. Then the scores are no longer square, and the mask has to know who stands where. (Queries: the T new tokens. Keys: all of them, T_k. The last query and the last key are the same token.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="83913655"
masks = []
for title, old, new in (("prefill: 4 new", 0, 4), ("a chunk of 3 after 4", 4, 3), ("decode: 1 new after 6", 6, 1)):
    seen = [[key <= old + query for key in range(old + new)] for query in range(new)]
    masks.append(plots.squares(seen, WORDS[old : old + new], WORDS[: old + new], title, split=old))
plots.beside(*masks)

# %% [markdown] id="3b9e143d"
# `cache=None` means that there is none: then it is the attention of lesson 01. The check brings a cache of its own, so this exercise does not depend on yours.
#
# <details><summary>Hint 1: the order</summary>
#
# The cache wants [B, H, T, head_dim], so the heads are cut out first. Do queries go into it?
#
# <details><summary>Hint 2: the shapes</summary>
#
# q [B, H, T, head_dim] with k [B, H, T_k, head_dim] gives scores [B, H, T, T_k]. Where do you read T_k off?
#
# <details><summary>Hint 3: the mask</summary>
#
# Look at the middle picture. In the first row, how many keys come after the query's own? `triu` has an argument that moves its diagonal to the right; for a square it is 1.
#
# <details><summary>Hint 4: the fused kernel</summary>
#
# `F.scaled_dot_product_attention(..., is_causal=True)` lines its triangle up with the upper left corner, which is another mask as soon as T and T_k differ. It takes a mask of your own as `attn_mask`, True where a key may be seen.
# </details>
# </details>
# </details>
# </details>

# %% exercise="kv_cache.attention" id="kv_cache-attention"
class CachedAttention(Attention):
    """Lesson 01's attention for T new tokens that follow those in a cache. Parts and names are the same.

    cache: has append(k, v) -> all keys, all values, both [B, H, T_k, head_dim], the new ones last; or None.
    The last of the T queries is the last of the T_k keys; no query sees a later key.
    x: [B, T, D], the new tokens alone -> [B, T, D].
    """

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        B, T, D = x.shape
        ### BEGIN SOLUTION
        q, k, v = self.c_attn(x).split(D, dim=-1)  # 3 x [B, T, D]
        heads = (B, T, self.num_heads, self.head_dim)
        q, k, v = (t.view(heads).transpose(1, 2) for t in (q, k, v))  # 3 x [B, H, T, head_dim]
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, H, T_k, head_dim]
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5  # [B, H, T, T_k]
        later = 1 + k.shape[2] - T  # the first of the T queries may not see the keys from here on
        future = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).triu(diagonal=later)  # [T, T_k]
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)  # [B, H, T, T_k]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, D)  # [B, H, T, head_dim] -> [B, T, D]
        return self.c_proj(mixed)
        ### END SOLUTION

# %% check="kv_cache.attention" tags=["nbval-ignore-output"] id="check-kv_cache-attention"
check("kv_cache.attention", CachedAttention)

# %% [markdown] id="5338aa60"
# **Predict:** somebody leaves the mask as it was in lesson 01, `triu(diagonal=1)`. With which of the three pictures above does the result change? So which way of testing a cache would not notice?

# %% id="fbe70300"
def largest_error(new: int, old: int) -> float:
    """How much a mask that is lined up with the upper left corner changes attention's result."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, t, 16, generator=generator) for t in (new, old + new, old + new))
    upper_left = torch.ones(new, old + new, dtype=torch.bool).tril()
    lower_right = upper_left.new_ones(new, old + new).tril(diagonal=old)
    right, wrong = (F.scaled_dot_product_attention(q, k, v, attn_mask=m) for m in (lower_right, upper_left))
    return (right - wrong).abs().max().item()


for new, old in ((4, 0), (3, 4), (1, 6)):
    print(f"{new} new after {old}: {'wrong' if largest_error(new, old) > 1e-5 else 'the same'}")

# %% [markdown] id="b79d60bc"
# Prefill is right, so a test of the first token passes. In decode a new token sees the *first* token of the text and nothing else, not even itself. Further down you will see what a model writes that way.
#
# The block hands the cache on, and does nothing else that is new:

# %% tags=["setup"] id="setup-2"
class CachedBlock(Block):
    """Lesson 01's block; attention gets the cache of its layer."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.attn = CachedAttention(config)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))

# %% [markdown] id="e41e0c25"
# ### Exercise 4 · The model, and where it is
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Two methods.
#
# `new_cache` makes what a text needs: a `KVCache` for *each* layer, because each layer has keys and values of its own. GPT-2 has only `n_positions` rows of positions, so a capacity beyond that is refused at once, with a `ValueError`, and not after a thousand tokens.
#
# `forward` gets the new tokens only. Their *positions* are not 0, 1, 2 any more. This is the one thing in the whole model that a new token can't know by itself.
#
# <details><summary>Hint 1</summary>
#
# Who knows how many tokens came before? And when do you have to ask: before the blocks run, or after?
#
# <details><summary>Hint 2</summary>
#
# `[KVCache(...)] * 4` is a list that holds one and the same cache four times.
#
# <details><summary>Hint 3</summary>
#
# Which dtype and which device? Those of the weights: `self.wte.weight.dtype`, for one. And without a cache (`cache=None`) the text begins at position 0.
# </details>
# </details>
# </details>

# %% exercise="kv_cache.model" id="kv_cache-model"
class CachedGPT2(GPT2):
    """Lesson 01's GPT-2, which may be given a text piece by piece. Parts and names are the same."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.h = nn.ModuleList(CachedBlock(config) for _ in range(config.n_layer))

    def new_cache(self, batch: int, capacity: int) -> list[KVCache]:
        """Room for the keys and values of `batch` texts of up to `capacity` tokens: a KVCache for each layer.

        In the weights' dtype and on their device. Raises ValueError where capacity > config.n_positions.
        """
        ### BEGIN SOLUTION
        config, weight = self.config, self.wte.weight
        if capacity > config.n_positions:
            raise ValueError(f"{capacity} tokens, but this model has only {config.n_positions} positions")
        sizes = (batch, config.n_head, capacity, config.n_embd // config.n_head)
        return [KVCache(*sizes, dtype=weight.dtype, device=weight.device) for _ in range(config.n_layer)]
        ### END SOLUTION

    def forward(self, ids: Tensor, cache: list[KVCache] | None = None) -> Tensor:
        """ids: [B, T] int64, the new tokens -> [B, T, vocab_size], their logits; they follow those in the cache."""
        ### BEGIN SOLUTION
        start = cache[0].length if cache else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        x = self.wte(ids) + self.wpe(positions)  # [B, T, D]
        for layer, block in enumerate(self.h):
            x = block(x, cache[layer] if cache else None)  # [B, T, D]
        return F.linear(self.ln_f(x), self.wte.weight)  # [B, T, vocab_size]
        ### END SOLUTION

# %% check="kv_cache.model" tags=["nbval-ignore-output"] id="check-kv_cache-model"
check("kv_cache.model", CachedGPT2)

# %% [markdown] id="eca2afb1"
# Without a cache it must still be GPT-2, layer by layer:

# %% tags=["nbval-ignore-output"] id="0b413934"
compare_layers(CachedGPT2, open="none")

# %% [markdown] id="acd7292b"
# And with one it must be GPT-2 for *every* way of cutting a text into pieces. Four of them, on trained weights, against lesson 01's model that sees everything at once. **Predict:** will the differences be 0?

# %% tags=["nbval-ignore-output"] id="1de55486"
model = CachedGPT2(austen.config).eval()
austen.load_into(model)
novel = encode(
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any"
    " book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one."
)

# %% id="b80b1e82"
@torch.no_grad()
def in_chunks(model: CachedGPT2, ids: Tensor, chunks: list[int]) -> Tensor:
    """The logits of a text that comes in pieces: [1, T, vocab_size]."""
    cache = model.new_cache(1, ids.shape[1])
    return torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

# %% tags=["nbval-ignore-output"] id="f4cabb49"
T = novel.shape[1]
with torch.no_grad():
    whole = uncached(novel)  # [1, T, vocab_size]
print(f"{T} tokens, logits between {whole.min():.0f} and {whole.max():.0f}")
for name, chunks in {
    "all at once": [T], "in two halves": [T // 2, T - T // 2], "prefill, then one by one": [T - 20, *[1] * 20],
    "one by one": [1] * T,
}.items():
    got = in_chunks(model, novel, chunks)
    same = (got.argmax(-1) == whole.argmax(-1)).sum().item()
    print(f"{name:>24}: differs by at most {(got - whole).abs().max():.1e}, {same} of {T} next tokens the same")

# %% [markdown] id="69f19e34"
# ### Why not 0?
#
# Not because of the cache: what it gives back is what was put in. The reason is one row. A product of 100 rows with a matrix and a product of one row with the same matrix run through different kernels, and these add the same numbers up in another order.

# %% tags=["nbval-ignore-output"] id="3c36ead0"
generator = torch.Generator().manual_seed(0)
x, weight = torch.randn(100, 192, generator=generator), torch.randn(768, 192, generator=generator)
for rows in (1, 2, 10, 50):
    off = (F.linear(x, weight)[:rows] - F.linear(x[:rows], weight)).abs().max().item()
    print(f"the first {rows:2} of 100 rows, computed alone: differ by at most {off:.1e}")

# %% [markdown] id="46751340"
# Whether a given number of rows differs depends on the machine; that some do is normal everywhere. (Lesson 01's model and transformers' can agree to the last bit, because on one machine they ask the same kernels for the same shapes.) A cached model is held to a tolerance, not to equality.
#
# Does it matter? Only where two tokens are nearly as likely as each other. **Predict:** among 4,000 next tokens, how many does the cache change in float32? And in bfloat16, which keeps 8 bits of a number?

# %% tags=["nbval-ignore-output"] id="df7c3074"
import copy

random_ids = torch.randint(austen.config.vocab_size, (20, 200), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def both_ways(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The logits in a dtype without a cache, and with one, token by token: [20, 200, vocab_size] each."""
    rounded = copy.deepcopy(model).to(dtype)
    cache = rounded.new_cache(20, 200)
    cached = torch.cat([rounded(piece, cache) for piece in random_ids.split(1, dim=1)], dim=1)
    return rounded(random_ids).float(), cached.float()

# %% tags=["nbval-ignore-output"] id="665752c0"
for dtype in (torch.float32, torch.bfloat16):
    without, cached = both_ways(dtype)
    best = without.topk(2).values  # [20, 200, 2]
    margins = best[..., 0] - best[..., 1]
    flips = without.argmax(-1) != cached.argmax(-1)
    print(f"{dtype!s:>14}: logits differ by at most {(without - cached).abs().max():.1e};"
          f" smallest margin {margins.min():.1e}; {flips.sum()} of {flips.numel():,} tokens are others")

# %% tags=["nbval-ignore-output"] id="c15397b8"
if flips.any():  # in bfloat16
    place = tuple(flips.nonzero()[0].tolist())
    two = [logits[place].argmax().item() for logits in (without, cached)]
    for name, logits, chosen in zip(("without", "with"), (without, cached), two, strict=True):
        shown = ", ".join(f"{austen.tokenizer.decode([i])!r} {logits[place][i]:.4f}" for i in two)
        print(f"for example, {name:>7} a cache: {shown}: {austen.tokenizer.decode([chosen])!r}")

# %% [markdown] id="cdeca997"
# In float32 the differences are far smaller than nearly all margins, and a token changes only at a near-tie. In bfloat16 two logits are often *equal* or one rounding apart, and then the order of additions decides. Neither answer is wrong. So: compare tokens in float32, keep the margin, and call a difference a bug unless the margin explains it. `check_generation` does that.

# %% [markdown] id="5f06f404"
# ## Generate
#
# ### Exercise 5 · Read each token once
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The same loop as in lesson 01, and less of it: nothing is put together, because the cache holds the text. The model reads the prompt in the first step, and one token in every other.
#
# Each token is read once. The very last one need not be read at all, since nothing comes after it: T + `max_new_tokens` − 1 rows in all, and a cache with room for so many and no more.
#
# There is one thing that this loop can't do any more. Lesson 01 dropped the oldest tokens when the text grew beyond `n_positions`. Now every key and value in the cache was computed with its position added in; move the window by one, and all of them are wrong. So `new_cache` refuses, and that is right.
#
# <details><summary>Hint 1</summary>
#
# What the model is given in the next step is what it said in this one. Which shape must it have?
#
# <details><summary>Hint 2</summary>
#
# The check counts how many rows your model computes, and how many of them found room in the cache that you asked for. Where is the cache made: before the loop, or in it?
# </details>
# </details>

# %% exercise="kv_cache.generate" id="kv_cache-generate"
@torch.no_grad()
def generate_cached(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None
) -> Iterator[int]:
    """As `generate`, but the model reads every token once: T + max_new_tokens - 1 rows in all, and no more.

    model: model.new_cache(batch, capacity) makes a cache; model(new_ids, cache) gives the new tokens' logits.
    ids: [1, T] int64, the prompt; T + max_new_tokens - 1 <= config.n_positions.
    Ends after max_new_tokens, or once eos_token_id has been yielded.
    """
    ### BEGIN SOLUTION
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)
    for _ in range(max_new_tokens):
        logits = model(ids, cache)  # [1, T, vocab_size]; T is 1 after the first step
        ids = logits[:, -1].argmax(dim=-1, keepdim=True)  # [1, 1]
        token = ids.item()
        yield token
        if token == eos_token_id:
            return
    ### END SOLUTION

# %% check="kv_cache.generate" tags=["nbval-ignore-output"] id="check-kv_cache-generate"
check("kv_cache.generate", generate_cached)

# %% tags=["nbval-ignore-output"] id="d956d76e"
from grader.instruments import writing

prompt = "Every effort moves you"
written = writing.write(generate_cached(model, encode(prompt), 80), austen.tokenizer, prompt)

# %% [markdown] id="b83d661e"
# ### The same text as the reference
#
# What transformers wrote with these weights, without a cache: three prompts, 64 tokens each. Yours, with one:

# %% tags=["nbval-ignore-output"] id="87b49c8b"
check_generation(model, austen, generate=generate_cached)

# %% [markdown] id="649002bd"
# If transformers is installed here, also against its own cache, live, for as long a text as this model can read:

# %% tags=["nbval-ignore-output"] id="38964541"
from grader.instruments import reference

theirs = reference.model(austen.folder, eos_token_id=None)  # to the end of the positions, whatever is written
if theirs is not None:
    ids = encode("Anne could not immediately fall into a quotation again.")
    tokens = austen.config.n_positions - ids.shape[1]
    done, ours = reference.written(theirs, ids, tokens), list(generate_cached(model, ids, tokens))
    same = sum(a == b for a, b in zip(done, ours, strict=True))
    print(f"{same} of {tokens} tokens are those that transformers writes with its DynamicCache")

# %% [markdown] id="8fb3fb11"
# ### Three wrong caches
#
# Each of these programs raises no error, and gets the first new token right: the prompt is read at once, so nothing can go wrong yet. Then they differ.
#
# - *upper left*: the mask is lined up with the upper left corner. For a single new token that leaves the first key alone.
# - *never read*: the cache is filled, and attention goes on with the new keys only.
# - *from 0*: the positions begin at 0 again in every call.
#
# **Predict:** which of them write nonsense, and which could pass for right?

# %% tags=["nbval-ignore-output"] id="bdcb0084"
right_append = KVCache.append


def upper_left(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gives a single new token what such a mask would leave: the first key and value."""
    seen = right_append(self, k, v)
    return tuple(t[:, :, :1] for t in seen) if k.shape[2] == 1 else seen


def never_read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Is filled, and gives back what it was given."""
    right_append(self, k, v)
    return k, v

# %% id="ad0167ae"
def from_zero(positions: Tensor) -> Tensor:
    """A table of positions that begin at 0 in every call."""
    return F.embedding(positions - positions[0], model.wpe.weight)


WRONG = {
    "upper left": patch.replaced(KVCache, append=upper_left),
    "never read": patch.replaced(KVCache, append=never_read),
    "from 0": patch.replaced(model.wpe, forward=from_zero),
}

# %% tags=["nbval-ignore-output"] id="80b72af8"
def loss_in(chunks: list[int]) -> float:
    """The mean surprise at the passage's next tokens, read in such chunks, in nats."""
    return F.cross_entropy(in_chunks(model, novel, chunks)[0, :-1], novel[0, 1:]).item()


ids = encode("It is a truth universally acknowledged, that")
right = list(generate_cached(model, ids, 64))
print(f"     right: {austen.tokenizer.decode(right[:40])!r}")
print(f"{'':>12}loss on Persuasion {loss_in([T]):.2f}\n")

# %% tags=["nbval-ignore-output"] id="1d0ef004"
for name, change in WRONG.items():
    with change:
        tokens = list(generate_cached(model, ids, 64))
        losses = [loss_in(chunks) for chunks in ([T], [1] * T)]
    first = next((i for i, (a, b) in enumerate(zip(right, tokens, strict=True)) if a != b), 64)
    print(f"{name:>10}: {austen.tokenizer.decode(tokens[:40])!r}")
    print(f"{'':>12}differs from token {first} on; loss on Persuasion, read at once {losses[0]:.2f},"
          f" one by one {losses[1]:.2f}\n")

# %% [markdown] id="470f32ff"
# A model that has lost its memory writes nonsense, and you would notice. One that has only lost its place writes on: words, in the right style, repetitive, as the right model is too. A comparison shows it, or the loss of a text that is read *piece by piece*. Read at once, as a loss is usually measured, all three have the right model's loss: then the cache gives back just what was put in.
#
# GPT-2 itself, where it is on this machine or the hub can be reached (548 MB):

# %% tags=["nbval-ignore-output"] id="797cdf8e"
gpt2 = load_checkpoint("gpt2", optional=True)
if gpt2 is not None:
    gpt2_model = CachedGPT2(gpt2.config).eval()
    gpt2.load_into(gpt2_model)
    check_generation(gpt2_model, gpt2, generate=generate_cached)

# %% [markdown] id="1661d846"
# ## Time
#
# Now the clock. The model is a GPT-2 with random weights, six layers of 384 and 1,024 positions: large enough that products take most of the time. For each length n, three times are taken:
#
# - *reading*: a text of n tokens is read at once, as a prompt is;
# - *next, without*: one more token, everything computed again;
# - *next, with*: one more token, n in the cache.
#
# **Predict** the picture before you run the cell: which of the three curves lie on each other? And take out your guess from the start of the lesson.

# %% tags=["nbval-ignore-output"] id="488ab60c"
clocked = Config({"model_type": "gpt2", "vocab_size": 2048, "n_positions": 1024, "n_embd": 384,
                  "n_head": 6, "n_layer": 6, "layer_norm_epsilon": 1e-5})
torch.manual_seed(0)
timed = CachedGPT2(clocked).eval()

# %% id="09ed3712"
@torch.no_grad()
def reads(new: int, past: int = 0):
    """A function that reads `new` tokens after `past` cached ones."""
    cache = timed.new_cache(1, past + new) if past else None
    if cache:
        timed(torch.zeros(1, past, dtype=torch.int64), cache)

    def read() -> None:
        for layer in cache or []:
            layer.length = past  # back to where it was
        timed(torch.zeros(1, new, dtype=torch.int64), cache)

    return read

# %% tags=["nbval-ignore-output"] id="1eabae8c"
from grader.instruments import progress

lengths = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1023]
times = []
for n in progress.steps(lengths, "lengths"):
    runs = {"reading n": reads(n), "next, without": reads(n + 1), "next, with": reads(1, n)}
    times.append(clock.in_turns(runs, repeats=5 if n > 200 else 12))
reading, without, cached = ([row[name] for row in times] for name in runs)

# %% tags=["nbval-ignore-output"] id="35d8dd79"
print("     n   ms: reading n   next, without   next, with    "
      " multiply-adds, in millions: reading  without   with")
for n, a, b, c in zip(lengths, reading, without, cached, strict=True):
    counts = [multiply_adds(clocked, *what) / 1e6 for what in ((n,), (n + 1,), (1, n))]
    print(f"{n:6,} {a:15.1f} {b:15.1f} {c:12.2f} {counts[0]:41,.0f} {counts[1]:8,.0f} {counts[2]:6,.1f}")

# %% tags=["nbval-ignore-output"] id="85bd3885"
curves = {"reading n tokens": reading, "next token, without a cache": without, "next token, with": cached}
around = plots.Axes("tokens so far, n", "ms", log="xy", size=(5.2, 3.4))
by_clock = plots.lines({name: (lengths, ms) for name, ms in curves.items()}, around)
per_ms = multiply_adds(clocked, 512) / reading[lengths.index(512)]
counted = {
    "without: measured": (lengths, without),
    "with: measured": (lengths, cached),
    "without: counted": (range(1, 1024), [multiply_adds(clocked, n + 1) / per_ms for n in range(1, 1024)]),
    "with: counted": (range(1, 1024), [multiply_adds(clocked, 1, n) / per_ms for n in range(1, 1024)]),
}
print(f"counted: at the {per_ms / 1e6:.0f} million multiply-adds per ms that reading 512 tokens reached")
next_token = plots.Axes("tokens so far, n", "ms for the next token", log="y", size=(5.2, 3.4))
plots.beside(by_clock, plots.lines(counted, next_token))

# %% [markdown] id="0ac047d4"
# Without a cache the clock follows the count. With one it is nearly flat, and lies *above* its count: one row of work can't use the machine well. Every weight is fetched from memory for a single row, and a fixed price is paid for each of the calls that Python makes, where reading a prompt shares both among all its rows. That is why prefill and decode are measured apart everywhere (tokens per second of the one say nothing about the other), and why servers decode many conversations at once.
#
# ## The question
#
# *At which length does generating the next token cost more than reading the whole prompt did?*
#
# **Without a cache: at every length.** The prompt was n rows, and the next token takes n + 1. Except for the shortest texts, red lies on blue.
#
# **With a cache** the next token is one row that meets n keys. In the count, that is as much as the prompt only when the text has become enormous. For a prompt of P tokens, how long?

# %% id="d9d345e6"
def crossing(config: Config, prompt: int) -> int:
    """After how many tokens the next one takes more multiply-adds than reading the prompt did."""
    low, high = 0, 2**60
    while low < high:
        middle = (low + high) // 2
        enough = multiply_adds(config, 1, past=middle) > multiply_adds(config, prompt)
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


print(f"{'prompt':>8} {'GPT-2 XL: after':>20} {'the model above: after':>26}")
for prompt_length in (1, 2, 10, 100, 1000):
    print(f"{prompt_length:8,} {crossing(xl, prompt_length):20,} {crossing(clocked, prompt_length):26,}")

# %% tags=["nbval-ignore-output"] id="8a4342ad"
longest = cached[-1]
cheaper = [n for n, spent in zip(lengths, reading, strict=True) if spent < longest]
print(f"by the clock, the next token after {lengths[-1]:,} took {longest:.2f} ms:"
      f" more than reading a prompt of {max(cheaper, default=0)} tokens, less than one of"
      f" {min((n for n in lengths if n not in cheaper), default=0)}")

# %% [markdown] id="e490fdc6"
# For any prompt worth the name the answer is: at no length that the model can read. GPT-2 XL has 1,024 positions, and even for a prompt of 2 tokens the crossing lies ten times as far. The clock agrees: one token at the end of a long text takes as long as a prompt of one or two tokens, a handful perhaps on a busy machine, and not as long as a real one. But the crossing exists. After enough tokens attention is *all* of the cost, and it is the reading of keys and values that costs. Then a smaller cache is a faster model.

# %% [markdown] id="39168088"
# ## Memory
#
# What does it cost? **Predict:** GPT-2 XL, whose weights take 3.1 GB in bfloat16, reads a full 1,024 tokens. How large is the cache?
#
# ### Exercise 6 · Bytes from a config
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# For every token and layer: a key and a value, each `head_dim` numbers for every *key-value* head. Multiply it all up, for `context` tokens in each of `batch` texts.
#
# Configs come in two dialects. A GPT-2 (`model_type` is `gpt2`) has `n_layer`, `n_embd` and `n_head`, and every head has keys and values of its own. The others have `num_hidden_layers`, `hidden_size`, `num_attention_heads`, and perhaps `num_key_value_heads` and `head_dim`; where one of these two is missing, it is as in GPT-2: as many key-value heads as heads, and the width divided among the heads.
#
# <details><summary>Hint 1</summary>
#
# First find three numbers, layers, key-value heads and head_dim, in either dialect. Then there is one formula.
#
# <details><summary>Hint 2</summary>
#
# `config.get("head_dim")` is None where the field is missing or null. By how many heads is the width divided: by those of the queries, or by those of the keys?
# </details>
# </details>

# %% exercise="kv_cache.bytes" id="kv_cache-bytes"
def cache_bytes(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    """How many bytes the keys and values of `batch` texts of `context` tokens take, in all layers.

    2 * layers * key-value heads * head_dim * element_bytes, for each token.
    config: as in the hub's config.json; see above for what its fields are called and what holds without them.
    """
    ### BEGIN SOLUTION
    if config.model_type == "gpt2":
        layers, heads, head_dim = config.n_layer, config.n_head, config.n_embd // config.n_head
    else:
        layers = config.num_hidden_layers
        heads = config.get("num_key_value_heads") or config.num_attention_heads
        head_dim = config.get("head_dim") or config.hidden_size // config.num_attention_heads
    return 2 * layers * heads * head_dim * element_bytes * context * batch
    ### END SOLUTION

# %% check="kv_cache.bytes" tags=["nbval-ignore-output"] id="check-kv_cache-bytes"
check("kv_cache.bytes", cache_bytes)

# %% [markdown] id="cf73c494"
# A formula is a claim. Here is the measurement: make the caches, and count the bytes that their tensors occupy.

# %% id="a517a7f7"
for name, gpt, batch, tokens in (
    ("austen-gpt2, float32", model, 1, 256), ("austen-gpt2, bfloat16", copy.deepcopy(model).bfloat16(), 3, 100),
    ("the timed model", timed, 2, 1024),
):
    element = gpt.wte.weight.element_size()
    measured = work.bytes_held(gpt.new_cache(batch, tokens))
    formula = cache_bytes(gpt.config, tokens, batch, element)
    print(f"{name:>22}, batch {batch}, {tokens:5,} tokens: measured {measured:11,}  formula {formula:11,}")
    assert measured == formula

# %% [markdown] id="a8cfc4ab"
# To the byte. So the formula may speak for models that don't fit on this machine. In the next table "at 128k" means 131,072 tokens, a book, or an afternoon of an agent's work. GPT-2 XL could not read so much; it is there to show what its kind of attention would cost.

# %% id="7b534701"
models = {"GPT-2": "gpt2", "GPT-2 XL": "gpt2-xl",
          "Qwen3 0.6B": "qwen3-0.6b", "Qwen3 4B": "qwen3-4b", "Qwen3 8B": "qwen3-8b"}
configs = {name: Config.read(f"configs/{file}.json") for name, file in models.items()}
print(f"{'bfloat16':>12} {'a token':>12} {'1,024 tokens':>14} {'at 128k':>11} {'8 texts of 128k':>17}")
for name, config in configs.items():
    token, short, long, many = (cache_bytes(config, *n) for n in ((1,), (1024,), (131_072,), (131_072, 8)))
    print(f"{name:>12} {token / 1024:8.0f} KiB {short / 1e6:11.0f} MB {long / 1e9:8.2f} GB {many / 1e9:14.1f} GB")

# %% [markdown] id="20605244"
# 300 KiB for every token of GPT-2 XL, which makes 315 MB for its full 1,024 tokens: a tenth of its weights. At 128k its cache is 13 times its weights. Qwen3 4B has 2.6 times the parameters and *half* the cache per token, and here is why.
#
# ## Method 1: share keys and values
#
# ### Exercise 7 · Grouped queries with a cache
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# With grouped-query attention (GQA; Ainslie et al., 2023) there are fewer key-value heads than query heads: with 8 and 2, query heads 0 to 3 use key-value head 0, and heads 4 to 7 use head 1. Lesson 03 builds the rest of such a model; what concerns the cache is small, and easily got wrong in one way that no output shows.
#
# The heads are cut out already. Append, share, attend. The check looks at the result, and at what you put into the cache.
#
# <details><summary>Hint 1</summary>
#
# Most programs repeat each key-value head for the queries that use it, and go on as before. There are two places where the repeating could stand. Which of them makes the cache as large as if nothing were shared?
#
# <details><summary>Hint 2</summary>
#
# Copies of one head must stand next to each other: 0 0 0 0 1 1 1 1. PyTorch has two functions with similar names; one of them gives 0 1 0 1 0 1 0 1.
# </details>
# </details>

# %% exercise="kv_cache.grouped" id="kv_cache-grouped"
def grouped_attention(q: Tensor, k: Tensor, v: Tensor, cache: KVCache) -> Tensor:
    """Causal attention of T new tokens in which H / KV query heads share a key and value head.

    Each key and value head is kept once in the cache, and used by H / KV query heads that follow each other.
    softmax(q k^T / sqrt(head_dim) + mask) v for each head; the last query is the last key.
    q: [B, H, T, head_dim], k, v: [B, KV, T, head_dim], the new tokens' -> [B, H, T, head_dim].
    """
    ### BEGIN SOLUTION
    k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
    group = q.shape[1] // k.shape[1]  # how many query heads share a key and value head
    k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))  # 2 x [B, H, T_k, head_dim]
    T, T_k = q.shape[2], k.shape[2]
    seen = torch.ones(T, T_k, dtype=torch.bool, device=q.device).tril(diagonal=T_k - T)  # [T, T_k]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    ### END SOLUTION

# %% check="kv_cache.grouped" tags=["nbval-ignore-output"] id="check-kv_cache-grouped"
check("kv_cache.grouped", grouped_attention)

# %% [markdown] id="6d9252f1"
# What sharing saves is in the config. **Predict** both lines: a model of 32 layers, 4,096 wide, with 32 heads, at 32,768 tokens in bfloat16; once with 32 key-value heads, once with 8.

# %% id="eb8bf406"
wide = Config({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32})
for shared in (1, 2, 4, 8, 32):
    size = cache_bytes(wide.replace(num_key_value_heads=32 // shared), 32_768)
    name = {1: "MHA: every query head has its own", 32: "MQA: all share one"}.get(shared, f"GQA: {shared} share one")
    print(f"{name:>34}: {size / 1e9:6.2f} GB")

# %% [markdown] id="b7509091"
# 17.18 to 4.29 GB with four to a group. A chart in the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026) is for another model, of 48 layers, 2,048 wide, with 24 heads. Here it is, drawn to 131,072 tokens. (2,048 is not divisible by 24; whoever drew it must have taken the width as a whole, and so does this cell.)

# %% tags=["nbval-ignore-output"] id="f0d3381e"
contexts = [16_384 * n for n in range(9)]
curves = {}
for shared in (1, 2, 4, 8, 24):
    sizes = [2 * 48 * 2048 // shared * 2 * context / 1e9 for context in contexts]
    curves["MHA" if shared == 1 else f"{'MQA' if shared == 24 else 'GQA'}, {shared} share one"] = contexts, sizes
    print(f"{shared:2} query heads a key-value head: {sizes[-1]:6.2f} GB at 131,072 tokens")
named = {context: f"{context // 1024}k" for context in contexts}
plots.lines(curves, plots.Axes("context, tokens", "KV cache, GB (bfloat16, batch 1)", xticks=named))

# %% [markdown] id="7fdb1f11"
# ### To play with
#
# The same sums as in your `cache_bytes`, with everything to move: choose a model or paste a `config.json`, and change the heads, the context, the dtype. MLA and SWA are the subjects of lessons 05 and 06. **Predict** first: Qwen3 4B has 32 query heads on 8 key-value heads. With how many key-value heads would 131,072 tokens fit into 5 GB?

# %% tags=["nbval-ignore-output"] id="bdf9be90"
from grader.kv import kv_panel

kv_panel("Qwen3 4B", context=131_072)

# %% [markdown] id="6e0406a7"
# With two: 4.83 GB. Sharing lowers the line and leaves it a line: every token still adds its bytes. The two other ideas of this course change that. Lesson 05 (MLA) keeps a sketch of the keys and values and rebuilds them. Lesson 06 (sliding windows) stops keeping tokens that are far away. Their caches answer to the same two words as yours, `append` and `length`.
#
# ## What changed, and why
#
# | | without a cache | with a cache | what it costs |
# |---|---|---|---|
# | the model reads | the whole text, for every token | every token once | – |
# | work for token n | n rows | 1 row, which meets n keys | one row at a time uses a machine badly |
# | memory beside the weights | none that lasts | 2 · layers · heads · head_dim numbers a token | GPT-2 XL: 300 KiB a token |
# | positions | 0 to T − 1 | from `length` on | the model has to be told where it is |
# | mask | square | T × T_k, lined up at the lower right | one more thing to get wrong |
# | a text longer than `n_positions` | drop the oldest tokens | not possible: positions are inside the keys | RoPE and windows, later lessons |
# | result | – | the same up to rounding | near-ties may fall otherwise |
# | shared heads (GQA) | less work for k and v | the cache divided by the group | a little freedom |
#
# ## The questions again
#
# <details><summary>At which length does generating the next token cost more than reading the whole prompt did?</summary>
#
# Without a cache always: n + 1 rows against n. With one, by the count: only after a prompt of a single token. After one of 2 it would take ten times as many positions as GPT-2 XL has. By the clock: only after a prompt of a handful of tokens.
# </details>
#
# <details><summary>Why are keys and values kept, and no queries?</summary>
#
# A new token's query meets every key and mixes every value. Nobody ever asks an old query again.
# </details>
#
# <details><summary>Why may they be kept at all?</summary>
#
# Causality: what a token's key and value are does not depend on any later token, in any layer. A model that looks both ways (BERT) has no such cache.
# </details>
#
# <details><summary>Which mistake is right in prefill, raises no error in decode, and still writes sentences?</summary>
#
# The position that begins again at 0 in every call. The first token after the prompt is right, the others sound right. (The mask lined up at the upper left is right in prefill too, but what it writes is nonsense.)
# </details>
#
# <details><summary>Which mistake changes no output at all?</summary>
#
# A cache that is filled and not used, with everything computed again beside it. And repeated heads that are cached. Only a count of rows, or of bytes, shows them.
# </details>
#
# <details><summary>Why is a cached model not equal to the last bit, and what follows?</summary>
#
# One row goes through another kernel than many rows, and sums are added up in another order. Compare with a tolerance in float32, and look at the margin where a token differs.
# </details>
#
# <details><summary>How many bytes does a token take?</summary>
#
# 2 · layers · key-value heads · head_dim · bytes a number: 300 KiB in GPT-2 XL, 144 KiB in Qwen3 4B.
# </details>
#
# ## Where to read on
#
# - Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need* (2019): sections 2.3 and 3 count work and memory traffic of decoding, and share one key-value head among all.
# - Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints* (2023), section 2.
# - Pope et al., *Efficiently Scaling Transformer Inference* (2022), section 3: prefill and decode as two different machines' work. Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention* (2023): what to do when nobody knows the capacity beforehand.
# - The reference: `transformers/cache_utils.py`, `DynamicCache` and `StaticCache`; `models/gpt2/modeling_gpt2.py`, how `GPT2Model` finds its positions.
#
# ## If you want more
#
# In prefill the head is applied to every row, and `generate_cached` uses the last. For GPT-2 that is 38.6 million multiply-adds for each row that nobody reads. Give `forward` an argument that says for how many of the last rows logits are wanted, and count with `multiply_adds` what a prompt of 1,000 tokens costs with and without. You are right when `generate_cached` writes the same tokens and the products of a prefill, counted with `torch.utils.flop_counter.FlopCounterMode`, are twice your number: it counts an addition and a multiplication as two.
#
# Then the harder one: two prompts of different lengths in one batch. Which rows of the cache does the shorter one fill with padding, what must the mask say about them, and at which positions do its tokens stand?
