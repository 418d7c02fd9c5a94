"""Command that watches caches and workers: top."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ds.commands.options import complete_runtime
from ds.durations import parse_duration
from ds.errors import UsageError
from ds.output import human_bytes
from ds.runtimes import Runtime, chosen_runtimes
from ds.settings import current_settings
from ds.watching import CacheSample, describe_sample, take_sample

_WORDS = ("CACHE", "WORKER", "STATE")
_COLUMNS = (*_WORDS, "USED", "CAPACITY", "GROWS", "HITS", "SERVED", "ORIGIN", "PEERS", "EVICTED", "LOADS")
_RATES = ("served_bytes", "bytes_origin", "bytes_peer", "evicted_bytes")


def top_command(
    name: Annotated[
        str | None,
        typer.Argument(help="Cache runtime; default: all of this machine.", autocompletion=complete_runtime),
    ] = None,
    interval: Annotated[str, typer.Option("--interval", "-i", help="Between two looks, such as 2s.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Show the rates of one interval, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line for each look.")] = False,
) -> None:
    """Watch the caches of this machine and their workers; Ctrl-C ends it.

    Rates are those of the last interval. HITS, SERVED, ORIGIN and PEERS are what workers do; a loader that reads its
    own node's cache asks no worker, and is not in them.

    \b
    Examples:
      ds top
      ds top local --interval 5s
      ds top --once
      ds top --json | jq .data.workers
    """
    runtimes = chosen_runtimes(name, current_settings())
    if not runtimes:
        raise UsageError("there is no cache runtime yet; declare one and run: ds apply -f dataset.yaml")
    looks = _looks(runtimes, parse_duration(interval, what="--interval"))
    with suppress(KeyboardInterrupt):  # the usual end
        if sys.stdout.isatty() and not json and not once:
            _show_live(looks)
        else:
            _print_lines(looks, json=json, once=once)


def _looks(runtimes: list[Runtime], seconds: float) -> Iterator[list[dict[str, Any]]]:
    """Yield all caches with their rates, after each interval."""
    before: dict[str, CacheSample] = {runtime.name: take_sample(runtime) for runtime in runtimes}
    due = time.monotonic()
    while True:
        due = max(due + seconds, time.monotonic())  # a look that took long is not made up for
        time.sleep(max(0.0, due - time.monotonic()))
        now = {runtime.name: take_sample(runtime) for runtime in runtimes}
        yield [describe_sample(sample, before[name]) for name, sample in now.items()]
        before = now


def _show_live(looks: Iterator[list[dict[str, Any]]]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with Live(Text("looking ..."), console=console, auto_refresh=False, screen=True) as live:
        for rows in looks:
            live.update(_screen(rows), refresh=True)


def _screen(samples: list[dict[str, Any]]) -> Group:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _WORDS else "right", no_wrap=True)
    for row in _rows(samples):
        table.add_row(*row)
    problems = [Text(problem, style="red") for problem in _problems(samples)]
    return Group(Text(f"{samples[0]['time'][:19]}Z   Ctrl-C ends", style="dim"), Text(), table, *problems)


def _print_lines(looks: Iterator[list[dict[str, Any]]], *, json: bool, once: bool) -> None:
    for number, samples in enumerate(looks):
        if json:
            lines = [json_format.dumps({"schema": "ds.top.v1", "data": sample}) for sample in samples]
        else:
            cells = ([] if number else [_COLUMNS]) + _rows(samples)
            lines = ["  ".join(f"{cell:<12}" for cell in row).rstrip() for row in cells]
            lines += _problems(samples)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()  # for whoever reads a pipe
        if once:
            return


def _rows(samples: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for sample in samples:
        state = "error" if sample["error"] else "off" if sample["off_reason"] else "ready"
        rows.append((sample["runtime"], "(this node)", state, *_sizes(sample), "-", "-", "-", "-", "-", "-"))
        rows += [_worker_row(sample["runtime"], worker) for worker in sample["workers"]]
    return rows


def _worker_row(runtime: str, worker: dict[str, Any]) -> tuple[str, ...]:
    hits = "-" if worker["hit_ratio"] is None else f"{worker['hit_ratio']:.0%}"
    rates = [_rate(worker[f"{name}_per_second"]) for name in _RATES]
    loads = [_percent(load) for load in worker["loads"]]
    return (runtime, worker["name"], worker["state"], *_sizes(worker), hits, *rates, " ".join(loads) or "-")


def _sizes(row: dict[str, Any]) -> tuple[str, str, str]:
    used, capacity = ("-" if row[name] is None else human_bytes(row[name]) for name in ("used_bytes", "capacity_bytes"))
    return used, capacity, _rate(row["grown_bytes_per_second"])


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{'-' if value < 0 else ''}{human_bytes(abs(value))}/s"


def _percent(load: dict[str, Any]) -> str:
    total = load["total_bytes"] or 0
    return f"{100 * (load['done_bytes'] or 0) // total}%" if total else "0%"


def _problems(samples: list[dict[str, Any]]) -> list[str]:
    """Return what went wrong, in a line each."""
    found = [f"{sample['runtime']}: {sample['error'] or sample['off_reason']}" for sample in samples]
    found = [line for line, sample in zip(found, samples, strict=True) if sample["error"] or sample["off_reason"]]
    return found + [worker["error"] for sample in samples for worker in sample["workers"] if worker["error"]]
