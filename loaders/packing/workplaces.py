"""Opening a repository where a task is worked on: once a process, with that machine's own configuration."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache_runtime import Client
from loaders.code import find_callable
from loaders.errors import PackWorkerError
from loaders.packing.tasks import Workplace
from sources import Origins, SourceError, open_store
from versioning import RepositoryRoot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sources import Store
    from versioning import Repository

_lock = threading.Lock()
_opened: dict[str, OpenedWorkplace] = {}


@dataclass(frozen=True)
class OpenedWorkplace:
    """What a worker reads from and writes to.

    Attributes:
        store: Holds the repository.
        prefix: The repository's.
        client: Reads the inputs.
    """

    store: Store
    prefix: str
    client: Client

    @property
    def root(self) -> RepositoryRoot:
        """Where the repository lies."""
        return RepositoryRoot(self.store.id, self.prefix)


def plain_workplace(repository: Repository, origins: Mapping[str, str] | None = None) -> Workplace:
    """Describe a repository that workers open by its URI, with the credentials of their surroundings.

    Args:
        repository: Where the shards go.
        origins: Key prefixes that may be read and the URI of the store of each; the repository itself always may.
    """
    uris = {repository.prefix: repository.uri, **(origins or {})}
    return Workplace(
        "loaders.packing.workplaces:open_plain",
        {"repository": repository.uri, "prefix": repository.prefix, "origins": uris},
    )


def open_plain(*, repository: str, prefix: str, origins: dict[str, str]) -> OpenedWorkplace:
    """Open what `plain_workplace` describes."""
    allowed = Origins()
    for key_prefix, uri in origins.items():
        allowed.add(key_prefix, open_store(uri))
    return OpenedWorkplace(open_store(repository), prefix, Client(allowed, None))


def open_workplace(workplace: Workplace) -> OpenedWorkplace:
    """Open a workplace, or return the one that this process has open.

    Raises:
        PackWorkerError: If it cannot be opened here; the message says what the worker needs.
    """
    with _lock:
        if workplace.id not in _opened:
            _opened[workplace.id] = _open(workplace)
        return _opened[workplace.id]


@contextmanager
def lent(workplace: Workplace, opened: OpenedWorkplace) -> Iterator[None]:
    """Let tasks of this process use what is open already."""
    with _lock:
        before = _opened.get(workplace.id)
        _opened[workplace.id] = opened
    try:
        yield
    finally:
        with _lock:
            if before is None:
                del _opened[workplace.id]
            else:
                _opened[workplace.id] = before


def _open(workplace: Workplace) -> OpenedWorkplace:
    try:
        found: Any = find_callable(workplace.opener)(**workplace.arguments)
    except (PackWorkerError, SourceError):
        raise
    except Exception as error:  # configuration of another machine: whatever is wrong with it is told
        raise PackWorkerError(
            f"a worker cannot open {workplace.arguments.get('repository', 'the repository')}: {error}; it needs the"
            " same dataset applied (FOREBAY_HOME) and the same credentials in its environment as this machine"
        ) from error
    assert isinstance(found, OpenedWorkplace)
    return found
