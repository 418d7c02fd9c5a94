from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from cache_runtime import BlockStore, Client
from cache_runtime.protocol import LOAD_PATH, encode_pieces, object_target
from cache_runtime.store.layout import BlockRun
from cache_runtime.store.shares import Share
from cache_runtime.worker.config import WorkerConfig
from cache_runtime.worker.control import _make_load
from cache_runtime.worker.node import Node
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.worker.workers import CAPACITY, worker

if TYPE_CHECKING:
    from pathlib import Path

    from sources import Location
    from tests.cache_runtime.lake import Lake
    from tests.cache_runtime.worker.workers import Worker


def wait_for(worker: Worker, text: str) -> None:
    end = time.monotonic() + 20
    while not worker.process.says(text):
        assert time.monotonic() < end, text
        time.sleep(0.02)


def test_a_leaving_worker_finishes_what_is_under_way_and_ends_in_time(lake: Lake, tmp_path: Path) -> None:
    ref = lake.add("slow", 32 * MIB)
    with worker(lake.root, tmp_path / "cache", origin_seconds=0.3, drain_seconds=20) as leaving:
        answer = leaving.ask("GET", object_target(ref, fill=True), preload_content=False)
        first = answer.read(MIB)
        os.kill(leaving.process.pid, signal.SIGTERM)
        wait_for(leaving, "worker leaving")
        assert first + answer.read() == lake.bytes[ref.id]
        start = time.monotonic()
        assert leaving.process.wait(20) == 0  # not `stop`: a second signal may find Python ending
        assert time.monotonic() - start < 10


def test_a_leaving_worker_does_not_wait_beyond_its_deadline(lake: Lake, tmp_path: Path) -> None:
    ref = lake.add("stuck", 3000)
    with worker(lake.root, tmp_path / "cache", origin_seconds=60, drain_seconds=2) as leaving:
        threading.Thread(target=_read_in_vain, args=(leaving, whole(ref)), daemon=True).start()
        time.sleep(0.3)
        start = time.monotonic()
        assert leaving.process.stop(grace_seconds=30) == 0
        assert 1 < time.monotonic() - start < 8


def test_metrics_tell_hits_misses_and_the_store(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("metrics", 5000)

    def values() -> dict[tuple[str, str], float]:
        text = running.ask("GET", "/metrics").data.decode()
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples]
        return {(one.name, ",".join(one.labels.values())): one.value for one in samples}

    before = values()
    running.read(whole(ref), fill=False)
    running.read(whole(ref))
    running.read(whole(ref))
    after = values()

    def more(name: str, labels: str = "") -> float:
        return after[name, labels] - before.get((name, labels), 0)

    assert more("forebay_worker_lookups_total", "hit") == 1
    assert more("forebay_worker_lookups_total", "miss") == 2
    assert more("forebay_worker_served_bytes_total", "local") == 5000
    assert more("forebay_worker_served_bytes_total", "filled") == 5000
    assert more("forebay_worker_requests_total", "/v1/objects/{id},206") == 2
    assert more("forebay_bytes_origin_total") == 5000
    assert after["forebay_store_up", ""] == 1
    assert after["forebay_store_capacity_bytes", ""] == CAPACITY


def test_each_request_is_one_json_line_with_the_id_of_its_sender(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("logged", 100)
    answer = running.ask("GET", object_target(ref, fill=True), headers={"Forebay-Request": "step-7.a_b"})
    assert answer.headers["Forebay-Request"] == "step-7.a_b"
    strange = running.ask("GET", "/healthz", headers={"Forebay-Request": "a b\tc"})
    assert strange.headers["Forebay-Request"] != "a b\tc"
    wait_for(running, "step-7.a_b")
    lines = [json.loads(line) for line in running.process.log.read_text().splitlines()]
    mine = next(line for line in lines if line["fields"].get("id") == "step-7.a_b")
    assert mine["fields"]["status"] == "200"
    assert mine["fields"]["route"] == "/v1/objects/{id}"
    assert shared_lake.root.name not in json.dumps(mine)


def test_a_load_caches_its_pieces_and_can_be_asked_for(running: Worker, shared_lake: Lake) -> None:
    small, large = shared_lake.add("load", 10), shared_lake.add("load-large", 9 * MIB)
    body = encode_pieces([(small, BlockRun(0, 0)), (large, BlockRun(0, 2))], id="load-1", deadline_seconds=60)
    for _ in range(2):  # the same load
        answer = running.post(LOAD_PATH, body)
        assert answer.status == 202, answer.data
    end = time.monotonic() + 30
    while (status := running.ask("GET", "/v1/loads/load-1").json())["state"] != "done":
        assert time.monotonic() < end, status
        time.sleep(0.05)
    assert running.read(whole(large), fill=False).data == shared_lake.bytes[large.id]
    assert [one["id"] for one in running.ask("GET", "/v1/loads").json()["loads"]] == ["load-1"]
    assert running.ask("DELETE", "/v1/loads/load-1").status == 200
    assert running.ask("GET", "/v1/loads/other").status == 404
    assert running.post(LOAD_PATH, encode_pieces([], id="../x")).status == 400


def test_a_load_keeps_the_priority_that_was_asked_for_beside_what_is_promised_to_its_share(
    lake: Lake, tmp_path: Path
) -> None:
    client = Client(lake.origins, BlockStore.open(tmp_path / "cache", capacity_bytes=CAPACITY))
    promised = Share("vision", priority=7, quota_bytes=1 << 30)
    config = WorkerConfig(name="w", directory=tmp_path / "cache", shares=(promised,))
    node = Node(config, client=client, origins=lake.origins)
    for asked in (-2, 3, 9):
        fields = {"id": "x", "share": "vision", "priority": asked}
        request = _make_load(node, [], fields, request_id="r")
        assert (request.priority, request.share) == (asked, promised)
    assert node.close(seconds=10)
    client.close()


def test_a_worker_killed_amid_fills_leaves_a_cache_that_is_right(lake: Lake, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    refs = [lake.add(f"k{n}", size) for n, size in enumerate([5000, 9 * MIB, 100_000, 5 * MIB])]
    for seed in range(4):
        with worker(lake.root, cache) as victim:
            threads = [threading.Thread(target=_read_until_it_dies, args=(victim, lake, seed)) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.05 * seed)
            victim.process.kill()
            for thread in threads:
                thread.join(20)
    client = Client(lake.origins, BlockStore.open(cache, capacity_bytes=CAPACITY))
    assert [bytes(client.read(whole(ref))) for ref in refs] == [lake.bytes[ref.id] for ref in refs]
    client.close()


def _read_in_vain(leaving: Worker, location: Location) -> None:
    with suppress(urllib3.exceptions.HTTPError):
        leaving.read(location)


def _read_until_it_dies(victim: Worker, lake: Lake, seed: int) -> None:
    picks = random.Random(seed)
    while victim.process.is_running:
        ref = picks.choice(lake.refs)
        try:
            data = victim.read(whole(ref)).data
        except urllib3.exceptions.HTTPError:  # killed underway
            return
        assert data == lake.bytes[ref.id]
