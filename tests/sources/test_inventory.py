from __future__ import annotations

import gzip
import hashlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from sources import SourceChangedError, SourceConfigError, SourceNotFoundError, Store, open_store
from sources.inventory import find_inventory, inventory_batches
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.weed import S3Server

FIELDS = ["Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag"]
NAMES = ["bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified_date", "e_tag"]
KEYS = ["a/1", "a/2 with space", "a/ü+%41", "b/3", 'b/"quoted", comma']
PARQUET = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); optional binary version_id "
    "(UTF8); optional boolean is_latest; optional boolean is_delete_marker; optional int64 size; optional int64 "
    "last_modified_date (TIMESTAMP_MILLIS); optional binary e_tag (UTF8); }"
)
ORC = (
    "struct<bucket:string,key:string,version_id:string,is_latest:boolean,is_delete_marker:boolean,size:bigint,"
    "last_modified_date:timestamp,e_tag:string>"
)
SCHEMAS = {"CSV": ", ".join(FIELDS), "ORC": ORC, "Parquet": PARQUET}
TYPES: list[tuple[str, pa.DataType]] = [
    ("bucket", pa.string()),
    ("key", pa.string()),
    ("version_id", pa.string()),
    ("is_latest", pa.bool_()),
    ("is_delete_marker", pa.bool_()),
    ("size", pa.int64()),
    ("last_modified_date", pa.timestamp("ms", "UTC")),
    ("e_tag", pa.string()),
]
Rows = list[list[Any]]


@pytest.fixture
def place(s3: S3Server, request: pytest.FixtureRequest) -> tuple[Store, str]:
    store = open_store(f"s3://{BUCKET}/", s3.options)
    top = f"inventory-{hashlib.md5(request.node.name.encode()).hexdigest()}/"
    for key in KEYS:
        store.put(f"{top}raw/{key}", key.encode())
    return store, top


def rows_of(store: Store, prefix: str) -> Rows:
    """Each object, an old version of it, and a deleted one."""
    rows: Rows = []
    for stat in store.list(prefix):
        assert stat.mtime_ns is not None
        time = datetime.fromtimestamp(stat.mtime_ns // 10**9, UTC)
        tag = stat.version.removeprefix("etag:").strip('"')
        rows.append([BUCKET, stat.key, "v2", True, False, stat.size, time, tag])
        rows.append([BUCKET, stat.key, "v1", False, False, 7, time, "0" * 32])
    rows.append([BUCKET, f"{prefix}deleted", "v9", True, True, None, datetime(2026, 11, 1, tzinfo=UTC), None])
    return rows


def written(form: str, rows: Rows) -> bytes:
    sink = io.BytesIO()
    if form == "CSV":
        for row in rows:
            values = [row[0], quote_plus(row[1], safe="/"), *row[2:]]
            cells = [
                "" if value is None else str(value).lower() if value in (True, False) else value for value in values
            ]
            cells[6] = f"{row[6]:%Y-%m-%dT%H:%M:%S}.000Z"
            sink.write((",".join(f'"{cell}"' for cell in cells) + "\n").encode())
        return gzip.compress(sink.getvalue())
    table = pa.table(
        {name: [row[at] for row in rows] for at, name in enumerate(NAMES)},
        schema=pa.schema(TYPES),
    )
    if form == "ORC":
        orc.write_table(table, sink, compression="ZLIB")
    else:
        pq.write_table(table, sink, compression="snappy", row_group_size=3)
    return sink.getvalue()


def deliver(store: Store, top: str, form: str, rows: Rows, *, date: str = "2026-11-22T01-00Z", **changes: Any) -> str:
    files = []
    for number, part in enumerate((rows[:4], rows[4:])):
        data = written(form, part)
        key = f"{top}inv/data/{date}-{number}"
        store.put(key, data)
        files.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
    manifest = {
        "sourceBucket": BUCKET,
        "destinationBucket": f"arn:aws:s3:::{BUCKET}",
        "version": "2016-11-30",
        "creationTimestamp": "1795309200000",
        "fileFormat": form,
        "fileSchema": SCHEMAS[form],
        "files": files,
        **changes,
    }
    data = json.dumps(manifest).encode()
    store.put(f"{top}inv/{date}/manifest.json", data)
    store.put(f"{top}inv/{date}/manifest.checksum", hashlib.md5(data).hexdigest().encode())
    return f"{top}inv/{date}/manifest.json"


def batches_of(store: Store, place: str, *, prefix: str = "") -> Iterator[pa.RecordBatch]:
    return inventory_batches(store, find_inventory(store, place), prefix=prefix)


@pytest.mark.parametrize("form", ["CSV", "ORC", "Parquet"])
def test_an_inventory_tells_what_a_listing_tells(form: str, place: tuple[Store, str]) -> None:
    store, top = place
    manifest = deliver(store, top, form, rows_of(store, f"{top}raw/"))
    for prefix in (f"{top}raw/", f"{top}raw/a/", f"{top}raw/b/3"):
        rows = [row for batch in batches_of(store, manifest, prefix=prefix) for row in batch.to_pylist()]
        listed = {stat.key: (stat.size, str(stat.version), stat.mtime_ns) for stat in store.list(prefix)}
        assert {row["key"]: (row["size"], row["version"]) for row in rows} == {
            key: (size, version) for key, (size, version, _) in listed.items()
        }
        assert all(row["mtime_ns"] // 10**9 == (listed[row["key"]][2] or 0) // 10**9 for row in rows)
        assert len(rows) == len(listed) > 0


def test_the_newest_finished_inventory_is_found_with_its_date(place: tuple[Store, str]) -> None:
    store, top = place
    rows = rows_of(store, f"{top}raw/")
    deliver(store, top, "CSV", rows[:2], date="2026-11-20T01-00Z")
    newest = deliver(store, top, "CSV", rows, date="2026-11-21T01-00Z")
    unfinished = deliver(store, top, "CSV", rows, date="2026-11-22T01-00Z")
    store.delete(unfinished.replace(".json", ".checksum"))
    found = find_inventory(store, f"{top}inv/")
    assert found.manifest == newest
    assert found.created == datetime(2026, 11, 22, 1, tzinfo=UTC)
    assert sum(batch.num_rows for batch in batches_of(store, f"{top}inv/")) == len(KEYS)


@pytest.mark.parametrize(
    ("form", "field", "schema"), [("CSV", "Size", "Bucket, Key, ETag"), ("CSV", "ETag", "Bucket, Key, Size")]
)
def test_a_missing_field_is_named(form: str, field: str, schema: str, place: tuple[Store, str]) -> None:
    store, top = place
    manifest = deliver(store, top, form, [], fileSchema=schema)
    with pytest.raises(SourceConfigError, match=f"add the field {field}"):
        find_inventory(store, manifest)


def test_no_inventory_and_no_manifest_are_told_apart(place: tuple[Store, str]) -> None:
    store, top = place
    with pytest.raises(SourceNotFoundError, match="finished S3 inventory"):
        find_inventory(store, f"{top}nothing/")
    for data in (b"{}", b"[1]", b"not json", b'{"fileFormat": "CSV", "fileSchema": 3}'):
        store.put(f"{top}x/manifest.json", data)
        with pytest.raises(SourceConfigError, match="not a manifest"):
            find_inventory(store, f"{top}x/manifest.json")


@pytest.mark.parametrize("form", ["CSV", "ORC", "Parquet"])
def test_a_changed_or_broken_data_file_gives_no_row(form: str, place: tuple[Store, str]) -> None:
    store, top = place
    manifest = deliver(store, top, form, rows_of(store, f"{top}raw/"))
    key, size, _ = find_inventory(store, manifest).files[0]
    store.put(key, b"x" * size)
    with pytest.raises(SourceChangedError):
        next(batches_of(store, manifest))
    broken = {"key": key, "size": size, "MD5checksum": hashlib.md5(b"x" * size).hexdigest()}
    manifest = deliver(store, top, form, [], date="2026-11-23T01-00Z", files=[broken])
    store.put(key, b"x" * size)
    with pytest.raises(SourceConfigError, match=f"not a {form} file"):
        list(batches_of(store, manifest))
