"""Where bytes live: stores that Forebay reads, pins and writes, and the names of what is in them."""

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)
from sources.files import FileStore
from sources.locations import Location, ObjectId, ObjectRef, ObjectStat, StoreId, Version, join_uri, object_id
from sources.opening import open_store
from sources.origins import Origins
from sources.stores import ListObjects, ReadRange, RepositoryStore, Store, SwapObject, WriteObject
from sources.uris import SourceUri, split_uri

__all__ = [
    "FileStore",
    "ListObjects",
    "Location",
    "ObjectId",
    "ObjectRef",
    "ObjectStat",
    "Origins",
    "ReadRange",
    "RepositoryStore",
    "SourceAuthError",
    "SourceChangedError",
    "SourceConfigError",
    "SourceError",
    "SourceFullError",
    "SourceNotFoundError",
    "SourceUnavailableError",
    "SourceUri",
    "Store",
    "StoreId",
    "SwapLostError",
    "SwapObject",
    "Version",
    "WriteObject",
    "join_uri",
    "object_id",
    "open_store",
    "split_uri",
]
