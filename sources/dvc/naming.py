"""Which repository, and which part of it, a `dvc://` URI means."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sources.errors import SourceConfigError
from sources.options import check_known
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources.locations import StoreId

_OPTIONS = ("remote", "remote_config", "repo", "rev", "url")


@dataclass(frozen=True)
class Repository:
    """A DVC repository as a source names it.

    Attributes:
        store: The store's id: `dvc://` for a repository on this machine, `dvc://<host>` for another.
        root: The part of each key that names the repository, ending in "/".
        url: What git reaches it by: a directory or a URL. It may carry a token, and so is in no `repr`.
        rev: Branch, tag or commit.
        remote: The DVC remote to read from; None is the repository's default one.
        remote_config: Options of that remote, in DVC's vocabulary; credentials among them.
    """

    store: StoreId
    root: str
    url: str = field(repr=False)
    rev: str
    remote: str | None
    remote_config: Mapping[str, object] = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the repository is a directory of this machine."""
        return os.path.isabs(self.url)

    @property
    def uri(self) -> str:
        """The repository as people write it, without credentials."""
        return f"{self.store.rstrip('/')}{'//' if self.store == 'dvc://' else ''}/{self.root.rstrip('/')}"


def parse_repository(uri: str, options: Mapping[str, object]) -> Repository:
    """Take a `dvc://` URI and its options apart.

    `dvc:///srv/project/data/images` lies in the repository of a local directory, by default the nearest one at or above
    the path that holds `.dvc`; `dvc://git.host/group/project.git/data/images` in the one that the first part ending in
    ".git" names, reached by `https://` if no `url` is given. The option `repo` says which part of the path is the
    repository where that is not so.

    Raises:
        SourceConfigError: If an option is unknown or of another type, or the repository cannot be told.
    """
    parts = split_uri(uri)
    check_known(uri, options, _OPTIONS)
    for name in ("remote", "repo", "rev", "url"):
        if not isinstance(options.get(name, ""), str):
            raise SourceConfigError(f"{uri}: option {name} is a string, found {type(options[name]).__name__}")
    remote_config = options.get("remote_config") or {}
    if not isinstance(remote_config, dict):
        raise SourceConfigError(f"{uri}: option remote_config is a mapping, found {type(remote_config).__name__}")
    root = _root(uri, parts.store, parts.key, str(options.get("repo", "")).strip("/"))
    host = parts.store.removeprefix("dvc://")
    return Repository(
        store=parts.store,
        root=f"{root}/",
        url=str(options.get("url") or (f"https://{host}/{root}" if host else f"/{root}")),
        rev=str(options.get("rev") or "HEAD"),
        remote=str(options["remote"]) if options.get("remote") else None,
        remote_config=remote_config,
    )


def _root(uri: str, store: StoreId, key: str, repo: str) -> str:
    if repo:
        if not f"{key}/".startswith(f"{repo}/"):
            raise SourceConfigError(f"{uri}: option repo names {repo!r}, but the URI's path does not start with it")
        return repo
    names = key.strip("/").split("/")
    if store != "dvc://":
        end = next((at + 1 for at, name in enumerate(names) if name.endswith(".git")), 0)
    else:
        above = range(len(names), 0, -1)
        end = next((at for at in above if os.path.isdir("/" + "/".join([*names[:at], ".dvc"]))), 0)
    if not end:
        raise SourceConfigError(f"{uri}: which part of the path is the repository? Say it with the option repo")
    return "/".join(names[:end])
