from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from cache_runtime import CachedFileSystem, PathInfo
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from cache_runtime import Client
    from sources import Location, ObjectRef
    from tests.cache_runtime.lake import Lake


class DictView:
    """A view of a few paths."""

    def __init__(self, files: dict[str, ObjectRef]) -> None:
        self.files = files

    def locate(self, path: str) -> Location:
        if path not in self.files:
            if self._is_dir(path):
                raise IsADirectoryError(path)
            raise FileNotFoundError(path)
        return whole(self.files[path])

    def info(self, path: str) -> PathInfo:
        if path in self.files:
            return PathInfo(path, self.files[path].size, False)
        if not self._is_dir(path):
            raise FileNotFoundError(path)
        return PathInfo(path, 0, True)

    def listdir(self, path: str) -> list[PathInfo]:
        if path in self.files:
            raise NotADirectoryError(path)
        self.info(path)
        start = f"{path}/" if path else ""
        children = {name[len(start) :].split("/")[0] for name in self.files if name.startswith(start)}
        return [self.info(start + child) for child in sorted(children)]

    def _is_dir(self, path: str) -> bool:
        return not path or any(name.startswith(f"{path}/") for name in self.files)


@pytest.fixture
def table(lake: Lake) -> pa.Table:
    table = pa.table({"n": range(200_000), "text": [f"row {n}" for n in range(200_000)]})
    pq.write_table(table, lake.root / "objects" / "table.parquet", row_group_size=50_000)
    return table


@pytest.fixture
def fs(lake: Lake, client: Client, table: pa.Table) -> CachedFileSystem:
    parquet = (lake.root / "objects" / "table.parquet").read_bytes()
    files = {
        "train/a.txt": lake.write("a.txt", b"first\nsecond\nthird"),
        "train/big.bin": lake.add("big.bin", 9 * MIB),
        "train/deep/table.parquet": lake.write("table.parquet", parquet),
        "empty": lake.write("empty", b""),
        "rows.csv": lake.write("rows.csv", b"a,b\n1,2\n3,4\n"),
    }
    return CachedFileSystem(DictView(files), client)


def test_listing_info_glob_and_find_show_the_view(fs: CachedFileSystem) -> None:
    assert fs.ls("", detail=False) == ["empty", "rows.csv", "train"]
    assert fs.ls("/train/", detail=False) == ["train/a.txt", "train/big.bin", "train/deep"]
    assert fs.ls("train/a.txt", detail=False) == ["train/a.txt"]
    assert fs.info("ds://train/a.txt") == {"name": "train/a.txt", "size": 18, "type": "file"}
    assert fs.isdir("train")
    assert fs.isfile("empty")
    assert fs.exists("train/deep")
    assert not fs.exists("train/deeper")
    assert fs.glob("train/*.txt") == ["train/a.txt"]
    assert fs.glob("**/*.parquet") == ["train/deep/table.parquet"]
    assert len(fs.find("")) == 5
    assert fs.du("train") == sum(fs.size(path) for path in fs.find("train"))
    with pytest.raises(FileNotFoundError):
        fs.info("nothing")
    with pytest.raises(FileNotFoundError):
        fs.ls("nothing")


def test_files_open_read_and_seek(fs: CachedFileSystem, lake: Lake) -> None:
    with fs.open("train/a.txt") as file:
        assert file.readline() == b"first\n"
        assert file.tell() == 6
        assert file.read() == b"second\nthird"
        assert file.seek(-5, 2) == 13
        assert file.read(100) == b"third"
        assert file.read() == b""
        assert file.seek(100) == 100
        assert file.read(1) == b""
        with pytest.raises(OSError, match="Invalid"):
            file.seek(-1000, 1)
    with fs.open("train/a.txt", "r") as text:
        assert text.read().split() == ["first", "second", "third"]
    big = next(data for data in lake.bytes.values() if len(data) == 9 * MIB)
    with fs.open("train/big.bin") as file:
        file.seek(4 * MIB - 10)
        assert file.read(MIB) == big[4 * MIB - 10 : 5 * MIB - 10]
    with fs.open("empty") as file:
        assert file.read() == b""
    with pytest.raises(FileNotFoundError):
        fs.open("nothing")
    with pytest.raises(IsADirectoryError):
        fs.open("train")
    with pytest.raises(OSError, match="read-only"):
        fs.open("train/new", "wb")


def test_cat_takes_python_slices(fs: CachedFileSystem) -> None:
    assert fs.cat_file("train/a.txt") == b"first\nsecond\nthird"
    assert fs.cat_file("train/a.txt", 6, 12) == b"second"
    assert fs.cat_file("train/a.txt", -5) == b"third"
    assert fs.cat_file("train/a.txt", 3, -10) == b"st\nse"
    assert fs.cat(["train/a.txt", "empty"]) == {"train/a.txt": b"first\nsecond\nthird", "empty": b""}
    assert fs.cat_ranges(["train/a.txt", "rows.csv"], [0, 4], [5, 7]) == [b"first", b"1,2"]
    found = fs.cat_ranges(["nothing", "rows.csv"], 0, 3)
    assert isinstance(found[0], FileNotFoundError)
    assert found[1] == b"a,b"
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["nothing"], [0], [1], on_error="raise")


def test_pyarrow_reads_parquet_and_csv_through_it(fs: CachedFileSystem, table: pa.Table) -> None:
    assert pq.read_table("train/deep/table.parquet", filesystem=fs).equals(table)
    dataset = pa.dataset.dataset("train/deep", filesystem=fs, format="parquet")
    assert dataset.to_table(filter=pa.dataset.field("n") < 3).num_rows == 3
    assert pq.ParquetFile(fs.open("train/deep/table.parquet")).read_row_group(1, columns=["n"])[0][0].as_py() == 50_000
    with fs.open("rows.csv") as file:
        assert pa.csv.read_csv(file).to_pydict() == {"a": [1, 3], "b": [2, 4]}
