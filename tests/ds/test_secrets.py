"""Whatever a run writes, a secret is nowhere in it, but in the catalog that its owner alone can read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tests.conftest import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.ds.conftest import World

WRONG = "wrong-s3cret-of-a-test"


def declare(world: World, secret: str) -> None:
    options = f'{{endpoint_url: "{world.server.endpoint}", key: {world.server.key}, secret: {secret}}}'
    text = world.manifest.read_text()
    for place in (f'uri: "s3://{BUCKET}/{world.prefix}raw"', f'uri: "s3://{BUCKET}/{world.prefix}repo"'):
        assert place in text
        text = text.replace(place, f"{place}, options: {options}")
    world.manifest.write_text(text)


def files_with(directory: Path, needle: bytes) -> list[str]:
    found = [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]
    return sorted(path.name for path in found)


def test_a_secret_is_in_nothing_that_a_run_wrote(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = world.server.secret
    for name in world.server.environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    for logger in ("sources", "versioning", "cache_runtime", "dataset_controller", "ds", "loaders"):
        caplog.set_level(logging.DEBUG, logger=logger)
    world.put_image("1.png", b"one")
    bare = world.manifest.read_text()
    declare(world, secret)
    said = [world.ok("apply", "-f", str(world.manifest))]
    commands = (
        ["import"],
        ["commit", "-m", "first"],
        ["get", "--json"],
        ["status", "--json"],
        ["log", "--json"],
        ["ls", "--json"],
        ["load"],
        ["cat", "/images/1.png"],
    )
    said += [world.ok(*command) for command in commands]
    world.put_image("1.png", b"changed")
    said.append(world.ds("cat", "/images/1.png", "--no-such-option"))
    world.manifest.write_text(bare)
    declare(world, WRONG)
    refused = world.ds("apply", "-f", str(world.manifest))
    assert refused.code == 5, refused
    said.append(refused)
    for text in [*(one.out + one.err for one in said), caplog.text]:
        assert secret not in text
        assert WRONG not in text
    world.manifest.unlink()
    for needle in (secret.encode(), WRONG.encode()):
        assert set(files_with(tmp_path, needle)) <= {"catalog.lmdb"}
        for stat in world.bucket.list(world.prefix):
            body = bytes(world.bucket.read(stat.key, start=0, length=stat.size, version=None))
            assert needle not in stat.key.encode() + body
    assert (tmp_path / "home" / "catalog.lmdb").stat().st_mode & 0o077 == 0
