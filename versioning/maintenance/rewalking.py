"""Which condemned objects are needed after all: by what was written, or named, since the list was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sources import SourceNotFoundError
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.contents import named_by
from versioning.maintenance.ids import IdSet, ids_of, ids_of_hex
from versioning.maintenance.keys import ObjectKind
from versioning.nodes import NodeId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sources import RepositoryStore
    from versioning.commits import Commit, CommitId, CommitStore
    from versioning.maintenance.ids import Ids
    from versioning.nodes import Node
    from versioning.nodestore import NodeStore


@dataclass(eq=False)
class Rewalk:
    """Walks from commits down to what was there, and not condemned, when the list was made.

    An object that was there then and is not in the list reaches nothing that is in it: it was needed, or young, and
    all that such objects reach was kept. So only newer commits and condemned ones are walked, and of their trees only
    the nodes that the first parent's tree does not have.

    Args:
        store: Holds the repository.
        commits: Its commits.
        nodes: Its nodes.
        prefix: Its prefix.
        condemned: The list.
        listed_ns: When it was begun, by the store's clock.
        on_step: Called now and then.

    Attributes:
        needed: The condemned objects that are needed, by kind.
        count: How many these are.
    """

    store: RepositoryStore
    commits: CommitStore
    nodes: NodeStore
    prefix: str
    condemned: Mapping[ObjectKind, IdSet]
    listed_ns: int
    on_step: Callable[[], None] = lambda: None
    needed: Mapping[ObjectKind, IdSet] = field(default_factory=lambda: {kind: IdSet() for kind in ObjectKind})
    count: int = 0

    def walk(self, starts: Iterable[CommitId], *, known: Collection[CommitId] = (), tolerant: bool = False) -> None:
        """Find what commits need.

        Args:
            starts: Where to begin.
            known: Commits that a ref names: what they need is looked at elsewhere.
            tolerant: Skip what is missing or damaged.

        Raises:
            CorruptRepositoryError: If something is missing or damaged, unless `tolerant`.
        """
        waiting, seen = list(starts), set(known)
        while waiting:
            identity = waiting.pop()
            if identity in seen:
                continue
            seen.add(identity)
            self.on_step()
            try:
                if self._need(ObjectKind.COMMIT, ids_of_hex([identity])) or self._is_new(identity):
                    commit = self.commits.read(identity)
                    waiting += commit.parents
                    self._walk_tree(commit)
            except CorruptRepositoryError:
                if not tolerant:
                    raise

    def _need(self, kind: ObjectKind, ids: Ids) -> bool:
        """Note which of some ids are condemned; say whether any is."""
        hit = ids[self.condemned[kind].contains(ids)]
        self.count += int(self.needed[kind].add(hit).sum())
        return len(hit) > 0

    def _is_new(self, identity: CommitId) -> bool:
        key = self.prefix + ObjectKind.COMMIT.key(bytes.fromhex(identity))
        try:
            written = self.store.stat(key).mtime_ns
        except SourceNotFoundError as error:
            raise CorruptRepositoryError(key, reason="a ref or commit needs it and it is missing") from error
        return written is None or written >= self.listed_ns

    def _walk_tree(self, commit: Commit) -> None:
        """Look at the nodes that the first parent's tree does not have, level by level."""
        old = self._read(self._parent_roots(commit), tolerant=True)
        new = self._read({NodeId(bytes.fromhex(commit.tree))} - {node.id for node in old})
        while new:
            self.on_step()
            level = max(node.level for node in new)
            self._need(ObjectKind.NODE, ids_of(node.id for node in new))
            if not level:
                for leaf in new:
                    named = named_by(leaf)
                    self._need(ObjectKind.PACK, named.packs)
                    self._need(ObjectKind.BLOB, named.blobs)
                return
            while old and max(node.level for node in old) > level:
                old = self._read(_children(old), tolerant=True)
            below = _children(new)
            if any(node.level == level for node in old):
                kept = _children(old)
                old = self._read(kept - below, tolerant=True) if level > 1 else []
                below -= kept
            else:
                below -= {node.id for node in old}
            new = self._read(below)

    def _parent_roots(self, commit: Commit) -> set[NodeId]:
        try:
            return {NodeId(bytes.fromhex(self.commits.read(each).tree)) for each in commit.parents[:1]}
        except CorruptRepositoryError:  # whether it matters is found when the parent itself is walked
            return set()

    def _read(self, ids: set[NodeId], *, tolerant: bool = False) -> list[Node]:
        try:
            return list(self.nodes.read_all(ids))
        except CorruptRepositoryError:
            if not tolerant:
                raise
            return []  # nothing is known of the old side, so all of the new one is walked


def _children(nodes: Iterable[Node]) -> set[NodeId]:
    return {node.child(at) for node in nodes for at in range(node.table.num_rows if node.level else 0)}
