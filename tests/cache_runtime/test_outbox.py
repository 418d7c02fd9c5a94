from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import Outbox, OutboxBusyError, OutboxDiskError, OutboxFullError, ParcelFile, ParcelNotFoundError
from cache_runtime.outbox.journals import Journal, read_journal

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def no_relief() -> None:
    """Nothing is uploading."""


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox", limit_bytes=64 * MIB, wait_seconds=0.2)


leaves = st.none() | st.integers() | st.text()
json_values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
some_records = st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), max_size=6)


@given(records=some_records, later=some_records, cut=st.integers(0, 400), garbage=st.binary(max_size=20))
def test_a_torn_journal_holds_its_first_records_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, records: list[Any], later: list[Any], cut: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.sync()
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)] + garbage)
    left = read_journal(path)
    assert left[: len(records)] == records[: len(left)]
    again = Journal(path)
    assert again.records == left
    for record in later:
        again.append(record)
    again.close()
    assert read_journal(path) == left + later


def test_a_parcel_is_held_by_one_and_left_to_the_next(outbox: Outbox) -> None:
    parcel = outbox.begin({"for": "somebody"})
    parcel.path_of(parcel.new_number()).write_bytes(b"12345")
    parcel.record({"file": 0}, sync=[0])
    (kept,) = outbox.parcels()
    assert (kept.id, dict(kept.header)) == (parcel.id, {"for": "somebody"})
    assert (kept.waiting_bytes, kept.is_running) == (5, True)
    with pytest.raises(OutboxBusyError):
        outbox.take(parcel.id)
    parcel.release()
    with pytest.raises(OutboxDiskError):
        parcel.record({"too": "late"})
    again = outbox.take(parcel.id)
    assert (dict(again.header), again.records, again.new_number()) == ({"for": "somebody"}, [{"file": 0}], 1)
    again.remove()
    assert (outbox.parcels(), os.listdir(outbox.directory)) == ([], [])
    for name in (parcel.id, "../outbox", ".hidden"):
        with pytest.raises(ParcelNotFoundError):
            outbox.take(name)


def test_a_parcel_of_a_killed_process_can_be_taken(outbox: Outbox) -> None:
    child = os.fork()
    if child == 0:
        parcel = outbox.begin({})
        parcel.record({"last": "words"})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (kept,) = outbox.parcels()
    assert not kept.is_running
    assert outbox.take(kept.id).records == [{"last": "words"}]


def test_what_waits_is_bounded_for_all_processes_together(outbox: Outbox) -> None:
    mine, others = outbox.begin({}), Outbox(outbox.directory, limit_bytes=64 * MIB, wait_seconds=0.2)
    with ParcelFile(mine.path_of(0), outbox, relieve=no_relief) as file:
        file.write(bytes(60 * MIB))
    yours = others.begin({})
    with ParcelFile(yours.path_of(0), others, relieve=no_relief) as file, pytest.raises(OutboxFullError) as full:
        file.write(bytes(60 * MIB))
    assert full.value.limit_bytes == 64 * MIB
    assert outbox.waiting_bytes() <= 65 * MIB
    mine.forget_bytes(0)
    with ParcelFile(yours.path_of(1), others, relieve=no_relief) as file:
        file.write(bytes(30 * MIB))


def test_what_hinders_uploads_ends_a_writer_that_waits_for_them(outbox: Outbox) -> None:
    def relieve() -> None:
        raise ConnectionError("the repository refuses us")

    parcel = outbox.begin({})
    with ParcelFile(parcel.path_of(0), outbox, relieve=relieve) as file:
        file.write(bytes(63 * MIB))
    with ParcelFile(parcel.path_of(1), outbox, relieve=relieve) as file, pytest.raises(ConnectionError):
        file.write(bytes(2 * MIB))


some_writes = st.lists(st.tuples(st.integers(0, 50), st.binary(max_size=30)), max_size=8)


@given(writes=some_writes, cut=st.none() | st.integers(0, 60))
def test_the_sum_of_a_file_is_that_of_its_bytes_in_whatever_order_they_came(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], cut: int | None
) -> None:
    path = tmp_path_factory.mktemp("file")
    outbox = Outbox(path / "outbox", limit_bytes=MIB, wait_seconds=0.1)
    with ParcelFile(path / "0", outbox, relieve=no_relief) as file:
        model = bytearray()
        for offset, data in writes:
            file.seek(offset)
            file.write(data)
            if data:
                model.extend(bytes(max(0, offset - len(model))))
                model[offset : offset + len(data)] = data
        if cut is not None:
            file.truncate(cut)
            model = model[:cut].ljust(cut, b"\0")
        assert file.size_and_sum() == (len(model), google_crc32c.value(bytes(model)))
    assert (path / "0").read_bytes() == model


def test_a_full_disk_is_named(small_disk: Path) -> None:
    outbox = Outbox(small_disk / "outbox", limit_bytes=64 * MIB, wait_seconds=0.1)
    parcel = outbox.begin({})
    with ParcelFile(parcel.path_of(0), outbox, relieve=no_relief) as file:
        with pytest.raises(OutboxDiskError, match="No space left"):
            file.write(bytes(8 * MIB))
        with pytest.raises(OutboxDiskError, match="No space left"):
            parcel.record({"text": "x" * 5 * MIB})
    parcel.forget_bytes(0)
    parcel.record({"after": "it"})
    parcel.release()
    assert outbox.take(parcel.id).records[-1] == {"after": "it"}
