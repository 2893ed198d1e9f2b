"""Tensors as a file names them."""

import hashlib

import torch
from torch import Tensor


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def tensor_key(tensor: Tensor) -> str:
    """A hash of a tensor's dtype, shape and values."""
    tensor = tensor.detach().cpu().contiguous()
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    words = f"{dtype_name(tensor.dtype)} {list(tensor.shape)} ".encode()
    return hashlib.sha256(words + content).hexdigest()[:20]
