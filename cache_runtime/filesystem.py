"""The cache as an fsspec filesystem: pandas, pyarrow, torch and others read paths through the client."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fsspec import AbstractFileSystem

from cache_runtime.locationio import BUFFER_BYTES, part_of

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from cache_runtime.client import Client
    from sources import Location


class PathInfo(NamedTuple):
    """What a view knows of a path.

    Attributes:
        path: In full, without a first or last slash.
        size: Bytes; 0 for a directory.
        is_dir: Whether it is a directory.
        etag: Changes with the content; None where that is not known.
    """

    path: str
    size: int
    is_dir: bool
    etag: str | None = None


class PathView(Protocol):
    """Names for locations: one version of a dataset, for example. Paths have no first or last slash; "" is the root."""

    def locate(self, path: str) -> Location:
        """Return where a file's bytes are; FileNotFoundError, or IsADirectoryError."""
        ...

    def info(self, path: str) -> PathInfo:
        """Describe a file or directory; FileNotFoundError."""
        ...

    def listdir(self, path: str) -> Sequence[PathInfo]:
        """Describe the direct children of a directory; FileNotFoundError, or NotADirectoryError."""
        ...


class CachedFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec publishes no types
    """Read-only files of a view, read through a client.

    Args:
        view: What the paths mean.
        client: What their bytes are read through.
    """

    protocol = "ds"
    cachable = False
    root_marker = ""

    def __init__(self, view: PathView, client: Client, **options: Any) -> None:
        super().__init__(**options)
        self._view = view
        self._client = client

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.strip("/") if isinstance(stripped, str) else stripped

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a path: `name`, `size`, `type` ("file" or "directory")."""
        return described(self._view.info(self._strip_protocol(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a directory, or the one file that the path names."""
        path = self._strip_protocol(path)
        try:
            found = [described(child) for child in self._view.listdir(path)]
        except NotADirectoryError:
            found = [self.info(path)]
        return found if detail else [child["name"] for child in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a file from `start` to `end`, which count from its end if they are negative."""
        location = self._view.locate(self._strip_protocol(path))
        first, stop, _step = slice(start, end).indices(location.length)
        return bytes(self._client.read(part_of(location, first, max(0, stop - first))))

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return one range of each path, read together; with `on_error="return"` an error takes the place of bytes."""
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        wanted = list(zip(paths, starts, ends, strict=True))
        try:
            parts = []
            for path, start, end in wanted:
                location = self._view.locate(self._strip_protocol(path))
                first, stop, _step = slice(start, end).indices(location.length)
                parts.append(part_of(location, first, max(0, stop - first)))
            return [bytes(view) for view in self._client.read_many(parts)]
        except (OSError, ValueError):
            if on_error == "raise":
                raise
        return [self._cat_or_error(*item) for item in wanted]

    def _cat_or_error(self, path: str, start: int | None, end: int | None) -> bytes | Exception:
        try:
            return self.cat_file(path, start, end)
        except (OSError, ValueError) as error:
            return error

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> io.BufferedReader:
        if mode != "rb":
            raise OSError(errno.EROFS, "a version's files are read-only; write to a branch through ds:// instead", path)
        location = self._view.locate(self._strip_protocol(path))
        return self._client.open(location, buffer_bytes=block_size or BUFFER_BYTES)


def described(info: PathInfo) -> dict[str, Any]:
    """Return what fsspec wants to know of a path."""
    found = {"name": info.path, "size": info.size, "type": "directory" if info.is_dir else "file"}
    return found if info.etag is None else {**found, "etag": info.etag}
