"""How what keeps a state is used: a text in pieces, each from the state that the one before it left."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import in_chunks, memory_behind, tensor_given


def pair_given(given: Any, who: str, names: list[str]) -> tuple[Tensor, Tensor]:
    """The two tensors that something returned, once it is sure that there are two."""
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(t, Tensor) for t in given):
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(f"{who} returned a {type(given).__name__}; two tensors belong there: {', '.join(names)}{hint}")
    return given[0], given[1]


def of_shape(tensor: Any, name: str, shape: list[int]) -> Tensor:
    """The tensor, once it is sure that it has this shape."""
    given = tensor_given(tensor, name)
    if list(given.shape) != shape:
        raise ValueError(f"{name}: {list(given.shape)}; {shape} belongs there")
    return given


# The convolution and the gates


def conv_once(module: Any, piece: Tensor, state: Any, kernel: int) -> tuple[Tensor, Tensor]:
    """One call of a convolution, its output and state of the right shapes."""
    y, kept = pair_given(module(piece, state), "forward", ["output", "state"])
    of_shape(y, "output", list(piece.shape))
    return y, of_shape(kept, "state", [piece.shape[0], kernel - 1, piece.shape[2]])


def conv_in_pieces(module: Any, x: Tensor, chunks: list[int], kernel: int) -> Tensor:
    """The outputs for x [B, T, C] in pieces, and the last state behind them: [B, T + kernel - 1, C]."""
    state, given = None, []
    for piece in torch.split(x, chunks, dim=1):
        y, state = conv_once(module, piece, state, kernel)
        given.append(y)
    return torch.cat([*given, state if state is not None else x[:, :0]], dim=1)


def conv_twice_from_a_state(module: Any, x: Tensor, chunks: list[int], kernel: int) -> Tensor:
    """As `conv_in_pieces`, where another piece was computed first from each state, which is used again then."""
    state, given = None, []
    for piece in torch.split(x, chunks, dim=1):
        conv_once(module, -piece, state, kernel)
        y, state = conv_once(module, piece, state, kernel)
        given.append(y)
    return torch.cat([*given, state if state is not None else x[:, :0]], dim=1)


def conv_bytes_too_many(module: Any, x: Tensor, chunks: list[int], kernel: int) -> Tensor:
    """How many bytes the memory of the last state has beyond those of its numbers."""
    state = None
    for piece in torch.split(x, chunks, dim=1):
        _, state = conv_once(module, piece.clone(), state, kernel)
    needed = (kernel - 1) * x.shape[0] * x.shape[2] * x.element_size()
    return torch.tensor(max(0, sum(memory_behind(state).values()) - needed))


def both_gates(gates: Any, a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> Tensor:
    """g and beta, side by side: [2, B, T, H]."""
    g, beta = pair_given(gates(a, b, A_log, dt_bias), "gates", ["g", "beta"])
    of_shape(g, "g", list(a.shape))
    of_shape(beta, "beta", list(b.shape))
    return torch.stack([g.float(), beta.float()])


def g_alone(gates: Any, a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> Tensor:
    """g, in float32 whatever it comes in: [B, T, H]."""
    return of_shape(pair_given(gates(a, b, A_log, dt_bias), "gates", ["g", "beta"])[0], "g", list(a.shape)).float()


# A rule that reads and writes a state


def through_rule(
    rule: Any, parts: list[Tensor], fixed: list[Any], chunks: list[int], state: Any, more: list[Any]
) -> tuple[list[Tensor], Tensor]:
    """What a rule gives for parts [B, T, ...] piece by piece, and its last state.

    fixed: arguments that are no part of the text, which come behind the parts. more: what comes behind the state.
    """
    (B, _, H, d_v), d_k = parts[2].shape, parts[1].shape[3]
    kept, given = state, []
    pieces = [torch.split(part, chunks, dim=1) for part in parts] if chunks else [(part,) for part in parts]
    for piece in zip(*pieces, strict=True):
        o, kept = pair_given(rule(*piece, *fixed, kept, *more), "the rule", ["output", "state"])
        given.append(of_shape(o, "output", [B, piece[2].shape[1], H, d_v]))
        if o.dtype != piece[2].dtype:
            raise TypeError(f"the output is {o.dtype}; {piece[2].dtype}, the dtype of v, belongs there")
        of_shape(kept, "state", [B, H, d_k, d_v])
    return given, kept


def ruled(rule: Any, parts: list[Tensor], fixed: list[Any], chunks: list[int], state: Any, more: list[Any]) -> Tensor:
    """What a rule gives in pieces, its last state, and the state that was given, as it is then.

    Side by side on the axis of T: [B, T + d_k (+ d_k), H, d_v].
    """
    given, kept = through_rule(rule, parts, fixed, chunks, state, more)
    behind = [] if state is None else [state.transpose(1, 2)]
    return torch.cat([torch.cat(given, dim=1).float(), kept.transpose(1, 2).float(), *behind], dim=1)


def state_of(
    rule: Any, parts: list[Tensor], fixed: list[Any], chunks: list[int], state: Any, more: list[Any]
) -> Tensor:
    """A rule's last state, and behind its numbers how many bytes each of them has."""
    _, kept = through_rule(rule, parts, fixed, chunks, state, more)
    return torch.cat([kept.flatten().float(), torch.tensor([float(kept.element_size())])])


def delta_in_pieces(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], state: Any = None
) -> Tensor:
    return ruled(rule, [q, k, v, g, beta], [], chunks, state, [])


def delta_in_chunks(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], size: int, state: Any = None
) -> Tensor:
    return ruled(rule, [q, k, v, g, beta], [], chunks, state, [size])


def delta_state(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], state: Any = None
) -> Tensor:
    return state_of(rule, [q, k, v, g, beta], [], chunks, state, [])


def delta_state_in_chunks(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], size: int, state: Any = None
) -> Tensor:
    return state_of(rule, [q, k, v, g, beta], [], chunks, state, [size])


class ResultsComputed(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many numbers each result has; a view is no new result."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and keeping the compiler away imports 800 modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            views = any(isinstance(arg, Tensor) and arg.data_ptr() == result.data_ptr() for arg in args)
            self.sizes += [] if views else [result.numel()]
        return result


def states_too_many(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], size: int, state: Any = None
) -> list[int]:
    """How many results of the size of a state there are beyond 10 for every chunk."""
    numbers = q.shape[0] * q.shape[2] * q.shape[3] * v.shape[3]
    with ResultsComputed() as counted:
        rule(q, k, v, g, beta, state, size)
    return [max(0, counted.sizes.count(numbers) - 10 * -(-q.shape[1] // size))]


def numbers_too_many(
    rule: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: list[int], size: int, state: Any = None
) -> list[int]:
    """How many numbers the largest result has beyond twice those of all chunks' products, [T, size + d_k + d_v]."""
    enough = 2 * q.shape[0] * q.shape[1] * q.shape[2] * (size + q.shape[3] + v.shape[3])
    with ResultsComputed() as counted:
        rule(q, k, v, g, beta, state, size)
    return [max(0, max(counted.sizes) - enough)]


def mamba_in_pieces(
    rule: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    D: Tensor,
    chunks: list[int],
    state: Any = None,
) -> Tensor:
    return ruled(rule, [q, k, v, dt], [A_log, dt_bias, D], chunks, state, [])


def mamba_state(
    rule: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    D: Tensor,
    chunks: list[int],
    state: Any = None,
) -> Tensor:
    return state_of(rule, [q, k, v, dt], [A_log, dt_bias, D], chunks, state, [])


def kimi_in_pieces(
    rule: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    chunks: list[int],
    state: Any = None,
) -> Tensor:
    return ruled(rule, [q, k, v, f, b], [A_log, dt_bias], chunks, state, [])


def kimi_state(
    rule: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    chunks: list[int],
    state: Any = None,
) -> Tensor:
    return state_of(rule, [q, k, v, f, b], [A_log, dt_bias], chunks, state, [])


# Layers


class StatesKept:
    """What a layer keeps of a text: `conv` and `recurrent`, None at first."""

    def __init__(self) -> None:
        self.conv: Any = None
        self.recurrent: Any = None


def net_through(module: Any, x: Tensor, chunks: list[int], mask: Any, cache: StatesKept) -> list[Tensor]:
    """A layer's outputs for x [B, T, D] in pieces, with its states in a cache."""
    given, start = [], 0
    for size in chunks:
        piece = slice(start, start + size)
        masked = None if mask is None else mask[:, piece]
        y = module(x[:, piece], cache) if mask is None else module(x[:, piece], cache, masked)
        given.append(of_shape(y, "output", [x.shape[0], size, x.shape[2]]))
        start += size
    return given


def net_in_pieces(module: Any, x: Tensor, chunks: list[int], mask: Any = None) -> Tensor:
    """With states for pieces, without for none; 0 where a text is padded."""
    if chunks:
        y = torch.cat(net_through(module, x, chunks, mask, StatesKept()), dim=1)
    else:
        y = tensor_given(module(x) if mask is None else module(x, None, mask), "forward")
    return y if mask is None else y * mask[..., None]


def net_states(module: Any, x: Tensor, chunks: list[int], mask: Any = None) -> Tensor:
    """Both states after x in pieces, and for each of them a 1 if its dtype is right."""
    cache = StatesKept()
    net_through(module, x, chunks, mask, cache)
    both = tensor_given(cache.recurrent, "cache.recurrent"), tensor_given(cache.conv, "cache.conv")
    right = torch.tensor([both[0].dtype == torch.float32, both[1].dtype == x.dtype])
    return torch.cat([*(tensor.flatten().float() for tensor in both), right.float()])


def net_after_a_draft(module: Any, x: Tensor, chunks: list[int], mask: Any, draft: Tensor) -> Tensor:
    """The outputs where after each piece a draft came, was rejected, and both states were put back as they were."""
    cache, given, start = StatesKept(), [], 0
    for size in chunks:
        given += net_through(module, x[:, start : start + size], [size], None, cache)
        before = cache.conv, cache.recurrent
        net_through(module, draft, [draft.shape[1]], None, cache)
        cache.conv, cache.recurrent = before
        start += size
    return torch.cat(given, dim=1)


def net_bytes_too_many(module: Any, x: Tensor, chunks: list[int], mask: Any = None) -> Tensor:
    """How many bytes the memory of the states has beyond those of their numbers."""
    cache = StatesKept()
    net_through(module, x, chunks, mask, cache)
    needed = sum(tensor_given(part, "a state").nbytes for part in (cache.conv, cache.recurrent))
    return torch.tensor(max(0, sum(memory_behind(cache).values()) - needed))


class KeysKept:
    """Keys and values of all tokens so far: `append` and `length`."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([k, v])
        self.kept = both if self.kept is None else torch.cat([self.kept, both], dim=3)
        self.length = self.kept.shape[3]
        return self.kept[0], self.kept[1]


def attention_in_pieces(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> Tensor:
    """Attention for x [B, T, D] in pieces, with a cache; for no pieces at once, and without."""
    if not chunks:
        return tensor_given(module(x, table), "forward")
    cache, given, start = KeysKept(), [], 0
    for piece in torch.split(x, chunks, dim=1):
        end = start + piece.shape[1]
        given.append(tensor_given(module(piece, table[:, start:end], cache), "forward"))
        start = end
    return torch.cat(given, dim=1)


def keys_kept(module: Any, x: Tensor, table: Tensor, chunks: list[int]) -> list[int]:
    """How many keys a text leaves in the cache, and the heads and the width of them."""
    cache = KeysKept()
    start = 0
    for piece in torch.split(x, chunks, dim=1):
        module(piece, table[:, start : start + piece.shape[1]], cache)
        start += piece.shape[1]
    return [] if cache.kept is None else list(cache.kept[0].shape)


# The model


def model_in_pieces(module: Any, ids: Tensor, chunks: Any = ()) -> Any:
    """The ids in pieces, with the model's own caches; without pieces all at once."""
    return in_chunks(module, ids, module.new_caches(), list(chunks)) if chunks else module(ids)


def model_in_turns(module: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """Two texts in turns, piece by piece, each with caches of its own."""
    caches = [module.new_caches() for _ in ids]
    given: list[list[Tensor]] = [[] for _ in ids]
    for piece in torch.split(ids, chunks, dim=1):
        for row, (kept, seen) in enumerate(zip(caches, given, strict=True)):
            seen.append(tensor_given(module(piece[row : row + 1], kept), "forward"))
    return torch.cat([torch.cat(seen, dim=1) for seen in given])


def caches_made(module: Any, ids: Tensor, chunks: list[int]) -> Tensor:
    """For each of the model's caches: the numbers in its states for a linear layer, and minus its length for a full one."""
    caches = module.new_caches()
    in_chunks(module, ids, caches, chunks)
    found = []
    for cache in caches:
        states = [t for t in (getattr(cache, name, None) for name in ("conv", "recurrent")) if isinstance(t, Tensor)]
        found.append(-int(cache.length) if hasattr(cache, "length") else sum(state.numel() for state in states))
    return torch.tensor(found)
