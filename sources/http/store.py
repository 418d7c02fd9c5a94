"""A web server as a store."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, ClassVar, NoReturn
from urllib.parse import quote

from yarl import URL

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.http.answers import Answer, check_plain, failure
from sources.http.background import run
from sources.http.index import names_in
from sources.http.options import HttpOptions
from sources.http.transport import REQUEST_ERRORS, Transport, broken_off
from sources.listing import scan
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.stores import DirectoryPage, batch_of, stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import aiohttp
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)
_Stats = list[ObjectStat]  # `list` is a method below
_Names = list[str]

_STATS_AT_ONCE = 16
_PAGE_BYTES = 64 << 20  # an index page of half a million names
_SKIP_BYTES = 8 << 20  # about what a second request would cost
_NO_HEAD = (403, 405, 501)  # 403: a URL that was signed for GET
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_LONGEST_PATH = 8000  # servers take about as much; a tree that has no end does end here
_FIRST_BYTE = {"Range": "bytes=0-0"}


class HttpStore:
    """The files of one web server, read-only.

    The version of a file is the etag of the very answer that carries the bytes, else `Last-Modified` and size. Keys are
    written unescaped. Safe in threads; pickled or forked, a process makes connections of its own.

    What a server promises differs: nginx's etag is the second of the last change and the size, so two contents of one
    size within a second are one version to it.

    Args:
        store_id: Scheme and authority.
        options: As `open` takes them.
    """

    remote: ClassVar[bool] = True

    def __init__(self, store_id: StoreId, options: Mapping[str, object]) -> None:
        self.id = store_id
        self._options = dict(options)
        try:
            origin = URL(store_id).origin()
            if re.search(r"[\s\0]", store_id):  # yarl takes them
                raise ValueError(store_id)
        except ValueError as error:
            raise SourceConfigError(f"{store_id} names no web server; expected https://host/directory/") from error
        self._transport = Transport(origin, HttpOptions.of(store_id, options))

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> HttpStore:
        """Open `https://host/directory/` or `https://host/file`.

        Options: `user` and `password` (HTTP basic authentication), `headers` and `params` (sent along with every
        request), to this host alone.
        """
        parts = split_uri(uri)
        if re.search("[?#]", parts.key + parts.store):
            shown = re.split(r"[?#]", uri, maxsplit=1)[0]  # a query is where tokens travel
            raise SourceConfigError(f"{shown}: a query is no part of a source URI; pass it as option params")
        if _ESCAPE.search(parts.key):
            raise SourceConfigError(f"{uri}: write the path without escapes ('a b', not 'a%20b')")
        return cls(parts.store, options)

    def __reduce__(self) -> tuple[object, ...]:
        return HttpStore, (self.id, self._options)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """List index pages, downwards; keys come in byte order. A prefix that names a file lists that file."""
        if prefix and not prefix.endswith("/"):
            try:
                yield self.stat(prefix)
                return
            except SourceNotFoundError:
                pass  # the beginning of names, then
        for batch in scan(self, prefix, concurrency=1):
            yield from stats_of(batch)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """Read one index page and ask for each file's version. See `ListDirectories.scan_directory`.

        Where the server shows a page of its own for the directory, the files that this page links to are listed.
        """
        files, directories = self._scan(directory)
        return DirectoryPage(batch_of(files), directories)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`.

        Raises:
            SourceConfigError: If the server tells too little to pin the file.
        """
        return run(self._stat(key))

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        data = bytearray(length)
        self.read_into(key, start=start, buffer=memoryview(data), version=version)
        return data

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`; a server that knows no ranges serves what begins in the first 8 MiB."""
        target = buffer.cast("B")
        if not target.nbytes:
            return
        try:
            run(self._fill(key, start, target, version))
        except SourceNotFoundError:
            if version is None:
                raise
            raise SourceChangedError(join_uri(self.id, key), expected=version, found="gone") from None

    def put(self, key: str, data: Buffer) -> NoReturn:
        """Refuse: the web has no way to write that is everywhere the same."""
        raise SourceConfigError(f"{join_uri(self.id, key)}: an {self.id.partition(':')[0]} source is read-only")

    def delete(self, key: str) -> NoReturn:
        """Refuse; see `put`."""
        self.put(key, b"")

    def _scan(self, directory: str) -> tuple[_Stats, _Names]:
        page, url = run(self._index(directory))
        try:
            names = sorted(names_in(page, url), key=str.encode)
        except SourceConfigError as error:
            raise SourceConfigError(f"{join_uri(self.id, directory)}: {error}") from None
        found = run(self._stats([directory + name for name in names if not name.endswith("/")]))
        return found, [directory + name for name in names if name.endswith("/")]

    async def _index(self, directory: str) -> tuple[str, str]:
        uri = join_uri(self.id, directory)
        try:
            async with self._transport.ask("GET", self._path(directory), headers={}, uri=uri) as response:
                if response.status != 200:
                    raise failure(response.status, response.headers, uri, "directory")
                if response.content_type not in ("text/html", "application/xhtml+xml"):
                    raise SourceConfigError(f"{uri}: this is no index page; the server must list its directories")
                check_plain(response.headers, uri)
                return await _all_of(response, uri), str(response.url.with_query(None))
        except REQUEST_ERRORS as error:
            raise _ours(error, uri) from None

    async def _stats(self, keys: Sequence[str]) -> _Stats:
        found: dict[str, ObjectStat] = {}
        waiting = iter(keys)  # of all takers: a task for each key of a large page would cost more than the page

        async def take() -> None:
            for key in waiting:
                try:
                    found[key] = await self._stat(key)
                except SourceNotFoundError:
                    _log.warning("%s is on its index page and is not there; it is left out", join_uri(self.id, key))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_STATS_AT_ONCE, len(keys))):
                    group.create_task(take())
        except* SourceError as failed:
            raise failed.exceptions[0] from None
        return [found[key] for key in keys if key in found]

    async def _stat(self, key: str) -> ObjectStat:
        uri = join_uri(self.id, key)
        if key.endswith("/"):
            raise SourceNotFoundError(uri, "file")
        answer = await self._head("HEAD", key, {}, uri)
        if answer is None or not answer.size or answer.version is None:  # some answer HEAD with 0 for any file
            asked = await self._head("GET", key, _FIRST_BYTE, uri)
            answer = asked if asked and (asked.version or answer is None) else answer
        if answer is None:
            raise SourceAuthError(f"{uri}: the server refuses to show it; check the options user, password and headers")
        return answer.stat(key, uri)

    async def _head(self, method: str, key: str, headers: Mapping[str, str], uri: str) -> Answer | None:
        """Ask for the headers alone; None where the server refuses this way to ask."""
        try:
            async with self._transport.ask(method, self._path(key), headers=headers, uri=uri) as response:
                if response.status in _NO_HEAD:
                    return None
                if response.status in (200, 206) or (response.status == 416 and headers):  # 416: it is empty
                    check_plain(response.headers, uri)
                    return Answer.of(response.status, response.headers)
                raise failure(response.status, response.headers, uri, "object")
        except REQUEST_ERRORS as error:
            raise _ours(error, uri) from None

    async def _fill(self, key: str, start: int, buffer: memoryview, version: Version | None) -> None:
        uri, received = join_uri(self.id, key), 0
        headers = {"Range": f"bytes={start}-{start + len(buffer) - 1}", **_condition(version)}
        path = self._path(key)
        try:
            async with self._transport.ask("GET", path, headers=headers, uri=uri, body_bytes=len(buffer)) as response:
                answer = Answer.of(response.status, response.headers)
                if answer.status not in (200, 206):
                    await self._refused(response, answer, key, (start, len(buffer)), version)
                check_plain(response.headers, uri)
                _check(answer, uri, (start, len(buffer)), version)
                skip = start - answer.start
                async for chunk in response.content.iter_any():
                    part = memoryview(chunk)[skip : skip + len(buffer) - received]
                    skip = max(0, skip - len(chunk))
                    buffer[received : received + len(part)] = part
                    received += len(part)
                    if received == len(buffer):
                        return
        except REQUEST_ERRORS as error:
            raise _ours(error, uri, received) from None
        raise SourceUnavailableError(f"{uri}: the answer ended after {received} bytes", received=received)

    async def _refused(
        self, response: aiohttp.ClientResponse, answer: Answer, key: str, span: tuple[int, int], version: Version | None
    ) -> NoReturn:
        uri = join_uri(self.id, key)
        if answer.status in (412, 416):
            found = await self._stat(key)
            if version is not None and found.version != version:
                raise SourceChangedError(uri, expected=version, found=found.version)
            if answer.status == 416:
                raise _too_short(uri, span, found.size)
        raise failure(answer.status, response.headers, uri, "object")

    def _path(self, key: str) -> str:
        parts = key.removesuffix("/").split("/") if key else []
        if any(part in ("", ".", "..") for part in parts):
            raise SourceConfigError(
                f"{join_uri(self.id, key)}: Forebay cannot name a path with an empty, '.' or '..' part"
            )
        try:
            path = f"/{quote(key, safe='/')}"
        except UnicodeEncodeError:
            path = ""
        if not path or "\0" in key or len(path) > _LONGEST_PATH:
            raise SourceConfigError(
                f"{self.id}: {key[:200]!a} is no path for a web server: UTF-8, no NUL, at most {_LONGEST_PATH} bytes"
            )
        return path


def _check(answer: Answer, uri: str, span: tuple[int, int], version: Version | None) -> None:
    """Raise unless the body is of that version and holds the whole span (start, length)."""
    start, length = span
    if version is not None and not version.startswith("oid:") and answer.version != version:
        raise SourceChangedError(
            uri, expected=version, found=answer.version or "a version that the server does not tell"
        )
    if answer.size is not None and start + length > answer.size:
        raise _too_short(uri, span, answer.size)
    if answer.status == 206 and answer.start != start:
        raise SourceUnavailableError(f"{uri}: the server sent another range than was asked for", retryable=False)
    if answer.status == 200 and start > _SKIP_BYTES:
        raise SourceConfigError(
            f"{uri}: the server knows no byte ranges, so a read at {start} would fetch all that lies before; "
            "copy the data to a store that can, or have the server answer ranges"
        )


def _too_short(uri: str, span: tuple[int, int], size: int) -> SourceUnavailableError:
    text = f"{uri}: asked for {span[1]} bytes at {span[0]}, it has {size} bytes"
    return SourceUnavailableError(text, retryable=False)


def _condition(version: Version | None) -> dict[str, str]:
    # A weak etag never matches in If-Match; the comparison with the answer's own header is what counts anyway.
    return {"If-Match": version.removeprefix("etag:")} if version and version.startswith('etag:"') else {}


async def _all_of(response: aiohttp.ClientResponse, uri: str) -> str:
    page = bytearray()
    async for chunk in response.content.iter_any():
        page += chunk
        if len(page) > _PAGE_BYTES:
            raise SourceConfigError(f"{uri}: its index page is longer than {_PAGE_BYTES >> 20} MiB")
    return page.decode(errors="replace")


def _ours(error: Exception, uri: str, received: int = 0) -> Exception:
    return error if isinstance(error, SourceError) else broken_off(error, uri, received)
