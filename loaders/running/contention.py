"""Whether it is the interpreter's lock that the threads wait for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loaders.running.statistics import Recorder

_log = logging.getLogger(__name__)
_LOOK_BATCHES = 64
_LEAST_SECONDS = 2.0
_STALL_SHARE = 0.2
_BUSY = 1.5  # threads that are inside of decoding, on average ...
_CORES = 1.2  # ... and the cores that they get for it


def holds_the_lock(*, wall: float, waited: float, decoding: float, cpu: float) -> bool:
    """Return whether threads that decode keep each other from it, while the loop waits for them.

    Pure. They do where several are at it and get one core's time together; where threads read, they wait for a store.

    Args:
        wall: Seconds that went by.
        waited: Of these, the loop waited.
        decoding: Seconds inside of decoders, transforms and collate, summed over threads.
        cpu: Seconds of the processor for that.
    """
    if wall <= 0:
        return False
    return waited > _STALL_SHARE * wall and decoding > _BUSY * wall and cpu < _CORES * wall


class LockWatch:
    """Looks at a `Recorder` from time to time and says once that processes would be faster.

    Args:
        recorder: Whose stages.
        cores: That this process may use; with one there is nothing to gain.
    """

    def __init__(self, recorder: Recorder, *, cores: int) -> None:
        self._recorder = recorder
        self._is_over = cores < 2
        self._began: tuple[float, float, float, float] | None = None

    def look(self) -> None:
        """Look, after a batch."""
        if self._is_over or self._recorder.batches % _LOOK_BATCHES:
            return
        now = self._now()
        if self._began is None:
            self._began = now
            return
        wall, waited, decoding, cpu = (end - begin for end, begin in zip(now, self._began, strict=True))
        if wall < _LEAST_SECONDS:
            return
        self._began = now
        if holds_the_lock(wall=wall, waited=waited, decoding=decoding, cpu=cpu):
            self._is_over = True
            _log.warning(
                "the decoders or the transform hold the interpreter's lock: threads spent %.1f s in them and got %.1f s"
                ' of the processor in %.1f s, while the loop waited %.0f %% of the time; try mode="process"',
                decoding,
                cpu,
                wall,
                100 * waited / wall,
            )

    def _now(self) -> tuple[float, float, float, float]:
        stages = [self._recorder.seconds_of(stage) for stage in ("decode", "load", "collate")]
        seconds, cpu = (sum(column) for column in zip(*stages, strict=True))
        return self._recorder.clock(), self._recorder.wait, seconds, cpu
