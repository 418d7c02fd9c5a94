"""What DVC's, git's and their filesystems' errors mean."""

from __future__ import annotations

import logging
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sources.errors import (
    SourceAuthError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    causes_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources.dvc.naming import Repository

_log = logging.getLogger(__name__)
_REVISION = ("RevError", "UnknownRevisionError")
_AUTH = ("AuthError", "GitAuthError", "SSHAuthError")
_CONFIG = ("NotDvcRepoError", "ConfigError", "RemoteMissingDepsError", "NoRemoteError", "RemoteNotFoundError")
_CLONE = ("CloneError", "SCMError", "GitAuthError")
_REFUSED = ("401", "403", "authentication", "permission denied", "could not read username")


@contextmanager
def translated(uri: str, repository: Repository) -> Iterator[None]:
    """Turn what DVC raises into our errors.

    The texts of git and of the remotes quote URLs with tokens: they go into no message and no chain of causes.
    """
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001  a remote's filesystem may be anybody's, and so are its errors
        raise _source_error(error, uri, repository) from None


def _source_error(error: Exception, uri: str, repository: Repository) -> SourceError:
    names = {kind.__name__ for link in causes_of(error) for kind in type(link).__mro__}
    _log.debug("request failed uri=%s error=%s", uri, type(error).__name__)
    if isinstance(error, PermissionError) or names.intersection(_AUTH) or _is_refused(error, names):
        return SourceAuthError(
            f"{uri}: the repository or its remote refuses these credentials; check url, remote_config"
        )
    if names.intersection(_REVISION):
        return SourceNotFoundError(f"{repository.uri} at {repository.rev}", "revision")
    if names.intersection(_CONFIG):
        return SourceConfigError(
            f"{uri}: DVC cannot open the repository or its remote ({type(error).__name__}); check repo and "
            "remote, and that the extra of DVC for the remote's kind is installed (dvc-s3, ...)"
        )
    if "DataIndexDirError" in names or isinstance(error, FileNotFoundError):
        return SourceUnavailableError(
            f"{uri}: neither DVC's cache nor its remote holds this directory's listing; run dvc push where it is",
            retryable=False,
        )
    if names.intersection(_CLONE):
        return SourceUnavailableError(f"{repository.uri}: git cannot fetch it; is the repository there and reachable?")
    return SourceUnavailableError(f"{uri}: {type(error).__name__} at {_place(error)}; try again later")


def _place(error: Exception) -> str:
    """Name the line that raised it: it tells what its text may not."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}"


def _is_refused(error: Exception, names: set[str]) -> bool:
    if not names.intersection(_CLONE):
        return False
    text = " ".join(str(link) for link in causes_of(error)).lower()
    return any(word in text for word in _REFUSED)
