"""Keys and certificates of a cluster that lives for a test run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_SECONDS = 60


def make_keys(directory: Path, *, names: str) -> None:
    """Write `ca.crt`, `server.crt` and `server.key`, and `sa.key`, `sa.pub` for the tokens of service accounts.

    Args:
        directory: An empty one.
        names: What the server is called, as OpenSSL writes it: "IP:127.0.0.1,DNS:localhost".
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=_SECONDS)

    openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    openssl("req", *_KEY, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=kube-apiserver")
    (directory / "names").write_text(f"subjectAltName={names}\n")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.crt", *signed)
    openssl("genrsa", "-out", "sa.key", "2048")
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
