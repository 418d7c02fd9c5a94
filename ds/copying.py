"""Files of a version as plain files somewhere on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ds.errors import UsageError
from versioning import PathNotFoundError, UnwritableFileError, check_path, locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from cache_runtime import Client
    from ds.dataset import Dataset
    from sources import Location

_BATCH_BYTES = 32 << 20
_BATCH_FILES = 1024
_PIECE_BYTES = 16 << 20


@dataclass(slots=True)
class Copied:
    """What was copied so far."""

    files: int = 0
    bytes: int = 0


def copy_out(
    opened: Dataset,
    revision: str | None,
    path: str,
    to: Path,
    *,
    on_progress: Callable[[Copied], None] = lambda copied: None,
) -> Copied:
    """Copy a file, or a directory with all below it, read through the cache; each file is whole or not there.

    As with cp, what is copied into a directory that exists keeps its name; files that are there are replaced.

    Args:
        opened: The dataset.
        revision: The version.
        path: In the version; "" is everything, which goes into `to` itself.
        to: A file or directory of this machine.
        on_progress: Called after each batch.

    Raises:
        PathNotFoundError: If the version has nothing there.
        UsageError: If a directory was to become a file.
        UnwritableFileError: If the file system refuses; what was copied stays.
        ObjectChangedError: If the bytes are no longer what the version says.
    """
    commit = opened.resolve(revision)
    tree = opened.repository.tree_of(commit)
    path = path.rstrip("/")
    single = tree.get(path) is not None if path else False
    if to.is_dir() and path:
        to /= path.rpartition("/")[2]
    elif to.exists() and not single and not to.is_dir():
        raise UsageError(f"{to} is a file, and {path or '/'} is a directory; name another place")
    client = opened.opened.client_for(tree.size)
    with opened.naming_commit(commit):
        done = copy_tables(opened, client, tree.scan_at(path, columns=None), to, top=path, on_progress=on_progress)
    if not done.files and path:
        raise PathNotFoundError(path, where=commit[:8])
    return done


def copy_tables(
    opened: Dataset,
    client: Client,
    tables: Iterable[pa.Table],
    to: Path,
    *,
    top: str = "",
    on_progress: Callable[[Copied], None] = lambda copied: None,
) -> Copied:
    """Copy the files of entries; each is whole or not there. Errors as in `copy_out`.

    Args:
        opened: The dataset.
        client: Reads it.
        tables: All columns of the entries.
        to: A directory, or the place of one file.
        top: What of their paths is not repeated below `to`.
        on_progress: Called after each batch.
    """
    done = Copied()
    for table in tables:
        for batch in _batches(table):
            _copy_batch(client, batch, top, to, locations(batch, opened.repository.root))
            done.files += batch.num_rows
            done.bytes += sum(_sizes(batch))
            on_progress(done)
    return done


def _copy_batch(client: Client, batch: pa.Table, top: str, to: Path, where: list[Location]) -> None:
    places = [_place(str(path), top, to) for path in batch.column("path").to_pylist()]
    if len(where) == 1 and where[0].length > _PIECE_BYTES:
        with client.open(where[0]) as source, _replacing(places[0]) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return
    for place, data in zip(places, client.read_many(where), strict=True):
        with _replacing(place) as target:
            target.write(data)


def _place(path: str, top: str, to: Path) -> Path:
    check_path(path)  # a hostile tree must not name a place outside
    return to if path == top else to / path[len(top) :].lstrip("/")


@contextmanager
def _replacing(place: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place, and move it there when it is whole."""
    temporary: str | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=place.parent, prefix=".forebay-tmp-", delete=False) as file:
            temporary = file.name
            yield file  # type: ignore[misc] # it is one
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, place)
    except OSError as error:
        raise UnwritableFileError(str(place), reason=error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sizes(table: pa.Table) -> list[int]:
    return [int(size or 0) for size in table.column("size").to_pylist()]


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into parts of bounded size; a large file is one by itself."""
    start = size = 0
    sizes = _sizes(table)
    for row, each in enumerate(sizes):
        full = size + each > _BATCH_BYTES or row - start == _BATCH_FILES
        if row > start and full:
            yield table.slice(start, row - start)
            start, size = row, 0
        size += each
    if start < len(sizes):
        yield table.slice(start)
