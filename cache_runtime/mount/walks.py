"""Fetching small files before they are opened, while they are opened in the order of their paths."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sources.crew import Crew

if TYPE_CHECKING:
    from cache_runtime.client import Client
    from cache_runtime.mount.counters import Counters
    from cache_runtime.mount.view import FileAt, MountView

_log = logging.getLogger(__name__)
_MOST_WALKS = 16
_NEAR_ROWS = 16  # several threads of a program take turns
_FIRST_FILES, _MOST_FILES = 8, 1024
_SURE_FILES = 4  # missed in order before it is believed: who reads at random meets two neighbours soon
_MOST_IDLE = 2  # parts of which all was here: then it sleeps until something is missing


class Walk:
    """One program's way through the files of a version.

    Attributes:
        view: The version.
        row: The last file that was opened.
        reach: The first file that was not announced yet.
        files: How many the next part has.
        missed: How many were not here.
        idle: Of how many parts in a row everything was here.
        is_busy: Whether a part is being fetched.
    """

    __slots__ = ("files", "idle", "is_busy", "missed", "reach", "row", "view")

    def __init__(self, view: MountView, row: int) -> None:
        self.view = view
        self.row = row
        self.reach = row + 1
        self.files = _FIRST_FILES
        self.missed = self.idle = 0
        self.is_busy = False

    def covers(self, view: MountView, row: int) -> bool:
        """Say whether a file is one of those that this walk comes to now."""
        return self.view is view and self.row - _NEAR_ROWS <= row <= max(self.reach, self.row + _NEAR_ROWS)


class Walks:
    """Announces to the client what is opened next. For any number of threads.

    Args:
        client: Fetches.
        counters: Counted in.
        most_bytes: How much one part may have.
    """

    def __init__(self, client: Client, counters: Counters, *, most_bytes: int) -> None:
        self._client = client
        self._counters = counters
        self._most_bytes = most_bytes
        self._crew = Crew(2, name="forebay-mount-walk")
        self._lock = threading.Lock()
        self._walks: list[Walk] = []
        self._awake = 0

    def opened(self, view: MountView, row: int) -> None:
        """Take note that a file is opened; a look at a number while nothing is fetched ahead."""
        if self._awake:
            with self._lock:
                walk = self._find(view, row)
                if walk is not None and walk.missed >= _SURE_FILES:
                    self._advance(walk, row)

    def missed(self, view: MountView, row: int) -> None:
        """Take note that a file that is read is not here."""
        with self._lock:
            walk = self._find(view, row)
            if walk is None:
                walk = Walk(view, row)
                self._walks.append(walk)
                if len(self._walks) > _MOST_WALKS:
                    del self._walks[0]
            if walk.idle >= _MOST_IDLE:
                walk.reach, walk.files = max(walk.reach, row + 1), _FIRST_FILES
            walk.missed += 1
            walk.idle = 0
            if walk.missed >= _SURE_FILES:
                self._advance(walk, row)
            self._count_awake()

    def close(self) -> None:
        """Announce nothing more."""
        with self._lock:
            self._walks.clear()
            self._awake = 0
        self._crew.close()

    def _find(self, view: MountView, row: int) -> Walk | None:
        return next((walk for walk in reversed(self._walks) if walk.covers(view, row)), None)

    def _advance(self, walk: Walk, row: int) -> None:
        walk.row = max(walk.row, row)
        walk.reach = max(walk.reach, walk.row + 1)
        if walk.is_busy or walk.idle >= _MOST_IDLE or walk.reach - walk.row > walk.files // 2:
            return  # half of the last part is still ahead: the next one is twice as long if its reader comes so far
        walk.is_busy = True
        first, count = walk.reach, walk.files
        walk.reach += count
        walk.files = min(2 * count, _MOST_FILES)
        self._crew.submit(lambda: self._announce(walk, first, count))

    def _announce(self, walk: Walk, first: int, count: int) -> None:
        try:
            files = self._cut(walk.view.files(first, count))
            if len(files) < count:  # the next part begins where this one was cut, and is as short
                with self._lock:
                    walk.reach, walk.files = first + len(files), max(len(files), _FIRST_FILES)
            size = self._fetch(files) if files else 0
            with self._lock:
                walk.idle = 0 if size else walk.idle + 1
        except Exception as error:  # noqa: BLE001 # the read of the file will tell, if it still is so
            self._counters.walk_failures += 1
            with self._lock:
                walk.idle = _MOST_IDLE
            _log.debug("files ahead were not fetched first=%d files=%d reason=%s", first, count, error)
        finally:
            with self._lock:
                walk.is_busy = False
                if walk.idle < _MOST_IDLE and walk in self._walks:
                    self._advance(walk, walk.row)
                self._count_awake()

    def _cut(self, files: list[FileAt]) -> list[FileAt]:
        """Return the first files that fit into a part; a large file ends it, for its own reader reads ahead in it."""
        size = 0
        for number, file in enumerate(files):
            size += file.location.length
            if size > self._most_bytes:
                return files[: max(1, number)] if file.location.length <= self._most_bytes else files[:number]
        return files

    def _fetch(self, files: list[FileAt]) -> int:
        spans = [file.location for file in files]
        fetched = self._client.will_need(
            [span.object for span in spans],
            range(len(spans)),
            [span.offset for span in spans],
            [span.length for span in spans],
            most_bytes=2 * self._most_bytes,
        ).result()
        self._counters.walk_files += len(spans)
        self._counters.walk_bytes += fetched
        return fetched

    def _count_awake(self) -> None:
        self._awake = sum(walk.missed >= _SURE_FILES and walk.idle < _MOST_IDLE for walk in self._walks)
