"""What hooks are asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from versioning.commits import CommitId
    from versioning.diffs import Diff

HOOKS_PATH = ".ds/hooks.yaml"
HOOKS_BYTES = 128 << 10

HookEvent: TypeAlias = Literal["pre-commit", "pre-merge"]
"""pre-merge: merges, fast-forwards and squashes too. pre-commit: everything else that makes a commit."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is about to go onto a branch.

    Attributes:
        event: What happens.
        branch: The branch.
        base: Its commit; None: there is none yet.
        author: Of the change.
        message: Of the commit.
        changes: Returns what would change against `base`.
    """

    event: HookEvent
    branch: str
    base: CommitId | None
    author: str
    message: str
    changes: Callable[[], Diff]


@dataclass(frozen=True, slots=True)
class HookContext:
    """What a Python hook is told besides the changes.

    Attributes:
        event: What happens.
        branch: The branch.
        base: Id of its commit; "" if there is none yet.
        author: Of the change.
        message: Of the commit.
        repository: URI of the repository.
    """

    event: str
    branch: str
    base: str
    author: str
    message: str
    repository: str
