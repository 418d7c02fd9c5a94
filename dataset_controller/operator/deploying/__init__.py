"""How the operator gets into a cluster: manifests and a Helm chart, of the objects that are built here."""

from __future__ import annotations

from dataset_controller.operator.deploying.installing import Installation, all_documents, manifests_text

__all__ = ["Installation", "all_documents", "manifests_text"]
