"""Sample orders: how well they mix, how many shards they hold, and what they cost.

    python -m benchmarks.order [--json order.json]
    python -m benchmarks.order --scale 0.01     # small

Quality: 500 shards of 512 samples, sorted by class (100 classes), batches of 256. Entropy is that of Mosaic's
simulator: the distances between samples that follow each other. Live shards are in use at a time; burst is the most
new ones in a step. `py1e` is Mosaic's own function where mosaicml-streaming is installed, else its rule written anew,
with 1 canonical node and blocks of 16 shards, and makes a whole epoch at once; `numpy` is a permutation of an epoch.

Cost: processor time of this process, the least of several rounds. A start is what happens between `set_epoch` and the
first batch: a million shards with 500 to 1500 samples each, 10^9 in all. The data set is open already.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.rounds import take_turns
from loaders import ElasticBatchSampler
from loaders.planning import entropy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Indices = npt.NDArray[np.int64]

BATCH = 256


@dataclass(frozen=True, eq=False)
class Shards:
    shard_starts: Indices
    fingerprint: str = "benchmark"

    def __len__(self) -> int:
        return int(self.shard_starts[-1])


def py1e(sizes: Indices, block: int, seed: int, epoch: int) -> Indices:
    """Mosaic's rule: a sample is shifted by up to half of what a block exceeds its shard by; then all are sorted."""
    try:
        from streaming.base.shuffle.py1e import get_shuffle_py1e
    except ImportError:
        rng = np.random.default_rng(seed + epoch)
        order = rng.permutation(len(sizes))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        samples = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in order])
        reach = np.repeat(np.maximum(block - sizes[order], 0) / 2, sizes[order])
        places = np.arange(len(samples)) + rng.uniform(-reach, reach)
        return samples[np.argsort(places)]
    found: Indices = get_shuffle_py1e(sizes, 1, seed, epoch, block)
    return found


def quality(order: Indices, shard_of: Indices, classes: Indices) -> dict[str, float]:
    rows = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    shards = shard_of[rows]
    steps = np.repeat(np.arange(len(rows)), BATCH)
    first = np.full(int(shard_of.max()) + 1, len(rows))
    last = np.zeros_like(first)
    np.minimum.at(first, shards.ravel(), steps)
    np.maximum.at(last, shards.ravel(), steps)
    come, gone = (np.bincount(each, minlength=len(rows) + 2) for each in (first, last + 1))
    return {
        "sample_entropy": round(entropy(order), 2),
        "shard_entropy": round(entropy(shard_of[order]), 2),
        "live_shards": int(np.cumsum(come - gone).max()),
        "burst": int(come[1 : len(rows)].max()),
        "classes": round(float(np.mean([len(np.unique(row)) for row in classes[rows]])), 1),
    }


def orders(shards: Shards) -> dict[str, Callable[[int], Indices]]:
    """Ways to make a whole epoch."""
    sizes = np.diff(shards.shard_starts)

    def ours(**options: Any) -> Callable[[int], Indices]:
        def make(number: int) -> Indices:
            sampler = ElasticBatchSampler(shards, BATCH, seed=1, **options)
            sampler.seek(number, 0)
            return np.array([sample for batch in sampler for sample in batch])

        return make

    return {
        "numpy": lambda number: np.random.default_rng([1, number]).permutation(len(shards)),
        "py1e": lambda number: py1e(sizes, 16 * int(sizes[0]), 1, number),
        "none": ours(order="none"),
        "full": ours(order="full"),
        "runs": ours(order="runs"),
        "stream, 1 lane, window 8": ours(order="stream", lanes=1, window=8),
        "stream, 1 lane, window 16": ours(order="stream", lanes=1, window=16),
        "stream, 16 lanes": ours(order="stream", lanes=16),
        "stream, 64 lanes": ours(order="stream"),
    }


def measure_quality(scale: float, rounds: int) -> list[dict[str, Any]]:
    count = max(20, int(500 * scale))
    shards = Shards(np.arange(count + 1) * 512)
    n = len(shards)
    shard_of = np.arange(n) // 512
    classes = np.arange(n) * 100 // n
    costs: dict[str, list[float]] = {}
    made: dict[str, Indices] = {}

    def timed(name: str, make: Callable[[int], Indices]) -> Callable[[int], None]:
        def run(number: int) -> None:
            start = time.process_time()
            made[name] = make(number)
            costs.setdefault(name, []).append(time.process_time() - start)

        return run

    take_turns({name: timed(name, make) for name, make in orders(shards).items()}, rounds)
    return [
        {"order": name, **quality(made[name], shard_of, classes), "cpu_ms": round(min(costs[name]) * 1000, 1)}
        for name in made
    ]


def least(make: Callable[[], Any], rounds: int) -> float:
    """Return the least processor time in ms."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        make()
        found.append(time.process_time() - start)
    return round(min(found) * 1000, 2)


def measure_starts(scale: float, rounds: int) -> list[dict[str, Any]]:
    sizes = np.random.default_rng(3).integers(500, 1501, max(1000, int(1_000_000 * scale)))
    shards = Shards(np.concatenate([[0], np.cumsum(sizes)]))
    cases: dict[str, dict[str, Any]] = {
        "full": {"order": "full"},
        "runs": {"order": "runs"},
        "stream, 1 lane": {"order": "stream", "lanes": 1},
        "stream, 64 lanes, 1 rank": {"order": "stream"},
        "stream, 64 lanes, 64 ranks": {"order": "stream", "world_size": 64},
    }
    return [_start(name, shards, options, rounds) for name, options in cases.items()]


def _start(name: str, shards: Shards, options: dict[str, Any], rounds: int) -> dict[str, Any]:
    sampler = ElasticBatchSampler(shards, BATCH, seed=1, **options)
    epochs = iter(range(1, 1000))

    def begin(step: int) -> Callable[[], Any]:
        def run() -> None:
            sampler.seek(next(epochs), step)
            next(iter(sampler))

        return run

    def resume() -> None:
        sampler.seek(next(epochs), len(sampler) // 2)
        state = json.dumps(sampler.position())
        sampler.restore(json.loads(state))
        next(iter(sampler))

    sampler.seek(0, len(sampler) // 2)
    return {
        "order": name,
        "samples": len(shards),
        "make_ms": least(lambda: ElasticBatchSampler(shards, BATCH, seed=1, **options), rounds),
        "start_ms": least(begin(0), rounds),
        "resume_at_half_ms": least(resume, rounds),
        "state_bytes": len(json.dumps(sampler.position())),
    }


def measure_steady(scale: float, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for each in (1000, 5000, 100_000):
        shards = Shards(np.arange(max(20, int(4_000_000 * scale * max(1, each // 5000)) // each) + 1) * each)
        cases: dict[str, dict[str, Any]] = {
            "full": {"order": "full"},
            "runs": {"order": "runs"},
            "stream, 1 lane": {"order": "stream", "lanes": 1},
            "stream, 64 lanes": {"order": "stream"},
        }
        for name, options in cases.items():
            sampler = ElasticBatchSampler(shards, BATCH, seed=1, **options)
            wanted = min(len(sampler), max(4, int(4000 * scale)))

            def run(sampler: ElasticBatchSampler = sampler, wanted: int = wanted) -> None:
                for _ in zip(range(wanted), sampler, strict=False):
                    pass

            cost = least(run, rounds) * 1000 / (wanted * BATCH)
            rows.append({"order": name, "samples_per_shard": each, "cpu_us_per_index": round(cost, 3)})
    return rows


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("| " + " | ".join("---" for _ in rows[0]) + " |", flush=True)
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


def main(arguments: Sequence[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args(arguments)
    parts = {"quality": measure_quality, "start": measure_starts, "steady": measure_steady}
    found = {}
    for title, measure in parts.items():
        found[title] = measure(options.scale, options.rounds)
        show(title, found[title])
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
