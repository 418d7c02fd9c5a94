"""Debian's containerd and runc, unpacked beside the system: what a real kubelet runs containers with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.services.install import default_cache, install_packages

_PACKAGES = ("containerd", "runc")
_NETWORK_PACKAGE = "containernetworking-plugins"
PLUGINS = Path("/usr/lib/cni")
_SECONDS = 600


def programs() -> Path:
    """Return the directory of the programs."""
    return default_cache() / "containerd" / "usr"


def missing() -> str | None:
    """Say what keeps containerd from running, or None."""
    if not (PLUGINS / "bridge").is_file():
        return f"no network plugins (Debian package {_NETWORK_PACKAGE})"
    return None if (programs() / "bin/containerd").is_file() else f"no containerd at {programs()}"


def install(cache: Path) -> None:
    """Unpack Debian's packages into `cache`; the system gets none of their daemons.

    Raises:
        subprocess.CalledProcessError: If they cannot be had.
    """
    install_packages(_NETWORK_PACKAGE)
    making = cache / "containerd.part"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *_PACKAGES]
    subprocess.run(download, cwd=making, timeout=_SECONDS, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    for package in making.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(making)], timeout=_SECONDS, check=True)
        package.unlink()
    shutil.rmtree(cache / "containerd", ignore_errors=True)
    making.rename(cache / "containerd")
