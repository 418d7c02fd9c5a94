"""A repository: versions of a dataset in an object store or a directory, with no server."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from versioning import branching
from versioning.ancestry import walk
from versioning.commits import CommitStore
from versioning.committing import Committer, Draft, RetryPolicy, Workspace, diff_commits, diff_of_changes
from versioning.creating import create_spec, read_spec, repository_uri
from versioning.entries import RepositoryRoot
from versioning.errors import RevisionNotFoundError
from versioning.hooks.gate import Gate
from versioning.integrating import Job, MergeOptions, plan_job, revert_job, run_job
from versioning.names import check_ref_name
from versioning.nodes import NodeId
from versioning.nodestore import NodeStore
from versioning.refs import Refs
from versioning.revisions import resolve
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sources import RepositoryStore
    from versioning.changes import ChangeSet
    from versioning.commits import Commit, CommitId
    from versioning.diffs import Diff
    from versioning.maintenance.guarding import SweepGuard
    from versioning.merging import MergePlan, MergeResult
    from versioning.reflogs import RefUpdate
    from versioning.spec import RepositorySpec
    from versioning.transactions import Transaction

_OPTIONS = MergeOptions()


def _now() -> datetime:
    return datetime.now(UTC)


class Repository:
    """Names, versions and their history. Thread-safe; any number of processes may use one repository.

    Open one with `Repository.open` or `Repository.init`. Besides the errors named below, every method may raise
    `CorruptRepositoryError` and the store's own `SourceError`s.

    Attributes:
        store: Holds the repository.
        prefix: Key prefix of everything in it; "" or ending in "/".
        spec: What repo.json says.
        nodes: The tree nodes; its `reads` and `writes` count requests.
        commits: The commits.
        refs: Branches, tags and their logs.
        work: What a commit is made with. Set its `sign` to sign every commit that this object makes.
        gate: Asks the hooks of a branch before a commit or merge; what it may run is set there.
    """

    def __init__(
        self,
        store: RepositoryStore,
        prefix: str,
        spec: RepositorySpec,
        *,
        clock: Callable[[], datetime] = _now,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.spec = spec
        self.nodes = NodeStore(store, prefix, spec)
        self.commits = CommitStore(store, prefix)
        self.refs = Refs(store, prefix, clock)
        self.refs.guard = lambda to, known: self._guard.check(to, known)
        self.work = Workspace(self.nodes, self.commits, self.refs, clock, retry or RetryPolicy())
        self.gate = Gate(self)
        self.work.check = self.gate.check

    @cached_property
    def _guard(self) -> SweepGuard:
        from versioning.maintenance.guarding import SweepGuard  # who only reads does not load it

        return SweepGuard(self.store, self.prefix, commits=self.commits, nodes=self.nodes, clock=self.refs.clock)

    @classmethod
    def init(cls, store: RepositoryStore, prefix: str, *, spec: RepositorySpec | None = None) -> Repository:
        """Create a repository, after checking that the store can hold one.

        Args:
            store: Where.
            prefix: Key prefix, "" or ending in "/".
            spec: Cut rules other than the default, for tests and experiments.

        Raises:
            RepositoryExistsError: If there is one already.
            UnsafeSwapError: If the store does not heed the conditions of writes; nothing stays behind.
        """
        return cls(store, prefix, create_spec(store, prefix, spec))

    @classmethod
    def open(cls, store: RepositoryStore, prefix: str) -> Repository:
        """Open a repository.

        Raises:
            RepositoryNotFoundError: If there is none.
            RepositoryFormatError: If it needs a newer version.
        """
        return cls(store, prefix, read_spec(store, prefix))

    @property
    def root(self) -> RepositoryRoot:
        """Where the repository lies."""
        return RepositoryRoot(self.store.id, self.prefix)

    @property
    def uri(self) -> str:
        """Where the repository lies, as people write it."""
        return repository_uri(self.store, self.prefix)

    def resolve(self, rev: str) -> CommitId:
        """Find the commit that a revision names: branch, tag, id, unique id prefix, `@{n}`, `@{date}`, `~n`, `^n`.

        Raises:
            RevisionNotFoundError: With names that look alike.
        """
        return resolve(rev, refs=self.refs, commits=self.commits)

    def commit(self, identity: CommitId) -> Commit:
        """Return a commit."""
        return self.commits.read(identity)

    def tree(self, rev: str) -> Tree:
        """Return the paths of a revision. Errors as in `resolve`."""
        return self.tree_of(self.resolve(rev))

    def tree_of(self, identity: CommitId) -> Tree:
        """Return the paths of a commit."""
        return Tree(self.nodes, NodeId(bytes.fromhex(self.commits.read(identity).tree)))

    def log(self, rev: str, *, limit: int | None = None) -> Iterator[tuple[CommitId, Commit]]:
        """Yield a revision's commit and all its ancestors, newest first; `versioning.history` asks for less of it."""
        return itertools.islice(walk(self.commits, self.resolve(rev)), limit)

    def branches(self) -> dict[str, CommitId]:
        """Return every branch with its commit, sorted by name."""
        return self.refs.branches()

    def branch(self, name: str) -> branching.Branch:
        """Return a handle of a branch; nothing is read."""
        return branching.Branch(self, name)

    def head(self, branch: str) -> CommitId | None:
        """Return what a branch names now: one read, however many branches there are; None if there is none."""
        state = self.refs.branch(branch)
        return state.commit if state else None

    def create_branch(self, name: str, at: CommitId, *, author: str = "") -> None:
        """Create a branch: one small write, whatever the size of the dataset.

        Raises:
            RefExistsError: If there is one.
            InvalidNameError: If git would refuse the name.
        """
        self.commits.read(at)
        self.refs.create_branch(name, at, author=author)

    def delete_branch(self, name: str, *, author: str = "") -> None:
        """Delete a branch; its log stays, its commits stay until garbage collection.

        Raises:
            RevisionNotFoundError: If there is none.
            ProtectedBranchError: If it is protected.
            LostRaceError: If somebody moved it at the same moment.
        """
        branching.delete_branch(self, name, author=author)

    def move_branch(
        self, name: str, to: CommitId, *, author: str = "", force: bool = False, action: str = "reset"
    ) -> CommitId | None:
        """Let a branch name another commit, and return what it named; one that does not exist is created.

        Raises:
            NotFastForwardError: If commits would be left behind; `force` does it.
            ProtectedBranchError: If they would, and the branch is protected.
            LostRaceError: If somebody moved it at the same moment.
        """
        return branching.move_branch(self, name, to, author=author, force=force, action=f"{action}: to {to[:12]}")

    def rename_branch(self, old: str, new: str, *, author: str = "") -> None:
        """Rename a branch; its log stays under the old name. Errors as in `create_branch` and `delete_branch`."""
        branching.rename_branch(self, old, new, author=author)

    def protect_branch(self, name: str, *, protected: bool = True, author: str = "") -> bool:
        """Let a branch only move forward from now on, or no longer; say whether that is new.

        Raises:
            RevisionNotFoundError: If there is none.
            LostRaceError: If somebody moved it at the same moment.
        """
        return branching.protect_branch(self, name, protected=protected, author=author)

    def branch_log(self, name: str) -> Iterator[RefUpdate]:
        """Yield how a branch moved, newest first (the reflog)."""
        return self.refs.log(name)

    def tags(self) -> dict[str, CommitId]:
        """Return every tag with its commit, sorted by name."""
        return self.refs.tags()

    def create_tag(self, name: str, at: CommitId) -> None:
        """Create a tag; it can never be moved. Errors as in `create_branch`."""
        self.commits.read(at)
        self.refs.create_tag(name, at)

    def pins(self) -> dict[str, CommitId]:
        """Return the runs that versions are pinned for, sorted by name, each with the commit that it uses."""
        return self.refs.pins()

    def create_pin(self, run: str, at: CommitId) -> None:
        """Note which commit a run uses, so that garbage collection keeps it; again with the same commit does nothing.

        Raises:
            RefExistsError: If the run is pinned to another commit.
            InvalidNameError: If git would refuse the name as a branch's.
        """
        self.commits.read(at)
        self.refs.create_pin(run, at)

    def delete_pin(self, run: str) -> CommitId:
        """Forget which commit a run uses, and return it.

        Raises:
            RevisionNotFoundError: If the run is not pinned.
        """
        found = self.refs.delete_pin(run)
        if found is None:
            raise RevisionNotFoundError(run, detail="no such run is pinned; see: ds pins")
        return found

    def transaction(
        self, branch: str, *, message: str, author: str, meta: Mapping[str, Any] | None = None
    ) -> Transaction:
        """Begin changes of a branch that become one commit when the `with` block ends well; see `Transaction`."""
        from versioning.transactions import Transaction  # it brings the packs

        return Transaction(self, branch, message=message, author=author, meta=meta)

    def commit_changes(
        self,
        branch: str,
        changes: ChangeSet,
        *,
        message: str,
        author: str,
        base: CommitId | None,
        meta: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
        require_base: bool = False,
        allow_empty: bool = False,
    ) -> CommitId:
        """Commit a change set to a branch; reads and writes O(changed leaves + depth) objects.

        If the branch moved since `base`, the change set is rebased: the first committer of a path wins, the same
        content is no conflict, and a layout change gives way to a content change. A lost race is tried again for a
        minute. A branch without a commit is created, from `base` on.

        Args:
            branch: Where to commit.
            changes: What to commit.
            message: Free text.
            author: "Ada <ada@example.org>".
            base: The commit that the changes were made against; None: an empty dataset.
            meta: Free JSON about the version.
            lineage: What it was made from: inputs, code, parameters; free JSON.
            require_base: Refuse to rebase.
            allow_empty: Commit even if nothing changes.

        Returns:
            The new commit, which is on the branch.

        Raises:
            NothingToCommitError: If the head has this content and layout already.
            ConflictError: If paths changed on the branch since `base`.
            LostRaceError: If others kept being first, or with `require_base` the branch is not at `base`.
            InvalidNameError: For a branch name that git would refuse, or meta that is no JSON.
            ObjectsCollectedError: If garbage collection has deleted what was uploaded long ago.
            CollectingError: If it is deleting what the commit needs.
            HookRefusedError: If a hook of the branch refuses it, or may not be run.
            SigningError: If it was to be signed and cannot be.
        """
        check_ref_name(branch, what="branch")
        draft = Draft(message, author, f"commit: {_first_line(message)}", (), meta or {}, lineage or {}, allow_empty)
        self._guard.require_base(base)
        self._guard.require_stored(changes.upserts)
        return Committer(self.work, branch, draft).rebase_and_commit(changes, base=base, require_base=require_base)

    def diff(self, old: CommitId | None, new: CommitId) -> Diff:
        """Return what leads from one commit to another (None: from nothing); equal nodes are never read."""
        return diff_commits(self.work, old, new)

    def diff_changes(self, base: CommitId | None, changes: ChangeSet) -> Diff:
        """Return what a change set would do to a commit, as `ds status` shows it; reads only the leaves it touches."""
        return diff_of_changes(self.work, base, changes)

    def plan_merge(self, source: CommitId, into: CommitId, *, options: MergeOptions = _OPTIONS) -> MergePlan:
        """Return what a three-way merge of two commits would do, writing nothing."""
        return plan_job(self, Job("merge", source, "", "", options), into)

    def merge(
        self, source: CommitId, into: str, *, author: str, message: str | None = None, options: MergeOptions = _OPTIONS
    ) -> MergeResult:
        """Merge a commit into a branch; fast-forward where possible.

        Raises:
            MergeConflictError: With the plan; the branch was not moved.
            NotFastForwardError: If only a fast-forward was wanted.
            LostRaceError: If others kept moving the branch.
        """
        check_ref_name(into, what="branch")
        return run_job(self, into, Job("merge", source, message or f"Merge {source[:12]} into {into}", author, options))

    def revert(
        self, commit: CommitId, on: str, *, author: str, mainline: int | None = None, options: MergeOptions = _OPTIONS
    ) -> MergeResult:
        """Undo on a branch what a commit changed; of a merge, against its parent number `mainline`, from 1.

        Raises:
            MergeConflictError: If the branch changed the same paths since; it was not moved.
            NothingToCommitError: If all of it is undone already.
        """
        return run_job(self, on, revert_job(self, commit, author=author, mainline=mainline, options=options))

    def cherry_pick(
        self, commit: CommitId, onto: str, *, author: str, mainline: int | None = None, options: MergeOptions = _OPTIONS
    ) -> MergeResult:
        """Repeat on a branch what a commit changed, with its author, time, message and meta. Errors as in `revert`."""
        return run_job(self, onto, Job("cherry-pick", commit, "", author, options, mainline))


def _first_line(message: str) -> str:
    return message.partition("\n")[0][:200]
