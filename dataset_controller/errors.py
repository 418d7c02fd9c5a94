"""What can go wrong with the declaration of a dataset.

ControllerError
├── ManifestError          (ValueError)   the YAML is wrong: fix the file (carries file, line, field)
├── DatasetNotFoundError   (KeyError)     no such dataset was applied here
├── DatasetInUseError      (ValueError)   another object refers to it
├── EmptySourceError                      a mount lists nothing although the version has files of it
├── CatalogError           (OSError)      the catalog's directory cannot be used
└── ClusterError           (OSError)      there is no cluster to ask, or no way to
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ControllerError(Exception):
    """Base of every error of this package."""

    kind = "controller"


class ManifestError(ControllerError, ValueError):
    """A manifest does not say what a Dataset or CacheRuntime needs; nothing was applied."""

    kind = "manifest"

    def __init__(self, reason: str, *, source: str, line: int | None = None, field: str = "") -> None:
        """Say where: the file, its line (from 1) and the field's path."""
        where = f"{source}:{line}" if line else source
        super().__init__(": ".join(part for part in (where, field, reason) if part))
        self.source = source
        self.line = line
        self.field = field
        self.reason = reason


class DatasetNotFoundError(ControllerError, KeyError):
    """The catalog has no such object."""

    kind = "dataset_not_found"

    def __init__(self, name: str, known: Sequence[str], *, hint: str = "", what: str = "dataset") -> None:
        """Carry the name asked for and those there are; the message lists near or all names, then the hint."""
        near = get_close_matches(name, known, n=3) or list(known)
        known_text = f"known here: {', '.join(near)}" if near else "none was applied yet: ds apply -f dataset.yaml"
        super().__init__(f"no {what} {name!r}; {known_text}{f'; {hint}' if hint else ''}")
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return str(self.args[0])


class DatasetInUseError(ControllerError, ValueError):
    """An object is referred to by another; delete that one first."""

    kind = "dataset_in_use"


class EmptySourceError(ControllerError):
    """A mount lists nothing although the version has files of it; nothing was staged.

    A source that is down or not mounted must not look like one whose files were deleted.
    """

    kind = "empty_source"

    def __init__(self, mount: str, uri: str, path: str) -> None:
        """Carry the mount's name, its URI and its directory in the dataset."""
        super().__init__(
            f"mount {mount!r} lists nothing at {uri}, but the version has files of it; is the source there? "
            f"If its files really are gone: ds rm {path.rstrip('/') or 'PATH'}, then commit"
        )
        self.mount = mount
        self.uri = uri


class CatalogError(ControllerError, OSError):
    """The directory of the catalog cannot be created or written."""

    kind = "catalog"


class ClusterError(ControllerError, OSError):
    """There is no Kubernetes cluster to ask, or it cannot be asked from here."""

    kind = "cluster"
