"""The contract on the store that the command line names; see `sources.contract.plugin`."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import suppress
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sources.contract.kinds import ReadOnlyContract, StoreContract, SwapContract
from sources.errors import SourceConfigError, SourceNotFoundError
from sources.opening import open_store
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources.contract.places import DeleteBehind, Place, PutBehind
    from sources.stores import Store

_SECRET = re.compile(r"secret|token|password|credential|headers|params|sas|account_key", re.IGNORECASE)


class _Behind(NamedTuple):
    store: Store
    prefix: str


@pytest.fixture
def scratch() -> str:
    """Name a directory that nobody has."""
    return f"forebay-contract-{secrets.token_hex(6)}/"


@pytest.fixture
def named_place(pytestconfig: pytest.Config, scratch: str) -> Place:
    """Open the store of `--forebay-store`, at a prefix of its own."""
    uri = pytestconfig.getoption("forebay_store")
    if not uri:
        pytest.skip("NOT TESTED: name a store, --forebay-store=URI")
    return open_store(uri, _options(pytestconfig)), _prefix(uri, scratch)


@pytest.fixture
def behind(pytestconfig: pytest.Config, named_place: Place, scratch: str) -> Iterator[_Behind]:
    """Open the store that can write, and delete what the test leaves in it."""
    uri = pytestconfig.getoption("forebay_behind")
    there = _Behind(open_store(uri), _prefix(uri, scratch)) if uri else _Behind(*named_place)
    yield there
    with suppress(SourceNotFoundError):  # the test made no directory
        for stat in list(there.store.list(there.prefix)):
            there.store.delete(stat.key)


class _Named:
    @pytest.fixture
    def place(self, named_place: Place, behind: _Behind) -> Place:
        return named_place

    @pytest.fixture
    def put_behind(self, place: Place, behind: _Behind) -> PutBehind:
        return lambda key, data: behind.store.put(behind.prefix + key.removeprefix(place[1]), data)

    @pytest.fixture
    def delete_behind(self, place: Place, behind: _Behind) -> DeleteBehind:
        return lambda key: behind.store.delete(behind.prefix + key.removeprefix(place[1]))

    @pytest.fixture
    def secret_values(self, pytestconfig: pytest.Config) -> list[str]:
        found: list[str] = []
        for name, value in _options(pytestconfig).items():
            if _SECRET.search(name):
                found += _texts(value)
        return found

    def test_an_unknown_option_is_named_without_its_value(self, pytestconfig: pytest.Config) -> None:
        """A misspelt option must not be passed over; what it was given may be a secret."""
        uri, secret = pytestconfig.getoption("forebay_store"), secrets.token_hex(8)
        if not uri or split_uri(uri).scheme not in {point.name for point in entry_points(group="forebay.sources")}:
            pytest.skip("fsspec's filesystems check their options when they are used, or not at all")
        with pytest.raises(SourceConfigError, match="no_such_option") as caught:
            open_store(uri, {**_options(pytestconfig), "no_such_option": secret})
        assert secret not in str(caught.value)


class TestReadOnlyStore(_Named, ReadOnlyContract):
    """With `--forebay-behind`."""


class TestStore(_Named, StoreContract):
    """Of its own."""


class TestSwapStore(_Named, SwapContract):
    """With `--forebay-swap`."""


def _prefix(uri: str, scratch: str) -> str:
    key = split_uri(uri).key
    return f"{key.rstrip('/')}/{scratch}" if key else scratch


def _options(config: pytest.Config) -> dict[str, object]:
    options: dict[str, object] = {}
    for pair in config.getoption("forebay_option"):
        name, equals, value = pair.partition("=")
        if not equals:
            raise pytest.UsageError("--forebay-option takes NAME=VALUE")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    return [str(value)] if value else []
