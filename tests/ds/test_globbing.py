from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds.errors import TargetError
from ds.globbing import is_pattern, literal_prefix, pattern_regex

PATHS = ["a/1.bin", "a/12.bin", "a/b/1.bin", "a/b/c/1.bin", "a[1].bin", "aé.bin", "a\n.bin", "b"]


def matching(pattern: str, paths: list[str]) -> list[str]:
    """What arrow's RE2 keeps, which Python must keep too."""
    regex = pattern_regex(pattern)
    mask = pyarrow.compute.match_substring_regex(pa.array(paths, pa.string()), pattern=regex).to_pylist()
    found = [path for path, keep in zip(paths, mask, strict=True) if keep]
    assert found == [path for path in paths if re.search(regex[:-1] + r"\Z", path)]
    return found


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/*.bin", ["a/1.bin", "a/12.bin"]),
        ("a/?.bin", ["a/1.bin"]),
        ("**/1.bin", ["a/1.bin", "a/b/1.bin", "a/b/c/1.bin"]),
        ("a/**/1.bin", ["a/1.bin", "a/b/1.bin", "a/b/c/1.bin"]),
        ("a/*", ["a/1.bin", "a/12.bin", "a/b/1.bin", "a/b/c/1.bin"]),
        ("a/[a-c]/", ["a/b/1.bin", "a/b/c/1.bin"]),
        ("a/[!b]*.bin", ["a/1.bin", "a/12.bin"]),
        ("a[[]1].bin", ["a[1].bin"]),
        ("a?.bin", ["aé.bin", "a\n.bin"]),
        ("**", PATHS),
        ("x*", []),
        ("a/[--1].bin", ["a/1.bin"]),
        ("a/[!---b||~~&&]*", ["a/1.bin", "a/12.bin"]),
        ("a/[&&1||2].bin", ["a/1.bin"]),
    ],
)
def test_a_pattern_names_files_and_what_lies_below_directories(pattern: str, found: list[str]) -> None:
    assert matching(pattern, PATHS) == found


@given(st.text(alphabet="ab/.é+(){}|^$\\ -#", min_size=1, max_size=12))
def test_a_path_without_special_letters_names_itself(path: str) -> None:
    path = path.rstrip("/")
    assert not is_pattern(path)
    assert matching(path, [path, f"{path}x", f"{path}/x", f"x{path}"]) == [path, f"{path}/x"]


@given(st.text(alphabet="ab/*?[]!-.^", max_size=12), st.text(alphabet="ab/.-^!]", max_size=12))
def test_what_a_pattern_names_begins_with_its_literal_part(pattern: str, path: str) -> None:
    try:
        found = matching(pattern, [path])
    except TargetError:
        return
    if found and is_pattern(pattern):
        assert path.startswith(literal_prefix(pattern))
