"""Commands about versions: log, diff, branch, switch, tag, merge."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ds.commands.options import (
    AuthorOption,
    DatasetOption,
    JsonOption,
    complete_revision,
    open_dataset,
    open_target,
    split_range,
)
from ds.errors import UsageError
from ds.output import human_bytes, plural, print_json, print_text


def log_command(
    target: Annotated[str | None, typer.Argument(help="[DATASET][@REVISION]; default: the current branch.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Show so many commits.")] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line per commit.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the commits that lead to a revision, newest first.

    \b
    Examples:
      ds log --oneline
      ds log digits@augment -n 5
    """
    opened, where = open_target(target, dataset)
    commits = opened.repository.log(opened.resolve(where.revision), limit=limit)
    if json:
        print_json("log", [{"commit": found, **asdict(commit)} for found, commit in commits])
        return
    names: dict[str, list[str]] = {}
    for name, found in {**opened.repository.tags(), **opened.repository.branches()}.items():
        names.setdefault(found, []).append(name)
    for found, commit in commits:
        decoration = f" ({', '.join(sorted(names[found]))})" if found in names else ""
        subject = commit.message.splitlines()[0] if commit.message else ""
        if oneline:
            print_text(f"{found[:8]}{decoration} {subject}")
            continue
        print_text(f"commit {found}{decoration}")
        if len(commit.parents) > 1:
            print_text("Merge:  " + " ".join(parent[:8] for parent in commit.parents))
        print_text(f"Author: {commit.author}\nDate:   {commit.authored_at}\n")
        print_text("\n".join(f"    {line}" for line in commit.message.splitlines()))
        print_text(f"\n    {plural(commit.stats.files, 'file')}, {human_bytes(commit.stats.bytes)}\n")


def diff_command(
    revisions: Annotated[
        str, typer.Argument(help="A..B, or A to compare with the current branch.", autocompletion=complete_revision)
    ],
    stat: Annotated[bool, typer.Option("--stat", help="Counts and bytes only.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there are differences.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show which files differ: A added, M modified, D deleted, L same content stored elsewhere.

    \b
    Examples:
      ds diff main..augment --stat
      ds diff main~1..main
    """
    opened = open_dataset(dataset)
    old, new = split_range(revisions)
    diff = opened.diff(old, new)
    summary = diff.summary()
    rows = diff.table.select(["path", "op", "old_size", "new_size"]).to_pylist() if not stat or json else []
    if json:
        print_json(
            "diff", {"old": opened.resolve(old), "new": opened.resolve(new), "stat": asdict(summary), "changes": rows}
        )
    elif stat:
        _print_stat(asdict(summary))
    else:
        for row in rows:
            print_text(f"{row['op']}  {row['path']}")
    if exit_code and diff.table.num_rows:
        raise typer.Exit(1)


def branch_command(
    name: Annotated[str | None, typer.Argument(help="Branch to create; default: list them.")] = None,
    start: Annotated[
        str | None, typer.Argument(help="Where it starts; default: here.", autocompletion=complete_revision)
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", "-D", help="Delete the branch; its commits stay.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """List branches, create one, or delete one.

    \b
    Examples:
      ds branch
      ds branch augment
      ds branch hotfix main~3
      ds branch -D augment
    """
    opened = open_dataset(dataset)
    if name is None:
        branches = opened.repository.branches()
        if json:
            print_json("branches", {"current": opened.branch, "branches": branches})
            return
        for found in sorted(branches):
            print_text(f"{'*' if found == opened.branch else ' '} {found} {branches[found][:8]}")
        return
    if delete:
        if name == opened.branch:
            raise UsageError(f"the dataset is on {name}; switch to another branch first: ds switch main")
        opened.repository.delete_branch(name)
        print_text(f"deleted branch {name}")
        return
    at = opened.resolve(start)
    opened.create_branch(name, at)
    print_text(f"branch {name} at {at[:8]}")


def switch_command(
    name: Annotated[str, typer.Argument(help="The branch.", autocompletion=complete_revision)],
    create: Annotated[bool, typer.Option("--create", "-c", help="Create it here first.")] = False,
    dataset: DatasetOption = None,
) -> None:
    """Put the dataset on a branch: what import, add and commit work on.

    \b
    Examples:
      ds switch main
      ds switch -c experiment
    """
    opened = open_dataset(dataset)
    if create:
        opened.create_branch(name, opened.resolve(None))
    opened.switch(name)
    print_text(f"on branch {name}")


def tag_command(
    name: Annotated[str | None, typer.Argument(help="Tag to create; default: list them.")] = None,
    revision: Annotated[
        str | None, typer.Argument(help="What it names; default: here.", autocompletion=complete_revision)
    ] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """List tags, or give a version a name that never moves.

    \b
    Examples:
      ds tag v1
      ds tag paper main~2
    """
    opened = open_dataset(dataset)
    if name is not None:
        at = opened.resolve(revision)
        opened.repository.create_tag(name, at)
        print_text(f"tag {name} at {at[:8]}")
        return
    tags = opened.repository.tags()
    if json:
        print_json("tags", tags)
        return
    for found in sorted(tags):
        print_text(f"{found} {tags[found][:8]}")


def merge_command(
    revision: Annotated[str, typer.Argument(help="Branch or other revision.", autocompletion=complete_revision)],
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the merge commit.")] = None,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Merge a revision into the current branch: fast-forward, or three-way by path.

    With conflicts nothing is changed, the conflicting paths are listed and the exit code is 1.

    \b
    Examples:
      ds merge augment
    """
    opened = open_dataset(dataset)
    result = opened.merge(revision, message=message, author=author)
    if json:
        print_json("merge", {"result": result.kind, "commit": result.commit, "branch": opened.branch})
        return
    print_text(f"{opened.branch}: {result.kind} to {result.commit[:8]}")


def _print_stat(summary: dict[str, int]) -> None:
    files = sum(summary[name] for name in ("added", "modified", "deleted"))
    print_text(
        f" {plural(files, 'file')} changed: {summary['added']:,} added (+{human_bytes(summary['added_bytes'])}), "
        f"{summary['modified']:,} modified, {summary['deleted']:,} deleted (-{human_bytes(summary['deleted_bytes'])})"
    )
    if summary["layout"]:
        print_text(f" {plural(summary['layout'], 'file')} with the same content in a new layout")
