"""What is missing after a fetch: what to try again, and what to give up and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.loading.progress import LoadFailure
from cache_runtime.loading.tally import MAX_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache_runtime.loading.pieces import Piece
    from sources import ObjectRef


class Losses:
    """One pass over what is missing.

    Args:
        known_reason: Why it makes no sense to try an object again, None if it does.
        is_left_out: Whether there was no room for an object (its id) from the start; such ones are passed over.

    Attributes:
        objects: Given up.
        failures: Why, at most 10,000.
        retries: Pieces to try again.
        is_partial: The pass was not finished.
    """

    def __init__(
        self, known_reason: Callable[[ObjectRef], LoadFailure | None], is_left_out: Callable[[bytes], bool]
    ) -> None:
        self._known_reason = known_reason
        self._is_left_out = is_left_out
        self._last = b""
        self.objects = self.retries = 0
        self.failures: list[LoadFailure] = []
        self.is_partial = True

    def sort(self, missing: Iterable[Piece]) -> Iterator[Piece]:
        """Yield what is to be tried again, and give up the rest."""
        self.is_partial = True
        for piece in missing:
            ref = piece[0]
            if self._is_left_out(ref.id):
                continue
            if self._known_reason(ref) is None:
                self.retries += 1
                yield piece
            else:
                self._give_up(ref)
        self.is_partial = False

    def count(self, missing: Iterable[Piece]) -> None:
        """Give up all of it."""
        for ref, _ in missing:
            if not self._is_left_out(ref.id):
                self._give_up(ref)
        self.is_partial = False

    def _give_up(self, ref: ObjectRef) -> None:
        if ref.id == self._last:  # another piece of the same one
            return
        self._last = ref.id
        self.objects += 1
        if len(self.failures) < MAX_FAILURES:
            failure = self._known_reason(ref)
            self.failures.append(failure or LoadFailure(ref.uri, "evicted, or no room was left for it; load again"))
