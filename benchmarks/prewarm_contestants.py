"""The contestants of `benchmarks.prewarm`; run by it, one in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.source_contestants import forebay_store, keys, obstore_store, pinned, rclone

if TYPE_CHECKING:
    from collections.abc import Callable

    Place: TypeAlias = dict[str, Any]

THREADS = 16
LARGE_AT_A_TIME = 8
_PART = 8 << 20


def threads(place: Place) -> int:
    return LARGE_AT_A_TIME if place["size"] > 1 << 20 else THREADS


def forebay(place: Place, target: Path) -> Callable[[], int]:
    """Plan, fetch, verify."""
    from cache_runtime import BlockStore, Client, plan_load, run_load
    from sources import Location, ObjectRef, Origins

    store = forebay_store(place)
    found = pinned(store, "data/")
    ranges = [found[key.removeprefix("data/")] for key in keys(place)]
    origins = Origins()
    origins.add("", store)
    total = place["size"] * place["count"]
    client = Client(origins, BlockStore.open(target / "cache", capacity_bytes=2 * total + (256 << 20)))
    locations = [Location(ObjectRef(store.id, one.key, one.version, one.length), 0, one.length) for one in ranges]

    def run() -> int:
        report = run_load(client, plan_load(client, locations), concurrency=THREADS)
        assert report.verified, report
        return report.fetched_bytes

    return run


def obstore_files(place: Place, target: Path) -> Callable[[], int]:
    """A thread pool that writes each object to a file: what one writes by hand; large ones by parts."""
    import obstore

    store = obstore_store(place)
    for name in keys(place):
        (target / name).parent.mkdir(parents=True, exist_ok=True)

    def fetch(name: str) -> int:
        if place["size"] <= 1 << 20:
            with open(target / name, "wb", buffering=0) as file:
                return file.write(obstore.get(store, name).bytes())
        with open(target / name, "wb", buffering=0) as file:
            for part in obstore.get(store, name).stream(min_chunk_size=_PART):
                file.write(part)
        return int(place["size"])

    def run() -> int:
        with ThreadPoolExecutor(threads(place)) as pool:
            return sum(pool.map(fetch, keys(place)))

    return run


def rclone_copy(place: Place, target: Path) -> Callable[[], int]:
    def run() -> int:
        command = ("copy", "--transfers", str(threads(place)), "--checkers", "16", ":s3:bench/data")
        rclone(place, *command, os.fspath(target / "data"))
        return sum(path.stat().st_size for path in (target / "data").rglob("*") if path.is_file())

    return run


def juicefs_warmup(place: Place, target: Path) -> Callable[[], int]:
    """The same bytes, but its own objects in a bucket of its own: it cannot warm what it did not write."""
    mount, cache = target / "mount", target / "cache"
    mount.mkdir()
    binary = Path(sys.executable).with_name("juicefs")
    meta = f"sqlite3://{place['juicefs']}"
    environment = {**os.environ, "ACCESS_KEY": place["key"], "SECRET_KEY": place["secret"]}
    capacity = str((place["size"] * place["count"] * 2 >> 20) + 1024)
    mounted = subprocess.Popen(
        [binary, "mount", "--no-usage-report", "--cache-dir", cache, "--cache-size", capacity, meta, mount],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not mount.is_mount():
        if time.monotonic() > deadline or mounted.poll() is not None:
            raise SystemExit("JuiceFS did not mount")
        time.sleep(0.1)

    def run() -> int:
        command = [binary, "warmup", "--threads", str(THREADS), mount]
        subprocess.run(command, check=True, timeout=900, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return sum(path.stat().st_size for path in (cache).rglob("*") if path.is_file())

    def close() -> None:
        subprocess.run(["umount", "-l", mount], check=True)
        # it runs as two processes, one of which starts the other again
        os.killpg(mounted.pid, signal.SIGKILL)
        mounted.wait()

    run.close = close  # type: ignore[attr-defined]
    run.pid = mounted.pid  # type: ignore[attr-defined]
    return run


CONTESTANTS: dict[str, Callable[[Place, Path], Callable[[], int]]] = {
    "forebay": forebay,
    "obstore": obstore_files,
    "rclone": rclone_copy,
    "juicefs": juicefs_warmup,
}


def _cpu_of(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prepare one contestant, measure it once, print the result as JSON."""
    name, place = sys.argv[1], json.load(sys.stdin)
    target = Path(place["target"])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    run = CONTESTANTS[name](place, target)
    other = getattr(run, "pid", None)
    os.sync()
    try:
        cpu, wall = sum(os.times()[:4]) + _cpu_of(other), time.perf_counter()
        got = run()
        wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) + _cpu_of(other) - cpu
    finally:
        getattr(run, "close", lambda: None)()
    print(json.dumps({"bytes": got, "wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
