from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import ds
from ds.commands.options import complete_runtime
from ds.loading import LoadOptions
from tests.ds.cached_shop import MIB, CachedShop
from tests.services.disks import mounted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ds.said import Said


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CachedShop:
    return CachedShop(tmp_path, monkeypatch, capfd).create()


def test_a_pattern_chooses_what_is_loaded(shop: CachedShop) -> None:
    assert shop.ok("load", "pets/small/0*.bin", "--json").data["fetched_objects"] == 10
    assert shop.ok("load", "pets/**/1?.bin", "--json").data["fetched_objects"] == 2
    assert shop.ok("load", "pets/sm*", "--json").data["present_objects"] == 12
    assert shop.ds("load", "pets/nothing/*.bin").code == 3
    assert shop.ds("load", "pets/small/[z-a].bin").code == 2


def test_a_file_named_like_a_pattern_is_found_by_its_name(shop: CachedShop) -> None:
    shop.commit_change("small/[x]*.bin", b"odd")
    assert shop.ok("load", "pets/small/[x]*.bin", "--json").data["total_bytes"] == 3


def test_the_plan_tells_what_would_happen(shop: CachedShop) -> None:
    shop.ok("load", "pets/small")
    plan = shop.ok("load", "--dry-run", "--json").data
    assert (plan["present_bytes"], plan["origin_bytes"], plan["copies_bytes"]) == (240_000, 9 * MIB, 0)
    assert (plan["replicas"], plan["workers"], plan["fits"], plan["evict_bytes"]) == (1, None, True, 0)
    assert "would be fetched from the sources" in shop.ok("load", "--dry-run").out


def test_a_deadline_ends_a_load_that_goes_on_later(shop: CachedShop) -> None:
    said = shop.ds("load", "--deadline", "1ms")
    assert said.code == 1
    assert "the deadline came first" in said.err
    assert "verified: 13 objects" in shop.ok("load", "--deadline", "5m").out
    assert shop.ds("load", "--deadline", "soon").code == 2


def test_replicas_need_workers(shop: CachedShop) -> None:
    said = shop.ds("load", "--replicas", "2")
    assert said.code == 2
    assert "--replicas needs workers" in said.err


def test_an_interrupted_load_is_resumed_by_running_it_again(shop: CachedShop) -> None:
    code = """
import os, signal
from ds.application import run
from ds.load_display import LoadDisplay
LoadDisplay.show = lambda *_: os.kill(os.getpid(), signal.SIGINT)
raise SystemExit(run(["load"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        130,
        ["interrupted; nothing is half-written, the same command goes on"],
    )
    assert "verified" in shop.ok("load", "--json").out
    assert "nothing was fetched" in shop.ok("load").out


def test_the_status_names_shares_pins_and_limits(shop: CachedShop) -> None:
    shop.cache = ", priority: 7, quota: 100Mi, admission: keep"
    shop.apply("here")
    shop.ok("load")
    (row,) = shop.ok("cache", "status", "--json").data
    (share,) = row["shares"]
    assert share["share"] == {
        "name": "pets",
        "priority": 7,
        "quota_bytes": 100 * MIB,
        "cycle_bytes": 9 * MIB + 12 * 20_000,
    }
    assert share["used_bytes"] > 9 * MIB
    assert (row["worker"], row["pins"], row["off_reason"]) == (None, [], None)
    assert "keep" in shop.ok("cache", "status").out


def test_a_version_that_does_not_fit_is_kept_in_rounds(shop: CachedShop) -> None:
    small, large = (ds.Dataset("pets").opened.share_for(size) for size in (100 * MIB, 300 * MIB))
    assert (small.cycle_bytes, large.cycle_bytes) == (0, 300 * MIB)


def test_several_directories_are_one_cache(shop: CachedShop) -> None:
    manifest = shop.directory / "here" / "dataset.yaml"
    tier = f'tiers: [{{path: "{shop.directory}/second", capacity: 64Mi}}, '
    manifest.write_text(manifest.read_text().replace("tiers: [", tier))
    shop.ok("apply", "-f", str(manifest))
    shop.ok("load")
    (row,) = shop.ok("cache", "status", "--json").data
    assert row["capacity_bytes"] == 192 * MIB
    assert len(row["disks"]) == 2
    assert sum(disk["objects"] for disk in row["disks"]) == 13
    assert "2 disks" in shop.ok("cache", "status").out


def test_what_is_pinned_stays_and_what_is_evicted_is_gone(shop: CachedShop) -> None:
    said = shop.ok("cache", "pin", "pets/big.bin")
    assert "0 of them in the cache" in said.out
    assert "ds load pets/big.bin --here" in said.out
    shop.ok("load")
    assert shop.ok("cache", "pin", "--json").data == [
        {"runtime": "local", "label": "pets@main/big.bin", "objects": 1, "cached_objects": 1}
    ]
    shop.ok("cache", "evict", "--share", "pets")
    (row,) = shop.ok("cache", "status", "--json").data
    assert row["objects"] == 1
    shop.ok("cache", "unpin", "pets/big.bin")
    assert shop.ok("cache", "evict", "pets", "--json").data["freed_bytes"] >= 9 * MIB
    assert shop.ds("cache", "unpin", "pets/big.bin").code == 2


@pytest.mark.parametrize("arguments", [(), ("pets", "--bytes", "1Gi"), ("--bytes", "0"), ("pets/small", "--workers")])
def test_an_unclear_eviction_is_refused(shop: CachedShop, arguments: tuple[str, ...]) -> None:
    assert shop.ds("cache", "evict", *arguments).code == 2


def test_verifying_finds_damage_and_the_next_load_mends_it(shop: CachedShop) -> None:
    shop.ok("load")
    assert "all good" in shop.ok("cache", "verify").out
    assert "all good" in shop.ok("cache", "verify", "pets/small", "--rate", "100Mi").out
    (stored,) = [path for path in (shop.directory / "here" / "cache" / "files").rglob("*") if path.is_file()]
    with stored.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"damage")
    said = shop.ds("cache", "verify", "--json")
    assert (said.code, said.data["bad_parts"]) == (1, 1)
    assert shop.ok("explain", "pets/big.bin", "--json").data["verdict"] == "corrupt"
    shop.ok("load")
    assert "all good" in shop.ok("cache", "verify").out


def verdict(said: Said) -> tuple[str, bool]:
    return said.data["verdict"], said.data["cached"]


def test_a_path_is_explained(shop: CachedShop) -> None:
    explain = ("explain", "pets/small/03.bin", "--json")
    assert verdict(shop.ok(*explain)) == ("never_cached", False)
    shop.ok("load")
    assert verdict(shop.ok(*explain)) == ("cached", True)
    shop.ok("cache", "evict", "pets")
    assert verdict(shop.ok(*explain)) == ("evicted", False)
    shop.ok("load")
    shop.commit_change("small/03.bin", b"another one")
    found = shop.ok(*explain)
    assert verdict(found) == ("new_version", False)
    assert found.data["earlier"]["cached"]
    assert verdict(shop.ok("explain", "pets@main~1/small/03.bin", "--json")) == ("cached", True)
    text = shop.ok("explain", "pets/small/03.bin").out
    assert "do       ds load pets --diff" in text
    assert f"file://{shop.directory}/raw/small/03.bin" in text
    next_step = found.data["next_step"].split()
    shop.ok(*next_step[1:])
    assert verdict(shop.ok(*explain)) == ("cached", True)


def test_what_cannot_be_explained_is_an_answer(shop: CachedShop) -> None:
    assert shop.ds("explain", "pets").code == 2
    assert "is a directory" in shop.ds("explain", "pets/small").err
    assert shop.ds("explain", "pets/nothing").code == 3


def test_top_prints_lines_where_there_is_no_terminal(shop: CachedShop) -> None:
    shop.ok("load")
    assert "(this node)" in shop.ok("top", "--once", "-i", "100ms").out
    said = shop.ok("cache", "top", "--once", "--json", "-i", "100ms")
    (line,) = said.out.splitlines()
    document = json.loads(line)
    assert document["schema"] == "ds.top.v1"
    assert document["data"]["objects"] == 13
    assert document["data"]["grown_bytes_per_second"] == 0.0


def findings(shop: CachedShop) -> dict[str, set[str]]:
    """The checks that found something, by level."""
    said = shop.ds("cache", "doctor", "--json")
    found: dict[str, set[str]] = {"ok": set(), "warning": set(), "failure": set()}
    for row in said.data:
        found[row["level"]].add(row["check"])
        assert bool(row["remedy"]) == (row["level"] != "ok")
    assert said.code == (1 if found["failure"] else 0)
    return found


def test_a_healthy_cache_has_nothing_to_mend(shop: CachedShop) -> None:
    shop.ok("load")
    found = findings(shop)
    assert (found["warning"], found["failure"]) == (set(), set())
    assert found["ok"] >= {"directory", "file system", "space", "index", "clock", "locks", "cache", "open files"}


def test_the_doctor_sees_a_bad_directory(shop: CachedShop) -> None:
    cache = shop.directory / "here" / "cache"
    cache.chmod(0o777)
    future = 4_000_000_000
    os.utime(cache / "FORMAT", (future, future))
    assert findings(shop)["warning"] == {"directory", "clock"}


def test_the_doctor_sees_memory_that_is_too_small(shop: CachedShop) -> None:
    with mounted(shop.directory / "memory", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as disk:
        manifest = shop.directory / "here" / "dataset.yaml"
        manifest.write_text(manifest.read_text().replace(f"{shop.directory}/here/cache", f"{disk}/cache"))
        shop.ok("apply", "-f", str(manifest))
        assert findings(shop)["warning"] == {"file system", "space"}


@pytest.fixture
def stopped_writer(shop: CachedShop) -> Iterator[int]:
    """The id of a process that was stopped while it held the lock for writing the index."""
    locks = shop.directory / "here" / "cache" / "locks"
    code = f"""
import os, signal
from cache_runtime.store.locks import WRITE_LOCK, ByteLock
with ByteLock({os.fspath(locks)!r}, WRITE_LOCK).hold(seconds=5):
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_the_doctor_names_the_stopped_process_that_holds_a_lock(shop: CachedShop, stopped_writer: int) -> None:
    said = shop.ds("cache", "doctor", "--json")
    (row,) = [row for row in said.data if row["check"] == "locks"]
    assert row["level"] == "failure"
    assert f"{stopped_writer} (python" in row["message"]
    assert "kill -CONT" in row["remedy"]


def test_runtimes_are_completed_and_unknown_ones_named(shop: CachedShop) -> None:
    assert complete_runtime("lo") == ["local"]
    said = shop.ds("cache", "doctor", "remote")
    assert (said.code, "known: local" in said.err) == (2, True)


def test_python_loads_too(shop: CachedShop) -> None:
    dataset = ds.Dataset("pets")
    assert dataset.plan_load(prefix="small/*1.bin").fetch_objects == 2
    assert dataset.load(options=LoadOptions(here=True, priority=3)).verified
    assert random.Random(7).randbytes(20_000) == dataset.open("small/00.bin").read()
