"""What the benchmarks share."""

from __future__ import annotations

import pytest

from benchmarks.rounds import shown, spread


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([2.0], {"median": 2.0, "q1": 2.0, "q3": 2.0}),
        ([1.0, 2.0], {"median": 1.5, "q1": 0.75, "q3": 2.25}),
        ([3.0, 1.0, 2.0], {"median": 2.0, "q1": 1.0, "q3": 3.0}),
    ],
)
def test_a_table_tells_the_median_and_quartiles_of_any_number_of_rounds(
    values: list[float], row: dict[str, float]
) -> None:
    assert spread(values) == row
    assert shown(row) == f"{row['median']:g} ({row['q1']:g} - {row['q3']:g})"
