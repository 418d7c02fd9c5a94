from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataset_controller.errors import ManifestError
from dataset_controller.manifests import parse_manifest
from dataset_controller.model import CacheRuntime, Dataset
from dataset_controller.planner import (
    CheckSources,
    EnsureCache,
    EnsureRepository,
    Observed,
    RecordResources,
    plan_apply,
)
from tests.dataset_controller.test_manifests import GOOD

if TYPE_CHECKING:
    from dataset_controller.model import Resource


def declared(text: str = GOOD) -> list[Resource]:
    return parse_manifest(text, source="dataset.yaml", variables={"NFS": "/mnt"})


def observed(*resources: Resource) -> Observed:
    return Observed({(item.kind, item.metadata.name): item for item in resources})


def test_everything_new_is_checked_made_and_recorded_last() -> None:
    dataset, runtime = declared()
    actions = plan_apply([dataset, runtime], observed())
    assert [type(action) for action in actions] == [CheckSources, EnsureRepository, EnsureCache, RecordResources]
    assert actions[-1] == RecordResources((dataset, runtime))


def test_what_is_recorded_as_declared_is_made_where_it_went_and_not_recorded_again() -> None:
    dataset, runtime = declared()
    assert isinstance(dataset, Dataset)
    assert isinstance(runtime, CacheRuntime)
    actions = plan_apply([dataset, runtime], observed(dataset, runtime))
    assert actions == [EnsureRepository(dataset), EnsureCache(runtime)]


def test_only_what_changed_is_recorded() -> None:
    dataset, runtime = declared()
    (_, bigger) = declared(GOOD.replace("1.5Gi", "2Gi"))
    assert isinstance(bigger, CacheRuntime)
    assert isinstance(dataset, Dataset)
    assert plan_apply([dataset, bigger], observed(dataset, runtime)) == [
        EnsureRepository(dataset),
        EnsureCache(bigger),
        RecordResources((bigger,)),
    ]


def test_a_dataset_needs_its_cache_runtime() -> None:
    dataset, runtime = declared()
    with pytest.raises(ManifestError, match="no CacheRuntime 'local'"):
        plan_apply([dataset], observed())
    assert plan_apply([dataset], observed(runtime))


def test_a_dataset_keeps_its_repository() -> None:
    dataset, runtime = declared()
    (moved, _) = declared(GOOD.replace("s3://digits/repo/", "s3://digits/elsewhere"))
    with pytest.raises(ManifestError, match=r"keeps its repository .*ds delete digits"):
        plan_apply([moved, runtime], observed(dataset, runtime))


def test_one_object_is_declared_once() -> None:
    dataset, runtime = declared()
    (bigger,) = declared(GOOD.replace("1.5Gi", "2Gi"))[1:]
    with pytest.raises(ManifestError, match="twice"):
        plan_apply([dataset, runtime, bigger], observed())
