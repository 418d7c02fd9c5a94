from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versioning.errors import InvalidNameError
from versioning.tarfiles import END, member_header, padding
from versioning.tarlayout import TarLayout

names = st.one_of(
    st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=120),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300),
    st.builds(
        lambda head, tail: head + "/" + tail, st.text("ab/", max_size=160), st.text("cd", min_size=1, max_size=90)
    ),
).filter(lambda name: not name.endswith("/"))


@given(members=st.lists(st.tuples(names, st.binary(max_size=1500))), junk=st.integers(0, 255))
def test_all_at_once_is_the_same_as_one_by_one(members: list[tuple[str, bytes]], junk: int) -> None:
    layout = TarLayout.of([name for name, _ in members], np.array([len(data) for _, data in members], np.int64))
    buffer = bytearray([junk]) * (layout.size + 700)
    layout.write_frame(buffer)
    for (_, data), offset in zip(members, layout.offsets.tolist(), strict=True):
        buffer[offset : offset + len(data)] = data
    parts = [member_header(name, len(data)) + data + padding(len(data)) for name, data in members]
    assert bytes(buffer) == b"".join(parts) + END + bytes([junk]) * 700


@given(members=st.lists(st.tuples(names, st.integers(0, 1500)), max_size=8), cuts=st.sets(st.integers(0, 8)))
def test_parts_one_after_the_other_are_the_whole(members: list[tuple[str, int]], cuts: set[int]) -> None:
    layout = TarLayout.of([name for name, _ in members], np.array([size for _, size in members], np.int64))
    whole = bytearray(layout.size)
    layout.write_frame(whole)
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(members)), len(members)]
    joined, offsets = b"", list[int]()
    for first, last in zip([0, *ends], ends, strict=False):
        part = layout.part(first, last)
        buffer = bytearray(part.size)
        part.write_frame(buffer)
        offsets += (part.offsets + len(joined)).tolist()
        joined += buffer
    assert joined == whole
    assert offsets == layout.offsets.tolist()


@pytest.mark.parametrize(("name", "size"), [("", 1), ("a/", 1), ("a\0b", 1), ("a\ud800", 1), ("a", -1), ("a", 8 << 30)])
def test_what_a_tar_cannot_name_is_refused(name: str, size: int) -> None:
    with pytest.raises(InvalidNameError):
        TarLayout.of(["fine", name], np.array([1, size], np.int64))
