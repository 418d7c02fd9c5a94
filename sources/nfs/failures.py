"""What the engines raise, in our terms."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sources.errors import (
    SourceAuthError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.nfs.engines import MountRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FILE = ("NFS3ERR_INVAL", "NFS3ERR_ISDIR", "NFS3ERR_NOTDIR")  # INVAL answers a READ of a symbolic link or a FIFO
_REFUSED = ("NFS3ERR_ACCES", "NFS3ERR_PERM", "NFS3ERR_ROFS")


class StaleError(Exception):
    """The server knows the handle no more: the file was deleted, or the export is another one now."""


@contextmanager
def translated(uri: str, what: str = "object") -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        StaleError: For the caller to look at the name again.
    """
    try:
        yield
    except (SourceError, StaleError):
        raise
    except FileNotFoundError as error:
        raise SourceNotFoundError(uri, what) from error
    except PermissionError as error:
        raise _refused(uri) from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise SourceNotFoundError(uri, "directory" if what == "directory" else "file") from error
    except (TimeoutError, ConnectionError) as error:
        raise SourceUnavailableError(f"{uri}: {_text(error)}; is the server up, and reachable?") from error
    except (OSError, RuntimeError, ValueError) as error:  # NfsError is a RuntimeError
        raise _other(uri, error) from error


def _other(uri: str, error: Exception) -> Exception:
    code = getattr(error, "code_name", None)
    number = getattr(error, "errno", None)
    if code == "NFS3ERR_STALE" or number == errno.ESTALE:
        return StaleError(uri)
    if code in ("NFS3ERR_NOSPC", "NFS3ERR_DQUOT") or number in _FULL:
        return SourceFullError(f"{uri}: no space left on the server; free some and run the command again")
    if code in _REFUSED or number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _refused(uri)
    if isinstance(error, MountRefusedError) and number in (errno.ENOENT, errno.ENOTDIR):
        return SourceNotFoundError(uri, "export")
    if code in _NO_FILE or (code is None and number == errno.EINVAL):
        return SourceNotFoundError(uri, "file")
    unsayable = isinstance(error, UnicodeError) or type(error).__name__ == "NfsInvalidInputError"
    if unsayable or number == errno.ENAMETOOLONG:
        return SourceConfigError(f"{uri}: the server cannot have a file of this name; rename it")
    return SourceUnavailableError(f"{uri}: {_text(error)}; try again later")


def _refused(uri: str) -> SourceAuthError:
    return SourceAuthError(f"{uri}: permission denied; check options uid and gid, and what the export allows this host")


def _text(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)[:200]
