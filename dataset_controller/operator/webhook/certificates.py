"""The certificate of the webhooks, signed by itself: what it has to be like, and when another one is due. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

LIFETIME = timedelta(days=365)
_RENEWED_BEFORE = LIFETIME / 3
_CLOCKS_DIFFER = timedelta(hours=1)


class Pair(NamedTuple):
    """A certificate and its private key, both PEM. Whoever trusts the certificate trusts this one server only."""

    certificate: bytes
    key: bytes


def make_pair(names: Sequence[str], now: datetime) -> Pair:
    """Make a certificate that is its own authority.

    Args:
        names: Of the server, in DNS.
        now: With its time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)
    return Pair(certificate.public_bytes(encoding), private)


def is_due(pair: Pair, names: Sequence[str], now: datetime) -> bool:
    """Say whether another certificate is to be made: a third of its life is left, or it is not for this server."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):  # nothing, or something else
        return True
    is_ours = key.public_key() == certificate.public_key()
    covered = set(alternatives.get_values_for_type(x509.DNSName))
    return not is_ours or not covered.issuperset(names) or now >= _end(certificate) - _RENEWED_BEFORE


def trusted(certificates: Sequence[bytes], now: datetime) -> bytes:
    """Return the `caBundle` of certificates that have not ended, each once: another replica may still serve the old."""
    good = []
    for each in certificates:
        try:
            if each not in good and now < _end(x509.load_pem_x509_certificate(each)):
                good.append(each)
        except ValueError:
            continue
    return b"".join(good)


def _end(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after_utc.astimezone(UTC)
