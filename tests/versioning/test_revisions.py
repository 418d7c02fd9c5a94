from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, entry, tiny_repository
from versioning import AmbiguousRevisionError, ChangeSet, CommitId, Repository, RevisionNotFoundError, VersioningError


@pytest.fixture(name="history", scope="module")
def _history() -> tuple[Repository, list[CommitId]]:
    repository = tiny_repository()
    made: list[CommitId] = []
    for number in range(3):
        change = ChangeSet.of([entry(f"{number}")])
        base = made[-1] if made else None
        made.append(repository.commit_changes("main", change, message="", author=AUTHOR, base=base))
    repository.create_branch("side/one", made[1])
    side = repository.commit_changes("side/one", ChangeSet.of([entry("s")]), message="", author=AUTHOR, base=made[1])
    made.extend((side, repository.merge(side, "main", author=AUTHOR).commit))
    repository.create_tag("v1", made[0])
    return repository, made


@pytest.mark.parametrize(
    ("revision", "index"),
    [
        ("main", 4),
        ("refs/heads/main", 4),
        ("v1", 0),
        ("refs/tags/v1", 0),
        ("side/one", 3),
        ("main~", 2),
        ("main^", 2),
        ("main^2", 3),
        ("main^2~1", 1),
        ("main~3", 0),
        ("main^^^", 0),
        ("main~0^0", 4),
    ],
)
def test_a_revision_names_its_commit(history: tuple[Repository, list[CommitId]], revision: str, index: int) -> None:
    repository, made = history
    assert repository.resolve(revision) == made[index]


def test_an_id_may_be_shortened_to_four_digits(history: tuple[Repository, list[CommitId]]) -> None:
    repository, made = history
    assert repository.resolve(made[2]) == made[2]
    assert repository.resolve(made[2][:12]) == made[2]
    assert repository.resolve(made[2][:12] + "~1") == made[1]
    with pytest.raises(RevisionNotFoundError):
        repository.resolve(made[2][:3])


def test_a_prefix_of_several_commits_is_refused(history: tuple[Repository, list[CommitId]]) -> None:
    repository, made = history
    twin = made[0][:60] + ("0000" if not made[0].endswith("0000") else "1111")
    repository.store.put(f"repo/commits/{twin[:2]}/{twin}.json", b"")
    with pytest.raises(AmbiguousRevisionError, match="several commits start with it"):
        repository.resolve(made[0][:8])
    repository.store.delete(f"repo/commits/{twin[:2]}/{twin}.json")


@pytest.mark.parametrize("revision", ["main~4", "main^3", "v1^", "absent", "", "~", "^1", "main~x", "f" * 64, "dead"])
def test_what_is_not_there_is_not_found(history: tuple[Repository, list[CommitId]], revision: str) -> None:
    with pytest.raises(RevisionNotFoundError):
        history[0].resolve(revision)


def test_a_misspelt_name_is_answered_with_near_ones(history: tuple[Repository, list[CommitId]]) -> None:
    with pytest.raises(RevisionNotFoundError, match=r"did you mean main\?"):
        history[0].resolve("mian")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_revision_or_refused(history: tuple[Repository, list[CommitId]], revision: str) -> None:
    with suppress(VersioningError):
        assert history[0].resolve(revision) in history[1]
