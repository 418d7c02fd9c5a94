"""A dataset in directories, to write to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ds
from ds.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: ckpt}}
spec:
  repo: {{uri: "file://{directory}/repo"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 256Mi}}]
"""


@dataclass(frozen=True)
class Shop:
    """Where it lies, and the environment that it is found in."""

    directory: Path
    environment: dict[str, str]

    @classmethod
    def create(cls, directory: Path, **environment: str) -> Shop:
        (directory / "dataset.yaml").write_text(MANIFEST.format(directory=directory))
        home = {"FOREBAY_HOME": str(directory / "home"), "FOREBAY_AUTHOR": "ada@example.org"}
        shop = cls(directory, {**home, **environment})
        ds.apply(directory / "dataset.yaml", settings=shop.settings)
        return shop

    @property
    def settings(self) -> Settings:
        return Settings.of(self.environment)

    @property
    def dataset(self) -> ds.Dataset:
        return ds.Dataset("ckpt", settings=self.settings)

    def transaction(self, branch: str = "runs", message: str | None = None) -> ds.Transaction:
        return ds.transaction(f"ckpt@{branch}", message=message, settings=self.settings)

    def write(self, path: str, data: bytes, branch: str = "runs") -> None:
        with self.transaction(branch) as transaction, transaction.open(path) as file:
            file.write(data)

    def read(self, path: str, branch: str = "runs") -> bytes:
        with self.dataset.open(path, branch) as file:
            data: bytes = file.read()
        return data

    def paths(self, branch: str = "runs") -> list[str]:
        return [entry.path for entry in self.dataset.tree(branch).entries()]

    def waiting(self) -> list[Path]:
        """Everything in the outbox."""
        return list((self.directory / "home" / "outbox").glob("*/*/*"))
