"""Writing samples into shards outside of a repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from loaders.errors import SampleError, ShardsExistError
from loaders.formats.mds_shards import MdsShards
from loaders.formats.outputs import open_output
from loaders.formats.sizes import parse_bytes
from loaders.formats.tar_shards import TarShards
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from os import PathLike
    from types import TracebackType

_PUBLISH_SECONDS = 24 * 3600  # a store gives up by itself long before; this only ends a wait that nothing else would


class ShardWriter:
    """Writes samples into shards, in the order they come; equal samples give equal bytes.

    A shard has its name when it is whole and on the disk, not before. After a kill what is there are whole shards:
    open the writer with `append=True`, leave out the first `samples` samples and go on; the bytes are the same as
    without the kill. Without `append` a place that has shards already is refused.

        with ShardWriter("out", shard_size="128MB") as writer:
            writer.write({"__key__": "000001", "jpg": data, "cls": 3})

    Args:
        out: A local directory, which is made, or a URI that `sources` can write: `s3://bucket/prefix`.
        fields: The fields that each sample has; for `mds` a mapping to encodings such as `{"x": "ndarray"}` is
            possible, too. By default any for `tar`, and those of the first sample for `mds`.
        format: `tar`, with an index at the end of each and beside it; or `mds`.
        shard_size: Most bytes of a shard: a number, or text such as `128MB` or `64MiB`.
        prefix: What the names of shards begin with: writers at work at a time need different ones.
        append: Go on after the shards that are there.
        options: For the store of a URI.

    Attributes:
        samples: How many are written, those that were there before included.

    Raises:
        ShardsExistError: If there are shards and `append` is not set, or another writer is at work there.
    """

    def __init__(
        self,
        out: str | PathLike[str],
        fields: Sequence[str] | Mapping[str, str] | None = None,
        *,
        format: Literal["tar", "mds"] = "tar",
        shard_size: int | str = "128MB",
        prefix: str | None = None,
        append: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        if format not in ("tar", "mds"):
            raise ValueError(f"unknown format {format!r}; known: tar, mds")
        self._prefix = prefix if prefix is not None else "shard-" if format == "tar" else "shard."
        self._template = "{}{:06d}.tar" if format == "tar" else "{}{:05d}.mds"
        self._fields = None if fields is None else frozenset(fields)
        self._crew = Crew(1, name="forebay-shard")
        self._publishing: Future[None] | None = None
        self._closed = False
        self.samples = 0
        self._shards: list[str] = []
        self._output = open_output(str(out), self._prefix, options)
        try:
            limit = parse_bytes(shard_size)
            columns = fields if isinstance(fields, Mapping) else None
            self._sink: TarShards | MdsShards
            if format == "tar":
                self._sink = TarShards(self._output, shard_size=limit, submit=self._publish)
            else:
                self._sink = MdsShards(self._output, columns=columns, shard_size=limit, submit=self._publish)
            self._go_on(append=append)
        except BaseException:
            self._output.close()
            raise

    def _go_on(self, *, append: bool) -> None:
        pattern = re.compile(re.escape(self._prefix) + r"\d{5,}" + re.escape(self._sink.suffix) + r"\Z")
        names = self._output.names()
        found = [name for name in names if pattern.match(name)]
        if not found and not (self._sink.suffix == ".mds" and "index.json" in names):
            return
        if not append:
            raise ShardsExistError(
                f"{self._output.place} has {len(found)} shards already; choose another place, or append=True to go on",
                uri=self._output.place,
            )
        expected = [self._template.format(self._prefix, number) for number in range(len(found))]
        if found != expected:
            missing = next(name for name in expected if name not in found)
            text = f"{self._output.place} has {len(found)} shards, and {missing} is not among them; write elsewhere"
            raise ShardsExistError(text, uri=self._output.place)
        self._shards = found
        self.samples = sum(self._sink.recall(name) for name in found)

    @property
    def shards(self) -> list[str]:
        """Names of the shards, the last of which may be on its way to the disk."""
        return list(self._shards)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def write(self, sample: Mapping[str, object]) -> None:
        """Append a sample: `__key__`, and a value for each field, bytes or what the field's extension can encode.

        Raises:
            SampleError: If it cannot be stored; nothing of it was written, and the writer can be used further.
            SourceError: If an earlier shard could not be written. No sample that was in a whole shard is lost.
        """
        if self._closed:
            raise ValueError("the writer is closed")
        key = sample.get("__key__")
        if type(key) is not str:
            raise SampleError(f"a sample needs a str as its __key__; this one has {key!r}")
        if self._fields is not None and sample.keys() - {"__key__"} != self._fields - {"__key__"}:
            raise SampleError(f"sample {key!r} has the fields {sorted(sample.keys())}, not {sorted(self._fields)}")
        self._sink.add(key, sample, self._name)
        self.samples += 1

    def _name(self) -> str:
        self._shards.append(self._template.format(self._prefix, len(self._shards)))
        return self._shards[-1]

    def _publish(self, work: Callable[[], None]) -> None:
        """Make a shard durable in the background, after the one before it: two at most are under way."""
        self._wait()
        self._publishing = self._crew.submit(work)

    def _wait(self) -> None:
        if self._publishing is not None:
            publishing, self._publishing = self._publishing, None
            publishing.result(_PUBLISH_SECONDS)

    def close(self) -> None:
        """Write the last shard; only then is everything on the disk or in the store.

        Raises:
            SourceError: If it could not be written.
        """
        if self._closed:
            return
        try:
            self._sink.finish(self._name)
            self._wait()
            self._sink.end()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Throw away what is in no whole shard."""
        self._closed = True
        self._sink.abandon()
        try:
            if self._publishing is not None:
                self._wait()
        finally:
            self._crew.close()
            self._output.close()
