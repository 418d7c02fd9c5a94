"""What does the origin send when a warm cluster of 3 workers becomes 4, and 3 again?

    .bench-venv/bin/python -m benchmarks.cache_scaling --json cache_scaling.json

2,000 objects of 10 KiB and 16 of 8 MiB, real workers (a process each), members in a file, as many rounds as clusters.
A client without a cache of its own reads everything in each step, so what it reads comes from the workers, or from
the origin through them; the origin writes down each read. The steps: 3 cold, 3 warm, a fourth joins, again with it,
and it leaves: taken off the members, then told to end, as Kubernetes does; or the other way round. `filled` is what
the worker that joined has then. Seconds are of workers, client and origin on the same cores: they compare steps,
nothing else.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import machine, parser, table, write_json
from sources import Location
from tests.cache_runtime.lake import MIB, Lake
from tests.cache_runtime.peers.nodes import Cluster, clustered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_runtime import Client

SMALL, SMALL_BYTES = 2_000, 10 << 10
LARGE, LARGE_BYTES = 16, 8 * MIB
_AT_ONCE = 256
_NOTICE_SECONDS = 0.5  # the workers look at the members file every 50 ms


def run(*, scale: float = 1.0, rounds: int = 3, directory: Path | None = None) -> dict[str, Any]:
    """Measure, and return a row for each step: medians of seconds, and of the origin's bytes over the data's."""
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="forebay-scaling-", dir=directory) as scratch:
            for step, row in _scale(Path(scratch), scale, stops_first=number % 2 == 1).items():
                found.setdefault(step, []).append(row)
    rows = []
    for step, runs in found.items():
        rows.append({"step": step, "runs": len(runs)})
        rows[-1].update({name: statistics.median(run[name] for run in runs) for name in runs[0]})
        rows[-1]["origin_most"] = max(run["origin"] for run in runs)
    return {"machine": machine(), "rounds": rounds, "scale": scale, "rows": rows}


def _scale(scratch: Path, scale: float, *, stops_first: bool) -> dict[str, dict[str, float]]:
    (scratch / "lake").mkdir()
    lake = Lake(scratch / "lake")
    small = [lake.add(f"small{n}", SMALL_BYTES) for n in range(max(8, int(SMALL * scale)))]
    large = [lake.add(f"large{n}", LARGE_BYTES) for n in range(max(2, int(LARGE * scale)))]
    wanted = [Location(ref, 0, ref.size) for ref in small + large]
    total = sum(location.length for location in wanted)
    rows: dict[str, dict[str, float]] = {}
    with clustered(lake, scratch, "a", "b", "c") as cluster:
        client = cluster.client()

        def step(name: str, change: Callable[[], object] = lambda: None) -> None:
            change()
            time.sleep(_NOTICE_SECONDS)
            lake.log.write_text("")
            start = time.perf_counter()
            _read_all(lake, client, wanted)
            seconds = round(time.perf_counter() - start, 3)
            rows[name] = {"seconds": seconds, "origin": _sent(lake) / total, "filled": _filled(cluster) / total}

        step("3 workers, cold")
        step("3 workers, warm")
        step("a fourth joined", lambda: cluster.start("d"))
        step("4 workers, warm")
        end = (
            "it left: ended, then taken off the members"
            if stops_first
            else "it left: taken off the members, then ended"
        )
        step(end, lambda: _leave(cluster, stops_first=stops_first))
        step("3 workers again, warm")
        if (direct := client.stats.bytes_origin) > 0:
            raise AssertionError(f"the client read {direct} bytes past the workers")
        client.close()
    return rows


def _leave(cluster: Cluster, *, stops_first: bool) -> None:
    if stops_first:
        cluster.processes.pop("d").stop()
        cluster.list_members("a", "b", "c")
    else:
        cluster.list_members("a", "b", "c")
        cluster.processes.pop("d").stop()


def _read_all(lake: Lake, client: Client, wanted: Sequence[Location]) -> None:
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        for location, view in zip(part, client.read_many(part), strict=True):
            if view != lake.expected(location):
                raise AssertionError(f"{location} has other bytes")


def _sent(lake: Lake) -> int:
    return sum(int(line.split()[2]) for line in lake.reads())


def _filled(cluster: Cluster) -> int:
    """Return the bytes that the fourth worker's cache takes on disk beyond an empty one's, 0 without it."""
    if "d" not in cluster.processes:
        return 0
    client = cluster.node_client("d")
    assert client.store is not None
    used = sum(share.used_bytes for share in client.store.status().shares)
    client.close()
    return used


def report(result: dict[str, Any]) -> str:
    head = ["step", "clusters", "seconds to read all", "origin bytes / data", "fourth worker has / data", "goal"]
    rows = [
        [
            row["step"], row["runs"], round(row["seconds"], 2), f"{row['origin_most']:.2f}", f"{row['filled']:.2f}",
            "" if row["step"].endswith("cold") else "origin 0",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return table(head, rows)


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=4).parse_args()
    result = run(scale=options.scale, rounds=options.rounds, directory=options.directory)
    print(f"{result['machine']}, {result['rounds']} clusters\n\n{report(result)}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
