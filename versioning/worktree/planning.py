"""What an update of a working copy does to each path, given what the disk holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class State(StrEnum):
    """What the disk holds where a path is to be written or removed."""

    ABSENT = "absent"
    CLEAN = "clean"
    """The bytes that the index says; nothing is lost with them."""
    WANTED = "wanted"
    """The bytes that are to be written: an update that was interrupted has been here."""
    CHANGED = "changed"
    """Bytes that no version has, as far as is known, or no regular file."""
    DIRECTORY = "directory"
    """A directory; `Found.inside` names the files in it."""
    BLOCKED = "blocked"
    """Something that is no directory has the place of one above; `Found.inside` names it."""


class Found(NamedTuple):
    """A path and what the disk holds there.

    Attributes:
        path: In the dataset.
        state: What was found.
        tracked: Whether the index has the path.
        inside: See `State`.
    """

    path: str
    state: State
    tracked: bool
    inside: tuple[str, ...] = ()


@dataclass
class Plan:
    """What to do.

    Attributes:
        write: Paths to write.
        adopt: Paths that have the bytes already.
        remove: Paths to delete.
        drop: Paths that are gone already.
        conflicts: Paths that stay as they are, with what speaks against touching them.
    """

    write: list[str] = field(default_factory=list)
    adopt: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    conflicts: dict[str, str] = field(default_factory=dict)


def plan_update(wanted: Iterable[Found], unwanted: Iterable[Found], *, force: bool) -> Plan:
    """Decide about paths that are to hold a version's bytes, and about paths that are to be gone.

    Args:
        wanted: Paths to write.
        unwanted: Paths to remove.
        force: Overwrite and remove what was changed; still no directory is removed for a file.
    """
    plan = Plan()
    for found in unwanted:
        if found.state in (State.ABSENT, State.BLOCKED, State.DIRECTORY):
            plan.drop.append(found.path)
        elif found.state == State.CHANGED and not force:
            plan.conflicts[found.path] = "changed here"
        else:
            plan.remove.append(found.path)
    going = set(plan.remove)
    for found in wanted:
        reason = _objection(found, going, force=force)
        if reason is not None:
            plan.conflicts[found.path] = reason
        elif found.state == State.WANTED:
            plan.adopt.append(found.path)
        else:
            plan.write.append(found.path)
    return plan


def _objection(found: Found, going: Collection[str], *, force: bool) -> str | None:
    if found.state == State.CHANGED:
        return None if force else "changed here" if found.tracked else "untracked and in the way"
    if found.state in (State.DIRECTORY, State.BLOCKED):
        left = [path for path in found.inside if path not in going]
        return f"{left[0]} is in the way" if left else None
    return None
