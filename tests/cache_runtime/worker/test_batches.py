from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cache_runtime.protocol import (
    BATCH_PATH,
    EVICT_PATH,
    LOAD_PATH,
    MAX_BATCH_ITEMS,
    PRESENT_PATH,
    BatchAnswer,
    encode_batch,
    encode_evict,
    encode_pieces,
    parse_error,
    split_batch,
)
from cache_runtime.store.layout import BlockRun, checksum
from sources import Location, ObjectRef, StoreId
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cache_runtime.lake import Lake
    from tests.cache_runtime.worker.workers import Worker


def ask(worker: Worker, items: Sequence[Location], *, fill: bool = True, bodies: bool = True) -> list[BatchAnswer]:
    answer = worker.post(BATCH_PATH, encode_batch(items, fill=fill, bodies=bodies))
    assert answer.status == 200, answer.data
    return list(split_batch(answer.data, items, bodies=bodies))


def test_a_batch_answers_in_order_with_record_checksums(running: Worker, shared_lake: Lake) -> None:
    refs = [shared_lake.add(f"batch{n}", 1 + 977 * n) for n in range(40)]
    large = shared_lake.add("batch-large", 9 * MIB)
    items = [whole(ref) for ref in refs] + [
        Location(large, 3 * MIB, 5 * MIB),
        Location(refs[9], 10, 20),
        whole(refs[0]),
    ]
    for fill in (True, False):
        answers = ask(running, items, fill=fill)
        assert [answer.data for answer in answers] == [shared_lake.expected(item) for item in items]
    assert answers[5].crc == checksum(shared_lake.bytes[refs[5].id], refs[5].id)


def test_an_item_that_fails_does_not_stop_the_others(running: Worker, shared_lake: Lake) -> None:
    good, gone, cold = (shared_lake.add(f"mixed{n}", 2000) for n in range(3))
    (shared_lake.root / "objects" / "mixed1").unlink()
    foreign = ObjectRef(StoreId("s3://elsewhere"), "k", gone.version, 10)
    answers = ask(running, [whole(good), whole(gone), whole(foreign), whole(cold)])
    assert [answer.error and answer.error.kind for answer in answers] == [
        None,
        "source_changed",
        "store_not_configured",
        None,
    ]
    assert answers[3].data == shared_lake.bytes[cold.id]


def test_a_batch_without_fill_names_what_is_not_here(running: Worker, shared_lake: Lake) -> None:
    here, missing = shared_lake.add("here", 2000), shared_lake.add("missing", 2000)
    running.read(whole(here))
    first, second = ask(running, [whole(here), whole(missing)], fill=False)
    assert first.data == shared_lake.bytes[here.id]
    assert second.error is not None
    assert second.error.kind == "not_cached"


def test_a_batch_without_bodies_fills_all_the_same(running: Worker, shared_lake: Lake) -> None:
    items = [whole(shared_lake.add("quiet", 2000)), whole(shared_lake.add("quiet-large", 6 * MIB))]
    assert [len(answer.data) for answer in ask(running, items, bodies=False)] == [0, 0]
    assert [answer.error for answer in ask(running, items, fill=False)] == [None, None]


def test_a_batch_over_its_limits_is_refused(running: Worker, shared_lake: Lake) -> None:
    small, large = shared_lake.add("limit", 10), shared_lake.add("limit-large", 33 * MIB)
    for items in ([whole(small)] * (MAX_BATCH_ITEMS + 1), [whole(large)] * 2):
        assert running.post(BATCH_PATH, encode_batch(items, fill=False)).status == 413
    for body in (b"", b"[]", b"{", b'{"items": 1}', b'{"items": [[1,2,3,4,5,6]]}', b"[" * 10_000):
        answer = running.post(BATCH_PATH, body)
        assert (answer.status, parse_error(answer.data).kind) == (400, "bad_request")
    row = [small.store, small.key, small.version, small.size, 5, 6]
    assert running.post(BATCH_PATH, json.dumps({"items": [row]}).encode()).status == 400


def test_a_body_that_would_take_much_memory_is_refused_before_it_is_read(running: Worker, shared_lake: Lake) -> None:
    for unit in (b"[],", b"{},", b"1,"):
        body = b'{"pieces":[' + unit * (20 * MIB // len(unit)) + b"0]}"
        for path in (PRESENT_PATH, BATCH_PATH, LOAD_PATH, EVICT_PATH):
            assert running.post(path, body).status == 413
    ref = shared_lake.add("vast", 100)
    vast = ObjectRef(ref.store, ref.key, ref.version, 1 << 50)
    for path in (PRESENT_PATH, LOAD_PATH):
        answer = running.post(path, encode_pieces([(vast, BlockRun(0, (1 << 28) - 1))], id="vast"))
        assert (answer.status, parse_error(answer.data).kind) == (413, "too_large")


def test_items_that_fail_cost_the_others_nothing(running: Worker, shared_lake: Lake) -> None:
    refs = [shared_lake.add(f"many{n}", 1000) for n in range(64)]
    bad = [5, 40, 41]
    for number in bad:
        (shared_lake.root / "objects" / f"many{number}").unlink()
    answers = ask(running, [whole(ref) for ref in refs])
    assert [number for number, answer in enumerate(answers) if answer.error is not None] == bad
    good = [(ref, answer) for ref, answer in zip(refs, answers, strict=True) if answer.error is None]
    assert all(answer.data == shared_lake.bytes[ref.id] for ref, answer in good)
    read = [line.split()[0] for line in shared_lake.reads()]
    assert all(read.count(ref.key) == 1 for ref, _ in good)


def test_present_names_the_missing_blocks_and_evict_makes_them_missing(running: Worker, shared_lake: Lake) -> None:
    small, large = shared_lake.add("present", 10), shared_lake.add("present-large", 17 * MIB)
    pieces = [(small, BlockRun(0, 0)), (large, BlockRun(0, 4))]

    def missing() -> object:
        answer = running.post(PRESENT_PATH, encode_pieces(pieces))
        assert answer.status == 200
        return answer.json()["missing"]

    assert missing() == [[[0, 0]], [[0, 4]]]
    running.read(whole(small))
    running.read(Location(large, 5 * MIB, 4 * MIB))
    assert missing() == [[], [[0, 0], [3, 4]]]
    answer = running.post(EVICT_PATH, encode_evict(ids=[large.id]))
    assert answer.status == 200
    assert answer.json()["freed_bytes"] >= 8 * MIB
    assert missing() == [[], [[0, 4]]]
