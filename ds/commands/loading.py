"""Command that brings a version into the cache: load."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cache_runtime import LoadReport, LoadStop
from ds.commands.options import (
    DatasetOption,
    JsonOption,
    complete_revision,
    complete_target,
    open_target,
    split_range,
)
from ds.durations import human_seconds, parse_duration
from ds.errors import UsageError
from ds.load_display import LoadDisplay
from ds.loading import LoadOptions, PlannedLoad
from ds.output import errors, human_bytes, plural, print_json, print_text
from ds.targets import Target
from sources import SourceChangedError

_SHOWN = 10
_RAISE = "raise spec.tiers[].capacity of its CacheRuntime and apply it"


def load_command(
    target: Annotated[
        str | None,
        typer.Argument(
            help="[DATASET][@REVISION][/PATH]; PATH may be a pattern such as images/*/0*.png. Default: the current "
            "branch.",
            autocompletion=complete_target,
        ),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option("--diff", help="A..B: only what B has and A has not.", autocompletion=complete_revision),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and stop.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Into this node's cache alone, also where there are workers.")
    ] = False,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Workers that are to have each block; default: as in the manifest.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="Of these bytes against those of other datasets; default: as in the manifest.")
    ] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="End after so long, such as 45m.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests of this node at once.")] = 16,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a version into the cache before training; run again to resume.

    Where the cache has workers, each byte is fetched from the sources by one of them, and goes to as many more as
    there are to be replicas. Without workers it goes into this node's directories.

    Done means verified: every planned byte is in the cache. Otherwise the files that failed are named and the exit
    code is 1.

    \b
    Examples:
      ds load digits@main
      ds load --diff main..augment
      ds load digits@main/images --dry-run
      ds load 'digits@v1/images/*/0*.png' --deadline 45m
      ds load digits@v1 --replicas 2 --priority 10
    """
    seconds = None if deadline is None else parse_duration(deadline, what="--deadline")
    options = LoadOptions(here, replicas, priority, concurrency, seconds)
    opened, where = open_target(target, dataset)
    since, revision = _versions(where, diff)
    commit = opened.resolve(revision)  # once: the branch may move while we load
    load = opened.planned_load(commit, prefix=where.path, since=since, options=options)
    if dry_run:
        _print_plan(load, json=json)
    else:
        _run(load, commit, json=json)


def _versions(where: Target, diff: str | None) -> tuple[str | None, str | None]:
    """Return what to load the difference from, and what to load."""
    if diff is None:
        return None, where.revision
    if where.revision:
        raise UsageError("--diff A..B says which versions; leave @REVISION out")
    return split_range(diff)


def _run(load: PlannedLoad, commit: str, *, json: bool) -> None:
    with LoadDisplay(load.plan.total_bytes) as display:
        report = load.run(on_progress=display.show)
    if load.client is not None:
        load.client.close()  # flushes the index: a machine that goes down now has nothing to rebuild
    _print_report(load, report, json=json)
    if any(failure.kind == SourceChangedError.kind for failure in report.failures):
        errors().print(f'ds: the object changed since commit {commit[:8]}: run "ds import"', markup=False)
    if not report.verified:
        raise typer.Exit(1)


def _print_plan(load: PlannedLoad, *, json: bool) -> None:
    plan = load.plan
    if json:
        print_json("load-plan", _plan(load))
        return
    missing = f"{human_bytes(plan.origin_bytes)} in {plural(plan.fetch_objects, 'object')}"
    print_text(f"{plural(plan.total_objects, 'object')}, {human_bytes(plan.total_bytes)} {_what(load)}")
    print_text(f"  {human_bytes(plan.present_bytes)} are in {_where(load)}")
    print_text(f"  {missing} would be fetched from the sources")
    if plan.copies_bytes:
        print_text(f"  {human_bytes(plan.copies_bytes)} would be copied from worker to worker")
    if plan.evict_bytes:
        print_text(f"  about {human_bytes(plan.evict_bytes)} of other data would be evicted")
    if plan.fetch_bytes and plan.estimated_seconds is not None:
        print_text(f"  about {human_seconds(plan.estimated_seconds)} at the pace of the last load")
    if not plan.fits:
        print_text(f"  the cache has room for {human_bytes(plan.room_bytes)} of it: {_RAISE}")


def _what(load: PlannedLoad) -> str:
    return "in this version" if load.plan.replicas == 1 else f"in {load.plan.replicas} copies of this version"


def _where(load: PlannedLoad) -> str:
    return "the cache" if load.peers is None else f"the caches of {plural(len(load.peers.members()), 'worker')}"


def _print_report(load: PlannedLoad, report: LoadReport, *, json: bool) -> None:
    if json:
        print_json("load", {**_plan(load), **asdict(report), "verified": report.verified})
        return
    plan = load.plan
    whole = f"{plural(plan.total_objects, 'object')}, {human_bytes(plan.total_bytes)}"
    if not plan.fetch_objects and report.verified:
        print_text(f"everything is there: {whole}; nothing was fetched")
        return
    fetched, rate = human_bytes(report.fetched_bytes), human_bytes(report.fetched_bytes / max(report.seconds, 0.001))
    from_peers = f", {human_bytes(report.peer_bytes)} of it from other workers" if report.peer_bytes else ""
    took = f"{human_seconds(report.seconds)}, {rate}/s"
    print_text(f"loaded {fetched} in {plural(report.fetched_objects, 'object')} ({took}){from_peers}")
    _print_losses(report)
    if report.verified:
        print_text(f"verified: {whole} are in {_where(load)}")


def _print_losses(report: LoadReport) -> None:
    for failure in [failure for failure in report.failures if failure.kind not in set(LoadStop)][:_SHOWN]:
        errors().print(f"failed: {failure.reason}", markup=False)
    if report.stopped == LoadStop.DEADLINE:
        missing = plural(report.failed_objects, "object")
        errors().print(f"the deadline came first: {missing} are not there; the same command goes on")
    elif report.failed_objects > _SHOWN:
        errors().print(f"... and {report.failed_objects - _SHOWN:,} more (ds load --json names them)")
    if report.left_out_objects:
        left = f"{plural(report.left_out_objects, 'object')}, {human_bytes(report.left_out_bytes)}"
        errors().print(f"left out, for the cache is full: {left}; {_RAISE}")


_PLANNED = (
    "total_objects",
    "total_bytes",
    "present_objects",
    "present_bytes",
    "fetch_objects",
    "fetch_bytes",
    "origin_bytes",
    "copies_bytes",
    "evict_bytes",
    "estimated_seconds",
    "replicas",
    "room_bytes",
    "fits",
)


def _plan(load: PlannedLoad) -> dict[str, Any]:
    workers = None if load.peers is None else [member.name for member in load.peers.members()]
    return {**{name: getattr(load.plan, name) for name in _PLANNED}, "workers": workers}
