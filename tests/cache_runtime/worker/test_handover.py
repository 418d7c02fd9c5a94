from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.peers.nodes import clustered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.lake import Lake


def test_what_a_leaving_worker_has_is_handed_over_and_not_fetched_again(lake: Lake, tmp_path: Path) -> None:
    refs = [lake.add(f"small{n}", 2000 + n) for n in range(40)] + [lake.add(f"large{n}", 9 * MIB) for n in range(3)]
    locations = [whole(ref) for ref in refs]
    with clustered(lake, tmp_path, "a", "b") as cluster:
        cluster.list_members("a", "b")
        client = cluster.client()
        client.read_many(locations)
        before = lake.reads()
        assert len(before) >= len(refs)
        assert cluster.processes["a"].stop(grace_seconds=20) == 0
        cluster.list_members("b")
        client.close()
        client = cluster.client()
        assert [bytes(view) for view in client.read_many(locations)] == [lake.bytes[ref.id] for ref in refs]
        client.close()
        assert lake.reads() == before
