from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sources import FileStore, ObjectStat, SourceNotFoundError, SourceUnavailableError, Version
from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, CrashError, make_repository, packed, reopened
from tests.versioning.samples import AUTHOR, TINY, external
from versioning import ChangeSet, Repository, add_files
from versioning.errors import CorruptRepositoryError
from versioning.maintenance import CheckOptions, CheckReport, FindingKind, check_repository, collect_garbage
from versioning.nodes import NodeId, decode_node

if TYPE_CHECKING:
    from pathlib import Path

DEEP = CheckOptions(deep=True)


@pytest.fixture
def store() -> ClockedStore:
    return ClockedStore(Clock())


@pytest.fixture
def repository(store: ClockedStore) -> Repository:
    """Three commits, a tag, a second branch; packs and external objects."""
    repository = make_repository(store)
    base = None
    for number in range(3):
        entries = packed(repository, {f"{number}/{each:02d}": b"%d %d" % (number, each) for each in range(30)})
        change = ChangeSet.of([*entries, external(f"x/{number}", f"etag:{number}")])
        base = repository.commit_changes("main", change, message="", author=AUTHOR, base=base)
    repository.create_tag("v1", repository.resolve("main~1"))
    repository.create_branch("side", repository.resolve("main"))
    store.quiet()
    return reopened(store)


def kinds(report: CheckReport) -> set[tuple[FindingKind, str]]:
    return {(each.kind, each.object) for each in report.findings}


def flipped(name: str, data: bytes) -> bytes:
    """Return an object with one bit flipped; of a node one that matters: Parquet has some that nobody reads."""
    for at in range(len(data) // 3, len(data)):
        damaged = data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]
        try:
            if name.startswith("trees/"):
                decode_node(damaged, NodeId(bytes.fromhex(name[-72:-8])), key=name)
                continue
        except CorruptRepositoryError:
            pass
        return damaged
    raise AssertionError(f"no bit of {name} matters")


def test_a_whole_repository_has_no_findings(repository: Repository) -> None:
    report = check_repository(repository, DEEP)
    assert (report.found, report.refs, report.commits, report.objects) == (0, 3, 3, 3)
    assert report.bytes_read > 3 * 30 * 512
    assert report.nodes > 10


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damage_to_any_object_is_found_and_says_who_needs_it(
    repository: Repository, store: ClockedStore, damage: str
) -> None:
    for key in sorted(store.objects):
        name = key.removeprefix("repo/")
        if not name.startswith(("trees/", "commits/", "packs/", "refs/", "logs/")):
            continue
        if damage == "missing" and name.startswith(("refs/", "logs/")):
            continue  # such a ref never was
        data = store.objects[key]
        if damage == "missing":
            del store.objects[key]
        elif damage == "cut":
            store.objects[key] = data[: len(data) // 2]
        else:
            store.objects[key] = flipped(name, data)
        report = check_repository(reopened(store), DEEP)
        found = {each.object: each for each in report.findings}
        assert name in found, (name, report.findings)
        if not name.startswith(("refs/", "logs/")):
            assert found[name].ref.startswith("refs/")
            assert len(found[name].commit) == 64
        if name.startswith("packs/"):
            assert found[name].path
        assert found[name].next_step
        store.objects[key] = data
    assert check_repository(reopened(store), DEEP).found == 0


def test_the_fast_check_finds_packs_that_are_gone_or_cut_without_a_request_for_each(
    repository: Repository, store: ClockedStore
) -> None:
    packs = sorted(key for key in store.objects if "/packs/" in key)
    store.quiet()
    check_repository(repository)
    assert not [call for call in store.calls if "/packs/" in call[1] and call[0] != "list"]
    del store.objects[packs[0]]
    store.objects[packs[1]] = store.objects[packs[1]][:-1]
    assert kinds(check_repository(reopened(store))) == {
        (FindingKind.MISSING, packs[0][5:]),
        (FindingKind.WRONG_SIZE, packs[1][5:]),
    }


def test_rows_that_cannot_be_are_found(store: ClockedStore) -> None:
    from dataclasses import replace

    repository = make_repository(store)
    (first, second, third) = packed(repository, {"a": b"a", "b": b"b", "c": b"c"})
    wrong = [
        replace(first, offset=10**6),
        replace(second, key="packs/../x"),
        replace(third, oid=bytes(32)),
    ]
    repository.commit_changes("main", ChangeSet.of(wrong), message="", author=AUTHOR, base=None)
    found = check_repository(reopened(store), DEEP).findings
    assert {(each.kind, each.path) for each in found} == {
        (FindingKind.INCONSISTENT, "a"),
        (FindingKind.INCONSISTENT, "b"),
        (FindingKind.DAMAGED, "a"),
    }


def test_a_journal_saves_what_was_good_and_survives_damage(
    repository: Repository, store: ClockedStore, tmp_path: Path
) -> None:
    options = CheckOptions(deep=True, journal=tmp_path / "journal")
    first = check_repository(reopened(store), options)
    again = check_repository(reopened(store), options)
    assert (first.skipped_leaves, again.bytes_read, again.found) == (0, 0, 0)
    assert again.skipped_leaves > 5
    os.truncate(tmp_path / "journal", (tmp_path / "journal").stat().st_size // 2)
    assert 0 < check_repository(reopened(store), options).bytes_read <= first.bytes_read
    (tmp_path / "journal").write_bytes(b"nonsense")
    assert check_repository(reopened(store), options).bytes_read == first.bytes_read
    pack = next(key for key in store.objects if "/packs/" in key)
    store.objects[pack] = bytes(len(store.objects[pack]))
    assert check_repository(reopened(store), options).found == 0  # known to be good
    assert check_repository(reopened(store), DEEP).found == 1


def test_a_check_that_was_broken_off_goes_on(repository: Repository, store: ClockedStore, tmp_path: Path) -> None:
    options = CheckOptions(deep=True, journal=tmp_path / "journal")
    whole = check_repository(reopened(store), DEEP)
    store.quiet()
    check_repository(reopened(store), DEEP)
    store.crash_at(store.requests - 2)
    with pytest.raises(CrashError):
        check_repository(reopened(store), options)
    store.quiet()
    report = check_repository(reopened(store), options)
    assert report.found == 0
    assert report.skipped_leaves > 0
    assert report.bytes_read < whole.bytes_read


def test_what_drifted_at_its_source_is_a_finding(repository: Repository) -> None:
    def stat(store: str, key: str) -> ObjectStat:
        assert store == "s3://b"
        if key == "x/0":
            raise SourceNotFoundError("s3://b/x/0")
        if key == "x/1":
            raise SourceUnavailableError("no answer")
        return ObjectStat(key, 1, Version("etag:9"))

    report = check_repository(repository, CheckOptions(external=stat))
    assert report.external_objects == 3
    assert kinds(report) == {
        (FindingKind.DRIFTED, "s3://b/x/0"),
        (FindingKind.UNREACHABLE_SOURCE, "s3://b/x/1"),
        (FindingKind.DRIFTED, "s3://b/x/2"),
    }


def test_a_directory_with_blobs_is_checked(tmp_path: Path) -> None:
    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/repo/"[1:], spec=TINY)
    for name, size in (("large", 5000), ("small", 10)):
        (tmp_path / name).write_bytes(bytes(size))
    files = [(name, tmp_path / name) for name in ("large", "small")]
    change = add_files(repository, files, blob_size=1000)
    repository.commit_changes("main", change, message="", author=AUTHOR, base=None)
    assert check_repository(repository, DEEP).found == 0
    (blob,) = (each for each in (tmp_path / "repo/blobs").rglob("*") if each.is_file())
    data = bytearray(blob.read_bytes())
    data[2500] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    assert [each.kind for each in check_repository(repository, DEEP).findings] == [FindingKind.DAMAGED]
    assert check_repository(repository).found == 0  # fast: the size is right


def test_a_check_writes_nothing(repository: Repository, store: ClockedStore) -> None:
    store.clock.sleep(DAY)
    store.quiet()
    check_repository(repository, DEEP)
    assert {method for method, _ in store.calls} <= {"list", "stat", "fetch", "read"}


def test_a_generation_that_its_parents_do_not_give_is_found(repository: Repository, store: ClockedStore) -> None:
    from dataclasses import replace

    head = repository.resolve("main")
    wrong = repository.commits.write(replace(repository.commit(head), parents=(head,)))
    repository.move_branch("main", wrong, force=True)
    assert [each.kind for each in check_repository(reopened(store)).findings] == [FindingKind.INCONSISTENT]
    assert "by its parents it is 4" in check_repository(reopened(store)).findings[0].detail


def test_lines_that_a_log_lacks_are_counted_and_no_finding(repository: Repository, store: ClockedStore) -> None:
    del store.objects["repo/logs/heads/main/00000000000000000002"]
    report = check_repository(reopened(store))
    assert (report.found, report.log_gaps) == (0, 1)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_what_went_missing_since_is_found_although_the_journal_knows_its_leaves(
    repository: Repository, store: ClockedStore, tmp_path: Path, damage: str
) -> None:
    options = CheckOptions(journal=tmp_path / "journal")
    check_repository(reopened(store), options)
    assert check_repository(reopened(store), options).skipped_leaves > 0
    pack = next(key for key in store.objects if "/packs/" in key)
    data = store.objects[pack]
    if damage == "missing":
        del store.objects[pack]
    else:
        store.objects[pack] = data[:-1]
    for _ in range(2):
        assert check_repository(reopened(store), options).found == 1
    store.objects[pack] = data
    assert check_repository(reopened(store), options).found == 0
    report = check_repository(reopened(store), options)
    assert (report.found, report.skipped_leaves > 0) == (0, True)


def test_a_journal_outlives_a_collection(repository: Repository, store: ClockedStore, tmp_path: Path) -> None:
    options = CheckOptions(journal=tmp_path / "journal")
    entries = packed(repository, {"lost": b"lost"})
    repository.commit_changes(
        "lost", ChangeSet.of(entries), message="", author=AUTHOR, base=repository.resolve("main~2")
    )
    check_repository(reopened(store), options)
    repository.delete_branch("lost")
    for _ in range(3):
        store.clock.sleep(8 * DAY)
        collect_garbage(reopened(store))
    report = check_repository(reopened(store), options)
    assert (report.found, report.skipped_leaves) == (0, 0)
    assert check_repository(reopened(store), options).skipped_leaves > 0
