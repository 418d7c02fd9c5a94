"""The options of an NFS source."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sources.errors import SourceConfigError
from sources.options import check_known, timeout_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN = ("engine", "export", "gid", "mountport", "nfsport", "noresvport", "timeout_seconds", "uid")
_ENGINES = ("libnfs", "nfs-rs")
_NUMBERS = {"nfsport": 65535, "mountport": 65535, "uid": 2**32 - 1, "gid": 2**32 - 1}
_TIMEOUT_SECONDS = 60.0
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


@dataclass(frozen=True)
class NfsOptions:
    """How to reach a server, and as whom.

    Who one is, is only said (AUTH_SYS): the server believes numbers, and protects itself by which hosts may connect
    and by squashing root. There is no Kerberos.

    Attributes:
        host: The server.
        nfsport: Where NFS answers, with or without being in the URI; None asks the server's portmapper.
        mountport: Where MOUNT answers; None asks the server's portmapper.
        export: The exported path that the source lies in; None finds it out.
        uid: Who to be; None is this process's.
        gid: The same for the group.
        noresvport: Whether to use an unprivileged source port: servers refuse it unless their export says "insecure".
            The default is False for root, as nobody else has a privileged one. libnfs takes one whenever it may.
        timeout_seconds: How long any one request may take.
        engine: "libnfs" (a C library of the system) or "nfs-rs"; None is the first of them that is installed.
    """

    host: str
    nfsport: int | None = None
    mountport: int | None = None
    export: str | None = None
    uid: int | None = None
    gid: int | None = None
    noresvport: bool = False
    timeout_seconds: float = _TIMEOUT_SECONDS
    engine: str | None = None


def parse_options(uri: str, authority: str, options: Mapping[str, object]) -> NfsOptions:
    """Check the options of a source.

    Args:
        uri: For messages.
        authority: `server[:port]`.
        options: Those of a source.

    Raises:
        SourceConfigError: Naming what is wrong.
    """
    check_known(uri, options, _KNOWN)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise SourceConfigError(f"{uri}: expected nfs://server[:port]/exported/path")
    numbers: dict[str, Any] = {name: _number(uri, name, options.get(name)) for name in _NUMBERS}
    if match["port"]:
        if numbers["nfsport"] not in (None, int(match["port"])):
            raise SourceConfigError(f"{uri}: the port and option nfsport contradict each other")
        numbers["nfsport"] = _number(uri, "nfsport", match["port"])
    noresvport = options.get("noresvport", os.geteuid() != 0)
    if not isinstance(noresvport, bool):
        raise SourceConfigError(f"{uri}: option noresvport is true or false")
    engine = options.get("engine")
    if engine is not None and engine not in _ENGINES:
        raise SourceConfigError(f"{uri}: option engine is one of {', '.join(_ENGINES)}")
    export = options.get("export")
    if export is not None and not str(export).startswith("/"):
        raise SourceConfigError(f"{uri}: option export is an absolute path on the server, such as /export")
    return NfsOptions(
        host=match["host"],
        export=None if export is None else "/" + str(export).strip("/"),
        noresvport=noresvport,
        engine=None if engine is None else str(engine),
        timeout_seconds=timeout_of(uri, options, _TIMEOUT_SECONDS),
        **numbers,
    )


def _number(uri: str, name: str, value: object) -> int | None:
    if value is None:
        return None
    text = "" if isinstance(value, bool) else str(value)
    if not text.isdecimal() or int(text) > _NUMBERS[name]:
        raise SourceConfigError(f"{uri}: option {name} is a number up to {_NUMBERS[name]}, found {value!r}")
    return int(text)
