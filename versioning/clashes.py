"""Clashes: a path that is a file and, of another path, a directory. No working copy can hold both.

What two sides add is compared as whole columns; of a tree only the surroundings of added paths are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from versioning.columns import as_bytes, as_filter, compute, directories, first_not_below, is_in, single
from versioning.errors import PathClashError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.columns import Mask
    from versioning.diffs import Diff
    from versioning.trees import Tree


_FEW = 10_000  # are compared one by one


class Clash(NamedTuple):
    """A file among sorted paths, and the positions `[start, stop)` of the paths below it; at least one."""

    file: int
    start: int
    stop: int

    def members(self) -> list[int]:
        """Return all positions, ascending."""
        return [self.file, *range(self.start, self.stop)]


def find_clashes(paths: Any) -> list[Clash]:
    """Return the clashes among paths.

    Args:
        paths: Strictly ascending string array.
    """
    found: list[Clash] = []
    keys = as_bytes(paths)
    if not _may_clash(keys):
        return found
    for file in np.flatnonzero(is_in(paths, directories(paths))).tolist():
        key = keys[file].as_py()
        start = first_not_below(keys, key + b"/", file)
        found.append(Clash(file, start, first_not_below(keys, key + b"0", start)))  # "0" comes after "/"
    return found


def _may_clash(keys: Any) -> bool:
    """Say whether any of strictly ascending keys could be the directory of another; mostly, and cheaply, none.

    What comes between a file and a path below it begins with the file's name, so the next key does.
    """
    if len(keys) < 2:
        return False
    offsets = np.frombuffer(keys.buffers()[1], dtype=np.int32)[keys.offset : keys.offset + len(keys) + 1]
    data = np.frombuffer(keys.buffers()[2], dtype=np.uint8)
    starts, sizes = offsets[:-1], np.diff(offsets)
    at = np.flatnonzero((sizes[:-1] < sizes[1:]) & (sizes[:-1] > 0))
    for part in (1, 2, 4):  # the last byte of the shorter one differs most often
        place = sizes[at] - 1 - (sizes[at] - 1) * (part - 1) // part
        at = at[data[starts[at] + place] == data[starts[at + 1] + place]]
    if len(at) > _FEW:
        return True
    return any(keys[number + 1].as_py().startswith(keys[number].as_py()) for number in at.tolist())


def is_clashing(paths: Any, present: Mask) -> Mask:
    """Say which of the paths that are present, of strictly ascending ones, clash with each other."""
    at = np.flatnonzero(present)
    clashing = np.zeros(len(paths), dtype=np.bool_)
    for clash in find_clashes(single(paths.filter(as_filter(present)))):
        clashing[at[clash.members()]] = True
    return clashing


def clashing_with(tree: Tree, names: Any) -> Mask:
    """Say which names are a directory of the tree, or lie below one of its files; in the order of the names."""
    ordered = names.sort()
    files = files_above(tree, ordered)
    below = is_in(names, ordered.filter(as_filter(tree.has_below(ordered))))
    return below | np.array([_is_below_any(str(name), files) for name in names.to_pylist()], dtype=np.bool_)


def check_no_clash(tree: Tree | None, changes: Diff) -> None:
    """Check that what is added to a tree (None: no paths) clashes with nothing that is or stays there.

    A clash that the tree has already is none of this change's; versions before 0.1 could make some. O(changes) reads.

    Raises:
        PathClashError: Naming the first clash.
    """
    ops = changes.table.column("op")
    added = single(changes.table.column("path").filter(compute.equal(ops, "A")))
    if not len(added):
        return
    put = single(changes.new_entries.column("path"))
    is_new = is_in(put, added)
    for clash in find_clashes(put):
        if is_new[clash.members()].any():
            raise PathClashError(put[clash.file].as_py(), put[clash.start].as_py())
    if tree is None or not tree.rows:
        return
    gone = single(changes.table.column("path").filter(compute.equal(ops, "D")))
    for file, below in _clashes_in(tree, added, gone):
        raise PathClashError(file, below)


def _clashes_in(tree: Tree, added: Any, gone: Any) -> Iterator[tuple[str, str]]:
    """Yield file and a path below it, of which one is added and the other one stays in the tree."""
    for path in added.filter(as_filter(tree.has_below(added))).to_pylist():
        for table in tree.scan(f"{path}/", columns=["path"]):
            paths = table.column("path")
            staying = paths.filter(as_filter(~is_in(paths, gone)))
            if len(staying):
                yield str(path), str(staying[0])
                break
    files = set(files_above(tree, added)).difference(map(str, gone.to_pylist()))
    if files:
        yield from ((f, str(path)) for path in added.to_pylist() for f in files if str(path).startswith(f"{f}/"))


def files_above(tree: Tree, paths: Any) -> list[str]:
    """Return the directories of some paths, ascending, that are files of a tree, and no directories of it."""
    above = directories(paths).sort()
    if not len(above):
        return []
    # What has something below it is no file; mostly that shows without reading another leaf.
    unknown = above.filter(as_filter(~tree.has_below(above)))
    return [str(path) for path in tree.get_many(unknown).column("path").to_pylist()] if len(unknown) else []


def _is_below_any(name: str, files: list[str]) -> bool:
    return any(name.startswith(f"{file}/") for file in files)
