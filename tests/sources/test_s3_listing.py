from __future__ import annotations

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest

from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services.faults import fault_proxy
from tests.services.moto import missing, moto_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.weed import S3Server

PAGE_KEYS = 50
NAMES = ("a", "a/b", "a-b", "a//b", "./x", "q?%25 +&ü", "z")


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Store, Any]]:
    """A server of small pages that keeps every key as it is, and a client to write with behind the store's back."""
    require(missing())
    with moto_server(tmp_path_factory.mktemp("moto"), page_keys=PAGE_KEYS) as server:
        client = botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=server.endpoint,
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        client.create_bucket(Bucket="bucket")
        yield S3Store("bucket", server.options), client
        client.close()


def fill(client: Any, keys: list[str]) -> None:
    def put(key: str) -> None:
        client.put_object(Bucket="bucket", Key=key, Body=b"" if key.endswith(("/", "0")) else b"1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, keys))


def test_every_kind_of_key_is_listed_once_and_read_as_listed(moto: tuple[S3Store, Any]) -> None:
    store, client = moto
    keys = [f"kinds/{name}" for name in NAMES]
    fill(client, [*keys, "kinds/", "kinds/a/", "kinds//"])
    listed = list(store.list("kinds/"))
    assert [stat.key for stat in listed] == sorted(keys, key=str.encode)
    for stat in listed:
        assert store.stat(stat.key).version == stat.version
        assert store.read(stat.key, start=0, length=1, version=stat.version) == b"1"
    for prefix in ("kinds/a", "kinds/a/", "kinds/a//", "kinds//", "kinds/./"):
        expected = [key for key in sorted(keys, key=str.encode) if key.startswith(prefix)]
        assert [stat.key for stat in store.list(prefix)] == expected


def test_an_object_and_a_marker_of_one_name_are_told_apart(moto: tuple[S3Store, Any]) -> None:
    store, client = moto
    fill(client, ["both/x", "both/x/", "both/x0", "both/x0/", "both/x0/y", "both/y/", "both/z0"])
    assert [stat.key for stat in store.list("both/")] == ["both/x", "both/x0", "both/x0/y", "both/z0"]


def test_pages_with_odd_keys_anywhere_lose_and_repeat_nothing(moto: tuple[S3Store, Any]) -> None:
    store, client = moto
    keys = [f"many/{number:03d}" for number in range(100, 160)]
    odd = ["many/115/", "many/148/", "many/149/", "many/152//x", "many/155-/"]  # two at the end of the first page
    fill(client, keys + odd)
    true = sorted([*keys, "many/152//x"])
    assert [stat.key for stat in store.list("many/")] == true
    random_key = random.Random(7)
    for after in ["many/149/", "many/152//", *random_key.sample(true, 2)]:
        listed = [key for page in store.pages("many/", after=after) for key in page.column("key").to_pylist()]
        assert listed == [key for key in true if key > after]


def test_a_page_may_end_in_any_key(moto: tuple[S3Store, Any]) -> None:
    store, client = moto
    keys = [f"ends/a{number:03d}" for number in range(PAGE_KEYS - 2)]
    keys += ["ends/x//a", "ends/x//b", "ends/x//c", "ends/x/b", "ends/y"]  # the first page ends amid them
    fill(client, keys)
    assert [stat.key for stat in store.list("ends/")] == keys


@pytest.mark.parametrize("character", ["\x01", "\ufffe", "\uffff", "\ufffd"])
def test_a_character_that_xml_cannot_carry_is_listed_as_it_is(s3: S3Server, character: str) -> None:
    store = S3Store(BUCKET, s3.options)
    key = f"xml-{ord(character)}/{character}"
    store.put(key, b"1")
    assert list(store.list(f"xml-{ord(character)}/")) == [store.stat(key)]


def test_empty_objects_cost_one_request_a_page(s3: S3Server) -> None:
    prefix = f"empty-{secrets.token_hex(4)}/"
    writer = S3Store(BUCKET, s3.options)
    for number in range(20):
        writer.put(f"{prefix}{number:02d}", b"")
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        store = S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url})
        assert len(list(store.list(prefix))) == 20
        assert proxy.counts.requests == 2
