from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds.errors import TargetError
from ds.targets import Target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("digits", Target("digits")),
        ("digits@main", Target("digits", "main")),
        ("ds://digits@main~2/a/b c", Target("digits", "main~2", "a/b c")),
        ("@v1/images", Target(None, "v1", "images")),
        ("/images", Target(None, None, "images")),
        ("digits@feat%2Fx/p", Target("digits", "feat/x", "p")),
        ("digits/", Target("digits")),
    ],
)
def test_a_target_is_taken_apart(text: str, expected: Target) -> None:
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["Digits", "digits images", "digits@", "ds:/digits", "s3://bucket"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="digits@main/images"):
        Target.parse(text)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True),
    st.none() | st.from_regex(r"[A-Za-z0-9/._-]{1,12}(~[0-9])?", fullmatch=True),
    st.text(max_size=12).filter(lambda path: not path.startswith("/")),
)
def test_writing_and_reading_a_target_is_identity(dataset: str, revision: str | None, path: str) -> None:
    target = Target(dataset, revision, path)
    assert Target.parse(str(target)) == target
