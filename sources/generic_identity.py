"""What of a filesystem's `info` names one content of a file: as good as what the filesystem tells."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from sources.locations import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

_ETAGS = ("ETag", "etag", "e_tag", "eTag")
_HASHES = ("sha256", "content_hash", "md5", "md5Hash", "md5Checksum", "blob_id", "Content-MD5", "Digest")
_TIMES = ("mtime", "LastModified", "last_modified", "modified", "Last-Modified", "modify", "updated", "created")
_OWN_HASHES = {"github": "sha", "git": "hex", "zip": "CRC"}  # fields that mean something else in other filesystems
_MILLISECONDS = ("modificationTime", "modification_time")  # WebHDFS, hdfs-native
_INODES = ("file", "local")


def version_of(info: Mapping[str, Any], protocol: str) -> tuple[Version | None, int | None]:
    """Return the version in an `info` of fsspec, and the time of change in nanoseconds.

    In this order: the etag; a hash of the content; the time of change and the size, for local files with inode and
    time of creation too. The version is None where none of them is told. A time of 0 is no time: archives made to be
    reproducible carry it.

    Args:
        info: Of a file.
        protocol: The filesystem's.
    """
    size, mtime_ns = info.get("size"), _mtime_ns(info)
    if size is None:
        return None, mtime_ns
    etag = _first(info, _ETAGS)
    if etag:
        return Version(f"etag:{etag}"), mtime_ns
    own = _OWN_HASHES.get(protocol)
    name = own if own and info.get(own) is not None else next((name for name in _HASHES if info.get(name)), None)
    if name:
        return Version(f"{name.lower()}:{info[name]}:{size}"), mtime_ns
    if not mtime_ns:
        return None, None
    if protocol in _INODES and info.get("ino"):
        return Version(f"stat:{mtime_ns}:{size}:{info['ino']}:{_nanoseconds(info.get('created'))}"), mtime_ns
    return Version(f"stat:{mtime_ns}:{size}"), mtime_ns


def _mtime_ns(info: Mapping[str, Any]) -> int | None:
    milliseconds = _first(info, _MILLISECONDS)
    if isinstance(milliseconds, int) and milliseconds:
        return milliseconds * 1_000_000
    return _nanoseconds(_first(info, _TIMES))


def _first(info: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((info[name] for name in names if info.get(name)), None)


def _nanoseconds(time: Any) -> int | None:
    """Read a time as filesystems tell it; None for what is none, or leaves the year or the time of day open."""
    if isinstance(time, str):
        time = _parsed(time)
    if isinstance(time, datetime):
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return int(time.timestamp() * 1_000_000) * 1000
    if isinstance(time, int | float) and not isinstance(time, bool) and math.isfinite(time):
        return int(time * 1_000_000) * 1000
    return None


def _parsed(text: str) -> datetime | None:
    for parse in (_parsed_mlsd, datetime.fromisoformat, parsedate_to_datetime):
        try:
            return parse(text)
        except ValueError:
            continue
    return None


def _parsed_mlsd(text: str) -> datetime:
    """Parse the time in FTP's MLSD: 20260131235959[.123]."""
    return datetime.strptime(text.partition(".")[0], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
