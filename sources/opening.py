"""From a URI and its options to an open store."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, cast

import fsspec

from sources.errors import SourceConfigError
from sources.generic import FsspecStore
from sources.reading import Limits, steady
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources.stores import Store


class StoreFactory(Protocol):
    """What an entry point of group `forebay.sources` names: a class, its name being the scheme it opens."""

    def open(self, uri: str, options: Mapping[str, object]) -> Store:
        """Open the store of `uri` without contacting it.

        Raises:
            SourceConfigError: If the options are wrong; the message names the option.
        """
        ...


def open_store(uri: str, options: Mapping[str, object] | None = None, *, limits: Limits | None = None) -> Store:
    """Open the store that a URI lies in, without contacting it.

    Native stores are found by scheme among the entry points of group `forebay.sources`; any other protocol that
    fsspec knows is opened through fsspec, and so is `fsspec+<protocol>://` whatever is native.

    Args:
        uri: `s3://bucket/prefix`, `file:///directory`, ... The path limits what a `file://` store may touch.
        options: Credentials, endpoint and so on in the vocabulary of the scheme's fsspec implementation.
        limits: What the origin may be asked for by this process; a remote store has `Limits()` without.

    Returns:
        A `SteadyStore` around the native one; a store on a local disk without limits as it is.

    Raises:
        SourceConfigError: Unknown scheme, missing bucket, unknown or contradictory options.
    """
    store = _open(uri, options or {})
    if limits is None and not getattr(store, "remote", True):
        return store
    return steady(store, limits or Limits())


def _open(uri: str, options: Mapping[str, object]) -> Store:
    scheme, store, _ = split_uri(uri)
    if store == "dvc://objects":
        from sources.dvc.objects import DvcObjects  # loaded when it is used, as the native ones are

        return DvcObjects.open(uri, options, open_place=open_store)
    native = _native().get(scheme)
    if native is not None:
        return cast("StoreFactory", native.load()).open(uri, options)
    protocol = scheme.removeprefix("fsspec+")
    if protocol not in fsspec.available_protocols():
        known = ", ".join(f"{name}://" for name in sorted(_native()))
        raise SourceConfigError(f"{uri}: unknown scheme {scheme!r}; known: {known} and every protocol of fsspec")
    return FsspecStore.open(uri, options)


@cache
def _native() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="forebay.sources")}
