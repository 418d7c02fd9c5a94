"""What the errors of object stores' clients mean: sorted out by HTTP status and the store's own error code.

obstore tells status and body only inside its texts, and a body may quote what was sent (a session token, say). So its
texts go into no message, no log and no chain of causes: what is told is the status, the code and the next step.
"""

from __future__ import annotations

import logging
import re
from enum import StrEnum
from typing import NamedTuple

from obstore import exceptions

from sources.errors import (
    SourceAuthError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)

_log = logging.getLogger(__name__)

FAILURES = (exceptions.BaseError, OSError, ValueError)
"""All that obstore raises."""


class UnnameableKeyError(SourceConfigError):
    """The store may hold this key, its client cannot name it."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri}: {Kind.INVALID_KEY}")


class Kind(StrEnum):
    """What a request ended in, where no status says it; the values are in people's words."""

    ANSWERED = "the store answered"
    REFUSED = "connection refused; is the endpoint right and the server up?"
    UNRESOLVED = "the endpoint's name does not resolve; check it"
    UNREACHED = "cannot connect; is the endpoint right and the server up?"
    UNTRUSTED = "the server's certificate is not trusted; name a file of certificates in the options"
    TIMED_OUT = "no answer in time; is the endpoint reachable?"
    BROKEN_OFF = "the connection broke off; try again"
    UNKNOWN = "the request failed; is the endpoint right?"
    UNSIGNED = "no credentials found"
    INVALID_KEY = "cannot name a key with an empty, '.' or '..' part or a control character; rename it"
    NO_RANGES = "the server ignores ranges and sends whole objects; it cannot be used"
    ELSEWHERE = "lies in another region; set its region in the options"


class Failure(NamedTuple):
    """The part of an error that carries no secret.

    Attributes:
        kind: What happened.
        status: HTTP status, or 0 if there was no answer.
        code: The store's own error code, or "".
        retry_after: Seconds, if the store said so.
    """

    kind: Kind
    status: int = 0
    code: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.status or ""), self.code) if part)


_ANSWER = re.compile(
    r"Error performing \w+ \S+ in \S+ - Server returned non-2xx status code: (\d{3})(.*?)(?:\n\nDebug source:|$)",
    re.DOTALL,
)
_URL = re.compile(r"https?://\S*")  # with names in it, which may be any word that is looked for
_CODE = re.compile(r"<Code>(\w{1,64})</Code>|\"(?:code|reason)\":\s*\"(\w{1,64})\"")
_TYPES = (
    ((FileNotFoundError, exceptions.NotFoundError), 404),
    (exceptions.PreconditionError, 412),
    (exceptions.AlreadyExistsError, 409),
    (exceptions.PermissionDeniedError, 403),
    (exceptions.UnauthenticatedError, 401),
)
_KINDS = (
    ("non-partial response", Kind.NO_RANGES),
    ("without LOCATION", Kind.ELSEWHERE),
    ("ConnectionRefused", Kind.REFUSED),
    ("InvalidCertificate", Kind.UNTRUSTED),
    ("dns error", Kind.UNRESOLVED),
    ("kind: Connect,", Kind.UNREACHED),
    ("kind: Timeout", Kind.TIMED_OUT),
    ("kind: Interrupted", Kind.BROKEN_OFF),
    ("kind: Request,", Kind.BROKEN_OFF),  # before the answer began
    ("redential", Kind.UNSIGNED),
)
_BUCKET_GONE = re.compile(
    r"<Code>(?:NoSuchBucket|ContainerNotFound)</Code>"
    r"|(?:<Message>|\"message\":\s*\")The specified bucket does not exist"
)
_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|RequestExpired|TokenRefreshRequired"
    r"|AuthenticationFailed|AuthorizationFailure|InvalidAuthenticationInfo"
)
_REGION = re.compile(r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraintException")
_THROTTLED = re.compile(r"SlowDown|Throttl|RequestLimitExceeded|ServerBusy|TooManyRequests|BandwidthLimit|rateLimit")
_SKEWED = re.compile(r"RequestTimeTooSkewed|RequestInTheFuture")
_PASSING = ("RequestTimeout", "OperationAborted")  # told with a status that says otherwise
_FULL = re.compile(r"StorageFull|QuotaExceeded|AccountUsageExceeded")


def classify(error: Exception) -> Failure:
    """Take the facts out of one of obstore's errors."""
    text = str(error)
    if isinstance(error, exceptions.InvalidPathError):
        return Failure(Kind.INVALID_KEY)
    if answer := _ANSWER.search(text):
        return answered(int(answer[1]), answer[2])
    if number := next((number for kinds, number in _TYPES if isinstance(error, kinds)), 0):
        return Failure(Kind.ANSWERED, number)
    told = _URL.sub("", text)
    return Failure(next((kind for words, kind in _KINDS if words in told), Kind.UNKNOWN))


def answered(status: int, body: str, retry_after: float | None = None) -> Failure:
    """Take the facts out of an answer.

    Args:
        status: Its HTTP status.
        body: XML or JSON, or what is around it.
        retry_after: Seconds, if it says so.
    """
    code = _CODE.search(body)
    gone = "NoSuchBucket" if _BUCKET_GONE.search(body) else ""
    return Failure(Kind.ANSWERED, status, gone or ((code[1] or code[2]) if code else ""), retry_after)


def source_error(failure: Failure, *, uri: str, store_id: str, next_step: str, received: int = 0) -> SourceError:
    """Translate what a single request ended in.

    Raise the result outside of the `except` block, so that the original is not in its chain.

    Args:
        failure: What is known of it.
        uri: The object or prefix that was asked for.
        store_id: The bucket.
        next_step: What to check when the store refuses the credentials, "check ...".
        received: For `SourceUnavailableError.received`.

    Returns:
        `SwapLostError` for a condition that does not hold (also that of a read: callers know which they sent).
    """
    _log.debug("request failed uri=%s status=%d code=%s kind=%s", uri, failure.status, failure.code, failure.kind.name)
    status, code = failure.status, failure.code
    if code == "NoSuchBucket":
        return SourceNotFoundError(store_id, "bucket")
    if failure.kind is Kind.INVALID_KEY:
        return UnnameableKeyError(uri)
    if failure.kind is Kind.NO_RANGES:
        return SourceConfigError(f"{uri}: {failure.kind}")
    if failure.kind is Kind.ELSEWHERE or status == 301 or _REGION.search(code):  # a HEAD is told no code
        return SourceConfigError(f"{store_id} {Kind.ELSEWHERE}")
    if failure.kind is Kind.UNSIGNED:
        return SourceAuthError(f"{store_id}: {failure.kind}; {next_step}, or the option anon: true")
    if _SKEWED.search(code):
        return SourceAuthError(f"{store_id}: this machine's clock is wrong ({failure}); set it")
    if code == "InvalidObjectState":
        return SourceUnavailableError(f"{uri} is archived ({failure}); restore it first", retryable=False)
    if status in (401, 403) or _DENIED.search(code):
        return SourceAuthError(f"{store_id} refuses these credentials ({failure}); {next_step}")
    if status == 404:
        return SourceNotFoundError(uri)
    if status == 412:
        return SwapLostError(uri, expected=None)
    if status == 507 or _FULL.search(code):
        return SourceFullError(f"{uri}: the store has no room left ({failure})")
    return _unavailable(failure, uri, received)


def _unavailable(failure: Failure, uri: str, received: int) -> SourceUnavailableError:
    status = failure.status
    throttled = status in (429, 503, 509) or bool(_THROTTLED.search(failure.code))
    if throttled:
        reason = f"the store is throttling ({failure}); try again later"
    elif status == 416:
        reason = "the object is shorter than was asked for (416)"
    elif status:
        reason = f"the store answered {failure}"
    else:
        reason = str(failure.kind)
    return SourceUnavailableError(
        f"{uri}: {reason}",
        throttled=throttled,
        retry_after=failure.retry_after,
        received=received,
        retryable=failure.kind is not Kind.UNTRUSTED
        and (throttled or status in (0, 408, 409, 425) or status >= 500 or failure.code in _PASSING),
    )
