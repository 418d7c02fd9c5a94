"""A dataset in Python: each command of the command line is a method here."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import cache_runtime
import dataset_controller
import loaders
import versioning
from ds.conduct import conduct
from ds.errors import ObjectChangedError, UsageError
from ds.settings import Settings, current_settings
from sources import SourceChangedError
from sources.lazy import LazyModule
from versioning import NodeFiles, NothingToCommitError, RevisionNotFoundError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from cache_runtime import CachedFileSystem, Client, LoadPlan, LoadProgress, LoadReport
    from dataset_controller import Applied, OpenDataset
    from ds.importing import Importer
    from ds.loading import LoadOptions, PlannedLoad
    from ds.version_files import VersionFiles
    from loaders import (
        KeyRule,
        PackOptions,
        PackPlan,
        PackProgress,
        PackReport,
        SampleIndex,
        ShardDataset,
        ShardLayout,
    )
    from loaders.decoding import DecodeOption
    from versioning import AddProgress, ChangeSet, CommitId, Diff, MergeOptions, MergeResult, Repository, Staged, Tree

loading: Any = LazyModule("ds.loading")
merging: Any = LazyModule("ds.merging")


def apply(path: str | os.PathLike[str], *, settings: Settings | None = None) -> list[Applied]:
    """Make the objects of a YAML file true on this machine: repositories and cache directories exist, sources answer.

    Raises:
        ManifestError: If the file is wrong; the message names the line and the field.
        SourceError, VersioningError, CacheError: If something it names cannot be used; nothing was recorded then.
    """
    from dataset_controller.manifests import parse_objects  # these take a while, and only this needs them
    from dataset_controller.model import Resource

    settings = settings or current_settings()
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise dataset_controller.ManifestError(f"cannot read the file: {error}", source=str(file)) from error
    variables = settings.variables
    objects = parse_objects(text, source=str(file), variables=variables)
    operations = [each for each in objects if not isinstance(each, Resource)]
    applied = dataset_controller.apply(settings.catalog(), [each for each in objects if isinstance(each, Resource)])
    if not operations:
        return applied
    from ds.operations.local import apply_operations

    return [*applied, *apply_operations(operations, settings)]


class Dataset:
    """An applied dataset.

    Methods that take a `revision` accept a branch, tag, commit id or its unique prefix, with `~n` and `^n`, and
    `branch@{n}` or `branch@{date}`; None is the branch the dataset is on.

    Args:
        name: As in its manifest.
        settings: Home and author; by default from the environment.

    Attributes:
        name: As in its manifest.
        opened: Its parts: manifest, stores, repository, cache.

    Raises:
        DatasetNotFoundError: If it was not applied on this machine.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        self.name = name
        self._settings = settings or current_settings()
        self._catalog = self._settings.catalog()
        self.opened: OpenDataset = dataset_controller.open_dataset(self._catalog, name, self._settings.access)

    @cached_property
    def repository(self) -> Repository:
        """The repository, for all that has no method here."""
        found = self._open_repository()
        conduct(found, self._settings, directory=self._directory)
        if self._settings.node_cache is not None:
            found.nodes.files = NodeFiles(self._settings.node_cache)
        return found

    def _open_repository(self) -> Repository:
        return self.opened.repository

    @property
    def _directory(self) -> Path | None:
        """Where hooks run."""
        return None

    @property
    def client(self) -> Client:
        """Reads through this node's cache."""
        return self.opened.client

    @property
    def branch(self) -> str:
        """The branch that the dataset is on."""
        return self._catalog.head(self.name)

    @property
    def branch_name(self) -> str | None:
        """The branch as it is shown; None in a working copy that is on none."""
        return self.branch

    def path(self, text: str | os.PathLike[str]) -> str:
        """Return the path in the dataset that a path of the command line means; "" is all of it."""
        return os.fspath(text).strip("/")

    @property
    def author(self) -> str:
        """Who commits, unless a call says otherwise."""
        return self._settings.author

    @property
    def settings(self) -> Settings:
        """The user's surroundings."""
        return self._settings

    def head(self) -> CommitId | None:
        """Return the last commit of the branch the dataset is on; None before the first."""
        return self.repository.head(self.branch)

    def resolve(self, revision: str | None) -> CommitId:
        """Return the commit that a revision means now.

        Raises:
            RevisionNotFoundError: If it names none.
        """
        if revision is None or revision == "HEAD" or revision.startswith(("HEAD~", "HEAD^", "HEAD@{")):
            revision = self.branch + (revision or "")[4:]
        elif revision.startswith("@{"):
            revision = self.branch + revision
        try:
            return self.repository.resolve(revision)
        except RevisionNotFoundError as error:
            if self.repository.branches():
                raise
            raise RevisionNotFoundError(
                revision, detail="nothing was committed yet: ds import, then ds commit"
            ) from error

    @contextmanager
    def naming_commit(self, commit: CommitId) -> Iterator[None]:
        """Let an error about a changed source object name the commit that pins it.

        Raises:
            ObjectChangedError: In the place of SourceChangedError.
        """
        try:
            yield
        except SourceChangedError as error:
            raise ObjectChangedError(commit, str(error)) from error

    def tree(self, revision: str | None = None) -> Tree:
        """Return the files of a version."""
        return self.repository.tree_of(self.resolve(revision))

    def stage(self) -> Stage:
        """Return what is staged for the branch the dataset is on; nothing, if another repository has its place now."""
        return Stage(self._state("stages") / f"{quote(self.branch, safe='')}.parquet")

    def import_interrupted_at(self) -> datetime | None:
        """Say when an import broke off that `import_sources` would continue; None: there is none, or it still runs."""
        return self._importer.interrupted_at()

    def import_sources(
        self,
        *,
        restart: bool = False,
        on_progress: Callable[[str, int], None] = lambda mount, count: None,
        on_excluded: Callable[[str, int], None] = lambda mount, count: None,
    ) -> ChangeSet:
        """List the sources and stage what differs from the branch; no file is read or copied.

        What an earlier import staged is replaced; files that were added or removed by hand stay staged, on the commit
        that they were staged on. An import that was interrupted less than a day ago goes on where it stopped.

        Args:
            restart: List everything anew, even if an import was interrupted.
            on_progress: Called with a mount's name and how many of its objects were listed.
            on_excluded: Called with a mount's name and how many of its objects `exclude` left out.

        Raises:
            ImportRunningError: If another process imports this dataset.
            PathClashError: If a mount lists a path and others below it; nothing was staged.
        """
        return self._importer.run(
            self.stage(), branch=self.branch, restart=restart, on_progress=on_progress, on_excluded=on_excluded
        )

    @property
    def _importer(self) -> Importer:
        from ds.importing import Importer  # as the other modules below: most commands need one of them at most

        return Importer(self.name, self.opened, journals=self._state("listings"))

    def _state(self, kind: str) -> Path:
        """Return the directory for what this machine remembers of the dataset in its present repository."""
        return self._settings.home / kind / self.name / self.repository.spec.id

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        to: str = "",
        on_progress: Callable[[AddProgress], None] | None = None,
    ) -> ChangeSet:
        """Copy local files and directories into the repository and stage them below `to`.

        Raises:
            UnreadableFileError: If a file cannot be read; nothing was staged.
            UsageError: If two files would have one path; nothing was staged.
        """
        from ds.local_files import local_files
        from versioning.maintenance import leased

        files = sorted(local_files(paths, to=to))
        for (path, first), (other, second) in itertools.pairwise(files):
            if path == other:
                raise UsageError(f"{first} and {second} would both be {path}; add them one by one with --to")
        with leased(self.repository.store, self.repository.prefix, f"ds add of {self.author}"):
            changes = versioning.add_files(self.repository, files, on_progress=on_progress)
        self.stage().update(changes, base=self.head())
        return changes

    def add_objects(self, uri: str, *, to: str = "") -> ChangeSet:
        """Stage an object of a source, or all below a directory of it, pinned as they are now; no byte is read.

        Args:
            uri: Below one of the mounts: only those can be read later.
            to: Directory of the dataset that they go into. A directory's objects keep their paths relative to it.

        Raises:
            UsageError: If no mount covers the URI, or nothing is there.
        """
        from ds.objects import changes_of_objects

        changes = changes_of_objects(self.opened, uri, to=to)
        self.stage().update(changes, base=self.head())
        return changes

    def move(self, source: str, target: str) -> ChangeSet:
        """Stage that a file, or all files below a directory, have another path; no byte is read.

        Raises:
            PathNotFoundError: If nothing is there; nothing was staged.
            UsageError: If something has the new path already; nothing was staged.
        """
        from ds.selecting import plan_move

        head, stage = self.head(), self.stage()
        changes = plan_move(source, target, tree=self._tree_at(head), staged=stage.read().changes)
        stage.update(changes, base=head)
        return changes

    def follow(self) -> None:
        """Let the files of a working copy be those of the branch's head, after others moved it; else do nothing."""

    def require_room(self, changes: Callable[[], ChangeSet]) -> None:
        """See that a working copy can take changes before its branch does; without one, do nothing.

        Args:
            changes: Returns what the branch's head is going to have that the checked-out commit has not.

        Raises:
            LocalChangesError: If files were changed here that would be overwritten.
        """

    def remove(self, paths: Iterable[str]) -> ChangeSet:
        """Stage the removal of files, or of all files below a directory.

        Raises:
            PathNotFoundError: If a path names neither; nothing was staged.
        """
        from ds.selecting import plan_removal

        head, stage = self.head(), self.stage()
        tree, staged = self._tree_at(head), stage.read().changes.upserts
        changes = plan_removal(paths, tree=tree, staged=staged, branch=self.branch)
        stage.update(changes, base=head)
        return changes

    def commit(
        self,
        message: str,
        *,
        author: str | None = None,
        meta: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Commit what is staged, and clear the stage.

        Args:
            message: What changed and why.
            author: Who commits.
            meta: Free JSON about the version.
            lineage: What it was made from; `ds.lineage.make_lineage` pins inputs.

        Raises:
            NothingToCommitError: If nothing is staged.
            ConflictError: If somebody else committed changes of the same paths since they were staged.
            HookRefusedError: If a hook of the branch refuses it; what is staged stays.
        """
        staged = self.stage().read()
        if not staged.changes:
            raise NothingToCommitError(self.branch)
        try:
            commit = self.repository.commit_changes(
                self.branch,
                staged.changes,
                message=message,
                author=author or self._settings.author,
                base=staged.base,
                meta=meta,
                lineage=lineage,
            )
        except NothingToCommitError:  # the branch has all of it already
            self._forget_committed(staged)
            raise
        self._forget_committed(staged, commit)
        return commit

    def _forget_committed(self, staged: Staged, commit: CommitId | None = None) -> None:
        """Take off the stage what the branch has now; None: it had it before."""
        del commit
        self.stage().clear(staged.token)

    def reset(self) -> ChangeSet:
        """Forget what is staged for the branch the dataset is on, and return what that was."""
        stage = self.stage()
        staged = stage.read()
        stage.clear()
        return staged.changes

    def staged_diff(self) -> Diff:
        """Compare what is staged with the commit that it was staged on."""
        staged = self.stage().read()
        if not staged.changes:
            return versioning.Diff(versioning.DIFF_SCHEMA.empty_table(), versioning.ENTRY_SCHEMA.empty_table())
        return self.repository.diff_changes(staged.base, staged.changes)

    def create_branch(self, name: str, at: CommitId) -> None:
        """Create a branch at a commit: one small write. Errors as in `Repository.create_branch`."""
        self.repository.create_branch(name, at, author=self._settings.author)

    def switch(self, branch: str) -> None:
        """Put the dataset on a branch; what is staged stays with the branch it was staged on.

        Raises:
            RevisionNotFoundError: If there is no such branch.
        """
        if branch != "main" and self.repository.head(branch) is None:
            raise RevisionNotFoundError(branch, detail="no such branch", near=sorted(self.repository.branches()))
        self.be_on(branch)

    def be_on(self, branch: str) -> None:
        """Put the dataset on a branch, whether there is one of this name yet or not; nothing is checked out."""
        self._catalog.set_head(self.name, branch)

    def merge(
        self,
        revision: str,
        *,
        message: str | None = None,
        author: str | None = None,
        options: MergeOptions | None = None,
    ) -> MergeResult:
        """Merge a version into the branch the dataset is on; `ds.merging` has the rest.

        Raises:
            MergeConflictError: If both sides changed a path in different ways; the branch was not moved. The conflicts
                are kept until `ds.merging.proceed` or `abort`.
        """
        how = options or versioning.MergeOptions()
        job = merging.make_job(self, "merge", revision, options=how, message=message, author=author)
        result: MergeResult = merging.start(self, job)
        return result

    def diff(self, old: str | None, new: str | None) -> Diff:
        """Compare two versions."""
        return self.repository.diff(self.resolve(old), self.resolve(new))

    def files(self, revision: str | None = None, *, path: str = "", since: str | None = None) -> VersionFiles:
        """Return where the bytes of some files are.

        Args:
            revision: The version.
            path: A file, a directory or a pattern such as `images/*/0*.png`; "" is all.
            since: Only what differs from this version.

        Raises:
            PathNotFoundError: If the version has nothing there.
        """
        from ds.version_files import VersionFiles

        before = None if since is None else self.resolve(since)
        return VersionFiles(self.repository, self.resolve(revision), path=path, since=before)

    def planned_load(
        self,
        revision: str | None = None,
        *,
        prefix: str = "",
        since: str | None = None,
        options: LoadOptions | None = None,
    ) -> PlannedLoad:
        """Find out what loading would fetch; the result can be run. Arguments as in `plan_load`."""
        files = self.files(revision, path=prefix, since=since)
        planned: PlannedLoad = loading.plan_version_load(self.opened, files, options or loading.LoadOptions())
        return planned

    def plan_load(
        self,
        revision: str | None = None,
        *,
        prefix: str = "",
        since: str | None = None,
        options: LoadOptions | None = None,
    ) -> LoadPlan:
        """Find out what loading would fetch.

        Args:
            revision: The version to load.
            prefix: Only this file, the files below this directory, or those of a pattern; "" is all.
            since: Only what differs from this version.
            options: How to load; None is all of its defaults.

        Raises:
            PathNotFoundError: If the version has nothing there.
            UsageError: If the dataset has no cache.
        """
        return self.planned_load(revision, prefix=prefix, since=since, options=options).plan

    def load(
        self,
        revision: str | None = None,
        *,
        prefix: str = "",
        since: str | None = None,
        options: LoadOptions | None = None,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> LoadReport:
        """Bring a version into the cache, that of the cluster where there is one; run again to resume.

        Arguments as in `plan_load`. Look at `verified` of the result: it says whether all of it is there.
        """
        return self.planned_load(revision, prefix=prefix, since=since, options=options).run(on_progress=on_progress)

    def pack(
        self,
        revision: str | None = None,
        *,
        layout: ShardLayout | None = None,
        options: PackOptions | None = None,
        message: str | None = None,
        author: str | None = None,
        on_progress: Callable[[PackProgress], None] | None = None,
    ) -> PackReport:
        """Merge small files into tar shards as a new commit of the same content; see `loaders.pack`.

        The commit goes to the branch that `revision` names, else to the branch the dataset is on. An interrupted pack
        goes on where it stopped.

        Args:
            revision: The version.
            layout: Order, size and what joins files into samples; by default as the manifest groups them, by key.
            options: Workers, transform, what to do about errors. Journals are kept in `FOREBAY_HOME` by default.
            message: Of the commit.
            author: Who commits.
            on_progress: Called after each shard.

        Raises:
            LoaderError: If the files make no samples, or workers or the transform fail.
            SourceError: If a file cannot be read.
        """
        commit = self.resolve(revision)
        return loaders.pack(
            self.repository,
            commit,
            self._client_at(commit),
            layout=layout or self.shard_layout(),
            branch=self.branch_of(revision),
            author=author or self._settings.author,
            message=message,
            options=self._pack_options(options, commit),
            on_progress=on_progress,
        )

    def plan_pack(
        self,
        revision: str | None = None,
        *,
        layout: ShardLayout | None = None,
        options: PackOptions | None = None,
    ) -> PackPlan:
        """Find out what `pack` would do; no file is read. Arguments and errors as there."""
        commit = self.resolve(revision)
        made = self._pack_options(options, commit)
        return loaders.plan_pack(self.repository, commit, layout=layout or self.shard_layout(), options=made)

    def shard_layout(
        self, *, shuffle: bool = False, seed: int = 0, shard_size: int | None = None, key: KeyRule | None = None
    ) -> ShardLayout:
        """Describe shards; see `loaders.ShardLayout`. Without a key, files are joined as the manifest says."""
        rule = self.opened.resource.spec.samples.key if key is None else key
        size = {} if shard_size is None else {"shard_size": shard_size}
        return loaders.ShardLayout(shuffle=shuffle, seed=seed, key=rule, **size)

    def _pack_options(self, options: PackOptions | None, commit: CommitId) -> PackOptions:
        from ds.packing import workplace_of

        options = options or loaders.PackOptions()
        size, is_here = self.repository.tree_of(commit).size, options.executor is None
        return replace(
            options,
            journals=options.journals or self._state("packs"),
            workplace=options.workplace or workplace_of(self, version_bytes=size, is_here=is_here),
        )

    def branch_of(self, revision: str | None) -> str:
        """Return the branch that a commit made from a revision goes to: itself, or the one the dataset is on."""
        return revision if revision and self.repository.head(revision) else self.branch

    def samples(self, revision: str | None = None, *, where: Callable[[str], bool] | None = None) -> SampleIndex:
        """Group the files of a version into samples, by the rule of the manifest.

        Args:
            revision: The version.
            where: Keep the samples whose key it accepts.
        """
        key = self.opened.resource.spec.samples.key
        return loaders.SampleIndex.from_tree(self.tree(revision), self.repository.root, key=key, where=where)

    def shards(
        self,
        revision: str | None = None,
        *,
        where: Callable[[str], bool] | None = None,
        decode: DecodeOption = "auto",
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> ShardDataset:
        """Return a map-style dataset for a torch DataLoader; see `loaders.ShardDataset`."""
        commit = self.resolve(revision)
        return loaders.ShardDataset.from_tree(
            self.tree(commit),
            self.repository.root,
            self._client_at(commit),
            key=self.opened.resource.spec.samples.key,
            where=where,
            decode=decode,
            transform=transform,
        )

    def open(self, path: str, revision: str | None = None) -> Any:
        """Open a file of a version for reading bytes.

        Raises:
            FileNotFoundError: If the version has no such file.
        """
        return self.filesystem(revision).open(path, "rb")

    def filesystem(self, revision: str | None = None) -> CachedFileSystem:
        """Return an fsspec filesystem over one version; what the branch does later does not change it."""
        from ds.views import TreeView

        tree = self.tree(revision)
        return cache_runtime.CachedFileSystem(TreeView(tree, self.repository.root), self.opened.client_for(tree.size))

    def _client_at(self, commit: CommitId) -> Client:
        """Return a client that knows how large the version is."""
        return self.opened.client_for(self.repository.tree_of(commit).size)

    def _tree_at(self, commit: CommitId | None) -> Tree | None:
        return self.repository.tree_of(commit) if commit else None
