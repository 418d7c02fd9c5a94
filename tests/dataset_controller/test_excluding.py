from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from dataset_controller import ManifestError, parse_manifest, scan_sources
from dataset_controller.excluding import Exclusion, literal_pattern
from sources import ObjectStat, StoreId, Version
from versioning import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PART = st.sampled_from(["a", "b", "ab", "a.b", "ba", "é", "*", "[", "!a", "#", "a b"])
PATHS = st.lists(st.lists(PART, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)
GLOB = st.sampled_from(["a", "b", "*", "**", "?", "a*", "*.b", "[ab]", "[a-c]b", r"\*", r"\[", "é", "ab", "?a", "a b"])
PATTERN = st.builds(
    lambda begin, parts, end: begin + "/".join(parts) + end,
    st.sampled_from(["", "/"]),
    st.lists(GLOB, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)
RULES = st.lists(st.tuples(st.sampled_from(["", "!"]), PATTERN).map("".join), max_size=5)


def left_out(patterns: Sequence[str], paths: Sequence[str]) -> list[str]:
    mask = Exclusion(patterns).leaves_out(pa.array(paths)).to_pylist()
    return [path for path, out in zip(paths, mask, strict=True) if out]


def by_each(patterns: Sequence[str], path: str) -> bool:
    """What the patterns mean, for one path and one pattern at a time, with Python's regular expressions."""
    out = by_itself = False
    for pattern in GitIgnoreSpec.from_lines(patterns).patterns:
        match = pattern.regex.search(path) if pattern.regex is not None else None
        if match is None:
            continue
        names_it = not match.groupdict().get("ps_d")
        if pattern.include or names_it or not by_itself:
            out, by_itself = bool(pattern.include), names_it
    return out


@given(st.lists(PATTERN, min_size=1, max_size=4), PATHS)
def test_patterns_leave_out_what_a_gitignore_does(patterns: list[str], paths: list[str]) -> None:
    assert left_out(patterns, paths) == list(filter(GitIgnoreSpec.from_lines(patterns).match_file, paths))


@given(PATTERN, RULES, PATHS)
def test_a_column_is_judged_as_each_path_would_be(first: str, others: list[str], paths: list[str]) -> None:
    patterns = [first, *others]
    assert left_out(patterns, paths) == [path for path in paths if by_each(patterns, path)]


@given(st.lists(PART | st.sampled_from(["\\", "a?", "]", "x ", "[ab]"]), min_size=1, max_size=3).map("/".join), PATHS)
def test_a_literal_pattern_names_one_path(path: str, others: list[str]) -> None:
    pattern = literal_pattern(path)
    paths = [path, f"{path}/below", *others]
    below = [each for each in paths if each.startswith(f"{path}/")]
    assert left_out([f"{pattern}/"], paths) == below
    assert left_out([pattern, f"!{pattern}/"], paths) == [each for each in paths if each == path]


@pytest.mark.parametrize(
    "patterns",
    [
        ["a", "!/a/"],
        ["/a/"],
        ["*", "!*/", "!*.png"],
        ["*.tmp", "_SUCCESS", ".cache/"],
        ["*.zip", "!foo.txt", "dir/"],
        ["b/**", "**/c", "a/**/d"],
        ["a[!x]b", "[!]x]"],
        ["*.png", "!dir/", "!/x.png"],
    ],
)
def test_git_agrees(patterns: list[str], tmp_path: Path) -> None:
    """Where nothing is brought back from a directory that is left out."""
    paths = ["ab", "axb", "a-b", "c", "x.png", "x.tmp", "b/x", "b/c", "a/b", "a/x/d", "a/d", "dir/x.png", "dir/foo.txt"]
    paths += ["d/_SUCCESS", "d/.cache/x", "d/a", "]", "x"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=60)
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("\n".join(patterns))
    command = ["git", "-C", str(tmp_path), "ls-files", "-z", "--others", "--ignored", "--exclude-standard"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(left_out(patterns, paths)) == set(said.split("\0")) - {""}


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        (["[ab"], "names no path"),
        (["# note"], "names no path"),
        (["/"], "names no path"),
        ([""], "names no path"),
        (["[z-a]"], "no pattern of paths"),
        (["[[:alpha:]]"], "name the characters of a set"),
        (["a\\"], "a"),
        (["!a"], "begin with '\\*'"),
    ],
)
def test_a_pattern_without_effect_is_refused(patterns: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Exclusion(patterns)


def manifest(exclude: str, uri: str = "s3://digits/digits") -> str:
    return (
        "apiVersion: forebay.dev/v1alpha1\nkind: Dataset\nmetadata: {name: digits}\nspec:\n  mounts:\n"
        f"    - name: images\n      uri: {uri}\n      path: images\n      exclude: {exclude}\n"
        "  repo: {uri: s3://digits/repo}\n"
    )


def test_a_manifest_names_the_pattern_that_is_wrong() -> None:
    with pytest.raises(ManifestError, match="names no path") as caught:
        parse_manifest(manifest("['*.tmp', '[ab']"), source="dataset.yaml", variables={})
    assert (caught.value.line, caught.value.field) == (9, "spec.mounts[0].exclude")


class Bucket:
    """A store with keys that none of the tests' servers takes."""

    id = StoreId("s3://digits")

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectStat]:
        keys = ("digits/a", "digits/a/../b", "digits/a//b", "digits/b\n\x00")
        return (ObjectStat(key, 1, Version("etag:1"), None) for key in keys if start_after < key)


def test_keys_that_cannot_be_paths_may_be_left_out() -> None:
    counts: dict[str, int] = {}

    def scanned(exclude: str) -> list[str]:
        (resource,) = parse_manifest(manifest(exclude), source="dataset.yaml", variables={})
        repository = SimpleNamespace(root=SimpleNamespace(store="s3://other", prefix=""))
        opened: Any = SimpleNamespace(resource=resource, stores={"images": Bucket()}, repository=repository)
        changes = scan_sources(opened, None, on_progress=lambda *_: None, on_excluded=counts.__setitem__)
        return [str(path) for path in changes.upserts["path"].to_pylist()]

    with pytest.raises(InvalidNameError):
        scanned("[]")
    assert scanned("['a/../b', 'a//*', 'b*']") == ["images/a"]
    assert counts == {"images": 3}


def test_what_is_not_listed_has_nothing_to_exclude() -> None:
    with pytest.raises(ManifestError, match="which is not listed"):
        parse_manifest(manifest("['*.tmp']", "dvc://objects"), source="dataset.yaml", variables={})
