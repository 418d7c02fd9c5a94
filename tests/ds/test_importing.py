"""Imports that are interrupted, run twice at a time, or find another manifest than they began with."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller import EmptySourceError
from ds.dataset import Dataset
from sources import SourceAuthError, SourceUnavailableError
from sources.listing import journal as journals
from tests.conftest import BUCKET
from tests.services.faults import FaultProxy, fault_proxy
from versioning import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ds.conftest import World

DS = str(Path(sys.executable).with_name("ds"))
MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts:
    - {{name: images, uri: "s3://{bucket}/{prefix}raw", path: images, options: {options}}}
    - {{name: labels, uri: "file://{directory}/labels", path: labels}}
  repo: {{uri: "file://{directory}/repo"}}
"""


@pytest.fixture
def proxy(world: World) -> Iterator[FaultProxy]:
    """What the bucket with the images is read through."""
    with fault_proxy(int(world.server.endpoint.rpartition(":")[2])) as running:
        apply(world, endpoint_url=running.url)
        yield running


def apply(world: World, **options: object) -> None:
    text = "{" + ", ".join(f'{name}: "{value}"' for name, value in options.items()) + "}"
    world.manifest.write_text(
        MANIFEST.format(bucket=BUCKET, prefix=world.prefix, directory=world.directory, options=text)
    )
    world.ok("apply", "-f", str(world.manifest))


def begun(proxy: FaultProxy) -> subprocess.Popen[str]:
    """Start an import whose first request of the bucket hangs."""
    proxy.faults.hang = True
    before = proxy.counts.requests
    process = subprocess.Popen([DS, "import"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while proxy.counts.requests == before:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def journals_of(world: World) -> list[Path]:
    return list((world.directory / "home" / "listings").rglob("*.journal*"))


def imported(world: World) -> dict[str, Any]:
    """Import and return the staged paths with their versions."""
    world.ok("import")
    rows = Dataset("pets").stage().read().changes.upserts.to_pylist()
    return {row["path"]: row["version"] for row in rows}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_import_that_was_ended_is_gone_on_with(world: World, proxy: FaultProxy, how: signal.Signals) -> None:
    process = begun(proxy)
    process.send_signal(how)
    said = process.communicate(timeout=30)[1]
    assert process.returncode in (130, -how)
    assert "Traceback" not in said
    proxy.heal()
    assert "going on with the import that was interrupted" in world.ok("import").err
    assert len(imported(world)) == 24
    assert not journals_of(world)


def test_a_second_import_is_refused_and_the_first_one_ends_well(world: World, proxy: FaultProxy) -> None:
    process = begun(proxy)
    try:
        for arguments in (["import"], ["import", "--restart"]):
            said = world.ds(*arguments)
            assert (said.code, "is running already" in said.err) == (4, True)
            assert "going on" not in said.err
        proxy.heal()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert len(imported(world)) == 24


def test_a_journal_is_not_used_for_another_server_or_kind_of_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(world, endpoint_url=world.server.endpoint)
    interrupted_after(world, monkeypatch, "images")
    assert journals_of(world)
    with fault_proxy(int(world.server.endpoint.rpartition(":")[2])) as other:
        apply(world, endpoint_url=other.url)
        assert len(imported(world)) == 24
        assert other.counts.requests


def test_renewed_credentials_go_on_with_the_journal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_proxy(int(world.server.endpoint.rpartition(":")[2])) as proxy:
        apply(world, endpoint_url=proxy.url)
        interrupted_after(world, monkeypatch, "images")
        assert journals_of(world)
        apply(world, endpoint_url=proxy.url, key=world.server.key, secret=world.server.secret)
        before = proxy.counts.requests
        assert len(imported(world)) == 24
        assert proxy.counts.requests == before


@pytest.mark.parametrize(
    ("error", "is_gone_on_with"),
    [
        (SourceUnavailableError("away"), True),
        (SourceAuthError("expired"), True),
        (EmptySourceError("images", "s3://bucket/raw", "images/"), False),
        (InvalidNameError("..", what="path", reason="no"), False),
    ],
)
def test_only_a_listing_that_broke_off_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, is_gone_on_with: bool
) -> None:
    apply(world, endpoint_url=world.server.endpoint)
    interrupted_after(world, monkeypatch, "images", error)
    assert (Dataset("pets").import_interrupted_at() is not None) == is_gone_on_with
    assert ("going on" in world.ok("import").err) == is_gone_on_with
    assert len(imported(world)) == 24


def test_a_source_that_was_empty_is_looked_at_again(world: World) -> None:
    apply(world, endpoint_url=world.server.endpoint)
    world.ok("import")
    world.ok("commit", "-m", "first")
    for stat in list(world.bucket.list(f"{world.prefix}raw/")):
        world.bucket.delete(stat.key)
    assert "lists nothing" in world.ds("import").err
    world.put_image("back.png", b"back")
    assert "going on" not in world.ok("import").err
    assert list(imported(world)) == ["images/back.png"]


def interrupted_after(
    world: World, monkeypatch: pytest.MonkeyPatch, mount: str, error: BaseException | None = None
) -> None:
    """Import, and raise this error, or press Ctrl-C, when the listing of a mount is complete."""
    made = journals.Journal.close

    def interrupt(self: journals.Journal) -> None:
        made(self)
        if self._path.name.startswith(mount):
            raise error or KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(journals.Journal, "close", interrupt)
        world.ds("import")


def test_a_dataset_without_mounts_has_nothing_to_import(world: World) -> None:
    manifest = world.directory / "written.yaml"
    repo = world.directory / "written"
    manifest.write_text(
        "apiVersion: forebay.dev/v1alpha1\nkind: Dataset\nmetadata: {name: written}\n"
        f'spec: {{repo: {{uri: "file://{repo}"}}}}\n'
    )
    (world.directory / "note.txt").write_text("note")
    world.ok("apply", "-f", str(manifest))
    world.ok("add", "-d", "written", str(world.directory / "note.txt"))
    world.ok("commit", "-d", "written", "-m", "note")
    world.ok("rm", "-d", "written", "note.txt")
    assert "nothing changed" in world.ok("import", "-d", "written").out
    assert "D  note.txt" in world.ds("status", "-d", "written").out
