"""Many programs in one mount at a time, and a server that is killed under them."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.cache_runtime.mount.shown import WAIT_SECONDS, shown

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.mount.shown import Shown

SECONDS = 20.0 if os.environ.get("FOREBAY_DEEP") else 3.0

READER = """
import os, random, sys
path, seed, real, until = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
import time
chance = random.Random(seed)
names = [os.path.join(d, n)[len(real) + 1:] for d, _, ns in os.walk(real) for n in ns]
expected = {name: open(os.path.join(real, name), "rb").read() for name in names}
while time.monotonic() < until:  # the same for all processes, and nobody sets it
    name = chance.choice(names)
    match chance.randrange(4):
        case 0:
            with open(os.path.join(path, name), "rb") as file:
                offset = chance.randrange(len(expected[name]) + 1)
                file.seek(offset)
                assert file.read(5000) == expected[name][offset:offset + 5000]
        case 1:
            assert os.stat(os.path.join(path, name)).st_size == len(expected[name])
        case 2:
            try:  # of what the kernel was never told: a server that is gone shows here
                os.stat(os.path.join(path, name + str(chance.random())))
            except FileNotFoundError:
                continue
            raise AssertionError(name)
        case 3:
            directory = os.path.dirname(name)
            listed = os.listdir(os.path.join(path, directory))
            assert sorted(listed) == sorted(os.listdir(os.path.join(real, directory)))
"""


def tree(root: Path) -> Path:
    chance = random.Random(7)
    for number in range(300):
        path = root / f"{number % 7}" / f"{number % 3}" / f"{number:04d}-{'x' * (number % 100)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(20_000)))
    return root


def programs(mount: Shown, real: Path, seconds: float) -> list[subprocess.Popen[str]]:
    until = str(time.monotonic() + seconds)
    return [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(mount.path), str(seed), str(real), until],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]


def test_many_programs_see_right_names_and_nothing_is_left(tmp_path: Path) -> None:
    real = tree(tmp_path / "real")
    with shown(real, tmp_path / "mnt", follows=True) as mount:
        running = programs(mount, real, SECONDS)
        descriptors = f"/proc/{mount.server.pid}/fd"
        while any(program.poll() is None for program in running):
            mount.order(f"follow {real}")  # the same files in other versions
            time.sleep(0.5)
        for program in running:
            assert program.wait(WAIT_SECONDS) == 0, program.communicate()[1]
            assert program.stderr is not None
            program.stderr.close()
        deadline = time.monotonic() + WAIT_SECONDS
        while mount.status()["reading"]["handles"] and time.monotonic() < deadline:
            time.sleep(0.05)
        status = mount.status()
        assert (status["waiting"], status["errors"], status["reading"]["handles"]) == (0, 0, 0)
        assert status["epoch"] > 1
        assert len(os.listdir(descriptors)) < 20


def test_programs_end_when_the_server_is_killed_under_them(tmp_path: Path) -> None:
    real = tree(tmp_path / "real")
    with shown(real, tmp_path / "mnt") as mount:
        running = programs(mount, real, WAIT_SECONDS)
        time.sleep(1)
        mount.server.kill()
        mount.server.wait(WAIT_SECONDS)
        for program in running:
            _, told = program.communicate(timeout=WAIT_SECONDS)
            assert program.returncode == 1
            assert os.strerror(errno.ENOTCONN) in told or "connection abort" in told or "AssertionError" in told, told
