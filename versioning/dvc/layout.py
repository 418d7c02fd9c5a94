"""How a version lies in a DVC project: which outputs there are, and the text of their `.dvc` files. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from versioning.dvc.documents import listing_bytes
from versioning.dvc.errors import DvcFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RESERVED = frozenset({".git", ".dvc", ".hg", ".dvcignore"})
_TOP = frozenset({".gitignore", "dvc.yaml", "dvc.lock"})
MARK = "forebay"
"""Key in the `meta` of a `.dvc` file that an export wrote."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file of an export: its path in the version, md5 in hex, and size in bytes."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class DvcFile:
    """A `.dvc` file to be written.

    Attributes:
        name: Of the output, at the top of the project: a file or a directory.
        text: Content of `<name>.dvc`.
        listing: The directory's listing, and its md5; None for a file.
    """

    name: str
    text: str
    listing: tuple[bytes, str] | None


def check_layout(paths: Iterable[str]) -> list[str]:
    """Return the outputs that some paths need: each file and directory at the top is one.

    Args:
        paths: In byte order.

    Raises:
        DvcFileError: For a path that means something else to DVC or git, or a file that is a directory, too.
    """
    tops: dict[str, bool] = {}
    for path in paths:
        top, slash, _ = path.partition("/")
        if not _RESERVED.isdisjoint(path.split("/")) or top in _TOP or top.endswith(".dvc"):
            raise DvcFileError(path, reason="DVC or git gives this name a meaning of its own; rename it: ds mv")
        if tops.setdefault(top, bool(slash)) != bool(slash):
            raise DvcFileError(top, reason="it is a file and a directory, which a disk cannot hold; rename one: ds mv")
    return list(tops)


def plan_outputs(files: Sequence[HashedFile], *, commit: str) -> list[DvcFile]:
    """Return the `.dvc` files for a version whose paths `check_layout` has checked.

    Args:
        files: All of it, in byte order of path.
        commit: Id of the version's commit; it is noted in the files.
    """
    below: dict[str, list[HashedFile]] = {}
    for file in files:
        below.setdefault(file.path.partition("/")[0], []).append(file)
    return [_dvc_file(name, members, commit) for name, members in below.items()]


def _dvc_file(name: str, files: Sequence[HashedFile], commit: str) -> DvcFile:
    if len(files) == 1 and files[0].path == name:
        output = {"md5": files[0].digest, "size": files[0].size, "hash": "md5", "path": name}
        return DvcFile(name, _text(output, commit), None)
    listing = listing_bytes((file.path[len(name) + 1 :], file.digest) for file in files)
    digest = hashlib.md5(listing, usedforsecurity=False).hexdigest()
    size = sum(file.size for file in files)
    output = {"md5": f"{digest}.dir", "size": size, "nfiles": len(files), "hash": "md5", "path": name}
    return DvcFile(name, _text(output, commit), (listing, digest))


def _text(output: dict[str, object], commit: str) -> str:
    content = {"outs": [output], "meta": {MARK: {"commit": commit}}}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1 << 20)
