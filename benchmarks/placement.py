"""How evenly does placement spread blocks over workers, and how many move when a worker joins or leaves?

Runs the product's own `Members.rank_keys` on the keys of every group of blocks (16 neighbouring ones, placed as one) of
objects of 1 GiB. With equal weights, with weights 1, 2 and 4, with three replicas, before and after a join and a leave.
Replicas are of a quarter of the blocks, the smaller clusters of the second table of 4 million. The seconds are those of
one core for all of it.

    python benchmarks/placement.py --json placement.json --svg docs/images/placement.svg
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from cache_runtime.peers.placement import GROUP_BLOCKS, Member, Members, placement_key
from sources import ObjectId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[numpy.int64]

OBJECT_GROUPS = 16
SIZES = (4, 10, 30, 100, 300, 1000)


def run(*, workers: int = 1000, blocks: int = 10**8, sweep_blocks: int = 4 * 10**6, seed: int = 0) -> dict[str, Any]:
    """Place all blocks in every setting; shares are relative to the mean, moves to all blocks."""
    start = time.perf_counter()
    keys = make_keys(blocks // GROUP_BLOCKS, seed)
    equal = make_members(workers)
    owners, seconds = place(equal, keys)
    loads = numpy.bincount(owners, minlength=workers)
    return {
        "workers": workers,
        "blocks": len(keys) * GROUP_BLOCKS,
        "equal": spread(loads, numpy.full(workers, len(keys) / workers)),
        "histogram": histogram(loads / loads.mean()),
        "weighted": weighted(workers, keys),
        "replicas": replicated(equal, keys[: len(keys) // 4]),
        "changes": [
            *(change(size, keys[: sweep_blocks // GROUP_BLOCKS]) for size in SIZES if size < workers),
            change(workers, keys, owners),
        ],
        "placements_per_second": round(len(keys) / seconds),
        "seconds": round(time.perf_counter() - start, 1),
    }


def make_keys(groups: int, seed: int) -> NDArray[numpy.uint64]:
    """Return the keys of all groups of objects with random ids, as ids are hashes."""
    objects = -(-groups // OBJECT_GROUPS)
    ids = numpy.random.default_rng(seed).bytes(16 * objects)

    def each() -> Iterator[int]:
        for start in range(0, len(ids), 16):
            object_id = ObjectId(ids[start : start + 16])
            for group in range(OBJECT_GROUPS):
                yield placement_key(object_id, group)

    return numpy.fromiter(each(), numpy.uint64, count=objects * OBJECT_GROUPS)[:groups]


def make_members(count: int, *, weights: tuple[float, ...] = (1.0,), first: int = 0) -> Members:
    return Members(
        Member(f"worker-{number:04d}", f"http://worker-{number:04d}:7070", weights[number % len(weights)])
        for number in range(first, first + count)
    )


def place(members: Members, keys: NDArray[numpy.uint64], *, count: int = 1) -> tuple[Numbers, float]:
    """Return the candidates of all keys, flat for one candidate, and the seconds it took."""
    start = time.perf_counter()
    step = max(16, 65536 // len(members))
    rows = [members.rank_keys(keys[first : first + step], count) for first in range(0, len(keys), step)]
    found = numpy.concatenate(rows)
    return (found[:, 0] if count == 1 else found), time.perf_counter() - start


def spread(loads: Numbers, expected: NDArray[numpy.float64]) -> dict[str, float]:
    """Return the extremes and the deviation of what each worker got over what it should get.

    `chance` is the deviation that throwing dice would give: no placement that needs no agreement does better.
    """
    ratios = loads / expected
    return {
        "max_to_mean": round(float(ratios.max()), 4),
        "min_to_mean": round(float(ratios.min()), 4),
        "deviation": round(float((ratios - 1).std()), 5),
        "chance": round(float(numpy.sqrt(1 / expected).mean()), 5),
    }


def histogram(ratios: NDArray[numpy.float64]) -> list[list[float]]:
    """Return `[share of the mean, workers]` per bar."""
    counts, edges = numpy.histogram(ratios, bins=31)
    return [[round(float(edge), 5), int(count)] for edge, count in zip(edges, counts, strict=False)]


def weighted(workers: int, keys: NDArray[numpy.uint64]) -> dict[str, float]:
    """Place on workers of weights 1, 2 and 4; a share is relative to the worker's weight."""
    members = make_members(workers, weights=(1.0, 2.0, 4.0))
    owners, _ = place(members, keys)
    weights = numpy.array([members[number].weight for number in range(workers)])
    return spread(numpy.bincount(owners, minlength=workers), weights / weights.sum() * len(keys))


def replicated(members: Members, keys: NDArray[numpy.uint64], replicas: int = 3) -> dict[str, Any]:
    """Place three replicas: each on a worker of its own, and each position as even as the first."""
    found, _ = place(members, keys, count=min(replicas, len(members)))
    ordered = numpy.sort(found, axis=1)
    return {
        "replicas": replicas,
        "blocks": len(keys) * GROUP_BLOCKS,
        "distinct": bool((ordered[:, 1:] != ordered[:, :-1]).all()),
        **spread(
            numpy.bincount(found.ravel(), minlength=len(members)), numpy.full(len(members), found.size / len(members))
        ),
    }


def change(size: int, keys: NDArray[numpy.uint64], owners: Numbers | None = None) -> dict[str, Any]:
    """Let one worker join and another one leave, and compare every owner before and after."""
    before = make_members(size)
    if owners is None:
        owners, _ = place(before, keys)
    joined, _ = place(make_members(size + 1), keys)
    moved = owners != joined
    second, _ = place(make_members(size + 1), keys[moved], count=2)
    left, _ = place(make_members(size - 1, first=1), keys)
    lost = owners == 0
    return {
        "workers": size,
        "ideal_join": 1 / (size + 1),
        "moved_on_join": float(moved.mean()),
        "moved_to_the_new_one": bool((joined[moved] == size).all()),
        "old_owner_is_next": bool((second[:, 1] == owners[moved]).all()),
        "ideal_leave": 1 / size,
        "moved_on_leave": float((owners != left + 1).mean()),
        "only_its_blocks_moved": bool((owners[~lost] == left[~lost] + 1).all()),
    }


def draw(result: dict[str, Any]) -> str:
    """Return an SVG: blocks per worker, and blocks moved over the number of workers."""
    bars, points = result["histogram"], result["changes"]
    top = max(count for _, count in bars)
    width = 300 / len(bars)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 300" font-family="sans-serif" font-size="12">',
        '<rect width="760" height="300" fill="white"/>',
        f'<text x="40" y="24">Blocks per worker over the mean ({result["workers"]} workers, '
        f"{result['blocks']:,} blocks)</text>",
    ]
    for number, (_, count) in enumerate(bars):
        height = 200 * count / top
        parts.append(
            f'<rect x="{40 + number * width:.1f}" y="{250 - height:.1f}" width="{width - 1:.1f}" '
            f'height="{height:.1f}" fill="#3b7dd8"/>'
        )
    equal = result["equal"]
    parts += [
        '<line x1="40" y1="250" x2="340" y2="250" stroke="black"/>',
        f'<text x="40" y="268">{equal["min_to_mean"]:.3f}</text>',
        f'<text x="340" y="268" text-anchor="end">{equal["max_to_mean"]:.3f}</text>',
        '<text x="430" y="24">Blocks moved when a worker joins or leaves</text>',
        '<line x1="430" y1="250" x2="730" y2="250" stroke="black"/>',
        '<line x1="430" y1="250" x2="430" y2="50" stroke="black"/>',
    ]
    return "\n".join([*parts, *_moves(points), "</svg>", ""])


def _moves(points: list[dict[str, Any]]) -> list[str]:
    def place_point(size: float, share: float) -> tuple[float, float]:
        return 430 + 300 * math.log10(size / 3) / math.log10(500), 50 + 200 * -math.log10(share / 0.35) / math.log10(
            500
        )

    line = " ".join("{:.1f},{:.1f}".format(*place_point(size, 1 / size)) for size in (3, 1200))
    parts = [f'<polyline points="{line}" fill="none" stroke="#999" stroke-dasharray="4"/>']
    for point in points:
        for what, colour in (("join", "#3b7dd8"), ("leave", "#d8743b")):
            x, y = place_point(1 / point[f"ideal_{what}"], point[f"moved_on_{what}"])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.7"/>')
        x, y = place_point(point["workers"], 1 / point["workers"])
        parts.append(f'<text x="{x:.1f}" y="268" text-anchor="middle">{point["workers"]}</text>')
    return [
        *parts,
        *(
            f'<text x="424" y="{place_point(3, share)[1] + 4:.1f}" text-anchor="end">{share:.1%}</text>'
            for share in (0.25, 0.1, 0.01, 0.001)
        ),
        '<text x="580" y="286" text-anchor="middle">workers</text>',
        '<circle cx="610" cy="56" r="4" fill="#3b7dd8"/><text x="620" y="60">join</text>',
        '<circle cx="660" cy="56" r="4" fill="#d8743b"/><text x="670" y="60">leave</text>',
        '<text x="610" y="76" fill="#666">dashed: 1/N</text>',
    ]


def _print_table(result: dict[str, Any]) -> None:
    print(f"{result['workers']} workers, {result['blocks']:,} blocks of 4 MiB, {result['seconds']} s in all, "
          f"{result['placements_per_second']:,} placements/s")  # fmt: skip
    print("                 max/mean  min/mean  deviation  (of dice)")
    for name in ("equal", "weighted", "replicas"):
        row = result[name]
        numbers = [row[column] for column in ("max_to_mean", "min_to_mean", "deviation", "chance")]
        print(f"  {name:12}" + "".join(f"{number:10.5f}" for number in numbers))
    print("  workers   moved on join (1/(N+1))       moved on leave (1/N)          to/from it only, old owner next")
    for row in result["changes"]:
        clean = row["moved_to_the_new_one"] and row["only_its_blocks_moved"] and row["old_owner_is_next"]
        print(
            f"  {row['workers']:7}   {row['moved_on_join']:.6f} ({row['ideal_join']:.6f})"
            f"          {row['moved_on_leave']:.6f} ({row['ideal_leave']:.6f})          {clean}"
        )


def main() -> None:
    """Parse the command line, place and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=10**8)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--svg", type=Path, help="write the figure here")
    arguments = parser.parse_args()
    result = run(workers=arguments.workers, blocks=arguments.blocks)
    _print_table(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.svg is not None:
        os.makedirs(arguments.svg.parent, exist_ok=True)
        arguments.svg.write_text(draw(result))


if __name__ == "__main__":
    main()
