from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from obstore.store import S3Store as ObstoreS3

from sources.listing import scan
from sources.stores import LISTING_SCHEMA
from tests.conftest import BUCKET
from tests.sources.listing.test_orders import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server


class ObstorePages:
    """Pages of a bucket through obstore, and nothing else: small pages, so that few keys make many of them."""

    def __init__(self, server: S3Server, page: int) -> None:
        self.id = f"s3://{BUCKET}"
        self.page = page
        config: Any = {
            "endpoint": server.endpoint,
            "access_key_id": server.key,
            "secret_access_key": server.secret,
            "region": "us-east-1",
        }
        self.store = ObstoreS3(BUCKET, config=config, client_options={"allow_http": True})

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        for found in obstore.list(
            self.store, prefix=prefix or None, offset=after or None, chunk_size=self.page, return_arrow=True
        ):
            page: Any = pa.record_batch(found)
            versions = pc.binary_join_element_wise(pa.scalar("etag:"), page["e_tag"].cast(pa.string()), pa.scalar(""))
            columns: list[Any] = [page["path"].cast(pa.string()), page["size"].cast(pa.int64()), versions]
            columns.append(pa.nulls(page.num_rows, pa.int64()))
            yield pa.RecordBatch.from_arrays(columns, schema=LISTING_SCHEMA)

    def list(self, prefix: str) -> Iterator[Any]:
        raise NotImplementedError

    def stat(self, key: str) -> Any:
        raise NotImplementedError


ORDERED = [f"{number % 20:02d}/{number:04d}" for number in range(600)]
TWISTED = [f"{name}{number:03d}" for name in ("a/", "a-1/", "a.b/", "a/n/", "b", "b-", "a0/") for number in range(80)]


@pytest.mark.parametrize(("name", "keys"), [("ordered", ORDERED), ("twisted", TWISTED)])
def test_seaweedfs_is_listed_whole_whatever_its_order(name: str, keys: list[str], s3: S3Server, tmp_path: Path) -> None:
    store = ObstorePages(s3, 7)
    top = f"listing-{hashlib.md5(name.encode()).hexdigest()}/"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: obstore.put(store.store, top + key, b"x"), keys))
    for concurrency in (1, 4, 16):
        found = keys_of(store, top, concurrency=concurrency, journal=tmp_path / f"{concurrency}")
        assert sorted(found) == sorted(top + key for key in keys)
        assert name != "ordered" or found == sorted(found)


def test_versions_are_those_of_the_store(s3: S3Server) -> None:
    store = ObstorePages(s3, 1000)
    obstore.put(store.store, "listing-versions/x", b"x")
    ((row,),) = [batch.to_pylist() for batch in scan(store, "listing-versions/")]  # type: ignore[arg-type]
    assert row["version"] == f"etag:{obstore.head(store.store, 'listing-versions/x')['e_tag']}"
