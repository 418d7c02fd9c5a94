"""Command that looks for what is wrong with a cache: cache doctor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict

import typer

from cache_runtime.errors import CacheError
from ds.commands.options import JsonOption, RuntimeArgument
from ds.directory_checks import check_directory, check_open_files
from ds.errors import UsageError
from ds.exits import Exit
from ds.findings import Finding, Level, failure, ok, warning
from ds.lock_checks import check_locks, check_readers
from ds.mounting.checks import check_mounting
from ds.output import human_bytes, print_json, print_table, print_text
from ds.runtimes import Runtime, chosen_runtimes
from ds.settings import current_settings
from ds.worker_checks import check_workers

_MOSTLY_PINNED = 0.9


def cache_doctor_command(
    name: RuntimeArgument = None,
    json: JsonOption = False,
) -> None:
    """Check directories, disks, locks, the index and the workers of a cache, and say what to do.

    Looks only; but places of dead readers in the index are freed, and an index that is lost or foreign is rebuilt, as
    by every command that opens the cache. Exits with 1 if something does not work; a warning is no failure.

    \b
    Examples:
      ds cache doctor
      ds cache doctor local --json
    """
    runtimes = chosen_runtimes(name, current_settings())
    if not runtimes:
        raise UsageError("there is no cache runtime yet; declare one and run: ds apply -f dataset.yaml")
    findings = [check_open_files(), *check_mounting(), *(found for runtime in runtimes for found in _check(runtime))]
    if json:
        print_json("cache-doctor", [asdict(found) for found in findings])
    else:
        _print_findings(findings)
    if any(found.level == Level.FAILURE for found in findings):
        raise typer.Exit(Exit.NO)


def _check(runtime: Runtime) -> Iterator[Finding]:
    for tier in runtime.resource.spec.tiers:
        directory = os.path.realpath(tier.path)
        yield from check_directory(tier)
        yield from check_locks(directory)
        readers = check_readers(directory)  # before this process opens the index itself
        if readers is not None:
            yield readers
    yield from _check_store(runtime)
    yield from check_workers(runtime)


def _check_store(runtime: Runtime) -> Iterator[Finding]:
    try:
        status = runtime.store.status()
    except CacheError as error:
        yield failure("cache", runtime.name, str(error), "see the findings about its directories")
        return
    for disk in status.disks or (status,):
        if disk.off_reason is not None:
            yield failure("cache", disk.directory, f"is off: {disk.off_reason}", "free space or replace the disk")
        else:
            used = f"{human_bytes(disk.used_bytes)} of {human_bytes(disk.capacity_bytes)}"
            yield ok("cache", disk.directory, f"{used} in {disk.blocks:,} blocks of {disk.objects:,} objects")
    pinned = sum(row.pinned_bytes for row in status.shares)
    if pinned > _MOSTLY_PINNED * status.capacity_bytes:
        remedy = "unpin what is not needed: ds cache pin lists it"
        yield warning("pins", runtime.name, f"{human_bytes(pinned)} are pinned: there is room for little else", remedy)


def _print_findings(findings: list[Finding]) -> None:
    print_table(
        ("", "CHECK", "OF", "FOUND"), [(found.level, found.check, found.subject, found.message) for found in findings]
    )
    remedies = [found for found in findings if found.remedy]
    if remedies:
        print_text()
    for found in remedies:
        print_text(f"{found.level}: {found.check} of {found.subject}: {found.message}")
        print_text(f"  do: {found.remedy}")
