from __future__ import annotations

import pickle
import secrets
from typing import TYPE_CHECKING

import pytest

from sources.azure import AzureStore
from sources.contract import Place, SwapContract
from sources.errors import SourceAuthError, SourceConfigError, SourceNotFoundError
from sources.stores import ListDirectories, ListPages
from tests.services import azurite
from tests.services.azurite import ACCOUNT, KEY, AzureServer, azure_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINER = "forebay-tests"
SECRET = "aHVudGVyMi1pcy1ub3QtYS1zZWNyZXQtdG8tc2hvdw=="


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    require(azurite.missing())
    with azure_server(tmp_path_factory.mktemp("azure"), containers=(CONTAINER, "one")) as server:
        yield server


@pytest.fixture
def store(azure: AzureServer) -> AzureStore:
    return AzureStore.open(f"az://{CONTAINER}/", azure.options)


class TestAzureStore(SwapContract):
    races = 5

    @pytest.fixture
    def place(self, store: AzureStore) -> Place:
        return store, f"contract/{secrets.token_hex(4)}/"


def test_listing_stat_and_swap_tell_one_etag_with_its_quotes(store: AzureStore) -> None:
    version = store.swap("etag/x", b"12345", expect=None)
    (listed,) = store.list("etag/")
    assert listed.version == store.stat("etag/x").version == version
    assert version.startswith('etag:"')
    assert version.endswith('"')


def test_only_directories_are_promised(store: AzureStore) -> None:
    assert isinstance(store, ListDirectories)
    assert not isinstance(store, ListPages)


def test_an_empty_blob_that_is_a_directory_is_not_listed(store: AzureStore) -> None:
    for key in ("hns/directory", "hns/directory/file", "hns/empty"):
        store.put(key, b"")
    assert sorted(stat.key for stat in store.list("hns/")) == ["hns/directory/file", "hns/empty"]
    page = store.scan_directory("hns/")
    assert page.files.column("key").to_pylist() == ["hns/empty"]
    assert page.directories == ["hns/directory/"]


def test_a_body_of_many_blocks_is_written_whole(store: AzureStore) -> None:
    data = bytes(range(256)) * (17 << 12)  # 17 MiB: three blocks
    store.put("large", data)
    stat = store.stat("large")
    assert bytes(store.read("large", start=0, length=len(data), version=stat.version)) == data


def test_a_connection_string_and_the_other_scheme_open_the_same_store(azure: AzureServer, store: AzureStore) -> None:
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={azure.endpoint};"
    other = AzureStore.open(f"abfs://{CONTAINER}/", {"connection_string": text})
    store.put("same", b"1")
    assert other.id == store.id
    assert other.stat("same") == store.stat("same") == pickle.loads(pickle.dumps(other)).stat("same")


def test_a_missing_container_and_a_wrong_key_are_told(azure: AzureServer) -> None:
    with pytest.raises(SourceNotFoundError, match="no such bucket: az://no-such-container"):
        list(AzureStore.open("az://no-such-container/", azure.options).list(""))
    refused = AzureStore.open(f"az://{CONTAINER}/", {**azure.options, "account_key": SECRET})
    with pytest.raises(SourceAuthError, match="account_key") as caught:
        refused.stat("x")
    assert SECRET not in str(caught.value)
    anonymous = {"account_name": ACCOUNT, "endpoint": azure.endpoint, "anon": True}
    with pytest.raises((SourceAuthError, SourceNotFoundError)):  # Azure hides what is not public
        AzureStore.open(f"az://{CONTAINER}/", anonymous).stat("x")


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("az:///x", {"account_name": "a"}, "the container is missing"),
        ("az://c/x", {}, "option account_name is missing"),
        ("az://c/x", {"account": "a"}, "unknown option 'account'; known: account_key"),
        ("az://c/x", {"account_name": "a", "anon": "false"}, "anon is true or false"),
        ("az://c/x", {"account_name": "a", "endpoint": "host"}, "endpoint is a http"),
        ("az://c/x", {"account_name": 5}, "account_name is a string"),
        ("az://c/x", {"connection_string": f"AccountKey={SECRET}"}, "neither AccountName nor BlobEndpoint"),
        ("az://c/x", {"account_name": "a", "account_key": "hunter2!"}, "a value that cannot be"),
    ],
)
def test_a_wrong_uri_or_option_is_named(
    uri: str, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(SourceConfigError, match=message) as caught:
        AzureStore.open(uri, options)
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)
