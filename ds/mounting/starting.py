"""Starting the processes of a mount."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ds.mounting.announcing import announce
from ds.mounting.plans import Mounted
from ds.mounting.records import Records
from ds.output import errors

if TYPE_CHECKING:
    from ds.mounting.plans import MountPlan

_PATIENCE_SECONDS = 2.0
_SUPERVISOR = [sys.executable, "-P", "-m", "ds.mounting.supervising"]


def start_in_foreground(plan: MountPlan, *, as_json: bool) -> NoReturn:
    """Become the supervisor: this process has loaded far more than that one needs for the days to come."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [*_SUPERVISOR, plan.encode(), *(["--json"] if as_json else [])])


def start_in_background(plan: MountPlan, *, as_json: bool) -> None:
    """Start a supervisor, return when it has mounted, and say so.

    Raises:
        typer.Exit: With its code, if it could not.
    """
    read, write = os.pipe()
    log = Records(Path(plan.home)).log(plan.mount_point)
    command = [*_SUPERVISOR, plan.encode(), str(write)]
    process = subprocess.Popen(
        command, pass_fds=[write], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    os.close(write)
    os.close(log)
    report: dict[str, Any]
    with open(read) as pipe:
        _say_if_slow(plan, read)
        line = pipe.readline()
    report = json.loads(line) if line else {"error": "its supervisor ended at once", "exit": process.wait() or 70}
    if "error" in report:
        errors().print(
            f"ds: {report['error']}; see {Records(Path(plan.home)).file(plan.mount_point, '.log')}", markup=False
        )
        raise typer.Exit(int(report["exit"]))
    announce(plan, Mounted(**report), as_json=as_json)
    process.returncode = 0  # it goes on without us


def _say_if_slow(plan: MountPlan, pipe: int) -> None:
    if not select.select([pipe], [], [], _PATIENCE_SECONDS)[0] and sys.stderr.isatty():
        errors().print(f"reading {plan.source} ...", markup=False)
