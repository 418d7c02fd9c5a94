"""A mount's server in a process of its own: python -m tests.cache_runtime.mount.serving ROOT DIRECTORY '{options}'."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime.mount.protocol import INC_EPOCH_MINOR
from cache_runtime.mount.server import MountOptions, MountServer
from tests.cache_runtime.mount.views import MemoryView, PlainFiles

if TYPE_CHECKING:
    from types import FrameType

    from cache_runtime.mount.view import Found, Place


class SlowView(MemoryView):
    """Takes long to find what is called slow."""

    def find(self, directory: Place, name: bytes) -> Found | None:
        if name.startswith(b"slow"):
            time.sleep(30)
        return super().find(directory, name)


def main(root: str, mountpoint: str, words: str) -> None:
    logging.basicConfig(level=logging.INFO)
    if root.endswith(".json"):
        view = MemoryView({path: (size, mtime) for path, size, mtime in json.loads(Path(root).read_text())})
    else:
        view = SlowView.of(Path(root))
    server = MountServer(view, PlainFiles, mountpoint, MountOptions(**json.loads(words)))

    def stop(number: int, frame: FrameType | None) -> None:
        server.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.mount()
    threading.Thread(target=_obey, args=(server,), daemon=True).start()
    print("mounted", flush=True)
    server.serve()
    print("ended", flush=True)


def _obey(server: MountServer) -> None:
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "follow":
            server.follow(MemoryView.of(Path(argument), commit=argument))
        elif command == "old-kernel":
            assert server._session is not None
            assert server._session.agreement is not None
            server._session.agreement = replace(server._session.agreement, minor=INC_EPOCH_MINOR - 1)
        elif command == "fail":
            assert server._session is not None
            server._session.notices.post(_fail)
        elif command == "status":
            print(json.dumps(server.status()), flush=True)


def _fail() -> None:
    raise RuntimeError("a thread of the server fails")


if __name__ == "__main__":
    main(*sys.argv[1:4])
