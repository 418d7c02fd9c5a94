from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol import (
    BATCH_HEADER,
    BATCH_PATH,
    decode_batch,
    encode_batch,
    frame_item,
    read_whole_objects,
    split_batch,
)
from cache_runtime.store.layout import RECORD_HEADER, RECORD_MAGIC
from cache_runtime.worker.heads import read_batch_head
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.worker.test_hits import connect, read_answer
from tests.cache_runtime.worker.test_protocol import locations
from tests.cache_runtime.worker.test_serving import wait_for
from tests.cache_runtime.worker.workers import worker

if TYPE_CHECKING:
    import http.client
    import socket
    from pathlib import Path

    from sources import Location
    from tests.cache_runtime.lake import Lake
    from tests.cache_runtime.worker.workers import Worker


def batch_of(items: list[Location], *lines: str) -> bytes:
    """A batch as the client sends it; with a line that is not known here, it is left to aiohttp."""
    body = encode_batch(items, fill=False)
    rows = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}", "Content-Type: application/json"))
    return f"POST {BATCH_PATH} HTTP/1.1\r\nHost: x\r\n{rows}\r\n".encode() + body


def exchange(connection: socket.socket, request: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    connection.sendall(request)
    return read_answer(connection)


def warm(running: Worker, items: list[Location]) -> None:
    """Have the worker get and check items: twice, for it remembers them as checked from the second time on."""
    for _ in range(2):
        answer = running.post(BATCH_PATH, encode_batch(items, fill=True))
        assert not any(one.error for one in split_batch(answer.data, items))


def bodies(data: bytes, items: list[Location]) -> list[bytes]:
    answers = list(split_batch(data, items))
    assert not any(answer.error for answer in answers)
    return [bytes(answer.data) for answer in answers]


def test_an_item_is_framed_as_a_record_is_written() -> None:
    assert BATCH_HEADER.format == RECORD_HEADER.format
    assert frame_item(bytes(16), b"x").startswith(RECORD_MAGIC)


def test_a_batch_is_the_same_answer_however_it_is_asked_for(running: Worker, shared_lake: Lake) -> None:
    items = [whole(shared_lake.add(f"alike{n}", 1 + 997 * n)) for n in range(60)]
    warm(running, items)
    with connect(running) as connection:
        asked = [batch_of(items, "Forebay-Request: r1", *more) for more in ((), ("X-Unknown: 1",))]
        answers = [exchange(connection, request) for request in (*asked, asked[0])]
    assert answers[0][1] == answers[1][1] == answers[2][1]
    assert bodies(answers[0][1], items) == [shared_lake.expected(item) for item in items]
    quick, slow, again = ({n: v for n, v in answer.headers.items() if n != "Date"} for answer, _ in answers)
    assert quick == slow == again
    running.process.wait_until(lambda _: len(lines_of("r1", running)) == 3)  # a line follows its answer


def lines_of(request: str, running: Worker) -> list[str]:
    text = running.process.log.read_text()
    whole_lines = text[: text.rfind("\n") + 1].splitlines()
    return [line for line in whole_lines if json.loads(line)["fields"].get("id") == request]


@given(st.lists(locations(most=1 << 19), max_size=10), st.booleans(), st.booleans())
def test_whole_objects_are_read_as_the_batch_that_they_are(items: list[Location], fill: bool, bodies: bool) -> None:
    for some in (items, [whole(item.object) for item in items]):
        body = encode_batch(some, fill=fill, bodies=bodies)
        found = read_whole_objects(body)
        if found is None:
            continue
        assert bodies
        assert [whole(found.ref(number)) for number in range(len(found.ids))] == some
        assert found.ids == [item.object.id for item in some]


def test_names_that_are_not_as_they_should_be_are_left_to_the_strict_way() -> None:
    digest = "ab" * 32
    good: list[object] = ["s3://b", "k", "v", 5, 0, 5]
    assert read_whole_objects(json.dumps({"items": [good]}).encode()) is not None
    assert read_whole_objects(json.dumps({"items": [["s3://b", f"x/{digest}", f"oid:{digest}", 5, 0, 5]]}).encode())
    for place, value in (
        *((place, value) for place in (0, 1, 2) for value in ("", "a\0b", 1, None, "x" * 2100, "\ud800")),
        *((place, value) for place in (3, 4, 5) for value in ("5", 5.0, True, -1, 6, None)),
        (2, f"oid:{digest}"),
    ):
        row = [*good[:place], value, *good[place + 1 :]]
        body = json.dumps({"items": [row]}).encode()
        assert read_whole_objects(body) is None, row
        if value != 6 or place == 5:
            with pytest.raises(ProtocolError):
                decode_batch(body)
    # the same version, spelt such that it is not to be found in the body
    hidden = json.dumps({"items": [["s3://b", "k", f"oid:{digest}", 5, 0, 5]]}).replace("oid:", r"\u006fid:")
    assert read_whole_objects(hidden.encode()) is None
    documents: list[object] = [[], {}, {"items": []}, {"items": [good[:5]]}, {"items": [good], "fill": 1}, {"items": 1}]
    for document in documents:
        assert read_whole_objects(json.dumps(document).encode()) is None


def test_only_a_plain_post_with_all_of_its_body_is_a_batch() -> None:
    ref = ObjectRef(StoreId("s3://b"), "k", Version("v"), 5)
    request = batch_of([whole(ref)])
    head = read_batch_head(request, max_bytes=1000)
    assert head is not None
    assert request[head.body_start :] == encode_batch([whole(ref)], fill=False)
    for other in (
        *(request[:cut] for cut in range(len(request))),
        request + b"x",
        request.replace(b"POST", b"GET "),
        request.replace(b"/v1/batch", b"/v1/evict"),
        request.replace(b"application/json", b"text/plain"),
        request.replace(b"\r\nContent-Type: application/json", b""),
        request.replace(b"Content-Length: ", b"Content-Length: 0"),
        request.replace(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"),
        request.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"),
        request.replace(b"Host: x", b"Host: x\r\nRange: bytes=0-1"),
        request.replace(b"Host: x", b"Host: x\r\nHost: y"),
        request.replace(b"Host: x", b"Host: x\r\nConnection: close"),
    ):
        assert read_batch_head(other, max_bytes=1000) is None, other


def test_every_guard_is_before_a_batch_that_is_answered_at_once(lake: Lake, tmp_path: Path) -> None:
    token = "token-of-the-tests-0123456789"
    items = [whole(lake.add(f"guarded{n}", 3000)) for n in range(3)]
    foreign = ObjectRef(StoreId("s3://elsewhere"), items[0].object.key, items[0].object.version, 3000)
    root = items[0].object.key.rpartition("/")[0]
    above = ObjectRef(items[0].object.store, f"{root}/../secret", items[0].object.version, 3000)
    with worker(lake.root, tmp_path / "cache", tokens=[token]) as running:
        warm(running, items)
        good = f"Authorization: Bearer {token}"
        with connect(running) as connection:
            for lines, status in (([good], 200), ([], 401), (["Authorization: Bearer other-token-0123"], 401)):
                assert exchange(connection, batch_of(items, *lines))[0].status == status
            for ref in (foreign, above):
                _, data = exchange(connection, batch_of([*items, whole(ref)], good))
                *found, refused = split_batch(data, [*items, whole(ref)])
                assert not any(answer.error for answer in found)
                assert refused.error is not None
                assert refused.error.kind == "store_not_configured"
            beyond = batch_of(items, good).replace(b"3000", b"3001")
            assert exchange(connection, beyond)[0].status == 200  # other objects, which are not here


def test_a_slow_reader_holds_no_more_than_it_asked_for_and_is_cut_off(lake: Lake, tmp_path: Path) -> None:
    items = [whole(lake.add(f"slow{n}", 60_000)) for n in range(16)]
    with worker(lake.root, tmp_path / "cache", limits={"stall_seconds": 1.5, "max_inflight_bytes": 2 * MIB}) as running:
        warm(running, items)
        held = [connect(running) for _ in range(8)]
        for connection in held:  # more answers than fit between the two, of which nothing is read
            with suppress(BlockingIOError):
                connection.setblocking(False)
                for _ in range(12):
                    connection.send(batch_of(items))
        most = 0
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            most = max(most, running.stats()["inflight_bytes"])
            time.sleep(0.05)
        assert most <= 2 * MIB + len(held) * MIB  # what was let in, each with at most one answer on top
        time.sleep(2.5)
        assert running.stats()["inflight_bytes"] == 0
        for connection in held:
            connection.close()
        with connect(running) as connection:
            assert bodies(exchange(connection, batch_of(items))[1], items) == [lake.expected(item) for item in items]


def test_a_batch_and_a_hit_that_are_under_way_as_the_worker_leaves_end_whole(lake: Lake, tmp_path: Path) -> None:
    items = [whole(lake.add(f"leaving{n}", 60_000)) for n in range(16)]
    large = whole(lake.add("leaving-large", 48 * MIB))
    with worker(lake.root, tmp_path / "cache", drain_seconds=20) as leaving:
        warm(leaving, items)
        leaving.read(large)
        with connect(leaving) as batches, connect(leaving) as hit:
            for _ in range(12):
                batches.sendall(batch_of(items))
            target = f"/v1/objects/{large.object.id.hex()}"
            ref = large.object
            query = f"store={ref.store}&key={ref.key}&version={ref.version}&size={ref.size}&fill=0"
            hit.sendall(f"GET {target}?{query} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n".encode())
            time.sleep(0.3)
            os.kill(leaving.process.pid, signal.SIGTERM)
            wait_for(leaving, "worker leaving")
            assert read_answer(hit)[1] == lake.expected(large)
            assert bodies(read_answer(batches)[1], items) == [lake.expected(item) for item in items]
        assert leaving.process.wait(20) == 0


def test_slabs_and_files_that_are_cut_while_they_are_sent_end_the_connection_and_not_the_worker(
    lake: Lake, tmp_path: Path
) -> None:
    items = [whole(lake.add(f"cut{n}", 60_000)) for n in range(16)]
    large = whole(lake.add("cut-large", 24 * MIB))
    cache = tmp_path / "cache"
    with worker(lake.root, cache) as running:
        warm(running, items)
        running.read(large)
        wrong: list[bytes] = []

        def read_on() -> None:
            while not over.is_set():
                with suppress(OSError, HTTPException), connect(running) as connection:
                    while not over.is_set():
                        answer, data = exchange(connection, batch_of(items))
                        if answer.status != 200 or len(data) < int(answer.headers["Content-Length"]):
                            break
                        with suppress(ProtocolError):  # found on arrival
                            found = split_batch(data, items)
                            for one, item in zip(found, items, strict=True):
                                if one.error is None and one.data != lake.expected(item):
                                    wrong.append(bytes(one.data))

        over = threading.Event()
        readers = [threading.Thread(target=read_on) for _ in range(2)]
        for reader in readers:
            reader.start()
        time.sleep(0.3)
        for path in [*(cache / "slabs").iterdir(), *(path for path in (cache / "files").rglob("*") if path.is_file())]:
            os.truncate(path, 4096)
        time.sleep(0.5)
        for _ in range(3):
            with suppress(urllib3.exceptions.HTTPError):  # cut off
                answer = running.read(large, fill=False)
                assert answer.status != 206 or answer.data == lake.expected(large) or len(answer.data) < large.length
        over.set()
        for reader in readers:
            reader.join(30)
        assert wrong == []
        assert running.ask("GET", "/healthz").status == 200  # no SIGBUS
        assert running.process.is_running


def test_damage_on_disk_after_the_check_is_found_on_arrival(lake: Lake, tmp_path: Path) -> None:
    items = [whole(lake.add(f"damaged{n}", 3000)) for n in range(4)]
    cache = tmp_path / "cache"
    with worker(lake.root, cache) as running:
        warm(running, items)
        with connect(running) as connection:
            assert bodies(exchange(connection, batch_of(items))[1], items)
            (slab,) = (cache / "slabs").iterdir()
            raw = slab.read_bytes()
            place = raw.index(lake.expected(items[2])) + 100
            with slab.open("r+b") as file:
                file.seek(place)
                file.write(bytes([raw[place] ^ 1]))
            answers = split_batch(exchange(connection, batch_of(items))[1], items)
            assert [next(answers).data, next(answers).data] == [lake.expected(item) for item in items[:2]]
            with pytest.raises(ProtocolError, match="check"):
                next(answers)
