"""Objects of any namespace, for who may read Datasets and CacheRuntimes and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.errors import ClusterError, ManifestError
from dataset_controller.fields import API_VERSION
from dataset_controller.model import CacheRuntime, Dataset
from dataset_controller.operator.observing import InvalidSpecError, Models
from dataset_controller.operator.planning.actions import Ref

if TYPE_CHECKING:
    from dataset_controller.operator.api import ClusterApi


class ClusterObjects:
    """The declared objects of a cluster, each read when it is asked for.

    Args:
        api: The cluster.
    """

    def __init__(self, api: ClusterApi) -> None:
        self._api = api

    def dataset(self, namespace: str, name: str) -> Dataset | None:
        """Return a dataset; None if there is none.

        Raises:
            ClusterError: If the cluster cannot be asked.
            ManifestError: If it is wrong.
        """
        found: Dataset | None = self._read(Dataset, namespace, name)
        return found

    def runtime(self, namespace: str, name: str) -> CacheRuntime | None:
        """Return a cache; None if there is none. Raises as `dataset`."""
        found: CacheRuntime | None = self._read(CacheRuntime, namespace, name)
        return found

    def _read(self, model: Any, namespace: str, name: str) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        kind = model.__name__
        try:
            document = self._api.get(Ref(API_VERSION, kind, namespace, name))
        except (ApiException, HTTPError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(f"the API server does not tell {kind} {namespace}/{name}: {reason}") from error
        if document is None:
            return None
        try:
            return Models().get(model, {**document, "apiVersion": API_VERSION, "kind": kind})
        except InvalidSpecError as error:
            raise ManifestError(str(error), source=f"{kind}/{name}") from error
