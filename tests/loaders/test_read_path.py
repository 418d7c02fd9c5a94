"""Reading under hardship: caches that are too small, damaged or shared; many epochs; every way to start a worker."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime import BlockStore, Client
from loaders import CorruptSampleError, DecodeError, ShardDataset
from loaders.records import CommitRecords
from sources import FileStore, scan
from versioning import Repository, stage_import

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loaders.conftest import Workshop

MIB = 1 << 20
N = 24
EPOCHS = 3


def body(number: int) -> bytes:
    """Return 2.5 MiB: an object that is cached in one block, and mapped."""
    return random.Random(number).randbytes(1024) * 2560


def import_large(workshop: Workshop) -> None:
    workshop.import_files({f"{number:03d}.bin": body(number) for number in range(N)})


def open_with(workshop: Workshop, directory: Path, *, mib: int, **options: Any) -> ShardDataset:
    store = BlockStore.open(directory, capacity_bytes=mib * MIB)
    client = Client(workshop.client.origins, store)
    tree = workshop.repository.tree("main")
    return ShardDataset.from_tree(tree, workshop.repository.root, client, **{"decode": None} | options)


def read_epochs(dataset: ShardDataset, seed: int) -> bool:
    """Read epochs in batches of 4, keep the views of the batch before, and compare everything."""
    before: list[dict[str, Any]] = []
    for epoch in range(EPOCHS):
        order = random.Random(f"{seed} {epoch}").sample(range(N), N)
        for start in range(0, N, 4):
            batch = dataset.__getitems__(order[start : start + 4])
            for sample in (*before, *batch):
                if bytes(sample["bin"]) != body(int(sample["__key__"])):
                    return False
            before = batch
    return True


@pytest.mark.parametrize("decode", [None, {"bin": memoryview}], ids=["bytes", "views"])
def test_what_is_evicted_while_it_is_mapped_stays_right(workshop: Workshop, tmp_path: Path, decode: Any) -> None:
    import_large(workshop)
    dataset = open_with(workshop, tmp_path / "tiny", mib=32, decode=decode)
    assert read_epochs(dataset, 1)
    assert dataset.stats().evicted_bytes > 32 * MIB
    assert dataset.stats().corrupt_blocks == dataset.stats().store_failures == 0


def test_what_is_prefetched_is_read_from_the_cache(workshop: Workshop, tmp_path: Path) -> None:
    import_large(workshop)
    dataset = open_with(workshop, tmp_path / "cache", mib=128)
    future = dataset.prefetch([3, -1, 3])
    assert future is not None
    assert future.result(60) == 2 * len(body(3))
    before = dataset.stats()
    assert [bytes(sample["bin"]) for sample in dataset.__getitems__([3, -1])] == [body(3), body(N - 1)]
    assert (dataset.stats() - before).reads_origin == 0
    with pytest.raises(IndexError):
        dataset.prefetch([N])


def test_two_jobs_share_one_tiny_cache(workshop: Workshop, tmp_path: Path) -> None:
    import_large(workshop)
    dataset = open_with(workshop, tmp_path / "tiny", mib=32)
    children = []
    for job in range(2):
        child = os.fork()
        if child == 0:
            ok = False
            try:
                ok = read_epochs(open_with(workshop, tmp_path / "tiny", mib=32) if job else dataset, job)
            finally:
                os._exit(0 if ok else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert read_epochs(dataset, 5)


def test_a_cached_file_that_is_cut_or_removed_between_batches_is_fetched_anew(
    workshop: Workshop, tmp_path: Path
) -> None:
    import_large(workshop)
    dataset = open_with(workshop, tmp_path / "cache", mib=128)
    numbers = list(range(N))
    keys = [sample["__key__"] for sample in dataset.__getitems__(numbers)]
    for number, path in enumerate((tmp_path / "cache/files").glob("*/*")):
        if number % 2:
            path.unlink()
        else:
            os.truncate(path, number * 1000)
    before = dataset.stats().corrupt_blocks
    for read in (dataset.__getitems__, lambda numbers: [dataset[number] for number in numbers]):
        assert [(s["__key__"], s["bin"]) for s in read(numbers)] == [(key, body(int(key))) for key in keys]
    assert dataset.stats().corrupt_blocks - before == N // 2  # what was only unlinked still is mapped


def test_a_bit_that_flips_under_the_mapping_is_found_with_verify(workshop: Workshop, tmp_path: Path) -> None:
    workshop.import_files({f"{number:03d}.bin": body(number) for number in range(2)})
    commit_and_verify = open_with(workshop, tmp_path / "cache", mib=64, verify=True)
    records = commit_and_verify.records
    assert isinstance(records, CommitRecords)
    if (records.samples.member_crc < 0).all():
        from dataclasses import replace

        import google_crc32c
        import numpy as np

        crcs = [google_crc32c.value(body(int(key))) for key in records.keys_of(np.arange(2))]
        samples = replace(records.samples, member_crc=np.array(crcs, dtype=np.int64))
        commit_and_verify = ShardDataset(CommitRecords(samples, records.client), decode=None, verify=True)
    assert len(commit_and_verify.__getitems__([0, 1])) == 2
    path = next((tmp_path / "cache/files").glob("*/*"))
    with path.open("r+b") as file:
        file.seek(70_000)
        byte = file.read(1)[0]
        file.seek(70_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(CorruptSampleError, match=r"field bin: its crc32c is \w+, the commit says"):
        commit_and_verify.__getitems__([0, 1])
    with pytest.raises(CorruptSampleError):
        [commit_and_verify[number] for number in (0, 1)]


@pytest.mark.parametrize("verify", [False, True])
def test_samples_with_different_fields_are_read_together(workshop: Workshop, verify: bool) -> None:
    files = {f"{n:02d}.{field}": f"{n} {field}".encode() for n in range(20) for field in "abc"[: 1 + n % 3]}
    workshop.import_files(files)
    tree, root = workshop.repository.tree("main"), workshop.repository.root
    dataset = ShardDataset.from_tree(tree, root, workshop.client, verify=verify)
    expected = [
        {"__key__": f"{n:02d}", **{field: f"{n} {field}".encode() for field in "abc"[: 1 + n % 3]}} for n in range(20)
    ]
    assert sorted(dataset.__getitems__(range(20)), key=lambda sample: sample["__key__"]) == expected
    assert [dataset[n] for n in range(-20, 0)] == dataset.__getitems__(range(20))


def test_one_bad_field_in_a_batch_is_named(workshop: Workshop) -> None:
    workshop.import_files({f"{n:02d}.json": b"{" if n == 7 else b"{}" for n in range(20)})
    tree, root = workshop.repository.tree("main"), workshop.repository.root
    dataset = ShardDataset.from_tree(tree, root, workshop.client)
    with pytest.raises(DecodeError, match="sample 07, field json: cannot decode 1 bytes"):
        dataset.__getitems__(range(20))


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_memory_stays_flat_over_epochs(workshop: Workshop) -> None:
    workshop.import_files({f"{n:04d}.bin": bytes([n % 251]) * 3000 for n in range(600)})
    tree, root = workshop.repository.tree("main"), workshop.repository.root
    dataset = ShardDataset.from_tree(tree, root, workshop.client)
    sizes = []
    for epoch in range(20):
        order = random.Random(epoch).sample(range(600), 600)
        for start in range(0, 600, 50):
            dataset.__getitems__(order[start : start + 50])
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[4] < 2 * MIB


def test_a_worker_imports_no_pandas(workshop: Workshop, tmp_path: Path) -> None:
    """It would take a third of a second of each worker process, as Arrow imports it wherever it meets a number."""
    workshop.import_files({f"{number:03d}.bin": b"x" * 100 for number in range(N)})
    dataset = open_with(workshop, tmp_path / "cache", mib=64)
    child = os.fork()
    if not child:
        asked: list[str] = []
        sys.modules.pop("pandas", None)
        sys.meta_path.insert(0, _Noting(asked))  # a finder that finds nothing
        dataset.__getitems__([1, 2, 3])
        os._exit(len(asked))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


OPEN_AND_READ = """
import subprocess
import sys
from pathlib import Path

from cache_runtime import BlockStore, Client
from loaders import Loader, ShardDataset
from sources import FileStore, Origins
from versioning import Repository

place, cache = Path(sys.argv[1]), Path(sys.argv[2])
store, origins = FileStore(place), Origins()
origins.add(f"{str(place)[1:]}/", store)
client = Client(origins, BlockStore.open(cache, capacity_bytes=64 << 20))
repository = Repository.open(store, f"{str(place)[1:]}/repository/")
dataset = ShardDataset.from_tree(repository.tree("main"), repository.root, client, decode=None)
count = sum(len(batch) for batch in Loader(dataset, 8, seed=1, collate="list", mode="sync", tail="exact"))
print(count, dataset[3]["bin"], "pandas" in sys.modules)
"""


@pytest.mark.parametrize("repeat", ["grouped", "mapped"])
def test_opening_a_commit_and_reading_an_epoch_imports_no_pandas(tmp_path: Path, repeat: str) -> None:
    """Neither the first process of a node, which groups the paths, nor the next one, which maps what was grouped."""
    for number in range(50):
        (tmp_path / f"files-{number:03d}.bin").write_bytes(b"%d" % number)
    store, prefix = FileStore(tmp_path), f"{str(tmp_path)[1:]}/files-"
    repository = Repository.init(store, f"{str(tmp_path)[1:]}/repository/")
    changes = stage_import(None, scan(store, prefix), store=store.id, source_prefix=prefix, target="")
    repository.commit_changes("main", changes, message="m", author="a", base=None)
    for _ in range(2 if repeat == "mapped" else 1):
        done = subprocess.run(
            [sys.executable, "-c", OPEN_AND_READ, str(tmp_path), str(tmp_path / "cache")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout.split() == ["50", "b'3'", "False"], done.stderr


class _Noting:
    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            self._asked.append(name)
