"""What `ds worker` takes to be one: its address, its name among the members, its logs."""

from __future__ import annotations

import logging
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cache_runtime.worker.logs import JsonLines
from ds.errors import UsageError

if TYPE_CHECKING:
    from cache_runtime.peers import Member, Members

_PACKAGES = ("ds", "dataset_controller", "cache_runtime", "versioning", "sources")


@dataclass(frozen=True)
class Address:
    """Where a worker listens: a host name or address, "" for all of them, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[::1]:PORT` or `:PORT`.

        Raises:
            UsageError: If it is not of that form.
        """
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if port is None or text.lower() != written:
            raise UsageError(f"--listen: expected HOST:PORT such as 0.0.0.0:7070, found {text!r}")
        return cls(host, port)


def find_own_member(members: Members, name: str, port: int) -> Member | None:
    """Return which member a worker of this machine is: by its name, else by this machine's addresses and the port."""
    named = members.named(name)
    if named is not None:
        return named
    return next((member for member in members if _listens_here(member, port)), None)


def _listens_here(member: Member, port: int) -> bool:
    parts = urlsplit(member.url)
    default = 443 if parts.scheme == "https" else 80
    return (parts.port or default) == port and parts.hostname is not None and _is_of_this_machine(parts.hostname)


def _is_of_this_machine(host: str) -> bool:
    """Say whether an address is one of this machine's: only those can be bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, UnicodeError):
        return False
    return True


def log_to_stderr(*, as_json: bool) -> None:
    """Log what a service does: a line each, or a JSON object each for machines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
