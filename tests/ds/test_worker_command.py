from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

import ds
from ds.errors import UsageError
from ds.working import Address
from tests.ds.cached_shop import MIB, TOKEN, CachedShop
from tests.services.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.processes import Process

TOTAL = 9 * MIB + 12 * 20_000


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CachedShop:
    monkeypatch.setenv("FOREBAY_WORKER_TOKEN", TOKEN)
    first = free_port(range(2))
    return CachedShop(tmp_path, monkeypatch, capfd, ports={"w1": first, "w2": first + 1}).create()


@pytest.fixture
def workers(shop: CachedShop) -> Iterator[tuple[Process, Process]]:
    with shop.worker("w1") as first, shop.worker("w2") as second:
        yield first, second


def test_a_load_goes_into_the_workers_and_is_read_from_there(
    shop: CachedShop, workers: tuple[Process, Process]
) -> None:
    plan = shop.ok("load", "--dry-run", "--json").data
    assert (plan["origin_bytes"], plan["workers"]) == (TOTAL, ["w1", "w2"])
    report = shop.ok("load", "--json").data
    assert (report["verified"], report["fetched_bytes"]) == (True, TOTAL)
    assert "the caches of 2 workers" in shop.ok("load", "--dry-run").out
    found = shop.ok("explain", "pets/big.bin", "--json").data
    assert found["verdict"] == "at_worker"
    dataset = ds.Dataset("pets")
    assert dataset.open("big.bin").read() == (shop.directory / "raw" / "big.bin").read_bytes()
    stats = dataset.client.stats.snapshot()
    assert (stats.bytes_origin, stats.bytes_peer) == (0, 9 * MIB)
    assert shop.ok("explain", "pets/big.bin", "--json").data["verdict"] == "cached"


def test_replicas_are_copied_from_worker_to_worker(shop: CachedShop, workers: tuple[Process, Process]) -> None:
    plan = shop.ok("load", "--replicas", "2", "--dry-run", "--json").data
    assert (plan["origin_bytes"], plan["copies_bytes"], plan["replicas"]) == (TOTAL, TOTAL, 2)
    report = shop.ok("load", "--replicas", "2", "--json").data
    assert (report["origin_bytes"], report["peer_bytes"], report["verified"]) == (TOTAL, TOTAL, True)
    states = shop.ok("explain", "pets/big.bin", "--json").data["groups"][0]["candidates"]
    assert [state["has_it"] for state in states] == [True, True]


def test_a_load_that_says_here_goes_into_this_node(shop: CachedShop, workers: tuple[Process, Process]) -> None:
    assert shop.ok("load", "--here", "--json").data["verified"]
    assert shop.ok("explain", "pets/big.bin", "--json").data["verdict"] == "cached"


def test_a_worker_that_is_gone_is_named_and_the_load_goes_on(
    shop: CachedShop, workers: tuple[Process, Process]
) -> None:
    shop.ok("load")
    workers[1].kill()
    found = {row["subject"].split()[0]: row["level"] for row in shop.ds("cache", "doctor", "--json").data}
    assert (found["w1"], found["w2"]) == ("ok", "failure")
    assert shop.ok("load", "--json").data["verified"]
    lost = [
        row["verdict"]
        for number in range(12)
        if (row := shop.ok("explain", f"pets/small/{number:02}.bin", "--json").data)
    ]
    assert set(lost) <= {"at_worker", "cached"}
    assert shop.ok("top", "--once", "--json", "-i", "100ms").data["workers"][1]["state"] == "silent"


def test_an_owner_that_does_not_answer_is_why(shop: CachedShop) -> None:
    found = shop.ok("explain", "pets/big.bin", "--json").data
    assert found["verdict"] == "worker_lost"
    assert "does not answer" in shop.ok("explain", "pets/big.bin").out


def test_workers_evict_too(shop: CachedShop, workers: tuple[Process, Process]) -> None:
    shop.ok("load")
    said = shop.ok("cache", "evict", "pets/big.bin", "--workers", "--json").data
    assert sum(said["workers"].values()) >= 9 * MIB
    assert shop.ok("explain", "pets/big.bin", "--json").data["verdict"] in ("evicted", "never_cached")


def test_another_token_is_found_and_refused(
    shop: CachedShop, workers: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_WORKER_TOKEN", "quite-another-token")
    said = shop.ds("cache", "doctor", "--json")
    checks = [row["check"] for row in said.data if row["level"] == "failure"]
    assert (said.code, checks) == (1, ["token", "token"])
    assert shop.ok("top", "--once", "--json", "-i", "100ms").data["workers"][0]["state"] == "refused"
    assert shop.ds("load", "pets/small").code == 1
    assert "quite-another-token" not in said.out + said.err
    file = shop.directory / "token"
    file.write_text(TOKEN)
    monkeypatch.setenv("FOREBAY_WORKER_TOKEN_FILE", os.fspath(file))
    shop.ok("load", "pets/small")


def test_a_worker_leaves_when_it_is_told_to(shop: CachedShop) -> None:
    with shop.worker("w1", "--log", "json", "--drain-seconds", "5") as process:
        status = json.loads(shop.ds("cache", "status", "--json").out)["data"]
        assert status[0]["worker"] is None  # it serves the cache of the other machine
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while process.is_running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.stop() == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert [line["message"].partition(" name=")[0] for line in lines][-1] == "worker ended"
    assert lines[0]["fields"]["datasets"] == "pets"
    assert TOKEN not in process.log.read_text()


def test_the_worker_of_this_node_is_shown(shop: CachedShop) -> None:
    with shop.worker("here", "--name", "w1") as process:
        (row,) = shop.ok("cache", "status", "--json").data
        assert row["worker"]["pid"] == process.pid
        said = shop.ds("worker", "--listen", "127.0.0.1:0", "--name", "w1")
        assert said.code == 2
        assert "another worker serves" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "everywhere"], "expected HOST:PORT"),
        (["--tls-cert", "node.pem"], "--tls-cert and --tls-key"),
        (["--token-file", "/nowhere/token"], "/nowhere/token"),
        (["--drain-seconds", "-1"], "--drain-seconds"),
        (["--runtime", "remote"], "known: local"),
    ],
)
def test_a_worker_says_what_it_cannot_start_with(shop: CachedShop, arguments: list[str], message: str) -> None:
    said = shop.ds("worker", *arguments)
    assert said.code == 2
    assert message in said.err


def test_a_worker_that_others_can_reach_needs_a_token(shop: CachedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREBAY_WORKER_TOKEN")
    said = shop.ds("worker", "--listen", ":7070")
    assert said.code == 2
    assert "give it a token" in said.err


@pytest.mark.parametrize(
    ("text", "host", "port"), [("127.0.0.1:7070", "127.0.0.1", 7070), ("[::1]:80", "::1", 80), (":7070", "", 7070)]
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize("text", ["", "7070", "host", "host:", "::1:70", "user@host:7", "host:70000", "host:7/path"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)
