"""A repository: versions of a dataset in an object store or a directory, with no server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sources import SourceNotFoundError, SwapLostError, join_uri, probe_swaps
from versioning.ancestry import is_ancestor, merge_base, walk
from versioning.commits import CommitStore
from versioning.committing import Committer, Draft, RetryPolicy, Workspace, diff_commits, diff_of_changes
from versioning.entries import RepositoryRoot
from versioning.errors import (
    InvalidNameError,
    LostRaceError,
    MergeConflictError,
    RepositoryExistsError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from versioning.merging import MergePlan, MergeResult, plan_merge
from versioning.names import check_ref_name
from versioning.nodes import NodeId
from versioning.nodestore import NodeStore
from versioning.refs import Refs
from versioning.revisions import resolve
from versioning.spec import RepositorySpec, decode_spec, encode_spec
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sources import RepositoryStore
    from versioning.changes import ChangeSet
    from versioning.commits import Commit, CommitId
    from versioning.diffs import Diff
    from versioning.refs import RefState, RefUpdate

_SPEC_KEY = "repo.json"


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
        work: What a commit is made with.
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
        self.work = Workspace(self.nodes, self.commits, self.refs, clock, retry or RetryPolicy())

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
        _check_prefix(prefix)
        key, uri = prefix + _SPEC_KEY, _uri(store, prefix)
        if _fetch_spec(store, key) is not None:
            raise RepositoryExistsError(uri)
        probe_swaps(store, prefix).require_safe()
        wanted = spec or RepositorySpec.new()
        try:
            store.swap(key, encode_spec(wanted), expect=None)
        except SwapLostError as error:
            # A store may report its own write as lost after a retry; the random id in it tells.
            if _fetch_spec(store, key) != encode_spec(wanted):
                raise RepositoryExistsError(uri) from error
        return cls(store, prefix, wanted)

    @classmethod
    def open(cls, store: RepositoryStore, prefix: str) -> Repository:
        """Open a repository.

        Raises:
            RepositoryNotFoundError: If there is none.
            RepositoryFormatError: If it needs a newer version.
        """
        _check_prefix(prefix)
        data = _fetch_spec(store, prefix + _SPEC_KEY)
        if data is None:
            raise RepositoryNotFoundError(_uri(store, prefix))
        return cls(store, prefix, decode_spec(data, uri=_uri(store, prefix)))

    @property
    def root(self) -> RepositoryRoot:
        """Where the repository lies."""
        return RepositoryRoot(self.store.id, self.prefix)

    @property
    def uri(self) -> str:
        """Where the repository lies, as people write it."""
        return _uri(self.store, self.prefix)

    def resolve(self, rev: str) -> CommitId:
        """Find the commit that a revision names: branch, tag, id, unique id prefix, each with `~n` and `^n`.

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
        """Yield a revision's commit and all its ancestors, newest first and children before parents."""
        for number, found in enumerate(walk(self.commits, self.resolve(rev))):
            if limit is not None and number >= limit:
                return
            yield found

    def branches(self) -> dict[str, CommitId]:
        """Return every branch with its commit, sorted by name."""
        return self.refs.branches()

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
            LostRaceError: If somebody moved it at the same moment.
        """
        state = self.refs.branch(name)
        if state is None or state.commit is None:
            raise RevisionNotFoundError(name, detail="no such branch")
        try:
            self.refs.move_branch(name, expect=state, to=None, author=author, action="branch: deleted")
        except SwapLostError as error:
            raise LostRaceError(name, detail="somebody committed to it while it was deleted") from error

    def branch_log(self, name: str) -> Iterator[RefUpdate]:
        """Yield how a branch moved, newest first (the reflog)."""
        return self.refs.log(name)

    def tags(self) -> dict[str, CommitId]:
        """Return every tag with its commit, sorted by name."""
        return self.refs.tags()

    def create_tag(self, name: str, at: CommitId) -> None:
        """Create a tag; it can never be moved.

        Raises:
            RefExistsError: If there is one.
            InvalidNameError: If git would refuse the name.
        """
        self.commits.read(at)
        self.refs.create_tag(name, at)

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
        """
        check_ref_name(branch, what="branch")
        draft = Draft(message, author, f"commit: {_first_line(message)}", (), meta or {}, lineage or {}, allow_empty)
        return Committer(self.work, branch, draft).rebase_and_commit(changes, base=base, require_base=require_base)

    def diff(self, old: CommitId | None, new: CommitId) -> Diff:
        """Return what leads from one commit to another (None: from nothing); equal nodes are never read."""
        return diff_commits(self.work, old, new)

    def diff_changes(self, base: CommitId | None, changes: ChangeSet) -> Diff:
        """Return what a change set would do to a commit, as `ds status` shows it; reads only the leaves it touches."""
        return diff_of_changes(self.work, base, changes)

    def plan_merge(self, source: CommitId, into: CommitId) -> MergePlan:
        """Return what a three-way merge of two commits would do, writing nothing."""
        base = merge_base(self.commits, into, source)
        return plan_merge(self.diff(base, into), self.diff(base, source))

    def merge(self, source: CommitId, into: str, *, message: str | None = None, author: str) -> MergeResult:
        """Merge a commit into a branch; fast-forward where possible.

        Args:
            source: What to merge.
            into: The branch.
            message: Of the merge commit; by default it names both.
            author: Of the merge commit.

        Raises:
            MergeConflictError: With the table of conflicts; the branch was not moved.
            LostRaceError: If others kept moving the branch.
        """
        check_ref_name(into, what="branch")
        text = message or f"Merge {source[:12]} into {into}"
        draft = Draft(text, author, f"merge: {source[:12]}", parents_extra=(source,), allow_empty=True)
        committer = Committer(self.work, into, draft)
        attempt = 0
        while True:
            head = self.refs.branch(into)
            at = head.commit if head else None
            if (landed := committer.landed(at)) is not None:
                return MergeResult("fast-forward" if landed == source else "merged", landed)
            if at is not None and is_ancestor(self.commits, source, at):
                return MergeResult("up-to-date", at)
            done = self._try_merge(committer, head, source)
            if done is not None:
                return done
            committer.wait(attempt)
            attempt += 1

    def _try_merge(self, committer: Committer, head: RefState | None, source: CommitId) -> MergeResult | None:
        at = head.commit if head else None
        if at is None or is_ancestor(self.commits, at, source):
            moved = committer.try_move(head, source)
            return MergeResult("fast-forward", moved) if moved else None
        plan = self.plan_merge(source, at)
        if plan.conflicts.num_rows:
            raise MergeConflictError(committer.branch, plan.conflicts)
        made = committer.try_commit(head, at, self.diff_changes(at, plan.changes))
        return MergeResult("merged", made) if made else None


def _check_prefix(prefix: str) -> None:
    if prefix and (not prefix.endswith("/") or prefix.startswith("/")):
        raise InvalidNameError(
            prefix, what="repository prefix", reason='it must be "" or end in "/", with none in front'
        )


def _fetch_spec(store: RepositoryStore, key: str) -> bytes | None:
    try:
        return store.fetch(key)[0]
    except SourceNotFoundError:
        return None


def _uri(store: RepositoryStore, prefix: str) -> str:
    return join_uri(store.id, prefix.rstrip("/"))


def _first_line(message: str) -> str:
    return message.partition("\n")[0][:200]
