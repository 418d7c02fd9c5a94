"""Commands on the way to a commit: import, add, rm, mv, reset, commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ds.commands.options import (
    AuthorOption,
    DatasetOption,
    JsonOption,
    NoVerifyOption,
    QuietOption,
    complete_revision,
    open_dataset,
)
from ds.conduct import sign_with
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.lineage import make_lineage
from ds.merging import reset_branch
from ds.output import errors, human_bytes, plural, print_json, print_text
from ds.progress import bytes_progress, count_progress
from ds.worktree import WorkingDataset
from versioning import AddProgress, ChangeSet, NothingToCommitError


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

        left_out: dict[str, int] = {}
        changes = opened.import_sources(restart=restart, on_progress=show, on_excluded=left_out.__setitem__)
    _print_staged(opened, changes, json=json, excluded=sum(left_out.values()))


def add_command(
    paths: Annotated[list[str] | None, typer.Argument(help="Local files or directories, or URIs of a source.")] = None,
    to: Annotated[
        str, typer.Option("--to", help="Directory of the dataset that they go into; default: its root.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", "-A", help="In a working copy: all that was changed, added or deleted.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Stage files: copy them into the repository, or point at objects of a source.

    A directory's files keep their paths relative to it. Small files are stored together in tar packs. In a working copy
    files keep their paths, deleted ones are staged as deleted, and .dsignore is heeded. An object of a source is
    pinned as it is now, and not copied.

    \b
    Examples:
      ds add ./rotated --to images
      ds add -A
      ds add s3://bucket/raw/2026/ --to raw
    """
    opened = open_dataset(dataset)
    if everything != (not paths):
        raise UsageError("which files? name some, or everything with -A" if not paths else "-A takes no paths")
    with bytes_progress() as bar:
        task = bar.add_task("adding", total=None)

        def show(now: AddProgress) -> None:
            bar.update(task, completed=now.bytes)

        if paths:
            changes = _add(opened, paths, to, show)
        elif isinstance(opened, WorkingDataset):
            changes = opened.add_changed(untracked=True, on_progress=show)
        else:
            raise UsageError("-A is for working copies; this directory is in none")
    _print_staged(opened, changes, json=json)


def _add(opened: Dataset, paths: list[str], to: str, show: Callable[[AddProgress], None]) -> ChangeSet:
    uris = [path for path in paths if "://" in path]
    local = [path for path in paths if "://" not in path]
    changes = ChangeSet.of()
    for uri in uris:
        changes = changes.merged_with(opened.add_objects(uri, to=to))
    return changes.merged_with(opened.add(local, to=to, on_progress=show)) if local else changes


def rm_command(
    paths: Annotated[list[str], typer.Argument(help="Files or directories of the dataset.")],
    cached: Annotated[bool, typer.Option("--cached", help="Leave the files of a working copy on the disk.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Delete changed files of a working copy, too.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Stage the removal of files, and delete them from a working copy; nothing is deleted in the sources.

    \b
    Examples:
      ds rm images/3/0042.png
      ds rm labels
    """
    opened = open_dataset(dataset)
    if isinstance(opened, WorkingDataset):
        changes = opened.remove(paths, cached=cached, force=force)
    else:
        changes = opened.remove(paths)
    _print_staged(opened, changes, json=json)


def mv_command(
    source: Annotated[str, typer.Argument(help="A file or directory of the dataset.")],
    target: Annotated[str, typer.Argument(help="Its new path.")],
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Rename a file or directory; no byte is copied. In a working copy it is renamed on the disk, too.

    \b
    Examples:
      ds mv images/old images/new
    """
    opened = open_dataset(dataset)
    _print_staged(opened, opened.move(source, target), json=json)


def reset_command(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Move the branch to this revision instead, even if that leaves commits behind; what is staged stays.",
            autocompletion=complete_revision,
        ),
    ] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Forget what is staged on the branch, or move it; sources, versions and local files stay as they are.

    \b
    Examples:
      ds reset && ds import
      ds reset --to main~1
    """
    opened = open_dataset(dataset)
    if to is not None:
        _move(opened, to, json=json)
        return
    counts = _counts(opened.reset())
    if json:
        print_json("reset", {"branch": opened.branch_name, **counts})
    else:
        print_text(f"nothing is staged on {opened.branch_name or 'HEAD'} now ({_described(counts) or 'nothing was'})")


def _move(opened: Dataset, revision: str, *, json: bool) -> None:
    at = opened.resolve(revision)
    before = reset_branch(opened, at)
    if json:
        print_json("reset", {"branch": opened.branch, "commit": at, "before": before})
    else:
        back = f" (was {before[:8]}; back with: ds reset --to {before[:8]})" if before and before != at else ""
        print_text(f"{opened.branch} at {at[:8]}{back}")


def commit_command(
    message: Annotated[str, typer.Option("--message", "-m", help="What changed and why.")],
    meta: Annotated[
        list[str] | None, typer.Option("--meta", help="KEY=VALUE kept with the commit; may repeat.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="ds://DATASET@REVISION[/PATH] that this was made from; may repeat."),
    ] = None,
    params: Annotated[
        list[str] | None, typer.Option("--param", help="KEY=VALUE of the run that made it; may repeat.")
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Keep the git commit of the current directory, which made it.")
    ] = False,
    sign: Annotated[bool, typer.Option("--sign", "-S", help="Sign with an SSH key.")] = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="The key to sign with; default: $FOREBAY_SIGNING_KEY.")
    ] = None,
    no_verify: NoVerifyOption = False,
    author: AuthorOption = None,
    changed: Annotated[
        bool, typer.Option("--all", "-a", help="Stage every changed and deleted file of a working copy first.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Record what is staged as a new version of the branch.

    \b
    Examples:
      ds commit -m "first import"
      ds commit -m "relabelled" --meta ticket=DATA-42
      ds commit -m "embedded" --input ds://digits@main/images --code --param model=vit-b
      ds commit -m "released" --sign --key ~/.ssh/id_ed25519
    """
    if not message.strip():
        raise UsageError("an empty message; say what changed and why: ds commit -m MESSAGE")
    opened = open_dataset(dataset)
    lineage = make_lineage(
        opened, inputs=inputs or [], code_directory=Path.cwd() if code else None, params=_pairs(params or [], "--param")
    )
    if sign or key is not None:
        sign_with(opened.repository, key or opened.settings.signing_key)
    opened.repository.gate.skips = no_verify
    if changed:
        if not isinstance(opened, WorkingDataset):
            raise UsageError("-a is for working copies; this directory is in none")
        opened.add_changed(untracked=False)
    try:
        commit_id = opened.commit(message, author=author, meta=_pairs(meta or [], "--meta"), lineage=lineage)
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
        counts = f"{stats.added:,} added, {stats.modified:,} modified, {stats.deleted:,} deleted"
        print_text(f" {plural(stats.files, 'file')}, {human_bytes(stats.bytes)} ({counts})")


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{option} {text}: expected KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _print_staged(opened: Dataset, changes: ChangeSet, *, json: bool, excluded: int | None = None) -> None:
    counts = _counts(changes)
    if json:
        extra = {} if excluded is None else {"excluded": excluded}
        print_json("stage", {"branch": opened.branch_name, **counts, **extra})
    elif not changes:
        print_text(f"nothing changed since the last commit of {opened.branch_name or 'HEAD'}")
    else:
        print_text(
            f'{_described(counts)} staged on {opened.branch_name or "HEAD"} (use "ds commit -m MESSAGE" to record)'
        )
    if excluded and not json:
        print_text(f"{plural(excluded, 'object')} left out by exclude")


def _counts(changes: ChangeSet) -> dict[str, int]:
    return {"upserts": changes.upserts.num_rows, "deleted": len(changes.deleted)}


def _described(counts: dict[str, int]) -> str:
    nouns = {"upserts": "new or changed file", "deleted": "deleted file"}
    return " and ".join(plural(counts[name], noun) for name, noun in nouns.items() if counts[name])
