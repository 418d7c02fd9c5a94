"""The process that serves one mount, started by a supervisor.

python -m ds.mounting.serving PLAN REPORT_FD

The plan is JSON. To the pipe goes one line of JSON: what was mounted, or why not; then it is closed.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_runtime.mount.server import MountOptions, MountServer
from ds.dataset import Dataset
from ds.exits import EXPECTED_ERRORS, exit_of
from ds.mounting.data import open_files
from ds.mounting.opening import open_view
from ds.mounting.plans import Mounted, MountPlan
from ds.mounting.points import our_mount_at, take_away
from ds.mounting.records import Records
from ds.mounting.status_socket import StatusSocket
from ds.settings import current_settings
from ds.working import log_to_stderr
from ds.worktree import WorkingDataset
from versioning import CommitId

if TYPE_CHECKING:
    from types import FrameType

    from versioning import Repository

_log = logging.getLogger("ds.mounting.serving")  # as a program its name is another


def main(arguments: list[str]) -> int:
    """Mount, report, and serve until it is unmounted; return the exit code."""
    plan, report = MountPlan.decode(arguments[0]), int(arguments[1])
    log_to_stderr(as_json=plan.log_json)
    try:
        server, repository = _mounted(plan)
    except EXPECTED_ERRORS as error:
        _tell(report, {"error": str(error), "exit": int(exit_of(error))})
        return exit_of(error)
    except OSError as error:
        _tell(report, {"error": str(error), "exit": 69})
        return 69
    device, number = server.attached_as
    _tell(report, {**asdict(_described(server)), "device": device, "number": number})
    _log.info("mounted mount_point=%s source=%s commit=%s", plan.mount_point, plan.source, server.status()["commit"])
    if plan.branch is not None:
        threading.Thread(target=_follow, args=(server, repository, plan), name="forebay-follow", daemon=True).start()
    server.serve()
    _log.info("mount ended mount_point=%s", plan.mount_point)
    return 0


def _mounted(plan: MountPlan) -> tuple[MountServer, Repository]:
    settings = replace(current_settings(), home=Path(plan.home))
    if plan.working_copy is not None:
        dataset: Dataset = WorkingDataset(Path(plan.working_copy), settings=settings)
    else:
        dataset = Dataset(plan.dataset, settings=settings)
    repository = dataset.repository
    commit = CommitId(plan.commit)
    if plan.branch is not None:
        commit = repository.head(plan.branch) or commit
    view, client = open_view(repository, commit, plan.path), dataset.client
    os.chdir("/")  # whatever directory this was started in may be unmounted
    server = MountServer(view, lambda kernel: open_files(client, kernel, plan), plan.mount_point, _options(plan))
    signal.signal(signal.SIGTERM, lambda number, frame: _stop(server, number, frame))
    signal.signal(signal.SIGINT, lambda number, frame: _stop(server, number, frame))
    records = Records(settings.home)
    records.prepare()
    StatusSocket(records.file(plan.mount_point, ".sock"), server.status)  # nothing after the mount may fail
    if our_mount_at(plan.mount_point) is not None:  # of a server that died: until here, who looks gets ENOTCONN
        take_away(plan.mount_point, lazily=True)
    server.mount()
    gc.freeze()  # what is loaded stays
    return server, repository


def _stop(server: MountServer, number: int, frame: FrameType | None) -> None:
    del number, frame
    server.stop()


def _options(plan: MountPlan) -> MountOptions:
    chosen: dict[str, Any] = {name: getattr(plan, name) for name in ("uid", "gid") if getattr(plan, name) is not None}
    return MountOptions(
        source=plan.source,
        allow_other=plan.allow_other,
        passthrough=plan.passthrough,
        small_files=plan.small_files,
        follows=plan.branch is not None,
        **chosen,
    )


def _described(server: MountServer) -> Mounted:
    status: dict[str, Any] = server.status()
    return Mounted(
        commit=status["commit"],
        files=status["files"],
        bytes=status["bytes"],
        passthrough=server.passthrough,
        reason=server.why_no_passthrough(),
    )


def _tell(report: int, what: dict[str, Any]) -> None:
    with open(report, "w") as pipe:
        pipe.write(json.dumps(what) + "\n")


def _follow(server: MountServer, repository: Repository, plan: MountPlan) -> None:
    """Show each new commit of the branch; what goes wrong is logged once and tried again."""
    shown, trouble = str(server.status()["commit"]), ""
    waiting = threading.Event()
    while not waiting.wait(plan.follow_seconds):
        try:
            commit = repository.head(str(plan.branch))
            if commit is None or commit == shown:
                continue
            server.follow(open_view(repository, commit, plan.path))
        except _TROUBLE as error:
            if str(error) != trouble:
                _log.warning("still on commit=%s of branch=%s reason=%s", shown, plan.branch, error)
            trouble = str(error)
        else:
            _log.info("switched mount_point=%s from=%s to=%s", plan.mount_point, shown, commit)
            shown, trouble = commit, ""


_TROUBLE: tuple[type[Exception], ...] = (*EXPECTED_ERRORS, OSError)

if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # threads that still read from an origin are not waited for
