"""The life of one pod on a node of the tests: its containers are processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.services.kube.volumes import Mount, Volumes, environment_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_REPOSITORY = Path(__file__).resolve().parents[3]
_OTHERS_MAY_RUN = all(each.stat().st_mode & 0o005 == 0o005 for each in Path(sys.executable).resolve().parents)
"""Whether this Python, which is every image's, can be run by other users: else all pods run as ours."""
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_POLL_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_SERVICE_ACCOUNT_SECONDS = 2.0
_KILL_SECONDS = 10.0


def api_troubles(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what asking the API server raises when it refuses and when it is away, and other exceptions."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    return (ApiException, HTTPError, OSError, *others)


def timestamp() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class _Container:
    """One container of a pod, and how it is."""

    spec: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    state: dict[str, Any] = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: dict[str, Any] = field(default_factory=dict)
    is_ready: bool = False
    started_at: float = 0.0
    next_start: float = 0.0
    next_probe: dict[str, float] = field(default_factory=dict)
    failed_probes: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def exit_code(self) -> int | None:
        """Of a container that will not run again, None before."""
        return None if "terminated" not in self.state else int(self.state["terminated"]["exitCode"])


@dataclass(frozen=True)
class Place:
    """Where a pod runs.

    Attributes:
        directory: The node's.
        address: The pod's own.
        hosts: File of the names that it knows.
        environment: What every container has, beside what it declares.
    """

    directory: Path
    address: str
    hosts: Path
    environment: Mapping[str, str]


class Pod:
    """Runs one pod until it ended or is deleted; in a thread of its own.

    Args:
        api: Asked as the node.
        pod: As the API server said it, in plain data.
        place: Where it runs.
    """

    def __init__(self, api: Any, pod: dict[str, Any], place: Place) -> None:
        self._api = api
        self._pod = pod
        self._place = place
        self._directory = place.directory / "pods" / pod["metadata"]["uid"]
        self._volumes = Volumes(api, pod, self._directory, place.directory / "disk")
        self._containers = [_Container(spec) for spec in pod["spec"]["containers"]]
        self._deleted = threading.Event()
        self._grace = float(pod["spec"].get("terminationGracePeriodSeconds") or 0)
        self._said: dict[str, Any] = {}
        self._started = timestamp()
        self._thread = threading.Thread(target=self._run, daemon=True, name=pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self._pod["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._pod["metadata"]["name"])

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def delete(self, grace_seconds: float) -> None:
        """Let it end."""
        self._grace = grace_seconds
        self._deleted.set()

    def join(self, seconds: float) -> None:
        """Wait until it is gone."""
        self._thread.join(seconds)

    def refresh(self) -> None:
        """Write its config maps and secrets anew."""
        with suppress(*api_troubles()):  # it is gone, or will be tried again
            self._volumes.refresh()

    def _run(self) -> None:
        try:
            if self._prepare() and self._initialise():
                self._supervise()
            if self._deleted.is_set():
                self._end()
        finally:
            for container in self._containers:
                self._kill(container)
            shutil.rmtree(self._directory / "volumes", ignore_errors=True)
            if self._deleted.is_set():
                self._forget()

    def _prepare(self) -> bool:
        """Write the volumes; waits for secrets and config maps that are not there yet, and for the API server."""
        (self._directory / "logs").mkdir(parents=True, exist_ok=True)
        while not self._deleted.is_set():
            try:
                self._volumes.prepare()
                return True
            except api_troubles() as error:
                said = str(getattr(error, "body", None) or error)
                for container in self._containers:
                    container.state = {"waiting": {"reason": "CreateContainerConfigError", "message": said}}
                self._tell("Pending")
                self._deleted.wait(_RETRY_SECONDS)
        return False

    def _initialise(self) -> bool:
        """Run the init containers, one after the other, until each succeeded."""
        for spec in self._pod["spec"].get("initContainers") or []:
            container = _Container(spec)
            while not self._deleted.is_set():
                self._start(container)
                self._tell("Pending")
                while container.is_running and not self._deleted.wait(_POLL_SECONDS):
                    self._reap(container)
                if container.exit_code == 0:
                    break
                if self._pod["spec"].get("restartPolicy") == "Never" and container.exit_code is not None:
                    self._tell("Failed")
                    return False
                self._kill(container)
                self._deleted.wait(_backoff(container))
                container.restarts += 1
        return not self._deleted.is_set()

    def _supervise(self) -> None:
        """Run the containers until none will run again."""
        policy = self._pod["spec"].get("restartPolicy", "Always")
        while not self._deleted.is_set():
            for container in self._containers:
                self._step(container, policy)
            codes = [container.exit_code for container in self._containers]
            if all(code is not None and not _restarts(policy, code) for code in codes):
                self._tell("Failed" if any(codes) else "Succeeded")
                return
            self._tell("Running")
            self._deleted.wait(_POLL_SECONDS)

    def _step(self, container: _Container, policy: str) -> None:
        if container.is_running:
            self._reap(container)
            if container.is_running:
                self._probe(container)
            return
        code = container.exit_code
        if code is None:
            if time.monotonic() >= container.next_start:
                self._start(container)
        elif _restarts(policy, code):
            container.last = container.state
            container.state = {"waiting": {"reason": "CrashLoopBackOff" if code else "ContainerCreating"}}
            container.next_start = time.monotonic() + _backoff(container)
            container.restarts += 1

    def _start(self, container: _Container) -> None:
        try:
            declared = environment_of(self._api, self._told_pod(), container.spec)
        except api_troubles(KeyError) as error:
            container.state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
            container.next_start = time.monotonic() + _RETRY_SECONDS
            return
        root = self._directory / f"root-{container.name}"
        root.mkdir(exist_ok=True)
        security = {
            **(self._pod["spec"].get("securityContext") or {}),
            **(container.spec.get("securityContext") or {}),
        }
        hosts = Mount(str(self._place.hosts), "/etc/hosts", read_only=True)
        mounts = [hosts, *self._volumes.mounts(container.spec)]
        environment = {**self._place.environment, "HOSTNAME": self.name, **declared}
        spec = {
            "root": str(root),
            "mounts": [mount._asdict() for mount in (*mounts, *_uncovered(mounts))],
            "command": self._command(container.spec, environment),
            "environment": environment,
            "directory": container.spec.get("workingDir") or str(_REPOSITORY),
            "user": security.get("runAsUser") if _OTHERS_MAY_RUN else None,
            "group": security.get("runAsGroup") or security.get("runAsUser") if _OTHERS_MAY_RUN else None,
        }
        file = self._directory / f"{container.name}.json"
        file.write_text(json.dumps(spec))
        with self._log(container).open("ab") as log:
            container.process = subprocess.Popen(
                [sys.executable, "-m", "tests.services.kube.container", str(file)],
                cwd=_REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self._directory / f"{container.name}.pid").write_text(str(container.process.pid))
        container.state = {"running": {"startedAt": timestamp()}}
        container.started_at = time.monotonic()
        container.is_ready = "readinessProbe" not in container.spec
        container.failed_probes = {}
        container.next_probe = {}

    @staticmethod
    def _command(spec: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
        """Return what runs; what an image has as `ds` or `python` is this environment's."""
        words = [*(spec.get("command") or ["ds"]), *(spec.get("args") or [])]
        for name, value in environment.items():
            words = [word.replace(f"$({name})", value) for word in words]
        return words

    def _log(self, container: _Container) -> Path:
        return Path(self._directory, "logs", f"{container.name}.log")

    def _reap(self, container: _Container) -> None:
        if container.process is not None and (code := container.process.poll()) is not None:
            self._ended(container, code)

    def _ended(self, container: _Container, code: int) -> None:
        running = container.state.get("running") or {}
        code = 128 - code if code < 0 else code
        container.state = {
            "terminated": {
                "exitCode": code,
                "reason": "Error" if code else "Completed",
                "startedAt": running.get("startedAt"),
                "finishedAt": timestamp(),
            }
        }
        container.process = None
        container.is_ready = False

    def _probe(self, container: _Container) -> None:
        """Ask the probes that are due; a container that does not live is killed, and starts again."""
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.spec.get(kind)
            now = time.monotonic()
            begin = container.started_at + (probe.get("initialDelaySeconds") or 0) if probe else 0.0
            if probe is None or now < max(begin, container.next_probe.get(kind, 0.0)):
                continue
            container.next_probe[kind] = now + (probe.get("periodSeconds") or 10)
            if self._answers(container, probe):
                container.failed_probes[kind] = 0
                if kind == "readinessProbe":
                    container.is_ready = True
                continue
            failed = container.failed_probes[kind] = container.failed_probes.get(kind, 0) + 1
            if failed >= (probe.get("failureThreshold") or 3):
                if kind == "readinessProbe":
                    container.is_ready = False
                elif kind == "livenessProbe":
                    self._kill(container)

    def _answers(self, container: _Container, probe: Mapping[str, Any]) -> bool:
        seconds = float(probe.get("timeoutSeconds") or 1)
        try:
            if "httpGet" in probe:
                url = self._url(container, probe["httpGet"])
                with urllib.request.urlopen(url, timeout=seconds) as answer:
                    return bool(200 <= answer.status < 400)
            if "tcpSocket" in probe:
                port = _port(container, probe["tcpSocket"]["port"])
                with socket.create_connection((self._place.address, port), timeout=seconds):
                    return True
        except (OSError, urllib.error.URLError):
            return False
        return self._execute(container, probe["exec"]["command"], seconds) == 0

    def _url(self, container: _Container, get: Mapping[str, Any]) -> str:
        scheme = str(get.get("scheme") or "HTTP").lower()
        address = get.get("host") or self._place.address
        return f"{scheme}://{address}:{_port(container, get['port'])}{get.get('path') or '/'}"

    def _execute(self, container: _Container, command: list[str], seconds: float) -> int:
        """Run a command in a container."""
        if container.process is None:
            return 1
        spec = json.loads((self._directory / f"{container.name}.json").read_text())
        enter = ["nsenter", "--target", str(container.process.pid), "--mount", "--root", "--wd", "--"]
        try:
            with self._log(container).open("ab") as log:
                done = subprocess.run(
                    [*enter, *command], env=spec["environment"], stdout=log, stderr=log, timeout=seconds, check=False
                )
        except subprocess.TimeoutExpired:
            return 1
        return done.returncode

    def _end(self) -> None:
        """Stop the containers: first what they ask for, then SIGTERM, then SIGKILL."""
        deadline = time.monotonic() + self._grace
        running = [container for container in self._containers if container.is_running]
        self._each(running, lambda container: self._before_stop(container, deadline))
        for container in running:
            if container.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(container.process.pid, signal.SIGTERM)
        while any(container.is_running for container in running) and time.monotonic() < deadline:
            for container in running:
                self._reap(container)
            time.sleep(_POLL_SECONDS / 2)

    def _before_stop(self, container: _Container, deadline: float) -> None:
        hook = (container.spec.get("lifecycle") or {}).get("preStop")
        if not hook:
            return
        seconds = max(deadline - time.monotonic(), 0.1)
        if "exec" in hook:
            self._execute(container, hook["exec"]["command"], seconds)
        elif "httpGet" in hook:
            with suppress(OSError), urllib.request.urlopen(self._url(container, hook["httpGet"]), timeout=seconds):
                pass

    @staticmethod
    def _each(containers: list[_Container], act: Callable[[_Container], None]) -> None:
        threads = [threading.Thread(target=act, args=(container,)) for container in containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _kill(self, container: _Container) -> None:
        if container.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(container.process.pid, signal.SIGKILL)
            self._ended(container, container.process.wait(_KILL_SECONDS))

    def _told_pod(self) -> dict[str, Any]:
        status = {**(self._pod.get("status") or {}), "podIP": self._place.address, "hostIP": "127.0.0.1"}
        return {**self._pod, "status": status}

    def _tell(self, phase: str) -> None:
        """Report the status, if it is another one."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        statuses = [
            {
                "name": container.name,
                "image": container.spec.get("image", ""),
                "imageID": "",
                "restartCount": container.restarts,
                "ready": container.is_ready,
                "started": container.is_running,
                "state": container.state,
                "lastState": container.last,
            }
            for container in self._containers
        ]
        is_ready = phase == "Running" and all(container.is_ready for container in self._containers)
        status = {
            "phase": phase,
            "podIP": self._place.address,
            "podIPs": [{"ip": self._place.address}],
            "hostIP": "127.0.0.1",
            "startTime": self._started,
            "containerStatuses": statuses,
            "conditions": [
                {"type": "Initialized", "status": _word(phase != "Pending")},
                {"type": "PodScheduled", "status": "True"},
                {"type": "ContainersReady", "status": _word(is_ready)},
                {"type": "Ready", "status": _word(is_ready)},
            ],
        }
        if status == self._said:
            return
        try:
            self._api.patch_namespaced_pod_status(self.name, self.namespace, {"status": status})
            self._said = status
        except ApiException as error:
            if error.status == 404:
                self._deleted.set()
            # else the API server is away for a moment: said again in the next round
        except (HTTPError, OSError):
            return

    def _forget(self) -> None:
        """Tell the API server that nothing of the pod is left."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod["metadata"]["uid"]}}
        for _ in range(60):
            try:
                self._api.delete_namespaced_pod(self.name, self.namespace, body=body)
                return
            except ApiException as error:
                if error.status in (404, 409):  # gone, or another one of that name
                    return
            except (HTTPError, OSError):
                pass  # the API server is away for a moment
            time.sleep(_RETRY_SECONDS)


def _restarts(policy: str, code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _backoff(container: _Container) -> float:
    return _BACKOFF_SECONDS[min(container.restarts, len(_BACKOFF_SECONDS) - 1)]


def _port(container: _Container, port: int | str) -> int:
    """Return a port by its number or name."""
    if isinstance(port, int):
        return port
    return next(int(each["containerPort"]) for each in container.spec["ports"] if each.get("name") == port)


def _word(truth: bool) -> str:
    return "True" if truth else "False"


def _uncovered(mounts: Sequence[Mount]) -> list[Mount]:
    """Return what shows what is this image again, where a volume lies over it: an `emptyDir` on /tmp, mostly."""
    image = {str(_REPOSITORY), sys.prefix}
    return [
        Mount(path, path, read_only=True)
        for path in sorted(image)
        if any(Path(path).is_relative_to(mount.target) for mount in mounts)
    ]
