"""Which files are one sample: key and field of a path, by a rule that the user chooses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute

from loaders.code import find_callable, name_of
from loaders.columns import null, text
from loaders.errors import KeyRuleError

KeyFunction: TypeAlias = Callable[[str], "str | tuple[str, str] | None"]
KeyRule: TypeAlias = "str | KeyFunction"
"""What joins files into a sample.

`path`: the path up to the first dot of its base name, as webdataset reads a tar. `stem`: that without directories.
A regular expression (RE2) with a group named `key`, searched for in the path, and if you like one named `field`.
`module:function`, or a function itself: it gets a path and returns its key, or key and field, or None.
"""

_PATTERNS = {
    "path": r"(?s)^(?P<key>(?:.*/)?[^./]+)\.(?P<field>[^/]+)$",
    "stem": r"(?s)^(?:.*/)?(?P<key>[^./]+)\.(?P<field>[^/]+)$",
}
_EXTENSION = r"(?s)^(?:.*/)?[^./]+\.(?P<field>[^/]+)$"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

pc: Any = pyarrow.compute  # its functions exist only at run time
_NULL, _EMPTY = null(pa.large_string()), text("")
_Column = Any  # of Arrow; the published types of its functions are narrower than they are


def check_key_rule(rule: KeyRule) -> None:
    """See that a rule can be used.

    Raises:
        KeyRuleError: If it is unknown, no regular expression, or without the group `key`.
    """
    split_paths(pa.nulls(0, pa.large_string()), rule=rule)


def describe_key_rule(rule: KeyRule) -> str:
    """Write a rule as text, from which it can be made again if it is no function of a script."""
    return rule if isinstance(rule, str) else name_of(rule)


def names_by_path(rule: KeyRule) -> bool:
    """Say whether the members of samples under this rule can keep their paths as names: tar readers find the same."""
    return rule == "path"


def split_paths(paths: _Column, *, rule: KeyRule) -> tuple[_Column, _Column]:
    """Split paths into sample key and field name.

    Fields are in lower case, as webdataset reads them. Both are null for a path that is no member of a sample: one
    whose base name has no extension or starts with a dot, or that the rule does not match.

    Raises:
        KeyRuleError: If the rule cannot be used.
    """
    paths = paths.cast(pa.large_string())
    if callable(rule):
        return _split_by_function(paths, rule)
    if rule not in _PATTERNS and _FUNCTION.fullmatch(rule):
        return _split_by_function(paths, find_callable(rule))
    pattern = _PATTERNS.get(rule, rule)
    groups = _groups(pattern, rule)
    parts = pc.extract_regex(paths, pattern)
    valid = parts.is_valid()
    key = pc.if_else(valid, pc.struct_field(parts, "key"), _NULL)
    field = pc.struct_field(parts, "field") if "field" in groups else _extensions(paths)
    return _whole_members(key, field)


def _groups(pattern: str, rule: str) -> list[str]:
    try:
        found = pc.extract_regex(pa.nulls(0, pa.large_string()), pattern).type
    except pa.ArrowInvalid as error:
        raise KeyRuleError(f"key rule {rule!r} is no regular expression that RE2 takes: {error}", rule=rule) from error
    groups = [found.field(number).name for number in range(found.num_fields)]
    if "key" not in groups:
        raise KeyRuleError(
            f"unknown key rule {rule!r}; known: {', '.join(_PATTERNS)}, module:function, and regular expressions with"
            " a group named key, such as '(?P<key>[^/]+)_(?P<field>[a-z]+)$'",
            rule=rule,
        )
    return groups


def _extensions(paths: _Column) -> _Column:
    parts = pc.extract_regex(paths, _EXTENSION)
    return pc.if_else(parts.is_valid(), pc.struct_field(parts, "field"), _NULL)


def _split_by_function(paths: _Column, function: Callable[..., Any]) -> tuple[_Column, _Column]:
    keys: list[str | None] = []
    fields: list[str | None] = []
    for path, extension in zip(paths.to_pylist(), _extensions(paths).to_pylist(), strict=True):
        found = function(path)
        if found is not None and not isinstance(found, str) and not _is_pair(found):
            raise KeyRuleError(
                f"key rule {name_of(function)} returned {found!r} for {path}; expected a key, (key, field) or None",
                rule=name_of(function),
            )
        key, field = found if isinstance(found, tuple) else (found, extension)
        keys.append(key)
        fields.append(field)
    return _whole_members(pa.array(keys, pa.large_string()), pa.array(fields, pa.large_string()))


def _is_pair(found: object) -> bool:
    return isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, str) for part in found)


def _whole_members(key: _Column, field: _Column) -> tuple[_Column, _Column]:
    """Leave out what lacks one of both, or has an empty one."""
    is_member = pc.and_(pc.not_equal(key, _EMPTY), pc.not_equal(field, _EMPTY))  # null, as what it chooses, for a null
    return pc.if_else(is_member, key, _NULL), pc.utf8_lower(pc.if_else(is_member, field, _NULL))
