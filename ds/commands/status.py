"""The command status: what is staged, and in a working copy what was changed since."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ds.commands.options import DatasetOption, JsonOption, open_dataset
from ds.dataset import Dataset
from ds.merging import merge_file
from ds.output import plural, print_json, print_text
from ds.progress import count_progress
from ds.worktree import WorkingDataset
from versioning.worktree import Changes

_SHOWN = 20


def status_command(
    short: Annotated[bool, typer.Option("--short", "-s", help="One line per file, as git's.")] = False,
    porcelain: Annotated[
        bool, typer.Option("--porcelain", help="The same for programs: paths from the root of the working copy.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show the branch, what is staged on it, and what was changed in a working copy. Exits with 1 if anything was.

    Only files whose size, times or inode differ are read. With --short the first letter is what is staged (A, M, D),
    the second what was changed since (M, D), and ?? a file that was never added. Paths are relative to the current
    directory; with --porcelain and --json they are from the root.

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
        from ds.commands.merging import conflicts_record

        print_json("status", _document(opened, counts, rows, changes) | {"merge": conflicts_record(merge)})
    elif porcelain:
        _print_short(rows, changes, shown)
    elif short:
        _print_short(rows, changes, _naming(opened))
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


def _naming(opened: Dataset) -> Callable[[str], str]:
    """Return what writes a path of the dataset as it is seen from the current directory."""
    here = opened.path(".") if isinstance(opened, WorkingDataset) else ""
    return (lambda path: shown(os.path.relpath(path, here))) if here else shown


def _print_short(rows: list[Any], changes: Changes, name: Callable[[str], str]) -> None:
    letters = {row["path"]: [row["op"], " "] for row in rows}
    for letter, paths in (("M", changes.modified), ("D", changes.deleted)):
        for path in paths:
            letters.setdefault(path, [" ", " "])[1] = letter
    for path in sorted(letters, key=os.fsencode):
        print_text(f"{''.join(letters[path])} {name(path)}")
    for path in sorted(changes.untracked, key=os.fsencode):
        print_text(f"?? {name(path)}")


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
    name = _naming(opened)
    _print_files([(row["op"], row["path"]) for row in rows], name)
    if rows:
        staged = ", ".join(f"{counts[name]:,} {name}" for name in ("added", "modified", "deleted"))
        print_text(f'{staged}; staged (use "ds commit -m MESSAGE" to record)')
    if changes.modified or changes.deleted:
        print_text('Changed but not staged (use "ds add PATH", or "ds restore PATH" to undo):')
        marked = [(path, "M") for path in changes.modified] + [(path, "D") for path in changes.deleted]
        _print_files([(letter, path) for path, letter in sorted(marked)], name)
    if changes.untracked:
        print_text('Untracked (use "ds add PATH" to include them):')
        _print_files([("?", path) for path in sorted(changes.untracked)], name)


def _print_files(lines: list[tuple[str, str]], name: Callable[[str], str]) -> None:
    for letter, path in lines[:_SHOWN]:
        print_text(f"{letter}  {name(path)}")
    if len(lines) > _SHOWN:
        print_text(f"... and {len(lines) - _SHOWN:,} more (ds status -s names all)")


def shown(path: str) -> str:
    """Write a name that is not UTF-8 so that it can be printed."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
