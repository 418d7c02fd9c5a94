"""Commands about the layout of a version: pack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ds.commands.options import (
    AuthorOption,
    DatasetOption,
    JsonOption,
    complete_target,
    open_target,
    parse_bytes,
)
from ds.durations import human_seconds
from ds.errors import UsageError
from ds.output import human_bytes, plural, print_json, print_text
from ds.pack_display import PackDisplay
from loaders import PackOptions, PackPlan, PackReport

_SHOWN = 10


def pack_command(
    target: Annotated[
        str | None,
        typer.Argument(help="[DATASET][@BRANCH]; default: the current branch.", autocompletion=complete_target),
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Put the samples in a global random order.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --shuffle; the same seed gives the same bytes.")] = 0,
    shard_size: Annotated[str, typer.Option("--shard-size", help="Size of a shard, such as 64Mi.")] = "64Mi",
    key: Annotated[
        str | None,
        typer.Option(
            help="What joins files into samples: path, stem, a regular expression with a group named key, or "
            "module:function; default: as in the manifest."
        ),
    ] = None,
    transform: Annotated[
        str | None,
        typer.Option(help="module:function: gets each sample, a dict of bytes, and returns one, or None to drop it."),
    ] = None,
    transform_version: Annotated[
        str, typer.Option("--transform-version", help="Version of that code, in your words; kept in the commit.")
    ] = "",
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=1024, help="Processes of this machine; each needs memory for two shards, in a directory 32 MiB."
        ),
    ] = 1,
    executor: Annotated[
        str | None, typer.Option(help="Cluster to work on instead: dask://host:port, ray://host:port or ray://auto.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an interrupted pack, or begin anew.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read each shard back and compare its hash, not only its size.")
    ] = False,
    skip_errors: Annotated[
        int, typer.Option("--skip-errors", min=0, help="Inputs that may be unreadable or fail, and are left out.")
    ] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Write the report, with all skipped inputs, as JSON here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Merge the small files of a branch into tar shards: a new commit of the same content in a new layout.

    Files over 16 MiB stay where they are. A branch that has the layout already is left as it is. Interrupted, run it
    again: only the shards that are missing are written, and the result is the same to the byte, whatever the workers.

    With --transform the new commit has other content, and says which function made it.

    \b
    Examples:
      ds pack digits@main --shuffle --seed 7
      ds pack digits --workers 8 --shard-size 256Mi --verify
      ds pack digits --key '(?P<key>[^/]+)_(?P<field>[a-z]+)\\.[a-z]+$'
      ds pack digits@small --transform mypackage.images:resize --skip-errors 100
      ds pack digits --executor dask://scheduler:8786
    """
    opened, where = open_target(target, dataset)
    if executor is not None and workers != 1:
        raise UsageError("--workers is for processes of this machine; leave it out with --executor")
    layout = opened.shard_layout(
        shuffle=shuffle, seed=seed, shard_size=parse_bytes(shard_size, "--shard-size"), key=key
    )
    options = PackOptions(
        workers=workers,
        executor=executor,
        transform=transform,
        transform_version=transform_version,
        resume=resume,
        verify=verify,
        skip_errors=skip_errors,
    )
    if dry_run:
        _show_plan(opened.plan_pack(where.revision, layout=layout, options=options), json=json)
        return
    branch = opened.branch_of(where.revision)
    with PackDisplay() as display, opened.naming_commit(opened.resolve(where.revision)):
        found = opened.pack(
            where.revision, layout=layout, options=options, message=message, author=author, on_progress=display.show
        )
    commit = opened.repository.commit(found.commit)
    data = {**asdict(found), "stats": asdict(commit.stats)}
    if report is not None:
        _write_report(report, data)
    if json:
        print_json("pack", data)
        return
    if not found.is_new:
        print_text(f"nothing to pack: {branch} {found.commit[:8]} has this layout")
        return
    print_text(f"[{branch} {found.commit[:8]}] {commit.message.partition(chr(10))[0]}")
    if transform is None:
        print_text(f" {plural(commit.stats.layout, 'file')} with the same content in a new layout")
    _show_report(found)


def _show_plan(plan: PackPlan, *, json: bool) -> None:
    if json:
        print_json("pack-plan", asdict(plan))
        return
    print_text(
        f"{plural(plan.samples, 'sample')} of {plural(plan.files, 'file')}, {human_bytes(plan.bytes)}, would go into"
        f" {plural(plan.shards, 'shard')}, {human_bytes(plan.tar_bytes)}"
    )
    if plan.stored_shards:
        print_text(f"{plural(plan.stored_shards, 'shard')} of them were stored by a run that was interrupted")
    if plan.large_files:
        print_text(f"{plural(plan.large_files, 'file')} over 16 MiB would stay in place")


def _show_report(found: PackReport) -> None:
    parts = [
        plural(found.samples, "sample"),
        plural(found.shards, "shard"),
        human_bytes(found.bytes),
        human_seconds(found.seconds),
    ]
    if found.resumed_shards:
        parts.append(f"{plural(found.resumed_shards, 'shard')} of an earlier run")
    if found.dropped:
        parts.append(f"{plural(found.dropped, 'sample')} dropped by the transform")
    print_text(f" {', '.join(parts)}")
    if found.skipped:
        print_text(f" {plural(len(found.skipped), 'input')} skipped:")
        for each in found.skipped[:_SHOWN]:
            print_text(f"  {each.path}: {each.reason}")
        if len(found.skipped) > _SHOWN:
            print_text(f"  and {len(found.skipped) - _SHOWN:,} more; see them all with --report FILE")


def _write_report(path: Path, data: object) -> None:
    import json

    try:
        path.write_text(json.dumps({"schema": "ds.pack.v1", "data": data}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--report {path}: {error.strerror or error}; the pack itself is committed") from error
