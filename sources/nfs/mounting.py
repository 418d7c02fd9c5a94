"""From the path of a source to a mounted export."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from sources.errors import SourceConfigError, SourceNotFoundError
from sources.nfs.engines import MountRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sources.nfs.engines import Engine
    from sources.nfs.options import NfsOptions

_MODULES = {"libnfs": "sources.nfs.libnfs", "nfs-rs": "sources.nfs.native"}
"""In order of preference: libnfs reads small files twice as fast."""
_MISSING = {
    "libnfs": "needs libnfs 4.0, libnfs.so.13: apt install libnfs13, or option engine: nfs-rs",
    "nfs-rs": "needs nfs-rs: pip install 'forebay[nfs]'",
}


class EngineModule(Protocol):
    """What the module of an engine has."""

    def connect(self, options: NfsOptions, path: str) -> Engine:
        """Mount a path.

        Raises:
            MountRefusedError: If the server does not.
        """
        ...

    def can_mount(self, path: str) -> bool:
        """Say whether the library can be told to mount this path."""
        ...

    def exports(self, options: NfsOptions) -> list[str]:
        """Ask the server what it exports."""
        ...

    def is_installed(self) -> bool:
        """Say whether the library is there."""
        ...


@dataclass(frozen=True)
class Mounted:
    """An engine and where it is mounted.

    Attributes:
        engine: Its paths are relative to `path`.
        path: On the server, without a last slash; "" is its root.
    """

    engine: Engine
    path: str


def engine_module(name: str | None, uri: str) -> EngineModule:
    """Return the engine that was asked for, or the best one that is installed.

    Raises:
        SourceConfigError: If it is not installed.
    """
    for candidate, module in _MODULES.items():
        if name in (None, candidate):
            found = cast("EngineModule", import_module(module))
            if found.is_installed():
                return found
    raise SourceConfigError(f"{uri}: nfs:// {_MISSING[name or 'nfs-rs']}")


def mount(options: NfsOptions, root: str, uri: str) -> Mounted:
    """Mount the source's root, or the export that it lies in where the server mounts nothing but exports.

    A deeper mount has shorter paths to look up, and nothing above it can be named at all.

    Args:
        options: Where and who; option `export` wins.
        root: Absolute path on the server, without a last slash.
        uri: For messages.

    Raises:
        SourceNotFoundError: If the server exports nothing that contains the root.
    """
    module = engine_module(options.engine, uri)
    if options.export is not None:
        return Mounted(module.connect(options, options.export), options.export.rstrip("/"))
    if root and module.can_mount(root):
        try:
            return Mounted(module.connect(options, root), root)
        except MountRefusedError:
            pass  # no directory, not yet there, or a server that mounts exports only
    export = longest_export(module.exports(options), root)
    if export is None:
        raise SourceNotFoundError(uri, "export of the server that contains")
    return Mounted(module.connect(options, export or "/"), export)


def longest_export(paths: Iterable[str], path: str) -> str | None:
    """Return the export, without a last slash, that contains a path; the longest one if several do."""
    trimmed = [export.rstrip("/") for export in paths]
    return max((export for export in trimmed if f"{path}/".startswith(f"{export}/")), key=len, default=None)
