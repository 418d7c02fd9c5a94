"""Commands about the layout of a version: pack."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dataset_controller import parse_quantity
from ds.commands.options import AuthorOption, DatasetOption, JsonOption, complete_target, open_target
from ds.errors import UsageError
from ds.output import bytes_progress, plural, print_json, print_text
from loaders import PackProgress


def pack_command(
    target: Annotated[
        str | None,
        typer.Argument(help="[DATASET][@BRANCH]; default: the current branch.", autocompletion=complete_target),
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Put the samples in a global random order.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --shuffle; the same seed gives the same bytes.")] = 0,
    shard_size: Annotated[str, typer.Option("--shard-size", help="Size of a shard, such as 64Mi.")] = "64Mi",
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Merge the small files of a branch into tar shards: a new commit of the same content in a new layout.

    Files over 16 MiB stay where they are. A branch that has the layout already is left as it is.

    \b
    Examples:
      ds pack digits@main --shuffle --seed 7
    """
    shard_bytes = _shard_bytes(shard_size)
    opened, where = open_target(target, dataset)
    branch = opened.branch_of(where.revision)
    head = opened.repository.head(branch)
    with bytes_progress() as bar, opened.naming_commit(opened.resolve(where.revision)):
        task = bar.add_task("packing")

        def show(now: PackProgress) -> None:
            bar.update(
                task,
                completed=now.done_bytes,
                total=now.total_bytes,
                description=f"packing into {plural(now.shards, 'shard')}",
            )

        found = opened.pack(
            where.revision,
            shuffle=shuffle,
            seed=seed,
            shard_size=shard_bytes,
            message=message,
            author=author,
            on_progress=show,
        )
    commit = opened.repository.commit(found)
    if json:
        print_json("pack", {"commit": found, "stats": asdict(commit.stats)})
        return
    if found == head:
        print_text(f"nothing to pack: {branch} {found[:8]} has this layout")
        return
    print_text(f"[{branch} {found[:8]}] {commit.message.partition(chr(10))[0]}")
    print_text(f" {plural(commit.stats.layout, 'file')} with the same content in a new layout")


def _shard_bytes(text: str) -> int:
    try:
        count = parse_quantity(text)
    except ValueError as error:
        raise UsageError(f"--shard-size: {error}") from error
    if not count:
        raise UsageError("--shard-size: a shard has at least 1 byte, such as 64Mi")
    return count
