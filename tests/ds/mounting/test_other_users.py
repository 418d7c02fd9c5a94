"""Mounts of and for other users than root."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime.mount.capabilities import keeps_unopened_files
from tests.ds.mounting.private import NOBODY, run_privately
from tests.services.fuse import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import contextlib, io, json, os, pathlib, subprocess, sys, time
work = pathlib.Path(sys.argv[1])
os.environ["FOREBAY_HOME"] = str(work / "home")
os.environ["FOREBAY_AUTHOR"] = "nobody@example.org"
from ds.application import run

def ds(*words):
    # its own descriptors: what runs on in the background must not keep ours
    with open(work / "out", "w+") as out, open(work / "err", "w+") as err:
        command = [pathlib.Path(sys.executable).with_name("ds"), *map(str, words)]
        code = subprocess.run(command, stdout=out, stderr=err).returncode
        out.seek(0), err.seek(0)
        return code, out.read(), err.read()

def made():
    for words in (["apply", "-f", work / "dataset.yaml"], ["import"], ["commit", "-m", "first"]):
        assert run(list(map(str, words))) == 0, words

told = {}
point = work / "mnt"
point.mkdir()
with contextlib.redirect_stdout(io.StringIO()):
    made()
"""
STEPS = """
told["refused"] = ds("mount", "pets@main", point, "--background", "--allow-other")
told["mounted"] = ds("mount", "pets@main", point, "--background")
found = {str(path.relative_to(point)): path.read_bytes() for path in point.rglob("*") if path.is_file()}
source = work / "raw"
told["right"] = found == {name: (source / name).read_bytes() for name in found}
told["files"] = len(found)
status = json.loads(ds("mounts", point, "--json")[1])["data"][0]
told["status"], told["operations"] = status["state"], status["status"]["operations"]
def requests():
    found = json.loads(ds("mounts", point, "--json")[1])["data"][0]["status"]["operations"]
    return found["read"]["requests"]

for _ in range(10):  # the kernel keeps its pages, unless somebody else has it drop some
    before = requests()
    (point / "big.bin").read_bytes()
    told["read again"] = requests() - before
    if told["read again"] == 0:
        break
os.kill(status["server"], 9)
for _ in range(600):
    time.sleep(0.1)
    try:
        told["back"] = (point / "small" / "0.bin").read_bytes() == (source / "small" / "0.bin").read_bytes()
    except OSError as error:
        told["meanwhile"] = error.errno
    else:
        break
"""
ALLOWED = """
told["mounted"] = ds("mount", "pets@main", point, "--background", "--allow-other", "--uid", "1234")
told["owner"] = os.stat(point / "big.bin").st_uid
"""
END = """
told["table"] = [line for line in open("/proc/self/mounts") if "fuse.forebay" in line]
told["unmounted"] = ds("umount", point)
told["left"] = os.listdir(point)
print(json.dumps(told))
"""


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory of another user, with a source and a manifest."""
    require(missing())
    path = Path(f"/tmp/forebay-user-{os.getpid()}")
    (path / "raw" / "small").mkdir(parents=True)
    (path / "raw" / "big.bin").write_bytes(os.urandom(3 << 20))
    for number in range(5):
        (path / "raw" / "small" / f"{number}.bin").write_bytes(os.urandom(10_000))
    (path / "dataset.yaml").write_text(
        f"""\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts: [{{name: raw, uri: "file://{path}/raw", path: ""}}]
  repo: {{uri: "file://{path}/repo"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{path}/cache", capacity: 64Mi}}]
"""
    )
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", path], check=True, timeout=20)
    yield path
    shutil.rmtree(path)


def told_by_nobody(work: Path, steps: str) -> dict[str, Any]:
    done = run_privately(
        work,
        sys.executable,
        "-c",
        PROGRAM + steps + END,
        os.fspath(work),
        uid=NOBODY,
        environment={"PYTHONPATH": os.fspath(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["mounted"][0] == 0, told
    assert (told["unmounted"][0], told["left"]) == (0, [])
    return told


def test_another_user_mounts_reads_and_unmounts_without_any_right(work: Path) -> None:
    (work / "fuse.conf").write_text("# user_allow_other\n")
    told = told_by_nobody(work, STEPS)
    assert told["mounted"][2] == ""
    assert "passthrough: no: this process has no CAP_SYS_ADMIN" in told["mounted"][1]
    assert (told["right"], told["files"], told["status"]) == (True, 6, "mounted")
    assert told["operations"]["open"]["requests"] >= (1 if keeps_unopened_files() else 6)
    assert told["read again"] == 0
    assert told["back"]
    # until the next one serves; ENOENT where the dead one is gone and the next one is not there yet
    assert told.get("meanwhile", errno.ENOTCONN) in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
    (line,) = told["table"]
    assert f"user_id={NOBODY}" in line
    assert " ro," in line
    assert "allow_other" not in line
    code, out, err = told["refused"]  # the error says what to do
    assert (code, out, "Traceback" in err) == (69, "", False)
    assert "let root write that line, or leave --allow-other out" in err


def test_others_are_let_in_where_the_machine_allows_it(work: Path) -> None:
    (work / "fuse.conf").write_text("user_allow_other\n")
    told = told_by_nobody(work, ALLOWED)
    assert "allow_other" in told["table"][0]
    assert told["owner"] == 1234
