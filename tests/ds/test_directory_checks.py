from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ds.application import run
from ds.directory_checks import MountPoint, find_mount

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 0:25 / /mnt rw,nosuid shared:2 - nfs4 server:/x rw,vers=4.2
31 22 0:26 / /mnt/fast ro,nosuid shared:3 master:1 - xfs /dev/nvme0n1 rw
32 22 0:27 / /with\\040space rw - tmpfs tmpfs rw,size=1024k
33 22 0:28 / /mnt/fast/again rw - tmpfs first rw
34 22 0:29 / /mnt/fast/again rw - xfs second rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/var/cache", MountPoint("/", "ext4", False)),
        ("/mnt/cache", MountPoint("/mnt", "nfs4", False)),
        ("/mnt/fast", MountPoint("/mnt/fast", "xfs", True)),
        ("/mnt/faster", MountPoint("/mnt", "nfs4", False)),
        ("/with space/cache", MountPoint("/with space", "tmpfs", False)),
        ("/mnt/fast/again/x", MountPoint("/mnt/fast/again", "xfs", False)),
    ],
)
def test_the_file_system_of_a_path_is_the_deepest_and_last_mounted(path: str, mount: MountPoint) -> None:
    assert find_mount(path, MOUNTS) == mount


def test_without_mounts_nothing_is_known() -> None:
    assert find_mount("/cache", "") is None


RUNTIME = """apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: wide}}
spec: {{tiers: [{{path: {path}, capacity: {capacity}}}]}}
"""


@pytest.mark.parametrize(("capacity", "is_said"), [("512Pi", True), ("32Mi", False)])
def test_a_capacity_that_the_disk_cannot_hold_is_said_when_it_is_declared(
    capacity: str, is_said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    (tmp_path / "wide.yaml").write_text(RUNTIME.format(path=tmp_path / "cache", capacity=capacity))
    assert run(["apply", "-f", str(tmp_path / "wide.yaml")]) == 0
    said = capsys.readouterr().err
    assert ("the disk cannot hold the capacity; lower spec.tiers[].capacity to " in said) is is_said
