"""What commits of this user are made with: trusted hooks, and a signature."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from versioning.errors import SigningError

if TYPE_CHECKING:
    from pathlib import Path

    from ds.settings import Settings
    from versioning import Repository


class TrustedHooks:
    """The hooks that this user lets run code: one small file for each digest, in `trusted-hooks` of the user's home.

    Args:
        home: Of the settings.
    """

    def __init__(self, home: Path) -> None:
        self._directory = home / "trusted-hooks"

    def has(self, digest: str) -> bool:
        """Say whether hooks with this digest may run code."""
        return bool(digest) and (self._directory / f"{digest}.json").is_file()

    def add(self, digest: str, *, repository: str) -> None:
        """Trust hooks from now on; the repository is noted for people."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        note = {"repository": repository, "trusted_at": datetime.now(UTC).isoformat(timespec="seconds")}
        (self._directory / f"{digest}.json").write_text(json.dumps(note) + "\n", encoding="utf-8")

    def remove(self, digest: str) -> bool:
        """Trust hooks no longer; say whether they were trusted."""
        had = self.has(digest)
        (self._directory / f"{digest}.json").unlink(missing_ok=True)
        return had


def conduct(repository: Repository, settings: Settings, *, directory: Path | None) -> None:
    """Let commits to a repository be made as the user's settings say.

    Args:
        repository: The repository.
        settings: The user's.
        directory: Where hooks run their commands: a working copy; None: a temporary one.
    """
    repository.gate.trusts = TrustedHooks(settings.home).has
    repository.gate.environment = settings.variables
    repository.gate.directory = directory
    if settings.signs:
        sign_with(repository, settings.signing_key)


def sign_with(repository: Repository, key: Path | None) -> None:
    """Sign every commit that this object makes.

    Raises:
        SigningError: If there is no key.
    """
    if key is None:
        raise SigningError("with which key? name its file with --key or FOREBAY_SIGNING_KEY")
    from versioning.signing import SshSigner

    repository.work.sign = SshSigner(key)
