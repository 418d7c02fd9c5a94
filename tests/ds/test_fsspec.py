from __future__ import annotations

import os
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

import ds
from ds.errors import ReadOnlyRevisionError, TransactionError, WriteModeError
from ds.filesystem import DatasetFileSystem
from tests.ds.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

_parquet: Any = pyarrow.parquet


@pytest.fixture
def fs(shop: Shop) -> DatasetFileSystem:
    made = fsspec.filesystem("ds")
    assert isinstance(made, DatasetFileSystem)
    return made


def in_one_commit(fs: Any) -> Any:
    """Save the commits of what a test only prepares."""
    return fs.transaction if isinstance(fs, DatasetFileSystem) else nullcontext()


class DatasetFixtures(AbstractFixtures):  # type: ignore[misc] # fsspec publishes no types
    """fsspec's own tests, on one branch of one dataset for each class of them: they clean up behind themselves."""

    def _glob_edge_cases_files(self, some_fs: Any, some_join: Any, some_path: Any) -> Any:
        with in_one_commit(some_fs):
            return super()._glob_edge_cases_files(some_fs, some_join, some_path)

    def _bulk_operations_scenario_0(self, some_fs: Any, some_join: Any, some_path: Any) -> Any:
        with in_one_commit(some_fs):
            return super()._bulk_operations_scenario_0(some_fs, some_join, some_path)

    def _10_files_with_hashed_names(self, some_fs: Any, some_join: Any, some_path: Any) -> Any:
        with in_one_commit(some_fs):
            return super()._10_files_with_hashed_names(some_fs, some_join, some_path)

    @pytest.fixture(scope="class")
    @classmethod
    def class_shop(cls) -> Iterator[Shop]:
        with TemporaryDirectory(
            dir="/dev/shm"
        ) as directory:  # where fsync costs nothing: these tests make 3,000 commits
            made = Shop.create(Path(directory))
            made.write("present", b"the branch has a commit")
            yield made

    @pytest.fixture
    def fs(self, class_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
        for name, value in class_shop.environment.items():
            monkeypatch.setenv(name, value)
        return fsspec.filesystem("ds")

    @pytest.fixture
    def fs_path(self) -> str:
        return "ckpt@runs"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(DatasetFixtures, AbstractCopyTests):  # type: ignore[misc]
    pass


class TestGet(DatasetFixtures, AbstractGetTests):  # type: ignore[misc]
    pass


class TestPut(DatasetFixtures, AbstractPutTests):  # type: ignore[misc]
    pass


class TestOpen(DatasetFixtures, AbstractOpenTests):  # type: ignore[misc]
    pass


class TestPipe(DatasetFixtures, AbstractPipeTests):  # type: ignore[misc]
    pass


def messages(shop: Shop) -> list[str]:
    return [commit.message for _, commit in shop.dataset.repository.log("runs")]


def test_each_call_that_writes_is_one_commit(shop: Shop, fs: DatasetFileSystem, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (tmp_path / "tree" / name).write_text(name)
    fs.put(f"{tmp_path}/tree", "ckpt@runs/put", recursive=True)
    fs.pipe({"ckpt@runs/x": b"1", "ckpt@runs/y": b"2"})
    fs.cp("ckpt@runs/put", "ckpt@runs/copied", recursive=True)
    fs.mv("ckpt@runs/x", "ckpt@runs/z")
    fs.rm("ckpt@runs/put", recursive=True)
    assert fs.find("ckpt@runs") == [f"ckpt@runs/{name}" for name in ("copied/a", "copied/b", "copied/deep/c", "y", "z")]
    assert messages(shop) == [
        "Remove 3 files",
        "Write z and remove x",
        "Write 3 files",
        "Write 2 files",
        "Write 3 files",
    ]
    assert fs.cat("ckpt@runs/copied/deep/c") == b"deep/c"


def test_copies_inside_of_a_dataset_move_no_byte(shop: Shop, fs: DatasetFileSystem) -> None:
    fs.pipe("ckpt@runs/model", os.urandom(18 << 20))
    shop.dataset.repository.create_tag("v1", shop.dataset.resolve("runs"))
    stored = sorted(path.name for path in (shop.directory / "repo" / "blobs").rglob("*") if path.is_file())
    fs.mv("ckpt@runs/model", "ckpt@runs/best")
    fs.cp("ckpt@v1/model", "ckpt@runs/again")
    assert sorted(path.name for path in (shop.directory / "repo" / "blobs").rglob("*") if path.is_file()) == stored
    assert fs.cat("ckpt@runs/again") == fs.cat("ckpt@runs/best") == fs.cat("ckpt@v1/model")


def test_a_transaction_of_fsspec_is_one_commit(shop: Shop, fs: DatasetFileSystem) -> None:
    with fs.transaction:
        for number in range(3):
            with fs.open(f"ckpt@runs/{number}", "wb") as file:
                file.write(b"%d" % number)
        fs.mv("ckpt@runs/0", "ckpt@runs/zero")
        assert fs.cat("ckpt@runs/zero") == b"0"  # a transaction sees itself
        with pytest.raises(TransactionError, match="writes to ckpt@runs, not to ckpt@main"):
            fs.pipe("ckpt@main/elsewhere", b"")
        assert shop.dataset.repository.head("runs") is None
    assert messages(shop) == ["Write 3 files and remove 0"]
    with suppress(ZeroDivisionError), fs.transaction:
        fs.pipe("ckpt@runs/never", b"1")
        raise ZeroDivisionError
    fs.start_transaction()
    fs.pipe("ckpt@runs/last", b"1")
    fs.end_transaction()
    assert fs.ls("ckpt@runs", detail=False) == [f"ckpt@runs/{name}" for name in ("1", "2", "last", "zero")]


def test_a_filesystem_sees_what_its_process_committed_and_else_one_version(shop: Shop, fs: DatasetFileSystem) -> None:
    fs.pipe("ckpt@runs/a", b"1")
    other = fsspec.filesystem("ds")
    assert other.cat("ckpt@runs/a") == b"1"
    child = os.fork()
    if child == 0:
        shop.write("b", b"of another process")
        os._exit(0)
    os.waitpid(child, 0)
    assert other.ls("ckpt@runs", detail=False) == ["ckpt@runs/a"]
    with ds.open("ds://ckpt@runs/a", "wb") as file:
        file.write(b"2")
    assert other.cat("ckpt@runs/a") == b"2"
    assert other.cat("ckpt@runs~1/b") == fs.cat("ckpt@runs/b") == b"of another process"


def test_directories_are_virtual(fs: DatasetFileSystem) -> None:
    fs.mkdir("ckpt@runs/new")
    fs.makedirs("ckpt@runs/new/deep")
    fs.pipe("ckpt@runs/full/a", b"1")
    assert not fs.exists("ckpt@runs/new")
    with pytest.raises(FileExistsError):
        fs.mkdir("ckpt@runs/full")
    with pytest.raises(FileExistsError):
        fs.makedirs("ckpt@runs/full/a", exist_ok=True)
    fs.makedirs("ckpt@runs/full", exist_ok=True)
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("ckpt@runs/full")
    with pytest.raises(IsADirectoryError):
        fs.rm("ckpt@runs/full")
    with pytest.raises(FileNotFoundError):
        fs.rm("ckpt@runs/nothing")
    with pytest.raises(IsADirectoryError):
        fs.rm_file("ckpt@runs")
    fs.rm_file("ckpt@runs/full/a")
    assert not fs.exists("ckpt@runs/full")


def test_what_cannot_be_written_says_why(shop: Shop, fs: DatasetFileSystem) -> None:
    fs.pipe("ckpt@runs/a", b"1")
    shop.dataset.repository.create_tag("v1", shop.dataset.resolve("runs"))
    for write in (lambda: fs.pipe("ckpt@v1/a", b"2"), lambda: fs.rm("ckpt@v1/a"), lambda: fs.touch("ckpt@v1/b")):
        with pytest.raises(ReadOnlyRevisionError, match="v1 is a tag"):
            write()
    for mode in ("ab", "r+b"):
        with pytest.raises(WriteModeError):
            fs.open("ckpt@runs/a", mode)
    with pytest.raises(FileNotFoundError, match="name a dataset"):
        fs.pipe("", b"")


def test_etags_change_with_the_content(fs: DatasetFileSystem) -> None:
    fs.pipe("ckpt@runs/a", b"1")
    first, key = fs.info("ckpt@runs/a")["etag"], fs.ukey("ckpt@runs/a")
    fs.pipe("ckpt@runs/b", b"2")
    assert fs.info("ckpt@runs/a")["etag"] == first
    fs.pipe("ckpt@runs/a", b"2")
    assert fs.info("ckpt@runs/a")["etag"] == fs.info("ckpt@runs/b")["etag"] != first
    assert fs.ukey("ckpt@runs/a") != key


def test_threads_write_side_by_side(shop: Shop, fs: DatasetFileSystem) -> None:
    fs.pipe("ckpt@runs/first", b"")
    threads = [
        threading.Thread(target=fs.pipe, args=({f"ckpt@runs/{n}/{m}": b"1" for m in range(3)},)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fs.find("ckpt@runs")) == 13
    assert messages(shop).count("Write 3 files") == 4


def test_pandas_writes_and_reads(fs: DatasetFileSystem) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": range(1000), "text": [f"row {n}" for n in range(1000)]})
    frame.to_parquet("ds://ckpt@runs/table.parquet")
    frame.to_csv("ds://ckpt@runs/table.csv.gz", index=False)
    assert pandas.read_parquet("ds://ckpt@runs/table.parquet", columns=["n"])["n"].sum() == 499_500
    assert pandas.read_csv("ds://ckpt@runs/table.csv.gz").equals(frame)


def test_pyarrow_writes_and_reads_datasets(shop: Shop, fs: DatasetFileSystem) -> None:
    table = pa.table({"part": [n % 4 for n in range(1000)], "n": range(1000)})
    with fs.transaction:
        _parquet.write_to_dataset(table, "ckpt@runs/parts", partition_cols=["part"], filesystem=fs)
    assert messages(shop) == ["Write 4 files"]
    found = pyarrow.dataset.dataset("ckpt@runs/parts", filesystem=fs, format="parquet", partitioning="hive")
    assert found.to_table(filter=pyarrow.dataset.field("part") == 3).num_rows == 250
    assert _parquet.read_table("ckpt@runs/parts", filesystem=fs).num_rows == 1000


def test_huggingface_datasets_reads_through_it(fs: DatasetFileSystem, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    _parquet.write_table(pa.table({"label": [0, 1, 2]}), "ckpt@runs/train/0.parquet", filesystem=fs)
    _parquet.write_table(pa.table({"label": [3]}), "ckpt@runs/train/1.parquet", filesystem=fs)
    files = "ds://ckpt@runs/train/*.parquet"
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert loaded["label"][:] == [0, 1, 2, 3]
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert [row["label"] for row in streamed] == [0, 1, 2, 3]
