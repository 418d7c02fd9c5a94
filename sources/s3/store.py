"""The S3 store: obstore where it can, botocore where it cannot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from sources.errors import SourceConfigError
from sources.locations import StoreId
from sources.object_clients import is_forked
from sources.objects import is_listable, is_nameable
from sources.s3.native import NativeBucket
from sources.s3.options import read_options
from sources.stores import stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from typing_extensions import Buffer

    from sources.locations import ObjectStat, Version
    from sources.objects import ObjectStore
    from sources.s3.options import S3Options
    from sources.s3.plain import PlainBucket
    from sources.stores import Wants


class S3Store:
    """One bucket. The version of an object is its etag; every read of a pinned object sends `If-Match`.

    With the option `version_aware` it is the version id, and an object stays readable after it was overwritten.
    Each request is sent once: `SteadyStore` repeats. Safe in threads, spawned processes and forks: obstore's threads do
    not survive a fork, so a forked child (a DataLoader worker, say) goes through botocore, at a third of the speed.

    Args:
        bucket: Its name.
        options: In s3fs's vocabulary; see `open`.
    """

    remote: ClassVar[bool] = True

    def __init__(self, bucket: str, options: Mapping[str, object]) -> None:
        self.id = StoreId(f"s3://{bucket}")
        self._options = dict(options)
        self._read = read_options(self.id, bucket, options)
        self._plain = _PlainWay(self._read)
        self._native = NativeBucket(self._read, self._plain)

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> S3Store:
        """Open the bucket of `s3://bucket/...` with options in s3fs's vocabulary.

        `key`, `secret`, `token`, `profile`, `anon`, `endpoint_url`, `requester_pays`, `version_aware`,
        `client_kwargs` (`endpoint_url`, `region_name`, `verify`: false or a file of certificates) and
        `config_kwargs: {s3: {addressing_style: path | virtual | auto}}`. Alibaba's OSS takes only `virtual`; with an
        endpoint, `auto` is `path`, which MinIO, Ceph and SeaweedFS take. What the options leave out comes from the
        environment (`AWS_*`), then from the profile, then from what else botocore's credential chain finds.
        """
        bucket = split_uri(uri).store.removeprefix("s3://")
        if not bucket:
            raise SourceConfigError(f"{uri}: the bucket is missing; expected s3://bucket/prefix")
        return cls(bucket, options)

    def __reduce__(self) -> tuple[object, ...]:
        return S3Store, (self.id.removeprefix("s3://"), self._options)

    def __repr__(self) -> str:
        return f"S3Store({self.id!r})"

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `ListPages.pages`; one request per 1000 keys, twice as many where there are empty objects."""
        if self._read.version_aware or is_forked() or not is_listable(prefix):
            return self._plain().pages(prefix, after=after)
        return self._native.pages(prefix, after=after)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`."""
        for page in self.pages(prefix):
            yield from stats_of(page)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        return self._way(key).stat(key)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        return self._way(key).read(key, start=start, length=length, version=version)

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        self._way(key).read_into(key, start=start, buffer=buffer, version=version)

    @property
    def can_read_together(self) -> bool:
        """See `ReadTogether`: over plain HTTP, and not in a forked process."""
        return self._native.can_read_together and not is_forked()

    def read_together(self, wants: Wants, *, at_once: int) -> None:
        """See `ReadTogether.read_together`."""
        if self.can_read_together:
            self._native.read_together(wants, at_once=at_once)

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`; large bodies go as multipart uploads."""
        self._way(key).put(key, data)

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self._way(key).delete(key)

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `SwapObject.fetch`."""
        return self._way(key).fetch(key)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """`If-None-Match: *` to create, `If-Match` to replace. See `SwapObject.swap`."""
        return self._way(key).swap(key, data, expect=expect)

    def _way(self, key: str) -> ObjectStore:
        return self._plain() if is_forked() or not is_nameable(key) else self._native


class _PlainWay:
    """Makes the botocore bucket on first use, and again in a forked child."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._made: tuple[int, PlainBucket] | None = None

    def __call__(self) -> PlainBucket:
        from sources.s3.plain import PlainBucket  # a third of a second that most processes need not pay

        made = self._made
        if made is None or made[0] != os.getpid():  # connections and locks of a parent are not the child's
            made = self._made = (os.getpid(), PlainBucket(self._options))
        return made[1]
