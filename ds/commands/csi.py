"""Command that lets the pods of a node mount datasets: csi."""

from __future__ import annotations

import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ds.commands.worker import LogFormat
from ds.errors import UsageError
from ds.working import log_to_stderr

_DirectoriesOption = list[str] | None


def csi_command(
    node: Annotated[str, typer.Option("--node", envvar="NODE_NAME", help="The node's name.")],
    kubelet_dir: Annotated[
        str, typer.Option("--kubelet-dir", help="The kubelet's root, at the same path as on the node.")
    ] = "/var/lib/kubelet",
    state: Annotated[
        Path, typer.Option("--state", help="Manifests and secrets of mounts; best in memory. May be lost.")
    ] = Path("/run/forebay"),
    trees: Annotated[Path, typer.Option("--trees", help="Decoded parts of trees. May be lost.")] = Path(
        "/var/lib/forebay/nodes"
    ),
    cache: Annotated[
        _DirectoriesOption,
        typer.Option("--cache", help="Directory that the tiers of caches may lie below; may be given several times."),
    ] = None,
    files: Annotated[
        _DirectoriesOption,
        typer.Option("--files", help="Directory that file: URIs of datasets may lie below; several times. None: none."),
    ] = None,
    log: Annotated[
        LogFormat, typer.Option("--log", help="Lines on stderr, for people or for machines.")
    ] = LogFormat.TEXT,
) -> None:
    """Be the CSI driver of a Kubernetes node: pods name a Dataset as their volume, and see its files.

    It registers with the node's kubelet and runs a ds mount for each volume; when it ends, they do. It reads Datasets
    and CacheRuntimes from the API server, and gets a volume's Secret from the kubelet. See deploy/csi.

    \b
    Examples:
      ds csi --node worker-7 --cache /var/cache/forebay
      ds csi --node worker-7 --files /mnt/nfs --log json
    """
    for each in (kubelet_dir, *(cache or ()), *(files or ())):
        if not each.startswith("/") or each != each.rstrip("/"):
            raise UsageError(f"expected the absolute path of a directory, found {each!r}")
    lacking = [name for name, module in (("kubernetes", "kubernetes"), ("grpcio", "grpc")) if find_spec(module) is None]
    if lacking:
        raise UsageError(f"the driver needs {' and '.join(lacking)}: pip install 'forebay[k8s]'")
    from dataset_controller.agent.declared import ClusterObjects
    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.connecting import cluster_client
    from ds.csi.homes import Allowed
    from ds.csi.serving import Sockets, serving
    from ds.csi.volumes import Node, Volumes

    log_to_stderr(as_json=log == LogFormat.JSON)
    allowed = Allowed(caches=tuple(cache or ()), files=tuple(files or ()))
    here = Node(node, kubelet_dir, state.absolute(), trees.absolute(), allowed)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with serving(Volumes(here, ClusterObjects(ClusterApi(cluster_client()))), Sockets.below(kubelet_dir)):
        ending.wait()
