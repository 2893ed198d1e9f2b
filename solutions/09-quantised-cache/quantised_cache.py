# %% [markdown] id="3cfb0676"
# # 09 · Quantised caches: fewer bits for the same number
#
# **Can a key be kept in 3 bits? What is lost, where, and who measured it?**
#
# In March 2026 Google Research wrote that *TurboQuant* "can quantize the key-value cache to just 3 bits without requiring training or fine-tuning and causing any compromise in model accuracy". Within weeks there were versions of it for a dozen inference engines. Some people report that it works, some that it writes garbage, and several that it works only without one of its two halves. Here is what they wrote:
#
# | who | what they report |
# |---|---|
# | the paper (Zandieh et al., 2025, abstract) | "quality neutrality" at 3.5 bits a number, a small loss at 2.5 |
# | the talk that this course follows | a score of 50.06 at 3.5 bits, as with the full cache |
# | <a href="https://github.com/vllm-project/vllm/pull/38479">vllm-project/vllm#38479</a> | merged. One tester's reasoning score goes from 71.4% to 92.9% when the second half, QJL, is switched *off* |
# | <a href="https://github.com/ml-explore/mlx-lm/issues/1060">ml-explore/mlx-lm#1060</a> | QJL looked bad because its scale was 11 times too small and its matrix not orthogonal. With both changed, one tester's model finds 100% of what it is asked for, and not 0% |
# | <a href="https://github.com/quantumaikr/quant.cpp/issues/14">quantumaikr/quant.cpp#14</a> | Llama 3.2 3B in 4 bits: perplexity +18%, and +6% with plain rounding |
# | <a href="https://github.com/ml-explore/mlx-lm/pull/1555">ml-explore/mlx-lm#1555</a> | Qwen3 1.7B: perplexity 10.7 in 16 bits, 12.8 rotated in 4, 160 in 3, 27 in 3 with QJL |
# | <a href="https://github.com/ggml-org/llama.cpp/pull/21038">ggml-org/llama.cpp#21038</a> | merged: the rotation alone, in front of the formats that were there already |
#
# They can't all be right about the same thing. **What would convince you?** Write it down now: which model, which text, which number, compared with what. At the end you will have your own measurement, and you can hold it against your own demand.
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# After this lesson you can
#
# - quantise keys and values by the usual ways, with one scale for a tensor, a channel, a token or a group, and pack the codes into real bytes;
# - write both forms of TurboQuant from the paper, and reproduce its table of errors;
# - build a cache that encodes old tokens and keeps new ones, and say from a `config.json` how many bytes it takes;
# - measure what each way costs a trained model, and say what your measurement does not show.
#
# 160 to 240 minutes · difficulty ●●●●○ · you know a KV cache (lesson 02) and Qwen3 (lesson 03); their code is given

# %% tags=["setup"] id="setup"
import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import pairwise
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="20a2b2a1"
# The first guess is about the claim itself. SmolLM2, a model of 135 million parameters, reads two texts of 512 tokens. With keys and values in 16 bits its loss is 3.73 nats a token. With TurboQuant's first half, in 3 bits, how much higher is it? (A rise of 0.01 nats is 1% more perplexity; 0.1 is 11%, 1 is 2.7 times as much.) The measurement comes near the end.

# %% prediction="quantised_cache.three_bits" id="prediction-quantised_cache-three_bits"
predict(
    "quantised_cache.three_bits", "rise of the loss with keys and values in 3 bits, SmolLM2", unit="nats",
    guess=...
)

# %% [markdown] id="fa919ac2"
# Lesson 03's model is given (folded), and a version of it that reads with a cache. The cache of a layer has one method, `append`: it takes the keys and values of new tokens and returns those of all tokens. What happens in between is up to the cache, and that is where this lesson works.

# %% tags=["setup"] id="setup-2"
def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% given="03-qwen3 qwen3.attention" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-attention"

# %% given="03-qwen3 qwen3.decoder_layer" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-decoder_layer"

# %% given="03-qwen3 qwen3.model" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-model"

# %% given="03-qwen3 qwen3.causal_lm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-causal_lm"

# %% tags=["setup"] jupyter={"source_hidden": true} long="one class, with its shapes" id="setup-3"
class CachedAttention(Attention):
    """Lesson 03's attention for T new tokens that follow those in a cache. Parts and names are the same.

    cache: append(k, v) -> all keys, all values, both [B, KV, T_k, head_dim], the new ones last; or None.
    x: [B, T, D], the new tokens alone; table: [2, T, head_dim], their rotations -> [B, T, D].
    """

    def forward(self, x: Tensor, table: Tensor, cache=None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(diagonal=k.shape[2] - T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)  # [B, H, T, head_dim]
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))


class CachedLayer(DecoderLayer):
    """Lesson 03's layer; attention gets the cache of its layer."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.self_attn = CachedAttention(config)

    def forward(self, x: Tensor, table: Tensor, cache=None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

# %% tags=["setup"] id="setup-4"
class PlainCache:
    """All keys and values of one layer as they came: what a quantised cache is compared with."""

    def __init__(self):
        self.keys = self.values = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """2 x [B, KV, T, head_dim] -> 2 x [B, KV, length, head_dim], where length has grown by T."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        self.length = self.keys.shape[2]
        return self.keys, self.values

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-5"
class CachedLM(CausalLM):
    """Lesson 03's model, which reads with a cache. make_cache: makes that of one layer."""

    make_cache = PlainCache

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.layers = nn.ModuleList(CachedLayer(config) for _ in range(config.num_hidden_layers))

    def new_cache(self) -> list:
        return [self.make_cache() for _ in self.model.layers]

    def forward(self, ids: Tensor, cache: list | None = None) -> Tensor:
        """ids: [B, T], the new tokens; cache: one for each layer -> [B, T, vocab_size]."""
        start = cache[0].length if cache else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, head_dim(self.config), rope_theta(self.config))
        x = self.model.embed_tokens(ids)  # [B, T, D]
        for i, layer in enumerate(self.model.layers):
            x = layer(x, table, cache[i] if cache else None)
        return self.lm_head(self.model.norm(x))

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-10"
@torch.no_grad()
def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: each token is read once.

    ids: [1, T] int64, the prompt. Ends after max_new_tokens, or once one of end_tokens has been yielded.
    """
    cache = model.new_cache()
    for _ in range(max_new_tokens):
        ids = model(ids, cache)[:, -1:].argmax(dim=-1)  # [1, 1], the next to read
        yield ids.item()
        if ids.item() in end_tokens:
            return

# %% [markdown] id="1e8fb9da"
# ## Steps 1 to 5 · Read the config, compare
#
# The steps are those of the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026). The news was above, and this time it brings no new model. The config is one that you know; what changes is how its cache is stored.
#
# How large is the problem? Lesson 02 counted: each token leaves a key and a value in every layer and KV head. Qwen3 8B, with 36 layers, 8 KV heads and heads of 128, keeps 36 · 8 · 2 · 128 numbers. How many KiB is that for one token in 16 bits? And how long a text fits into 8 GB, in 16 bits and in 3?

# %% id="5fcd4904"
from pathlib import Path

configs = {name: Config.read(f"configs/{name}.json") for name in ("smollm2-135m", "qwen3-8b")}
big = configs["qwen3-8b"]
numbers = 2 * big.num_hidden_layers * big.num_key_value_heads * head_dim(big)  # for one token
for bits in (16, 8, 4, 3):
    print(f"{bits:2} bits: {numbers * bits / 8 / 1024:5.0f} KiB a token, {8e9 / (numbers * bits / 8):9,.0f} tokens in 8 GB")

# %% [markdown] id="43a896c7"
# 144 KiB, and the text can be five times as long with 3 bits. GQA, MLA and windows (lessons 03, 05, 06) need another model, trained so from the start. Fewer bits can be had for any model that exists, today. That is why everybody wants it to work.
#
# ## Look before you round
#
# Which numbers are these? Take a trained model, let it read the beginning of *Persuasion*, and look into its cache. With SmolLM2's weights on this machine (`grader weights get smollm2-135m-instruct`, 98 MB) it is SmolLM2; without them it is `austen-qwen3`, whose keys have smaller outliers. Then not only your numbers differ from those in the text: some conclusions are the other way round. TurboQuant's second form in 4 bits, for example, costs SmolLM2 five times as much for keys as for values, and `austen-qwen3` a third as much. The comparison of all codecs at the end is stored, and the same for everybody.

# %% tags=["nbval-ignore-output"] id="c9dbe39b"
checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True) or load_checkpoint("austen-qwen3")
model = checkpoint.build(CachedLM)
persuasion = Path("texts/persuasion.txt").read_text(encoding="utf-8")
held_out = torch.tensor([checkpoint.tokenizer.encode(persuasion, add_special_tokens=False).ids[:256]])  # [1, 256]
width, layers = head_dim(checkpoint.config), len(model.model.layers)

plain = model.new_cache()
with torch.no_grad():
    model(held_out, plain)
keys = torch.cat([cache.keys for cache in plain])  # [layers, KV, T, head_dim]
values = torch.cat([cache.values for cache in plain])
print(f"{checkpoint.name}: {layers} layers, keys {list(keys.shape)}")

# %% [markdown] id="10db0f83"
# One layer, in the middle. For each channel of the first KV head: the largest number, whatever its sign, that any of the 256 tokens has there. Are the channels alike? Is it the same for keys and values?

# %% tags=["nbval-ignore-output"] id="6c22ba96"
from grader.instruments import plots

middle, charts = layers // 2, []
for name, rows in (("keys", keys), ("values", values)):
    largest = rows[middle, 0].abs().amax(dim=0)  # [head_dim]
    around = plots.Axes("channel", "largest size", f"{name}, layer {middle}", ylim=(0, None), size=(5, 2.6))
    charts.append(plots.lines({"_": (range(width), largest)}, around))
plots.beside(*charts)

# %% [markdown] id="08f36cfe"
# The channels are not alike. A few channels of the keys are several times as large as the others, at the same places for every token. Such channels are called *outliers*. Values have them much less.
#
# Why does it matter? With b bits there are $2^b$ different codes. If they are spread evenly over a range, and one channel of 64 needs a range of 14, then all others share the few codes that lie between -3 and 3.
#
# ## Step 6 · Code it up: round to nearest
#
# ### Exercise 1 · One scale
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The simplest way: divide by a *scale*, round to the nearest whole number, keep the whole numbers (the *codes*) and the scale. With 4 bits and the same number of codes on both sides of 0 there are the codes -7 to 7, so the largest number becomes 7 or -7.
#
# An example with 3 bits, codes -3 to 3: (0.9, -0.2, 0.4) has the scale 0.9 / 3 = 0.3. The codes are 3, -1, 1, and what comes back is (0.9, -0.3, 0.3).
#
# Which numbers share a scale is a choice: all of a tensor, those of a token, those of a channel. `dim` says along which axes the maximum is taken.
#
# <details><summary>Hint 1</summary>
#
# `amax` takes one axis or a tuple of them, and has `keepdim`.
#
# <details><summary>Hint 2</summary>
#
# Where all numbers are 0, the scale is 0, and 0 / 0 is no number. What can you divide by instead, so that nothing else changes? A scale of 0.00000001 is an ordinary scale.
# </details>
# </details>

# %% exercise="quantised_cache.symmetric" id="quantised_cache-symmetric"
def quantise(x: Tensor, bits: int, dim: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Round to nearest, with one scale for all numbers along `dim`; symmetric, so 0 stays 0.

    scale = max |x| / (2^(bits - 1) - 1), the maximum taken along dim; codes = x / scale, rounded to nearest. In float32.
    Where all numbers along dim are 0, so are their codes and the scale; numbers of 1e-24 are rounded like any other.
    bits: 2 to 8. dim: an axis or several, also counted from the end.
    x: any shape -> codes of x's shape, int8; scale, float32, of x's shape but 1 along dim. x is about codes * scale.
    """
    ### BEGIN SOLUTION
    x = x.float()
    scale = x.abs().amax(dim=dim, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = (x / scale.clamp(min=1e-30)).round()
    return codes.to(torch.int8), scale
    ### END SOLUTION

# %% check="quantised_cache.symmetric" tags=["nbval-ignore-output"] id="check-quantised_cache-symmetric"
check("quantised_cache.symmetric", quantise)

# %% [markdown] id="7c03f6e7"
# Three choices for the cache in 4 bits: one scale for all numbers, one for each token's vector, or one for each channel over all tokens. They are compared by the *relative error*: the squared length of what was lost, divided by the squared length of what was there. Which is best for the keys, and which for the values? The pictures above are of one head in one layer; here all of them count.

# %% prediction="quantised_cache.scale_of_keys" id="prediction-quantised_cache-scale_of_keys"
predict(
    "quantised_cache.scale_of_keys", "smallest error of keys in 4 bits: one scale for",
    one_of=("all numbers", "a token", "a channel"),
    guess=...
)

# %% prediction="quantised_cache.scale_of_values" id="prediction-quantised_cache-scale_of_values"
predict(
    "quantised_cache.scale_of_values", "smallest error of values in 4 bits: one scale for",
    one_of=("all numbers", "a token", "a channel"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="199403dd"
def relative_error(x: Tensor, back: Tensor) -> float:
    """The squared length of the difference, for a squared length of 1."""
    return ((x - back).square().sum() / x.square().sum()).item()


with_scale = {}
for name, dim in (("all numbers", (0, 1, 2, 3)), ("a token", -1), ("a channel", -2)):
    coded = [quantise(rows, 4, dim) for rows in (keys, values)]
    errors = [relative_error(rows, codes * scale) for rows, (codes, scale) in zip((keys, values), coded, strict=True)]
    with_scale[name] = errors
    print(f"one scale for {name:>11}: keys {errors[0]:.4f}, values {errors[1]:.4f}")
measured("quantised_cache.scale_of_keys", min(with_scale, key=lambda name: with_scale[name][0]))
measured("quantised_cache.scale_of_values", min(with_scale, key=lambda name: with_scale[name][1]))

# %% [markdown] id="c3cc54ae"
# <details><summary>What the numbers say</summary>
#
# In SmolLM2: 0.167, 0.038 and 0.007 for the keys, 0.253, 0.014 and 0.020 for the values. A scale for each channel suits keys, because a channel is large for all tokens alike. For values one for each token is better. KIVI (Liu et al., 2024) found this on larger models and builds on it.
# </details>

# %% [markdown] id="841a8966"
# But a scale for a channel has a price: it needs many tokens at once, and tokens come one by one. You will meet it again in exercise 9.
#
# ### Exercise 2 · A zero point, and groups
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Two improvements that most engines have. A group whose numbers lie between 5 and 6 wastes all codes below 5 if the codes have to be symmetric around 0. So keep two numbers: the smallest, `low`, and the step between two codes, `scale`. And let only a few neighbouring channels share them, a *group*. With $2^b$ codes there are $2^b - 1$ steps.
#
# <details><summary>Hint 1</summary>
#
# `x.unflatten(-1, (-1, group))` puts the channels of a group on an axis of their own; `flatten(-2)` undoes it.
#
# <details><summary>Hint 2</summary>
#
# `aminmax(dim=-1, keepdim=True)` gives both ends. Keep the axis until you have divided.
# </details>
# </details>

# %% exercise="quantised_cache.groups" id="quantised_cache-groups"
def quantise_groups(x: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Round to nearest with a zero point, in groups of `group` neighbouring channels. In float32.

    Of each group low = min x, scale = (max x - min x) / (2^bits - 1), codes = (x - low) / scale, rounded to nearest.
    Where all numbers of a group are equal, their codes are 0, and any scale will do. bits: 1 to 8. head_dim is a multiple
    of group.
    x: [..., head_dim] -> codes [..., head_dim], uint8; scale and low [..., head_dim / group], float32.
    x is about low + codes * scale, with the low and the scale of its group.
    """
    ### BEGIN SOLUTION
    groups = x.float().unflatten(-1, (-1, group))  # [..., head_dim / group, group]
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    codes = ((groups - low) / scale.clamp(min=1e-30)).round()
    return codes.flatten(-2).to(torch.uint8), scale.squeeze(-1), low.squeeze(-1)
    ### END SOLUTION

# %% check="quantised_cache.groups" tags=["nbval-ignore-output"] id="check-quantised_cache-groups"
check("quantised_cache.groups", quantise_groups)

# %% [markdown] id="82d58ba1"
# ### Exercise 3 · Bits
# difficulty ●●●○○ · importance ●●●●○ · 20 minutes
#
# A code of 3 bits in a tensor of `uint8` takes 8 bits, and nothing has been saved. PyTorch has no type of 3 bits, so write the codes side by side. Think of a row of bits: three for the first code, three for the next, and so on, the lowest bit first. Then cut the row into bytes:
#
# ![Three codes of 3 bits, 5, 3 and 6, as bits with the lowest first: 1 0 1, 1 1 0, 0 1 1. Eight of the nine bits fill the first byte, 157. The ninth, a 1, is the lowest bit of the second byte, whose other bits are 0.](figures/bits.svg)
#
# The layout is a contract: whoever reads the bytes must know it. Several engines wrote in one order and read in another (<a href="https://github.com/amd/Quark/pull/30">amd/Quark#30</a>), and one read 3-bit codes with a mask for 2 bits (<a href="https://github.com/vllm-project/vllm/pull/38479">vllm#38479</a>, a comment of April 3). All of them ran without an error.
#
# <details><summary>Hint 1</summary>
#
# Go through an intermediate tensor of single bits. `codes[..., None] >> torch.arange(bits) & 1` has the bits of each code, the lowest first.
#
# <details><summary>Hint 2</summary>
#
# Flatten them into a row, pad the row to a multiple of 8, and make groups of 8 of it. `(row << torch.arange(8)).sum(-1)` makes a number of 8 bits. Reading goes the same way back; only the two numbers 8 and `bits` change places.
# </details>
# </details>

# %% exercise="quantised_cache.bits" id="quantised_cache-bits"
class BitPacker:
    """Codes of `bits` bits each, side by side in bytes: 8 codes take `bits` bytes.

    Bit b of code i is bit i * bits + b of the row; bit n of a row is bit n % 8 of byte n // 8, where bit 0 is worth 1.
    So the first code is in the lowest bits of the first byte, and a code may go on in the next byte. What is left of
    the last byte is 0.
    """

    def __init__(self, bits: int):
        self.bits = bits

    def pack(self, codes: Tensor) -> Tensor:
        """codes: [..., n] of 0 to 2^bits - 1, uint8 -> [..., ceil(n * bits / 8)], uint8, in memory of their own."""
        ### BEGIN SOLUTION
        row = (codes[..., None] >> torch.arange(self.bits) & 1).flatten(-2)  # [..., n * bits], of 0 and 1
        row = F.pad(row, (0, -row.shape[-1] % 8)).unflatten(-1, (-1, 8))  # [..., bytes, 8]
        return (row << torch.arange(8)).sum(dim=-1).to(torch.uint8)
        ### END SOLUTION

    def unpack(self, packed: Tensor, n: int) -> Tensor:
        """packed: [..., bytes], uint8, as pack returns it for n codes -> the codes [..., n], uint8."""
        ### BEGIN SOLUTION
        row = (packed[..., None] >> torch.arange(8) & 1).flatten(-2)  # [..., bytes * 8]
        row = row[..., : n * self.bits].unflatten(-1, (n, self.bits))  # [..., n, bits]
        return (row << torch.arange(self.bits)).sum(dim=-1).to(torch.uint8)
        ### END SOLUTION

# %% check="quantised_cache.bits" tags=["nbval-ignore-output"] id="check-quantised_cache-bits"
check("quantised_cache.bits", BitPacker)

# %% [markdown] id="3ab44cc4"
# Does it save what it should? How many bytes should 256 keys of 64 numbers take in 3 bits?

# %% id="6b67f4f1"
codes = torch.randint(0, 8, (256, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
packed = BitPacker(3).pack(codes)
assert torch.equal(BitPacker(3).unpack(packed, 64), codes)
print(f"{codes.nbytes:,} bytes of codes, {packed.nbytes:,} packed; in 16 bits the numbers took {2 * codes.numel():,}")

# %% [markdown] id="a74cee96"
# ## Turn the outliers away
#
# ### Exercise 4 · A random rotation
# difficulty ●○○○○ · importance ●●●●● · 5 minutes
#
# Here is the idea on which everything after it stands. Attention only uses dot products of queries and keys, and a rotation Q changes none of them: $(Qq)\cdot(Qk) = q \cdot k$. But it changes the coordinates. A vector like (14, 1, -1, 2, …), in which one number stands out, becomes one whose numbers are all of about the same size, because every new coordinate is a mixture of all old ones. No training and no look at the data is needed: nearly *every* rotation does that.
#
# So draw one at random. The Q of a QR decomposition of random numbers is orthogonal, and mixes everything with everything. (Engines take a Hadamard matrix with random signs, which is as good and faster. The signs must come *before* it: after it they change nothing, <a href="https://github.com/Scottcjn/rustchain-bounties/issues/71">Scottcjn/rustchain-bounties#71</a>.)
#
# <details><summary>Hint</summary>
#
# `torch.Generator().manual_seed(seed)` makes a generator; `torch.randn` takes it as `generator=`.
# </details>

# %% exercise="quantised_cache.rotation" id="quantised_cache-rotation"
def random_rotation(dim: int, seed: int) -> Tensor:
    """A random orthogonal matrix: the Q of the QR decomposition of a matrix of numbers from N(0, 1).

    Drawn from a generator of its own, so that the same seed gives the same matrix, and nothing else changes.
    -> [dim, dim], float32. torch.linalg.qr.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    ### END SOLUTION

# %% check="quantised_cache.rotation" tags=["nbval-ignore-output"] id="check-quantised_cache-rotation"
check("quantised_cache.rotation", random_rotation)

# %% [markdown] id="b675a21a"
# Rotate the keys, and encode them in 4 bits with a scale for each token, as before. Without the rotation SmolLM2's keys had a relative error of 0.038, and its values, which have few outliers, 0.014. What is it for the rotated keys?

# %% prediction="quantised_cache.rotated" id="prediction-quantised_cache-rotated"
predict(
    "quantised_cache.rotated", "relative error of keys in 4 bits, rotated",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="1fc72dcc"
rotation = random_rotation(width, seed=0)
sizes = {"keys": keys[middle, 0].abs().amax(dim=0), "rotated": (keys @ rotation.T)[middle, 0].abs().amax(dim=0)}
curves = {name: (range(width), largest) for name, largest in sizes.items()}
after = {}
for name, rows in (("keys", keys), ("values", values)):
    codes, scale = quantise(rows @ rotation.T, 4, dim=-1)
    after[name] = relative_error(rows, codes * scale @ rotation)
    print(f"{name} in 4 bits, rotated: {after[name]:.4f}")
measured("quantised_cache.rotated", after["keys"])
plots.lines(curves, plots.Axes("channel", "largest size", ylim=(0, None), size=(6, 2.6)))

# %% [markdown] id="f713a9ca"
# <details><summary>What the numbers say</summary>
#
# The outliers are gone, and the error is about the same for keys and values: 0.011 and 0.012. That is the point of a random rotation. It does not make every vector easy, but it makes all vectors *equally* easy, whatever model they come from. For the values, which had few outliers, it gained little.
# </details>

# %% [markdown] id="d04b4f9d"
# And now one can say how the coordinates are distributed: those of a random unit vector in d dimensions are close to normal, with variance 1/d. If you know the distribution, evenly spaced codes are no longer the best.
#
# ### Exercise 5 · The best levels
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# Where should $2^b$ levels lie, so that a number from $N(0, 1/d)$ is on average closest to its nearest level? Closer together where many numbers are. Max (1960) and Lloyd (1982) gave two conditions, and an algorithm that needs nothing else:
#
# 1. a number goes to the nearest level, so the boundary between two levels is halfway between them;
# 2. a level is the *mean* of the numbers that go to it. For $N(0, 1)$ between a and b that is $\frac{\varphi(a) - \varphi(b)}{\Phi(b) - \Phi(a)}$.
#
# Start somewhere, and repeat both until nothing moves. It is k-means with infinitely many points.
#
# Where you start matters a little: levels that start where no numbers are stay there. With levels spread evenly over [-1, 1], where all coordinates of unit vectors lie, one library wasted most of its codes in large dimensions (<a href="https://github.com/vortex-data/vortex/pull/8076">vortex-data/vortex#8076</a>).
#
# <details><summary>Hint 1</summary>
#
# `NormalDist().inv_cdf((i + 0.5) / n)` for i from 0 to n - 1 starts where numbers are. The outermost boundaries are -∞ and ∞, `math.inf`.
#
# <details><summary>Hint 2</summary>
#
# `itertools.pairwise` gives neighbours: once of the levels, for the boundaries, and once of the boundaries, for the new levels. Stop when no level moves by more than a millionth. From the start of Hint 1 that takes 300 rounds with 4 bits and 3,000 with 6: twice as many levels need about three times as many rounds, because a level is only moved by its neighbours. A start that is 1.7 times as wide is nearer to the best levels. In the end think of the variance, 1 / dim.
# </details>
# </details>

# %% exercise="quantised_cache.codebook" id="quantised_cache-codebook"
def lloyd_max(bits: int, dim: int) -> Tensor:
    """The 2^bits levels with the least mean squared error for a number from N(0, 1 / dim) (Max, 1960; Lloyd, 1982).

    Two conditions hold for the best levels: each boundary is halfway between two neighbouring levels, and each level is
    the mean of the numbers between its boundaries. For N(0, 1) the mean between a and b is
    (phi(a) - phi(b)) / (Phi(b) - Phi(a)), with its density phi and its distribution function Phi; Python's
    statistics.NormalDist() has both, as pdf and cdf, and takes infinity.
    -> [2^bits], increasing, float32, with up to 6 bits each within 0.1% of the best.
    """
    ### BEGIN SOLUTION
    normal, n = NormalDist(), 2**bits
    levels = [1.7 * normal.inv_cdf((i + 0.5) / n) for i in range(n)]  # about as wide as the best
    for _ in range(1000):  # 6 bits need the most, 825
        edges, before = [-math.inf, *((a + b) / 2 for a, b in pairwise(levels)), math.inf], levels
        levels = [(normal.pdf(a) - normal.pdf(b)) / (normal.cdf(b) - normal.cdf(a)) for a, b in pairwise(edges)]
        if max(abs(a - b) for a, b in zip(levels, before, strict=True)) < 1e-6:
            break
    return torch.tensor(levels) / math.sqrt(dim)
    ### END SOLUTION

# %% check="quantised_cache.codebook" tags=["nbval-ignore-output"] id="check-quantised_cache-codebook"
check("quantised_cache.codebook", lloyd_max)

# %% [markdown] id="a6bb143c"
# The paper gives the mean squared error of a unit vector as 0.36, 0.117, 0.03 and 0.009 for 1 to 4 bits (section 1, after theorem 1). Tables that are sixty years old have 0.3634, 0.1175, 0.03454 and 0.009497 (Max, 1960). One bit more is twice as many levels. How much smaller should that make the error? Measure it on a million numbers:

# %% id="65d5fd29"
numbers = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
known = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}
for bits, from_table in known.items():
    levels = lloyd_max(bits, 1)
    nearest = levels[torch.bucketize(numbers, (levels[1:] + levels[:-1]) / 2)]
    error = (numbers - nearest).square().mean().item()
    print(f"{bits} bits: {error:.4f}, in the table {from_table:.4f}, off by {abs(error / from_table - 1):.1%}")

# %% [markdown] id="6bbb3417"
# The table is reproduced to within a percent. Each further bit makes the error 3 to 3.6 times smaller; in the limit it is 4. No scheme whatever can do better than $4^{-b}$ on such numbers (Shannon), so what is left to gain is a factor of 1.5 at 1 bit and 2.4 at 4 bits.
#
# ### Exercise 6 · TurboQuant
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Put it together (Algorithm 1). Keep the length of the vector as a number of its own, rotate the unit vector, write down the nearest level of each coordinate. To decode, look the levels up, rotate back, multiply by the length.
#
# The rotation and the codebook are the same for all vectors, so they cost nothing per token. What is kept for a vector is b bits for each number, and its norm.
#
# <details><summary>Hint 1</summary>
#
# For rows x, the product of the matrix with each is `x @ rotation.T`, and the inverse of an orthogonal matrix is its transpose.
#
# <details><summary>Hint 2</summary>
#
# The nearest level: `torch.bucketize(numbers, boundaries)` says how many boundaries lie below each number. It takes far less memory than comparing every number with every level. To look levels up, make `codes.long()` of the codes first: PyTorch takes an index of uint8 for a mask.
# </details>
# </details>

# %% exercise="quantised_cache.turboquant" id="quantised_cache-turboquant"
class TurboQuant(nn.Module):
    """TurboQuant's MSE form (Zandieh et al., 2025, Algorithm 1) for vectors of any length: the norm is kept apart.

    Buffers: rotation [head_dim, head_dim], orthogonal; codebook [2^bits], increasing.
    """

    def __init__(self, head_dim: int, bits: int, seed: int = 0):
        super().__init__()
        self.register_buffer("rotation", random_rotation(head_dim, seed))
        self.register_buffer("codebook", lloyd_max(bits, head_dim))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """norm = |x|; codes: for each number of rotation @ (x / norm), which level of the codebook is nearest.

        In float32. A vector of zeros has the norm 0, and its codes do not matter.
        x: [..., head_dim] -> codes [..., head_dim], uint8; norm [..., 1], float32.
        """
        ### BEGIN SOLUTION
        x = x.float()
        norm = x.norm(dim=-1, keepdim=True)  # [..., 1]
        turned = x / norm.clamp(min=1e-30) @ self.rotation.T  # [..., head_dim]
        edges = (self.codebook[1:] + self.codebook[:-1]) / 2  # [2^bits - 1]
        return torch.bucketize(turned, edges).to(torch.uint8), norm
        ### END SOLUTION

    def decode(self, codes: Tensor, norm: Tensor) -> Tensor:
        """What encode returned -> about x: [..., head_dim], float32. What the levels give is not renormalised."""
        ### BEGIN SOLUTION
        turned = self.codebook[codes.int()]  # [..., head_dim]
        return turned @ self.rotation * norm
        ### END SOLUTION

# %% check="quantised_cache.turboquant" tags=["nbval-ignore-output"] id="check-quantised_cache-turboquant"
check("quantised_cache.turboquant", TurboQuant)

# %% [markdown] id="25dff249"
# The theory promises its error for *every* vector, on average over rotations. Do random vectors, keys with their outliers, and values all have the errors of the table?

# %% tags=["nbval-ignore-output"] id="16ed4950"
random_rows = torch.randn(1, 1, 2000, width, generator=torch.Generator().manual_seed(0))
for bits in (1, 2, 3, 4):
    quantiser = TurboQuant(width, bits)
    errors = [relative_error(rows, quantiser.decode(*quantiser.encode(rows))) for rows in (random_rows, keys, values)]
    print(f"{bits} bits: random {errors[0]:.4f}, keys {errors[1]:.4f}, values {errors[2]:.4f}")

# %% [markdown] id="7f5fd95e"
# All are the same to a few percent. This part of the paper holds exactly, and nobody disputes it.
#
# A place to look when somebody's numbers are worse: the codebook is made for coordinates of size $1/\sqrt d$. In one library the codebook of $N(0, 1)$ was used for unit vectors, and of 16 codes 2 to 4 were ever used (<a href="https://github.com/facebookresearch/faiss/pull/5517">facebookresearch/faiss#5517</a>).
#
# ## A place to stop for the day
#
# You have every way to round, packed bits, and TurboQuant's first form. Still to come: what its second form is for, a cache that a model reads with, what it costs, and what everybody's claims are worth. Exercise 7 begins where the error stops being the whole story.
#
# ## Is a small error enough?
#
# ### Exercise 7 · An experiment of your own
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# A level is the mean of the numbers that it stands for, so it is closer to 0 than the outer half of them. Does what comes back point less far than what went in? Find out. Draw `count` random vectors x of numbers from $N(0, 1)$, encode and decode them with your `TurboQuant`, and measure the mean of $\langle x, x' \rangle$. If nothing were lost, it would be d, the mean of $|x|^2$.
#
# This is your measurement, with a number that can be checked: it has to be right to within a percent. Before you run it: what share of d is left with 1 bit, where every coordinate comes back as one of two levels?
#
# <details><summary>Hint</summary>
#
# `quantiser.decode(*quantiser.encode(x))`. The dot product of each row with its own partner is `(x * back).sum(dim=-1)`.
# </details>

# %% prediction="quantised_cache.shrinks" id="prediction-quantised_cache-shrinks"
predict(
    "quantised_cache.shrinks", "mean of <x, x'> with 1 bit, as a share of d", unit="%",
    guess=...
)

# %% exercise="quantised_cache.bias" id="quantised_cache-bias"
def mean_product(bits: int, dim: int, count: int) -> float:
    """The mean of <x, x'> for `count` random vectors x and what TurboQuant makes of them, x'.

    x: dim numbers from N(0, 1), so that the mean of <x, x> is dim. -> a Python float, right to within a percent.
    """
    ### BEGIN SOLUTION
    quantiser = TurboQuant(dim, bits)
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(0))
    back = quantiser.decode(*quantiser.encode(x))
    return (x * back).sum(dim=-1).mean().item()
    ### END SOLUTION

# %% check="quantised_cache.bias" tags=["nbval-ignore-output"] id="check-quantised_cache-bias"
check("quantised_cache.bias", mean_product)

# %% id="19814bf9"
left = {bits: mean_product(bits, 128, 2000) / 128 for bits in (1, 2, 3, 4)}
for bits, share in left.items():
    print(f"{bits} bits: {share:.2f}")
measured("quantised_cache.shrinks", 100 * left[1])

# %% [markdown] id="2f1f1cb7"
# <details><summary>What the numbers say</summary>
#
# 0.64, 0.89, 0.97, 0.99. Compare with the table of errors: 1 - 0.36 = 0.64, 1 - 0.117 = 0.88, and so on. The two agree for a reason. Where each level is the mean of its numbers, x' is *shorter* than x by exactly the error: $E\langle x, x'\rangle = |x|^2 (1 - D)$.
# </details>

# %% [markdown] id="cc37b16d"
# For attention this means: with keys in 2 bits all scores come out about 12% too small, as if the softmax had a higher temperature. The estimate of a dot product is *biased*. The paper's second form is there to remove that.
#
# ### Exercise 8 · The inner-product form
# difficulty ●●●●○ · importance ●●●○○ · 20 minutes
#
# Spend b - 1 bits on the first form. What is lost is the error $r = x - x'$. Of it, keep its length and one bit for each coordinate: the sign of $Sr$, where S has numbers from $N(0, 1)$. This is QJL (Zandieh et al., 2024), and from the signs alone one can estimate r without a bias:
#
# $$ r \approx \frac{\sqrt{\pi/2}}{d} \, |r| \, S^\top \mathrm{sign}(S r) $$
#
# Why $\sqrt{\pi/2}$? A row s of S gives the number $s \cdot r$, which is normal with standard deviation $|r|$. Its sign times s points on average towards r, with length $E|z| = \sqrt{2/\pi}$ for z from $N(0, 1)$. Dividing by that makes it 1. The division by d makes a mean of the d rows.
#
# The constant belongs to *this* S. With an orthogonal S, whose rows have length 1 and not $\sqrt d$, it is $\sqrt{\pi/2} / \sqrt d$. Whoever takes one matrix and the other constant is wrong by a factor of $\sqrt d$, which is 11 for d = 128. So the paper's constant is not "11 times too small", as mlx-lm#1060 says: it is right for the paper's S. The repair that was merged afterwards exchanged both, and says so (<a href="https://github.com/TheTom/turboquant_plus/pull/93">TheTom/turboquant_plus#93</a>).
#
# <details><summary>Hint 1</summary>
#
# `super().encode(x)` and `super().decode(codes, norm)` are the first form.
#
# <details><summary>Hint 2</summary>
#
# Signs are stored as 0 and 1. Make 1 and -1 of them before you multiply. For rows, $S^\top s$ is `s @ projection`.
# </details>
# </details>

# %% exercise="quantised_cache.product" id="quantised_cache-product"
class TurboQuantProduct(TurboQuant):
    """TurboQuant's inner-product form (Algorithm 2): bits - 1 bits for the MSE form, and one for its error.

    The error r = x - x' is kept as its length and the signs of projection @ r (QJL; Zandieh et al., 2024).
    Buffers: those of TurboQuant, and projection [head_dim, head_dim], numbers from N(0, 1).
    """

    def __init__(self, head_dim: int, bits: int, seed: int = 0):
        super().__init__(head_dim, bits - 1, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        self.register_buffer("projection", torch.randn(head_dim, head_dim, generator=generator))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: [..., head_dim] -> codes and norm as TurboQuant's; signs [..., head_dim], uint8; length [..., 1], float32.

        signs: 1 where a number of projection @ r is above 0, else 0. length = |r|. In float32.
        """
        ### BEGIN SOLUTION
        codes, norm = super().encode(x)
        error = x - super().decode(codes, norm)  # [..., head_dim]
        signs = (error @ self.projection.T > 0).to(torch.uint8)
        return codes, norm, signs, error.norm(dim=-1, keepdim=True)
        ### END SOLUTION

    def decode(self, codes: Tensor, norm: Tensor, signs: Tensor, length: Tensor) -> Tensor:
        """x' + sqrt(pi / 2) / head_dim * length * projection^T @ s, where s is 1 or -1: [..., head_dim], float32."""
        ### BEGIN SOLUTION
        direction = (2.0 * signs - 1) @ self.projection  # [..., head_dim]
        return super().decode(codes, norm) + math.sqrt(math.pi / 2) / signs.shape[-1] * length * direction
        ### END SOLUTION

# %% check="quantised_cache.product" tags=["nbval-ignore-output"] id="check-quantised_cache-product"
check("quantised_cache.product", TurboQuantProduct)

# %% [markdown] id="bdaef657"
# Now the comparison that decides. Unit vectors x, and queries y that have a dot product of about 0.7 with them, as the key that a query looks for would have. Both forms with the *same* number of bits. The second form has no bias. And its spread around the mean, in 3 bits: how many times that of the first form?

# %% prediction="quantised_cache.spread" id="prediction-quantised_cache-spread"
predict(
    "quantised_cache.spread", "the inner-product form's spread in 3 bits, against the first form's", unit="times as large",
    guess=...
)

# %% id="f57ba869"
generator = torch.Generator().manual_seed(1)
x = F.normalize(torch.randn(4000, 128, generator=generator), dim=-1)
y = F.normalize(x + torch.randn(4000, 128, generator=generator) / 128**0.5, dim=-1)
right = (x * y).sum(dim=-1)
spreads = {}
for bits in (2, 3, 4):
    for form in (TurboQuant, TurboQuantProduct):
        quantiser = form(128, bits)
        off = (quantiser.decode(*quantiser.encode(x)) * y).sum(dim=-1) - right
        spreads[bits, form] = off.std()
        print(f"{bits} bits, {form.__name__:>17}: mean error {off.mean():+.3f}, spread {off.std():.3f}")
measured("quantised_cache.spread", spreads[3, TurboQuantProduct] / spreads[3, TurboQuant])

# %% [markdown] id="f8c8eb1e"
# <details><summary>What the numbers say</summary>
#
# About twice as large. The inner-product form has no bias, as promised, but a bit was taken away from the first form, which used it better. (The paper's theorem 2 says so too: an error of 0.56/d at 2 bits, for any query.)
# </details>
# %% [markdown] id="98e0d979"
# Which of the two makes a better model, if keys are kept in 4 bits? A bias makes all scores of a query smaller by the same factor. The softmax then becomes a little flatter, and the order of the keys stays. A spread changes each score by another amount, and so the order. A model will answer when there is a cache for it. And think of values: a weighted sum of many values averages a spread away. Does it average a bias away?

# %% prediction="quantised_cache.better_keys" id="prediction-quantised_cache-better_keys"
predict(
    "quantised_cache.better_keys", "lower loss with keys in 4 bits",
    one_of=("the first form, with its bias", "the inner-product form, with its spread"),
    guess=...
)

# %% [markdown] id="f8f7c3f9"
# ## The cache
#
# ### Exercise 9 · Encode the old, keep the new
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# A *codec* turns vectors into tensors of codes, and back. What is missing is something that keeps them while tokens come in. `QuantisedRows` does that for the keys of a layer, or for its values:
#
# - Tokens are encoded in blocks of `codec.block`. With a scale for each channel a block must have many tokens. What does not fill a block waits as it came.
# - The last `recent` tokens stay as they came, in any case. Many engines do that, because the newest tokens are read most.
# - A token is encoded once. Decoding it and encoding it again would round it again at every step.
# - Nothing else is kept. A slice of a tensor is a view, and holds the memory of all of it.
#
# How old a token is depends on how many came after it, over all calls. One library looked at the current call alone. In decoding each call has one token, so no token was ever old enough, and its "2-bit" cache stayed in 16 bits (<a href="https://github.com/rajveer43/VeloxQuant-MLX/issues/86">rajveer43/VeloxQuant-MLX#86</a>). Its quality was excellent.
#
# ![A row of 11 tokens with blocks of 3 and the 2 newest kept: tokens 0 to 8 are three encoded blocks, tokens 9 and 10 stay as they came. After one more token nothing changes but that three tokens wait; after two more, tokens 9 to 11 would still leave only one newest token, so they wait too; after three more they are encoded as the fourth block.](figures/blocks.svg)
#
# <details><summary>Hint 1</summary>
#
# Put what waits and what is new together first. Then there is one question: how many of these can be encoded? At least `recent` must be left, and it must be a multiple of the block.
#
# <details><summary>Hint 2</summary>
#
# `a // n * n` is the largest multiple of n that is not above a. What if a is negative?
#
# <details><summary>Hint 3</summary>
#
# All tensors of a codec have their blocks along axis 2, so new ones are appended with `torch.cat(..., dim=2)`. `.clone()` makes a copy that holds no more than itself.
# </details>
# </details>
# </details>

# %% exercise="quantised_cache.cache" id="quantised_cache-cache"
class QuantisedRows:
    """The keys, or the values, of one layer: older tokens encoded, the newest as they came.

    codec: codec.encode(x), x [B, H, n * codec.block, d], gives a tuple of new tensors [B, H, n, ...], no views of x, and
    codec.decode(*those) about x again. So codec.block tokens are always encoded together.
    After every append as many blocks are encoded as there can be while at least `recent` tokens, if there are as many,
    stay as they came. A token is encoded once. Two caches may share a codec.
    """

    def __init__(self, codec, recent: int = 0):
        self.codec, self.recent = codec, recent
        self.coded: tuple[Tensor, ...] = ()  # what codec.encode gave, [B, H, blocks, ...] each
        self.plain: Tensor | None = None  # the newest tokens [B, H, n, d]

    def append(self, x: Tensor) -> Tensor:
        """Add T new tokens; return all, in order: what is decoded of the older ones, and the newest as they came.

        x: [B, H, T, d] -> [B, H, length, d], in x's dtype. No memory is held but that of what is encoded and what is not,
        and x may be overwritten afterwards.
        """
        ### BEGIN SOLUTION
        plain = x if self.plain is None else torch.cat([self.plain, x], dim=2)  # [B, H, n + T, d]
        ready = max(0, plain.shape[2] - self.recent) // self.codec.block * self.codec.block
        if ready:
            new = self.codec.encode(plain[:, :, :ready])
            self.coded = tuple(torch.cat(both, dim=2) for both in zip(self.coded, new, strict=True)) if self.coded else new
        self.plain = plain[:, :, ready:].clone()  # a copy: a view would hold all of it
        if not self.coded:
            return self.plain
        return torch.cat([self.codec.decode(*self.coded).to(x.dtype), self.plain], dim=2)
        ### END SOLUTION

# %% check="quantised_cache.cache" tags=["nbval-ignore-output"] id="check-quantised_cache-cache"
check("quantised_cache.cache", QuantisedRows)

# %% [markdown] id="2157fc2f"
# The codecs are given. Each uses your functions and packs the codes with your `BitPacker`; scales and norms take 16 bits. Read the first two, the others (folded) are like them.

# %% tags=["setup"] id="setup-11"
class AsItComes:
    """The codec that changes nothing."""

    block = 1

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.clone(),)

    def decode(self, x: Tensor) -> Tensor:
        return x

# %% tags=["setup"] id="setup-12"
class QuantisedCache:
    """The keys and values of one layer, each with a codec of its own. It is used as PlainCache is."""

    def __init__(self, key_codec, value_codec, recent: int = 0):
        self.keys, self.values, self.length = QuantisedRows(key_codec, recent), QuantisedRows(value_codec, recent), 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.length += k.shape[2]
        return self.keys.append(k), self.values.append(v)

# %% tags=["setup"] id="setup-6"
class PerToken:
    """A codec: encode(x) -> tensors, decode(*tensors) -> about x. Here one scale for each vector."""

    block = 1  # how many tokens are encoded together

    def __init__(self, width: int, bits: int):
        self.width, self.bits, self.packer, self.zero = width, bits, BitPacker(bits), 2 ** (bits - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, scale = quantise(x, self.bits, dim=-1)
        return self.packer.pack((codes + self.zero).to(torch.uint8)), scale.half()

    def decode(self, packed: Tensor, scale: Tensor) -> Tensor:
        return (self.packer.unpack(packed, self.width).float() - self.zero) * scale.float()

# %% tags=["setup"] id="setup-13"
class Turbo:
    """TurboQuant's MSE form, its codes packed and its norms in 16 bits."""

    block, form, less = 1, TurboQuant, 0

    def __init__(self, width: int, bits: int):
        self.width, self.packer, self.quantiser = width, BitPacker(bits - self.less), self.form(width, bits)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, norm = self.quantiser.encode(x)
        return self.packer.pack(codes), norm.half()

    def decode(self, packed: Tensor, norm: Tensor) -> Tensor:
        return self.quantiser.decode(self.packer.unpack(packed, self.width), norm.float())

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-7"
class PerChannel(PerToken):
    """One scale for each channel of 32 tokens, as KIVI has it for keys (Liu et al., 2024)."""

    block = 32

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, scale = quantise(x.unflatten(2, (-1, self.block)), self.bits, dim=-2)  # [B, H, n, block, d], [B, H, n, 1, d]
        return self.packer.pack((codes + self.zero).to(torch.uint8)), scale.half()

    def decode(self, packed: Tensor, scale: Tensor) -> Tensor:
        return super().decode(packed, scale).flatten(2, 3)

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-8"
class PerGroup(PerToken):
    """A scale and a low for each half of a vector."""

    def __init__(self, width: int, bits: int):
        super().__init__(width, bits)
        self.group = width // 2

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, scale, low = quantise_groups(x, self.bits, self.group)
        return self.packer.pack(codes), scale.half(), low.half()

    def decode(self, packed: Tensor, scale: Tensor, low: Tensor) -> Tensor:
        codes = self.packer.unpack(packed, self.width).float().unflatten(-1, (-1, self.group))
        return (low[..., None].float() + codes * scale[..., None].float()).flatten(-2)

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-9"
class Rotated(PerToken):
    """PerToken after a random rotation, which is undone in the end."""

    def __init__(self, width: int, bits: int):
        super().__init__(width, bits)
        self.rotation = random_rotation(width, seed=0)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().encode(x.float() @ self.rotation.T)

    def decode(self, packed: Tensor, scale: Tensor) -> Tensor:
        return super().decode(packed, scale) @ self.rotation

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-14"
class TurboProduct(Turbo):
    """TurboQuant's inner-product form."""

    form, less = TurboQuantProduct, 1

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, norm, signs, length = self.quantiser.encode(x)
        return self.packer.pack(codes), norm.half(), BitPacker(1).pack(signs), length.half()

    def decode(self, packed: Tensor, norm: Tensor, signs: Tensor, length: Tensor) -> Tensor:
        codes, signs = self.packer.unpack(packed, self.width), BitPacker(1).unpack(signs, self.width)
        return self.quantiser.decode(codes, norm.float(), signs, length.float())

# %% [markdown] id="55ce5f03"
# ## Steps 7 to 11 · A model reads with it
#
# In other lessons your model is compared with a reference, layer by layer, until nothing differs. Here something has to differ, so that comparison can't say what is right. What can is the model's loss: is it as good at the next token as before?
#
# Every key and value is packed into bits and unpacked again, for each layer, also those of the token itself. First keys alone, then values alone, in 4 bits. Which costs more? What does the rotation change? And what does QJL do, for keys, where it is meant to help?

# %% tags=["nbval-ignore-output"] id="86de1712"
@torch.no_grad()
def loss(key_codec, value_codec, recent: int = 0) -> float:
    """The mean surprise at the next token of the held-out text, in nats."""
    caches = [QuantisedCache(key_codec, value_codec, recent) for _ in range(layers)]
    logits = model(held_out, caches)
    return F.cross_entropy(logits[0, :-1], held_out[0, 1:]).item()

# %% tags=["nbval-ignore-output"] id="962fdd2d"
same = AsItComes()
whole = loss(same, same)
print(f"as it comes: {whole:.3f} nats. In 4 bits, so much more:")
of_keys = {}
for codec in (PerToken, Rotated, Turbo, TurboProduct):
    coded = codec(width, 4)
    of_keys[codec] = loss(coded, same) - whole
    print(f"{codec.__name__:>13}: keys {of_keys[codec]:+.3f}, values {loss(same, coded) - whole:+.3f}")
forms = ("the first form, with its bias", "the inner-product form, with its spread")
measured("quantised_cache.better_keys", forms[of_keys[TurboProduct] < of_keys[Turbo]])

# %% [markdown] id="de0f0e81"
# <details><summary>What the numbers say</summary>
#
# In SmolLM2 the first form is better: +0.03 nats, and +0.26 with QJL, although its estimates are the unbiased ones.
#
# And an error in keys costs more than one in values. That is the first thing on which your measurement and everybody else's agree (<a href="https://github.com/ml-explore/mlx-lm/pull/1550">ml-explore/mlx-lm#1550</a>, with numbers for two models). An error in a key changes which tokens are read; an error in a value only changes what is read there, and many values are averaged.
# </details>

# %% [markdown] id="96ab1b8a"
# Is it the fault of QJL, or of this QJL? mlx-lm#1060 says: take an orthogonal S. Its rows share nothing, so the estimate spreads less, and it stays unbiased. And a second suspect: a bias can be removed without spending a bit on it. Divide what the first form returns by what you measured in exercise 7.
#
# Keys in 3 bits: sort these three by the loss, the lowest first. `Turbo` is the first form alone, `TurboProduct` has QJL with the paper's S, `OrthogonalProduct` has QJL with an orthogonal S.

# %% prediction="quantised_cache.three_ways" id="prediction-quantised_cache-three_ways"
predict(
    "quantised_cache.three_ways", "losses with keys in 3 bits, the lowest first",
    order_of=("TurboProduct", "Turbo", "OrthogonalProduct"),
    guess=...
)
# %% [markdown] id="1553b32b"
# And the division: does it help keys? Does it help values?

# %% id="27207e7d"
class Orthogonal(TurboQuantProduct):
    """The same with an orthogonal projection, whose rows are as long as those of the random one are on average."""

    def __init__(self, head_dim: int, bits: int):
        super().__init__(head_dim, bits)
        self.projection = random_rotation(head_dim, seed=2) * math.sqrt(head_dim)


class OrthogonalProduct(TurboProduct):
    form = Orthogonal

# %% id="8d4a663e"
class Unshrunk(Turbo):
    """TurboQuant's first form, divided by what it shrinks by: unbiased, too."""

    def decode(self, packed: Tensor, norm: Tensor) -> Tensor:
        return super().decode(packed, norm) * self.width / mean_product(self.packer.bits, self.width, 2000)

# %% tags=["nbval-ignore-output"] id="23da652d"
in_keys = {}
for codec in (Turbo, TurboProduct, OrthogonalProduct, Unshrunk):
    coded = codec(width, 3)
    in_keys[codec.__name__] = loss(coded, same) - whole
    print(f"3 bits, {codec.__name__:>17}: keys {in_keys[codec.__name__]:+.3f}, values {loss(same, coded) - whole:+.3f}")
measured("quantised_cache.three_ways", sorted(("Turbo", "TurboProduct", "OrthogonalProduct"), key=in_keys.get))

# %% [markdown] id="f97e9763"
# <details><summary>What the numbers say</summary>
#
# In SmolLM2: +0.15 for keys with the first form alone, +1.34 with QJL, +0.35 with QJL and an orthogonal S. So both sides have a point. Most of QJL's damage does come from the matrix, the paper's own, and whoever exchanges it finds a large improvement. But the first form alone, with the same bits, is still better.
# </details>

# %% [markdown] id="b2917a43"
# The division removes the bias. Does it make anything better? One number for each does not tell, because the rotation was drawn once. So draw five rotations, see how far apart their losses are, and compare with and without the division for each of them.

# %% tags=["nbval-ignore-output"] id="771cd0ad"
for seed in range(5):
    first, divided = Turbo(width, 3), Unshrunk(width, 3)
    first.quantiser = divided.quantiser = TurboQuant(width, 3, seed)
    off = [loss(coded, same) - whole for coded in (first, divided)]
    off += [loss(same, coded) - whole for coded in (first, divided)]
    print(f"rotation {seed}: keys {off[0]:+.3f}, divided {off[1]:+.3f}; values {off[2]:+.3f}, divided {off[3]:+.3f}")

# %% [markdown] id="9fd27a3b"
# In SmolLM2 the division makes keys worse with four rotations of five, and values better with four of five. That looks like a result, and is none. Over ten rotations the difference is +0.01 nats for keys, with a standard deviation of 0.06, and +0.01 for values, with one of 0.02. On the next 512 tokens of *Persuasion* it is 0.00 for both, with 0.02 and 0.01. This measurement sees no difference. The draw of the rotation alone does more: it moves the loss with keys in 3 bits from +0.08 to +0.24.
#
# So look at the numbers above again. QJL's +1.34 is far outside of that range. The +0.35 with an orthogonal S lies above all ten rotations, but it is one draw, too.
#
# And the guess from before the cache: a weighted sum of many values averages a spread away, and does not average a bias away. But with 3 bits the bias is 3% of a value's length, too little to be seen here. "Unbiased" and "better" are two things.

# %% [markdown] id="3e5717f1"
# ### Exercise 10 · Real bytes
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# "3 bits" is never 3 bits. A scale of 16 bits for a vector of 64 numbers is a quarter of a bit for each number, a scale and a low for every 32 numbers is a whole bit, and the newest tokens may be there in 16 bits. A comparison at "the same bits" that forgets this is no comparison (<a href="https://github.com/TheTom/turboquant_plus/pull/91">TheTom/turboquant_plus#91</a>). Count it from the config.
#
# <details><summary>Hint</summary>
#
# Count one key and one value of one head first, in whole bytes. Then how many tokens are encoded, and how many are not?
# </details>

# %% exercise="quantised_cache.bytes" id="quantised_cache-bytes"
def quantised_bytes(
    config: Config, context: int, key_bits: float, value_bits: float, extras: int = 1, recent: int = 0
) -> int:
    """How many bytes the keys and values of one text of `context` tokens take, in all layers.

    Each key of head_dim(config) numbers takes key_bits a number, in whole bytes, and `extras` numbers of 2 bytes
    (scales, lows, norms); each value likewise with value_bits. The last `recent` tokens take 2 bytes a number instead.
    """
    ### BEGIN SOLUTION
    width = head_dim(config)
    coded = sum(math.ceil(width * bits / 8) + 2 * extras for bits in (key_bits, value_bits))
    old = max(0, context - recent)
    one_head = old * coded + (context - old) * 2 * 2 * width
    return config.num_hidden_layers * config.num_key_value_heads * one_head
    ### END SOLUTION

# %% check="quantised_cache.bytes" tags=["nbval-ignore-output"] id="check-quantised_cache-bytes"
check("quantised_cache.bytes", quantised_bytes)

# %% [markdown] id="4f0e38a0"
# Compare it with what the caches hold. How many bits a number, all counted, do `PerGroup` and `Turbo` take with 4 bits for SmolLM2, whose heads have 64 numbers?

# %% id="56c0e20d"
small = configs["smollm2-135m"]
for name, extras in (("PerToken", 1), ("PerGroup", 4), ("Turbo", 1), ("TurboProduct", 2)):
    size = quantised_bytes(small, 1000, 4, 4, extras)
    each = size * 8 / (1000 * 2 * small.num_hidden_layers * small.num_key_value_heads * head_dim(small))
    print(f"{name:>13}: {size / 1e6:.2f} MB for 1,000 tokens, {each:.2f} bits a number")

# %% tags=["nbval-ignore-output"] id="c7e1951d"
from grader.instruments import work

coded = PerGroup(width, 4)
caches = [QuantisedCache(coded, coded) for _ in range(layers)]
with torch.no_grad():
    model(held_out, caches)
held = work.bytes_held([vars(rows) for cache in caches for rows in (cache.keys, cache.values)])  # all attributes
print(f"held: {held:,} bytes, by your formula {quantised_bytes(checkpoint.config, 256, 4, 4, 4):,}")


# %% [markdown] id="3331b821"
# ## The whole measurement
#
# Your own numbers so far are from 256 tokens. Half an hour of computing gives more: every codec, 2 to 8 bits, keys and values apart, two models, and the bytes that the caches really hold. SmolLM2 reads two texts of 512 tokens. Gemma 3 270M, which has one KV head of 256 numbers in each layer, reads one in lesson 06's program with this lesson's caches in it. It was done once, with the same classes as yours (`training/quantised_caches.py` in the course's repository); the results are in `texts/measured.json`.

# %% id="c256a5a0"
import json

stored = json.loads(Path("texts/measured.json").read_text())


def runs(name: str, codec: str) -> list[dict]:
    """What was measured of one codec in one model, with fewer bits first."""
    return [run for run in stored[name]["runs"] if run["codec"] == codec]


CODECS = ("PerToken", "PerChannel", "PerGroup", "Rotated", "Turbo", "TurboProduct")

# %% [markdown] id="21401da4"
# Keys and values are both encoded now. In SmolLM2, how many bits does the best codec need for a loss that is less than 0.01 nats above that with 16? And will Gemma have the same best codec?

# %% prediction="quantised_cache.enough" id="prediction-quantised_cache-enough"
predict(
    "quantised_cache.enough", "bits with which the best codec costs SmolLM2 less than 0.01 nats", unit="bits",
    guess=...
)

# %% id="07d9319f"
for name, found in stored.items():
    print(f"{name}: {found['loss']:.3f} nats in 16 bits; so much more, for keys and values in")
    print(" " * 14, *(f"{run['bits']} bits".rjust(8) for run in runs(name, "Turbo")))
    for codec in CODECS:
        print(f"{codec:>14}", *(f"{run['both']:+8.3f}" for run in runs(name, codec)))
SMOL, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"
in_3_bits = {codec: run["both"] for codec in CODECS for run in runs(SMOL, codec) if run["bits"] == 3}
measured("quantised_cache.three_bits", in_3_bits["Turbo"])
enough = min(run["bits"] for codec in CODECS for run in runs(SMOL, codec) if run["both"] < 0.01)
measured("quantised_cache.enough", enough)

# %% [markdown] id="fe69994c"
# <details><summary>What the numbers say</summary>
#
# Your first guess was about TurboQuant in 3 bits: it costs SmolLM2 0.16 nats, 17% more perplexity.
#
# Five bits are enough for SmolLM2, with each of four codecs. Four bits miss the limit only just: with groups they cost 0.012 nats, and a few thousandths are noise. Gemma loses more in 4 bits with every codec, and the best one is another: +0.06 with a scale for each channel, which is KIVI's way for keys, and +0.18 with TurboQuant. Its 5 to 7 bits were not measured.
# </details>

# %% [markdown] id="356320a9"
# Where the sign changes from column to column you see the noise of the measurement: a few thousandths of a nat for SmolLM2, a hundredth for Gemma, which read one text of 512 tokens. There is a second noise, and you have met it: all codecs that rotate took one rotation. With six of them TurboQuant's 4 bits cost SmolLM2 0.020, 0.031, 0.033, 0.024, 0.038 and 0.048 nats, 0.032 on average, and the table has one of the best. So the table can't say which of two codecs is better whose losses in 4 bits are 0.02 and 0.04. It can say that 0.15 is worse.
#
# Two models, two answers. What is different about Gemma's keys? You looked at one layer of SmolLM2's at the beginning, and saw channels that stand out. Do Gemma's stand out more, or less? Here is the largest channel of a head against its median channel, in the median head:

# %% id="8d42dd93"
for name, found in stored.items():
    stand_out = found["outliers"]
    print(f"{name}: the largest channel is {stand_out['keys']} times the median one in keys, {stand_out['values']} in values")

# %% [markdown] id="defffa03"
# Gemma's stand out far more. A scale for each channel takes no notice of that: a large channel gets a large scale, and no other pays for it. A rotation spreads the large channel over all coordinates. What is lost is then a share of the *whole* vector's length, which is mostly that channel's, and all channels bear it alike. If the other channels are what tells tokens apart, the error may be larger than they are.
#
# That is a guess, and it can be tested. Where a channel is large for all tokens alike, most of it is its mean. A vector that all keys have in common adds the same to all scores of a query, and the softmax does not see it. So subtract each channel's mean over all tokens from the keys, encode the rest with TurboQuant, and add the mean again. Gemma's keys in 3 bits cost 0.44 nats. What share of that is left without their means?

# %% prediction="quantised_cache.centred" id="prediction-quantised_cache-centred"
predict(
    "quantised_cache.centred", "share of Gemma's rise with keys in 3 bits that is left without their means", unit="%",
    guess=...
)

# %% id="a247da70"
shares = {}
for name, found in stored.items():
    for run in found["centred keys"]:
        before = next(other for other in runs(name, "Turbo") if other["bits"] == run["bits"])
        shares[name, run["bits"]] = 100 * run["keys"] / before["keys"]
        print(f"{name}, keys in {run['bits']} bits: {before['keys']:+.3f}, without their means {run['keys']:+.3f}")
measured("quantised_cache.centred", shares[GEMMA, 3])

# %% [markdown] id="5d1ea13b"
# <details><summary>What the numbers say</summary>
#
# With 3 bits a third in Gemma, and more than half in SmolLM2; with 2 bits half of it in both models. So what all keys have in common did take up the bits, more so in Gemma. It is not the whole answer: in 4 bits SmolLM2 gains nothing, and Gemma's keys without their means still cost about twice as much as SmolLM2's, +0.058 and +0.030.
# </details>

# %% [markdown] id="e89f9799"
# Now by *bytes*, which is what somebody pays. And your own model, measured by you, in the first picture:

# %% id="653c1c6a"
def curve(name: str, codec: str) -> tuple[list[float], list[float]]:
    """Bits for each number of a key or value, all bytes counted, and the loss above that in 16 bits, 0.002 at least."""
    found = runs(name, codec)
    bits = [16 * run["bytes"] / stored[name]["bytes in 16 bits"] for run in found]
    return bits, [max(0.002, run["both"]) for run in found]

# %% tags=["nbval-ignore-output"] id="f9bc1d4f"
mine = [max(0.002, loss(Turbo(width, bits), Turbo(width, bits)) - whole) for bits in (2, 3, 4)]
charts = []
for name in stored:
    curves = {codec: curve(name, codec) for codec in CODECS}
    if not charts:
        curves["Turbo, yours"] = ([bits + 16 / width for bits in (2, 3, 4)], mine)
    axes = plots.Axes("bits a number, all counted", "nats more than in 16 bits", name, log="y", size=(5.5, 4))
    charts.append(plots.lines(curves, axes))
plots.beside(*charts)

# %% [markdown] id="f6c066be"
# In SmolLM2, TurboQuant's curve is the lowest up to 5 bits a number. In Gemma it is the lowest up to 3, and the curve of a scale for each channel crosses it before 4.5. (Points at 0.002 are 0.002 or less.)
#
# Of the loss that 3 bits cost, how much is the keys' fault?

# %% id="15376858"
for name in stored:
    for codec in ("PerToken", "Turbo", "TurboProduct"):
        run = next(run for run in runs(name, codec) if run["bits"] == 3)
        print(f"{name}, {codec:>12} in 3 bits: keys {run['keys']:+.3f}, values {run['values']:+.3f}, both {run['both']:+.3f}")

# %% [markdown] id="20107e75"
# Most of it: three quarters or more in SmolLM2, and nearly nine tenths in Gemma. (Once a text is lost, values can't make it much worse: `PerToken` with keys alone costs Gemma more than with both.)
#
# And the measurement that people like best, because it needs no held-out text: for how many tokens does the greedy text stay the same? With TurboQuant in 4 bits SmolLM2's loss has hardly changed, by 0.02 nats. For how many of 48 tokens does its text stay the same, on average over four texts?

# %% prediction="quantised_cache.same_for" id="prediction-quantised_cache-same_for"
predict(
    "quantised_cache.same_for", "tokens of 48 that stay the same in SmolLM2, TurboQuant in 4 bits", unit="tokens",
    guess=...
)

# %% id="aad1ba4d"
for name in stored:
    for codec in ("PerGroup", "Turbo", "TurboProduct"):
        print(f"{name}, {codec:>12}:", *(f"{run['bits']} bits {run['same for']:4.1f}" for run in runs(name, codec)))
in_4_bits = next(run for run in runs(SMOL, "Turbo") if run["bits"] == 4)
measured("quantised_cache.same_for", in_4_bits["same for"])

# %% [markdown] id="a86d51b4"
# <details><summary>What the numbers say</summary>
#
# 6.5 tokens on average in SmolLM2 with TurboQuant, although its loss is only 0.02 nats higher, and less than one in Gemma. Even with 8 bits, where hardly any loss can be measured, it is 25 to 44 in this table, not 48. (`PerChannel`, which is not in it, reaches 48 in Gemma, for all of the four texts.) Each of 48 tokens is a chance for a near-tie to fall the other way, and one is enough. A text that stays the same shows that nothing changed; a text that differs shows next to nothing.
# </details>

# %% [markdown] id="3041f0f5"
# ### The newest tokens
#
# Last, the `recent` tokens of exercise 9. TurboQuant in 2 and 3 bits, with none, 32 or 128 of 512 tokens kept as they came. For this the text is read 16 tokens at a time. A cache first appends all tokens of a call, and attention comes after that. If the whole text came in one call, only its last 32 tokens would be kept as they came: every earlier query would find its own neighbours, and itself, encoded already. Read by 16, each query finds itself and the 16 to 31 tokens before it as they came, nearly as in generation. In 2 bits SmolLM2's loss rises by 0.79 nats. What share of that rise is left if the newest 32 of the 512 tokens stay as they came?

# %% prediction="quantised_cache.newest" id="prediction-quantised_cache-newest"
predict(
    "quantised_cache.newest", "share of SmolLM2's rise in 2 bits that is left with 32 tokens kept", unit="%",
    guess=...
)

# %% id="7135cf1f"
for name, found in stored.items():
    for run in found["recent"]:
        print(f"{name}, {run['bits']} bits, the newest {run['recent']:3} kept: {run['both']:+.3f} nats")
in_2_bits = {run["recent"]: run["both"] for run in stored[SMOL]["recent"] if run["bits"] == 2}
measured("quantised_cache.newest", 100 * in_2_bits[32] / in_2_bits[0])

# %% [markdown] id="27cf40c8"
# <details><summary>What the numbers say</summary>
#
# An eighth in SmolLM2 with 2 bits, +0.10 and not +0.79, and a half in Gemma. Much of what attention reads is near. The same 32 tokens in one call leave +0.77, so a measurement that reads its text at once, as your `loss` does, misses most of what `recent` is worth in generation. In SmolLM2 nothing else that was tried here helps TurboQuant as much. In Gemma, with 3 bits, the means of the keys do more: without them 0.30 of 0.44 nats are gone, with the newest 32 tokens 0.23 of 0.50. Neither is a discovery of TurboQuant's. With 32 tokens kept and the rest in 2 bits, SmolLM2's cache for 512 tokens takes 3.1 bits a number; the longer the text, the less the newest tokens weigh. So ask of every claim whether newest tokens were kept, and how long the text was.
# </details>

# %% [markdown] id="9c1b6b71"
# ## What would convince you?
#
# Take out what you wrote at the beginning. Here is what these measurements say about the claims:
#
# | claim | SmolLM2 135M | Gemma 3 270M |
# |---|---|---|
# | 3.5 bits are as good as 16 (the paper, the talk) | no: 3.25 bits cost 0.16 nats, which is 17% more perplexity, and 4.25 bits 0.02 to 0.05, depending on the rotation, which is 2 to 5%. With the newest 32 tokens kept, 3 bits cost 0.03 | no: 3.06 bits cost 0.50 nats, 65% more perplexity, and 4.06 bits 0.18, 19%. With the newest 32 kept, 3 bits cost 0.27 |
# | the errors of the paper's table | reproduced, for random vectors as for real keys | not measured |
# | QJL off is better (vLLM) | yes, with every number of bits up to 6: in 3 bits +1.37 with it and +0.16 without. With 7 and 8 the difference is noise | yes: in 3 bits +2.74 with it and +0.50 without |
# | QJL only has the wrong matrix (mlx-lm) | in part: an orthogonal one repairs most of the damage, and is still worse than none | not measured |
# | plain rounding in 4 bits is better (quant.cpp) | with groups of 32 yes, +0.012 against +0.02 to +0.05. But that takes 5 bits a number, and TurboQuant 4.25. At 4 bits, all counted, groups lose 0.18 | with groups of 128 no: +0.63 against +0.18. With a scale for each channel yes: +0.06, for 4.5 bits a number and 4.06 |
# | 3 bits are useless with the rotation alone, and a fourth for QJL saves much (mlx-lm#1555) | +0.33 with 3 bits. A fourth for QJL makes it +0.30, a fourth for the codebook +0.02 | +1.69 with 3 bits, +0.93 and +0.18 with the fourth |
# | the rotation alone is enough (llama.cpp) | in 4 bits all of the gain that can be seen: +0.15 becomes +0.04, with the same bytes, and the codebook's +0.02 to +0.05 is no different from that. In 2 bits the codebook makes the difference: +3.7 and +0.8 | in 4 bits +0.98 becomes +0.27, and +0.18 with the codebook |
# | keys want a scale for each channel (KIVI) | better than one for each token, and in 4 bits (+0.03) not to be told from TurboQuant | the best of all in 4 bits |
# | keys need more bits than values (nearly everybody) | yes, wherever the loss is above the noise | yes |
#
# And here is what it does *not* say. The models are small, and their weights were rounded to about 5 bits before. The texts are one novel, and short. The paper measured a model of 8 billion parameters, on questions about long texts, and gave channels with outliers more bits than others, which after Gemma you can see the point of. A small model may have less to lose, or less in reserve; nobody can tell from this table. Two models already give two answers, so a third may give another. If your demand at the beginning was "a larger model" or "a real task", you are not convinced by this, and you should not be. You have the codecs now: what is missing is a computer.

# %% [markdown] id="8581eebc"
# ## Step 12 · The same text, and then another
#
# With a cache that keeps everything as it comes, your `QuantisedRows` must change nothing. `austen-qwen3`, token for token what transformers wrote:

# %% tags=["nbval-ignore-output"] id="1436899a"
austen = load_checkpoint("austen-qwen3")
writer = austen.build(CachedLM)
writer.make_cache = partial(QuantisedCache, AsItComes(), AsItComes())
check_generation(writer, austen, generate=generate)

# %% [markdown] id="1d43628a"
# And now with 8 bits, rotated, every key and value through your packed bytes. Is it still the same text? And with 4, 3 and 2 bits: after how many tokens does it differ, and is it still English?

# %% tags=["nbval-ignore-output"] id="5e90d6d4"
prompt = torch.tensor([austen.tokenizer.encode("It is a truth universally acknowledged, that").ids])
as_written = list(generate(writer, prompt, 48))
for bits in (8, 4, 3, 2):
    coded = Rotated(head_dim(austen.config), bits)
    writer.make_cache = partial(QuantisedCache, coded, coded)
    tokens = list(generate(writer, prompt, 48))
    first = next((i for i, (a, b) in enumerate(zip(tokens, as_written, strict=True)) if a != b), 48)
    print(f"{bits} bits, the same for {first} tokens: {austen.tokenizer.decode(tokens)!r}\n")

# %% [markdown] id="7afa4400"
# With 8 bits the text is the same. (On another prompt a near-tie can fall the other way.) With 4 bits it differs after 3 tokens, with 3 and 2 at once: at the first token where two were nearly equally likely it becomes another text. In 4 and 3 bits that is the English that this model writes anyway. In 2 bits it is not: "amply builture" and "I amused" are worse, and one can see it. But "the output differs" says the same of all three, and "the output looks fine" sees only the last of them. Both are poor measurements, and the loss on a held-out text is a better one.

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="93353a12"
# ## What changed, and why
#
# | | what is kept of a vector of d numbers | bits a number, d = 64, b = 4 | why |
# |---|---|---|---|
# | 16 bits | d numbers | 16 | |
# | a scale for each token | d codes, 1 scale | 4.25 | nothing to wait for |
# | a scale for each channel | d codes; 1 scale a channel and block of 32 tokens | 4.5 | keys have outliers in the same channels for all tokens; new tokens wait for a block |
# | groups with a zero point | d codes, 2 scales, 2 lows | 5 | ranges that fit, paid with extra numbers |
# | a random rotation | as without it | 4.25 | no outliers, whatever the model |
# | TurboQuant, first form | d codes, 1 norm | 4.25 | after a rotation the distribution is known, so the best levels are |
# | TurboQuant, second form | d codes of 3 bits, d signs, 2 lengths | 4.5 | dot products without a bias, and with a larger spread |
#
# ## The questions again
#
# <details><summary>Can a key be kept in 3 bits?</summary>
#
# Yes, to within 3.5% of its squared length, whatever key it is. What that costs depends on the model: with TurboQuant's keys in 3 bits SmolLM2 lost 0.12 nats on these texts, and Gemma 3 270M 0.44. That is much. Values in 3 bits cost 0.04 and 0.03.
# </details>
#
# <details><summary>Why do keys need more bits than values?</summary>
#
# An error in a key changes a score, and the softmax takes its exponential: other tokens are read. An error in a value is averaged with the errors of all other values that are read.
# </details>
#
# <details><summary>What does a random rotation do, and what does it not do?</summary>
#
# It spreads every vector's length over all coordinates, so that no channel stands out and the error is the same for all vectors. It does not make vectors easier that had no outliers, and it makes all channels pay for one that has.
# </details>
#
# <details><summary>Why is the first form of TurboQuant biased, and does it matter?</summary>
#
# A level is the mean of what it stands for, so what comes back is shorter by the mean squared error. For keys it acts like a slightly higher temperature, for values it makes the weighted sum too small. Where it was divided away again in 3 bits, the loss changed by no more than the draw of a rotation changes it, for keys as for values.
# </details>
#
# <details><summary>How can switching QJL off make a model better?</summary>
#
# The bit for the signs is taken from the codes. Scores lose their bias and get a spread that is about twice as large, and the spread changes which tokens are read.
# </details>
#
# <details><summary>Somebody shows "2 bits, no loss". What do you ask?</summary>
#
# Which bits are counted: scales, norms, newest tokens? Are the bytes packed, or only simulated? Are tokens that came one by one encoded at all? Is the loss that of a held-out text, and of which length? What does plain rounding reach at the same bytes?
# </details>
#
# ## Where to read on
#
# - Zandieh, Daliri, Hadian and Mirrokni, *TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate* (2025, arXiv 2504.19874), sections 1 and 3. Zandieh, Daliri and Han, *QJL: 1-Bit Quantized JL Transform for KV Cache Quantization with Zero Overhead* (2024, arXiv 2406.03482).
# - Liu et al., *KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache* (2024, arXiv 2402.02750): keys by channel, values by token. Ashkboos et al., *QuaRot* (2024, arXiv 2404.00456): rotations in the whole model.
# - Max, *Quantizing for Minimum Distortion* (1960). Lloyd, *Least Squares Quantization in PCM* (1982).
# - transformers has quantised caches that use other libraries, `QuantizedCache` in `cache_utils.py`. They decode all tokens and encode them again each time the newest are full (<a href="https://github.com/huggingface/transformers/issues/34189">huggingface/transformers#34189</a>).
#
# ## If you want more
#
# The means of Gemma's keys were those of all tokens, and a cache does not know the tokens to come. Write a codec for `QuantisedRows` that subtracts the means of each block of 32 tokens, encodes the rest with `Turbo`, and keeps the means in 16 bits. How many bits a number is that? You are right when with 8 bits the loss does not change; then compare it with `PerChannel` and `Turbo` in 3 bits.
#
# The first tokens of a text are read by nearly all later ones. Keep four of them as they came, and encode the rest: how much of the loss with 2 bits is left? You are right when the loss with *all* tokens kept is `whole`, the loss of the model as it is.
#
# Or give the bits to where they count: keys in 4 bits and values in 2 have the bytes of 3 and 3. Which of the two has the lower loss? And is it the same for `austen-qwen3`?
