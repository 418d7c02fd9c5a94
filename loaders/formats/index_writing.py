"""Writing an index beside tars that have none, so that nobody has to walk them again."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loaders.errors import LoaderError, NoSamplesError
from loaders.formats.index_files import INDEX_SUFFIX, is_current
from loaders.formats.indexing import index_tar
from loaders.formats.reading import Windowed, open_shards
from loaders.formats.shard_index import ShardIndex, mark_of
from loaders.formats.shards import Finder
from loaders.formats.tar_walk import BLOCK
from sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loaders.formats.shards import Shard
    from loaders.formats.tar_walk import Sliceable

_SUMMED_BYTES = 1 << 30  # of a remote shard: it is read whole for the sums of its members, and kept meanwhile
_WAIT_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What became of one shard.

    Attributes:
        uri: The shard.
        samples: How many it has; 0 if it was not looked at.
        skipped: Its index is up to date.
        error: Why it has no index now; empty if it has one.
    """

    uri: str
    samples: int = 0
    skipped: bool = False
    error: str = ""


def index_shards(
    places: str | Sequence[str],
    *,
    force: bool = False,
    workers: int | None = None,
    options: Mapping[str, object] | None = None,
) -> Iterator[IndexReport]:
    """Write `SHARD.idx` beside each tar; yields a report for each as it is done, so the caller can show how far it is.

    Each index is there whole or not at all; one that is up to date is skipped, so run it again after an interruption.
    One shard that is damaged does not keep the others from their index.

    Args:
        places: Paths, URIs, globs, brace lists.
        force: Write those that are up to date, too.
        workers: Processes; by default one for each two shards, at most four.
        options: For the stores.

    Raises:
        NoSamplesError: If a pattern matches nothing.
        SourceError: If a place cannot be listed.
    """
    finder = Finder(options)
    shards = [shard for shard in finder.find(places) if not shard.name.endswith(INDEX_SUFFIX)]
    if not shards:
        raise NoSamplesError(f"{places}: there are no shards")
    count = workers or min(4, os.cpu_count() or 1, -(-len(shards) // 2))
    if count == 1:
        for shard in shards:
            yield _index_one(shard, finder, force=force)
        return
    context = multiprocessing.get_context("spawn")  # stores that were opened have threads, which a fork loses
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        left = {pool.submit(_index_apart, shard, force, options) for shard in shards}
        try:
            while left:
                done, left = wait(left, _WAIT_SECONDS, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _index_apart(shard: Shard, force: bool, options: Mapping[str, object] | None) -> IndexReport:
    return _index_one(shard, Finder(options), force=force)


def _index_one(shard: Shard, finder: Finder, *, force: bool) -> IndexReport:
    try:
        if is_current(shard, finder) and not force:
            return IndexReport(shard.uri, skipped=True)
        return IndexReport(shard.uri, samples=write_index(shard, finder))
    except (LoaderError, SourceError, OSError) as error:
        return IndexReport(shard.uri, error=str(error))


def write_index(shard: Shard, finder: Finder) -> int:
    """Index one tar, with the crc32c of every member, and write `SHARD.idx`; return how many samples it has.

    Raises:
        ShardFormatError: If the tar is damaged.
        DuplicateFieldError: If a sample has a field twice.
        SourceError: If it cannot be read, or the index not be written.
    """
    if shard.path is not None and shard.size:
        with open(shard.path, "rb") as file:
            data = mmap.mmap(file.fileno(), shard.size, prot=mmap.PROT_READ)
        index = _marked(index_tar(data, shard.uri, sums_of=data), data)
    else:
        reader = open_shards([shard], finder, None)
        if shard.size <= _SUMMED_BYTES:
            whole = bytes(reader.read([0], [0], [shard.size])[0])
            index = _marked(index_tar(whole, shard.uri, sums_of=whole), whole)
        else:
            windowed = Windowed(reader, 0, shard.size)
            index = _marked(index_tar(windowed, shard.uri), windowed)
    finder.store_of(shard.ref.uri).put(shard.ref.key + INDEX_SUFFIX, index.encode())
    return len(index)


def _marked(index: ShardIndex, data: Sliceable) -> ShardIndex:
    return replace(index, mark=mark_of(data[begin : begin + BLOCK] for begin in index.marked_blocks()))
