from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime.errors import PeerError, ProtocolError, WorkerBusyError
from cache_runtime.loading.lanes import Lane
from cache_runtime.loading.workers import WorkerCalls
from cache_runtime.peers import Member, PeerSecurity, Timeouts
from cache_runtime.peers.connections import Connections
from cache_runtime.protocol import Piece
from cache_runtime.store.layout import BlockRun
from cache_runtime.store.shares import Share
from cache_runtime.worker.interfaces import LoadRequest
from cache_runtime.worker.loads import LoadTable
from tests.cache_runtime.lake import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cache_runtime import Client
    from tests.cache_runtime.lake import Lake


@pytest.fixture
def table(client: Client) -> Iterator[LoadTable]:
    found = LoadTable(client, concurrency=2)
    yield found
    found.stop(seconds=10)


def request(load_id: str, pieces: list[Piece], *, seconds: float | None = None) -> LoadRequest:
    return LoadRequest(load_id, pieces, Share(), seconds, "test")


def small(lake: Lake, count: int, *, name: str = "job") -> list[Piece]:
    return [Piece(lake.add(f"{name}{n}", 2000), BlockRun(0, 0)) for n in range(count)]


def ended(table: LoadTable, load_id: str) -> Mapping[str, Any]:
    for _ in range(1000):
        status = table.find(load_id)
        assert status is not None
        if status["state"] not in ("waiting", "running"):
            return status
        time.sleep(0.02)
    raise AssertionError(f"load {load_id} does not end")


def block(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Keep every read of the origin waiting until the event is set."""
    read, event = lake.store.read, threading.Event()

    def wait(*args: Any, **kwargs: Any) -> Any:
        assert event.wait(60)
        return read(*args, **kwargs)

    monkeypatch.setattr(lake.store, "read", wait)
    return event


def test_the_same_load_again_is_one_and_other_pieces_under_its_id_are_refused(lake: Lake, table: LoadTable) -> None:
    pieces, others = small(lake, 5), small(lake, 5, name="other")
    table.submit(request("one", pieces))
    assert ended(table, "one")["state"] == "done"
    reads = len(lake.reads())
    # sent again because the answer was lost, with what is left of its deadline
    assert table.submit(request("one", pieces, seconds=5))["state"] == "done"
    with pytest.raises(ProtocolError):
        table.submit(request("one", others))
    assert len(lake.reads()) == reads


def test_loads_that_wait_are_bounded_and_a_cancelled_one_keeps_no_pieces(
    lake: Lake, table: LoadTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = block(lake, monkeypatch)
    pieces = small(lake, 3)
    for number in range(64):
        table.submit(request(f"load{number}", pieces))
    with pytest.raises(WorkerBusyError):
        table.submit(request("late", pieces))
    for number in range(64):
        table.cancel(f"load{number}")
    for number in range(400):
        table.submit(request(f"short{number}", pieces))
        table.cancel(f"short{number}")
    event.set()
    jobs = table._jobs
    assert len(jobs) <= 256
    assert ended(table, "short399")["state"] == "cancelled"
    for load_id in list(jobs):
        ended(table, load_id)
    assert not any(list(job.locations) for job in jobs.values())


def test_loads_wait_by_the_priority_that_was_asked_for_then_by_that_of_their_share(
    lake: Lake, table: LoadTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = block(lake, monkeypatch)
    began: list[str] = []
    run = table._run

    def note(job: Any) -> Any:
        began.append(job.id)
        return run(job)

    monkeypatch.setattr(table, "_run", note)
    table.submit(request("first", small(lake, 1, name="first")))
    end = time.monotonic() + 30
    while not began:
        assert time.monotonic() < end
        time.sleep(0.01)
    for load_id, priority, of_share in (
        ("late", 0, 0),
        ("worth-most", 1, 9),
        ("urgent", 5, -3),
        ("worth-less", 1, 2),
        ("worth-less-again", 1, 2),
        ("idle", -1, 9),
    ):
        wanted = LoadRequest(
            load_id, small(lake, 1, name=load_id), Share(load_id, of_share), None, "test", priority=priority
        )
        assert table.submit(wanted)["priority"] == priority
    event.set()
    for load_id in ("idle", "late"):
        assert ended(table, load_id)["state"] == "done"
    assert began == ["first", "urgent", "worth-most", "worth-less", "worth-less-again", "late", "idle"]


def test_an_object_of_many_pieces_counts_once_however_they_are_cut(lake: Lake, table: LoadTable) -> None:
    ref = lake.add("large", 64 * MIB + 7)
    table.submit(request("large", [Piece(ref, BlockRun(first, first)) for first in range(17)]))
    status = ended(table, "large")
    assert (status["done_objects"], status["done_bytes"]) == (1, ref.size)


class _Liar:
    """A worker that answers what a test wants."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], tuple[int, object]] = lambda *_: (200, {})
        self.bodies: list[dict[str, Any]] = []
        self.location = ""
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                liar.bodies.append(json.loads(body) if body else {})
                status, document = liar.answer(self.command, self.path)
                answer = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Location", liar.location)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_DELETE = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.member = Member("liar", f"http://127.0.0.1:{self.server.server_port}")


@pytest.fixture
def liar() -> Iterator[_Liar]:
    found = _Liar()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def calls() -> Iterator[WorkerCalls]:
    connections = Connections(PeerSecurity(), Timeouts())
    yield WorkerCalls(connections)
    connections.close()


@pytest.mark.parametrize(
    "answer",
    [
        {"missing": [[[0, 1 << 60]]]},
        {"missing": [[[-1, 0]]]},
        {"missing": [[[1]]]},
        {"missing": [["ab"]]},
        {"missing": [3]},
        {"missing": []},
        {"missing": None},
        [],
        b"[" * 100_000,
        b"no json",
    ],
)
def test_a_worker_that_tells_nonsense_of_what_is_missing_is_an_error_of_it(
    lake: Lake, liar: _Liar, calls: WorkerCalls, answer: object
) -> None:
    liar.answer = lambda *_: (200, answer)
    with pytest.raises(PeerError):
        calls.missing(liar.member, [Piece(lake.add("large", 9 * MIB), BlockRun(0, 2))])


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else(liar: _Liar, lake: Lake) -> None:
    connections = Connections(PeerSecurity(token="a-token-of-a-member"), Timeouts())
    other = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    other.timeout = 0.2
    liar.answer = lambda *_: (307, {})
    liar.location = f"http://127.0.0.1:{other.server_port}/v1/present"
    with pytest.raises(PeerError, match="307"):
        WorkerCalls(connections).missing(liar.member, small(lake, 1))
    other.handle_timeout = lambda: came.append(False)  # type: ignore[method-assign]
    came: list[bool] = []
    other.handle_request()
    other.server_close()
    connections.close()
    assert came == [False]


def test_a_load_that_a_restarted_worker_gets_again_keeps_its_deadline(
    lake: Lake, liar: _Liar, calls: WorkerCalls
) -> None:
    lane = Lane(liar.member, calls, load_id="x", share=None)
    lane.add(small(lake, 1)[0])
    lane.close_chunk()
    liar.answer = lambda method, _: (202, {"id": "x.0"}) if method == "POST" else (404, {})
    lane.step(50.0)
    lane.step(20.0)  # it knows of no load
    assert [body["deadline_seconds"] for body in liar.bodies if body] == [50.0, 20.0]
    liar.answer = lambda *_: (200, {"state": "failed", "done_bytes": "many", "failures": [None, {"uri": "a"}]})
    (end,) = lane.step(10.0)
    assert (end.failures, lane.is_idle) == ([{"uri": "a"}], True)
