"""A catalog that somebody else keeps: a directory of manifests, as a cluster mounts it into pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from dataset_controller.catalog import Catalog, Record
from dataset_controller.errors import CatalogError
from dataset_controller.manifests import parse_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_controller.model import Resource

_SUFFIXES = (".yaml", ".yml", ".json")


class MountedCatalog(Catalog):
    """The objects in the files of a directory, read anew when one of them changed. Datasets are on their synced branch.

    Args:
        manifests: The directory.
        home: Of this machine; only its secrets are used.

    Raises:
        CatalogError: If the directory cannot be read.
        ManifestError: If one of the files is wrong.
    """

    def __init__(self, manifests: Path, home: Path) -> None:
        self._manifests = manifests
        self._home = home
        self._seen: object = None
        self._resources: dict[tuple[str, str], Resource] = {}
        self._look()

    @property
    def secrets(self) -> Path:
        """Directory of the secrets that objects may name."""
        return self._home / "secrets"

    def find(self, kind: str, name: str) -> Record | None:
        """Look an object up."""
        self._look()
        found = self._resources.get((kind, name))
        return None if found is None else Record(found, 1)

    def names(self, kind: str) -> list[str]:
        """List the names of a kind, sorted."""
        self._look()
        return sorted(name for found, name in self._resources if found == kind)

    def head(self, dataset: str) -> str:
        """Return the branch that a dataset is on."""
        sync = self.dataset(dataset).spec.sync
        return sync.branch if sync is not None else "main"

    def put(self, resources: list[Resource]) -> None:
        """Refuse: see `CatalogError`."""
        self._refuse()

    def delete_dataset(self, name: str) -> None:
        """Refuse: see `CatalogError`."""
        self._refuse()

    def delete_runtime(self, name: str) -> None:
        """Refuse: see `CatalogError`."""
        self._refuse()

    def set_head(self, dataset: str, branch: str) -> None:
        """Refuse: see `CatalogError`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CatalogError(
            f"the datasets of this pod come from {self._manifests}, which the cluster keeps: change them with kubectl"
        )

    def _look(self) -> None:
        try:
            # what begins with a dot is how Kubernetes swaps all files at once
            files = sorted(
                file for file in self._manifests.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith(".")
            )
            seen = [(file, status.st_mtime_ns, status.st_ino) for file in files for status in [file.stat()]]
            if seen == self._seen:
                return
            texts = [(file, file.read_text(encoding="utf-8")) for file in files]
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(f"cannot read the manifests in {self._manifests}: {error}") from error
        parsed = [each for file, text in texts for each in parse_manifest(text, source=str(file), variables={})]
        self._resources = {(each.kind, each.metadata.name): each for each in parsed}
        self._seen = seen
