# %% [markdown] id="a6de190c"
# # 11 · New models: a new architecture in half an hour
#
# **A model came out this morning. How far is your program from it?**
#
# Every few weeks somebody publishes weights with a `config.json` whose `model_type` you have never seen. Most of these models are programs that you have written already, with two or three lines changed. The lines are what this lesson is about: which they are, what the config says about them, and what it leaves out.
#
# You take four models of 2025 and 2026, one after the other: SmolLM3, OLMo 3, gpt-oss and Gemma 4. Each starts from a program that is given and ends with a layer comparison that is green. Two more, Sarvam 30B and Intellect-3, you only read: there is nothing left to write.
#
# Write your guess on a piece of paper: **of these six models, for how many would lesson 03's program load the weights without an error and then compute something else?** And which of the six `config.json` files tells you everything that you need?
#
# After this lesson you can
#
# - read a stranger's config against one that you know, and list the lines of your program that must change;
# - write post-norms, a QK-norm over the full width, YaRN, layers without RoPE, attention sinks, clamped experts, values made of keys, and layers that share keys and values;
# - say what of that the config names, what only the reference's code names, and with which inputs a wrong port passes anyway;
# - count from a config what a cache costs, windows and shared layers included.
#
# 130 to 190 minutes · difficulty ●●●●○ · you know Qwen3 (lesson 03) and windows (lesson 06); experts (lesson 07) help
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# ![gpt-oss 20B beside Qwen3 30B-A3B, with a ring around what differs: tokens enter an embedding; 24 layers follow, every second with a window of 128 tokens, each with attention that has sinks and biases, and with 32 experts of which a token gets 4; then the last norm and the output.](figures/gpt-oss-20b-model.svg)

# %% tags=["setup"] id="setup"
import math
from collections.abc import Collection, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, check, check_generation, compare_layers, load_checkpoint, read_trace

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="25eab206"
# ## What is given
#
# Lesson 03's program stands in the next nine cells, folded. It runs Qwen3 and every Llama.

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

# %% given="03-qwen3 qwen3.generate" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-generate"

# %% given="04-gemma3 gemma3.embedding" jupyter={"source_hidden": true} id="given-04-gemma3-gemma3-embedding"

# %% [markdown] id="3f690c1b"
# Lesson 04's embedding is given as well. Three helpers are new. `Norm` is RMSNorm as OLMo 3, gpt-oss and Gemma 4 have it: the product with the weight is computed in float32 too, before the result is cast back. `attend` is the middle of lesson 03's attention, with lesson 06's window. `layer_types` says which layers slide.

# %% tags=["setup"] id="setup-3"
class Norm(nn.Module):
    """RMSNorm whose product with the weight is in float32, too; without a weight where `weighted` is false."""

    def __init__(self, dim: int, eps: float = 1e-6, weighted: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)  # [..., dim]
        return (normed if self.weight is None else normed * self.weight.float()).to(x.dtype)

# %% tags=["setup"] long="a mask, the middle of attention and the list of layers, with their shapes" id="setup-4"
def visible(length: int, window: int | None, device: torch.device | None = None) -> Tensor:
    """Which keys each query sees: itself and earlier ones, with a window no more than `window` in all. [T, T] bool."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < (window or length))


def heads(x: Tensor, width: int) -> Tensor:
    """[B, T, H * width] -> [B, H, T, width]."""
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None) -> Tensor:
    """Grouped causal attention: q [B, H, T, width] of the last T of S tokens, k and v [B, KV, S, width] -> [B, T, H * width]."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))  # [B, H, S, width]
    scores = (q @ k.mT) * scale  # [B, H, T, S]
    scores = scores.masked_fill(~visible(k.shape[2], window, q.device)[-q.shape[2] :], float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2)


def layer_types(config: Config) -> list[str]:
    """What each layer sees: the config's list, or without one every layer full, but where the model type says more."""
    layers, every = range(1, config.num_hidden_layers + 1), {"olmo3": 4, "gpt_oss": 2, "gemma4_text": 6}
    period = every.get(config.model_type, 1)
    return config.get("layer_types") or ["sliding_attention" if i % period else "full_attention" for i in layers]

# %% [markdown] id="ac084205"
# And this is the first thing to do with a new model: ask the atlas what changes between a model whose program you have and the new one. On a command line it is `grader diff qwen3-8b smollm3-3b`; here are its last lines, as a function.

# %% id="276843e1"
from grader.atlas import architecture_of
from grader.atlas.changes import steps


def diff(old: str, new: str) -> None:
    """What to change in a program for `old` so that it runs `new`; both are files in configs/."""
    one, other = (architecture_of(f"configs/{name}.json") for name in (old, new))
    for number, step in enumerate(steps(one, other), 1):
        print(f"{number:2}. {step.module}: {step.change}")

# %% [markdown] id="c6778d1b"
# ## SmolLM3: one field
#
# SmolLM3 (Hugging Face, July 2025) has 3 billion parameters, 36 layers and the shape of a Llama. What does it change?

# %% tags=["nbval-ignore-output"] id="06d9c1fe"
diff("qwen3-8b", "smollm3-3b")

# %% [markdown] id="019be493"
# Sizes, no QK-norm, a tied head: lesson 03's program reads all of that from the config. What is left is about RoPE: 9 of 36 layers are without it. Its authors cite *RoPE to NoPE and Back Again* (Yang et al., 2025): layers without positions find a token by what it says, wherever it stands, and those with RoPE keep the order. Mixing both helps long contexts.
#
# Lesson 03's program knows nothing of it. It still loads SmolLM3's weights, all of them, without an error: RoPE has no parameters. So take the reference's trace of a small SmolLM3 with random weights and look at the table.

# %% id="3c1205f5"
def compare(model: type[nn.Module], trace: str | None = None) -> None:
    """Show the table of rows against a trace in texts/, or against this lesson's own; go on when some are wrong."""
    try:
        compare_layers(model, read_trace(f"texts/{trace}.safetensors") if trace else None)
    except CheckFailed as failed:
        print(failed)

# %% tags=["nbval-ignore-output"] id="09ccffbb"
compare(Model, "smollm3")

# %% [markdown] id="a8bd048a"
# Read the table from the top, and find the first row that says *own error*. (*Only in your model* names modules that the reference does not have: lesson 03's program has an `nn.Identity` there.) The config that came with the weights has the field `no_rope_layers`:

# %% id="f4a67073"
trace = read_trace("texts/smollm3.safetensors")
small = Config(trace.build["config"])
print("no_rope_layers:", small.no_rope_layers)

# %% [markdown] id="aca0a486"
# ### Exercise 1 · Layers without RoPE
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# The field's name and the table contradict each other. Decide by the table.
#
# The copy in `configs/smollm3-3b.json` is shortened: it has no list, but a `no_rope_layer_interval` of 4: every fourth layer is left without RoPE, beginning with layer 3, counted from 0. Where both are missing, the interval is 4.
#
# <details><summary>Hint 1</summary>
#
# Which layers are green in the table? They were computed with RoPE. Which number have they in the list?
#
# <details><summary>Hint 2</summary>
#
# A layer of lesson 03 takes a table of cosines and sines. Which cosine and which sine leave a vector as it is?
# </details>
# </details>

# %% exercise="new_models.nope" id="new_models-nope"
class SmolModel(Model):
    """Lesson 03's Model without its head, for SmolLM3: some layers don't rotate queries and keys at all.

    config.no_rope_layers, a list with a number for each layer, says which, whatever the interval; transformers hands
    layer i its i-th number as `use_rope`. Where the list is missing or null, every n-th layer is without RoPE: n is
    config.no_rope_layer_interval, or 4 if that is missing too. For n = 4 these are layers 3, 7, 11 and so on, counted
    from 0. The base of the rotations is rope_theta(config).
    ids: [B, T] int64 -> [B, T, D]. transformers: SmolLM3Model.
    """

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        config = self.config
        every = config.get("no_rope_layer_interval") or 4
        rotated = config.get("no_rope_layers") or [i % every for i in range(1, config.num_hidden_layers + 1)]
        positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        table = rope_table(positions, head_dim(config), rope_theta(config))  # [2, T, head_dim]
        still = torch.stack([torch.ones_like(table[0]), torch.zeros_like(table[1])])  # every angle is 0
        x = self.embed_tokens(ids)  # [B, T, D]
        for layer, turns in zip(self.layers, rotated, strict=True):
            x = layer(x, table if turns else still)
        return self.norm(x)
        ### END SOLUTION

# %% check="new_models.nope" tags=["nbval-ignore-output"] id="check-new_models-nope"
check("new_models.nope", SmolModel)

# %% tags=["nbval-ignore-output"] id="835c4f24"
compare(SmolModel, "smollm3")

# %% [markdown] id="7256ba43"
# One field, one line, and every row is right. A 1 in `no_rope_layers` means that RoPE *is* used: the field's name says the opposite of its values. A [report](https://github.com/huggingface/transformers/issues/43756) against transformers takes a 1 for a layer without RoPE. Another program had it that way in 27 of 36 layers: on the real weights its results were up to 6.87 away, and 0.00005 after the list was read the other way round ([mobius 233](https://github.com/onnxruntime/mobius/pull/233)).
#
# Now guess what a test would have seen. A popular check of a port is a tiny random checkpoint, with weights of standard deviation 0.02, and logits that are compared to within 0.01. Take one of four layers, so that one of them is without RoPE.

# %% prediction="new_models.hidden" id="prediction-new_models-hidden"
predict(
    "new_models.hidden", "largest difference of the logits with RoPE in all layers and with none in every fourth",
    one_of=["exactly 0", "below 0.01", "between 0.01 and 1", "above 1"],
    guess=...
)

# %% id="f66b5b3e"
def small_logits(kind: type[nn.Module], layers: int, std: float) -> Tensor:
    """Logits of a small random model of this class for 12 tokens, the same weights for every class."""
    torch.manual_seed(0)
    fields = {name: value for name, value in small.items() if name != "no_rope_layers"}
    model = kind(Config(fields | {"num_hidden_layers": layers})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(std * torch.randn_like(weight) if weight.ndim > 1 else torch.ones_like(weight))
        return model(torch.arange(12)[None]) @ model.embed_tokens.weight.T

# %% id="5fc7b539"
found = {}
for layers in (2, 4):
    for std in (0.02, 0.3):
        apart = (small_logits(Model, layers, std) - small_logits(SmolModel, layers, std)).abs().max().item()
        found[layers, std] = apart
        print(f"{layers} layers, weights of {std}: logits apart by up to {apart:.1g}")
measured("new_models.hidden", "below 0.01" if 0 < found[4, 0.02] < 0.01 else "another")

# %% [markdown] id="02c5ee1c"
# <details><summary>What the numbers say</summary>
#
# Below 0.01 by far. With two layers, as many tiny checkpoints have, there is not even a layer without RoPE, and the difference is exactly 0. With four there is one, and at the size of freshly made weights its attention is nearly uniform: it hardly matters who stands where, and a tolerance of 0.01 lets the wrong program pass. So three rules for the small model that you compare with: at least one whole round of every pattern in the layers, weights large enough to matter, and norms, biases and everything else random. The course's traces are made so.
# </details>

# %% [markdown] id="3a0a0a89"
# ## OLMo 3: to agree with the reference is not enough
#
# OLMo 3 (Ai2, November 2025) comes with its data, its training code and its logs. One of its lines was wrong for a while in the reference itself.

# %% tags=["nbval-ignore-output"] id="b0e5ef4a"
diff("qwen3-8b", "olmo-3-7b")

# %% [markdown] id="f995895b"
# ![OLMo 3 7B beside Qwen3 8B, with a ring around what differs: norms stand after attention and after the MLP, before the sum; 24 of 32 layers have a window of 4,096 tokens.](figures/olmo-3-7b-model.svg)
#
# Three things are new: where norms stand, what QK-norm runs over, and YaRN in a model with windows. Before you write anything, look at what the checkpoint's names and shapes say. `q_norm.weight` has as many numbers as `q_proj` has rows, and not `head_dim`. There is no `input_layernorm`, and there is a `post_feedforward_layernorm`.
#
# ### Exercise 2 · QK-norm over the full width
# difficulty ●●○○○ · importance ●●●○○ · 7 minutes
#
# Qwen3 norms each head's queries by themselves. OLMo 3 norms all heads of a token together, before they are cut apart: a head whose queries are large stays larger than the others.
#
# <details><summary>Hint 1</summary>
#
# The helpers above do the rest: `heads` cuts, `attend` attends, with a window where one is given.
#
# <details><summary>Hint 2</summary>
#
# The norm comes before `heads`, and the rotation after it.
# </details>
# </details>

# %% exercise="new_models.olmo_attention" id="new_models-olmo_attention"
class OlmoAttention(nn.Module):
    """Grouped attention with RoPE, whose queries and keys are normed over all heads together.

    Parts: q_proj, k_proj, v_proj, o_proj, without biases; q_norm and k_norm, Norms over the whole width of q_proj's and
    k_proj's output, with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim]; window: how many tokens each sees, itself included, or None for all
    -> [B, T, D]. transformers: Olmo3Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, self.width = config.hidden_size, head_dim(config)
        queries, keys = config.num_attention_heads * self.width, config.num_key_value_heads * self.width
        self.q_proj = nn.Linear(D, queries, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, keys, bias=False)
        self.o_proj = nn.Linear(queries, D, bias=False)
        self.q_norm = Norm(queries, config.rms_norm_eps)
        self.k_norm = Norm(keys, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        ### BEGIN SOLUTION
        q = heads(self.q_norm(self.q_proj(x)), self.width)  # [B, H, T, width]
        k = heads(self.k_norm(self.k_proj(x)), self.width)  # [B, KV, T, width]
        v = heads(self.v_proj(x), self.width)
        q, k = apply_rope(q, table), apply_rope(k, table)
        return self.o_proj(attend(q, k, v, self.width**-0.5, window))
        ### END SOLUTION

# %% check="new_models.olmo_attention" tags=["nbval-ignore-output"] id="check-new_models-olmo_attention"
check("new_models.olmo_attention", OlmoAttention)

# %% [markdown] id="f0837f5b"
# ### Exercise 3 · YaRN
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# OLMo 3 was trained on texts of 8,192 tokens and then stretched to 65,536. In a longer text, a pair that turns slowly reaches angles that it never had in training. YaRN (Peng et al., 2023) makes such pairs `factor` times slower, leaves the fast ones alone, and has a ramp between. How often a pair turned in training decides: its angle after `original_max_position_embeddings` tokens, in full turns.
#
# Pair $i$ of $d/2$ turns by $\theta^{-2i/d}$ a token. So after $L$ tokens it has turned $L \theta^{-2i/d} / 2\pi$ times, and the pair that has turned $n$ times is
#
# $$i(n) = \frac{d \, \ln(L / 2 \pi n)}{2 \ln \theta}.$$
#
# Pairs up to $i(\beta_{fast})$ stay as they are, those from $i(\beta_{slow})$ on are slowed down by the whole factor, and between the two a straight ramp decides how much of each frequency is taken. Because a stretched model's attention spreads over more tokens, cosines and sines are also multiplied by $0.1 \ln(factor) + 1$, which makes scores larger by its square.
#
# OLMo 3 7B has heads of 128, a base of 500,000, an original length of 8,192, and the published $\beta_{fast} = 32$ and $\beta_{slow} = 1$. How many of its 64 pairs keep their speed?

# %% prediction="new_models.kept_pairs" id="prediction-new_models-kept_pairs"
predict(
    "new_models.kept_pairs", "pairs of 64 that YaRN leaves as they were",
    guess=...
)

# %% [markdown] id="15d7fbd5"
# <details><summary>Hint 1</summary>
#
# Two edges, `low` from beta_fast and `high` from beta_slow. The ramp is `(i - low) / (high - low)`, clamped to 0 and 1: 0 where a pair stays, 1 where it is slowed.
#
# <details><summary>Hint 2</summary>
#
# With `slowed` from 0 to 1: `plain * (1 - slowed) + plain / factor * slowed`. Then as in lesson 03: angles, twice side by side, cosines and sines.
# </details>
# </details>

# %% exercise="new_models.yarn" id="new_models-yarn"
def yarn_table(positions: Tensor, head_dim: int, theta: float, scaling: dict) -> Tensor:
    """Lesson 03's table with RoPE stretched by YaRN (Peng et al., 2023, section 3.2).

    Pair i of head_dim / 2 has the plain frequency theta^(-2 i / head_dim). With the formula above, low = i(beta_fast) and
    high = i(beta_slow), rounded down and up unless `truncate` is false; low is at least 0, high at most head_dim - 1. A
    pair's frequency goes from plain, up to low, to plain / factor, from high on, in a straight line.
    Cosines and sines are multiplied by attention_factor, or where that is missing by 0.1 ln(factor) + 1.
    scaling: factor and original_max_position_embeddings, and perhaps beta_fast (32), beta_slow (1), truncate (True),
    attention_factor. low and high are different numbers here.
    positions: [T] int64 -> [2, T, head_dim] float32: cosines, sines. transformers: _compute_yarn_parameters.
    """

    ### BEGIN SOLUTION
    def pair_that_turns(times: float) -> float:
        length = scaling["original_max_position_embeddings"]
        return head_dim * math.log(length / (2 * math.pi * times)) / (2 * math.log(theta))

    low, high = pair_that_turns(scaling.get("beta_fast") or 32), pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    pairs = torch.arange(head_dim // 2, device=positions.device).float()
    slowed = ((pairs - low) / (high - low)).clamp(0, 1)  # [head_dim / 2]: 0 as it was, 1 slower by the factor
    plain = theta ** (-2 * pairs / head_dim)
    frequencies = plain * (1 - slowed) + plain / scaling["factor"] * slowed
    angles = positions.float()[:, None] * frequencies  # [T, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)
    size = scaling.get("attention_factor") or 0.1 * math.log(scaling["factor"]) + 1
    return size * torch.stack([angles.cos(), angles.sin()])
    ### END SOLUTION

# %% check="new_models.yarn" tags=["nbval-ignore-output"] id="check-new_models-yarn"
check("new_models.yarn", yarn_table)

# %% id="178e7d7a"
olmo = Config.read("configs/olmo-3-7b.json")
one = torch.tensor([1])  # after one token an angle is the frequency
(cos, sin), (plain_cos, plain_sin) = (
    t[:, 0, :64] for t in (yarn_table(one, 128, olmo.rope_theta, olmo.rope_scaling), rope_table(one, 128, olmo.rope_theta))
)
slower = torch.atan2(plain_sin, plain_cos) / torch.atan2(sin, cos)  # [64]
for pair in (0, 16, 24, 32, 40, 63):
    print(f"pair {pair:2}: slower by {slower[pair]:.2f}")
kept_pairs = (slower < 1.0005).sum()
measured("new_models.kept_pairs", kept_pairs)

# %% tags=["nbval-ignore-output"] id="b304e692"
from grader.instruments import plots

marks = {"x18": "turned 32 times", "x35": "turned once"}
plots.lines({"YaRN": (range(64), slower.tolist())}, plots.Axes("pair", "slower by", marks=marks))

# %% [markdown] id="13fb10b0"
# <details><summary>What the numbers say</summary>
#
# The first 19 of 64 stay: they turned 32 times and more within 8,192 tokens. From pair 35 on all are eight times slower, because they had turned less than once. Between them is the ramp.
#
# A teaching port scaled the positions in place of the frequencies, so that every pair became eight times slower. Its text fell apart after three sentences, and the small config of its test had no YaRN in it ([LLMs-from-scratch 939](https://github.com/rasbt/LLMs-from-scratch/issues/939)).
# </details>

# %% [markdown] id="ec504c2f"
# Now a first port, in the order in which one writes it: the parts have the checkpoint's names, norms stand where lesson 03 has them, and RoPE is stretched, because the config has `rope_scaling`. All weights load.

# %% id="16f5f9ad"
class PreNormLayer(nn.Module):
    """A layer with OLMo 3's parts, put together as in lesson 03."""

    def __init__(self, config: Config):
        super().__init__()
        self.self_attn, self.mlp = OlmoAttention(config), MLP(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = x + self.self_attn(self.post_attention_layernorm(x), table)
        return x + self.mlp(self.post_feedforward_layernorm(x))

# %% id="efd80272"
class FirstOlmo(Model):
    """A first port of OLMo 3."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.layers = nn.ModuleList(PreNormLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x, config = self.embed_tokens(ids), self.config
        table = yarn_table(torch.arange(ids.shape[1]), head_dim(config), config.rope_theta, config.rope_scaling)
        for layer in self.layers:
            x = layer(x, table)
        return self.norm(x)

# %% tags=["nbval-ignore-output"] id="3a34e9f1"
compare(FirstOlmo)

# %% [markdown] id="f85bef5d"
# The rows of `self_attn` and `mlp` in layer 0 are *inherited*, and the row of the layer is *own error*: the parts are right on the reference's inputs, and the layer puts them together wrongly. The report says even how: the norm after attention "equals the input of `layers.0.self_attn`, and should equal the output". OLMo 3 norms what a sublayer returns, and not what it reads. The residual stream enters attention as it is, and what is added to it has a size that the norm's weight decides. (OLMo 2 did so already, for the sake of stable training: arXiv 2501.00656, section 3.)
#
# Suppose that you mend this. Two faults are left in `FirstOlmo`, and no layer of the reference is to blame for either: they are in what the model hands its layers. One of them you see in the config, `sliding_window`. The other one you can't see there. OLMo 3's authors trained the long context with YaRN **in the full layers only**: a layer with a window of 4,096 tokens never sees farther than it did before. The config has one `rope_scaling` and does not say whose it is. Ai2's own code does, in a parameter called `full_attn_layers_only`, and transformers' config class moves it to the full layers when it reads the file.
#
# ### Exercise 4 · The model
# difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# <details><summary>Hint 1</summary>
#
# Two tables, one for each kind of layer. `layer_types(config)` has the kinds in order.
#
# <details><summary>Hint 2</summary>
#
# A sliding layer: `rope_table`, and the window. A full layer: `yarn_table`, and no window; where the config has no `rope_scaling`, `rope_table` too.
# </details>
# </details>

# %% exercise="new_models.olmo" id="new_models-olmo"
class OlmoLayer(nn.Module):
    """One layer: attention, then the MLP; what each returns is normed before it is added to x.

    Parts: self_attn (OlmoAttention), post_attention_layernorm, mlp (MLP), post_feedforward_layernorm; the norms are Norms
    with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim] -> [B, T, D]. transformers: Olmo3DecoderLayer.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.self_attn, self.mlp = OlmoAttention(config), MLP(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        ### BEGIN SOLUTION
        x = x + self.post_attention_layernorm(self.self_attn(x, table, window))
        return x + self.post_feedforward_layernorm(self.mlp(x))
        ### END SOLUTION


class OlmoModel(Model):
    """OLMo 3 without its head. Parts: embed_tokens, layers (of OlmoLayer), norm (a Norm).

    Layer i is of kind layer_types(config)[i]. A "sliding_attention" layer sees config.sliding_window tokens and has plain
    RoPE. A "full_attention" layer sees all and has RoPE stretched by YaRN with config.rope_scaling, where the config has
    that; both with the base config.rope_theta.
    ids: [B, T] int64 -> [B, T, D]. transformers: Olmo3Model.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        self.layers = nn.ModuleList(OlmoLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        config, x = self.config, self.embed_tokens(ids)  # [B, T, D]
        positions = torch.arange(ids.shape[1], device=ids.device)  # [T]
        plain = stretched = rope_table(positions, head_dim(config), config.rope_theta)
        if config.get("rope_scaling"):
            stretched = yarn_table(positions, head_dim(config), config.rope_theta, config.rope_scaling)
        for layer, kind in zip(self.layers, layer_types(config), strict=True):
            slides = kind == "sliding_attention"
            x = layer(x, plain if slides else stretched, config.sliding_window if slides else None)
        return self.norm(x)
        ### END SOLUTION

# %% check="new_models.olmo" tags=["nbval-ignore-output"] id="check-new_models-olmo"
check("new_models.olmo", OlmoModel)

# %% tags=["nbval-ignore-output"] id="56e47672"
compare(OlmoModel)

# %% [markdown] id="ff973124"
# Green. Now the story. transformers itself lost the difference for a while: a [refactor](https://github.com/huggingface/transformers/issues/45945) gave all layers the same RoPE. vLLM had it right, was compared with that reference, and a [pull request](https://github.com/vllm-project/vllm/pull/43419) proposed YaRN in all layers, because the two then agreed. MMLU fell from 64.2 to 60.5%. To agree with a reference is worth as much as the reference is right, in a layer comparison too.
#
# This holds for this course too. transformers 5.24, against which your program was compared, hands a `rope_theta` at the top of OLMo 3's config to the full layers only. Published OLMo 3 has 500,000, which is also the default that the sliding layers then get, so nobody sees it. The course's reference is therefore built with a base for each kind of layer, and its test computes the angles by hand.

# %% [markdown] id="3279c3d5"
# ## gpt-oss: a place to look at when there is nothing to see
#
# gpt-oss (OpenAI, August 2025) has 20 or 117 billion parameters, in experts mostly.

# %% tags=["nbval-ignore-output"] id="2d319ad8"
diff("qwen3-30b-a3b", "gpt-oss-20b")

# %% [markdown] id="a29c21dc"
# The router is lesson 07's in another order: pick four experts by their logits, then take the softmax over those four. Lesson 07 took the softmax over all, picked, and divided by the sum. That is the same. YaRN is the one that you have, on all layers, with `truncate` false. Two things are new: sinks, and what an expert computes.
#
# A softmax gives weights that sum to 1: a head must look somewhere. When nothing in the text matters to it, a head of a trained model looks at the first tokens, whatever they are (Xiao et al., 2023). With a window these tokens are gone after 128 tokens. So every head of gpt-oss has a *sink*: one learned number that takes part in the softmax like the score of one more token, and whose weight is then dropped. A head that has nothing to say gives its weight to the sink and returns nearly 0.
#
# $$w_j = \frac{e^{s_j}}{e^{sink} + \sum_{i} e^{s_i}}$$
#
# ### Exercise 5 · Attention with sinks
# difficulty ●●○○○ · importance ●●●●● · 12 minutes
#
# <details><summary>Hint 1</summary>
#
# `attend` has its softmax inside, so you write the middle yourself this time. Put the sink behind the scores as one more column, for every head and query, take the softmax, and drop the column.
#
# <details><summary>Hint 2</summary>
#
# `self.sinks.view(1, -1, 1, 1).expand(B, -1, T, 1)` is that column. The mask is for the text's tokens, not for the sink.
# </details>
# </details>

# %% exercise="new_models.sink_attention" id="new_models-sink_attention"
class SinkAttention(nn.Module):
    """Grouped attention with RoPE and biases, in which a learned number per head takes part in the softmax.

    Parts: q_proj, k_proj, v_proj, o_proj, all with a bias; sinks, an nn.Parameter [num_attention_heads].
    The weights of a query are the softmax over the scores of what it sees and its head's sink; the sink's own weight is
    dropped, so the rest sum to less than 1. Scores are divided by the root of head_dim, the sink is not.
    x: [B, T, D], table: [2, T, head_dim]; window: how many tokens each sees, itself included, or None for all
    -> [B, T, D]. transformers: GptOssAttention.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, self.width = config.hidden_size, head_dim(config)
        queries, keys = config.num_attention_heads * self.width, config.num_key_value_heads * self.width
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(D, queries), nn.Linear(D, keys), nn.Linear(D, keys)
        self.o_proj = nn.Linear(queries, D)
        self.sinks = nn.Parameter(torch.zeros(config.num_attention_heads))
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        B, T, _ = x.shape
        ### BEGIN SOLUTION
        q, k, v = (heads(project(x), self.width) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rope(q, table), apply_rope(k, table)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))  # [B, H, T, width]
        scores = (q @ k.mT) * self.width**-0.5  # [B, H, T, T]
        scores = scores.masked_fill(~visible(T, window, x.device), float("-inf"))
        sinks = self.sinks.view(1, -1, 1, 1).expand(B, -1, T, 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]  # [B, H, T, T]
        mixed = weights @ v  # [B, H, T, width]
        return self.o_proj(mixed.transpose(1, 2).flatten(2))
        ### END SOLUTION

# %% check="new_models.sink_attention" tags=["nbval-ignore-output"] id="check-new_models-sink_attention"
check("new_models.sink_attention", SinkAttention)

# %% [markdown] id="9be70a90"
# A sink of 0 is not the same as no sink: its weight is that of a token with the score 0. A library that left sinks out ([vllm-metal 550](https://github.com/vllm-project/vllm-metal/issues/550): they were never bound) raises no error.
#
# ### Exercise 6 · Clamped experts
# difficulty ●●●○○ · importance ●●●●○ · 12 minutes
#
# An expert of gpt-oss is a gated MLP with four peculiarities:
#
# - the gate and the other half are **interleaved** in one matrix: column 0 is the gate's first, column 1 the other's first;
# - weights are stored [in, out], so an expert computes `x @ weight + bias`;
# - both halves are clamped at `limit`, 7: the gate from above, the other from both sides;
# - the gate is $g \cdot \sigma(1.702\, g)$, a fast GELU, and the other half gets a 1 added: $(up + 1) \cdot g\, \sigma(1.702\, g)$.
#
# The config names the limit alone, as `swiglu_limit`.
#
# <details><summary>Hint 1</summary>
#
# Go through the experts in a loop. `torch.where(chosen == e)` gives the rows that chose expert e, and in which of their k places.
#
# <details><summary>Hint 2</summary>
#
# `gate, up = both[..., ::2], both[..., 1::2]`, then `gate.clamp(max=limit)` and `up.clamp(-limit, limit)`. `output.index_add_(0, rows, ...)` adds what the expert gives to those rows.
# </details>
# </details>

# %% exercise="new_models.experts" id="new_models-experts"
class Experts(nn.Module):
    """All experts of a layer; each row goes through those that were chosen for it.

    Parts, all nn.Parameter: gate_up_proj [E, D, 2 F], gate_up_proj_bias [E, 2 F], down_proj [E, F, D],
    down_proj_bias [E, D], where E is config.num_local_experts and F is config.intermediate_size. Even columns of
    gate_up_proj are the gate's, odd ones the other half's.
    An expert: gate is clamped to at most limit, up to -limit .. limit; (up + 1) * gate * sigmoid(alpha * gate), then
    down_proj; limit is config.swiglu_limit (7 where it is missing), alpha config.swiglu_alpha (1.702).
    x: [N, D], chosen: [N, k] int64, weights: [N, k] -> [N, D], the weighted sum. transformers: GptOssExperts.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        E, D, hidden = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.limit, self.alpha = config.get("swiglu_limit", 7.0), config.get("swiglu_alpha", 1.702)
        self.gate_up_proj = nn.Parameter(torch.zeros(E, D, 2 * hidden))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(E, 2 * hidden))
        self.down_proj = nn.Parameter(torch.zeros(E, hidden, D))
        self.down_proj_bias = nn.Parameter(torch.zeros(E, D))
        ### END SOLUTION

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        output = torch.zeros_like(x)
        for e in chosen.unique().tolist():
            rows, place = torch.where(chosen == e)  # 2 x [n]
            both = x[rows] @ self.gate_up_proj[e] + self.gate_up_proj_bias[e]  # [n, 2 F]
            gate, up = both[..., ::2].clamp(max=self.limit), both[..., 1::2].clamp(-self.limit, self.limit)
            hidden = (up + 1) * gate * torch.sigmoid(self.alpha * gate)
            result = hidden @ self.down_proj[e] + self.down_proj_bias[e]  # [n, D]
            output = output.index_add(0, rows, result * weights[rows, place, None])
        return output
        ### END SOLUTION

# %% check="new_models.experts" tags=["nbval-ignore-output"] id="check-new_models-experts"
check("new_models.experts", Experts)

# %% [markdown] id="ac9a8d08"
# The rest is given: the router, the layer as in lesson 03, and the model with its two kinds of layers and one table.

# %% tags=["setup"] long="the router, and the layer's MLP around your experts" id="setup-5"
class TopKRouter(nn.Linear):
    """The k experts with the largest logits, and the softmax over these k alone: [N, D] -> weights, chosen, [N, k] each."""

    def __init__(self, config: Config):
        super().__init__(config.hidden_size, config.num_local_experts)
        self.k = config.num_experts_per_tok

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, chosen = super().forward(x).topk(self.k, dim=-1)
        return logits.softmax(dim=-1), chosen


class SparseMLP(nn.Module):
    """Router and experts: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: Config):
        super().__init__()
        self.router, self.experts = TopKRouter(config), Experts(config)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)  # [N, D]
        weights, chosen = self.router(rows)
        return self.experts(rows, chosen, weights).view_as(x)

# %% tags=["setup"] long="the layer and the model around it" id="setup-6"
class OssLayer(nn.Module):
    """Lesson 03's layer with sinks and experts."""

    def __init__(self, config: Config):
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SinkAttention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SparseMLP(config)

    def forward(self, x: Tensor, table: Tensor, window: int | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, window)
        return x + self.mlp(self.post_attention_layernorm(x))


class OssModel(Model):
    """gpt-oss without its head: YaRN on all layers, a window on the sliding ones."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.layers = nn.ModuleList(OssLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        config, x = self.config, self.embed_tokens(ids)
        positions, scaling = torch.arange(ids.shape[1], device=ids.device), config.get("rope_scaling")
        table = yarn_table(positions, head_dim(config), rope_theta(config), scaling or config.rope_parameters)
        for layer, kind in zip(self.layers, layer_types(config), strict=True):
            x = layer(x, table, config.sliding_window if kind == "sliding_attention" else None)
        return self.norm(x)


class OssLM(CausalLM):
    """Ids to logits: [B, T] -> [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.model = OssModel(config)
        if config.get("tie_word_embeddings"):
            self.lm_head.weight = self.model.embed_tokens.weight

# %% tags=["nbval-ignore-output"] id="d97e2223"
compare(OssModel, "gpt-oss")

# %% [markdown] id="e32ed99a"
# ## A place to stop for the day
#
# You have three models: SmolLM3, OLMo 3 and gpt-oss, each green against the reference. Still to come: trained weights for the third, with an experiment on what its sinks do; Gemma 4, which saves keys and values in three ways; what that costs; and two models for which you have nothing to write.
#
# ## Trained weights: austen-gptoss
#
# `austen-gptoss` was trained for this course on five of Austen's novels, in gpt-oss's form: four layers, two of them with a window of 24 tokens, eight experts of which a token gets two, YaRN, sinks, and a clamp at 1.5 that a model this small reaches (`training/austen-gptoss.toml`). Your program must write the reference's text, token for token.

# %% tags=["nbval-ignore-output"] id="ef1afd95"
austen = load_checkpoint("austen-gptoss")
writer = austen.build(OssLM)
check_generation(writer, austen, generate=generate)

# %% [markdown] id="13e69a55"
# ### What do sinks do?
#
# Now that the weights are trained, look inside. How much of its attention does a head give to the sink, on average over a page of *Persuasion*, which the model has not read?

# %% prediction="new_models.sink_share" id="prediction-new_models-sink_share"
predict(
    "new_models.sink_share", "share of attention that goes to the sinks, all heads and layers together", unit="%",
    guess=...
)

# %% id="132bfb6a"
from pathlib import Path

page = torch.tensor([austen.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids[:256]])


def sink_share(attention: SinkAttention, x: Tensor, table: Tensor, window: int | None) -> Tensor:
    """The average weight of each head's sink: 1 minus what the tokens' weights sum to. [H]"""
    width = table.shape[-1]
    q, k = (apply_rope(heads(p(x), width), table) for p in (attention.q_proj, attention.k_proj))
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT * width**-0.5
    total = scores.masked_fill(~visible(x.shape[1], window), float("-inf")).logsumexp(dim=-1)  # [B, H, T]
    return torch.sigmoid(attention.sinks.view(1, -1, 1) - total).mean(dim=(0, 2))

# %% id="2f63ae97"
from grader.instruments import patch

config, shares = austen.config, []
table = yarn_table(torch.arange(page.shape[1]), head_dim(config), rope_theta(config), config.rope_parameters)
with torch.no_grad():
    calls = patch.calls_in(writer, page)
    for i, (layer, kind) in enumerate(zip(writer.model.layers, layer_types(config), strict=True)):
        window = config.sliding_window if kind == "sliding_attention" else None
        shares.append(sink_share(layer.self_attn, calls[f"model.layers.{i}.input_layernorm"].output, table, window))
        print(f"layer {i}, {kind:>17}:", *(f"{100 * share:4.0f}%" for share in shares[-1]))
measured("new_models.sink_share", 100 * torch.stack(shares).mean())

# %% [markdown] id="f1abc866"
# <details><summary>What the numbers say</summary>
#
# 18%. In the two layers with a window each head gives its sink between 15 and 25%. In the two full layers heads differ: some give it 3%, one 41%. So the sink is used, by every head a little and by some a lot.
# </details>

# %% [markdown] id="43c850c9"
# Now play the ports. Each of the changes below loads all weights and raises no error, and three of the four were in public programs. Which of them would you see in the loss on fourteen pages of *Persuasion*? Say: which cost more than 0.05 nats a token?
#
# - the sinks are left out ([vllm-metal 550](https://github.com/vllm-project/vllm-metal/issues/550));
# - the window is one token too long ([mlx-lm 390](https://github.com/ml-explore/mlx-lm/pull/390));
# - YaRN is ignored ([TensorRT-Model-Connect 399](https://github.com/NVIDIA/TensorRT-Model-Connect/issues/399));
# - the 1 is not added to the second half: the experts are a plain SwiGLU with another sigmoid.

# %% prediction="new_models.faults" id="prediction-new_models-faults"
predict(
    "new_models.faults", "faults that cost more than 0.05 nats a token",
    some_of=["no sinks", "a window of 25", "no + 1", "no YaRN"],
    guess=...
)

# %% jupyter={"source_hidden": true} id="cd9814bb"
def no_sinks(model: nn.Module) -> None:
    for layer in model.model.layers:
        layer.self_attn.sinks.data.fill_(-1e4)


def no_plus_one(model: nn.Module) -> None:
    """Experts in which 1 is not added to up."""
    for layer in model.model.layers:
        layer.mlp.experts.forward = lambda x, chosen, weights, experts=layer.mlp.experts: plain_experts(experts, x, chosen, weights)


def plain_experts(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Exercise 6 for all experts at once, without the 1."""
    limit = config.swiglu_limit
    both = torch.einsum("nd,edf->nef", x, experts.gate_up_proj) + experts.gate_up_proj_bias
    gate, up = both[..., ::2].clamp(max=limit), both[..., 1::2].clamp(-limit, limit)
    every = torch.einsum("nef,efd->ned", up * gate * torch.sigmoid(config.swiglu_alpha * gate), experts.down_proj)
    every = every + experts.down_proj_bias
    return (every.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1])) * weights[..., None]).sum(dim=1)


WRONG = {
    "no sinks": ({}, no_sinks),
    "a window of 25": ({"sliding_window": config.sliding_window + 1}, None),
    "no + 1": ({}, no_plus_one),
    "no YaRN": ({"rope_parameters": {**config.rope_parameters, "factor": 1.0 + 1e-9}}, None),
}

# %% id="56715e90"
text = austen.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids
pages = torch.tensor(text[: len(text) // 256 * 256]).view(-1, 256)  # [pages, 256]


def with_fault(fields: dict, change=None) -> Tensor:
    """Log-probabilities on all pages, with fields of the config changed, and the model changed too."""
    model = OssLM(config.replace(**fields))
    model.load_state_dict(writer.state_dict())
    if change:
        change(model)
    with torch.no_grad():
        return torch.cat([model(page).log_softmax(dim=-1) for page in pages.split(4)])

# %% id="2bc13d3c"
right, costs = with_fault({}), {}
loss = partial(F.nll_loss, target=pages[:, 1:].flatten())
print(f"{len(pages)} pages, as it is: {loss(right[:, :-1].flatten(0, 1)):.3f} nats a token")
for name, wrong in WRONG.items():
    found = with_fault(*wrong)
    costs[name] = (loss(found[:, :-1].flatten(0, 1)) - loss(right[:, :-1].flatten(0, 1))).item()
    other = (found.argmax(dim=-1) != right.argmax(dim=-1)).float().mean()
    print(f"{name:>15}: {costs[name]:+.3f} nats a token, another token is the most likely at {other:.1%} of the places")
measured("new_models.faults", [name for name, cost in costs.items() if cost > 0.05])

# %% [markdown] id="64ad3412"
# <details><summary>What the numbers say</summary>
#
# The missing 1 costs 1.1 nats and the missing YaRN a quarter of a nat: both show at once. The other two hardly move the loss. Without its sinks the model loses 0.03 nats, although they had 18% of the attention, and with a window of 25 less than 0.01. The text would still sound like Austen. Yet at one place in nine, and in one of thirty, another token is the most likely one, so a text that has to match token for token differs from there on. A loss, or a look at the text, would have let both ports pass. The layer comparison finds them in layer 0.
#
# This is a model of 1.8 million parameters with a window of 24. How much gpt-oss itself loses without its sinks is not measured here.
# </details>

# %% [markdown] id="a86225c9"
# ## Gemma 4: three ways to have fewer keys and values
#
# Gemma 4 (Google, April 2026) goes on from Gemma 3, which lesson 04 took apart: two norms around each sublayer, five sliding layers to a full one, embeddings times $\sqrt{D}$.

# %% tags=["nbval-ignore-output"] id="79e5567b"
diff("gemma-3-27b", "gemma-4-31b")

# %% [markdown] id="9e2a7d3f"
# ![Attention in the ten full layers of Gemma 4 31B: 32 query heads of 512, and 4 for keys and values. There is no v_proj: the value is what k_proj gives, through a norm of its own. RoPE rotates 128 of 512 numbers of queries and keys.](figures/gemma-4-31b-attention-2.svg)
#
# Full layers have changed most. Their heads have 512 channels in place of 256, four heads of keys in place of sixteen, no `v_proj`, and a RoPE that leaves most channels alone. Every layer, full or not, norms its values, and multiplies scores by 1.
#
# ### Exercise 7 · Proportional RoPE
# difficulty ●●○○○ · importance ●●●○○ · 7 minutes
#
# A config says `partial_rotary_factor: 0.25` and a head has 512 channels. You know one model with such a field: in lesson 10, Qwen3.5 rotates the first quarter of a head's channels as if they were a whole small head. Gemma 4 has the same field and does something else. Its pairs are those of the whole head, channel i with channel i + 256, and each has the frequency that it has in the whole head. Only the first quarter of the *pairs* turns; the others have the frequency 0.
#
# <details><summary>Hint 1</summary>
#
# Which number of channels does the exponent divide by?
#
# <details><summary>Hint 2</summary>
#
# `rope_table` for the whole head has all the pairs. Which of its columns need an angle of 0, in both halves?
# </details>
# </details>

# %% exercise="new_models.proportional" id="new_models-proportional"
def proportional_table(positions: Tensor, head_dim: int, theta: float, share: float) -> Tensor:
    """Lesson 03's table in which only the first pairs turn: floor(share * head_dim / 2) of head_dim / 2.

    Pair i is made of channels i and i + head_dim / 2. A pair that turns has the frequency theta^(-2 i / head_dim), as in
    the whole head; the others have the frequency 0.
    positions: [T] int64 -> [2, T, head_dim] float32: cosines, sines. transformers: _compute_proportional_rope_parameters.
    """
    ### BEGIN SOLUTION
    pairs = torch.arange(head_dim // 2, device=positions.device)
    frequencies = theta ** (-2 * pairs.float() / head_dim) * (pairs < share * head_dim // 2)  # [head_dim / 2]
    angles = positions.float()[:, None] * frequencies  # [T, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])
    ### END SOLUTION

# %% check="new_models.proportional" tags=["nbval-ignore-output"] id="check-new_models-proportional"
check("new_models.proportional", proportional_table)

# %% [markdown] id="7adb91fc"
# A pair that turns slowly hardly moves within a text, so a head can use its channels for what a token says, whatever the position. Proportional RoPE stops those pairs altogether. A port had every frequency right and paired channel i with channel i + 64, inside the first 128 ([Megatron-Bridge 4195](https://github.com/NVIDIA-NeMo/Megatron-Bridge/issues/4195)): a test of the frequencies alone passed.
#
# ### Exercise 8 · Keys as values, and keys of another layer
# difficulty ●●●○○ · importance ●●●●● · 20 minutes
#
# Three ways to fewer keys and values, all in one class:
#
# 1. **fewer heads**: full layers of 31B have 4 key heads, sliding ones 16;
# 2. **k = v**: full layers of 31B have no `v_proj`. The output of `k_proj` is the value as well. But look at what happens to it: as a key it is normed by `k_norm`, with a weight, and rotated; as a value it is normed *without* a weight and not rotated;
# 3. **sharing**: the last layers of E2B and E4B (20 of 35 and 18 of 42) have neither `k_proj` nor `v_proj`. They attend to keys and values that an earlier layer has made.
#
# <details><summary>Hint 1</summary>
#
# V comes from the *raw* output of `k_proj`, before `k_norm` and before RoPE ([mlx-swift-lm 250](https://github.com/ml-explore/mlx-swift-lm/pull/250) mends a program that took the normed and rotated key).
#
# <details><summary>Hint 2</summary>
#
# A layer that reads another layer's keys and values still has queries of its own, with `q_norm` and RoPE. It has no `k_norm` and no `v_norm`.
# </details>
# </details>

# %% exercise="new_models.gemma_attention" id="new_models-gemma_attention"
def kv_sizes(config: Config, kind: str) -> tuple[int, int]:
    """The width of a head, and how many heads keys and values have, in a layer of this kind.

    A "full_attention" layer has heads of config.global_head_dim, others of config.head_dim. Where config.attention_k_eq_v
    is true and config.num_global_key_value_heads is given, a full layer has that many; else config.num_key_value_heads.
    """
    ### BEGIN SOLUTION
    if kind != "full_attention":
        return config.head_dim, config.num_key_value_heads
    fewer = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v") else None
    return config.global_head_dim, fewer or config.num_key_value_heads
    ### END SOLUTION


class GemmaAttention(nn.Module):
    """Gemma 4's attention in layer `layer`, which is of kind layer_types(config)[layer].

    Parts: q_proj, o_proj, q_norm (a Norm over a head, with config.rms_norm_eps), and in all layers but the last
    config.num_kv_shared_layers: k_proj, v_proj, k_norm (as q_norm), v_norm (a Norm without a weight, with the same eps).
    No biases. Where config.attention_k_eq_v is true, a full layer has no v_proj: the output of k_proj is the value, too.
    Values are normed and not rotated. Scores are multiplied by 1. A "sliding_attention" layer sees config.sliding_window
    tokens. kv: keys and values of an earlier layer, which the last num_kv_shared_layers layers read in place of their own.
    x: [B, T, D], table: [2, T, width], kv: 2 x [B, KV, T, width] or None -> [B, T, D], and the keys and values that it
    read. transformers: Gemma4TextAttention.
    """

    def __init__(self, config: Config, layer: int):
        super().__init__()
        kind = layer_types(config)[layer]
        self.window = config.sliding_window if kind == "sliding_attention" else None
        self.width, kv_heads = kv_sizes(config, kind)
        D, queries, keys = config.hidden_size, config.num_attention_heads * self.width, kv_heads * self.width
        ### BEGIN SOLUTION
        self.q_proj, self.o_proj = nn.Linear(D, queries, bias=False), nn.Linear(queries, D, bias=False)
        self.q_norm = Norm(self.width, config.rms_norm_eps)
        self.v_proj = None
        if layer < config.num_hidden_layers - config.get("num_kv_shared_layers", 0):
            self.k_proj = nn.Linear(D, keys, bias=False)
            if not (config.get("attention_k_eq_v") and kind == "full_attention"):
                self.v_proj = nn.Linear(D, keys, bias=False)
            self.k_norm = Norm(self.width, config.rms_norm_eps)
            self.v_norm = Norm(self.width, config.rms_norm_eps, weighted=False)
        ### END SOLUTION

    def forward(
        self, x: Tensor, table: Tensor, kv: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        ### BEGIN SOLUTION
        q = apply_rope(self.q_norm(heads(self.q_proj(x), self.width)), table)  # [B, H, T, width]
        if kv is None:
            k = heads(self.k_proj(x), self.width)  # [B, KV, T, width]
            v = k if self.v_proj is None else heads(self.v_proj(x), self.width)
            kv = apply_rope(self.k_norm(k), table), self.v_norm(v)
        return self.o_proj(attend(q, *kv, 1.0, self.window)), kv
        ### END SOLUTION

# %% check="new_models.gemma_attention" tags=["nbval-ignore-output"] id="check-new_models-gemma_attention"
check("new_models.gemma_attention", GemmaAttention)

# %% [markdown] id="91f688e1"
# A scale of 1 looks like an error, since the dot product of two vectors of 512 numbers is large. But `q_norm` and `k_norm` have weights, and training has made them as small as the scores need them.
#
# ### Exercise 9 · Whose keys?
# difficulty ●●○○○ · importance ●●●●○ · 7 minutes
#
# In E2B layers 15 to 34 have no keys of their own. A sliding layer can't use a full layer's keys: heads have another width and another RoPE. So each reads those of the last layer of its own kind that still has some. The config says how many layers share, and not from whom.
#
# <details><summary>Hint 1</summary>
#
# Walk through the layers that have keys, and remember for each kind the last one.
#
# <details><summary>Hint 2</summary>
#
# A dictionary from kind to layer: a later layer of the same kind overwrites the earlier one.
# </details>
# </details>

# %% exercise="new_models.kv_source" id="new_models-kv_source"
def kv_source(config: Config) -> list[int]:
    """For each layer the layer whose keys and values it reads: itself, but for the last config.num_kv_shared_layers.

    Each of those reads the last layer of its own kind, layer_types(config)[i], that comes before all of them. Where the
    field is missing, no layer shares.
    """
    ### BEGIN SOLUTION
    kinds = layer_types(config)
    owners = len(kinds) - config.get("num_kv_shared_layers", 0)
    last = {kind: i for i, kind in enumerate(kinds[:owners])}
    return [i if i < owners else last[kind] for i, kind in enumerate(kinds)]
    ### END SOLUTION

# %% check="new_models.kv_source" tags=["nbval-ignore-output"] id="check-new_models-kv_source"
check("new_models.kv_source", kv_source)

# %% id="501fedd8"
e2b = Config.read("configs/gemma-4-e2b.json")
print("E2B, layer -> whose keys:", {i: source for i, source in enumerate(kv_source(e2b)) if i != source})

# %% [markdown] id="9ff86c78"
# The rest is given: the layer of lesson 04 with the norm of this lesson, one more number for each layer (`layer_scalar`, a buffer of the checkpoint), and the model, which hands keys and values on.

# %% tags=["setup"] long="the layer and the model around it" id="setup-7"
class GemmaLayer(nn.Module):
    """Two norms around each sublayer, a GELU in the MLP, and everything times the layer's own number at the end."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.self_attn, self.mlp = GemmaAttention(config, layer), MLP(config)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            setattr(self, f"{name}_layernorm", Norm(config.hidden_size, config.rms_norm_eps))
        self.layer_scalar = nn.Buffer(torch.ones(1))

    def forward(
        self, x: Tensor, table: Tensor, kv: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, kv = self.self_attn(self.input_layernorm(x), table, kv)
        x = x + self.post_attention_layernorm(mixed)
        inner = self.pre_feedforward_layernorm(x)
        inner = F.gelu(self.mlp.gate_proj(inner), approximate="tanh") * self.mlp.up_proj(inner)
        x = x + self.post_feedforward_layernorm(self.mlp.down_proj(inner))
        return x * self.layer_scalar, kv


class GemmaModel(nn.Module):
    """Gemma 4 without its head, and without E2B's per-layer embeddings and 26B's experts."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(GemmaLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)

    def tables(self, positions: Tensor) -> dict[str, Tensor]:
        """The table of each kind of layer."""
        config, rope = self.config, self.config.rope_parameters["full_attention"]
        theta, share = rope["rope_theta"], rope["partial_rotary_factor"]
        sliding = rope_table(positions, config.head_dim, config.rope_parameters["sliding_attention"]["rope_theta"])
        full = proportional_table(positions, config.global_head_dim, theta, share)
        return {"sliding_attention": sliding, "full_attention": full}

    def forward(self, ids: Tensor) -> Tensor:
        config, tables = self.config, self.tables(torch.arange(ids.shape[1], device=ids.device))
        x, kept = self.embed_tokens(ids), {}
        for i, (kind, source) in enumerate(zip(layer_types(config), kv_source(config), strict=True)):
            x, kept[i] = self.layers[i](x, tables[kind], None if i == source else kept[source])
        return self.norm(x)

# %% tags=["nbval-ignore-output"] id="145c9054"
compare(GemmaModel, "gemma-4")

# %% [markdown] id="8a9085e3"
# Green, with k = v, proportional RoPE and two layers that share. No published Gemma 4 has all three together: 31B has k = v, E2B and E4B share. E2B and E4B also have a third residual branch, *per-layer embeddings*: in each layer a token's own vector of 256 numbers, from a second table, is gated into the stream. Those tables hold half of E2B's parameters, and this lesson leaves them out, as it does the logits' soft cap and the double width of the MLP in the layers of E2B that share.
#
# ## What it saves
#
# What does k = v save? The talk that this course follows counts it among the ways to a smaller cache. But K and V are different numbers, as exercise 8 showed, and both are cached. So it saves weights: the ten full layers of 31B have no `v_proj`. And what does sharing save? E2B has 28 sliding layers with one key head of 256 and 7 full ones with one of 512; the last 20 layers share. Before you count, guess.

# %% prediction="new_models.k_eq_v_saves" id="prediction-new_models-k_eq_v_saves"
predict(
    "new_models.k_eq_v_saves", "share of Gemma 4 31B's parameters that k = v saves", unit="%",
    guess=...
)

# %% prediction="new_models.e2b_cache" id="prediction-new_models-e2b_cache"
predict(
    "new_models.e2b_cache", "cache of Gemma 4 E2B for one token, of 35 layers", unit="KiB a token",
    guess=...
)

# %% [markdown] id="29375789"
# ### Exercise 10 · Your count
# difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# Write the function that answers both, and that is right for SmolLM3, OLMo 3 and gpt-oss, too. Nobody tells you the formula: you have written the programs. What is in memory after a text?
#
# <details><summary>Hint 1</summary>
#
# Go through the layers that keep something: which are they, by `kv_source`? How many tokens does each keep?
#
# <details><summary>Hint 2</summary>
#
# In a layer with k = v, are the key and the value that attention reads the same numbers? `kv_sizes` has Gemma's widths; other models have one `head_dim` and one number of heads for all layers.
# </details>
# </details>

# %% exercise="new_models.cache_bytes" id="new_models-cache_bytes"
def cache_bytes(config: Config, tokens: int, element_bytes: int = 2) -> int:
    """The bytes of all keys and values that are kept of one text of `tokens` tokens, as attention reads them.

    config: of SmolLM3, OLMo 3, gpt-oss or Gemma 4. A "sliding_attention" layer keeps config.sliding_window tokens at most;
    sliding_window may be null where no layer slides. A layer that reads another layer's keys and values keeps none. Heads
    as in kv_sizes for Gemma 4, else head_dim(config) and config.num_key_value_heads.
    """
    ### BEGIN SOLUTION
    kinds, numbers = layer_types(config), 0
    for layer in set(kv_source(config)):
        kind = kinds[layer]
        kept = min(tokens, config.sliding_window) if kind == "sliding_attention" else tokens
        width, kv_heads = head_dim(config), config.num_key_value_heads
        if config.get("global_head_dim"):
            width, kv_heads = kv_sizes(config, kind)
        numbers += 2 * kept * kv_heads * width
    return numbers * element_bytes
    ### END SOLUTION

# %% check="new_models.cache_bytes" tags=["nbval-ignore-output"] id="check-new_models-cache_bytes"
check("new_models.cache_bytes", cache_bytes)

# %% id="0cd61132"
names = ("smollm3-3b", "olmo-3-7b", "gpt-oss-20b", "gemma-4-31b", "gemma-4-e2b")
published = {name: Config.read(f"configs/{name}.json") for name in names}
for name, found in published.items():
    print(f"{name:>12}: {cache_bytes(found, 1) / 2**10:4.0f} KiB for one token, {cache_bytes(found, 131_072) / 2**30:5.2f} GiB for 131,072")

# %% id="8f82e7f9"
full = published["gemma-4-31b"].replace(num_hidden_layers=10, layer_types=["full_attention"] * 10)  # its ten full layers
apart = full.replace(attention_k_eq_v=False, num_key_value_heads=4)  # as many heads, and a v_proj of their own
print(f"31B: k = v saves {(cache_bytes(apart, 1) - cache_bytes(full, 1)) / 2**10:.0f} KiB a token of cache")

# %% id="64401570"
measured("new_models.e2b_cache", cache_bytes(e2b, 1) / 2**10)
print(f"E2B: {cache_bytes(e2b, 1) / 2**10:.0f} KiB; if every layer had its own: {cache_bytes(e2b.replace(num_kv_shared_layers=0), 1) / 2**10:.0f}")
weights = 10 * 5376 * 4 * 512
print(f"31B: k = v leaves out {weights:,} weights")
measured("new_models.k_eq_v_saves", 100 * weights / 30_697_345_280)

# %% [markdown] id="c668739e"
# <details><summary>What the numbers say</summary>
#
# k = v saves nothing in the cache: 0 KiB. The key is normed with a weight and rotated, the value is normed without a weight, so the two that attention reads are different numbers, and transformers stores both. What is saved is ten matrices `v_proj`, a third of a percent of the model. To save cache one would have to keep the raw output of `k_proj` and norm and rotate all earlier keys again at every step: half the memory of these layers, for work at every step. (The 880 KiB a token of 31B count every layer for one token; from 1,024 tokens on only the ten full layers grow, by 80 KiB a token.)
#
# Sharing does save cache: E2B keeps 18 KiB a token in place of 42, because 20 of 35 layers keep nothing. An estimate of what sharing saves that leaves out the window, as one [on the web](https://github.com/rasbt/LLMs-from-scratch/tree/main/ch04/10_kv-sharing) does, counts sliding layers as if they never stopped growing. Your function has the window: at 131,072 tokens E2B keeps 0.76 GiB.
# </details>

# %% [markdown] id="5d1c7a01"
# ### The count, beside a cache that runs
#
# Does a program keep what your function counts? Below the small Gemma 4 of the table above writes with a cache. It is handed new tokens alone. A layer with keys of its own makes those of the new tokens and puts them behind the earlier ones. A layer that shares reads what its source has just made longer, and keeps nothing. Both go through your `GemmaAttention`, which reads the keys and values that it is handed: `attend` lets the last T of S tokens look back. (Here a layer with keys of its own is called twice, the first time for its keys alone. A program in use makes them once.)

# %% tags=["setup"] id="setup-9"
def decode(model: GemmaModel, ids: Tensor, kept: dict, start: int) -> Tensor:
    """Hidden states of new tokens ids [B, T] from position `start` on. kept: by layer, 2 x [B, KV, S, width]."""
    config, x = model.config, model.embed_tokens(ids)
    tables, kinds = model.tables(start + torch.arange(ids.shape[1])), layer_types(config)
    for i, (kind, source) in enumerate(zip(kinds, kv_source(config), strict=True)):
        layer = model.layers[i]
        if i == source:
            new = layer.self_attn(layer.input_layernorm(x), tables[kind])[1]
            kept[i] = [torch.cat(pair, dim=2) for pair in zip(kept[i], new, strict=True)] if i in kept else new
        x, _ = layer(x, tables[kind], kept[source])
    for i in kept:
        if kinds[i] == "sliding_attention":
            kept[i] = [t[:, :, -config.sliding_window :].clone() for t in kept[i]]
    return model.norm(x)

# %% id="5d1c7a02"
recorded = read_trace("texts/gemma-4.safetensors")
tiny, held = Config(recorded.build["config"]), {}
gemma, said = GemmaModel(tiny), recorded.args[0][:, :5]
gemma.load_state_dict(dict(recorded.weights))
with torch.no_grad():
    new = said
    for _ in range(15):
        hidden = decode(gemma, new, held, said.shape[1] - new.shape[1])
        new = (hidden[:, -1:] @ gemma.embed_tokens.weight.T).argmax(dim=-1)
        said = torch.cat([said, new], dim=1)
    alike = torch.allclose(hidden[:, -1], gemma(said[:, :-1])[:, -1], atol=1e-4)
print("the last hidden state is that of one pass:", alike)
print(f"{len(held)} of {tiny.num_hidden_layers} layers keep something of {said.shape[1] - 1} tokens:")
print(f"{sum(t.nbytes for pair in held.values() for t in pair):,} bytes, and you count {cache_bytes(tiny, said.shape[1] - 1, 4):,}")

# %% [markdown] id="abefc998"
# ## What it costs
#
# Fewer keys and values, and what does the model lose? Five small models of bytes, four layers each, were trained on the same texts, each from five seeds, for 300 short steps (`training/shared_kv.py`). They differ in where keys and values come from: own ones with two heads; own ones with one head; the last two of four layers read the second's; one projection for both (k = v, as above); sharing and k = v together. With their own keys and values the models come to 2.295 nats a byte on a novel that none of them has read. By how much is k = v worse?

# %% prediction="new_models.shared_loss" id="prediction-new_models-shared_loss"
predict(
    "new_models.shared_loss", "loss of k = v above that of own keys and values", unit="nats a byte",
    guess=...
)

# %% id="de051ce8"
import json
from statistics import mean, stdev

runs = json.loads(Path("texts/shared-kv.json").read_text(encoding="utf-8"))["runs"]
losses = {name: [run["nats_per_byte"] for run in runs if run["variant"] == name] for name in {r["variant"]: 0 for r in runs}}
more = {name: [a - b for a, b in zip(found, losses["own"], strict=True)] for name, found in losses.items()}
kept = {run["variant"]: (run["kept"], run["parameters"]) for run in runs}
for name, found in losses.items():
    error = stdev(more[name]) / len(found) ** 0.5
    print(f"{name:>25}: {mean(found):.3f}, {mean(more[name]):+.3f} ± {error:.3f}; {kept[name][0]} numbers a byte cached, {kept[name][1]:,} weights")
    print(f"{'by seeds':>25}:", *(f"{each:+.3f}" for each in more[name]))
measured("new_models.shared_loss", mean(more["k = v"]))

# %% [markdown] id="cc9e3fa0"
# <details><summary>What the numbers say</summary>
#
# k = v costs 0.067 ± 0.011 nats a byte (the standard error over five seeds), and it is worse with each of them. So are the other three: none of the savings is free here. Which of the four is the cheapest these runs do not tell. Sharing looks better than one head, which has the same cache, and is so with four seeds of five; with k = v on top it is hardly different from k = v or from sharing alone.
#
# The models are tiny and have read 150 KB each, so what holds after 300 steps may not hold after a million. What the numbers can't show at all is what Gemma 4's makers weighed: they saved 20 of E2B's 35 caches and could spend the memory elsewhere. (E2B's layers that share have an MLP of twice the width.)
# </details>

# %% [markdown] id="13d8ce81"
# ## Two models for which there is nothing to write
#
# **Sarvam 30B and 105B** (Sarvam AI, March 2026). One family, two programs that you have. transformers has no modeling file for either: `sarvam_moe` is read as a GLM-4-MoE, `sarvam_mla` as a DeepSeek-V3.
#
# | | 30B | 105B |
# |---|---|---|
# | attention | lesson 03's, with QK-norm on each head: 64 heads, 4 for keys and values | lesson 05's, without `q_a_proj`: a latent of 512 + 64 |
# | experts | lesson 07's second router (sigmoid, bias for the choice), one group, 6 of 128 and a shared one, times 2.5 | the same router, 8 of 128 and a shared one |
# | cache for one token | 19 KiB | 36 KiB |
# | what is left to do | names: `attention.query_key_value` is q, k and v in one, `dense` is `o_proj`, `query_layernorm` is `q_norm`, `word_embeddings` is `embed_tokens` | names: `expert_bias` is `e_score_correction_bias`, as in 30B |
#
# The smaller cache is not MLA's: keys and values of 4 heads of 64 are 512 numbers a layer, in 19 layers, and the latent has 576, in 32 layers.
#
# **Intellect-3** (Prime Intellect, November 2025) is GLM-4.5-Air, trained further. Its `config.json` names GLM's class, and every size is GLM's. So the first thing to do with a new model is to look whether it is new. Still, its config has a trap. GLM-4.5-Air has 96 heads of 128 in a width of 4,096, and transformers' config class for it has no field `head_dim` of its own: a file without it gets 4096 // 96 = 42, without an error. How many parameters would the model have then? With 128 it has 106.9 billion.

# %% prediction="new_models.forgotten_head_dim" id="prediction-new_models-forgotten_head_dim"
predict(
    "new_models.forgotten_head_dim", "parameters of GLM-4.5-Air with heads of 42 in place of 128", unit="billion",
    guess=...
)

# %% tags=["setup"] id="setup-8"
def glm_parameters(config: Config) -> int:
    """All parameters of a GLM-4.5-Air: embedding, head, attention, the MLPs, routers, norms."""
    D, H, KV, width = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, head_dim(config)
    attention = 2 * D * H * width + 2 * D * KV * width + (H + 2 * KV) * width  # q and o, k and v, biases of q, k, v
    expert, E = 3 * D * config.moe_intermediate_size, config.n_routed_experts
    sparse = (E + config.n_shared_experts) * expert + E * D
    dense, n = config.first_k_dense_replace, config.num_hidden_layers
    mlps = dense * 3 * D * config.intermediate_size + (n - dense) * sparse
    return 2 * config.vocab_size * D + n * (attention + 2 * D) + mlps + D

# %% id="7d4205f7"
glm = Config.read("configs/glm-4.5-air.json")
without = glm_parameters(glm.replace(head_dim=None))
print(f"heads of 128: {glm_parameters(glm):,}; heads of 42: {without:,}")
measured("new_models.forgotten_head_dim", without / 1e9)

# %% [markdown] id="0fb3d105"
# <details><summary>What the numbers say</summary>
#
# 103.5 billion: 3% fewer, in a model of which 93% are experts. Nobody would notice by the size, and a model made from such a config can't load the weights. With random weights, as in many tests, it runs.
# </details>

# %% [markdown] id="8a3ab392"
# ## Which of them would have loaded?
#
# At the start you guessed for how many models lesson 03's program loads the weights without an error. For four of them you can look: the traces hold the reference's weights, and your OLMo 3 has the names and shapes of its own. Three numbers must be 0 for weights to load.

# %% id="1598cb8d"
def misfits(config: Config, weights: dict[str, Tensor]) -> tuple[int, int, int]:
    """How many weights lesson 03's program has no place for, how many it misses, and how many have another shape."""
    with torch.device("meta"):
        mine = Model(config).state_dict()
    return len(weights.keys() - mine.keys()), len(mine.keys() - weights.keys()), sum(
        mine[name].shape != weights[name].shape for name in mine.keys() & weights.keys()
    )

# %% id="5d416f97"
with torch.device("meta"):
    olmo = published["olmo-3-7b"], OlmoModel(published["olmo-3-7b"]).state_dict()
given = {name: read_trace(f"texts/{name}.safetensors") for name in ("smollm3", "gpt-oss", "gemma-4")}
checkpoints = {"olmo-3": olmo} | {name: (Config(trace.build["config"]), trace.weights) for name, trace in given.items()}
for name, checkpoint in checkpoints.items():
    no_place, missing, shapes = misfits(*checkpoint)
    print(f"{name:>8}: {no_place} without a place, {missing} missing, {shapes} of another shape")

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="381d043c"
# ## What changed, and why
#
# | model | line of your program | does the config say so? | why | a test that misses it |
# |---|---|---|---|---|
# | SmolLM3 | every fourth layer does not rotate | yes, in a field whose name says the opposite | a layer without positions finds a token wherever it stands | fewer than four layers; small weights |
# | OLMo 3 | x + norm(f(x)) | no; the names of norms do | a sublayer can't add more than its norm allows | none of these: it shows at once |
# | OLMo 3 | QK-norm over all heads | no; the shape of `q_norm.weight` does | one factor for a token, not one for each head | a model with one head |
# | OLMo 3 | YaRN in full layers only | no | a windowed layer never sees farther | fewer than four layers; no YaRN in the small config |
# | gpt-oss | a sink in the softmax | no; the name `sinks` does | a head may look at nothing | sinks of 0 that are ignored with a loose tolerance |
# | gpt-oss | interleaved, clamped, + 1, 1.702 | `swiglu_limit` alone | bounded activations, a fast GELU | activations below the limit |
# | Gemma 4 | values from k_proj, normed | `attention_k_eq_v`, not how | fewer weights | `head_dim` equal to `global_head_dim`, norms of 1 |
# | Gemma 4 | a quarter of the pairs turns | `proportional`, not which pairs | slow pairs are used for content | short texts |
# | Gemma 4 E | keys and values of an earlier layer | how many, not whose | less cache | `num_kv_shared_layers` 0 |
# | Sarvam, Intellect-3 | nothing but names | yes | they are trained, not designed, anew | |
#
# ## The questions again
#
# <details><summary>A model came out this morning. How far is your program from it?</summary>
#
# In these six models between nothing and a few dozen lines. `grader diff` finds most of what the config names. The rest comes from the checkpoint's names and shapes, and then from the layer comparison.
# </details>
#
# <details><summary>For how many of the six would lesson 03's program load the weights without an error and then compute something else?</summary>
#
# Of the four that you ported, one: SmolLM3, as the cell above shows. What it changes has no weights, and the red table at the start showed where its numbers part. (What a trained SmolLM3 would write then was not measured here.) The other three have other names or shapes, which strict loading reports; so have Sarvam's checkpoints and Intellect-3's, whose experts lesson 03's program has no place for, but those were not loaded here. But the first port of OLMo 3 that had all names right also loaded everything, with three faults in it.
# </details>
#
# <details><summary>Which of the six configs tells you everything?</summary>
#
# Intellect-3's and Sarvam's, if you know the program that they name, and SmolLM3's, if you read its field the right way round. Of the other three none does.
# </details>
#
# <details><summary>Two implementations agree. What have you learned?</summary>
#
# That they make the same thing of the same inputs. A patch for OLMo 3 was proposed to a program that was right, because it then agreed with a reference that was wrong.
# </details>
#
# <details><summary>What does k = v save?</summary>
#
# Weights: a third of a percent of Gemma 4 31B. No cache, as engines run it.
# </details>
#
# ## Where to read on
#
# - Yang et al., *RoPE to NoPE and Back Again: A New Hybrid Attention Strategy* (2025, arXiv 2501.18795). Hugging Face, *SmolLM3* (2025, huggingface.co/blog/smollm3).
# - Ai2, *OLMo 3* (2025, arXiv 2512.13961); Peng et al., *YaRN* (2023, arXiv 2309.00071), section 3.
# - OpenAI, *gpt-oss-120b & gpt-oss-20b Model Card* (2025, arXiv 2508.10925), section 2. Xiao et al., *Efficient Streaming Language Models with Attention Sinks* (2023, arXiv 2309.17453): why a trained model looks at the first token.
# - Google, *Gemma 4 model card* (2026, ai.google.dev/gemma/docs/core/model_card_4).
# - In transformers: `models/smollm3`, `models/olmo3`, `models/gpt_oss`, `models/gemma4`; `modeling_rope_utils.py` for YaRN and proportional RoPE; `conversion_mapping.py` for Sarvam's names.
#
# ## If you want more
#
# Keep the raw output of `k_proj` in a cache, and norm and rotate when attention reads it. You are right when the text is the same and a full layer of Gemma 4 keeps half the numbers. From which length on does it cost more time than it saves memory traffic?
#
# Take a model that came out after this lesson was written. `grader trace config.json` makes the reference, `grader diff` the list. How many minutes until the table is green?
