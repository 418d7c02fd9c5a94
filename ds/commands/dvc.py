"""Commands that take from and give to DVC: dvc import, export dvc."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.dvc_exporting import LinkKind, export_dvc
from ds.dvc_importing import DvcImportOptions, import_dvc
from ds.output import human_bytes, plural, print_json, print_text
from ds.progress import bytes_progress, count_progress


def import_command(
    place: Annotated[str, typer.Argument(help="A git repository with DVC: directory or URL.", metavar="PATH|URL")],
    rev: Annotated[
        str | None, typer.Option("--rev", help="Branch, tag or commit; default: the default branch.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All branches and tags.")] = False,
    to: Annotated[
        str | None, typer.Option("--to", help="Directory of the dataset; default: the path of the dvc://objects mount.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="Name of the branch here; default: as in git.")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out files that neither cache nor remote has.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Let branches leave commits behind, as after a rewritten history.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Repeat the history of a DVC project as commits; no byte of its files is read.

    Each git commit that changes what DVC tracks becomes a commit, with its author, time and message. The files stay in
    DVC's cache or remote, which a mount of dvc://objects names. What was imported before is not imported again.

    \b
    Examples:
      ds dvc import .
      ds dvc import https://git.example.org/audio/speech.git --all
      ds dvc import ../speech --rev v1.2 --to speech
    """
    options = DvcImportOptions(rev, everything, to, branch, skip_missing, force)
    opened = open_dataset(dataset)
    with count_progress() as bar:
        task = bar.add_task("git commits", total=None, rate="")
        found = import_dvc(opened, place, options, on_progress=lambda count: bar.update(task, completed=count))
    opened.follow()
    if json:
        print_json("dvc-import", asdict(found))
        return
    counts = found.counts
    left_out = f", {plural(counts.missing, 'missing file')} left out" if counts.missing else ""
    print_text(f"{plural(counts.commits, 'new commit')}{left_out}")
    for name, commit in [*found.branches.items(), *((f"tag {name}", at) for name, at in found.tags.items())]:
        print_text(f"  {name} at {commit[:8]}")


def export_command(
    revision: Annotated[str, typer.Argument(help="The version.", metavar="REV", autocompletion=complete_revision)],
    directory: Annotated[
        Path, typer.Argument(help="A git repository, with or without DVC, or a new directory.", metavar="PATH")
    ],
    link: Annotated[
        LinkKind, typer.Option("--link", help="How files lie beside the cache; none: leave them to dvc checkout.")
    ] = LinkKind.COPY,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Write a version as a DVC project: its cache, its files, and a .dvc file for each thing at the top.

    What the cache has is not written again, so that an interrupted export goes on. Files that DVC's cache does not have
    are never replaced or deleted. Commit the .dvc files with git.

    \b
    Examples:
      ds export dvc main ../speech
      ds export dvc v1.2 ../speech --link hardlink
    """
    opened = open_dataset(dataset)
    with bytes_progress() as bar:
        task = bar.add_task("exporting", total=None)
        done = export_dvc(
            opened, revision, directory, link=link, on_progress=lambda count: bar.update(task, advance=count)
        )
    if json:
        print_json("export-dvc", asdict(done))
        return
    print_text(f"{plural(done.files, 'file')} of {done.commit[:8]} in {plural(len(done.outputs), 'output')}")
    print_text(
        f"{plural(done.copied, 'object')} written ({human_bytes(done.copied_bytes)}); now: git add --all && git commit"
    )
