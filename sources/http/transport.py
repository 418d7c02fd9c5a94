"""One request to a web server: connections, redirects, and what aiohttp raises in our words."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from sources.errors import SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.http import background
from sources.http.reach import Reach, TooCloseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sources.http.options import HttpOptions

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30
_REQUEST_SECONDS = 60
_SLOWEST_BYTES_PER_SECOND = 64 << 10
"""A body that drips slower than this is broken off; what has come is kept, and the caller resumes."""
_REDIRECTS = 10
_REDIRECTING = (301, 302, 303, 307, 308)
_BUFFER_BYTES = 128 << 10
"""What aiohttp reads ahead, up to twice this, is lost when a connection is reset, and read again."""
# Compressed on the way, bytes could not be addressed; and no server should greet us by name.
_DEFAULT_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "forebay"}

REQUEST_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""What a request may raise besides our own errors; `broken_off` translates it."""


class Transport:
    """The connections to one origin, one pool per process.

    Args:
        origin: Scheme and authority.
        options: Sent to this origin alone: a redirect elsewhere goes without them, and so does what follows it.
    """

    def __init__(self, origin: URL, options: HttpOptions) -> None:
        self._origin = origin
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._pid = 0
        self._reach = Reach(origin.host or "")
        self._proxies: dict[URL, str | None] = {}

    @asynccontextmanager
    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str], uri: str, body_bytes: int = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask once, following redirects, and give the answer, whatever its status.

        Args:
            method: GET or HEAD.
            path: Escaped, from "/".
            headers: Of this request.
            uri: What to call it in errors.
            body_bytes: How much will be read, for the time limit.

        Raises:
            SourceNotFoundError: If the server says that the path is a directory.
            SourceConfigError: If a redirect leads where none may.
            SourceUnavailableError: If redirects do not end.
        """
        url = URL(f"{self._origin}{path}", encoded=True)
        if self._options.params:
            url = url.with_query(self._options.params)
        async with asyncio.timeout(_REQUEST_SECONDS + body_bytes / _SLOWEST_BYTES_PER_SECOND):
            own = self._options.headers
            for _ in range(_REDIRECTS):
                if url.origin() != self._origin:
                    own = {}  # for good: who redirects back chose the path
                self._reach.check(url.host or "")
                proxy = self._proxy_for(url.origin())
                async with self._opened().request(
                    method, url, headers={**own, **headers}, allow_redirects=False, proxy=proxy
                ) as response:
                    target = response.headers.get("Location")
                    if response.status not in _REDIRECTING or target is None:
                        yield response
                        return
                    url = _followed(url, target, uri)
        raise SourceUnavailableError(f"{uri}: more than {_REDIRECTS} redirects", retryable=False)

    def _opened(self) -> aiohttp.ClientSession:
        """Return this process's session; runs on its loop only, so no two callers meet here."""
        if self._session is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=self._reach),  # the caller's budget limits how many
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_DEFAULT_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_IDLE_SECONDS),
                auto_decompress=False,
                read_bufsize=_BUFFER_BYTES,
            )
            background.adopt(self, self._session)
        return self._session

    def _proxy_for(self, origin: URL) -> str | None:
        """Return the proxy that the environment names; one that wants a password is not supported."""
        if origin not in self._proxies:  # looking through the environment costs as much as a request
            proxy = getproxies().get(origin.scheme)
            proxy = None if proxy_bypass(origin.host or "") else proxy
            self._proxies[origin] = proxy
            if proxy:
                self._reach.trust(URL(proxy).host or "")
        return self._proxies[origin]


def broken_off(error: Exception, uri: str, received: int = 0) -> Exception:
    """Return the error of ours for one of `REQUEST_ERRORS`; raise it `from None`.

    Theirs may show a URL with its query or a request with its headers: it is neither quoted nor chained.
    """
    if isinstance(error, ssl.SSLCertVerificationError | aiohttp.ClientConnectorCertificateError):
        text = f"{uri}: its TLS certificate is not trusted here; SSL_CERT_FILE may name who signed it"
        return SourceUnavailableError(text, retryable=False)
    if isinstance(error, TooCloseError):
        return SourceConfigError(f"{uri}: a redirect leads from another network into this one; it is not followed")
    if isinstance(error, aiohttp.InvalidURL | ValueError) and not isinstance(error, aiohttp.ClientPayloadError):
        return SourceConfigError(f"{uri}: this cannot be written as a request")
    return SourceUnavailableError(f"{uri}: {_reason(error)}", received=received)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({os.strerror(error.os_error.errno or errno.ECONNREFUSED)}); is the server up?"
    return f"the answer broke off ({type(error).__name__}); try again later"


def _followed(url: URL, location: str, uri: str) -> URL:
    target = url.join(URL(location))
    if target.scheme not in ("http", "https") or (url.scheme, target.scheme) == ("https", "http"):
        raise SourceConfigError(f"{uri}: a redirect leads to {target.scheme}://; it is not followed")
    if target.origin() == url.origin() and target.raw_path == f"{url.raw_path}/":
        raise SourceNotFoundError(uri, "file")  # a directory: its index page is not its content
    return target.with_user(None).with_fragment(None)
