"""Signals: when one that waits for an answer wants to end.

The kernel sends INTERRUPT for every signal. A program that profiles itself, or gets SIGCHLD, would see EINTR from
files, which no program expects of a disk; one that is killed or told to end must not have to wait for a slow origin.
"""

from __future__ import annotations

import signal
from pathlib import Path

RETRY_SECONDS = 0.1
"""When to look again at one that goes on waiting: the kernel tells only its first signal."""

_ENDS = sum(
    1 << number - 1 for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM)
)


def wants_to_end(thread: int) -> bool:
    """Return whether a signal waits that ends programs, or asks them to.

    Args:
        thread: The kernel's number of who asks; 0, of another namespace of processes, is believed to.
    """
    if thread == 0:
        return True
    try:
        text = Path(f"/proc/{thread}/status").read_text()
    except OSError:  # it is gone, or not to be seen
        return True
    pending = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in ("SigPnd", "ShdPnd"):
            pending |= int(value, 16)
    return bool(pending & _ENDS)
