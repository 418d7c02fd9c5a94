"""Objects outside of a repository: found by path, URI, glob or brace list."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loaders.errors import NoSamplesError
from loaders.formats.braces import expand_braces
from sources import ObjectRef, SourceNotFoundError, StoreId, Version, join_uri, open_store, split_uri
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sources import ObjectStat, Store

_MAGIC = re.compile(r"[*?\[]")
_STATS_AT_A_TIME = 16


@dataclass(frozen=True)
class Shard:
    """One object that holds samples, as it was when it was found.

    Attributes:
        uri: Names it in errors; a path if it is a local file.
        size: Bytes.
        version: Compared when it is read.
        path: Where it lies on this machine; None if it is in a store.
        mtime_ns: When it was changed, where that is known.
    """

    uri: str
    size: int
    version: Version
    path: str | None = None
    mtime_ns: int | None = None

    @cached_property
    def ref(self) -> ObjectRef:
        """The object in its store."""
        if self.path is not None:
            return ObjectRef(StoreId("file://"), self.path.lstrip("/"), self.version, self.size)
        _, store, key = split_uri(self.uri)
        return ObjectRef(store, key, self.version, self.size)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.uri.rpartition("/")[2]


class Finder:
    """Finds objects; opens each store once.

    Args:
        options: For every store that is opened, in the vocabulary of its scheme.
    """

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._options = options
        self.stores: dict[StoreId, Store] = {}

    def store_of(self, uri: str) -> Store:
        """Return the store that a URI lies in."""
        scheme, store, _ = split_uri(uri)
        if store not in self.stores:
            options = None if scheme == "file" else self._options
            self.stores[store] = open_store(f"{scheme}://{store.partition('://')[2]}/", options)
        return self.stores[store]

    def find(self, places: str | Sequence[str]) -> list[Shard]:
        """Return what paths, URIs, globs and brace lists name, in their order; what a glob finds is sorted.

        Raises:
            NoSamplesError: If a glob finds nothing.
            SourceNotFoundError: If a name that is no glob is not there.
        """
        names = [name for place in ([places] if isinstance(places, str) else places) for name in expand_braces(place)]
        crew = Crew(_STATS_AT_A_TIME, name="forebay-find")
        try:
            found = crew.map(self._find_one, names) if len(names) > 1 else [self._find_one(name) for name in names]
        finally:
            crew.close()
        return [shard for shards in found for shard in shards]

    def named(self, places: Sequence[str]) -> list[Shard]:
        """Return one object for each place, whose name is taken as it is: what an index names is no pattern.

        Raises:
            SourceNotFoundError: If one is not there.
        """
        crew = Crew(_STATS_AT_A_TIME, name="forebay-find")
        try:
            return crew.map(self._named_one, places) if len(places) > 1 else [self._named_one(one) for one in places]
        finally:
            crew.close()

    def _named_one(self, place: str) -> Shard:
        path = local_path(place)
        return _of_stat(place, self.store_of(place).stat(split_uri(place).key)) if path is None else local_shard(path)

    def _find_one(self, place: str) -> list[Shard]:
        path = local_path(place)
        if path is not None:
            names = (
                sorted(glob.glob(path, recursive=True)) if _MAGIC.search(path) and not os.path.exists(path) else [path]
            )
            shards = [local_shard(name) for name in names if len(names) == 1 or os.path.isfile(name)]
        elif _MAGIC.search(split_uri(place).key):
            shards = self._match(place)
        else:
            stat = self.store_of(place).stat(split_uri(place).key)
            shards = [_of_stat(place, stat)]
        if not shards:
            raise NoSamplesError(f"{place}: nothing there matches; check the path and the pattern")
        return shards

    def _match(self, place: str) -> list[Shard]:
        _, store, pattern = split_uri(place)
        fixed = pattern[: _MAGIC.search(pattern).start()]  # type: ignore[union-attr] # it has magic
        stats = self.store_of(place).list(fixed[: fixed.rfind("/") + 1])
        deep = "**" in pattern
        return sorted(
            (
                _of_stat(join_uri(store, stat.key), stat)
                for stat in stats
                if fnmatch.fnmatchcase(stat.key, pattern) and (deep or stat.key.count("/") == pattern.count("/"))
            ),
            key=lambda shard: shard.uri,
        )

    def directory(self, place: str) -> list[Shard]:
        """Return all that lies below a directory, sorted by name.

        Raises:
            SourceNotFoundError: If it is not there.
        """
        path = local_path(place)
        if path is not None:
            names = (os.path.join(top, name) for top, _, files in os.walk(path) for name in files)
            return [local_shard(name) for name in sorted(names) if ".forebay-tmp-" not in name]
        uri = place.rstrip("/") + "/"
        _, store, prefix = split_uri(uri)
        found = [_of_stat(join_uri(store, stat.key), stat) for stat in self.store_of(uri).list(prefix)]
        return sorted(found, key=lambda shard: shard.uri)

    def exists(self, place: str) -> Shard | None:
        """Return an object, or None if it is not there."""
        path = local_path(place)
        try:
            if path is not None:
                return local_shard(path) if os.path.isfile(path) else None
            return _of_stat(place, self.store_of(place).stat(split_uri(place).key))
        except SourceNotFoundError:
            return None


def local_path(place: str) -> str | None:
    """Return the absolute path of a local place, None for a place in a store."""
    if place.startswith("file://"):
        return "/" + split_uri(place).key
    return None if re.match(r"[a-z][a-z0-9+.-]*://", place) else os.path.abspath(place)


def local_shard(path: str) -> Shard:
    """Return a local file as a shard.

    Raises:
        SourceNotFoundError: If there is no such file.
    """
    if not os.path.isfile(path):
        raise SourceNotFoundError(f"file://{quote(path)}", "directory" if path.endswith("/") else "file")
    found = os.stat(path)
    return Shard(path, found.st_size, file_version(found), path, found.st_mtime_ns)


def file_version(found: os.stat_result) -> Version:
    """Return the version of a local file; equal to that of `sources.FileStore`."""
    return Version(f"stat:{found.st_mtime_ns}:{found.st_size}:{found.st_ino}:{found.st_ctime_ns}")


def beside(place: str, name: str) -> str:
    """Return the place of a name in a directory."""
    path = local_path(place)
    return str(Path(path) / name) if path is not None else place.rstrip("/") + "/" + name


def _of_stat(uri: str, stat: ObjectStat) -> Shard:
    return Shard(uri, stat.size, stat.version, None, stat.mtime_ns)
