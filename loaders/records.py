"""Records: an ordered, numbered collection of samples that gives their bytes, whatever they lie in."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from cache_runtime import Announced, Client, ReadSnapshot
    from loaders.samples import SampleIndex

    Int64Array = npt.NDArray[np.int64]


class Fetched(NamedTuple):
    """The bytes of some samples, member after member: sample i owns the next `counts[i]` members.

    Attributes:
        counts: Members of each sample.
        fields: Of each member, the index into `Records.fields`.
        data: Of each member, its bytes; valid for as long as they are referenced.
        crcs: Of each member, the crc32c that it was stored with, -1 where unknown; None if none is known.
        place: Names the object and the offset of a member, for errors.
    """

    counts: list[int]
    fields: list[int]
    data: Sequence[memoryview]
    crcs: Sequence[int] | None
    place: Callable[[int], str]


class Records(Protocol):
    """What `ShardDataset` reads from. Usable in children of a fork, and pickled to workers that are spawned."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names, sorted."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for the same samples in the same order only: what a saved position depends on."""
        ...

    @property
    def shard_starts(self) -> Int64Array:
        """Return where shards begin, int64, shape (shards + 1,).

        Samples [shard_starts[s], shard_starts[s + 1]) lie in shard s.
        """
        ...

    @property
    def sample_bytes(self) -> Int64Array | None:
        """Bytes of each sample, int64, shape (n,); None if that is not known without reading."""
        ...

    def __len__(self) -> int: ...

    def keys_of(self, numbers: Int64Array) -> list[str]:
        """Return the keys of some samples, in the order asked for."""
        ...

    def fetch(self, numbers: Int64Array) -> Fetched:
        """Return the bytes of some samples, in the order asked for, repeats allowed.

        One call: ranges are sorted and neighbours joined where that saves requests.

        Args:
            numbers: Sample numbers in [0, n), one dimension.
        """
        ...


class CommitRecords:
    """The samples of a commit, read through the cache.

    Args:
        samples: Which, and where they lie.
        client: Reads the bytes.
    """

    def __init__(self, samples: SampleIndex, client: Client) -> None:
        self.samples = samples
        self.client = client

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names, sorted."""
        return self.samples.fields

    @property
    def fingerprint(self) -> str:
        """See `SampleIndex.fingerprint`."""
        return self.samples.fingerprint

    @cached_property
    def shard_starts(self) -> Int64Array:
        """A shard is an object: the pack, the tar or the file in which a sample's first member lies."""
        return self.samples.shard_starts()

    @cached_property
    def sample_bytes(self) -> Int64Array:
        """Bytes of each sample."""
        return self.samples.sample_bytes()

    def keys_of(self, numbers: Int64Array) -> list[str]:
        """Return the keys of some samples, in the order asked for."""
        return self.samples.keys_of(numbers)

    def fetch(self, numbers: Int64Array) -> Fetched:
        """Return the bytes of some samples; see `Records.fetch`.

        Raises:
            CacheError, SourceError: If bytes cannot be had.
        """
        batch = self.samples.gather(numbers)
        refs, places = self.samples.objects.numbered(batch.objects)
        data = self.client.read_ranges(refs, places, batch.offsets, batch.lengths)

        def place(member: int) -> str:
            return f"{refs[places[member]].uri} at {batch.offsets[member]}"

        return Fetched(batch.counts, batch.fields, data, batch.crcs, place)

    def prefetch(self, numbers: Int64Array) -> Announced:
        """Fetch samples into the cache in the background, the first ones first; see `Client.will_need`."""
        batch = self.samples.gather(numbers)
        refs, places = self.samples.objects.numbered(batch.objects)
        return self.client.will_need(refs, places, batch.offsets, batch.lengths)

    def stats(self) -> ReadSnapshot:
        """Return what this process read so far, and from where."""
        return self.client.stats.snapshot()
