"""The process that keeps a mount up: it starts the server, and starts it again when it dies. Loads little.

python -m ds.mounting.supervising PLAN [REPORT_FD] [--json]

Without a pipe to report to, it says on stdout what was mounted.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ds.exit_codes import Exit
from ds.mounting.announcing import announce, notify_ready
from ds.mounting.plans import Mounted, MountPlan
from ds.mounting.records import Record, Records
from ds.mounting.restarts import Restarts

if TYPE_CHECKING:
    from types import FrameType

_log = logging.getLogger("ds.mounting.supervising")  # as a program its name is another
_LEAVE_SECONDS = 15  # the server itself leaves within a third of it
_RETRY_SECONDS = 10.0
_MEMORY = {"MALLOC_ARENA_MAX": "4"}  # of 8 per core each keeps blocks of files that were fetched: 130 MB, here 100


class Supervisor:
    """Keeps one mount up until it is unmounted, or told to end by SIGTERM, SIGINT or SIGHUP."""

    def __init__(self, plan: MountPlan, *, restarts: Restarts | None = None) -> None:
        self._plan = plan
        self._restarts = restarts or Restarts()
        self._records = Records(Path(plan.home))
        self._server: subprocess.Popen[bytes] | None = None
        self._is_ending = False
        self._died = 0
        self._since = time.time()
        self._mount = "", 0  # device and number
        self._former: list[str] = []  # mount points of records that the next one replaces

    def start(self) -> dict[str, Any]:
        """Start a server, and return its report once it has mounted, or could not."""
        read, write = os.pipe()
        command = [sys.executable, "-P", "-m", "ds.mounting.serving", self._plan.encode(), str(write)]
        # A group of its own: Ctrl-C is for this process, which tells the server in its turn.
        self._server = subprocess.Popen(
            command, pass_fds=[write], stdin=subprocess.DEVNULL, process_group=0, env={**_MEMORY, **os.environ}
        )
        os.close(write)
        if self._is_ending:  # told so meanwhile
            self._server.terminate()
        with open(read) as pipe:
            line = pipe.readline()
        if line:
            report: dict[str, Any] = json.loads(line)
        else:
            report = {"error": f"its server ended at once ({_ending(self._server.wait())})", "exit": Exit.INTERNAL}
        if "error" not in report:
            self._mount = report.pop("device"), report.pop("number")
            self._records.write(
                Record(self._plan, os.getpid(), self._server.pid, self._since, self._died, *self._mount)
            )
            self._forget_former()
        return report

    def keep(self) -> int:
        """Return the exit code when the mount has ended."""
        while True:
            assert self._server is not None
            code = self._server.wait()
            if code == 0 or self._is_ending:
                return self._left(code)
            self._died += 1
            delay = self._restarts.delay_after(time.monotonic())
            if delay is None:
                _log.error("mount_point=%s server died too often, last: %s", self._plan.mount_point, _ending(code))
                return Exit.INTERNAL  # the stale mount stays: an empty directory would look like an empty dataset
            _log.warning(
                "mount_point=%s server died: %s; again in %.1f s", self._plan.mount_point, _ending(code), delay
            )
            self._pause(delay)
            self._go_after_the_mount()
            while not self._is_ending and "error" in (report := self.start()):
                _log.error("mount_point=%s not mounted again: %s", self._plan.mount_point, report["error"])
                self._pause(_RETRY_SECONDS)  # such as a store that is down: no reason to give up

    def _go_after_the_mount(self) -> None:
        """Go on where the dead server's mount is, if the directories above its mount point were renamed."""
        from cache_runtime.mount.mountinfo import mount_of  # rarely needed, and this process is to stay small

        device, number = self._mount
        seen, before = mount_of(number, device), self._plan.mount_point
        if seen is not None and seen.path != before:
            _log.warning("mount_point=%s was moved, the mount goes on there: %s", before, seen.path)
            self._former.append(before)
            self._plan = replace(self._plan, mount_point=seen.path)

    def _left(self, code: int) -> int:
        """Forget the mount, after a server that had to be killed take it away, and return the exit code."""
        if code != 0:
            from ds.mounting.points import our_mount_at, take_away

            self._go_after_the_mount()
            if our_mount_at(self._plan.mount_point) is not None:
                take_away(self._plan.mount_point, lazily=True)
        self._records.remove(self._plan.mount_point)
        self._forget_former()
        return Exit.OK

    def _forget_former(self) -> None:
        while self._former:
            self._records.remove(self._former.pop())

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_ending and (left := until - time.monotonic()) > 0:
            select.select([], [], [], min(left, 0.2))

    def end(self, number: int, frame: FrameType | None) -> None:
        """End the server, as the handler of a signal; a second one does not wait for it."""
        del number, frame
        again, self._is_ending = self._is_ending, True
        if self._server is not None:
            with suppress(ProcessLookupError):
                self._server.send_signal(signal.SIGKILL if again else signal.SIGTERM)
        signal.alarm(_LEAVE_SECONDS)  # whose handler is this one, too


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(arguments: list[str]) -> int:
    """Mount, report, and keep the mount up; return the exit code."""
    as_json = "--json" in arguments
    words = [word for word in arguments if word != "--json"]
    plan, report_to = MountPlan.decode(words[0]), int(words[1]) if len(words) > 1 else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    supervisor = Supervisor(plan)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, supervisor.end)
    report = supervisor.start()
    if report_to is not None:
        with suppress(BrokenPipeError), open(report_to, "w") as pipe:
            pipe.write(json.dumps(report) + "\n")
    if "error" in report:
        if report_to is None:
            sys.stderr.write(f"ds: {report['error']}\n")
        return int(report["exit"])
    if report_to is None:
        announce(plan, Mounted(**report), as_json=as_json)
    notify_ready()
    os.chdir("/")
    return supervisor.keep()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
