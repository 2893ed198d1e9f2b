"""What the readers of a layer's parts share: its widths, its biases, and the shapes of a linear layer."""

from grader.atlas.fields import Fields

Shape = tuple[int, ...]


def says(f: Fields, rule: str) -> bool:
    """What a line of families.toml says of a bias: yes, no, or the value of a field."""
    return rule == "yes" or (rule != "no" and f.truth(rule))


def linear(name: str, out: int, inner: int, bias: bool = False) -> dict[str, Shape]:
    """The shapes of one nn.Linear."""
    return {name: (out, inner), **({f"{name}.bias": (out,)} if bias else {})}


WIDTHS = ("hidden_size", "n_embd", "d_model")


def width(f: Fields) -> int:
    """The width of the residual stream; 0 for a shape that says nothing of it."""
    return f.number(*WIDTHS, least=f.least_width)


def query_heads(f: Fields, layer: int) -> int:
    """How many query heads a layer has."""
    own = f.get("num_attention_heads_per_layer")
    return int(own[layer]) if own else f.needed("num_attention_heads", "n_head")
