"""`ds://DATASET[@REVISION]/PATH` for everything that reads through fsspec."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from ds.dataset import Dataset
from ds.targets import Target

if TYPE_CHECKING:
    from cache_runtime import CachedFileSystem

_log = logging.getLogger(__name__)


class DatasetFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec publishes no types
    """The datasets of this machine, read-only and through its cache.

    The first part of a path is `DATASET[@REVISION]`. What a revision means is looked up once per filesystem object, so
    that one program sees one version; the commit is logged.
    """

    protocol = "ds"
    cachable = False
    root_marker = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._versions: dict[str, CachedFileSystem] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped.strip("/") if isinstance(stripped, str) else stripped

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a path: `name`, `size`, `type` ("file" or "directory")."""
        version, top, rest = self._find(path)
        return _below(top, version.info(rest))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a directory, or the one file that the path names."""
        version, top, rest = self._find(path)
        found = [_below(top, child) for child in version.ls(rest)]
        return found if detail else [child["name"] for child in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a file from `start` to `end`."""
        version, _top, rest = self._find(path)
        return bytes(version.cat_file(rest, start, end))

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        version, _top, rest = self._find(path)
        return version._open(rest, mode=mode, block_size=block_size, **options)

    def _find(self, path: str) -> tuple[CachedFileSystem, str, str]:
        top, _, rest = self._strip_protocol(path).partition("/")
        if not top:
            raise FileNotFoundError(errno.ENOENT, "name a dataset: ds://DATASET[@REVISION]/PATH", path)
        if top not in self._versions:
            target = Target.parse(top)
            dataset = Dataset(target.dataset or "")
            commit = dataset.resolve(target.revision)
            _log.info("opened dataset=%s revision=%s commit=%s", dataset.name, target.revision, commit)
            self._versions[top] = dataset.filesystem(commit)
        return self._versions[top], top, rest


def _below(top: str, info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "name": f"{top}/{info['name']}".rstrip("/")}
