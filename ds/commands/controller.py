"""Command that is the operator of a Kubernetes cluster: controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ds.commands.worker import LogFormat
from ds.errors import UsageError
from ds.settings import current_settings
from ds.working import Address, log_to_stderr


def controller_command(
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", help="Serve only this namespace; may be given several times. Default: all."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", help="Of the pods that it makes, if a CacheRuntime names none; default: $FOREBAY_IMAGE."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of /healthz, /readyz and /metrics; :PORT is every address.")
    ] = ":8080",
    lease_namespace: Annotated[
        str | None,
        typer.Option(
            "--lease-namespace",
            help="Where the lease is, of which one controller at a time holds one; default: its own namespace.",
        ),
    ] = None,
    webhook_port: Annotated[
        int | None,
        typer.Option(
            "--webhook-port",
            min=0,
            max=65535,
            help="Answer the API server at https://HOST:PORT: /validate checks objects, /mutate helps pods.",
        ),
    ] = None,
    webhook_certificates: Annotated[
        Path | None,
        typer.Option(
            "--webhook-certificates",
            help="Directory of tls.crt and tls.key, such as a mounted TLS Secret; default: it makes its own.",
        ),
    ] = None,
    webhook_name: Annotated[
        str | None,
        typer.Option(
            "--webhook-name",
            help="Of the Service, Secret and configurations that it makes its own certificate for; as in deploy/.",
        ),
    ] = None,
    claims: Annotated[
        bool,
        typer.Option("--claims", help="Make a PersistentVolumeClaim of each Dataset's name; takes the CSI driver."),
    ] = False,
    log: Annotated[
        LogFormat, typer.Option("--log", help="Lines on stderr, for people or for machines.")
    ] = LogFormat.TEXT,
) -> None:
    """Let a Kubernetes cluster have what its Datasets, CacheRuntimes and DataLoads declare, until SIGTERM or Ctrl-C.

    It makes workers, agents and jobs, and tells in the status of each object how it is. It runs as a pod of the
    cluster, see deploy/, or for a try outside, with the kubeconfig of kubectl. Of several that run, one acts; when it
    is killed, another goes on where it was.

    \b
    Examples:
      ds controller
      ds controller --namespace ml --namespace vision --image registry/forebay:0.1
      ds controller --listen 127.0.0.1:0 --log json
    """
    address = Address.parse(listen)
    if webhook_port is None and (webhook_certificates is not None or webhook_name is not None):
        raise UsageError("--webhook-certificates and --webhook-name say how --webhook-port answers: give that, too")
    if webhook_certificates is not None and webhook_name is not None:
        raise UsageError("--webhook-name is for the certificate that it makes: leave --webhook-certificates out")
    if claims and namespace:
        raise UsageError("--claims makes volumes, which are of the whole cluster: leave --namespace out")
    from dataset_controller.operator.naming import WEBHOOK_NAME
    from dataset_controller.operator.running import OperatorConfig, missing_package, run_operator

    lacking = missing_package()
    if lacking is not None:
        raise UsageError(f"the controller needs {lacking}: pip install 'forebay[k8s]'")
    log_to_stderr(as_json=log == LogFormat.JSON)
    config = OperatorConfig(
        namespaces=tuple(namespace or ()),
        image=image or current_settings().image,
        host=address.host,
        port=address.port,
        lease_namespace=lease_namespace,
        webhook_port=webhook_port,
        certificates=webhook_certificates,
        webhook_name=webhook_name or WEBHOOK_NAME,
        claims=claims,
    )
    run_operator(config)
