from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.protocol import BATCH_PATH, encode_batch, format_range, object_target
from cache_runtime.worker.heads import Framing, read_head
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.worker.test_hits import connect, read_answer
from tests.cache_runtime.worker.test_serving import wait_for
from tests.cache_runtime.worker.workers import worker

if TYPE_CHECKING:
    import http.client
    import socket
    from pathlib import Path

    from sources import Location
    from tests.cache_runtime.lake import Lake
    from tests.cache_runtime.worker.workers import Worker

TARGET = f"/v1/objects/{'0' * 32}?store=a&key=b&version=c&size=1&fill=0"
HEAD = f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-5\r\n\r\n".encode()


def request_of(location: Location, *lines: str) -> bytes:
    rows = "".join(f"{line}\r\n" for line in lines)
    rows = f"Host: x\r\nRange: {format_range(location.offset, location.length)}\r\n{rows}"
    return f"GET {object_target(location.object, fill=False)} HTTP/1.1\r\n{rows}\r\n".encode()


def exchange(connection: socket.socket, request: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    connection.sendall(request)
    return read_answer(connection)


def test_only_a_plain_head_that_is_all_there_is_read() -> None:
    head = read_head(HEAD, max_bytes=1000)
    assert head is not None
    assert (head.target, head.range, head.authorization, head.request_id) == (TARGET, "bytes=0-5", None, None)
    plain = HEAD[:-2]
    more = plain + b"authorization: Bearer x\r\nForebay-Request: r\r\nConnection: keep-alive\r\n\r\n"
    assert read_head(more, max_bytes=1000) == (TARGET, "bytes=0-5", "Bearer x", "r")
    assert read_head(more, max_bytes=len(more) - 1) is None
    for cut in range(len(HEAD)):
        assert read_head(HEAD[:cut], max_bytes=1000) is None
    for line in (
        b"Connection: close",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"X-Unknown: 1",
        b"If-Match: *",
        b"Host: y",
        b"range: bytes=1-2",
        b"Accept: \x00",
        b"Accept: \xff",
        b"Accept: a\nb: c",
        b"Accept : a",
        b" folded",
        b"Accept:",
    ):
        assert read_head(plain + line + b"\r\n\r\n", max_bytes=1000) is None, line
    for other in (
        HEAD + HEAD,
        HEAD + b"G",
        b"\r\n" + HEAD,
        HEAD.replace(b"GET", b"HEAD"),
        HEAD.replace(b"1.1", b"1.0"),
        HEAD.replace(b"Host", b"User-Agent"),
        HEAD.replace(b"\r\n", b"\n"),
        HEAD.replace(b"?store", b"#store"),
    ):
        assert read_head(other, max_bytes=1000) is None, other


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_head(data: bytes) -> None:
    assert read_head(data, max_bytes=1000) is None
    Framing().note(data)


PLAIN = [
    HEAD,
    b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"
    + b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\n".ljust(60),
]


@given(st.lists(st.tuples(st.sampled_from(PLAIN), st.lists(st.integers(0, 60), max_size=3))))
def test_framing_knows_where_plain_requests_end_and_never_takes_another_place_for_one(
    sent: list[tuple[bytes, list[int]]],
) -> None:
    framing = Framing()
    for request, cuts in sent:
        body = request.index(b"\r\n\r\n") + 4  # a head that comes in parts is given up
        places = sorted({min(body + cut, len(request)) for cut in cuts} | {len(request)})
        start = 0
        for place in places:
            framing.note(request[start:place])
            start = place
            assert framing.is_clean == (place == len(request))
    assert framing.is_clean


def test_framing_is_given_up_for_good() -> None:
    for strange in (
        HEAD[:20],
        HEAD + HEAD,
        HEAD + b"G",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nab",
    ):
        framing = Framing()
        framing.note(strange)
        for data in (b"", HEAD, HEAD):
            assert not framing.is_clean, strange
            framing.note(data)


def test_what_the_fast_way_relies_on_is_there_in_aiohttp() -> None:
    slots = web.RequestHandler.__slots__
    wanted = {"_waiter", "_messages", "_force_close", "_close", "_next_keepalive_close_time", "_keepalive_timeout"}
    assert wanted <= set(slots)


async def _look_at_a_connection() -> None:
    made: list[Any] = []
    during: list[bool] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        during.append(is_idle())
        return web.Response()

    loop = asyncio.get_running_loop()
    server = web.Server(answer)

    def make() -> web.RequestHandler:
        handler = web.RequestHandler(server, loop=loop, keepalive_timeout=7.0)
        made.append(handler)
        return handler

    def is_idle() -> bool:
        one = made[0]
        return not (one._waiter is None or one._waiter.done() or one._messages or one._force_close or one._close)

    listener = await loop.create_server(make, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    await asyncio.sleep(0.05)
    assert is_idle()
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        assert is_idle()
        assert made[0]._keepalive_timeout == 7.0
        assert 6.0 < made[0]._next_keepalive_close_time - loop.time() <= 7.0
    assert during == [False, False]
    assert (made[0]._close, made[0]._force_close) == (False, False)
    made[0].close()
    assert made[0]._close
    assert not is_idle()
    made[0].force_close()
    assert made[0]._force_close
    writer.close()
    await writer.wait_closed()
    listener.close()
    await server.shutdown(1.0)


def test_what_the_fast_way_relies_on_means_in_aiohttp_what_it_takes_it_for() -> None:
    asyncio.run(_look_at_a_connection())


def test_a_hit_is_the_same_answer_however_it_is_asked_for(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("same", 9 * MIB)
    location = replace(whole(ref), offset=4 * MIB, length=4 * MIB)
    small = whole(shared_lake.add("same-small", 777))
    for one in (location, small, replace(location, offset=1, length=10)):
        running.read(one)
        with connect(running) as connection:
            asked = [request_of(one, "Forebay-Request: r1", *more) for more in ((), ("X-Unknown: 1",))]
            answers = [exchange(connection, request) for request in (*asked, asked[0])]
        assert [body for _, body in answers] == [shared_lake.expected(one)] * 3
        quick, slow, again = (
            {name: value for name, value in answer.headers.items() if name != "Date"} for answer, _ in answers
        )
        assert quick == slow == again
        assert {answer.status for answer, _ in answers} == {206}


def test_hits_batches_misses_and_errors_share_a_connection(running: Worker, shared_lake: Lake) -> None:
    here, gone = whole(shared_lake.add("mixed-here", 3000)), whole(shared_lake.add("mixed-gone", 3000))
    running.read(here)
    body = encode_batch([here], fill=False)
    rows = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    post = f"POST {BATCH_PATH} HTTP/1.1\r\n{rows}\r\n"
    with connect(running) as connection:
        for _ in range(3):
            assert exchange(connection, request_of(here))[1] == shared_lake.expected(here)
            assert exchange(connection, request_of(gone))[0].status == 404
            connection.sendall(post.encode())
            time.sleep(0.02)
            assert exchange(connection, body)[0].status == 200
            assert exchange(connection, request_of(here)[:-2] + b"Range: bytes=0-0\r\n\r\n")[0].status == 206
        for cut in (1, 40, 90):  # a head in two parts
            connection.sendall(request_of(here)[:cut])
            time.sleep(0.05)
            assert exchange(connection, request_of(here)[cut:])[1] == shared_lake.expected(here)


def test_a_head_inside_of_another_request_is_not_answered(running: Worker, shared_lake: Lake) -> None:
    here = whole(shared_lake.add("smuggled", 3000))
    running.read(here)
    inner = request_of(here)
    with connect(running) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
        time.sleep(0.1)
        connection.sendall(inner)  # goes on with the value of X-Long
        assert read_answer(connection)[0].status == 400  # it has two Hosts now
    with connect(running) as connection:
        connection.sendall(f"POST {BATCH_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(inner)}\r\n\r\n".encode())
        time.sleep(0.1)
        answer, _ = exchange(connection, inner)
        assert answer.status == 400


def test_every_guard_is_before_a_hit_that_is_answered_at_once(lake: Lake, tmp_path: Path) -> None:
    location, foreign = whole(lake.add("guarded", 3000)), "token-that-is-not-good-0123"
    token = "token-of-the-tests-0123456789"
    with worker(lake.root, tmp_path / "cache", tokens=[token], limits={"idle_seconds": 1.5}) as running:
        running.read(location)
        good = f"Authorization: Bearer {token}"
        with connect(running) as connection:
            for lines, status in (([good], 206), ([], 401), ([f"Authorization: Bearer {foreign}"], 401), ([good], 206)):
                assert exchange(connection, request_of(location, *lines))[0].status == status
            lied = request_of(location, good).replace(location.object.id.hex().encode(), b"0" * 32)
            assert exchange(connection, lied)[0].status == 400
            beyond = request_of(location, good).replace(b"bytes=0-2999", b"bytes=3000-")
            assert exchange(connection, beyond)[0].status == 416
            for _ in range(5):  # in use, it is not idle
                time.sleep(0.7)
                assert exchange(connection, request_of(location, good))[0].status == 206
            started = time.monotonic()
            assert connection.recv(1) == b""
            assert 1 < time.monotonic() - started < 5


def test_a_hit_answered_at_once_is_counted_and_logged(running: Worker, shared_lake: Lake) -> None:
    location = whole(shared_lake.add("counted", 3000))
    running.read(location)

    def requests() -> float:
        text = running.ask("GET", "/metrics").data.decode()
        line = next(
            line for line in text.splitlines() if 'requests_total{route="/v1/objects/{id}",status="206"}' in line
        )
        return float(line.split()[-1])

    before = requests()
    with connect(running) as connection:
        for _ in range(4):
            exchange(connection, request_of(location, "Forebay-Request: at-once"))
    assert requests() - before == 4
    wait_for(running, "at-once")
    lines = [json.loads(line) for line in running.process.log.read_text().splitlines()]
    mine = [line["fields"] for line in lines if line["fields"].get("id") == "at-once"]
    assert len(mine) == 4
    assert {(one["status"], one["method"], one["remote"]) for one in mine} == {("206", "GET", "127.0.0.1")}
