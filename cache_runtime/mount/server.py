"""A mount, from its beginning to its end."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cache_runtime.errors import MountError
from cache_runtime.mount.attributes import Owner
from cache_runtime.mount.capabilities import keeps_unopened_files, may_pass_through
from cache_runtime.mount.device import Attached, attach, detach, set_readahead
from cache_runtime.mount.dispatch import Dispatch
from cache_runtime.mount.epochs import Epochs, check_rows
from cache_runtime.mount.lane import Job
from cache_runtime.mount.names import Names, root_names
from cache_runtime.mount.options import MountOptions
from cache_runtime.mount.protocol import INC_EPOCH_MINOR, MAJOR, OLDEST_MINOR, ROOT_ID
from cache_runtime.mount.session import Session
from cache_runtime.mount.tally import by_name
from cache_runtime.store.layout import SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime.mount.operations import FileOperations, Kernel
    from cache_runtime.mount.view import MountView

__all__ = ["MountOptions", "MountServer"]

logger = logging.getLogger(__name__)

_LOOKED_AT_ONCE = 8192
_MOST_LOOKED_AT = 2_000_000
"""Of how many files the sizes are looked at; it takes some milliseconds, unless the tree has to come first."""


class MountServer:
    """Shows a version below a directory, until it is unmounted or told to stop.

    `mount`, then `serve`, once. The process must not look into its own mount, and ends if a thread of the server fails;
    whatever else it does, it does beside. No forked process may keep the device open: it is closed on exec.

    Args:
        view: The version.
        open_files: Makes what reads its files; closed by the server.
        mountpoint: A directory.
        options: How.
    """

    def __init__(
        self,
        view: MountView,
        open_files: Callable[[Kernel], FileOperations],
        mountpoint: str | os.PathLike[str],
        options: MountOptions | None = None,
    ) -> None:
        self._epochs = Epochs(view)
        self._open_files = open_files
        self._mountpoint = mountpoint
        self._options = options or MountOptions()
        self._events: SimpleQueue[None] = SimpleQueue()  # its `put` is safe in a signal's handler
        self._attached: Attached | None = None
        self._detaching = threading.Lock()
        self._session: Session | None = None
        self._files: FileOperations | None = None
        self._names: Names | None = None

    def mount(self) -> None:
        """Mount, and answer from now on; returns when the kernel has greeted.

        Raises:
            MountError: If that fails; nothing stays mounted.
        """
        options = self._options
        self._attached = attach(self._mountpoint, options)
        passes = options.passthrough and not options.small_files and may_pass_through()
        skips = keeps_unopened_files() if options.small_files is None else options.small_files
        wake = partial(self._events.put, None)
        device = self._attached.descriptor
        session = self._session = Session(
            device, wants_passthrough=passes, skips_opens=skips, follows=options.follows, when_ended=wake
        )
        try:
            files = self._files = self._open_files(session)
            names = self._names = Names(self._epochs, Owner(options.uid, options.gid), files.upgraded)
            table = Dispatch(names, files, self._epochs, follows=options.follows).table()
            session.prepare(table, names, files)
            session.start()
            self._await_greeting(session)
        except BaseException:
            detach(self._attached, lazily=True)
            raise
        set_readahead(self._attached, options.readahead_kib)
        if (
            skips
            and session.passthrough
            and not options.follows
            and 0 < self._epochs.newest.view.rows <= _MOST_LOOKED_AT
        ):
            threading.Thread(
                target=self._look_for_large, args=(session,), name="forebay-mount-sizes", daemon=True
            ).start()

    def _look_for_large(self, session: Session) -> None:
        """Have files opened without asking us if none of them could be read past us: at once, or some seconds later."""
        view = self._epochs.newest.view
        try:
            for row in range(0, view.rows, _LOOKED_AT_ONCE):
                if session.ended.is_set() or view.largest(row, _LOOKED_AT_ONCE) > SMALL_BYTES:
                    return
        except OSError as error:  # opens are asked as before; who reads names is told why
            logger.debug("mount %s: sizes not looked at: %s", self._mountpoint, error)
            return
        session.skip_opens()

    def _await_greeting(self, session: Session) -> None:
        path, seconds = str(self._mountpoint), self._options.init_seconds
        if not session.greeted.wait(seconds):
            raise MountError(path, f"the kernel sent no INIT within {seconds:g} s; see dmesg")
        if session.agreement is None:
            raise MountError(path, f"the kernel speaks FUSE before {MAJOR}.{OLDEST_MINOR}; it takes Linux 5.4 or newer")

    def serve(self) -> None:
        """Return when it was unmounted, by whomever, or some seconds after `stop`.

        Who was inside then goes on, until the process ends.
        """
        session = self._session
        assert session is not None, "mount first"
        self._events.get()
        self.unmount()
        if not session.ended.wait(self._options.leave_seconds):
            logger.warning("mount %s: left while in use; who is inside gets ENOTCONN", self._mountpoint)
        assert self._files is not None
        self._files.close()

    def stop(self) -> None:
        """Have `serve` unmount and return; from any thread, or from a signal's handler."""
        self._events.put(None)

    def unmount(self) -> None:
        """Unmount, out of sight at least if it is in use; does nothing if it was unmounted."""
        attached = self._attached
        if attached is None:
            return
        with self._detaching:
            if not detach(attached):
                logger.info("mount %s: in use; it is out of sight, and goes on for who is inside", attached.path)
                detach(attached, lazily=True)

    def follow(self, view: MountView) -> None:
        """Show another version soon: who looks a name up from the root finds the new one, open files stay as they are.

        Directories that programs are in go on in their version, for as long as it is one of `epochs.KEPT`. A version
        that cannot be read is logged, and not shown.

        Raises:
            ValueError: If it has too many files.
        """
        check_rows(view)
        session = self._session
        assert session is not None, "mount first"
        assert self._options.follows, "say so in the options"
        session.notices.post(lambda: session.lane.submit(Job(0, partial(self._switch, session, view))))

    def _switch(self, session: Session, view: MountView) -> None:
        assert self._names is not None
        assert session.agreement is not None
        notices = session.notices
        all_at_once = session.agreement.minor >= INC_EPOCH_MINOR
        try:  # else the names that one of both has at its root: the others were not found, and are not to be found
            names = set() if all_at_once else root_names(self._epochs.newest.view) | root_names(view)
        except OSError:
            logger.warning("mount %s: stays at commit %s", self._mountpoint, self._epochs.newest.view.commit)
            return
        self._epochs.add(view)
        self._names.forget_pages()
        if all_at_once:
            notices.post(notices.drop_all_entries)
        for name in names:
            notices.post(partial(notices.drop_entry, ROOT_ID, name))
        notices.post(partial(notices.drop_pages, ROOT_ID))

    @property
    def attached_as(self) -> tuple[str, int]:
        """Device and number of the mount, as `mountinfo.Mounted` has them."""
        assert self._attached is not None, "mount first"
        return self._attached.device, self._attached.number

    @property
    def passthrough(self) -> bool:
        """Whether the kernel reads fully cached large files by itself."""
        return self._session is not None and self._session.passthrough

    def why_no_passthrough(self) -> str:
        """Return why it does not, in words for people; empty if it does."""
        if self.passthrough:
            return ""
        if self._options.small_files:
            return "small files are opened without asking for it"
        if not self._options.passthrough:
            return "switched off"
        if not may_pass_through():
            return "this process has no CAP_SYS_ADMIN: run it as root"
        return "the kernel does not offer it: it takes Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH"

    def status(self) -> dict[str, object]:
        """Return what is mounted and what happened since, for people and metrics."""
        view, session = self._epochs.newest.view, self._session
        status: dict[str, object] = {
            "mountpoint": self._attached.path if self._attached else os.fspath(self._mountpoint),
            "source": self._options.source,
            "commit": view.commit,
            "files": view.rows,
            "bytes": view.size,
            "epoch": self._epochs.newest.number,
            "epochs": len(self._epochs),
            "passthrough": self.passthrough,
            "why_no_passthrough": self.why_no_passthrough(),
        }
        if (
            session is not None
            and session.agreement is not None
            and self._names is not None
            and self._files is not None
        ):
            status |= {
                "protocol": f"{MAJOR}.{session.agreement.minor}",
                "zero_message_opens": session.has_unopened,
                "operations": by_name(session.tallies),
                "errors": session.errors,
                "waiting": session.waiting,
                "names_not_shown": self._names.skipped,
                "reading": self._files.status(),
            }
        return status
