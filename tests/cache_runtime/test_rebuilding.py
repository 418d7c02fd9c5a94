from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_runtime import BlockStore
from cache_runtime.store.cleanmark import is_marked
from cache_runtime.store.footers import FOOTER_ENTRY, FOOTER_MAGIC, FOOTER_TAIL
from cache_runtime.store.layout import CRC, FORMAT, checksum, disk_bytes
from cache_runtime.store.shares import Share
from cache_runtime.store.sidecars import ATTRIBUTE, HEAD_BYTES, SIDECAR_HEAD, SIDECAR_ROW
from cache_runtime.store.trailers import TRAILER_MAGIC, TRAILER_TAIL
from tests.cache_runtime.lake import inconsistencies
from tests.cache_runtime.objects import (
    ALL,
    LARGE,
    SMALL,
    content,
    flip,
    found,
    lose_index,
    make_refs,
    open_cache,
    put_all,
    totals,
    unit_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def filled(cache_path: Path) -> Path:
    """A cache that was filled and closed, with full slabs and a growing one."""
    store = open_cache(cache_path)
    put_all(store)
    store.close()
    return cache_path


def damage_magic(path: Path) -> None:
    (path / "index.lmdb").write_bytes(b"\xff" * 8192)


def truncate(path: Path) -> None:
    os.truncate(path / "index.lmdb", (path / "index.lmdb").stat().st_size // 2)


def truncate_unmarked(path: Path) -> None:
    truncate(path)
    (path / "index.lmdb-clean").unlink()


def zero_range(path: Path) -> None:
    with (path / "index.lmdb").open("r+b") as file:
        file.seek(8192)
        file.write(bytes(4096))


def other_format(path: Path) -> None:
    (path / "FORMAT").write_text("99\n")


def other_boot(path: Path) -> None:
    (path / "boot").write_text("another\n")
    (path / "index.lmdb-clean").unlink()


@pytest.mark.parametrize(
    "damage", [lose_index, damage_magic, truncate, truncate_unmarked, zero_range, other_format, other_boot]
)
def test_an_index_that_is_lost_damaged_or_foreign_is_rebuilt(
    filled: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    objects, _, parts = totals(filled)
    damage(filled)
    store = open_cache(filled)
    assert "cache index rebuilt" in caplog.text
    assert all(found(store, ref) for ref in ALL)
    assert (totals(filled)[0], totals(filled)[2]) == (objects, parts)
    assert inconsistencies(filled) == []
    assert store.stats.corrupt_blocks == 0
    assert (filled / "FORMAT").read_text() == f"{FORMAT}\n"
    put_all(store, make_refs(30, 900_000, name="more"))  # evicts
    assert inconsistencies(filled) == []


def test_every_bit_of_a_flushed_index_is_checked(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    picks = random.Random(1)
    for _ in range(8):
        caplog.clear()
        flip(filled / "index.lmdb", picks.randrange((filled / "index.lmdb").stat().st_size))
        store = open_cache(filled)
        assert "it differs from what was flushed" in caplog.text
        assert all(found(store, ref) for ref in ALL)
        store.close()
        del store


def test_a_flushed_index_outlives_the_machine_and_one_that_is_written_to_does_not(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (filled / "boot").write_text("another\n")
    assert is_marked(os.fspath(filled / "index.lmdb"))
    store = open_cache(filled)
    assert "rebuilt" not in caplog.text
    assert found(store, ALL[0])
    more = make_refs(1, 5000, name="more")
    put_all(store, more)
    assert is_marked(os.fspath(filled / "index.lmdb")) is None
    del store
    (filled / "boot").write_text("a third one\n")
    store = open_cache(filled)
    assert "not flushed when the machine went down" in caplog.text
    assert all(found(store, ref) for ref in ALL + more)


def test_a_failing_disk_makes_the_next_process_rebuild(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_cache(filled)
    store.fail(OSError(5, os.strerror(5)))
    del store
    assert found(open_cache(filled), ALL[0])
    assert "cache index rebuilt" in caplog.text


def test_shares_and_guests_are_what_they_were_and_the_newest_copy_wins(cache_path: Path) -> None:
    store = open_cache(cache_path)
    put_all(store, LARGE, share=Share("images", quota_bytes=20 << 20))
    put_all(store, SMALL, share=Share("images", quota_bytes=20 << 20))
    guest = make_refs(1, 2 << 20, name="guest")[0]
    assert store.put(guest, 0, content(guest), guest=True)
    before = {row.share.name: row.guest_bytes for row in store.status().shares}
    put_all(store, SMALL)  # again, in slabs of another share
    store.close()
    del store
    lose_index(cache_path)
    store = open_cache(cache_path)
    after = {row.share.name: row for row in store.status().shares}
    assert after["images"].used_bytes > 8 << 20
    assert {name: row.guest_bytes for name, row in after.items()} == before
    assert all(found(store, ref) for ref in [*ALL, guest])


def test_living_processes_take_the_new_index(filled: Path) -> None:
    here, there = FORK.Pipe()

    def use() -> None:
        store = open_cache(filled)
        assert found(store, SMALL[0])
        there.send("ready")
        assert there.recv() == "rebuilt"
        assert all(found(store, ref) for ref in ALL)
        more = make_refs(3, 5000, name="more")
        put_all(store, more)
        there.send("filled")
        assert there.recv() == "end"

    child = FORK.Process(target=use, daemon=True)
    child.start()
    try:
        assert here.poll(30)
        assert here.recv() == "ready"
        other_format(filled)
        store = open_cache(filled)
        here.send("rebuilt")
        assert here.poll(30)
        assert here.recv() == "filled"
        assert all(found(store, ref) for ref in make_refs(3, 5000, name="more"))
        here.send("end")
    finally:
        child.join(30)
    assert child.exitcode == 0
    assert inconsistencies(filled) == []


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_damaged_slabs_and_files_lose_their_bytes_and_no_others(data: st.DataObject) -> None:
    path = Path(tempfile.mkdtemp(prefix="forebay-damage-")) / "cache"
    try:
        store = open_cache(path)
        put_all(store)
        del store
        files = unit_files(path)
        hurt = data.draw(st.sampled_from(files))
        size = hurt.stat().st_size
        start = data.draw(st.one_of(st.integers(0, size - 1), st.integers(size - min(size, 600), size - 1)))
        how = data.draw(st.sampled_from(["flip", "zero", "cut"]))
        if how == "flip":
            flip(hurt, start)
        elif how == "zero":
            with hurt.open("r+b") as file:
                file.seek(start)
                file.write(bytes(min(5000, size - start)))
        else:
            os.truncate(hurt, start)
        if data.draw(st.booleans()):
            lose_index(path)
        store = open_cache(path)
        lost = [ref for ref in ALL if not found(store, ref)]
        in_a_file = [ref for ref in LARGE if ref.id.hex() in hurt.name]
        assert set(lost) <= set(in_a_file or SMALL)
        put_all(store, lost)
        assert all(found(store, ref) for ref in ALL)
        assert inconsistencies(path) == []
    finally:
        shutil.rmtree(path.parent)


def test_a_lost_footer_costs_nothing(filled: Path) -> None:
    full = [path for path in unit_files(filled) if path.read_bytes()[-FOOTER_TAIL.size :].startswith(FOOTER_MAGIC)]
    assert full
    for slab in full:
        flip(slab, slab.stat().st_size - FOOTER_TAIL.size)
    lose_index(filled)
    store = open_cache(filled)
    assert all(found(store, ref) for ref in ALL)


def test_a_damaged_footer_is_not_believed(filled: Path) -> None:
    full = [path for path in unit_files(filled) if path.read_bytes()[-FOOTER_TAIL.size :].startswith(FOOTER_MAGIC)]
    for slab in full:
        entry = slab.stat().st_size - FOOTER_TAIL.size - FOOTER_ENTRY.size
        flip(slab, entry + 3)  # of the last record's object id
    lose_index(filled)
    store = open_cache(filled)
    assert full
    assert totals(filled)[0] == len(ALL)
    assert all(found(store, ref) for ref in ALL)
    assert store.stats.corrupt_blocks == 0


@pytest.mark.parametrize(
    ("damaged", "missing"),
    [(HEAD_BYTES + 1, [0]), (HEAD_BYTES + SIDECAR_ROW.size + 5, [1]), (40, [0, 1])],
    ids=["CRC of a row", "check of a row", "share of the head"],
)
def test_what_of_a_sidecar_does_not_check_is_not_there(filled: Path, damaged: int, missing: list[int]) -> None:
    flip(next(filled.glob(f"checksums/*/*{LARGE[0].id.hex()}")), damaged)
    lose_index(filled)
    store = open_cache(filled)
    assert store.missing_blocks(LARGE[0], [0, 1]) == missing
    assert [share.share.name for share in store.status().shares] == [""]
    assert inconsistencies(filled) == []
    put_all(store, LARGE[:1])
    assert found(store, LARGE[0])
    assert store.stats.corrupt_blocks == 0


def _make_older(cache: Path) -> None:
    """Make a directory of format 2, whose large files had behind them what is in sidecars now."""
    for sidecar in cache.glob("checksums/*/*"):
        raw = sidecar.read_bytes()
        _, *owner = SIDECAR_HEAD.unpack_from(raw)
        tail = TRAILER_TAIL.pack(TRAILER_MAGIC, *owner)
        path = cache / "files" / sidecar.parent.name / sidecar.name
        size = path.stat().st_size
        os.truncate(path, disk_bytes(size))
        with path.open("ab") as file:
            blocks = -(-size // (4 << 20))
            file.write(raw[HEAD_BYTES:].ljust(blocks * SIDECAR_ROW.size, b"\0") + tail + CRC.pack(checksum(tail)))
    shutil.rmtree(cache / "checksums")
    (cache / "FORMAT").write_text("2\n")


def test_a_directory_of_the_older_format_keeps_everything(filled: Path) -> None:
    _make_older(filled)
    sizes = {path: path.stat().st_size for path in filled.glob("files/*/*")}
    store = open_cache(filled)
    assert all(found(store, ref) for ref in ALL)
    assert {path.stat().st_size for path in sizes} == {ref.size for ref in LARGE}
    assert all(size > LARGE[0].size for size in sizes.values())
    assert inconsistencies(filled) == []
    assert store.stats.corrupt_blocks == 0


@pytest.mark.parametrize("has_attributes", [True, False])
def test_what_was_written_whole_says_so_itself_or_has_a_sidecar(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, has_attributes: bool
) -> None:
    if not has_attributes:

        def refuse(*request: object) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(os, "setxattr", refuse)
    store = open_cache(cache_path)
    share = Share("images")
    for ref in LARGE:
        assert store.put(ref, 0, content(ref), share=share)
    del store
    supported = has_attributes and all(os.listxattr(path) for path in cache_path.glob("files/*/*"))
    assert bool(list(cache_path.glob("checksums/*/*"))) is not supported
    lose_index(cache_path)
    store = open_cache(cache_path)
    assert all(found(store, ref) for ref in LARGE)
    assert {row.share.name for row in store.status().shares} == {"images"}
    assert inconsistencies(cache_path) == []
    del store
    for path in cache_path.glob("files/*/*") if supported else ():
        raw = os.getxattr(path, ATTRIBUTE)
        os.setxattr(path, ATTRIBUTE, raw[:-6] + b"?" + raw[-5:])
    lose_index(cache_path)
    assert found(open_cache(cache_path), LARGE[0]) is not supported
    assert inconsistencies(cache_path) == []


def test_a_file_ends_with_its_object_for_others_read_it_past_us(filled: Path) -> None:
    assert sorted(path.stat().st_size for path in filled.glob("files/*/*")) == sorted(ref.size for ref in LARGE)


def test_a_clock_that_went_back_does_not_repeat_a_unit_number(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name for path in unit_files(filled)}
    lose_index(filled)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    store = open_cache(filled)
    put_all(store, make_refs(3, 900_000, name="more"))
    assert all(found(store, ref) for ref in ALL)
    new = {path.name for path in unit_files(filled)} - before
    assert new
    assert min(new) > max(before)


MORE_STEPS = ("truncate", "ftruncate", "setxattr")
DEEP = bool(os.environ.get("FOREBAY_DEEP"))
STRIDE = 1 if DEEP else 3
"""Of the steps that a process may be killed before, each so many-th is tried; nothing in the store repeats by 3."""
STEPS = ("pwrite", "pwritev", "rename", "unlink", "open", "fsync", "posix_fallocate", "mkdir", "replace", *MORE_STEPS)


def _run_until(step: int, work: Callable[[], None]) -> bool:
    """Run in a child that kills itself before its n-th step on disk; say whether it came to its end."""

    def run() -> None:
        left = step

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*args: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return wrapper

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        work()

    child = FORK.Process(target=run, daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == 0


def _fill_and_evict(path: Path) -> None:
    store = open_cache(path)
    put_all(store, [*SMALL[:3], LARGE[0]])
    assert store.put(LARGE[1], 0, content(LARGE[1]))
    assert store.evict([SMALL[0], LARGE[0]]) > 0
    put_all(store, SMALL[3:4])
    store.close()


@pytest.mark.timeout(600)
def test_a_kill_before_any_step_leaves_misses_and_no_wrong_byte(tmp_path: Path) -> None:
    for step in range(0, 400 + STRIDE, STRIDE):
        path = tmp_path / str(step)
        ended = _run_until(step, lambda path=path: _fill_and_evict(path))  # type: ignore[misc]
        store = open_cache(path)
        assert inconsistencies(path) == []
        kept = [ref for ref in ALL if found(store, ref)]
        assert store.stats.corrupt_blocks == 0
        del store
        lose_index(path)
        store = open_cache(path)
        assert inconsistencies(path) == []
        assert all(found(store, ref) for ref in kept)
        assert not list(path.glob("*.new*"))
        del store
        shutil.rmtree(path)
        if ended:
            assert kept
            return
    raise AssertionError("more steps than expected")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("spoil", [lose_index, _make_older])
def test_a_rebuild_killed_before_any_step_is_done_by_the_next_process(
    tmp_path: Path, filled: Path, spoil: Callable[[Path], None]
) -> None:
    for step in range(0, 200 + STRIDE, STRIDE):
        path = tmp_path / f"copy{step}"
        shutil.copytree(filled, path)
        spoil(path)
        ended = _run_until(step, lambda path=path: open_cache(path).close())  # type: ignore[misc]
        store = open_cache(path)
        assert all(found(store, ref) for ref in ALL)
        assert inconsistencies(path) == []
        del store
        shutil.rmtree(path)
        if ended:
            return
    raise AssertionError("more steps than expected")


def test_nothing_is_rebuilt_where_nothing_was(cache_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    BlockStore.open(cache_path, capacity_bytes=64 << 20).close()
    BlockStore.open(cache_path, capacity_bytes=64 << 20)
    assert "rebuilt" not in caplog.text


def fill_and_die(path: Path) -> None:
    put_all(open_cache(path), [*ALL, *make_refs(400, 900, name="tiny")])
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_damaged_index_that_was_not_flushed_is_found_before_it_kills(tmp_path: Path) -> None:
    original = tmp_path / "cache"
    child = FORK.Process(target=fill_and_die, args=(original,), daemon=True)
    child.start()
    child.join(30)
    assert not (original / "index.lmdb-clean").exists()
    for seed in range(4):
        path = tmp_path / str(seed)
        shutil.copytree(original, path)
        picks = random.Random(seed)
        with (path / "index.lmdb").open("r+b") as file:
            for page in range(2, (path / "index.lmdb").stat().st_size // 4096):
                file.seek(page * 4096 + picks.randrange(4000))
                file.write(picks.randbytes(96))

        def use(path: Path = path) -> None:
            store = open_cache(path)
            for ref in ALL:
                found(store, ref)
            put_all(store, SMALL)

        child = FORK.Process(target=use, daemon=True)
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert found(open_cache(path), SMALL[0])
        shutil.rmtree(path)
