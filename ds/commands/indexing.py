"""Commands about shards outside of a repository: index."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ds.commands.options import JsonOption, QuietOption
from ds.exit_codes import Exit
from ds.output import errors, plural, print_json, print_text
from ds.progress import count_progress
from loaders import index_shards


def index_command(
    shards: Annotated[
        list[str], typer.Argument(help="Tars: paths, URIs, globs or brace lists such as train-{000..127}.tar.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Write indexes that are up to date, too.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; default: one for each two shards, at most four.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    r"""Write an index, SHARD.idx, beside each tar that has none, so that samples are found without reading it.

    Indexes that are up to date are skipped: run it again after an interruption. Exits with 1 if a tar is damaged; the
    others have their index then.

    \b
    Examples:
      ds index 'train/*.tar'
      ds index 's3://bucket/train-{000000..000127}.tar'
    """
    reports = []
    with count_progress() as bar:
        task = bar.add_task("indexing shards:", total=None, rate="")
        for report in index_shards(shards, force=force, workers=workers):
            reports.append(report)
            bar.update(task, completed=len(reports))
    failed = [report for report in reports if report.error]
    for report in failed:
        errors().print(f"{report.uri}: {report.error}", style="red", markup=False)
    if json:
        print_json("index", {"shards": [asdict(report) for report in sorted(reports, key=lambda one: one.uri)]})
    elif not quiet:
        done = [report for report in reports if not report.error and not report.skipped]
        samples = sum(report.samples for report in done)
        text = f"indexed {plural(len(done), 'shard')} with {plural(samples, 'sample')}"
        skipped = sum(report.skipped for report in reports)
        print_text(text + (f"; {skipped} were up to date" if skipped else ""))
    if failed:
        raise typer.Exit(Exit.NO)
