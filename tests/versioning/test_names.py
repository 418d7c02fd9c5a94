from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from versioning import ChangeSet, InvalidNameError, check_path, check_ref_name
from versioning.names import check_paths, decode_ref, encode_ref

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", ["main", "feature/x", "v1.0", "é", "a-b_c", "100%", "user@host", "a" * 200])
def test_names_that_git_takes_are_taken(name: str) -> None:
    check_ref_name(name, what="branch")
    assert decode_ref(encode_ref(name)) == name
    assert "/" not in encode_ref(name)


_SYNTAX = ["", "@", "HEAD", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a..b", "a@{1}", "/a", "a/", "a//b"]
_PARTS = [".a", "a/.b", "a.", "a.lock", "a.lock/b", "-a", "a\x00", "a\x7f", "\ud800", "f" * 64, "a" * 201, "é" * 40]


@pytest.mark.parametrize("name", [*_SYNTAX, *_PARTS])
def test_names_that_cannot_be_refs_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="cannot be a branch"):
        check_ref_name(name, what="branch")


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a/.", "", "a\x00b", "a" * 5000])
def test_paths_that_could_leave_a_directory_are_refused(path: str) -> None:
    with pytest.raises(InvalidNameError):
        check_path(path)
    with pytest.raises(InvalidNameError):
        ChangeSet.of(deleted=[path])


@given(st.text(st.sampled_from("a./\x00é"), max_size=6))
def test_one_path_and_a_column_of_paths_are_judged_alike(path: str) -> None:
    assert _accepts(check_path, path) == _accepts(check_paths, pa.array([path], pa.string()))


def _accepts(check: Callable[[Any], None], value: object) -> bool:
    try:
        check(value)
    except InvalidNameError:
        return False
    return True


def test_a_path_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="Unicode"):
        ChangeSet.of(deleted=["\udcff"])
    with pytest.raises(InvalidNameError, match="Unicode"):
        check_path("\udcff")
