"""Errors as workers tell them."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import NamedTuple


class ErrorKind(StrEnum):
    """`error.kind` of an error's JSON; new ones may appear, so go by the status for one that you do not know."""

    BAD_REQUEST = "bad_request"  # 400
    ID_MISMATCH = "id_mismatch"  # 400
    UNAUTHORIZED = "unauthorized"  # 401
    STORE_NOT_CONFIGURED = "store_not_configured"  # 403
    NOT_FOUND = "not_found"  # 404: no such path, or no such load
    NOT_CACHED = "not_cached"  # 404: fill=0, and it is not there
    SOURCE_NOT_FOUND = "source_not_found"  # 404: the origin has no such object
    METHOD_NOT_ALLOWED = "method_not_allowed"  # 405
    REQUEST_TIMEOUT = "request_timeout"  # 408: the body came too slowly
    SOURCE_CHANGED = "source_changed"  # 409: the origin has another version
    TOO_LARGE = "too_large"  # 413
    RANGE = "range"  # 416
    OVERLOADED = "overloaded"  # 429: this request is over a limit for now; Retry-After
    INTERNAL = "internal"  # 500
    SOURCE_FAILED = "source_failed"  # 502: the origin refuses, or its bytes are wrong
    SOURCE_UNAVAILABLE = "source_unavailable"  # 502: the origin cannot be reached
    UNAVAILABLE = "unavailable"  # 503: draining, store off, too many connections; Retry-After
    TIMEOUT = "timeout"  # 504: the fill took too long


class PeerFailure(NamedTuple):
    """An error as a worker tells it."""

    kind: str
    message: str


def error_document(kind: str, message: str) -> dict[str, dict[str, str]]:
    """Return an error as its JSON document."""
    return {"error": {"kind": kind, "message": message}}


def parse_error(body: bytes) -> PeerFailure:
    """Return the error that a body tells; one of kind "internal" where it tells none, as a proxy's page."""
    try:
        error = json.loads(body)["error"]
        return PeerFailure(str(error["kind"]), str(error["message"])[:2000])
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerFailure(ErrorKind.INTERNAL, body[:200].decode("utf-8", "replace"))
