from __future__ import annotations

import json
import pickle
import secrets
from typing import TYPE_CHECKING

import pytest

from sources.contract import Place, SwapContract
from sources.errors import SourceAuthError, SourceConfigError, SourceNotFoundError, SwapLostError
from sources.gcs import GcsStore
from sources.stores import ListPages
from tests.services import gcs
from tests.services.gcs import GcsServer, gcs_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "forebay-tests"
SECRET = "hunter2-is-not-a-secret-to-show"


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    require(gcs.missing())
    with gcs_server(tmp_path_factory.mktemp("gcs"), buckets=(BUCKET,)) as server:
        yield server


@pytest.fixture
def store(google: GcsServer) -> GcsStore:
    return GcsStore.open(f"gs://{BUCKET}/", google.options)


class TestGcsStore(SwapContract):
    races = 5

    @pytest.fixture
    def place(self, store: GcsStore) -> Place:
        return store, f"contract/{secrets.token_hex(4)}/"


def test_the_same_bytes_again_are_another_generation_and_the_same_etag(store: GcsStore) -> None:
    first = store.swap("ref", b"same", expect=None)
    before = store.stat("ref")
    second = store.swap("ref", b"same", expect=first)
    assert first != second
    assert first.startswith("vid:")
    assert store.stat("ref").version == before.version
    with pytest.raises(SwapLostError):
        store.swap("ref", b"other", expect=first)


def test_pages_start_after_a_key(store: GcsStore) -> None:
    for name in ("a", "b", "b/c", "c"):
        store.put(f"pages/{name}", b"1")
    assert isinstance(store, ListPages)
    keys = [key for page in store.pages("pages/", after="pages/b") for key in page.column("key").to_pylist()]
    assert keys == ["pages/b/c", "pages/c"]
    (listed,) = store.list("pages/a")
    assert listed.version == store.stat("pages/a").version


def test_a_missing_bucket_is_told(google: GcsServer) -> None:
    with pytest.raises(SourceNotFoundError, match="no such bucket: gs://no-such-bucket"):
        list(GcsStore.open("gs://no-such-bucket/", google.options).list(""))


def test_a_pickled_store_reads_the_same(store: GcsStore) -> None:
    store.put("pickle", b"12345")
    assert pickle.loads(pickle.dumps(store)).stat("pickle") == store.stat("pickle")


def test_without_a_name_is_read_and_not_written(google: GcsServer, store: GcsStore) -> None:
    store.put("public", b"1")
    anonymous = GcsStore.open(f"gs://{BUCKET}/", {"endpoint_url": google.endpoint, "token": "anon"})
    assert anonymous.stat("public") == store.stat("public")
    with pytest.raises(SourceAuthError, match="can only read"):
        anonymous.put("public", b"2")
    with pytest.raises(SourceAuthError, match="can only read"):
        anonymous.delete("public")


def test_an_access_token_and_a_key_file_are_taken(google: GcsServer, tmp_path: Path) -> None:
    """The server checks neither, but the client reads and sends them."""
    file = tmp_path / "key.json"
    key = {
        "type": "service_account",
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
        "disable_oauth": True,
    }
    file.write_text(json.dumps(key))
    with_token = GcsStore.open(f"gs://{BUCKET}/", {"endpoint_url": google.endpoint, "token": SECRET})
    with_token.put("token", b"1")
    assert with_token.stat("token").size == 1
    with_key = GcsStore.open(
        f"gs://{BUCKET}/", {"token": {**key, "disable_oauth": True, "gcs_base_url": google.endpoint}}
    )
    assert with_key.stat("token").size == 1


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("gs:///x", {}, "the bucket is missing"),
        ("gs://b/x", {"key": "k"}, "unknown option 'key'; known: endpoint_url, project, token"),
        ("gs://b/x", {"endpoint_url": "host:1"}, "endpoint_url is a http"),
        ("gs://b/x", {"token": 5}, "token is a string or a mapping"),
        ("gs://b/x", {"token": "/nowhere/key.json"}, "token names no file"),
        ("gs://b/x", {"token": {"private_key": SECRET}}, "the credentials cannot be read"),
    ],
)
def test_a_wrong_uri_or_option_is_named(uri: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceConfigError, match=message) as caught:
        GcsStore.open(uri, options)
    assert SECRET not in str(caught.value)
