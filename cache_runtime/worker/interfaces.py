"""What a worker needs from others: loads, and who comes next for a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache_runtime.protocol import Piece
    from cache_runtime.store.shares import Share
    from sources import Location, ObjectRef


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What `POST /v1/load` asks for.

    Attributes:
        id: Chosen by the caller, 1 to 64 of `A-Za-z0-9._-`; the same id again is the same load.
        pieces: What is to be cached here, at most `protocol.MAX_LOAD_PIECES`; every object's store is configured.
        share: Of what is filled, with what this worker promises to it.
        deadline_seconds: From now on; None: no deadline.
        request_id: For logs.
        priority: As the request says it: which load comes first, whatever the share's bytes are worth in the cache.
    """

    id: str
    pieces: Sequence[Piece]
    share: Share
    deadline_seconds: float | None
    request_id: str
    priority: int = 0


class LoadJobs(Protocol):
    """The load jobs of one worker; `worker/loads.py` has the real ones. Called from several threads.

    A job's status is a JSON object with at least `id`, `state` ("waiting", "running", "done", "failed", "cancelled"),
    `total_bytes`, `done_bytes`, `total_objects`, `done_objects`, `failed_objects`, `failures` (a list of `{uri, kind,
    reason}`, bounded). "done" means verified: all of it is there.
    """

    def submit(self, request: LoadRequest) -> Mapping[str, Any]:
        """Start a job in the background, or find the one with this id; return its status at once.

        Raises:
            ProtocolError: If another load, of other pieces, has this id.
            WorkerBusyError: If there are too many.
        """
        ...

    def statuses(self) -> Sequence[Mapping[str, Any]]:
        """Return the status of every job that is remembered, without `failures`, newest first."""
        ...

    def find(self, load_id: str) -> Mapping[str, Any] | None:
        """Return a job's status, None if there is none with this id."""
        ...

    def cancel(self, load_id: str) -> Mapping[str, Any] | None:
        """Stop a job; what it cached stays. Return its status, None if there is none with this id."""
        ...

    def stop(self, *, seconds: float) -> None:
        """Cancel all jobs and wait for their threads, at most so long; the worker is leaving."""
        ...


class Neighbours(Protocol):
    """The other workers, as placement ranks them; asked from several threads as this worker leaves."""

    def next_for(self, ref: ObjectRef, group: int) -> str | None:
        """Return the name of the first candidate for a group of blocks that is not this worker; None if it is alone.

        Cheap: called for each group.
        """
        ...

    def hand(self, name: str, items: Sequence[Location], *, share: Share, seconds: float) -> int:
        """Have a worker get and keep some ranges (a batch without bodies), and wait for it, at most so long.

        Returns:
            Bytes that it has now.

        Raises:
            PeerError: If it cannot be asked; what it got stays there.
        """
        ...
