"""Machines of a cluster as network namespaces on one bridge, and what goes wrong between them.

with fabric() as net:
    net.add("a", "b")
    started([*net.inside("a"), "server", ...], ...)      # reachable at net.address("a")
    net.cut("a", "b")                                    # what a sends does not reach b

This process is on the bridge too, at `net.own_address`, but no cut touches that. Only what every kernel with namespaces
has is used: packets are lost because their sender has a wrong hardware address for the receiver, as a switch that
forgot a port loses them, silently and in one direction.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.install import install_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = "iproute2"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_NOWHERE = "02:00:00:00:00:01"  # of nobody on the bridge
_SECONDS = 20
_OURS = re.compile(r"fb-(\d+)-\w+")


def missing() -> str | None:
    """Say what keeps `fabric` from working, or None."""
    if shutil.which("ip", path=_PATH) is None or shutil.which("tc", path=_PATH) is None:
        return f"no ip, tc (Debian package {_PACKAGE})"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"fb-{os.getpid()}-probe"
    try:
        _ip("netns", "add", name)
    except RuntimeError as error:
        return f"network namespaces are not allowed here (CAP_NET_ADMIN, CAP_SYS_ADMIN): {error}"
    _ip("netns", "del", name)
    return None


def install(cache: Path) -> None:
    """Install Debian's package, as root; `cache` is not used.

    Raises:
        RuntimeError: If apt-get fails.
    """
    del cache
    install_packages(_PACKAGE)


class Fabric:
    """A bridge with a namespace for each machine; see `fabric`.

    Attributes:
        own_address: Where this process is on it.
    """

    def __init__(self) -> None:
        self._prefix = f"fb-{os.getpid()}"
        place = os.getpid() % 512
        self._net = f"198.{18 + place // 256}.{place % 256}"  # of the block that is kept for tests of networks
        self._hub = f"{self._prefix}-hub"
        self._names: list[str] = []
        self._cuts: set[tuple[str, str]] = set()
        self._slow: set[str] = set()
        self._unplugged: set[str] = set()
        self.own_address = f"{self._net}.254"

    def build(self) -> None:
        """Make the bridge, and this process's place on it."""
        own = f"{self._prefix}-r"
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "br0", "up")
        _ip("link", "add", own, "type", "veth", "peer", "name", "own", "netns", self._hub)
        _ip("-n", self._hub, "link", "set", "own", "master", "br0", "up")
        _ip("addr", "add", f"{self.own_address}/24", "dev", own)
        _ip("link", "set", own, "up")

    def add(self, *names: str) -> None:
        """Make machines; their names are short words."""
        for name in names:
            space = self._space(name)
            _ip("netns", "add", space)
            self._names.append(name)
            _ip("-n", self._hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", self._hub, "link", "set", f"to-{name}", "master", "br0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")

    def address(self, name: str) -> str:
        """Return a machine's address."""
        return f"{self._net}.{self._names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """Return what goes before a command that is to run on a machine."""
        return [shutil.which("ip", path=_PATH) or "ip", "netns", "exec", self._space(name)]

    def cut(self, sender: str, receiver: str) -> None:
        """Lose all that one machine sends to another one; the other direction stays."""
        where = self.address(receiver), "lladdr", _NOWHERE, "dev", "eth0", "nud", "permanent"
        _ip("-n", self._space(sender), "neigh", "replace", *where)
        self._cuts.add((sender, receiver))

    def isolate(self, name: str) -> None:
        """Cut a machine off from all others, in both directions; not from this process's address."""
        for other in self._names:
            if other != name:
                self.cut(name, other)
                self.cut(other, name)

    def unplug(self, name: str) -> None:
        """Take a machine's cable out: it reaches nobody."""
        _ip("-n", self._hub, "link", "set", f"to-{name}", "down")
        self._unplugged.add(name)

    def slow(self, name: str, *, rate: str) -> None:
        """Limit what a machine sends, in words of tc: "8mbit"."""
        _tc(self._space(name), "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64k",
            "latency", "1s")  # fmt: skip
        self._slow.add(name)

    def heal(self) -> None:
        """Undo all cuts, slowness and unplugging."""
        for sender, receiver in self._cuts:
            _ip("-n", self._space(sender), "neigh", "del", self.address(receiver), "dev", "eth0")
        for name in self._slow:
            _tc(self._space(name), "qdisc", "del", "dev", "eth0", "root")
        for name in self._unplugged:
            _ip("-n", self._hub, "link", "set", f"to-{name}", "up")
        self._cuts, self._slow, self._unplugged = set(), set(), set()

    def close(self) -> None:
        """Remove all of it; the processes inside have ended."""
        for name in [*(self._space(name) for name in self._names), self._hub]:
            with suppress(RuntimeError):  # not made yet
                _ip("netns", "del", name)
        with suppress(RuntimeError):  # it goes with its other end, some time after that
            _ip("link", "del", f"{self._prefix}-r")

    def _space(self, name: str) -> str:
        return f"{self._prefix}-{name}"


@contextmanager
def fabric() -> Iterator[Fabric]:
    """Have a fabric until the end of the block; what killed test runs left behind is removed first.

    Raises:
        RuntimeError: If ip fails; the message is its own.
    """
    _sweep()
    made = Fabric()
    try:
        made.build()
        yield made
    finally:
        made.close()


def _sweep() -> None:
    """Remove the namespaces of processes that are gone."""
    for line in _ip("netns", "list").splitlines():
        found = _OURS.match(line)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            with suppress(RuntimeError):  # another run does the same
                _ip("netns", "del", found[0])


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _tc(space: str, *words: str) -> None:
    _run("tc", "-n", space, *words)


def _run(*command: str) -> str:
    environment = {**os.environ, "PATH": _PATH}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
