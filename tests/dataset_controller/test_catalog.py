from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dataset_controller import Catalog, CatalogError, DatasetInUseError, DatasetNotFoundError
from tests.dataset_controller.test_manifests import GOOD
from tests.dataset_controller.test_planner import declared

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    dataset, runtime = declared()
    with Catalog(tmp_path / "home") as catalog:
        catalog.put([dataset, runtime])
        catalog.set_head("digits", "feature/x")
    with Catalog(tmp_path / "home") as catalog:
        assert catalog.dataset("digits") == dataset
        assert catalog.runtime_of(catalog.dataset("digits")) == runtime
        assert catalog.names("Dataset") == ["digits"]
        assert catalog.head("digits") == "feature/x"


def test_a_changed_spec_gets_the_next_generation(tmp_path: Path) -> None:
    _, runtime = declared()
    (_, bigger) = declared(GOOD.replace("1.5Gi", "2Gi"))
    with Catalog(tmp_path) as catalog:
        generations = []
        for resource in (runtime, runtime, bigger):
            catalog.put([resource])
            record = catalog.find("CacheRuntime", "local")
            assert record is not None
            generations.append(record.generation)
    assert generations == [1, 1, 2]


def test_a_missing_dataset_names_near_ones(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        with pytest.raises(DatasetNotFoundError, match="ds apply"):
            catalog.dataset("digits")
        catalog.put(declared())
        with pytest.raises(DatasetNotFoundError, match="known here: digits"):
            catalog.dataset("digit")


def test_a_runtime_in_use_is_not_deleted(tmp_path: Path) -> None:
    with Catalog(tmp_path) as catalog:
        catalog.put(declared())
        with pytest.raises(DatasetInUseError, match="used by dataset 'digits'"):
            catalog.delete_runtime("local")
        catalog.delete_dataset("digits")
        catalog.delete_runtime("local")
        assert catalog.names("CacheRuntime") == catalog.names("Dataset") == []


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(CatalogError, match="FOREBAY_HOME"):
        Catalog(tmp_path / "file" / "home")
