"""Dataset objects: what people declare, and how a machine makes it true."""

from dataset_controller.catalog import Catalog, Record
from dataset_controller.embedded import Applied, apply, open_dataset
from dataset_controller.errors import (
    CatalogError,
    ControllerError,
    DatasetInUseError,
    DatasetNotFoundError,
    EmptySourceError,
    ManifestError,
)
from dataset_controller.importing import check_sources, scan_sources, staged_by_hand
from dataset_controller.manifests import parse_manifest
from dataset_controller.model import API_VERSION, CacheRuntime, Dataset, Resource
from dataset_controller.opening import OpenDataset, open_block_store
from dataset_controller.planner import Observed, plan_apply
from dataset_controller.quantities import parse_quantity

__all__ = [
    "API_VERSION",
    "Applied",
    "CacheRuntime",
    "Catalog",
    "CatalogError",
    "ControllerError",
    "Dataset",
    "DatasetInUseError",
    "DatasetNotFoundError",
    "EmptySourceError",
    "ManifestError",
    "Observed",
    "OpenDataset",
    "Record",
    "Resource",
    "apply",
    "check_sources",
    "open_block_store",
    "open_dataset",
    "parse_manifest",
    "parse_quantity",
    "plan_apply",
    "scan_sources",
    "staged_by_hand",
]
