"""From what people write to a commit: branch, tag, id, id prefix, ~n and ^n."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from versioning.commits import CommitId, CommitStore
from versioning.errors import AmbiguousRevisionError, RevisionNotFoundError

if TYPE_CHECKING:
    from versioning.refs import Refs

_STEPS = re.compile(r"([~^])([0-9]{0,9})")  # bounded, so that a number always fits
_REVISION = re.compile(r"(?P<name>[^~^]+)(?P<steps>(?:[~^][0-9]{0,9})*)", re.DOTALL)
_FULL = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{4,63}")


def resolve(revision: str, *, refs: Refs, commits: CommitStore) -> CommitId:
    """Find the commit that a revision names.

    A name is tried as full id, branch, tag and unique id prefix (4 hex digits at least), in this order.
    `refs/heads/<name>` and `refs/tags/<name>` say which. `~n` is the n-th ancestor by first parents, `^n` the n-th
    parent; they may follow each other, and without a number mean 1.

    Raises:
        RevisionNotFoundError: With names that look alike.
        AmbiguousRevisionError: If several commits start with the prefix.
    """
    match = _REVISION.fullmatch(revision)
    if match is None:
        raise RevisionNotFoundError(revision, detail="expected a name followed by ~n or ^n")
    found = _find_name(match["name"], refs, commits)
    if found is None:
        raise RevisionNotFoundError(revision, near=_near_names(match["name"], refs))
    for operator, digits in _STEPS.findall(match["steps"]):
        number = int(digits) if digits else 1
        found = _ancestor(found, number, commits) if operator == "~" else _parent(found, number, commits)
        if found is None:
            raise RevisionNotFoundError(revision, detail=f"the history has no {operator}{number} there")
    return found


def _find_name(name: str, refs: Refs, commits: CommitStore) -> CommitId | None:
    if _FULL.fullmatch(name):
        return CommitId(name) if commits.exists(CommitId(name)) else None
    if not _is_encodable(name):
        return None
    if name.startswith("refs/heads/"):
        state = refs.branch(name.removeprefix("refs/heads/"))
        return state.commit if state else None
    if name.startswith("refs/tags/"):
        return refs.tag(name.removeprefix("refs/tags/"))
    state = refs.branch(name)
    return (state.commit if state else None) or refs.tag(name) or _find_prefix(name, commits)


def _is_encodable(name: str) -> bool:
    """Say whether the name could be a key at all; a key must not be tricked out of refs/."""
    return "\0" not in name and name not in (".", "..") and len(name) <= 200 and not _has_surrogates(name)


def _has_surrogates(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)


def _find_prefix(name: str, commits: CommitStore) -> CommitId | None:
    if not _PREFIX.fullmatch(name):
        return None
    candidates = commits.find(name)
    if len(candidates) > 1:
        raise AmbiguousRevisionError(name, candidates)
    return candidates[0] if candidates else None


def _parent(commit: CommitId, number: int, commits: CommitStore) -> CommitId | None:
    if number == 0:
        return commit
    parents = commits.read(commit).parents
    return parents[number - 1] if number <= len(parents) else None


def _ancestor(commit: CommitId, steps: int, commits: CommitStore) -> CommitId | None:
    found: CommitId | None = commit
    while steps and found is not None:
        found = _parent(found, 1, commits)
        steps -= 1
    return found


def _near_names(name: str, refs: Refs) -> list[str]:
    return difflib.get_close_matches(name, [*refs.branches(), *refs.tags()], n=3, cutoff=0.5)
