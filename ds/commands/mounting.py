"""Commands of mounts: mount, umount, mounts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ds.commands.options import DatasetOption, JsonOption, QuietOption, complete_target, open_target
from ds.commands.worker import LogFormat
from ds.errors import NotMountedError, UsageError
from ds.mounting.ending import end_mount
from ds.mounting.listing import MountState, mount_states, record_at
from ds.mounting.planning import MountChoices, plan_mount
from ds.mounting.points import real_point
from ds.mounting.records import Records
from ds.mounting.starting import start_in_background, start_in_foreground
from ds.mounting.status_socket import ask
from ds.output import human_bytes, print_json, print_table, print_text
from ds.settings import current_settings


def mount_command(
    target: Annotated[
        str | None,
        typer.Argument(help="DATASET[@REVISION][/DIRECTORY]; none: list the mounts.", autocompletion=complete_target),
    ] = None,
    directory: Annotated[Path | None, typer.Argument(help="Where to; what is in it is hidden meanwhile.")] = None,
    background: Annotated[bool, typer.Option("--background", "-b", help="Return when it is mounted.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show each new commit of the branch, too.")] = False,
    follow_seconds: Annotated[str, typer.Option("--follow-seconds", help="How often to look, such as 5 or 1m.")] = "5",
    uid: Annotated[int | None, typer.Option("--uid", help="Whose the files are; default: yours.")] = None,
    gid: Annotated[int | None, typer.Option("--gid", help="Their group; default: yours.")] = None,
    allow_other: Annotated[bool, typer.Option("--allow-other", help="Let other users look into it.")] = False,
    no_passthrough: Annotated[
        bool, typer.Option("--no-passthrough", help="Read cached files through this process, too.")
    ] = False,
    small_files: Annotated[
        bool,
        typer.Option(
            "--small-files", help="Let the kernel open files by itself: for many small ones, not with --follow."
        ),
    ] = False,
    read_ahead: Annotated[
        str | None,
        typer.Option("--read-ahead", help="How far ahead of a stream to fetch, such as 64Mi; 0: not at all."),
    ] = None,
    prefetch: Annotated[
        str | None,
        typer.Option("--prefetch", help="How much of small files to fetch before they are opened; 0: nothing."),
    ] = None,
    read_timeout: Annotated[
        str | None, typer.Option("--read-timeout", help="When a read without an answer fails, such as 30s or 10m.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="First take away a mount whose server died.")] = False,
    log: Annotated[LogFormat, typer.Option("--log", help="Lines for people or for machines.")] = LogFormat.TEXT,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show a version, or a directory of it, as a read-only file system, until SIGTERM, Ctrl-C or ds umount.

    Files are read through this node's cache; the kernel reads by itself what is cached, if root mounts (Linux 6.9 or
    newer). A server that dies is started again. Logs go to stderr, with --background to a file that ds mounts names.

    \b
    Examples:
      ds mount digits@v1 /mnt/digits
      ds mount digits@main/images /mnt/images --background --allow-other
      ds mount digits@main /mnt/digits --follow
      ds mount digits@v1 /mnt/digits --small-files
      ds mount digits@v1 /mnt/digits --read-ahead 0 --prefetch 0 --read-timeout 30s
      ds mount
    """
    if directory is None:
        if target in (None, "status"):
            mounts_command(json=json)
            return
        raise UsageError(
            f"where to? for example: ds mount {target} /mnt/{target.partition('@')[0].strip('/') or 'data'}"
        )
    choices = MountChoices(
        follow=follow,
        follow_seconds=follow_seconds,
        uid=uid,
        gid=gid,
        allow_other=allow_other,
        passthrough=not no_passthrough,
        small_files=small_files,
        read_ahead=read_ahead,
        prefetch=prefetch,
        read_timeout=read_timeout,
        repair=repair,
        log_json=log == LogFormat.JSON,
    )
    plan = plan_mount(*open_target(target, dataset), directory, choices)
    if background:
        start_in_background(plan, as_json=json)
    else:
        start_in_foreground(plan, as_json=json)


def umount_command(
    directory: Annotated[Path, typer.Argument(help="Where it is mounted.")],
    lazy: Annotated[
        bool, typer.Option("--lazy", "-l", help="Also if it is in use: out of sight now, gone when nobody uses it.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Take a mount away, and end its server. Exits with 1 if it is in use.

    \b
    Examples:
      ds umount /mnt/digits
      ds umount --lazy /mnt/digits
    """
    point = end_mount(Records(current_settings().home), directory, lazily=lazy)
    if not quiet:
        print_text(f"unmounted {point}")


def mounts_command(
    directory: Annotated[Path | None, typer.Argument(help="Only this one, with all it tells.")] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Print what they count, for Prometheus.")] = False,
    json: JsonOption = False,
) -> None:
    """List the mounts of this machine, whether they answer, and how they read. Exits with 1 if one is stale.

    Each also answers HTTP on a Unix socket beside its record: GET /status, GET /metrics.

    \b
    Examples:
      ds mounts
      ds mounts /mnt/digits --json
      ds mounts --metrics
      curl --unix-socket ~/.local/share/forebay/mounts/ID.sock http://mount/metrics
    """
    records = Records(current_settings().home)
    found = mount_states(records)
    if directory is not None:
        point = real_point(directory)
        found = [state for state in found if state.mount_point == point]
        if not found:
            raise NotMountedError(point)
    if metrics:
        _print_metrics(records, found)
    elif json:
        print_json("mounts", [asdict(state) for state in found])
    elif directory is not None:
        _print_details(found[0])
    else:
        _print_mounts(found)
    if any(state.is_broken for state in found):
        raise typer.Exit(1)


def _print_mounts(states: list[MountState]) -> None:
    rows = []
    for state in states:
        files = "" if state.files is None else f"{state.files:,}"
        size = "" if state.bytes is None else human_bytes(state.bytes)
        row = (state.source, state.mount_point, state.state, (state.commit or "")[:12], files, size, state.passthrough)
        rows.append(row)
    columns = ("SHOWS", "ON", "STATE", "COMMIT", "FILES", "SIZE", "PASSTHROUGH")
    print_table(columns, rows, right=("FILES", "SIZE"))
    for state in states:
        if state.is_broken:
            print_text(
                f"{state.mount_point} is {state.state}: ds umount --lazy {state.mount_point}, or ds mount --repair"
            )


def _print_details(state: MountState) -> None:
    found: dict[str, Any] = {name: value for name, value in asdict(state).items() if name != "status"}
    found |= state.status or {}
    width = max(map(len, found))
    for name, value in found.items():
        print_text(f"{name.ljust(width)}  {'' if value is None else value}")


def _print_metrics(records: Records, states: list[MountState]) -> None:
    typed: set[str] = set()
    for state in states:
        record = record_at(records, state.mount_point)
        made_at = state.mount_point if record is None else record.plan.mount_point
        text = (ask(records.file(made_at, ".sock"), "/metrics") or b"").decode()
        for line in text.splitlines():
            if not line.startswith("# TYPE"):
                sys.stdout.write(line + "\n")
            elif line not in typed:  # may be there once
                typed.add(line)
                sys.stdout.write(line + "\n")
