"""`.ds/hooks.yaml`: which hooks a branch asks for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from versioning.errors import HooksFileError
from versioning.patterns import path_regex

if TYPE_CHECKING:
    from versioning.hooks.proposals import HookEvent

_MAX_DEPTH = 50
MAX_SECONDS = 86_400.0

CODE = ("run", "python")
"""What runs code: needs trust."""
BUILT_IN = ("allowed_globs", "max_file_bytes", "max_total_bytes", "meta_schema", "no_unpinned_external")
_EVENTS: tuple[HookEvent, ...] = ("pre-commit", "pre-merge")
_COMMON = ("id", "events", "branches", "paths", "timeout_seconds", "with")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE = re.compile(r"([0-9]{1,18}) ?(|Ki|Mi|Gi|Ti|Pi)B?")
_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook.

    Attributes:
        id: Its name.
        kind: What it does: one of `CODE` or `BUILT_IN`.
        value: Its parameter: a command's arguments, an entry point's name, patterns, bytes, or a JSON schema.
        events: When it runs.
        branches: Patterns of the branches that it is for.
        paths: Patterns of the paths that it looks at; none: all.
        timeout_seconds: After this a command is killed.
        options: What an entry point gets besides the changes.
    """

    id: str
    kind: str
    value: Any
    events: tuple[HookEvent, ...] = _EVENTS
    branches: tuple[str, ...] = ("**",)
    paths: tuple[str, ...] = ()
    timeout_seconds: float = 300.0
    options: Mapping[str, Any] | None = None

    @property
    def runs_code(self) -> bool:
        """Whether it runs a command or an entry point."""
        return self.kind in CODE

    def is_for(self, event: HookEvent, branch: str) -> bool:
        """Say whether it is asked."""
        return event in self.events and any(re.search(_branch_regex(each), branch) for each in self.branches)

    def shown(self) -> str:
        """Return what it does, for people."""
        if self.kind == "run":
            return shlex.join(self.value)
        return f"{self.kind}: {' '.join(self.value) if isinstance(self.value, tuple) else self.value}"


def parse_hooks(data: bytes) -> tuple[Hook, ...]:
    """Read the file.

    Raises:
        HooksFileError: If it is of another form.
    """
    try:
        text = data.decode()
        _check_shape(text)
        content = yaml.safe_load(text)
    except HooksFileError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise HooksFileError(f"it is no YAML ({' '.join(str(error).split())[:200]})") from error
    if content is None:
        return ()
    if not isinstance(content, dict) or set(content) != {"hooks"} or not isinstance(content["hooks"], list):
        raise HooksFileError("expected a list named hooks, and nothing else")
    hooks = tuple(_hook(each, number) for number, each in enumerate(content["hooks"], 1))
    names = [hook.id for hook in hooks]
    if len(set(names)) < len(names):
        raise HooksFileError("two hooks have one id")
    return hooks


def _check_shape(text: str) -> None:
    """Refuse a few bytes that stand for gigabytes or hours, before they are built."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise HooksFileError("aliases are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise HooksFileError(f"it is nested deeper than {_MAX_DEPTH} levels")


def _hook(content: Any, number: int) -> Hook:
    if not isinstance(content, dict):
        raise HooksFileError(f"hook {number} is no mapping")
    name = content.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise HooksFileError(f"hook {number} needs an id of letters, digits, '.', '_' and '-'")
    kinds = [each for each in (*CODE, *BUILT_IN) if each in content]
    if len(kinds) != 1:
        raise HooksFileError(f"hook {name} needs exactly one of: {', '.join((*CODE, *BUILT_IN))}")
    unknown = sorted(str(key) for key in set(content) - set(_COMMON) - set(kinds))
    if unknown:
        raise HooksFileError(f"hook {name}: unknown: {', '.join(unknown)}")
    events = _texts(content.get("events", list(_EVENTS)), name, "events")
    if not events or not set(events) <= set(_EVENTS):
        raise HooksFileError(f"hook {name}: events: expected some of {', '.join(_EVENTS)}")
    paths = _patterns(content.get("paths", []), name, "paths")
    branches = _patterns(content.get("branches", ["**"]), name, "branches")
    return Hook(
        id=name,
        kind=kinds[0],
        value=_value(kinds[0], content[kinds[0]], name),
        events=tuple(each for each in _EVENTS if each in events),
        branches=branches,
        paths=paths,
        timeout_seconds=_seconds(content.get("timeout_seconds", 300), name),
        options=_options(content.get("with"), name),
    )


def _value(kind: str, value: Any, name: str) -> Any:
    if kind == "run":
        arguments = _texts(value, name, "run")
        if not isinstance(value, list) or not arguments or any("\0" in each for each in arguments):
            raise HooksFileError(f"hook {name}: run: expected a list of arguments; no shell reads it")
        return arguments
    if kind == "python":
        if not isinstance(value, str) or not value:
            raise HooksFileError(f"hook {name}: python: expected the name of an entry point")
        return value
    if kind == "allowed_globs":
        return _patterns(value, name, kind)
    if kind in ("max_file_bytes", "max_total_bytes"):
        return _size(value, name, kind)
    if kind == "no_unpinned_external":
        if value is not True:
            raise HooksFileError(f"hook {name}: {kind}: expected true")
        return True
    if not isinstance(value, dict):
        raise HooksFileError(f"hook {name}: {kind}: expected a JSON schema")
    return value


def _texts(value: Any, name: str, field: str) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise HooksFileError(f"hook {name}: {field}: expected a text or a list of texts")
    return tuple(found)


def _patterns(value: Any, name: str, field: str) -> tuple[str, ...]:
    found = _texts(value, name, field)
    for each in found:
        try:
            path_regex(each)
        except ValueError as error:
            raise HooksFileError(f"hook {name}: {field}: {error}") from error
    return found


def _size(value: Any, name: str, field: str) -> int:
    match = _SIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise HooksFileError(f"hook {name}: {field}: expected bytes, such as 1048576 or 16Mi")
    return int(match[1]) << 10 * _UNITS.index(match[2])


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
        raise HooksFileError(f"hook {name}: timeout_seconds: expected a number up to {MAX_SECONDS:,.0f}")
    return float(value)


def _options(value: Any, name: str) -> Mapping[str, Any] | None:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise HooksFileError(f"hook {name}: with: expected a mapping of names")
    return value


def _branch_regex(pattern: str) -> str:
    """Match whole names: unlike a path's, a branch's last part alone is not what a pattern is for."""
    return path_regex(f"/{pattern.removeprefix('/')}")
