"""`COMMAND [OPTIONS] [ARGUMENTS] -- PATH...`: what stands behind the dashes is paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ds.commands.coercing import SparingCommand

if TYPE_CHECKING:
    from ds.dataset import Dataset

_PATHS = "ds.paths"
_NO_PAGER = "ds.no_pager"


class PathsCommand(SparingCommand):
    """A command that takes paths behind `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the paths off before the arguments are read."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[_PATHS] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the paths in the first line of the help."""
        return [*super().collect_usage_pieces(ctx), "[-- PATH...]"]


def paths_of(context: typer.Context) -> list[str]:
    """Return the paths behind `--` as they were written."""
    return list(context.meta.get(_PATHS, []))


def paths_in(context: typer.Context, dataset: Dataset) -> list[str]:
    """Return the paths in the dataset that the paths behind `--` mean; none if one of them is all of it."""
    found = [dataset.path(path) for path in paths_of(context)]
    return found if all(found) else []


def forbid_pager(context: typer.Context) -> None:
    """Note that the command line says `--no-pager`."""
    context.meta[_NO_PAGER] = True


def wants_pager(context: typer.Context) -> bool:
    """Say whether output may go through a pager."""
    return not context.meta.get(_NO_PAGER, False)
