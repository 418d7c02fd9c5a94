"""Commands about the cache and the layout: load, pack, cache status."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cache_runtime import LoadPlan, LoadReport, run_load
from dataset_controller import CacheRuntime, Catalog, open_block_store, parse_quantity
from ds.commands.options import (
    AuthorOption,
    DatasetOption,
    JsonOption,
    complete_revision,
    complete_target,
    open_target,
    split_range,
)
from ds.errors import UsageError
from ds.output import bytes_progress, errors, human_bytes, plural, print_json, print_table, print_text
from ds.settings import current_settings
from loaders import PackProgress
from sources import SourceChangedError

_SHOWN = 10
_RAISE = "raise spec.tiers[0].capacity of its CacheRuntime and apply it"


def load_command(
    target: Annotated[
        str | None,
        typer.Argument(
            help="[DATASET][@REVISION][/PATH]; default: the current branch.", autocompletion=complete_target
        ),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option("--diff", help="A..B: only what B has and A has not.", autocompletion=complete_revision),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and stop.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests to the sources at once.")] = 16,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a version into this node's cache before training; run again to resume.

    Done means verified: every planned byte is in the cache. Otherwise the files that failed are named and the exit
    code is 1.

    \b
    Examples:
      ds load digits@main
      ds load --diff main..augment
      ds load digits@main/images --dry-run
    """
    opened, where = open_target(target, dataset)
    if opened.opened.runtime is None:
        raise UsageError(f"dataset {opened.name} names no cache: add spec.cache.runtimeRef to its manifest")
    since, revision = None, where.revision
    if diff is not None:
        if where.revision:
            raise UsageError("--diff A..B says which versions; leave @REVISION out")
        since, revision = split_range(diff)
    commit = opened.resolve(revision)  # once: the branch may move while we load
    plan = opened.plan_load(commit, prefix=where.path, since=since)
    if dry_run:
        _print_plan(plan, json=json)
        return
    with bytes_progress() as bar:
        task = bar.add_task("loading", total=plan.total_bytes)
        report = run_load(
            opened.client,
            plan,
            on_progress=lambda now: bar.update(task, completed=now.bytes_done),
            concurrency=concurrency,
        )
    _print_report(plan, report, json=json)
    if any(failure.kind == SourceChangedError.kind for failure in report.failures):
        errors().print(f'ds: the object changed since commit {commit[:8]}: run "ds import"', markup=False)
    if not report.verified:
        raise typer.Exit(1)


def pack_command(
    target: Annotated[
        str | None,
        typer.Argument(help="[DATASET][@BRANCH]; default: the current branch.", autocompletion=complete_target),
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Put the samples in a global random order.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --shuffle; the same seed gives the same bytes.")] = 0,
    shard_size: Annotated[str, typer.Option("--shard-size", help="Size of a shard, such as 64Mi.")] = "64Mi",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Merge the small files of a branch into tar shards: a new commit of the same content in a new layout.

    Files over 16 MiB stay where they are. A branch that has the layout already is left as it is.

    \b
    Examples:
      ds pack digits@main --shuffle --seed 7
    """
    shard_bytes = _shard_bytes(shard_size)
    opened, where = open_target(target, dataset)
    branch = opened.branch_of(where.revision)
    head = opened.repository.head(branch)
    with bytes_progress() as bar, opened.naming_commit(opened.resolve(where.revision)):
        task = bar.add_task("packing")

        def show(now: PackProgress) -> None:
            bar.update(
                task,
                completed=now.done_bytes,
                total=now.total_bytes,
                description=f"packing into {plural(now.shards, 'shard')}",
            )

        found = opened.pack(
            where.revision,
            shuffle=shuffle,
            seed=seed,
            shard_size=shard_bytes,
            message=message,
            author=author,
            on_progress=show,
        )
    commit = opened.repository.commit(found)
    if json:
        print_json("pack", {"commit": found, "stats": asdict(commit.stats)})
        return
    if found == head:
        print_text(f"nothing to pack: {branch} {found[:8]} has this layout")
        return
    print_text(f"[{branch} {found[:8]}] {commit.message.partition(chr(10))[0]}")
    print_text(f" {plural(commit.stats.layout, 'file')} with the same content in a new layout")


def _shard_bytes(text: str) -> int:
    try:
        count = parse_quantity(text)
    except ValueError as error:
        raise UsageError(f"--shard-size: {error}") from error
    if not count:
        raise UsageError("--shard-size: a shard has at least 1 byte, such as 64Mi")
    return count


def cache_status_command(
    name: Annotated[str | None, typer.Argument(help="Cache runtime; default: all of this machine.")] = None,
    json: JsonOption = False,
) -> None:
    """Show how full the caches of this machine are.

    \b
    Examples:
      ds cache status
    """
    catalog = Catalog(current_settings().home)
    rows = []
    for found in [name] if name else catalog.names("CacheRuntime"):
        record = catalog.find("CacheRuntime", found)
        if record is None or not isinstance(record.resource, CacheRuntime):
            raise UsageError(f"no cache runtime {found!r}; known: {', '.join(catalog.names('CacheRuntime')) or 'none'}")
        status = open_block_store(record.resource).status()
        rows.append({"name": found, "path": record.resource.spec.tiers[0].path, **asdict(status)})
    if json:
        print_json("cache", rows)
        return
    cells = [
        (
            row["name"],
            human_bytes(row["used_bytes"]),
            human_bytes(row["capacity_bytes"]),
            row["objects"],
            row["blocks"],
            row["path"],
        )
        for row in rows
    ]
    print_table(
        ("NAME", "USED", "CAPACITY", "OBJECTS", "BLOCKS", "PATH"),
        cells,
        right=("USED", "CAPACITY", "OBJECTS", "BLOCKS"),
    )


def _print_plan(plan: LoadPlan, *, json: bool) -> None:
    if json:
        print_json("load-plan", _plan(plan))
        return
    missing = f"{human_bytes(plan.fetch_bytes)} in {plural(plan.fetch_objects, 'object')}"
    print_text(f"{plural(plan.total_objects, 'object')}, {human_bytes(plan.total_bytes)} in this version")
    print_text(f"  {human_bytes(plan.present_bytes)} are in the cache")
    print_text(f"  {missing} would be fetched from the sources")
    if not plan.fits:
        print_text(f"  the cache has room for {human_bytes(plan.room_bytes)} of it: {_RAISE}")


def _print_report(plan: LoadPlan, report: LoadReport, *, json: bool) -> None:
    if json:
        print_json("load", {**_plan(plan), **asdict(report), "verified": report.verified})
        return
    whole = f"{plural(plan.total_objects, 'object')}, {human_bytes(plan.total_bytes)}"
    if not plan.fetch_objects:
        print_text(f"everything is there: {whole}; nothing was fetched")
        return
    fetched, rate = human_bytes(report.fetched_bytes), human_bytes(report.fetched_bytes / max(report.seconds, 0.001))
    print_text(f"loaded {fetched} in {plural(report.fetched_objects, 'object')} ({report.seconds:.1f} s, {rate}/s)")
    for failure in report.failures[:_SHOWN]:
        errors().print(f"failed: {failure.reason}", markup=False)
    if report.failed_objects > _SHOWN:
        errors().print(f"... and {report.failed_objects - _SHOWN:,} more (ds load --json names them)")
    if report.left_out_objects:
        left = f"{plural(report.left_out_objects, 'object')}, {human_bytes(report.left_out_bytes)}"
        errors().print(f"left out, for the cache is full: {left}; {_RAISE}")
    if report.verified:
        print_text(f"verified: {whole} are in the cache")


def _plan(plan: LoadPlan) -> dict[str, Any]:
    names = ("total_objects", "total_bytes", "present_objects", "present_bytes", "fetch_objects", "fetch_bytes", "fits")
    return {name: getattr(plan, name) for name in names}
