"""Commands that keep versions in a cache whatever else is read: cache pin, unpin."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ds.cached_files import object_ids, runtime_of
from ds.commands.options import DatasetOption, FilesArgument, JsonOption, RuntimeOption, open_target
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.output import plural, print_json, print_table, print_text
from ds.runtimes import chosen_runtimes, only_runtime
from ds.settings import current_settings
from ds.targets import Target

LabelOption = Annotated[str | None, typer.Option("--label", help="Name of the pin; default: the target.")]


def cache_pin_command(
    target: FilesArgument = None,
    label: LabelOption = None,
    runtime: RuntimeOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Keep a version in this node's cache whatever else is read; without a target, list what is pinned.

    What is not cached yet is pinned as it is loaded. A pin names the files of today: after a commit, pin again.

    \b
    Examples:
      ds cache pin digits@v1 && ds load digits@v1 --here
      ds cache pin digits@main/images --label tonight
      ds cache pin
    """
    if target is None and dataset is None:
        _list_pins(runtime, json=json)
        return
    opened, where = open_target(target, dataset)
    chosen, ids, name = runtime_of(opened), object_ids(opened, where), label or _label(opened, where)
    cached = chosen.store.pin(ids, name)
    if json:
        print_json("cache-pin", {"label": name, "objects": len(ids), "cached_objects": cached})
        return
    print_text(f"pinned {plural(len(ids), 'object')} as {name}, {cached:,} of them in the cache")
    if cached < len(ids):
        print_text(f"  bring the others: ds load {target or opened.name} --here")


def _list_pins(runtime: str | None, *, json: bool) -> None:
    found = [(each.name, pin) for each in chosen_runtimes(runtime, current_settings()) for pin in each.store.pins()]
    if json:
        print_json("cache-pins", [{"runtime": name, **asdict(pin)} for name, pin in found])
    elif not found:
        print_text("nothing is pinned")
    else:
        cells = [(name, pin.label, pin.objects, pin.cached_objects) for name, pin in found]
        print_table(("CACHE", "LABEL", "OBJECTS", "CACHED"), cells, right=("OBJECTS", "CACHED"))


def cache_unpin_command(
    target: FilesArgument = None,
    label: LabelOption = None,
    runtime: RuntimeOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Let a pinned version be evicted again.

    \b
    Examples:
      ds cache unpin digits@v1
      ds cache unpin --label tonight
    """
    if label is not None:
        if target is not None:
            raise UsageError("a target or --label, not both")
        chosen, name = only_runtime(runtime, current_settings()), label
    else:
        opened, where = open_target(target, dataset)
        chosen, name = runtime_of(opened), _label(opened, where)
    count = chosen.store.unpin(name)
    if json:
        print_json("cache-unpin", {"label": name, "objects": count})
    elif count:
        print_text(f"{name}: {plural(count, 'object')} may be evicted again")
    else:
        known = ", ".join(pin.label for pin in chosen.store.pins()) or "none"
        raise UsageError(f"nothing is pinned as {name!r}; known: {known}")


def _label(dataset: Dataset, where: Target) -> str:
    revision = where.revision or dataset.branch
    return f"{dataset.name}@{revision}{f'/{where.path}' if where.path else ''}"
