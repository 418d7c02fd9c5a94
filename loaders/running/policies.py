"""What becomes of samples that cannot be read, decoded or transformed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from xxhash import xxh3_64_intdigest

from cache_runtime import CacheError, ChecksumError
from loaders.errors import BadSamplesError, MissingExtraError
from sources import SourceChangedError, SourceError, SourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

OnError = Literal["raise", "skip", "replace"]
"""What a loader does with a bad sample.

`raise`: the loop gets the error. `skip`: its batch is one sample shorter; all ranks still take equally many steps.
`replace`: another sample takes its place, which one depends on seed, epoch and the bad sample only.
"""

_LONGEST = 500  # characters of an error in the list


class BadSample(NamedTuple):
    """A sample that was left out.

    Attributes:
        number: Of the sample in its data set.
        key: Its key, empty where the data set has none.
        epoch: When.
        step: In which batch.
        place: Where in this rank's part of the batch.
        kind: The error's type.
        error: Its text.
        replaced_by: The sample that took its place.
    """

    number: int
    key: str
    epoch: int
    step: int
    place: int
    kind: str
    error: str
    replaced_by: int | None = None


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What to do about bad samples, and when it is too much.

    Every exception of a decoder, a transform or a damaged, missing or changed object makes a sample bad. What says
    nothing about the sample is always raised: a store that does not answer or refuses its credentials, a cache that
    fails, a missing package, no memory.

    Attributes:
        on_error: See `OnError`.
        max_consecutive: So many bad samples in a row, as this rank takes them, are too many.
        max_fraction: So large a part of one epoch's samples of this rank is too much.
        attempts: Samples that are tried to replace one.
    """

    on_error: OnError = "raise"
    max_consecutive: int = 100
    max_fraction: float = 0.01
    attempts: int = 8

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ValueError(f"unknown on_error {self.on_error!r}; known: {', '.join(get_args(OnError))}")
        if self.max_consecutive < 1 or not 0 <= self.max_fraction <= 1:
            raise ValueError(
                f"limits of bad samples: {self.max_consecutive} in a row and {self.max_fraction} of an epoch;"
                " expected at least 1, and a fraction from 0 to 1"
            )

    def covers(self, error: Exception) -> bool:
        """Return whether this error makes its sample bad, and the loop goes on without it."""
        return self.on_error != "raise" and blames_sample(error)


def blames_sample(error: Exception) -> bool:
    """Return whether an error says something about its sample, not about the machine or the network."""
    if isinstance(error, (ChecksumError, SourceNotFoundError, SourceChangedError)):
        return True
    return not isinstance(error, (CacheError, SourceError, MissingExtraError, BadSamplesError, MemoryError))


def replacement(seed: int, epoch: int, number: int, attempt: int, *, size: int) -> int:
    """Return the sample that takes the place of a bad one: a pure function, whatever the rank, mode and worker."""
    words = (seed % (1 << 64), epoch, number, attempt)
    return xxh3_64_intdigest(b"".join(word.to_bytes(8, "little") for word in words)) % size


def peers_of(dataset: Any, number: int) -> range:
    """Return the samples that may take the place of a bad one: all of them, in a mixture those of the same source."""
    peers = getattr(dataset, "peers_of", None)
    return range(len(dataset)) if peers is None else peers(number)


def describe(error: Exception) -> str:
    """Return an error as one line."""
    try:
        text = " ".join(str(error).split())
    except Exception as another:  # noqa: BLE001 - the error may be anybody's, and this is about the sample
        text = f"its text cannot be told: {type(another).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def key_of(dataset: Any, number: int) -> str:
    """Return the key of a sample, empty where the data set has no keys."""
    records = getattr(dataset, "records", None)
    keys_of = getattr(records, "keys_of", None)
    if keys_of is None:
        return ""
    import numpy as np

    return str(keys_of(np.array([number]))[0])


@dataclass(slots=True)
class Ledger:
    """Counts the bad samples that this rank met, in the order of delivery.

    Attributes:
        policy: Its limits.
        share: Samples of one epoch that this rank gets.
        skipped: Left out so far.
        replaced: Replaced so far.
    """

    policy: ErrorPolicy
    share: int
    skipped: int = 0
    replaced: int = 0
    _epoch: int = -1
    _of_epoch: int = 0
    _in_a_row: int = 0
    _last: list[BadSample] = field(default_factory=list)

    def account(self, epoch: int, size: int, bad: Sequence[BadSample]) -> None:
        """Count one batch of `size` samples.

        Raises:
            BadSamplesError: If that is one too many.
        """
        if epoch != self._epoch:
            self._epoch, self._of_epoch = epoch, 0
        if not bad:
            self._in_a_row = 0
            return
        self._last = [*self._last, *bad][-10:]
        places = {one.place for one in bad}
        self._of_epoch += len(places)
        replaced = sum(one.replaced_by is not None for one in bad)
        self.replaced += replaced
        self.skipped += len(places) - replaced
        for place in range(size):
            self._in_a_row = self._in_a_row + 1 if place in places else 0
            if self._in_a_row > self.policy.max_consecutive:
                raise self._too_many(f"{self._in_a_row} samples in a row", "max_consecutive")
        if self._of_epoch > max(1.0, self.policy.max_fraction * self.share):
            raise self._too_many(f"{self._of_epoch} of this epoch's {self.share} samples", "max_fraction")

    def _too_many(self, what: str, limit: str) -> BadSamplesError:
        last = self._last[-1]
        return BadSamplesError(
            f"{what} are bad, more than the limit {limit} = {getattr(self.policy, limit)} allows; the last one is"
            f" sample {last.number} {last.key}: {last.kind}: {last.error}; look at the data, or raise the limit",
            count=self._of_epoch,
            numbers=tuple(one.number for one in self._last),
        )
