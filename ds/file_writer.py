"""The file objects that a transaction hands out for writing."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ds.errors import TornFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime import ParcelFile

_BUFFER_BYTES = 1 << 20


class FileWriter(io.BufferedWriter):
    """A file that is written whole. `close` finishes it; an error inside of its `with` block throws it away.

    A file that is forgotten without being closed is thrown away too: what its writer meant to add is not known.

    Args:
        raw: The local file.
        path: What it is called in the dataset.
        on_close: Called with the finished file's size and CRC-32C.
        on_discard: Called when the file is thrown away.
    """

    def __init__(
        self, raw: ParcelFile, *, path: str, on_close: Callable[[int, int], None], on_discard: Callable[[], None]
    ) -> None:
        super().__init__(raw, _BUFFER_BYTES)
        self._local = raw
        self._path = path
        self._on_close = on_close
        self._on_discard = on_discard
        self._is_settled = False

    def close(self) -> None:
        """Finish the file; outside of a transaction return when it is committed.

        Raises:
            TornFileError: If an earlier write to it failed: it is thrown away.
        """
        if self._is_settled:
            return
        try:
            if self._local.is_torn:
                raise TornFileError(self._path)
            self.flush()
            size, crc32c = self._local.size_and_sum()
        except BaseException:
            self.discard()
            raise
        self._is_settled = True
        self._local.close()
        self._on_close(size, crc32c)

    def discard(self) -> None:
        """Throw the file away."""
        if not self._is_settled:
            self._is_settled = True
            self._local.close()  # before the buffer can be flushed
            self._on_discard()

    def forget(self) -> None:
        """Throw the file away if nobody closed it, and say so."""
        if not self._is_settled:
            warnings.warn(f"{self._path} was never closed, and is thrown away", ResourceWarning, stacklevel=3)
            self.discard()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        if hasattr(self, "_is_settled"):
            self.forget()


class TextWriter(io.TextIOWrapper):
    """Text over a `FileWriter`, with the same rules."""

    @classmethod
    def over(cls, file: FileWriter, *, encoding: str | None = None, **options: Any) -> TextWriter:
        """Wrap a file, or throw it away if the options are wrong; UTF-8 by default."""
        try:
            return cls(file, encoding=encoding or "utf-8", **options)
        except BaseException:
            file.discard()
            raise

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and isinstance(self.buffer, FileWriter):
            self.buffer.discard()
        else:
            self.close()

    def __del__(self) -> None:
        with suppress(ValueError):  # there is no buffer: wrong options, or detached
            if isinstance(self.buffer, FileWriter):
                self.buffer.forget()
