"""Every module's input and output in one forward pass of a whole model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.calls import Call


@dataclass(frozen=True)
class Layout:
    """Other names for a trace's weights, which may also be cut into other tensors.

    paths: the modules whose path differs along with them, and their path here.
    """

    weights: Mapping[str, Tensor]
    paths: Mapping[str, str]


@dataclass(frozen=True)
class Trace:
    """Every module's input and output in one forward pass of a reference model, under the learner's names.

    layouts: other names that the learner's model may use. prefix: what all names but the head's begin with,
    without the dot; a learner's model may do without it. floor: as a call's, of the output.
    derived: the same of a model whose head_dim is hidden size / heads, where the published model's is, too.
    """

    build: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    args: tuple[Any, ...]
    calls: tuple[Call, ...]
    output: Tensor
    dtype: torch.dtype
    layouts: tuple[Layout, ...] = ()
    prefix: str = ""
    floor: float = 0.0
    derived: "Trace | None" = None
