"""Reading MDS, the shards of mosaicml-streaming."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loaders.errors import NoSamplesError, ShardFormatError
from loaders.formats.mds_values import decoder
from loaders.formats.reading import open_shards
from loaders.formats.rows import RowFormat, RowRecords
from loaders.formats.shards import Shard, beside
from loaders.formats.unpacking import Unpacked

if TYPE_CHECKING:
    from cache_runtime import Client
    from loaders.formats.reading import ReadsShards
    from loaders.formats.shards import Finder

_CODECS: dict[str, Any] = {"zstd": "zstd", "gz": "gzip", "bz2": "bz2", "br": "brotli"}


def open_mds(place: str, index: Any, finder: Finder, client: Client | None, *, allow_pickle: bool) -> RowRecords:
    """Open the shards that an `index.json` lists.

    Args:
        place: The directory that holds it.
        index: The document.
        finder: Finds the shards.
        client: Reads them, if they are not local.
        allow_pickle: Read columns of encoding `pkl`, which runs code that they name.

    Raises:
        ShardFormatError: If the index is damaged, or a column cannot be read here.
        NoSamplesError: If there are no samples.
        SourceNotFoundError: If a shard is missing.
    """
    where = beside(place, "index.json")
    try:
        entries = [entry for entry in index["shards"] if entry["samples"]]
        forms = {(*entry["column_names"], *entry["column_encodings"], *entry["column_sizes"]) for entry in entries}
        formats = {(index.get("version"), entry["format"], entry["version"]) for entry in entries}
        counts = [int(entry["samples"]) for entry in entries]
        files = [_file_of(entry) for entry in entries]
        if any(count < 0 for count in counts):
            raise ValueError("a shard has less than no samples")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardFormatError(f"{where} is no index of MDS: {error!r}", uri=where) from error
    if not entries:
        raise NoSamplesError(f"{where} lists no samples")
    if formats != {(2, "mds", 2)} or len(forms) > 1:
        raise ShardFormatError(f"{where}: MDS of version 2 with the same columns in all shards can be read", uri=where)
    shards = finder.named([beside(place, name) for name, _, _ in files])
    reader = open_shards(shards, finder, client)
    codecs = [codec for _, codec, _ in files]
    if any(codecs):
        reader = Unpacked(shards, reader, codecs, [size for _, _, size in files])
        shards = [replace(shard, size=size) for shard, (_, _, size) in zip(shards, files, strict=True)]
    return RowRecords(shards, counts, reader, _row_format(entries[0], allow_pickle=allow_pickle, where=where))


def _file_of(entry: Any) -> tuple[str, str | None, int]:
    """Return a shard's file name, how it is compressed, and its size when it is not."""
    size = int(entry["raw_data"]["bytes"])
    packed = entry.get("zip_data")
    name = (packed or entry["raw_data"])["basename"]
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(f"a shard is called {name}")
    if not packed:
        return name, None, size
    codec = str(entry["compression"]).partition(":")[0]
    if codec not in _CODECS:
        raise ValueError(f"shards compressed with {codec}; known: {', '.join(_CODECS)}")
    return name, _CODECS[codec], size


def _row_format(entry: Any, *, allow_pickle: bool, where: str) -> RowFormat:
    names, encodings = entry["column_names"], entry["column_encodings"]
    decoders = {}
    for name, encoding in zip(names, encodings, strict=True):
        try:
            decode = decoder(encoding, allow_pickle=allow_pickle)
        except ShardFormatError as error:
            raise ShardFormatError(f"{where}, column {name!r}: {error}", uri=where) from error
        if decode is not None:
            decoders[name] = decode
    key = names.index("__key__") if "__key__" in names and len(names) > 1 else None
    return RowFormat(tuple(names), tuple(entry["column_sizes"]), key, decoders)


def read_config(shard: Shard, reader: ReadsShards) -> tuple[int, dict[str, Any]]:
    """Read a shard's own head: how many rows it has, and its columns.

    Raises:
        ShardFormatError: If it has none.
    """
    try:
        (head,) = reader.read([0], [0], [8])
        count, begin = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4))
        start = 4 * (count + 2)
        if not start <= begin <= shard.size:
            raise ValueError(f"its first row is at {begin}")
        (text,) = reader.read([0], [start], [begin - start])
        config = json.loads(bytes(text))
        config["column_names"], config["column_encodings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ShardFormatError(f"{shard.uri} is no MDS shard: {error}", uri=shard.uri) from error
    return count, config
