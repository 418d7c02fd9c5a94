"""The objects of DVC caches and remotes, by the hashes that name them: `dvc://objects`."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sources.errors import SourceChangedError, SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.options import check_known
from sources.stores import ReadInto
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

    from sources.errors import SourceError
    from sources.stores import ListObjects, Store

DVC_OBJECTS = StoreId("dvc://objects")
"""Id of every such store: an object is the same in whatever place it lies."""

_LAYOUTS = {"md5": "files/md5/", "md5-dos2unix": ""}  # DVC 3; DVC 2, which hashed text without its carriage returns
_KEY = re.compile(r"(?P<hash>md5|md5-dos2unix)/(?P<start>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30}(?:\.dir)?)")
_IN_PLACE = re.compile(r"(?P<start>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30}(?:\.dir)?)")
_SIZE_THREADS = 16


class Place(NamedTuple):
    """A DVC cache directory or remote: its store, and what the keys in it begin with ("" or ending in "/")."""

    store: Store
    prefix: str


def dvc_key(hash_name: str, digest: str) -> str:
    """Return the key of an object; `digest` is hex, followed by ".dir" for the listing of a directory."""
    return f"{hash_name}/{digest[:2]}/{digest[2:]}"


class DvcObjects:
    """The objects of some DVC caches and remotes, read-only. Keys are `<hash>/<aa>/<rest>`, versions `<hash>:<hex>`.

    A read takes the first place that has the object; which places there are is the reader's business and no part of a
    key, so that neither a commit nor a `.dvc` file can name a place to read from. An object read whole is hashed; a
    range is as true as its object's name. Needs no DVC. Threads and forked processes use it as they use its places.

    Args:
        places: Where to look, in this order.
    """

    remote: ClassVar[bool] = False  # its places have their own limits and retries

    def __init__(self, places: Sequence[Place]) -> None:
        self.id = DVC_OBJECTS
        self._places = tuple(places)

    @classmethod
    def open(
        cls, uri: str, options: Mapping[str, object], *, open_place: Callable[[str, Mapping[str, Any]], Store]
    ) -> DvcObjects:
        """Open `dvc://objects`; the option `places` lists URIs, or mappings with `uri` and `options`.

        Raises:
            SourceConfigError: If the URI goes on, or there is no such list.
        """
        if split_uri(uri).key:
            raise SourceConfigError(f"{uri}: dvc://objects has no path; the option places says where the objects lie")
        check_known(uri, options, ("places",))
        listed = options.get("places")
        if not isinstance(listed, list) or not listed:
            raise SourceConfigError(
                f"{uri}: option places is a list of DVC caches and remotes, such as s3://bucket/dvc"
            )
        return cls([_open_place(uri, item, open_place) for item in listed])

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the objects, place by place, each once. See `ListObjects.list`."""
        seen: set[str] = set()
        for place in self._places:
            for hash_name, layout in _LAYOUTS.items():
                for stat in _listed(place, layout):
                    match = _IN_PLACE.fullmatch(stat.key.removeprefix(place.prefix + layout))
                    if match is None:
                        continue
                    key = f"{hash_name}/{match[0]}"
                    if key.startswith(prefix) and key not in seen:
                        seen.add(key)
                        yield ObjectStat(key, stat.size, _version(key), stat.mtime_ns)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        suffix = _suffix(key)
        for place in self._places:
            try:
                found = place.store.stat(place.prefix + suffix)
            except SourceNotFoundError:
                continue
            return ObjectStat(key, found.size, _version(key))
        raise SourceNotFoundError(join_uri(self.id, key))

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        if not length:
            return b""
        for place, where in self._places_of(key, version):
            try:
                data = place.store.read(where, start=start, length=length, version=None)
            except SourceNotFoundError:
                continue
            if start == 0:
                self._check(key, data, place, where)
            return data
        raise self._absent(key, version)

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        target = buffer.cast("B")
        if not target.nbytes:
            return
        for place, where in self._places_of(key, version):
            try:
                _fill(place.store, where, start, target)
            except SourceNotFoundError:
                continue
            if start == 0:
                self._check(key, target, place, where)
            return
        raise self._absent(key, version)

    def put(self, key: str, data: Buffer) -> None:
        """Refuse."""
        raise self._read_only(key)

    def delete(self, key: str) -> None:
        """Refuse."""
        raise self._read_only(key)

    def _places_of(self, key: str, version: Version | None) -> Iterator[tuple[Place, str]]:
        suffix = _suffix(key)
        if version is not None and version != _version(key):
            raise SourceChangedError(join_uri(self.id, key), expected=version, found=_version(key))
        return ((place, place.prefix + suffix) for place in self._places)

    def _absent(self, key: str, version: Version | None) -> SourceError:
        uri = join_uri(self.id, key)
        if version is None:
            return SourceNotFoundError(uri)
        text = f"{uri}: no place of the mount has this object; bring it there with dvc push"
        return SourceUnavailableError(text, retryable=False)

    def _check(self, key: str, data: Buffer, place: Place, where: str) -> None:
        """Compare an object that was read whole with its name; whether it was whole is asked for only if it differs."""
        version = _version(key)
        if not version.startswith("md5:"):
            return
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if digest == version[4:].removesuffix(".dir") or place.store.stat(where).size != memoryview(data).nbytes:
            return
        raise SourceChangedError(join_uri(place.store.id, where), expected=version, found=f"md5:{digest}")

    def _read_only(self, key: str) -> SourceConfigError:
        return SourceConfigError(f"{join_uri(self.id, key)}: a dvc:// source is read-only; change it with dvc add")


def sizes_of(store: ListObjects, keys: Iterable[str]) -> dict[str, int]:
    """Look many keys up, some at a time; those that are not there are left out. Sizes are in bytes."""

    def size_of(key: str) -> int | None:
        try:
            return store.stat(key).size
        except SourceNotFoundError:
            return None

    wanted = list(dict.fromkeys(keys))
    with ThreadPoolExecutor(_SIZE_THREADS, thread_name_prefix="forebay-dvc-size") as threads:
        found = zip(wanted, threads.map(size_of, wanted), strict=True)
        return {key: size for key, size in found if size is not None}


def _fill(store: Store, key: str, start: int, target: memoryview) -> None:
    if isinstance(store, ReadInto):
        store.read_into(key, start=start, buffer=target, version=None)
    else:
        target[:] = memoryview(store.read(key, start=start, length=target.nbytes, version=None)).cast("B")


def _open_place(uri: str, item: object, open_place: Callable[[str, Mapping[str, Any]], Store]) -> Place:
    name = item.get("uri") if isinstance(item, dict) else item
    options = item.get("options", {}) if isinstance(item, dict) else {}
    unknown = set(item) - {"uri", "options"} if isinstance(item, dict) else None
    if not isinstance(name, str) or not isinstance(options, dict) or unknown:
        raise SourceConfigError(f"{uri}: each of places is a URI, or has a uri and options")
    if split_uri(name).scheme == "dvc":
        raise SourceConfigError(
            f"{uri}: {name} is none of the places where DVC keeps objects; name its cache or remote"
        )
    key = split_uri(name).key.strip("/")
    return Place(open_place(name, options), f"{key}/" if key else "")


def _listed(place: Place, layout: str) -> Iterator[ObjectStat]:
    try:
        yield from place.store.list(place.prefix + layout)
    except SourceNotFoundError:  # a directory that has no such objects yet
        return


def _suffix(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None:
        raise SourceNotFoundError(join_uri(DVC_OBJECTS, key))
    return f"{_LAYOUTS[match['hash']]}{match['start']}/{match['rest']}"


def _version(key: str) -> Version:
    hash_name, start, rest = key.split("/")
    return Version(f"{hash_name}:{start}{rest}")
