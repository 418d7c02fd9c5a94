"""The record of what maintenance did: one small object for each run that changed something."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from versioning.commits import format_time
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.documents import decode_document, swap_document
from versioning.maintenance.listing import list_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from versioning.repository import Repository

_FOLDER = "logs/operations/"


@dataclass(frozen=True, slots=True)
class Operation:
    """One run of maintenance.

    Attributes:
        at: UTC, RFC 3339 with milliseconds, by the clock of the machine that ran it.
        kind: "condemn", "sweep" or "expire".
        by: Who ran it, free text.
        details: Counts and settings, by name.
    """

    at: str
    kind: str
    by: str
    details: Mapping[str, Any]


def record_operation(repository: Repository, kind: str, by: str, details: Mapping[str, Any]) -> None:
    """Write down that an operation was done."""
    at = format_time(repository.refs.clock())
    key = f"{repository.prefix}{_FOLDER}{at.replace(':', '')}-{secrets.token_hex(4)}"
    content = {"at": at, "kind": kind, "by": by, "details": dict(details)}
    swap_document(repository.store, key, content, expect=None)


def operations(repository: Repository) -> Iterator[Operation]:
    """Yield what was done, newest first.

    Raises:
        CorruptRepositoryError: If a record is damaged.
    """
    for stat in reversed(list_keys(repository.store, repository.prefix + _FOLDER)):
        content = decode_document(repository.store.fetch(stat.key)[0], stat.key)
        try:
            yield Operation(content["at"], content["kind"], content["by"], content["details"])
        except KeyError as error:
            raise CorruptRepositoryError(stat.key, reason=f"it is no record of an operation ({error!r})") from error
