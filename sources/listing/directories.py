"""Hierarchical stores: one directory at a time, many at once, the earliest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sources.errors import SourceNotFoundError
from sources.listing.keys import has_key, is_ascending, position_after
from sources.listing.segments import Directory, Plan, Segment, Siblings, State
from sources.stores import DirectoryPage, batch_of

if TYPE_CHECKING:
    import pyarrow as pa

    from sources.listing.journal import Journal
    from sources.stores import ListDirectories


class _Page(NamedTuple):
    files: pa.RecordBatch
    directories: list[str]
    packed: list[tuple[str, bytes]]


class Directories:
    """Lists `Directory` segments of one plan. Only `fetch` and `examine` run outside the crew's lock."""

    def __init__(self, store: ListDirectories, prefix: str, *, plan: Plan, journal: Journal | None) -> None:
        self._store = store
        self._prefix = prefix
        self._plan = plan
        self._journal = journal

    def fetch(self, segment: Segment) -> DirectoryPage:
        """Scan one directory; one that vanished below the top is empty."""
        assert isinstance(segment, Directory)
        try:
            return self._store.scan_directory(segment.key)
        except SourceNotFoundError:
            if len(segment.key) <= len(self._prefix):
                raise
            return DirectoryPage(batch_of([]), [])

    def examine(self, segment: Segment, page: DirectoryPage) -> _Page:
        """Cut the page down to the prefix and pack it for the journal."""
        assert isinstance(segment, Directory)
        files, directories = page
        if not is_ascending(files.column("key")):
            files = files.sort_by("key")
        directories = sorted(directories)
        if len(segment.key) < len(self._prefix):  # a prefix may end inside a name
            first = position_after(files.column("key"), self._prefix)
            first -= has_key(files.column("key"), self._prefix)
            last = position_after(files.column("key"), self._prefix + chr(0x10FFFF), first)
            files = files.slice(first, last - first)
            directories = [name for name in directories if name.startswith(self._prefix)]
        packed = self._pack(files, directories) if self._journal else []
        return _Page(files, directories, packed)

    def apply(self, segment: Segment, page: _Page) -> bool:
        """Replace the directory by what it holds."""
        assert isinstance(segment, Directory)
        segment.state = State.DONE
        numbers = 0
        if self._journal:
            numbers = self._journal.replace_directory(segment, page.directories, page.packed)
        if page.directories:
            self._plan.insert_behind(
                segment, Siblings(files=page.files, offset=0, directories=page.directories, numbers=numbers)
            )
        else:
            self._plan.put(segment, page.files)
        return False

    def find(self) -> Segment | None:
        """Give an idle worker the earliest directory."""
        for segment in self._plan.segments:
            if segment.state is not State.WAITING or not (self._plan.room > 0 or self._plan.is_awaited(segment)):
                continue
            if isinstance(segment, Siblings):
                return self._next_of(segment)
            if isinstance(segment, Directory):
                segment.state = State.RUNNING
                return segment
        return None

    def release(self, segment: Segment) -> None:
        """Nothing is open between two scans."""

    def _next_of(self, siblings: Siblings) -> Directory:
        """Take the next directory out, and the files before it."""
        key = siblings.directories[siblings.index]
        end = position_after(siblings.files.column("key"), key, siblings.offset)
        behind = self._plan.segments.index(siblings)
        directory = Directory(key=key, state=State.RUNNING, number=siblings.numbers + siblings.index)
        self._plan.segments.insert(behind, directory)
        if end > siblings.offset:
            before = Segment(state=State.DONE)
            self._plan.segments.insert(behind, before)
            self._plan.put(before, siblings.files.slice(siblings.offset, end - siblings.offset))
        siblings.offset = end
        siblings.index += 1
        if siblings.index == len(siblings.directories):
            siblings.state = State.DONE
            self._plan.put(siblings, siblings.files.slice(end))
        return directory

    def _pack(self, files: pa.RecordBatch, directories: list[str]) -> list[tuple[str, bytes]]:
        """Pack the files between any two directories, each stretch by itself, so that places keep the order."""
        assert self._journal is not None
        keys = files.column("key")
        packed, start = [], 0
        for key in [*directories, None]:
            end = files.num_rows if key is None else position_after(keys, key, start)
            if end > start:
                packed.append((keys[start].as_py(), self._journal.pack(files.slice(start, end - start))))
            start = end
        return packed
