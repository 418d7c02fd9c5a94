"""Batches of small objects that are all here, answered as their request arrives: see `quick.py`.

The kernel takes their records from mappings of the slabs, headers and all. Nothing looks at the bytes on the way:
whoever gets them compares them with the checksums that they were stored with, and a slab that was cut is an error of a
call.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cache_runtime.protocol import BATCH_HEADER, BATCH_PATH, BATCH_TYPE, REQUEST_HEADER, read_whole_objects
from cache_runtime.worker.answers import Answered, choose_id
from cache_runtime.worker.heads import read_batch_head
from cache_runtime.worker.hits import write_head
from cache_runtime.worker.quick import Begun, note_whole
from cache_runtime.worker.requests import promised

if TYPE_CHECKING:
    import asyncio
    import socket

    from cache_runtime.protocol import WholeObjects
    from cache_runtime.worker.node import Node

_MAX_REQUEST_BYTES = 128 << 10
_MAX_ITEMS = 1000  # the system takes 1024 buffers in a call


def begin_batch(node: Node, transport: asyncio.Transport, data: bytes) -> Begun | None:
    """Do `quick.begin_answer` for a batch of small objects."""
    since = time.perf_counter()
    if node.waits.lately:
        return None
    head = read_batch_head(data, max_bytes=node.limits.max_header_bytes) if len(data) <= _MAX_REQUEST_BYTES else None
    if head is None or transport.get_write_buffer_size() or not node.tokens.accept(head.authorization):
        return None
    wanted = read_whole_objects(data[head.body_start :])
    if wanted is None:
        return None
    size = sum(wanted.sizes)
    length = size + len(wanted.sizes) * BATCH_HEADER.size
    if length > len(node.scratch) or len(wanted.ids) > _MAX_ITEMS or not node.budget.has_room(size):
        return None
    if not node.origins.covers(wanted.stores, wanted.keys):
        return None
    records = node.store.lend_records(wanted.ids, wanted.sizes)
    if records is None:
        return None
    request_id = choose_id(head.request_id)
    fields = {
        "Content-Type": BATCH_TYPE,
        "Content-Length": str(length),
        "Server": "forebay",
        REQUEST_HEADER: request_id,
    }
    rest = _send_at_once(node, transport, write_head(200, fields), records, wanted)
    remote = transport.get_extra_info("peername")
    answered = Answered(request_id, "POST", BATCH_PATH, 200, remote[0] if remote else None)
    begun = Begun(memoryview(rest), 0, size, answered, since)
    node.metrics.count_lookups("hit", len(wanted.ids))
    node.recents.note_whole(wanted, promised(node, wanted.share))
    if begun.is_whole:
        note_whole(node, begun)
    return begun


def _send_at_once(
    node: Node, transport: asyncio.Transport, head: bytes, records: list[memoryview], wanted: WholeObjects
) -> bytes:
    """Give the kernel what the socket takes, and return a copy of the rest.

    Raises:
        ConnectionError: If the reader went away, or the bytes cannot be read: no other answer can follow a header.
    """
    connection: socket.socket = transport.get_extra_info("socket")
    try:
        with node.waits.watched():
            sent = os.writev(connection.fileno(), [head, *records])
    except BlockingIOError:
        sent = 0
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionAbortedError("cached records cannot be read") from error
    length = sum(map(len, records))
    if sent == len(head) + length:
        return b""
    if node.store.copy_records(wanted.ids, wanted.sizes, node.scratch) != length:
        raise ConnectionAbortedError("cached records cannot be read any more")
    return head[sent:] + bytes(node.scratch[max(0, sent - len(head)) : length])
