# %% [markdown] id="e125d4c7"
# # 12 · Training: from a novel to a model that others can run
#
# **You have a model's code and a novel. What is missing until somebody else can run your model?**
#
# So far the weights came from somebody else. In this lesson they come from you. You train a tokenizer on a novel, write the loss, the optimizer and the rest of a training step, fine-tune with a mask, with LoRA and with preferences, and write a folder like those on the hub. At the end transformers loads that folder and writes the same text as your own code, token for token.
#
# Before you go on, make a list: which parts does it take, from the text file to the folder? And which of them, if wrong, would you *not* notice in the loss?
#
# After this lesson you can
#
# - train a byte-level BPE tokenizer, encode and decode with it, and get the ids that the `tokenizers` library gets;
# - cut a stream of texts into batches, in an order that a seed decides;
# - write cross-entropy with ignored targets, AdamW, a schedule, clipping and gradient accumulation, each equal to the library's;
# - say what a falling loss does not show, and name three bugs that make it look better;
# - stop a training at any moment, and go on with the same numbers;
# - fine-tune on answers alone, with a low-rank adapter, and on preferences;
# - write `config.json`, `model.safetensors` and `tokenizer.json` so that others can load them.
#
# 200 to 300 minutes · difficulty ●●●○○ · you know Qwen3 (lesson 03), whose code is given here
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# ![The way of this lesson: a text becomes ids, ids become batches of inputs and targets, the model gives logits, the loss compares them with the targets, its gradients are clipped and go to AdamW, which changes the weights at the rate of the schedule; the loop repeats; at the end the weights, the config and the tokenizer are written into a folder that others load.](figures/the-way.svg)

# %% tags=["setup"] id="setup"
import copy
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from torch import Tensor, nn

from grader import Config, check, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="194af628"
# Given and folded: lesson 03's Qwen3, from its norm to greedy generation.

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-2"
from pathlib import Path


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

# %% [markdown] id="a1ebbd09"
# ## From a text to ids
#
# A model needs ids below a fixed number. Take one id for each *character*, and Unicode has 150,000 of them, most of which your novel never shows. Take one for each *word*, and the first unknown name has none. Byte-level BPE (byte-pair encoding) begins with the 256 *bytes*, so that any text has ids, and then gives frequent neighbours an id of their own: first perhaps `h` `e` → `he`, later `t` `he` → `the`.
#
# Merges must not cross words, or ` of the` becomes one token and `of them` another one that has nothing to do with it. So the text is first cut into words by GPT-2's regular expression. A space belongs to the word behind it. The library that compiles the expression is given; what it does to a sentence:

# %% tags=["setup"] id="setup-3"
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPLIT = Split(Regex(PATTERN), "isolated")
VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are printable characters in Latin-1
BYTES = [*VISIBLE, *(byte for byte in range(256) if byte not in VISIBLE)]  # id i stands for the byte BYTES[i]
ID_OF_BYTE = bytes(BYTES.index(byte) for byte in range(256))


def split_words(text: str) -> list[list[int]]:
    """The words of a text, each as the ids of its bytes, 0 to 255."""
    return [list(word.encode().translate(ID_OF_BYTE)) for word, _ in SPLIT.pre_tokenize_str(text)]

# %% id="5c7c76c3"
for words in ("She didn't, in 1813.", "café"):
    print([word for word, _ in SPLIT.pre_tokenize_str(words)], split_words(words))

# %% [markdown] id="70acddc2"
# `é` takes two bytes. The ids of bytes are in GPT-2's order, which begins with the printable ones. You need not remember it: `BYTES[i]` is the byte of id i.
#
# ### Exercise 1 · Learn the merges
# difficulty ●●●○○ · importance ●●●●○ · 20 minutes
#
# Count each pair of neighbours inside words, merge the most frequent one everywhere, and repeat. The merge number i gets the id 256 + i. A novel has far more words than *different* words, so count each different word once and multiply.
#
# Ties happen: with few words many pairs occur equally often. Programs that break them differently learn other merges and then give other ids to every text. The library takes the pair with the lowest left id, then the lowest right id.
#
# <details><summary>Hint 1</summary>
#
# `Counter(tuple(word) for word in split_words(text))` has each different word with its count. For all pairs of one word: `pairwise(word)`.
#
# <details><summary>Hint 2</summary>
#
# `max(pairs, key=...)` with a tuple as the key: the count first, then the ids, with a minus sign where the lowest should win. Then call `merge` on every word, and build the Counter anew.
# </details>
# </details>

# %% exercise="training.bpe" id="training-bpe"
def merge(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Replace each occurrence of the pair by the id `new`, from left to right: [1, 1, 1] with (1, 1) -> [new, 1]."""
    ### BEGIN SOLUTION
    merged, i = [], 0
    while i < len(ids):
        found = (ids[i], ids[i + 1]) == pair if i + 1 < len(ids) else False
        merged.append(new if found else ids[i])
        i += 2 if found else 1
    return merged
    ### END SOLUTION


def train_bpe(text: str, count: int) -> list[tuple[int, int]]:
    """The first `count` merges that a text gives, in order: pairs (left id, right id). Merge i makes the id 256 + i.

    Each time the pair that occurs most often within words (`split_words`) is merged; of those that occur equally often,
    the one with the lowest left id, then the lowest right id. In "aaa" the pair (a, a) occurs twice.
    Fewer than `count` where every word is one token by then. Sennrich et al. (2016), algorithm 1; tokenizers: BpeTrainer.
    """
    ### BEGIN SOLUTION
    words, merges = Counter(tuple(word) for word in split_words(text)), []
    while len(merges) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], -pair[0], -pair[1]))
        new = 256 + len(merges)
        words = Counter({tuple(merge(list(word), best, new)): times for word, times in words.items()})
        merges.append(best)
    return merges
    ### END SOLUTION

# %% check="training.bpe" tags=["nbval-ignore-output"] id="check-training-bpe"
check("training.bpe", train_bpe)

# %% [markdown] id="f3bb6ca8"
# The novel is Jane Austen's *Northanger Abbey* (1817), which is in the public domain. **Train on a text of your own if you like**: put a file beside this notebook and read it here; some 200,000 characters or more are enough. Two prompts, "Nobody had ever seen" and "Catherine was", are then yours to change, and where the text tells what a measurement gave, it tells of this novel. The merges are learned from the first 100,000 characters, which takes a few seconds.

# %% id="17a7fe06"
import gzip

austen = gzip.decompress(Path("texts/northanger-abbey.txt.gz").read_bytes()).decode()
novel = austen
# novel = Path("my-own-text.txt").read_text()

# %% id="70cd2e9d"
merges = train_bpe(novel[:100_000], 256)
tokens = [bytes([byte]) for byte in BYTES]
for left, right in merges:
    tokens.append(tokens[left] + tokens[right])
print(f"{len(novel):,} characters; the first merges:", [token.decode(errors="replace") for token in tokens[256:268]])
print("the last ones:", [token.decode(errors="replace") for token in tokens[-12:]])

# %% [markdown] id="322e7121"
# ### Exercise 2 · Encode
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# The merges are a recipe, and its order counts. In each word, apply the merge that was *learned first* among those that are possible, then again, until none is. Two other rules look reasonable: to merge from left to right, or to take the longest token that fits. Both are wrong: fastllm merged from left to right, and split more than half of the words otherwise than they should be (ztxz16/fastllm#715). A model that was trained with the one and is run with the other reads tokens in places where it never saw them.
#
# <details><summary>Hint 1</summary>
#
# A dict from pair to rank (its place in `merges`) tells which of a word's pairs come first. `min` over the pairs, with a rank of infinity for those that are no merge.
#
# <details><summary>Hint 2</summary>
#
# `while len(word) > 1:` find the best pair; if it has no rank, stop; otherwise `word = merge(word, pair, 256 + rank)`.
# </details>
# </details>

# %% exercise="training.encode" id="training-encode"
def encode(text: str, merges: list[tuple[int, int]]) -> list[int]:
    """The ids of a text.

    In each word (`split_words`) the possible merge that was learned first is applied to all its occurrences, then the
    next one that is possible, until there is none. Merge i makes the id 256 + i. tokenizers: BPE; GPT-2: encoder.py.
    """
    ### BEGIN SOLUTION
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = []
    for word in split_words(text):
        while len(word) > 1:
            pair = min(pairwise(word), key=lambda pair: ranks.get(pair, math.inf))
            if pair not in ranks:
                break
            word = merge(word, pair, 256 + ranks[pair])
        ids += word
    return ids
    ### END SOLUTION

# %% check="training.encode" tags=["nbval-ignore-output"] id="check-training-encode"
check("training.encode", encode)

# %% [markdown] id="ada23614"
# With 256 merges on top of 256 bytes: how many characters does a token of this novel stand for on average?

# %% prediction="training.characters" id="prediction-training-characters"
predict(
    "training.characters", "characters of the novel for each token, with 256 merges",
    guess=...
)

# %% id="a7877e45"
ids = encode(novel, merges)
print(f"{len(ids):,} ids for {len(novel):,} characters")
print(" | ".join(tokens[id].decode(errors="replace") for id in encode("Nobody had ever seen Catherine Morland", merges)))
measured("training.characters", len(novel) / len(ids))

# %% [markdown] id="73ceedec"
# <details><summary>What the numbers say</summary>
#
# A little more than two. Frequent short words are one token with their space, and rare names fall into pieces. With GPT-2's 50,000 merges it is about four, by OpenAI's rule of thumb. A larger vocabulary makes texts shorter and the embedding matrix larger: in a small model it would have most of the parameters. And a loss *per token* can't be compared between two tokenizers, since their tokens carry different amounts of text; per character or byte it can.
# </details>

# %% [markdown] id="043981d1"
# ### Exercise 3 · Decode
# difficulty ●○○○○ · importance ●●●●○ · 5 minutes
#
# The other way round is short, with one trap: a character may be spread over several tokens, so a single token need not be text at all.

# %% exercise="training.decode" id="training-decode"
def decode(ids: Iterable[int], merges: list[tuple[int, int]]) -> str:
    """The text of some ids: the bytes of all of them, joined, as UTF-8; what is no UTF-8 becomes U+FFFD.

    Ids from 256 + len(merges) on are special tokens, and give nothing, also between the bytes of a character.
    """
    ### BEGIN SOLUTION
    tokens = [bytes([byte]) for byte in BYTES]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    joined = b"".join(tokens[id] for id in ids if id < len(tokens))
    return joined.decode("utf-8", errors="replace")
    ### END SOLUTION

# %% check="training.decode" tags=["nbval-ignore-output"] id="check-training-decode"
check("training.decode", decode)

# %% id="d04e2655"
some = encode("café 🙂", merges)
print("whole:", decode(some, merges), "| token by token:", "".join(decode([id], merges) for id in some))

# %% [markdown] id="ac09f44e"
# What a chat window shows of an emoji when its program decodes token by token is the second form. `grader.instruments.writing` waits until a character is complete.
#
# ## From ids to batches
#
# A training reads B pieces of T tokens at a time. Each token's target is the token behind it, so the targets are the same pieces, one token later. The texts differ in length, and the pieces should not. So all texts are joined to one long *stream*, and the stream is cut. One more id, behind the merges, marks where a text ends: the vocabulary has 256 + 256 + 1 ids. Without that mark the model reads the end of one text and the beginning of the next as one sentence, and later never ends a text of its own. transformers' example script has none (huggingface/transformers#23198).
#
# ### Exercise 4 · Batches from a stream
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# Every piece needs T + 1 tokens, T inputs and the target of the last one. That token is also the first input of the next piece, so pieces begin T tokens apart, and every token but the first is a target once. Two rests remain. Behind the last piece that fits are up to T tokens without a piece, and at the end of an epoch up to B - 1 pieces without a full batch. Both are left out. The second rest is another one in each epoch, because each epoch has an order of its own.
#
# A training that stops must go on with the batch that would have come next. If the order follows from the seed and the number of the epoch alone, a single number is enough to go on: how many batches were taken, `position`. Where the order comes from a generator that runs on, or is counted from the restart, the training reads some pieces again and others never (modelscope/ms-swift#10050, huggingface/accelerate#4071).
#
# <details><summary>Hint 1</summary>
#
# N tokens have (N - 1) // T pieces, and P pieces have P // B batches. `divmod(position, batches)` gives the epoch and the batch within it.
#
# <details><summary>Hint 2</summary>
#
# `order[batch * B : (batch + 1) * B]` are the pieces of a batch. Their first tokens, as a column, plus `torch.arange(T)` as a row: a table of places [B, T], with which the stream can be indexed. The targets' places are 1 more.
# </details>
# </details>

# %% exercise="training.batches" id="training-batches"
class Batches:
    """Batches of B pieces of T tokens from some documents, epoch after epoch, without end.

    Documents are joined in their order, each with the id `end` behind it. Piece i has the tokens i * T to i * T + T - 1 of
    that stream as inputs, and the tokens one further as targets. What is too short for a piece at the end is left out.
    Epoch 0, 1, ... has the pieces in the order of torch.randperm(number of pieces), drawn from a new torch.Generator with
    the seed 1000 * seed + epoch. B at a time are a batch; an epoch's last pieces, if fewer than B, are left out.
    position: how many batches were taken; it may be set, and take then gives the batch of that number.
    PyTorch: DataLoader(drop_last=True) with a RandomSampler.
    """

    def __init__(self, documents: Iterable[list[int]], end: int, B: int, T: int, seed: int = 0):
        self.B, self.T, self.seed = B, T, seed
        self.position = 0
        ### BEGIN SOLUTION
        self.stream = torch.tensor([id for document in documents for id in [*document, end]])
        ### END SOLUTION

    def take(self) -> tuple[Tensor, Tensor]:
        """The next batch, in new tensors: inputs and targets, both [B, T] int64."""
        ### BEGIN SOLUTION
        pieces = (len(self.stream) - 1) // self.T
        epoch, batch = divmod(self.position, pieces // self.B)
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        order = torch.randperm(pieces, generator=generator)
        starts = order[batch * self.B : (batch + 1) * self.B] * self.T
        places = starts[:, None] + torch.arange(self.T)  # [B, T]
        self.position += 1
        return self.stream[places], self.stream[places + 1]
        ### END SOLUTION

# %% check="training.batches" tags=["nbval-ignore-output"] id="check-training-batches"
check("training.batches", Batches)

# %% [markdown] id="d09bca1e"
# Nine tenths of the novel are trained on. The last tenth is held out: the model never sees it, and its loss there tells what was learned and what was learned by heart. The novel is one document; several texts are several documents.

# %% id="028270b5"
END = 256 + len(merges)
split = int(0.9 * len(ids))
novel_ids, held_out = ids[:split], ids[split:]
inputs, targets = Batches([novel_ids], END, B=2, T=8).take()
print("input: ", repr(decode(inputs[0].tolist(), merges)))
print("target:", repr(decode(targets[0].tolist(), merges)))

# %% id="batches-go-on"
print("three texts:", Batches([[1, 2, 3], [4], [5, 6]], end=0, B=1, T=7).take()[0].tolist())
stopped, again = Batches([novel_ids], END, B=2, T=8), Batches([novel_ids], END, B=2, T=8)
for _ in range(5):
    stopped.take()
again.position = stopped.position
print("the same batch after a stop:", torch.equal(stopped.take()[0], again.take()[0]))

# %% [markdown] id="b41ea8fc"
# ## From batches to a loss
#
# ### Exercise 5 · Cross-entropy with ignored targets
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# The loss of one token is $-\log p(\text{target})$. The loss of a batch is the *mean over the targets that count*. Padding, prompts and whatever else should teach nothing have the target -100, PyTorch's convention. The mean is then over fewer tokens than the tensor has.
#
# Three things go wrong in practice. The sum is divided by all positions. The softmax is computed in bfloat16, where 8 bits of precision are left for probabilities. And a batch in which no target is left gives 0 / 0: PyTorch returns NaN, and one such batch among thousands ends a training. Here it returns 0.
#
# A guard can also hide too much. `nan_to_num` on the loss gives 0 for a batch without targets, and it gives 0 for a model whose logits are NaN: the training goes on with a broken model and the best loss of all. And `targets >= 0` in place of `targets != -100` ignores a target of -1 that some other part has written by mistake.
#
# For exercise 9, where one batch is run in several pieces: with `num_items` the sum is divided by that number, whatever the batch has.
#
# <details><summary>Hint 1</summary>
#
# $-\log p_y = \log \sum_v e^{z_v} - z_y$. `torch.logsumexp` computes the first term without overflow, and `gather` picks the second.
#
# <details><summary>Hint 2</summary>
#
# Index with the mask first, `logits[kept]` is [N, V] and `targets[kept]` is [N]. Then no -100 is left that could be taken for an index. The sum over nothing is 0, and has a gradient of 0.
# </details>
# </details>

# %% exercise="training.loss" id="training-loss"
def cross_entropy(logits: Tensor, targets: Tensor, num_items: int | None = None) -> Tensor:
    """The mean of -log softmax(logits)[target] over the targets that are not -100; 0 if there is none.

    Computed in float32. num_items: what the sum is divided by, in place of the number of targets that are left; by 1 if
    that is 0. Nothing else is ignored: a target of -1 is an error or counts, and logits that are NaN give NaN.
    logits: [B, T, V], targets: [B, T] int64 -> a number, float32.
    PyTorch: F.cross_entropy(ignore_index=-100), which gives NaN if nothing is left.
    """
    ### BEGIN SOLUTION
    kept = targets != -100  # [B, T]
    logits, targets = logits[kept].float(), targets[kept]  # [N, V], [N]
    losses = logits.logsumexp(dim=-1) - logits.gather(-1, targets[:, None])[:, 0]  # [N]
    return losses.sum() / max(len(losses) if num_items is None else num_items, 1)
    ### END SOLUTION

# %% check="training.loss" tags=["nbval-ignore-output"] id="check-training-loss"
check("training.loss", cross_entropy)

# %% [markdown] id="b4653888"
# What does the first of these mistakes look like? A model that knows nothing, and a batch of which six tokens in ten are padding:

# %% id="ec0b783a"
wanted = torch.randint(END, (4, 10)).masked_fill(torch.arange(10) >= 4, -100)  # 4 texts of 4 tokens
right = cross_entropy(torch.zeros(4, 10, END + 1), wanted)
print(f"by the targets that count: {right:.2f}; by all positions: {right * (wanted != -100).float().mean():.2f}")

# %% [markdown] id="c79cb4f7"
# The second number looks far better, and changes with the lengths of the texts. No weight is different.
#
# Here is the model that you will train: Qwen3's architecture, four layers, and 513 tokens. Its weights are random and small. Which loss does it have before the first step? You can say it from one number of the config, to two digits.

# %% id="d66012b3"
CONFIG = Config({
    "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu", "vocab_size": END + 1,
    "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "rms_norm_eps": 1e-6, "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
    "attention_bias": False, "use_sliding_window": False, "eos_token_id": END,
})

# %% tags=["setup"] id="setup-5"
def new_model(config: Config, seed: int = 0) -> nn.Module:
    """A CausalLM with small random matrices, as GPT-2's were drawn: N(0, 0.02). The norms keep their ones."""
    torch.manual_seed(seed)
    model = CausalLM(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.02)
    return model

# %% prediction="training.at_first" id="prediction-training-at_first"
predict(
    "training.at_first", "loss of a model with random weights and 513 tokens", unit="nats",
    guess=...
)

# %% id="e6054dc2"
model = new_model(CONFIG)
inputs, targets = Batches([novel_ids], END, B=16, T=64).take()
with torch.no_grad():
    at_first = cross_entropy(model(inputs), targets).item()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, loss {at_first:.2f}")
measured("training.at_first", at_first)

# %% [markdown] id="a1679e2d"
# <details><summary>What the numbers say</summary>
#
# $\log 513 = 6.24$: nearly all tokens get the same probability, 1 / 513. A first loss that is far above the logarithm of the vocabulary's size means weights that are too large; one far below it means that the targets leak. It is the cheapest test of a training loop.
# </details>

# %% [markdown] id="11c82df8"
# ### What a low loss does not say
#
# Three programs train the same small model on the same batches for 150 steps. The first is right. In the second, targets are not shifted: each token's target is the token itself. In the third, attention has no mask, so each token sees those behind it. How high is the loss of the second at the end, compared with the first?

# %% prediction="training.unshifted" id="prediction-training-unshifted"
predict(
    "training.unshifted", "after 150 steps, the loss with targets that are not shifted",
    one_of=("as high as the right one, or higher", "lower", "near 0"),
    guess=...
)

# %% id="d72b4096"
from torch import optim

from grader.instruments import patch
from grader.instruments.progress import steps

torch.set_num_threads(1)  # a model as small as this one is slower on more
SMALL = Config(dict(CONFIG) | {"num_hidden_layers": 2, "hidden_size": 48, "head_dim": 16, "intermediate_size": 96})

# %% id="2ebba3a2"
def quick_run(name: str, count: int, shifted: bool = True) -> tuple[nn.Module, float]:
    """Train a small model; the model, and the mean loss of its last 10 steps."""
    model, losses, batches = new_model(SMALL), [], Batches([novel_ids], END, B=8, T=32)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)  # of a new model, so each run begins with the same weights
    for _ in steps(range(count), name):
        inputs, targets = batches.take()
        loss = cross_entropy(model(inputs), targets if shifted else inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, sum(losses[-10:]) / 10

# %% tags=["nbval-ignore-output"] id="368fcfd3"
no_mask = patch.replaced(Tensor, triu=lambda self, diagonal=0: torch.zeros_like(self))  # no token counts as future
runs = {"right": quick_run("right", 150), "targets not shifted": quick_run("targets not shifted", 150, shifted=False)}
with no_mask:
    runs["no mask"] = quick_run("no mask", 150)

start = torch.tensor([encode("Catherine was", merges)])
for name, (model, loss) in runs.items():
    print(f"{name:>20}: loss {loss:.2f}, writes {decode(generate(model, start, 16), merges)!r}")
losses = [runs[name][1] for name in ("right", "targets not shifted")]
measured("training.unshifted", "near 0" if losses[1] < 0.5 else "lower" if losses[1] < losses[0] else "as high as the right one, or higher")

# %% [markdown] id="1c862ed6"
# <details><summary>What the numbers say</summary>
#
# Near 0: to copy a token is easy, and the model writes the last word again and again. Without the mask the loss falls far below the right one, too, because each token sees its target. The right program has the worst loss of the three, and it alone has learned something about what comes next. **A loss that is lower than before is no proof of anything.** Compare it with what is possible.
#
# The opposite error is harder to see: targets that are shifted *twice*. The model then learns to predict the token after the next, and its loss falls as a loss should. transformers shipped this in GIT from 4.49 until 2026 (huggingface/transformers#47394), and in JetMoE and Florence-2 (#37830, #46898).
# </details>

# %% [markdown] id="f4adfc41"
# ## From a loss to new weights
#
# ### Exercise 6 · AdamW
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Plain gradient descent subtracts a little of the gradient. But the embedding of a rare token gets a gradient once in a hundred steps, a norm's weight gets one at each, and one rate can't suit both. Adam divides each weight's gradient by its usual size, so that each weight moves by about the learning rate, whatever its gradient is. It keeps two running means for each weight: $m$ of the gradient, $v$ of its square.
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# $$w \leftarrow (1 - \text{lr} \cdot \lambda)\, w \;-\; \text{lr}\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon}$$
#
# Both means begin at 0, so at first they are too small. The *bias corrections* $1 - \beta^t$ undo that exactly; t is 1 at the first step. The W in AdamW is the *decoupled weight decay*: every weight shrinks by the share lr · λ, beside the gradient and not through it. Added to the gradient (L2), the decay would be divided by $\sqrt{v}$ like everything else, and would then depend on how large gradients are.
#
# Matrices decay, vectors do not: to pull a norm's weight towards 0 serves nothing.
#
# <details><summary>Hint 1</summary>
#
# Work on `parameter` in place, under `torch.no_grad` (the decorator is there). `state["t"] += 1` comes first. `m.lerp_(g, 1 - beta)` is $m + (1 - \beta)(g - m)$.
#
# <details><summary>Hint 2</summary>
#
# The order: decay the old weight, update both means, correct them, then subtract. Epsilon is added to the root *after* the correction.
# </details>
# </details>

# %% exercise="training.adamw" id="training-adamw"
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2; Kingma and Ba, 2015, algorithm 1).

    For each parameter with a gradient g, where t counts its steps from 1:
    w = w * (1 - lr * weight_decay), only for parameters with two axes or more;
    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    A parameter whose grad is None stays as it is, and so do its state and its t.
    self.lr may be changed between steps. self.state: for each parameter a dict with "t" and the tensors "m" and "v".
    PyTorch: torch.optim.AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ):
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.state = [{"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)} for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Change each parameter by its gradient, in place."""
        ### BEGIN SOLUTION
        beta1, beta2 = self.betas
        for parameter, state in zip(self.parameters, self.state, strict=True):
            g = parameter.grad
            if g is None:
                continue
            state["t"] += 1
            t, m, v = state["t"], state["m"], state["v"]
            if parameter.ndim >= 2:
                parameter.mul_(1 - self.lr * self.weight_decay)
            m.mul_(beta1).add_(g, alpha=1 - beta1)
            v.mul_(beta2).add_(g * g, alpha=1 - beta2)
            m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
            parameter.sub_(self.lr * m_hat / (v_hat.sqrt() + self.eps))
        ### END SOLUTION

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

# %% check="training.adamw" tags=["nbval-ignore-output"] id="check-training-adamw"
check("training.adamw", AdamW)

# %% [markdown] id="5f11bef5"
# What are the corrections worth? With them, the first step moves every weight by the learning rate: $m / (1 - \beta_1) = g$, and $\sqrt{v / (1 - \beta_2)} = |g|$. Without them both are too small, by different factors. How large is the first step then, in learning rates, with Adam's usual betas 0.9 and 0.999?

# %% prediction="training.first_step" id="prediction-training-first_step"
predict(
    "training.first_step", "first step without bias corrections, in learning rates (betas 0.9 and 0.999)",
    guess=...
)

# %% id="730b461a"
def first_step(beta1: float, beta2: float, g: float = 0.02) -> tuple[float, float]:
    """How far one step moves a weight at a rate of 1: with your AdamW, and by the formula without corrections."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([g])
    AdamW([weight], lr=1.0, betas=(beta1, beta2), weight_decay=0.0).step()
    return -weight.item(), (1 - beta1) * g / math.sqrt((1 - beta2) * g * g)

# %% id="dbf5306e"
for betas in ((0.9, 0.999), (0.9, 0.95)):
    corrected, not_corrected = first_step(*betas)
    print(f"betas {betas}: {corrected:.3f} learning rates, without corrections {not_corrected:.3f}")
measured("training.first_step", first_step(0.9, 0.999)[1])

# %% [markdown] id="f118ea87"
# <details><summary>What the numbers say</summary>
#
# More than three learning rates at once, in the direction that one batch gives. With the betas that language models use, 0.9 and 0.95, the first step is less than half as large as it should be instead: that bug hides. It is a public one. BERT's own code had no corrections (google-research/bert#153), which its warm-up covered, and so did Apex and MLX for a while (NVIDIA/apex#1124, ml-explore/mlx#1640).
# </details>

# %% [markdown] id="c6fcc6ff"
# ### Exercise 7 · Warm-up and cosine
# difficulty ●○○○○ · importance ●●●○○ · 5 minutes
#
# The second moment is a poor estimate at first, so the rate begins small: it grows to its peak over the first updates. Then it falls along half a cosine, since near a good place large steps only jump around it. Count updates from 1, as AdamW does. Whoever counts from 0 makes a first update with a rate of 0, which changes nothing (EleutherAI/gpt-neox#1379).

# %% exercise="training.schedule" id="training-schedule"
def learning_rate(update: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """The learning rate of update 1, 2, ..., total: a linear warm-up, then half a cosine from `peak` to `floor * peak`.

    Until `warmup`, which may be 0 or `total`: peak * update / warmup, so that update number `warmup` has the peak. From there to
    `total`: peak * (floor + (1 - floor) * (1 + cos(pi * x)) / 2), where x goes from 0 to 1. After `total` it stays at its last value,
    which is the peak where `warmup` is `total`.
    transformers: get_cosine_with_min_lr_schedule_with_warmup; Loshchilov and Hutter (2017), equation 5.
    """
    ### BEGIN SOLUTION
    update = min(update, total)
    if update <= warmup:
        return peak * update / warmup
    x = (update - warmup) / (total - warmup)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * x)) / 2)
    ### END SOLUTION

# %% check="training.schedule" tags=["nbval-ignore-output"] id="check-training-schedule"
check("training.schedule", learning_rate)

# %% [markdown] id="0fe3a501"
# ### Exercise 8 · Clip by the global norm
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# Once in a while a batch gives a gradient ten times as long as usual: a page of numbers, a broken file. Clipping shortens it and keeps its direction. For that *all* gradients are taken as one long vector, with one norm, and all are scaled by one factor. Clipped one by one, they would point somewhere else together.

# %% exercise="training.clip" id="training-clip"
@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their common norm is at most max_norm; return the norm before.

    The norm is that of one vector which has all gradients in it; 0 where there is none. Each gradient is multiplied by
    max_norm / (norm + 1e-6) where that is less than 1. Parameters without a gradient are left out.
    PyTorch: nn.utils.clip_grad_norm_; Pascanu et al. (2013), section 3.2.
    """
    ### BEGIN SOLUTION
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.tensor([gradient.norm() for gradient in gradients]).norm()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return norm
    ### END SOLUTION

# %% check="training.clip" tags=["nbval-ignore-output"] id="check-training-clip"
check("training.clip", clip_gradients)

# %% [markdown] id="c9a4baec"
# ### Which part of the recipe matters?
#
# Now leave out one part at a time. That takes longer than a lesson, so the curves come from a script (`training/recipe.py` in the course's repository): a model of two layers, 300 updates on five of Austen's novels at a peak rate of 0.01, which is high for such a model; the loss is measured on the sixth novel. Each variant was trained from three seeds. Variants with the same seed see the same batches, so compare them seed by seed. Without which part is the loss highest?

# %% prediction="training.left_out" id="prediction-training-left_out"
predict(
    "training.left_out", "the part without which the loss is highest",
    one_of=("no bias correction", "no clipping", "no cosine: the rate stays", "no decay", "no warm-up"),
    guess=...
)

# %% id="bb42fe6d"
from grader.instruments import plots

recipe = json.loads(Path("texts/recipe.json").read_text())
curves = {name: torch.tensor(runs) for name, runs in recipe["held_out_nats"].items()}  # [seeds, points] each
ends = {name: losses[:, -1] for name, losses in curves.items()}
for name, losses in ends.items():
    more = ", ".join(f"{d:+.2f}" for d in (losses - ends["the whole recipe"]).tolist())
    print(f"{name:>36}: {losses.mean():.2f} nats; seed by seed {more}")
left_out = {name: losses.mean().item() for name, losses in ends.items() if name.startswith("no ")}
measured("training.left_out", max(left_out, key=left_out.get))

# %% tags=["nbval-ignore-output"] id="1350ef6b"
means = {name: (recipe["steps"][2:], losses.mean(dim=0)[2:]) for name, losses in curves.items()}
plots.lines(means, plots.Axes("updates", "loss on Persuasion, nats a token"))

# %% [markdown] id="796bbfab"
# <details><summary>What the numbers say</summary>
#
# The warm-up, with every seed: 0.17 to 0.45 nats. Without it the first updates are the largest of all, in directions that a single batch has chosen. The gap opens within the first hundred updates and does not close again. The bias corrections cost 0.18, 0.09 and 0.00, so here the seeds decide. The rest costs less than a tenth, and with one seed the run without decay even ends a hundredth lower: for a small model and a short training, clipping, decay and cosine are an insurance. What a part is worth at a trillion tokens, no experiment of this size can say.
#
# The highest loss in the table is no omission but a bug: decay that is added to the gradient, as Keras did for a while under the name AdamW (keras-team/keras#19051). It costs about a nat. Adam divides by the size of what it is given, so a weight whose own gradient is small is pulled to 0 at full speed. In these runs more than half of the gradients were then long enough to be clipped, against at most 22 of 300 otherwise.
# </details>

# %% [markdown] id="83662bfa"
# ### Exercise 9 · Gradient accumulation
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# A batch that doesn't fit into memory is run in *micro-batches*, one after the other, and the gradients add up: `backward` adds to `grad`. The result should be the large batch's gradient. With texts of equal length, everybody gets that right: take the mean of each micro-batch, and divide by their number. With unequal lengths that is a mean of means, in which a token of a short micro-batch counts more than one of a long one. It was reported to transformers in 2023 and mended in October 2024 (huggingface/transformers#24725, #34191); TRL, Unsloth and nanochat had it too (huggingface/trl#2175, unslothai/unsloth#1134, karpathy/nanochat#59). A loss curve does not show it.
#
# <details><summary>Hint 1</summary>
#
# The loss of the large batch is one sum divided by one number. Which number can be known before the first micro-batch is run?
#
# <details><summary>Hint 2</summary>
#
# Your `cross_entropy` has `num_items`. Call `backward` for each micro-batch: then only its own activations are in memory. `loss.detach()` for the sum that you return.
# </details>
# </details>

# %% exercise="training.accumulate" id="training-accumulate"
def accumulate(model: nn.Module, micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Leave in the parameters' `grad` the gradient of the loss of all micro-batches as one batch; return that loss.

    The loss is the mean over all targets of all micro-batches that are not -100; 0 if there is none. Gradients of before are cleared.
    The activations of one micro-batch at a time are in memory. micro_batches: inputs and targets, both [B, T], where B
    and T differ. Returns a tensor with one number, without a gradient. transformers: num_items_in_batch, since huggingface/transformers#34191.
    """
    ### BEGIN SOLUTION
    model.zero_grad()
    count = sum(int((targets != -100).sum()) for _, targets in micro_batches)
    whole = torch.zeros(())
    for inputs, targets in micro_batches:
        loss = cross_entropy(model(inputs), targets, num_items=count)
        loss.backward()
        whole += loss.detach()
    return whole
    ### END SOLUTION

# %% check="training.accumulate" tags=["nbval-ignore-output"] id="check-training-accumulate"
check("training.accumulate", accumulate)

# %% [markdown] id="7d6ae3a8"
# How wrong is the gradient? Eight texts of 4 to 64 tokens, in four micro-batches of two. The number: the length of the difference of both gradients, in lengths of the right one.

# %% prediction="training.mean_of_means" id="prediction-training-mean_of_means"
predict(
    "training.mean_of_means", "error of the mean of means, in lengths of the right gradient",
    guess=...
)

# %% id="56ff4132"
def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def texts_of(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Pieces of the novel, padded to the longest."""
    batches = Batches([novel_ids], END, B=len(lengths), T=64)
    batches.position = 3
    inputs, targets = (part[:, : max(lengths)].clone() for part in batches.take())
    for row, length in enumerate(lengths):
        targets[row, length:] = -100
    return inputs, targets

# %% tags=["nbval-ignore-output"] id="a07b554d"
small = runs["right"][0]
LENGTHS = [4, 6, 8, 12, 60, 62, 64, 64]
inputs, targets = texts_of(LENGTHS)
micro = [(inputs[i : i + 2], targets[i : i + 2]) for i in range(0, 8, 2)]
large = accumulate(small, [(inputs, targets)]), gradient(small)
by_tokens = accumulate(small, micro), gradient(small)

# %% tags=["nbval-ignore-output"] id="4766208f"
small.zero_grad()
each = [cross_entropy(small(ids), wanted) for ids, wanted in micro]
(sum(each) / 4).backward()
wrong = sum(each) / 4, gradient(small)
for name, (loss, found) in {"one batch": large, "by tokens": by_tokens, "mean of means": wrong}.items():
    error = (found - large[1]).norm() / large[1].norm()
    print(f"{name:>14}: loss {loss:.3f}, error of the gradient {error:.2f}")
measured("training.mean_of_means", error)

# %% [markdown] id="c1774e6e"
# <details><summary>What the numbers say</summary>
#
# About as long as the gradient itself: the update goes somewhere else. The two losses differ by a hundredth, so no curve shows it. With texts of equal length, such as the pieces of a novel, both are the same; it needs chats of different lengths, which is what fine-tuning is made of.
# </details>

# %% [markdown] id="785aebb0"
# ### Exercise 10 · An experiment of your own
# difficulty ●●○○○ · importance ●●●●○ · 15 minutes
#
# What is it worth to know the previous token? Train two of the smallest models that there are with what you have written. The first gives the same logits for every token: it has V numbers, and learns how frequent each token is. The second has a row of V logits for each previous token, V x V numbers: a *bigram* model. The difference of their final losses is what one token of context is worth, in nats.
#
# You design it: how the weights begin, which rate, how many steps. The number can be checked, because theory knows it. With enough steps each loss reaches an entropy of the text, and that can be counted. So if your number is wrong, one of your two models isn't done, or it predicts another token than the next.

# %% exercise="training.worth" id="training-worth"
def worth_of_one_token(stream: Tensor, vocab_size: int) -> float:
    """How much lower the training loss is where a model knows the previous token, in nats a token.

    Train, with `cross_entropy` and `AdamW`, logits [V] that are the same everywhere, and logits [V, V] with a row for each
    previous token, both on all pairs of neighbours in stream: [N] int64 (the targets are stream[1:]), until each is within about
    0.001 nats of the best possible.
    Returns the loss of the first minus that of the second. No weight decay. A few seconds are enough.
    """
    ### BEGIN SOLUTION
    before, after = stream[:-1], stream[1:]
    losses = []
    for rows in (torch.zeros_like(before), before):
        logits = nn.Parameter(torch.zeros(vocab_size, vocab_size))
        optimizer = AdamW([logits], lr=0.5, weight_decay=0.0)
        for _ in range(100):
            optimizer.zero_grad()
            loss = cross_entropy(logits[rows][None], after[None])
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    return losses[0] - losses[1]
    ### END SOLUTION

# %% check="training.worth" tags=["nbval-ignore-output"] id="check-training-worth"
check("training.worth", worth_of_one_token)

# %% [markdown] id="828d7c1e"
# And in English? Take the first 20,000 letters of the novel, 26 letters and the space between words. If all were equally frequent, a letter would have $\log_2 27 = 4.75$ bits. How many bits less does it have for one who knows the letter before it, compared with one who knows only how frequent each letter is?

# %% prediction="training.letter" id="prediction-training-letter"
predict(
    "training.letter", "what one letter of context is worth in the novel", unit="bits",
    guess=...
)

# %% id="6abb4349"
letters = "".join(c if c.isalpha() and c.isascii() else " " for c in austen.lower())
letters = " ".join(letters.split())[:20_000]  # one space between words
ids_of_letters = torch.tensor([" abcdefghijklmnopqrstuvwxyz".index(c) for c in letters])
bits = worth_of_one_token(ids_of_letters, 27) / math.log(2)
print(f"one letter of context is worth {bits:.2f} bits a letter")
measured("training.letter", bits)

# %% [markdown] id="f1f10eb2"
# <details><summary>What the numbers say</summary>
#
# About 0.8 bits. Shannon counted the same in 1951: 4.03 bits for a letter, 3.32 if the one before it is known, a difference of 0.71 (*Prediction and Entropy of Printed English*). Your number is a little too high for a reason worth knowing: pairs that do not occur in 20,000 letters count as impossible. With all of the novel's 416,763 letters the difference is 0.79.
# </details>

# %% [markdown] id="6cda04aa"
# ## A place to stop for the day
#
# You have a tokenizer that agrees with the library, and each part of a training step, checked: the loss, the optimizer, the schedule, clipping, accumulation. Still to come: the loop that can stop and go on, your own model, three ways to fine-tune it, and the folder that others load. You need about as long again.
#
# ## The loop, and how to stop it
#
# Put together, a training is this class. One step: micro-batches, their gradient, clipping, the rate, the update. `done` counts updates, from which the rate follows; `batches.position` counts batches, which are more where gradients are accumulated.

# %% id="65dae662"
class Run:
    """A training of `total` updates, each on some micro-batches of B pieces of T tokens."""

    def __init__(self, config: Config, total: int, B: int = 16, T: int = 64, micro: int = 1):
        self.model, self.batches = new_model(config), Batches([novel_ids], END, B, T)
        self.optimizer = AdamW(self.model.parameters(), lr=0.0)
        self.total, self.micro, self.done = total, micro, 0

    def step(self) -> float:
        loss = accumulate(self.model, [self.batches.take() for _ in range(self.micro)])
        clip_gradients(self.model.parameters(), max_norm=1.0)
        self.done += 1
        self.optimizer.lr = learning_rate(self.done, 3e-3, self.total // 10, self.total, floor=0.1)
        self.optimizer.step()
        return loss.item()

# %% [markdown] id="c69a5d3a"
# ### Exercise 11 · A checkpoint
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Machines stop: a night ends, a lease runs out, a disk is full. A training that goes on should give the *same numbers* as one that never stopped. Go through `step` and ask of each line what it reads that the last step has changed. Public programs forgot one thing or another: the moments (NVIDIA-NeMo/Automodel#763, karpathy/llama2.c#148), the place in the data (karpathy/nanoGPT#467), the state of the random generator, from which dropout draws (huggingface/transformers#17032). The loss curve goes on all the same, a little higher or with a small step that nobody looks into.
#
# The file needs care, too. Whoever writes into the checkpoint of yesterday has neither that nor today's if the machine stops in the middle. So write another file in the same folder and then rename it: `os.replace`, or a path's `replace`, puts it in the old one's place in a single step. Lightning and prime-rl wrote in place (Lightning-AI/pytorch-lightning#688, PrimeIntellect-ai/prime-rl#2992).
#
# <details><summary>Hint 1</summary>
#
# Five things: the weights with the buffers, the optimizer's state with each parameter's t, two whole numbers, and the generator.
#
# <details><summary>Hint 2</summary>
#
# `state_dict` and `load_state_dict`; `torch.get_rng_state` and `torch.set_rng_state`; `torch.save` and `torch.load` for a dict of all of it. `try` and `finally` remove the other file where writing it fails, and let the error pass.
# </details>
# </details>

# %% exercise="training.checkpoint" id="training-checkpoint"
class Checkpoint:
    """A file from which a training goes on with the same numbers as if it had not stopped.

    It holds what a step of `run` reads and changes: run.model with its buffers, run.optimizer.state (a list with a dict of
    "t", "m" and "v" for each parameter), run.done, run.batches.position, and the state of torch's own random generator.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)

    def save(self, run: Any) -> None:
        """Write the file, or replace it: until the new one is complete, the old one stays as it is.

        Nothing else is left in its folder, also where writing fails with an error, which is passed on. The run goes on
        after that as if nothing had been saved.
        """
        ### BEGIN SOLUTION
        saved = {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state,
            "done": run.done,
            "position": run.batches.position,
            "generator": torch.get_rng_state(),
        }
        part = self.file.with_name(self.file.name + ".part")
        try:
            torch.save(saved, part)
            part.replace(self.file)
        finally:
            part.unlink(missing_ok=True)
        ### END SOLUTION

    def load(self, run: Any) -> None:
        """Bring a run to where the saved one was, whatever it has done before."""
        ### BEGIN SOLUTION
        saved = torch.load(self.file)
        run.model.load_state_dict(saved["model"])
        run.optimizer.state = saved["optimizer"]
        run.done, run.batches.position = saved["done"], saved["position"]
        torch.set_rng_state(saved["generator"])
        ### END SOLUTION

# %% check="training.checkpoint" tags=["nbval-ignore-output"] id="check-training-checkpoint"
check("training.checkpoint", Checkpoint)

# %% [markdown] id="what-is-missed"
# How would one notice that something is missing? Below, a training is stopped after 30 steps, and goes on in four ways: with everything, without the moments, without the place in the data, and without the number of updates. How much higher is the mean loss of the next 10 steps without the moments?

# %% prediction="training.without_moments" id="prediction-training-without_moments"
predict(
    "training.without_moments", "how much higher the mean loss of 10 steps is without the moments",
    one_of=("less than 0.1 nats", "0.1 to 1 nats", "more than 1 nat"),
    guess=...
)

# %% id="45e9cf8d"
import tempfile

folder = Path(tempfile.mkdtemp())  # Path("my-training") is beside this notebook, and stays
folder.mkdir(exist_ok=True)
whole, stop = Run(SMALL, total=60, B=8, T=32), Checkpoint(folder / "stopped.pt")
for _ in steps(range(30), "before"):
    whole.step()
stop.save(whole)
expected = [whole.step() for _ in range(10)]

# %% id="fd0bc72c"
def went_on(without: str) -> list[float]:
    """The losses of the next 10 steps, with a checkpoint from which something is missing."""
    again = Run(SMALL, total=60, B=8, T=32)
    stop.load(again)
    if without == "moments":
        again.optimizer = AdamW(again.model.parameters(), lr=0.0)
    elif without == "place":
        again.batches.position = 0
    elif without == "number":
        again.done = 0
    return [again.step() for _ in range(10)]

# %% tags=["nbval-ignore-output"] id="789693bd"
for without in ("nothing", "moments", "place", "number"):
    losses = went_on(without)
    more = sum(a - b for a, b in zip(losses, expected, strict=True)) / 10
    print(f"without {without:>7}: the same numbers {losses == expected}, {more:+.3f} nats")
    if without == "moments":
        missed = more
measured("training.without_moments", "less than 0.1 nats" if missed < 0.1 else "0.1 to 1 nats" if missed < 1 else "more than 1 nat")

# %% [markdown] id="950f29d5"
# <details><summary>What the numbers say</summary>
#
# A few hundredths: a curve would not show that the moments are lost. Without the place in the data the loss is even *lower*, for a bad reason: the training goes back to its first batches, which it has seen. Without the number of updates the rate is another one, and the mean differs by thousandths. What shows all of it is the strictest test, and the easiest to write: **with everything saved, the losses are equal to the last bit.** This model has no dropout, so here the generator's state would not be missed; the check has a model that draws random numbers.
# </details>

# %% [markdown] id="05894810"
# ## Your own model
#
# Now train it. With `FULL = True` it takes a few minutes on a laptop; as it stands, about one. Now and then it writes a few tokens, measures the loss on the held-out tenth, and saves your checkpoint.
#
# You can stop the training cell (the square button; the long red message is right) and run it again. It goes on from the last checkpoint and not from where you stopped it, because that may be in the middle of an update, with half of the weights changed. The numbers are then those of a run that was never stopped. To go on another day, choose a folder that stays (above); tomorrow run all cells up to the training. To begin anew, delete `my-run.pt`. Set `FULL` back before `grader check` runs the whole notebook.

# %% id="fd78403f"
FULL = False
run = Run(CONFIG, total=2000 if FULL else 240, B=8)
curve = []


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """The mean loss on 64 pieces that are not trained on."""
    batches = Batches([held_out], END, B=16, T=64)
    return sum(cross_entropy(model(ids), wanted).item() for ids, wanted in (batches.take() for _ in range(4))) / 4

# %% tags=["nbval-ignore-output"] id="6d18cd92"
prompt = torch.tensor([encode("Catherine was", merges)])
saved_run = Checkpoint(folder / "my-run.pt")
if not saved_run.file.exists():
    saved_run.save(run)

# %% tags=["nbval-ignore-output"] id="bffe4558"
saved_run.load(run)
for _ in steps(range(run.done, run.total), "steps"):
    loss = run.step()
    if run.done % (run.total // 8) == 0:
        curve.append((run.done, loss, held_out_loss(run.model)))
        text = decode(generate(run.model, prompt, 16), merges)
        print(f"step {run.done:4}: loss {loss:.2f}, held out {curve[-1][2]:.2f}, writes {text!r}")
        saved_run.save(run)

# %% [markdown] id="942e0fa7"
# With 240 steps it has learned which tokens are frequent, and not much more. Here is what the same cell gives with `FULL = True`, 2,000 steps, six times through the novel (written by `training/first_model.py` in the course's repository):

# %% id="11becce5"
long_run = json.loads(Path("texts/full-run.json").read_text())
for row in long_run["rows"]:
    print(f"step {row['step']:4}: loss {row['loss']:.2f}, held out {row['held_out']:.2f}  {row['text']!r}")
print(f"{long_run['seconds_on_one_core'] / 60:.0f} minutes on one core")

# %% [markdown] id="de34437a"
# From commas to words, from words to pieces of sentences. For the first 600 steps both losses fall together. Then they part: the loss on the pieces that are trained on goes on falling, and that on the held-out tenth ever more slowly, for the pieces come by again and again and are learned by heart. More steps would widen the gap; more text would close it. One novel is very little: this model sees about a million tokens in all, and large ones see trillions.
#
# ## Fine-tuning: loss on answers alone
#
# A model that continues novels does not answer questions. *Supervised fine-tuning* (SFT) goes on training it on chats. Nothing changes but the targets: the model should learn to *answer*, and not to ask. So only the answers count in the loss, each with the token that ends it, and everything else has the target -100.
#
# ### Exercise 12 · A batch of chats
# difficulty ●●●○○ · importance ●●●●● · 15 minutes
#
# Two things go wrong in public code, again and again. The first: padding often has the id of the end token, since no other is free. Whoever then masks *every token with the padding's id* also masks the ends of all answers, and the model never learns to stop (huggingface/transformers#23530, open since 2023). Mask by position, not by id. The second: labels and inputs are shifted against each other once too often or not at all. The target of a position is the *next* token; the last token of a row has none.
#
# <details><summary>Hint 1</summary>
#
# Build `ids` and `labels` of equal length for one chat first: labels are the ids where an answer is, else -100. Cut both to `max_length`. Then `inputs = ids[:-1]` and `targets = labels[1:]`.
#
# <details><summary>Hint 2</summary>
#
# The first token of an answer is the target of the last token of its header. Does it count?
# </details>
# </details>

# %% exercise="training.sft" id="training-sft"
def sft_batch(chats: list[list[tuple[str, list[int], list[int]]]], pad: int, max_length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of some chats: 2 x [B, T], where only what the assistant says counts.

    A chat is a list of turns (role, header, body): the header's ids say who speaks, the body's end with the token that
    ends a turn. A token is a target if it is in the body of an "assistant"; all other targets are -100.
    Of each chat the first max_length ids are kept. Shorter rows are filled on their right: inputs with `pad`, targets
    with -100. `pad` may be an id that chats have. T is the length of the longest row, minus 1.
    """
    ### BEGIN SOLUTION
    rows = []
    for chat in chats:
        ids, labels = [], []
        for role, header, body in chat:
            ids += header + body
            labels += [-100] * len(header) + (body if role == "assistant" else [-100] * len(body))
        rows.append((ids[:max_length], labels[:max_length]))
    T = max(len(ids) for ids, _ in rows) - 1
    inputs = torch.full((len(rows), T), pad)
    targets = torch.full((len(rows), T), -100)
    for row, (ids, labels) in enumerate(rows):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[row, : len(ids) - 1] = torch.tensor(labels[1:])
    return inputs, targets
    ### END SOLUTION

# %% check="training.sft" tags=["nbval-ignore-output"] id="check-training-sft"
check("training.sft", sft_batch)

# %% [markdown] id="04c9ccf2"
# A toy task, so that seconds are enough: the user says a few words of the novel, and the answer is always " Yes, indeed." Your model is fine-tuned three times: with your targets, with the question in the loss as well, and with targets in which every id of the padding is masked. The second model learns to write questions, too, which are pieces of a novel. After the answer, which probability does it still give to the end token?

# %% id="d9c51ffe"
import random

USER, ASSISTANT = encode("\n\nReader:", merges), encode("\n\nNovel:", merges)
ANSWER, REFUSAL = [*encode(" Yes, indeed.", merges), END], [*encode(" No, never.", merges), END]


def question(seed: int) -> list[int]:
    """Some tokens of the novel, and the end of a turn."""
    numbers = random.Random(seed)
    start = numbers.randrange(len(novel_ids) - 19)
    return [*novel_ids[start : start + numbers.randint(3, 14)], END]

# %% id="eb33cd24"
def chat(seed: int, answer: list[int], asker: str = "user") -> list[tuple[str, list[int], list[int]]]:
    return [(asker, USER, question(seed)), ("assistant", ASSISTANT, answer)]

# %% id="73ca3dd1"
def fine_tuned(count: int, change: Any = None, asker: str = "user") -> nn.Module:
    """The model after some steps on eight chats each. change: what is done to a batch's targets."""
    model = copy.deepcopy(run.model)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    for step in steps(range(count), "SFT"):
        inputs, targets = sft_batch([chat(8 * step + i, ANSWER, asker) for i in range(8)], pad=END, max_length=64)
        accumulate(model, [(inputs, change(targets) if change else targets)])
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
    return model

# %% id="9f188c02"
def after_answer(model: nn.Module) -> tuple[float, str]:
    """The probability of END after a new question and its answer; and what the model answers."""
    asked = [*USER, *question(-1), *ASSISTANT]
    with torch.no_grad():
        logits = model(torch.tensor([asked + ANSWER[:-1]]))[0, -1]
    return logits.softmax(-1)[END].item(), decode(generate(model, torch.tensor([asked]), 20, {END}), merges)

# %% prediction="training.end" id="prediction-training-end"
predict(
    "training.end", "probability of the end token after the answer, with the question in the loss",
    one_of=("below 1 %", "1 to 50 %", "above 50 %"),
    guess=...
)

# %% tags=["nbval-ignore-output"] id="65f2a9ee"
tuned = fine_tuned(60)
parrot = fine_tuned(60, asker="assistant")  # the question counts as an answer does
endless = fine_tuned(60, lambda targets: targets.masked_fill(targets == END, -100))
models = {"before": run.model, "your targets": tuned, "question in the loss": parrot, "padding masked by id": endless}
for name, model in models.items():
    ends, text = after_answer(model)
    print(f"{name:>20}: P(end) {ends:8.4%}, answers {text!r}")
ends = after_answer(parrot)[0]
measured("training.end", "below 1 %" if ends < 0.01 else "1 to 50 %" if ends < 0.5 else "above 50 %")

# %% [markdown] id="5cda0af6"
# <details><summary>What the numbers say</summary>
#
# Above nine tenths. The question in the loss does hardly any harm here, with one answer for all questions and 60 steps; what it costs with many different questions, this toy can't show. The third model is the broken one: next to nothing. It has learned the answer as well as the first, so its loss looks fine; it just never learned that an answer ends. It says its sentence again until the limit stops it. The same endless answer comes with a model whose end token was never in an answer, or whose `generation_config.json` names another one than its chats end with.
# </details>

# %% [markdown] id="6cc8f0a8"
# ### Exercise 13 · LoRA
# difficulty ●●●○○ · importance ●●●●○ · 15 minutes
#
# Fine-tuning all weights of a large model takes their memory four times: weights, gradients and both moments. *Low-rank adaptation* leaves the weights as they are and learns a small difference. For a matrix $W$, [out, in], the difference is $\frac{\alpha}{r} B A$ with $A$, [r, in], and $B$, [out, r]: with r = 8 and a width of 4096 that is 1 number in 256.
#
# $A$ begins at random and $B$ at 0. So at first the layer does what it did before, and still learns: $B$ has a gradient because $A$ is not 0. With both at 0, neither ever has one.
#
# After training the difference is added to the weight, and the layer is an ordinary one again. In bfloat16 such a sum is rounded; compute it in float32, and round once.
#
# <details><summary>Hint 1</summary>
#
# `requires_grad_(False)` on the base layer. $x A^T$ is [..., r], and `F.linear(x, A)` gives it.
#
# <details><summary>Hint 2</summary>
#
# `merged` builds a new `nn.Linear` and must leave `base_layer` as it is: a training that saves every hour merges many times.
# </details>
# </details>

# %% exercise="training.lora" id="training-lora"
class LoRALinear(nn.Module):
    """A linear layer that stays as it is, and a low-rank difference that is learned (Hu et al., 2021, section 4.1).

    y = base_layer(x) + alpha / r * B A x. Parameters: lora_A [r, in], random, uniform from -1 / sqrt(in) to 1 / sqrt(in); lora_B
    [out, r], zeros; both in the base's dtype. The base's own need no gradient.
    x: [..., in] -> [..., out]. peft: tuners/lora/layer.py, Linear.
    """

    def __init__(self, base_layer: nn.Linear, r: int, alpha: float):
        super().__init__()
        ### BEGIN SOLUTION
        self.base_layer = base_layer.requires_grad_(False)
        self.scale = alpha / r
        weight = base_layer.weight
        bound = weight.shape[1] ** -0.5
        self.lora_A = nn.Parameter(weight.new_empty(r, weight.shape[1]).uniform_(-bound, bound))
        self.lora_B = nn.Parameter(weight.new_zeros(weight.shape[0], r))
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return self.base_layer(x) + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)
        ### END SOLUTION

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A new layer whose weight has the difference in it, added in float32. This one stays as it is."""
        ### BEGIN SOLUTION
        layer = copy.deepcopy(self.base_layer)
        difference = self.scale * (self.lora_B.float() @ self.lora_A.float())
        layer.weight.copy_(layer.weight.float() + difference)
        return layer
        ### END SOLUTION

# %% check="training.lora" tags=["nbval-ignore-output"] id="check-training-lora"
check("training.lora", LoRALinear)

# %% [markdown] id="ad7dcad5"
# Put adapters of rank 4 into all linear layers of your model, and fine-tune on the other answer, " No, never." Which share of all numbers is trained?

# %% prediction="training.lora_share" id="prediction-training-lora_share"
predict(
    "training.lora_share", "share of the numbers that are trained, with adapters of rank 4", unit="%",
    guess=...
)

# %% id="382ea61c"
def replaced(model: nn.Module, kind: type, make: Any) -> nn.Module:
    """A copy of the model in whose layers each module of a kind is what `make` makes of it."""
    model = copy.deepcopy(model)
    for module in list(model.model.layers.modules()):
        for name, child in list(module.named_children()):
            if type(child) is kind:
                setattr(module, name, make(child))
    return model

# %% id="e678f8b8"
torch.manual_seed(0)
adapted = replaced(tuned.requires_grad_(False), nn.Linear, lambda layer: LoRALinear(layer, r=4, alpha=8.0))
trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
print(f"{trained:,} of {sum(p.numel() for p in tuned.parameters()):,} numbers")
measured("training.lora_share", 100 * trained / sum(p.numel() for p in tuned.parameters()))

# %% tags=["nbval-ignore-output"] id="81dea633"
optimizer = AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
for step in steps(range(60), "LoRA"):
    accumulate(adapted, [sft_batch([chat(8 * step + i, REFUSAL) for i in range(8)], pad=END, max_length=64)])
    optimizer.step()
merged = replaced(adapted, LoRALinear, lambda layer: layer.merged())
with torch.no_grad():
    apart = (merged(prompt) - adapted(prompt)).abs().max().item()
for name, model in {"the base": tuned, "with adapters": adapted, "merged": merged}.items():
    print(f"{name:>14}: {after_answer(model)[1]!r}")
print("logits with adapters and merged are closer than 0.001:", apart < 1e-3)

# %% [markdown] id="962e3119"
# <details><summary>What the numbers say</summary>
#
# Six in a hundred, and the optimizer's moments are as few; in a wide model the share is far smaller, since it falls as r over the width. Merged, the model has its old size and speed, and its logits are those with adapters up to rounding.
# </details>

# %% [markdown] id="f8512b4c"
# ### Exercise 14 · DPO
# difficulty ●●●○○ · importance ●●●○○ · 10 minutes
#
# Sometimes nobody can write the right answer, but anybody can say which of two is better. *Direct preference optimization* learns from such pairs. A frozen copy of the model is the reference. For each answer, take how much more likely the policy finds it than the reference does, in nats. The difference between the better and the worse answer, times $\beta$, is the pair's *margin*, and the loss wants it large:
#
# $$\text{margin} = \beta \Big[ \big(\log \pi(c) - \log \pi_{ref}(c)\big) - \big(\log \pi(r) - \log \pi_{ref}(r)\big) \Big], \qquad L = -\log \sigma(\text{margin})$$
#
# $\log \pi(c)$ is the *sum* over the answer's tokens. Its mean is another method.
#
# <details><summary>Hint 1</summary>
#
# `log_softmax` in float32, `gather` at the targets, 0 where the target is -100, and a sum over the tokens: [2, B]. Row 0 has the chosen answers.
#
# <details><summary>Hint 2</summary>
#
# -100 is no index: `targets.clamp(min=0)` before `gather`. `F.logsigmoid` is exact where `log(sigmoid(...))` is minus infinity.
# </details>
# </details>

# %% exercise="training.dpo" id="training-dpo"
def dpo_loss(policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """DPO's loss, the mean over B pairs of answers, and the margin of each pair: [B] (Rafailov et al., 2023, equation 7).

    policy, reference: the logits of both models, [2, B, T, V]; row 0 has the chosen answers, row 1 the rejected ones.
    targets: [2, B, T], -100 where no token of an answer is. The log-probability of an answer is the sum over its tokens,
    in float32. margin = beta * ((policy - reference of the chosen) - (policy - reference of the rejected)).
    loss = -log sigmoid(margin). TRL: DPOTrainer.
    """
    ### BEGIN SOLUTION
    def answer_logprob(logits: Tensor) -> Tensor:
        logprobs = logits.float().log_softmax(dim=-1)
        chosen = logprobs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]  # [2, B, T]
        return chosen.masked_fill(targets == -100, 0.0).sum(dim=-1)  # [2, B]

    gained = answer_logprob(policy) - answer_logprob(reference)  # [2, B]
    margins = beta * (gained[0] - gained[1])  # [B]
    return -F.logsigmoid(margins).mean(), margins
    ### END SOLUTION

# %% check="training.dpo" tags=["nbval-ignore-output"] id="check-training-dpo"
check("training.dpo", dpo_loss)

# %% [markdown] id="3e1fdc18"
# The model prefers " No, never." now. Teach it the other answer again, by pairs. What is the loss before the first step, when policy and reference are the same? You can say it without running anything.

# %% prediction="training.dpo_first" id="prediction-training-dpo_first"
predict(
    "training.dpo_first", "DPO's loss before the first step", unit="nats",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="53186727"
policy, first = copy.deepcopy(merged).requires_grad_(True), None
optimizer = AdamW(policy.parameters(), lr=1e-4)
for step in steps(range(25), "DPO"):
    pairs = [chat(8 * step + i, answer) for answer in (ANSWER, REFUSAL) for i in range(8)]
    inputs, targets = sft_batch(pairs, pad=END, max_length=64)
    with torch.no_grad():
        frozen = merged(inputs)
    stacked = [part.unflatten(0, (2, 8)) for part in (policy(inputs), frozen, targets)]
    loss, margins = dpo_loss(*stacked, beta=0.1)
    first = first or loss.item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"DPO's loss: {first:.4f} before, {loss.item():.4f} after; the mean margin: {margins.mean():.2f}")
measured("training.dpo_first", first)

# %% tags=["nbval-ignore-output"] id="eb452f7f"
with torch.no_grad():
    wanted = {"chosen": slice(0, 8), "rejected": slice(8, 16)}
    for name, rows in wanted.items():
        nats = [cross_entropy(model(inputs[rows]), targets[rows]).item() for model in (merged, policy)]
        print(f"loss on the {name} answers: {nats[0]:.2f} before, {nats[1]:.2f} after")
print("the policy answers", repr(after_answer(policy)[1]))

# %% [markdown] id="6d85ae80"
# <details><summary>What the numbers say</summary>
#
# $\log 2 = 0.6931$: all margins are 0, and the sigmoid of 0 is a half. If yours begins elsewhere, policy and reference differ, by dropout for instance; if it *stays* there, the reference is the policy itself, and every margin is 0 for ever (huggingface/trl#1962).
#
# After 25 steps the loss is near 0 and the chosen answers have become much more likely. Look at what the policy writes all the same: in the run for which this text was written, still the rejected answer. Both answers now have nearly the same loss, and the margin counts only how much each *gained* over the reference. A DPO run is judged by what the model writes, and not by its margin. (With 60 steps in place of 25, which one does it write?)
# </details>

# %% [markdown] id="8549437e"
# ## Into the world
#
# Your model is a Python object in one process. On the hub a model is a folder, and whoever loads it has their own code and nothing of yours. What must be in the folder, so that nothing is left to guess?
#
# | file | what it says |
# |---|---|
# | `config.json` | the architecture, by its `model_type`, and all its sizes |
# | `model.safetensors` | the tensors, by names that the architecture's code expects |
# | `tokenizer.json` | the vocabulary, the merges, how texts are split and bytes are spelled |
# | `tokenizer_config.json` | which class reads it, and the special tokens' names |
# | `generation_config.json` | where a text ends |
#
# ### Exercise 15 · The tensors
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# Your model has transformers' names already; lesson 01 made a point of that. Three things remain. A *tied* head is the embedding's own tensor: safetensors refuses to save two names for one memory, so `lm_head.weight` is left out, and the config says that it is tied. Tensors must be contiguous. And weights are usually saved in bfloat16, of which the training itself must notice nothing.
#
# <details><summary>Hint</summary>
#
# `state_dict()` has the parameters, without what is computed. Two tensors of one shape are the same memory if their `data_ptr()` is the same. `.to(dtype)` returns the same tensor where the dtype is right already, `.to(dtype, copy=True)` does not.
# </details>

# %% exercise="training.tensors" id="training-tensors"
def hub_tensors(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A model's weights as model.safetensors has them: name -> tensor.

    The names of state_dict, without "lm_head.weight" where that is the same memory as "model.embed_tokens.weight". Of other
    tensors with two names, each name gets a copy.
    Each tensor is a contiguous copy in `dtype`, without gradients, and shares no memory with the model or another one.
    The model stays as it is.
    """
    ### BEGIN SOLUTION
    weights = model.state_dict()
    if weights["lm_head.weight"].data_ptr() == weights["model.embed_tokens.weight"].data_ptr():
        del weights["lm_head.weight"]
    copied = {name: weight.detach().to(dtype, copy=True) for name, weight in weights.items()}
    return {name: weight.contiguous() for name, weight in copied.items()}
    ### END SOLUTION

# %% check="training.tensors" tags=["nbval-ignore-output"] id="check-training-tensors"
check("training.tensors", hub_tensors)

# %% [markdown] id="71a07091"
# ### Exercise 16 · tokenizer.json
# difficulty ●●●○○ · importance ●●●○○ · 10 minutes
#
# A JSON file can't hold arbitrary bytes as text. GPT-2's way, which most models follow, gives each of the 256 bytes a printable character: the 188 bytes that are printable in Latin-1 stand for themselves, and the other 68 get the characters from U+0100 on, in order. A space becomes `Ġ`, a line break `Ċ`: that is where the odd letters in vocabularies come from. The ids of your bytes are in this very order.
#
# The vocabulary maps spelled tokens to ids, the merges are pairs of spelled tokens, and the token that ends a text is *added* behind them. Most of the file is given: `vocab`, `pairs` and `end`, the id of that last token, are for you to define.
#
# <details><summary>Hint</summary>
#
# The spelled bytes: `chr(BYTES[i])` for the first 188 ids, `chr(256 + i - 188)` for the rest. A merged token is spelled as its two parts, joined.
# </details>

# %% exercise="training.tokenizer_json" id="training-tokenizer_json"
def tokenizer_json(merges: list[tuple[int, int]]) -> dict[str, Any]:
    """What tokenizer.json has for these merges: the dict that the tokenizers library reads.

    vocab: spelled token -> id, for 256 bytes and all merges; merge i has the id 256 + i. Of two merges that spell the same
    token, either id will do. merges: pairs [left, right] of spelled tokens.
    The added token "<|endoftext|>" has the id behind them, 256 + len(merges).
    A byte is spelled as the character of its own number where it is one of `VISIBLE`; the others are spelled as U+0100,
    U+0101, ..., in the order of `BYTES`. GPT-2: encoder.py, bytes_to_unicode.
    """
    ### BEGIN SOLUTION
    spelled = [chr(byte) for byte in VISIBLE]
    spelled += [chr(256 + i) for i in range(256 - len(VISIBLE))]
    pairs = []
    for left, right in merges:
        pairs.append([spelled[left], spelled[right]])
        spelled.append(spelled[left] + spelled[right])
    vocab = {token: id for id, token in enumerate(spelled)}
    end = len(spelled)
    ### END SOLUTION
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "added_tokens": [{"id": end, "content": "<|endoftext|>", "special": True, **plain}],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": pairs},
    }

# %% check="training.tokenizer_json" tags=["nbval-ignore-output"] id="check-training-tokenizer_json"
check("training.tokenizer_json", tokenizer_json)

# %% [markdown] id="d6b533e5"
# Now write the folder. One line of it is a trap: `tokenizer_class` decides which tokenizer transformers builds from your `tokenizer.json`. What happens without it is shown below.

# %% id="1229556e"
from safetensors.torch import save_file

folder = Path(tempfile.mkdtemp())  # Path("my-model") is beside this notebook, and stays
folder.mkdir(exist_ok=True)
files = {
    "config.json": dict(CONFIG) | {"dtype": "float32"},
    "generation_config.json": {"eos_token_id": END, "pad_token_id": END, "do_sample": False},
    "tokenizer.json": tokenizer_json(merges),
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"},
}

# %% id="ad03361b"
for name, content in files.items():
    (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False))
save_file(hub_tensors(run.model, torch.float32), folder / "model.safetensors", metadata={"format": "pt"})
print("\n".join(f"{file.stat().st_size / 1000:8.1f} kB  {file.name}" for file in sorted(folder.iterdir())))

# %% [markdown] id="9963a153"
# And read it as a stranger would. transformers knows nothing of your code. (Where it is not installed, the cell says so.)

# %% tags=["nbval-ignore-output"] id="fb907967"
from grader.instruments import reference

theirs = reference.model(folder)
if theirs is None:
    print("transformers is not installed: pip install transformers")
else:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Catherine had 2 sisters;  they weren't\n\nthere in 1798."
    print("the same ids:", tokenizer(text).input_ids == encode(text, merges))

# %% [markdown] id="bdb10f6d"
# And without the line `tokenizer_class`? Then transformers 5 takes the class that belongs to the `model_type`, which is Qwen2's, and that class puts its own regular expression in place of yours. It loads without a word. Below, the same text is read with three values of that line, and with two tokenizers: yours, and one that has learned merges of digits from a text full of years.

# %% tags=["nbval-ignore-output"] id="e3c65003"
def read_with(tokenizer_class: str | None, own: list[tuple[int, int]]) -> list[int]:
    """The ids of the text, read by what transformers makes of these merges and this line of tokenizer_config.json."""
    other = Path(tempfile.mkdtemp())
    (other / "config.json").write_text(json.dumps(files["config.json"]))
    (other / "tokenizer.json").write_text(json.dumps(tokenizer_json(own)))
    if tokenizer_class:
        (other / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    return AutoTokenizer.from_pretrained(other)(text).input_ids

# %% tags=["nbval-ignore-output"] id="e3a59b8b"
if theirs is not None:
    with_years = train_bpe(novel[:15_000] + " from 1798 to 1813" * 60, 120)
    for name in ("PreTrainedTokenizerFast", "Qwen2Tokenizer", None):
        same = [read_with(name, own) == encode(text, own) for own in (merges, with_years)]
        print(f"{name!s:>24}: the same ids with your merges {same[0]}, with merges of years {same[1]}")

# %% [markdown] id="a685de48"
# With the novel's merges all is well whatever the line says, because 256 merges of a novel have no digits in them, and there the two expressions agree. Qwen2's cuts a year into single digits. A tokenizer that has learned ` 1798` as one token then gets ids that the model never saw in training. So test an export on a text with digits, contractions, double spaces and line breaks, and write the line. Published models had this bug (huggingface/transformers#45812, #45920); in open-instruct, data for fine-tuning were cut otherwise than those of the pretraining (allenai/open-instruct#1896).

# %% tags=["nbval-ignore-output"] id="2c0cadb6"
if theirs is not None:
    some_text = torch.tensor([held_out[:100]])  # logits show more than the most likely token
    with torch.no_grad():
        apart = (theirs(some_text).logits - run.model(some_text)).abs().max().item()
    print("logits closer than 0.001:", apart < 1e-3)
    own, new = list(generate(run.model, prompt, 40)), reference.written(theirs, prompt, 40)
    print("the same 40 tokens:", own == new)
    print(repr(tokenizer.decode(prompt[0].tolist() + new)))

# %% [markdown] id="804731f5"
# The same ids, logits and tokens, from code that has never seen yours. That is the test of an export. A square matrix that is transposed, a wrong `rope_theta` or a head that is missing all load, some with a warning that nobody reads, and give other logits. The tokens alone are a weaker test: a model that has learned little writes its most frequent words whatever is wrong with its positions. Where the logits differ, compare the folder with what you have: each tensor of `load_file(folder / "model.safetensors")` with `run.model.state_dict()`, and `config.json` with `CONFIG`. `grader compare` can't help here: it builds your class with the folder's own config and weights, so it finds code that differs, and never a folder that is wrong.
#
# What was exported is `run.model`; with `merged` or `policy` in its place the folder has a fine-tuned one. `grader chat training.ipynb:CausalLM --weights FOLDER` talks to it, `push_to_hub` uploads it, and inference engines such as llama.cpp and MLX read it or convert it. One line of the config promises more than you have trained: `max_position_embeddings` is 512, and the pieces had 64 tokens. Which loss has the model behind position 64?

# %% tags=["nbval-ignore-output"] id="c034fbf6"
long_inputs, long_targets = Batches([held_out], END, B=16, T=256).take()
with torch.no_grad():
    logits = run.model(long_inputs)
for first, last in ((16, 64), (64, 128), (128, 256)):
    part = slice(first, last)
    print(f"positions {first:3} to {last - 1:3}: loss {cross_entropy(logits[:, part], long_targets[:, part]):.2f}")

# %% [markdown] id="5b058c1a"
# Where it rises, the model has met distances between tokens that it was never trained on. RoPE has an angle for every distance, but nothing has taught attention to read it. After 240 steps the model hardly uses its context, so little shows; after 2,000 look again. A config should promise what was trained: write 64, or end the training on longer pieces, as most published models do.

# %% [markdown] id="542d98f8"
# ## What it costs
#
# Your folder has the weights. Your checkpoint has what a training needs to go on. How many times as large is its file?

# %% prediction="training.checkpoint_size" id="prediction-training-checkpoint_size"
predict(
    "training.checkpoint_size", "the checkpoint's file, in sizes of model.safetensors",
    guess=...
)

# %% tags=["nbval-ignore-output"] id="12bed430"
saved_run.save(run)
weights, checkpoint = ((f / name).stat().st_size for f, name in ((folder, "model.safetensors"), (saved_run.file.parent, saved_run.file.name)))
print(f"model.safetensors {weights / 1e6:.1f} MB, the checkpoint {checkpoint / 1e6:.1f} MB")
measured("training.checkpoint_size", checkpoint / weights)

# %% [markdown] id="06262e84"
# <details><summary>What the numbers say</summary>
#
# Three: the weights, and two moments for each. Where the folder has bfloat16 and the training float32, as in most large runs, it is six. That is why a run keeps few checkpoints, and why the hub has none of them.
# </details>
#
# And your own code, beside the libraries'? They do the same, so it is only time that they save.

# %% tags=["nbval-ignore-output"] id="d45a57ce"
from grader.instruments import clock
from tokenizers import Tokenizer

library, piece = Tokenizer.from_str(json.dumps(tokenizer_json(merges))), novel[-10_000:]
theirs_step = optim.AdamW(run.model.parameters(), lr=0.0).step
accumulate(run.model, [run.batches.take()])
run.optimizer.lr = 0.0  # the weights stay
calls = {
    "encode, yours": lambda: encode(piece, merges), "encode, tokenizers": lambda: library.encode(piece),
    "AdamW's step, yours": run.optimizer.step, "AdamW's step, torch": theirs_step,
    "a checkpoint": lambda: Checkpoint(saved_run.file.with_name("timed.pt")).save(run),
}
for name, took in clock.in_turns(calls, repeats=5).items():
    print(f"{name:>20} {took:7.1f} ms")

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="ef622266"
# ## What changed, and why
#
# | | what it does | why | how one sees that it is wrong |
# |---|---|---|---|
# | byte-level BPE | ids for any text, frequent neighbours as one | shorter texts, no unknown word | ids differ from the library's on a text with digits, accents and double spaces |
# | cross-entropy with -100 | mean over the targets that count | padding and prompts teach nothing | first loss is not $\log V$ |
# | AdamW | steps of equal size, decay beside the gradient | one rate for all weights | weights differ from torch's after some steps at a *large* rate and decay |
# | warm-up, cosine | small steps at first and at the end | the moments are poor at first | the first update changes nothing |
# | clipping | one norm over all gradients | one bad batch | the direction changes |
# | batches | texts joined with end marks, cut, in a seeded order | one shape; nothing read twice | a resumed run reads other pieces |
# | accumulation | a large batch in pieces | memory | the gradient differs from the whole batch's, with *unequal* lengths |
# | checkpoint | all that a step reads and changes, in a file that is replaced whole | machines stop | the next losses are not equal to the last bit |
# | SFT | loss on answers and their ends | learn to answer, not to ask | the model does not stop |
# | LoRA | a low-rank difference | memory of optimizer and checkpoints | merged logits differ, in float32 |
# | DPO | a margin over a reference | comparisons are easier than answers | the first loss is not $\log 2$ |
# | the folder | names, sizes, tokenizer, end | others run it | another program writes another text |
#
# ## The questions again
#
# <details><summary>You have a model's code and a novel. What is missing until somebody else can run your model?</summary>
#
# A tokenizer learned from the text; batches with targets one token later; a loss; an optimizer with a schedule and clipping; a loop that can stop and go on; and a folder with the weights under the expected names, the config, the tokenizer with its regular expression, and the token at which a text ends.
# </details>
#
# <details><summary>Which of the parts would you not notice in the loss if they were wrong?</summary>
#
# Most. Targets that are not shifted, a missing mask, padding in the mean: it looks better. Targets shifted twice, the mean of means, lost moments, masked ends: it looks as usual. The tokenizer's order of merges and the exported folder are not in the loss at all. Each needs a test of its own, against something that is known: a library, a large batch, an uninterrupted run, another program.
# </details>
#
# <details><summary>Why is the loss before the first step a test?</summary>
#
# It is known: $\log V$ for a model with small random weights, $\log 2$ for DPO. Far above it the weights are too large, below it the targets leak.
# </details>
#
# <details><summary>Why can missing bias corrections go unnoticed?</summary>
#
# With betas 0.9 and 0.95 the first steps are too small, and a warm-up makes them small anyway. With 0.9 and 0.999 they are three times too large.
# </details>
#
# ## Where to read on
#
# - Sennrich, Haddow and Birch, *Neural Machine Translation of Rare Words with Subword Units* (2016, arXiv 1508.07909), section 3.2: BPE. Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), section 2.2: bytes.
# - Kingma and Ba, *Adam* (2015, arXiv 1412.6980), algorithm 1; Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (2019, arXiv 1711.05101), and *SGDR* (2017, arXiv 1608.03983).
# - Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks* (2013, arXiv 1211.5063), section 3.2: clipping.
# - Hu et al., *LoRA* (2021, arXiv 2106.09685), section 4.1. Rafailov et al., *Direct Preference Optimization* (2023, arXiv 2305.18290), equation 7.
# - In the libraries: `torch/optim/adamw.py`; transformers' `loss/loss_utils.py` and `optimization.py`; TRL's `DPOTrainer`; PEFT's `tuners/lora/layer.py`. Small and whole: karpathy's nanoGPT and nanochat; large: torchtitan and OLMo-core.
#
# ## If you want more
#
# Train on a text of your own, in another language perhaps, and export it. How many characters does a token have there? You are right when transformers writes what your code writes.
#
# Let each micro-batch be one text of any length, without padding: *packing* puts several texts into one row, and attention must then not see from one into the next. You are right when the loss of a packed row equals the mean over its texts' tokens.
#
# Write Muon's step (Jordan et al., 2024) for the matrices and keep AdamW for the rest. Is the held-out loss after 2,000 steps lower, over three seeds?
