"""What each thread and process did when, as a file that Perfetto and chrome://tracing show.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from loaders.running.making import Span

_MOST_SPANS = 1_000_000  # about 100 MB of JSON


class Trace:
    """Collects spans and writes them; after a million it only counts them."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self.left_out = 0

    def add(self, spans: Iterable[Span]) -> None:
        """Take some more."""
        for span in spans:
            if len(self._spans) < _MOST_SPANS:
                self._spans.append(span)
            else:
                self.left_out += 1

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        document = {
            "traceEvents": [*_names(self._spans), *map(_event, self._spans)],
            "displayTimeUnit": "ms",
            "otherData": {"spans_left_out": self.left_out},
        }
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(document))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _event(span: Span) -> dict[str, Any]:
    return {
        "name": span.stage,
        "cat": "loader",
        "ph": "X",
        "ts": span.start * 1e6,
        "dur": span.seconds * 1e6,
        "pid": span.pid,
        "tid": span.tid,
        "args": {"cpu_ms": span.cpu * 1e3},
    }


def _names(spans: list[Span]) -> list[dict[str, Any]]:
    here, loop = os.getpid(), threading.main_thread().native_id
    named = []
    for pid, tid in sorted({(span.pid, span.tid) for span in spans}):
        process = "training" if pid == here else "loader worker"
        thread = "loop" if (pid, tid) == (here, loop) else "loader"
        for kind, name in (("process_name", process), ("thread_name", thread)):
            named.append({"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}})
    return named
