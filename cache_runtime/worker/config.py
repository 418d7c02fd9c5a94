"""What a worker is told: where it listens, who may ask, and its limits."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache_runtime.errors import WorkerConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime.store.shares import Share

MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker does at a time, and how long it waits."""

    max_connections: int = 1024
    """Further ones are answered 503 and closed. A node of 8 readers keeps some 8 to 32 to each worker."""
    max_inflight_bytes: int = 1 << 30
    """Memory for misses that are streamed and for batches; hits are sent from the file. Over it: 429."""
    max_body_bytes: int = 64 << 20
    """Largest body of a request. A load of 200,000 pieces has some 30 MiB."""
    max_header_bytes: int = 16 << 10
    """Longest request line and header field, each; a key of 1024 bytes takes 3 KiB of the line at worst."""
    disk_threads: int = 8
    """Threads that look up, check and read what is cached."""
    fill_threads: int = 32
    """Threads that wait for other workers and origins; so a slow origin does not stop the hits."""
    idle_seconds: float = 75.0
    """After it a connection is closed that has sent no complete request; longer than the clients keep theirs."""
    body_seconds: float = 60.0
    """Time for a request's body to arrive."""
    stall_seconds: float = 30.0
    """A reader that takes nothing for so long is cut off."""
    fill_seconds: float = 120.0
    """Longest wait for one block or batch from elsewhere."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM format; with `client_ca` every caller must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def server_context(self) -> ssl.SSLContext:
        """Load the files.

        Raises:
            WorkerConfigError: If one cannot be read or does not fit the others.
        """
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:  # an SSLError is one
            raise WorkerConfigError(f"TLS with certificate {self.certificate}, key {self.key}: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker.

    Raises:
        WorkerConfigError: If it would listen beyond this machine and ask for no token.
    """

    name: str
    """What placement goes by: keep it, and the worker keeps its blocks."""
    directory: Path
    """The (first) cache directory; `worker.json` in it tells this node's readers which member they are."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    url: str | None = None
    """Where others reach it, if that is not `host` and `port`."""
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """Each of them is good, so that they can be replaced one after the other."""
    token_file: Path | None = None
    """More of them, one a line; read again when it changes."""
    tls: Tls | None = None
    limits: Limits = field(default_factory=Limits)
    shares: tuple[Share, ...] = ()
    """What this node promises to shares; a request that names one of them cannot change it."""
    drain_seconds: float = 30.0
    """Time from SIGTERM to the end: first to hand blocks over, then for the answers that are under way."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise WorkerConfigError("a worker needs a name of printable characters")
        if any(len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() for token in self.tokens):
            raise WorkerConfigError(f"a token has at least {MIN_TOKEN_CHARACTERS} ASCII characters")
        if not (self.tokens or self.token_file or _is_loopback(self.host)):
            raise WorkerConfigError(
                f"a worker on {self.host!r} can be reached from other machines: give it a token"
                " (--token-file, or FOREBAY_WORKER_TOKEN), or host 127.0.0.1"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name may be any address; "" is all of them
        return host == "localhost"
