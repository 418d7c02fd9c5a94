from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders import SampleError, ShardDataset, ShardsExistError, ShardWriter, open_records
from loaders.formats.shards import Finder
from sources import SourceFullError, SourceUnavailableError, split_uri
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from tests.services.weed import S3Server

DEEP = 10 if os.environ.get("FOREBAY_DEEP") else 1

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # each shard is synced, which takes a disk a while
PART = st.text(st.characters(exclude_characters="/.\0", exclude_categories=["Cs"]), min_size=1, max_size=50)
KEYS = st.lists(PART, min_size=1, max_size=4).map("/".join).filter(lambda key: not key.startswith("__"))
FIELD = st.sampled_from(["jpg", "bin", "seg.png", "\xe9t\xe9", "x" * 110])
SAMPLES = st.lists(
    st.tuples(KEYS, st.dictionaries(FIELD, st.binary(max_size=2000), min_size=1)),
    max_size=12,
    unique_by=lambda row: row[0],
)
Row = tuple[str, dict[str, bytes]]


def write(out: Path, rows: list[Row], **options: Any) -> list[str]:
    with ShardWriter(out, **options) as writer:
        for key, fields in rows:
            writer.write({"__key__": key, **fields})
    return writer.shards


def read(place: Path, **options: Any) -> list[Row]:
    dataset = ShardDataset(open_records(str(place), **options), decode=None, verify=True)
    samples = [dict(dataset[number]) for number in range(len(dataset))]
    return [(sample.pop("__key__"), sample) for sample in samples]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@settings(max_examples=60 * DEEP)
@given(SAMPLES, st.integers(1, 20_000))
def test_what_is_written_is_read_with_each_kind_of_index(rows: list[Row], shard_size: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        out = Path(name)
        shards = write(out, rows, shard_size=shard_size)
        assert sorted(contents(out)) == sorted([*shards, *(f"{shard}.idx" for shard in shards)])
        if not rows:
            return
        assert read(out) == rows
        for shard in shards:
            (out / f"{shard}.idx").unlink()
        assert read(out) == rows  # by the member __index__
        assert read(out, key=path_parts) == rows  # by a walk
        members = [member for shard in shards for member in by_tarfile(out / shard)]
        assert members == [(f"{key}.{field}", fields[field]) for key, fields in rows for field in sorted(fields)]


def path_parts(path: str) -> tuple[str, str] | None:
    directory, slash, base = path.rpartition("/")
    stem, _, field = base.partition(".")
    return directory + slash + stem, field


def by_tarfile(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert members[-1].name == "__index__"
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
        found = []
        for member in members[:-1]:
            file = tar.extractfile(member)
            assert file is not None
            found.append((member.name, file.read()))
        return found


def test_shards_are_the_same_bytes_each_time_and_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    rows = [(f"{number:06d}", {"bin": bytes([number]) * 5000, "cls": b"3"}) for number in range(100)]
    write(tmp_path / "a", rows, shard_size="100KB")
    write(tmp_path / "b", [(key, dict(reversed(fields.items()))) for key, fields in rows], shard_size="100kB")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    sizes = [path.stat().st_size for path in sorted((tmp_path / "a").glob("*.tar"))]
    assert len(sizes) == 8
    assert all(80_000 < size < 103_000 for size in sizes[:-1])


def test_values_are_encoded_by_extension(tmp_path: Path) -> None:
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    sample = {"__key__": "a", "cls": 3, "json": {"x": [1, None]}, "txt": "caf\xe9", "npy": np.arange(3), "png": picture}
    with ShardWriter(tmp_path) as writer:
        writer.write(sample)
    (found,) = [ShardDataset.open(tmp_path)[0]]
    assert found.keys() == sample.keys()
    assert (found["cls"], found["json"], found["txt"]) == (3, {"x": [1, None]}, "caf\xe9")
    np.testing.assert_array_equal(found["npy"], np.arange(3))
    np.testing.assert_array_equal(found["png"], picture)


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        ({"jpg": b""}, "needs a str as its __key__"),
        ({"__key__": "a"}, "no fields but its key"),
        ({"__key__": "a.b", "jpg": b""}, "cannot name files"),
        ({"__key__": "__x__/a", "jpg": b""}, "cannot name files"),
        ({"__key__": "a/", "jpg": b""}, "cannot name files"),
        ({"__key__": "a", "JPG": b""}, "no extension in lower case"),
        ({"__key__": "a", "x/y": b""}, "no extension in lower case"),
        ({"__key__": "a", "cls": "three"}, "cannot hold this str"),
        ({"__key__": "a", "cls": True}, "cannot hold this bool"),
        ({"__key__": "a", "bin": 7}, "give bytes"),
        ({"__key__": "a", "npy": np.array([object()])}, "cannot hold this ndarray"),
        ({"__key__": "a", "json": float("nan")}, "cannot hold this float"),
        ({"__key__": "a\ud800", "jpg": b""}, "a tar cannot hold"),
    ],
)
def test_a_sample_that_cannot_be_stored_changes_nothing(tmp_path: Path, sample: dict[str, object], why: str) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write({"__key__": "first", "jpg": b"1"})
        with pytest.raises(SampleError, match=why):
            writer.write(sample)
        writer.write({"__key__": "last", "jpg": b"2"})
    assert writer.samples == 2
    assert read(tmp_path) == [("first", {"jpg": b"1"}), ("last", {"jpg": b"2"})]


def test_fields_that_were_announced_are_asked_of_each_sample(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, ["jpg", "cls"]) as writer, pytest.raises(SampleError, match=r"not \['cls', 'jpg'\]"):
        writer.write({"__key__": "a", "jpg": b""})


def test_two_samples_of_one_key_in_a_row_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write({"__key__": "a", "jpg": b""})
        with pytest.raises(SampleError, match="in a row"):
            writer.write({"__key__": "a", "cls": 1})


def test_a_place_with_shards_is_refused_unless_they_are_to_be_continued(tmp_path: Path) -> None:
    rows = [(f"{number:03d}", {"bin": bytes(900)}) for number in range(40)]
    write(tmp_path / "whole", rows, shard_size=20_000)
    write(tmp_path / "out", rows[:13], shard_size=20_000)
    with pytest.raises(ShardsExistError, match="append=True"):
        ShardWriter(tmp_path / "out")
    before = contents(tmp_path / "whole")
    (tmp_path / "out" / "shard-000001.tar").unlink(missing_ok=True)
    with ShardWriter(tmp_path / "out", shard_size=20_000, append=True) as writer:
        for key, fields in rows[writer.samples :]:
            writer.write({"__key__": key, **fields})
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "shard-000001.tar").unlink()
    with pytest.raises(ShardsExistError, match=r"shard-000001\.tar is not among them"):
        ShardWriter(tmp_path / "out", append=True)


def test_two_writers_of_one_prefix_exclude_each_other(tmp_path: Path) -> None:
    with ShardWriter(tmp_path), pytest.raises(ShardsExistError, match="another writer"):
        ShardWriter(tmp_path)
    with ShardWriter(tmp_path, prefix="a-") as one, ShardWriter(tmp_path, prefix="b-") as other:
        one.write({"__key__": "1", "bin": b"1"})
        other.write({"__key__": "2", "bin": b"2"})
    assert len(open_records(tmp_path)) == 2


@pytest.mark.parametrize("form", ["tar", "mds"])
def test_what_ends_in_an_error_leaves_whole_shards_only(tmp_path: Path, form: Any) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, format=form, shard_size=3000) as writer:
            for number in range(7):
                writer.write({"__key__": f"{number}", "bin": bytes(1000)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    names = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in names if name.startswith(".")]
    assert "index.json" not in names
    with ShardWriter(tmp_path, format=form, shard_size=3000, append=True) as writer:
        assert 0 < writer.samples < 7
        for number in range(writer.samples, 7):
            writer.write({"__key__": f"{number}", "bin": bytes(1000)})
    assert [key for key, _ in read(tmp_path)] == [str(number) for number in range(7)]


_KILLED = """
import sys
from loaders import ShardWriter
with ShardWriter(sys.argv[1], format=sys.argv[2], shard_size=60_000, append=True) as writer:
    print(writer.samples, flush=True)
    for number in range(writer.samples, 4000):
        writer.write({"__key__": f"{number:06d}", "bin": bytes([number % 251]) * 700, "cls": b"%d" % number})
"""


@pytest.mark.parametrize("form", ["tar", "mds"])
def test_a_writer_that_is_killed_at_any_point_is_continued_to_the_same_bytes(tmp_path: Path, form: str) -> None:
    command = [sys.executable, "-c", _KILLED]
    subprocess.run([*command, tmp_path / "whole", form], check=True, stdout=subprocess.PIPE, timeout=60)
    chance = random.Random(7 if DEEP == 1 else None)
    starts = []
    for attempt in range(3 * DEEP):
        last = attempt == 3 * DEEP - 1
        process = subprocess.Popen([*command, tmp_path / "killed", form], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process:
            starts.append(int(process.stdout.readline()))
            if not last:
                time.sleep(chance.random() * 0.04)
                process.send_signal(signal.SIGKILL)
        for path in (tmp_path / "killed").glob(f"*.{form}"):  # those that have their names are whole
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert starts == sorted(starts)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_shards_are_written_to_a_store(s3: S3Server) -> None:
    place = f"s3://{BUCKET}/writer"
    rows = [(f"{number:03d}", {"bin": bytes([number]) * 900}) for number in range(40)]
    for end in (13, 40):
        with ShardWriter(place, shard_size=20_000, append=end == 40, options=s3.options) as writer:
            for key, fields in rows[writer.samples : end]:
                writer.write({"__key__": key, **fields})
    with pytest.raises(ShardsExistError):
        ShardWriter(place, options=s3.options)
    dataset = ShardDataset.open(place, store_options=s3.options, decode=None, verify=True)
    assert [dataset[number] for number in range(40)] == [{"__key__": key, **fields} for key, fields in rows]
    store = Finder(s3.options).store_of(place)
    found = [stat.key for stat in store.list(split_uri(place + "/").key)]
    assert len(found) == 2 * len(writer.shards)


def test_a_full_disk_is_our_error_and_no_half_shard(small_disk: Path) -> None:
    rows = [(f"{number}", {"bin": os.urandom(100_000)}) for number in range(100)]
    with pytest.raises(SourceFullError, match="append=True"):
        write(small_disk, rows, shard_size="1MB")
    tars = sorted(small_disk.glob("*.tar"))
    assert tars
    assert sum(len(by_tarfile(path)) for path in tars) == len(read(small_disk))
    assert not list(small_disk.glob(".forebay-tmp-*"))


def test_a_name_that_is_taken_meanwhile_keeps_its_file_and_its_index(tmp_path: Path) -> None:
    """The race between a look and a rename: what comes between them was replaced, its index even before."""
    writer = ShardWriter(tmp_path)
    writer.write({"__key__": "a", "txt": b"a"})
    (tmp_path / "shard-000000.tar").write_bytes(b"theirs")
    (tmp_path / "shard-000000.tar.idx").write_bytes(b"theirs, too")
    with pytest.raises(ShardsExistError, match=r"shard-000000\.tar appeared"):
        writer.close()
    assert contents(tmp_path) == {"shard-000000.tar": b"theirs", "shard-000000.tar.idx": b"theirs, too"}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_takes_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(code, os.strerror(code), source)

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, [("a", {"txt": b"a"})])
    assert read(tmp_path) == [("a", {"txt": b"a"})]
    writer = ShardWriter(tmp_path, prefix="other-")
    writer.write({"__key__": "a", "txt": b"a"})
    (tmp_path / "other-000000.tar").write_bytes(b"theirs")
    with pytest.raises(ShardsExistError, match="appeared"):
        writer.close()


def test_an_index_that_a_kill_kept_from_being_written_is_written_by_the_next_writer(tmp_path: Path) -> None:
    rows: list[Row] = [("a", {"txt": b"a"})]
    (name,) = write(tmp_path, rows)
    before = contents(tmp_path)
    (tmp_path / f"{name}.idx").unlink()
    assert read(tmp_path) == rows
    with ShardWriter(tmp_path, append=True):
        pass
    assert contents(tmp_path) == before


@pytest.mark.parametrize("form", ["tar", "mds"])
@pytest.mark.parametrize("call", ["fsync", "rename", "link"])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, SourceFullError), (errno.EIO, SourceUnavailableError)])
def test_whatever_a_disk_refuses_is_our_error_with_the_path_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: Any, form: Any
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    writer = ShardWriter(tmp_path, format=form)
    writer.write({"__key__": "a", "txt": b"a"})
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(error, match=rf"{tmp_path}.*{os.strerror(code)}.*append=True"):
        writer.close()
    monkeypatch.undo()
    assert not list(tmp_path.glob(".forebay-tmp-*"))


def test_mds_keeps_columns_keys_and_encodings(tmp_path: Path) -> None:
    columns = {"x": "ndarray:float32:2,3", "y": "ndarray", "n": "uint16", "t": "str", "d": "str_int", "jpg": "jpeg"}
    sample = {
        "x": np.ones((2, 3), np.float32),
        "y": np.arange(300, dtype=np.int8).reshape(3, 100),
        "n": 7,
        "t": "caf\xe9",
        "d": 1 << 70,
        "jpg": b"\xff\xd8\xff",
    }
    with ShardWriter(tmp_path, columns, format="mds") as writer:
        writer.write({"__key__": "k/1", **sample})
        with pytest.raises(SampleError, match=r"the column has float32"):
            writer.write({"__key__": "k/2", **sample, "x": np.ones((3, 2), np.float32)})
    found = ShardDataset.open(tmp_path, decode={"jpg": None})[0]
    assert found["__key__"] == "k/1"
    assert (found["n"], found["t"], found["d"], found["jpg"]) == (7, "caf\xe9", 1 << 70, b"\xff\xd8\xff")
    np.testing.assert_array_equal(found["x"], sample["x"])
    np.testing.assert_array_equal(found["y"], sample["y"])
    config = json.loads((tmp_path / "index.json").read_bytes())["shards"][0]
    assert config["column_sizes"] == [None, None, None, 2, None, 24, None]


def test_a_tar_of_ours_is_what_tarfile_would_write(tmp_path: Path) -> None:
    write(tmp_path, [("d/a", {"bin": b"x" * 513, "cls": b"1"})])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("d/a.bin", b"x" * 513), ("d/a.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    ours, theirs = (tmp_path / "shard-000000.tar").read_bytes(), buffer.getvalue()
    end = theirs.index(b"1" + bytes(511), 1024) + 512  # behind the last member

    def plain(data: bytes) -> bytes:  # device numbers: we write zeros as digits, older versions of tarfile nothing
        return data[:148] + data[156:329] + data[345:512]

    for start in (0, 1536):
        assert plain(ours[start : start + 512]) == plain(theirs[start : start + 512])
    assert ours[512:1536] == theirs[512:1536]
    assert ours[2048:end] == theirs[2048:end]
