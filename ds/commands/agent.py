"""Commands that run in the pods of a cluster: agent, agent load, pack, process, migrate."""

from __future__ import annotations

import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ds.commands.worker import LogFormat
from ds.errors import UsageError
from ds.settings import current_settings
from ds.working import Address, log_to_stderr

if TYPE_CHECKING:
    from dataset_controller.agent.loads import ClusterOperation

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
    from ds.operations.loads import run_load

    report = run_load(_asked("DataLoad", namespace, name, log), current_settings(), cancel=_cancel())
    if not report.verified:
        raise typer.Exit(1)


def pack_command(
    name: Annotated[str, typer.Argument(help="The DataPack.")],
    namespace: NamespaceOption = "default",
    log: LogOption = LogFormat.TEXT,
) -> None:
    """Do what a DataPack of the cluster asks, and tell its status: what the pod of its job runs.

    What is stored is noted beside the repository: run again, also in another pod, it goes on with what is missing.

    \b
    Examples:
      ds agent pack shards --namespace ml --log json
    """
    from ds.operations.packs import run_pack
    from ds.operations.pods import settings_in_pod

    asked = _asked("DataPack", namespace, name, log)
    run_pack(asked, settings_in_pod(asked, current_settings()), cancel=_cancel())


def migrate_command(
    name: Annotated[str, typer.Argument(help="The DataMigrate.")],
    namespace: NamespaceOption = "default",
    log: LogOption = LogFormat.TEXT,
) -> None:
    """Do what a DataMigrate of the cluster asks, and tell its status: what the pod of its job runs.

    What is at the target already, as it is at the source, is not copied again.

    \b
    Examples:
      ds agent migrate to-gcs --namespace ml --log json
    """
    from ds.operations.migrations import run_migration
    from ds.operations.pods import settings_in_pod

    asked = _asked("DataMigrate", namespace, name, log)
    run_migration(asked, settings_in_pod(asked, current_settings()), cancel=_cancel())


def process_command(
    name: Annotated[str, typer.Argument(help="The DataProcess.")],
    namespace: NamespaceOption = "default",
    bring: Annotated[bool, typer.Option("--bring", help="Bring the files of the revision.")] = False,
    commit: Annotated[bool, typer.Option("--commit", help="Commit what the programs left.")] = False,
    work: Annotated[Path, typer.Option(help="Where input and output are.")] = Path("/forebay"),
    log: LogOption = LogFormat.TEXT,
) -> None:
    """Do the first or the last part of a DataProcess of the cluster, and tell its status.

    Between them the pod of its job runs the containers of the user, which have no credentials of the dataset.

    \b
    Examples:
      ds agent process labels --bring --namespace ml --log json
      ds agent process labels --commit --namespace ml --log json
    """
    from ds.operations.pods import settings_in_pod
    from ds.operations.processes import bring_input, commit_output

    if bring == commit:
        raise UsageError("say which part is to be done: --bring or --commit")
    asked = _asked("DataProcess", namespace, name, log)
    settings = settings_in_pod(asked, current_settings())
    if bring:
        bring_input(asked, settings, work, cancel=_cancel())
    else:
        commit_output(asked, settings, work)


def _asked(kind: str, namespace: str, name: str, log: LogFormat) -> ClusterOperation:
    _require_client()
    from dataset_controller.agent.loads import MANAGER, ClusterOperation
    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.connecting import cluster_client

    log_to_stderr(as_json=log == LogFormat.JSON)
    return ClusterOperation(ClusterApi(cluster_client(), MANAGER), kind, namespace, name)


def _cancel() -> threading.Event:
    """Return what is set when the pod is to end."""
    cancel = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel.set())
    return cancel


def _require_client() -> None:
    if find_spec("kubernetes") is None:
        raise UsageError("the agent needs the client of Kubernetes: pip install 'forebay[k8s]'")
