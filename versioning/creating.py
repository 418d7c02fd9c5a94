"""The one object that says what a repository is: written once, read by every opening."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources import SourceNotFoundError, SwapLostError, join_uri
from versioning.errors import InvalidNameError, RepositoryExistsError, RepositoryNotFoundError
from versioning.spec import RepositorySpec, decode_spec, encode_spec

if TYPE_CHECKING:
    from sources import RepositoryStore

_KEY = "repo.json"


def create_spec(store: RepositoryStore, prefix: str, spec: RepositorySpec | None) -> RepositorySpec:
    """Create repo.json, after checking that the store can hold a repository; see `Repository.init`."""
    _check_prefix(prefix)
    key, uri = prefix + _KEY, repository_uri(store, prefix)
    if _fetch(store, key) is not None:
        raise RepositoryExistsError(uri)
    from sources import probe_swaps  # only a new repository needs it

    probe_swaps(store, prefix).require_safe()
    wanted = spec or RepositorySpec.new()
    try:
        store.swap(key, encode_spec(wanted), expect=None)
    except SwapLostError as error:
        # A store may report its own write as lost after a retry; the random id in it tells.
        if _fetch(store, key) != encode_spec(wanted):
            raise RepositoryExistsError(uri) from error
    return wanted


def read_spec(store: RepositoryStore, prefix: str) -> RepositorySpec:
    """Read repo.json; see `Repository.open`."""
    _check_prefix(prefix)
    data = _fetch(store, prefix + _KEY)
    if data is None:
        raise RepositoryNotFoundError(repository_uri(store, prefix))
    return decode_spec(data, uri=repository_uri(store, prefix))


def repository_uri(store: RepositoryStore, prefix: str) -> str:
    """Return where a repository lies, as people write it."""
    return join_uri(store.id, prefix.rstrip("/"))


def _check_prefix(prefix: str) -> None:
    if prefix and (not prefix.endswith("/") or prefix.startswith("/")):
        raise InvalidNameError(
            prefix, what="repository prefix", reason='it must be "" or end in "/", with none in front'
        )


def _fetch(store: RepositoryStore, key: str) -> bytes | None:
    try:
        return store.fetch(key)[0]
    except SourceNotFoundError:
        return None
