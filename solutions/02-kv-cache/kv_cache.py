# %% [markdown] id="ea809910"
# # 02 · KV cache: pay memory, save work
#
# **At which length does generating the next token cost more than reading the whole prompt did?**
#
# You send a long prompt to a chat model. The first word of the answer takes seconds, and each later one milliseconds. Why? And why can a chat of 131,072 tokens need 19 GB of memory beside the weights of a model with 4 billion parameters? Both have the same cause: the *KV cache*, which this lesson builds.
#
# The first guess of this lesson is about that question. You will count the answer, and then measure it.
#
# After this lesson you can
#
# - say which numbers a GPT computes again for every token, and which of them are worth storing;
# - write a cache, and an attention that works with it whether a text comes at once, in pieces or token by token;
# - work out from a `config.json` how many bytes a conversation takes, and confirm it to the byte;
# - name the usual mistakes with a cache, and how each would show. Several of them cannot be seen in the text the model writes.
#
# 140 to 200 minutes · difficulty ●●○○○ · you know GPT-2 (lesson 01); its code is given
#
# This is generation, step by step. At each step the model adds one token to the text, and to do that it computes one row of vectors for every word in a coloured box.
#
# ![Four steps of generation after the prompt "Mr. Darcy was". Without a cache, every step computes the rows of all words again: 3 + 4 + 5 + 6 = 18 rows for 4 tokens. With a cache, the prompt's 3 rows are computed once and each later step computes only the newest word's row: 6 rows.](figures/rows-computed.svg)
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.

# %% tags=["setup"] id="setup"
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="7b0d0e35"
# GPT-2 XL reads a prompt of 100 tokens, and then writes. With a cache it computes only the newest token's row; the row's query is compared with the keys of all tokens so far. After how many tokens does one more token take more multiply-adds than reading the whole prompt did? Imagine that the model could read a text of any length.

# %% prediction="kv_cache.crossing" id="prediction-kv_cache-crossing"
predict(
    "kv_cache.crossing", "tokens after which the next one costs more than a prompt of 100",
    guess=...
)

# %% [markdown] id="5511098e"
# ## What you start from
#
# The whole of lesson 01 follows, in seven folded cells. Look at the names, and read `Attention` again, because you are going to change it. The cache will sit inside the attention, between the box of heads and the softmax.
#
# ![GPT-2 124M from the bottom up: token ids, the token and position embeddings, 12 blocks, a final LayerNorm and the output head. Each block adds multi-head attention's result and the MLP's result to the residual stream.](figures/gpt2-model.svg) ![Inside GPT-2's attention: one projection, c_attn, makes queries, keys and values of 12 heads, a masked softmax of their products weighs the values, and a last projection mixes the heads.](figures/gpt2-attention.svg) ![Inside GPT-2's MLP: a projection from 768 to 3,072, GELU, and a projection back to 768.](figures/gpt2-mlp.svg)

# %% given="01-gpt2 gpt2.conv1d" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-conv1d"

# %% given="01-gpt2 gpt2.gelu" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-gelu"

# %% given="01-gpt2 gpt2.attention" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-attention"

# %% given="01-gpt2 gpt2.mlp" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-mlp"

# %% given="01-gpt2 gpt2.block" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-block"

# %% given="01-gpt2 gpt2.model" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-model"

# %% given="01-gpt2 gpt2.generate" jupyter={"source_hidden": true} id="given-01-gpt2-gpt2-generate"

# %% [markdown] id="dfe156c0"
# ## What is computed again?
#
# For every new token, `generate` passes the whole text to the model and uses only the last row of the result. How much of the rest has been computed before?
#
# Take a trained model and give it 8 tokens, then the same 8 and one more. The last layer, the fourth, computes queries, keys and values for the first 8 tokens both times. What share of these numbers changes because a ninth token follows?

# %% prediction="kv_cache.changed" id="prediction-kv_cache-changed"
predict(
    "kv_cache.changed", "numbers of the first 8 tokens that a ninth changes", unit="%",
    guess=...
)

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
measured("kv_cache.changed", 100 * changed / short.numel())

# %% [markdown] id="712fa816"
# <details><summary>What the numbers say</summary>
#
# None changes. The mask hides later tokens, so nothing about a token depends on what follows it, in any layer. Computing it again gives the same numbers.
# </details>

# %% [markdown] id="fd8d6fb7"
# Which of those numbers does the *new* token need? Its query is compared with the keys of all tokens, and its result is a weighted sum of their values. It uses only its own query, and nothing from the other tokens' MLPs. Old queries are never used again. So two things per token and layer are worth storing, **k and v**. That is why it is a KV cache and not a QKV cache.
#
# ![Attention with a cache. The new token's vector is projected to q, k and v. The new k and v are appended to the cache's rows. The query is compared with all keys in the cache, and the softmax of the scores weights all values. The sum goes through c_proj. The query is not stored.](figures/cache-in-attention.svg)
#
# ### Exercise 1 · How much work?
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Is a cache worth its memory? Count before you build. A product of an [n, a] matrix with an [a, b] matrix takes n · a · b multiply-adds. Add up the products of GPT-2 for `new` tokens that come after `past` tokens which need not be computed again:
#
# - in each layer, for each new token: `c_attn` (D to 3 D), attention's `c_proj` (D to D), and the MLP's two (D to `inner` and back);
# - in each layer, every new query is compared with the key of every token, old and new, over D channels (all heads together), and then sums the values of as many tokens, again over D channels. The masked scores count too: they are computed, and then hidden;
# - once, for each new token, the head: D to `vocab_size`.
#
# Norms, the softmax and GELU are not products; leave them out. Your result is compared with a count of the products that transformers' GPT-2 really makes, with its own cache.
#
# <details><summary>Hint 1</summary>
#
# Two kinds of work: what each new token costs by itself, however long the text is, and what it costs to attend to the others. Only one of them has `past` in it.
#
# <details><summary>Hint 2</summary>
#
# With how many keys is one query compared? It is the same number for all of the new queries, because the masked ones are not skipped.
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
# Now GPT-2 XL, from its config. Without a cache, the next token costs 550 times as many multiply-adds after 1,000 tokens as after one. With a cache it is still one row. By how much does the work for the next token grow, from the second token of a text to the one after 1,000?

# %% prediction="kv_cache.growth" id="prediction-kv_cache-growth"
predict(
    "kv_cache.growth", "more work after 1,000 tokens than after 1, with a cache", unit="%",
    guess=...
)

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
measured("kv_cache.growth", 100 * (multiply_adds(xl, 1, past=1000) / multiply_adds(xl, 1, past=1) - 1))

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
# <details><summary>What the numbers say</summary>
#
# With a cache, the work for the next token hardly grows. A thousand tokens more add 10% to it, because the new query is compared with more keys: most of the work is in the products with the weights, and these do not know how long the text is. The growth is small here, but it has no end, and the later lessons are about it.
# </details>

# %% [markdown] id="e550009c"
# What the cache saves for a single token is nearly the number of tokens: a factor of 1,001 after a thousand. Over a whole answer of 1,000 tokens after a prompt of 24 it is 520, about half, because the text is half as long on average.
#
# ## The cache
#
# ### Exercise 2 · Memory for keys and values
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# Where do the keys and values go? One `KVCache` belongs to one layer. At the start it is told for how many tokens it must have room, its *capacity*. It allocates that memory once, and fills its slots from the left. `append` takes the keys and values of new tokens, one or many, and returns those of all tokens so far, the new ones last. The memory is allocated already; you write `append` and `reset`.
#
# Three rules:
#
# - `length` is how many tokens are in the cache. The model reads it to find the position of the next token.
# - `append` returns *views* of the cache's own memory. Nothing that is in the cache is ever copied.
# - If the tokens do not fit, raise a `ValueError` whose message has the capacity in it. The cache is then as it was before.
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
# After a reset the old numbers may stay in memory. Why can no later call return them?
# </details>
# </details>
# </details>

# %% exercise="kv_cache.cache" id="kv_cache-cache"
class KVCache:
    """The keys and values of one layer for all tokens so far, in memory that is allocated once.

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
        """Add the keys and values of T >= 1 new tokens; return those of all tokens so far, in order, as views.

        k, v: [batch, heads, T, head_dim], in the cache's dtype -> 2 x [batch, heads, length, head_dim], where length
        has grown by T. Raises ValueError, whose message has the capacity in it, where they don't fit; then `length` and
        the tokens so far are as before.
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
# PyTorch checks shapes. Will it not complain by itself? There is room for four tokens. If two tokens are written from the last slot on, PyTorch raises an error. What does it do if one token is written after the last slot, into `room[:, :, 4:5]`?

# %% prediction="kv_cache.past_the_end" id="prediction-kv_cache-past_the_end"
predict(
    "kv_cache.past_the_end", "one token is written after the last slot", one_of=(
        "the last slot is overwritten", "an error", "nothing is written, and no error",
    ),
    guess=...
)

# %% id="a2b07e94"
room = torch.zeros(1, 1, 4, 2)  # 4 tokens
for name, start, tokens in (("two tokens from the last slot on", 3, 2), ("one token after the last slot", 4, 1)):
    try:
        room[:, :, start : start + tokens] = torch.ones(1, 1, tokens, 2)
        print(f"{name}: no error, and {int(room.sum())} numbers were written")
        outcome = "the last slot is overwritten" if room.sum() else "nothing is written, and no error"
    except RuntimeError as error:
        print(f"{name}: RuntimeError: {str(error).partition(' at ')[0]}")
        outcome = "an error"
measured("kv_cache.past_the_end", outcome)

# %% [markdown] id="57047089"
# <details><summary>What the numbers say</summary>
#
# PyTorch raises nothing and writes nothing, and this is the case that occurs in decoding: one token a step. A slice past the end has no rows, and one row broadcasts to any number of rows, also to none. So the token is dropped silently, and the model goes on without it. Only your own check notices.
# </details>

# %% [markdown] id="86ad9be4"
# ### Preallocate, or grow?
#
# Many programs have no capacity. They write `self.keys = torch.cat([self.keys, k], dim=2)`, and the result is right. Why then preallocate? 2,048 tokens come one by one. A preallocated cache writes each byte once. How many times the bytes that are in it at the end does the growing cache copy in all?

# %% prediction="kv_cache.copied" id="prediction-kv_cache-copied"
predict(
    "kv_cache.copied", "bytes that a growing cache copies for 2,048 tokens", unit="times its size",
    guess=...
)

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

print("tokens   in the cache   copied: growing   preallocated    ms a token: growing   preallocated")
for tokens in (256, 512, 1024, 2048):
    runs = [partial(fill, kind, tokens) for kind in (GrowingCache, KVCache)]
    copied = [work.bytes_copied(run) / 1e6 for run in runs]
    spent = [clock.milliseconds(run, repeats=1) / tokens for run in runs]
    held = 2 * tokens * 12 * 64 * 4 / 1e6
    print(f"{tokens:6} {held:11.1f} MB {copied[0]:14,.0f} MB {copied[1]:11.1f} MB {spent[0]:22.3f} {spent[1]:14.3f}")
measured("kv_cache.copied", copied[0] / held)

# %% [markdown] id="34433f43"
# <details><summary>What the numbers say</summary>
#
# About 1,000 times: with `cat`, each step copies the whole cache, which holds 1,024 tokens on average. Twice the tokens cost four times the copying. And these are the keys and values of *one* layer.
# </details>

# %% [markdown] id="e21eefdc"
# transformers' `DynamicCache` grows, because it cannot know how long a text will be. Its `StaticCache` is preallocated.
#
# Servers have thousands of conversations, and do not know how long any of them will be. vLLM (Kwon et al., 2023) therefore cuts the memory into pages of 16 tokens. A conversation has a table of its pages and gets another one when the last is full, so nothing is copied, and at most one page is partly empty. Two conversations that begin with the same tokens, such as a long instruction, share the pages of that beginning: by causality their keys and values are the same. Your cache is one such conversation with a single large page.

# %% [markdown] id="22bf5c41"
# ## Attention with a cache
#
# ### Exercise 3 · Prefill, decode, and everything between
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Reading the prompt is called *prefill*: many new tokens, nothing in the cache. Writing is called *decode*: one new token, many in the cache. Why not write two functions? Because there is a third case, a long prompt that comes in chunks, and one program that handles T new tokens after any number of old ones covers all three.
#
# Write `forward` anew. Two things change. The new keys and values are appended to the cache, and attention uses what `append` returns. And the scores are no longer square: there are T queries, those of the new tokens, and T_k keys, those of all tokens. So the mask has to take the position of each query and key into account. The last query and the last key belong to the same token.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="83913655"
words = ["Mr.", "Darcy", "was", "not", "so", "easily", "moved"]
masks = []
for title, old, new in (("prefill: 4 new", 0, 4), ("a chunk of 3 after 4", 4, 3), ("decode: 1 new after 6", 6, 1)):
    seen = [[key <= old + query for key in range(old + new)] for query in range(new)]
    masks.append(plots.squares(seen, words[old : old + new], words[: old + new], title, split=old))
plots.beside(*masks)

# %% [markdown] id="3b9e143d"
# `cache=None` means that there is none: then it is the attention of lesson 01. The check passes a cache of its own, so this exercise does not depend on yours.
#
# <details><summary>Hint 1: the order</summary>
#
# The cache stores [B, H, T, head_dim], so split into heads first. Are queries stored?
#
# <details><summary>Hint 2: the shapes</summary>
#
# q [B, H, T, head_dim] with k [B, H, T_k, head_dim] gives scores [B, H, T, T_k]. From which tensor do you read T_k?
#
# <details><summary>Hint 3: the mask</summary>
#
# Look at the middle picture. In the first row, how many keys come after the query's own? `triu` has an argument that moves its diagonal to the right; for a square it is 1.
#
# <details><summary>Hint 4: the fused kernel</summary>
#
# `F.scaled_dot_product_attention(..., is_causal=True)` aligns its triangle with the upper left corner, which is another mask as soon as T and T_k differ. It accepts a mask of your own as `attn_mask`, True where a query may attend to a key.
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
# Suppose the mask stays as it was in lesson 01, `triu(diagonal=1)`, aligned at the upper left. In which of the three cases pictured above does the result change? And which test of a cache would therefore not notice?

# %% prediction="kv_cache.upper_left" id="prediction-kv_cache-upper_left"
predict(
    "kv_cache.upper_left", "cases in which a mask aligned at the upper left is wrong", some_of=(
        "prefill: 4 new", "a chunk of 3 after 4", "decode: 1 new after 6",
    ),
    guess=...
)

# %% id="fbe70300"
def largest_error(new: int, old: int) -> float:
    """How much a mask that is lined up with the upper left corner changes attention's result."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, t, 16, generator=generator) for t in (new, old + new, old + new))
    upper_left = torch.ones(new, old + new, dtype=torch.bool).tril()
    lower_right = upper_left.new_ones(new, old + new).tril(diagonal=old)
    right, wrong = (F.scaled_dot_product_attention(q, k, v, attn_mask=m) for m in (lower_right, upper_left))
    return (right - wrong).abs().max().item()


errors = {"prefill: 4 new": largest_error(4, 0), "a chunk of 3 after 4": largest_error(3, 4),
          "decode: 1 new after 6": largest_error(1, 6)}
for name, error in errors.items():
    print(f"{name:>21}: {'wrong' if error > 1e-5 else 'the same'}")
measured("kv_cache.upper_left", [name for name, error in errors.items() if error > 1e-5])

# %% [markdown] id="b79d60bc"
# <details><summary>What the numbers say</summary>
#
# The chunk and decode are wrong. Prefill is right, so a test of the first token passes. In decode a new token attends to the *first* token of the text and to nothing else, not even to itself. Further down you will see what a model writes that way.
# </details>

# %% [markdown] id="f651ab28"
# This shipped: in one server, a chunk of a prompt that followed a cached beginning could not see that beginning (<a href="https://github.com/hyprstream/hyprstream/pull/1521">hyprstream/hyprstream#1521</a>).
#
# The block only passes the cache on to attention:

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
# ### Exercise 4 · The model, and its positions
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Two methods.
#
# `new_cache` makes what a text needs: a `KVCache` for *each* layer, because each layer has keys and values of its own. GPT-2 has only `n_positions` rows of positions, so a larger capacity is refused at once, with a `ValueError`, and not after a thousand tokens.
#
# `forward` gets the new tokens only. Their *positions* no longer begin at 0. A new token cannot work out its own position. The model has to tell it, from the length of the cache.
#
# <details><summary>Hint 1</summary>
#
# Which object knows how many tokens came before? And when do you have to ask it: before the blocks run, or after?
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
    """Lesson 01's GPT-2, which can read a text piece by piece. Parts and names are the same."""

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
# With a cache it must be GPT-2 for *every* way of cutting a text into pieces. Here are four ways, on trained weights, compared with lesson 01's model, which reads the text in one piece. Will the differences be 0?

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
# The cache is not the reason: it returns exactly what was put in. The reason is the number of rows. A product of 100 rows with a matrix and a product of one row with the same matrix run through different kernels, and these add the same numbers in another order.

# %% tags=["nbval-ignore-output"] id="3c36ead0"
generator = torch.Generator().manual_seed(0)
x, weight = torch.randn(100, 192, generator=generator), torch.randn(768, 192, generator=generator)
for rows in (1, 2, 10, 50):
    off = (F.linear(x, weight)[:rows] - F.linear(x[:rows], weight)).abs().max().item()
    print(f"the first {rows:2} of 100 rows, computed alone: differ by at most {off:.1e}")

# %% [markdown] id="46751340"
# Which numbers of rows give another result depends on the machine: on its vector width and on the library that multiplies. Lesson 01's model and transformers' can agree to the last bit, because on one machine they call the same kernels with the same shapes. A cached model is compared within a tolerance.
#
# Does it matter? Only where two tokens are nearly equally likely. The next cells read 20 texts token by token, in both dtypes, so wait a little for their lines. The *margin* is by how much the best logit leads the second. Among 4,000 next tokens, how many does the cache change in float32? And in bfloat16, which has 8 significant bits?

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
    plain, stepped = both_ways(dtype)
    best = plain.topk(2).values  # [20, 200, 2]
    margins = best[..., 0] - best[..., 1]
    flips = plain.argmax(-1) != stepped.argmax(-1)
    print(f"{dtype!s:>14}: logits differ by at most {(plain - stepped).abs().max():.1e};"
          f" smallest margin {margins.min():.1e}; {flips.sum()} of {flips.numel():,} next tokens differ")

# %% tags=["nbval-ignore-output"] id="c15397b8"
if flips.any():  # in bfloat16
    place = tuple(flips.nonzero()[0].tolist())
    two = [logits[place].argmax().item() for logits in (plain, stepped)]
    for name, logits, chosen in zip(("without", "with"), (plain, stepped), two, strict=True):
        shown = ", ".join(f"{austen.tokenizer.decode([i])!r} {logits[place][i]:.4f}" for i in two)
        print(f"for example, {name:>7} a cache: {shown}: {austen.tokenizer.decode([chosen])!r}")

# %% [markdown] id="cdeca997"
# In float32 the differences are far smaller than nearly all margins, and a token changes only at a near-tie. In bfloat16 two logits are often *equal*, or one rounding apart, and then the order of additions decides. Neither answer is wrong. So compare tokens in float32, record by how much the best token won, and call a difference a bug unless that margin explains it. `check_generation` does that.

# %% [markdown] id="5f06f404"
# ## Generate
#
# ### Exercise 5 · Read each token once
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# This is lesson 01's loop without the `cat`: the cache remembers the keys and values of everything read so far, so only the new token is passed in. The model reads the prompt in the first step, and one token in every later step.
#
# Each token is read once. The very last one need not be read at all, since nothing comes after it. That makes T + `max_new_tokens` − 1 rows in all, and a cache with exactly that capacity.
#
# <details><summary>Hint 1</summary>
#
# The model's input in the next step is the token it predicted in this one. Which shape must it have?
#
# <details><summary>Hint 2</summary>
#
# The check counts how many rows your model computes, and how large the cache is that you asked for. Where is the cache made: before the loop, or in it?
# </details>
# </details>

# %% exercise="kv_cache.generate" id="kv_cache-generate"
@torch.no_grad()
def generate_cached(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None
) -> Iterator[int]:
    """As `generate`, but the model reads every token once: T + max_new_tokens - 1 rows in all, and no more.

    The cache is made once, with room for exactly as many tokens.

    model: model.new_cache(batch, capacity) makes a cache; model(new_ids, cache) gives the new tokens' logits.
    ids: [1, T] int64, the prompt; T + max_new_tokens - 1 <= config.n_positions. Yields Python ints.
    Ends after max_new_tokens, or once eos_token_id has been yielded; None: no token ends it, whatever the config says.
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

# %% [markdown] id="4131bd44"
# ### What this loop can no longer do
#
# When the text grew beyond `n_positions`, lesson 01 dropped the oldest tokens and read the rest again, from position 0. Why can a cache not simply drop its first slot? Take the 9 tokens from the start of the lesson, once as they are and once without the first. A token more at the end changed nothing. A token less at the beginning: what share of the other tokens' keys and values in the last layer stays the same? A number counts as the same if it changes by less than 0.001; its mean size is 2.

# %% prediction="kv_cache.without_first" id="prediction-kv_cache-without_first"
predict(
    "kv_cache.without_first", "keys and values that are the same without the first token", unit="%",
    guess=...
)

# %% id="bdb11a15"
D = austen.config.n_embd
nine = queries_keys_values(text, 3)[1:, D:]  # [8, 2 D]: keys and values of the last 8 of 9 tokens
eight = queries_keys_values(text[:, 1:], 3)[:, D:]  # [8, 2 D]: of the same tokens without the first
same = ((nine - eight).abs() < 1e-3).float().mean()
print(f"{same:.1%} are the same; mean difference {(nine - eight).abs().mean():.2f}, mean size {nine.abs().mean():.2f}")
measured("kv_cache.without_first", 100 * same)

# %% [markdown] id="590464a6"
# <details><summary>What the numbers say</summary>
#
# Almost none. All remaining tokens have moved by one position, and GPT-2 adds the position to each token's vector at the bottom. Besides, a token in a higher layer has attended to the one that is gone. So a cache cannot be shifted: `new_cache` refuses a longer text, and that is right.
# </details>

# %% [markdown] id="b83d661e"
# ### The same text as the reference
#
# This is what transformers wrote with these weights, without a cache: three prompts, 64 tokens each. Compare yours, with a cache:

# %% tags=["nbval-ignore-output"] id="87b49c8b"
check_generation(model, austen, generate=generate_cached)

# %% [markdown] id="649002bd"
# If transformers is installed here, you can also compare with its own cache, live, for as long a text as this model can read:

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
# Why so many checks for so little code? Each of these three programs raises no error, and chooses the first new token right: the prompt is read at once, so the cache is not used yet. From the second on, counted as token 1 below, they may differ.
#
# - *upper left*: the mask is aligned with the upper left corner. For a single new token only the first key remains.
# - *never read*: the cache is filled, but attention uses the new keys only.
# - *from 0*: the positions begin at 0 again in every call.
#
# Which of them write nonsense, and which could pass for right? And what does the usual measure say, the loss on a text that is read in one piece? For the right program it is 4.21 nats. What is it for *never read*, whose attention uses the new keys only?

# %% prediction="kv_cache.read_at_once" id="prediction-kv_cache-read_at_once"
predict(
    "kv_cache.read_at_once", "loss of the cache that is never read, text in one piece", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="bdcb0084"
right_append = KVCache.append


def upper_left(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what such a mask leaves to a single new token: the first key and value."""
    seen = right_append(self, k, v)
    return tuple(t[:, :, :1] for t in seen) if k.shape[2] == 1 else seen


def never_read(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Fills the cache, but returns the new keys and values only."""
    right_append(self, k, v)
    return k, v

# %% id="ad0167ae"
def from_zero(self, ids: Tensor, cache: list[KVCache] | None = None) -> Tensor:
    """The model's forward with one wrong line: the positions should begin at the cache's length."""
    positions = torch.arange(ids.shape[1])  # the wrong line
    x = self.wte(ids) + self.wpe(positions)
    for i in range(len(self.h)):
        x = self.h[i](x, cache[i] if cache else None)
    return F.linear(self.ln_f(x), self.wte.weight)

# %% id="37ec9f6c"
WRONG = {
    "upper left": patch.replaced(KVCache, append=upper_left),
    "never read": patch.replaced(KVCache, append=never_read),
    "from 0": patch.replaced(CachedGPT2, forward=from_zero),
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
at_once = {}
for name, change in WRONG.items():
    with change:
        tokens = list(generate_cached(model, ids, 64))
        losses = [loss_in(chunks) for chunks in ([T], [1] * T)]
        at_once[name] = losses[0]
    first = next((i for i, (a, b) in enumerate(zip(right, tokens, strict=True)) if a != b), 64)
    print(f"{name:>10}: {austen.tokenizer.decode(tokens[:40])!r}")
    print(f"{'':>12}differs from token {first} on; loss on Persuasion, read at once {losses[0]:.2f},"
          f" one by one {losses[1]:.2f}\n")
measured("kv_cache.read_at_once", at_once["never read"])

# %% [markdown] id="470f32ff"
# <details><summary>What the numbers say</summary>
#
# Read in one piece, as a loss usually is, all three score exactly like the right model: a fresh cache returns what was just put in, such a text begins at position 0, and there is no single new token. The loss of a text that is read *piece by piece* shows the error, so measure it token by token. The texts show less: a model that cannot see its own text writes nonsense, and you would notice. A model with wrong positions goes on writing words in the right style. It repeats itself, but so does the right model.
# </details>

# %% [markdown] id="89ea4ff7"
# Now GPT-2 itself, where it is on this machine or the hub can be reached (548 MB):

# %% tags=["nbval-ignore-output"] id="797cdf8e"
gpt2 = load_checkpoint("gpt2", optional=True)
if gpt2 is not None:
    gpt2_model = CachedGPT2(gpt2.config).eval()
    gpt2.load_into(gpt2_model)
    check_generation(gpt2_model, gpt2, generate=generate_cached)

# %% [markdown] id="1661d846"
# ## A place to stop for the day
#
# So far: the mask makes old keys and values final, so they can be stored. A cache needs a capacity, a mask aligned at the lower right, and positions that continue. Its results differ from those of the uncached model in the last digits.
#
# Still to come: what it saves in time, what it costs in memory, and the first way to make it smaller.
#
# ## Time
#
# Now measure what you counted. The model is a GPT-2 with random weights, six layers of 384 and 1,024 positions: large enough that products take most of the time. For each length n, three times are measured:
#
# - *reading n*: a text of n tokens is read at once, as a prompt is;
# - *next, without*: one more token, everything computed again;
# - *next, with*: one more token, n in the cache.
#
# Which of the three curves will lie on each other? The measurement takes half a minute or so, the longest of all cells here; a bar shows how far it is.

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
      " M multiply-adds: reading  without   with")
for n, a, b, c in zip(lengths, reading, without, cached, strict=True):
    counts = [multiply_adds(clocked, *what) / 1e6 for what in ((n,), (n + 1,), (1, n))]
    print(f"{n:6,} {a:15.1f} {b:15.1f} {c:12.2f} {counts[0]:28,.0f} {counts[1]:8,.0f} {counts[2]:6,.1f}")

# %% tags=["nbval-ignore-output"] id="2166d387"
per_ms = multiply_adds(clocked, 512) / reading[lengths.index(512)]
print(f"counted: at the {per_ms / 1e6:.0f} million multiply-adds per ms that reading 512 tokens reached")
for n, ms in zip(lengths, without, strict=True):
    if n in (1, 8, 32, 128, 512, 1023):
        print(f"without a cache, after {n:5,} tokens: {ms * per_ms / multiply_adds(clocked, n + 1):4.1f} times the counted time")

# %% tags=["nbval-ignore-output"] id="85bd3885"
curves = {"reading n tokens": reading, "next token, without a cache": without, "next token, with": cached}
around = plots.Axes("tokens so far, n", "ms", log="xy", size=(5.2, 3.4))
by_clock = plots.lines({name: (lengths, ms) for name, ms in curves.items()}, around)
counted = {
    "without: measured": (lengths, without),
    "with: measured": (lengths, cached),
    "without: counted": (range(1, 1024), [multiply_adds(clocked, n + 1) / per_ms for n in range(1, 1024)]),
    "with: counted": (range(1, 1024), [multiply_adds(clocked, 1, n) / per_ms for n in range(1, 1024)]),
}
headroom = (None, 100 * max(without))  # above the curves, for the legend
next_token = plots.Axes("tokens so far, n", "ms for the next token", log="y", ylim=headroom, size=(5.2, 3.4))
plots.beside(by_clock, plots.lines(counted, next_token))

# %% [markdown] id="0ac047d4"
# Reading n tokens and the next token without a cache take about the same time. This is why the first token of an answer takes so much longer than each later one: it has to wait for the whole prompt to be read.
#
# How well does the count tell the time? The lines above the chart say it. At a few tokens the measured time is several times the counted one, because of fixed costs and for the reason below. From some dozens of tokens on the two are of the same size. The longest texts may still take up to twice as long as counted, because the count has no mask and no softmax, and these work on n² scores. A clock is also less exact than a count: whatever else runs on the machine changes its numbers.
#
# With a cache the curve is nearly flat, and the measured time is far longer than the counted one. Why is one row so slow for its work? Each weight has to be fetched from memory, and with one row it is used for a single multiply-add. With many rows it is fetched once and used for all of them. Here are 24 weight matrices of 4 MB, multiplied by 1 to 256 rows at once. 256 rows are 256 times the work. How many times as long do they take, on this machine?

# %% prediction="kv_cache.rows" id="prediction-kv_cache-rows"
predict(
    "kv_cache.rows", "time for 256 rows", unit="times that for 1 row",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="08a03325"
matrices = [torch.randn(1024, 1024) / 32 for _ in range(24)]


def through_all(rows: int) -> None:
    """Multiply `rows` vectors by one matrix after the other."""
    x = torch.ones(rows, 1024)
    for matrix in matrices:
        x = F.linear(x, matrix)

# %% tags=["nbval-ignore-output"] id="02294dbd"
spent = clock.in_turns({rows: partial(through_all, rows) for rows in (1, 4, 16, 64, 256)}, repeats=7)
weight_bytes = sum(matrix.nbytes for matrix in matrices)
print("rows       ms   ms a row   times as long as 1 row   weights fetched, GB/s")
for rows, ms in spent.items():
    print(f"{rows:4} {ms:8.2f} {ms / rows:10.3f} {ms / spent[1]:24.1f} {weight_bytes / ms / 1e6:23.1f}")
measured("kv_cache.rows", spent[256] / spent[1])

# %% [markdown] id="86fbf153"
# <details><summary>What the numbers say</summary>
#
# Far less than 256 times. With one row, the time is mostly that of fetching 100 MB of weights; the last column then tells how fast your memory is. With many rows the arithmetic takes most of the time. So a row costs much less together with others than alone.
# </details>

# %% [markdown] id="e2a693fc"
# Two consequences. Prefill and decode are always measured apart, because tokens per second of the one say nothing about the other. And servers decode many conversations at once: their new tokens form the rows of one product and share each fetched weight.
#
# ## The question: when does the next token cost more than the prompt?
#
# *At which length does generating the next token cost more than reading the whole prompt did?*
#
# **Without a cache: at every length.** The prompt was n rows, and the next token takes n + 1. Except for the shortest texts, the two curves lie on each other.
#
# **With a cache** the next token is one row, whose query is compared with n keys. For a prompt of P tokens, after how many tokens is that more than the prompt? This is the first guess of the lesson, for P = 100.

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
measured("kv_cache.crossing", crossing(xl, 100))

# %% tags=["nbval-ignore-output"] id="8a4342ad"
longest = cached[-1]
cheaper = max((n for n, spent in zip(lengths, reading, strict=True) if spent < longest), default=0)
print(f"by the clock, the next token after {lengths[-1]:,} took {longest:.2f} ms:"
      f" more than reading a prompt of {cheaper} tokens, less than one of {min((n for n in lengths if n > cheaper), default=0)}")

# %% [markdown] id="e490fdc6"
# <details><summary>What the numbers say</summary>
#
# For a prompt of 100 tokens it costs more after a million tokens. In practice that is never: GPT-2 XL has 1,024 positions, and even for a prompt of 2 tokens the crossing is ten times as far away. By the clock it comes sooner, since one row is slow for its work. One token at the end of a text of 1,023 takes as long as reading a short prompt, of 4 to 128 tokens where this was measured; the line above says it for your machine. Reading those 1,023 takes far longer.
# </details>

# %% [markdown] id="379fad9a"
# But the crossing exists. In a very long text, most of a new token's cost is attention, and attention has to fetch the whole cache. One new token of a layer with 16 query heads attends to 32,768 cached tokens. How much faster is it if 8 query heads share each key-value head, so that the cache is an eighth as large?

# %% tags=["nbval-ignore-output"] id="8b5e4e59"
def attend(kv_heads: int) -> partial:
    """One new token's attention over a long cache: 16 query heads, 16 / kv_heads of them on each key-value head."""
    q = torch.randn(kv_heads, 16 // kv_heads, 64)  # [KV, heads that share one, head_dim]
    k, v = torch.randn(2, kv_heads, 32_768, 64)
    return partial(lambda q, k, v: (q @ k.mT * 64**-0.5).softmax(dim=-1) @ v, q, k, v)


spent = clock.in_turns({kv_heads: attend(kv_heads) for kv_heads in (16, 2)}, repeats=5)
for kv_heads, ms in spent.items():
    print(f"{kv_heads:2} key-value heads: {ms:6.1f} ms, a cache of {2 * kv_heads * 32_768 * 64 * 4 / 1e6:.0f} MB")

# %% [markdown] id="e69c6ec8"
# The multiply-adds are the same in both lines. The smaller cache is faster because there is less to fetch. It is not eight times as fast: the same products have to be computed, and these do not get fewer. So the size of the cache decides not only how many conversations fit into memory, but also how fast a long one continues.

# %% [markdown] id="39168088"
# ## Memory
#
# What does a cache cost? GPT-2 XL, whose weights take 3,100 MB in bfloat16, reads its full 1,024 tokens. How large is the cache, in bfloat16 as well?

# %% prediction="kv_cache.xl_cache" id="prediction-kv_cache-xl_cache"
predict(
    "kv_cache.xl_cache", "GPT-2 XL's cache for 1,024 tokens", unit="MB",
    guess=...
)

# %% [markdown] id="98e0f304"
# ### Exercise 6 · Bytes from a config
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# For every token and layer: a key and a value, each `head_dim` numbers for every *key-value* head. Multiply it all, for `context` tokens in each of `batch` texts.
#
# Configs use two sets of names. A GPT-2 (`model_type` is `gpt2`) has `n_layer`, `n_embd` and `n_head`, and every head has keys and values of its own. The others have `num_hidden_layers`, `hidden_size`, `num_attention_heads`, and perhaps `num_key_value_heads` and `head_dim`. Where one of these two is missing or null, it is as in GPT-2: as many key-value heads as heads, and the width divided among the heads.
#
# <details><summary>Hint 1</summary>
#
# First find three numbers, layers, key-value heads and head_dim, under either set of names. Then there is one formula.
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
    context: any number, also more tokens than the model has positions for.
    element_bytes: of each number in the cache, whatever dtype the config names for the weights.
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
# A formula can be wrong. Make the caches, and count the bytes that their tensors occupy:

# %% id="a517a7f7"
for name, gpt, batch, tokens in (
    ("austen-gpt2, float32", model, 1, 256), ("austen-gpt2, bfloat16", copy.deepcopy(model).bfloat16(), 3, 100),
    ("the timed model", timed, 2, 1024),
):
    element = gpt.wte.weight.element_size()
    held = work.bytes_held(gpt.new_cache(batch, tokens))
    formula = cache_bytes(gpt.config, tokens, batch, element)
    print(f"{name:>22}, batch {batch}, {tokens:5,} tokens: measured {held:11,}  formula {formula:11,}")
    assert held == formula

# %% [markdown] id="a8cfc4ab"
# They agree to the byte. So the formula can be trusted for models that do not fit on this machine. In the next table "at 128k" means 131,072 tokens: a book, or an afternoon of an agent's work. GPT-2 XL could not read so much; its row shows what its kind of attention would cost.

# %% id="7b534701"
models = {"GPT-2": "gpt2", "GPT-2 XL": "gpt2-xl",
          "Qwen3 0.6B": "qwen3-0.6b", "Qwen3 4B": "qwen3-4b", "Qwen3 8B": "qwen3-8b"}
configs = {name: Config.read(f"configs/{file}.json") for name, file in models.items()}
print(f"{'bfloat16':>12} {'a token':>12} {'1,024 tokens':>14} {'at 128k':>11} {'8 texts of 128k':>17}")
for name, config in configs.items():
    token, short, long, many = (cache_bytes(config, *n) for n in ((1,), (1024,), (131_072,), (131_072, 8)))
    print(f"{name:>12} {token / 1024:8.0f} KiB {short / 1e6:11.0f} MB {long / 1e9:8.2f} GB {many / 1e9:14.1f} GB")
measured("kv_cache.xl_cache", cache_bytes(configs["GPT-2 XL"], 1024) / 1e6)

# %% [markdown] id="20605244"
# <details><summary>What the numbers say</summary>
#
# GPT-2 XL needs 300 KiB for every token, which makes 315 MB for its full 1,024 tokens: a tenth of its weights. At 128k its cache would be 40 GB, 13 times its weights.
# </details>

# %% [markdown] id="8ad497f0"
# Qwen3 4B has 2.6 times the parameters and *half* the cache per token: 144 KiB, which for 131,072 tokens are the 19 GB of the start. The next section shows why.

# %% [markdown] id="d2e9825f"
# ### Exercise 7 · After how many tokens does a cache pay?
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# In multiply-adds a cache pays from the second token on. In bytes it never does: with or without it a step has to fetch all weights, and with a cache the keys and values as well. Which of the two decides depends on the device. A step takes as long as the slower of two things that a device does at the same time, computing and fetching. (The *roofline* model; Williams et al., 2009.)
#
# So put both counts together: for a device of which you know how many multiply-adds and how many bytes it manages in a second, after how many tokens of text is the next token faster with a cache? This experiment is yours.
#
# <details><summary>Hint 1</summary>
#
# You have both counts: `multiply_adds` and `cache_bytes`. What is missing are the bytes of the weights that take part in a product. For one new token without a past, each of these weights is used in exactly one multiply-add. Which multiply-adds of that token use no weight?
#
# <details><summary>Hint 2</summary>
#
# Several texts are computed in the same step. What do they share: the work, the weights, the cache?
#
# <details><summary>Hint 3</summary>
#
# `max(work / speed, fetched / bandwidth)`, once with the cache and once without. Go through n = 0, 1, 2 and so on until the first is smaller.
# </details>
# </details>
# </details>

# %% exercise="kv_cache.pays" id="kv_cache-pays"
def pays_after(config: Config, speed: float, bandwidth: float, batch: int = 1, element_bytes: int = 2) -> int:
    """The smallest n for which the next token after n tokens takes less time with a cache than without.

    A step takes as long as the slower of two things: its multiply-adds, `speed` of them in a second, and the bytes
    that it fetches, `bandwidth` of them in a second. Both are for all `batch` texts together.
    Without a cache it computes n + 1 rows of each text, and fetches the weights of the products in `multiply_adds`.
    With a cache it computes one row of each text, and fetches the same weights and the keys and values of n tokens of
    each text. Weights are fetched once for all texts and rows. Weights, keys and values have `element_bytes` bytes.
    config: GPT-2's, as for multiply_adds and cache_bytes.
    """
    ### BEGIN SOLUTION
    weights = element_bytes * (multiply_adds(config, 1) - 2 * config.n_layer * config.n_embd)  # without attention's
    n = 0
    while True:
        kept = cache_bytes(config, n, batch, element_bytes)
        without = max(batch * multiply_adds(config, n + 1) / speed, weights / bandwidth)
        cached = max(batch * multiply_adds(config, 1, past=n) / speed, (weights + kept) / bandwidth)
        if cached < without:
            return n
        n += 1
    ### END SOLUTION

# %% check="kv_cache.pays" tags=["nbval-ignore-output"] id="check-kv_cache-pays"
check("kv_cache.pays", pays_after)

# %% [markdown] id="e6558d06"
# An H100 does 989 · 10¹² floating-point operations a second in bfloat16, two for each multiply-add, and fetches 3.35 · 10¹² bytes a second (NVIDIA's data sheet of the SXM version). It writes one text with GPT-2 XL. After how many tokens is the next one faster with a cache?

# %% prediction="kv_cache.pays" id="prediction-kv_cache-pays"
predict(
    "kv_cache.pays", "tokens after which a cache pays on an H100, one text", unit="tokens",
    guess=...
)

# %% id="26f243ae"
devices = {"H100": (989e12 / 2, 3.35e12), "50 · 10⁹ multiply-adds, 20 GB a second": (50e9, 20e9)}
for name, (speed, bandwidth) in devices.items():
    after = {texts: pays_after(xl, speed, bandwidth, texts) for texts in (1, 4, 16, 64)}
    print(f"{name:>40}: " + ", ".join(f"{n} with {texts} texts" for texts, n in after.items()))
measured("kv_cache.pays", pays_after(xl, *devices["H100"]))

# %% [markdown] id="2ae4c415"
# <details><summary>What the numbers say</summary>
#
# After 295 tokens. Until then an H100 computes all rows again in less time than it needs to fetch 3.1 GB of weights, and a cache is only something more to fetch. The number is nearly a quotient of the device: 148 multiply-adds for each byte fetched, times 2 bytes for each weight. (Both speeds are peaks, which no program reaches, and starting a product takes time as well.)
#
# With 64 texts in a step the same weights serve 64 times as many rows, and the cache pays after 4 tokens. So does it with a single text on a processor that computes slowly. A server decodes many long texts at once, so it cannot do without a cache; a single short answer could.
# </details>

# %% [markdown] id="97516f4f"
# ## Method 1: share keys and values
#
# Why should every query head have keys and values of its own? With grouped-query attention (GQA; Ainslie et al., 2023) several query heads share one key-value head. If all of them share one, it is called multi-query attention (MQA); if none share, multi-head attention (MHA).
#
# ![Eight query heads in three arrangements. MHA: each has a key-value head of its own, and 8 are cached. GQA with groups of four: heads 0 to 3 share key-value head 0, heads 4 to 7 share head 1, and 2 are cached. MQA: all eight share one.](figures/mha-gqa-mqa.svg)
#
# Why share keys and values, and not queries? Queries are not cached, so sharing them would save no memory. What does it cost? T5-XXL, a model of 11 billion parameters, has with MHA a mean score of 47.2 on seven tasks. Converted to eight key-value heads and trained a little longer it has 47.1, and converted to one 46.6 (Ainslie et al., Table 1). Here is the attention of Qwen3 0.6B, with 16 query heads on 8 key-value heads.
#
# ![Inside Qwen3 0.6B's attention: q_proj makes queries of 16 heads, k_proj and v_proj make keys and values of 8 heads. Norms on q and k and RoPE follow. Each key-value head serves 2 query heads. For each token 2 × 8 × 128 = 2,048 numbers are cached.](figures/qwen3-0.6b-attention.svg)
#
# ### Exercise 8 · Grouped queries with a cache
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# With 8 query heads and 2 key-value heads, query heads 0 to 3 use key-value head 0, and heads 4 to 7 use head 1. Lesson 03 builds the rest of such a model. Only two lines of it concern the cache, but one common mistake here changes no output, only the memory used.
#
# `q`, `k` and `v` are split into heads already. Append, share, attend. The check looks at the result, and at what you put into the cache.
#
# <details><summary>Hint 1</summary>
#
# Most programs repeat each key-value head for the queries that use it, and go on as before. You can repeat before or after `append`. Which of the two makes the cache as large as if nothing were shared?
#
# <details><summary>Hint 2</summary>
#
# Copies of one head must be next to each other: 0 0 0 0 1 1 1 1. `repeat_interleave` and `repeat` are both PyTorch's; one of them gives 0 1 0 1 0 1 0 1.
# </details>
# </details>

# %% exercise="kv_cache.grouped" id="kv_cache-grouped"
def grouped_attention(q: Tensor, k: Tensor, v: Tensor, cache: KVCache) -> Tensor:
    """Causal attention of T new tokens in which H / KV query heads share a key and value head.

    Each key and value head is cached once, and used by H / KV consecutive query heads.
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
# What sharing saves follows from the config. Take a model of 32 layers, 4,096 wide, with 32 heads, at 32,768 tokens in bfloat16. How large is the cache with 32 key-value heads, and how large with 8?

# %% id="eb8bf406"
wide = Config({"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32})
for shared in (1, 2, 4, 8, 32):
    size = cache_bytes(wide.replace(num_key_value_heads=32 // shared), 32_768)
    name = {1: "MHA: every query head has its own", 32: "MQA: all share one"}.get(shared, f"GQA: {shared} share one")
    print(f"{name:>34}: {size / 1e9:6.2f} GB")

# %% [markdown] id="b7509091"
# With four query heads to a group, 17.18 GB become 4.29. Here is the same model, drawn to 131,072 tokens:

# %% tags=["nbval-ignore-output"] id="f0d3381e"
contexts = [16_384 * n for n in range(9)]
curves = {}
for shared in (1, 2, 4, 8, 32):
    sizes = [cache_bytes(wide.replace(num_key_value_heads=32 // shared), context) / 1e9 for context in contexts]
    curves["MHA" if shared == 1 else f"{'MQA' if shared == 32 else 'GQA'}, {shared} share one"] = contexts, sizes
    print(f"{shared:2} query heads a key-value head: {sizes[-1]:6.2f} GB at 131,072 tokens")
named = {context: f"{context // 1024}k" for context in contexts}
plots.lines(curves, plots.Axes("context, tokens", "KV cache, GB (bfloat16, batch 1)", xticks=named))

# %% [markdown] id="7fdb1f11"
# ### Other models, other settings
#
# The panel computes the same sums as your `cache_bytes`. Choose a model or paste a `config.json`, and change the heads, the context, the dtype. MLA and SWA are the subjects of lessons 05 and 06. A question to try it on: Qwen3 4B has 32 query heads on 8 key-value heads. With how many key-value heads would 131,072 tokens fit into 5 GB?

# %% tags=["nbval-ignore-output"] id="bdf9be90"
from grader.kv import kv_panel

kv_panel("Qwen3 4B", context=131_072)

# %% [markdown] id="6e0406a7"
# With two: 4.83 GB.
#
# ### Five ways to a smaller cache
#
# Look at the formula again: 2 · layers · key-value heads · head_dim · bytes a number · tokens. Every factor can be attacked, and published models attack each of them.
#
# | what becomes smaller | how | where |
# |---|---|---|
# | key-value heads | share them: GQA, MQA | this lesson, and Qwen3 in lesson 03 |
# | numbers for a key and a value | store one short vector from which both are computed: multi-head latent attention (MLA) | lesson 05 |
# | tokens | store only the last ones: a sliding window (SWA) | lesson 06 |
# | bytes a number | round keys and values to fewer bits: a quantised cache | llama.cpp and vLLM, programs that run models, offer it |
# | layers that have a cache | replace attention by a state of fixed size: linear attention (Katharopoulos et al., 2020) | Qwen3-Next, in 36 of 48 layers |
#
# GQA and MLA make each token cheaper, so the line in the chart is lower, but still a line. A sliding window makes most layers stop growing at all. A fixed-size state never grows. Sparse attention, as in DeepSeek V3.2 (lesson 08), is not in the table: a new token reads fewer of the cached rows, but all of them are stored. The caches of lessons 05 and 06 have the same two methods and fields as yours, `append` and `length`.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="f9f8b881"
# ## What changed, and why
#
# | | without a cache | with a cache | what it costs |
# |---|---|---|---|
# | the model reads | the whole text, for every token | every token once | – |
# | work for token n | n rows | 1 row, compared with n keys | every weight is fetched from memory for a single row |
# | memory beside the weights | none that lasts | 2 · layers · heads · head_dim numbers a token | GPT-2 XL: 300 KiB a token |
# | positions | 0 to T − 1 | from `length` on | the model must be told the position |
# | mask | square | T × T_k, aligned at the lower right | one more thing to get wrong |
# | a text longer than `n_positions` | drop the oldest tokens, read the rest again | not possible: positions are inside the keys | a conversation ends there. RoPE (lesson 03) and windows (lesson 06) lift this limit |
# | result | – | the same up to rounding | a near-tie may go the other way |
# | time of a step | computing all rows, or fetching the weights, whichever takes longer | fetching weights, keys and values | on an H100 with one text it pays only after 295 tokens, by the count; with 64 texts after 4 |
# | shared heads (GQA) | less work for k and v | the cache divided by the group | fewer different keys and values |
#
# ## The questions again
#
# <details><summary>At which length does generating the next token cost more than reading the whole prompt did?</summary>
#
# Without a cache always: n + 1 rows against n. With one, by the count: only after a prompt of a single token. After a prompt of 2 it would take ten times as many positions as GPT-2 XL has. By the clock, the last token of a text of 1,023 takes as long as reading a short prompt, of 4 to 128 tokens where this was measured.
# </details>
#
# <details><summary>Why are keys and values stored, and no queries?</summary>
#
# A new token's query is compared with every key and its result is a weighted sum of every value. Old queries are never used again.
# </details>
#
# <details><summary>Why may they be stored at all?</summary>
#
# Causality: a token's key and value do not depend on any later token, in any layer. A model that attends in both directions, such as BERT, an encoder for whole texts, has no such cache.
# </details>
#
# <details><summary>Why does the first token of an answer take longest?</summary>
#
# The whole prompt has to be read before it. Every later token is one row.
# </details>
#
# <details><summary>Why do servers decode many conversations at once?</summary>
#
# With one row, fetching the weights takes most of the time. The new tokens of many conversations share each fetched weight.
# </details>
#
# <details><summary>Does a cache always make the next token faster?</summary>
#
# Not after a few tokens. Without one a device computes all rows again, but as long as that takes less time than fetching the weights, a cache only adds bytes to fetch. How many tokens that is depends on the device's two speeds and on how many texts share a step: by your count 295 on an H100 with one text, and 4 with 64 texts.
# </details>
#
# <details><summary>Why can a cache not drop its oldest token?</summary>
#
# All later tokens would move by one position, and GPT-2's positions are inside every key and value. The higher layers have also attended to the dropped token.
# </details>
#
# <details><summary>Which mistake is right in prefill, raises no error in decode, and still writes sentences?</summary>
#
# Positions that begin at 0 again in every call. The first token after the prompt is right, the others sound right. A mask aligned at the upper left is right in prefill too, but what it writes is nonsense.
# </details>
#
# <details><summary>Which mistake changes no output at all?</summary>
#
# A cache that is filled and not used, with everything computed again beside it: exercise 5's check counts the rows. And repeated heads that are cached, which exercise 8's check sees. Only a count of rows, or of bytes, shows them.
# </details>
#
# <details><summary>Why is a cached model not equal to the last bit, and what follows?</summary>
#
# One row goes through another kernel than many rows, and sums are added in another order. Compare with a tolerance in float32, and look at the margin where a token differs.
# </details>
#
# <details><summary>How many bytes does a token take?</summary>
#
# 2 · layers · key-value heads · head_dim · bytes a number: 300 KiB in GPT-2 XL, 144 KiB in Qwen3 4B.
# </details>
#
# <details><summary>Name five ways to a smaller cache.</summary>
#
# Fewer key-value heads (GQA, MQA), fewer numbers for each (MLA), fewer tokens (a sliding window), fewer bits (a quantised cache), fewer layers with a cache (linear attention).
# </details>
#
# ## Where to read on
#
# - Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need* (2019): section 2.4 counts the work and the memory traffic of decoding, section 3 shares one key-value head among all.
# - Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints* (2023), section 2.
# - Pope et al., *Efficiently Scaling Transformer Inference* (2022), section 2: what limits prefill, and what limits decode. Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention* (2023): what to do when the capacity is not known beforehand.
# - Katharopoulos et al., *Transformers are RNNs* (2020): linear attention, whose state does not grow. Yang et al., *Gated Delta Networks* (2024): the kind that Qwen3-Next uses.
# - The reference: `transformers/cache_utils.py`, `DynamicCache` and `StaticCache`; `models/gpt2/modeling_gpt2.py`, how `GPT2Model` finds its positions.
#
# ## If you want more
#
# In prefill the head is applied to every row, and `generate_cached` uses only the last. For GPT-2 that is 38.6 million multiply-adds for each row whose logits are not used. Give `forward` an argument that says for how many of the last rows logits are wanted, and count with `multiply_adds` what a prompt of 1,000 tokens costs with and without. You are right when `generate_cached` writes the same tokens, and `work.multiply_adds(lambda: model(ids))` counts for a prefill what your formula says.
#
# Then the harder one: two prompts of different lengths in one batch. Which rows of the cache does the shorter one fill with padding, what must the mask say about them, and which positions do its tokens have?
