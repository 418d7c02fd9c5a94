"""Small datasets and repositories for tests, and what plain dictionaries say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3
from hypothesis import strategies as st

from tests.versioning.stores import MemoryStore
from versioning import ChangeSet, CutRule, Entry, EntryKind, Repository, RepositorySpec, entries_table, table_entries
from versioning.building import build_tree
from versioning.nodestore import NodeStore
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sources import RepositoryStore

TINY = RepositorySpec("tiny", CutRule(4, 2, 16), CutRule(4, 2, 16))
"""Cut rules that give deep trees for a hundred paths."""

AUTHOR = "Ada <ada@example.org>"


def entry(path: str, content: int = 0, *, place: int = 0, meta: str | None = None) -> Entry:
    """An entry with bytes number `content` at place number `place`."""
    oid = blake3(b"%d" % content).digest()
    return Entry(
        path=path,
        kind=EntryKind.PACKED,
        size=content,
        oid=oid,
        crc32c=content,
        store="",
        key=f"packs/{place}",
        version=f"oid:{place}",
        offset=0,
        object_size=content + 1000,
        meta=meta,
    )


def external(path: str, version: str, *, size: int = 1) -> Entry:
    """An entry that was imported without copying and never hashed."""
    return Entry(path, EntryKind.EXTERNAL, size, None, None, "s3://b", path, version, 0, size, source=version)


def tiny_nodes(store: RepositoryStore | None = None, *, cache_bytes: int = 1 << 20) -> NodeStore:
    return NodeStore(store or MemoryStore(), "", TINY, cache_bytes=cache_bytes)


def built(nodes: NodeStore, entries: Iterable[Entry]) -> Tree:
    ordered = sorted(entries, key=lambda each: each.path.encode())
    return Tree(nodes, build_tree(nodes, [entries_table(ordered)]))


def tiny_repository(store: RepositoryStore | None = None) -> Repository:
    return Repository.init(store or MemoryStore(), "repo/", spec=TINY)


def changes(upserts: Mapping[str, Entry] | None = None, deleted: Iterable[str] = ()) -> ChangeSet:
    return ChangeSet.of((upserts or {}).values(), deleted)


def applied(model: Mapping[str, Entry], change: ChangeSet) -> dict[str, Entry]:
    """What a change set makes of a dictionary."""

    result = {**model, **{each.path: each for each in table_entries(change.upserts)}}
    for path in change.deleted.to_pylist():
        result.pop(str(path), None)
    return result


paths = st.one_of(
    st.integers(0, 300).map(lambda number: f"d{number % 7}/{number:03d}"),
    st.text(st.sampled_from("ab/é\U0001f600\uffff\x01"), min_size=1, max_size=5).filter(
        lambda text: all(text.split("/"))
    ),
)
"""Dataset paths: many that sort close together, and some with every length of UTF-8."""


def is_checkable(found: Iterable[str]) -> bool:
    """Whether a working copy can hold some paths: no file is also a directory."""
    files = set(found)
    return not any(above in files for path in files for above in directories_of(path))


def directories_of(path: str) -> list[str]:
    """The directories that a path lies in."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def are_in_the_way(path: str, present: Iterable[str]) -> set[str]:
    """Those of some paths that cannot be beside a path."""
    above = set(directories_of(path))
    return {each for each in present if each in above or each.startswith(f"{path}/")}


def entry_maps(max_size: int = 120) -> st.SearchStrategy[dict[str, Entry]]:
    """Datasets: entries by path."""
    contents = st.dictionaries(paths, st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=max_size)

    def entries(found: dict[str, tuple[int, int]]) -> dict[str, Entry]:
        kept = {path: each for path, each in found.items() if not any(d in found for d in directories_of(path))}
        return {path: entry(path, content, place=place) for path, (content, place) in kept.items()}

    return contents.map(entries)


@st.composite
def change_sets(draw: st.DrawFn, present: Iterable[str] = (), max_size: int = 40) -> ChangeSet:
    """Change sets, some of whose paths are `present`; what they leave there can be checked out."""
    known = sorted(present)
    any_path = st.one_of(st.sampled_from(known), paths) if known else paths
    wanted = draw(st.dictionaries(any_path, st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=max_size))
    deleted = draw(st.sets(any_path, max_size=max_size))
    makes_room = draw(st.booleans())
    upserts: dict[str, tuple[int, int]] = {}
    for path, each in wanted.items():
        in_the_way = are_in_the_way(path, [other for other in known if other not in deleted] + list(upserts))
        if in_the_way and not (makes_room and in_the_way.isdisjoint(upserts)):
            continue
        deleted |= in_the_way
        upserts[path] = each
    deleted -= upserts.keys()
    return ChangeSet.of((entry(path, each[0], place=each[1]) for path, each in upserts.items()), deleted)
