from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, cast

import pytest

from loaders.packing import sinks


class _SlowFile:
    """A `NewObject` whose write takes until it may end; notes whether it was closed before that."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.is_writing = threading.Event()
        self.events: list[str] = []

    def write(self, data: Any) -> None:
        self.is_writing.set()
        assert self.may_end.wait(30)
        self.events.append("written")

    def publish(self, key: str) -> None:
        self.events.append("published")

    def close(self) -> None:
        self.events.append("closed")


def test_after_ctrl_c_a_shard_is_closed_behind_its_last_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the write would go on under a number that may be another file's by then."""
    new = _SlowFile()
    sink = sinks._Streamed(cast("Any", new), "", lambda size: memoryview(bytearray(size)))
    sink.window(4096)
    sink.advance()
    assert new.is_writing.wait(30)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sink.finish()
    threading.Timer(0.2, new.may_end.set).start()
    sink.close()
    assert new.events == ["written", "closed"]
