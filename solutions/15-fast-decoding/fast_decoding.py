# %% [markdown] id="95ccb8dc"
# # 15 · Fast decoding: one user, near the memory's limit
#
# **SmolLM2 has 135 million parameters. How many tokens a second are possible here, and who takes the rest?**
#
# You have built a cache (lesson 02), and every new token is one row of work. It still takes tens of milliseconds for a small model on a laptop. Is that the processor's speed, PyTorch's, or your program's? Most people who ask this begin to change lines. This lesson begins with a number that no program can pass, and then looks for what lies between that number and yours.
#
# At the end there is a surprise: the limit holds for programs that write one token after the other, and there is a way around it that does not change a single token, or, when tokens are drawn at random, not a single probability.
#
# After this lesson you can
#
# - say from a `config.json` and one measured number how many tokens a second are possible for one user;
# - find out what takes the rest: copies, calls or the way in which the products read, and change one after the other;
# - store weights in int8, say how wrong a result can get, and say why it helps one processor and hurts another;
# - write speculative decoding and prompt lookup that are exact, rewind their caches, and say when a draft loses.
#
# 170 to 260 minutes · difficulty ●●●●○ · you know a KV cache (lesson 02) and Qwen3 (lesson 03); their code is given
#
# Before an experiment decides something, a cell asks for your guess: write it in place of the three dots. What was measured then stands beside it, and what the numbers say is folded below. Nobody grades guesses; other questions in the text are for your head.
#
# ![SmolLM2 135M from the bottom up: token ids, the embedding, 30 layers with a norm before attention and a norm before the MLP, a last norm, and the head, whose weight is the embedding's.](figures/smollm2-135m-model.svg)

# %% tags=["setup"] id="setup"
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Config, check, check_generation, load_checkpoint

# %% id="05d53d1c"
from grader import measured, predict, predictions

# %% [markdown] id="40f39e4f"
# What you start from is folded: lesson 03's model, and a version of it that reads with a cache which grows by `cat`. This is an ordinary program, as many are, and it is right.


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


# %% tags=["setup"] jupyter={"source_hidden": true} long="one class, with its shapes" id="setup-3"
class CachedAttention(Attention):
    """Lesson 03's attention for T new tokens that follow those in a cache. Parts and names are the same.

    cache: append(k, v) -> all keys, all values, both [B, KV, T_k, head_dim], the new ones last; or None.
    x: [B, T, D], the new tokens alone; table: [2, T, head_dim], their rotations -> [B, T, D].
    """

    def forward(self, x: Tensor, table: Tensor, cache=None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, H, T, head_dim]
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_dim)).transpose(1, 2)  # [B, KV, T, head_dim]
        v = self.v_proj(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, KV, T, head_dim]
        q, k = apply_rope(q, table), apply_rope(k, table)
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        k, v = (t.repeat_interleave(self.group, dim=1) for t in (k, v))  # 2 x [B, H, T_k, head_dim]
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(diagonal=k.shape[2] - T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)  # [B, H, T, head_dim]
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))


class CachedLayer(DecoderLayer):
    """Lesson 03's layer; attention gets the cache of its layer."""

    attention = CachedAttention

    def __init__(self, config: Config):
        super().__init__(config)
        self.self_attn = self.attention(config)

    def forward(self, x: Tensor, table: Tensor, cache=None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-4"
class GrowingCache:
    """All keys and values of one layer; each append makes new, larger tensors."""

    def __init__(self, batch: int = 1, capacity: int = 0):
        self.keys = self.values = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """2 x [B, KV, T, head_dim] -> 2 x [B, KV, length, head_dim], where length has grown by T."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        self.length = self.keys.shape[2]
        return self.keys, self.values


# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-5"
class CachedLM(CausalLM):
    """Lesson 03's model, which reads with a cache."""

    layer = CachedLayer

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.layers = nn.ModuleList(self.layer(config) for _ in range(config.num_hidden_layers))

    def prepare(self) -> "CachedLM":
        """What is to be done once the weights have come: here nothing."""
        return self

    def new_cache(self, batch: int, capacity: int) -> list:
        return [GrowingCache(batch, capacity) for _ in self.model.layers]

    def table_of(self, start: int, T: int, device: torch.device) -> Tensor:
        """The rotations of T tokens from position `start` on: [2, T, head_dim]."""
        positions = torch.arange(start, start + T, device=device)
        return rope_table(positions, head_dim(self.config), rope_theta(self.config))

    def forward(self, ids: Tensor, cache: list | None = None) -> Tensor:
        """ids: [B, T], the new tokens; cache: one for each layer -> [B, T, vocab_size]."""
        table = self.table_of(cache[0].length if cache else 0, ids.shape[1], ids.device)
        x = self.model.embed_tokens(ids)  # [B, T, D]
        for i, layer in enumerate(self.model.layers):
            x = layer(x, table, cache[i] if cache else None)
        return self.lm_head(self.model.norm(x))


# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-6"
@torch.no_grad()
def generate(model: nn.Module, ids: Tensor, max_new_tokens: int, end_tokens: Collection[int] = ()) -> Iterator[int]:
    """Yield the most likely next token, then the one after it, and so on: each token is read once.

    ids: [1, T] int64, the prompt. Ends after max_new_tokens, or once one of end_tokens has been yielded.
    """
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens)
    for _ in range(max_new_tokens):
        ids = model(ids, cache)[:, -1:].argmax(dim=-1)  # [1, 1], the next to read
        yield ids.item()
        if ids.item() in end_tokens:
            return


# %% [markdown] id="655a19d8"
# With SmolLM2's weights on this machine (`grader weights get smollm2-135m-instruct`, 98 MB) the model is SmolLM2. Without them it is `austen-qwen3`, whose 8 MB fit into a processor's own caches: its times then say little about memory, and the texts below, which are about SmolLM2, do not fit them. The exercises are the same.
#
# All times are of one thread. With more of them the numbers grow, the limit's too, and on a busy machine two threads that wait for each other measure the other programs.

# %% tags=["nbval-ignore-output"] id="c973dfcc"
torch.set_num_threads(1)
checkpoint = load_checkpoint("smollm2-135m-instruct", optional=True) or load_checkpoint("austen-qwen3")
config = checkpoint.config
first = checkpoint.build(CachedLM)
prompt = "The sea was calm, and the ship lay at anchor. The captain"
ids = torch.tensor([checkpoint.tokenizer.encode(prompt).ids])
print(
    f"{checkpoint.name}: {sum(p.numel() for p in first.parameters()):,} parameters, a prompt of {ids.shape[1]} tokens"
)

# %% tags=["nbval-ignore-output"] id="204ffa54"
from grader.instruments import writing

plain = writing.write(generate(first, ids, 40), checkpoint.tokenizer, prompt)

# %% [markdown] id="d571bdec"
# ## The limit first
#
# A processor multiplies much faster than memory delivers numbers. In training, and when a prompt is read, a weight that was fetched is used for hundreds of tokens, so fetching hardly counts. A single user who waits for the next token is the other extreme: the weight is fetched, multiplied with one number, and is not needed again until the next token. Nothing is left to reuse. So the time of a token cannot be less than the time it takes to read every weight once, and with them the keys and values of all tokens so far.
#
# $$\text{tokens a second} \;\le\; \frac{\text{bytes a second that memory delivers}}{\text{bytes read for a token}}$$
#
# The lower number follows from the config. The upper one has to be measured, on the machine that is going to run the model.
#
# ### Exercise 1 · Bytes for a token
# difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Which parameters does one token read? All matrices and norms of all layers, the last norm, and the head: each of its rows gives one logit, so all rows are needed. The embedding is different. A token needs one row of it, and the other 49,151 stay where they are. In SmolLM2 the head and the embedding are the same matrix (*tied*): it is then read once, by the head, and the row comes with it.
#
# Then the cache: for each token before the new one, a key and a value in each layer and KV head. Their numbers can have another size than the weights'.
#
# <details><summary>Hint 1</summary>
#
# One layer has q, k, v and o, the three matrices of the MLP, and two norms of `hidden_size`. Qwen3 has two more norms, over `head_dim`. Which of these have H heads, and which KV heads?
#
# <details><summary>Hint 2</summary>
#
# `tie_word_embeddings` decides only about one row of `hidden_size` numbers: that of the embedding. With a head of its own the row is read besides; tied, it is part of what the head reads.
# </details>
# </details>


# %% exercise="fast_decoding.limit" id="fast_decoding-limit"
def bytes_for_a_token(config: Config, context: int, weight_bytes: int = 4, cache_bytes: int = 4) -> int:
    """How many bytes are read to decode one token of one text, with `context` tokens in the cache before it.

    Each weight that is used counts once, in numbers of weight_bytes: of every layer, the last norm, the head, and one
    row of the embedding, which does not count again where the head is the embedding (config.tie_word_embeddings; a config
    without that field has a head of its own). The keys and values of `context` tokens count in numbers of cache_bytes.
    config: of a Llama or a Qwen3 (model_type "qwen3", which has a q_norm and a k_norm of head_dim in each layer); no
    biases. An attention head's width is `head_dim(config)`.
    """
    ### BEGIN SOLUTION
    D, width = config.hidden_size, head_dim(config)
    H, KV = config.num_attention_heads, config.num_key_value_heads
    attention = 2 * D * H * width + 2 * D * KV * width  # q and o, k and v
    norms = 2 * D + (2 * width if config.model_type == "qwen3" else 0)
    layer = attention + 3 * D * config.intermediate_size + norms
    row = 0 if config.get("tie_word_embeddings") else D
    weights = config.num_hidden_layers * layer + D + config.vocab_size * D + row
    cache = 2 * config.num_hidden_layers * KV * width * context
    return weights * weight_bytes + cache * cache_bytes
    ### END SOLUTION


# %% check="fast_decoding.limit" tags=["nbval-ignore-output"] id="check-fast_decoding-limit"
check("fast_decoding.limit", bytes_for_a_token)

# %% [markdown] id="2bc48bf9"
# Two guesses. SmolLM2's vocabulary is large for so small a model: what share of the bytes is the head's, after 0 tokens in float32? And after how many tokens would the cache have as many bytes as the weights, both in float32?

# %% prediction="fast_decoding.head" id="prediction-fast_decoding-head"
predict("fast_decoding.head", "share of the head in what a token of SmolLM2 reads", unit="%", guess=...)

# %% prediction="fast_decoding.even" id="prediction-fast_decoding-even"
predict("fast_decoding.even", "tokens after which SmolLM2's cache is as large as its weights", guess=...)

# %% id="ff9ec0b1"
smol = Config.read("configs/smollm2-135m.json")
for context in (0, 64, 256, 1000, 8192):
    total = bytes_for_a_token(smol, context)
    print(
        f"{context:5,} tokens before: {total / 1e6:6.1f} MB for a token, {(total - bytes_for_a_token(smol, 0)) / total:5.1%} of it cache"
    )
a_token = bytes_for_a_token(smol, 1) - bytes_for_a_token(smol, 0)
head = 4 * smol.vocab_size * smol.hidden_size
print(f"head {head / 1e6:.0f} MB; {a_token:,} bytes of cache for each token")
measured("fast_decoding.head", 100 * head / bytes_for_a_token(smol, 0))
measured("fast_decoding.even", math.ceil(bytes_for_a_token(smol, 0) / a_token))

# %% [markdown] id="74bd7998"
# <details><summary>What the numbers say</summary>
#
# A fifth is the head, and the cache catches up after 11,677 tokens, more than the 8,192 that the model can read. So for a chat of ordinary length with one user, decoding is reading *weights*. For long texts, and on a server with many users, who share each fetched weight and have a cache each, it is the other way round.
# </details>

# %% [markdown] id="3d70bb22"
# ### How fast is this memory?
#
# The classic measurement is the *triad* of the STREAM benchmark, `c = a + 2 b` on arrays that fit into no cache: two are read and one is written. A decoding model only reads, so we also time a product of a large matrix with one vector, and take the best of what we see: a limit should err on the high side. Each runs once before it is measured, because memory that has not been touched for some seconds was seen to be slower the first time.

# %% id="e0d0a87a"
from grader.instruments import clock


def gigabytes_a_second(numbers: int = 32_000_000, repeats: int = 5) -> dict[str, float]:
    """What memory delivers to one thread: for STREAM's triad, and for a product with one vector."""
    a, b, c = (torch.ones(numbers) for _ in range(3))
    matrix, vector = a.view(-1, 1000), torch.ones(1000)
    runs = {"triad": (3, lambda: torch.add(a, b, alpha=2, out=c)), "product": (1, lambda: torch.mv(matrix, vector))}
    return {name: arrays * a.nbytes / 1e6 / clock.milliseconds(run, repeats) for name, (arrays, run) in runs.items()}


# %% tags=["nbval-ignore-output"] id="c278b44a"
speeds = gigabytes_a_second()
limit = 1e9 * max(speeds.values()) / bytes_for_a_token(config, ids.shape[1])
print({name: round(speed, 1) for name, speed in speeds.items()}, "GB/s")
print(f"{checkpoint.name}, float32: at most {limit:.1f} tokens a second")

# %% [markdown] id="d4747d1c"
# And the program from above? It wrote 40 tokens. What share of the limit does it reach?
#
# Other programs use the memory too, and then the limit is lower for a while. So a *race* measures both in turns: one token of the program, then one product with a single matrix of as many bytes as a token reads, and so on. The share of both is worth more than either number.

# %% prediction="fast_decoding.share" id="prediction-fast_decoding-share"
predict("fast_decoding.share", "share of the limit that an ordinary cached program reaches", unit="%", guess=...)


# %% id="590ba46e"
@torch.no_grad()
def race(models: dict[str, nn.Module], repeats: int = 7) -> dict[str, float]:
    """Tokens a second of each model after the prompt, and of "the limit": one matrix of as many bytes, in turns."""
    matrix = torch.ones(bytes_for_a_token(config, ids.shape[1]) // 16_384, 4096)
    runs = {"the limit": partial(torch.mv, matrix, torch.ones(4096))}
    for name, model in models.items():
        cache = model.new_cache(1, ids.shape[1] + repeats + 1)
        model(ids, cache)  # reading the prompt does not count
        runs[name] = partial(model, ids[:, :1], cache)
    return {name: 1000 / time for name, time in clock.in_turns(runs, repeats).items()}

# %% tags=["nbval-ignore-output"] id="df688653"
rates = race({"as it was": first})
print({name: round(rate, 1) for name, rate in rates.items()}, "tokens a second")
measured("fast_decoding.share", 100 * rates["as it was"] / rates["the limit"])

# %% [markdown] id="43c4f549"
# <details><summary>What the numbers say</summary>
#
# On the machine where this notebook was stored, about four tenths. It is another number on every machine, and a little different each time.
# </details>

# %% [markdown] id="272565f7"
# ## Who takes the rest?
#
# Three suspects. *Copies*: bytes that are read and written without being a weight. *Calls*: every operator that Python asks for costs some microseconds, whatever it does. And *the products themselves*, which may not reach the memory's speed: a fast kernel for one matrix can be slow for another. Copies and calls can be counted, and a count is the same on every machine.

# %% prediction="fast_decoding.operators" id="prediction-fast_decoding-operators"
predict(
    "fast_decoding.operators",
    "operators that PyTorch runs for one token of the ordinary program, in one layer",
    guess=...,
)

# %% id="804b68cf"
from grader.instruments import work

tiny = smol.replace(num_hidden_layers=2, vocab_size=100, max_position_embeddings=512)


@torch.no_grad()
def counted(model: nn.Module, context: int = 256) -> tuple[int, int, int]:
    """For one token after `context`: operators that Python calls, bytes copied, the largest tensor made."""
    cache = model.new_cache(1, context + 4)
    model(torch.zeros(1, context, dtype=torch.int64), cache)
    run = partial(model, torch.zeros(1, 1, dtype=torch.int64), cache)
    return len(work.operators(run, depth=1).splitlines()), work.bytes_copied(run), work.largest_tensor(run)


# %% id="25f613ea"
one_layer = tiny.replace(num_hidden_layers=1)
calls, copied, largest = counted(CachedLM(tiny).eval())
per_layer = calls - counted(CachedLM(one_layer).eval())[0]
print(f"SmolLM2's sizes, 2 layers: {calls} operators for a token, {per_layer} of them for each layer")
print(f"after 256 tokens: {copied:,} bytes copied, {2 * 2 * 256 * 3 * 64 * 4:,} are in the cache")
measured("fast_decoding.operators", per_layer)

# %% [markdown] id="580df68e"
# <details><summary>What the numbers say</summary>
#
# More than fifty for a layer, of which seven are products with weights. SmolLM2 has 30 layers, and at two or three microseconds for a call, which is a usual number, they take several milliseconds of every token. And the cache is copied for every token, as in lesson 02, and then copied again, three times over, for the query heads that share it.
# </details>

# %% [markdown] id="1f15a0a1"
# Which operators are they? Here is the list for a layer, with the most frequent first.

# %% id="ac8e918a"
from collections import Counter


@torch.no_grad()
def operators_of(model: nn.Module) -> Counter:
    """How often each operator is called for one token after 16."""
    cache = model.new_cache(1, 20)
    model(torch.zeros(1, 16, dtype=torch.int64), cache)
    return Counter(work.operators(partial(model, ids[:, :1] * 0, cache), depth=1).splitlines())


# %% tags=["nbval-ignore-output"] id="2c8f8132"
in_a_layer = operators_of(CachedLM(tiny).eval()) - operators_of(CachedLM(one_layer).eval())
print(", ".join(f"{name.removeprefix('aten::')} {count}" for name, count in in_a_layer.most_common()))

# %% [markdown] id="a3adb99b"
# Other programs have other lists. Counted in the same way, with 256 tokens in the cache, lesson 02's GPT-2 124M runs 522 operators for a token, 44 for each of its 12 layers; lesson 06's Gemma 3 270M runs 2,270, and that is 126 a layer: each has six norms, of several operators each. This lesson's `benchmark.py` also says for all three what share of the time products, attention and the rest take.
#
# And the products? Take all matrices of the model, multiply each with one vector, and do nothing else. This is what is left when every copy and every other call is gone.


# %% tags=["nbval-ignore-output"] id="f493f23e"
class Products(nn.Module):
    """All matrices of a model, each multiplied with one vector, one after the other; nothing else."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
        self.vectors = {width: torch.ones(1, 1, width) for width in {matrix.shape[1] for matrix in self.matrices}}
        self.new_cache = lambda *_: None

    def forward(self, ids: Tensor, cache=None) -> None:
        for matrix in self.matrices:
            F.linear(self.vectors[matrix.shape[1]], matrix)

# %% tags=["nbval-ignore-output"] id="8b707178"
for name, rate in race({"as it was": first, "its products alone": Products(first)}).items():
    print(f"{name:>20}: {rate:5.1f} tokens a second")

# %% [markdown] id="619ed783"
# So there are two gaps: from the limit to the products alone, and from these to the program. The next exercises close the second.
#
# ## A cache without copies
#
# ### Exercise 2 · Room, and a way back
# difficulty ●●○○○ · importance ●●●●● · 5 minutes
#
# You wrote a preallocated cache in lesson 02. This one has the same `append`, which returns views of the cache's own memory, and one method more: `crop(length)` forgets all tokens but the first `length`. You will need it when a draft is rejected. How much work is that, for a cache of a hundred thousand tokens?
#
# <details><summary>Hint 1</summary>
#
# `self.keys[:, :, a:b] = k` writes into a part of the memory, and `self.keys[:, :, :b]` is a view of a part. Where the tokens do not fit, raise before you write.
#
# <details><summary>Hint 2</summary>
#
# Which numbers can a later call still return, once `length` is smaller? Do they have to be overwritten with zeros? A length that the cache does not have, below 0 or beyond what is in it, is a mistake of the caller's: say so.
# </details>
# </details>


# %% exercise="fast_decoding.cache" id="fast_decoding-cache"
class Cache:
    """The keys and values of one layer, in memory that is allocated once; it can be cut back.

    keys, values: [batch, heads, capacity, head_dim]; of these the first `length` tokens are filled.
    """

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, dtype: torch.dtype = torch.float32):
        self.keys = torch.zeros(batch, heads, capacity, head_dim, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of T new tokens; return those of all tokens so far, in order, as views.

        k, v: [batch, heads, T, head_dim] -> 2 x [batch, heads, length, head_dim], where length has grown by T.
        Raises ValueError where they don't fit; then nothing has changed.
        """
        ### BEGIN SOLUTION
        start, end = self.length, self.length + k.shape[2]
        if end > self.keys.shape[2]:
            raise ValueError(
                f"there is room for {self.keys.shape[2]} tokens in this cache, and now there would be {end}"
            )
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]  # 2 x [batch, heads, length, head_dim]
        ### END SOLUTION

    def crop(self, length: int) -> None:
        """Forget all tokens but the first `length`. Nothing is copied, and nothing overwritten.

        Raises ValueError where length is below 0 or more than there are; then nothing has changed.
        """
        ### BEGIN SOLUTION
        if not 0 <= length <= self.length:
            raise ValueError(f"{length} tokens are to stay, and there are {self.length}")
        self.length = length
        ### END SOLUTION


# %% check="fast_decoding.cache" tags=["nbval-ignore-output"] id="check-fast_decoding-cache"
check("fast_decoding.cache", Cache)

# %% [markdown] id="e0a192d1"
# ## Fewer, larger products
#
# q, k and v are three products with the same x. Put their matrices on top of each other and it is one product: the same weights, the same work, and one call in place of three that is long enough to reach the memory's speed. The MLP's gate and up are another pair. vLLM does it too. The difficulty is always the same: the checkpoint has three names, and the program one matrix.
#
# ### Exercise 3 · One matrix, three names
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# Keep both. The layers stay, with their names, so a checkpoint is loaded as before. Their weights become *views*: rows of the large matrix, in the same memory. What is loaded into `q_proj.weight` is then in the large matrix too, and no weight is in memory twice.
#
# <details><summary>Hint 1</summary>
#
# `torch.cat` makes the large matrix, once. Detach what goes into it: autograd would remember it, and the old weights would stay in memory. `split` gives views of its rows. `nn.Parameter(view)` is a parameter in the view's memory. Which layer gets which rows?
#
# <details><summary>Hint 2</summary>
#
# `partial(F.linear, weight=rows)` is a function of x. Why not a new `nn.Linear`? As an attribute of a module it would be a submodule, and the state dict would have a name that no checkpoint has.
# </details>
# </details>


# %% exercise="fast_decoding.fused" id="fast_decoding-fused"
def fuse(layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """Several linear layers of the same input as one product, without a second copy of their weights.

    The weights of all layers lie in one tensor from now on, [sum of out_features, in_features], one layer's rows after
    the other's; each layer's weight is an nn.Parameter that is a view of its rows, with the values that it had, so
    what is loaded into a layer later is used by the function as well. A frozen weight stays frozen. The layers have no
    biases.
    -> a function of x [..., in_features] -> [..., sum of out_features]: what the layers give, side by side, in order.
    """
    ### BEGIN SOLUTION
    rows = torch.cat([layer.weight.detach() for layer in layers])  # [sum of out_features, in_features]
    for layer, part in zip(layers, rows.split([layer.out_features for layer in layers]), strict=True):
        layer.weight = nn.Parameter(part, requires_grad=layer.weight.requires_grad)
    return partial(F.linear, weight=rows)
    ### END SOLUTION


# %% check="fast_decoding.fused" tags=["nbval-ignore-output"] id="check-fast_decoding-fused"
check("fast_decoding.fused", fuse)

# %% [markdown] id="7777e443"
# The MLP uses it for two of its three products:


# %% tags=["setup"] id="setup-7"
class FastMLP(MLP):
    """Lesson 03's MLP with gate and up in one product, once `prepare` has been called."""

    def prepare(self) -> None:
        self.gate_up = fuse([self.gate_proj, self.up_proj])

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)  # [B, T, 2 * intermediate_size] -> 2 x [B, T, intermediate_size]
        return self.down_proj(F.silu(gate) * up)


# %% [markdown] id="7387fd40"
# ### Exercise 4 · Attention with two products
# difficulty ●●●●○ · importance ●●●●● · 20 minutes
#
# Now attention: one product for q, k and v, one for the output, and in between nothing as large as the cache may be made. The program you started from copies every key and value three times, once for each query head that shares it. How can three query heads use one KV head without a copy?
#
# Treat them as three *queries*. For the kernel, `[B, KV, group * T, head_dim]` are group · T queries of KV heads, and each head has its own keys. Heads that share keys are next to each other, so that is a `reshape`. For one new token no mask is needed. For several, every one of the group's heads needs the same mask of T rows.
#
# <details><summary>Hint 1: the split</summary>
#
# `self.qkv(x)` is [B, T, (H + 2 KV) · head_dim]. Cut it into heads first, and then into H, KV and KV of them.
#
# <details><summary>Hint 2: the norms</summary>
#
# `q_norm` and `k_norm` work on the last axis, whichever axes come before it. In a Llama they are `nn.Identity`.
#
# <details><summary>Hint 3: the mask</summary>
#
# A mask for T queries is [T, T_k]. After the reshape the rows are: head 0's T queries, head 1's T queries, and so on. So the T rows repeat, `group` times: `mask.repeat(self.group, 1)`.
# </details>
# </details>
# </details>


# %% exercise="fast_decoding.attention" id="fast_decoding-attention"
class FastAttention(Attention):
    """Lesson 03's attention for T new tokens after those in a cache, with two products with weights. Parts and names stay.

    prepare(): called once, after the weights have come; makes self.qkv, by `fuse`: [B, T, D] -> q, k and v side by side.
    cache: append(k, v) -> all keys, all values, both [B, KV, T_k, head_dim], the new ones last; or None.
    The last of the T queries is the last of the T_k keys; no query sees a later key. No keys or values are copied for
    the query heads that share them.
    x: [B, T, D], the new tokens alone; table: [2, T, head_dim], their rotations -> [B, T, D].
    """

    def prepare(self) -> None:
        ### BEGIN SOLUTION
        self.qkv = fuse([self.q_proj, self.k_proj, self.v_proj])
        ### END SOLUTION

    def forward(self, x: Tensor, table: Tensor, cache: Cache | None = None) -> Tensor:
        B, T, _ = x.shape
        ### BEGIN SOLUTION
        heads = self.qkv(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # [B, H + 2 KV, T, head_dim]
        KV = heads.shape[1] // (self.group + 2)
        q, k, v = heads.split([self.group * KV, KV, KV], dim=1)
        q, k = apply_rope(self.q_norm(q), table), apply_rope(self.k_norm(k), table)
        if cache is not None:
            k, v = cache.append(k, v)  # 2 x [B, KV, T_k, head_dim]
        q = q.reshape(B, KV, self.group * T, self.head_dim)
        seen = None
        if T > 1:
            seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(diagonal=k.shape[2] - T)
            seen = seen.repeat(self.group, 1)  # [group * T, T_k]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)  # [B, KV, group * T, head_dim]
        mixed = mixed.reshape(B, -1, T, self.head_dim).transpose(1, 2)  # [B, T, H, head_dim]
        return self.o_proj(mixed.reshape(B, T, -1))
        ### END SOLUTION


# %% check="fast_decoding.attention" tags=["nbval-ignore-output"] id="check-fast_decoding-attention"
check("fast_decoding.attention", FastAttention)

# %% [markdown] id="e08ad441"
# The model puts it together, with two changes that need no exercise: a norm is one call of PyTorch's kernel in place of eight, and the rotations of all positions are computed once, when the model is prepared.


# %% tags=["setup"] id="setup-8"
class FastNorm(RMSNorm):
    """Lesson 03's norm as one operator."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)

# %% tags=["setup"] id="setup-9"
class FastLayer(CachedLayer):
    """The layer with the parts of this lesson."""

    attention = FastAttention

    def __init__(self, config: Config):
        super().__init__(config)
        self.mlp = FastMLP(config)
        self.input_layernorm = FastNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = FastNorm(config.hidden_size, config.rms_norm_eps)


# %% tags=["setup"] long="one class, with its shapes" id="setup-10"
class FastLM(CachedLM):
    """The model of this lesson. prepare(): after its weights have come."""

    layer = FastLayer

    def __init__(self, config: Config):
        super().__init__(config)
        self.model.norm = FastNorm(config.hidden_size, config.rms_norm_eps)

    def prepare(self) -> "FastLM":
        for layer in self.model.layers:
            layer.self_attn.prepare()
            layer.mlp.prepare()
        self.table = super().table_of(0, self.config.max_position_embeddings, self.lm_head.weight.device)
        return self

    def new_cache(self, batch: int, capacity: int) -> list[Cache]:
        sizes = (batch, self.config.num_key_value_heads, capacity, head_dim(self.config), self.model.norm.weight.dtype)
        return [Cache(*sizes) for _ in self.model.layers]

    def table_of(self, start: int, T: int, device: torch.device) -> Tensor:
        return self.table[:, start : start + T]


# %% [markdown] id="edb12d4b"
# The text must be the same. And how much has gone? The ladder has one step for each change: the cache alone, then the fused projections with the new attention, then everything.

# %% tags=["nbval-ignore-output"] id="34420604"
by_rows = checkpoint.build(FastLM).prepare()
again = list(generate(by_rows, ids, 40))
print("the same 40 tokens:", again == plain)
check_generation(by_rows, checkpoint, generate=generate)


# %% id="b3317d2d"
class WithRoom(CachedLM):
    """The ordinary program with a cache that has room."""

    new_cache = FastLM.new_cache

# %% id="df0a4d3f"
class Fused(WithRoom):
    """Besides, the fused projections and the new attention; norms and rotations as they were."""

    layer = FastLayer

    def prepare(self) -> "Fused":
        for layer in self.model.layers:
            layer.self_attn.prepare()
            layer.mlp.prepare()
            for name in ("input_layernorm", "post_attention_layernorm"):
                getattr(layer, name).__class__ = RMSNorm
        return self

# %% [markdown] id="f41263d8"
# How many operators are left in a layer, when all three steps are done?

# %% prediction="fast_decoding.left" id="prediction-fast_decoding-left"
predict("fast_decoding.left", "operators that are left in a layer after all three steps", guess=...)

# %% id="ba20e34e"
ladder = {
    "as it was": CachedLM,
    "room in the cache": WithRoom,
    "fused, no repeated heads": Fused,
    "one norm, one table": FastLM,
}
for name, kind in ladder.items():
    calls, copied, largest = counted(kind(tiny).eval().prepare())
    left = calls - counted(kind(one_layer).eval().prepare())[0]
    print(f"{name:>26}: {left:3} operators a layer, {copied:9,} bytes copied, largest tensor {largest:9,} bytes")
measured("fast_decoding.left", left)

# %% [markdown] id="640312c7"
# <details><summary>What the numbers say</summary>
#
# 41 of 58. The copied bytes fall from 800,000 to 9,000: the new keys and values themselves, and the rotations' joined halves. They no longer depend on the length of the text, and nothing as large as the cache is made any more. A cache with room takes four operators *more* than `cat`, and is worth it all the same: a count of operators is not a time. Of the 41 that are left, 16 rotate q and k.
# </details>

# %% tags=["nbval-ignore-output"] id="e4bad8ac"
steps = {name: by_rows if kind is FastLM else checkpoint.build(kind).prepare() for name, kind in ladder.items()}
rates = race(steps | {"products alone": Products(by_rows)})
del steps  # three of these models are needed no more: 1.6 GB
for name, rate in rates.items():
    print(f"{name:>26}: {rate:6.1f} tokens a second, {rate / rates['the limit']:4.0%} of the limit")

# %% [markdown] id="1bec3db9"
# The text here is short, so the copies hardly count yet: they grow with it. The lines to think about are the finished program, its products alone, and the limit. What is missing from the program to the products is in the calls that are left. But the products themselves are far from the limit. They read the same bytes as the one large matrix. What is different?
#
# ### The same bytes, laid another way
#
# SmolLM2's rows are short: 576 numbers, where the large matrix has 4,096. For each row the kernel adds up products in its vector registers, then adds up what is in the registers, and starts anew. How much longer does it take to read the same bytes in rows of 576 than in rows of 4,096?

# %% prediction="fast_decoding.rows" id="prediction-fast_decoding-rows"
predict("fast_decoding.rows", "a product with rows of 576, compared with rows of 4,096", unit="times as long", guess=...)

# %% tags=["nbval-ignore-output"] id="ea3359ec"
numbers = torch.ones(32 * 2**20)
runs = {width: partial(torch.mv, numbers[: len(numbers) // width * width].view(-1, width), torch.ones(width))
        for width in (64, 192, 576, 1536, 4096)}
spent = clock.in_turns(runs, 7)
print({f"rows of {width}": f"{time:.1f} ms" for width, time in spent.items()})
measured("fast_decoding.rows", spent[576] / spent[4096])

# %% [markdown] id="6cde60b9"
# <details><summary>What the numbers say</summary>
#
# More than one and a half times as long where this was stored, though the bytes are the same.
# </details>

# %% [markdown] id="cbebb9d0"
# A product can be computed the other way round: not row by row, $y_i = \sum_j W_{ij} x_j$, but column by column, $y \leftarrow y + x_j W_{:,j}$. Then nothing is added up within a register. For this the *columns* must lie in one piece in memory: the transposed matrix is stored. A column of q, k and v together has 960 numbers, one of the head 49,152. But one of `down_proj` has 576, and its rows have 1,536. So which of the products are faster by columns?

# %% prediction="fast_decoding.columns" id="prediction-fast_decoding-columns"
predict("fast_decoding.columns", "which are faster by columns?", some_of=("q, k, v", "gate, up", "down", "head"), guess=...)

# %% tags=["nbval-ignore-output"] id="d3c5e8b1"
faster = []
for name, (wide, of) in {"q, k, v": (960, 576), "gate, up": (3072, 576), "down": (576, 1536), "head": (49152, 576)}.items():
    x, by_row = torch.ones(1, 1, of), [torch.ones(wide, of) for _ in range(max(1, 2**25 // (wide * of)))]
    by_column = [matrix.T.contiguous() for matrix in by_row]
    spent = clock.in_turns({"rows": lambda x=x, all=by_row: [F.linear(x, matrix) for matrix in all],
                            "columns": lambda x=x, all=by_column: [x @ matrix for matrix in all]}, 9)  # fmt: skip
    print(f"{name:>8}: by rows {spent['rows'] / spent['columns']:.2f} times as long as by columns")
    if spent["columns"] < spent["rows"]:
        faster.append(name)
del by_row, by_column
measured("fast_decoding.columns", faster)

# %% [markdown] id="f08d9b27"
# <details><summary>What the numbers say</summary>
#
# All but `down`: its rows are its longer side. So each matrix is stored with its longer side in one piece.
# </details>

# %% [markdown] id="a4c6d1e9"
# The names and shapes of the weights need not change for that. A transposed view is a view like any other, so `fuse` can do it, too:

# %% tags=["setup"] long="a layout, and the model that has it" id="setup-13"
def fuse_by_columns(layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
    """As `fuse`, with the large matrix stored transposed: [in_features, sum of out_features]."""
    columns = torch.cat([layer.weight.detach().T for layer in layers], dim=1)
    for layer, part in zip(layers, columns.split([layer.out_features for layer in layers], dim=1), strict=True):
        layer.weight = nn.Parameter(part.T, requires_grad=layer.weight.requires_grad)
    return partial(torch.matmul, other=columns)


class ColumnLM(FastLM):
    """The model of this lesson; of each product the longer side, rows or columns, lies in one piece."""

    def prepare(self) -> "ColumnLM":
        super().prepare()
        for layer in self.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            attention.qkv = fuse_by_columns([attention.q_proj, attention.k_proj, attention.v_proj])
            mlp.gate_up = fuse_by_columns([mlp.gate_proj, mlp.up_proj])
            fuse_by_columns([attention.o_proj])  # down_proj stays as it is
        fuse_by_columns([self.lm_head])
        if self.config.get("tie_word_embeddings"):
            self.model.embed_tokens.weight = self.lm_head.weight  # still one matrix under two names
        return self

# %% tags=["nbval-ignore-output"] id="86839803"
columns = checkpoint.build(ColumnLM).prepare()
rates = race({"as it was": first, "one norm, one table": by_rows, "by columns": columns,
              "products by rows": Products(by_rows), "products by columns": Products(columns)})
for name, rate in rates.items():
    print(f"{name:>26}: {rate:6.1f} tokens a second, {rate / rates['the limit']:4.0%} of the limit")
fast = columns
print("the same 40 tokens:", list(generate(fast, ids, 40)) == plain)

# %% [markdown] id="16ac2978"
# No operator was removed by this step. A profile by operators would never have found it, since the products took "their" time. The limit did.
#
# Whether columns win depends on the kernels of your PyTorch and on the widths; on another machine rows may be as good. Going on means writing kernels, or having a compiler write them: further down there is a part for those who have one. It cannot make memory faster. It can close the gap between the program and the products, and no other.
#
# transformers has a mode for it, with a `StaticCache`, since a compiled program wants shapes that never change. Its attention then reads the whole room at every token, filled or not (<a href="https://github.com/huggingface/transformers/issues/30862">huggingface/transformers#30862</a>).

# %% [markdown] id="24a4d935"
# ## Fewer bytes
#
# The formula has a second handle. If the numbers are smaller, fewer bytes are read: two in bfloat16, one in int8.
#
# ### Exercise 5 · Weights in int8
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# Round each weight to one of the 255 whole numbers from -127 to 127 times a *scale*. Which weights share a scale? If they are those of one *output channel*, a row of the matrix, the scale comes out of the sum:
#
# $$y_i = \sum_j W_{ij} x_j \;\approx\; \sum_j s_i\, c_{ij}\, x_j \;=\; s_i \sum_j c_{ij}\, x_j$$
#
# so a kernel multiplies whole numbers, and applies one scale at the end. With a scale for each *input* channel it would have to scale inside the sum.
#
# How wrong can it get? A weight is off by at most half a step, $s_i / 2$. So $|y_i - \hat y_i| \le \frac{s_i}{2} \sum_j |x_j|$. Write that bound, too: it is a promise that can be checked.
#
# <details><summary>Hint 1</summary>
#
# The scale of a row is its largest size divided by 127. A row of zeros has the scale 0, and 0 / 0 is no number.
#
# <details><summary>Hint 2</summary>
#
# `F.linear` wants one dtype, so the codes are cast to x's for the product. The result is [..., out], the scale [out]: broadcasting does the rest. For `bound`, the sum over `in` has to become [..., 1] first.
# </details>
# </details>


# %% exercise="fast_decoding.int8" id="fast_decoding-int8"
class Int8Linear(nn.Module):
    """A linear layer whose weight is kept in int8, with one scale for each output channel.

    scale = max |row| / 127, in float32; codes = row / scale, rounded to nearest; where a row is all 0, so are its codes.
    Parts, as buffers: codes, int8 [out, in]; scale, float32 [out]. The weight itself is not kept.
    weight: [out, in]. x: [..., in] -> [..., out], in x's dtype: scale * (codes times x).
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        ### BEGIN SOLUTION
        weight = weight.detach().float()
        scale = weight.abs().amax(dim=1) / 127  # [out]
        codes = (weight / scale.clamp(min=1e-30)[:, None]).round()  # [out, in]
        self.register_buffer("codes", codes.to(torch.int8))
        self.register_buffer("scale", scale)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        ### BEGIN SOLUTION
        return F.linear(x, self.codes.to(x.dtype)) * self.scale.to(x.dtype)
        ### END SOLUTION

    def bound(self, x: Tensor) -> Tensor:
        """By how much rounding the weight can change each result at most: scale / 2 * sum |x|. [..., in] -> [..., out]."""
        ### BEGIN SOLUTION
        return x.abs().sum(dim=-1, keepdim=True) * self.scale / 2
        ### END SOLUTION


# %% check="fast_decoding.int8" tags=["nbval-ignore-output"] id="check-fast_decoding-int8"
check("fast_decoding.int8", Int8Linear)

# %% [markdown] id="279e7192"
# The bound assumes the worst: every weight is off by half a step, each in the bad direction. What is the largest error that occurs for random inputs, as a share of the bound?

# %% prediction="fast_decoding.bound" id="prediction-fast_decoding-bound"
predict("fast_decoding.bound", "largest error among 64,000 results, as a share of the bound", unit="%", guess=...)

# %% id="76e0f501"
torch.manual_seed(0)
weight, x = torch.randn(1000, 576), torch.randn(64, 576)
rounded = Int8Linear(weight)
shares = (rounded(x) - x @ weight.T).abs() / rounded.bound(x)
print(f"the largest of {shares.numel():,} errors is {shares.max():.0%} of its bound, the mean {shares.mean():.1%}")
measured("fast_decoding.bound", 100 * shares.max().round(decimals=2))

# %% [markdown] id="036881a8"
# <details><summary>What the numbers say</summary>
#
# About an eighth. Roundings go up and down, and 576 of them mostly cancel: their sum grows like the root of their number. A bound is what you can promise; a typical error is what you get.
# </details>

# %% [markdown] id="202969a2"
# ### Does this processor have it?
#
# Your `forward` casts all codes to float32 for every token. It reads a byte, writes four, and reads those again, so it cannot be fast: it shows what is *right*. Speed needs a kernel that multiplies int8, and PyTorch has several, private or on their way out: `_weight_int8pack_mm`, and the quantised operators of FBGEMM, which round x to 8 bits as well. Whether one of them is fast is decided by the processor's instructions. The same holds for bfloat16: without instructions of its own it is a slow way to be less exact. pytorch/pytorch has an issue in which such products are 44 to 500 times *slower* on processors with AVX2 alone (<a href="https://github.com/pytorch/pytorch/issues/146508">pytorch/pytorch#146508</a>). So measure, and guess first: which way to multiply SmolLM2's head with one vector is the fastest here?

# %% prediction="fast_decoding.fastest" id="prediction-fast_decoding-fastest"
predict(
    "fast_decoding.fastest",
    "the fastest product with SmolLM2's head on this machine",
    one_of=(
        "float32",
        "int8, cast to float32",
        "bfloat16",
        "int8 pack, bfloat16 input",
        "int8 pack",
        "int8, FBGEMM",
    ),
    guess=...,
)

# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-11"
import warnings


def fbgemm(linear: Int8Linear) -> Callable[[Tensor], Tensor]:
    """FBGEMM's product with the codes and scales of an Int8Linear; it rounds x to 8 bits as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these operators are on their way out
        zeros = torch.zeros(len(linear.scale), dtype=torch.int64)
        weight = torch._make_per_channel_quantized_tensor(
            linear.codes, linear.scale.double().clamp(min=1e-30), zeros, 0
        )
        packed = torch.ops.quantized.linear_prepack(weight, None)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, True)


def int8_pack(linear: Int8Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """PyTorch's private int8 product with the codes and scales of an Int8Linear, for inputs cast to a dtype."""
    codes, scale = linear.codes, linear.scale.to(dtype)

    def product(x: Tensor) -> Tensor:
        rows = torch.ops.aten._weight_int8pack_mm(x.reshape(-1, x.shape[-1]).to(dtype), codes, scale)
        return rows.to(x.dtype).view(*x.shape[:-1], -1)

    return product


# %% tags=["nbval-ignore-output"] long="every way to multiply, timed and compared" id="b90e2cf7"
matrix = torch.randn(49_152, 576) / 24
x, halved, rounded = torch.randn(1, 576), matrix.bfloat16(), Int8Linear(matrix)
ways = {
    "float32": lambda x: F.linear(x, matrix),
    "bfloat16": lambda x: F.linear(x.bfloat16(), halved).float(),
    "int8, cast to float32": rounded,
    "int8 pack": int8_pack(rounded, torch.float32),
    "int8 pack, bfloat16 input": int8_pack(rounded, torch.bfloat16),
}
try:
    ways["int8, FBGEMM"] = fbgemm(rounded)
except RuntimeError as error:
    print("no FBGEMM here:", str(error).partition("\n")[0])
spent = clock.in_turns({name: partial(way, x) for name, way in ways.items()}, 5)
for name, way in sorted(ways.items(), key=lambda item: spent[item[0]]):
    off = (way(x) - ways["float32"](x)).norm() / ways["float32"](x).norm()
    print(f"{name:>26}: {spent[name]:6.1f} ms, relative error {off:.4f}")
fastest = measured("fast_decoding.fastest", min(spent, key=spent.get))

# %% [markdown] id="b9f3c761"
# <details><summary>What the numbers say</summary>
#
# Where this was stored, a processor with AVX2 and without instructions for bfloat16, FBGEMM won by far, int8 pack with an input in bfloat16 took about half as long as float32, and with an input in float32 it was slower than float32. On another processor the order is another. What holds anyway: the codes and scales are the same in all of these, so the errors are much the same on every machine. Rounding the weights costs 0.0075, and FBGEMM has twice as much, because it rounds x as well.
# </details>

# %% [markdown] id="5caa4c0d"
# Now the whole model: a copy of it, in which each product is one in int8. How fast is it, and how many of the next tokens along the text are still the same? They are asked for one by one, as in decoding. The folded cell makes the copy; it also notes how large each channel of each product's input gets on another text, for later.
#
# FBGEMM's error of 0.0164 in place of 0.0081 does not look like much. What share of the tokens stays the same?

# %% prediction="fast_decoding.fbgemm" id="prediction-fast_decoding-fbgemm"
predict("fast_decoding.fbgemm", "next tokens of SmolLM2 that stay the same with FBGEMM's int8", unit="%", guess=...)

# %% tags=["setup"] jupyter={"source_hidden": true} long="a copy of the model, and what its products' inputs look like" id="9c79673d"
import copy

from grader.instruments import patch

Kernel = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]  # weight, largest input of each channel -> the product


class KernelLayer(nn.Module):
    """A function of x as a module, which can take the place of a linear layer."""

    def __init__(self, product: Callable[[Tensor], Tensor]):
        super().__init__()
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


def largest_inputs(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """For each linear layer, by its name: how large each channel of its input gets while the model reads ids. [in]"""
    calls = patch.calls_in(model, ids)
    linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    return {name: calls[name].input.abs().flatten(0, -2).amax(dim=0) for name in linears}


def in_int8(model: FastLM, kernel: Kernel, largest: dict[str, Tensor]) -> FastLM:
    """A copy of a model whose products are a kernel's; the embedding stays as it is."""

    def product(*names: str) -> KernelLayer:
        weight = torch.cat([model.get_submodule(name).weight.detach() for name in names])
        return KernelLayer(kernel(weight, largest[names[0]]))

    small = copy.deepcopy(model, {id(model.model.embed_tokens): model.model.embed_tokens})  # this part is not copied
    for i, layer in enumerate(small.model.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        layer.self_attn.qkv = product(*(f"{attention}.{part}_proj" for part in "qkv"))
        layer.mlp.gate_up = product(f"{mlp}.gate_proj", f"{mlp}.up_proj")
        layer.self_attn.o_proj, layer.mlp.down_proj = product(f"{attention}.o_proj"), product(f"{mlp}.down_proj")
        del layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.mlp.gate_proj, layer.mlp.up_proj
    small.lm_head = product("lm_head")
    return small


# %% tags=["nbval-ignore-output"] id="bb430933"
OTHER = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want
of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this
truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful property."""
largest = largest_inputs(first, torch.tensor([checkpoint.tokenizer.encode(OTHER).ids]))
text = torch.tensor([[*ids[0].tolist(), *plain]])
texts = [torch.tensor([[*golden.prompt_ids, *golden.new_ids]]) for golden in checkpoint.goldens]  # as recorded


# %% tags=["nbval-ignore-output"] id="a9d2f4c7"
@torch.no_grad()
def says(model: nn.Module, at_once: int = 1) -> Tensor:
    """The most likely next token after each token of the recorded texts, read so many tokens at once."""
    found = []
    for one in texts:
        cache = model.new_cache(1, one.shape[1])
        found += [model(part, cache).argmax(-1)[0] for part in one.split(at_once, dim=1)]
    return torch.cat(found)

# %% tags=["nbval-ignore-output"] id="98bf906c"
kernels = {"int8 pack, bfloat16 input": lambda weight, largest: int8_pack(Int8Linear(weight), torch.bfloat16),
           "int8, FBGEMM": lambda weight, largest: fbgemm(Int8Linear(weight))}  # fmt: skip
models = {name: in_int8(fast, kernel, largest) for name, kernel in kernels.items() if name in ways}
expected, agreed = says(fast), {}
rates = race(models | {"float32": fast})
for name, model in models.items():
    agreed[name] = (says(model) == expected).float().mean().item()
    at_once = (says(model, at_once=1000) == expected).float().mean().item()
    print(f"{name:>26}: {rates[name] / rates['float32']:.1f} times as fast as float32; {agreed[name]:.0%} of"
          f" {len(expected)} next tokens are the same, and {at_once:.0%} if a text is read at once")
measured("fast_decoding.fbgemm", 100 * agreed.get("int8, FBGEMM", float("nan")))

# %% [markdown] id="5c860402"
# <details><summary>What the numbers say</summary>
#
# FBGEMM is the faster kernel, and it makes another model: four of five next tokens stay the same, and with int8 pack 97%. FBGEMM rounds the input as well, in 7 bits (the `True` in the folded cell), so that sums do not overflow on processors like the one where this was stored. And it has *one scale for all of x*, so tokens that are read together share a scale, that of the largest number among them: if a text is read at once, half of the next tokens stay the same. With this kernel a program that reads several tokens at once, as we soon will to check guesses, writes another text than one that reads them one by one.
# </details>

# %% [markdown] id="b7d0c5a1"
# ### A few large channels
#
# Random inputs, all of one size, hardly minded 7 bits. What is different in a trained model? The same as in lesson 09:

# %% tags=["nbval-ignore-output"] id="c2f9f3e4"
for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
    sizes = torch.stack([largest[f"model.layers.{i}.{part}"] for i in range(config.num_hidden_layers)])
    share = (sizes.amax(dim=1) / sizes.median(dim=1).values).sort().values
    print(f"input of {part:>16}: the largest channel is {share[0]:.0f} to {share[-1]:.0f} times the median one, by layer")

# %% [markdown] id="d81a60e7"
# The scale is that of the largest number, and an ordinary one is left with a handful of steps. Dettmers et al. (*LLM.int8()*, 2022, arXiv 2208.07339) keep the few large channels as they were and compute in int8 with the rest:
#
# $$y = W_{:,\,\text{large}}\; x_{\text{large}} + \text{int8}(W_{:,\,\text{rest}})\; \text{int8}(x_{\text{rest}})$$
#
# In the paper a channel is large where a number of the input is above 6, found anew for each input. Here they are the 16 that were largest on the other text, found once: of 576 or 1,536, so nearly all bytes are still those of int8. What share of the tokens stays the same now?

# %% prediction="fast_decoding.outliers" id="prediction-fast_decoding-outliers"
predict("fast_decoding.outliers", "the same with FBGEMM, and 16 channels of each input in float32", unit="%", guess=...)

# %% tags=["setup"] id="e5b1f7d2"
def keep_large(weight: Tensor, largest: Tensor, count: int = 16) -> Callable[[Tensor], Tensor]:
    """FBGEMM's product; the `count` channels of the input that get largest are multiplied in float32.

    weight: [out, in]; largest: [in], how large each channel gets. -> a function of x [..., in] -> [..., out].
    """
    large = largest.topk(count).indices
    columns = weight[:, large].T.contiguous()  # [count, out]
    rest = torch.ones_like(largest).index_fill(0, large, 0)  # [in]: 0 for the large ones
    product = fbgemm(Int8Linear(weight * rest))
    return lambda x: product(x * rest) + x[..., large] @ columns

# %% tags=["nbval-ignore-output"] id="f6a2c8b3"
for count in (1, 4, 16) if "int8, FBGEMM" in ways else ():
    models[f"FBGEMM, {count} in float32"] = model = in_int8(fast, partial(keep_large, count=count), largest)
    agreed[f"FBGEMM, {count} in float32"] = (says(model) == expected).float().mean().item()
rates = race(models | {"float32": fast})
for name, share in agreed.items():
    print(f"{name:>26}: {rates[name] / rates['float32']:.1f} times as fast as float32, {share:.0%} the same")
measured("fast_decoding.outliers", 100 * agreed.get("FBGEMM, 16 in float32", float("nan")))
good = [name for name in agreed if agreed[name] >= 0.9] or [max(agreed, key=agreed.get)]
int8 = models[max(good, key=rates.get)]

# %% [markdown] id="a07d9c16"
# <details><summary>What the numbers say</summary>
#
# 96%, as many as with the input in bfloat16. A single channel in float32 is worth the most: 90% in place of 80. In one layer the largest channel of `down_proj`'s input is more than 5,000 times as large as the median one: with its scale, nearly all others are rounded to 0. The price is time: two small operators and a small product for each large one.
# </details>

# %% [markdown] id="a651bb6a"
# So we go on with the fastest kernel that keeps nine of ten tokens. It is faster, and nearly the same model. Nearly: whether it is as good has to be measured on what you need it for, as in lesson 09. The rest of this lesson goes beyond the limit *without* changing anything.

# %% [markdown] id="0be39215"
# ### With a compiler
#
# *Optional: this part needs a C++ compiler and a minute, and nothing later needs this part.*
#
# 41 operators of a layer are left, of which four are products with weights. Each of the others reads its input, writes its result, and is called from Python. A compiler that sees them together writes one loop for several: x is read once, normed, and handed to the product. `torch.compile` traces a function, writes C++ for it, and has a C++ compiler build it. The products stay calls of the kernels that you know, so the memory gets no faster. What can go is what lies between them. Where is more to gain, in float32 or with int8?
#
# Two things make it practical. Compile the whole model, and its 30 layers are 30 times as much to build, though all of them do the same with other weights. So one layer is written as a function of its tensors, and only that is compiled. And the length of the text changes with each token: `dynamic=True` leaves numbers open that would otherwise be built into the program.
#
# Of the int8 kernels we take int8 pack with an input in bfloat16. FBGEMM keeps its weights in an object of its own, which `torch.compile` cannot trace, so it would stop at each product and go back to Python.

# %% tags=["setup"] id="setup-14"
def multiply(x: Tensor, weight) -> Tensor:
    """x [1, 1, in] times a weight: [out, in] in float32, or (codes, scale) of an Int8Linear -> [1, 1, out]."""
    if isinstance(weight, Tensor):
        return F.linear(x, weight)
    codes, scale = weight
    return torch.ops.aten._weight_int8pack_mm(x[0].to(scale.dtype), codes, scale)[None].to(x.dtype)


def codes_and_scale(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight for PyTorch's private int8 product, with inputs in bfloat16."""
    rounded = Int8Linear(weight.contiguous())  # row by row, as the kernel reads it
    return rounded.codes, rounded.scale.bfloat16()


# %% tags=["setup"] long="a whole layer as one function, with its shapes" id="setup-15"
def one_token(x: Tensor, table: Tensor, keys: Tensor, values: Tensor, length: int, weights: tuple, eps: float) -> Tensor:
    """A layer of the model for one token after `length` others, whose keys and values it writes into the cache.

    x: [1, 1, D]; table: [2, 1, head_dim]; keys, values: [1, KV, capacity, head_dim]; weights: as tensors_of gives them.
    """
    norm_1, qkv, q_norm, k_norm, o, norm_2, gate_up, down = weights
    KV, width = keys.shape[1], keys.shape[3]
    heads = multiply(F.rms_norm(x, x.shape[-1:], norm_1, eps), qkv).view(1, 1, -1, width).transpose(1, 2)
    q, k, v = heads.split([heads.shape[1] - 2 * KV, KV, KV], dim=1)  # [1, H, 1, head_dim], 2 x [1, KV, 1, head_dim]
    if q_norm is not None:
        q, k = F.rms_norm(q, (width,), q_norm, eps), F.rms_norm(k, (width,), k_norm, eps)
    q = apply_rope(q, table).reshape(1, KV, -1, width)
    keys[:, :, length : length + 1], values[:, :, length : length + 1] = apply_rope(k, table), v
    mixed = F.scaled_dot_product_attention(q, keys[:, :, : length + 1], values[:, :, : length + 1])
    x = x + multiply(mixed.reshape(1, 1, -1), o)
    gate, up = multiply(F.rms_norm(x, x.shape[-1:], norm_2, eps), gate_up).chunk(2, dim=-1)
    return x + multiply(F.silu(gate) * up, down)


# %% tags=["setup"] jupyter={"source_hidden": true} long="what a layer's tensors are, and the model around the compiled layer" id="setup-16"
def tensors_of(layer: FastLayer, form: Callable[[Tensor], object]) -> tuple:
    """What one_token needs of a layer of a ColumnLM, its four matrices in some form; None where heads have no norms."""
    attention, mlp = layer.self_attn, layer.mlp
    qkv, gate_up = (fused.keywords["other"].T for fused in (attention.qkv, mlp.gate_up))
    o, down = attention.o_proj.weight.detach(), mlp.down_proj.weight.detach()
    q_norm, k_norm = (getattr(norm, "weight", None) for norm in (attention.q_norm, attention.k_norm))
    norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    return norms[0], form(qkv), q_norm, k_norm, form(o), norms[1], form(gate_up), form(down)


class Compiled(nn.Module):
    """A ColumnLM that reads a single token by a compiled layer, the same for all of its layers; several as before.

    form: what becomes of each matrix, as it is or codes_and_scale.
    """

    def __init__(self, model: ColumnLM, form: Callable[[Tensor], object] = lambda weight: weight):
        super().__init__()
        self.whole, self.new_cache = model, model.new_cache
        self.head = form(model.lm_head.weight.detach())
        self.weights = [tensors_of(layer, form) for layer in model.model.layers]
        self.layer = torch.compile(one_token, dynamic=True)

    @torch.no_grad()
    def forward(self, ids: Tensor, cache: list[Cache]) -> Tensor:
        if ids.shape[1] > 1:
            return self.whole(ids, cache)
        length, model = cache[0].length, self.whole.model
        x, table = model.embed_tokens(ids), self.whole.table_of(length, 1, ids.device)
        for weights, own in zip(self.weights, cache, strict=True):
            x = self.layer(x, table, own.keys, own.values, length, weights, model.norm.eps)
            own.length += 1
        return multiply(model.norm(x), self.head)


# %% tags=["setup"] jupyter={"source_hidden": true} id="setup-17"
def no_compiler() -> str:
    """Why nothing can be compiled here, or an empty string. A small function is tried."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1  # build here, and not in a pool of processes that are started for it
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    except Exception as error:  # what is missing shows in many ways
        return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
    return ""


# %% tags=["nbval-ignore-output"] id="392f23cd"
compiled = {}
if why_not := no_compiler():
    print("There is no C++ compiler that PyTorch can use here, so nothing is compiled.", why_not)
else:
    compiled = {"float32, compiled": Compiled(fast), "int8 pack, compiled": Compiled(fast, codes_and_scale)}
    for name, model in compiled.items():
        building = clock.once(lambda model=model: list(generate(model, ids, 2))) / 1000
        same = list(generate(model, ids, 40)) == plain
        print(f"{name}: {building:.0f} s to build it and to write 2 tokens; the same 40 tokens: {same}")

# %% tags=["nbval-ignore-output"] id="61003dd9"
packs = {"int8 pack": models["int8 pack, bfloat16 input"]}
built = race({"float32": fast} | packs | compiled)
for name, rate in built.items():
    print(f"{name:>20}: {rate:6.1f} tokens a second, {rate / built['float32']:.2f} times float32")

# %% [markdown] id="197fe54c"
# <details><summary>What the numbers say</summary>
#
# The four products of a layer take most of a token in float32, so a compiler that leaves them alone gains little. With int8 the products take a smaller part, and what lies between them a larger one: there more can go. Each call of a compiled layer first checks that nothing has changed for which it was built (types, shapes, which of its inputs are None), which takes some of the time that was saved. So compiling many small functions, one between every two products, was slower than not compiling at all when we tried it.
# </details>

# %% [markdown] id="e307cf8a"
# ## A place to stop for the day
#
# So far you have a limit from a config and one measurement, a decoder without copies and with fewer calls, and weights in int8. What is still to come is speculative decoding: the rule that keeps probabilities exact, drafts and how caches are rewound, prompt lookup, and when a draft loses.
#
# ## Read once, check five
#
# Lesson 02 ended with an observation: a fetched weight is used for one row, and the processor could multiply many more rows with it in nearly the same time. A single user has no more rows. Or do they? If somebody *guessed* the next four tokens, the model could read all of them at once, as it reads a prompt, and say for each place what it would have written there. As long as the guesses are what it would have written, they are right. This is *speculative decoding* (Leviathan et al., 2022; Chen et al., 2023).
#
# ![One step of speculative decoding. The text so far ends with "the ship lay". A draft guesses four tokens: at, anchor, in, a. The model reads "lay" and the four guesses in one run and gives a token for each of five places: at, anchor, off, the, wind. The first two guesses are what the model writes; the third is not, so the model's own token, off, is taken, and the last two places are thrown away: three tokens for one run. The caches are cut back to the text that holds.](figures/one-step.svg)
#
# The idea pays if reading five tokens takes hardly longer than reading one. Does it, here?

# %% prediction="fast_decoding.verify" id="prediction-fast_decoding-verify"
predict("fast_decoding.verify", "reading 5 tokens at once, compared with reading one", unit="times as long", guess=...)


# %% tags=["nbval-ignore-output"] id="eea0730e"
@torch.no_grad()
def milliseconds_for(model: nn.Module, counts: Sequence[int], repeats: int = 5) -> dict[int, float]:
    """How long a model takes to read so many tokens at once after the prompt."""
    cache = model.new_cache(1, ids.shape[1] + max(counts))
    model(ids, cache)

    def read(count: int) -> None:
        for layer in cache:
            layer.crop(ids.shape[1])
        model(ids[:, :1].expand(1, count), cache)

    return clock.in_turns({count: partial(read, count) for count in counts}, repeats)

# %% tags=["nbval-ignore-output"] id="3033dd48"
spent = milliseconds_for(fast, (1, 2, 3, 5, 9))
for count, time in spent.items():
    print(f"{count} tokens at once: {time:6.1f} ms, {time / spent[1]:.2f} times as long as one")
verify = measured("fast_decoding.verify", spent[5] / spent[1])

# %% [markdown] id="567ffe4d"
# <details><summary>What the numbers say</summary>
#
# It is not free on a CPU. Where this was stored, five tokens took about three times as long as one, but nine took hardly longer than five: for several rows PyTorch calls another kernel, whose time hardly grows with their number. So there is something to gain only if a run gives more than three tokens. On a GPU arithmetic is further ahead of memory, and the paper assumes that five cost as much as one. Here they don't, and whoever takes its formula to a laptop is disappointed.
# </details>

# %% [markdown] id="5bbdd102"
# ## Exact, by design
#
# With greedy decoding it is clear what "right" means: the guess is the token with the largest logit, or it is not. But what if tokens are drawn at random, with the probabilities p that the model gives? Then no guess is right or wrong. The draft has drawn its token x with probabilities q of its own. It would be wrong to accept always: then tokens come with q. To compare with a token drawn from p would be exact, but wasteful: it accepts too rarely.
#
# The rule: accept x with probability $\min(1, p(x) / q(x))$. Where the draft is too eager, q > p, some of its guesses are thrown away. When that happens, draw a new token, from where the draft was *not eager enough*: from $\max(0, p - q)$, divided by its sum. Both together give exactly p, for any q.
#
# An example: $p = (0.5, 0.3, 0.2)$ and $q = (0.6, 0.3, 0.1)$. Only token 0 is ever rejected. What share of all guesses is accepted?

# %% prediction="fast_decoding.accepted" id="prediction-fast_decoding-accepted"
predict("fast_decoding.accepted", "guesses that are accepted in the example", unit="%", guess=...)


# %% tags=["setup"] id="setup-12"
def pick(probabilities: Tensor, at: Tensor) -> Tensor:
    """The token in which `at`, a number from 0 to 1, falls when the probabilities are laid end to end.

    probabilities: [N, V], each row sums to 1; at: [N] -> tokens [N]. With `at` drawn uniformly, a draw from each row.
    """
    below = (probabilities.cumsum(dim=-1) <= at[..., None]).sum(dim=-1)
    return below.clamp(max=probabilities.shape[-1] - 1)


# %% [markdown] id="51ba4064"
# ### Exercise 6 · Accept, or draw again
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# The random numbers are given, so that a check can know the answer: `accept_at` decides about acceptance, and `sample_at` picks the new token, with the function `pick` above. All of it for N guesses at once; that makes 100,000 of them quick to test.
#
# <details><summary>Hint 1</summary>
#
# `p[torch.arange(N), drafts]` is the probability of each row's own guess. A number that is uniform from 0 to 1 is below r with probability r.
#
# <details><summary>Hint 2</summary>
#
# `u < p / q` is `u * q < p`, which needs no division. Where p and q are equal, nothing is left of max(0, p - q), and nothing is ever rejected either: what must not happen there is a NaN.
# </details>
# </details>


# %% exercise="fast_decoding.accept" id="fast_decoding-accept"
def accept_or_resample(
    p: Tensor, q: Tensor, drafts: Tensor, accept_at: Tensor, sample_at: Tensor
) -> tuple[Tensor, Tensor]:
    """One speculative token for each row, distributed as p (Leviathan et al., 2022, section 2.3).

    A guess x, drawn from q, is accepted where accept_at < p(x) / q(x). Elsewhere the token is `pick`ed, at sample_at,
    from max(0, p - q) divided by its sum.
    p, q: [N, V], probabilities; drafts: [N] int64; accept_at, sample_at: [N], from 0 to below 1
    -> tokens [N] int64; accepted [N] bool.
    """
    ### BEGIN SOLUTION
    rows = torch.arange(len(drafts), device=drafts.device)
    accepted = accept_at * q[rows, drafts] < p[rows, drafts]  # [N]
    rest = (p - q).clamp(min=0)  # [N, V]
    rest = rest / rest.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.where(accepted, drafts, pick(rest, sample_at)), accepted
    ### END SOLUTION


# %% check="fast_decoding.accept" tags=["nbval-ignore-output"] id="check-fast_decoding-accept"
check("fast_decoding.accept", accept_or_resample)

# %% id="46674b37"
N = 100_000
generator = torch.Generator().manual_seed(0)
p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.3, 0.1])
uniform = torch.rand(3, N, generator=generator)
drafts = pick(q.expand(N, 3), uniform[0])
tokens, accepted = accept_or_resample(p.expand(N, 3), q.expand(N, 3), drafts, uniform[1], uniform[2])
for name, drawn in (("drafts", drafts), ("tokens", tokens)):
    print(f"{name}: {[round(share, 2) for share in (drawn.bincount(minlength=3) / N).tolist()]}")
print(f"{accepted.float().mean():.0%} accepted; the sum of min(p, q) is {torch.minimum(p, q).sum():.2f}")
measured("fast_decoding.accepted", 100 * accepted.float().mean().round(decimals=2))

# %% [markdown] id="b52c3a21"
# <details><summary>What the numbers say</summary>
#
# 90%: token 0 is guessed with 0.6 and kept in 5 of 6 cases, which makes 0.5, and tokens 1 and 2 are always kept, 0.3 and 0.1. In general it is the sum of min(p, q), the part of the two distributions that overlaps. What is missing to p is 0.1 of token 2, and it comes from the rejected tenth.
# </details>

# %% [markdown] id="195b7aa1"
# Now break it. A program that shipped draws the new token from p itself and not from what is left; another puts what is left through a softmax (<a href="https://github.com/huggingface/transformers/pull/28508">huggingface/transformers#28508</a>). And a third drafts greedily, but calls its q a softmax (<a href="https://github.com/huggingface/transformers/issues/32867">huggingface/transformers#32867</a>): then every draft is token 0. How often does token 0, whose probability is 0.5, come out of the last one?

# %% prediction="fast_decoding.greedy_draft" id="prediction-fast_decoding-greedy_draft"
predict(
    "fast_decoding.greedy_draft",
    "token 0 with a greedy draft whose q is said to be (0.6, 0.3, 0.1)",
    unit="%",
    guess=...,
)


# %% id="8c3310ac"
def shares(tokens: Tensor) -> list[float]:
    return [round(share, 2) for share in (tokens.bincount(minlength=3) / N).tolist()]

# %% id="db948a99"
from_p = torch.where(accepted, drafts, pick(p.expand(N, 3), uniform[2]))
from_softmax = torch.where(accepted, drafts, pick((p - q).clamp(min=0).softmax(-1).expand(N, 3), uniform[2]))
greedy, _ = accept_or_resample(p.expand(N, 3), q.expand(N, 3), torch.zeros_like(drafts), uniform[1], uniform[2])
one_hot = F.one_hot(torch.zeros_like(drafts), 3).float()
honest, _ = accept_or_resample(p.expand(N, 3), one_hot, torch.zeros_like(drafts), uniform[1], uniform[2])
for name, drawn in {
    "right": tokens,
    "new token from p": from_p,
    "from a softmax": from_softmax,
    "greedy draft, q a softmax": greedy,
    "greedy draft, q one-hot": honest,
}.items():
    print(f"{name:>26}: {shares(drawn)}")
measured("fast_decoding.greedy_draft", 100 * (greedy == 0).float().mean().round(decimals=2))

# %% [markdown] id="da12672b"
# <details><summary>What the numbers say</summary>
#
# 83% in place of 50. A q must be the distribution that the draft was really drawn from. A greedy draft has a q of its own, which is 1 for the guess and 0 elsewhere, and with that the result is right again: the guess is accepted with probability p(x), and the new token is drawn from p without x. Greedy tests find none of these bugs, and the texts look fine.
# </details>

# %% [markdown] id="717d3a2b"
# ### Exercise 7 · One step
# difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# A step has g guesses, one after the other, and p for g + 1 places: what the model says where the first guess stands, where the second stands, and so on, and after the last. The first guess that is rejected ends the step, since everything behind it was guessed after a token that is not there. If all are accepted, the model has read one place more than was guessed, and its token comes for free. So a step gives 1 to g + 1 tokens.
#
# <details><summary>Hint 1</summary>
#
# Your `accept_or_resample` answers for all places at once. Which of its answers count?
#
# <details><summary>Hint 2</summary>
#
# `accepted.long().cumprod(0).sum()` counts the ones before the first zero. A plain sum also counts guesses behind a rejected one.
# </details>
# </details>


# %% exercise="fast_decoding.step" id="fast_decoding-step"
def speculative_step(p: Tensor, q: Tensor, drafts: Tensor, accept_at: Tensor, sample_at: Tensor) -> list[int]:
    """The tokens of one step: the guesses up to the first that is rejected, and one token of the model's own.

    At each place, `accept_or_resample` decides. The first token that is not accepted is the step's last. Where all
    guesses are accepted, one more token is picked from the last p.
    p: [g + 1, V], the model's probabilities at each guess's place and behind the last; q: [g, V], the draft's; drafts:
    [g] int64; accept_at: [g]; sample_at: [g + 1], of which number i is for place i -> 1 to g + 1 Python ints. g may be 0.
    """
    ### BEGIN SOLUTION
    g = len(drafts)
    tokens, accepted = accept_or_resample(p[:g], q, drafts, accept_at, sample_at[:g])
    kept = int(accepted.long().cumprod(dim=0).sum())  # guesses before the first that is rejected
    if kept < g:
        return tokens[: kept + 1].tolist()
    return [*drafts.tolist(), pick(p[g:], sample_at[g:]).item()]
    ### END SOLUTION


# %% check="fast_decoding.step" tags=["nbval-ignore-output"] id="check-fast_decoding-step"
check("fast_decoding.step", speculative_step)

# %% [markdown] id="ccafb953"
# Is it exact for several tokens? A toy language of three words: what comes next depends on the last word, in one way for the model and in another for the draft. Write two words 10,000 times, with two guesses at a time, and compare how often each pair comes with what it should be.

# %% id="764aba06"
model_says = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])  # row: the last word
draft_says = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.3, 0.4, 0.3]])


def two_words(generator: torch.Generator) -> tuple[int, int]:
    """The first two words after word 0, by steps with two guesses."""
    written = [0]
    while len(written) < 3:
        u, guesses = torch.rand(7, generator=generator), [written[-1]]
        for i in range(2):
            guesses.append(pick(draft_says[guesses[-1]][None], u[i : i + 1]).item())
        places = torch.tensor(guesses)
        written += speculative_step(model_says[places], draft_says[places[:2]], places[1:], u[2:4], u[4:])
    return written[1], written[2]


# %% tags=["nbval-ignore-output"] id="8cab1b32"
from grader.instruments import plots

runs, generator = 10_000, torch.Generator().manual_seed(0)
seen = Counter(two_words(generator) for _ in range(runs))
pairs = {f"{a} {b}": (a, b) for a in range(3) for b in range(3)}
should = {name: (model_says[0, a] * model_says[a, b]).item() for name, (a, b) in pairs.items()}
print(f"largest difference: {max(abs(seen[pair] / runs - should[name]) for name, pair in pairs.items()):.3f}")
plots.bars({"as it should be": should, "by steps": {name: seen[pair] / runs for name, pair in pairs.items()}})

# %% [markdown] id="e3f401ff"
# Within what chance does to 10,000 draws, the pairs are those of the model, though many of the words were guessed by something else.
#
# ## Greedy, with a cache
#
# Back to greedy decoding, where a check can compare token by token. The work is in the caches. The model reads guesses, so their keys and values are in its cache, and those that were rejected must go. Three numbers have to agree at the beginning of each run: the tokens that are fixed, those in the cache, and the position of the next one.
#
# ### Exercise 8 · Generate with guesses
# difficulty ●●●●○ · importance ●●●●● · 20 minutes
#
# Who guesses is left open: `propose(tokens, n)` gets all tokens so far, and returns at most n guesses, perhaps none. So the same loop serves for a draft model, for prompt lookup and for anything else.
#
# In each run the model reads what it has not read yet and the guesses behind it. In the first run that is the prompt; later it is one token, the last one that was written, whose keys and values are nowhere yet. Afterwards the cache is cut back to what holds, in *every* layer.
#
# <details><summary>Hint 1: which logits</summary>
#
# If u tokens are unread and g are guessed, the run gives u + g rows. Row u - 1 says what comes after the last token that is fixed: it judges the first guess. So the rows from u - 1 on count, g + 1 of them.
#
# <details><summary>Hint 2: how far back</summary>
#
# After the run the cache has all tokens and all g guesses. The tokens so far stay, and so do the accepted guesses. The model's own token has not been read.
#
# <details><summary>Hint 3: the end</summary>
#
# Of n tokens that are still to come, a run gives at least one that is no guess. So ask for at most n - 1 guesses: then there are never too many tokens, and the cache never has more than the prompt and max_new_tokens - 1. An end token can stand in the middle of accepted guesses.
# </details>
# </details>
# </details>


# %% exercise="fast_decoding.generate" id="fast_decoding-generate"
@torch.no_grad()
def generate_with_guesses(
    model: nn.Module,
    propose: Callable[[list[int], int], list[int]],
    ids: Tensor,
    max_new_tokens: int,
    guesses: int = 4,
    eos_token_id: int | None = None,
) -> Iterator[int]:
    """Greedy generation that gives exactly the model's own tokens, several for a run of the model where guesses are right.

    model: model.new_cache(batch, capacity) makes a cache for each layer, with `length` and crop(length); model(new_ids,
    cache) gives the new tokens' logits. The cache is made once, for T + max_new_tokens - 1 tokens.
    propose(tokens, n): all ids so far, a list of ints -> at most n ids that may come next, perhaps none. It is asked once
    before each run, for at most `guesses`, and for no more than can still be used beside the model's own token.
    Each run reads all that is unread, the prompt at first, and the guesses behind it. Each layer's cache then keeps the
    tokens that hold and no others.
    ids: [1, T] int64. Yields Python ints. Ends after max_new_tokens, or once eos_token_id has been yielded.
    """
    ### BEGIN SOLUTION
    cache = model.new_cache(1, ids.shape[1] + max_new_tokens - 1)
    tokens = ids[0].tolist()
    unread, left = tokens, max_new_tokens
    while left > 0:
        drafts = propose(list(tokens), min(guesses, left - 1))
        logits = model(torch.tensor([unread + drafts], device=ids.device), cache)  # [1, u + g, vocab_size]
        best = logits[0, len(unread) - 1 :].argmax(dim=-1).tolist()  # g + 1 tokens
        kept = 0
        while kept < len(drafts) and drafts[kept] == best[kept]:
            kept += 1
        for layer in cache:
            layer.crop(len(tokens) + kept)
        for token in best[: kept + 1]:
            yield token
            if token == eos_token_id:
                return
        tokens, unread, left = tokens + best[: kept + 1], best[kept : kept + 1], left - kept - 1
    ### END SOLUTION


# %% check="fast_decoding.generate" tags=["nbval-ignore-output"] id="check-fast_decoding-generate"
check("fast_decoding.generate", generate_with_guesses)

# %% [markdown] id="2e7db015"
# ### Exercise 9 · A draft model
# difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# Now somebody who guesses: a smaller model with a cache of its own. It writes n tokens, one after the other. When it is asked the next time, the text has changed: some of its guesses are in it, and then comes a token that it did not guess. So its cache must be rewound as well, and by another number than the model's: the last guess was never read by the draft itself. A program that subtracted one too many made its drafts worse with every step, and still wrote the right text (<a href="https://github.com/lablup/mlxcel/issues/994">lablup/mlxcel#994</a>).
#
# Counting is where it goes wrong, so do not count. Remember which tokens are in the cache, compare them with the text that comes, and cut back to where both begin to differ.
#
# <details><summary>Hint 1</summary>
#
# A list `self.read` says which tokens are in the cache. Extend it whenever the model reads something.
#
# <details><summary>Hint 2</summary>
#
# The last token of the text must be read even if it is in the cache already: its logits are needed, and they were thrown away. So at most `len(tokens) - 1` tokens stay.
# </details>
# </details>


# %% exercise="fast_decoding.draft" id="fast_decoding-draft"
class DraftModel:
    """Guesses by a smaller model, greedily; its cache follows the text.

    model: new_cache(batch, capacity), a cache for each layer, with `length` and crop(length); model(new_ids, cache) gives
    logits. capacity: of its cache. The cache is made once. Each call reads only what is not in the cache: it is cut back,
    in each layer, to the first token that differs from the text, and so far that the text's last token is read.
    """

    def __init__(self, model: nn.Module, capacity: int):
        self.model, self.cache = model, model.new_cache(1, capacity)
        self.read: list[int] = []  # the tokens that are in the cache

    @torch.no_grad()
    def __call__(self, tokens: list[int], n: int) -> list[int]:
        """n guesses, Python ints, of what comes after the tokens so far. The last guess is not read. n may be 0."""
        ### BEGIN SOLUTION
        same = 0
        while same < min(len(self.read), len(tokens) - 1) and self.read[same] == tokens[same]:
            same += 1
        for layer in self.cache:
            layer.crop(same)
        self.read, unread, guesses = self.read[:same], tokens[same:], []
        for _ in range(n):
            logits = self.model(torch.tensor([unread]), self.cache)  # [1, u, vocab_size]
            self.read = self.read + unread
            unread = [logits[0, -1].argmax().item()]
            guesses += unread
        return guesses
        ### END SOLUTION


# %% check="fast_decoding.draft" tags=["nbval-ignore-output"] id="check-fast_decoding-draft"
check("fast_decoding.draft", DraftModel)

# %% [markdown] id="25e51643"
# Which draft? It needs the same tokenizer, should be several times as fast, and right most of the time. Big models have small siblings; SmolLM2-135M is the smallest of its family. But you have made one already: its own int8 copy, which reads a quarter of the bytes. The text must be that of float32, to the token.


# %% long="one class, whose notes the formula needs" id="8ccdd071"
class Noting:
    """Guesses, and a note of each: after how many tokens, and which."""

    def __init__(self, propose: Callable[[list[int], int], list[int]]):
        self.propose, self.noted = propose, []

    def __call__(self, tokens: list[int], n: int) -> list[int]:
        guesses = self.propose(tokens, n)
        self.noted.append((len(tokens), guesses))
        return guesses

    def acceptance(self, text: list[int]) -> float:
        """The share of the guesses that hold, of those that were judged: none behind a wrong one."""
        right = [[a == b for a, b in zip(guesses, text[start:], strict=False)] for start, guesses in self.noted]
        kept = [[*row, False].index(False) for row in right]
        judged = sum(min(n + 1, len(row)) for n, row in zip(kept, right, strict=True))
        return sum(kept) / max(judged, 1)

# %% tags=["nbval-ignore-output"] id="339edfc6"
draft = Noting(DraftModel(int8, ids.shape[1] + 40))
speculative = list(generate_with_guesses(fast, draft, ids, 40, guesses=4))
print(f"the same text: {speculative == plain}; {len(draft.noted)} runs of the model for 40 tokens;"
      f" {draft.acceptance(text[0].tolist()):.0%} of the guesses that were judged hold")

# %% [markdown] id="f12cfcdf"
# Fewer runs. Faster? That depends on three numbers, and there is a formula for it.
#
# ### Exercise 10 · When a draft loses
# difficulty ●●○○○ · importance ●●●●○ · 5 minutes
#
# Let every guess be accepted with probability a, independently. A step with g guesses then gives $1 + a + a^2 + \dots + a^g$ tokens on average: the k-th further token comes only if k guesses in a row are right. It takes g runs of the draft, each c times as long as a run of the model for one token, and one run of the model for g + 1 tokens, which takes v times as long as for one. The paper has v = 1; you have measured that it is more.
#
# $$\text{speed-up} = \frac{1 + a + \dots + a^g}{g\,c + v}$$
#
# <details><summary>Hint</summary>
#
# $1 + a + \dots + a^g = (1 - a^{g+1}) / (1 - a)$, unless a is 1. A sum over `range(g + 1)` needs no exception.
# </details>


# %% exercise="fast_decoding.speedup" id="fast_decoding-speedup"
def speed_up(acceptance: float, guesses: int, cost: float, verify: float = 1.0) -> float:
    """How many times as fast decoding is with guesses as without (Leviathan et al., 2022, theorem 3.8, with verify = 1).

    (1 + a + ... + a^g) / (g c + v). acceptance: a, the probability that a guess is accepted, 0 to 1; guesses: g in each
    step, 0 or more; cost: c, a draft's run, and verify: v, the model's run for g + 1 tokens, both in units of the
    model's run for one token. Below 1 the draft loses.
    """
    ### BEGIN SOLUTION
    tokens = sum(acceptance**i for i in range(guesses + 1))
    return tokens / (guesses * cost + verify)
    ### END SOLUTION


# %% check="fast_decoding.speedup" tags=["nbval-ignore-output"] id="check-fast_decoding-speedup"
check("fast_decoding.speedup", speed_up)

# %% [markdown] id="0ce014b2"
# A draft that takes a fifth of the model's time and is right every second time: what is the speed-up with five guesses, if verifying is free?

# %% prediction="fast_decoding.loses" id="prediction-fast_decoding-loses"
predict("fast_decoding.loses", "speed-up with a = 0.5, g = 5, c = 0.2, v = 1", unit="times", guess=...)

# %% id="6b47e7f0"
print("guesses   " + "".join(f"{g:6}" for g in range(1, 9)))
for a in (0.5, 0.7, 0.8, 0.9):
    print(f"a = {a}   " + "".join(f"{speed_up(a, g, 0.2):6.2f}" for g in range(1, 9)))
measured("fast_decoding.loses", speed_up(0.5, 5, 0.2))

# %% [markdown] id="b2d38102"
# <details><summary>What the numbers say</summary>
#
# 0.98: it loses, though the model runs only half as often. With one or two guesses it wins a little. More guesses are no help if they are wrong, because each costs a run of the draft, and the tenth of ten counts only if nine before it were right.
# </details>

# %% [markdown] id="a9253bf6"
# And here, with what was measured: the draft is the int8 copy, reading several tokens is not free. Does the formula say what the clock says?

# %% id="af47294f"
def with_draft(guesses: int, tokens: int = 24) -> Noting:
    """Write tokens after the prompt with the int8 draft; what it guessed."""
    draft = Noting(DraftModel(int8, ids.shape[1] + tokens))
    list(generate_with_guesses(fast, draft, ids, tokens, guesses))
    return draft

# %% tags=["nbval-ignore-output"] id="eacfb4fb"
spent, own = milliseconds_for(fast, (1, 2, 3, 5), 3), milliseconds_for(int8, (1,), 3)[1]
alone = clock.milliseconds(lambda: list(generate(fast, ids, 24)), 2)
for g in (1, 2, 4):
    run, notes = partial(with_draft, g), []
    took = clock.milliseconds(lambda run=run, notes=notes: notes.append(run()), 2)
    a, cost, verify = notes[0].acceptance(text[0].tolist()), own / spent[1], spent[g + 1] / spent[1]
    print(f"{g} guesses: {len(notes[0].noted)} runs for 24 tokens, a = {a:.2f}, c = {cost:.2f}, v = {verify:.2f}:"
          f" formula {speed_up(a, g, cost, verify):.2f} times as fast, clock {alone / took:.2f}")

# %% [markdown] id="8eae432a"
# The formula and the clock agree roughly, and both say that this draft *loses* on a CPU like ours: fewer runs, and each of them takes several times as long. A null result, and the formula says what would have to change. With v = 1 the same guesses would make it faster. So would a draft that costs a tenth.
#
# Many models have such a draft built in: *multi-token prediction* (MTP). DeepSeek-V3 was trained with a small extra layer that predicts the token after the next from the same vectors (section 2.2 of its report). The report says that 85 to 90% of its guesses are accepted, and that it decodes 1.8 times as fast (section 5.4.3). Qwen3.5 and others have such layers as well.
#
# ## A draft for nothing
#
# ### Exercise 11 · Prompt lookup
# difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# The cheapest draft is no model. Much of what is written stands in the text already: names, quotations, code that is edited, an answer that repeats the question. So look for the last few tokens further up, and guess that what came after them there comes again (Saxena, 2023; in transformers `prompt_lookup_num_tokens`). Longer matches are better evidence, so try the longest first; of several places take the latest, as what is being written about *now* is likely near. (transformers takes the first.)
#
# <details><summary>Hint 1</summary>
#
# The tail matches itself. Where must the search end, so that there is at least one token behind a match?
#
# <details><summary>Hint 2</summary>
#
# A match may overlap with the tail: in `7 7 7` the tail `7 7` stands at the beginning too, and 7 comes next.
# </details>
# </details>


# %% exercise="fast_decoding.lookup" id="fast_decoding-lookup"
def prompt_lookup(tokens: list[int], n: int, longest: int = 3) -> list[int]:
    """At most n guesses: what came after the latest earlier place of the text's last tokens.

    The last `longest` tokens are looked for first, then one fewer, down to 1; of several places the latest counts. A
    place counts if at least one token follows it; it may overlap with the tail. No match, or n = 0: an empty list.
    tokens: all ids so far, of which there is at least one -> the up to n tokens behind the match.
    """
    ### BEGIN SOLUTION
    for size in range(min(longest, len(tokens) - 1), 0, -1):
        tail = tokens[-size:]
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == tail:
                return tokens[start + size : start + size + n]
    return []
    ### END SOLUTION


# %% check="fast_decoding.lookup" tags=["nbval-ignore-output"] id="check-fast_decoding-lookup"
check("fast_decoding.lookup", prompt_lookup)

# %% [markdown] id="e31882b8"
# It serves as `propose` as it is. First, on a text that repeats, then on the story:

# %% tags=["nbval-ignore-output"] id="68068541"
LIST = """Correct the spelling of this list, and change nothing else.
- two pounds of butter for the kitchen at Longbourn
- a letter for Captain Wentworth at Kellynch Hall
- four yards of muslin for Miss Elizabeth Bennet
The corrected list:
- two pounds of butter for the kitchen at Longbourn
-"""

# %% tags=["nbval-ignore-output"] id="d18720e7"
for name, words in {"a list that is repeated": LIST, "a story": prompt}.items():
    begin = torch.tensor([checkpoint.tokenizer.encode(words).ids])
    lookup = Noting(prompt_lookup)
    same = list(generate(fast, begin, 32)) == list(generate_with_guesses(fast, lookup, begin, 32))
    took = clock.in_turns({"alone": lambda begin=begin: list(generate(fast, begin, 32)),
                           "lookup": lambda begin=begin: list(generate_with_guesses(fast, prompt_lookup, begin, 32))}, 2)
    print(f"{name:>24}: {len(lookup.noted)} runs for 32 tokens, {took['alone'] / took['lookup']:.2f} times as fast,"
          f" the same text: {same}")

# %% [markdown] id="fe7452cf"
# Where the text repeats, it goes beyond what the model can do alone. Where it does not, it loses: nothing is as cheap as a guess that was looked up, but *reading* wrong guesses is not free. Programs that have it let you switch it on for a task, and some guess only after a match of several tokens.
#
# ### Exercise 12 · Your own experiment
# difficulty ●●○○○ · importance ●●●○○ · 10 minutes
#
# How many runs does guessing save, on *your* texts? There is a way to know without running a model at all. Greedy text does not change, so if you know what the model wrote, you can replay it: at each step ask for guesses, and count how many of them are the tokens that follow. That makes experiments cheap. You can try a hundred settings on one text that was written once.
#
# <details><summary>Hint</summary>
#
# It is `generate_with_guesses` with the answer known. A step gives the guesses that agree with what was written, up to the first that does not, and one token more.
# </details>


# %% exercise="fast_decoding.replay" id="fast_decoding-replay"
def runs_needed(
    propose: Callable[[list[int], int], list[int]], prompt: list[int], written: list[int], guesses: int = 4
) -> int:
    """How many runs a model needs to write `written` after `prompt`, greedily, with such guesses.

    As in `generate_with_guesses`: before each run, propose(tokens so far, n) is asked for at most `guesses`, and for at
    most one fewer than the tokens still to come. A run gives the guesses that are right, up to the first that is not,
    and one token more.
    """
    ### BEGIN SOLUTION
    done, runs = 0, 0
    while done < len(written):
        ahead = written[done:]
        drafts = propose(prompt + written[:done], min(guesses, len(ahead) - 1))
        kept = 0
        while kept < len(drafts) and drafts[kept] == ahead[kept]:
            kept += 1
        done, runs = done + kept + 1, runs + 1
    return runs
    ### END SOLUTION


# %% check="fast_decoding.replay" tags=["nbval-ignore-output"] id="check-fast_decoding-replay"
check("fast_decoding.replay", runs_needed)

# %% [markdown] id="12329aa7"
# Small models that write greedily repeat themselves. These are texts of the course's own models, 64 tokens each, as transformers wrote them. How many runs does prompt lookup with four guesses need for its 192 tokens, where a plain loop needs 192?

# %% prediction="fast_decoding.runs" id="prediction-fast_decoding-runs"
predict("fast_decoding.runs", "runs for the 192 tokens of austen-gpt2, with prompt lookup", guess=...)

# %% id="c79d4cff"
for name in ("austen-gpt2", "austen-qwen3", "austen-gemma3", "austen-deepseek"):
    goldens = load_checkpoint(name).goldens
    runs = {
        g: sum(runs_needed(prompt_lookup, list(gold.prompt_ids), list(gold.new_ids), g) for gold in goldens)
        for g in (1, 4, 8)
    }
    total = sum(len(gold.new_ids) for gold in goldens)
    print(f"{name:>16}: {total} tokens in " + ", ".join(f"{n} runs with {g}" for g, n in runs.items()))
    if name == "austen-gpt2":
        measured("fast_decoding.runs", runs[4])

# %% [markdown] id="3cd12da8"
# <details><summary>What the numbers say</summary>
#
# 148 of 192: a quarter of the runs is saved, and with more guesses hardly more. `austen-gemma3` saves four in ten. These texts are short, and at their beginning there is nothing to look up. A text that quotes saves far more.
# </details>

# %% [markdown] id="0abd9e4b"
# Now yours. Choose a prompt, let the model write 60 tokens, and find the setting of `longest` and of the guesses with the fewest runs. Is the best setting for a text that repeats also the best for one that does not? Then use your `verify` time from above: with which setting is the *time* smallest?

# %% tags=["nbval-ignore-output"] id="4cfc65aa"
yours = "Here is a poem about the sea.\n\nThe sea, the sea,"  # change this
begin = checkpoint.tokenizer.encode(yours).ids
wrote = list(generate(fast, torch.tensor([begin]), 60))
for longest in (1, 2, 3, 5):
    counts = [runs_needed(partial(prompt_lookup, longest=longest), begin, wrote, g) for g in (1, 2, 4, 8)]
    print(f"longest match {longest}: runs for 60 tokens with 1, 2, 4, 8 guesses: {counts}")

# %% [markdown] id="bc645623"
# ## What can't be rewound
#
# Cutting back was easy: `self.length = length`. Two kinds of memory of earlier lessons make it hard.
#
# A *ring* (lesson 06) keeps the last W tokens, and a new one takes the slot of the oldest. Three guesses overwrite three old tokens. If the guesses are rejected, those are needed again, since the window moves back, and they are gone:

# %% id="ea1d5b36"
W, extra = 6, 3
for slots in (W, W + extra):
    ring = {position % slots: position for position in range(10)}  # ten tokens were read
    ring |= {position % slots: position for position in (10, 11, 12)}  # three guesses, which are all rejected
    needed = range(10 - W + 1, 10)  # what token 10, when it comes, attends to besides itself
    lost = [position for position in needed if position not in ring.values()]
    print(f"{slots} slots: of tokens {list(needed)} these are gone: {lost}")

# %% [markdown] id="393bac75"
# The remedy is room: W slots and one for each guess. Without it the text goes wrong only when a guess is rejected after the window has filled, which short tests never see. It shipped more than once (<a href="https://github.com/ml-explore/mlx-lm/pull/1427">ml-explore/mlx-lm#1427</a>, <a href="https://github.com/ml-explore/mlx-swift-lm/issues/424">ml-explore/mlx-swift-lm#424</a>).
#
# A *state* (lesson 10) has no slots at all. Each token multiplies it and adds to it. Could one not undo that, by subtracting and dividing? By the numbers:

# %% id="66741a09"
torch.manual_seed(0)
state = torch.randn(8, 8)
before, undone = state.clone(), []
updates = [(torch.randn(8), torch.randn(8), decay) for decay in (0.9, 1e-3, 1e-5)]
for k, v, decay in updates:
    state = decay * state + torch.outer(k, v)
for k, v, decay in reversed(updates):
    state = (state - torch.outer(k, v)) / decay
print("the error is larger than the numbers themselves:", bool((state - before).abs().max() > before.abs().max()))

# %% [markdown] id="38e8b620"
# A token that makes the state forget makes it forget: what was scaled down to a hundred-millionth was rounded away. So a program keeps a copy of the state from before the guesses, and reads the accepted ones again. mlx-lm now refuses drafts where a cache can't be cut back (<a href="https://github.com/ml-explore/mlx-lm/pull/1109">ml-explore/mlx-lm#1109</a>); before, rejected guesses stayed in the state.

# %% [markdown] id="faa0b792"
# ## Your guesses
#
# Here they are once more, beside what was measured.

# %% tags=["nbval-ignore-output"] id="27f6cc83"
predictions()

# %% [markdown] id="c30961aa"
# ## What changed, and why
#
# | | before | now | why |
# |---|---|---|---|
# | the aim | "faster" | a share of bandwidth / bytes for a token | a limit says when to stop |
# | cache | grows by `cat` | room for all, views, `crop` | no copies; a way back |
# | q, k, v; gate, up | five products | two, in the same memory under the same names | fewer calls, longer products |
# | shared heads | keys and values repeated | query heads as further queries | nothing as large as the cache is made |
# | weights in memory | row by row | by the longer side, rows or columns | long pieces are read faster than short ones |
# | norm, rotations | eight operators; computed for every token | one; computed once | calls cost time, whatever they do |
# | weights | float32 | int8, a scale for each output channel | a quarter of the bytes, where the processor has it |
# | inputs of the products | float32 | int8, but for a few large channels | the fastest kernel wants both; one scale for all must not be that of the largest |
# | tokens for each run of the model | 1 | 1 to g + 1 | a fetched weight is used for several rows |
# | random tokens | drawn from p | accepted with min(1, p / q), else from max(0, p - q) | the same distribution |
# | memory after a rejected guess | – | cut back: every layer, model and draft | rings need room, states a copy |
#
# ## The questions again
#
# <details><summary>How many tokens a second are possible here, and who takes the rest?</summary>
#
# The memory's bytes a second, divided by 538 MB and 46 kB for each token of context, in float32. The rest goes to operators that are no products, to copies, and, the largest part, to products whose short rows are read slowly. All three you made smaller.
# </details>
#
# <details><summary>Why does a prompt take less time for each token than an answer?</summary>
#
# A fetched weight is used for all tokens of the prompt.
# </details>
#
# <details><summary>Why one scale for each output channel, and not for each input channel?</summary>
#
# It comes out of the sum: the kernel multiplies whole numbers and scales once.
# </details>
#
# <details><summary>Is int8 faster than float32?</summary>
#
# It reads a quarter of the bytes. Whether that is faster depends on the kernel and the processor: here one kernel was several times as fast as float32, and another one slower.
# </details>
#
# <details><summary>Why is speculative decoding exact, whatever the draft is?</summary>
#
# A token x comes out with probability min(p, q), if it is guessed and accepted, plus what is missing, max(0, p - q), after a rejection: together p. A bad draft makes it slow, and never wrong.
# </details>
#
# <details><summary>Which test finds a wrong residual?</summary>
#
# One that draws many tokens and compares the frequencies with p. A greedy test never draws from the residual.
# </details>
#
# <details><summary>How many tokens are in the caches after a step with four guesses of which two were right?</summary>
#
# In the model's: everything before the step and two guesses, no more; its own third token has not been read. The draft's had three guesses, of which two stay.
# </details>
#
# <details><summary>When does a draft lose?</summary>
#
# When 1 + a + ... + a^g is less than g c + v. On a CPU v is clearly above 1, which most formulas leave out.
# </details>
#
# ## Where to read on
#
# - Pope et al., *Efficiently Scaling Transformer Inference* (2022, arXiv 2211.05102), section 2: what bounds decoding. Williams, Waterman and Patterson, *Roofline* (2009): the picture behind the limit. McCalpin's STREAM: the triad.
# - Leviathan, Kalman and Matias, *Fast Inference from Transformers via Speculative Decoding* (2022, arXiv 2211.17192), sections 2.3 and 3; the proof is in appendix A.1. Chen et al., *Accelerating Large Language Model Decoding with Speculative Sampling* (2023, arXiv 2302.01318).
# - Medusa (2024, arXiv 2401.10774) and EAGLE (2024, arXiv 2401.15077): heads and features in place of a draft model. DeepSeek-V3 (2024, arXiv 2412.19437), section 2.2: multi-token prediction.
# - In transformers: `generation/candidate_generator.py`, `_speculative_sampling` and `_assisted_decoding` in `generation/utils.py`, `StaticCache` in `cache_utils.py`.
#
# ## If you want more
#
# Let the number of guesses follow the text: one more after a step in which all were right, one fewer after a rejection. Measure with `runs_needed`, and then by the clock.
#
# Combine both drafts: prompt lookup where there is a match of three tokens, the int8 copy elsewhere. You are right when the text is still the same.
#
# Write `speculative_step` into `generate_with_guesses`, so that it samples with a temperature. You are right when 20,000 first tokens have the frequencies of the model's softmax.
