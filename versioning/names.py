"""Which branch names, tag names and paths can be stored, and how a ref's name becomes a key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from versioning.columns import compute, single
from versioning.errors import InvalidNameError

if TYPE_CHECKING:
    from versioning.columns import Column

_MAX_ENCODED = 200  # leaves room in a file name's 255 bytes
_FULL_ID = re.compile(r"[0-9a-f]{64}")
MAX_PATH_BYTES = 4096
"""Of a path in UTF-8."""
_BAD_PATH = r"(^|/)\.{0,2}(/|$)|\x00"  # an empty, "." or ".." component, or NUL
_PATH_RULE = "a path has no empty, '.' or '..' component, no slash at its ends, and no NUL"

_RULES = (
    (re.compile(r"^$|^@$|^HEAD$"), "this name is reserved"),
    (re.compile(r"[\x00-\x20\x7f~^:?*\[\\]"), "it has a space, a control character or one of ~ ^ : ? * [ \\"),
    (re.compile(r"\.\.|@\{"), "it has '..' or '@{'"),
    (re.compile(r"^/|/$|//"), "it begins or ends with a slash or has two in a row"),
    (re.compile(r"^\.|/\.|\.$"), "a part begins with a dot, or it ends with one"),
    (re.compile(r"\.lock(/|$)"), "a part ends with '.lock'"),
    (re.compile(r"^-"), "it begins with a dash"),
)


def check_ref_name(name: str, *, what: str) -> None:
    """Check a branch's or tag's name by git's rules.

    Raises:
        InvalidNameError: With the broken rule; `what` is "branch" or "tag".
    """
    for pattern, reason in _RULES:
        if pattern.search(name):
            raise InvalidNameError(name, what=what, reason=reason)
    if _FULL_ID.fullmatch(name):
        raise InvalidNameError(name, what=what, reason="it looks like a commit id")
    try:
        encoded = encode_ref(name)
    except UnicodeEncodeError as error:
        raise InvalidNameError(name, what=what, reason="it is not valid Unicode") from error
    if len(encoded) > _MAX_ENCODED:
        raise InvalidNameError(name, what=what, reason=f"it is longer than {_MAX_ENCODED} bytes when encoded")


def encode_ref(name: str) -> str:
    """Percent-encode a ref's name into one key component (slashes too)."""
    return quote(name, safe="")


def decode_ref(encoded: str) -> str:
    """Undo `encode_ref`."""
    return unquote(encoded)


def check_paths(paths: Column) -> None:
    """Check a column of dataset paths.

    Raises:
        InvalidNameError: Naming the first path that cannot be stored.
    """
    bad: Any = compute.or_(
        compute.match_substring_regex(paths, _BAD_PATH),
        compute.greater(compute.binary_length(paths), MAX_PATH_BYTES),
    )
    if compute.any(bad).as_py():
        first = single(paths.filter(bad))[0].as_py()
        reason = _PATH_RULE if len(first.encode()) <= MAX_PATH_BYTES else f"it is longer than {MAX_PATH_BYTES} bytes"
        raise InvalidNameError(first, what="path", reason=reason)


def check_path(path: str) -> None:
    """Check one dataset path; as `check_paths`."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise InvalidNameError(path, what="path", reason="it is not valid Unicode") from error
    if len(encoded) > MAX_PATH_BYTES:
        raise InvalidNameError(path, what="path", reason=f"it is longer than {MAX_PATH_BYTES} bytes")
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidNameError(path, what="path", reason=_PATH_RULE)
