"""What a caller shows to workers, and what it asks of them: a bearer token, TLS."""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass, field

from cache_runtime.errors import MembershipError

_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PeerSecurity:
    """How to talk to workers; all of it optional.

    Attributes:
        token: Shown to every worker. It travels to spawned processes with a pickled client: prefer a file.
        token_file: The token is the first line of this file, read again when it changes; goes before `token`.
        ca_file: Certificates that sign the workers' ones, instead of the system's.
        cert_file, key_file: This caller's own certificate, for workers that ask for one.
    """

    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def tls_context(self) -> ssl.SSLContext:
        """Load the files.

        Raises:
            MembershipError: If one cannot be read or does not fit the others.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # an SSLError is one
            raise MembershipError(
                f"TLS to workers, ca {self.ca_file}, certificate {self.cert_file}: {error}"
            ) from error
        return context


class TokenSource:
    """The token to show now. A file that cannot be read leaves the last one in use."""

    def __init__(self, security: PeerSecurity) -> None:
        self._path = security.token_file
        self._token = security.token
        self._stamp: tuple[int, int, int] | None = None
        self._look_at = 0.0
        if self._path is not None:  # at once: while one thread reads it, others must not ask without a token
            self._look(self._path)

    def __repr__(self) -> str:
        return f"TokenSource(path={self._path!r})"

    def current(self) -> str | None:
        """Return the token; None without one."""
        now = time.monotonic()
        if self._path is not None and now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._look(self._path)
        return self._token

    def _look(self, path: str) -> None:
        try:
            stat = os.stat(path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            with open(path, encoding="ascii") as file:
                line = file.readline().strip()
        except (OSError, UnicodeDecodeError):  # being replaced: workers tell by 401 when it stays away
            return
        if line:
            self._stamp, self._token = stamp, line
