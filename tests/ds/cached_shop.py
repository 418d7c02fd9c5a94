"""A dataset in directories, with a cache and, if wanted, workers; and `ds` to run on it."""

from __future__ import annotations

import os
import random
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ds.application import run
from tests.ds.said import Said
from tests.services.processes import free_port, listens, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tests.services.processes import Process

TOKEN = "a-token-of-enough-characters"
MIB = 1 << 20
MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts: [{{name: raw, uri: "file://{directory}/raw", path: ""}}]
  repo: {{uri: "file://{directory}/repo"}}
  cache: {{runtimeRef: {{name: local}}{cache}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{node}/cache", capacity: {capacity}}}]
{workers}
"""


@dataclass
class CachedShop:
    """Twelve small files, one of 9 MiB; committed on main."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]
    capacity: str = "128Mi"
    cache: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    def create(self) -> CachedShop:
        draw = random.Random(7)
        for number in range(12):
            path = self.directory / "raw" / "small" / f"{number:02}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw.randbytes(20_000))
        (self.directory / "raw" / "big.bin").write_bytes(draw.randbytes(9 * MIB))
        self.monkeypatch.setenv("FOREBAY_AUTHOR", "ada@example.org")
        self.apply("here")
        self.ok("import")
        self.ok("commit", "-m", "first")
        return self

    def apply(self, node: str) -> None:
        """Apply the manifest as on a machine of this name, and go on as there."""
        home = self.directory / node
        home.mkdir(exist_ok=True)
        self.monkeypatch.setenv("FOREBAY_HOME", str(home / "home"))
        manifest = home / "dataset.yaml"
        manifest.write_text(
            MANIFEST.format(
                directory=self.directory, node=home, capacity=self.capacity, cache=self.cache, workers=self._workers()
            )
        )
        self.ok("apply", "-f", str(manifest))

    def _workers(self) -> str:
        rows = [f'{{name: {name}, url: "http://127.0.0.1:{port}"}}' for name, port in self.ports.items()]
        return f"  workers: {{members: [{', '.join(rows)}]}}" if rows else ""

    def ds(self, *arguments: str) -> Said:
        self.capfd.readouterr()
        code = run(list(arguments))
        captured = self.capfd.readouterr()
        return Said(code, captured.out, captured.err)

    def ok(self, *arguments: str) -> Said:
        said = self.ds(*arguments)
        assert said.code == 0, said
        return said

    def commit_change(self, path: str, data: bytes) -> None:
        (self.directory / "raw" / path).write_bytes(data)
        self.ok("import")
        self.ok("commit", "-m", f"changed {path}")

    @contextmanager
    def worker(self, name: str, *options: str, token: str = TOKEN) -> Iterator[Process]:
        """Run `ds worker` as on a machine of this name, which has applied the same manifest."""
        home = os.environ["FOREBAY_HOME"]
        self.apply(name)
        environment = {**os.environ, "FOREBAY_WORKER_TOKEN": token}
        self.monkeypatch.setenv("FOREBAY_HOME", home)
        port = self.ports.get(name) or free_port()
        command = [os.fspath(Path(sys.executable).parent / "ds"), "worker", "--listen", f"127.0.0.1:{port}", *options]
        log = self.directory / f"{name}.log"
        with started(command, log=log, ready=lambda _: listens(port), env=environment, grace_seconds=10) as process:
            yield process
