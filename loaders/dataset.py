"""A data set for training: sample number -> decoded sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import google_crc32c
import numpy as np

from loaders.decode import choose_decoders
from loaders.errors import CorruptSampleError, DecodeError, MissingExtraError
from loaders.samples import SampleIndex
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_runtime import Client, ReadSnapshot
    from loaders.decode import DecodeOption
    from loaders.grouping import KeyRule
    from loaders.samples import MemberBatch
    from versioning import RepositoryRoot, Tree

Sample = dict[str, Any]
"""Field name -> decoded value, and `"__key__"` -> the sample's key."""


class ReadOptions(TypedDict, total=False):
    """How a `ShardDataset` reads and decodes; see there."""

    decode: DecodeOption
    transform: Callable[[Sample], Any] | None
    verify: bool


class ShardDataset:
    """Map-style data set over the samples of a commit, for `torch.utils.data.DataLoader` or any loop.

    Sample i is the i-th in storage order; an `ElasticBatchSampler` shuffles. A batch is read in one call to the cache
    (`__getitems__`, which DataLoader uses), where ranges are sorted and neighbours joined. torch is not needed.

    Args:
        samples: What to deliver.
        client: Reads the bytes.
        decode: `"auto"`: by extension, see `loaders.decode`. None: bytes. A mapping: these fields with these
            functions, the others by extension.
        transform: Called with each decoded sample; what it returns is delivered.
        verify: Compare every field with the crc32c of its commit, where it is known; about 2 us a field of 14 KB.
    """

    def __init__(
        self,
        samples: SampleIndex,
        client: Client,
        *,
        decode: DecodeOption = "auto",
        transform: Callable[[Sample], Any] | None = None,
        verify: bool = False,
    ) -> None:
        self.samples = samples
        self._client = client
        self._decoders = choose_decoders(decode, fields=samples.fields)
        self._transform = transform
        self._verify = verify

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
        samples = SampleIndex.from_tree(tree, root, prefix=prefix, key=key, where=where, fields=fields)
        return cls(samples, client, **options)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        """See `SampleIndex.fingerprint`."""
        return self.samples.fingerprint

    def stats(self) -> ReadSnapshot:
        """Return what this process read so far, and from where; DataLoader workers read in processes of their own."""
        return self._client.stats.snapshot()

    def __getitem__(self, index: int) -> Any:
        """Return one sample; a negative index counts from the end.

        Raises:
            IndexError: If there is no such sample.
            DecodeError, CorruptSampleError: As for `__getitems__`.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return some samples in the order asked for, read in one call.

        Raises:
            IndexError: If there is no such sample.
            DecodeError: If a field is not what its extension says.
            CorruptSampleError: With `verify`, if a field is not what was committed.
            CacheError, SourceError: If bytes cannot be had.
        """
        numbers = self._in_range(np.asarray(indices, dtype=np.int64))
        batch = self.samples.gather(numbers)
        refs = self.samples.objects.refs(batch.objects)
        data = self._client.read_many(list(map(Location, refs, batch.offsets, batch.lengths)))
        samples = []
        stop = 0
        for key, count in zip(self.samples.keys_of(numbers), batch.counts, strict=True):
            start, stop = stop, stop + count
            samples.append(self._sample(key, range(start, stop), batch, data))
        return samples if self._transform is None else [self._transformed(sample) for sample in samples]

    def _in_range(self, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        n = len(self.samples)
        wrong = numbers[(numbers < -n) | (numbers >= n)]
        if wrong.size:
            raise IndexError(f"sample {wrong[0]} is outside of a data set of {n} samples")
        return np.where(numbers < 0, numbers + n, numbers)

    def _sample(self, key: str, members: range, batch: MemberBatch, data: list[memoryview]) -> Sample:
        sample: Sample = {"__key__": key}
        member = members.start
        names, decoders = self.samples.fields, self._decoders
        try:
            for member in members:
                field = batch.fields[member]
                if self._verify:
                    self._check(key, member, batch, data[member])
                sample[names[field]] = decoders[field](data[member])
        except (CorruptSampleError, MissingExtraError):
            raise
        except Exception as error:  # a decoder may be anybody's
            raise self._decode_error(key, member, batch, error) from error
        return sample

    def _check(self, key: str, member: int, batch: MemberBatch, data: memoryview) -> None:
        expected = batch.crcs[member]
        if expected < 0:
            return
        found = google_crc32c.value(np.frombuffer(data, np.uint8))  # the extension takes no memoryview
        if found != expected:
            field, place = self._name(member, batch)
            raise CorruptSampleError(
                f"sample {key}, field {field}: its crc32c is {found:08x}, the commit says {expected:08x} ({place});"
                " the cached or stored copy is damaged",
                key=key,
                field=field,
                uri=place,
            )

    def _decode_error(self, key: str, member: int, batch: MemberBatch, error: Exception) -> DecodeError:
        field, place = self._name(member, batch)
        return DecodeError(
            f"sample {key}, field {field}: cannot decode {batch.lengths[member]} bytes: {type(error).__name__}: {error}"
            f" ({place}); leave the sample out with `where`, or pass a decoder for the field",
            key=key,
            field=field,
            uri=place,
        )

    def _name(self, member: int, batch: MemberBatch) -> tuple[str, str]:
        (ref,) = self.samples.objects.refs([batch.objects[member]])
        return self.samples.fields[batch.fields[member]], f"{ref.uri} at {batch.offsets[member]}"

    def _transformed(self, sample: Sample) -> Any:
        key = sample["__key__"]
        assert self._transform is not None
        try:
            return self._transform(sample)
        except Exception as error:
            error.add_note(f"in the transform of sample {key}")
            raise
