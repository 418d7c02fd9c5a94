"""Putting a change set on a branch: rebase on its head, write tree and commit, move the branch; again if it moved."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sources import SourceUnavailableError, SwapLostError
from versioning.ancestry import is_ancestor
from versioning.building import build_tree, edit_tree
from versioning.changes import ChangeSet
from versioning.clashes import check_no_clash
from versioning.columns import single
from versioning.commits import Commit, CommitId, CommitStats, HookResult, format_time, signed_bytes
from versioning.diffs import Diff, diff_tables, diff_trees
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import ConflictError, LostRaceError, NothingToCommitError
from versioning.hooks.proposals import Proposal
from versioning.merging import plan_merge
from versioning.nodes import NodeId
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from versioning.commits import CommitStore
    from versioning.hooks.proposals import HookEvent
    from versioning.nodestore import NodeStore
    from versioning.refs import Refs, RefState
    from versioning.taking import Arrival

_MAX_DOUBTFUL = 3  # the store's own retries come on top


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a writer that lost a race tries again."""

    deadline_seconds: float = 60.0
    """After this a lost race is an error. An object store takes about 7 swaps of one ref per second."""
    first_seconds: float = 0.02
    """Longest wait after the first lost race; the wait is random between 0 and this, so that writers spread out."""
    cap_seconds: float = 2.0
    """Longest wait after many lost races."""

    def wait(self, attempt: int) -> None:
        """Sleep before the next attempt (0: the first race was lost)."""
        time.sleep(random.uniform(0, min(self.cap_seconds, self.first_seconds * 2 ** min(attempt, 16))))


@dataclass(frozen=True, slots=True)
class Draft:
    """What a commit will say, whatever it is rebased on; without a committer and a time, the author makes it now."""

    message: str
    author: str
    action: str
    parents_extra: tuple[CommitId, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    allow_empty: bool = False
    committer: str = ""
    authored_at: str = ""
    event: HookEvent = "pre-commit"

    @property
    def mover(self) -> str:
        """Who moves the branch."""
        return self.committer or self.author


def _check_nothing(proposal: Proposal) -> tuple[HookResult, ...]:
    return ()


@dataclass(slots=True)
class Workspace:
    """What a commit is made with.

    Attributes:
        check: Called with what is about to go onto a branch; it may refuse. See `versioning.hooks.Gate`.
        sign: Returns an SSH signature of some bytes; None: commits are not signed.
    """

    nodes: NodeStore
    commits: CommitStore
    refs: Refs
    clock: Callable[[], datetime]
    retry: RetryPolicy
    check: Callable[[Proposal], tuple[HookResult, ...]] = _check_nothing
    sign: Callable[[bytes], str] | None = None

    def tree_root(self, commit: CommitId | None) -> NodeId | None:
        """Return the root of a commit's tree; None without a commit."""
        return NodeId(bytes.fromhex(self.commits.read(commit).tree)) if commit else None


def diff_commits(work: Workspace, old: CommitId | None, new: CommitId | None) -> Diff:
    """Compare the trees of two commits; None has no paths."""
    return diff_trees(work.nodes, work.tree_root(old), work.tree_root(new))


def diff_of_changes(work: Workspace, base: CommitId | None, changes: ChangeSet) -> Diff:
    """Return what a change set does to a commit's tree; reads only the leaves that it touches."""
    root = work.tree_root(base)
    old = Tree(work.nodes, root).get_many(changes.paths()) if root else ENTRY_SCHEMA.empty_table()
    return diff_tables(old, changes.upserts)


class Committer:
    """Puts one change set on one branch."""

    def __init__(self, work: Workspace, branch: str, draft: Draft) -> None:
        self._work = work
        self.branch = branch
        self._draft = draft
        self._begun = work.clock()
        self._deadline = time.monotonic() + work.retry.deadline_seconds
        self._doubtful: list[CommitId] = []

    def rebase_and_commit(self, changes: ChangeSet, *, base: CommitId | None, require_base: bool) -> CommitId:
        """Commit changes that were made against `base`; see `Repository.commit_changes`."""
        own = diff_of_changes(self._work, base, changes)
        attempt = 0
        while True:
            head = self._work.refs.branch(self.branch)
            at = head.commit if head else None
            if (landed := self.landed(at)) is not None:
                return landed
            if require_base and at != base:
                found = at[:12] if at else "no commit"
                raise LostRaceError(self.branch, detail=f"it is at {found}, not at the required base")
            parent = at or base  # a branch without a commit begins at the base
            done = self.try_commit(head, parent, own if parent == base else self._rebase(own, base, parent))
            if done is not None:
                return done
            self.wait(attempt)
            attempt += 1

    def try_commit(
        self, head: RefState | None, parent: CommitId | None, changes: Diff, *, arrival: Arrival | None = None
    ) -> CommitId | None:
        """Write tree and commit on top of `parent` and move the branch from `head`; None if it moved meanwhile.

        `arrival`: what a merge brings in, if `changes` come from that.
        """
        for each in (parent, *self._draft.parents_extra):
            if each is not None and (head is None or each != head.commit):
                self._work.commits.require_shown(each)
        return self.try_move(head, self._write(parent, changes, arrival))

    def try_move(self, head: RefState | None, to: CommitId) -> CommitId | None:
        """Move the branch; None if it moved meanwhile."""
        draft = self._draft
        try:
            self._work.refs.move_branch(self.branch, expect=head, to=to, author=draft.mover, action=draft.action)
        except SwapLostError:
            return None
        except SourceUnavailableError:
            if len(self._doubtful) == _MAX_DOUBTFUL:
                raise
            self._doubtful.append(to)  # the request may still arrive: look for it before trying again
            return None
        return to

    def landed(self, at: CommitId | None) -> CommitId | None:
        """Return the commit of an earlier attempt whose answer was lost, if it is on the branch after all."""
        if at is None:
            return None
        return next((mine for mine in self._doubtful if is_ancestor(self._work.commits, mine, at)), None)

    def wait(self, attempt: int) -> None:
        """Wait for another attempt.

        Raises:
            LostRaceError: If the deadline has passed.
        """
        if time.monotonic() > self._deadline:
            raise LostRaceError(self.branch, detail=f"another writer was first {attempt + 1} times")
        self._work.retry.wait(attempt)

    def _rebase(self, own: Diff, base: CommitId | None, at: CommitId | None) -> Diff:
        """Return what is left to do on the new head: first committer wins per path, and content over layout."""
        if not own:  # then it does not matter what others did; an empty stage has no base, so that would be everything
            return own
        plan = plan_merge(diff_commits(self._work, base, at), own)
        if plan.conflicts.num_rows:
            raise ConflictError(self.branch, plan.conflicts)
        return diff_of_changes(self._work, at, plan.changes)

    def _write(self, parent: CommitId | None, changes: Diff, arrival: Arrival | None) -> CommitId:
        draft = self._draft
        if not changes and not draft.allow_empty:
            raise NothingToCommitError(self.branch)
        root = self._work.tree_root(parent)
        check_no_clash(Tree(self._work.nodes, root) if root else None, changes)
        parents = ((parent,) if parent else ()) + draft.parents_extra
        proposal = Proposal(draft.event, self.branch, parent, draft.author, draft.message, lambda: changes)
        hooks = self._work.check(proposal)
        tree = self._write_tree(root, changes, arrival)
        counts = changes.summary()
        commit = Commit(
            tree=tree.id,
            parents=parents,
            author=draft.author,
            committer=draft.mover,
            authored_at=draft.authored_at or format_time(self._begun),
            committed_at=format_time(self._work.clock()),
            message=draft.message,
            stats=CommitStats(tree.rows, tree.size, counts.added, counts.modified, counts.deleted, counts.layout),
            generation=1 + max((self._work.commits.read(each).generation for each in parents), default=0),
            meta=draft.meta,
            lineage=draft.lineage,
            hooks=hooks,
        )
        if self._work.sign is not None:
            commit = replace(commit, signature=self._work.sign(signed_bytes(commit)))
        return self._work.commits.write(commit)

    def _write_tree(self, root: NodeId | None, changes: Diff, arrival: Arrival | None) -> Tree:
        nodes = self._work.nodes
        if root is None:
            return Tree(nodes, build_tree(nodes, [changes.new_entries]))
        held = [other for each in self._draft.parents_extra if (other := self._work.tree_root(each))]
        return Tree(nodes, edit_tree(nodes, root, changes_of(changes), held=held, arrival=arrival))


def changes_of(diff: Diff) -> ChangeSet:
    """Return the change set that does what a diff says."""
    gone = diff.only("D").table.column("path")
    return ChangeSet(diff.new_entries, single(gone))
