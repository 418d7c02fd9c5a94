"""Commands about what versions were made from, and which runs used them: lineage, pin, unpin, pins."""

from __future__ import annotations

from typing import Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.lineage import Ancestor, lineage_of
from ds.output import print_json, print_text
from ds.ranges import split_dataset


def lineage_command(
    revision: Annotated[
        str, typer.Argument(metavar="[[DATASET@]REV]", help="A commit.", autocompletion=complete_revision)
    ] = "HEAD",
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a commit was made from: its inputs, and theirs, as far as this machine knows the datasets.

    \b
    Examples:
      ds lineage
      ds lineage embeddings@v3 --json
    """
    name, text = split_dataset(revision)
    opened = open_dataset(name or dataset)
    found = lineage_of(opened, opened.resolve(text or None))
    if json:
        print_json("lineage", found.record())
    else:
        _print_tree(found, "", "")


def pin_command(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    revision: Annotated[
        str | None, typer.Argument(help="What it used; default: here.", autocompletion=complete_revision)
    ] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Note which version a run used; garbage collection keeps it until ds unpin. For caches, see ds cache pin.

    A pin never moves. As a revision it is refs/pins/RUN.

    \b
    Examples:
      ds pin train-0042
      ds pin train-0042 v1
    """
    opened = open_dataset(dataset)
    commit = opened.resolve(revision)
    opened.repository.create_pin(run, commit)
    if json:
        print_json("pin", {"run": run, "commit": commit})
    else:
        print_text(f"run {run} uses {commit[:8]}")


def unpin_command(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Forget which version a run used.

    \b
    Examples:
      ds unpin train-0042
    """
    opened = open_dataset(dataset)
    commit = opened.repository.delete_pin(run)
    if json:
        print_json("unpin", {"run": run, "commit": commit})
    else:
        print_text(f"run {run} is forgotten (used {commit[:8]}; again with: ds pin {run} {commit[:8]})")


def pins_command(dataset: DatasetOption = None, json: JsonOption = False) -> None:
    """List the runs that versions are pinned for.

    \b
    Examples:
      ds pins
    """
    pins = open_dataset(dataset).repository.pins()
    if json:
        print_json("pins", pins)
    else:
        for run, commit in pins.items():
            print_text(f"{commit[:8]}  {run}")


def _print_tree(found: Ancestor, first: str, rest: str) -> None:
    print_text(f"{first}{found.uri}{f'  ({found.note})' if found.note else ''}")
    bar = "│  " if found.inputs else "   "
    if isinstance(found.code, dict):
        changed = " (changed since)" if found.code.get("dirty") else ""
        print_text(f"{rest}{bar}code: {found.code.get('git', '?')}{changed}")
    elif found.code:
        print_text(f"{rest}{bar}code: {found.code}")
    if isinstance(found.params, dict):
        for name, value in sorted(found.params.items()):
            print_text(f"{rest}{bar}{name} = {value}")
    for number, each in enumerate(found.inputs, 1):
        last = number == len(found.inputs)
        _print_tree(each, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")
