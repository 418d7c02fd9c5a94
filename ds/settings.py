"""What the environment says; nothing else in Forebay reads it."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache_runtime.peers import PeerSecurity
    from dataset_controller import Catalog


_YES = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Settings:
    """The user's surroundings.

    Attributes:
        home: Catalog and stages of this machine: `FOREBAY_HOME`, else `forebay` in the XDG data directory.
        author: Who commits: `FOREBAY_AUTHOR`, else user@host.
        variables: What `${NAME}` in a manifest may refer to: the whole environment.
        dataset: The dataset meant when a command names none: `FOREBAY_DATASET`, else the only one there is.
        worker_token: What workers are shown, and what a worker asks for: `FOREBAY_WORKER_TOKEN`.
        worker_token_file: The same from a file, read again when it changes: `FOREBAY_WORKER_TOKEN_FILE`. It goes before
            `worker_token`, and both go before the file that a cache runtime names.
        worker_name: Name of the worker of this machine: `FOREBAY_WORKER_NAME`, else the host's.
        worker_url: Where other machines reach it: `FOREBAY_WORKER_URL`.
        node_cache: Directory for decoded tree nodes: `FOREBAY_NODE_CACHE`, else `nodes` in `FOREBAY_HOME` if that is
            given, else `forebay/nodes` in the XDG cache directory. None, for `off`: none are kept.
        signing_key: SSH key that commits are signed with: `FOREBAY_SIGNING_KEY`.
        signs: Whether every commit is signed: `FOREBAY_SIGN`, 1 or 0; a single one is by `ds commit --sign`.
        allowed_signers: Whose keys are whose: `FOREBAY_ALLOWED_SIGNERS`, else `allowed_signers` in `FOREBAY_HOME`.
        manifests: Directory of the manifests that there are, instead of those applied on this machine:
            `FOREBAY_MANIFESTS`, as in the pods of a cluster.
        image: Of the pods that the controller makes: `FOREBAY_IMAGE`, else `forebay`.
    """

    home: Path
    author: str
    dataset: str | None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    worker_token: str | None = field(default=None, repr=False)
    worker_token_file: str | None = None
    worker_name: str = ""
    worker_url: str | None = None
    node_cache: Path | None = None
    signing_key: Path | None = None
    signs: bool = False
    allowed_signers: Path | None = None
    manifests: Path | None = None
    image: str = "forebay"

    def catalog(self) -> Catalog:
        """Open what datasets and caches there are.

        Raises:
            CatalogError: If it cannot be used.
            ManifestError: If it is a directory of manifests, and one of them is wrong.
        """
        if self.manifests is None:
            from dataset_controller import Catalog

            return Catalog(self.home)
        from dataset_controller.mounted import MountedCatalog

        return MountedCatalog(self.manifests, self.home)

    @property
    def secrets(self) -> Path:
        """Directory of the secrets that manifests may name."""
        return self.home / "secrets"

    @property
    def access(self) -> PeerSecurity:
        """What the environment says to show to workers."""
        from cache_runtime.peers import PeerSecurity  # it brings TLS

        return PeerSecurity(token=self.worker_token, token_file=self.worker_token_file)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables above."""
        data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        home = environment.get("FOREBAY_HOME") or os.path.join(data, "forebay")
        return cls(
            home=Path(os.path.expanduser(home)).absolute(),
            author=environment.get("FOREBAY_AUTHOR") or f"{_user()}@{os.uname().nodename}",
            dataset=environment.get("FOREBAY_DATASET") or None,
            variables=environment,
            worker_token=environment.get("FOREBAY_WORKER_TOKEN") or None,
            worker_token_file=environment.get("FOREBAY_WORKER_TOKEN_FILE") or None,
            worker_name=environment.get("FOREBAY_WORKER_NAME") or os.uname().nodename,
            worker_url=environment.get("FOREBAY_WORKER_URL") or None,
            node_cache=_node_cache(environment),
            signing_key=_file(environment.get("FOREBAY_SIGNING_KEY")),
            signs=environment.get("FOREBAY_SIGN", "").lower() in _YES,
            allowed_signers=_allowed_signers(environment.get("FOREBAY_ALLOWED_SIGNERS"), home),
            manifests=_file(environment.get("FOREBAY_MANIFESTS")),
            image=environment.get("FOREBAY_IMAGE") or "forebay",
        )


def _node_cache(environment: Mapping[str, str]) -> Path | None:
    place = environment.get("FOREBAY_NODE_CACHE")
    if place == "off":
        return None
    if not place and (home := environment.get("FOREBAY_HOME")):
        place = os.path.join(home, "nodes")
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(place or os.path.join(cache, "forebay", "nodes"))).absolute()


def _allowed_signers(place: str | None, home: str) -> Path | None:
    if place:
        return _file(place)
    found = Path(os.path.expanduser(home)).absolute() / "allowed_signers"
    return found if found.is_file() else None


def _file(place: str | None) -> Path | None:
    return Path(os.path.expanduser(place)).absolute() if place else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"uid{os.getuid()}"


def current_settings() -> Settings:
    """Read the settings of this process."""
    return Settings.of(os.environ)
