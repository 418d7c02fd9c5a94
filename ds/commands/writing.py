"""Commands for written files that are not committed yet: writes, writes list, resume, drop."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ds.commands.options import JsonOption
from ds.errors import UsageError
from ds.exits import EXPECTED_ERRORS, Exit
from ds.output import errors, human_bytes, print_json, print_table, print_text
from ds.replaying import KeptWrite, drop_write, kept_writes, resume_write
from ds.settings import current_settings

IdArgument = Annotated[str | None, typer.Argument(help="The transaction, as `ds writes` names it.", metavar="id")]


def list_command(json: JsonOption = False) -> None:
    """List what was written on this machine and is not committed.

    A finished transaction is committed by the next write to its dataset. One whose process ended before it was finished
    waits for you: resume it with the files that were closed, or drop it.

    \b
    Examples:
      ds writes
      ds writes list --json
    """
    found = kept_writes(current_settings())
    if json:
        print_json("writes", [{**asdict(write), "begun_at": write.begun_at.isoformat()} for write in found])
    elif not found:
        print_text("nothing waits to be committed")
    else:
        print_table(
            ("ID", "BRANCH", "STATE", "FILES", "WAITING", "BEGUN"), [_row(write) for write in found], right=("FILES",)
        )


def resume_command(
    identity: IdArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are finished.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put it over what others committed to the same paths.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Upload and commit what a process left, with the files that it had closed.

    \b
    Examples:
      ds writes resume 20261122T084033-1f2e3d4c5b6a
      ds writes resume --all
    """
    if (identity is None) != everything:
        raise UsageError("name one transaction, or say --all; list them with: ds writes")
    settings = current_settings()
    finished = [write.id for write in kept_writes(settings) if write.state == "finished"]
    done, failed = [], []
    for each in [identity] if identity else finished:
        try:
            branch, commit = resume_write(each, settings, overwrite=overwrite)
        except EXPECTED_ERRORS as error:  # one that is in another's hands, or of a deleted dataset, hinders no other
            if not everything:
                raise
            failed.append(each)
            errors().print(f"ds: {each}: {error}", markup=False)
        else:
            done.append({"id": each, "branch": branch, "commit": commit})
    if json:
        print_json("writes-resume", {"committed": done, "failed": failed})
    else:
        for item in done:
            print_text(f"[{item['branch']} {(item['commit'] or 'nothing to commit')[:8]}] {item['id']}")
    if failed:
        raise typer.Exit(Exit.NO)


def drop_command(
    identity: Annotated[str, typer.Argument(help="The transaction, as `ds writes` names it.", metavar="id")],
) -> None:
    """Throw away what a process wrote and did not commit. Its bytes on this machine are deleted.

    \b
    Examples:
      ds writes drop 20261122T084033-1f2e3d4c5b6a
    """
    drop_write(identity, current_settings())
    print_text(f"{identity} is gone")


def _row(write: KeptWrite) -> tuple[str, ...]:
    state = f"{write.state}: {write.reason}" if write.reason else write.state
    branch = f"{write.dataset}@{write.branch}"
    begun = f"{write.begun_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return write.id, branch, state, f"{write.files:,}", human_bytes(write.waiting_bytes), begun
