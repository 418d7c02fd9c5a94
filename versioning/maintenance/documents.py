"""Small JSON documents of maintenance that change by compare-and-swap."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from sources import SourceNotFoundError, SourceUnavailableError, SwapLostError
from versioning.errors import CorruptRepositoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources import RepositoryStore, Version

_TRANSACTION = "transaction"


def fetch_document(store: RepositoryStore, key: str) -> tuple[dict[str, Any], Version] | None:
    """Read a document; None if there is none.

    Raises:
        CorruptRepositoryError: If it is no JSON object.
    """
    try:
        data, version = store.fetch(key)
    except SourceNotFoundError:
        return None
    return decode_document(data, key), version


def swap_document(store: RepositoryStore, key: str, content: Mapping[str, Any], *, expect: Version | None) -> Version:
    """Replace a document (None: create it); a lost response is resolved by reading back.

    Raises:
        SwapLostError: If it is another one by now.
        SourceUnavailableError: If the store cannot be reached and the document was not replaced when last seen.
    """
    transaction = secrets.token_hex(16)
    data = json.dumps({**content, _TRANSACTION: transaction}, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    try:
        return store.swap(key, data, expect=expect)
    except (SourceUnavailableError, SwapLostError):
        # The store's own retry of a swap that took effect finds our content and says that somebody was first.
        found = fetch_document(store, key)
        if found is None or found[0].get(_TRANSACTION) != transaction:
            raise
        return found[1]


def decode_document(data: bytes, key: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptRepositoryError: If it is none.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise CorruptRepositoryError(key, reason="it is no JSON object")
    return content
