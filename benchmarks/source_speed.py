"""How fast sources are listed and read, beside raw clients and what people use today, on a real server of this machine.

    .bench-venv/bin/python -m benchmarks.source_speed list-s3 small-s3 large-s3 hdfs nfs [--json results.json]

Each measurement is one contestant in a fresh process; rounds are interleaved over the contestants, so a slow minute of
the machine hits all of them; medians are compared. Server and client share the machine's cores: the wall time is the
server's as much as the client's, so CPU time per object (user + system of the client and its children) is told beside.
All clients get as many requests at a time (32; 4 of large objects): Forebay has its small ones in one thread, obstore
and boto3 in a thread each. What is not like for like:

- rclone writes what it reads to a tmpfs, the others keep it in memory and drop it; it starts a process (0.1 s).
- Forebay reads pinned objects (If-Match and ranges, etag and length of each answer checked), the others whatever is
  there now, whole.
- s3fs, boto3 and rclone build a Python object or a line of text per key; Forebay and obstore columns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.source_contestants import CONTESTANTS
from benchmarks.source_data import WORKS, Work

CHILD_SECONDS = 900


def child(contestant: str, work: str, place: dict[str, Any]) -> dict[str, Any]:
    """Run one contestant in a process of its own and return what it printed last."""
    command = [sys.executable, "-m", "benchmarks.source_contestants", work, contestant]
    done = subprocess.run(
        command,
        input=json.dumps(place),
        capture_output=True,
        text=True,
        check=False,
        timeout=CHILD_SECONDS,
        cwd=Path(__file__).resolve().parent.parent,
    )
    if done.returncode:
        raise SystemExit(f"{work} {contestant} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(name: str, work: Work, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the work's server, fill it, and let the contestants take turns."""
    chosen = [one for one in CONTESTANTS[name] if not options.only or one in options.only.split(",")]
    rounds: dict[str, list[dict[str, Any]]] = {one: [] for one in chosen}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-sources-")))
        print(f"{name}: preparing {work.count:,} objects", file=sys.stderr)
        place = work.prepare(stack, directory, work)
        for number in range(options.rounds):
            for one in chosen:
                print(f"{name}: round {number + 1}/{options.rounds}: {one}", file=sys.stderr)
                rounds[one].append(child(one, name, place))
    totals = {(run["objects"], run["bytes"]) for runs in rounds.values() for run in runs}
    if len(totals) != 1:
        raise SystemExit(f"{name}: the contestants found different data: {sorted(totals)} (objects, bytes)")
    return summarize(rounds)


def summarize(rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row a contestant: medians, spread, and how many times faster than it Forebay is."""
    rows = []
    for name, runs in rounds.items():
        wall = sorted(run["wall"] for run in runs)
        median = statistics.median(wall)
        rows.append(
            {
                "client": name,
                "seconds": round(median, 3),
                "min": round(wall[0], 3),
                "max": round(wall[-1], 3),
                "objects_per_second": round(runs[0]["objects"] / median),
                "mib_per_second": round(runs[0]["bytes"] / median / 2**20),
                "cpu_us_per_object": round(statistics.median(run["cpu"] for run in runs) / runs[0]["objects"] * 1e6, 1),
            }
        )
    for row in rows:
        row["ratio"] = round(row["seconds"] / rows[0]["seconds"], 2)
    return rows


def report(name: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| {name} | seconds (min - max) | objects/s | MiB/s | client CPU us/object | time / {rows[0]['client']} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['client']} | {row['seconds']} ({row['min']} - {row['max']}) | {row['objects_per_second']:,}"
        f" | {row['mib_per_second']:,} | {row['cpu_us_per_object']} | {row['ratio']} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS), help=f"of {', '.join(WORKS)}; all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many objects")
    parser.add_argument("--only", default="", help="contestants, comma-separated")
    parser.add_argument("--json", type=Path, help="write machine, settings and every row to this file")
    options = parser.parse_args(arguments)
    results = {}
    for name in options.works:
        results[name] = measure(name, WORKS[name].scaled(options.scale), options)
        print(report(name, results[name]) + "\n", flush=True)
    if options.json:
        machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        document = {"machine": machine, "rounds": options.rounds, "scale": options.scale, "results": results}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
