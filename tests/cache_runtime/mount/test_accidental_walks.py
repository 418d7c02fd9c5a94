"""Who reads at random meets neighbours now and then: nothing is fetched for that."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, NoReturn, cast

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.mount.counters import Counters
from cache_runtime.mount.walks import Walks
from tests.cache_runtime.mount.views import MemoryView

if TYPE_CHECKING:
    from cache_runtime.client import Client
    from cache_runtime.mount.view import MountView

FILES = 20_000
FAR = 64
VIEW = MemoryView({f"{number:05}": (10_000, 0) for number in range(FILES)})


class NoClient:
    """Counts how often it is asked for what comes next."""

    def __init__(self) -> None:
        self.asked = 0

    def will_need(self, *_: Any, **__: Any) -> NoReturn:
        self.asked += 1
        raise OSError("the origin is down")


def walked(rows: list[int]) -> int:
    """Return how often something was announced while files were opened, none of which was here."""
    client = NoClient()
    walks = Walks(cast("Client", client), Counters(), most_bytes=1 << 20)
    for row in rows:
        walks.opened(cast("MountView", VIEW), row)
        walks.missed(cast("MountView", VIEW), row)
    walks.close()  # what was submitted is done
    deadline = time.monotonic() + 0.2
    while not client.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    return client.asked


def test_random_opens_announce_nothing_and_a_scan_does() -> None:
    pick = random.Random(11)
    assert walked([pick.randrange(FILES) for _ in range(1000)]) == 0
    assert walked(list(range(100, 140))) > 0


@given(
    starts=st.lists(st.integers(0, FILES // FAR - 1), unique=True, max_size=100),
    lengths=st.lists(st.integers(1, 3), min_size=100, max_size=100),
)
def test_runs_of_three_neighbours_announce_nothing(starts: list[int], lengths: list[int]) -> None:
    runs = zip(starts, lengths, strict=False)
    client = NoClient()
    walks = Walks(cast("Client", client), Counters(), most_bytes=1 << 20)
    for start, length in runs:
        for row in range(start * FAR, start * FAR + length):
            walks.missed(cast("MountView", VIEW), row)
    assert client.asked == 0
    walks.close()
