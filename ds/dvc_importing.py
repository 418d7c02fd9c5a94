"""Importing the history of a DVC project into a dataset."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds.dvc_git import GitProject, open_project
from ds.errors import UsageError
from sources.dvc.objects import DVC_OBJECTS
from versioning import RefExistsError
from versioning.ancestry import is_ancestor
from versioning.dvc import DvcImporter, ImportCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataset_controller import OpenDataset
    from ds.dataset import Dataset
    from versioning import CommitId

_MOUNT = """\
dataset {dataset} does not say where DVC's objects lie; add this to the mounts of its manifest and apply it:
    - name: dvc
      uri: dvc://objects
      path: {path}
      options: {{places: [{places}]}}"""


@dataclass(frozen=True)
class DvcImportOptions:
    """What of a DVC project is imported, and where to.

    Attributes:
        rev: Branch, tag or commit; None: the default branch.
        everything: All branches and tags.
        to: Directory of the dataset; None: the path of the mount.
        branch: Name of the branch here, if one is imported; None: as in git.
        skip_missing: Leave out files whose bytes no place has.
        force: Let branches leave commits behind.
    """

    rev: str | None = None
    everything: bool = False
    to: str | None = None
    branch: str | None = None
    skip_missing: bool = False
    force: bool = False


@dataclass(frozen=True)
class DvcImported:
    """What an import brought: the branches and tags that it set, and counts."""

    branches: dict[str, CommitId]
    tags: dict[str, CommitId]
    counts: ImportCounts


def import_dvc(
    dataset: Dataset, place: str, options: DvcImportOptions, *, on_progress: Callable[[int], None] = lambda count: None
) -> DvcImported:
    """Repeat the history of a DVC project in a dataset: one commit for each that changes what DVC tracks.

    No byte of the files is read. Commits that were imported before are not made again; branches move when all commits
    are written.

    Args:
        dataset: Needs a mount of `dvc://objects`.
        place: A git repository: directory or URL.
        options: What, and where to.
        on_progress: Called with how many git commits were looked at.

    Raises:
        UsageError: If there is no git repository, revision or mount.
        DvcError: If the project is damaged, or its objects are missing.
        NotFastForwardError: If a branch has commits of its own; none was moved before it in the order of names.
        RefExistsError: If a tag is another commit here; no branch or tag was changed.
    """
    if options.everything and (options.rev or options.branch):
        raise UsageError("--all imports every branch and tag; leave out --rev and --branch")
    with open_project(place, dataset.settings.home / "dvc") as project:
        branches, tags = _wanted(project, options)
        importer = _importer(dataset, project, options, sorted({*branches.values(), *tags.values()}))
        main = options.branch or (next(iter(branches), None) if not options.everything else project.default_branch)
        if not importer.known() and main is not None:
            importer.base = dataset.repository.head(main)
        done = {}
        for number, commit in enumerate(project.commits([*branches.values(), *tags.values()]), start=1):
            done[commit.id] = importer.add(commit)
            on_progress(number)
    found = {name: at for name, sha in branches.items() if (at := done[sha]) is not None}
    tagged = {name: at for name, sha in tags.items() if (at := done[sha]) is not None}
    _set_refs(dataset, found, tagged, force=options.force)
    return DvcImported(found, tagged, importer.counts)


def _wanted(project: GitProject, options: DvcImportOptions) -> tuple[dict[str, str], dict[str, str]]:
    """Return branches and tags to set, as git commits."""
    branches, tags = project.branches, project.tags
    if options.everything:
        return branches, tags
    name = options.rev or project.default_branch
    if name is None:
        raise UsageError(f"{project.name} has no branch checked out; say which with --rev")
    at = project.resolve(name)
    if options.branch is None and name not in branches and name in tags:
        return {}, {name: at}
    if options.branch is None and name not in branches:
        raise UsageError(f"{name} is no branch or tag of {project.name}; name the branch here with --branch")
    return {options.branch or name: at}, {}


def _importer(dataset: Dataset, project: GitProject, options: DvcImportOptions, heads: list[str]) -> DvcImporter:
    opened = dataset.opened
    mount = next((each for each in opened.resource.spec.mounts if each.store == DVC_OBJECTS), None)
    if mount is None:
        raise UsageError(_suggested(dataset, project, heads, options.to))
    to = mount.path if options.to is None else options.to.strip("/")
    return DvcImporter(
        dataset.repository,
        opened.stores[mount.name],
        target=f"{to.rstrip('/')}/" if to else "",
        covers=lambda store, key: _covers(opened, store, key),
        skip_missing=options.skip_missing,
    )


def _covers(opened: OpenDataset, store: str, key: str) -> bool:
    return any(mount.store == store and key.startswith(mount.prefix) for mount in opened.resource.spec.mounts)


def _suggested(dataset: Dataset, project: GitProject, heads: list[str], to: str | None) -> str:
    """Write the mount that is missing, from what the project says of its default remote."""
    urls, default = project.remotes(heads[0]) if heads else ({}, None)
    url = urls.get(default or "", "")
    if url and "://" not in url:  # relative to the directory of the configuration
        url = f"file://{posixpath.normpath(posixpath.join(project.directory, '.dvc', url))}"
    cache = f"file://{posixpath.join(project.directory, '.dvc/cache')}" if project.directory else ""
    places = [json.dumps(place) for place in (cache, url) if place] or ['"s3://BUCKET/PREFIX"']
    path = f'"{(to or "").strip("/")}"'
    return _MOUNT.format(dataset=dataset.name, path=path, places=", ".join(places))


def _set_refs(dataset: Dataset, branches: dict[str, CommitId], tags: dict[str, CommitId], *, force: bool) -> None:
    repository = dataset.repository
    there = repository.tags()
    for name, at in tags.items():
        if there.get(name, at) != at:
            raise RefExistsError(name, what="tag")
    for name, at in branches.items():
        if force or not _has(dataset, name, at):
            repository.move_branch(name, at, author=dataset.author, force=force, action="dvc import")
    for name in sorted(set(tags) - set(there)):
        repository.create_tag(name, tags[name])


def _has(dataset: Dataset, name: str, at: CommitId) -> bool:
    """Say whether a branch has all of it already, perhaps with commits of its own on top."""
    head = dataset.repository.head(name)
    return head is not None and is_ancestor(dataset.repository.commits, at, head)
