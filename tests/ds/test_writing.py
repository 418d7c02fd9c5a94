from __future__ import annotations

import io
import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import ds
from cache_runtime import OutboxBusyError, OutboxFullError, ParcelNotFoundError
from ds.errors import ReadOnlyRevisionError, TransactionError, WriteConflictError, WriteModeError, WritesKeptError
from ds.replaying import drop_write, kept_writes, resume_write
from tests.ds.shop import Shop
from versioning import InvalidNameError, RevisionNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


def test_a_file_is_committed_when_it_is_closed(shop: Shop) -> None:
    with ds.open("ds://ckpt@runs/step-1/model.pt", "wb") as file:
        file.write(b"weights")
        assert shop.dataset.repository.head("runs") is None
    with ds.open("ds://ckpt@runs/step-1/model.pt") as written:
        assert written.read() == b"weights"
    with ds.open("ds://ckpt@runs/notes.txt", "w", newline="\r\n") as text:
        text.write("größer\n")
    with ds.open("ds://ckpt@runs/notes.txt", "r", newline="") as text:
        assert text.read() == "größer\r\n"
    log = [commit for _, commit in shop.dataset.repository.log("runs")]
    assert [commit.message for commit in log] == ["Write notes.txt", "Write step-1/model.pt"]
    assert log[0].author == "ada@example.org"
    assert shop.waiting() == []


def test_a_transaction_is_one_commit_and_invisible_before_it(shop: Shop) -> None:
    shop.write("old", b"old")
    large = os.urandom(20 * MIB)
    with shop.transaction(message="step 2") as transaction:
        with transaction.open("a/large.bin") as file:
            file.write(large[: 7 * MIB])
            file.write(large[7 * MIB :])
        for number in range(5):
            with transaction.open(f"a/{number}") as file:
                file.write(b"x" * number)
        transaction.remove("old")
        transaction.copy("a/4", "b/again")
        with transaction.open("a/large.bin", "rb") as file:
            assert file.read() == large
        assert [info.path for info in transaction.view.listdir("")] == ["a", "b"]
        assert shop.paths() == ["old"]
    assert shop.paths() == ["a/0", "a/1", "a/2", "a/3", "a/4", "a/large.bin", "b/again"]
    assert shop.read("a/large.bin") == large
    assert shop.read("b/again") == b"xxxx"
    (commit_id, commit), _ = shop.dataset.repository.log("runs")
    assert commit_id == transaction.committed
    assert (commit.message, commit.stats.added, commit.stats.deleted) == ("step 2", 7, 1)
    entry = shop.dataset.tree("runs").get("a/large.bin")
    assert entry is not None
    assert (str(entry.kind), entry.size) == ("blob", 20 * MIB)


def fail_writing(opened: Any, write: Callable[[Any], object]) -> None:
    """Write, and run into an error before the end of the block."""
    with suppress(ZeroDivisionError), opened:
        write(opened)
        raise ZeroDivisionError


def test_an_error_inside_commits_nothing_and_leaves_nothing(shop: Shop) -> None:
    shop.write("kept", b"kept")
    fail_writing(shop.transaction(), lambda transaction: transaction.open("a").close())
    fail_writing(ds.open("ds://ckpt@runs/b", "wb"), lambda file: file.write(b"half"))
    fail_writing(ds.open("ds://ckpt@runs/b", "w"), lambda file: file.write("half"))
    with shop.transaction() as transaction:
        fail_writing(transaction.open("c"), lambda file: file.write(b"half"))
        with transaction.open("d") as file:
            file.write(b"whole")
    assert shop.paths() == ["d", "kept"]
    assert shop.waiting() == []


def test_a_file_that_is_never_closed_is_thrown_away(shop: Shop) -> None:
    file = ds.open("ds://ckpt@main/lost", "wb")
    file.write(b"half")
    held = [file]
    del file
    with pytest.warns(ResourceWarning, match="never closed"):
        held.clear()
    assert shop.dataset.repository.head("main") is None
    assert shop.waiting() == []
    with pytest.raises(TransactionError, match="still open"), shop.transaction() as transaction:
        open_one = transaction.open("a")
    open_one.discard()
    transaction.discard()


def test_only_branches_can_be_written_to_and_only_whole_files(shop: Shop) -> None:
    shop.write("a/b", b"1")
    head = shop.dataset.resolve("runs")
    shop.dataset.repository.create_tag("v1", head)
    for revision, what in (("v1", "tag"), (head, "commit"), (head[:12], "commit"), ("runs~0", "commit")):
        with pytest.raises(ReadOnlyRevisionError, match=f"is a {what}, which never changes"):
            ds.open(f"ds://ckpt@{revision}/x", "wb")
    with pytest.raises(RevisionNotFoundError, match=r"runz.*did you mean runs"):
        ds.open("ds://ckpt@runz/x", "wb")
    for mode in ("ab", "r+b", "wb+", "a", "nonsense"):
        with pytest.raises(WriteModeError, match="written whole"):
            ds.open("ds://ckpt@runs/a/b", mode)
    with pytest.raises(FileExistsError):
        ds.open("ds://ckpt@runs/a/b", "xb")
    with pytest.raises(IsADirectoryError):
        ds.open("ds://ckpt@runs/a", "wb")
    with pytest.raises(NotADirectoryError):
        ds.open("ds://ckpt@runs/a/b/c", "wb")
    with pytest.raises(InvalidNameError):
        ds.open("ds://ckpt@runs/a/../b", "wb")
    with shop.transaction() as transaction, pytest.raises(FileNotFoundError):
        transaction.remove("nothing")
    assert shop.waiting() == []


def test_the_first_of_two_writers_wins_and_the_other_is_kept(shop: Shop) -> None:
    shop.write("shared", b"0")
    slow = shop.transaction()
    with slow.open("shared") as file:
        file.write(b"slow")
    shop.write("shared", b"fast")
    shop.write("other", b"no conflict")
    with pytest.raises(WriteConflictError, match=f"shared changed on runs .* kept as {slow.id}"):
        slow.commit()
    (kept,) = kept_writes(shop.settings)
    assert (kept.id, kept.state, kept.reason, kept.files, kept.waiting_bytes) == (slow.id, "conflict", "shared", 1, 4)
    shop.write("third", b"does not try it again")
    assert shop.read("shared") == b"fast"
    with pytest.raises(WriteConflictError):
        resume_write(slow.id, shop.settings)
    assert resume_write(slow.id, shop.settings, overwrite=True) == ("runs", shop.dataset.resolve("runs"))
    assert shop.read("shared") == b"slow"
    assert shop.paths() == ["other", "shared", "third"]
    assert shop.waiting() == []


def test_a_repository_that_is_away_keeps_everything_for_the_next_write(shop: Shop) -> None:
    shop.write("first", b"1")
    repo, away = shop.directory / "repo", shop.directory / "away"
    transaction = shop.transaction()
    with transaction.open("second") as file:
        file.write(b"2")
    repo.rename(away)
    repo.write_bytes(b"no directory any more")
    with pytest.raises(WritesKeptError, match=f"kept as {transaction.id}") as failed:
        transaction.commit()
    assert isinstance(failed.value, OSError)
    with pytest.raises(TransactionError, match="is over"):
        transaction.open("more")
    (kept,) = kept_writes(shop.settings)
    assert kept.state == "finished"
    repo.unlink()
    away.rename(repo)
    shop.write("third", b"3")
    assert shop.paths() == ["first", "second", "third"]
    assert kept_writes(shop.settings) == []


def test_what_a_process_left_unfinished_is_never_committed_on_its_own(shop: Shop) -> None:
    child = os.fork()
    if child == 0:
        transaction = shop.transaction()
        with transaction.open("closed") as file:
            file.write(b"closed")
        transaction.open("open").write(b"x" * MIB)
        os._exit(0)
    os.waitpid(child, 0)
    shop.write("later", b"later")
    assert shop.paths() == ["later"]
    (kept,) = kept_writes(shop.settings)
    assert (kept.state, kept.files) == ("unfinished", 1)
    resume_write(kept.id, shop.settings)
    assert shop.paths() == ["closed", "later"]
    assert shop.waiting() == []


def test_a_running_transaction_is_left_alone(shop: Shop) -> None:
    with shop.transaction() as transaction:
        with transaction.open("a") as file:
            file.write(b"1")
        (kept,) = kept_writes(shop.settings)
        assert kept.state == "running"
        for touch in (lambda: resume_write(kept.id, shop.settings), lambda: drop_write(kept.id, shop.settings)):
            with pytest.raises(OutboxBusyError):
                touch()
    for touch in (lambda: resume_write(kept.id, shop.settings), lambda: drop_write("../x", shop.settings)):
        with pytest.raises(ParcelNotFoundError):
            touch()


def test_local_bytes_that_rotted_are_never_committed(shop: Shop) -> None:
    child = os.fork()
    if child == 0:
        transaction = shop.transaction()
        for path, size in (("small", 100), ("large", 17 * MIB)):
            with transaction.open(path) as file:
                file.write(bytes(size))
        transaction._delivery._uploader.stop()
        os._exit(0)
    os.waitpid(child, 0)
    (kept,) = kept_writes(shop.settings)
    local = next((shop.directory / "home" / "outbox").glob(f"*/*/{kept.id}/0"))
    local.write_bytes(b"\1" * 100)
    with pytest.raises(WritesKeptError, match="changed on the disk"):
        resume_write(kept.id, shop.settings)
    assert shop.dataset.repository.head("runs") is None
    drop_write(kept.id, shop.settings)
    assert shop.waiting() == []


def test_writers_wait_for_room_and_fail_when_there_is_none(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    narrow = Shop(shop.directory, {**shop.environment, "FOREBAY_OUTBOX_LIMIT": "40Mi", "FOREBAY_OUTBOX_WAIT": "30"})
    with narrow.transaction() as transaction:
        for number in range(6):  # 102 MiB go through 40
            with transaction.open(f"{number}") as file:
                for _ in range(17):
                    file.write(bytes([number]) * MIB)
    assert [narrow.read(f"{number}") == bytes([number]) * (17 * MIB) for number in range(6)] == [True] * 6
    hasty = Shop(shop.directory, {**shop.environment, "FOREBAY_OUTBOX_LIMIT": "8Mi", "FOREBAY_OUTBOX_WAIT": "0.3"})
    with hasty.transaction() as transaction:
        with transaction.open("fits") as file:
            file.write(b"fits")
        with (
            pytest.raises(OutboxFullError, match=r"no room for 0\.3 s"),
            transaction.open("too large") as file,
        ):
            file.write(bytes(9 * MIB))
    assert "a write waits for uploads" in caplog.text
    assert hasty.paths() == ["0", "1", "2", "3", "4", "5", "fits"]


def test_what_was_written_is_read_back_from_the_cache(shop: Shop) -> None:
    large, small = os.urandom(18 * MIB), os.urandom(3 * MIB)
    with shop.transaction() as transaction:
        for path, data in (("large", large), ("small", small), ("tiny", b"t")):
            with transaction.open(path) as file:
                file.write(data)
    reader = shop.dataset
    before = reader.client.stats.snapshot()
    for path, data in (("large", large), ("small", small), ("tiny", b"t")):
        with reader.open(path, "runs") as file:
            assert file.read() == data
    assert (reader.client.stats.snapshot() - before).bytes_origin == 0


def test_files_may_be_written_from_many_threads(shop: Shop) -> None:
    with shop.transaction() as transaction:

        def write(worker: int) -> None:
            for number in range(20):
                with transaction.open(f"{worker}/{number}") as file:
                    file.write(f"{worker} {number}".encode())

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(shop.paths()) == 120
    assert shop.read("5/19") == b"5 19"


def test_a_file_may_be_written_out_of_order(shop: Shop) -> None:
    with ds.open("ds://ckpt@runs/seek", "wb") as file:
        file.write(b"____world")
        file.seek(0)
        file.write(b"hell")
        assert file.tell() == 4
        file.seek(0, io.SEEK_END)
        file.write(b"!!")
        file.truncate(10)
        os.fsync(file.fileno())
    assert shop.read("seek") == b"hellworld!"


def test_several_processes_make_one_commit_together(shop: Shop) -> None:
    first, second = shop.transaction(message="both ranks"), shop.transaction()
    for rank, transaction in enumerate((first, second)):
        with transaction.open(f"rank-{rank}") as file:
            file.write(b"%d" % rank)
    part = second.hand_over()
    json.loads(part)
    with pytest.raises(TransactionError, match="is over"):
        second.open("more")
    first.take_over(part)
    with pytest.raises(TransactionError, match="no part"):
        first.take_over("{}")
    first.commit()
    assert shop.read("rank-0") + shop.read("rank-1") == b"01"
    assert len(list(shop.dataset.repository.log("runs"))) == 1
    assert shop.waiting() == []


def test_a_transaction_belongs_to_its_process(shop: Shop) -> None:
    with shop.transaction() as transaction:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                transaction.open("a")
            except TransactionError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"belongs to process" in os.read(read, 1000)
        os.close(read)
        os.close(write)


def test_a_transaction_without_changes_commits_nothing(shop: Shop) -> None:
    with shop.transaction() as transaction:
        pass
    assert transaction.committed is None
    assert shop.dataset.repository.head("runs") is None
    assert shop.waiting() == []


def test_the_commands_list_resume_and_drop(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ds.application import run

    def said(*arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert said("writes") == (0, "nothing waits to be committed\n")
    for path in ("a", "b"):
        child = os.fork()
        if child == 0:
            transaction = shop.transaction()
            with transaction.open(path) as file:
                file.write(b"x" * 2048)
            os._exit(0)
        os.waitpid(child, 0)
    first, second = kept_writes(shop.settings)
    code, listed = said("writes")
    assert code == 0
    assert [line.split()[:4] for line in listed.splitlines()[1:]] == [
        [first.id, "ckpt@runs", "unfinished", "1"],
        [second.id, "ckpt@runs", "unfinished", "1"],
    ]
    data: list[dict[str, Any]] = json.loads(said("writes", "list", "--json")[1])["data"]
    assert [item["waiting_bytes"] for item in data] == [2048, 2048]
    assert said("writes", "resume")[0] == 2
    assert said("writes", "resume", "--all") == (0, "")
    code, text = said("writes", "resume", first.id)
    assert (code, text.split()[0]) == (0, "[runs")
    assert said("writes", "drop", second.id) == (0, f"{second.id} is gone\n")
    code, text = said("writes", "drop", second.id)
    assert (code, "no write" in text) == (3, True)
    assert shop.paths() == ["a"]


def test_a_write_takes_milliseconds_not_seconds(shop: Shop) -> None:
    start = time.monotonic()
    for number in range(5):
        shop.write(f"{number}", b"x")
    assert time.monotonic() - start < 10
