"""URIs of sources: splitting them, never storing secrets in them."""

from __future__ import annotations

import re
from typing import NamedTuple

from sources.errors import SourceConfigError
from sources.locations import StoreId

_SCHEME = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/]*)(?:/(?P<key>.*))?$", re.DOTALL)

_ALIASES = {"abfs": "az"}  # two names of one store


class SourceUri(NamedTuple):
    """A URI taken apart.

    Attributes:
        scheme: What opens it: `s3`, `file`, or `fsspec+<protocol>` to insist on the fsspec implementation.
        store: The store's id; the same for the native and the fsspec way to one bucket.
        key: What follows, without a first slash. For `file://` the absolute path without its first slash.
    """

    scheme: str
    store: StoreId
    key: str


def split_uri(uri: str) -> SourceUri:
    """Take a source URI apart.

    Raises:
        SourceConfigError: If it is no URI, carries credentials, or a `file://` path is not absolute or has `..`.
    """
    match = _SCHEME.match(uri)
    if match is None:
        raise SourceConfigError(f"{uri!r} is not a source URI; expected scheme://..., such as s3://bucket/prefix")
    scheme, authority, key = match["scheme"], match["authority"], match["key"] or ""
    if "@" in authority:
        raise SourceConfigError(
            f"{scheme}://...@{authority.rpartition('@')[2]} carries credentials or an account; pass them as options"
        )
    if scheme == "file" and authority:
        raise SourceConfigError(f"{uri}: a file URI has an absolute path: file:///{authority}/{key}")
    if ".." in key.split("/"):
        raise SourceConfigError(f"{uri}: '..' is not allowed in a source URI")
    native = scheme.removeprefix("fsspec+")
    return SourceUri(scheme, StoreId(f"{_ALIASES.get(native, native)}://{authority}"), key)
