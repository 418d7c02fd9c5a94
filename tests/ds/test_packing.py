from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.ds.conftest import World

KEEP = """
def even(sample):
    return sample if int(sample["__key__"]) % 2 == 0 else None
"""


def test_a_plan_is_shown_and_nothing_written(world: World) -> None:
    world.committed()
    said = world.ok("pack", "--dry-run")
    assert re.search(r"12 samples of 24 files, .* would go into 1 shard", said.out)
    data = json.loads(world.ok("pack", "--dry-run", "--json").out)["data"]
    assert (data["samples"], data["shards"], data["stored_shards"]) == (12, 1, 0)
    assert list(world.bucket.list(f"{world.prefix}repo/packs/")) == []


def test_processes_open_the_dataset_themselves(world: World) -> None:
    world.committed()
    world.ok("branch", "alone")
    said = world.ok("pack", "pets@alone", "--shuffle", "--shard-size", "4Ki")
    assert re.search(r"12 samples, \d+ shards, ", said.out)
    world.ok("pack", "pets@main", "--shuffle", "--shard-size", "4Ki", "--workers", "2", "--verify")
    assert "images/" not in world.ok("diff", "alone..main").out
    assert not list((world.directory / "home" / "packs").rglob("*.journal"))


def test_a_transform_of_the_users(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.directory / "keeping_module.py").write_text(KEEP)
    monkeypatch.syspath_prepend(world.directory)
    monkeypatch.setenv("PYTHONPATH", str(world.directory))
    world.committed()
    report = world.directory / "report.json"
    arguments = ["--transform", "keeping_module:even", "--transform-version", "v1", "--report", str(report)]
    said = world.ok("pack", *arguments, "--workers", "2", "--shard-size", "4Ki")
    assert "6 samples dropped by the transform" in said.out
    data = json.loads(report.read_text())["data"]
    assert (data["samples"], data["dropped"], data["skipped"]) == (6, 6, [])
    assert len(world.ok("ls", "pets@main/labels").out.split()) == 6


def test_mistakes_say_what_to_do(world: World) -> None:
    world.committed()
    for arguments, text in [
        (["--transform", "nowhere:at_all"], "PYTHONPATH"),
        (["--key", "("], "regular expression"),
        (["--executor", "spark://x"], "dask://host:8786"),
        (["--executor", "dask://x", "--workers", "3"], "leave it out"),
    ]:
        said = world.ds("pack", *arguments)
        assert said.code == 2, said
        assert text in said.err.replace("\n", " ")


def test_skipped_inputs_are_listed(world: World) -> None:
    world.committed()
    for name in ("03", "05"):
        Path(world.directory / "labels" / f"{name}.json").write_text("changed")
    said = world.ds("pack", "--skip-errors", "1")
    assert said.code != 0
    said = world.ok("pack", "--skip-errors", "2")
    assert "2 inputs skipped:\n  labels/03.json: " in said.out
