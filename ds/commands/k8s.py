"""Command that prints what puts Forebay into a Kubernetes cluster: k8s manifests."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from dataset_controller.operator.deploying import (
    Installation,
    NodeDriver,
    all_documents,
    manifests_text,
    node_driver_objects,
)
from ds.errors import UsageError
from ds.output import print_text

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def k8s_manifests_command(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the controller runs.")] = (
        Installation.namespace
    ),
    image: Annotated[
        str | None,
        typer.Option("--image", help="Of its pods and of those that it makes; default: forebay and this version."),
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option("--serve", help="Serve only this namespace; may be given several times. Default: all."),
    ] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Controllers; one of them acts.")] = 1,
    webhook: Annotated[
        bool, typer.Option("--webhook/--no-webhook", help="Have the API server ask the controller, too.")
    ] = True,
    csi: Annotated[
        bool, typer.Option("--csi", help="The CSI driver too: privileged pods in namespace forebay-csi, on each node.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="A PersistentVolumeClaim for each Dataset, of its name; takes --csi.")
    ] = False,
    rules: Annotated[
        bool, typer.Option("--rules/--no-rules", help="CEL rules in the definitions: of servers from 1.25 on.")
    ] = True,
) -> None:
    """Print the definitions, rights and controller that make a cluster know Datasets, as YAML for kubectl apply -f -.

    With --serve the controller's rights end at those namespaces, which must be there already.

    \b
    Examples:
      ds k8s manifests --image registry/forebay:0.1 | kubectl apply -f -
      ds k8s manifests --namespace ml-system --serve ml --serve vision
      ds k8s manifests --image registry/forebay:0.1 --csi --claims
    """
    for name in (namespace, *(serve or ())):
        if not _NAME.fullmatch(name):
            raise UsageError(f"a namespace has up to 63 lower-case letters, digits and '-', as in DNS, found {name!r}")
    if claims and (serve or not csi):
        raise UsageError("--claims makes volumes of the driver, in the whole cluster: give --csi, and no --serve")
    served = tuple(dict.fromkeys(serve or ()))
    installation = Installation(
        namespace=namespace, image=image or "", served=served, replicas=replicas, webhook=webhook, claims=claims
    )
    documents = all_documents(installation, with_rules=rules)
    if csi:
        documents += node_driver_objects(NodeDriver(image=image or ""))
    print_text(manifests_text(documents).rstrip("\n"))
