"""Batches copied to a GPU ahead of the loop. No GPU was at hand where this was written: this file is not tested.

One batch is under way while the loop has the one before: pinned on the host, copied on a stream of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from loaders.running.making import Made


class DeviceCopier:
    """Copies the tensors of batches to a CUDA device.

    Args:
        device: As torch names it: `cuda`, `cuda:0`.

    Raises:
        ValueError: If it is no CUDA device, or torch sees none.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch: Any = torch
        self._device = torch.device(device)
        if self._device.type != "cuda" or not torch.cuda.is_available():
            raise ValueError(f"device is {device!r}: expected a CUDA device that torch sees; leave it out on a CPU")
        self._stream = self._torch.cuda.Stream(self._device)
        self._pinned: list[_Pinned] = [_Pinned(torch), _Pinned(torch)]

    def ahead(self, batches: Iterator[Made]) -> Generator[Made, None, None]:
        """Yield batches on the device, each copied while the loop works on the one before it."""
        under_way: _Copied | None = None
        for turn, made in enumerate(batches):
            following = self._start(made, self._pinned[turn % 2])
            if under_way is not None:
                yield self._arrived(under_way)
            under_way = following
        if under_way is not None:
            yield self._arrived(under_way)

    def _start(self, made: Made, pinned: _Pinned) -> _Copied:
        pinned.begin()
        with self._torch.cuda.stream(self._stream):
            batch = map_tensors(
                made.batch,
                lambda tensor: pinned.filled(tensor).to(self._device, non_blocking=True),
                self._torch.Tensor,
            )
            pinned.copied = self._stream.record_event()
        return _Copied(made._replace(batch=batch), pinned.copied)

    def _arrived(self, copied: _Copied) -> Made:
        current = self._torch.cuda.current_stream(self._device)
        current.wait_event(copied.event)

        def used_here(tensor: Any) -> Any:
            tensor.record_stream(current)  # its memory is not given away before this stream is done with it
            return tensor

        map_tensors(copied.made.batch, used_here, self._torch.Tensor)
        return copied.made


class _Copied(NamedTuple):
    made: Made
    event: Any


class _Pinned:
    """Pinned memory for the tensors of one batch, made once for each shape: pinning takes longer than copying."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._tensors: list[Any] = []
        self._used = 0
        self.copied: Any = None

    def begin(self) -> None:
        """Wait until the copy that read this memory is done."""
        if self.copied is not None:
            self.copied.synchronize()
        self._used = 0

    def filled(self, tensor: Any) -> Any:
        """Return the tensor in pinned memory."""
        place, self._used = self._used, self._used + 1
        if place == len(self._tensors):
            self._tensors.append(None)
        kept = self._tensors[place]
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = self._tensors[place] = self._torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        kept.copy_(tensor)
        return kept


def map_tensors(batch: Any, function: Callable[[Any], Any], kind: type) -> Any:
    """Return a batch with a function applied to each tensor in its dicts, lists and tuples."""
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, dict):
        return {name: map_tensors(value, function, kind) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, function, kind) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(value, function, kind) for value in batch)
    return batch
