"""Commands that look into a version: ls, cat."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_target, open_target
from ds.errors import UsageError
from ds.output import human_bytes, print_json, print_table, print_text
from versioning import DirectoryItem, PathNotFoundError, Tree

TargetArgument = Annotated[
    str | None,
    typer.Argument(help="[DATASET][@REVISION][/PATH]; default: the current branch.", autocompletion=complete_target),
]


def ls_command(
    target: TargetArgument = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="With sizes.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Every file below, streamed.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """List a directory of a version.

    \b
    Examples:
      ds ls
      ds ls digits@main/images
      ds ls @v1/labels -l
    """
    if recursive and (json or long):
        raise UsageError("--recursive lists names only; leave --json and --long out")
    opened, where = open_target(target, dataset)
    tree = opened.tree(where.revision)
    if recursive:
        for table in tree.scan_at(where.path, columns=["path"]):
            sys.stdout.write("".join(f"{path}\n" for path in table.column("path").to_pylist()))
        return
    rows = _rows_at(tree, where.path)
    if json:
        print_json("ls", [{"name": row.name, "directory": row.is_dir, "size": row.size} for row in rows])
    elif long:
        print_table(
            ("SIZE", "NAME"), [(human_bytes(row.size), row.name + "/" * row.is_dir) for row in rows], right=("SIZE",)
        )
    else:
        for row in rows:
            print_text(row.name + "/" * row.is_dir)


def _rows_at(tree: Tree, path: str) -> list[DirectoryItem]:
    """List a directory, or the one file that the path names."""
    try:
        return tree.listdir(path)
    except PathNotFoundError:
        if (file := tree.get(path)) is None:
            raise
        return [DirectoryItem(path, False, file.size)]


def cat_command(
    target: Annotated[str, typer.Argument(help="[DATASET][@REVISION]/PATH.", autocompletion=complete_target)],
    dataset: DatasetOption = None,
) -> None:
    """Write a file of a version to stdout, read through the cache.

    \b
    Examples:
      ds cat digits@main/labels/0042.json
      ds cat @v1/images/3/0042.png > 0042.png
    """
    opened, where = open_target(target, dataset)
    commit = opened.resolve(where.revision)
    try:
        file = opened.open(where.path, commit)
    except IsADirectoryError as error:
        raise UsageError(f"{where.path or '/'} is a directory; look into it with: ds ls {target}") from error
    with file, opened.naming_commit(commit):
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
