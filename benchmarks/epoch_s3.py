"""The first epoch over S3 that is 50 ms away and sends 200 MB/s, with nothing on the disk: wall time and bytes fetched.

    .bench-venv/bin/python -m benchmarks.epoch_s3 [--scale 0.1] [--rounds 3]
    .bench-venv/bin/python -m benchmarks.epoch_s3 --only forebay,litdata --latency 0.1 --rate 100e6

Data: that of `epoch.py`, 20,000 records of 14 KB and a class of three bytes each, in shards of 64 MB in a real S3
server on loopback, behind `slow_link.py`, which delays and throttles. Each run is a fresh process with an empty cache;
rounds are interleaved. The clock begins before the data set is opened, after imports, and ends with the last batch.
`fetched / used` are all bytes that came over the line, listings, manifests and HTTP headers included, over the bytes of
payloads and classes. A peer's run that fails is told and left out. What is not like for like:

- Forebay shuffles with `stream`, in threads of one process, and checks and keeps what it reads on the disk; it reads a
  commit of a repository. `Loader` announces what it reads next.
- `forebay-mds` reads MDS shards through the same cache instead of a commit; nobody announces what it reads next.
- LitData and MosaicML Streaming download whole shards to the disk, with the workers of `--workers` (torch's) and, both,
  threads of their own. They shuffle as they do by default.
- webdataset reads signed URLs through curl, and keeps nothing; it shuffles in a buffer of 1000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import epoch_loaders
from benchmarks.epoch import make_records
from benchmarks.rounds import chosen, machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.slow_link import Link
    from tests.services.weed import S3Server

BUCKET = "bench"
BATCH = 64
MODULES = {
    "forebay": "loaders",
    "forebay-mds": "loaders",
    "webdataset": "webdataset",
    "litdata": "litdata",
    "mosaic": "streaming",
}
SECONDS = 60  # of one run


def s3_options() -> dict[str, Any]:
    env = os.environ
    return {
        "key": env["AWS_ACCESS_KEY_ID"],
        "secret": env["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": env["AWS_ENDPOINT_URL"],
    }


def s3_client() -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")


# --- preparing: each writes its shards below the data directory, and they are uploaded


def prepare(name: str, data: Path) -> None:
    if name in FOREBAY:
        FOREBAY[name](data)
        return
    if not (data / name).exists():
        epoch_loaders.PREPARE[name](data, argparse.Namespace(batch=BATCH, workers=0))
    upload(data, name)


def upload(data: Path, name: str) -> None:
    client = s3_client()
    for path in sorted((data / name).rglob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, f"{name}/{path.relative_to(data / name)}")


def prepare_forebay(data: Path) -> None:
    from cache_runtime import Client
    from loaders import ShardLayout, pack
    from sources import FileStore, Origins, open_store, scan
    from versioning import Repository, stage_import

    files, prefix = FileStore(data), f"{str(data)[1:]}/files/"
    origins = Origins()
    origins.add(prefix, files)
    repository: Any = Repository.init(open_store(f"s3://{BUCKET}/", s3_options()), "forebay/")  # type: ignore[arg-type]
    changes = stage_import(None, scan(files, prefix), store=files.id, source_prefix=prefix, target="")
    repository.commit_changes("main", changes, message="import", author="bench", base=None)
    layout = ShardLayout(shuffle=True, seed=7)
    pack(repository, "main", Client(origins, None), layout=layout, branch="main", author="bench")


def prepare_mds(data: Path) -> None:
    """The same records in MDS, which pads nothing: an offset a record and the sizes of its fields."""
    from loaders import ShardWriter

    rows = epoch_loaders.shuffled(data)
    with ShardWriter(data / "forebay-mds", format="mds", shard_size=64_000_000) as writer:
        for key, path, cls in rows:
            writer.write({"__key__": key, "bin": path.read_bytes(), "cls": cls})
    upload(data, "forebay-mds")


FOREBAY = {"forebay": prepare_forebay, "forebay-mds": prepare_mds}


# --- opening: what makes an epoch of batches, with an empty directory for what it keeps


def open_forebay(scratch: Path, options: argparse.Namespace) -> Iterable[Any]:
    from cache_runtime import BlockStore, Client
    from loaders import Loader, ShardDataset
    from sources import Origins, open_store
    from versioning import Repository

    store: Any = open_store(f"s3://{BUCKET}/", s3_options())
    origins = Origins()
    origins.add("", store)
    client = Client(origins, BlockStore.open(scratch / "cache", capacity_bytes=16 << 30))
    repository = Repository.open(store, "forebay/")
    dataset = ShardDataset.from_tree(repository.tree("main"), repository.root, client, decode=None)
    return Loader(dataset, BATCH, seed=7, order="stream", collate="list", workers=max(1, options.workers))


def open_mds(scratch: Path, options: argparse.Namespace) -> Iterable[Any]:
    from cache_runtime import BlockStore, Client
    from loaders import Loader, ShardDataset
    from sources import Origins, open_store

    uri = f"s3://{BUCKET}/forebay-mds/"
    origins = Origins()
    origins.add("", open_store(f"s3://{BUCKET}/", s3_options()))  # type: ignore[arg-type]
    client = Client(origins, BlockStore.open(scratch / "cache", capacity_bytes=16 << 30))
    dataset = ShardDataset.open(uri, client=client, store_options=s3_options(), decode=None)
    return Loader(dataset, BATCH, seed=7, order="stream", collate="list", workers=max(1, options.workers))


def open_webdataset(scratch: Path, options: argparse.Namespace) -> Iterable[Any]:
    import webdataset
    from torch.utils.data import DataLoader

    client = s3_client()
    names = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET, Prefix="webdataset/")["Contents"]]
    urls = [client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": name}) for name in names]
    pipes = [f"pipe:curl -s -f '{url}'" for url in urls]
    dataset = webdataset.WebDataset(pipes, shardshuffle=len(pipes), seed=7, empty_check=False).shuffle(1000)
    return DataLoader(dataset, batch_size=BATCH, num_workers=options.workers, collate_fn=epoch_loaders.identity)


def open_litdata(scratch: Path, options: argparse.Namespace) -> Iterable[Any]:
    import litdata
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # which it has no option for
    env = os.environ
    storage = {
        "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": env["AWS_ENDPOINT_URL"],
    }
    dataset = litdata.StreamingDataset(
        f"s3://{BUCKET}/litdata", cache_dir=str(scratch), storage_options=storage, shuffle=True, drop_last=False
    )
    return litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=options.workers, collate_fn=epoch_loaders.identity, shuffle=True
    )


def open_mosaic(scratch: Path, options: argparse.Namespace) -> Iterable[Any]:
    import streaming
    from torch.utils.data import DataLoader

    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        remote=f"s3://{BUCKET}/mosaic", local=str(scratch), shuffle=True, batch_size=BATCH, num_canonical_nodes=1
    )
    return DataLoader(dataset, batch_size=BATCH, num_workers=options.workers, collate_fn=epoch_loaders.identity)


OPEN = {
    "forebay": open_forebay,
    "forebay-mds": open_mds,
    "webdataset": open_webdataset,
    "litdata": open_litdata,
    "mosaic": open_mosaic,
}


def run(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Time the first epoch."""
    import torch.utils.data  # noqa: F401 - not in the time of whoever needs it first

    __import__(MODULES[name])
    with tempfile.TemporaryDirectory(dir=options.data) as directory:
        began, cpu = time.perf_counter(), epoch_loaders.cpu_seconds()
        batches = OPEN[name](Path(directory), options)
        first = 0.0
        count = size = 0
        for batch in batches:
            first = first or time.perf_counter() - began
            count += len(batch)
            size += sum(len(sample["bin"]) + len(sample["cls"]) for sample in batch)
        wall = time.perf_counter() - began
        close = getattr(batches, "close", None)
        if close is not None:
            close()
        del batches
        cpu = epoch_loaders.cpu_seconds() - cpu
    return {"records": count, "bytes": size, "wall": wall, "first": first, "cpu": cpu}


# --- the parent


def environment(server: S3Server, port: int) -> dict[str, str]:
    endpoint = f"http://127.0.0.1:{port}"
    root = str(Path(__file__).resolve().parent.parent)
    return {
        **os.environ,
        **server.environment,
        "AWS_ENDPOINT_URL": endpoint,
        "S3_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": root,
    }


def child(action: str, name: str, options: argparse.Namespace, env: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.epoch_s3", "--child", action, "--only", name]
    command += ["--data", str(options.data), "--workers", str(options.workers)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS if action == "run" else 10 * SECONDS,
        env=env,
        cwd=options.data,
    )
    if done.returncode:
        raise SystemExit(f"{action} {name} failed ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def one_run(name: str, options: argparse.Namespace, env: dict[str, str], link: Link) -> dict[str, Any]:
    before = link.counts()
    print(f"running {name}", file=sys.stderr)
    try:
        found = child("run", name, options, env)
    except (SystemExit, subprocess.TimeoutExpired) as error:  # of a peer: the others are measured all the same
        if name in FOREBAY:
            raise
        print(error, file=sys.stderr)
        return {}
    after = link.counts()
    fetched, requests = (after[what] - before[what] for what in ("bytes_down", "requests"))
    return {**found, "fetched_over_used": fetched / found["bytes"], "requests": requests}


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    from benchmarks.slow_link import slow_link
    from tests.services.weed import s3_server

    names = [name for name in chosen(options, tuple(MODULES)) if find_spec(MODULES[name]) is not None]
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory, prefix="forebay-s3-")))
        options.data = top / "data"
        make_records(options.data, count=max(64, int(20_000 * options.scale)), mean_bytes=14_000)
        server = stack.enter_context(s3_server(top / "server", buckets=(BUCKET,)))
        port = int(server.endpoint.rsplit(":", 1)[1])
        for name in names:
            print(f"preparing {name}", file=sys.stderr)
            child("prepare", name, options, environment(server, port))
        link = stack.enter_context(slow_link(port, latency=options.latency, rate=options.rate))
        env = environment(server, link.port)
        rounds = take_turns(
            {name: lambda _, name=name: one_run(name, options, env, link) for name in names},  # type: ignore[misc]
            options.rounds,
        )
    rounds = {name: [run for run in runs if run] for name, runs in rounds.items()}
    records = {(run["records"], run["bytes"]) for runs in rounds.values() for run in runs}
    if len(records) != 1:
        raise SystemExit(f"the loaders delivered different epochs: {sorted(records)} (records, bytes)")
    return rounds


def main(arguments: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    made = parser(__doc__, rounds=3)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--latency", type=float, default=0.05, help="seconds before each request goes on")
    made.add_argument("--rate", type=float, default=200e6, help="bytes a second, all connections together")
    made.add_argument("--child", choices=["prepare", "run"], help=argparse.SUPPRESS)
    made.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.child:
        found = run(options.only, options) if options.child == "run" else prepare(options.only, options.data)
        print("\n" + json.dumps(found or {}), flush=True)
        return {}
    rounds = measure(options)
    figures = {"wall": 2, "first": 2, "cpu": 2, "fetched_over_used": 4, "requests": 0}
    rows = [
        [
            f"{name} ({len(runs)} of {options.rounds} runs)",
            *(shown(spread([run[figure] for run in runs], digits)) for figure, digits in figures.items()),
        ]
        for name, runs in rounds.items()
        if runs
    ]
    print(
        f"{machine()}; {options.latency} s, {options.rate:g} B/s, {options.workers} workers, {options.rounds} rounds\n"
    )
    print(table(["loader", "wall s", "first batch s", "CPU s", "fetched / used", "requests"], rows))
    write_json(options.json, {"machine": machine(), "rounds": rounds})
    return rounds


if __name__ == "__main__":
    main()
