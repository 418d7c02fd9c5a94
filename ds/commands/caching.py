"""Command about the caches of this machine as a whole: cache status."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from ds.commands.options import JsonOption, RuntimeArgument
from ds.exits import EXPECTED_ERRORS, Exit, exit_of
from ds.output import errors, human_bytes, plural, print_json, print_table, print_text
from ds.runtimes import Runtime, chosen_runtimes
from ds.settings import current_settings


def cache_status_command(
    name: RuntimeArgument = None,
    json: JsonOption = False,
) -> None:
    """Show how full the caches of this machine are, and who uses them.

    \b
    Examples:
      ds cache status
      ds cache status local --json
    """
    rows, failed = [], Exit.OK
    for runtime in chosen_runtimes(name, current_settings()):
        try:
            rows.append(_status_of(runtime))
        except EXPECTED_ERRORS as error:
            if name:
                raise
            errors().print(f"ds: cache runtime {runtime.name}: {error}", markup=False)  # the others are shown
            failed = exit_of(error)
    if json:
        print_json("cache", rows)
    else:
        _print_status(rows)
    if failed:
        raise typer.Exit(failed)


def _status_of(runtime: Runtime) -> dict[str, Any]:
    status, worker = runtime.store.status(), runtime.worker
    return {
        "name": runtime.name,
        "path": runtime.directories[0],
        **asdict(status),
        "pins": [asdict(pin) for pin in runtime.store.pins()],
        "worker": None if worker is None else asdict(worker),
    }


def _print_status(rows: list[dict[str, Any]]) -> None:
    cells: list[tuple[object, ...]] = []
    for row in rows:
        cells.append(
            (row["name"], *_usage(row), row["path"] if not row["disks"] else plural(len(row["disks"]), "disk"))
        )
        cells += [("", *_usage(disk), disk["directory"]) for disk in row["disks"]]
    columns = ("NAME", "USED", "CAPACITY", "OBJECTS", "BLOCKS", "PATH")
    print_table(columns, cells, right=("USED", "CAPACITY", "OBJECTS", "BLOCKS"))
    shares: list[tuple[object, ...]] = [(row["name"], *_share_cells(share)) for row in rows for share in row["shares"]]
    if shares:
        print_text()
        titles = ("CACHE", "DATASET", "USED", "QUOTA", "PINNED", "GUESTS", "PRIORITY", "ADMISSION")
        print_table(titles, shares, right=("USED", "QUOTA", "PINNED", "GUESTS", "PRIORITY"))
    for row in rows:
        if row["worker"]:
            print_text(f"\n{row['name']} is served by worker {row['worker']['name']} at {row['worker']['url']}")
        for disk in row["disks"] or [row]:
            if disk["off_reason"]:
                errors().print(
                    f"ds: {disk['directory']} is off: {disk['off_reason']}; see: ds cache doctor", markup=False
                )


def _usage(row: dict[str, Any]) -> tuple[object, ...]:
    return human_bytes(row["used_bytes"]), human_bytes(row["capacity_bytes"]), row["objects"], row["blocks"]


def _share_cells(row: dict[str, Any]) -> tuple[object, ...]:
    share = row["share"]
    quota = "-" if share["quota_bytes"] is None else human_bytes(share["quota_bytes"])
    sizes = (human_bytes(row["used_bytes"]), quota, human_bytes(row["pinned_bytes"]), human_bytes(row["guest_bytes"]))
    return share["name"] or "-", *sizes, share["priority"], "keep" if share["cycle_bytes"] else "sieve"
