# %% [markdown] id="84b81791"
# # 05 · Multi-head latent attention: cache one short vector for all heads
#
# **DeepSeek-V3 has 128 heads, with keys of 192 channels and values of 128. For every token and layer it caches 576 numbers. How?**
#
# The keys and values of all heads together are 40,960 numbers. How would you get by with 576?
#
# After this lesson you can
#
# - say, from a `config.json`, what a model with latent attention caches of a token, and how many bytes that is;
# - write latent attention in both of its forms, each checked against Hugging Face transformers: the one that rebuilds keys and values, and the one that never does;
# - say which of the two is cheaper when, from a count of multiplications, and show it with a clock;
# - explain why a few channels of the key had to be left out of the trick.
#
# 180 to 270 minutes · difficulty ●●●●○ · you know attention with a cache (lesson 02) and RoPE (lesson 03); nothing else is needed
#
# The lesson has two halves, and a marked place to stop for the day between them.
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# This is DeepSeek-V3. A red ring marks what differs from Qwen3 8B. This lesson is about its attention.
#
# ![DeepSeek-V3 from the bottom up: token ids, the token embedding of 129,280 tokens, 61 layers, a final RMSNorm and an output head with weights of its own. Each layer adds twice to the residual stream: multi-head latent attention with 128 heads and a latent of 512 + 64 numbers, and an MLP, which is a dense SwiGLU MLP in the first 3 layers and 256 experts in the other 58. Each is behind an RMSNorm.](figures/deepseek-v3-model.svg)
#
# And this is what four kinds of attention would have to cache:
#
# ![Numbers cached for one token in one layer with DeepSeek-V3's 128 heads. MHA caches 40,960. GQA with 8 groups caches 2,560. MQA caches 320. MLA caches 576: a latent of 512 numbers and one rotated key of 64.](figures/cached-numbers.svg)

# %% tags=["setup"] id="setup"
import math
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, check, check_generation, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% tags=["setup"] id="setup-4"
def rope_settings(config: Config) -> dict[str, Any]:
    """What a config says of RoPE: one dict in files of transformers 5, two fields in older ones."""
    settings = config.get("rope_parameters")
    if not settings:
        settings = {"rope_theta": config.rope_theta, **(config.get("rope_scaling") or {})}
    return {"rope_type": settings.get("type", "default"), **settings}

# %% tags=["setup"] id="setup-5"
def causal_softmax(scores: Tensor) -> Tensor:
    """Scores to attention weights: no token sees a later one; the softmax in float32.

    scores: [B, H, T, S], of the last T of S tokens -> [B, H, T, S], in their dtype.
    """
    T, S = scores.shape[-2:]
    future = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(diagonal=S - T + 1)
    return scores.masked_fill(future, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(scores.dtype)

# %% [markdown] id="7205fe31"
# You wrote `causal_softmax` in earlier lessons: mask, then softmax. It is given, so that the exercises are about what is new. With a cache there are fewer queries than keys: the T queries belong to the last T of S tokens.
#
# Two parts that lesson 03 built are given as well:

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% [markdown] id="92664de4"
# ## Steps 1 to 5 · Read the config, compare
#
# The steps are those of the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026), in the order in which this lesson needs them.
#
# DeepSeek-V2 (May 2024) introduced latent attention in its report, and DeepSeek-V3 (December 2024) uses it unchanged. These config fields decide about attention:

# %% id="84fe4a83"
from pathlib import Path

v3 = Config.read("configs/deepseek-v3.json")
for field in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
              "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
              "rope_theta", "rope_scaling"):
    print(f"{field:>20}: {v3[field]}")

# %% [markdown] id="1763ed3a"
# | field | what it decides |
# |---|---|
# | `kv_lora_rank` 512 | the length of the *latent*: the one vector from which the keys and values of all heads are computed |
# | `qk_rope_head_dim` 64 | key channels that RoPE rotates. They are computed from x directly, once for all heads |
# | `qk_nope_head_dim` 128 | key channels that are not rotated ("no position embedding"), computed from the latent, for each head |
# | `v_head_dim` 128 | value channels, computed from the latent, for each head. It is a number of its own: o_proj reads 128 · 128 |
# | `q_lora_rank` 1536 | queries go through a narrow vector too. DeepSeek-V2 gives the reason: less activation memory in training, the memory for intermediate results that gradients need. It saves no cache. `null` in smaller models |
# | `num_key_value_heads` 128 | equal to `num_attention_heads`: no head shares its keys with another, as heads do in GQA |
# | `rope_scaling` | YaRN: RoPE stretched from 4,096 tokens to 40 times as many. It changes the softmax's scale as well |
# | `rms_norm_eps` 1e-06 | the eps of the norms between sublayers. The norms *inside* attention do not read it |
#
# With a latent, more heads cost no more cache, so a model can afford 128 of them. A head is 128 channels wide. V2's report sets the latent to four times that, 512, and the rotated key to half of it, 64, and gives no reason for these factors.
#
# The name explains the idea: *lora rank* is r when a matrix is written as [D, r] times [r, N]. Grouped-query attention saves by sharing: there are fewer keys, and several query heads use each. Latent attention saves by compressing: every head has its own keys and values, but all of them are linear functions of one short vector, the latent. Only the latent is cached.

# %% id="839ed9de"
def cached_by_heads(config: Config) -> int:
    """The numbers of one token's keys and values in one layer, all key and value heads together."""
    if "kv_lora_rank" in config:
        key = config.qk_nope_head_dim + config.qk_rope_head_dim
        return config.num_attention_heads * (key + config.v_head_dim)
    heads = config.get("num_key_value_heads") or config.n_head
    return 2 * heads * (config.get("head_dim") or config.n_embd // config.n_head)


for name in ("gpt2-xl", "qwen3-8b", "deepseek-v3"):
    config = Config.read(f"configs/{name}.json")
    print(f"{name:>12}: {cached_by_heads(config):6,} numbers are a token's keys and values in a layer")

# %% [markdown] id="f3d55978"
# Caching every head's keys and values would take 40,960 numbers, 20 times Qwen3 8B's.
#
# ## First without training: how much of K and V is needed?
#
# Take a token's vector x as a row. Its keys are $x W_K$ and its values $x W_V$, for all heads together. Put the two matrices side by side: $W_{KV}$ is [D, N], with a column for each of the N numbers of a token's keys and values. Now write it as a product of two matrices, [D, r] times [r, N]. The r numbers in the middle are a latent: cache them, and the second factor rebuilds keys and values from them.
#
# Any matrix is a sum of products of one column and one row, of falling size. The size of such a product, the root of the sum of its squares, is called a singular value. A sum of r of them is a product [D, r] times [r, N]. For a given r, which product is closest to $W_{KV}$? The singular value decomposition finds it (Eckart and Young, 1936): it keeps the r products, or directions, with the largest singular values. Closest means here: the sum of the squared differences of the two matrices is smallest. What that does to a text is another question, and needs an experiment.
#
# Take a trained model with ordinary attention, austen-gpt2 of lesson 01. It has D = 192 and 6 heads, so 384 numbers for keys and values. GPT-2 adds positions to the embeddings, so a key is linear in the normed x. (RoPE will break that.) Here is GPT-2 as one function of its weights:

# %% id="31c90f53"
gpt2 = load_checkpoint("austen-gpt2")
D, LAYERS, HEADS = gpt2.config.n_embd, gpt2.config.n_layer, gpt2.config.n_head

# %% jupyter={"source_hidden": true} id="ce363c03"
def gpt2_logits(weights: dict[str, Tensor], ids: Tensor, seen: list[Tensor] | None = None) -> Tensor:
    """Lesson 01's model: ids [B, T] -> logits [B, T, vocab_size]; seen gets each layer's keys and values."""
    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def conv(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["wte.weight"][ids] + weights["wpe.weight"][: ids.shape[1]]
    for i in range(LAYERS):
        qkv = conv(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")  # [B, T, 3 D]
        if seen is not None:
            seen.append(qkv[..., D:].flatten(0, 1))
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in qkv.split(D, dim=-1))
        mixed = causal_softmax(q @ k.mT * q.shape[-1] ** -0.5) @ v
        x = x + conv(mixed.transpose(1, 2).flatten(2), f"h.{i}.attn.c_proj")
        hidden = F.gelu(conv(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + conv(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ weights["wte.weight"].T

# %% id="98d4aa04"
def windows(tokenizer, name: str) -> Tensor:
    """A text cut into rows of 256 tokens: [N, 256]."""
    ids = torch.tensor(tokenizer.encode(Path(f"texts/{name}.txt").read_text(encoding="utf-8")).ids)
    return ids[: len(ids) // 256 * 256].view(-1, 256)

# %% id="6e4a163d"
@torch.no_grad()
def loss(logits, ids: Tensor) -> float:
    """The mean surprise at the next token, in nats; logits is a function of ids."""
    return F.cross_entropy(logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()

# %% id="a00747d4"
held_out = windows(gpt2.tokenizer, "persuasion")  # the novel that no austen model was trained on
weights = gpt2.state_dict()
whole = loss(partial(gpt2_logits, weights), held_out)
print(f"{held_out.numel():,} tokens of Persuasion: {whole:.3f} nats a token")

# %% [markdown] id="69046b17"
# A latent of 384 numbers is as long as keys and values together, so it loses nothing. How short can it be before the logits change by more than rounding?

# %% prediction="mla.exact" id="prediction-mla-exact"
predict(
    "mla.exact", "shortest latent with which the logits stay the same", unit="numbers",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="af5a75c7"
@torch.no_grad()
def through_a_latent(rank: int, columns: slice = slice(D, 3 * D)) -> tuple[dict[str, Tensor], Tensor]:
    """The weights with some columns of c_attn (D: 2 D keys, 2 D: 3 D values) made from `rank` numbers.

    Also the singular values of every layer's columns: [LAYERS, D].
    """
    changed, values = dict(weights), []
    for name in (f"h.{i}.attn.c_attn.weight" for i in range(LAYERS)):
        W = changed[name] = weights[name].clone()  # [D, 3 D]
        U, S, V = torch.linalg.svd(W[:, columns], full_matrices=False)
        down, up = U[:, :rank] * S[:rank], V[:rank]  # [D, rank], [rank, columns]
        W[:, columns] = down @ up  # x @ down is what would be cached
        values.append(S)
    return changed, torch.stack(values)

# %% tags=["nbval-ignore-output"] id="dd0641b4"
ids, off = held_out[:2], {}
with torch.no_grad():
    for rank in (384, 320, 256, 224, 192, 176, 128, 96):
        changed, _ = through_a_latent(rank)
        off[rank] = (gpt2_logits(changed, ids) - gpt2_logits(weights, ids)).abs().max().item()
        print(f"rank {rank}: logits off by up to {off[rank]:.0e}")
measured("mla.exact", min(rank for rank in off if off[rank] < 1e-3))

# %% [markdown] id="44b2b3f8"
# <details><summary>What the numbers say</summary>
#
# With 192 numbers, D of them, nothing is lost, up to rounding: 384 numbers computed linearly from 192 have rank at most 192. So ordinary attention, with as many key-value heads as query heads, caches *twice* as many numbers as it needs: the normed x itself would do, and everything could be rebuilt from it. The biases do not change that, because they are added after the product.
# </details>
# %% [markdown] id="4d6776c0"
# Now shorter latents, where something is lost: 8, 16, 32, 48, 64, 96 or 128 numbers for keys and values. Which of these is the shortest with which the loss on *Persuasion* rises by less than 0.05 nats? And if either the keys or the values alone go through a latent of 16, which of the two costs more?

# %% prediction="mla.short" id="prediction-mla-short"
predict(
    "mla.short", "shortest latent with a rise of less than 0.05 nats", unit="numbers",
    guess=...
)

# %% prediction="mla.dearer" id="prediction-mla-dearer"
predict(
    "mla.dearer", "a latent of 16 costs more for", one_of=("keys", "values"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="3e94124f"
from grader.instruments import progress

ranks = (8, 16, 32, 48, 64, 96, 128, 192)
columns_of = {
    "keys and values": slice(D, 3 * D), "keys alone": slice(D, 2 * D), "values alone": slice(2 * D, 3 * D)
}

# %% tags=["nbval-ignore-output"] id="300b4ee2"
latent_losses = {}
for label, columns in progress.steps(columns_of.items(), "parts"):
    changed = [through_a_latent(rank, columns)[0] for rank in ranks]
    losses = [loss(partial(gpt2_logits, cut), held_out[:8]) for cut in changed]
    latent_losses[label] = dict(zip(ranks, losses, strict=True))
    rises = (f"{r} {value - losses[-1]:+.3f}" for r, value in latent_losses[label].items() if r < D)
    print(f"{label:>15}: " + ", ".join(rises))
by_rank = latent_losses["keys and values"]
measured("mla.short", min(rank for rank in ranks if by_rank[rank] - by_rank[D] < 0.05))
keys_cost_more = latent_losses["keys alone"][16] > latent_losses["values alone"][16]
measured("mla.dearer", "keys" if keys_cost_more else "values")

# %% tags=["nbval-ignore-output"] id="37c08c37"
from grader.instruments import plots

looks = {"log": "x", "xticks": ranks, "marks": {f"y{losses[-1]}": ""}, "size": (5.2, 3.4)}
around = plots.Axes("rank of the latent", "held-out loss, nats", **looks)
cut = {label: (ranks, found.values()) for label, found in latent_losses.items()}
directions = {f"h.{i}": (range(1, D + 1), values) for i, values in enumerate(through_a_latent(D)[1])}
spectrum = plots.Axes("direction", "singular value of W_KV", ylim=(0, None), size=(5.2, 3.4))
plots.beside(plots.lines(cut, around), plots.lines(directions, spectrum))

# %% [markdown] id="097105a2"
# <details><summary>What the numbers say</summary>
#
# A quarter of the 384 numbers (rank 96) costs nothing that this text could show, and a sixth (64) 0.02 nats. Below that the loss rises fast. Values cost more than keys: 16 numbers for the values of all six heads cost 0.37 nats, 16 for their keys 0.06. A possible reason: a small error in a score changes a softmax little, while errors in values go straight into the output.
#
# Look at the right-hand picture too: the singular values fall slowly. The matrices are not of low rank; training did not ask for it. Yet the loss hardly needs the small directions. Either the model does not use them, or the normed x hardly ever points along them; this experiment cannot tell which. Exercise 10 can.
# </details>

# %% [markdown] id="4296654e"
# ### Why not just share one head?
#
# Multi-query attention (MQA) caches even less: one key and one value for all heads, 320 numbers at V3's sizes. Then why a latent of 576? Compare the two on austen-gpt2 with the same number of cached numbers. For sharing, each group of heads gets the mean of its keys and the mean of its values. A latent of 64 numbers costs 0.02 nats, as you saw. By how much does the loss rise with one shared head, a key and a value of 32 each?

# %% prediction="mla.one_head" id="prediction-mla-one_head"
predict(
    "mla.one_head", "rise of the loss with one shared key and value head", unit="nats",
    guess=...
)

# %% id="7ae86d70"
def shared_heads(kv_heads: int) -> dict[str, Tensor]:
    """The weights with `kv_heads` keys and values in a layer: each group of heads gets its mean."""
    changed = dict(weights)
    for name in (name for name in weights if ".c_attn." in name):
        kv = weights[name][..., D:].unflatten(-1, (2, kv_heads, HEADS // kv_heads, -1))
        mean = kv.mean(dim=-2, keepdim=True).expand_as(kv)
        changed[name] = torch.cat([weights[name][..., :D], mean.flatten(-4)], dim=-1)
    return changed

# %% tags=["nbval-ignore-output"] id="c5191fca"
with_all = loss(partial(gpt2_logits, weights), held_out[:8])
print(f"all 384 numbers: {with_all:.2f} nats")
for kv_heads in (3, 2, 1):
    numbers = 2 * kv_heads * D // HEADS
    cuts = shared_heads(kv_heads), through_a_latent(numbers)[0]
    shared, latent = (loss(partial(gpt2_logits, cut), held_out[:8]) for cut in cuts)
    print(f"{numbers:3} numbers: {kv_heads} shared heads {shared:.2f} nats, a latent {latent:.2f}")
measured("mla.one_head", shared - with_all)

# %% [markdown] id="0c74b5cf"
# <details><summary>What the numbers say</summary>
#
# 1.1 nats: with one shared head the loss is 5.23 nats, with a latent of 64 numbers 4.15. Sharing gives all heads the same keys and values, so that only their queries differ. A latent leaves each head its own keys and values, and drops the directions with the smallest singular values.
# </details>

# %% [markdown] id="65d6b6ec"
# Neither model was trained again, and averaging heads that were trained apart is hard on them. A fair comparison trains both. DeepSeek-V2's report did. Of three models of 7 billion parameters, MHA was better than GQA, and GQA better than MQA (appendix D.1). Then it compared MLA with MHA in models of 16 and of 250 billion parameters, each pair of nearly the same size: MLA was better on most benchmarks, with 14% and 4% of the cache (appendix D.2). Why a model with a restriction should be better, the report does not say.
#
# Two questions remain. What would a model do that was *trained* with a latent, and can put into it what counts? You will see one at the end. And what about time? Rebuilding keys and values saves memory but costs time at every step. Exercise 7 removes the rebuilding.
#
# ## Step 6 · Code it up
#
# ### Exercise 1 · Compress
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# One matrix reads x and computes both things that are cached: first the latent, then the key for RoPE. The checkpoint calls it `kv_a_proj_with_mqa`: "mqa" because all heads share that key, as in multi-query attention. The latent goes through an RMSNorm of its own. The key does not, and neither report says why.
#
# The norm's eps is 10⁻⁶, whatever the config's `rms_norm_eps` says: transformers' code, and DeepSeek's own, create it with the class's default.
#
# `Attention` will inherit from this class, so that the names stay the checkpoint's: `self_attn.kv_a_proj_with_mqa`. Four attributes are widths, numbers of channels: `self.rank` of the latent, `self.nope` and `self.rope` of a head's two parts of the key, and `self.v` of its value.
#
# <details><summary>Hint 1</summary>
#
# `split([a, b], dim=-1)` cuts the last axis into pieces of lengths a and b.
#
# <details><summary>Hint 2</summary>
#
# Look at the arguments of `RMSNorm`, and which of them have a default.
# </details>
# </details>

# %% exercise="mla.compress" id="mla-compress"
class Compressor(nn.Module):
    """What a layer computes of a token for its cache: a normed latent, and a key for RoPE (DeepSeek-V2, 2.1).

    Parts: kv_a_proj_with_mqa (hidden_size -> kv_lora_rank + qk_rope_head_dim, without bias),
    kv_a_layernorm (RMSNorm over the latent, eps 1e-6).
    transformers: models/deepseek_v3/modeling_deepseek_v3.py, DeepseekV3Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.heads, self.rank = config, config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        ### BEGIN SOLUTION
        kept = config.kv_lora_rank + config.qk_rope_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, kept, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank)
        ### END SOLUTION

    def compress(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The normed latent, and the rope key before its rotation: [B, T, D] -> [B, T, rank], [B, T, rope]."""
        ### BEGIN SOLUTION
        both = self.kv_a_proj_with_mqa(x)  # [B, T, D] -> [B, T, rank + rope]
        latent, key = both.split([self.rank, self.rope], dim=-1)
        return self.kv_a_layernorm(latent), key
        ### END SOLUTION

# %% check="mla.compress" tags=["nbval-ignore-output"] id="check-mla-compress"
check("mla.compress", Compressor)

# %% [markdown] id="e3aa2460"
# ### Why a norm on the latent?
#
# DeepSeek-V2's report (section 3.1.2) adds norms after the compressed vectors "to ensure stable training", because compression changes the size of a layer's output. Make the weight of `kv_a_proj_with_mqa` 100 times larger. How large are the latent and the key then?

# %% id="c7caf988"
torch.manual_seed(0)
compressor, x = Compressor(v3.replace(hidden_size=256)), torch.randn(1, 8, 256)
with torch.no_grad():
    for factor in (1, 100):
        compressor.kv_a_proj_with_mqa.weight *= factor
        sizes = [part.square().mean().sqrt() for part in compressor.compress(x)]
        print(f"weight times {factor:3}: numbers of the latent have size {sizes[0]:.2f}, of the key {sizes[1]:.2f}")


# %% [markdown] id="0c060fb3"
# The latent does not change, so the keys and values that are computed from it don't either. The rotated key has no norm and grows with the weight. The cache stores the latent *after* the norm: then the norm is computed once for each token, and not again at every step.

# %% [markdown] id="603d3af7"
# ### Exercise 2 · Rotate pairs of neighbours
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# RoPE rotates pairs of channels, each pair by its own angle. Qwen3 and Llama pair channel i with channel i + d/2. DeepSeek's weights were trained with *neighbours* as pairs: 0 with 1, 2 with 3, as RoPE's own paper has it. Neither is better: the two differ in the order of the weights' rows, so a checkpoint works with one of them only. And transformers writes the result in another order, all pairs' first members and then all pairs' second members: it first sorts the channels into that order, then rotates halves as in Qwen3.
#
# $$(x_{2i}, x_{2i+1}) \;\to\; \text{channels } i \text{ and } i + d/2: \quad x_{2i}\cos\varphi_i - x_{2i+1}\sin\varphi_i, \quad x_{2i+1}\cos\varphi_i + x_{2i}\sin\varphi_i$$
#
# #### Given: the table of angles
#
# The table has one column for each pair. It includes YaRN (Peng et al., 2023), which stretches RoPE over longer texts than the model was trained on. The problem: in a longer text the slow pairs, which never made a full turn in training, would reach angles that the model has never seen. So YaRN makes them `factor` times slower. Fast pairs have seen all angles and stay as they are. Between the two there is a ramp. You need not read the two cells to do the exercise.

# %% tags=["setup"] long="YaRN's formula stands in one piece, as the config asks for it" id="setup-2"
def yarn(bases: Tensor, settings: dict[str, Any]) -> tuple[Tensor, float]:
    """RoPE's frequencies 1 / bases [d / 2] stretched, and a factor for cosines and sines.

    Peng et al. (2023), section 3.2. transformers: _compute_yarn_parameters.
    """
    pairs, factor = len(bases), settings["factor"]

    def pair_that_goes_round(times: float) -> float:
        radians = settings["original_max_position_embeddings"] / (times * 2 * math.pi)
        return pairs * math.log(radians) / math.log(settings["rope_theta"])

    low = max(math.floor(pair_that_goes_round(settings.get("beta_fast") or 32)), 0)
    high = min(math.ceil(pair_that_goes_round(settings.get("beta_slow") or 1)), 2 * pairs - 1)
    ramp = ((torch.arange(pairs, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    keep = 1 - ramp  # 1: as it was, 0: slower by the factor
    frequencies = 1.0 / (factor * bases) * (1 - keep) + 1.0 / bases * keep
    of_rope, of_all = settings.get("mscale"), settings.get("mscale_all_dim")
    if not (of_rope and of_all):
        return frequencies, 0.1 * math.log(factor) + 1
    log = 0.1 * math.log(factor)
    return frequencies, (of_rope * log + 1) / (of_all * log + 1)  # V3: 1

# %% tags=["setup"] id="setup-6"
def rope_table(positions: Tensor, config: Config) -> Tensor:
    """Cosine and sine of every pair's angle: positions [T] int64 -> [2, T, rope / 2] float32."""
    settings, width = rope_settings(config), config.qk_rope_head_dim
    bases = settings["rope_theta"] ** (torch.arange(0, width, 2).float() / width)  # [width / 2]
    frequencies, size = yarn(bases, settings) if settings["rope_type"] == "yarn" else (1.0 / bases, 1.0)
    angles = positions.float()[:, None] * frequencies.to(positions.device)  # [T, width / 2]
    return torch.stack([angles.cos() * size, angles.sin() * size])

# %% [markdown] id="db814ee2"
# #### Your part: the rotation
#
# <details><summary>Hint 1</summary>
#
# `x[..., 0::2]` takes every second channel.
#
# <details><summary>Hint 2</summary>
#
# The result has two halves, and each is computed from both inputs, first members and second members. `torch.cat` joins them. The table is float32, x may be bfloat16.
# </details>
# </details>

# %% exercise="mla.rope" id="mla-rope"
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels (2 i, 2 i + 1) by its angle; results go to i and i + d / 2.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, d], table: [2, T, d / 2] -> [B, H, T, d]. transformers: apply_rotary_pos_emb_interleave.
    """
    ### BEGIN SOLUTION
    cos, sin = table.to(x.dtype)  # 2 x [T, d / 2]
    a, b = x[..., 0::2], x[..., 1::2]  # 2 x [B, H, T, d / 2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    ### END SOLUTION

# %% check="mla.rope" tags=["nbval-ignore-output"] id="check-mla-rope"
check("mla.rope", apply_rope)

# %% [markdown] id="d5074ed1"
# Does the order of the result matter? Queries and keys are reordered alike, so their product is the same. The order only has to be the same in q and in the cached k. The pairing must match training. Here are three products; two of them are equal.

# %% id="1e4c0207"
def interleaved(x: Tensor) -> Tensor:
    """The two halves of the last axis, interleaved."""
    return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)


def rotated_in_halves(x: Tensor, table: Tensor) -> Tensor:
    """Qwen3's pairs: i and i + d / 2."""
    (first, second), (cos, sin) = x.chunk(2, dim=-1), table.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotated_interleaved(x: Tensor, table: Tensor) -> Tensor:
    """Neighbours as pairs, each number written back to where it came from."""
    return interleaved(apply_rope(x, table))

# %% id="eadaaaad"
torch.manual_seed(0)
q, k = torch.randn(2, 1, 1, 1, 64)
at_9, at_4 = (rope_table(torch.tensor([position]), v3) for position in (9, 4))
for what, way in {
    "neighbours, halves written apart": apply_rope,
    "neighbours, interleaved again": rotated_interleaved,
    "halves as pairs, as Qwen3 does": rotated_in_halves,
}.items():
    print(f"{what:>32}: {(way(q, at_9) * way(k, at_4)).sum():.4f}")

# %% [markdown] id="462f5499"
# The first two are equal: they differ only in the order. The third pairs other channels, and is another number.
#
# ### Exercise 3 · The scale of the scores
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Scores are divided by the square root of a key's length. Here a key has two parts, and both count. On top of that, YaRN makes attention sharper: in a longer text the softmax spreads its weights over more tokens, and larger scores make up for that. How much larger was found by trying: YaRN's authors took what gave the lowest perplexity in stretched models (section 3.4). So YaRN multiplies queries *and* keys by $m = 0.1 \cdot \mathrm{mscale} \cdot \ln(\mathrm{factor}) + 1$, and so the scores by $m^2$. DeepSeek puts that into the scale, with the field `mscale_all_dim`. "All dim" means that the channels that are not rotated are scaled too:
#
# $$\mathrm{scale} = \frac{m^2}{\sqrt{d_\mathrm{nope} + d_\mathrm{rope}}}$$
#
# How large is the factor for V3 (factor 40, `mscale_all_dim` 1)? The cell below the check prints it. What a model does when this factor is missing, an experiment near the end shows on trained weights.
#
# <details><summary>Hint 1</summary>
#
# `rope_settings(config)` from the setup cell returns one dict, whatever the file looks like. Its `rope_type` says whether YaRN is used at all.
#
# <details><summary>Hint 2</summary>
#
# `math.log` is the natural logarithm. A config without `mscale_all_dim`, or with 0, keeps the plain scale.
# </details>
# </details>

# %% exercise="mla.scale" id="mla-scale"
def softmax_scale(config: Config) -> float:
    """What the scores of q and k are multiplied by before the softmax.

    1 / sqrt(qk_nope_head_dim + qk_rope_head_dim); with YaRN (rope_type "yarn", mscale_all_dim given and
    not 0) times m^2, m = 0.1 * mscale_all_dim * ln(factor) + 1. transformers: yarn_apply_mscale.
    """
    ### BEGIN SOLUTION
    settings = rope_settings(config)
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    if settings["rope_type"] == "yarn" and settings.get("mscale_all_dim"):
        m = 0.1 * settings["mscale_all_dim"] * math.log(settings["factor"]) + 1
        scale = scale * m * m
    return scale
    ### END SOLUTION

# %% check="mla.scale" tags=["nbval-ignore-output"] id="check-mla-scale"
check("mla.scale", softmax_scale)

# %% id="85ba7082"
plain = softmax_scale(v3.replace(rope_scaling=None))
sharper = softmax_scale(v3) / plain
print(f"V3: {softmax_scale(v3):.6f}, without YaRN {plain:.6f}: {sharper:.3f} times sharper")

# %% [markdown] id="d8729eb8"
# m is 1.37, and scores are multiplied by its square, 1.87.
#
# ### Exercise 4 · The cache
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# What is cached of a token is now one row: the normed latent, and after it the *rotated* key. The row has no heads, and no keys apart from values. The key is rotated before it is cached, so that no old row has to be changed again.
#
# The rows are allocated once, for as many tokens as there will be. Growing by `torch.cat` would copy everything at every step, as lesson 02 measured.
#
# <details><summary>Hint 1</summary>
#
# `self.rows[:, a:b] = new` writes into rows that exist. Which rows are next?
#
# <details><summary>Hint 2</summary>
#
# If the new rows do not fit, `raise ValueError(...)` before anything is written. `torch.zeros` takes a `dtype`.
# </details>
# </details>

# %% exercise="mla.cache" id="mla-cache"
class LatentCache:
    """The rows that one layer caches: for every token its latent and then its rotated rope key.

    capacity: for how many tokens there is room from the start. length: how many there are.
    transformers: DynamicCache stores the same numbers, in two tensors.
    """

    def __init__(self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32):
        self.length = 0
        ### BEGIN SOLUTION
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self.rows = torch.zeros(batch, capacity, width, dtype=dtype)
        ### END SOLUTION

    def append(self, new: Tensor) -> Tensor:
        """Append new [B, T, width] to the rows; return all rows so far: [B, length, width].

        Raises ValueError, and stores nothing of it, where there is no room for all of `new`.
        """
        ### BEGIN SOLUTION
        end = self.length + new.shape[1]
        if end > self.rows.shape[1]:
            raise ValueError(f"{end} tokens do not fit into a cache for {self.rows.shape[1]}")
        self.rows[:, self.length : end] = new
        self.length = end
        return self.rows[:, :end]
        ### END SOLUTION

# %% check="mla.cache" tags=["nbval-ignore-output"] id="check-mla-cache"
check("mla.cache", LatentCache)

# %% [markdown] id="9367d3cb"
# ### Exercise 5 · Its bytes
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Now the size as a formula, from the config alone, for models with a latent and for those with heads.
#
# <details><summary>Hint 1</summary>
#
# With a latent: how many numbers does a row of your cache have? With heads: keys *and* values, of `num_key_value_heads` heads.
#
# <details><summary>Hint 2</summary>
#
# `head_dim` is its own number where the config has one; otherwise the width is divided among the query heads. A config with a latent can have a `head_dim` as well: transformers writes the number of rotated channels there.
# </details>
# </details>

# %% exercise="mla.bytes" id="mla-bytes"
def cache_bytes(config: Config, tokens: int, batch: int = 1, element_bytes: int = 2) -> int:
    """The bytes that a model caches for `tokens` tokens in each of `batch` texts, all layers together.

    A config with kv_lora_rank caches a latent and a key of qk_rope_head_dim; another caches keys and
    values of num_key_value_heads heads of head_dim (missing or null: hidden_size / query heads).
    """
    ### BEGIN SOLUTION
    if config.get("kv_lora_rank"):
        numbers = config.kv_lora_rank + config.qk_rope_head_dim
    else:
        head_dim = config.get("head_dim") or config.hidden_size // config.num_attention_heads
        numbers = 2 * config.num_key_value_heads * head_dim
    return batch * tokens * config.num_hidden_layers * numbers * element_bytes
    ### END SOLUTION

# %% check="mla.bytes" tags=["nbval-ignore-output"] id="check-mla-bytes"
check("mla.bytes", cache_bytes)

# %% [markdown] id="3faf16fc"
# Qwen3 8B caches 144 KiB for each token, in 36 layers and bfloat16. DeepSeek-V3 has 61 layers, 128 heads and eighty times the parameters. How much does it cache for a token?

# %% prediction="mla.v3_cache" id="prediction-mla-v3_cache"
predict(
    "mla.v3_cache", "cache of DeepSeek-V3 for one token", unit="KiB",
    guess=...
)

# %% id="a0e3964b"
from grader.instruments import work

qwen3 = Config.read("configs/qwen3-8b.json")
for name, config in (("Qwen3 8B", qwen3), ("DeepSeek-V3", v3)):
    print(f"{name:>12}: {cache_bytes(config, 1) / 1024:6.1f} KiB a token")
by_heads = v3.num_hidden_layers * cached_by_heads(v3) * 2
more = by_heads / cache_bytes(v3, 1)
print(f"V3, if it cached its heads' keys and values: {by_heads / 1024:,.0f} KiB, {more:.1f} times as much")
held = work.bytes_held(LatentCache(v3, batch=2, capacity=100, dtype=torch.bfloat16))  # one layer of 61
print(f"2 texts of 100 tokens, measured: {61 * held:,} bytes; the formula: {cache_bytes(v3, 100, 2):,}")
measured("mla.v3_cache", cache_bytes(v3, 1) / 1024)

# %% [markdown] id="64c20d5b"
# <details><summary>What the numbers say</summary>
#
# Half of Qwen3 8B's. A row of 576 numbers a layer is a quarter of Qwen3 8B's 2,048, and V3 has 1.7 times as many layers. The number of heads does not enter.
# </details>

# %% [markdown] id="eb280f60"
# Here you can try another model, another latent, a window. Where widgets don't run, the picture shows the first setting.

# %% tags=["nbval-ignore-output"] id="3a858ed4"
from grader.kv import kv_panel

kv_panel("DeepSeek V3", context=131_072, kv_heads=8)

# %% [markdown] id="51766967"
# ### The talk's chart, and what it leaves out
#
# A slide of the talk shows a model with 48 layers and a width of 2048 at 131,072 tokens: 51.5 GB with ordinary attention, then 12.9, 6.4, 3.2 and 0.8 GB with latents of 1024, 512, 256 and 64. Your formula gives the same numbers, and shows what they leave out: the key for RoPE.

# %% id="f6916c6f"
# All heads together have 2048 channels; how they are split does not matter here.
talk = Config({"num_hidden_layers": 48, "num_key_value_heads": 1, "head_dim": 2048})
print(f"{'ordinary attention':>20}: {cache_bytes(talk, 131_072) / 1e9:6.2f} GB")
print(f"{'':>20}  as on the slide   with a rotated key of 64")
for latent in (1024, 512, 256, 64):
    bare, real = (talk.replace(kv_lora_rank=latent, qk_rope_head_dim=width) for width in (0, 64))
    slide, whole = cache_bytes(bare, 131_072), cache_bytes(real, 131_072)
    print(f"{f'latent {latent}':>20}: {slide / 1e9:6.2f} GB {whole / 1e9:18.3f} GB, {whole / slide - 1:+.0%}")

# %% [markdown] id="881f997e"
# The rotated key adds 6% to a latent of 1024, and doubles one of 64.
#
# ## A place to stop for the day
#
# What you have so far:
#
# - ordinary attention caches far more numbers than its weights can use: cut to a quarter, austen-gpt2 lost nothing measurable;
# - your `Compressor` computes what MLA caches instead, a normed latent and one key;
# - your `apply_rope` rotates that key, your `LatentCache` stores both, and your `cache_bytes` says how much memory that is;
# - `softmax_scale` has YaRN's factor in it.
#
# Nothing attends yet. That is the second half.
#
# ## Where you were
#
# If you come back after a break: run all cells up to here. A token's cached row is its latent (512 numbers in V3), from which every head's key and value can be computed, and one rotated key (64) that all heads share. Now attention has to work from these rows. It can do so in two ways, and you write both: first the one that rebuilds keys and values, then the one that does not. Here is all of it, drawn:
#
# ![Inside DeepSeek-V3's attention. On the left, q_a_proj, a norm and q_b_proj make 128 queries of 128 + 64. On the right, kv_a_proj_with_mqa makes a latent of 512, which goes through a norm, and a rope key of 64, which is rotated and shared; these 576 numbers are cached. kv_b_proj makes 128 keys and values from the latent. A masked softmax of the products weighs the values, and o_proj brings 16,384 numbers back to 7,168.](figures/deepseek-v3-attention.svg)
#
# ### Exercise 6 · Attention, rebuilt from the latent
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Now everything together, in the form in which the model is trained:
#
# 1. **Queries** go through a narrow vector of their own: `q_a_proj`, a norm (eps 10⁻⁶ again), `q_b_proj`. Where `q_lora_rank` is null there is one `q_proj` instead. Each head's query has nope + rope channels, and the rope channels, the *last* ones, are rotated.
# 2. **The rows** so far come from `self.rows_so_far`, which is given: it uses your `compress`, your `apply_rope`, and the cache if there is one.
# 3. **Keys and values** are rebuilt: `kv_b_proj` maps a latent to nope + v channels for every head. A head's key is its nope channels, followed by the rotated key, which is the same for all heads.
# 4. Scores, softmax, weighted sum of the values, `o_proj`.
#
# T tokens come in; with a cache there are S ≥ T rows.
#
# <details><summary>Hint 1: the shapes</summary>
#
# q: [B, T, H · (nope + rope)] → [B, H, T, nope + rope]. Rows [B, S, latent + rope] → latents [B, S, latent] → kv_b_proj [B, S, H · (nope + v)] → [B, H, S, nope + v] → keys [B, H, S, nope], values [B, H, S, v]. The rotated key [B, S, rope] → [B, H, S, rope]. Result [B, H, T, v] → [B, T, H · v].
#
# <details><summary>Hint 2: splitting heads</summary>
#
# `t.unflatten(-1, (H, -1)).transpose(1, 2)` makes [B, H, T, d] of [B, T, H · d]. Split a head's channels after that, not before: each head has its own nope and its own v channels, side by side.
#
# <details><summary>Hint 3: one key for all heads</summary>
#
# `key[:, None].expand(-1, H, -1, -1)` returns H views of one tensor. Then `torch.cat` along the channels.
#
# <details><summary>Hint 4: the rest</summary>
#
# `causal_softmax` from the setup cell masks and normalises. `softmax_scale(config)` is your exercise 3.
# </details>
# </details>
# </details>
# </details>

# %% exercise="mla.attention" id="mla-attention"
class Attention(Compressor):
    """Latent attention that rebuilds every head's keys and values (DeepSeek-V2, section 2.1).

    Parts besides Compressor's, all without bias:
    q_a_proj (D -> q_lora_rank), q_a_layernorm (RMSNorm, eps 1e-6), q_b_proj (-> H * (nope + rope)),
    or q_proj alone (D -> H * (nope + rope)) where q_lora_rank is None;
    kv_b_proj (kv_lora_rank -> H * (nope + v)); o_proj (H * v -> D).
    A head's channels stand side by side: nope, then rope; nope, then v. transformers: DeepseekV3Attention.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        ### BEGIN SOLUTION
        D, all_queries = config.hidden_size, self.heads * (self.nope + self.rope)
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(D, all_queries, bias=False)
        else:
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank)
            self.q_b_proj = nn.Linear(config.q_lora_rank, all_queries, bias=False)
        self.kv_b_proj = nn.Linear(self.rank, self.heads * (self.nope + self.v), bias=False)
        self.o_proj = nn.Linear(self.heads * self.v, D, bias=False)
        ### END SOLUTION

    def rows_so_far(self, x: Tensor, table: Tensor, cache: "LatentCache | None") -> Tensor:
        """The rows of x, behind those of the cache if there is one: [B, T, D] -> [B, S, rank + rope]."""
        latent, key = self.compress(x)
        new = torch.cat([latent, apply_rope(key[:, None], table)[:, 0]], dim=-1)
        return new if cache is None else cache.append(new)

    def queries(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D], table: [2, T, rope / 2] -> [B, H, T, nope + rope], the rope channels rotated."""
        ### BEGIN SOLUTION
        narrow = self.config.q_lora_rank is not None
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if narrow else self.q_proj(x)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, nope + rope]
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope, apply_rope(rope, table)], dim=-1)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, cache: "LatentCache | None" = None) -> Tensor:
        """x: [B, T, D], table: [2, T, rope / 2] -> [B, T, D]; x are the last T of S tokens."""
        q, rows = self.queries(x, table), self.rows_so_far(x, table, cache)
        ### BEGIN SOLUTION
        latents, key = rows.split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, S, nope + v]
        nope, v = kv.split([self.nope, self.v], dim=-1)
        k = torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1)  # [B, H, S, nope + rope]
        weights = causal_softmax(q @ k.mT * softmax_scale(self.config))  # [B, H, T, S]
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # [B, T, H * v]
        return self.o_proj(mixed)
        ### END SOLUTION

# %% check="mla.attention" tags=["nbval-ignore-output"] id="check-mla-attention"
check("mla.attention", Attention)

# %% [markdown] id="fcd9f08d"
# This form caches only 576 numbers. The cost is one line, `self.kv_b_proj(latents)`: it runs over all S rows for every new token, and computes again what the step before computed. For V3 at 32,768 tokens:

# %% id="d4cefe2f"
v3_rebuild = 32_768 * v3.kv_lora_rank * v3.num_attention_heads * (v3.qk_nope_head_dim + v3.v_head_dim)
print(f"{v3_rebuild * v3.num_hidden_layers / 1e12:.1f} trillion multiply-adds for one token; "
      f"its 37 billion active parameters need {37e9 / 1e12:.3f}")

# %% [markdown] id="7c281270"
# For one token, rebuilding would take 900 times as many multiply-adds as all its active parameters: of V3's 671 billion, a token is computed with 37 billion (lesson 07).
#
# ### Exercise 7 · Attention that never rebuilds
# difficulty ●●●●● · importance ●●●●● · 20 minutes
#
# Look at one head, and at the channels that are not rotated. Vectors are rows in the formulas, as in the code. (Papers write them as columns.) The head's key for token j is $c_j W_{UK}^\top$, where $c_j$ is the latent and $W_{UK}$, [nope, latent], are the rows of `kv_b_proj`'s weight that belong to this head's key. So its score is
#
# $$q\, k_j^\top = q\, (c_j W_{UK}^\top)^\top = (q\, W_{UK})\, c_j^\top$$
#
# Move the brackets and no key is needed: project the *query* into latent space once, `q @ W_UK`, then take dot products with the cached rows. The same works for values. The result is $\sum_j p_j\, c_j W_{UV}^\top = \bigl(\sum_j p_j\, c_j\bigr) W_{UV}^\top$: take the weighted sum of the latents first, then compute one value from it instead of S. The matrix has been *absorbed* into the query and into the output.
#
# What remains is attention with one key head and one value head for all 128 query heads. Its keys are the cached rows, latent and rotated key, 576 channels; its values are the first 512 of the same channels.
#
# ![Both forms read the same cached rows. On the left, expanded: kv_b_proj computes keys [128, S, 128 + 64] and values [128, S, 128] for all S rows, and every head attends to its own. On the right, absorbed: each head's query is multiplied by W_UK and attends to the cached rows themselves; the weighted sum of latents is multiplied by W_UV.](figures/expanded-and-absorbed.svg)
#
# All heads read the same rows, so one product can read each row for all heads together; where the rows are broadcast to the heads, each head reads them again, which takes time. The check counts multiply-adds: rebuilding is too many. Is the result the same to the last bit?
#
# <details><summary>Hint 1: the weight</summary>
#
# `self.kv_b_proj.weight` is [H · (nope + v), latent]. As [H, nope + v, latent] each head has its two matrices, one below the other.
#
# <details><summary>Hint 2: the shapes</summary>
#
# [B, H, T, nope] times [H, nope, latent] is [B, H, T, latent]: `@` works head by head. After it come the rotated channels of the query, as they are. All heads share the rows, so fold heads and tokens into one axis: [B, H · T, latent + rope] against rows [B, S, latent + rope]. `causal_softmax` counts tokens on the last axis but one: before it, the heads need their own axis again.
#
# <details><summary>Hint 3: the way back</summary>
#
# After the softmax, fold heads and tokens once more: weights [B, H · T, S] times latents [B, S, latent] is [B, H · T, latent]. Each head's W_UV is [v, latent]; it must map latent to v.
#
# <details><summary>Hint 4: the scale</summary>
#
# The same as before. The score is the same number, however long the vectors are from which you compute it.
# </details>
# </details>
# </details>
# </details>

# %% exercise="mla.absorbed" id="mla-absorbed"
class AbsorbedAttention(Attention):
    """Latent attention on the rows themselves, kv_b_proj absorbed into queries and outputs.

    Same parts, same result as Attention. No head's keys or values are computed: each head's part of
    kv_b_proj's weight maps its query into latent space, and its weighted sum of latents to a value.
    DeepSeek-V2, section 2.1.2, says that it can be done, in one sentence.
    """

    def forward(self, x: Tensor, table: Tensor, cache: "LatentCache | None" = None) -> Tensor:
        """x: [B, T, D], table: [2, T, rope / 2] -> [B, T, D]; x are the last T of S tokens."""
        q, rows = self.queries(x, table), self.rows_so_far(x, table, cache)
        ### BEGIN SOLUTION
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        per_head = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))  # [H, nope + v, rank]
        W_UK, W_UV = per_head.split([self.nope, self.v], dim=1)
        q = torch.cat([nope @ W_UK, rope], dim=-1)  # [B, H, T, rank + rope]
        scores = (q.flatten(1, 2) @ rows.mT).unflatten(1, (self.heads, -1))  # [B, H * T, S] -> [B, H, T, S]
        weights = causal_softmax(scores * softmax_scale(self.config))
        latents = weights.flatten(1, 2) @ rows[..., : self.rank]  # [B, H * T, rank]
        mixed = latents.unflatten(1, (self.heads, -1)) @ W_UV.mT  # [B, H, T, v]
        return self.o_proj(mixed.transpose(1, 2).flatten(2))
        ### END SOLUTION

# %% check="mla.absorbed" tags=["nbval-ignore-output"] id="check-mla-absorbed"
check("mla.absorbed", AbsorbedAttention)

# %% [markdown] id="db786148"
# Not to the last bit: the same sums are computed in another order. How far apart are the two, in a layer with the widths of DeepSeek-V2-Lite (16 heads, no `q_lora_rank`), and do they cache the same rows?

# %% tags=["nbval-ignore-output"] id="8dbc12e5"
lite = v3.replace(hidden_size=2048, num_attention_heads=16, q_lora_rank=None, rope_scaling=None)
torch.manual_seed(0)
expanded, absorbed = Attention(lite).eval(), AbsorbedAttention(lite).eval()
print(absorbed.load_state_dict(expanded.state_dict()))
x, table = torch.randn(2, 48, 2048), rope_table(torch.arange(48), lite)
caches = [LatentCache(lite, batch=2, capacity=48) for _ in range(2)]
with torch.no_grad():
    whole = expanded(x, table)
    for attention, cache in zip((expanded, absorbed), caches, strict=True):
        parts = [attention(x[:, a:b], table[:, a:b], cache) for a, b in ((0, 40), (40, 41), (41, 48))]
        difference = (torch.cat(parts, dim=1) - whole).abs().max() / whole.std()
        print(f"{type(attention).__name__:>18}, in pieces of 40, 1 and 7 tokens: off by {difference:.0e}")
nothing = torch.zeros(2, 0, 576)  # an append of no token gives all rows
print("the same rows:", torch.equal(*(cache.append(nothing) for cache in caches)))

# %% [markdown] id="2c9b9fa9"
# ### The catch: RoPE does not commute
#
# Why are there two kinds of channels? Suppose all key channels were rebuilt from the latent, and RoPE rotated the result, as in every model before. With the matrix $R_i$ for the rotation at position $i$, a score is
#
# $$(q R_i)\, (c_j W_{UK}^\top R_j)^\top = (q R_i R_j^\top W_{UK})\, c_j^\top$$
#
# The rotation is between $q$ and $W_{UK}$, and it depends on the distance i − j. So there is no single matrix to absorb, but one for every distance. Could the latent be rotated instead, $c_j R_j$, before $W_{UK}$? That is another vector. Both in numbers, for one head of a random layer. Absorb the matrix for distance 0, and use it at a distance of one token. By how much is the absorbed query off, as a share of its length?

# %% prediction="mla.one_apart" id="prediction-mla-one_apart"
predict(
    "mla.one_apart", "absorbed query used one token away, off by", unit="%",
    guess=...
)

# %% id="2e621a13"
W_UK = expanded.kv_b_proj.weight.unflatten(0, (16, -1))[0, :128].detach()  # [nope, kv_lora_rank]
torch.manual_seed(1)
q, c = torch.randn(2, 4000, 512)
q = q[:, :128]
wide = v3.replace(qk_rope_head_dim=128, rope_scaling=None)  # as if RoPE rotated all 128 channels


def rotated(x: Tensor, position: int, config: Config) -> Tensor:
    """Every row of x [N, d] as it would be at this position."""
    return apply_rope(x[None, None], rope_table(torch.full((len(x),), position), config))[0, 0]

# %% id="65b57a86"
absorbed_once = rotated(q, 0, wide) @ W_UK  # what would be multiplied with c, made for distance 0
shares = {}
for distance in (0, 1, 4, 16, 64, 256):
    right_one = rotated(q, distance, wide) @ W_UK
    shares[distance] = (right_one - absorbed_once).norm() / right_one.norm()
    print(f"distance {distance:3}: the absorbed query for distance 0 is off by {shares[distance]:4.0%}")
latent_rotated = rotated(c, 5, v3.replace(qk_rope_head_dim=512, rope_scaling=None)) @ W_UK.T
key_rotated = rotated(c @ W_UK.T, 5, wide)
wrong_key = (latent_rotated - key_rotated).norm() / key_rotated.norm()
print(f"the latent rotated in place of the key, at position 5: off by {wrong_key:.0%}")
measured("mla.one_apart", 100 * shares[1])

# %% [markdown] id="2364ac02"
# <details><summary>What the numbers say</summary>
#
# A quarter, at a distance of one token: the fastest pairs turn by a whole radian from one token to the next. At four tokens most of the query is wrong, and a key from a rotated latent is as wrong as a random one.
# </details>

# %% [markdown] id="d04b5faf"
# So DeepSeek *decoupled* position from content. 128 channels of a key carry the token's content and are never rotated. 64 more carry its position; they come from x directly, and are cached. A score is now the sum of two products, content and position:
#
# $$q_\mathrm{nope}\, W_{UK}\, c_j^\top + (q_\mathrm{rope} R_i)\, (k_\mathrm{rope} R_j)^\top$$
#
# The rotation is in the second product alone, so the first can be absorbed.
#
# Why one such key for all heads? Count what would be cached if each of the 128 heads had a rotated key of its own:

# %% id="6f051ca6"
for whose, rope_keys in (("one for all heads", 1), ("one for each head", v3.num_attention_heads)):
    print(f"rotated keys, {whose}: {v3.kv_lora_rank + rope_keys * v3.qk_rope_head_dim:,} numbers for a token and layer")


# %% [markdown] id="f6659ea0"
# 8,704 instead of 576: fifteen times as many, and four times what Qwen3 8B caches.
#
# Could the keys be cached before they are rotated, and be rotated when they are read? With GQA, yes, at the cost of work at every step. With MLA that would mean building them first, so nothing could be absorbed.
#
# ## Which form, when? First the count
#
# T new tokens, S rows. Per head, counting multiply-adds, with r = kv_lora_rank and n, p, v for nope, rope and value channels. The projections that both forms share are left out:
#
# | | rebuild or absorb | scores and weighted sums |
# |---|---|---|
# | expanded | $S \cdot r (n + v)$ | $T S \cdot (n + p + v)$ |
# | absorbed | $T \cdot r (n + v)$ | $T S \cdot (r + p + r)$ |
# | every head's keys and values cached | $T \cdot r (n + v)$ | $T S \cdot (n + p + v)$ |
#
# Expanded pays for every *row*. Absorbed pays for every *new token*, and its vectors are longer: 1,088 multiply-adds instead of 320 for each pair of tokens. The last line does the least work, but its cache is 71 times as large.
#
# Is the table right? Count all products that are really computed, for a layer of V2-Lite's widths (16 heads). In which of these three cases does the absorbed form do less work? The last one has 896 tokens in its cache, and reads 128 more at once.

# %% prediction="mla.absorbed_wins" id="prediction-mla-absorbed_wins"
predict(
    "mla.absorbed_wins", "absorbed does fewer multiply-adds for",
    some_of=("one token, 1,024 rows", "a prompt of 512", "128 tokens, 1,024 rows"),
    guess=...
)

# %% id="972b1747"
def counted(attention: Attention, T: int, S: int) -> int:
    """The multiply-adds in products of one call with T new tokens after S - T in the cache."""
    cache = LatentCache(lite, batch=1, capacity=S)
    cache.length = S - T  # rows of zeros cost as much as any others
    x, table = torch.randn(1, T, 2048), rope_table(torch.arange(S - T, S), lite)
    return work.multiply_adds(lambda: attention(x, table, cache))

# %% id="321b4acb"
def by_formula(form: str, T: int, S: int, config: Config = lite) -> int:
    """The same by the table, with the projections that all forms share."""
    H, D, r = config.num_attention_heads, config.hidden_size, config.kv_lora_rank
    n, p, v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    shared = T * (D * H * (n + p) + D * (r + p) + H * v * D)
    rebuilt = (S if form == "expanded" else T) * r * (n + v)
    pairs = T * S * (2 * r + p if form == "absorbed" else n + p + v)
    return shared + H * (rebuilt + pairs)

# %% id="824c312a"
print(f"{'':>30} {'expanded':>15} {'absorbed':>15}")
ratios = {}
for what, T, S in (("one token, 1,024 rows", 1, 1024), ("a prompt of 512", 512, 512),
                   ("128 tokens, 1,024 rows", 128, 1024)):
    counts = [counted(attention, T, S) for attention in (expanded, absorbed)]
    assert counts == [by_formula(form, T, S) for form in ("expanded", "absorbed")]
    ratios[what] = counts[0] / counts[1]
    print(f"{what:>30} {counts[0]:15,} {counts[1]:15,}   {ratios[what]:.2f}")
measured("mla.absorbed_wins", [what for what, ratio in ratios.items() if ratio > 1])

# %% [markdown] id="c4a8d30f"
# <details><summary>What the numbers say</summary>
#
# In the first and the last. Count and formula agree to the last multiplication. For one token, absorbed does less than a sixtieth of expanded's work, and that includes the projections that both forms share. For a whole prompt, expanded is cheaper. All rows are new then (T = S), so the first column is the same for both, and expanded has the shorter vectors in the second. That holds for a prompt of any length. With 128 new tokens behind 896 old ones, absorbed still does a little less.
# </details>

# %% [markdown] id="ea91b5a2"
# With rows in the cache it depends on T. Set the two lines of the table equal and solve for T. The heads cancel, and what remains is
#
# $$T = \frac{S\, T^*}{S + T^*}, \qquad T^* = \frac{r (n + v)}{2 r - n - v}$$
#
# With more new tokens than this, of S rows in all, expanded is cheaper. In a prompt all rows are new, T = S, and S is above this number: for a prompt expanded is always cheaper. The number is also always below T*, and approaches T* when there are many rows. Count again, on both sides of it:

# %% id="2603cb7b"
r, n, p, v = lite.kv_lora_rank, lite.qk_nope_head_dim, lite.qk_rope_head_dim, lite.v_head_dim
many_rows = r * (n + v) / (2 * r - n - v)  # T*


def crossing(S: int) -> float:
    """With how many new tokens, of S rows in all, both forms cost the same."""
    return S * many_rows / (S + many_rows)


print(f"T* = {many_rows:.1f}")
for S in (16, 128, 1024, 32_768):
    print(f"{S:6,} rows in all: the same with {crossing(S):5.1f} new tokens")
for T, S in ((16, 16), (128, 128), (146, 1024), (147, 1024)):
    counts = [counted(attention, T, S) for attention in (expanded, absorbed)]
    print(f"{T:3} new of {S:5,}: expanded does {counts[0] / counts[1]:.4f} times the work of absorbed")

# %% [markdown] id="e274c545"
# ## Which form, when? Then the clock
#
# For one token after 1,024 rows the expanded form does 69 times the work. How many times as long does it take, on this machine?

# %% prediction="mla.one_token_time" id="prediction-mla-one_token_time"
predict(
    "mla.one_token_time", "expanded against absorbed, one token with 1,024 rows", unit="times as long",
    guess=...
)

# %% [markdown] id="0ab7eb26"
# And for more and more new tokens, with 1,024 rows in all: do the curves cross where the count says?
#
# A third form is measured for comparison, with the cache that MLA avoids: every head's keys and values. They hold random values; the time does not depend on them.

# %% tags=["nbval-ignore-output"] id="fdb7a4de"
def with_latents(attention: Attention, T: int, S: int) -> tuple:
    """A call with T new tokens after S - T in a latent cache, and the bytes of that cache."""
    cache = LatentCache(lite, batch=1, capacity=S)
    x, table = torch.randn(1, T, 2048), rope_table(torch.arange(S - T, S), lite)

    def step() -> Tensor:
        cache.length = S - T
        return attention(x, table, cache)

    return step, work.bytes_held(cache)

# %% id="87f858ab"
def with_heads(T: int, S: int) -> tuple:
    """The same over every head's cached keys and values, which are random here."""
    k, v = torch.randn(1, 16, S, 192), torch.randn(1, 16, S, 128)
    x, table = torch.randn(1, T, 2048), rope_table(torch.arange(S - T, S), lite)

    def step() -> Tensor:
        expanded.kv_b_proj(expanded.compress(x)[0])  # the new tokens' own keys and values
        weights = causal_softmax(expanded.queries(x, table) @ k.mT)
        return expanded.o_proj((weights @ v).transpose(1, 2).flatten(2))

    return step, k.nbytes + v.nbytes

# %% tags=["nbval-ignore-output"] id="fc551bfe"
from grader.instruments import clock

FORMS = {
    "expanded": partial(with_latents, expanded), "absorbed": partial(with_latents, absorbed), "heads cached": with_heads
}
rows, news = (64, 128, 256, 512, 1024, 2048), (1, 16, 64, 128, 256, 512)
decode, chunk = {}, {}
for label, form in progress.steps(FORMS.items(), "forms"):
    decode[label] = rows, [clock.milliseconds(form(1, S)[0]) for S in rows]
    print(f"{label:>12}, one token, ms for {rows} rows: " + ", ".join(f"{t:.1f}" for t in decode[label][1]))
for label in progress.steps(("expanded", "absorbed"), "forms"):
    chunk[label] = news, [clock.milliseconds(FORMS[label](T, 1024)[0], repeats=3) for T in news]
    print(f"{label:>12}, 1,024 rows, ms for {news} new tokens: " + ", ".join(f"{t:.0f}" for t in chunk[label][1]))
expanded_ms, absorbed_ms = (decode[label][1][rows.index(1024)] for label in ("expanded", "absorbed"))
measured("mla.one_token_time", expanded_ms / absorbed_ms)

# %% tags=["nbval-ignore-output"] id="d42fd8d3"
same = crossing(1024)
one = plots.Axes("rows in the cache", "ms for one token", "decode", log="xy", size=(5.2, 3.4))
marks = {f"x{same}": f"the same work, {same:.0f}"}
many = plots.Axes("new tokens at once", "ms", "1,024 rows in all", log="xy", marks=marks, size=(5.2, 3.4))
plots.beside(plots.lines(decode, one), plots.lines(chunk, many))

# %% [markdown] id="ef07754a"
# <details><summary>What the numbers say</summary>
#
# Far less than 69 times as long. A clock sees more than multiply-adds. The absorbed form has so few of them that its time is spent elsewhere: the weights of its projections have to be read, whatever the number of rows, and each operation takes time to start. Rebuilding is one large product, which a processor computes at its best speed.
# </details>

# %% [markdown] id="d688f10b"
# Expanded soon grows in proportion to the rows: rebuilding them is nearly all it does. Absorbed pays a fixed price for its projections and little for a row, so its times hardly depend on the rows until there are many. Where other programs run beside it, they jump about. So use both, as serving engines such as vLLM do: expanded to read the prompt, absorbed to write.
#
# On the right, the curves need not cross on the line, and on some machines they cross far from it. A clock sees more than multiplications (the softmax, every copy), and products of different shapes do not run equally fast.
#
# The form that caches every head's keys and values computes the least, and still need not be the fastest over many rows. Of every cached token it has to read 16 · 320 numbers, where absorbed reads 576. "What it costs", at the end, comes back to that.
#
# Memory is more than the cache. For one token after 2,048 both latent forms have a cache of 4.7 MB in this layer, in float32. How large is the largest tensor that the expanded form creates in this step?

# %% prediction="mla.largest" id="prediction-mla-largest"
predict(
    "mla.largest", "largest tensor of the expanded form in one step", unit="MB",
    guess=...
)

# %% id="e0cb8ae6"
print(f"{'':>12}  {'the cache':>16}  {'largest tensor of a step':>26}")
largest = {}
for label, form in FORMS.items():
    step, cached = form(1, 2049)
    largest[label] = work.largest_tensor(step)
    print(f"{label:>12}  {cached:>10,} bytes  {largest[label]:>20,} bytes")
one_layer = lite.replace(num_hidden_layers=1)
print(f"the formula, for 2,049 tokens in float32: {cache_bytes(one_layer, 2049, element_bytes=4):,} bytes")
measured("mla.largest", largest["expanded"] / 1e6)

# %% [markdown] id="e951edff"
# <details><summary>What the numbers say</summary>
#
# Expanded has a small cache, and then creates for a moment, in every layer, a tensor of 34 MB, nearly as large as the cache that it avoids. Absorbed never creates it; its largest tensor is 0.13 MB.
# </details>

# %% [markdown] id="b5f8f350"
# ## The whole model
#
# DeepSeek-V3's layer is Qwen3's except for attention and for the experts in its MLPs. The experts, on the right, are lesson 07; here every MLP is the dense one of V3's first three layers, on the left: one MLP for all tokens.
#
# ![V3's dense MLP: gate_proj and up_proj expand 7,168 to 18,432, the gate goes through SiLU, and down_proj projects back. 396 million parameters a layer.](figures/deepseek-v3-mlp-2.svg) ![V3's experts: a router chooses 8 of 256 gated experts for each token, from 4 of 8 groups; one shared expert of width 2,048 works on every token. 11.3 billion parameters a layer, of which a token uses 398 million.](figures/deepseek-v3-mlp.svg)
#
# What is new is that each layer gets its cache:

# %% tags=["setup"] long="one class, with its shapes" id="setup-3"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of x and is added to x.

    x: [B, T, D], table: [2, T, rope / 2] -> [B, T, D]. transformers: DeepseekV3DecoderLayer.
    """

    def __init__(self, config: Config, attention: type[nn.Module]):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, table: Tensor, cache: "LatentCache | None" = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

# %% [markdown] id="2a216bf9"
# ### Exercise 8 · The model, with its caches
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# Embedding, layers, one last norm, as in Qwen3. The one new question is positions: the first of the T tokens comes after everything that is in the caches. Make one table for all layers, before any of them runs.
#
# <details><summary>Hint 1</summary>
#
# `caches[0].length` says how many tokens were read before. When does it change?
#
# <details><summary>Hint 2</summary>
#
# Without caches (`None`), the first position is 0, and every layer gets `None`.
# </details>
# </details>

# %% exercise="mla.model" id="mla-model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (nn.Embedding), layers (nn.ModuleList of DecoderLayer), norm (config.rms_norm_eps).
    attention: the class that its layers use, Attention or AbsorbedAttention. transformers: DeepseekV3Model.
    """

    def __init__(self, config: Config, attention: type[nn.Module] = Attention):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = (DecoderLayer(config, attention) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, ids: Tensor, caches: "list[LatentCache] | None" = None) -> Tensor:
        """ids: [B, T] int64, the tokens that follow those in caches (one for each layer) -> [B, T, D]."""
        ### BEGIN SOLUTION
        x = self.embed_tokens(ids)  # [B, T, D]
        start = caches[0].length if caches else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, self.config)
        for i, layer in enumerate(self.layers):
            x = layer(x, table, caches[i] if caches else None)
        return self.norm(x)
        ### END SOLUTION

# %% check="mla.model" tags=["nbval-ignore-output"] id="check-mla-model"
check("mla.model", Model)

# %% [markdown] id="5f583ee9"
# ## Steps 8 to 11 · Layer by layer
#
# Compare every module with transformers' own, on the same weights. First the expanded form, then the absorbed one.

# %% tags=["nbval-ignore-output"] id="00a10a9b"
compare_layers(Model)

# %% tags=["nbval-ignore-output"] id="7797cda2"
class AbsorbedModel(Model):
    """The model with attention that never rebuilds."""

    def __init__(self, config: Config):
        super().__init__(config, AbsorbedAttention)


compare_layers(AbsorbedModel, open="none")

# %% [markdown] id="224aa095"
# In the absorbed form `kv_b_proj` has a weight that is used, but the module itself is never called. The report says so.
#
# Now plant a bug that no shape and no text shows: the latent's norm takes the config's eps. In the small config of this comparison the eps is large, so that it shows. Which row will the report name?

# %% tags=["nbval-ignore-output"] id="0ec86a49"
class ConfigsEps(Attention):
    """The norm on the latent reads rms_norm_eps."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, config.rms_norm_eps)

# %% tags=["nbval-ignore-output"] id="c2900faf"
class WithABug(Model):
    """The model with that attention."""

    def __init__(self, config: Config):
        super().__init__(config, ConfigsEps)

# %% tags=["nbval-ignore-output"] id="310d0840"
try:
    compare_layers(WithABug, open="none")
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="b3a0f56f"
# It names `kv_a_layernorm` of the first layer: the module whose formula is wrong, not one of those that pass the error on.
#
# **Step 9 · Read the reference's code.** `DeepseekV3Attention.forward` in `transformers/models/deepseek_v3/modeling_deepseek_v3.py`. Find the line where the cache is written: before or after `expand_kv`? Which of your two forms does that file have?
#
# <details><summary>Answer</summary>
#
# The cache is written before `expand_kv`, so it holds latents and rotated keys, as yours does. The file has the expanded form only.
# </details>
#
# ## Step 7 · Does it write?
#
# The head, and one cache for each layer:

# %% long="one class, which every cell below uses" id="5dd19383"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token: [B, T] -> [B, T, vocab_size]."""

    def __init__(self, config: Config, attention: type[nn.Module] = Attention):
        super().__init__()
        self.config = config
        self.model = Model(config, attention)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight

    def caches(self, batch: int, capacity: int) -> list[LatentCache]:
        """An empty cache for each layer."""
        return [LatentCache(self.config, batch, capacity) for _ in self.model.layers]

    def forward(self, ids: Tensor, caches: list[LatentCache] | None = None) -> Tensor:
        return self.lm_head(self.model(ids, caches))

# %% [markdown] id="7d8ba99b"
# ### Exercise 9 · generate, with a cache
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Read the prompt once; after that, give the model one token at a time. `model.caches(batch, capacity)` creates empty caches, `model(ids, caches)` reads ids that follow those in the caches.
#
# <details><summary>Hint 1</summary>
#
# In the first step ids is the prompt, in all others the token that was just chosen, [1, 1]. For how many tokens must there be room? The last token that is chosen is never read, so one place less is right, too.
# </details>

# %% exercise="mla.generate" id="mla-generate"
@torch.no_grad()
def generate(
    model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()
) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: Python ints, one at a time.

    ids: [1, T] int64, the prompt, read in one call; it may have end_tokens in it. No token is read twice, and
    the last new one need not be read: the caches have room for T + max_new_tokens tokens, or for one less.
    max_new_tokens: 1 or more. Ends after that many, or once one of end_tokens has been yielded; the config's end
    token does not count.
    model: has caches(batch, capacity), and is called with ids and the caches.
    """
    ### BEGIN SOLUTION
    caches = model.caches(1, ids.shape[1] + max_new_tokens)
    for _ in range(max_new_tokens):
        ids = model(ids, caches)[:, -1].argmax(dim=-1, keepdim=True)  # [1, T] -> [1, 1]
        token = ids.item()
        yield token
        if token in end_tokens:
            return
    ### END SOLUTION

# %% check="mla.generate" tags=["nbval-ignore-output"] id="check-mla-generate"
check("mla.generate", generate)

# %% [markdown] id="8299dc08"
# ## Step 12 · Trained weights, the same text
#
# `austen-mla` was trained for this course with transformers' DeepseekV3 classes: 4 layers, 6 heads, a latent of 64, a rotated key of 16, YaRN's scale included. It caches 80 numbers for a token and layer; its heads' keys and values would be 480. Both forms must write the reference's text, token for token, through the latent cache:

# %% tags=["nbval-ignore-output"] id="f73bbd2c"
austen = load_checkpoint("austen-mla")
models = {}
for attention in (Attention, AbsorbedAttention):
    models[attention] = CausalLM(austen.config, attention).eval()
    austen.load_into(models[attention])
    print(f"--- {attention.__name__}")
    check_generation(models[attention], austen, generate=generate)

# %% [markdown] id="6eb47666"
# If transformers is installed here, compare directly. It caches the same rows, so its cache must have as many bytes as yours.

# %% tags=["nbval-ignore-output"] id="7935f311"
def encode(text: str) -> Tensor:
    """The text's token ids: [1, T]."""
    return torch.tensor([austen.tokenizer.encode(text).ids])

# %% tags=["nbval-ignore-output"] id="5eda372e"
from grader.instruments import reference

ids = encode("Anne had never been so much")
theirs = reference.model(austen.folder)
if theirs is not None:
    with torch.no_grad():
        wanted = theirs(ids, use_cache=False).logits
        for attention, model in models.items():
            print(f"{attention.__name__:>18}: logits off by {(model(ids) - wanted).abs().max():.0e}")

# %% tags=["nbval-ignore-output"] id="6e4a0319"
if theirs is not None:
    from transformers import DynamicCache

    their_cache, own_caches = DynamicCache(config=theirs.config), models[Attention].caches(1, ids.shape[1])
    with torch.no_grad():
        theirs(ids, cache=their_cache, use_cache=True)
        models[Attention](ids, own_caches)
    print(f"{ids.shape[1]} tokens: {work.bytes_held(their_cache.layers):,} bytes in transformers' cache,"
          f" {work.bytes_held(own_caches):,} in yours,"
          f" {cache_bytes(austen.config, ids.shape[1], element_bytes=4):,} by the formula")

# %% tags=["nbval-ignore-output"] id="586bdd11"
if theirs is not None:
    done = reference.written(theirs, ids, 48)
    for model in models.values():
        assert list(generate(model, ids, len(done))) == done
    print(repr(austen.tokenizer.decode(done)))

# %% [markdown] id="6263f8a3"
# ## Which differences would the text have shown?
#
# Each experiment below changes one thing in austen-mla and reads *Persuasion*: another eps, YaRN left out in one place or everywhere, other pairs for RoPE, queries without their rotated channels (16 of 32+16), or with those alone. Which of them raise the loss by more than 0.1 nats?

# %% prediction="mla.changes" id="prediction-mla-changes"
six = ("the latents' eps 1e-5 in place of 1e-6", "no YaRN in the scale", "no YaRN at all", "halves as pairs",
       "no rotated channels", "rotated channels only")
predict(
    "mla.changes", "changes that raise the loss by more than 0.1 nats", some_of=six,
    guess=...
)

# %% tags=["nbval-ignore-output"] id="aba266be"
class NoPosition(Attention):
    """Attention without the rotated channels: positions are gone."""

    def queries(self, x: Tensor, table: Tensor) -> Tensor:
        q = super().queries(x, table)
        q[..., self.nope :] = 0
        return q

# %% id="73f737b7"
class NoContent(Attention):
    """Attention by the rotated channels alone."""

    def queries(self, x: Tensor, table: Tensor) -> Tensor:
        q = super().queries(x, table)
        q[..., : self.nope] = 0
        return q

# %% id="1d913197"
from grader.instruments import patch


class PairsAsHalves(Attention):
    """Channels i and i + d / 2 as pairs, as in Qwen3, in queries and keys."""

    def forward(self, x: Tensor, table: Tensor, cache: LatentCache | None = None) -> Tensor:
        with patch.replaced(globals(), apply_rope=rotated_in_halves):
            return super().forward(x, table, cache)

# %% id="a2b60e93"
class PlainScale(Attention):
    """Scores without YaRN's factor: the queries are shorter by what the scale would have added."""

    def queries(self, x: Tensor, table: Tensor) -> Tensor:
        plain = (self.nope + self.rope) ** -0.5
        return super().queries(x, table) * (plain / softmax_scale(self.config))

# %% id="2acc9077"
settings = rope_settings(austen.config)
changes = {
    "as it is": (Attention, {}),
    "the latents' eps 1e-5 in place of 1e-6": (ConfigsEps, {"rms_norm_eps": 1e-5}),
    "no YaRN in the scale": (PlainScale, {}),
    "no YaRN at all": (Attention, {"rope_parameters": settings | {"rope_type": "default"}}),
    "halves as pairs": (PairsAsHalves, {}),
    "no rotated channels": (NoPosition, {}),
    "rotated channels only": (NoContent, {}),
}

# %% tags=["nbval-ignore-output"] id="ab7fbd10"
golden = list(generate(models[Attention], ids, 48))
persuasion = windows(austen.tokenizer, "persuasion")
nats = {}
for what, (attention, change) in progress.steps(changes.items(), "programs"):
    other = CausalLM(austen.config.replace(**change), attention).eval()
    austen.load_into(other)
    agree = sum(a == b for a, b in zip(generate(other, ids, 48), golden, strict=True))
    nats[what] = loss(other, persuasion[:8])
    print(f"{what:>40}: loss {nats[what]:.3f}, {agree:2} of 48 tokens agree")
measured("mla.changes", [what for what in six if nats[what] > nats["as it is"] + 0.1])

# %% [markdown] id="d5d9ab3a"
# <details><summary>What the numbers say</summary>
#
# The wrong eps changes none of the 48 tokens, and no printed digit of the loss. The layer comparison does, and so do exercise 1's tiny inputs.
#
# Without YaRN's factor in the scale, the loss on this text is even a little *lower*, and only 6 of 48 tokens agree. A wrong port need not be a worse model, so a loss does not tell whether a port is right.
#
# RoPE's own mistakes, in the frequencies or in the pairs, cost about a nat: as much as having no rotated channels at all.
#
# Without the rotated channels the loss is a nat higher. With only the rotated channels the model does nearly as well as with all: in a model this small, the 16 channels that come from x directly carry most of what the scores need.
# </details>

# %% [markdown] id="fe471b3b"
# ## What compression costs
#
# Back to the curve. austen-gpt2 had 384 numbers for keys and values, cut down after training. austen-mla was trained with 80. The two also differ in other ways (RoPE, SwiGLU, and how long they were trained), so do not compare their losses with each other; compare each model with itself. Cut austen-mla's latent of 64 down further, to 56, 48, 32, 16 or 8 directions, as you did with GPT-2's. GPT-2 needed 64 for a rise of less than 0.05 nats. And austen-mla?

# %% prediction="mla.cut" id="prediction-mla-cut"
predict(
    "mla.cut", "fewest directions of 64 with a rise of less than 0.05 nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="332ad43e"
@torch.no_grad()
def cut_latent(rank: int) -> float:
    """The held-out loss of austen-mla when only `rank` directions of each latent reach keys and values."""
    cut = CausalLM(austen.config).eval()
    austen.load_into(cut)
    for layer in cut.model.layers:
        weight = layer.self_attn.kv_b_proj.weight  # [H * (nope + v), kv_lora_rank]
        scale = layer.self_attn.kv_a_layernorm.weight  # a channel counts as much as the norm makes it
        U, S, V = torch.linalg.svd(weight * scale, full_matrices=False)
        weight.copy_((U[:, :rank] * S[:rank]) @ V[:rank] / scale)
    return loss(cut, persuasion[:8])

# %% tags=["nbval-ignore-output"] id="78df37e1"
latent_ranks = (8, 16, 32, 48, 56, 64)
cut_losses = [cut_latent(rank) for rank in progress.steps(latent_ranks, "ranks")]
rises = {rank: value - cut_losses[-1] for rank, value in zip(latent_ranks, cut_losses, strict=True)}
print("austen-mla: " + ", ".join(f"{rank} {rise:+.3f}" for rank, rise in rises.items()))
measured("mla.cut", min(rank for rank, rise in rises.items() if rise < 0.05))
gpt2_rises = {rank: value - losses[-1] for rank, value in latent_losses["keys and values"].items()}
curves = {
    "austen-gpt2, cut after training": (gpt2_rises.keys(), gpt2_rises.values()),
    "austen-mla, trained with 64": (rises.keys(), rises.values()),
}
plots.lines(curves, plots.Axes("rank that is left", "rise of the loss, nats", log="x", xticks=ranks, marks={"y0": ""}))

# %% [markdown] id="8205dd69"
# <details><summary>What the numbers say</summary>
#
# Half of the 64 directions are enough for austen-mla, and with 16 it loses a third of what GPT-2 loses. Does training with a latent put what counts into fewer directions? These numbers fit that, and do not show it. austen-mla's scores depend mostly on the rotated channels, as you saw, so its latent carries mainly values. Compared with GPT-2's values alone, in the first picture, it is still ahead: cut to 32 numbers those cost 0.19 nats, and here 0.01. But that is one model of each kind, trained once. Other seeds, and a model without a latent that has RoPE too, would have to agree.
# </details>

# %% [markdown] id="8b6d859b"
# ### Exercise 10 · In how many directions does a cache vary?
# difficulty ●●●○○ · importance ●●●○○ · 15 minutes
#
# One question of the first half is still open. GPT-2's matrices are not of low rank, and yet its loss hardly needs their small directions. Either the model does not use what lies there, or the normed x hardly ever points there. The keys and values themselves can tell: collect what is cached of a text, and measure how much of its variance lies in the few directions in which it varies most. This experiment is yours.
#
# Find the directions in one text and measure in another. In the text that they were found in, the best directions always look better than they are: with as many directions as tokens, they would hold all of its variance and say nothing about the next text.
#
# Subtract the mean first. It is the same for every token, so a model could store it once. It must be the mean of the first text, the only one that is known when the directions are chosen.
#
# <details><summary>Hint 1</summary>
#
# The singular value decomposition of the first text's rows, less their mean, has the directions. `torch.linalg.svd` gives U, S and Vh. Which of them has as many columns as a row has numbers?
#
# <details><summary>Hint 2</summary>
#
# `torch.linalg.svd(..., full_matrices=False).Vh[:rank]` are the first `rank` directions, one a row, each of length 1 and at right angles to the others. A row's coordinates along them are its products with them.
#
# <details><summary>Hint 3</summary>
#
# The share is one quotient: a sum of squares over all tokens and directions, divided by a sum of squares over all tokens and channels.
# </details>
# </details>
# </details>

# %% exercise="mla.variance" id="mla-variance"
def variance_in(rank: int, first: Tensor, second: Tensor) -> float:
    """The share of the variance of `second` that lies in the `rank` directions in which `first` varies most.

    first: [N, n], second: [M, n], rows of what is cached of two texts. Both are taken less the mean row of `first`.
    The directions are the right singular vectors with the largest singular values. The share is the sum of squares of
    what `second` has along them, divided by the sum of all its squares; from 0 to 1. rank is below N and at most n.
    """
    ### BEGIN SOLUTION
    mean = first.mean(dim=0)
    directions = torch.linalg.svd(first - mean, full_matrices=False).Vh[:rank]  # [rank, n]
    varies = second - mean
    return ((varies @ directions.T).square().sum() / varies.square().sum()).item()
    ### END SOLUTION

# %% check="mla.variance" tags=["nbval-ignore-output"] id="check-mla-variance"
check("mla.variance", variance_in)

# %% [markdown] id="0d1cf58a"
# Now GPT-2's keys and values, layer by layer, and austen-mla's latents behind their norm. The first text is the first half of what the course has of *Persuasion*, the second one the rest. Of the variance of GPT-2's 384 numbers in layer 0, how much lies in 32 directions?

# %% prediction="mla.variance" id="prediction-mla-variance"
predict(
    "mla.variance", "variance in 32 of GPT-2's 384 directions, layer 0", unit="%",
    guess=...
)

# %% jupyter={"source_hidden": true} id="3718bbe8"
from grader.instruments import patch


def cached_by_gpt2(ids: Tensor) -> list[Tensor]:
    """The keys and values of each layer: [tokens, 2 D]."""
    seen: list[Tensor] = []
    with torch.no_grad():
        gpt2_logits(weights, ids, seen)
    return seen


trained_mla = CausalLM(austen.config).eval()
austen.load_into(trained_mla)


def cached_by_mla(ids: Tensor) -> list[Tensor]:
    """What each layer of austen-mla caches beside the rotated key: [tokens, 64]."""
    calls = patch.calls_in(trained_mla.model, ids)
    names = [f"layers.{i}.self_attn.kv_a_layernorm" for i in range(len(trained_mla.model.layers))]
    return [calls[name].output.flatten(0, 1) for name in names]

# %% tags=["nbval-ignore-output"] id="a8ec1547"
half = len(held_out) // 2
before, after = cached_by_gpt2(held_out[:half]), cached_by_gpt2(held_out[half:])
in_weights = [(values.square().cumsum(0) / values.square().sum()).tolist() for values in through_a_latent(D)[1]]
print("GPT-2, layer by layer; in brackets, the share of the weights' squared singular values")
for rank in (8, 16, 32, 64, 96):
    shares = [variance_in(rank, a, b) for a, b in zip(before, after, strict=True)]
    print(f"{rank:3} of 384: " + "  ".join(f"{own:4.0%} ({in_weights[i][rank - 1]:.0%})" for i, own in enumerate(shares)))
measured("mla.variance", 100 * variance_in(32, before[0], after[0]))

# %% tags=["nbval-ignore-output"] id="80e4ccf9"
half = len(persuasion) // 2
latents = list(zip(cached_by_mla(persuasion[:half]), cached_by_mla(persuasion[half:]), strict=True))
for rank in (8, 16, 32, 48):
    print(f"{rank:3} of austen-mla's 64: " + "  ".join(f"{variance_in(rank, a, b):4.0%}" for a, b in latents))

# %% [markdown] id="e165414b"
# If variance is what counts, then a latent of GPT-2 should be cut along these directions, and not along those of the weights. With 32 numbers along the weights' directions the loss rises by 0.1 nats. Along those in which keys and values vary most, it rises

# %% prediction="mla.by_variance" id="prediction-mla-by_variance"
predict(
    "mla.by_variance", "a latent of 32 along the directions of the data",
    one_of=("by less than half as much", "by about as much", "by more than twice as much"),
    guess=...
)

# %% id="b12e3464"
def along_the_data(rank: int) -> dict[str, Tensor]:
    """GPT-2's weights with keys and values limited to the directions in which they vary most."""
    changed = dict(weights)
    for i, rows in enumerate(before):
        W, b, mean = f"h.{i}.attn.c_attn.weight", f"h.{i}.attn.c_attn.bias", rows.mean(dim=0)
        V = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:rank]
        changed[W], changed[b] = weights[W].clone(), weights[b].clone()
        changed[W][:, D:] = weights[W][:, D:] @ V.T @ V
        changed[b][D:] = mean + (weights[b][D:] - mean) @ V.T @ V
    return changed

# %% tags=["nbval-ignore-output"] id="7804bea4"
rest, rises = held_out[len(held_out) // 2 :], {}
for rank in (16, 32, 64):
    ways = weights, through_a_latent(rank)[0], along_the_data(rank)
    uncut, by_weights, by_data = (loss(partial(gpt2_logits, way), rest) for way in ways)
    rises[rank] = by_weights - uncut, by_data - uncut
    print(f"rank {rank}: along the weights' directions {rises[rank][0]:+.3f}, along the data's {rises[rank][1]:+.3f}")

# %% tags=["nbval-ignore-output"] id="0cca221f"
ratio = rises[32][1] / rises[32][0]
answers = ("by less than half as much", "by about as much", "by more than twice as much")
measured("mla.by_variance", answers[(ratio >= 0.5) + (ratio > 2)])

# %% [markdown] id="5d9796e8"
# <details><summary>What the numbers say</summary>
#
# 92% in layer 0 and 94 to 98% in the others, in a text in which the directions were not found. From the weights alone one would expect less: 32 directions hold 65 to 75% of their squared singular values. So the second reading is right: the normed x hardly ever points along the small directions.
#
# But the loss does not go by variance. Cut to 32 numbers along the directions in which keys and values vary most, GPT-2 loses about as much as with the weights' own directions. What varies little need not be worth little: the few percent that are left out decide some softmax, or carry what a later layer reads. A share of variance says how well a cache can be rebuilt, and not what the model needs of it.
#
# austen-mla uses its 64 numbers more evenly: 8 directions hold 55 to 82% of their variance, where 8 directions of GPT-2's 384 hold 78 to 92%.
# </details>

# %% [markdown] id="555fc230"
# What is sure: GPT-2 was never trained with a latent, and can give up three quarters of its numbers at no cost; after that each further cut costs more. These are models of two million parameters that read one author. They do not tell how far a large model can be cut; DeepSeek chose 512 for 128 heads.
#
# ## What it costs
#
# | | cached for a token and layer | work for one token after S | reads |
# |---|---|---|---|
# | ordinary attention, 128 heads as V3's | 40,960 numbers | the least | all 40,960, of every token |
# | expanded from the latent | 576 | rebuilds S tokens | 576, then creates and reads 40,960 |
# | absorbed | 576 | 3.4 times as much per pair as the first | 576, of every token |
#
# The last column matters most when one token is written. Every cached number has to be read from memory, and lesson 02 measured that decoding waits for memory. With ordinary attention each number that is read is used once; here each row is used by all heads. So absorbed MLA does 3.4 times the arithmetic and reads a seventieth as much.
#
# Does a whole model show it? Build one with random weights and V2-Lite's widths, two layers deep, in three forms: the two that you wrote, and one that caches every head's keys and values (folded, like the loop that writes). It reads 1,024 tokens and writes 4. Which form writes fastest, and how large is each cache?

# %% jupyter={"source_hidden": true} id="5699abf7"
class HeadsCached(Attention):
    """The same layer with every head's key and value in its cache, as in ordinary attention."""

    def forward(self, x: Tensor, table: Tensor, cache: "LatentCache | None" = None) -> Tensor:
        latent, key = self.compress(x)
        nope_v = self.kv_b_proj(latent).unflatten(-1, (self.heads, -1))  # [B, T, H, nope + v]
        rope = apply_rope(key[:, None], table).transpose(1, 2)  # [B, T, 1, rope]
        new = torch.cat([rope.expand(-1, -1, self.heads, -1), nope_v], dim=-1)
        rows = cache.append(new.flatten(2)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = rows.split([self.rope + self.nope, self.v], dim=-1)  # [B, H, S, ...]
        q = self.queries(x, table).roll(self.rope, dims=-1)  # rope first, as in the rows
        weights = causal_softmax(q @ k.mT * softmax_scale(self.config))
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))

# %% id="367eca46"
deep = lite.replace(num_hidden_layers=2, vocab_size=1000, intermediate_size=1024)
per_head = Config({"kv_lora_rank": cached_by_heads(deep), "qk_rope_head_dim": 0})  # the width of HeadsCached's rows


@torch.no_grad()
def reader(form: type[Attention], tokens: int = 1024, new: int = 4) -> tuple:
    """A model that has read `tokens` tokens: its caches, and a call that writes `new` more."""
    torch.manual_seed(0)
    model, ids = CausalLM(deep, form).eval(), torch.arange(tokens + new)[None] % 1000
    caches = [LatentCache(per_head if form is HeadsCached else deep, 1, tokens + new) for _ in model.model.layers]
    model(ids[:, :tokens], caches)
    return caches, lambda: writes(model, ids[:, tokens:], caches)

# %% jupyter={"source_hidden": true} id="17865966"
def writes(model: CausalLM, ids: Tensor, caches: list[LatentCache]) -> Tensor:
    """The last logits after reading ids one by one; what the caches held before is all that they hold after."""
    start = caches[0].length
    for i in range(ids.shape[1]):
        logits = model(ids[:, i : i + 1], caches)
    for cache in caches:
        cache.length = start
    return logits

# %% tags=["nbval-ignore-output"] id="48cd729d"
whole_forms = {"every head cached": HeadsCached, "expanded": Attention, "absorbed": AbsorbedAttention}
readers = {name: reader(form) for name, form in progress.steps(whole_forms.items(), "forms")}
spent = clock.in_turns({name: run for name, (_, run) in readers.items()}, repeats=3)
right = None
for name, (caches, run) in readers.items():
    with torch.no_grad():
        logits = run()
    right = logits if right is None else right
    print(f"{name:>17}: {4000 / spent[name]:6.1f} tokens/s, cache {work.bytes_held(caches) / 1e6:5.1f} MB,"
          f" logits off by {(logits - right).abs().max():.0e}")

# %% [markdown] id="1d179bbb"
# All three compute the same logits. The cache of the two latent forms is nearly nine times smaller (16 heads here; with V3's 128 it would be 71 times). Expanded is far slower than the others, because it rebuilds 1,024 rows in every layer for every token. Absorbed has the small cache, and is as fast as the form that caches everything, or faster.
#
# For real models, in bytes:

# %% id="c02294d5"
print(f"{'':>14} {'KiB a token':>12} {'131,072 tokens':>15}")
gpt2_xl = Config({"num_hidden_layers": 48, "num_key_value_heads": 25, "head_dim": 64})
for name, config in (("GPT-2 XL*", gpt2_xl), ("Qwen3 8B", qwen3), ("DeepSeek-V3", v3),
                     ("austen-mla", austen.config)):
    print(f"{name:>14} {cache_bytes(config, 1) / 1024:12.2f} {cache_bytes(config, 131_072) / 1e9:12.2f} GB")

# %% [markdown] id="3fccc0d7"
# GPT-2 XL cannot read that many tokens; its line shows what it would cost.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="6cb4d468"
# ## What changed, and why
#
# | | Qwen3 8B | DeepSeek-V3 | changes what it can represent? | why |
# |---|---|---|---|---|
# | keys and values | 8 heads, shared by 4 query heads each | 128 heads of their own, all computed from 512 numbers | another restriction: rank instead of sharing | 576 cached numbers instead of 2,048, and no head has to share |
# | RoPE | on all of q and k | on 64 extra channels, one key for all heads | a score is content plus position, two products instead of one | only channels that are not rotated can be absorbed |
# | queries | one matrix | through 1,536 numbers and a norm | a little less | less activation memory in training; also fewer parameters: 7168 · 1536 + 1536 · 24576 instead of 7168 · 24576 |
# | QK-norm | on each head's q and k | norms on the two latents | hardly: the latents' size no longer counts | stable training, says V2's report; a norm on each head's k is non-linear, so W_UK could no longer be absorbed |
# | scale | 1/√head_dim | 1/√(nope + rope), times m² | a sharper softmax | YaRN, for 40 times the length |
# | value width | head_dim | its own number | a choice of size | values need no channels for positions |
#
# ## The questions again
#
# <details><summary>128 heads, and 576 numbers for a token and layer. How?</summary>
#
# All heads' keys and values are linear functions of one vector of 512 numbers. That vector is cached, and with it one rotated key of 64 that all heads share.
# </details>
#
# <details><summary>MQA would cache 320 numbers. Why not MQA?</summary>
#
# All heads would have the same keys and values. On austen-gpt2, with 64 numbers and without training again, one shared head gave 5.23 nats and a latent 4.15. DeepSeek-V2's report trained models for two comparisons: MQA was the weakest of MQA, GQA and MHA, and in other models, of other sizes, MLA was better than MHA on most benchmarks. No comparison has MQA and MLA in it.
# </details>
#
# <details><summary>Does the absorbed form cache less than the expanded one?</summary>
#
# No, they cache the same rows. It never builds a key or value for each head.
# </details>
#
# <details><summary>Why can't RoPE rotate the channels that come from the latent?</summary>
#
# The rotation would be between the query and the matrix that is to be absorbed, and it is a different one for every distance.
# </details>
#
# <details><summary>Why do all heads share one rotated key?</summary>
#
# It is cached as it is, so one for each of 128 heads would make 8,704 numbers of 576.
# </details>
#
# <details><summary>When is the expanded form cheaper?</summary>
#
# With more than S T\* / (S + T\*) new tokens of S rows in all, where T\* is 171 for V3's widths. So for a prompt in an empty cache always, however short; after a long text from about 171 new tokens at once.
# </details>
#
# <details><summary>By what are scores divided, and what does YaRN change?</summary>
#
# By the square root of nope + rope channels, 192 in V3, whichever form computes them. YaRN multiplies by m², 1.87 for a factor of 40.
# </details>
#
# <details><summary>GPT-2's matrices have no low rank. Why does its loss hardly need their small directions?</summary>
#
# The normed x hardly ever points along them: 32 of 384 directions hold 92 to 98% of the variance of its keys and values, as you measured in another text than the one in which the directions were found. But variance is not what the loss goes by. Cut along these directions, it rises about as much as along those of the weights.
# </details>
#
# <details><summary>Could you turn a trained model with ordinary attention into one with a latent?</summary>
#
# Exactly, with a latent as long as x and no RoPE on its keys. Shorter by SVD, at a price that grows quickly below some rank. TransMLA (below) trains on afterwards to win some of it back.
# </details>
#
# ## Where to read on
#
# - DeepSeek-AI, *DeepSeek-V2* (2024), section 2.1 and appendix C: MLA, with all formulas; appendix D: MHA, GQA, MQA and MLA compared. DeepSeek-AI, *DeepSeek-V3 Technical Report* (2024), section 2.1.1.
# - Peng et al., *YaRN: Efficient Context Window Extension of Large Language Models* (2023), sections 3.2 to 3.4.
# - Meng et al., *TransMLA* (2025): trained GQA models turned into MLA, as you did with GPT-2, RoPE included.
# - The reference: `transformers/models/deepseek_v3/modeling_deepseek_v3.py`, `DeepseekV3Attention` and `yarn_apply_mscale`. The absorbed form, in DeepSeek's own repository: `inference/model.py`, class `MLA`, `attn_impl = "absorb"`.
#
# ## If you want more
#
# Write `BothAttention`: expanded where many tokens come in, absorbed where few do, by the formula with S in it and T\* from the config. You are right when it agrees with both, when its count is the smaller of the two for a prompt of 16, for a prompt of 512 and for 146 and 147 new tokens of 1,024, and when a single token after 1,024 takes it as long as the absorbed form.
#
# Or absorb for good: with queries $x W_q$, $W_q W_{UK}$ is one matrix for each head. Multiply it out when the model is loaded. How many parameters does it have then, in V3? Why does nobody do it?
