"""How fast data is brought from S3 to this node's disk, beside what one would use instead, and what the server sent.

    .bench-venv/bin/python -m benchmarks.prewarm small large [--rounds 5] [--json results.json]
    .bench-venv/bin/python -m benchmarks.prewarm cluster

Each measurement is one contestant in a fresh process with an empty directory; rounds are interleaved, medians are
compared. Server and client share the machine's cores and its disk. All have as many requests at a time. `origin` is
what the server counted as sent, over the size of the data. What is not like for like:

- Forebay's time includes a plan before and a verification after; it pins versions (If-Match), checksums all it writes,
  and what it writes is readable as a cache. obstore and rclone leave plain files; the listing that rclone makes is in
  its time, those of the others are not.
- JuiceFS cannot warm objects that it did not write: it reads its own blocks (4 MiB at most, without compression) of a
  bucket of its own, names come from SQLite. Its origin bytes are those; the processor
  time of its mount is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.prewarm_contestants import CONTESTANTS
from benchmarks.source_data import Work, body_of, key_of, on_s3

ROOT = Path(__file__).resolve().parent.parent
CHILD_SECONDS = 900
WORKS = {"small": Work(on_s3, 20_000, 10 << 10), "large": Work(on_s3, 64, 64 << 20)}
_SENT = re.compile(r"^SeaweedFS_s3_bucket_traffic_sent_bytes_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def sent_bytes(place: dict[str, Any]) -> int:
    """Return how many bytes the server says to have sent."""
    base, _, port = place["endpoint"].rpartition(":")
    with urllib.request.urlopen(f"{base}:{int(port) + 5}/metrics", timeout=30) as answer:
        return sum(int(float(count)) for count in _SENT.findall(answer.read().decode()))


def child(contestant: str, place: dict[str, Any]) -> dict[str, Any]:
    """Run one contestant in a process of its own and return what it printed last."""
    before = sent_bytes(place)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.prewarm_contestants", contestant],
        input=json.dumps(place), capture_output=True, text=True, check=False, timeout=CHILD_SECONDS, cwd=ROOT,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{contestant} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    shutil.rmtree(place["target"])
    return {**result, "sent": sent_bytes(place) - before}


def prepare_juicefs(directory: Path, place: dict[str, Any]) -> None:
    """Make a JuiceFS volume on the same server, and copy the data into it."""
    binary, meta, mount = Path(sys.executable).with_name("juicefs"), directory / "juicefs.db", directory / "jfs"
    keys = {**os.environ, "ACCESS_KEY": place["key"], "SECRET_KEY": place["secret"]}
    quiet: dict[str, Any] = {"env": keys, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bucket = f"{place['endpoint']}/juicefs"
    command = ["format", "--storage", "s3", "--bucket", bucket, f"sqlite3://{meta}", "bench"]
    subprocess.run([binary, *command], check=True, timeout=60, **quiet)
    mount.mkdir()
    options = ["--no-usage-report", "--cache-dir", directory / "jfs-cache"]
    mounted = subprocess.Popen([binary, "mount", *options, f"sqlite3://{meta}", mount], **quiet)
    while not mount.is_mount():
        if mounted.poll() is not None:
            raise SystemExit("JuiceFS did not mount")
    for number in range(place["count"]):
        path = mount / key_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body_of(number, place["size"]))
    subprocess.run(["umount", mount], check=True, timeout=120)
    mounted.wait(60)
    shutil.rmtree(directory / "jfs-cache", ignore_errors=True)
    place["juicefs"] = os.fspath(meta)


def measure(name: str, work: Work, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the server, fill it, and let the contestants take turns."""
    chosen = [one for one in CONTESTANTS if not options.only or one in options.only.split(",")]
    rounds: dict[str, list[dict[str, Any]]] = {one: [] for one in chosen}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-prewarm-")))
        print(f"{name}: preparing {work.count:,} objects", file=sys.stderr)
        place = {**work.prepare(stack, directory, work), "target": os.fspath(directory / "target")}
        if "juicefs" in chosen:
            prepare_juicefs(directory, place)
        for number in range(options.rounds):
            for one in chosen[:: -1 if number % 2 else 1]:  # each finds the memory that the one before left
                rounds[one].append(child(one, place))
                shown = {key: round(value, 2) for key, value in rounds[one][-1].items()}
                print(f"{name}: round {number + 1}/{options.rounds}: {one} {shown}", file=sys.stderr, flush=True)
    return summarize(rounds, work)


def summarize(rounds: dict[str, list[dict[str, Any]]], work: Work) -> list[dict[str, Any]]:
    """Return one row a contestant: medians, spread, and how many times faster than it Forebay is."""
    total = work.count * work.size
    rows: list[dict[str, Any]] = []
    for name, runs in rounds.items():
        wall = sorted(run["wall"] for run in runs)
        median = statistics.median(wall)
        rows.append(
            {
                "client": name,
                "seconds": round(median, 2),
                "min": round(wall[0], 2),
                "max": round(wall[-1], 2),
                "objects_per_second": round(work.count / median),
                "mib_per_second": round(total / median / 2**20),
                "cpu_us_per_object": round(statistics.median(run["cpu"] for run in runs) / work.count * 1e6, 1),
                "origin": round(statistics.median(run["sent"] for run in runs) / total, 3),
            }
        )
    for row in rows:
        row["ratio"] = round(row["seconds"] / rows[0]["seconds"], 2)
    return rows


def report(name: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| {name} | seconds (min - max) | objects/s | MiB/s | CPU us/object | origin | time / {rows[0]['client']} |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['client']} | {row['seconds']} ({row['min']} - {row['max']}) | {row['objects_per_second']:,}"
        f" | {row['mib_per_second']:,} | {row['cpu_us_per_object']} | {row['origin']:.2f}x | {row['ratio']} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS), help=f"of {', '.join(WORKS)}, cluster; the first two")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many objects")
    parser.add_argument("--only", default="", help="contestants, comma-separated")
    parser.add_argument("--json", type=Path, help="write machine, settings and every row to this file")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    for name in options.works:
        if name == "cluster":
            from benchmarks.prewarm_cluster import measure_cluster

            results[name] = measure_cluster(WORKS["small"].scaled(options.scale / 4), WORKS["large"].scaled(1 / 16))
            print(results[name])
            continue
        results[name] = measure(name, WORKS[name].scaled(options.scale), options)
        print(report(name, results[name]) + "\n", flush=True)
    if options.json:
        machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        document = {"machine": machine, "rounds": options.rounds, "scale": options.scale, "results": results}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
