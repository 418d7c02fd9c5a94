"""From a URI and its options to an open store."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from sources.errors import SourceConfigError
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sources.reading import Limits
    from sources.stores import Store

_GROUP = "forebay.sources"
_OURS = {  # as in pyproject.toml: looking through what is installed takes 0.1 s
    "abfs": "sources.azure:AzureStore",
    "az": "sources.azure:AzureStore",
    "dvc": "sources.dvc:DvcStore",
    "file": "sources.files:FileStore",
    "gs": "sources.gcs:GcsStore",
    "hdfs": "sources.hdfs:HdfsStore",
    "http": "sources.http:HttpStore",
    "https": "sources.http:HttpStore",
    "nfs": "sources.nfs:NfsStore",
    "s3": "sources.s3:S3Store",
}


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
    from sources.reading.pace import Limits
    from sources.reading.steady import steady  # as late as the store itself: it brings the listings

    return steady(store, limits or Limits())


def _open(uri: str, options: Mapping[str, object]) -> Store:
    scheme, store, _ = split_uri(uri)
    if store == "dvc://objects":
        from sources.dvc.objects import DvcObjects  # loaded when it is used, as the native ones are

        return DvcObjects.open(uri, options, open_place=open_store)
    native = _native(scheme)
    if native is not None:
        return native().open(uri, options)
    import fsspec

    from sources.generic import FsspecStore

    protocol = scheme.removeprefix("fsspec+")
    if protocol not in fsspec.available_protocols():
        known = ", ".join(f"{name}://" for name in sorted({*_OURS, *_installed()}))
        raise SourceConfigError(f"{uri}: unknown scheme {scheme!r}; known: {known} and every protocol of fsspec")
    return FsspecStore.open(uri, options)


def _native(scheme: str) -> Callable[[], StoreFactory] | None:
    """Return what loads the factory of a scheme."""
    if scheme in _OURS:
        module, _, name = _OURS[scheme].partition(":")
        return lambda: cast("StoreFactory", getattr(import_module(module), name))
    return _installed().get(scheme)


@cache
def _installed() -> dict[str, Callable[[], StoreFactory]]:
    from importlib.metadata import entry_points  # it brings the standard library's e-mail

    return {point.name: point.load for point in entry_points(group=_GROUP)}
