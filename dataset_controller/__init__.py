"""Dataset objects: what people declare, and how a machine makes it true."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataset_controller.catalog import Catalog, Record
    from dataset_controller.embedded import Applied, apply, open_dataset
    from dataset_controller.errors import (
        CatalogError,
        ClusterError,
        ControllerError,
        DatasetInUseError,
        DatasetNotFoundError,
        EmptySourceError,
        ManifestError,
    )
    from dataset_controller.importing import check_sources, scan_sources, staged_by_hand
    from dataset_controller.manifests import parse_manifest
    from dataset_controller.model import API_VERSION, CacheRuntime, Dataset, Resource
    from dataset_controller.opening import OpenDataset, open_node_store
    from dataset_controller.peering import open_peers
    from dataset_controller.planner import Observed, plan_apply
    from dataset_controller.quantities import parse_quantity
    from dataset_controller.worker_opening import OpenWorker, datasets_using, open_worker
else:
    __getattr__ = lazily(
        __name__,
        {
            "catalog": ("Catalog", "Record"),
            "embedded": ("Applied", "apply", "open_dataset"),
            "errors": (
                "CatalogError",
                "ClusterError",
                "ControllerError",
                "DatasetInUseError",
                "DatasetNotFoundError",
                "EmptySourceError",
                "ManifestError",
            ),
            "importing": ("check_sources", "scan_sources", "staged_by_hand"),
            "manifests": ("parse_manifest",),
            "model": ("API_VERSION", "CacheRuntime", "Dataset", "Resource"),
            "opening": ("OpenDataset", "open_node_store"),
            "peering": ("open_peers",),
            "planner": ("Observed", "plan_apply"),
            "quantities": ("parse_quantity",),
            "worker_opening": ("OpenWorker", "datasets_using", "open_worker"),
        },
    )

__all__ = [
    "API_VERSION",
    "Applied",
    "CacheRuntime",
    "Catalog",
    "CatalogError",
    "ClusterError",
    "ControllerError",
    "Dataset",
    "DatasetInUseError",
    "DatasetNotFoundError",
    "EmptySourceError",
    "ManifestError",
    "Observed",
    "OpenDataset",
    "OpenWorker",
    "Record",
    "Resource",
    "apply",
    "check_sources",
    "datasets_using",
    "open_dataset",
    "open_node_store",
    "open_peers",
    "open_worker",
    "parse_manifest",
    "parse_quantity",
    "plan_apply",
    "scan_sources",
    "staged_by_hand",
]
