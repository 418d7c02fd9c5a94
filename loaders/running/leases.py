"""Memory that is used again once nobody refers to it any more.

A batch is handed out as views of a buffer that belongs to a ring. How long it is used is not ours to say: a loop may
keep a row of it. So the buffer is free again when the last array that lies in it is gone, which Python knows.

numpy lets a view of a view refer to the first array only; a memoryview in between stops that, so the array that is
watched lives as long as every view, slice and tensor that was made from it.
"""

from __future__ import annotations

import weakref
from collections import deque
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT = 16  # buffers of one size that wait to be used again


def leased(buffer: Any, release: Callable[[], object]) -> memoryview:
    """Return the bytes of a buffer; `release` is called when nothing refers to them any more, in any thread."""
    watched = np.frombuffer(buffer, np.uint8)
    weakref.finalize(watched, release).atexit = False
    return watched.data


class ArrayPool:
    """Gives arrays whose memory was touched before: fresh memory costs a page fault for every 4 KiB.

    Threads may use it together; a copy in another process begins empty.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[bytearray]] = {}  # no lock: a fork would inherit it, taken

    def __reduce__(self) -> tuple[type[ArrayPool], tuple[()]]:
        return ArrayPool, ()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array of undefined content, C order."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        if size == 0:
            return np.empty(shape, kind)
        free = self._free.setdefault(size, deque(maxlen=_KEPT))
        try:
            buffer = free.pop()  # no lock: `release` may run inside of any code that drops a reference
        except IndexError:
            buffer = bytearray(size)
        return np.frombuffer(leased(buffer, lambda: free.append(buffer)), kind).reshape(shape)
