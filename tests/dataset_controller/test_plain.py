"""A manifest that is read without the models says what it says with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller import Dataset, ManifestError, parse_manifest
from dataset_controller.plain import read_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT = "apiVersion: forebay.dev/v1alpha1\nkind: Dataset\nmetadata:\n  name: {}\nspec:\n  repo:\n    uri: {}\n"
VARIABLES = {"HERE": "/somewhere", "URI": "file:///a: b # c", "NONE": ""}
names = st.one_of(
    st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True),
    st.sampled_from(["null", "on", "no", "1e3", "0x1", "y", "a" * 63, "a" * 64, "'a'", "a: b", "12:30:45", "~"]),
)
uris = st.one_of(
    st.builds("file://{}".format, st.text("abc/.:#{}$%~ -_0?", max_size=12)),
    st.sampled_from(
        [
            "s3://bucket/data/",
            "file://${HERE}/x",
            "${URI}",
            "file://${NONE}",
            "file://${UNSET}/a",
            "file://${UNSET:-/b}",
            "a",
        ]
    ),
)


def by_the_models(text: str, variables: Mapping[str, str]) -> tuple[str, str, str] | None:
    try:
        (found,) = parse_manifest(text, source="test", variables=variables)
    except ManifestError:
        return None
    assert isinstance(found, Dataset)
    repo = found.spec.repo
    assert not any((found.spec.mounts, found.spec.cache, repo.options, repo.secret_ref, repo.store_limits))
    return found.metadata.name, repo.uri, repo.prefix


@given(names, uris)
def test_what_is_read_is_what_the_models_read(name: str, uri: str) -> None:
    text = TEXT.format(name, uri)
    found = read_plain(text, VARIABLES)
    assert found is None or found == by_the_models(text, VARIABLES)


@pytest.mark.parametrize("more", ["  mounts: []\n", "  cache: {runtimeRef: {name: a}}\n", "---\n", "x", "# a\n"])
def test_anything_more_is_for_the_models(more: str) -> None:
    text = TEXT.format("a", "file:///a")
    assert read_plain(text, {}) == ("a", "file:///a", "a/")
    assert read_plain(text + more, {}) is None
