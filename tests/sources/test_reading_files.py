from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sources import FileStore, SourceChangedError, SourceConfigError
from sources.stores import ReadFiles

if TYPE_CHECKING:
    from pathlib import Path

    from sources import Version


def wanted(store: FileStore, key: str, size: int) -> tuple[str, Version, memoryview]:
    return key, store.stat(key).version, memoryview(bytearray(size))


def test_files_are_read_whole_whatever_leads_to_them(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"one")
    (tmp_path / "a" / "0").write_bytes(b"")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "link").symlink_to("a/1")
    store, root = FileStore(tmp_path), f"{tmp_path}"[1:]
    files = [wanted(store, f"{root}/{name}", size) for name, size in (("a/1", 3), ("a/0", 0), ("b/1", 3), ("link", 3))]
    assert isinstance(store, ReadFiles)
    store.read_files(files)
    assert [bytes(buffer) for *_, buffer in files] == [b"one", b"", b"one", b"one"]


@pytest.mark.parametrize("change", ["content", "size", "gone", "touched"])
def test_a_file_at_another_version_is_refused(tmp_path: Path, change: str) -> None:
    file = tmp_path / "1"
    file.write_bytes(b"one")
    store = FileStore(tmp_path)
    files = [wanted(store, f"{file}"[1:], 3)]
    if change == "gone":
        file.unlink()
    elif change == "touched":
        os.utime(file, ns=(1, 1))
    else:
        file.write_bytes(b"two" if change == "content" else b"three")
        os.utime(file, ns=(2, 2))
    with pytest.raises(SourceChangedError, match=str(file)):
        store.read_files(files)


def test_nothing_outside_of_the_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_bytes(b"secret")
    (tmp_path / "in" / "link").symlink_to("../out")
    store, outside = FileStore(tmp_path / "in"), FileStore(tmp_path)
    version = outside.stat(f"{tmp_path}/out"[1:]).version
    for key in (f"{tmp_path}/out", f"{tmp_path}/in/link", f"{tmp_path}/in/../out"):
        with pytest.raises(SourceConfigError, match="outside"):
            store.read_files([(key[1:], version, memoryview(bytearray(6)))])
