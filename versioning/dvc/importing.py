"""From the history of a DVC project to commits of a repository: no byte of the files is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sources import SourceNotFoundError, Version, split_uri
from sources.dvc.objects import DVC_OBJECTS, dvc_key, sizes_of
from versioning.ancestry import walk_range
from versioning.building import build_tree, edit_tree
from versioning.changes import ChangeSet
from versioning.commits import Commit, CommitId, CommitStats
from versioning.committing import changes_of
from versioning.dvc.documents import MAX_LISTING_BYTES, parse_listing
from versioning.dvc.errors import DvcFileError, DvcObjectMissingError
from versioning.entries import Entry, EntryKind
from versioning.errors import PathNotFoundError
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sources import Store
    from versioning.dvc.outputs import Output
    from versioning.repository import Repository

_OURS = ("md5:", "md5-dos2unix:", "vid:")
_LISTINGS = 8  # that stay in memory: neighbouring commits share them


@dataclass(frozen=True, slots=True)
class GitCommit:
    """A commit of the git repository that holds a DVC project.

    Attributes:
        id: Hex.
        parents: Ids.
        author: "Ada <ada@example.org>"; `committer` too.
        authored_at: UTC, RFC 3339 with milliseconds; `committed_at` too.
        message: As written.
        outputs: What DVC tracks in it, by path.
    """

    id: str
    parents: tuple[str, ...]
    author: str
    committer: str
    authored_at: str
    committed_at: str
    message: str
    outputs: Mapping[str, Output]


class Covers(Protocol):
    """Says whether an object of a store can be read later: whether a mount covers it."""

    def __call__(self, store: str, key: str) -> bool:
        """Say so."""
        ...


@dataclass
class ImportCounts:
    """What an import did.

    Attributes:
        commits: New commits.
        unchanged: Git commits that change nothing that DVC tracks: they have no commit of their own.
        missing: Files left out because no place has their bytes.
    """

    commits: int = 0
    unchanged: int = 0
    missing: int = 0


@dataclass
class DvcImporter:
    """Repeats git commits of a DVC project in a repository, parents first. No branch is moved.

    Attributes:
        repository: Where to.
        objects: A store of `dvc://objects`.
        target: Directory of the dataset, "" or ending in "/".
        covers: Of cloud-versioned files.
        base: What first commits are put on; None: an empty dataset.
        skip_missing: Leave files out whose bytes no place has.
        counts: What was done so far.
    """

    repository: Repository
    objects: Store
    target: str = ""
    covers: Covers = lambda store, key: False
    base: CommitId | None = None
    skip_missing: bool = False
    counts: ImportCounts = field(default_factory=ImportCounts)
    _done: dict[str, CommitId | None] = field(default_factory=dict)
    _outputs: dict[str, Mapping[str, Output]] = field(default_factory=dict)
    _listings: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def known(self) -> dict[str, CommitId]:
        """Find the git commits that earlier imports to this target brought: those that a ref still reaches."""
        refs = {*self.repository.branches().values(), *self.repository.tags().values()}
        found: dict[str, CommitId] = {}
        for identity, commit in walk_range(self.repository.commits, refs):
            about = commit.meta.get("dvc")
            if isinstance(about, dict) and about.get("to", "") == self.target and isinstance(about.get("git"), str):
                found[about["git"]] = identity
        self._done.update(found)
        return found

    def add(self, commit: GitCommit) -> CommitId | None:
        """Repeat a git commit whose parents were added before; one that is known already stays as it is.

        Returns:
            The commit for it: that of its parent, if it changes nothing; None before anything is tracked.

        Raises:
            DvcObjectMissingError: If no place has an object, unless those are skipped.
            DvcFileError: If a listing is damaged, or a cloud-versioned file is below no mount.
        """
        self._outputs[commit.id] = commit.outputs
        if commit.id not in self._done:
            self._done[commit.id] = self._repeat(commit)
        return self._done[commit.id]

    def _repeat(self, commit: GitCommit) -> CommitId | None:
        mapped = [self._done.get(parent) for parent in commit.parents]
        parents = list(dict.fromkeys(parent for parent in mapped if parent is not None))
        first = parents[0] if parents else self.base
        before = next((self._outputs[id_] for id_ in commit.parents if first and self._done.get(id_) == first), {})
        tree = self.repository.tree_of(first) if first else None
        changes = self._changes(tree, before, commit)
        if not changes and len(parents) < 2:
            self.counts.unchanged += 1
            return parents[0] if parents else None
        self.counts.commits += 1
        return self._write(commit, parents or ([first] if first else []), changes)

    def _changes(self, tree: Tree | None, before: Mapping[str, Output], commit: GitCommit) -> ChangeSet:
        after = commit.outputs
        differ = [path for path in {**before, **after} if before.get(path) != after.get(path)]
        old: dict[str, Entry] = {}
        for path in differ:
            old.update(_imported(tree, self.target + path))
        new: dict[str, Entry] = {}
        for path in differ:
            if path in after:
                new.update((entry.path, entry) for entry in self._entries(after[path], old, commit))
        upserts = [entry for path, entry in new.items() if not _same(old.get(path), entry)]
        return ChangeSet.of(upserts, [path for path in old if path not in new])

    def _entries(self, output: Output, old: Mapping[str, Entry], commit: GitCommit) -> Iterator[Entry]:
        where = f"git commit {commit.id[:12]}"
        if output.cloud:
            yield from self._cloud_entries(output, where)
            return
        files = [("", output.digest)]
        if output.is_dir:
            listing = self._listing(output, where)
            files = [(f"/{path}", digest) for path, digest in listing] if listing is not None else []
        names = {self.target + output.path + rest: digest for rest, digest in files}
        versions = {path: f"{output.hash_name}:{digest}" for path, digest in names.items()}
        sizes = {path: old[path].size for path in names if path in old and old[path].source == versions[path]}
        keys = {path: dvc_key(output.hash_name, digest) for path, digest in names.items()}
        found = sizes_of(self.objects, (keys[path] for path in names if path not in sizes))
        sizes.update((path, found[keys[path]]) for path in names if path not in sizes and keys[path] in found)
        self._require([path for path in names if path not in sizes], where)
        for path, size in sizes.items():
            yield _external(path, DVC_OBJECTS, keys[path], versions[path], size=size, source=versions[path])

    def _listing(self, output: Output, where: str) -> list[tuple[str, str]] | None:
        key = dvc_key(output.hash_name, f"{output.digest}.dir")
        if key not in self._listings:
            try:
                size = self.objects.stat(key).size
            except SourceNotFoundError:
                self._require([output.path], where)
                return None
            if size > MAX_LISTING_BYTES:
                raise DvcFileError(output.path, reason=f"its listing has {size} bytes, more than {MAX_LISTING_BYTES}")
            data = bytes(self.objects.read(key, start=0, length=size, version=None))
            if len(self._listings) == _LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[key] = parse_listing(data, f"{output.path} in {where}", digest=output.digest)
        return self._listings[key]

    def _cloud_entries(self, output: Output, where: str) -> Iterator[Entry]:
        urls = dict(output.urls)
        for file in output.cloud:
            if file.remote not in urls:
                raise DvcFileError(output.path, reason=f"{where} has no remote {file.remote!r}")
            path = f"{output.path}/{file.path}" if file.path else output.path
            _, store, prefix = split_uri(urls[file.remote])
            key = f"{prefix.strip('/')}/{path}".lstrip("/")
            if not self.covers(store, key):
                raise DvcFileError(path, reason=f"{where} keeps it at {store}/{key}: add a mount that covers this")
            yield _external(self.target + path, store, key, f"vid:{file.version}", size=file.size, source=file.source)

    def _require(self, missing: list[str], where: str) -> None:
        if missing and not self.skip_missing:
            raise DvcObjectMissingError(missing, where=where)
        self.counts.missing += len(missing)

    def _write(self, commit: GitCommit, parents: list[CommitId], changes: ChangeSet) -> CommitId:
        repository = self.repository
        diff = repository.diff_changes(parents[0] if parents else None, changes)
        if parents:
            root = edit_tree(repository.nodes, repository.tree_of(parents[0]).root, changes_of(diff))
        else:
            root = build_tree(repository.nodes, [diff.new_entries])
        tree, counts = Tree(repository.nodes, root), diff.summary()
        generation = 1 + max((repository.commits.read(parent).generation for parent in parents), default=0)
        about = {"git": commit.id, **({"to": self.target} if self.target else {})}
        return repository.commits.write(
            Commit(
                tree=tree.id,
                parents=tuple(parents),
                author=commit.author,
                committer=commit.committer,
                authored_at=commit.authored_at,
                committed_at=commit.committed_at,
                message=commit.message,
                stats=CommitStats(tree.rows, tree.size, counts.added, counts.modified, counts.deleted, counts.layout),
                generation=generation,
                meta={"dvc": about},
            )
        )


def _external(path: str, store: str, key: str, version: str, *, size: int, source: str) -> Entry:
    return Entry(path, EntryKind.EXTERNAL, size, None, None, store, key, Version(version), 0, size, source=source)


def _imported(tree: Tree | None, path: str) -> Iterable[tuple[str, Entry]]:
    """Yield what a path holds, itself or below it, that came from DVC; packed since or not."""
    if tree is None:
        return
    for entry in _entries_at(tree, path):
        if entry.source is not None and entry.source.startswith(_OURS):
            yield entry.path, entry


def _entries_at(tree: Tree, path: str) -> Iterator[Entry]:
    try:
        if (entry := tree.get(path)) is not None:
            yield entry
        yield from tree.entries(f"{path}/")
    except PathNotFoundError:  # nothing below it
        return


def _same(before: Entry | None, after: Entry) -> bool:
    """Say whether an entry stays: its content is the same, and it was packed since or lies where it did."""
    if before is None or (before.source, before.size) != (after.source, after.size):
        return False
    return before.kind is not EntryKind.EXTERNAL or (before.store, before.key) == (after.store, after.key)
