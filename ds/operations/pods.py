"""What the pods of operations begin with: the datasets of the API server as a directory of manifests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from dataset_controller.agent.syncing import AUTHOR
from dataset_controller.operations import dataset_names

if TYPE_CHECKING:
    from dataset_controller.agent.loads import ClusterOperation
    from ds.settings import Settings


def settings_in_pod(asked: ClusterOperation, settings: Settings) -> Settings:
    """Return the settings under which the datasets of an operation can be opened in its pod.

    They are read from their sources: the pod has no cache of its own, and reads each byte once.

    Raises:
        ClusterError: If a dataset is not there, or the cluster cannot be asked.
    """
    directory = settings.home / "manifests"
    directory.mkdir(parents=True, exist_ok=True)
    for name in dataset_names(asked.operation):
        dataset = asked.dataset(name)
        spec = dataset.spec.model_copy(update={"cache": None})
        document = dataset.model_copy(update={"spec": spec}).model_dump(mode="json", by_alias=True, exclude_none=True)
        (directory / f"dataset-{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return replace(settings, manifests=directory, author=AUTHOR)
