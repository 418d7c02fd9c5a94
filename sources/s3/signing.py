"""Signatures of requests without a body: AWS Signature Version 4, in the header. Pure."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from obstore.store import S3Credential

NO_BODY = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_headers(
    headers: Mapping[str, str], *, path: str, query: str, region: str, keys: S3Credential, now: datetime
) -> dict[str, str]:
    """Return the headers of a GET with those that sign it.

    "Signature Version 4 signing process", AWS; what it gives is what botocore gives.

    Args:
        headers: In lower case, `host` among them; all are signed.
        path: In percent encoding, from the first slash on.
        query: In percent encoding, sorted; "" if there is none.
        region: Of the bucket.
        keys: To sign with.
        now: In UTC.
    """
    second = f"{now:%Y%m%dT%H%M%SZ}"
    signed = {**headers, "x-amz-content-sha256": NO_BODY, "x-amz-date": second}
    if token := keys.get("token"):
        signed["x-amz-security-token"] = token
    names = sorted(signed)
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in names)
    request = f"GET\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{NO_BODY}"
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{second}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(keys["secret_access_key"], scope), text.encode(), "sha256").hex()
    credential = f"{keys['access_key_id']}/{scope}"
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return signed


@lru_cache(maxsize=8)
def _signing_key(secret: str, scope: str) -> bytes:
    """Derive the key of a day: four of the seven hashes of a signature, the same for all requests of it."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
