from __future__ import annotations

import io
import os
import tarfile
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loaders import ShardFormatError
from loaders.formats.tar_walk import walk_tar

DEEP = 10 if os.environ.get("FOREBAY_DEEP") else 1
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1500), KINDS), max_size=8)


def written(members: list[tuple[str, bytes, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime = kind, 12
            if kind in (tarfile.REGTYPE, tarfile.AREGTYPE):
                info.size = len(data)
            elif kind != tarfile.DIRTYPE:
                info.linkname = name * 3
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:  # this form cannot hold the name
                continue
    return buffer.getvalue()


def by_tarfile(data: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]


@settings(max_examples=150 * DEEP, deadline=None)
@given(MEMBERS, st.sampled_from(FORMATS))
def test_members_are_those_that_tarfile_finds(members: list[tuple[str, bytes, bytes]], form: int) -> None:
    data = written(members, form)
    assert list(zip(*walk_tar(data, "x.tar"), strict=True)) == by_tarfile(data)


@settings(max_examples=200 * DEEP, deadline=None)
@given(MEMBERS, st.sampled_from(FORMATS), st.data())
def test_a_damaged_tar_gives_our_error_or_what_tarfile_finds(
    members: list[tuple[str, bytes, bytes]], form: int, draw: st.DataObject
) -> None:
    data = bytearray(written(members, form))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    damaged = bytes(data[: draw.draw(st.integers(len(data) // 2, len(data)))])
    try:
        found = list(zip(*walk_tar(damaged, "x.tar"), strict=True))
    except ShardFormatError:
        return
    assert all(0 <= offset <= offset + size <= len(damaged) for _, offset, size in found)
    try:
        assert [row[1:] for row in found] == [row[1:] for row in by_tarfile(damaged)]
    except (tarfile.TarError, ValueError):  # in what we do not read, such as a time
        return


@settings(max_examples=200 * DEEP, deadline=None)
@given(st.binary(max_size=3000))
@example(bytes(512))
@example(b"")
def test_arbitrary_bytes_are_refused_or_empty(data: bytes) -> None:
    try:
        walk_tar(data, "x.tar")
    except ShardFormatError:
        return
    assert data[:512] == bytes(512)


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut_is_an_error(form: int) -> None:
    data = written([("a" * 90 + "/" + "b" * 80 + ".txt", b"x" * 700, tarfile.REGTYPE)] * 2, form)
    end = len(data.rstrip(b"\0")) + 511 & -512
    for cut in [*range(0, end, 64), end]:
        with pytest.raises(ShardFormatError):
            walk_tar(data[:cut], "x.tar")
    assert len(walk_tar(data[: end + 512], "x.tar").names) == 2


def test_what_a_damaged_size_says_takes_no_memory() -> None:
    for form in FORMATS:
        data = bytearray(written([("n" * 300 + ".txt", b"x", tarfile.REGTYPE)], form) if form else b"")
        if not data or form == tarfile.USTAR_FORMAT:
            continue
        data[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 256)
        tracemalloc.start()
        with pytest.raises(ShardFormatError, match="at most 1048576"):
            walk_tar(bytes(data), "x.tar")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_a_name_that_is_not_utf8_is_some_name() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("caf\xe9.txt"))
    assert walk_tar(buffer.getvalue(), "x.tar").names == ["caf\\xe9.txt"]


def test_a_sparse_member_is_refused() -> None:
    info = tarfile.TarInfo("a.bin")
    info.pax_headers = {"GNU.sparse.size": "7"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(ShardFormatError, match="sparse"):
        walk_tar(buffer.getvalue(), "x.tar")


@pytest.mark.parametrize("digits", [b"0000000_0_1", b"+0000000010", b"-0000000001", b"0o000000010", b"0000000 010"])
@pytest.mark.parametrize("field", [124, 148])
def test_numbers_of_a_header_are_octal_digits_alone(field: int, digits: bytes) -> None:
    data = bytearray(written([("a", b"x" * 8, tarfile.REGTYPE)], tarfile.USTAR_FORMAT))
    if field == 124:
        data[field : field + 11] = digits
        data[148:156] = b" " * 8
        data[148:155] = b"%06o\0" % sum(data[:512])
    else:
        data[field : field + 6] = digits[:2] + b"_" + data[field + 3 : field + 6]
    with pytest.raises(ShardFormatError, match="no number where one belongs"):
        walk_tar(bytes(data), "x.tar")
