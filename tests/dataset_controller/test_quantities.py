from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("17", 17), (17, 17), ("1Ki", 1024), ("1k", 1000), ("1.5Gi", 3 << 29), ("0.1", 1), ("2Ti", 2 << 40)],
)
def test_a_quantity_is_bytes(text: str | int, expected: int) -> None:
    assert parse_quantity(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1 GB", "Gi", "1KiB", "1e3", "nan", -1, True])
def test_anything_else_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


@given(st.integers(0, 2**60))
def test_whole_bytes_are_exact(count: int) -> None:
    assert parse_quantity(str(count)) == count
