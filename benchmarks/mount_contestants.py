"""The mounts of `benchmarks.mount`: each shows the same objects of one S3 server, with a cache on the same disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rounds import family
from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.weed import S3Server

BUCKET = "bench"
JUICE_BUCKET = "juice"
PACK_BUCKET = "packs"
_SECONDS = 60
_LEAVE_SECONDS = 3
_MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: bench}}
spec:
  mounts: [{{name: data, uri: "s3://bench/data", path: ""}}]
  repo: {{uri: "{repo}"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 16Gi}}]
"""


class Running(NamedTuple):
    """A mount.

    Attributes:
        path: Where the objects of `data/` are.
        pid: The first of its processes.
        cache: Where it keeps bytes.
    """

    path: Path
    pid: int
    cache: Path

    @property
    def pids(self) -> list[int]:
        return family(self.pid) if self.pid else []

    def rss_mib(self) -> float:
        """Return the memory of its processes."""
        kib = 0
        for pid in self.pids:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return round(kib / 1024, 1)


@dataclass
class Place:
    """Where everything lies.

    Attributes:
        directory: Scratch.
        server: S3, with the objects.
        environment: What `ds` and the others are told of it.
    """

    directory: Path
    server: S3Server
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = {"AWSACCESSKEYID": self.server.key, "AWSSECRETACCESSKEY": self.server.secret}
        self.environment = {**os.environ, **self.server.environment, **keys, "FOREBAY_AUTHOR": "bench"}

    def call(self, *command: str | Path) -> None:
        subprocess.run(command, check=True, env=self.environment, timeout=1200, capture_output=True)


def program(name: str) -> str | None:
    """Return a program that lies beside this Python, or in PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


@contextmanager
def _mounted(place: Place, name: str, command: list[str], *, cache: Path, below: str = "") -> Iterator[Running]:
    path = place.directory / name / "mount"
    path.mkdir(parents=True, exist_ok=True)
    log = place.directory / name / "log"
    with started(command, log=log, ready=lambda _: path.is_mount(), env=place.environment) as process:
        try:
            yield Running(path / below, process.pid, cache)
        finally:
            for option in ([], ["-l"]):  # busy for a moment, or already gone
                subprocess.run(["umount", *option, path], check=False, timeout=_SECONDS, capture_output=True)
            with suppress(subprocess.TimeoutExpired):  # rclone goes on when it was unmounted lazily: it is killed then
                process.wait(_LEAVE_SECONDS)


def _emptied(cache: Path, *, keep: bool) -> Path:
    if not keep:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def prepare_forebay(place: Place) -> None:
    """Import and commit the objects; no byte of them is read."""
    _commit(place, "forebay", f"file://{place.directory}/forebay/repo")


def prepare_packed(place: Place) -> None:
    """Copy the small objects into packs of 64 MiB on the same server, in the order of their paths."""
    ds = _commit(place, "packed", f"s3://{PACK_BUCKET}/repo")
    place.call(*ds, "pack")


def _commit(place: Place, name: str, repo: str) -> list[str]:
    """Make the Dataset with this repository, and return the command that knows it."""
    directory = place.directory / name
    directory.mkdir()
    (directory / "dataset.yaml").write_text(_MANIFEST.format(directory=directory, repo=repo))
    ds = ["env", f"FOREBAY_HOME={directory}/home", program("ds") or "ds"]
    for words in (["apply", "-f", os.fspath(directory / "dataset.yaml")], ["import"], ["commit", "-m", "all"]):
        place.call(*ds, *words)
    return ds


@contextmanager
def forebay(place: Place, *, name: str = "forebay", keep: bool = False) -> Iterator[Running]:
    directory = place.directory / name
    cache = _emptied(directory / "cache", keep=keep)
    _emptied(directory / "home/nodes", keep=keep)
    mount = [program("ds") or "ds", "mount", "bench@main", os.fspath(directory / "mount")]
    with _mounted(place, name, ["env", f"FOREBAY_HOME={directory}/home", *mount], cache=cache) as running:
        yield running


def prepare_juicefs(place: Place) -> None:
    """Copy the objects into a volume whose storage is the same server; it cannot show objects as they are."""
    juicefs, directory = program("juicefs") or "juicefs", place.directory / "juicefs"
    directory.mkdir()
    bucket, names = f"{place.server.endpoint}/{JUICE_BUCKET}", f"sqlite3://{directory}/names.db"
    keys = ["--access-key", place.server.key, "--secret-key", place.server.secret]
    place.call(juicefs, "format", "--storage", "s3", "--bucket", bucket, *keys, "--trash-days", "0", names, "bench")
    source = f"s3://{place.server.key}:{place.server.secret}@{place.server.endpoint.removeprefix('http://')}/{BUCKET}/"
    with _juicefs(place, keep=False, extra=[]) as running:
        copy = [juicefs, "sync", "--threads", "16", f"minio{source.removeprefix('s3')}", f"{running.path.parent}/"]
        place.call(*copy)


@contextmanager
def _juicefs(place: Place, *, keep: bool, extra: list[str]) -> Iterator[Running]:
    directory = place.directory / "juicefs"
    cache = _emptied(directory / "cache", keep=keep)
    room = ["--free-space-ratio", "0.01"]  # of its own it caches nothing on a disk that is 90 % full
    options = ["--cache-dir", os.fspath(cache), *room, "--no-usage-report", "--no-syslog", *extra]
    command = [program("juicefs") or "juicefs", "mount", *options, f"sqlite3://{directory}/names.db"]
    with _mounted(place, "juicefs", [*command, os.fspath(directory / "mount")], cache=cache, below="data") as running:
        yield running


@contextmanager
def juicefs(place: Place, *, keep: bool = False) -> Iterator[Running]:
    with _juicefs(place, keep=keep, extra=["--read-only"]) as running:
        yield running


@contextmanager
def rclone(place: Place, *, keep: bool = False) -> Iterator[Running]:
    cache = _emptied(place.directory / "rclone/cache", keep=keep)
    remote = f":s3,provider=SeaweedFS,env_auth=true,endpoint='{place.server.endpoint}':{BUCKET}/data"
    kept = ["--vfs-cache-mode", "full", "--vfs-cache-max-size", "16G", "--dir-cache-time", "1h", "--read-only"]
    point = os.fspath(place.directory / "rclone/mount")
    command = [program("rclone") or "rclone", "mount", remote, point, "--cache-dir", os.fspath(cache), *kept]
    with _mounted(place, "rclone", [*command, "--config", "/dev/null"], cache=cache) as running:
        yield running


@contextmanager
def s3fs(place: Place, *, keep: bool = False) -> Iterator[Running]:
    cache = _emptied(place.directory / "s3fs/cache", keep=keep)
    options = f"url={place.server.endpoint},use_path_request_style,use_cache={cache},ro,max_stat_cache_size=1000000"
    point = os.fspath(place.directory / "s3fs/mount")
    with _mounted(place, "s3fs", ["s3fs", BUCKET, point, "-f", "-o", options], cache=cache, below="data") as running:
        yield running


def _nothing(place: Place) -> None:
    del place


class Contestant(NamedTuple):
    """How it is prepared once, mounted, and what it needs."""

    prepare: Callable[[Place], None]
    mount: Callable[..., object]
    needs: str


CONTESTANTS = {
    "forebay": Contestant(prepare_forebay, forebay, "ds"),
    "packed": Contestant(prepare_packed, partial(forebay, name="packed"), "ds"),
    "juicefs": Contestant(prepare_juicefs, juicefs, "juicefs"),
    "rclone": Contestant(_nothing, rclone, "rclone"),
    "s3fs": Contestant(_nothing, s3fs, "s3fs"),
}
