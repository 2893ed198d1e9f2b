"""How caches, fused projections, int8 layers and speculative decoding are used and counted."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.generation import ints_among, taken, tokens_written
from grader.authoring.drives.use import tensor_given

# A cache that can be cut back


def cache_steps(made: Any, kv: Tensor, capacity: int, steps: list[int]) -> list[Any]:
    """What each append of kv [2, B, H, T, head_dim] returned, or how a step was refused (1: ValueError, 2: otherwise).

    steps: n > 0 appends n tokens; n <= 0 cuts back by -n tokens; 100 + n asks crop for n tokens more than there are.
    """
    cache, start = made(kv.shape[1], kv.shape[2], capacity, kv.shape[4], dtype=kv.dtype), 0
    given: list[Any] = []
    for step in steps:
        try:
            if step <= 0 or step > 100:
                cache.crop(cache.length + (step if step <= 0 else step - 100))
                given.append(0)
                continue
            k, v = kv[:, :, :, start : start + step].clone()
            pair = cache.append(k, v)
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"append returned a {type(pair).__name__}; two tensors belong there: keys, values")
            k.zero_(), v.zero_()
            given.append(tuple(pair))
            start += step
        except (NotImplementedError, TypeError):
            raise
        except Exception as error:
            given.append(1 if isinstance(error, ValueError) else 2)
        given.append(int(cache.length))
    return given


def contents_at_each_append(made: Any, kv: Tensor, capacity: int, steps: list[int]) -> Tensor:
    """What the appends returned, as it was when the next step came, one behind the other.

    A token of zeros stands for an append that was refused.
    """
    cache, start = made(kv.shape[1], kv.shape[2], capacity, kv.shape[4], dtype=kv.dtype), 0
    seen, last, views = [], kv[:0], (kv[:0], kv[:0])
    for step in steps:
        try:
            if step <= 0:
                cache.crop(cache.length + step)
                if not torch.equal(torch.cat(views, dim=-1), last):
                    raise RuntimeError("crop overwrote keys or values that it was to forget; it overwrites nothing")
                continue
            k, v = kv[:, :, :, start : start + step].clone()
            start += step
            keys, values = cache.append(k, v)
        except ValueError:
            seen.append(kv.new_zeros(*kv.shape[1:3], 1, 2 * kv.shape[4]))
            continue
        k.zero_(), v.zero_()
        views, last = (keys, values), torch.cat([keys, values], dim=-1)
        seen.append(last)
    return torch.cat(seen, dim=2)


def refusals_and_lengths(made: Any, kv: Tensor, capacity: int, steps: list[int]) -> list[int]:
    """After each step whether it was refused, where it was, and the length."""
    return [item if isinstance(item, int) else 0 for item in cache_steps(made, kv, capacity, steps)]


def copies_made(made: Any, kv: Tensor, capacity: int, steps: list[int]) -> list[int]:
    """For keys and values of each append but the first, whether they lie elsewhere in memory than the first's."""
    first, *others = [item for item in cache_steps(made, kv, capacity, steps) if isinstance(item, tuple)]
    return [int(tensor.data_ptr() != first[i].data_ptr()) for pair in others for i, tensor in enumerate(pair)]


# Fused projections


def linears(weight: Tensor, sizes: list[int]) -> list[Any]:
    """Linear layers whose weights are consecutive rows of a matrix."""
    made = []
    for part in weight.split(sizes):
        layer = nn.Linear(part.shape[1], part.shape[0], bias=False, dtype=part.dtype)
        layer.load_state_dict({"weight": part})
        made.append(layer)
    return made


def fused_results(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
    """What the function gives, and behind it what the layers give themselves."""
    layers = linears(weight.to(x.dtype), sizes)
    function = fuse(layers)
    with torch.no_grad():
        given = tensor_given(function(x), "the function that fuse returned")
        return torch.cat([given, *(layer(x) for layer in layers)], dim=-1)


def fused_after_loading(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
    """What the function gives after it was called, and then other weights were loaded into the layers."""
    layers = linears(torch.zeros_like(weight), sizes)
    function = fuse(layers)
    with torch.no_grad():
        function(x)
    for layer, other in zip(layers, linears(weight, sizes), strict=True):
        if layer.weight.shape == other.weight.shape:
            layer.load_state_dict(other.state_dict())
    with torch.no_grad():
        return tensor_given(function(x), "the function that fuse returned")


def fused_before_others(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
    """As `fused_results`, where other layers of the same sizes are fused before the function is called."""
    layers, others = linears(weight, sizes), linears(weight.cos(), sizes)
    function, _ = fuse(layers), fuse(others)
    with torch.no_grad():
        given = tensor_given(function(x), "the function that fuse returned")
        return torch.cat([given, *(layer(x) for layer in layers)], dim=-1)


def gradients_asked(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> list[int]:
    """Which of the layers' weights get gradients, where every second layer was frozen."""
    layers = linears(weight, sizes)
    for layer in layers[::2]:
        layer.requires_grad_(False)
    fuse(layers)
    return [int(layer.weight.requires_grad) for layer in layers]


def bytes_of_layers(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> list[int]:
    """How many memories the layers' weights have, how many bytes these have, which names a module with them has, and how
    many of the weights that the layers had before are still kept."""
    import gc
    import weakref

    layers, before = linears(weight, sizes), []
    for layer in layers:
        memory = layer.weight.detach().numpy().copy()
        layer.weight = nn.Parameter(torch.from_numpy(memory))
        before.append(weakref.ref(memory))
        del memory
    held = nn.Module()
    for i, layer in enumerate(layers):
        held.add_module(f"part_{i}", layer)
    held.fused = fuse(layers)
    memories = {layer.weight.untyped_storage().data_ptr(): layer.weight.untyped_storage().nbytes() for layer in layers}
    shapes = [size for layer in layers for size in layer.weight.shape]
    if any(old() is not None for old in before):  # walking through all of Python's objects takes a while
        gc.collect()
    kept = sum(old() is not None for old in before)
    return [len(memories), sum(memories.values()), len(held.state_dict()), len(list(held.parameters())), *shapes, kept]


# Attention


class Store:
    """Keys and values of all tokens so far, each [B, KV, T, head_dim], in memory with room for more."""

    def __init__(self) -> None:
        self.length = 0
        self.room = torch.zeros(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[2]
        if not self.length:
            self.room = torch.zeros(2, *k.shape[:2], 600, k.shape[3], dtype=k.dtype)
        self.room[:, :, :, self.length : end] = torch.stack([k, v]).detach()
        self.length = end
        return self.room[0, :, :, :end], self.room[1, :, :, :end]


class Noted(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many operators but views read a weight, and how large the largest tensor is that is made.

    weights: the addresses of the weights' memories.
    """

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights, self.reads, self.largest = weights, 0, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view:
            return result
        tensors = [item for item in args if isinstance(item, Tensor)]
        self.reads += any(tensor.untyped_storage().data_ptr() in self.weights for tensor in tensors)
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in {
            tensor.untyped_storage().data_ptr() for tensor in tensors
        }:
            self.largest = max(self.largest, result.numel())
        return result


def decoded(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> tuple[Tensor, Store]:
    """Attention's results for x [B, T, D] that comes in chunks, and the cache that it used."""
    module.prepare()
    store, seen, start = Store(), [], 0
    for piece in torch.split(x, chunks, dim=1):
        part = table[:, start : start + piece.shape[1]]
        seen.append(tensor_given(module(piece, part, store), "forward"))
        start += piece.shape[1]
    return torch.cat(seen, dim=1), store


def attention_results(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> Tensor:
    """With a cache; without one for no chunks."""
    if chunks:
        return decoded(module, x, table, chunks)[0]
    module.prepare()
    return tensor_given(module(x, table), "forward")


def one_step(module: Any, x: Tensor, table: Tensor) -> tuple[Noted, Store]:
    """What was noted while attention read the last of x's tokens."""
    module.prepare()
    store, before = Store(), x.shape[1] - 1
    with torch.no_grad():
        module(x[:, :before], table[:, :before], store)
        weights = {
            p.untyped_storage().data_ptr() for name, p in module.state_dict(keep_vars=True).items() if "proj" in name
        }
        with Noted(weights) as noted:
            module(x[:, before:], table[:, before:], store)
    return noted, store


def products_of_a_step(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> Tensor:
    """How many operators read a weight while one token is decoded."""
    return torch.tensor(one_step(module, x, table)[0].reads)


def as_large_as_the_keys(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> Tensor:
    """Whether a tensor as large as the keys was made while one token was decoded: 1, or 0."""
    noted, store = one_step(module, x, table)
    return torch.tensor(int(noted.largest >= store.room[0, :, :, : store.length].numel()))


def products_of_the_function(fuse: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> list[int]:
    """How many operators read a weight while the function that fuse returned is called once."""
    layers = linears(weight, sizes)
    function = fuse(layers)
    with torch.no_grad(), Noted({layer.weight.untyped_storage().data_ptr() for layer in layers}) as noted:
        function(x)
    return [noted.reads]


# Int8


def int8_results(made: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What forward gives for x, the bound, and behind them the codes times the scale, in rows of one length."""
    layer = made(weight)
    codes, scale = tensor_given(layer.codes, "codes"), tensor_given(layer.scale, "scale")
    for name, tensor, shape, dtype in (
        ("codes", codes, list(weight.shape), torch.int8),
        ("scale", scale, [len(weight)], torch.float32),
    ):
        if list(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"{name}: {list(tensor.shape)}, {tensor.dtype}; {shape}, {dtype} belongs there")
    given = tensor_given(layer(x), "forward")
    if given.dtype != x.dtype:
        raise ValueError(f"forward gave {given.dtype} for an input of {x.dtype}")
    return given.float()


def int8_codes(made: Any, x: Tensor, weight: Tensor) -> Tensor:
    """The codes, and in a last column the scales."""
    layer = made(weight)
    return torch.cat([layer.codes.float(), 1000 * layer.scale[:, None]], dim=1)


def int8_codes_of_16(made: Any, x: Tensor, weight: Tensor) -> Tensor:
    """As `int8_codes`, of the weight in bfloat16."""
    return int8_codes(made, x, weight.bfloat16())


def int8_bound(made: Any, x: Tensor, weight: Tensor) -> Tensor:
    """The bound."""
    return tensor_given(made(weight).bound(x), "bound").float()


def int8_bytes(made: Any, x: Tensor, weight: Tensor) -> list[int]:
    """The bytes of what the layer's state dict holds, how many tensors that is, how many of them get gradients, and how
    many old weights are kept elsewhere."""
    import gc
    import weakref

    memory = weight.numpy().copy()
    layer, before = made(torch.from_numpy(memory)), weakref.ref(memory)
    del memory
    if before() is not None:  # walking through all of Python's objects takes a while
        gc.collect()
    state = layer.state_dict()
    trained = sum(parameter.requires_grad for parameter in layer.parameters())
    return [sum(tensor.nbytes for tensor in state.values()), len(state), trained, int(before() is not None)]


# Sampling


def tokens_and_accepted(function: Any, p: Tensor, q: Tensor, drafts: Tensor, u: Tensor) -> Tensor:
    """The tokens, and whether each was accepted: [2, N]."""
    given = function(p, q, drafts, u[0], u[1])
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"a {type(given).__name__} was returned; two tensors belong there: tokens, accepted")
    tokens, accepted = given
    return torch.stack([tensor_given(tokens, "tokens").long(), tensor_given(accepted, "accepted").long()])


def tokens_of_large_ids(function: Any, p: Tensor, q: Tensor, drafts: Tensor, u: Tensor) -> Tensor:
    """The same where the vocabulary has 40,000 tokens more in front, whose probability is 0."""
    p, q = (torch.nn.functional.pad(rows, (40_000, 0)) for rows in (p, q))
    return tokens_and_accepted(function, p, q, drafts + 40_000, u)


def frequencies(function: Any, p: Tensor, q: Tensor, count: int) -> Tensor:
    """How often each token comes out of so many draws, for p and q [V], with drafts drawn from q."""
    generator = torch.Generator().manual_seed(count)
    uniform = torch.rand(3, count, generator=generator)
    drafts = (q.cumsum(-1) <= uniform[0][:, None]).sum(-1).clamp(max=len(q) - 1)
    tokens, _ = function(p.expand(count, -1), q.expand(count, -1), drafts, uniform[1], uniform[2])
    return torch.bincount(tokens, minlength=len(p)) / count


def tokens_of_step(function: Any, p: Tensor, q: Tensor, drafts: Tensor, u: Tensor) -> list[int]:
    """The tokens of one step. u: [2 g + 1], the numbers for acceptance and then those to sample with."""
    g = len(drafts)
    given = function(p, q, drafts, u[:g], u[g:])
    if not isinstance(given, list) or not all(isinstance(token, int) for token in given):
        raise TypeError(f"a {type(given).__name__} was returned; a list of Python ints belongs there")
    return given


# Generation with guesses


class Rows:
    """The ids that one layer of a `Rewindable` has read, and for how many there is room."""

    def __init__(self, capacity: int) -> None:
        self.ids: list[int] = []
        self.capacity = capacity

    @property
    def length(self) -> int:
        return len(self.ids)

    def crop(self, length: int) -> None:
        if not 0 <= length <= len(self.ids):
            raise ValueError(f"crop({length}) was asked of a cache with {len(self.ids)} tokens")
        self.ids = self.ids[:length]


class Rewindable(nn.Module):
    """A toy model of two layers with a cache each, which must agree. It notes how it is used.

    pieces: how many ids each call gave; rooms: the capacities asked for; beyond: ids for which there was no room.
    """

    def __init__(self, toy: Any) -> None:
        super().__init__()
        self.toy, self.config = toy, toy.config
        self.pieces: list[int] = []
        self.rooms: list[int] = []
        self.beyond = 0
        self.caches: list[Any] = []

    def new_cache(self, batch: int, capacity: int) -> list[Any]:
        if batch != 1:
            raise ValueError(f"new_cache was asked for room for {batch} texts, and there is one")
        self.rooms.append(capacity)
        self.caches = [Rows(capacity), Rows(capacity)]
        return list(self.caches)

    def forward(self, ids: Tensor, cache: Any = None) -> Tensor:
        if ids.ndim != 2 or len(ids) != 1:
            raise ValueError(f"the model was given ids of shape {list(ids.shape)}; [1, T] belongs there")
        if ids.shape[1] == 0:
            raise ValueError("the model was given no ids")
        self.pieces.append(ids.shape[1])
        new = ids[0].tolist()
        layers = [Rows(1000), Rows(1000)] if cache is None else cache
        position = layers[0].length
        for layer in layers:
            layer.ids = layer.ids + new
            self.beyond += max(0, min(len(new), layer.length - layer.capacity))
        read = layers[1].ids
        if layers[1].length != position + len(new):  # the layers have different lengths: other keys are attended to
            read = layers[0].ids[: position + len(new)][::-1]
        logits: Tensor = self.toy(torch.tensor([read[-self.config.n_positions :]]))
        return logits[:, -len(new) :]


def greedy(toy: Any, ids: list[int], count: int) -> list[int]:
    """What a toy model writes greedily, without a cache."""
    tokens = list(ids)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(toy(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(ids) :]


class Oracle:
    """Guesses of which so many are right, in turns; what follows a wrong one is what the model would write after it.

    right: how many of each step's guesses are right; offered: how many are given at most. asked: how many guesses were
    asked for each time; lengths: of the text each time.
    """

    def __init__(self, toy: Any, right: list[int], offered: int) -> None:
        self.toy, self.right, self.offered = toy, right, offered
        self.asked: list[int] = []
        self.lengths: list[int] = []

    def __call__(self, tokens: list[int], n: int) -> list[int]:
        if not isinstance(tokens, list):
            raise TypeError(f"propose was given a {type(tokens).__name__}; a list of ids belongs there")
        right = self.right[len(self.asked) % len(self.right)]
        self.asked.append(n)
        self.lengths.append(len(tokens))
        guesses: list[int] = []
        for i in range(min(n, self.offered)):
            token = greedy(self.toy, tokens + guesses, 1)[0]
            guesses.append((token + 1) % self.toy.config.vocab_size if i == right else token)
        return guesses


def with_oracle(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> Any:
    """The generator's run: model, oracle, and what is generated. numbers: new tokens, guesses, and how many are offered."""
    new_tokens, guesses, offered = numbers
    oracle = Oracle(toy, right, offered)
    model = Rewindable(toy).eval()
    return model, oracle, generate(model, oracle, ids, new_tokens, guesses, end)


def guessed_text(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """The tokens that are written."""
    return tokens_written(with_oracle(generate, toy, ids, numbers, end, right)[2])


def tokens_counted(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """How many tokens are written."""
    return [len(guessed_text(generate, toy, ids, numbers, end, right))]


def ints_guessed(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """Which of the tokens are Python ints."""
    return ints_among(with_oracle(generate, toy, ids, numbers, end, right)[2])


def pieces_read(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """How many ids each run of the model was given."""
    model, _, given = with_oracle(generate, toy, ids, numbers, end, right)
    taken(given)
    return list(model.pieces)


def runs_before_the_first(
    generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]
) -> list[int]:
    """How many runs of the model there are before the first token comes."""
    model, _, given = with_oracle(generate, toy, ids, numbers, end, right)
    next(iter(given))
    return [len(model.pieces)]


def guesses_asked(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """How many guesses were asked for each time, and for which lengths of the text."""
    _, oracle, given = with_oracle(generate, toy, ids, numbers, end, right)
    taken(given)
    return [*oracle.asked, *oracle.lengths]


def room_for_guesses(generate: Any, toy: Any, ids: Tensor, numbers: list[int], end: Any, right: list[int]) -> list[int]:
    """For how many tokens caches were made, and how many ids found no room."""
    model, _, given = with_oracle(generate, toy, ids, numbers, end, right)
    taken(given)
    return [*model.rooms, model.beyond]


# A draft model


def calls_of_a_draft(toy: Any, ids: Tensor, steps: list[list[int]]) -> list[list[int]]:
    """The texts with which a draft is asked.

    steps: for each call how many of the guesses before hold, and how many are wanted. Below 0: another text comes, of
    which so many tokens are others. 99: the same text again; -100 - n: n tokens fewer; -200 - n: the n-th from its end
    is another.
    """
    vocabulary = toy.config.vocab_size
    texts, text = [], ids[0].tolist()
    guesses: list[int] = []
    for kept, wanted in steps:
        if kept == 99:
            pass
        elif kept < -200:
            text = [(token + 3) % vocabulary if i == len(text) + kept + 200 else token for i, token in enumerate(text)]
        elif kept < -100:
            text = text[: kept + 100]
        else:
            text = text + guesses[:kept] if kept >= 0 else text[:kept] + [(t + 3) % vocabulary for t in text[kept:]]
        if guesses and 0 <= kept < 99:  # the model's own token: the next guess plus one, or any token
            text = [*text, (guesses[kept] + 1) % vocabulary if kept < len(guesses) else (text[-1] + 7) % vocabulary]
        texts.append(text)
        guesses = greedy(toy, text, wanted)
    return texts


def drafts_given(made: Any, toy: Any, ids: Tensor, steps: list[list[int]]) -> tuple[Any, list[list[int]]]:
    """The model behind a draft, and what it guessed at each call."""
    model, texts = Rewindable(toy).eval(), calls_of_a_draft(toy, ids, steps)
    room = max(len(text) + max(wanted, 1) - 1 for text, (_, wanted) in zip(texts, steps, strict=True))
    draft, given = made(model, room), []
    for text, (_, wanted) in zip(texts, steps, strict=True):
        before = list(text)
        guesses = draft(text, wanted)
        if text != before:
            raise ValueError("the list of tokens that the draft was given has changed")
        if not isinstance(guesses, list) or not all(isinstance(token, int) for token in guesses):
            raise TypeError("a list of Python ints belongs there: the guesses")
        given.append(list(guesses))
    return model, given


def guesses_of_a_draft(made: Any, toy: Any, ids: Tensor, steps: list[list[int]]) -> list[int]:
    """All guesses, one call after the other."""
    return [token for guesses in drafts_given(made, toy, ids, steps)[1] for token in guesses]


def rows_of_a_draft(made: Any, toy: Any, ids: Tensor, steps: list[list[int]]) -> list[int]:
    """How many ids the draft's model read in all, and how many caches were made."""
    model, _ = drafts_given(made, toy, ids, steps)
    return [sum(model.pieces), len(model.rooms)]


# Prompt lookup and replay


def looked_up(function: Any, tokens: list[int], n: int, longest: int) -> list[int]:
    """The guesses."""
    before = list(tokens)
    given = function(tokens, n, longest)
    if tokens != before:
        raise ValueError("the list of tokens that was given has changed")
    if not isinstance(given, list):
        raise TypeError(f"a {type(given).__name__} was returned; a list of ids belongs there")
    return [len(given), *given]


def looked_up_after_another(function: Any, tokens: list[int], n: int, longest: int) -> list[int]:
    """The guesses, after those for another text that is a token shorter and begins with the same token."""
    looked_up(function, [tokens[0], *tokens[:1:-1]], n, longest)
    return looked_up(function, tokens, n, longest)


def how_many_looked_up(function: Any, tokens: list[int], n: int, longest: int) -> list[int]:
    """How many guesses come."""
    return looked_up(function, tokens, n, longest)[:1]


class Said:
    """Guesses by a rule of the check's own: what came after the last place of the newest token; `wrong` of every
    three are changed."""

    def __init__(self, offered: int, wrong: int) -> None:
        self.offered, self.wrong, self.calls, self.wanted = offered, wrong, 0, 0
        self.given: list[tuple[list[int], list[int]]] = []  # each list that was given, and what was in it

    def __call__(self, tokens: list[int], n: int) -> list[int]:
        self.calls += 1
        if self.calls > 1100:
            raise RuntimeError("propose was asked for guesses more than 1,100 times, for a text of fewer tokens")
        self.wanted += n
        places = [i for i, token in enumerate(tokens[:-1]) if token == tokens[-1]] if self.offered else []
        guesses = tokens[places[-1] + 1 :][: min(n, self.offered)] if places else []
        given = [token + 1000 if (self.calls + i) % 3 < self.wrong else token for i, token in enumerate(guesses)]
        self.given.append((given, list(given)))
        return given


def runs_counted(function: Any, prompt: list[int], written: list[int], guesses: int, rule: list[int]) -> int:
    """How many runs the function counts, with guesses by a rule."""
    said = Said(*rule)
    count = int(function(said, list(prompt), list(written), guesses))
    if any(given != before for given, before in said.given):
        raise ValueError("runs_needed changed a list of guesses that propose returned; propose may use it again")
    return count


def long_text(written: list[int]) -> list[int]:
    """A text again and again, 990 tokens longer."""
    return (written * 1000)[: len(written) + 990]


def runs_of_long_text(function: Any, prompt: list[int], written: list[int], guesses: int, rule: list[int]) -> int:
    """How many runs the function counts where the text is written again and again."""
    return runs_counted(function, prompt, long_text(written), guesses, rule)


def guesses_wanted(function: Any, prompt: list[int], written: list[int], guesses: int, rule: list[int]) -> list[int]:
    """How often the function asks for guesses, and for how many in all."""
    said = Said(*rule)
    function(said, list(prompt), list(written), guesses)
    return [said.calls, said.wanted]
