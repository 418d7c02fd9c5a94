"""Samples: which ranges of which objects belong together, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh3_128

from loaders.errors import MissingFieldError
from loaders.grouping import COLUMNS, KeyRule, group_members
from loaders.objects import ObjectTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from versioning import RepositoryRoot, Tree

_NAMED_IN_ERRORS = 3


class MemberBatch(NamedTuple):
    """The members of some samples, flat: sample i owns the next `counts[i]` of them. Python lists, equally long."""

    counts: list[int]
    objects: list[int]
    offsets: list[int]
    lengths: list[int]
    fields: list[int]
    crcs: list[int]


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """The samples of one commit in storage order: sample i lies before sample i + 1.

    A sample is the files that share a key; the extension of each is its field. All arrays are numpy's or Arrow's, so
    ten million samples are a few hundred MB that forked workers share; no Python object is kept per sample.

    Attributes:
        keys: Sample keys, a string array of length n.
        starts: int64, shape (n + 1,): members of sample i are [starts[i], starts[i + 1]), by field name.
        member_object: int32, index into `objects`.
        member_offset: int64, bytes from the object's start.
        member_length: int64, bytes.
        member_field: int32, index into `fields`.
        member_crc: int64, crc32c of the member, -1 where unknown.
        fields: Field names, sorted.
        objects: Every object once.
        skipped: Paths that are no member of a sample: without an extension, or hidden (`.name`).
    """

    keys: pa.LargeStringArray
    starts: npt.NDArray[np.int64]
    member_object: npt.NDArray[np.int32]
    member_offset: npt.NDArray[np.int64]
    member_length: npt.NDArray[np.int64]
    member_field: npt.NDArray[np.int32]
    member_crc: npt.NDArray[np.int64]
    fields: tuple[str, ...]
    objects: ObjectTable
    skipped: int = 0

    @classmethod
    def from_tree(
        cls,
        tree: Tree,
        root: RepositoryRoot,
        *,
        prefix: str = "",
        key: KeyRule = "path",
        where: Callable[[str], bool] | None = None,
        fields: Sequence[str] | None = None,
    ) -> SampleIndex:
        """Group the paths of a tree into samples.

        Args:
            tree: The commit's tree.
            root: The repository that the tree's own objects lie in.
            prefix: Only paths that start with it; a directory ends in "/".
            key: `path`: the path up to the first dot of its base name, as webdataset groups a tar. `stem`: only the
                base name up to its first dot, which joins `images/3/17.png` with `labels/17.json`.
            where: Keep the samples whose key it accepts.
            fields: Keep these fields only, and ask every sample to have them; None keeps what there is.

        Raises:
            DuplicateFieldError: If two paths have the same key and field.
            MissingFieldError: If a sample lacks one of `fields`.
        """
        grouped = group_members(tree.scan(prefix, columns=COLUMNS), rule=key, where=where)
        members = grouped.members
        index = cls(
            keys=grouped.keys,
            starts=grouped.starts,
            member_object=grouped.member_object,
            member_offset=members["offset"].to_numpy(),
            member_length=members["size"].to_numpy(),
            member_field=grouped.member_field,
            member_crc=members["crc32c"].to_numpy(),
            fields=grouped.fields,
            objects=ObjectTable(grouped.objects, root),
            skipped=grouped.skipped,
        )
        return index if fields is None else index.select(fields)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the keys, fields and lengths in order, not of where they lie: what a saved position depends on."""
        hasher = xxh3_128("\0".join(self.fields).encode())
        keys = pa.concat_arrays([self.keys, pa.array([], pa.large_string())])  # a copy that starts at offset 0
        for buffer in keys.buffers()[1:]:
            hasher.update(buffer or b"")
        for array in (self.starts, self.member_field, self.member_length):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return int(self.member_length.sum())

    def select(self, fields: Sequence[str]) -> SampleIndex:
        """Return the same samples with these fields only.

        Raises:
            MissingFieldError: If a sample lacks one of them; the message names some of the samples.
        """
        wanted = tuple(sorted(set(fields)))
        for field in wanted:
            self._check_has(field)
        code_of = np.full(len(self.fields), -1, dtype=np.int32)
        for code, field in enumerate(wanted):
            code_of[self.fields.index(field)] = code
        codes = code_of[self.member_field]
        kept = np.flatnonzero(codes >= 0)
        return replace(
            self,
            starts=np.arange(len(self) + 1, dtype=np.int64) * len(wanted),
            member_object=self.member_object[kept],
            member_offset=self.member_offset[kept],
            member_length=self.member_length[kept],
            member_field=codes[kept],
            member_crc=self.member_crc[kept],
            fields=wanted,
        )

    def _check_has(self, field: str) -> None:
        having = np.zeros(len(self), dtype=bool)
        if field in self.fields:
            members = np.flatnonzero(self.member_field == self.fields.index(field))
            having[np.searchsorted(self.starts, members, side="right") - 1] = True
        missing = np.flatnonzero(~having)
        if missing.size == 0 and field in self.fields:
            return
        names = tuple(self.keys_of(missing[:_NAMED_IN_ERRORS]))
        raise MissingFieldError(
            f"{missing.size} of {len(self)} samples have no field {field!r}: {', '.join(names)}"
            f"{', ...' if missing.size > len(names) else ''}; the fields are {', '.join(self.fields) or 'none'};"
            " leave the samples out with `where`, or choose a key rule that joins their files",
            field=field,
            keys=names,
            count=int(missing.size),
        )

    def gather(self, samples: npt.NDArray[np.int64]) -> MemberBatch:
        """Return the members of some samples, in the order asked for.

        Args:
            samples: Sample numbers in [0, n), one dimension.
        """
        begins = self.starts[samples]
        counts = self.starts[samples + 1] - begins
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        members = np.repeat(begins - (ends - counts), counts) + np.arange(total)
        columns = (self.member_object, self.member_offset, self.member_length, self.member_field, self.member_crc)
        return MemberBatch(counts.tolist(), *[column[members].tolist() for column in columns])

    def keys_of(self, samples: npt.NDArray[np.int64]) -> list[str]:
        """Return the keys of some samples, in the order asked for."""
        keys: list[Any] = self.keys.take(samples).to_pylist()
        return keys
