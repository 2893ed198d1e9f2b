"""What a layer is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from grader.atlas.fields import Fact

Shapes = Mapping[str, tuple[int, ...]]


def count(shapes: Shapes) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(prod(shape) for shape in shapes.values())


@dataclass(frozen=True)
class Told:
    """Something that a part does and none of its tensors shows: a card's line, and the line of a figure's panel."""

    label: str
    fact: Fact
    line: str


@dataclass(frozen=True)
class Index:
    """What chooses the tokens that sparse attention looks at. shared: it takes an earlier layer's choice."""

    heads: int
    dim: int
    topk: int
    shared: bool = False


@dataclass(frozen=True)
class Mixer:
    """The part of a layer that mixes tokens.

    kind: ``attention`` (full or in a window), ``latent`` (MLA), ``compressed`` (DeepSeek-V4), or what keeps a state of
    fixed size: ``delta``, ``kda``, ``lightning``, ``mamba``, ``mamba2``, ``conv``. label: its name for people.
    key_dim, value_dim: numbers in one head's key and value. window: how many tokens it sees, its own among them;
    chunked: they are counted from the start of a chunk. rotary: how many of a head's numbers RoPE turns, 0: none.
    gate: what heads' outputs are multiplied by, a number for ``each number`` or ``each head``, by `gate_activation`.
    norm_after_rope: q and k are normed after RoPE has turned them. unscaled: the scores are multiplied by nothing.
    score_cap: what they are softly capped at, before the mask; 0: they are not. q_rank, kv_rank, rope_dim: MLA's.
    k_is_v: the values are the keys' projection. shared: it uses an earlier layer's keys and values. heads of a state:
    `heads` values (or heads) with `kv_heads` keys, of value_dim and key_dim.
    shapes: its parameters. qkv: what one matrix for queries, keys and values is called, empty where each has its own;
    out: the output projection's name. told: what it multiplies or clamps, beside. sources: of the fields that it was
    read from.
    """

    kind: str
    label: str
    shapes: Shapes
    heads: int = 0
    kv_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    window: int | None = None
    chunked: bool = False
    rotary: int = 0
    theta: float | None = None
    unplaced: bool = False  # nothing tells it where a token stands, RoPE being left out
    qk_norm: str = ""
    norm_after_rope: bool = False
    v_norm: bool = False
    gate: str = ""
    gate_activation: str = "sigmoid"
    sinks: bool = False
    unscaled: bool = False
    score_cap: float = 0.0
    bias: str = ""
    q_rank: int = 0
    kv_rank: int = 0
    rope_dim: int = 0
    index: Index | None = None
    k_is_v: bool = False
    shared: bool = False
    conv: int = 0
    doubled: bool = False  # the delta rule's β lies between 0 and 2, not 1
    norm_first: bool = False  # a state's output is normed before its gate, not behind it
    parts_normed: bool = False  # Mamba's dt, B and C, each by an RMSNorm
    rate: int = 0  # how many tokens DeepSeek-V4 compresses into one entry
    qkv: str = ""
    out: str = "o_proj"
    beside: "Mixer | None" = None  # what runs beside it and is added (Falcon-H1)
    proportional: bool = False  # RoPE turns pairs of the whole head, by angles as if all were turned
    told: tuple[Told, ...] = ()
    sources: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def parameters(self) -> int:
        return count(self.shapes) + (self.beside.parameters if self.beside else 0)

    @property
    def has_state(self) -> bool:
        """Whether what it keeps is of one size, however long the text is."""
        return self.kind in STATEFUL


STATEFUL = ("delta", "kda", "lightning", "mamba", "mamba2", "conv")


@dataclass(frozen=True)
class Mlp:
    """The part of a layer that works on each token alone.

    label: its name for people. width: of a dense one. shapes: parameters that every token uses; of one expert:
    `expert`, of which there are `experts`, and each token is sent to `chosen`. limit: gate and up are clamped there; 0:
    nowhere. shared: the width of what runs beside them for every token. empty: experts that do nothing (LongCat).
    groups: the router first picks `chosen_groups` of `groups`. choice_bias: each expert has a bias that counts for the
    choice alone. dense_beside: a dense MLP runs beside the experts too. latent: the width in which experts work, where
    that is not the model's. names: of gate, up and down projection; gate_up: what one matrix for the first two is
    called, empty where each has its own. hashed: the token's id chooses the experts, from a table. router_cap: what the
    router's logits are softly capped at; 0: they are not. told, sources: as a mixer's.
    """

    label: str
    shapes: Shapes
    gated: bool = True
    activation: str = ""
    limit: float = 0.0
    width: int = 0
    bias: bool = False
    expert: Shapes = field(default_factory=dict)
    expert_width: int = 0
    experts: int = 0
    chosen: int = 0
    shared: int = 0
    shared_count: int = 0
    empty: int = 0
    router: str = ""
    groups: int = 0
    chosen_groups: int = 0
    choice_bias: bool = False
    dense_beside: int = 0
    latent: int = 0
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    gate_up: str = ""
    hashed: bool = False
    router_cap: float = 0.0
    told: tuple[Told, ...] = ()
    sources: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def parameters(self) -> int:
        return count(self.shapes) + self.experts * count(self.expert)

    @property
    def active(self) -> int:
        return count(self.shapes) + min(self.chosen, self.experts) * count(self.expert)


@dataclass(frozen=True)
class Layer:
    """One layer. norms: their shapes by where they stand; extra: parameters of other things that it holds."""

    mixer: Mixer | None
    mlp: Mlp | None
    norms: Shapes
    extra: Shapes = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        parts = [part.parameters for part in (self.mixer, self.mlp) if part]
        return sum(parts) + count(self.norms) + count(self.extra)

    @property
    def active(self) -> int:
        """Parameters that one token's work uses."""
        return self.parameters - (self.mlp.parameters - self.mlp.active if self.mlp else 0)
