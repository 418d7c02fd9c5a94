"""Random access to small records by number: `ds[i]`, and 64 random numbers in one call.

    .bench-venv/bin/python benchmarks/random_access.py [--scale 0.1] [--cold]

The data of `epoch.py`: 20,000 records of 14 KB and a class of three bytes each. Each measurement is a fresh process
that reads 8,000 random records, one by one and 64 a call; rounds are interleaved over the contestants. CPU time is the
figure to compare. What is not like for like:

- Forebay returns the key of each sample too, and its bytes come from its block cache.
- `forebay-views` does not copy: its fields are memoryviews of mapped files. The others return bytes.
- ArrayRecord has both fields in one record, and groups of one record; Lance reads with threads of its own.
- Loose files, Mosaic and LitData have no call for many numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.epoch import make_records

CHILD = Path(__file__).with_name("random_contestants.py")
MODULES = {
    "forebay": "loaders",
    "forebay-views": "loaders",
    "files": "json",
    "arrayrecord": "array_record",
    "lance": "lance",
    "litdata": "litdata",
    "mosaic": "streaming",
    "huggingface": "datasets",
}
FIGURES = ("one_cpu_us", "one_wall_us", "many_cpu_us", "many_wall_us")
CHILD_SECONDS = 600


def child(action: str, name: str, data: Path, *arguments: str) -> dict[str, Any]:
    """Run one action of `random_contestants.py` and return what it printed last."""
    command = [sys.executable, str(CHILD), action, name, "--data", str(data), *arguments]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=CHILD_SECONDS, env=environment, cwd=data
    )
    if done.returncode:
        raise SystemExit(f"{action} {name} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def summarize(rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the medians of each contestant; None for what it cannot do."""
    rows = []
    for name, runs in rounds.items():
        figures = {
            figure: round(statistics.median(run[figure] for run in runs), 2) if figure in runs[0] else None
            for figure in FIGURES
        }
        rows.append({"contestant": name, **figures})
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| contestant | ds[i]: CPU us | wall us | 64 a call: CPU us/record | wall us/record |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['contestant']} | " + " | ".join("-" if row[f] is None else str(row[f]) for f in FIGURES) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--mean-bytes", type=int, default=14_000)
    parser.add_argument("--reads", type=int, default=8_000)
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the records and of the reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestants", default=",".join(MODULES))
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each measurement; needs root")
    options = parser.parse_args(arguments)
    names = [name for name in options.contestants.split(",") if find_spec(MODULES[name]) is not None]
    reads = ["--reads", str(max(64, int(options.reads * options.scale))), *(["--cold"] if options.cold else [])]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="forebay-random-") as directory:
        data = Path(directory)
        make_records(data, count=max(64, int(options.records * options.scale)), mean_bytes=options.mean_bytes)
        for name in names:
            child("prepare", name, data)
        for number in range(options.rounds):
            for name in names:
                rounds[name].append(child("run", name, data, *reads, "--seed", str(number)))
    rows = summarize(rounds)
    print(report(rows))
    return rows


if __name__ == "__main__":
    main()
