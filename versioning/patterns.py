"""Patterns of paths as `.gitattributes` writes them, as regular expressions for RE2."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\*\*/|\*+|\?|\[[!^]?\]?[^\]]*\]|\\.|.", re.DOTALL)
_PART = re.compile(r"(.)-(.)|(.)", re.DOTALL)  # of a set: a range, or a character


def path_regex(pattern: str) -> str:
    """Return the regular expression that whole paths of a pattern match.

    `*` and `?` stay in one directory, `**` does not, `[...]` is a set; a backslash makes any of these itself. A pattern
    without a slash is looked for in every directory; one with a slash begins at the root. A
    directory stands for all files below it.

    Raises:
        ValueError: If the pattern is empty or a set in it cannot be.
    """
    inner = pattern.removesuffix("/")
    anywhere = "/" not in inner
    inner = inner.removeprefix("/")
    if not inner:
        raise ValueError("an empty pattern")
    body = "".join(map(translate, _TOKEN.findall(inner)))
    regex = rf"(?s)^{'(?:.*/)?' if anywhere else ''}{body}(?:/.*)?$"
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern of paths: {error}") from error
    return regex


def translate(token: str) -> str:
    """Return the regular expression of one token of a pattern; a character behind a backslash means itself."""
    if token == "**/":
        return "(?:.*/)?"
    if token.startswith("*"):
        return "[^/]*" if token == "*" else ".*"
    if token == "?":
        return "[^/]"
    if len(token) > 2 and token.startswith("["):
        return _set_of(token[1:-1])
    return re.escape(token[1:] if len(token) == 2 and token[0] == "\\" else token)


def _set_of(inside: str) -> str:
    negated = inside[0] in "!^"
    parts = _PART.findall(inside[negated:])
    members = "".join(f"{re.escape(low)}-{re.escape(high)}" if low else re.escape(one) for low, high, one in parts)
    return f"[^/{members}]" if negated else f"[{members}]"
