from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dataset_controller import CacheRuntime, Dataset, parse_manifest
from examples.digits.digits import write_rotated
from examples.digits.serve import fill, sources
from sources import SwapObject, open_store
from tests.docs.forks import forked_ds
from tests.docs.markdown import ROOT, blocks, documents

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = ["README.md", "examples/digits/README.md", "docs/reference/repository-format.md"]
RUN += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs" / "guides").glob("*.md"))]
_DOCUMENT_SECONDS = 300
_CAN_MOUNT = os.geteuid() == 0 and os.path.exists("/dev/fuse")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The demonstration's S3 server and data; the environment in which its commands run."""
    directory = tmp_path_factory.mktemp("digits")
    before = dict(os.environ)
    with sources(directory) as server, forked_ds(directory / "forks") as programs:
        fill(server)
        write_rotated(directory / "rotated", 200)
        environment = {**os.environ, "ROTATED": str(directory / "rotated"), "PYTHONPATH": str(ROOT)}
        environment["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ.clear()
        os.environ.update(before)
        yield environment


@pytest.fixture(scope="module")
def runs(
    served: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The chosen documents, running: those that use the repository of the demonstration in turn, the others beside."""
    chosen = [document for document in RUN if any(f"[{document}]" in item.name for item in request.session.items)]
    with ThreadPoolExecutor(1) as in_bucket, ThreadPoolExecutor(1) as local:
        yield {
            document: (in_bucket if "digits/dataset.yaml" in (ROOT / document).read_text() else local).submit(
                run, document, served, tmp_path_factory.mktemp(Path(document).stem)
            )
            for document in chosen
        }


def run(document: str, served: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a document with a home, a cache, a repository and a directory that no other one has used."""
    if "digits/dataset.yaml" in (ROOT / document).read_text():
        empty_repository(served)
    work = directory / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    own = {"FOREBAY_HOME": str(directory / "home"), "DIGITS_CACHE": str(directory / "cache"), "PWD": str(work)}
    own |= {"DVC_NO_ANALYTICS": "true", "DVC_SITE_CACHE_DIR": str(directory / "dvc")}
    try:
        return subprocess.run(
            [sys.executable, "-m", "tests.docs.session", str(ROOT / document)],
            cwd=work,
            env={**served, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_DOCUMENT_SECONDS,
        )
    finally:
        if os.path.ismount(work / "mnt"):  # docs/guides/mounting.md broke off
            subprocess.run(["umount", "-l", work / "mnt"], check=False, timeout=60)


def empty_repository(served: dict[str, str]) -> None:
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "endpoint_url": "AWS_ENDPOINT_URL"}
    store = open_store("s3://digits/repo", {option: served[name] for option, name in names.items()})
    for stat in list(store.list("repo/")):
        store.delete(stat.key)


@pytest.mark.timeout(3 * _DOCUMENT_SECONDS)
@pytest.mark.parametrize("document", RUN)
def test_the_code_of_a_document_runs(document: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    if document == "docs/guides/mounting.md" and not _CAN_MOUNT:
        pytest.skip("NOT TESTED: mounting takes root and /dev/fuse")
    done = runs[document].result(2 * _DOCUMENT_SECONDS)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]


VARIABLES = {"PWD": "/work", "DIGITS_NFS": "/mnt", "DIGITS_CACHE": "/cache"}


def manifests() -> Iterator[tuple[str, list[Dataset | CacheRuntime]]]:
    for document in documents():
        for block in blocks(document):
            if block.language == "yaml" and "kind:" in block.code:
                source = f"{document.name}:{block.line}"
                yield source, list(parse_manifest(block.code, source=source, variables=VARIABLES))


def test_every_manifest_in_a_document_is_one() -> None:
    found = list(manifests())
    assert found
    assert all(resources for _, resources in found)


def test_every_source_in_a_document_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = tmp_path / "aws-config"
    profiles.write_text("[profile training]\n[profile inventory]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profiles))
    for source, resources in manifests():
        for dataset in (resource for resource in resources if isinstance(resource, Dataset)):
            places = [*dataset.spec.mounts, dataset.spec.repo]
            opened = [open_store(place.uri, place.options, limits=place.store_limits) for place in places]
            assert isinstance(opened[-1], SwapObject), f"{source}: this store cannot hold a repository"
            for mount in dataset.spec.mounts:
                if mount.inventory is not None:
                    open_store(mount.inventory.uri, mount.inventory.options or mount.options)
