"""What `benchmarks.source_speed` reads: real servers, filled with incompressible objects."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.services.hdfs import hdfs_cluster
from tests.services.nfs import nfs_server
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

BUCKET = "bench"
FOLDERS = 100
_SMALL = 10 << 10
_BLOCK = np.random.default_rng(1).bytes(64 << 20)


@dataclass(frozen=True)
class Work:
    """One measurement.

    Attributes:
        prepare: Starts the server on a stack of contexts, fills it, and returns what a contestant must know.
        count: Objects.
        size: Bytes of each.
    """

    prepare: Callable[[ExitStack, Path, Work], dict[str, Any]]
    count: int
    size: int

    def scaled(self, scale: float) -> Work:
        return replace(self, count=max(1, int(self.count * scale)))


def key_of(number: int) -> str:
    return f"data/{number % FOLDERS:03d}/{number:08d}.bin"


def body_of(number: int, size: int) -> memoryview:
    start = number * 4099 % (len(_BLOCK) - size + 1)
    return memoryview(_BLOCK)[start : start + size]


def on_s3(stack: ExitStack, directory: Path, work: Work) -> dict[str, Any]:
    import obstore
    from obstore.store import S3Store

    server = stack.enter_context(s3_server(directory / "s3", buckets=(BUCKET,)))
    config: Any = {"access_key_id": server.key, "secret_access_key": server.secret, "endpoint": server.endpoint}
    store = S3Store(BUCKET, config=config, client_options={"allow_http": True})

    def put(number: int) -> None:
        obstore.put(store, key_of(number), bytes(body_of(number, work.size)))

    _for_all(work.count, put, threads=4 if work.size > _SMALL else 32)  # or SeaweedFS takes all memory there is
    return {"endpoint": server.endpoint, "key": server.key, "secret": server.secret, **_described(work)}


def on_hdfs(stack: ExitStack, directory: Path, work: Work) -> dict[str, Any]:
    import hdfs_native

    cluster = stack.enter_context(hdfs_cluster(directory / "hdfs"))
    client = hdfs_native.Client(cluster.url)

    def put(number: int) -> None:
        with client.create("/" + key_of(number)) as file:
            file.write(bytes(body_of(number, work.size)))

    _for_all(work.count, put, threads=64)  # the NameNode takes a third of a second for each file, many at a time
    return {"url": cluster.url, "java": cluster.java, **_described(work)}


def on_nfs(stack: ExitStack, directory: Path, work: Work) -> dict[str, Any]:
    server = stack.enter_context(nfs_server(directory / "nfs"))
    for number in range(work.count):
        path = server.export / key_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body_of(number, work.size))
    return {"url": server.url, "options": server.options, "export": str(server.export), **_described(work)}


def _described(work: Work) -> dict[str, int]:
    return {"count": work.count, "size": work.size}


def _for_all(count: int, put: Callable[[int], None], *, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(put, range(count)):
            pass
    os.sync()  # what was written is not written out while others are measured


WORKS = {
    "list-s3": Work(on_s3, 200_000, 16),
    "small-s3": Work(on_s3, 20_000, _SMALL),
    "large-s3": Work(on_s3, 64, 64 << 20),
    "small-hdfs": Work(on_hdfs, 5_000, _SMALL),
    "large-hdfs": Work(on_hdfs, 16, 64 << 20),
    "small-nfs": Work(on_nfs, 5_000, _SMALL),
    "large-nfs": Work(on_nfs, 16, 64 << 20),
}
