"""Where written files wait on this machine, and going on with what a process left there."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime import Outbox
from dataset_controller.quantities import parse_quantity
from ds.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ds.dataset import Dataset
    from ds.settings import Settings

_LIMIT_BYTES = 64 << 30
_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class WriteOptions:
    """Limits of writing on this machine.

    Attributes:
        outbox: Directory of what is written and not committed yet, on a local disk: `FOREBAY_OUTBOX`, else `outbox` in
            the home.
        limit_bytes: Most bytes of one dataset that wait there, `FOREBAY_OUTBOX_LIMIT`: writers wait beyond it. More
            than the largest checkpoint, less than the disk.
        wait_seconds: How long a writer waits for room before its write fails, `FOREBAY_OUTBOX_WAIT`.
        uploads: Most uploads of one transaction at a time.
    """

    outbox: Path
    limit_bytes: int = _LIMIT_BYTES
    wait_seconds: float = _WAIT_SECONDS
    uploads: int = 4

    @classmethod
    def of(cls, settings: Settings) -> WriteOptions:
        """Read the variables above.

        Raises:
            UsageError: If one of them is no quantity or number.
        """
        variables = settings.variables
        outbox = variables.get("FOREBAY_OUTBOX") or str(settings.home / "outbox")
        try:
            limit = parse_quantity(variables.get("FOREBAY_OUTBOX_LIMIT") or _LIMIT_BYTES)
            wait = float(variables.get("FOREBAY_OUTBOX_WAIT") or _WAIT_SECONDS)
            if limit <= 0 or not 0 <= wait < math.inf:
                raise ValueError("the limit must be over 0, and the wait a number of seconds from 0")
        except ValueError as error:
            raise UsageError(f"FOREBAY_OUTBOX_LIMIT or FOREBAY_OUTBOX_WAIT: {error}") from error
        return cls(Path(os.path.expanduser(outbox)).absolute(), limit, wait)


def open_outbox(dataset: Dataset, options: WriteOptions) -> Outbox:
    """Return the outbox of a dataset; nothing is created."""
    return _outbox(options.outbox / dataset.name / dataset.repository.spec.id, options)


def all_outboxes(options: WriteOptions) -> Iterator[Outbox]:
    """Yield the outboxes of every dataset that was written to on this machine, also of deleted ones."""
    if options.outbox.is_dir():
        for directory in sorted(options.outbox.glob("*/*/")):
            yield _outbox(directory, options)


def dataset_of(outbox: Outbox) -> str:
    """Return the name of the dataset that an outbox is for."""
    return outbox.directory.parent.name


def _outbox(directory: Path, options: WriteOptions) -> Outbox:
    return Outbox(directory, limit_bytes=options.limit_bytes, wait_seconds=options.wait_seconds)
