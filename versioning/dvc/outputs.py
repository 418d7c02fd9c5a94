"""What a DVC project tracks, as its files say."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from versioning.dvc.errors import DvcFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DIGEST = re.compile(r"[0-9a-f]{32}")
_INNER = frozenset({".git", ".dvc"})
HASHES = ("md5", "md5-dos2unix")
"""DVC 3's, and that of DVC 2, which left the carriage returns out of text files."""


@dataclass(frozen=True, slots=True)
class CloudFile:
    """One file of a cloud-versioned output.

    Attributes:
        path: Relative to the output; "" for the output itself.
        version: Id of the object's version in its bucket.
        size: Bytes.
        source: `md5:<hex>`, or `vid:<version>` where DVC recorded no hash.
        remote: Name of the remote.
    """

    path: str
    version: str
    size: int
    source: str
    remote: str


@dataclass(frozen=True, slots=True)
class Output:
    """A file or directory that DVC tracks.

    Attributes:
        path: In the git repository.
        hash_name: One of `HASHES`; "" if only `cloud` says what it is.
        digest: 32 hex digits, of the listing for a directory.
        is_dir: Whether it is a directory.
        cloud: Its files, if they are pinned by version ids of a bucket.
        urls: Of the remotes in `cloud`, by name.
        is_made: Whether a stage of a pipeline made it.
    """

    path: str
    hash_name: str
    digest: str
    is_dir: bool
    cloud: tuple[CloudFile, ...] = ()
    urls: tuple[tuple[str, str], ...] = ()
    is_made: bool = False


def output_of(record: Any, directory: str, *, file: str) -> Output | None:
    """Read one item of `outs`; None if DVC keeps no copy of it.

    Args:
        record: As YAML gives it.
        directory: What its path is relative to, in the git repository.
        file: Where it stands, for messages.

    Raises:
        DvcFileError: If it is none, or lies outside of the repository.
    """
    if not isinstance(record, dict) or not isinstance(record.get("path"), str):
        raise DvcFileError(file, reason="an output has no path")
    path = inner_path(record["path"], directory, file=file)
    cloud = tuple(_cloud_files(record, file=file))
    text = record.get("md5")
    if record.get("cache") is False or (text is None and not cloud):
        return None
    if cloud:
        return Output(path, "", "", "files" in record, cloud)
    hash_name = record.get("hash", "md5-dos2unix")  # DVC 2 did not name it
    digest = text.removesuffix(".dir") if isinstance(text, str) else ""
    if hash_name not in HASHES or not _DIGEST.fullmatch(digest):
        raise DvcFileError(
            file, reason=f"the hash of {path} is no md5; repair the file, or add the output to DVC again"
        )
    return Output(path, hash_name, digest, str(text).endswith(".dir"))


def inner_path(path: str, directory: str, *, file: str) -> str:
    """Return a path of a project's file relative to the git repository.

    Raises:
        DvcFileError: If it is a URL, absolute, or leads out of the repository or into `.git` or `.dvc`.
    """
    whole = posixpath.normpath(posixpath.join(directory, path))
    if "://" in path or path.startswith(("/", "~")) or whole == ".." or whole.startswith("../"):
        raise DvcFileError(file, reason=f"{path!r} lies outside of the repository; track a path inside of it")
    if whole == "." or "\0" in whole or not _INNER.isdisjoint(whole.split("/")):
        raise DvcFileError(
            file, reason=f"{path!r} cannot be an output; track a path in the repository's own directories"
        )
    return whole


def check_disjoint(outputs: Iterable[Output], *, file: str) -> dict[str, Output]:
    """Return outputs by path.

    Raises:
        DvcFileError: If one lies in another: DVC refuses that too.
    """
    found: dict[str, Output] = {}
    for output in outputs:
        if found.setdefault(output.path, output) != output:
            raise DvcFileError(file, reason=f"two of its files track {output.path}")
    for path in found:
        above = posixpath.dirname(path)
        while above:
            if above in found:
                raise DvcFileError(file, reason=f"{path} lies in {above}, which is tracked by itself")
            above = posixpath.dirname(above)
    return found


def check_relative(path: Any, *, file: str) -> str:
    """Check the path of a file in a directory's listing.

    Raises:
        DvcFileError: If it is none, or leads out of the directory.
    """
    if not isinstance(path, str) or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise DvcFileError(file, reason=f"{path!r} is no path of a file in the directory")
    return path


def _cloud_files(record: Mapping[str, Any], *, file: str) -> Iterable[CloudFile]:
    listed = record.get("files")
    if listed is None:
        listed = [{**record, "relpath": ""}]
    if not isinstance(listed, list):
        raise DvcFileError(file, reason="files is no list")
    for item in listed:
        cloud = item.get("cloud") if isinstance(item, dict) else None
        if not cloud:
            return
        remote, pinned = next(iter(cloud.items())) if isinstance(cloud, dict) else ("", None)
        version = pinned.get("version_id") if isinstance(pinned, dict) else None
        size, digest, path = item.get("size"), item.get("md5"), item.get("relpath")
        if not isinstance(version, str) or type(size) is not int or size < 0 or not isinstance(remote, str):
            raise DvcFileError(file, reason="a cloud-versioned file has no version_id or size")
        known = isinstance(digest, str) and _DIGEST.fullmatch(digest)
        path = path if path == "" else check_relative(path, file=file)
        yield CloudFile(path, version, size, f"md5:{digest}" if known else f"vid:{version}", remote)
