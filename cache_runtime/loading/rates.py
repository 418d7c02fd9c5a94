"""The pace of the last load into a cache directory, for the estimate of the next one."""

from __future__ import annotations

import json
import os
from contextlib import suppress

_NAME = "load-rate.json"
_MIN_SECONDS = 1.0
_MAX_BYTES = 4096


def known_rate(directory: str) -> float | None:
    """Return the bytes per second of the last load, None if there was none."""
    try:
        with open(os.path.join(directory, _NAME), "rb") as file:
            rate = json.loads(file.read(_MAX_BYTES))["bytes_per_second"]
    except (OSError, ValueError, KeyError, TypeError):  # an estimate only: without it there is none
        return None
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def remember_rate(directory: str, fetched_bytes: int, seconds: float) -> None:
    """Note the pace of a load that took long enough to tell it; a disk that cannot be written keeps none."""
    if seconds < _MIN_SECONDS or fetched_bytes <= 0:
        return
    path = os.path.join(directory, _NAME)
    mine = f"{path}.{os.getpid()}"
    with suppress(OSError):
        with open(mine, "w", encoding="utf-8") as file:
            json.dump({"bytes_per_second": fetched_bytes / seconds}, file)
        os.replace(mine, path)
