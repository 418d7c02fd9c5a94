"""A batch as bytes: a pickle of its structure, and the memory of its arrays and tensors beside it, not copied.

Only what our own worker processes send is read with this.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALIGN = 64


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, memoryview):
            flat = value if value.c_contiguous else memoryview(value.tobytes())
            return _view, (pickle.PickleBuffer(flat.cast("B") if flat.ndim else flat),)
        torch = sys.modules.get("torch")
        if torch is not None and type(value) is torch.Tensor and _is_plain(value, torch):
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            name = str(value.dtype).removeprefix("torch.")
            return _tensor, (pickle.PickleBuffer(flat), name, tuple(value.shape))
        return NotImplemented


def _is_plain(value: Any, torch: Any) -> bool:
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.requires_grad
    return bool(plain and value.numel() and not value.is_quantized and not value.is_conj() and not value.is_neg())


def _view(buffer: Any) -> memoryview:
    return memoryview(buffer)


def _tensor(buffer: Any, name: str, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.frombuffer(buffer, dtype=getattr(torch, name)).reshape(shape)


class TooLargeError(Exception):
    """A batch does not fit into its slab."""


class _Slab(io.RawIOBase):
    """Where a pickler writes to; it holds what fits."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        end = self.size + len(view)
        if end > len(self._memory):
            raise TooLargeError
        self._memory[self.size : end] = view
        self.size = end
        return len(view)


Range = tuple[int, int]
"""Offset and length."""


def write(batch: Any, memory: memoryview) -> list[Range]:
    """Write a batch into memory; the first range is the pickle, the others are the buffers.

    Raises:
        TooLargeError: If it does not fit.
    """
    slab, buffers = _Slab(memory), list[pickle.PickleBuffer]()
    _Pickler(slab, protocol=5, buffer_callback=buffers.append).dump(batch)
    ranges, place = [(0, slab.size)], slab.size
    for buffer in buffers:
        data = buffer.raw()
        place = -(-place // _ALIGN) * _ALIGN
        if place + len(data) > len(memory):
            raise TooLargeError
        memory[place : place + len(data)] = data
        ranges.append((place, len(data)))
        place += len(data)
    return ranges


def dump(batch: Any) -> list[Any]:
    """Return a batch as bytes: the pickle, then the buffers, which refer to the batch's memory."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(batch)
    return [stream.getbuffer(), *(buffer.raw() for buffer in buffers)]


def load(parts: Sequence[Any]) -> Any:
    """Return the batch that `dump` took apart; its arrays refer to the parts, which must be writable."""
    return pickle.loads(parts[0], buffers=parts[1:])


def read(memory: memoryview, ranges: Sequence[Range]) -> Any:
    """Return the batch that `write` wrote; its arrays refer to the memory."""
    return load([memory[place : place + length] for place, length in ranges])


def pickled_error(error: BaseException) -> bytes | None:
    """Return an error as bytes, None if it cannot be sent."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - an exception may be anybody's; its text is sent instead
        return None
    return data
