"""Ctrl-C in every command, at many moments: exit 130 without a traceback, and the same command works afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ds.conftest import World

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
BEGUN = "import ds.cli; print('begun', flush=True); ds.cli.main()"
MOMENTS = (0.03, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Seconds: the libraries take half a second to load, more on a busy machine, and the commands as much as that."""
COMMANDS = ("apply", "import", "commit", "add", "load", "pack", "merge")


def interrupted(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command, press Ctrl-C after a while, and return how it ended and what it said on stderr.

    The while begins when Python has: before that, Ctrl-C is Python's to answer, and how long it takes is the machine's.
    """
    program = [sys.executable, "-c", BEGUN, *command]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    killed = process.returncode == -signal.SIGINT  # when all was done and Python was ending; a shell calls it 130 too
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


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupted_command_ends_cleanly_and_works_again(world: World, command: str) -> None:
    arguments = prepared(world, command)
    ended = []
    # each command at other moments: of the late ones two, and all of them with FOREBAY_DEEP=1
    for wait in MOMENTS if DEEP else (MOMENTS[0], *MOMENTS[1 + COMMANDS.index(command) % 3 :: 3]):
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
