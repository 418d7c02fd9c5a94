"""Commands that look at one commit or at paths of a version: show, stat, annotate, cp."""

from __future__ import annotations

import json as jsons
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ds.commands.history import commit_record, decorations, print_commit, print_stat
from ds.commands.options import (
    DatasetOption,
    FilesArgument,
    JsonOption,
    complete_revision,
    complete_target,
    open_dataset,
    open_target,
)
from ds.commands.pathspecs import wants_pager
from ds.copying import Copied, copy_out
from ds.diffing import changes_of
from ds.errors import UsageError
from ds.output import human_bytes, plural, print_json, print_text
from ds.paging import paged
from ds.progress import bytes_progress
from ds.ranges import split_dataset
from versioning import Entry, PathNotFoundError, annotate

if TYPE_CHECKING:
    from versioning import Commit, CommitId, Repository, Tree

_AT_PATH = re.compile(r"(?P<revision>(?:[^:{]|\{[^}]*\})*)(?::(?P<path>.*))?", re.DOTALL)


def show_command(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[[DATASET@]REV[:PATH]]", help="A commit, or a path in it.", autocompletion=complete_revision
        ),
    ] = "HEAD",
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show a commit: who, why, with what, and what it changed against its first parent. With a path, show that.

    \b
    Examples:
      ds show
      ds show digits@v1
      ds show main~2:labels/0042.json
    """
    name, text = split_dataset(target)
    opened = open_dataset(name or dataset)
    match = _AT_PATH.fullmatch(text)
    if match is None:
        raise UsageError(f"{target!r} is not REVISION or REVISION:PATH")
    if match["path"] is not None:
        _print_path(opened.repository, opened.tree(match["revision"] or None), match["path"].strip("/"), json=json)
        return
    found = opened.resolve(match["revision"] or None)
    commit = opened.repository.commit(found)
    diff = opened.repository.diff(commit.parents[0] if commit.parents else None, found)
    summary = asdict(diff.summary())
    if json:
        changes = [each.record() for each in changes_of(diff)]
        print_json("show", {**commit_record(found, commit), "stat": summary, "changes": changes})
        return
    with paged(wants_pager(context)):
        print_commit(found, commit, names=decorations(opened).get(found, []), oneline=False, details=True)
        for each in changes_of(diff):
            print_text(f"{each.op}  {each.path}")
        print_stat(summary)


def stat_command(
    target: FilesArgument = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a version says of a path: size, hash, where the bytes lie, metadata; of a directory, its totals.

    \b
    Examples:
      ds stat digits@main/labels/0042.json
      ds stat @v1/images
    """
    opened, where = open_target(target, dataset)
    _print_path(opened.repository, opened.tree(where.revision), where.path.rstrip("/"), json=json)


def annotate_command(
    context: typer.Context,
    target: FilesArgument = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show which commit last changed each file below a path.

    \b
    Examples:
      ds annotate /labels
      ds annotate digits@v1/images/3
    """
    opened, where = open_target(target, dataset)
    start = opened.resolve(where.revision)
    repository = opened.repository
    found = annotate(repository.work, repository.tree_of(start), start, where.path.rstrip("/"))
    blames = {str(path): (each.commit_id, each.commit) for each in found for path in each.paths.to_pylist()}
    if not blames and where.path:
        raise PathNotFoundError(where.path, where=start[:8])
    ordered = sorted(blames.items(), key=lambda item: item[0].encode())
    if json:
        print_json("annotate", [_blame_record(path, at, commit) for path, (at, commit) in ordered])
        return
    with paged(wants_pager(context)):
        for path, (at, commit) in ordered:
            print_text(f"{at[:8]} {commit.authored_at[:10]} ({commit.author}) {path}")


def cp_command(
    source: Annotated[
        str, typer.Argument(help="[DATASET][@REVISION]/PATH, or DATASET@REVISION:PATH.", autocompletion=complete_target)
    ],
    to: Annotated[Path, typer.Argument(help="A file or directory of this machine.")],
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a file or directory of a version to this machine, read through the cache.

    \b
    Examples:
      ds cp digits@v1/labels ./labels
      ds cp digits@main:images/3/0042.png .
    """
    opened, where = open_target(_with_slash(source), dataset)
    with bytes_progress() as bar:
        task = bar.add_task("copying", total=None)

        def show(now: Copied) -> None:
            bar.update(task, completed=now.bytes)

        done = copy_out(opened, where.revision, where.path, to, on_progress=show)
    if json:
        print_json("cp", asdict(done))
    else:
        print_text(f"{plural(done.files, 'file')}, {human_bytes(done.bytes)}")


def _blame_record(path: str, at: CommitId, commit: Commit) -> dict[str, str]:
    return {
        "path": path,
        "commit": at,
        "author": commit.author,
        "authored_at": commit.authored_at,
        "message": commit.message,
    }


def _with_slash(text: str) -> str:
    """Let `DATASET@REVISION:PATH` be `DATASET@REVISION/PATH`."""
    name, at, rest = text.partition("@")
    match = _AT_PATH.fullmatch(rest)
    if not at or "/" in name or name == "ds:" or match is None or match["path"] is None or "/" in match["revision"]:
        return text
    return f"{name}@{match['revision']}/{match['path'].lstrip('/')}"


def _print_path(repository: Repository, tree: Tree, path: str, *, json: bool) -> None:
    entry = tree.get(path) if path else None
    record = _entry_record(repository, entry) if entry is not None else _directory_record(tree, path)
    if json:
        print_json("stat", record)
        return
    for name, value in record.items():
        if value is not None:
            shown = f"{value:,}" if isinstance(value, int) else value
            text = shown if isinstance(shown, str) else jsons.dumps(shown, ensure_ascii=False)
            print_text(f"{name + ':':<13} {text}")


def _entry_record(repository: Repository, entry: Entry) -> dict[str, Any]:
    where = entry.location(repository.root).object
    modified = None
    if entry.mtime_ns is not None:
        modified = datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return {
        "path": entry.path,
        "kind": str(entry.kind),
        "size": entry.size,
        "blake3": entry.oid.hex() if entry.oid else None,
        "crc32c": f"{entry.crc32c:08x}" if entry.crc32c is not None else None,
        "store": str(where.store),
        "key": where.key,
        "version": str(where.version),
        "offset": entry.offset,
        "object_size": entry.object_size,
        "modified": modified,
        "meta": jsons.loads(entry.meta) if entry.meta else None,
    }


def _directory_record(tree: Tree, path: str) -> dict[str, Any]:
    files = size = 0
    for table in tree.scan_at(path, columns=["size"]):
        files += table.num_rows
        size += sum(int(each or 0) for each in table.column("size").to_pylist())
    return {"path": f"{path}/", "kind": "directory", "files": files, "size": size}
