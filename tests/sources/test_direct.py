from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.direct import write_direct

if TYPE_CHECKING:
    from pathlib import Path

PAGES = 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("direct") / "file"


def written(path: Path, parts: list[memoryview]) -> bytes:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for part in parts:
            write_direct(fd, part)
    finally:
        os.close(fd)
    return path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40_000)), max_size=4))
def test_any_pieces_of_memory_are_appended_as_they_are(place: Path, pieces: list[tuple[int, int]]) -> None:
    memory = memoryview(mmap.mmap(-1, PAGES * 4096))
    memory[:] = os.urandom(len(memory))
    parts = [memory[begin : begin + size] for begin, size in pieces]
    assert written(place, parts) == b"".join(parts)


def test_a_file_system_that_refuses_is_written_as_usual(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memoryview(mmap.mmap(-1, PAGES * 4096))
    memory[:] = os.urandom(len(memory))
    usual, refused = os.write, 0

    def write(fd: int, data: memoryview) -> int:
        nonlocal refused
        if not refused:
            refused += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return usual(fd, data)

    monkeypatch.setattr(os, "write", write)
    assert written(place, [memory]) == bytes(memory)
    assert refused
