# %% [markdown] id="1cd00674"
# # 07 · Mixture of experts: more parameters, the same work
#
# **DeepSeek-V3 has 671 billion parameters and computes with 37 billion of them. Who decides, for every token, which?**
#
# Before you read on, write down how you would decide it, and what could go wrong.
#
# After this lesson you can
#
# - write the routers of Qwen3-MoE and DeepSeek-V3, their experts and the layer, each checked against Hugging Face transformers;
# - say, from a `config.json`, how many parameters a mixture of experts has and how many a token is computed with;
# - say how many bytes of weights a batch reads, and why such a model is fast for one user and hard to serve to many;
# - explain why some experts stop being used if nothing balances the load, and two ways to prevent it;
# - measure what an expert is worth to a trained model, by taking it out.
#
# 160 to 240 minutes · difficulty ●●●●○ · you know Qwen3 (lesson 03); its code is given
#
# A router gives every expert a score, the experts with the highest scores work on the token, and their outputs are added with the scores as weights. Here the word *she* goes to two of six:
#
# ![The token "she" goes to a router, which scores six experts: 0.05, 0.40, 0.08, 0.03, 0.32 and 0.12. Experts 1 and 4 have the highest scores. Divided by their sum, 0.72, the weights are 0.56 and 0.44. The outputs of experts 1 and 4, multiplied by these weights, are added. The other four experts do nothing.](figures/router.svg)
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# This is Qwen3 30B-A3B, drawn from its config, and the inside of its experts. A red ring marks what differs from Qwen3 8B:
#
# ![Qwen3 30B-A3B from the bottom up: token ids, the token embedding, 48 layers, a final RMSNorm and an output head. Each layer adds twice to the residual stream: attention with grouped queries, and 128 experts of which 8 work on a token. Each is behind an RMSNorm.](figures/qwen3-30b-a3b-model.svg) ![Inside the experts: a router, 2,048 to 128 and a softmax, chooses 8 of 128 gated experts, each 2,048 to 768 and back; a weighted sum adds their outputs. A layer has 604 million parameters here, of which a token uses 38 million.](figures/qwen3-30b-a3b-mlp.svg)

# %% tags=["setup"] id="setup"
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, compare_layers, load_checkpoint

# %% id="63faa304"
from grader import measured, predict, predictions

# %% [markdown] id="8ca24f47"
# Four small functions read the configs of both families, whichever names their fields have. The parts that lesson 03 built are folded below them.

# %% tags=["setup"] id="setup-2"
def num_experts(config: Config) -> int:
    """How many routed experts a layer has: each family has its own name for the field."""
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    return next(config[name] for name in names if name in config)


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, has experts in place of one MLP."""
    if config.model_type == "deepseek_v3":
        return layer >= config.first_k_dense_replace
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    return layer not in dense and (layer + 1) % step == 0

# %% tags=["setup"] id="setup-3"
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

# %% [markdown] id="9014e76f"
# ## Steps 1 to 5 · Read the config, compare
#
# The steps are those of the talk that this course follows (Sebastian Raschka, *From Scratch to Scale*, PyCon DE & PyData 2026). Three configs, with the fields that decide about MLPs:

# %% id="359e65c5"
from pathlib import Path

configs = {name: Config.read(f"configs/{name}.json") for name in ("qwen3-8b", "qwen3-30b-a3b", "deepseek-v3")}
fields = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "moe_intermediate_size", "num_experts",
          "n_routed_experts", "num_experts_per_tok", "n_shared_experts", "first_k_dense_replace", "n_group",
          "topk_group", "norm_topk_prob", "scoring_func", "routed_scaling_factor")
for field in fields:
    print(f"{field:>22}", *(f"{config.get(field, '-')!s:>14}" for config in configs.values()))

# %% [markdown] id="0e6544b6"
# | field | what it decides |
# |---|---|
# | `num_experts` 128, `n_routed_experts` 256 | how many MLPs a layer has to choose from: the same field under two names |
# | `num_experts_per_tok` 8 | k: how many of them work on a token |
# | `moe_intermediate_size` 768, 2048 | the inner width of one expert. Eight of Qwen3's have 6144 channels together, which is `intermediate_size` |
# | `n_shared_experts` 1 | experts that work on every token, whatever the router says |
# | `first_k_dense_replace` 3 | in DeepSeek-V3 the first three layers have one ordinary MLP. Qwen3-MoE says it with `mlp_only_layers` and `decoder_sparse_step` |
# | `norm_topk_prob` | whether the weights of the chosen experts are divided by their sum |
# | `scoring_func` `sigmoid` | how logits become scores. Qwen3-MoE has no such field: it is always a softmax |
# | `n_group` 8, `topk_group` 4 | experts in groups, and from how many groups a token's experts may come |
# | `routed_scaling_factor` 2.5 | what the weights of the routed experts are multiplied by |
#
# Only the MLP is new. Attention, norms, embedding and head of Qwen3 30B-A3B have other sizes than Qwen3 8B's, but they compute the same, and you have built them. (DeepSeek-V3's attention is lesson 05.)
#
# ## First without a router: how much of an MLP does a token use?
#
# A gated MLP computes $W_{down}\,(\mathrm{SiLU}(W_{gate} x) \odot W_{up} x)$. Cut its inner channels into 8 slices. Each slice, with its rows of gate and up and its columns of down, is a small MLP, and the sum of the 8 outputs is the output of the whole. So an MLP **is** eight experts that are all used with weight 1.
#
# Does a token need all eight? Take `austen-qwen3` of lesson 03 (folded: the model) and keep only k slices for each token, in every layer: those whose output is the longest vector, or k at random. The loss on *Persuasion* with all 8 slices is 4.2 nats. With 4 at random it is 1.2 nats higher. How much higher is it with the longest 2?

# %% prediction="moe.slices" id="prediction-moe-slices"
predict(
    "moe.slices", "rise of the loss with the longest 2 of 8 slices", unit="nats",
    guess=...
)

# %% jupyter={"source_hidden": true} id="1b7abfde"
class Dense(nn.Module):
    """Qwen3 as lesson 03 built it, for a tied head: ids [B, T] -> logits [B, T, vocab_size]."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.model = config, nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        table = rope_table(torch.arange(ids.shape[1]), head_dim(self.config), rope_theta(self.config))
        for layer in self.model.layers:
            x = layer(x, table)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

# %% id="901ec902"
class SlicedMLP(MLP):
    """The same MLP as a sum over slices of its inner channels, of which `keep` says which count."""

    keep, slices = staticmethod(torch.ones_like), 8

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.silu(self.gate_proj(x)) * self.up_proj(x)  # [B, T, width]
        hidden = hidden.unflatten(-1, (self.slices, -1))  # [B, T, S, width / S]
        down = self.down_proj.weight.unflatten(-1, (self.slices, -1))  # [D, S, width / S]
        outputs = torch.einsum("btsw,dsw->btsd", hidden, down)  # what each slice gives
        return (outputs * self.keep(outputs.norm(dim=-1))[..., None]).sum(dim=2)

# %% id="83c34905"
def longest(k: int):
    """Keep the k slices with the longest outputs: [B, T, S] -> [B, T, S] of 0 and 1."""
    return lambda lengths: torch.zeros_like(lengths).scatter(-1, lengths.topk(k, dim=-1).indices, 1.0)


def at_random(k: int):
    """Keep k slices, others for each token."""
    return lambda lengths: longest(k)(torch.rand(lengths.shape, generator=torch.Generator().manual_seed(0)))


def same_for_all(k: int):
    """Keep the k slices that are longest on average, the same ones for every token."""
    return lambda lengths: longest(k)(lengths.mean(dim=(0, 1), keepdim=True).expand_as(lengths))

# %% tags=["nbval-ignore-output"] id="9d08c3d6"
qwen = load_checkpoint("austen-qwen3")
dense = Dense(qwen.config).eval()
qwen.load_into(dense)
persuasion = qwen.tokenizer.encode(Path("texts/persuasion.txt").read_text(encoding="utf-8")).ids
held_out = torch.tensor(persuasion[: 8 * 256]).view(8, 256)  # no austen model was trained on it


@torch.no_grad()
def loss(model: nn.Module, ids: Tensor = held_out) -> float:
    """The mean surprise at the next token, in nats."""
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()

# %% tags=["nbval-ignore-output"] id="c706f43c"
from grader.instruments import patch

for layer in dense.model.layers:
    layer.mlp.__class__ = SlicedMLP
nats = {}
for name, keep in (("all 8", torch.ones_like), ("longest 4", longest(4)), ("longest 2", longest(2)),
                   ("4 at random", at_random(4)), ("2 at random", at_random(2)), ("the same 2", same_for_all(2))):
    with patch.replaced(SlicedMLP, keep=staticmethod(keep)):
        nats[name] = loss(dense)
    print(f"{name:>12}: {nats[name]:.2f} nats")
with_all_slices = nats["all 8"]
measured("moe.slices", nats["longest 2"] - with_all_slices)

# %% [markdown] id="b0688b94"
# <details><summary>What the numbers say</summary>
#
# The longest 2 of 8 do as well as 4 at random, and the longest 4 lose 0.4 nats. So a token does not need all slices alike, and which ones it needs depends on the token: the same two for all tokens, those that are longest on average, are much worse. A quarter of the slices, chosen by their outputs, gives the same loss as half of them chosen at random.
# </details>

# %% [markdown] id="4c422001"
# Two things are missing. The choice was made *after* all slices had been computed, so nothing was saved: something has to choose from x alone, before the slices are computed. And this model was never trained to use only some of its slices. A mixture of experts has both: a router, and training with it from the first step.
#
# ### Does it pay?
#
# The title promises more parameters for the same work. Is that worth anything? Tiny models were trained on five of Austen's novels that differ only in what stands in an MLP's place: one gated MLP; eight experts of half its width, of which a token uses two, so that the work is the same and the parameters are four times as many; and one MLP with as many parameters as the eight experts, which does four times the work. All have two layers, a token is a byte, each is trained for 2,000 steps from five seeds. `training/mixture.py` in the course's repository is the script.
#
# Four times the work lowers the loss. How much of that gain does the mixture reach, without the work?

# %% prediction="moe.gain" id="prediction-moe-gain"
predict(
    "moe.gain", "the mixture's part of the gain that four times the work gives",
    one_of=("less than a third", "between one and two thirds", "more than two thirds"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="9840329e"
import json

from grader.instruments import plots

mixture = json.loads(Path("texts/mixture.json").read_text())
names = {"dense": "one MLP", "mixture": "8 experts, 2 a token", "dense, all parameters": "one MLP, 4 times as wide"}
curves, ends = {}, {}
for kind, name in names.items():
    runs = torch.tensor(mixture["held_out_nats"][kind])  # [seeds, measurements]
    curves[name], ends[kind] = (mixture["steps"][10:], runs.mean(dim=0)[10:]), runs[:, -1]
    size = mixture["mlps"][kind]
    print(f"{name:>24}: {size['parameters']:7,} parameters, {size['multiply_adds']:7,} multiply-adds a token, nats",
          *(f"{end:.3f}" for end in ends[kind]))
plots.lines(curves, plots.Axes("steps", "loss on Persuasion, nats a byte"))

# %% tags=["nbval-ignore-output"] id="7c02ad49"
dense_end, mixture_end, wide_end = ends.values()
gains = (dense_end - mixture_end) / (dense_end - wide_end)
part = (dense_end - mixture_end).mean() / (dense_end - wide_end).mean()
print(f"part of the gain: {part:.0%}; seed by seed", *(f"{gain:.0%}" for gain in gains))
thirds = ("less than a third", "between one and two thirds", "more than two thirds")
measured("moe.gain", thirds[(part > 1 / 3) + (part > 2 / 3)])

# %% [markdown] id="123ef964"
# <details><summary>What the numbers say</summary>
#
# About two fifths on average: the mixture ends 0.03 nats lower than the MLP that does the same work, and the wide MLP 0.07. Runs of the same MLP end 0.03 apart, so compare seed by seed, where both saw the same batches: with one seed of five the mixture is no better, with the others it gains 0.03 to 0.05, and its part of the gain is anything from none to nearly all. So it seems to pay, by how much five seeds don't tell, and less than the same parameters do if all of them work on every token. Each expert has learned from a quarter of the tokens only; large models are trained on far more. Switch Transformer (Fedus et al., 2021, section 3.1) with 64 experts and 1 a token reached after 60,000 steps the loss that a dense model of the same work had after 450,000.
# </details>

# %% [markdown] id="f7d91b6d"
# ### Why many small experts?
#
# Qwen3 30B-A3B has 128 experts and uses 8. With 16 experts of eight times the width it could use one, for the same work. Cut the MLP of `austen-qwen3` into 4, 8, and so on up to 128 slices, and always keep the longest quarter of them. The work is the same in every line. With 4 slices the loss is 1.5 nats higher than with the whole MLP. How much higher is it with 128?

# %% prediction="moe.finer" id="prediction-moe-finer"
predict(
    "moe.finer", "rise of the loss with the longest 32 of 128 slices", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="0f066f33"
from math import comb

for slices in (4, 8, 16, 32, 64, 128):
    quarter = slices // 4
    with patch.replaced(SlicedMLP, keep=staticmethod(longest(quarter)), slices=slices):
        quarter_loss = loss(dense)
    print(f"the longest {quarter:2} of {slices:3}: {quarter_loss:.2f} nats, {comb(slices, quarter):.2g} ways to choose them")
measured("moe.finer", quarter_loss - with_all_slices)


# %% [markdown] id="dc509b7b"
# <details><summary>What the numbers say</summary>
#
# 0.27 nats, a sixth of what it is with 4 slices. Many small slices can be combined in more ways, so the choice fits the token better. But this choice has seen the outputs. A router has to predict it from x, and predicting the best of 128 is harder than the best of 4, so a trained model gains less from finer experts than this picture shows. DeepSeekMoE (Dai et al., 2024, sections 3.1 and 4.4) trained models with finer and finer experts, and each step lowered the loss. There is a limit: the paper stops where experts become too small to compute efficiently.
# </details>

# %% [markdown] id="7216d814"
# ## The router
#
# The router is one matrix with a row for each expert. The dot product of a token's vector with the row is the expert's logit. It is large for the tokens that this expert has learned to work on. A softmax over all experts turns logits into scores, the k highest are chosen, and their scores are the weights of the sum:
#
# $$s = \mathrm{softmax}(W x), \qquad y = \sum_{e \in \mathrm{top}\,k(s)} \frac{s_e}{\sum_{j \in \mathrm{top}\,k(s)} s_j}\; \mathrm{expert}_e(x)$$
#
# The division is what `norm_topk_prob` asks for. Why weights at all, and not a plain sum? Choosing has no gradient: after a small change of W the same k experts are chosen. W learns only through the weights. Their gradient says for each chosen expert whether it should have counted more or less.
#
# ### Exercise 1 · Qwen3-MoE's router
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The check compares the weight of every expert for every token, with 0 for experts that were not chosen. The order within your top-k does not matter.
#
# <details><summary>Hint 1</summary>
#
# `F.linear(x, self.weight)` gives the logits. The softmax needs `dtype=torch.float32`: in bfloat16 many of 128 scores would be equal.
#
# <details><summary>Hint 2</summary>
#
# `topk` returns values and indices. The values are the weights already, up to one division; which field asks for it, and along which axis is the sum?
#
# <details><summary>Hint 3</summary>
#
# Cast the weights to `x.dtype` at the very end.
# </details>
# </details>
# </details>

# %% exercise="moe.softmax_router" id="moe-softmax_router"
class SoftmaxRouter(nn.Module):
    """Choose k experts for each token, and how much each counts: Qwen3-MoE's router.

    Scores: the softmax over *all* experts of x W^T, in float32. The k experts with the highest scores are chosen, and
    their scores are their weights; where config.norm_topk_prob is true, divided by their sum.
    Part: weight, an nn.Parameter [num_experts(config), hidden_size]. k is config.num_experts_per_tok.
    x: [N, D] -> weights [N, k] in x's dtype, indices of the chosen experts [N, k] int64; both in the same order,
    whichever it is. transformers: Qwen3MoeTopKRouter; Shazeer et al. (2017), section 2.1.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.top_k, self.normed = config.num_experts_per_tok, config.norm_topk_prob
        self.weight = nn.Parameter(torch.zeros(num_experts(config), config.hidden_size))
        ### END SOLUTION

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        logits = F.linear(x, self.weight)  # [N, D] -> [N, E]
        scores = logits.softmax(dim=-1, dtype=torch.float32)
        weights, chosen = scores.topk(self.top_k, dim=-1)  # 2 x [N, k]
        if self.normed:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights.to(x.dtype), chosen
        ### END SOLUTION

# %% check="moe.softmax_router" tags=["nbval-ignore-output"] id="check-moe-softmax_router"
check("moe.softmax_router", SoftmaxRouter)


# %% [markdown] id="bdc8f4ac"
# ### Softmax first, or top-k first?
#
# gpt-oss takes the top-k of the logits first, and a softmax over those that are left. For which value of `norm_topk_prob` do the two orders give the same weights?

# %% id="06e591cd"
five_logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
first_softmax = five_logits.softmax(dim=-1).topk(2).values
first_topk = five_logits.topk(2).values.softmax(dim=-1)
rows = {"softmax, then top-2": first_softmax, "the same, divided by its sum": first_softmax / first_softmax.sum(),
        "top-2, then softmax": first_topk}
for name, weights in rows.items():
    print(f"{name:>29}: {weights[0]:.3f} {weights[1]:.3f}, together {weights.sum():.3f}")

# %% [markdown] id="943368b2"
# <details><summary>The answer</summary>
#
# Where the weights are divided by their sum: $e^{a} / (e^{a} + e^{b})$ is the same whether the other experts were in the sum before or not. Without the division the first order gives a sum below 1. Then an unsure router also makes the layer's output smaller. OLMoE was trained so, and a port that took the softmax over the top-k wrote fluent text that drifted off (<a href="https://github.com/lablup/mlxcel/pull/391">lablup/mlxcel#391</a>).
# </details>
#
# And with `norm_topk_prob` true and k = 1, how large is the largest gradient that reaches the router's weight? The cell takes it of the sum of all first weights, for six random tokens. With k = 2 it is 0.5.

# %% prediction="moe.one_expert" id="prediction-moe-one_expert"
predict(
    "moe.one_expert", "largest gradient of the router with k = 1",
    guess=...
)

# %% id="f361acc6"
five = Config({"hidden_size": 4, "num_experts": 5, "norm_topk_prob": True})
for top in (1, 2):
    one_gate = SoftmaxRouter(five.replace(num_experts_per_tok=top))
    torch.manual_seed(0)
    nn.init.normal_(one_gate.weight)
    one_gate(torch.randn(6, 4))[0][:, 0].sum().backward()  # the weights of the first choices
    largest = one_gate.weight.grad.abs().max()
    print(f"{top} of 5 experts: the largest gradient is {largest:.0e}")
    if top == 1:
        with_one = largest
measured("moe.one_expert", with_one)

# %% [markdown] id="4d19a8fb"
# <details><summary>What the numbers say</summary>
#
# Divided by its sum, the one weight is always 1, whatever the logits are, so the router gets no gradient and learns nothing (<a href="https://github.com/jingyaogong/minimind/issues/858">jingyaogong/minimind#858</a> trained such a model). Models with one expert a token leave the division out.
# </details>

# %% [markdown] id="b43aced4"
# ## What if every token goes to the same expert?
#
# At the start of training all experts are random. One is slightly better by chance, so the router sends it more tokens; it learns from them, becomes better, and is sent still more. Experts that are not chosen get no gradient and stay as they are.
#
# These are tiny models (16 experts, 2 for each token, two layers, a token is one byte) that read Austen for 300 steps, each from three seeds: without any balance, and with two kinds of it. `training/balance.py` in the course's repository has everything. Without any balance, how many of the 32 experts get less than a tenth of an equal share of the tokens at the end?

# %% prediction="moe.idle" id="prediction-moe-idle"
predict(
    "moe.idle", "experts of 32 with less than a tenth of an equal share, without balance",
    guess=...
)

# %% id="ea114e36"
balance = json.loads(Path("texts/balance.json").read_text())


def idle(shares: list[list[float]]) -> int:
    """How many experts get less than a tenth of an equal share, in both layers together."""
    return sum(share < 0.1 / balance["experts"] for layer in shares for share in layer)


def mean(values) -> float:
    return sum(values) / len(values)

# %% id="d1fbea27"
for name, runs in balance["runs"].items():
    nats = [f"{run['held_out_nats'][-1]:.2f}" for run in runs]
    dead = [f"{idle(run['shares'][-1]):2}" for run in runs]
    most = [f"{max(map(max, run['shares'][-1])):3.0%}" for run in runs]
    print(f"{name:>24}:  nats", *nats, "  idle", *dead, "  most", *most)
measured("moe.idle", mean([idle(run["shares"][-1]) for run in balance["runs"]["no balance"]]))

# %% [markdown] id="50a2cee7"
# <details><summary>What the numbers say</summary>
#
# ![Idle experts over the steps of training, the mean of the seeds. Within 60 steps all three rise from 16, without balance to 28 of 32. It then falls slowly, to 19 at the end; with the loss for unequal load it is near 0 from step 240 on; with the bias it ends at 5.](figures/balance.svg)
#
# At first all three send nearly everything to a few experts; a loss or a bias needs steps to act. Without balance more than half of the experts still do next to nothing after 300 steps, and the busiest has more than 40% of the choices, where an equal share would be 6%. That the number falls from 28 to 19 without any help means that the story above is not the whole one: an expert without tokens gets no gradient, but the rows of the others go on changing, and where their scores fall below its own it is chosen again. The loss on the text hardly shows it: for so small a model the experts that are left are enough, and the bias, moved in coarse steps, even costs a little. Whether a large model is worse without balance, these runs can't say. What is sure: parameters that no token uses are paid for and do nothing, and where experts are spread over machines, all others wait for the machine that holds the busiest expert.
# </details>

# %% [markdown] id="fc8147ee"
# Two cures:
#
# **A loss for unequal load** (Switch Transformer, Fedus et al., 2021, equation 4). $f_e$ is the share of the tokens that chose expert e, and $p_e$ its mean score. $E \sum_e f_e\, p_e$ is k, the number of experts chosen, where the load is equal, and more where the experts with many tokens also have high scores. Its gradient goes through $p_e$, and pushes the scores of busy experts down most. It is added to the loss with a small factor, `router_aux_loss_coef`. Qwen3-MoE and `austen-moe` were trained so. Its disadvantage: its gradient can oppose that of the main loss (Wang et al., 2024).
#
# **A bias for the choice only** (DeepSeek-V3, section 2.1.2). Each expert has a number that is added to its score when experts are chosen, and at no other time. No gradient trains it. After every step it goes up a little for experts with too few tokens, and down for those with too many. The next cell does that with a router that is not trained at all, on tokens that are similar to each other. Does the load become equal?

# %% tags=["nbval-ignore-output"] id="6ab415fd"
torch.manual_seed(0)
tokens = torch.randn(512, 32) + 2 * torch.randn(32)  # they share a direction, so a few experts get most of them
sigmoids = (tokens @ torch.randn(32, 8)).mul(0.2).sigmoid()  # [512, 8]
bias = torch.zeros(8)
for step in range(401):
    load = sigmoids.add(bias).topk(2).indices.flatten().bincount(minlength=8)
    if step in (0, 50, 100, 399, 400):
        print(f"step {step:3}: tokens for each expert {load.tolist()}")
    bias += 0.005 * (load.float().mean() - load).sign()
print("biases at the end:", [round(b, 2) for b in bias.tolist()])

# %% [markdown] id="b4465b9d"
# An equal load would be 128 tokens for each expert. The bias comes close to it, and the weights of the sum are still the router's own scores. It never gets there: only the sign of the difference counts, and every step is 0.005, so in the end it steps back and forth between two states, as steps 399 and 400 show. Try a smaller step.
#
# ### Exercise 2 · DeepSeek-V3's router
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# Four things are new.
#
# **Sigmoids.** An expert's score does not depend on the other experts' logits. Why DeepSeek left the softmax, its report does not say; after the exercise it is tried.
#
# **The bias for the choice only.** `e_score_correction_bias` changes which experts are chosen. The weights are the scores without it. This went wrong in public more than once: in vLLM (<a href="https://github.com/vllm-project/vllm/pull/12002">vllm-project/vllm#12002</a>), and in transformers after a refactoring (<a href="https://github.com/huggingface/transformers/pull/41663">huggingface/transformers#41663</a>).
#
# **Groups.** DeepSeek-V3's 256 experts are 8 groups of 32, spread over machines. A token may use experts of 4 groups only, so that it is sent to at most 4 machines (sections 2.1.2 and 4.2). A group's score is the sum of its two highest scores, since a token takes two experts from each of its groups on average: 8 from 4.
#
# **A factor.** The weights are divided by their sum and multiplied by `routed_scaling_factor`: they sum to 2.5, beside the shared expert's weight of 1. For this number no reason is given. (The 1e-20 in the formula only prevents 0 / 0.)
#
# All of it is computed in float32, whatever x's dtype is. The bias is no parameter: make it a buffer, so that it is saved with the weights and no optimiser touches it.
#
# <details><summary>Hint 1: the groups</summary>
#
# `unflatten(-1, (n_group, -1))` makes [N, E] into [N, n_group, E / n_group]: neighbours form a group. Then `topk(2)` and a sum.
#
# <details><summary>Hint 2: leaving out the other groups</summary>
#
# No expert of the other groups may be chosen, also where all scores plus biases of the best groups are negative. Which number is smaller than all others?
#
# <details><summary>Hint 3: the mask</summary>
#
# `scatter` writes into a tensor of booleans at given indices: [N, n_group], True everywhere, False at the best groups. `[..., None]` gives it the axis for the experts of a group.
#
# <details><summary>Hint 4: the weights</summary>
#
# `gather(1, chosen)` picks the values of a tensor at the chosen indices. Pick them from the scores *without* bias.
# </details>
# </details>
# </details>
# </details>

# %% exercise="moe.sigmoid_router" id="moe-sigmoid_router"
class SigmoidRouter(nn.Module):
    """Choose k experts from the best groups, with a bias that only the choice sees: DeepSeek-V3's router.

    s = sigmoid(x W^T), all in float32. The choice is made by s + e_score_correction_bias: the E experts are n_group
    groups of neighbours, a group's score is the sum of its two highest, the topk_group best groups stay, and of their
    experts the k highest are chosen. Weights: s of the chosen, without the bias; where norm_topk_prob, divided by
    (their sum + 1e-20); times routed_scaling_factor.
    Parts: weight, a Parameter [E, D], and e_score_correction_bias, a buffer [E] in float32, at first zeros.
    x: [N, D] -> weights [N, k] float32, indices [N, k] int64. transformers: DeepseekV3TopkRouter; DeepSeek-V3 (2024), 2.1.2.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        self.config = config
        self.weight = nn.Parameter(torch.zeros(num_experts(config), config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(num_experts(config)))
        ### END SOLUTION

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ### BEGIN SOLUTION
        scores = F.linear(x.float(), self.weight.float()).sigmoid()  # [N, D] -> [N, E]
        choice = scores + self.e_score_correction_bias
        groups = choice.unflatten(-1, (self.config.n_group, -1))  # [N, G, E / G]
        group_scores = groups.topk(2, dim=-1).values.sum(dim=-1)  # [N, G]
        best = group_scores.topk(self.config.topk_group, dim=-1).indices
        closed = torch.ones_like(group_scores, dtype=torch.bool).scatter(1, best, False)  # [N, G]
        choice = groups.masked_fill(closed[..., None], float("-inf")).flatten(1)  # [N, E]
        chosen = choice.topk(self.config.num_experts_per_tok, dim=-1).indices  # [N, k]
        weights = scores.gather(1, chosen)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights * self.config.routed_scaling_factor, chosen
        ### END SOLUTION

# %% check="moe.sigmoid_router" tags=["nbval-ignore-output"] id="check-moe-sigmoid_router"
check("moe.sigmoid_router", SigmoidRouter)


# %% [markdown] id="cbcbe5b5"
# ### Why not subtract the bias again?
#
# One program chose by `score + bias` and computed the weight as `chosen value - bias`. In real numbers that is the score. What comes out in float32 for a score of 0.0000001 and a bias of 12, numbers like those in its bug report?

# %% id="8e914f54"
small_score, large_bias = torch.tensor(1e-7), torch.tensor(12.0)
print(f"(score + bias) - bias = {((small_score + large_bias) - large_bias).item()}")
print(f"in bfloat16, 12 + 0.01 = {(torch.tensor(12.0) + 0.01).bfloat16().item()}")

# %% [markdown] id="9b0ad172"
# <details><summary>What happened</summary>
#
# Next to 12, float32 has steps of about 0.000001. The score is lost, and every weight is 0 (<a href="https://github.com/flashinfer-ai/flashinfer/pull/3875">flashinfer-ai/flashinfer#3875</a>). For the same reason the bias must stay in float32: in bfloat16 numbers around 12 are 0.0625 apart, and the bias's fine steps disappear (<a href="https://github.com/vllm-project/vllm/pull/23640">vllm-project/vllm#23640</a>, <a href="https://github.com/huggingface/transformers/pull/42580">huggingface/transformers#42580</a>).
# </details>

# %% [markdown] id="a3e9a9f7"
# ### Does the sigmoid train better?
#
# The reports give no reason, so try it. The tiny model of the balance experiment was trained again from five seeds, once with a softmax and once with sigmoids, with the loss for unequal load in both, the same first weights and the same batches (`training/routers.py`). With how many of the five seeds does the sigmoid end with the lower loss?

# %% prediction="moe.sigmoid" id="prediction-moe-sigmoid"
predict(
    "moe.sigmoid", "seeds of five with which sigmoids end lower than the softmax",
    guess=...
)

# %% id="eda63a0b"
runs_of = json.loads(Path("texts/routers.json").read_text())["runs"]
last_nats = {name: [run["held_out_nats"][-1] for run in runs] for name, runs in runs_of.items()}
for name, nats_by_seed in last_nats.items():
    idle_experts = [idle(run["shares"]) for run in runs_of[name]]
    print(f"{name}: nats", *(f"{nats:.2f}" for nats in nats_by_seed), "  idle", *idle_experts)
lower = [one - other for one, other in zip(last_nats["sigmoid"], last_nats["softmax"], strict=True)]
print("seed by seed:", *(f"{difference:+.2f}" for difference in lower), f"  mean {mean(lower):+.3f}")
measured("moe.sigmoid", sum(difference < 0 for difference in lower))

# %% [markdown] id="4caf024b"
# <details><summary>What the numbers say</summary>
#
# With three of five, and 0.01 nats *higher* on average, where runs of the same model end 0.2 apart. So this experiment finds no difference, which does not mean that there is none in a large model, or with many experts for each token, or with the bias in place of the loss. V3's report gives no reason, and here the question stays open.
# </details>

# %% [markdown] id="41095832"
# ### And the factor of 2.5?
#
# The report gives no reason for `routed_scaling_factor` either. The same tiny model, with sigmoids and with a shared expert whose weight is 1, was trained with a factor of 1 and with one of 2.5, from three seeds, with the same first weights and the same batches for both (`training/routed_factor.py`). Which of the two is better, and is it so with every seed?

# %% id="2110183e"
scaled = json.loads(Path("texts/routed-factor.json").read_text())["runs"]
last_of = {factor: [run["held_out_nats"][-1] for run in runs] for factor, runs in scaled.items()}
for factor, nats_by_seed in last_of.items():
    print(f"factor {factor:>3}: nats", *(f"{nats:.2f}" for nats in nats_by_seed))
higher = [large - one for large, one in zip(last_of["2.5"], last_of["1"], strict=True)]
print("seed by seed:", *(f"{difference:+.2f}" for difference in higher), f"  mean {mean(higher):+.3f}")

# %% [markdown] id="ab74dbb8"
# With two seeds the factor of 2.5 ends 0.04 and 0.05 nats higher, and with the third both end alike; runs of the same model end 0.1 apart. So here it does not help, and three seeds don't tell whether it harms. That says little about DeepSeek-V3: there 8 experts share the weights, so with a factor of 1 each would count for an eighth beside the shared expert, and in this model 2 experts count for a half each. What the factor is for stays open.

# %% [markdown] id="6fb87ff8"
# ## The experts
#
# ### Exercise 3 · Experts in a loop
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# An expert is a gated MLP. transformers stacks the weights of a layer's experts in two tensors, and so do we; files on the hub have three matrices for each expert, and you will see how they are put together.
#
# The loop goes over experts, and not over tokens: in a product with many rows each weight is fetched once and used for all of them. Lesson 02 measured how much that saves. For each expert: find the tokens that chose it, compute them, multiply by their weights, and add the result to those tokens' rows.
#
# The check counts multiply-adds too. Running every expert on every token and multiplying by 0 gives the right sum, and saves nothing.
#
# <details><summary>Hint 1</summary>
#
# `torch.where(chosen == expert)` gives two tensors: the rows, which are tokens, and the columns. A token's weight for this expert is `weights[row, column]`.
#
# <details><summary>Hint 2</summary>
#
# `F.linear(rows, self.gate_up_proj[expert])` is [n, 2 · width]; `chunk(2, dim=-1)` gives gate and up.
#
# <details><summary>Hint 3</summary>
#
# `output.index_add_(0, token, rows)` adds each row to the row of its token. Both need the same dtype.
# </details>
# </details>
# </details>

# %% exercise="moe.experts" id="moe-experts"
class Experts(nn.Module):
    """E gated MLPs whose weights are stacked; each works on the tokens that chose it.

    A token's output is the sum over its chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x)).
    Parts, nn.Parameters: gate_up_proj [E, 2 * moe_intermediate_size, D], an expert's gate above its up, and
    down_proj [E, D, moe_intermediate_size]. For every expert they have the form of nn.Linear's weight, [out, in].
    x: [N, D], chosen: [N, k] int64, weights: [N, k], in x's dtype or float32 -> [N, D] in x's dtype.
    transformers: Qwen3MoeExperts.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        E, D, width = num_experts(config), config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.zeros(E, 2 * width, D))
        self.down_proj = nn.Parameter(torch.zeros(E, D, width))
        ### END SOLUTION

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        output = torch.zeros_like(x)
        for expert in range(len(self.down_proj)):
            token, place = torch.where(chosen == expert)  # 2 x [n]: the n tokens that chose it
            gate, up = F.linear(x[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            given = F.linear(F.silu(gate) * up, self.down_proj[expert])  # [n, D]
            output.index_add_(0, token, (given * weights[token, place, None]).to(x.dtype))
        return output
        ### END SOLUTION

# %% check="moe.experts" tags=["nbval-ignore-output"] id="check-moe-experts"
check("moe.experts", Experts)


# %% [markdown] id="25982b66"
# ### How many multiply-adds are saved?
#
# Take experts of Qwen3 30B-A3B's proportions, at an eighth of its width: 128 experts, of which a token uses 8. How many multiply-adds does a token take, compared with an MLP that is as wide as all 128 experts together?

# %% id="15768213"
from grader.instruments import clock, work

small = Config({"model_type": "qwen3_moe", "hidden_size": 256, "moe_intermediate_size": 96, "num_experts": 128,
                "num_experts_per_tok": 8, "norm_topk_prob": True})


@torch.no_grad()
def filled(module: nn.Module) -> nn.Module:
    """The module with random weights, as large as an initialisation makes them."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return module.eval()

# %% id="37f0fbd8"
router, experts = filled(SoftmaxRouter(small)), filled(Experts(small))
whole = filled(MLP(Config({"hidden_size": 256, "intermediate_size": 128 * 96})))
x = torch.randn(64, 256)
with torch.no_grad():
    weights, chosen = router(x)
    for name, run in (("128 experts, 8 chosen", lambda: experts(x, chosen, weights)), ("one wide MLP", lambda: whole(x))):
        print(f"{name:>22}: {work.multiply_adds(run) / len(x):12,.0f} multiply-adds a token")

# %% [markdown] id="0de011aa"
# A sixteenth, with the same number of parameters. (The router's own 128 · 256 come on top.)
#
# ### Exercise 4 · Sort first
# difficulty ●●●●○ · importance ●●●○○ · 20 minutes
#
# The loop searches all choices once for each expert, and picks and adds rows for each. With 128 experts that is many small operations. Every fast implementation sorts instead: flatten the choices [N, k] to N · k pairs of token and expert, order the pairs by expert, pick all rows at once, and each expert's rows are a run of neighbours, which is a slice and needs no copy. At the end one operation adds all rows to their tokens.
#
# ![Four tokens choose two experts each. Flattened: pairs 0 to 7. Sorted by expert, the pairs of expert 0 come first, then those of expert 1, and so on: each expert's rows are neighbours.](figures/sorted.svg)
#
# Grouped kernels go on from here: they compute all runs in a single call, instead of a product for each expert.
#
# <details><summary>Hint 1</summary>
#
# `chosen.flatten().argsort()` gives the pairs' indices by expert. Pair p belongs to token p // k.
#
# <details><summary>Hint 2</summary>
#
# `bincount(minlength=E)` counts the rows of each expert, and `rows.split(counts.tolist())` cuts them into runs.
#
# <details><summary>Hint 3</summary>
#
# The weights must be put in the same order as the rows. `torch.cat` joins the experts' outputs; `index_add` adds them to the rows of their tokens.
# </details>
# </details>
# </details>

# %% exercise="moe.sorted_experts" id="moe-sorted_experts"
class SortedExperts(Experts):
    """The same experts; the rows are sorted by expert first, and each expert works on a run of neighbouring rows.

    At most 8 operations pick rows by index or add them, however many experts there are; slicing is none of them.
    Parts, arguments and result are those of Experts. transformers: grouped_mm_experts_forward in integrations/moe.py.
    """

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        order = chosen.flatten().argsort(stable=True)  # [N * k]: the pairs of token and expert, by expert
        token = order // chosen.shape[1]  # [N * k]: which token each pair belongs to
        counts = chosen.flatten().bincount(minlength=len(self.down_proj)).tolist()
        given = []
        for expert, rows in enumerate(x[token].split(counts)):  # [n, D]
            gate, up = F.linear(rows, self.gate_up_proj[expert]).chunk(2, dim=-1)
            given.append(F.linear(F.silu(gate) * up, self.down_proj[expert]))
        weighted = torch.cat(given) * weights.flatten()[order, None]  # [N * k, D]
        return torch.zeros_like(x).index_add(0, token, weighted.to(x.dtype))
        ### END SOLUTION

# %% check="moe.sorted_experts" tags=["nbval-ignore-output"] id="check-moe-sorted_experts"
check("moe.sorted_experts", SortedExperts)


# %% [markdown] id="9c56b9e1"
# Which of the two is faster for one token?

# %% prediction="moe.sorting" id="prediction-moe-sorting"
predict(
    "moe.sorting", "the faster one for one token", one_of=("the loop", "sorting", "neither, within a tenth"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="9dc4dd2a"
by_sorting = SortedExperts(small).eval()
by_sorting.load_state_dict(experts.state_dict())


@torch.no_grad()
def both_ways(x: Tensor) -> dict[str, float]:
    """The milliseconds of both, in turns."""
    weights, chosen = router(x)
    runs = {"loop": lambda: experts(x, chosen, weights), "sorted": lambda: by_sorting(x, chosen, weights)}
    return clock.in_turns(runs, repeats=5)

# %% tags=["nbval-ignore-output"] id="a60282fd"
for tokens in (1, 256):
    spent = both_ways(torch.randn(tokens, 256))
    print(f"{tokens:4} tokens: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items()))
    if tokens == 1:
        for_one = spent
times = for_one["loop"] / for_one["sorted"]
measured("moe.sorting", "sorting" if times > 1.1 else "the loop" if times < 0.9 else "neither, within a tenth")

# %% [markdown] id="dcc9813f"
# <details><summary>What the numbers say</summary>
#
# For one token the loop searches the choices once for each of the 128 experts, although the token chose 8. Sorting orders all choices once. (If your loop goes over the chosen experts alone, as `chosen.unique()` gives them, it was about as fast as sorting for one token where we tried it.) With 256 tokens every expert has rows, and the products, which are the same in both, take a larger part of the time; sorting still comes out ahead.
# </details>

# %% [markdown] id="f6b2450a"
# ### What does rounding do to a choice?
#
# In most layers a rounding changes a result a little. A router chooses, and a choice is all or nothing. Take the same inputs and the same weights, all bfloat16, and compute the logits of 128 experts once in float32 and once in bfloat16. How many of the tokens get another set of 8 experts?

# %% prediction="moe.moved" id="prediction-moe-moved"
predict(
    "moe.moved", "tokens that get other experts when logits are rounded", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="f720a44f"
import copy

x, in_bfloat16 = torch.randn(2048, 256).bfloat16(), copy.deepcopy(router).bfloat16()
in_float32 = copy.deepcopy(in_bfloat16).float()  # the same numbers
with torch.no_grad():
    (fine_weights, fine), (coarse_weights, coarse) = in_float32(x.float()), in_bfloat16(x)
    as_fine, as_coarse = experts(x.float(), fine, fine_weights), experts(x.float(), coarse, coarse_weights.float())
moved = (fine.sort().values != coarse.sort().values).any(dim=-1)  # [N]: another set of experts
change = (as_coarse - as_fine).norm(dim=-1) / as_fine.norm(dim=-1)
print(f"{moved.float().mean():.1%} of the tokens get another set of experts")
print(f"their outputs change by {change[moved].median():.0%}, those of the others by {change[~moved].median():.1%}")
nearest = F.linear(x.float(), in_float32.weight).topk(9).values[:, 7:]  # the 8th and 9th logit, [N, 2]
apart = nearest[:, 0] - nearest[:, 1]
print(f"their 8th and 9th logits are {apart[moved].median():.3f} apart, the others' {apart[~moved].median():.3f}")
measured("moe.moved", 100 * moved.float().mean())


# %% [markdown] id="19bd21e5"
# <details><summary>What the numbers say</summary>
#
# A few in 100: tokens whose 8th and 9th expert were nearly tied. One of their eight experts is another one, which changes their output by about 30%, and every later layer receives that. DeepSeek-V3's router computes everything in float32, which avoids this. Qwen3's computes its logits in the model's dtype and only the softmax in float32, so in bfloat16 its choices depend on the order of additions. Two right programs can then differ much in a few tokens: if single rows of a comparison are far off and all others agree, look for a near-tie first. The checks of this lesson have none.
# </details>

# %% [markdown] id="7e9ed0be"
# ## A place to stop for the day
#
# So far: a router chooses k of E experts for each token; weights are what it learns through; load has to be balanced; experts are computed one after the other, each on its own tokens.
#
# Still to come: the layer and the model, trained weights, a look at which expert gets which tokens, and what all this costs in memory.
#
# ### Exercise 5 · The layer
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Router and experts in one module, with the checkpoint's names: `gate` is the router (not the gate of a gated MLP), `experts`, and in DeepSeek-V3 `shared_experts`.
#
# Why a shared expert? Every token needs some of what an MLP computes, for example common grammar. Without a shared expert each routed one has to learn it again. DeepSeekMoE (Dai et al., 2024, section 3.2) moves it to an expert that all tokens go through; its output is added without a weight. Our models are too small to show what it is worth. The paper measured it (section 4.5): with the shared expert switched off and one more routed expert in its place, the loss of its model rises from 1.808 to 2.414. That shows that the trained model uses its shared expert, and not what a model trained without one would lack.
#
# The router works on single tokens, so the batch is flattened: [B, T, D] → [B · T, D], and back.
#
# <details><summary>Hint 1</summary>
#
# `MLP(config.replace(intermediate_size=...))` makes the shared expert. Where there is none, `self.shared_experts = None`.
# </details>

# %% exercise="moe.layer" id="moe-layer"
class MoE(nn.Module):
    """Takes the place of a layer's MLP: a router, its experts and, in DeepSeek-V3, a shared expert.

    Parts: gate (SigmoidRouter where config.model_type is "deepseek_v3", else SoftmaxRouter), experts (Experts) and, in
    DeepSeek-V3 alone, shared_experts: one MLP, n_shared_experts * moe_intermediate_size wide, that every token goes
    through; its output is added as it is.
    x: [B, T, D] -> [B, T, D]. transformers: Qwen3MoeSparseMoeBlock, DeepseekV3MoE.
    """

    def __init__(self, config: Config):
        super().__init__()
        ### BEGIN SOLUTION
        deepseek = config.model_type == "deepseek_v3"
        self.gate = SigmoidRouter(config) if deepseek else SoftmaxRouter(config)
        self.experts = Experts(config)
        width = config.moe_intermediate_size * config.get("n_shared_experts", 0)
        self.shared_experts = MLP(config.replace(intermediate_size=width)) if deepseek else None
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        rows = x.flatten(0, 1)  # [B * T, D]
        weights, chosen = self.gate(rows)
        routed = self.experts(rows, chosen, weights).view_as(x)
        return routed if self.shared_experts is None else routed + self.shared_experts(x)
        ### END SOLUTION

# %% check="moe.layer" tags=["nbval-ignore-output"] id="check-moe-layer"
check("moe.layer", MoE)


# %% [markdown] id="2ad34dab"
# ### Exercise 6 · The model
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Qwen3-MoE is Qwen3 with another `mlp` in its sparse layers. Start from lesson 03's `DecoderLayer` and exchange what differs.
#
# One trap comes from our own code: `Attention` makes norms for q and k where `model_type` is `"qwen3"`, and this config says `"qwen3_moe"`.
#
# <details><summary>Hint 1</summary>
#
# Make the layers from `config.replace(model_type="qwen3")`. Then, for each layer of which `is_sparse(config, i)` is true, `layer.mlp = MoE(config)`.
# </details>

# %% exercise="moe.model" id="moe-model"
class Model(nn.Module):
    """Qwen3-MoE without its head: Qwen3's layers, in the sparse ones of which `mlp` is a MoE.

    Parts: embed_tokens, layers (nn.ModuleList of DecoderLayer), norm. is_sparse(config, i) says whether layer i is
    sparse. Attention makes its norms on q and k where model_type is "qwen3": give it config.replace(model_type="qwen3").
    ids: [B, T] int64 -> [B, T, D]. transformers: Qwen3MoeModel.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        ### BEGIN SOLUTION
        dense = config.replace(model_type="qwen3")
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(dense) for _ in range(config.num_hidden_layers))
        for i, layer in enumerate(self.layers):
            if is_sparse(config, i):
                layer.mlp = MoE(config)
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

# %% check="moe.model" tags=["nbval-ignore-output"] id="check-moe-model"
check("moe.model", Model)

# %% given="03-qwen3 qwen3.causal_lm" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-causal_lm"

# %% given="03-qwen3 qwen3.generate" jupyter={"source_hidden": true} id="given-03-qwen3-qwen3-generate"

# %% [markdown] id="04b4c5a4"
# ## Steps 8 to 11 · Layer by layer
#
# The router has no row of its own: the reference's router returns its logits too, and orders its top-k in its own way. A wrong router shows in the row `mlp`.

# %% tags=["nbval-ignore-output"] id="00a10a9b"
compare_layers(Model)

# %% [markdown] id="30f16bea"
# ### A bug to hunt
#
# Here is the same model with one change, a bug that a public program had. Read the table first: which module is wrong itself, in how many layers, and what could the fault be? Then read the class, in the folded cell.

# %% jupyter={"source_hidden": true} id="4ccb3ac8"
class Ported(MoE):
    """A MoE with one step of its router changed."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        scores = F.linear(rows, self.gate.weight).softmax(dim=-1)
        weights, chosen = scores.topk(2, dim=-1)
        return self.experts(rows, chosen, weights).view_as(x)


class PortedModel(Model):
    """The model with that MoE in every sparse layer."""

    def __init__(self, config: Config):
        super().__init__(config)
        for i, layer in enumerate(self.layers):
            if is_sparse(config, i):
                layer.mlp = Ported(config)

# %% tags=["nbval-ignore-output"] id="e1adb203"
from grader import CheckFailed

try:
    compare_layers(PortedModel)
except CheckFailed as failed:
    print(failed)

# %% [markdown] id="d947b832"
# <details><summary>What it is</summary>
#
# The weights are not divided by their sum. In torchtitan's DeepSeek-V3 that division was missing, and it was noticed because the gradients of a fine-tuned model were far too large (<a href="https://github.com/pytorch/torchtitan/issues/1448">pytorch/torchtitan#1448</a>). All experts are right on what they are given; what their outputs are multiplied by is not.
# </details>

# %% [markdown] id="d008cab7"
# ## Step 12 · Trained weights: austen-moe
#
# `austen-moe` was trained for this course on five of Austen's novels, in Qwen3-MoE's form: 4 layers, 8 experts of which a token uses 2, 1.9 million parameters. Its file has the names of transformers' modules, with the experts stacked. A file on the hub has a matrix for each expert, `experts.3.gate_proj.weight`, and so on. This function stacks the tensors of such a file:

# %% id="cd73e084"
def stacked(weights: dict[str, Tensor], experts: int) -> dict[str, Tensor]:
    """One layer's experts, from a matrix for each to transformers' two tensors."""
    gate, up, down = ([weights[f"experts.{e}.{name}_proj.weight"] for e in range(experts)] for name in ("gate", "up", "down"))
    both = [torch.cat([g, u]) for g, u in zip(gate, up, strict=True)]  # the gate above, [2 * width, D]
    return {"experts.gate_up_proj": torch.stack(both), "experts.down_proj": torch.stack(down)}

# %% id="2e1a89b8"
austen = load_checkpoint("austen-moe")
model = CausalLM(austen.config).eval()
austen.load_into(model)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
for name, tensor in austen.state_dict().items():
    if "layers.0.mlp" in name:
        print(f"{name}: {list(tensor.shape)}")

# %% [markdown] id="54908b99"
# The same text as the reference, token for token:

# %% tags=["nbval-ignore-output"] id="df73b16f"
check_generation(model, austen, generate=generate)

# %% [markdown] id="4906d2f9"
# ## Which expert gets which tokens?
#
# Does one expert get verbs, another names? Or something you would not have named? And how fixed is it? Each frequent token has a pair of experts that it goes to most often. How many of its occurrences go there, in the first layer?

# %% prediction="moe.same_pair" id="prediction-moe-same_pair"
predict(
    "moe.same_pair", "tokens that go to their usual pair in the first layer", unit="%",
    guess=...
)

# %% id="cea12140"
choices = {}  # layer -> [N, 2], for every token of the held-out text
for path, call in patch.calls_in(model.model, held_out).items():
    if path.endswith("mlp.gate"):
        choices[int(path.split(".")[1])] = call.further[0]
words = [austen.tokenizer.decode([i]) for i in held_out.flatten().tolist()]

# %% tags=["nbval-ignore-output"] id="7bdab7ca"
from collections import Counter

common = Counter(words)
for expert in range(8):
    mine = Counter(word for word, pair in zip(words, choices[0].tolist(), strict=True) if expert in pair)
    best = sorted((word for word in mine if common[word] >= 8), key=lambda word: -mine[word] / common[word])
    print(f"layer 0, expert {expert}, {mine.total() / len(words):4.0%} of the tokens: {' '.join(map(repr, best[:9]))}")

# %% [markdown] id="c4669fb9"
# The lists are mixed: one has pronouns beside *had*, *very* and *Sir*, another almost only pieces of words. What they have in common is hard to name, and one novel has no subjects that could be told apart. Others looked at larger models in the same way. ST-MoE (Zoph et al., 2022, section 7) found experts for punctuation, articles, conjunctions and names; Mixtral's authors (Jiang et al., 2024, section 5) found none for subjects, and a connection to syntax.
#
# And how fixed is it? For each token that occurs at least eight times, its most frequent pair of experts, in each layer:

# %% tags=["nbval-ignore-output"] id="7b32693b"
for layer, chosen in choices.items():
    pairs = [tuple(sorted(pair)) for pair in chosen.tolist()]
    by_word: dict[str, Counter] = {}
    for word, pair in zip(words, pairs, strict=True):
        by_word.setdefault(word, Counter())[pair] += 1
    often = [seen for seen in by_word.values() if seen.total() >= 8]
    same = sum(seen.most_common(1)[0][1] for seen in often) / sum(seen.total() for seen in often)
    print(f"layer {layer}: {same:.0%} go to the token's usual pair")
    if layer == 0:
        in_first = same
measured("moe.same_pair", 100 * in_first)

# %% [markdown] id="299fe9a1"
# <details><summary>What the numbers say</summary>
#
# In the first layer nearly always: there the token's own vector decides. In higher layers the vector also holds information from the text before it, and the choice depends on that too.
# </details>

# %% [markdown] id="58045d97"
# ### Is the load equal?
#
# It was trained with the loss for unequal load. An equal share of the tokens would be 2 of 8, a quarter, for every expert.

# %% tags=["nbval-ignore-output"] id="efb9b37b"
shares = torch.stack([chosen.flatten().bincount(minlength=8) / len(chosen) for chosen in choices.values()])  # [4, 8]
for layer, row in enumerate(shares):
    print(f"layer {layer}: ", *(f"{share:4.0%}" for share in row.tolist()))
print("all layers:", *(f"{share:4.0%}" for share in shares.mean(dim=0).tolist()))

# %% [markdown] id="adbd0f26"
# Over all layers together the load is nearly equal, and within a layer it is not: one expert gets 60% of a layer's tokens, another 2%. That is what the loss asks for. transformers computes it over the choices of all layers together (`load_balancing_loss_func`), so one layer may be unequal if another makes up for it. Switch Transformer computes it for each layer by itself, and DeepSeek-V3's biases, one for each expert of each layer, also balance every layer by itself.
#
# ### Exercise 7 · An experiment of your own: which expert is missed?
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# Is an expert with many tokens an important one? Take an expert out of the trained model, read the text again, and see how much the loss rises. Taken out means here that its output is 0 for every token, as it is with a `down_proj` of zeros. The router chooses as before, and a token's other expert keeps its weight.
#
# You write the measurement. The check has small models of its own, for which the number was computed one token at a time, and asks for several experts of one model in turn. Before you run it on `austen-moe`: in the second layer one expert gets 60% of the tokens. By how much does the loss on *Persuasion*, which is about 4.2 nats, rise without it?
#
# <details><summary>Hint 1</summary>
#
# `weight = model.model.layers[layer].mlp.experts.down_proj` has one matrix for each expert, and inside `torch.no_grad()` you may write `weight[expert] = 0.0`. What must you do before, and what afterwards?
#
# <details><summary>Hint 2</summary>
#
# `weight[expert]` is a view: it changes with the weight. `clone()` makes a copy.
#
# <details><summary>Hint 3</summary>
#
# The logits at token t say what comes at t + 1. So the last token's logits have no target, and the first token is no target: `logits[:, :-1]` and `ids[:, 1:]`.
# </details>
# </details>
# </details>

# %% prediction="moe.missed" id="prediction-moe-missed"
predict(
    "moe.missed", "how much the loss rises without the expert that has 60% of its layer's tokens", unit="nats",
    guess=...
)

# %% exercise="moe.cost_of_expert" id="moe-cost_of_expert"
def cost_of_expert(model: nn.Module, ids: Tensor, layer: int, expert: int) -> float:
    """How much the loss rises without one expert: the loss without it, minus the loss with all, in nats.

    Without it: its output is 0 for every token, and nothing else changes. The loss is the mean surprise at the next
    token, over all tokens of all texts but the first of each. Afterwards the model is as it was before.
    model(ids) gives logits [B, T, vocab_size]; model.model.layers[layer].mlp is a MoE, as you wrote it. ids: [B, T].
    """
    ### BEGIN SOLUTION
    def nats() -> Tensor:
        return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    with torch.no_grad():
        weight = model.model.layers[layer].mlp.experts.down_proj
        kept, before = weight[expert].clone(), nats()
        weight[expert] = 0.0
        without = nats()
        weight[expert] = kept
    return (without - before).item()
    ### END SOLUTION

# %% check="moe.cost_of_expert" tags=["nbval-ignore-output"] id="check-moe-cost_of_expert"
check("moe.cost_of_expert", cost_of_expert)

# %% tags=["nbval-ignore-output"] id="c37e7c2a"
from grader.instruments import progress

costs = torch.zeros(4, 8)
for layer in progress.steps(range(4), "layers"):
    for expert in range(8):
        costs[layer, expert] = cost_of_expert(model, held_out, layer, expert)
for layer in range(4):
    each = zip(shares[layer].tolist(), costs[layer].tolist(), strict=True)
    print(f"layer {layer}: ", "  ".join(f"{share:3.0%} {cost:+.3f}" for share, cost in each))
measured("moe.missed", costs[1, shares[1].argmax()])

# %% tags=["nbval-ignore-output"] id="cc8b6544"
together = [torch.corrcoef(torch.stack([shares[layer], costs[layer]]))[0, 1].item() for layer in range(4)]
print("share and cost within a layer, their correlation:", *(f"{r:.2f}" for r in together))
whole = loss(model)
for layer in range(4):
    with patch.replaced(model.model.layers[layer].mlp, forward=torch.zeros_like):
        print(f"without all experts of layer {layer}: {loss(model) - whole:+.2f} nats")

# %% [markdown] id="d802d07e"
# <details><summary>What the numbers say</summary>
#
# Little, 0.02 nats, although that expert works on more tokens than any other in its layer. Without an expert of the first layer that has a third of the tokens, the loss rises by 0.96. Within a layer the experts with more tokens cost more, with correlations of 0.76 to 0.85. But what a share of the tokens is worth depends on the layer: all experts of the first one together are worth 3.5 nats, those of each other layer 0.11 or 0.12. So the number of tokens says how much an expert computes, and how it compares with its neighbours in the layer, and not what the layer is worth.
#
# Why eight texts, and not one or two? On 512 tokens the same expert costs 0.004, five times less, and some experts seem to cost less than nothing. Costs of a hundredth of a nat need many tokens to be measured. (One novel and one model.)
# </details>

# %% [markdown] id="c6c75834"
# ### Does the choice matter?
#
# Change the router of the trained model and read *Persuasion* again. In which order are these losses, the lowest first?

# %% prediction="moe.choices" id="prediction-moe-choices"
routers = ("the worst 2", "all 8", "2 at random", "the best 3")
predict(
    "moe.choices", "losses with another router, the lowest first", order_of=routers,
    guess=...
)

# %% id="4da4429e"
class Chooses(SoftmaxRouter):
    """A router whose scores are changed, or whose number of experts is, before it chooses."""

    experts_chosen, rescored = 2, staticmethod(lambda scores: scores)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.rescored(F.linear(x, self.weight).softmax(dim=-1))
        weights, chosen = scores.topk(self.experts_chosen, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), chosen

# %% id="3523357a"
def shuffled(scores: Tensor) -> Tensor:
    """Each token's scores in a random order."""
    order = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0)).argsort(dim=-1)
    return scores.gather(-1, order)


for layer in model.model.layers:
    layer.mlp.gate = Chooses(austen.config)
loaded = austen.load_into(model)

# %% tags=["nbval-ignore-output"] id="090dcc74"
kept = {name: {"experts_chosen": k} for name, k in (("as trained: 2 of 8", 2), ("the best alone", 1), ("the best 3", 3), ("all 8", 8))}
kept |= {"2 at random": {"rescored": staticmethod(shuffled)}, "the worst 2": {"rescored": staticmethod(lambda scores: 1 - scores)}}
nats = {}
for name, change in kept.items():
    with patch.replaced(Chooses, **change):
        nats[name] = loss(model)
    print(f"{name:>19}: {nats[name]:.2f} nats")
measured("moe.choices", sorted(routers, key=nats.get))

# %% [markdown] id="6998720d"
# <details><summary>What the numbers say</summary>
#
# Choosing at random costs over two nats, and the two worst cost more still: without its router this model is worth little. Without the second expert the loss is 0.13 nats higher. A third makes it 0.02 worse, and with all 8 the loss is as high as with the best alone: no sum of three or more outputs occurred in training.
# </details>

# %% [markdown] id="928ab30e"
# ### What if an expert is full?
#
# Machines that hold an expert each are used best if all experts get equally many rows. GShard and Switch Transformer therefore give every expert room for a fixed number of tokens of a batch, its *capacity*: an equal share times a *capacity factor* (Fedus et al., 2021, section 2.2). A token that comes to a full expert is *dropped*: that expert adds nothing for it, and the residual connection carries the token's vector on. In this cell the first tokens of the batch are served first:

# %% id="c5cb1880"
class LimitedExperts(Experts):
    """Experts with room for `room` times an equal share of a batch's choices; what comes later is dropped."""

    room, dropped = float("inf"), 0.0

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        so_far = F.one_hot(chosen.flatten(), len(self.down_proj)).cumsum(dim=0)  # [N * k, E]: choices up to here
        place = so_far.gather(1, chosen.flatten()[:, None]).view_as(chosen)  # 1 for the first token of an expert
        fits = place <= self.room * chosen.numel() / len(self.down_proj)  # [N, k]
        self.dropped = 1 - fits.float().mean().item()
        return super().forward(x, chosen, weights * fits)

# %% [markdown] id="5eab0a65"
# `austen-moe` was trained without such a limit. Give its experts room for 1.25 times an equal share, and put another piece of *Persuasion* before yours, as a second row of the same batch. Your piece itself stays as it is, and attention never looks into another row. After how many of its tokens does the model now think another token the most likely next one?

# %% prediction="moe.neighbours" id="prediction-moe-neighbours"
predict(
    "moe.neighbours", "tokens with another most likely next token", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="51c5b330"
for layer in model.model.layers:
    layer.mlp.experts.__class__ = LimitedExperts
with torch.no_grad():
    for room in (1.0, 1.25, 1.5, 2.0, float("inf")):
        with patch.replaced(LimitedExperts, room=room):
            nats = loss(model)
            dropped = mean([layer.mlp.experts.dropped for layer in model.model.layers])
            alone, behind = model(held_out[-1:])[0], model(held_out[[0, -1]])[1]  # [T, V]
        changed = (alone.argmax(dim=-1) != behind.argmax(dim=-1)).float().mean()
        print(f"room for {room:4} times an equal share: {dropped:3.0%} dropped, {nats:.2f} nats, "
              f"behind another text {changed:3.0%} of the most likely next tokens change")
        if room == 1.25:
            measured_change = changed
measured("moe.neighbours", 100 * measured_change)

# %% [markdown] id="c36ec1cb"
# <details><summary>What the numbers say</summary>
#
# More than a quarter. The row before yours took the places first, so other tokens of yours are dropped than when it is alone. Without a limit nothing changes: every token is computed by itself, whatever stands beside it. So with a capacity, what a user gets depends on whose text is in the same batch (Puigcerver et al., 2023, section 2.2, say it of all routers with a capacity), and a test that reads one text alone does not show it. That is why the cases of this lesson compare rows alone, too.
#
# Dropping itself costs more here than in a model that was trained with it: 16% of the choices dropped are 0.3 nats, and with room for twice the share it is 0.01. One layer's load is unequal in this model, as you saw. DeepSeek-V3 drops no tokens, neither in training nor when it serves (section 2.1.2). Its balance makes that possible.
# </details>

# %% [markdown] id="e2d3b1ad"
# ## What it costs
#
# ### Exercise 8 · All parameters, and the active ones
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Count the parameters of everything that takes the place of an MLP, in all layers: dense MLPs, routers, routed experts, shared experts. Return two numbers: all of them, and those that one token uses. Every token uses the whole router.
#
# <details><summary>Hint 1</summary>
#
# Two widths: `intermediate_size` for dense layers, `moe_intermediate_size` for experts. `is_sparse(config, i)` for every layer i from 0 on.
# </details>

# %% exercise="moe.parameters" id="moe-parameters"
def mlp_parameters(config: Config) -> tuple[int, int]:
    """The parameters of all MLPs, routers, routed and shared experts of a model: all, and those that one token uses.

    A gated MLP has three matrices. Layers that are not sparse have one MLP of intermediate_size. A bias for the choice is
    no parameter. Counts for Qwen3-MoE and DeepSeek-V3; where there is no shared expert, n_shared_experts is missing.
    """
    ### BEGIN SOLUTION
    D, E = config.hidden_size, num_experts(config)
    expert = 3 * D * config.moe_intermediate_size
    sparse = sum(is_sparse(config, i) for i in range(config.num_hidden_layers))
    dense = (config.num_hidden_layers - sparse) * 3 * D * config.intermediate_size
    always = dense + sparse * (E * D + config.get("n_shared_experts", 0) * expert)
    return always + sparse * E * expert, always + sparse * config.num_experts_per_tok * expert
    ### END SOLUTION

# %% check="moe.parameters" tags=["nbval-ignore-output"] id="check-moe-parameters"
check("moe.parameters", mlp_parameters)


# %% [markdown] id="61bcc879"
# The rest of the model, attention, norms, embedding and head, is given (folded). **Check** the names: what do "30B-A3B" and "671B, 37B active" count?

# %% jupyter={"source_hidden": true} id="8c4dfbe2"
def other_parameters(config: Config) -> int:
    """Everything but the MLPs: attention, norms, embedding and head, of Qwen3's and DeepSeek-V3's forms."""
    D, H, V = config.hidden_size, config.num_attention_heads, config.vocab_size
    if config.get("kv_lora_rank"):
        q, kv, nope, rope, v = (config[n] for n in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
                                                    "qk_rope_head_dim", "v_head_dim"))
        attention = D * q + q + q * H * (nope + rope) + D * (kv + rope) + kv + kv * H * (nope + v) + H * v * D
    else:
        d = head_dim(config)
        attention = 2 * D * d * (H + config.num_key_value_heads) + 2 * d
    head = 0 if config.tie_word_embeddings else V * D
    return config.num_hidden_layers * (attention + 2 * D) + D + V * D + head

# %% id="bcd86e99"
for name in ("qwen3-30b-a3b", "deepseek-v3"):
    rest, (total, active) = other_parameters(configs[name]), mlp_parameters(configs[name])
    print(f"{name:>14}: {rest + total:15,} parameters, {rest + active:14,} active: {(rest + active) / (rest + total):.0%}")

# %% [markdown] id="f88677e1"
# That is who decides: one matrix of 256 · 7168 numbers a layer, 0.02% of the parameters in all, decides which 6% are used.
#
# The work for a token is about one multiply-add for each active parameter. (The embedding is looked up, and not multiplied; the counts above include it, as most publications do.)
#
# ### Exercise 9 · Bytes read
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# When one token is written, every weight that it needs is read from memory once, and used for one multiply-add. Lesson 02 measured that this reading is what decoding waits for. When 64 users' tokens are computed together, a dense model reads its weights once for all of them. And a mixture of experts? Each token brings its own choice.
#
# How many experts are read, if each of n tokens chooses k of E at random? The probability that one token does not choose a given expert is 1 − k / E.
#
# <details><summary>Hint 1</summary>
#
# The chance that at least one of n tokens chose an expert is one minus the chance that none did.
#
# <details><summary>Hint 2</summary>
#
# From exercise 8 you have all and active. Their difference is E − k experts in every sparse layer.
# </details>
# </details>

# %% exercise="moe.bytes_read" id="moe-bytes_read"
def bytes_read(config: Config, tokens: int, element_bytes: int = 2) -> float:
    """The bytes of weights that the MLPs of a model read, on average, for `tokens` tokens that are computed at once.

    What every token needs is read once. An expert is read once if one of the tokens chose it, and not at all if none
    did. Suppose that every token chooses its k experts in each layer at random, all E alike.
    """
    ### BEGIN SOLUTION
    total, active = mlp_parameters(config)
    E, k = num_experts(config), config.num_experts_per_tok
    experts = (total - active) * E / (E - k)  # the routed experts of all layers
    chosen = 1 - (1 - k / E) ** tokens  # the chance that an expert is chosen by one of the tokens
    return (total - experts * (1 - chosen)) * element_bytes
    ### END SOLUTION

# %% check="moe.bytes_read" tags=["nbval-ignore-output"] id="check-moe-bytes_read"
check("moe.bytes_read", bytes_read)

# %% [markdown] id="835bf05a"
# Qwen3 30B-A3B has 8 of 128 experts and reads 3.6 GB of MLP weights for one token. Qwen3 8B, a dense model, reads 10.9 GB, for one token as for 64. How many does the mixture read for 64?

# %% prediction="moe.read" id="prediction-moe-read"
predict(
    "moe.read", "MLP weights that 30B-A3B reads for 64 tokens", unit="GB",
    guess=...
)

# %% id="eacb9562"
dense_8b = configs["qwen3-8b"]
mlps_8b = 2 * 3 * dense_8b.hidden_size * dense_8b.intermediate_size * dense_8b.num_hidden_layers
print("tokens at once   30B-A3B reads   for each token   Qwen3 8B reads   for each token")
for tokens in (1, 4, 16, 64, 256):
    read = bytes_read(configs["qwen3-30b-a3b"], tokens)
    print(f"{tokens:14} {read / 1e9:12.1f} GB {read / tokens / 1e9:13.2f} GB {mlps_8b / 1e9:13.1f} GB {mlps_8b / tokens / 1e9:13.2f} GB")
guessed = measured("moe.read", bytes_read(configs["qwen3-30b-a3b"], 64) / 1e9)

# %% tags=["nbval-ignore-output"] id="9a424299"
batches = [2**n for n in range(10)]
curves = {
    "Qwen3 30B-A3B": (batches, [bytes_read(configs["qwen3-30b-a3b"], n) / 1e9 for n in batches]),
    "Qwen3 8B, dense": (batches, [mlps_8b / 1e9] * len(batches)),
}
around = plots.Axes("tokens computed at once", "GB of MLP weights read", log="x", xticks=batches[::3], ylim=(0, None),
                    marks=guessed.marks("y"))
plots.lines(curves, around)

# %% [markdown] id="505648ba"
# <details><summary>What the numbers say</summary>
#
# For one token the mixture reads a third of what the dense 8B model reads, although it has nearly four times as many parameters. That is why such models run well on a laptop with much memory: one user, one token at a time. But with 64 users nearly all experts are read, 57 GB instead of 11, and each expert works for four tokens on average. To use each weight it reads as often as a dense model does at 64, it needs 64 · 128 / 8 = 1,024 tokens at once.
# </details>

# %% [markdown] id="c583bbcd"
# And all 128 experts must be in memory for a token that uses 8. A server spreads them over many GPUs, sends each token to where its experts are and back, twice for each layer, and waits for the expert with the most tokens. So balance matters after training as well. DeepSeek-V3's report (section 3.4) serves with 32 GPUs for a prompt and 320 for decoding, with copies of the busiest experts.
#
# Real choices are not random. Measure it on `austen-moe`: how many of a layer's 8 experts do 16 tokens of *Persuasion* in a row choose? If all experts were chosen equally often and at random, it would be 7.92 on average.

# %% prediction="moe.real_choices" id="prediction-moe-real_choices"
predict(
    "moe.real_choices", "experts of 8 that 16 tokens in a row choose", unit="experts",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="0ce38155"
for tokens in (1, 2, 4, 8, 16):
    runs = [chosen[i : i + tokens] for chosen in choices.values() for i in range(0, 2048 - tokens, 37)]
    read = mean([len(run.unique()) for run in runs])
    scattered = [chosen[torch.randperm(len(chosen))[:tokens]] for chosen in choices.values() for _ in range(200)]
    apart, by_chance = mean([len(run.unique()) for run in scattered]), 8 * (1 - (1 - 2 / 8) ** tokens)
    print(f"{tokens:2} tokens in a row: {read:.2f} experts, from anywhere {apart:.2f}, by chance {by_chance:.2f}")
measured("moe.real_choices", read)

# %% [markdown] id="72554025"
# <details><summary>What the numbers say</summary>
#
# 7.2, fewer than by chance. Tokens from anywhere in the text choose 7.3, so four fifths of the difference is the unequal load that you saw: an expert that gets 2% of the tokens is seldom among 16. The rest is that neighbouring tokens are more alike than any two. For one user that helps: less is read. For a server it means that some experts are busy while others wait.
# </details>

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="20747483"
# ## What changed, and why
#
# | | Qwen3 8B | Qwen3 30B-A3B | DeepSeek-V3 | why |
# |---|---|---|---|---|
# | MLP | one, width 12,288 | 128 of width 768, 8 chosen | 256 of width 2,048, 8 chosen, and 1 shared | more parameters for the same work |
# | first layers | as all | as all | 3 with one MLP | V3's report gives no reason; in DeepSeekMoE (section 5.1.2) the first layer's load became balanced most slowly |
# | scores | | softmax over all experts | sigmoid of each | scores of experts do not compete; V3's report gives no reason, and small models trained no better with it |
# | weights | | divided by their sum | divided by their sum, times 2.5 | the routed sum keeps a fixed size beside the shared expert; why 2.5 is not published, and a small model trained no better with it |
# | shared expert | | none | 1 | what every token needs is learned once. Qwen3's report (section 2) leaves it out and gives no reason |
# | balance | | a loss for unequal load | a bias that only the choice sees | the bias does not disturb the main loss |
# | groups | | none | 8; a token's experts come from the 4 best | a token is sent to few machines |
# | parameters, active | 8.2 of 8.2 billion | 3.4 of 30.5 | 37.6 of 671 | |
# | weights read by MLPs, 1 token | 10.9 GB | 3.6 GB | 49 GB (in bfloat16; `bytes_read(configs["deepseek-v3"], 1)`) | fast for one user |
# | the same, 64 tokens | 10.9 GB | 57 GB | 1,144 GB | nearly all experts are read |
#
# ## The questions again
#
# <details><summary>DeepSeek-V3 computes with 37 of 671 billion parameters. Who decides which?</summary>
#
# In each of 58 layers a router, one matrix with a row for each of 256 experts. It scores them from the token's vector. Of the 8 groups the 4 best stay, and the 8 best experts in these work on the token, beside the shared expert. A bias that follows the load takes part in the choice.
# </details>
#
# <details><summary>How does a router learn, if choosing has no gradient?</summary>
#
# Through the weights of the experts that it chose. They say whether a chosen expert should have counted more or less.
# </details>
#
# <details><summary>Why do some experts stop being used if nothing balances the load?</summary>
#
# An expert that is chosen is trained, becomes better, and is chosen more often. One that is never chosen gets no gradient.
# </details>
#
# <details><summary>Why must the bias stay out of the weights?</summary>
#
# It says how busy an expert is, and not how much its output should count. The weights are what the router has learned.
# </details>
#
# <details><summary>When do "softmax, then top-k" and "top-k, then softmax" agree?</summary>
#
# Where the weights are divided by their sum.
# </details>
#
# <details><summary>Why many small experts and not a few large ones?</summary>
#
# For the same work they can be combined in more ways, so the choice fits the token better. Cut into 4 slices and then into 128, a quarter of austen-qwen3's MLP gave 5.65 and 4.44 nats.
# </details>
#
# <details><summary>Two right programs agree in all tokens but a few, and there they differ much. How can that be?</summary>
#
# A choice is all or nothing. With a near-tie between two experts, a rounding decides which of them works, and the output changes by much more than the rounding.
# </details>
#
# <details><summary>Can a token's output depend on other texts in the batch?</summary>
#
# With a capacity it can: a full expert drops a token, and who comes first decides which. Without a capacity each token is computed by itself, and only rounding can depend on the batch.
# </details>
#
# <details><summary>Why is a mixture of experts fast for one user and hard to serve to many?</summary>
#
# One token reads few experts. Many tokens read nearly all, and each expert has few tokens to share the reading. All experts must be in memory, and all machines wait for the one with the busiest expert.
# </details>
#
# ## Where to read on
#
# - Shazeer et al., *Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer* (2017), section 2. Fedus et al., *Switch Transformers* (2021), section 2.2: the loss for unequal load.
# - Dai et al., *DeepSeekMoE* (2024), section 3: many small experts, and shared ones; sections 4.4 and 4.5: what each is worth. DeepSeek-AI, *DeepSeek-V3 Technical Report* (2024), sections 2.1.2 and 3.4. Wang et al., *Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts* (2024).
# - Puigcerver et al., *From Sparse to Soft Mixtures of Experts* (2023), section 2.2: what a capacity does to single texts.
# - Yang et al., *Qwen3 Technical Report* (2025), section 2. Gale et al., *MegaBlocks* (2022): experts as one sparse product.
# - The reference: `transformers/models/qwen3_moe/modeling_qwen3_moe.py`, `Qwen3MoeSparseMoeBlock`; `models/deepseek_v3/modeling_deepseek_v3.py`, `DeepseekV3MoE`.
#
# ## If you want more
#
# In your experiment an expert was silent, and its tokens had one expert only. Forbid it in the router instead (a logit of −∞), so that its tokens go to their next best one. You are right when the loss with none forbidden is that of the first row above. Are the same experts missed?
#
# Or turn `austen-qwen3` into a mixture without training: its 8 slices are the experts, and the router's rows are fitted so that they predict, from x, which slices are longest. How close do you get to the "longest 4" of the first experiment?
