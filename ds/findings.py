"""What a check of a cache found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well or as safely as it could."""
    FAILURE = "failure"
    """Something does not work."""


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        level: How bad it is.
        check: Which check.
        subject: What was looked at: a directory, a worker.
        message: What was found.
        remedy: What to do; "" where there is nothing to do.
    """

    level: Level
    check: str
    subject: str
    message: str
    remedy: str = ""


def ok(check: str, subject: str, message: str) -> Finding:
    """Return that all is well."""
    return Finding(Level.OK, check, subject, message)


def warning(check: str, subject: str, message: str, remedy: str) -> Finding:
    """Return what works, but could do better."""
    return Finding(Level.WARNING, check, subject, message, remedy)


def failure(check: str, subject: str, message: str, remedy: str) -> Finding:
    """Return what does not work."""
    return Finding(Level.FAILURE, check, subject, message, remedy)
