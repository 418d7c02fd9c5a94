"""SSH signatures of commits, made and checked by `ssh-keygen`."""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from versioning.commits import signed_bytes
from versioning.errors import SigningError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.commits import Commit

NAMESPACE = "forebay"
"""What the signatures are for: none made for another purpose fits."""
_SECONDS = 60.0  # somebody may have to touch a key or type a passphrase
_EMAIL = re.compile(r"<([^<>\s]+)>\s*$|^\s*([^<>\s]+)\s*$")
_KEY = re.compile(r"with (\S+) key (\S+)")
_ARMOR = "-----BEGIN SSH SIGNATURE-----"


class Verdict(StrEnum):
    """What a signature says."""

    GOOD = "good"
    """The committer's key signed this very commit."""
    UNKNOWN_KEY = "unknown key"
    """Some key signed this very commit, and nobody says that it is the committer's."""
    BAD = "bad"
    """It is no signature of this commit."""
    UNSIGNED = "unsigned"
    """There is none."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature, checked.

    Attributes:
        verdict: The answer.
        principal: The committer's e-mail address.
        key: Kind and fingerprint of the key; empty if that is not known.
    """

    verdict: Verdict
    principal: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class SshSigner:
    """Signs with an SSH key.

    Attributes:
        key: File of a private key; or of a public one whose private key an agent holds.
    """

    key: Path

    def __call__(self, data: bytes) -> str:
        """Return an armored signature.

        Raises:
            SigningError: If there is no ssh-keygen, or it cannot use the key.
        """
        done = _ssh_keygen("sign", "-n", NAMESPACE, "-f", str(self.key), data=data)
        signature = done.stdout.decode(errors="replace")
        if done.returncode or not signature.startswith(_ARMOR):
            raise SigningError(f"cannot sign with {self.key}: {_said(done)}; nothing was committed")
        return signature


def verify(commit: Commit, *, allowed_signers: Path | None) -> Verified:
    """Check the signature of a commit, as `CommitStore.read_whole` returns it.

    The principal is the committer's e-mail address (for what is committed by its author, that is the author's), at the
    time that the commit says it was made.

    Args:
        commit: As it was written, with all its parents.
        allowed_signers: Which keys are whose, as in ssh-keygen(1); None: nobody says.

    Raises:
        SigningError: If there is no ssh-keygen, or no such file.
    """
    principal = email_of(commit.committer)
    if not commit.signature:
        return Verified(Verdict.UNSIGNED, principal)
    data = signed_bytes(commit)
    with _file_with(commit.signature) as signature:
        done = _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", str(signature), data=data)
        if done.returncode:
            return Verified(Verdict.BAD, principal)
        found = _KEY.search(done.stdout.decode(errors="replace"))
        key = " ".join(found.groups()) if found else ""
        if allowed_signers is None or not principal:
            return Verified(Verdict.UNKNOWN_KEY, principal, key)
        if not allowed_signers.is_file():
            raise SigningError(f"there is no file {allowed_signers}; it says whose keys are whose, see ssh-keygen(1)")
        at = re.sub(r"\D", "", commit.committed_at[:19])
        options = ["-O", f"verify-time={at}Z"] if len(at) == len("20260131235959") else []
        arguments = [*options, "-n", NAMESPACE, "-f", str(allowed_signers), "-I", principal, "-s", str(signature)]
        done = _ssh_keygen("verify", *arguments, data=data)
    return Verified(Verdict.GOOD if done.returncode == 0 else Verdict.UNKNOWN_KEY, principal, key)


def email_of(person: str) -> str:
    """Return the e-mail address of "Ada <ada@example.org>", or all of a text without spaces; else ""."""
    match = _EMAIL.search(person)
    return (match[1] or match[2]) if match else ""


def _ssh_keygen(action: str, *arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", action, *arguments], input=data, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise SigningError("ssh-keygen is not installed; it comes with the OpenSSH client") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SigningError(f"ssh-keygen -Y {action}: {error}") from error


@contextmanager
def _file_with(signature: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="forebay-") as directory:
        file = Path(directory, "signature")
        file.write_bytes(signature.encode(errors="replace"))
        yield file


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(done.stderr.decode(errors="replace").split())[:500] or f"ssh-keygen ended with {done.returncode}"
