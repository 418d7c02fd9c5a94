"""Four machines train on one pool while machines and their connections fail; `FOREBAY_DEEP=1` takes its time."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.cluster.figures import note
from tests.cache_runtime.cluster.machines import TOKEN, reports
from tests.cache_runtime.cluster.roles import DRAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cache_runtime.cluster.machines import Machines
    from tests.cache_runtime.cluster.pool import Pool
    from tests.cache_runtime.cluster.roles import Report

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
FAULT_SECONDS = 20.0 if DEEP else 3.0
SILENT_SECONDS = 20.0 if DEEP else 7.0
"""Of a fault that nobody tells: a silent worker is given up after five."""
LONGEST_SECONDS = 10.0
"""Two of them, one after the other, and then the origin."""
_PAUSE = 0.002
_AFTER_SECONDS = 3.0
deep = pytest.mark.skipif(not DEEP, reason="takes long; runs with FOREBAY_DEEP=1")
_AGAIN_SECONDS = 45.0  # a machine that failed for long is left alone for 30 s at most


@contextmanager
def training(machines: Machines, pool: Pool, what: str, *, seconds: float) -> Iterator[dict[str, Report]]:
    """Read epochs on all machines from before the block until some time after it; the reports are there at its end.

    Args:
        machines: The cluster.
        pool: The data.
        what: For the figures.
        seconds: How long the block takes.
    """
    seconds += 1.0 + _AFTER_SECONDS
    found: dict[str, Report] = {}
    before = machines.server.sent_bytes()
    orders = machines.order_all(pool, seconds=seconds, pause=_PAUSE)
    time.sleep(1.0)
    yield found
    found.update(reports(orders, seconds=seconds + 60))
    note(what, found, origin_bytes=machines.server.sent_bytes() - before, pool_bytes=pool.size)
    assert machines.overfull() == []


def reads_without_trouble(machines: Machines, pool: Pool) -> None:
    """Wait until all machines use each other again."""
    end = time.monotonic() + _AGAIN_SECONDS
    while True:
        found = machines.read_epochs(pool)
        troubles = [report.stats["peer_failures"] + report.stats["peers_skipped"] for report in found.values()]
        if not any(troubles):
            break
        assert time.monotonic() < end, troubles
        time.sleep(0.3)
    assert sum(report.stats["bytes_peer"] for report in found.values()) > 0


def check_stalls(found: dict[str, Report], *, longest: float = LONGEST_SECONDS) -> None:
    assert {name: report.slow for name, report in found.items() if report.longest > longest} == {}
    assert [error for report in found.values() for error in report.failed] == []


def test_epochs_of_four_machines_cost_each_origin_byte_once(machines: Machines, pool: Pool) -> None:
    before = machines.server.sent_bytes()
    first = machines.read_epochs(pool)
    assert machines.server.sent_bytes() - before == pool.size
    note("cold epoch", first, origin_bytes=pool.size, pool_bytes=pool.size)
    with training(machines, pool, "warm epochs", seconds=0.0) as found:
        pass
    assert machines.server.sent_bytes() - before == pool.size
    assert all(report.stats["bytes_peer"] > 0 for report in found.values())  # no machine has room for all


@pytest.mark.parametrize("directions", ["both", pytest.param("one", marks=deep)])
def test_a_partition_among_workers_costs_time_and_origin_bytes_and_no_read(
    machines: Machines, pool: Pool, directions: str
) -> None:
    machines.read_epochs(pool)
    before = machines.server.sent_bytes()
    with training(machines, pool, f"partition, {directions}", seconds=SILENT_SECONDS) as found:
        if directions == "both":
            machines.net.isolate("d")
        else:
            for name in "abc":
                machines.net.cut("d", name)
        time.sleep(SILENT_SECONDS)
        machines.net.heal()
    check_stalls(found)
    assert machines.server.sent_bytes() - before < pool.size
    assert found["d"].stats["peer_failures"] > 0
    reads_without_trouble(machines, pool)


@deep
def test_a_machine_without_network_stops_nobody_else(machines: Machines, pool: Pool) -> None:
    machines.read_epochs(pool)
    with training(machines, pool, "cable out", seconds=SILENT_SECONDS) as found:
        machines.net.unplug("d")
        time.sleep(SILENT_SECONDS)
        machines.net.heal()
    check_stalls({name: report for name, report in found.items() if name != "d"})
    reads_without_trouble(machines, pool)


def test_a_killed_worker_costs_its_blocks_once(machines: Machines, pool: Pool) -> None:
    machines.read_epochs(pool)
    before = machines.server.sent_bytes()
    with training(machines, pool, "kill -9", seconds=FAULT_SECONDS) as found:
        machines.workers["d"].kill()
        time.sleep(FAULT_SECONDS)
        machines.restore("a", "b", "c", "d")
    check_stalls(found)
    assert machines.server.sent_bytes() - before < pool.size / 2
    reads_without_trouble(machines, pool)


@pytest.mark.parametrize("fault", ["stopped", pytest.param("4mbit", marks=deep)])
def test_a_slow_machine_slows_others_down_and_stops_nobody(machines: Machines, pool: Pool, fault: str) -> None:
    machines.read_epochs(pool)
    with training(machines, pool, f"slow, {fault}", seconds=SILENT_SECONDS) as found:
        if fault == "stopped":
            with machines.workers["d"].paused():
                time.sleep(SILENT_SECONDS)
        else:
            machines.net.slow("d", rate=fault)
            time.sleep(SILENT_SECONDS)
            machines.net.heal()
    check_stalls(found)
    reads_without_trouble(machines, pool)


@deep
def test_a_machine_with_another_token_takes_from_the_origin_until_it_has_the_right_one(
    machines: Machines, pool: Pool
) -> None:
    machines.read_epochs(pool)
    with training(machines, pool, "token mismatch", seconds=FAULT_SECONDS) as found:
        machines.set_token("d", "another token than the others'")
        time.sleep(FAULT_SECONDS)
        machines.set_token("d", TOKEN)
    check_stalls(found)
    assert found["d"].stats["peer_failures"] > 0
    assert not any("another token" in machines.log(name, role) for name in "abcd" for role in ("worker", "training"))
    reads_without_trouble(machines, pool)


def test_machines_that_join_and_drain_in_a_running_epoch_cost_no_origin_byte(machines: Machines, pool: Pool) -> None:
    machines.restore("a", "b", "c")
    machines.read_epochs(pool, 3)
    before = machines.server.sent_bytes()
    with training(machines, pool, "join and drain", seconds=2 * FAULT_SECONDS) as found:
        machines.start("d")
        time.sleep(FAULT_SECONDS)
        machines.list_members("a", "b", "c")  # as Kubernetes does: no member any more, and then told to end
        assert machines.workers["d"].stop(grace_seconds=DRAIN_SECONDS + 5) == 0
    check_stalls(found)
    assert machines.server.sent_bytes() == before
