"""The volumes of a node: each a `ds mount` with a home of its own, on the directory that the kubelet names."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from dataset_controller.errors import ClusterError, ManifestError
from ds.csi.errors import (
    VolumeError,
    VolumeNotFoundError,
    VolumePendingError,
    VolumeRefusedError,
    VolumeRequestError,
    VolumeUnavailableError,
    error_of_exit,
)
from ds.csi.homes import Allowed, check_allowed, home_files
from ds.errors import NotMountedError
from ds.mounting.ending import end_mount
from ds.mounting.points import PointState, state_of
from ds.mounting.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dataset_controller.model import CacheRuntime, Dataset
    from ds.csi.asking import Wish

_log = logging.getLogger(__name__)
_MOUNT_SECONDS = 100
"""The kubelet gives up after 120, and asks again."""
_PASSED_ON = (
    "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PATH", "PYTHONPATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR",
    "SSL_CERT_FILE", "https_proxy", "http_proxy", "no_proxy",
)  # fmt: skip
"""What a mount has of the driver's environment: nothing that could be a key."""


class Objects(Protocol):
    """Where Datasets and CacheRuntimes are declared."""

    def dataset(self, namespace: str, name: str) -> Dataset | None:
        """Return a dataset; None if there is none."""
        ...

    def runtime(self, namespace: str, name: str) -> CacheRuntime | None:
        """Return a cache; None if there is none."""
        ...


@dataclass(frozen=True)
class Node:
    """What the driver has of its node.

    Attributes:
        name: The node's.
        kubelet_dir: The kubelet's root.
        state: Directory for the homes of mounts: manifests and secrets, best in memory. What is in it may be lost
            with the driver, as its mounts are.
        nodes: Directory for decoded parts of trees, which the mounts of a namespace share.
        allowed: What datasets may use of the node.
    """

    name: str
    kubelet_dir: str
    state: Path
    nodes: Path
    allowed: Allowed


@dataclass
class Volumes:
    """Mounts datasets for pods. Any number of threads; one at a time for each target.

    Attributes:
        node: Where.
        objects: What is declared.
    """

    node: Node
    objects: Objects
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget_earlier(self) -> None:
        """Forget the mounts of a driver before this one: their processes died with it, and their ids are others' now.

        What they left in the way is taken away when it is unpublished or published again.
        """
        with suppress(FileNotFoundError):
            shutil.rmtree(self._homes)

    def publish(self, wish: Wish) -> None:
        """Mount what a pod wants; what is mounted and answers already stays as it is.

        Raises:
            VolumeError: If it cannot be; nothing is left.
        """
        with self._turn(wish.target):
            _check_no_links(wish.target)
            if state_of(wish.target) == PointState.MOUNTED:
                return
            self._clear(wish.target)
            files = self._files(wish)
            home = self._home(wish.target)
            try:
                _write(home, files)
                os.makedirs(wish.target, mode=0o750, exist_ok=True)
                _mount(wish, self._environment(home, wish.namespace))
            except BaseException:
                self._clear(wish.target)
                raise
            _log.info("published dataset=%s/%s target=%s", wish.namespace, wish.source, wish.target)

    def unpublish(self, target: str) -> None:
        """Take a mount away, also one that an earlier driver left; none there is as well.

        Raises:
            VolumeError: If something else is in its place.
        """
        with self._turn(target):
            _check_no_links(target)
            self._clear(target)
            _log.info("unpublished target=%s", target)

    @contextmanager
    def _turn(self, target: str) -> Iterator[None]:
        with self._lock:
            if target in self._busy:
                raise VolumePendingError(f"{target} is being mounted or taken away already")
            self._busy.add(target)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(target)

    def _home(self, target: str) -> Path:
        return self._homes / sha256(target.encode()).hexdigest()[:16]

    @property
    def _homes(self) -> Path:
        return self.node.state / "volumes"

    def _files(self, wish: Wish) -> dict[str, str]:
        try:
            dataset = self.objects.dataset(wish.namespace, wish.dataset)
            if dataset is None:
                raise VolumeNotFoundError(
                    f"namespace {wish.namespace} has no Dataset {wish.dataset}; a pod sees those of its own namespace"
                )
            runtime = self._runtime(wish.namespace, dataset)
        except ClusterError as error:
            raise VolumeUnavailableError(str(error)) from error
        except ManifestError as error:
            raise VolumeRefusedError(str(error)) from error
        check_allowed(dataset, runtime, self.node.allowed)
        return home_files(dataset, runtime, wish.secrets)

    def _runtime(self, namespace: str, dataset: Dataset) -> CacheRuntime | None:
        if dataset.spec.cache is None:
            return None
        name = dataset.spec.cache.runtime_ref.name
        found = self.objects.runtime(namespace, name)
        if found is None:
            raise VolumeNotFoundError(f"namespace {namespace} has no CacheRuntime {name}, which its Dataset names")
        return found

    def _environment(self, home: Path, namespace: str) -> dict[str, str]:
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **passed,
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "FOREBAY_HOME": str(home),
            "FOREBAY_MANIFESTS": str(home / "manifests"),
            "FOREBAY_NODE_CACHE": str(self.node.nodes / namespace),
        }

    def _clear(self, target: str) -> None:
        """Leave nothing of a mount: neither itself, nor its directory, nor its home with the secrets."""
        home = self._home(target)
        with suppress(NotMountedError):
            end_mount(Records(home), target, lazily=True)
        try:
            with suppress(FileNotFoundError):
                os.rmdir(target)
        except OSError as error:
            raise VolumeError(f"{target} cannot be removed: {error.strerror}; it is no mount of ours") from error
        finally:
            shutil.rmtree(home, ignore_errors=True)


def _check_no_links(target: str) -> None:
    """See that a target is where its path says.

    Raises:
        VolumeRequestError: If a link leads out of the kubelet's directory.
    """
    parent = os.path.dirname(target)
    if os.path.realpath(parent) != parent:
        raise VolumeRequestError(f"{parent} leads elsewhere by a symbolic link")


def _write(home: Path, files: Mapping[str, str]) -> None:
    home.mkdir(parents=True, mode=0o700)
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)


def _mount(wish: Wish, environment: dict[str, str]) -> None:
    """Start a mount as a process of its own, and return when the files are there."""
    follow = ["--follow"] if wish.follow else []
    command = [
        sys.executable, "-P", "-c", "import ds.cli; ds.cli.main()", "mount",
        "--background", "--allow-other", "--log", "json", *follow, "--", wish.source, wish.target,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MOUNT_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise VolumeUnavailableError(f"{wish.source} was not mounted within {_MOUNT_SECONDS} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ds mount ended with {done.returncode}"]
        said = lines[-1].removeprefix("ds: ").partition(f"; see {environment['FOREBAY_HOME']}")[0]  # that log goes, too
        raise error_of_exit(done.returncode, said)
