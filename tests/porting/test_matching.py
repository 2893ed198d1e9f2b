"""How a program's tensors are matched, told from names and shapes: what is only considered leaves no trace."""

import torch
from torch import Tensor, nn

from grader.porting.own_names.alignment import align
from grader.recordings.tracing import trace_of

D, WIDE = 8, 12


class Reference(nn.Module):
    """A table, a square matrix, and two that widen and narrow: all of nn.Linear, which holds [out, in]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, D)
        self.layers = nn.ModuleList([nn.ModuleDict({"core": nn.Linear(D, D, bias=False),
                                                    "near": nn.Linear(D, WIDE, bias=False),
                                                    "far": nn.Linear(WIDE, D, bias=False)})])  # fmt: skip

    def forward(self, ids: Tensor) -> Tensor:
        x, layer = self.embed(ids), self.layers[0]
        return layer["far"](layer["near"](layer["core"](x)).relu())  # type: ignore[index,no-any-return]


class Layer(nn.Module):
    """The same with raw parameters, which hold [in, out]: no class says so, and of the square one no shape either."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Parameter(torch.zeros(D, D))
        self.one, self.other = nn.Parameter(torch.zeros(D, WIDE)), nn.Parameter(torch.zeros(WIDE, D))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.square @ self.one).relu() @ self.other


class Program(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, D)
        self.layers = nn.ModuleList([Layer()])

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers[0](self.embed(ids))  # type: ignore[no-any-return]


def test_square_matrices_lie_as_the_matched_ones_do_whatever_was_considered_on_the_way() -> None:
    """`one` has the shape of `near` transposed, and of `far` as it is: only the first of these pairs is matched."""
    trace = trace_of(Reference(), torch.arange(10).reshape(2, 5))
    alignment = align(Program(), [trace])
    assert alignment.complete
    words = {name: (recipe.sources, recipe.words()) for name, recipe in alignment.recipes.items()}
    assert words["layers.0.one"] == (("layers.0.near.weight",), "transposed")
    assert words["layers.0.other"] == (("layers.0.far.weight",), "transposed")
    assert words["layers.0.square"] == (("layers.0.core.weight",), "transposed")
    (question,) = [q for q in alignment.questions if q.about == "rows or columns"]
    assert [answer.words for answer in question.answers] == ["transposed", "as it is"]
