from __future__ import annotations

import os
import random
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3

from loaders import CorruptSampleError, DuplicateFieldError, PackProgress, SampleIndex, ShardLayout, pack
from sources import SourceChangedError
from tests.loaders.conftest import AUTHOR, Workshop
from versioning import ChangeSet, EntryKind

if TYPE_CHECKING:
    from versioning import CommitId


def digits(count: int) -> dict[str, bytes]:
    numbers = random.Random(1)
    files = {"empty.txt": b""}
    for i in range(count):
        files[f"images/{i % 10}/{i:04d}.png"] = numbers.randbytes(numbers.randrange(0, 3000))
        files[f"images/{i % 10}/{i:04d}.cls"] = str(i % 10).encode()
    return files


def packed(workshop: Workshop, rev: str = "main", layout: ShardLayout | None = None, branch: str = "main") -> CommitId:
    layout = layout or ShardLayout()
    return pack(workshop.repository, rev, workshop.client, layout=layout, branch=branch, author=AUTHOR).commit


def packs(workshop: Workshop) -> list[Path]:
    root = "/" + workshop.repository.prefix
    return sorted(path for path in Path(root, "packs").glob("*/*.tar"))


def test_a_pack_changes_places_and_nothing_else(workshop: Workshop) -> None:
    files = digits(50)
    before = workshop.import_files(files)
    after = packed(workshop, layout=ShardLayout(shuffle=True, seed=7, shard_size=20_000))
    summary = workshop.repository.diff(before, after)
    assert set(summary.table["op"].to_pylist()) == {"L"}
    old = {entry.path: entry for entry in workshop.repository.tree_of(before).entries()}
    for entry in workshop.repository.tree_of(after).entries():
        assert (entry.kind, entry.size) == (EntryKind.PACKED, len(files[entry.path]))
        assert entry.oid == blake3(files[entry.path]).digest()
        assert entry.crc32c is not None
        assert (entry.source, entry.mtime_ns, entry.meta) == (
            old[entry.path].source,
            old[entry.path].mtime_ns,
            old[entry.path].meta,
        )
    meta = workshop.repository.commit(after).meta
    assert meta == {"forebay.pack": {"shuffle": True, "seed": 7, "shard_size": 20_000, "key": "path"}}


def test_a_large_file_stays_where_it_is(workshop: Workshop) -> None:
    files = {"a.bin": b"small", "b.bin": bytes((16 << 20) + 1), "c.bin": bytes(16 << 20)}
    before = workshop.import_files(files)
    after = packed(workshop)
    assert workshop.repository.diff(before, after).table["path"].to_pylist() == ["a.bin", "c.bin"]
    for entry in workshop.repository.tree_of(after).entries():
        assert workshop.client.read(entry.location(workshop.repository.root)) == files[entry.path]


def test_an_import_after_a_pack_sees_nothing_new(workshop: Workshop) -> None:
    workshop.import_files(digits(5))
    head = packed(workshop)
    assert workshop.repository.tree_of(head).rows == 11
    changed = workshop.import_files({"images/0/0000.cls": b"999"})
    assert workshop.repository.diff(head, changed).table["op"].to_pylist() == ["M"]


def test_every_byte_reads_back(workshop: Workshop) -> None:
    files = digits(50)
    workshop.import_files(files)
    head = packed(workshop, layout=ShardLayout(shuffle=True, shard_size=20_000))
    entries = list(workshop.repository.tree_of(head).entries())
    data = workshop.client.read_many([entry.location(workshop.repository.root) for entry in entries])
    assert {entry.path: bytes(content) for entry, content in zip(entries, data, strict=True)} == files


def test_python_and_tar_read_the_shards(workshop: Workshop, tmp_path: Path) -> None:
    files = digits(20) | {"long/" + "x" * 200 + "/ü.txt": b"text"}
    workshop.import_files(files)
    packed(workshop, layout=ShardLayout(shard_size=30_000))
    found = {}
    (tmp_path / "out").mkdir()
    for path in packs(workshop):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
        subprocess.run(["tar", "-xf", path, "-C", tmp_path / "out"], check=True, timeout=60)
    assert found == files
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")} >= set(files)


def test_members_are_grouped_as_webdataset_groups_them(workshop: Workshop) -> None:
    """Consecutive members with one key are one sample, as `webdataset.tariterators.group_by_keys` does it."""
    workshop.import_files({f"images/{i % 3}/{i:02d}.png": b"p" for i in range(20)})
    workshop.import_files({f"labels/{i:02d}.json": b"{}" for i in range(20)})
    packed(workshop, layout=ShardLayout(shuffle=True, key="stem", shard_size=5000))
    samples = []
    assert len(packs(workshop)) > 3
    for path in packs(workshop):
        key = None
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                prefix, suffix = name.split(".", 1)
                if prefix != key:
                    key = prefix
                    samples.append((key, set[str]()))
                samples[-1][1].add(suffix)
    assert len(samples) == 20
    assert dict(samples) == {f"{i:02d}": {"png", "json"} for i in range(20)}


def test_samples_lie_in_the_shuffled_order(workshop: Workshop) -> None:
    workshop.import_files({f"{i:04d}.txt": str(i).encode() for i in range(300)})
    head = packed(workshop, layout=ShardLayout(shuffle=True, seed=3))
    tree = workshop.repository.tree_of(head)
    keys: list[Any] = SampleIndex.from_tree(tree, workshop.repository.root).keys.to_pylist()
    assert sorted(keys) == [f"{i:04d}" for i in range(300)] != keys


def test_the_same_commit_and_layout_give_the_same_packs_wherever_the_bytes_lay(workshop: Workshop) -> None:
    workshop.import_files(digits(30))
    layout = ShardLayout(shuffle=True, seed=5, shard_size=10_000)
    first = packed(workshop, layout=layout)
    written = {path.name: path.stat().st_mtime_ns for path in packs(workshop)}
    other = packed(workshop, layout=ShardLayout(shuffle=True, seed=6))
    assert len(packs(workshop)) > len(written)
    again = packed(workshop, layout=layout)
    assert other != again
    trees = [workshop.repository.tree_of(commit).id for commit in (first, other, again)]
    assert trees[0] == trees[2] != trees[1]


def test_packing_what_is_packed_so_already_returns_the_head(workshop: Workshop) -> None:
    workshop.import_files(digits(10))
    head = packed(workshop)
    assert packed(workshop) == head == workshop.repository.resolve("main")


def test_a_pack_may_go_to_another_branch(workshop: Workshop) -> None:
    before = workshop.import_files(digits(5))
    after = packed(workshop, branch="training")
    assert workshop.repository.branches() == {"main": before, "training": after}


def test_an_empty_dataset_has_nothing_to_pack(workshop: Workshop) -> None:
    head = workshop.repository.commit_changes(
        "main", ChangeSet.of(), message="empty", author=AUTHOR, base=None, allow_empty=True
    )
    assert packed(workshop) == head


def test_progress_ends_at_all_bytes_and_shards(workshop: Workshop) -> None:
    files = digits(40)
    workshop.import_files(files)
    seen: list[PackProgress] = []
    layout = ShardLayout(shard_size=10_000)
    pack(
        workshop.repository,
        "main",
        workshop.client,
        layout=layout,
        branch="main",
        author=AUTHOR,
        on_progress=seen.append,
    )
    total = sum(map(len, files.values()))
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (total, total)
    assert seen[-1].shards == seen[-1].total_shards == len(packs(workshop))
    assert [step.done_bytes for step in seen] == sorted(step.done_bytes for step in seen)


def test_bytes_that_are_not_those_committed_stop_the_pack(workshop: Workshop) -> None:
    commit = workshop.import_files(digits(5))
    entries = list(workshop.repository.tree_of(commit).entries())
    wrong = [replace(entries[3], oid=bytes(32))]
    head = workshop.repository.commit_changes(
        "main", ChangeSet.of(wrong), message="wrong hash", author=AUTHOR, base=commit
    )
    with pytest.raises(CorruptSampleError, match=r"images/1/0001\.cls: its bytes hash to .* nothing was committed"):
        packed(workshop)
    assert workshop.repository.resolve("main") == head


def test_a_source_that_changed_stops_the_pack(workshop: Workshop) -> None:
    head = workshop.import_files(digits(5))
    path = workshop.source / "images/1/0001.png"
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"0001\.png"):
        packed(workshop)
    assert workshop.repository.resolve("main") == head


def test_a_key_rule_that_joins_too_much_is_refused_before_anything_is_written(workshop: Workshop) -> None:
    workshop.import_files({"a/1.png": b"x", "b/1.png": b"y"})
    with pytest.raises(DuplicateFieldError, match=r"a/1\.png and b/1\.png"):
        packed(workshop, layout=ShardLayout(key="stem"))
    assert packs(workshop) == []
