"""DVC projects in git repositories, read with dulwich: commits, and what DVC tracks in each."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds.errors import UsageError
from sources.dvc.porcelain import load_porcelain
from sources.locking import locked_file
from versioning.commits import format_time
from versioning.dvc import (
    MAX_FILE_BYTES,
    DvcFileError,
    GitCommit,
    Output,
    Pipeline,
    check_disjoint,
    parse_dvc_file,
    parse_lock,
    parse_pipeline,
    parse_remotes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_URL = re.compile(r"(https?|ssh|git|file)://[^-]|[\w.-]+@[\w.-]+:[^-]")
_MAX_DEPTH = 100
_CLONE_SECONDS = 3600  # another process may be cloning it
_INNER = (b".git", b".dvc")


class GitProject:
    """A git repository that holds a DVC project.

    Args:
        repository: Dulwich's.
        name: As people write it, for messages.
        directory: The working tree on this machine; "" without.
    """

    def __init__(self, repository: Any, name: str, directory: str = "") -> None:
        self._repository = repository
        self.name = name
        self.directory = directory
        self._trees: dict[tuple[bytes, str], tuple[Output, ...]] = {}
        self._roots: dict[bytes, dict[str, Output]] = {}

    @property
    def branches(self) -> dict[str, str]:
        """Id of the last commit of each branch, by name."""
        refs = self._repository.get_refs()
        own = {name[11:]: sha for name, sha in refs.items() if name.startswith(b"refs/heads/")}
        return {name.decode(errors="surrogateescape"): sha.decode() for name, sha in sorted(own.items())}

    @property
    def tags(self) -> dict[str, str]:
        """Id of each tag's commit, by name; tags of anything else are left out."""
        found: dict[str, str] = {}
        for name, sha in sorted(self._repository.get_refs().items()):
            if name.startswith(b"refs/tags/") and (commit := self._peeled(sha)) is not None:
                found[name[10:].decode(errors="surrogateescape")] = commit
        return found

    @property
    def default_branch(self) -> str | None:
        """The branch that is checked out, or that a clone would check out; None for a detached HEAD."""
        chain, _ = self._repository.refs.follow(b"HEAD")
        last: bytes = chain[-1]
        return last[11:].decode() if last.startswith(b"refs/heads/") else None

    def resolve(self, revision: str) -> str:
        """Return the commit that a branch, tag or id means.

        Raises:
            UsageError: If there is none.
        """
        named = self.branches.get(revision) or self.tags.get(revision)
        if named is not None:
            return named
        from dulwich.objectspec import parse_commit

        try:
            return str(parse_commit(self._repository, revision.encode()).id.decode())
        except (KeyError, ValueError) as error:
            raise UsageError(f"{self.name} has no revision {revision!r}") from error

    def commits(self, heads: Iterable[str]) -> Iterator[GitCommit]:
        """Yield some commits and all their ancestors, parents first.

        Raises:
            DvcFileError: If what one of them tracks cannot be used.
        """
        include = sorted({head.encode() for head in heads})
        if not include:
            return
        try:
            for entry in self._repository.get_walker(include=include, order="topo", reverse=True):
                yield self._commit(entry.commit)
        except KeyError as error:
            text = f"{self.name} lacks the git object {error}; fetch it whole (git fetch --unshallow, --refetch)"
            raise UsageError(text) from error

    def remotes(self, revision: str) -> tuple[dict[str, str], str | None]:
        """Return the URLs of a commit's DVC remotes by name, and the name of the default one."""
        data = self._blob_at(self._repository[revision.encode()].tree, ".dvc/config")
        return parse_remotes(data) if data is not None else ({}, None)

    def _commit(self, commit: Any) -> GitCommit:
        outputs = self._outputs(commit)
        return GitCommit(
            commit.id.decode(),
            tuple(parent.decode() for parent in self._repository.get_parents(commit.id, commit)),
            commit.author.decode(errors="replace"),
            commit.committer.decode(errors="replace"),
            _time(commit.author_time),
            _time(commit.commit_time),
            commit.message.decode(errors="replace"),
            outputs,
        )

    def _outputs(self, commit: Any) -> dict[str, Output]:
        if commit.tree not in self._roots:
            where = f"{self.name} at {commit.id.decode()[:12]}"
            with _naming(where):
                found = [*self._tracked(commit.tree, "", 0)]
                urls = tuple(self.remotes(commit.id.decode())[0].items()) if any(each.cloud for each in found) else ()
                found = [replace(each, urls=urls) if each.cloud else each for each in found]
            own = [each for each in found if not (each.is_made and self._is_file(commit.tree, each.path))]
            self._roots[commit.tree] = check_disjoint(own, file=where)
        return self._roots[commit.tree]

    def _tracked(self, tree: bytes, directory: str, depth: int) -> tuple[Output, ...]:
        """Return what the DVC files in and below a directory track; equal directories are read once."""
        if (tree, directory) in self._trees:
            return self._trees[tree, directory]
        if depth > _MAX_DEPTH:
            raise DvcFileError(directory, reason=f"more than {_MAX_DEPTH} directories deep")
        found: list[Output] = []
        items = {item.path: item for item in self._repository[tree].items()}
        for name, item in items.items():
            path = posixpath.join(directory, name.decode(errors="replace"))
            if stat.S_ISDIR(item.mode):
                found += self._tracked(item.sha, path, depth + 1) if name not in _INNER else ()
            elif stat.S_ISREG(item.mode) and name.endswith(b".dvc") and name != b".dvc":
                found += parse_dvc_file(self._blob(item.sha, path), path)
            elif stat.S_ISREG(item.mode) and name == b"dvc.lock":
                found += self._stages(item.sha, items.get(b"dvc.yaml"), path)
        self._trees[tree, directory] = tuple(found)
        return self._trees[tree, directory]

    def _stages(self, lock: bytes, definition: Any, path: str) -> tuple[Output, ...]:
        pipeline = Pipeline()
        if definition is not None:
            file = posixpath.join(posixpath.dirname(path), "dvc.yaml")
            pipeline = parse_pipeline(self._blob(definition.sha, file), file)
        return tuple(parse_lock(self._blob(lock, path), path, pipeline))

    def _blob(self, sha: bytes, path: str) -> bytes:
        blob = self._repository[sha]
        if blob.raw_length() > MAX_FILE_BYTES:
            raise DvcFileError(path, reason=f"it has {blob.raw_length()} bytes, more than {MAX_FILE_BYTES}")
        return bytes(blob.as_raw_string())

    def _blob_at(self, tree: Any, path: str) -> bytes | None:
        from dulwich.errors import NotTreeError
        from dulwich.object_store import tree_lookup_path

        try:
            mode, sha = tree_lookup_path(self._repository.__getitem__, tree, path.encode())
        except (KeyError, NotTreeError):
            return None
        return self._blob(sha, path) if stat.S_ISREG(mode) else None

    def _is_file(self, tree: bytes, path: str) -> bool:
        """Say whether git itself holds an output of a stage: DVC then keeps no copy."""
        return self._blob_at(tree, path) is not None

    def _peeled(self, sha: bytes) -> str | None:
        from dulwich.objects import Commit, Tag

        found = self._repository[sha]
        while isinstance(found, Tag):
            found = self._repository[found.object[1]]
        return found.id.decode() if isinstance(found, Commit) else None


@contextmanager
def open_project(place: str, clones: Path) -> Iterator[GitProject]:
    """Open a git repository: a directory of this machine, or a URL that is cloned, or fetched from again.

    Args:
        place: Path or URL.
        clones: Directory for bare clones.

    Raises:
        UsageError: If there is no git repository, or it cannot be reached.
    """
    try:
        porcelain = load_porcelain()
        from dulwich.errors import GitProtocolError, NotGitRepository
        from dulwich.repo import Repo
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise UsageError("reading git repositories needs dulwich: pip install 'forebay[dvc]'") from error
    try:
        if Path(place).exists():
            repository = Repo.discover(place)
        elif _URL.match(place):
            repository = _cloned(porcelain, Repo, place, clones)
        else:
            raise UsageError(f"{place} is neither a directory nor the URL of a git repository")
    except NotGitRepository as error:
        raise UsageError(f"{_shown(place)} is no git repository; name one that DVC is used in") from error
    except (GitProtocolError, HTTPError, OSError, porcelain.Error) as error:
        raise UsageError(f"cannot fetch {_shown(place)}: {type(error).__name__}; is the URL right?") from error
    local = "" if repository.bare else os.path.abspath(repository.path)
    with repository:
        yield GitProject(repository, _shown(place), local)


def _cloned(porcelain: Any, repo: Any, url: str, clones: Path) -> Any:
    directory = clones / hashlib.sha256(url.encode()).hexdigest()[:32]
    clones.mkdir(parents=True, exist_ok=True)
    with locked_file(directory.with_suffix(".lock"), seconds=_CLONE_SECONDS):
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=clones) as scratch:
                porcelain.clone(url, f"{scratch}/git", bare=True, errstream=io.BytesIO()).close()
                os.rename(f"{scratch}/git", directory)
        return _fetched(porcelain, repo(str(directory)), url)


def _fetched(porcelain: Any, repository: Any, url: str) -> Any:
    """Bring a clone up to date: it gets all branches, and loses those that are gone."""
    result = porcelain.fetch(repository, url, errstream=io.BytesIO(), outstream=io.StringIO())
    for name in [name for name in repository.get_refs() if name.startswith(b"refs/heads/")]:
        repository.refs.remove_if_equals(name, None)
    for name, sha in result.refs.items():
        if sha is not None and name.startswith((b"refs/heads/", b"refs/tags/")) and not name.endswith(b"^{}"):
            repository.refs[name] = sha
    return repository


def _shown(place: str) -> str:
    """Leave out a password or token."""
    return re.sub(r"://[^/@]*@", "://", place)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except DvcFileError as error:
        raise DvcFileError(f"{where}: {error.file}", reason=error.reason) from error


def _time(seconds: int) -> str:
    try:
        return format_time(datetime.fromtimestamp(seconds, UTC).replace(microsecond=0))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"a commit has the time {seconds}, which is none") from error
