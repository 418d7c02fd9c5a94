"""Why a volume is not there, each with the gRPC status that tells the kubelet what to do.

VolumeError                 something went wrong that should not: INTERNAL
├── VolumeRequestError      the request or the volume's attributes are wrong: INVALID_ARGUMENT
├── VolumeRefusedError      the dataset is not one that this node may show: FAILED_PRECONDITION
├── VolumeNotFoundError     no such dataset, revision or path: NOT_FOUND
├── VolumeUnavailableError  a store or the API server cannot be reached; asked again it may be: UNAVAILABLE
└── VolumePendingError      it is being published or unpublished right now: ABORTED
"""

from __future__ import annotations


class VolumeError(Exception):
    """Base of all: a bug, or damage."""

    kind = "volume"
    status = "INTERNAL"


class VolumeRequestError(VolumeError, ValueError):
    """What is asked cannot be; nothing was done."""

    kind = "volume_request"
    status = "INVALID_ARGUMENT"


class VolumeRefusedError(VolumeError):
    """The dataset reads what this node's administrator has not allowed, or lacks a secret; nothing is mounted."""

    kind = "volume_refused"
    status = "FAILED_PRECONDITION"


class VolumeNotFoundError(VolumeError, KeyError):
    """There is no such dataset, revision or path; nothing is mounted."""

    kind = "volume_not_found"
    status = "NOT_FOUND"

    def __str__(self) -> str:
        return str(self.args[0])


class VolumeUnavailableError(VolumeError, OSError):
    """A store or the API server cannot be reached; nothing is mounted, and the kubelet tries again."""

    kind = "volume_unavailable"
    status = "UNAVAILABLE"


class VolumePendingError(VolumeError):
    """An earlier call for this volume has not ended; the kubelet tries again."""

    kind = "volume_pending"
    status = "ABORTED"


_BY_EXIT_CODE: dict[int, type[VolumeError]] = {
    2: VolumeRequestError,
    3: VolumeNotFoundError,
    5: VolumeRefusedError,
    69: VolumeUnavailableError,
}


def error_of_exit(code: int, message: str) -> VolumeError:
    """Return what an exit code of `ds mount` means for the kubelet."""
    return _BY_EXIT_CODE.get(code, VolumeError)(message)
