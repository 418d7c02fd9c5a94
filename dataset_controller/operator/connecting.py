"""Finds the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataset_controller.errors import ClusterError

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CONNECTIONS = 64
"""A watch of each kind, and what is asked beside them."""


def cluster_client() -> Any:
    """Return a client for the cluster that this pod is in, else for the one that `KUBECONFIG` names.

    Raises:
        ClusterError: If there is none.
    """
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    settings = client.Configuration()
    loading: Any = config  # it publishes no types
    settings.connection_pool_maxsize = _CONNECTIONS
    try:
        try:
            loading.load_incluster_config(client_configuration=settings)
        except ConfigException:
            loading.load_kube_config(client_configuration=settings)
    except (ConfigException, OSError) as error:
        raise ClusterError(
            f"no cluster: this is no pod of one, and KUBECONFIG or ~/.kube/config names none ({error})"
        ) from error
    return client.ApiClient(settings)
