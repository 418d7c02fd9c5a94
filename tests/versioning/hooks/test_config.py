from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versioning import HooksFileError
from versioning.hooks import parse_hooks


def test_a_hook_is_what_the_file_says() -> None:
    (hook,) = parse_hooks(
        b"hooks: [{id: lint, run: [a, 'b c'], events: pre-merge, branches: ['release/*'],"
        b" paths: [x/**], timeout_seconds: 2}]"
    )
    assert (hook.id, hook.kind, hook.value, hook.paths) == ("lint", "run", ("a", "b c"), ("x/**",))
    assert (hook.timeout_seconds, hook.runs_code, hook.shown()) == (2.0, True, "a 'b c'")
    assert hook.is_for("pre-merge", "release/1")
    assert not hook.is_for("pre-commit", "release/1")
    assert not hook.is_for("pre-merge", "main")
    assert not hook.is_for("pre-merge", "my/release/1")


@pytest.mark.parametrize("pattern", ["main", "**", "m*", "ma[i]n"])
def test_branches_are_matched_whole(pattern: str) -> None:
    (hook,) = parse_hooks(b"hooks: [{id: a, max_file_bytes: 1, branches: ['%s']}]" % pattern.encode())
    assert hook.is_for("pre-commit", "main")
    assert hook.is_for("pre-commit", "x/main") == (pattern == "**")


def test_sizes_have_units() -> None:
    sizes = {"7": 7, "1Ki": 1024, "2 MiB": 2 << 20, "1Gi": 1 << 30, "3Ti": 3 << 40}
    for text, size in sizes.items():
        assert parse_hooks(f"hooks: [{{id: a, max_total_bytes: {text}}}]".encode())[0].value == size


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "hooks: 1",
        "hooks: []\nmore: 1",
        "hooks: [1]",
        "hooks: [{max_file_bytes: 1}]",
        "hooks: [{id: 'a b', max_file_bytes: 1}]",
        "hooks: [{id: a}]",
        "hooks: [{id: a, max_file_bytes: 1, run: [b]}]",
        "hooks: [{id: a, max_file_bytes: 1, other: 1}]",
        "hooks: [{id: a, max_file_bytes: -1}]",
        "hooks: [{id: a, max_file_bytes: true}]",
        "hooks: [{id: a, run: 'rm -rf x'}]",
        "hooks: [{id: a, run: []}]",
        'hooks: [{id: a, run: ["a\\0"]}]',
        "hooks: [{id: a, run: [b], timeout_seconds: 0}]",
        "hooks: [{id: a, run: [b], timeout_seconds: .nan}]",
        "hooks: [{id: a, python: 1}]",
        "hooks: [{id: a, python: b, with: 1}]",
        "hooks: [{id: a, allowed_globs: ['']}]",
        "hooks: [{id: a, allowed_globs: ['[z-a]']}]",
        "hooks: [{id: a, meta_schema: 1}]",
        "hooks: [{id: a, no_unpinned_external: false}]",
        "hooks: [{id: a, events: [post-commit], max_file_bytes: 1}]",
        "hooks: [{id: a, events: [], max_file_bytes: 1}]",
        "hooks: [{id: a, max_file_bytes: 1}, {id: a, max_file_bytes: 2}]",
        "hooks: [&a {id: a, max_file_bytes: 1}, *a]",
        "hooks: ${",
        "hooks: " + "[" * 5000,
    ],
)
def test_what_is_no_hooks_file_is_refused(text: str) -> None:
    with pytest.raises(HooksFileError):
        parse_hooks(text.encode())


@given(st.one_of(st.binary(), st.text("hooks: []{}id,run&*\n-'\"0", max_size=60).map(str.encode)))
def test_only_our_errors_come_out_of_any_bytes(data: bytes) -> None:
    with suppress(HooksFileError):
        parse_hooks(data)
