"""How what rounds, packs and keeps is used: as its codes and what they stand for."""

from typing import Any

import torch
from torch import Tensor

from grader.authoring.drives.use import memory_behind, tensor_given


def tensors_given(given: Any, names: list[str]) -> list[Tensor]:
    """The tensors that something returned, once it is sure that there are as many as have names."""
    if not isinstance(given, tuple | list) or len(given) != len(names) or not all(isinstance(t, Tensor) for t in given):
        hint = "; does it end with `return`?" if given is None else ""
        raise TypeError(
            f"a {type(given).__name__} was returned; {len(names)} tensors belong there: {', '.join(names)}{hint}"
        )
    return list(given)


def of_form(tensor: Tensor, name: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    """The tensor, once it is sure that it has this shape and dtype."""
    if list(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: {list(tensor.shape)}, {tensor.dtype}; {shape}, {dtype} belongs there")
    return tensor


def symmetric_codes(quantise: Any, x: Tensor, bits: int, dim: Any) -> Tensor:
    """The codes, what they stand for, and the scale of each: [3, ...]."""
    codes, scale = tensors_given(quantise(x, bits, tuple(dim) if isinstance(dim, list) else dim), ["codes", "scale"])
    of_form(codes, "codes", list(x.shape), torch.int8)
    of_form(scale, "scale", list(x.float().amax(dim=dim, keepdim=True).shape), torch.float32)
    return torch.stack([codes.float(), codes.float() * scale, scale.expand_as(codes)])


def group_codes(quantise_groups: Any, x: Tensor, bits: int, group: int) -> Tensor:
    """The codes, and what they stand for: [2, ..., head_dim]."""
    codes, scale, low = tensors_given(quantise_groups(x, bits, group), ["codes", "scale", "low"])
    of_form(codes, "codes", list(x.shape), torch.uint8)
    for name, tensor in (("scale", scale), ("low", low)):
        of_form(tensor, name, [*x.shape[:-1], x.shape[-1] // group], torch.float32)
    values = codes.float() * scale.repeat_interleave(group, dim=-1) + low.repeat_interleave(group, dim=-1)
    return torch.stack([codes.float(), values])


def with_gaps(numbers: Tensor) -> Tensor:
    """The same numbers in memory with a gap behind each row of the first axis, as a part of a larger tensor has them."""
    return torch.stack([numbers, 1 - numbers], dim=1)[:, 0]


def unchanged(given: Tensor, before: Tensor, method: str, name: str) -> None:
    """Raises ValueError where a method changed the numbers that it was given."""
    if not torch.equal(given, before.to(given.dtype)):
        raise ValueError(f"{method} changed the {name} that it was given, in place; whoever called it still needs them")


def packed_bytes(made: Any, codes: Tensor, bits: int) -> Tensor:
    """The bytes into which codes are packed, as int64.

    Before they are read, the codes are overwritten, and others are packed by the same object.
    """
    packer, codes = made(bits), codes.to(torch.uint8)
    given = with_gaps(codes)
    packed = tensor_given(packer.pack(given), "pack")
    unchanged(given, codes, "pack", "codes")
    given.zero_()
    packer.pack(codes.flip(-1))
    return of_form(packed, "packed", list(packed.shape), torch.uint8).long()


def unpacked_codes(made: Any, packed: Tensor, bits: int, n: int) -> Tensor:
    """The codes that come out of bytes, as int64. Others were packed by the same object before."""
    packer = made(bits)
    packer.pack(torch.zeros(*packed.shape[:-1], n + 3, dtype=torch.uint8))
    given = with_gaps(packed.to(torch.uint8))
    codes = tensor_given(packer.unpack(given, n), "unpack")
    unchanged(given, packed, "unpack", "packed bytes")
    return of_form(codes, "codes", list(codes.shape), torch.uint8).long()


def rotation_with_flags(random_rotation: Any, dim: int, seed: int) -> tuple[Tensor, list[bool]]:
    """Q, and what must hold of it.

    The same seed gives the same matrix, another seed another; numbers that are drawn elsewhere do not change; every
    coordinate goes into all others; no column is near the diagonal (1, 1, ...), as one is for numbers of mean 1/2.
    """
    torch.manual_seed(dim)
    torch.rand(1)  # a program that seeds as before has another state than this
    before = torch.get_rng_state()
    q = of_form(tensor_given(random_rotation(dim, seed), "random_rotation"), "rotation", [dim, dim], torch.float32)
    untouched = bool(torch.equal(before, torch.get_rng_state()))
    again, other = random_rotation(dim, seed), random_rotation(dim, seed + 1)
    spread = float(q.double().pow(4).mean()) * dim**2  # 3 where a row is like a normal vector, dim for a permutation
    leaning = float(q.sum(dim=0).abs().max()) / dim**0.5  # below 0.75 but for one random matrix in 100,000
    return q, [untouched, torch.equal(q, again), not torch.allclose(q, other), 0.9 < spread < 4.5, leaning < 0.75]


def rotation_tested(random_rotation: Any, dim: int, seed: int) -> Tensor:
    """Q Q^T, and below it what else must hold, 1 where it does."""
    q, flags = rotation_with_flags(random_rotation, dim, seed)
    row = torch.zeros(1, dim, dtype=torch.float64)
    row[0, : len(flags)] = torch.tensor(flags, dtype=torch.float64)
    return torch.cat([q.double() @ q.double().T, row]).float()


def large_rotation_tested(random_rotation: Any, dim: int, seed: int) -> list[int]:
    """What must hold, 1 where it does, last but for the seed whether Q Q^T is the identity."""
    q, (untouched, again, other, spread, _) = rotation_with_flags(random_rotation, dim, seed)
    orthogonal = torch.allclose(q.double() @ q.double().T, torch.eye(dim, dtype=torch.float64), atol=1e-4)
    return [*map(int, (untouched, again, other, spread, orthogonal)), seed]


def levels_of(lloyd_max: Any, bits: int, dim: int) -> Tensor:
    """The levels."""
    return of_form(tensor_given(lloyd_max(bits, dim), "lloyd_max"), "levels", [2**bits], torch.float32)


def encoded_and_decoded(module: Any, x: Tensor) -> Tensor:
    """What decode gives, the codes and the norm, side by side. The codes of a vector of zeros do not count.

    Longer vectors are encoded before the codes are decoded.
    """
    codes, norm = tensors_given(module.encode(x), ["codes", "norm"])
    of_form(codes, "codes", list(x.shape), torch.uint8)
    of_form(norm, "norm", [*x.shape[:-1], 1], torch.float32)
    module.encode(2 * x)
    back = of_form(tensor_given(module.decode(codes, norm), "decode"), "decoded", list(x.shape), torch.float32)
    return torch.cat([back, codes.float() * (norm > 0), norm], dim=-1)


def signs_and_decoded(module: Any, x: Tensor) -> Tensor:
    """What decode gives, the codes, the signs, the norm and the length, side by side. The codes of a vector of zeros do
    not count. Longer vectors are encoded before the codes are decoded.
    """
    codes, norm, signs, length = tensors_given(module.encode(x), ["codes", "norm", "signs", "length"])
    for name, tensor in (("codes", codes), ("signs", signs)):
        of_form(tensor, name, list(x.shape), torch.uint8)
    for name, tensor in (("norm", norm), ("length", length)):
        of_form(tensor, name, [*x.shape[:-1], 1], torch.float32)
    module.encode(2 * x)
    back = tensor_given(module.decode(codes, norm, signs, length), "decode")
    of_form(back, "decoded", list(x.shape), torch.float32)
    return torch.cat([back, codes.float() * (norm > 0), signs.float(), norm, length], dim=-1)


class HalvedMeans:
    """A codec that notes how many tokens it is given: the mean of a block's tokens, halved, stands for each of them.

    It gives two quarters of the mean: [B, H, n, d] and [B, H, n, d, 1].
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.seen: list[int] = []

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2] == 0 or x.shape[2] % self.block:
            raise ValueError(f"encode was given {x.shape[2]} tokens; this codec encodes blocks of {self.block}")
        self.seen.append(x.shape[2])
        means = x.float().unflatten(2, (-1, self.block)).mean(dim=3)
        return means / 4, (means / 4)[..., None].clone()

    def decode(self, quarter: Tensor, other: Tensor) -> Tensor:
        return (quarter + other[..., 0]).repeat_interleave(self.block, dim=2)


def filled_rows(made: Any, x: Tensor, chunks: list[int], recent: int, codec: Any) -> tuple[Any, list[Tensor]]:
    """A store of rows after all appends, and what each of them returned."""
    rows, given = made(codec, recent), []
    length = 0
    for chunk in torch.split(x, chunks, dim=2):
        piece = chunk.clone()
        length += piece.shape[2]
        back = tensor_given(rows.append(piece), "append")
        of_form(back, "append", [*x.shape[:2], length, x.shape[3]], x.dtype)
        given.append(back.clone())
        piece.zero_()
    return rows, given


def all_rows(made: Any, x: Tensor, chunks: list[int], recent: int, block: int) -> Tensor:
    """What every append returned, one behind the other."""
    return torch.cat(filled_rows(made, x, chunks, recent, HalvedMeans(block))[1], dim=2)


def tokens_encoded(made: Any, x: Tensor, chunks: list[int], recent: int, block: int) -> list[int]:
    """How many tokens were encoded in all."""
    codec = HalvedMeans(block)
    filled_rows(made, x, chunks, recent, codec)
    return [sum(codec.seen)]


def bytes_too_many(made: Any, x: Tensor, chunks: list[int], recent: int, block: int) -> list[int]:
    """How many bytes are held beyond those of what is encoded and of the newest tokens."""
    rows, _ = filled_rows(made, x, chunks, recent, HalvedMeans(block))
    blocks = max(0, x.shape[2] - recent) // block
    needed = (
        2 * blocks * 4 + (x.shape[2] - blocks * block) * x.element_size()
    )  # the codec gives two float32 for a block
    held = sum(memory_behind(rows).values())
    return [max(0, held - needed * x.shape[0] * x.shape[1] * x.shape[3])]


def in_turns(made: Any, x: Tensor, chunks: list[int], recent: int, block: int) -> Tensor:
    """What two stores with one codec return last, filled in turns, the second with the negatives."""
    codec = HalvedMeans(block)
    stores, last = [made(codec, recent) for _ in range(2)], [x, x]
    for chunk in torch.split(x, chunks, dim=2):
        for i, sign in enumerate((1, -1)):
            last[i] = tensor_given(stores[i].append(sign * chunk), "append").clone()
    return torch.cat(last, dim=2)
