from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.services.http import missing, nginx
from tests.services.requiring import require

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/third-party-source"
# An environment that was installed before the plugin was announced is told of it; another may not be told twice.
ANNOUNCED = any(point.value == "sources.contract.plugin" for point in entry_points(group="pytest11"))
PLUGIN = ("-p", "no:cacheprovider", *(() if ANNOUNCED else ("-p", "sources.contract.plugin")))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", *isolation, "--target", str(target), str(EXAMPLE))
    return target


def run(*command: str, cwd: Path = ROOT, path: Path | None = None) -> str:
    places = filter(None, (path, ROOT, os.environ.get("PYTHONPATH")))
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_third_partys_store_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    database = tmp_path / "objects.db"
    output = run(
        sys.executable, "-m", "pytest", *PLUGIN, "-W", "error",
        "--forebay-store=sqlite://anything/some/prefix", "--forebay-option", f"database={database}", "--forebay-swap",
        cwd=tmp_path, path=installed,
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) >= 20
    assert database.exists()


def test_a_store_that_breaks_the_contract_is_found_out(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    for file in installed.iterdir():
        if file.suffix == ".dist-info" or file.name.endswith(".dist-info"):
            (broken / file.name).symlink_to(file)
    source = (installed / "forebay_sqlite.py").read_text()
    forgetful = source.replace("if version is not None and found != version:", "if False:")
    assert forgetful != source
    (broken / "forebay_sqlite.py").write_text(forgetful)
    with pytest.raises(AssertionError, match="test_a_changed_object_is_refused"):
        run(
            sys.executable, "-m", "pytest", *PLUGIN, "-q", "-k", "refused",
            "--forebay-store=sqlite://anything/", "--forebay-option", f"database={tmp_path / 'objects.db'}",
            cwd=tmp_path, path=broken,
        )  # fmt: skip


def test_a_store_that_cannot_write_is_tested_with_one_that_can(tmp_path: Path) -> None:
    require(missing())
    with nginx(tmp_path) as server:
        output = run(
            sys.executable, "-m", "pytest", *PLUGIN, "-W", "error", "-rs",
            f"--forebay-store={server.url}/some/directory/", f"--forebay-behind=file://{server.root}/some/directory",
            "--forebay-option", 'headers={"X-Token": "hunter2-is-not-to-be-shown"}',
            cwd=tmp_path,
        )  # fmt: skip
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) >= 15
