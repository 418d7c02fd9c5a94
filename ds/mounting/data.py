"""What reads the files of a mount."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache_runtime.mount.files import FileOptions, Files

if TYPE_CHECKING:
    from cache_runtime import Client
    from cache_runtime.mount.operations import FileOperations, Kernel
    from ds.mounting.plans import MountPlan


def open_files(client: Client, kernel: Kernel, plan: MountPlan) -> FileOperations:
    """Read through a client."""
    chosen: dict[str, Any] = {
        "ahead_bytes": plan.ahead_bytes,
        "walk_bytes": plan.prefetch_bytes,
        "read_seconds": plan.read_seconds,
    }
    return Files(client, kernel, FileOptions(**{name: value for name, value in chosen.items() if value is not None}))
