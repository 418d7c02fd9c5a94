"""Where a working copy is, and the manifest that it was made with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_controller.errors import ManifestError
from dataset_controller.plain import PlainManifest, read_plain
from ds.errors import UsageError
from versioning.worktree import LOCAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dataset_controller import CacheRuntime, Dataset

MANIFEST = f"{LOCAL}/dataset.yaml"
_ROOT = "FOREBAY_WORKING_COPY"
OWN_REPOSITORY = f"file://${{{_ROOT}}}/{LOCAL}/repo"
"""URI, in a manifest, of the repository that lies in the working copy itself: it moves with it."""


def find_root(start: Path) -> Path | None:
    """Return the nearest directory, from `start` upwards, that is a working copy."""
    here = Path(os.path.realpath(start))
    return next((found for found in (here, *here.parents) if (found / MANIFEST).is_file()), None)


def write_manifest(root: Path, resources: Sequence[Dataset | CacheRuntime]) -> None:
    """Write what a working copy is of; readable by its owner alone, for options may hold credentials."""
    import yaml  # it takes a while, and most commands only read

    documents = [resource.model_dump(mode="json", by_alias=True, exclude_defaults=True) for resource in resources]
    file = root / MANIFEST
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(".dataset.yaml")
    with open(temporary, "w", encoding="utf-8", opener=_privately) as opened:
        yaml.safe_dump_all(documents, opened, sort_keys=False, allow_unicode=True)
    os.rename(temporary, file)


def read_plain_manifest(root: Path, variables: Mapping[str, str]) -> PlainManifest | None:
    """Return the dataset of a working copy if it is a repository and nothing else; None if `read_manifest` is needed.

    Raises:
        ManifestError: If the file cannot be read.
    """
    return read_plain(_text(root), {**variables, _ROOT: str(root)})


def read_manifest(root: Path, variables: Mapping[str, str]) -> tuple[Dataset, CacheRuntime | None]:
    """Return the dataset of a working copy and its cache.

    Raises:
        ManifestError: If the file cannot be read, or is wrong.
    """
    from dataset_controller import CacheRuntime, Dataset, parse_manifest  # they take a while

    file = root / MANIFEST
    found = parse_manifest(_text(root), source=str(file), variables={**variables, _ROOT: str(root)})
    datasets = [resource for resource in found if isinstance(resource, Dataset)]
    runtimes = [resource for resource in found if isinstance(resource, CacheRuntime)]
    if len(datasets) != 1 or len(runtimes) > 1:
        raise ManifestError("expected one Dataset and at most one CacheRuntime", source=str(file))
    return datasets[0], runtimes[0] if runtimes and datasets[0].spec.cache else None


def path_inside(root: Path, text: str | os.PathLike[str]) -> str:
    """Return the path in the dataset that a path of the command line means; "" is the working copy itself.

    Raises:
        UsageError: If it lies outside of the working copy, or is the working copy's own.
    """
    absolute = os.path.normpath(os.path.join(os.path.realpath(os.getcwd()), text))
    for candidate in (absolute, os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute))):
        found = os.path.relpath(candidate, root)
        if found == LOCAL or found.startswith(f"{LOCAL}/"):
            raise UsageError(f"{text}: {LOCAL} is the working copy's own")
        if found != ".." and not found.startswith("../"):
            return "" if found == "." else found
    raise UsageError(f"{text} is outside of the working copy {root}")


def _text(root: Path) -> str:
    file = root / MANIFEST
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read the file: {error}", source=str(file)) from error


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
