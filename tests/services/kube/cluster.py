"""A control plane on loopback, each part a process of its own, so that tests can stop, kill and restart it.

with cluster(directory) as running:
    api = running.client()  # of the official package, as an administrator
"""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.services.kube.building import binaries
from tests.services.kube.keys import make_keys
from tests.services.processes import Process, free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ADMIN, _MANAGER, _SCHEDULER = "admin", "system:kube-controller-manager", "system:kube-scheduler"
NAMES_USER = "system:kube-proxy"
"""May read every endpoint."""
_SERVICE_ADDRESSES = "10.0.0.0/24"
_NO_CONTROLLERS = ("ttl", "nodeipam", "route", "service", "attachdetach")
"""They want a cloud or real nodes."""
_READY_SECONDS = 120


@dataclass
class Cluster:
    """A running control plane.

    Attributes:
        directory: Its files and logs.
        url: The API server's.
        tokens: Of each user who may ask it.
        port: The API server's.
        etcd_port: Of its memory.
    """

    directory: Path
    port: int
    etcd_port: int
    tokens: dict[str, str]
    _api: ExitStack = field(default_factory=ExitStack)
    _api_process: Process | None = None

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that signs the server's."""
        return self.directory / "ca.crt"

    def kubeconfig(self, user: str = _ADMIN, *, token: str | None = None) -> Path:
        """Return a file for kubectl and clients, for a user of `tokens` or one with a token of their own."""
        return _write_kubeconfig(self, user, token or self.tokens[user])

    def client(self, user: str = _ADMIN, *, token: str | None = None) -> Any:
        """Return a client of the official package; close it."""
        from kubernetes import config

        new_client: Any = config.new_client_from_config
        return new_client(str(self.kubeconfig(user, token=token)))

    def start_api(self) -> None:
        """Start the API server, and wait until it answers."""
        command = [str(binaries() / "kube-apiserver"), *_api_arguments(self)]
        log = self.directory / "kube-apiserver.log"
        is_ready = lambda _: _is_ready(self)  # noqa: E731
        self._api_process = self._api.enter_context(
            started(command, log=log, ready=is_ready, seconds=_READY_SECONDS, cwd=self.directory)
        )

    def stop_api(self) -> None:
        """Stop the API server; what it knew is in etcd."""
        self._api.close()
        self._api_process = None


@contextmanager
def cluster(directory: Path, *, nodes: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run etcd, an API server, a controller manager and a scheduler.

    Args:
        directory: For their files.
        nodes: Names of nodes that will ask the API server as such: users `system:node:<name>`.

    Raises:
        RuntimeError: If one of them does not start; the message quotes its log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    make_keys(directory, names="IP:127.0.0.1,IP:10.0.0.1,DNS:localhost,DNS:kubernetes.default.svc")
    users = {_ADMIN: "system:masters", _MANAGER: "", _SCHEDULER: "", NAMES_USER: ""}
    users |= {f"system:node:{node}": "system:nodes" for node in nodes}
    tokens = {user: secrets.token_hex(16) for user in users}
    lines = (f'{tokens[user]},{user},{user},"{group}"\n' for user, group in users.items())
    (directory / "tokens.csv").write_text("".join(lines))
    running = Cluster(directory, free_port(), free_port((0, 1)), tokens)
    with ExitStack() as stack:
        stack.enter_context(_etcd(running))
        stack.callback(running.stop_api)
        running.start_api()
        stack.enter_context(_controller_manager(running))
        stack.enter_context(_scheduler(running))
        yield running


def _is_ready(running: Cluster) -> bool:
    import ssl
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        f"{running.url}/readyz", headers={"Authorization": f"Bearer {running.tokens[_ADMIN]}"}
    )
    try:
        with urllib.request.urlopen(
            request, timeout=5, context=ssl.create_default_context(cafile=str(running.ca_file))
        ) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):  # not yet
        return False


@contextmanager
def _etcd(running: Cluster) -> Iterator[Process]:
    url, peers = (f"http://127.0.0.1:{running.etcd_port + number}" for number in range(2))
    command = [
        "etcd", "--data-dir", str(running.directory / "etcd"), "--unsafe-no-fsync", "--log-level", "error",
        "--listen-client-urls", url, "--advertise-client-urls", url,
        "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
    ]  # fmt: skip
    log = running.directory / "etcd.log"
    with started(command, log=log, ready=lambda _: listens(running.etcd_port), grace_seconds=0) as process:
        yield process


def _api_arguments(running: Cluster) -> list[str]:
    options = {
        "etcd-servers": f"http://127.0.0.1:{running.etcd_port}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": running.port,
        "tls-cert-file": "server.crt",
        "tls-private-key-file": "server.key",
        "client-ca-file": "ca.crt",
        "token-auth-file": "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "service-account-key-file": "sa.pub",
        "service-account-signing-key-file": "sa.key",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-cluster-ip-range": _SERVICE_ADDRESSES,
        "allow-privileged": "true",
        "endpoint-reconciler-type": "none",  # or it would want an address that is not of loopback
        "kubelet-preferred-address-types": "InternalIP",
    }
    return [f"--{name}={value}" for name, value in options.items()]


@contextmanager
def _controller_manager(running: Cluster) -> Iterator[Process]:
    options: dict[str, object] = {
        "kubeconfig": running.kubeconfig(_MANAGER),
        "service-account-private-key-file": "sa.key",
        "root-ca-file": "ca.crt",
        "use-service-account-credentials": "true",
        "cluster-signing-cert-file": "ca.crt",
        "cluster-signing-key-file": "ca.key",
        "controllers": ",".join(["*", *(f"-{name}" for name in _NO_CONTROLLERS)]),
    }
    with _part(running, "kube-controller-manager", options) as process:
        yield process


@contextmanager
def _scheduler(running: Cluster) -> Iterator[Process]:
    options: dict[str, object] = {
        "kubeconfig": running.kubeconfig(_SCHEDULER),
    }
    with _part(running, "kube-scheduler", options) as process:
        yield process


@contextmanager
def _part(running: Cluster, name: str, options: dict[str, object]) -> Iterator[Process]:
    port = free_port()
    options = {
        **options,
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "port": "0",  # no second one without TLS
        "cert-dir": running.directory / name,
    }
    command = [str(binaries() / name), *(f"--{option}={value}" for option, value in options.items())]
    log = running.directory / f"{name}.log"
    with started(command, log=log, ready=lambda _: listens(port), cwd=running.directory) as process:
        yield process


def _write_kubeconfig(running: Cluster, user: str, token: str) -> Path:
    file = running.directory / f"{user.replace(':', '-')}.kubeconfig"
    cluster_entry = {"server": running.url, "certificate-authority": str(running.ca_file)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster_entry}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    file.write_text(json.dumps(document))  # which is YAML too
    return file
