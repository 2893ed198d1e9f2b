"""A layer's experts in both layouts: the hub's, with three matrices for each, and transformers 5's two tensors for all.

experts.7.gate_proj.weight  [F, D]      experts.gate_up_proj  [E, 2 F, D]: an expert's gate above its up
experts.7.up_proj.weight    [F, D]
experts.7.down_proj.weight  [D, F]      experts.down_proj     [E, D, F]
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_ONE = re.compile(r"(.*\bexperts)\.(\d+)\.(gate|up|down)_proj\.weight")
FUSED = "experts.gate_up_proj"


def apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with every expert's matrices under names of their own, as checkpoints on the hub have them."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stem, _, last = name.rpartition(".")
        # gpt-oss has its experts in one tensor on the hub too, with a bias beside it.
        in_one = f"{name}_bias" in state
        if in_one or tensor.ndim != 3 or not stem.endswith("experts") or last not in ("gate_up_proj", "down_proj"):
            found[name] = tensor
            continue
        for number, matrix in enumerate(tensor):
            parts = {"gate_proj": matrix.chunk(2)[0], "up_proj": matrix.chunk(2)[1]}
            for part, weight in (parts if last == "gate_up_proj" else {"down_proj": matrix}).items():
                found[f"{stem}.{number}.{part}.weight"] = weight.clone()
    return found


def together(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the experts of each layer in two tensors, as transformers 5 computes with them."""
    found: dict[str, Tensor] = {}
    experts: dict[str, dict[tuple[int, str], Tensor]] = {}
    for name, tensor in state.items():
        if match := _ONE.fullmatch(name):
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = tensor
        else:
            found[name] = tensor
    for stem, matrices in experts.items():
        numbers = sorted({number for number, _ in matrices})
        both = [torch.cat([matrices[number, "gate"], matrices[number, "up"]]) for number in numbers]
        found[f"{stem}.gate_up_proj"] = torch.stack(both)
        found[f"{stem}.down_proj"] = torch.stack([matrices[number, "down"] for number in numbers])
    return found
