"""Journals that outlive the pod that wrote them: kept beside the repository while an operation runs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sources import SourceError, SourceNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_controller.operations import Operation
    from sources import ObjectStat
    from versioning import Repository

_log = logging.getLogger(__name__)
_SAVE_SECONDS = 5.0
_SUFFIX = ".journal"


class KeptJournals:
    """The journals of one operation, in a directory and in the repository's store.

    Args:
        repository: In whose store they are kept, out of sight of versions.
        operation: Whose they are.
        directory: Of this machine.
    """

    def __init__(self, repository: Repository, operation: Operation, directory: Path) -> None:
        self._store = repository.store
        name = f"{operation.kind.lower()}-{operation.metadata.name}"
        self._prefix = f"{repository.prefix}operations/{name}/"
        self.directory = directory / name
        self._saved: dict[str, int] = {}
        self._saved_at = float("-inf")

    def fetch(self) -> None:
        """Bring what an earlier run left.

        Raises:
            SourceError: If the store fails.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for found in self._kept():
            name = found.key.removeprefix(self._prefix)
            if name.endswith(_SUFFIX) and "/" not in name and not (self.directory / name).exists():
                try:
                    data, _ = self._store.fetch(found.key)
                except SourceNotFoundError:
                    continue
                (self.directory / name).write_bytes(data)
                self._saved[name] = len(data)

    def save(self, *, at_once: bool = False) -> None:
        """Keep what is there now, every few seconds; one that cannot be kept costs time later, and no more."""
        if not at_once and time.monotonic() - self._saved_at < _SAVE_SECONDS:
            return
        try:
            for file in self.directory.glob(f"*{_SUFFIX}"):
                data = file.read_bytes()  # appended to: whole records, perhaps a torn one, which is left out later
                if self._saved.get(file.name) != len(data):
                    self._store.put(self._prefix + file.name, data)
                    self._saved[file.name] = len(data)
        except (SourceError, OSError) as error:
            _log.warning("journal not kept, tried again reason=%s", error)
        self._saved_at = time.monotonic()

    def forget(self) -> None:
        """Delete what was kept: the operation ended."""
        try:
            for found in self._kept():
                self._store.delete(found.key)
        except SourceError as error:
            _log.warning("journal not deleted reason=%s", error)

    def _kept(self) -> list[ObjectStat]:
        try:
            return list(self._store.list(self._prefix))
        except SourceNotFoundError:  # a directory that nobody made yet
            return []
