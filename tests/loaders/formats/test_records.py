from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders import (
    CorruptSampleError,
    DuplicateFieldError,
    NoSamplesError,
    ShardDataset,
    ShardFormatError,
    ShardWriter,
    index_shards,
    open_records,
)
from loaders.formats.braces import expand_braces
from loaders.formats.reading import LocalFiles, is_network_mount
from loaders.formats.shard_index import IndexBuilder, ShardIndex, decode_index
from loaders.formats.shards import local_shard
from loaders.formats.tar_records import TarRecords
from sources import SourceChangedError, SourceNotFoundError
from tests.services.faults import fault_proxy
from tests.services.http import missing, nginx
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data"
DEEP = bool(os.environ.get("FOREBAY_DEEP"))


def foreign_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """60 samples in several shards; every third has no class."""
    with ShardWriter(tmp_path / "shards", shard_size="40KB") as writer:
        for number in range(60):
            label = {"cls": number} if number % 3 else {}
            writer.write({"__key__": f"{number:03d}", "bin": bytes([number]) * (number * 50), **label})
    return tmp_path / "shards"


def expected(number: int) -> dict[str, Any]:
    label = {"cls": number} if number % 3 else {}
    return {"__key__": f"{number:03d}", "bin": bytes([number]) * (number * 50), **label}


def test_any_samples_are_delivered_in_the_order_that_was_asked_for(shards: Path) -> None:
    dataset = ShardDataset.open(shards, verify=True)
    assert len(dataset.shard_starts) > 3
    numbers = [59, 0, 7, 7, 31, 3, -1]
    assert dataset.__getitems__(numbers) == [expected(number % 60) for number in numbers]
    assert dataset.records.sample_bytes is not None
    assert dataset.records.sample_bytes.tolist() == [
        number * 50 + (len(str(number)) if number % 3 else 0) for number in range(60)
    ]
    assert pickle.loads(pickle.dumps(dataset))[31] == expected(31)


def test_the_fingerprint_is_of_the_samples_not_of_where_they_lie(shards: Path, tmp_path: Path) -> None:
    prints = {open_records(shards).fingerprint, open_records(shards / "*.tar").fingerprint}
    for index in shards.glob("*.idx"):
        index.unlink()
    prints.add(open_records(str(shards) + "/").fingerprint)
    shutil.move(shards, tmp_path / "moved")
    prints.add(open_records(f"file://{tmp_path}/moved").fingerprint)
    assert len(prints) == 1
    assert open_records(sorted(str(path) for path in (tmp_path / "moved").glob("*1.tar"))).fingerprint not in prints


def test_a_foreign_tar_is_walked_and_grouped_as_webdataset_does(tmp_path: Path) -> None:
    members = {
        "d/": b"",
        "a/1.JPG": b"j1",
        "a/1.cls": b"1",
        "README": b"",
        "a/.x.y": b"",
        "__m__/1.x": b"",
        "a/2.seg.png": b"s",
    }
    members["b.c/2.txt"] = b"t"
    foreign_tar(tmp_path / "x.tar", members)
    dataset = ShardDataset(open_records(tmp_path / "x.tar"), decode=None)
    assert [dataset[number] for number in range(3)] == [
        {"__key__": "a/1", "jpg": b"j1", "cls": b"1"},
        {"__key__": "a/2", "seg.png": b"s"},
        {"__key__": "b.c/2", "txt": b"t"},
    ]
    by_stem = open_records(tmp_path / "x.tar", key="stem")
    assert by_stem.keys_of(np.arange(2)) == ["1", "2"]
    assert by_stem.fields == ("cls", "jpg", "seg.png", "txt")


def test_what_is_twice_in_a_sample_is_refused(tmp_path: Path) -> None:
    foreign_tar(tmp_path / "x.tar", {"a.jpg": b"", "a.JPG": b""})
    with pytest.raises(DuplicateFieldError, match=r"x\.tar: a\.jpg and a\.JPG"):
        open_records(tmp_path / "x.tar")


def test_an_index_that_is_written_is_used_and_one_of_another_tar_is_not(tmp_path: Path) -> None:
    tar, index = tmp_path / "x.tar", tmp_path / "x.tar.idx"
    foreign_tar(tar, {"a.txt": b"one", "b.txt": b"two"})
    (report,) = index_shards(str(tar))
    assert (report.samples, report.skipped, report.error) == (2, False, "")
    assert [one.skipped for one in index_shards(str(tar))] == [True]
    assert open_records(tar).fetch(np.array([1])).crcs == [google_crc32c.value(b"two")]
    data = bytearray(tar.read_bytes())
    data[512:515] = b"ONE"  # damage that only a sum can tell
    before = tar.stat().st_mtime_ns
    tar.write_bytes(data)
    os.utime(tar, ns=(before, before))
    with pytest.raises(CorruptSampleError, match="sample a, field txt"):
        ShardDataset.open(tar, verify=True)[0]
    foreign_tar(tar, {"c.txt": b"three", "d.txt": b"two"})
    os.utime(index, ns=(1, 1))
    assert open_records(tar).keys_of(np.arange(2)) == ["c", "d"]
    assert [one.skipped for one in index_shards(str(tar))] == [False]
    index.write_bytes(b"\x00\x02\x00\x00\x00\x00\x00\x00" * 9)  # as Energon writes them
    assert open_records(tar).keys_of(np.arange(1)) == ["c"]
    (report,) = index_shards(str(tar), force=True)
    assert "another tool" in report.error


@pytest.mark.parametrize("is_ours", [False, True])
def test_an_index_of_another_tar_of_the_same_size_and_time_is_not_used(tmp_path: Path, is_ours: bool) -> None:
    for place, key in (("one", "a"), ("two", "b")):
        (tmp_path / place).mkdir()
        if is_ours:
            with ShardWriter(tmp_path / place) as writer:
                writer.write({"__key__": key, "txt": key.encode()})
        else:
            foreign_tar(tmp_path / place / "shard-000000.tar", {f"{key}.txt": key.encode()})
            list(index_shards(str(tmp_path / place / "shard-000000.tar")))
    one, two = (tmp_path / place / "shard-000000.tar" for place in ("one", "two"))
    for suffix in ("", ".idx"):
        os.utime(f"{one}{suffix}", ns=(5, 5))
    assert [each.skipped for each in index_shards(str(one))] == [True]
    one.write_bytes(two.read_bytes())
    os.utime(one, ns=(5, 5))
    dataset = ShardDataset.open(one, verify=True)
    assert dict(dataset[0]) == {"__key__": "b", "txt": "b"}
    assert [each.skipped for each in index_shards(str(one))] == [False]
    assert [each.skipped for each in index_shards(str(one))] == [True]


def test_field_names_of_an_index_are_sorted_and_each_is_there_once() -> None:
    index = built([("k", [("a", 512, 1), ("b", 1024, 1)])])
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(ShardFormatError, match="do not fit each other"):
            decode_index(replace(index, fields=names).encode(), "x")


def test_several_shards_are_indexed_by_processes_and_damaged_ones_told(tmp_path: Path) -> None:
    for number in range(5):
        foreign_tar(tmp_path / f"{number}.tar", {f"{number}.txt": b"x"})
    (tmp_path / "2.tar").write_bytes((tmp_path / "2.tar").read_bytes()[:700])
    reports = {Path(one.uri).name: one for one in index_shards(str(tmp_path / "{0..4}.tar"), workers=2)}
    assert [name for name, one in reports.items() if one.error] == ["2.tar"]
    assert "cut short" in reports["2.tar"].error
    assert sorted(path.name for path in tmp_path.glob("*.idx")) == [f"{number}.tar.idx" for number in (0, 1, 3, 4)]


def test_cut_or_damaged_shards_are_our_errors(shards: Path) -> None:
    tar = shards / "shard-000001.tar"
    whole, index = tar.read_bytes(), (shards / "shard-000001.tar.idx").read_bytes()
    (shards / "shard-000001.tar.idx").unlink()
    for cut in (0, 100, 5000, len(whole) - 2000, len(whole) - 1024):
        tar.write_bytes(whole[:cut])
        with pytest.raises((ShardFormatError, NoSamplesError)):
            open_records(tar)
    tar.write_bytes(whole)
    beside = shards / "shard-000001.tar.idx"
    for at in range(0, len(index), max(1, len(index) // 97)):
        beside.write_bytes(index[:at] + bytes([index[at] ^ 0x41]) + index[at + 1 :])
        os.utime(beside)
        if at < 8:
            assert len(open_records(tar))  # not ours: the one at the end is used
            continue
        with pytest.raises(ShardFormatError, match=r"shard-000001\.tar\.idx"):
            open_records(tar)


INDEXES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1 << 40), st.integers(0, 1 << 20)), max_size=4),
    ),
    max_size=20,
)


def built(rows: list[tuple[str, list[tuple[str, int, int]]]], *, crcs: bool = True) -> ShardIndex:
    builder = IndexBuilder()
    for key, members in rows:
        builder.begin_sample(key)
        for field, offset, length in members:
            builder.add_member(field, offset, length, offset % (1 << 32) if crcs else None)
    return builder.build(1 << 41)


@settings(max_examples=500 if DEEP else 60)
@given(INDEXES, st.booleans())
def test_an_index_is_what_was_encoded(rows: list[tuple[str, list[tuple[str, int, int]]]], crcs: bool) -> None:
    index = built(rows, crcs=crcs)
    found = decode_index(index.encode(), "x", thorough=True)
    starts = found.member_starts().tolist()
    assert len(found) == len(rows)
    for number, (key, members) in enumerate(rows):
        assert found.key(number) == key
        of = slice(starts[number], starts[number + 1])
        fields = [found.fields[code] for code in found.codes[of].tolist()]
        assert list(zip(fields, found.offsets[of].tolist(), found.lengths[of].tolist(), strict=True)) == members
    assert (found.crcs is not None) == (crcs or not any(members for _, members in rows))


@settings(max_examples=500 if DEEP else 100)
@given(INDEXES, st.data())
def test_damage_to_an_index_is_noticed(rows: list[tuple[str, list[tuple[str, int, int]]]], draw: st.DataObject) -> None:
    data = bytearray(built(rows).encode())
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    cut = draw.draw(st.integers(0, 3))
    with pytest.raises(ShardFormatError):
        decode_index(bytes(data[: len(data) - cut]), "x", thorough=True)


@pytest.mark.skipif(not DEEP, reason="ten million samples: FOREBAY_DEEP=1")
def test_an_index_of_ten_million_samples_is_opened_without_reading_it(tmp_path: Path) -> None:
    opened_quickly(tmp_path, 10_000_000)


def test_a_large_index_is_opened_without_reading_it(tmp_path: Path) -> None:
    opened_quickly(tmp_path, 500_000)


def opened_quickly(tmp_path: Path, count: int) -> None:
    keys = np.char.zfill(np.arange(count).astype("S8"), 8)
    index = ShardIndex(
        fields=("bin", "cls"),
        width=2,
        starts=None,
        offsets=np.arange(2 * count) * 1024,
        lengths=np.full(2 * count, 512),
        codes=np.tile(np.array([0, 1], np.uint16), count),
        crcs=np.zeros(2 * count, np.uint32),
        key_ends=np.arange(count + 1) * 8,
        keys=memoryview(keys.tobytes()),
        shard_bytes=2 * count * 1024 + 4096,
    )
    tar = tmp_path / "x.tar"
    with open(tar, "wb") as file:
        file.truncate(index.shard_bytes)
    (tmp_path / "x.tar.idx").write_bytes(index.encode())
    records = open_records(tar)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        records = open_records(tar)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.02
    numbers = np.array([count - 1, 0, count // 2])
    assert records.keys_of(numbers) == [f"{number:08d}" for number in numbers.tolist()]
    assert [len(data) for data in records.fetch(numbers).data] == [512] * 6


def test_more_shards_than_maps_are_read(shards: Path) -> None:
    found = open_records(shards)
    assert isinstance(found, TarRecords)
    few = LocalFiles(found.shards, most_maps=2)
    for _ in range(2):
        for number, shard in enumerate(found.shards):
            (head,) = few.read([number], [0], [512])
            assert bytes(head) == Path(shard.uri).read_bytes()[:512]
    assert len(few._views) == 2
    kept = few.read([0, 1, 2], [0, 0, 0], [512, 512, 512])
    few.read([3], [0], [512])
    assert bytes(kept[0][:3]) == b"000"
    assert not is_network_mount(str(shards))


def test_a_shard_that_was_replaced_after_it_was_found_is_not_read(shards: Path) -> None:
    records = open_records(shards)
    (shards / "shard-000000.tar").write_bytes(bytes(100_000))
    with pytest.raises(SourceChangedError):
        records.fetch(np.array([0]))


def test_nothing_and_wrong_things_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        open_records(tmp_path / "none.tar")
    with pytest.raises(NoSamplesError, match="nothing there matches"):
        open_records(tmp_path / "*.tar")
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(ShardFormatError, match="is compressed"):
        open_records(tmp_path / "x.tar.gz")
    with pytest.raises(NoSamplesError, match=r"no index\.json"):
        open_records(tmp_path, format="mds")
    (tmp_path / "index.json").write_text('{"neither": 1}')
    with pytest.raises(ShardFormatError, match="no index of MDS or LitData"):
        open_records(tmp_path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a{0..2}", ["a0", "a1", "a2"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{a,b{1..2}}-{x,y}", ["a-x", "a-y", "b1-x", "b1-y", "b2-x", "b2-y"]),
        ("{3..1..2}", ["3", "1"]),
        ("plain{}{one}", ["plain{}{one}"]),
    ],
)
def test_braces_are_written_out(text: str, names: list[str]) -> None:
    assert expand_braces(text) == names


def test_too_many_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"more than 1000000|at most"):
        expand_braces("{1..2000}{1..2000}")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    require(missing())
    with nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


def test_a_lone_remote_tar_is_opened_with_one_read_of_its_end(shards: Path, web: Any) -> None:
    shutil.copy(shards / "shard-000000.tar", web.root / "one.tar")
    with fault_proxy(web.port) as proxy:
        records = open_records(f"{proxy.url}/one.tar")
        heads = [str(head) for head in proxy.heads]
        assert len(records) > 5
        assert len([head for head in heads if "HEAD" not in head.split("/")[0]]) <= 2, heads  # a look, and the end
        dataset = ShardDataset(records, verify=True)
        assert dataset.__getitems__([3, 1]) == [expected(3), expected(1)]


@pytest.mark.parametrize("indexed", [True, False])
def test_foreign_tars_of_a_web_server_are_read(tmp_path: Path, web: Any, indexed: bool) -> None:
    for number in range(2):
        name = f"{'i' if indexed else 'n'}{number}.tar"
        foreign_tar(web.root / name, {f"{number}{each}.txt": b"%d" % each * 10 for each in range(9)})
        if indexed:
            assert not next(iter(index_shards(str(web.root / name)))).error
    dataset = ShardDataset.open(f"{web.url}/{'i' if indexed else 'n'}{{0..1}}.tar", verify=True)
    assert dataset[10] == {"__key__": "11", "txt": "1" * 10}
    assert (dataset.records.fetch(np.array([0])).crcs is not None) == indexed


@pytest.mark.parametrize("name", ["mds", "mds-zstd"])
def test_mds_of_mosaicml_streaming_0_13_is_read(name: str) -> None:
    dataset = ShardDataset.open(DATA / name)
    assert len(dataset) == 10
    for i, sample in enumerate(dataset.__getitems__(range(10))):
        plain = {key: value for key, value in sample.items() if not isinstance(value, np.ndarray)}
        assert plain.pop("__key__").startswith("shard.0000")
        assert plain == {
            "b": bytes([i]) * i,
            "s": f"s{i}",
            "i": -i,
            "u": i,
            "f": i / 4,
            "d": Decimal(i) / 8,
            "si": 10**i,
            "sf": i / 3,
            "j": {"i": [i]},
        }
        np.testing.assert_array_equal(sample["a"], np.arange(i + 1, dtype=np.float64))
        np.testing.assert_array_equal(sample["a2"], np.ones((i + 1, 2), np.float32))
        np.testing.assert_array_equal(sample["a3"], np.full((2, 2), i, np.int16))
    assert pickle.loads(pickle.dumps(dataset))[3]["s"] == "s3"


def test_litdata_of_0_2_76_is_read() -> None:
    dataset = ShardDataset.open(DATA / "litdata", decode={"jpg": None})
    assert len(dataset) == 10
    for i, sample in enumerate(dataset.__getitems__(range(10))):
        np.testing.assert_array_equal(sample.pop("arr"), np.arange(i + 2, dtype=np.float32).reshape(1, -1))
        np.testing.assert_array_equal(sample.pop("flat"), np.arange(i + 1, dtype=np.int16))
        assert sample.pop("__key__").startswith("chunk-0-")
        assert sample == {
            "jpg": bytes([i]) * (10 + i),
            "label": i,
            "name": f"n{i}",
            "w": i / 2,
            "flag": bool(i % 2),
            "box.0": i,
            "box.1": 2 * i,
        }


def test_litdata_that_zstd_compressed_is_read() -> None:
    dataset = ShardDataset.open(DATA / "litdata-zstd")
    assert [(sample["n"], sample["t"], sample["a"].tolist()) for sample in dataset.__getitems__(range(6))] == [
        (i, f"t{i}", [[i] * (i + 1)] * 2) for i in range(6)
    ]


@pytest.mark.parametrize("name", ["mds", "litdata", "mds-zstd", "litdata-zstd"])
def test_damage_to_rows_is_our_error_or_other_bytes(tmp_path: Path, name: str) -> None:
    shutil.copytree(DATA / name, tmp_path / "d")
    path = next(path for path in sorted((tmp_path / "d").iterdir()) if path.name != "index.json")
    whole = path.read_bytes()
    named: list[str] = []
    for at in range(0, min(len(whole), 900), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            records = open_records(tmp_path / "d")
            records.fetch(np.arange(len(records)))
        except ShardFormatError as error:
            named.append(error.uri)
    assert {uri.rpartition("/")[2] for uri in named} == {path.name}
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardFormatError):
        open_records(tmp_path / "d").fetch(np.arange(5))


def test_pickled_columns_are_refused_unless_asked_for(tmp_path: Path) -> None:
    shutil.copytree(DATA / "mds", tmp_path / "d")
    index = json.loads((tmp_path / "d" / "index.json").read_text())
    for shard in index["shards"]:
        shard["column_encodings"][shard["column_names"].index("b")] = "pkl"
    (tmp_path / "d" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ShardFormatError, match=r"column 'b'.*allow_pickle=True"):
        open_records(tmp_path / "d")
    assert len(open_records(tmp_path / "d", allow_pickle=True)) == 10


def test_parquet_rows_are_samples(tmp_path: Path) -> None:
    n = 95
    table = pa.table(
        {
            "__key__": [f"k{i}" for i in range(n)],
            "bytes": [b"x" * i for i in range(n)],
            "text": [None if i % 2 else f"t{i}" for i in range(n)],
            "n": pa.array(range(n), pa.int32()),
            "v": pa.array([[i / 2] * (i % 3) for i in range(n)], pa.list_(pa.float32())),
            "d": [{"a": i} for i in range(n)],
        }
    )
    for part in range(2):
        pq.write_table(table.slice(part * 50, 50), tmp_path / f"{part}.parquet", row_group_size=20)
    dataset = ShardDataset.open(tmp_path)
    assert dataset.shard_starts.tolist() == [0, 50, 95]
    for i, sample in zip([94, 0, 51, 7], dataset.__getitems__([94, 0, 51, 7]), strict=True):
        assert sample.pop("v").tolist() == [i / 2] * (i % 3)
        text = {} if i % 2 else {"text": f"t{i}"}
        assert sample == {"__key__": f"k{i}", "bytes": b"x" * i, "n": i, "d": {"a": i}, **text}
    assert pickle.loads(pickle.dumps(dataset))[94]["n"] == 94
    (tmp_path / "1.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    with pytest.raises(ShardFormatError, match=r"1\.parquet is no Parquet"):
        open_records(tmp_path)


def test_loose_files_are_grouped_by_key(tmp_path: Path, web: Any) -> None:
    for number in range(3):
        for place in (tmp_path / "d", web.root / "loose"):
            (place / "x").mkdir(parents=True, exist_ok=True)
            (place / "x" / f"{number}.txt").write_text(f"t{number}")
            (place / "x" / f"{number}.cls").write_text(f"{number}")
    for place in (tmp_path / "d", f"{web.url}/loose/"):
        dataset = ShardDataset.open(place)
        assert sorted(sample["cls"] for sample in dataset.__getitems__(range(3))) == [0, 1, 2]
        assert {dataset[0]["__key__"], dataset[1]["__key__"], dataset[2]["__key__"]} == {"x/0", "x/1", "x/2"}
    assert open_records(tmp_path / "d", key="stem").keys_of(np.arange(3)) == ["0", "1", "2"]
    assert local_shard(str(tmp_path / "d" / "x" / "0.txt")).size == 2
