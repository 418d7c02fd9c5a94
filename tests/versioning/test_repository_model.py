from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.versioning.samples import AUTHOR, TINY, applied, built, change_sets, tiny_nodes, tiny_repository
from versioning import (
    ChangeSet,
    CommitId,
    ConflictError,
    Entry,
    MergeConflictError,
    Repository,
)
from versioning.committing import changes_of

NAMES = ("main", "side", "third")
Model = dict[str, Entry]


class RepositoryMachine(RuleBasedStateMachine):
    """A repository must do what dictionaries of paths do, one per commit, and a dictionary of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0
        self.store = tiny_repository().store
        self.reopen()
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
    def branch_off(self, data: st.DataObject, branch: str) -> None:
        if branch not in self.branches:
            at = data.draw(st.sampled_from(list(self.versions)))
            self.repository.create_branch(branch, at)
            self.branches[branch] = at

    @precondition(lambda self: len(self.branches) > 1)
    @rule(branch=st.sampled_from(NAMES[1:]))
    def delete(self, branch: str) -> None:
        if self.branches.pop(branch, None):
            self.repository.delete_branch(branch)

    @rule(data=st.data(), into=st.sampled_from(NAMES))
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

    @rule(data=st.data())
    def tag(self, data: st.DataObject) -> None:
        name = f"v{len(self.tags)}"
        self.tags[name] = data.draw(st.sampled_from(list(self.versions)))
        self.repository.create_tag(name, self.tags[name])

    @rule(data=st.data())
    def diff(self, data: st.DataObject) -> None:
        old, new = (data.draw(st.sampled_from(list(self.versions))) for _ in range(2))
        found = self.repository.diff(old, new)
        assert applied(self.versions[old], changes_of(found)) == self.versions[new]

    @rule()
    def reopen(self) -> None:
        self.repository = Repository(self.store, "repo/", TINY, clock=self._clock)

    @invariant()
    def refs_are_as_in_the_model(self) -> None:
        assert self.repository.branches() == self.branches
        assert self.repository.tags() == self.tags

    def _clock(self) -> datetime:
        """Never the same time twice, so never the same commit; and the same ids in each replay."""
        self.seconds += 1
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def _commit(self, branch: str, change: ChangeSet, base: CommitId | None) -> CommitId:
        return self.repository.commit_changes(branch, change, message="", author=AUTHOR, base=base, allow_empty=True)

    def _note(self, branch: str, made: CommitId, model: Model) -> None:
        tree = self.repository.tree_of(made)
        assert {each.path: each for each in tree.entries()} == model
        assert tree.id == built(tiny_nodes(), model.values()).id
        self.versions[made] = model
        self.branches[branch] = made


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
