from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services.netns import Fabric, fabric, missing
from tests.services.processes import Process, started
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTEN = """
import socket
server = socket.create_server(("", 9000))
print("listening", flush=True)
while True:
    server.accept()
"""
REACH = "import socket, sys; socket.create_connection((sys.argv[1], 9000), timeout=0.5)"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Fabric]:
    require(missing())
    with fabric() as made:
        made.add("a", "b", "c")
        yield made


@pytest.fixture
def listening(net: Fabric, tmp_path: Path) -> Iterator[None]:
    logs = tmp_path / "a.log", tmp_path / "b.log"

    def says(process: Process) -> bool:
        return process.says("listening")

    with (
        started([*net.inside("a"), sys.executable, "-c", LISTEN], log=logs[0], ready=says, grace_seconds=0),
        started([*net.inside("b"), sys.executable, "-c", LISTEN], log=logs[1], ready=says, grace_seconds=0),
    ):
        yield


def reaches(net: Fabric, sender: str, receiver: str) -> bool:
    command = [*net.inside(sender), sys.executable, "-c", REACH, net.address(receiver)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=20, check=False).returncode == 0


@pytest.mark.usefixtures("listening")
def test_machines_reach_each_other_until_they_are_cut_off_and_again_when_healed(net: Fabric) -> None:
    assert reaches(net, "a", "b")
    net.isolate("b")
    assert not reaches(net, "a", "b")
    assert not reaches(net, "b", "a")
    assert reaches(net, "c", "a")
    net.heal()
    assert reaches(net, "a", "b")
    net.unplug("b")
    assert not reaches(net, "a", "b")
    net.heal()
    assert reaches(net, "a", "b")


def test_nothing_is_left_behind(net: Fabric) -> None:
    net.close()
    assert list(Path("/run/netns").glob(f"fb-{os.getpid()}-*")) == []
    assert f"fb-{os.getpid()}" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    require(missing())
    gone = subprocess.Popen(["true"])
    gone.wait()
    subprocess.run(["ip", "netns", "add", f"fb-{gone.pid}-a"], check=True)
    with fabric():
        assert not Path(f"/run/netns/fb-{gone.pid}-a").exists()
