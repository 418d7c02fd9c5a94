"""Names: what the kernel asks about files without reading them."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, TypeVar

from cache_runtime.mount import listing
from cache_runtime.mount.attributes import NO_ENTRY, Owner, attributes, entry
from cache_runtime.mount.listing import AT_ROW, Page, Pages
from cache_runtime.mount.nodes import ino_in, node_id
from cache_runtime.mount.operations import Opening
from cache_runtime.mount.protocol import ATTR_HEAD, FOREVER_SECONDS, MAX_NAME_BYTES, PAGE_BYTES, STATFS_OUT
from cache_runtime.mount.view import ROOT, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from cache_runtime.mount.epochs import Epoch, Epochs
    from cache_runtime.mount.view import Children, FileAt, MountView

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Names:
    """Answers about names; for one thread at a time. What it returns is the body of the answer.

    Args:
        epochs: The versions.
        owner: Whose the files are.
        upgraded: See `FileOperations`.

    Attributes:
        skipped: How many names could not be shown: too long, or no names for Linux.
    """

    def __init__(self, epochs: Epochs, owner: Owner, upgraded: Set[int]) -> None:
        self._epochs = epochs
        self._owner = owner
        self._upgraded = upgraded
        self._pages = Pages()
        self.skipped = 0

    def look_up(self, parent: int, name: bytes) -> bytes:
        """Answer LOOKUP; a name that is not there is an answer too.

        Raises:
            OSError: ENAMETOOLONG for one that no listing shows, as file systems of Linux have it.
        """
        if len(name) > MAX_NAME_BYTES:
            raise refused(errno.ENAMETOOLONG)
        epoch, place = self._directory(parent)
        found = asked(epoch.view.find, place, name)
        return NO_ENTRY if found is None else entry(found, epoch, self._owner, self._upgraded)

    def describe(self, node: int) -> bytes:
        """Answer GETATTR."""
        epoch, place = self._epochs.at(node)
        found = asked(epoch.view.stat, place)
        return ATTR_HEAD.pack(FOREVER_SECONDS, 0, 0) + attributes(found, ino_in(node), self._owner)

    def list(self, node: int, position: int, size: int, *, plus: bool, epoch_number: int = -1) -> memoryview | bytes:
        """Answer READDIR and READDIRPLUS.

        Args:
            node: Which directory.
            position: As `listing` has it.
            size: Most bytes.
            plus: With what LOOKUP answers, for each.
            epoch_number: In which version the root was opened.
        """
        epoch, place = self._directory(node)
        if place == ROOT and epoch_number >= 0:
            epoch = self._epochs.of(epoch_number)
        begin = listing.dots(position, node, place.row, plus=plus) if position < AT_ROW - 1 else b""
        row = max(position - AT_ROW, place.row)
        rest = self._records(epoch, place, node, row, size - len(begin), plus=plus)
        return begin + bytes(rest) if begin else rest

    def _records(self, epoch: Epoch, place: Place, node: int, row: int, size: int, *, plus: bool) -> memoryview | bytes:
        """Return the children from a row on that fit into a size."""
        known = self._pages.find(node, row + AT_ROW, plus=plus)
        page, first = known or (self._page(epoch, place, row, plus=plus), 0)
        if page is None:
            return b""
        data, last = listing.take(page, first, size)
        if last > first:
            self._pages.keep(node, page, last, plus=plus)
        return data

    def _page(self, epoch: Epoch, place: Place, row: int, *, plus: bool) -> Page | None:
        next_row: int | None = row
        while next_row is not None and next_row < epoch.view.rows:  # behind the last row there is `END`, too
            children = self._children(epoch, place, next_row)
            if children.names:
                return listing.lay_out(children, epoch, self._owner, self._upgraded, plus=plus)
            next_row = children.next_row
        return None

    def _children(self, epoch: Epoch, place: Place, row: int) -> Children:
        children = asked(epoch.view.children, place, row)
        good = listing.without_bad_names(children)
        skipped = len(children.names) - len(good.names)
        if skipped:
            self.skipped += skipped
            bad = next(name for name in children.names if not listing.is_good(name))
            logger.warning(
                "commit=%s: %d names are not shown, longer than %d bytes or no names: %.80r",
                epoch.view.commit,
                skipped,
                MAX_NAME_BYTES,
                bad,
            )
        return good

    def opening(self, node: int, flags: int, pid: int) -> Opening:
        """Find what OPEN names.

        Raises:
            OSError: EROFS if it is to be written; EISDIR for a directory.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise refused(errno.EROFS)
        epoch, place = self._epochs.at(node)
        if place.level:
            raise refused(errno.EISDIR)
        file = asked(epoch.view.file, place.row)
        return Opening(node, ino_in(node), place.row, file, epoch.view, flags, pid)

    def entry_of(self, ino: int) -> tuple[int, bytes] | None:
        """Return the id of the directory that a file is in, and its name there; None if the file is not served."""
        try:
            epoch, place = self._epochs.at(ino)
        except OSError:
            return None
        components = asked(epoch.view.file, place.row).path.encode().split(b"/")
        for first in range(len(components)):  # the version may be shown from one of its directories on
            parent = _walk(epoch.view, components[first:], place)
            if parent is not None:
                return node_id(epoch.slot, parent), components[-1]
        return None

    def forget_pages(self) -> None:
        """Forget what was laid out before `upgraded` grew, or before another version came."""
        self._pages.clear()

    def attribute(self, node: int, name: bytes) -> bytes:
        """Answer GETXATTR.

        Raises:
            OSError: ENODATA; EOPNOTSUPP for a name that no file here has, which `ls` asks once only then.
        """
        if not name.startswith(b"user."):
            raise refused(errno.EOPNOTSUPP)
        value = self._extended(node).get(name)
        if value is None:
            raise refused(errno.ENODATA)
        return value

    def attribute_names(self, node: int) -> bytes:
        """Answer LISTXATTR."""
        return b"".join(name + b"\0" for name in self._extended(node))

    def _extended(self, node: int) -> dict[bytes, bytes]:
        epoch, place = self._epochs.at(node)
        values = {b"user.ds.commit": epoch.view.commit.encode()}
        if not place.level:
            values |= _of_file(asked(epoch.view.file, place.row))
        return values

    def statistics(self) -> bytes:
        """Answer STATFS: all is used, nothing is free."""
        view = self._epochs.newest.view
        blocks = -(-view.size // PAGE_BYTES)
        return STATFS_OUT.pack(blocks, 0, 0, view.rows, 0, PAGE_BYTES, MAX_NAME_BYTES, PAGE_BYTES, 0)

    def _directory(self, node: int) -> tuple[Epoch, Place]:
        epoch, place = self._epochs.at(node)
        if not place.level:
            raise refused(errno.ENOTDIR)
        return epoch, place


def root_names(view: MountView) -> set[bytes]:
    """Return all names at the root of a version."""
    names: set[bytes] = set()
    row: int | None = 0
    while row is not None and row < view.rows:
        children = asked(view.children, ROOT, row)
        names.update(children.names)
        row = children.next_row
    return names


def _walk(view: MountView, components: list[bytes], place: Place) -> Place | None:
    """Return the directory in which a path from the root ends, if it ends at a place."""
    at, parent = ROOT, ROOT
    for component in components:
        found = asked(view.find, at, component) if at.level else None
        if found is None:
            return None
        at, parent = found.place, at
    return parent if at == place else None


def _of_file(file: FileAt) -> dict[bytes, bytes]:
    location = file.location
    where = f"{location.object.uri} {location.offset}+{location.length}"
    values = {b"user.ds.location": where.encode()}
    if file.digest is not None:
        values[b"user.ds.digest"] = file.digest.hex().encode()
    return values


def refused(number: int) -> OSError:
    """Return the error that a program gets."""
    return OSError(number, os.strerror(number))


def asked(ask: Callable[..., _T], *arguments: object) -> _T:
    """Ask a version.

    Raises:
        OSError: ESTALE for a place that it does not have, else EIO: a part of the version that is missing at its origin
            is not a missing file.
    """
    try:
        return ask(*arguments)
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise
        logger.warning("%s", error)
        raise refused(errno.EIO) from error
