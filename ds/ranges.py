"""How people name commits in `log` and `diff`: a revision or a range, of the current dataset or another one."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ds.errors import UsageError
from ds.settings import current_settings
from versioning import CommitId, HistoryQuery, PathNotFoundError, RevisionNotFoundError, merge_base, range_of
from versioning.histories import split_range

if TYPE_CHECKING:
    from ds.dataset import Dataset

_OF_DATASET = re.compile(r"(?:ds://)?(?P<dataset>[a-z0-9][a-z0-9-]*)?@(?!\{)(?P<rest>.+)", re.DOTALL)


def split_dataset(text: str | None) -> tuple[str | None, str]:
    """Take the dataset off `[DATASET@]REVISION`: `digits@main~3..main`, `@v1`, `main..augment`, `digits`."""
    if not text:
        return None, ""
    match = _OF_DATASET.fullmatch(text)
    if match is not None:
        return match["dataset"], match["rest"]
    plain = text.removeprefix("ds://")
    if plain != text or plain in current_settings().catalog().names("Dataset"):
        return plain.rstrip("/") or None, ""
    return None, text


def asked_history(dataset: Dataset, text: str) -> HistoryQuery:
    """Read what `log` is asked for: a revision, `A..B` or `A...B`; "" is the current branch."""
    return range_of(text or "HEAD", resolve=dataset.resolve, work=dataset.repository.work)


def path_instead(dataset: Dataset, text: str | None, error: RevisionNotFoundError) -> str:
    """Return the path in the dataset that stands where a revision may stand, as git allows it without `--`.

    Raises:
        RevisionNotFoundError: The error, with a hint, if nothing tracked or on the disk has this path.
    """
    if not text or dataset.head() is None:
        raise error
    try:
        path = dataset.path(text)
        if path and _has(dataset, path):
            return path
    except (UsageError, PathNotFoundError):  # it lies outside of the working copy, or the version has none
        pass
    error.args = (f"{error}; if it is a path that is gone, write: -- {text}",)
    raise error


def _has(dataset: Dataset, path: str) -> bool:
    from ds.worktree import WorkingDataset

    if isinstance(dataset, WorkingDataset):
        return os.path.lexists(dataset.root / path) or bool(dataset.copy.index().at(path).any())
    return dataset.head() is not None and next(iter(dataset.tree().scan_at(path)), None) is not None


def asked_pair(dataset: Dataset, text: str) -> tuple[CommitId | None, CommitId]:
    """Read what `diff` compares: `A..B`, or `A` with the current branch; `A...B` is what B did since they parted.

    The first is None where the two have nothing in common.
    """
    old, dots, new = split_range(text)
    left, right = dataset.resolve(old or None), dataset.resolve(new or None)
    return (merge_base(dataset.repository.commits, left, right) if dots == "..." else left), right
