"""How far garbage collection is: one small object, changed only by compare-and-swap."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from versioning.errors import CorruptRepositoryError
from versioning.maintenance.documents import fetch_document, swap_document

if TYPE_CHECKING:
    from sources import RepositoryStore, Version

_KEY = "gc/state.json"
_TEXTS = ("phase", "list", "roots", "sweep", "swept_list")

SWEEP_SECONDS = 600.0
"""A sweep that did not renew its claim for so long is dead; a living one stops deleting after half of it."""


class Phase(StrEnum):
    """What garbage collection waits for."""

    IDLE = "idle"
    """Nothing is condemned."""
    CONDEMNED = "condemned"
    """A list of condemned objects waits for its grace period to end."""
    SWEEPING = "sweeping"
    """Condemned objects are being deleted."""


@dataclass(frozen=True, slots=True)
class GcState:
    """How far garbage collection is; times are the store's, nanoseconds since 1970.

    Attributes:
        phase: What it waits for.
        epoch: Number of the list of condemned objects made last; 0 before the first.
        list: Name of that list; partly random, so that two who make one never write over each other's.
        listed_ns: When that list was begun: an object that was there then and is not in it was needed or young.
        condemned_ns: When the list was published.
        grace_ns: For how long it must wait.
        objects: How many are in it.
        bytes: How much they are.
        swept_ns: When a sweep last ended.
        swept_list: Name of the list that was swept then.
        swept_listed_ns: When that list was begun.
        checked_ns: When everything was last marked.
        roots: Digest of the refs then.
        sweep: Random, of the sweep that is under way; "" when none is.
    """

    phase: Phase = Phase.IDLE
    epoch: int = 0
    list: str = ""
    listed_ns: int = 0
    condemned_ns: int = 0
    grace_ns: int = 0
    objects: int = 0
    bytes: int = 0
    swept_ns: int = 0
    swept_list: str = ""
    swept_listed_ns: int = 0
    checked_ns: int = 0
    roots: str = ""
    sweep: str = ""


def list_key(prefix: str, name: str) -> str:
    """Return where a list of condemned objects lies."""
    return f"{prefix}gc/{name}/condemned.parquet"


class StateObject:
    """Reads and replaces the state.

    Attributes:
        current: The state as it was seen last.
        version: Of the object that was seen; new with each change, even one back to equal fields.
    """

    def __init__(self, store: RepositoryStore, prefix: str) -> None:
        self._store = store
        self._key = prefix + _KEY
        self.version: Version | None = None
        self.current = GcState()

    def fetch(self) -> GcState:
        """Read it.

        Raises:
            CorruptRepositoryError: If it is damaged.
        """
        found = fetch_document(self._store, self._key)
        if found is None:
            self.current, self.version = GcState(), None
        else:
            self.current, self.version = _decode(found[0], self._key), found[1]
        return self.current

    def change(self, **changes: Any) -> GcState:
        """Replace fields of what was read last.

        Raises:
            SwapLostError: If somebody else replaced it; it stays as it is.
        """
        state = replace(self.current, **changes)
        self.version = swap_document(self._store, self._key, asdict(state), expect=self.version)
        self.current = state
        return state

    def changed_ns(self) -> int:
        """Return when it was last replaced, by the store's clock."""
        return self._store.stat(self._key).mtime_ns or 0


def _decode(content: dict[str, Any], key: str) -> GcState:
    try:
        values = {field.name: content[field.name] for field in fields(GcState)}
        for name, value in values.items():
            if type(value) is not (str if name in _TEXTS else int):
                raise TypeError(f"{name} is {value!r}")
        return GcState(**{**values, "phase": Phase(values["phase"])})
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no state of garbage collection ({error!r})") from error
