"""What is right in 10-linear-attention: transformers' Qwen3.5, and brute force for Mamba-2, KDA and what is recalled.

test_linear_attention.py holds both forms of transformers' delta rule to `delta_by_hand`, and the brute force of the
other two to transformers' Nemotron-H and Kimi Linear.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen

from grader.authoring.kit import Config, Draw, hf, weights_around_0


def reference_config(config: Mapping[str, Any]) -> Any:
    return hf.config(Qwen3_5TextConfig, config)


# The convolution, gates and the norm


def build_conv(channels: int, kernel: int) -> nn.Module:
    """A module with the weight alone, as a layer's `conv1d` has it."""
    made = nn.Module()
    made.weight = nn.Parameter(torch.zeros(channels, 1, kernel))
    return made


def call_conv(module: Any, x: Tensor, chunks: Any, *_: Any) -> Tensor:
    """Outputs of the whole text, and behind them the last inputs of its convolution: [B, T + kernel - 1, C]."""
    weight = module.weight.squeeze(1)
    output = qwen.causal_conv1d_fn(x.mT, weight, activation="silu").mT
    return torch.cat([output, last_inputs(x, weight.shape[-1])], dim=1)


def last_inputs(x: Tensor, kernel: int) -> Tensor:
    """The kernel - 1 last inputs of x [B, T, C], zeros where there are fewer."""
    return F.pad(x, (0, 0, kernel - 1, 0))[:, x.shape[1] :]


def right_gates(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> Tensor:
    """g and beta as transformers' layer has them, side by side: [2, B, T, H]."""
    return torch.stack([-A_log.float().exp() * F.softplus(a.float() + dt_bias.float()), b.sigmoid().float()])


# The delta rule


def right_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: Any, state: Any = None) -> Tensor:
    """transformers' form of one token after the other: what it gives, the state, and the state that was given."""
    return with_states(qwen.torch_recurrent_gated_delta_rule, (q, k, v, g, beta), state)


def right_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: Any, size: int, state: Any = None
) -> Tensor:
    """As `right_rule`, in transformers' chunks of `size` tokens."""

    def rule(*args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = qwen.torch_chunk_gated_delta_rule(*args, chunk_size=size, **more)
        return found

    return with_states(rule, (q, k, v, g, beta), state)


def with_states(rule: Any, parts: Sequence[Tensor], state: Tensor | None) -> Tensor:
    more = {"initial_state": state, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
    output, last = rule(*parts, **more)
    given = [] if state is None else [state.transpose(1, 2)]
    return torch.cat([output.float(), last.transpose(1, 2), *given], dim=1)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=-1, keepdim=True) + 1e-6).sqrt()


def delta_by_hand(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gated delta rule in float64, as the product of matrices that arXiv 2412.06464 writes (equation 10).

    q, k: [B, T, H, d_k], v: [B, T, H, d_v], decay: [B, T, H, d_k] or [B, T, H, 1], beta: [B, T, H] -> what is read,
    [B, T, H, d_v], and the last state, [B, H, d_k, d_v].
    """
    q, k, v, decay, beta = (t.double() for t in (q, k, v, decay, beta))
    B, T, H, width = k.shape
    q, k = unit(q) / width**0.5, unit(k)
    kept = torch.zeros(B, H, width, v.shape[-1]).double() if state is None else state.double()
    read = torch.zeros_like(v)
    for t in range(T):
        forgets = torch.diag_embed(decay[:, t].expand(B, H, width))
        key, weight = k[:, t, :, :, None], beta[:, t, :, None, None]
        kept = (torch.eye(width).double() - weight * key @ key.mT) @ forgets @ kept + weight * key @ v[:, t, :, None]
        read[:, t] = (q[:, t, :, None] @ kept)[:, :, 0]
    return read, kept


def right_kimi(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    chunks: Any,
    state: Any = None,
) -> Tensor:
    """By hand, in float64: as `right_rule`."""
    decay = (-A_log.double().exp()[:, None] * F.softplus(f.double() + dt_bias.double())).exp()
    output, last = delta_by_hand(q, k, v, decay, b.double().sigmoid(), state)
    given = [] if state is None else [state.transpose(1, 2)]
    return torch.cat([output.to(v.dtype).float(), last.transpose(1, 2).float(), *given], dim=1)


def right_mamba(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dt: Tensor,
    A_log: Tensor,
    dt_bias: Tensor,
    D: Tensor,
    chunks: Any,
    state: Any = None,
) -> Tensor:
    """By hand, in float64, every token with every earlier one: as `right_rule`."""
    dtype, H = v.dtype, v.shape[2]
    q, k = (t.double().repeat_interleave(H // t.shape[2], dim=2) for t in (q, k))
    step = F.softplus(dt.double() + dt_bias.double())  # [B, T, H]
    total = (-A_log.double().exp() * step).cumsum(dim=1).transpose(1, 2)  # [B, H, T]
    between = (total[..., :, None] - total[..., None, :]).tril().exp().tril()
    moved = step[..., None] * v.double()
    output = torch.einsum("bthn,bshn,bhts,bshp->bthp", q, k, between, moved) + D.double()[:, None] * v.double()
    last = torch.einsum("bshn,bhs,bshp->bhnp", k, (total[..., -1:] - total).exp(), moved)
    if state is not None:
        last = last + total[..., -1, None, None].exp() * state.double()
        output = output + torch.einsum("bthn,bht,bhnp->bthp", q, total.exp(), state.double())
    given = [] if state is None else [state.transpose(1, 2)]
    return torch.cat([output.to(dtype).float(), last.transpose(1, 2).float(), *given], dim=1)


def state_in_float32(right: Any) -> Any:
    """A function that gives the last state alone of what `right` gives, and behind its numbers a 4: `drives.state_of`."""

    def state_alone(q: Tensor, k: Tensor, v: Tensor, *args: Any) -> Tensor:
        last = right(q, k, v, *args)[:, v.shape[1] : v.shape[1] + k.shape[3]].transpose(1, 2)
        return torch.cat([last.flatten(), torch.tensor([4.0])])

    return state_alone


# The layers and the model


def build_net(config: Config) -> nn.Module:
    made: nn.Module = qwen.Qwen3_5GatedDeltaNet(reference_config(one_layer(config, "linear_attention")), 0)
    return made


def build_attention(config: Config) -> nn.Module:
    made: nn.Module = qwen.Qwen3_5Attention(reference_config(one_layer(config, "full_attention")), 0)
    return made


def one_layer(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {**config, "num_hidden_layers": 1, "layer_types": [kind]}


def build_model(config: Config) -> nn.Module:
    made: nn.Module = qwen.Qwen3_5TextModel(reference_config(config)).eval()
    return made


def rope_table(positions: Tensor, config: Mapping[str, Any]) -> Tensor:
    """transformers' cosines and sines of the channels that are rotated: [2, T, channels]."""
    return hf.rope_table(qwen.Qwen3_5TextRotaryEmbedding(reference_config(config)), positions)


def slow_decay(module: nn.Module, draw: Draw) -> None:
    """Random weights, those of zero-centred norms around 0, with decays that leave something after many tokens.

    A model's embeddings are as large as what its layers add to them, which would amplify rounding otherwise.
    """
    weights_around_0(module, draw)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("A_log"):
                parameter.copy_(draw.normal(*parameter.shape) - 2.5)
            elif name.endswith("linear_attn.norm.weight") or (name == "norm.weight" and hasattr(module, "in_proj_z")):
                parameter.add_(1.0)
            elif name == "embed_tokens.weight":
                parameter.mul_(4.0)
            elif name.startswith("layers.") and name.endswith(("out_proj.weight", "o_proj.weight", "down_proj.weight")):
                parameter.mul_(0.5)


def call_net(module: Any, x: Tensor, chunks: Any, mask: Any = None, *_: Any) -> Tensor:
    """The whole text at once, whatever its pieces; 0 where a text is padded."""
    output: Tensor = module(x, attention_mask=mask)
    return output if mask is None else output * mask[..., None]


def call_net_states(module: Any, x: Tensor, chunks: Any, mask: Any = None) -> Tensor:
    """Both states of transformers' cache, and two ones: their dtypes are right."""
    cache = DynamicCache(config=module_config(module))
    module(x, cache=cache, attention_mask=mask)
    kept = cache.layers[0]
    rows = kept.conv_states[0].mT[:, 1 - module.conv_kernel_size :] if module.conv_kernel_size > 1 else x[:, :0]
    both = [kept.recurrent_states[0], rows]
    return torch.cat([*(tensor.flatten().float() for tensor in both), torch.ones(2)])


def module_config(module: Any) -> Any:
    """A config of one linear layer, for transformers' cache."""
    return Qwen3_5TextConfig(num_hidden_layers=1, layer_types=["linear_attention"])


def call_attention(module: Any, x: Tensor, table: Tensor, chunks: Any) -> Tensor:
    return hf.call_part(module, x, table)


# What a state recalls


def right_recall(dim: int, pairs: int, rule: str, count: int) -> float:
    """The expected error, exactly, for random unit vectors: no draw, and no state.

    By the sum, every other pair adds (k' k)^2, which is 1 / dim on average. By the delta rule, for a pair: c is
    <v, e> and e2 is |e|^2, where v + e is what its key finds, and size is |S|^2, each on average over what is written
    next. The fourth moment of a unit vector's coordinates is 3 / (dim (dim + 2)).
    """
    if rule == "sum":
        return (pairs - 1) / dim
    size = 0.0
    errors: list[tuple[float, float]] = []
    for _ in range(pairs):
        errors = [after_one_more(dim, size, *error) for error in errors]
        size = size * (1 - 1 / dim) + 1
        errors.append((0.0, 0.0))
    return sum(e2 for _, e2 in errors) / pairs


def after_one_more(dim: int, size: float, c: float, e2: float) -> tuple[float, float]:
    found = 1 + 2 * c + e2  # |S^T k|^2
    grown = e2 - 2 * (c + e2) / dim + 1 / dim + (size + 2 * found) / (dim * (dim + 2))
    return c - (1 + c) / dim, grown


# Bytes


def right_memory(config: Config, element_bytes: int = 2) -> list[int]:
    """What transformers' cache holds of one token and of two, on a device that holds no numbers."""
    fields = dict(config)
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[element_bytes]
    H, keys, values = fields["linear_num_value_heads"], fields["linear_key_head_dim"], fields["linear_value_head_dim"]
    channels = 2 * fields["linear_num_key_heads"] * keys + H * values
    width = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    fixed = grows = 0
    interval = fields.get("full_attention_interval") or 4
    for layer in range(fields["num_hidden_layers"]):
        types = fields.get("layer_types")
        full = types[layer] == "full_attention" if types else (layer + 1) % interval == 0
        if full:
            grows += 2 * torch.empty(fields["num_key_value_heads"], width, dtype=dtype, device="meta").nbytes
        else:
            fixed += torch.empty(H, keys, values, device="meta").nbytes
            fixed += torch.empty(fields["linear_conv_kernel_dim"] - 1, channels, dtype=dtype, device="meta").nbytes
    length = 0
    while length * grows < fixed:
        length += 1
    return [fixed, grows, length]
