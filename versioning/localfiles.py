"""Small local files that several processes change: replaced as a whole, under a lock beside them."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from sources.locking import locked_file
from versioning.errors import StageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK_SECONDS = 30  # an update takes milliseconds


class LockedFile:
    """A file that is only ever replaced as a whole.

    Every method raises `StageUnavailableError` if the file cannot be used now.

    Args:
        path: The file; its directory is created by the first lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """Return its content; None if there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StageUnavailableError(str(self.path), reason=str(error.strerror)) from error

    def publish(self, data: bytes) -> None:
        """Replace it durably."""
        temporary = self.path.with_name(f".{self.path.name}.{os.urandom(8).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self.path)
        except OSError as error:
            raise StageUnavailableError(str(self.path), reason=str(error.strerror)) from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def remove(self) -> bool:
        """Delete it; say whether it was there."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StageUnavailableError(str(self.path), reason=str(error.strerror)) from error
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock file beside it."""
        with ExitStack() as held:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = self.path.with_name(f"{self.path.name}.lock")
                held.enter_context(locked_file(lock, seconds=_LOCK_SECONDS))
            except OSError as error:
                raise StageUnavailableError(str(self.path), reason=error.strerror or str(error)) from error
            yield
