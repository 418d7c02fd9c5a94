"""Secrets of manifests, and fields that only a cluster heeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller import Catalog, apply, open_dataset, parse_manifest
from dataset_controller.secrets import with_secret
from sources import SourceConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.weed import S3Server

MANIFEST = """
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: digits, namespace: ml, labels: {{team: vision}}}}
spec:
  sync: {{interval: 10m}}
  mounts:
    - {{name: a, uri: "s3://{bucket}/secret-mount/", path: a, secretRef: {{name: lake}}}}
  repo: {{uri: "s3://{bucket}/secret-repo/", secretRef: {{name: lake}}}}
"""


def test_the_options_of_a_secret_open_a_store_and_are_written_nowhere(s3: S3Server, tmp_path: Path) -> None:
    from tests.conftest import BUCKET

    catalog = Catalog(tmp_path / "home")
    desired = parse_manifest(MANIFEST.format(bucket=BUCKET), source="test", variables={})
    with pytest.raises(SourceConfigError, match=r"secret 'lake' is not there: .*secrets/lake"):
        apply(catalog, desired)
    assert catalog.names("Dataset") == []

    secret = catalog.secrets / "lake"
    secret.mkdir(parents=True)
    for name, value in s3.options.items():
        (secret / name).write_text(f"{value}\n")
    (applied,) = apply(catalog, desired)
    assert applied.without_effect == ("spec.sync",)
    opened = open_dataset(catalog, "digits")
    assert list(opened.stores["a"].list("secret-mount/")) == []
    assert opened.resource.spec.repo.options == {}
    assert s3.secret.encode() not in (tmp_path / "home" / "catalog.lmdb").read_bytes()


def test_what_a_secret_holds_goes_before_what_is_declared(tmp_path: Path) -> None:
    from dataset_controller.fields import Reference

    declared: dict[str, Any] = {"key": "public", "profile": "p"}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "key").write_text("hidden")
    (tmp_path / "s" / "..data").write_text("how Kubernetes swaps files")
    assert with_secret(declared, Reference(name="s"), tmp_path) == {"key": "hidden", "profile": "p"}
    assert with_secret(declared, None, tmp_path) == declared


def test_the_reason_why_a_secret_cannot_be_read_does_not_quote_it(tmp_path: Path) -> None:
    from dataset_controller.fields import Reference

    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "key").write_bytes(b"\xff\xfehidden")
    with pytest.raises(SourceConfigError, match="cannot be read") as raised:
        with_secret({}, Reference(name="s"), tmp_path)
    assert "hidden" not in str(raised.value)
