"""Objects that exist in no store: their bytes follow from their identity."""

from __future__ import annotations

import gc
import os
import random
from functools import cache
from typing import TYPE_CHECKING

from cache_runtime import BlockStore
from cache_runtime.store.index import open_index
from cache_runtime.store.layout import BLOCK_BYTES, BlockRun, block_span
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cache_runtime.store.shares import Share

CAPACITY = 32 * MIB
gc.freeze()  # what is imported by now never is garbage, and to look through all of it takes a fifth of a second


def make_refs(count: int, size: int, *, name: str = "o") -> list[ObjectRef]:
    return [ObjectRef(StoreId("test://"), f"{name}{n}", Version("1"), size) for n in range(count)]


SMALL = make_refs(5, 700_000, name="small")
LARGE = make_refs(2, 4 * MIB + 17, name="large")
ALL = SMALL + LARGE


@cache
def content(ref: ObjectRef) -> bytes:
    return random.Random(ref.id).randbytes(ref.size)


def open_cache(path: Path, capacity: int = CAPACITY) -> BlockStore:
    """Open a cache as a process does that has just begun."""
    gc.collect()
    return BlockStore.open(path, capacity_bytes=capacity)


def put_all(store: BlockStore, refs: Iterable[ObjectRef] = ALL, *, share: Share | None = None) -> None:
    options = {} if share is None else {"share": share}
    for ref in refs:
        data = memoryview(content(ref))
        for block in range((ref.size - 1) // BLOCK_BYTES + 1 if ref.size > MIB else 1):
            start, length = block_span(BlockRun(block, block), ref.size)
            assert store.put(ref, block, data[start : start + length], **options)  # type: ignore[arg-type]


def found(store: BlockStore, ref: ObjectRef) -> bool:
    """Whether an object is found whole; what is found of it must be right."""
    whole = True
    expected = content(ref)
    for block in range((ref.size - 1) // BLOCK_BYTES + 1):
        start, length = block_span(BlockRun(block, block), ref.size)
        view = store.find(ref, start, length)
        assert view is None or view == expected[start : start + length]
        whole = whole and view is not None
    return whole


def lose_index(path: Path) -> None:
    gc.collect()
    for name in ("index.lmdb", "index.lmdb-lock", "index.lmdb-clean"):
        (path / name).unlink(missing_ok=True)


def unit_files(path: Path) -> list[Path]:
    return sorted(file for top in ("slabs", "files") for file in (path / top).rglob("*") if file.is_file())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << offset % 8]))


def totals(path: Path) -> tuple[int, int, int]:
    with open_index(os.path.join(path, "index.lmdb")).reading() as tables:
        return tables.totals()
