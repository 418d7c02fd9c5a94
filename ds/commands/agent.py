"""Commands that run in the pods of a cluster: agent, agent load."""

from __future__ import annotations

import signal
import threading
from importlib.util import find_spec
from typing import Annotated

import typer

from ds.commands.worker import LogFormat
from ds.errors import UsageError
from ds.settings import current_settings
from ds.working import Address, log_to_stderr

NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Where the objects are.")]
LogOption = Annotated[LogFormat, typer.Option("--log", help="Lines on stderr, for people or for machines.")]


def serve_namespace(namespace: str, listen: str, log: str) -> None:
    """Be the agent of a namespace; see `ds agent --help`.

    Raises:
        UsageError: If an argument is wrong, or what it needs is not installed.
    """
    address = Address.parse(listen)
    if log not in [each.value for each in LogFormat]:
        raise UsageError(f"--log: expected text or json, found {log!r}")
    _require_client()
    from dataset_controller.agent.running import AgentConfig, run_agent

    log_to_stderr(as_json=log == LogFormat.JSON)
    run_agent(AgentConfig(namespace, current_settings().home, address.host, address.port))


def load_command(
    name: Annotated[str, typer.Argument(help="The DataLoad.")],
    namespace: NamespaceOption = "default",
    log: LogOption = LogFormat.TEXT,
) -> None:
    """Do what a DataLoad of the cluster asks, and tell its status: what the pod of its job runs.

    The dataset and its cache come from $FOREBAY_MANIFESTS. What is there already is not fetched again, so run again it
    goes on. Exits with 0 when every byte that is asked was found in the workers.

    \b
    Examples:
      ds agent load nightly --namespace ml --log json
    """
    _require_client()
    from dataset_controller.agent.loads import MANAGER, ClusterLoad
    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.connecting import cluster_client
    from ds.cluster_loads import run_cluster_load

    log_to_stderr(as_json=log == LogFormat.JSON)
    cancel = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel.set())
    asked = ClusterLoad(ClusterApi(cluster_client(), MANAGER), namespace, name)
    report = run_cluster_load(asked, current_settings(), cancel=cancel)
    if not report.verified:
        raise typer.Exit(1)


def _require_client() -> None:
    if find_spec("kubernetes") is None:
        raise UsageError("the agent needs the client of Kubernetes: pip install 'forebay[k8s]'")
