"""The stores that a process may read, by what they cover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources.errors import SourceConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from sources.locations import ObjectRef
    from sources.stores import ReadRange


class Origins:
    """Find the configured store of an object; nothing else can be read.

    A commit names stores and keys, but never decides what is opened: an object that no configured prefix covers is
    refused, so a hostile commit cannot make a worker read another bucket or a local file.
    """

    def __init__(self) -> None:
        self._stores: list[tuple[str, str, ReadRange]] = []

    def add(self, prefix: str, store: ReadRange) -> None:
        """Allow reads of keys that start with `prefix` (a directory ends in "/", "" is the whole store)."""
        self._stores.append((store.id, prefix, store))
        self._stores.sort(key=lambda row: len(row[1]), reverse=True)

    def become(self, other: Origins) -> None:
        """Allow from now on what another one allows; a read that is under way ends as it began."""
        self._stores = list(other._stores)

    def add_all(self, other: Origins) -> None:
        """Allow also what another one allows."""
        for _, prefix, store in other._stores:
            self.add(prefix, store)

    def store_for(self, ref: ObjectRef) -> ReadRange:
        """Return the store with the longest prefix that covers the object.

        Raises:
            SourceConfigError: If none does. No prefix covers a key with "..": a store may take it for the way out.
        """
        if ".." in ref.key.split("/"):
            raise SourceConfigError(f"{ref.uri} has '..' in its path, which no source of a dataset has")
        for store_id, prefix, store in self._stores:
            if store_id == ref.store and ref.key.startswith(prefix):
                return store
        raise SourceConfigError(f"{ref.uri} is not below any source of this dataset; add a mount that covers it")

    def covers(self, stores: Sequence[str], keys: Sequence[str]) -> bool:
        """Say whether `store_for` has one for each of many objects."""
        if ".." in "/".join(keys) and any(".." in key.split("/") for key in keys):
            return False
        prefixes = {
            store_id: tuple(prefix for found_id, prefix, _ in self._stores if found_id == store_id)
            for store_id in {*stores}
        }
        return all(key.startswith(prefixes[store_id]) for store_id, key in zip(stores, keys, strict=True))

    def read(self, ref: ObjectRef, *, start: int, length: int) -> Buffer:
        """Read a range of an object from its origin, at its pinned version. Errors as in `ReadRange.read`."""
        return self.store_for(ref).read(ref.key, start=start, length=length, version=ref.version)
