"""Between the names of a mount and its bytes: what each asks of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from cache_runtime.mount.protocol import OPEN_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Set

    from typing_extensions import Buffer

    from cache_runtime.mount.view import FileAt, MountView


class Opening(NamedTuple):
    """A file that a program opens.

    Attributes:
        node: The id that the kernel named.
        ino: The same without `nodes.THROUGH`.
        row: Number of the file in its version.
        file: Its bytes.
        view: Its version, to look at its neighbours.
        flags: O_RDONLY and the like.
        pid: The thread that opens it; 0 if it is in another namespace.
    """

    node: int
    ino: int
    row: int
    file: FileAt
    view: MountView
    flags: int
    pid: int


class Opened(NamedTuple):
    """The answer.

    Attributes:
        handle: What reads and the release will name.
        flags: Of `protocol.OpenFlag`.
        backing: Id of the file that the kernel reads; with `OpenFlag.PASSTHROUGH` only.
    """

    handle: int
    flags: int
    backing: int = 0


class Part(NamedTuple):
    """What a program reads of a file.

    Attributes:
        offset: Where it begins.
        size: Most bytes.
    """

    offset: int
    size: int


def opened_bytes(opened: Opened) -> bytes:
    """Return what the kernel is answered."""
    return OPEN_OUT.pack(*opened)


class FileOperations(Protocol):
    """Bytes of open files; called by any thread, by two at a time for different requests.

    No call waits for a network: what takes longer returns None, and is answered later, once, through `Kernel.reply` or
    `Kernel.fail`. An OSError is answered with its number.

    Attributes:
        upgraded: Numbers of the files whose ids shall have `nodes.THROUGH` set from now on.
    """

    @property
    def upgraded(self) -> Set[int]:
        """See above."""
        ...

    def open(self, opening: Opening, unique: int) -> Opened | None:
        """Open a file; later answers are those of `opened_bytes`."""
        ...

    def read(self, handle: int, offset: int, size: int, unique: int) -> Buffer | None:
        """Read, fewer bytes than asked for only at the file's end."""
        ...

    def knows(self, node: int) -> bool:
        """Say whether `read_unopened` can do without `find`; who may have to wait for it does that elsewhere."""
        ...

    def read_unopened(self, node: int, find: Callable[[], Opening], part: Part, unique: int) -> Buffer | None:
        """Read a file that the kernel opened by itself; `find` says which file that is."""
        ...

    def read_unopened_later(self, find: Callable[[], Opening], part: Part, unique: int) -> None:
        """Do the same in another thread, where `find` may wait."""
        ...

    def release(self, handle: int) -> None:
        """Forget a handle: nothing reads it any more."""
        ...

    def interrupt(self, unique: int) -> None:
        """Answer EINTR, if the request was not answered yet: who waits for it wants to end."""
        ...

    def status(self) -> dict[str, object]:
        """Return counters, for people and metrics."""
        ...

    def close(self) -> None:
        """Let everything go; there are no more requests."""
        ...


class Kernel(Protocol):
    """The other end of the device, for those who answer later. For any number of threads.

    Attributes:
        device: The open /dev/fuse, for ioctls.
        passthrough: Whether the kernel reads backing files by itself; known when the first file is opened.
    """

    @property
    def device(self) -> int:
        """See above."""
        ...

    @property
    def passthrough(self) -> bool:
        """See above."""
        ...

    def reply(self, unique: int, *parts: Buffer) -> bool:
        """Answer a request; False if nobody waits for it any more: who opened something closes it then."""
        ...

    def fail(self, unique: int, number: int) -> None:
        """Answer a request with an errno."""
        ...

    def is_unwanted(self, unique: int) -> bool:
        """Say whether who asked wants to end; the kernel does not tell it of reads that it began ahead of a program."""
        ...

    def upgrade(self, ino: int) -> None:
        """Have the kernel look a file up again, which is in `FileOperations.upgraded` now; returns at once."""
        ...

    def drop_pages(self, node: int) -> None:
        """Have the kernel forget the pages and attributes of an id; returns at once."""
        ...
