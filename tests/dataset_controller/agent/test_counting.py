"""How much of a version is cached: counted anew when something came or went, also what no room was taken for."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dataset_controller.agent import caches
from dataset_controller.agent.caches import Caches
from dataset_controller.agent.telling import Teller
from dataset_controller.operator.objects.workers import token_name
from dataset_controller.operator.queueing import Key
from dataset_controller.runtime_model import CacheRuntime
from tests.cache_runtime.lake import Lake, whole
from tests.cache_runtime.worker.workers import worker
from tests.dataset_controller.agent.test_telling import Clock, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from sources import Location

CACHE, DATASET = Key("CacheRuntime", "ml", "nvme"), Key("Dataset", "ml", "a")


def runtime(port: int) -> CacheRuntime:
    spec = {"replicas": 1, "port": port, "tiers": [{"path": "/cache", "capacity": "1Gi"}]}
    document = {"apiVersion": "forebay.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": "nvme"}}
    return CacheRuntime.model_validate({**document, "spec": spec})


class Version:
    """Files of a version, and how often they were gone through."""

    def __init__(self, files: list[Location]) -> None:
        self.files = files
        self.passes = 0

    def __iter__(self) -> Iterator[Location]:
        self.passes += 1
        return iter(self.files)


def test_small_files_are_counted_that_fill_a_slab_whose_room_was_taken_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "worker_host", lambda *_: "127.0.0.1")
    (tmp_path / "lake").mkdir()
    lake = Lake(tmp_path / "lake")
    files = [whole(lake.add(f"{number}", 8000)) for number in range(20)]
    version, clock, teller = Version(files), Clock(0.05), Teller(Target())
    teller.begin(DATASET, {})
    with worker(lake.root, tmp_path / "cache") as one:
        declared = runtime(urlsplit(one.url).port or 0)
        token = tmp_path / "home" / "tokens" / token_name(declared) / "token"
        token.parent.mkdir(parents=True)
        token.write_text("any")
        agent = Caches(tmp_path / "home", teller, lambda _: ("c1", 160_000, version), lambda *_: None, clock)
        agent.put(CACHE, declared, 1)
        agent.use(DATASET, "nvme")

        def percent() -> object:
            clock.now += 60
            agent.work()
            return teller.known(DATASET).get("cachedPercent")

        assert percent() == 0
        for location in files[:10]:
            one.read(location)
        assert percent() == 50
        room = one.stats()["store"]["used_bytes"]
        one.read(files[10])
        assert one.stats()["store"]["used_bytes"] == room
        assert percent() == 55
        passes = version.passes
        assert [percent(), percent()] == [55, 55]
        assert version.passes == passes  # nothing came or went
        one.read(files[11])
        assert (percent(), version.passes) == (60, passes + 1)
