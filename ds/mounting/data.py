"""What reads the files of a mount."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.mount.files import Files

if TYPE_CHECKING:
    from cache_runtime import Client
    from cache_runtime.mount.operations import FileOperations, Kernel


def open_files(client: Client, kernel: Kernel) -> FileOperations:
    """Read through a client."""
    return Files(client, kernel)
