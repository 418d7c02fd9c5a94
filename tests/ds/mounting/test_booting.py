"""Mounts that the machine makes when it starts: mount(8), /etc/fstab and systemd read what the guide says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ds.mounting.private import run_privately

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ds.cached_shop import CachedShop

GUIDE = Path(__file__).parents[3] / "docs/guides/mounting.md"
GENERATOR = Path("/lib/systemd/system-generators/systemd-fstab-generator")
SCRIPT = """
set -e
mount --bind "$1/sbin" /usr/sbin
mount --fstab "$1/fstab" "$2"
echo "files: $(find "$2" -type f | wc -l)"
cmp "$2/big.bin" "$3/big.bin"
echo "table: $(grep " fuse.forebay " /proc/self/mounts)"
umount "$2"
mount -t forebay -o ro,read_ahead=0,prefetch=0,read_timeout=30s "pets@main/small" "$2"
echo "small: $(ls "$2" | wc -l)"
umount "$2"
mount -t forebay -o colour=red pets@main "$2" || echo "wrong: $?"
"""


@pytest.fixture
def work(shop: CachedShop) -> Iterator[Path]:
    """A directory with mount(8)'s helper, and nothing else of /usr/sbin."""
    path = Path(tempfile.mkdtemp(prefix="forebay-boot-", dir="/tmp"))
    (path / "sbin").mkdir()
    helper = path / "sbin" / "mount.forebay"
    root = Path(__file__).parents[3]
    helper.write_text(f'#!/bin/sh\ncd {root} && exec {sys.executable} -m ds.mounting.fstab "$@"\n')
    helper.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_mount_8_mounts_what_fstab_says(work: Path, point: Path, shop: CachedShop) -> None:
    home = os.environ["FOREBAY_HOME"]
    where = os.fspath(point).replace(" ", "\\040")
    (work / "fstab").write_text(f"pets@main  {where}  forebay  home={home},allow_other,uid=1234,_netdev,nofail  0  0\n")
    source = os.fspath(shop.directory / "raw")
    words = ["sh", "-c", SCRIPT, "sh", os.fspath(work), os.fspath(point), source]
    done = run_privately(work, *words, environment={"FOREBAY_HOME": home})
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (said["files"], said["small"], said["wrong"]) == ("13", "12", "1")
    assert "allow_other" in said["table"]
    assert "option colour is not known; known are: allow_other" in done.stderr
    assert "Traceback" not in done.stderr


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_systemd_understands_the_units_of_the_guide(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None or not GENERATOR.exists():
        pytest.skip("NOT TESTED: there is no systemd")
    (line,) = [block for block in blocks("text") if "forebay" in block]
    (service,) = [block for block in blocks("ini") if "[Service]" in block]
    (tmp_path / "fstab").write_text(line)
    places = [tmp_path / name for name in ("normal", "early", "late")]
    for place in places:
        place.mkdir()
    environment = {**os.environ, "SYSTEMD_FSTAB": os.fspath(tmp_path / "fstab")}
    subprocess.run([GENERATOR, *places], check=True, timeout=60, env=environment, capture_output=True)
    assert "Type=forebay" in (places[0] / "mnt-scenes.mount").read_text()
    units = [places[0] / "mnt-scenes.mount", places[0] / "mnt-scenes.automount", tmp_path / "forebay-scenes.service"]
    units[2].write_text(service.replace("/opt/forebay/bin/ds", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], timeout=60, check=False, capture_output=True, text=True
    )
    own = [line for line in done.stderr.splitlines() if "scenes" in line]  # of others it has something to say, too
    assert (done.returncode, own) == (0, [])
