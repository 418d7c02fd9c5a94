"""Times as people write them: `90`, `90s`, `15m`, `2h`, `1d`."""

from __future__ import annotations

from dataset_controller import quantities
from ds.errors import UsageError


def parse_duration(text: str, *, what: str) -> float:
    """Return seconds; a number without a unit is seconds already.

    Args:
        text: Such as `15m`.
        what: Named by the error, such as `--deadline`.

    Raises:
        UsageError: If it is not a duration above 0.
    """
    written = text.strip()
    try:
        seconds = quantities.parse_duration(f"{written}s" if written[-1:].isdecimal() else written)
    except ValueError:
        seconds = 0.0
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
