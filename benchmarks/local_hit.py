"""What does a local hit of a small object cost through `Client.read`, and through what one would use instead?

    .bench-venv/bin/python -m benchmarks.local_hit --rounds 11 --json local_hit.json

200,000 objects of 10 KiB; each round is a new random choice of 20,000 of them, the same for all, read twice: first to
have them in the page cache, then timed. All were read before (so Forebay has compared their checksums: it does that
on the first read in a process only). Rounds are interleaved; medians (quartiles). The processor time is that of this
process and of the mount's; `disk_bytes` in the JSON says what the timed reads took from the disk after all.

- `client.read_many`: the same in batches of 64.
- `os.pread`: of one big file, open already: what the kernel takes, the floor.
- `dict + pread`: of that file for a location, by a dictionary from object ids to offsets: the least a cache in Python
  must do. With 200,000 objects, theirs do not fit into the processor's caches any more, and a list of offsets does.
- `file`: open + read + close of one loose file for each object, unbuffered, paths made beforehand.
- `juicefs`: the same in a mount with its normal settings, names in SQLite; with a tenth of the objects, and a tenth
  of the reads in a round.
- `fsspec`: its CachingFileSystem ("blockcache") over the loose files; a tenth of the reads in a round. That it reads
  all its names again every ten seconds is not in its time.

The last two look at a path, as loose files do; Forebay's caller has a location, as a manifest or a commit gives it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import juicefs_mount
from benchmarks.hit_contestants import CONTESTANTS, OBJECT_BYTES, Objects, Way, read_all, read_batches
from benchmarks.rounds import Cost, Stopwatch, chosen, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OBJECTS = 200_000
READS = 20_000
GOALS = {"os.pread": "at least 0.625 (Forebay takes at most 1.6x)", "file": "at least 2", "juicefs": "at least 5"}
GOALS["fsspec"] = "at least 20"


def run(
    *, objects: int = OBJECTS, rounds: int = 11, directory: Path | None = None, only: Sequence[str] = tuple(CONTESTANTS)
) -> dict[str, Any]:
    """Measure, and return the machine, the settings and the results in microseconds per read."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-hit-", dir=directory)))
        made = Objects(scratch, objects)
        ways: dict[str, Way] = {}
        for name in only:
            print(f"preparing {name}", file=sys.stderr, flush=True)
            ways[name] = CONTESTANTS[name](stack, made)
        _compare_bytes(ways, objects)
        reads = min(READS, objects)
        turns = {name: partial(_turn, way, read_all, objects, reads) for name, way in ways.items()}
        for name, way in ways.items():
            if way.read_many is not None:
                turns[f"{name.removesuffix('.read')}.read_many"] = partial(_turn, way, read_batches, objects, reads)
        costs = take_turns(turns, rounds)
        for way in ways.values():
            way.check()
    return {
        "machine": machine(),
        "object_bytes": OBJECT_BYTES,
        "objects": objects,
        "rounds": rounds,
        "page_cache": "warm",
        "microseconds": {name: spread([cost.wall * 1e6 for cost in found]) for name, found in costs.items()},
        "cpu_microseconds": {name: spread([cost.cpu * 1e6 for cost in found]) for name, found in costs.items()},
        "disk_bytes": {name: max(cost.disk_bytes for cost in found) for name, found in costs.items()},
    }


def _compare_bytes(ways: dict[str, Way], objects: int) -> None:
    for number in random.Random(0).sample(range(objects), min(objects, 100)):
        found = {name: bytes(way.read(way.places[number % len(way.places)])) for name, way in ways.items()}
        for name, way in ways.items():
            if number < len(way.places) and found[name] != found[next(iter(found))]:
                raise AssertionError(f"{name} reads other bytes")


def _turn(way: Way, readings: Callable[..., Callable[[], None]], objects: int, reads: int, number: int) -> Cost:
    picks = random.Random(number).choices(range(objects), k=max(1, reads // way.part))
    reading = readings(way, picks)
    reading()  # the kernel may have dropped some of the gigabytes since the last round
    watch = Stopwatch(way.pids)
    reading()
    wall, cpu, disk_bytes = watch.cost()
    return Cost(wall / len(picks), cpu / len(picks), disk_bytes)


def report(result: dict[str, Any]) -> str:
    ours = {kind: result[kind]["client.read"]["median"] for kind in ("microseconds", "cpu_microseconds")}
    rows = []
    for name, wall in result["microseconds"].items():
        cpu = result["cpu_microseconds"][name]
        ratios = [round(wall["median"] / ours["microseconds"], 2), round(cpu["median"] / ours["cpu_microseconds"], 2)]
        rows.append([name, shown(wall), shown(cpu), *ratios, GOALS.get(name, "")])
    head = [f"{result['object_bytes'] >> 10} KiB, random of {result['objects']:,}", "us/read", "CPU us/read"]
    return table([*head, "time / client.read", "CPU / client.read", "goal"], rows)


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=11).parse_args()
    names = [name for name in CONTESTANTS if name != "juicefs" or not juicefs_mount.missing()]
    only = list(dict.fromkeys(["client.read", *chosen(options, names)]))
    objects = max(100, int(OBJECTS * options.scale))
    result = run(objects=objects, rounds=options.rounds, directory=options.directory, only=only)
    print(f"{result['machine']}, warm page cache, {result['rounds']} rounds\n\n{report(result)}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
