"""What a version was made from: inputs at full commit ids, the code, its parameters."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller import DatasetNotFoundError
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.targets import Target
from versioning import PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from versioning import CommitId

_GIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A version in the lineage of another one.

    Attributes:
        uri: `ds://NAME@<commit id>[/path]`, or whatever was written there.
        inputs: What it was made from.
        code: Git commit of what made it, and whether files were changed since; empty if nobody said.
        params: Parameters, as text.
        note: Why its own lineage is not shown; empty if it is.
    """

    uri: str
    inputs: tuple[Ancestor, ...] = ()
    code: Any = None
    params: Any = None
    note: str = ""

    def record(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return {
            "uri": self.uri,
            "code": self.code or None,
            "params": self.params or {},
            "inputs": [each.record() for each in self.inputs],
            **({"note": self.note} if self.note else {}),
        }


def make_lineage(
    current: Dataset,
    *,
    inputs: Sequence[str] = (),
    code_directory: Path | None = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the lineage that a commit is given; empty if nothing was said.

    Args:
        current: The dataset that is committed to.
        inputs: `ds://[NAME]@REV[/path]`; each revision is resolved now.
        code_directory: Lies in the git repository of the code.
        params: Parameters of the run.

    Raises:
        UsageError: If an input is of another form, or the directory lies in no git repository with a commit.
        PathNotFoundError: If a version has no such path.
        DatasetNotFoundError, RevisionNotFoundError: If there is no such version.
    """
    made: dict[str, Any] = {}
    if inputs:
        made["inputs"] = sorted({pinned_input(current, text) for text in inputs})
    if code_directory is not None:
        made["code"] = code_version(code_directory)
    if params:
        made["params"] = dict(params)
    return made


def pinned_input(current: Dataset, text: str) -> str:
    """Return an input with its revision replaced by the full commit id. Raises as `make_lineage`."""
    target = Target.parse(text)
    if not text.startswith("ds://") or (target.dataset is None and target.revision is None):
        raise UsageError(f"--input {text}: expected ds://NAME@REVISION[/PATH]")
    opened = _named(current, target.dataset)
    commit = opened.resolve(target.revision)
    path = target.path.rstrip("/")
    if path and not any(table.num_rows for table in opened.repository.tree_of(commit).scan_at(path, columns=["path"])):
        raise PathNotFoundError(path, where=f"{opened.name}@{commit[:8]}")
    return f"ds://{opened.name}@{commit}{f'/{path}' if path else ''}"


def code_version(directory: Path) -> dict[str, Any]:
    """Return the git commit that a directory is at, and whether files are changed since.

    Raises:
        UsageError: If there is no git, no repository, or no commit.
    """
    commit = _git(directory, "rev-parse", "--verify", "HEAD").strip()
    dirty = bool(_git(directory, "status", "--porcelain", "--untracked-files=no").strip())
    return {"git": commit, "dirty": dirty}


def lineage_of(opened: Dataset, commit: CommitId) -> Ancestor:
    """Return what a version was made from, and what that was made from, as far as this machine knows the datasets."""
    return _ancestor(opened, f"ds://{opened.name}@{commit}", {})


def _ancestor(current: Dataset, uri: str, seen: dict[str, None]) -> Ancestor:
    if uri in seen:
        return Ancestor(uri, note="shown above")
    seen[uri] = None
    try:
        target = Target.parse(uri)
        opened = _named(current, target.dataset)
        lineage = opened.repository.commit(opened.resolve(target.revision)).lineage
    except DatasetNotFoundError:
        return Ancestor(uri, note="this machine knows no such dataset")
    except _expected() as error:  # one input that cannot be looked at must not hide the others
        return Ancestor(uri, note=str(error))
    inputs = lineage.get("inputs")
    found = tuple(_ancestor(opened, str(each), seen) for each in inputs) if isinstance(inputs, list) else ()
    return Ancestor(uri, found, lineage.get("code"), lineage.get("params"))


def _named(current: Dataset, name: str | None) -> Dataset:
    return current if name is None or name == current.name else Dataset(name, settings=current.settings)


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--code: git cannot be asked for the version of {directory}: {error}") from error
    if done.returncode:
        raise UsageError(f"--code: {directory} is at no commit of a git repository; commit the code, or leave it out")
    return done.stdout


def _expected() -> tuple[type[Exception], ...]:
    from ds.exits import EXPECTED_ERRORS  # it names the errors of all packages, which takes a while

    return EXPECTED_ERRORS
