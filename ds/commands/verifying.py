"""Command that compares a cache with its checksums: cache verify."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from cache_runtime.store.scrubbing import ScrubReport
from ds.cached_files import object_ids, runtime_of
from ds.commands.options import DatasetOption, FilesArgument, JsonOption, RuntimeOption, open_target, parse_bytes
from ds.exits import Exit
from ds.output import errors, human_bytes, plural, print_json, print_text
from ds.progress import LateProgress, bytes_progress
from ds.runtimes import chosen_runtimes
from ds.settings import current_settings


def cache_verify_command(
    target: FilesArgument = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Read at most so much a second, such as 200Mi.")] = None,
    runtime: RuntimeOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Read what is cached from the disk and compare it with its checksums; what is damaged is forgotten.

    Readers never get damaged bytes, verified before or not: they check what they read first. Exits with 1 if something
    was damaged; the next read, or `ds load`, fetches it anew.

    \b
    Examples:
      ds cache verify
      ds cache verify digits@v1/images --rate 200Mi
    """
    speed = None if rate is None else parse_bytes(rate, "--rate")
    if target is not None or dataset is not None:
        opened, where = open_target(target, dataset)
        stores, ids = [runtime_of(opened).store], object_ids(opened, where)
    else:
        stores, ids = [each.store for each in chosen_runtimes(runtime, current_settings())], None
    report = ScrubReport()
    with bytes_progress() as bar:
        for store in stores:
            task = bar.add_task(f"verifying {store.directory}", total=None if ids else store.status().used_bytes)
            report += store.scrub(
                bytes_per_second=speed,
                objects=ids,
                on_progress=partial(_show, bar, task),
            )
    _print_scrub(report, json=json)
    if report.bad_parts or report.bad_units:
        raise typer.Exit(Exit.NO)


def _show(bar: LateProgress, task: int, now: ScrubReport) -> None:
    bar.update(task, completed=now.checked_bytes)


def _print_scrub(report: ScrubReport, *, json: bool) -> None:
    if json:
        print_json("cache-verify", {**asdict(report), "bad_objects": [found.hex() for found in report.bad_objects]})
        return
    checked = f"{human_bytes(report.checked_bytes)} in {report.checked_parts:,} blocks and records"
    if not report.bad_parts and not report.bad_units:
        print_text(f"verified {checked}: all good")
        return
    print_text(
        f"checked {checked}: {report.bad_parts:,} damaged, {plural(report.bad_units, 'file')} unreadable; forgotten"
    )
    errors().print("load them again with: ds load; when it happens again, look at the disk: ds cache doctor")
