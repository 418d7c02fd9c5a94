"""Small objects of a store that reads many of them in one thread."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client, LoadStop, plan_load, run_load
from sources import Limits, Location, ObjectRef, Origins, Version, open_store
from tests.conftest import BUCKET
from tests.services.scripted import scripted_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sources.stores import Store
    from tests.services.weed import S3Server

COUNT = 300
BODY = random.Random(1).randbytes(2000)

Place = tuple["Store", dict[str, bytes]]


@pytest.fixture(scope="module")
def place(s3: S3Server) -> Place:
    """A store with small objects."""
    store = open_store(f"s3://{BUCKET}/", s3.options)
    draw = random.Random(5)
    objects = {f"small/{number:04d}": draw.randbytes(draw.randint(1, 4000)) for number in range(COUNT)}
    for key, body in objects.items():
        store.put(key, body)
    return store, objects


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Store], Client]]:
    stores = []

    def client_of(store: Store) -> Client:
        origins = Origins()
        origins.add("", store)
        stores.append(BlockStore.open(tmp_path / "cache", capacity_bytes=64 << 20))
        return Client(origins, stores[-1])

    yield client_of
    for store in stores:
        store.close()


def test_a_load_gets_all_and_asks_once_for_each(s3: S3Server, place: Place, opened: Callable[[Store], Client]) -> None:
    store, objects = place
    client = opened(store)
    locations = [
        Location(ObjectRef(store.id, stat.key, stat.version, stat.size), 0, stat.size) for stat in store.list("small/")
    ]
    before = s3.requests()
    report = run_load(client, plan_load(client, locations), concurrency=8)
    assert report.verified
    assert report.failures == ()
    assert s3.requests() - before == COUNT
    assert client.stats.reads_origin == COUNT
    assert [bytes(view) for view in client.read_many(locations)] == list(objects.values())
    assert client.stats.reads_origin == COUNT


def test_what_fails_is_listed_and_the_rest_is_there(place: Place, opened: Callable[[Store], Client]) -> None:
    store, objects = place
    refs = [ObjectRef(store.id, stat.key, stat.version, stat.size) for stat in store.list("small/")]
    refs[7] = ObjectRef(store.id, refs[7].key, Version('etag:"other"'), refs[7].size)
    refs[200] = ObjectRef(store.id, "small/none", refs[200].version, refs[200].size)
    client = opened(store)
    report = run_load(client, plan_load(client, [Location(ref, 0, ref.size) for ref in refs]), concurrency=8)
    assert {(failure.uri, failure.kind) for failure in report.failures} == {
        (refs[7].uri, "source_changed"),
        (refs[200].uri, "source_changed"),
    }
    assert report.fetched_objects == COUNT - 2
    good = [ref for number, ref in enumerate(refs) if number not in (7, 200)]
    found = client.read_many([Location(ref, 0, ref.size) for ref in good])
    assert [bytes(view) for view in found] == [objects[ref.key] for ref in good]


def answer(_head: str) -> list[bytes | float | None]:
    size = len(BODY)
    fields = f'Content-Length: {size}\r\nContent-Range: bytes 0-{size - 1}/{size}\r\nETag: "1"\r\n\r\n'
    return [0.005, b"HTTP/1.1 206 Partial Content\r\n" + fields.encode() + BODY]


def made_up(url: str) -> tuple[Store, list[Location]]:
    options = {"anon": True, "endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}}
    store = open_store(f"s3://made-up-{url.rpartition(':')[2]}/", options, limits=Limits())
    refs = [ObjectRef(store.id, f"key-{number}", Version('etag:"1"'), len(BODY)) for number in range(COUNT)]
    return store, [Location(ref, 0, ref.size) for ref in refs]


def test_a_load_has_as_many_requests_at_a_time_as_it_may(opened: Callable[[Store], Client]) -> None:
    with scripted_server(answer) as server:
        store, locations = made_up(server.url)
        client = opened(store)
        assert run_load(client, plan_load(client, locations), concurrency=6).verified
        assert 3 <= server.most_at_once <= 6


def test_a_load_that_is_cancelled_drops_what_is_in_progress(opened: Callable[[Store], Client]) -> None:
    cancel = threading.Event()
    asked: list[str] = []

    def hang(head: str) -> list[bytes | float | None]:
        asked.append(head)
        if len(asked) < 100:
            return answer(head)
        cancel.set()
        return [15.0, None]

    with scripted_server(hang) as server:
        store, locations = made_up(server.url)
        client = opened(store)
        report = run_load(client, plan_load(client, locations), concurrency=8, cancel=cancel)
        assert report.stopped is LoadStop.CANCELLED
        assert len(asked) < 120
