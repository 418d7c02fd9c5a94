"""What hdfs-native raises, in our terms."""

from __future__ import annotations

import re
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
from sources.hdfs.watching import HungError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REMOTE = re.compile(r'RPCError\("(?:[\w.$]*\.)?(\w+)", "([^"\\]{0,200})')
_KIND = re.compile(r"^(\w+)")
_REFUSED = re.compile(
    r"AccessControlException|AuthorizationException|SecretManager|InvalidToken|Sasl|GSSAPI|Kerberos", re.I
)
_FULL = re.compile(r"QuotaExceeded|DiskOutOfSpace|FSLimitException\$MaxDirectoryItems")


@contextmanager
def translated(uri: str, what: str = "object") -> Iterator[None]:
    """Turn the client's errors into ours; stacks of Java and addresses of DataNodes are left out of the message."""
    try:
        yield
    except SourceError:
        raise
    except HungError as error:
        raise SourceUnavailableError(
            f"{uri}: no answer in time; is the NameNode up? Option timeout_seconds says how long to wait"
        ) from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(uri, what) from error
    except PermissionError as error:
        raise SourceAuthError(
            f"{uri}: permission denied; check the user (HADOOP_USER_NAME) and the file's mode"
        ) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:  # a directory's name is a file's, or so
        raise SourceNotFoundError(uri, "file") from error
    except OSError as error:
        raise SourceUnavailableError(
            f"{uri}: {_first_line(str(error))}; are the NameNode and the port right?"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise _other(uri, str(error)) from error


def _other(uri: str, text: str) -> SourceError:
    """Sort out what hdfs-native raises as a plain RuntimeError: all that it has no Python exception for."""
    remote = _REMOTE.search(text)
    kind = remote[1] if remote else getattr(_KIND.match(text), "group", lambda: "error")()
    if _REFUSED.search(kind):
        return SourceAuthError(f"{uri}: the NameNode refuses these credentials ({kind})")
    if _FULL.search(kind):
        return SourceFullError(f"{uri}: no room ({kind}); raise the quota or free some space")
    if kind == "InvalidPathException":
        return SourceConfigError(f"{uri}: HDFS cannot name a key with an empty, '.' or '..' part or a ':'; rename it")
    if kind in ("InvalidArgument", "UrlParseError", "XmlParseError"):
        return SourceConfigError(
            f"{uri}: no NameNode of this name; check the URI, HADOOP_CONF_DIR and option config_dir"
        )
    if kind == "DataTransferError":
        return SourceUnavailableError(f"{uri}: no DataNode gives the data; are they up?")
    return SourceUnavailableError(f"{uri}: {remote[2] if remote else kind}; try again later")


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200]
