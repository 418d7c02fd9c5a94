"""What the errors of fsspec's filesystems mean: told apart by type, errno and HTTP status, whatever library is below.

Their texts may quote a request, and so go into no message and no chain of causes.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from sources.errors import (
    SourceAuthError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    causes_of,
)

_log = logging.getLogger(__name__)

_THROTTLED = (429, 503, 509)
_THROTTLING_CODES = (
    "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "ServerBusy", "TooManyRequests",
    "RequestThrottled", "BandwidthLimitExceeded", "503", "429",
)  # fmt: skip
_NO_CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "AuthenticationException",
    "DefaultCredentialsError", "ClientAuthenticationError", "NoAuthForProtocolError",
)  # fmt: skip
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
_REFUSING_CODES = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AccessDenied")


def source_error(error: Exception, uri: str) -> SourceError:
    """Translate whatever a filesystem raised when it was asked for `uri`. Raise the result `from None`."""
    if isinstance(error, SourceError):
        return error
    links = list(causes_of(error))
    status = next(filter(None, map(_status, links)), 0)
    code = next(filter(None, map(_code, links)), "")
    names = {kind.__name__ for link in links for kind in type(link).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    _log.debug("request failed uri=%s error=%s status=%d code=%s", uri, type(error).__name__, status, code)
    throttled = status in _THROTTLED or code in _THROTTLING_CODES
    if isinstance(error, PermissionError) or code in _REFUSING_CODES or status in (401, 403):
        return SourceAuthError(f"{uri}: the store refuses these credentials; check the options of the source")
    if names.intersection(_NO_CREDENTIALS):
        return SourceAuthError(f"{uri}: no valid credentials found; check the options of the source")
    if isinstance(error, FileNotFoundError) or number in _NO_FILE or status == 404 or _is_ftp_missing(error, names):
        return SourceNotFoundError(uri)
    if isinstance(error, NotImplementedError) or number in _UNSUPPORTED:
        return SourceConfigError(f"{uri}: this filesystem cannot do that")
    if number in _FULL or status == 507:
        return SourceFullError(f"{uri}: no space left")
    if isinstance(error, TypeError | AttributeError) and not status:  # of the filesystem's making, at every try
        return SourceUnavailableError(f"{uri}: the filesystem failed: {type(error).__name__}", retryable=False)
    return SourceUnavailableError(
        f"{uri}: {_reason(error, status, code, throttled=throttled)}",
        throttled=throttled,
        retry_after=next(filter(None, map(_retry_after, links)), None),
        retryable=throttled or status in (0, 408, 409, 425) or status >= 500,
    )


def _reason(error: Exception, status: int, code: str, *, throttled: bool) -> str:
    told = " ".join(part for part in (str(status or ""), code) if part)
    if throttled:
        return f"the store is throttling ({told}); try again later"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer in time; is the endpoint reachable?"
    if told:
        return f"the store answered {told}; try again later"
    return f"{type(error).__name__}; is the endpoint right, and the server up?"


def _is_ftp_missing(error: Exception, names: set[str]) -> bool:
    return "error_perm" in names and str(error).startswith("550")


def _status(error: BaseException) -> int:
    """Return the HTTP status that aiohttp, requests, botocore or gcsfs put into their error, or 0."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found: Any = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(error, "status_code", None)
        found = found or getattr(response, "status_code", None) or getattr(error, "code", None)
    try:
        number = int(found or 0)
    except (TypeError, ValueError):
        return 0
    return number if 400 <= number < 600 else 0


def _code(error: BaseException) -> str:
    """Return the code of an S3 error, a word that the server chose out of a list; never its text."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code if isinstance(code, str) and code.isalnum() and len(code) < 64 else ""


def _retry_after(error: BaseException) -> float | None:
    response = getattr(error, "response", None)
    headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    if isinstance(response, dict):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    text = next((str(headers[name]) for name in ("Retry-After", "retry-after") if headers and name in headers), "")
    return float(text) if text.isdigit() else None
