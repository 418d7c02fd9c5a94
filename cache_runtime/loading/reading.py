"""Reading pieces from their origins."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy

from cache_runtime.sourcing import check_digest
from cache_runtime.store.layout import BLOCK_BYTES, RUN_BLOCKS, block_span
from sources import ReadInto, SourceUnavailableError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cache_runtime.store.layout import BlockRun
    from sources import ObjectRef, Origins

_buffers = threading.local()


def read_whole(origins: Origins, ref: ObjectRef) -> Buffer:
    """Read a small object.

    Raises:
        ChecksumError: If the bytes do not have the digest that the version names.
        SourceError: If the origin fails.
    """
    data = origins.read(ref, start=0, length=ref.size)
    _check_length(ref, memoryview(data).nbytes, ref.size)
    check_digest(ref, data)
    return data


def read_run(origins: Origins, ref: ObjectRef, run: BlockRun) -> memoryview:
    """Read blocks of a large object into this thread's buffer: valid until its next call.

    Memory that was used before costs no page faults, which cost as much as the copy.

    Raises:
        ChecksumError, SourceError: As `read_whole`.
    """
    start, length = block_span(run, ref.size)
    store = origins.store_for(ref)
    if isinstance(store, ReadInto):
        buffer = _buffer()[:length]
        store.read_into(ref.key, start=start, buffer=buffer, version=ref.version)
    else:
        buffer = memoryview(store.read(ref.key, start=start, length=length, version=ref.version)).cast("B")
        _check_length(ref, len(buffer), length)
    check_digest(ref, buffer)
    return buffer


def _buffer() -> memoryview:
    try:
        buffer: memoryview = _buffers.run
    except AttributeError:
        buffer = _buffers.run = numpy.empty(RUN_BLOCKS * BLOCK_BYTES, numpy.uint8).data
    return buffer


def _check_length(ref: ObjectRef, found: int, wanted: int) -> None:
    if found != wanted:
        raise SourceUnavailableError(f"{ref.uri}: asked for {wanted} bytes, got {found}; try again")
