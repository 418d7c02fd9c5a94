from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3

from cache_runtime import BlockStore, Client
from cache_runtime.protocol import BlockSums, format_range, object_target, parse_error, parse_sums
from cache_runtime.store.blockfiles import block_checksum
from cache_runtime.store.layout import BLOCK_BYTES, checksum
from sources import Location
from tests.cache_runtime.lake import MIB, Lake, whole
from tests.cache_runtime.worker.workers import CAPACITY, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources import ObjectRef
    from tests.cache_runtime.worker.workers import Worker


def sums_of(lake: Lake, ref: ObjectRef, first: int, last: int) -> BlockSums:
    data = lake.bytes[ref.id]
    if ref.size <= MIB:
        return BlockSums(0, (checksum(data, ref.id),))
    blocks = [data[n * BLOCK_BYTES : (n + 1) * BLOCK_BYTES] for n in range(first, last + 1)]
    return BlockSums(first, tuple(block_checksum(ref.id, first + n, block) for n, block in enumerate(blocks)))


def peak_bytes(running: Worker) -> int:
    status = Path(f"/proc/{running.stats()['pid']}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("size", [1, 5000, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1, 9 * MIB + 77])
def test_a_miss_is_filled_once_and_then_a_hit_with_its_checksums(running: Worker, shared_lake: Lake, size: int) -> None:
    ref = shared_lake.add(f"filled{size}", size)
    location = whole(ref)
    assert running.read(location, fill=False).status == 404
    first = running.read(location)
    again = running.read(location, fill=False)
    assert (first.status, again.status) == (206, 206)
    assert first.data == again.data == shared_lake.expected(location)
    assert (first.headers["Forebay-Source"], again.headers["Forebay-Source"]) == ("filled", "local")
    everything = sums_of(shared_lake, ref, 0, (size - 1) // BLOCK_BYTES)
    assert parse_sums(again.headers["Forebay-Blocks"]) == everything
    early = parse_sums(first.headers["Forebay-Blocks"])
    assert early is not None
    assert early.crcs == everything.crcs[: len(early.crcs)]
    read = sum(int(line.split()[2]) for line in shared_lake.reads() if line.split()[0] == ref.key)
    assert read == size


def test_every_range_has_its_bytes_whether_cached_wholly_partly_or_not(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("ranges", 21 * MIB)
    running.read(Location(ref, 5 * MIB, 1))  # block 1 is cached
    for offset, length in ((0, 1), (4 * MIB - 1, 2), (4 * MIB, 4 * MIB), (3 * MIB, 9 * MIB), (0, 21 * MIB)):
        location = Location(ref, offset, length)
        assert running.read(location).data == shared_lake.expected(location), location
    answer = running.read(Location(ref, 4 * MIB, 8 * MIB), fill=False)
    assert parse_sums(answer.headers["Forebay-Blocks"]) == sums_of(shared_lake, ref, 1, 2)
    assert "Forebay-Blocks" not in running.read(Location(ref, 4 * MIB, MIB)).headers


def test_a_range_header_is_read_as_http_says(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("http", 3000)
    data, target = shared_lake.bytes[ref.id], object_target(ref, fill=True)
    for header, expected in (("bytes=2990-", data[2990:]), ("bytes=-7", data[-7:]), ("bytes=10-99999", data[10:])):
        answer = running.ask("GET", target, headers={"Range": header})
        assert (answer.status, answer.data) == (206, expected)
    assert (answer := running.ask("GET", target)).status == 200
    assert answer.data == data
    beyond = running.ask("GET", target, headers={"Range": "bytes=3000-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */3000")
    for header in ("bytes=1-2,5-6", "bytes=-", "bytes=5-2", "lines=1-2"):
        assert running.ask("GET", target, headers={"Range": header}).status == 400


def test_head_tells_what_is_here_and_never_fills(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("head", 6 * MIB)
    target = object_target(ref, fill=True)
    assert running.ask("HEAD", target).status == 404
    running.read(whole(ref))
    answer = running.ask("HEAD", target, headers={"Range": format_range(0, ref.size)})
    assert answer.status == 206
    assert parse_sums(answer.headers["Forebay-Blocks"]) == sums_of(shared_lake, ref, 0, 1)
    assert answer.headers["Content-Length"] == str(ref.size)


def test_an_object_that_is_not_named_rightly_or_not_configured_is_refused(
    running: Worker, shared_lake: Lake, tmp_path: Path
) -> None:
    ref = shared_lake.add("named", 3000)
    good = object_target(ref, fill=True)
    other = shared_lake.add("other", 3000)

    def kind(target: str) -> tuple[int, str]:
        answer = running.ask("GET", target)
        return answer.status, parse_error(answer.data).kind

    assert kind(good.replace(ref.id.hex(), other.id.hex())) == (400, "id_mismatch")
    assert kind(good.replace(ref.id.hex(), "../../etc/passwd")) == (404, "not_found")
    assert kind(good.replace(ref.id.hex(), ref.id.hex().upper())) == (400, "bad_request")
    assert kind(good.replace("size=3000", "size=0")) == (400, "bad_request")
    assert kind(good.replace("fill=1", "fill=yes")) == (400, "bad_request")
    secret = tmp_path / "secret"
    secret.write_text("not for readers")
    for key in (os.fspath(secret)[1:], f"{os.fspath(shared_lake.root)[1:]}/../../../etc/passwd"):
        outside = type(ref)(ref.store, key, ref.version, 15)
        assert kind(object_target(outside, fill=True)) == (403, "store_not_configured")
    elsewhere = type(ref)(type(ref.store)("http://127.0.0.1:1"), "a", ref.version, 15)
    assert kind(object_target(elsewhere, fill=True)) == (403, "store_not_configured")
    absolute = type(ref)(ref.store, "/etc/passwd", ref.version, 15)
    assert kind(object_target(absolute, fill=True)) == (403, "store_not_configured")
    (shared_lake.root / "objects" / "way-out").symlink_to(secret)
    link = type(ref)(ref.store, ref.key.replace("named", "way-out"), ref.version, 15)
    assert kind(object_target(link, fill=True)) == (403, "store_not_configured")
    # between the parts of a name; with one inside of a part another name would have the same id
    for parts in ((f"{ref.key}\0", "v"), (ref.key, "v\0")):
        nul = type(ref)(ref.store, parts[0], type(ref.version)(parts[1]), 15)
        assert kind(object_target(nul, fill=True)) == (400, "bad_request")


def test_a_query_has_few_fields_and_each_of_them_once(running: Worker, shared_lake: Lake) -> None:
    target = object_target(shared_lake.add("query", 100), fill=True)
    for odd in (f"{target}&{'&'.join(f'f{n}=1' for n in range(40))}", f"{target}&size=1%0d%0aX-Evil:%201"):
        answer = running.ask("GET", odd, headers={"Range": "bytes=200-"})
        assert (answer.status, parse_error(answer.data).kind) == (400, "bad_request")


def test_bytes_are_not_cached_under_the_hash_of_others(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("evil", 20 * MIB)
    hashed = type(ref)(ref.store, ref.key, type(ref.version)(f"oid:{'ab' * 32}"), ref.size)
    # a part of it could not be compared with the hash, which alone is the object's identity
    assert running.read(Location(hashed, 0, 8 * MIB)).status == 400
    assert running.read(Location(hashed, 0, 8 * MIB), fill=False).status == 400
    named = shared_lake.add("ab" * 32, 3000)
    wrong = type(ref)(named.store, named.key, hashed.version, named.size)
    assert running.read(whole(wrong)).status == 502


@pytest.mark.parametrize(("real", "told"), [(9000, 1000), (9 * MIB + 5, 5 * MIB), (9 * MIB, 1000), (1000, 9000)])
def test_who_lies_about_a_size_spoils_nothing(running: Worker, shared_lake: Lake, real: int, told: int) -> None:
    ref = shared_lake.add(f"lied{real}-{told}", real)
    lie = whole(type(ref)(ref.store, ref.key, ref.version, told))
    for location in (lie, whole(ref), lie, whole(ref)):
        with suppress(urllib3.exceptions.HTTPError):
            answer = running.read(location)
            if answer.status == 206:
                assert answer.data == shared_lake.bytes[ref.id][: location.length]
    assert running.read(whole(ref)).data == shared_lake.bytes[ref.id]


def test_an_object_that_is_said_to_have_a_petabyte_costs_little(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("not-so-large", 9 * MIB)
    huge = type(ref)(ref.store, ref.key, ref.version, 1 << 50)
    before = peak_bytes(running)
    start = time.monotonic()
    for _ in range(2):
        assert running.ask("HEAD", object_target(huge, fill=False)).status == 404
        assert running.ask("GET", object_target(huge, fill=False)).status == 404
        cut = running.ask("GET", object_target(huge, fill=True), preload_content=False)
        assert cut.read(8 * MIB) == shared_lake.bytes[ref.id][: 8 * MIB]
        with pytest.raises(urllib3.exceptions.HTTPError):
            cut.read(16 * MIB)
    assert time.monotonic() - start < 10
    assert peak_bytes(running) < before + 200 * MIB


def test_an_origin_that_changed_or_fails_has_a_status_of_its_own(running: Worker, shared_lake: Lake) -> None:
    changed, gone, broken = (shared_lake.add(name, 3000) for name in ("changed", "gone", "broken"))
    path = shared_lake.root / "objects"
    (path / "changed").write_bytes(b"x" * 3000)
    (path / "gone").unlink()
    (shared_lake.root / "broken-keys").write_text(broken.key)
    found = [running.read(whole(ref)) for ref in (changed, gone, broken)]
    assert [answer.status for answer in found] == [409, 409, 502]
    kinds = [parse_error(answer.data).kind for answer in found]
    assert kinds == ["source_changed", "source_changed", "source_unavailable"]


@pytest.fixture(scope="module")
def slow_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("slow"))


@pytest.fixture(scope="module")
def slow(slow_lake: Lake) -> Iterator[Worker]:
    with worker(slow_lake.root, slow_lake.root / "cache", origin_seconds=0.4) as found:
        yield found


def test_a_miss_is_streamed_block_by_block_while_it_is_filled(slow: Worker, slow_lake: Lake) -> None:
    ref = slow_lake.add("slow", 32 * MIB)
    start = time.monotonic()
    headers = {"Range": format_range(0, ref.size)}
    answer = slow.ask("GET", object_target(ref, fill=True), headers=headers, preload_content=False)
    first = answer.read(BLOCK_BYTES)
    first_seconds = time.monotonic() - start
    rest = answer.read()
    all_seconds = time.monotonic() - start
    assert first + rest == slow_lake.bytes[ref.id]
    assert first_seconds < all_seconds - 0.1  # eight blocks, four at a time


def test_a_fill_that_fails_underway_breaks_the_answer_off_after_good_bytes(slow: Worker, slow_lake: Lake) -> None:
    ref = slow_lake.add("breaks", 32 * MIB)
    headers = {"Range": format_range(0, ref.size)}
    answer = slow.ask("GET", object_target(ref, fill=True), headers=headers, preload_content=False)
    (slow_lake.root / "broken-keys").write_text(ref.key)
    got = b""
    with suppress(urllib3.exceptions.HTTPError):
        while chunk := answer.read(MIB):
            got += chunk
    assert 0 < len(got) < ref.size
    assert slow_lake.bytes[ref.id].startswith(got)
    assert slow.ask("GET", "/healthz").status == 200


def test_readers_of_the_same_missing_blocks_cost_the_origin_one_read(running: Worker, shared_lake: Lake) -> None:
    ref = shared_lake.add("popular", 8 * MIB)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(running.read(whole(ref)).data)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [shared_lake.bytes[ref.id]] * 6
    read = [line for line in shared_lake.reads() if line.split()[0] == ref.key]
    assert sum(int(line.split()[2]) for line in read) == ref.size


def test_a_damaged_block_is_never_sent(lake: Lake, tmp_path: Path) -> None:
    ref = lake.add("damaged", 8 * MIB)
    cache = tmp_path / "cache"
    Client(lake.origins, BlockStore.open(cache, capacity_bytes=CAPACITY)).read(whole(ref))
    path = next(path for path in cache.glob("files/*/*") if path.is_file())
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"damage")
    with worker(lake.root, cache) as second:
        assert second.read(whole(ref), fill=False).status == 404
        assert second.read(whole(ref)).data == lake.bytes[ref.id]
        assert second.stats()["reads"]["corrupt_blocks"] == 1
    BlockStore.open(cache, capacity_bytes=CAPACITY).close()
