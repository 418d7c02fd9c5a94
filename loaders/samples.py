"""Samples: which ranges of which objects belong together, as arrays."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh3_128

from loaders.columns import to_numbers
from loaders.errors import MissingFieldError
from loaders.grouping import COLUMNS, group_members
from loaders.indexfiles import IndexFolder, digest_of, open_index
from loaders.objects import ObjectTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loaders.keys import KeyRule
    from versioning import RepositoryRoot, Tree

_NAMED_IN_ERRORS = 3
_LARGE = 10_000  # samples, about 1 MB: a smaller index travels in the pickle itself


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
        path: The file that the arrays are mapped from, None if they are this process's own.
        folder: Where a large index that is pickled leaves its arrays, for the other process to map.
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
    path: str | None = None
    folder: IndexFolder | None = None

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
        folder: IndexFolder | None = None,
    ) -> SampleIndex:
        """Group the paths of a tree into samples, or open the index that was made of them before.

        Args:
            tree: The commit's tree.
            root: The repository that the tree's own objects lie in.
            prefix: Only paths that start with it; a directory ends in "/".
            key: `path`: the path up to the first dot of its base name, as webdataset groups a tar. `stem`: only the
                base name up to its first dot, which joins `images/3/17.png` with `labels/17.json`.
            where: Keep the samples whose key it accepts.
            fields: Keep these fields only, and ask every sample to have them; None keeps what there is.
            folder: Keeps indexes as files, unless `where` or a function as `key` makes them the caller's own.

        Raises:
            DuplicateFieldError: If two paths have the same key and field.
            MissingFieldError: If a sample lacks one of `fields`.
        """
        if folder is None or where is not None or not isinstance(key, str) or ":" in key:
            index = cls._group(tree, root, prefix=prefix, key=key, where=where, folder=folder)
        else:
            path = folder.path_of(tree.id, prefix, key, root.store, root.prefix)
            found = folder.load(path, root)
            if found is None:
                found = cls._group(tree, root, prefix=prefix, key=key, where=None, folder=folder)
                if folder.save(path, found):  # from here on in memory that processes share
                    found = folder.load(path, root) or found
            index = found
        return index if fields is None else index.select(fields)

    @classmethod
    def _group(
        cls,
        tree: Tree,
        root: RepositoryRoot,
        *,
        prefix: str,
        key: KeyRule,
        where: Callable[[str], bool] | None,
        folder: IndexFolder | None,
    ) -> SampleIndex:
        grouped = group_members(tree.scan(prefix, columns=COLUMNS), rule=key, where=where)
        members = grouped.members
        return cls(
            keys=grouped.keys,
            starts=grouped.starts,
            member_object=grouped.member_object,
            member_offset=to_numbers(members["offset"]),
            member_length=to_numbers(members["size"]),
            member_field=grouped.member_field,
            member_crc=to_numbers(members["crc32c"]),
            fields=grouped.fields,
            objects=ObjectTable(grouped.objects, root),
            skipped=grouped.skipped,
            folder=folder,
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a large index as the path of its file: a spawned worker maps what its parent has."""
        path = self.path
        if path is None and self.folder is not None and len(self) >= _LARGE:
            root = self.objects.root  # the fingerprint does not say where the bytes lie, the digest does
            wanted = self.folder.path_of(self.fingerprint, digest_of(self), root.store, root.prefix, *self.fields)
            path = wanted if os.path.exists(wanted) or self.folder.save(wanted, self) else None
        if path is not None and os.path.exists(path):
            return _reopen, (path, self.objects.root, self.folder)
        state = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return SampleIndex, tuple(state)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the keys, fields and lengths in order, not of where they lie: what a saved position depends on."""
        hasher = xxh3_128("\0".join(self.fields).encode())
        keys = pa.concat_arrays([self.keys, pa.nulls(0, pa.large_string())])  # a copy that starts at offset 0
        for buffer in keys.buffers()[1:]:
            hasher.update(buffer or b"")
        for array in (self.starts, self.member_field, self.member_length):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return int(self.member_length.sum())

    def shard_starts(self) -> npt.NDArray[np.int64]:
        """Return where shards begin, and n at the end; a shard is the object of a sample's first member.

        int64, shape (shards + 1,): samples [shard_starts[s], shard_starts[s + 1]) lie in shard s.
        """
        if not len(self):
            return np.zeros(1, dtype=np.int64)
        shard = self.member_object[self.starts[:-1]]
        begins = np.flatnonzero(np.diff(shard, prepend=-1))
        return np.append(begins, len(self)).astype(np.int64)

    def sample_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of each sample, int64, shape (n,)."""
        ends = np.concatenate([[0], np.cumsum(self.member_length)])
        return np.diff(ends[self.starts])

    def select(self, fields: Sequence[str]) -> SampleIndex:
        """Return the same samples with these fields only.

        Raises:
            MissingFieldError: If a sample lacks one of them; the message names some of the samples.
        """
        wanted = tuple(sorted(set(fields)))
        if wanted == self.fields and self.fields_of_each:
            return self
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
            path=None,
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
        each = self.fields_of_each
        if each:
            members = (samples[:, None] * each + np.arange(each)).reshape(-1)
            counts, fields = [each] * len(samples), [*range(each)] * len(samples)
        else:
            members, counts = self._members_of(samples)
            fields = self.member_field[members].tolist()
        objects, offsets, lengths, crcs = (
            column[members].tolist()
            for column in (self.member_object, self.member_offset, self.member_length, self.member_crc)
        )
        return MemberBatch(counts, objects, offsets, lengths, fields, crcs)

    @cached_property
    def columns(self) -> tuple[memoryview, memoryview, memoryview]:
        """Object, offset and length of each member, for single numbers in Python.

        An element of a memoryview costs a third of one of a numpy array.
        """
        return self.member_object.data, self.member_offset.data, self.member_length.data

    def _members_of(self, samples: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[int]]:
        begins = self.starts[samples]
        counts = self.starts[samples + 1] - begins
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(begins - (ends - counts), counts) + np.arange(total), counts.tolist()

    @cached_property
    def fields_of_each(self) -> int:
        """How many fields a sample has, if all have all of them; 0 if not."""
        each = len(self.fields)
        full = len(self.member_field) == each * len(self)
        if not full or (np.diff(self.starts) != each).any():
            return 0
        return each  # no sample has a field twice, and fields are sorted

    def keys_of(self, samples: npt.NDArray[np.int64]) -> list[str]:
        """Return the keys of some samples, in the order asked for."""
        offsets, text = self.key_bytes
        begins, ends = offsets[samples].tolist(), offsets[samples + 1].tolist()
        return [str(text[begin:end], "utf-8") for begin, end in zip(begins, ends, strict=True)]

    def key_of(self, number: int) -> str:
        """Return the key of one sample."""
        begins, text = self.key_views
        return str(text[begins[number] : begins[number + 1]], "utf-8")

    @cached_property
    def key_views(self) -> tuple[memoryview, memoryview]:
        """`key_bytes`, for single numbers in Python; see `columns`."""
        begins, text = self.key_bytes
        return begins.data, text

    @cached_property
    def key_bytes(self) -> tuple[npt.NDArray[np.int64], memoryview]:
        """Where each key begins and ends, and the bytes: four times as fast as Arrow's objects in between."""
        keys = self.keys if self.keys.offset == 0 else pa.concat_arrays([self.keys, pa.nulls(0, pa.large_string())])
        _, offsets, text = keys.buffers()
        begins = (
            np.frombuffer(memoryview(offsets), dtype=np.int64, count=len(keys) + 1)
            if offsets
            else np.zeros(1, dtype=np.int64)
        )
        return begins, memoryview(text or b"")


def _reopen(path: str, root: RepositoryRoot, folder: IndexFolder | None) -> SampleIndex:
    return open_index(path, root, folder=folder, check=False)  # who pickled it has checked it
