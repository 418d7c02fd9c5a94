"""Where a history ends although its commits go on: what `expire` cut off, as git's shallow file does."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sources import SourceNotFoundError, SourceUnavailableError, SwapLostError
from versioning.errors import CorruptRepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sources import RepositoryStore, Version

SHALLOW_KEY = "shallow.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Shallow:
    """Which parents of commits are hidden: nothing walks there any more, and their objects may be gone.

    Attributes:
        hidden: Ids of commits.
        version: What the next change must expect; None before the first.
    """

    hidden: frozenset[str]
    version: Version | None


def read_shallow(store: RepositoryStore, prefix: str) -> Shallow:
    """Read which commits are hidden: one request.

    Raises:
        CorruptRepositoryError: If the record is damaged.
    """
    key = prefix + SHALLOW_KEY
    try:
        data, version = store.fetch(key)
    except SourceNotFoundError:
        return Shallow(frozenset(), None)
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}; upgrade forebay")
        hidden = frozenset(_checked(each) for each in content["hidden"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it does not say which commits are hidden ({error!r})") from error
    return Shallow(hidden, version)


def hide(store: RepositoryStore, prefix: str, before: Shallow, more: Iterable[str]) -> Shallow:
    """Hide more commits, by compare-and-swap.

    Raises:
        SwapLostError: If somebody else hid some since `before` was read; nothing was changed.
    """
    key, transaction = prefix + SHALLOW_KEY, os.urandom(16).hex()
    hidden = before.hidden | frozenset(more)
    content: dict[str, Any] = {"format": _FORMAT, "hidden": sorted(hidden), "transaction": transaction}
    data = json.dumps(content, sort_keys=True).encode() + b"\n"
    try:
        return Shallow(hidden, store.swap(key, data, expect=before.version))
    except (SourceUnavailableError, SwapLostError):
        # The answer to a swap that took effect may be lost; what is there now tells.
        found = _transaction(store, key)
        if found is None or found[0] != transaction:
            raise
        return Shallow(hidden, found[1])


def _transaction(store: RepositoryStore, key: str) -> tuple[str, Version] | None:
    try:
        data, version = store.fetch(key)
    except SourceNotFoundError:
        return None
    return str(json.loads(data).get("transaction")), version


def _checked(identity: Any) -> str:
    if not isinstance(identity, str) or len(identity) != 64 or set(identity) - set("0123456789abcdef"):
        raise ValueError(f"{identity!r} is no commit id")
    return identity
