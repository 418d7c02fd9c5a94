"""Bearer tokens: several at a time, from the configuration and from a file that may change."""

from __future__ import annotations

import hmac
import logging
import time
from typing import TYPE_CHECKING

from cache_runtime.errors import WorkerConfigError
from cache_runtime.worker.config import MIN_TOKEN_CHARACTERS

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_MAX_FILE_BYTES = 64 << 10


class Tokens:
    """Say whether a request may be answered.

    Args:
        tokens: Always good.
        path: A file of more of them, one a line. It is read again at most `_LOOK_SECONDS` after it changed; while it
            cannot be read, the last ones stay good.

    Raises:
        WorkerConfigError: If the file cannot be read, or holds no usable token.
    """

    def __init__(self, tokens: tuple[str, ...], path: Path | None) -> None:
        self._fixed = [token.encode() for token in tokens]
        self._path = path
        self._found: list[bytes] = [] if path is None else _read_tokens(path)
        self._stamp = self._stamp_now()
        self._looked = time.monotonic()

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._fixed) + len(self._found)}>"

    def accept(self, authorization: str | None) -> bool:
        """Compare an Authorization header with all tokens, in a time that tells nothing about them."""
        if self._path is not None:
            self._look()
        tokens = self._fixed + self._found
        if not tokens:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        shown = given.strip().encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(token, shown) for token in tokens]
        return scheme.lower() == "bearer" and any(matches)

    def first(self) -> str | None:
        """Return the token that this worker shows to others; None without any."""
        tokens = self._fixed + self._found
        return tokens[0].decode() if tokens else None

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or self._path is None:
            return
        self._looked = now
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._found = _read_tokens(self._path)
            _log.info("tokens read again path=%s tokens=%d", self._path, len(self._found))
        except WorkerConfigError as error:
            _log.warning("tokens not read again, the last ones stay good: %s", error)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _read_tokens(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            lines = file.read(_MAX_FILE_BYTES).splitlines()
    except OSError as error:
        raise WorkerConfigError(f"token file {path}: {error.strerror}") from error
    tokens = [line.strip() for line in lines if line.strip()]
    if not tokens or any(len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() for token in tokens):
        raise WorkerConfigError(f"token file {path}: needs lines of at least {MIN_TOKEN_CHARACTERS} ASCII characters")
    return tokens
