"""dulwich's porcelain, imported so that it prints nothing."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any


def load_porcelain() -> Any:
    """Import `dulwich.porcelain` (untyped in part).

    At its import it keeps the standard streams of that moment as where every fetch reports, DVC's too, which names
    none: on the user's terminal at best, into a closed file (ValueError) where they were replaced for a while. Streams
    without a `buffer` make it keep one that swallows all.

    Raises:
        ImportError: If dulwich is not installed.
    """
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        from dulwich import porcelain
    return porcelain
