from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.order import RUN, WINDOW, Order, OrderMode

MODES = st.sampled_from(["none", "runs", "full"])


@pytest.mark.parametrize("mode", ["none", "runs", "full"])
def test_every_small_epoch_has_each_sample_once(mode: OrderMode) -> None:
    for n in [*range(200), WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 70]:
        assert sorted(Order(n, 7, 1, mode).indices(0, n).tolist()) == list(range(n))


@given(n=st.integers(1, 20_000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 1000), mode=MODES)
def test_any_epoch_has_each_sample_once(n: int, seed: int, epoch: int, mode: OrderMode) -> None:
    counts = np.bincount(Order(n, seed, epoch, mode).indices(0, n), minlength=n)
    assert counts.tolist() == [1] * n


@given(n=st.integers(1, 20_000), seed=st.integers(0, 2**64), mode=MODES, data=st.data())
def test_any_slice_is_the_slice_of_the_whole(n: int, seed: int, mode: OrderMode, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    order = Order(n, seed, 3, mode)
    part = order.indices(start, stop)
    assert part.dtype == np.int64
    assert part.tolist() == order.indices(0, n)[start:stop].tolist()


@given(n=st.integers(2**40, 2**62 - 1), mode=MODES, data=st.data())
def test_a_position_of_a_huge_epoch_needs_no_epoch_start(n: int, mode: OrderMode, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n - 100))
    part = Order(n, 5, 0, mode).indices(start, start + 100)
    assert len(set(part.tolist())) == 100
    assert 0 <= part.min() <= part.max() < n


def test_the_numbers_are_a_format_and_never_change() -> None:
    assert Order(10, 0, 0).indices(0, 10).tolist() == [3, 4, 2, 5, 1, 9, 8, 0, 7, 6]
    assert Order(10, 0, 1).indices(0, 10).tolist() == [7, 8, 2, 9, 0, 6, 3, 1, 5, 4]
    assert Order(10, 1, 0).indices(0, 10).tolist() == [7, 0, 2, 4, 6, 3, 5, 9, 1, 8]
    assert Order(10**12, 42, 7).indices(123456789, 123456793).tolist() == [
        276885529333,
        932800938073,
        445335806396,
        62974786526,
    ]
    assert Order(10**12, 42, 7, "runs").indices(123456789, 123456793).tolist() == [
        292627963302,
        553594094660,
        700853155814,
        395438919291,
    ]
    assert Order(1000, -1, 2, "runs").indices(0, 6).tolist() == [587, 769, 173, 501, 59, 142]


def test_seed_and_epoch_each_change_the_order() -> None:
    orders = {tuple(Order(50, seed, epoch).indices(0, 50).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_full_puts_every_sample_at_every_position_about_equally_often() -> None:
    n, rounds = 12, 6000
    counts = np.zeros((n, n), dtype=int)
    for seed in range(rounds):
        counts[np.arange(n), Order(n, seed).indices(0, n)] += 1
    chi_square = ((counts - rounds / n) ** 2 / (rounds / n)).sum()
    assert chi_square < 230  # 121 degrees of freedom: mean 121, standard deviation 16


def test_neighbours_of_a_full_order_are_uncorrelated() -> None:
    order = Order(100_000, 3).indices(0, 100_000)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.015


def test_none_is_storage_order() -> None:
    assert Order(100, 9, 9, "none").indices(20, 25).tolist() == [20, 21, 22, 23, 24]


def test_runs_reads_a_window_from_few_long_ranges() -> None:
    window = Order(100 * WINDOW, 1, 0, "runs").indices(WINDOW, 2 * WINDOW)
    runs = Counter((window // RUN).tolist())
    assert len(runs) == WINDOW // RUN
    assert set(runs.values()) == {RUN}


def test_a_batch_of_runs_comes_from_all_over_the_data() -> None:
    batch = Order(100 * WINDOW, 1, 0, "runs").indices(0, 64)
    assert len(set((batch // RUN).tolist())) > 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Order(-1), "-1 samples"),
        (lambda: Order(10, 0, -1), "epoch is -1"),
        (lambda: Order(10, 0, 0, "random"), "unknown order mode 'random'; known: none, runs, full"),  # type: ignore[arg-type]
        (lambda: Order(10).indices(5, 11), r"\[5, 11\) are outside"),
        (lambda: Order(10).indices(-1, 3), r"\[-1, 3\) are outside"),
    ],
)
def test_wrong_numbers_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
