"""Manifests that a cluster mounts into pods, instead of a catalog of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dataset_controller import CatalogError, ManifestError
from dataset_controller.mounted import MountedCatalog
from ds.application import run
from ds.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def manifest(kind: str, name: str, spec: dict[str, object]) -> str:
    """Write an object as the operator does."""
    return json.dumps(
        {
            "apiVersion": "forebay.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "ml"},
            "spec": spec,
        }
    )


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """Return a directory with a cache and a dataset of it."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    runtime = {"tiers": [{"path": str(tmp_path / "cache"), "capacity": "64Mi"}], "replicas": 2}
    (directory / "runtime.json").write_text(manifest("CacheRuntime", "nvme", runtime))
    sync = {"interval": "10s", "branch": "lake"}
    dataset = {"repo": {"uri": f"file://{tmp_path}/repo"}, "cache": {"runtimeRef": {"name": "nvme"}}, "sync": sync}
    (directory / "digits.json").write_text(manifest("Dataset", "digits", dataset))
    (directory / "..data.json").write_text("swapped files are not read")
    return directory


def test_a_mounted_catalog_follows_its_files_and_changes_none(mounted: Path, tmp_path: Path) -> None:
    catalog = MountedCatalog(mounted, tmp_path / "home")
    dataset = catalog.dataset("digits")
    runtime = catalog.runtime_of(dataset)
    assert runtime is not None
    assert runtime.spec.replicas == 2
    assert catalog.head("digits") == "lake"
    assert catalog.names("Dataset") == ["digits"]
    changes: list[Callable[[], None]] = [
        lambda: catalog.put([dataset]),
        lambda: catalog.delete_dataset("digits"),
        lambda: catalog.delete_runtime("nvme"),
        lambda: catalog.set_head("digits", "main"),
    ]
    for change in changes:
        with pytest.raises(CatalogError, match="kubectl"):
            change()
    (mounted / "digits.json").unlink()
    assert catalog.names("Dataset") == []
    (mounted / "digits.json").write_text("kind: Dataset")
    with pytest.raises(ManifestError, match=r"digits\.json"):
        catalog.names("Dataset")
    with pytest.raises(CatalogError, match="cannot read"):
        MountedCatalog(tmp_path / "nowhere", tmp_path)


def test_commands_use_what_is_mounted(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOREBAY_MANIFESTS", str(mounted))
    assert run(["delete", "digits"]) == Exit.UNAVAILABLE
    assert "kubectl" in capsys.readouterr().err
