"""NFS in user space as an fsspec filesystem: protocol `nfs`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from sources.errors import SourceNotFoundError
from sources.locations import StoreId
from sources.nfs.options import parse_options
from sources.nfs.store import NfsStore
from sources.stores import stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from sources.locations import ObjectStat


class NfsFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec publishes no types
    """What a server exports; paths are those of the server. Listings are not cached.

    A file that is written is kept in memory until it is closed, and then put whole: readers never see half of it.

    Args:
        host: The server.
        port: Of NFS; None asks the server's portmapper.
        options: As of an `nfs://` source; see `sources.nfs.options.NfsOptions`.
    """

    protocol = "nfs"
    root_marker = "/"
    cachable = True

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        super().__init__(host=host, port=port, **options)
        self._id = StoreId(f"nfs://{host}:{port}" if port else f"nfs://{host}")
        known = {name: value for name, value in options.items() if name not in _OF_FSSPEC}
        self._options = parse_options(self._id, self._id.removeprefix("nfs://"), known)
        self._stores: dict[str, NfsStore] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(path)
        if text.startswith("nfs://"):
            text = "/" + split_uri(text).key
        return "/" + text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        authority = split_uri(path).store.removeprefix("nfs://")
        host, _, port = authority.rpartition(":") if authority.rpartition(":")[2].isdecimal() else (authority, "", "")
        return {"host": host, **({"port": int(port)} if port else {})}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a directory, or one file."""
        path = self._strip_protocol(path)
        store, key = self._place(path)
        if not store.is_directory(key):
            found = [_info(store.stat(key))]
        else:
            page = store.scan_directory(f"{key}/" if key else "")
            found = [_directory(name) for name in page.directories] + [_info(stat) for stat in stats_of(page.files)]
        found.sort(key=lambda info: str(info["name"]))
        return found if detail else [info["name"] for info in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Tell size and times of a file, or that it is a directory."""
        path = self._strip_protocol(path)
        store, key = self._place(path)
        if store.is_directory(key):
            return _directory(key)
        return _info(store.stat(key))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Read a file or a range of it, of one version."""
        store, key = self._place(self._strip_protocol(path))
        stat = store.stat(key)
        begin, stop, _step = slice(start, end).indices(stat.size)
        return bytes(store.read(key, start=begin, length=max(stop - begin, 0), version=stat.version))

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """Write a file whole."""
        path = self._strip_protocol(path)
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        store, key = self._place(path)
        store.put(key, value)

    def rm_file(self, path: str) -> None:
        """Delete a file."""
        store, key = self._place(self._strip_protocol(path))
        store.stat(key)  # missing is an error here
        store.delete(key)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, and directories with all that is in them."""
        for found in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            if self.isdir(found):
                self.rmdir(found)
            else:
                self.rm_file(found)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a directory."""
        store, key = self._place(self._strip_protocol(path))
        if self.exists(path):
            raise FileExistsError(path)
        if not create_parents and not store.is_directory(key.rpartition("/")[0]):
            raise SourceNotFoundError(path, "directory above")
        store.make_directories(key)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        if not exist_ok or not self.isdir(path):
            self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        store, key = self._place(self._strip_protocol(path))
        store.remove_directory(key)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file through this process."""
        self.pipe_file(path2, self.cat_file(path1))

    def created(self, path: str) -> Any:
        """NFSv3 does not tell."""
        raise NotImplementedError("NFSv3 does not tell when a file was created")

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        if mode == "rb":
            return _Reader(self, path, mode, block_size or "default", **options)
        if mode not in ("wb", "xb"):
            raise NotImplementedError(f"mode {mode}: files are written whole")
        if mode == "xb" and self.exists(path):
            raise FileExistsError(path)
        return _Writer(self, path)

    def _place(self, path: str) -> tuple[NfsStore, str]:
        """Return the store of the export that a path lies in, and its key."""
        export = self._export(path)
        store = self._stores.get(export)
        if store is None:
            store = self._stores.setdefault(export, NfsStore(self._id, export, self._options))
        return store, path.strip("/")

    def _export(self, path: str) -> str:
        from sources.nfs.failures import translated
        from sources.nfs.mounting import engine_module, longest_export

        export = self._options.export or longest_export(self._stores, path)
        if export is None:
            with translated(self._id):
                module = engine_module(self._options.engine, self._id)
                export = longest_export(module.exports(self._options), path)
        if export is None:
            raise SourceNotFoundError(f"{self._id}{path}", "export of the server that contains")
        return export


_OF_FSSPEC = ("asynchronous", "loop", "skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths")


class _Reader(AbstractBufferedFile):  # type: ignore[misc]  # fsspec publishes no types
    """Reads one version of a file: the one that was there when it was opened."""

    def __init__(self, fs: NfsFileSystem, path: str, mode: str, block_size: Any, **options: Any) -> None:
        self._store, self._key = fs._place(fs._strip_protocol(path))
        self._stat = self._store.stat(self._key)
        super().__init__(fs, path, mode, block_size, size=self._stat.size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self._store.read(self._key, start=start, length=end - start, version=self._stat.version))


class _Writer(io.BytesIO):
    def __init__(self, fs: NfsFileSystem, path: str) -> None:
        super().__init__()
        self._fs, self._path = fs, path

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            super().close()  # what its block did not finish is not written
        self.close()

    def close(self) -> None:
        if not self.closed:
            self._fs.pipe_file(self._path, self.getvalue())
        super().close()


def _info(stat: ObjectStat) -> dict[str, Any]:
    mtime_ns = stat.mtime_ns or 0
    return {
        "name": f"/{stat.key}",
        "size": stat.size,
        "type": "file",
        "mtime": mtime_ns / 1e9,
        "ETag": stat.version,
    }


def _directory(key: str) -> dict[str, Any]:
    return {"name": "/" + key.strip("/"), "size": 0, "type": "directory"}
