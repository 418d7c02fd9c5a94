"""When an operation runs again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset_controller.operations import Schedule


def next_slot(schedule: Schedule, after: datetime) -> datetime:
    """Return the first time of a schedule that is later; in UTC.

    Raises:
        ValueError: If its `cron` cannot be read, or means no time at all.
    """
    from cronsim import CronSim, CronSimError

    try:
        found: datetime = next(CronSim(schedule.cron, after.astimezone(UTC).replace(microsecond=0)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(
            f"spec.schedule.cron: {schedule.cron!r} names no time ({error}); write five fields, as in '0 3 * * *'"
        ) from error
    return found


def moment(text: str | None) -> datetime | None:
    """Return the time that Kubernetes wrote, None if it wrote none."""
    return datetime.fromisoformat(text) if text else None
