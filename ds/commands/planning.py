"""Commands about what training on a version needs: plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer

from ds.commands.options import DatasetOption, JsonOption, complete_target, open_target
from ds.errors import UsageError
from ds.output import human_bytes, print_json, print_table, print_text
from loaders import NoSamplesError, OrderName, Plan, plan
from loaders.planning import Group

_COLUMNS = ("EACH", "SHARDS", "READS", "USES", "IN USE", "MEAN", "NEW", "CACHE", "FIRST STEP")


def plan_command(
    target: Annotated[
        str | None,
        typer.Argument(help="[DATASET][@REVISION]; default: the current branch.", autocompletion=complete_target),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Samples of a global batch.")] = 256,
    world_size: Annotated[int, typer.Option("--world-size", "-w", help="Number of ranks.")] = 1,
    ranks_per_node: Annotated[int, typer.Option("--ranks-per-node", help="Ranks that share a cache.")] = 8,
    order: Annotated[str, typer.Option(help=f"Order of an epoch: {', '.join(get_args(OrderName))}.")] = "auto",
    lanes: Annotated[int | None, typer.Option(help="With stream: at most so many lanes.")] = None,
    window: Annotated[int | None, typer.Option(help="With stream: shards of a lane mixed at a time.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    by_directory: Annotated[
        bool, typer.Option("--classes-by-directory", help="Take a sample's directory for its class, and count them.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the epoch as an SVG file.")] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Go through an epoch without reading it: what each rank and node needs, and how mixed the batches are.

    The order is the real one, so the numbers are those of the training run with the same options.

    \b
    Examples:
      ds plan digits@main --batch-size 256 --world-size 16
      ds plan digits --order stream --lanes 16 --plot epoch.svg
    """
    opened, where = open_target(target, dataset)
    samples = opened.samples(where.revision)
    keys = samples.keys_of(np.arange(len(samples))) if by_directory else None
    try:
        found = plan(
            samples,
            batch_size,
            world_size=world_size,
            ranks_per_node=ranks_per_node,
            order=order,  # type: ignore[arg-type]  # checked there
            lanes=lanes,
            window=window,
            seed=seed,
            labels=None if keys is None else [key.rpartition("/")[0] for key in keys],
        )
    except NoSamplesError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    if plot is not None:
        found.plot(plot)
    if json:
        print_json("plan", found.numbers())
    else:
        _show(found)


def _show(found: Plan) -> None:
    order = ", ".join(f"{name} {value}" for name, value in found.order.items())
    print_text(f"{found.samples} samples in {found.shards} shards, {found.steps} steps, {order}")
    if found.simulated < found.samples:
        print_text(f"gone through: the first {found.simulated} samples, in whole batches")
    print_table(_COLUMNS, [_row(group) for group in found.groups], right=_COLUMNS[1:])
    print_text(f"first batch: {human_bytes(found.first_batch_bytes)} of samples")
    print_text(f"entropy: {found.sample_entropy:.2f} bits of samples, {found.shard_entropy:.2f} of shards")
    if found.classes_mean is not None:
        print_text(f"classes in a batch: {found.classes_mean:.1f} on average, at least {found.classes_least}")


def _row(group: Group) -> tuple[object, ...]:
    return (
        f"{group.kind}, of {group.count}",
        group.shards_most,
        human_bytes(group.shard_bytes_most),
        human_bytes(group.used_bytes_most),
        group.live_most,
        f"{group.live_mean:.1f}",
        group.burst_most,
        human_bytes(group.cache_bytes_most),
        human_bytes(group.first_batch_bytes_most),
    )
