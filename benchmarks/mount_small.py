"""What does a mount take to open, read and close many small warm files, asked for each or not, beside loose files?

    .bench-venv/bin/python -m benchmarks.mount_small [--scale 1] [--rounds 5] [--json mount_small.json]

20,000 files of 10 KiB and one of 2 MiB, imported from the disk, mounted twice: with `--small-files`, where the kernel
opens files by itself, and without, where the server answers each OPEN (and the large file can be read past it).
JuiceFS, where it is installed, has a copy of the files in a volume of its own on the same disk, with its usual options.
All files were read once before. The turns are interleaved; processor time of this process, which has the kernel's part
in it, and of the mount's processes, in microseconds a file; the least of all rounds, as other programs only add to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import juicefs_mount
from benchmarks.mount_contestants import Running
from benchmarks.mount_work import cpu
from benchmarks.rounds import machine, parser, take_turns, write_json
from benchmarks.rounds import table as as_table
from ds.mounting.records import Records
from ds.mounting.status_socket import ask_status
from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = 20_000
FILE_BYTES = 10 << 10
LARGE_BYTES = 2 << 20
_MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: bench}}
spec:
  mounts: [{{name: data, uri: "file://{directory}/raw", path: ""}}]
  repo: {{uri: "file://{directory}/repo"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 4Gi}}]
"""
_DS = (sys.executable, "-c", "from ds.cli import main; main()")


def _environment(directory: Path) -> dict[str, str]:
    ours = os.fspath(Path(__file__).resolve().parents[1])
    return {**os.environ, "FOREBAY_HOME": f"{directory}/home", "FOREBAY_AUTHOR": "bench", "PYTHONPATH": ours}


def _name(number: int) -> str:
    return f"{number % 50:02}/{number:06}.bin"


def _prepare(directory: Path, files: int) -> None:
    body = os.urandom(FILE_BYTES)
    for number in range(files):
        path = directory / "raw" / _name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "big") + body[8:])
    (directory / "raw/large.bin").write_bytes(os.urandom(LARGE_BYTES))
    (directory / "dataset.yaml").write_text(_MANIFEST.format(directory=directory))
    for words in (("apply", "-f", f"{directory}/dataset.yaml"), ("import",), ("commit", "-m", "all")):
        subprocess.run([*_DS, *words], check=True, capture_output=True, timeout=600, env=_environment(directory))


@contextmanager
def _mounted(directory: Path, name: str, *options: str) -> Iterator[Running]:
    path = directory / name
    path.mkdir()
    command = [*_DS, "mount", "bench@main", os.fspath(path), *options]
    log, environment = directory / f"{name}.log", _environment(directory)
    with started(command, log=log, ready=lambda _: path.is_mount(), env=environment) as process:
        try:
            yield Running(path, process.pid, directory / "cache")
        finally:
            subprocess.run(["umount", path], check=False, capture_output=True, timeout=30)


@contextmanager
def _juicefs(directory: Path, files: int) -> Iterator[Running]:
    with juicefs_mount.juicefs(directory, "--free-space-ratio", "0.01") as mount:
        mount.write([_name(number) for number in range(files)], lambda number: _body(directory.parent, number))
        yield Running(mount.path, mount.pids[0], directory / "cache")


def _body(directory: Path, number: int) -> bytes:
    return (directory / "raw" / _name(number)).read_bytes()


def _requests(directory: Path, running: Running) -> dict[str, int]:
    status = ask_status(Records(directory / "home").file(os.fspath(running.path), ".sock")) or {}
    return {name: int(each["requests"]) for name, each in status.get("operations", {}).items()}


def _read(root: Path, files: int) -> None:
    for number in range(files):
        descriptor = os.open(f"{root}/{_name(number)}", os.O_RDONLY)
        data = os.read(descriptor, 1 << 20)
        os.close(descriptor)
        if len(data) != FILE_BYTES or data[:8] != number.to_bytes(8, "big"):
            raise AssertionError(f"{root}: other bytes of {_name(number)}")


def _turn(directory: Path, running: Running, files: int) -> dict[str, float]:
    asked = _requests(directory, running) if running.pid else {}
    mount, reader, clock = cpu(running.pids), time.process_time(), time.perf_counter()
    _read(running.path, files)
    took = {
        "mount_us": (cpu(running.pids) - mount) / files * 1e6,
        "reader_us": (time.process_time() - reader) / files * 1e6,
        "wall_us": (time.perf_counter() - clock) / files * 1e6,
    }
    now = _requests(directory, running) if running.pid else {}
    for name in ("lookup", "open", "read", "release"):
        took[f"{name}s"] = (now.get(name, 0) - asked.get(name, 0)) / files
    return took


def run(directory: Path, *, files: int, rounds: int) -> dict[str, Any]:
    """Measure, and return the rows."""
    _prepare(directory, files)
    with ExitStack() as stack:
        ways = {
            "ext4": Running(directory / "raw", 0, directory),
            "asked": stack.enter_context(_mounted(directory, "asked")),
            "small": stack.enter_context(_mounted(directory, "small", "--small-files")),
        }
        if juicefs_mount.missing() is None:
            ways["juicefs"] = stack.enter_context(_juicefs(directory / "juicefs", files))
            _read(ways["juicefs"].path, files)
        _read(ways["small"].path, files)  # from the origin, so that both mounts find the cache filled
        first = {f"{name}, first pass": _turn(directory, ways[name], files) for name in ("ext4", "asked")}
        turns = {name: lambda _, at=at: _turn(directory, at, files) for name, at in ways.items()}
        found = take_turns(turns, rounds)
    least = {name: {key: min(turn[key] for turn in each) for key in each[0]} for name, each in found.items()}
    return {"machine": machine(), "files": files, "rounds": rounds, "rows": first | least}


def main() -> None:
    """Parse the command line, measure and print."""
    options = parser(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        result = run(Path(scratch), files=int(FILES * options.scale), rounds=options.rounds)
    rows = [[name, *(round(value, 2) for value in row.values())] for name, row in result["rows"].items()]
    print(f"{result['machine']}, {result['files']:,} files, {result['rounds']} rounds\n")
    print(as_table(["a file", *next(iter(result["rows"].values()))], rows))
    write_json(options.json, result)


if __name__ == "__main__":
    main()
