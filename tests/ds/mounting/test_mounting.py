"""`ds mount`, `ds umount` and `ds mounts` with real mounts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime.mount.mountinfo import mount_at
from ds.mounting.records import Record, Records, is_running
from ds.mounting.status_socket import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ds.cached_shop import CachedShop

DS = os.fspath(Path(sys.executable).with_name("ds"))
SECONDS = 30.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < SECONDS, f"waited for: {what}"
        time.sleep(0.05)


def records() -> Records:
    return Records(Path(os.environ["FOREBAY_HOME"]))


def record_of(point: Path) -> Record:
    found = records().get(os.fspath(point))
    assert found is not None
    return found


def is_seen(point: Path) -> bool:
    found = mount_at(os.fspath(point))
    return found is not None and found.kind == "fuse.forebay"


def walked(directory: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_mounted_version_has_its_files_until_it_is_unmounted(shop: CachedShop, point: Path) -> None:
    said = shop.ok("mount", "pets@main", os.fspath(point), "--background")
    assert f"mounted pets@main on {point}: commit" in said.out
    assert "13 files" in said.out
    assert "passthrough: " in said.out
    assert walked(point) == walked(shop.directory / "raw")
    (listed,) = json.loads(shop.ok("mounts", os.fspath(point), "--json").out)["data"]
    assert (listed["state"], listed["files"], listed["restarts"]) == ("mounted", 13, 0)
    assert listed["status"]["operations"]["readdirplus"]["requests"] > 0
    assert os.fspath(point) in shop.ds("mount").out  # other mounts of this machine may be stale
    assert os.fspath(point) in shop.ds("mount", "status").out
    again = shop.ds("mount", "pets@main", os.fspath(point))
    assert (again.code, "mounted there already" in again.err) == (2, True)
    processes = record_of(point).supervisor, record_of(point).server
    with open(point / "big.bin", "rb"):
        busy = shop.ds("umount", os.fspath(point))
        assert (busy.code, "in use" in busy.err, is_seen(point)) == (1, True, True)
    shop.ok("umount", os.fspath(point))
    assert not is_seen(point)
    assert list(point.iterdir()) == []
    wait_until(lambda: not any(map(is_running, processes)), "the end of the processes")
    assert records().all() == []
    assert shop.ds("umount", os.fspath(point)).code == 3


def test_a_directory_of_a_version_is_mounted_alone(shop: CachedShop, point: Path) -> None:
    said = shop.ok("mount", "pets/small", os.fspath(point), "--background", "--json")
    told = json.loads(said.out)
    assert (told["schema"], told["data"]["files"], told["data"]["bytes"]) == ("ds.mount.v1", 12, 12 * 20_000)
    assert sorted(os.listdir(point)) == [f"{number:02}.bin" for number in range(12)]
    shop.ok("umount", os.fspath(point), "--quiet")


def test_a_server_that_is_killed_comes_back_and_callers_meanwhile_get_an_error(shop: CachedShop, point: Path) -> None:
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    server = record_of(point).server
    os.kill(server, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return (point / "small" / "03.bin").read_bytes() == (shop.directory / "raw/small/03.bin").read_bytes()
        except OSError:
            return False

    wait_until(is_back, "the next server")
    wait_until(lambda: record_of(point).server != server, "its record")
    assert record_of(point).restarts == 1
    assert "signal SIGKILL" in records().file(os.fspath(point), ".log").read_text()
    shop.ok("umount", os.fspath(point))


def test_a_stale_mount_is_said_to_be_one_and_repaired(shop: CachedShop, point: Path) -> None:
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    record = record_of(point)
    os.kill(record.supervisor, signal.SIGKILL)
    os.kill(record.server, signal.SIGKILL)
    wait_until(lambda: not is_running(record.server), "the server's end")
    listed = shop.ds("mounts")
    assert (listed.code, "stale" in listed.out) == (1, True)
    refused = shop.ds("mount", "pets@main", os.fspath(point), "--background")
    assert (refused.code, "its server died; take it away with --repair" in refused.err) == (2, True)
    shop.ok("mount", "pets@main", os.fspath(point), "--background", "--repair")
    assert len(walked(point)) == 13
    shop.ok("umount", os.fspath(point))


def test_a_followed_branch_shows_its_new_commits(shop: CachedShop, point: Path) -> None:
    said = shop.ok("mount", "pets@main", os.fspath(point), "-b", "--follow", "--follow-seconds", "200ms")
    assert "follows branch main" in said.out
    assert not (point / "new").exists()
    with open(point / "small/00.bin", "rb") as before:
        shop.commit_change("new", b"and so on")
        wait_until(lambda: (point / "new").exists(), "the new commit")
        assert before.read() == (shop.directory / "raw/small/00.bin").read_bytes()
    assert (point / "new").read_bytes() == b"and so on"
    shop.ok("umount", os.fspath(point))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_mount_in_the_foreground_ends_cleanly_by_a_signal(
    shop: CachedShop, point: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(os.fspath(tmp_path / "notify"))
        systemd.settimeout(SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": os.fspath(tmp_path / "notify")}
        process = subprocess.Popen(
            [DS, "mount", "pets@main", point],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert is_seen(point)
            assert len(walked(point)) == 13
            server = record_of(point).server
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS)
        except TimeoutError:
            process.kill()
            raise AssertionError(process.communicate(timeout=SECONDS)) from None
        finally:
            process.kill()
            process.wait(SECONDS)
    assert (process.returncode, "mounted pets@main" in out, "Traceback" in err) == (0, True, False)
    assert not is_seen(point)
    assert not is_running(server)


def test_an_unmount_by_hand_ends_the_processes_too(shop: CachedShop, point: Path) -> None:
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    supervisor = record_of(point).supervisor
    subprocess.run(["umount", point], check=True, timeout=SECONDS)
    wait_until(lambda: not is_running(supervisor), "the supervisor's end")
    assert records().all() == []


def test_metrics_are_told_over_the_socket(shop: CachedShop, point: Path) -> None:
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    walked(point)
    text = shop.ok("mounts", os.fspath(point), "--metrics").out
    assert f'forebay_mount_files{{mountpoint="{point}"}} 13' in text
    assert 'operation="readdirplus"' in text
    assert ask(records().file(os.fspath(point), ".sock"), "/nothing") is None
    shop.ok("umount", os.fspath(point))


WRONG: list[tuple[list[str], int, str]] = [
    (["nosuch@main", "{point}"], 3, "no dataset 'nosuch'"),
    (["pets@nosuch", "{point}"], 3, "no such revision"),
    (["pets/nosuch", "{point}"], 3, "no such path"),
    (["pets/big.bin", "{point}"], 2, "is a file"),
    (["pets", "{point}/none"], 2, "mkdir -p"),
    (["pets", "{raw}/big.bin"], 2, "no directory"),
    (["pets", "{directory}"], 2, "would hide"),
    (["pets", "{directory}/here/cache"], 2, "would hide"),
    (["pets@main~0", "{point}", "--follow"], 2, "needs a branch"),
    (["pets", "{point}", "--follow-seconds", "soon"], 2, "expected a time"),
    (["pets@main", "{point}", "--small-files", "--follow"], 2, "leave --follow out"),
    (["pets"], 2, "where to?"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_what_cannot_be_mounted_is_said(
    shop: CachedShop, point: Path, arguments: list[str], code: int, words: str
) -> None:
    places: dict[str, Any] = {"point": point, "raw": shop.directory / "raw", "directory": shop.directory}
    said = shop.ds("mount", *(argument.format(**places) for argument in arguments))
    assert (said.code, words in said.err) == (code, True), said
    assert not is_seen(point)


def test_fstab_mounts_through_the_helper(shop: CachedShop, point: Path) -> None:
    options = f"rw,nofail,_netdev,x-systemd.automount,allow_other,home={os.environ['FOREBAY_HOME']}"
    helper = [sys.executable, "-m", "ds.mounting.fstab"]
    environment = {name: value for name, value in os.environ.items() if name != "FOREBAY_HOME"}
    subprocess.run([*helper, "pets@main", point, "-o", options], check=True, timeout=SECONDS, env=environment)
    assert len(walked(point)) == 13
    subprocess.run(["umount", point], check=True, timeout=SECONDS)
    done = subprocess.run([*helper, "pets@nosuch", point, "-o", options], timeout=SECONDS, check=False, env=environment)
    assert done.returncode == 32
