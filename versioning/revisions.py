"""From what people write to a commit: branch, tag, id, id prefix, @{n}, @{date}, ~n and ^n."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from versioning.commits import CommitId, CommitStore, format_time
from versioning.errors import AmbiguousRevisionError, InvalidNameError, RevisionNotFoundError
from versioning.moments import parse_moment
from versioning.names import check_ref_name

if TYPE_CHECKING:
    from versioning.refs import Refs

_STEPS = re.compile(r"([~^])([0-9]{0,9})")  # bounded, so that a number always fits
_REVISION = re.compile(
    r"(?P<name>(?:(?!@\{)[^~^])+)(?:@\{(?P<when>[^{}]*)\})?(?P<steps>(?:[~^][0-9]{0,9})*)", re.DOTALL
)
_DATE_DIGITS = 8  # 20260131 is a day, not a number of moves
_FULL = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{4,63}")


def resolve(revision: str, *, refs: Refs, commits: CommitStore) -> CommitId:
    """Find the commit that a revision names.

    A name is tried as full id, branch, tag and unique id prefix (4 hex digits at least), in this order.
    `refs/heads/<name>` and `refs/tags/<name>` say which, and `refs/pins/<run>` is what a run uses. `~n` is the n-th
    ancestor by first parents, `^n` the n-th parent; they may follow each other, and without a number mean 1.
    `branch@{n}` is what a branch named before its last n moves, `branch@{2026-01-31}` what it named then; see
    `versioning.moments` for what else can stand there.

    Raises:
        RevisionNotFoundError: With names that look alike.
        AmbiguousRevisionError: If several commits start with the prefix.
    """
    match = _REVISION.fullmatch(revision)
    if match is None:
        raise RevisionNotFoundError(revision, detail="expected a name followed by @{n}, @{date}, ~n or ^n")
    found: CommitId | None
    if match["when"] is not None:
        found = _at(match["name"].removeprefix("refs/heads/"), match["when"], revision, refs)
    else:
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
    if name.startswith("refs/heads/"):
        return _branch(name.removeprefix("refs/heads/"), refs)
    if name.startswith("refs/tags/"):
        return _tag(name.removeprefix("refs/tags/"), refs)
    if name.startswith("refs/pins/"):
        run = name.removeprefix("refs/pins/")
        return refs.pin(run) if _can_be_ref(run) else None
    return _branch(name, refs) or _tag(name, refs) or _find_prefix(name, commits)


def _at(branch: str, when: str, revision: str, refs: Refs) -> CommitId:
    """Find what a branch named some moves ago, or at a moment."""
    state = refs.branch(branch) if _can_be_ref(branch) else None
    if state is None:
        raise RevisionNotFoundError(revision, detail=f"no branch {branch} has a log", near=_near_names(branch, refs))
    if when.isascii() and when.isdigit() and len(when) < _DATE_DIGITS:
        back = int(when)
        if back >= state.sequence:
            raise RevisionNotFoundError(revision, detail=f"it has moved {state.sequence} times only")
        found = state.commit if not back else refs.logs.after(branch, state.sequence - back)
    else:
        moment = parse_moment(when, now=refs.clock())
        if moment is None:
            raise RevisionNotFoundError(revision, detail="expected @{2026-01-31}, @{2 days ago}, @{yesterday} or @{3}")
        text = format_time(moment)
        found = state.commit if state.updated_at <= text else refs.logs.at_moment(branch, text)
    if found is None:
        raise RevisionNotFoundError(
            revision, detail=f"the log of {branch} has no commit there; see: ds reflog {branch}"
        )
    return found


def _branch(name: str, refs: Refs) -> CommitId | None:
    state = refs.branch(name) if _can_be_ref(name) else None
    return state.commit if state else None


def _tag(name: str, refs: Refs) -> CommitId | None:
    return refs.tag(name) if _can_be_ref(name) else None


def _can_be_ref(name: str) -> bool:
    """Say whether there can be such a ref; a store must not even be asked for a key that is none."""
    try:
        check_ref_name(name, what="ref")
    except InvalidNameError:
        return False
    return True


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
