"""What tests/lessons/test_every_lesson.py asks of quantised caches: other right programs and wrong ones, random configs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from grader import Config
from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Prompt, Rerun, Told, Trained
from grader.authoring.kit.solved import lesson_of

from . import exercises

LESSON = lesson_of(__file__)

MISTAKES = 116
VARIES = ["quantised_cache.symmetric", "quantised_cache.turboquant", "quantised_cache.cache"]
NO_MODEL = "its model is lesson 03's, which is checked there"
COUNTS = "it is about whole numbers"
WITHOUT = {
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES"), NO_MODEL),
    "bfloat16": {
        "quantised_cache.bits": COUNTS,
        "quantised_cache.bytes": COUNTS,
        "quantised_cache.rotation": "its matrix is drawn in float32",
        "quantised_cache.codebook": "its levels are computed from numbers of Python's",
        "quantised_cache.bias": "it is a Python float",
    },
    "CONFIG_SHA256": "its configs have the fields that count",
}


# Random configs


CONFIGS = st.fixed_dictionaries(
    {
        "bits": st.integers(1, 8),
        "width": st.integers(2, 12),
        "group": st.integers(2, 6),
        "recent": st.integers(0, 6),
        "block": st.integers(1, 4),
        "kv_heads": st.integers(1, 5),
    }
)


def of_symmetric(config: dict[str, Any], n: Numbers) -> Case:
    shape = (n.batch, 2, n.length, config["width"])
    dims: list[int | list[int]] = [-1, -2, [0, 1, 2, 3], [2, 3]]
    dim = dims[n.seed % 4]
    return exercises.symmetric_case(str(n.seed), shape, max(2, config["bits"]), dim, scale=n.scale)


def of_groups(config: dict[str, Any], n: Numbers) -> Case:
    shape = (n.batch, n.length, config["group"] * config["kv_heads"])
    return exercises.groups_case(str(n.seed), shape, config["bits"], config["group"], scale=n.scale)


def of_bits(config: dict[str, Any], n: Numbers) -> Case:
    make = exercises.pack_case if n.seed % 2 else exercises.unpack_case
    return make(str(n.seed), (n.batch, n.length, config["width"]), config["bits"])


def of_rotation(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.rotation_case(str(n.seed), 30 + 5 * config["width"], n.seed % 1000)


def of_codebook(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.codebook_case(1 + config["bits"] % 4, 30 * config["width"])


def of_turboquant(config: dict[str, Any], n: Numbers) -> Case:
    shape = (n.batch, n.length, 8 + config["width"])
    return exercises.vectors_case(str(n.seed), shape, 1 + config["bits"] % 4, scale=n.scale)


def of_bias(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.bias_case(1 + config["bits"] % 4, 64 + 8 * config["width"], 4000)


def of_product(config: dict[str, Any], n: Numbers) -> Case:
    shape = (n.batch, n.length, 8 + config["width"])
    return exercises.vectors_case(str(n.seed), shape, 2 + config["bits"] % 3, product=True, scale=n.scale)


def of_cache(config: dict[str, Any], n: Numbers) -> Case:
    sizes = (n.batch, config["kv_heads"], config["width"])
    return exercises.rows_case(str(n.seed), n.chunks, config["recent"], config["block"], sizes)


def of_bytes(config: dict[str, Any], n: Numbers) -> Case:
    made = exercises.SMALL | {"head_dim": config["width"], "num_key_value_heads": config["kv_heads"]}
    numbers = (config["bits"], 1 + n.seed % 8, config["group"], config["recent"])
    return exercises.bytes_case(str(n.seed), made, n.length, *numbers)


RANDOM = {
    "quantised_cache.symmetric": of_symmetric,
    "quantised_cache.groups": of_groups,
    "quantised_cache.bits": of_bits,
    "quantised_cache.rotation": of_rotation,
    "quantised_cache.codebook": of_codebook,
    "quantised_cache.turboquant": of_turboquant,
    "quantised_cache.bias": of_bias,
    "quantised_cache.product": of_product,
    "quantised_cache.cache": of_cache,
    "quantised_cache.bytes": of_bytes,
}


# Other right programs


def symmetric_by_inverse(x: Tensor, bits: int, dim: Any) -> tuple[Tensor, Tensor]:
    """Multiplied by the inverse of the scale, and clamped, as kernels do it."""
    most = 2 ** (bits - 1) - 1
    low, high = x.float().amin(dim, keepdim=True), x.float().amax(dim, keepdim=True)
    largest = torch.maximum(-low, high)
    inverse = torch.where(largest > 0, most / largest, 0.0)
    return torch.clamp(torch.round(x * inverse), -most, most).char(), largest / most


def symmetric_from_halves(x: Tensor, bits: int, dim: Any) -> tuple[Tensor, Tensor]:
    """Rounded by adding a half and going down, in float64."""
    scale = x.double().abs().amax(dim=dim, keepdim=True) / ((1 << bits - 1) - 1)
    codes = torch.where(scale > 0, torch.floor(x.double() / scale + 0.5), 0.0)
    return codes.to(torch.int8), scale.float()


def groups_by_reshape(x: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    pieces = x.float().reshape(*x.shape[:-1], x.shape[-1] // group, group)
    low, most = pieces.min(dim=-1).values, 2.0**bits - 1
    scale = (pieces.max(dim=-1).values - low) / most
    shifted = pieces - low[..., None]
    codes = torch.where(scale[..., None] > 0, shifted / scale[..., None], 0.0)
    return codes.add(0.5).floor().reshape(x.shape).byte(), scale, low


def groups_one_by_one(x: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    codes, scales, lows = [], [], []
    for piece in x.double().split(group, dim=-1):
        low, high = piece.amin(-1, keepdim=True), piece.amax(-1, keepdim=True)
        steps = (piece - low) * (2**bits - 1) / (high - low)
        codes.append(steps.nan_to_num(0.0).round().to(torch.uint8))
        scales.append((high - low) / (2**bits - 1))
        lows.append(low)
    return torch.cat(codes, -1), torch.cat(scales, -1).float(), torch.cat(lows, -1).float()


class PackerOfNumpy:
    """numpy packs bits, the lowest first."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def pack(self, codes: Tensor) -> Tensor:
        row = np.unpackbits(codes.numpy()[..., None], axis=-1, count=self.bits, bitorder="little")
        return torch.from_numpy(np.packbits(row.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little"))

    def unpack(self, packed: Tensor, n: int) -> Tensor:
        row = np.unpackbits(packed.numpy(), axis=-1, count=n * self.bits, bitorder="little")
        row = row.reshape(*packed.shape[:-1], n, self.bits)
        return torch.from_numpy(np.packbits(row, axis=-1, bitorder="little")[..., 0])


class PackerByCodes(PackerOfNumpy):
    """Code by code into one byte or two."""

    def pack(self, codes: Tensor) -> Tensor:
        n = codes.shape[-1]
        wide = torch.zeros(*codes.shape[:-1], (n * self.bits + 7) // 8 + 1, dtype=torch.int64)
        for i in range(n):
            byte, shift = divmod(i * self.bits, 8)
            both = codes[..., i].long() << shift
            wide[..., byte] |= both & 255
            wide[..., byte + 1] |= both >> 8
        return wide[..., :-1].to(torch.uint8)

    def unpack(self, packed: Tensor, n: int) -> Tensor:
        wide = torch.nn.functional.pad(packed.long(), (0, 1))
        start = torch.arange(n) * self.bits
        both = wide[..., start // 8] + 256 * wide[..., start // 8 + 1]
        return (both // 2 ** (start % 8) % 2**self.bits).to(torch.uint8)


def rotation_by_torch(dim: int, seed: int) -> Tensor:
    made = torch.empty(dim, dim)
    return nn.init.orthogonal_(made, generator=torch.Generator().manual_seed(seed))


def rotation_from_singular_vectors(dim: int, seed: int) -> Tensor:
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((dim, dim)))
    return torch.linalg.svd(drawn).U.float()


def codebook_in_torch(bits: int, dim: int) -> Tensor:
    """Tensors in place of lists, and the variance in the formulas from the start."""
    sigma = dim**-0.5
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), sigma, validate_args=False)
    levels = normal.icdf((torch.arange(2**bits) + 0.5).double() / 2**bits)
    end = torch.tensor([math.inf], dtype=torch.float64)
    for _ in range(4000):
        edges = torch.cat([-end, (levels[1:] + levels[:-1]) / 2, end])
        density = normal.log_prob(edges).exp() * sigma**2
        levels = (density[:-1] - density[1:]) / normal.cdf(edges).diff()
    return levels.float()


def codebook_of_one_half(bits: int, dim: int) -> Tensor:
    """Only the levels above 0: the others are their negatives."""
    n = 2 ** (bits - 1)
    levels = torch.linspace(0.1, 2.5, n, dtype=torch.float64)
    ends = torch.tensor([0.0, 12.0], dtype=torch.float64)
    for _ in range(5000):
        edges = torch.cat([ends[:1], (levels[1:] + levels[:-1]) / 2, ends[1:]])
        moments = (-(edges**2) / 2).exp().diff().neg() * math.sqrt(2 / math.pi)
        levels = moments / torch.erf(edges / math.sqrt(2)).diff()
    return (torch.cat([-levels.flip(0), levels]) / math.sqrt(dim)).float()


class OtherTurboQuant(nn.Module):
    """Each number is compared with every level; unit vectors are rotated by a linear layer's function."""

    less = 0
    codebook: Tensor
    rotation: Tensor

    def __init__(self, head_dim: int, bits: int, seed: int = 5) -> None:
        super().__init__()
        own = LESSON.solutions
        self.register_buffer("codebook", own["lloyd_max"](bits - self.less, head_dim))
        self.register_buffer("rotation", own["random_rotation"](head_dim, seed))

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.float()
        unit = nn.functional.normalize(x, dim=-1, eps=1e-20)
        turned = nn.functional.linear(unit, self.rotation)
        codes = (turned.unsqueeze(-1) - self.codebook).square().argmin(dim=-1).byte()
        return codes, x.square().sum(-1, keepdim=True).sqrt()

    def decode(self, codes: Tensor, norm: Tensor) -> Tensor:
        levels = torch.take(self.codebook, codes.long())
        return torch.einsum("...i,ij->...j", levels * norm, self.rotation)


class TurboQuantByCounting(OtherTurboQuant):
    """A code is how many boundaries lie below; rotated before it is divided."""

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        turned = torch.einsum("ij,...j->...i", self.rotation.double(), x.double())
        norm = torch.linalg.vector_norm(turned, dim=-1, keepdim=True)
        edges = (self.codebook[1:].double() + self.codebook[:-1].double()) / 2
        codes = (turned[..., None] > edges * norm[..., None]).sum(dim=-1)
        return codes.to(torch.uint8), norm.float()


def product_by_einsum(bits: int, dim: int, count: int) -> float:
    quantiser = LESSON.solutions["TurboQuant"](dim, bits, 3)
    x = torch.randn(count, dim, generator=torch.Generator().manual_seed(8))
    return float(torch.einsum("nd,nd->", x, quantiser.decode(*quantiser.encode(x)))) / count


def product_one_by_one(bits: int, dim: int, count: int) -> float:
    quantiser, generator = LESSON.solutions["TurboQuant"](dim, bits), torch.Generator().manual_seed(4)
    total = 0.0
    for _ in range(count):
        x = torch.randn(dim, generator=generator)
        total += (x @ quantiser.decode(*quantiser.encode(x))).item()
    return total / count


class OtherProduct(OtherTurboQuant):
    """Without inheritance of the lesson's: signs of 1 and -1 first, and a mean in place of a sum."""

    less = 1
    projection: Tensor

    def __init__(self, head_dim: int, bits: int) -> None:
        super().__init__(head_dim, bits)
        self.register_buffer("projection", torch.randn(head_dim, head_dim))

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        codes, norm = super().encode(x)
        rest = x - OtherTurboQuant.decode(self, codes, norm)
        signs = torch.sign(nn.functional.linear(rest, self.projection)).clamp(min=0).byte()
        return codes, norm, signs, torch.linalg.vector_norm(rest, dim=-1, keepdim=True)

    def decode(self, codes: Tensor, norm: Tensor, *kept: Tensor) -> Tensor:
        signs, length = kept
        rows = torch.where(signs[..., None] > 0, self.projection, -self.projection)  # [..., d, d]
        return super().decode(codes, norm) + length * rows.mean(dim=-2) * (math.pi / 2) ** 0.5


class ProductByPositive(OtherProduct):
    """Twice the rows with a positive sign, less all rows."""

    def decode(self, codes: Tensor, norm: Tensor, *kept: Tensor) -> Tensor:
        signs, length = kept
        half = signs.float() @ self.projection
        guess = (2 * half - self.projection.sum(dim=0)) * length
        return OtherTurboQuant.decode(self, codes, norm) + guess * (math.pi / 2) ** 0.5 / len(self.projection)


class RowsInPieces:
    """What each append encoded by itself in a list; the newest tokens one by one."""

    def __init__(self, codec: Any, recent: int = 0) -> None:
        self.codec, self.recent = codec, recent
        self.pieces: list[tuple[Tensor, ...]] = []
        self.newest: list[Tensor] = []

    def append(self, x: Tensor) -> Tensor:
        self.newest += [token.clone() for token in x.split(1, dim=2)]
        ready = (len(self.newest) - self.recent) // self.codec.block * self.codec.block
        if ready > 0:
            self.pieces.append(self.codec.encode(torch.cat(self.newest[:ready], dim=2)))
            self.newest = self.newest[ready:]
        decoded = [self.codec.decode(*piece).to(x.dtype) for piece in self.pieces]
        return torch.cat([*decoded, *self.newest], dim=2)


class RowsByLength(RowsInPieces):
    """How many tokens are encoded is told from the length; the newest are one tensor."""

    length = 0

    def append(self, x: Tensor) -> Tensor:
        done = self.length - (self.newest[0].shape[2] if self.newest else 0)
        self.length += x.shape[2]
        whole = torch.cat([*self.newest, x], dim=2)
        now = max(done, (self.length - self.recent) // self.codec.block * self.codec.block)
        old, new = whole.split([now - done, self.length - now], dim=2)
        if now > done:
            self.pieces.append(self.codec.encode(old))
        self.newest = [new.contiguous().clone()]
        return torch.cat([*(self.codec.decode(*piece).type_as(x) for piece in self.pieces), new], dim=2)


def bytes_by_vectors(
    config: Config, context: int, key_bits: float, value_bits: float, extras: int = 1, recent: int = 0
) -> int:
    width = LESSON.solutions["head_dim"](config)
    new = min(context, recent)
    sizes = [int(width * bits + 7) // 8 + 2 * extras for bits in (key_bits, value_bits)]
    vectors = config.num_key_value_heads * config.num_hidden_layers
    return vectors * ((context - new) * sum(sizes) + new * width * 4)


def bytes_of_tensors(
    config: Config, context: int, key_bits: float, value_bits: float, extras: int = 1, recent: int = 0
) -> int:
    """Counted in tensors on a device that holds no numbers."""
    width, old = config.get("head_dim") or config.hidden_size // config.num_attention_heads, max(context - recent, 0)
    shape = (config.num_hidden_layers, config.num_key_value_heads)
    held = [torch.empty(*shape, 2, context - old, width, dtype=torch.bfloat16, device="meta")]
    for bits in (key_bits, value_bits):
        held.append(torch.empty(*shape, old, int(-(-width * bits // 8)), dtype=torch.uint8, device="meta"))
        held.append(torch.empty(*shape, old, extras, dtype=torch.float16, device="meta"))
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


RIGHT: dict[str, tuple[Callable[..., Any], ...]] = {
    "quantised_cache.symmetric": (symmetric_by_inverse, symmetric_from_halves),
    "quantised_cache.groups": (groups_by_reshape, groups_one_by_one),
    "quantised_cache.bits": (PackerOfNumpy, PackerByCodes),
    "quantised_cache.rotation": (rotation_by_torch, rotation_from_singular_vectors),
    "quantised_cache.codebook": (codebook_in_torch, codebook_of_one_half),
    "quantised_cache.turboquant": (OtherTurboQuant, TurboQuantByCounting),
    "quantised_cache.bias": (product_by_einsum, product_one_by_one),
    "quantised_cache.product": (OtherProduct, ProductByPositive),
    "quantised_cache.cache": (RowsInPieces, RowsByLength),
    "quantised_cache.bytes": (bytes_by_vectors, bytes_of_tensors),
}


# Programs that are right only by chance


def symmetric_of_vectors(x: Tensor, bits: int, dim: Any) -> tuple[Tensor, Tensor]:
    codes, scale = symmetric_by_inverse(x, bits, -1)
    shape = x.amax(dim, keepdim=True).shape
    return codes, scale if scale.shape == shape else scale.amax(dim, keepdim=True)


class PackerWithinBytes(PackerOfNumpy):
    """As many codes in a byte as fit whole."""

    def pack(self, codes: Tensor) -> Tensor:
        per_byte = 8 // self.bits
        codes = torch.nn.functional.pad(codes.long(), (0, -codes.shape[-1] % per_byte)).unflatten(-1, (-1, per_byte))
        return (codes << self.bits * torch.arange(per_byte)).sum(-1).to(torch.uint8)


class TurboQuantOfUnitVectors(OtherTurboQuant):
    def decode(self, codes: Tensor, norm: Tensor) -> Tensor:
        return super().decode(codes, torch.ones_like(norm))


class RowsWithoutBlocks(RowsInPieces):
    """Encodes tokens block by block only while all come at once."""

    def append(self, x: Tensor) -> Tensor:
        given = super().append(x)
        return x if x.shape[2] == given.shape[2] and self.recent else given


BY_CHANCE = {
    "quantised_cache.symmetric": [symmetric_of_vectors],
    "quantised_cache.bits": [PackerWithinBytes],
    "quantised_cache.turboquant": [TurboQuantOfUnitVectors],
    "quantised_cache.cache": [RowsWithoutBlocks],
}


# What comes back in the wrong form is told in plain words, and a wrong part is named where it is used


def codes_as_floats(x: Tensor, bits: int, dim: Any) -> tuple[Tensor, Tensor]:
    codes, scale = symmetric_by_inverse(x, bits, dim)
    return codes.float(), scale


def only_the_codes(x: Tensor, bits: int, group: int) -> Tensor:
    return groups_by_reshape(x, bits, group)[0]


TOLD = [
    Told("quantised_cache.symmetric", codes_as_floats, ["codes: ", "torch.int8 belongs there"]),
    Told("quantised_cache.groups", only_the_codes, ["3 tensors belong there: codes, scale, low"]),
    Told(
        "quantised_cache.product",
        Change("quantised_cache.turboquant", "return turned @ self.rotation * norm", "return turned * norm"),
        ["Mend `quantised_cache.turboquant` first"],
    ),
    Told(
        "quantised_cache.bias",
        Change("quantised_cache.turboquant", "return turned @ self.rotation * norm", "return turned @ self.rotation"),
        ["Mend `quantised_cache.turboquant` first"],
    ),
]


# Trained weights: as they come, and in 8 bits


class EightBits(LESSON.solutions["CachedLM"]):  # type: ignore[misc, name-defined]
    """The lesson's model, whose caches hold 8 bits a number."""

    def make_cache(self) -> Any:
        own = LESSON.solutions
        codec = own["PerGroup"](own["head_dim"](self.config), 8)
        return own["QuantisedCache"](codec, codec)


PROMPTS = [Prompt(text, 64) for text in ("It is a truth universally acknowledged", "Anne", "Captain Wentworth")]
TRAINED = [
    Trained("austen-qwen3", "CachedLM", "generate", PROMPTS),
    Trained("austen-qwen3", "EightBits", "generate", PROMPTS[:1]),
]
RERUNS = {
    "with other rounding, bits, rotations, codebooks and caches": Rerun(
        {
            "quantised_cache.symmetric": symmetric_by_inverse,
            "quantised_cache.groups": groups_by_reshape,
            "quantised_cache.bits": PackerOfNumpy,
            "quantised_cache.rotation": rotation_by_torch,
            "quantised_cache.codebook": codebook_in_torch,
            "quantised_cache.turboquant": OtherTurboQuant,
            "quantised_cache.bias": product_by_einsum,
            "quantised_cache.product": ProductByPositive,
            "quantised_cache.cache": RowsInPieces,
            "quantised_cache.bytes": bytes_by_vectors,
        },
        shows=["6,144 packed", "4.25 bits a number", "1 bits: 0.64"],
        changes={".ids[:256]]": ".ids[:48]]", "4000, 128": "400, 128", "range(5)": "range(1)"},
    ),
}
