"""CPU and wall time of one shuffled epoch of small records, through Forebay and through what people use today.

    .bench-venv/bin/python benchmarks/epoch.py                       # Forebay, loose files and the peers installed
    python benchmarks/epoch.py --peer-python .bench-venv/bin/python   # the peers from an environment of their own
    .bench-venv/bin/python benchmarks/epoch.py --workers 2           # with two workers
    .bench-venv/bin/python benchmarks/epoch.py --cold --rounds 3     # from the disk; as root

Data: 20,000 records of 14 KB (lognormal, incompressible) and a class of three bytes each, warm in the page cache.
Each measurement is one epoch after an untimed one, in a fresh process; rounds are interleaved over the loaders, so a
slow minute of the machine hits all of them. CPU time is user + system of the process and its workers, and the figure
to compare: wall time depends on what else runs. What is not like for like:

- Loose files know the class from the directory's name; the others read it as a second field.
- webdataset and mosaicml-streaming shuffle in a window; the others the whole epoch.
- Grain reads ArrayRecord with the two fields in one record, and has worker processes of its own instead of torch's;
  HF datasets reads Arrow files on the disk (`save_to_disk`), not its cache.
- With `--cold` a process reads one epoch, its first: imports and the opening of the data are not in it, the check of
  what Forebay's cache holds is. With workers the start of their processes is.
- Forebay's bytes come from its block cache, with checks of identity; the peers read their shards in place.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

CHILD = Path(__file__).with_name("epoch_loaders.py")
OURS = ["forebay", "files"]
PEERS = {
    "webdataset": "webdataset",
    "mosaic": "streaming",
    "litdata": "litdata",
    "huggingface": "datasets",
    "grain": "array_record",
}
CLASSES = 100
CHILD_SECONDS = 900


def make_records(data: Path, *, count: int, mean_bytes: int) -> None:
    """Write `files/<class>/<number>.bin` and `.cls`; the same bytes every time."""
    rng = np.random.default_rng(1)
    sigma = 0.5
    sizes = rng.lognormal(np.log(mean_bytes) - sigma**2 / 2, sigma, count).astype(int) + 1
    for number, size in enumerate(sizes.tolist()):
        directory = data / "files" / f"{number % CLASSES:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06d}.bin").write_bytes(rng.bytes(size))
        (directory / f"{number:06d}.cls").write_text(directory.name)


def child(python: str, action: str, loader: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one action of `epoch_loaders.py` and return what it printed last."""
    command = [python, str(CHILD), action, loader, "--data", str(data), "--batch", str(options.batch)]
    command += ["--workers", str(options.workers), *(["--cold"] if options.cold else [])]
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=CHILD_SECONDS, env=environment, cwd=data
    )
    if done.returncode:
        raise SystemExit(f"{action} {loader} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def installed(python: str, module: str) -> bool:
    if python == sys.executable:
        return find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], check=False, timeout=60).returncode == 0


def choose_loaders(options: argparse.Namespace) -> dict[str, str]:
    """Return the loaders to run, each with its interpreter."""
    wanted = options.loaders.split(",") if options.loaders else [*OURS, *PEERS]
    chosen = {}
    for name in wanted:
        if name in OURS:
            chosen[name] = sys.executable
        elif installed(options.peer_python, PEERS[name]):
            chosen[name] = options.peer_python
        else:
            print(f"{name}: not installed in {options.peer_python}, left out", file=sys.stderr)
    return chosen


def measure(loaders: dict[str, str], data: Path, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    for name, python in loaders.items():
        print(f"preparing {name}", file=sys.stderr)
        child(python, "prepare", name, data, options)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    for number in range(options.rounds):
        for name, python in loaders.items():
            print(f"round {number + 1}/{options.rounds}: {name}", file=sys.stderr)
            rounds[name].append(child(python, "run", name, data, options))
    records = {(run["records"], run["bytes"]) for runs in rounds.values() for run in runs}
    if len(records) != 1:
        raise SystemExit(f"the loaders delivered different epochs: {sorted(records)} (records, bytes)")
    return rounds


def summarize(rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row a loader: medians, spread and the ratio of CPU time to Forebay's (or the first loader's)."""
    rows = []
    for name, runs in rounds.items():
        cpu = sorted(run["cpu_us_per_record"] for run in runs)
        wall = sorted(run["wall_us_per_record"] for run in runs)
        rows.append(
            {
                "loader": name,
                "version": runs[0]["version"],
                "cpu_us": round(statistics.median(cpu), 2),
                "cpu_us_min": round(cpu[0], 2),
                "cpu_us_max": round(cpu[-1], 2),
                "wall_us": round(statistics.median(wall), 2),
                "records_per_second": round(1e6 / statistics.median(wall)),
            }
        )
    for row in rows:
        row["cpu_ratio"] = round(row["cpu_us"] / rows[0]["cpu_us"], 2)
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| loader | version | CPU us/record | (min - max) | wall us/record | records/s | CPU / {rows[0]['loader']} |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['loader']} | {row['version']} | {row['cpu_us']} | {row['cpu_us_min']} - {row['cpu_us_max']}"
        f" | {row['wall_us']} | {row['records_per_second']:,} | {row['cpu_ratio']} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--scale", type=float, default=1.0, help="this part of the records")
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each epoch; needs root")
    parser.add_argument("--mean-bytes", type=int, default=14_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loaders", default="", help=f"comma-separated; of {', '.join([*OURS, *PEERS])}")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--json", type=Path, help="write machine, settings and every run to this file")
    options = parser.parse_args(arguments)
    options.records = max(1, int(options.records * options.scale))
    options.peer_python = str(Path(options.peer_python).absolute())
    loaders = choose_loaders(options)
    with tempfile.TemporaryDirectory(prefix="forebay-epoch-") as directory:
        data = Path(directory)
        make_records(data, count=options.records, mean_bytes=options.mean_bytes)
        rounds = measure(loaders, data, options)
    rows = summarize(rounds)
    print(report(rows))
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        settings = {
            name: getattr(options, name) for name in ("records", "mean_bytes", "batch", "workers", "rounds", "cold")
        }
        options.json.write_text(
            json.dumps({"machine": machine, "settings": settings, "table": rows, "rounds": rounds}, indent=2) + "\n"
        )
    return rows


if __name__ == "__main__":
    main()
