"""Versions of one mount: the newest is shown, some before it go on for who is inside of them."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.mount.nodes import MAX_ROWS, SLOTS, place_in, slot_in, slot_of
from cache_runtime.mount.protocol import ROOT_ID

if TYPE_CHECKING:
    from cache_runtime.mount.view import MountView, Place

KEPT = 8
"""How many are served at a time, the newest among them. Open files need none: only who looks names up in an old one."""


class Epoch(NamedTuple):
    """One version, for as long as it is shown.

    Attributes:
        number: From 0; the kernel's generation, so that an id whose slot comes again is another file.
        slot: What stands in its ids.
        view: Its files.
    """

    number: int
    slot: int
    view: MountView


def check_rows(view: MountView) -> None:
    """Refuse a version whose files have no numbers.

    Raises:
        ValueError: If there are too many.
    """
    if view.rows > MAX_ROWS:
        raise ValueError(
            f"commit {view.commit} has {view.rows} files, a mount shows {MAX_ROWS}: mount a directory of it"
        )


class Epochs:
    """The versions by their slots; `add` by one thread at a time, the rest by any.

    Args:
        view: What is shown first.
        kept: How many to serve, the newest included.

    Attributes:
        newest: What the root shows.
    """

    def __init__(self, view: MountView, *, kept: int = KEPT) -> None:
        assert 0 < kept < SLOTS
        self._kept = kept
        self._by_slot: dict[int, Epoch] = {}
        self.newest = self._enter(0, view)

    def _enter(self, number: int, view: MountView) -> Epoch:
        check_rows(view)
        epoch = Epoch(number, slot_of(number), view)
        self._by_slot[epoch.slot] = epoch
        return epoch

    def add(self, view: MountView) -> None:
        """Show another version from now on, and drop the oldest one if there are too many."""
        number = self.newest.number + 1
        self.newest = self._enter(number, view)
        self._by_slot.pop(slot_of(number - self._kept) if number >= self._kept else 0, None)

    def at(self, node: int) -> tuple[Epoch, Place]:
        """Return what an id names.

        Raises:
            OSError: ESTALE, if its version is not served any more, or it is no id of it.
        """
        if node == ROOT_ID:
            return self.newest, place_in(ROOT_ID)
        epoch = self._by_slot.get(slot_in(node))
        place = place_in(node)
        if epoch is None or place.row >= epoch.view.rows:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return epoch, place

    def of(self, number: int) -> Epoch:
        """Return an epoch that is served, else the newest."""
        epoch = self._by_slot.get(slot_of(number))
        return epoch if epoch is not None and epoch.number == number else self.newest

    def __len__(self) -> int:
        return len(self._by_slot)
