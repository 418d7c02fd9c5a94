"""What a mount leaves out: patterns as in `.gitignore`, asked of whole columns of paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from sources.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

compute: Any = LazyModule("pyarrow.compute")
_DIRECTORY_MARK = "(?P<ps_d>/)"  # where pathspec's regular expressions go on below a directory
_NEVER = r"[^\x00-\x{10FFFF}]"
_NEGATED_SET = re.compile(r"\[\^(\]?)")
_SPECIAL = re.compile(r"[*?\[\]\\]|\s+$")


class _Rule(NamedTuple):
    """One pattern, as regular expressions for RE2."""

    leaves_out: bool
    fits: str
    """Finds paths that the pattern names, and those below a directory that it names."""
    itself: str
    """Finds only the former."""


class Exclusion:
    """Patterns as in `.gitignore`, relative to the root of a mount.

    The last pattern that fits a path rules, except that one with `!` that names a directory does not bring back files
    that another pattern names themselves: `*`, `!*/` leaves out all files, as in git. Other than in git a file may
    be brought back from a directory that is left out: an object store has no directories that are not entered.

    Args:
        patterns: At least one.

    Raises:
        ValueError: If a pattern cannot be, or would have no effect; names it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._rules = [_rule_of(pattern) for pattern in patterns]
        if not self._rules[0].leaves_out:
            raise ValueError(
                f"{patterns[0]!r} brings back what a pattern before it leaves out, and there is none; "
                "begin with '*' to leave out all else"
            )
        self._one = None
        if all(rule.leaves_out for rule in self._rules):
            self._one = "|".join(f"(?:{rule.fits})" for rule in self._rules)

    def leaves_out(self, paths: Any) -> Any:
        """Say of each path whether it is left out.

        Args:
            paths: String array; relative to the mount.

        Returns:
            A boolean array.
        """
        if self._one is not None:
            return _found(paths, self._one)
        out = by_itself = pa.repeat(False, len(paths))
        for rule in self._rules:
            fits, itself = _found(paths, rule.fits), _found(paths, rule.itself)
            if rule.leaves_out:
                out = compute.or_(out, fits)
                by_itself = compute.or_(compute.and_not(by_itself, fits), itself)
            else:
                out = compute.and_not(out, compute.or_(itself, compute.and_not(fits, by_itself)))
                by_itself = compute.or_(by_itself, itself)
        return out


def literal_pattern(path: str) -> str:
    """Return the pattern that names this path, and no other one."""
    return "/" + _SPECIAL.sub(lambda match: "".join(f"\\{char}" for char in match[0]), path)


def _found(paths: Any, regex: str) -> Any:
    return compute.match_substring_regex(paths, pattern=f"(?s){regex}")


def _rule_of(pattern: str) -> _Rule:
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # few datasets have patterns

    if "[:" in pattern:
        raise ValueError(f"{pattern!r} is no pattern of paths: name the characters of a set, as in '[a-z]'")
    regex, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(pattern)
    if regex is None:
        raise ValueError(f"{pattern!r} names no path; patterns are those of .gitignore")
    # A set never fits the slash between two directories.
    regex = _NEGATED_SET.sub(lambda match: r"[^/\]" if match[1] else "[^/", regex)
    rule = _Rule(bool(leaves_out), regex.replace(_DIRECTORY_MARK, "/"), regex.replace(_DIRECTORY_MARK, _NEVER))
    try:
        _found(pa.array([""]), rule.fits)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{pattern!r} is no pattern of paths: {error}") from error
    return rule
