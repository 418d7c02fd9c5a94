"""The contestants of `benchmarks.source_speed`; run by it, one in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Place: TypeAlias = dict[str, Any]
    Run: TypeAlias = Callable[[list[str]], tuple[int, int] | dict[str, Any]]  # from keys to objects and bytes

THREADS = 32
LARGE_AT_A_TIME = 4


def keys(place: Place) -> list[str]:
    from benchmarks.source_data import key_of

    return [key_of(number) for number in range(place["count"])]


def threads(place: Place) -> int:
    return LARGE_AT_A_TIME if place["size"] > 1 << 20 else THREADS


def through_threads(place: Place, names: Iterable[Any], read: Callable[[Any], int]) -> tuple[int, int]:
    """Read all keys, as many at a time as every contestant does."""
    with ThreadPoolExecutor(threads(place)) as pool:
        sizes = list(pool.map(read, names))
    return len(sizes), sum(sizes)


# --- S3 ---------------------------------------------------------------------------------------------------------------


def forebay_store(place: Place) -> Any:
    from sources import open_store

    return open_store("s3://bench/", s3_options(place))


def s3_options(place: Place) -> dict[str, Any]:
    return {"key": place["key"], "secret": place["secret"], "endpoint_url": place["endpoint"]}


def obstore_store(place: Place) -> Any:
    from obstore.store import S3Store

    config: Any = {
        "access_key_id": place["key"],
        "secret_access_key": place["secret"],
        "endpoint": place["endpoint"],
    }
    return S3Store("bench", config=config, client_options={"allow_http": True})


def boto3_client(place: Place) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=place["endpoint"],
        aws_access_key_id=place["key"],
        aws_secret_access_key=place["secret"],
        region_name="us-east-1",
        config=Config(max_pool_connections=64),
    )


def s3fs_filesystem(place: Place) -> Any:
    import s3fs

    return s3fs.S3FileSystem(**s3_options(place), use_listings_cache=False)


def rclone(place: Place, *arguments: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    binary = Path(sys.executable).with_name("rclone")
    environment = {
        **os.environ,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": place["endpoint"],
        "RCLONE_S3_ACCESS_KEY_ID": place["key"],
        "RCLONE_S3_SECRET_ACCESS_KEY": place["secret"],
    }
    return subprocess.run([binary, *arguments], check=True, env=environment, timeout=600, **streams)


def list_forebay(place: Place) -> Run:
    from sources import scan

    store = forebay_store(place)
    return lambda _: (sum(batch.num_rows for batch in scan(store, "data/")), 0)


def list_obstore(place: Place) -> Run:
    import obstore

    store = obstore_store(place)
    pages = {"return_arrow": True, "chunk_size": 1000}
    return lambda _: (sum(batch.num_rows for batch in obstore.list(store, prefix="data/", **pages)), 0)  # type: ignore[call-overload]


def list_boto3(place: Place) -> Run:
    pages = boto3_client(place).get_paginator("list_objects_v2").paginate(Bucket="bench", Prefix="data/")
    return lambda _: (sum(len(page["Contents"]) for page in pages), 0)


def list_s3fs(place: Place) -> Run:
    files = s3fs_filesystem(place)
    return lambda _: (len(files.find("bench/data", detail=True)), 0)


def list_rclone(place: Place) -> Run:
    command = ("lsf", "-R", "--fast-list", "--files-only", "--format", "psh", ":s3:bench/data")
    return lambda _: (rclone(place, *command, stdout=subprocess.PIPE).stdout.count(b"\n"), 0)


def pinned(store: Any, prefix: str) -> dict[str, Any]:
    from sources import Range, scan, stats_of

    stats = [stat for batch in scan(store, prefix) for stat in stats_of(batch)]
    return {stat.key[len(prefix) :]: Range(stat.key, stat.version, 0, stat.size) for stat in stats}


def read_pinned(place: Place, store: Any, top: str = "") -> Run:
    """Small objects as one call of many ranges, large ones each in parallel parts."""
    found = pinned(store, f"{top}data/")

    def read(one: Any) -> int:
        return len(store.read(one.key, start=0, length=one.length, version=one.version))

    def run(names: list[str]) -> tuple[int, int]:
        ranges = [found[name.removeprefix("data/")] for name in names]
        if place["size"] <= 1 << 20:
            return len(ranges), sum(len(memoryview(data)) for data in store.read_many(ranges))
        return through_threads(place, ranges, read)

    return run


def read_forebay(place: Place) -> Run:
    return read_pinned(place, forebay_store(place))


def read_obstore(place: Place) -> Run:
    import obstore

    store = obstore_store(place)
    return lambda names: through_threads(place, names, lambda key: len(obstore.get(store, key).bytes()))


def read_boto3(place: Place) -> Run:
    client = boto3_client(place)
    return lambda names: through_threads(
        place, names, lambda key: len(client.get_object(Bucket="bench", Key=key)["Body"].read())
    )


def read_s3fs(place: Place) -> Run:
    files, step = s3fs_filesystem(place), LARGE_AT_A_TIME if place["size"] > 1 << 20 else 5000

    def run(names: list[str]) -> tuple[int, int]:
        paths, total = [f"bench/{name}" for name in names], 0
        for start in range(0, len(paths), step):
            found = files.cat(paths[start : start + step], batch_size=threads(place))
            total += sum(map(len, found.values())) if isinstance(found, dict) else len(found)
        return len(paths), total

    return run


def read_rclone(place: Place) -> Run:
    def run(names: list[str]) -> tuple[int, int]:
        if len(names) < place["count"]:  # the untimed start: a process has nothing to keep
            return 0, 0
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            rclone(place, "copy", "--transfers", str(threads(place)), "--checkers", "16", ":s3:bench/data", directory)
            return _measured(Path(directory))

    return run


# --- HDFS -------------------------------------------------------------------------------------------------------------


def read_hdfs_forebay(place: Place) -> Run:
    from sources import open_store

    return read_pinned(place, open_store(place["url"]))


def read_hdfs_native(place: Place) -> Run:
    import hdfs_native

    client = hdfs_native.Client(place["url"])

    def read(key: str) -> int:
        with client.read("/" + key) as file:
            return len(file.read())

    return lambda names: through_threads(place, names, read)


def read_hdfs_java(place: Place) -> Run:
    """Hadoop's DistributedFileSystem in one JVM, after a second of its own to warm up; its start is not counted."""
    source = Path(__file__).with_name("HadoopRead.java")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
        file.write("\n".join("/" + key for key in keys(place)))
    warm = place["count"] // 5 if place["size"] <= 1 << 20 else 1
    command = [*place["java"], source, place["url"], file.name, place["size"], threads(place), warm]
    done = subprocess.run([str(part) for part in command], check=True, timeout=600, stdout=subprocess.PIPE)
    os.unlink(file.name)
    return lambda _: json.loads(done.stdout.splitlines()[-1])


# --- NFS --------------------------------------------------------------------------------------------------------------


def read_nfs_forebay(place: Place, **options: str) -> Run:
    from sources import open_store, split_uri

    store = open_store(place["url"], {**place["options"], **options})
    return read_pinned(place, store, f"{split_uri(place['url']).key.strip('/')}/")


def read_nfs_rs(place: Place) -> Run:
    """One client for all threads: faster here than one for each."""
    from nfs_rs import Client

    port = int(place["url"].split("/")[2].rpartition(":")[2])
    url = f"nfs://127.0.0.1{place['export']}"
    client = Client.connect(url, nfs_port=port, mount_port=place["options"]["mountport"], versions=["3"])

    def read(key: str) -> int:
        with client.open(key, "rb") as file:
            return len(file.read_at(0, place["size"]))

    return lambda names: through_threads(place, names, read)


def _measured(directory: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


READ_S3 = {
    "forebay": read_forebay,
    "obstore": read_obstore,
    "boto3": read_boto3,
    "s3fs": read_s3fs,
    "rclone": read_rclone,
}
READ_HDFS = {"forebay": read_hdfs_forebay, "hdfs-native": read_hdfs_native, "hadoop": read_hdfs_java}
READ_NFS = {"forebay": read_nfs_forebay, "nfs-rs": read_nfs_rs}
CONTESTANTS: dict[str, dict[str, Callable[[Place], Any]]] = {
    "list-s3": {
        "forebay": list_forebay,
        "obstore": list_obstore,
        "boto3": list_boto3,
        "s3fs": list_s3fs,
        "rclone": list_rclone,
    },
    "small-s3": READ_S3,
    "large-s3": READ_S3,
    "small-hdfs": READ_HDFS,
    "large-hdfs": READ_HDFS,
    "small-nfs": READ_NFS,
    "large-nfs": READ_NFS,
}


def main() -> None:
    """Prepare one contestant, let it read a little, measure it once, print the result as JSON."""
    work, name = sys.argv[1:]
    place = json.load(sys.stdin)
    names = keys(place)
    run = CONTESTANTS[work][name](place)
    if not work.startswith("list"):
        run(names[: 2 if place["size"] > 1 << 20 else 64])  # connections are there, modules are loaded
    cpu, wall = sum(os.times()[:4]), time.perf_counter()
    found = run(names)
    wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
    if isinstance(found, dict):  # it measured itself
        print(json.dumps({"cpu": 0.0, **found}))
    else:
        print(json.dumps({"objects": found[0], "bytes": found[1], "wall": wall, "cpu": cpu}))


if __name__ == "__main__":
    main()
