"""From the arguments of `ds mount` to what its processes are told."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cache_runtime.mount.device import DEVICE
from dataset_controller.quantities import parse_quantity
from ds.durations import parse_duration
from ds.errors import MountFailedError, UsageError
from ds.mounting.opening import open_view
from ds.mounting.plans import MountPlan
from ds.mounting.points import checked_point
from ds.worktree import WorkingDataset

if TYPE_CHECKING:
    from pathlib import Path

    from ds.dataset import Dataset
    from ds.targets import Target


@dataclass(frozen=True)
class MountChoices:
    """The options of `ds mount`; see `MountPlan`, whose fields they become."""

    follow: bool = False
    follow_seconds: str = "5"
    uid: int | None = None
    gid: int | None = None
    allow_other: bool = False
    passthrough: bool = True
    small_files: bool = False
    read_ahead: str | None = None
    prefetch: str | None = None
    read_timeout: str | None = None
    repair: bool = False
    log_json: bool = False


def plan_mount(dataset: Dataset, where: Target, directory: Path, choices: MountChoices) -> MountPlan:
    """Find out what is to be mounted, and check that it can be.

    Raises:
        UsageError: If it is no directory of the version, it cannot be mounted there, or the options do not fit.
        RevisionNotFoundError, PathNotFoundError: If there is no such thing.
        MountFailedError: If this machine cannot mount.
    """
    if choices.small_files and choices.follow:
        raise UsageError("--small-files is for one commit: leave --follow out, which needs to know what is open")
    commit = dataset.resolve(where.revision)
    branch = _branch(dataset, where.revision) if choices.follow else None
    path = where.path.strip("/")
    try:
        open_view(dataset.repository, commit, path)
    except NotADirectoryError as error:
        raise UsageError(f"{path} is a file; a mount shows a directory") from error
    point = checked_point(directory, needed=_needed(dataset), repair=choices.repair)
    _check_machine(point)
    return MountPlan(
        mount_point=point,
        dataset=dataset.name,
        revision=where.revision or dataset.branch_name,
        commit=commit,
        path=path,
        home=os.fspath(dataset.settings.home),
        working_copy=os.fspath(dataset.root) if isinstance(dataset, WorkingDataset) else None,
        branch=branch,
        follow_seconds=parse_duration(choices.follow_seconds, what="--follow-seconds"),
        uid=choices.uid,
        gid=choices.gid,
        allow_other=choices.allow_other,
        passthrough=choices.passthrough,
        small_files=choices.small_files or None,
        ahead_bytes=_size(choices.read_ahead, "--read-ahead"),
        prefetch_bytes=_size(choices.prefetch, "--prefetch"),
        read_seconds=_seconds(choices.read_timeout, "--read-timeout"),
        log_json=choices.log_json,
    )


def _size(text: str | None, option: str) -> int | None:
    try:
        return None if text is None else parse_quantity(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else parse_duration(text, what=option)


def _branch(dataset: Dataset, revision: str | None) -> str:
    name = revision or dataset.branch_name
    if name is None or name not in dataset.repository.branches():
        raise UsageError(f"--follow needs a branch, and {name or 'this'} is none; name one: {dataset.name}@main")
    return name


def _needed(dataset: Dataset) -> list[str]:
    """Return what the server reads while it serves: behind its own mount that would wait for ever."""
    spec, runtime = dataset.opened.resource.spec, dataset.opened.runtime
    uris = [spec.repo.uri, *(mount.uri for mount in spec.mounts)]
    files = [unquote(urlsplit(uri).path) for uri in uris if uri.startswith("file:")]
    tiers = [tier.path for tier in runtime.spec.tiers] if runtime is not None else []
    caches = [os.fspath(dataset.settings.node_cache)] if dataset.settings.node_cache else []
    return [os.fspath(dataset.settings.home), *caches, *files, *tiers, sys.prefix, sys.base_prefix]


def _check_machine(point: str) -> None:
    """See that this user can mount at all; the rest is for the kernel to say.

    Raises:
        MountFailedError: If not.
    """
    if not os.path.exists(DEVICE):
        reason = f"there is no {DEVICE}: modprobe fuse, and in a container --device {DEVICE} --cap-add SYS_ADMIN"
        raise MountFailedError(point, reason=reason)
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        reason = "only root can mount without fusermount3; install it: apt install fuse3"
        raise MountFailedError(point, reason=reason)
