"""Patterns of paths, as shells write them: `*` and `?` stay in one directory, `**` does not."""

from __future__ import annotations

import re

from ds.errors import TargetError

_SPECIAL = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*/|\*+|\?|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)


def is_pattern(path: str) -> bool:
    """Say whether a path has a character that patterns use."""
    return _SPECIAL.search(path) is not None


def literal_prefix(pattern: str) -> str:
    """Return what every path begins with that the pattern names."""
    return _SPECIAL.split(pattern, maxsplit=1)[0]


def pattern_regex(pattern: str) -> str:
    r"""Return the regular expression of a pattern, for RE2 and for `re.search`.

    A directory that it names stands for all files below it.

    Raises:
        TargetError: If a set of characters in it cannot be.
    """
    body = "".join(map(_translate, _TOKEN.findall(pattern.rstrip("/"))))
    regex = rf"(?s)^{body}(?:/.*)?$"
    try:
        re.compile(regex)
    except re.error as error:
        raise TargetError(f"{pattern!r} is no pattern of paths: {error}") from error
    return regex


def _translate(token: str) -> str:
    if token == "**/":
        return "(?:.*/)?"
    if token.startswith("*"):
        return "[^/]*" if token == "*" else ".*"
    if token == "?":
        return "[^/]"
    if len(token) > 2 and token.startswith("["):
        inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        negated = inside[0] in "!^"
        inside = inside[1:] if negated else inside
        return f"[^/{_close(inside)}]" if negated else f"[{_close(inside)}]"
    return re.escape(token)


def _close(inside: str) -> str:
    """Keep a bracket that comes first from ending the set."""
    return f"\\]{inside[1:]}" if inside.startswith("]") else inside
