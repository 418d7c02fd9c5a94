"""Ctrl-C in every command, at many moments: exit 130 without a traceback, and the same command works afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ds.conftest import World

DS = str(Path(sys.executable).with_name("ds"))


def interrupted(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command, press Ctrl-C after a while, and return how it ended and what it said on stderr."""
    process = subprocess.Popen([DS, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    killed = process.returncode == -signal.SIGINT  # before Python looked after signals; a shell calls it 130 too
    return 130 if killed else process.returncode, said


def prepared(world: World, command: str) -> list[str]:
    """Bring the world to where the command has something to do, and return its arguments."""
    if command == "apply":
        return ["apply", "-f", str(world.manifest)]
    world.ok("apply", "-f", str(world.manifest))
    if command == "import":
        return ["import"]
    world.ok("import")
    if command == "commit":
        return ["commit", "-m", "first"]
    world.ok("commit", "-m", "first")
    large = world.directory / "large"
    if command == "add":
        large.mkdir()
        for number in range(40):
            (large / f"{number}.bin").write_bytes(os.urandom(1 << 20))
        return ["add", str(large), "--to", "large"]
    if command == "merge":
        world.ok("switch", "-c", "other")
        (world.directory / "note.txt").write_text("note")
        world.ok("add", str(world.directory / "note.txt"))
        world.ok("commit", "-m", "note")
        world.ok("switch", "main")
        return ["merge", "other"]
    return {"load": ["load"], "pack": ["pack", "--shuffle"]}[command]


@pytest.mark.parametrize("command", ["apply", "import", "commit", "add", "load", "pack", "merge"])
def test_an_interrupted_command_ends_cleanly_and_works_again(world: World, command: str) -> None:
    arguments = prepared(world, command)
    ended = []
    for wait in (0.2, 0.6, 0.8, 1.0, 1.3):
        code, said = interrupted(arguments, wait)
        assert "Traceback" not in said, said
        assert code in (0, 1, 130), (code, said)  # 1: an earlier round was done before Ctrl-C, nothing is left to do
        ended.append(code)
    assert 130 in ended
    assert world.ds(*arguments).code in (0, 1)
    assert world.ds("status").code in (0, 1)
    assert world.ok("get").out
    if command not in ("apply", "import"):
        assert world.ok("log", "--oneline").out
        world.ok("load")
