"""What nodes name: children, and the packs and blobs that hold the bytes of a leaf's paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from versioning.columns import as_mask, compute, single
from versioning.maintenance.ids import ID_BYTES, Ids
from versioning.maintenance.keys import ObjectKind, ids_of_keys

if TYPE_CHECKING:
    from versioning.nodes import Node

_NONE: Ids = np.empty((0, ID_BYTES), np.uint8)


class Named(NamedTuple):
    """Ids that a node names: children of an inner node, packs and blobs of a leaf; none of them twice."""

    nodes: Ids
    packs: Ids
    blobs: Ids


def named_by(node: Node) -> Named:
    """Return what a node names. Keys that no writer of Forebay makes are left out: nothing deletes such objects."""
    if node.level:
        return Named(fixed_ids(single(node.table.column("child"))), _NONE, _NONE)
    own = as_mask(compute.equal(node.table.column("store"), ""))
    keys = compute.unique(single(node.table.column("key").filter(pa.array(own))))
    return Named(_NONE, ids_of_keys(keys, ObjectKind.PACK)[1], ids_of_keys(keys, ObjectKind.BLOB)[1])


def fixed_ids(values: Any) -> Ids:
    """View a column of ids as rows."""
    data = np.frombuffer(values.buffers()[1], np.uint8)
    start = values.offset * ID_BYTES
    return data[start : start + len(values) * ID_BYTES].reshape(-1, ID_BYTES)
