"""Moments as people write them: `2026-01-31`, `2026-01-31 10:00`, `2 days ago`, `yesterday`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"(?P<number>[0-9]{1,6})[ ._]?(?P<unit>second|minute|hour|day|week)s?[ ._]ago")
_NAMED = {"now": timedelta(0), "yesterday": timedelta(days=1)}


def parse_moment(text: str, *, now: datetime) -> datetime | None:
    """Read a moment; None if it is none.

    ISO 8601 dates and times, UTC unless they name an offset; a date alone is its first moment. `now`, `yesterday` (24
    hours ago), and `N seconds|minutes|hours|days|weeks ago`, where dots may stand for the spaces.

    Args:
        text: What was written.
        now: Aware; what "ago" counts from.
    """
    plain = text.strip()
    if (ago := _NAMED.get(plain.lower())) is not None:
        return now - ago
    if match := _AGO.fullmatch(plain.lower()):
        try:
            return now - timedelta(**{f"{match['unit']}s": int(match["number"])})
        except OverflowError:
            return None
    if not plain[:4].isdigit() or len(plain) < len("20260131"):
        return None
    try:
        found = datetime.fromisoformat(plain)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
