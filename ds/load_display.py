"""How a load shows that it goes on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ds.durations import human_seconds
from ds.output import human_bytes
from ds.paced_bar import PacedBar

if TYPE_CHECKING:
    from cache_runtime import LoadProgress


class LoadDisplay(PacedBar):
    """Shows the progress of one load on stderr; use it in a `with` block.

    Args:
        total_bytes: Of the plan.
    """

    def __init__(self, total_bytes: int) -> None:
        super().__init__("loading", total=total_bytes)

    def show(self, now: LoadProgress) -> None:
        """Show how far it is."""
        line = partial(describe_progress, now)
        self.update(completed=now.bytes_done, total=now.bytes_total, pace=describe_pace(now), line=line)


def describe_progress(now: LoadProgress) -> str:
    """Write one line about a load: done, total, pace, time left, failures."""
    percent = 100 * now.bytes_done // now.bytes_total if now.bytes_total else 100
    parts = [f"{human_bytes(now.bytes_done)} of {human_bytes(now.bytes_total)} ({percent} %)", describe_pace(now)]
    if now.failed_objects:
        parts.append(f"{now.failed_objects:,} failed")
    return ", ".join(part for part in parts if part)


def describe_pace(now: LoadProgress) -> str:
    """Write the rate of the last seconds and the time left; "" before anything came."""
    if not now.bytes_per_second:
        return ""
    left = "" if now.eta_seconds is None else f", {human_seconds(now.eta_seconds)} left"
    return f"{human_bytes(now.bytes_per_second)}/s{left}"
