from __future__ import annotations

import multiprocessing
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dataset_controller import Catalog, CatalogError, DatasetInUseError, DatasetNotFoundError
from tests.dataset_controller.test_manifests import GOOD
from tests.dataset_controller.test_planner import declared

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    dataset, runtime = declared()
    catalog = Catalog(tmp_path / "home")
    catalog.put([dataset, runtime])
    catalog.set_head("digits", "feature/x")
    catalog = Catalog(tmp_path / "home")
    assert catalog.dataset("digits") == dataset
    assert catalog.runtime_of(catalog.dataset("digits")) == runtime
    assert catalog.names("Dataset") == ["digits"]
    assert catalog.head("digits") == "feature/x"


def test_a_changed_spec_gets_the_next_generation(tmp_path: Path) -> None:
    _, runtime = declared()
    (_, bigger) = declared(GOOD.replace("1.5Gi", "2Gi"))
    catalog = Catalog(tmp_path)
    generations = []
    for resource in (runtime, runtime, bigger):
        catalog.put([resource])
        record = catalog.find("CacheRuntime", "local")
        assert record is not None
        generations.append(record.generation)
    assert generations == [1, 1, 2]


def test_what_this_version_cannot_read_is_told(tmp_path: Path) -> None:
    dataset, _ = declared()
    catalog = Catalog(tmp_path)
    catalog.put([dataset])
    with catalog._transaction(write=True) as transaction:
        value = bytes(transaction.get(b"Dataset/digits"))
        transaction.put(b"Dataset/digits", value.replace(b"v1alpha1", b"v1"))
    with pytest.raises(CatalogError, match="apply it again"):
        catalog.dataset("digits")
    catalog.delete_dataset("digits")
    assert catalog.names("Dataset") == []


def test_a_missing_dataset_names_near_ones(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="ds apply"):
        catalog.dataset("digits")
    catalog.put(declared())
    with pytest.raises(DatasetNotFoundError, match="known here: digits"):
        catalog.dataset("digit")


def test_a_runtime_in_use_is_not_deleted(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
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


def test_a_catalog_is_used_by_threads_and_forks_at_once(tmp_path: Path) -> None:
    datasets = [f"d{number}" for number in range(8)]

    def work(name: str) -> str:
        catalog = Catalog(tmp_path)
        for turn in range(20):
            catalog.set_head(name, f"{name}-{turn}")
        return catalog.head(name)

    with ThreadPoolExecutor(4) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        ours = threads.map(work, datasets[:4])
        children = [multiprocessing.get_context("fork").Process(target=work, args=(name,)) for name in datasets[4:]]
        for child in children:
            child.start()
        for child in children:
            child.join(timeout=60)
        list(ours)
    assert [child.exitcode for child in children] == [0] * 4
    assert [Catalog(tmp_path).head(name) for name in datasets] == [f"{name}-19" for name in datasets]
