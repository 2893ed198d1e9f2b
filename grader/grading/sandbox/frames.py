"""Messages between the grader and a jailed child: JSON and raw tensors, each in one length-prefixed frame.

A frame is 8 bytes of length (big-endian) and that many bytes of content: 4 bytes of length, a JSON header of
that length, and the tensors' bytes one after the other. The header is ``{"body": ..., "tensors": {name:
[dtype, shape]}}``. Nothing is pickled, and whoever reads takes every number in it for a lie until checked.
"""

import json
import math
import os
import select
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grader.recordings.tensors import dtype_name

MAX_HEADER = 1 << 20
MAX_TENSORS = 20_000
MAX_AXES = 8
MAX_POLL = 86_400_000
DTYPES: dict[str, torch.dtype] = {
    dtype_name(dtype): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )
}  # fmt: skip


class FrameError(Exception):
    """What came is no frame, or more than is allowed."""


class FrameTimeout(FrameError):
    """Nothing (more) came in time."""


class FrameEnd(FrameError):
    """The other side is gone."""


@dataclass(frozen=True)
class Message:
    """The JSON of a frame and its tensors by name, each of which is made when it is asked for."""

    body: Any
    tensors: Mapping[str, Tensor]

    def size(self, name: str) -> int:
        """The bytes of a tensor, which need not be made for it."""
        return self.tensors.size(name) if isinstance(self.tensors, _Packed) else self.tensors[name].nbytes


class _Packed(Mapping[str, Tensor]):
    """The tensors in a frame's content. places: where each begins and ends, with dtype and shape."""

    def __init__(self, content: bytes, places: Mapping[str, tuple[int, int, torch.dtype, tuple[int, ...]]]) -> None:
        self._content, self._places = content, places
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            start, end, dtype, shape = self._places[name]
            self._made[name] = _tensor(self._content[start:end], dtype, shape)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def size(self, name: str) -> int:
        start, end, *_ = self._places[name]
        return end - start


def pack(body: Any, tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """The frame's content. Raises FrameError for a tensor of a dtype that is not carried."""
    described, pieces = {}, []
    for name, tensor in (tensors or {}).items():
        if dtype_name(tensor.dtype) not in DTYPES:
            raise FrameError(f"tensors of {dtype_name(tensor.dtype)} are not carried")
        tensor = tensor.detach().cpu().contiguous()
        described[name] = [dtype_name(tensor.dtype), list(tensor.shape)]
        pieces.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    header = json.dumps({"body": body, "tensors": described}).encode()
    return b"".join([len(header).to_bytes(4), header, *pieces])


def unpack(content: bytes) -> Message:
    """What `pack` packed. Raises FrameError for anything else; allocates no more than the content's own size."""
    size = int.from_bytes(content[:4])
    if len(content) < 4 or size > MAX_HEADER or size > len(content) - 4:
        raise FrameError("the header is cut off, or too long")
    try:
        header = json.loads(content[4 : 4 + size], parse_constant=_no_constant)
        body, described = header["body"], header["tensors"]
        if not isinstance(described, dict) or len(described) > MAX_TENSORS:
            raise FrameError("too many tensors")
        places, at = {}, 4 + size
        for name, entry in described.items():
            dtype, shape = _dtype_and_shape(entry)
            end = at + math.prod(shape) * dtype.itemsize
            if end > len(content):
                raise FrameError("a tensor is cut off")
            if at == end:
                _tensor(b"", dtype, shape)  # a shape that torch refuses is refused now
            places[name] = (at, end, dtype, shape)
            at = end
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FrameError(f"no message: {type(error).__name__}") from None
    if at != len(content):
        raise FrameError("there are bytes that belong to nothing")
    return Message(body, _Packed(content, places))


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _dtype_and_shape(entry: Any) -> tuple[torch.dtype, tuple[int, ...]]:
    dtype, shape = entry
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list) or len(shape) > MAX_AXES:
        raise FrameError("a tensor of a kind that is not carried")
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise FrameError("a tensor of an impossible shape")
    return DTYPES[dtype], tuple(shape)


def _tensor(content: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not content:
        try:
            return torch.empty(shape, dtype=dtype)
        except RuntimeError:  # torch multiplies the sizes before it comes to the 0 among them
            raise FrameError("a tensor of an impossible shape") from None
    if dtype == torch.bool:  # a byte other than 0 and 1 is no bool, and torch does not look
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape) != 0
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def send(fd: int, content: bytes, deadline: float) -> None:
    """Write one frame. deadline: in terms of time.monotonic. Raises FrameTimeout, FrameEnd."""
    data = memoryview(len(content).to_bytes(8) + content)
    while data:
        _wait(fd, select.POLLOUT, deadline)
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            continue
        except OSError:
            raise FrameEnd("the other side is gone") from None


def receive(fd: int, max_bytes: int, deadline: float) -> bytes:
    """The content of one frame. Raises FrameError for more than `max_bytes`, FrameTimeout, FrameEnd."""
    size = int.from_bytes(_exactly(fd, 8, deadline))
    if size > max_bytes:
        raise FrameError(f"it has more than {max_bytes:,} bytes")  # not how many: that is for the other side to choose
    return _exactly(fd, size, deadline)


def _exactly(fd: int, count: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < count:
        _wait(fd, select.POLLIN, deadline)
        try:
            piece = os.read(fd, min(count - len(received), 1 << 20))
        except BlockingIOError:
            continue
        except OSError:
            piece = b""
        if not piece:
            raise FrameEnd("the other side is gone")
        received += piece
    return bytes(received)


def _wait(fd: int, event: int, deadline: float) -> None:
    """Wait until there is something to read or room to write (`select` would fail above 1,024 descriptors)."""
    poll = select.poll()
    poll.register(fd, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(min(left * 1000, MAX_POLL)):
        raise FrameTimeout("nothing came in time")
