from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import botocore.session
import pytest

from sources import SourceChangedError
from sources.s3 import S3Store

if TYPE_CHECKING:
    from tests.services.weed import S3Server


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """A bucket that keeps versions, with an object from before it did."""
    name = f"versions-{secrets.token_hex(4)}"
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.key,
        aws_secret_access_key=s3.secret,
    )
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="before/x", Body=b"old")
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    client.close()
    return name


@pytest.fixture
def store(s3: S3Server, bucket: str) -> S3Store:
    return S3Store(bucket, {**s3.options, "version_aware": True})


def test_an_overwritten_and_a_deleted_object_stay_readable(store: S3Store) -> None:
    store.put("kept/x", b"first")
    first = store.stat("kept/x")
    store.put("kept/x", b"second one")
    second = store.stat("kept/x")
    store.delete("kept/x")
    assert first.version.startswith("vid:")
    assert store.read("kept/x", start=0, length=5, version=first.version) == b"first"
    assert store.read("kept/x", start=0, length=6, version=second.version) == b"second"
    assert list(store.list("kept/")) == []


def test_a_version_that_never_was_is_gone(store: S3Store) -> None:
    store.put("kept/y", b"first")
    version = store.stat("kept/y").version
    with pytest.raises(SourceChangedError, match="gone"):
        store.read("kept/y", start=0, length=5, version=type(version)(f"vid:{'0' * 32}"))


def test_a_listing_tells_the_latest_versions(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for round_ in range(3):
        for number in range(4):
            store.put(f"latest/{number}", f"{round_}{number}".encode())
    store.put("latest/marker/", b"")
    store.delete("latest/1")
    listed = list(store.list("latest/"))
    assert [stat.key for stat in listed] == ["latest/0", "latest/2", "latest/3"]
    assert [stat.version for stat in listed] == [store.stat(stat.key).version for stat in listed]
    (page,) = store.pages("latest/", after="latest/0")
    assert page.column("key").to_pylist() == ["latest/2", "latest/3"]


def test_what_was_there_before_versions_is_pinned_by_its_etag(store: S3Store) -> None:
    (listed,) = store.list("before/")
    assert listed.version == store.stat("before/x").version
    assert listed.version.startswith("etag:")
    assert store.read("before/x", start=0, length=3, version=listed.version) == b"old"


def test_a_bucket_without_versions_gives_etags(s3: S3Server) -> None:
    store = S3Store("raw", {**s3.options, "version_aware": True})
    store.put("plain/x", b"1")
    (listed,) = store.list("plain/")
    assert listed == store.stat("plain/x")
    assert listed.version.startswith("etag:")


def test_a_version_is_readable_by_a_store_that_does_not_ask_for_versions(
    s3: S3Server, bucket: str, store: S3Store
) -> None:
    store.put("kept/z", b"first")
    version = store.stat("kept/z").version
    store.put("kept/z", b"other")
    plain = S3Store(bucket, s3.options)
    assert plain.stat("kept/z").version.startswith("etag:")
    assert plain.read("kept/z", start=0, length=5, version=version) == b"first"


def test_refs_in_a_bucket_with_versions_are_swapped_by_etag(store: S3Store) -> None:
    first = store.swap("refs/main", b"1", expect=None)
    body, version = store.fetch("refs/main")
    assert (body, version) == (b"1", first)
    assert store.fetch("refs/main")[1] != store.swap("refs/main", b"2", expect=version)
