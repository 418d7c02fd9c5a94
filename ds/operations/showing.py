"""Objects of this machine in the columns of `kubectl get`, with the statuses of a cluster."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dataset_controller.crds import KINDS, Column, Kind
from dataset_controller.embedded_status import object_names, object_of
from dataset_controller.operations import OPERATIONS
from ds.durations import human_seconds
from ds.errors import UsageError
from ds.operations.local import local_operations

if TYPE_CHECKING:
    from ds.settings import Settings

_FILTER = re.compile(r'\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.status')


def kind_of(text: str) -> Kind | None:
    """Return the kind that a word means: its name, its collection or a short name."""
    word = text.lower()
    for kind in KINDS:
        if word in (kind.name.lower(), kind.plural, *kind.short_names):
            return kind
    return None


def kind_and_name(text: str) -> tuple[Kind, str]:
    """Take `KIND/NAME` apart; a name alone is a dataset's.

    Raises:
        UsageError: If there is no such kind.
    """
    word, slash, name = text.rpartition("/")
    kind = kind_of(word if slash else "Dataset")
    if kind is None:
        known = ", ".join(sorted(each.short_names[0] for each in KINDS))
        raise UsageError(f"there is no kind {word!r}; known: {known}")
    return kind, name


def names_of(kind: Kind, settings: Settings) -> list[str]:
    """List the objects of a kind."""
    if kind.name in OPERATIONS:
        return [name.partition("/")[2] for name in local_operations(settings).names(kind.name)]
    return object_names(settings.catalog(), kind.name)


def document_of(kind: Kind, name: str, settings: Settings) -> dict[str, Any]:
    """Return an object as a cluster's API server would. Raises `DatasetNotFoundError`."""
    if kind.name in OPERATIONS:
        return local_operations(settings).document(f"{kind.name}/{name}")
    return object_of(settings.catalog(), kind.name, name)


def cells(kind: Kind, document: dict[str, Any], now: datetime | None = None) -> list[str]:
    """Return what the columns of an object say; the first is its name."""
    moment = now or datetime.now(UTC)
    return [str(document["metadata"]["name"]), *(_cell(each, document, moment) for each in _shown(kind))]


def heads(kind: Kind) -> list[str]:
    """Return the heads of the columns."""
    return ["NAME", *(column.name.upper() for column in _shown(kind))]


def _shown(kind: Kind) -> list[Column]:
    return [column for column in kind.columns if not column.priority]


def _cell(column: Column, document: dict[str, Any], now: datetime) -> str:
    condition = _FILTER.fullmatch(column.path)
    found: Any = document
    if condition is not None:
        told = document.get("status", {}).get("conditions", ())
        found = next((each["status"] for each in told if each["type"] == condition[1]), None)
    else:
        for step in column.path.strip(".").split("."):
            found = found.get(step) if isinstance(found, dict) else None
    if found is None:
        return ""
    if column.kind == "date":
        return human_seconds((now - datetime.fromisoformat(found)).total_seconds())
    return str(found)
