"""What differs between two trees within some spans of paths, reading only nodes that cover them and differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from versioning.columns import concat, first_not_below
from versioning.diffs import Diff, diff_tables
from versioning.entries import ENTRY_SCHEMA
from versioning.names import check_path
from versioning.walking import check_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore


class Span(NamedTuple):
    """Paths in `[low, high)`, as bytes."""

    low: bytes
    high: bytes


def spans_of(paths: Iterable[str]) -> list[Span]:
    """Return the spans of files and of all files below directories of these names, in order, without overlaps.

    Raises:
        InvalidNameError: For what cannot be a path.
    """
    found: list[Span] = []
    for path in paths:
        name = path.rstrip("/")
        check_path(name)
        key = name.encode()
        found += [Span(key, key + b"\0"), Span(key + b"/", key + b"0")]  # "0" comes after "/"
    merged: list[Span] = []
    for span in sorted(found):
        if merged and span.low <= merged[-1].high:
            merged[-1] = Span(merged[-1].low, max(merged[-1].high, span.high))
        else:
            merged.append(span)
    return merged


def diff_spans(nodes: NodeStore, old: NodeId | None, new: NodeId | None, spans: Sequence[Span]) -> Diff:
    """Compare two trees (None: no paths) within spans; O(differing leaves that cover them + depth) reads."""
    left, right = ([nodes.read(root)] if root is not None else [] for root in (old, new))
    while (level := max((node.level for node in (*left, *right)), default=0)) > 0:
        common = _below(left, level, spans) & _below(right, level, spans)
        left, right = (_step(nodes, side, level, common, spans) for side in (left, right))
    common = {node.id for node in left} & {node.id for node in right}
    before, after = (_rows(side, common, spans) for side in (left, right))
    return diff_tables(before, after)


def _below(side: Sequence[Node], level: int, spans: Sequence[Span]) -> set[NodeId]:
    """Return the ids of the next level's nodes; a tree that is lower than the other one waits."""
    return {
        found
        for node in side
        for found in ([node.child(at) for at in _covering(node, spans)] if node.level == level else [node.id])
    }


def _step(nodes: NodeStore, side: Sequence[Node], level: int, common: set[NodeId], spans: Sequence[Span]) -> list[Node]:
    """Read the next level's nodes that cover a span, without those that both trees have."""
    if any(node.level < level for node in side):  # a root, alone
        return [node for node in side if node.id not in common]
    wanted = [(node, at) for node in side for at in _covering(node, spans) if node.child(at) not in common]
    children = list(nodes.read_all(node.child(at) for node, at in wanted))
    for (node, at), child in zip(wanted, children, strict=True):
        check_child(node, child, at)
    return children


def _covering(node: Node, spans: Sequence[Span]) -> list[int]:
    """Return the positions of an inner node's children that may hold paths of a span, ascending."""
    found: list[int] = []
    for span in spans:
        at = max(first_not_below(node.keys, span.low), found[-1] + 1 if found else 0)
        # A child's paths lie after the last path of the child before it.
        while at < len(node.keys) and (at == 0 or node.keys[at - 1].as_py() < span.high):
            found.append(at)
            at += 1
    return found


def _rows(side: Sequence[Node], common: set[NodeId], spans: Sequence[Span]) -> pa.Table:
    parts = []
    for leaf in side:
        if leaf.id in common:
            continue
        for span in spans:
            start = first_not_below(leaf.keys, span.low)
            end = first_not_below(leaf.keys, span.high, start)
            if end > start:
                parts.append(leaf.table.slice(start, end - start))
    return concat(parts, ENTRY_SCHEMA)
