"""What a worker sends back: the result of a task, or what went wrong as data that any process can read."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loaders.errors import PackWorkerError

if TYPE_CHECKING:
    from loaders.packing.making import ShardMaker
    from loaders.packing.tasks import ShardResult, ShardTask


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed.

    Attributes:
        pickled: The error, if it survives the journey.
        text: What it said, with where it was raised.
    """

    pickled: bytes | None
    text: str

    def error(self) -> BaseException:
        """Return the error, or one that quotes it."""
        if self.pickled is not None:
            found = pickle.loads(self.pickled)
            if isinstance(found, BaseException):
                return found
        return PackWorkerError(self.text)


def attempt(maker: ShardMaker, task: ShardTask) -> ShardResult | Failure:
    """Make a shard and never raise."""
    try:
        return maker.make(task)
    except Exception as error:  # noqa: BLE001 # raised again where the tasks come from
        return Failure(_pickled(error), f"shard {task.number}: {''.join(traceback.format_exception(error))[-4000:]}")


def unwrap(outcome: ShardResult | Failure) -> ShardResult:
    """Return a result, or raise what went wrong."""
    if isinstance(outcome, Failure):
        raise outcome.error()
    return outcome


def _pickled(error: Exception) -> bytes | None:
    """Pickle an error if it comes back as it was; some classes cannot be made from their arguments."""
    try:
        data = pickle.dumps(error)
        again = pickle.loads(data)
    except Exception:  # noqa: BLE001 # anybody's class: then its text has to do
        return None
    return data if type(again) is type(error) and str(again) == str(error) else None
