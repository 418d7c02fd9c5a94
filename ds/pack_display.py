"""How a pack shows that it goes on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ds.durations import human_seconds
from ds.output import human_bytes, plural
from ds.paced_bar import PacedBar

if TYPE_CHECKING:
    from loaders import PackProgress


class PackDisplay(PacedBar):
    """Shows the progress of one pack on stderr; use it in a `with` block."""

    def __init__(self) -> None:
        super().__init__("packing")

    def show(self, now: PackProgress) -> None:
        """Show how far it is."""
        step = f"shard {now.shards:,} of {now.total_shards:,}"
        line = partial(describe_progress, now)
        self.update(completed=now.done_bytes, total=now.total_bytes, pace=describe_pace(now), line=line, step=step)


def describe_progress(now: PackProgress) -> str:
    """Write one line about a pack: shards, bytes, pace, time left, what was skipped."""
    parts = [
        f"{now.shards:,} of {plural(now.total_shards, 'shard')}",
        f"{human_bytes(now.done_bytes)} of {human_bytes(now.total_bytes)}",
        describe_pace(now),
    ]
    if now.skipped:
        parts.append(f"{plural(now.skipped, 'input')} skipped")
    return ", ".join(part for part in parts if part)


def describe_pace(now: PackProgress) -> str:
    """Write rate and time left; "" before anything was stored."""
    if now.eta_seconds is None:
        return ""
    return f"{human_bytes(now.bytes_per_second)}/s, {human_seconds(now.eta_seconds)} left"
