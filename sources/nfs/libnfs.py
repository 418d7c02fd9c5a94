"""The engine over libnfs 4.0: a C library, called through ctypes.

Only its raw calls are used, one for each request of NFSv3: a READ's answer carries the attributes of what was read, of
which libnfs's own files tell nothing, and its own paths follow symbolic links. We start from the mounted directory's
handle and look one name up in another, so nobody but the server resolves anything.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sources.nfs import libnfs_structs as structs
from sources.nfs.directories import Directories
from sources.nfs.engines import Attributes, MountRefusedError
from sources.nfs.libnfs_rpc import Call, Connection, library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sources.locations import Version
    from sources.nfs.options import NfsOptions

_NFS, _MOUNT = 100003, 100005
_CHUNK_BYTES = 1 << 20  # libnfs 4.0 takes no longer answers
_LARGE_BYTES = 128 << 10  # from here on a copy is worth letting go of the GIL
_LIST_BYTES = 128 << 10
_UNSTABLE, _ON_DISK = 0, 2
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755
_ERRNO = {63: errno.ENAMETOOLONG, 66: errno.ENOTEMPTY, 69: errno.EDQUOT, 70: errno.ESTALE, 10001: errno.ESTALE}
_NO_ERRNO = {10003: "BAD_COOKIE", 10004: "NOTSUPP", 10005: "TOOSMALL", 10006: "SERVERFAULT", 10008: "JUKEBOX"}


class LibnfsEngine:
    """As many connections as threads call at a time; who calls takes an idle one, or makes one.

    Args:
        options: Where and who.
        path: What to mount: an export, or a directory in it.

    Raises:
        MountRefusedError: If the server does not mount this path.
    """

    def __init__(self, options: NfsOptions, path: str) -> None:
        self._options = options
        self._root = _mount(options, path)
        self._idle: deque[Connection] = deque()
        self._directories = Directories()
        with self._connection() as connection:
            sizes = _ask(connection, "fsinfo", structs.FileArguments(structs.sent(self._root)), _sizes)
        self._read_bytes, self._write_bytes = (min(size, _CHUNK_BYTES) or _CHUNK_BYTES for size in sizes)

    def attributes(self, path: str) -> Attributes:
        """See `Engine`."""
        with self._connection() as connection:
            above, _, name = path.rpartition("/")
            if not name:
                return _attributes(connection, self._root, None)
            place = structs.Place(structs.sent(self._walk(connection, above)), *_names(name))
            return _attributes(connection, *_ask(connection, "lookup", place, _looked))

    def scan(self, path: str) -> Iterator[tuple[str, Attributes]]:
        """See `Engine`; READDIRPLUS, so it costs no request for each file."""
        with self._connection() as connection:
            directory = self._walk(connection, path)
            arguments = structs.ListArguments(structs.sent(directory), 0, (0, 0), _LIST_BYTES, _LIST_BYTES)
            more = True
            while more:
                entries, arguments.verifier[:], more = _ask(connection, "readdirplus", arguments, _entries)
                for name, cookie, found in entries:
                    arguments.cookie = cookie
                    if name not in (b".", b".."):
                        file = b"" if found else _look_up(connection, directory, name)
                        yield name.decode(errors="replace"), _attributes(connection, file, found)

    def read_into(
        self, path: str, start: int, target: memoryview, wanted: Version | None
    ) -> tuple[int, set[Attributes]]:
        """See `Engine`; the attributes are those that came with the data."""
        with self._connection() as connection:
            if wanted is not None:
                known = self._read_known(connection, path, start, target, wanted)
                if known is not None:
                    return known
            above, _, name = path.rpartition("/")
            directory = self._walk(connection, above)
            self._directories.keep(above, directory)
            file = _look_up(connection, directory, *_names(name)) if name else directory
            return self._read(connection, file, start, target)

    def write(self, path: str, data: memoryview) -> None:
        """See `Engine`."""
        with self._connection() as connection:
            place, new = self._place(connection, path), structs.NewAttributes(1, _FILE_MODE, sets_size=1)
            file = _ask(connection, "create", structs.CreateArguments(place, 0, new), _created)
            _write(connection, file or self._walk(connection, path), data, self._write_bytes)

    def make_directories(self, path: str) -> None:
        """See `Engine`."""
        with self._connection() as connection:
            above = self._root
            for name in _names(path):
                place = structs.Place(structs.sent(above), name)
                new = structs.NewAttributes(1, _DIRECTORY_MODE)
                try:
                    above = _look_up(connection, above, name)
                except FileNotFoundError:
                    with suppress(FileExistsError):  # another writer was faster
                        _ask(connection, "mkdir", structs.DirectoryArguments(place, new))
                    above = _look_up(connection, above, name)
            if _attributes(connection, above, None).kind != "directory":
                raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")

    def remove_directory(self, path: str) -> None:
        """See `Engine`."""
        with self._connection() as connection:
            _ask(connection, "rmdir", self._place(connection, path))

    def rename(self, source: str, target: str) -> None:
        """See `Engine`."""
        with self._connection() as connection:
            places = self._place(connection, source), self._place(connection, target)
            _ask(connection, "rename", structs.RenameArguments(*places))

    def remove(self, path: str) -> None:
        """See `Engine`."""
        with self._connection() as connection:
            _ask(connection, "remove", self._place(connection, path))

    def _read_known(
        self, connection: Connection, path: str, start: int, target: memoryview, wanted: Version
    ) -> tuple[int, set[Attributes]] | None:
        """Read what `wanted` is in a directory that was looked up just now; None if it is not there, or not known."""
        above, _, name = path.rpartition("/")
        directory = self._directories.find(above)
        if directory is None or not name:
            return None
        try:
            got, seen = self._read(connection, _look_up(connection, directory, *_names(name)), start, target)
        except OSError:
            if not connection.open:
                raise  # that was no answer
            return None
        return (got, seen) if all(found.version == wanted for found in seen) else None

    def _read(self, connection: Connection, file: bytes, start: int, target: memoryview) -> tuple[int, set[Attributes]]:
        if not target:
            return 0, {_attributes(connection, file, None)}
        reading = _Reading(file, start, target, self._read_bytes)
        return reading.run(connection, large=len(target) >= _LARGE_BYTES)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            if connection.open:
                self._idle.append(connection)

    def _take(self) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _connect(self._options, _NFS, self._options.nfsport)
            if connection.usable:
                return connection
            connection.close()

    def _walk(self, connection: Connection, path: str) -> bytes:
        """Look names up, one in the other; a symbolic link is what it is, and nothing lies in it."""
        found = self._root
        for name in _names(path):
            found = _look_up(connection, found, name)
        return found

    def _place(self, connection: Connection, path: str) -> structs.Place:
        directory, _, name = path.rpartition("/")
        if not name:
            raise IsADirectoryError(errno.EISDIR, "this is the mounted directory")
        return structs.Place(structs.sent(self._walk(connection, directory)), *_names(name))


class _Reading:
    """A range on its way into memory, in chunks."""

    def __init__(self, file: bytes, start: int, target: memoryview, chunk: int) -> None:
        self._file, self._start = file, start
        self._target = ctypes.c_char.from_buffer(target)  # keeps the memory where it is
        self._address = ctypes.addressof(self._target)
        self._left = deque((at, min(chunk, len(target) - at)) for at in range(0, len(target), chunk))
        self._end = len(target)
        self._seen: set[Attributes] = set()
        self._blind = False  # attributes are the server's to leave out
        self._statuses: set[int] = set()

    def run(self, connection: Connection, *, large: bool) -> tuple[int, set[Attributes]]:
        """Read it all; return how much there was, and the attributes that came along."""
        while self._left:  # a server may send less than it was asked for
            if len(self._left) == 1:
                connection.run_one(next(self._calls()), large=large)
            else:
                connection.run(self._calls(), large=large)
            for status in self._statuses:
                _raise(status)
        if self._blind:
            self._seen.add(_attributes(connection, self._file, None))
        return self._end, self._seen

    def _calls(self) -> Iterator[Call]:
        while self._left:
            at, size = self._left.popleft()
            arguments = structs.RangeArguments(structs.sent(self._file), self._start + at, size)
            yield _call("read", arguments, partial(self._receive, at, size))

    def _receive(self, at: int, size: int, address: int) -> None:
        read = structs.Read.from_address(address)
        if read.status:
            self._statuses.add(read.status)
            return
        count = min(read.count, read.data.length, size)
        ctypes.memmove(self._address + at, read.data.bytes, count)
        found = read.attributes.value()
        if found is None:
            self._blind = True
        else:
            self._seen.add(found)
        if count < size:
            if read.eof or not count:
                self._end = min(self._end, at + count)
            else:
                self._left.append((at + count, size - count))


def is_installed() -> bool:
    """Say whether libnfs is there."""
    try:
        library()
    except OSError:
        return False
    return True


def connect(options: NfsOptions, path: str) -> LibnfsEngine:
    """Mount a path. Raises as `LibnfsEngine` does."""
    return LibnfsEngine(options, path)


def can_mount(path: str) -> bool:
    """Say whether libnfs can be told to mount this path."""
    return "\0" not in path


def exports(options: NfsOptions) -> list[str]:
    """Ask the server what it exports."""
    connection = _connect(options, _MOUNT, options.mountport)
    call = Call(library().export, _exports)
    try:
        connection.run_one(call)
    finally:
        connection.close()
    found: list[str] = call.answer
    return found


def _mount(options: NfsOptions, path: str) -> bytes:
    connection = _connect(options, _MOUNT, options.mountport)
    name = path.encode()
    call = Call(lambda context, callback, call: library().mount(context, callback, name, call), _mounted)
    try:
        connection.run_one(call)
    finally:
        connection.close()
    status, root = call.answer
    if status:
        raise MountRefusedError(_ERRNO.get(status, status), f"the server does not mount it (error {status})")
    found: bytes = root
    return found


def _connect(options: NfsOptions, program: int, port: int | None) -> Connection:
    user = (
        os.geteuid() if options.uid is None else options.uid,
        os.getegid() if options.gid is None else options.gid,
    )
    return Connection(options.host, program, port, user=user, seconds=options.timeout_seconds)


def _names(path: str) -> list[bytes]:
    if "\0" in path:
        raise OSError(errno.ENAMETOOLONG, "no server can have a name with a zero in it")
    return path.encode().split(b"/") if path else []


def _call(name: str, arguments: ctypes.Structure, decode: Callable[[int], Any]) -> Call:
    send, pointer = library().nfs[name], ctypes.byref(arguments)
    return Call(lambda context, callback, call: send(context, callback, pointer, call), decode)


def _ask(connection: Connection, name: str, arguments: ctypes.Structure, decode: Callable[[int], Any] = bool) -> Any:
    """Make one call; `decode` is given the address of a result that says OK."""
    call = _call(name, arguments, lambda address: _checked(address, decode))
    connection.run_one(call)
    status, answer = call.answer
    if status:
        _raise(status)
    return answer


def _checked(address: int, decode: Callable[[int], Any]) -> tuple[int, Any]:
    status = ctypes.c_uint32.from_address(address).value  # every result begins with it
    return status, None if status else decode(address)


def _raise(status: int) -> None:
    """Raise what a status of NFSv3 means; most of them are the errno of old."""
    if status in _NO_ERRNO:
        raise OSError(errno.EIO, f"the server answers {_NO_ERRNO[status]}")
    number = _ERRNO.get(status, status)
    raise OSError(number, os.strerror(number))


def _look_up(connection: Connection, directory: bytes, name: bytes) -> bytes:
    found: bytes = _ask(connection, "lookup", structs.Place(structs.sent(directory), name), _found)
    return found


def _attributes(connection: Connection, file: bytes, known: Attributes | None) -> Attributes:
    if known is not None:
        return known
    found: Attributes = _ask(connection, "getattr", structs.FileArguments(structs.sent(file)), _got)
    return found


def _write(connection: Connection, file: bytes, data: memoryview, chunk: int) -> None:
    """Write, and return when it is on the server's disk: at once if it is one chunk, by COMMIT if it is more."""
    stable = _ON_DISK if len(data) <= chunk else _UNSTABLE
    left = deque((at, min(chunk, len(data) - at)) for at in range(0, len(data), chunk))
    answers: list[Any] = []

    def receive(at: int, size: int, address: int) -> None:
        status, written = _checked(address, _written)
        answers.append((status, written))
        if written and written[0] < size:
            left.append((at + written[0], size - written[0]))

    def calls() -> Iterator[Call]:
        while left:
            at, size = left.popleft()
            body = structs.sent(bytes(data[at : at + size]))
            arguments = structs.WriteArguments(structs.sent(file), at, size, stable, body)
            yield _call("write", arguments, partial(receive, at, size))

    while left:
        connection.run(calls(), large=len(data) >= _LARGE_BYTES)
        for status, written in answers:
            if status:
                _raise(status)
            if not written[0]:
                raise OSError(errno.EIO, "the server takes no more")
    if stable == _UNSTABLE:
        verifier = _ask(connection, "commit", structs.RangeArguments(structs.sent(file), 0, 0), _committed)
        if any(written[1] != verifier for _, written in answers):
            raise ConnectionError("the server restarted while it was written to")


def _found(address: int) -> bytes:
    return structs.bytes_of(structs.Looked.from_address(address).object)


def _looked(address: int) -> tuple[bytes, Attributes | None]:
    found = structs.Looked.from_address(address)
    return structs.bytes_of(found.object), found.attributes.value()


def _got(address: int) -> Attributes:
    found: Attributes = structs.Got.from_address(address).attributes.value()
    return found


def _sizes(address: int) -> tuple[int, int]:
    found = structs.Sizes.from_address(address)
    return found.read_max, found.write_max


def _created(address: int) -> bytes | None:
    found = structs.Created.from_address(address).object
    return structs.bytes_of(found.handle) if found.follows else None


def _written(address: int) -> tuple[int, tuple[int, int]]:
    found = structs.Written.from_address(address)
    return found.count, tuple(found.verifier)


def _committed(address: int) -> tuple[int, int]:
    return tuple(structs.Committed.from_address(address).verifier)


def _mounted(address: int) -> tuple[int, bytes]:
    found = structs.Mounted.from_address(address)
    return found.status, b"" if found.status else structs.bytes_of(found.handle)


def _exports(address: int) -> list[str]:
    found, paths = ctypes.POINTER(structs.Export).from_address(address), []
    while found:
        paths.append(found.contents.path.decode(errors="replace"))
        found = found.contents.next
    return paths


def _entries(address: int) -> tuple[list[tuple[bytes, int, Attributes | None]], tuple[int, int], bool]:
    found, entries = structs.Listed.from_address(address), []
    entry = found.entries
    while entry:
        one = entry.contents
        entries.append((one.name, one.cookie, one.attributes.value()))
        entry = one.next
    return entries, tuple(found.verifier), not found.eof and bool(entries)
