"""Commands on the way to a commit: import, add, rm, status, reset, commit."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from ds.commands.options import AuthorOption, DatasetOption, JsonOption, QuietOption, open_dataset
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.output import bytes_progress, count_progress, errors, human_bytes, plural, print_json, print_text
from versioning import ChangeSet, NothingToCommitError

_SHOWN = 20


def import_command(
    restart: Annotated[
        bool, typer.Option("--restart", help="List everything anew, even if an import was interrupted.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Stage what changed in the sources: new, changed and deleted files.

    Only listings are read. The commit will point at the source objects, each pinned at its version. An import that was
    interrupted less than a day ago goes on where it stopped.

    \b
    Examples:
      ds import && ds commit -m "nightly import"
      ds import --restart
    """
    opened = open_dataset(dataset)
    interrupted = None if restart else opened.import_interrupted_at()
    if interrupted is not None:
        when = f"{interrupted.astimezone():%H:%M:%S}"
        errors().print(f"going on with the import that was interrupted at {when}; --restart lists everything anew")
    start = time.monotonic()
    with count_progress() as bar:
        tasks: dict[str, Any] = {}

        def show(mount: str, count: int) -> None:
            if mount not in tasks:
                tasks[mount] = bar.add_task(f"listing {mount}", total=None, rate="")
            rate = count / max(time.monotonic() - start, 0.001)
            bar.update(tasks[mount], completed=count, rate=f"{rate:,.0f} objects/s")

        changes = opened.import_sources(restart=restart, on_progress=show)
    _print_staged(opened, changes, json=json)


def add_command(
    paths: Annotated[list[Path], typer.Argument(help="Local files or directories.")],
    to: Annotated[
        str, typer.Option("--to", help="Directory of the dataset that they go into; default: its root.")
    ] = "",
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Copy local files into the repository and stage them.

    A directory's files keep their paths relative to it. Small files are stored together in tar packs.

    \b
    Examples:
      ds add ./rotated --to images
      ds add labels.csv
    """
    opened = open_dataset(dataset)
    with bytes_progress() as bar:
        task = bar.add_task("adding", total=None)
        changes = opened.add(paths, to=to, on_progress=lambda now: bar.update(task, completed=now.bytes))
    _print_staged(opened, changes, json=json)


def rm_command(
    paths: Annotated[list[str], typer.Argument(help="Files or directories of the dataset.")],
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Stage the removal of files; nothing is deleted in the sources.

    \b
    Examples:
      ds rm images/3/0042.png
      ds rm labels
    """
    opened = open_dataset(dataset)
    _print_staged(opened, opened.remove(paths), json=json)


def status_command(dataset: DatasetOption = None, json: JsonOption = False) -> None:
    """Show the branch and what is staged on it. Exits with 1 if something is.

    \b
    Examples:
      ds status
    """
    opened = open_dataset(dataset)
    diff = opened.staged_diff()
    counts, rows = asdict(diff.summary()), diff.table.select(["path", "op"])
    if json:
        changes = {"commit": opened.head(), "stat": counts, "changes": rows.to_pylist()}
        print_json("status", {"dataset": opened.name, "branch": opened.branch, **changes})
    else:
        _print_status(opened, counts, rows)
    if rows.num_rows:
        raise typer.Exit(1)


def reset_command(dataset: DatasetOption = None, json: JsonOption = False) -> None:
    """Forget what is staged on the branch; sources, versions and local files stay as they are.

    \b
    Examples:
      ds reset && ds import
    """
    opened = open_dataset(dataset)
    counts = _counts(opened.reset())
    if json:
        print_json("reset", {"branch": opened.branch, **counts})
    else:
        print_text(f"nothing is staged on {opened.branch} now ({_described(counts) or 'nothing was'})")


def commit_command(
    message: Annotated[str, typer.Option("--message", "-m", help="What changed and why.")],
    meta: Annotated[
        list[str] | None, typer.Option("--meta", help="KEY=VALUE kept with the commit; may repeat.")
    ] = None,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Record what is staged as a new version of the branch.

    \b
    Examples:
      ds commit -m "first import"
      ds commit -m "relabelled" --meta ticket=DATA-42
    """
    opened = open_dataset(dataset)
    try:
        commit_id = opened.commit(message, author=author, meta=_pairs(meta or []))
    except NothingToCommitError:
        if not json:
            print_text("nothing to commit, working tree clean")
            raise typer.Exit(1) from None
        raise
    stats = opened.repository.commit(commit_id).stats
    if json:
        print_json("commit", {"commit": commit_id, "branch": opened.branch, "stats": asdict(stats)})
    elif not quiet:
        print_text(f"[{opened.branch} {commit_id[:8]}] {message.partition(chr(10))[0]}")
        changed = f"{stats.added:,} added, {stats.modified:,} modified, {stats.deleted:,} deleted"
        print_text(f" {plural(stats.files, 'file')}, {human_bytes(stats.bytes)} ({changed})")


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--meta {text}: expected KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _print_staged(opened: Dataset, changes: ChangeSet, *, json: bool) -> None:
    counts = _counts(changes)
    if json:
        print_json("stage", {"branch": opened.branch, **counts})
    elif not changes:
        print_text(f"nothing changed since the last commit of {opened.branch}")
    else:
        print_text(f'{_described(counts)} staged on {opened.branch} (use "ds commit -m MESSAGE" to record)')


def _counts(changes: ChangeSet) -> dict[str, int]:
    return {"upserts": changes.upserts.num_rows, "deleted": len(changes.deleted)}


def _described(counts: dict[str, int]) -> str:
    nouns = {"upserts": "new or changed file", "deleted": "deleted file"}
    return " and ".join(plural(counts[name], noun) for name, noun in nouns.items() if counts[name])


def _print_status(opened: Dataset, counts: dict[str, int], rows: pa.Table) -> None:
    print_text(f"On branch {opened.branch} of dataset {opened.name}")
    if opened.head() is None:
        print_text("No commits yet")
    for row in rows.slice(0, _SHOWN).to_pylist():
        print_text(f"{row['op']}  {row['path']}")
    if rows.num_rows > _SHOWN:
        print_text(f"... and {rows.num_rows - _SHOWN:,} more (ds status --json names all)")
    if rows.num_rows:
        staged = ", ".join(f"{counts[name]:,} {name}" for name in ("added", "modified", "deleted"))
        print_text(f'{staged}; staged (use "ds commit -m MESSAGE" to record)')
    else:
        print_text("nothing to commit, working tree clean")
