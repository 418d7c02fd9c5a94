"""What a server sends beyond an answer must never be the answer to the next request."""

from __future__ import annotations

import time

from sources import Range, SteadyStore, Version
from sources.reading import Limits, RetryPolicy
from sources.s3 import S3Store
from tests.services.scripted import scripted_server

BODY, FORGED = b"0123456789", b"xxxxxxxxxx"


def _answer(body: bytes) -> bytes:
    head = 'HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/10\r\nETag: "1"\r\n\r\n'
    return head.encode() + body


def test_an_answer_that_comes_behind_another_answers_nothing() -> None:
    data = _answer(BODY)
    ranges = [Range(f"key-{number}", Version('etag:"1"'), 0, 10) for number in range(20)]
    with scripted_server(lambda _: [data[:-6], 0.01, data[-6:] + _answer(FORGED)]) as server:
        options = {"anon": True, "client_kwargs": {"region_name": "us-east-1"}, "endpoint_url": server.url}
        policy = RetryPolicy(base_seconds=0.01, cap_seconds=0.05, patience_seconds=0.3, first_contact_seconds=0.3)
        store = SteadyStore(S3Store(f"bucket-{time.monotonic_ns()}", options), Limits(concurrency=1), policy=policy)
        found = store.read_many(ranges, max_gap_bytes=0)
        assert [bytes(memoryview(one)) for one in found] == [BODY] * 20
