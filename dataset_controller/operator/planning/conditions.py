"""Conditions, which change their time only when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class Finding(NamedTuple):
    """One thing that is true of an object or not.

    Attributes:
        type: Of the condition: "Ready".
        holds: None if it is not known.
        reason: One word in camel case.
        message: For people: what it is, and what to do.
    """

    type: str
    holds: bool | None
    reason: str
    message: str = ""


_WORDS = {True: "True", False: "False", None: "Unknown"}


def conditions(
    before: Sequence[dict[str, Any]], findings: Sequence[Finding], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions of an object.

    Args:
        before: Those that it has; their time stays where the answer stays.
        findings: What is found now, one for each type.
        generation: Of the specification that they are about.
        now: With a time zone.
    """
    known = {each["type"]: each for each in before}
    told = []
    for finding in findings:
        status = _WORDS[finding.holds]
        last = known.get(finding.type, {})
        since = last.get("lastTransitionTime") if last.get("status") == status else None
        told.append(
            {
                "type": finding.type,
                "status": status,
                "reason": finding.reason,
                "message": finding.message,
                "lastTransitionTime": since or timestamp(now),
                "observedGeneration": generation,
            }
        )
    return told


def timestamp(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it, in whole seconds of UTC."""
    from datetime import UTC

    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
