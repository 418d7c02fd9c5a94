"""kill -9 of a worker, a reader and a filler at random points; `FOREBAY_DEEP=1` does it 200 times."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.cluster.household import ROLES, VICTIMS, Household
from tests.cache_runtime.cluster.machines import check_directory
from tests.cache_runtime.lake import MIB
from tests.services.disks import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cache_runtime.lake import Lake

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
CAPACITY = 40 * MIB
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def full_lake(lake: Lake) -> Lake:
    """Objects of more than the capacity."""
    for n in range(40):
        lake.add(f"small{n}", 2000 + 7919 * n)
    for n in range(9):
        lake.add(f"large{n}", 3 * MIB + n * MIB // 2)
    return lake


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "-o", "size=56m", "tmpfs") as disk:
        yield disk


def start(household: Household, *roles: str) -> None:
    """Run roles; who asks the worker begins after it, and anew: else it leaves one that failed alone for longer."""
    household.start(*(role for role in roles if role != "asker"))
    if "worker" in roles:
        household.wait_for_worker()
        household.restart("asker")


def kill_at_random(household: Household, *, rounds: int, seed: int) -> None:
    """Kill one after the other at random; all of them, and look at what they leave, every fifth time."""
    picks = random.Random(seed)
    start(household, *ROLES)
    for number in range(rounds):
        household.wait_for_progress(1)
        time.sleep(picks.random() * 0.2)
        victim = VICTIMS[number % len(VICTIMS)]
        household.kill(victim)
        household.check_disk()
        household.wait_for_progress()
        some = picks.sample(household.lake.refs, 8)
        household.in_child(partial(household.read_some, some))
        if number % 5 == 4:
            household.kill(*(role for role in ROLES if role != victim))
            household.in_child(partial(check_directory, household.path, capacity=CAPACITY))
            household.in_child(partial(household.read_some, household.lake.refs))
            start(household, *ROLES)
        else:
            start(household, victim)


@pytest.mark.timeout(1200 if DEEP else 300)
def test_kills_leave_right_bytes_no_stuck_lock_no_file_and_the_disk_promise(full_lake: Lake, cache_path: Path) -> None:
    household = Household(full_lake, cache_path, capacity=CAPACITY)
    try:
        kill_at_random(household, rounds=200 if DEEP else 10, seed=1)
    finally:
        household.close()


@pytest.mark.skipif(not DEEP, reason="takes long; runs with FOREBAY_DEEP=1")
@pytest.mark.timeout(1200)
def test_kills_leave_the_free_floor_of_the_disk(full_lake: Lake, tmpfs: Path) -> None:
    # what fills have been promised at this moment, and not written yet, may come out of the floor
    household = Household(full_lake, tmpfs / "cache", capacity=CAPACITY, floor=20 * MIB, slack=8 * MIB)
    try:
        kill_at_random(household, rounds=20, seed=2)
    finally:
        household.close()
