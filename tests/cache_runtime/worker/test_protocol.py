from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import protocol
from cache_runtime.errors import ProtocolError
from cache_runtime.protocol import BlockSums, PeerFailure
from cache_runtime.store.layout import BLOCK_BYTES, BlockRun
from cache_runtime.store.shares import Share
from sources import Location, ObjectRef, StoreId, Version

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
refs = st.builds(
    lambda store, key, version, size: ObjectRef(StoreId(store), key, Version(version), size),
    *(names, names, names),
    st.integers(1, 1 << 40),
)
shares = st.builds(
    Share,
    st.text(st.characters(categories=["L", "N"]), max_size=20),
    st.integers(-5, 5),
    st.none() | st.integers(0, 1 << 50),
    st.integers(0, 1 << 50),
)


@st.composite
def locations(draw: st.DrawFn, *, most: int = 1 << 20) -> Location:
    ref = draw(refs)
    offset = draw(st.integers(0, ref.size - 1))
    return Location(ref, offset, draw(st.integers(1, min(most, ref.size - offset))))


@given(refs, st.booleans(), shares)
def test_a_target_names_its_object_and_share_again(ref: ObjectRef, fill: bool, share: Share) -> None:
    parts = urlsplit(protocol.object_target(ref, fill=fill, share=share))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    found = protocol.parse_object(parts.path.removeprefix(protocol.OBJECTS_PATH), query)
    assert (found, found.id) == (ref, ref.id)
    assert protocol.parse_flag(query["fill"], "fill", default=not fill) == fill
    assert protocol.parse_share(query) == share


@given(st.lists(locations(most=1 << 19), max_size=20), st.booleans(), st.booleans(), shares)
def test_a_batch_is_read_as_it_was_written(items: list[Location], fill: bool, bodies: bool, share: Share) -> None:
    body = protocol.encode_batch(items, fill=fill, bodies=bodies, share=share)
    assert protocol.decode_batch(body) == (items, fill, bodies, share)


@given(st.lists(locations(most=2000), max_size=8), st.data())
def test_an_answer_is_taken_apart_and_any_damage_is_found(items: list[Location], data: st.DataObject) -> None:
    bodies = [bytes(item.length) for item in items]
    frames = [protocol.frame_item(item.object.id, body) + body for item, body in zip(items, bodies, strict=True)]
    if items:
        frames[0] = protocol.frame_failure(items[0].object.id, PeerFailure("not_cached", "no"))
    answer = b"".join(frames)
    found = list(protocol.split_batch(answer, items))
    assert [one.data for one in found[1:]] == bodies[1:]
    assert [one.error for one in found[:1]] == [PeerFailure("not_cached", "no")] * len(items[:1])
    if not items:
        return
    place = data.draw(st.integers(0, len(answer) - 1))
    damaged = bytearray(answer)
    damaged[place] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        # the four bytes of padding mean nothing
        assert [one.data for one in protocol.split_batch(bytes(damaged), items)] == [one.data for one in found]
    with pytest.raises(ProtocolError):
        list(protocol.split_batch(answer[:place], items))


@given(st.integers(0, 1 << 30), st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=16))
def test_checksums_are_read_as_they_were_written(first: int, crcs: list[int]) -> None:
    sums = BlockSums(first, tuple(crcs))
    assert protocol.parse_sums(protocol.format_sums(sums)) == sums


@given(locations())
def test_a_range_is_read_as_it_was_written(location: Location) -> None:
    header = protocol.format_range(location.offset, location.length)
    assert protocol.parse_range(header, location.object.size) == (location.offset, location.length)
    run = protocol.blocks_of(location.object.size, location.offset, location.length)
    assert run.first * BLOCK_BYTES <= location.offset


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=6)
            | st.dictionaries(
                st.sampled_from(["items", "pieces", "share", "fill", "ids", "bytes", "priority"]), inner, max_size=4
            )
        ),
    )
    .map(json.dumps)
    .map(str.encode)
)
def test_arbitrary_bodies_are_refused_or_read_and_nothing_else(body: bytes) -> None:
    for decode in (protocol.decode_batch, protocol.decode_evict, lambda body: protocol.decode_pieces(body, limit=10)):
        with suppress(ProtocolError):
            decode(body)
    protocol.parse_error(body)


@given(st.text(max_size=40), st.dictionaries(st.sampled_from(["store", "key", "version", "size"]), st.text()))
def test_arbitrary_headers_and_queries_are_refused_or_read(text: str, query: dict[str, str]) -> None:
    for parse in (
        lambda: protocol.parse_range(text, 100),
        lambda: protocol.parse_sums(text),
        lambda: protocol.parse_object(text, query),
        lambda: protocol.parse_share({"share": text, "priority": text}),
    ):
        with suppress(ProtocolError):
            parse()


def test_pieces_are_read_as_they_were_written() -> None:
    ref = ObjectRef(StoreId("s3://b"), "k", Version("etag:1"), 10 * BLOCK_BYTES)
    body = protocol.encode_pieces([(ref, BlockRun(2, 9))], id="load-1", deadline_seconds=5)
    assert protocol.decode_pieces(body, limit=1) == ([(ref, BlockRun(2, 9))], {"id": "load-1", "deadline_seconds": 5})
    with pytest.raises(ProtocolError):
        protocol.decode_pieces(protocol.encode_pieces([(ref, BlockRun(2, 10))]), limit=1)
