"""A repository against dictionaries; `FOREBAY_DEEP=1` runs many more and longer histories."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.versioning.samples import (
    AUTHOR,
    TINY,
    applied,
    built,
    change_sets,
    entry,
    is_checkable,
    tiny_nodes,
    tiny_repository,
)
from tests.versioning.stores import MemoryStore
from versioning import (
    ChangeSet,
    CommitId,
    ConflictError,
    Entry,
    MergeConflictError,
    MergeOptions,
    NothingToCommitError,
    ProtectedBranchError,
    RefExistsError,
    Repository,
)
from versioning.committing import changes_of
from versioning.errors import ExpiredCommitError, HistoryCutError
from versioning.maintenance import ExpirePolicy, check_repository, collect_garbage, expire_history
from versioning.maintenance.marking import Marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from sources import ObjectStat, Version
    from versioning.strategies import Strategy

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
DAY = 86_400
NAMES = ("main", "side", "third")
Model = dict[str, Entry]


class InterleavedStore(MemoryStore):
    """Lets another one act right before the next change of a branch; tells when objects were written."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__()
        self.other: Callable[[], None] | None = None
        self.clock = clock
        self.times: dict[str, int] = {}

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return iter([self.stat(key) for key in sorted(self.objects) if key.startswith(prefix)])

    def stat(self, key: str) -> ObjectStat:
        return replace(super().stat(key), mtime_ns=self.times.get(key))

    def put(self, key: str, data: Buffer) -> None:
        self.times[key] = self._now()
        super().put(key, data)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        if self.other is not None and "refs/heads/" in key:
            other, self.other = self.other, None
            other()
        version = super().swap(key, data, expect=expect)
        self.times[key] = self._now()
        return version

    def _now(self) -> int:
        return int(self.clock().timestamp()) * 10**9


def unless_cut(rule_: Callable[..., None]) -> Callable[..., None]:
    """Let a rule end early if it asks for what was expired; the branches must be as before then."""

    @functools.wraps(rule_)
    def run(machine: RepositoryMachine, **drawn: Any) -> None:
        try:
            rule_(machine, **drawn)
        except (ExpiredCommitError, HistoryCutError):
            assert machine.has_expired

    return run


class RepositoryMachine(RuleBasedStateMachine):
    """A repository must do what dictionaries of paths do, one per commit, and a dictionary of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0
        self.store = InterleavedStore(self._clock)
        tiny_repository(self.store)
        self.reopen()
        self.protected: set[str] = set()
        self.rivals = 0
        self.has_expired = False
        self.versions: dict[CommitId, Model] = {}
        self.branches: dict[str, CommitId] = {}
        self.tags: dict[str, CommitId] = {}

    @initialize(change=change_sets(max_size=60))
    def begin(self, change: ChangeSet) -> None:
        made = self._commit("main", change, None)
        self._note("main", made, applied({}, change))

    @rule(data=st.data(), branch=st.sampled_from(NAMES))
    def commit(self, data: st.DataObject, branch: str) -> None:
        base = self.branches.get(branch)
        model = self.versions[base] if base else {}
        change = data.draw(change_sets(model, max_size=15))
        self._note(branch, self._commit(branch, change, base), applied(model, change))

    @rule(data=st.data(), branch=st.sampled_from(NAMES))
    @unless_cut
    def commit_on_an_old_base(self, data: st.DataObject, branch: str) -> None:
        base = data.draw(st.sampled_from(list(self.versions)))
        change = data.draw(change_sets(self.versions[base], max_size=5))
        head = self.branches.get(branch)
        try:
            made = self._commit(branch, change, base)
        except ConflictError:
            assert self.repository.branches().get(branch) == head
            return
        result = {each.path: each for each in self.repository.tree_of(made).entries()}
        before = self.versions[head or base]
        changed = {path for path in before.keys() | result.keys() if before.get(path) != result.get(path)}
        assert changed <= set(change.paths().to_pylist())
        self._note(branch, made, result)

    @rule(data=st.data(), branch=st.sampled_from(NAMES))
    @unless_cut
    def branch_off(self, data: st.DataObject, branch: str) -> None:
        if branch not in self.branches:
            at = data.draw(st.sampled_from(list(self.versions)))
            self.repository.create_branch(branch, at)
            self.branches[branch] = at

    @precondition(lambda self: len(self.branches) > 1)
    @rule(branch=st.sampled_from(NAMES[1:]))
    def delete(self, branch: str) -> None:
        if branch not in self.branches:
            return
        try:
            self.repository.delete_branch(branch)
        except ProtectedBranchError:
            assert branch in self.protected
        else:
            assert branch not in self.protected
            del self.branches[branch]

    @rule(data=st.data(), into=st.sampled_from(NAMES))
    @unless_cut
    def merge(self, data: st.DataObject, into: str) -> None:
        source = data.draw(st.sampled_from(list(self.versions)))
        head = self.branches.get(into)
        try:
            result = self.repository.merge(source, into, author=AUTHOR)
        except MergeConflictError:
            assert self.repository.branches().get(into) == head
            return
        ancestors = {identity for identity, _ in self.repository.log(into)}
        assert source in ancestors
        assert head is None or head in ancestors
        merged = {each.path: each for each in self.repository.tree_of(result.commit).entries()}
        both = [self.versions[source]] + ([self.versions[head]] if head else [])
        assert all(any(side.get(path) == each for side in both) for path, each in merged.items())
        self._note(into, result.commit, merged)

    @rule(data=st.data(), into=st.sampled_from(NAMES), strategy=st.sampled_from(["ours", "theirs", "union"]))
    @unless_cut
    def merge_by_strategy(self, data: st.DataObject, into: str, strategy: Strategy) -> None:
        source = data.draw(st.sampled_from(list(self.versions)))
        head = self.branches.get(into)
        if head is None:
            return
        plan = self.repository.plan_merge(source, head)
        options = MergeOptions(strategy, fast_forward=data.draw(st.sampled_from(["auto", "never"])))
        result = self.repository.merge(source, into, author=AUTHOR, options=options)
        merged = {each.path: each for each in self.repository.tree_of(result.commit).entries()}
        ours, theirs = self.versions[head], self.versions[source]
        for path, clash in zip(*(plan.conflicts[name].to_pylist() for name in ("path", "clash")), strict=True):
            sides = {"ours": [ours.get(path)], "theirs": [theirs.get(path)]}
            either = ours.get(path) if clash else ours.get(path) or theirs.get(path)  # theirs is kept beside ours
            assert merged.get(path) in sides.get(strategy, [either])
        if result.kind != "fast-forward":
            settled = applied(ours, plan.changes)
            conflicts = set(plan.conflicts["path"].to_pylist())
            assert {p: e for p, e in settled.items() if p not in conflicts}.items() <= merged.items()
        self._note(into, result.commit, merged)

    @rule(data=st.data(), branch=st.sampled_from(NAMES), back=st.booleans())
    @unless_cut
    def revert_or_pick(self, data: st.DataObject, branch: str, back: bool) -> None:
        source = data.draw(st.sampled_from(list(self.versions)))
        head = self.branches.get(branch)
        if head is None or len(parents := self.repository.commit(source).parents) > 1:
            return
        before = self.versions[parents[0]] if parents else {}
        old, new = (self.versions[source], before) if back else (before, self.versions[source])
        try:
            if back:
                made = self.repository.revert(source, branch, author=AUTHOR).commit
            else:
                made = self.repository.cherry_pick(source, branch, author=AUTHOR).commit
        except (MergeConflictError, NothingToCommitError):
            assert self.repository.head(branch) == head
            return
        ours = self.versions[head]
        result = {each.path: each for each in self.repository.tree_of(made).entries()}
        for path in old.keys() | new.keys() | ours.keys() | result.keys():
            changed = _content(old.get(path)) != _content(new.get(path))
            assert _content(result.get(path)) == _content((new if changed else ours).get(path))
        self._note(branch, made, result)

    @rule(data=st.data(), branch=st.sampled_from(NAMES))
    @unless_cut
    def reset(self, data: st.DataObject, branch: str) -> None:
        to = data.draw(st.sampled_from(list(self.versions)))
        head = self.branches.get(branch)
        ahead = head is None or head in {identity for identity, _ in self.repository.log(to)}
        try:
            assert self.repository.move_branch(branch, to, force=True) == head
        except ProtectedBranchError:
            assert branch in self.protected
            assert not ahead
        else:
            assert ahead or branch not in self.protected
            self.branches[branch] = to
            if head not in (None, to):
                assert self.repository.resolve(f"{branch}@{{1}}") == head

    @rule(old=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def rename(self, old: str, new: str) -> None:
        if old not in self.branches:
            return
        try:
            self.repository.rename_branch(old, new)
        except RefExistsError:
            assert new in self.branches
        except ProtectedBranchError:
            assert old in self.protected
        else:
            assert old not in self.protected
            self.branches[new] = self.branches.pop(old)

    @rule(branch=st.sampled_from(NAMES), protected=st.booleans())
    def protect(self, branch: str, protected: bool) -> None:
        if branch in self.branches:
            self.repository.protect_branch(branch, protected=protected)
            (self.protected.add if protected else self.protected.discard)(branch)

    @rule(data=st.data(), branch=st.sampled_from(NAMES))
    def commit_while_another_does(self, data: st.DataObject, branch: str) -> None:
        head = self.branches.get(branch)
        if head is None:
            return
        model = self.versions[head]
        change = data.draw(change_sets(model, max_size=5))
        self.rivals += 1
        rival = entry(f"rival/{self.rivals}", self.rivals)

        def act() -> None:
            theirs = self._opened()
            made = theirs.commit_changes(branch, ChangeSet.of([rival]), message="", author=AUTHOR, base=head)
            self._note(branch, made, {**model, rival.path: rival})

        self.store.other = act
        made = self._commit(branch, change, head)
        assert len(list(self.repository.log(made, limit=2))) == 2
        self._note(branch, made, applied(self.versions[self.branches[branch]], change))

    @rule(data=st.data())
    @unless_cut
    def tag(self, data: st.DataObject) -> None:
        name, at = f"v{len(self.tags)}", data.draw(st.sampled_from(list(self.versions)))
        self.repository.create_tag(name, at)
        self.tags[name] = at

    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        old, new = (data.draw(st.sampled_from(list(self.versions))) for _ in range(2))
        found = self.repository.diff(old, new)
        assert applied(self.versions[old], changes_of(found)) == self.versions[new]

    @rule(days=st.sampled_from([0, 1, 8, 30]), keep_newest=st.booleans())
    def collect(self, days: int, keep_newest: bool) -> None:
        """Whatever a collection leaves is whole: also a commit that no ref names."""
        if keep_newest:
            self.has_expired |= bool(expire_history(self.repository, ExpirePolicy(newest=2)).hidden)
        self.seconds += days * DAY
        collect_garbage(self._opened())
        self._forget_collected()

    @rule(data=st.data(), branch=st.sampled_from(NAMES), days=st.sampled_from([0, 8]))
    def commit_while_garbage_is_collected(self, data: st.DataObject, branch: str, days: int) -> None:
        head = self.branches.get(branch)
        model = self.versions[head] if head else {}
        change = data.draw(change_sets(model, max_size=5))

        def act() -> None:
            self.seconds += days * DAY
            collect_garbage(self._opened())

        self.store.other = act
        made = self._commit(branch, change, head)
        self._note(branch, made, applied(model, change))
        self._forget_collected()

    @rule()
    def check(self) -> None:
        found = check_repository(self._opened()).findings
        assert {each.object for each in found} <= {"packs/0", "packs/1"}  # which never were

    @rule()
    def reopen(self) -> None:
        self.repository = self._opened()

    @invariant()
    def refs_are_as_in_the_model(self) -> None:
        states = self.repository.refs.branch_states()
        assert {name: state.commit for name, state in states.items()} == self.branches
        assert {name for name, state in states.items() if state.protected} == self.protected
        assert self.repository.tags() == self.tags

    def _clock(self) -> datetime:
        """Never the same time twice, so never the same commit; and the same ids in each replay."""
        self.seconds += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def _opened(self) -> Repository:
        """The repository as another process sees it."""
        return Repository(self.store, "repo/", TINY, clock=self._clock)

    def _forget_collected(self) -> None:
        there = {CommitId(key[-69:-5]) for key in self.store.objects if key.startswith("repo/commits/")}
        assert {*self.branches.values(), *self.tags.values()} <= there
        self.versions = {identity: model for identity, model in self.versions.items() if identity in there}
        with Marker(self._opened()) as marker:
            marker.mark_commits(self.versions)  # raises if anything that they need is gone

    def _commit(self, branch: str, change: ChangeSet, base: CommitId | None) -> CommitId:
        return self.repository.commit_changes(branch, change, message="", author=AUTHOR, base=base, allow_empty=True)

    def _note(self, branch: str, made: CommitId, model: Model) -> None:
        assert is_checkable(model)
        tree = self.repository.tree_of(made)
        assert {each.path: each for each in tree.entries()} == model
        assert tree.id == built(tiny_nodes(), model.values()).id
        self.versions[made] = model
        self.branches[branch] = made


def _content(each: Entry | None) -> bytes | None:
    return each.oid if each else None


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(
    max_examples=1000 if DEEP else 20, stateful_step_count=60 if DEEP else 20, deadline=None
)
