"""Tensors as a file names them."""

import hashlib

import torch
from torch import Tensor


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def tensor_key(tensor: Tensor) -> str:
    """A hash of a tensor's dtype, shape and values."""
    # A copy: a tensor of one value may count as contiguous with any stride, and then can't be viewed as bytes.
    tensor = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    words = f"{dtype_name(tensor.dtype)} {list(tensor.shape)} ".encode()
    return hashlib.sha256(words + content).hexdigest()[:20]
