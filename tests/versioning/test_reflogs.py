from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.versioning.samples import AUTHOR, TINY, entry, tiny_repository
from versioning import ChangeSet, CommitId, Repository, RevisionNotFoundError
from versioning.moments import parse_moment

NOW = datetime(2026, 2, 10, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="repository")
def _repository(clock: Clock) -> Repository:
    return Repository(tiny_repository().store, "repo/", TINY, clock=clock)


def _commit_daily(repository: Repository, clock: Clock, days: int) -> list[CommitId]:
    """One commit at noon of each day of January 2026."""
    made: list[CommitId] = []
    for day in range(1, days + 1):
        clock.now = datetime(2026, 1, day, 12, tzinfo=UTC)
        change = ChangeSet.of([entry(f"{day}")])
        made.append(
            repository.commit_changes("main", change, message="", author=AUTHOR, base=made[-1] if made else None)
        )
    return made


def test_a_branch_is_found_as_it_was_some_moves_ago(repository: Repository, clock: Clock) -> None:
    made = _commit_daily(repository, clock, 5)
    for back, identity in enumerate(reversed(made)):
        assert repository.resolve(f"main@{{{back}}}") == identity
    assert repository.resolve("main@{1}~1") == made[-3]
    with pytest.raises(RevisionNotFoundError, match="it has moved 5 times only"):
        repository.resolve("main@{5}")


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-01-03", 2),  # its first moment
        ("2026-01-03T12:00:00Z", 3),
        ("2026-01-03 12:30", 3),
        ("2026-01-03T13:00:00+02:00", 2),
        ("3 days ago", 7),
        ("3.days.ago", 7),
        ("yesterday", 9),
        ("1 week ago", 3),
        ("now", 10),
        ("2030-01-01", 10),
    ],
)
def test_a_branch_is_found_as_it_was_at_a_moment(repository: Repository, clock: Clock, when: str, day: int) -> None:
    made = _commit_daily(repository, clock, 10)
    assert repository.resolve(f"main@{{{when}}}") == made[day - 1]


def test_before_its_first_commit_a_branch_names_nothing(repository: Repository, clock: Clock) -> None:
    _commit_daily(repository, clock, 2)
    with pytest.raises(RevisionNotFoundError, match="the log of main has no commit there"):
        repository.resolve("main@{2025-12-31}")


def test_while_it_was_deleted_a_branch_names_nothing(repository: Repository, clock: Clock) -> None:
    (_, second) = _commit_daily(repository, clock, 2)
    clock.now = datetime(2026, 1, 3, tzinfo=UTC)
    repository.delete_branch("main")
    assert repository.resolve("main@{2026-01-02 13:00}") == repository.resolve("main@{1}") == second
    with pytest.raises(RevisionNotFoundError):
        repository.resolve("main@{2026-01-03 13:00}")
    with pytest.raises(RevisionNotFoundError):
        repository.resolve("main@{0}")


@pytest.mark.parametrize("lost", [2, 3, 5])
def test_a_lost_entry_of_the_log_is_told_by_the_next(repository: Repository, clock: Clock, lost: int) -> None:
    made = _commit_daily(repository, clock, 5)
    repository.store.delete(f"repo/logs/heads/main/{lost:020d}")
    assert [repository.resolve(f"main@{{{back}}}") for back in range(5)] == made[::-1]


@pytest.mark.parametrize("text", ["main@{}", "main@{soon}", "main@{2026-13-01}", "main@{-1}", "none@{1}", "a b@{1}"])
def test_what_names_no_moment_is_refused(repository: Repository, clock: Clock, text: str) -> None:
    _commit_daily(repository, clock, 1)
    with pytest.raises(RevisionNotFoundError):
        repository.resolve(text)


@pytest.mark.parametrize("text", ["999999 weeks ago", "x", "", "20", "2026", "yesterday!", "1 fortnight ago"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert parse_moment(text, now=NOW) is None


def test_moments_are_utc() -> None:
    assert parse_moment("20260131", now=NOW) == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_moment("2 hours ago", now=NOW) == NOW - timedelta(hours=2)
