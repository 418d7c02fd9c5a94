"""A data set for training: sample number -> decoded sample."""

from __future__ import annotations

import copy
import operator
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import google_crc32c
import numpy as np

from loaders.decoding import choose_decoders
from loaders.direct import DirectReader
from loaders.drawing import draws_of
from loaders.errors import CorruptSampleError, DecodeError, MissingExtraError
from loaders.formats import open_records
from loaders.indexfiles import IndexFolder
from loaders.records import CommitRecords
from loaders.samples import SampleIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from os import PathLike

    from cache_runtime import Announced, Client, ReadSnapshot
    from loaders.decoding import DecodeOption, Decoder
    from loaders.keys import KeyRule
    from loaders.records import Fetched, Int64Array, Records
    from versioning import RepositoryRoot, Tree

Sample = dict[str, Any]
"""Field name -> decoded value, and `"__key__"` -> the sample's key."""


class ReadOptions(TypedDict, total=False):
    """How a `ShardDataset` reads and decodes; see there."""

    decode: DecodeOption
    transform: Callable[[Sample], Any] | None
    verify: bool


class ShardDataset:
    """Map-style data set over records, for `torch.utils.data.DataLoader` or any loop.

    Sample i is the i-th in storage order; an `ElasticBatchSampler` shuffles. A batch is read in one call
    (`__getitems__`, which DataLoader uses), where ranges are sorted and neighbours joined. torch is not needed.

    Args:
        records: What to deliver: `CommitRecords` for a commit, or what `open_records` found.
        decode: `"auto"`: by extension, see `loaders.decoding`. None: bytes. A mapping: these fields with these
            functions, the others by extension.
        transform: Called with each decoded sample; what it returns is delivered.
        verify: Compare every field with the crc32c that it was stored with, where it is known; about 2 us a field of
            14 KB.

    Attributes:
        records: As given.
        is_local: Set it where every node has all of the data on its own disks: the order `auto` is `runs` then, where
            it would be `stream`. Nothing finds that out: a path may lead to NFS, and all ranks have to choose alike.
    """

    is_local = False

    def __init__(
        self,
        records: Records,
        *,
        decode: DecodeOption = "auto",
        transform: Callable[[Sample], Any] | None = None,
        verify: bool = False,
    ) -> None:
        self.records = records
        self._fields = records.fields
        self._decoders = choose_decoders(decode, fields=self._fields)
        self._transform = transform
        self._verify = verify
        self._draws = any(map(_is_random, self._decoders))
        _keep_freed_memory()
        self._count = len(records)
        self._direct = self._direct_reader()

    @classmethod
    def from_tree(
        cls,
        tree: Tree,
        root: RepositoryRoot,
        client: Client,
        *,
        prefix: str = "",
        key: KeyRule = "path",
        where: Callable[[str], bool] | None = None,
        fields: Sequence[str] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ShardDataset:
        """Open the samples of a tree; see `SampleIndex.from_tree` for how they are chosen and what it raises."""
        samples = SampleIndex.from_tree(
            tree, root, prefix=prefix, key=key, where=where, fields=fields, folder=IndexFolder.beside(client)
        )
        return cls(CommitRecords(samples, client), **options)

    @classmethod
    def open(
        cls,
        place: str | PathLike[str] | Sequence[str],
        *,
        key: KeyRule = "path",
        client: Client | None = None,
        store_options: Mapping[str, object] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ShardDataset:
        """Open samples outside of a repository: shards by path, URI, glob or brace list, or a directory of them.

        Fields of MDS, LitData and Parquet are decoded as their shards say, unless `decode` says otherwise.

        Args:
            place: See `loaders.open_records`, also for what it raises.
            key: What joins members of a tar, or loose files, into samples.
            client: Reads and caches what is not local.
            store_options: Options of its store, such as `{"endpoint_url": ...}`.
            options: As for the class.
        """
        records = open_records(place, key=key, client=client, options=store_options)
        decode = options.get("decode", "auto")
        if decode is not None:
            options["decode"] = {**getattr(records, "decoders", {}), **({} if decode == "auto" else decode)} or "auto"
        return cls(records, **options)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def fingerprint(self) -> str:
        """See `Records.fingerprint`."""
        return self.records.fingerprint

    @property
    def shard_starts(self) -> Int64Array:
        """See `Records.shard_starts`."""
        return self.records.shard_starts

    def prefetch(self, indices: Sequence[int]) -> Announced | None:
        """Announce the samples that are read next, in order: what the cache lacks of them is fetched in the background.

        Bounded: a call fetches no more than 256 MiB. Nothing has to come of it; a read waits for what is being fetched.

        Returns:
            The bytes fetched, once they are here; None if the records are not read through a cache. For as long as you
            keep it, and until its `passed()`, the cache evicts these samples last.

        Raises:
            IndexError: If there is no such sample.
        """
        if not isinstance(self.records, CommitRecords) or self.records.client.store is None:
            return None
        return self.records.prefetch(self._in_range(np.asarray(indices, dtype=np.int64)))

    def stats(self) -> ReadSnapshot:
        """Return what this process read so far through a cache; DataLoader workers read in processes of their own.

        Raises:
            TypeError: If the records are not read through a cache.
        """
        if not isinstance(self.records, CommitRecords):
            raise TypeError(f"{type(self.records).__name__} are not read through a cache, which would count reads")
        return self.records.stats()

    @property
    def decoders(self) -> dict[str, Decoder]:
        """The decoder of each field."""
        return dict(zip(self._fields, self._decoders, strict=True))

    @property
    def transform(self) -> Callable[[Sample], Any] | None:
        """As given."""
        return self._transform

    def undecoded(self, fields: Collection[str]) -> ShardDataset:
        """Return the same samples with the bytes of these fields as they are stored, and without the transform.

        For whoever decodes into places of its own, and calls the transform afterwards: see `loaders.running.slots`.
        """
        twin = copy.copy(self)
        twin._decoders = [
            _as_stored if field in fields else decoder
            for field, decoder in zip(self._fields, self._decoders, strict=True)
        ]
        twin._transform = None
        twin._draws = any(map(_is_random, twin._decoders))
        twin._direct = twin._direct_reader()
        return twin

    def __getitem__(self, index: int) -> Any:
        """Return one sample; a negative index counts from the end.

        Raises:
            IndexError: If there is no such sample.
            DecodeError, CorruptSampleError: As for `__getitems__`.
        """
        number = index if type(index) is int else operator.index(index)
        direct = self._direct
        if direct is not None and 0 <= number < self._count:
            try:
                sample = direct.read(number)
            except Exception:  # noqa: BLE001 - a decoder may be anybody's: below it is told which
                sample = None
            if sample is not None:
                return sample if self._transform is None else self._transformed(sample)
        return self.__getitems__([number])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return some samples in the order asked for, read in one call; a negative index counts from the end.

        Raises:
            IndexError: If there is no such sample.
            DecodeError: If a field is not what its extension says.
            CorruptSampleError: With `verify`, if a field is not what was stored.
            CacheError, SourceError: If bytes cannot be had.
        """
        samples = self._at_hand(indices)
        if samples is not None:
            return samples
        draws = draws_of(indices) if self._draws else None
        return self._fetched(self._in_range(np.asarray(indices, dtype=np.int64)), draws)

    def fetch_samples(self, numbers: Int64Array, draws: Sequence[int] | None = None) -> list[Any]:
        """Do `__getitems__` for numbers in [0, n), with the draw of each where a decoder wants one."""
        samples = self._at_hand(numbers.tolist())
        return self._fetched(numbers, draws) if samples is None else samples

    def _at_hand(self, numbers: Sequence[int]) -> list[Any] | None:
        """Return samples whose bytes are mapped and checked; None if that takes more."""
        direct = self._direct
        if direct is None or not len(numbers) or min(numbers) < 0 or max(numbers) >= self._count:
            return None
        try:
            samples = direct.read_many(numbers)
        except Exception:  # noqa: BLE001 - a decoder may be anybody's: elsewhere it is told which
            return None
        if samples is None or self._transform is None:
            return samples
        return [self._transformed(sample) for sample in samples]

    def _fetched(self, numbers: Int64Array, draws: Sequence[int] | None) -> list[Any]:
        fetched = self.records.fetch(numbers)
        samples = self._decoded(self.records.keys_of(numbers), fetched, draws)
        return samples if self._transform is None else [self._transformed(sample) for sample in samples]

    def _direct_reader(self) -> DirectReader | None:
        records = self.records
        if not isinstance(records, CommitRecords) or records.client.store is None or self._verify or self._draws:
            return None
        return DirectReader(records.samples, records.client, self._decoders)

    def _decoded(self, keys: list[str], fetched: Fetched, draws: Sequence[int] | None) -> list[Sample]:
        count = fetched.counts[0] if keys else 0
        fields = fetched.fields[:count]
        alike = fetched.counts == [count] * len(keys) and fetched.fields == fields * len(keys)
        if alike and not self._verify and draws is None:
            try:
                return self._columns(keys, fields, fetched.data)
            except Exception:  # noqa: BLE001 - a decoder may be anybody's: sample by sample it is told which
                pass
        samples = []
        stop = 0
        for key, count, draw in zip(keys, fetched.counts, draws or repeat(0, len(keys)), strict=True):
            start, stop = stop, stop + count
            samples.append(self._sample(key, range(start, stop), fetched, draw))
        return samples

    def _columns(self, keys: list[str], fields: list[int], data: Sequence[memoryview]) -> list[Sample]:
        """Decode samples that all have the same fields, field by field: half the steps in Python."""
        names = ["__key__", *(self._fields[field] for field in fields)]
        columns = [list(map(self._decoders[field], data[place :: len(fields)])) for place, field in enumerate(fields)]
        return [dict(zip(names, row, strict=True)) for row in zip(keys, *columns, strict=True)]

    def _in_range(self, numbers: Int64Array) -> Int64Array:
        n = len(self.records)
        wrong = numbers[(numbers < -n) | (numbers >= n)]
        if wrong.size:
            raise IndexError(f"sample {wrong[0]} is outside of a data set of {n} samples")
        return np.where(numbers < 0, numbers + n, numbers)

    def _sample(self, key: str, members: range, fetched: Fetched, draw: int) -> Sample:
        sample: Sample = {"__key__": key}
        member = members.start
        names, decoders = self._fields, self._decoders
        try:
            for member in members:
                field = fetched.fields[member]
                if self._verify:
                    self._check(key, member, fetched)
                decoder: Any = decoders[field]
                extra = (draw,) if _is_random(decoder) else ()
                sample[names[field]] = decoder(fetched.data[member], *extra)
        except (CorruptSampleError, MissingExtraError):
            raise
        except Exception as error:  # a decoder may be anybody's
            raise self._decode_error(key, member, fetched, error) from error
        return sample

    def _check(self, key: str, member: int, fetched: Fetched) -> None:
        expected = -1 if fetched.crcs is None else fetched.crcs[member]
        if expected < 0:
            return
        found = google_crc32c.value(np.frombuffer(fetched.data[member], np.uint8))  # the extension takes no memoryview
        if found != expected:
            field, place = self._fields[fetched.fields[member]], fetched.place(member)
            raise CorruptSampleError(
                f"sample {key}, field {field}: its crc32c is {found:08x}, the commit says {expected:08x} ({place});"
                " the cached or stored copy is damaged",
                key=key,
                field=field,
                uri=place,
            )

    def _decode_error(self, key: str, member: int, fetched: Fetched, error: Exception) -> DecodeError:
        field, place = self._fields[fetched.fields[member]], fetched.place(member)
        return DecodeError(
            f"sample {key}, field {field}: cannot decode {len(fetched.data[member])} bytes:"
            f" {type(error).__name__}: {error}"
            f" ({place}); leave the sample out with `where`, or pass a decoder for the field",
            key=key,
            field=field,
            uri=place,
        )

    def _transformed(self, sample: Sample) -> Any:
        key = sample["__key__"]
        assert self._transform is not None
        try:
            return self._transform(sample)
        except Exception as error:
            error.add_note(f"in the transform of sample {key}")
            raise


def _is_random(decoder: Decoder) -> bool:
    """Say whether it wants a number for each sample and epoch; see `loaders.running.slots`."""
    return bool(getattr(decoder, "draws", False))


def _as_stored(data: memoryview) -> memoryview:
    return data


def _keep_freed_memory() -> None:
    """Make glibc keep what a batch frees for the next one.

    It gives blocks of over 128 KiB back to the system, and their pages are faulted in anew: a fifth of the processor
    time of a batch that goes through a worker's pipe. Once a larger block was freed, it keeps blocks up to that size,
    as in any process that has freed a large array (`mallopt(3)`, M_MMAP_THRESHOLD); other allocators are not touched.
    """
    bytes(16 << 20)  # zeros of the system that nobody touches: no memory is used
