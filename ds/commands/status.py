"""The command status: what is staged, and in a working copy what was changed since."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ds.commands.merging import conflicts_record
from ds.commands.options import DatasetOption, JsonOption, open_dataset
from ds.dataset import Dataset
from ds.merging import merge_file
from ds.output import count_progress, plural, print_json, print_text
from ds.worktree import WorkingDataset
from versioning.worktree import Changes

_SHOWN = 20


def status_command(
    short: Annotated[bool, typer.Option("--short", "-s", "--porcelain", help="One line per file, as git's.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the branch, what is staged on it, and what was changed in a working copy. Exits with 1 if anything was.

    Only files whose size, times or inode differ are read. With --short the first letter is what is staged (A, M, D),
    the second what was changed since (M, D), and ?? a file that was never added.

    \b
    Examples:
      ds status
      ds status -s
    """
    opened = open_dataset(dataset)
    staged = opened.staged_diff()
    counts, rows = asdict(staged.summary()), staged.table.select(["path", "op"]).to_pylist()
    changes = _changes(opened) if isinstance(opened, WorkingDataset) else Changes()
    merge = merge_file(opened).read()
    if json:
        print_json("status", _document(opened, counts, rows, changes) | {"merge": conflicts_record(merge)})
    elif short:
        _print_short(rows, changes)
    else:
        if merge is not None:
            left = plural(merge.left.num_rows, "conflict")
            print_text(f"A {merge.job.kind} of {merge.job.source[:8]} is under way, {left} left (see: ds conflicts)")
        _print_long(opened, counts, rows, changes)
    if rows or changes or merge is not None:
        raise typer.Exit(1)


def _changes(opened: WorkingDataset) -> Changes:
    with count_progress() as bar:
        task = bar.add_task("files looked at", total=None, rate="")
        return opened.status(on_files=lambda count: bar.update(task, completed=count))


def _document(opened: Dataset, counts: dict[str, int], rows: list[Any], changes: Changes) -> dict[str, Any]:
    found: dict[str, Any] = {"dataset": opened.name, "branch": _branch(opened), "commit": opened.head()}
    found |= {"stat": counts, "changes": rows}
    if isinstance(opened, WorkingDataset):
        halfway = opened.copy.interrupted()
        found |= {"directory": str(opened.root), "interrupted": halfway[-1] if halfway else None}
        for name in ("modified", "deleted", "untracked"):
            found[name] = sorted(shown(path) for path in getattr(changes, name))
    return found


def _branch(opened: Dataset) -> str | None:
    return opened.copy.index().head.branch if isinstance(opened, WorkingDataset) else opened.branch


def _print_short(rows: list[Any], changes: Changes) -> None:
    letters = {row["path"]: [row["op"], " "] for row in rows}
    for letter, paths in (("M", changes.modified), ("D", changes.deleted)):
        for path in paths:
            letters.setdefault(path, [" ", " "])[1] = letter
    for path in sorted(letters, key=os.fsencode):
        print_text(f"{''.join(letters[path])} {shown(path)}")
    for path in sorted(changes.untracked, key=os.fsencode):
        print_text(f"?? {shown(path)}")


def _print_long(opened: Dataset, counts: dict[str, int], rows: list[Any], changes: Changes) -> None:
    branch, head = _branch(opened), opened.head()
    print_text(f"On branch {branch} of dataset {opened.name}" if branch else f"HEAD detached at {(head or '')[:8]}")
    if head is None:
        print_text("No commits yet")
    if isinstance(opened, WorkingDataset) and (halfway := opened.copy.interrupted()):
        print_text(f"A checkout of {halfway[-1][:8]} was interrupted (finish it with: ds checkout {halfway[-1][:8]})")
    if not rows and not changes:
        print_text("nothing to commit, working tree clean")
        return
    _print_files([f"{row['op']}  {row['path']}" for row in rows])
    if rows:
        staged = ", ".join(f"{counts[name]:,} {name}" for name in ("added", "modified", "deleted"))
        print_text(f'{staged}; staged (use "ds commit -m MESSAGE" to record)')
    if changes.modified or changes.deleted:
        print_text('Changed but not staged (use "ds add PATH", or "ds restore PATH" to undo):')
        marked = [(path, "M") for path in changes.modified] + [(path, "D") for path in changes.deleted]
        _print_files([f"{letter}  {path}" for path, letter in sorted(marked)])
    if changes.untracked:
        print_text('Untracked (use "ds add PATH" to include them):')
        _print_files([f"?  {path}" for path in sorted(changes.untracked)])


def _print_files(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print_text(shown(line))
    if len(lines) > _SHOWN:
        print_text(f"... and {len(lines) - _SHOWN:,} more (ds status -s names all)")


def shown(path: str) -> str:
    """Write a name that is not UTF-8 so that it can be printed."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
