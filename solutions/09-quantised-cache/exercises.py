"""What the exercises of 09-quantised-cache are checked against: the papers' formulas by brute force (reference.py)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grader.authoring.kit import Case, Config, Draw, Exercise, Tolerance, with_mistakes
from grader.authoring.kit.configs import fields_of

from . import drives
from .reference import (
    RightProduct,
    RightTurboQuant,
    clear_vectors,
    close_group_codes,
    keep,
    near_codes,
    near_group_codes,
    right_bytes,
    right_codebook,
    right_groups,
    right_packed,
    right_product,
    right_product_mean,
    right_rows,
    right_symmetric,
    right_turboquant,
    states,
)

CONFIGS = Path(__file__).parent / "configs"


# Round to nearest


def rounding_case(
    near: Callable[..., Tensor], name: str, shape: Sequence[int], bits: int, along: int | list[int], **more: Any
) -> Case:
    """A case of rounding numbers near codes, as `near` draws them. along: the axes, or the size of the groups, with
    one scale. scale: of the inputs; first: what all numbers of the first vector are.
    """
    scale, first = more.pop("scale", 1.0), more.pop("first", None)

    def draw_args(draw: Draw) -> Sequence[Any]:
        x = near(draw, (draw.size("first", shape[0], shape[0] + 1), *shape[1:]), bits, along, scale)
        if first is not None:
            x[0] = first
        return [x, bits, along]

    return Case(name, draw_args, **more)


symmetric_case, groups_case = partial(rounding_case, near_codes), partial(rounding_case, near_group_codes)

SYMMETRIC = Exercise(
    name="quantised_cache.symmetric",
    solution="quantise",
    reference=right_symmetric,
    drive=drives.symmetric_codes,
    without={"Zeros": "a vector of zeros is a case"},
    function=True,
    differentiable=False,
    points=6,
    cases=[
        symmetric_case("a scale for each vector, 8 bits", (2, 3, 5, 6), 8, -1),
        symmetric_case("a scale for each channel, 7 bits", (3, 1, 7, 4), 7, -2),
        symmetric_case("one scale for all, 3 bits", (4, 5), 3, [0, 1]),
        symmetric_case("2 bits, a scale for each head, along axes 0 and -1", (3, 2, 4), 2, [0, -1]),
        symmetric_case("tiny inputs, 5 bits", (2, 2, 3, 9), 5, -1, scale=1e-24),
        symmetric_case("a vector of zeros, 6 bits", (3, 8), 6, -1, first=0.0),
        symmetric_case("bfloat16, 4 bits", (2, 4, 6), 4, -1, dtype=torch.bfloat16),
    ],
)


GROUPS = Exercise(
    name="quantised_cache.groups",
    solution="quantise_groups",
    reference=right_groups,
    drive=drives.group_codes,
    function=True,
    differentiable=False,
    points=5,
    cases=[
        groups_case("groups of 4 in vectors of 12, 4 bits", (2, 3, 2, 12), 4, 4),
        groups_case("a vector is one group, 8 bits", (3, 4, 6), 8, 6),
        groups_case("1 bit", (2, 15), 1, 5),
        groups_case("tiny inputs, 3 bits", (3, 2, 8), 3, 4, scale=1e-8),
        groups_case("equal numbers, 2 bits", (4, 10), 2, 5, first=0.75),
        rounding_case(close_group_codes, "numbers just above 1,000, 6 bits", (2, 5, 24), 6, 8),
        groups_case("bfloat16, 3 bits", (2, 2, 6), 3, 3, dtype=torch.bfloat16),
    ],
)


# Bits


def some_codes(draw: Draw, shape: Sequence[int], bits: int) -> Tensor:
    """Codes [shape] of every size, int64; the first of a row is the largest that there is."""
    codes = torch.randint(0, 2**bits, tuple(shape), generator=draw.generator)
    codes[..., 0] = 2**bits - 1
    return codes


def pack_case(name: str, shape: Sequence[int], bits: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [some_codes(draw, (draw.size("first", shape[0], shape[0] + 1), *shape[1:]), bits), bits]

    return Case(name, draw_args)


def unpack_case(name: str, shape: Sequence[int], bits: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        codes = some_codes(draw, (draw.size("first", shape[0], shape[0] + 1), *shape[1:]), bits)
        return [right_packed(codes, bits), bits, shape[-1]]

    return Case(name, draw_args, drive=drives.unpacked_codes, right=right_unpacked)


def right_unpacked(packed: Tensor, bits: int, n: int) -> Tensor:
    """The codes of each row, read out of one whole number."""
    rows = [int.from_bytes(bytes(row), "little") for row in packed.reshape(-1, packed.shape[-1]).tolist()]
    codes = [[row >> i * bits & 2**bits - 1 for i in range(n)] for row in rows]
    return torch.tensor(codes).view(*packed.shape[:-1], n)


BITS = Exercise(
    name="quantised_cache.bits",
    solution="BitPacker",
    reference=right_packed,
    drive=drives.packed_bytes,
    function=True,
    differentiable=False,
    points=8,
    without={
        "bits thousandfold": "codes have up to 8 bits",
        "bits hundredfold": "codes have up to 8 bits",
    },
    cases=[
        pack_case("pack 4 bits, rows of 70", (2, 70), 4),
        pack_case("pack 2 bits, a last byte that is not full", (2, 3, 7), 2),
        pack_case("pack 3 bits, across bytes", (2, 2, 8), 3),
        pack_case("pack 1 bit", (4, 13), 1),
        pack_case("pack 6 bits, one axis", (10,), 6),
        pack_case("pack 5 bits, rows of 3, five axes", (2, 1, 2, 1, 3), 5),
        pack_case("pack 7 bits, rows of 9", (2, 9), 7),
        pack_case("pack 8 bits: each code is a byte", (3, 4), 8),
        unpack_case("unpack 8 bits", (3, 5), 8),
        unpack_case("unpack 3 bits, a last byte that is not full", (2, 2, 7), 3),
        unpack_case("unpack 2 bits", (2, 9), 2),
        unpack_case("unpack 7 bits", (2, 4, 2, 6), 7),
        unpack_case("unpack 6 bits, one axis", (9,), 6),
    ],
)


# Rotation and codebook


def rotation_case(name: str, dim: int, seed: int) -> Case:
    """A case of the rotation. The seed 0 stays 0: it is what the case is for."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [draw.size("dim", dim, dim + 3, dim + 5), draw.number("seed", seed, 1, 99) if seed else 0]

    return Case(name, draw_args)


LARGE = {"drive": drives.large_rotation_tested, "right": lambda dim, seed: [*[1] * 5, seed]}

ROTATION = Exercise(
    name="quantised_cache.rotation",
    solution="random_rotation",
    reference=lambda dim, seed: torch.cat([torch.eye(dim), (torch.arange(dim) < 5).float()[None]]),
    drive=drives.rotation_tested,
    function=True,
    differentiable=False,
    points=2,
    cases=[
        rotation_case("64 channels", 64, 3),
        rotation_case("40 channels, the seed 0", 40, 0),
        rotation_case("96 channels", 96, 7),
        Case("what holds for 256 channels", lambda draw: [256, draw.number("seed", 11, 1, 99)], **LARGE),
    ],
)


def bits_word(bits: int) -> str:
    return "1 bit" if bits == 1 else f"{bits} bits"


def codebook_case(bits: int, dim: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [bits, draw.number("dim", dim, *((8, 400) if dim > 8 else (2, 4)))]

    return Case(bits_word(bits) if dim > 8 else f"{dim} channels", draw_args, tolerance=Tolerance(1e-3))


CODEBOOK = Exercise(
    name="quantised_cache.codebook",
    solution="lloyd_max",
    reference=right_codebook,
    drive=drives.levels_of,
    function=True,
    differentiable=False,
    points=4,
    cases=[codebook_case(bits, dim) for bits, dim in ((1, 64), (2, 128), (3, 40), (4, 256), (6, 96), (5, 3))],
)


# TurboQuant


def vectors_case(name: str, shape: Sequence[int], bits: int, product: bool = False, **more: Any) -> Case:
    """A case of TurboQuant: x [shape]. scale: of the inputs; first_zero: the first vector is 0."""
    scale, first_zero = more.pop("scale", 1.0), more.pop("first_zero", False)

    def draw_args(draw: Draw) -> Sequence[Any]:
        first = [draw.size("first", shape[0], shape[0] + 1)] if len(shape) > 1 else []
        x = clear_vectors(draw, (*first, *shape[len(first) :]), bits, scale, product)
        if first_zero:
            x[0] = 0.0
        return [x]

    return Case(name, draw_args, {"head_dim": shape[-1], "bits": bits}, **more)


def widths(build: Mapping[str, Any]) -> dict[str, int]:
    return {"head_dim": build["head_dim"]}


TURBOQUANT = Exercise(
    name="quantised_cache.turboquant",
    solution="TurboQuant",
    reference=RightTurboQuant,
    call=right_turboquant,
    weights=keep,
    drive=drives.encoded_and_decoded,
    differentiable=False,
    points=6,
    sizes=widths,
    uses=["quantised_cache.rotation", "quantised_cache.codebook"],
    cases=[
        vectors_case("3 bits", (2, 3, 24), 3),
        vectors_case("1 bit", (2, 1, 4, 10), 1),
        vectors_case("4 bits, long vectors", (5, 36), 4, scale=30.0),
        vectors_case("tiny inputs, 2 bits", (3, 2, 20), 2, scale=1e-4),
        vectors_case("a vector of zeros", (3, 16), 2, first_zero=True),
        vectors_case("bfloat16", (2, 2, 24), 3, dtype=torch.bfloat16),
    ],
)


def bias_case(bits: int, dim: int, count: int) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        return [bits, draw.number("dim", dim, 64, 200), count]

    return Case(bits_word(bits), draw_args, tolerance=Tolerance(6e-3))


BIAS = Exercise(
    name="quantised_cache.bias",
    solution="mean_product",
    reference=right_product_mean,
    function=True,
    differentiable=False,
    points=4,
    uses=["quantised_cache.turboquant"],
    cases=[bias_case(1, 128, 2000), bias_case(2, 72, 4000), bias_case(3, 96, 3000), bias_case(4, 80, 5000)],
)

PRODUCT = Exercise(
    name="quantised_cache.product",
    solution="TurboQuantProduct",
    reference=RightProduct,
    call=right_product,
    weights=keep,
    drive=drives.signs_and_decoded,
    differentiable=False,
    without={"Zeros": "a vector of zeros is a case"},
    points=6,
    sizes=widths,
    uses=["quantised_cache.turboquant"],
    cases=[
        vectors_case("3 bits: 2 and a sign", (2, 3, 24), 3, product=True),
        vectors_case("2 bits: 1 and a sign", (2, 1, 4, 10), 2, product=True),
        vectors_case("4 bits, long vectors", (5, 36), 4, product=True, scale=30.0),
        vectors_case("tiny inputs", (3, 2, 20), 3, product=True, scale=1e-4),
        vectors_case("a vector of zeros", (3, 16), 2, product=True, first_zero=True),
        vectors_case("one vector alone", (18,), 3, product=True),
        vectors_case("bfloat16", (2, 2, 24), 3, product=True, dtype=torch.bfloat16),
    ],
)


# The cache


ENCODED = {
    "drive": drives.tokens_encoded,
    "right": lambda x, chunks, recent, block: [max(0, x.shape[2] - recent) // block * block],
}
HELD = {"drive": drives.bytes_too_many, "right": lambda *args: [0]}
IN_TURNS = {
    "drive": drives.in_turns,
    "right": lambda x, *args: torch.cat([states(sign * x, *args)[-1] for sign in (1, -1)], dim=2),
}


def rows_case(
    name: str, chunks: list[int], recent: int, block: int, sizes: Sequence[int] = (2, 3, 4), **more: Any
) -> Case:
    """A case of the rows of a cache. sizes: batch, heads, head_dim; one text with one head stays so."""
    B, H, width = sizes

    def draw_args(draw: Draw) -> Sequence[Any]:
        rows = (1, 1) if B == H == 1 else (draw.size("B", B, 1, 3), draw.size("H", H, 5))
        return [draw.normal(*rows, sum(chunks), draw.size("width", width, 6)), chunks, recent, block]

    return Case(name, draw_args, **more)


CACHE = Exercise(
    name="quantised_cache.cache",
    solution="QuantisedRows",
    reference=right_rows,
    drive=drives.all_rows,
    function=True,
    differentiable=False,
    points=8,
    cases=[
        rows_case("a prompt, then two tokens", [5, 1, 1], 0, 1),
        rows_case("the 3 newest stay as they came", [2, 9, 1, 1, 3], 3, 1, (1, 2, 5)),
        rows_case("blocks of 4", [3, 2, 6, 1, 1, 4], 0, 4, (2, 1, 6)),
        rows_case("blocks of 3, the 2 newest as they came", [6, 1, 1, 1, 28, 2, 1], 2, 3),
        rows_case("nothing is old enough", [2, 1, 1], 9, 2, (3, 2, 4)),
        rows_case("two caches in turns", [4, 1, 3], 1, 2, **IN_TURNS),
        rows_case("how many tokens are encoded in all", [6, 1, 1, 5, 1], 2, 3, **ENCODED),
        rows_case(
            "bytes that are held beyond what is needed, bfloat16", [12, 1, 5, 1], 3, 4, **HELD, dtype=torch.bfloat16
        ),
        rows_case(
            "bytes that are held beyond what is needed, one text and one head", [12, 1, 6], 3, 4, (1, 1, 4), **HELD
        ),
        rows_case("bfloat16, all tokens encoded at times", [4, 1, 3], 0, 2, dtype=torch.bfloat16),
    ],
)


# Bytes


SMALL: dict[str, Any] = {
    "hidden_size": 60,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
}
OTHER: dict[str, Any] = {
    "hidden_size": 84,
    "num_hidden_layers": 5,
    "num_attention_heads": 12,
    "num_key_value_heads": 3,
}


def bytes_case(name: str, config: dict[str, Any], context: int, *numbers: float) -> Case:
    """A case of the bytes: a config, the context, and the bits, extras and recent tokens."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        varied = draw.changed(config, num_hidden_layers=(2, 40))
        return [Config(varied), draw.number("context", context, 20, 900), *numbers]

    return Case(name, draw_args)


def real(name: str) -> dict[str, Any]:
    """The fields of a published config that count here."""
    return fields_of(Config.read(CONFIGS / f"{name}.json"), *SMALL)


BYTES = Exercise(
    name="quantised_cache.bytes",
    solution="quantised_bytes",
    reference=right_bytes,
    function=True,
    points=5,
    cases=[
        bytes_case("SmolLM2 135M, 4 bits", real("smollm2-135m"), 700, 4, 4),
        bytes_case("Qwen3 8B, keys of 8 bits and values of 3", real("qwen3-8b"), 500, 8, 3, 2),
        bytes_case("3 bits of 10 numbers: bytes that are not full", SMALL, 33, 3, 5, 1),
        bytes_case("no head_dim in the config, the 32 newest as they came", OTHER, 100, 2, 4, 3, 32),
        bytes_case("a text that is shorter than what stays", SMALL, 21, 2, 3, 1, 1000),
        bytes_case("3.5 bits for keys, 2.5 for values", SMALL, 47, 3.5, 2.5, 2, 6),
    ],
)

EXERCISES: list[Exercise] = with_mistakes(
    __file__, [SYMMETRIC, GROUPS, BITS, ROTATION, CODEBOOK, TURBOQUANT, BIAS, PRODUCT, CACHE, BYTES]
)
