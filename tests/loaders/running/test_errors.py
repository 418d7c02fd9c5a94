"""Bad samples: raised with a name, left out or replaced, counted and listed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from loaders.errors import BadSamplesError, CollateError
from loaders.running import ErrorPolicy, Loader, read_quarantine
from loaders.running.policies import BadSample, Ledger, blames_sample, replacement
from loaders.running.quarantine import append_line
from loaders.sampler import ElasticBatchSampler
from sources import SourceNotFoundError, SourceUnavailableError
from tests.loaders.running.samples import Numbers, expected, keys, loader_threads, until_error

if TYPE_CHECKING:
    from pathlib import Path

    from loaders.running import Mode

MODES: list[Mode] = ["sync", "thread", "process"]
BAD = frozenset([7, 23])
LOOSE: dict[str, Any] = {"max_fraction": 1.0}


def made(mode: Mode, *, bad: frozenset[int] = BAD, n: int = 40, **options: Any) -> Loader[Any]:
    return Loader(Numbers(n, bad=bad), 8, seed=4, mode=mode, workers=2, collate="list", timeout=60, **options)


def order(epoch: int = 0) -> list[list[int]]:
    sampler = ElasticBatchSampler(Numbers(40), 8, seed=4)
    return [sampler.batch_at(epoch, step) for step in range(5)]


@pytest.mark.parametrize("mode", MODES)
def test_an_error_names_the_sample_after_all_batches_before_it(mode: Mode) -> None:
    loader = made(mode)
    found, error = until_error(loader, ValueError)
    first = next(step for step, batch in enumerate(order()) if BAD & set(batch))
    assert keys(found) == expected(order()[:first])
    assert loader.step == first
    number = next(one for one in order()[first] if one in BAD)
    assert any(f"sample {number}" in note and f"step {first}" in note for note in error.__notes__)
    assert str(error) == f"number {number} is bad"
    assert loader_threads() == []
    loader.close()


@pytest.mark.parametrize("mode", MODES)
def test_skipped_samples_make_their_batch_shorter(mode: Mode, tmp_path: Path) -> None:
    loader = made(mode, on_error=ErrorPolicy("skip", **LOOSE), quarantine=tmp_path / "bad.jsonl")
    for _ in range(2):
        at = loader.epoch
        assert keys(loader) == expected([one for one in batch if one not in BAD] for batch in order(at))
    stats = loader.stats()
    assert (stats.samples, stats.skipped, stats.replaced, sorted(stats.quarantined)) == (76, 4, 0, [7, 23])
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(line["number"] for line in lines) == [7, 23]
    assert lines[0]["error"] == f"number {lines[0]['number']} is bad"
    assert (lines[0]["kind"], lines[0]["rank"], lines[0]["epoch"]) == ("ValueError", 0, 0)
    assert read_quarantine(tmp_path / "bad.jsonl") == lines
    loader.close()


def test_replacements_are_the_same_in_every_mode_and_world_size() -> None:
    policy = ErrorPolicy("replace", **LOOSE)
    loaders = [made(mode, on_error=policy) for mode in MODES]
    alone, *others = [keys(loader) for loader in loaders]
    assert others == [alone, alone]
    assert loaders[1].stats().replaced == 2
    assert [len(batch) for batch in alone] == [8] * 5
    tries = [[replacement(4, 0, number, attempt, size=40) for attempt in range(8)] for number in sorted(BAD)]
    wanted = [next(f"k{number}" for number in drawn if number not in BAD) for drawn in tries]
    flat = [key for batch in order() for key in batch]
    assert [[key for batch in alone for key in batch][flat.index(number)] for number in sorted(BAD)] == wanted
    shares = [keys(made("sync", on_error=policy, rank=rank, world_size=2)) for rank in range(2)]
    assert [left + right for left, right in zip(*shares, strict=True)] == alone
    for loader in loaders:
        loader.close()


def test_a_replacement_that_is_bad_is_replaced_too() -> None:
    first = replacement(4, 0, 7, 0, size=40)
    bad = frozenset([7, first])
    loader = made("sync", bad=bad, on_error=ErrorPolicy("replace", **LOOSE))
    found = [key for batch in keys(loader) for key in batch]
    assert len(found) == 40
    assert not {f"k{number}" for number in bad} & set(found)
    assert set(loader.stats().quarantined) == bad


def test_too_many_in_a_row_are_an_error() -> None:
    loader = made("thread", bad=frozenset(range(40)), on_error=ErrorPolicy("replace"))
    with pytest.raises(BadSamplesError, match="drawn to replace it"):
        keys(loader)
    ledger = Ledger(ErrorPolicy("skip", max_consecutive=3, max_fraction=1.0), 1000)
    bad = [BadSample(place, "", 0, 0, place, "E", "e") for place in (2, 3)]
    ledger.account(0, 4, bad)
    with pytest.raises(BadSamplesError, match=r"4 samples in a row .* max_consecutive = 3"):
        ledger.account(0, 4, [one._replace(place=one.place - 2) for one in bad])
    ledger = Ledger(ErrorPolicy("skip", max_consecutive=3, max_fraction=1.0), 1000)
    for _ in range(5):
        ledger.account(0, 4, bad)  # a good one between them each time
    assert ledger.skipped == 10


def test_too_many_of_an_epoch_are_an_error_and_counted_anew_in_the_next() -> None:
    bad = [BadSample(0, "", 0, 0, 0, "E", "e")]
    ledger = Ledger(ErrorPolicy("skip", max_fraction=0.02), 100)
    for epoch in range(3):
        ledger.account(epoch, 4, bad)
        ledger.account(epoch, 4, bad)
    with pytest.raises(BadSamplesError, match=r"3 of this epoch's 100 samples .* max_fraction"):
        ledger.account(2, 4, bad)
    Ledger(ErrorPolicy("skip"), 10).account(0, 4, bad)  # one is always allowed


def test_a_batch_of_bad_samples_only_is_an_error() -> None:
    batch = order()[1]
    loader = made("thread", bad=frozenset(batch), on_error=ErrorPolicy("skip", **LOOSE))
    with pytest.raises(BadSamplesError, match="all 8 samples of epoch 0, step 1"):
        keys(loader)
    assert loader.step == 1


def test_what_says_nothing_about_a_sample_is_raised() -> None:
    class Away(Numbers):
        def one(self, number: int) -> dict[str, Any]:
            raise SourceUnavailableError(f"no answer for {number}")

    loader: Loader[Any] = Loader(Away(4), 2, mode="sync", on_error="skip", collate="list")
    with pytest.raises(SourceUnavailableError):
        keys(loader)
    assert blames_sample(SourceNotFoundError("s3://b/k"))
    assert not blames_sample(MemoryError())


def test_a_policy_checks_its_limits() -> None:
    with pytest.raises(ValueError, match="unknown on_error"):
        ErrorPolicy("ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fraction"):
        ErrorPolicy("skip", max_fraction=2)


def test_samples_that_do_not_fit_together_are_named() -> None:
    class Ragged(Numbers):
        def one(self, number: int) -> dict[str, Any]:
            return {"x": super().one(number)["x"][: number + 1]}

    loader: Loader[Any] = Loader(Ragged(4), 2, order="none", workers=2, collate="numpy")
    with pytest.raises(CollateError, match=r"sample\['x'\].*shape") as caught:
        list(loader)
    assert "epoch 0, step 0" in caught.value.__notes__[0]


def test_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    import threading

    def write(who: int) -> None:
        for number in range(50):
            append_line(tmp_path / "list", {"number": 100 * who + number, "text": "x" * 500})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_quarantine(tmp_path / "list")) == 200
