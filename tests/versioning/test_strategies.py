from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import (
    AUTHOR,
    applied,
    change_sets,
    entry,
    entry_maps,
    external,
    is_checkable,
    tiny_repository,
)
from versioning import (
    AttributesError,
    ChangeSet,
    CommitId,
    Driver,
    Entry,
    MergeConflictError,
    MergeOptions,
    Repository,
)
from versioning.patterns import path_regex
from versioning.strategies import ATTRIBUTES_PATH, STRATEGIES, Strategies, parse_attributes

if TYPE_CHECKING:
    from versioning.strategies import Strategy


def diverged(ours: ChangeSet, theirs: ChangeSet, *base: Entry) -> tuple[Repository, CommitId]:
    """A repository whose main has `ours` on top of `base`, and the commit that has `theirs`."""
    repository = tiny_repository()
    root = _commit(repository, "main", ChangeSet.of(base), None)
    repository.create_branch("other", root)
    _commit(repository, "main", ours, root)
    return repository, _commit(repository, "other", theirs, root)


def _commit(repository: Repository, branch: str, change: ChangeSet, base: CommitId | None) -> CommitId:
    return repository.commit_changes(branch, change, message="m", author=AUTHOR, base=base, allow_empty=True)


def merged(repository: Repository, theirs: CommitId, strategy: Strategy, *drivers: Driver) -> dict[str, Entry]:
    repository.merge(theirs, "main", author=AUTHOR, options=MergeOptions(strategy, drivers))
    return {each.path: each for each in repository.tree("main").entries()}


BASE = (entry("both", 1), entry("we/delete", 1), entry("they/delete", 1), entry("same", 1))


def _conflicting() -> tuple[Repository, CommitId]:
    return diverged(
        ChangeSet.of([entry("both", 2), entry("they/delete", 2), entry("ours", 1)], ["we/delete"]),
        ChangeSet.of([entry("both", 3), entry("we/delete", 3), entry("theirs", 1)], ["they/delete"]),
        *BASE,
    )


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("ours", {"both": 2, "they/delete": 2}),
        ("theirs", {"both": 3, "we/delete": 3}),
        ("union", {"both": 2, "both~theirs-": 3, "we/delete": 3, "they/delete": 2}),
    ],
)
def test_a_strategy_settles_every_kind_of_conflict(strategy: Strategy, expected: dict[str, int]) -> None:
    repository, theirs = _conflicting()
    found = merged(repository, theirs, strategy)
    oid = entry("x", 3).oid
    assert oid is not None
    wanted = {path + oid.hex()[:8] if path.endswith("-") else path: size for path, size in expected.items()}
    assert {path: each.size for path, each in found.items()} == {**wanted, "ours": 1, "theirs": 1, "same": 1}


def test_newest_takes_the_later_file_and_leaves_what_has_no_time() -> None:
    def at(path: str, content: int, time: int | None) -> Entry:
        return replace(entry(path, content), mtime_ns=time)

    repository, theirs = diverged(
        ChangeSet.of([at("a", 2, 20), at("b", 2, 10), at("same", 2, 5), at("unknown", 2, None)], ["gone"]),
        ChangeSet.of([at("a", 3, 10), at("b", 3, 20), at("same", 3, 5), at("unknown", 3, 7), at("gone", 3, 9)]),
        *(entry(path, 1) for path in ("a", "b", "same", "unknown", "gone")),
    )
    with pytest.raises(MergeConflictError) as raised:
        merged(repository, theirs, "newest")
    assert raised.value.conflicts["path"].to_pylist() == ["gone", "same", "unknown"]
    found = merged(repository, theirs, "newest", *(Driver(path, "ours") for path in ("gone", "same", "unknown")))
    assert {path: each.size for path, each in found.items()} == {"a": 2, "b": 3, "same": 2, "unknown": 2}


def test_of_the_drivers_the_last_that_fits_rules() -> None:
    repository, theirs = _conflicting()
    drivers = (Driver("*", "theirs"), Driver("we/**", "ours"))
    with pytest.raises(MergeConflictError, match="1 path changed on both sides: both"):
        merged(repository, theirs, "ours", *drivers, Driver("both", "manual"))
    found = merged(repository, theirs, "ours", *drivers)
    assert {path: each.size for path, each in found.items()} == {"both": 3, "ours": 1, "same": 1, "theirs": 1}


def test_union_keeps_both_only_where_the_name_is_free() -> None:
    oid = entry("x", 3).oid
    assert oid is not None
    taken = entry(f"a/b~theirs-{oid.hex()[:8]}.png", 9)
    repository, theirs = diverged(
        ChangeSet.of([entry("a/b.png", 2)]), ChangeSet.of([entry("a/b.png", 3)]), entry("a/b.png", 1), taken
    )
    with pytest.raises(MergeConflictError):
        merged(repository, theirs, "union")


def test_union_names_files_that_nobody_hashed_by_their_version() -> None:
    repository, theirs = diverged(ChangeSet.of([external("d.x/a", "1")]), ChangeSet.of([external("d.x/a", "2")]))
    found = merged(repository, theirs, "union")
    assert len(found) == 2
    assert sorted(found)[1].startswith("d.x/a~theirs-")


@settings(max_examples=40, deadline=None)
@given(st.data(), entry_maps(40), st.sampled_from(["ours", "theirs"]))
def test_ours_and_theirs_settle_everything_and_take_each_path_from_a_side(
    data: st.DataObject, base: dict[str, Entry], strategy: Strategy
) -> None:
    ours_change, theirs_change = data.draw(change_sets(base)), data.draw(change_sets(base))
    ours, theirs = applied(base, ours_change), applied(base, theirs_change)
    repository, commit = diverged(ours_change, theirs_change, *base.values())
    plan = repository.plan_merge(commit, repository.resolve("main"))
    found = merged(repository, commit, strategy)
    winner = ours if strategy == "ours" else theirs
    for path in plan.conflicts["path"].to_pylist():
        assert found.get(str(path)) == winner.get(str(path))
    assert all(each in (ours.get(path), theirs.get(path)) for path, each in found.items())
    assert is_checkable(found)


@settings(max_examples=40, deadline=None)
@given(st.data(), entry_maps(40))
def test_union_loses_no_content(data: st.DataObject, base: dict[str, Entry]) -> None:
    ours_change, theirs_change = data.draw(change_sets(base)), data.draw(change_sets(base))
    repository, commit = diverged(ours_change, theirs_change, *base.values())
    plan = repository.plan_merge(commit, repository.resolve("main"))
    found = merged(repository, commit, "union")
    contents = {each.oid for each in found.values()}
    for side in (plan.ours, plan.theirs):
        assert set(side["oid"].to_pylist()) <= contents
    assert is_checkable(found)


def _with_attributes(text: bytes, *, on: str) -> tuple[Repository, CommitId]:
    repository, theirs = _conflicting()
    with repository.transaction(on, message="attributes", author=AUTHOR) as transaction:
        transaction.add(ATTRIBUTES_PATH, text)
    return repository, repository.resolve("other") if on == "other" else theirs


def test_attributes_of_our_side_say_how_paths_are_merged() -> None:
    repository, theirs = _with_attributes(b"# how\n\n** merge=theirs\nboth merge=ours other=1\n", on="main")
    found = merged(repository, theirs, "manual")
    assert (found["both"].size, found["we/delete"].size, "they/delete" in found) == (2, 3, False)


def test_attributes_of_their_side_say_nothing() -> None:
    repository, theirs = _with_attributes(b"** merge=theirs\n", on="other")
    with pytest.raises(MergeConflictError):
        merged(repository, theirs, "manual")


def test_drivers_go_before_attributes_and_those_before_the_strategy() -> None:
    repository, theirs = _with_attributes(b"both merge=theirs\n", on="main")
    found = merged(repository, theirs, "ours", Driver("we", "theirs"))
    assert (found["both"].size, found["we/delete"].size, found["they/delete"].size) == (3, 3, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"alone", "line 1: expected PATTERN merge=STRATEGY"),
        (b"\n* merge=best", "line 2: no merge strategy 'best'"),
        (b"[z-a] merge=ours", "line 1: .* is no pattern"),
        (b"\xff merge=ours", "not UTF-8"),
    ],
)
def test_attributes_that_cannot_be_read_stop_the_merge(text: bytes, reason: str) -> None:
    repository, theirs = _with_attributes(text, on="main")
    head = repository.head("main")
    with pytest.raises(AttributesError, match=reason):
        merged(repository, theirs, "ours")
    assert repository.head("main") == head


def test_attributes_outside_of_the_repository_stop_the_merge() -> None:
    repository, theirs = _conflicting()
    _commit(repository, "main", ChangeSet.of([external(ATTRIBUTES_PATH, "1")]), repository.head("main"))
    with pytest.raises(AttributesError, match="outside of the repository"):
        merged(repository, theirs, "ours")


@given(st.binary(max_size=200))
def test_any_attributes_give_drivers_or_our_error(data: bytes) -> None:
    try:
        drivers = parse_attributes(data)
    except AttributesError:
        return
    Strategies(drivers=drivers).of(pa.array(["a/b", "c"]))


@pytest.mark.parametrize(
    ("pattern", "paths", "others"),
    [
        ("*.png", ["a.png", "x/y/a.png"], ["a.png2", "png"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("images/*.png", ["images/1.png"], ["x/images/1.png", "images/1/2.png"]),
        ("images/**/*.png", ["images/1.png", "images/1/2.png"], ["1.png"]),
        ("data/", ["data/1", "x/data/1"], ["database"]),
        ("[0-9]?", ["1a", "x/2b"], ["a1", "1/"]),
        ("[!a]", ["b", "x/c"], ["a"]),
        ("[]^]", ["]", "^"], ["a"]),
    ],
)
def test_patterns_are_those_of_gitattributes(pattern: str, paths: list[str], others: list[str]) -> None:
    strategies = Strategies(drivers=(Driver(pattern, "ours"),))
    found = dict(zip(paths + others, strategies.of(pa.array(paths + others)), strict=True))
    assert {path for path, how in found.items() if how == "ours"} == set(paths)


@given(st.text(alphabet="ab/*?[]!^-\\.", min_size=1, max_size=12))
def test_any_pattern_is_one_for_the_engine_that_matches(pattern: str) -> None:
    try:
        path_regex(pattern)
    except ValueError:
        return
    Strategies(drivers=(Driver(pattern, "ours"),)).of(pa.array(["a", "a/b", "b"]))


@pytest.mark.parametrize("text", ["ours", ":ours", "a:", "a:best", "[z-a]:ours"])
def test_a_driver_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(AttributesError):
        Driver.parse(text)


def test_every_strategy_can_be_named() -> None:
    assert [Driver.parse(f"a:b:{name}").strategy for name in STRATEGIES] == list(STRATEGIES)


@pytest.mark.parametrize("line", ['"a b" merge=theirs', "!*.png merge=theirs", "[attr]binary -merge"])
def test_lines_that_git_reads_otherwise_are_refused(line: str) -> None:
    with pytest.raises(AttributesError, match="line 1"):
        parse_attributes(line.encode())


def test_an_attribute_without_a_strategy_asks() -> None:
    drivers = parse_attributes(b"* merge=theirs\n*.png -merge\nlabels/\\*.csv merge=ours\n")
    assert list(Strategies(drivers=drivers).of(pa.array(["a", "b.png", "labels/*.csv", "labels/x.csv"]))) == [
        "theirs",
        "manual",
        "ours",
        "theirs",
    ]
