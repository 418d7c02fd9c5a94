"""Patterns of paths, as shells write them: `*` and `?` stay in one directory, `**` does not."""

from __future__ import annotations

import re

from ds.errors import TargetError
from versioning.patterns import translate

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
    body = "".join(map(translate, _TOKEN.findall(pattern.rstrip("/"))))
    regex = rf"(?s)^{body}(?:/.*)?$"
    try:
        re.compile(regex)
    except re.error as error:
        raise TargetError(f"{pattern!r} is no pattern of paths: {error}") from error
    return regex
