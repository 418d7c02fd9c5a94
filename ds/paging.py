"""Long output on a terminal goes through a pager, as git's does."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT = "less"
_LESS = "FRX"  # end at once if it fits on the screen, show colours, leave the text on the screen


@contextmanager
def paged(wanted: bool = True) -> Iterator[None]:
    """Show what is printed inside through $PAGER, by default `less -FRX`, if stdout is a terminal.

    An empty PAGER, `cat`, or a pager that is not there means none. Leaving the pager early is no error.
    """
    command = shlex.split(os.environ.get("PAGER", _DEFAULT))
    if not wanted or not sys.stdout.isatty() or command in ([], ["cat"]):
        yield
        return
    sys.stdout.flush()
    environment = {"LESS": _LESS, **os.environ}
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    except OSError:
        yield
        return
    assert pager.stdin is not None
    terminal, sys.stdout = sys.stdout, io.TextIOWrapper(pager.stdin, encoding="utf-8", errors="backslashreplace")
    try:
        with suppress(BrokenPipeError):
            yield
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.close()
        sys.stdout = terminal
        _wait(pager)


def _wait(pager: subprocess.Popen[bytes]) -> None:
    """Wait until the reader leaves the pager; Ctrl-C is the pager's business then."""
    while True:
        with suppress(KeyboardInterrupt):
            pager.wait()
            return
