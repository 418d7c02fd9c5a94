"""From a place to records, by what is there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from loaders.errors import NoSamplesError, ShardFormatError
from loaders.formats.litdata import open_litdata
from loaders.formats.loose import open_files
from loaders.formats.mds import open_mds
from loaders.formats.parquet import open_parquet
from loaders.formats.reading import open_shards
from loaders.formats.shards import Finder, beside, local_path
from loaders.formats.tar_records import TarRecords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from cache_runtime import Client
    from loaders.formats.parquet import ParquetRecords
    from loaders.formats.rows import RowRecords
    from loaders.formats.shards import Shard
    from loaders.keys import KeyRule
    from loaders.records import CommitRecords

ShardFormat = Literal["tar", "mds", "litdata", "parquet", "files"]
OpenedRecords: TypeAlias = "TarRecords | RowRecords | ParquetRecords | CommitRecords"
_MOST_INDEX_BYTES = 1 << 30
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def open_records(
    place: str | PathLike[str] | Sequence[str],
    *,
    key: KeyRule = "path",
    client: Client | None = None,
    options: Mapping[str, object] | None = None,
    format: ShardFormat | None = None,
    allow_pickle: bool = False,
) -> OpenedRecords:
    """Open samples that lie outside of a repository; what they are is seen from what is there.

    Tars and Parquet files by their names; a directory with an `index.json` is MDS or LitData, one with tars or Parquet
    files at its top is those, and any other one is loose files, grouped by key.

    Args:
        place: A path or URI of a file or directory, a glob, a brace list, or several of them.
        key: What joins members of a tar, or loose files, into samples; see `KeyRule`.
        client: Reads what is not local, and caches it; its origins must cover the place. Without one each read goes
            to the store.
        options: For the stores, in the vocabulary of their scheme.
        format: Take it for this, whatever it looks like.
        allow_pickle: Read MDS columns and LitData leaves that hold pickled objects. Reading one runs code.

    Raises:
        NoSamplesError: If there is nothing.
        ShardFormatError: If a shard or index is damaged, or of a kind that is not read here.
        DuplicateFieldError: If a sample has a field twice.
        SourceError: If the place cannot be read.
    """
    finder = Finder(options)
    places = [str(place)] if not isinstance(place, (list, tuple)) else [str(one) for one in place]
    if len(places) == 1 and format in (None, "mds", "litdata") and not _is_files(places[0]):
        index = finder.exists(beside(places[0], "index.json"))
        if index is not None:
            return _open_indexed(places[0], index, finder, client, format, allow_pickle=allow_pickle)
        if format in ("mds", "litdata"):
            raise NoSamplesError(f"{places[0]} has no index.json")
    if format == "files":
        return open_files(places, finder, client, key)
    shards = _shards(places, finder)
    if shards is None:
        if format is not None:
            raise NoSamplesError(f"{places[0]} has no files of format {format}")
        return open_files(places, finder, client, key)
    kinds = {format or ("parquet" if shard.name.endswith(".parquet") else "tar") for shard in shards}
    if len(kinds) > 1:
        raise ShardFormatError(f"{places[0]}: both tars and Parquet files; open them apart")
    if kinds == {"parquet"}:
        return open_parquet(shards, finder, client)
    return TarRecords.open(shards, open_shards(shards, finder, client), finder, rule=key)


def _open_indexed(
    place: str,
    index: Shard,
    finder: Finder,
    client: Client | None,
    format: str | None,
    *,
    allow_pickle: bool,
) -> RowRecords:
    document = _read_json(index, finder)
    found = "mds" if "shards" in document else "litdata" if "chunks" in document else None
    if found is None or format not in (None, found):
        raise ShardFormatError(f"{index.uri} is no index of {format or 'MDS or LitData'}", uri=index.uri)
    opens = open_mds if found == "mds" else open_litdata
    return opens(place, document, finder, client, allow_pickle=allow_pickle)


def _read_json(index: Shard, finder: Finder) -> dict[str, Any]:
    if index.size > _MOST_INDEX_BYTES:
        raise ShardFormatError(f"{index.uri}: {index.size} bytes are too many for an index", uri=index.uri)
    (data,) = open_shards([index], finder, None).read([0], [0], [index.size])
    try:
        document = json.loads(bytes(data))
    except ValueError as error:
        raise ShardFormatError(f"{index.uri} is no JSON: {error}", uri=index.uri) from error
    if not isinstance(document, dict):
        raise ShardFormatError(f"{index.uri} is no index of MDS or LitData", uri=index.uri)
    return document


def _shards(places: list[str], finder: Finder) -> list[Shard] | None:
    """Return the tars or Parquet files of places, None for a directory without."""
    if len(places) == 1 and _is_directory(places[0], finder):
        return _at_top(places[0], finder)
    shards = finder.find(places)
    for shard in shards:
        if shard.name.endswith(_COMPRESSED):
            text = f"{shard.uri} is compressed, and has no random access; unpack it (images are compressed already)"
            raise ShardFormatError(text, uri=shard.uri)
    return shards


def _is_directory(place: str, finder: Finder) -> bool:
    if _is_files(place):
        return False
    path = local_path(place)
    if path is not None:
        return os.path.isdir(path)
    return place.endswith("/") or finder.exists(place) is None


def _is_files(place: str) -> bool:
    """Say whether a place names files, as can be seen without a look: each look is a request."""
    return place.endswith((".tar", ".parquet")) or any(mark in place for mark in "*?[{")


def _at_top(place: str, finder: Finder) -> list[Shard] | None:
    depth = beside(place, "x").count("/")
    for suffix in (".tar", ".parquet"):
        found = [one for one in finder.directory(place) if one.uri.endswith(suffix) and one.uri.count("/") == depth]
        if found:
            return found
    return None
