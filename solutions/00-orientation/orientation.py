# %% [markdown] id="a3857d99"
# # 00 · Orientation: how to know that you are right
#
# **You ported a model. It loads its weights, nothing raises, and it writes nonsense. Where do you look first?**
#
# This course rebuilds language models from scratch. This first lesson is about one question: how do you know that a part you built is right? After it you can
#
# - say what Python, PyTorch and a device each do when a model runs, and see it happen;
# - say what a checkpoint is, and what two programs must agree on to share one;
# - read a red check and a layer comparison, and tell the module that is wrong from those that only received wrong input;
# - count a GPT-2's parameters from its `config.json` alone, exactly, before anything is downloaded.
#
# 60 to 80 minutes · difficulty ●○○○○ · you need some Python and to have seen an `nn.Module` before
#
# Here is a model of twelve blocks, and a port of it. In the port's block 5 one weight is transposed.
#
# ![Two bar charts over blocks 0 to 11. Left, the whole model run as it is: no difference in blocks 0 to 4, and a difference between 2.1 and 2.8 in every block from 5 to 11. Right, each block given the right input: a difference of 2.2 in block 5 and none in any other.](figures/one-wrong-block.svg)

# %% [markdown] id="2752aed5"
# The left chart compares the two models' outputs block by block. They agree up to block 4. From block 5 on, every block's output differs, although blocks 6 to 11 are right: they received wrong input. In the right chart every block gets the *right* model's input. Now only the block with the bug differs.
#
# So do not start with the text. Look for the **first** place where the numbers differ. The rest of the lesson builds the tools for finding that place, and section 6 runs this experiment.
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.

# %% tags=["setup"] id="setup"
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from grader import Config, check, compare_layers, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

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
# Why step 9? A paper can leave a detail out. The formulas of LayerNorm and RMSNorm in their papers, for example, have no ε at all, and the code of every model in this course adds one. Code that runs cannot leave it out. That is why every number in this course is checked against running code: Hugging Face transformers, called *the reference* from here on.

# %% [markdown] id="49b9673f"
# ## 2 · What runs when a line runs
#
# Why begin below the model? Later a result will differ in its last digits, or a model will be too slow, and then you need to know who computed what. Start with one line, `x * 2`. It is Python, but Python does no arithmetic here.
#
# ![Three layers. Python describes: x * 2. PyTorch dispatches: the operator aten::mul, the dtype int64 and the device cpu select a kernel. ATen's kernels compute: one compiled routine for each device, CPU, CUDA, MPS; on meta only shapes are computed.](figures/python-pytorch-aten.svg)
#
# - **Python describes** what is wanted: this tensor, times 2.
# - **PyTorch dispatches**: it looks at the operator, the dtype and the device, and picks a kernel. A kernel is one compiled routine, for example "multiply two float32 tensors on a CPU".
# - **ATen's kernels compute**: ATen is PyTorch's library of tensor operators, written in C++ (and in CUDA, Metal and others for other devices).
#
# The profiler records every operator that PyTorch dispatches. `aten::mul` is an operator; which kernel runs for it depends on the device.

# %% id="06a8f5c4"
from grader.instruments import work

x = torch.tensor([1, 2, 3])
print(work.operators(lambda: x * 2))

# %% [markdown] id="a5151d92"
# Now the operation that language models spend most of their time in: a linear layer, $y = xW^\top + b$. How many lines will the profiler show for one call of `F.linear`? Operators that call others are counted, too.

# %% prediction="orientation.operators" id="prediction-orientation-operators"
predict(
    "orientation.operators", "operators in one call of F.linear",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="3b9e628f"
import torch.nn.functional as F

x, weight, bias = torch.randn(5, 8), torch.randn(16, 8), torch.randn(16)
dispatched = work.operators(lambda: F.linear(x, weight, bias))
print(dispatched)
print(f"\n{len(dispatched.splitlines())} lines")
measured("orientation.operators", len(dispatched.splitlines()))

# %% [markdown] id="8ac2e973"
# <details><summary>What the numbers say</summary>
#
# One call, and about ten operators. The exact number depends on PyTorch's version. Only one of them does arithmetic, `addmm`.
# </details>

# %% [markdown] id="31913030"
# - `aten::t`, `transpose`, `as_strided` and `expand` copy nothing. They only record a new shape, and how far to step through memory along each axis (the *strides*).
# - `resolve_conj` matters for complex numbers only.
# - `aten::addmm` does the work. It multiplies two matrices and adds a third tensor, here the bias: `copy_` writes the bias into every row of the result, and the product is added to it.
#
# What would it cost if Python did the arithmetic itself? Multiply two 64 × 64 matrices, which takes 262,144 multiply-adds, once with three Python loops, once with one ATen call. How many times as long do the loops take, on this machine?

# %% prediction="orientation.loops" id="prediction-orientation-loops"
predict(
    "orientation.loops", "time of three Python loops", unit="times that of one ATen call",
    guess=...
)

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
measured("orientation.loops", python_ms / aten_ms)

# %% [markdown] id="b51a35bb"
# <details><summary>What the numbers say</summary>
#
# The exact ratio depends on the machine, and on what else runs on it; it is hundreds or thousands, and not ten. In the loops, the interpreter handles every single number as a Python object. The kernel works on numbers that lie side by side in memory, several in one instruction.
# </details>

# %% [markdown] id="7ed27991"
# So a model's code describes operations on whole tensors, and never loops over their numbers.
#
# ### The same line on another device
#
# Because Python only describes, the line need not change when the device does. The next cell uses an accelerator if you have one (`cuda` for NVIDIA and AMD, `mps` for Apple). It also uses a second device that everyone has: **`meta`**. A tensor on `meta` has a shape and a dtype, but no numbers. Its kernels work out shapes and compute nothing.

# %% tags=["nbval-ignore-output"] id="090e1acf"
accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
for name in filter(None, ["cpu", accelerator, "meta"]):
    device = torch.device(name)
    inputs = [tensor.to(device) for tensor in (x, weight, bias)]
    print(f"--- {device}: gives {list(F.linear(*inputs).shape)}")
    print(work.operators(lambda inputs=inputs: F.linear(*inputs), depth=2))

# %% [markdown] id="d38397ac"
# Python makes the same call on each device, and each device runs its own kernels for it. On a CPU and on `meta`, `aten::linear` is broken down into the same smaller operators. A device may also have one kernel for the whole of `aten::linear`, as Apple's GPUs have; then no `addmm` appears in the list.
#
# That is also why two devices, or two versions of a library, may differ in the last digits: they add the same numbers in another order. Section 5 comes back to it.
#
# `meta` is useful: it builds a model that would never fit in memory, so that you can count its parameters. This embedding table would take 2.1 GB:

# %% id="cb5b46ba"
table = nn.Embedding(128_256, 4096, device="meta")
size = table.weight.nbytes / 1e9
print(f"{table.weight.numel():,} numbers, {size:.1f} GB in {table.weight.dtype}, stored: none")

# %% [markdown] id="3da7f817"
# ## 3 · Where models live
#
# Which programs have to agree with each other? Training code writes a model's **weights** to a **hub**, a website that stores models. **Inference engines** read them from there: some serve many users at once from GPUs, some run on the laptop in front of you.
#
# ![Training code (Python; PyTorch, JAX) writes config.json, model.safetensors and tokenizer.json to a hub. Servers (SGLang, vLLM) and local engines (llama.cpp, MLX, Ollama) read them. Each of the three has its own version of the forward pass, which is what this course builds.](figures/hub.svg)

# %% [markdown] id="0a74eef2"
# None of these files says how to compute with the numbers. That computation is the *forward pass*. Training code and every engine has its own version of it, and all versions must agree to the last detail. This course builds that part, and builds it so that the hub's weights load by name.

# %% [markdown] id="b660dff2"
# ## 4 · What a checkpoint is
#
# A checkpoint is a folder with three things in it. The course ships one: `austen-gpt2`, a small GPT-2 trained on five of Jane Austen's novels, in the hub's own layout.
#
# First the **config**: the sizes and choices that decide the shape of every weight.

# %% id="ce551b41"
checkpoint = load_checkpoint("austen-gpt2")
for field in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
    print(f"{field:12} {checkpoint.config[field]}")

# %% [markdown] id="b7279aaa"
# Then the **tokenizer**. It cuts text into *tokens*, entries of a fixed vocabulary, and the model sees their indices in it, the *ids*. A byte-level tokenizer writes a space as `Ġ`.

# %% id="4a8070c1"
encoded = checkpoint.tokenizer.encode("It is a truth universally acknowledged")
print(encoded.tokens)
print(encoded.ids)
print(repr(checkpoint.tokenizer.decode(encoded.ids)))

# %% [markdown] id="85221a95"
# And the **weights**: tensors with names. A GPT is a stack of identical layers, called *blocks*: h.0, h.1, and so on. Below are the tensors outside the blocks, and those of block 0. The other blocks have the same names and shapes.

# %% id="9cbd723f"
tensors = checkpoint.state_dict()
for name, tensor in tensors.items():
    if not name.startswith("h.") or name.startswith("h.0."):
        print(f"{name:24} {list(tensor.shape)!s:14} {tensor.numel():>9,}")
print(f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()):,} parameters in all")

# %% [markdown] id="86d3ab63"
# Two things to notice.
#
# - **The names are a contract.** `h.0.attn.c_attn.weight` is the path to one parameter in a tree of modules. If your modules have these names, `load_state_dict(strict=True)` loads the weights with no renaming. So in this course your names are the checkpoint's names.
# - **There is no output head.** Each token has one vector, its row in `wte`. At the input it stands for the token. At the output, its dot product with the model's final vector is the token's score. One table, used twice: the head is *tied* to `wte`. Remember this when you count.

# %% [markdown] id="6e8e372a"
# ## 5 · The first check, red on purpose
#
# `check(exercise, your_class)` builds your class, loads recorded weights, runs it on several inputs (*cases*) and compares the results with what the reference returned. Here is a linear layer with a mistake that raises no error: the weight is stored as `[out, in]`, and the code needs it as `[in, out]`.
#
# `suppress` lets the notebook go on although the check fails. In a check cell of your own the failure stops "Run All Cells", which is what you want there.

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
# 1. **How many cases are right.** Every case is run. Here none is right: the mistake does not depend on the sizes.
# 2. **"This is what comes out when ..."** For each exercise, common mistakes were made on purpose and their results recorded. If your numbers equal those of a mistake, the report names it.
# 3. **A hint** where to look. It does not contain the answer.
# 4. **A table: what differs in each wrong case**: how many values, by how much, and where first. The last two columns show the first wrong value, yours and the reference's, so you can compare the error with the value itself. If nearly all values are wrong, by about as much as the values themselves, the formula is wrong. A few wrong values suggest a mask or an edge. Very small differences suggest a missing epsilon or a conversion between float types.
#
# The shape was right, and nothing raised. Only the numbers show this mistake.

# %% [markdown] id="fef6faf7"
# ### Exercise 1 · Linear
# difficulty ●○○○○ · importance ●●●●● · 10 minutes
#
# Now the right one. The parameters are called `weight`, of shape `[out_features, in_features]`, and `bias`, of shape `[out_features]`, as in `torch.nn.Linear`. `nn.Linear` and `F.linear` are right too, but you learn most if you leave them aside here: the exercise is about which axis of the weight is which.
#
# $$ y_{\ldots j} = \sum_i x_{\ldots i}\, W_{ji} + b_j $$
#
# `__init__` is written already; `forward` is yours. The check loads weights of its own, so zeros will do to start with. It compares the names, the shapes, and what `forward` returns.
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
# `.T` swaps the two axes of a matrix: entry `[i, j]` of `M.T` is entry `[j, i]` of `M`. `.view` and `.reshape` don't do that: they read the numbers in the same order and cut them into rows of another length.
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
# **Cases** are chosen to expose mistakes. For `Linear` they are: as many outputs as inputs (a transposed square weight raises nothing), more outputs, fewer, a single vector, and bfloat16, a float type with 8 significant bits where float32 has 24. The exercise's points are shared out among its cases.
#
# **Which weights should a check load?** Zeros or ones would be simple, and you could check the result by hand. Random numbers are the third choice. Suppose that a square weight is used transposed by mistake. With which of the three does the result change?

# %% prediction="orientation.noticed" id="prediction-orientation-noticed"
predict(
    "orientation.noticed", "weights with which a transposed weight changes the result", some_of=("zeros", "ones", "random"),
    guess=...
)

# %% id="434b23a7"
torch.manual_seed(0)
batch = torch.randn(5, 8)
errors = {}
for name, matrix in (("ones", torch.ones(8, 8)), ("zeros", torch.zeros(8, 8)), ("random", torch.randn(8, 8))):
    errors[name] = (batch @ matrix - batch @ matrix.T).abs().max()
    print(f"{name:>6}: a transposed weight changes the result by up to {errors[name]:.1f}")
measured("orientation.noticed", [name for name, error in errors.items() if error > 0.01])

# %% [markdown] id="1ea41d4b"
# <details><summary>What the numbers say</summary>
#
# Only with random weights. A weight of equal numbers is its own transpose, so a test with it cannot fail. That holds for every mistake in this course: the test's weights and inputs must make the mistake visible. Where a layer starts with a bias of zeros or a scale of ones, the check loads random numbers there too.
# </details>

# %% [markdown] id="50ba04f2"
# Why not *trained* weights? They notice a transposed weight as well. But much of what they hold may be close to ones. `austen-gemma3` is a small trained model that lesson 04 uses. A norm multiplies each channel by a *scale*. How wrong would a norm be that forgets it?

# %% id="be45a9aa"
trained = load_checkpoint("austen-gemma3").state_dict()  # it stores how far each scale is from 1
scales = 1 + torch.cat([weight for name, weight in trained.items() if "norm" in name])  # of all norms
low, high = (scales.quantile(q).item() for q in (0.05, 0.95))
print(f"nine of ten scales lie between {low:.2f} and {high:.2f}")
print(f"without its scale, half of the channels are off by less than {(1 / scales - 1).abs().median():.0%}")

# %% [markdown] id="7110d377"
# Half of the channels would be off by a few percent at most, where a random scale makes nearly every channel wrong by much more. Trained weights also come in large files, and only in the sizes in which somebody trained them; a test needs sizes that differ from each other, as you will see below. They have another task here: at a lesson's end `check_generation` asks whether a whole model writes the reference's text with them.
#
# **Not only outputs.** Where a part can be trained, the check also compares the gradients that reach its parameters and its input. One `.detach()` too many leaves every output right, and nothing that comes before it is trained any more. Buffers are not compared. A *buffer* is a tensor that a module stores and does not train, such as a mask; your module may have any, or none.
#
# **Tolerance.** How close is close enough? Two right programs may differ in the last digits, because the result of a floating-point sum depends on its order. Here are two right linear layers, and the same computation in float64, whose rounding errors are far smaller. Is one of the two float32 versions closer to it?

# %% tags=["nbval-ignore-output"] id="27501e15"
torch.manual_seed(0)
layer = Linear(1024, 1024)
layer.load_state_dict(nn.Linear(1024, 1024).state_dict())  # fits, because the names and shapes are the same
with torch.no_grad():
    batch = torch.randn(64, 1024)
    yours = layer(batch)  # a matrix product, then a sum
    fused = F.linear(batch, layer.weight, layer.bias)  # both in one kernel
    truth = F.linear(batch.double(), layer.weight.double(), layer.bias.double())

# %% tags=["nbval-ignore-output"] id="71b3c5dd"
differences = {"yours - fused": yours - fused, "yours - truth": yours - truth, "fused - truth": fused - truth}
for title, difference in differences.items():
    typical = difference.square().mean().sqrt()  # the root mean square
    print(f"{title:15} largest {difference.abs().max():.1e}   typical {typical:.1e}")
print(f"typical size of y itself: {truth.square().mean().sqrt():.2f}")

# %% [markdown] id="8067b632"
# Neither is closer in any way that matters. So a check accepts any order of operations. In float32 a value may be off by 5 · 10⁻⁵ · (|value| + typical size), where "typical size" is the root mean square of the whole tensor. In bfloat16 the factor is 6 · 10⁻².
#
# Why a sum of two sizes? Rounding errors grow with the value, so a large value may be further off. But a value near 0 is often the difference of large terms, and its error is as large as that of the others. And why 5 · 10⁻⁵? It is more than ten times what the order of a sum changed above, which leaves room for longer computations, and a tenth of the small mistake that comes next.
#
# Why not a comfortable 10⁻² for both? Some mistakes are small. GELU, a function of lesson 01, has an exact form and an approximation. How far are the two apart at most?

# %% id="f2837c39"
points = torch.linspace(-5, 5, 10_001)
apart = (F.gelu(points) - F.gelu(points, approximate="tanh")).abs().max()
print(f"the two forms of GELU differ by at most {apart:.1e}")

# %% [markdown] id="cb37e8bb"
# 5 · 10⁻⁴: a tolerance of 10⁻² would accept the wrong one, and the check's tolerance does not. In lesson 01 you will see a model with the wrong form write the same text as the right one.
#
# When your result equals the reference to the last bit, the report says **bit-exact**. That is a bonus, and never required.
#
# **On the command line** you can run the same checks without opening a browser. They print a line for each exercise:
# ```
# grader check 00-orientation/orientation.ipynb
# ```

# %% [markdown] id="cd038387"
# ## 6 · The layer debugger
#
# One module is easy to check. A model is modules inside modules, and each reads the output of the one before. So first the experiment from the top of the lesson: twelve random blocks, and a copy in which block 5's weight is transposed. Each block adds its result to the vectors that it reads, and passes the sum on. These vectors, as they run from block to block, are called the residual stream.

# %% id="eee95490"
import copy

torch.manual_seed(0)
blocks = [nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU()) for _ in range(12)]
ported = copy.deepcopy(blocks)
with torch.no_grad():
    ported[5][1].weight.copy_(blocks[5][1].weight.T)

# %% tags=["nbval-ignore-output"] id="f8de6fe5"
from grader.instruments import plots

right = wrong = torch.randn(16, 32)
whole, alone = [], []
with torch.no_grad():
    for block, port in zip(blocks, ported, strict=True):
        alone.append((port(right) - block(right)).abs().max().item())  # both read the right model's stream
        right, wrong = right + block(right), wrong + port(wrong)
        whole.append((wrong - right).abs().max().item())  # each model reads its own stream
curves = {"run as it is": (range(12), whole), "each block, given the right input": (range(12), alone)}
plots.lines(curves, plots.Axes("block", "largest difference", xticks=range(12)))

# %% [markdown] id="0f813d8e"
# `compare_layers` makes both comparisons for any model. A small network with two layers is enough to see how. First the reference, built of PyTorch's own `nn.Linear`, and a *trace* of it: the input and the output of every module in one pass.

# %% id="0953a868"
class TwoLayers(nn.Module):
    """x plus a norm, two linear layers and an activation between them. fc_1, fc_2: the classes that make them."""

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
# Now the port, with your `Linear` for `fc_2` and the broken one for `fc_1`. The modules run in the order norm, fc_1, act, fc_2, and the whole model is run as it is. Which rows will say `[DIFF]`?

# %% prediction="orientation.red_rows" id="prediction-orientation-red_rows"
predict(
    "orientation.red_rows", "modules whose row says [DIFF]", some_of=("act", "fc_1", "fc_2", "norm"),
    guess=...
)

# %% id="620a6279"
with suppress(CheckFailed):
    compare_layers(TwoLayers(BrokenLinear, Linear), trace)

# %% tags=["nbval-ignore-output"] id="873bb682"
from IPython.utils.capture import capture_output


def red_rows(model: nn.Module, trace: Any) -> list[str]:
    """The modules whose row says [DIFF], out of the same table. The model's own output is no module."""
    with capture_output() as shown, suppress(CheckFailed):
        compare_layers(model, trace)
    texts = [shown.stdout, *(output.data.get("text/plain", "") for output in shown.outputs)]
    rows = [line.split() for line in "\n".join(texts).splitlines() if "[DIFF]" in line]
    return [name for _, name, *_ in rows if name != "output"]


measured("orientation.red_rows", red_rows(TwoLayers(BrokenLinear, Linear), trace))

# %% [markdown] id="8d13b0b3"
# <details><summary>What the numbers say</summary>
#
# All but `norm`. `act` and `fc_2` differ too, but only because they received wrong input: given the reference's input, they are right. `norm` comes before the bug and is right.
# </details>

# %% [markdown] id="438330e0"
# The columns `max` and `mean` hold the largest and the average difference from the reference's output. The last column says where it comes from: *own error*, a module that is wrong itself; *inherited*, a right module that was given a wrong input; *error inside*, something that contains a wrong module, here the model as a whole.
#
# So the report says where to start, and it works the same way in a model of several hundred modules.
#
# The method, for any model: **find the first row that differs, change only that, compare again.**

# %% tags=["nbval-ignore-output"] id="0299bb2a"
compare_layers(TwoLayers(Linear, Linear), trace)

# %% [markdown] id="0d34ecce"
# ### A hunt
#
# Now several faults at once. Below is a small language model with seven modules, and a port of it. The port was written by someone in a hurry; it builds, loads all weights by name, and raises nothing. The report will name the modules that are wrong themselves. You have to find out what is wrong in each of them, and whether that is all. The code of both is in the next cell, folded. **Leave it folded for now** and run it.

# %% jupyter={"source_hidden": true} id="e4e3aa17"
class Original(nn.Module):
    """A model of one block: ids [B, T] -> logits [B, T, 50]."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.fc_1 = nn.Linear(16, 64)
        self.act = nn.GELU(approximate="tanh")
        self.fc_2 = nn.Linear(64, 16)
        self.head = nn.Linear(16, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.mix(x)
        x = x + self.fc_2(self.act(self.fc_1(self.norm(x))))
        return self.head(x)


class Mix(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Norm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(x.var(dim=-1, keepdim=True) + self.eps) * self.weight + self.bias


class Ported(nn.Module):
    """The port of Original."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.mix = Mix(16, 16)
        self.norm = Norm(16)
        self.fc_1 = nn.Linear(16, 64)
        self.act = nn.GELU()
        self.fc_2 = nn.Linear(64, 16)
        self.head = nn.Linear(16, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.mix(x)
        x = self.fc_2(self.act(self.fc_1(self.norm(x))))
        return self.head(x)

# %% id="ab920f5e"
torch.manual_seed(0)
hunted = trace_of(Original(), torch.randint(50, (2, 7)))
with suppress(CheckFailed):
    compare_layers(Ported, hunted)
for call in hunted.calls:
    print(f"{call.path or 'output':7} values of typical size {call.output.square().mean().sqrt():.2f}")

# %% [markdown] id="24ed00d1"
# Read the table before you read any code. It already says which modules are wrong themselves. Two questions:
#
# 1. How large is the first error compared with the values, whose sizes are below the table? What kind of mistake is that large? Ask this again after each mistake that you mend: the next one is smaller.
# 2. Is every fault in the table? A module can be right, and the line that calls it wrong.
#
# Make a guess about the second one. Suppose that `mix`, `norm` and `act` are mended, and nothing else is changed. Which rows still say `[DIFF]`?

# %% prediction="orientation.still_red" id="prediction-orientation-still_red"
predict(
    "orientation.still_red", "rows that are red once mix, norm and act are mended", some_of=("act", "embed", "fc_1", "fc_2", "head", "mix", "norm"),
    guess=...
)

# %% [markdown] id="96956a96"
# Now hunt. Unfold the cell with the code, find the fault in the first module that is wrong itself, and mend it in `Ported` or in the class that it uses. Run the cell and the table again. Go on until every row says `[OK]`. When you are done, or stuck, open the explanation.
#
# <details><summary>What was wrong, and what told you</summary>
#
# There are four faults.
#
# - `mix`: the square weight is used transposed. Its output is off by as much as the values themselves, which is the sign of a wrong formula.
# - `norm`: the variance divides by n − 1. PyTorch's `var` does that unless you write `unbiased=False`. For 16 channels that makes each value about 3% too small, which shows once `mix` is right.
# - `act`: the exact GELU where the original has the approximation. Once the norm is right, too, its error is about 10⁻⁴: too small for a wrong formula and too large for rounding.
# - The last sum is missing: `x = self.fc_2(...)` instead of `x = x + self.fc_2(...)`. No module is wrong. Once the others are mended, `head` is the first red row, and it is right when it is given the right input. So its input is wrong, and the fault is in the line that computes it.
#
# In the first table the larger errors hide the smaller ones. That is why you change one thing and compare again.
#
# </details>
#
# Here is the method at work: the three modules are mended one after the other, with a table after each. Look at the largest error of the module that is named first: about 0.1 in the first table, less than 10⁻³ in the second. In the last table no module is wrong itself.

# %% tags=["nbval-ignore-output"] id="ba1ebb25"
port = Ported()
for name, part in (("mix", nn.Linear(16, 16)), ("norm", nn.LayerNorm(16)), ("act", nn.GELU(approximate="tanh"))):
    setattr(port, name, part)
    print(f"{name} is mended, too:")
    with suppress(CheckFailed):
        compare_layers(port, hunted)
measured("orientation.still_red", red_rows(port, hunted))

# %% [markdown] id="5cd40c8b"
# <details><summary>What the numbers say</summary>
#
# `head` alone, and with it the output. Every module is right when it is given the right input, `head` as well, but it is given a wrong one: the sum before it is missing. A fault in a line that connects modules shows in the next module's row. After `mix` the norm's error is about 0.1, after the norm that of `act` is below 10⁻³, and only then is the missing sum the first row.
# </details>

# %% [markdown] id="6ec20137"
# The next cell has the mended port, folded.

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"] id="b4006a2e"
class Mended(Ported):
    """The port without its four faults."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm, self.act = nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(approximate="tanh")

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.mix(x)
        x = x + self.fc_2(self.act(self.fc_1(self.norm(x))))
        return self.head(x)


compare_layers(Mended, hunted)

# %% [markdown] id="e56d7018"
# ## 7 · How many parameters does a config make?
#
# Will a model fit on your machine? You can find out before you download anything: the config decides every shape, so it decides the number of parameters. This is step 4 of the talk.
#
# `configs/` has the configs of seven published models, reduced to the fields that describe the architecture. Two of them are GPT-2s, the model that lesson 01 builds. Here is the smallest GPT-2's.

# %% id="31675901"
gpt2 = Config.read("configs/gpt2.json")
for field, value in gpt2.items():
    print(f"{field:20} {value}")

# %% [markdown] id="d2513b79"
# How many parameters does this GPT-2 have? Work it out from the config and the list of tensors in section 4. Paper and a calculator will do; to within 10% is a good first try.

# %% prediction="orientation.gpt2" id="prediction-orientation-gpt2"
predict(
    "orientation.gpt2", "parameters of GPT-2", unit="million",
    guess=...
)

# %% [markdown] id="d806f0f7"
# Here is the same model, drawn from its config: the whole, the inside of its attention and of its MLP. Was your sum complete?
#
# ![GPT-2 124M from the bottom up: token ids, the token and position embeddings, 12 blocks, a final LayerNorm and the output head, which has the token embedding's weights. Each block has multi-head attention with 12 heads of 64 and a GELU MLP of width 3,072, each behind a LayerNorm.](figures/gpt2-model.svg) ![Inside GPT-2's attention: one projection, c_attn, from 768 to 3 × 768 makes queries, keys and values of 12 heads; a last projection, c_proj, from 768 to 768 mixes the heads.](figures/gpt2-attention.svg) ![Inside GPT-2's MLP: a projection from 768 to 3,072, GELU, and a projection back to 768.](figures/gpt2-mlp.svg)

# %% [markdown] id="9f0ffe73"
# ### Exercise 2 · parameter_count
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# Now exactly, and for every GPT-2: write a function that gets a config and returns the count. Why exactly? If your count is right to the last parameter, you know every tensor of the model and its shape. If it is wrong, the difference says what you forgot: in the smallest GPT-2, 27,648 too few are 2,304 in each of 12 blocks, and there only the bias of `c_attn` has 2,304 numbers. Lesson 01 builds a module for each of these tensors, and loads weights into them strictly.
#
# | where | tensors | what they are for |
# |---|---|---|
# | at the bottom | `wte` | a vector of `n_embd` numbers for each of `vocab_size` tokens |
# | | `wpe` | a vector for each of `n_positions` positions |
# | in each of `n_layer` blocks | `ln_1`, `ln_2` | two norms, before attention and before the MLP |
# | | `attn.c_attn`, `attn.c_proj` | attention's projections: from `n_embd` to queries, keys and values, three vectors of `n_embd` in one product; and from `n_embd` to `n_embd` |
# | | `mlp.c_fc`, `mlp.c_proj` | the MLP's projections: from `n_embd` to its inner width, and back |
# | at the top | `ln_f` | a last norm |
# | | `lm_head` | a score for each token, from `n_embd` to `vocab_size`, without a bias: only where the head is not tied to `wte` |
#
# Section 4 has them with their shapes, for `austen-gpt2`. Every projection in a block has a bias, and a norm has two vectors, a weight and a bias.
#
# A config may leave a field out. Then the default of the model's class holds:
#
# | field | when it is missing |
# |---|---|
# | `n_inner`, the MLP's inner width (`null` counts as missing) | 4 · n_embd |
# | `tie_word_embeddings` | true |
#
# A tied head is the embedding's own tensor, so it counts once. The check compares with the counts of transformers' models: for two published configs, and for made-up ones in which no two sizes are equal.
#
# <details><summary>Hint 1</summary>
#
# The sum has three parts: what is there once, `n_layer` times what is in a block, and a head if it is not tied.
#
# <details><summary>Hint 2</summary>
#
# A projection from `a` to `b` has a · b weights and b biases. The bias is as long as the output.
#
# <details><summary>Hint 3</summary>
#
# `config["n_embd"]` reads a field; `config.get("n_inner")` returns `None` where there is none, and `config.get("tie_word_embeddings", default)` a default of your choice.
#
# <details><summary>Hint 4</summary>
#
# Count block 0 of `austen-gpt2` first, and compare with the last column of the list in section 4. If only the made-up cases are red, you have used a number that happens to be right in published models.
#
# </details></details></details></details>

# %% exercise="orientation.parameter_count" id="orientation-parameter_count"
def parameter_count(config: Mapping[str, Any]) -> int:
    """The number of parameters of the GPT-2 that a config.json describes, its head included.

    config: the fields; n_inner and tie_word_embeddings may be missing. A head that is tied to wte counts once.
    """
    ### BEGIN SOLUTION
    D, V = config["n_embd"], config["vocab_size"]
    F = config.get("n_inner") or 4 * D
    embeddings = V * D + config["n_positions"] * D  # wte, wpe
    weights = D * 3 * D + D * D + D * F + F * D  # c_attn, attn.c_proj, c_fc, mlp.c_proj
    biases = 3 * D + D + F + D
    norms = 2 * (D + D)  # ln_1 and ln_2, each a weight and a bias
    final_norm = D + D  # ln_f
    head = 0 if config.get("tie_word_embeddings", True) else V * D
    return embeddings + config["n_layer"] * (weights + biases + norms) + final_norm + head
    ### END SOLUTION

# %% check="orientation.parameter_count" id="check-orientation-parameter_count"
check("orientation.parameter_count", parameter_count)

# %% [markdown] id="c952c478"
# ### Why made-up configs?
#
# Real configs are better known. Why does the check add some that nobody uses? All four published GPT-2s have a tied head and an MLP of four times the width, so a program that never reads these two fields is right for all of them.
#
# It goes on like that in later lessons. Newer models say how wide a head is, `head_dim`, and how many there are. In GPT-2 the heads together are as wide as the model, so a program that confuses the two widths is right for GPT-2. The seven configs here are GPT-2's smallest and largest, SmolLM2 135M, Llama 3 8B, Qwen3 8B and 0.6B, and Gemma 3 270M. For how many of the seven is such a program right?

# %% prediction="orientation.equal" id="prediction-orientation-equal"
predict(
    "orientation.equal", "configs of seven whose heads are as wide as the model",
    guess=...
)

# %% id="d058d167"
equal = []
print("config              heads · head_dim   hidden size")
for name in ("gpt2", "gpt2-xl", "smollm2-135m", "llama-3-8b", "qwen3-8b", "qwen3-0.6b", "gemma-3-270m"):
    config = Config.read(f"configs/{name}.json")
    hidden_size = config.get("hidden_size") or config.n_embd
    query_heads = config.get("num_attention_heads") or config.n_head
    product = query_heads * (config.get("head_dim") or hidden_size // query_heads)
    equal.append(product == hidden_size)
    print(f"{name:14} {product:21,} {hidden_size:13,}   {'equal' if equal[-1] else ''}")
measured("orientation.equal", sum(equal))

# %% [markdown] id="4695b9f2"
# <details><summary>What the numbers say</summary>
#
# For five of seven, the 8-billion models among them. A test with these five alone would pass a program that is wrong for the other two.
# </details>

# %% [markdown] id="9adf1513"
# In a made-up config no two sizes are equal, so every confusion shows. A layer comparison also uses a small made-up config, with random weights: the model runs in a second, and every kind of layer occurs in it.

# %% [markdown] id="839f60b3"
# ### Why do people say 124M and 117M?

# %% id="76d3e583"
count = parameter_count(gpt2)
in_head = gpt2.vocab_size * gpt2.n_embd
in_positions = gpt2.n_positions * gpt2.n_embd
print(f"head tied, counted once         {count:>12,}")
print(f"head counted a second time      {count + in_head:>12,}")
print(f"without any embedding           {count - in_head - in_positions:>12,}")
measured("orientation.gpt2", count / 1e6)

# %% [markdown] id="3f118d9d"
# - **124M** is 124,439,808: what the checkpoint holds, with the tied head counted once.
# - **163M** is the count with the head as a matrix of its own. Code that builds an `nn.Linear` head and never ties it really has that many.
# - **85M** is the count without the embeddings. Some papers on scaling count this way.
# - **117M** is none of these. It is the number in Table 2 of the paper. OpenAI later wrote in its repository that the paper's counts were wrong. Many still call the smallest model by that number.
#
# So say how you counted: is the tied head counted once or twice, and are the embeddings included?
#
# Is your function also right for the weights of this course? And how large are the other models, and how much memory do they need at two bytes a parameter? Lessons 03 and 04 build them. `grader.atlas`, which draws this course's figures, counts them from their configs as you just did; where both count, the two must agree.
#
# Of GPT-2's parameters 31% are in the token embedding, and of Llama 3 8B's 7%. Gemma 3 270M has a `vocab_size` of 262,144 and a `hidden_size` of 640. What is the share of its token embedding?

# %% prediction="orientation.embedding" id="prediction-orientation-embedding"
predict(
    "orientation.embedding", "share of the token embedding in Gemma 3 270M", unit="%",
    guess=...
)

# %% id="19986b71"
from grader import atlas

assert parameter_count(checkpoint.config) == sum(tensor.numel() for tensor in tensors.values())
assert all(parameter_count(each) == atlas.read(each).parameters for each in (gpt2, Config.read("configs/gpt2-xl.json")))

print(f"{'config':14} {'parameters':>14} {'GB in bf16':>11} {'embedding':>10}")
for name in ("gpt2", "smollm2-135m", "gemma-3-270m", "qwen3-0.6b", "gpt2-xl", "llama-3-8b", "qwen3-8b"):
    config = Config.read(f"configs/{name}.json")
    count = atlas.read(config).parameters
    embedding = config["vocab_size"] * config.get("n_embd", config.get("hidden_size"))
    print(f"{name:14} {count:>14,} {2 * count / 1e9:>11.2f} {embedding / count:>10.0%}")
    if name == "gemma-3-270m":
        share = embedding / count
measured("orientation.embedding", 100 * share)

# %% [markdown] id="5a5e51a4"
# <details><summary>What the numbers say</summary>
#
# In Gemma 3 270M, the token embedding alone is almost two thirds of the model, because it has 262,144 rows. In the 8-billion models the same kind of table is a few percent.
# </details>

# %% [markdown] id="89c77130"
# ## 8 · What you have, and what it is for
#
# | when | use | it tells you |
# |---|---|---|
# | you wrote one part | `check(name, Class)` | right or wrong on every case, and a known mistake by name |
# | the parts make a model | `compare_layers(Model)` | the first module that is wrong itself |
# | the model loads real weights | `check_generation(model, name, generate=...)` | the first token that differs, and whether it was a near-tie: two tokens nearly equally likely |
# | before any of it | the config, and a count | whether you understood the shapes |
#
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="6d7397d4"
# ## The questions again
#
# <details><summary>You ported a model and it writes nonsense. Where do you look first?</summary>
#
# At the first module, in the order of execution, whose output differs from the reference's on the same input and weights. Everything after it inherits the error. The text comes last: it tells you that something is wrong, but not where.
#
# </details>
#
# <details><summary>What does Python do when a model runs, and what doesn't it do?</summary>
#
# It describes which operators are applied to which tensors. PyTorch dispatches each to a kernel for the device and dtype, and the kernels compute. So one model file runs on a CPU, on a GPU, or on `meta`, which computes shapes only.
#
# </details>
#
# <details><summary>Training code and an inference engine share a checkpoint. What must they agree on that isn't in it?</summary>
#
# The forward pass: which tensor is used where, in which orientation, in which order, with which arithmetic. The weight file has names, shapes and numbers; the config has sizes and a few choices.
#
# </details>
#
# <details><summary>A square weight is used transposed. What notices?</summary>
#
# No shape check, and no `load_state_dict(strict=True)`. Only a comparison of numbers with a reference.
#
# </details>
#
# <details><summary>Why are a check's weights random, and its tolerance so small?</summary>
#
# With weights of ones or zeros a transposed weight changes nothing, so the test could not fail. And some mistakes are small: the wrong form of GELU is off by 5 · 10⁻⁴, which a tolerance of 10⁻² would accept.
#
# </details>
#
# <details><summary>Why does a check use made-up configs, and not only published ones?</summary>
#
# Published GPT-2s all leave the same fields at their defaults, and in published models different sizes are often equal: in five of our seven, the heads together are as wide as the hidden size. A program that confuses the two is right for those. In a made-up config no two sizes are equal.
#
# </details>
#
# <details><summary>Every module is right by itself, and the model's output is wrong. Where is the fault?</summary>
#
# In a line that connects modules, for example a sum that is missing. The first red row then belongs to a module that is right when it is given the right input.
#
# </details>
#
# <details><summary>Two right programs differ by 10⁻⁶. Is one of them wrong?</summary>
#
# Not for that reason. A floating-point sum depends on the order of its terms, and no order is the correct one. A wrong formula differs by much more.
#
# </details>
#
# <details><summary>GPT-2 has 124M parameters, or 163M, or 117M?</summary>
#
# 124,439,808 with the tied head counted once, 163,037,184 with it counted twice. 117M is a number in the paper that OpenAI later called wrong.
#
# </details>

# %% [markdown] id="209db5f0"
# ## Where to read on
#
# - The talk that this course follows: Sebastian Raschka, *From Scratch to Scale: Turning LLM Code into Architecture Insights*, PyCon DE & PyData 2026.
# - Dispatching: Edward Yang, *Let's talk about the PyTorch dispatcher* and *PyTorch internals* (blog.ezyang.com). In the code: `aten/src/ATen/native/native_functions.yaml` lists every operator that the profiler can show.
# - GPT-2: Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), section 2.3 and Table 2.
# - Counting without embeddings, and why: Kaplan et al., *Scaling Laws for Neural Language Models* (2020), section 2.1.
# - What these checks were recorded from: `transformers/models/gpt2/modeling_gpt2.py`, class `GPT2LMHeadModel`.
#
# ## If you want more
#
# No stub this time. Write `bytes_per_token(config)`: how much memory the keys and values of one token take in bfloat16, over all layers. In every layer each key-value head stores a key and a value of `head_dim` numbers. Compare your results with three figures from the talk's public architecture gallery: 36 KiB for GPT-2 124M, 300 KiB for GPT-2 XL, 144 KiB for Qwen3 8B. Suppose a context of 32,000 tokens (GPT-2 was trained for 1,024): for which of the seven configs would it need more memory than the weights? Lesson 02 is about that number.
