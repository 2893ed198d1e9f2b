# %% [markdown] id="623d02c7"
# # 08 · Sparse attention: look everything up, read little
#
# **A token of DeepSeek-V3.2 reads 2,048 of 128,000 earlier tokens. How does it know which, without reading them all?**
#
# How would you find them, and what may finding them cost?
#
# After this lesson you can
#
# - write the indexer of DeepSeek-V3.2 and GLM-5, its selection, and attention to what was selected, each checked against Hugging Face transformers;
# - say, from a `config.json`, how many multiply-adds a new token takes, how many bytes it caches, and from which length selecting pays;
# - explain how an indexer learns what to look for, and what a model loses if the selection is random or only recent;
# - name the mistakes that no text shorter than the selection can show.
#
# 150 to 230 minutes · difficulty ●●●●○ · you know latent attention (lesson 05); its code and the experts of lesson 07 are given
#
# The lesson has two halves, and a marked place to stop for the day between them.
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# A token first gives every earlier token a score, with a small module made for that: the *indexer*. Then attention reads the tokens with the highest scores, and no others. Here the query of *she* asks: which woman?
#
# ![The sentence "The old woman lost her keys . Then she". The indexer gives each token a score for the query of "she": The 0.1, old 0.6, woman 2.1, lost 0.9, her 1.4, keys 0.2, the full stop 0.0, Then 0.1, she 0.7. The three highest, woman, her and lost, are chosen. Attention reads their cached rows and no others.](figures/index.svg)
#
# This is DeepSeek-V3.2, drawn from its config. A red ring marks what differs from DeepSeek-V3:
#
# ![DeepSeek-V3.2 from the bottom up: token ids, the token embedding, 61 layers, a final RMSNorm and an output head. Each layer adds twice to the residual stream: latent attention with an index that picks 2,048 tokens, and an MLP, which is dense in the first 3 layers and 256 experts in the other 58.](figures/deepseek-v3.2-model.svg)

# %% tags=["setup"] id="setup"
import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% tags=["setup"] id="setup-2"
def has_indexer(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, chooses for itself; in GLM-5.2 most take over what an earlier one chose."""
    types = config.get("indexer_types")
    return not types or types[layer] == "full"


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, has experts in place of one MLP."""
    return layer >= config.first_k_dense_replace


def num_experts(config: Config) -> int:
    """How many routed experts a layer has."""
    return config.n_routed_experts

# %% [markdown] id="b494e20e"
# Three functions read what the configs of both families say, and two more rotate channels and mask. They are given, and so is what lessons 03, 05 and 07 built: latent attention with its cache, the router and the experts (folded).

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-3"
def rope_settings(config: Config) -> dict[str, Any]:
    """What a config says of RoPE: one dict in files of transformers 5, two fields in older ones."""
    settings = config.get("rope_parameters")
    if not settings:
        settings = {"rope_theta": config.rope_theta, **(config.get("rope_scaling") or {})}
    return {"rope_type": settings.get("type", "default"), **settings}

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-4"
def yarn(bases: Tensor, settings: dict[str, Any]) -> tuple[Tensor, float]:
    """RoPE's frequencies 1 / bases [d / 2] stretched, and a factor for cosines and sines (lesson 05)."""
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
    return frequencies, (of_rope * log + 1) / (of_all * log + 1)

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-5"
def rope_table(positions: Tensor, config: Config) -> Tensor:
    """Cosine and sine of every pair's angle: positions [T] int64 -> [2, T, rope / 2] float32 (lesson 05)."""
    settings, width = rope_settings(config), config.qk_rope_head_dim
    bases = settings["rope_theta"] ** (torch.arange(0, width, 2).float() / width)  # [width / 2]
    frequencies, size = yarn(bases, settings) if settings["rope_type"] == "yarn" else (1.0 / bases, 1.0)
    angles = positions.float()[:, None] * frequencies.to(positions.device)  # [T, width / 2]
    return torch.stack([angles.cos() * size, angles.sin() * size])


def causal_softmax(scores: Tensor) -> Tensor:
    """Scores to attention weights: no token sees a later one; the softmax in float32 (lesson 05).

    scores: [B, H, T, S], of the last T of S tokens -> [B, H, T, S], in their dtype.
    """
    T, S = scores.shape[-2:]
    later = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(diagonal=S - T + 1)
    return scores.masked_fill(later, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(scores.dtype)

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% given="05-mla mla.compress" jupyter={"source_hidden": true} id="given-05-mla-mla-compress"

# %% given="05-mla mla.rope" jupyter={"source_hidden": true} id="given-05-mla-mla-rope"

# %% given="05-mla mla.scale" jupyter={"source_hidden": true} id="given-05-mla-mla-scale"

# %% given="05-mla mla.cache" jupyter={"source_hidden": true} id="given-05-mla-mla-cache"

# %% given="05-mla mla.attention" jupyter={"source_hidden": true} id="given-05-mla-mla-attention"

# %% given="05-mla mla.absorbed" jupyter={"source_hidden": true} id="given-05-mla-mla-absorbed"

# %% given="07-moe moe.softmax_router" jupyter={"source_hidden": true} id="given-07-moe-moe-softmax_router"

# %% given="07-moe moe.sigmoid_router" jupyter={"source_hidden": true} id="given-07-moe-moe-sigmoid_router"

# %% given="07-moe moe.experts" jupyter={"source_hidden": true} id="given-07-moe-moe-experts"

# %% given="07-moe moe.layer" jupyter={"source_hidden": true} id="given-07-moe-moe-layer"

# %% [markdown] id="b6f31c03"
# ## Steps 1 to 5 · Read the config, compare
#
# The steps are those of the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026). Three configs, with the fields that decide about attention:

# %% id="4dee14b1"
from pathlib import Path

configs = {name: Config.read(f"configs/{name}.json") for name in ("deepseek-v3", "deepseek-v3.2", "glm-5.2")}
for field in ("model_type", "num_hidden_layers", "num_attention_heads", "q_lora_rank", "kv_lora_rank",
              "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "index_topk", "index_n_heads", "index_head_dim"):
    print(f"{field:>20}", *(f"{config.get(field, '-')!s:>14}" for config in configs.values()))
for kind in ("full", "shared"):
    counts = [list(config.get("indexer_types", [])).count(kind) for config in configs.values()]
    print(f"{f'indexer_types: {kind}':>20}", *(f"{count:14}" for count in counts))

# %% [markdown] id="6685c59b"
# | field | what it decides |
# |---|---|
# | `index_topk` 2048 | k: how many tokens attention reads. A text that is not longer is read whole. Why 2,048, the report does not say |
# | `index_n_heads` 64, 32 | the indexer's heads: a token asks with that many queries |
# | `index_head_dim` 128 | their width. A token has *one* index key of this width, for all of them |
# | `indexer_types` | in GLM-5.2, which layers have an indexer (`full`) and which take over what an earlier layer chose (`shared`). DeepSeek-V3.2 has no such field: each layer chooses |
#
# (GLM-5.2's file holds the fields that count here, as those who ported it state them: <a href="https://github.com/tenstorrent/tt-metal/pull/49315">tenstorrent/tt-metal#49315</a>, <a href="https://github.com/ROCm/ATOM/pull/1260">ROCm/ATOM#1260</a>.)
#
# Everything else of DeepSeek-V3.2 is built as in DeepSeek-V3, and its training went on from a V3.1 model. So you start from lesson 05's attention, as the talk advises: take the most similar model that you have.
#
# ## First without an indexer: how many tokens does a model read?
#
# Attention gives every earlier token a weight, and most weights are small. What if a token read only the k with the largest? Take `austen-mla` of lesson 05 (folded: the model) and keep, in every layer and for every token, k others: those with the largest weights, added up over the heads; the last k before it; or k at random.
#
# With all tokens the loss on *Persuasion* is 4.29 nats. With 8 of up to 256 tokens at random it rises by 1.35. By how much does it rise with the 8 that have the largest weights?

# %% prediction="sparse_attention.rise" id="prediction-sparse_attention-rise"
predict(
    "sparse_attention.rise", "rise of the loss with the 8 largest weights of up to 256", unit="nats",
    guess=...
)

# %% jupyter={"source_hidden": true} id="0647fb08"
class ReadsFew(Attention):
    """Lesson 05's attention, where `keep` says by which scores k tokens are kept."""

    keep, k = staticmethod(lambda weights: weights), 256

    def forward(self, x: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        q, rows = self.queries(x, table), self.rows_so_far(x, table, cache)
        latents, key = rows.split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, v = kv.split([self.nope, self.v], dim=-1)
        k = torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1)
        scores = q @ k.mT * softmax_scale(self.config)
        by = self.keep(causal_softmax(scores).sum(dim=1))  # [B, T, T]
        by = by.masked_fill(torch.ones_like(by[0], dtype=torch.bool).triu(1), -1.0)
        left_out = torch.ones_like(by, dtype=torch.bool).scatter(-1, by.topk(min(self.k, len(by[0]))).indices, False)
        weights = causal_softmax(torch.where(left_out[:, None], -math.inf, scores))
        return self.o_proj(torch.einsum("bhts,bhsv->bthv", weights, v).flatten(2))


class LatentModel(nn.Module):
    """Lesson 05's model with a tied head: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__()
        D, eps = config.hidden_size, config.rms_norm_eps
        self.config, self.model = config, nn.Module()
        self.model.embed_tokens, self.model.norm = nn.Embedding(config.vocab_size, D), RMSNorm(D, eps)
        self.model.layers = nn.ModuleList()
        for _ in range(config.num_hidden_layers):
            parts = {"input_layernorm": RMSNorm(D, eps), "self_attn": ReadsFew(config),
                     "post_attention_layernorm": RMSNorm(D, eps), "mlp": MLP(config)}
            self.model.layers.append(nn.ModuleDict(parts))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        table = rope_table(torch.arange(ids.shape[1]), self.config)
        for layer in self.model.layers:
            x = x + layer["self_attn"](layer["input_layernorm"](x), table)
            x = x + layer["mlp"](layer["post_attention_layernorm"](x))
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

# %% id="36ee6bfa"
mla = load_checkpoint("austen-mla")
dense = LatentModel(mla.config).eval()
mla.load_into(dense)
persuasion = torch.tensor(mla.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids)
held_out = persuasion[: 4 * 256].view(4, 256)  # no austen model was trained on it

# %% id="483a432e"
@torch.no_grad()
def loss(model: nn.Module, ids: Tensor = held_out) -> float:
    """The mean surprise at the next token, in nats."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


def at_random(scores: Tensor) -> Tensor:
    """Other scores, at random: the same for the same shape."""
    return torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))


def by_age(scores: Tensor) -> Tensor:
    """Other scores: the later a token, the higher."""
    return torch.arange(1.0, scores.shape[-1] + 1).expand(scores.shape)

# %% tags=["nbval-ignore-output"] id="693bea66"
from grader.instruments import patch

everything = loss(dense)
print(f"all tokens: {everything:.2f} nats")
rises = {}
for few in (32, 8, 4):
    found = {}
    for name, keep in (("largest weights", lambda weights: weights), ("the last", by_age), ("at random", at_random)):
        with patch.replaced(ReadsFew, k=few, keep=staticmethod(keep)):
            found[name] = loss(dense)
    rises[few] = found["largest weights"] - everything
    print(f"{few:10}: " + ", ".join(f"{name} {nats:.2f}" for name, nats in found.items()))
measured("sparse_attention.rise", rises[8])

# %% [markdown] id="c813b156"
# <details><summary>What the numbers say</summary>
#
# 0.04 nats: of up to 256 tokens, the 8 with the largest weights are nearly enough. And the last 8 are nearly as good, 0.06. This model is small, was trained on 256 tokens at a time, and looks mostly close by.
# </details>

# %% [markdown] id="e33f8032"
# Reading the last tokens alone is a sliding window, and lesson 06 showed what a window cannot do. Gemma 3 270M reads a sentence again after 540 tokens of other text: the 8 tokens with the largest weights in each of its full layers are enough to find the sentence again (1.1 nats a token), and the last 8 are not (7.5). `austen-mla` is too small to repeat a sentence.
#
# One thing is missing: to know the weights, every row had to be read. The question at the top of the lesson is how to know them *before*. Something cheap has to guess where attention would look.
#
# ## The indexer
#
# The indexer is a small attention of its own that never mixes anything: it only makes scores. In lesson 05's absorbed form, one of V3's 128 heads reads a row with 1,088 multiply-adds. An index head reads an index key with 129, and there are 64 of them: the indexer's score takes a seventeenth of what attention would take for the same token. DeepSeek computes it in 8 bits on top of that.
#
# Its parts, as in the checkpoint:
#
# - `wq_b` makes the queries, from the same normed latent as attention's `q_b_proj`. That latent is there anyway.
# - `wk` makes one key a token from x, and `k_norm` norms it: a LayerNorm, with mean and bias, the only one in the model. Why it is not an RMSNorm is not published.
# - `weights_proj` says how much each head counts, for each token that asks.
#
# ### Exercise 1 · Queries and keys of the index
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Positions are in the index too: of 128 channels, 64 are rotated. Two things differ from attention:
#
# **The rotated channels come first.** In attention's queries they come last. The report gives no reason, neither for this nor for how channels are paired. A checkpoint works only with the order that it was trained with.
#
# **Pairs.** In V3.2's indexer, channel i is paired with channel i + 32, as in Qwen3 (`rotate_halves`, given below). In its attention, neighbours are paired (`apply_rope`, lesson 05). GLM-5's indexer pairs neighbours again. DeepSeek's own first code paired neighbours in V3.2's indexer, and ports copied it. A test that hides a needle in a long text still scored 100 with 4,000 and 8,000 tokens, and 87.5 with 16,000 (<a href="https://github.com/sgl-project/sglang/pull/13495">sgl-project/sglang#13495</a>), and no short prompt showed it.

# %% tags=["setup"] id="setup-6"
def rotate_halves(x: Tensor, table: Tensor) -> Tensor:
    """As `apply_rope`, with other pairs: channel i and channel i + d / 2, as in Qwen3.

    x: [B, H, T, d], table: [2, T, d / 2] -> [B, H, T, d].
    """
    cos, sin = table.to(x.dtype)  # 2 x [T, d / 2]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, d / 2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

# %% [markdown] id="6c4a6050"
# <details><summary>Hint 1: cutting</summary>
#
# `unflatten(-1, (H, -1)).transpose(1, 2)` cuts heads, as in attention. A key has no heads; give it an axis for one, `k[:, None]`, and take it away again after the rotation.
#
# <details><summary>Hint 2: rotating</summary>
#
# `split([a, b], dim=-1)` cuts the last axis. The table has a column for each pair, so both functions take the first `rope` channels alone.
#
# <details><summary>Hint 3: the order</summary>
#
# A key is projected, then normed, then rotated. The latent of the queries comes normed.
# </details>
# </details>
# </details>

# %% exercise="sparse_attention.vectors" id="sparse_attention-vectors"
class IndexVectors(nn.Module):
    """The queries and keys by which an indexer finds tokens: index_n_heads queries a token, and one key.

    Query: wq_b of the normed query latent, cut into heads. Key: k_norm of wk of x. In both the first qk_rope_head_dim
    channels of a head are rotated, in DeepSeek-V3.2 (config.model_type "deepseek_v32") by `rotate_halves`, in GLM-5
    ("glm_moe_dsa") by `apply_rope`. The others stay as they are, behind the rotated ones.
    Parts: wq_b (q_lora_rank -> index_n_heads * index_head_dim) and wk (hidden_size -> index_head_dim), nn.Linear
    without bias; k_norm, an nn.LayerNorm with eps 1e-6. transformers: DeepseekV32Indexer, GlmMoeDsaIndexer.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.heads = config, config.index_n_heads
        self.width, self.rope = config.index_head_dim, config.qk_rope_head_dim
        ### BEGIN SOLUTION
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.width, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.width, bias=False)
        self.k_norm = nn.LayerNorm(self.width, eps=1e-6)
        ### END SOLUTION

    def rotate(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, H, T, width], table: [2, T, rope / 2] -> [B, H, T, width], the first rope channels rotated."""
        ### BEGIN SOLUTION
        first, others = x.split([self.rope, self.width - self.rope], dim=-1)
        turn = rotate_halves if self.config.model_type == "deepseek_v32" else apply_rope
        return torch.cat([turn(first, table), others], dim=-1)
        ### END SOLUTION

    def queries(self, latent: Tensor, table: Tensor) -> Tensor:
        """latent: [B, T, q_lora_rank], normed -> [B, H, T, width]."""
        ### BEGIN SOLUTION
        q = self.wq_b(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, width]
        return self.rotate(q, table)
        ### END SOLUTION

    def keys(self, x: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D] -> [B, T, width]: one key a token, for all heads."""
        ### BEGIN SOLUTION
        k = self.k_norm(self.wk(x))  # [B, T, width]
        return self.rotate(k[:, None], table)[:, 0]
        ### END SOLUTION

# %% check="sparse_attention.vectors" tags=["nbval-ignore-output"] id="check-sparse_attention-vectors"
check("sparse_attention.vectors", IndexVectors)

# %% [markdown] id="3f357427"
# DeepSeek's own code does one more thing: it multiplies queries and keys by a Hadamard matrix, and rounds them to 8 bits. transformers leaves out both. The matrix is a rotation, and a rotation of both vectors changes no dot product. It spreads a vector's large channels over all, so that rounding does less harm. **Check** the first claim:

# %% id="c4067625"
H = torch.ones(1, 1)
while len(H) < 128:
    H = torch.cat([torch.cat([H, H], dim=1), torch.cat([H, -H], dim=1)]) / 2**0.5
torch.manual_seed(0)
asking, asked = torch.randn(64, 128), torch.randn(1000, 128)
plain, both_turned = asking @ asked.T, (asking @ H) @ (asked @ H).T
print(f"dot products differ by up to {(both_turned - plain).abs().max() / plain.std():.0e} of their spread")

# %% [markdown] id="40ddf88e"
# ### Exercise 2 · The scores
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# For token t that asks and token s that may be read, with index queries $q_{t,h}$, the one key $k_s$, H heads of d channels (DeepSeek-V3.2, equation 1, with the two roots that its code has):
#
# $$I_{t,s} = \sum_h w_{t,h}\; \mathrm{ReLU}\!\left(\frac{q_{t,h} \cdot k_s}{\sqrt d}\right), \qquad w_t = \frac{W x_t}{\sqrt H}$$
#
# Why not attention's softmax? A softmax divides by the sum over all tokens, so no score of a head is known before all of them are. ReLU treats each pair by itself, which is fast, and DeepSeek gives that as its reason. It has another effect: a head that finds nothing says 0, and takes nothing away from what another head has found. A weight $w_{t,h}$ may be negative: then what this head finds is what the token does *not* want.
#
# One choice is made for all heads of attention, and it is a choice of single tokens. The first has a reason in the report (section 2.1): a cached row that was fetched should serve all queries of the token. With a choice for each head, 128 heads would fetch up to 128 · 2,048 rows. For the second the report gives none. An earlier design of the same laboratory, Native Sparse Attention (Yuan et al., 2025), chose blocks of neighbouring tokens, which lie side by side in memory; V3.2's report does not compare the two.
#
# The two roots change no choice, since they multiply all scores alike. They matter for training, and for anyone who compares scores.
#
# Dot products, heads' weights, both roots and the sum are computed in float32: among 100,000 scores in bfloat16 many would be equal.
#
# <details><summary>Hint 1: shapes</summary>
#
# Queries [B, H, T, d] and keys [B, S, d]. Give the keys an axis for the heads: [B, 1, S, d]. Their product is [B, H, T, S].
#
# <details><summary>Hint 2: the sum over heads</summary>
#
# Weights [B, T, H] and dot products [B, H, T, S]: `torch.einsum("bth,bhts->bts", ...)`.
# </details>
# </details>

# %% exercise="sparse_attention.scores" id="sparse_attention-scores"
class Indexer(IndexVectors):
    """Says for each token which of those before it, itself included, are worth reading.

    score of token s for token t: sum over heads h of w_h(t) * relu(q_h(t) . k(s) / sqrt(index_head_dim)), with
    w(t) = weights_proj(x_t) / sqrt(index_n_heads). What queries, keys and weights_proj give is cast to float32 before
    anything else. DeepSeek-V3.2 (2025), section 2.1, equation 1. transformers: DeepseekV32Indexer.
    Part besides IndexVectors': weights_proj (hidden_size -> index_n_heads), nn.Linear without bias.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        ### BEGIN SOLUTION
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)
        ### END SOLUTION

    def scores(self, x: Tensor, latent: Tensor, keys: Tensor, table: Tensor) -> Tensor:
        """x: [B, T, D], latent: [B, T, q_lora_rank], keys: [B, S, width] -> [B, T, S] float32. No mask."""
        ### BEGIN SOLUTION
        q = self.queries(latent, table)  # [B, H, T, width]
        dots = q.float() @ keys[:, None].float().mT * self.width**-0.5  # [B, H, T, S]
        weights = self.weights_proj(x).float() * self.heads**-0.5  # [B, T, H]
        return torch.einsum("bth,bhts->bts", weights, dots.relu())
        ### END SOLUTION

    def forward(self, x: Tensor, latent: Tensor, table: Tensor, cache: "IndexedCache | None" = None) -> Tensor:
        """The indices of the chosen tokens, int64: [B, T, D] and [B, T, q_lora_rank] -> [B, T, min(index_topk, S)]."""
        new = self.keys(x, table)
        keys = new if cache is None else cache.append_keys(new)  # [B, S, width]
        return select(self.scores(x, latent, keys, table), self.config.index_topk)

# %% check="sparse_attention.scores" tags=["nbval-ignore-output"] id="check-sparse_attention-scores"
check("sparse_attention.scores", Indexer)

# %% [markdown] id="9a0ab2d5"
# The ReLU was missing in transformers' GLM-5 (<a href="https://github.com/huggingface/transformers/issues/44360">huggingface/transformers#44360</a>). How much does a step like that change? Take a random indexer of V3.2's sizes, which chooses 16 tokens among 256. How many of them are others without the ReLU?

# %% tags=["nbval-ignore-output"] id="b9bf2039"
torch.manual_seed(0)
small = configs["deepseek-v3.2"].replace(hidden_size=512)
indexer = Indexer(small)
vectors, narrow, turns = torch.randn(1, 256, 512), torch.randn(1, 256, 1536), rope_table(torch.arange(256), small)


@torch.no_grad()
def last_choice() -> set[int]:
    """The 16 best tokens for the last of 256."""
    scores = indexer.scores(vectors, narrow, indexer.keys(vectors, turns), turns)
    return set(scores[0, -1].topk(16).indices.tolist())

# %% tags=["nbval-ignore-output"] id="7866d842"
def of_neighbours(indexer: Indexer, x: Tensor, table: Tensor) -> Tensor:
    """`rotate` with attention's pairs."""
    return torch.cat([apply_rope(x[..., :64], table), x[..., 64:]], dim=-1)


right = last_choice()
with patch.replaced(Tensor, relu=lambda dots: dots):
    print(f"{len(right - last_choice())} of 16 are others without the ReLU")
with patch.replaced(Indexer, rotate=of_neighbours):
    print(f"{len(right - last_choice())} of 16 where neighbours are rotated")

# %% [markdown] id="70331a6d"
# A third of them without the ReLU, half of them with the other pairs. Yet the text would go on: attention to other tokens is still attention. That is what makes these mistakes hard to see.
#
# ### Exercise 3 · The selection
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The k best among those that a token may see. Two things to get right:
#
# **The mask.** With a cache, T new tokens are the last T of S. Which tokens may the first of the new ones choose from? In one port the mask was made from the cache's length after it had grown, and every text longer than `index_topk` ended in an error (<a href="https://github.com/SharpAI/SwiftLM/pull/159">SharpAI/SwiftLM#159</a>).
#
# **Fewer than k.** The first tokens of a text see fewer than k. `topk` returns k indices all the same, and fills the row with later tokens. That is harmless as long as attention hides later tokens, as it always has.
#
# The check compares which tokens were chosen. In which order they stand does not matter.
#
# <details><summary>Hint 1</summary>
#
# `causal_softmax` in the setup has the mask that you need. Hidden scores must lose against any other, however low.
#
# <details><summary>Hint 2</summary>
#
# `topk(min(k, S), dim=-1)` gives values and indices.
# </details>
# </details>

# %% exercise="sparse_attention.select" id="sparse_attention-select"
def select(scores: Tensor, k: int) -> Tensor:
    """For each token the indices of the k tokens with the highest scores among those that it may see.

    The T queries belong to the last T of S tokens, and see themselves and what is before them. Where S is below k, all
    S indices are returned; where fewer than k tokens may be seen, all of those and, to fill the row, any later ones,
    which attention masks. The order within a row is free. DeepSeek-V3.2 (2025), section 2.1.
    scores: [B, T, S] float32 -> [B, T, min(k, S)] int64.
    """
    ### BEGIN SOLUTION
    T, S = scores.shape[-2:]
    future = torch.ones(T, S, dtype=torch.bool, device=scores.device).triu(diagonal=S - T + 1)
    return scores.masked_fill(future, float("-inf")).topk(min(k, S), dim=-1).indices
    ### END SOLUTION

# %% check="sparse_attention.select" tags=["nbval-ignore-output"] id="check-sparse_attention-select"
check("sparse_attention.select", select)

# %% [markdown] id="fbf33ef5"
# ## Attention to what was chosen
#
# This is one layer of DeepSeek-V3.2, from the bottom up. It is lesson 05's attention, with one box more:
#
# ![Latent attention of DeepSeek-V3.2 from x up: on the left q_a_proj to 1,536 numbers, a norm, q_b_proj to 128 heads of 128 + 64, RoPE on 64 of 192 channels; on the right kv_a_proj_with_mqa to a latent of 512 numbers, which is normed, and a rope key of 64, both cached; kv_b_proj rebuilds keys and values of 128 heads. Above them the index, whose 64 heads of 128 choose 2,048 tokens to look at; then the softmax over q times k, scaled and masked, times v, and o_proj. Cached per token: 512 + 64 + 128 numbers.](figures/deepseek-v3.2-attention.svg)
#
# ### Exercise 4 · With a mask
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# The simplest way to read only the chosen tokens: compute all scores and mask the others, as transformers does. One pass:
#
# 1. The query latent is computed once and normed. Both `q_b_proj` and the indexer read it.
# 2. The indexer, if there is one, chooses. A layer without an indexer uses what it is given.
# 3. In `attend`, scores of tokens that were not chosen become −∞, and `causal_softmax` masks later tokens, as before.
#
# `queries_of` and `keys_and_values` are lesson 05's lines and are given; `rows_so_far` comes from `Attention`.
#
# <details><summary>Hint 1: a mask from indices</summary>
#
# Start from True everywhere, [B, T, S], and write False at the chosen indices: `mask.scatter(-1, chosen, False)`.
#
# <details><summary>Hint 2: heads</summary>
#
# All heads read the same tokens. `mask[:, None]` gives the mask an axis for them.
# </details>
# </details>

# %% exercise="sparse_attention.attention" id="sparse_attention-attention"
class SparseAttention(Attention):
    """Latent attention to the tokens that an indexer has chosen; what was not chosen is masked.

    Part besides Attention's: indexer, an Indexer where has_indexer(config, layer), else None. The indexer reads the
    queries' latent after its norm, as q_b_proj does. A layer with one uses its own choice, a layer without
    one `chosen`, what an earlier layer chose.
    transformers: DeepseekV32Attention, GlmMoeDsaAttention.
    """

    def __init__(self, config: Config, layer: int = 0):
        super().__init__(config)
        ### BEGIN SOLUTION
        self.indexer = Indexer(config) if has_indexer(config, layer) else None
        ### END SOLUTION

    def queries_of(self, latent: Tensor, table: Tensor) -> Tensor:
        """The normed latent [B, T, q_lora_rank] -> [B, H, T, nope + rope], the rope channels rotated."""
        q = self.q_b_proj(latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope, apply_rope(rope, table)], dim=-1)

    def keys_and_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rebuilt for each head: rows [B, S, rank + rope] -> [B, H, S, nope + rope], [B, H, S, v]."""
        latents, key = rows.split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(latents).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, v = kv.split([self.nope, self.v], dim=-1)
        return torch.cat([nope, key[:, None].expand(-1, self.heads, -1, -1)], dim=-1), v

    def forward(
        self, x: Tensor, table: Tensor, cache: "IndexedCache | None" = None, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x: [B, T, D], the last T of S tokens; chosen: [B, T, k], an earlier layer's -> [B, T, D], [B, T, k]."""
        ### BEGIN SOLUTION
        latent = self.q_a_layernorm(self.q_a_proj(x))  # [B, T, q_lora_rank]
        if self.indexer is not None:
            chosen = self.indexer(x, latent, table, cache)
        rows = self.rows_so_far(x, table, cache)  # [B, S, rank + rope]
        return self.attend(self.queries_of(latent, table), rows, chosen), chosen
        ### END SOLUTION

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope], rows: [B, S, rank + rope], chosen: [B, T, k], also of later tokens -> [B, T, D]."""
        k, v = self.keys_and_values(rows)
        ### BEGIN SOLUTION
        scores = q @ k.mT * softmax_scale(self.config)  # [B, H, T, S]
        left_out = torch.ones_like(scores[:, 0], dtype=torch.bool).scatter(-1, chosen, False)  # [B, T, S]
        weights = causal_softmax(scores.masked_fill(left_out[:, None], float("-inf")))
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))
        ### END SOLUTION

# %% check="sparse_attention.attention" tags=["nbval-ignore-output"] id="check-sparse_attention-attention"
check("sparse_attention.attention", SparseAttention)

# %% [markdown] id="a5020265"
# What does the mask save? Take a layer of smaller sizes, and one token after 1,023. Lesson 05's attention, which rebuilds keys and values, does 2,158 million multiply-adds for it. How many does yours do, where 64 of the 1,024 tokens are chosen and the others masked?

# %% prediction="sparse_attention.mask_work" id="prediction-sparse_attention-mask_work"
predict(
    "sparse_attention.mask_work", "work with 64 of 1,024 tokens chosen by a mask", unit="million multiply-adds",
    guess=...
)

# %% id="d783a4bf"
from grader.instruments import clock, work

lite = configs["deepseek-v3.2"].replace(hidden_size=1024, q_lora_rank=512, num_attention_heads=16, index_n_heads=8,
                                        index_topk=64, rope_scaling=None)


class RowsWithoutKeys(LatentCache):
    """Lesson 05's cache, with zeros for the index keys of earlier tokens. Exercise 6 will keep the keys themselves."""

    def append_keys(self, new: Tensor) -> Tensor:
        earlier = new.new_zeros(1, self.rows.shape[1] - new.shape[1], new.shape[-1])
        return torch.cat([earlier, new], dim=1)

# %% id="b0a96c5c"
def one_token_after(attention: nn.Module, rows: int):
    """A call that reads one token after `rows` - 1 cached ones; rows of zeros cost as much as any others."""
    x, table = torch.randn(1, 1, lite.hidden_size), rope_table(torch.tensor([rows - 1]), lite)

    def step() -> Tensor:
        cache = RowsWithoutKeys(lite, batch=1, capacity=rows)
        cache.length = rows - 1
        return attention(x, table, cache)

    return step

# %% id="c7cca302"
torch.manual_seed(0)
masked, rebuilt = SparseAttention(lite).eval(), Attention(lite).eval()
for name, form in (("dense, rebuilt", rebuilt), ("sparse, with a mask", masked)):
    done = work.multiply_adds(one_token_after(form, 1024))
    print(f"{name:>20}: {done:12,} multiply-adds")
measured("sparse_attention.mask_work", done / 1e6)

# %% [markdown] id="7c68418a"
# <details><summary>What the numbers say</summary>
#
# The mask saves nothing. The work is even a little more than before, since the indexer comes on top: all scores are computed, and then most of them are thrown away.
# </details>

# %% [markdown] id="33d24467"
# A mask is simple and right, which is what training and comparing need. To save work, one has to pick the rows first.
#
# ### Exercise 5 · By gathering
# difficulty ●●●●○ · importance ●●●●● · 20 minutes
#
# Pick the chosen rows from the cache, [B, T, k, rank + rope], and compute with those alone. Each token has rows of its own, so keys and values rebuilt for one token are of no use to another. The absorbed form of lesson 05 needs none: a query, carried into the space of the latents, is multiplied with the rows themselves. `absorbed` and `output` do that and are given.
#
# ![Nine cached rows, of which rows 2, 3 and 4 were chosen. On the left, with a mask: the query is multiplied with all nine rows, and six scores are set to minus infinity. On the right, by gathering: the three rows are picked into a small tensor first, and the query is multiplied with those.](figures/mask-and-gather.svg)
#
# One thing the mask did by itself: where fewer than k tokens may be seen, the indices of later tokens fill the row. Hide them.
#
# <details><summary>Hint 1: picking</summary>
#
# `rows[batch, chosen]` with two tensors of indices picks row `chosen[b, t, i]` of text `batch[b, 0, 0]`: batch is [B, 1, 1].
#
# <details><summary>Hint 2: products</summary>
#
# Queries [B, H, T, c] and rows [B, T, k, c]: `torch.einsum("bhtc,btkc->bhtk", ...)`. The weighted sum goes the same way back.
#
# <details><summary>Hint 3: what is later?</summary>
#
# The queries are the last T of S tokens: their indices are S − T to S − 1. A chosen index above the query's own is later.
# </details>
# </details>
# </details>

# %% exercise="sparse_attention.gathered" id="sparse_attention-gathered"
class GatheredAttention(SparseAttention):
    """The same, computed with the chosen rows alone: they are picked from the cache first.

    Each token has rows of its own, so the absorbed form is used: queries are carried into the space of the latents,
    and every head attends to the picked rows themselves.
    """

    def absorbed(self, q: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope] -> [B, H, T, rank + rope], so that its products with rows are the scores."""
        W_UK = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))[:, : self.nope]  # [H, nope, rank]
        nope, rope = q.split([self.nope, self.rope], dim=-1)
        return torch.cat([nope @ W_UK, rope], dim=-1)

    def output(self, latents: Tensor) -> Tensor:
        """The weighted sums of latents [B, H, T, rank] -> [B, T, D]."""
        W_UV = self.kv_b_proj.weight.unflatten(0, (self.heads, -1))[:, self.nope :]  # [H, v, rank]
        return self.o_proj((latents @ W_UV.mT).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """q: [B, H, T, nope + rope], rows: [B, S, rank + rope], chosen: [B, T, k] -> [B, T, D]."""
        q, (T, S) = self.absorbed(q), (q.shape[2], rows.shape[1])
        ### BEGIN SOLUTION
        batch = torch.arange(len(rows), device=rows.device)[:, None, None]
        picked = rows[batch, chosen]  # [B, T, k, rank + rope]
        scores = torch.einsum("bhtc,btkc->bhtk", q, picked) * softmax_scale(self.config)
        positions = torch.arange(S - T, S, device=rows.device)[:, None]  # [T, 1]
        scores = scores.masked_fill((chosen > positions)[:, None], float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        return self.output(torch.einsum("bhtk,btkr->bhtr", weights, picked[..., : self.rank]))
        ### END SOLUTION

# %% check="sparse_attention.gathered" tags=["nbval-ignore-output"] id="check-sparse_attention-gathered"
check("sparse_attention.gathered", GatheredAttention)

# %% [markdown] id="1605aee0"
# Now count again, for a longer and longer cache, k = 64, beside lesson 05's absorbed form, which reads every row and rebuilds none. With 4,096 rows in the cache, gathering reads a 64th of them. How much of the absorbed form's multiply-adds does it do? (All of a layer's multiply-adds count, projections and indexer included.)

# %% prediction="sparse_attention.gathered_work" id="prediction-sparse_attention-gathered_work"
predict(
    "sparse_attention.gathered_work", "work of gathering 64 of 4,096 rows, as a share of the dense form's", unit="%",
    guess=...
)

# %% id="a2677ff5"
absorbed, gathered = AbsorbedAttention(lite).eval(), GatheredAttention(lite).eval()
gathered.load_state_dict(masked.state_dict())
forms = {"dense, absorbed": absorbed, "sparse, with a mask": masked, "sparse, by gathering": gathered}
print(f"{'rows':>8}", *(f"{name:>21}" for name in forms))
for cached in (64, 256, 1024, 4096):
    counts = [work.multiply_adds(one_token_after(form, cached)) for form in forms.values()]
    print(f"{cached:8,}", *(f"{count:21,}" for count in counts))
measured("sparse_attention.gathered_work", 100 * counts[2] / counts[0])

# %% [markdown] id="234fcdfb"
# <details><summary>What the numbers say</summary>
#
# A sixth. The projections cost the same in both forms, 7 million here. And the work of gathering still grows with the cache, slowly, since the indexer looks at every key. That is the price of the choice. With 64 rows, where nothing is left out, gathering does a little more than the dense form.
# </details>

# %% [markdown] id="80687174"
# ## A place to stop for the day
#
# What you have so far: an indexer that scores every earlier token cheaply; a selection; attention to the selected tokens in two forms that agree, of which one saves work.
#
# Still to come: the cache, layers that share a selection, the whole model, how an indexer learns, and what all of it costs at 128,000 tokens.
#
# ### Exercise 6 · The cache
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Which rows can be thrown away, once 2,048 were chosen? None: the next token may choose others. So sparse attention caches everything that latent attention caches, and the index keys on top.
#
# Rows and index keys come by two calls, in either order, so each has a length of its own. And a cache can be cropped: a server that guesses tokens ahead takes back those that turn out wrong. One that cut its rows and left what its indexer had made of them chose among tokens that were no longer there (<a href="https://github.com/Blaizzy/mlx-vlm/pull/2107">Blaizzy/mlx-vlm#2107</a>).
#
# <details><summary>Hint 1</summary>
#
# Lesson 05's `LatentCache` is folded above: yours inherits its rows, `length` and `append`. Do with index keys what it does with rows.
#
# <details><summary>Hint 2</summary>
#
# Cropping changes no memory, only how much of it counts. Can a crop make something longer?
# </details>
# </details>

# %% exercise="sparse_attention.cache" id="sparse_attention-cache"
class IndexedCache(LatentCache):
    """The rows that one layer keeps, and beside them the indexer's keys.

    capacity: for how many tokens there is room from the start. indexed: whether the layer has an indexer; without one
    there is no room for index keys. Rows and index keys are appended by calls of their own, in either order.
    transformers: DynamicIndexedLayer.
    """

    def __init__(
        self, config: Config, batch: int, capacity: int, dtype: torch.dtype = torch.float32, indexed: bool = True
    ):
        super().__init__(config, batch, capacity, dtype)
        ### BEGIN SOLUTION
        self.index_keys = torch.zeros(batch, capacity if indexed else 0, config.index_head_dim, dtype=dtype)
        self.index_length = 0
        ### END SOLUTION

    def append_keys(self, new: Tensor) -> Tensor:
        """Keep index keys new [B, T, width] behind those there are; all so far are returned: [B, S, width].

        Raises ValueError, and keeps nothing of it, where there is no room for all of `new`.
        """
        ### BEGIN SOLUTION
        end = self.index_length + new.shape[1]
        if end > self.index_keys.shape[1]:
            raise ValueError(f"{end} index keys do not fit into a cache for {self.index_keys.shape[1]}")
        self.index_keys[:, self.index_length : end] = new
        self.index_length = end
        return self.index_keys[:, :end]
        ### END SOLUTION

    def crop(self, length: int) -> None:
        """Forget every token from index `length` on, as after tokens that were guessed and not accepted."""
        ### BEGIN SOLUTION
        self.length = min(self.length, length)
        self.index_length = min(self.index_length, length)
        ### END SOLUTION

# %% check="sparse_attention.cache" tags=["nbval-ignore-output"] id="check-sparse_attention-cache"
check("sparse_attention.cache", IndexedCache)

# %% [markdown] id="e26783c8"
# ### The talk's card, corrected
#
# The talk's gallery gives V3.2's cache as 68.6 KiB a token. What does that leave out, and how much is it with it?

# %% id="8f8a9365"
v32, glm52 = configs["deepseek-v3.2"], configs["glm-5.2"]
rows_only = v32.num_hidden_layers * (v32.kv_lora_rank + v32.qk_rope_head_dim) * 2
keys_only = v32.num_hidden_layers * v32.index_head_dim
print(f"rows in bfloat16:         {rows_only / 1024:.1f} KiB a token")
print(f"and index keys:           {(rows_only + 2 * keys_only) / 1024:.1f} KiB")
in_8_bits = rows_only + keys_only + 4 * v32.num_hidden_layers  # 4 bytes a key for its scale
print(f"index keys in 8 bits:     {in_8_bits / 1024:.1f} KiB")
choosing = list(glm52.indexer_types).count("full")
saved = (glm52.num_hidden_layers - choosing) * glm52.index_head_dim * 2
print(f"GLM-5.2 has {choosing} index keys a token for {glm52.num_hidden_layers} layers: {saved / 1024:.1f} KiB less")
glm_rows = glm52.num_hidden_layers * (glm52.kv_lora_rank + glm52.qk_rope_head_dim)
print(f"GLM-5.2, rows and index keys in bfloat16: {2 * (glm_rows + choosing * glm52.index_head_dim) / 1024:.1f} KiB")

# %% [markdown] id="98575ad4"
# 68.6 KiB is V3's number. With the index keys it is 83.9 KiB in bfloat16, as transformers keeps them, or 76.5 with DeepSeek's 8-bit keys. Sparse attention saves work, and costs memory. SGLang first sized its memory without the index keys, and had to count them later so as not to run out of it (<a href="https://github.com/sgl-project/sglang/pull/11309">sgl-project/sglang#11309</a>).
#
# ### Exercise 7 · The model, with shared selections
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# In large models neighbouring layers choose much the same tokens (Bai et al., 2026). GLM-5.2 makes use of it: after the first three layers only every fourth has an indexer. The others have no indexer weights and no index keys, and take over the indices of the layer before. So each layer hands on the choice that it used, whether it made it or not.
#
# `DecoderLayer` is given; it calls your attention and returns x and the choice. Its MLP is lesson 07's MoE in sparse layers.

# %% tags=["setup"] long="one class, with its shapes" id="setup-7"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP or experts; each reads a normalised copy of x and is added to x.

    x: [B, T, D], table: [2, T, rope / 2], chosen: the choice of the layer before, if any -> [B, T, D], its own choice.
    """

    def __init__(self, config: Config, layer: int, attention: type[nn.Module]):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MoE(config.replace(model_type="deepseek_v3")) if is_sparse(config, layer) else MLP(config)

    def forward(self, x: Tensor, table: Tensor, cache=None, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed, chosen = self.self_attn(self.input_layernorm(x), table, cache, chosen)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), chosen

# %% [markdown] id="c10df47a"
# <details><summary>Hint 1</summary>
#
# `chosen` starts as None, and each layer gives the next one's: `x, chosen = layer(...)`.
#
# <details><summary>Hint 2</summary>
#
# As in lesson 05: `caches[0].length` says how many tokens came before. Ask before any layer has run.
# </details>
# </details>

# %% exercise="sparse_attention.model" id="sparse_attention-model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (nn.Embedding), layers (nn.ModuleList of DecoderLayer), norm (config.rms_norm_eps).
    A layer without an indexer gets what the layers before it chose last.
    attention: the class that its layers use. transformers: DeepseekV32Model, GlmMoeDsaModel.
    """

    def __init__(self, config: Config, attention: type[nn.Module] = SparseAttention):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = (DecoderLayer(config, i, attention) for i in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, ids: Tensor, caches: "list[IndexedCache] | None" = None) -> Tensor:
        """ids: [B, T] int64, the tokens behind those in caches (one for each layer) -> [B, T, D]."""
        ### BEGIN SOLUTION
        x, chosen = self.embed_tokens(ids), None  # [B, T, D]
        start = caches[0].length if caches else 0
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, self.config)
        for i, layer in enumerate(self.layers):
            x, chosen = layer(x, table, caches[i] if caches else None, chosen)
        return self.norm(x)
        ### END SOLUTION

# %% check="sparse_attention.model" tags=["nbval-ignore-output"] id="check-sparse_attention-model"
check("sparse_attention.model", Model)

# %% [markdown] id="ea137ab6"
# ## Steps 8 to 11 · Layer by layer
#
# The indexer and the router have no row of their own: the reference gives indices in an order of its own. Their parts have rows, and what they decide shows in `self_attn` and `mlp`.

# %% tags=["nbval-ignore-output"] id="00a10a9b"
compare_layers(Model)

# %% [markdown] id="cf3a2e58"
# ### A bug to hunt
#
# Here is the model with one thing changed, as several ports had it. The config chooses 4 tokens, and the text has nine. Look at where the outputs differ first, then at the table. **What** is wrong? Then read the class, in the folded cell.

# %% jupyter={"source_hidden": true} id="6e6ea771"
class Ported(Indexer):
    """The indexer with one step changed."""

    def rotate(self, x: Tensor, table: Tensor) -> Tensor:
        return torch.cat([apply_rope(x[..., : self.rope], table), x[..., self.rope :]], dim=-1)


class PortedAttention(SparseAttention):
    """Attention with it."""

    def __init__(self, config: Config, layer: int = 0):
        super().__init__(config, layer)
        self.indexer = Ported(config)


class PortedModel(Model):
    """The model with it in every layer."""

    def __init__(self, config: Config):
        super().__init__(config, PortedAttention)

# %% tags=["nbval-ignore-output"] id="3ce1fc91"
tiny = v32.replace(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=20, kv_lora_rank=18,
                   qk_nope_head_dim=6, qk_rope_head_dim=8, v_head_dim=10, index_n_heads=9, index_head_dim=13,
                   index_topk=4, intermediate_size=36, first_k_dense_replace=3, vocab_size=53)
torch.manual_seed(0)
own, ported = Model(tiny).eval(), PortedModel(tiny).eval()
ported.load_state_dict(own.state_dict())
nine = torch.randint(53, (1, 9))
with torch.no_grad():
    off = (own(nine) - ported(nine)).abs().amax(dim=-1)[0]
print("off at each of nine tokens:", " ".join(f"{value:.0e}" for value in off.tolist()))

# %% tags=["nbval-ignore-output"] id="74d89f3b"
from grader import CheckFailed

try:
    compare_layers(PortedModel, open="none")
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="91971a49"
# <details><summary>What it is</summary>
#
# The indexer rotates neighbours, as attention does. The first four tokens see no more than four, so all are chosen, whatever the scores: there is no difference at all. From the fifth on, other tokens are read. The report says so: "wrong at index 4 and later of axis 1". Every part is right on the reference's input, and `self_attn` is not. In vLLM, SGLang and others a model with this bug answered short questions as it should (<a href="https://github.com/vllm-project/vllm/pull/28968">vllm-project/vllm#28968</a>).
#
# So a test of sparse attention has to be longer than `index_topk`. Each case of exercises 4, 5 and 7 leaves tokens out.
# </details>

# %% [markdown] id="474ad0f4"
# ## How does an indexer learn?
#
# The choice has no gradient: after a small change of the scores, top-k returns the same indices. So the loss of the next token cannot train the indexer at all. DeepSeek trained it in two stages (section 2.1 of the report):
#
# 1. **Imitate.** The model is frozen and reads everything. The indexer's scores go through a softmax, and are pulled towards what attention really did: its weights, added over the heads and divided by their sum. The loss is the KL divergence. It took 1,000 steps.
# 2. **Sparse.** The model now reads what was chosen, and is trained on with its usual loss, for 15,000 steps. The indexer goes on imitating, on the chosen tokens alone, and its loss is kept apart from the model's.
#
# The first stage, here: give `austen-mla` an indexer in each of its four layers, and train nothing else, for 80 steps. At the top of the lesson the loss with 8 tokens rose by 0.04 nats where attention's own weights chose them, and by 1.35 where chance did. By how much does it rise with the indexers' choice after these 80 steps, which take a few seconds?

# %% prediction="sparse_attention.trained" id="prediction-sparse_attention-trained"
predict(
    "sparse_attention.trained", "rise of the loss with the indexers' 8 tokens after 80 steps", unit="nats",
    guess=...
)

# %% id="26147025"
class ExchangeableIndexer(Indexer):
    """An indexer whose number of tokens, and whose way to choose, can be exchanged."""

    tokens_read, by = 256, staticmethod(lambda scores: scores)

    def forward(self, x: Tensor, latent: Tensor, table: Tensor, cache: Any = None) -> Tensor:
        new = self.keys(x, table)
        keys = new if cache is None else cache.append_keys(new)
        return select(self.by(self.scores(x, latent, keys, table)), self.tokens_read)

# %% id="4f7447d5"
class ExchangeableAttention(SparseAttention):
    """Attention with that indexer."""

    def __init__(self, config: Config, layer: int = 0):
        super().__init__(config, layer)
        self.indexer = ExchangeableIndexer(config)

# %% long="one class, which every cell below uses" id="54cdb1f5"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token: [B, T] -> [B, T, vocab_size]."""

    def __init__(self, config: Config, attention: type[nn.Module] = SparseAttention):
        super().__init__()
        self.config = config
        self.model = Model(config, attention)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight

    def caches(self, batch: int, capacity: int) -> list[IndexedCache]:
        """An empty cache for each layer, with room for index keys where it has an indexer."""
        sizes = {"batch": batch, "capacity": capacity, "dtype": self.lm_head.weight.dtype}
        indexed = [has_indexer(self.config, i) for i in range(len(self.model.layers))]
        return [IndexedCache(self.config, **sizes, indexed=has) for has in indexed]

    def forward(self, ids: Tensor, caches: list[IndexedCache] | None = None) -> Tensor:
        return self.lm_head(self.model(ids, caches))

# %% id="71a54823"
torch.manual_seed(0)
indexed = mla.config.replace(model_type="deepseek_v32", index_topk=8, index_n_heads=4, index_head_dim=32)
with_index = CausalLM(indexed, ExchangeableAttention)
missing = with_index.load_state_dict(mla.state_dict(), strict=False).missing_keys
untrained = {name: weight.clone() for name, weight in with_index.state_dict().items()}
print(f"{sum('indexer' in name for name in missing)} tensors are not in austen-mla, all of them the indexers'")

# %% id="8247fc9f"
def looked_at(attention: SparseAttention, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, its query latent, and the weights that attention gives to all tokens, the mean over its heads: [B, T, T]."""
    latent = attention.q_a_layernorm(attention.q_a_proj(x))
    k, _ = attention.keys_and_values(attention.rows_so_far(x, table, None))
    scores = attention.queries_of(latent, table) @ k.mT * softmax_scale(attention.config)
    return x, latent, causal_softmax(scores).mean(dim=1)

# %% id="fea046b9"
def imitation(indexer: Indexer, x: Tensor, latent: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """The KL divergence of the indexer's softmax from what attention looks at, the mean over tokens."""
    scores = indexer.scores(x, latent, indexer.keys(x, table), table)
    future = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    guessed = scores.masked_fill(future, -1e9).log_softmax(dim=-1)
    return F.kl_div(guessed, weights, reduction="sum") / weights[..., 0].numel()

# %% [markdown] id="954ed53a"
# What attention looks at in another part of the text is computed once. Then the four indexers learn to guess it:

# %% tags=["nbval-ignore-output"] id="2afe703c"
from grader.instruments import progress

attentions, seen = [layer.self_attn for layer in with_index.model.layers], []
rotations = rope_table(torch.arange(256), mla.config)

# %% tags=["nbval-ignore-output"] id="99be1fba"
with torch.no_grad():
    for texts in persuasion[4 * 256 : 20 * 256].view(8, 2, 256):
        calls = patch.calls_in(with_index.model, texts)
        inputs = [calls[f"layers.{n}.self_attn"].input for n in range(len(attentions))]
        seen.append([looked_at(one, x, rotations) for one, x in zip(attentions, inputs, strict=True)])

# %% tags=["nbval-ignore-output"] id="b49e3125"
indexers = [one.indexer for one in attentions]
with_index.load_state_dict(untrained)  # also when this cell is run again
with patch.replaced(ExchangeableIndexer, tokens_read=8):
    before_training = loss(with_index)
optimizer = torch.optim.AdamW([parameter for one in indexers for parameter in one.parameters()], lr=5e-3)
for step in progress.steps(range(80), "steps"):
    divergence = sum(imitation(one, *what, rotations) for one, what in zip(indexers, seen[step % 8], strict=True))
    optimizer.zero_grad()
    divergence.backward()
    optimizer.step()
    if step in (0, 9, 19, 39, 79):
        print(f"step {step + 1:2}: {divergence.item() / 4:.2f} nats from what attention looks at")

# %% tags=["nbval-ignore-output"] id="0e46ecc0"
print(f"  8 of up to 256, before training: the indexer's {before_training:.2f}")
by_indexer = {}
for few in (32, 8, 4):
    found = {}
    for name, by in (("the indexer's", lambda scores: scores), ("the last", by_age), ("at random", at_random)):
        with patch.replaced(ExchangeableIndexer, tokens_read=few, by=staticmethod(by)):
            found[name] = loss(with_index)
    by_indexer[few] = found["the indexer's"]
    print(f"{few:3} of up to 256: " + ", ".join(f"{name} {nats:.2f}" for name, nats in found.items()))
measured("sparse_attention.trained", by_indexer[8] - everything)

# %% [markdown] id="09dc81f3"
# <details><summary>What the numbers say</summary>
#
# 0.07 nats, not much more than with the weights themselves. Before training the indexers choose no better than chance, 5.65 nats with 8 tokens. So imitation works, and quickly. But this experiment does not show that the choice is worth anything: in this model the last tokens do as well as the indexers' choice with 32, and better with 8 and with 4. What an indexer finds that a window does not is measured below, on a model that was trained with one.
# </details>

# %% [markdown] id="caf82ecc"
# Do the indexers choose anything but the last tokens? Look at one token's choice in each layer:

# %% tags=["nbval-ignore-output"] id="553591ac"
words = [mla.tokenizer.decode([i]) for i in held_out[0, :200].tolist()]
with torch.no_grad(), patch.replaced(ExchangeableIndexer, tokens_read=8):
    calls = patch.calls_in(with_index.model, held_out[:1, :200])
print("... " + "".join(words[-12:]), "| read for the last token:")
for number in range(4):
    read = sorted(calls[f"layers.{number}.self_attn.indexer"].output[0, -1].tolist())
    print(f"layer {number}:", " ".join(f"{words[n]!r} {n - 199}" for n in read))

# %% [markdown] id="a0bceef7"
# When this was written, layer 3 read the last eight tokens or nearly those, as a window would. Layers 0 and 1 reached back 170 tokens and more, for words: of *This was the page at*, both chose *read*, 19 tokens before. In this small model each layer looks for something else.

# %% given="05-mla mla.generate" jupyter={"source_hidden": true} id="given-05-mla-mla-generate"

# %% [markdown] id="77802f54"
# ## Step 12 · Trained weights: austen-deepseek
#
# `austen-deepseek` was trained for this course on five of Austen's novels, in DeepSeek-V3.2's form and in its stages: first with everything read, then its indexers alone, then sparse. It has latent attention, 16 experts of which a token gets 4 beside a shared one, and an indexer in each of its 4 layers that chooses 48 of up to 512 tokens. `training/deepseek.py` has everything.
#
# Both forms of your attention must write the reference's text, token for token, through the cache:

# %% tags=["nbval-ignore-output"] id="dfe09ac6"
austen = load_checkpoint("austen-deepseek")
models = {}
for form in (SparseAttention, GatheredAttention):
    models[form] = CausalLM(austen.config, form).eval()
    austen.load_into(models[form])
    print(f"--- {form.__name__}")
    check_generation(models[form], austen, generate=generate)

# %% [markdown] id="9e0ffe6d"
# Each text is longer than 48 tokens, so the later tokens have to choose.
#
# ### What if other tokens are selected?
#
# Exchange the choice, and nothing else. With everything read the loss is 4.19 nats; with the indexer's 48 tokens it is the same, and with 48 at random it is 4.73. And with the last 48, a window?

# %% prediction="sparse_attention.window" id="prediction-sparse_attention-window"
predict(
    "sparse_attention.window", "the loss with the last 48 tokens, against the indexer's 48",
    one_of=("clearly lower", "about the same", "clearly higher"),
    guess=...
)
# %% [markdown] id="396ad1a1"
# The cell reads 6,656 tokens ten times. That takes half a minute to two minutes.

# %% tags=["nbval-ignore-output"] id="cb749b1f"
sparse = CausalLM(austen.config, ExchangeableAttention).eval()
austen.load_into(sparse)
text = torch.tensor(austen.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids)
long_texts = text[: 13 * 512].view(13, 512)

# %% tags=["nbval-ignore-output"] id="e4d43f77"
with patch.replaced(ExchangeableIndexer, tokens_read=512):
    print(f"everything: {loss(sparse, long_texts):.3f} nats")
by_choice = {}
for few in progress.steps((48, 8, 4), "numbers of tokens"):
    found = {}
    for name, by in (("the indexer's", lambda scores: scores), ("the last", by_age), ("at random", at_random)):
        with patch.replaced(ExchangeableIndexer, tokens_read=few, by=staticmethod(by)):
            found[name] = loss(sparse, long_texts)
    by_choice[few] = found
    print(f"{few:10}: " + ", ".join(f"{name} {nats:.3f}" for name, nats in found.items()))
more = by_choice[48]["the last"] - by_choice[48]["the indexer's"]
measured("sparse_attention.window", "clearly higher" if more > 0.05 else "clearly lower" if more < -0.05 else "about the same")

# %% [markdown] id="ec3d0e93"
# <details><summary>What the numbers say</summary>
#
# The last 48 cost no more than the indexer's 48, as far as this text can show: a model of two million parameters predicts Austen's next word mostly from the last ones. With 8 or 4 tokens the indexer's choice is the better one by two hundredths of a nat, though it was never trained with so few.
#
# On 32,768 tokens the same, from `training/austen-deepseek.json` in the course's repository: with 48, 4.088 nats for the indexer's, 4.089 for the last, 4.823 at random, and 4.887 for an indexer that was not trained; with 8, 4.112 for the indexer's, 4.135 for the last and 5.053 at random.
# </details>

# %% [markdown] id="5cf0008c"
# So has the indexer learned more than a window? Ask attention itself. For tokens with at least 256 before them: how much of attention's weight falls on the 48 that are chosen? No 48 tokens can have more than those with the largest weights. Think of the loss: reading the indexer's 48 tokens costs nothing. How much of the weight do the best 48 have, in layer 0?

# %% prediction="sparse_attention.weight" id="prediction-sparse_attention-weight"
predict(
    "sparse_attention.weight", "attention's weight on the best 48 tokens, layer 0", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="62f4a7c2"
angles, best = rope_table(torch.arange(512), austen.config), []
with torch.no_grad(), patch.replaced(ExchangeableIndexer, tokens_read=48):
    calls = patch.calls_in(sparse.model, long_texts[:6])
    for number, one in enumerate(sparse.model.layers):
        name = f"layers.{number}.self_attn"
        _, _, looked = looked_at(one.self_attn, calls[name].input, angles)
        ways = {"the largest weights": select(looked, 48), "the indexer's": calls[f"{name}.indexer"].output,
                "the last": select(by_age(looked), 48), "at random": select(at_random(looked), 48)}
        shares = {way: looked.gather(-1, read).sum(dim=-1)[:, 256:].mean().item() for way, read in ways.items()}
        best.append(shares["the largest weights"])
        print(f"layer {number}: " + ", ".join(f"{way} {share:.0%}" for way, share in shares.items()))
measured("sparse_attention.weight", 100 * best[0])

# %% [markdown] id="19832fba"
# <details><summary>What the numbers say</summary>
#
# 29%. So in layer 0 even the best choice of 48 tokens drops 71% of attention's weight, in the next two layers 67 and 58%, and the loss does not notice. A weight that is spread thinly over hundreds of tokens adds up to much and says little. (The weights of all chosen tokens grow when the others are dropped, since the softmax divides by a smaller sum.)
#
# In layer 0 the last 48 have no more weight than 48 at random: how long ago a token was makes no difference to this layer. Its indexer finds 28 of the 29% that any 48 tokens could have, and in the other layers too all but about 1% is found. So selecting was learned, from the imitation. That the loss with 48 does not need it says something of the model and the text: little that it learned to predict depends on a word long ago.
# </details>
# %% [markdown] id="9904e169"
# ### Exercise 8 · What does the indexer miss?
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The shares above say how much weight a choice gets, and 28 of 29% looks like the same choice. Is it? An indexer may find nearly all of the weight and still choose many other tokens. The two numbers answer different questions: the weight says what attention loses, the tokens say whether the indexer knows attention's order. Measure both, for any k. This experiment is yours.
#
# Leave out the queries for which there is nothing to choose: with k tokens or fewer every choice is the best one.
#
# <details><summary>Hint 1</summary>
#
# `select` makes both choices, the indexer's from its scores and attention's own from its weights. Which is the first query that has more than k tokens to choose from?
#
# <details><summary>Hint 2</summary>
#
# `weights.gather(-1, chosen)` are the weights of the chosen tokens. Compare every chosen token with each of the best: two axes of length k.
# </details>
# </details>

# %% exercise="sparse_attention.recall" id="sparse_attention-recall"
def recall(scores: Tensor, weights: Tensor, k: int) -> tuple[float, float]:
    """How much of attention's own best k tokens a choice by `scores` finds: by their weight, and by their number.

    By weight: the weight of the k tokens with the highest scores, divided by the weight of the k with the largest
    weights; each a sum over all queries that count. By number: the share of the tokens with the largest weights that
    are among those with the highest scores. A query counts if it has more than k tokens to choose from.
    scores, weights: [B, T, T], query and key; no query may choose a later token, whatever its score is.
    """
    ### BEGIN SOLUTION
    chosen, best = select(scores, k)[:, k:], select(weights, k)[:, k:]  # [B, T - k, k]; query t has t + 1 tokens
    weights = weights[:, k:]
    by_weight = weights.gather(-1, chosen).sum() / weights.gather(-1, best).sum()
    by_number = (chosen[..., None] == best[..., None, :]).sum() / best.numel()
    return by_weight.item(), by_number.item()
    ### END SOLUTION

# %% check="sparse_attention.recall" tags=["nbval-ignore-output"] id="check-sparse_attention-recall"
check("sparse_attention.recall", recall)

# %% [markdown] id="fc616bf6"
# In layer 0 the indexer's 48 tokens have nearly all of the weight that any 48 could have. How many of attention's own 48 are among them?

# %% prediction="sparse_attention.recall" id="prediction-sparse_attention-recall"
predict(
    "sparse_attention.recall", "attention's own best 48 that the indexer chooses, layer 0", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="f019a7c8"
found = {}
with torch.no_grad():
    for number, one in enumerate(sparse.model.layers):
        x, its = calls[f"layers.{number}.self_attn"].input, one.self_attn.indexer
        _, latent, looked = looked_at(one.self_attn, x, angles)
        scores = its.scores(x, latent, its.keys(x, angles), angles)
        found[number] = {k: recall(scores, looked, k) for k in (4, 16, 48, 96)}
print("found of attention's own best k, by weight and by number of tokens")
for number, each in found.items():
    shares = (f"k = {k} {weight:.0%} {same:.0%}" for k, (weight, same) in each.items())
    print(f"layer {number}: " + ", ".join(shares))
measured("sparse_attention.recall", 100 * found[0][48][1])

# %% [markdown] id="cc616208"
# <details><summary>What the numbers say</summary>
#
# 87%. One in eight of the tokens that it chooses is not among attention's own 48, and together these mistakes cost it little more than 1% of the weight. They are made at the edge of the choice, where the 48th token has hardly more weight than the 60th. With 4 tokens the same shows more clearly: in layer 0 the indexer finds two thirds of the tokens, and 97% of the weight.
#
# So the two numbers must not be taken for each other. A share of tokens makes a choice look worse than it is, and what attention loses is the weight. In layer 3 the share of tokens is about the same for every k: there the indexer misses tokens with large weights as well as small ones, and they are few.
# </details>

# %% [markdown] id="98580411"
# ### Do neighbouring layers choose the same tokens?
#
# GLM-5.2 lets three of four layers take over a choice, because in large models neighbouring layers choose much the same. And in `austen-deepseek`? By chance, two choices of 48 among the 257 to 512 tokens that may be seen share 13%. What share of the tokens that layer 1 chooses did layer 0 choose, too?

# %% prediction="sparse_attention.shared" id="prediction-sparse_attention-shared"
predict(
    "sparse_attention.shared", "layer 1's chosen tokens that layer 0 had chosen too", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="0c81b66f"
reads, common = [], []
for number in range(4):
    chosen = calls[f"layers.{number}.self_attn.indexer"].output[:, 256:]  # [B, 256, 48]
    reads.append(torch.zeros(*chosen.shape[:2], 512).scatter(-1, chosen, 1.0))  # 1 where a token is read
for number in range(1, 4):
    common.append(100 * (reads[number] * reads[number - 1]).sum(dim=-1).mean().item() / 48)
    print(f"layer {number}: {common[-1]:.0f}% of its tokens were chosen by layer {number - 1}, too")
measured("sparse_attention.shared", common[0])

# %% [markdown] id="a43b095f"
# <details><summary>What the numbers say</summary>
#
# 13%, no more than chance: layers 0 and 1 look for different things. Layers 1 and 2 share 37%, and layers 2 and 3 share 54%: the higher the layer, the more of its attention falls on the latest tokens. So in this small model a layer could not simply take over what the layer before chose, as in GLM-5.2. What sharing would cost it after training for that, nobody has measured here.
# </details>

# %% [markdown] id="f5b409ac"
# ## What it costs
#
# ### Exercise 9 · Work and bytes
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Two numbers for a model whose cache has S tokens: the multiply-adds of its newest token that depend on S, and the bytes of the cache. Projections are left out: they do not depend on S.
#
# <details><summary>Hint 1</summary>
#
# A head reads a row twice: once whole for the score, once without its rotated key for the sum. How many rows, in a sparse layer?
#
# <details><summary>Hint 2</summary>
#
# Count layers with an indexer by `has_indexer(config, i)`. All layers read rows, and these layers read index keys as well: those of all S tokens.
# </details>
# </details>

# %% exercise="sparse_attention.costs" id="sparse_attention-costs"
def costs(config: Config, tokens: int, element_bytes: int = 2) -> tuple[int, int]:
    """What attention costs a model whose cache has `tokens` tokens: the multiply-adds of the newest, the cache's bytes.

    Multiply-adds: those that grow with the tokens read, in all layers, in the absorbed form. A head reads a row with
    kv_lora_rank + qk_rope_head_dim of them for the score and kv_lora_rank for the sum. An index head reads a key with
    index_head_dim, and one more for its weight. The newest token is one of `tokens` and reads itself too.
    Bytes: the rows of all layers, and the index keys of those layers that have an indexer.
    A config without index_topk reads every row and has no indexer. Layers beyond num_hidden_layers do not count, even
    where indexer_types names them.
    """
    ### BEGIN SOLUTION
    layers, row = config.num_hidden_layers, config.kv_lora_rank + config.qk_rope_head_dim
    per_row = config.num_attention_heads * (row + config.kv_lora_rank)
    if not config.get("index_topk"):
        return layers * tokens * per_row, tokens * layers * row * element_bytes
    full = sum(has_indexer(config, i) for i in range(layers))
    indexed = full * tokens * config.index_n_heads * (config.index_head_dim + 1)
    numbers = layers * row + full * config.index_head_dim
    return indexed + layers * min(tokens, config.index_topk) * per_row, tokens * numbers * element_bytes
    ### END SOLUTION

# %% check="sparse_attention.costs" tags=["nbval-ignore-output"] id="check-sparse_attention-costs"
check("sparse_attention.costs", costs)

# %% [markdown] id="c9aa5c29"
# At 131,072 tokens attention in V3.2 reads 2,048, a 64th of what V3 reads. How many times less work is it than V3's? And from which length on does selecting pay?

# %% prediction="sparse_attention.less_work" id="prediction-sparse_attention-less_work"
predict(
    "sparse_attention.less_work", "V3's work against V3.2's, one token at 131,072", unit="times as much",
    guess=...
)

# %% id="8a4359f5"
print(f"{'tokens':>9} {'V3':>9} {'V3.2':>9} {'V3 / V3.2':>10} {'GLM-5.2':>9}   (billion multiply-adds for one token)")
for at in (1_024, 2_048, 4_096, 16_384, 131_072):
    v3_work, v32_work, glm_work = (costs(config, at)[0] / 1e9 for config in configs.values())
    print(f"{at:9,} {v3_work:9.1f} {v32_work:9.1f} {v3_work / v32_work:10.2f} {glm_work:9.1f}")
pays = next(n for n in range(1, 10_000) if costs(v32, n)[0] < costs(configs["deepseek-v3"], n)[0])
indexing = 61 * 131_072 * 64 * 129 / costs(v32, 131_072)[0]
print(f"V3.2 does less from {pays:,} tokens on; at 131,072 the indexer is {indexing:.0%} of its work")
measured("sparse_attention.less_work", v3_work / v32_work)

# %% tags=["nbval-ignore-output"] id="0a38ca9c"
from grader.instruments import plots

lengths = [2**n for n in range(9, 18)]
curves = {name: (lengths, [costs(config, n)[0] / 1e9 for n in lengths]) for name, config in configs.items()}
around = plots.Axes("tokens in the cache", "billion multiply-adds for one token", log="xy", xticks=lengths[::2])
plots.lines(curves, around)

# %% [markdown] id="b48b864c"
# <details><summary>What the numbers say</summary>
#
# 13 times less, not 64: four fifths of the work that is left is the indexer's, which still grows with the length. Below 2,048 tokens everything is read, and the indexer comes on top. Selecting pays from 2,178 tokens on. GLM-5.2 has half as many index heads, in a quarter of its layers.
# </details>

# %% [markdown] id="0db11379"
# Decoding waits for memory more than for arithmetic (lesson 02). So count what a token has to *read*:

# %% id="92d0fe8a"
def bytes_read(config: Config, tokens: int, index_bytes: float = 2) -> float:
    """The bytes that the newest of `tokens` tokens reads of the cache, rows in bfloat16."""
    row, layers = (config.kv_lora_rank + config.qk_rope_head_dim) * 2, config.num_hidden_layers
    if "index_topk" not in config:
        return layers * tokens * row
    indexed = [layer for layer in range(layers) if has_indexer(config, layer)]
    keys = len(indexed) * tokens * config.index_head_dim * index_bytes
    return layers * min(tokens, config.index_topk) * row + keys

# %% id="e3679429"
dense_bytes = bytes_read(configs["deepseek-v3"], 131_072)
for name, index_bytes in (("index keys in bfloat16", 2), ("index keys in 8 bits, and a scale", 132 / 128)):
    sparse_bytes = bytes_read(v32, 131_072, index_bytes)
    less = dense_bytes / sparse_bytes
    print(f"V3 reads {dense_bytes / 1e9:.2f} GB, V3.2 {sparse_bytes / 1e9:.2f} GB ({name}): {less:.1f} times less")
print(f"the cache: {costs(configs['deepseek-v3'], 131_072)[1] / 1e9:.2f} GB and {costs(v32, 131_072)[1] / 1e9:.2f} GB")

# %% [markdown] id="e5e033c5"
# A quarter, or an eighth with 8-bit keys; and the cache itself has grown by a fifth. That is why those keys are small, and why GLM-5.2 shares them.
#
# ### A whole prompt
#
# A prompt has many tokens, and each has its own work to do. Add it up, each token counted as above:

# %% id="8f1f97c7"
for length in (8_192, 131_072):
    sampled = range(64, length + 1, 64)  # every 64th token stands for 64
    v3_prompt, v32_prompt = (sum(64 * costs(configs[name], n)[0] for n in sampled) for name in ("deepseek-v3", "deepseek-v3.2"))
    scoring = sum(64 * 61 * n * 64 * 129 for n in sampled)
    print(f"{length:7,} tokens: V3 {v3_prompt / 1e15:8.3f} million billion multiply-adds, V3.2 {v32_prompt / 1e15:7.3f},"
          f" of which the indexer {scoring / v32_prompt:.0%}")

# %% [markdown] id="600fd160"
# In a long prompt every token reads 2,048 rows, so that work grows in proportion to the length. But every token scores all tokens before it, so the indexer's work grows with the square of the length, and it is most of the work at 131,072. The count is that of the absorbed form; expanded, as prompts are read, V3 does less (lesson 05).
#
# ### The clock
#
# One layer of the small sizes above, one token. The cache is now the one of exercise 6, so nothing is allocated or copied in a step. With 4,096 rows gathering does a sixth of the dense form's work. What share of the dense form's time does it take, on this machine?

# %% prediction="sparse_attention.clock" id="prediction-sparse_attention-clock"
predict(
    "sparse_attention.clock", "time of gathering 64 of 4,096 rows, as a share of the dense form's", unit="%",
    guess=...
)

# %% id="ffa2637b"
def steady_step(attention: nn.Module, rows: int):
    """A call that reads one token after `rows` - 1 cached ones, again and again, with one cache for all calls."""
    x, table = torch.randn(1, 1, lite.hidden_size), rope_table(torch.tensor([rows - 1]), lite)
    cache = IndexedCache(lite, batch=1, capacity=rows)
    cache.append(torch.randn(1, rows - 1, lite.kv_lora_rank + lite.qk_rope_head_dim))
    cache.append_keys(torch.randn(1, rows - 1, lite.index_head_dim))

    def step() -> Tensor:
        cache.crop(rows - 1)
        return attention(x, table, cache)

    return step

# %% tags=["nbval-ignore-output"] id="bfe66af7"
cached = (64, 512, 4096)
with torch.no_grad():
    runs = {(name, n): steady_step(form, n) for name, form in forms.items() for n in cached}
    spent = clock.in_turns(runs, repeats=7)

# %% tags=["nbval-ignore-output"] id="b50f3f48"
for name in forms:
    print(f"{name:>21}: " + ", ".join(f"{n:,} rows {spent[name, n]:.1f} ms" for n in cached))
measured("sparse_attention.clock", 100 * spent["sparse, by gathering", 4096] / spent["dense, absorbed", 4096])

# %% [markdown] id="0e0149ba"
# <details><summary>What the numbers say</summary>
#
# Far more than a sixth of the time. Look at the dense form: it takes a large part of its time for 4,096 rows already with 64. That part is the projections, whose weights every form has to read, and the calls themselves. Gathering can save only the rest, and has to do a top-k and a copy besides. The work that is saved becomes time that is saved where rows are most of the work: in longer texts than these.
# </details>

# %% [markdown] id="55264e5d"
# The masked form rebuilds every row and then leaves most of them out. Gathering for a whole prompt is another matter: there, every token gathers rows of its own, 2,048 for each, and shares nothing with its neighbours. Lesson 05's expanded form rebuilds each row once for all of them. So for short prompts DeepSeek's server uses the masked form ("masked MHA mode" in the report, section 2.3), and gathers only where texts are long.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="9ae708d1"
# ## What changed, and why
#
# | | DeepSeek-V3 | DeepSeek-V3.2 | GLM-5.2 | why |
# |---|---|---|---|---|
# | rows that a head reads | all | 2,048 | 2,048 | the work of attention no longer grows with the text |
# | who chooses | | an indexer in each of 61 layers | 21 indexers for 78 layers | neighbouring layers choose much the same |
# | index heads, width | | 64, 128 | 32, 128 | cheap: one key a token, no softmax, 8 bits |
# | RoPE of the index | | halves, channels in front | neighbours, channels in front | no reason is published |
# | cached for a token, bfloat16 | 68.6 KiB | 83.9 KiB | 93.0 KiB | rows of all tokens, since the next may choose others; index keys on top |
# | work for one token at 131,072 | 1,114 billion | 83 billion | 22 billion | four fifths of V3.2's is the indexer's |
#
# ## The questions again
#
# <details><summary>A token reads 2,048 of 128,000 earlier ones. How does it know which?</summary>
#
# It looks at all of them, but cheaply: an indexer scores each by its index key, and the 2,048 best are read.
# </details>
#
# <details><summary>What does sparse attention save, and what not?</summary>
#
# Work, and what is read of the cache. Not the cache: every row must stay, and index keys come on top.
# </details>
#
# <details><summary>Why a ReLU, and no softmax?</summary>
#
# Each pair is scored by itself, whatever the other scores are, and a head that finds nothing takes nothing away.
# </details>
#
# <details><summary>How is an indexer trained, if choosing has no gradient?</summary>
#
# By imitation: its softmax is pulled towards the weights of attention. First with everything read, then on what was chosen.
# </details>
#
# <details><summary>An indexer finds nearly all of the weight that 48 tokens can have. Does it choose attention's own 48?</summary>
#
# Not all: in layer 0 of austen-deepseek 87% of them. The others are at the edge of the choice and have little weight. Attention loses the weight that is not found, so measure that, and don't judge a choice by its share of tokens alone.
# </details>
#
# <details><summary>Which mistakes does no short text show?</summary>
#
# All of the indexer's: as long as no more than k tokens may be seen, all are chosen.
# </details>
#
# <details><summary>From which length does it pay?</summary>
#
# V3.2's arithmetic from 2,178 tokens on. Far beyond, the indexer is most of what is left.
# </details>
#
# ## Where to read on
#
# - DeepSeek-AI, *DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models* (2025), section 2.1: the indexer, the selection, both stages of training.
# - Bai et al., *IndexCache* (2026, arXiv 2603.12201): layers that share a selection, as in GLM-5.2.
# - Yuan et al., *Native Sparse Attention* (2025): the same laboratory's earlier way, in blocks, trained from the start.
# - Xiao et al., *Efficient Streaming Language Models with Attention Sinks* (2023): why the first tokens are read so often.
# - The reference: `transformers/models/deepseek_v32/modeling_deepseek_v32.py`, `DeepseekV32Indexer`; `models/glm_moe_dsa/modeling_glm_moe_dsa.py`; `DynamicIndexedLayer` in `cache_utils.py`. DeepSeek's own, with Hadamard matrix and 8 bits: `inference/model.py` of DeepSeek-V3.2-Exp.
#
# ## If you want more
#
# Write `BothAttention`: with a mask where many tokens come in, by gathering where few do. From your counts, at which T does one overtake the other, for S rows and k chosen? You are right when it agrees with both forms on each case of exercises 4 and 5, and its work is the smaller of the two.
#
# Or let neighbouring layers share: train an indexer for `austen-mla`'s layers 0 and 2 alone, and let 1 and 3 take over. How much does the loss change at k = 8?
