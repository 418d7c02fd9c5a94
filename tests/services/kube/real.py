"""A node with a real kubelet and containerd, in namespaces of its own, beside which nothing is seen or left.

Everything that uses it runs in them too: `unshare --net --mount --pid --fork --mount-proc --kill-child python ...`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.containerd import PLUGINS, programs
from tests.services.kube.building import binaries
from tests.services.kube.images import write_image
from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.kube.cluster import Cluster
    from tests.services.processes import Process

ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
"""Begins a command that runs in namespaces of its own; it ends with all that it started."""
IMAGE = "localhost/forebay:1"
_PAUSE = "localhost/pause:1"
_SLEEP = ("/bin/sleep", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6")
_OWN = ("/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni")
_SOCKET = Path("/run/containerd/containerd.sock")
_REPOSITORY = Path(__file__).resolve().parents[3]
_CONTAINERD = """
version = 2
root = "{work}/containerd"
state = "/run/containerd"
disabled_plugins = [{disabled}]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{work}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{work}/base.json"
"""
_DISABLED = ("aufs", "btrfs", "devmapper", "zfs")
_KUBELET = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
resolvConf: ''
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%, memory.available: 1Mi}
"""


def prepare() -> None:
    """Let these namespaces have their own state directories and their loopback device; once, before all else."""
    _run("mount", "--make-rprivate", "/")
    for directory in _OWN:
        Path(directory).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", directory)
    _run("ip", "link", "set", "lo", "up")


@contextmanager
def containerd(work: Path, *, subnet: str) -> Iterator[Process]:
    """Run containerd with our images, and a bridge for its pods.

    Args:
        work: An empty directory.
        subnet: Of the pods' addresses.
    """
    environment = _environment()
    (work / "base.json").write_text(json.dumps(_base_spec()))
    (work / "cni").mkdir()
    ranges = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    bridge = {"type": "bridge", "bridge": "forebay0", "isGateway": True, "ipMasq": False, "ipam": ranges}
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (work / "cni/10-bridge.conflist").write_text(json.dumps(network))
    disabled = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in _DISABLED)
    text = _CONTAINERD.format(work=work, disabled=disabled, socket=_SOCKET, pause=_PAUSE, plugins=PLUGINS)
    (work / "containerd.toml").write_text(text)
    command = [str(programs() / "bin/containerd"), "-c", str(work / "containerd.toml")]
    log = work / "containerd.log"
    with started(command, log=log, ready=lambda each: each.says("successfully booted"), env=environment) as process:
        path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
        write_image(work / "pause.tar", _PAUSE, {"Entrypoint": ["/bin/sleep", "infinity"]}, files=_SLEEP)
        write_image(work / "forebay.tar", IMAGE, {"Env": [path], "WorkingDir": "/"})
        for name in ("pause", "forebay"):
            ctr = [str(programs() / "bin/ctr"), "-a", str(_SOCKET), "-n", "k8s.io", "images", "import"]
            _run(*ctr, str(work / f"{name}.tar"))
        yield process


@contextmanager
def kubelet(work: Path, running: Cluster, node: str) -> Iterator[Process]:
    """Run a real kubelet on containerd; it is not ready yet."""
    (work / "kubelet.yaml").write_text(_KUBELET)
    command = [
        str(binaries() / "kubelet"), "--config", str(work / "kubelet.yaml"), "--hostname-override", node,
        "--kubeconfig", str(running.kubeconfig(f"system:node:{node}")), "--container-runtime=remote",
        f"--container-runtime-endpoint=unix://{_SOCKET}", "--root-dir=/var/lib/kubelet", "--node-ip=127.0.0.1",
    ]  # fmt: skip
    with started(command, log=work / "kubelet.log", ready=lambda _: True, env=_environment()) as process:
        yield process


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{programs()}/bin:{programs()}/sbin:{PLUGINS}:{os.environ['PATH']}"}


def _base_spec() -> dict[str, object]:
    """Return what every container has: this machine's programs, read-only, as its image."""
    done = subprocess.run(
        [str(programs() / "bin/ctr"), "oci", "spec"], check=True, capture_output=True, timeout=60, env=_environment()
    )
    spec: dict[str, object] = json.loads(done.stdout)
    mounts, process = spec["mounts"], spec["process"]
    assert isinstance(mounts, list)
    assert isinstance(process, dict)
    places = {"/usr", sys.base_prefix, sys.prefix, str(_REPOSITORY)}
    mounts += [
        {"destination": each, "type": "bind", "source": each, "options": ["rbind", "ro"]} for each in sorted(places)
    ]
    process["oomScoreAdj"] = 0
    return spec


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120, env=_environment())
