# %% [markdown] id="a3857d99"
# # 00 · Orientation: how to know that you are right
#
# **You ported a model. It loads its weights, nothing raises, and it writes nonsense. Where do you look first?**
#
# This course rebuilds language models from scratch, and this lesson is about knowing whether a rebuilt part is right. After it you can
#
# - say what Python, PyTorch and a device each do when a model runs, and see it happen;
# - say what a checkpoint is, and what two programs must agree on to share one;
# - read a red check and a layer comparison, and tell the culprit from its victims;
# - predict a model's size from its `config.json`, for four families.
#
# 45 to 60 minutes · difficulty ●○○○○ · you need some Python and to have seen an `nn.Module` before
#
# The picture of this lesson: twelve blocks in a row, and in block 5 one weight is transposed. (Run the cell to see it. Its code is folded; it is ordinary PyTorch.)

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="1abda734"
import copy

import matplotlib.pyplot as plt
import torch
from torch import nn

torch.manual_seed(0)
blocks = [nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU()) for _ in range(12)]
ported = copy.deepcopy(blocks)
with torch.no_grad():
    ported[5][1].weight.copy_(blocks[5][1].weight.T)

    right = wrong = torch.randn(16, 32)
    inherited, own = [], []
    for block, port in zip(blocks, ported, strict=True):
        own.append((port(right) - block(right)).abs().max().item())  # given what the right model has here
        right, wrong = right + block(right), wrong + port(wrong)
        inherited.append((wrong - right).abs().max().item())  # given what the ported model has here

figure, axes = plt.subplots(1, 2, figsize=(10, 2.6), facecolor="white", sharey=True, layout="constrained")
for axis, heights, colour, title in (
    (axes[0], inherited, "#8a8a8a", "The whole model, run as it is"),
    (axes[1], own, "#c62828", "Each block alone, given the right input"),
):
    axis.bar(range(12), heights, color=colour)
    axis.set(title=title, xlabel="block", xticks=range(12))
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("largest difference")
plt.show()

# %% [markdown] id="2752aed5"
# On the left is what you see when you compare the two models' activations block by block: no difference at all, and from block 5 on nothing is right any more.
# Blocks 6 to 11 are innocent. They were given wrong input. On the right every block is given the *right* model's input, and only the guilty one is left.
#
# So look first at the **first** place where the numbers differ, and not at the text. Everything in this lesson serves that one step.

# %% tags=["setup"] id="setup"
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grader import Config, check, compare_layers, load_checkpoint

# %% [markdown] id="4caaf839"
# ## 1 · Twelve steps, and a tool for each
#
# The course follows the working method of Sebastian Raschka's talk *From Scratch to Scale* (PyCon DE & PyData 2026): twelve steps from "a new model came out" to "my version writes the same text".
#
# | | step | in this course |
# |---|---|---|
# | 1 | follow the news | the syllabus: each lesson is one model that changed something |
# | 2 | read the technical report | *Where to read on*, at each lesson's end: paper and section |
# | 3 | look at the model's page on the hub | `grader weights list`: name, licence, size, gated or open |
# | 4 | read `config.json` | `Config.read(...)`, and exercise 2 below |
# | 5 | compare with architectures you know | *What changed and why*: one table in every lesson |
# | 6 | write it, starting from a similar one | the exercises; what an earlier lesson built is given |
# | 7 | does it write coherent text? | `check_generation(...)` shows the text as it is written |
# | 8 | compare layer by layer | `compare_layers(...)`, section 6 below |
# | 9 | read the reference's code | docstrings name the file and class in transformers |
# | 10 | change what is different | `check(...)` after each part, section 5 below |
# | 11 | compare again until everything matches | `compare_layers(...)`: every row `[OK]` |
# | 12 | does it write the reference's text? | `check_generation(...)`: token for token |
#
# Papers have become short on detail. Code that runs can't be: it has to decide. That is why step 9 is there, and why every number you are checked against was recorded from running code, Hugging Face transformers.

# %% [markdown] id="49b9673f"
# ## 2 · What runs when a line runs
#
# Start with one line. `x * 2` is Python, but Python does no arithmetic here.
#
# - **Python describes** what is wanted: this tensor, times 2.
# - **PyTorch dispatches**: it looks at the operator, the dtype and the device, and picks a kernel.
# - **ATen's kernels compute**: ATen is PyTorch's library of tensor operators, written in C++ (and CUDA, Metal, ... for other devices).
#
# The profiler writes down every operator that PyTorch dispatches. `aten::mul` is an operator; which kernel serves it depends on the device.

# %% id="06a8f5c4"
from grader.instruments import work

x = torch.tensor([1, 2, 3])
print(work.operators(lambda: x * 2))

# %% [markdown] id="a5151d92"
# Now the operation that language models spend most of their time in: a linear layer, $y = xW^\top + b$. **Guess first:** how many operators will one call of `F.linear` show?

# %% tags=["nbval-ignore-output"] id="3b9e628f"
import torch.nn.functional as F

x, weight, bias = torch.randn(5, 8), torch.randn(16, 8), torch.randn(16)
dispatched = work.operators(lambda: F.linear(x, weight, bias))
print(dispatched)
print(f"\n{len(dispatched.splitlines())} lines")

# %% [markdown] id="8ac2e973"
# One call, and about ten operators (how many exactly depends on PyTorch's version). `aten::t`, `transpose`, `as_strided`, `expand` move no numbers: they describe the same memory with other shape and strides. `resolve_conj` matters to complex numbers only. The work is in `aten::addmm`, which **add**s to a **m**atrix **m**ultiplication: `copy_` puts the bias into every row of the result, and the product is added to it.
#
# How much does it matter that Python only describes? Multiply two 64 × 64 matrices, once with three Python loops, once with one ATen call. **Guess the ratio** before you run it.

# %% tags=["nbval-ignore-output"] id="3f90c3ac"
n = 64
a, b = torch.randn(n, n), torch.randn(n, n)
rows, columns = a.tolist(), b.T.tolist()


def in_python() -> list[list[float]]:
    return [[sum(p * q for p, q in zip(row, column, strict=True)) for column in columns] for row in rows]


torch.testing.assert_close(torch.tensor(in_python()), a @ b, atol=1e-4, rtol=1e-4)

# %% tags=["nbval-ignore-output"] id="360a8c59"
from grader.instruments import clock

python_ms, aten_ms = clock.milliseconds(in_python), clock.milliseconds(lambda: a @ b, repeats=100)
print(f"three loops in Python   {python_ms:8.3f} ms")
print(f"one aten::mm            {aten_ms:8.3f} ms    {python_ms / aten_ms:,.0f} times faster")

# %% [markdown] id="b51a35bb"
# ### The same line on another device
#
# Because Python only describes, the line need not change when the device does. The next cell uses an accelerator if you have one (`cuda` for NVIDIA and AMD, `mps` for Apple), and in any case a second device that everyone has: **`meta`**. A tensor on `meta` has a shape and a dtype, and no numbers. Its kernels work out shapes and compute nothing.

# %% tags=["nbval-ignore-output"] id="090e1acf"
accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
for name in filter(None, ["cpu", accelerator, "meta"]):
    device = torch.device(name)
    inputs = [tensor.to(device) for tensor in (x, weight, bias)]
    print(f"--- {device}: gives {list(F.linear(*inputs).shape)}")
    print(work.operators(lambda inputs=inputs: F.linear(*inputs), depth=2))

# %% [markdown] id="d38397ac"
# The operators are the same; below them each device goes its own way. That is also why two devices, or two versions of a library, may differ in the last digits: the same sum, added in another order. Section 5 comes back to it.
#
# `meta` is useful: it lets us build a model that would never fit in memory, to count it. This embedding table would take 2.1 GB:

# %% id="cb5b46ba"
table = nn.Embedding(128_256, 4096, device="meta")
size = table.weight.nbytes / 1e9
print(f"{table.weight.numel():,} numbers, {size:.1f} GB in {table.weight.dtype}, stored: none")

# %% [markdown] id="3da7f817"
# ## 3 · Where models live
#
# Few people train a language model; many run one. In between sits a file format. Training code writes **weights** to a **hub**, and **inference engines** read them: some serve many users at once on GPUs, some run on the laptop in front of you.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="b6e0c03b"
from matplotlib.patches import FancyBboxPatch


figure, axis = plt.subplots(figsize=(10, 4.1), facecolor="white", layout="constrained")
axis.set(xlim=(0, 10), ylim=(0, 4.1))
axis.axis("off")
centred = {"ha": "center", "va": "center"}


def box(left: float, bottom: float, width: float, height: float, colour: str, edge: str = "#555555") -> None:
    style = "round,pad=0.02,rounding_size=0.12"
    axis.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=colour, ec=edge))


for left, bottom, width, height, colour, title, lines in (
    (0.1, 2.0, 2.3, 1.7, "#e3eefa", "Training", "Python\nPyTorch, JAX"),
    (3.7, 1.6, 2.6, 2.1, "#fff4d6", "Weights on a hub", "config.json\nmodel.safetensors\ntokenizer.json"),
    (7.6, 2.75, 2.3, 1.15, "#e4f3e5", "Server", "SGLang, vLLM"),
    (7.6, 1.4, 2.3, 1.15, "#e4f3e5", "Local", "llama.cpp, MLX, Ollama"),
):
    box(left, bottom, width, height, colour)
    axis.text(left + width / 2, bottom + height - 0.28, title, weight="bold", fontsize=11, **centred)
    axis.text(left + width / 2, bottom + (height - 0.35) / 2, lines, fontsize=10, linespacing=1.5, **centred)
arrow = {"arrowstyle": "-|>", "lw": 1.6, "color": "#555"}
for start, end in (((2.45, 2.85), (3.65, 2.85)), ((6.35, 2.85), (7.55, 3.3)), ((6.35, 2.5), (7.55, 2.0))):
    axis.annotate("", xy=end, xytext=start, arrowprops=arrow)
axis.text(3.05, 3.02, "writes", ha="center", fontsize=9)
axis.text(6.95, 3.3, "read", ha="center", fontsize=9)
this_course = "This course: the forward pass. Names, shapes and arithmetic that both sides must agree on"
box(0.1, 0.2, 9.8, 0.75, "#fbe3e3", edge="#c62828")
axis.text(5, 0.575, this_course, fontsize=11, **centred)
for centre, bottom in ((1.25, 1.95), (5.0, 1.55), (8.75, 1.35)):
    axis.plot([centre, centre], [0.98, bottom], ls=":", color="#c62828")
plt.show()

# %% [markdown] id="0a74eef2"
# The weights are only numbers with names. What to *do* with them, the forward pass, stands in none of these files: training code and every engine each have a version of their own, and they must agree to the last detail. This course builds that part, and builds it so that the hub's weights load by name.

# %% [markdown] id="b660dff2"
# ## 4 · What a checkpoint is
#
# A checkpoint is a folder with three things in it. The course ships one: `austen-gpt2`, a small GPT-2 trained on five of Jane Austen's novels, in the hub's own layout. First the **config**: the sizes and choices from which the model's shape follows.

# %% id="ce551b41"
checkpoint = load_checkpoint("austen-gpt2")
for field in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
    print(f"{field:12} {checkpoint.config[field]}")

# %% [markdown] id="b7279aaa"
# Then the **tokenizer**: it cuts text into entries of a fixed vocabulary. The model sees the numbers. (`Ġ` is how a byte-level tokenizer writes a space.)

# %% id="4a8070c1"
encoded = checkpoint.tokenizer.encode("It is a truth universally acknowledged")
print(encoded.tokens)
print(encoded.ids)
print(repr(checkpoint.tokenizer.decode(encoded.ids)))

# %% [markdown] id="85221a95"
# And the **weights**: tensors with names. Here are those outside the blocks, and those of block 0. The other blocks repeat block 0's names and shapes.

# %% id="9cbd723f"
tensors = checkpoint.state_dict()
for name, tensor in tensors.items():
    if not name.startswith("h.") or name.startswith("h.0."):
        print(f"{name:24} {list(tensor.shape)!s:14} {tensor.numel():>9,}")
print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()):,} parameters in all")

# %% [markdown] id="86d3ab63"
# Two things to notice.
#
# - **The names are a contract.** `h.0.attn.c_attn.weight` is the path to one parameter in a module tree. If your modules have these names, `load_state_dict(strict=True)` fits the weights without a table of renamings. So in this course your names are the checkpoint's names.
# - **There is no output head.** The vector that looks a token up at the input also scores it at the output: the head is *tied* to `wte`. Remember this when you count.

# %% [markdown] id="6e8e372a"
# ## 5 · The first check, red on purpose
#
# `check(exercise, your_class)` builds your class, loads recorded weights, runs it on several inputs (*cases*) and compares the results with what the reference gave. Here is a linear layer with a mistake that raises no error: the weight is stored as `[out, in]`, and someone needed `[in, out]`.
#
# `suppress` lets the notebook go on although the check fails; in a check cell of your own the failure stops "Run All Cells", which is what you want there.

# %% id="29e7bfcf"
class BrokenLinear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        in_first = self.weight.view(self.weight.shape[1], self.weight.shape[0])
        return x @ in_first + self.bias

# %% id="b4a0f1cb"
from contextlib import suppress

from grader import CheckFailed

with suppress(CheckFailed):
    check("orientation.linear", BrokenLinear)

# %% [markdown] id="08d6a666"
# Read the report from top to bottom.
#
# 1. **How many cases are right.** Every case is run. Here none is: the mistake doesn't depend on the sizes.
# 2. **What differs in each wrong case**, how many values, by how much, and where first. (The number after "instead of" is the right one, so you see how large right values are.) Nearly all values wrong, by 1 to 2 on average, is the sign of a wrong formula. A few wrong values would point at a mask or an edge, tiny differences at an epsilon or a cast.
# 3. **"This is what comes out when ..."** For each exercise we made the mistakes people make and recorded what comes out. If your numbers equal such a mistake's, it is named.
# 4. **A hint** where to look. It never gives the answer away.
#
# Note what the report could *not* rely on: the shape was right, and nothing raised. Only the numbers tell.

# %% [markdown] id="fef6faf7"
# ### Exercise 1 · Linear
# difficulty ●○○○○ · importance ●●●●● · 10 minutes
#
# Now the right one. The parameters are called `weight`, of shape `[out_features, in_features]`, and `bias`, of shape `[out_features]`, as in `torch.nn.Linear`. `nn.Linear` and `F.linear` are right too, but you learn most if you leave them aside here: the point is the orientation of the weight.
#
# $$ y_{\ldots j} = \sum_i x_{\ldots i}\, W_{ji} + b_j $$
#
# `__init__` is written already; `forward` is yours. The check loads weights of its own, so zeros will do to start with. What is checked is the names, the shapes, and what `forward` gives.
#
# <details><summary>Hint 1</summary>
#
# `self.weight` and `self.bias` are tensors like any other. Write down the shapes of `x`, `weight` and the result before you multiply.
#
# <details><summary>Hint 2</summary>
#
# For matrices, `x @ M` sums over the last axis of `x` and the first axis of `M`. Which axis of `weight` has the size of `x`'s last axis?
#
# <details><summary>Hint 3</summary>
#
# `.T` swaps the two axes of a matrix: entry `[i, j]` of `M.T` is entry `[j, i]` of `M`. `.view` and `.reshape` don't do that; they refill a new shape in the old order.
#
# </details></details></details>

# %% exercise="orientation.linear" id="orientation-linear"
class Linear(nn.Module):
    """A linear layer with a bias, as torch.nn.Linear.

    x: [..., in_features] -> [..., out_features], in x's dtype.
    weight: [out_features, in_features]; bias: [out_features].
    """

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return x @ self.weight.T + self.bias  # [..., in] @ [in, out] + [out] -> [..., out]
        ### END SOLUTION


# %% check="orientation.linear" tags=["nbval-ignore-output"] id="check-orientation-linear"
check("orientation.linear", Linear)

# %% [markdown] id="e3ab7d89"
# ### What a check compares, and how closely
#
# **Cases** are chosen to expose mistakes. For `Linear`: as many outputs as inputs (a transposed square weight raises nothing), more, fewer, a single vector, and bfloat16. The exercise's points are shared out among its cases.
#
# **Tolerance.** Two right programs may differ in the last digits, because floating-point addition depends on its order. Here are two right linear layers and the same sum in float64, which is closer to the truth. **Guess first:** which of the two float32 versions is nearer to it?

# %% tags=["nbval-ignore-output"] id="27501e15"
torch.manual_seed(0)
layer = Linear(1024, 1024)
layer.load_state_dict(nn.Linear(1024, 1024).state_dict())  # fits, because the names and shapes are the same
with torch.no_grad():
    x = torch.randn(64, 1024)
    yours = layer(x)  # a matrix product, then a sum
    fused = F.linear(x, layer.weight, layer.bias)  # both in one kernel
    truth = F.linear(x.double(), layer.weight.double(), layer.bias.double())

# %% tags=["nbval-ignore-output"] id="71b3c5dd"
differences = {"yours - fused": yours - fused, "yours - truth": yours - truth, "fused - truth": fused - truth}
for title, difference in differences.items():
    typical = difference.square().mean().sqrt()  # the root mean square
    print(f"{title:15} largest {difference.abs().max():.1e}   typical {typical:.1e}")
print(f"typical size of y itself: {truth.square().mean().sqrt():.2f}")

# %% [markdown] id="8067b632"
# Neither is nearer in any way that matters. So a check admits any order of operations. In float32 a value may be off by 5 · 10⁻⁵ · (|value| + typical size), with the typical size of the tensor that it stands in; in bfloat16 by 6 · 10⁻² · (|value| + typical size). A wrong formula is off by far more: in the report above, by 1 to 2 on average.
#
# When your result equals the reference to the last bit, the report says **bit-exact**. That is a badge, and never required.
#
# **On the command line**, the same checks without opening a browser, a line for each exercise:
# ```
# grader check course/00-orientation/orientation.ipynb
# ```

# %% [markdown] id="cd038387"
# ## 6 · The layer debugger
#
# One module is easy to check. A model is modules inside modules, and each is fed by the last: the picture at the top. `compare_layers` makes that comparison for any model.
#
# A small network with two layers is enough to see how. First the reference, built of PyTorch's own `nn.Linear`, and a *trace* of it: what every module was given and gave back in one pass.

# %% id="0953a868"
class TwoLayers(nn.Module):
    """Two linear layers in a residual branch. fc_1, fc_2: the classes that make them."""

    def __init__(self, fc_1, fc_2):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.fc_1 = fc_1(8, 32)
        self.act = nn.GELU()
        self.fc_2 = fc_2(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc_2(self.act(self.fc_1(self.norm(x))))

# %% id="4ebf667f"
from grader import trace_of

torch.manual_seed(0)
trace = trace_of(TwoLayers(nn.Linear, nn.Linear), torch.randn(5, 8))
for call in trace.calls:
    print(f"{call.path:6} {call.type:10} {list(call.input.shape)} -> {list(call.output.shape)}")

# %% [markdown] id="3ba07614"
# Now the port, with your `Linear` for `fc_2` and the broken one for `fc_1`. **Predict:** the modules run in the order norm, fc_1, act, fc_2. Which rows will say `[DIFF]`, and which one will be named as the culprit?

# %% id="620a6279"
with suppress(CheckFailed):
    compare_layers(TwoLayers(BrokenLinear, Linear), trace)

# %% [markdown] id="8d13b0b3"
# `act` and `fc_2` differ too, but only because they were given wrong input: fed the reference's input, they are right. `norm` comes before the bug and is right. So the report says where to start, and in a model of several hundred modules it says it just as plainly.
#
# The method, for any model: **find the first row that differs, fix only that, compare again.** A second bug further down shows only when the first is gone, or when every module is fed the right input, as here.

# %% tags=["nbval-ignore-output"] id="0299bb2a"
compare_layers(TwoLayers(Linear, Linear), trace)

# %% [markdown] id="e56d7018"
# ## 7 · How many parameters does a config make?
#
# Step 4: read the config. It decides every shape, so the number of parameters can be worked out from it alone, before a single byte is downloaded.
#
# Configs of seven published models lie in `configs/`, cut down to the fields that describe the architecture. Here is GPT-2, the smallest of its family:

# %% id="31675901"
gpt2 = Config.read("configs/gpt2.json")
for field, value in gpt2.items():
    print(f"{field:20} {value}")

# %% [markdown] id="d2513b79"
# **Predict GPT-2's parameter count** from this and the list of tensors in section 4. Paper and a calculator will do; to within 10 % is a good first try. Then put your number here.

# %% id="cfd0b1ec"
prediction = 50_000_000  # replace this number with yours

# %% [markdown] id="9f0ffe73"
# ### Exercise 2 · parameter_count
# difficulty ●●○○○ · importance ●●●●○ · 20 minutes
#
# Write a function that gives the exact count, for four families: `model_type` is `gpt2`, `llama`, `qwen3` or `gemma3_text`. GPT-2's tensors you have seen in section 4: every projection has a bias, and so has every norm. The three newer families have **no biases**; their tensors are these, and each lesson to come explains some of them:
#
# | tensor | shape | Llama | Qwen3 | Gemma 3 |
# |---|---|:-:|:-:|:-:|
# | `embed_tokens.weight` | [vocab_size, hidden_size] | ● | ● | ● |
# | in each layer: | | | | |
# | `self_attn.q_proj.weight` | [num_attention_heads · head_dim, hidden_size] | ● | ● | ● |
# | `self_attn.k_proj.weight`, `v_proj.weight` | [num_key_value_heads · head_dim, hidden_size] | ● | ● | ● |
# | `self_attn.o_proj.weight` | [hidden_size, num_attention_heads · head_dim] | ● | ● | ● |
# | `self_attn.q_norm.weight`, `k_norm.weight` | [head_dim] | | ● | ● |
# | `mlp.gate_proj.weight`, `up_proj.weight` | [intermediate_size, hidden_size] | ● | ● | ● |
# | `mlp.down_proj.weight` | [hidden_size, intermediate_size] | ● | ● | ● |
# | `input_layernorm.weight`, `post_attention_layernorm.weight` | [hidden_size] | ● | ● | ● |
# | `pre_feedforward_layernorm.weight`, `post_feedforward_layernorm.weight` | [hidden_size] | | | ● |
# | after the layers: | | | | |
# | `norm.weight` | [hidden_size] | ● | ● | ● |
# | `lm_head.weight` | [vocab_size, hidden_size] | unless tied | unless tied | unless tied |
#
# A config may leave a field out, and then the model's own default holds. Three of them matter here:
#
# | field | when it is missing |
# |---|---|
# | `n_inner` (GPT-2; `null` counts as missing) | 4 · n_embd |
# | `head_dim` | hidden_size // num_attention_heads |
# | `tie_word_embeddings` | true for `gpt2` and `gemma3_text`, false for `llama` and `qwen3` |
#
# A tied head is the embedding's own tensor, so it counts once. The check knows the counts that transformers arrives at for seven published models, and for four small made-up ones in which no two sizes are equal.
#
# <details><summary>Hint 1</summary>
#
# Treat GPT-2 apart from the other three. In both halves: embeddings, plus layers × (weights + norms), plus the last norm, plus a head if it is not tied.
#
# <details><summary>Hint 2</summary>
#
# `config["n_embd"]` reads a field; `config.get("head_dim")` gives `None` where there is none, and `config.get("tie_word_embeddings", default)` a default of your choice.
#
# <details><summary>Hint 3</summary>
#
# Name the widths first: `Q = num_attention_heads * head_dim` for the queries and `KV = num_key_value_heads * head_dim` for keys and values. `Q` is not always the hidden size.
#
# <details><summary>Hint 4</summary>
#
# If only the made-up cases are red, you have used one field where another is meant that happens to have the same value in published models.
#
# </details></details></details></details>

# %% exercise="orientation.parameter_count" id="orientation-parameter_count"
def parameter_count(config: Mapping[str, Any]) -> int:
    """The number of parameters of the language model that a config.json describes.

    config: the fields; model_type is "gpt2", "llama", "qwen3" or "gemma3_text".
    A head that is tied to the embedding counts once.
    """
    ### BEGIN SOLUTION
    tied = config.get("tie_word_embeddings", config["model_type"] in ("gpt2", "gemma3_text"))
    V = config["vocab_size"]

    if config["model_type"] == "gpt2":
        D, layers = config["n_embd"], config["n_layer"]
        F = config.get("n_inner") or 4 * D
        embeddings = V * D + config["n_positions"] * D  # wte, wpe
        weights = D * 3 * D + D * D + D * F + F * D  # c_attn, attn.c_proj, c_fc, mlp.c_proj
        biases = 3 * D + D + F + D
        norms = 2 * (D + D)  # ln_1 and ln_2, each a weight and a bias
        final_norm = D + D  # ln_f
    else:
        D, F, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or D // heads
        Q, KV = heads * head_dim, config["num_key_value_heads"] * head_dim
        embeddings, biases = V * D, 0
        weights = D * Q + 2 * D * KV + Q * D + 3 * D * F  # q_proj; k_proj, v_proj; o_proj; gate, up, down
        norms = D * (4 if config["model_type"] == "gemma3_text" else 2)
        if config["model_type"] != "llama":
            norms += 2 * head_dim  # q_norm, k_norm: one weight for all heads
        final_norm = D  # model.norm

    head = 0 if tied else V * D
    return embeddings + layers * (weights + biases + norms) + final_norm + head
    ### END SOLUTION


# %% check="orientation.parameter_count" id="check-orientation-parameter_count"
check("orientation.parameter_count", parameter_count)

# %% [markdown] id="839f60b3"
# ### Why do people say 124M and 117M?

# %% id="76d3e583"
count = parameter_count(gpt2)
head = gpt2.vocab_size * gpt2.n_embd
positions = gpt2.n_positions * gpt2.n_embd
if isinstance(prediction, int | float):
    print(f"your prediction                 {prediction:>12,.0f}  ({prediction / count - 1:+.1%})")
else:
    print(f"your prediction                 {prediction!r}, which is not a number")
print(f"head tied, counted once         {count:>12,}")
print(f"head counted a second time      {count + head:>12,}")
print(f"without any embedding           {count - head - positions:>12,}")

# %% [markdown] id="3f118d9d"
# - **124M** is 124,439,808: what the checkpoint holds, with the tied head counted once.
# - **163M** is what you get when the head is counted as a matrix of its own. Code that builds an `nn.Linear` head and never ties it really has that many.
# - **85M** is what is left without the embeddings; some papers on scaling count this way.
# - **117M** is none of these. It stands in GPT-2's paper (Table 2); OpenAI's repository says that the paper's counts were wrong by an error. The name stuck to the smallest model all the same.
#
# So a parameter count needs its rule beside it: is the head counted twice, and are the embeddings counted at all?
#
# Does your function fit the weights that we really have? And what do the others need in memory, at two bytes a parameter?

# %% id="19986b71"
assert parameter_count(checkpoint.config) == sum(tensor.numel() for tensor in tensors.values())

print(f"{'config':14} {'parameters':>14} {'GB in bf16':>11} {'embedding':>10}")
for name in ("gpt2", "smollm2-135m", "gemma-3-270m", "qwen3-0.6b", "gpt2-xl", "llama-3-8b", "qwen3-8b"):
    config = Config.read(f"configs/{name}.json")
    count = parameter_count(config)
    embedding = config["vocab_size"] * config.get("n_embd", config.get("hidden_size"))
    print(f"{name:14} {count:>14,} {2 * count / 1e9:>11.2f} {embedding / count:>10.0%}")

# %% [markdown] id="5a5e51a4"
# In Gemma 3 270M, the token embedding alone is almost two thirds of the model, with its 262,144 entries. In the 8-billion models the same kind of table is a few percent.
#
# ## 8 · What you have, and what it is for
#
# | when | use | it tells you |
# |---|---|---|
# | you wrote one part | `check(name, Class)` | right or wrong on every case, and a known mistake by name |
# | the parts make a model | `compare_layers(Model)` | the first module that is wrong itself |
# | the model loads real weights | `check_generation(model, name, generate=...)` | the first token that differs, and whether it was a near-tie |
# | before any of it | the config, and a count | whether you understood the shapes |
#
# ## The questions again
#
# <details><summary>You ported a model and it writes nonsense. Where do you look first?</summary>
#
# At the first module, in the order of execution, whose output differs from the reference's on the same input and weights. Everything after it inherits the error. The text comes last: it says that something is wrong, and never where.
#
# </details>
#
# <details><summary>What does Python do when a model runs, and what doesn't it do?</summary>
#
# It describes which operators are applied to which tensors. PyTorch dispatches each to a kernel for the device and dtype, and the kernels compute. So one model file runs on a CPU, a GPU, or on `meta`, which computes shapes only.
#
# </details>
#
# <details><summary>Training code and an inference engine share a checkpoint. What must they agree on that isn't in it?</summary>
#
# The forward pass: which tensor is used where, in which orientation, in which order, with which arithmetic. The file has names, shapes and numbers, and the config sizes and a few choices.
#
# </details>
#
# <details><summary>A square weight is used transposed. What notices?</summary>
#
# No shape check, and no `load_state_dict(strict=True)`. Only a comparison of numbers with a reference.
#
# </details>
#
# <details><summary>Two right programs differ by 10⁻⁶. Is one of them wrong?</summary>
#
# Not for that reason. Floating-point sums depend on their order, and neither order is the true one. A wrong formula differs by much more.
#
# </details>
#
# <details><summary>GPT-2 has 124M parameters, or 163M, or 117M?</summary>
#
# 124,439,808 with the tied head counted once, 163,037,184 with it counted twice. 117M was an error in the paper.
#
# </details>

# %% [markdown] id="209db5f0"
# ## Where to read on
#
# - The talk that this course follows: Sebastian Raschka, *From Scratch to Scale: Turning LLM Code into Architecture Insights*, PyCon DE & PyData 2026.
# - Dispatching: Edward Yang, *Let's talk about the PyTorch dispatcher* and *PyTorch internals* (blog.ezyang.com). In the code: `aten/src/ATen/native/native_functions.yaml` lists every operator that the profiler can show.
# - GPT-2: Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), section 2.3 and Table 2.
# - Why one number for "parameters" isn't enough: Kaplan et al., *Scaling Laws for Neural Language Models* (2020), section 2.1, counts without embeddings.
# - What these checks were recorded from: `transformers/models/gpt2/modeling_gpt2.py`, class `GPT2LMHeadModel`, and its neighbours `llama`, `qwen3` and `gemma3`.
#
# ## Stretch task
#
# No stub this time. Write `bytes_per_token(config)`: how much memory the keys and values of one token take in bfloat16, over all layers. Every layer keeps a key and a value of `head_dim` numbers for each key/value head. Check yourself against three figures from the public architecture gallery: 36 KiB for GPT-2 124M, 300 KiB for GPT-2 XL, 144 KiB for Qwen3 8B. Suppose a context of 32,000 tokens (GPT-2 was trained for 1,024): for which of the seven configs would it need more memory than the weights? Lesson 02 is about that number.
