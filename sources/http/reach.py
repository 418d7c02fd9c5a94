"""How far redirects may lead: a public server must not make us ask what only this machine or its network can."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


class TooCloseError(ValueError):
    """A redirect leads to a host that is closer than the source's own."""


def closeness(address: str) -> int:
    """Tell how close an IP address is: 0 public, 1 a private network's, 2 this machine, 3 the link (cloud metadata)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_link_local:
        return 3
    if ip.is_loopback or ip.is_unspecified:
        return 2
    return 0 if ip.is_global else 1


class Reach(AbstractResolver):
    """Resolves names for a pool of connections, and refuses hosts that are closer than the source's own.

    What is resolved is what is connected to, so a name that changes its address in between gains nothing.

    Args:
        host: Of the source; wherever it lies, it may be asked.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._closest = _closeness_of(host) or 0
        self._proxies: set[str] = set()

    def trust(self, proxy: str) -> None:
        """Let a proxy of the environment lie anywhere."""
        self._proxies.add(proxy)

    def check(self, host: str) -> None:
        """Check a host before it is asked: one that is written as an address is never resolved.

        Raises:
            TooCloseError: If it is closer than the source.
        """
        found = _closeness_of(host)
        if host != self._host and found is not None and found > self._closest:
            raise TooCloseError(host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`.

        Raises:
            TooCloseError: As `check` does.
        """
        found = await aiohttp.ThreadedResolver().resolve(host, port, family)
        if host == self._host:
            self._closest = max(closeness(one["host"]) for one in found)
        elif host not in self._proxies:
            for one in found:
                self.check(one["host"])
        return found

    async def close(self) -> None:
        """Do nothing: it holds nothing."""


def _closeness_of(host: str) -> int | None:
    try:
        return closeness(host)
    except ValueError:  # a name
        return None
