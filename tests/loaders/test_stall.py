from collections.abc import Iterator

import pytest
import torch

from loaders.stall import StallMeter, batch_length


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def loader(clock: Clock, batches: int) -> Iterator[list[int]]:
    for _ in range(batches):
        clock.now += 3.0
        yield [0, 1]
    clock.now += 2.0


class Loader:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __iter__(self) -> Iterator[list[int]]:
        return loader(self.clock, 4)


def test_stall_is_the_share_of_time_inside_next() -> None:
    clock = Clock()
    meter = StallMeter(Loader(clock), clock=clock)
    for _ in range(2):  # epochs
        for _batch in meter:
            clock.now += 1.0
        clock.now += 100.0  # between epochs: not ours
    report = meter.report()
    assert (report.batches, report.samples) == (8, 16)
    assert report.wait_seconds == pytest.approx(28.0)
    assert report.total_seconds == pytest.approx(36.0)
    assert report.stall_percent == pytest.approx(100 * 28 / 36)
    assert report.samples_per_second == pytest.approx(16 / 36)


def test_a_broken_loop_is_measured_up_to_its_last_batch() -> None:
    clock = Clock()
    meter = StallMeter(Loader(clock), clock=clock)
    for step, _batch in enumerate(meter):
        if step == 1:
            break
        clock.now += 1.0
    assert meter.report().wait_seconds == pytest.approx(6.0)
    assert meter.report().total_seconds == pytest.approx(7.0)


def test_reset_forgets_and_an_empty_report_divides_by_nothing() -> None:
    clock = Clock()
    meter = StallMeter(Loader(clock), clock=clock)
    list(meter)
    meter.reset()
    report = meter.report()
    assert (report.batches, report.stall_percent, report.samples_per_second) == (0, 0.0, 0.0)


def test_a_reset_in_mid_epoch_forgets_what_was_before() -> None:
    clock = Clock()
    meter = StallMeter(Loader(clock), clock=clock)
    for step, _batch in enumerate(meter):
        clock.now += 1.0
        if step == 1:
            meter.reset()
    report = meter.report()
    assert (report.batches, report.wait_seconds) == (2, 3.0 + 3.0 + 2.0)
    assert report.total_seconds == pytest.approx(1.0 + 4.0 + 4.0 + 2.0)  # the step of the reset, then all


def test_batch_length_counts_samples_not_columns() -> None:
    images, labels = torch.zeros(5, 2), torch.zeros(5)
    assert batch_length([images, labels]) == 5
    assert batch_length((images, labels)) == 5
    assert batch_length({"png": images, "cls": labels}) == 5
    assert batch_length({"__key__": ["a"] * 5, "cls": labels}) == 5
    assert batch_length([{"png": b""}] * 5) == 5
    assert batch_length(images) == 5
    assert batch_length({}) == 0
    assert batch_length([]) == 0
