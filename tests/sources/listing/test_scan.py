from __future__ import annotations

import os
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import pytest

from sources import SourceConfigError, SourceNotFoundError
from sources.listing import ScanProgress, scan
from sources.stores import DirectoryPage, batch_of_rows
from tests.sources.listing.servers import FlatServer, PlainServer, TreeServer
from tests.sources.listing.test_orders import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
KEYS = [f"data/{number:06d}" for number in range(20_000)]


def three_times(request: Callable[[], _T]) -> _T:
    for _ in range(2):
        try:
            return request()
        except ConnectionError:
            continue
    return request()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "forebay-listing"]


def test_a_small_listing_costs_what_a_plain_one_does() -> None:
    for size in (0, 1, 1000, 1500):
        server = FlatServer(KEYS[:size])
        assert keys_of(server) == KEYS[:size]
        assert server.requests <= -(-size // 1000) + (size == 0)


def test_a_listing_that_breaks_goes_on_where_it_stopped() -> None:
    server = FlatServer(KEYS, 100, fail=lambda number: number % 7 == 0)
    assert keys_of(server, guard=three_times) == KEYS
    assert server.requests < 2 * len(KEYS) / 100


def test_markers_are_neither_lost_nor_doubled_when_a_listing_breaks() -> None:
    keys = sorted([f"d{number:03d}/" for number in range(300)] + [f"d{number:03d}/x" for number in range(0, 300, 3)])
    server = FlatServer(keys, 7, skips_directories=True, fail=lambda number: number % 5 == 0)
    assert keys_of(server, guard=three_times, concurrency=1) == keys


def test_an_error_reaches_the_reader_and_ends_all_threads() -> None:
    server = FlatServer(KEYS, 100, fail=lambda number: number > 30)
    with pytest.raises(ConnectionError, match="injected"):
        keys_of(server)
    assert not workers()


def test_a_reader_that_stops_early_leaves_no_threads() -> None:
    server = FlatServer(KEYS, 100)
    batches = scan(server, "")
    assert len(list(islice(batches, 3))) == 3
    batches.close()  # type: ignore[attr-defined]
    assert not workers()


def test_a_reader_that_pauses_bounds_what_is_held() -> None:
    server = FlatServer([f"{number:05x}" for number in range(10_000)], 2, delay=lambda: time.sleep(0.0001))
    batches = scan(server, "")
    next(batches)
    seen, deadline = -1, time.monotonic() + 20
    while seen != server.requests and time.monotonic() < deadline:
        seen = server.requests
        time.sleep(0.2)
    assert 100 < server.requests < 512 + 200
    assert sum(batch.num_rows for batch in batches) > 9_000


def test_many_requests_run_at_a_time() -> None:
    running: list[int] = []
    most = 0

    def wait() -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        time.sleep(0.01)
        running.pop()

    server = FlatServer(KEYS, 100, delay=wait)
    assert keys_of(server) == KEYS
    assert most >= 4
    assert server.requests < 1.6 * len(KEYS) / 100


def test_progress_counts_all_keys_in_the_readers_thread() -> None:
    told: list[tuple[ScanProgress, threading.Thread]] = []
    server = FlatServer(KEYS, 100)
    for _ in scan(server, "", on_progress=lambda state: told.append((state, threading.current_thread()))):
        pass
    assert told[-1][0].keys == len(KEYS)
    assert told[-1][0].keys_per_second > 0
    assert {thread for _, thread in told} == {threading.current_thread()}


def test_a_directory_that_vanished_is_empty_but_a_missing_top_is_an_error() -> None:
    server = TreeServer(["a/x", "b/y", "c"], vanished=frozenset({"a/"}))
    assert keys_of(server) == ["b/y", "c"]
    with pytest.raises(SourceNotFoundError):
        keys_of(server, "a/")


def test_a_directory_of_very_many_directories_is_listed_in_order() -> None:
    keys = sorted(f"{number}/x" for number in range(3000))
    assert keys_of(TreeServer([*keys, "7-z"])) == sorted([*keys, "7-z"])


def test_a_plain_store_tries_only_its_start_again() -> None:
    assert keys_of(PlainServer(["a", "b"]), guard=three_times) == ["a", "b"]


class Tree:
    """Directories of two files each, which take a moment."""

    id = "tree://x"

    def __init__(self, count: int, pause: Callable[[], None]) -> None:
        self.count = count
        self.pause = pause
        self.most_threads = 0

    def scan_directory(self, directory: str) -> DirectoryPage:
        self.most_threads = max(self.most_threads, len(workers()))
        if not directory:
            return DirectoryPage(batch_of_rows([]), [f"{number:05d}/" for number in range(self.count)])
        self.pause()
        return DirectoryPage(batch_of_rows((directory + name, 1, "v", 0) for name in "ab"), [])


def rows_of(tree: Tree) -> list[int]:
    return [batch.num_rows for batch in scan(tree, "")]  # type: ignore[arg-type]


def test_threads_are_many_where_directories_keep_us_waiting() -> None:
    tree = Tree(200, lambda: time.sleep(0.01))
    assert sum(rows_of(tree)) == 400
    assert tree.most_threads > 8


def test_threads_are_few_where_python_is_what_we_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "thread_time", time.monotonic)  # as if no other process took the processor from us

    def work() -> None:
        for _ in range(20_000):
            pass

    tree = Tree(200, work)
    assert sum(rows_of(tree)) == 400
    assert tree.most_threads <= 6


def test_small_directories_are_handed_out_together() -> None:
    tree = Tree(5000, lambda: None)
    sizes = rows_of(tree)
    assert sum(sizes) == 10_000
    assert len(sizes) < 200


def test_a_forked_child_is_told_that_it_cannot_go_on_with_a_listing() -> None:
    listing = scan(Tree(5000, lambda: time.sleep(0.001)), "")  # type: ignore[arg-type]
    next(listing)
    child = os.fork()
    if not child:
        try:
            next(listing)
        except SourceConfigError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    listing.close()  # type: ignore[attr-defined]
