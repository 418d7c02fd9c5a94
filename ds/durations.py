"""Times as people write them: `90`, `90s`, `15m`, `2h`, `1d`."""

from __future__ import annotations

import re

from ds.errors import UsageError

_DURATION = re.compile(r"(?P<number>\d{1,12}(?:\.\d{1,9})?)(?P<unit>ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str, *, what: str) -> float:
    """Return seconds; a number without a unit is seconds already.

    Args:
        text: Such as `15m`.
        what: Named by the error, such as `--deadline`.

    Raises:
        UsageError: If it is not a duration above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * _SECONDS[match["unit"] or "s"] if match else 0.0
    if seconds <= 0:
        raise UsageError(f"{what}: expected a time such as 90s, 15m or 2h, found {text!r}")
    return seconds


def human_seconds(seconds: float) -> str:
    """Write a duration: `0.3 s`, `41 s`, `5 min 10 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
