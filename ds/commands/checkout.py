"""Commands that write the files of a working copy: checkout, restore, sparse."""

from __future__ import annotations

from typing import Annotated

import typer

from ds.commands.options import JsonOption, complete_revision, open_working
from ds.commands.pathspecs import paths_of
from ds.errors import UsageError
from ds.output import human_bytes, plural, print_json, print_text
from ds.progress import bytes_progress
from ds.worktree import WorkingDataset
from versioning.worktree import UpdateReport

PatternsArgument = Annotated[list[str], typer.Argument(help="Such as 'train/**', '*.json' or /labels.")]
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Throw away what was changed and staged here.")]


def checkout_command(
    context: typer.Context,
    revision: Annotated[
        str | None, typer.Argument(help="Branch, tag or commit; default: HEAD.", autocompletion=complete_revision)
    ] = None,
    create: Annotated[str | None, typer.Option("--create", "-b", help="Create this branch there first.")] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Let the files of a working copy be those of a version; only what differs is written or deleted.

    A branch is checked out at its newest commit. Files that were changed here are never overwritten: the command names
    them and exits with 1. A checkout that was interrupted is finished by running it again. Paths after -- are taken
    from the version and staged, over what is there, and nothing else is checked out.

    \b
    Examples:
      ds checkout main
      ds checkout -b experiment v1
      ds checkout v1 -- labels.csv
    """
    opened, paths = open_working(), paths_of(context)
    if paths:
        if create:
            raise UsageError("-b checks out a whole version; leave the paths out")
        report = restore(opened, paths, revision=revision or "HEAD", stage=True)
    else:
        if create:
            at = opened.resolve(revision)
            opened.create_branch(create, at)
            report = check_out(opened, at, branch=create, force=force)
        else:
            report = check_out(opened, revision, force=force)
    head = opened.copy.index().head
    if json:
        print_json("checkout", {"branch": head.branch, "commit": head.commit, **_counts(report)})
        return
    where = f"on branch {head.branch}" if head.branch else f"HEAD is now at {(head.commit or '')[:8]}"
    print_text(f"{where} ({_described(report)})")


def restore_command(
    paths: Annotated[list[str], typer.Argument(help="Files or directories.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--source", "-s", help="Their version; default: staged, else checked out.", autocompletion=complete_revision
        ),
    ] = None,
    staged: Annotated[bool, typer.Option("--staged", "-S", help="Forget what is staged; leave the files.")] = False,
    json: JsonOption = False,
) -> None:
    """Write files of a working copy as they were; what was changed in them is lost.

    \b
    Examples:
      ds restore labels.csv
      ds restore -s main~3 images/3
      ds restore --staged labels.csv
    """
    opened = open_working()
    if staged:
        if source:
            raise UsageError("--staged forgets what is staged; it takes no --source")
        count = sum(len(opened.reset(opened.path(path)).paths()) for path in paths)
        if json:
            print_json("restore", {"unstaged": count})
        else:
            print_text(f"{plural(count, 'file')} not staged any more")
        return
    report = restore(opened, paths, revision=source)
    if json:
        print_json("restore", _counts(report))
        return
    print_text(f"{plural(report.files, 'file')} restored, {human_bytes(report.bytes)}")


def sparse_set_command(patterns: PatternsArgument, json: JsonOption = False) -> None:
    """Hold only the files that match one of some patterns, and delete the others from the disk.

    A pattern is as in .gitattributes: without a slash it is looked for in every directory, a directory stands for all
    below it. Files that were changed here stay.

    \b
    Examples:
      ds sparse set 'train/**' labels.csv
    """
    _change(open_working(), patterns, json=json)


def sparse_add_command(patterns: PatternsArgument, json: JsonOption = False) -> None:
    """Hold the files that match more patterns, too.

    \b
    Examples:
      ds sparse add 'test/**'
    """
    opened = open_working()
    now = opened.copy.index().head.sparse
    if not now:
        raise UsageError("this working copy holds everything; choose a part of it with: ds sparse set PATTERN")
    _change(opened, [*now, *(each for each in patterns if each not in now)], json=json)


def sparse_list_command(json: JsonOption = False) -> None:
    """Print the patterns; none if the working copy holds everything.

    \b
    Examples:
      ds sparse list
    """
    patterns = list(open_working().copy.index().head.sparse)
    if json:
        print_json("sparse", {"patterns": patterns})
        return
    for pattern in patterns:
        print_text(pattern)


def sparse_disable_command(json: JsonOption = False) -> None:
    """Hold every file again.

    \b
    Examples:
      ds sparse disable
    """
    _change(open_working(), [], json=json)


def restore(opened: WorkingDataset, paths: list[str], *, revision: str | None, stage: bool = False) -> UpdateReport:
    """Restore files, showing how far it is."""
    with bytes_progress() as bar:
        task = bar.add_task("restoring", total=None)
        return opened.restore(
            paths,
            revision=revision,
            stage=stage,
            on_progress=lambda now: bar.update(task, total=now.bytes, completed=now.written_bytes),
        )


def _change(opened: WorkingDataset, patterns: list[str], *, json: bool) -> None:
    report = check_out(opened, None, sparse=patterns)
    if json:
        print_json("sparse", {"patterns": patterns, **_counts(report)})
        return
    print_text(_described(report))


def _described(report: UpdateReport) -> str:
    return f"{plural(report.written, 'file')} written, {report.removed:,} deleted"


def _counts(report: UpdateReport) -> dict[str, int]:
    return {"written": report.written, "written_bytes": report.written_bytes, "removed": report.removed}


def check_out(
    opened: WorkingDataset,
    revision: str | None,
    *,
    branch: str | None = None,
    sparse: list[str] | None = None,
    force: bool = False,
) -> UpdateReport:
    """Check a revision out, showing how far it is."""
    with bytes_progress() as bar:
        task = bar.add_task("checking out", total=None)
        return opened.checkout(
            revision,
            branch=branch,
            sparse=sparse,
            force=force,
            on_progress=lambda now: bar.update(task, total=now.bytes, completed=now.written_bytes),
        )
