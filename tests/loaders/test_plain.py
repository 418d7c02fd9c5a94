"""Data sets of torch, as they are, in the elastic order and in the `Loader`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from loaders import Loader, PlainDataset, StateMismatchError

if TYPE_CHECKING:
    from loaders.running.options import Mode

torch = pytest.importorskip("torch")
N = 50


def plain(name: str = "squares v1", count: int = N) -> PlainDataset:
    numbers = torch.arange(count)
    return PlainDataset(torch.utils.data.TensorDataset(numbers, numbers**2), name=name)


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_a_data_set_of_torch_is_delivered_once_and_collated(mode: Mode) -> None:
    loader: Loader[Any] = Loader(plain(), 8, seed=3, mode=mode, workers=2, tail="exact")
    found = [pair for numbers, squares in loader for pair in zip(numbers.tolist(), squares.tolist(), strict=True)]
    assert sorted(found) == [(number, number**2) for number in range(N)]
    assert found != sorted(found)
    loader.close()


def test_a_subset_with_its_own_batched_read_gives_the_same_batches() -> None:
    whole = plain()
    subset = PlainDataset(torch.utils.data.Subset(whole.dataset, list(range(N))), name="squares v1")
    loaders: list[Loader[Any]] = [Loader(each, 8, seed=3, mode="sync") for each in (whole, subset)]
    batches = [[batch[0].tolist() for batch in loader] for loader in loaders]
    assert batches[0] == batches[1]
    assert subset[3] == whole[3]


def test_a_state_fits_the_same_name_and_number_only() -> None:
    state = Loader(plain(), 8, seed=3).state_dict()
    Loader(plain(), 8, seed=3).load_state_dict(state)
    for other in (plain("squares v2"), plain(count=N + 1)):
        with pytest.raises(StateMismatchError):
            Loader(other, 8, seed=3).load_state_dict(state)
    with pytest.raises(ValueError, match="name is empty"):
        plain("")
