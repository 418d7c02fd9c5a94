"""Commands about declared objects as a whole: apply, get, describe, watch, delete."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dataset_controller import CacheRuntime
from dataset_controller.operations import OPERATIONS
from ds.commands.options import JsonOption, complete_dataset
from ds.dataset import Dataset, apply
from ds.exits import EXPECTED_ERRORS, Exit, exit_of
from ds.output import errors, human_bytes, print_json, print_table, print_text
from ds.settings import current_settings

_WATCH_SECONDS = 1.0
_NOT_YET = ("Scheduled", "Suspended", "WaitsForPredecessor")


def apply_command(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML file with Datasets, CacheRuntimes and operations.")],
    json: JsonOption = False,
) -> None:
    """Make what a YAML file declares true on this machine.

    Checks that the sources answer, creates repository and cache directory where they are missing, and records the
    dataset last: after a failure nothing is recorded and the same command may be run again. A DataLoad, DataPack,
    DataProcess or DataMigrate is done now, or when ds watch sees that its time has come; run again, what was
    interrupted goes on. Exits with 1 if one of them failed.

    \b
    Examples:
      ds apply -f dataset.yaml
    """
    applied = apply(file)
    for item in applied:
        if item.kind == "CacheRuntime" and item.change != "unchanged":
            _warn_of_space(item.name)
    if json:
        print_json("apply", [vars(item) for item in applied])
        return
    for item in applied:
        print_text(f"{item.kind.lower()}/{item.name} {item.change}")
        if item.without_effect:
            fields = ", ".join(item.without_effect)
            errors().print(f"ds: {item.kind.lower()}/{item.name}: {fields}: only a cluster heeds it", markup=False)
    ends = [_say_end(item.kind, item.name) for item in applied if item.kind in OPERATIONS]
    if not all(ends):
        raise typer.Exit(1)


def _warn_of_space(runtime: str) -> None:
    """Say where a disk has no room for what is declared: the cache would take less, and nobody would know why."""
    from ds.directory_checks import check_space
    from ds.findings import Level
    from ds.runtimes import find_runtime

    for tier in find_runtime(runtime, current_settings()).resource.spec.tiers:
        for finding in check_space(tier.path, tier):
            if finding.level is not Level.OK:
                errors().print(f"ds: {finding.subject}: {finding.message}; {finding.remedy}", markup=False)


def _say_end(kind: str, name: str) -> bool:
    """Say how an operation is, and whether nothing is wrong with it."""
    from ds.operations.local import local_operations

    status = local_operations(current_settings()).document(f"{kind}/{name}")["status"]
    complete: dict[str, Any] = next((each for each in status.get("conditions", ()) if each["type"] == "Complete"), {})
    if status.get("phase") == "Succeeded":
        return True
    text = f"{kind.lower()}/{name} is {status.get('phase')}: {complete.get('reason')}: {complete.get('message')}"
    errors().print(f"ds: {text}", markup=False)
    return complete.get("reason") in _NOT_YET


def get_command(
    name: Annotated[
        str | None,
        typer.Argument(help="A dataset, a KIND, KIND/NAME; default: all datasets.", autocompletion=complete_dataset),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the datasets of this machine, or the objects of a kind with the columns that a cluster shows.

    Kinds are dset, cache, load, pack, process and migrate.

    \b
    Examples:
      ds get
      ds get digits --json
      ds get load
      ds get cache/local
    """
    if name and _is_of_a_kind(name):
        _get_kind(name, json=json)
        return
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


def _is_of_a_kind(text: str) -> bool:
    from ds.operations.showing import kind_of

    return "/" in text or (kind_of(text) is not None and text not in current_settings().catalog().names("Dataset"))


def _get_kind(text: str, *, json: bool) -> None:
    from ds.operations.showing import cells, document_of, heads, kind_and_name, names_of

    kind, name = kind_and_name(text if "/" in text else f"{text}/")
    settings = current_settings()
    documents = [document_of(kind, each, settings) for each in ([name] if name else names_of(kind, settings))]
    if json:
        print_json("objects", documents)
    else:
        print_table(heads(kind), [cells(kind, each) for each in documents])


def describe_command(
    target: Annotated[str, typer.Argument(help="A dataset, or KIND/NAME.", autocompletion=complete_dataset)],
    json: JsonOption = False,
) -> None:
    """Show an object as it was declared, how it is, and what happened to it.

    \b
    Examples:
      ds describe digits
      ds describe load/nightly
    """
    import yaml

    from ds.operations.local import local_operations
    from ds.operations.showing import document_of, kind_and_name

    settings = current_settings()
    kind, name = kind_and_name(target)
    document = document_of(kind, name, settings)
    events = local_operations(settings).events(f"{kind.name}/{name}") if kind.name in OPERATIONS else []
    if json:
        print_json("object", {**document, "events": events})
        return
    print_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())
    for event in events:
        print_text(f"{event['time']} {event['type']} {event['reason']}: {event['message']}")


def watch_command(
    target: Annotated[str, typer.Argument(help="A KIND, or KIND/NAME.")] = "load",
    seconds: Annotated[float | None, typer.Option(help="End after so long; default: at Ctrl-C.", min=0)] = None,
) -> None:
    """Show the objects of a kind, and each again when it changes; begin the operations whose time has come.

    \b
    Examples:
      ds watch load
      ds watch pack/shards --seconds 60
    """
    from ds.operations.local import local_operations, settle
    from ds.operations.showing import cells, document_of, heads, kind_and_name, names_of

    kind, name = kind_and_name(target if "/" in target else f"{target}/")
    settings = current_settings()
    shown: dict[str, list[str]] = {}
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        settle(local_operations(settings))
        names = [name] if name else names_of(kind, settings)
        rows = {each: cells(kind, document_of(kind, each, settings)) for each in names}
        news = [row for each, row in rows.items() if row[:-1] != shown.get(each, [])[:-1]]  # the last is its age
        if news:
            print_table(heads(kind), news)
        shown = rows
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(_WATCH_SECONDS if deadline is None else min(_WATCH_SECONDS, max(0.0, deadline - time.monotonic())))


def delete_command(
    name: Annotated[str, typer.Argument(help="The dataset, or KIND/NAME.", autocompletion=complete_dataset)],
) -> None:
    """Forget an object on this machine; repository, sources, cached blocks and what operations made stay.

    \b
    Examples:
      ds delete digits
      ds delete cacheruntime/local
      ds delete load/nightly
    """
    from ds.operations.local import local_operations
    from ds.operations.showing import kind_and_name

    settings = current_settings()
    kind, own = kind_and_name(name)
    if kind.name == "CacheRuntime":
        settings.catalog().delete_runtime(own)
    elif kind.name == "Dataset":
        settings.catalog().delete_dataset(own)
    else:
        local_operations(settings).delete(f"{kind.name}/{own}")
    print_text(f"{name if '/' in name else f'dataset/{name}'} deleted")


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
