"""fio checks the checksums that it wrote into each block of a file, through a mount: every engine, cold and warm."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.mount.mounted import Mounted, can_mount

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse"),
    pytest.mark.skipif(shutil.which("fio") is None, reason="NOT TESTED: no fio (Debian package fio)"),
]
SECONDS = 60


def fio(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = ["fio", "--name=job", f"--filename={file}", "--size=8m", "--bs=4k", "--verify=crc32c"]
    words += ["--verify_state_save=0", *options]  # no file of where it stopped, in whatever directory this is
    return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_fio_finds_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    wrote = fio(tmp_path / "objects" / "large", "--rw=write", "--do_verify=0")
    assert wrote.returncode == 0, wrote.stdout
    with Mounted(tmp_path) as mounted:
        for _ in range(2):
            for engine in (["psync"], ["mmap"], ["libaio", "--direct=1", "--iodepth=16"]):
                read = ["--readonly", "--verify_fatal=1", f"--ioengine={engine[0]}", *engine[1:]]
                done = fio(mounted.path / "large", "--rw=randread", *read)
                assert (done.returncode, "verify failed" in done.stderr + done.stdout) == (0, False), done.stdout
            mounted.order("evict")
        assert mounted.reading()["reads_failed"] == 0
