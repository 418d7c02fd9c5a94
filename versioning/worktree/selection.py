"""Which paths of a version a working copy holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from versioning.columns import as_mask, compute
from versioning.errors import InvalidNameError
from versioning.patterns import path_regex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from versioning.columns import Column, Mask


class Selection:
    """Paths that match one of several patterns; no pattern at all selects everything.

    Args:
        patterns: As in `versioning.patterns`: `train/**`, `*.json`, `/labels`.

    Raises:
        InvalidNameError: If one of them is no pattern.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._regexes = [_regex(pattern) for pattern in patterns]

    @property
    def everything(self) -> bool:
        """Whether every path is selected."""
        return not self._regexes

    def mask(self, paths: Column) -> Mask:
        """Say for each path whether it is selected."""
        if self.everything:
            return np.ones(len(paths), np.bool_)
        chosen = np.zeros(len(paths), np.bool_)
        for regex in self._regexes:
            chosen |= as_mask(compute.match_substring_regex(paths, pattern=regex))
        return chosen


def _regex(pattern: str) -> str:
    try:
        return path_regex(pattern)
    except ValueError as error:
        raise InvalidNameError(pattern, what="sparse pattern", reason=str(error)) from error
