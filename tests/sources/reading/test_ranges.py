from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sources import Version
from sources.reading.ranges import PART_BYTES, Range, plan_fetches, split_parts

VERSION = Version("etag:1")

RANGES = st.lists(
    st.builds(
        Range,
        st.sampled_from(["a", "b"]),
        st.sampled_from([VERSION, Version("etag:2"), None]),
        st.integers(0, 500),
        st.integers(0, 60),
    ),
    max_size=30,
)


@given(RANGES, st.integers(0, 80))
def test_every_wanted_range_is_once_in_a_fetch_of_its_object_and_there_are_its_bytes(
    ranges: list[Range], gap: int
) -> None:
    fetches = plan_fetches(ranges, max_gap_bytes=gap)
    seen = []
    for fetch in fetches:
        for member in fetch.members:
            wanted = ranges[member.wanted]
            assert (fetch.key, fetch.version) == (wanted.key, wanted.version)
            assert (fetch.start + member.offset, member.length) == (wanted.start, wanted.length)
            assert 0 <= member.offset <= member.offset + member.length <= fetch.length
            seen.append(member.wanted)
    assert sorted(seen) == list(range(len(ranges)))


@given(RANGES, st.integers(0, 80))
def test_no_fetch_reads_a_gap_longer_than_the_limit_and_no_two_could_be_joined(ranges: list[Range], gap: int) -> None:
    fetches = plan_fetches(ranges, max_gap_bytes=gap)
    for fetch in fetches:
        end = 0
        for member in fetch.members:
            assert member.offset - end <= gap
            end = max(end, member.offset + member.length)
        assert end == fetch.length
    pinned = [fetch for fetch in fetches if fetch.version is not None and fetch.length]
    for one in pinned:
        for other in pinned:
            if one is not other and (one.key, one.version) == (other.key, other.version) and one.start <= other.start:
                assert other.start - (one.start + one.length) > gap


def test_one_small_range_does_not_keep_the_memory_of_a_whole_object() -> None:
    ranges = [Range("a", VERSION, start, 500) for start in range(0, 1 << 30, 60_000)]
    fetches = plan_fetches(ranges)
    assert max(fetch.length for fetch in fetches) <= PART_BYTES
    assert len(fetches) < 150


def test_overlapping_ranges_are_read_once_however_long() -> None:
    ranges = [Range("a", VERSION, 0, 5 * PART_BYTES), Range("a", VERSION, PART_BYTES, 5 * PART_BYTES)]
    assert [fetch.length for fetch in plan_fetches(ranges)] == [6 * PART_BYTES]


def test_ranges_without_a_version_are_never_joined() -> None:
    ranges = [Range("a", None, 0, 10), Range("a", None, 10, 10)]
    assert [fetch.length for fetch in plan_fetches(ranges)] == [10, 10]


@given(st.integers(0, 10_000), st.integers(1, 999))
def test_parts_cover_a_length_without_overlap_and_are_nearly_equal(length: int, part_bytes: int) -> None:
    parts = list(split_parts(length, part_bytes))
    at = 0
    for offset, size in parts:
        assert offset == at
        assert 0 < size <= part_bytes
        at += size
    assert at == length
    if parts:
        assert max(size for _, size in parts) - min(size for _, size in parts) <= 1
