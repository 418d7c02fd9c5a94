"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\Z", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """Return a size such as `128MB` (10^6), `64MiB` or `64Mi` (2^20), or a number, in bytes.

    Raises:
        ValueError: If it is none, or not above 0.
    """
    if isinstance(size, str):
        match = _SIZE.match(size.strip())
        if match is None:
            raise ValueError(f"{size!r} is no size such as 128MB or 64MiB")
        base = 1024 if match[3] else 1000
        size = int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))
    if size < 1:
        raise ValueError(f"a shard of {size} bytes; expected at least 1")
    return size
