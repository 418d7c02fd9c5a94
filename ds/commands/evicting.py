"""Command that gives room of a cache back: cache evict."""

from __future__ import annotations

from typing import Annotated

import typer

from cache_runtime.errors import CacheError
from cache_runtime.protocol import EVICT_PATH, encode_evict
from dataset_controller.worker_calls import ask_worker
from ds.cached_files import object_ids, runtime_of
from ds.commands.options import (
    DatasetOption,
    FilesArgument,
    JsonOption,
    RuntimeOption,
    complete_dataset,
    open_target,
    parse_bytes,
)
from ds.dataset import Dataset
from ds.errors import UsageError
from ds.exits import EXPECTED_ERRORS, Exit
from ds.output import errors, human_bytes, print_json, print_text
from ds.runtimes import Runtime, only_runtime
from ds.settings import current_settings

_IDS_PER_REQUEST = 50_000


def cache_evict_command(
    target: FilesArgument = None,
    share: Annotated[
        str | None,
        typer.Option("--share", help="All that was cached for this dataset.", autocompletion=complete_dataset),
    ] = None,
    size: Annotated[str | None, typer.Option("--bytes", help="So much, least wanted first, such as 10Gi.")] = None,
    workers: Annotated[bool, typer.Option("--workers", help="In the caches of the workers, too.")] = False,
    runtime: RuntimeOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Give room back: evict a version, a directory, all of a dataset, or so many bytes. What is pinned stays.

    Sources and versions are not touched; what is read again is fetched again. Small objects share files of 64 MiB:
    their room is free when the last one of a file has gone.

    \b
    Examples:
      ds cache evict digits@v1
      ds cache evict digits@main/images/3
      ds cache evict --share digits --workers
      ds cache evict --bytes 10Gi --runtime local
    """
    if sum(given is not None for given in (target or dataset, share, size)) != 1:
        raise UsageError("say what to evict: a target, --share DATASET, or --bytes SIZE")
    if target is not None or dataset is not None:
        opened, where = open_target(target, dataset)
        chosen, ids = runtime_of(opened), object_ids(opened, where)
        bodies = [encode_evict(ids=ids[at : at + _IDS_PER_REQUEST]) for at in range(0, len(ids), _IDS_PER_REQUEST)]
        freed = chosen.store.evict(ids)
    else:
        settings = current_settings()
        chosen = only_runtime(runtime or (_runtime_name(share) if share else None), settings)
        need = 0 if size is None else parse_bytes(size, "--bytes")
        bodies = [encode_evict(share=share, need_bytes=None if share else need)]
        freed = chosen.store.evict(share=share, need_bytes=need)
    remote, failures = _evict_at_workers(chosen, bodies) if workers else ({}, {})
    if json:
        print_json("cache-evict", {"freed_bytes": freed, "workers": remote, "failures": failures})
    else:
        print_text(f"freed {human_bytes(freed)} of this node's cache")
        for name, count in remote.items():
            print_text(f"freed {human_bytes(count)} of worker {name}'s")
    for reason in failures.values():
        errors().print(f"ds: {reason}", markup=False)
    if failures:
        raise typer.Exit(Exit.UNAVAILABLE)


def _evict_at_workers(runtime: Runtime, bodies: list[bytes]) -> tuple[dict[str, int], dict[str, str]]:
    """Ask each worker but this node's own; return what they freed, and why some did not."""
    if runtime.peers is None:
        raise UsageError(f"cache runtime {runtime.name} has no workers")
    freed: dict[str, int] = {}
    failures: dict[str, str] = {}
    own = runtime.peers.own_name()
    for member in runtime.peers.members():
        if member.name == own:
            continue
        try:
            answers = [ask_worker(runtime.peers, member, EVICT_PATH, body=body) for body in bodies]
        except CacheError as error:
            failures[member.name] = str(error)
        else:
            freed[member.name] = sum(int(answer.document.get("freed_bytes", 0)) for answer in answers)
    return freed, failures


def _runtime_name(dataset: str) -> str | None:
    """Return the runtime of a dataset; one that was deleted leaves its bytes in any."""
    try:
        found = Dataset(dataset).opened.runtime
    except EXPECTED_ERRORS:
        return None
    return None if found is None else found.metadata.name
