"""From the path of a source to a mounted export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nfs_rs import NfsMountError

from sources.errors import SourceNotFoundError
from sources.nfs.native import NfsRsEngine, can_mount, exports

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sources.nfs.engines import Engine
    from sources.nfs.options import NfsOptions


@dataclass(frozen=True)
class Mounted:
    """An engine and where it is mounted.

    Attributes:
        engine: Its paths are relative to `path`.
        path: On the server, without a last slash; "" is its root.
    """

    engine: Engine
    path: str


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
    if options.export is not None:
        return Mounted(NfsRsEngine(options, options.export), options.export.rstrip("/"))
    if root and can_mount(root):
        try:
            return Mounted(NfsRsEngine(options, root), root)
        except NfsMountError:
            pass  # no directory, not yet there, or a server that mounts exports only
    export = longest_export(exports(options), root)
    if export is None:
        raise SourceNotFoundError(uri, "export of the server that contains")
    return Mounted(NfsRsEngine(options, export or "/"), export)


def longest_export(paths: Iterable[str], path: str) -> str | None:
    """Return the export, without a last slash, that contains a path; the longest one if several do."""
    trimmed = [export.rstrip("/") for export in paths]
    return max((export for export in trimmed if f"{path}/".startswith(f"{export}/")), key=len, default=None)
