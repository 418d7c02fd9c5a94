from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.services import install, requiring
from tests.services.kube import building
from tests.services.unavailable import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


class Fake:
    def __init__(self, lacks: str | None, error: Exception | None = None) -> None:
        self.lacks = lacks
        self.error = error
        self.installed: list[Path] = []

    def missing(self) -> str | None:
        return self.lacks

    def install(self, cache: Path) -> None:
        if self.error:
            raise self.error
        self.installed.append(cache)
        self.lacks = None


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "forebay-services"


def run(monkeypatch: pytest.MonkeyPatch, *, user: int = 0, **services: Fake) -> int:
    monkeypatch.setattr(install, "services", lambda: services)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    return install.main([])


def test_what_is_missing_is_installed_into_the_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    fake = Fake("no fake")
    assert run(monkeypatch, fake=fake) == 0
    assert fake.installed == [cache]
    assert cache.is_dir()


@pytest.mark.parametrize(
    "error", [PermissionError("apt"), RuntimeError("apt"), subprocess.CalledProcessError(100, ["apt-get"])]
)
def test_without_root_it_says_so_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    fine = Fake(None)
    assert run(monkeypatch, user=1000, broken=Fake("no fake", error), fine=fine) == 1
    assert "run this as root" in capsys.readouterr().err
    assert fine.installed == []


def test_what_this_machine_cannot_have_is_told_from_what_fails(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert run(monkeypatch, fake=Fake("no fake", UnavailableError("no sources"))) == install.UNAVAILABLE

    def refuse(*names: str) -> None:
        raise RuntimeError(f"apt-get install {' '.join(names)}: no")

    monkeypatch.setattr(building, "install_packages", refuse)
    with pytest.raises(UnavailableError, match="golang-go"):
        building.install(cache)
    assert not list(cache.glob("*"))


def test_every_service_can_be_asked_and_installed() -> None:
    found = install.services()
    assert {"http", "hdfs", "nfs"} <= set(found)
    for service in found.values():
        assert service.missing() is None or isinstance(service.missing(), str)
        assert callable(service.install)


def test_a_missing_service_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    requiring.require(None)
    monkeypatch.setattr(requiring, "_REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="NOT TESTED: no fake; as root: python -m"):
        requiring.require("no fake")
    monkeypatch.setattr(requiring, "_REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="NOT TESTED"):
        requiring.require("no fake")
