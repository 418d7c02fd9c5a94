"""What the real servers of the tests need and pip does not bring: `python -m tests.services.install`."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from tests.services.unavailable import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVICES = ("http", "hdfs", "nfs", "azurite", "gcs", "moto", "netns", "ssh", "fuse", "helm")
"""Modules beside this one that are a `Service`; one that is not there is passed over."""
LARGE = ("kube", "containerd")
"""Installed only when they are named: they take minutes."""

UNAVAILABLE = 3
"""Exit code of `main`: this machine cannot have it, whatever the code here does."""

_POLICY = Path("/usr/sbin/policy-rc.d")
_LIST_SECONDS = 300
_PACKAGE_SECONDS = 900


class Service(Protocol):
    """What a module of `SERVICES` has."""

    def missing(self) -> str | None:
        """Say what keeps the service from starting, or None. Takes milliseconds."""
        ...

    def install(self, cache: Path) -> None:
        """Install it: called where something is missing. Downloads are kept in `cache`."""
        ...


def default_cache() -> Path:
    """Return where downloads are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forebay-services"


def services() -> dict[str, Service]:
    """Return the services by name."""
    found = {}
    for name in (*SERVICES, *LARGE):
        try:
            found[name] = cast("Service", importlib.import_module(f"tests.services.{name}"))
        except ModuleNotFoundError as error:
            if error.name != f"tests.services.{name}":
                raise
    return found


def install_packages(*names: str) -> None:
    """Install Debian packages as root; their own daemons are not started.

    Raises:
        PermissionError: Without root.
        RuntimeError: If apt-get fails; the message is its own.
    """
    if os.geteuid() != 0:
        raise PermissionError(f"installing {', '.join(names)} needs root")
    with _no_daemons_started():
        try:
            _apt_get("install", "--no-install-recommends", *names, seconds=_PACKAGE_SECONDS)
        except RuntimeError:  # a fresh image knows no packages, an old one knows old ones
            _apt_get("update", seconds=_LIST_SECONDS)
            _apt_get("install", "--no-install-recommends", *names, seconds=_PACKAGE_SECONDS)


def _apt_get(command: str, *arguments: str, seconds: int) -> None:
    done = subprocess.run(
        ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", command, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"apt-get {command} {' '.join(arguments)}: {done.stderr.strip()[-1000:]}")


@contextmanager
def _no_daemons_started() -> Iterator[None]:
    """Answer Debian's scripts that nothing is to be started, unless the machine has an answer of its own."""
    if _POLICY.exists():
        yield
        return
    with tempfile.NamedTemporaryFile("w", dir=_POLICY.parent, delete=False) as script:
        script.write("#!/bin/sh\nexit 101\n")
    os.chmod(script.name, 0o755)
    os.rename(script.name, _POLICY)
    try:
        yield
    finally:
        _POLICY.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Install what is missing; return 1 if something still is, `UNAVAILABLE` if that is not our fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.install", description=__doc__)
    parser.add_argument(
        "service", nargs="*", help=f"of {', '.join(SERVICES)}; all if none is named. {', '.join(LARGE)}: only if named"
    )
    wanted = parser.parse_args(arguments).service
    known = services()
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return max([_install(name, known[name]) for name in wanted or known.keys() - set(LARGE)], default=0)


def _install(name: str, service: Service) -> int:
    before, code = service.missing(), 1
    if before is None:
        print(f"{name}: there")
        return 0
    print(f"{name}: {before}; installing", flush=True)
    try:
        default_cache().mkdir(parents=True, exist_ok=True)
        service.install(default_cache())
        after = service.missing()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        after = str(error)
        code = UNAVAILABLE if isinstance(error, UnavailableError) else code
    if after is None:
        print(f"{name}: installed")
        return 0
    print(f"{name}: {after}{'' if os.geteuid() == 0 else '; run this as root'}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
