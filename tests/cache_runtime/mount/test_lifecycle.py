"""From mount to unmount, and the ways in which it goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime.errors import MountError
from cache_runtime.mount.device import KIND, attach
from cache_runtime.mount.mountinfo import mount_at
from cache_runtime.mount.options import MountOptions
from cache_runtime.mount.session import DIED
from tests.cache_runtime.mount.shown import WAIT_SECONDS, shown
from tests.services.fuse import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
SOON_SECONDS = 10.0
"""Far below the 30 s that the slow look-up takes, and enough on a busy machine."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "real"
    (root / "d").mkdir(parents=True)
    (root / "d" / "file").write_bytes(b"one")
    (root / "slow").write_bytes(b"slow")
    return root


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_ends(tree: Path, tmp_path: Path, number: signal.Signals) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        assert os.listdir(mount.path / "d") == ["file"]
        mount.server.send_signal(number)
        assert mount.line() == "ended"
        assert mount.server.wait(WAIT_SECONDS) == 0
        assert mount_at(str(mount.path)) is None
        assert os.listdir(mount.path) == []


def test_unmounting_by_hand_ends_the_server(tree: Path, tmp_path: Path) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        subprocess.run(["umount", mount.path], check=True, timeout=WAIT_SECONDS)
        assert mount.line() == "ended"
        assert mount.server.wait(WAIT_SECONDS) == 0


def test_a_mount_in_use_goes_out_of_sight_and_ends_later(tree: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "small_files": False
    }  # else the first close of a file, which asks to flush it, finds the server gone
    with (
        shown(tree, tmp_path / "mnt", leave_seconds=2, **asked) as mount,
        (mount.path / "d" / "file").open("rb") as file,
    ):
        mount.server.terminate()
        deadline = time.monotonic() + WAIT_SECONDS
        while mount_at(str(mount.path)) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.listdir(mount.path) == []
        assert file.read() == b"one"
        assert mount.line() == "ended"
        assert mount.server.wait(WAIT_SECONDS) == 0
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(file.fileno())


def test_a_killed_server_gives_enotconn_at_once(tree: Path, tmp_path: Path) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        waiter = subprocess.Popen(["stat", mount.path / "slow"], stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        assert waiter.poll() is None
        began = time.monotonic()
        mount.server.kill()
        _, told = waiter.communicate(timeout=WAIT_SECONDS)
        with pytest.raises(OSError, match="not connected") as caught:
            os.listdir(mount.path)
        assert caught.value.errno == errno.ENOTCONN
        assert time.monotonic() - began < SOON_SECONDS
        assert "connect" in told or "abort" in told


def test_a_server_whose_thread_fails_ends(tree: Path, tmp_path: Path) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        mount.order("fail")
        assert mount.server.wait(WAIT_SECONDS) == DIED
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount.path)
        assert "a thread of the server fails" in mount.log.read_text()


def test_files_are_read_while_a_name_is_looked_for(tree: Path, tmp_path: Path) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        file = mount.path / "d" / "file"
        file.stat()
        with file.open("rb") as opened:
            waiter = subprocess.Popen(["stat", mount.path / "slow"], stdout=subprocess.DEVNULL)
            time.sleep(0.5)
            began = time.monotonic()
            assert opened.read() == b"one"
            assert time.monotonic() - began < SOON_SECONDS
            waiter.kill()  # and one that waits can be killed
            waiter.wait(SOON_SECONDS)
        assert mount.status()["errors"] == 0


PROFILED = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
try:
    os.stat(sys.argv[1])
except InterruptedError:
    sys.exit(3)
"""


def test_a_timer_does_not_interrupt_and_ctrl_c_does(tree: Path, tmp_path: Path) -> None:
    with shown(tree, tmp_path / "mnt") as mount:
        waiter = subprocess.Popen([sys.executable, "-c", PROFILED, mount.path / "slow"], stderr=subprocess.DEVNULL)
        time.sleep(2)
        assert waiter.poll() is None
        waiter.send_signal(signal.SIGINT)
        waiter.wait(SOON_SECONDS)


def test_a_mount_point_must_be_a_directory_that_is_free(tree: Path, tmp_path: Path) -> None:
    require(missing())
    with pytest.raises(MountError, match="No such file"):
        attach(tmp_path / "none", MountOptions())
    with pytest.raises(MountError, match="no directory"):
        attach(tree / "slow", MountOptions())
    with shown(tree, tmp_path / "mnt a\\b", source="data@v1, a b") as mount:
        seen = mount_at(str(mount.path))
        assert seen is not None
        assert (seen.kind, seen.source) == (KIND, "data@v1, a b")
        with pytest.raises(MountError, match="data@v1, a b is mounted there"):
            attach(mount.path, MountOptions())
        mount.server.kill()
        mount.server.wait(WAIT_SECONDS)
        with pytest.raises(MountError, match="server died"):
            attach(mount.path, MountOptions())


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory of another user below /tmp, whose parents it may pass."""
    path = Path(f"/tmp/forebay-nobody-{os.getpid()}")
    (path / "real" / "d").mkdir(parents=True)
    (path / "real" / "d" / "file").write_bytes(b"one")
    (path / "mnt").mkdir()
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", path], check=True, timeout=20)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("allowed", [True, False])
def test_who_is_not_root_sees_a_mount_of_root_if_allowed(nobodys: Path, *, allowed: bool) -> None:
    with shown(nobodys / "real", nobodys / "mnt", allow_other=allowed, uid=1234, gid=5678) as mount:
        found = (mount.path / "d").stat()
        assert (found.st_uid, found.st_gid) == (1234, 5678)
        command = [*AS_NOBODY, "cat", str(mount.path / "d" / "file")]
        done = subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS, check=False)
        assert (done.returncode == 0, done.stdout) == (allowed, b"one" if allowed else b"")


WITH_OPEN_DEVICE = """
set -e
mount --make-rprivate /
# The copies of other mounts would keep them alive after they are unmounted outside.
grep ' fuse' /proc/self/mounts | while read -r _ path _; do umount -l "$(printf %b "$path")" || true; done
mknod -m 666 "$1" c 10 229
mount --bind "$1" /dev/fuse
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"""


def in_private(pid: int, *command: object) -> subprocess.CompletedProcess[str]:
    """Run something as the same user in the same namespace of mounts."""
    words = ["nsenter", "-m", "-t", str(pid), *AS_NOBODY, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)


def test_another_user_than_root_mounts_with_fusermount3(nobodys: Path) -> None:
    """In a namespace of mounts of its own, where /dev/fuse is open for all as udev has it."""
    prefix = ["unshare", "-m", "sh", "-c", WITH_OPEN_DEVICE, "sh", str(nobodys / "fuse")]
    with shown(nobodys / "real", nobodys / "mnt", prefix=prefix, source="data@v1, x") as mount:
        pid = mount.server.pid
        status = mount.status()
        assert (status["passthrough"], status["why_no_passthrough"]) == (
            False,
            "this process has no CAP_SYS_ADMIN: run it as root",
        )
        assert in_private(pid, "cat", mount.path / "d" / "file").stdout == "one"
        table = in_private(pid, "cat", "/proc/self/mountinfo").stdout
        assert f"{mount.path} ro,nosuid,nodev" in table
        assert f" {KIND} data@v1,\\040x " in table
        mount.server.terminate()
        assert mount.line() == "ended"
        assert mount.server.wait(WAIT_SECONDS) == 0
