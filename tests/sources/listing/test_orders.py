from __future__ import annotations

import random
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.listing import scan
from tests.sources.listing.servers import FlatServer, PlainServer, TreeServer, directory_server

NAMES = st.text(alphabet="ab~-./01é", min_size=1, max_size=6).filter(
    lambda key: not key.startswith("/") and "//" not in key and not key.endswith("/")
)
KEYS = st.lists(NAMES, unique=True, max_size=60)


def keys_of(server: object, prefix: str = "", **options: object) -> list[str]:
    batches = scan(server, prefix, **options)  # type: ignore[arg-type]
    return [str(key) for key in chain.from_iterable(batch.column("key").to_pylist() for batch in batches)]


@given(keys=KEYS, page=st.integers(1, 5), concurrency=st.integers(1, 5), prefix=st.sampled_from(["", "a", "a/", "-"]))
@settings(max_examples=300, deadline=None)
def test_a_server_in_byte_order_is_listed_whole_and_in_order(
    keys: list[str], page: int, concurrency: int, prefix: str
) -> None:
    found = keys_of(FlatServer(keys, page), prefix, concurrency=concurrency)
    assert found == sorted(key for key in keys if key.startswith(prefix))


@given(keys=KEYS, page=st.integers(1, 5), concurrency=st.integers(1, 5), prefix=st.sampled_from(["", "a", "a/", "-"]))
@settings(max_examples=500, deadline=None)
def test_a_server_in_directory_order_loses_and_doubles_nothing(
    keys: list[str], page: int, concurrency: int, prefix: str
) -> None:
    server = directory_server(keys, page)
    found = keys_of(server, prefix, concurrency=concurrency)
    assert sorted(found) == sorted(key for key in server.keys if key.startswith(prefix))


@given(keys=KEYS)
@settings(max_examples=200, deadline=None)
def test_a_tree_is_listed_whole_and_in_order(keys: list[str]) -> None:
    for prefix in ("", "a/", "a"):
        wanted = sorted(key for key in keys if key.startswith(prefix))
        if wanted or "/" not in prefix:
            assert keys_of(TreeServer(keys), prefix, concurrency=3) == wanted


@pytest.mark.parametrize(
    "shape", ["{:06d}", "a/b/{:06x}/x", "dir-{0:03d}/{0:06d}.jpg", "{0:x}", "y=2024/m={0}/p-{0:08d}"]
)
@pytest.mark.parametrize("make", [FlatServer, directory_server])
def test_large_listings_are_right_for_many_shapes_of_names(shape: str, make: type[FlatServer]) -> None:
    keys = [shape.format(number) for number in random.Random(1).sample(range(1 << 20), 5000)]
    server = make(keys, 50)
    assert sorted(keys_of(server)) == sorted(set(keys))


def test_a_plain_store_is_listed_in_its_own_order() -> None:
    keys = [f"k{number}" for number in range(2500, 0, -1)]
    assert keys_of(PlainServer(keys)) == keys
