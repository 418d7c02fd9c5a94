"""S3 Inventory as a listing: no LIST request for buckets that are listed by their provider anyway.

Source: the Amazon S3 User Guide, "Amazon S3 Inventory" and "Locating your inventory list".
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from pyarrow import orc

from sources.errors import SourceChangedError, SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.locations import join_uri
from sources.stores import LISTING_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources.locations import ObjectStat
    from sources.stores import Store

_PART_BYTES = 16 << 20
_BATCH_ROWS = 1 << 14
_CSV_BLOCK_BYTES = 4 << 20
_DATED = re.compile(r"(?:^|/)(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z)/manifest\.(json|checksum)$")
_COLUMNS = {
    "key": "Key",
    "size": "Size",
    "e_tag": "ETag",
    "last_modified_date": "LastModifiedDate",
    "is_latest": "IsLatest",
    "is_delete_marker": "IsDeleteMarker",
}
"""Names in ORC and Parquet files, and in the schema of CSV files."""
_REQUIRED = {"key": "Key", "size": "Size", "e_tag": "ETag"}


@dataclass(frozen=True, slots=True)
class Inventory:
    """A finished inventory report.

    Attributes:
        manifest: Key of its `manifest.json`.
        source_bucket: What was listed.
        created: When that began; what changed later is not in it, and what changed just before may not be.
        format: CSV, ORC or Parquet.
        columns: Names of the columns, as in ORC and Parquet files.
        files: Key, size in bytes and MD5 (hex) of each data file, in order.
    """

    manifest: str
    source_bucket: str
    created: datetime
    format: str
    columns: tuple[str, ...]
    files: tuple[tuple[str, int, str], ...]


def find_inventory(store: Store, place: str) -> Inventory:
    """Read a manifest, or the newest finished one below a prefix.

    Args:
        store: Where the inventory was delivered to.
        place: Key of a `manifest.json`, or a prefix (ending in "/") below which the newest finished one is taken.

    Raises:
        SourceConfigError: If it is no manifest of an inventory, or lacks a field; the message names it.
        SourceNotFoundError: If no finished inventory is there.
        SourceChangedError: If the manifest is not the one of its checksum.
    """
    manifest = place if place.endswith(".json") else _newest(store, place)
    data = _whole(store, store.stat(manifest))
    uri = join_uri(store.id, manifest)
    try:
        return _parsed(manifest, json.loads(data))
    except SourceConfigError as error:
        raise SourceConfigError(f"{uri}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise SourceConfigError(f"{uri} is not a manifest of an S3 inventory: {error!r}") from error


def inventory_batches(store: Store, inventory: Inventory, *, prefix: str = "") -> Iterator[pa.RecordBatch]:
    """Yield the current objects of an inventory as batches of `LISTING_SCHEMA`, in the order of its files.

    Old versions and delete markers are left out. Data files are read one after the other, each into a temporary file
    and checked against its MD5 before its first row is given.

    Args:
        store: Where the inventory was delivered to.
        inventory: As `find_inventory` found it.
        prefix: Only keys that start with it.

    Raises:
        SourceConfigError: If a data file is of another format than the manifest says.
        SourceNotFoundError: If one is not there any more.
        SourceChangedError: If one is not that of the manifest.
    """
    for key, size, md5 in inventory.files:
        with tempfile.TemporaryFile(prefix="forebay-inventory-") as file:
            _download(store, key, size=size, md5=md5, to=file)
            uri = join_uri(store.id, key)
            try:
                for batch in _rows(file, inventory):
                    listed = _listing(batch, prefix, is_encoded=inventory.format == "CSV")
                    if listed.num_rows:
                        yield listed
            except (pa.ArrowException, OSError, EOFError) as error:
                raise SourceConfigError(
                    f"{uri} is not a {inventory.format} file of an S3 inventory: {error}"
                ) from error


def _newest(store: Store, place: str) -> str:
    """Find the newest manifest whose checksum is there: it is written last."""
    found: dict[str, dict[str, str]] = {}
    for stat in store.list(place):
        match = _DATED.search(stat.key)
        if match:
            found.setdefault(match[1], {})[match[2] + stat.key[: match.start(2)]] = stat.key
    for _date, keys in sorted(found.items(), reverse=True):
        for name, key in sorted(keys.items()):
            if name.startswith("json") and "checksum" + name.removeprefix("json") in keys:
                _check_manifest(store, key, keys["checksum" + name.removeprefix("json")])
                return key
    raise SourceNotFoundError(join_uri(store.id, place), "finished S3 inventory (manifest.json with manifest.checksum)")


def _check_manifest(store: Store, manifest: str, checksum: str) -> None:
    expected = _whole(store, store.stat(checksum)).decode("ascii", "replace").strip()
    found = hashlib.md5(_whole(store, store.stat(manifest)), usedforsecurity=False).hexdigest()
    if expected.lower() != found:
        raise SourceChangedError(join_uri(store.id, manifest), expected=f"md5:{expected}", found=f"md5:{found}")


def _whole(store: Store, stat: ObjectStat) -> bytes:
    return bytes(store.read(stat.key, start=0, length=stat.size, version=stat.version))


def _parsed(manifest: str, found: dict[str, Any]) -> Inventory:
    form, schema = found["fileFormat"], found["fileSchema"]
    columns = _columns(form, schema)
    for name, field in _REQUIRED.items():
        if name not in columns:
            raise SourceConfigError(
                f"the inventory has no {field}; add the field {field} to the inventory's configuration"
            )
    return Inventory(
        manifest,
        found["sourceBucket"],
        datetime.fromtimestamp(int(found["creationTimestamp"]) / 1000, UTC),
        form,
        columns,
        tuple((file["key"], int(file["size"]), file["MD5checksum"]) for file in found["files"]),
    )


def _columns(form: str, schema: str) -> tuple[str, ...]:
    """Read the names out of a schema: `Bucket, Key` (CSV), `struct<key:string>` (ORC), `message x { .. key (..); }`."""
    if form == "CSV":
        ours = {theirs.lower(): name for name, theirs in _COLUMNS.items()}
        return tuple(ours.get(name.strip().lower(), name.strip()) for name in schema.split(","))
    if form == "ORC":
        return tuple(re.findall(r"(\w+):", schema))
    if form == "Parquet":
        return tuple(re.findall(r"(?:required|optional)\s+\w+\s+(\w+)", schema))
    raise SourceConfigError(f"format {form!r} is unknown; known: CSV, ORC, Parquet")


def _download(store: Store, key: str, *, size: int, md5: str, to: IO[bytes]) -> None:
    stat = store.stat(key)
    digest = hashlib.md5(usedforsecurity=False)
    if stat.size != size:
        raise SourceChangedError(join_uri(store.id, key), expected=f"{size} bytes", found=f"{stat.size} bytes")
    for start in range(0, size, _PART_BYTES):
        part = store.read(key, start=start, length=min(_PART_BYTES, size - start), version=stat.version)
        digest.update(part)
        try:
            to.write(part)
        except OSError as error:
            raise SourceUnavailableError(f"no room for {size} bytes in {tempfile.gettempdir()}: {error}") from error
    if digest.hexdigest() != md5.lower():
        raise SourceChangedError(join_uri(store.id, key), expected=f"md5:{md5}", found=f"md5:{digest.hexdigest()}")
    to.flush()
    to.seek(0)


def _rows(file: IO[bytes], inventory: Inventory) -> Iterator[pa.RecordBatch]:
    """Yield the columns that matter."""
    wanted = [name for name in inventory.columns if name in _COLUMNS]
    if inventory.format == "CSV":
        names = list(inventory.columns)
        source: Any = file
        stream: Any = pa.CompressedInputStream(pa.PythonFile(source, "r"), "gzip")
        with pcsv.open_csv(
            stream,
            read_options=pcsv.ReadOptions(column_names=names, block_size=_CSV_BLOCK_BYTES),
            parse_options=pcsv.ParseOptions(newlines_in_values=False),
            convert_options=pcsv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        ) as reader:
            yield from reader
    elif inventory.format == "ORC":
        stripes = orc.ORCFile(file)
        for stripe in range(stripes.nstripes):
            yield stripes.read_stripe(stripe, columns=wanted)
    else:
        yield from pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=wanted)


def _listing(batch: pa.RecordBatch, prefix: str, *, is_encoded: bool) -> pa.RecordBatch:
    """Turn inventory rows into rows of a listing."""
    batch = batch.filter(_is_current(batch))
    keys = batch.column("key").cast(pa.string())
    if is_encoded and bool(pc.any(pc.match_substring_regex(keys, "[%+]")).as_py()):
        keys = pa.array([unquote_plus(str(key)) for key in keys.to_pylist()], pa.string())
    tags: Any = pc.utf8_trim(batch.column("e_tag").cast(pa.string()), '"')
    columns: list[Any] = [
        keys,
        batch.column("size").cast(pa.int64()),
        pc.binary_join_element_wise(pa.scalar('etag:"'), tags, pa.scalar('"'), pa.scalar("")),
        _nanoseconds(batch),
    ]
    listed = pa.RecordBatch.from_arrays(columns, schema=LISTING_SCHEMA)
    return listed.filter(pc.starts_with(listed.column("key"), prefix)) if prefix else listed


def _is_current(batch: pa.RecordBatch) -> Any:
    keep: Any = pa.repeat(True, batch.num_rows)
    flags: dict[str, Any] = {name: batch.column(name).cast(pa.bool_()) for name in batch.schema.names if "is_" in name}
    if "is_latest" in flags:
        keep = pc.and_(keep, pc.fill_null(flags["is_latest"], True))
    if "is_delete_marker" in flags:
        keep = pc.and_(keep, pc.invert(pc.fill_null(flags["is_delete_marker"], False)))
    return keep


def _nanoseconds(batch: pa.RecordBatch) -> pa.Array[Any]:
    if "last_modified_date" not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.int64())
    times = batch.column("last_modified_date")
    if pa.types.is_string(times.type):
        times = times.cast(pa.timestamp("us", "UTC"))
    return times.cast(pa.timestamp("ns", "UTC") if times.type.tz else pa.timestamp("ns")).cast(pa.int64())
