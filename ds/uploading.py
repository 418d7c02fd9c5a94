"""Uploading the files of a transaction behind its writers: large ones at once, small ones together in packs."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from cache_runtime import adopt
from sources import ObjectRef, SourceUnavailableError, Version
from sources.crew import Crew
from versioning import BLOB_BYTES, PACK_BYTES, PackWriter, SpoolError, UnreadableFileError, put_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime import Client
    from ds.pending import PendingFile
    from sources import StoreId
    from versioning import Entry, Repository

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class Waiting(NamedTuple):
    """A closed file that is to be uploaded: the path it is for, what it is, and where its bytes are."""

    path: str
    file: PendingFile
    local: Path


class _Upload(NamedTuple):
    """Files that are uploaded together."""

    future: Future[None]
    files: list[Waiting]

    def has_failed(self) -> bool:
        return self.future.done() and self.future.exception() is not None


class Uploader:
    """Uploads closed files in the background, and keeps what it uploaded in this node's cache.

    While the repository cannot be reached a file is tried again, with pauses of up to half a minute; `finish` tries
    each once more. Thread-safe.

    Args:
        repository: Where the bytes go.
        client: Its cache keeps what it has room for.
        threads: Most uploads at a time.
        spool: Directory for packs while they are gathered; the system's own is used too, when there is no room in it.
        on_stored: Told of each file's entry, from any thread, as soon as its bytes are safe in the repository.
    """

    def __init__(
        self,
        repository: Repository,
        client: Client,
        *,
        threads: int,
        spool: Path,
        on_stored: Callable[[PendingFile, Entry], None],
    ) -> None:
        self._target = _Kept(_KeepingStore(repository, client), repository.prefix)
        self._spool = spool
        self._on_stored = on_stored
        self._crew = Crew(threads, name="forebay-upload")  # after Ctrl-C nobody waits for a store that hangs
        self._lock = threading.Lock()
        self._small: list[Waiting] = []
        self._small_bytes = 0
        self._running: list[_Upload] = []
        self._hurry = threading.Event()

    def add(self, waiting: Waiting) -> None:
        """Upload a file, now or with others."""
        with self._lock:
            if waiting.file.size > BLOB_BYTES:
                self._submit([waiting])
                return
            self._small.append(waiting)
            self._small_bytes += waiting.file.size
            if self._small_bytes >= PACK_BYTES:
                self._submit_small()

    def relieve(self) -> None:
        """Do not wait for more small files, since there is no room for them.

        Raises:
            SourceError: If an upload failed for good.
        """
        with self._lock:
            done = [upload for upload in self._running if upload.future.done()]
            if len(done) == len(self._running):
                self._submit_small()
        for upload in done:
            upload.future.result()

    def finish(self) -> None:
        """Upload what is left and return when all is in the repository; may be called again after it failed.

        Raises:
            SourceError, VersioningError: What stopped the first file that was not uploaded.
        """
        self._hurry.set()
        with self._lock:
            self._submit_small()
            running = [each if not each.has_failed() else self._start(each.files) for each in self._running]
            self._running = []
        for number, upload in enumerate(running):
            try:
                upload.future.result()
            except BaseException:
                with self._lock:
                    self._running += running[number:]
                raise

    def stop(self) -> None:
        """Start no more uploads; those that run end in the background."""
        self._hurry.set()
        with self._lock:
            for upload in self._running:
                upload.future.cancel()
        self._crew.close()

    def _submit_small(self) -> None:
        small, self._small, self._small_bytes = self._small, [], 0
        if small:
            self._submit(small)

    def _submit(self, files: list[Waiting]) -> None:
        self._running.append(self._start(files))

    def _start(self, files: list[Waiting]) -> _Upload:
        return _Upload(self._crew.submit(partial(self._persist, files)), files)

    def _persist(self, files: list[Waiting]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            last = self._hurry.is_set()
            try:
                self._upload(files)
            except SourceUnavailableError as error:
                if last:
                    raise
                _log.warning("an upload is tried again path=%s pause_seconds=%g reason=%s", files[0].path, pause, error)
                self._hurry.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            else:
                return

    def _upload(self, files: Sequence[Waiting]) -> None:
        if files[0].file.size > BLOB_BYTES:
            path, file, local = files[0]
            self._on_stored(file, put_blob(self._target, path, local, crc32c=file.crc32c, mtime_ns=file.mtime_ns))
            return
        try:
            self._upload_packed(files, self._spool)
        except SpoolError:  # the outbox's disk is full: only uploading makes room there
            self._upload_packed(files, None)

    def _upload_packed(self, files: Sequence[Waiting], spool: Path | None) -> None:
        with PackWriter(self._target, spool=spool) as writer:
            members = [writer.add(path, _bytes_of(file, local)) for path, file, local in files]
            packs = writer.finish()
        for (path, file, _), member in zip(files, members, strict=True):
            self._on_stored(file, packs.entry(path, member, mtime_ns=file.mtime_ns))


def _bytes_of(file: PendingFile, local: Path) -> bytes:
    """Read a small file back, and see that it still is what was written."""
    try:
        data = local.read_bytes()
    except OSError as error:
        raise UnreadableFileError(str(local), reason=error.strerror or str(error)) from error
    if len(data) != file.size or google_crc32c.value(data) != file.crc32c:
        raise UnreadableFileError(str(local), reason="its bytes changed on the disk since they were written")
    return data


@dataclass(frozen=True)
class _Kept:
    """A repository to write into; see `versioning.WritesObjects`."""

    store: _KeepingStore
    prefix: str


class _KeepingStore:
    """Writes objects into a repository's store, and then into the cache: reading them back comes from there."""

    def __init__(self, repository: Repository, client: Client) -> None:
        self._store = repository.store
        self._client = client

    @property
    def id(self) -> StoreId:
        """The repository's."""
        return self._store.id

    def put(self, key: str, data: Buffer) -> None:
        """Write an object whose name is its hash."""
        self._store.put(key, data)
        if self._client.store is not None:
            name = key.rpartition("/")[2].removesuffix(".tar")
            ref = ObjectRef(self.id, key, Version(f"oid:{name}"), memoryview(data).nbytes)
            adopt(self._client.store, ref, data, share=self._client.share)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._store.delete(key)
