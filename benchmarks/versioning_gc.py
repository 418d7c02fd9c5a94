"""How much memory and time the sets of ids take that garbage collection keeps.

    .venv/bin/python -m benchmarks.versioning_gc --scale 1 [--json results.json]

At --scale 1, the default, it is 10^7 synthetic ids; at --scale 0.1 10^6. *added*: in batches of 512, as the children of
nodes come; *asked*: in batches of 8192, as objects are listed. Memory is what numpy allocated at most, against 32 bytes
for each id in one array, the least that keeps them whole.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from benchmarks.rounds import machine, parser, table, write_json
from versioning.maintenance.ids import IdSet

IDS = 10_000_000


def measure(count: int) -> dict[str, float]:
    """Fill one set and ask it for as many ids again."""
    generator = np.random.default_rng(1)
    found = IdSet()
    tracemalloc.start()
    start = time.perf_counter()
    for _ in range(0, count, 512):
        found.add(generator.integers(0, 256, (512, 32), np.uint8))
    added = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    start = time.perf_counter()
    for _ in range(0, count, 8192):
        found.contains(generator.integers(0, 256, (8192, 32), np.uint8))
    asked = time.perf_counter() - start
    return {
        "ids": len(found),
        "added_per_second": len(found) / added,
        "asked_per_second": len(found) / asked,
        "held_mib": found.nbytes / 2**20,
        "peak_mib": peak / 2**20,
        "whole_ids_mib": 32 * len(found) / 2**20,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run it."""
    options = parser(__doc__, rounds=2).parse_args(arguments)
    result = measure(max(512, int(IDS * options.scale)))
    print(table(("what", "value"), [(name, f"{value:,.1f}") for name, value in result.items()]))
    write_json(options.json, {"machine": machine(), **result})


if __name__ == "__main__":
    main()
