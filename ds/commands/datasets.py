"""Commands about datasets as a whole: apply, get, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dataset_controller import CacheRuntime
from ds.commands.options import JsonOption, complete_dataset
from ds.dataset import Dataset, apply
from ds.exits import EXPECTED_ERRORS, Exit, exit_of
from ds.output import errors, human_bytes, print_json, print_table, print_text
from ds.settings import current_settings


def apply_command(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML file with Datasets and CacheRuntimes.")],
    json: JsonOption = False,
) -> None:
    """Make the datasets of a YAML file exist on this machine.

    Checks that the sources answer, creates repository and cache directory where they are missing, and records the
    dataset last: after a failure nothing is recorded and the same command may be run again.

    \b
    Examples:
      ds apply -f dataset.yaml
    """
    applied = apply(file)
    if json:
        print_json("apply", [vars(item) for item in applied])
        return
    for item in applied:
        print_text(f"{item.kind.lower()}/{item.name} {item.change}")
        if item.without_effect:
            fields = ", ".join(item.without_effect)
            errors().print(f"ds: {item.kind.lower()}/{item.name}: {fields}: only a cluster heeds it", markup=False)


def get_command(
    name: Annotated[
        str | None, typer.Argument(help="One dataset; default: all.", autocompletion=complete_dataset)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the datasets of this machine.

    \b
    Examples:
      ds get
      ds get digits --json
    """
    names = [name] if name else current_settings().catalog().names("Dataset")
    rows, failed = [], Exit.OK
    for found in names:
        try:
            rows.append(_summary(Dataset(found)))
        except EXPECTED_ERRORS as error:
            if name:
                raise
            errors().print(f"ds: dataset {found}: {error}", markup=False)  # the others are listed all the same
            failed = exit_of(error)
    if json:
        print_json("datasets", rows)
    else:
        _print_rows(rows)
    if failed:
        raise typer.Exit(failed)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    columns = ("NAME", "BRANCH", "COMMIT", "FILES", "SIZE", "MOUNTS", "CACHE")
    cells = [
        (
            row["name"],
            row["branch"],
            (row["commit"] or "-")[:8],
            row["files"],
            human_bytes(row["bytes"]),
            row["mounts"],
            row["cache"],
        )
        for row in rows
    ]
    print_table(columns, cells, right=("FILES", "SIZE"))


def delete_command(
    name: Annotated[str, typer.Argument(help="The dataset, or cacheruntime/NAME.", autocompletion=complete_dataset)],
) -> None:
    """Forget a dataset on this machine; its repository, sources and cached blocks stay.

    \b
    Examples:
      ds delete digits
      ds delete cacheruntime/local
    """
    catalog = current_settings().catalog()
    kind, slash, rest = name.rpartition("/")
    if slash and kind.lower() == "cacheruntime":
        catalog.delete_runtime(rest)
    else:
        catalog.delete_dataset(name.removeprefix("dataset/"))
    print_text(f"{name if slash else f'dataset/{name}'} deleted")


def _summary(dataset: Dataset) -> dict[str, Any]:
    head = dataset.head()
    tree = dataset.repository.tree(head) if head else None
    runtime: CacheRuntime | None = dataset.opened.runtime
    return {
        "name": dataset.name,
        "branch": dataset.branch,
        "commit": head,
        "files": tree.rows if tree else 0,
        "bytes": tree.size if tree else 0,
        "mounts": len(dataset.opened.resource.spec.mounts),
        "cache": runtime.metadata.name if runtime else "-",
    }
