"""A real NFS server on loopback: Debian's nfs-ganesha, in user space, v3 and v4."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import socket
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.install import install_packages
from tests.services.processes import Process, free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = ("nfs-ganesha", "nfs-ganesha-vfs")
_LIBNFS = "libnfs13"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORTS = range(2)
"""NFS and MOUNT."""
_CONFIGURATION = """
NFS_CORE_PARAM {{ NFS_Port = {port}; MNT_Port = {mount_port}; Protocols = 3,4; Bind_addr = 127.0.0.1;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; mount_path_pseudo = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{root}/recovery"; Minor_Versions = 0,1,2; }}
LOG {{ Default_Log_Level = EVENT; }}
EXPORT_DEFAULTS {{ Access_Type = RW; SecType = sys; Protocols = 3,4; Transports = TCP;
  Attr_Expiration_Time = 0; }} # or changes behind its back would show after a minute
"""
_EXPORT = """
EXPORT {{ Export_Id = {number}; Path = "{path}"; Pseudo = "{path}"; Access_Type = RW; Squash = No_Root_Squash;
  SecType = sys; MaxRead = 1048576; MaxWrite = 1048576; FSAL {{ Name = VFS; }} }}
"""


def missing() -> str | None:
    """Say what keeps `nfs_server` from running, or None."""
    if shutil.which("ganesha.nfsd", path=_PATH) is None or not any(_modules()):
        return f"no nfs-ganesha (Debian packages {' '.join(_PACKAGES)})"
    if os.geteuid() != 0:
        return "nfs-ganesha needs root"
    return None if _has_libnfs() else f"no libnfs.so.13 (Debian package {_LIBNFS})"


def install(cache: Path) -> None:
    """Install Debian's packages, and libnfs for its engine, as root; `cache` is not used.

    Raises:
        RuntimeError: If apt-get fails.
    """
    del cache
    install_packages(*_PACKAGES, _LIBNFS)


@dataclass
class NfsServer:
    """A running server.

    Attributes:
        directory: Its files; the exports are `directory / "export"` and, within it, `directory / "export/nested"`.
        port: Where it answers NFS; MOUNT is on the next one.
        client: Further options for its clients.
    """

    directory: Path
    port: int
    client: dict[str, object] = field(default_factory=dict)
    _process: Process | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def export(self) -> Path:
        """The directory that is exported, under its own path."""
        return self.directory / "export"

    @property
    def url(self) -> str:
        """The export: `nfs://127.0.0.1/path`."""
        return f"nfs://127.0.0.1:{self.port}{self.export}"

    @property
    def options(self) -> dict[str, object]:
        """Options of a source on this server, which no portmapper tells about."""
        return {"mountport": self.port + 1, **self.client}

    def start(self) -> None:
        """Start it, and wait until it serves."""
        run = shlex.quote(str(self.directory / "run"))
        configuration = str(self.directory / "ganesha.conf")
        serve = shlex.join(["ganesha.nfsd", "-F", "-L", "STDOUT", "-f", configuration, "-p", "/run/ganesha.pid"])
        # A /run of its own: there it finds our portmapper, and nobody else does.
        mounting = f"mount --bind {run} /run && exec {serve}"
        self._process = self._running.enter_context(
            started(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounting],
                log=self.directory / "ganesha.log",
                ready=lambda process: process.says("NFS SERVER INITIALIZED") and listens(self.port + 1),
                grace_seconds=0,
                cwd=self.directory,
                env={**os.environ, "PATH": _PATH},
            )
        )

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        self._started().kill()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it as a machine that hangs would: its connections stay open and say nothing."""
        with self._started().paused():
            yield

    def _started(self) -> Process:
        if self._process is None:
            raise RuntimeError("the NFS server was not started")
        return self._process


@contextmanager
def nfs_server(directory: Path) -> Iterator[NfsServer]:
    """Serve `directory / "export"` (and `export/nested` as an export of its own) on free ports of 127.0.0.1.

    Raises:
        RuntimeError: If something is missing or the server does not come up; the message quotes its log.
    """
    lacking = missing()
    if lacking:
        raise RuntimeError(f"NFS cannot run: {lacking}; run python -m tests.services.install")
    server = NfsServer(directory, free_port(_PORTS))
    for name in ("export/nested", "run", "recovery"):
        (directory / name).mkdir(parents=True)
    exports = (_EXPORT.format(number=1, path=server.export), _EXPORT.format(number=2, path=server.export / "nested"))
    configuration = _CONFIGURATION.format(port=server.port, mount_port=server.port + 1, root=directory)
    (directory / "ganesha.conf").write_text(configuration + "".join(exports))
    with _portmapper(directory / "run/rpcbind.sock"), server._running:
        server.start()
        yield server


@contextmanager
def _portmapper(path: Path) -> Iterator[None]:
    """Answer "yes" to whatever is registered over a Unix socket: clients are told the ports by options."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(16)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    try:
        yield
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        listener.close()


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection = listener.accept()[0]
        except OSError:  # closed: the server is done
            return
        threading.Thread(target=_say_yes, args=(connection,), daemon=True).start()


def _say_yes(connection: socket.socket) -> None:
    """Answer calls of RPCBIND (RFC 1833): set and unset with true, null with nothing."""
    connection.settimeout(60)
    with connection, suppress(OSError, struct.error):
        while True:
            (mark,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
            call = connection.recv(mark & 0x7FFFFFFF, socket.MSG_WAITALL)
            identifier, procedure = struct.unpack_from(">I16xI", call)
            reply = struct.pack(">6I", identifier, 1, 0, 0, 0, 0) + (struct.pack(">I", 1) if procedure else b"")
            connection.sendall(struct.pack(">I", len(reply) | 0x80000000) + reply)


def _modules() -> Iterator[Path]:
    yield from Path("/usr/lib").glob("**/ganesha/libfsalvfs.so")


def _has_libnfs() -> bool:
    try:
        ctypes.CDLL("libnfs.so.13")
    except OSError:
        return False
    return True
