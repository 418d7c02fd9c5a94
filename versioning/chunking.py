"""Where a sorted run of paths is cut into nodes: a pure function of the paths, never of the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import xxhash

from versioning.columns import as_bytes, as_positions, single

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from versioning.columns import Column, Mask


@dataclass(frozen=True, slots=True)
class CutRule:
    """How long nodes are, in rows. Frozen in repo.json: another rule gives other trees for the same content.

    A node ends after a row whose `xxh3_64(path, seed=level) % target` is 0, once it has `minimum` rows, and always
    when it has `maximum`.
    """

    target: int
    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        # Under two rows an inner level would be as long as the one below it, and the tree would never end.
        if not 2 <= self.minimum <= self.maximum or self.target < 1:
            raise ValueError(f"cut rule needs 2 <= min <= max and target >= 1, found {self}")


LEAF_RULE = CutRule(target=8192, minimum=2048, maximum=32768)
"""About 0.4 MB of Parquet per leaf: one round trip's worth on an object store."""
INNER_RULE = CutRule(target=512, minimum=128, maximum=2048)
"""10^8 paths are then two inner levels."""


def cut_points(paths: Column, *, level: int, rule: CutRule, silent: Mask | None = None) -> list[int]:
    """Return the ends (exclusive) of the nodes that a run of paths completes, from its first row on.

    Rows after the last end are not a complete node: more rows may follow, or they are the level's last node.

    Args:
        paths: Strictly ascending; the first row starts a node.
        level: 0 for leaves; the hash's seed, so that levels are not cut at the same paths.
        rule: Length of the nodes.
        silent: Which rows are known to end no node by their hash: those need not be hashed.
    """
    first = min(rule.minimum - 1, len(paths))  # no node ends before
    asked = np.arange(first, len(paths)) if silent is None else first + np.flatnonzero(~silent[first:])
    wanted = paths.slice(first) if silent is None else single(paths).take(as_positions(asked))
    hits = asked[path_hashes(wanted, seed=level) % np.uint64(rule.target) == 0]
    ends: list[int] = []
    start = 0
    while start + rule.minimum <= len(paths):
        hit = int(np.searchsorted(hits, start + rule.minimum - 1))
        natural = int(hits[hit]) + 1 if hit < len(hits) else len(paths) + 1
        end = min(natural, start + rule.maximum)
        if end > len(paths):
            break
        ends.append(end)
        start = end
    return ends


def path_hashes(paths: Column, *, seed: int) -> NDArray[np.uint64]:
    """Hash the UTF-8 bytes of each path."""
    digest: Any = xxhash.xxh3_64_intdigest
    chunks = paths.chunks if isinstance(paths, pa.ChunkedArray) else [paths]
    hashes = (digest(path, seed) for chunk in chunks for path in as_bytes(chunk).to_pylist())
    return np.fromiter(hashes, np.uint64, len(paths))
