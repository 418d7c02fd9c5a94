from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ds.mounting.records import Records, is_running
from tests.ds.cached_shop import CachedShop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def point(tmp_path: Path) -> Path:
    made = tmp_path / "mount point"  # mountinfo writes blanks in its own way
    made.mkdir()
    return made


@pytest.fixture
def shop(
    tmp_path: Path, point: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[CachedShop]:
    """A dataset; what it mounts is gone afterwards, whatever the test did."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("NOT TESTED: mounting takes root and /dev/fuse")
    made = CachedShop(tmp_path, monkeypatch, capfd).create()
    try:
        yield made
    finally:
        records = Records(Path(os.environ["FOREBAY_HOME"])).all()
        for record in records:
            for process in (record.supervisor, record.server):
                if is_running(process):
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        for _ in range(3):  # a killed supervisor may just have mounted
            subprocess.run(["umount", "-l", point], check=False, capture_output=True, timeout=20)
