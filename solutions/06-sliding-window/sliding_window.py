# %% [markdown] id="867fa617"
# # 06 · Sliding window: forget on purpose
#
# **A window of 1,024 and 62 layers: how far back can information come from?**
#
# Gemma 3 27B has 62 layers, and in 52 of them a token sees only itself and the 1,023 before it. You will compute how far back such a stack can be influenced, and see in a picture how much really arrives from there.
#
# After this lesson you can
#
# - draw the mask of a sliding window for a whole text, for a chunk of it and for a single token;
# - write a cache that never holds more than a window, and show that it changes nothing;
# - run Gemma 3 with it across its window's edge, token for token like the reference;
# - name the mistakes that public programs made here, and say why no text showed most of them.
#
# 150 to 220 minutes · difficulty ●●●●○ · you know the KV cache (lesson 02) and Gemma 3 (lesson 04); their code is given
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# This is Gemma 3 270M, as you built it in lesson 04. Three of its 18 layers are full and 15 slide.
#
# ![Gemma 3 270M from the bottom up: token ids, the token embedding of 262,144 tokens times √640, 18 layers, a final RMSNorm and an output head with the embedding's weights. Each layer adds twice to the residual stream: multi-query attention with 4 query heads, QK-norm and, in 15 of the 18 layers, a window of 512 tokens; and a GeGLU MLP of width 2,048. Each of the two has an RMSNorm before it and another after it.](figures/gemma-3-270m-model.svg)
#
# In the two masks below, each row is a query and each column a key. A full layer sees the whole past. A sliding layer sees a window, here of three tokens, as in the talk that this course follows. On the right is what a layer has to cache while the text grows.
#
# ![Left: in a full layer each of six tokens sees itself and all before it. Middle: with a window of 3 each token sees itself and the two before it. Right: while the text grows to 12 tokens, a full layer caches all of them, a sliding layer never more than 3.](figures/mask-and-cache.svg)

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

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="5beb1b01"
# The first guess is about the question at the top. Suppose that all 62 layers slide, each with its window of 1,024 tokens, and that the text is long enough. How many tokens back is the earliest one that can influence what the last layer computes?

# %% prediction="sliding_window.back" id="prediction-sliding_window-back"
predict(
    "sliding_window.back", "how far back 62 sliding layers reach", unit="tokens",
    guess=...
)

# %% [markdown] id="ee653934"
# ## What you start from
#
# Gemma 3 as you left it in lesson 04, and lesson 02's cache: twelve folded cells. Look at the names. Read two of them in detail: `Attention`, because you are going to change it, and `KVCache`, because yours needs the same interface: `append` and `length`. This is the attention, drawn; the cache will hold its keys and values.
#
# ![Inside Gemma 3's attention: q_proj makes 4 queries of 256, k_proj and v_proj one key and one value, which all queries share. Norms on q and k, then RoPE. The mask shows the last 512 tokens in 15 layers, all in 3 layers. For each token 512 numbers are cached.](figures/gemma-3-270m-attention.svg)

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="04-gemma3 gemma3.embedding" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-embedding"

# %% given="04-gemma3 gemma3.rms_norm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rms_norm"

# %% given="04-gemma3 gemma3.mlp" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-mlp"

# %% given="04-gemma3 gemma3.rope" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-rope"

# %% given="04-gemma3 gemma3.mask" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-mask"

# %% given="04-gemma3 gemma3.attention" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-attention"

# %% given="04-gemma3 gemma3.decoder_layer" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-decoder_layer"

# %% given="04-gemma3 gemma3.model" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-model"

# %% given="04-gemma3 gemma3.causal_lm" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-causal_lm"

# %% given="02-kv-cache kv_cache.cache" jupyter={"source_hidden": true} id="given-02-kv-cache-kv_cache-cache"

# %% [markdown] id="9faa52d2"
# ## The mask
#
# ### Exercise 1 · A window, for any piece of a text
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Lesson 04's `visible(length, window)` makes a square mask. With a cache the mask is a rectangle: `queries` new tokens attend to `keys` tokens, old ones and themselves. As in lesson 02, **the last query and the last key are the same token**. Everything else follows from distances.
#
# The window counts the token itself: with a window of 3, a token sees itself and the two before it. Without a window (`None`) it sees everything before it.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="491f6bc2"
from grader.instruments import plots

masks = []
for title, queries in (("the whole text", 6), ("a chunk of 3", 3), ("one token", 1)):
    past = 6 - queries
    seen = [[past + query - 3 < key <= past + query for key in range(6)] for query in range(queries)]
    masks.append(plots.squares(seen, range(past, 6), range(6), title, split=past))
plots.beside(*masks)

# %% [markdown] id="44835463"
# <details><summary>Hint 1</summary>
#
# Count the keys from 0. Which index does the last query have? And the first one?
#
# <details><summary>Hint 2</summary>
#
# Subtract a row of keys from a column of queries: `a[:, None] - b[None, :]`. The result says how far each key is behind each query.
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
    positions = torch.arange(keys)
    distance = positions[keys - queries :, None] - positions[None, :]  # [queries, keys]: how far behind
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen
    ### END SOLUTION

# %% check="sliding_window.mask" tags=["nbval-ignore-output"] id="check-sliding_window-mask"
check("sliding_window.mask", window_mask)

# %% [markdown] id="84713d86"
# ### A stack of layers
#
# A sliding layer sees few tokens, but each of them has already seen others in the layer below. So in a stack information travels further than one window:
#
# ![Left: five sliding layers with a window of 4. The last token's vector depends on 3 earlier tokens one layer down, then on 6, 9, 12 and 15. Right: the same stack with layer 2 full: below it the last token depends on all 23 earlier tokens.](figures/receptive-cone.svg)
#
# In the panel below you choose how many sliding layers come before each full one. On the left is what one sliding layer sees, in the middle what each layer caches, on the right which tokens j can influence token i after all layers. It starts with a window of 4 and 3 sliding layers. What does a single full layer change?

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="6f2b21c3"
import ipywidgets as widgets

from grader.instruments import Panel, Shown, plots


def show_stack(length: int, window: int, layers: int, sliding_per_full: int) -> Shown:
    """The panel's picture and its text for one setting of its controls."""
    every = sliding_per_full + 1
    kinds = ["sliding" if sliding_per_full == 12 or (i + 1) % every else "full" for i in range(layers)]
    masks = {"sliding": window_mask(length, length, window), "full": window_mask(length, length)}
    reached = torch.eye(length, dtype=torch.bool)
    for kind in kinds:
        reached = (masks[kind].float() @ reached.float()) > 0  # [T, T]: through this layer, then those before it
    cached = {"sliding": min(window, length), "full": length}
    tokens, names = [cached[kind] for kind in kinds], range(length)
    bars = {f"{i} {kind}": held for i, (kind, held) in reversed(list(enumerate(zip(kinds, tokens, strict=True))))}
    picture = plots.beside(
        plots.squares(masks["sliding"], names, names, f"a sliding layer sees {int(masks['sliding'].sum())} pairs"),
        plots.bars(bars, plots.Axes("tokens cached", "layer", size=(3.4, 3.0))),
        plots.squares(reached, names, names, f"influence after {layers} layers"),
    )
    text = (f"{length} tokens, a window of {window}, {layers} layers, {kinds.count('full')} of them full: the last token"
            f" can be influenced by {int(reached[-1].sum()) - 1} earlier ones.\nThe caches hold {sum(tokens)} tokens in all"
            f" layers; without windows it would be {layers * length}.")
    return Shown(picture.figure(), text)


style = {"style": {"description_width": "10em"}, "layout": widgets.Layout(width="28em")}
Panel({
    "length": widgets.IntSlider(description="tokens", min=4, max=40, value=24, **style),
    "window": widgets.IntSlider(description="window", min=1, max=40, value=4, **style),
    "layers": widgets.IntSlider(description="layers", min=1, max=12, value=3, **style),
    "sliding_per_full": widgets.SelectionSlider(
        description="sliding per full layer", value=12, **style,
        options=[*((str(n), n) for n in range(12)), ("all sliding", 12)]),
}, show_stack)

# %% [markdown] id="9d02205e"
# Three sliding layers with a window of 4 reach 9 tokens back. One full layer anywhere in the stack reaches all of them.
#
# ### Exercise 2 · How far back?
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The question at the top, as a function: how many earlier tokens can influence what the model computes for the *last* of `length` tokens? Do not count the token itself.
#
# <details><summary>Hint 1</summary>
#
# One sliding layer with a window of 4: how many *earlier* tokens? Now put a second one on top. The farthest token that it sees has itself seen others in the layer below.
#
# <details><summary>Hint 2</summary>
#
# How far does one full layer reach, wherever it is in the stack? And can anything come from before the text began?
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
# Now the question at the top, for a stack in which all layers slide and for the real model:

# %% id="1a275d28"
from grader.kv import known_model

gemma_27b = known_model("Gemma 3 27B")
sliding_only = gemma_27b.replace(layer_types=["sliding_attention"] * gemma_27b.num_hidden_layers)
for name, config in (("all 62 layers sliding", sliding_only), ("as it is, 52 and 10", gemma_27b)):
    print(f"{name:>22}: {reach(config, 131_072):,} tokens back, in a text of 131,072")
measured("sliding_window.back", reach(sliding_only, 131_072))

# %% [markdown] id="9961bd73"
# <details><summary>What the numbers say</summary>
#
# 62 · 1,023 = 63,426. Each layer adds one window, less the token itself, so 62 windows of a thousand tokens reach sixty thousand tokens back: half of what the model may read. With one full layer there is no limit.
# </details>

# %% [markdown] id="8ac3dd33"
# Are the ten full layers there only for tokens that are farther back than 63,426? They take most of the cache's memory, so there should be a better reason. Whether information *can* arrive and how much of it *does* arrive are two questions. The second one needs numbers, so it waits until you have a model.
#
# ## The cache that makes it pay
#
# So far nothing is saved. With a mask alone, every key and value stays in the cache, and those outside the window are masked at every step. The output is right, and the memory grows as before. To save memory, a token must be dropped as soon as no later token can see it.
#
# Take a window of W. When the next token comes, it sees itself and W − 1 old ones. So W slots are enough, however long the text. Put token 0 into slot 0, token 1 into slot 1, and so on. Token W goes into slot 0 again, over token 0, which no later token may see. Token p goes into slot **p mod W**. This is called a ring buffer, or rolling cache.
#
# ![A ring of four slots after five appends. Three tokens fill slots 0 to 2; token 3 fills slot 3; token 4 overwrites slot 0. Then five tokens come at once: append returns the old tokens 2, 3 and 4 and the new tokens 5 to 9, and the ring holds 8, 9, 6 and 7. Token 10 overwrites slot 2.](figures/ring.svg)
#
# Step through it, one token at a time:

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="9e837b64"
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

TEXT = ["It", "is", "a", "truth", "universally", "acknowledged", "that", "a", "single", "man", "in", "possession", "of", "a"]
TEXT += ["good", "fortune"]


def show_ring(tokens: int, window: int) -> Shown:
    """The slots of a ring after `tokens` appends of one token each."""
    held = {position % window: position for position in range(tokens)}  # a later token overwrites an earlier one
    figure = Figure(figsize=(9.5, 1.4), dpi=90, layout="constrained")
    axis = figure.subplots()
    for slot in range(window):
        new, token = held.get(slot) == tokens - 1, ""
        if slot in held:
            token = f"{held[slot]}\n{TEXT[held[slot]]}"
        axis.add_patch(Rectangle((slot, 0), 0.94, 1, facecolor="#9cc7ec" if new else "white", edgecolor="#7c858c"))
        axis.text(slot + 0.47, 0.5, token, ha="center", va="center", fontsize=8)
        axis.text(slot + 0.47, -0.25, f"slot {slot}", ha="center", va="center", fontsize=8)
    axis.set(xlim=(-0.05, max(window, 8)), ylim=(-0.5, 1.1))
    axis.axis("off")
    last, returned = tokens - 1, list(range(max(0, tokens - window), tokens))
    text = (f"Token {last} ({TEXT[last]!r}) went into slot {last} mod {window} = {last % window}. append returned the keys"
            f" and values of tokens {', '.join(map(str, returned))}. length is {tokens}.")
    return Shown(figure, text)


Panel({
    "tokens": widgets.IntSlider(description="tokens so far", min=1, max=16, value=5, **style),
    "window": widgets.IntSlider(description="window", min=2, max=8, value=4, **style),
}, show_ring)

# %% [markdown] id="380514af"
# In the picture above, look at the fourth row. Five tokens come at once, more than there are slots. The first of them (token 5) must still see 2, 3 and 4, so these have to be returned *before* they are overwritten. Tokens 5 to 9 must all be returned, because each of them sees some of the others. Only then does the ring store the last four. A long prompt that is read in chunks is this case. LLMs-from-scratch, a widely read public program, got it wrong at first ([#1013](https://github.com/rasbt/LLMs-from-scratch/issues/1013)).
#
# Does the order of the keys matter? Not to attention, which sums over keys. The mask needs to know which key is which. Returning them from the oldest to the newest settles that, as in lesson 02.
#
# ### Exercise 3 · The ring
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# The same interface as `KVCache`, with three rules of its own:
#
# - `append(k, v)` returns the keys and values that the new tokens may see: the W − 1 latest old ones (or as many as there are), then all new ones, from the oldest to the newest.
# - `length` is how many tokens were ever appended, not how many are in the ring. The model reads it to find the position of the next token.
# - The cache never takes more memory than W tokens, even after a prompt of 10 W tokens. (A slice `x[:, :, -W:]` is a *view*. It keeps all of x alive.)
#
# The check looks at these three, not at which token lies in which slot. `reset()` begins another text. `append` never raises: the ring is never full.
#
# <details><summary>Hint 1</summary>
#
# Two lists of slots: those that you read from, and those that you write to. `torch.arange(a, b) % W` makes either; only a and b differ. A list of slots can be used as an index: `self.keys[:, :, slots]`.
#
# <details><summary>Hint 2</summary>
#
# Indexing with a list of slots copies. So what you have read stays as it is when the ring is written to. In which order do you read and write?
#
# <details><summary>Hint 3</summary>
#
# If 10 tokens come and W is 4, which of them are written? Writing all ten with one index would put several into one slot, and PyTorch does not say which of them stays.
#
# <details><summary>Hint 4</summary>
#
# Think in positions: with n tokens so far and T new ones, positions n to n + T − 1 are new. Which positions does the token at position n see? Which are still needed after position n + T − 1?
# </details>
# </details>
# </details>
# </details>

# %% exercise="sliding_window.rolling_cache" id="sliding_window-rolling_cache"
class RollingCache:
    """The keys and values of the last `window` tokens of one layer. A ring will do: token p in slot p mod window.

    keys, values: [batch, heads, window, head_dim]; there is never memory for more. length: how many tokens
    were ever appended.
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
        """Add T new tokens; return those that at least one of them sees, from the oldest to the newest.

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
        """Forget all tokens: ready for another text."""
        ### BEGIN SOLUTION
        self.length = 0
        ### END SOLUTION

# %% check="sliding_window.rolling_cache" tags=["nbval-ignore-output"] id="check-sliding_window-rolling_cache"
check("sliding_window.rolling_cache", RollingCache)

# %% [markdown] id="8d52d1f9"
# ### Does the order of the slots matter?
#
# After 20 tokens a ring of 8 holds them in the order 16 17 18 19 12 13 14 15. Shuffle the slots, once of keys and values alike, and once of the values alone. Which of the two changes attention's result?

# %% id="b0bc9c18"
torch.manual_seed(0)
ring, query = RollingCache(1, 1, 8, 16), torch.randn(1, 1, 1, 16)
for _ in range(20):
    ring.append(*torch.randn(2, 1, 1, 1, 16))


def attended(keys: Tensor, values: Tensor) -> Tensor:
    """The weighted sum of the values: [1, 1, 1, 16]."""
    return (query @ keys.mT / 4).softmax(dim=-1) @ values


order, right = torch.randperm(8), attended(ring.keys, ring.values)
for name, keys in (("keys and values shuffled", ring.keys[:, :, order]), ("values alone", ring.keys)):
    print(f"{name:>24}: changes by up to {(attended(keys, ring.values[:, :, order]) - right).abs().max():.0e}")

# %% [markdown] id="bda42b0e"
# Shuffled together, only rounding changes: a sum has no order, and RoPE has put each key's position into the key itself. Shuffled apart, every weight meets the wrong value.
#
# Does transformers drop tokens too? Its `DynamicCache` stores a slice after each step, `keys[:, :, -31:]` with a window of 32. A prompt of 300 tokens is read at once. For how many tokens does the layer hold memory after it, before the next token comes?

# %% prediction="sliding_window.view" id="prediction-sliding_window-view"
predict(
    "sliding_window.view", "tokens in memory of transformers' sliding layer after 300", unit="tokens",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="53ce6aaa"
from grader.instruments import work


def rows_held(tensor: Tensor) -> int:
    """For how many tokens the memory behind a tensor [1, heads, T, head_dim] has room."""
    return work.bytes_held(tensor) // tensor[:, :, :1].nbytes

# %% tags=["nbval-ignore-output"] id="64e33536"
import importlib.util

if importlib.util.find_spec("transformers"):
    from transformers.cache_utils import DynamicSlidingWindowLayer

    layer, ring, held = DynamicSlidingWindowLayer(sliding_window=32), RollingCache(1, 2, 32, 8), []
    for tokens in (300, 1):
        k = torch.randn(1, 2, tokens, 8)
        layer.update(k, k)
        ring.append(k, k)
        print(f"after {tokens:3} more: it keeps {layer.keys.shape[2]} in view and holds memory for"
              f" {rows_held(layer.keys)}; the ring: {rows_held(ring.keys)}")
        held.append(rows_held(layer.keys))
    measured("sliding_window.view", held[0])

# %% [markdown] id="2814c5ca"
# <details><summary>What the numbers say</summary>
#
# All 300. A slice is a view of the last 31 tokens, and a view keeps the whole 300-token tensor alive. One step later the 300 are gone: from then on it creates a new tensor of 32 at every token, and stores a view of 31. Neither is a bug. But to know how much memory a tensor takes, measure `untyped_storage().nbytes()`, not `.shape`.
# </details>

# %% [markdown] id="af2753ad"
# ## A place to stop for the day
#
# So far: a mask with a window, for any piece of a text; how far back a stack of layers reads; and a ring that holds no more than a window, and gives every later token what the whole text would.
#
# Still to come: attention and the model with their caches, every way of cutting a text, generation from a long prompt, and what a window saves in memory and time.
#
# ## Attention with a window
#
# ### Exercise 4 · Attention
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Lesson 04's attention got its mask as an argument. Now the mask depends on what the cache returns, so attention gets the window and makes the mask itself. The cache may be yours, or lesson 02's that stores everything, or none: the result must be the same. `window_mask` needs three numbers, and you can read two of them off shapes.
#
# RoPE rotates a key by the angles of its own position, once, before the key is cached. `table` has the rotations of the T new tokens. Those of the old tokens are not needed: old keys were rotated before they were cached.
#
# <details><summary>Hint 1</summary>
#
# Lesson 04's `Attention.forward` is above. One step comes in between two of its lines, and one line is new.
#
# <details><summary>Hint 2</summary>
#
# What is cached: keys before or after the norm, before or after the rotation, before or after the heads are repeated for the queries that share them? For each of the three there is one right answer, and for the last one the reason is memory.
#
# <details><summary>Hint 3</summary>
#
# With a cache that stores everything, a sliding layer gets more keys back than it may see. What hides those?
# </details>
# </details>
# </details>

# %% exercise="sliding_window.attention" id="sliding_window-attention"
class CachedAttention(Attention):
    """Lesson 04's attention for T new tokens that follow those in a cache. Parts and names are the same.

    table: [2, T, head_dim], the rotations of the new tokens. window: how many tokens each may see, itself among
    them; None: all. cache: append(k, v) returns all keys and values that may be seen, the new ones last, and
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
# The layer passes window and cache on to attention. Nothing else in it is new:

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
# `new_cache` creates one cache for each layer: a `RollingCache` for a sliding one, a `KVCache` with room for `capacity` tokens for a full one. There is one more case: if the whole text fits into the window, a ring would be larger than the text. Then a sliding layer, too, gets a `KVCache` for `capacity` tokens. So a sliding layer never holds more than the smaller of the two numbers. An estimate that always counts W tokens would say that a window takes more memory than full attention in a short text.
#
# `forward` gets only the new tokens. Their positions continue from where the last call ended; each kind of layer has its own window, and its own rotations, as in lesson 04: a full layer has to tell up to 32,768 positions apart and rotates slowly; a sliding one sees no farther than its window.
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
# Lesson 04's `Model.forward` is above, folded. It has a dict from the kind of layer to its window. Pass the window on, where it built a mask.
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
# Without a cache it must still compute what Gemma 3 computes, layer by layer:

# %% tags=["nbval-ignore-output"] id="a0eeedde"
compare_layers(CachedModel, open="none")

# %% [markdown] id="0045567d"
# The head, as in lesson 04:

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
# `austen-gemma3` is the small Gemma 3 of lesson 04: five sliding layers with a window of 32, then a full one. The text is longer than that. Read it all at once, in chunks shorter than the window, in chunks longer than it, and one by one. Do the results differ by more than rounding?

# %% tags=["nbval-ignore-output"] id="89ce8fd3"
austen = load_checkpoint("austen-gemma3")
model, whole_model = austen.build(CachedLM), austen.build(CausalLM)

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
# If your cache is right, they differ by at most about 2 · 10⁻⁵, and some not at all, in logits between −18 and 17. As in lesson 02, the last bits differ because one row and many rows go through different kernels. Otherwise the ring, in which a token is overwritten 32 tokens after it came, gives the same result as the whole text.
#
# ## Generate
#
# ### Exercise 6 · Read a long prompt in chunks
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# A ring stores W tokens. But a prompt of T tokens at once still creates scores of T × T in every head, for a moment. Why not read it in pieces? With at most `chunk` tokens at a time, a sliding layer's scores are never larger than chunk × (W − 1 + chunk), however long the prompt. In a full layer they still grow with the text, to chunk × T.
#
# The generated tokens must be the same. The rest is lesson 02's `generate_cached`: every token is read once, the last one never; and the cache has room for exactly those that are read.
#
# <details><summary>Hint 1</summary>
#
# `ids.split(chunk, dim=1)` cuts, and the last piece may be shorter. Whose logits predict what comes after the prompt?
#
# <details><summary>Hint 2</summary>
#
# After the prompt, each step gives the model the token of the step before, as [1, 1].
# </details>
# </details>

# %% exercise="sliding_window.generate" id="sliding_window-generate"
@torch.no_grad()
def generate_rolling(
    model: nn.Module, ids: Tensor, max_new_tokens: int, eos_token_id: int | None = None, chunk: int = 128
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    model: model.new_cache(batch, capacity) makes a cache; model(new_ids, cache) gives the new tokens' logits.
    ids: [1, T] int64, the prompt; it is read in as few pieces of at most `chunk` tokens as there can be, and it may
    have eos_token_id in it. Every token is read once, the last new one not at all: T + max_new_tokens - 1 rows,
    and the cache has room for that many. max_new_tokens: 1 or more. Ends after that many, or once eos_token_id has
    been yielded.
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

# %% [markdown] id="b2ce44b5"
# What do the chunks save? Give `austen-gemma3` a prompt of 2,048 tokens with random ids. Read at once, the largest tensor that the model creates is 67.1 MB. It holds scores: 2,048 · 2,048 for each of 4 query heads. How large is the largest one if the prompt comes in chunks of 128?

# %% prediction="sliding_window.chunks" id="prediction-sliding_window-chunks"
predict(
    "sliding_window.chunks", "largest tensor with chunks of 128", unit="MB",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="ca4b7bbd"
from functools import partial

long_prompt = torch.randint(austen.config.vocab_size, (1, 2048), generator=torch.Generator().manual_seed(0))


def read_in(chunk: int) -> None:
    """Read the long prompt in pieces, without the head."""
    cache = model.new_cache(1, long_prompt.shape[1])
    for piece in long_prompt.split(chunk, dim=1):
        model.model(piece, cache)

# %% tags=["nbval-ignore-output"] id="057cba59"
for chunk in (2048, 512, 128):
    largest = work.largest_tensor(partial(read_in, chunk)) / 1e6
    print(f"chunks of {chunk:5,}: {largest:5.1f} MB")
measured("sliding_window.chunks", largest)

# %% [markdown] id="7e106c21"
# <details><summary>What the numbers say</summary>
#
# A sixteenth. The largest tensor holds the full layer's scores, chunk × 2,048 in each head for the last chunk. In the sliding layers scores are only 128 × 159. One full layer among six decides what the whole model needs.
# </details>

# %% [markdown] id="d3de7ac1"
# ### The same text as the reference
#
# Compare what transformers wrote with these weights, without a cache, with what yours writes through a ring of 32. One of the prompts is longer than the window, and every continuation crosses it:

# %% tags=["nbval-ignore-output"] id="052a26ff"
check_generation(model, austen, generate=generate_rolling)

# %% [markdown] id="06ad2658"
# And Gemma 3 270M, if its weights are on this machine (lesson 04 says how to get them). Its window is 512 tokens; the longest of its prompts has 533. Here the prompt is read in chunks of 128:

# %% tags=["nbval-ignore-output"] id="e48bfec4"
gemma = load_checkpoint("gemma-3-270m", optional=True)
gemma_model = None if gemma is None else gemma.build(CachedLM)
check_generation(gemma_model, gemma, generate=generate_rolling)

# %% [markdown] id="dffa88c3"
# That prompt crosses the window's edge before a token is written. Now let the generated text cross it: the first 500 tokens of the prompt, and 40 more. The new token at position 512 is the first one that cannot see the beginning.

# %% tags=["nbval-ignore-output"] id="6eb14737"
by_transformers = (
    ". of Kellynch Hall, in the county of Somerset, by Elizabeth, daughter of James Stevenson, Esq. of South Park, in"
    " the county of Gloucester, by whom he has issue, born"
)
if gemma_model is not None:
    opening = torch.tensor([gemma.goldens[-1].prompt_ids[:500]])  # the longest prompt that is recorded with the model
    written = gemma.tokenizer.decode(list(generate_rolling(gemma_model, opening, 40)))
    print(f"{written!r}\nwhat transformers writes: {written == by_transformers}")

# %% [markdown] id="35c272ab"
# ## What public programs got wrong
#
# Here are seven ways in which a sliding window with a cache goes wrong. Three of them are public bugs that were found later: 1 and 2 in LLMs-from-scratch ([#1013](https://github.com/rasbt/LLMs-from-scratch/issues/1013) and [#925](https://github.com/rasbt/LLMs-from-scratch/issues/925)), 4 in nanochat ([#452](https://github.com/karpathy/nanochat/issues/452)). Each loads every weight, raises no error, and is one change to what you wrote.
#
# `austen-gemma3` reads the passage above as it would while it answers: a prompt of 100 tokens in chunks of 50, then one token at a time, and then a *second* text with the same cache after a reset. After the same prompt it also writes nine tokens of its own. The code of the seven changes is in the folded cell.

# %% jupyter={"source_hidden": true} id="07938054"
from grader.instruments import patch

right_append, right_reset, right_mask = RollingCache.append, RollingCache.reset, window_mask


def forgets_before_a_chunk(self, k, v):
    keys, values = right_append(self, k, v)
    return (k, v) if k.shape[2] > 1 else (keys, values)


def not_reset(self):
    pass


def keeps_everything(self, k, v):
    """The cache grows with the text; the mask hides what is outside the window."""
    if self.length == 0:
        self.keys, self.values = k, v
    else:
        self.keys, self.values = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
    self.length += k.shape[2]
    return self.keys, self.values


def no_window_at_decode(queries, keys, window=None):
    return right_mask(queries, keys, window if queries > 1 else None)


def upper_left(queries, keys, window=None):
    return right_mask(keys, keys, window)[:queries] if queries > 1 else right_mask(queries, keys, window)


def one_too_short(queries, keys, window=None):
    return right_mask(queries, keys, window and window - 1)


class RotatesAgain:
    """A cache that rotates each old key by the new token's angle whenever it is read."""

    def __init__(self, cache, table):
        self.cache, self.table = cache, table

    def append(self, k, v):
        keys, values = self.cache.append(k, v)
        old = keys.shape[2] - k.shape[2]
        return torch.cat([apply_rope(keys[:, :, :old], self.table[:, -1:]), keys[:, :, old:]], dim=2), values


def rotated_again(self, x, table, window=None, cache=None):
    return right_attention(self, x, table, window, None if cache is None else RotatesAgain(cache, table))


right_attention = CachedAttention.forward
WRONG = {
    "nothing": [],
    "1 a chunk sees only itself": [patch.replaced(RollingCache, append=forgets_before_a_chunk)],
    "2 the pointer is not reset": [patch.replaced(RollingCache, reset=not_reset)],
    "3 the mask is in the wrong corner": [patch.replaced(globals(), window_mask=upper_left)],
    "4 no window once it decodes": [
        patch.replaced(RollingCache, append=keeps_everything),
        patch.replaced(globals(), window_mask=no_window_at_decode)],
    "5 a window one too short": [patch.replaced(globals(), window_mask=one_too_short)],
    "6 keys are rotated again": [patch.replaced(CachedAttention, forward=rotated_again)],
    "7 masked, and never trimmed": [patch.replaced(RollingCache, append=keeps_everything)],
}

# %% [markdown] id="00c2d007"
# With which of the seven does the model write the same nine tokens as with the right program? And which raise the loss on the passage (the mean surprise per token, 3.93 nats with the right program) by more than 0.1?

# %% prediction="sliding_window.same_words" id="prediction-sliding_window-same_words"
mistakes = [name for name in WRONG if name != "nothing"]
predict(
    "sliding_window.same_words", "mistakes with which the model writes the same nine tokens", some_of=mistakes,
    guess=...
)

# %% prediction="sliding_window.higher_loss" id="prediction-sliding_window-higher_loss"
predict(
    "sliding_window.higher_loss", "mistakes that raise the loss by more than 0.1 nats", some_of=mistakes,
    guess=...
)

# %% tags=["nbval-ignore-output"] id="e88878d9"
@torch.no_grad()
def read_then_decode(model: CachedLM, ids: Tensor, cache: list) -> Tensor:
    """The logits of 100 tokens in two chunks, then one by one: [1, T, vocab_size]."""
    chunks = [50, 50, *[1] * (ids.shape[1] - 100)]
    return torch.cat([model(piece, cache) for piece in ids.split(chunks, dim=1)], dim=1)

# %% id="91742d03"
def held_tokens(cache: list) -> int:
    """For how many tokens the caches of the sliding layers hold memory, on average."""
    rings = [layer for layer in cache if isinstance(layer, RollingCache)]
    return sum(rows_held(ring.keys) for ring in rings) // len(rings)

# %% tags=["nbval-ignore-output"] id="2378d3bd"
def effects() -> tuple[list[float], int, str]:
    """The losses on two texts, one after the other; for how many tokens memory is held; what the model writes."""
    cache, losses = model.new_cache(1, T), []
    for ids in (novel, second):
        losses.append(F.cross_entropy(read_then_decode(model, ids, cache)[0, :-1], ids[0, 1:]).item())
        held = held_tokens(cache)
        for layer in cache:
            layer.reset()
    text = austen.tokenizer.decode(list(generate_rolling(model, novel[:, :100], 9, chunk=50)))
    return losses, held, text

# %% tags=["nbval-ignore-output"] id="aae36dab"
from grader.instruments import progress

second = encode("Captain Wentworth " + passage[400:])[:, :200]
print(f"{'':33}   loss   second text   held   it goes on")
first_loss, goes_on = {}, {}
for name, changes in progress.steps(WRONG.items(), "programs"):
    with patch.together(*changes):
        losses, held, text = effects()
    first_loss[name], goes_on[name] = losses[0], text
    print(f"{name:33} {losses[0]:6.3f} {losses[1]:13.3f} {held:6}   {text!r}")
measured("sliding_window.same_words", [name for name in mistakes if goes_on[name] == goes_on["nothing"]])
measured("sliding_window.higher_loss", [name for name in mistakes if first_loss[name] > first_loss["nothing"] + 0.1])

# %% [markdown] id="1c589921"
# <details><summary>What the numbers say</summary>
#
# 1, 2 and 7 continue in the very same words as the right program. With 1 the tokens of a later chunk miss only what stands just before that chunk, and only in the sliding layers; the full layer still sees it. 2 does nothing wrong until there is a second text, and even there it costs 0.03 nats, which nobody would notice without the right number beside it. 1 and 5 change both losses by about a hundredth at most, much less than one passage differs from another. 5 changes the text after two tokens, into another that reads as well. 3, 4 and 6 raise the loss by 0.2 to 1 nat.
#
# 7 gives exactly right outputs; only its memory use is wrong. That is why the check of exercise 3 looks at what the cache *holds*.
# </details>

# %% [markdown] id="4172b13e"
# To catch the others, cut a text in many ways and compare with one uncut pass.
#
# ## How much arrives?
#
# Back to the question. Information *can* come from 63,426 tokens away. How much does? Move all channels of the first token's vector by the same tiny amount, and measure how far each vector of each layer moves with it. PyTorch computes that exactly: `forward_ad` carries the derivative along with every number. Take three stacks of twelve layers with random weights, a window of 8 and 128 tokens: all sliding; every sixth full; all full.
#
# In the first stack `reach` says up to which token anything can move at all. Does the derivative agree? And how fast does the movement fade on the way there?

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
    """How far the vector at each position moves when the first token's moves by 1, after each layer: [layers, T]."""
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
random_ids = torch.randint(100, (1, 128), generator=torch.Generator().manual_seed(1))
moved = {}
for name, kinds in patterns.items():
    torch.manual_seed(0)
    moved[name] = movement(CachedModel(small.replace(layer_types=kinds)).eval(), random_ids)
    print(f"{name:>17}: farthest that moves after each layer:", *(int(row.nonzero().max()) for row in moved[name]))
print(f"{'reach':>17}: farthest after each of 12 sliding layers:      ",
      *(reach(small.replace(layer_types=[SOME] * n), 128) for n in range(1, 13)))

# %% tags=["nbval-ignore-output"] id="11fcf1b8"
from grader.instruments import plots

pictures = []
for name, far in moved.items():
    around = plots.Axes("position in the text", "layer", name, size=(3.6, 2.9), colours=(0, 6))
    pictures.append(plots.grid(far.clamp(min=1e-6).log10() + 6, around, "orders of magnitude above 1e-6"))
plots.beside(*pictures)

# %% [markdown] id="228a0221"
# With sliding layers alone the edge moves by exactly W − 1 a layer, as you computed. But look at the colours: near the edge there is next to nothing. To get from the first token to the far edge, a change has to hop a whole window in every layer. Where attention is spread evenly, as it nearly is with random weights, each hop averages over W tokens and leaves a Wth of the change, and only one path of hops leads to the farthest token. With one full layer the change reaches every token in one hop, and is divided by the number of all tokens only once. A trained head can do better, since it need not spread its attention evenly.
#
# And in a *trained* model? `austen-gemma3` has five sliding layers with a window of 32 below one full layer. Five sliding layers reach 5 · 31 = 155 tokens. The first token's vector moves by 1. How far does the vector of token 155 move after the five sliding layers? Give it in powers of ten: 1 if it moves by a tenth, 2 if by a hundredth, and so on. With evenly spread attention it would move by $1/32^5$, which is 7.5 powers of ten.

# %% prediction="sliding_window.edge" id="prediction-sliding_window-edge"
predict(
    "sliding_window.edge", "how much less than 1 the farthest token moves", unit="powers of ten",
    guess=...
)
# %% [markdown] id="47e77419"
# The loss on the passage, beyond the first 32 tokens, is 3.90 nats. Change what the layers see, and no weights: give the full layer a window as well, or remove all windows, so that every layer sees everything. Which of these raises the loss by more than 0.1 nats?

# %% prediction="sliding_window.views" id="prediction-sliding_window-views"
predict(
    "sliding_window.views", "changes that raise the loss by more than 0.1 nats",
    some_of=("every layer has a window", "no layer has a window"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="e00842fc"
def always_a_window(queries, keys, window=None):
    return right_mask(queries, keys, window or 32)


variants = {
    "as trained, 5 sliding and 1 full": (austen.config, right_mask),
    "all sliding": (austen.config.replace(layer_types=[SOME] * 6), right_mask),
    "the full layer's own rotations, but a window": (austen.config, always_a_window),
    "all windows removed": (austen.config.replace(sliding_window=256), right_mask),  # longer than the passage
}

# %% tags=["nbval-ignore-output"] id="7a3ffedb"
print("nats a token: the first 32, and after them")
later = {}
for name, (config, mask) in variants.items():
    with patch.replaced(globals(), window_mask=mask), patch.replaced(model.model, config=config), torch.no_grad():
        nats = F.cross_entropy(model(novel)[0, :-1], novel[0, 1:], reduction="none")
        later[name] = nats[32:].mean().item()
        print(f"{name:>46}: {nats[:32].mean():.3f} {later[name]:.3f}")
asked = {"every layer has a window": "all sliding", "no layer has a window": "all windows removed"}
limit = later["as trained, 5 sliding and 1 full"] + 0.1
measured("sliding_window.views", [answer for answer, name in asked.items() if later[name] > limit])

# %% tags=["nbval-ignore-output"] id="9dbd0166"
moved_in_novel = movement(model.model, novel)
print("token   movement after the last sliding layer, after the full one")
for token in (8, 31, 62, 124, 155, 200, 255):
    print(f"{token:5} {moved_in_novel[4, token]:33.1e} {moved_in_novel[5, token]:20.1e}")
measured("sliding_window.edge", -moved_in_novel[4, 155].log10())

# %% [markdown] id="af0a8f3f"
# <details><summary>What the numbers say</summary>
#
# In the second line of the losses the full layer also gets the sliding layers' rotations; in the third only its view is limited. For this model the full layer is worth two hundredths of a nat at most. It is small, it was trained on 256 tokens at a time, and a novel can mostly be continued from its last sentence. Removing the windows hurts far more: a layer that has never seen a token 40 positions back does not know what to do with one.
#
# The table of movements is exact in one point: beyond token 155 the movement is 0.0 and not nearly 0. At 155 itself less than a millionth of a millionth is left, far less than even attention would give: these heads look mostly at the nearest tokens of their window. Through the full layer the first token still moves the last one.
# </details>

# %% [markdown] id="a7227748"
# ### Exercise 7 · How far back does a trained model look?
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# `reach` says what can arrive, and the derivative how far a tiny change is felt. Neither says what distant tokens are *worth*. This experiment is yours: let the model predict a token from the last n tokens before it and nothing else, for n = 1, 2, 4 and so on. Where the loss stops falling, it has stopped looking.
#
# Two things make such numbers comparable. Every n predicts the *same* tokens, since some tokens are harder than others. And every prediction has read exactly n tokens. A text that is cut into pieces of n does not give that: its tokens have read half of a piece on average.
#
# <details><summary>Hint 1</summary>
#
# Which tokens have max(contexts) tokens before them? Only those are predicted, for a short context as well.
#
# <details><summary>Hint 2</summary>
#
# The pieces of n tokens overlap: the next one begins one token later. `ids.unfold(0, n, 1)` has all of them as rows. Which is the first that you need, and which the last?
#
# <details><summary>Hint 3</summary>
#
# A model that reads a piece gives logits at each of its tokens. Which of them has read all n?
# </details>
# </details>
# </details>

# %% exercise="sliding_window.nats_by_context" id="sliding_window-nats_by_context"
def nats_by_context(model: nn.Module, ids: Tensor, contexts: list[int]) -> list[float]:
    """The mean loss at the next token, in nats, of a model that has read only the n tokens before it; for each n.

    ids: [T], one text. For every n in contexts the same tokens are predicted: all that have at least max(contexts)
    tokens before them in ids. The numbers come in the order of contexts, which may be any.
    model(pieces) gives logits [B, n, vocab_size] for pieces [B, n]; what it reads begins with the piece.
    """
    ### BEGIN SOLUTION
    nats, first = [], max(contexts)
    with torch.no_grad():
        for n in contexts:
            pieces = ids.unfold(0, n, 1)[first - n : len(ids) - n]  # [T - first, n]
            logits = model(pieces)[:, -1]  # [T - first, vocab_size]
            nats.append(F.cross_entropy(logits, ids[first:]).item())
    return nats
    ### END SOLUTION

# %% check="sliding_window.nats_by_context" tags=["nbval-ignore-output"] id="check-sliding_window-nats_by_context"
check("sliding_window.nats_by_context", nats_by_context)

# %% [markdown] id="b4c178c8"
# Now run it on austen-gemma3, whose windows are 32 tokens long and whose full layer sees everything. Contexts from 1 to 128 tokens, on the last 128 tokens of the passage.
#
# With 128 tokens before it a token costs less than with 1. How many tokens are enough for half of that gain?

# %% prediction="sliding_window.half" id="prediction-sliding_window-half"
predict(
    "sliding_window.half", "tokens that bring half of what 128 bring", unit="tokens",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="6685ae32"
contexts = [1, 2, 4, 8, 16, 32, 64, 128]
by_context = nats_by_context(model, novel[0], contexts)
gained = [(by_context[0] - nats) / (by_context[0] - by_context[-1]) for nats in by_context]
for n, nats, share in zip(contexts, by_context, gained, strict=True):
    print(f"{n:4} tokens read: {nats:.2f} nats, {share:4.0%} of the gain")
measured("sliding_window.half", next(n for n, share in zip(contexts, gained, strict=True) if share >= 0.5))

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="d220e55f"
around = plots.Axes("tokens read", "nats at the next token", log="x", xticks=contexts, marks={"x32": "the window"})
plots.lines({"austen-gemma3": (contexts, by_context)}, around)

# %% [markdown] id="8ef06c57"
# <details><summary>What the numbers say</summary>
#
# Two. The last token and the one before it bring more than half of what 128 bring, 8 tokens nine tenths. Everything beyond the window of 32 adds 2%, although the full layer sees it, and although five sliding layers alone could reach back 155 tokens. So this model looks far less back than it can, which is why its full layer was worth so little above.
#
# These are 128 tokens of one text and a model of two million parameters, trained on 256 tokens at a time. Khandelwal et al. (2018) measured larger models that were not transformers in this way: they used about 200 tokens, and knew the order of the last 50 only. Measure a model before you believe what its context is good for.
# </details>

# %% [markdown] id="a4a694a0"
# ### What are the full layers for?
#
# Two hundredths of a nat would not justify them. So ask for something that only a full layer can give: an exact memory of something far back. Gemma 3 270M reads a sentence that it cannot guess, then some tokens of *Persuasion*, then the same sentence again. Its window is 512: with 540 tokens between, the second reading cannot see the first one in a sliding layer.
#
# On the first reading a token of the sentence costs 6.0 nats. On the second, after 540 tokens, it costs 1.4: the model looks the sentence up. Now all 18 layers get a window of 512. Together they still reach 9,198 tokens back. What does the second reading cost then?

# %% prediction="sliding_window.again" id="prediction-sliding_window-again"
predict(
    "sliding_window.again", "second reading, with a window in every layer", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="139a32e2"
@torch.no_grad()
def nats_twice(lm: CachedLM, ids: Tensor, length: int) -> list[float]:
    """The loss on the first and on the last `length` tokens of ids [1, T], apart from ids[0, 0]."""
    vectors, total = lm.model(ids), ids.shape[1]
    starts = 1, total - length
    return [
        F.cross_entropy(lm.lm_head(vectors[0, a - 1 : a - 1 + length]), ids[0, a : a + length]).item() for a in starts
    ]

# %% tags=["nbval-ignore-output"] id="b5687878"
if gemma_model is not None:
    sentence = " The brass key of the blue cabinet lies under the seventh flowerpot, behind the marble heron."
    once = gemma.tokenizer.encode(sentence, add_special_tokens=False).ids
    bos, *page = gemma.goldens[-1].prompt_ids
    between = page * 2  # two times the same 532 tokens, for the longest distance
    windowed = {}
    for distance in progress.steps((100, 300, 480, 540, 1000), "distances"):
        twice = torch.tensor([[bos, *once, *between[:distance], *once]])
        first, again = nats_twice(gemma_model, twice, len(once))
        with patch.replaced(globals(), window_mask=lambda q, k, window=None: right_mask(q, k, window or 512)):
            _, windowed[distance] = nats_twice(gemma_model, twice, len(once))
        print(f"{distance:5} tokens between: first reading {first:.2f} nats, second {again:.2f},"
              f" with a window in every layer {windowed[distance]:.2f}")
    measured("sliding_window.again", windowed[540])

# %% [markdown] id="635df7ce"
# <details><summary>What the numbers say</summary>
#
# 6.5 nats: as much as if the model had never read the sentence, and even a little more. Up to 480 tokens between, the second reading still sees the first one in every layer, and the windows on the full layers change nothing. With 540 it does not, and the loss goes from 1.2 to 6.5 nats between these two distances, where the mask has its edge. Eighteen windows could pass information on over thousands of tokens, and the exact words still do not arrive. With its full layers the model finds the sentence at every distance, though less surely at 1,000 tokens.
#
# (Without the weights on your machine you have to take these numbers from here. austen-gemma3 is too small to repeat a sentence at all.)
# </details>

# %% [markdown] id="19a8c44e"
# A full layer finds the sentence by reading all 579 tokens. Does it have to? Let each of the three full layers read only 8 tokens, for every query those with the largest attention weights, added up over the heads (folded: attention that does so). With 540 tokens between the two readings, the model as it is pays 1.4 nats for the second. What does it pay with 8 tokens in each full layer?

# %% prediction="sliding_window.few" id="prediction-sliding_window-few"
predict(
    "sliding_window.few", "second reading, when full layers read 8 tokens", unit="nats",
    guess=...
)

# %% jupyter={"source_hidden": true} id="8b2c9bdb"
class ReadsFew(CachedAttention):
    """A full layer that reads, for each query, only the `few` tokens with the largest weights, the same for all heads."""

    few = 8

    def forward(self, x: Tensor, table: Tensor, window: int | None = None, cache: KVCache | None = None) -> Tensor:
        if window is not None:
            return super().forward(x, table, window, cache)
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)
        q, k = apply_rope(q, table), apply_rope(k, table)
        k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))
        scores = (q @ k.mT * self.scale).masked_fill(~window_mask(T, T), float("-inf"))  # [B, H, T, T]
        largest = scores.softmax(dim=-1).sum(dim=1).topk(min(self.few, T)).indices  # [B, T, few]
        left_out = torch.ones_like(scores[:, 0], dtype=torch.bool).scatter(-1, largest, False)  # [B, T, T]
        weights = scores.masked_fill(left_out[:, None], float("-inf")).softmax(dim=-1)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(B, T, -1))

# %% tags=["nbval-ignore-output"] id="e7b6d466"
if gemma_model is not None:
    twice = torch.tensor([[bos, *once, *between[:540], *once]])
    attentions = [layer.self_attn for layer in gemma_model.model.layers]
    with patch.replaced(globals(), window_mask=lambda q, k, window=None: right_mask(q, k, window or 8)):
        print(f"full layers read the last 8: {nats_twice(gemma_model, twice, len(once))[1]:.2f} nats")
    for attention in attentions:
        attention.__class__ = ReadsFew
    _, few = nats_twice(gemma_model, twice, len(once))
    for attention in attentions:
        attention.__class__ = CachedAttention
    print(f"the 8 with the largest weights: {few:.2f} nats")
    measured("sliding_window.few", few)

# %% [markdown] id="c115297f"
# <details><summary>What the numbers say</summary>
#
# 1.1 nats, less than with all 579 tokens: each of these queries needs only a few tokens, and those are far away. The last 8 tokens are worth nothing for that: with them the second reading costs more than the first. So what a full layer has to do is *find* the right tokens. It read all of them here to know their weights. Lesson 08 is about finding them with less work.
# </details>

# %% [markdown] id="076e3bcd"
# The first experiment shows what the full layers of a trained model are *used* for. A model trained with windows alone might find other ways, but none that reaches back exactly over more than a window in one hop.
#
# How many full layers are enough? Gemma 2 (2024) alternated: one sliding layer of 4,096 tokens, one full. Gemma 3 has five sliding layers of 1,024 (512 in the smallest models) for each full one. Its report (section 5.2) trained models with other ratios and windows. The perplexity, the exponential of the loss, hardly changed, even with seven sliding layers for each full one; the report shows that in a plot, without numbers. For the memory it gives numbers: at 32,000 tokens the cache of a model of 2 billion parameters added 60% to its memory with full layers alone, and less than 15% with three sliding layers of 1,024 for each full one. Why 5:1 and 1,024 were chosen among the ratios that did as well, it does not say, and this course has trained no other ratios: that question stays open here.
#
# ![For a text of 8,192 tokens, twelve layers each. Gemma 2 alternates sliding layers of 4,096 tokens with full layers and caches 75% of what full layers would. Gemma 3 has five sliding layers of 1,024 for each full layer and caches 27%.](figures/gemma2-and-gemma3.svg)
#
# ## Memory
#
# ### Exercise 8 · Bytes, with windows
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Lesson 02's formula, with one change: a sliding layer caches `sliding_window` tokens at most, and no more than there are. Each layer counts by its kind, `layer_types(config)`.
#
# <details><summary>Hint 1</summary>
#
# First: what does one token cost in one layer? Then: how many tokens does each layer cache?
#
# <details><summary>Hint 2</summary>
#
# A text of 10 tokens and a window of 512. How many tokens are cached?
# </details>
# </details>

# %% exercise="sliding_window.bytes" id="sliding_window-bytes"
def cache_bytes(config: Config, context: int, batch: int = 1, element_bytes: int = 2) -> int:
    """How many bytes the keys and values of `batch` texts of `context` tokens take, in all layers.

    A "full_attention" layer caches every token, a "sliding_attention" one config.sliding_window at most.
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
# Does the formula agree with memory? Create the caches, and count the bytes behind their tensors. At 8,192 tokens, sixteen windows of 512, how many times as much memory would Gemma 3 270M need without windows?

# %% prediction="sliding_window.saved" id="prediction-sliding_window-saved"
predict(
    "sliding_window.saved", "cache of Gemma 3 270M without windows at 8,192 tokens", unit="times as much",
    guess=...
)

# %% id="941a269b"
gemma_config = Config.read("configs/gemma-3-270m.json")

# %% id="080e91e8"
narrow = gemma_config.replace(vocab_size=1, hidden_size=4, intermediate_size=1)  # its caches are as large as Gemma's
for dtype, batch in ((torch.float32, 1), (torch.bfloat16, 3)):
    body = CachedModel(narrow).to(dtype)
    print(f"{dtype}, batch {batch}:   tokens    measured     formula    without windows")
    for tokens in (64, 512, 513, 2048, 8192):
        taken = work.bytes_held(body.new_cache(batch, tokens))
        formula = cache_bytes(gemma_config, tokens, batch, dtype.itemsize)
        full = cache_bytes(gemma_config.replace(layer_types=["full_attention"] * 18), tokens, batch, dtype.itemsize)
        print(f"{tokens:30,} {taken:11,} {formula:11,} {full:11,}, {full / formula:.2f} times as much")
        assert taken == formula
measured("sliding_window.saved", full / taken)

# %% [markdown] id="0b2ccac5"
# <details><summary>What the numbers say</summary>
#
# Less than five times as much. The assertion holds to the byte. Up to the window nothing is saved. After it each token costs 3 layers instead of 18, and the ratio approaches 6: of six layers one is full. That is the most that 5:1 can give, however small the window.
# </details>

# %% [markdown] id="c5203679"
# The same with the real weights, if they are here. The longest prompt is read with either kind of cache; then the caches for a longer text are created and measured.

# %% tags=["nbval-ignore-output"] id="8783dda5"
def cache_with_window(lm: CachedLM, window: int, tokens: int) -> list:
    """The caches that the model would make if its window were this one."""
    with patch.replaced(lm.model, config=lm.model.config.replace(sliding_window=window)):
        return lm.new_cache(1, tokens)

# %% tags=["nbval-ignore-output"] id="7e730c2d"
if gemma_model is not None:
    prompt = torch.tensor([list(gemma.goldens[-1].prompt_ids)])
    length, window = prompt.shape[1], gemma.config.sliding_window
    rolling, full = (cache_with_window(gemma_model, size, length) for size in (window, length))
    with torch.no_grad():
        for piece in prompt.split(128, dim=1):
            off = (gemma_model.model(piece, rolling) - gemma_model.model(piece, full)).abs().max().item()
    print(f"the vectors of the prompt's last chunk differ by at most {off:.1e}")
    for tokens in (length, 8192):
        sizes = [work.bytes_held(cache_with_window(gemma_model, size, tokens)) / 1e6 for size in (window, tokens)]
        print(f"{tokens:5,} tokens: {sizes[0]:6.2f} MB with rings, {sizes[1]:6.2f} MB without")

# %% [markdown] id="0e3f875d"
# Now the talk's chart. A model has 36 layers, 4,096 wide, five sliding layers for each full one, a window of 2,048. (Only the width counts here: 32 heads of 128.) How many GB remain of 77 at 131,072 tokens?

# %% id="69a81740"
talk = Config({"model_type": "gemma3_text", "num_hidden_layers": 36, "num_key_value_heads": 32, "head_dim": 128,
               "sliding_window": 2048})
full_only = ["full_attention"] * 36
for name, heads in (("MHA", 32), ("GQA, 4 query heads for each", 8)):
    config = talk.replace(num_key_value_heads=heads)
    before, after = cache_bytes(config.replace(layer_types=full_only), 131_072), cache_bytes(config, 131_072)
    print(f"{name:>28}: {before / 1e9:6.2f} GB, with windows {after / 1e9:6.2f} GB: {before / after:.2f} times less")

# %% [markdown] id="1326130c"
# 13.9 GB remain.
#
# The talk showed three ways to a smaller cache, each with a chart for a model of its own: GQA (fewer heads), MLA (one short vector, a latent, instead of keys and values: lesson 05), SWA, sliding window attention (fewer tokens). Here all three have the same axes, so that they can be compared: how much of the same model's MHA cache is left.

# %% tags=["nbval-ignore-output"] id="4b376170"
from grader.kv import bytes_at

context_lengths = [1024 * n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
one_wide_head = Config({"num_hidden_layers": 48, "num_attention_heads": 24, "num_key_value_heads": 1, "head_dim": 2048})
mha = {"GQA": one_wide_head, "MLA": one_wide_head, "SWA": talk.replace(layer_types=full_only)}  # only the width counts
methods = {
    "GQA": {f"{n} share one": mha["GQA"].replace(head_dim=2048 // n) for n in (2, 4, 8)},  # only the product counts
    "MLA": {f"latent {n}": Config({"num_hidden_layers": 48, "kv_lora_rank": n}) for n in (1024, 512, 256, 64)},
    "SWA": {"MHA, window 2,048, 5:1": talk, "GQA, 4 share one, and the window": talk.replace(num_key_value_heads=8)},
}

# %% tags=["nbval-ignore-output"] id="b19f14f3"
left = {}
for method, configs in methods.items():
    before = [bytes_at(mha[method], c) for c in context_lengths]
    print(f"{method}: MHA {before[-1] / 1e9:.2f} GB at 131,072 tokens")
    for name, config in configs.items():
        sizes = [bytes_at(config, c) for c in context_lengths]
        print(f"     {name:>34}: {sizes[-1] / 1e9:6.2f} GB, {sizes[-1] / before[-1]:6.1%} of it")
        left[f"{method}: {name}"] = context_lengths, [100 * s / b for s, b in zip(sizes, before, strict=True)]

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
# GQA and MLA lower every line by a factor that does not depend on the length. A window saves nothing in short texts and more and more in long ones, down to the share of full layers. The three concern different things (heads, the width of what is cached, the number of tokens), so their factors multiply: Gemma 3 and many others use GQA *and* windows. The talk's MLA chart leaves out the rotated key that all heads share; lesson 05 counts it.
#
# For a real model with windows two numbers are needed: what a token costs before the window is full, and after.

# %% id="cb3f4a10"
print(f"{'KiB a token, bfloat16':>24} {'before':>8} {'after':>8}   {'at 131,072 tokens':>18}")
for name in ("Gemma 3 270M", "Gemma 3 27B"):
    config = known_model(name)
    first, later = cache_bytes(config, 1), cache_bytes(config, 10_001) - cache_bytes(config, 10_000)
    print(f"{name:>24} {first / 1024:8.0f} {later / 1024:8.0f}   {cache_bytes(config, 131_072) / 1e9:15.2f} GB")

# %% [markdown] id="18043ec4"
# ### Windows or fewer heads?
#
# The panel of lesson 02, with your window: Gemma 3 27B at 131,072 tokens. What saves more, its windows (1,024, five of six layers) or 8 key-value heads in place of its 16?

# %% tags=["nbval-ignore-output"] id="70fe4b82"
from grader.kv import kv_panel

kv_panel("Gemma 3 27B", context=131_072)

# %% [markdown] id="2da0ba5a"
# The windows: they take 66.6 GB to 11.2 GB, a factor of 6. Half as many key-value heads would be a factor of 2.
#
# ## Time
#
# In a full layer the next token's query is compared with every key, so each token takes longer than the one before. In a sliding layer it is compared with W. Clock three small models with random weights: all layers full, five sliding and one full, all sliding with a window of 256.
#
# After 4,096 tokens each full layer compares the query with 16 times as many keys as a sliding one. On this machine, how many times as long does the next token take with all layers full as with all sliding? And in the sliding model, how many times as long does the token after 4,096 tokens take as the one after 256?

# %% prediction="sliding_window.full_time" id="prediction-sliding_window-full_time"
predict(
    "sliding_window.full_time", "all full against all sliding, after 4,096 tokens", unit="times as long",
    guess=...
)

# %% prediction="sliding_window.flat" id="prediction-sliding_window-flat"
predict(
    "sliding_window.flat", "all sliding: the token after 4,096 tokens, against 256",
    one_of=("about as long", "about 4 times as long", "about 16 times as long"),
    guess=...
)

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
    """A call that reads one more token, of a model with random weights whose caches hold `length` random ones."""
    torch.manual_seed(0)
    body = CachedModel(clocked.replace(layer_types=kinds)).eval()
    cache = body.new_cache(1, length + REPEATS + 1)
    for layer in cache:
        layer.append(*torch.randn(2, 1, clocked.num_key_value_heads, length, clocked.head_dim))
    return partial(body, torch.zeros(1, 1, dtype=torch.int64), cache)

# %% tags=["nbval-ignore-output"] id="080f92bb"
from grader.instruments import clock

prepared = {(name, n): next_token(kinds, n) for name, kinds in timed_patterns.items() for n in lengths}
times = clock.in_turns(prepared, REPEATS)
spent = {name: [times[name, n] for n in lengths] for name in timed_patterns}
print(f"{'ms for the token after':>22} {''.join(f'{n:8,}' for n in lengths)}")
for name, own in spent.items():
    print(f"{name:>22} {''.join(f'{ms:8.2f}' for ms in own)}")
measured("sliding_window.full_time", times["all full", 4096] / times["all sliding, W = 256", 4096])
longer = times["all sliding, W = 256", 4096] / times["all sliding, W = 256", 256]
kinds = ("about as long", "about 4 times as long", "about 16 times as long")
measured("sliding_window.flat", kinds[(longer > 2) + (longer > 8)])

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="9ecf6011"
curves = {name: (lengths, times) for name, times in spent.items()}
around = plots.Axes("tokens so far", "ms for the next token", log="x", xticks=lengths, ylim=(0, None), marks={"x256": "W"})
plots.lines(curves, around)

# %% [markdown] id="b51d59eb"
# <details><summary>What the numbers say</summary>
#
# Far less than 16 times as long, although there are 16 times as many keys. The exact number depends on the machine, and on what else runs on it. In these small layers the comparison with the keys is only a part of a step, and the ring itself costs something, because it copies W keys and values a step to return them in order. So up to a few windows the sliding model can be slower than the full one. It saves time only in longer texts.
#
# Beyond the window the curve of the sliding layers is flat: the token after 4,096 takes about as long as the one after 256. With full layers the time grows with the text, and with 5:1 more slowly, because one layer in six sees all of it.
# </details>

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="56f2a12b"
# ## What changed, and why
#
# | | full attention | sliding window | what it costs |
# |---|---|---|---|
# | a token sees | everything before it | W tokens, itself among them | what is farther away arrives only through other layers |
# | cached in a layer | every token | W tokens at most | the cache has to overwrite |
# | memory at T tokens | grows with T | constant beyond W | nothing is saved before W |
# | the next token | is compared with T keys | is compared with W keys | a copy of W keys and values a step, if they are returned in order |
# | positions | how many keys there are | a number of its own, `length` | one more thing to get wrong |
# | a chunk of a prompt | all keys are there | W − 1 old ones, returned before they are overwritten | forgotten in a real program |
# | mask | aligned at the lower right | the same, and limited to W | one too many, one too few |
# | reset | `length = 0` | the same | forgotten in a real program |
# | what predicts the next token | any distance | in austen-gemma3 32 tokens bring 98% of what 128 bring | little, until a text asks for something far back |
# | a stack of layers | one hop to anywhere | W − 1 a layer | a few full layers stay, for exact memory: 5:1 in Gemma 3 |
#
# ## The questions again
#
# <details><summary>A window of 1,024 and 62 layers: how far back can information come from?</summary>
#
# With sliding layers alone 62 · 1,023 = 63,426 tokens; in the real Gemma 3 27B from anywhere, because ten of its layers are full. Where heads spread their attention evenly, next to nothing of it arrives through sliding layers alone: every layer averages it with W − 1 other tokens. A trained head can do better; of austen-gemma3's less than a millionth of a millionth arrived at the far edge.
# </details>
#
# <details><summary>Why are a few layers full?</summary>
#
# For exact memory of what is far back. When Gemma 3 270M reads a sentence again after 540 tokens, the loss is 1.4 nats instead of 6.0. With a window in every layer it is 6.5, as if it had never read the sentence.
# </details>
#
# <details><summary>How far back does a trained model look?</summary>
#
# Less far than it can. In austen-gemma3, two tokens bring more than half of what 128 bring, 8 tokens nine tenths, and all that is beyond its window of 32 brings 2%. Predict the same tokens from the last 1, 2, 4 and so on, and see where the loss stops falling. That is one small model and one text.
# </details>
#
# <details><summary>Why does a window save no memory by itself?</summary>
#
# A mask only hides. Memory is saved only if old tokens are dropped. The output is the same either way.
# </details>
#
# <details><summary>A chunk of 100 tokens comes to a ring of 32. What must append return?</summary>
#
# The 31 latest old ones, which the chunk's first token sees (the second sees 30 of them, and so on), and all 100 new ones. The ring then stores the last 32 of them.
# </details>
#
# <details><summary>Why can't the model ask the ring how many tokens it holds, to know the next position?</summary>
#
# The answer would stop at W, and every later token would get the same position. The cache has to count all tokens, also those that it has dropped.
# </details>
#
# <details><summary>Does the order of the slots matter, and why are keys not rotated again when they are overwritten around the ring?</summary>
#
# No: attention sums over keys, and shuffled slots change only rounding. A key was rotated by the angle of its own position when it was computed. Its slot does not matter: the product of a query and a key depends only on the difference of their positions.
# </details>
#
# <details><summary>Which of the mistakes shows in no text?</summary>
#
# A chunk that sees only itself: the text in the experiment is the same, and the loss moves by a hundredth at most. The pointer that is not reset: the first text is right. A cache that masks and never drops: its outputs are exactly right, and only its memory tells.
# </details>
#
# <details><summary>By how much can 5:1 shrink a cache, at most?</summary>
#
# By 6, for texts much longer than the window: one layer in six is full, and its cache grows with the text.
# </details>
#
# ## Where to read on
#
# - Beltagy et al., *Longformer* (2020), section 3.1: windows, and how stacked layers see farther. Child et al., *Generating Long Sequences with Sparse Transformers* (2019).
# - Khandelwal et al., *Sharp Nearby, Fuzzy Far Away: How Neural Language Models Use Context* (2018): the experiment of exercise 7, with words left out, exchanged and shuffled.
# - Jiang et al., *Mistral 7B* (2023), section 2: sliding windows in all layers, the rolling buffer cache, and prompts in chunks.
# - Gemma Team, *Gemma 3 Technical Report* (2025), section 5.2: how the ratio of local to global layers and the window were chosen, and what the cache takes.
# - The reference: `transformers/cache_utils.py`, `DynamicSlidingWindowLayer` and `StaticSlidingWindowLayer`; `masking_utils.py`, `sliding_window_overlay`.
#
# ## If you want more
#
# When a single token comes and the ring is full, the keys need not be returned in order: you saw that the order of the slots does not matter, and all of them may be seen. So `append` could write first and return the ring itself, without a copy. Write a cache with that path (of its own class: the check of exercise 3 asks for the order), and show that the model's results agree within rounding. By how much does the line of the sliding layers fall in the last plot?
#
# Then the harder one. Models that were trained without windows can be given one afterwards, if the *first* four tokens of the text stay visible to every later token (attention sinks; Xiao et al., 2023, *Efficient Streaming Language Models with Attention Sinks*, section 3.2). Write the mask, and the cache that stores 4 + W tokens. Which positions do the four get?
