from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import ds
from cache_runtime import OutboxBusyError, OutboxDiskError, OutboxFullError
from cache_runtime.outbox.journals import Journal
from ds.application import run
from ds.errors import TornFileError, TransactionError, UsageError, WriteConflictError, WritesKeptError
from ds.replaying import drop_write, kept_writes, resume_write
from sources import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ds.shop import Shop

MIB = 1 << 20


def with_variables(shop: Shop, **variables: str) -> Shop:
    return replace(shop, environment={**shop.environment, **variables})


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_hand_over_that_failed_hands_all_over_the_second_time(shop: Shop) -> None:
    shop.write("first", b"1")
    first, second = shop.transaction(), shop.transaction()
    with second.open("x") as file:
        file.write(b"x")
    repo, away = shop.directory / "repo", shop.directory / "away"
    repo.rename(away)
    repo.write_bytes(b"no directory any more")
    for _ in range(2):
        with pytest.raises(SourceError):
            second.hand_over()
    repo.unlink()
    away.rename(repo)
    first.take_over(second.hand_over())
    first.commit()
    assert shop.paths() == ["first", "x"]
    assert shop.waiting() == []


def test_a_forked_process_neither_ends_nor_changes_what_its_parent_writes(shop: Shop) -> None:
    with shop.transaction() as transaction:
        with transaction.open("closed") as file:
            file.write(b"closed")
        held = transaction.open("open")
        held.write(b"of the parent")
        child = os.fork()
        if child == 0:
            failed = 0
            for end in (lambda: held.write(bytes(2 * MIB)), held.close, transaction.commit):
                try:
                    end()
                except (OSError, TransactionError):
                    failed += 1
            transaction.__exit__(ValueError, ValueError(), None)
            os._exit(failed)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        held.close()
    assert (shop.read("closed"), shop.read("open")) == (b"closed", b"of the parent")
    assert shop.waiting() == []


def test_a_dead_writers_children_do_not_hold_its_transaction(shop: Shop) -> None:
    read, write = os.pipe()
    writer = os.fork()
    if writer == 0:
        with shop.transaction().open("a") as file:
            file.write(b"1")
        if os.fork() == 0:  # a loader's worker, say, that outlives it
            os.close(write)
            os.read(read, 1)
        os._exit(0)
    os.close(read)
    os.waitpid(writer, 0)
    (kept,) = kept_writes(shop.settings)
    assert kept.state == "unfinished"
    resume_write(kept.id, shop.settings)
    os.close(write)
    assert shop.paths() == ["a"]


def test_text_that_is_never_closed_is_thrown_away_too(shop: Shop) -> None:
    held = [ds.open("ds://ckpt@runs/text", "w")]
    held[0].write("half")
    with pytest.warns(ResourceWarning, match="text was never closed"):
        held.clear()
    with pytest.raises(LookupError, match="no-such-encoding"):
        ds.open("ds://ckpt@runs/text", "w", encoding="no-such-encoding")
    assert shop.dataset.repository.head("runs") is None
    assert shop.waiting() == []


def test_the_first_branch_has_the_name_that_was_meant(shop: Shop) -> None:
    with ds.open("ds://ckpt@refs%2Fheads%2Fexp%2Fa/x", "wb") as file:
        file.write(b"1")
    assert list(shop.dataset.repository.branches()) == ["exp/a"]
    with ds.open("ds://ckpt@exp%2Fa/x") as file:
        assert file.read() == b"1"


def test_open_files_cannot_be_file_and_directory_at_once(shop: Shop) -> None:
    first, second = shop.transaction(), shop.transaction()
    with first.open("a"):
        with pytest.raises(NotADirectoryError):
            first.open("a/b")
        with pytest.raises(FileExistsError):
            first.open("a", "xb")
    with first.open("c/d"), pytest.raises(IsADirectoryError):
        first.open("c")
    second.open("a/b").close()
    with pytest.raises(NotADirectoryError):
        first.take_over(second.hand_over())
    first.commit()
    assert shop.paths() == ["a", "c/d"]


def test_a_file_that_can_never_fit_in_fails_at_once(shop: Shop) -> None:
    narrow = with_variables(shop, FOREBAY_OUTBOX_LIMIT="8Mi")
    start = time.monotonic()
    with (
        narrow.transaction() as transaction,
        pytest.raises(OutboxFullError, match="never fits in"),
        transaction.open("large") as file,
    ):
        file.write(bytes(9 * MIB))
    assert time.monotonic() - start < 60
    for name, value in (("WAIT", "nan"), ("WAIT", "-1"), ("LIMIT", "0"), ("LIMIT", "much")):
        with pytest.raises(UsageError, match="FOREBAY_OUTBOX_LIMIT or FOREBAY_OUTBOX_WAIT"):
            with_variables(shop, **{f"FOREBAY_OUTBOX_{name}": value}).transaction()


def test_a_file_whose_write_failed_is_not_committed_by_who_closes_it_all_the_same(shop: Shop) -> None:
    narrow = with_variables(shop, FOREBAY_OUTBOX_LIMIT="8Mi")
    with narrow.transaction() as transaction:
        file = transaction.open("torn")
        with pytest.raises(OutboxFullError):
            file.write(bytes(9 * MIB))
        with pytest.raises(TornFileError, match="torn was thrown away"):
            file.close()
    assert transaction.committed is None


def test_a_full_disk_at_any_moment_keeps_what_was_closed_and_lets_go(shop: Shop, small_disk: Path) -> None:
    small = with_variables(shop, FOREBAY_OUTBOX=str(small_disk / "outbox"))
    long = "long" * 1000  # a record of it does not fit into what is left of a journal's last page
    unfinished, conflicting = small.transaction(message=long), small.transaction()
    for path, transaction in (("kept", unfinished), (long, conflicting)):
        with transaction.open(path) as file:
            file.write(b"1")
    conflicting._delivery.finish()
    shop.write(long, b"2")
    half = small.transaction().open_alone(f"half/{long}", "wb")
    ballast = fill(small_disk)
    with pytest.raises(OutboxDiskError, match="No space left"):
        half.close()
    fill(small_disk)
    with pytest.raises(WritesKeptError, match=f"kept as {unfinished.id}: .*No space left"):
        unfinished.commit()
    fill(small_disk)
    with pytest.raises(WriteConflictError):
        conflicting._delivery.deliver()
    assert [kept.state for kept in kept_writes(small.settings)] == ["unfinished", "finished"]
    drop_write(conflicting.id, small.settings)
    ballast.unlink()
    resume_write(unfinished.id, small.settings)
    assert kept_writes(small.settings) == []


def test_what_cannot_be_read_hinders_nobody_and_can_be_dropped(shop: Shop) -> None:
    lost, foreign = shop.transaction(), shop.transaction()
    with lost.open("a") as file:
        file.write(bytes(100))
    journals = [shop.directory / "home" / "outbox" / "ckpt" / shop.dataset.repository.spec.id / each.id / "journal"
                for each in (lost, foreign)]  # fmt: skip
    for transaction in (lost, foreign):
        transaction._delivery._let_go()
    journals[0].write_bytes(b"")
    journals[1].unlink()
    journal = Journal(journals[1])
    journal.append({"format": 99})
    journal.append({"op": "from the future"})
    journal.close()
    (journals[0].parents[1] / "lost+found").mkdir()
    shop.write("b", b"1")
    assert [(kept.dataset, kept.state, kept.waiting_bytes) for kept in kept_writes(shop.settings)] == [
        ("ckpt", "unreadable", 100),
        ("ckpt", "unreadable", 0),
    ]
    with pytest.raises(TransactionError, match=f"cannot be read.*ds writes drop {lost.id}"):
        resume_write(lost.id, shop.settings)
    for transaction in (lost, foreign):
        drop_write(transaction.id, shop.settings)
    assert kept_writes(shop.settings) == []


def test_an_outbox_that_is_no_directory_is_named(shop: Shop) -> None:
    (shop.directory / "file").write_bytes(b"")
    wrong = with_variables(shop, FOREBAY_OUTBOX=str(shop.directory / "file"))
    with pytest.raises(OutboxDiskError, match=r"Not a directory; .*FOREBAY_OUTBOX"):
        wrong.transaction()


def test_one_write_that_cannot_be_resumed_hinders_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for path, transaction in [(path, shop.transaction()) for path in ("a", "b")]:
        with transaction.open(path) as file:
            file.write(b"1")
        transaction._delivery.finish()
        transaction._delivery._let_go()
    first, second = kept_writes(shop.settings)

    def resume(identity: str, *arguments: object, **options: bool) -> object:
        if identity == first.id:
            raise OutboxBusyError(identity, "lock")
        return resume_write(identity, shop.settings)

    monkeypatch.setattr("ds.commands.writing.resume_write", resume)
    assert run(["writes", "resume", "--all"]) == 1
    said = capsys.readouterr()
    assert second.id in said.out
    assert f"{first.id} is being written or sent" in said.err
    with caplog.at_level(logging.WARNING):
        shop.write("c", b"1")
    assert shop.paths() == ["a", "b", "c"]
    assert f"committed what a process had left id={first.id}" in caplog.text
