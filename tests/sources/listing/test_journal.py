from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import SourceConfigError, StoreId
from sources.listing import scan
from sources.listing.journal import Journal
from tests.sources.listing.servers import FlatServer, PlainServer, TreeServer, directory_server
from tests.sources.listing.test_orders import KEYS, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable

FLAT = [f"data/{number:06d}" for number in range(20_000)]
TREE = sorted(f"d{number % 40}/{number % 7}/{number:05d}" for number in range(3000))
MIXED = [f"{'a-1' if number % 3 else 'a'}/{number:05d}" for number in range(3000)]  # "a-1/" < "a/" in byte order only
CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from sources.listing import scan
from tests.sources.listing.test_journal import {make}
for batch in scan({make}(0.004), "", journal=Path({path!r}), concurrency=4):
    print(batch.num_rows, flush=True)
"""


def flat(delay: float = 0) -> FlatServer:
    return FlatServer(FLAT, 100, delay=lambda: time.sleep(delay))


def mixed(delay: float = 0) -> FlatServer:
    server = directory_server(MIXED, 100)
    server.delay = lambda: time.sleep(delay)
    return server


def tree(delay: float = 0) -> TreeServer:
    server = TreeServer(TREE)
    scanned: Callable[[str], object] = server.scan_directory

    def slow(directory: str) -> object:
        time.sleep(delay)
        return scanned(directory)

    server.scan_directory = slow  # type: ignore[assignment, method-assign]
    return server


@pytest.mark.parametrize(("make", "keys"), [("flat", FLAT), ("tree", TREE), ("mixed", MIXED)])
def test_a_killed_listing_goes_on_where_it_stopped(make: str, keys: list[str], tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    code = CHILD.format(root=str(Path(__file__).parents[3]), make=make, path=str(journal))
    dice = random.Random(make)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0.02, 0.35))
        os.kill(child.pid, signal.SIGKILL)
        child.wait(timeout=10)
        child.stdout.close()
    fresh, server = globals()[make](), globals()[make]()
    keys_of(fresh)
    found = keys_of(server, journal=journal)
    assert sorted(found) == sorted(keys)
    assert make == "mixed" or found == keys
    assert server.requests < fresh.requests
    assert keys_of(server, journal=journal) == found, "a finished journal is replayed"


def test_a_finished_journal_asks_the_store_nothing_and_leaves_no_other_file(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for make, keys in ((flat, FLAT), (tree, TREE), (mixed, None)):
        first = keys_of(make(), journal=journal)
        again = make()
        assert keys_of(again, journal=journal) == first
        assert keys is None or first == keys
        assert again.requests == 0
        assert list(tmp_path.iterdir()) == [journal]
        journal.unlink()


def test_an_abandoned_listing_goes_on_and_keeps_what_was_done(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    batches = scan(flat(), "", journal=journal)
    while next(batches).column("key")[-1].as_py() < FLAT[10_000]:
        pass
    batches.close()  # type: ignore[attr-defined]
    server = flat()
    assert keys_of(server, journal=journal) == FLAT
    assert server.requests < 170


@given(keys=KEYS, page=st.integers(1, 4), stops=st.lists(st.integers(0, 8), max_size=4), twisted=st.booleans())
@settings(max_examples=100, deadline=None)
def test_listings_given_up_again_and_again_end_complete(
    keys: list[str], page: int, stops: list[int], twisted: bool
) -> None:
    server = directory_server(keys, page) if twisted else FlatServer(keys, page)
    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory, "journal")
        for stop in stops:
            batches = scan(server, "", journal=journal, concurrency=3)
            list(islice(batches, stop))
            batches.close()  # type: ignore[attr-defined]
        found = keys_of(server, journal=journal, concurrency=3)
    assert sorted(found) == sorted(server.keys)
    assert twisted or found == server.keys


def test_another_listings_journal_is_refused_naming_both(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    keys_of(flat(), "data/", journal=journal)
    with pytest.raises(SourceConfigError, match=r"sim://flat below 'data/', not of sim://flat below 'other/'"):
        keys_of(flat(), "other/", journal=journal)
    with pytest.raises(SourceConfigError, match="sim://tree"):
        keys_of(tree(), "data/", journal=journal)


@pytest.mark.parametrize("content", [b"something else entirely" * 100, b"SQLite format 3\0" + b"\1" * 5000])
def test_a_broken_file_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(content)
    with pytest.raises(SourceConfigError, match="delete it to start over"):
        keys_of(flat(), journal=journal)
    assert journal.read_bytes() == content


def test_two_listings_do_not_share_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    held = closing(Journal(path, store=StoreId("sim://flat"), prefix=""))
    with held, pytest.raises(SourceConfigError, match="another process"):
        keys_of(flat(), journal=path)
    assert keys_of(flat(), journal=path) == FLAT


def test_a_store_that_cannot_go_on_after_a_key_is_listed_without_a_journal(tmp_path: Path) -> None:
    assert keys_of(PlainServer(["a"]), journal=tmp_path / "journal") == ["a"]
    assert not (tmp_path / "journal").exists()
