"""Weights with which every norm is given small numbers, where its eps counts: a pass over texts hardly has such."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from grader.capstone.model import LatentAttention, LinearAttention, Model, Norm

SHORT = 4e-4  # of a query's or key's channels in a linear layer: its square length is about the eps that is added


class Change(NamedTuple):
    """A tensor of a model becomes `factor` times what it was, plus `shift`."""

    name: str
    factor: float
    shift: float


class _Stage(NamedTuple):
    """What a module is given, or gives, becomes about `size` by changing the tensors that it comes from."""

    path: str
    given: bool
    tensors: Sequence[str]
    size: float


def shrinking(model: Model, ids: Tensor) -> list[Change]:
    """How the weights have to change so that the mean square of what each norm is given for ids [B, T] is about its
    eps, and so it is with the lengths that linear layers divide by.

    Factors are powers of 2, which round nothing.
    """
    model, changes = copy.deepcopy(model), []
    for stage in _stages(model):
        factor = 2.0 ** round(math.log2(stage.size / max(_size(model, ids, stage), 1e-12)))
        for name in stage.tensors:
            norm = model.get_submodule(name.rpartition(".")[0])
            from_1 = isinstance(norm, Norm) and norm.zero_centered and name.endswith("weight")
            changes.append(Change(name, factor, factor - 1 if from_1 else 0.0))
            change(model, changes[-1:])
    return changes


def change(model: nn.Module, changes: Sequence[Change]) -> None:
    """Change a model's weights."""
    held = model.state_dict()
    with torch.no_grad():
        for name, factor, shift in changes:
            held[name].mul_(factor).add_(shift)


def _size(model: Model, ids: Tensor, stage: _Stage) -> float:
    """The root mean square of what is measured."""
    seen: list[Tensor] = []
    module = model.get_submodule(stage.path)
    hook = module.register_forward_hook(lambda module, args, output: seen.append(args[0] if stage.given else output))
    with torch.no_grad():
        model(ids)
    hook.remove()
    return float(seen[0].double().square().mean().sqrt())


def _stages(model: Model) -> Iterator[_Stage]:
    """What is made small, in the order in which a pass comes to it: sums of layers, and what each norm is given."""
    eps = model.model.norm.eps
    assert isinstance(eps, float)
    size = math.sqrt(eps)
    yield _Stage("model.layers.0", True, ["model.embed_tokens.weight"], size / 2)
    for number, layer in enumerate(model.model.layers):
        path = f"model.layers.{number}"
        mixer = f"{path}.{'linear_attn' if layer.linear else 'self_attn'}"
        inner = model.get_submodule(mixer)
        if isinstance(inner, LinearAttention):
            yield _Stage(f"{mixer}.in_proj_qkv", False, [f"{mixer}.in_proj_qkv.weight"], SHORT)
        for norm, projection in _normed(inner):
            yield _Stage(f"{mixer}.{norm}", True, _tensors(model, f"{mixer}.{projection}"), size)
        for part, last, norm in (
            (mixer, ("o_proj", "out_proj"), "post_attention_layernorm"),
            (f"{path}.mlp", ("down_proj",), "post_feedforward_layernorm"),
        ):
            behind = layer.places != "pre"
            yield _Stage(part, False, _tensors(model, part, last), size if behind else size / 2)
            if behind:
                yield _Stage(f"{path}.{norm}", False, _tensors(model, f"{path}.{norm}"), size / 2)


def _normed(mixer: nn.Module) -> Iterator[tuple[str, str]]:
    """The norms within attention, each with the projection that it stands behind."""
    latent = isinstance(mixer, LatentAttention)
    pairs = {"q_a_layernorm": "q_a_proj", "kv_a_layernorm": "kv_a_proj_with_mqa"}
    pairs = pairs if latent else {"q_norm": "q_proj", "k_norm": "k_proj"}
    yield from ((norm, projection) for norm, projection in pairs.items() if hasattr(mixer, norm))


def _tensors(model: nn.Module, path: str, last: Sequence[str] = ()) -> list[str]:
    """The names of the parameters below a path; of modules or tensors with these names alone, where there are some."""
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{path}.")]
    return [name for name in names if not last or set(last) & set(name.split("."))]
