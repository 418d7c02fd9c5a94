"""Arguments that several commands share, and what completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from dataset_controller.errors import DatasetNotFoundError
from dataset_controller.quantities import parse_quantity
from ds.dataset import Dataset
from ds.errors import TargetError, UsageError
from ds.settings import current_settings
from ds.targets import Target
from ds.worktree import WorkingDataset, find_root


def _expected() -> tuple[type[Exception], ...]:
    from ds.exits import EXPECTED_ERRORS  # it names the errors of all packages

    return EXPECTED_ERRORS


def complete_dataset(incomplete: str) -> list[str]:
    """Complete names of datasets."""
    try:
        return [name for name in current_settings().catalog().names("Dataset") if name.startswith(incomplete)]
    except _expected():
        return []  # a shell that completes is no place for messages


def complete_target(incomplete: str) -> list[str]:
    """Complete `dataset`, and after "@" its branches and tags."""
    name, at, revision = incomplete.partition("@")
    if not at:
        return complete_dataset(incomplete)
    written = (quote(found, safe="") for found in _refs(name or None))  # a "/" would begin the path
    return [f"{name}@{found}" for found in written if found.startswith(revision)]


def complete_revision(incomplete: str) -> list[str]:
    """Complete branches and tags of the current dataset, also after `..`."""
    start, dots, last = incomplete.rpartition("..")
    return [f"{start}{dots}{found}" for found in _refs(None) if found.startswith(last)]


def _refs(name: str | None) -> list[str]:
    try:
        repository = open_dataset(name).repository
        return sorted({*repository.branches(), *repository.tags()})
    except _expected():
        return []


def complete_runtime(incomplete: str) -> list[str]:
    """Complete names of cache runtimes."""
    try:
        names = current_settings().catalog().names("CacheRuntime")
    except _expected():
        return []
    return [name for name in names if name.startswith(incomplete)]


RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", "-r", help="Cache runtime; default: the only one.", autocompletion=complete_runtime),
]
RuntimeArgument = Annotated[
    str | None,
    typer.Argument(help="Cache runtime; default: all of this machine.", autocompletion=complete_runtime),
]
FilesArgument = Annotated[
    str | None,
    typer.Argument(help="[DATASET][@REVISION][/PATH]; PATH may be a pattern.", autocompletion=complete_target),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Dataset; default: the working copy's, $FOREBAY_DATASET, or the only one.",
        autocompletion=complete_dataset,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
NoVerifyOption = Annotated[bool, typer.Option("--no-verify", help="Leave the branch's hooks out; the commit says so.")]
AuthorOption = Annotated[
    str | None, typer.Option("--author", help="Who commits; default: $FOREBAY_AUTHOR, or user@host.")
]


def open_dataset(name: str | None) -> Dataset:
    """Open the named dataset, that of the working copy around us, the one of the environment, or the only one."""
    settings = current_settings()
    if name is None and (root := find_root(Path.cwd())) is not None:
        return WorkingDataset(root, settings=settings)
    name = name or settings.dataset
    if name is None:
        known = settings.catalog().names("Dataset")
        if not known:
            raise UsageError("there is no dataset yet; declare one and run: ds apply -f dataset.yaml")
        if len(known) > 1:
            raise UsageError(f"which dataset? use -d or FOREBAY_DATASET; known: {', '.join(known)}")
        (name,) = known
    return Dataset(name, settings=settings)


def open_working() -> WorkingDataset:
    """Open the working copy that the current directory lies in.

    Raises:
        UsageError: If it lies in none.
    """
    root = find_root(Path.cwd())
    if root is None:
        raise UsageError("this directory is in no working copy; make one with: ds clone DATASET, or: ds init")
    return WorkingDataset(root, settings=current_settings())


def open_target(text: str | None, dataset: str | None = None) -> tuple[Dataset, Target]:
    """Open the dataset that a target names, or the current one."""
    if dataset is None and (found := _path_here(text)) is not None:
        return found
    target = Target.parse(text) if text else Target()
    if dataset and target.dataset and dataset != target.dataset:
        raise TargetError(f"{text!r} names dataset {target.dataset!r}, but -d says {dataset!r}; leave one out")
    try:
        return open_dataset(target.dataset or dataset), target
    except DatasetNotFoundError as error:
        hint = f"a path of the current dataset begins with a slash: /{text}"
        raise DatasetNotFoundError(error.name, error.known, hint=hint) from error


def split_range(text: str) -> tuple[str, str | None]:
    """Take `A..B` apart; `A` alone compares with the current branch."""
    if "..." in text:
        raise UsageError(f"{text}: three dots are not supported here; write A..B")
    old, dots, new = text.partition("..")
    return old or "HEAD", (new or "HEAD") if dots else None


def _path_here(text: str | None) -> tuple[Dataset, Target] | None:
    """In a working copy, take what names no declared dataset for a path; nothing at all is the current directory."""
    if text is not None and (text.startswith("/") or "@" in text or "://" in text):
        return None
    root, settings = find_root(Path.cwd()), current_settings()
    name = (text or "").partition("/")[0]
    if root is None or (name and name in settings.catalog().names("Dataset")):
        return None
    opened = WorkingDataset(root, settings=settings)
    return opened, Target(path=opened.path(text or "."))


def parse_bytes(text: str, option: str) -> int:
    """Read the value of an option that is a size above 0, such as `10Gi`."""
    try:
        count = parse_quantity(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    if not count:
        raise UsageError(f"{option}: expected more than 0 bytes")
    return count
