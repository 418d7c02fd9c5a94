"""A mount of a directory of objects through a cache, in a process of its own.

python -m tests.cache_runtime.mount.bytes_server '{"objects": DIR, "mountpoint": DIR, "cache": DIR, ...}'; see `main`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime import BlockStore, Client
from cache_runtime.mount.files import FileOptions, Files
from cache_runtime.mount.server import MountOptions, MountServer
from cache_runtime.mount.view import FileAt
from sources import FileStore, Location, ObjectRef, Origins, SourceUnavailableError
from tests.cache_runtime.mount.views import MemoryView

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Buffer

    from sources import StoreId, Version


class TroubledStore:
    """A FileStore that can be slow, silent or broken."""

    def __init__(self) -> None:
        self._files = FileStore(Path("/"))
        self.delay = 0.0
        self.broken = False
        self.reads = 0

    @property
    def id(self) -> StoreId:
        return self._files.id

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        self.reads += 1
        if self.broken:
            raise SourceUnavailableError(f"file:///{key}: broken by the test")
        if self.delay:
            time.sleep(self.delay)
        return self._files.read(key, start=start, length=length, version=version)


class ObjectsView(MemoryView):
    """The files of a directory, each an object."""

    def file(self, row: int) -> FileAt:
        path = self._paths[row]
        found = self._refs[row] = self._refs.get(row) or self._ref(path)
        return FileAt(path, Location(found, 0, found.size), None)

    def pin(self) -> None:
        """Look all versions up, as a commit does."""
        self._store = FileStore(Path("/"))
        self._refs: dict[int, ObjectRef] = {}
        for row in range(self.rows):
            self.file(row)

    def _ref(self, path: str) -> ObjectRef:
        stat = self._store.stat(os.fspath(self._root / path)[1:])
        return ObjectRef(self._store.id, stat.key, stat.version, stat.size)


def main(words: str) -> None:
    settings: dict[str, Any] = json.loads(words)
    logging.basicConfig(level=logging.INFO, filename=settings.get("log"))
    view = ObjectsView.of(Path(settings["objects"]))
    assert isinstance(view, ObjectsView)
    view.pin()
    store = BlockStore.open(Path(settings["cache"]), capacity_bytes=settings.get("capacity", 1 << 30))
    trouble, origins = TroubledStore(), Origins()
    origins.add("", trouble)
    client = Client(origins, store)
    options = FileOptions(**settings.get("files", {}))
    server = MountServer(
        view,
        lambda kernel: Files(client, kernel, options),
        settings["mountpoint"],
        MountOptions(allow_other=True, **settings.get("mount", {})),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    server.mount()
    threading.Thread(target=_obey, args=(server, store, trouble, view), daemon=True).start()
    print("mounted", flush=True)
    server.serve()
    print("ended", flush=True)


def _obey(server: MountServer, store: BlockStore, trouble: TroubledStore, view: ObjectsView) -> None:
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer: object = None
        if command == "status":
            answer = {**server.status(), "reads": trouble.reads}
        elif command == "evict":
            refs = [view.file(row).location.object for row in range(view.rows)]
            answer = store.evict([ref for ref in refs if not arguments or ref.key.endswith(tuple(arguments))])
        elif command == "fail":
            store.fail(OSError(5, os.strerror(5)))
        elif command == "trouble":
            vars(trouble).update(arguments[0])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
