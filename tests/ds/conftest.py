from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from ds.application import run
from sources import Store, open_store
from tests.conftest import BUCKET
from tests.ds.said import Said
from tests.ds.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.weed import S3Server

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts:
    - {{name: images, uri: "s3://{bucket}/{prefix}raw", path: images}}
    - {{name: labels, uri: "file://{directory}/labels", path: labels}}
  repo: {{uri: "s3://{bucket}/{prefix}repo"}}
  cache: {{runtimeRef: {{name: local}}}}
  samples: {{key: stem}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 64Mi}}]
"""


@dataclass
class World:
    """A bucket with images, a directory with labels, a manifest over both, and `ds` to run on them."""

    directory: Path
    prefix: str
    server: S3Server
    capsys: pytest.CaptureFixture[str]

    @property
    def manifest(self) -> Path:
        return self.directory / "dataset.yaml"

    @property
    def bucket(self) -> Store:
        return open_store(f"s3://{BUCKET}/", self.server.options)

    def put_image(self, name: str, data: bytes) -> None:
        self.bucket.put(f"{self.prefix}raw/{name}", data)

    def ds(self, *arguments: str) -> Said:
        self.capsys.readouterr()
        code = run(list(arguments))
        captured = self.capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, *arguments: str) -> Said:
        said = self.ds(*arguments)
        assert said.code == 0, said
        return said

    def committed(self) -> World:
        """Apply, import and commit."""
        self.ok("apply", "-f", str(self.manifest))
        self.ok("import")
        self.ok("commit", "-m", "first")
        return self


@pytest.fixture(autouse=True)
def probes_do_not_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 server of the tests takes a second to settle each race, and each new repository would hold three."""
    monkeypatch.setattr("sources.probing._ROUNDS", 0)  # tests/sources/test_probing.py and the documents have them


@pytest.fixture
def world(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "ada@example.org")
    made = World(tmp_path, f"{secrets.token_hex(6)}/", s3, capsys)
    (tmp_path / "labels").mkdir()
    for number in range(12):
        made.put_image(f"{number % 3}/{number:02}.png", f"image {number}".encode() * (number + 1))
        (tmp_path / "labels" / f"{number:02}.json").write_text(json.dumps({"label": number % 3}))
    made.manifest.write_text(MANIFEST.format(bucket=BUCKET, prefix=made.prefix, directory=tmp_path))
    return made


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A dataset to write to, in memory: its many commits wait for no disk, and killed processes lose none of it."""
    with TemporaryDirectory(dir="/dev/shm") as directory:
        made = Shop.create(Path(directory))
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made
