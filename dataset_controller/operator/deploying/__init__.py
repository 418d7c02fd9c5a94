"""How the operator gets into a cluster: manifests and a Helm chart, of the objects that are built here."""

from __future__ import annotations

from dataset_controller.operator.deploying.installing import Installation, all_documents, manifests_text
from dataset_controller.operator.deploying.node_driver import NodeDriver, node_driver_objects

__all__ = ["Installation", "NodeDriver", "all_documents", "manifests_text", "node_driver_objects"]
