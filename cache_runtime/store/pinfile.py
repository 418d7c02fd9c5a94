"""The file of pins, beside the index: what is pinned can be told from no slab, so a lost index would lose it.

A line for each group of objects that was pinned together, in ASCII: the crc32c of the rest in hex, the label quoted as
in a URL, the object ids in hex without spaces. A line that does not check (a torn one, of a killed process) is no line.
It is written before the index and cut after it: so after a crash more may be pinned than should be, never less.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from cache_runtime.store.layout import checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_log = logging.getLogger(__name__)
_ID_BYTES = 16


def add_pins(path: str, label: bytes, object_ids: Sequence[bytes]) -> None:
    """Add a line, durably."""
    with open(path, "ab") as file:
        # a line that was torn off must not spoil this one
        file.write((b"\n" if file.tell() else b"") + _line(label, object_ids))
        file.flush()
        os.fsync(file.fileno())


def write_pins(path: str, pins: Iterable[tuple[bytes, Sequence[bytes]]]) -> None:
    """Replace the file by one with these labels and objects."""
    with open(f"{path}.new", "wb") as file:
        file.writelines(_line(label, object_ids) for label, object_ids in pins)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def read_pins(path: str) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield labels and the objects pinned under each; a label may come several times, and an object, too."""
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        for line in file:
            found = _parse(line)
            if found is not None:
                yield found
            elif line.strip():
                _log.warning("pins are lost: a line does not check path=%s bytes=%d", path, len(line))


def _line(label: bytes, object_ids: Sequence[bytes]) -> bytes:
    rest = f"{quote(label, safe='')} {b''.join(object_ids).hex()}\n".encode()
    return b"%08x %s" % (checksum(rest), rest)


def _parse(line: bytes) -> tuple[bytes, list[bytes]] | None:
    crc, _, rest = line.partition(b" ")
    if crc != b"%08x" % checksum(rest):
        return None
    label, _, ids = rest.decode().strip().partition(" ")
    raw = bytes.fromhex(ids)
    return unquote(label).encode(), [raw[start : start + _ID_BYTES] for start in range(0, len(raw), _ID_BYTES)]
