"""New working copies: of a declared dataset, of a repository, or around a directory that has none yet."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_controller import API_VERSION, CacheRuntime, Dataset, DatasetNotFoundError, parse_manifest
from dataset_controller.opening import open_repository_store
from ds.errors import UsageError
from ds.targets import Target
from ds.worktree.finding import MANIFEST, OWN_REPOSITORY, find_root, read_manifest, write_manifest
from versioning import Repository
from versioning.worktree import LOCAL, Head, Index, WorkingCopy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ds.settings import Settings

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Cloned:
    """A new working copy, nothing checked out yet.

    Attributes:
        root: Its directory.
        revision: What the source named; None: its branch.
    """

    root: Path
    revision: str | None = None


def clone(source: str, directory: Path | None, *, sparse: Sequence[str], settings: Settings) -> Cloned:
    """Make an empty working copy of a source.

    Args:
        source: A declared dataset, `ds://DATASET[@REVISION]`, a repository's URI, or a directory that holds one.
        directory: Where; by default named as the dataset, in the current directory.
        sparse: Patterns of what is to be checked out; none: everything.
        settings: Home, and variables of manifests.

    Raises:
        UsageError: If the directory is not empty, or the source is none of these.
    """
    resources, revision, name = _source(source, settings)
    root = Path(os.path.realpath(directory or Path(name)))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} is there already and not empty; name another directory")
    _require_outside(root)
    make(root, resources, Head(None, None, tuple(sparse)))
    return Cloned(root, revision)


def init(place: str, settings: Settings) -> tuple[str, Path | None]:
    """Create a repository; around a directory also a working copy, whose files are all untracked yet.

    Args:
        place: A directory, created if it is missing, or the URI of a repository without a working copy.
        settings: Variables of manifests.

    Returns:
        Where the repository is, and the working copy if there is one.

    Raises:
        RepositoryExistsError: If there is one at this URI.
        UsageError: If the directory is a working copy.
    """
    if "://" in place:
        (dataset,) = _manifest("repository", place)
        return _create(dataset), None
    root = Path(os.path.realpath(place))
    if (root / MANIFEST).exists():
        raise UsageError(f"{root} is a working copy already")
    _require_outside(root)
    root.mkdir(parents=True, exist_ok=True)
    own = _manifest(_name_for(root.name), OWN_REPOSITORY.replace("${FOREBAY_WORKING_COPY}", str(root)))
    uri = _create(own[0])
    make(root, own, Head("main"), uri=OWN_REPOSITORY)
    return uri, root


def make(root: Path, resources: Sequence[Dataset | CacheRuntime], head: Head, *, uri: str | None = None) -> None:
    """Write the files of an empty working copy; the manifest last, which makes it one."""
    local = root / LOCAL
    local.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy = WorkingCopy(root)
    with copy.locked():
        copy.save(Index(head))
    if uri is not None:
        resources = [_with_uri(each, uri) if isinstance(each, Dataset) else each for each in resources]
    write_manifest(root, resources)


def _with_uri(dataset: Dataset, uri: str) -> Dataset:
    repo = dataset.spec.repo.model_construct(**{**dataset.spec.repo.model_dump(), "uri": uri})
    return dataset.model_copy(update={"spec": dataset.spec.model_copy(update={"repo": repo})})


def _create(dataset: Dataset) -> str:
    store = open_repository_store(dataset.spec.repo)
    return Repository.init(store, dataset.spec.repo.prefix).uri


def _source(text: str, settings: Settings) -> tuple[list[Dataset | CacheRuntime], str | None, str]:
    if "://" in text and not text.startswith("ds://"):
        name = _name_for(text.rstrip("/").rpartition("/")[2])
        return list(_manifest(name, text)), None, name
    directory = Path(text)
    is_path = text.startswith((".", "/", "~")) or "/" in text.removeprefix("ds://")
    if not text.startswith("ds://") and (is_path or (directory / "repo.json").exists()):
        return _from_directory(directory.expanduser(), settings)
    target = Target.parse(text)
    if target.path or target.dataset is None:
        raise UsageError(f"{text}: name a dataset, with @REVISION at most; a part of it is chosen by --sparse")
    try:
        return _declared(target.dataset, settings), target.revision, target.dataset
    except DatasetNotFoundError:
        if directory.is_dir():
            return _from_directory(directory, settings)
        raise


def _declared(name: str, settings: Settings) -> list[Dataset | CacheRuntime]:
    catalog = settings.catalog()
    dataset = catalog.dataset(name)
    runtime = catalog.runtime_of(dataset)
    return [dataset] if runtime is None else [dataset, runtime]


def _from_directory(directory: Path, settings: Settings) -> tuple[list[Dataset | CacheRuntime], str | None, str]:
    root = Path(os.path.realpath(directory))
    if (root / "repo.json").is_file():
        name = _name_for(root.name)
        return list(_manifest(name, f"file://{root}")), None, name
    if (root / MANIFEST).is_file():
        dataset, runtime = read_manifest(root, settings.variables)
        return [dataset] if runtime is None else [dataset, runtime], None, f"{dataset.metadata.name}"
    raise UsageError(f"{directory} is neither a repository nor a working copy, nor a declared dataset")


def _manifest(name: str, uri: str) -> list[Dataset]:
    """Return the manifest of a dataset without mounts."""
    text = f"apiVersion: {API_VERSION}\nkind: Dataset\nmetadata: {{name: {name}}}\nspec: {{repo: {{uri: ''}}}}\n"
    (made,) = parse_manifest(text.replace("''", _quoted(uri)), source=uri, variables={})
    assert isinstance(made, Dataset)
    return [made]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name_for(text: str) -> str:
    """Make a dataset's name of a directory's."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return name if _NAME.fullmatch(name) else "dataset"


def _require_outside(root: Path) -> None:
    above = find_root(root if root.exists() else root.parent)
    if above is not None:
        raise UsageError(f"{root} lies in the working copy {above}; choose a directory outside of it")
